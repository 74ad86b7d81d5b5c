/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor.c - supervisors of fibers: order, restarts, intensity, requests, stopping,
 * cancellation, abandonment, nesting. Actors and processes as children: test_supervisor_kinds.c.
 *
 * Tried with these bugs: children in the opener's scope; a withdrawn start that is kept; args
 * dropped at a failed open; a restart's failure told to nobody; an abandoned run that is told as an end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "klaw/klaw.h"
#include "support/supervisors.h"

/* --- a log of what happened, in order --- */
static char events[4096];
static _Atomic uint32_t events_at;

static void event(const char *what, const char *who) {
    char text[64];
    int n = snprintf(text, sizeof text, "%s%s ", what, who);
    uint32_t at = atomic_fetch_add(&events_at, (uint32_t)n);
    CHECK(at + (uint32_t)n < sizeof events);
    memcpy(events + at, text, (size_t)n);
}
static void happened(const char *want) {
    events[atomic_load(&events_at)] = '\0';
    if (strcmp(events, want) != 0)
        check_failed(__FILE__, __LINE__, want, events);
    atomic_store(&events_at, 0);
    memset(events, 0, sizeof events);
}

/* --- a child that does what its worker says --- */
typedef struct worker {
    const char *name;
    _Atomic int starts, dropped;
    klaw_err init_error;   /* of init */
    int init_errors_after; /* only from this start on */
    _Atomic int fail;      /* so many runs end with SYSTEM */
    klaw_err ends;         /* what the others end with at once, if ends_at_once */
    bool ends_at_once, stubborn, quiet;
    _Atomic bool release; /* lets a stubborn one go */
} worker;

static klaw_err work_init(void *arg) {
    worker *w = arg;
    int n = atomic_fetch_add(&w->starts, 1);
    if (!w->quiet)
        event("+", w->name);
    return n >= w->init_errors_after ? w->init_error : KLAW_OK;
}
static klaw_err work(void *arg) {
    worker *w = arg;
    klaw_err e = KLAW_OK;
    if (atomic_load(&w->fail) > 0) {
        atomic_fetch_sub(&w->fail, 1);
        return KLAW_SYSTEM;
    }
    if (w->ends_at_once)
        return w->ends;
    e = klaw_sleep(KLAW_FOREVER);
    while (w->stubborn && !atomic_load(&w->release))
        if (klaw_yield() != KLAW_OK)
            continue;
    if (!w->quiet)
        event("-", w->name);
    return e;
}
static void work_drop(void *arg) {
    worker *w = arg;
    atomic_fetch_add(&w->dropped, 1);
}
static klaw_child_spec spec(worker *w) {
    return (klaw_child_spec){
        .name = w->name, .run = work, .init = work_init, .arg = w, .drop = work_drop};
}

#define NOW \
    { .no_backoff = true }

RUNS(children_start_left_to_right_and_stop_right_to_left, 2) {
    worker a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
    klaw_child_spec specs[] = {spec(&a), spec(&b), spec(&c)};
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, specs, 3);
    happened("+a +b +c ");
    klaw_supervisor_counts n;
    OK(klaw_supervisor_count(s, &n));
    SAME(n.specs, 3);
    SAME(n.active, 3);
    SAME(a.dropped, 0);
    stop(s);
    happened("-c -b -a ");
    SAME(a.dropped + b.dropped + c.dropped, 3);
}

RUNS(a_failed_first_start_stops_what_has_started, 2) {
    worker a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c", .init_error = KLAW_CORRUPT},
           d = {.name = "d"};
    klaw_child_spec specs[] = {spec(&a), spec(&b), spec(&c), spec(&d)};
    klaw_supervisor *s = NULL;
    klaw_error_info info;
    SAME(klaw_supervisor_open(NULL, specs, 4, &s, &info), KLAW_CORRUPT);
    CHECK(!s);
    happened("+a +b +c -b -a ");
    CHECK(strstr(info.message, "'c'") != NULL);
    SAME(a.dropped + b.dropped + c.dropped + d.dropped, 0); /* they are still ours */
}

