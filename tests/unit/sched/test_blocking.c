/* SPDX-License-Identifier: Apache-2.0 */
/* test_blocking.c - klaw_blocking: results, parallel jobs, the limit of threads, threads as
 * callers. */
#include <unistd.h>

#include "support/runs.h"

static klaw_err gives(void *arg) {
    int *p = arg;
    *p += 1;
    return KLAW_BACKEND;
}

RUNS(blocking_returns_what_the_function_returns, 2) {
    int n = 0;
    for (int i = 0; i < 200; i++)
        GIVES(klaw_blocking(gives, &n), KLAW_BACKEND);
    SAME(n, 200);
    GIVES(klaw_blocking(NULL, NULL), KLAW_INVALID);
}

static klaw_err is_no_fiber(void *arg) {
    (void)arg;
    return klaw_self_id() == 0 ? KLAW_OK : KLAW_TYPE;
}

static klaw_err is_the_same_thread(void *arg) {
    return pthread_equal(pthread_self(), *(pthread_t *)arg) ? KLAW_OK : KLAW_TYPE;
}

static klaw_err blocks_on_this_thread(void *arg) {
    pthread_t here = pthread_self();
    (void)arg;
    OK(klaw_blocking(is_the_same_thread, &here));
    return KLAW_OK;
}

RUNS(a_job_runs_on_a_thread_of_its_own, 2) {
    pthread_t here = pthread_self();
    thread_job t;
    OK(klaw_blocking(is_no_fiber, NULL));
    GIVES(klaw_blocking(is_the_same_thread, &here), KLAW_TYPE);
    OK(klaw_blocking(blocks_on_this_thread, NULL)); /* a plain thread calls it directly */
    thread_start(&t, blocks_on_this_thread, NULL);
    OK(thread_end(&t));
}

PLAIN(without_a_runtime_it_is_a_plain_call) {
    OK(blocks_on_this_thread(NULL));
}

/* --- many at once --- */
typedef struct crowd {
    _Atomic int inside, most;
    _Atomic bool open;
    int wanted;
} crowd;

static klaw_err waits_for_the_others(void *arg) {
    crowd *c = arg;
    int n = atomic_fetch_add(&c->inside, 1) + 1;
    for (int most = c->most; n > most && !atomic_compare_exchange_weak(&c->most, &most, n);)
        ;
    UNTIL(atomic_load(&c->open) || atomic_load(&c->inside) >= c->wanted);
    atomic_store(&c->open, true);
    atomic_fetch_sub(&c->inside, 1);
    return KLAW_OK;
}

static klaw_err blocks_with_the_others(void *arg) {
    return klaw_blocking(waits_for_the_others, arg);
}

RUNS(jobs_run_beside_one_another_and_beside_the_workers, 1) {
    crowd c = {.wanted = 20}; /* each waits for all: none may wait for a thread */
    klaw_scope *s = SCOPE(0);
    for (int i = 0; i < 20; i++)
        OK(klaw_go(blocks_with_the_others, &c));
    OK(klaw_scope_close(s));
    SAME(c.most, 20);
}

static klaw_err counts_inside(void *arg) {
    crowd *c = arg;
    int n = atomic_fetch_add(&c->inside, 1) + 1;
    for (int most = c->most; n > most && !atomic_compare_exchange_weak(&c->most, &most, n);)
        ;
    usleep(100); /* somebody else's turn: makes an overrun of the limit likely to be seen */
    atomic_fetch_sub(&c->inside, 1);
    atomic_fetch_add(&c->wanted, 1);
    return KLAW_OK;
}

static klaw_err blocks_and_counts(void *arg) {
    return klaw_blocking(counts_inside, arg);
}

static klaw_err starts_five_hundred(void *arg) {
    klaw_scope *s = SCOPE(0);
    for (int i = 0; i < 500; i++)
        OK(klaw_go(blocks_and_counts, arg));
    return klaw_scope_close(s);
}

PLAIN(no_more_threads_than_allowed) {
    for (uint32_t limit = 1; limit <= 3; limit++) {
        crowd c = {.wanted = 0};
        klaw_run_opts o = {.workers = 2, .blocking_threads = limit};
        OK(klaw_run(starts_five_hundred, &c, &o));
        CHECK(c.most >= 1 && c.most <= (int)limit);
        SAME(c.wanted, 500);
    }
}

PLAIN(far_more_jobs_than_threads) {
    crowd c = {.wanted = 0};
    OK(klaw_run(starts_five_hundred, &c, NULL));
    SAME(c.wanted, 500);
    CHECK(c.most <= 64);
}

/* --- jobs use klaw as the threads they are --- */
static klaw_err sends_three(void *arg) {
    gate *g = arg;
    for (uint64_t i = 1; i <= 3; i++)
        OK(klaw_send(g->tx, &i, KLAW_FOREVER));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_US(100))));
    return klaw_go(returns_ok, NULL);
}

static klaw_err blocks_on_sends(void *arg) {
    return klaw_blocking(sends_three, arg);
}

RUNS(a_job_may_send_sleep_and_spawn, 1) {
    gate g = gate_make();
    uint64_t v, sum = 0;
    klaw_fiber *f = fiber(blocks_on_sends, &g);
    for (int i = 0; i < 3; i++) {
        OK(klaw_recv(g.rx, &v, KLAW_WITHIN(SOON_NS)));
        sum += v;
    }
    OK(result_of(f));
    SAME(sum, 6);
    gate_free(&g);
}

static klaw_err one_job(void *arg) {
    int n = 0;
    (void)arg;
    GIVES(klaw_blocking(gives, &n), KLAW_BACKEND);
    return KLAW_OK;
}

PLAIN(each_run_has_its_own_threads) {
    for (int i = 0; i < 100; i++)
        OK(klaw_run(one_job, NULL, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(blocking_returns_what_the_function_returns),
        TEST(a_job_runs_on_a_thread_of_its_own),
        TEST(without_a_runtime_it_is_a_plain_call),
        TEST(jobs_run_beside_one_another_and_beside_the_workers),
        TEST(no_more_threads_than_allowed),
        TEST(far_more_jobs_than_threads),
        TEST(a_job_may_send_sleep_and_spawn),
        TEST(each_run_has_its_own_threads),
    };
    return cmocka_run_group_tests_name("blocking", tests, NULL, NULL);
}
