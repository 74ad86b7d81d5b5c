/* SPDX-License-Identifier: Apache-2.0 */
/* det_os.c - the deterministic build's os.h: clock, futex, threads and poller without a kernel that
 * waits. What makes a waiting vCPU go on stands in det.c.
 *
 * Descriptors are real: their readiness is asked for with a time-out of 0 while somebody waits, and
 * changes only by what virtual processors do. */
#include "plat/det.h"

#if defined(KLAWI_DET)

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plat/det_core.h"
#include "plat/switch.h"

#define D klawi_det

int64_t klawi_clock(void) {
    return D.now;
}

void klawi_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t deadline) {
    void *pc = __builtin_return_address(0);
    if (!D.active)
        klawi_fatal("a futex wait outside of a schedule");
    klawi_det_pass(pc);
    bool sleeps = __atomic_load_n(addr, __ATOMIC_SEQ_CST) == expected && deadline > D.now;
    if (sleeps && D.spurious && klawi_det_draw(8) == 0)
        sleeps = false;
    klawi_det_record(0x100u | (uint64_t)klawi_det_vcpu << 1 | sleeps);
    if (sleeps)
        klawi_det_block(FUTEX, addr, -1, deadline, pc);
}

void klawi_futex_wake(_Atomic uint32_t *addr, int n) {
    if (!D.active)
        return;
    klawi_det_pass(__builtin_return_address(0));
    uint64_t set = 0;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        if (D.v[i].state == FUTEX && D.v[i].addr == (const void *)addr)
            set |= BIT(i);
    klawi_det_record(0x200u | (uint64_t)__builtin_popcountll(set));
    while (set && n-- > 0) {
        int i = klawi_det_nth(set, klawi_det_draw((uint32_t)__builtin_popcountll(set)));
        set &= ~BIT(i);
        klawi_det_record(0x300u | (uint64_t)i);
        klawi_det_say("wakes", i);
        klawi_det_ready(i);
    }
}

static void vcpu_main(void *arg) {
    struct vcpu *v = arg;
    v->fn(v->arg);
    for (size_t i = 0; i < 4 && klawi_det_exit_hook[i]; i++)
        klawi_det_exit_hook[i]();
    int self = klawi_det_vcpu, alive = 0;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++) {
        struct vcpu *w = &D.v[i];
        if (w->state == JOIN && w->other == self)
            klawi_det_ready(i);
        alive += i != self && w->state != FREE && w->state != DONE;
    }
    if (alive == 1 && D.v[0].state == LAST)
        klawi_det_ready(0);
    klawi_det_block(v->detached ? FREE : DONE, NULL, -1, KLAW_FOREVER, NULL);
    abort(); /* never runs again */
}

bool klawi_fail_point(void); /* base/alloc.c */

klaw_err klawi_thread_start(klawi_thread_id *out, const char *name, void *(*fn)(void *),
                            void *arg) {
    if (!D.active)
        klawi_fatal("a thread starts outside of a schedule");
    if (klawi_fail_point())
        return KLAW_SYSTEM;
    int i = 1;
    while (i < KLAWI_DET_VCPUS && D.v[i].state != FREE)
        i++;
    if (i == KLAWI_DET_VCPUS)
        return KLAW_SYSTEM;
    struct vcpu *v = &D.v[i];
    if (!v->stack) {
        void *m = mmap(NULL, VCPU_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED)
            return KLAW_NOMEM;
        mprotect(m, 4096, PROT_NONE);
        v->stack = m;
    }
    v->sp = klawi_stack_prepare(v->stack + VCPU_STACK, vcpu_main, v);
    v->detached = false;
    v->ran = D.points;
    v->priority = 0x40000000u + klawi_det_draw(1u << 28);
    v->fn = fn;
    v->arg = arg;
    v->pc = NULL;
    memset(v->tls, 0, sizeof v->tls);
    snprintf(v->name, sizeof v->name, "%s", name);
    out->vcpu = i;
    klawi_det_say("starts", i);
    klawi_det_ready(i);
    klawi_det_pass(__builtin_return_address(0));
    return KLAW_OK;
}

void klawi_thread_join(klawi_thread_id t) {
    klawi_det_pass(__builtin_return_address(0));
    while (D.v[t.vcpu].state != DONE)
        klawi_det_block(JOIN, NULL, t.vcpu, KLAW_FOREVER, __builtin_return_address(0));
    D.v[t.vcpu].state = FREE;
}

