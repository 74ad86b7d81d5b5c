/* SPDX-License-Identifier: Apache-2.0 */
/* mpmc.c - the many-to-many channel: bounded, rendezvous, unbounded.
 *
 * One lock, one ring, two wait queues. head and tail count elements for ever, so with the
 * hand-overs they are the totals. Reserved slots (tx_permits: klaw_reserve, foreign senders) count
 * as filled; reserved elements (rx_permits: foreign receivers) count as taken.
 *
 * Invariants whenever ch->lock is free (mpmc_check, debug builds); len = tail - head, avail = len -
 * rx_permits:
 *   I1  avail > 0            => no live receiver waits.
 *   I2  open and a sender waits => len + tx_permits + what the first live waiter needs > cap, and
 *       (rendezvous) no live receiver waits. A batch that leaves the queue lets the next one in
 *       only when it runs (unserved): until then I2 may not hold.
 *   I3  rx closed            => no live sender waits; tx closed and rx_permits == 0 and tx_permits
 *       == 0 => no live receiver waits.
 *   I4  an accepted element is received once or dropped once.
 *   I5  rx_permits <= len; bounded: len + tx_permits <= cap.
 *   I6  a live sender waits, not a rendezvous => the ring holds cap elements: who makes room never
 *       needs memory.
 *
 * A send that finds a waiting receiver moves the element straight into its slot; a receive that
 * frees room moves the first waiting senders' elements in. So the woken host has nothing left to do
 * and its call returns by the switch (P6).
 *
 * Rendezvous: cap is 0 and elements go from slot to slot. A foreign receiver has no slot, so its
 * grant is an element in the ring, reserved for it; if it leaves, the next receiver gets that one.
 * A foreign sender is granted when a receiver waits, and looks again when it redeems.
 *
 * Rejected: a lock-free ring for the general case. It splits claim from publish, and I1-I3 lose
 * their one moment of truth. One-to-one channels have one, ring1.c. */
#include "base/alloc.h"
#include "sync/chan.h"

#define RING_FIRST 32u

static const klawi_spin no_spin;

typedef struct mpmc {
    klawi_chan base;
    /* (L) all below */
    uint64_t head, tail; /* elements taken out of the ring and put into it so far */
    uint64_t passed;     /* elements that went from slot to slot, past the ring */
    bool batched;        /* a batch has waited here */
    uint64_t room;       /* len may reach this: the capacity, or UINT64_MAX */
    uint64_t mask;       /* ring size - 1 */
    char *ring;
    uint64_t tx_permits, rx_permits;
    uint64_t high;    /* high watermark */
    uint64_t dropped; /* sent, and never received: the receivers closed */
    uint64_t mark;    /* inspection: the element put in at mark_at is the one before it */
    int64_t mark_at;  /* inspection: ns of CLOCK_MONOTONIC */
    char *rest;       /* the ring of a closed channel, to be dropped */
    uint64_t rest_head, rest_tail, rest_mask;
} mpmc;

static inline mpmc *of(klawi_chan *ch) {
    return (mpmc *)(void *)ch;
}
static inline uint64_t len(const mpmc *m) {
    return m->tail - m->head;
}
static inline uint64_t avail(const mpmc *m) {
    return m->tail - m->head - m->rx_permits;
}
static inline char *cell(const mpmc *m, uint64_t i) {
    return m->ring + (i & m->mask) * m->base.size;
}
static inline bool has(const klawi_waitq *q) {
    return q->next != q;
}

static bool live(klawi_waiter *w) {
    uint64_t word = atomic_load_explicit(&w->host->word, memory_order_relaxed);
    return (word & ~(KLAWI_CANCEL | KLAWI_SHIELD)) == (w->epoch | KLAWI_ARMED);
}

static klawi_waiter *first_live(klawi_waitq *q) {
    klawi_waiter *w = klawi_waitq_first(q);
    while (w && !live(w))
        w = klawi_waitq_next(q, w);
    return w;
}

