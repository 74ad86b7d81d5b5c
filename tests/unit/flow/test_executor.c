/* SPDX-License-Identifier: Apache-2.0 */
/* test_executor.c - tasks: handed over, run within the bound, ended, cancelled, joined, given back.
 * Tried with the mutants of tests/interleave/test_executor.c. */
#include "flow/executor.h"
#include "support/runs.h"

static klaw_executor *open_with(klaw_executor_opts o) {
    klaw_executor *ex = NULL;
    OK(klaw_executor_open(&o, &ex));
    return ex;
}
#define EXECUTOR(...) open_with((klaw_executor_opts){__VA_ARGS__})

static void done_with(klaw_executor *ex) {
    OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    klaw_executor_unref(ex);
}

static klaw_task *submit(klaw_executor *ex, klaw_fn fn, void *arg) {
    klaw_task *t = NULL;
    OK(klaw_submit(ex, fn, arg, NULL, &t));
    return t;
}

static klaw_task *submit_with(klaw_executor *ex, klaw_fn fn, void *arg, klaw_task_opts o) {
    klaw_task *t = NULL;
    OK(klaw_submit(ex, fn, arg, &o, &t));
    return t;
}

/* How it ended; the handle is used up. */
static klaw_err ending(klaw_task *t) {
    klaw_err e = KLAW_OK;
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, NULL));
    klaw_task_unref(t);
    return e;
}

static klaw_executor_stats stats_of(klaw_executor *ex) {
    klaw_executor_stats s;
    klaw_executor_get_stats(ex, &s);
    return s;
}

static klaw_err sets_value(void *arg) {
    klaw_set_value(arg);
    return KLAW_OK;
}

RUNS(a_task_gives_its_value, 2) {
    klaw_executor *ex = EXECUTOR(.name = "small");
    int x = 0;
    void *value = NULL;
    klaw_err e = KLAW_INVALID;
    klaw_task *t = submit(ex, sets_value, &x);
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, &value));
    OK(e);
    CHECK(value == &x);
    OK(klaw_task_join(t, KLAW_NOWAIT, NULL, NULL)); /* as often as one likes */
    CHECK(strcmp(klaw_task_exit_reason(t), "ok") == 0);
    CHECK(strcmp(klaw_task_name(t), "task") == 0);
    CHECK(!klaw_task_is_running(t));
    SAME(klaw_task_id(t), 1);
    klaw_task_unref(t);
    t = submit(ex, returns_ok, NULL); /* nothing is left of the value of the one before */
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, &value));
    CHECK(!value);
    klaw_task_unref(t);
    klaw_executor_stats s = stats_of(ex);
    CHECK(strcmp(s.name, "small") == 0);
    SAME(s.submitted, 2);
    SAME(s.succeeded, 2);
    SAME(s.concurrency, 256);
    done_with(ex);
}

RUNS(errors_are_values, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, returns, (void *)(intptr_t)KLAW_NOT_FOUND);
    klaw_err e = KLAW_OK;
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, NULL));
    GIVES(e, KLAW_NOT_FOUND);
    CHECK(strcmp(klaw_task_exit_reason(t), "error: NOT_FOUND") == 0);
    klaw_task_unref(t);
    SAME(stats_of(ex).failed, 1);
    done_with(ex);
}

static _Atomic int inside, most;
static gate G;