RUNS(definitions_that_make_no_sense_are_refused, 2) {
    worker a = {.name = "a"};
    klaw_child_spec specs[] = {spec(&a), spec(&a)};
    klaw_supervisor *s = NULL;
    char long_name[80];
    memset(long_name, 'x', 79);
    long_name[79] = '\0';
    SAME(klaw_supervisor_open(NULL, specs, 2, &s, NULL), KLAW_EXISTS);
    specs[1].name = NULL;
    SAME(klaw_supervisor_open(NULL, specs, 2, &s, NULL), KLAW_INVALID);
    specs[1].name = long_name;
    SAME(klaw_supervisor_open(NULL, specs, 2, &s, NULL), KLAW_LIMIT);
    specs[1].name = "b";
    specs[1].run = NULL;
    SAME(klaw_supervisor_open(NULL, specs, 2, &s, NULL), KLAW_INVALID);
    specs[1] = spec(&a);
    specs[1].name = "b";
    specs[1].significant = true;
    SAME(klaw_supervisor_open(NULL, specs, 2, &s, NULL), KLAW_INVALID);
    SAME(klaw_supervisor_open(&(klaw_supervisor_opts){.policy = {.strategy = KLAW_DYNAMIC}}, specs,
                              2, &s, NULL),
         KLAW_INVALID);
    CHECK(!s);
    happened("");
    SAME(a.dropped, 0);
}

RUNS(policies_say_who_is_restarted, 2) {
    worker w[6];
    klaw_child_spec specs[6];
    static const char *const names[] = {"nf", "nn", "ff", "fn", "af", "an"};
    for (int i = 0; i < 6; i++) { /* each: one that fails, one that ends */
        w[i] = (worker){.name = names[i], .quiet = true};
        if (i % 2 == 0)
            w[i].fail = 1;
        specs[i] = spec(&w[i]);
        specs[i].restart = i < 2   ? KLAW_RESTART_NEVER
                           : i < 4 ? KLAW_RESTART_ON_FAILURE
                                   : KLAW_RESTART_ALWAYS;
    }
    w[1].ends_at_once = w[3].ends_at_once = true;
    klaw_supervisor *s = opened(
        (klaw_supervisor_opts){.policy = {.no_backoff = true, .max_restarts = 10}}, specs, 6);
    UNTIL(w[2].starts == 2 && w[4].starts == 2);
    klaw_supervisor_counts n;
    do
        OK(klaw_supervisor_count(s, &n));
    while (n.specs != 4 || n.active != 3);
    SAME(w[0].starts, 1);
    SAME(w[1].starts, 1);
    SAME(w[3].starts, 1);
    SAME(w[0].dropped + w[1].dropped, 2); /* forgotten */
    SAME(n.restarts, 2);
    klaw_child_info info[4];
    size_t count;
    OK(klaw_supervisor_which(s, info, 4, &count));
    SAME(count, 4);
    CHECK(strcmp(info[0].name, "ff") == 0 && strcmp(info[1].name, "fn") == 0);
    SAME(info[0].state, KLAW_CHILD_RUNNING);
    SAME(info[0].restarts, 1);
    SAME(info[0].last_error, KLAW_SYSTEM);
    CHECK(info[0].id > 0);
    SAME(info[1].state, KLAW_CHILD_STOPPED);
    SAME(info[1].id, 0);
    stop(s);
}

static _Atomic int failures, restarts, gave_up;
static klaw_child_event last;
static void on_failure(const klaw_child_event *e, void *user) {
    SAME((intptr_t)user, 42);
    SAME(e->attempt, (uint32_t)atomic_fetch_add(&failures, 1) + 1);
    SAME(e->error, KLAW_SYSTEM);
    /* What waits for the supervisor is refused in its hook, what looks is not. */
    klaw_supervisor_counts n;
    OK(klaw_supervisor_count(e->supervisor, &n));
    SAME(klaw_supervisor_stop(e->supervisor, KLAW_FOREVER), KLAW_INVALID);
    SAME(klaw_supervisor_stop_child(e->supervisor, e->child, KLAW_FOREVER), KLAW_INVALID);
}
static void on_restart(const klaw_child_event *e, void *user) {
    (void)user;
    (void)e;
    atomic_fetch_add(&restarts, 1);
}
static void on_max(const klaw_child_event *e, void *user) {
    (void)user;
    last = *e;
    atomic_fetch_add(&gave_up, 1);
}

