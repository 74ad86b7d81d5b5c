/* SPDX-License-Identifier: Apache-2.0 */
/* remote.c - the remote kind of channel: what its endpoints do on the hosts that use them.
 *
 * Nothing here knows the hub. A send becomes a klawi_sending in the outbox and its host parks; a
 * receive takes what the channel's thread has put into `arrived`. The thread (remote_serve.c) is one
 * more waiter of the channel: it sleeps in r->thread, under the same lock, and is claimed like any
 * other, so that a receive that finds nothing can wake it from within a select.
 *
 * Invariants whenever ch->lock is free:
 *   M1  arrived.n > permits  => nobody who is live waits in rq.
 *   M2  r->kick or the thread runs, whenever outbox, leavers, done or answers is not empty, or a side
 *       has closed, or nobody has an endpoint.
 *   M3  a delivery is in exactly one place: arrived, the `kept` of one open receiver, done, or the
 *       thread's hands.
 *   M4  a sending is ENDED by the thread alone, unless it never left the outbox.
 *
 * A send that gives up (deadline, cancellation, its handle closed) asks the thread to withdraw it and
 * waits for the word, shielded: the thread never waits long. What could not be withdrawn is UNCERTAIN.
 *
 * Rejected: the hub under a mutex, driven by whoever calls (a fiber would hold its worker while
 * another one encodes a frame; a receive in a select may not allocate); handing an element to the hub
 * in a select (OK there would not mean that the channel has it). */
#include "sync/remote.h"

#include <stdio.h>

#include "base/alloc.h"
#include "sync/remote_codec.h"

void klawi_remote_kick(klaw_remote *r, klawi_fx *fx) {
    r->kick = true;
    klawi_waiter *w = klawi_waitq_first(&r->thread);
    if (w)
        (void)klawi_grant(w, KLAWI_RETRY, fx); /* lost to its timer: it is awake all the same */
}

/* --- receiving --- */

static void is_done(klaw_remote *r, klawi_delivery *d, enum klawi_fate fate) {
    d->fate = fate;
    klawi_deliveries_push(&r->done, d);
}

/* What the consumer of this receiver has got so far is acknowledged (W20). */
static void settle(klaw_remote *r, klawi_end *end, enum klawi_fate fate, klawi_fx *fx) {
    if (!end->kept)
        return;
    for (klawi_delivery *d = end->kept, *next; d; d = next) {
        next = d->next;
        is_done(r, d, fate);
    }
    end->kept = NULL;
    klawi_remote_kick(r, fx);
}

static void asks(klaw_remote *r, klawi_end *end, klawi_fx *fx) {
    if (r->ack != KLAW_REMOTE_ACK_EXPLICIT)
        settle(r, end, KLAWI_ACK, fx);
}

/* Moves one out for the consumer of `end`. */
static void hand(klaw_remote *r, klawi_end *end, klawi_delivery *d, void *elem) {
    if (!d->err) {
        memcpy(elem, d->elem, r->base.size);
        d->full = false;
        r->received++;
    } else if (d->err == KLAW_LAGGED) {
        atomic_store_explicit(&end->reported, d->missed, memory_order_relaxed);
    }
    if (d->leased && !d->err && r->ack != KLAW_REMOTE_ACK_BEFORE) {
        d->next = end->kept;
        end->kept = d;
    } else {
        is_done(r, d, KLAWI_ACK);
    }
}

/* EMPTY: nothing is here for the taking. */
static klaw_err take(klaw_remote *r, klawi_end *end, void *elem, klawi_fx *fx) {
    if (r->arrived.n > r->permits) {
        klawi_delivery *d = klawi_deliveries_pop(&r->arrived);
        klaw_err e = d->err;
        hand(r, end, d, elem);
        klawi_remote_kick(r, fx);
        return e;
    }
    if (r->rx_over)
        return r->rx_over;
    if (!r->demand) {
        r->demand = true;
        klawi_remote_kick(r, fx);
    }
    return KLAW_EMPTY;
}

static klaw_err try_recv(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    klaw_remote *r = klawi_remote_of(ch);
    asks(r, end, fx);
    return take(r, end, elem, fx);
}

