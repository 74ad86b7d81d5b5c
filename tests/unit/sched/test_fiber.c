/* SPDX-License-Identifier: Apache-2.0 */
/* test_fiber.c - spawning, joining, detaching, cancelling, names and numbers, yield and check. */
#include "support/runs.h"

/* --- spawning --- */
RUNS(go_runs_the_function_in_the_current_scope, 2) {
    _Atomic int n = 0;
    klaw_scope *s = SCOPE(0);
    for (int i = 0; i < 100; i++)
        OK(klaw_go(counts, &n));
    CHECK(klaw_scope_live(s) > 0);
    OK(klaw_scope_close(s));
    SAME(n, 100);
}

RUNS(spawn_refuses_bad_arguments, 1) {
    klaw_fiber *f = NULL;
    klaw_fiber_opts o = {.stack_size = 16 * 1024 - 1};
    GIVES(klaw_go(NULL, NULL), KLAW_INVALID);
    GIVES(klaw_spawn(NULL, NULL, NULL, NULL, &f), KLAW_INVALID);
    GIVES(klaw_spawn(NULL, returns_ok, NULL, &o, &f), KLAW_INVALID);
    o.stack_size = ((size_t)1 << 30) + 1;
    GIVES(klaw_spawn(NULL, returns_ok, NULL, &o, &f), KLAW_INVALID);
    o.stack_size = SIZE_MAX;
    GIVES(klaw_spawn(NULL, returns_ok, NULL, &o, &f), KLAW_INVALID);
    CHECK(!f);
}

RUNS(spawn_takes_options_of_an_older_program, 1) {
    const char *name = "old";
    klaw_fiber *f = NULL;
    OK(klaw_spawn_sized(NULL, returns_ok, NULL, (const klaw_fiber_opts *)(const void *)&name,
                        sizeof name, &f));
    OK(result_of(f));
}

static klaw_err sees_cancelled(void *arg) {
    *(bool *)arg = true;
    return klaw_check();
}

RUNS(a_spawned_fiber_runs_even_when_it_is_cancelled_before_it_starts, 1) {
    bool ran[2] = {false, false};
    klaw_scope *s = SCOPE(0);
    klaw_fiber *f = fiber(sees_cancelled, &ran[0]);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
    klaw_scope_cancel(s, NULL);
    f = fiber(sees_cancelled, &ran[1]);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    CHECK(ran[0] && ran[1]);
    GIVES(result_of(f), KLAW_CANCELLED);
}

/* --- joining --- */
static klaw_err gives_a_value(void *arg) {
    klaw_set_value((void *)"first");
    klaw_set_value(arg);
    return KLAW_NOT_FOUND;
}

static void results_and_values(void) {
    klaw_err e = KLAW_OK;
    void *v = NULL;
    int it;
    klaw_fiber *f = fiber(gives_a_value, &it);
    OK(klaw_join(f, &e, &v, KLAW_FOREVER));
    SAME(e, KLAW_NOT_FOUND);
    CHECK(v == &it);
    f = fiber(gives_a_value, &it);
    OK(klaw_join(f, NULL, NULL, KLAW_FOREVER)); /* either may be left out */
    f = fiber(returns_ok, NULL);
    OK(klaw_join(f, &e, &v, KLAW_FOREVER));
    SAME(e, KLAW_OK);
    CHECK(v == NULL);
}

static klaw_err join_from_a_thread(void *arg) {
    (void)arg;
    results_and_values();
    return KLAW_OK;
}

static klaw_err join_everywhere(void *arg) {
    thread_job t;
    results_and_values();
    thread_start(&t, join_from_a_thread, arg);
    OK(thread_end(&t));
    OK(klaw_blocking(join_from_a_thread, arg));
    return KLAW_NOT_FOUND; /* as its children */
}

PLAIN(join_gives_result_and_value) {
    for (uint32_t w = 1; w <= 2; w++) {
        klaw_run_opts o = {.workers = w};
        GIVES(klaw_run(join_everywhere, NULL, &o), KLAW_NOT_FOUND);
    }
}

RUNS(join_after_the_end_does_not_wait, 2) {
    _Atomic int n = 0;
    klaw_err e;
    klaw_fiber *f = fiber(counts, &n);
    UNTIL(klaw_join(f, &e, NULL, KLAW_NOWAIT) == KLAW_OK);
    SAME(n, 1);
    OK(e);
}