static void mpmc_check(mpmc *m) {
#if defined(KLAWI_DEBUG)
    klawi_chan *ch = &m->base;
    klawi_waiter *r = first_live(&ch->rq), *s = first_live(&ch->sq);
    KLAWI_ASSERT(m->rx_permits <= len(m)); /* I5 */
    if (avail(m) > 0)
        KLAWI_ASSERT(!r); /* I1 */
    if (s) {
        KLAWI_ASSERT(!ch->rx_closed);                                        /* I3 */
        KLAWI_ASSERT(m->batched || len(m) + m->tx_permits + s->n > m->room); /* I2 */
    }
    if (r)
        KLAWI_ASSERT(!ch->tx_closed || m->rx_permits || m->tx_permits); /* I3 */
    if (m->room > 0)
        KLAWI_ASSERT(len(m) + m->tx_permits <= m->room); /* I5 */
#else
    (void)m;
#endif
}

/* Notes when an element came, if the one noted before has been taken out. After it was put in. */
static KLAWI_COLD void note_age(mpmc *m) {
    if (m->mark <= m->head && m->tail > m->head) {
        m->mark = m->tail;
        m->mark_at = klawi_clock();
    }
}

static void put(mpmc *m, const void *elem, size_t n) {
    uint32_t size = m->base.size;
    KLAWI_ASSERT(len(m) + n <= m->mask + 1);
    if (n == 1) {
        klawi_elem_copy(cell(m, m->tail), elem, size);
    } else {
        uint64_t at = m->tail & m->mask, first = m->mask + 1 - at;
        if (first > n)
            first = n;
        memcpy(m->ring + at * size, elem, first * size);
        memcpy(m->ring, (const char *)elem + first * size, (n - first) * size);
    }
    m->tail += n;
    if (len(m) > m->high)
        m->high = len(m);
    if (klawi_inspecting())
        note_age(m);
}

static inline bool ring_holds(const mpmc *m, uint64_t n) {
    return m->ring && len(m) + n <= m->mask + 1;
}

/* Gives one element to the first live receiver. False: none waits, or the ring has to grow first
 * (*grow). A foreign one gets it by the ring: only if there is room, or the caller has a slot.
 * Elements reserved before stay where they are. */
static bool hand_over(mpmc *m, const void *elem, bool slotted, klawi_fx *fx, bool *grow) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&m->base.rq); w; w = next) {
        next = klawi_waitq_next(&m->base.rq, w);
        if (w->op == KLAWI_OP_PERMIT && m->room > 0 && !slotted &&
            len(m) + m->tx_permits >= m->room)
            continue; /* I5 */
        if (w->op == KLAWI_OP_PERMIT && !ring_holds(m, 1 + m->tx_permits - slotted)) {
            *grow = live(w);
            if (*grow)
                return false;
            continue;
        }
        void *slot = w->slot;
        bool permit = w->op == KLAWI_OP_PERMIT;
        if (!klawi_grant(w, KLAW_OK, fx))
            continue;
        if (permit) {
            put(m, elem, 1);
            m->rx_permits++;
        } else {
            klawi_elem_copy(slot, elem, m->base.size);
            m->passed++;
        }
        return true;
    }
    return false;
}

/* While the first live sender fits, its elements go in. After anything that made room. */
static void admit_senders(mpmc *m, klawi_fx *fx) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&m->base.sq); w; w = next) {
        next = klawi_waitq_next(&m->base.sq, w);
        uint64_t need = w->n;
        void *slot = w->slot;
        uint8_t op = w->op;
        if (m->room == 0 || len(m) + m->tx_permits + need > m->room) {
            if (live(w))
                return;
            continue;
        }
        KLAWI_ASSERT(!live(w) || ring_holds(m, need + m->tx_permits)); /* I6 */
        if (!klawi_grant(w, KLAW_OK, fx))
            continue;
        if (op == KLAWI_OP_SEND)
            put(m, slot, need);
        else
            m->tx_permits += need;
    }
}

/* Elements that are free again go to receivers that wait (a permit was given back). */
static void admit_receivers(mpmc *m, klawi_fx *fx) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&m->base.rq); w && avail(m) > 0; w = next) {
        next = klawi_waitq_next(&m->base.rq, w);
        void *slot = w->slot;
        uint8_t op = w->op;
        if (!klawi_grant(w, KLAW_OK, fx))
            continue;
        if (op == KLAWI_OP_PERMIT) {
            m->rx_permits++;
        } else {
            klawi_elem_copy(slot, cell(m, m->head), m->base.size);
            m->head++;
        }
    }
}

