/* SPDX-License-Identifier: Apache-2.0 */
/* test_timer.c - timers that call back, and tickers. The wheel by itself: test_wheel.c. */
#include "support/random.h"
#include "support/runs.h"

typedef struct bell {
    klaw_timer t;
    _Atomic int rang;
    _Atomic int64_t at;
    klaw_deadline again; /* what its callback arms it for; 0: nothing */
    int left;
    _Atomic bool inside;
} bell;

static void rings(void *arg) {
    bell *b = arg;
    CHECK(!atomic_exchange(&b->inside, true));
    atomic_store(&b->at, klaw_now());
    atomic_fetch_add(&b->rang, 1);
    if (b->again && b->left-- > 0)
        OK(klaw_timer_arm(&b->t, b->again));
    atomic_store(&b->inside, false);
}

static void bell_make(bell *b) {
    memset(b, 0, sizeof *b);
    klaw_timer_init(&b->t, rings, b);
}

/* --- arming --- */
static klaw_err arms(void *arg) {
    bell b;
    (void)arg;
    bell_make(&b);
    int64_t at = klaw_after(KLAW_MS(2));
    OK(klaw_timer_arm(&b.t, at));
    UNTIL(b.rang == 1);
    CHECK(b.at >= at);
    at = klaw_now() + KLAW_MS(1);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(1))));
    UNTIL(b.rang == 2);
    CHECK(b.at >= at);
    OK(klaw_timer_arm(&b.t, 1)); /* the past: soon */
    UNTIL(b.rang == 3);
    GIVES(klaw_timer_arm(&b.t, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_timer_arm(&b.t, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_timer_arm(NULL, 1), KLAW_INVALID);
    CHECK(!klaw_timer_cancel(&b.t));
    klaw_timer_drain(&b.t);
    return KLAW_OK;
}

RUNS(a_timer_calls_back_once, 2) {
    thread_job t;
    OK(arms(NULL));
    thread_start(&t, arms, NULL);
    OK(thread_end(&t));
    OK(klaw_blocking(arms, NULL));
}

PLAIN(no_timer_is_armed_without_a_runtime) {
    bell b;
    bell_make(&b);
    GIVES(klaw_timer_arm(&b.t, klaw_after(1)), KLAW_STOPPED);
    CHECK(!klaw_timer_cancel(&b.t));
    klaw_timer_drain(&b.t);
}

RUNS(a_cancelled_timer_does_not_call_back, 2) {
    bell b;
    bell_make(&b);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(2))));
    CHECK(klaw_timer_cancel(&b.t));
    CHECK(!klaw_timer_cancel(&b.t));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(4))));
    SAME(b.rang, 0);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(1)))); /* and may be armed again */
    UNTIL(b.rang == 1);
    klaw_timer_drain(&b.t);
}

RUNS(a_timer_moves, 2) {
    bell b;
    bell_make(&b);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(1))));
    int64_t at = klaw_after(KLAW_MS(6));
    OK(klaw_timer_arm(&b.t, at)); /* to later */
    UNTIL(b.rang == 1);
    CHECK(b.at >= at);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_S(3600))));
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(1)))); /* to earlier */
    UNTIL(b.rang == 2);
    klaw_timer_drain(&b.t);
}

RUNS(far_timers_do_not_fire, 2) {
    static const int64_t far[] = {KLAW_S(3600), KLAW_S(86400) * 365, KLAW_S(86400) * 36500,
                                  KLAW_FOREVER};
    bell b[5];
    for (int i = 0; i < 5; i++) {
        bell_make(&b[i]);
        OK(klaw_timer_arm(&b[i].t, i < 4 ? KLAW_WITHIN(far[i]) : KLAW_FOREVER - 1));
    }
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(20))));
    for (int i = 0; i < 5; i++) {
        SAME(b[i].rang, 0);
        CHECK(klaw_timer_cancel(&b[i].t));
    }
}

/* --- callbacks that do something --- */
RUNS(a_callback_arms_its_timer_again, 2) {
    bell b;
    bell_make(&b);
    b.again = KLAW_WITHIN(KLAW_US(200));
    b.left = 20;
    OK(klaw_timer_arm(&b.t, b.again));
    UNTIL(b.rang == 21);
    CHECK(!klaw_timer_cancel(&b.t));
    klaw_timer_drain(&b.t);
    SAME(b.rang, 21);
}

static void rings_and_stops(void *arg) {
    bell **b = arg;
    CHECK(!klaw_timer_cancel(&b[0]->t)); /* itself: it runs */
    CHECK(klaw_timer_cancel(&b[1]->t));
    atomic_fetch_add(&b[0]->rang, 1);
}

