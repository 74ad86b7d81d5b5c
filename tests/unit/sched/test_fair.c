/* SPDX-License-Identifier: Apache-2.0 */
/* test_fair.c - who runs when: budgets (R8), the next slot (R2), pinned fibers, stealing (R3, R7),
 * the monitor (R4), idleness. */
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/runs.h"

/* --- R8: a turn has 128 operations that do not park --- */
typedef struct busy {
    klaw_sender *tx;
    klaw_receiver *rx;
    _Atomic bool stop;
    _Atomic uint64_t rounds;
} busy;

static klaw_err sends_and_receives(void *arg) {
    busy *b = arg;
    uint64_t v = 1;
    for (; !atomic_load(&b->stop); b->rounds++) {
        OK(klaw_send(b->tx, &v, KLAW_FOREVER));
        OK(klaw_recv(b->rx, &v, KLAW_FOREVER));
    }
    return KLAW_OK;
}

static klaw_err checks(void *arg) {
    busy *b = arg;
    for (; !atomic_load(&b->stop); b->rounds++)
        OK(klaw_check());
    return KLAW_OK;
}

static void others_run_beside(klaw_err (*fn)(void *)) {
    busy b = {.rounds = 0};
    _Atomic int n = 0;
    OK(klaw_channel(&klaw_u64, NULL, &b.tx, &b.rx));
    klaw_fiber *f = fiber(fn, &b);
    UNTIL(b.rounds > 0);
    for (int i = 0; i < 100; i++) { /* each of them gets a turn */
        klaw_fiber *other = fiber(counts, &n);
        OK(result_of(other));
    }
    atomic_store(&b.stop, true);
    OK(result_of(f));
    SAME(n, 100);
    klaw_sender_unref(b.tx);
    klaw_receiver_unref(b.rx);
}

RUNS(a_fiber_that_sends_without_parking_lets_others_run, 1) {
    others_run_beside(sends_and_receives);
}

RUNS(a_fiber_that_only_checks_lets_others_run, 1) {
    others_run_beside(checks);
}

static klaw_err checks_until_cancelled(void *arg) {
    (void)arg;
    for (;;) {
        klaw_err e = klaw_check();
        if (e)
            return e;
    }
}

RUNS(a_fiber_that_only_checks_can_be_cancelled, 1) {
    klaw_fiber *f = fiber(checks_until_cancelled, NULL);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
}

RUNS(a_busy_fiber_starves_no_timer, 1) {
    busy b = {.rounds = 0};
    klaw_fiber *f = fiber(checks, &b);
    for (int i = 0; i < 5; i++)
        OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    atomic_store(&b.stop, true);
    OK(result_of(f));
}

RUNS(a_busy_fiber_starves_no_descriptor, 1) {
    busy b = {.rounds = 0};
    int p[2];
    SAME(pipe(p), 0);
    klaw_fiber *f = fiber(checks, &b);
    for (int i = 0; i < 5; i++) {
        char c;
        size_t got;
        thread_job t;
        GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
        thread_start(&t, returns_ok, NULL);
        SAME(write(p[1], "x", 1), 1);
        OK(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)));
        OK(klaw_fd_read(p[0], &c, 1, &got, KLAW_NOWAIT, NULL));
        OK(thread_end(&t));
    }
    atomic_store(&b.stop, true);
    OK(result_of(f));
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
}

/* --- R2: the next slot shares its waker's slice --- */
typedef struct pong {
    klaw_receiver *rx;
    klaw_sender *tx;
    _Atomic uint64_t rounds;
} pong;

static klaw_err plays(void *arg) {
    pong *p = arg;
    uint64_t v;
    klaw_err e;
    while ((e = klaw_recv(p->rx, &v, KLAW_FOREVER)) == KLAW_OK) {
        p->rounds++;
        if (klaw_send(p->tx, &v, KLAW_FOREVER) != KLAW_OK)
            break;
    }
    return KLAW_OK;
}

RUNS(two_fibers_that_wake_each_other_starve_no_third, 1) {
    pong a = {0}, b = {0};
    uint64_t v = 1, before;
    _Atomic int n = 0;
    OK(klaw_channel(&klaw_u64, NULL, &a.tx, &b.rx));
    OK(klaw_channel(&klaw_u64, NULL, &b.tx, &a.rx));
    klaw_fiber *f = fiber(plays, &a), *g = fiber(plays, &b);
    OK(klaw_send(b.tx, &v, KLAW_FOREVER));
    UNTIL(a.rounds > 100);
    for (int i = 0; i < 100; i++) {
        before = a.rounds;
        OK(result_of(fiber(counts, &n)));
        CHECK(a.rounds - before < 200); /* a few turns of 32 slot runs each */
    }
    SAME(n, 100);
    klaw_sender_close(a.tx);
    klaw_sender_close(b.tx);
    klaw_receiver_close(a.rx);
    klaw_receiver_close(b.rx);
    OK(result_of(f));
    OK(result_of(g));
    klaw_sender_unref(a.tx);
    klaw_sender_unref(b.tx);
    klaw_receiver_unref(a.rx);
    klaw_receiver_unref(b.rx);
}

