/* SPDX-License-Identifier: Apache-2.0 */
/* fd.c - waiting for descriptors, and reads and writes that park the fiber.
 *
 * One entry per descriptor number, type-stable. Waiters hang in it with their events in
 * waiter.index; the poller is armed one-shot for what the waiters want together, under the entry's
 * lock, so an event can't be missed between the arming and the park. A one-shot registration that
 * nobody waits for any more fires once and finds nobody.
 *
 * A plain thread polls by itself, in slices, and looks for a close or a cancellation in between.
 *
 * Invariants under the entry's lock:
 *   D1  somebody waits for events E => the poller is armed for at least E (or about to deliver).
 *   D2  klaw_fd_close wakes all waiters before the number can be used again.
 *
 * Rejected: edge-triggered registrations kept for ever (a descriptor closed without klaw_fd_close
 * and opened again would never fire). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "sched/sched.h"

#define PAGE_FDS 256
#define PAGES 4096
#define SLICE KLAW_MS(20)

struct entry {
    klawi_lock lock;
    klawi_waitq waiters;     /* (L) */
    _Atomic uint32_t closes; /* (L) written: how often it was closed */
};

static _Atomic(struct entry *) pages[PAGES];
static klawi_lock pages_lock = KLAWI_LOCK_INIT(KLAWI_RANK_POOL);

static struct entry *entry_of(int fd, klaw_err *e) {
    if (fd < 0 || fd / PAGE_FDS >= PAGES) {
        *e = fd < 0 ? KLAW_INVALID : KLAW_LIMIT;
        return NULL;
    }
    struct entry *p = atomic_load_explicit(&pages[fd / PAGE_FDS], memory_order_acquire);
    if (!p) {
        struct entry *fresh = klawi_alloc(PAGE_FDS * sizeof *fresh);
        if (!fresh) {
            *e = KLAW_NOMEM;
            return NULL;
        }
        for (int i = 0; i < PAGE_FDS; i++) {
            klawi_lock_init(&fresh[i].lock, KLAWI_RANK_FD);
            klawi_link_init(&fresh[i].waiters);
            atomic_init(&fresh[i].closes, 0);
        }
        klawi_lock_acquire(&pages_lock);
        p = atomic_load_explicit(&pages[fd / PAGE_FDS], memory_order_relaxed);
        if (!p)
            atomic_store_explicit(&pages[fd / PAGE_FDS], fresh, memory_order_release);
        klawi_lock_release(&pages_lock);
        if (p)
            klawi_free(fresh);
        else
            p = fresh;
    }
    *e = KLAW_OK;
    return &p[fd % PAGE_FDS];
}

/* Grants `result` to who waits for any of `events`; returns what the others want. Under the lock.
 * */
static unsigned grant(struct entry *en, unsigned events, klaw_err result, klawi_wakes *wakes) {
    unsigned left = 0;
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&en->waiters); w; w = next) {
        next = klawi_waitq_next(&en->waiters, w);
        if (!(w->index & events)) {
            left |= w->index;
            continue;
        }
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        w->host->result = (int32_t)result;
        klawi_wakes_add(wakes, w);
    }
    return left;
}

/* What the poller gives back: the number, and which of the files that had it. The top bit stays
 * clear: all ones is the poller's own. */
static uint64_t event_data(int fd, uint32_t closes) {
    return (uint64_t)(uint32_t)fd | (uint64_t)(closes & INT32_MAX) << 32;
}

void klawi_fd_events(klawi_runtime *rt, const klawi_poll_event *ev, int n) {
    for (int i = 0; i < n; i++) {
        klaw_err e;
        klawi_wakes wakes;
        int fd = (int)(uint32_t)ev[i].data;
        struct entry *en = entry_of(fd, &e);
        if (!en)
            continue;
        klawi_wakes_init(&wakes);
        klawi_lock_acquire(&en->lock);
        /* An event of a file that has been closed is not the new one's. */
        if (ev[i].data == event_data(fd, atomic_load(&en->closes))) {
            unsigned left = grant(en, ev[i].events, KLAW_OK, &wakes);
            if (left && klawi_poller_arm(&rt->poller, fd, left, ev[i].data) != 0)
                grant(en, left, KLAW_INVALID, &wakes);
        }
        klawi_lock_release(&en->lock);
        klawi_wakes_run(&wakes);
    }
}