RUNS(a_callback_cancels_timers, 1) {
    bell one, two;
    bell *b[] = {&one, &two};
    bell_make(&two);
    memset(&one, 0, sizeof one);
    klaw_timer_init(&one.t, rings_and_stops, b);
    OK(klaw_timer_arm(&two.t, KLAW_WITHIN(KLAW_S(3600))));
    OK(klaw_timer_arm(&one.t, KLAW_WITHIN(KLAW_MS(1))));
    UNTIL(one.rang == 1);
    klaw_timer_drain(&one.t);
    SAME(two.rang, 0);
}

static void sends(void *arg) {
    uint64_t v = 42;
    OK(klaw_send(arg, &v, KLAW_NOWAIT));
}

RUNS(a_callback_sends, 2) {
    gate g = gate_make();
    klaw_timer t;
    uint64_t v = 0;
    klaw_timer_init(&t, sends, g.tx);
    for (int i = 0; i < 20; i++) {
        OK(klaw_timer_arm(&t, KLAW_WITHIN(KLAW_US(100))));
        OK(klaw_recv(g.rx, &v, KLAW_WITHIN(SOON_NS)));
        SAME(v, 42);
    }
    klaw_timer_drain(&t);
    gate_free(&g);
}

/* --- drain --- */
static void rings_slowly(void *arg) {
    bell *b = arg;
    atomic_store(&b->inside, true);
    compute(KLAW_US(300));
    if (b->again)
        OK(klaw_timer_arm(&b->t, b->again));
    compute(KLAW_US(100));
    atomic_fetch_add(&b->rang, 1);
    atomic_store(&b->inside, false);
}

static klaw_err drains(void *arg) {
    for (int i = 0; i < 60; i++) {
        bell *b = calloc(1, sizeof *b); /* freed right after: the sanitizers look */
        CHECK(b);
        klaw_timer_init(&b->t, rings_slowly, b);
        b->again = i % 2 ? KLAW_WITHIN(1) : 0;
        OK(klaw_timer_arm(&b->t, KLAW_WITHIN(KLAW_US(i * 10))));
        if (i % 3)
            UNTIL(atomic_load(&b->inside) || b->rang > 0);
        klaw_timer_drain(&b->t);
        CHECK(!atomic_load(&b->inside));
        int rang = b->rang;
        CHECK(!klaw_timer_cancel(&b->t));
        SAME(b->rang, rang);
        free(b);
    }
    return KLAW_OK + (arg != NULL);
}

RUNS(drain_waits_for_a_callback_that_runs, 2) {
    thread_job t;
    thread_start(&t, drains, NULL);
    OK(drains(NULL));
    OK(thread_end(&t));
}

/* --- an idle runtime is told of a thread's timers, whenever they come --- */
static klaw_err arms_at_random(void *arg) {
    rng r = {*(uint64_t *)arg};
    for (uint64_t i = 0; i < rounds(3000); i++) {
        bell b;
        bell_make(&b);
        int64_t at = klaw_after(rng_below(&r, 200000));
        OK(klaw_timer_arm(&b.t, at));
        for (int64_t until = klaw_after(KLAW_S(20)); b.rang == 0;)
            CHECK(klaw_now() < until);
        CHECK(b.at >= at);
        klaw_timer_drain(&b.t);
        if (rng_one_in(&r, 4))
            compute(rng_below(&r, 100000));
    }
    return KLAW_OK;
}

RUNS(a_threads_timer_wakes_an_idle_runtime, 2) {
    thread_job t;
    uint64_t seed = seed_begin();
    thread_start(&t, arms_at_random, &seed);
    while (!atomic_load(&t.done)) /* far apart: the workers sleep */
        OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(500))));
    OK(thread_end(&t));
}

/* --- very many --- */
typedef struct place {
    klaw_timer t;
    _Atomic int *next;
    int mine;
} place;

static void signs(void *arg) {
    place *p = arg;
    p->mine = atomic_fetch_add(p->next, 1);
}

/* Timers a tick or more apart call back in the order of their deadlines, whatever the order they
 * were armed in. */
RUNS(timers_call_back_in_order, 1) {
    enum { N = 500 };
    static place p[N];
    static _Atomic int next;
    int64_t base = klaw_after(KLAW_MS(20));
    for (int i = 0; i < N; i++) {
        int k = i * 211 % N;
        p[k].next = &next;
        klaw_timer_init(&p[k].t, signs, &p[k]);
        OK(klaw_timer_arm(&p[k].t, base + (int64_t)k * 70000));
    }
    UNTIL(next == N);
    for (int i = 0; i < N; i++) {
        klaw_timer_drain(&p[i].t);
        SAME(p[i].mine, i);
    }
}

typedef struct crowd {
    klaw_timer *t;
    size_t n;
    _Atomic uint64_t rang;
} crowd;

static void rings_in_crowd(void *arg) {
    atomic_fetch_add((_Atomic uint64_t *)arg, 1);
}

