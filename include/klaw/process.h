/* SPDX-License-Identifier: Apache-2.0 */
/* process.h - operating-system processes: started, waited for by a fiber that parks, ended with
 * their whole group.
 *
 * A child runs in a process group of its own, with no signal blocked and the default actions, and
 * inherits no descriptor but its standard three. Nothing of it outlives its leader: when that has
 * ended, what is left of the group is killed (see leave_strays); and should this process die, even by
 * SIGKILL, a small guard (a /bin/sh that is nobody's child, started with the first process) kills the
 * groups it left. Between a start and the guard's hearing of it lie some microseconds that
 * nobody watches. What leaves its group (setsid) is out of reach. */
#ifndef KLAW_PROCESS_H
#define KLAW_PROCESS_H

#include "klaw/time.h"

KLAW_BEGIN

typedef struct klaw_process klaw_process;

/* Where a standard descriptor of a child comes from. */
typedef enum klaw_stdio_kind {
    KLAW_STDIO_INHERIT = 0, /* this process's own */
    KLAW_STDIO_NULL = 1,    /* /dev/null */
    KLAW_STDIO_PIPE = 2,    /* a pipe; the other end by klaw_process_fd */
    KLAW_STDIO_FD = 3,      /* a descriptor of this process, which stays the caller's */
    KLAW_STDIO_OUT = 4      /* stderr alone: wherever stdout goes */
} klaw_stdio_kind;

/* One standard descriptor; all zero: inherited. */
typedef struct klaw_stdio {
    klaw_stdio_kind kind;
    int fd; /* of KLAW_STDIO_FD */
} klaw_stdio;

/* Options of klaw_process_spawn; zero is the default of everything but argv. */
typedef struct klaw_process_opts {
    /* Program and arguments, ended by NULL. A name without a slash is looked for in PATH. */
    const char *const *argv;
    /* "NAME=value", ended by NULL: added to the inherited environment, replacing what has the same
     * name; "NAME" alone takes it away. NULL: nothing. */
    const char *const *env;
    /* The environment is env alone, nothing is inherited. */
    bool env_only;
    /* Working directory; NULL: this process's. */
    const char *cwd;
    klaw_stdio in;  /* stdin */
    klaw_stdio out; /* stdout */
    klaw_stdio err; /* stderr */
    /* Leave other members of the group alone when the leader has ended. */
    bool leave_strays;
    /* No guard: the child lives on when this process dies. */
    bool outlives;
} klaw_process_opts;

/* How a process ended. */
typedef struct klaw_process_status {
    int32_t code;   /* exit code, 0 to 255; KLAW_NONE: ended by a signal */
    int32_t signal; /* the signal that ended it; 0: it exited */
    bool dumped;    /* left a core */
} klaw_process_status;

/* See klaw_process_spawn. */
KLAW_API KLAW_MUST klaw_err klaw_process_spawn_sized(const klaw_process_opts *opts,
                                                     size_t opts_size, klaw_process **out,
                                                     klaw_error_info *info);

/* Starts a process; *out is to be given back by klaw_process_unref. Everything in opts is read
 * before it returns. Errors: NOT_FOUND (no such program or directory), INVALID (opts, argv, a
 * descriptor, an environment entry without a name), NOMEM, STOPPED (the child of a fork), SYSTEM
 * (anything else); info (may be NULL) gets message and sys. From a fiber (parks: the work is done on
 * the blocking pool) or a thread. */
static inline KLAW_MUST klaw_err klaw_process_spawn(const klaw_process_opts *opts,
                                                    klaw_process **out, klaw_error_info *info) {
    return klaw_process_spawn_sized(opts, sizeof(klaw_process_opts), out, info);
}

/* Its process id, which is also that of its group. It may be somebody else's once the process has
 * been waited for: signal it by the functions below. */
KLAW_API int64_t klaw_process_pid(const klaw_process *p);

/* This process's end of the pipe of standard descriptor 0, 1 or 2, close-on-exec; KLAW_NONE when there
 * is none. It belongs to the handle: klaw_fd_read and klaw_fd_write it, end it by
 * klaw_process_fd_close, not by klaw_fd_close. */
KLAW_API int klaw_process_fd(const klaw_process *p, int which);
/* Closes our end of that pipe: a child sees the end of its input. Errors: NOT_FOUND (no pipe, or
 * closed), INVALID. From anywhere; whoever waits on it gets CLOSED. */
KLAW_API KLAW_MUST klaw_err klaw_process_fd_close(klaw_process *p, int which);

/* Waits until it has ended and *status (may be NULL) is known; later calls answer at once. Any
 * number of hosts may wait. Errors: EMPTY (NOWAIT), TIMEOUT, CANCELLED, INVALID, NOMEM, SYSTEM,
 * STOPPED (the child of a fork): the process goes on. From a fiber (parks) or a thread. */
KLAW_API KLAW_MUST klaw_err klaw_process_wait(klaw_process *p, klaw_deadline deadline,
                                              klaw_process_status *status);

/* Sends a signal to the process itself. Errors: NOT_FOUND (it has ended), INVALID (no such signal),
 * SYSTEM (it has changed its user), STOPPED (the child of a fork). From anywhere, never waits; so the
 * next one. */
KLAW_API KLAW_MUST klaw_err klaw_process_signal(klaw_process *p, int sig);
/* Sends a signal (SIGTERM, SIGKILL) to every process of its group. Errors: as klaw_process_signal. */
KLAW_API KLAW_MUST klaw_err klaw_process_kill_group(klaw_process *p, int sig);

/* Asks the group to end (SIGTERM), kills it (SIGKILL) when it has not by `deadline`, and waits for
 * its end in any case: `*status` as klaw_process_wait. Not cut by a cancellation, which only shortens
 * the wait for SIGTERM. NOWAIT: kills at once. Errors: INVALID; STOPPED (the child of a fork); TIMEOUT:
 * the kernel did not end it within 5 s of SIGKILL. From a fiber (parks) or a thread. */
KLAW_API KLAW_MUST klaw_err klaw_process_stop(klaw_process *p, klaw_deadline deadline,
                                              klaw_process_status *status);

/* "exit code 3" or "signal 9 (KILL)", cut to fit `size` bytes with its NUL. */
KLAW_API void klaw_process_status_text(const klaw_process_status *status, char *text, size_t size);

/* One more reference. Returns p. */
KLAW_API klaw_process *klaw_process_ref(klaw_process *p);
/* Gives a reference back. The last one closes the pipes, and kills with its group a process nobody has
 * seen the end of; no zombie stays. In the child of a fork it only forgets. NULL allowed. From
 * anywhere. */
KLAW_API void klaw_process_unref(klaw_process *p);

KLAW_END

#endif
