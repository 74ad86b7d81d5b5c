/* SPDX-License-Identifier: Apache-2.0 */
/* mailbox.c - what gets into an actor, and in which order it comes out: send, ask, system messages.
 *
 * One lock, one ring of envelopes with their messages inline, a list of system messages, a queue of
 * senders that wait for room. An asker waits nowhere: its envelope names host and epoch, and whoever
 * ends the envelope claims the host and writes the answer to its slot. So an ask allocates nothing,
 * and its answer takes no lock.
 *
 * Invariants whenever a->lock is free (klawi_mailbox_check, debug builds); len = tail - head:
 *   A1  at most one incarnation (a->self); only its fiber takes anything out.
 *   A2  the incarnation rests and accepts (a->idle, still armed) => no system message, nothing to end,
 *       len == 0. Whoever adds something claims it, or hands the message straight over.
 *   A3  a live sender waits => open, and len + permits >= room; then the ring holds `room` messages:
 *       who makes room never needs memory.
 *   A4  an accepted message is handled once or dropped once.
 *   A5  an asker that waits is named by exactly one of: an envelope in the ring, the envelope in
 *       hand, a promise. Each of them is ended by a claim, so no asker is forgotten.
 *   A6  ended => nobody waits here and nothing is in the ring.
 *   A8  system messages are parts of what they tell about: delivering one needs neither room nor
 *       memory.
 * (A7, A9: bond.c.)
 *
 * Wake-up: a sender that finds the incarnation at rest claims it and writes the message into its hand;
 * who takes a message out moves the first waiting sender's in. An asker that waits for room is given
 * a permit (it has to arm before its envelope may be seen), which it uses or gives back.
 *
 * Rejected: the mpmc channel as the mailbox. It has no place for system messages before the others,
 * and an answer would need a second channel; a list of askers (each answer would take the lock). */
#include "base/alloc.h"
#include "actor/actor.h"
#include "sched/trace.h"

#define RING_FIRST 8u

typedef struct pending {
    const void *message;
    klaw_context *context;
} pending;

static inline uint64_t len(const klaw_actor *a) {
    return a->tail - a->head;
}
static inline char *cell(const klaw_actor *a, uint64_t i) {
    return a->ring + (i & a->mask) * a->cell;
}
static inline bool ring_holds(const klaw_actor *a, uint64_t n) {
    return a->ring && len(a) + n <= a->mask + 1;
}
static inline bool has(const klawi_waitq *q) {
    return q->next != q;
}
static klawi_waiter *first_live(klawi_waitq *q) {
    klawi_waiter *w = klawi_waitq_first(q);
    while (w && !klawi_waiter_live(w))
        w = klawi_waitq_next(q, w);
    return w;
}

void klawi_mailbox_check(klaw_actor *a) {
#if defined(KLAWI_DEBUG)
    klawi_waiter *w = first_live(&a->sq);
    if (a->idle && (atomic_load_explicit(&a->idle->host->word, memory_order_relaxed) &
                    ~(KLAWI_CANCEL | KLAWI_SHIELD)) == (a->idle->epoch | KLAWI_ARMED)) {
        KLAWI_ASSERT(a->idle == a->self); /* A1 */
        KLAWI_ASSERT(!a->accepts ||
                     (len(a) == 0 && klawi_link_empty(&a->sys) && !a->closed && !a->halt)); /* A2 */
    }
    if (w) {
        KLAWI_ASSERT(!a->closed && len(a) + a->permits >= a->room); /* A3 */
        KLAWI_ASSERT(a->ring && a->mask + 1 >= a->room);            /* A3 */
    }
    KLAWI_ASSERT(!a->ended || (a->closed && !a->self)); /* A6 */
#else
    (void)a;
#endif
}

/* --- letting the incarnation know --- */

