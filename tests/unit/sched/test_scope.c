/* SPDX-License-Identifier: Apache-2.0 */
/* test_scope.c - scopes: opening and closing, results, reasons, deadlines, shields, threads,
 * foreign spawns. test_scope_cancel.c has what cancellation reaches. */
#include "support/runs.h"

/* --- opening and closing --- */
RUNS(scopes_nest, 2) {
    klaw_scope *root = klaw_scope_current(), *s[10];
    CHECK(root);
    for (int i = 0; i < 10; i++) {
        s[i] = SCOPE(0);
        CHECK(klaw_scope_current() == s[i]);
    }
    for (int i = 9; i >= 0; i--) {
        CHECK(klaw_scope_current() == s[i]);
        OK(klaw_scope_close(s[i]));
    }
    CHECK(klaw_scope_current() == root);
}

RUNS(a_scope_that_is_not_the_innermost_one_is_not_closed, 1) {
    klaw_scope *a = SCOPE(0), *b = SCOPE(0);
    GIVES(klaw_scope_close(a), KLAW_INVALID);
    GIVES(klaw_scope_close(NULL), KLAW_INVALID);
    CHECK(klaw_scope_current() == b);
    OK(klaw_scope_close(b));
    OK(klaw_scope_close(a));
}

static klaw_err closes_anothers(void *s) {
    GIVES(klaw_scope_close(s), KLAW_INVALID);
    return KLAW_OK;
}

RUNS(nobody_else_closes_a_scope, 2) {
    thread_job t;
    klaw_scope *s = SCOPE(0);
    OK(result_of(fiber(closes_anothers, s)));
    thread_start(&t, closes_anothers, s);
    OK(thread_end(&t));
    GIVES(klaw_scope_close(klaw_scope_current()), KLAW_OK);
    GIVES(klaw_scope_close(klaw_scope_current()), KLAW_INVALID); /* the root */
}

RUNS(open_refuses_bad_arguments, 1) {
    klaw_scope *s = NULL;
    klaw_scope_opts o = {.shield = true};
    GIVES(klaw_scope_open(NULL, NULL), KLAW_INVALID);
    GIVES(klaw_scope_open(&o, &s), KLAW_INVALID); /* a shield needs a deadline */
    CHECK(!s);
    OK(klaw_scope_open(NULL, &s));
    OK(klaw_scope_close(s));
}

RUNS(close_waits_for_every_fiber_of_the_scope, 2) {
    _Atomic int n = 0;
    gate g = gate_make();
    klaw_scope *outer = SCOPE(0);
    klaw_fiber *f = fiber(passes, &g);
    for (int i = 0; i < 200; i++) {
        klaw_scope *s = SCOPE(0);
        for (int k = 0; k < i % 10; k++)
            OK(klaw_go(counts, &n));
        int before = i / 10 * 45 + i % 10 * (i % 10 - 1) / 2;
        OK(klaw_scope_close(s));
        SAME(n, before + i % 10);
    }
    SAME(klaw_scope_live(outer), 1); /* the fibers of inner scopes count there */
    gate_open(&g);
    OK(klaw_scope_close(outer));
    OK(result_of(f));
    gate_free(&g);
}

static klaw_err leaves_scopes_open(void *arg) {
    klaw_scope *a = SCOPE(0), *b = SCOPE(0);
    (void)b;
    OK(klaw_spawn(a, counts, arg, NULL, NULL));
    OK(klaw_go(counts, arg));
    return KLAW_OK;
}

RUNS(a_fiber_that_ends_closes_the_scopes_it_has_left_open, 2) {
    _Atomic int n = 0;
    OK(result_of(fiber(leaves_scopes_open, &n)));
    SAME(n, 2);
    thread_job t;
    thread_start(&t, leaves_scopes_open, &n);
    OK(thread_end(&t));
    SAME(n, 4);
}

/* --- what close returns --- */
RUNS(close_returns_the_first_error_of_a_child, 1) {
    klaw_scope *s = SCOPE(0);
    OK(klaw_go(returns, (void *)KLAW_CANCELLED)); /* is none */
    OK(klaw_go(returns, (void *)KLAW_BACKEND));
    OK(klaw_go(returns, (void *)KLAW_LIMIT));
    CHECK(!klaw_scope_cancelled(s));
    GIVES(klaw_scope_close(s), KLAW_BACKEND);
    s = SCOPE(0);
    OK(klaw_go(returns, (void *)KLAW_CANCELLED));
    OK(klaw_scope_close(s));
}