static void times_out_and_keeps(void) {
    gate g = gate_make();
    klaw_fiber *f = fiber(passes, &g);
    int64_t began = klaw_now();
    GIVES(klaw_join(f, NULL, NULL, KLAW_NOWAIT), KLAW_TIMEOUT);
    GIVES(klaw_join(f, NULL, NULL, 1), KLAW_TIMEOUT);
    GIVES(klaw_join(f, NULL, NULL, KLAW_WITHIN(KLAW_MS(2))), KLAW_TIMEOUT);
    GIVES(klaw_join(f, NULL, NULL, klaw_after(KLAW_MS(2))), KLAW_TIMEOUT);
    CHECK(klaw_now() - began >= KLAW_MS(4));
    gate_open(&g);
    OK(result_of(f));
    gate_free(&g);
}

static klaw_err times_out_on_a_thread(void *arg) {
    (void)arg;
    times_out_and_keeps();
    return KLAW_OK;
}

RUNS(join_that_times_out_keeps_the_handle, 2) {
    thread_job t;
    times_out_and_keeps();
    thread_start(&t, times_out_on_a_thread, NULL);
    OK(thread_end(&t));
}

static klaw_err joins(void *f) {
    return klaw_join(f, NULL, NULL, KLAW_FOREVER);
}

RUNS(a_cancelled_joiner_leaves_the_handle, 2) {
    gate g = gate_make();
    klaw_fiber *f = fiber(passes, &g),
               *joiner = fiber_with((klaw_fiber_opts){.name = "j"}, joins, f);
    UNTIL(waiting("j", "join") == 1);
    klaw_fiber_cancel(joiner);
    GIVES(result_of(joiner), KLAW_CANCELLED);
    gate_open(&g);
    OK(result_of(f));
    gate_free(&g);
}

RUNS(a_second_joiner_is_refused, 2) {
    gate g = gate_make();
    klaw_fiber *f = fiber(passes, &g),
               *joiner = fiber_with((klaw_fiber_opts){.name = "j"}, joins, f);
    UNTIL(waiting("j", "join") == 1);
    GIVES(klaw_join(f, NULL, NULL, KLAW_FOREVER), KLAW_INVALID);
    gate_open(&g);
    OK(result_of(joiner));
    gate_free(&g);
}

static _Atomic(klaw_fiber *) self;

static klaw_err joins_itself(void *arg) {
    (void)arg;
    UNTIL(atomic_load(&self) != NULL);
    GIVES(klaw_join(atomic_load(&self), NULL, NULL, KLAW_FOREVER), KLAW_INVALID);
    return KLAW_OK;
}

RUNS(join_refuses_nothing_and_oneself, 2) {
    GIVES(klaw_join(NULL, NULL, NULL, KLAW_FOREVER), KLAW_INVALID);
    atomic_store(&self, NULL);
    klaw_fiber *f = fiber(joins_itself, NULL);
    atomic_store(&self, f);
    OK(result_of(f));
}

/* A chain: each waits for the one before. */
static klaw_err joins_and_counts(void *f) {
    klaw_err e = KLAW_OK;
    OK(klaw_join(f, &e, NULL, KLAW_FOREVER));
    return (klaw_err)(e + 1);
}

static klaw_err chain(void *arg) {
    klaw_fiber *f = fiber(returns, (void *)KLAW_OK);
    (void)arg;
    for (int i = 0; i < 16; i++)
        f = fiber(joins_and_counts, f);
    SAME(result_of(f), 16);
    return KLAW_OK;
}

PLAIN(joins_chain) {
    klaw_run_opts o = {.workers = 2};
    CHECK(klaw_run(chain, NULL, &o) != KLAW_OK); /* the children's numbers count as errors */
}

/* --- detaching --- */
RUNS(a_fiber_may_be_detached_before_and_after_its_end, 2) {
    gate g = gate_make();
    _Atomic int n = 0;
    klaw_scope *s = SCOPE(0);
    klaw_detach(NULL);
    for (int i = 0; i < 100; i++) {
        klaw_fiber *f = fiber(counts, &n);
        if (i % 2)
            UNTIL(n > i);
        klaw_detach(f);
    }
    klaw_detach(fiber(passes, &g));
    gate_open(&g);
    OK(klaw_scope_close(s));
    SAME(n, 100);
    gate_free(&g);
}

