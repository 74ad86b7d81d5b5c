/* SPDX-License-Identifier: Apache-2.0 */
/* test_signal.c - signals as elements of a channel, from plain threads; what comes back afterwards.
 *
 * Cases that end the process run in a second copy of this program, started with a role. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "klaw/klaw.h"

#define SOON KLAW_WITHIN(KLAW_S(20))

static klaw_receiver *open_for(int a, int b) {
    int signals[2] = {a, b};
    klaw_receiver *rx = NULL;
    assert_int_equal(klaw_signal_open(signals, b ? 2 : 1, &rx), KLAW_OK);
    assert_non_null(rx);
    return rx;
}

static void assert_next(klaw_receiver *rx, int sig) {
    uint64_t v = 0;
    assert_int_equal(klaw_recv(rx, &v, SOON), KLAW_OK);
    assert_int_equal(v, sig);
}

static void assert_nothing(klaw_receiver *rx) {
    uint64_t v = 0;
    assert_int_equal(klaw_recv(rx, &v, KLAW_NOWAIT), KLAW_EMPTY);
}

static bool handled_by(int sig, void (*handler)(int)) {
    struct sigaction now;
    assert_int_equal(sigaction(sig, NULL, &now), 0);
    return now.sa_handler == handler;
}

static int descriptors(void) {
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

/* The engine ends by itself, a moment after the last close. */
static void wait_until_idle(int fds, uint64_t live) {
    int64_t until = klaw_after(KLAW_S(20));
    for (;;) {
        klaw_alloc_trim();
        if (descriptors() == fds && klaw_alloc_live() == live)
            return;
        assert_true(klaw_now() < until);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static int fds_before;
static uint64_t live_before;

static int remember(void **state) {
    (void)state;
    klaw_alloc_trim();
    fds_before = descriptors();
    live_before = klaw_alloc_live();
    return 0;
}

static int all_given_back(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    wait_until_idle(fds_before, live_before);
    return !(handled_by(SIGUSR1, SIG_DFL) && handled_by(SIGUSR2, SIG_DFL));
}

/* ---- receiving ---- */

static void signal_reaches_its_receiver(void **state) {
    (void)state;
    klaw_receiver *rx = open_for(SIGUSR1, 0);
    assert_nothing(rx);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(raise(SIGUSR1), 0);
        assert_next(rx, SIGUSR1);
    }
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    assert_next(rx, SIGUSR1);
    assert_nothing(rx);
    klaw_receiver_unref(rx);
}

static void signal_reaches_every_receiver_that_asked(void **state) {
    (void)state;
    klaw_receiver *one = open_for(SIGUSR1, 0), *two = open_for(SIGUSR2, 0);
    klaw_receiver *both = open_for(SIGUSR1, SIGUSR2), *again = open_for(SIGUSR1, SIGUSR1);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(raise(SIGUSR2), 0);
    assert_next(one, SIGUSR1);
    assert_next(again, SIGUSR1);
    assert_next(both, SIGUSR1);
    assert_next(both, SIGUSR2);
    assert_next(two, SIGUSR2);
    assert_nothing(one);
    assert_nothing(again);
    klaw_receiver_unref(both);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_next(one, SIGUSR1);
    klaw_receiver_unref(one);
    klaw_receiver_unref(two);
    klaw_receiver_unref(again);
}

static void signal_wakes_a_waiting_thread(void **state) {
    (void)state;
    sigset_t set, was;
    struct timespec pause = {.tv_nsec = 30000000};
    klaw_receiver *rx = open_for(SIGALRM, 0);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec in = {.it_value = pause};
    sigemptyset(&set);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &set, &was), 0);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &in, NULL), 0);
    assert_next(rx, SIGALRM);
    timer_delete(timer);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    klaw_receiver_unref(rx);
}

static void signal_repeats_are_merged_and_others_still_fit(void **state) {
    (void)state;
    klaw_receiver *rx = open_for(SIGUSR1, SIGUSR2);
    klaw_channel_stats stats;
    int64_t until = klaw_after(KLAW_S(20));
    for (int i = 0; i < 100; i++)
        assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(raise(SIGUSR2), 0);
    do {
        assert_int_equal(klaw_receiver_stats(rx, &stats), KLAW_OK);
        assert_true(klaw_now() < until);
    } while (stats.queue_size < 17);
    for (int i = 0; i < 16; i++)
        assert_next(rx, SIGUSR1);
    assert_next(rx, SIGUSR2);
    assert_nothing(rx);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_next(rx, SIGUSR1);
    klaw_receiver_unref(rx);
}

static void signal_interrupts_nothing_for_good(void **state) {
    (void)state;
    klaw_receiver *rx = open_for(SIGUSR1, 0);
    int fds[2];
    char byte;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        kill(getppid(), SIGUSR1);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        _exit(write(fds[1], "x", 1) != 1);
    }
    assert_int_equal(read(fds[0], &byte, 1), 1); /* restarted, no EINTR */
    assert_next(rx, SIGUSR1);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(fds[0]);
    close(fds[1]);
    klaw_receiver_unref(rx);
}

