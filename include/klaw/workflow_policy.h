/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_policy.h - the decisions of workflows as pure functions: who may run one, which step
 * resumes, whether the list of steps has changed, when a failed step is tried again.
 *
 * No thread, no clock, no I/O: time and chance come in as arguments. Whoever keeps a log of steps and
 * a lease (klaw/workflow.h on the store, an asyncio program, Ray tasks) asks these and does what they
 * say, inside one transaction of its log. All of it may be called from anywhere. */
#ifndef KLAW_WORKFLOW_POLICY_H
#define KLAW_WORKFLOW_POLICY_H

#include "klaw/policy.h"
#include "klaw/time.h"

KLAW_BEGIN

/* The longest name of a workflow or step, and the longest version, in bytes without the NUL. */
#define KLAW_WORKFLOW_NAME_MAX 255
/* As above. */
#define KLAW_WORKFLOW_VERSION_MAX 63

/* Where a workflow is. Numbers are stored and never change. */
typedef enum klaw_workflow_state {
    KLAW_WORKFLOW_RUNNING = 0,  /* begun and not ended; whether somebody is at it, the lease says */
    KLAW_WORKFLOW_DONE = 1,     /* finished; its result is kept */
    KLAW_WORKFLOW_FAILED = 2,   /* given up with an error; opening it resumes it */
    KLAW_WORKFLOW_CANCELLED = 3 /* somebody cancelled it; opening it is refused unless asked for */
} klaw_workflow_state;

/* Where a step is. Numbers are stored and never change. */
typedef enum klaw_step_state {
    KLAW_STEP_PENDING = 0, /* never started */
    KLAW_STEP_STARTED =
        1,                /* started; an end was not recorded: it runs, or its process died in it */
    KLAW_STEP_FAILED = 2, /* its last attempt failed */
    KLAW_STEP_DONE = 3    /* its result is kept: it never runs again */
} klaw_step_state;

/* "workflow running", …: one lower-case word each; "?" for a number that is none. Static. */
KLAW_API const char *klaw_workflow_state_name(klaw_workflow_state s);
/* As above, for a step. */
KLAW_API const char *klaw_step_state_name(klaw_step_state s);

/* --- names and lists --- */

/* A list of steps: as recorded, or as declared now. */
typedef struct klaw_workflow_list {
    const char *const *names; /* n of them, distinct */
    size_t n;
    const char *version; /* of the definition, any text; NULL: "" */
} klaw_workflow_list;

/* Whether a name may be one: 1 to KLAW_WORKFLOW_NAME_MAX bytes, no control characters. */
KLAW_API bool klaw_workflow_name_ok(const char *name);
/* Whether a list may be declared: good names, no two the same, a version of printable text that is not
 * too long. OK; INVALID, with *bad (may be NULL) the first index that is wrong, n for the version;
 * NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_workflow_list_check(const klaw_workflow_list *list, size_t *bad);

/* How a declared list differs from the recorded one. */
typedef enum klaw_workflow_change {
    KLAW_WORKFLOW_SAME = 0,
    KLAW_WORKFLOW_ADDED = 1,   /* declared[at] is new */
    KLAW_WORKFLOW_REMOVED = 2, /* recorded[at] is gone */
    KLAW_WORKFLOW_RENAMED = 3, /* at `at` one is gone and a new one stands in its place */
    KLAW_WORKFLOW_MOVED = 4,   /* the same names in another order, from `at` on */
    KLAW_WORKFLOW_VERSION = 5  /* the same names, another version of the definition */
} klaw_workflow_change;

/* The first difference. */
typedef struct klaw_workflow_diff {
    klaw_workflow_change change;
    size_t at; /* an index, from 0 */
} klaw_workflow_diff;

/* The first difference between two lists; linear in their length. */
KLAW_API klaw_workflow_diff klaw_workflow_compare(const klaw_workflow_list *recorded,
                                                  const klaw_workflow_list *declared);
/* Says it for people, e.g. `step 2 was "fetch" and is "load" now`; at most `size` bytes with the NUL,
 * cut to fit. Returns the length of what was written. */
KLAW_API size_t klaw_workflow_diff_text(klaw_workflow_diff diff, const klaw_workflow_list *recorded,
                                        const klaw_workflow_list *declared, char *buf, size_t size);

/* The step that resumes: the first that is not DONE; n when all are. */
KLAW_API size_t klaw_workflow_next(const klaw_step_state *states, size_t n);

/* --- leases --- */

/* The clocks of a machine at one moment. Within one boot the time since boot counts, because nobody
 * can set it; between boots and machines only the wall clock is left. */
typedef struct klaw_lease_clock {
    char boot[40];      /* what tells boots apart, e.g. Linux's boot_id; "": not known */
    int64_t since_boot; /* ns, suspended time included */
    int64_t wall;       /* ns since 1970 */
} klaw_lease_clock;

/* What is known about the process that holds a lease. */
typedef enum klaw_lease_owner {
    KLAW_OWNER_UNKNOWN = 0, /* on another machine, in another container, or not looked for */
    KLAW_OWNER_ALIVE = 1,   /* it is there; that does not make its lease longer */
    KLAW_OWNER_DEAD = 2     /* it is certainly gone: its lease is over at once */
} klaw_lease_owner;

/* A lease. `token` fences: it goes up with every grant, and a result is kept only by the transaction
 * that still finds its own token. That, and not the clock, is what keeps two runners apart. */
typedef struct klaw_lease {
    int64_t duration; /* ns; 0: nobody holds it */
    char boot[40];    /* klaw_lease_clock.boot of the grant */
    int64_t until_boot;
    int64_t until_wall;
    uint64_t token; /* stays when the lease is given back */
} klaw_lease;

