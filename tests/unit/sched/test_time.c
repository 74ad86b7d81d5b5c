/* SPDX-License-Identifier: Apache-2.0 */
/* test_time.c - deadlines and sleeping, from fibers and threads. */
#include "support/random.h"
#include "support/runs.h"

/* --- deadlines --- */
PLAIN(after_is_absolute_and_saturates) {
    int64_t before = klaw_now(), at = klaw_after(KLAW_MS(5)), after = klaw_now();
    CHECK(before + KLAW_MS(5) <= at && at <= after + KLAW_MS(5));
    SAME(klaw_after(INT64_MAX), KLAW_FOREVER - 1);
    SAME(klaw_after(INT64_MAX - 1), KLAW_FOREVER - 1);
    SAME(klaw_after(INT64_MIN), 1);
    SAME(klaw_after(-klaw_now() - KLAW_S(1)), 1);
    CHECK(klaw_after(0) >= after);
}

PLAIN(now_goes_on) {
    int64_t last = klaw_now();
    for (int i = 0; i < 10000; i++) {
        int64_t t = klaw_now();
        CHECK(t >= last);
        last = t;
    }
}

/* Every kind of deadline, on a wait that nobody ends. */
static klaw_err waits(void *arg) {
    gate g = gate_make();
    uint64_t v;
    int64_t began = klaw_now();
    (void)arg;
    GIVES(klaw_recv(g.rx, &v, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_recv(g.rx, &v, 0), KLAW_TIMEOUT);
    GIVES(klaw_recv(g.rx, &v, 1), KLAW_TIMEOUT);
    GIVES(klaw_recv(g.rx, &v, klaw_now()), KLAW_TIMEOUT);
    GIVES(klaw_recv(g.rx, &v, klaw_after(KLAW_MS(2))), KLAW_TIMEOUT);
    CHECK(klaw_now() - began >= KLAW_MS(2));
    GIVES(klaw_recv(g.rx, &v, KLAW_WITHIN(KLAW_MS(2))), KLAW_TIMEOUT);
    CHECK(klaw_now() - began >= KLAW_MS(4));
    GIVES(klaw_recv(g.rx, &v, KLAW_WITHIN(1)), KLAW_TIMEOUT);
    gate_free(&g);
    return KLAW_OK;
}

static void on_every_host(klaw_err (*fn)(void *)) {
    thread_job t;
    thread_start(&t, fn, NULL); /* no runtime runs */
    OK(thread_end(&t));
    for (uint32_t w = 1; w <= 2; w++) {
        klaw_run_opts o = {.workers = w};
        OK(klaw_run(fn, NULL, &o));
    }
}

PLAIN(deadlines_mean_the_same_on_every_host) {
    on_every_host(waits);
}

/* --- sleeping --- */
static klaw_err sleeps(void *arg) {
    (void)arg;
    OK(klaw_sleep(0));
    OK(klaw_sleep(1));
    OK(klaw_sleep(KLAW_NOWAIT));
    OK(klaw_sleep(klaw_now()));
    for (int i = 1; i < 40; i++) {
        int64_t ns = (int64_t)1 << (i % 22), began = klaw_now();
        OK(klaw_sleep(i % 2 ? KLAW_WITHIN(ns) : klaw_after(ns)));
        CHECK(klaw_now() - began >= ns); /* never early */
    }
    return KLAW_OK;
}

PLAIN(a_sleep_is_never_too_short) {
    on_every_host(sleeps);
}

static klaw_err sleeps_the_longest(void *until) {
    return klaw_sleep(*(klaw_deadline *)until);
}

RUNS(a_sleep_is_cancelled, 2) {
    klaw_deadline until[] = {KLAW_FOREVER, KLAW_FOREVER - 1, KLAW_WITHIN(KLAW_S(3600)),
                             klaw_after(KLAW_S(86400) * 36500), KLAW_WITHIN(KLAW_FOREVER)};
    for (int i = 0; i < 5; i++) {
        klaw_fiber_opts o = {.name = "sleeper"};
        klaw_fiber *f = fiber_with(o, sleeps_the_longest, &until[i]);
        UNTIL(waiting("sleeper", "sleep") == 1);
        GIVES(klaw_join(f, NULL, NULL, KLAW_WITHIN(KLAW_MS(3))), KLAW_TIMEOUT);
        klaw_fiber_cancel(f);
        GIVES(result_of(f), KLAW_CANCELLED);
    }
}

static klaw_err sleeps_in_a_scope(void *arg) {
    klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(2)));
    (void)arg;
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_sleep(1), KLAW_CANCELLED);
    GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
    return klaw_sleep(KLAW_WITHIN(1));
}

RUNS(a_threads_sleep_is_cancelled_by_its_scope, 1) {
    thread_job t;
    thread_start(&t, sleeps_in_a_scope, NULL);
    OK(thread_end(&t));
    OK(sleeps_in_a_scope(NULL));
}

static klaw_err sleeps_at_random(void *arg) {
    rng r = {(uint64_t)(uintptr_t)arg};
    for (int i = 0; i < 20; i++) {
        int64_t until = klaw_after(rng_below(&r, 3000000));
        OK(klaw_sleep(until));
        CHECK(klaw_now() >= until);
    }
    return KLAW_OK;
}

RUNS(a_thousand_fibers_sleep_at_random, 2) {
    klaw_scope *s = SCOPE(0);
    for (uintptr_t i = 1; i <= rounds(1000); i++)
        OK(klaw_go(sleeps_at_random, (void *)i));
    OK(klaw_scope_close(s));
}

/* The deadline of a wait that ended early is still filed when the next, longer one begins (P10). */
static klaw_err sends_often(void *arg) {
    for (uint64_t i = 0; i < 200; i++)
        OK(klaw_send(((gate *)arg)->tx, &i, KLAW_FOREVER));
    return KLAW_OK;
}

RUNS(a_deadline_left_behind_ends_no_later_wait, 2) {
    gate g = gate_make();
    uint64_t v;
    klaw_fiber *f = fiber(sends_often, &g);
    for (int i = 0; i < 200; i++)
        OK(klaw_recv(g.rx, &v, KLAW_WITHIN(KLAW_S(5) + i)));
    OK(result_of(f));
    int64_t began = klaw_now();
    GIVES(klaw_recv(g.rx, &v, KLAW_WITHIN(KLAW_MS(2))),
          KLAW_TIMEOUT); /* earlier than what is filed */
    CHECK(klaw_now() - began >= KLAW_MS(2) && klaw_now() - began < KLAW_S(2));
    f = fiber(sends_often, &g);
    OK(klaw_recv(g.rx, &v, KLAW_WITHIN(KLAW_MS(1000))));
    OK(result_of(f));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(2))));
    gate_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(after_is_absolute_and_saturates),
        TEST(now_goes_on),
        TEST(deadlines_mean_the_same_on_every_host),
        TEST(a_sleep_is_never_too_short),
        TEST(a_sleep_is_cancelled),
        TEST(a_threads_sleep_is_cancelled_by_its_scope),
        TEST(a_thousand_fibers_sleep_at_random),
        TEST(a_deadline_left_behind_ends_no_later_wait),
    };
    return cmocka_run_group_tests_name("time", tests, NULL, NULL);
}
