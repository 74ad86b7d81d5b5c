/* SPDX-License-Identifier: Apache-2.0 */
/* plat.h - what every file needs from the platform: branch hints, cache lines, the interleaving
 * point, pause. */
#ifndef KLAWI_PLAT_H
#define KLAWI_PLAT_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__linux__)
#error "klaw runs on Linux only for now (futex, epoll, eventfd): see HACKING.md, section Ports"
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
#error "klaw has register switches for x86-64 and AArch64 only: add src/plat/switch_<cpu>.S"
#endif

#define KLAWI_LIKELY(x) __builtin_expect(!!(x), 1)
#define KLAWI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define KLAWI_NOINLINE __attribute__((noinline))
#define KLAWI_COLD __attribute__((noinline, cold))
#define KLAWI_NORETURN __attribute__((noreturn))
#define KLAWI_LINE 64

#define KLAWI_CONTAINER(ptr, type, field) ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

/* Sanitizers watch stacks and threads: then the switch takes a longer path (switch.h). */
#if defined(__SANITIZE_ADDRESS__)
#define KLAWI_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define KLAWI_TSAN 1
#endif
#if defined(KLAWI_ASAN) || defined(KLAWI_TSAN)
#define KLAWI_SAN 1
#endif

/* Checks of the numbered invariants, debug builds only. */
#if defined(KLAWI_DEBUG)
#define KLAWI_ASSERT(x) ((x) ? (void)0 : klawi_assert_failed(#x, __FILE__, __LINE__))
#else
#define KLAWI_ASSERT(x) ((void)0)
#endif
void klawi_assert_failed(const char *what, const char *file, int line) KLAWI_NORETURN;
/* Prints "klaw: fatal: …" to stderr and aborts. */
void klawi_fatal(const char *fmt, ...) KLAWI_NORETURN __attribute__((format(printf, 1, 2)));

/* The interleaving point: in the deterministic build the seed may let another virtual processor go
 * on here. */
#if defined(KLAWI_DET)
void klawi_det_point(void);
/* A turn of a loop that waits for another virtual processor: lets the others go first. */
void klawi_det_pause(void);
#define KLAWI_POINT() klawi_det_point()
#else
#define KLAWI_POINT() ((void)0)
#endif

#if defined(KLAWI_DET) && defined(__GNUC__) && !defined(__clang__)
/* There every atomic operation is an interleaving point by itself. */
#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#define atomic_load_explicit(p, o) (klawi_det_point(), __atomic_load_n((p), (o)))
#define atomic_load(p) atomic_load_explicit((p), __ATOMIC_SEQ_CST)
/* The operand comes before the point: what it reads may be stale by the time of the operation. */
#define KLAWI_DET_ATOMIC(op, p, v, o)    \
    __extension__({                      \
        __auto_type klawi_operand = (v); \
        klawi_det_point();               \
        op((p), klawi_operand, (o));     \
    })
#define atomic_store_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_store_n, p, v, o)
#define atomic_store(p, v) atomic_store_explicit((p), (v), __ATOMIC_SEQ_CST)
#define atomic_exchange_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_exchange_n, p, v, o)
#define atomic_exchange(p, v) atomic_exchange_explicit((p), (v), __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong_explicit(p, e, v, s, f) \
    (klawi_det_point(), __atomic_compare_exchange_n((p), (e), (v), 0, (s), (f)))
#define atomic_compare_exchange_strong(p, e, v) \
    atomic_compare_exchange_strong_explicit((p), (e), (v), __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak_explicit atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_weak atomic_compare_exchange_strong
#define atomic_fetch_add_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_fetch_add, p, v, o)
#define atomic_fetch_add(p, v) atomic_fetch_add_explicit((p), (v), __ATOMIC_SEQ_CST)
#define atomic_fetch_sub_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_fetch_sub, p, v, o)
#define atomic_fetch_sub(p, v) atomic_fetch_sub_explicit((p), (v), __ATOMIC_SEQ_CST)
#define atomic_fetch_and_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_fetch_and, p, v, o)
#define atomic_fetch_and(p, v) atomic_fetch_and_explicit((p), (v), __ATOMIC_SEQ_CST)
#define atomic_fetch_or_explicit(p, v, o) KLAWI_DET_ATOMIC(__atomic_fetch_or, p, v, o)
#define atomic_fetch_or(p, v) atomic_fetch_or_explicit((p), (v), __ATOMIC_SEQ_CST)
#endif

static inline void klawi_pause(void) {
#if defined(KLAWI_DET)
    klawi_det_pause();
#elif defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* A sequentially consistent fence. TSan on gcc does not know fences: there a read-modify-write of
 * one shared word orders the same. */
static inline void klawi_fence(void) {
#if defined(KLAWI_TSAN)
    extern _Atomic uint32_t klawi_fence_word;
    atomic_fetch_add_explicit(&klawi_fence_word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* What a worker owns is used by all its fibers, one at a time; TSan, which sees fibers as threads
 * that synchronise only where klaw does, would call that a race. Plain accesses between these two
 * are not looked at; atomics still count. */
#if defined(KLAWI_TSAN)
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define KLAWI_OWNED_BEGIN() \
    (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define KLAWI_OWNED_END() \
    (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#else
#define KLAWI_OWNED_BEGIN() ((void)0)
#define KLAWI_OWNED_END() ((void)0)
#endif

/* xorshift: cheap random numbers for fairness, never for secrets. The state must not be 0. */
static inline uint32_t klawi_rand(uint32_t *state) {
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

#endif
