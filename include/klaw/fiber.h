/* SPDX-License-Identifier: Apache-2.0 */
/* fiber.h - fibers: run, spawn, join, yield; blocking calls and file descriptors that park the
 * fiber and not its worker.
 *
 * Across a wait nobody keeps errno, a held pthread mutex, the address of a thread-local, the locale
 * or an active C++ exception handler: another fiber runs on the thread meanwhile, and the fiber may
 * go on on another thread. */
#ifndef KLAW_FIBER_H
#define KLAW_FIBER_H

#include "klaw/time.h"

KLAW_BEGIN

typedef struct klaw_fiber klaw_fiber;
struct klaw_scope;
struct sockaddr;

/* What a fiber runs. Its result reaches whoever joins, and its scope. */
typedef klaw_err (*klaw_fn)(void *arg);

/* Options of klaw_run; all zero is the default. */
typedef struct klaw_run_opts {
    /* Worker threads, at most 256; 0: the concurrency of klaw_config_get, which is KLAW_CONCURRENCY
     * or one per usable processor (affinity and cgroup quota) unless klaw_init said. */
    uint32_t workers;
    /* Threads for klaw_blocking at most; 0: 64. They are started when needed. */
    uint32_t blocking_threads;
    /* Stack of a fiber that does not say, in bytes of address space; 0: 256 KiB. */
    size_t stack_size;
    /* When everything is cancelled; 0: never. */
    klaw_deadline deadline;
    /* How long klaw_run waits, after a cancellation by its deadline or by klaw_run_stop, for fibers
     * that do not reach a cancel point before it abandons them, in ns; 0: 5 s. */
    int64_t grace;
    /* For logs and inspect; copied, NULL: "main". */
    const char *name;
    /* Open the process to inspection from outside, see klaw_inspect_open; false: as klaw_init or
     * KLAW_INSPECT says. It stays open after the run. */
    bool inspect;
} klaw_run_opts;

/* Options of klaw_spawn; all zero is the default. */
typedef struct klaw_fiber_opts {
    /* Copied (31 bytes kept); NULL: "fiber". */
    const char *name;
    /* Bytes of address space; 0: the runtime's default. At least 16 KiB, at most 1 GiB, else
     * INVALID. Pages are used on touch. */
    size_t stack_size;
    /* Stay on the worker that runs it first (the spawner's). */
    bool pinned;
    /* Swap the C++ exception globals at each switch: for C++ code that waits inside a catch block.
     * */
    bool cxx;
    /* Keep mxcsr and the x87 control word (AArch64: FPCR) per fiber: for code that changes rounding
     * modes. */
    bool fpenv;
    /* No guard page, only canaries checked at switches: saves address-space mappings where there
     * are very many fibers. An overflow is found late. */
    bool unguarded;
} klaw_fiber_opts;

/* See klaw_run; opts_size is sizeof(klaw_run_opts) as the caller was compiled. */
KLAW_API KLAW_MUST klaw_err klaw_run_sized(klaw_fn main, void *arg, const klaw_run_opts *opts,
                                           size_t opts_size);

/* Starts the runtime, runs main(arg) on a fiber of its root scope, waits for every fiber, stops the
 * runtime. The calling thread sleeps meanwhile. Returns main's result when that is an error; else
 * the root scope's first error, if it has one; else CANCELLED after klaw_run_stop; else OK.
 * TIMEOUT: opts->deadline cancelled it, or fibers had to be abandoned (named on stderr; their
 * memory is kept, and a new run may begin). Timers, tickers and descriptors waited for
 * belong to the run: after it nothing of them happens any more.
 * Errors: EXISTS while a runtime runs in this process; INVALID (also a wrong KLAW_CONCURRENCY or
 * KLAW_INSPECT, then a line on stderr says so); NOMEM; SYSTEM (no threads, no epoll; opts->inspect and
 * klaw_inspect_open can't). Not from a fiber. */
static inline KLAW_MUST klaw_err klaw_run(klaw_fn main, void *arg, const klaw_run_opts *opts) {
    return klaw_run_sized(main, arg, opts, sizeof(klaw_run_opts));
}

/* Cancels the root scope with a reason (copied, 63 bytes kept). OK, or STOPPED when none runs. From
 * any thread or fiber. */
KLAW_API KLAW_MUST klaw_err klaw_run_stop(const char *reason);
/* Worker threads of the running runtime; 0 when none runs. */
KLAW_API uint32_t klaw_run_workers(void);

/* Starts fn(arg) in the current scope (from a thread outside: the root scope). Nobody joins it; its
 * scope waits for it. A fiber always runs its function, even when cancelled before it starts, so
 * arg is never leaked. Errors: NOMEM (fn will not run), STOPPED (no runtime; or the scope has been
 * closed). */
KLAW_API KLAW_MUST klaw_err klaw_go(klaw_fn fn, void *arg);

