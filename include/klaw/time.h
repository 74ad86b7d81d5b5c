/* SPDX-License-Identifier: Apache-2.0 */
/* time.h - deadlines, sleeping, timers and tickers. All times are nanoseconds of CLOCK_MONOTONIC in
 * an int64_t. */
#ifndef KLAW_TIME_H
#define KLAW_TIME_H

#include "klaw/err.h"

KLAW_BEGIN

/* When a wait ends: an absolute time in nanoseconds (klaw_now() + something), or one of the words
 * below. A time in the past means: do it if it needs no waiting, else KLAW_TIMEOUT. */
typedef int64_t klaw_deadline;

/* Never wait: the call answers FULL or EMPTY instead. */
#define KLAW_NOWAIT INT64_MIN
/* Wait until it happens or is cancelled. */
#define KLAW_FOREVER INT64_MAX
/* Relative: `ns` nanoseconds (> 0) from the moment the call really has to wait; reads no clock
 * otherwise. */
#define KLAW_WITHIN(ns) (-(klaw_deadline)(ns))

/* Durations in nanoseconds. */
#define KLAW_US(n) ((int64_t)(n)*1000)
#define KLAW_MS(n) ((int64_t)(n)*1000000)
#define KLAW_S(n) ((int64_t)(n)*1000000000)

/* Now, in nanoseconds of CLOCK_MONOTONIC. From anywhere. */
KLAW_API int64_t klaw_now(void);

/* The absolute deadline `ns` from now; at most KLAW_FOREVER - 1, at least 1. */
KLAW_API klaw_deadline klaw_after(int64_t ns);

/* Waits until the deadline. OK when it has passed (at once for one in the past, 0 and NOWAIT),
 * CANCELLED when the scope was cancelled first. FOREVER waits for a cancellation. From a fiber
 * (parks) or a thread (sleeps). */
KLAW_API KLAW_MUST klaw_err klaw_sleep(klaw_deadline until);

/* A timer that calls back. Embed it where you like; all fields are private. */
typedef struct klaw_timer {
    void *private_[10];
} klaw_timer;

/* Prepares a timer that will call fn(arg). Not armed. The callback runs on a worker between two
 * fibers: it must be short, never waits, and may send with KLAW_NOWAIT or re-arm its timer. */
KLAW_API void klaw_timer_init(klaw_timer *t, void (*fn)(void *arg), void *arg);
/* Arms (or moves) the timer to an absolute deadline or KLAW_WITHIN(ns). One in the past fires soon.
 * Resolution about 65 us, never early. Errors: STOPPED when no runtime runs; INVALID for NOWAIT and
 * FOREVER. From anywhere. */
KLAW_API KLAW_MUST klaw_err klaw_timer_arm(klaw_timer *t, klaw_deadline deadline);
/* Disarms. True when it was armed: the callback did not and will not run. False: it was not armed,
 * or its callback has run, or is running right now on another worker (klaw_timer_drain waits for
 * that). From anywhere. */
KLAW_API bool klaw_timer_cancel(klaw_timer *t);
/* Disarms and waits (by spinning) until a running callback has returned; then the memory may go.
 * Not from the callback. */
KLAW_API void klaw_timer_drain(klaw_timer *t);

struct klaw_receiver;
/* A receiver of klaw_u64 that gets the number of the tick (1, 2, …) every `period` ns; ticks nobody
 * took are merged, so a slow reader sees gaps and never a backlog. Closing the receiver ends it.
 * Errors: INVALID (period < 1 us, NULL), STOPPED (no runtime), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_ticker_open(int64_t period, struct klaw_receiver **out);

KLAW_END

#endif