/* Claims it for `result`; NULL: it does not rest. */
static klawi_host *idle_claim(klaw_actor *a, klaw_err result) {
    klaw_self *s = a->idle;
    if (!s || KLAWI_MUTANT(A2_NO_NUDGE))
        return NULL;
    a->idle = NULL;
    a->accepts = false;
    if (!klawi_claim(s->host, s->epoch))
        return NULL; /* a canceller was first: it will look by itself */
    s->host->result = (int32_t)result;
    return s->host;
}

void klawi_mailbox_nudge(klaw_actor *a, klawi_wakes *wakes) {
    klawi_host *h = idle_claim(a, KLAWI_LOOK);
    if (h)
        klawi_wakes_add(wakes, &h->waiter);
}

void klawi_mailbox_sys(klaw_actor *a, klawi_sys *sys, klawi_wakes *wakes) {
    klawi_link_push(&a->sys, &sys->link);
    klawi_mailbox_nudge(a, wakes);
}

static void put(klaw_actor *a, klawi_host *asker, uint64_t epoch, klaw_context *context,
                const void *message) {
    char *c = cell(a, a->tail);
    *(klawi_envelope *)(void *)c =
        (klawi_envelope){.asker = asker, .epoch = epoch, .context = context};
    klawi_message_copy(c + sizeof(klawi_envelope), message, a->size);
    a->tail++;
    a->asks += asker != NULL;
    if (len(a) > a->high)
        a->high = len(a);
}

/* Into the hand of the resting incarnation, or else into the ring, which holds it. The host to be
 * readied; NULL: none. */
static inline klawi_host *deliver(klaw_actor *a, klawi_host *asker, uint64_t epoch,
                                  klaw_context *context, const void *message) {
    klaw_self *s = a->idle;
    if (KLAWI_LIKELY(s && a->accepts)) {
        klawi_host *h = idle_claim(a, KLAW_OK);
        if (KLAWI_LIKELY(h != NULL)) {
            s->env.asker = asker;
            s->env.epoch = epoch;
            s->env.context = context;
            klawi_message_copy(s->message, message, a->size);
            return h;
        }
    }
    put(a, asker, epoch, context, message);
    return NULL;
}

/* While there is room the first senders' messages go in (A3). */
static void admit(klaw_actor *a, klawi_wakes *wakes) {
    klawi_waiter *next;
    bool any = false;
    if (a->closed || KLAWI_MUTANT(A3_NO_ADMIT))
        return;
    for (klawi_waiter *w = klawi_waitq_first(&a->sq); w && len(a) + a->permits < a->room;
         w = next) {
        next = klawi_waitq_next(&a->sq, w);
        pending *p = w->slot;
        bool ask = w->op == KLAWI_OP_RESERVE;
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        if (ask) {
            a->permits++;
        } else {
            KLAWI_ASSERT(ring_holds(a, 1 + a->permits)); /* A3 */
            put(a, NULL, 0, p->context, p->message);
            any = true;
        }
        w->host->result = KLAW_OK;
        klawi_wakes_add(wakes, w);
    }
    if (any)
        klawi_mailbox_nudge(a, wakes);
}

void klawi_mailbox_close(klaw_actor *a, klawi_wakes *wakes) {
    klawi_waiter *next;
    a->closed = true;
    for (klawi_waiter *w = klawi_waitq_first(&a->sq); w; w = next) {
        next = klawi_waitq_next(&a->sq, w);
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        w->host->result = KLAW_STOPPED;
        klawi_wakes_add(wakes, w);
    }
    klawi_mailbox_nudge(a, wakes);
}

/* Doubles the ring; the copy is made under the lock, the memory before. */
static KLAWI_COLD klaw_err grow(klaw_actor *a) {
    klawi_lock_acquire(&a->lock);
    uint64_t size = a->ring ? a->mask + 1 : RING_FIRST, want = len(a) + a->permits + 1;
    klawi_lock_release(&a->lock);
    while (size < want)
        size *= 2;
    if (size > SIZE_MAX / 2 / a->cell)
        return KLAW_NOMEM;
    char *ring = klawi_alloc(size * a->cell), *old = ring;
    if (!ring)
        return KLAW_NOMEM;
    klawi_lock_acquire(&a->lock);
    if (!a->ended && (!a->ring || a->mask + 1 < size)) {
        for (uint64_t i = a->head; i != a->tail; i++)
            memcpy(ring + (i & (size - 1)) * a->cell, cell(a, i), a->cell);
        old = a->ring;
        a->ring = ring;
        a->mask = size - 1;
    }
    klawi_lock_release(&a->lock);
    klawi_free(old);
    return KLAW_OK;
}

