/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.h - supervision: children that are started in order, restarted when they fail, stopped in
 * reverse order.
 *
 * A child is a fiber function, an actor, another supervisor or an operating-system process. Which
 * are restarted, when it is too often, how long each may take to stop: the rules of policy.h
 * (klaw_supervision_*), which are OTP's. Here they are carried out.
 *
 *  - A supervisor runs in the scope it was opened in. When that is cancelled the supervisor stops its
 *    children in order, each within its shutdown time, and only then has ended. Children are shielded
 *    from that cancellation: they are asked to stop when it is their turn.
 *  - Asked to stop: a fiber is cancelled, an actor is told to stop, a process group gets SIGTERM, a
 *    supervisor stops its own children. Past its shutdown time a process group gets SIGKILL; an actor,
 *    a fiber or a supervisor that has not ended then is abandoned: the log names it, the supervisor
 *    goes on without it, its memory is kept until it ends by itself.
 *  - All functions work from fibers and from threads, except where they say something else. From the
 *    supervisor's own hooks those that wait answer INVALID. */
#ifndef KLAW_SUPERVISOR_H
#define KLAW_SUPERVISOR_H

#include "klaw/actor.h"
#include "klaw/policy.h"
#include "klaw/process.h"
#include "klaw/scope.h"

KLAW_BEGIN

typedef struct klaw_supervisor klaw_supervisor;

/* The longest name of a child or a supervisor, in bytes. */
#define KLAW_CHILD_NAME_MAX 63

/* What a child is. Numbers never change. */
typedef enum klaw_child_kind {
    KLAW_CHILD_FIBER = 0,      /* a function on a fiber */
    KLAW_CHILD_ACTOR = 1,      /* an actor */
    KLAW_CHILD_SUPERVISOR = 2, /* a supervisor with children of its own */
    KLAW_CHILD_PROCESS = 3     /* an operating-system process */
} klaw_child_kind;

/* "fiber", "actor", "supervisor", "process"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_child_kind_name(klaw_child_kind kind);
/* "stopped", "starting", "running", …; "?" for a number that is none. Static. */
KLAW_API const char *klaw_child_state_name(klaw_child_state state);

/* What hooks are told. Everything is valid until the hook returns. */
typedef struct klaw_child_event {
    klaw_supervisor *supervisor; /* borrowed */
    const char *supervisor_name;
    const char *child;           /* its name */
    klaw_child_kind kind;        /* what it is */
    klaw_err error;              /* how it ended */
    uint32_t attempt;            /* failures of this child in a row */
    const klaw_error_info *info; /* what is known besides: "exit code 3" */
} klaw_child_event;

/* Called on the supervisor's fiber with no lock held; while it runs the supervisor does nothing
 * else. */
typedef void (*klaw_child_hook)(const klaw_child_event *event, void *user);

/* Options of a supervisor; all zero is the default. */
typedef struct klaw_supervisor_opts {
    /* Copied; NULL: "supervisor". A nested one is called as its child. */
    const char *name;
    /* Strategy, intensity, backoff: see policy.h. */
    klaw_supervision_opts policy;
    /* A child failed (logged as a warning). May be NULL, as the next ones. */
    klaw_child_hook on_failure;
    /* It runs again (logged as information). */
    klaw_child_hook on_restart;
    /* Too many restarts within the window; the supervisor stops everything and ends with LIMIT (logged
     * as an error). */
    klaw_child_hook on_max_restarts;
    /* For the hooks; has to live until the supervisor has ended. */
    void *user;
} klaw_supervisor_opts;