/* --- pinned fibers --- */
typedef struct pinned {
    gate *g;
    int rounds;
} pinned;

static klaw_err stays(void *arg) {
    pthread_t here = pthread_self();
    uint64_t v = 0;
    pinned *p = arg;
    for (int i = 0; i < p->rounds; i++) {
        switch (i % 4) {
        case 0: OK(klaw_yield()); break;
        case 1: OK(klaw_sleep(KLAW_WITHIN(KLAW_US(50)))); break;
        case 2: OK(klaw_blocking(returns_ok, NULL)); break;
        default:
            OK(klaw_send(p->g->tx, &v, KLAW_FOREVER));
            OK(gate_wait(p->g));
            break;
        }
        CHECK(pthread_equal(pthread_self(), here));
    }
    return KLAW_OK;
}

static klaw_err spawns_pinned(void *arg) {
    klaw_fiber *f[8];
    klaw_fiber_opts o = {.pinned = true};
    for (int i = 0; i < 8; i++)
        f[i] = fiber_with(o, stays, arg);
    for (int i = 0; i < 8; i++)
        OK(result_of(f[i]));
    return KLAW_OK;
}

RUNS(a_pinned_fiber_stays_on_its_worker, 4) {
    gate g = gate_make();
    pinned p = {&g, SANITIZED ? 40 : 200};
    thread_job t;
    klaw_fiber *f[4];
    thread_start(&t, spawns_pinned, &p);
    for (int i = 0; i < 4; i++)
        f[i] = fiber(spawns_pinned, &p);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
    OK(thread_end(&t));
    gate_free(&g);
}

static klaw_err on_this_worker(void *arg) {
    return pthread_equal(pthread_self(), *(pthread_t *)arg) ? KLAW_OK : KLAW_TYPE;
}

static klaw_err spawns_here(void *arg) {
    pthread_t here = pthread_self();
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.pinned = true}, on_this_worker, &here);
    (void)arg;
    return result_of(f);
}

RUNS(a_pinned_fiber_runs_on_its_spawners_worker, 2) {
    for (int i = 0; i < 100; i++)
        OK(result_of(fiber_with((klaw_fiber_opts){.pinned = true}, spawns_here, NULL)));
}

/* --- R3, R7: work spreads --- */
static _Atomic bool met;
static _Atomic int there;

static klaw_err meets(void *arg) {
    int64_t until = klaw_now() + CHECK_PATIENCE;
    (void)arg;
    atomic_fetch_add(&there, 1);
    while (atomic_load(&there) < 2) /* no call of klaw that lets others run here */
        CHECK(klaw_now() < until);
    atomic_store(&met, true);
    return KLAW_OK;
}

RUNS(fibers_that_compute_spread_over_two_workers, 2) {
    for (int i = 0; i < 20; i++) {
        atomic_store(&there, 0);
        klaw_fiber *a = fiber(meets, NULL), *b = fiber(meets, NULL);
        OK(result_of(a));
        OK(result_of(b));
    }
}

RUNS(fibers_that_compute_spread_over_four_workers, 4) {
    klaw_fiber *f[4];
    atomic_store(&there, -2); /* all four at once */
    for (int i = 0; i < 4; i++)
        f[i] = fiber(meets, NULL);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
}

/* --- R4: who computes without a call starves nobody while another worker is idle --- */
static klaw_err wakes_and_computes(void *arg) {
    gate_open(arg); /* its waiter is in our next slot now */
    compute(KLAW_MS(300));
    return KLAW_OK;
}

static klaw_err notes_time(void *arg) {
    pinned *p = arg;
    GIVES(gate_wait(p->g), KLAW_CLOSED);
    p->rounds = 1;
    return KLAW_OK;
}

RUNS(a_fiber_that_computes_starves_no_fiber_in_its_slot, 2) {
    gate g = gate_make();
    pinned p = {&g, 0};
    klaw_fiber *woken = fiber_with((klaw_fiber_opts){.name = "w"}, notes_time, &p);
    UNTIL(waiting("w", "recv") == 1);
    klaw_fiber *f = fiber(wakes_and_computes, &g);
    int64_t began = klaw_now();
    OK(result_of(woken));
    CHECK(klaw_now() - began < KLAW_MS(250));
    OK(result_of(f));
    gate_free(&g);
}

static klaw_err computes(void *arg) {
    compute((int64_t)(intptr_t)arg);
    return KLAW_OK;
}

static klaw_err sleeps_and_computes(void *arg) {
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    return computes(arg);
}

RUNS(a_fiber_that_computes_starves_no_timer, 2) {
    klaw_fiber *f = fiber(sleeps_and_computes, (void *)(intptr_t)KLAW_MS(300));
    int64_t began = klaw_now();
    for (int i = 0; i < 20; i++)
        OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(3))));
    CHECK(klaw_now() - began < KLAW_MS(250));
    OK(result_of(f));
}

