/* SPDX-License-Identifier: Apache-2.0 */
/* stack.h - stacks of fibers: reserved at spawn, touched at first run, kept for reuse. */
#ifndef KLAWI_STACK_H
#define KLAWI_STACK_H

#include "klaw/err.h"
#include "plat/plat.h"

#define KLAWI_STACK_DEFAULT ((size_t)256 * 1024)
#define KLAWI_STACK_MIN ((size_t)16 * 1024)
#define KLAWI_STACK_MAX ((size_t)1 << 30)
#define KLAWI_STACK_CACHE 32u

/* Lies at the upper end of its own stack, so that a parked fiber costs one page and no more. */
typedef struct klawi_stack {
    char *low;                /* (c) lowest usable address; the guard page lies below */
    char *top;                /* (c) coloured: where the first frame goes */
    struct klawi_stack *next; /* free lists */
    uint8_t size_class;       /* (c) log2 of the size */
    uint8_t unguarded;        /* (c) */
    uint8_t no_guard;         /* (c) the guard could not be installed: canary instead */
    uint8_t pad;
    uint32_t valgrind_id;
    uint64_t fpenv;  /* (o) of a fiber that asked for its own */
    uint64_t cxx[2]; /* (o) the C++ exception globals of one that asked */
#if defined(KLAWI_TSAN)
    void *tsan_fiber;
    _Atomic uint32_t ended; /* fibers that have ended on it: orders them */
#endif
} klawi_stack;

/* What a worker keeps of the default class. Each token is the right to one stack. */
typedef struct klawi_stack_cache {
    klawi_stack *first;
    uint32_t count;
    uint32_t tokens;
    uint8_t size_class;
} klawi_stack_cache;

/* A size in bytes to a class; 0 when it is out of range. */
unsigned klawi_stack_class(size_t size);
/* Sets how many stacks workers may keep for themselves on top of what is reserved. */
void klawi_stack_slack(uint32_t workers, unsigned size_class);
/* Reserves the right to one stack, mapping address space when needed. NOMEM. cache may be NULL. */
klaw_err klawi_stack_reserve(klawi_stack_cache *cache, unsigned c, bool unguarded);
void klawi_stack_unreserve(klawi_stack_cache *cache, unsigned c, bool unguarded);
/* A stack for a reservation: never fails. */
klawi_stack *klawi_stack_take(klawi_stack_cache *cache, unsigned c, bool unguarded);
/* Back; the stack may still be run on until the caller's next switch when it goes to the cache
 * (P11). */
void klawi_stack_give(klawi_stack_cache *cache, klawi_stack *s);
/* Everything a worker keeps goes to the common lists. Not while running on one of them. */
void klawi_stack_cache_flush(klawi_stack_cache *cache);
/* False when the canary of an unguarded stack has been overwritten. */
bool klawi_stack_intact(const klawi_stack *s);
/* Whether the address lies in the guard of this stack. */
bool klawi_stack_guards(const klawi_stack *s, const void *addr);

#endif
