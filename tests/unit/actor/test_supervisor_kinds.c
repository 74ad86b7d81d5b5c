/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor_kinds.c - actors and operating-system processes as children of supervisors.
 *
 * Tried with these bugs: SIGTERM to the leader alone; no SIGKILL after the shutdown time; an identity
 * per incarnation; an abandoned actor that is freed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "klaw/klaw.h"
#include "plat/os.h"
#include "support/child.h"
#include "support/supervisors.h"

#define SH(text) ((const char *const[]){"/bin/sh", "-c", (text), NULL})

static klaw_child_info first(klaw_supervisor *s) {
    klaw_child_info info[4];
    size_t n;
    OK(klaw_supervisor_which(s, info, 4, &n));
    CHECK(n > 0);
    return info[0];
}

/* --- processes --- */
static klaw_child_spec process(const char *name, const klaw_process_opts *o) {
    return (klaw_child_spec){.name = name, .kind = KLAW_CHILD_PROCESS, .process = o};
}

static void no_children(void) {
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && klawi_errno() == ECHILD);
}

static _Atomic int failures;
static char detail[64];
static void on_failure(const klaw_child_event *e, void *user) {
    (void)user;
    SAME(e->error, KLAW_SYSTEM);
    SAME(e->kind, KLAW_CHILD_PROCESS);
    snprintf(detail, sizeof detail, "%.63s", e->info->message);
    atomic_fetch_add(&failures, 1);
}

RUNS(an_exit_code_is_a_failure_and_is_told, 2) {
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    klaw_process_opts o = {.argv = SH("exit 7")};
    klaw_child_spec c = process("job", &o);
    atomic_store(&failures, 0);
    klaw_supervisor *s =
        opened((klaw_supervisor_opts){.policy = {.no_backoff = true, .max_restarts = 2},
                                      .on_failure = on_failure},
               &c, 1);
    SAME(ended(s), KLAW_LIMIT);
    SAME(klaw_scope_close(scope), KLAW_LIMIT);
    SAME(failures, 3);
    CHECK(strcmp(detail, "exit code 7") == 0);
    no_children();
}

RUNS(a_signal_is_a_failure_and_the_process_comes_back, 2) {
    klaw_process_opts o = {.argv = SH("exec sleep 65")};
    klaw_child_spec c = process("job", &o);
    klaw_process *p;
    atomic_store(&failures, 0);
    klaw_supervisor *s = opened(
        (klaw_supervisor_opts){.policy = {.no_backoff = true}, .on_failure = on_failure}, &c, 1);
    klaw_child_info was = first(s), is;
    SAME(was.state, KLAW_CHILD_RUNNING);
    OK(klaw_supervisor_child_process(s, "job", &p));
    SAME(klaw_process_pid(p), was.id);
    OK(klaw_process_signal(p, SIGKILL));
    do
        is = first(s);
    while (is.id == was.id || is.state != KLAW_CHILD_RUNNING || is.id == 0);
    CHECK(strcmp(is.last_detail, "signal 9 (KILL)") == 0);
    SAME(is.restarts, 1);
    SAME(failures, 1);
    klaw_process_unref(p);
    stop(s);
    CHECK(!process_runs(is.id));
    no_children();
}

RUNS(a_normal_end_is_none, 2) {
    klaw_process_opts o = {.argv = SH("exit 0")};
    klaw_child_spec c = process("job", &o);
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &c, 1);
    while (first(s).state != KLAW_CHILD_STOPPED)
        OK(klaw_yield());
    SAME(first(s).last_error, KLAW_OK);
    SAME(klaw_supervisor_child_process(s, "job", &(klaw_process *){NULL}), KLAW_STOPPED);
    OK(klaw_supervisor_restart_child(s, "job", KLAW_FOREVER));
    stop(s);
    no_children();
}

RUNS(a_program_that_is_not_there_fails_the_open, 2) {
    klaw_process_opts o = {.argv = (const char *const[]){"/no/such/program", NULL}};
    klaw_child_spec c = process("job", &o);
    klaw_supervisor *s = NULL;
    klaw_error_info info;
    SAME(klaw_supervisor_open(NULL, &c, 1, &s, &info), KLAW_NOT_FOUND);
    CHECK(strstr(info.message, "job") && strstr(info.message, "/no/such/program"));
    SAME(info.sys, ENOENT);
    no_children();
}

RUNS(a_stop_ends_the_whole_group, 2) {
    klaw_process_opts o = {.argv = SH("sleep 66 & echo $!; wait"),
                           .out = {.kind = KLAW_STDIO_PIPE}};
    klaw_child_spec c = process("job", &o);
    klaw_process *p;
    char text[32] = "";
    size_t got;
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &c, 1);
    OK(klaw_supervisor_child_process(s, "job", &p));
    OK(klaw_fd_read(klaw_process_fd(p, 1), text, sizeof text - 1, &got, klaw_after(SOON_NS), NULL));
    int64_t in_group = atoi(text), pid = klaw_process_pid(p);
    CHECK(in_group > 0 && process_runs(in_group));
    klaw_process_unref(p);
    stop(s);
    CHECK(!process_runs(pid));
    UNTIL(!process_runs(in_group));
    no_children();
}

