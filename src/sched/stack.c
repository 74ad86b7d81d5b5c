/* SPDX-License-Identifier: Apache-2.0 */
/* stack.c - where fibers' stacks come from.
 *
 * Stacks are cut from chunks of address space (PROT_READ|WRITE, not backed until touched), one
 * class per power of two, guarded and unguarded apart. The stride is the size plus the guard page,
 * so that the tops of neighbours fall into different cache sets; within the page the tops are
 * coloured as well. A reservation is only a number: `reserved + slack <= total` per class, mapped
 * when needed, at spawn. The stack itself is attached when the fiber first runs, and the hottest
 * one is reused first.
 *
 * Guards: MADV_GUARD_INSTALL where the kernel has it (no further mapping), else mprotect, else
 * (vm.max_map_count reached) a canary.
 *
 * Invariants under class->lock:
 *   S1  reserved + slack <= total whenever a reservation succeeded; stacks out of the common list
 *       <= reserved + slack.
 *   S2  a stack is in one list or attached to one fiber.
 * klawi_stack_give to a worker's own cache may happen while still running on the stack: nobody but
 * this worker takes from there, and it does so only after the switch.
 *
 * Rejected: growing stacks by copying (C has pointers into them); unmapping at exit (8.6 us a
 * stack). */
#include "sched/stack.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/lock.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#if defined(KLAWI_TSAN)
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
#endif
#if defined(KLAWI_ASAN)
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(a, b) 0
#define VALGRIND_STACK_DEREGISTER(id) (void)(id)
#endif

#define PAGE 4096u
#define CLASS_MIN 14u
#define CLASS_MAX 30u
#define COLOURS 16u
#define CANARY 0x6b6c61772d737461ull
#define CANARY_WORDS 8

/* One mapping; the records are allocated, and never many: chunks double. */
struct chunk {
    struct chunk *next;
    char *base;
    size_t bytes;
    uint32_t count, used; /* (L) stacks cut so far */
};

struct class {
    klawi_lock lock;
    klawi_stack *free;             /* (L) */
    struct chunk *chunks;          /* (L) the first one has room, or none has */
    uint64_t total, reserved, out; /* (L) out: attached or in workers' caches */
    uint32_t next_count;           /* (L) size of the next chunk in stacks */
};

static struct class classes[2][CLASS_MAX + 1];
/* What workers may keep of the class they cache. Of the others each has at most one, on its way
 * back. */
static _Atomic uint32_t slack, slack_class;
static _Atomic int guard_mode; /* 0 unknown, 1 MADV_GUARD_INSTALL, 2 mprotect, 3 none */

static struct class *class_of(unsigned c, bool unguarded) {
    return &classes[unguarded][c];
}

unsigned klawi_stack_class(size_t size) {
    if (size < KLAWI_STACK_MIN || size > KLAWI_STACK_MAX)
        return 0;
    return size <= KLAWI_STACK_MIN ? CLASS_MIN : 64u - (unsigned)__builtin_clzll(size - 1);
}

void klawi_stack_slack(uint32_t workers, unsigned size_class) {
    atomic_store(&slack, (workers + 1) * KLAWI_STACK_CACHE);
    atomic_store(&slack_class, size_class);
}

static uint64_t slack_of(unsigned c, bool unguarded) {
    if (unguarded || c != atomic_load_explicit(&slack_class, memory_order_relaxed))
        return atomic_load_explicit(&slack, memory_order_relaxed) / KLAWI_STACK_CACHE;
    return atomic_load_explicit(&slack, memory_order_relaxed);
}

static size_t stride_of(unsigned c) {
    return ((size_t)1 << c) + PAGE;
}