/* After anything but a plain receive or send: each side may let the other one in. */
static void admit(mpmc *m, klawi_fx *fx) {
    uint64_t before;
    if (KLAWI_MUTANT(I2_NO_ADMIT))
        return;
    if (m->room ==
        0) { /* rendezvous: a foreign sender left that was to meet this receiver; whoever is first now */
        if (has(&m->base.sq) && first_live(&m->base.rq))
            klawi_grant_all(&m->base.sq, NULL, KLAWI_RETRY, fx);
    }
    do {
        admit_senders(m, fx);
        before = avail(m);
        admit_receivers(m, fx);
    } while (avail(m) != before);
}

/* I3: nothing can come any more. */
static void settle(mpmc *m, klawi_fx *fx) {
    if (!KLAWI_MUTANT(I3_NO_SETTLE) && m->base.tx_closed && m->rx_permits == 0 &&
        m->tx_permits == 0 && avail(m) == 0)
        klawi_grant_all(&m->base.rq, NULL, KLAW_CLOSED, fx);
}

/* --- send --- */
static klaw_err try_send(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx) {
    mpmc *m = of(ch);
    bool grow = false;
    (void)end;
    if (ch->rx_closed)
        return KLAW_CLOSED;
    m->batched = m->batched || n > 1;
    if (n == 1 && has(&ch->rq) && avail(m) == 0) {
        if (hand_over(m, elem, false, fx, &grow)) {
            mpmc_check(m);
            return KLAW_OK;
        }
        if (grow)
            return KLAWI_GROW;
    }
    /* Behind those who wait already: a large batch must not starve. */
    if (m->room == 0 || (has(&ch->sq) && first_live(&ch->sq)))
        return KLAW_FULL;
    if (len(m) + m->tx_permits + n >
        m->room) /* I6: before a batch the ring may be smaller than that */
        return m->ring && m->mask + 1 >= m->room ? KLAW_FULL : KLAWI_GROW;
    if (!ring_holds(m, n + m->tx_permits))
        return KLAWI_GROW;
    put(m, elem, n);
    fx->more = len(m) + m->tx_permits + n <= m->room;
    if (n > 1)
        admit_receivers(m, fx);
    mpmc_check(m);
    return KLAW_OK;
}

/* Doubles the ring until it holds n more; the copy is made under the lock, the memory before. */
static klaw_err grow(klawi_chan *ch, klawi_end *end, size_t n) {
    mpmc *m = of(ch);
    (void)end;
    klawi_lock_acquire(&ch->lock);
    uint64_t size = m->ring ? m->mask + 1 : RING_FIRST, want = len(m) + m->tx_permits + n;
    klawi_lock_release(&ch->lock);
    while (size < want)
        size *= 2;
    if (size > SIZE_MAX / 2 / ch->size)
        return KLAW_NOMEM;
    char *ring = klawi_alloc(size * ch->size), *old = ring;
    if (!ring)
        return KLAW_NOMEM;
    klawi_lock_acquire(&ch->lock);
    if (!m->ring || m->mask + 1 < size) {
        for (uint64_t i = m->head; i != m->tail; i++)
            memcpy(ring + (i & (size - 1)) * ch->size, cell(m, i), ch->size);
        old = m->ring;
        m->ring = ring;
        m->mask = size - 1;
    }
    klawi_lock_release(&ch->lock);
    klawi_free(old);
    return KLAW_OK;
}

klaw_err klawi_mpmc_send(klawi_end *end, const void *elem, klaw_deadline d) {
    mpmc *m = of(end->ch);
    klawi_ctx *c = klawi_ctx_get();
    if (KLAWI_UNLIKELY(!c || klawi_budget_take(c)))
        return klawi_chan_send(end, elem, 1, d);
    klawi_lock_acquire(&m->base.lock);
    /* The common case: open, nobody waits, there is room. */
    if (KLAWI_LIKELY(!has(&m->base.rq) && !has(&m->base.sq) && len(m) + m->tx_permits < m->room &&
                     ring_holds(m, 1 + m->tx_permits) && !m->base.rx_closed &&
                     !atomic_load_explicit(&end->closed, memory_order_relaxed))) {
        klawi_elem_copy(cell(m, m->tail), elem, m->base.size);
        m->tail++;
        if (len(m) > m->high)
            m->high = len(m);
        if (klawi_inspecting()) {
            note_age(m);
            klawi_end_used(end, klawi_cur(c));
        }
        mpmc_check(m);
        klawi_lock_release(&m->base.lock);
        return KLAW_OK;
    }
    /* Next: exactly one plain receiver to hand it to. */
    klawi_waiter *w = klawi_waitq_first(&m->base.rq);
    if (KLAWI_LIKELY(w && w->op == KLAWI_OP_RECV && avail(m) == 0 && !m->base.rx_closed &&
                     !atomic_load_explicit(&end->closed, memory_order_relaxed) &&
                     klawi_claim(w->host, w->epoch))) {
        klawi_host *h = w->host;
        klawi_link_remove(&w->link);
        klawi_elem_copy(w->slot, elem, m->base.size);
        m->passed++;
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        h->result = KLAW_OK;
        h->chosen = w->index;
        mpmc_check(m);
        klawi_lock_release(&m->base.lock);
        klawi_ready(h);
        return KLAW_OK;
    }
    klawi_lock_release(&m->base.lock);
    return klawi_chan_send(end, elem, 1, d);
}

