/* SPDX-License-Identifier: Apache-2.0 */
/* chan.c - endpoints of every kind of channel: waiting, closing, counting.
 *
 * Invariants whenever ch->lock is free:
 *   E1  senders, receivers == endpoints of that side that are not closed; tx_closed == (senders ==
 *       0), rx_closed == (receivers == 0).
 *   E2  nobody waits on an endpoint that is closed.
 *   E3  memory: each endpoint holds one reference of the channel until _unref.
 *   E4  ends holds the endpoints that are not closed, and nothing else.
 * Kinds add their own (mpmc.c, broadcast.c, …).
 *
 * Wake-up: a waiter is granted its operation by the peer, under the lock (the element has moved,
 * result OK), or told KLAWI_RETRY by kinds that only notify; then it looks again.
 *
 * Elements are dropped with no lock held and never recursively: an element may be the last endpoint
 * of a further channel full of such elements, so channels to be emptied are queued on the thread
 * that is already emptying one. */
#include "sync/chan.h"

#include <stdio.h>

#include "base/alloc.h"

static klawi_lock registry_lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link registry = {&registry, &registry};
static _Atomic uint64_t next_id = 1;

static klawi_end *end_of_tx(klaw_sender *tx) {
    return &tx->e;
}
static klawi_end *end_of_rx(klaw_receiver *rx) {
    return &rx->e;
}

klaw_err klawi_type_check(const klaw_type *type) {
    if (!type || !type->name || type->size == 0)
        return KLAW_INVALID;
    return type->size > KLAW_ELEM_MAX ? KLAW_LIMIT : KLAW_OK;
}

/* --- making --- */
void klawi_end_made(klawi_end *e) {
    klawi_ctx *c = klawi_inspecting() ? klawi_ctx_get() : NULL;
    uint64_t by = c ? klawi_host_by(klawi_cur(c)) : 0;
    if (by)
        atomic_store_explicit(&e->by, by | KLAWI_BY_MADE, memory_order_relaxed);
}

static klawi_end *end_new(klawi_chan *ch, enum klawi_side side) {
    klawi_end *e = klawi_calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->ch = ch;
    e->side = (uint8_t)side;
    klawi_link_init(&e->link);
    klawi_end_made(e);
    return e;
}

void klawi_end_internal(klaw_sender *tx) {
    if (klawi_inspecting())
        atomic_store_explicit(&tx->e.by, KLAWI_BY_RUNTIME, memory_order_relaxed);
}

klaw_err klawi_chan_open(klawi_chan *ch, const klawi_chan_ops *ops, const klaw_type *type,
                         const char *name, int64_t capacity, klaw_sender **tx, klaw_receiver **rx) {
    ch->ops = ops;
    ch->type = type;
    ch->size = (uint32_t)type->size;
    ch->capacity = capacity;
    ch->senders = ch->receivers = 1;
    atomic_init(&ch->refs, 2);
    klawi_lock_init(&ch->lock, KLAWI_RANK_CHANNEL);
    klawi_link_init(&ch->rq);
    klawi_link_init(&ch->sq);
    snprintf(ch->name, sizeof ch->name, "%s", name);
    klawi_end *s = end_new(ch, KLAWI_TX), *r = end_new(ch, KLAWI_RX);
    if (!s || !r) {
        klawi_free(s);
        klawi_free(r);
        return KLAW_NOMEM;
    }
    ch->created_at = klawi_wall_clock();
    ch->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    klawi_link_init(&ch->ends);
    klawi_link_push(&ch->ends, &s->open);
    klawi_link_push(&ch->ends, &r->open);
    klawi_lock_acquire(&registry_lock);
    klawi_link_push(&registry, &ch->live);
    klawi_lock_release(&registry_lock);
    *tx = (klaw_sender *)(void *)s;
    *rx = (klaw_receiver *)(void *)r;
    return KLAW_OK;
}

void klawi_chan_unref(klawi_chan *ch) {
    if (atomic_fetch_sub_explicit(&ch->refs, 1, memory_order_acq_rel) != 1)
        return;
    klawi_lock_acquire(&registry_lock);
    klawi_link_remove(&ch->live);
    if (ch->owned.next)
        klawi_link_remove(&ch->owned);
    klawi_lock_release(&registry_lock);
    klawi_drop_later(ch);
}