RUNS(one_failure_more_than_the_intensity_escalates, 2) {
    for (int limit = 1; limit < 6; limit++) {
        failures = restarts = gave_up = 0;
        worker a = {.name = "a", .quiet = true},
               b = {.name = "b", .quiet = true, .fail = limit + 1};
        klaw_child_spec specs[] = {spec(&a), spec(&b)};
        klaw_scope *scope = SCOPE(.name = "of the supervisor");
        klaw_supervisor *s =
            opened((klaw_supervisor_opts){.policy = {.no_backoff = true, .max_restarts = limit},
                                          .on_failure = on_failure,
                                          .on_restart = on_restart,
                                          .on_max_restarts = on_max,
                                          .user = (void *)(intptr_t)42},
                   specs, 2);
        SAME(ended(s), KLAW_LIMIT);
        SAME(klaw_scope_close(scope), KLAW_LIMIT); /* a failure of its scope, too */
        SAME(failures, limit + 1);
        SAME(restarts, limit);
        SAME(gave_up, 1);
        SAME(last.error, KLAW_SYSTEM);
        SAME(b.starts, limit + 1);
        /* as many are borne for ever */
        b = (worker){.name = "b", .quiet = true, .fail = limit};
        s = opened((klaw_supervisor_opts){.policy = {.no_backoff = true, .max_restarts = limit}},
                   specs, 2);
        UNTIL(b.starts == limit + 1);
        SAME(klaw_supervisor_join(s, KLAW_NOWAIT, NULL), KLAW_EMPTY);
        stop(s);
    }
}

RUNS(a_group_is_restarted_as_its_strategy_says, 2) {
    for (int rest = 0; rest < 2; rest++) {
        worker a = {.name = "a"}, b = {.name = "b", .fail = 0}, c = {.name = "c"};
        klaw_child_spec specs[] = {spec(&a), spec(&b), spec(&c)};
        klaw_supervisor *s =
            opened((klaw_supervisor_opts){.policy = {.strategy = rest ? KLAW_REST_FOR_ONE
                                                                      : KLAW_ONE_FOR_ALL,
                                                     .no_backoff = true}},
                   specs, 3);
        happened("+a +b +c ");
        worker bad = {.name = "bad", .quiet = true, .fail = 1}, d = {.name = "d"};
        klaw_child_spec more[] = {spec(&bad), spec(&d)};
        OK(klaw_supervisor_start_child(s, &more[0], KLAW_FOREVER, NULL));
        UNTIL(bad.starts == 2);
        OK(klaw_supervisor_start_child(s, &more[1], KLAW_FOREVER, NULL));
        happened(rest ? "+d " : "-c -b -a +a +b +c +d ");
        stop(s);
        happened("-d -c -b -a ");
    }
}

RUNS(children_come_and_go_by_request, 2) {
    worker a = {.name = "a"}, b = {.name = "b"}, bad = {.name = "bad", .init_error = KLAW_TYPE};
    klaw_child_spec sa = spec(&a), sb = spec(&b), sbad = spec(&bad);
    klaw_supervisor *s = opened((klaw_supervisor_opts){.policy = NOW}, &sa, 1);
    klaw_error_info info;
    OK(klaw_supervisor_start_child(s, &sb, KLAW_FOREVER, &info));
    SAME(klaw_supervisor_start_child(s, &sb, KLAW_FOREVER, &info), KLAW_EXISTS);
    SAME(klaw_supervisor_start_child(s, &sbad, KLAW_FOREVER, &info), KLAW_TYPE);
    CHECK(strstr(info.message, "'bad'") != NULL);
    SAME(bad.dropped, 0);
    SAME(klaw_supervisor_start_dynamic(s, NULL, &b, KLAW_FOREVER, NULL), KLAW_INVALID);
    SAME(klaw_supervisor_restart_child(s, "b", KLAW_FOREVER), KLAW_EXISTS);
    SAME(klaw_supervisor_delete_child(s, "b", KLAW_FOREVER), KLAW_EXISTS);
    SAME(klaw_supervisor_stop_child(s, "nobody", KLAW_FOREVER), KLAW_NOT_FOUND);
    OK(klaw_supervisor_stop_child(s, "b", KLAW_FOREVER));
    OK(klaw_supervisor_stop_child(s, "b", KLAW_FOREVER));
    happened("+a +b +bad -b ");
    OK(klaw_supervisor_restart_child(s, "b", KLAW_FOREVER));
    OK(klaw_supervisor_stop_child(s, "b", KLAW_FOREVER));
    b.init_error = KLAW_TYPE;
    SAME(klaw_supervisor_restart_child(s, "b", KLAW_FOREVER), KLAW_TYPE);
    SAME(b.dropped, 0);
    OK(klaw_supervisor_delete_child(s, "b", KLAW_FOREVER));
    SAME(klaw_supervisor_delete_child(s, "b", KLAW_FOREVER), KLAW_NOT_FOUND);
    UNTIL(b.dropped == 1);
    klaw_supervisor_ref(s);
    stop(s);
    SAME(klaw_supervisor_start_child(s, &sb, KLAW_FOREVER, NULL), KLAW_STOPPED);
    SAME(klaw_supervisor_stop_child(s, "a", KLAW_FOREVER), KLAW_STOPPED);
    OK(klaw_supervisor_stop(s, KLAW_NOWAIT));
    klaw_supervisor_unref(s);
    happened("+b -b +b -a ");
}

