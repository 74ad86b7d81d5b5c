/* SPDX-License-Identifier: Apache-2.0 */
/* ring1.c - the one-to-one channel: a lock-free ring between exactly one sender and one receiver at
 * a time.
 *
 * tail is the sender's, head the receiver's; each keeps a copy of the other's that it refreshes
 * only when the ring looks full or empty. The lock is taken to park, to wake and to close.
 *
 * Wake-up: the fast side publishes its index, then looks at the other side's `waiting` flag. The
 * parking side sets its flag and then looks at the index again. That needs a store-load barrier on
 * both sides; the fast side's is only a compiler barrier, because the parking side issues one in
 * every thread (membarrier). Where that can't be had both use a seq_cst fence.
 *
 * Invariants:
 *   G1  0 <= tail - head <= cap; slots head..tail-1 hold elements; tail is written by the sender
 *       alone, head by the receiver alone.
 *   G2  a side that parks has its waiting flag set, and the flag is cleared under the lock by
 *       whoever wakes it.
 *   G3  (promise of the caller) one host at a time on each side; debug builds assert it.
 *
 * Rejected: a fence in each operation (5 ns of 8). */
#include "base/alloc.h"
#include "sync/chan.h"

typedef struct ring1 {
    klawi_chan base;
    uint64_t cap, mask;                         /* (c) */
    char *ring;                                 /* (c) */
    bool heavy;                                 /* (c) membarrier works */
    _Alignas(KLAWI_LINE) _Atomic uint64_t tail; /* (a) sender */
    uint64_t seen_head;                         /* (o) sender */
    _Atomic uint64_t high;   /* (a relaxed) sender; an upper bound, seen_head may be old */
    _Atomic uint64_t mark;   /* (a relaxed) sender; inspection: as in mpmc.c */
    _Atomic int64_t mark_at; /* (a relaxed) sender; of mark, or a later one */
    _Atomic bool rx_gone;    /* (a) */
    _Atomic bool rx_waiting; /* (a) read by the sender */
    _Atomic bool tx_busy;    /* G3 */
    _Alignas(KLAWI_LINE) _Atomic uint64_t head; /* (a) receiver */
    uint64_t seen_tail;                         /* (o) receiver */
    _Atomic bool tx_gone;                       /* (a) */
    _Atomic bool tx_waiting;                    /* (a) read by the receiver */
    _Atomic bool rx_busy;                       /* G3 */
} ring1;

static inline ring1 *of(klawi_chan *ch) {
    return (ring1 *)(void *)ch;
}

#if defined(KLAWI_DEBUG)
#define BUSY(flag) KLAWI_ASSERT(!atomic_exchange(&(flag), true))
#define FREE(flag) atomic_store(&(flag), false)
#else
#define BUSY(flag) ((void)0)
#define FREE(flag) ((void)0)
#endif

/* The fast side's half of the barrier pair. */
static inline void light_fence(const ring1 *r) {
    if (KLAWI_LIKELY(r->heavy))
        atomic_signal_fence(memory_order_seq_cst);
    else
        klawi_fence();
}
static void heavy_fence(const ring1 *r) {
    klawi_fence();
    if (r->heavy)
        klawi_heavy_fence();
}

static KLAWI_NOINLINE void wake(ring1 *r, klawi_waitq *q, _Atomic bool *waiting) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&r->base.lock);
    atomic_store_explicit(waiting, false, memory_order_relaxed);
    klawi_grant_all(q, NULL, KLAWI_RETRY, &fx);
    klawi_lock_release(&r->base.lock);
    klawi_fx_run(&r->base, &fx);
}

static void copy_in(ring1 *r, uint64_t at, const void *elem, size_t n) {
    uint32_t size = r->base.size;
    if (n == 1) {
        klawi_elem_copy(r->ring + (at & r->mask) * size, elem, size);
        return;
    }
    uint64_t i = at & r->mask, first = r->mask + 1 - i;
    if (first > n)
        first = n;
    memcpy(r->ring + i * size, elem, first * size);
    memcpy(r->ring, (const char *)elem + first * size, (n - first) * size);
}

static void copy_out(ring1 *r, uint64_t at, void *elem, size_t n) {
    uint32_t size = r->base.size;
    if (n == 1) {
        klawi_elem_copy(elem, r->ring + (at & r->mask) * size, size);
        return;
    }
    uint64_t i = at & r->mask, first = r->mask + 1 - i;
    if (first > n)
        first = n;
    memcpy(elem, r->ring + i * size, first * size);
    memcpy((char *)elem + first * size, r->ring, (n - first) * size);
}