RUNS(who_ignores_sigterm_is_killed_when_the_shutdown_time_is_over, 2) {
    klaw_process_opts o = {.argv = SH("trap '' TERM; echo x; while :; do sleep 1; done"),
                           .out = {.kind = KLAW_STDIO_PIPE}};
    klaw_child_spec c = process("job", &o);
    klaw_process *p;
    klaw_process_status st;
    char text[8];
    size_t got;
    c.shutdown = KLAW_MS(20);
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &c, 1);
    OK(klaw_supervisor_child_process(s, "job", &p));
    OK(klaw_fd_read(klaw_process_fd(p, 1), text, sizeof text, &got, klaw_after(SOON_NS), NULL));
    stop(s);
    OK(klaw_process_wait(p, KLAW_NOWAIT, &st));
    SAME(st.signal, SIGKILL);
    klaw_process_unref(p);
    no_children();
}

RUNS(a_cancelled_run_leaves_no_process, 2) {
    klaw_process_opts o = {.argv = SH("exec sleep 67")};
    klaw_child_spec c[3] = {process("a", &o), process("b", &o), process("c", &o)};
    c[2].shutdown = KLAW_SHUTDOWN_KILL;
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, c, 3);
    klaw_scope_cancel(scope, "test");
    SAME(klaw_scope_close(scope), KLAW_CANCELLED);
    OK(ended(s));
    no_children();
}

RUNS(dynamic_processes_have_argvs_of_their_own, 2) {
    klaw_process_opts o = {.argv = SH("exit 1")};
    klaw_child_spec def = process("job", &o);
    klaw_supervisor *s =
        opened((klaw_supervisor_opts){.policy = {.strategy = KLAW_DYNAMIC}}, &def, 1);
    char text[64];
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "exec sleep 6%d", i);
        OK(klaw_supervisor_start_dynamic(s, NULL, (void *)(uintptr_t)SH(text), KLAW_FOREVER, NULL));
    }
    klaw_supervisor_counts n;
    OK(klaw_supervisor_count(s, &n));
    SAME(n.active, 5);
    stop(s);
    no_children();
}

/* --- actors --- */
static _Atomic int starts, stops, handled, dropped;
static _Atomic bool stuck;

static klaw_err actor_start(klaw_self *self, void *state, void *arg) {
    (void)self;
    (void)state;
    atomic_fetch_add(&starts, 1);
    return arg ? *(klaw_err *)arg : KLAW_OK;
}
static klaw_err actor_handle(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t *sum = state, v = *(uint64_t *)message;
    (void)self;
    atomic_fetch_add(&handled, 1);
    if (v == 13)
        return KLAW_CORRUPT;
    if (v == 99)
        while (atomic_load(&stuck))
            if (klaw_yield() != KLAW_OK)
                continue;
    *sum += v;
    if (reply)
        *(uint64_t *)reply = *sum;
    return KLAW_OK;
}
static void actor_stop(klaw_self *self, void *state, klaw_err why) {
    (void)self;
    (void)state;
    (void)why;
    atomic_fetch_add(&stops, 1);
}
static void count_drop(void *arg) {
    (void)arg;
    atomic_fetch_add(&dropped, 1);
}
static const klaw_behavior adder = {.name = "adder",
                                    .message = &klaw_u64,
                                    .reply = &klaw_u64,
                                    .state_size = sizeof(uint64_t),
                                    .start = actor_start,
                                    .handle = actor_handle,
                                    .stop = actor_stop};
static klaw_child_spec actor(const char *name) {
    atomic_store(&starts, 0);
    atomic_store(&stops, 0);
    atomic_store(&handled, 0);
    atomic_store(&dropped, 0);
    return (klaw_child_spec){
        .name = name, .kind = KLAW_CHILD_ACTOR, .behavior = &adder, .drop = count_drop};
}
static klaw_actor *actor_of(klaw_supervisor *s, const char *name) {
    klaw_actor *a = NULL;
    OK(klaw_supervisor_child_actor(s, name, &a));
    return a;
}
static uint64_t add(klaw_actor *a, uint64_t v) {
    uint64_t sum;
    OK(klaw_actor_ask(a, &v, &sum, klaw_after(SOON_NS)));
    return sum;
}