void klawi_thread_detach(klawi_thread_id t) {
    if (D.v[t.vcpu].state == DONE)
        D.v[t.vcpu].state = FREE;
    else
        D.v[t.vcpu].detached = true;
}

bool klawi_heavy_fence_ready(void) {
    return false;
}

void klawi_heavy_fence(void) {}

/* epfd and evfd are the number of the entry in D.poller; the epoll descriptor comes with the first
 * arm, so that runs without descriptors make no system call. */
klaw_err klawi_poller_open(klawi_poller *p) {
    int i = 0;
    while (i < POLLERS && D.poller[i].used)
        i++;
    if (i == POLLERS)
        return KLAW_SYSTEM;
    D.poller[i] = (struct poller){.used = true, .fd = -1};
    p->epfd = p->evfd = i;
    return KLAW_OK;
}

void klawi_poller_close(klawi_poller *p) {
    if (p->evfd >= 0) {
        D.poller[p->evfd].used = false;
        if (D.poller[p->evfd].fd >= 0)
            close(D.poller[p->evfd].fd);
    }
    p->epfd = p->evfd = -1;
}

static void first_fd(klawi_poller *p) {
    struct poller *q = &D.poller[p->evfd];
    if (q->fd < 0)
        q->fd = epoll_create1(EPOLL_CLOEXEC);
    q->has_fds = true;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        D.waiting_fds += D.v[i].state == POLL && D.v[i].other == p->evfd;
}

int klawi_poller_arm(klawi_poller *p, int fd, unsigned events, uint64_t data) {
    struct epoll_event ev = {.events = EPOLLONESHOT | EPOLLRDHUP, .data.u64 = data};
    if (events & KLAW_READ)
        ev.events |= EPOLLIN;
    if (events & KLAW_WRITE)
        ev.events |= EPOLLOUT;
    klawi_det_pass(__builtin_return_address(0));
    if (!D.poller[p->evfd].has_fds)
        first_fd(p);
    int epfd = D.poller[p->evfd].fd;
    if (epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev) == 0)
        return 0;
    if (errno == ENOENT && epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
        return 0;
    return errno;
}

void klawi_poller_forget(klawi_poller *p, int fd) {
    if (D.poller[p->evfd].fd >= 0)
        epoll_ctl(D.poller[p->evfd].fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Takes ready events; their order, and how many at once, is the seed's. */
static int take_events(klawi_poller *p, klawi_poll_event *out, int max) {
    struct epoll_event ev[64];
    if (!D.poller[p->evfd].has_fds)
        return 0;
    max = 1 + (int)klawi_det_draw((uint32_t)(max > 64 ? 64 : max));
    int n = epoll_wait(D.poller[p->evfd].fd, ev, max, 0);
    for (int i = 0; i < n; i++) {
        int j = (int)klawi_det_draw((uint32_t)(i + 1));
        out[i] = out[j];
        out[j].data = ev[i].data.u64;
        out[j].events = 0;
        if (ev[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
            out[j].events |= KLAW_READ;
        if (ev[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            out[j].events |= KLAW_WRITE;
    }
    return n > 0 ? n : 0;
}

int klawi_poller_wait(klawi_poller *p, klawi_poll_event *out, int max, int64_t deadline) {
    void *pc = __builtin_return_address(0);
    struct poller *q = &D.poller[p->evfd];
    if (!D.active)
        return 0;
    klawi_det_pass(pc);
    for (;;) {
        int n = take_events(p, out, max);
        bool woken = q->wake;
        q->wake = false;
        klawi_det_record(0x400u | (uint64_t)n << 1 | woken);
        if (n || woken || deadline <= D.now)
            return n;
        klawi_det_block(POLL, p, p->evfd, deadline, pc);
    }
}

void klawi_poller_wake(klawi_poller *p) {
    uint64_t set = 0;
    if (D.active)
        klawi_det_pass(__builtin_return_address(0));
    D.poller[p->evfd].wake = true;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        if (D.v[i].state == POLL && D.v[i].other == p->evfd)
            set |= BIT(i);
    if (set) {
        int i = klawi_det_nth(set, klawi_det_draw((uint32_t)__builtin_popcountll(set)));
        klawi_det_say("wakes", i);
        klawi_det_ready(i);
    }
}

#else

typedef int klawi_det_os_not_empty; /* ISO C wants a declaration in every file */

#endif
