/* SPDX-License-Identifier: Apache-2.0 */
/* host.h - hosts, waiters and the claim word: how everything in klaw waits (protocol rules P1-P7).
 *
 * A host is who can wait: a fiber, a plain thread, or an operation of a foreign loop. It has one
 * word:
 *
 *     epoch (61 bits) | SHIELD | CANCEL | ARMED
 *
 * ARMED is set by the host alone when it parks, with a fresh epoch, and cleared by exactly one
 * claimer: a peer, a timer, a canceller. Fibers and threads live in type-stable memory and their
 * epochs never repeat, so a stale (host, epoch) can be tried at any time and harmlessly fails. A
 * waiter is what a host hangs into a queue; the queue's lock guards its links.
 *
 * Invariants (checked where named):
 *   H1  a waiter is linked only while its host is armed with its epoch, or has lost the claim and
 *       not yet been unlinked by the winner.
 *   H2  result, chosen and the element are written by the winner of the claim before it readies the
 *       host, and by nobody else.
 *   H3  the winner of a single wait has unlinked the waiter before it readies the host; in a select
 *       the host unlinks the rest itself.
 *   H4  between claim and ready the host exists: it can't run, so it can't return or end.
 *
 * Rejected: a flag per waiter instead of one word per host (select needs one winner over many
 * waiters); generation counters beside pointers in the waiter alone (cancellation and timers hold
 * hosts, not waiters). */
#ifndef KLAWI_HOST_H
#define KLAWI_HOST_H

#include "base/lock.h"
#include "klaw/fiber.h"
#include "plat/os.h"
#include "sched/mutant.h"
#include "sched/wheel.h"

#define KLAWI_ARMED 1ull
#define KLAWI_CANCEL 2ull
/* An armed wait that cancellation may not claim. */
#define KLAWI_SHIELD 4ull
#define KLAWI_EPOCH 8ull
#define KLAWI_FLAGS (KLAWI_EPOCH - 1)

typedef struct klawi_host klawi_host;

enum klawi_host_kind { KLAWI_FIBER = 1, KLAWI_THREAD, KLAWI_CALLBACK };

/* What a waiter wants from the channel it hangs on. */
enum klawi_op {
    KLAWI_OP_NONE,
    KLAWI_OP_SEND,    /* slot: n elements to move out */
    KLAWI_OP_RECV,    /* slot: where one element goes */
    KLAWI_OP_RESERVE, /* wants a slot (send permit) */
    KLAWI_OP_PERMIT,  /* wants an element reserved (receive permit; foreign loops) */
    KLAWI_OP_NOTIFY   /* wants to be told */
};

typedef struct klawi_waiter {
    klawi_link link;  /* (L) the queue's lock; link.next NULL: not linked */
    klawi_lock *lock; /* (o) the lock of the queue it hangs in */
    klawi_host *host; /* (c) while linked */
    uint64_t epoch;   /* (c) while linked; with ARMED cleared */
    void *slot;       /* (c) while linked: the element */
    void *handle;     /* (c) while linked: the endpoint it waits on */
    uint32_t n;       /* (c) elements of a batch */
    uint16_t index;   /* (c) select case */
    uint8_t op;       /* (c) enum klawi_op */
    uint8_t pad;
} klawi_waiter;

struct klawi_host {
    _Atomic uint64_t word; /* (a) see above */
    uint8_t kind;          /* (c) */
    _Atomic uint8_t what;  /* (a relaxed, for inspect) what it waits for */
    uint16_t pad;
    int32_t result;          /* H2 */
    uint32_t chosen;         /* H2: select case */
    _Atomic uint32_t object; /* (a relaxed, for inspect) low bits of the id of what it waits on */
    klawi_waiter waiter;     /* embedded: every single wait uses it */
    klawi_timer timer;       /* fibers: deadlines */
};

/* --- queues of waiters: circular, the head is a bare link --- */
typedef klawi_link klawi_waitq;

static inline void klawi_waitq_push(klawi_waitq *q, klawi_waiter *w) {
    klawi_link_push(q, &w->link);
}
static inline klawi_waiter *klawi_waitq_first(klawi_waitq *q) {
    return q->next == q ? NULL : (klawi_waiter *)(void *)q->next;
}
static inline klawi_waiter *klawi_waitq_next(klawi_waitq *q, klawi_waiter *w) {
    return w->link.next == q ? NULL : (klawi_waiter *)(void *)w->link.next;
}

/* --- the claim --- */

