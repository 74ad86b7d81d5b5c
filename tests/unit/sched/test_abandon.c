/* SPDX-License-Identifier: Apache-2.0 */
/* test_abandon.c - fibers that reach no cancel point: after the grace klaw_run gives up, names them
 * and answers TIMEOUT; the next run works.
 *
 * Each case is a process of its own: the memory of what was abandoned is kept, so it would count as
 * a leak of its successors. Tried with abandon() as it was before: late ends of blocking calls and
 * late wake-ups crashed, and the next run waited for the stuck threads. */
#include "support/child.h"
#include "support/runs.h"

#define GRACE KLAW_MS(30)

static _Atomic bool go_on, gone;

/* Without a call of klaw. */
static klaw_err stuck(void *arg) {
    (void)arg;
    while (!atomic_load(&go_on))
        compute(KLAW_US(100));
    atomic_store(&gone, true);
    return KLAW_OK;
}

static klaw_err blocks_for_long(void *arg) {
    return klaw_blocking(stuck, arg);
}

static void has_to(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "failed: %s\n", what);
        _exit(1);
    }
}

/* --- a run that works: fibers, timers, descriptors, blocking calls, all workers --- */
static klaw_err whole_run(void *arg) {
    int p[2];
    char c = 'x';
    size_t n;
    int *ended = arg;
    gate g = gate_make();
    klaw_fiber *f[200];
    for (int i = 0; i < 200; i++)
        f[i] = fiber(i % 2 ? passes : parks, &g);
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    gate_open(&g);
    for (int i = 0; i < 200; i++) {
        if (i % 2 == 0)
            klaw_fiber_cancel(f[i]);
        GIVES(result_of(f[i]), i % 2 ? KLAW_OK : KLAW_CANCELLED);
    }
    gate_free(&g);
    OK(klaw_blocking(returns_ok, NULL));
    SAME(pipe(p), 0);
    GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    SAME(write(p[1], &c, 1), 1);
    OK(klaw_fd_read(p[0], &c, 1, &n, KLAW_FOREVER, NULL));
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
    for (int i = 0; i < 100; i++) { /* descriptors of the run before are used again */
        klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_US(100)));
        GIVES(klaw_sleep(KLAW_WITHIN(KLAW_S(3600))), KLAW_CANCELLED);
        GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
    }
    *ended += 1;
    return KLAW_OK;
}

static void runs_well(void) {
    for (uint32_t w = 1; w <= 3; w++) {
        int ended = 0;
        klaw_run_opts o = {.workers = w};
        OK(klaw_run(whole_run, &ended, &o));
        SAME(ended, 1);
    }
}

/* --- a stuck fiber --- */
static klaw_err spawns_a_stuck_one(void *arg) {
    klaw_fiber_opts o = {.name = "the stubborn one"};
    OK(klaw_spawn(NULL, arg ? blocks_for_long : stuck, NULL, &o, NULL));
    OK(klaw_spawn(NULL, parks, NULL, &(klaw_fiber_opts){.name = "the obedient one"}, NULL));
    return klaw_sleep(KLAW_FOREVER);
}

static int abandons(void *how, uint32_t workers) {
    klaw_run_opts o = {.workers = workers, .deadline = KLAW_WITHIN(KLAW_MS(5)), .grace = GRACE};
    int64_t began = klaw_now();
    GIVES(klaw_run(spawns_a_stuck_one, how, &o), KLAW_TIMEOUT);
    int64_t took = klaw_now() - began;
    has_to(took >= KLAW_MS(5) + GRACE && took < KLAW_S(20), "the grace is kept");
    has_to(klaw_run_workers() == 0, "no runtime runs afterwards");
    return 0;
}

static int abandons_and_runs_again(void) {
    abandons(NULL, 2);
    runs_well(); /* the stuck one computes on */
    atomic_store(&go_on, true);
    UNTIL(atomic_load(&gone));
    runs_well();
    return 0;
}

static void check_named(child_end c) {
    if (!WIFEXITED(c.status) || WEXITSTATUS(c.status) != 0)
        fprintf(stderr, "%s\n", c.text);
    assert_true(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 0);
    assert_non_null(strstr(c.text, "the stubborn one"));
    assert_null(strstr(c.text, "the obedient one"));
}

static void a_stuck_fiber_is_abandoned_and_named(void **state) {
    (void)state;
    check_named(child_of(abandons_and_runs_again));
}

