/* SPDX-License-Identifier: Apache-2.0 */
/* test_retry.c - attempts, waits, limits, and the time limit of one function. */
#include "klaw/retry.h"
#include "support/runs.h"

typedef struct plan {
    klaw_err results[8]; /* of the attempts, then OK */
    uint32_t calls;
    int64_t delays[8];
    uint32_t hooks;
    klaw_err accept; /* retry_on says yes to this one alone */
} plan;

static klaw_err follows(void *arg) {
    plan *p = arg;
    return p->calls < 8 ? p->results[p->calls++] : KLAW_OK;
}

static void hook(uint32_t attempt, klaw_err error, int64_t delay, void *user) {
    plan *p = user;
    SAME(attempt, p->calls);
    SAME(error, p->results[attempt - 1]);
    p->delays[p->hooks++] = delay;
}

static bool only(klaw_err error, void *user) {
    return error == ((plan *)user)->accept;
}

static const klaw_backoff at_once = {.base = KLAW_NONE};

PLAIN(it_succeeds_at_the_third_attempt) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_NOT_FOUND, KLAW_OK}};
    klaw_retry_opts o = {.backoff = at_once, .on_attempt = hook, .user = &p};
    klaw_retry_info info;
    OK(klaw_retry(follows, &p, &o, &info));
    SAME(p.calls, 3);
    SAME(info.attempts, 3);
    SAME(info.end, KLAW_RETRY_SUCCESS);
    OK(info.error);
    SAME(p.hooks, 2);
    SAME(p.delays[1], 0);
}

PLAIN(three_attempts_by_default_and_the_last_error) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_NOMEM, KLAW_NOT_FOUND, KLAW_OK}};
    klaw_retry_opts o = {.backoff = at_once, .on_attempt = hook, .user = &p};
    klaw_retry_info info;
    GIVES(klaw_retry(follows, &p, &o, &info), KLAW_NOT_FOUND);
    SAME(p.calls, 3);
    SAME(info.end, KLAW_RETRY_ATTEMPTS);
    SAME(p.delays[2], KLAW_NONE);
}

PLAIN(no_limit_of_attempts) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_SYSTEM, KLAW_SYSTEM, KLAW_SYSTEM, KLAW_SYSTEM,
                          KLAW_SYSTEM, KLAW_SYSTEM, KLAW_SYSTEM}};
    OK(klaw_retry(follows, &p, &(klaw_retry_opts){.attempts = KLAW_NONE, .backoff = at_once},
                  NULL));
    SAME(p.calls, 8);
}

PLAIN(some_errors_are_final) {
    static const klaw_err final[] = {KLAW_CANCELLED, KLAW_CLOSED,  KLAW_INVALID,  KLAW_TYPE,
                                     KLAW_LIMIT,     KLAW_CORRUPT, KLAW_UNCERTAIN};
    static const klaw_err passing[] = {KLAW_TIMEOUT, KLAW_NOT_FOUND, KLAW_STOPPED, KLAW_BACKEND,
                                       KLAW_NOMEM,   KLAW_SYSTEM,    KLAW_FULL,    KLAW_EMPTY};
    for (size_t i = 0; i < sizeof final / sizeof *final; i++) {
        plan p = {.results = {final[i]}};
        klaw_retry_info info;
        CHECK(!klaw_retry_default(final[i]));
        GIVES(klaw_retry(follows, &p, &(klaw_retry_opts){.backoff = at_once}, &info), final[i]);
        SAME(p.calls, 1);
        SAME(info.end, KLAW_RETRY_FINAL);
    }
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        CHECK(klaw_retry_default(passing[i]));
    CHECK(!klaw_retry_default(KLAW_OK));
}

PLAIN(a_predicate_decides) {
    plan p = {.results = {KLAW_INVALID, KLAW_INVALID, KLAW_SYSTEM}, .accept = KLAW_INVALID};
    klaw_retry_opts o = {.attempts = 8, .backoff = at_once, .retry_on = only, .user = &p};
    GIVES(klaw_retry(follows, &p, &o, NULL), KLAW_SYSTEM);
    SAME(p.calls, 3);
}

