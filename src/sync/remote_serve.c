/* SPDX-License-Identifier: Apache-2.0 */
/* remote_serve.c - the thread of a remote channel: it alone touches the hub.
 *
 * One turn: under the lock it takes over what the endpoints and the transport have left (outbox,
 * leavers, done, answers, closes); without the lock it tells the hub, hears its events, takes what has
 * arrived, decodes it, and begins the calls the hub wants; under the lock again it ends sends and
 * serves receivers. Then it sleeps until it is kicked or the hub has something due.
 *
 * Invariants:
 *   N1  hub, pending, given and what else is marked (t) are the thread's; it is the only one to end a
 *       sending it has taken.
 *   N2  every call that was begun holds the remote until its end is told, so that an answer that comes
 *       after everything finds memory; a late one is dropped.
 *   N3  after the last endpoint is gone the thread detaches the hub, and ends when that is through or
 *       linger_ns are over, whichever comes first.
 *
 * Rejected: one thread for all channels (a transport that is slow for one would hold all leases up). */
#include <stdio.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "sync/remote.h"
#include "sync/remote_codec.h"

#define RETRY KLAW_MS(20)
#define DEMAND KLAW_S(1)
#define WINDOW KLAW_MS(5)
#define IDLE KLAW_S(1)

/* The remotes whose thread runs. */
static klawi_lock list_lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link list = {&list, &list};
static _Atomic uint32_t running; /* a futex: klaw_remote_leave */

/* What a turn has taken over, and what it will leave. */
typedef struct turn {
    klaw_remote *r;
    int64_t now;
    klawi_link taken, leavers, ended;
    klawi_deliveries done, arrived;
    klawi_answer *answers;
    size_t waiting, here; /* receivers that wait, elements that lie here */
    uint64_t received;    /* elements that consumers have got so far */
    bool demand, close_tx, close_rx, dying;
} turn;

static void link_move(klawi_link *to, klawi_link *from) {
    while (!klawi_link_empty(from)) {
        klawi_link *l = from->next;
        klawi_link_remove(l);
        klawi_link_push(to, l);
    }
}

static void draw(unsigned char *out, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t got = getrandom(out + at, n - at, 0);
        if (got > 0)
            at += (size_t)got;
    }
}

/* --- what a turn takes over --- */

static int64_t due(const klaw_remote *r) {
    int64_t at = klaw_hub_deadline(r->hub);
    if (r->arrived.n && r->idle_since + IDLE < at)
        at = r->idle_since + IDLE;
    if (r->demand_until && r->demand_until < at)
        at = r->demand_until;
    if (r->retry_at && r->retry_at < at)
        at = r->retry_at;
    if (r->leave_by && r->leave_by < at)
        at = r->leave_by;
    return at;
}

/* Under the lock: what came for receivers who have not asked for a while goes back: others may wait. */
static void return_idle(klaw_remote *r, const turn *t, int64_t now) {
    bool wanted = t->waiting || r->permits || r->received != r->idle_received || !r->arrived.n;
    if (wanted)
        r->idle_since = now;
    r->idle_received = r->received;
    if (wanted || now < r->idle_since + IDLE)
        return;
    klawi_deliveries stay;
    klawi_deliveries_init(&stay);
    for (klawi_delivery *d; (d = klawi_deliveries_pop(&r->arrived));) {
        d->fate = d->leased ? KLAWI_RETURN_UNSEEN : d->fate;
        klawi_deliveries_push(d->leased ? &r->done : &stay, d);
    }
    klawi_deliveries_move(&r->arrived, &stay);
    r->idle_since = now;
}