/* Counts towards the turn. */
static inline klaw_err begins(klawi_ctx **c) {
    klaw_err e = KLAW_OK;
    *c = klawi_ctx_need(&e);
    if (KLAWI_UNLIKELY(!*c))
        return e;
    if (KLAWI_UNLIKELY(klawi_budget_take(*c))) {
        e = klawi_budget_spent(*c);
        *c = klawi_ctx_get();
    }
    return e;
}

/* Inspection: when the element before `tail` came, if the one noted before has been taken out. */
static KLAWI_COLD void note_age(ring1 *r, uint64_t tail) {
    if (atomic_load_explicit(&r->mark, memory_order_relaxed) >
        atomic_load_explicit(&r->head, memory_order_relaxed))
        return;
    atomic_store_explicit(&r->mark_at, klawi_clock(), memory_order_relaxed);
    atomic_store_explicit(&r->mark, tail, memory_order_release); /* pairs with stats */
}

static klaw_err send1(klawi_end *end, const void *elem, size_t n, klaw_deadline d) {
    ring1 *r = of(end->ch);
    klawi_spin spin = {0, 0};
    for (;;) {
        klawi_ctx *c;
        klaw_err e = begins(&c);
        if (KLAWI_UNLIKELY(e))
            return e;
        BUSY(r->tx_busy);
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        if (KLAWI_UNLIKELY(atomic_load_explicit(&r->rx_gone, memory_order_relaxed) ||
                           atomic_load_explicit(&end->closed, memory_order_relaxed))) {
            FREE(r->tx_busy);
            return KLAW_CLOSED;
        }
        if (tail + n - r->seen_head > r->cap)
            r->seen_head = atomic_load_explicit(
                &r->head, memory_order_acquire); /* pairs with the release in recv1 */
        if (KLAWI_LIKELY(tail + n - r->seen_head <= r->cap)) {
            copy_in(r, tail, elem, n);
            if (klawi_inspecting()) {
                note_age(r, tail + n);
                klawi_end_used(end, klawi_cur(c));
            }
            KLAWI_POINT();
            atomic_store_explicit(&r->tail, tail + n,
                                  memory_order_release); /* pairs with the acquire in recv1 */
            if (tail + n - r->seen_head > atomic_load_explicit(&r->high, memory_order_relaxed))
                atomic_store_explicit(&r->high, tail + n - r->seen_head, memory_order_relaxed);
            FREE(r->tx_busy);
            light_fence(r);
            KLAWI_POINT();
            if (KLAWI_UNLIKELY(atomic_load_explicit(&r->rx_waiting, memory_order_relaxed)))
                wake(r, &r->base.rq, &r->rx_waiting);
            if (KLAWI_UNLIKELY(spin.rounds != 0))
                klawi_spin_won(&spin, c, tail + 2 * n - r->seen_head <= r->cap);
            return KLAW_OK;
        }
        FREE(r->tx_busy);
        if (d == KLAW_NOWAIT)
            return KLAW_FULL;
        if (klawi_spin_wants(&spin, c)) {
            klawi_spin_pause(&spin, c);
            continue;
        }
        klawi_lock_acquire(&r->base.lock);
        atomic_store_explicit(&r->tx_waiting, true, memory_order_relaxed);
        heavy_fence(r);
        KLAWI_POINT();
        if (tail + n - atomic_load_explicit(&r->head, memory_order_acquire) <= r->cap ||
            r->base.rx_closed || atomic_load_explicit(&end->closed, memory_order_relaxed)) {
            atomic_store_explicit(&r->tx_waiting, false, memory_order_relaxed);
            klawi_lock_release(&r->base.lock);
            continue;
        }
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        e = klawi_chan_wait(c, end, &r->base.sq, KLAWI_OP_SEND, (void *)(uintptr_t)elem, n, &d);
        if (e != KLAWI_RETRY)
            return e;
    }
}

