/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.h - workflows: a program of named steps whose results are kept in a store, so that it goes
 * on where it was after kill -9, a power cut or a bug.
 *
 * A step whose result was kept never runs again: asking for it gives the kept result. A step that was
 * under way when the process died runs again, so its side effects happen at least once; make them
 * harmless to repeat (klaw_step_id is made for that). One process at a time runs a workflow: it holds
 * a lease, renewed by a thread of the library. When it dies its lease ends and whoever opens the
 * workflow resumes it. A runner that lost its lease (it was stopped for too long, or somebody took
 * over) is fenced: its results are refused, its waits are cancelled, its calls answer STOPPED.
 *
 * Within one boot of a machine leases are measured by the time since boot; between boots by the wall
 * clock. A clock that jumps may end a lease early or late; it never lets two runners keep results,
 * because the transaction that keeps one looks for the runner's own token.
 *
 * Every call here may wait for the disk, and is a cancel point only where it says so. From a fiber (it
 * parks) or a plain thread; one handle may be used by many at once. */
#ifndef KLAW_WORKFLOW_H
#define KLAW_WORKFLOW_H

#include "klaw/store.h"
#include "klaw/type.h"
#include "klaw/workflow_policy.h"

KLAW_BEGIN

typedef struct klaw_workflow klaw_workflow;
typedef struct klaw_step klaw_step;

/* Options of klaw_workflow_open; all zero is the default. */
typedef struct klaw_workflow_opts {
    /* Names of the steps in order: then the list is part of what is recorded, and a resume with
     * another one is refused. NULL: steps are recorded as they come (see klaw_step_decide). Copied. */
    const char *const *steps;
    size_t n_steps;
    /* Of the definition, at most 63 bytes: a resume with another one is refused, too. NULL: "". */
    const char *version;
    /* How long the lease lasts without being renewed, in ns; 0: 30 s; at least 50 ms, at most 1 day,
     * else INVALID. It is renewed three times as often. */
    int64_t lease;
    /* No step starts after it, steps under way are cancelled (where a runtime runs); 0: none. */
    klaw_deadline deadline;
    /* How long to wait while somebody else runs it; 0: not at all. */
    klaw_deadline wait;
    bool allow_changes; /* a changed list or version is taken; results kept by name stay */
    bool takeover;      /* take it from whoever runs it now: that one is fenced */
    bool uncancel;      /* resume it though it was cancelled */
} klaw_workflow_opts;

/* See klaw_workflow_open. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_open_sized(klaw_store *store, const char *name,
                                                     const klaw_workflow_opts *opts,
                                                     size_t opts_size, klaw_workflow **out,
                                                     klaw_error_info *info);

/* Begins a workflow, or resumes it: after a crash, a close, a failure. One that is DONE opens too, to
 * read its results. The store must stay open until klaw_workflow_close. `info` may be NULL.
 * Errors: EXISTS (somebody runs it: info->message names host and process) and TIMEOUT (and still does
 * after opts->wait); INVALID (a bad argument; or the list or version has changed: info->message names
 * the difference); CANCELLED (it was cancelled, or the caller's scope is, while it waits); CORRUPT
 * (its record is damaged); NOMEM; what the store answers, with the file's name. */
static inline KLAW_MUST klaw_err klaw_workflow_open(klaw_store *store, const char *name,
                                                    const klaw_workflow_opts *opts,
                                                    klaw_workflow **out, klaw_error_info *info) {
    return klaw_workflow_open_sized(store, name, opts, sizeof(klaw_workflow_opts), out, info);
}

/* What a step runs, on the caller's fiber or thread. OK: *result (NULL at the call: no bytes) is kept,
 * and the reference in it is the library's. Anything else is a failed attempt; what is in *result is
 * dropped. Where a runtime runs, it is called inside a scope of its own, which is cancelled when its
 * time is up, when the workflow is cancelled and when the lease is lost. */
typedef klaw_err (*klaw_step_fn)(klaw_step *step, void *arg, klaw_blob **result);

/* Options of klaw_workflow_step; all zero is the default. */
typedef struct klaw_step_opts {
    klaw_step_retry retry; /* attempts (0: 1) and the backoff between them; counted anew each run */
    int64_t timeout;       /* ns for one attempt; 0: none */
    klaw_deadline deadline; /* for all attempts; 0: none */
    /* Whether an error is worth another attempt; NULL: klaw_retry_default. CANCELLED never is. */
    bool (*retry_on)(klaw_err error, void *arg);
    /* The start is not recorded, which halves what is written: for many short steps. Then an attempt that
     * a crash cut is not counted, and klaw_workflow_inspect does not show the step while it runs. */
    bool unrecorded_start;
} klaw_step_opts;

