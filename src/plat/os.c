/* SPDX-License-Identifier: Apache-2.0 */
/* os.c - the kernel behind os.h: futex, clock, threads, epoll, membarrier.
 *
 * Nothing here keeps state but the decision about membarrier. Library calls report errors by return
 * value; errno stays inside this file. The deterministic build leaves out what det.c replaces. */
#include "plat/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(KLAWI_TSAN)
_Atomic uint32_t klawi_fence_word;
#endif

void klawi_assert_failed(const char *what, const char *file, int line) {
    fprintf(stderr, "klaw: assertion failed: %s (%s:%d)\n", what, file, line);
    abort();
}

void klawi_fatal(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("klaw: fatal: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

static int64_t read_clock(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t klawi_wall_clock(void) {
    return read_clock(CLOCK_REALTIME);
}

int klawi_errno(void) {
    KLAWI_OWNED_BEGIN();
    int e = errno;
    KLAWI_OWNED_END();
    return e;
}

#if !defined(KLAWI_DET)

int64_t klawi_clock(void) {
    return read_clock(CLOCK_MONOTONIC);
}

void klawi_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t deadline) {
    struct timespec ts, *limit = NULL;
    if (deadline != KLAW_FOREVER) {
        if (deadline < 0)
            deadline = 0;
        ts.tv_sec = deadline / 1000000000;
        ts.tv_nsec = deadline % 1000000000;
        limit = &ts;
    }
    /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
    syscall(SYS_futex, addr, FUTEX_WAIT_BITSET_PRIVATE, expected, limit, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

void klawi_futex_wake(_Atomic uint32_t *addr, int n) {
    syscall(SYS_futex, addr, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

void klawi_thread_yield(void) {
    sched_yield();
}

void klawi_thread_nap(int64_t ns) {
    struct timespec ts = {0, (long)ns};
    nanosleep(&ts, NULL);
}

struct start {
    void *(*fn)(void *);
    void *arg;
    char name[16];
};

static void *thread_main(void *p) {
    struct start s = *(struct start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    return s.fn(s.arg);
}

klaw_err klawi_thread_start(klawi_thread_id *out, const char *name, void *(*fn)(void *),
                            void *arg) {
    struct start *s = malloc(sizeof *s);
    if (!s)
        return KLAW_NOMEM;
    s->fn = fn;
    s->arg = arg;
    snprintf(s->name, sizeof s->name, "%s", name);
    sigset_t all, old;
    sigfillset(&all);
    /* What a thread brings upon itself has to reach its handler: stack overflows are told so. */
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&out->os, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    out->vcpu = -1;
    if (e) {
        free(s);
        return KLAW_SYSTEM;
    }
    return KLAW_OK;
}

void klawi_thread_join(klawi_thread_id t) {
    pthread_join(t.os, NULL);
}

void klawi_thread_detach(klawi_thread_id t) {
    pthread_detach(t.os);
}

static int heavy_state; /* 0 unknown, 1 yes, 2 no */

bool klawi_heavy_fence_ready(void) {
    int s = __atomic_load_n(&heavy_state, __ATOMIC_ACQUIRE);
    if (s == 0) {
        s = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 ? 1 : 2;
        __atomic_store_n(&heavy_state, s, __ATOMIC_RELEASE);
    }
    return s == 1;
}

void klawi_heavy_fence(void) {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        klawi_fatal("membarrier failed although it was registered (error %d)", errno);
}

klaw_err klawi_poller_open(klawi_poller *p) {
    p->evfd = -1;
    p->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epfd < 0)
        return KLAW_SYSTEM;
    p->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (p->evfd < 0 || epoll_ctl(p->epfd, EPOLL_CTL_ADD, p->evfd, &ev) != 0) {
        klawi_poller_close(p);
        return KLAW_SYSTEM;
    }
    return KLAW_OK;
}

void klawi_poller_close(klawi_poller *p) {
    if (p->epfd >= 0)
        close(p->epfd);
    if (p->evfd >= 0)
        close(p->evfd);
    p->epfd = p->evfd = -1;
}

int klawi_poller_arm(klawi_poller *p, int fd, unsigned events, uint64_t data) {
    struct epoll_event ev = {.events = EPOLLONESHOT | EPOLLRDHUP, .data.u64 = data};
    if (events & KLAW_READ)
        ev.events |= EPOLLIN;
    if (events & KLAW_WRITE)
        ev.events |= EPOLLOUT;
    if (epoll_ctl(p->epfd, EPOLL_CTL_MOD, fd, &ev) == 0)
        return 0;
    if (klawi_errno() == ENOENT && epoll_ctl(p->epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
        return 0;
    return klawi_errno();
}

void klawi_poller_forget(klawi_poller *p, int fd) {
    epoll_ctl(p->epfd, EPOLL_CTL_DEL, fd, NULL);
}

int klawi_poller_wait(klawi_poller *p, klawi_poll_event *out, int max, int64_t deadline) {
    struct epoll_event ev[64];
    if (max > 64)
        max = 64;
    struct timespec ts = {0, 0}, *limit = &ts;
    if (deadline == KLAW_FOREVER) {
        limit = NULL;
    } else if (deadline != KLAW_NOWAIT) {
        int64_t left = deadline - klawi_clock();
        if (left > 0) {
            ts.tv_sec = left / 1000000000;
            ts.tv_nsec = left % 1000000000;
        }
    }
    int n = -1, err = ENOSYS;
#if defined(SYS_epoll_pwait2)
    static _Atomic bool missing; /* old kernels; old seccomp profiles: not tried again */
    if (!atomic_load_explicit(&missing, memory_order_relaxed)) {
        n = (int)syscall(SYS_epoll_pwait2, p->epfd, ev, max, limit, NULL, (size_t)0);
        err = errno;
        if (n < 0 && (err == ENOSYS || err == EPERM))
            atomic_store_explicit(&missing, true, memory_order_relaxed);
    }
#endif
    if (n < 0 && (err == ENOSYS || err == EPERM)) {
        int64_t ms = limit ? (int64_t)ts.tv_sec * 1000 + (ts.tv_nsec + 999999) / 1000000 : -1;
        n = epoll_wait(p->epfd, ev, max, ms > INT_MAX ? INT_MAX : (int)ms);
    }
    int got = 0;
    for (int i = 0; i < n; i++) {
        if (ev[i].data.u64 == UINT64_MAX) {
            uint64_t count;
            /* A wake-up is for who waits: one that only looks must not take it away. */
            if (deadline != KLAW_NOWAIT && read(p->evfd, &count, sizeof count) < 0)
                continue; /* somebody else drained it */
            continue;
        }
        unsigned e = 0;
        if (ev[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
            e |= KLAW_READ;
        if (ev[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            e |= KLAW_WRITE;
        out[got].data = ev[i].data.u64;
        out[got].events = e;
        got++;
    }
    return got;
}

void klawi_poller_wake(klawi_poller *p) {
    uint64_t one = 1;
    if (write(p->evfd, &one, sizeof one) < 0) {
        /* EAGAIN: the counter is full, so it is readable anyway. */
    }
}

#endif /* !KLAWI_DET */
