/* SPDX-License-Identifier: Apache-2.0 */
/* test_process.c - operating-system processes: starting, pipes, environment, the end and how it is
 * told, groups, zombies, and what becomes of children when their parent is killed.
 *
 * Tried with these bugs: no group kill at the end of a leader; no reaping in unref; no
 * close-on-exec; the guard is not told; SIGTERM to the leader alone. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "klaw/klaw.h"
#include "plat/os.h"
#include "support/child.h"
#include "support/runs.h"

#define SH(text) ((const char *const[]){"/bin/sh", "-c", (text), NULL})

static void says(const char *text, const char *want) {
    if (strcmp(text, want) != 0)
        check_failed(__FILE__, __LINE__, want, text);
}

static klaw_process *start(klaw_process_opts o) {
    klaw_process *p = NULL;
    klaw_error_info info;
    klaw_err e = klaw_process_spawn(&o, &p, &info);
    if (e)
        fprintf(stderr, "spawn: %s: %s\n", klaw_err_name(e), info.message);
    OK(e);
    return p;
}

static klaw_process_status end_of(klaw_process *p) {
    klaw_process_status st;
    OK(klaw_process_wait(p, klaw_after(SOON_NS), &st));
    klaw_process_unref(p);
    return st;
}

/* All of a child's stdout. */
static void read_all(klaw_process *p, char *text, size_t size) {
    size_t at = 0, got = 1;
    while (got > 0 && at + 1 < size) {
        OK(klaw_fd_read(klaw_process_fd(p, 1), text + at, size - 1 - at, &got, klaw_after(SOON_NS),
                        NULL));
        at += got;
    }
    text[at] = '\0';
}

static void output_of(klaw_process_opts o, char *text, size_t size) {
    o.out = (klaw_stdio){.kind = KLAW_STDIO_PIPE};
    klaw_process *p = start(o);
    read_all(p, text, size);
    SAME(end_of(p).code, 0);
}

static void gone(int64_t pid) {
    for (int64_t until = klaw_now() + SOON_NS; process_runs(pid);) {
        CHECK(klaw_now() < until);
        usleep(1000);
    }
}

static void no_zombies(void) {
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && klawi_errno() == ECHILD);
}

RUNS(exit_codes_and_signals_are_told, 2) {
    char text[64];
    klaw_process_status st = end_of(start((klaw_process_opts){.argv = SH("exit 0")}));
    SAME(st.code, 0);
    SAME(st.signal, 0);
    st = end_of(start((klaw_process_opts){.argv = SH("exit 3")}));
    SAME(st.code, 3);
    klaw_process_status_text(&st, text, sizeof text);
    says(text, "exit code 3");
    st = end_of(start((klaw_process_opts){.argv = SH("kill -KILL $$")}));
    SAME(st.code, KLAW_NONE);
    SAME(st.signal, SIGKILL);
    klaw_process_status_text(&st, text, sizeof text);
    says(text, "signal 9 (KILL)");
    no_zombies();
}

RUNS(what_cannot_be_started_says_why, 2) {
    klaw_process *p = NULL;
    klaw_error_info info;
    klaw_process_opts o = {.argv = (const char *const[]){"/no/such/program", NULL}};
    SAME(klaw_process_spawn(&o, &p, &info), KLAW_NOT_FOUND);
    SAME(info.sys, ENOENT);
    CHECK(strstr(info.message, "/no/such/program") != NULL);
    o.argv = SH("true");
    o.cwd = "/no/such/folder";
    SAME(klaw_process_spawn(&o, &p, &info), KLAW_NOT_FOUND);
    o.cwd = NULL;
    o.out = (klaw_stdio){KLAW_STDIO_FD, 1000000};
    SAME(klaw_process_spawn(&o, &p, &info), KLAW_INVALID);
    o.out = (klaw_stdio){KLAW_STDIO_OUT, 0};
    SAME(klaw_process_spawn(&o, &p, &info), KLAW_INVALID);
    o.out = (klaw_stdio){0};
    o.env = (const char *const[]){"=x", NULL};
    SAME(klaw_process_spawn(&o, &p, NULL), KLAW_INVALID);
    o.argv = NULL;
    SAME(klaw_process_spawn(&o, &p, NULL), KLAW_INVALID);
    CHECK(p == NULL);
    no_zombies();
}