/* One, then what else is here: nothing of a batch is acknowledged before the next receive. */
static klaw_err recv_some(klawi_end *end, void *elems, size_t max, size_t *got, klaw_deadline d) {
    klawi_chan *ch = end->ch;
    klaw_remote *r = klawi_remote_of(ch);
    klaw_err e = klawi_chan_recv(end, elems, d);
    if (e)
        return e;
    *got = 1;
    if (max == 1)
        return KLAW_OK;
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&ch->lock);
    while (*got < max && r->arrived.n > r->permits && !r->arrived.first->err &&
           !atomic_load_explicit(&end->closed, memory_order_relaxed)) {
        (void)take(r, end, (char *)elems + *got * ch->size, &fx);
        ++*got;
    }
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
    return KLAW_OK;
}

void klawi_remote_serve(klaw_remote *r, klawi_fx *fx) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&r->base.rq); w && r->arrived.n > r->permits;
         w = next) {
        klawi_delivery *d = r->arrived.first;
        klawi_end *end = w->handle;
        void *slot = w->slot;
        bool permit = w->op == KLAWI_OP_PERMIT;
        next = klawi_waitq_next(&r->base.rq, w);
        if (!klawi_grant(w, permit ? KLAW_OK : d->err, fx))
            continue;
        if (permit)
            r->permits++;
        else
            hand(r, end, klawi_deliveries_pop(&r->arrived), slot);
    }
    if (r->rx_over && r->arrived.n <= r->permits)
        klawi_grant_all(&r->base.rq, NULL, r->rx_over, fx);
}

static klaw_err permit(klawi_chan *ch, klawi_end *end, enum klawi_side side, size_t n,
                       klawi_fx *fx) {
    klaw_remote *r = klawi_remote_of(ch);
    (void)side;
    (void)n;
    asks(r, end, fx);
    if (r->arrived.n > r->permits) {
        r->permits++;
        return KLAW_OK;
    }
    return take(r, end, NULL, fx); /* there is nothing to take: the end, or a demand */
}

static void unpermit(klawi_chan *ch, enum klawi_side side, size_t n, klawi_fx *fx) {
    klaw_remote *r = klawi_remote_of(ch);
    (void)side;
    r->permits -= n;
    klawi_remote_serve(r, fx);
}

static klaw_err redeem(klawi_chan *ch, klawi_end *end, enum klawi_side side, void *elem,
                       klawi_fx *fx) {
    klaw_remote *r = klawi_remote_of(ch);
    (void)side;
    r->permits--;
    return take(r, end, elem, fx);
}

/* --- sending --- */

static void let_go(klaw_remote_item *items, klaw_blob **blobs, size_t n) {
    for (size_t i = 0; i < n; i++)
        klaw_blob_unref(blobs[i]);
    if (n > 1)
        klawi_free(items);
}

/* Encodes n elements. items and blobs have room for one; more get a block, and *items leads to it. */
static klaw_err encode(klaw_remote *r, const char *elems, size_t n, uint32_t flags,
                       klaw_remote_item **items, klaw_blob ***blobs) {
    if (n > SIZE_MAX / 2 / (sizeof **items + sizeof **blobs))
        return KLAW_LIMIT;
    if (n > 1) {
        klaw_remote_item *block = klawi_alloc(n * (sizeof **items + sizeof **blobs));
        if (!block)
            return KLAW_NOMEM;
        *items = block;
        *blobs = (klaw_blob **)(void *)(block + n);
    }
    int64_t now = klawi_wall_clock();
    for (size_t i = 0; i < n; i++) {
        klaw_blob *b = NULL;
        klaw_err e = klawi_remote_encode(r->base.type, r->packed, elems + i * r->base.size, &b);
        if (e) {
            for (size_t k = 0; k < i; k++)
                klaw_blob_unref((*blobs)[k]);
            if (n > 1)
                klawi_free(*items);
            return e;
        }
        (*blobs)[i] = b;
        (*items)[i] = (klaw_remote_item){.data = klaw_blob_data(b),
                                         .size = klaw_blob_size(b),
                                         .sent_at = now,
                                         .flags = flags,
                                         .codec = KLAW_REMOTE_MSGPACK};
    }
    return KLAW_OK;
}