static klaw_err writes_later(void *arg) {
    compute(KLAW_MS(20));
    SAME(write(*(int *)arg, "x", 1), 1);
    return KLAW_OK;
}

RUNS(a_fiber_that_computes_starves_no_descriptor, 2) {
    int p[2];
    thread_job t;
    SAME(pipe(p), 0);
    klaw_fiber *f = fiber(computes, (void *)(intptr_t)KLAW_MS(300));
    int64_t began = klaw_now();
    thread_start(&t, writes_later, &p[1]);
    OK(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)));
    CHECK(klaw_now() - began < KLAW_MS(250));
    OK(result_of(f));
    OK(thread_end(&t));
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
}

/* --- nothing to do --- */
static int64_t cpu_used(void) {
    struct rusage u;
    SAME(getrusage(RUSAGE_SELF, &u), 0);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * KLAW_S(1) +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * KLAW_US(1);
}

static void idles(void) {
    int64_t before = cpu_used();
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(300))));
    CHECK(cpu_used() - before < KLAW_MS(30));
}

RUNS(idle_workers_sleep, 4) {
    idles();
}

RUNS(workers_that_wait_for_descriptors_sleep, 4) {
    int p[2];
    SAME(pipe(p), 0);
    klaw_scope *s = SCOPE(0);
    OK(klaw_go(parks, NULL));
    idles();
    GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_MS(300))), KLAW_TIMEOUT);
    idles();
    klaw_scope_cancel(s, NULL);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
}

/* A worker that wakes looks at the descriptors on its way; it must not take the poller's own
 * wake-up with it. */
static klaw_err waits_for_a_descriptor(void *fd) {
    return klaw_fd_wait(*(int *)fd, KLAW_READ, KLAW_FOREVER);
}

RUNS(timers_are_on_time_while_a_descriptor_is_waited_for, 2) {
    int p[2];
    SAME(pipe(p), 0);
    klaw_fiber *f = fiber(waits_for_a_descriptor, &p[0]), *g = fiber(parks, NULL);
    for (int i = 0; i < (SANITIZED ? 500 : 3000); i++) {
        GIVES(klaw_join(g, NULL, NULL, KLAW_WITHIN(KLAW_US(i % 300 + 1))), KLAW_TIMEOUT);
        int64_t began = klaw_now();
        OK(klaw_blocking(returns_ok, NULL));
        OK(klaw_sleep(KLAW_WITHIN(KLAW_US(i % 300 + 1))));
        CHECK(klaw_now() - began < KLAW_S(5));
    }
    SAME(write(p[1], "x", 1), 1);
    OK(result_of(f));
    klaw_fiber_cancel(g);
    GIVES(result_of(g), KLAW_CANCELLED);
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
}

/* --- an idle runtime wakes for whoever comes from outside, again and again --- */
static klaw_err answers(void *arg) {
    pong *p = arg;
    return plays(p);
}

RUNS(a_thread_wakes_an_idle_runtime_each_time, 2) {
    pong p = {0};
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t v = 1;
    OK(klaw_channel(&klaw_u64, NULL, &tx, &p.rx));
    OK(klaw_channel(&klaw_u64, NULL, &p.tx, &rx));
    klaw_fiber *f = fiber(answers, &p);
    for (int i = 0; i < (SANITIZED ? 300 : 2000); i++) {
        OK(klaw_send(tx, &v, KLAW_WITHIN(SOON_NS)));
        OK(klaw_recv(rx, &v, KLAW_WITHIN(SOON_NS)));
        if (i % 64 == 0)
            OK(klaw_blocking(computes, (void *)(intptr_t)KLAW_US(100)));
    }
    klaw_sender_unref(tx);
    OK(result_of(f));
    klaw_sender_unref(p.tx);
    klaw_receiver_unref(p.rx);
    klaw_receiver_unref(rx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_fiber_that_sends_without_parking_lets_others_run),
        TEST(a_fiber_that_only_checks_lets_others_run),
        TEST(a_fiber_that_only_checks_can_be_cancelled),
        TEST(a_busy_fiber_starves_no_timer),
        TEST(a_busy_fiber_starves_no_descriptor),
        TEST(two_fibers_that_wake_each_other_starve_no_third),
        TEST(a_pinned_fiber_stays_on_its_worker),
        TEST(a_pinned_fiber_runs_on_its_spawners_worker),
        TEST(fibers_that_compute_spread_over_two_workers),
        TEST(fibers_that_compute_spread_over_four_workers),
        TEST(a_fiber_that_computes_starves_no_fiber_in_its_slot),
        TEST(a_fiber_that_computes_starves_no_timer),
        TEST(a_fiber_that_computes_starves_no_descriptor),
        TEST(idle_workers_sleep),
        TEST(workers_that_wait_for_descriptors_sleep),
        TEST(timers_are_on_time_while_a_descriptor_is_waited_for),
        TEST(a_thread_wakes_an_idle_runtime_each_time),
    };
    return cmocka_run_group_tests_name("fair", tests, NULL, NULL);
}