RUNS(a_childs_error_outranks_the_cancellation, 1) {
    klaw_scope *s = SCOPE(0);
    OK(klaw_go(returns, (void *)KLAW_BACKEND));
    klaw_scope_cancel(s, NULL);
    GIVES(klaw_scope_close(s), KLAW_BACKEND);
    s = SCOPE(.deadline = 1);
    OK(klaw_go(returns, (void *)KLAW_TYPE));
    GIVES(klaw_scope_close(s), KLAW_TYPE);
}

RUNS(cancel_on_error_cancels_the_rest, 2) {
    for (int i = 0; i < 50; i++) {
        klaw_scope *s = SCOPE(.cancel_on_error = true);
        klaw_fiber *a = fiber(parks, NULL), *b = fiber(parks, NULL);
        OK(klaw_go(returns, (void *)KLAW_CANCELLED));
        OK(klaw_go(returns_ok, NULL));
        OK(klaw_spawn(NULL, returns, (void *)KLAW_CORRUPT, &(klaw_fiber_opts){.name = "rotten"},
                      NULL));
        GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
        assert_true(strncmp(klaw_scope_reason(s), "error: ", 7) == 0);
        CHECK(strstr(klaw_scope_reason(s), "CORRUPT") && strstr(klaw_scope_reason(s), "rotten"));
        GIVES(klaw_scope_close(s), KLAW_CORRUPT);
        GIVES(result_of(a), KLAW_CANCELLED);
        GIVES(result_of(b), KLAW_CANCELLED);
    }
}

RUNS(the_last_childs_error_is_not_lost, 2) {
    for (int i = 0; i < 200; i++) {
        klaw_scope *s = SCOPE(.cancel_on_error = i % 2);
        OK(klaw_go(returns, (void *)KLAW_TYPE));
        GIVES(klaw_scope_close(s), KLAW_TYPE);
    }
}

/* --- reasons --- */
RUNS(the_first_reason_wins, 1) {
    char text[] = "the user left";
    klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(1)));
    CHECK(klaw_scope_reason(s) == NULL && !klaw_scope_cancelled(s));
    klaw_scope_cancel(s, text);
    memset(text, 'x', 5); /* it was copied */
    klaw_scope_cancel(s, "another");
    assert_string_equal(klaw_scope_reason(s), "the user left");
    compute(KLAW_MS(2)); /* past its deadline */
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
}

RUNS(a_reason_has_sixty_three_bytes, 1) {
    klaw_scope *s = SCOPE(0);
    char text[101];
    memset(text, 'r', 100);
    text[100] = 0;
    klaw_scope_cancel(s, text);
    SAME(strlen(klaw_scope_reason(s)), 63);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    s = SCOPE(0);
    klaw_scope_cancel(s, NULL);
    assert_string_equal(klaw_scope_reason(s), "cancelled");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    klaw_scope_cancel(NULL, "nothing");
    CHECK(klaw_scope_reason(NULL) == NULL && !klaw_scope_cancelled(NULL));
    SAME(klaw_scope_live(NULL), 0);
}

RUNS(an_ancestors_reason_counts, 1) {
    klaw_scope *a = SCOPE(0), *b = SCOPE(0);
    klaw_scope *c = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS)), *d = SCOPE(0);
    klaw_scope_cancel(a, "from above");
    assert_string_equal(klaw_scope_reason(b), "from above");
    CHECK(!klaw_scope_reason(c) && !klaw_scope_reason(d));
    OK(klaw_scope_close(d));
    OK(klaw_scope_close(c));
    c = SCOPE(0); /* opened afterwards: the same */
    assert_string_equal(klaw_scope_reason(c), "from above");
    GIVES(klaw_scope_close(c), KLAW_CANCELLED);
    GIVES(klaw_scope_close(b), KLAW_CANCELLED);
    GIVES(klaw_scope_close(a), KLAW_CANCELLED);
}