/* --- send --- */
static inline klaw_context *context_of(klawi_host *h) {
    klaw_context *c = h->kind == KLAWI_FIBER    ? klawi_fiber_of(h)->context
                      : h->kind == KLAWI_THREAD ? klawi_thread_of(h)->context
                                                : NULL;
    return klawi_context_ref(c);
}

static inline bool can_wait(const klawi_host *h) {
    return h->kind == KLAWI_FIBER || h->kind == KLAWI_THREAD;
}

/* An operation begins: the caller's context, NULL with *e when it must not go on. */
static klawi_ctx *op_begins(klaw_err *e) {
    klawi_ctx *c = klawi_ctx_need(e);
    if (!c)
        return NULL;
    if (KLAWI_UNLIKELY(klawi_budget_take(c))) {
        *e = klawi_budget_spent(c);
        if (*e)
            return NULL;
        c = klawi_ctx_get();
    }
    return c;
}

/* Under the lock, which it releases: waits for room. OK: granted. */
static klaw_err wait_room(klaw_actor *a, klawi_host *h, uint8_t op, pending *p, klaw_deadline d) {
    klawi_waiter *w = &h->waiter;
    klawi_host_waits(h, KLAWI_WAIT_TELL, a->id);
    klawi_waiter_fill(w, h, &a->lock, op, p, a);
    klawi_waitq_push(&a->sq, w);
    return klawi_park(h, w, &a->lock, d);
}

static KLAWI_NOINLINE klaw_err send_slow(klaw_actor *a, const void *message, klaw_deadline d) {
    klaw_err e = KLAW_OK;
    for (;;) {
        klawi_ctx *c = op_begins(&e);
        if (!c)
            return e;
        klawi_host *h = klawi_cur(c), *wake = NULL;
        pending p = {message, context_of(h)};
        klawi_lock_acquire(&a->lock);
        if (a->closed) {
            e = KLAW_STOPPED;
        } else if (len(a) + a->permits < a->room && !first_live(&a->sq)) {
            if (ring_holds(a, 1 + a->permits)) {
                wake = deliver(a, NULL, 0, p.context, message);
                klawi_mailbox_check(a);
                klawi_lock_release(&a->lock);
                if (wake)
                    klawi_ready(wake);
                return KLAW_OK;
            }
            klawi_lock_release(&a->lock);
            klawi_context_unref(p.context);
            if ((e = grow(a)) != KLAW_OK)
                return e;
            continue;
        } else if (d == KLAW_NOWAIT || !can_wait(h) || (a->self && a->self->host == h)) {
            e = KLAW_FULL; /* waiting for oneself would be for ever */
        } else {
            e = klawi_deadline_resolve(d, KLAW_FULL, &d);
        }
        if (e) {
            klawi_lock_release(&a->lock);
            klawi_context_unref(p.context);
            return e;
        }
        e = wait_room(a, h, KLAWI_OP_SEND, &p, d);
        if (e)
            klawi_context_unref(p.context);
        return e;
    }
}

klaw_err klaw_actor_send(klaw_actor *a, const void *message, klaw_deadline deadline) {
    if (KLAWI_UNLIKELY(!a || !message))
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_get();
    if (KLAWI_UNLIKELY(!c || klawi_budget_take(c)))
        return send_slow(a, message, deadline);
    klaw_context *context = context_of(klawi_cur(c));
    klawi_lock_acquire(&a->lock);
    if (KLAWI_LIKELY(!a->closed && !has(&a->sq) && len(a) + a->permits < a->room &&
                     ring_holds(a, 1 + a->permits))) {
        klawi_host *wake = deliver(a, NULL, 0, context, message);
        klawi_mailbox_check(a);
        klawi_lock_release(&a->lock);
        if (wake)
            klawi_ready(wake);
        return KLAW_OK;
    }
    klawi_lock_release(&a->lock);
    klawi_context_unref(context);
    return send_slow(a, message, deadline);
}