/* Sleeps until there is something to do, and takes it over. */
static void collect(klaw_remote *r, klawi_ctx *c, turn *t) {
    klawi_lock *lock = &r->base.lock;
    klawi_host *h = klawi_cur(c);
    klawi_lock_acquire(lock);
    for (int64_t at = due(r); !r->kick && klawi_clock() < at;) {
        klawi_waiter *w = &h->waiter;
        klawi_waiter_fill(w, h, lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&r->thread, w);
        (void)klawi_park(h, w, lock, at); /* its time-out is as good as a kick */
        klawi_lock_acquire(lock);
    }
    r->kick = false;
    if (r->dying && !r->leave_by)
        klawi_remote_give_up(r);
    for (klawi_link *l = r->outbox.next; l != &r->outbox; l = l->next)
        KLAWI_CONTAINER(l, klawi_sending, link)->state = KLAWI_S_TAKEN;
    link_move(&t->taken, &r->outbox);
    link_move(&t->leavers, &r->leavers);
    for (klawi_waiter *w = klawi_waitq_first(&r->base.rq); w; w = klawi_waitq_next(&r->base.rq, w))
        t->waiting++;
    return_idle(r, t, klawi_clock());
    klawi_deliveries_move(&t->done, &r->done);
    t->answers = r->answers;
    r->answers = NULL;
    r->last_answer = &r->answers;
    t->here = r->arrived.n;
    t->received = r->received;
    t->demand = r->demand;
    t->close_tx = r->close_tx;
    t->close_rx = r->close_rx;
    t->dying = r->dying;
    klawi_lock_release(lock);
    t->now = klawi_clock();
}

/* --- the hub hears --- */

static void hear_answers(turn *t) {
    klaw_remote *r = t->r;
    for (klawi_answer *a = t->answers, *next; a; a = next) {
        next = a->next;
        if (a->failed)
            klaw_hub_failed(r->hub, t->now, a->id, a->dead, (const char *)a->data);
        else if (klaw_hub_reply(r->hub, t->now, a->id, a->data, a->size, NULL, 0) == KLAW_NOMEM)
            klaw_hub_failed(r->hub, t->now, a->id, false, "no memory for the answer");
        klawi_free(a);
    }
    t->answers = NULL;
}

static void free_delivery(klaw_remote *r, klawi_delivery *d) {
    if (d->full && r->base.type->drop)
        r->base.type->drop(d->elem);
    klawi_free(d);
}

static void hear_done(turn *t) {
    klaw_remote *r = t->r;
    for (klawi_delivery *d; (d = klawi_deliveries_pop(&t->done)) != NULL;) {
        /* NOT_FOUND: the lease went back in the meantime (W22), which is not ours to tell. */
        if (d->leased && d->fate == KLAWI_ACK)
            (void)klaw_hub_ack(r->hub, t->now, r->rx_end, d->about.lease);
        else if (d->leased)
            (void)klaw_hub_nack(r->hub, t->now, r->rx_end, d->about.lease,
                                d->fate == KLAWI_RETURN_SEEN);
        free_delivery(r, d);
    }
}

static void end_sending(turn *t, klawi_sending *s, klaw_err result) {
    s->result = result; /* not read before ENDED */
    s->over = true;
    klawi_link_remove(&s->link);
    klawi_link_push(&t->ended, &s->link);
}

/* Gives the hub what waits to be sent, in order. */
static void hear_sends(turn *t) {
    klaw_remote *r = t->r;
    for (klawi_link *l = t->taken.next; l != &t->taken; l = l->next)
        KLAWI_CONTAINER(l, klawi_sending, link)->given = false;
    link_move(&r->pending, &t->taken);
    while (!r->blocked && !klawi_link_empty(&r->pending)) {
        klawi_sending *s = KLAWI_CONTAINER(r->pending.next, klawi_sending, link);
        klaw_err e = r->tx_end ? klaw_hub_send(r->hub, t->now, r->tx_end, s->items, s->n, s->n > 1,
                                               (uint64_t)(uintptr_t)s)
                               : KLAW_CLOSED;
        if (e == KLAW_FULL) {
            r->blocked = true;
        } else if (e) {
            end_sending(t, s, e);
        } else {
            s->given = true;
            klawi_link_remove(&s->link);
            klawi_link_push(&r->given, &s->link);
        }
    }
}

static void hear_leavers(turn *t) {
    while (!klawi_link_empty(&t->leavers)) {
        klawi_sending *s = KLAWI_CONTAINER(t->leavers.next, klawi_sending, leaving);
        klawi_link_remove(&s->leaving);
        if (s->over) /* it ends in this turn anyway */
            continue;
        klaw_err e =
            s->given ? klaw_hub_withdraw(t->r->hub, t->now, (uint64_t)(uintptr_t)s) : KLAW_OK;
        if (e == KLAW_OK)
            end_sending(t, s, KLAWI_WITHDRAWN);
        else if (e == KLAW_UNCERTAIN)
            end_sending(t, s, KLAW_UNCERTAIN);
        /* NOT_FOUND: its event lies in the hub, and ends it below. */
    }
}