RUNS(the_environment_is_added_to_or_replaced, 2) {
    char text[4096];
    OK(setenv("KLAW_TEST_A", "old", 1) == 0 ? KLAW_OK : KLAW_SYSTEM);
    OK(setenv("KLAW_TEST_B", "gone", 1) == 0 ? KLAW_OK : KLAW_SYSTEM);
    const char *const env[] = {"KLAW_TEST_A=new", "KLAW_TEST_B", "KLAW_TEST_C=x=y", NULL};
    output_of((klaw_process_opts){.argv = SH("echo $KLAW_TEST_A-${KLAW_TEST_B-none}-$KLAW_TEST_C"),
                                  .env = env},
              text, sizeof text);
    says(text, "new-none-x=y\n");
    output_of((klaw_process_opts){.argv = (const char *const[]){"/usr/bin/env", NULL},
                                  .env = env,
                                  .env_only = true},
              text, sizeof text);
    says(text, "KLAW_TEST_A=new\nKLAW_TEST_C=x=y\n");
}

RUNS(it_runs_where_it_is_told, 2) {
    char text[256];
    output_of((klaw_process_opts){.argv = SH("pwd"), .cwd = "/"}, text, sizeof text);
    says(text, "/\n");
}

RUNS(pipes_carry_bytes_both_ways, 2) {
    char text[256];
    klaw_process *p = start((klaw_process_opts){.argv = (const char *const[]){"cat", NULL},
                                                .in = {.kind = KLAW_STDIO_PIPE},
                                                .out = {.kind = KLAW_STDIO_PIPE}});
    OK(klaw_fd_write(klaw_process_fd(p, 0), "to and fro", 10, NULL, klaw_after(SOON_NS), NULL));
    OK(klaw_process_fd_close(p, 0));
    SAME(klaw_process_fd_close(p, 0), KLAW_NOT_FOUND);
    SAME(klaw_process_fd(p, 0), KLAW_NONE);
    SAME(klaw_process_fd(p, 2), KLAW_NONE);
    read_all(p, text, sizeof text);
    says(text, "to and fro");
    SAME(end_of(p).code, 0);
}

RUNS(stderr_goes_where_stdout_goes, 2) {
    char text[256];
    output_of(
        (klaw_process_opts){.argv = SH("echo out; echo err >&2"), .err = {.kind = KLAW_STDIO_OUT}},
        text, sizeof text);
    says(text, "out\nerr\n");
}

RUNS(descriptors_of_the_caller_stay_the_callers, 2) {
    char text[16] = "";
    int pair[2];
    SAME(pipe(pair), 0);
    klaw_process *p = start((klaw_process_opts){.argv = SH("echo hi; echo err >&2"),
                                                .in = {.kind = KLAW_STDIO_NULL},
                                                .out = {.kind = KLAW_STDIO_FD, .fd = pair[1]},
                                                .err = {.kind = KLAW_STDIO_NULL}});
    SAME(end_of(p).code, 0);
    SAME(read(pair[0], text, sizeof text), 3);
    says(text, "hi\n");
    SAME(close(pair[0]), 0);
    SAME(close(pair[1]), 0);
}

RUNS(nothing_else_is_inherited, 2) {
    char text[256];
    int leaky = open("/dev/null", O_RDONLY); /* no close-on-exec */
    CHECK(leaky > 2);
    klaw_process *other =
        start((klaw_process_opts){.argv = SH("sleep 60"), .in = {.kind = KLAW_STDIO_PIPE}});
    output_of(
        (klaw_process_opts){.argv =
                                SH("for f in /proc/self/fd/*; do echo ${f##*/}; done | wc -l; ")},
        text, sizeof text);
    /* 0, 1, 2, and the descriptor of the listing itself */
    CHECK(atoi(text) <= 4);
    SAME(close(leaky), 0);
    klaw_process_unref(other);
    no_zombies();
}