/* See klaw_workflow_step. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_step_sized(klaw_workflow *wf, const char *name,
                                                     klaw_step_fn fn, void *arg,
                                                     const klaw_step_opts *opts, size_t opts_size,
                                                     klaw_blob **result, klaw_error_info *info);

/* Runs one step, unless its result is kept; in both cases *result (may be NULL) is a reference of the
 * caller's. The start is recorded before fn runs (unless the options say otherwise), the result after it in one transaction: when this
 * returns OK, it survives a power cut. A cancel point between attempts.
 * Errors: what fn returned last, recorded in the log (the step may be asked for again); TIMEOUT (an
 * attempt's or the step's or the workflow's time was up); CANCELLED; STOPPED (the lease is lost, or
 * the workflow was deleted: fn did not run, or its result was not kept); INVALID (a bad argument; not
 * declared; asked for twice in one run; the workflow is DONE; the list has changed: info->message says
 * which); CORRUPT; NOMEM; LIMIT (a result over KLAW_STORE_VALUE_MAX); what the store answers, with the file's name:
 * then fn may have run and its result is not kept, so the step runs again when it is asked for. */
static inline KLAW_MUST klaw_err klaw_workflow_step(klaw_workflow *wf, const char *name,
                                                    klaw_step_fn fn, void *arg,
                                                    const klaw_step_opts *opts, klaw_blob **result,
                                                    klaw_error_info *info) {
    return klaw_workflow_step_sized(wf, name, fn, arg, opts, sizeof(klaw_step_opts), result, info);
}

/* Inside fn: the step's name. */
KLAW_API const char *klaw_step_name(const klaw_step *s);
/* Inside fn: 1 for the first attempt of all runs, 2, … */
KLAW_API uint32_t klaw_step_attempt(const klaw_step *s);
/* Inside fn: when this attempt's time is up; KLAW_FOREVER when never. */
KLAW_API klaw_deadline klaw_step_deadline(const klaw_step *s);
/* Inside fn: whether it should give up: time is up, cancelled, lease lost. For code that computes or
 * runs on a plain thread; waits notice by themselves where a runtime runs. */
KLAW_API bool klaw_step_cancelled(const klaw_step *s);
/* Inside fn: text that names this step of this workflow in this store for ever, the same in each
 * attempt and run, e.g. as an idempotency key. */
KLAW_API const char *klaw_step_id(const klaw_step *s);
/* Inside fn: says why it fails; kept in the log beside the error (255 bytes). */
KLAW_API void klaw_step_explain(klaw_step *s, const char *fmt, ...) KLAW_PRINTF(2, 3);
/* Inside fn: the workflow. */
KLAW_API klaw_workflow *klaw_step_workflow(const klaw_step *s);

/* The kept result of a step; *result is a reference of the caller's. Errors: NOT_FOUND (no result is
 * kept), STOPPED (deleted), CORRUPT, NOMEM, the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_kept(klaw_workflow *wf, const char *step,
                                               klaw_blob **result, klaw_error_info *info);

/* Ends it: DONE, with these bytes as its result (NULL: none). The lease is given back; the handle
 * only reads from here on. When it was opened DONE: OK and nothing changes.
 * Errors: STOPPED (lease lost, deleted); INVALID (steps are recorded that this run never asked for,
 * and no list was declared); EXISTS (a step is running); LIMIT, NOMEM, the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_finish(klaw_workflow *wf, klaw_blob *result,
                                                 klaw_error_info *info);
/* Ends this run: FAILED, with an error (not OK, else INVALID) and a message (NULL: the error's text).
 * The lease is given back; opening it again resumes it. Errors as finish. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_fail(klaw_workflow *wf, klaw_err error,
                                               const char *message, klaw_error_info *info);
/* The result of a workflow that is DONE; *result is a reference of the caller's. NOT_FOUND when it is
 * not; else as klaw_workflow_kept. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_result(klaw_workflow *wf, klaw_blob **result,
                                                 klaw_error_info *info);
/* Whether it was DONE when opened or has been finished since. */
KLAW_API bool klaw_workflow_done(const klaw_workflow *wf);
/* Gives the lease back, if this run still holds it (a store that fails here only makes it last until
 * its end), and the handle. The workflow stays resumable. No step may be running. NULL is allowed. */
KLAW_API void klaw_workflow_close(klaw_workflow *wf);

/* --- the declarative form --- */

/* One step of klaw_workflow_run. */
typedef struct klaw_step_def {
    const char *name;
    klaw_step_fn fn;
    klaw_step_opts opts;
} klaw_step_def;

