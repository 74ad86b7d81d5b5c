/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor.c - supervisors under every order: stops against restarts and ends, cancellation,
 * requests against deadlines and against the end, limits. There are no processes here. */
#include "interleave/harness.h"

#include <string.h>

#define KIDS 3

static struct {
    klaw_supervisor *s;
    klaw_scope *scope;
    klaw_actor *a;
    int runs, starts, drops, fail, passes, stubborn;
    char order[32];
    klaw_err e[4];
    bool opened, done;
} W;

static void fresh(void) {
    memset(&W, 0, sizeof W);
}

static void note(char c) {
    size_t n = strlen(W.order);
    KLAW_DET_CHECK(n + 1 < sizeof W.order);
    W.order[n] = c;
}

static void drop(void *arg) {
    (void)arg;
    W.drops++;
}

/* Runs until it is cancelled; the first W.fail runs fail. */
static klaw_err work(void *arg) {
    W.starts++;
    W.runs++;
    pass();
    klaw_err e = KLAW_SYSTEM;
    if (W.fail > 0)
        W.fail--;
    else
        e = klaw_sleep(KLAW_FOREVER);
    W.runs--;
    if (e != KLAW_SYSTEM)
        note(*(const char *)arg);
    return e;
}

static klaw_child_spec spec(const char *name) {
    return (klaw_child_spec){
        .name = name, .run = work, .arg = (void *)(uintptr_t)name, .drop = drop};
}

static void open_kids(klaw_strategy strategy, size_t n) {
    static const char *const names[KIDS] = {"a", "b", "c"};
    klaw_child_spec c[KIDS];
    klaw_supervisor_opts o = {.policy = {.strategy = strategy,
                                         .no_backoff = choose(2) == 0,
                                         .backoff = {.base = KLAW_US(20)},
                                         .max_restarts = 100}};
    for (size_t i = 0; i < n; i++)
        c[i] = spec(names[i]);
    CHECK_ERR(klaw_supervisor_open(&o, c, n, &W.s, NULL), KLAW_OK);
}

static void ended(klaw_err want) {
    klaw_err why;
    CHECK_ERR(klaw_supervisor_join(W.s, KLAW_FOREVER, &why), KLAW_OK);
    CHECK_ERR(why, want);
    klaw_supervisor_unref(W.s);
    KLAW_DET_CHECK(W.runs == 0);
}

/* --- stopping ---------------------------------------------------------------------------------- */

static klaw_err stop_restarts_main(void *arg) {
    (void)arg;
    W.fail = 1 + (int)choose(4);
    open_kids((klaw_strategy)choose(3), KIDS);
    for (uint32_t i = choose(6); i > 0; i--)
        pass();
    if (choose(2))
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    ended(KLAW_OK);
    KLAW_DET_CHECK(W.drops == KIDS);
    return KLAW_OK;
}

SCENARIO_COST(a_stop_against_restarts, 16) {
    fresh();
    run(stop_restarts_main);
}

static klaw_err order_main(void *arg) {
    (void)arg;
    open_kids(KLAW_ONE_FOR_ONE, KIDS);
    while (W.starts < KIDS)
        pass();
    CHECK_ERR(klaw_run_stop("test"), KLAW_OK);
    return KLAW_OK; /* the run waits for the supervisor */
}

SCENARIO_COST(a_run_that_stops_stops_children_in_order, 16) {
    fresh();
    CHECK_ERR(run_err(order_main), KLAW_CANCELLED);
    KLAW_DET_CHECK(strcmp(W.order, "cba") == 0);
    KLAW_DET_CHECK(W.drops == KIDS);
    klaw_supervisor_unref(W.s);
}

static klaw_err cancels(void *arg) {
    (void)arg;
    for (uint32_t i = choose(8); i > 0; i--)
        pass();
    klaw_scope_cancel(W.scope, "test");
    return KLAW_OK;
}

/* Whenever it comes, also while children start. */
static klaw_err cancelled_main(void *arg) {
    static const char *const names[KIDS] = {"a", "b", "c"};
    klaw_child_spec c[KIDS];
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f;
    (void)arg;
    W.fail = (int)choose(3);
    for (size_t i = 0; i < KIDS; i++)
        c[i] = spec(names[i]);
    CHECK_ERR(klaw_scope_open(NULL, &W.scope), KLAW_OK);
    klaw_scope_ref(W.scope);
    CHECK_ERR(klaw_spawn(root, cancels, NULL, NULL, &f), KLAW_OK);
    klaw_supervisor_opts o = {.policy = {.no_backoff = true, .max_restarts = 100}};
    klaw_err e = klaw_supervisor_open(&o, c, KIDS, &W.s, NULL);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    klaw_err closed = klaw_scope_close(W.scope);
    KLAW_DET_CHECK(closed == KLAW_CANCELLED);
    KLAW_DET_CHECK(W.runs == 0);
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    if (e == KLAW_OK)
        ended(KLAW_OK);
    KLAW_DET_CHECK(W.drops == (e ? 0 : KIDS));
    return KLAW_OK;
}

