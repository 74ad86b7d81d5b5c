/* SPDX-License-Identifier: Apache-2.0 */
/* test_run.c - klaw_run: its result, its options, its deadline, being stopped, running again, and
 * foreign threads at its end. */
#include "support/runs.h"

/* --- results --- */
static void run_returns_the_error_of_main(void **state) {
    (void)state;
    OK(klaw_run(returns, (void *)KLAW_OK, NULL));
    GIVES(klaw_run(returns, (void *)KLAW_NOT_FOUND, NULL), KLAW_NOT_FOUND);
    GIVES(klaw_run(returns, (void *)KLAW_CANCELLED, NULL), KLAW_CANCELLED);
}

static klaw_err leaves_a_failing_child(void *arg) {
    OK(klaw_go(returns, (void *)KLAW_BACKEND));
    return (klaw_err)(intptr_t)arg;
}

static void run_returns_the_first_error_of_the_root_scope_when_main_has_none(void **state) {
    (void)state;
    GIVES(klaw_run(leaves_a_failing_child, (void *)KLAW_OK, NULL), KLAW_BACKEND);
    GIVES(klaw_run(leaves_a_failing_child, (void *)KLAW_LIMIT, NULL), KLAW_LIMIT);
}

static klaw_err leaves_a_cancelled_child(void *arg) {
    (void)arg;
    OK(klaw_go(returns, (void *)KLAW_CANCELLED));
    return KLAW_OK;
}

static void run_takes_a_cancelled_child_for_no_error(void **state) {
    (void)state;
    OK(klaw_run(leaves_a_cancelled_child, NULL, NULL));
}

static _Atomic int counted;

static klaw_err leaves_many(void *arg) {
    (void)arg;
    for (int i = 0; i < 1000; i++)
        OK(klaw_go(counts, &counted));
    return KLAW_OK;
}

PLAIN(run_waits_for_every_fiber) {
    for (uint32_t workers = 0; workers <= 8; workers = workers < 2 ? workers + 1 : workers * 4) {
        klaw_run_opts o = {.workers = workers};
        atomic_store(&counted, 0);
        OK(klaw_run(leaves_many, NULL, &o));
        SAME(atomic_load(&counted), 1000);
    }
}

/* --- options --- */
static klaw_err tells_workers(void *arg) {
    *(uint32_t *)arg = klaw_run_workers();
    return KLAW_OK;
}

PLAIN(run_starts_as_many_workers_as_asked) {
    static const uint32_t asked[] = {1, 2, 8, 256};
    uint32_t n = 0;
    SAME(klaw_run_workers(), 0);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        klaw_run_opts o = {.workers = asked[i]};
        OK(klaw_run(tells_workers, &n, &o));
        SAME(n, asked[i]);
        SAME(klaw_run_workers(), 0);
    }
    OK(klaw_run(tells_workers, &n, NULL));
    CHECK(n >= 1);
}

PLAIN(run_refuses_bad_options) {
    klaw_run_opts o = {.workers = 257};
    GIVES(klaw_run(returns_ok, NULL, &o), KLAW_INVALID);
    o = (klaw_run_opts){.grace = -1};
    GIVES(klaw_run(returns_ok, NULL, &o), KLAW_INVALID);
    o = (klaw_run_opts){.stack_size = 1000};
    GIVES(klaw_run(returns_ok, NULL, &o), KLAW_INVALID);
    o = (klaw_run_opts){.stack_size = ((size_t)1 << 30) + 1};
    GIVES(klaw_run(returns_ok, NULL, &o), KLAW_INVALID);
    GIVES(klaw_run(NULL, NULL, NULL), KLAW_INVALID);
}

PLAIN(run_takes_options_of_an_older_program) {
    struct {
        klaw_run_opts now;
        uint64_t later;
    } newer = {{.workers = 1}, 7};
    uint32_t n = 0, workers = 2;
    OK(klaw_run_sized(tells_workers, &n, (const klaw_run_opts *)(const void *)&workers, 4));
    SAME(n, 2);
    OK(klaw_run_sized(tells_workers, &n, &newer.now, sizeof newer));
    SAME(n, 1);
}

static klaw_err tells_name(void *arg) {
    snprintf(arg, 64, "%s", klaw_self_name());
    return KLAW_OK;
}