static klaw_err recv1(klawi_end *end, void *elem, size_t max, size_t *got, klaw_deadline d) {
    ring1 *r = of(end->ch);
    klawi_spin spin = {0, 0};
    for (;;) {
        klawi_ctx *c;
        klaw_err e = begins(&c);
        if (KLAWI_UNLIKELY(e))
            return e;
        BUSY(r->rx_busy);
        uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
        if (KLAWI_UNLIKELY(atomic_load_explicit(&end->closed, memory_order_relaxed))) {
            FREE(r->rx_busy);
            return KLAW_CLOSED;
        }
        if (r->seen_tail == head)
            r->seen_tail = atomic_load_explicit(&r->tail, memory_order_acquire);
        uint64_t n = r->seen_tail - head;
        if (KLAWI_LIKELY(n > 0)) {
            if (klawi_inspecting())
                klawi_end_used(end, klawi_cur(c));
            if (n > max)
                n = max;
            copy_out(r, head, elem, n);
            KLAWI_POINT();
            atomic_store_explicit(&r->head, head + n, memory_order_release);
            FREE(r->rx_busy);
            light_fence(r);
            KLAWI_POINT();
            if (KLAWI_UNLIKELY(atomic_load_explicit(&r->tx_waiting, memory_order_relaxed)))
                wake(r, &r->base.sq, &r->tx_waiting);
            if (KLAWI_UNLIKELY(spin.rounds != 0))
                klawi_spin_won(&spin, c, r->seen_tail - head > n);
            *got = n;
            return KLAW_OK;
        }
        FREE(r->rx_busy);
        if (d == KLAW_NOWAIT && !atomic_load_explicit(&r->tx_gone, memory_order_acquire))
            return KLAW_EMPTY;
        if (d != KLAW_NOWAIT && klawi_spin_wants(&spin, c)) {
            klawi_spin_pause(&spin, c);
            continue;
        }
        klawi_lock_acquire(&r->base.lock);
        atomic_store_explicit(&r->rx_waiting, true, memory_order_relaxed);
        heavy_fence(r);
        KLAWI_POINT();
        bool some = atomic_load_explicit(&r->tail, memory_order_acquire) != head &&
                    !KLAWI_MUTANT(P3_RING_NO_RECHECK);
        bool over = r->base.tx_closed || atomic_load_explicit(&end->closed, memory_order_relaxed);
        if (some || over) {
            atomic_store_explicit(&r->rx_waiting, false, memory_order_relaxed);
            klawi_lock_release(&r->base.lock);
            if (over && !some)
                return KLAW_CLOSED;
            continue;
        }
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        e = klawi_chan_wait(c, end, &r->base.rq, KLAWI_OP_RECV, elem, 1, &d);
        if (e != KLAWI_RETRY)
            return e;
    }
}

static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    ring1 *r = of(ch);
    if (end->side == KLAWI_TX)
        atomic_store_explicit(&r->tx_gone, true, memory_order_release);
    else
        atomic_store_explicit(&r->rx_gone, true, memory_order_release);
    klawi_grant_all(&ch->sq, NULL, KLAWI_RETRY, fx);
    klawi_grant_all(&ch->rq, NULL, KLAWI_RETRY, fx);
}

/* The sender may be in the middle of a send when the receiver closes: what is in the ring is
 * dropped when both have gone. */
static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    ring1 *r = of(ch);
    out->total_received = atomic_load_explicit(&r->head, memory_order_acquire);
    out->total_sent = atomic_load_explicit(&r->tail, memory_order_acquire);
    out->queue_size = out->total_sent - out->total_received;
    out->high_watermark = atomic_load_explicit(&r->high, memory_order_relaxed);
    if (out->queue_size > 0 &&
        atomic_load_explicit(&r->mark, memory_order_acquire) > out->total_received)
        out->oldest_age = klawi_clock() - atomic_load_explicit(&r->mark_at, memory_order_relaxed);
}

static void destroy(klawi_chan *ch) {
    ring1 *r = of(ch);
    if (ch->type->drop)
        for (uint64_t i = atomic_load(&r->head); i != atomic_load(&r->tail); i++)
            ch->type->drop(r->ring + (i & r->mask) * ch->size);
    klawi_free(r->ring);
    klawi_free_aligned(r);
}

static const klawi_chan_ops ops = {
    .name = "one_to_one",
    .closing = closing,
    .stats = stats,
    .destroy = destroy,
    .send = send1,
    .recv = recv1,
    .batches = true,
};

klaw_err klawi_ring1_open(const klaw_type *type, const klaw_channel_opts *o, klaw_sender **tx,
                          klaw_receiver **rx) {
    ring1 *r = klawi_alloc_aligned(KLAWI_LINE, sizeof *r);
    if (!r)
        return KLAW_NOMEM;
    memset(r, 0, sizeof *r);
    uint64_t size = 2;
    r->cap = (uint64_t)o->capacity;
    while (size < r->cap)
        size *= 2;
    r->mask = size - 1;
    r->heavy = klawi_heavy_fence_ready();
    r->ring = size > SIZE_MAX / 2 / type->size ? NULL : klawi_alloc(size * type->size);
    klaw_err e =
        r->ring ? klawi_chan_open(&r->base, &ops, type, o->name, o->capacity, tx, rx) : KLAW_NOMEM;
    if (e) {
        klawi_free(r->ring);
        klawi_free_aligned(r);
    }
    return e;
}
