/* SPDX-License-Identifier: Apache-2.0 */
/* executor.h - tasks: functions that run a bounded number at a time, and what became of each as a
 * value.
 *
 *     klaw_executor *ex;
 *     klaw_task *t;
 *     e = klaw_executor_open(&(klaw_executor_opts){.concurrency = 8}, &ex);
 *     e = klaw_submit(ex, resize, &picture, NULL, &t);
 *     …
 *     e = klaw_task_join(t, KLAW_FOREVER, &error, &value);
 *     klaw_task_unref(t);
 *     e = klaw_executor_close(ex, KLAW_FOREVER, NULL);
 *     klaw_executor_unref(ex);
 *
 * An executor belongs to the scope in which it was opened (a thread outside of any: the run's root
 * scope): its tasks run on fibers of that scope, the scope waits for them, and cancelling the scope
 * cancels them. An idle executor has no fibers. Tasks are taken first in, first out.
 *
 * A task's function is a klaw_fn. What it returns is the task's error, what it gives to
 * klaw_set_value its value. Scopes it leaves open are closed for it; fibers it spawns outside of a
 * scope of its own belong to the executor's scope. It runs with the context of who submitted it.
 *
 * Everything here may be called from any fiber or thread. A task that waits for another task of the
 * same executor occupies a place meanwhile; enough of them stop it for ever. */
#ifndef KLAW_EXECUTOR_H
#define KLAW_EXECUTOR_H

#include "klaw/context.h"
#include "klaw/retry.h"
#include "klaw/scope.h"

KLAW_BEGIN

typedef struct klaw_executor klaw_executor;
typedef struct klaw_task klaw_task;

/* Options of one task; all zero is the executor's default. A field that is zero leaves the
 * executor's default in force. */
typedef struct klaw_task_opts {
    /* Copied (31 bytes kept); NULL: "task". */
    const char *name;
    /* When it has to be over, from the moment it is submitted, waiting for its turn included; 0:
     * never. Then it is cancelled and ends with TIMEOUT. */
    klaw_deadline deadline;
    /* How to try again when it fails; copied. NULL: one attempt. The deadline counts for all. */
    const klaw_retry_opts *retry;
    /* The context it runs with; NULL: that of who submits it. */
    klaw_context *context;
    /* Called once with the task's arg when nothing of the task will touch it any more: after the
     * function, or instead of it when it never runs. On a fiber of the executor; must not wait.
     * Without one, the arg of a task that was cancelled before it began is the submitter's. */
    void (*release)(void *arg);
    /* Above 0: the function blocks its thread, so it runs by klaw_blocking: it is awaited, never
     * cut, and has no klaw_set_value. KLAW_NONE: it does not, whatever the default. */
    int32_t blocking;
} klaw_task_opts;

/* Options of klaw_executor_open; all zero is the default. */
typedef struct klaw_executor_opts {
    /* Tasks (and items of maps) that run at the same time, those that wait included; 0: 256,
     * KLAW_NONE: any number. Other negative numbers are INVALID. */
    int32_t concurrency;
    /* Of the executor and its fibers; copied (31 bytes kept), NULL: "executor". */
    const char *name;
    /* Defaults of its tasks. */
    klaw_task_opts task;
    /* Stack of the fibers its tasks run on, as in klaw_fiber_opts; 0: the runtime's default. */
    size_t stack_size;
} klaw_executor_opts;

/* See klaw_executor_open. */
KLAW_API KLAW_MUST klaw_err klaw_executor_open_sized(const klaw_executor_opts *opts,
                                                     size_t opts_size, klaw_executor **out);
/* Opens an executor in the current scope. One reference, the caller's. Errors: INVALID, NOMEM,
 * STOPPED (no runtime). */
static inline KLAW_MUST klaw_err klaw_executor_open(const klaw_executor_opts *opts,
                                                    klaw_executor **out) {
    return klaw_executor_open_sized(opts, sizeof(klaw_executor_opts), out);
}
/* A further reference. Returns ex; NULL allowed. */
KLAW_API klaw_executor *klaw_executor_ref(klaw_executor *ex);
/* Gives a reference back; NULL allowed. After the last one the executor is closed as by
 * klaw_executor_shut: what was accepted goes on. Task handles stay valid. */
