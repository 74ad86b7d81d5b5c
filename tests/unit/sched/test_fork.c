/* SPDX-License-Identifier: Apache-2.0 */
/* test_fork.c - in the child of a fork every call answers STOPPED, or does nothing, and none hangs
 * or disturbs the parent. */
#include "klaw/klaw.h"
#include "support/child.h"
#include "support/runs.h"

static gate shared;
static klaw_scope *scope;
static klaw_fiber *handle;
static klaw_timer timer;
static int fds[2];

static void nothing(void *arg) {
    (void)arg;
}

#define STOPS(call)                                                \
    do {                                                           \
        klaw_err e_ = (call);                                      \
        if (e_ != KLAW_STOPPED) {                                  \
            fprintf(stderr, "%s: %s\n", #call, klaw_err_name(e_)); \
            bad = 1;                                               \
        }                                                          \
    } while (0)

/* In the child, on the thread or fiber that forked. */
static int every_call_stops(void) {
    int bad = 0;
    klaw_fiber *f = NULL;
    klaw_scope *s = NULL;
    klaw_receiver *rx = NULL;
    uint64_t v = 0;
    char c;
    size_t n;
    STOPS(klaw_run(returns_ok, NULL, NULL));
    STOPS(klaw_run_stop("child"));
    STOPS(klaw_go(returns_ok, NULL));
    STOPS(klaw_spawn(NULL, returns_ok, NULL, NULL, &f));
    STOPS(klaw_join(handle, NULL, NULL, KLAW_WITHIN(KLAW_MS(1))));
    STOPS(klaw_scope_open(NULL, &s));
    STOPS(klaw_scope_wait(scope, KLAW_WITHIN(KLAW_MS(1))));
    STOPS(klaw_scope_close(scope));
    STOPS(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    STOPS(klaw_blocking(returns_ok, NULL));
    STOPS(klaw_timer_arm(&timer, klaw_after(1)));
    STOPS(klaw_ticker_open(KLAW_MS(1), &rx));
    STOPS(klaw_fd_wait(fds[0], KLAW_READ, KLAW_WITHIN(KLAW_MS(1))));
    STOPS(klaw_fd_read(fds[0], &c, 1, &n, KLAW_WITHIN(KLAW_MS(1)), NULL));
    STOPS(klaw_recv(shared.rx, &v, KLAW_WITHIN(KLAW_MS(1))));
    STOPS(klaw_send(shared.tx, &v, KLAW_WITHIN(KLAW_MS(1))));
    bad |= klaw_run_workers() != 0 || klaw_self_id() != 0 || klaw_scope_current() != NULL;
    bad |= strcmp(klaw_self_name(), "thread") != 0;
    bad |= klaw_now() <= 0 || strcmp(klaw_err_name(KLAW_STOPPED), "KLAW_STOPPED") != 0;
    return bad;
}

static int the_child_closes_a_descriptor(void) {
    klaw_err e = klaw_fd_close(fds[0]);
    return e != KLAW_STOPPED && e != KLAW_OK;
}

static klaw_err reads_one(void *arg) {
    char c;
    size_t n;
    (void)arg;
    OK(klaw_fd_read(fds[0], &c, 1, &n, KLAW_WITHIN(SOON_NS), NULL));
    SAME(n, 1);
    return KLAW_OK;
}

static klaw_err forks_on_a_thread(void *arg) {
    (void)arg;
    child_ok(every_call_stops);
    return KLAW_OK;
}

RUNS(every_call_in_the_child_answers_stopped, 2) {
    thread_job t;
    shared = gate_make();
    SAME(pipe(fds), 0);
    scope = SCOPE(0);
    handle = fiber(passes, &shared);
    klaw_timer_init(&timer, nothing, NULL);
    for (int i = 0; i < 3; i++) {
        child_ok(every_call_stops); /* by a fiber */
        OK(klaw_blocking(forks_on_a_thread, NULL));
        thread_start(&t, forks_on_a_thread, NULL);
        OK(thread_end(&t));
    }
    gate_open(&shared);
    OK(result_of(handle));
    OK(klaw_scope_close(scope));
    gate_free(&shared);
    OK(klaw_fd_close(fds[0]));
    OK(klaw_fd_close(fds[1]));
}

RUNS(the_parent_goes_on_undisturbed, 2) {
    SAME(pipe(fds), 0);
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "reader"}, reads_one, NULL);
    UNTIL(waiting("reader", "fd") == 1);
    child_ok(the_child_closes_a_descriptor);
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
    SAME(write(fds[1], "x", 1), 1);
    OK(result_of(f)); /* its registration in the kernel is still there */
    OK(klaw_fd_close(fds[0]));
    OK(klaw_fd_close(fds[1]));
}

/* Under load: locks may be held by other threads at the instant of the fork. */
static _Atomic bool enough;

static klaw_err makes_noise(void *arg) {
    while (!atomic_load(&enough)) {
        uint64_t v = 1;
        klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_S(1)));
        OK(klaw_go(returns_ok, NULL));
        OK(klaw_send(shared.tx, &v, KLAW_WITHIN(SOON_NS)));
        OK(klaw_recv(shared.rx, &v, KLAW_WITHIN(SOON_NS)));
        OK(klaw_scope_close(s));
    }
    return arg == NULL ? KLAW_OK : KLAW_TYPE;
}

RUNS(a_fork_under_load_does_not_hang_the_child, 2) {
    klaw_fiber *f[4];
    thread_job t;
    atomic_store(&enough, false);
    shared = gate_make();
    SAME(pipe(fds), 0);
    scope = klaw_scope_current();
    handle = fiber(returns_ok, NULL);
    klaw_timer_init(&timer, nothing, NULL);
    for (int i = 0; i < 4; i++)
        f[i] = fiber(makes_noise, NULL);
    thread_start(&t, makes_noise, NULL);
    for (int i = 0; i < 30; i++)
        OK(klaw_blocking(forks_on_a_thread, NULL));
    atomic_store(&enough, true);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
    OK(thread_end(&t));
    OK(result_of(handle));
    gate_free(&shared);
    OK(klaw_fd_close(fds[0]));
    OK(klaw_fd_close(fds[1]));
}

int main(void) {
    if (child_on_valgrind()) {
        puts("skipped: valgrind looks for leaks in the children and changes their exit codes");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        TEST(every_call_in_the_child_answers_stopped),
        TEST(the_parent_goes_on_undisturbed),
        TEST(a_fork_under_load_does_not_hang_the_child),
    };
    return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
