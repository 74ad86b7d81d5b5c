/* SPDX-License-Identifier: Apache-2.0 */
/* log_hook.c - the hooks that see every record.
 *
 * Hooks come and go while others log, and nobody may wait for anybody: so a hook is counted. The
 * count holds one for being installed and one per call under way; who takes it to zero (the
 * remover or the last caller) runs `release` and frees the place.
 *
 * A place's word:  generation (32 bits) | BUSY | LIVE | count (24 bits)
 *   free       everything but the generation is 0
 *   BUSY       one host is filling or emptying it; nobody else touches it
 *   LIVE       count >= 1, the one for being installed is in it
 *   leaving    neither, count >= 1: calls that began before the removal
 *
 * Invariants:
 *   H1  hook, release and user are written only by the host that set BUSY.
 *   H2  a call is counted from before it reads them until after it returned.
 *   H3  the generation rises with each use, so that an old id finds nothing.
 *
 * A hook that logs would call itself: `inside` lists the hosts that are in hooks (a fiber by its
 * id, a thread by itself), and these get no hooks. A thread-local would be wrong: a hook may
 * send, and a fiber that sends may be moved to another thread. When the list is full a host goes
 * in unlisted: it can call itself only as long as the list stays full.
 *
 * Rejected: a lock around the hooks: it would be held across callbacks (R9). */
#include <pthread.h>

#include "base/log.h"

#define COUNT_MASK ((uint64_t)0xffffff)
#define LIVE ((uint64_t)1 << 24)
#define BUSY ((uint64_t)1 << 25)
#define GENERATION ((uint64_t)1 << 32)
#define STATE_MASK (GENERATION - 1)
#define INSIDE_MAX 16

struct place {
    _Atomic uint64_t word; /* (a) */
    klaw_log_hook hook;    /* H1 */
    void (*release)(void *user);
    void *user;
};

static struct place places[KLAW_LOG_HOOKS_MAX];
static _Atomic uint64_t installed;          /* (a) relaxed: a hint that there is anything to call */
static _Atomic uint64_t inside[INSIDE_MAX]; /* (a) relaxed: only its writer knows its own */

klaw_err klaw_log_hook_add(klaw_log_hook hook, void (*release)(void *user), void *user,
                           uint64_t *id) {
    if (!hook)
        return KLAW_INVALID;
    for (unsigned i = 0; i < KLAW_LOG_HOOKS_MAX; i++) {
        struct place *p = &places[i];
        uint64_t was = atomic_load_explicit(&p->word, memory_order_relaxed);
        /* Acquire: pairs with the release that freed the place. */
        if ((was & STATE_MASK) != 0 ||
            !atomic_compare_exchange_strong_explicit(&p->word, &was, was | BUSY,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        p->hook = hook;
        p->release = release;
        p->user = user;
        if (id)
            *id = was / GENERATION * KLAW_LOG_HOOKS_MAX + i + 1;
        atomic_fetch_add_explicit(&installed, 1, memory_order_relaxed);
        /* Release: pairs with enter. */
        atomic_store_explicit(&p->word, was | LIVE | 1, memory_order_release);
        return KLAW_OK;
    }
    return KLAW_LIMIT;
}

/* H2: one more call, unless the hook is not there (any more). */
static bool enter(struct place *p) {
    uint64_t was = atomic_load_explicit(&p->word, memory_order_relaxed);
    while (was & LIVE)
        if (atomic_compare_exchange_weak_explicit(&p->word, &was, was + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void leave(struct place *p) {
    uint64_t was = atomic_load_explicit(&p->word, memory_order_relaxed), to;
    do {
        KLAWI_ASSERT((was & COUNT_MASK) != 0);
        to = (was & COUNT_MASK) == 1 ? (was - 1) | BUSY : was - 1;
        /* acq_rel: what other calls did with *user comes before its release. */
    } while (!atomic_compare_exchange_weak_explicit(&p->word, &was, to, memory_order_acq_rel,
                                                    memory_order_relaxed));
    if (!(to & BUSY))
        return;
    KLAWI_ASSERT(!(to & LIVE));
    if (p->release)
        p->release(p->user);
    atomic_store_explicit(&p->word, (to & ~STATE_MASK) + GENERATION, memory_order_release); /* H3 */
}

klaw_err klaw_log_hook_remove(uint64_t id) {
    if (id == 0)
        return KLAW_NOT_FOUND;
    struct place *p = &places[(id - 1) % KLAW_LOG_HOOKS_MAX];
    uint64_t generation = (id - 1) / KLAW_LOG_HOOKS_MAX;
    uint64_t was = atomic_load_explicit(&p->word, memory_order_relaxed);
    do {
        if (was / GENERATION != generation || !(was & LIVE))
            return KLAW_NOT_FOUND;
    } while (!atomic_compare_exchange_weak_explicit(&p->word, &was, was & ~LIVE,
                                                    memory_order_relaxed, memory_order_relaxed));
    atomic_fetch_sub_explicit(&installed, 1, memory_order_relaxed);
    leave(p);
    return KLAW_OK;
}

void klawi_log_hooks_run(const klaw_log_record *record) {
    if (atomic_load_explicit(&installed, memory_order_relaxed) == 0)
        return;
    /* Thread handles are addresses, hence even. */
    uint64_t self = record->fiber_id ? record->fiber_id * 2 + 1 : (uint64_t)pthread_self();
    for (int i = 0; i < INSIDE_MAX; i++)
        if (atomic_load_explicit(&inside[i], memory_order_relaxed) == self)
            return;
    int listed = 0;
    for (; listed < INSIDE_MAX; listed++) {
        uint64_t none = 0;
        if (atomic_compare_exchange_strong_explicit(&inside[listed], &none, self,
                                                    memory_order_relaxed, memory_order_relaxed))
            break;
    }
    for (int i = 0; i < KLAW_LOG_HOOKS_MAX; i++) {
        if (!enter(&places[i]))
            continue;
        places[i].hook(record, places[i].user);
        leave(&places[i]);
    }
    if (listed < INSIDE_MAX)
        atomic_store_explicit(&inside[listed], 0, memory_order_relaxed);
}