klaw_err klawi_actor_send_copy(klaw_actor *a, const klaw_type *type, const void *message,
                               void *copy, klaw_deadline deadline) {
    klaw_err e = KLAW_OK;
    if (type->share)
        e = type->share(message, copy);
    else
        memcpy(copy, message, type->size);
    if (e)
        return e;
    e = klaw_actor_send(a, copy, deadline);
    if (e && type->drop)
        type->drop(copy);
    return e;
}

/* --- ask --- */

/* Under the lock, which it releases; there is room. Arms first: from then on the answer may come. */
static inline klaw_err ask_push(klaw_actor *a, klawi_host *h, klaw_context *context,
                                const void *message, void *reply, klaw_deadline d) {
    klawi_waiter *w = &h->waiter;
    klawi_waiter_fill(w, h, &a->lock, KLAWI_OP_NONE, reply, a);
    uint64_t epoch = w->epoch;
    w->epoch = 0; /* hangs nowhere: klawi_finish_claimed */
    if (KLAWI_LIKELY(h->kind == KLAWI_FIBER))
        atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&klawi_thread_of(h)->flag, 0, memory_order_relaxed);
    if (KLAWI_UNLIKELY(!klawi_arm(h, epoch))) {
        klawi_wakes wakes;
        klawi_wakes_init(&wakes);
        admit(a, &wakes); /* a permit may have been given back */
        klawi_lock_release(&a->lock);
        klawi_wakes_run(&wakes);
        klawi_context_unref(context);
        return KLAWI_LOOK; /* nothing has moved */
    }
    klawi_host_waits(h, KLAWI_WAIT_ASK, a->id);
    klawi_host *wake = deliver(a, h, epoch, context, message);
    if (KLAWI_UNLIKELY(has(&a->sq))) { /* handed over, the permit's slot is free */
        klawi_wakes wakes;
        klawi_wakes_init(&wakes);
        admit(a, &wakes);
        klawi_mailbox_check(a);
        klawi_lock_release(&a->lock);
        klawi_wakes_run(&wakes);
        if (wake)
            klawi_ready(wake);
        return klawi_park_armed(h, epoch, d);
    }
    klawi_mailbox_check(a);
    klawi_lock_release(&a->lock);
    if (KLAWI_LIKELY(wake != NULL))
        klawi_ready(wake);
    return klawi_park_armed(h, epoch, d);
}

/* What keeps an ask from going in now. Under the lock. EMPTY: the ring has to grow. */
static inline klaw_err ask_obstacle(klaw_actor *a, klawi_host *h, bool permit) {
    if (KLAWI_UNLIKELY(a->closed))
        return KLAW_STOPPED;
    if (KLAWI_UNLIKELY(a->self && a->self->host == h))
        return KLAW_INVALID;
    if (!permit && (len(a) + a->permits >= a->room || (has(&a->sq) && first_live(&a->sq))))
        return KLAW_FULL;
    return ring_holds(a, 1 + a->permits) ? KLAW_OK : KLAW_EMPTY;
}