static klaw_err enters(void *arg) {
    (void)arg;
    int now = atomic_fetch_add(&inside, 1) + 1, seen = atomic_load(&most);
    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
        ;
    klaw_err e = gate_wait(&G);
    atomic_fetch_sub(&inside, 1);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

RUNS(no_more_run_than_allowed_and_no_fewer, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 5);
    klaw_task *t[20];
    G = gate_make();
    atomic_store(&most, 0);
    for (int i = 0; i < 20; i++)
        t[i] = submit(ex, enters, NULL);
    UNTIL(atomic_load(&inside) == 5);
    SAME(stats_of(ex).running, 5);
    SAME(stats_of(ex).queued, 15);
    GIVES(klaw_executor_wait(ex, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_executor_wait(ex, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(klaw_task_join(t[0], KLAW_NOWAIT, NULL, NULL), KLAW_EMPTY);
    GIVES(klaw_task_join(t[0], KLAW_WITHIN(KLAW_MS(1)), NULL, NULL), KLAW_TIMEOUT);
    CHECK(klaw_task_is_running(t[0]) && !klaw_task_exit_reason(t[0]));
    gate_open(&G);
    for (int i = 0; i < 20; i++)
        OK(ending(t[i]));
    CHECK(atomic_load(&most) <= 5);
    OK(klaw_executor_wait(ex, KLAW_WITHIN(SOON_NS)));
    gate_free(&G);
    done_with(ex);
}

RUNS(without_a_bound_all_wait_together, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = KLAW_NONE);
    G = gate_make();
    for (int i = 0; i < 1000; i++)
        OK(klaw_submit(ex, enters, NULL, NULL, NULL));
    UNTIL(atomic_load(&inside) == 1000);
    gate_open(&G);
    OK(klaw_executor_wait(ex, KLAW_WITHIN(SOON_NS)));
    SAME(stats_of(ex).succeeded, 1000);
    gate_free(&G);
    done_with(ex);
}

/* --- cancelling --- */

static _Atomic int released;
static void releases(void *arg) {
    CHECK(arg);
    atomic_fetch_add(&released, 1);
}

RUNS(a_task_cancelled_in_the_queue_never_runs, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    _Atomic int ran = 0;
    G = gate_make();
    atomic_store(&released, 0);
    klaw_task *first = submit(ex, enters, NULL);
    klaw_task *t = submit_with(ex, counts, &ran, (klaw_task_opts){.release = releases});
    UNTIL(atomic_load(&inside) == 1);
    klaw_task_cancel(t, "not wanted");
    klaw_task_cancel(t, "too late");
    CHECK(strcmp(klaw_task_exit_reason(t), "not wanted") == 0);
    klaw_err e = KLAW_OK;
    void *value = &ran;
    OK(klaw_task_join(t, KLAW_NOWAIT, &e, &value));
    GIVES(e, KLAW_CANCELLED);
    CHECK(!value);
    klaw_task_unref(t);
    SAME(stats_of(ex).queued, 0);
    gate_open(&G);
    OK(ending(first));
    OK(klaw_executor_wait(ex, KLAW_WITHIN(SOON_NS)));
    SAME(ran, 0);
    SAME(released, 1);
    gate_free(&G);
    done_with(ex);
}

RUNS(a_running_task_is_cancelled_and_no_other, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, parks, NULL), *next = submit(ex, enters, NULL);
    klaw_err e = KLAW_OK;
    G = gate_make();
    UNTIL(klaw_task_is_running(t));
    klaw_task_cancel(t, NULL);
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, NULL));
    GIVES(e, KLAW_CANCELLED);
    CHECK(strcmp(klaw_task_exit_reason(t), "cancelled") == 0);
    klaw_task_cancel(t, "again");
    klaw_task_unref(t);
    UNTIL(klaw_task_is_running(next)); /* the same fiber, and it waits */
    GIVES(klaw_task_join(next, KLAW_WITHIN(KLAW_MS(2)), NULL, NULL), KLAW_TIMEOUT);
    gate_open(&G);
    OK(ending(next));
    SAME(stats_of(ex).cancelled, 1);
    gate_free(&G);
    done_with(ex);
}

static klaw_err in_a_scope(void *arg) {
    klaw_scope *s = SCOPE(.name = "own");
    OK(klaw_go(parks, NULL));
    (void)arg;
    return klaw_scope_close(s);
}

static klaw_err leaves_a_scope(void *arg) {
    (void)SCOPE(.name = "left");
    return arg ? klaw_sleep(KLAW_FOREVER) : klaw_go(returns_ok, NULL);
}