RUNS(a_million_timers_are_armed_and_cancelled, 2) {
    crowd c = {.n = SANITIZED ? 100000 : 1000000};
    uint64_t cancelled = 0;
    c.t = malloc(c.n * sizeof *c.t);
    CHECK(c.t);
    for (size_t i = 0; i < c.n; i++) {
        klaw_timer_init(&c.t[i], rings_in_crowd, &c.rang);
        OK(klaw_timer_arm(&c.t[i], KLAW_WITHIN(i % 4 ? KLAW_S(10 + (int64_t)i) : KLAW_MS(50))));
    }
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(60))));
    for (size_t i = 0; i < c.n; i++) {
        cancelled += klaw_timer_cancel(&c.t[i]);
        klaw_timer_drain(&c.t[i]);
    }
    SAME(cancelled + atomic_load(&c.rang), c.n);
    CHECK(cancelled >= c.n / 4 * 3);
    free(c.t);
}

RUNS(timers_left_armed_are_gone_with_the_run, 2) {
    static bell b;
    bell_make(&b);
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_MS(1))));
    OK(klaw_timer_arm(&b.t, KLAW_WITHIN(KLAW_S(3600))));
}

/* --- tickers --- */
RUNS(a_ticker_counts_its_periods, 2) {
    klaw_receiver *rx = NULL;
    uint64_t v = 0, last = 0;
    int64_t began = klaw_now();
    OK(klaw_ticker_open(KLAW_MS(2), &rx));
    for (int i = 0; i < 10; i++) {
        OK(klaw_recv(rx, &v, KLAW_WITHIN(SOON_NS)));
        CHECK(v > last);
        CHECK(klaw_now() - began >= (int64_t)v * KLAW_MS(2)); /* never early */
        last = v;
    }
    klaw_receiver_unref(rx);
}

RUNS(ticks_nobody_took_are_merged, 2) {
    klaw_receiver *rx = NULL;
    uint64_t first = 0, second = 0;
    OK(klaw_ticker_open(KLAW_US(500), &rx));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(30))));
    OK(klaw_recv(rx, &first, KLAW_NOWAIT));
    GIVES(klaw_recv(rx, &second, KLAW_NOWAIT), KLAW_EMPTY); /* no backlog */
    OK(klaw_recv(rx, &second, KLAW_WITHIN(SOON_NS)));
    CHECK(second > first + 20); /* a gap */
    klaw_receiver_unref(rx);
}

RUNS(a_ticker_refuses_bad_arguments, 1) {
    klaw_receiver *rx = NULL;
    GIVES(klaw_ticker_open(0, &rx), KLAW_INVALID);
    GIVES(klaw_ticker_open(999, &rx), KLAW_INVALID);
    GIVES(klaw_ticker_open(-1, &rx), KLAW_INVALID);
    GIVES(klaw_ticker_open(KLAW_MS(1), NULL), KLAW_INVALID);
    CHECK(!rx);
    OK(klaw_ticker_open(INT64_MAX, &rx)); /* never ticks */
    GIVES(klaw_recv(rx, &(uint64_t){0}, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    klaw_receiver_unref(rx);
}

static klaw_err opens_and_closes_tickers(void *arg) {
    (void)arg;
    for (int i = 0; i < 200; i++) {
        klaw_receiver *rx = NULL;
        OK(klaw_ticker_open(KLAW_US(1 + i), &rx));
        if (i % 2)
            OK(klaw_recv(rx, &(uint64_t){0}, KLAW_WITHIN(SOON_NS)));
        klaw_receiver_close(rx);
        GIVES(klaw_recv(rx, &(uint64_t){0}, KLAW_FOREVER), KLAW_CLOSED);
        klaw_receiver_unref(rx);
    }
    return KLAW_OK;
}

RUNS(a_ticker_ends_with_its_receiver, 2) {
    thread_job t;
    thread_start(&t, opens_and_closes_tickers, NULL);
    OK(opens_and_closes_tickers(NULL));
    OK(thread_end(&t));
}

PLAIN(a_ticker_needs_a_runtime) {
    klaw_receiver *rx = NULL;
    GIVES(klaw_ticker_open(KLAW_MS(1), &rx), KLAW_STOPPED);
    CHECK(!rx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_timer_calls_back_once),
        TEST(no_timer_is_armed_without_a_runtime),
        TEST(a_cancelled_timer_does_not_call_back),
        TEST(a_timer_moves),
        TEST(far_timers_do_not_fire),
        TEST(a_callback_arms_its_timer_again),
        TEST(a_callback_cancels_timers),
        TEST(a_callback_sends),
        TEST(drain_waits_for_a_callback_that_runs),
        TEST(a_threads_timer_wakes_an_idle_runtime),
        TEST(timers_call_back_in_order),
        TEST(a_million_timers_are_armed_and_cancelled),
        TEST(timers_left_armed_are_gone_with_the_run),
        TEST(a_ticker_counts_its_periods),
        TEST(ticks_nobody_took_are_merged),
        TEST(a_ticker_refuses_bad_arguments),
        TEST(a_ticker_ends_with_its_receiver),
        TEST(a_ticker_needs_a_runtime),
    };
    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