/* A lease of `duration` ns (> 0) from `clock` on. */
KLAW_API klaw_lease klaw_lease_grant(const klaw_lease_clock *clock, int64_t duration,
                                     uint64_t token);
/* How long it lasts yet, in ns; 0: it may be taken over now. Never more than twice its duration: a
 * clock that shows more has been set back by more than a whole lease, and then it is over. */
KLAW_API int64_t klaw_lease_remaining(const klaw_lease *lease, const klaw_lease_clock *clock,
                                      klaw_lease_owner owner);
/* ns until the holder should renew it: when two thirds of it are left. 0: now. */
KLAW_API int64_t klaw_lease_renew_in(const klaw_lease *lease, const klaw_lease_clock *clock);

/* --- opening --- */

/* What the log says of a workflow. */
typedef struct klaw_workflow_head {
    bool exists;
    klaw_workflow_state state;
    bool cancel; /* somebody asked for it and the runner has not noticed */
    klaw_lease lease;
} klaw_workflow_head;

/* What the one who opens it asks for. */
typedef struct klaw_workflow_wish {
    bool allow_changes; /* take the new list */
    bool takeover;      /* take the lease even if it is not over */
    bool uncancel;      /* resume a cancelled one */
} klaw_workflow_wish;

/* What opening does. */
typedef enum klaw_workflow_opening {
    KLAW_OPENING_CREATE = 0,    /* nothing is recorded: begin */
    KLAW_OPENING_RESUME = 1,    /* nobody holds it: grant a lease, token + 1 */
    KLAW_OPENING_TAKE_OVER = 2, /* somebody holds it no longer, or must not: the same */
    KLAW_OPENING_READ = 3,      /* it is DONE: results may be read, no lease */
    KLAW_OPENING_BUSY = 4,      /* somebody runs it: refuse, or wait */
    KLAW_OPENING_CANCELLED = 5, /* refuse */
    KLAW_OPENING_CHANGED = 6    /* the list has changed: refuse */
} klaw_workflow_opening;

/* Decides. `change` is klaw_workflow_compare's (SAME when no list is declared and the version is the
 * recorded one). *wait (may be NULL) is how long the lease lasts when BUSY, else 0. */
KLAW_API klaw_workflow_opening klaw_workflow_open_decide(const klaw_workflow_head *head,
                                                         klaw_workflow_change change,
                                                         klaw_workflow_wish wish,
                                                         const klaw_lease_clock *clock,
                                                         klaw_lease_owner owner, int64_t *wait);

/* --- steps --- */

/* The run that asks for a step. */
typedef struct klaw_workflow_run_view {
    bool declared;      /* steps were declared: others do not exist */
    bool allow_changes; /* as when opened */
    bool read_only;     /* opened READ */
    bool lost;          /* the lease is somebody else's, or the workflow is deleted */
    bool cancelled;     /* by somebody, or the caller's scope */
    bool late;          /* the workflow's deadline has passed */
    size_t unasked;     /* recorded steps this run has not asked for */
} klaw_workflow_run_view;

/* The step that is asked for. */
typedef struct klaw_step_view {
    bool known;            /* declared; without a list: recorded */
    klaw_step_state state; /* PENDING when not recorded */
    bool running;          /* in this run, now */
    bool asked;            /* for the second time in this run, and the first one ended */
} klaw_step_view;

/* What to do with it. */
typedef enum klaw_step_verdict {
    KLAW_STEP_RUN = 0,        /* record a start and run it; klaw_workflow_finish_decide: go on */
    KLAW_STEP_REPLAY = 1,     /* hand out the kept result */
    KLAW_STEP_LOST = 2,       /* refuse: another process runs this workflow */
    KLAW_STEP_CANCELLED = 3,  /* refuse */
    KLAW_STEP_TWICE = 4,      /* refuse: this run has its result already, or is at it */
    KLAW_STEP_ENDED = 5,      /* refuse: the workflow is DONE and this step has no result */
    KLAW_STEP_UNDECLARED = 6, /* refuse: not in the list */
    KLAW_STEP_CHANGED = 7,    /* refuse: new, while recorded ones were not asked for */
    KLAW_STEP_TIMEOUT = 8     /* refuse: too late to start */
} klaw_step_verdict;

/* Decides. Without a declared list a change is noticed here: a step that is not recorded, asked for
 * while recorded ones have not been, stands before them in the program and did not when they ran.
 * (Steps that run at the same time come in any order: declare them.) */
KLAW_API klaw_step_verdict klaw_step_decide(const klaw_workflow_run_view *run,
                                            const klaw_step_view *step);
/* Whether the run may finish: RUN, LOST, ENDED (read only), or CHANGED when steps are recorded that
 * it never asked for and no list is declared. A cancellation that comes after the last step does not
 * stop it. */
KLAW_API klaw_step_verdict klaw_workflow_finish_decide(const klaw_workflow_run_view *run);

/* How often a step is tried; all zero is the default. */
typedef struct klaw_step_retry {
    uint32_t attempts;    /* in one run, the first included; 0: 1; UINT32_MAX: no end */
    klaw_backoff backoff; /* before the second and later ones */
} klaw_step_retry;

/* After `failures` (1, 2, …) failed attempts of this run, the last with `error`: true, and *at when
 * the next one starts; false: give up (enough attempts; the error is CANCELLED; it would start at or
 * after `deadline`). Times are absolute, of one clock; `random` is 64 random bits. */
KLAW_API bool klaw_step_retry_decide(const klaw_step_retry *retry, uint32_t failures,
                                     klaw_err error, int64_t now, klaw_deadline deadline,
                                     uint64_t random, int64_t *at);

KLAW_END

#endif