RUNS(cancelling_reaches_the_scopes_of_a_task, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, in_a_scope, NULL);
    UNTIL(waiting("fiber", "sleep") == 1);
    klaw_task_cancel(t, "stop");
    GIVES(ending(t), KLAW_CANCELLED);
    t = submit(ex, leaves_a_scope, &ex);
    UNTIL(klaw_task_is_running(t));
    klaw_task_cancel(t, "stop");
    GIVES(ending(t), KLAW_CANCELLED);
    OK(ending(submit(ex, leaves_a_scope, NULL)));
    done_with(ex);
}

static klaw_err succeeds_all_the_same(void *arg) {
    (void)arg;
    CHECK(klaw_sleep(KLAW_FOREVER) == KLAW_CANCELLED);
    return KLAW_OK;
}

RUNS(what_completes_in_spite_of_its_cancellation_is_ok, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, succeeds_all_the_same, NULL);
    UNTIL(klaw_task_is_running(t));
    klaw_task_cancel(t, "stop");
    OK(ending(t));
    done_with(ex);
}

RUNS(the_executors_scope_cancels_its_tasks, 2) {
    klaw_scope *s = SCOPE(.name = "s");
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    _Atomic int ran = 0;
    atomic_store(&released, 0);
    klaw_task *t = submit(ex, parks, NULL);
    klaw_task *q = submit_with(ex, counts, &ran, (klaw_task_opts){.release = releases});
    UNTIL(klaw_task_is_running(t));
    klaw_scope_cancel(s, "scope is over");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    SAME(released, 1);
    SAME(ran, 0);
    CHECK(strcmp(klaw_task_exit_reason(t), "scope is over") == 0);
    CHECK(strcmp(klaw_task_exit_reason(q), "scope is over") == 0);
    GIVES(ending(t), KLAW_CANCELLED);
    GIVES(ending(q), KLAW_CANCELLED);
    GIVES(klaw_submit(ex, counts, &ran, NULL, NULL), KLAW_STOPPED);
    done_with(ex);
}

/* --- deadlines --- */

RUNS(a_deadline_ends_a_task, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1, .task = {.deadline = KLAW_WITHIN(KLAW_MS(2))});
    _Atomic int ran = 0;
    atomic_store(&released, 0);
    klaw_task *t = submit(ex, parks, NULL);
    klaw_task *q = submit_with(ex, counts, &ran,
                               (klaw_task_opts){.release = releases, .deadline = KLAW_NOWAIT});
    klaw_err e = KLAW_OK;
    OK(klaw_task_join(q, KLAW_WITHIN(SOON_NS), &e, NULL));
    if (e)
        GIVES(e, KLAW_TIMEOUT);
    else
        SAME(ran, 1); /* it was faster than the timer */
    OK(klaw_task_join(t, KLAW_WITHIN(SOON_NS), &e, NULL));
    GIVES(e, KLAW_TIMEOUT);
    CHECK(strcmp(klaw_task_exit_reason(t), "deadline") == 0);
    klaw_task_unref(t);
    klaw_task_unref(q);
    t = submit_with(ex, returns_ok, NULL, (klaw_task_opts){.deadline = KLAW_FOREVER});
    OK(ending(t));
    OK(klaw_executor_wait(ex, KLAW_WITHIN(SOON_NS)));
    SAME(released, 1);
    done_with(ex);
}

RUNS(a_deadline_ends_a_task_in_the_queue, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    _Atomic int ran = 0;
    G = gate_make();
    atomic_store(&released, 0);
    klaw_task *first = submit(ex, enters, NULL);
    klaw_task *t =
        submit_with(ex, counts, &ran,
                    (klaw_task_opts){.release = releases, .deadline = KLAW_WITHIN(KLAW_MS(1))});
    GIVES(ending(t), KLAW_TIMEOUT); /* while the first still holds the place */
    SAME(stats_of(ex).timed_out, 1);
    gate_open(&G);
    OK(ending(first));
    done_with(ex);
    SAME(ran, 0);
    SAME(released, 1);
    gate_free(&G);
}