/* Threads that make blocking calls have all signals blocked. */
RUNS(signals_are_clean_in_the_child, 2) {
    char text[256];
    struct sigaction ign = {.sa_handler = SIG_IGN}, was;
    SAME(sigaction(SIGUSR2, &ign, &was), 0);
    output_of((klaw_process_opts){.argv = SH("grep -E '^Sig(Blk|Ign)' /proc/self/status")}, text,
              sizeof text);
    SAME(sigaction(SIGUSR2, &was, NULL), 0);
    unsigned long long blocked, ignored;
    SAME(sscanf(text, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
    SAME(blocked, 0);
    SAME(ignored & INT32_MAX, 0); /* 32 and 33 are glibc's own business */
}

RUNS(a_wait_has_a_deadline_and_can_be_cancelled, 2) {
    klaw_scope *s;
    klaw_process *p = start((klaw_process_opts){.argv = SH("sleep 60")});
    SAME(klaw_process_wait(p, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    SAME(klaw_process_wait(p, KLAW_WITHIN(KLAW_MS(5)), NULL), KLAW_TIMEOUT);
    OK(klaw_scope_open(&(klaw_scope_opts){.deadline = klaw_after(KLAW_MS(5))}, &s));
    SAME(klaw_process_wait(p, KLAW_FOREVER, NULL), KLAW_CANCELLED);
    SAME(klaw_scope_close(s), KLAW_TIMEOUT);
    OK(klaw_process_signal(p, SIGTERM));
    klaw_process_ref(p);
    SAME(end_of(p).signal, SIGTERM);
    SAME(klaw_process_signal(p, SIGTERM), KLAW_NOT_FOUND);
    SAME(klaw_process_kill_group(p, SIGTERM), KLAW_NOT_FOUND);
    SAME(end_of(p).signal, SIGTERM);
    no_zombies();
}

static klaw_err waits(void *arg) {
    klaw_process_status st;
    klaw_err e = klaw_process_wait(arg, klaw_after(SOON_NS), &st);
    return e ? e : st.code == 7 ? KLAW_OK : KLAW_CORRUPT;
}

RUNS(any_number_of_fibers_wait_for_one_process, 2) {
    klaw_fiber *f[20];
    klaw_process *p =
        start((klaw_process_opts){.argv = SH("read x; exit 7"), .in = {.kind = KLAW_STDIO_PIPE}});
    for (int i = 0; i < 20; i++)
        f[i] = fiber(waits, p);
    OK(klaw_process_fd_close(p, 0));
    for (int i = 0; i < 20; i++)
        OK(result_of(f[i]));
    klaw_process_unref(p);
    no_zombies();
}

PLAIN(a_plain_thread_needs_no_runtime) {
    char text[64];
    output_of((klaw_process_opts){.argv = SH("echo plain")}, text, sizeof text);
    says(text, "plain\n");
    klaw_process *p = start((klaw_process_opts){.argv = SH("sleep 60")});
    klaw_process_status st;
    OK(klaw_process_stop(p, klaw_after(SOON_NS), &st));
    SAME(st.signal, SIGTERM);
    klaw_process_unref(p);
    no_zombies();
}

/* A group of three: the leader's number, then two others'. The leader has done `first` when this
 * returns. */
static klaw_process *group_with(const char *first, const char *leader, int64_t pids[2]) {
    char script[256], text[64];
    snprintf(script, sizeof script, "%s sleep 61 & echo $!; sleep 62 & echo $!; exec 1>&-; %s",
             first, leader);
    klaw_process *p =
        start((klaw_process_opts){.argv = SH(script), .out = {.kind = KLAW_STDIO_PIPE}});
    long a, b;
    /* The sleepers hold the pipe: there is no end to wait for. */
    size_t at = 0, got;
    for (int lines = 0; lines < 2; lines += text[at++] == '\n') {
        OK(klaw_fd_read(klaw_process_fd(p, 1), text + at, 1, &got, klaw_after(SOON_NS), NULL));
        SAME(got, 1);
    }
    text[at] = '\0';
    SAME(sscanf(text, "%ld %ld", &a, &b), 2);
    pids[0] = a;
    pids[1] = b;
    return p;
}

static klaw_process *group(const char *leader, int64_t pids[2]) {
    return group_with("", leader, pids);
}

RUNS(a_group_ends_with_its_leader, 2) {
    int64_t pids[2];
    klaw_process *p = group("exit 5", pids);
    SAME(end_of(p).code, 5);
    gone(pids[0]);
    gone(pids[1]);
    no_zombies();
}

RUNS(a_group_is_stopped_as_one, 2) {
    int64_t pids[2];
    klaw_process_status st;
    klaw_process *p = group("wait", pids);
    int64_t pid = klaw_process_pid(p);
    OK(klaw_process_stop(p, klaw_after(SOON_NS), &st));
    SAME(st.signal, SIGTERM);
    klaw_process_unref(p);
    gone(pid);
    gone(pids[0]);
    gone(pids[1]);
    no_zombies();
}

RUNS(who_ignores_sigterm_is_killed_with_all_its_own, 2) {
    int64_t pids[2];
    klaw_process_status st;
    klaw_process *p = group_with("trap '' TERM;", "while :; do sleep 1; done", pids);
    OK(klaw_process_stop(p, klaw_after(KLAW_MS(50)), &st));
    SAME(st.signal, SIGKILL);
    klaw_process_unref(p);
    gone(pids[0]);
    gone(pids[1]);
    no_zombies();
}

RUNS(a_stop_is_not_cut_by_cancellation, 2) {
    klaw_scope *s;
    klaw_process_status st;
    klaw_process *p =
        start((klaw_process_opts){.argv = SH("trap '' TERM; while :; do sleep 1; done")});
    OK(klaw_scope_open(NULL, &s));
    klaw_scope_cancel(s, "test");
    OK(klaw_process_stop(p, KLAW_FOREVER, &st));
    CHECK(st.signal == SIGKILL || st.signal == SIGTERM); /* it may have had no time for its trap */
    SAME(klaw_scope_close(s), KLAW_CANCELLED);
    klaw_process_unref(p);
    no_zombies();
}

RUNS(strays_may_be_left, 2) {
    char text[64];
    klaw_process *p = start((klaw_process_opts){.argv = SH("sleep 63 >&- & echo $!"),
                                                .out = {.kind = KLAW_STDIO_PIPE},
                                                .leave_strays = true});
    read_all(p, text, sizeof text);
    SAME(end_of(p).code, 0);
    pid_t stray = atoi(text);
    SAME(kill(stray, 0), 0);
    SAME(kill(stray, SIGKILL), 0);
    gone(stray);
}

RUNS(the_last_reference_ends_what_runs, 2) {
    int64_t pids[2];
    klaw_process *p = group_with("trap '' TERM;", "while :; do sleep 1; done", pids);
    int64_t pid = klaw_process_pid(p);
    klaw_process_unref(klaw_process_ref(p));
    SAME(kill((pid_t)pid, 0), 0);
    klaw_process_unref(p);
    gone(pid);
    gone(pids[0]);
    no_zombies();
}

/* Reaped behind our back: the process is over all the same. */
RUNS(a_child_that_others_reaped_ended_unseen, 2) {
    char text[64];
    klaw_process *p = start((klaw_process_opts){.argv = SH("exit 3")});
    SAME(waitpid((pid_t)klaw_process_pid(p), NULL, 0), klaw_process_pid(p));
    klaw_process_status st = end_of(p);
    SAME(st.code, KLAW_NONE);
    klaw_process_status_text(&st, text, sizeof text);
    says(text, "ended unseen");
}

/* The parent that will be killed: starts a group, says its numbers, and waits. */
static int victim(void) {
    int64_t pids[2];
    klaw_process *p = group("wait", pids), *free_one, *done;
    free_one = start((klaw_process_opts){
        .argv = SH("exec sleep 64"), .err = {.kind = KLAW_STDIO_NULL}, .outlives = true});
    done = start((klaw_process_opts){.argv = SH("true")}); /* not on the list any more */
    if (klaw_process_wait(done, KLAW_FOREVER, NULL) != KLAW_OK)
        return 1;
    klaw_process_unref(done);
    fprintf(stderr, "%lld %lld %lld %lld\n", (long long)klaw_process_pid(p), (long long)pids[0],
            (long long)pids[1], (long long)klaw_process_pid(free_one));
    (void)kill(getpid(), SIGKILL);
    return 0;
}

static void children_die_with_a_killed_parent(void **state) {
    (void)state;
    long long pid[4];
    check_test = "children_die_with_a_killed_parent";
    child_end c = child_of(victim);
    CHECK(WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGKILL);
    SAME(sscanf(c.text, "%lld %lld %lld %lld", &pid[0], &pid[1], &pid[2], &pid[3]), 4);
    for (int i = 0; i < 3; i++)
        gone(pid[i]);
    SAME(kill((pid_t)pid[3], 0), 0);
    SAME(kill((pid_t)pid[3], SIGKILL), 0);
}

/* A fork of ours has no part in our processes: it may not signal them, nor does it end them or take them
 * off the guard's list by giving its handle back; and while it lives the guard still hears of our
 * death. */
static int victim_with_a_fork(void) {
    klaw_process *p = start((klaw_process_opts){.argv = SH("exec sleep 65")});
    pid_t fork_of_us = fork();
    if (fork_of_us == 0) {
        bool good = klaw_process_signal(p, SIGKILL) == KLAW_STOPPED &&
                    klaw_process_kill_group(p, SIGKILL) == KLAW_STOPPED &&
                    klaw_process_wait(p, KLAW_NOWAIT, NULL) == KLAW_STOPPED &&
                    klaw_process_stop(p, KLAW_NOWAIT, NULL) == KLAW_STOPPED;
        klaw_process_unref(p);
        close(STDERR_FILENO); /* who reads it waits for its end */
        if (!good)
            _exit(1);
        (void)sleep(60); /* outlives our parent */
        _exit(0);
    }
    usleep(1000); /* most often after the unref; either order has to do */
    int status = 0;
    bool failed = waitpid(fork_of_us, &status, WNOHANG) == fork_of_us;
    if (failed || !process_runs(klaw_process_pid(p)))
        return 1;
    fprintf(stderr, "%lld %lld\n", (long long)klaw_process_pid(p), (long long)fork_of_us);
    (void)kill(getpid(), SIGKILL);
    return 0;
}

static void a_fork_leaves_the_processes_to_its_parent(void **state) {
    (void)state;
    long long pid[2];
    check_test = "a_fork_leaves_the_processes_to_its_parent";
    child_end c = child_of(victim_with_a_fork);
    CHECK(WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGKILL);
    SAME(sscanf(c.text, "%lld %lld", &pid[0], &pid[1]), 2);
    gone(pid[0]);
    CHECK(process_runs(pid[1]));
    SAME(kill((pid_t)pid[1], SIGKILL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_die_with_a_killed_parent), /* first: they fork */
        cmocka_unit_test(a_fork_leaves_the_processes_to_its_parent),
        TEST(exit_codes_and_signals_are_told),
        TEST(what_cannot_be_started_says_why),
        TEST(the_environment_is_added_to_or_replaced),
        TEST(it_runs_where_it_is_told),
        TEST(pipes_carry_bytes_both_ways),
        TEST(stderr_goes_where_stdout_goes),
        TEST(descriptors_of_the_caller_stay_the_callers),
        TEST(nothing_else_is_inherited),
        TEST(signals_are_clean_in_the_child),
        TEST(a_wait_has_a_deadline_and_can_be_cancelled),
        TEST(any_number_of_fibers_wait_for_one_process),
        TEST(a_plain_thread_needs_no_runtime),
        TEST(a_group_ends_with_its_leader),
        TEST(a_group_is_stopped_as_one),
        TEST(who_ignores_sigterm_is_killed_with_all_its_own),
        TEST(a_stop_is_not_cut_by_cancellation),
        TEST(strays_may_be_left),
        TEST(the_last_reference_ends_what_runs),
        TEST(a_child_that_others_reaped_ended_unseen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