static klaw_err ask_moved(klaw_actor *a, const void *message, void *reply, klaw_deadline deadline,
                          bool *moved) {
    bool ignored, permit = false;
    klaw_err e = KLAW_OK;
    if (!moved)
        moved = &ignored;
    *moved = false;
    if (KLAWI_UNLIKELY(!a || !message || !reply || deadline == KLAW_NOWAIT || !a->reply_size))
        return KLAW_INVALID;
    if (deadline != KLAW_FOREVER &&
        (e = klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &deadline)) != KLAW_OK)
        return e;
    for (;;) {
        klawi_wakes wakes;
        klawi_ctx *c = klawi_ctx_get();
        if (KLAWI_UNLIKELY(!c || klawi_budget_take(c))) {
            c = klawi_ctx_need(&e);
            if (c && !permit)
                e = klawi_budget_spent(c);
            if (!c || e)
                return e;
            c = klawi_ctx_get();
        }
        klawi_host *h = klawi_cur(c);
        if (KLAWI_UNLIKELY(!can_wait(h)))
            return KLAW_INVALID;
        klaw_context *context = context_of(h);
        klawi_lock_acquire(&a->lock);
        a->permits -= permit;
        e = ask_obstacle(a, h, permit);
        if (KLAWI_LIKELY(e == KLAW_OK)) {
            e = ask_push(a, h, context, message, reply, deadline);
            *moved = e != KLAWI_LOOK;
            return KLAWI_UNLIKELY(e == KLAWI_LOOK) ? KLAW_CANCELLED : e;
        }
        klawi_context_unref(context);
        if (e == KLAW_FULL) {
            e = wait_room(a, h, KLAWI_OP_RESERVE, NULL, deadline);
            if (e)
                return e;
            permit = true;
            continue;
        }
        klawi_wakes_init(&wakes);
        if (permit)
            admit(a, &wakes);
        klawi_lock_release(&a->lock);
        klawi_wakes_run(&wakes);
        if (e != KLAW_EMPTY || (e = grow(a)) != KLAW_OK)
            return e;
    }
}

static KLAWI_NOINLINE klaw_err ask_traced(klaw_actor *a, const void *message, void *reply,
                                          klaw_deadline deadline, bool *moved) {
    klawi_span span;
    klawi_span_begin(&span);
    klaw_err e = ask_moved(a, message, reply, deadline, moved);
    klawi_span_end(&span, KLAW_SPAN_ASK, a ? klaw_actor_name(a) : "", e);
    return e;
}

klaw_err klaw_actor_ask_moved(klaw_actor *a, const void *message, void *reply,
                              klaw_deadline deadline, bool *moved) {
    if (KLAWI_UNLIKELY(atomic_load_explicit(&klawi_collector, memory_order_relaxed) != NULL))
        return ask_traced(a, message, reply, deadline, moved);
    return ask_moved(a, message, reply, deadline, moved);
}

/* --- taking out --- */

/* The next message that somebody still wants, into the hand. Under the lock. False: an ask that had
 * expired is in the hand, to be dropped. */
static inline bool pop(klaw_self *s, klaw_actor *a) {
    char *c = cell(a, a->head);
    s->env = *(klawi_envelope *)(void *)c;
    klawi_message_copy(s->message, c + sizeof(klawi_envelope), a->size);
    a->head++;
    a->asks -= s->env.asker != NULL;
    if (s->env.asker && !klawi_asker_waits(&s->env) && !KLAWI_MUTANT(A4_START_EXPIRED)) {
        a->expired++;
        return false;
    }
    return true;
}

/* The message in hand is not handled: it is dropped, its asker gets `why`. */
void klawi_mailbox_discard(klaw_self *s, klaw_err why) {
    klaw_actor *a = s->actor;
    if (s->env.asker)
        (void)klawi_asker_answer(s->env.asker, s->env.epoch, why, NULL, 0);
    if (a->behavior->message->drop)
        a->behavior->message->drop(s->message);
    klawi_context_unref(s->env.context);
}

/* Under the lock, which it releases: rests until there is something to do. */
static inline klaw_err rest(klaw_self *s, klaw_actor *a, klawi_host *h, bool messages,
                            klaw_deadline d) {
    klawi_waiter *w = &h->waiter;
    klawi_waiter_fill(w, h, &a->lock, KLAWI_OP_NONE, NULL, NULL);
    uint64_t epoch = s->epoch = w->epoch;
    w->epoch = 0; /* hangs nowhere */
    atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    if (KLAWI_UNLIKELY(!klawi_arm(h, epoch))) {
        klawi_lock_release(&a->lock);
        return KLAW_CANCELLED;
    }
    a->idle = s;
    a->accepts = messages;
    klawi_mailbox_check(a);
    klawi_lock_release(&a->lock);
    klawi_host_waits(h, KLAWI_WAIT_MAILBOX, a->id);
    return klawi_park_armed(h, epoch, d);
}