/* Fills the waiter for a wait that will be armed by klawi_arm: the epoch is the next one. */
static inline void klawi_waiter_fill(klawi_waiter *w, klawi_host *h, klawi_lock *lock, uint8_t op,
                                     void *slot, void *handle) {
    w->lock = lock;
    w->host = h;
    w->epoch = (atomic_load_explicit(&h->word, memory_order_relaxed) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
    w->slot = slot;
    w->handle = handle;
    w->n = 1;
    w->index = 0;
    w->op = op;
}

/* P3: CLAIMED|e -> ARMED|e+1. False when CANCEL is set: the caller unlinks and returns CANCELLED.
 * */
static inline bool klawi_arm(klawi_host *h, uint64_t epoch) {
    uint64_t was = epoch - KLAWI_EPOCH;
    KLAWI_POINT();
    if (KLAWI_MUTANT(P3_ARM_CANCELLED))
        was |= atomic_load_explicit(&h->word, memory_order_relaxed) & KLAWI_CANCEL;
    /* Release: pairs with the acquire of the claimer, who reads waiter and slot. */
    return atomic_compare_exchange_strong_explicit(&h->word, &was, epoch | KLAWI_ARMED,
                                                   memory_order_release, memory_order_relaxed);
}

/* The same for a wait that cancellation can't end. */
static inline void klawi_arm_shielded(klawi_host *h, uint64_t epoch) {
    uint64_t was = epoch - KLAWI_EPOCH;
    KLAWI_POINT();
    while (!atomic_compare_exchange_weak_explicit(
        &h->word, &was, epoch | (was & KLAWI_CANCEL) | KLAWI_ARMED | KLAWI_SHIELD,
        memory_order_release, memory_order_relaxed))
        KLAWI_ASSERT((was & ~KLAWI_CANCEL) == epoch - KLAWI_EPOCH);
}

/* P4: one compare-and-swap; who loses reads nothing more of the host. */
static inline bool klawi_claim(klawi_host *h, uint64_t epoch) {
    uint64_t was = epoch | KLAWI_ARMED;
    KLAWI_POINT();
    if (KLAWI_MUTANT(P4_CLAIM_ALWAYS)) {
        atomic_fetch_and(&h->word, ~(KLAWI_ARMED | KLAWI_SHIELD));
        return true;
    }
    /* acq_rel: acquire pairs with klawi_arm; release orders an earlier write of the claimer for
     * later claimers. */
    while (!atomic_compare_exchange_strong_explicit(&h->word, &was,
                                                    was & ~(KLAWI_ARMED | KLAWI_SHIELD),
                                                    memory_order_acq_rel, memory_order_relaxed))
        if (KLAWI_MUTANT(P1_IGNORE_EPOCH)
                ? !(was & KLAWI_ARMED)
                : (was & ~(KLAWI_CANCEL | KLAWI_SHIELD)) != (epoch | KLAWI_ARMED))
            return false;
    return true;
}

/* P7: cancels. True when an armed wait was claimed by it: the caller then owns the clean-up
 * (klawi_finish_claimed). */
static inline bool klawi_cancel_claim(klawi_host *h) {
    uint64_t was = atomic_load_explicit(&h->word, memory_order_relaxed), to;
    KLAWI_POINT();
    do {
        to = KLAWI_MUTANT(P7_LOSE_CANCEL) ? was : was | KLAWI_CANCEL;
        if ((was & (KLAWI_ARMED | KLAWI_SHIELD)) == KLAWI_ARMED ||
            (KLAWI_MUTANT(P7_THROUGH_SHIELD) && (was & KLAWI_ARMED)))
            to &= ~(KLAWI_ARMED | KLAWI_SHIELD);
    } while (!atomic_compare_exchange_weak_explicit(&h->word, &was, to, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return (was & (KLAWI_ARMED | KLAWI_SHIELD)) == KLAWI_ARMED ||
           (KLAWI_MUTANT(P7_THROUGH_SHIELD) && (was & KLAWI_ARMED));
}

static inline void klawi_cancel_clear(klawi_host *h) {
    atomic_fetch_and_explicit(&h->word, ~KLAWI_CANCEL, memory_order_acq_rel);
}

static inline bool klawi_host_cancelled(klawi_host *h) {
    return (atomic_load_explicit(&h->word, memory_order_relaxed) & KLAWI_CANCEL) != 0;
}

/* P6: after a claim by a timer or a canceller, no lock held: unlinks a single wait, writes the
 * result, readies. */
void klawi_finish_claimed(klawi_host *h, klaw_err result);

/* P5: makes a claimed host go on. No lock held; called once per claim. */
void klawi_ready(klawi_host *h);

/* Hosts claimed under a lock, to be readied after it: a local list through waiter.link. */
typedef struct klawi_wakes {
    klawi_link *first, **last;
} klawi_wakes;
static inline void klawi_wakes_init(klawi_wakes *l) {
    l->first = NULL;
    l->last = &l->first;
}
/* The waiter is claimed and unlinked; its link is free for us until ready. A select's losing
 * waiters stay linked, only the winning one is passed here. */
static inline void klawi_wakes_add(klawi_wakes *l, klawi_waiter *w) {
    w->link.next = NULL;
    *l->last = &w->link;
    l->last = &w->link.next;
}
void klawi_wakes_run(klawi_wakes *l);

#endif
