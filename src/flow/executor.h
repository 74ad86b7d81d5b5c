/* SPDX-License-Identifier: Apache-2.0 */
/* executor.h - executors and tasks, as the files of this layer share them.
 *
 * Field marks: (c) constant after creation, (a) atomic, (L) the executor's lock, (o) owner only. */
#ifndef KLAWI_EXECUTOR_H
#define KLAWI_EXECUTOR_H

#include "klaw/executor.h"
#include "sched/context.h"
#include "sched/sched.h"

typedef struct klawi_runner klawi_runner;
typedef struct klawi_watch klawi_watch;
typedef struct klawi_job klawi_job;

/* NEW: taken, not yet in the queue. A task that is cancelled before it began is DONE and goes from
 * the queue to the graves, where a runner gives its arg back. */
enum klawi_task_state { KLAWI_T_FREE, KLAWI_T_NEW, KLAWI_T_QUEUED, KLAWI_T_RUNNING, KLAWI_T_DONE };

#define KLAWI_TF_MORE 1u     /* more is filled in */
#define KLAWI_TF_RETRY 2u    /* more->retry */
#define KLAWI_TF_BLOCKING 4u /* by klaw_blocking */
#define KLAWI_TF_TIMER 8u    /* more->timer has been armed */
#define KLAWI_TF_JOB 16u     /* the entry of a map, on its caller's stack */
/* The other word: */
#define KLAWI_TA_CANCELLED 1u /* somebody asked for it; the first reason stands */
#define KLAWI_TA_LATE 2u      /* with CANCELLED: its deadline asked */
#define KLAWI_TA_REASON 4u    /* more->reason */
#define KLAWI_TF_CALL (KLAWI_TF_RETRY | KLAWI_TF_BLOCKING)

/* What few tasks need; kept apart so that the others stay small. */
typedef struct klawi_task_more {
    klaw_timer timer;
    klaw_retry_opts retry;      /* (c) */
    void (*release)(void *arg); /* (c) */
    char name[KLAWI_NAME_MAX];  /* (c) */
    char reason[64];            /* (L) */
} klawi_task_more;

struct klaw_task {
    klawi_link link;        /* (L) in the queue; next NULL: not; free list by next */
    klaw_fn fn;             /* (c) */
    void *arg;              /* (c) */
    void *value;            /* (L) until DONE, then (c) */
    klawi_runner *runner;   /* (L) who runs it and may be cancelled for it */
    klaw_executor *ex;      /* (c) */
    klaw_context *context;  /* (o) a reference */
    klawi_task_more *more;  /* (c) */
    klawi_waitq joiners;    /* (L) */
    klawi_watch *watches;   /* (L) gathers and iterators that want to know */
    uint64_t id;            /* (L) */
    _Atomic uint32_t state; /* (L) written; DONE is released after the result */
    int32_t error;          /* (L) until DONE, then (c) */
    uint32_t refs;          /* (L) handles, and 1 of the executor */
    uint32_t flags;         /* (c) KLAWI_TF_* */
    uint32_t asked;         /* (L) KLAWI_TA_* */
};

/* A fiber that runs tasks, one after the other; on its stack. */
struct klawi_runner {
    klawi_link link;   /* (L) in ex->runners */
    klaw_executor *ex; /* (c) */
    klaw_fiber *fiber; /* (c) */
    klaw_task *task;   /* (L) what it runs */
    klawi_job *job;    /* (L) or the map it works for */
    uint32_t pins;     /* (L) cancellers under way: it may not go on to something else */
    bool tainted;      /* (L) its fiber has been cancelled for the sake of what it runs */
};

struct klaw_executor {
    klawi_lock lock;
    uint32_t refs;            /* (L) handles */
    uint32_t limit;           /* (c) runners at most */
    uint32_t running;         /* (L) runners, the fresh ones included */
    uint32_t fresh;           /* (L) runners that have been spawned and have taken nothing yet */
    bool closed;              /* (L) */
    klawi_link queue;         /* (L) tasks and entries of maps, by link */
    klawi_link graves;        /* (L) tasks that ended before they began */
    klawi_link runners;       /* (L) */
    klawi_waitq idle;         /* (L) who waits for pending == 0 */
    uint64_t pending;         /* (L) accepted and not over, tasks and maps */
    uint64_t taken;           /* (L) tasks not in the free list */
    klaw_task *free;          /* (L) */
    struct klawi_slab *slabs; /* (L) */
    uint64_t next_task;       /* (L) */
    uint64_t queued;          /* (L) tasks in the queue */
    /* (L) */
    uint64_t submitted, succeeded, failed, cancelled, timed_out;
    klaw_scope *scope;              /* (c) a reference */
    size_t stack_size;              /* (c) of its fibers */
    klawi_link live;                /* (registry lock) */
    uint64_t id;                    /* (c) */
    klaw_task_opts task;            /* (c) defaults; retry points to the copy below */
    klaw_retry_opts retry;          /* (c) */
    char task_name[KLAWI_NAME_MAX]; /* (c) */
    char name[KLAWI_NAME_MAX];      /* (c) */
};

/* --- executor.c --- */
/* After something of the executor has gone, under the lock: whether it was the last. Then
 * klawi_executor_free, without. */
