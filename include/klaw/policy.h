/* SPDX-License-Identifier: Apache-2.0 */
/* policy.h - decisions as pure state machines: backoff and supervision.
 *
 * No thread, no clock, no I/O in here: time and chance come in as arguments, what has to be done comes
 * out as actions, and whoever holds the machine (a fiber, an asyncio task, a Ray actor) carries them
 * out. None of it locks: one host drives a machine at a time. Times are nanoseconds of any monotonic
 * clock, the same one for every call on a machine. */
#ifndef KLAW_POLICY_H
#define KLAW_POLICY_H

#include "klaw/err.h"

KLAW_BEGIN

/* --- backoff: how long to wait before the next attempt --- */

/* How delays grow. */
typedef enum klaw_backoff_kind {
    KLAW_BACKOFF_EXPONENTIAL = 0, /* base, base * factor, base * factor^2, … */
    KLAW_BACKOFF_CONSTANT = 1,    /* base each time */
    KLAW_BACKOFF_LINEAR = 2       /* base, 2 * base, 3 * base, … */
} klaw_backoff_kind;

/* How chance spreads a delay d, so that many who failed at once do not come back at once. */
typedef enum klaw_jitter {
    KLAW_JITTER_FULL = 0,  /* uniform in 0..d */
    KLAW_JITTER_NONE = 1,  /* d */
    KLAW_JITTER_EQUAL = 2, /* uniform in d/2..d */
} klaw_jitter;

/* A backoff; all zero is the default: exponential from 100 ms, doubling, at most 30 s, full jitter. */
typedef struct klaw_backoff {
    klaw_backoff_kind kind;
    klaw_jitter jitter;
    int64_t base;      /* ns; 0: 100 ms; KLAW_NONE: no delay at all */
    int64_t max_delay; /* ns; 0: 30 s; KLAW_NONE: no bound */
    double factor;     /* of EXPONENTIAL, at least 1; 0: 2 */
} klaw_backoff;

/* OK, or INVALID: a kind or jitter that is none, a negative time other than KLAW_NONE, a factor below
 * 1 or not finite. */
KLAW_API KLAW_MUST klaw_err klaw_backoff_check(const klaw_backoff *b);
/* The delay in ns before attempt `attempt` + 1, after `attempt` (1, 2, …) failures; `random` is 64
 * random bits. NULL: the default backoff. Never negative, never overflows. */
KLAW_API int64_t klaw_backoff_delay(const klaw_backoff *b, uint32_t attempt, uint64_t random);

/* --- supervision --- */

/* Which children are restarted when one of them ends. */
typedef enum klaw_strategy {
    KLAW_ONE_FOR_ONE = 0,  /* that one */
    KLAW_ONE_FOR_ALL = 1,  /* all of them: the others are stopped first */
    KLAW_REST_FOR_ONE = 2, /* that one and those started after it */
    KLAW_DYNAMIC = 3       /* any number of children of one definition; each for itself, no order */
} klaw_strategy;

/* When an ended child is restarted. */
typedef enum klaw_restart {
    KLAW_RESTART_ON_FAILURE = 0, /* when it failed */
    KLAW_RESTART_ALWAYS = 1,     /* also when it ended by itself without an error */
    KLAW_RESTART_NEVER = 2       /* not even when a strategy stops it with others */
} klaw_restart;

/* When the supervisor ends by itself because children marked significant ended (and are not
 * restarted). */
typedef enum klaw_auto_shutdown {
    KLAW_SHUTDOWN_NEVER = 0,
    KLAW_SHUTDOWN_ANY_SIGNIFICANT = 1,
    KLAW_SHUTDOWN_ALL_SIGNIFICANT = 2
} klaw_auto_shutdown;

/* A child's shutdown time that has no end, as for supervisors. */
#define KLAW_SHUTDOWN_FOREVER INT64_MAX
/* No shutdown time: forced at once ("brutal kill"). */
#define KLAW_SHUTDOWN_KILL KLAW_NONE

/* Options of a supervision machine; all zero is the default. */
typedef struct klaw_supervision_opts {
    klaw_strategy strategy;
    klaw_auto_shutdown auto_shutdown;
    /* So many restarts within restart_window are allowed, one more and the supervisor gives up; 0: 3;
     * KLAW_NONE: none. */
    int32_t max_restarts;
    int64_t restart_window; /* ns; 0: 5 s */
    klaw_backoff backoff;   /* between restarts of the same child; see no_backoff */
    bool no_backoff;        /* restart at once, as OTP does */
} klaw_supervision_opts;

/* What a machine has to know of a child; all zero is the default. */
typedef struct klaw_supervision_child {
    klaw_restart restart;
    bool
        significant; /* needs an auto_shutdown other than NEVER and a restart other than ALWAYS, else INVALID */
    int64_t
        shutdown; /* ns it may take to stop; 0: 5 s; KLAW_SHUTDOWN_KILL; KLAW_SHUTDOWN_FOREVER */
} klaw_supervision_child;