/* Under the lock, which is released: waits until s has ended. What cancels or times out does not end
 * this. */
static void await_end(klaw_remote *r, klawi_sending *s) {
    klawi_ctx *c = klawi_ctx_get();
    klawi_host *h = klawi_cur(c);
    while (s->state != KLAWI_S_ENDED) {
        klawi_waiter *w = &h->waiter;
        klawi_waiter_fill(w, h, &r->base.lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&r->base.sq, w);
        s->waiter = w;
        klawi_park_shielded(h, w, &r->base.lock);
        klawi_lock_acquire(&r->base.lock);
        s->waiter = NULL;
    }
    klawi_lock_release(&r->base.lock);
}

/* The wait is over with e: what has become of the send? */
static klaw_err gave_up(klaw_remote *r, klawi_sending *s, klaw_err e) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&r->base.lock);
    s->waiter = NULL;
    if (s->state == KLAWI_S_OUTBOX) {
        klawi_link_remove(&s->link);
        s->state = KLAWI_S_ENDED;
        s->result = KLAWI_WITHDRAWN;
    }
    if (s->state == KLAWI_S_TAKEN) {
        klawi_link_push(&r->leavers, &s->leaving);
        klawi_remote_kick(r, &fx);
        klawi_lock_release(&r->base.lock);
        klawi_fx_run(&r->base, &fx);
        klawi_lock_acquire(&r->base.lock);
        await_end(r, s);
    } else {
        klawi_lock_release(&r->base.lock);
    }
    return s->result == KLAWI_WITHDRAWN ? e : s->result;
}

/* Puts s on its way and waits for its end. */
static klaw_err deliver(klawi_end *end, klawi_sending *s, klaw_deadline d) {
    klaw_remote *r = klawi_remote_of(end->ch);
    klawi_chan *ch = end->ch;
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&ch->lock);
    klaw_err e =
        atomic_load_explicit(&end->closed, memory_order_relaxed) ? KLAW_CLOSED : r->tx_over;
    if (!e) {
        klawi_link_push(&r->outbox, &s->link);
        klawi_remote_kick(r, &fx);
    }
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
    if (e)
        return e;
    klawi_ctx *c = klawi_ctx_get();
    klawi_lock_acquire(&ch->lock);
    if (s->state == KLAWI_S_ENDED) {
        klawi_lock_release(&ch->lock);
        return s->result;
    }
    if (atomic_load_explicit(&end->closed, memory_order_relaxed)) { /* E2 */
        klawi_lock_release(&ch->lock);
        return gave_up(r, s, KLAW_CLOSED);
    }
    s->waiter = &klawi_cur(c)->waiter;
    e = klawi_chan_wait(c, end, &ch->sq, KLAWI_OP_SEND, NULL, s->n, &d);
    return gave_up(r, s, e);
}

static klaw_err send_all(klawi_end *end, const void *elems, size_t n, klaw_deadline d) {
    klaw_remote *r = klawi_remote_of(end->ch);
    klaw_remote_item item, *items = &item;
    klaw_blob *blob, **blobs = &blob;
    bool nowait = d == KLAW_NOWAIT;
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_op_begins(&e);
    if (!c)
        return e;
    if (klawi_cur(c)->kind != KLAWI_FIBER && klawi_cur(c)->kind != KLAWI_THREAD)
        return KLAW_INVALID; /* a timer's callback must not wait */
    if ((e = klaw_check()) != KLAW_OK)
        return e;
    if (nowait)
        d = KLAW_WITHIN(r->answer_ns);
    int64_t at;
    if ((e = klawi_deadline_resolve(d, KLAW_FULL, &at)) != KLAW_OK)
        return e;
    if ((e = encode(r, elems, n, nowait ? KLAW_REMOTE_NOWAIT : 0, &items, &blobs)) != KLAW_OK)
        return e;
    klawi_sending s = {.items = items, .n = n};
    e = deliver(end, &s, at);
    let_go(items, blobs, n);
    if (nowait && e == KLAW_TIMEOUT)
        e = KLAW_FULL; /* it waited for room in this process, and is withdrawn */
    if (e == KLAW_OK && r->base.type->drop) /* it was moved: only its bytes went on */
        for (size_t i = 0; i < n; i++)
            r->base.type->drop((char *)(uintptr_t)elems + i * r->base.size);
    return e;
}