/* --- options --- */

static klaw_err second_time(void *arg) {
    return atomic_fetch_add((_Atomic int *)arg, 1) == 0 ? KLAW_SYSTEM : KLAW_OK;
}

RUNS(a_task_is_tried_again, 2) {
    klaw_retry_opts r = {.attempts = 2, .backoff = {.base = KLAW_NONE}};
    klaw_executor *ex = EXECUTOR(.concurrency = 1, .task = {.retry = &r});
    _Atomic int calls = 0;
    r.attempts = 1; /* copied */
    OK(ending(submit(ex, second_time, &calls)));
    SAME(calls, 2);
    GIVES(ending(submit_with(ex, returns, (void *)(intptr_t)KLAW_SYSTEM,
                             (klaw_task_opts){.name = "x", .blocking = 1})),
          KLAW_SYSTEM);
    done_with(ex);
}

static klaw_err off_the_workers(void *arg) {
    *(bool *)arg = klaw_self_id() == 0;
    return KLAW_LIMIT;
}

RUNS(a_blocking_task_has_a_thread_of_its_own, 1) {
    klaw_executor *ex = EXECUTOR(.task = {.blocking = 1});
    bool off = false;
    GIVES(ending(submit(ex, off_the_workers, &off)), KLAW_LIMIT);
    CHECK(off);
    GIVES(ending(submit_with(ex, off_the_workers, &off, (klaw_task_opts){.blocking = KLAW_NONE})),
          KLAW_LIMIT);
    CHECK(!off);
    done_with(ex);
}

static klaw_err same_request(void *arg) {
    const char *id = klaw_context_request_id(klaw_context_current());
    return (id && arg && strcmp(id, arg) == 0) || (!id && !arg) ? KLAW_OK : KLAW_INVALID;
}

RUNS(a_task_has_the_context_of_its_submitter, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_context *a, *b;
    klaw_context_token token;
    char ra[] = "r-a", rb[] = "r-b";
    OK(klaw_context_with_request_id(NULL, ra, &a));
    OK(klaw_context_with_request_id(NULL, rb, &b));
    OK(klaw_context_enter(a, &token));
    klaw_task *t = submit(ex, same_request, ra);
    klaw_task *u = submit_with(ex, same_request, rb, (klaw_task_opts){.context = b});
    klaw_context_leave(&token);
    klaw_task *v = submit(ex, same_request, NULL);
    klaw_context_unref(a);
    klaw_context_unref(b);
    OK(ending(t));
    OK(ending(u));
    OK(ending(v));
    done_with(ex);
}

RUNS(names_come_from_the_task_then_the_default, 1) {
    klaw_executor *ex = EXECUTOR(.task = {.name = "usual"});
    klaw_task *t = submit(ex, returns_ok, NULL);
    klaw_task *u = submit_with(ex, returns_ok, NULL, (klaw_task_opts){.name = "special"});
    klaw_task *v = submit_with(ex, returns_ok, NULL, (klaw_task_opts){.deadline = KLAW_FOREVER});
    CHECK(strcmp(klaw_task_name(t), "usual") == 0);
    CHECK(strcmp(klaw_task_name(u), "special") == 0);
    CHECK(strcmp(klaw_task_name(v), "usual") == 0);
    OK(ending(t));
    OK(ending(u));
    OK(ending(v));
    done_with(ex);
}