/* --- waiting --- */
static short poll_bits(unsigned events) {
    return (short)((events & KLAW_READ ? POLLIN | POLLRDHUP : 0) |
                   (events & KLAW_WRITE ? POLLOUT : 0));
}

/* One look. OK: ready; EMPTY: not yet. */
static KLAWI_NOINLINE klaw_err look(int fd, unsigned events, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = poll_bits(events)};
    int n = poll(&p, 1, timeout_ms);
    if (n < 0)
        return klawi_errno() == EINTR ? KLAW_EMPTY : KLAW_SYSTEM;
    if (n == 0)
        return KLAW_EMPTY;
    return p.revents & POLLNVAL ? KLAW_INVALID : KLAW_OK;
}

static klaw_err wait_thread(klawi_host *h, struct entry *en, int fd, unsigned events, int64_t at,
                            uint32_t closes) {
    for (;;) {
        int64_t left = at == KLAW_FOREVER ? SLICE : at - klawi_clock();
        if (left <= 0)
            return KLAW_TIMEOUT;
        klaw_err e = look(fd, events, (int)((left < SLICE ? left : SLICE) / 1000000) + 1);
        if (atomic_load(&en->closes) != closes)
            return KLAW_CLOSED;
        if (e != KLAW_EMPTY)
            return e;
        if (klawi_host_cancelled(h))
            return KLAW_CANCELLED;
    }
}

static unsigned wanted(struct entry *en) {
    unsigned all = 0;
    for (klawi_waiter *w = klawi_waitq_first(&en->waiters); w;
         w = klawi_waitq_next(&en->waiters, w))
        all |= w->index;
    return all;
}

static klaw_err wait_fiber(klawi_ctx *c, struct entry *en, int fd, unsigned events, int64_t at,
                           uint32_t closes) {
    klawi_host *h = klawi_cur(c);
    klawi_runtime *rt = c->worker->rt;
    klawi_waiter *w = &h->waiter;
    klawi_host_waits(h, KLAWI_WAIT_FD, (uint64_t)fd);
    klawi_waiter_fill(w, h, &en->lock, KLAWI_OP_NOTIFY, NULL, NULL);
    w->index = (uint16_t)events;
    atomic_fetch_add(&rt->fd_waits, 1);
    klaw_err e;
    klawi_lock_acquire(&en->lock);
    klawi_waitq_push(&en->waiters, w);
    bool closed = atomic_load(&en->closes) != closes; /* then the number is somebody else's */
    int err = closed ? 0 : klawi_poller_arm(&rt->poller, fd, wanted(en), event_data(fd, closes));
    if (closed) {
        klawi_link_remove(&w->link);
        klawi_lock_release(&en->lock);
        e = KLAW_CLOSED;
    } else if (err) {
        klawi_link_remove(&w->link);
        klawi_lock_release(&en->lock);
        e = err == EPERM                     ? KLAW_OK
            : err == EBADF                   ? KLAW_INVALID
            : err == ENOMEM || err == ENOSPC ? KLAW_NOMEM
                                             : KLAW_SYSTEM;
    } else {
        e = klawi_park(h, w, &en->lock, at);
    }
    atomic_fetch_sub(&rt->fd_waits, 1);
    return e;
}