/* --- cancelling one fiber --- */
RUNS(a_cancelled_fiber_waits_no_more, 2) {
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "p"}, parks, NULL);
    UNTIL(waiting("p", "sleep") == 1);
    klaw_fiber_cancel(f);
    klaw_fiber_cancel(f);
    klaw_fiber_cancel(NULL);
    GIVES(result_of(f), KLAW_CANCELLED);
}

static klaw_err is_cancelled_for_good(void *arg) {
    uint64_t v;
    gate *g = arg;
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    for (int i = 0; i < 3; i++) {
        GIVES(klaw_check(), KLAW_CANCELLED);
        GIVES(klaw_yield(), KLAW_CANCELLED);
        GIVES(klaw_sleep(KLAW_WITHIN(1)), KLAW_CANCELLED);
        GIVES(klaw_recv(g->rx, &v, KLAW_FOREVER), KLAW_CANCELLED);
    }
    v = 7; /* what needs no waiting still happens */
    OK(klaw_send(g->tx, &v, KLAW_FOREVER));
    OK(klaw_recv(g->rx, &v, KLAW_FOREVER));
    return KLAW_OK;
}

RUNS(cancellation_is_level_triggered, 2) {
    gate g = gate_make();
    klaw_fiber *f = fiber(is_cancelled_for_good, &g);
    klaw_fiber_cancel(f);
    OK(result_of(f));
    gate_free(&g);
}

RUNS(cancelling_one_fiber_leaves_the_others_alone, 2) {
    klaw_scope *s = SCOPE(0);
    gate g = gate_make();
    klaw_fiber *a = fiber(passes, &g), *b = fiber(passes, &g);
    klaw_fiber_cancel(a);
    GIVES(result_of(a), KLAW_CANCELLED);
    CHECK(!klaw_scope_cancelled(s));
    gate_open(&g);
    OK(result_of(b));
    OK(klaw_scope_close(s));
    gate_free(&g);
}

RUNS(cancelling_a_fiber_that_has_ended_does_nothing, 2) {
    _Atomic int n = 0;
    klaw_fiber *f = fiber(counts, &n);
    UNTIL(n == 1);
    for (int i = 0; i < 100; i++)
        klaw_fiber_cancel(f);
    OK(result_of(f));
}

static klaw_err waits_in_a_scope(void *arg) {
    klaw_scope *outer = SCOPE(0), *inner = SCOPE(0);
    OK(klaw_spawn(inner, parks, NULL, &(klaw_fiber_opts){.name = "child"}, NULL));
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    CHECK(klaw_scope_cancelled(outer) && klaw_scope_cancelled(inner));
    CHECK(klaw_scope_reason(inner) != NULL);
    GIVES(klaw_scope_close(inner), KLAW_CANCELLED); /* the child was cancelled too */
    GIVES(klaw_scope_close(outer), KLAW_CANCELLED);
    GIVES(klaw_check(), KLAW_CANCELLED); /* the fiber itself stays so */
    outer = SCOPE(0);
    GIVES(klaw_check(), KLAW_CANCELLED); /* and so do its new scopes */
    GIVES(klaw_scope_close(outer), KLAW_CANCELLED);
    outer = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS));
    OK(klaw_check());
    OK(klaw_scope_close(outer));
    return *(klaw_err *)arg;
}

RUNS(cancelling_a_fiber_cancels_the_scopes_it_has_open, 2) {
    klaw_err want = KLAW_OK;
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "owner"}, waits_in_a_scope, &want);
    UNTIL(waiting("owner", "sleep") == 1 && waiting("child", "sleep") == 1);
    klaw_fiber_cancel(f);
    OK(result_of(f));
}

/* --- who am I --- */
static klaw_err tells_name_and_id(void *arg) {
    *(uint64_t *)arg = klaw_self_id();
    return strcmp(klaw_self_name(), "worker bee") == 0 ? KLAW_OK : KLAW_TYPE;
}