void klawi_chan_own(klaw_sender *tx, klawi_link *list) {
    klawi_lock_acquire(&registry_lock);
    klawi_link_push(list, &tx->e.ch->owned);
    klawi_lock_release(&registry_lock);
}

klawi_chan *klawi_chan_disown(klawi_link *list) {
    klawi_chan *found = NULL;
    klawi_lock_acquire(&registry_lock);
    while (!found && !klawi_link_empty(list)) {
        klawi_chan *ch = KLAWI_CONTAINER(list->next, klawi_chan, owned);
        uint32_t refs = atomic_load_explicit(&ch->refs, memory_order_relaxed);
        klawi_link_remove(&ch->owned);
        /* One without references is on its way out and waits for this lock. */
        while (refs && !atomic_compare_exchange_weak_explicit(&ch->refs, &refs, refs + 1,
                                                              memory_order_relaxed,
                                                              memory_order_relaxed)) {}
        found = refs ? ch : NULL;
    }
    klawi_lock_release(&registry_lock);
    return found;
}

klaw_err klawi_end_add(klawi_chan *ch, klawi_end *from, enum klawi_side side, uint8_t lag,
                       klawi_end **out) {
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    klawi_end *e = end_new(ch, side);
    if (!e)
        return KLAW_NOMEM;
    e->lag = lag;
    klaw_err err = KLAW_OK;
    klawi_lock_acquire(&ch->lock);
    /* Receivers of a broadcast or a watch may come back while somebody sends. */
    if (from && atomic_load_explicit(&from->closed, memory_order_relaxed))
        err = KLAW_CLOSED;
    else if (side == KLAWI_TX ? ch->tx_closed : (ch->rx_closed && from && from->side == KLAWI_RX))
        err = KLAW_CLOSED;
    else if (ch->ops->clone)
        err = ch->ops->clone(ch, from, e);
    else
        err = KLAW_INVALID;
    if (!err) {
        if (side == KLAWI_TX) {
            ch->senders++;
        } else {
            ch->receivers++;
            ch->rx_closed = false;
        }
        klawi_link_push(&ch->ends, &e->open);
        atomic_fetch_add_explicit(&ch->refs, 1, memory_order_relaxed);
    }
    klawi_lock_release(&ch->lock);
    if (err) {
        klawi_free(e);
        return err;
    }
    *out = e;
    return KLAW_OK;
}

klaw_err klaw_channel_sized(const klaw_type *type, const klaw_channel_opts *opts, size_t opts_size,
                            klaw_sender **tx, klaw_receiver **rx) {
    klaw_channel_opts o = klaw_channel_opts_default();
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    klaw_err e = klawi_type_check(type);
    if (e)
        return e;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    if (!tx || !rx || o.capacity < KLAW_UNBOUNDED || (o.one_to_one && o.capacity < 0))
        return KLAW_INVALID;
    if (o.capacity > KLAW_CAPACITY_MAX)
        return KLAW_LIMIT;
    if (o.capacity == 0)
        o.capacity = KLAW_CAPACITY_DEFAULT;
    if (!o.name)
        o.name = "channel";
    return o.one_to_one ? klawi_ring1_open(type, &o, tx, rx) : klawi_mpmc_open(type, &o, tx, rx);
}

/* --- waiting --- */
void klawi_grant_all(klawi_waitq *q, void *handle, klaw_err result, klawi_fx *fx) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = next) {
        next = klawi_waitq_next(q, w);
        if (!handle || w->handle == handle)
            klawi_grant(w, result, fx);
    }
}

static klaw_err no_context(klaw_err why) {
    return why ? why : KLAW_NOMEM;
}

/* Under the lock, the operation would wait: hangs the host into q and parks. Releases the lock. *d
 * becomes absolute. */