/* --- receive --- */
/* Rendezvous: straight from a waiting sender. A foreign sender is told that somebody is here. */
static bool take_from_sender(mpmc *m, void *elem, klawi_fx *fx) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&m->base.sq); w; w = next) {
        next = klawi_waitq_next(&m->base.sq, w);
        void *slot = w->slot;
        uint8_t op = w->op;
        if (!klawi_grant(w, KLAW_OK, fx))
            continue;
        if (op == KLAWI_OP_SEND) {
            klawi_elem_copy(elem, slot, m->base.size);
            m->passed++;
            return true;
        }
        m->tx_permits++;
        return false;
    }
    return false;
}

static klaw_err try_recv(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    mpmc *m = of(ch);
    (void)end;
    if (avail(m) > 0) {
        klawi_elem_copy(elem, cell(m, m->head), ch->size);
        m->head++;
        fx->more = avail(m) > 0;
        if (has(&ch->sq))
            admit_senders(m, fx);
        settle(m, fx);
        mpmc_check(m);
        return KLAW_OK;
    }
    if (m->room == 0 && has(&ch->sq) && take_from_sender(m, elem, fx)) {
        mpmc_check(m);
        return KLAW_OK;
    }
    return ch->tx_closed && m->rx_permits == 0 && m->tx_permits == 0 ? KLAW_CLOSED : KLAW_EMPTY;
}

klaw_err klawi_mpmc_recv(klawi_end *end, void *elem, klaw_deadline d) {
    mpmc *m = of(end->ch);
    klawi_ctx *c = klawi_ctx_get();
    if (KLAWI_UNLIKELY(!c || klawi_budget_take(c)))
        return klawi_chan_recv(end, elem, d);
    klawi_lock_acquire(&m->base.lock);
    if (KLAWI_LIKELY(avail(m) > 0 && !has(&m->base.sq) &&
                     !atomic_load_explicit(&end->closed, memory_order_relaxed))) {
        klawi_elem_copy(elem, cell(m, m->head), m->base.size);
        m->head++;
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        if (KLAWI_UNLIKELY(m->base.tx_closed)) {
            klawi_fx fx;
            klawi_fx_init(&fx);
            settle(m, &fx);
            klawi_lock_release(&m->base.lock);
            klawi_fx_run(&m->base, &fx);
            return KLAW_OK;
        }
        mpmc_check(m);
        klawi_lock_release(&m->base.lock);
        return KLAW_OK;
    }
    /* Nothing there, the common wait: for ever, on a fiber that has company. */
    klawi_host *h = klawi_cur(c);
    if (KLAWI_LIKELY(avail(m) == 0 && d == KLAW_FOREVER && h->kind == KLAWI_FIBER && m->room != 0 &&
                     !m->base.tx_closed && !klawi_spin_wants(&no_spin, c) &&
                     !atomic_load_explicit(&end->closed, memory_order_relaxed))) {
        klawi_waiter *w = &h->waiter;
        if (klawi_inspecting())
            klawi_end_used(end, h);
        klawi_host_waits(h, KLAWI_WAIT_RECV, m->base.id);
        klawi_waiter_fill(w, h, &m->base.lock, KLAWI_OP_RECV, elem, end);
        klawi_waitq_push(&m->base.rq, w);
        return klawi_park(h, w, &m->base.lock, KLAW_FOREVER);
    }
    klawi_lock_release(&m->base.lock);
    return klawi_chan_recv(end, elem, d);
}