klaw_err klaw_fd_wait(int fd, unsigned events, klaw_deadline deadline) {
    klaw_err e = KLAW_OK;
    int64_t at;
    if (events == 0 || (events & ~(KLAW_READ | KLAW_WRITE)))
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    struct entry *en = entry_of(fd, &e);
    if (!en)
        return e;
    uint32_t closes = atomic_load(&en->closes);
    if (klawi_budget_take(c)) {
        if ((e = klawi_budget_spent(c)) != KLAW_OK)
            return e;
        c = klawi_ctx_get();
    }
    e = look(fd, events, 0);
    if (e != KLAW_EMPTY)
        return atomic_load(&en->closes) != closes ? KLAW_CLOSED : e;
    if ((e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &at)) != KLAW_OK)
        return e;
    if (klawi_cur(c)->kind == KLAWI_FIBER)
        return wait_fiber(c, en, fd, events, at, closes);
    return klawi_cur(c)->kind == KLAWI_THREAD
               ? wait_thread(klawi_cur(c), en, fd, events, at, closes)
               : KLAW_INVALID;
}

klaw_err klaw_fd_close(int fd) {
    klaw_err e = KLAW_OK;
    klawi_wakes wakes;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    struct entry *en = entry_of(fd, &e);
    if (!en)
        return e;
    klawi_wakes_init(&wakes);
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    klawi_lock_acquire(&en->lock);
    grant(en, KLAW_READ | KLAW_WRITE, KLAW_CLOSED, &wakes);
    atomic_fetch_add(&en->closes, 1);
    if (rt)
        klawi_poller_forget(&rt->poller, fd);
    int r = close(fd);
    e = r == 0 || klawi_errno() == EINTR ? KLAW_OK
        : klawi_errno() == EBADF         ? KLAW_INVALID
                                         : KLAW_SYSTEM;
    klawi_lock_release(&en->lock);
    klawi_wakes_run(&wakes);
    return e;
}

/* --- reading and writing --- */
static klaw_err failed(klaw_error_info *info, const char *what, int err) {
    if (info) {
        memset(info, 0, sizeof *info);
        info->sys = err;
        snprintf(info->message, sizeof info->message, "%s: %s", what,
                 strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error");
    }
    return err == EBADF || err == EINVAL || err == EFAULT ? KLAW_INVALID
           : err == ENOMEM || err == ENOBUFS              ? KLAW_NOMEM
                                                          : KLAW_SYSTEM;
}

/* Whether reads and writes never answer EAGAIN (regular files, folders, block devices); makes the
 * others non-blocking. */
static KLAWI_NOINLINE klaw_err prepare(int fd, bool *slow, klaw_error_info *info) {
    *slow = false;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return failed(info, "fcntl", klawi_errno());
    if (flags & O_NONBLOCK)
        return KLAW_OK;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return failed(info, "fstat", klawi_errno());
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode)) {
        *slow = true;
        return KLAW_OK;
    }
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? KLAW_OK
                                                       : failed(info, "fcntl", klawi_errno());
}

struct transfer {
    int fd;
    void *buf;
    size_t size;
    ssize_t n;
    int err;
    bool write;
};

static KLAWI_NOINLINE klaw_err transfer_now(void *p) {
    struct transfer *t = p;
    do {
        if (t->write) {
            t->n = send(t->fd, t->buf, t->size, MSG_NOSIGNAL);
            if (t->n < 0 && klawi_errno() == ENOTSOCK)
                t->n = write(t->fd, t->buf, t->size);
        } else {
            t->n = read(t->fd, t->buf, t->size);
        }
    } while (t->n < 0 && klawi_errno() == EINTR);
    t->err = t->n < 0 ? klawi_errno() : 0;
    return KLAW_OK;
}

/* Counts an operation that did not park towards the turn (R8). */
static klaw_err turn(void) {
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    return klawi_budget_take(c) ? klawi_budget_spent(c) : KLAW_OK;
}

/* System calls whose error number is wanted: in functions of their own, because the address of errno
 * that a compiler keeps across a wait may be another thread's. -error on failure. */
static KLAWI_NOINLINE int accept_now(int fd) {
    int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return got >= 0 ? got : -klawi_errno();
}
static KLAWI_NOINLINE int connect_now(int fd, const struct sockaddr *addr, uint32_t size) {
    return connect(fd, addr, size) == 0 ? 0 : -klawi_errno();
}
static KLAWI_NOINLINE int socket_error(int fd) {
    int err = 0;
    socklen_t size = sizeof err;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0 ? -err : -klawi_errno();
}