klaw_err klawi_chan_wait(klawi_ctx *c, klawi_end *end, klawi_waitq *q, uint8_t op, void *slot,
                         size_t n, klaw_deadline *d) {
    klawi_chan *ch = end->ch;
    klawi_host *h = klawi_cur(c);
    int64_t at;
    klaw_err e = klawi_deadline_resolve(*d, op == KLAWI_OP_RECV ? KLAW_EMPTY : KLAW_FULL, &at);
    if (!e && h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        e = KLAW_INVALID; /* a timer's callback must not wait */
    if (e) {
        klawi_lock_release(&ch->lock);
        return e;
    }
    *d = at;
    klawi_host_waits(h, op == KLAWI_OP_RECV ? KLAWI_WAIT_RECV : KLAWI_WAIT_SEND, ch->id);
    klawi_waiter *w = &h->waiter;
    klawi_waiter_fill(w, h, &ch->lock, op, slot, end);
    w->n = (uint32_t)n;
    klawi_waitq_push(q, w);
    return klawi_park(h, w, &ch->lock, at);
}

/* Counts the operation; NULL with *e set when it has to end here. */
static inline klawi_ctx *op_begins(klaw_err *e) {
    klawi_ctx *c = klawi_ctx_need(e);
    if (KLAWI_UNLIKELY(!c)) {
        *e = no_context(*e);
        return NULL;
    }
    if (KLAWI_UNLIKELY(klawi_budget_take(c))) {
        *e = klawi_budget_spent(c);
        if (*e)
            return NULL;
        c = klawi_ctx_get();
    }
    return c;
}

klawi_ctx *klawi_op_begins(klaw_err *e) {
    return op_begins(e);
}

/* In a rendezvous nobody sees us before we hang in the queue. */
static inline bool may_spin(const klawi_chan *ch, klaw_deadline d) {
    return d != KLAW_NOWAIT && ch->capacity != KLAW_RENDEZVOUS;
}

klaw_err klawi_chan_send(klawi_end *end, const void *elem, size_t n, klaw_deadline d) {
    klawi_chan *ch = end->ch;
    klawi_spin spin = {0, 0};
    for (;;) {
        klawi_fx fx;
        klaw_err e = KLAW_OK;
        klawi_ctx *c = op_begins(&e);
        if (!c)
            return e;
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        e = atomic_load_explicit(&end->closed, memory_order_relaxed)
                ? KLAW_CLOSED
                : ch->ops->try_send(ch, end, elem, n, &fx);
        if (e == KLAWI_GROW) {
            klawi_lock_release(&ch->lock);
            if ((e = ch->ops->grow(ch, end, n)) != KLAW_OK)
                return e;
            continue;
        }
        if (e != KLAW_FULL) {
            klawi_lock_release(&ch->lock);
            klawi_fx_run(ch, &fx);
            if (KLAWI_UNLIKELY(spin.rounds != 0))
                klawi_spin_won(&spin, c, fx.more);
            return e;
        }
        if (may_spin(ch, d) && klawi_spin_wants(&spin, c)) {
            klawi_lock_release(&ch->lock);
            klawi_spin_pause(&spin, c);
            continue;
        }
        e = klawi_chan_wait(c, end, &ch->sq, KLAWI_OP_SEND, (void *)(uintptr_t)elem, n, &d);
        if (e == KLAWI_RETRY)
            continue;
        if (n > 1 && (e == KLAW_TIMEOUT || e == KLAW_CANCELLED) && ch->ops->unserved) {
            klawi_lock_acquire(&ch->lock);
            ch->ops->unserved(ch, &fx);
            klawi_lock_release(&ch->lock);
            klawi_fx_run(ch, &fx);
        }
        return e;
    }
}

klaw_err klawi_chan_recv(klawi_end *end, void *elem, klaw_deadline d) {
    klawi_chan *ch = end->ch;
    klawi_spin spin = {0, 0};
    for (;;) {
        klawi_fx fx;
        klaw_err e = KLAW_OK;
        klawi_ctx *c = op_begins(&e);
        if (!c)
            return e;
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        e = atomic_load_explicit(&end->closed, memory_order_relaxed)
                ? KLAW_CLOSED
                : ch->ops->try_recv(ch, end, elem, &fx);
        if (e == KLAW_EMPTY &&
            fx.wakes
                .first) { /* rendezvous: a foreign sender was told; it must not wait for us to park */
            klawi_lock_release(&ch->lock);
            klawi_fx_run(ch, &fx);
            continue;
        }
        if (e != KLAW_EMPTY) {
            klawi_lock_release(&ch->lock);
            klawi_fx_run(ch, &fx);
            if (KLAWI_UNLIKELY(spin.rounds != 0))
                klawi_spin_won(&spin, c, fx.more);
            return fx.cell ? ch->ops->after(ch, end, elem, &fx) : e;
        }
        if (may_spin(ch, d) && klawi_spin_wants(&spin, c)) {
            klawi_lock_release(&ch->lock);
            klawi_spin_pause(&spin, c);
            continue;
        }
        e = klawi_chan_wait(c, end, &ch->rq, KLAWI_OP_RECV, elem, 1, &d);
        if (e != KLAWI_RETRY)
            return e;
    }
}

/* --- the public verbs --- */
klaw_err klaw_send(klaw_sender *tx, const void *elem, klaw_deadline deadline) {
    if (KLAWI_UNLIKELY(!tx || !elem))
        return KLAW_INVALID;
    klawi_end *e = end_of_tx(tx);
    if (KLAWI_LIKELY(e->ch->ops == &klawi_mpmc_ops))
        return klawi_mpmc_send(e, elem, deadline);
    return e->ch->ops->send ? e->ch->ops->send(e, elem, 1, deadline)
                            : klawi_chan_send(e, elem, 1, deadline);
}

klaw_err klaw_recv(klaw_receiver *rx, void *elem, klaw_deadline deadline) {
    if (KLAWI_UNLIKELY(!rx || !elem))
        return KLAW_INVALID;
    klawi_end *e = end_of_rx(rx);
    if (KLAWI_LIKELY(e->ch->ops == &klawi_mpmc_ops))
        return klawi_mpmc_recv(e, elem, deadline);
    size_t got;
    return e->ch->ops->recv ? e->ch->ops->recv(e, elem, 1, &got, deadline)
                            : klawi_chan_recv(e, elem, deadline);
}

klaw_err klaw_send_batch(klaw_sender *tx, const void *elems, size_t n, klaw_deadline deadline) {
    if (!tx || (!elems && n))
        return KLAW_INVALID;
    klawi_end *e = end_of_tx(tx);
    klawi_chan *ch = e->ch;
    if (!ch->ops->batches || ch->capacity == KLAW_RENDEZVOUS)
        return KLAW_INVALID;
    if (n == 0)
        return atomic_load_explicit(&e->closed, memory_order_relaxed) ? KLAW_CLOSED : KLAW_OK;
    if (ch->capacity > 0 && n > (uint64_t)ch->capacity)
        return KLAW_LIMIT;
    if (n > UINT32_MAX)
        return KLAW_LIMIT;
    return ch->ops->send ? ch->ops->send(e, elems, n, deadline)
                         : klawi_chan_send(e, elems, n, deadline);
}

klaw_err klaw_recv_batch(klaw_receiver *rx, void *elems, size_t max, size_t *got,
                         klaw_deadline deadline) {
    if (got)
        *got = 0;
    if (!rx || !elems || max == 0 || !got)
        return KLAW_INVALID;
    klawi_end *e = end_of_rx(rx);
    if (e->ch->ops == &klawi_mpmc_ops)
        return klawi_mpmc_recv_batch(e, elems, max, got, deadline);
    if (e->ch->ops->recv)
        return e->ch->ops->recv(e, elems, max, got, deadline);
    klaw_err err = klawi_chan_recv(e, elems, deadline);
    if (err)
        return err;
    for (*got = 1; *got < max; ++*got)
        if ((err = klawi_chan_recv(e, (char *)elems + *got * e->ch->size, KLAW_NOWAIT)) != KLAW_OK)
            break;
    if (err == KLAW_LAGGED) { /* this call has elements to tell of: the next one reports the lag */
        klawi_lock_acquire(&e->ch->lock);
        e->missed += atomic_load_explicit(&e->reported, memory_order_relaxed);
        klawi_lock_release(&e->ch->lock);
    }
    return KLAW_OK;
}

klaw_err klaw_reserve(klaw_sender *tx, klaw_permit *out, klaw_deadline deadline) {
    if (!tx || !out)
        return KLAW_INVALID;
    out->tx = NULL;
    klawi_chan *ch = end_of_tx(tx)->ch;
    if (ch->ops != &klawi_mpmc_ops || ch->capacity == KLAW_RENDEZVOUS)
        return KLAW_INVALID;
    klaw_err e = klawi_mpmc_reserve(end_of_tx(tx), deadline);
    if (e == KLAW_OK)
        out->tx = tx;
    return e;
}

klaw_err klaw_permit_send(klaw_permit *permit, const void *elem) {
    if (!permit || !permit->tx || !elem)
        return KLAW_INVALID;
    klawi_end *e = end_of_tx(permit->tx);
    permit->tx = NULL;
    return klawi_mpmc_permit_send(e, elem);
}

void klaw_permit_drop(klaw_permit *permit) {
    if (!permit || !permit->tx)
        return;
    klawi_end *e = end_of_tx(permit->tx);
    permit->tx = NULL;
    klawi_mpmc_permit_drop(e);
}

klaw_err klaw_sender_clone(klaw_sender *tx, klaw_sender **out) {
    return tx && out ? klawi_end_add(tx->e.ch, &tx->e, KLAWI_TX, 0, (klawi_end **)(void *)out)
                     : KLAW_INVALID;
}

klaw_err klaw_receiver_clone(klaw_receiver *rx, klaw_receiver **out) {
    return rx && out ? klawi_end_add(rx->e.ch, &rx->e, KLAWI_RX, 0, (klawi_end **)(void *)out)
                     : KLAW_INVALID;
}

/* --- closing --- */
/* The endpoint is open. Under the lock, which is released. */
static void end_close_locked(klawi_chan *ch, klawi_end *end) {
    klawi_fx fx;
    void (*told)(void *) = NULL;
    void *arg = NULL;
    bool last = false;
    klawi_fx_init(&fx);
    atomic_store_explicit(&end->closed, true, memory_order_release);
    klawi_link_remove(&end->open);
    klawi_grant_all(end->side == KLAWI_TX ? &ch->sq : &ch->rq, end, KLAW_CLOSED, &fx); /* E2 */
    if (end->side == KLAWI_TX) {
        ch->tx_closed = --ch->senders == 0;
    } else {
        ch->rx_closed = --ch->receivers == 0;
        last = ch->rx_closed;
    }
    ch->ops->closing(ch, end, &fx);
    if (last && ch->on_rx_closed) {
        told = ch->on_rx_closed;
        arg = ch->on_rx_closed_arg;
        ch->on_rx_closed = NULL;
    }
    /* A reference for the way: the drop below may release the last endpoint. */
    atomic_fetch_add_explicit(&ch->refs, 1, memory_order_relaxed);
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
    if (told)
        told(arg);
    if (last && ch->ops->drop_rest) /* once in a channel's life: drop_next has one user */
        klawi_drop_later(ch);       /* takes the reference over */
    else
        klawi_chan_unref(ch);
}

static void end_close(klawi_end *end) {
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return; /* a lock may be held for ever by a thread that is not here */
    klawi_lock_acquire(&end->ch->lock);
    if (atomic_load_explicit(&end->closed, memory_order_relaxed))
        klawi_lock_release(&end->ch->lock);
    else
        end_close_locked(end->ch, end);
}

void klawi_chan_shut(klawi_chan *ch, enum klawi_side side) {
    for (;;) {
        klawi_end *end = NULL;
        klawi_lock_acquire(&ch->lock);
        for (klawi_link *l = ch->ends.next; l != &ch->ends && !end; l = l->next) {
            end = KLAWI_CONTAINER(l, klawi_end, open);
            end = end->side == side ? end : NULL;
        }
        if (!end) {
            klawi_lock_release(&ch->lock);
            return;
        }
        end_close_locked(ch, end);
    }
}

void klawi_channel_on_receivers_closed(klaw_sender *tx, void (*fn)(void *), void *arg) {
    klawi_end_internal(tx); /* it is klaw's own: nobody else has to be told */
    klawi_chan *ch = tx->e.ch;
    klawi_lock_acquire(&ch->lock);
    bool now = ch->rx_closed;
    if (!now) {
        ch->on_rx_closed = fn;
        ch->on_rx_closed_arg = arg;
    }
    klawi_lock_release(&ch->lock);
    if (now)
        fn(arg);
}

static __thread struct {
    bool busy;
    klawi_chan *first, **last;
} dropping;

__attribute__((constructor)) static void chan_init(void) {
    klawi_inspect_channels();
#if defined(KLAWI_DET)
    klawi_det_register_tls(&dropping, sizeof dropping);
#endif
}

/* Queues ch; true when nobody empties channels on this thread yet, so the caller has to. */
static bool drop_push(klawi_chan *ch) {
    KLAWI_OWNED_BEGIN();
    bool first = !dropping.busy;
    if (first) {
        dropping.busy = true;
        dropping.last = &dropping.first;
    }
    ch->drop_next = NULL;
    *dropping.last = ch;
    dropping.last = &ch->drop_next;
    KLAWI_OWNED_END();
    return first;
}

static klawi_chan *drop_pop(void) {
    KLAWI_OWNED_BEGIN();
    klawi_chan *ch = dropping.first;
    if (!ch)
        dropping.busy = false;
    else if ((dropping.first = ch->drop_next) == NULL)
        dropping.last = &dropping.first;
    KLAWI_OWNED_END();
    return ch;
}

void klawi_drop_later(klawi_chan *ch) {
    if (!drop_push(ch))
        return;
    klawi_ctx *c = klawi_ctx_get();
    if (c)
        klawi_hold(c, 1); /* a drop may send; it must not yield and go on on another thread */
    while ((ch = drop_pop()) != NULL) {
        if (atomic_load_explicit(&ch->refs, memory_order_relaxed) == 0) {
            ch->ops->destroy(ch);   /* drops too, of kinds that keep elements to the end */
        } else {                    /* the list has a reference */
            ch->ops->drop_rest(ch); /* runs drops, which may queue more */
            klawi_chan_unref(ch);
        }
    }
    if (c)
        klawi_hold(c, -1);
}

static void end_unref(klawi_end *end) {
    klawi_chan *ch = end->ch;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return;
    end_close(end);
    if (ch->ops->end_free)
        ch->ops->end_free(ch, end);
    klawi_free(end);
    klawi_chan_unref(ch);
}

void klaw_sender_close(klaw_sender *tx) {
    if (tx)
        end_close(&tx->e);
}
void klaw_receiver_close(klaw_receiver *rx) {
    if (rx)
        end_close(&rx->e);
}
void klaw_sender_unref(klaw_sender *tx) {
    if (tx)
        end_unref(&tx->e);
}
void klaw_receiver_unref(klaw_receiver *rx) {
    if (rx)
        end_unref(&rx->e);
}

/* --- looking --- */
uint64_t klaw_receiver_missed(klaw_receiver *rx) {
    return rx ? atomic_load_explicit(&rx->e.reported, memory_order_relaxed) : 0;
}
const klaw_type *klaw_sender_type(const klaw_sender *tx) {
    return tx->e.ch->type;
}
const klaw_type *klaw_receiver_type(const klaw_receiver *rx) {
    return rx->e.ch->type;
}

static uint64_t count_waiting(klawi_waitq *q) {
    uint64_t n = 0;
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = klawi_waitq_next(q, w))
        n++;
    return n;
}