static klaw_err try_send(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx) {
    (void)ch;
    (void)end;
    (void)elem;
    (void)n;
    (void)fx;
    return KLAW_TYPE;
}

/* --- endpoints --- */

static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    klaw_remote *r = klawi_remote_of(ch);
    if (end->side == KLAWI_TX) {
        r->close_tx = ch->tx_closed;
    } else {
        settle(r, end, r->ack == KLAW_REMOTE_ACK_EXPLICIT ? KLAWI_RETURN_SEEN : KLAWI_ACK, fx);
        r->close_rx = ch->rx_closed;
        for (klawi_delivery *d; ch->rx_closed && (d = klawi_deliveries_pop(&r->arrived));)
            is_done(r, d, KLAWI_RETURN_UNSEEN);
    }
    klawi_remote_kick(r, fx);
}

void klawi_remote_give_up(klaw_remote *r) {
    klawi_fx fx; /* nobody is woken: the thread calls this */
    klawi_fx_init(&fx);
    for (klawi_link *l = r->base.ends.next; l != &r->base.ends; l = l->next)
        settle(r, KLAWI_CONTAINER(l, klawi_end, open),
               r->ack == KLAW_REMOTE_ACK_EXPLICIT ? KLAWI_RETURN_SEEN : KLAWI_ACK, &fx);
    for (klawi_delivery *d; (d = klawi_deliveries_pop(&r->arrived));)
        is_done(r, d, KLAWI_RETURN_UNSEEN);
    r->kick = false;
}

static klaw_err clone_end(klawi_chan *ch, klawi_end *from, klawi_end *to) {
    (void)ch;
    (void)from;
    (void)to;
    return KLAW_OK;
}

static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    klaw_remote *r = klawi_remote_of(ch);
    out->queue_size = r->arrived.n;
    out->high_watermark = r->high;
    out->total_sent = r->sent;
    out->total_received = r->received;
    out->permits = r->permits;
    out->capacity = r->state.capacity == KLAW_NONE ? KLAW_UNBOUNDED : r->state.capacity;
    out->senders_closed = r->rx_over != KLAW_OK;
    out->receivers_closed = r->tx_over != KLAW_OK;
}

static void destroy(klawi_chan *ch) {
    klaw_remote *r = klawi_remote_of(ch);
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&ch->lock);
    r->dying = true;
    klawi_remote_kick(r, &fx);
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
    klawi_remote_release(r);
}

static const klawi_chan_ops ops = {
    .name = "remote",
    .try_send = try_send,
    .try_recv = try_recv,
    .closing = closing,
    .permit = permit,
    .unpermit = unpermit,
    .redeem = redeem,
    .stats = stats,
    .clone = clone_end,
    .destroy = destroy,
    .send = send_all,
    .recv = recv_some,
    .batches = true,
    .selects = true,
    .receives_only = true,
};

static klaw_remote *make(const klaw_transport *transport, void *user,
                         const klaw_transport_opts *o) {
    klaw_remote *r = klawi_alloc_aligned(KLAWI_LINE, sizeof *r);
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->transport = transport;
    r->user = user;
    r->packed = o->packed;
    r->ack = (uint8_t)o->hub.ack;
    r->ahead = o->ahead ? o->ahead : 32;
    r->answer_ns = o->answer_ns ? o->answer_ns : KLAW_S(10);
    r->linger_ns = o->linger_ns ? o->linger_ns : KLAW_S(3);
    atomic_init(&r->holds, 2); /* the endpoints, the thread */
    klawi_link_init(&r->thread);
    klawi_link_init(&r->outbox);
    klawi_link_init(&r->leavers);
    klawi_link_init(&r->pending);
    klawi_link_init(&r->given);
    klawi_deliveries_init(&r->arrived);
    klawi_deliveries_init(&r->done);
    r->last_answer = &r->answers;
    r->kick = true;
    return r;
}