/* --- deadlines --- */
RUNS(a_deadline_cancels, 2) {
    static const klaw_deadline when[] = {KLAW_WITHIN(KLAW_MS(3)), 1, KLAW_NOWAIT};
    for (int i = 0; i < 3; i++) {
        int64_t began = klaw_now();
        klaw_scope *s = SCOPE(.deadline = when[i]);
        klaw_fiber *f = fiber(parks, NULL);
        GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
        CHECK(i > 0 || klaw_now() - began >= KLAW_MS(3));
        assert_string_equal(klaw_scope_reason(s), "deadline");
        GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
        GIVES(result_of(f), KLAW_CANCELLED);
        OK(klaw_check()); /* the scope around is not cancelled */
    }
}

static klaw_err takes_its_time(void *arg) {
    GIVES(parks(arg), KLAW_CANCELLED);
    compute(KLAW_MS(5));
    *(bool *)arg = true;
    return KLAW_OK;
}

RUNS(a_scope_whose_deadline_has_come_still_waits, 2) {
    bool done = false;
    klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(1)));
    OK(klaw_go(takes_its_time, &done));
    GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
    CHECK(done);
}

RUNS(an_inner_scope_of_one_that_timed_out_is_cancelled, 2) {
    klaw_scope *a = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(1))), *b = SCOPE(0);
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    assert_string_equal(klaw_scope_reason(b), "deadline");
    GIVES(klaw_scope_close(b), KLAW_CANCELLED);
    GIVES(klaw_scope_close(a), KLAW_TIMEOUT);
}

RUNS(a_far_deadline_is_forgotten_at_the_close, 2) {
    static const klaw_deadline when[] = {KLAW_FOREVER, KLAW_FOREVER - 1, KLAW_WITHIN(KLAW_S(3600))};
    for (int i = 0; i < 300; i++) {
        klaw_scope *s = SCOPE(.deadline = when[i % 3]);
        OK(klaw_yield());
        OK(klaw_scope_close(s));
    }
}

/* --- waiting without leaving --- */
RUNS(scope_wait_waits_for_the_fibers_there_are, 2) {
    _Atomic int n = 0;
    klaw_scope *s = SCOPE(0);
    OK(klaw_scope_wait(s, KLAW_NOWAIT)); /* none */
    for (int i = 0; i < 20; i++)
        OK(klaw_go(counts, &n));
    OK(klaw_scope_wait(s, KLAW_FOREVER));
    SAME(n, 20);
    CHECK(klaw_scope_current() == s);
    OK(klaw_go(counts, &n));
    OK(klaw_scope_close(s));
    GIVES(klaw_scope_wait(NULL, KLAW_FOREVER), KLAW_INVALID);
}

static klaw_err scope_waits(void *s) {
    return klaw_scope_wait(s, KLAW_FOREVER);
}

RUNS(scope_wait_times_out_and_is_cancelled, 2) {
    klaw_scope *s = SCOPE(0);
    gate g = gate_make();
    OK(klaw_go(passes, &g));
    GIVES(klaw_scope_wait(s, KLAW_NOWAIT), KLAW_TIMEOUT);
    GIVES(klaw_scope_wait(s, 1), KLAW_TIMEOUT);
    GIVES(klaw_scope_wait(s, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    klaw_scope *in = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(1)));
    GIVES(klaw_scope_wait(s, KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_scope_close(in), KLAW_TIMEOUT);
    thread_job t;
    thread_start(&t, scope_waits, s);
    gate_open(&g);
    OK(klaw_scope_wait(s, KLAW_FOREVER));
    OK(thread_end(&t));
    OK(klaw_scope_close(s));
    gate_free(&g);
}

/* --- shields --- */
RUNS(a_shielded_scope_is_not_reached_from_outside, 2) {
    klaw_scope *outer = SCOPE(0);
    klaw_scope_cancel(outer, NULL);
    GIVES(klaw_check(), KLAW_CANCELLED);
    klaw_scope *s = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS)), *in = SCOPE(0);
    OK(klaw_check());
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    OK(result_of(fiber(returns_ok, NULL)));
    OK(klaw_scope_close(in));
    OK(klaw_scope_close(s));
    GIVES(klaw_check(), KLAW_CANCELLED); /* and again outside */
    GIVES(klaw_scope_close(outer), KLAW_CANCELLED);
    OK(klaw_check());
}

RUNS(a_shielded_scope_has_its_own_deadline_and_can_be_cancelled, 2) {
    klaw_scope *s = SCOPE(.shield = true, .deadline = KLAW_WITHIN(KLAW_MS(1)));
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
    s = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS));
    klaw_scope_cancel(s, "itself");
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
}