/* Where a child is in its life. Numbers never change. */
typedef enum klaw_child_state {
    KLAW_CHILD_STOPPED = 0,  /* not running, kept: by request or because it ended for good */
    KLAW_CHILD_STARTING = 1, /* the host has been told to start it */
    KLAW_CHILD_RUNNING = 2,
    KLAW_CHILD_STOPPING = 3, /* told to stop, its shutdown time runs */
    KLAW_CHILD_KILLING = 4,  /* forced */
    KLAW_CHILD_BACKOFF = 5,  /* will be started when its delay is over, or its turn comes */
} klaw_child_state;

/* What the host has to do. */
typedef enum klaw_supervision_verb {
    KLAW_SUP_NOTHING = 0,   /* wait for an event, or until klaw_supervision_due */
    KLAW_SUP_START = 1,     /* start `child`, then tell _started or _start_failed */
    KLAW_SUP_STOP = 2,      /* ask `child` to stop; tell _exited when it has */
    KLAW_SUP_KILL = 3,      /* force `child`; tell _exited when it is gone, or _abandoned */
    KLAW_SUP_RESTARTED = 4, /* for hooks: `child` runs again after `attempt` failures in a row */
    KLAW_SUP_FAILED = 5,    /* for hooks: `child` ended with `error` */
    KLAW_SUP_GAVE_UP = 6,   /* for hooks: intensity exceeded because of `child`; stopping follows */
    KLAW_SUP_REMOVED = 7,   /* `child` is gone from the machine; its number may be used again */
    KLAW_SUP_DONE =
        8 /* everything has stopped; `error` says why: OK (asked to, or auto-shutdown), LIMIT
                             * (gave up), or the error of the first start */
} klaw_supervision_verb;

/* One action. */
typedef struct klaw_supervision_action {
    klaw_supervision_verb verb;
    uint32_t child;   /* number of the child, unless NOTHING and DONE */
    uint32_t attempt; /* failures of this child in a row (RESTARTED, FAILED, START) */
    klaw_err error;
} klaw_supervision_action;

typedef struct klaw_supervision klaw_supervision;

/* Makes a machine. Errors: INVALID (an option out of range), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_new(const klaw_supervision_opts *opts,
                                                 klaw_supervision **out);
/* Frees it; children that run are forgotten. NULL allowed. */
KLAW_API void klaw_supervision_free(klaw_supervision *s);

/* Adds a child at the end of the order and, once the machine has begun, starts it. *child is its number.
 * Errors: INVALID, NOMEM, STOPPED (the machine is stopping or done). */
KLAW_API KLAW_MUST klaw_err klaw_supervision_add(klaw_supervision *s,
                                                 const klaw_supervision_child *c, uint32_t *child);
/* Begins: starts the children left to right, each after the one before runs. A start that fails here
 * ends the machine: what runs is stopped, right to left. Errors: EXISTS (has begun). */
KLAW_API KLAW_MUST klaw_err klaw_supervision_begin(klaw_supervision *s, int64_t now);

/* Events. A child number that does not fit what the machine waits for is INVALID and changes nothing. */

/* The child that was to be started runs. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_started(klaw_supervision *s, uint32_t child,
                                                     int64_t now);
/* It could not be started: after the beginning this counts as a failure and is retried under the same
 * intensity. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_start_failed(klaw_supervision *s, uint32_t child,
                                                          klaw_err error, int64_t now,
                                                          uint64_t random);
/* A child that ran is gone, by itself or because it was told to; error OK: it ended normally. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_exited(klaw_supervision *s, uint32_t child,
                                                    klaw_err error, int64_t now, uint64_t random);
/* A child that was killed cannot be ended: the host gives it up. The machine goes on without it. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_abandoned(klaw_supervision *s, uint32_t child,
                                                       int64_t now);
/* Stops one child and keeps its place (no restart); NOT_FOUND, STOPPED. A dynamic child is removed. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_stop_child(klaw_supervision *s, uint32_t child,
                                                        int64_t now);
/* Starts a child that is STOPPED again; EXISTS when it is not. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_restart_child(klaw_supervision *s, uint32_t child,
                                                           int64_t now);
/* Forgets a child that is STOPPED; EXISTS when it is not. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_remove(klaw_supervision *s, uint32_t child);
/* Stops everything, right to left (dynamic children all at once), also in the middle of a restart.
 * Idempotent. */
KLAW_API void klaw_supervision_shutdown(klaw_supervision *s, int64_t now);

/* The next action; call it until it says NOTHING after every event and whenever _due has passed.
 * Deadlines that `now` has reached fire here. */
KLAW_API klaw_supervision_action klaw_supervision_next(klaw_supervision *s, int64_t now);
/* When the machine wants to be looked at again if nothing happens: a time, or INT64_MAX. */
KLAW_API int64_t klaw_supervision_due(const klaw_supervision *s);
/* Where a child is; STOPPED for a number that is none. */
KLAW_API klaw_child_state klaw_supervision_state(const klaw_supervision *s, uint32_t child);
/* How often this child has been restarted since it was added. */
KLAW_API uint64_t klaw_supervision_restarts(const klaw_supervision *s, uint32_t child);
/* Children the machine knows, in any state. */
KLAW_API uint32_t klaw_supervision_count(const klaw_supervision *s);

KLAW_END

#endif