/* Moves some bytes; waits until it can. */
static klaw_err transfer(struct transfer *t, klaw_deadline *deadline, klaw_error_info *info) {
    bool slow;
    klaw_err e = prepare(t->fd, &slow, info);
    if (e)
        return e;
    for (;;) {
        if ((e = turn()) != KLAW_OK)
            return e;
        e = slow ? klaw_blocking(transfer_now, t) : transfer_now(t);
        if (e)
            return e;
        if (t->n >= 0)
            return KLAW_OK;
        if (t->err != EAGAIN && t->err != EWOULDBLOCK)
            return failed(info, t->write ? "write" : "read", t->err);
        if (*deadline < 0 && *deadline != KLAW_NOWAIT)
            *deadline = klaw_after(-*deadline);
        if ((e = klaw_fd_wait(t->fd, t->write ? KLAW_WRITE : KLAW_READ, *deadline)) != KLAW_OK)
            return e;
    }
}

klaw_err klaw_fd_read(int fd, void *buf, size_t size, size_t *got, klaw_deadline deadline,
                      klaw_error_info *info) {
    struct transfer t = {.fd = fd, .buf = buf, .size = size};
    if (!got || (!buf && size))
        return KLAW_INVALID;
    *got = 0;
    klaw_err e = transfer(&t, &deadline, info);
    if (e == KLAW_OK)
        *got = (size_t)t.n;
    return e;
}

klaw_err klaw_fd_write(int fd, const void *buf, size_t size, size_t *done, klaw_deadline deadline,
                       klaw_error_info *info) {
    size_t at = 0, ignored;
    klaw_err e = KLAW_OK;
    if (!buf && size)
        return KLAW_INVALID;
    if (!done)
        done = &ignored;
    *done = 0;
    while (at < size && e == KLAW_OK) {
        struct transfer t = {
            .fd = fd, .buf = (char *)(uintptr_t)buf + at, .size = size - at, .write = true};
        e = transfer(&t, &deadline, info);
        if (e == KLAW_OK)
            *done = at += (size_t)t.n;
    }
    return e;
}

klaw_err klaw_fd_accept(int fd, int *out, klaw_deadline deadline, klaw_error_info *info) {
    bool slow;
    if (!out)
        return KLAW_INVALID;
    klaw_err e = prepare(fd, &slow, info);
    for (; e == KLAW_OK; e = klaw_fd_wait(fd, KLAW_READ, deadline)) {
        if ((e = turn()) != KLAW_OK)
            return e;
        int got = accept_now(fd);
        if (got >= 0) {
            *out = got;
            return KLAW_OK;
        }
        if (got == -EINTR || got == -ECONNABORTED)
            continue;
        if (got != -EAGAIN && got != -EWOULDBLOCK)
            return failed(info, "accept", -got);
        if (deadline < 0 && deadline != KLAW_NOWAIT)
            deadline = klaw_after(-deadline);
    }
    return e;
}

klaw_err klaw_fd_connect(int fd, const struct sockaddr *addr, uint32_t addr_size,
                         klaw_deadline deadline, klaw_error_info *info) {
    bool slow;
    if (!addr)
        return KLAW_INVALID;
    klaw_err e = prepare(fd, &slow, info);
    if (e)
        return e;
    int err = connect_now(fd, addr, addr_size);
    if (err == 0)
        return KLAW_OK;
    if (err != -EINPROGRESS && err != -EINTR)
        return failed(info, "connect", -err);
    if ((e = klaw_fd_wait(fd, KLAW_WRITE, deadline)) != KLAW_OK)
        return e;
    err = socket_error(fd);
    return err ? failed(info, "connect", -err) : KLAW_OK;
}

static void trim(void) {
    for (int i = 0; i < PAGES; i++)
        klawi_free(atomic_exchange(&pages[i], NULL));
}

__attribute__((constructor)) static void fd_init(void) {
    klawi_trim_register(trim);
}