PLAIN(run_names_the_fiber_of_main) {
    char name[64];
    klaw_run_opts o = {.name = "a name of more than thirty-one bytes"};
    OK(klaw_run(tells_name, name, NULL));
    assert_string_equal(name, "main");
    OK(klaw_run(tells_name, name, &o));
    assert_string_equal(name, "a name of more than thirty-one ");
}

/* --- its deadline, and being stopped --- */
static klaw_err parks_and_says_ok(void *arg) {
    GIVES(parks(arg), KLAW_CANCELLED);
    return KLAW_OK;
}

PLAIN(run_cancels_at_its_deadline_and_answers_timeout) {
    klaw_run_opts o = {.workers = 2, .deadline = KLAW_WITHIN(KLAW_MS(20))};
    int64_t began = klaw_now();
    GIVES(klaw_run(parks_and_says_ok, NULL, &o), KLAW_TIMEOUT);
    CHECK(klaw_now() - began >= KLAW_MS(20));
    o.deadline = klaw_after(KLAW_MS(5));
    GIVES(klaw_run(parks, NULL, &o), KLAW_TIMEOUT);
    o.deadline = 1;
    GIVES(klaw_run(parks, NULL, &o), KLAW_TIMEOUT);
    o.deadline = KLAW_NOWAIT;
    GIVES(klaw_run(parks, NULL, &o), KLAW_TIMEOUT);
}

PLAIN(run_with_a_deadline_that_does_not_come_is_ok) {
    klaw_run_opts o = {.deadline = KLAW_WITHIN(KLAW_S(3600))};
    OK(klaw_run(returns_ok, NULL, &o));
    o.deadline = KLAW_FOREVER;
    OK(klaw_run(returns_ok, NULL, &o));
}

static klaw_err stops_itself(void *arg) {
    klaw_scope *root = klaw_scope_current();
    (void)arg;
    OK(klaw_go(parks, NULL));
    OK(klaw_run_stop("enough"));
    OK(klaw_run_stop("too late"));
    assert_string_equal(klaw_scope_reason(root), "enough");
    GIVES(parks(NULL), KLAW_CANCELLED);
    return KLAW_OK;
}

PLAIN(run_stop_cancels_the_root_scope) {
    GIVES(klaw_run_stop("nobody there"), KLAW_STOPPED);
    GIVES(klaw_run(stops_itself, NULL, NULL), KLAW_CANCELLED);
    GIVES(klaw_run_stop(NULL), KLAW_STOPPED);
}

static klaw_err stops(void *arg) {
    (void)arg;
    UNTIL(klaw_run_workers() > 0);
    while (klaw_run_stop("from outside") != KLAW_OK)
        ;
    return KLAW_OK;
}

PLAIN(run_is_stopped_by_another_thread) {
    for (int i = 0; i < 50; i++) {
        thread_job t;
        thread_start(&t, stops, NULL);
        GIVES(klaw_run(parks, NULL, NULL), KLAW_CANCELLED);
        OK(thread_end(&t));
    }
}

/* --- one at a time --- */
static klaw_err runs_another(void *arg) {
    (void)arg;
    return klaw_run(returns_ok, NULL, NULL);
}

static klaw_err main_of_nested(void *arg) {
    thread_job t;
    (void)arg;
    GIVES(klaw_run(returns_ok, NULL, NULL), KLAW_EXISTS);
    thread_start(&t, runs_another, NULL);
    GIVES(thread_end(&t), KLAW_EXISTS);
    GIVES(klaw_blocking(runs_another, NULL), KLAW_EXISTS);
    return KLAW_OK;
}

PLAIN(run_is_refused_while_one_runs) {
    OK(klaw_run(main_of_nested, NULL, NULL));
    OK(klaw_run(main_of_nested, NULL, NULL));
}

PLAIN(run_two_hundred_times) {
    for (uint32_t i = 0; i < 200; i++) {
        klaw_run_opts o = {.workers = 1 + i % 4};
        atomic_store(&counted, 0);
        OK(klaw_run(leaves_many, NULL, &o));
        SAME(atomic_load(&counted), 1000);
        if (i % 16 == 0)
            klaw_alloc_trim();
    }
}