/* A child. What belongs to other kinds is ignored. */
typedef struct klaw_child_spec {
    /* Unique in its supervisor; copied. Dynamic children may have none (NULL): they are called after
     * the definition, "worker-1", "worker-2", …; NULL in a definition: "child". */
    const char *name;
    klaw_child_kind kind; /* decides which of the fields below count */
    klaw_restart restart; /* see policy.h; so the next two */
    bool significant;
    int64_t shutdown; /* ns; 0: 5 s, for a supervisor KLAW_SHUTDOWN_FOREVER */

    /* FIBER: arg of both functions. ACTOR: arg of the behavior. */
    void *arg;
    /* Called with arg when the supervisor forgets the child and nothing of it runs any more; must not
     * wait. NULL: nothing. A child that could not be added leaves arg the caller's. In a dynamic definition
     * it is for the children's args; the definition's own is nobody's. */
    void (*drop)(void *arg);

    /* FIBER: what it runs. Returning OK is a normal end, an error a failure; CANCELLED after it was
     * asked to stop is normal, too. Fibers it spawns belong to it: it has ended when they have. */
    klaw_fn run;
    /* FIBER: runs first, on the same fiber; the child counts as started when it has returned OK, else
     * the start has failed. NULL: started at once. */
    klaw_fn init;
    /* FIBER: stack and such; NULL: defaults. The child's name is its name if it gives none. */
    const klaw_fiber_opts *fiber;

    /* ACTOR: what it does; the pointer has to stay valid. */
    const klaw_behavior *behavior;
    /* ACTOR: mailbox and such, copied; NULL: defaults. Its own restart policy has to be NEVER (it is
     * taken as such). */
    const klaw_actor_opts *actor;

    /* SUPERVISOR: its options and children; copied with all that is inside. Its failure is that it
     * gave up (LIMIT) or could not start. */
    const klaw_supervisor_opts *supervisor;
    const struct klaw_child_spec *children; /* n_children of them */
    size_t n_children;                      /* 0: none yet */

    /* PROCESS: copied with its strings; descriptors in it have to stay open. An exit code other than
     * 0, or a signal, is a failure (SYSTEM; the info says which). */
    const klaw_process_opts *process;
} klaw_child_spec;

/* See klaw_supervisor_open. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_open_sized(
    const klaw_supervisor_opts *opts, size_t opts_size, const klaw_child_spec *children,
    size_t child_size, size_t n, klaw_supervisor **out, klaw_error_info *info);

/* Starts a supervisor in the current scope (from a thread outside: the root scope) and its n children,
 * left to right; returns when all of them run. Everything but args and behaviors is copied. With
 * KLAW_DYNAMIC there is exactly one definition, which is not started: klaw_supervisor_start_dynamic
 * makes children of it. `opts` NULL: defaults. *out is for klaw_supervisor_unref.
 * Errors: the first failed start's error (what had been started has been stopped; info (may be NULL)
 * names the child); INVALID (a spec that makes no sense), LIMIT (a name too long; or children that ran
 * already failed too often before all of them did), EXISTS (a name twice), NOMEM, STOPPED (no
 * runtime), CANCELLED (nothing of it is left running). After any error every arg is the caller's again,
 * none has been dropped. */
static inline KLAW_MUST klaw_err klaw_supervisor_open(const klaw_supervisor_opts *opts,
                                                      const klaw_child_spec *children, size_t n,
                                                      klaw_supervisor **out,
                                                      klaw_error_info *info) {
    return klaw_supervisor_open_sized(opts, sizeof(klaw_supervisor_opts), children,
                                      sizeof(klaw_child_spec), n, out, info);
}

/* See klaw_supervisor_start_child. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_start_child_sized(klaw_supervisor *s,
                                                              const klaw_child_spec *spec,
                                                              size_t spec_size,
                                                              klaw_deadline deadline,
                                                              klaw_error_info *info);

/* Adds a child at the end and starts it. OK: it runs. A failed start is not retried and leaves
 * nothing. Errors: the start's; EXISTS (the name), INVALID (also: a dynamic supervisor), LIMIT,
 * NOMEM, STOPPED (the supervisor is stopping); TIMEOUT, CANCELLED: it has been stopped again, nothing
 * is left. */
static inline KLAW_MUST klaw_err klaw_supervisor_start_child(klaw_supervisor *s,
                                                             const klaw_child_spec *spec,
                                                             klaw_deadline deadline,
                                                             klaw_error_info *info) {
    return klaw_supervisor_start_child_sized(s, spec, sizeof(klaw_child_spec), deadline, info);
}

