/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.h - one object that owns an executor, channels, fibers and actors, and ends them together.
 *
 *     int main(void) {
 *         klaw_runtime *rt;
 *         klaw_shutdown_report report;
 *         klaw_err e = klaw_runtime_open(NULL, &rt, NULL);
 *         …
 *         e = klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx);
 *         e = klaw_runtime_spawn(rt, reader, rx, NULL, NULL);
 *         …
 *         e = klaw_runtime_shutdown(rt, NULL, &report);
 *         klaw_runtime_free(rt);
 *     }
 *
 * Where no runtime runs (klaw_run), opening one starts it, on a thread made for it, and the end of
 * the object ends it. Where one runs, the object lives in it: in the current scope of the fiber
 * that opens it (a thread: the root scope), and cancelling that scope cancels all it owns.
 *
 * What it owns, and in what order a graceful shutdown ends it:
 *   channels  are closed: senders are told CLOSED, receivers get what is still in them;
 *   work      (klaw_runtime_spawn and the executor's tasks) is waited for;
 *   actors    are stopped when the work is done: they handle what is in their mailboxes.
 * What has not ended at the limit is cancelled, named, and waited for a little more; what reaches
 * no cancel point even then is abandoned and named again.
 *
 * All channels close at the same moment. Fibers that pass elements on from one to another want
 * their first one closed alone, and klaw_runtime_wait, before the shutdown.
 *
 * Every function may be called from any fiber or thread, except as it says. */
#ifndef KLAW_RUNTIME_H
#define KLAW_RUNTIME_H

#include "klaw/actor.h"
#include "klaw/broadcast.h"
#include "klaw/channel.h"
#include "klaw/config.h"
#include "klaw/executor.h"
#include "klaw/fiber.h"
#include "klaw/oneshot.h"
#include "klaw/watch.h"

KLAW_BEGIN

typedef struct klaw_runtime klaw_runtime;

/* Options of klaw_runtime_open; all zero is the default. */
typedef struct klaw_runtime_opts {
    /* Given to klaw_init first; NULL: klaw_init is not called. */
    const klaw_init_opts *config;
    /* Of the run, when one is started; ignored inside of one. Its deadline cancels everything the
     * object owns. */
    klaw_run_opts run;
    /* Of the executor. */
    klaw_executor_opts executor;
    /* Of the object's scopes; copied (31 bytes kept); NULL: "runtime". */
    const char *name;
} klaw_runtime_opts;

/* See klaw_runtime_open. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_open_sized(const klaw_runtime_opts *opts, size_t opts_size,
                                                    klaw_runtime **out, klaw_error_info *info);

/* Opens one. *out is the caller's, for klaw_runtime_free. Errors: those of klaw_init, klaw_run and
 * klaw_executor_open; NOMEM; EXISTS when a run began or ended at the same moment; CANCELLED (the
 * caller is). On an error nothing is left. info (may be NULL) is filled on an error. Not from a
 * timer's callback. */
static inline KLAW_MUST klaw_err klaw_runtime_open(const klaw_runtime_opts *opts,
                                                   klaw_runtime **out, klaw_error_info *info) {
    return klaw_runtime_open_sized(opts, sizeof(klaw_runtime_opts), out, info);
}

/* Its executor, borrowed: valid until klaw_runtime_free. */
KLAW_API klaw_executor *klaw_runtime_executor(klaw_runtime *rt);

/* See klaw_runtime_spawn and the like: the size is sizeof of the options as the caller was
 * compiled. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_spawn_sized(klaw_runtime *rt, klaw_fn fn, void *arg,
                                                     const klaw_fiber_opts *opts, size_t opts_size,
                                                     klaw_fiber **out);
KLAW_API KLAW_MUST klaw_err klaw_runtime_spawn_actor_sized(klaw_runtime *rt,
                                                           const klaw_behavior *behavior, void *arg,
                                                           const klaw_actor_opts *opts,
                                                           size_t opts_size, klaw_actor **out);
KLAW_API KLAW_MUST klaw_err klaw_runtime_channel_sized(klaw_runtime *rt, const klaw_type *type,
                                                       const klaw_channel_opts *opts,
                                                       size_t opts_size, klaw_sender **tx,
                                                       klaw_receiver **rx);
KLAW_API KLAW_MUST klaw_err klaw_runtime_broadcast_sized(klaw_runtime *rt, const klaw_type *type,
                                                         const klaw_broadcast_opts *opts,
                                                         size_t opts_size, klaw_sender **tx,
                                                         klaw_receiver **rx);

/* As klaw_spawn, in the object's scope. Errors: as there; STOPPED once a shutdown has begun. */
static inline KLAW_MUST klaw_err klaw_runtime_spawn(klaw_runtime *rt, klaw_fn fn, void *arg,
                                                    const klaw_fiber_opts *opts, klaw_fiber **out) {
    return klaw_runtime_spawn_sized(rt, fn, arg, opts, sizeof(klaw_fiber_opts), out);
}
/* As klaw_actor_spawn; opts->scope is not looked at. Errors: as there; STOPPED once a shutdown has
 * begun. */
static inline KLAW_MUST klaw_err klaw_runtime_spawn_actor(klaw_runtime *rt,
                                                          const klaw_behavior *behavior, void *arg,
                                                          const klaw_actor_opts *opts,
                                                          klaw_actor **out) {
    return klaw_runtime_spawn_actor_sized(rt, behavior, arg, opts, sizeof(klaw_actor_opts), out);
}

/* As klaw_channel. The endpoints are the caller's, as always; the shutdown closes those that are
 * still open and those cloned from them, whoever holds them. A channel whose endpoints are all given
 * back is forgotten. Errors: as there; STOPPED once a shutdown has begun. */
static inline KLAW_MUST klaw_err klaw_runtime_channel(klaw_runtime *rt, const klaw_type *type,
                                                      const klaw_channel_opts *opts,
                                                      klaw_sender **tx, klaw_receiver **rx) {
    return klaw_runtime_channel_sized(rt, type, opts, sizeof(klaw_channel_opts), tx, rx);
}
/* As klaw_broadcast, and as klaw_runtime_channel. */
static inline KLAW_MUST klaw_err klaw_runtime_broadcast(klaw_runtime *rt, const klaw_type *type,
                                                        const klaw_broadcast_opts *opts,
                                                        klaw_sender **tx, klaw_receiver **rx) {
    return klaw_runtime_broadcast_sized(rt, type, opts, sizeof(klaw_broadcast_opts), tx, rx);
}
/* As klaw_oneshot, and as klaw_runtime_channel. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_oneshot(klaw_runtime *rt, const klaw_type *type,
                                                 klaw_sender **tx, klaw_receiver **rx);
/* As klaw_watch, and as klaw_runtime_channel. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_watch(klaw_runtime *rt, const klaw_type *type,
                                               const void *initial, klaw_sender **tx,
                                               klaw_receiver **rx);

/* Waits until there is no work: every fiber of klaw_runtime_spawn and every task of the executor
 * has ended. Actors do not count. OK, EMPTY (NOWAIT), TIMEOUT, CANCELLED. Not from the object's
 * own work (it would wait for itself): INVALID. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_wait(klaw_runtime *rt, klaw_deadline deadline);

/* How many are named in a report. */
#define KLAW_SHUTDOWN_NAMED 32

/* Something that did not end by itself. */
typedef struct klaw_late {
    uint64_t id; /* the actor's, the task's, or the fiber's */
    char name[32];
    char kind[8];        /* "fiber", "task" or "actor" */
    char waiting_on[16]; /* as klaw_fiber_info; "" for one that runs */
} klaw_late;

/* What a shutdown had to do. */
typedef struct klaw_shutdown_report {
    size_t cancelled; /* fibers and actors that had not ended at the limit */
    size_t queued;    /* tasks that were never begun */
    size_t abandoned; /* of the cancelled ones: those that did not end even then */
    /* The first error of a fiber of klaw_runtime_spawn, other than CANCELLED; OK: none. */
    klaw_err error;
    bool incomplete; /* no memory to find the names: the numbers may be too small */
    size_t n_late;   /* entries below: min(cancelled, KLAW_SHUTDOWN_NAMED) */
    klaw_late late[KLAW_SHUTDOWN_NAMED];
    size_t n_lost; /* entries below: min(abandoned, KLAW_SHUTDOWN_NAMED) */
    klaw_late lost[KLAW_SHUTDOWN_NAMED];
} klaw_shutdown_report;

/* Options of klaw_runtime_shutdown; all zero is the default. */
typedef struct klaw_shutdown_opts {
    /* Cancel at once, without waiting for anything to end by itself; receivers are closed too, so
     * what is in channels is dropped. */
    bool now;
    /* ns from the beginning until what is left is cancelled; 0: 30 s; KLAW_NONE: no limit. */
    int64_t timeout;
    /* ns from the cancellation until what is left is abandoned; 0: 5 s; KLAW_NONE: no limit. */
    int64_t grace;
    /* Why, for those that are cancelled (klaw_scope_reason); copied; NULL: "shutdown". */
    const char *reason;
} klaw_shutdown_opts;

/* See klaw_runtime_shutdown. */
KLAW_API KLAW_MUST klaw_err klaw_runtime_shutdown_sized(klaw_runtime *rt,
                                                        const klaw_shutdown_opts *opts,
                                                        size_t opts_size,
                                                        klaw_shutdown_report *report);

/* Ends everything, and the run that was started for it (what others have spawned in that is
 * cancelled); nothing that was owned is running or waiting when it returns, unless it is reported
 * as abandoned. A caller that is cancelled meanwhile goes on as if the limit had passed. *report
 * (may be NULL) is filled whenever something happened.
 *   OK         all ended by itself; with `now`: all has ended.
 *   TIMEOUT    something had to be cancelled at the limit, or abandoned.
 *   CANCELLED  all had been cancelled before, with the scope the object lives in or by the run's
 *              deadline.
 *   INVALID    NULL, negative times, or called from the object's own fibers; nothing happens.
 *   NOMEM      the calling thread is new to klaw and gets no memory to wait; nothing happens.
 * A second call waits for the first and answers the same. The object stays for klaw_runtime_free.
 * What is abandoned inside of a run keeps the scope waiting that the object was opened in. */
static inline KLAW_MUST klaw_err klaw_runtime_shutdown(klaw_runtime *rt,
                                                       const klaw_shutdown_opts *opts,
                                                       klaw_shutdown_report *report) {
    return klaw_runtime_shutdown_sized(rt, opts, sizeof(klaw_shutdown_opts), report);
}

/* Shuts it down at once if that was not done, and gives the object up: no other call on it may be
 * under way or come later. Fibers that were abandoned keep what memory they need. NULL allowed.
 * Not from the object's own fibers. */
KLAW_API void klaw_runtime_free(klaw_runtime *rt);

KLAW_END

#endif
