/* SPDX-License-Identifier: Apache-2.0 */
/* process.c - an operating-system process as an object: waited for, signalled, ended.
 *
 * A host waits on the process's pidfd, which is readable from its end on. Whoever notices first (REAPING)
 * reaps it and keeps the status for everybody; the others look again a moment later.
 *
 * Invariants:
 *   O1  RUNS => the pid and the group's number are the process's own: it is not reaped. Signals are
 *       sent under the lock that says so.
 *   O2  the strays of a group are killed, and the guard is told, before the leader is reaped (G1).
 *   O3  the last reference is gone => the process has been reaped, or has been killed and hangs in
 *       `orphans`, which every later start and end look through.
 *
 * Rejected: SIGCHLD (one handler for a whole process that we do not own); waiting in a thread each.
 * The deterministic build has no processes. */
#include "klaw/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/process.h"
#include "base/alloc.h"
#include "sched/sched.h"

#if !defined(P_PIDFD)
#define P_PIDFD 3
#endif

/* How long the last reference waits for the end of what it has killed; a process the kernel holds longer
 * becomes an orphan. */
#define ORPHAN_MS 100
/* What SIGKILL may take. */
#define KILL_LIMIT KLAW_S(5)

static struct {
    klawi_lock lock;
    klawi_link list; /* (L) */
} orphans = {KLAWI_LOCK_INIT(KLAWI_RANK_POOL), {&orphans.list, &orphans.list}};

klaw_err klawi_process_error(klaw_error_info *info, const char *what, const char *name, int err) {
    if (info) {
        memset(info, 0, sizeof *info);
        info->sys = err;
        snprintf(info->message, sizeof info->message, "%s%.160s: %s", what, name,
                 strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error");
    }
    switch (err) {
    case ENOENT:
    case ENOTDIR: return KLAW_NOT_FOUND;
    case EBADF:
    case EINVAL: return KLAW_INVALID;
    case ENOMEM: return KLAW_NOMEM;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case E2BIG: return KLAW_LIMIT;
    default: return KLAW_SYSTEM;
    }
}

/* --- the end of a process --- */

/* Under the lock: whether it has ended and the caller is the one to reap it. *gone: somebody else has, and
 * how it ended is not known. */
static bool reap_begin(klaw_process *p, bool *gone) {
    siginfo_t si = {0};
    if (p->life != KLAWI_PROCESS_RUNS)
        return false;
    int r = waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG | WNOWAIT);
    *gone = r != 0 && klawi_errno() == ECHILD;
    if (!*gone && (r != 0 || si.si_pid == 0))
        return false;
    p->life = KLAWI_PROCESS_REAPING;
    return true;
}

/* Reaps it if it has ended. True: p->status is known. */
static bool reap(klaw_process *p) {
    siginfo_t si = {0};
    bool gone = false;
    klawi_lock_acquire(&p->lock);
    bool mine = reap_begin(p, &gone), ended = p->life == KLAWI_PROCESS_ENDED;
    klawi_lock_release(&p->lock);
    if (!mine)
        return ended;
    if (!p->leave_strays && !gone)
        (void)kill(-p->pid, SIGKILL); /* O2 */
#if !defined(KLAWI_DET)               /* starts none */
    if (p->guarded)
        klawi_guard_remove(p->pid);
#endif
    if (!gone)
        (void)waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG);
    bool exited = si.si_code == CLD_EXITED;
    klawi_lock_acquire(&p->lock);
    p->status.code = !gone && exited ? si.si_status : KLAW_NONE;
    p->status.signal = !gone && !exited ? si.si_status : 0;
    p->status.dumped = !gone && si.si_code == CLD_DUMPED;
    p->life = KLAWI_PROCESS_ENDED;
    klawi_lock_release(&p->lock);
    return true;
}

/* A fork of ours: the processes are its parent's. */
static bool forked(void) {
    return atomic_load_explicit(&klawi_forked, memory_order_relaxed);
}

