/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor_oom.c - supervisors and processes without memory: each call fails at its n-th
 * allocation, for every n until it passes. It says so, nothing is half done, nothing leaks, args stay
 * where they were, and the supervisor works afterwards. Stopping needs no memory at all.
 *
 * Tried with these bugs seeded: an open that drops the args of children it could not start, a request
 * that leaks its child. */
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>

#include "plat/os.h"
#include "support/runs.h"

static klaw_supervisor *sup;
static _Atomic int drops;

static void drop(void *arg) {
    (void)arg;
    atomic_fetch_add(&drops, 1);
}
static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)message;
    (void)reply;
    return KLAW_OK;
}
static const klaw_behavior behavior = {.name = "actor", .message = &klaw_u64, .handle = handle};

static klaw_child_spec fiber_spec(const char *name) {
    return (klaw_child_spec){.name = name, .run = parks, .init = returns_ok, .drop = drop};
}

/* Stops and joins with no memory to be had. */
static void ends(klaw_supervisor *s) {
    klaw_err why;
    klaw_alloc_fail_at(1, true);
    OK(klaw_supervisor_stop(s, KLAW_WITHIN(SOON_NS)));
    OK(klaw_supervisor_join(s, KLAW_NOWAIT, &why));
    klaw_supervisor_unref(s);
    klaw_alloc_fail_at(0, false);
    OK(why);
}

static klaw_err opens(void) {
    klaw_supervisor *s = NULL;
    klaw_child_spec
        in[] = {fiber_spec("b"), fiber_spec("c")},
        all[] = {fiber_spec("a"),
                 {.name = "in", .kind = KLAW_CHILD_SUPERVISOR, .children = in, .n_children = 2},
                 {.name = "actor", .kind = KLAW_CHILD_ACTOR, .behavior = &behavior, .drop = drop}};
    int before = drops;
    klaw_err e = klaw_supervisor_open(NULL, all, 3, &s, NULL);
    CHECK(e ? !s : s != NULL);
    if (!e) {
        klaw_alloc_fail_at(0, false);
        ends(s);
    }
    UNTIL(drops == before + (e ? 0 : 4));
    return e;
}

static klaw_err starts(void) {
    klaw_child_spec c = fiber_spec("b");
    klaw_supervisor_counts n;
    int before = drops;
    klaw_err e = klaw_supervisor_start_child(sup, &c, KLAW_FOREVER, NULL);
    OK(klaw_supervisor_count(sup, &n));
    SAME(n.specs, e ? 1 : 2);
    if (!e) {
        klaw_alloc_fail_at(0, false);
        OK(klaw_supervisor_stop_child(sup, "b", KLAW_FOREVER));
        OK(klaw_supervisor_delete_child(sup, "b", KLAW_FOREVER));
    }
    UNTIL(drops == before + (e ? 0 : 1));
    return e;
}

static klaw_err stops_and_restarts(void) {
    klaw_err e = klaw_supervisor_stop_child(sup, "a", KLAW_FOREVER);
    if (!e)
        e = klaw_supervisor_restart_child(sup, "a", KLAW_FOREVER);
    klaw_alloc_fail_at(0, false);
    klaw_err again = klaw_supervisor_restart_child(sup, "a", KLAW_FOREVER);
    CHECK(again == KLAW_EXISTS || again == KLAW_OK);
    return e;
}

/* A restart that finds no memory is tried again. */
static _Atomic int runs_of_it;
static klaw_err fails_once(void *arg) {
    (void)arg;
    return atomic_fetch_add(&runs_of_it, 1) == 0 ? KLAW_SYSTEM : klaw_sleep(KLAW_FOREVER);
}
static klaw_err restarts(void) {
    klaw_supervisor *s;
    klaw_child_spec c = {.name = "a", .run = fails_once};
    klaw_supervisor_opts o = {.policy = {.no_backoff = true}};
    atomic_store(&runs_of_it, 0);
    klaw_err e = klaw_supervisor_open(&o, &c, 1, &s, NULL);
    if (e)
        return e;
    UNTIL(runs_of_it == 2);
    klaw_alloc_fail_at(0, false);
    ends(s);
    return KLAW_OK;
}

static klaw_err spawns(void) {
    klaw_process *p = NULL;
    klaw_process_status st;
    klaw_process_opts o = {.argv = (const char *const[]){"/bin/sh", "-c", "exit 3", NULL},
                           .env = (const char *const[]){"A=b", NULL},
                           .in = {.kind = KLAW_STDIO_PIPE}};
    klaw_err e = klaw_process_spawn(&o, &p, NULL);
    if (e == KLAW_OK && (e = klaw_process_wait(p, KLAW_FOREVER, &st)) == KLAW_OK)
        SAME(st.code, 3);
    klaw_alloc_fail_at(0, false);
    klaw_process_unref(p);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && klawi_errno() == ECHILD);
    return e;
}

static klaw_err supervises_a_process(void) {
    klaw_supervisor *s = NULL;
    klaw_process_opts o = {.argv = (const char *const[]){"sleep", "60", NULL}, .cwd = "/"};
    klaw_child_spec c = {.name = "p", .kind = KLAW_CHILD_PROCESS, .process = &o};
    klaw_err e = klaw_supervisor_open(NULL, &c, 1, &s, NULL);
    klaw_alloc_fail_at(0, false);
    if (!e)
        ends(s);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && klawi_errno() == ECHILD);
    return e;
}

static void sup_works(void) {
    klaw_supervisor_counts n;
    OK(klaw_supervisor_count(sup, &n));
    SAME(n.specs, 1);
    SAME(n.active, 1);
}

/* Some points are passed by other fibers, or need not be met: the call may pass all the same. `other` is a
 * further answer a failure may give. */
static void until_it_passes(klaw_err (*call)(void), klaw_err other) {
    uint64_t failures = 0;
    for (uint64_t n = 1;; n++) {
        klaw_alloc_fail_at(n, false);
        klaw_err e = call();
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e) {
            CHECK(e == KLAW_NOMEM || e == other);
            failures++;
        }
        sup_works();
        CHECK(n < 1000);
        if (e == KLAW_OK && (!met || n > 200))
            break;
    }
    CHECK(failures > 0);
}

RUNS(every_call_survives_every_failed_allocation, 1) {
    klaw_child_spec a = fiber_spec("a");
    OK(klaw_supervisor_open(NULL, &a, 1, &sup, NULL));
    static const struct {
        const char *name;
        klaw_err (*call)(void);
        klaw_err other;
    } calls[] = {{"open", opens, KLAW_NOMEM},
                 {"start_child", starts, KLAW_NOMEM},
                 {"restart_child", stops_and_restarts, KLAW_NOMEM},
                 {"restarts", restarts, KLAW_NOMEM},
                 {"spawn", spawns, KLAW_LIMIT},
                 {"process child", supervises_a_process, KLAW_LIMIT}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        check_test = calls[i].name;
        until_it_passes(calls[i].call, calls[i].other);
    }
    ends(sup);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_call_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("supervisor_oom", tests, NULL, NULL);
}
