/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.c - where the library's memory comes from.
 *
 * Three things lie behind klawi_alloc: the user's hooks, the count of live blocks, and failure
 * injection. All of them are cheap enough to stay in release builds, so that the library that is
 * tested for lack of memory is the one that is shipped.
 *
 * Invariants:
 *   A1  live = blocks handed out by the allocator in use and not yet freed.
 *   A2  hooks change only while live == 0, so each block goes back where it came from.
 *   A3  a point is counted whether it fails or not: the n-th point of one run is the n-th of the
 *       next as far as the run itself repeats.
 *
 * No locks. Counters are relaxed: nobody reads other memory on the strength of their values.
 * Hooks and trim callbacks are published by release and read by acquire.
 *
 * Points are counted from the first klaw_alloc_fail_at of the process on. Before it, and so in
 * every program that is no test, a point costs one relaxed load.
 *
 * An aligned block is a larger one, with the allocator's own address stored right before the
 * aligned one. Rejected: aligned_alloc, which the hooks do not have, and a fourth hook, which
 * few users could fill. */
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "plat/plat.h"

#define TRIM_MAX 16

typedef void (*trim_fn)(void);

static klaw_alloc_hooks user_hooks;           /* (c) while `hooks` points to it */
static const klaw_alloc_hooks *_Atomic hooks; /* (a) NULL: the C library */
static _Atomic uint64_t live;                 /* (a) relaxed */
static _Atomic bool counting;                 /* (a) relaxed: klaw_alloc_fail_at was called */
static _Atomic uint64_t points;               /* (a) relaxed */
static _Atomic uint64_t fail_from;            /* (a) relaxed; 0: never */
static _Atomic bool fail_sticky;              /* (a) relaxed */
static _Atomic trim_fn trims[TRIM_MAX];       /* (a) filled from the front, never emptied */

static KLAWI_COLD bool count_point(void) {
    uint64_t n = atomic_fetch_add_explicit(&points, 1, memory_order_relaxed) + 1;
    uint64_t from = atomic_load_explicit(&fail_from, memory_order_relaxed);
    if (from == 0 || n < from)
        return false;
    return n == from || atomic_load_explicit(&fail_sticky, memory_order_relaxed);
}

bool klawi_fail_point(void) {
    if (KLAWI_LIKELY(!atomic_load_explicit(&counting, memory_order_relaxed)))
        return false;
    return count_point();
}

static const klaw_alloc_hooks *current_hooks(void) {
    /* Pairs with klaw_alloc_set. */
    return atomic_load_explicit(&hooks, memory_order_acquire);
}

static void *counted(void *p) {
    if (KLAWI_LIKELY(p != NULL))
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void *klawi_alloc(size_t size) {
    KLAWI_ASSERT_UNLOCKED();
    if (KLAWI_UNLIKELY(klawi_fail_point()))
        return NULL;
    if (size == 0)
        size = 1;
    const klaw_alloc_hooks *h = current_hooks();
    return counted(h ? h->malloc_fn(size, h->user) : malloc(size));
}

void *klawi_calloc(size_t n, size_t size) {
    size_t all;
    KLAWI_ASSERT_UNLOCKED();
    if (KLAWI_UNLIKELY(klawi_fail_point()))
        return NULL;
    if (__builtin_mul_overflow(n, size, &all))
        return NULL;
    if (all == 0)
        all = 1;
    const klaw_alloc_hooks *h = current_hooks();
    if (!h)
        return counted(calloc(1, all));
    void *p = h->malloc_fn(all, h->user);
    if (p)
        memset(p, 0, all);
    return counted(p);
}

void *klawi_realloc(void *p, size_t size) {
    if (!p)
        return klawi_alloc(size);
    KLAWI_ASSERT_UNLOCKED();
    if (KLAWI_UNLIKELY(klawi_fail_point()))
        return NULL;
    if (size == 0)
        size = 1;
    const klaw_alloc_hooks *h = current_hooks();
    return h ? h->realloc_fn(p, size, h->user) : realloc(p, size);
}

void klawi_free(void *p) {
    if (!p)
        return;
    KLAWI_ASSERT_UNLOCKED();
    uint64_t before = atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    KLAWI_ASSERT(before > 0); /* A1 */
    (void)before;
    const klaw_alloc_hooks *h = current_hooks();
    if (h)
        h->free_fn(p, h->user);
    else
        free(p);
}

void *klawi_alloc_aligned(size_t align, size_t size) {
    size_t all;
    KLAWI_ASSERT(align != 0 && (align & (align - 1)) == 0);
    if (align < sizeof(void *))
        align = sizeof(void *);
    if (__builtin_add_overflow(size, align - 1 + sizeof(void *), &all)) {
        (void)klawi_fail_point(); /* A3 */
        return NULL;
    }
    unsigned char *base = klawi_alloc(all);
    if (!base)
        return NULL;
    uintptr_t first = (uintptr_t)base + sizeof(void *);
    size_t skip = sizeof(void *) + ((0 - first) & (align - 1));
    memcpy(base + skip - sizeof(void *), &base, sizeof base);
    return base + skip;
}

void klawi_free_aligned(void *p) {
    void *base;
    if (!p)
        return;
    memcpy(&base, (unsigned char *)p - sizeof(void *), sizeof base);
    klawi_free(base);
}

klaw_err klaw_alloc_set(const klaw_alloc_hooks *h) {
    if (h && (!h->malloc_fn || !h->realloc_fn || !h->free_fn))
        return KLAW_INVALID;
    if (klaw_alloc_live() != 0)
        return KLAW_EXISTS; /* A2 */
    if (h)
        user_hooks = *h;
    atomic_store_explicit(&hooks, h ? &user_hooks : NULL, memory_order_release);
    return KLAW_OK;
}

void klaw_alloc_fail_at(uint64_t n, bool sticky) {
    atomic_store_explicit(&fail_from, 0, memory_order_relaxed);
    atomic_store_explicit(&fail_sticky, sticky, memory_order_relaxed);
    atomic_store_explicit(&points, 0, memory_order_relaxed);
    atomic_store_explicit(&fail_from, n, memory_order_relaxed);
    atomic_store_explicit(&counting, true, memory_order_relaxed);
}

uint64_t klaw_alloc_points(void) {
    return atomic_load_explicit(&points, memory_order_relaxed);
}

uint64_t klaw_alloc_live(void) {
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void klawi_trim_register(void (*fn)(void)) {
    for (int i = 0; i < TRIM_MAX; i++) {
        trim_fn there = NULL;
        /* Pairs with klaw_alloc_trim. */
        if (atomic_compare_exchange_strong_explicit(&trims[i], &there, fn, memory_order_acq_rel,
                                                    memory_order_acquire) ||
            there == fn)
            return;
    }
    KLAWI_ASSERT(!"too many caches");
}

void klaw_alloc_trim(void) {
    for (int i = TRIM_MAX - 1; i >= 0; i--) {
        trim_fn fn = atomic_load_explicit(&trims[i], memory_order_acquire);
        if (fn)
            fn();
    }
}