static klaw_err shielded_inside(void *arg) {
    klaw_scope *s = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS));
    GIVES(gate_wait(arg), KLAW_CLOSED); /* not cancelled in the middle */
    OK(klaw_scope_close(s));
    return klaw_sleep(KLAW_FOREVER);
}

RUNS(what_runs_shielded_when_the_cancellation_comes_finishes, 2) {
    gate g = gate_make();
    klaw_scope *s = SCOPE(0);
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "sh"}, shielded_inside, &g);
    UNTIL(waiting("sh", "recv") == 1);
    klaw_scope_cancel(s, NULL);
    klaw_fiber_cancel(f);
    SAME(waiting("sh", "recv"), 1);
    gate_open(&g);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(result_of(f), KLAW_CANCELLED);
    gate_free(&g);
}

/* --- spawning into another's scope --- */
static klaw_err spawns_into(void *arg) {
    void **p = arg;
    for (int i = 0; i < 50; i++)
        OK(klaw_spawn(p[0], counts, p[1], NULL, NULL));
    return KLAW_OK;
}

RUNS(a_fiber_may_be_spawned_into_a_foreign_scope, 2) {
    _Atomic int n = 0;
    klaw_scope *s = SCOPE(0);
    klaw_scope *in = SCOPE(0);
    void *p[] = {s, &n};
    thread_job t;
    thread_start(&t, spawns_into, p);
    OK(result_of(fiber(spawns_into, p)));
    OK(thread_end(&t));
    OK(klaw_scope_close(in));
    OK(klaw_scope_close(s));
    SAME(n, 100);
}

RUNS(nothing_is_spawned_into_a_closed_scope, 2) {
    klaw_fiber *f = NULL;
    klaw_scope *s = klaw_scope_ref(SCOPE(0));
    OK(klaw_scope_close(s));
    GIVES(klaw_spawn(s, returns_ok, NULL, NULL, &f), KLAW_STOPPED);
    GIVES(klaw_spawn(s, returns_ok, NULL, &(klaw_fiber_opts){.name = "n"}, NULL), KLAW_STOPPED);
    CHECK(!f);
    klaw_scope_unref(s);
}

static klaw_err spawns_until_stopped(void *arg) {
    void **p = arg;
    uint64_t *accepted = p[2];
    klaw_err e;
    while ((e = klaw_spawn(p[0], counts, p[1], NULL, NULL)) == KLAW_OK) {
        ++*accepted;
        compute(SANITIZED ? KLAW_MS(2) : KLAW_US(20)); /* not faster than they end */
    }
    GIVES(e, KLAW_STOPPED);
    klaw_scope_unref(p[0]);
    return KLAW_OK;
}

RUNS(a_spawn_into_a_scope_that_is_being_closed_is_refused_or_waited_for, 2) {
    for (int i = 0; i < 100; i++) {
        _Atomic int n = 0;
        uint64_t accepted = 0;
        klaw_scope *s = SCOPE(0);
        void *p[] = {klaw_scope_ref(s), &n, &accepted};
        thread_job t;
        thread_start(&t, spawns_until_stopped, p);
        UNTIL(n > 0);
        OK(klaw_scope_close(s));
        int at_close = n;
        OK(thread_end(&t));
        SAME(n, at_close);
        SAME(n, accepted);
    }
}

/* --- from outside --- */
static klaw_err cancels(void *arg) {
    klaw_scope *s = arg;
    klaw_scope_cancel(s, "from a thread");
    klaw_scope_unref(s);
    return KLAW_OK;
}

RUNS(a_thread_cancels_a_scope_while_it_closes_and_after, 2) {
    for (int i = 0; i < 200; i++) {
        thread_job t;
        klaw_scope *s = SCOPE(0);
        thread_start(&t, cancels, klaw_scope_ref(s));
        compute(KLAW_US(i % 40));
        klaw_err e = klaw_scope_close(s);
        CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
        OK(klaw_check()); /* not left behind */
        OK(thread_end(&t));
        OK(klaw_check());
    }
}

