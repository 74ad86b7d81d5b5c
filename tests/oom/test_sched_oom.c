/* SPDX-License-Identifier: Apache-2.0 */
/* test_sched_oom.c - the n-th allocation, mapping or thread start fails, for every n until a run
 * gets through: the call says so, what is there goes on, nothing leaks, and the next run works. */
#include <sys/socket.h>
#include <unistd.h>

#include "klaw/select.h"
#include "support/runs.h"

/* What may be answered when memory or threads are short. */
static bool short_of(klaw_err e) {
    return e == KLAW_NOMEM || e == KLAW_SYSTEM;
}
#define OK_OR_SHORT(call)                     \
    do {                                      \
        klaw_err e_ = (call);                 \
        CHECK(e_ == KLAW_OK || short_of(e_)); \
        if (e_)                               \
            first = first ? first : e_;       \
    } while (0)

static _Atomic int ran, accepted;

static klaw_err runs_once(void *arg) {
    (void)arg;
    atomic_fetch_add(&ran, 1);
    return KLAW_OK;
}

/* A bit of everything; goes on after each failure with what is left. Returns the first error. */
static klaw_err fibers_and_scopes(void) {
    klaw_err first = KLAW_OK, e;
    klaw_scope *s = NULL;
    klaw_fiber *f = NULL;
    static const klaw_fiber_opts opts[] = {{.name = "named"},
                                           {.stack_size = 1 << 20},
                                           {.unguarded = true},
                                           {.pinned = true, .fpenv = true}};
    OK_OR_SHORT(klaw_scope_open(&(klaw_scope_opts){.deadline = KLAW_WITHIN(KLAW_S(3600))}, &s));
    for (int i = 0; i < 4; i++) {
        e = klaw_spawn(NULL, runs_once, NULL, &opts[i], i % 2 ? &f : NULL);
        OK_OR_SHORT(e);
        atomic_fetch_add(&accepted, e == KLAW_OK);
        if (e == KLAW_OK && i % 2)
            OK(result_of(f));
    }
    for (int i = 0; i < 200; i++) { /* more than what a worker keeps */
        e = klaw_go(runs_once, NULL);
        OK_OR_SHORT(e);
        atomic_fetch_add(&accepted, e == KLAW_OK);
    }
    if (s)
        OK(klaw_scope_close(s));
    return first;
}

static klaw_err channels_and_descriptors(void) {
    klaw_err first = KLAW_OK, e;
    int p[2] = {-1, -1};
    char c = 'x';
    size_t n = 0;
    klaw_receiver *rx = NULL;
    uint64_t v = 0;
    e = klaw_blocking(returns_ok, NULL);
    OK_OR_SHORT(e);
    e = klaw_ticker_open(KLAW_US(100), &rx);
    OK_OR_SHORT(e);
    if (e == KLAW_OK) {
        e = klaw_recv(rx, &v, KLAW_WITHIN(SOON_NS));
        OK_OR_SHORT(e);
        klaw_receiver_unref(rx);
    }
    SAME(pipe(p), 0);
    e = klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_US(100)));
    CHECK(e == KLAW_TIMEOUT || short_of(e));
    first = first || e == KLAW_TIMEOUT ? first : e;
    e = klaw_fd_write(p[1], &c, 1, &n, KLAW_FOREVER, NULL);
    OK_OR_SHORT(e);
    if (e == KLAW_OK)
        OK_OR_SHORT(klaw_fd_read(p[0], &c, 1, &n, KLAW_WITHIN(SOON_NS), NULL));
    for (int i = 0; i < 2; i++)
        if (klaw_fd_close(p[i]) != KLAW_OK) {
            first = first ? first : KLAW_NOMEM;
            close(p[i]);
        }
    return first;
}

static klaw_err on_a_thread(void *arg) {
    (void)arg;
    return fibers_and_scopes();
}

static klaw_err everything(void *arg) {
    thread_job t;
    klaw_err first = fibers_and_scopes(), e = channels_and_descriptors();
    first = first ? first : e;
    thread_start(&t, on_a_thread, arg);
    e = thread_end(&t);
    return first ? first : e;
}

/* Fails at n; true when that was beyond the last point. */
static bool attempt(uint64_t n, bool sticky, uint32_t workers) {
    klaw_run_opts o = {.workers = workers, .blocking_threads = 2};
    CHECK(runs_nothing_left()); /* nothing is kept from the last one: all points are passed */
    atomic_store(&ran, 0);
    atomic_store(&accepted, 0);
    klaw_alloc_fail_at(n, sticky);
    klaw_err e = klaw_run(everything, NULL, &o);
    bool beyond = klaw_alloc_points() < n;
    klaw_alloc_fail_at(0, false);
    CHECK(e == KLAW_OK || short_of(e));
    if (beyond)
        OK(e);
    SAME(ran, accepted);
    CHECK(runs_nothing_left());
    atomic_store(&ran, 0);
    atomic_store(&accepted, 0);
    OK(klaw_run(everything, NULL, &o)); /* the next one works */
    SAME(ran, accepted);
    SAME(ran, 2 * 204);
    return beyond;
}

static void every_point(bool sticky, uint32_t workers) {
    uint64_t n = 1;
    for (int quiet = 0; quiet < 3; n++) { /* what runs beside may pass a point more or less */
        quiet = attempt(n, sticky, workers) ? quiet + 1 : 0;
        CHECK(n < 5000);
    }
    printf("%" PRIu64 " points, %u workers%s\n", n, workers, sticky ? ", and all later ones" : "");
}

PLAIN(every_single_failure_on_one_worker) {
    every_point(false, 1);
}
PLAIN(every_failure_and_all_later_ones_on_one_worker) {
    every_point(true, 1);
}
PLAIN(every_single_failure_on_two_workers) {
    every_point(false, 2);
}
PLAIN(every_failure_and_all_later_ones_on_two_workers) {
    every_point(true, 2);
}

/* Many fibers need a thread at once and none can be had: each is told, none waits for ever. */
static _Atomic int refused;

static klaw_err blocks(void *arg) {
    (void)arg;
    klaw_err e = klaw_blocking(returns_ok, NULL);
    CHECK(e == KLAW_OK || e == KLAW_NOMEM);
    atomic_fetch_add(&refused, e != KLAW_OK);
    return KLAW_OK;
}

static klaw_err many_block(void *arg) {
    klaw_scope *s = SCOPE(0);
    for (int i = 0; i < 20; i++)
        OK(klaw_go(blocks, arg));
    klaw_alloc_fail_at(1, true);
    klaw_err e = klaw_scope_close(s);
    klaw_alloc_fail_at(0, false);
    return e;
}

PLAIN(blocking_calls_without_a_thread_are_refused) {
    for (uint32_t i = 0; i < 60; i++) {
        klaw_run_opts o = {.workers = 1 + i % 2, .blocking_threads = 1 + i % 3};
        atomic_store(&refused, 0);
        OK(klaw_run(many_block, NULL, &o));
        CHECK(runs_nothing_left());
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_single_failure_on_one_worker),
        TEST(every_failure_and_all_later_ones_on_one_worker),
        TEST(every_single_failure_on_two_workers),
        TEST(every_failure_and_all_later_ones_on_two_workers),
        TEST(blocking_calls_without_a_thread_are_refused),
    };
    return cmocka_run_group_tests_name("sched_oom", tests, NULL, NULL);
}