RUNS(wrong_arguments_are_refused, 1) {
    klaw_executor *ex = NULL;
    GIVES(klaw_executor_open(&(klaw_executor_opts){.concurrency = -2}, &ex), KLAW_INVALID);
    GIVES(klaw_executor_open(&(klaw_executor_opts){.task = {.blocking = -2}}, &ex), KLAW_INVALID);
    GIVES(klaw_executor_open(&(klaw_executor_opts){.stack_size = 1}, &ex), KLAW_INVALID);
    GIVES(klaw_executor_open(NULL, NULL), KLAW_INVALID);
    ex = EXECUTOR(.name = NULL);
    GIVES(klaw_submit(NULL, returns_ok, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_submit(ex, NULL, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_submit(ex, returns_ok, NULL, &(klaw_task_opts){.blocking = -2}, NULL), KLAW_INVALID);
    GIVES(klaw_task_join(NULL, KLAW_NOWAIT, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_executor_wait(NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_executor_close(NULL, KLAW_NOWAIT, NULL), KLAW_INVALID);
    klaw_task_cancel(NULL, NULL);
    klaw_task_unref(NULL);
    klaw_executor_unref(NULL);
    klaw_executor_shut(NULL);
    klaw_executor_cancel(NULL, NULL);
    CHECK(!klaw_task_ref(NULL) && !klaw_executor_ref(NULL) && !klaw_task_is_running(NULL));
    CHECK(!klaw_task_exit_reason(NULL) && !klaw_task_name(NULL) && !klaw_task_id(NULL));
    done_with(ex);
}

static klaw_err goes_deep(void *arg) {
    volatile char big[900 * 1024];
    big[0] = big[sizeof big - 1] = (char)(arg != NULL);
    return big[0] ? KLAW_INVALID : KLAW_OK;
}

RUNS(tasks_have_the_stack_they_were_given, 1) {
    klaw_executor *ex = EXECUTOR(.stack_size = 1 << 20);
    OK(ending(submit(ex, goes_deep, NULL)));
    done_with(ex);
}

/* --- what inspect sees --- */

static void count_tasks(const klaw_task *t, void *user) {
    CHECK(strcmp(klawi_task_name(t), "seen") == 0);
    ++*(size_t *)user;
}

static void find_tasks(klaw_executor *ex, void *user) {
    klaw_executor_stats s = {0};
    klawi_executor_stats(ex, &s);
    if (strcmp(s.name, "inspected") == 0)
        klawi_tasks_each(ex, count_tasks, user);
}

RUNS(live_tasks_are_found, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2, .name = "inspected", .task = {.name = "seen"});
    size_t n = 0;
    klaw_task *t[5];
    for (int i = 0; i < 5; i++)
        t[i] = submit(ex, parks, NULL);
    UNTIL(stats_of(ex).running == 2);
    klaw_task_cancel(t[4], NULL); /* has ended, in the queue */
    klawi_executors_each(find_tasks, &n);
    SAME(n, 4);
    klaw_executor_cancel(ex, NULL);
    for (int i = 0; i < 5; i++)
        GIVES(ending(t[i]), KLAW_CANCELLED);
    done_with(ex);
}

/* --- closing, lifetimes --- */

RUNS(close_lets_the_accepted_ones_end, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2);
    _Atomic int ran = 0;
    for (int i = 0; i < 100; i++)
        OK(klaw_submit(ex, counts, &ran, NULL, NULL));
    OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    SAME(ran, 100);
    GIVES(klaw_submit(ex, counts, &ran, NULL, NULL), KLAW_CLOSED);
    OK(klaw_executor_close(ex, KLAW_NOWAIT, NULL));
    CHECK(stats_of(ex).closed);
    klaw_executor_unref(ex);
}

RUNS(close_cancels_what_is_late, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2);
    _Atomic int ran = 0;
    klaw_task *t = submit(ex, parks, NULL), *u = submit(ex, parks, NULL);
    klaw_task *q = submit(ex, counts, &ran);
    UNTIL(klaw_task_is_running(t) && klaw_task_is_running(u));
    GIVES(klaw_executor_close(ex, KLAW_WITHIN(KLAW_MS(1)), "time is up"), KLAW_TIMEOUT);
    CHECK(strcmp(klaw_task_exit_reason(t), "time is up") == 0);
    GIVES(ending(t), KLAW_CANCELLED);
    GIVES(ending(u), KLAW_CANCELLED);
    GIVES(ending(q), KLAW_CANCELLED);
    SAME(ran, 0);
    SAME(stats_of(ex).cancelled, 3);
    klaw_executor_unref(ex);
    ex = EXECUTOR(.concurrency = 1);
    t = submit(ex, parks, NULL);
    GIVES(klaw_executor_close(ex, KLAW_NOWAIT, NULL), KLAW_TIMEOUT);
    CHECK(strcmp(klaw_task_exit_reason(t), "executor closed") == 0);
    klaw_task_unref(t);
    klaw_executor_unref(ex);
}

RUNS(close_by_one_who_is_cancelled_cancels_the_tasks, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2);
    klaw_task *t = submit(ex, parks, NULL);
    klaw_scope *s = SCOPE(.name = "s");
    klaw_scope_cancel(s, "no time");
    GIVES(klaw_executor_close(ex, KLAW_FOREVER, NULL), KLAW_CANCELLED);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(ending(t), KLAW_CANCELLED);
    klaw_executor_unref(ex);
}