RUNS(dynamic_children_share_a_definition, 2) {
    worker w[20];
    klaw_child_spec def = {.name = "w", .run = work, .init = work_init, .drop = work_drop};
    klaw_supervisor *s = opened(
        (klaw_supervisor_opts){.policy = {.strategy = KLAW_DYNAMIC, .no_backoff = true}}, &def, 1);
    klaw_supervisor_counts n;
    for (int i = 0; i < 20; i++) {
        w[i] = (worker){.name = "w", .quiet = true};
        OK(klaw_supervisor_start_dynamic(s, i == 5 ? "five" : NULL, &w[i], KLAW_FOREVER, NULL));
    }
    SAME(klaw_supervisor_start_child(s, &def, KLAW_FOREVER, NULL), KLAW_INVALID);
    SAME(klaw_supervisor_start_dynamic(s, "five", &w[0], KLAW_FOREVER, NULL), KLAW_EXISTS);
    OK(klaw_supervisor_count(s, &n));
    SAME(n.active, 20);
    OK(klaw_supervisor_stop_child(s, "five", KLAW_FOREVER));
    SAME(klaw_supervisor_restart_child(s, "five", KLAW_FOREVER), KLAW_NOT_FOUND);
    UNTIL(w[5].dropped == 1);
    OK(klaw_supervisor_stop_child(s, "w-1", KLAW_FOREVER));
    UNTIL(w[0].dropped == 1);
    OK(klaw_supervisor_count(s, &n));
    SAME(n.specs, 18);
    stop(s);
    for (int i = 0; i < 20; i++)
        SAME(w[i].dropped, 1);
}

RUNS(a_cancelled_scope_stops_the_children_in_order, 2) {
    worker a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
    klaw_child_spec specs[] = {spec(&a), spec(&b), spec(&c)};
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, specs, 3);
    klaw_scope_cancel(scope, "test");
    SAME(klaw_scope_close(scope), KLAW_CANCELLED);
    happened("+a +b +c -c -b -a ");
    OK(ended(s));
}

static klaw_err opens_and_is_cancelled(void *arg) {
    klaw_supervisor *s = NULL;
    klaw_child_spec *specs = arg;
    klaw_err e = klaw_supervisor_open(NULL, specs, 2, &s, NULL);
    CHECK(!s);
    return e;
}

static klaw_err init_waits(void *arg) {
    worker *w = arg;
    atomic_fetch_add(&w->starts, 1);
    return klaw_sleep(KLAW_FOREVER);
}

RUNS(an_open_that_is_cancelled_leaves_nothing, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .quiet = true};
    klaw_child_spec specs[] = {spec(&a), spec(&b)};
    specs[1].init = init_waits;
    klaw_fiber *f = fiber(opens_and_is_cancelled, specs);
    UNTIL(b.starts == 1);
    klaw_fiber_cancel(f);
    SAME(result_of(f), KLAW_CANCELLED);
    happened("+a -a ");
    SAME(a.dropped + b.dropped, 0);
}