RUNS(a_closed_scope_answers_harmlessly, 1) {
    klaw_scope *s = klaw_scope_ref(SCOPE(.name = "gone"));
    OK(klaw_scope_close(s));
    klaw_scope_cancel(s, "late");
    SAME(klaw_scope_live(s), 0);
    OK(klaw_scope_wait(s, KLAW_FOREVER));
    GIVES(klaw_scope_close(s), KLAW_INVALID);
    OK(klaw_check());
    klaw_scope_unref(s);
    klaw_scope_unref(NULL);
}

/* --- threads --- */
static klaw_err thread_opens_scopes(void *arg) {
    _Atomic int *n = arg;
    CHECK(klaw_scope_current() == NULL);
    for (int i = 0; i < 50; i++) {
        klaw_scope *a = SCOPE(0), *b = SCOPE(.deadline = KLAW_WITHIN(KLAW_US(i % 10 * 100 + 1)));
        CHECK(klaw_scope_current() == b);
        OK(klaw_go(counts, n));
        OK(klaw_spawn(a, counts, n, NULL, NULL));
        GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
        GIVES(klaw_scope_close(b), KLAW_TIMEOUT);
        OK(klaw_sleep(KLAW_WITHIN(1)));
        klaw_scope_cancel(a, NULL);
        GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
        GIVES(klaw_scope_close(a), KLAW_CANCELLED);
        CHECK(klaw_scope_current() == NULL);
        OK(klaw_check());
    }
    return KLAW_OK;
}

RUNS(threads_open_scopes_too, 2) {
    thread_job t[2];
    _Atomic int n = 0;
    for (int i = 0; i < 2; i++)
        thread_start(&t[i], thread_opens_scopes, &n);
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
    SAME(n, 200);
}

static klaw_err thread_in_a_stopped_run(void *arg) {
    klaw_scope *s = SCOPE(0);
    (void)arg;
    OK(klaw_run_stop("stop"));
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    assert_string_equal(klaw_scope_reason(s), "stop");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    OK(klaw_sleep(KLAW_WITHIN(1))); /* outside of its scope a thread is not cancelled */
    return KLAW_OK;
}

static klaw_err joins_the_thread(void *arg) {
    thread_job *t = arg;
    thread_start(t, thread_in_a_stopped_run, NULL);
    GIVES(parks(NULL), KLAW_CANCELLED);
    return thread_end(t);
}

PLAIN(stopping_the_run_reaches_the_scopes_of_threads) {
    thread_job t;
    GIVES(klaw_run(joins_the_thread, &t, NULL), KLAW_CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(scopes_nest),
        TEST(a_scope_that_is_not_the_innermost_one_is_not_closed),
        TEST(nobody_else_closes_a_scope),
        TEST(open_refuses_bad_arguments),
        TEST(close_waits_for_every_fiber_of_the_scope),
        TEST(a_fiber_that_ends_closes_the_scopes_it_has_left_open),
        TEST(close_returns_the_first_error_of_a_child),
        TEST(a_childs_error_outranks_the_cancellation),
        TEST(cancel_on_error_cancels_the_rest),
        TEST(the_last_childs_error_is_not_lost),
        TEST(the_first_reason_wins),
        TEST(a_reason_has_sixty_three_bytes),
        TEST(an_ancestors_reason_counts),
        TEST(a_deadline_cancels),
        TEST(a_scope_whose_deadline_has_come_still_waits),
        TEST(an_inner_scope_of_one_that_timed_out_is_cancelled),
        TEST(a_far_deadline_is_forgotten_at_the_close),
        TEST(scope_wait_waits_for_the_fibers_there_are),
        TEST(scope_wait_times_out_and_is_cancelled),
        TEST(a_shielded_scope_is_not_reached_from_outside),
        TEST(a_shielded_scope_has_its_own_deadline_and_can_be_cancelled),
        TEST(what_runs_shielded_when_the_cancellation_comes_finishes),
        TEST(a_fiber_may_be_spawned_into_a_foreign_scope),
        TEST(nothing_is_spawned_into_a_closed_scope),
        TEST(a_spawn_into_a_scope_that_is_being_closed_is_refused_or_waited_for),
        TEST(a_thread_cancels_a_scope_while_it_closes_and_after),
        TEST(a_closed_scope_answers_harmlessly),
        TEST(threads_open_scopes_too),
        TEST(stopping_the_run_reaches_the_scopes_of_threads),
    };
    return cmocka_run_group_tests_name("scope", tests, NULL, NULL);
}