/* Starts a child of a dynamic supervisor's definition with an arg of its own (for a process: an argv,
 * copied; NULL: the definition's). `name` NULL: made from the definition's. Errors: as
 * klaw_supervisor_start_child; INVALID when the supervisor is not dynamic. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_start_dynamic(klaw_supervisor *s, const char *name,
                                                          void *arg, klaw_deadline deadline,
                                                          klaw_error_info *info);

/* Stops a child, waits until it has ended, and keeps its place (a dynamic child is forgotten). OK also
 * when it is stopped already. A restart of its group brings it back, as in OTP. Errors: NOT_FOUND,
 * STOPPED; TIMEOUT, CANCELLED: the stopping goes on. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_stop_child(klaw_supervisor *s, const char *name,
                                                       klaw_deadline deadline);
/* Starts a stopped child again and waits until it runs. Errors: the start's (it stays stopped);
 * EXISTS (it is not stopped), NOT_FOUND, STOPPED; TIMEOUT, CANCELLED: the start goes on. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_restart_child(klaw_supervisor *s, const char *name,
                                                          klaw_deadline deadline);
/* Forgets a stopped child. Errors: EXISTS (it is not stopped), NOT_FOUND, STOPPED; TIMEOUT,
 * CANCELLED: it may still happen. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_delete_child(klaw_supervisor *s, const char *name,
                                                         klaw_deadline deadline);

/* One child, as klaw_supervisor_which tells it. */
typedef struct klaw_child_info {
    char name[KLAW_CHILD_NAME_MAX + 1];
    klaw_child_kind kind;
    klaw_child_state state;
    klaw_restart restart;
    bool significant;
    bool abandoned;       /* one of it, at least, did not stop and runs on, unsupervised */
    uint64_t restarts;    /* since it was added */
    int64_t id;           /* fiber's, actor's, process's, supervisor's number; 0: it does not run */
    klaw_err last_error;  /* of its last failure; OK: none yet */
    char last_detail[64]; /* "exit code 3", …; "" */
} klaw_child_info;

/* Writes up to `max` children in order of their start into `out` (NULL with max 0) and how many
 * there are into *n. Errors: INVALID. Never waits. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_which(klaw_supervisor *s, klaw_child_info *out,
                                                  size_t max, size_t *n);

/* How many children there are, in all and by what they do. */
typedef struct klaw_supervisor_counts {
    uint64_t specs;       /* known */
    uint64_t active;      /* running or stopping */
    uint64_t supervisors; /* of the known ones; so the next */
    uint64_t workers;
    uint64_t abandoned; /* runs that did not stop and have not ended since */
    uint64_t restarts;  /* since the supervisor began */
} klaw_supervisor_counts;

/* Fills *out. INVALID for NULL. Never waits. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_count(klaw_supervisor *s, klaw_supervisor_counts *out);

/* The actor that a child is now, as a reference of the caller's (klaw_actor_unref). Errors: NOT_FOUND
 * (no such child), TYPE (it is no actor), STOPPED (it does not run now). Never waits; so the next. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_child_actor(klaw_supervisor *s, const char *name,
                                                        klaw_actor **out);
/* The same for a process (klaw_process_unref). */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_child_process(klaw_supervisor *s, const char *name,
                                                          klaw_process **out);
/* The same for a nested supervisor (klaw_supervisor_unref). */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_child_supervisor(klaw_supervisor *s, const char *name,
                                                             klaw_supervisor **out);

/* Stops all children, right to left, and waits until the supervisor has ended. Idempotent. Errors:
 * TIMEOUT, CANCELLED: the stopping goes on. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_stop(klaw_supervisor *s, klaw_deadline deadline);
/* Waits until it has ended; *why (may be NULL): OK (stopped, or auto-shutdown), LIMIT (gave up), or the
 * error of the first start. Errors: EMPTY (NOWAIT), TIMEOUT, CANCELLED. */
KLAW_API KLAW_MUST klaw_err klaw_supervisor_join(klaw_supervisor *s, klaw_deadline deadline,
                                                 klaw_err *why);

/* Its number, unique in the process. */
KLAW_API uint64_t klaw_supervisor_id(const klaw_supervisor *s);
/* Its name; valid while a reference is held. */
KLAW_API const char *klaw_supervisor_name(const klaw_supervisor *s);
/* One more reference. Returns s. */
KLAW_API klaw_supervisor *klaw_supervisor_ref(klaw_supervisor *s);
/* Gives a reference back; the supervisor runs on: its scope waits for it. NULL allowed. */
KLAW_API void klaw_supervisor_unref(klaw_supervisor *s);

KLAW_END

#endif