PLAIN(wrong_options_are_refused) {
    plan p = {.calls = 0};
    klaw_retry_info info;
    klaw_retry_iter it;
    static const klaw_retry_opts wrong[] = {{.attempts = -2},
                                            {.attempt_timeout = -1},
                                            {.backoff = {.base = -2}},
                                            {.backoff = {.factor = 0.5}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        GIVES(klaw_retry(follows, &p, &wrong[i], &info), KLAW_INVALID);
        SAME(info.end, KLAW_RETRY_INVALID);
        klaw_retry_begin(&it, &wrong[i]);
        CHECK(!klaw_retry_next(&it));
        GIVES(klaw_retry_result(&it), KLAW_INVALID);
    }
    GIVES(klaw_retry(NULL, &p, NULL, &info), KLAW_INVALID);
    SAME(p.calls, 0);
}

PLAIN(a_loop_of_ones_own) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_OK}};
    klaw_retry_iter it;
    klaw_retry_begin(&it, &(klaw_retry_opts){.backoff = {.base = KLAW_MS(1)}});
    while (klaw_retry_next(&it)) {
        SAME(klaw_retry_deadline(&it), KLAW_FOREVER);
        if (klaw_retry_done(&it, follows(&p)))
            break;
    }
    OK(klaw_retry_result(&it));
    SAME(klaw_retry_iter_info(&it)->attempts, 2);
    CHECK(!klaw_retry_next(&it));
    CHECK(klaw_retry_done(&it, KLAW_SYSTEM)); /* too late to change anything */
    OK(klaw_retry_result(&it));
}

PLAIN(it_waits_between_attempts) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_SYSTEM, KLAW_OK}};
    klaw_retry_info info;
    klaw_retry_opts o = {
        .backoff = {KLAW_BACKOFF_CONSTANT, KLAW_JITTER_NONE, KLAW_MS(3), 0, 0},
        .on_attempt = hook,
        .user = &p,
    };
    int64_t start = klaw_now();
    OK(klaw_retry(follows, &p, &o, &info));
    CHECK(klaw_now() - start >= KLAW_MS(6));
    SAME(info.waited, KLAW_MS(6));
    SAME(p.delays[0], KLAW_MS(3));
}

PLAIN(no_attempt_begins_beyond_the_deadline) {
    plan p = {.results = {KLAW_SYSTEM, KLAW_OK}};
    klaw_retry_info info;
    klaw_retry_opts o = {
        .backoff = {.kind = KLAW_BACKOFF_CONSTANT, .jitter = KLAW_JITTER_NONE, .base = KLAW_S(25)},
        .deadline = KLAW_WITHIN(KLAW_S(20)),
        .on_attempt = hook,
        .user = &p};
    klaw_retry_iter it;
    klaw_retry_begin(&it, &o);
    CHECK(klaw_retry_next(&it));
    CHECK(klaw_retry_deadline(&it) > klaw_now());
    CHECK(klaw_retry_done(&it, follows(&p))); /* at once: the wait would end too late */
    GIVES(klaw_retry_result(&it), KLAW_SYSTEM);
    SAME(klaw_retry_iter_info(&it)->end, KLAW_RETRY_DEADLINE);
    SAME(p.delays[0], KLAW_NONE);
    o.deadline = 1; /* has passed: not even one */
    GIVES(klaw_retry(follows, &p, &o, &info), KLAW_TIMEOUT);
    SAME(info.attempts, 0);
    SAME(p.calls, 1);
}

static klaw_err waits_long(void *arg) {
    klaw_scope *s = klaw_scope_current();
    plan *p = arg;
    p->calls++;
    klaw_scope_cancel(s, "enough");
    CHECK(klaw_sleep(KLAW_FOREVER) == KLAW_CANCELLED);
    return KLAW_SYSTEM;
}

RUNS(the_wait_can_be_cancelled, 1) {
    plan p = {.calls = 0};
    klaw_retry_info info;
    klaw_scope *s = SCOPE(.name = "s");
    GIVES(klaw_retry(waits_long, &p, &(klaw_retry_opts){.backoff = {.base = KLAW_S(3600)}}, &info),
          KLAW_CANCELLED);
    SAME(info.end, KLAW_RETRY_CANCELLED);
    SAME(info.error, KLAW_SYSTEM);
    GIVES(klaw_retry(waits_long, &p, &(klaw_retry_opts){.backoff = at_once}, &info),
          KLAW_CANCELLED); /* without a wait, too */
    SAME(p.calls, 2);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
}

