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

/* Rules that hold for every strategy (those of OTP's supervisor, made precise for a machine to which
 * anything may happen at any moment):
 *   - Children start left to right (in the order they were added), each when the one before runs, and
 *     stop right to left, each when the one after it is gone. DYNAMIC has no order: all at once.
 *   - A child that ended and is to be restarted, and a restart whose start failed, count as one
 *     restart. With more than max_restarts of them within restart_window (both ends belong to it) the
 *     machine gives up: it stops everything and is done with LIMIT.
 *   - Restarting a group (ONE_FOR_ALL, REST_FOR_ONE) stops it, waits for the backoff of the child that
 *     failed, and starts all of it again, those too that were STOPPED. NEVER children of the group are
 *     stopped and removed. A child of a group that is being stopped counts as stopped however it ends.
 *     One that fails when it is already back counts, and the round begins again; so does one to the
 *     left of the group, which then grows.
 *   - A child that ends and is not restarted stays, STOPPED; a NEVER or DYNAMIC one is removed.
 *   - Backoff counts a child's ends in a row. One that ran for restart_window or longer starts from 1.
 *   - What is done with one child never waits for another one's, except by the order above. */

/* Which children are restarted when one of them ends. */
typedef enum klaw_strategy {
    KLAW_ONE_FOR_ONE = 0,  /* that one */
    KLAW_ONE_FOR_ALL = 1,  /* all of them: the others are stopped first */
    KLAW_REST_FOR_ONE = 2, /* that one and those started after it */
    KLAW_DYNAMIC = 3       /* any number of children of one definition; each for itself, no order */
} klaw_strategy;

/* When an ended child is restarted. */
typedef enum klaw_restart {
    KLAW_RESTART_ON_FAILURE = 0, /* when it failed (OTP: transient) */
    KLAW_RESTART_ALWAYS = 1,     /* also when it ended by itself without an error (permanent) */
    KLAW_RESTART_NEVER = 2       /* not even when a strategy stops it with others (temporary) */
} klaw_restart;

/* When the machine ends by itself because children marked significant ended by themselves and are not
 * restarted. */
typedef enum klaw_auto_shutdown {
    KLAW_SHUTDOWN_NEVER = 0,
    KLAW_SHUTDOWN_ANY_SIGNIFICANT = 1, /* with the first of them */
    KLAW_SHUTDOWN_ALL_SIGNIFICANT = 2  /* when none of them is left that runs or will */
} klaw_auto_shutdown;

/* A child's shutdown time that has no end, as for supervisors. */
#define KLAW_SHUTDOWN_FOREVER INT64_MAX
/* No shutdown time: forced at once ("brutal kill"). */
#define KLAW_SHUTDOWN_KILL KLAW_NONE
/* As max_restarts: never give up. */
#define KLAW_RESTARTS_UNLIMITED INT32_MAX

/* Options of a supervision machine; all zero is the default. */
typedef struct klaw_supervision_opts {
    klaw_strategy strategy;
    klaw_auto_shutdown auto_shutdown;
    /* So many restarts within restart_window are allowed, one more and the machine gives up; 0: 3;
     * KLAW_NONE: none; at most 1 000 000, or KLAW_RESTARTS_UNLIMITED. */
    int32_t max_restarts;
    int64_t restart_window; /* ns; 0: 5 s */
    klaw_backoff backoff;   /* between restarts of the same child; see no_backoff */
    bool no_backoff;        /* restart at once, as OTP does */
} klaw_supervision_opts;

/* What a machine has to know of a child; all zero is the default. */
typedef struct klaw_supervision_child {
    klaw_restart restart;
    /* Needs an auto_shutdown other than NEVER and a restart other than ALWAYS, else INVALID. */
    bool significant;
    /* ns it may take to stop; 0: 5 s; KLAW_SHUTDOWN_KILL; KLAW_SHUTDOWN_FOREVER */
    int64_t shutdown;
} klaw_supervision_child;

/* Where a child is in its life. Numbers never change. */
typedef enum klaw_child_state {
    KLAW_CHILD_STOPPED = 0,  /* not running, kept: not begun, by request, or it ended for good */
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
    KLAW_SUP_STOP = 2,      /* ask `child` to stop; tell _exited when it has. It may come before the
                             * answer to START: then tell that too, or just _exited */
    KLAW_SUP_KILL = 3,      /* force `child`; tell _exited when it is gone, or _abandoned */
    KLAW_SUP_RESTARTED = 4, /* for hooks: `child` runs again after `attempt` ends in a row */
    KLAW_SUP_FAILED = 5,  /* for hooks: `child` ended by itself with `error`, or could not start */
    KLAW_SUP_GAVE_UP = 6, /* for hooks: one restart too many, of `child`; stopping follows */
    KLAW_SUP_REMOVED = 7, /* `child` is gone from the machine; its number may be used again */
    KLAW_SUP_DONE = 8,    /* everything has stopped, once and last; `error` says why: OK (asked to,
                             * or auto-shutdown), LIMIT (gave up), or that of the first start */
    KLAW_SUP_BEGUN = 9,   /* once: every child added before _begin has had its turn to start */
} klaw_supervision_verb;