KLAW_API void klaw_executor_unref(klaw_executor *ex);

/* From now on klaw_submit and the maps answer CLOSED; what was accepted goes on. Never waits;
 * idempotent. */
KLAW_API void klaw_executor_shut(klaw_executor *ex);
/* Cancels every task that has not ended, as klaw_task_cancel does; later ones are not touched.
 * Never waits. */
KLAW_API void klaw_executor_cancel(klaw_executor *ex, const char *reason);
/* Waits until it has nothing to do: no task is queued or runs. OK, TIMEOUT, EMPTY (NOWAIT),
 * CANCELLED, INVALID (NULL). Not from a task of its own. */
KLAW_API KLAW_MUST klaw_err klaw_executor_wait(klaw_executor *ex, klaw_deadline deadline);
/* Closes: refuses new tasks, lets the accepted ones end until the deadline, cancels what is late
 * with the reason (NULL: "executor closed") and waits for it, whatever happens. KLAW_NOWAIT cancels
 * at once. Returns OK when everything ended by itself, TIMEOUT when something had to be cancelled,
 * CANCELLED when the caller was cancelled meanwhile (then the tasks were, too), INVALID (NULL).
 * Idempotent. Not from a task of its own. */
KLAW_API KLAW_MUST klaw_err klaw_executor_close(klaw_executor *ex, klaw_deadline deadline,
                                                const char *reason);

/* Counters and state of an executor. */
typedef struct klaw_executor_stats {
    uint64_t id;         /* unique in the process */
    uint64_t scope_id;   /* the scope it runs in */
    uint64_t submitted;  /* tasks accepted; items of maps do not count */
    uint64_t succeeded;  /* ended with OK */
    uint64_t failed;     /* with an error of their own */
    uint64_t cancelled;  /* with CANCELLED */
    uint64_t timed_out;  /* with TIMEOUT */
    uint64_t queued;     /* accepted and not begun */
    uint64_t running;    /* places in use now, those of maps included */
    int64_t concurrency; /* the bound; KLAW_NONE: none */
    char name[32];       /* NUL-terminated */
    bool closed;         /* refuses new tasks */
} klaw_executor_stats;

/* Fills *out, whose numbers belong together. */
KLAW_API void klaw_executor_get_stats(klaw_executor *ex, klaw_executor_stats *out);

/* --- tasks --- */

/* See klaw_submit. */
KLAW_API KLAW_MUST klaw_err klaw_submit_sized(klaw_executor *ex, klaw_fn fn, void *arg,
                                              const klaw_task_opts *opts, size_t opts_size,
                                              klaw_task **out);
/* Hands fn(arg) over; it begins when its turn comes and a place is free. *out (may be NULL: nobody
 * wants to know) is a handle with one reference. Never waits. Errors, after which fn will not run
 * and release is not called: INVALID, CLOSED, STOPPED (the scope has been cancelled or closed),
 * NOMEM. */
static inline KLAW_MUST klaw_err klaw_submit(klaw_executor *ex, klaw_fn fn, void *arg,
                                             const klaw_task_opts *opts, klaw_task **out) {
    return klaw_submit_sized(ex, fn, arg, opts, sizeof(klaw_task_opts), out);
}

/* A further reference. Returns t; NULL allowed. */
KLAW_API klaw_task *klaw_task_ref(klaw_task *t);
/* Gives a reference back; the task goes on. NULL allowed. */
KLAW_API void klaw_task_unref(klaw_task *t);

/* Waits for the task to end. OK: *error is how it ended (OK; the function's error, of the last
 * attempt when it has a retry; CANCELLED; TIMEOUT when its own deadline ended it) and *value what
 * it set, NULL unless it ended with OK; either may be NULL. Any number may join, any number of
 * times. TIMEOUT, EMPTY (NOWAIT), CANCELLED: the task goes on. INVALID (NULL). */
