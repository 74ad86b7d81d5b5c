/* SPDX-License-Identifier: Apache-2.0 */
/* lock.c - the slow path of the small lock, and the rank check of debug builds.
 *
 * Critical sections are a few dozen instructions, so a waiter spins first. A holder that lost its
 * processor is given it by sched_yield and then by naps of rising length; a futex would make unlock
 * an exchange for a case that is rare. The rank stack belongs to the host: it is empty at every
 * switch, so keeping it per thread is enough. */
#include "base/lock.h"

#include "plat/det.h"
#include "plat/os.h"

#if defined(KLAWI_DEBUG)
#define RANK_MAX 1200 /* a select of KLAW_SELECT_MAX cases holds that many */
struct rank_stack {
    int n;
    uint16_t rank[RANK_MAX];
};
#if defined(KLAWI_DET)
static struct rank_stack held_by[KLAWI_DET_VCPUS];
#define held held_by[klawi_det_vcpu]
#else
static __thread struct rank_stack held;
#endif

void klawi_rank_push(uint32_t rank) {
    KLAWI_OWNED_BEGIN();
    KLAWI_ASSERT(held.n < RANK_MAX);
    if (held.n > 0)
        KLAWI_ASSERT(held.rank[held.n - 1] < rank ||
                     (held.rank[held.n - 1] == rank &&
                      (rank == KLAWI_RANK_CHANNEL || rank == KLAWI_RANK_SCOPE)));
    held.rank[held.n++] = (uint16_t)rank;
    KLAWI_OWNED_END();
}

void klawi_rank_pop(uint32_t rank) {
    KLAWI_OWNED_BEGIN();
    /* Locks of one rank are released in any order. */
    KLAWI_ASSERT(held.n > 0 && held.rank[held.n - 1] == rank);
    held.n--;
    KLAWI_OWNED_END();
}

int klawi_rank_depth(void) {
    KLAWI_OWNED_BEGIN();
    int n = held.n;
    KLAWI_OWNED_END();
    return n;
}
#endif

KLAWI_COLD void klawi_lock_slow(klawi_lock *l) {
    for (unsigned n = 0;; n++) {
#if defined(KLAWI_DET)
        klawi_det_stall();
#else
        if (n < 64)
            for (int i = 0; i < 8; i++)
                klawi_pause();
        else if (n < 96)
            klawi_thread_yield();
        else
            klawi_thread_nap(n < 200 ? 20000 : 200000);
#endif
        uint32_t zero = 0;
#if defined(KLAWI_DET)
        /* Without a point: a retry is no progress that other stalled ones could hope for. */
        if (__atomic_compare_exchange_n(&l->word, &zero, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
#else
        if (atomic_load_explicit(&l->word, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->word, &zero, 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return;
#endif
    }
}