/* Under the lock. */
void klawi_chan_stats(klawi_chan *ch, klaw_channel_stats *out) {
    memset(out, 0, sizeof *out);
    out->id = ch->id;
    memcpy(out->name, ch->name, sizeof out->name);
    snprintf(out->kind, sizeof out->kind, "%s", ch->ops->name);
    out->sender_count = ch->senders;
    out->receiver_count = ch->receivers;
    out->capacity = ch->capacity;
    out->created_at = ch->created_at;
    out->senders_closed = ch->tx_closed;
    out->receivers_closed = ch->rx_closed;
    out->waiting_senders = count_waiting(&ch->sq);
    out->waiting_receivers = count_waiting(&ch->rq);
    out->oldest_age = KLAW_NONE;
    ch->ops->stats(ch, out);
}

static klaw_err end_stats(klawi_end *e, klaw_channel_stats *out) {
    klawi_lock_acquire(&e->ch->lock);
    klawi_chan_stats(e->ch, out);
    klawi_lock_release(&e->ch->lock);
    return KLAW_OK;
}

klaw_err klaw_sender_stats(klaw_sender *tx, klaw_channel_stats *out) {
    return tx && out ? end_stats(&tx->e, out) : KLAW_INVALID;
}
klaw_err klaw_receiver_stats(klaw_receiver *rx, klaw_channel_stats *out) {
    return rx && out ? end_stats(&rx->e, out) : KLAW_INVALID;
}

void klawi_chans_each(void (*visit)(klawi_chan *ch, void *user), void *user) {
    klawi_lock_acquire(&registry_lock);
    for (klawi_link *l = registry.next; l != &registry; l = l->next) {
        klawi_chan *ch = KLAWI_CONTAINER(l, klawi_chan, live);
        klawi_lock_acquire(&ch->lock);
        visit(ch, user);
        klawi_lock_release(&ch->lock);
    }
    klawi_lock_release(&registry_lock);
}