RUNS(a_start_that_is_given_up_leaves_nothing, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .quiet = true};
    klaw_child_spec sa = spec(&a), sb = spec(&b);
    sb.init = init_waits;
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &sa, 1);
    for (int i = 0; i < 20; i++) {
        SAME(klaw_supervisor_start_child(s, &sb, i % 2 ? KLAW_NOWAIT : KLAW_WITHIN(KLAW_US(300)),
                                         NULL),
             KLAW_TIMEOUT);
        klaw_supervisor_counts n;
        OK(klaw_supervisor_count(s, &n));
        SAME(n.specs, 1);
    }
    SAME(b.dropped, 0);
    stop(s);
    happened("+a -a ");
}

RUNS(a_child_that_does_not_stop_is_abandoned_and_the_others_stop, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .stubborn = true}, c = {.name = "c"};
    klaw_child_spec specs[] = {spec(&a), spec(&b), spec(&c)};
    specs[1].shutdown = KLAW_MS(5);
    klaw_scope *scope = SCOPE(.name = "of the supervisor");
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, specs, 3);
    OK(klaw_supervisor_stop(s, klaw_after(SOON_NS)));
    happened("+a +b +c -c -a ");
    OK(klaw_scope_close(scope)); /* it does not hang */
    SAME(a.dropped, 1);
    SAME(b.dropped, 0); /* it still works with it */
    b.release = true;
    UNTIL(b.dropped == 1);
    happened("-b ");
    OK(ended(s));
}

RUNS(a_stopped_child_that_was_abandoned_is_named, 2) {
    worker a = {.name = "a", .stubborn = true};
    klaw_child_spec sa = spec(&a);
    klaw_child_info info;
    klaw_supervisor_counts n;
    size_t count;
    sa.shutdown = KLAW_MS(1);
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &sa, 1);
    OK(klaw_supervisor_stop_child(s, "a", KLAW_FOREVER));
    OK(klaw_supervisor_which(s, &info, 1, &count));
    SAME(info.state, KLAW_CHILD_STOPPED);
    CHECK(info.abandoned);
    OK(klaw_supervisor_restart_child(s, "a", KLAW_FOREVER)); /* a second one beside it */
    OK(klaw_supervisor_count(s, &n));
    SAME(n.abandoned, 1);
    a.release = true;
    do
        OK(klaw_supervisor_count(s, &n));
    while (n.abandoned);
    happened("+a +a -a ");
    stop(s);
    happened("-a ");
}

RUNS(a_brutal_kill_does_not_ask_first, 2) {
    worker a = {.name = "a"};
    klaw_child_spec sa = spec(&a);
    sa.shutdown = KLAW_SHUTDOWN_KILL;
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &sa, 1);
    stop(s);
    happened("+a -a ");
}

RUNS(a_stop_ends_a_restart_loop, 2) {
    for (int i = 0; i < 50; i++) {
        worker a = {.name = "a", .quiet = true}, b = {.name = "b", .quiet = true, .fail = 1 << 30};
        klaw_child_spec specs[] = {spec(&a), spec(&b)};
        klaw_supervisor *s =
            opened((klaw_supervisor_opts){.policy = {.no_backoff = i % 2 == 0,
                                                     .backoff = {.base = KLAW_S(100)},
                                                     .strategy = i % 3 == 0 ? KLAW_ONE_FOR_ALL
                                                                            : KLAW_ONE_FOR_ONE,
                                                     .max_restarts = KLAW_RESTARTS_UNLIMITED}},
                   specs, 2);
        if (i % 2 == 0)
            UNTIL(b.starts > i);
        stop(s);
    }
}

RUNS(significant_children_end_their_supervisor, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .quiet = true, .ends_at_once = true};
    klaw_child_spec specs[] = {spec(&a), spec(&b)};
    specs[1].significant = true;
    klaw_supervisor *s =
        opened((klaw_supervisor_opts){.policy = {.auto_shutdown = KLAW_SHUTDOWN_ANY_SIGNIFICANT}},
               specs, 2);
    OK(ended(s));
    happened("+a -a ");
}