KLAW_API KLAW_MUST klaw_err klaw_task_join(klaw_task *t, klaw_deadline deadline, klaw_err *error,
                                           void **value);
/* Cancels it. Not begun: the function never runs, and the task has ended with CANCELLED when this
 * returns. Running: its waits answer CANCELLED from now on, also in the scopes it opened, and it
 * ends with CANCELLED if that is what the function returns. The first reason (copied, 63 bytes
 * kept; NULL: "cancelled") wins. Ended: nothing happens. NULL allowed. */
KLAW_API void klaw_task_cancel(klaw_task *t, const char *reason);
/* Whether its function is running now. */
KLAW_API bool klaw_task_is_running(klaw_task *t);
/* Why it ended: "ok", "error: NOT_FOUND" and the like, "deadline", or the reason it was cancelled
 * for; NULL while it has not ended. Valid while a reference is held. */
KLAW_API const char *klaw_task_exit_reason(klaw_task *t);
/* Its name. Valid while a reference is held. */
KLAW_API const char *klaw_task_name(klaw_task *t);
/* Its number, unique among the tasks of its executor. */
KLAW_API uint64_t klaw_task_id(klaw_task *t);

/* How one task ended, for klaw_gather. */
typedef struct klaw_task_result {
    klaw_err error; /* as klaw_task_join; EMPTY: it had not ended */
    void *value;
} klaw_task_result;

/* Waits for n tasks, of any executors, and writes the result of each in their order (results may be
 * NULL). Returns OK when all ended with OK, else the error of the first in their order that has
 * one. With cancel_on_error the first one (in time) that ends with an error cancels the rest, and
 * that error is returned; so does a caller that is cancelled or whose deadline passes (CANCELLED,
 * TIMEOUT); either way it waits for all of them. Without it TIMEOUT, CANCELLED and EMPTY (NOWAIT)
 * leave the tasks alone. Handles stay the caller's; one may stand there twice. Errors of its own:
 * INVALID, NOMEM (nothing happened). */
KLAW_API KLAW_MUST klaw_err klaw_gather(klaw_task *const *tasks, size_t n,
                                        klaw_task_result *results, bool cancel_on_error,
                                        klaw_deadline deadline);

/* --- maps --- */

/* The function of a map: reads *item, writes *result, may wait. Its error is a
 * value of that item. */
typedef klaw_err (*klaw_map_fn)(const void *item, void *result, void *arg);
/* The function of a chunked map: does the items begin..end-1. */
typedef klaw_err (*klaw_range_fn)(size_t begin, size_t end, void *arg);

/* Options of klaw_map and klaw_map_range; all zero is the default. */
typedef struct klaw_map_opts {
    /* When the map has to be over; 0: never. */
    klaw_deadline deadline;
    /* Items that are taken at once; 0: found out while it runs, so that taking costs little and
     * nobody is left without work. */
    size_t chunk;
    /* Places of the executor it uses at most; 0: all. */
    uint32_t concurrency;
    /* The first error cancels the rest. */
    bool cancel_on_error;
} klaw_map_opts;

/* See klaw_map. */
KLAW_API KLAW_MUST klaw_err klaw_map_sized(klaw_executor *ex, klaw_map_fn fn, void *arg,
                                           const void *items, size_t item_size, size_t n,
                                           void *results, size_t result_size, klaw_err *errors,
                                           const klaw_map_opts *opts, size_t opts_size);
/* Runs fn on each of n items of item_size bytes at items, and waits for all. The result of item i
 * goes to place i of results (result_size bytes each; NULL with 0: there are none), its error to
 * errors[i] (errors may be NULL). An item that was not begun has CANCELLED or TIMEOUT there.
 * The executor's defaults `retry` and `blocking` apply to each item, the others do not.
 * Returns OK when all items succeeded, else TIMEOUT (deadline), CANCELLED (the caller), or the
 * error of the first item in order that has one other than CANCELLED, else CANCELLED. Errors of its
 * own, nothing was run: INVALID, CLOSED, STOPPED, NOMEM. Takes no memory per item. Never returns
 * while an item runs. */