/* One action. */
typedef struct klaw_supervision_action {
    klaw_supervision_verb verb;
    uint32_t child;   /* number of the child, unless NOTHING, DONE and BEGUN */
    uint32_t attempt; /* ends of this child in a row (START, RESTARTED, FAILED, GAVE_UP) */
    klaw_err error;   /* of FAILED, GAVE_UP (what `child` ended with) and DONE */
} klaw_supervision_action;

/* A machine. */
typedef struct klaw_supervision klaw_supervision;

/* Makes a machine; opts may be NULL. Errors: INVALID (an option out of range), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_new(const klaw_supervision_opts *opts,
                                                 klaw_supervision **out);
/* Frees it; children that run are forgotten. NULL allowed. */
KLAW_API void klaw_supervision_free(klaw_supervision *s);

/* Adds a child at the end of the order (c may be NULL) and, once the machine has begun, starts it, at
 * once or, while a round of starts or restarts is under way, in its turn. If that first start fails,
 * the child is removed (FAILED, REMOVED) and nothing is counted. *child is its number. Errors:
 * INVALID, NOMEM, STOPPED (the machine is stopping or done). */
KLAW_API KLAW_MUST klaw_err klaw_supervision_add(klaw_supervision *s,
                                                 const klaw_supervision_child *c, uint32_t *child);
/* Begins: starts the children left to right, each after the one before runs (DYNAMIC: all at once).
 * A first start that fails here ends the machine: what runs is stopped, right to left, and DONE has
 * its error (DYNAMIC: only that child is removed). Errors: EXISTS (has begun), STOPPED. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_begin(klaw_supervision *s, int64_t now);

/* Events. One that does not fit what the machine waits for of this child is INVALID and changes
 * nothing. `random` is 64 random bits, for the jitter. */

/* The child that was to be started runs. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_started(klaw_supervision *s, uint32_t child,
                                                     int64_t now);
/* It could not be started. A restart is tried again, which counts; a child that was added or that
 * _restart_child started is not tried again; see _begin for the first start. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_start_failed(klaw_supervision *s, uint32_t child,
                                                          klaw_err error, int64_t now,
                                                          uint64_t random);
/* A child that ran is gone, by itself or because it was told to; error OK: it ended normally. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_exited(klaw_supervision *s, uint32_t child,
                                                    klaw_err error, int64_t now, uint64_t random);
/* A child that was killed cannot be ended: the host gives it up. The machine goes on as if it were
 * gone, and may start it anew; its real end must not be told any more. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_abandoned(klaw_supervision *s, uint32_t child,
                                                       int64_t now);
/* Stops one child and keeps its place: it is not restarted for itself, but with its group if that is
 * (as in OTP). A NEVER or dynamic child is removed. OK for one that is STOPPED. Before _begin it does
 * nothing. Errors: NOT_FOUND, STOPPED (the machine is stopping or done). */
KLAW_API KLAW_MUST klaw_err klaw_supervision_stop_child(klaw_supervision *s, uint32_t child,
                                                        int64_t now);
/* Starts a child that is STOPPED again, its count of ends in a row at 0. If that fails, it is STOPPED
 * as before (FAILED) and nothing is counted. Errors: NOT_FOUND, EXISTS (it is not STOPPED), INVALID
 * (not begun), STOPPED. */
KLAW_API KLAW_MUST klaw_err klaw_supervision_restart_child(klaw_supervision *s, uint32_t child,
                                                           int64_t now);
/* Forgets a child that is STOPPED; REMOVED follows. Errors: NOT_FOUND, EXISTS (it is not STOPPED). */
KLAW_API KLAW_MUST klaw_err klaw_supervision_remove(klaw_supervision *s, uint32_t child);
/* Stops everything, right to left (dynamic children all at once), also in the middle of a restart.
 * Idempotent. */
KLAW_API void klaw_supervision_shutdown(klaw_supervision *s, int64_t now);

/* The next action; call it until it says NOTHING after every call above and whenever _due has passed.
 * Deadlines that `now` has reached fire here. The order is a function of the calls alone. */
KLAW_API klaw_supervision_action klaw_supervision_next(klaw_supervision *s, int64_t now);
/* After NOTHING: when the machine wants to be looked at again if nothing happens; INT64_MAX: never. */
KLAW_API int64_t klaw_supervision_due(const klaw_supervision *s);
/* Where a child is; STOPPED for a number that is none. */
KLAW_API klaw_child_state klaw_supervision_state(const klaw_supervision *s, uint32_t child);
/* How often this child has been restarted since it was added, alone or with its group; 0 for a number
 * that is none. */
KLAW_API uint64_t klaw_supervision_restarts(const klaw_supervision *s, uint32_t child);
/* Children the machine knows, in any state. */
KLAW_API uint32_t klaw_supervision_count(const klaw_supervision *s);

KLAW_END

#endif