klaw_err klawi_mpmc_recv_batch(klawi_end *end, void *elems, size_t max, size_t *got,
                               klaw_deadline d) {
    mpmc *m = of(end->ch);
    klawi_fx fx;
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c || (klawi_budget_take(c) && (e = klawi_budget_spent(c)) != KLAW_OK))
        return e;
    klawi_fx_init(&fx);
    if (klawi_inspecting())
        klawi_end_used(end, klawi_cur(klawi_ctx_get()));
    klawi_lock_acquire(&m->base.lock);
    uint64_t n = avail(m);
    if (n > 0 && !atomic_load_explicit(&end->closed, memory_order_relaxed)) {
        if (n > max)
            n = max;
        uint32_t size = m->base.size;
        uint64_t at = m->head & m->mask, first = m->mask + 1 - at;
        if (first > n)
            first = n;
        memcpy(elems, m->ring + at * size, first * size);
        memcpy((char *)elems + first * size, m->ring, (n - first) * size);
        m->head += n;
        if (has(&m->base.sq))
            admit_senders(m, &fx);
        settle(m, &fx);
        mpmc_check(m);
        klawi_lock_release(&m->base.lock);
        klawi_fx_run(&m->base, &fx);
        *got = n;
        return KLAW_OK;
    }
    klawi_lock_release(&m->base.lock);
    if ((e = klawi_chan_recv(end, elems, d)) != KLAW_OK)
        return e;
    *got = 1;
    if (max > 1) { /* what else has come meanwhile */
        size_t more = 0;
        klawi_lock_acquire(&m->base.lock);
        bool some = avail(m) > 0 && !atomic_load_explicit(&end->closed, memory_order_relaxed);
        klawi_lock_release(&m->base.lock);
        if (some && klawi_mpmc_recv_batch(end, (char *)elems + m->base.size, max - 1, &more,
                                          KLAW_NOWAIT) == KLAW_OK)
            *got += more;
    }
    return KLAW_OK;
}

/* --- permits --- */
static klaw_err permit(klawi_chan *ch, klawi_end *end, enum klawi_side side, size_t n,
                       klawi_fx *fx) {
    mpmc *m = of(ch);
    (void)end;
    (void)fx;
    if (side == KLAWI_RX) {
        if (avail(m) > 0) {
            m->rx_permits++;
            return KLAW_OK;
        }
        if (m->room ==
            0) { /* rendezvous: let a waiting sender put its element in, if the ring is there */
            klawi_waiter *next;
            for (klawi_waiter *w = klawi_waitq_first(&ch->sq); w; w = next) {
                next = klawi_waitq_next(&ch->sq, w);
                if (!live(w))
                    continue;
                if (!ring_holds(m, 1))
                    return KLAWI_GROW;
                void *slot = w->slot;
                uint8_t op = w->op;
                if (!klawi_grant(w, KLAW_OK, fx))
                    continue;
                if (op != KLAWI_OP_SEND) {
                    m->tx_permits++; /* it will find us waiting */
                    return KLAW_EMPTY;
                }
                put(m, slot, 1);
                m->rx_permits++;
                return KLAW_OK;
            }
        }
        return ch->tx_closed && m->rx_permits == 0 && m->tx_permits == 0 ? KLAW_CLOSED : KLAW_EMPTY;
    }
    if (ch->rx_closed)
        return KLAW_CLOSED;
    if (m->room == 0) {
        if (!first_live(&ch->rq))
            return KLAW_FULL;
    } else if (len(m) + m->tx_permits + n > m->room || first_live(&ch->sq)) {
        m->batched = m->batched || n > 1;
        return n == 1 || (m->ring && m->mask + 1 >= m->room) ? KLAW_FULL : KLAWI_GROW; /* I6 */
    }
    if (!ring_holds(m, n + m->tx_permits))
        return KLAWI_GROW; /* so that redeeming never needs memory */
    m->tx_permits += n;
    return KLAW_OK;
}

static void unpermit(klawi_chan *ch, enum klawi_side side, size_t n, klawi_fx *fx) {
    mpmc *m = of(ch);
    if (side == KLAWI_RX) {
        if (ch->rx_closed)
            return;
        KLAWI_ASSERT(m->rx_permits > 0);
        m->rx_permits--;
    } else {
        KLAWI_ASSERT(m->tx_permits >= n);
        m->tx_permits -= n;
    }
    admit(m, fx);
    settle(m, fx);
    mpmc_check(m);
}