static inline bool klawi_executor_unused(const klaw_executor *ex) {
    return ex->refs == 0 && ex->running == 0 && ex->taken == 0 && ex->pending == 0;
}
void klawi_executor_free(klaw_executor *ex);
/* Claims everyone in q. Under the queue's lock. */
void klawi_claim_waiters(klawi_waitq *q, klawi_wakes *wakes);
/* pending goes down by one; wakes who waits for 0. Under the lock. */
void klawi_executor_settle(klaw_executor *ex, klawi_wakes *wakes);
/* Fills *out, zeroed. Under the lock. */
void klawi_executor_stats(klaw_executor *ex, klaw_executor_stats *out);
/* Calls visit for every live executor, under its lock. */
void klawi_executors_each(void (*visit)(klaw_executor *ex, void *user), void *user);
/* Calls visit for every task of ex that is queued or runs (maps are none). Under its lock. */
void klawi_tasks_each(klaw_executor *ex, void (*visit)(const klaw_task *t, void *user), void *user);

/* --- task.c --- */
/* As klaw_submit, all of the options given; without `releases` no release is called. */
klaw_err klawi_submit(klaw_executor *ex, klaw_fn fn, void *arg, const klaw_task_opts *opts,
                      bool releases, klaw_task **out);
/* The task ends: result, counters, joiners, watches. Under the lock. */
void klawi_task_end(klaw_task *t, klaw_err error, klawi_wakes *wakes);
/* The executor has done with it: nothing of a runner touches it any more. Under the lock. */
void klawi_task_drop(klaw_task *t, klawi_wakes *wakes);
/* The options over the executor's defaults. INVALID. */
klaw_err klawi_task_opts_merge(const klaw_executor *ex, const klaw_task_opts *opts, size_t size,
                               klaw_task_opts *out);
void klawi_slabs_free(struct klawi_slab *s);
/* Waits, whatever happens, until it has ended. */
void klawi_task_await(klaw_task *t);
/* The text is copied unless one is there. Under the lock. */
void klawi_task_reason(klaw_task *t, const char *reason);
/* Cancels; `late` is 0 or KLAWI_TA_LATE. */
void klawi_task_cancel(klaw_task *t, const char *reason, uint32_t late);
const char *klawi_task_name(const klaw_task *t);

/* --- runner.c --- */
/* Under the lock, after something came into the queue: whether a runner has to be spawned; it is
 * counted already. */
static inline bool klawi_runner_wanted(klaw_executor *ex) {
    if (ex->fresh > 0 || ex->running >= ex->limit ||
        (klawi_link_empty(&ex->queue) && klawi_link_empty(&ex->graves)))
        return false;
    ex->fresh++;
    ex->running++;
    return true;
}
/* Spawns the runner that was wanted. No lock held. When it can't be had and there is no other one,
 * what is queued ends with the error; `mine` (may be NULL), if it is still queued, is only taken
 * out, and the error is returned: else OK. `next`: it runs as soon as the caller waits. */
klaw_err klawi_runner_spawn(klaw_executor *ex, klaw_task *mine, bool next);
/* Cancels the fiber of a runner for the sake of what it runs. Under the lock, which is released and
 * taken again; the runner stays with it meanwhile. */
void klawi_runner_cancel(klawi_runner *r);
/* The runner has done with what it ran: waits for its cancellers, undoes a cancellation. Under the
 * lock, which may be released and taken again; task and job are NULL afterwards. */
void klawi_runner_done(klawi_runner *r);

/* --- map.c --- */
/* Works for a map as long as there is something to take. Under the lock, which is released and
 * taken again; the map may be gone afterwards. */
void klawi_job_run(klawi_runner *r, klaw_task *entry);
/* Ends a map early: nothing more of it is begun, its runners are cancelled but `except`. Under the
 * lock, which is released and taken again; the caller keeps the map alive. */
void klawi_job_stop(klawi_job *j, klaw_err why, klawi_runner *except);
/* Ends every map of ex. No lock held. */
void klawi_jobs_stop(klaw_executor *ex);
klawi_job *klawi_job_of(klaw_task *entry);

/* --- gather.c: who waits for several tasks --- */
typedef struct klawi_group {
    klawi_lock lock;
    klawi_watch *first, **last; /* (group's lock) tasks that have ended, in that order */
    klawi_waitq waiting;        /* (group's lock) at most one */
} klawi_group;
struct klawi_watch {
    klawi_watch *next; /* (L) in task->watches; then (group's lock) in group->first */
    klawi_group *group;
    klaw_task *task;
    bool listed; /* (L) in task->watches */
};
void klawi_group_init(klawi_group *g);
/* w will come to g when t ends, or at once. */
void klawi_watch_add(klawi_watch *w, klaw_task *t, klawi_group *g);
/* It will not come, or has come already. */
void klawi_watch_remove(klawi_watch *w);
/* Tells t's watches. Under t's executor's lock. */
void klawi_watches_tell(klaw_task *t, klawi_wakes *wakes);
/* The next task that has ended. OK, TIMEOUT, EMPTY (NOWAIT), CANCELLED. */
klaw_err klawi_group_next(klawi_group *g, klaw_deadline deadline, bool shielded, klawi_watch **out);

/* --- inspect.c --- */
/* Registers the providers. Called by name, so that the static library links it. */
void klawi_inspect_flow(void);
/* Tasks of somebody else, behind the n that are in `out`; NULL: none. Set once by a higher layer. */
extern size_t (*_Atomic klawi_more_tasks)(void *out, size_t max, size_t n);

#endif