/* Maps at least `need` more stacks. No lock held. */
static klaw_err grow(struct class *k, unsigned c, uint64_t need) {
    klawi_lock_acquire(&k->lock);
    uint64_t count = k->next_count ? k->next_count : 64;
    klawi_lock_release(&k->lock);
    while (count * stride_of(c) > ((size_t)8 << 30) && count > 1)
        count /= 2;
    if (count < need)
        count = need;
    struct chunk *ch = klawi_alloc(sizeof *ch);
    if (!ch)
        return KLAW_NOMEM;
    ch->bytes = (size_t)count * stride_of(c);
    ch->base = klawi_fail_point()
                   ? MAP_FAILED
                   : mmap(NULL, ch->bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (ch->base == MAP_FAILED) {
        klawi_free(ch);
        return KLAW_NOMEM;
    }
    madvise(ch->base, ch->bytes, MADV_NOHUGEPAGE);
    ch->count = (uint32_t)count;
    ch->used = 0;
    klawi_lock_acquire(&k->lock);
    ch->next = k->chunks;
    k->chunks = ch;
    k->total += count;
    if (count < 65536)
        k->next_count = (uint32_t)count * 2;
    klawi_lock_release(&k->lock);
    return KLAW_OK;
}

/* Takes n reservations. */
static klaw_err reserve(unsigned c, bool unguarded, uint32_t n) {
    struct class *k = class_of(c, unguarded);
    for (;;) {
        klawi_lock_acquire(&k->lock);
        uint64_t want = k->reserved + n + slack_of(c, unguarded);
        bool fits = want <= k->total;
        uint64_t need = fits ? 0 : want - k->total;
        if (fits)
            k->reserved += n;
        klawi_lock_release(&k->lock);
        if (fits)
            return KLAW_OK;
        klaw_err e = grow(k, c, need);
        if (e)
            return e;
    }
}

klaw_err klawi_stack_reserve(klawi_stack_cache *cache, unsigned c, bool unguarded) {
    if (!cache || unguarded || c != cache->size_class)
        return reserve(c, unguarded, 1);
    if (cache->tokens == 0) {
        klaw_err e = reserve(c, false, KLAWI_STACK_CACHE);
        if (e)
            return e;
        cache->tokens = KLAWI_STACK_CACHE;
    }
    cache->tokens--;
    return KLAW_OK;
}

static void unreserve(unsigned c, bool unguarded, uint32_t n) {
    struct class *k = class_of(c, unguarded);
    klawi_lock_acquire(&k->lock);
    KLAWI_ASSERT(k->reserved >= n);
    k->reserved -= n;
    klawi_lock_release(&k->lock);
}

void klawi_stack_unreserve(klawi_stack_cache *cache, unsigned c, bool unguarded) {
    if (!cache || unguarded || c != cache->size_class) {
        unreserve(c, unguarded, 1);
        return;
    }
    if (++cache->tokens >= 4 * KLAWI_STACK_CACHE) {
        cache->tokens -= 2 * KLAWI_STACK_CACHE;
        unreserve(c, false, 2 * KLAWI_STACK_CACHE);
    }
}

static bool install_guard(char *page) {
    int mode = atomic_load_explicit(&guard_mode, memory_order_relaxed);
    if (mode <= 1) {
        if (madvise(page, PAGE, MADV_GUARD_INSTALL) == 0) {
            atomic_store_explicit(&guard_mode, 1, memory_order_relaxed);
            return true;
        }
        atomic_store_explicit(&guard_mode, 2, memory_order_relaxed);
    }
    return mprotect(page, PAGE, PROT_NONE) == 0;
}

static uint64_t *canary_of(const klawi_stack *s) {
    return (uint64_t *)(void *)s->low;
}

/* Dresses a never used stack. */
static klawi_stack *cut(char *base, unsigned c, bool unguarded, uint32_t index) {
    char *low = base + PAGE, *high = low + ((size_t)1 << c);
    klawi_stack *s =
        (klawi_stack *)(void *)(high - sizeof(klawi_stack) -
                                (sizeof(klawi_stack) % 64 ? 64 - sizeof(klawi_stack) % 64 : 0));
    s->low = low;
    s->top = (char *)s - (index % COLOURS) * 64;
    s->next = NULL;
    s->size_class = (uint8_t)c;
    s->unguarded = unguarded;
    s->no_guard = unguarded || !install_guard(base);
    s->valgrind_id = (uint32_t)VALGRIND_STACK_REGISTER(low, high);
#if defined(KLAWI_TSAN)
    s->tsan_fiber = NULL;
    atomic_init(&s->ended, 0);
#endif
    if (s->no_guard)
        for (int i = 0; i < CANARY_WORDS; i++)
            canary_of(s)[i] = CANARY;
    return s;
}

klawi_stack *klawi_stack_take(klawi_stack_cache *cache, unsigned c, bool unguarded) {
    klawi_stack *s;
    if (cache && !unguarded && c == cache->size_class && (s = cache->first) != NULL) {
        cache->first = s->next;
        cache->count--;
        return s;
    }
    struct class *k = class_of(c, unguarded);
    char *fresh = NULL;
    uint32_t index = 0;
    klawi_lock_acquire(&k->lock);
    s = k->free;
    if (s) {
        k->free = s->next;
    } else {
        struct chunk *ch = k->chunks;
        while (ch && ch->used == ch->count)
            ch = ch->next;
        KLAWI_ASSERT(ch);
        index = ch->used++;
        fresh = ch->base + (size_t)index * stride_of(c);
    }
    k->out++;
    klawi_lock_release(&k->lock);
    return s ? s : cut(fresh, c, unguarded, index);
}

static void give_common(klawi_stack *first, klawi_stack *last, uint32_t n) {
    struct class *k = class_of(first->size_class, first->unguarded);
    klawi_lock_acquire(&k->lock);
    last->next = k->free;
    k->free = first;
    k->out -= n;
    klawi_lock_release(&k->lock);
}

void klawi_stack_give(klawi_stack_cache *cache, klawi_stack *s) {
#if defined(KLAWI_ASAN)
    __asan_unpoison_memory_region(s->low, (size_t)((char *)s - s->low));
#endif
    if (!cache || s->unguarded || s->size_class != cache->size_class) {
        give_common(s, s, 1);
        return;
    }
    if (cache->count == KLAWI_STACK_CACHE) { /* the coldest half goes; never the one given now */
        klawi_stack *keep = cache->first;
        for (uint32_t i = 1; i < KLAWI_STACK_CACHE / 2; i++)
            keep = keep->next;
        klawi_stack *first = keep->next, *last = first;
        uint32_t n = 1;
        for (; last->next; last = last->next)
            n++;
        keep->next = NULL;
        cache->count -= n;
        give_common(first, last, n);
    }
    s->next = cache->first;
    cache->first = s;
    cache->count++;
}

void klawi_stack_cache_flush(klawi_stack_cache *cache) {
    while (cache->first) {
        klawi_stack *s = cache->first;
        cache->first = s->next;
        give_common(s, s, 1);
    }
    cache->count = 0;
    if (cache->tokens)
        unreserve(cache->size_class, false, cache->tokens);
    cache->tokens = 0;
}

bool klawi_stack_intact(const klawi_stack *s) {
    if (!s->no_guard)
        return true;
    for (int i = 0; i < CANARY_WORDS; i++)
        if (canary_of(s)[i] != CANARY)
            return false;
    return true;
}

bool klawi_stack_guards(const klawi_stack *s, const void *addr) {
    const char *a = addr;
    return !s->no_guard && a >= s->low - PAGE && a < s->low;
}

/* Unmaps classes of which no stack is in use. */
static void trim(void) {
    for (int u = 0; u < 2; u++) {
        for (unsigned c = CLASS_MIN; c <= CLASS_MAX; c++) {
            struct class *k = class_of(c, u != 0);
            struct chunk *gone = NULL;
            klawi_lock_acquire(&k->lock);
            klawi_stack *free = NULL;
            if (k->out == 0 && k->reserved == 0) {
                gone = k->chunks;
                free = k->free;
                k->chunks = NULL;
                k->free = NULL;
                k->total = 0;
                k->next_count = 0;
            }
            klawi_lock_release(&k->lock);
            for (; free; free = free->next) {
                VALGRIND_STACK_DEREGISTER(free->valgrind_id);
#if defined(KLAWI_TSAN)
                if (free->tsan_fiber)
                    __tsan_destroy_fiber(free->tsan_fiber);
#endif
            }
            while (gone) {
                struct chunk *next = gone->next;
                munmap(gone->base, gone->bytes);
                klawi_free(gone);
                gone = next;
            }
        }
    }
}

__attribute__((constructor)) static void stack_init(void) {
    for (int u = 0; u < 2; u++)
        for (unsigned c = CLASS_MIN; c <= CLASS_MAX; c++)
            klawi_lock_init(&classes[u][c].lock, KLAWI_RANK_POOL);
    klawi_trim_register(trim);
}