static klaw_err redeem(klawi_chan *ch, klawi_end *end, enum klawi_side side, void *elem,
                       klawi_fx *fx) {
    mpmc *m = of(ch);
    bool need = false;
    (void)end;
    if (side == KLAWI_RX) {
        if (ch->rx_closed) /* its element was dropped */
            return KLAW_CLOSED;
        KLAWI_ASSERT(m->rx_permits > 0);
        m->rx_permits--;
        klawi_elem_copy(elem, cell(m, m->head), ch->size);
        m->head++;
        admit(m, fx);
        settle(m, fx);
        mpmc_check(m);
        return KLAW_OK;
    }
    KLAWI_ASSERT(m->tx_permits > 0);
    if (ch->rx_closed) {
        m->tx_permits--;
        return KLAW_CLOSED;
    }
    if (has(&ch->rq) && avail(m) == 0) {
        if (hand_over(m, elem, true, fx, &need)) {
            m->tx_permits--;
            admit(m, fx); /* the slot was not used */
            settle(m, fx);
            mpmc_check(m);
            return KLAW_OK;
        }
        if (need)
            return KLAWI_GROW;
    }
    if (m->room == 0) { /* rendezvous: the receiver has left */
        m->tx_permits--;
        settle(m, fx);
        return KLAW_FULL;
    }
    if (!ring_holds(m, 1))
        return KLAWI_GROW;
    m->tx_permits--;
    put(m, elem, 1);
    mpmc_check(m);
    return KLAW_OK;
}

static klaw_err redeem_batch(klawi_chan *ch, const void *elems, size_t n, klawi_fx *fx) {
    mpmc *m = of(ch);
    KLAWI_ASSERT(m->tx_permits >= n);
    m->tx_permits -= n;
    if (ch->rx_closed)
        return KLAW_CLOSED;
    put(m, elems, n);
    admit_receivers(m, fx);
    settle(m, fx);
    mpmc_check(m);
    return KLAW_OK;
}

klaw_err klawi_mpmc_reserve(klawi_end *end, klaw_deadline d) {
    klawi_chan *ch = end->ch;
    for (;;) {
        klawi_fx fx;
        klaw_err e = KLAW_OK;
        klawi_ctx *c = klawi_ctx_need(&e);
        if (!c || (klawi_budget_take(c) && (e = klawi_budget_spent(c)) != KLAW_OK))
            return e;
        c = klawi_ctx_get();
        if (klawi_inspecting())
            klawi_end_used(end, klawi_cur(c));
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        e = atomic_load_explicit(&end->closed, memory_order_relaxed)
                ? KLAW_CLOSED
                : permit(ch, end, KLAWI_TX, 1, &fx);
        if (e != KLAW_FULL) {
            klawi_lock_release(&ch->lock);
            if (e != KLAWI_GROW)
                return e;
            if ((e = grow(ch, end, 1)) != KLAW_OK)
                return e;
            continue;
        }
        klawi_host *h = klawi_cur(c);
        int64_t at;
        e = klawi_deadline_resolve(d, KLAW_FULL, &at);
        if (!e && h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
            e = KLAW_INVALID;
        if (e) {
            klawi_lock_release(&ch->lock);
            return e;
        }
        d = at;
        klawi_host_waits(h, KLAWI_WAIT_SEND, ch->id);
        klawi_waiter_fill(&h->waiter, h, &ch->lock, KLAWI_OP_RESERVE, NULL, end);
        klawi_waitq_push(&ch->sq, &h->waiter);
        e = klawi_park(h, &h->waiter, &ch->lock, at);
        if (e != KLAWI_RETRY)
            return e;
    }
}

klaw_err klawi_mpmc_permit_send(klawi_end *end, const void *elem) {
    klawi_chan *ch = end->ch;
    for (;;) {
        klawi_fx fx;
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        klaw_err e = redeem(ch, end, KLAWI_TX, (void *)(uintptr_t)elem, &fx);
        klawi_lock_release(&ch->lock);
        klawi_fx_run(ch, &fx);
        if (e != KLAWI_GROW)
            return e;
        if ((e = grow(ch, end, 1)) != KLAW_OK) {
            klawi_mpmc_permit_drop(end);
            return e;
        }
    }
}

void klawi_mpmc_permit_drop(klawi_end *end) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&end->ch->lock);
    unpermit(end->ch, KLAWI_TX, 1, &fx);
    if (KLAWI_MUTANT(R9_READY_UNDER_LOCK))
        klawi_fx_run(end->ch, &fx);
    klawi_lock_release(&end->ch->lock);
    if (!KLAWI_MUTANT(R9_READY_UNDER_LOCK))
        klawi_fx_run(end->ch, &fx);
}