static void close_end(turn *t, uint64_t *end) {
    if (*end)
        (void)klaw_hub_close(t->r->hub, t->now, *end); /* closed by itself: as good */
    *end = 0;
}

/* How many receivers wait, as far as the hub has to know. */
static void hear_demand(turn *t) {
    klaw_remote *r = t->r;
    size_t want = t->waiting;
    if (t->demand && !r->demand_until)
        r->demand_until = t->now + DEMAND;
    if (want == 0 && r->demand_until && t->now < r->demand_until)
        want = 1; /* who asks without waiting asks again */
    t->waiting = want;
    want = want > t->here ? want - t->here : 0;
    if (!r->rx_end)
        want = 0;
    if (want > INT32_MAX / 2)
        want = INT32_MAX / 2;
    int delta = (int)want - r->told;
    if (delta && r->rx_end)
        klaw_hub_wait(r->hub, t->now, r->rx_end, delta);
    r->told = (int)want;
}

/* --- the hub tells --- */

static klaw_err unsent(klaw_remote *r) {
    klaw_hub_state s;
    klaw_hub_look(r->hub, &s);
    return s.broken ? KLAW_BACKEND : KLAW_CLOSED;
}

static klaw_err refused(klaw_remote *r, const klawi_sending *s) {
    klaw_hub_state now;
    klaw_hub_look(r->hub, &now);
    return now.capacity > 0 && s->n > (uint64_t)now.capacity ? KLAW_LIMIT : KLAW_FULL;
}

static void tell_events(turn *t) {
    klaw_remote *r = t->r;
    klaw_hub_event ev;
    while (klaw_hub_next_event(r->hub, &ev)) {
        klawi_sending *s = (klawi_sending *)(uintptr_t)ev.ticket;
        switch (ev.kind) {
        case KLAW_HUB_SENT: end_sending(t, s, KLAW_OK); break;
        case KLAW_HUB_REFUSED: end_sending(t, s, refused(r, s)); break;
        case KLAW_HUB_UNSENT: end_sending(t, s, unsent(r)); break;
        case KLAW_HUB_UNCERTAIN: end_sending(t, s, KLAW_UNCERTAIN); break;
        case KLAW_HUB_ROOM: r->blocked = false; break;
        case KLAW_HUB_RENAMED: {
            unsigned char client[KLAW_REMOTE_ID];
            draw(client, sizeof client);
            klaw_hub_rename(r->hub, t->now, client);
            break;
        }
        case KLAW_HUB_ITEMS:
        case KLAW_HUB_OPENED: break;
        }
    }
}

static klawi_delivery *delivery_new(klaw_remote *r) {
    klawi_delivery *d = klawi_calloc(1, sizeof *d + r->base.size);
    if (!d)
        r->retry_at = klawi_clock() + RETRY;
    return d;
}

static void fill(klaw_remote *r, klawi_delivery *d, const klaw_remote_item *item) {
    d->leased = true;
    d->about.lease = item->lease;
    d->about.seq = item->seq;
    memcpy(d->about.client, item->client, sizeof d->about.client);
    d->about.sent_at = item->sent_at;
    d->about.deadline = item->deadline;
    d->about.redelivered = (item->flags & KLAW_REMOTE_REDELIVERED) != 0;
    d->err = item->flags & KLAW_REMOTE_REFERENCE
                 ? KLAW_TYPE
                 : klawi_remote_decode(r->base.type, r->packed, item->codec, item->data, item->size,
                                       d->elem);
    d->full = d->err == KLAW_OK;
    if (d->err == KLAW_TIMEOUT || d->err == KLAW_CANCELLED || d->err == KLAW_EMPTY)
        d->err = KLAW_CORRUPT; /* those say that nothing came */
}