RUNS(an_actor_keeps_its_identity_and_its_mail_over_restarts, 2) {
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = opened((klaw_supervisor_opts){.policy = {.no_backoff = true}}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    uint64_t sum;
    SAME(add(a, 1), 1);
    SAME(add(a, 2), 3);
    SAME(klaw_actor_ask(a, &(uint64_t){13}, &sum, klaw_after(SOON_NS)), KLAW_CORRUPT);
    SAME(add(a, 5), 5); /* a new state, the same mailbox */
    klaw_child_info info;
    do
        info = first(s);
    while (info.state != KLAW_CHILD_RUNNING || info.restarts == 0);
    SAME(info.id, klaw_actor_id(a));
    SAME(info.restarts, 1);
    SAME(info.last_error, KLAW_CORRUPT);
    SAME(starts, 2);
    SAME(stops, 2 - 1);
    stop(s);
    SAME(stops, 2);
    CHECK(!klaw_actor_alive(a));
    SAME(klaw_actor_send(a, &(uint64_t){1}, KLAW_NOWAIT), KLAW_STOPPED);
    SAME(dropped, 1);
    klaw_actor_unref(a);
}

RUNS(a_stop_lets_an_actor_handle_what_it_has_got, 2) {
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    for (int i = 0; i < 100; i++)
        OK(klaw_actor_send(a, &(uint64_t){1}, klaw_after(SOON_NS)));
    stop(s);
    klaw_actor_unref(a);
    SAME(handled, 100);
}

RUNS(an_actor_that_cannot_start_fails_the_open, 2) {
    klaw_err why = KLAW_TYPE;
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = NULL;
    c.arg = &why;
    SAME(klaw_supervisor_open(NULL, &c, 1, &s, NULL), KLAW_TYPE);
    SAME(starts, 1);
    SAME(dropped, 0);
    c.behavior = NULL;
    SAME(klaw_supervisor_open(NULL, &c, 1, &s, NULL), KLAW_INVALID);
}

RUNS(who_joins_an_actor_is_told_when_its_supervisor_gives_up, 2) {
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = opened(
        (klaw_supervisor_opts){.policy = {.no_backoff = true, .max_restarts = KLAW_NONE}}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    klaw_err why;
    OK(klaw_actor_send(a, &(uint64_t){13}, KLAW_NOWAIT));
    OK(klaw_actor_join(a, klaw_after(SOON_NS), &why));
    SAME(why, KLAW_CORRUPT);
    klaw_actor_unref(a);
    SAME(ended(s), KLAW_LIMIT);
    SAME(klaw_scope_close(scope), KLAW_LIMIT);
}

RUNS(a_stopped_actor_keeps_its_mail, 2) {
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    OK(klaw_supervisor_stop_child(s, "adder", KLAW_FOREVER));
    SAME(klaw_supervisor_child_actor(s, "adder", &(klaw_actor *){NULL}), KLAW_STOPPED);
    OK(klaw_actor_send(a, &(uint64_t){4}, KLAW_NOWAIT));
    OK(klaw_supervisor_restart_child(s, "adder", KLAW_FOREVER));
    SAME(add(a, 3), 7);
    klaw_actor_unref(a);
    stop(s);
}

RUNS(an_actor_that_does_not_stop_is_abandoned, 2) {
    klaw_child_spec c = actor("adder");
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    c.shutdown = KLAW_MS(5);
    klaw_supervisor *s = opened((klaw_supervisor_opts){.policy = {.no_backoff = true}}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    atomic_store(&stuck, true);
    OK(klaw_actor_send(a, &(uint64_t){99}, KLAW_NOWAIT));
    UNTIL(handled == 1);
    OK(klaw_supervisor_stop_child(s, "adder", KLAW_FOREVER));
    CHECK(first(s).abandoned);
    OK(klaw_supervisor_restart_child(s, "adder", KLAW_FOREVER));
    SAME(add(a, 3), 3); /* another incarnation serves meanwhile */
    stop(s);
    OK(klaw_scope_close(scope));
    SAME(dropped, 0);
    atomic_store(&stuck, false);
    UNTIL(dropped == 1);
    SAME(starts, 2);
    klaw_actor_unref(a);
}

RUNS(who_kills_a_supervised_actor_gets_it_back, 2) {
    klaw_child_spec c = actor("adder");
    klaw_supervisor *s = opened((klaw_supervisor_opts){.policy = {.no_backoff = true}}, &c, 1);
    klaw_actor *a = actor_of(s, "adder");
    klaw_actor_kill(a);
    UNTIL(starts == 2);
    SAME(add(a, 3), 3);
    klaw_actor_unref(a);
    stop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_exit_code_is_a_failure_and_is_told),
        TEST(a_signal_is_a_failure_and_the_process_comes_back),
        TEST(a_normal_end_is_none),
        TEST(a_program_that_is_not_there_fails_the_open),
        TEST(a_stop_ends_the_whole_group),
        TEST(who_ignores_sigterm_is_killed_when_the_shutdown_time_is_over),
        TEST(a_cancelled_run_leaves_no_process),
        TEST(dynamic_processes_have_argvs_of_their_own),
        TEST(an_actor_keeps_its_identity_and_its_mail_over_restarts),
        TEST(a_stop_lets_an_actor_handle_what_it_has_got),
        TEST(an_actor_that_cannot_start_fails_the_open),
        TEST(who_joins_an_actor_is_told_when_its_supervisor_gives_up),
        TEST(a_stopped_actor_keeps_its_mail),
        TEST(an_actor_that_does_not_stop_is_abandoned),
        TEST(who_kills_a_supervised_actor_gets_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