/* --- closing --- */
static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    mpmc *m = of(ch);
    if (end->side == KLAWI_TX) {
        admit(m, fx); /* a batch that waited on this handle made way */
        settle(m, fx);
        return;
    }
    if (!ch->rx_closed)
        return;
    klawi_grant_all(&ch->sq, NULL, KLAW_CLOSED, fx);
    KLAWI_ASSERT(!m->rest);
    m->rest = m->ring;
    m->rest_head = m->head;
    m->rest_tail = m->tail;
    m->rest_mask = m->mask;
    m->ring = NULL;
    m->mask = 0;
    m->dropped = m->tail - m->head;
    m->tail = m->head;
    m->rx_permits = 0; /* those out there find rx_closed */
}

static void drop_rest(klawi_chan *ch) {
    mpmc *m = of(ch);
    klawi_lock_acquire(&ch->lock);
    char *ring = m->rest;
    uint64_t head = m->rest_head, tail = m->rest_tail, mask = m->rest_mask;
    m->rest = NULL;
    klawi_lock_release(&ch->lock);
    if (!ring)
        return;
    if (ch->type->drop)
        for (; head != tail; head++)
            ch->type->drop(ring + (head & mask) * ch->size);
    klawi_free(ring);
}

static void unserved(klawi_chan *ch, klawi_fx *fx) {
    admit(of(ch), fx);
    mpmc_check(of(ch));
}

static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    mpmc *m = of(ch);
    out->queue_size = len(m);
    out->high_watermark = m->high;
    out->total_sent = m->tail + m->dropped + m->passed;
    out->total_received = m->head + m->passed;
    out->permits = m->tx_permits;
    if (m->mark > m->head && len(m) > 0)
        out->oldest_age = klawi_clock() - m->mark_at;
}

static klaw_err clone_end(klawi_chan *ch, klawi_end *from, klawi_end *to) {
    (void)ch;
    (void)from;
    (void)to;
    return KLAW_OK;
}

static void destroy(klawi_chan *ch) {
    mpmc *m = of(ch);
    KLAWI_ASSERT(len(m) == 0);
    klawi_free(m->ring);
    klawi_free_aligned(m);
}

static void visit_all(klawi_chan *ch, void (*visit)(void *elem, void *user), void *user) {
    mpmc *m = of(ch);
    for (uint64_t i = m->head; i != m->tail; i++)
        visit(cell(m, i), user);
    for (uint64_t i = m->rest_head; m->rest && i != m->rest_tail; i++)
        visit(m->rest + (i & m->rest_mask) * ch->size, user);
}

const klawi_chan_ops klawi_mpmc_ops = {
    .name = "mpmc",
    .try_send = try_send,
    .try_recv = try_recv,
    .grow = grow,
    .closing = closing,
    .drop_rest = drop_rest,
    .unserved = unserved,
    .permit = permit,
    .unpermit = unpermit,
    .redeem = redeem,
    .redeem_batch = redeem_batch,
    .stats = stats,
    .visit = visit_all,
    .clone = clone_end,
    .destroy = destroy,
    .batches = true,
    .selects = true,
};

klaw_err klawi_mpmc_open(const klaw_type *type, const klaw_channel_opts *o, klaw_sender **tx,
                         klaw_receiver **rx) {
    mpmc *m = klawi_alloc_aligned(KLAWI_LINE, sizeof *m);
    if (!m)
        return KLAW_NOMEM;
    memset(m, 0, sizeof *m);
    m->room = o->capacity == KLAW_RENDEZVOUS  ? 0
              : o->capacity == KLAW_UNBOUNDED ? UINT64_MAX / 2
                                              : (uint64_t)o->capacity;
    klaw_err e = klawi_chan_open(&m->base, &klawi_mpmc_ops, type, o->name, o->capacity, tx, rx);
    if (e)
        klawi_free_aligned(m);
    return e;
}