static void signal_keeps_errno(void **state) {
    (void)state;
    klaw_receiver *rx = open_for(SIGUSR1, 0);
    errno = 77;
    raise(SIGUSR1);
    assert_int_equal(errno, 77);
    assert_next(rx, SIGUSR1);
    klaw_receiver_unref(rx);
}

/* ---- what comes back ---- */

static _Atomic int mine;
static void my_handler(int sig) {
    (void)sig;
    atomic_fetch_add(&mine, 1);
}

static void signal_former_handler_comes_back_at_once(void **state) {
    (void)state;
    struct sigaction my = {.sa_handler = my_handler}, was;
    assert_int_equal(sigaction(SIGUSR1, &my, &was), 0);
    klaw_receiver *a = open_for(SIGUSR1, 0), *b = open_for(SIGUSR1, SIGUSR2);
    raise(SIGUSR1);
    assert_next(a, SIGUSR1);
    assert_int_equal(mine, 0);
    klaw_receiver_close(a);
    assert_false(handled_by(SIGUSR1, my_handler));
    assert_false(handled_by(SIGUSR2, SIG_DFL));
    klaw_receiver_close(b);
    assert_true(handled_by(SIGUSR1, my_handler));
    assert_true(handled_by(SIGUSR2, SIG_DFL));
    raise(SIGUSR1);
    assert_int_equal(mine, 1);
    klaw_receiver_unref(a);
    klaw_receiver_unref(b);
    assert_int_equal(sigaction(SIGUSR1, &was, NULL), 0);
}

static void signal_leaves_a_newer_handler_alone(void **state) {
    (void)state;
    struct sigaction my = {.sa_handler = my_handler}, ours;
    klaw_receiver *rx = open_for(SIGUSR1, 0);
    assert_int_equal(sigaction(SIGUSR1, &my, &ours), 0);
    klaw_receiver_unref(rx);
    assert_true(handled_by(SIGUSR1, my_handler));
    assert_ptr_not_equal(signal(SIGUSR1, SIG_DFL), SIG_ERR);
}

static void signal_stays_until_the_last_clone_closes(void **state) {
    (void)state;
    klaw_receiver *rx = open_for(SIGUSR1, 0), *clone = NULL;
    assert_int_equal(klaw_receiver_clone(rx, &clone), KLAW_OK);
    klaw_receiver_unref(rx);
    raise(SIGUSR1);
    assert_next(clone, SIGUSR1);
    klaw_receiver_unref(clone);
    assert_true(handled_by(SIGUSR1, SIG_DFL));
}

static void signal_opens_and_closes_over_and_over(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        klaw_receiver *rx = open_for(SIGUSR1, 0);
        raise(SIGUSR1);
        if (i % 3)
            assert_next(rx, SIGUSR1);
        klaw_receiver_unref(rx);
        if (i % 50 == 0)
            wait_until_idle(fds_before, live_before);
    }
}

static _Atomic bool storm_over;

static void *open_and_close(void *arg) {
    int sig = (int)(intptr_t)arg;
#if defined(__SANITIZE_THREAD__)
    /* It keeps a signal back until the thread calls the C library; a sleeping one does not. */
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
#endif
    for (int i = 0; i < 200; i++) {
        klaw_receiver *rx = NULL;
        uint64_t v;
        if (klaw_signal_open(&sig, 1, &rx) != KLAW_OK)
            return "open";
        kill(getpid(), sig);
        if (i % 2 && klaw_recv(rx, &v, SOON) != KLAW_OK)
            return "recv";
        klaw_receiver_unref(rx);
    }
    return NULL;
}

static void *storm(void *arg) {
    (void)arg;
    while (!atomic_load(&storm_over))
        kill(getpid(), SIGUSR1);
    return NULL;
}

static void signal_receivers_come_and_go_under_load(void **state) {
    (void)state;
    pthread_t threads[4], stormy;
    klaw_receiver *rx = open_for(SIGUSR1, SIGUSR2); /* keeps the default actions off */
    assert_int_equal(pthread_create(&stormy, NULL, storm, NULL), 0);
    for (int i = 0; i < 4; i++) {
        intptr_t sig = i % 2 ? SIGUSR1 : SIGUSR2;
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, (void *)sig), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    atomic_store(&storm_over, true);
    pthread_join(stormy, NULL);
    klaw_receiver_unref(rx);
}

/* ---- bad input ---- */

static void signal_open_refuses(void **state) {
    (void)state;
    static const int bad[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
                              SIGSYS,  SIGABRT, 0,       -1,     65,     1000,   INT32_MAX};
    klaw_receiver *rx = NULL;
    int good = SIGUSR1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int pair[2] = {SIGUSR1, bad[i]};
        assert_int_equal(klaw_signal_open(pair, 2, &rx), KLAW_INVALID);
    }
    /* The C library's own: the kernel would take it. */
    int pair[2] = {SIGUSR1, 32};
    assert_int_equal(klaw_signal_open(pair, 2, &rx), KLAW_INVALID);
    assert_int_equal(klaw_signal_open(NULL, 1, &rx), KLAW_INVALID);
    assert_int_equal(klaw_signal_open(&good, 0, &rx), KLAW_INVALID);
    assert_int_equal(klaw_signal_open(&good, 1, NULL), KLAW_INVALID);
    assert_null(rx);
    assert_true(handled_by(SIGUSR1, SIG_DFL));
}