static klaw_err send_signal(klaw_process *p, int sig, bool group) {
    klaw_err e = KLAW_NOT_FOUND;
    if (forked())
        return KLAW_STOPPED;
    klawi_lock_acquire(&p->lock);
    if (p->life == KLAWI_PROCESS_RUNS) /* O1 */
        e = kill(group ? -p->pid : p->pid, sig) == 0 ? KLAW_OK
            : klawi_errno() == ESRCH  ? KLAW_NOT_FOUND
            : klawi_errno() == EINVAL ? KLAW_INVALID
                                      : KLAW_SYSTEM;
    klawi_lock_release(&p->lock);
    return e;
}

klaw_err klaw_process_signal(klaw_process *p, int sig) {
    return p && sig > 0 ? send_signal(p, sig, false) : KLAW_INVALID;
}

klaw_err klaw_process_kill_group(klaw_process *p, int sig) {
    return p && sig > 0 ? send_signal(p, sig, true) : KLAW_INVALID;
}

klaw_err klaw_process_wait(klaw_process *p, klaw_deadline deadline, klaw_process_status *status) {
    if (!p)
        return KLAW_INVALID;
    if (forked())
        return KLAW_STOPPED;
    while (!reap(p)) {
        klaw_err e = klaw_fd_wait(p->pidfd, KLAW_READ, deadline);
        if (e)
            return e;
    }
    if (status)
        *status = p->status;
    return KLAW_OK;
}

klaw_err klaw_process_stop(klaw_process *p, klaw_deadline deadline, klaw_process_status *status) {
    klaw_scope *shield = NULL;
    if (!p)
        return KLAW_INVALID;
    if (forked())
        return KLAW_STOPPED;
    klaw_err e = deadline == KLAW_NOWAIT ? KLAW_TIMEOUT : klaw_process_kill_group(p, SIGTERM);
    if (e == KLAW_OK || e == KLAW_NOT_FOUND)
        e = klaw_process_wait(p, deadline, status);
    if (e == KLAW_OK)
        return e;
    (void)send_signal(p, SIGKILL, true);
    klaw_scope_opts so = {.name = "kill", .deadline = klaw_after(KILL_LIMIT), .shield = true};
    if (klaw_scope_open(&so, &shield) != KLAW_OK)
        shield = NULL; /* a cancellation may come through; else nothing changes */
    e = klaw_process_wait(p, so.deadline, status);
    if (shield && klaw_scope_close(shield) != KLAW_OK && e)
        e = KLAW_TIMEOUT;
    return e;
}

/* --- its life --- */
void klawi_process_close(int fd) {
    if (fd >= 0 && klaw_fd_close(fd) != KLAW_OK)
        (void)close(fd);
}

static void destroy(klaw_process *p) {
    for (int i = 0; i < 3; i++)
        klawi_process_close(p->fds[i]);
    klawi_process_close(p->pidfd);
    klawi_free(p);
}

/* Looks whether orphans have ended meanwhile. */
static void sweep(void) {
    klawi_lock_acquire(&orphans.lock);
    size_t n = 0;
    for (klawi_link *l = orphans.list.next; l != &orphans.list; l = l->next)
        n++;
    klawi_lock_release(&orphans.lock);
    while (n-- > 0) {
        klaw_process *p = NULL;
        klawi_lock_acquire(&orphans.lock);
        if (!klawi_link_empty(&orphans.list)) {
            p = KLAWI_CONTAINER(orphans.list.next, klaw_process, orphan);
            klawi_link_remove(&p->orphan);
        }
        klawi_lock_release(&orphans.lock);
        if (!p)
            return;
        if (reap(p)) {
            destroy(p);
            continue;
        }
        klawi_lock_acquire(&orphans.lock);
        klawi_link_push(&orphans.list, &p->orphan);
        klawi_lock_release(&orphans.lock);
    }
}