static int several_times(void) {
    for (int i = 0; i < 5; i++) {
        atomic_store(&go_on, false);
        atomic_store(&gone, false);
        abandons(NULL, 1 + (uint32_t)i % 3);
        if (i % 2) {
            atomic_store(&go_on, true);
            UNTIL(atomic_load(&gone));
        }
        runs_well();
    }
    return 0;
}

static void runs_are_abandoned_several_times(void **state) {
    (void)state;
    child_ok(several_times); /* with one worker the obedient one had no chance */
}

static klaw_err stopped_by_itself(void *arg) {
    OK(klaw_run_stop("enough"));
    return spawns_a_stuck_one(arg);
}

static int stopped_run(void) {
    klaw_run_opts o = {.workers = 2, .grace = GRACE};
    GIVES(klaw_run(stopped_by_itself, NULL, &o), KLAW_TIMEOUT);
    runs_well();
    return 0;
}

static void the_grace_counts_from_run_stop_too(void **state) {
    (void)state;
    check_named(child_of(stopped_run));
}

/* --- a blocking call that does not come back in time --- */
static int late_blocking(void) {
    abandons(&go_on, 2);
    runs_well();                /* does not wait for the old thread */
    atomic_store(&go_on, true); /* while no runtime runs */
    UNTIL(atomic_load(&gone));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(20))));
    runs_well();
    return 0;
}

static void a_blocking_call_may_end_after_it_was_abandoned(void **state) {
    (void)state;
    check_named(child_of(late_blocking));
}

static klaw_err lets_it_end(void *arg) {
    atomic_store(&go_on, true);
    UNTIL(atomic_load(&gone));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(20))));
    return whole_run(arg);
}

static int late_blocking_in_the_next_run(void) {
    int ended = 0;
    abandons(&go_on, 2);
    OK(klaw_run(lets_it_end, &ended, NULL));
    SAME(ended, 1);
    runs_well();
    return 0;
}

static void a_blocking_call_may_end_in_the_next_run(void **state) {
    (void)state;
    check_named(child_of(late_blocking_in_the_next_run));
}

/* --- an abandoned fiber that waits, shielded, is woken by somebody later --- */
static gate later;

static klaw_err waits_shielded(void *arg) {
    klaw_scope *s = SCOPE(.shield = true, .deadline = KLAW_WITHIN(KLAW_S(3600)));
    (void)arg;
    GIVES(gate_wait(&later), KLAW_CLOSED);
    atomic_store(&gone, true);
    return klaw_scope_close(s);
}

static klaw_err spawns_a_shielded_one(void *arg) {
    klaw_fiber_opts o = {.name = "the stubborn one", .pinned = arg != NULL};
    OK(klaw_spawn(NULL, waits_shielded, NULL, &o, NULL));
    UNTIL(waiting("the stubborn one", "recv") == 1);
    return klaw_sleep(KLAW_FOREVER);
}

static klaw_err opens_the_gate(void *arg) {
    gate_open(&later);
    return whole_run(arg);
}

static int late_wake_up(void) {
    for (int i = 0; i < 4; i++) {
        int ended = 0;
        klaw_run_opts o = {.workers = 2, .deadline = KLAW_WITHIN(KLAW_MS(20)), .grace = GRACE};
        later = gate_make();
        GIVES(klaw_run(spawns_a_shielded_one, i / 2 ? &o : NULL, &o), KLAW_TIMEOUT);
        if (i % 2)
            OK(klaw_run(opens_the_gate, &ended, NULL));
        else
            gate_open(&later);
        runs_well();
        has_to(!atomic_load(&gone), "what was abandoned does not run in another run");
    }
    return 0;
}

static void a_wake_up_of_an_abandoned_fiber_does_nothing(void **state) {
    (void)state;
    check_named(child_of(late_wake_up));
}

int main(void) {
    if (child_on_valgrind()) {
        puts("skipped: valgrind looks for leaks in the children and changes their exit codes");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stuck_fiber_is_abandoned_and_named),
        cmocka_unit_test(runs_are_abandoned_several_times),
        cmocka_unit_test(the_grace_counts_from_run_stop_too),
        cmocka_unit_test(a_blocking_call_may_end_after_it_was_abandoned),
        cmocka_unit_test(a_blocking_call_may_end_in_the_next_run),
        cmocka_unit_test(a_wake_up_of_an_abandoned_fiber_does_nothing),
    };
    return cmocka_run_group_tests_name("abandon", tests, NULL, NULL);
}