enum klawi_next klawi_mailbox_next(klaw_self *s, bool messages, klaw_deadline d, klawi_sys **sys) {
    klaw_actor *a = s->actor;
    klawi_host *h = s->host;
    for (;;) {
        klawi_ctx *c = klawi_ctx_get();
        if (klawi_budget_take(c))
            (void)klawi_budget_spent(c); /* cancelled: seen next */
        if (KLAWI_UNLIKELY(klawi_host_cancelled(h)))
            return KLAWI_NEXT_CUT;
        klawi_lock_acquire(&a->lock);
        if (KLAWI_UNLIKELY(s->abandoned || s->cut)) {
            klawi_lock_release(&a->lock);
            return KLAWI_NEXT_CUT;
        }
        a->idle = NULL;
        a->accepts = false;
        if (KLAWI_UNLIKELY(messages && !klawi_link_empty(&a->sys))) {
            klawi_link *l = a->sys.next;
            klawi_link_remove(l);
            *sys = KLAWI_CONTAINER(l, klawi_sys, link);
            klawi_lock_release(&a->lock);
            return KLAWI_NEXT_SYS;
        }
        if (KLAWI_UNLIKELY(a->halt || (!messages && a->stopped))) {
            klawi_lock_release(&a->lock);
            return KLAWI_NEXT_END;
        }
        if (messages && len(a)) {
            bool wanted = pop(s, a);
            if (KLAWI_UNLIKELY(has(&a->sq))) {
                klawi_wakes wakes;
                klawi_wakes_init(&wakes);
                admit(a, &wakes);
                klawi_mailbox_check(a);
                klawi_lock_release(&a->lock);
                klawi_wakes_run(&wakes);
            } else {
                klawi_mailbox_check(a);
                klawi_lock_release(&a->lock);
            }
            if (KLAWI_LIKELY(wanted))
                return KLAWI_NEXT_MESSAGE;
            klawi_mailbox_discard(s, KLAW_STOPPED);
            continue;
        }
        if (KLAWI_UNLIKELY(messages && a->closed)) {
            klawi_lock_release(&a->lock);
            return KLAWI_NEXT_END;
        }
        klaw_err e = rest(s, a, h, messages, d);
        if (KLAWI_LIKELY(e == KLAW_OK)) { /* handed over */
            if (KLAWI_LIKELY(!s->env.asker || klawi_asker_waits(&s->env)) &&
                KLAWI_LIKELY(!klawi_host_cancelled(h)))
                return KLAWI_NEXT_MESSAGE;
            klawi_mailbox_discard(s, KLAW_STOPPED);
        } else if (e == KLAW_TIMEOUT) {
            klawi_lock_acquire(&a->lock);
            if (a->idle == s)
                a->idle = NULL;
            klawi_lock_release(&a->lock);
            return KLAWI_NEXT_TIMEOUT;
        }
    }
}

void klawi_mailbox_drop(klaw_actor *a) {
    klawi_lock_acquire(&a->lock);
    char *ring = a->ring;
    uint64_t head = a->head, tail = a->tail, mask = a->mask;
    a->ring = NULL;
    a->head = tail;
    a->asks = 0;
    klawi_mailbox_check(a);
    klawi_lock_release(&a->lock);
    for (; head != tail; head++) {
        char *c = ring + (head & mask) * a->cell;
        klawi_envelope *e = (klawi_envelope *)(void *)c;
        if (e->asker && !KLAWI_MUTANT(A5_FORGET_ASKER))
            (void)klawi_asker_answer(e->asker, e->epoch, KLAW_STOPPED, NULL, 0);
        if (a->behavior->message->drop)
            a->behavior->message->drop(c + sizeof(klawi_envelope));
        klawi_context_unref(e->context);
    }
    klawi_free(ring);
}