/* See klaw_spawn. */
KLAW_API KLAW_MUST klaw_err klaw_spawn_sized(struct klaw_scope *scope, klaw_fn fn, void *arg,
                                             const klaw_fiber_opts *opts, size_t opts_size,
                                             klaw_fiber **out);

/* Like klaw_go, into `scope` (NULL: the current one) and with options (NULL: defaults). With `out`
 * the caller gets a handle, to be ended by klaw_join or klaw_detach. Errors: as klaw_go, INVALID.
 * */
static inline KLAW_MUST klaw_err klaw_spawn(struct klaw_scope *scope, klaw_fn fn, void *arg,
                                            const klaw_fiber_opts *opts, klaw_fiber **out) {
    return klaw_spawn_sized(scope, fn, arg, opts, sizeof(klaw_fiber_opts), out);
}

/* Waits for the fiber to end. OK: *result is what its function returned, *value what it set by
 * klaw_set_value (either may be NULL), and the handle is used up. TIMEOUT, CANCELLED: the handle
 * stays. Errors: INVALID for NULL or for oneself. One joiner at a time. From a fiber or a thread.
 * */
KLAW_API KLAW_MUST klaw_err klaw_join(klaw_fiber *f, klaw_err *result, void **value,
                                      klaw_deadline deadline);
/* Gives the handle up; the fiber goes on. NULL is allowed. */
KLAW_API void klaw_detach(klaw_fiber *f);
/* Cancels one fiber: its waits return CANCELLED from now on. Needs the handle. Idempotent. From
 * anywhere. */
KLAW_API void klaw_fiber_cancel(klaw_fiber *f);

/* The value a joiner of the current fiber gets. Ignored on a plain thread. */
KLAW_API void klaw_set_value(void *value);
/* The current fiber's name; "thread" on a plain thread. Valid while it runs. */
KLAW_API const char *klaw_self_name(void);
/* The current fiber's number, unique in the process; 0 on a plain thread. */
KLAW_API uint64_t klaw_self_id(void);

/* Lets others run. CANCELLED when the fiber is cancelled (it has yielded all the same), else OK. On
 * a thread: sched_yield. */
KLAW_API KLAW_MUST klaw_err klaw_yield(void);
/* A cancel point that does not yield unless the turn's operation budget is used up: CANCELLED or
 * OK. */
KLAW_API KLAW_MUST klaw_err klaw_check(void);

/* Runs fn(arg) on a thread made for blocking, parks the fiber until it returns, and returns what it
 * returned. It is awaited, never cut. On a plain thread: calls fn directly. Errors of its own:
 * NOMEM when no thread can be had (fn did not run). */
KLAW_API KLAW_MUST klaw_err klaw_blocking(klaw_fn fn, void *arg);

/* What to wait for on a descriptor. */
#define KLAW_READ 1u
#define KLAW_WRITE 2u

/* Waits until fd is ready for any of `events`. OK; EMPTY (NOWAIT, not ready); TIMEOUT; CANCELLED;
 * CLOSED when klaw_fd_close came first; INVALID (bad events, bad fd); SYSTEM. A regular file is
 * always ready. From a fiber or a thread. */
KLAW_API KLAW_MUST klaw_err klaw_fd_wait(int fd, unsigned events, klaw_deadline deadline);
/* Reads up to `size` bytes. OK with *got = 0 is the end of the file. Descriptors that can block are
 * made non-blocking on first use; regular files are read on the blocking pool. Errors as
 * klaw_fd_wait, SYSTEM fills info->sys and info->message (info may be NULL). */
KLAW_API KLAW_MUST klaw_err klaw_fd_read(int fd, void *buf, size_t size, size_t *got,
                                         klaw_deadline deadline, klaw_error_info *info);
/* Writes all `size` bytes; *done (may be NULL) says how many went, also when it fails. A broken
 * pipe is SYSTEM, never a signal for sockets. */
KLAW_API KLAW_MUST klaw_err klaw_fd_write(int fd, const void *buf, size_t size, size_t *done,
                                          klaw_deadline deadline, klaw_error_info *info);
/* Accepts one connection, close-on-exec and non-blocking, into *out. Errors as klaw_fd_read. */
KLAW_API KLAW_MUST klaw_err klaw_fd_accept(int fd, int *out, klaw_deadline deadline,
                                           klaw_error_info *info);
/* Connects a socket. Errors as klaw_fd_read; a refused connection is SYSTEM with info->sys =
 * ECONNREFUSED. */
KLAW_API KLAW_MUST klaw_err klaw_fd_connect(int fd, const struct sockaddr *addr, uint32_t addr_size,
                                            klaw_deadline deadline, klaw_error_info *info);
/* Closes the descriptor and wakes everyone who waits on it with CLOSED. Use it instead of close()
 * for descriptors given to the functions above. INVALID for a bad descriptor. */
KLAW_API KLAW_MUST klaw_err klaw_fd_close(int fd);

KLAW_END

#endif
