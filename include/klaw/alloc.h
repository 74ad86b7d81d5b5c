/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.h - where the library's memory comes from, and how to make it fail on purpose. */
#ifndef KLAW_ALLOC_H
#define KLAW_ALLOC_H

#include "klaw/err.h"

KLAW_BEGIN

/* Replacement allocator. Same contracts as malloc, realloc and free; called from any thread, never
 * under a lock of klaw. */
typedef struct klaw_alloc_hooks {
    void *(*malloc_fn)(size_t size, void *user);
    void *(*realloc_fn)(void *p, size_t size, void *user);
    void (*free_fn)(void *p, void *user);
    void *user;
} klaw_alloc_hooks;

/* Installs hooks (NULL: back to the C library). Errors: EXISTS once anything is allocated and not
 * freed; INVALID when a function is missing. Not concurrently with anything else of klaw. */
KLAW_API KLAW_MUST klaw_err klaw_alloc_set(const klaw_alloc_hooks *hooks);

/* Test aid: the n-th allocation point from now (1 is the next; heap, stack mapping, thread
 * creation) fails once, with every later one too when `sticky`. 0 switches it off. Process-wide. */
KLAW_API void klaw_alloc_fail_at(uint64_t n, bool sticky);
/* Allocation points passed since klaw_alloc_fail_at was last called. */
KLAW_API uint64_t klaw_alloc_points(void);
/* Blocks now allocated through the hooks by the library (what it caches for reuse included). */
KLAW_API uint64_t klaw_alloc_live(void);
/* Gives cached memory (stacks, descriptors of finished fibers) back where that is possible. Only
 * while no runtime runs. */
KLAW_API void klaw_alloc_trim(void);

KLAW_END

#endif
