/* SPDX-License-Identifier: Apache-2.0 */
/* test_flow_oom.c - executors, tasks, maps, gathers, iterators and retries while the n-th
 * allocation fails, for every n until a run gets through: every task that was accepted ends and
 * gives its arg back once, the others say so, nothing leaks. */
#include "klaw/executor.h"
#include "support/runs.h"

static _Atomic int accepted, released, ran;

static bool short_of(klaw_err e) {
    return e == KLAW_NOMEM || e == KLAW_SYSTEM;
}

static void releases(void *arg) {
    (void)arg;
    atomic_fetch_add(&released, 1);
}

static klaw_err naps(void *arg) {
    (void)arg;
    atomic_fetch_add(&ran, 1);
    return klaw_sleep(KLAW_WITHIN(KLAW_US(50)));
}

static klaw_err item(const void *it, void *result, void *arg) {
    (void)it;
    (void)arg;
    *(char *)result = 1;
    return klaw_sleep(KLAW_WITHIN(KLAW_US(50)));
}

static klaw_err tasks(klaw_executor *ex) {
    static const klaw_retry_opts again = {.attempts = 2, .attempt_timeout = KLAW_S(60)};
    static const klaw_task_opts opts[] = {
        {.release = releases},
        {.release = releases, .name = "named", .deadline = KLAW_WITHIN(KLAW_S(60))},
        {.release = releases, .retry = &again},
        {.release = releases, .blocking = 1},
    };
    klaw_err first = KLAW_OK;
    klaw_task *t[80];
    size_t n = 0;
    for (size_t i = 0; i < 80; i++) {
        klaw_err e = klaw_submit(ex, naps, NULL, &opts[i % 4], &t[n]);
        CHECK(e == KLAW_OK || short_of(e));
        first = first ? first : e;
        n += e == KLAW_OK;
        atomic_fetch_add(&accepted, e == KLAW_OK);
    }
    klaw_err e = klaw_gather(t, n, NULL, false, KLAW_WITHIN(SOON_NS));
    CHECK(e == KLAW_OK || short_of(e)); /* the call's or, of a blocking task, a task's */
    first = first ? first : e;
    for (size_t i = 0; i < n; i++) {
        OK(klaw_task_join(t[i], KLAW_WITHIN(SOON_NS), &e, NULL));
        CHECK(e == KLAW_OK || short_of(e));
        first = first ? first : e;
        klaw_task_unref(t[i]);
    }
    return first;
}

static bool for_ever; /* there is no memory from that allocation on */

static klaw_err maps(klaw_executor *ex) {
    char results[40] = {0};
    klaw_imap *it = NULL;
    klaw_err first = klaw_map(ex, item, NULL, NULL, 0, 40, results, 1, NULL, NULL);
    CHECK(first == KLAW_OK || short_of(first));
    for (int i = 0; i < 40 && !first; i++)
        SAME(results[i], 1);
    klaw_err e = klaw_imap_open(ex, item, NULL,
                                &(klaw_imap_opts){.n = 20, .result_size = 1, .in_flight = 4}, &it);
    first = first ? first : e;
    if (e) {
        CHECK(short_of(e));
        return first;
    }
    uint32_t seen = 0, tries = 0;
    klaw_imap_item at;
    while ((e = klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS))) == KLAW_OK ||
           (e == KLAW_NOMEM && tries++ < 3)) { /* what could not be submitted is kept */
        first = first ? first : e;
        seen |= e == KLAW_OK ? 1u << at.index : 0;
    }
    CHECK(e == KLAW_CLOSED || (for_ever && short_of(e)));
    if (e == KLAW_CLOSED)
        SAME(seen, (1u << 20) - 1);
    klaw_imap_close(it);
    return first || e == KLAW_CLOSED ? first : e;
}

static klaw_err everything(void *arg) {
    klaw_executor *ex = NULL;
    (void)arg;
    klaw_err first = klaw_executor_open(&(klaw_executor_opts){.concurrency = 4}, &ex), e;
    if (first)
        return first;
    first = maps(ex);
    e = tasks(ex);
    first = first ? first : e;
    OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    klaw_executor_stats s;
    klaw_executor_get_stats(ex, &s);
    SAME(s.submitted, s.succeeded + s.failed + s.cancelled + s.timed_out);
    SAME(s.queued, 0);
    klaw_executor_unref(ex);
    return first;
}

static bool attempt(uint64_t n, bool sticky, uint32_t workers) {
    klaw_run_opts o = {.workers = workers, .blocking_threads = 1};
    CHECK(runs_nothing_left());
    atomic_store(&accepted, 0);
    atomic_store(&released, 0);
    for_ever = sticky;
    klaw_alloc_fail_at(n, sticky);
    klaw_err e = klaw_run(everything, NULL, &o);
    bool beyond = klaw_alloc_points() < n;
    klaw_alloc_fail_at(0, false);
    CHECK(e == KLAW_OK || short_of(e));
    if (beyond)
        OK(e);
    CHECK(atomic_load(&released) >= atomic_load(&accepted)); /* iterators release nothing */
    SAME(released, accepted);
    return beyond;
}

static void every_point(bool sticky, uint32_t workers) {
    uint64_t n = 1;
    while (!attempt(n, sticky, workers))
        n++;
    CHECK(n > 10);
}

PLAIN(one_allocation_fails) {
    every_point(false, 1);
    every_point(false, 2);
}

PLAIN(all_allocations_fail_from_one_on) {
    every_point(true, 1);
    every_point(true, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_allocation_fails),
        TEST(all_allocations_fail_from_one_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
