/* SPDX-License-Identifier: Apache-2.0 */
/* test_os.c - the kernel as os.h shows it: futex, clock, threads, processors, the poller. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "support/runs.h"

#include "plat/os.h"

/* --- processors --- */
PLAIN(at_least_one_processor_is_usable) {
    cpu_set_t all, one;
    unsigned n = klawi_cpu_usable();
    CHECK(n >= 1 && n <= 100000);
    SAME(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    SAME(sched_setaffinity(0, sizeof one, &one), 0);
    SAME(klawi_cpu_usable(), 1);
    SAME(sched_setaffinity(0, sizeof all, &all), 0);
    SAME(klawi_cpu_usable(), n);
}

/* --- clocks --- */
PLAIN(clocks_count_nanoseconds) {
    int64_t before = klawi_clock();
    klawi_thread_nap(KLAW_MS(2));
    int64_t took = klawi_clock() - before;
    CHECK(took >= KLAW_MS(2) && took < KLAW_S(60));
    CHECK(klawi_wall_clock() > KLAW_S(1600000000));
}

/* --- futex --- */
static _Atomic uint32_t word;

static klaw_err waits_for_a_change(void *arg) {
    (void)arg;
    while (atomic_load(&word) == 0)
        klawi_futex_wait(&word, 0, KLAW_FOREVER);
    return KLAW_OK;
}

PLAIN(a_futex_sleeps_only_while_the_word_is_as_expected) {
    int64_t before = klawi_clock();
    atomic_store(&word, 5);
    klawi_futex_wait(&word, 4, KLAW_FOREVER); /* returns at once */
    klawi_futex_wait(&word, 5, klawi_clock() + KLAW_MS(2));
    CHECK(klawi_clock() - before >= KLAW_MS(2));
    klawi_futex_wait(&word, 5, 1); /* the past */
    klawi_futex_wait(&word, 5, KLAW_NOWAIT);
    klawi_futex_wake(&word, 1); /* nobody sleeps */
}

PLAIN(a_futex_wakes) {
    for (int i = 0; i < 200; i++) {
        thread_job t[2];
        atomic_store(&word, 0);
        for (int k = 0; k < 2; k++)
            thread_start(&t[k], waits_for_a_change, NULL);
        if (i % 2)
            compute(KLAW_US(100));
        atomic_store(&word, 1);
        klawi_futex_wake(&word, INT32_MAX);
        for (int k = 0; k < 2; k++)
            OK(thread_end(&t[k]));
    }
}

/* --- threads --- */
static void *looks_at_its_signals(void *arg) {
    sigset_t set;
    char name[16] = "";
    int *blocked = arg;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    pthread_getname_np(pthread_self(), name, sizeof name);
    *blocked = sigismember(&set, SIGINT) && sigismember(&set, SIGTERM) &&
               sigismember(&set, SIGCHLD) && strcmp(name, "test") == 0;
    return NULL;
}

PLAIN(threads_have_a_name_and_no_signals) {
    klawi_thread_id id;
    sigset_t before, after;
    int blocked = 0;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    OK(klawi_thread_start(&id, "test", looks_at_its_signals, &blocked));
    klawi_thread_join(id);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    SAME(blocked, 1);
    SAME(sigismember(&before, SIGINT), sigismember(&after, SIGINT)); /* the starter's stay */
}

/* --- the poller --- */
static void with_poller(void (*body)(klawi_poller *, int[2])) {
    klawi_poller p;
    int fds[2];
    OK(klawi_poller_open(&p));
    SAME(pipe(fds), 0);
    body(&p, fds);
    klawi_poller_close(&p);
    close(fds[0]);
    close(fds[1]);
}

static void tells_once(klawi_poller *p, int fds[2]) {
    klawi_poll_event ev[4];
    SAME(klawi_poller_arm(p, fds[0], KLAW_READ, 77), 0);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 0);
    SAME(write(fds[1], "x", 1), 1);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_FOREVER), 1);
    SAME(ev[0].data, 77);
    SAME(ev[0].events, KLAW_READ);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 0); /* one-shot */
    SAME(klawi_poller_arm(p, fds[0], KLAW_READ, 78), 0);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 1); /* still ready: told again */
    SAME(ev[0].data, 78);
    SAME(klawi_poller_arm(p, fds[0], KLAW_READ, 79), 0);
    klawi_poller_forget(p, fds[0]);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 0);
    close(fds[1]);
    SAME(klawi_poller_arm(p, fds[0], KLAW_WRITE, 80), 0);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 1); /* a hang-up sets both */
    CHECK(ev[0].events & KLAW_WRITE);
    fds[1] = open("/dev/null", O_RDONLY);
}

PLAIN(the_poller_tells_each_arming_once) {
    with_poller(tells_once);
}

static void has_errors(klawi_poller *p, int fds[2]) {
    int file = open("/proc/self/exe", O_RDONLY);
    (void)fds;
    CHECK(file >= 0);
    SAME(klawi_poller_arm(p, file, KLAW_READ, 1), EPERM); /* regular: always ready */
    close(file);
    SAME(klawi_poller_arm(p, file, KLAW_READ, 1), EBADF);
}

PLAIN(the_poller_refuses_what_it_cant_wait_for) {
    with_poller(has_errors);
}

static void wakes(klawi_poller *p, int fds[2]) {
    klawi_poll_event ev[4];
    int64_t before = klawi_clock();
    (void)fds;
    SAME(klawi_poller_wait(p, ev, 4, before + KLAW_MS(2)), 0);
    CHECK(klawi_clock() - before >= KLAW_MS(2));
    klawi_poller_wake(p);
    klawi_poller_wake(p);
    for (int i = 0; i < 3; i++) /* who only looks does not take it away */
        SAME(klawi_poller_wait(p, ev, 4, KLAW_NOWAIT), 0);
    SAME(klawi_poller_wait(p, ev, 4, KLAW_FOREVER), 0); /* the next one returns */
    before = klawi_clock();
    SAME(klawi_poller_wait(p, ev, 4, before + KLAW_MS(2)), 0); /* and is used up */
    CHECK(klawi_clock() - before >= KLAW_MS(2));
}

PLAIN(a_wake_ends_one_wait_of_the_poller) {
    with_poller(wakes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_least_one_processor_is_usable),
        cmocka_unit_test(clocks_count_nanoseconds),
        cmocka_unit_test(a_futex_sleeps_only_while_the_word_is_as_expected),
        cmocka_unit_test(a_futex_wakes),
        cmocka_unit_test(threads_have_a_name_and_no_signals),
        cmocka_unit_test(the_poller_tells_each_arming_once),
        cmocka_unit_test(the_poller_refuses_what_it_cant_wait_for),
        cmocka_unit_test(a_wake_ends_one_wait_of_the_poller),
    };
    return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