RUNS(cancel_leaves_later_tasks_alone, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, parks, NULL), *q = submit(ex, parks, NULL);
    klaw_executor_cancel(ex, "away with you");
    GIVES(ending(t), KLAW_CANCELLED);
    GIVES(ending(q), KLAW_CANCELLED);
    OK(ending(submit(ex, returns_ok, NULL)));
    done_with(ex);
}

RUNS(a_handle_outlives_its_executor, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    klaw_task *t = submit(ex, returns, (void *)(intptr_t)KLAW_LIMIT), *second = klaw_task_ref(t);
    klaw_executor_unref(ex); /* what was accepted goes on */
    GIVES(ending(t), KLAW_LIMIT);
    CHECK(strcmp(klaw_task_exit_reason(second), "error: LIMIT") == 0);
    klaw_task_unref(second);
}

PLAIN(without_a_run_there_is_no_executor) {
    klaw_executor *ex = NULL;
    GIVES(klaw_executor_open(NULL, &ex), KLAW_STOPPED);
}

static klaw_err from_a_thread(void *arg) {
    klaw_executor *ex = arg ? klaw_executor_ref(arg) : EXECUTOR(.concurrency = 3);
    _Atomic int ran = 0;
    klaw_task *t[50], *late = NULL;
    for (int i = 0; i < 50; i++)
        t[i] = submit(ex, counts, &ran);
    for (int i = 0; i < 50; i++)
        OK(ending(t[i]));
    SAME(ran, 50);
    late = submit(ex, parks, NULL);
    GIVES(klaw_task_join(late, KLAW_WITHIN(KLAW_MS(1)), NULL, NULL), KLAW_TIMEOUT);
    klaw_task_cancel(late, "thread");
    GIVES(ending(late), KLAW_CANCELLED);
    if (!arg)
        OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    klaw_executor_unref(ex);
    return KLAW_OK;
}

RUNS(threads_use_it_too, 2) {
    thread_job j[3];
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    for (int i = 0; i < 3; i++)
        thread_start(&j[i], from_a_thread, i ? ex : NULL);
    for (int i = 0; i < 3; i++)
        OK(thread_end(&j[i]));
    done_with(ex);
}

static klaw_err submits_another(void *arg) {
    klaw_executor *ex = arg;
    klaw_task *t = submit(ex, returns, (void *)(intptr_t)KLAW_TYPE);
    return ending(t);
}

RUNS(a_task_may_wait_for_another, 1) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2);
    GIVES(ending(submit(ex, submits_another, ex)), KLAW_TYPE);
    done_with(ex);
}

/* --- gather --- */

