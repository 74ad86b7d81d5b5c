/* SPDX-License-Identifier: Apache-2.0 */
/* retry.h - trying again, with backoff, a limit of attempts and of time; and a time limit for one
 * function.
 *
 *     klaw_retry_opts opts = {.attempts = 5, .backoff = {.base = KLAW_MS(20)}};
 *     e = klaw_retry(fetch, &job, &opts, NULL);
 *
 * or, where the loop is to be seen:
 *
 *     klaw_retry_iter it;
 *     klaw_retry_begin(&it, &opts);
 *     while (klaw_retry_next(&it))
 *         if (klaw_retry_done(&it, fetch(&job)))
 *             break;
 *     e = klaw_retry_result(&it);
 */
#ifndef KLAW_RETRY_H
#define KLAW_RETRY_H

#include "klaw/fiber.h"
#include "klaw/policy.h"

KLAW_BEGIN

/* Options of klaw_retry; all zero is the default: three attempts, the default backoff. */
typedef struct klaw_retry_opts {
    /* Attempts at most, the first one included; 0: 3, KLAW_NONE: no limit. Other negative numbers
     * are INVALID. */
    int32_t attempts;
    /* How long to wait before the next attempt, see policy.h. */
    klaw_backoff backoff;
    /* When everything has to be over, waits included; 0: never. No attempt is begun, and no wait
     * lasts, beyond it; an attempt that runs then is cancelled (klaw_retry alone). */
    klaw_deadline deadline;
    /* How long one attempt may take, in ns; 0: no limit. Then an attempt runs in a scope of its own
     * with that deadline (klaw_retry alone; in a loop of your own: klaw_retry_deadline). */
    int64_t attempt_timeout;
    /* Whether another attempt makes sense after this error (never OK). NULL: klaw_retry_default. */
    bool (*retry_on)(klaw_err error, void *user);
    /* Called after each failed attempt (1, 2, …), on the caller's host, with its error and the wait
     * before the next one in ns; KLAW_NONE: there is none. May be NULL. */
    void (*on_attempt)(uint32_t attempt, klaw_err error, int64_t delay, void *user);
    /* For both functions. */
    void *user;
} klaw_retry_opts;

/* Why no further attempt was made. */
typedef enum klaw_retry_end {
    KLAW_RETRY_RUNNING = 0,   /* not over */
    KLAW_RETRY_SUCCESS = 1,   /* the last attempt succeeded */
    KLAW_RETRY_ATTEMPTS = 2,  /* all attempts are used up */
    KLAW_RETRY_FINAL = 3,     /* retry_on said no */
    KLAW_RETRY_DEADLINE = 4,  /* the deadline has passed, or would before the next attempt */
    KLAW_RETRY_CANCELLED = 5, /* cancelled while it waited */
    KLAW_RETRY_INVALID = 6    /* the options are wrong */
} klaw_retry_end;

/* What happened, for klaw_retry's last argument. */
typedef struct klaw_retry_info {
    uint32_t attempts;  /* made */
    klaw_err error;     /* of the last attempt; OK when none was made */
    int64_t waited;     /* ns between attempts, as planned */
    klaw_retry_end end; /* why it stopped */
} klaw_retry_info;

/* The default of retry_on. False for what another attempt does not change, or must not repeat:
 * CANCELLED, CLOSED, INVALID, TYPE, LIMIT, CORRUPT, UNCERTAIN (and OK); true for the rest. From
 * anywhere. */
KLAW_API bool klaw_retry_default(klaw_err error);

/* See klaw_retry; opts_size is sizeof(klaw_retry_opts) as the caller was compiled. */
KLAW_API KLAW_MUST klaw_err klaw_retry_sized(klaw_fn fn, void *arg, const klaw_retry_opts *opts,
                                             size_t opts_size, klaw_retry_info *info);

/* Runs fn(arg) until it returns OK or there is no further attempt, and returns what the last
 * attempt returned; TIMEOUT for an attempt that a time limit cut. Of its own: CANCELLED (while it
 * waited), TIMEOUT (the deadline passed before the first attempt), INVALID, NOMEM and, with a time
 * limit on a plain thread outside of a run, STOPPED. info (may be NULL) is always filled. From a
 * fiber or a thread. */
static inline KLAW_MUST klaw_err klaw_retry(klaw_fn fn, void *arg, const klaw_retry_opts *opts,
                                            klaw_retry_info *info) {
    return klaw_retry_sized(fn, arg, opts, sizeof(klaw_retry_opts), info);
}

/* A loop's state; all fields are private. Needs no clean-up. */
typedef struct klaw_retry_iter {
    klaw_retry_opts opts_;  /* private */
    klaw_retry_info info_;  /* private */
    klaw_deadline until_;   /* private */
    klaw_deadline attempt_; /* private */
    int64_t delay_;         /* private */
    klaw_err error_;        /* private */
} klaw_retry_iter;

/* See klaw_retry_begin. */
KLAW_API void klaw_retry_begin_sized(klaw_retry_iter *it, const klaw_retry_opts *opts,
                                     size_t opts_size);
/* Begins a loop; opts (NULL: defaults) are copied. Options that are wrong show as INVALID in
 * klaw_retry_result, and klaw_retry_next answers false. */
static inline void klaw_retry_begin(klaw_retry_iter *it, const klaw_retry_opts *opts) {
    klaw_retry_begin_sized(it, opts, sizeof(klaw_retry_opts));
}
/* True: make an attempt now. The first time at once, later after the wait. False: it is over. */
KLAW_API KLAW_MUST bool klaw_retry_next(klaw_retry_iter *it);
/* Tells how the attempt ended. True: there will be no other one (success included). */
KLAW_API KLAW_MUST bool klaw_retry_done(klaw_retry_iter *it, klaw_err error);
/* When the attempt that runs has to be over: from attempt_timeout and the deadline, whichever comes
 * first; KLAW_FOREVER for none. Hand it to what waits, or to klaw_timeout. */
KLAW_API klaw_deadline klaw_retry_deadline(const klaw_retry_iter *it);
/* What klaw_retry would return now. */
KLAW_API KLAW_MUST klaw_err klaw_retry_result(const klaw_retry_iter *it);
/* What has happened so far; lives as long as the iterator. */
KLAW_API const klaw_retry_info *klaw_retry_iter_info(const klaw_retry_iter *it);

/* Runs fn(arg) here, in a scope with this deadline: when it passes, every wait in fn and in the
 * fibers it spawned returns CANCELLED. Waits for all of them. Returns TIMEOUT when the deadline cut
 * fn or left fibers of it cut; else what fn returned, an error of its fibers coming after that. A
 * fn that succeeded all the same returns OK. KLAW_NOWAIT and the past: whatever would wait is cut.
 * Errors of its own: as klaw_scope_open. From a fiber or a thread. */
KLAW_API KLAW_MUST klaw_err klaw_timeout(klaw_fn fn, void *arg, klaw_deadline deadline);

KLAW_END

#endif