static klaw_child_spec tree(const char *name, const klaw_supervisor_opts *o,
                            const klaw_child_spec *c, size_t n) {
    return (klaw_child_spec){.name = name,
                             .kind = KLAW_CHILD_SUPERVISOR,
                             .supervisor = o,
                             .children = c,
                             .n_children = n};
}

RUNS(supervisors_nest, 2) {
    worker a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"}, d = {.name = "d"};
    klaw_child_spec inner[] = {spec(&b), spec(&c)}, outer[] = {spec(&a), {0}, spec(&d)};
    outer[1] = tree("in", NULL, inner, 2);
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, outer, 3), *in;
    happened("+a +b +c +d ");
    OK(klaw_supervisor_child_supervisor(s, "in", &in));
    SAME(klaw_supervisor_child_supervisor(s, "a", &in), KLAW_TYPE);
    SAME(klaw_supervisor_child_supervisor(s, "x", &in), KLAW_NOT_FOUND);
    CHECK(strcmp(klaw_supervisor_name(in), "in") == 0);
    OK(klaw_supervisor_stop_child(in, "b", KLAW_FOREVER));
    happened("-b ");
    stop(s);
    happened("-d -c -a ");
    OK(ended(in));
    SAME(a.dropped + b.dropped + c.dropped + d.dropped, 4);
}

RUNS(a_nested_supervisor_that_gives_up_is_a_failed_child, 2) {
    worker a = {.name = "a", .quiet = true, .fail = 4}, b = {.name = "b", .quiet = true};
    klaw_child_spec inner[] = {spec(&b), spec(&a)};
    klaw_supervisor_opts io = {.policy = {.no_backoff = true, .max_restarts = 1}};
    klaw_child_spec outer = tree("in", &io, inner, 2);
    klaw_supervisor *s = opened((klaw_supervisor_opts){.policy = NOW}, &outer, 1);
    UNTIL(a.starts == 5); /* twice two failures, and a good one */
    klaw_child_info info;
    size_t n;
    do
        OK(klaw_supervisor_which(s, &info, 1, &n));
    while (info.state != KLAW_CHILD_RUNNING || info.restarts < 2);
    SAME(info.restarts, 2);
    SAME(info.last_error, KLAW_LIMIT);
    SAME(b.starts, 3);
    SAME(b.dropped, 0);
    stop(s);
    SAME(b.dropped, 1);
    SAME(a.dropped, 1);
}

RUNS(a_nested_supervisor_that_cannot_start_fails_the_open, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .init_error = KLAW_CORRUPT};
    klaw_child_spec inner[] = {spec(&a), spec(&b)}, outer = tree("in", NULL, inner, 2);
    klaw_supervisor *s = NULL;
    klaw_error_info info;
    SAME(klaw_supervisor_open(NULL, &outer, 1, &s, &info), KLAW_CORRUPT);
    happened("+a +b -a ");
    CHECK(strstr(info.message, "'in'") != NULL && strstr(info.message, "b") != NULL);
    SAME(a.dropped + b.dropped, 0);
}

RUNS(a_nested_supervisor_is_forced_as_a_whole, 2) {
    worker a = {.name = "a"}, b = {.name = "b", .stubborn = true, .quiet = true},
           c = {.name = "c", .stubborn = true, .quiet = true};
    klaw_child_spec inner[] = {spec(&b), spec(&c)}, outer[] = {spec(&a), {0}};
    inner[0].shutdown = inner[1].shutdown = KLAW_SHUTDOWN_FOREVER;
    outer[1] = tree("in", NULL, inner, 2);
    outer[1].shutdown = KLAW_MS(5);
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, outer, 2);
    stop(s);
    happened("+a -a ");
    b.release = c.release = true;
    UNTIL(b.dropped == 1 && c.dropped == 1);
}

static klaw_err child_with_fibers(void *arg) {
    OK(klaw_go(work, arg));
    return KLAW_OK;
}

RUNS(a_child_has_ended_when_its_fibers_have, 2) {
    worker a = {.name = "a"};
    klaw_child_spec sa = {.name = "a", .run = child_with_fibers, .arg = &a};
    klaw_supervisor *s = opened((klaw_supervisor_opts){0}, &sa, 1);
    klaw_child_info info;
    size_t n;
    UNTIL(waiting("fiber", "sleep") == 1);
    OK(klaw_supervisor_which(s, &info, 1, &n));
    SAME(info.state, KLAW_CHILD_RUNNING);
    stop(s);
    happened("-a ");
}