static klaw_err sleeps_for_ever(void *arg) {
    atomic_fetch_add((_Atomic int *)arg, 1);
    return klaw_sleep(KLAW_FOREVER);
}

RUNS(an_attempt_has_a_time_limit, 2) {
    _Atomic int calls = 0;
    klaw_retry_info info;
    klaw_retry_opts o = {.attempts = 2, .backoff = at_once, .attempt_timeout = KLAW_MS(1)};
    GIVES(klaw_retry(sleeps_for_ever, &calls, &o, &info), KLAW_TIMEOUT);
    SAME(calls, 2);
    SAME(info.end, KLAW_RETRY_ATTEMPTS);
    o = (klaw_retry_opts){.attempts = KLAW_NONE, .deadline = KLAW_WITHIN(KLAW_MS(2))};
    GIVES(klaw_retry(sleeps_for_ever, &calls, &o, &info), KLAW_TIMEOUT);
    SAME(info.end, KLAW_RETRY_DEADLINE);
}

/* --- klaw_timeout --- */

static klaw_err spawns_a_sleeper(void *arg) {
    OK(klaw_go(parks, NULL));
    return (klaw_err)(intptr_t)arg;
}

static klaw_err spawns_a_failure(void *arg) {
    (void)arg;
    OK(klaw_go(returns, (void *)(intptr_t)KLAW_CORRUPT));
    return KLAW_OK;
}

RUNS(a_time_limit_cuts_what_waits, 2) {
    _Atomic int calls = 0;
    GIVES(klaw_timeout(sleeps_for_ever, &calls, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(klaw_timeout(sleeps_for_ever, &calls, KLAW_NOWAIT), KLAW_TIMEOUT);
    GIVES(klaw_timeout(sleeps_for_ever, &calls, 0), KLAW_TIMEOUT);
    SAME(calls, 3);
    GIVES(klaw_timeout(spawns_a_sleeper, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(klaw_timeout(spawns_a_sleeper, (void *)(intptr_t)KLAW_LIMIT, KLAW_WITHIN(KLAW_MS(1))),
          KLAW_LIMIT);
    GIVES(klaw_timeout(spawns_a_failure, NULL, KLAW_FOREVER), KLAW_CORRUPT);
    GIVES(klaw_timeout(NULL, NULL, KLAW_FOREVER), KLAW_INVALID);
}

RUNS(what_succeeds_in_spite_of_its_limit_is_ok, 1) {
    OK(klaw_timeout(returns_ok, NULL, KLAW_FOREVER));
    OK(klaw_timeout(returns_ok, NULL, KLAW_NOWAIT));
    GIVES(klaw_timeout(returns, (void *)(intptr_t)KLAW_EMPTY, KLAW_FOREVER), KLAW_EMPTY);
}

static klaw_err outer_is_cancelled(void *arg) {
    (void)arg;
    klaw_scope *s = SCOPE(.name = "outer");
    klaw_scope_cancel(s, "outer");
    klaw_err e = klaw_timeout(parks, NULL, KLAW_WITHIN(KLAW_S(3600)));
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    return e;
}

RUNS(a_cancellation_from_outside_is_no_timeout, 1) {
    GIVES(outer_is_cancelled(NULL), KLAW_CANCELLED);
}

PLAIN(a_time_limit_needs_a_run_on_a_thread) {
    GIVES(klaw_timeout(returns_ok, NULL, KLAW_FOREVER), KLAW_STOPPED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(it_succeeds_at_the_third_attempt),
        TEST(three_attempts_by_default_and_the_last_error),
        TEST(no_limit_of_attempts),
        TEST(some_errors_are_final),
        TEST(a_predicate_decides),
        TEST(wrong_options_are_refused),
        TEST(a_loop_of_ones_own),
        TEST(it_waits_between_attempts),
        TEST(no_attempt_begins_beyond_the_deadline),
        TEST(the_wait_can_be_cancelled),
        TEST(an_attempt_has_a_time_limit),
        TEST(a_time_limit_cuts_what_waits),
        TEST(what_succeeds_in_spite_of_its_limit_is_ok),
        TEST(a_cancellation_from_outside_is_no_timeout),
        TEST(a_time_limit_needs_a_run_on_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
