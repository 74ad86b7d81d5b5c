/* SPDX-License-Identifier: Apache-2.0 */
/* retry.c - attempts, waits and time limits: the host of the backoff policy.
 *
 * klaw_retry is the public loop over the iterator plus a scope around an attempt that has a time
 * limit. The policy decides how long (policy.h); here are the clock, chance and the sleep. Nothing
 * is allocated but those scopes, nothing is shared, so there is no lock.
 *
 * Invariants of an iterator:
 *   Y1  info_.end == RUNNING until no further attempt will be made; it is set once.
 *   Y2  no attempt begins after until_, and no sleep is begun that would end after it.
 *   Y3  delay_ >= 0 between a failed attempt and the next one: what klaw_retry_next has to sleep.
 *
 * Rejected: sleeping up to the deadline when the next attempt lies beyond it (the answer is the
 * same and late). */
#include "klaw/retry.h"

#include <string.h>

#include "sched/sched.h"

#define ATTEMPTS_DEFAULT 3

bool klaw_retry_default(klaw_err error) {
    switch (error) {
    case KLAW_OK:
    case KLAW_CANCELLED:
    case KLAW_CLOSED:
    case KLAW_INVALID:
    case KLAW_TYPE:
    case KLAW_LIMIT:
    case KLAW_CORRUPT:
    case KLAW_UNCERTAIN: return false;
    default: return true;
    }
}

/* --- the iterator --- */
void klaw_retry_begin_sized(klaw_retry_iter *it, const klaw_retry_opts *opts, size_t opts_size) {
    klaw_retry_opts *o = &it->opts_;
    memset(it, 0, sizeof *it);
    if (opts)
        memcpy(o, opts, opts_size < sizeof *o ? opts_size : sizeof *o);
    it->until_ = it->attempt_ = KLAW_FOREVER;
    if (o->attempts < KLAW_NONE || o->attempt_timeout < 0 ||
        klaw_backoff_check(&o->backoff) != KLAW_OK) {
        it->info_.end = KLAW_RETRY_INVALID;
        it->error_ = KLAW_INVALID;
        return;
    }
    if (o->attempts == 0)
        o->attempts = ATTEMPTS_DEFAULT;
    if (o->deadline && klawi_deadline_resolve(o->deadline, KLAW_TIMEOUT, &it->until_) != KLAW_OK) {
        it->info_.end = KLAW_RETRY_DEADLINE;
        it->error_ = KLAW_TIMEOUT;
    }
}

static bool end(klaw_retry_iter *it, klaw_retry_end why, klaw_err error) {
    it->info_.end = why;
    it->error_ = error;
    return true;
}

bool klaw_retry_next(klaw_retry_iter *it) {
    if (it->info_.end != KLAW_RETRY_RUNNING)
        return false;
    if (it->delay_ > 0) {
        int64_t until = klaw_after(it->delay_);
        it->delay_ = 0;
        if (klaw_sleep(until) != KLAW_OK) {
            end(it, KLAW_RETRY_CANCELLED, KLAW_CANCELLED);
            return false;
        }
        if (it->until_ != KLAW_FOREVER && klawi_clock() >= it->until_) { /* Y2: slept too well */
            end(it, KLAW_RETRY_DEADLINE, it->error_);
            return false;
        }
    } else if (it->info_.attempts && klaw_check() != KLAW_OK) {
        end(it, KLAW_RETRY_CANCELLED, KLAW_CANCELLED);
        return false;
    }
    it->info_.attempts++;
    it->attempt_ = it->until_;
    if (it->opts_.attempt_timeout) {
        klaw_deadline at = klaw_after(it->opts_.attempt_timeout);
        if (at < it->attempt_)
            it->attempt_ = at;
    }
    return true;
}

static uint64_t chance(void) {
    klawi_ctx *c = klawi_ctx_need(NULL);
    if (!c)
        return (uint64_t)klawi_clock() * 0x9e3779b97f4a7c15u;
    uint64_t high = klawi_ctx_rand(c);
    return high << 32 | klawi_ctx_rand(c);
}

/* Whether there is to be another attempt; sets delay_, or end. */
static bool decide(klaw_retry_iter *it, klaw_err error) {
    const klaw_retry_opts *o = &it->opts_;
    if (!(o->retry_on ? o->retry_on(error, o->user) : klaw_retry_default(error)))
        return !end(it, KLAW_RETRY_FINAL, error);
    if (o->attempts > 0 && it->info_.attempts >= (uint32_t)o->attempts)
        return !end(it, KLAW_RETRY_ATTEMPTS, error);
    int64_t delay = klaw_backoff_delay(&o->backoff, it->info_.attempts, chance());
    if (it->until_ != KLAW_FOREVER) {
        int64_t now = klawi_clock();
        if (now >= it->until_ || delay >= it->until_ - now) /* Y2 */
            return !end(it, KLAW_RETRY_DEADLINE, error);
    }
    it->delay_ = delay;
    it->info_.waited = it->info_.waited > INT64_MAX - delay ? INT64_MAX : it->info_.waited + delay;
    return true;
}

bool klaw_retry_done(klaw_retry_iter *it, klaw_err error) {
    if (it->info_.end != KLAW_RETRY_RUNNING)
        return true;
    it->info_.error = it->error_ = error;
    if (error == KLAW_OK)
        return end(it, KLAW_RETRY_SUCCESS, KLAW_OK);
    bool again = decide(it, error);
    if (it->opts_.on_attempt)
        it->opts_.on_attempt(it->info_.attempts, error, again ? it->delay_ : KLAW_NONE,
                             it->opts_.user);
    return !again;
}

klaw_deadline klaw_retry_deadline(const klaw_retry_iter *it) {
    return it->attempt_;
}

klaw_err klaw_retry_result(const klaw_retry_iter *it) {
    return it->error_;
}

const klaw_retry_info *klaw_retry_iter_info(const klaw_retry_iter *it) {
    return &it->info_;
}

/* --- the loop --- */
klaw_err klaw_retry_sized(klaw_fn fn, void *arg, const klaw_retry_opts *opts, size_t opts_size,
                          klaw_retry_info *info) {
    klaw_retry_iter it;
    klaw_retry_begin_sized(&it, opts, opts_size);
    if (!fn)
        end(&it, KLAW_RETRY_INVALID, KLAW_INVALID);
    while (fn && klaw_retry_next(&it)) {
        klaw_err e = it.attempt_ == KLAW_FOREVER ? fn(arg) : klaw_timeout(fn, arg, it.attempt_);
        if (klaw_retry_done(&it, e))
            break;
    }
    if (info)
        *info = it.info_;
    return it.error_;
}

/* --- one function with a time limit --- */
klaw_err klaw_timeout(klaw_fn fn, void *arg, klaw_deadline deadline) {
    klaw_scope *s = NULL;
    /* 0 is a time that has passed; in a scope's options it would be none. */
    klaw_scope_opts o = {.name = "timeout", .deadline = deadline ? deadline : 1};
    if (!fn)
        return KLAW_INVALID;
    klaw_err e = klaw_scope_open(&o, &s);
    if (e)
        return e;
    e = fn(arg);
    klawi_lock_acquire(&s->lock);
    bool alone = s->live == 0;
    klaw_err child = (klaw_err)s->error;
    bool late = s->timed_out;
    klawi_lock_release(&s->lock);
    klaw_err rest = klaw_scope_close(s);
    if (e == KLAW_CANCELLED && late)
        return KLAW_TIMEOUT;
    if (e)
        return e;
    return alone && !child ? KLAW_OK : rest;
}
