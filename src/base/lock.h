/* SPDX-License-Identifier: Apache-2.0 */
/* lock.h - the small lock, and the order of all locks.
 *
 * Spins 64 times, then yields the processor, then naps; unlock is a plain store. Under a lock there
 * is no allocation, no callback, no wake-up and no switch (R9). Debug builds keep each host's stack
 * of ranks and assert that it grows and is empty at switches. */
#ifndef KLAWI_LOCK_H
#define KLAWI_LOCK_H

#include "plat/plat.h"

/* Every lock of the library, outermost first: a lock may be taken only while all held ones have a
 * smaller rank (channels among themselves: by rising id). */
enum klawi_rank {
    KLAWI_RANK_RUNTIME = 1, /* starting and stopping */
    KLAWI_RANK_SIGNAL,      /* the table of signal receivers */
    KLAWI_RANK_INSPECT,     /* provider table */
    KLAWI_RANK_REGISTRY,    /* the list of live objects of a kind */
    KLAWI_RANK_SUPERVISOR,  /* a supervisor, its inbox and table */
    KLAWI_RANK_ENDPOINT,    /* a handle's own list of waiters */
    KLAWI_RANK_EXECUTOR,    /* an executor with its tasks */
    KLAWI_RANK_GATHER,      /* who waits for several tasks */
    KLAWI_RANK_FIBER,       /* exit and join of one fiber */
    KLAWI_RANK_SCOPE,
    KLAWI_RANK_CREW,    /* a pool of actors */
    KLAWI_RANK_BOND,    /* monitors and links of actors */
    KLAWI_RANK_ACTOR,   /* a mailbox */
    KLAWI_RANK_CHANNEL, /* many at once in select, by id */
    KLAWI_RANK_PROCESS, /* one operating-system process */
    KLAWI_RANK_FD,
    KLAWI_RANK_BLOCKING,
    KLAWI_RANK_WHEEL,
    KLAWI_RANK_INBOX, /* global run list, workers' foreign inboxes */
    KLAWI_RANK_POOL,  /* stacks, descriptors */
    KLAWI_RANK_LOG,
    KLAWI_RANK_LEAF
};

typedef struct klawi_lock {
    _Atomic uint32_t word;
#if defined(KLAWI_DEBUG)
    uint32_t rank;
#endif
} klawi_lock;

#if defined(KLAWI_DEBUG)
#define KLAWI_LOCK_INIT(r) \
    { 0, (r) }
void klawi_rank_push(uint32_t rank);
void klawi_rank_pop(uint32_t rank);
/* How many locks the calling host holds; 0 at every switch, callback, allocation and wake-up (R9).
 * */
int klawi_rank_depth(void);
#define KLAWI_ASSERT_UNLOCKED() KLAWI_ASSERT(klawi_rank_depth() == 0)
#else
#define KLAWI_LOCK_INIT(r) \
    { 0 }
#define KLAWI_ASSERT_UNLOCKED() ((void)0)
#endif

static inline void klawi_lock_init(klawi_lock *l, uint32_t rank) {
    atomic_init(&l->word, 0);
#if defined(KLAWI_DEBUG)
    l->rank = rank;
#else
    (void)rank;
#endif
}

void klawi_lock_slow(klawi_lock *l);

static inline void klawi_lock_acquire(klawi_lock *l) {
    uint32_t zero = 0;
    KLAWI_POINT();
    /* Pairs with the release store below. */
    if (KLAWI_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &l->word, &zero, 1, memory_order_acquire, memory_order_relaxed)))
        klawi_lock_slow(l);
#if defined(KLAWI_DEBUG)
    klawi_rank_push(l->rank);
#endif
}

static inline void klawi_lock_release(klawi_lock *l) {
#if defined(KLAWI_DEBUG)
    klawi_rank_pop(l->rank);
#endif
    atomic_store_explicit(&l->word, 0, memory_order_release);
}

#endif