/* See klaw_workflow_run. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_run_sized(klaw_store *store, const char *name,
                                                    const klaw_step_def *steps, size_t n,
                                                    size_t step_size, void *arg,
                                                    const klaw_workflow_opts *opts,
                                                    size_t opts_size, klaw_blob **result,
                                                    klaw_error_info *info);

/* Opens the workflow with these steps as its declared list (opts->steps must be NULL), runs those that
 * have no result one after the other, each with the same arg (earlier results by klaw_workflow_kept),
 * and finishes with the last one's result. *result (may be NULL) is a reference of the caller's. A step
 * that fails for good makes it FAILED, and its error is what this returns; after anything else (cancelled,
 * the workflow's time is up, the store fails) it stays as it is. Either way it is resumable. Errors as
 * open, step and finish. */
static inline KLAW_MUST klaw_err klaw_workflow_run(klaw_store *store, const char *name,
                                                   const klaw_step_def *steps, size_t n, void *arg,
                                                   const klaw_workflow_opts *opts,
                                                   klaw_blob **result, klaw_error_info *info) {
    return klaw_workflow_run_sized(store, name, steps, n, sizeof(klaw_step_def), arg, opts,
                                   sizeof(klaw_workflow_opts), result, info);
}

/* --- looking after them: from any process that can open the store --- */

/* A workflow as recorded. Times are wall-clock ns since 1970, 0: not yet. */
typedef struct klaw_workflow_info {
    char name[KLAW_WORKFLOW_NAME_MAX + 1];
    char version[KLAW_WORKFLOW_VERSION_MAX + 1];
    klaw_workflow_state state;
    bool declared;         /* with a list of steps */
    bool cancel_requested; /* and not noticed yet */
    bool leased;           /* somebody runs it: the lease is not over */
    int64_t lease_left;    /* ns; 0 when not leased */
    char owner_host[64];   /* who ran it last, or runs it */
    int64_t owner_pid;
    char owner_id[33]; /* random, another one each time it is opened */
    uint64_t token;    /* fences: one more each time it is opened to run, or evicted */
    int64_t created;
    int64_t updated; /* last change of any kind; renewals do not count */
    int64_t finished;
    uint64_t steps; /* recorded */
    uint64_t steps_done;
    uint64_t result_size; /* bytes */
    klaw_err error;       /* of FAILED */
    char message[256];    /* why it failed, or was cancelled */
} klaw_workflow_info;

/* A step as recorded. Times as above. */
typedef struct klaw_step_info {
    char name[KLAW_WORKFLOW_NAME_MAX + 1];
    klaw_step_state state;
    bool dropped;      /* no longer in the declared list; its result is kept all the same */
    uint32_t attempts; /* in all runs */
    int64_t started;   /* the last attempt */
    int64_t finished;  /* the last attempt */
    uint64_t result_size;
    klaw_err error; /* of the last attempt */
    char message[256];
} klaw_step_info;

/* All workflows whose name begins with `prefix` (NULL: all), by name. *out is the caller's, to be given
 * to klaw_workflow_info_free. Errors: INVALID, CORRUPT, NOMEM, the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_list_all(klaw_store *store, const char *prefix,
                                                   klaw_workflow_info **out, size_t *n,
                                                   klaw_error_info *info);
/* One workflow, and its steps in order unless `steps` is NULL; *steps is the caller's, to be given to
 * klaw_step_info_free. Errors: NOT_FOUND, INVALID, CORRUPT, NOMEM, the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_inspect(klaw_store *store, const char *name,
                                                  klaw_workflow_info *out, klaw_step_info **steps,
                                                  size_t *n, klaw_error_info *info);
/* Frees a list. NULL allowed. */
KLAW_API void klaw_workflow_info_free(klaw_workflow_info *list);
/* Frees a list. NULL allowed. */
KLAW_API void klaw_step_info_free(klaw_step_info *list);

/* Cancels it. When somebody runs it, that one notices at its next step or renewal and its waits are
 * cancelled; a step that completes all the same is kept. Otherwise it is CANCELLED at once. `reason`
 * (NULL: "cancelled") is kept, 255 bytes. OK also when it was cancelled before. Errors: NOT_FOUND;
 * INVALID (it is DONE); the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_cancel(klaw_store *store, const char *name,
                                                 const char *reason, klaw_error_info *info);
/* Ends the lease, whoever holds it: that one is fenced, and the workflow can be opened at once. For a
 * runner that is known to be dead or stuck before its lease ends. OK also when nobody holds it.
 * Errors: NOT_FOUND, the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_evict(klaw_store *store, const char *name,
                                                klaw_error_info *info);
/* Deletes it with all its results. Errors: NOT_FOUND; EXISTS while somebody runs it, unless `force`:
 * then that one is fenced; the store's. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_delete(klaw_store *store, const char *name, bool force,
                                                 klaw_error_info *info);

KLAW_END

#endif