/* One word of the hub about what has arrived. False: the last one for now. */
static bool take_one(turn *t, klawi_delivery *d, klaw_err *over) {
    klaw_remote *r = t->r;
    klaw_remote_item item;
    uint64_t missed = 0;
    klaw_err e = klaw_hub_take(r->hub, t->now, klawi_wall_clock(), r->rx_end, &item, &missed);
    switch (e) {
    case KLAW_OK:
        fill(r, d, &item);
        klaw_remote_free((void *)(uintptr_t)item.data);
        break;
    case KLAW_LAGGED:
        d->err = e;
        d->missed = missed;
        break;
    case KLAW_STOPPED: /* told once: some may have been lost (W27) */
        d->err = KLAW_BACKEND;
        d->missed = missed;
        break;
    case KLAW_CLOSED:
    case KLAW_BACKEND:
        *over = e;
        r->taken_all = true;
        klawi_free(d);
        return false;
    case KLAW_NOMEM:
        r->retry_at = t->now + RETRY;
        klawi_free(d);
        return false;
    default: klawi_free(d); return false;
    }
    klawi_deliveries_push(&t->arrived, d);
    return true;
}

/* How many elements may lie here beyond what is asked for: as many as consumers have lately taken in a
 * few milliseconds. One that takes its time leaves the others to other processes (W18). */
static size_t ahead_of(turn *t) {
    klaw_remote *r = t->r;
    if (t->now - r->window_at > WINDOW) {
        r->before = t->now - r->window_at > 2 * WINDOW ? 0 : r->lately;
        r->lately = 0;
        r->window_at = t->now;
    }
    r->lately += t->received - r->counted;
    r->counted = t->received;
    uint64_t pace = r->lately > r->before ? r->lately : r->before;
    if (r->ack == KLAW_REMOTE_ACK_EXPLICIT || pace < 2)
        return 0;
    return pace - 1 < r->ahead ? (size_t)(pace - 1) : r->ahead;
}

/* Takes what has arrived, as much as is wanted. KLAW_OK, or what receives answer from now on. */
static klaw_err tell_items(turn *t) {
    klaw_remote *r = t->r;
    klaw_err over = KLAW_OK;
    size_t most = t->waiting + ahead_of(t);
    while (r->rx_end && !r->taken_all && t->here + t->arrived.n < most) {
        klawi_delivery *d = delivery_new(r);
        if (!d || !take_one(t, d, &over))
            break;
    }
    return over;
}

static void free_call(klaw_hub_call *call) {
    klaw_remote_free(call->data);
    klaw_remote_free(call->attachments);
}

static void tell_calls(turn *t) {
    klaw_remote *r = t->r;
    klaw_hub_call call;
    while (klaw_hub_next_call(r->hub, t->now, &call)) {
        atomic_fetch_add_explicit(&r->holds, 1, memory_order_relaxed); /* N2 */
        klaw_err e = r->transport->call(r->user, r, &call);
        if (e == KLAW_OK)
            continue;
        free_call(&call);
        klaw_hub_failed(r->hub, t->now, call.id, e == KLAW_BACKEND, klaw_err_text(e));
        klawi_remote_release(r);
    }
}

/* --- what a turn leaves --- */

static void leave_behind(turn *t, klaw_err over) {
    klaw_remote *r = t->r;
    klawi_chan *ch = &r->base;
    klawi_fx fx;
    klaw_hub_state state;
    klaw_hub_look(r->hub, &state);
    const char *trouble = klaw_hub_trouble(r->hub);
    uint64_t n = t->arrived.n;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&ch->lock);
    r->state = state;
    if (trouble && *trouble)
        snprintf(r->trouble, sizeof r->trouble, "%s", trouble);
    if (!r->tx_over && state.broken)
        r->tx_over = KLAW_BACKEND;
    if (!r->tx_over && state.closed_to_send)
        r->tx_over = KLAW_CLOSED;
    if (!r->rx_over)
        r->rx_over = over;
    if (t->dying) {
        r->tx_over = r->tx_over ? r->tx_over : KLAW_STOPPED;
        r->rx_over = r->rx_over ? r->rx_over : KLAW_STOPPED;
    }
    while (!klawi_link_empty(&t->ended)) {
        klawi_sending *s = KLAWI_CONTAINER(t->ended.next, klawi_sending, link);
        klawi_link_remove(&s->link);
        if (s->leaving.next) /* it gave up a moment ago */
            klawi_link_remove(&s->leaving);
        s->state = KLAWI_S_ENDED;
        r->sent += s->result == KLAW_OK ? s->n : 0;
        if (s->waiter)
            (void)klawi_grant(s->waiter, KLAW_OK, &fx); /* lost: it looks at the state */
    }
    if (ch->rx_closed || t->dying) /* nobody wants it any more */
        for (klawi_delivery *d; (d = klawi_deliveries_pop(&t->arrived));) {
            d->fate = KLAWI_RETURN_UNSEEN;
            klawi_deliveries_push(&r->done, d);
            r->kick = true;
        }
    if (n)
        r->idle_since = t->now;
    klawi_deliveries_move(&r->arrived, &t->arrived);
    if (r->arrived.n > r->high)
        r->high = r->arrived.n;
    klawi_remote_serve(r, &fx);
    if (n || (r->demand_until && t->now >= r->demand_until)) {
        r->demand = false;
        r->demand_until = 0;
        r->kick |= n > 0; /* who waits now is to be counted again */
    }
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
}

