/* SPDX-License-Identifier: Apache-2.0 */
/* os.h - the few things klaw asks of the kernel: futex, clock, threads, the poller. The
 * deterministic build replaces every one of them by virtual ones (det.c), so nothing above this
 * layer calls the kernel to wait or to tell the time. */
#ifndef KLAWI_OS_H
#define KLAWI_OS_H

#include <pthread.h>

#include "klaw/fiber.h"
#include "plat/plat.h"

/* errno, from a function of its own: a fiber may be on another thread than at its last look, so the
 * address must not be kept. It is the thread's, whichever fiber is on it. */
int klawi_errno(void);

/* Nanoseconds of CLOCK_MONOTONIC; virtual in the deterministic build. */
int64_t klawi_clock(void);
/* The processor's own counter, some GHz: for durations of which only ratios count. */
static inline uint64_t klawi_ticks(void) {
#if defined(KLAWI_DET)
    return (uint64_t)klawi_clock();
#elif defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t << 5; /* counters run at 25 to 100 MHz where processors run at some GHz */
#endif
}
/* Nanoseconds of CLOCK_REALTIME (for stamps people read). */
int64_t klawi_wall_clock(void);

/* Sleeps while *addr == expected, until woken, spuriously, or until `deadline` (absolute,
 * KLAW_FOREVER: none). */
void klawi_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t deadline);
/* Wakes up to n sleepers of addr. The memory may be gone already: only its address is used. */
void klawi_futex_wake(_Atomic uint32_t *addr, int n);

void klawi_thread_yield(void);
/* Sleeps the calling thread for about ns. Only for back-off in locks. */
void klawi_thread_nap(int64_t ns);

/* A thread; fn runs with all signals blocked but those a thread brings upon itself. KLAW_SYSTEM or KLAW_NOMEM. */
typedef struct klawi_thread_id {
    pthread_t os;
    int vcpu; /* deterministic build: which virtual processor */
} klawi_thread_id;
klaw_err klawi_thread_start(klawi_thread_id *out, const char *name, void *(*fn)(void *), void *arg);
void klawi_thread_join(klawi_thread_id t);
void klawi_thread_detach(klawi_thread_id t);

/* Usable processors: affinity and cgroup quotas, at least 1. Reads a dozen files: some 100 us, and 6
 * KiB of stack. */
unsigned klawi_cpu_usable(void);
/* What that answered last; asks it when nobody has. */
unsigned klawi_cpu_seen(void);

/* A barrier in every thread of the process (membarrier), so that the other side needs only a
 * compiler barrier. False: not available, both sides must use a fence. klawi_heavy_fence_ready() is
 * decided once. */
bool klawi_heavy_fence_ready(void);
void klawi_heavy_fence(void);

/* The poller: epoll plus a descriptor that wakes it. One-shot registrations carry `data`. */
typedef struct klawi_poller {
    int epfd;
    int evfd;
} klawi_poller;
typedef struct klawi_poll_event {
    uint64_t data;
    unsigned events; /* KLAW_READ, KLAW_WRITE; errors set both */
} klawi_poll_event;
klaw_err klawi_poller_open(klawi_poller *p);
void klawi_poller_close(klawi_poller *p);
/* Asks for one event on fd. 0; EPERM: always ready (regular file); else an error number. */
int klawi_poller_arm(klawi_poller *p, int fd, unsigned events, uint64_t data);
void klawi_poller_forget(klawi_poller *p, int fd);
/* Waits until `deadline` at most (absolute; NOWAIT: not at all); returns events, 0 on time-out or
 * wake. */
int klawi_poller_wait(klawi_poller *p, klawi_poll_event *out, int max, int64_t deadline);
/* Makes a klawi_poller_wait under way (or the next one) return. */
void klawi_poller_wake(klawi_poller *p);

#if defined(KLAWI_DET)
/* Deterministic build, det.c: */
/* The calling virtual processor can't go on until another one does something (spinning on a lock).
 * */
void klawi_det_stall(void);
/* A seeded choice in 0..n-1, recorded in the trace. */
uint32_t klawi_det_choose(uint32_t n);
#endif

#endif