static klaw_supervisor *for_threads;
static klaw_err from_a_thread(void *arg) {
    worker *w = arg;
    klaw_child_spec sw = spec(w);
    OK(klaw_supervisor_start_child(for_threads, &sw, KLAW_FOREVER, NULL));
    OK(klaw_supervisor_stop_child(for_threads, w->name, KLAW_FOREVER));
    OK(klaw_supervisor_restart_child(for_threads, w->name, KLAW_FOREVER));
    klaw_supervisor *s;
    klaw_child_spec own = sw;
    OK(klaw_supervisor_open(NULL, &own, 1, &s, NULL)); /* in the root scope */
    OK(klaw_supervisor_stop(s, KLAW_FOREVER));
    klaw_supervisor_unref(s);
    return KLAW_OK;
}

RUNS(threads_may_do_all_of_it, 2) {
    static const char *const names[] = {"a", "b", "c"};
    worker w[3];
    thread_job t[3];
    for_threads = opened((klaw_supervisor_opts){0}, NULL, 0);
    for (int i = 0; i < 3; i++) {
        w[i] = (worker){.name = names[i], .quiet = true};
        thread_start(&t[i], from_a_thread, &w[i]);
    }
    for (int i = 0; i < 3; i++)
        OK(thread_end(&t[i]));
    klaw_supervisor_counts n;
    OK(klaw_supervisor_count(for_threads, &n));
    SAME(n.active, 3);
    stop(for_threads);
}

PLAIN(without_a_runtime_there_is_none) {
    worker a = {.name = "a"};
    klaw_child_spec sa = spec(&a);
    klaw_supervisor *s = NULL;
    SAME(klaw_supervisor_open(NULL, &sa, 1, &s, NULL), KLAW_STOPPED);
    CHECK(!s);
}

static klaw_err asks_of_its_own(void *arg) {
    worker *w = arg;
    klaw_err e = klaw_sleep(KLAW_WITHIN(KLAW_MS(1)));
    while (!e && !for_threads)
        e = klaw_yield();
    event("?", w->name);
    e = klaw_supervisor_stop(for_threads, KLAW_FOREVER);
    event("!", w->name);
    return e;
}

RUNS(a_child_may_stop_its_supervisor, 2) {
    worker a = {.name = "a"};
    klaw_child_spec sa = {.name = "a", .run = asks_of_its_own, .arg = &a};
    for_threads = NULL;
    for_threads = opened((klaw_supervisor_opts){0}, &sa, 1);
    OK(ended(for_threads));
    happened("?a !a ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(children_start_left_to_right_and_stop_right_to_left),
        TEST(a_failed_first_start_stops_what_has_started),
        TEST(definitions_that_make_no_sense_are_refused),
        TEST(policies_say_who_is_restarted),
        TEST(one_failure_more_than_the_intensity_escalates),
        TEST(a_group_is_restarted_as_its_strategy_says),
        TEST(children_come_and_go_by_request),
        TEST(dynamic_children_share_a_definition),
        TEST(a_cancelled_scope_stops_the_children_in_order),
        TEST(an_open_that_is_cancelled_leaves_nothing),
        TEST(a_start_that_is_given_up_leaves_nothing),
        TEST(a_child_that_does_not_stop_is_abandoned_and_the_others_stop),
        TEST(a_stopped_child_that_was_abandoned_is_named),
        TEST(a_brutal_kill_does_not_ask_first),
        TEST(a_stop_ends_a_restart_loop),
        TEST(significant_children_end_their_supervisor),
        TEST(supervisors_nest),
        TEST(a_nested_supervisor_that_gives_up_is_a_failed_child),
        TEST(a_nested_supervisor_that_cannot_start_fails_the_open),
        TEST(a_nested_supervisor_is_forced_as_a_whole),
        TEST(a_child_has_ended_when_its_fibers_have),
        TEST(threads_may_do_all_of_it),
        TEST(without_a_runtime_there_is_none),
        TEST(a_child_may_stop_its_supervisor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