/* One turn; true: it was the last one. */
static bool drive(klaw_remote *r, klawi_ctx *c) {
    turn t = {.r = r};
    klawi_link_init(&t.taken);
    klawi_link_init(&t.leavers);
    klawi_link_init(&t.ended);
    klawi_deliveries_init(&t.done);
    klawi_deliveries_init(&t.arrived);
    collect(r, c, &t);
    if (r->retry_at && t.now >= r->retry_at)
        r->retry_at = 0;
    hear_answers(&t);
    klaw_hub_tick(r->hub, t.now);
    tell_events(&t); /* before the leavers: what has happened has happened */
    hear_sends(&t);
    hear_leavers(&t);
    hear_done(&t);
    if (t.close_tx && klawi_link_empty(&r->pending))
        close_end(&t, &r->tx_end);
    if (t.close_rx)
        close_end(&t, &r->rx_end);
    hear_demand(&t);
    if (t.dying && !r->leave_by) {
        r->leave_by = t.now + r->linger_ns;
        close_end(&t, &r->tx_end);
        klaw_hub_detach(r->hub, t.now);
    }
    tell_events(&t);
    klaw_err over = tell_items(&t);
    tell_calls(&t);
    tell_events(&t);
    hear_sends(&t); /* there may be room again */
    leave_behind(&t, over);
    return r->leave_by && (klaw_hub_idle(r->hub) || klawi_clock() >= r->leave_by);
}

/* --- the thread --- */

/* Nobody drives any more: sends that are left end. */
static void end_all(klaw_remote *r) {
    turn t = {.r = r};
    klawi_link_init(&t.ended);
    klawi_lock_acquire(&r->base.lock);
    r->left = true;
    klawi_link_init(&t.taken);
    link_move(&t.taken, &r->outbox);
    klawi_lock_release(&r->base.lock);
    for (klawi_link *from = &t.taken; from; from = from == &t.taken ? &r->pending : NULL)
        while (!klawi_link_empty(from))
            end_sending(&t, KLAWI_CONTAINER(from->next, klawi_sending, link), KLAWI_WITHDRAWN);
    while (!klawi_link_empty(&r->given))
        end_sending(&t, KLAWI_CONTAINER(r->given.next, klawi_sending, link), KLAW_UNCERTAIN);
    klawi_deliveries_init(&t.arrived);
    t.dying = true;
    leave_behind(&t, KLAW_STOPPED);
}

static void *thread_main(void *arg) {
    klaw_remote *r = arg;
    klawi_ctx *c;
    while (!(c = klawi_ctx_need(NULL)))
        klawi_thread_nap(RETRY);
    /* The broker hears of every endpoint, of those, too, that close before it can: an empty side is
     * closed when it was not empty once (W8). */
    turn first = {.r = r, .now = klawi_clock()};
    tell_calls(&first);
    while (!drive(r, c)) {}
    end_all(r);
    r->transport->end(r->user);
    klaw_hub_free(r->hub);
    r->hub = NULL;
    klawi_lock_acquire(&list_lock);
    klawi_link_remove(&r->live);
    klawi_lock_release(&list_lock);
    klawi_remote_release(r);
    klawi_thread_host_drop();
    atomic_fetch_sub_explicit(&running, 1, memory_order_release);
    klawi_futex_wake(&running, INT32_MAX);
    return NULL;
}

void klawi_remote_release(klaw_remote *r) {
    if (atomic_fetch_sub_explicit(&r->holds, 1, memory_order_acq_rel) != 1)
        return;
    klawi_delivery *d;
    while ((d = klawi_deliveries_pop(&r->arrived)) || (d = klawi_deliveries_pop(&r->done)))
        free_delivery(r, d);
    for (klawi_answer *a = r->answers, *next; a; a = next) {
        next = a->next;
        klawi_free(a);
    }
    klawi_free_aligned(r);
}