/* --- without a runtime --- */
PLAIN(nothing_is_spawned_without_a_runtime) {
    klaw_fiber *f = NULL;
    klaw_scope *s = NULL;
    GIVES(klaw_go(returns_ok, NULL), KLAW_STOPPED);
    GIVES(klaw_spawn(NULL, returns_ok, NULL, NULL, &f), KLAW_STOPPED);
    GIVES(klaw_scope_open(NULL, &s), KLAW_STOPPED);
    CHECK(!f && !s);
    CHECK(klaw_scope_current() == NULL);
    SAME(klaw_self_id(), 0);
    assert_string_equal(klaw_self_name(), "thread");
    OK(klaw_yield());
    OK(klaw_check());
}

/* --- foreign threads at the end of a run: a spawn is refused or it is carried out, never lost ---
 * */
static _Atomic bool enough;
static _Atomic uint64_t accepted;

static klaw_err carries_out(void *arg) {
    atomic_store((_Atomic bool *)arg, true);
    return KLAW_OK;
}

static klaw_err spawns_always(void *arg) {
    (void)arg;
    for (int64_t i = 0; !atomic_load(&enough); i++) {
        _Atomic bool done = false;
        klaw_err e = klaw_go(carries_out, &done);
        CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        atomic_fetch_add(&accepted, e == KLAW_OK);
        UNTIL(e || atomic_load(&done));
        compute(KLAW_US(i % 50)); /* the run has to find a moment without */
    }
    return KLAW_OK;
}

PLAIN(foreign_threads_may_spawn_while_the_run_ends) {
    thread_job t[2];
    atomic_store(&enough, false);
    for (int i = 0; i < 2; i++)
        thread_start(&t[i], spawns_always, NULL);
    for (uint32_t i = 0; i < 100 || atomic_load(&accepted) < 100; i++) {
        klaw_run_opts o = {.workers = 1 + i % 3};
        OK(klaw_run(returns_ok, NULL, &o));
    }
    atomic_store(&enough, true);
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
}

/* A thread's scope belongs to the root scope: its fibers are waited for too. */
static _Atomic int inside;

static klaw_err scope_of_a_thread(void *arg) {
    klaw_scope *s = SCOPE(.name = "thread's");
    OK(klaw_go(passes, arg));
    atomic_store(&inside, 1);
    UNTIL(waiting("fiber", "recv") == 1);
    UNTIL(atomic_load(&inside) == 2); /* main is about to end, or has */
    compute(KLAW_MS(5));
    gate_open(arg);
    OK(klaw_scope_close(s));
    return KLAW_OK;
}

static klaw_err ends_at_once(void *arg) {
    thread_start(arg, scope_of_a_thread, (gate *)(void *)((thread_job *)arg + 1));
    UNTIL(atomic_load(&inside) == 1);
    atomic_store(&inside, 2);
    return KLAW_OK;
}

PLAIN(run_waits_for_the_scopes_of_threads) {
    struct {
        thread_job t;
        gate g;
    } it = {.g = gate_make()};
    atomic_store(&inside, 0);
    OK(klaw_run(ends_at_once, &it, NULL));
    CHECK(atomic_load(&it.t.done) || klaw_run_workers() == 0);
    OK(thread_end(&it.t));
    gate_free(&it.g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(run_returns_the_error_of_main),
        TEST(run_returns_the_first_error_of_the_root_scope_when_main_has_none),
        TEST(run_takes_a_cancelled_child_for_no_error),
        TEST(run_waits_for_every_fiber),
        TEST(run_starts_as_many_workers_as_asked),
        TEST(run_refuses_bad_options),
        TEST(run_takes_options_of_an_older_program),
        TEST(run_names_the_fiber_of_main),
        TEST(run_cancels_at_its_deadline_and_answers_timeout),
        TEST(run_with_a_deadline_that_does_not_come_is_ok),
        TEST(run_stop_cancels_the_root_scope),
        TEST(run_is_stopped_by_another_thread),
        TEST(run_is_refused_while_one_runs),
        TEST(run_two_hundred_times),
        TEST(nothing_is_spawned_without_a_runtime),
        TEST(foreign_threads_may_spawn_while_the_run_ends),
        TEST(run_waits_for_the_scopes_of_threads),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