SCENARIO_COST(a_supervisor_is_cancelled, 16) {
    fresh();
    run(cancelled_main);
}

/* --- requests ---------------------------------------------------------------------------------- */

static klaw_err passes(void *arg) {
    (void)arg;
    W.runs++;
    for (int i = W.passes; i > 0; i--)
        pass();
    W.runs--;
    return KLAW_OK;
}

/* It ends by itself while it is being stopped. */
static klaw_err ending_main(void *arg) {
    (void)arg;
    W.passes = 1 + (int)choose(8);
    klaw_child_spec c = {.name = "a", .run = passes, .drop = drop};
    CHECK_ERR(klaw_supervisor_open(NULL, &c, 1, &W.s, NULL), KLAW_OK);
    for (uint32_t i = choose(6); i > 0; i--)
        pass();
    CHECK_ERR(klaw_supervisor_stop_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(W.runs == 0 && W.drops == 0);
    CHECK_ERR(klaw_supervisor_restart_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    ended(KLAW_OK);
    KLAW_DET_CHECK(W.drops == 1);
    return KLAW_OK;
}

SCENARIO_COST(a_child_ends_while_it_is_stopped, 16) {
    fresh();
    run(ending_main);
}

static klaw_err init_passes(void *arg) {
    (void)arg;
    for (uint32_t i = choose(4); i > 0; i--)
        pass();
    return klaw_sleep(soon());
}

static klaw_err deadline_main(void *arg) {
    (void)arg;
    open_kids(KLAW_ONE_FOR_ONE, 1);
    klaw_child_spec c = spec("b");
    klaw_supervisor_counts n;
    c.init = init_passes;
    for (int i = 0; i < 2; i++) {
        klaw_err e = klaw_supervisor_start_child(W.s, &c, choose(4) ? soon() : KLAW_NOWAIT, NULL);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
        CHECK_ERR(klaw_supervisor_count(W.s, &n), KLAW_OK);
        KLAW_DET_CHECK(n.specs == (e ? 1 : 2));
        KLAW_DET_CHECK(W.drops == i);
        if (e) {
            W.drops = i + 1; /* as if */
            continue;
        }
        CHECK_ERR(klaw_supervisor_stop_child(W.s, "b", KLAW_FOREVER), KLAW_OK);
        CHECK_ERR(klaw_supervisor_delete_child(W.s, "b", KLAW_FOREVER), KLAW_OK);
        while (W.drops == i)
            pass();
    }
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    ended(KLAW_OK);
    KLAW_DET_CHECK(W.drops == 3);
    return KLAW_OK;
}

SCENARIO_COST(a_start_against_its_deadline, 16) {
    fresh();
    run(deadline_main);
}

static klaw_err asks(void *arg) {
    klaw_child_spec c = spec("d");
    (void)arg;
    for (uint32_t i = choose(4); i > 0; i--)
        pass();
    W.e[0] = klaw_supervisor_start_child(W.s, &c, KLAW_FOREVER, NULL);
    KLAW_DET_CHECK(W.e[0] == KLAW_OK || W.e[0] == KLAW_STOPPED);
    klaw_err e = klaw_supervisor_stop_child(W.s, "a", KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
    e = klaw_supervisor_restart_child(W.s, "a", KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED || e == KLAW_EXISTS); /* its group's */
    return KLAW_OK;
}

static klaw_err requests_main(void *arg) {
    (void)arg;
    open_kids(choose(2) ? KLAW_ONE_FOR_ONE : KLAW_ONE_FOR_ALL, 2);
    W.fail = (int)choose(3);
    klaw_fiber *f = spawn(asks, NULL);
    for (uint32_t i = choose(8); i > 0; i--)
        pass();
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(W.runs == 0);
    CHECK_ERR(join(f), KLAW_OK);
    ended(KLAW_OK);
    KLAW_DET_CHECK(W.drops == (W.e[0] ? 2 : 3));
    return KLAW_OK;
}

SCENARIO_COST(requests_against_the_end, 16) {
    fresh();
    run(requests_main);
}

/* --- limits ------------------------------------------------------------------------------------ */

static klaw_err stubborn(void *arg) {
    (void)arg;
    W.runs++;
    for (int i = W.stubborn; i > 0; i--)
        pass();
    klaw_err e = klaw_sleep(KLAW_FOREVER);
    for (int i = W.stubborn; i > 0; i--)
        pass();
    if (choose(2))
        klawi_det_sleep(KLAW_US(30));
    W.runs--;
    return e;
}

/* Its end comes just when it is given up, or a little before or after. */
static klaw_err limit_main(void *arg) {
    (void)arg;
    W.stubborn = (int)choose(4);
    klaw_child_spec c = {.name = "a",
                         .run = stubborn,
                         .drop = drop,
                         .shutdown = choose(3) ? KLAW_US(1) + choose(40000) : KLAW_SHUTDOWN_KILL};
    klaw_supervisor_counts n;
    CHECK_ERR(klaw_supervisor_open(NULL, &c, 1, &W.s, NULL), KLAW_OK);
    CHECK_ERR(klaw_supervisor_stop_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_supervisor_restart_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_supervisor_stop_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    do {
        pass();
        CHECK_ERR(klaw_supervisor_count(W.s, &n), KLAW_OK);
        KLAW_DET_CHECK(n.abandoned <= 2);
    } while (n.abandoned);
    KLAW_DET_CHECK(W.runs == 0 && W.drops == 0);
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    klaw_supervisor_unref(W.s);
    while (W.drops ==
           0) /* one that had been given up drops it a moment after it has been counted out */
        pass();
    KLAW_DET_CHECK(W.drops == 1);
    return KLAW_OK;
}

SCENARIO_COST(an_end_against_its_limit, 2) {
    fresh();
    run(limit_main);
}

/* --- trees --------------------------------------------------------------------------------------- */

static klaw_err tree_main(void *arg) {
    klaw_supervisor_opts inner = {
        .policy = {.no_backoff = true, .max_restarts = (int)choose(2) - 1}};
    klaw_child_spec kids[2] = {spec("b"), spec("c")},
                    outer[2] = {spec("a"),
                                {.name = "in",
                                 .kind = KLAW_CHILD_SUPERVISOR,
                                 .supervisor = &inner,
                                 .children = kids,
                                 .n_children = 2,
                                 .shutdown = choose(2) ? KLAW_US(20) : 0}};
    klaw_supervisor_opts o = {.policy = {.no_backoff = true, .max_restarts = 100}};
    (void)arg;
    W.fail = (int)choose(4);
    CHECK_ERR(klaw_supervisor_open(&o, outer, 2, &W.s, NULL), KLAW_OK);
    for (uint32_t i = choose(10); i > 0; i--)
        pass();
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    klaw_supervisor_unref(W.s);
    while (W.runs || W.drops < 3) /* forced, it may be a moment late */
        pass();
    return KLAW_OK;
}

SCENARIO_COST(a_tree_is_stopped_while_it_gives_up, 16) {
    fresh();
    run(tree_main);
}

/* --- actors -------------------------------------------------------------------------------------- */

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t v = *(uint64_t *)message;
    (void)self;
    (void)state;
    if (v == 1)
        return KLAW_CORRUPT;
    if (v == 2)
        for (int i = W.stubborn; i > 0; i--)
            pass();
    if (reply)
        *(uint64_t *)reply = v + 1;
    return KLAW_OK;
}
static klaw_err actor_start(klaw_self *self, void *state, void *arg) {
    (void)self;
    (void)state;
    (void)arg;
    W.starts++;
    W.runs++;
    return KLAW_OK;
}
static void actor_stop(klaw_self *self, void *state, klaw_err why) {
    (void)self;
    (void)state;
    (void)why;
    W.runs--;
}
static const klaw_behavior behavior = {.name = "actor",
                                       .message = &klaw_u64,
                                       .reply = &klaw_u64,
                                       .start = actor_start,
                                       .handle = handle,
                                       .stop = actor_stop};

static klaw_err asker(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        uint64_t v = choose(3), r = 0;
        klaw_err e = klaw_actor_ask(W.a, &v, &r, KLAW_FOREVER);
        KLAW_DET_CHECK(e == (v == 1 ? KLAW_CORRUPT : KLAW_OK) || e == KLAW_STOPPED);
        KLAW_DET_CHECK(e || r == v + 1);
    }
    return KLAW_OK;
}

static klaw_err actor_main(void *arg) {
    klaw_child_spec c = {.name = "a",
                         .kind = KLAW_CHILD_ACTOR,
                         .behavior = &behavior,
                         .drop = drop,
                         .shutdown = choose(2)   ? KLAW_US(10)
                                     : choose(2) ? KLAW_SHUTDOWN_KILL
                                                 : 0};
    klaw_supervisor_opts o = {.policy = {.no_backoff = true, .max_restarts = 100}};
    (void)arg;
    W.stubborn = (int)choose(5);
    CHECK_ERR(klaw_supervisor_open(&o, &c, 1, &W.s, NULL), KLAW_OK);
    CHECK_ERR(klaw_supervisor_child_actor(W.s, "a", &W.a), KLAW_OK);
    klaw_fiber *f = spawn(asker, NULL);
    for (uint32_t i = choose(10); i > 0; i--)
        pass();
    if (choose(2)) {
        CHECK_ERR(klaw_supervisor_stop_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
        CHECK_ERR(klaw_supervisor_restart_child(W.s, "a", KLAW_FOREVER), KLAW_OK);
    }
    CHECK_ERR(klaw_supervisor_stop(W.s, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(klaw_actor_join(W.a, KLAW_FOREVER, NULL), KLAW_OK);
    klaw_actor_unref(W.a);
    klaw_supervisor_unref(W.s);
    while (W.runs || W.drops < 1)
        pass();
    return KLAW_OK;
}

SCENARIO_COST(an_actor_is_asked_failed_and_stopped, 16) {
    fresh();
    run(actor_main);
}

INTERLEAVE_MAIN