RUNS(gather_gives_all_results_in_order, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 3), *other = EXECUTOR(.concurrency = 1);
    klaw_task *t[40];
    klaw_task_result r[40];
    for (int i = 0; i < 40; i++)
        t[i] = i % 2 ? submit(ex, sets_value, (void *)(intptr_t)(i + 1))
                     : submit(other, sets_value, (void *)(intptr_t)(i + 1));
    OK(klaw_gather(t, 40, r, false, KLAW_WITHIN(SOON_NS)));
    for (int i = 0; i < 40; i++) {
        OK(r[i].error);
        SAME((intptr_t)r[i].value, i + 1);
        klaw_task_unref(t[i]);
    }
    OK(klaw_gather(NULL, 0, NULL, true, KLAW_NOWAIT));
    GIVES(klaw_gather((klaw_task *[]){NULL}, 1, NULL, true, KLAW_NOWAIT), KLAW_INVALID);
    done_with(ex);
    done_with(other);
}

RUNS(gathers_first_error_cancels_the_rest, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    klaw_task *t[4] = {submit(ex, parks, NULL), submit(ex, returns_ok, NULL),
                       submit(ex, returns, (void *)(intptr_t)KLAW_CORRUPT),
                       submit(ex, parks, NULL)};
    klaw_task_result r[4];
    GIVES(klaw_gather(t, 4, r, true, KLAW_FOREVER), KLAW_CORRUPT);
    GIVES(r[0].error, KLAW_CANCELLED);
    OK(r[1].error);
    GIVES(r[2].error, KLAW_CORRUPT);
    GIVES(r[3].error, KLAW_CANCELLED);
    for (int i = 0; i < 4; i++)
        klaw_task_unref(t[i]);
    done_with(ex);
}

RUNS(a_gather_that_is_late_leaves_or_ends_the_tasks, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    klaw_task *t[3] = {submit(ex, parks, NULL), submit(ex, returns_ok, NULL), NULL};
    klaw_task_result r[3];
    OK(klaw_task_join(t[1], KLAW_WITHIN(SOON_NS), NULL, NULL));
    t[2] = t[1]; /* twice */
    GIVES(klaw_gather(t, 3, r, false, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_gather(t, 3, r, false, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(r[0].error, KLAW_EMPTY);
    OK(r[2].error);
    CHECK(!klaw_task_exit_reason(t[0]));
    GIVES(klaw_gather(t, 3, r, true, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(r[0].error, KLAW_CANCELLED);
    klaw_task_unref(t[0]);
    klaw_task_unref(t[1]);
    done_with(ex);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_task_gives_its_value),
        TEST(errors_are_values),
        TEST(no_more_run_than_allowed_and_no_fewer),
        TEST(without_a_bound_all_wait_together),
        TEST(a_task_cancelled_in_the_queue_never_runs),
        TEST(a_running_task_is_cancelled_and_no_other),
        TEST(cancelling_reaches_the_scopes_of_a_task),
        TEST(what_completes_in_spite_of_its_cancellation_is_ok),
        TEST(the_executors_scope_cancels_its_tasks),
        TEST(a_deadline_ends_a_task),
        TEST(a_deadline_ends_a_task_in_the_queue),
        TEST(a_task_is_tried_again),
        TEST(a_blocking_task_has_a_thread_of_its_own),
        TEST(a_task_has_the_context_of_its_submitter),
        TEST(names_come_from_the_task_then_the_default),
        TEST(wrong_arguments_are_refused),
        TEST(tasks_have_the_stack_they_were_given),
        TEST(live_tasks_are_found),
        TEST(close_lets_the_accepted_ones_end),
        TEST(close_cancels_what_is_late),
        TEST(close_by_one_who_is_cancelled_cancels_the_tasks),
        TEST(cancel_leaves_later_tasks_alone),
        TEST(a_handle_outlives_its_executor),
        TEST(without_a_run_there_is_no_executor),
        TEST(threads_use_it_too),
        TEST(a_task_may_wait_for_another),
        TEST(gather_gives_all_results_in_order),
        TEST(gathers_first_error_cancels_the_rest),
        TEST(a_gather_that_is_late_leaves_or_ends_the_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