klaw_err klawi_remote_start(klaw_remote *r, const klaw_hub_opts *hub, bool tx, bool rx) {
    static const unsigned char none[KLAW_REMOTE_ID];
    klaw_hub_opts o = *hub;
    klawi_thread_id id;
    if (memcmp(o.client, none, sizeof none) == 0)
        draw(o.client, sizeof o.client);
    o.drop = NULL; /* attachments are not carried */
    o.share = NULL;
    klaw_err e = klaw_hub_new(&o, &r->hub);
    if (e)
        return e;
    int64_t now = klawi_clock();
    if (tx)
        e = klaw_hub_open(r->hub, now, KLAW_REMOTE_SENDER, NULL, &r->tx_end);
    if (!e && rx)
        e = klaw_hub_open(r->hub, now, KLAW_REMOTE_RECEIVER, NULL, &r->rx_end);
    if (!e) {
        atomic_fetch_add_explicit(&running, 1, memory_order_relaxed);
        klawi_lock_acquire(&list_lock);
        klawi_link_push(&list, &r->live);
        klawi_lock_release(&list_lock);
        e = klawi_fail_point() ? KLAW_SYSTEM
                               : klawi_thread_start(&id, "klaw-remote", thread_main, r);
        if (e) {
            klawi_lock_acquire(&list_lock);
            klawi_link_remove(&r->live);
            klawi_lock_release(&list_lock);
            atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
        }
    }
    if (e) {
        klaw_hub_free(r->hub);
        r->hub = NULL;
        return e;
    }
    klawi_thread_detach(id);
    return KLAW_OK;
}

/* --- the transport's side --- */

static void answer(klaw_remote *r, klawi_answer *a) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&r->base.lock);
    bool late = r->left;
    if (!late) {
        *r->last_answer = a;
        r->last_answer = &a->next;
        klawi_remote_kick(r, &fx);
    }
    klawi_lock_release(&r->base.lock);
    klawi_fx_run(&r->base, &fx);
    if (late)
        klawi_free(a);
    klawi_remote_release(r);
}

static klawi_answer *answer_new(uint64_t id, const void *data, size_t size) {
    klawi_answer *a = size > SIZE_MAX - sizeof *a ? NULL : klawi_alloc(sizeof *a + size);
    if (!a)
        return NULL;
    *a = (klawi_answer){.id = id, .size = size};
    if (size)
        memcpy(a->data, data, size);
    return a;
}

klaw_err klaw_remote_reply(klaw_remote *r, uint64_t id, const void *data, size_t size) {
    klawi_answer *a = answer_new(id, data, size);
    klaw_err e = KLAW_OK;
    if (!a) {
        e = KLAW_NOMEM;
        if ((a = answer_new(id, "", 1)) == NULL) { /* it will be missed: the hub asks again */
            klawi_remote_release(r);
            return e;
        }
        a->failed = true;
    }
    answer(r, a);
    return e;
}

void klaw_remote_failed(klaw_remote *r, uint64_t id, bool dead, const char *message) {
    char text[256];
    snprintf(text, sizeof text, "%s", message ? message : "");
    klawi_answer *a = answer_new(id, text, strlen(text) + 1);
    if (!a) {
        klawi_remote_release(r);
        return;
    }
    a->failed = true;
    a->dead = dead;
    answer(r, a);
}

klaw_err klaw_remote_leave(klaw_deadline deadline) {
    int64_t at = 0;
    klaw_err e = klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &at);
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&list_lock);
    for (klawi_link *l = list.next; l != &list; l = l->next) {
        klaw_remote *r = KLAWI_CONTAINER(l, klaw_remote, live);
        klawi_lock_acquire(&r->base.lock);
        r->dying = true;
        klawi_remote_kick(r, &fx);
        klawi_lock_release(&r->base.lock);
    }
    klawi_lock_release(&list_lock);
    klawi_wakes_run(&fx.wakes);
    for (uint32_t n; (n = atomic_load_explicit(&running, memory_order_acquire)) > 0;) {
        if (e || klawi_clock() >= at)
            return KLAW_TIMEOUT;
        klawi_futex_wait(&running, n, at);
    }
    return KLAW_OK;
}