RUNS(names_and_numbers, 2) {
    uint64_t id[3];
    char name[] = "worker bee";
    assert_string_equal(klaw_self_name(), "main");
    for (int i = 0; i < 3; i++) {
        klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = name}, tells_name_and_id, &id[i]);
        name[0] = 'W'; /* it was copied */
        OK(result_of(f));
        name[0] = 'w';
    }
    CHECK(id[0] && id[1] && id[2] && klaw_self_id());
    CHECK(id[0] != id[1] && id[1] != id[2] && id[0] != id[2] && id[0] != klaw_self_id());
}

static klaw_err has_a_short_name(void *arg) {
    (void)arg;
    return strlen(klaw_self_name()) == 31 ? KLAW_OK : KLAW_TYPE;
}
static klaw_err has_no_name(void *arg) {
    (void)arg;
    return strcmp(klaw_self_name(), "fiber") == 0 ? KLAW_OK : KLAW_TYPE;
}

RUNS(long_names_are_cut_and_missing_ones_made_up, 1) {
    OK(result_of(fiber_with((klaw_fiber_opts){.name = "0123456789012345678901234567890123456789"},
                            has_a_short_name, NULL)));
    OK(result_of(fiber(has_no_name, NULL)));
}

/* --- yield --- */
typedef struct turns {
    int me, rounds;
    int *log;
    _Atomic int *at; /* the fibers of one worker synchronise by nothing here */
} turns;

static klaw_err takes_turns(void *arg) {
    turns *t = arg;
    for (int i = 0; i < t->rounds; i++) {
        t->log[atomic_fetch_add(t->at, 1)] = t->me;
        OK(klaw_yield());
    }
    return KLAW_OK;
}

RUNS(yield_lets_the_others_run_in_turn, 1) {
    int log[300];
    _Atomic int at = 0;
    turns t[3];
    klaw_fiber *f[3];
    for (int i = 0; i < 3; i++) {
        t[i] = (turns){i, 100, log, &at};
        f[i] = fiber(takes_turns, &t[i]);
    }
    for (int i = 0; i < 3; i++)
        OK(result_of(f[i]));
    SAME(atomic_load(&at), 300);
    for (int i = 3; i < 297; i++)
        CHECK(log[i] == log[i - 3] && log[i] != log[i - 1]);
}

/* --- many --- */
static klaw_err tree(void *arg) {
    intptr_t depth = (intptr_t)arg;
    klaw_fiber *l, *r;
    if (depth == 0)
        return KLAW_OK;
    l = fiber(tree, (void *)(depth - 1));
    r = fiber(tree, (void *)(depth - 1));
    OK(result_of(l));
    return result_of(r);
}

PLAIN(a_tree_of_sixteen_thousand_joins) {
    for (uint32_t w = 1; w <= 4; w *= 2) {
        klaw_run_opts o = {.workers = w};
        OK(klaw_run(tree, (void *)(intptr_t)(SANITIZED ? 9 : 13), &o));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(go_runs_the_function_in_the_current_scope),
        TEST(spawn_refuses_bad_arguments),
        TEST(spawn_takes_options_of_an_older_program),
        TEST(a_spawned_fiber_runs_even_when_it_is_cancelled_before_it_starts),
        TEST(join_gives_result_and_value),
        TEST(join_after_the_end_does_not_wait),
        TEST(join_that_times_out_keeps_the_handle),
        TEST(a_cancelled_joiner_leaves_the_handle),
        TEST(a_second_joiner_is_refused),
        TEST(join_refuses_nothing_and_oneself),
        TEST(joins_chain),
        TEST(a_fiber_may_be_detached_before_and_after_its_end),
        TEST(a_cancelled_fiber_waits_no_more),
        TEST(cancellation_is_level_triggered),
        TEST(cancelling_one_fiber_leaves_the_others_alone),
        TEST(cancelling_a_fiber_that_has_ended_does_nothing),
        TEST(cancelling_a_fiber_cancels_the_scopes_it_has_open),
        TEST(names_and_numbers),
        TEST(long_names_are_cut_and_missing_ones_made_up),
        TEST(yield_lets_the_others_run_in_turn),
        TEST(a_tree_of_sixteen_thousand_joins),
    };
    return cmocka_run_group_tests_name("fiber", tests, NULL, NULL);
}