klaw_err klaw_remote_open_sized(const klaw_type *type, const klaw_transport *transport, void *user,
                                const klaw_transport_opts *opts, size_t opts_size, klaw_sender **tx,
                                klaw_receiver **rx) {
    klaw_transport_opts o = {0};
    klaw_sender *s;
    klaw_receiver *d;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if ((!tx && !rx) || !transport || !transport->call || !transport->end)
        return KLAW_INVALID;
    klaw_err e = klawi_type_check(type);
    if (e)
        return e;
    if (o.hub.kind != KLAW_REMOTE_QUEUE || o.hub.ack > KLAW_REMOTE_ACK_BEFORE || o.answer_ns < 0 ||
        o.linger_ns < 0 || o.reads_contexts)
        return KLAW_INVALID;
    if ((e = klawi_remote_codec_check(type)) != KLAW_OK)
        return e;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    klaw_remote *r = make(transport, user, &o);
    if (!r)
        return KLAW_NOMEM;
    e = klawi_chan_open(&r->base, &ops, type, o.name ? o.name : "remote", 0, &s, &d);
    if (e) {
        klawi_free_aligned(r);
        return e;
    }
    e = klawi_remote_start(r, &o.hub, tx != NULL, rx != NULL);
    if (e) /* there is no thread: the hold it would have had */
        klawi_remote_release(r);
    if (e || !tx)
        klaw_sender_unref(s);
    if (e || !rx)
        klaw_receiver_unref(d);
    if (e)
        return e;
    if (tx)
        *tx = s;
    if (rx)
        *rx = d;
    return KLAW_OK;
}

/* --- acknowledging by hand --- */

static klaw_remote *remote_of(klawi_end *end) {
    return end->ch->ops == &ops ? klawi_remote_of(end->ch) : NULL;
}

klaw_err klaw_remote_last(klaw_receiver *rx, klaw_remote_delivery *out) {
    klaw_remote *r = rx && out ? remote_of(&rx->e) : NULL;
    if (!r)
        return KLAW_INVALID;
    klawi_lock_acquire(&r->base.lock);
    bool any = rx->e.kept != NULL;
    if (any)
        *out = rx->e.kept->about;
    klawi_lock_release(&r->base.lock);
    return any ? KLAW_OK : KLAW_NOT_FOUND;
}

static klaw_err settle_one(klaw_receiver *rx, uint64_t lease, enum klawi_fate fate) {
    klaw_remote *r = rx ? remote_of(&rx->e) : NULL;
    klawi_fx fx;
    if (!r)
        return KLAW_INVALID;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&r->base.lock);
    klawi_delivery **at = &rx->e.kept;
    while (*at && (*at)->about.lease != lease)
        at = &(*at)->next;
    klawi_delivery *d = *at;
    if (d) {
        *at = d->next;
        is_done(r, d, fate);
        klawi_remote_kick(r, &fx);
    }
    klawi_lock_release(&r->base.lock);
    klawi_fx_run(&r->base, &fx);
    return d ? KLAW_OK : KLAW_NOT_FOUND;
}

klaw_err klaw_remote_done(klaw_receiver *rx, uint64_t lease) {
    return settle_one(rx, lease, KLAWI_ACK);
}

klaw_err klaw_remote_return(klaw_receiver *rx, uint64_t lease) {
    return settle_one(rx, lease, KLAWI_RETURN_SEEN);
}

static klaw_err trouble(klawi_end *end, klaw_error_info *info) {
    klaw_remote *r = remote_of(end);
    if (!r || !info)
        return KLAW_INVALID;
    memset(info, 0, sizeof *info);
    klawi_lock_acquire(&r->base.lock);
    memcpy(info->message, r->trouble, sizeof info->message);
    memcpy(info->actor_name, r->base.name, sizeof r->base.name);
    klawi_lock_release(&r->base.lock);
    return KLAW_OK;
}

klaw_err klaw_remote_sender_trouble(klaw_sender *tx, klaw_error_info *info) {
    return tx ? trouble(&tx->e, info) : KLAW_INVALID;
}

klaw_err klaw_remote_receiver_trouble(klaw_receiver *rx, klaw_error_info *info) {
    return rx ? trouble(&rx->e, info) : KLAW_INVALID;
}