static inline KLAW_MUST klaw_err klaw_map(klaw_executor *ex, klaw_map_fn fn, void *arg,
                                          const void *items, size_t item_size, size_t n,
                                          void *results, size_t result_size, klaw_err *errors,
                                          const klaw_map_opts *opts) {
    return klaw_map_sized(ex, fn, arg, items, item_size, n, results, result_size, errors, opts,
                          sizeof(klaw_map_opts));
}

/* See klaw_map_range. */
KLAW_API KLAW_MUST klaw_err klaw_map_range_sized(klaw_executor *ex, klaw_range_fn fn, void *arg,
                                                 size_t n, const klaw_map_opts *opts,
                                                 size_t opts_size);
/* The chunked form: fn gets ranges that together are 0..n-1, each number once, in parallel. The
 * executor's defaults `retry` and `blocking` apply to each range. Returns as klaw_map, with the
 * error of the range that begins first. */
static inline KLAW_MUST klaw_err klaw_map_range(klaw_executor *ex, klaw_range_fn fn, void *arg,
                                                size_t n, const klaw_map_opts *opts) {
    return klaw_map_range_sized(ex, fn, arg, n, opts, sizeof(klaw_map_opts));
}

/* --- maps as iterators --- */

typedef struct klaw_imap klaw_imap;

/* Options of klaw_imap_open. The source is an array, or `next` when that is not NULL. */
typedef struct klaw_imap_opts {
    /* Bytes of an item; may be 0. */
    size_t item_size;
    /* Bytes of a result; may be 0. */
    size_t result_size;
    /* The array, which has to live as long as the iterator, and its length. */
    const void *items;
    size_t n;
    /* The source: puts the next item into *item and returns OK; CLOSED: there are no more; any
     * other error ends the source, too, and is what klaw_imap_next returns after the last result.
     * Called by who calls klaw_imap_next; may wait. */
    klaw_err (*next)(void *item, void *user);
    void *user;
    /* Items that have been taken from the source and not yet been given out, at most; 0: 64. */
    uint32_t in_flight;
    /* Results come in the order of the items; else as they finish. */
    bool ordered;
    /* Of each item's task, merged over the executor's defaults; `release` is not used. */
    klaw_task_opts task;
} klaw_imap_opts;

/* What klaw_imap_next says about a result. */
typedef struct klaw_imap_item {
    uint64_t index; /* of the item: 0, 1, … in the order of the source */
    klaw_err error; /* as klaw_task_join; the result counts only with OK */
} klaw_imap_item;

/* See klaw_imap_open. */
KLAW_API KLAW_MUST klaw_err klaw_imap_open_sized(klaw_executor *ex, klaw_map_fn fn, void *arg,
                                                 const klaw_imap_opts *opts, size_t opts_size,
                                                 klaw_imap **out);
/* Makes an iterator over fn's results. Nothing is taken from the source before the first
 * klaw_imap_next. Keeps a reference of the executor. Errors: INVALID, NOMEM. */
static inline KLAW_MUST klaw_err klaw_imap_open(klaw_executor *ex, klaw_map_fn fn, void *arg,
                                                const klaw_imap_opts *opts, klaw_imap **out) {
    return klaw_imap_open_sized(ex, fn, arg, opts, sizeof(klaw_imap_opts), out);
}
/* Fills up what is in flight, waits for the next result and copies it to *result (may be NULL when
 * results have no size or are not wanted) and *item (may be NULL). CLOSED: that was all. TIMEOUT,
 * EMPTY (NOWAIT), CANCELLED: nothing was given out, try again; so is NOMEM, when there is no memory
 * to submit the next item, which is kept, and nothing else is under way. Other errors of submitting
 * (STOPPED: the executor is closed) and of the source come after the results that are under way and
 * then stay. One caller at a time. */
KLAW_API KLAW_MUST klaw_err klaw_imap_next(klaw_imap *it, void *result, klaw_imap_item *item,
                                           klaw_deadline deadline);
/* Cancels what is in flight, waits for it and frees the iterator. NULL allowed. */
KLAW_API void klaw_imap_close(klaw_imap *it);

KLAW_END

#endif