static void signal_open_takes_every_other_signal(void **state) {
    (void)state;
    int signals[64];
    size_t n = 0;
    klaw_receiver *rx = NULL;
    for (int sig = 1; sig <= 64; sig++) {
        klaw_receiver *one = NULL;
        if (klaw_signal_open(&sig, 1, &one) != KLAW_OK)
            continue;
        klaw_receiver_unref(one);
        signals[n++] = sig;
    }
    assert_true(n >= 64 - 9 - 2 - 1); /* valgrind keeps one to itself */
    assert_int_equal(klaw_signal_open(signals, n, &rx), KLAW_OK);
    for (size_t i = 0; i < n; i++)
        raise(signals[i]);
    for (size_t i = 0; i < n; i++)
        assert_next(rx, signals[i]);
    klaw_receiver_unref(rx);
}

static void signal_open_survives_every_lack_of_memory(void **state) {
    (void)state;
    klaw_err e = KLAW_NOMEM;
    for (uint64_t at = 1; e != KLAW_OK; at++) {
        klaw_receiver *rx = NULL;
        int sig = SIGUSR1;
        assert_true(at < 100);
        wait_until_idle(fds_before, live_before);
        klaw_alloc_fail_at(at, false);
        e = klaw_signal_open(&sig, 1, &rx);
        klaw_alloc_fail_at(0, false);
        assert_true(e == KLAW_OK || e == KLAW_NOMEM || e == KLAW_SYSTEM);
        assert_int_equal(e == KLAW_OK, rx != NULL);
        if (rx) {
            raise(SIGUSR1);
            assert_next(rx, SIGUSR1);
        }
        klaw_receiver_unref(rx);
        assert_true(handled_by(SIGUSR1, SIG_DFL));
    }
}

/* ---- processes ---- */

/* The wait status of this program in a role. */
static int run_role(const char *role) {
    extern char **environ;
    char self[4096] = {0};
    char *argv[] = {self, (char *)role, NULL};
    pid_t pid;
    int status;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void signal_default_of_ctrl_c_is_back_after_close(void **state) {
    (void)state;
    int status = run_role("ctrl-c");
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

static int role_ctrl_c(void) {
    klaw_receiver *rx = NULL;
    int sig = SIGINT;
    uint64_t v;
    if (klaw_signal_open(&sig, 1, &rx) != KLAW_OK)
        return 10;
    raise(SIGINT);
    if (klaw_recv(rx, &v, SOON) != KLAW_OK || v != SIGINT)
        return 11;
    klaw_receiver_close(rx);
    raise(SIGINT); /* ends here; sanitizers deliver at the next call */
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    return 12;
}

static void signal_children_of_a_fork_are_on_their_own(void **state) {
    (void)state;
    int status;
    pid_t child;
    klaw_receiver *rx = open_for(SIGUSR1, 0);
#if !defined(__SANITIZE_THREAD__) /* it runs no handlers in the child of a process with threads */
    child = fork();
    if (child == 0) {
        raise(SIGUSR1); /* as without klaw: ends here */
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGUSR1);
#endif
    child = fork();
    if (child == 0) {
        klaw_receiver *other = NULL;
        int sig = SIGUSR1;
        _exit(klaw_signal_open(&sig, 1, &other) != KLAW_STOPPED);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_nothing(rx); /* nothing went into the parent's pipe */
    raise(SIGUSR1);
    assert_next(rx, SIGUSR1);
    assert_nothing(rx);
    klaw_receiver_unref(rx);
}

#define T(name) cmocka_unit_test_setup_teardown(name, remember, all_given_back)

/* This thread becomes a host before blocks are counted. */
static int meet_klaw(void **state) {
    (void)state;
    return klaw_sleep(klaw_now() + KLAW_US(10)) != KLAW_OK;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return strcmp(argv[1], "ctrl-c") == 0 ? role_ctrl_c() : 100;
    const struct CMUnitTest tests[] = {
        T(signal_reaches_its_receiver),
        T(signal_reaches_every_receiver_that_asked),
        T(signal_wakes_a_waiting_thread),
        T(signal_repeats_are_merged_and_others_still_fit),
        T(signal_interrupts_nothing_for_good),
        T(signal_keeps_errno),
        T(signal_former_handler_comes_back_at_once),
        T(signal_leaves_a_newer_handler_alone),
        T(signal_stays_until_the_last_clone_closes),
        T(signal_opens_and_closes_over_and_over),
        T(signal_receivers_come_and_go_under_load),
        T(signal_open_refuses),
        T(signal_open_takes_every_other_signal),
        T(signal_open_survives_every_lack_of_memory),
        T(signal_default_of_ctrl_c_is_back_after_close),
        T(signal_children_of_a_fork_are_on_their_own),
    };
    return cmocka_run_group_tests_name("signal", tests, meet_klaw, NULL);
}