klaw_process *klaw_process_ref(klaw_process *p) {
    if (p)
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void klaw_process_unref(klaw_process *p) {
    /* acq_rel: the last one sees what the others did. */
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (forked()) { /* descriptors and memory are copies, the process is not */
        destroy(p);
        return;
    }
    if (!reap(p)) {
        struct pollfd look = {.fd = p->pidfd, .events = POLLIN};
        (void)send_signal(p, SIGKILL, true);
        for (int ms = 0; ms < ORPHAN_MS && !reap(p); ms += 10)
            (void)poll(&look, 1, 10);
    }
    if (reap(p)) {
        destroy(p);
    } else { /* O3 */
        klawi_lock_acquire(&orphans.lock);
        klawi_link_push(&orphans.list, &p->orphan);
        klawi_lock_release(&orphans.lock);
    }
    sweep();
}

int64_t klaw_process_pid(const klaw_process *p) {
    return p ? p->pid : KLAW_NONE;
}

int klaw_process_fd(const klaw_process *p, int which) {
    if (!p || which < 0 || which > 2)
        return KLAW_NONE;
    klaw_process *q = (klaw_process *)(uintptr_t)p;
    klawi_lock_acquire(&q->lock);
    int fd = q->fds[which];
    klawi_lock_release(&q->lock);
    return fd;
}

klaw_err klaw_process_fd_close(klaw_process *p, int which) {
    if (!p || which < 0 || which > 2)
        return KLAW_INVALID;
    klawi_lock_acquire(&p->lock);
    int fd = p->fds[which];
    p->fds[which] = -1;
    klawi_lock_release(&p->lock);
    klawi_process_close(fd);
    return fd >= 0 ? KLAW_OK : KLAW_NOT_FOUND;
}

void klaw_process_status_text(const klaw_process_status *status, char *text, size_t size) {
    if (status->signal) {
        const char *name = sigabbrev_np(status->signal);
        snprintf(text, size, "signal %d (%s)", status->signal, name ? name : "?");
    } else if (status->code == KLAW_NONE) {
        snprintf(text, size, "ended unseen");
    } else {
        snprintf(text, size, "exit code %d", status->code);
    }
}

/* --- starting --- */
static bool stdio_ok(const klaw_stdio *io, bool err) {
    return (unsigned)io->kind <= (err ? KLAW_STDIO_OUT : KLAW_STDIO_FD) &&
           (io->kind != KLAW_STDIO_FD || io->fd >= 0);
}

struct start {
    klaw_process *p;
    const klaw_process_opts *o;
    klaw_error_info *info;
};

static klaw_err start_now(void *arg) {
    struct start *s = arg;
#if defined(KLAWI_DET)
    return klawi_process_error(s->info, "cannot start ", s->o->argv[0], ENOSYS);
#else
    return klawi_process_start(s->p, s->o, s->info);
#endif
}

klaw_err klaw_process_spawn_sized(const klaw_process_opts *opts, size_t opts_size,
                                  klaw_process **out, klaw_error_info *info) {
    klaw_process_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!out || !o.argv || !o.argv[0] || !o.argv[0][0] || !stdio_ok(&o.in, false) ||
        !stdio_ok(&o.out, false) || !stdio_ok(&o.err, true)) {
        if (info) {
            memset(info, 0, sizeof *info);
            snprintf(info->message, sizeof info->message, "options of a process make no sense");
        }
        return KLAW_INVALID;
    }
    if (info)
        memset(info, 0, sizeof *info);
    if (forked())
        return KLAW_STOPPED;
    sweep();
    klaw_process *p = klawi_calloc(1, sizeof *p);
    if (!p)
        return KLAW_NOMEM;
    klawi_lock_init(&p->lock, KLAWI_RANK_PROCESS);
    atomic_init(&p->refs, 1);
    p->leave_strays = o.leave_strays;
    struct start s = {p, &o, info};
    klaw_err e = klaw_blocking(start_now, &s);
    if (e) {
        klawi_free(p);
        return e;
    }
    *out = p;
    return KLAW_OK;
}
