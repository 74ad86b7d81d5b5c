/* SPDX-License-Identifier: Apache-2.0 */
/* test_scope.c - scopes, joins, sleeping and timers under every order. */
#include "interleave/harness.h"

#include <string.h>

static struct {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_scope *scope;
    klaw_timer timer;
    klaw_fiber *f;
    klaw_err e[4];
    int live, ran, fired;
    bool done;
} W;

static void fresh(void) {
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_channel(&klaw_u64, NULL, &W.tx, &W.rx), KLAW_OK);
}

static void clean(void) {
    klaw_sender_unref(W.tx);
    klaw_receiver_unref(W.rx);
}

/* Waits until it is cancelled. */
static klaw_err waits(void *arg) {
    uint64_t v;
    (void)arg;
    W.live++;
    W.ran++;
    klaw_err e = klaw_recv(W.rx, &v, KLAW_FOREVER);
    CHECK_ERR(e, KLAW_CANCELLED);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_CANCELLED); /* level-triggered */
    W.live--;
    return e;
}

static klaw_err yields(void *arg) {
    (void)arg;
    W.live++;
    W.ran++;
    pass();
    W.live--;
    return KLAW_OK;
}

static klaw_scope *open_scope(const klaw_scope_opts *o) {
    klaw_scope *s;
    CHECK_ERR(klaw_scope_open(o, &s), KLAW_OK);
    return s;
}

/* --- scopes ---------------------------------------------------------------------------------- */

static klaw_err close_main(void *arg) {
    (void)arg;
    klaw_scope *s = open_scope(NULL);
    go(yields, NULL);
    go(yields, NULL);
    CHECK_ERR(klaw_scope_close(s), KLAW_OK);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 2);
    return KLAW_OK;
}

SCENARIO(scope_close_waits_for_its_fibers) {
    fresh();
    run(close_main);
    clean();
}

static klaw_err canceller(void *arg) {
    klaw_scope_cancel(W.scope, arg);
    return KLAW_OK;
}

static klaw_err cancel_main(void *arg) {
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, "first", NULL, &f), KLAW_OK);
    go(waits, NULL);
    go(waits, NULL);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 2);
    KLAW_DET_CHECK(strcmp(klaw_scope_reason(W.scope), "first") == 0);
    klaw_scope_cancel(W.scope, "later"); /* harmless */
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(scope_cancel_reaches_every_fiber) {
    fresh();
    run(cancel_main);
    clean();
}

static klaw_err two_reasons_main(void *arg) {
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f, *g;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, "a", NULL, &f), KLAW_OK);
    CHECK_ERR(klaw_spawn(root, canceller, "b", NULL, &g), KLAW_OK);
    go(waits, NULL);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    const char *r = klaw_scope_reason(W.scope);
    KLAW_DET_CHECK(r && (strcmp(r, "a") == 0 || strcmp(r, "b") == 0));
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    KLAW_DET_CHECK(strcmp(klaw_scope_reason(W.scope), r) == 0);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(scope_first_reason_wins) {
    fresh();
    run(two_reasons_main);
    clean();
}

static klaw_err spawns(void *arg) { /* into a scope that is being cancelled */
    (void)arg;
    for (int i = 0; i < 2; i++) {
        klaw_err e = klaw_go(waits, NULL);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        W.fired += e == KLAW_OK;
    }
    return KLAW_OK;
}

static klaw_err cancel_spawn_main(void *arg) {
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, NULL, NULL, &f), KLAW_OK);
    go(spawns, NULL);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    KLAW_DET_CHECK(W.live == 0 && W.ran == W.fired); /* those that were spawned have run */
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(scope_cancel_against_spawn) {
    fresh();
    run(cancel_spawn_main);
    clean();
}

static klaw_err cancel_exit_main(void *arg) {
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, NULL, NULL, &f), KLAW_OK);
    go(yields, NULL);
    go(yields, NULL);
    klaw_err e = klaw_scope_close(W.scope);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    KLAW_DET_CHECK(W.live == 0);
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(scope_cancel_against_exit) {
    fresh();
    run(cancel_exit_main);
    clean();
}

static klaw_err inner(void *arg) {
    (void)arg;
    klaw_scope *s = open_scope(NULL);
    go(waits, NULL);
    klaw_err e = klaw_scope_close(s);
    CHECK_ERR(e, KLAW_CANCELLED);
    return KLAW_OK;
}

static klaw_err nested_main(void *arg) {
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, NULL, NULL, &f), KLAW_OK);
    go(inner, NULL);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 1);
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(scope_cancel_reaches_inner_scopes) {
    fresh();
    run(nested_main);
    clean();
}

static klaw_err shielded(void *arg) {
    (void)arg;
    uint64_t v = 0;
    klaw_scope *s =
        open_scope(&(klaw_scope_opts){.shield = true, .deadline = klaw_after(KLAW_S(60))});
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK); /* cancellation does not reach in */
    KLAW_DET_CHECK(v == 7);
    CHECK_ERR(klaw_scope_close(s), KLAW_OK);
    W.done = true;
    return klaw_sleep(KLAW_FOREVER);
}

static klaw_err shield_main(void *arg) {
    uint64_t v = 7;
    (void)arg;
    klaw_fiber *f = spawn(shielded, NULL);
    klaw_fiber_cancel(f);
    if (choose(2))
        pass();
    CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(f), KLAW_CANCELLED); /* after the shield it counts again */
    KLAW_DET_CHECK(W.done);
    return KLAW_OK;
}

SCENARIO(a_shielded_part_finishes) {
    fresh();
    run(shield_main);
    clean();
}

/* A wait that could not begin, then a sleep: the claimer of the sleep finds no waiter to unlink. */
static klaw_err refused_then_sleeps(void *arg) {
    uint64_t v;
    (void)arg;
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_CANCELLED);
    klaw_scope_opts o = {.shield = true, .deadline = klaw_after(200000)};
    klaw_scope *s = open_scope(&o);
    CHECK_ERR(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED); /* by its deadline */
    CHECK_ERR(klaw_scope_close(s), KLAW_TIMEOUT);
    return KLAW_OK;
}

static klaw_err refused_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(refused_then_sleeps, NULL);
    klaw_fiber_cancel(f);
    return join(f);
}

SCENARIO(a_refused_wait_then_a_sleep) {
    fresh();
    run(refused_main);
    clean();
}

static klaw_err shield_scope_main(void *arg) {
    uint64_t v = 7;
    (void)arg;
    klaw_scope *root = klaw_scope_current();
    klaw_fiber *f, *g;
    W.scope = klaw_scope_ref(open_scope(NULL));
    CHECK_ERR(klaw_spawn(root, canceller, NULL, NULL, &f), KLAW_OK);
    CHECK_ERR(klaw_spawn(NULL, shielded, NULL, NULL, &g), KLAW_OK);
    CHECK_ERR(klaw_send(W.tx, &v, KLAW_NOWAIT), KLAW_OK);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    KLAW_DET_CHECK(W.done);
    klaw_err e = KLAW_OK;
    CHECK_ERR(klaw_join(g, &e, NULL, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(e, KLAW_CANCELLED);
    CHECK_ERR(join(f), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(a_shield_inside_a_cancelled_scope) {
    fresh();
    run(shield_scope_main);
    clean();
}

static klaw_err deadline_main(void *arg) {
    (void)arg;
    klaw_scope *s = open_scope(&(klaw_scope_opts){.deadline = soon()});
    W.f = NULL;
    go(yields, NULL);
    klaw_err e = klaw_scope_close(s);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 1);
    s = open_scope(&(klaw_scope_opts){.deadline = soon()});
    go(waits, NULL);
    CHECK_ERR(klaw_scope_close(s), KLAW_TIMEOUT);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 2);
    return KLAW_OK;
}

SCENARIO(scope_deadline_against_completion) {
    fresh();
    run(deadline_main);
    clean();
}

static klaw_err fails(void *arg) {
    (void)arg;
    return KLAW_NOT_FOUND;
}

static klaw_err on_error_main(void *arg) {
    (void)arg;
    klaw_scope *s = open_scope(&(klaw_scope_opts){.cancel_on_error = true});
    go(waits, NULL);
    go(fails, NULL);
    go(waits, NULL);
    CHECK_ERR(klaw_scope_close(s), KLAW_NOT_FOUND);
    KLAW_DET_CHECK(W.live == 0 && W.ran == 2);
    return KLAW_OK;
}

SCENARIO(scope_first_error_cancels_the_rest) {
    fresh();
    run(on_error_main);
    clean();
}

static klaw_err wait_main(void *arg) {
    (void)arg;
    klaw_scope *s = open_scope(NULL);
    go(yields, NULL);
    go(yields, NULL);
    klaw_err e = klaw_scope_wait(s, soon());
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    if (e == KLAW_OK)
        KLAW_DET_CHECK(W.live == 0 && W.ran == 2);
    CHECK_ERR(klaw_scope_close(s), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(scope_wait_against_timeout) {
    fresh();
    run(wait_main);
    clean();
}

/* --- join ------------------------------------------------------------------------------------ */

static klaw_err result(void *arg) {
    klaw_set_value(arg);
    if (choose(2))
        pass();
    W.done = true;
    return KLAW_EXISTS;
}

static klaw_err join_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(result, &W);
    klaw_err e = KLAW_OK;
    void *value = NULL;
    CHECK_ERR(klaw_join(f, &e, &value, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(e == KLAW_EXISTS && value == &W && W.done);
    return KLAW_OK;
}

SCENARIO(join_against_exit) {
    fresh();
    CHECK_ERR(run_err(join_main), KLAW_EXISTS);
    clean();
}

static klaw_err join_timeout_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(result, &W);
    klaw_err e = KLAW_OK, j = klaw_join(f, &e, NULL, soon());
    if (j == KLAW_TIMEOUT)
        j = klaw_join(f, &e, NULL, KLAW_FOREVER);
    CHECK_ERR(j, KLAW_OK);
    CHECK_ERR(e, KLAW_EXISTS);
    return KLAW_OK;
}

SCENARIO(join_against_timeout) {
    fresh();
    CHECK_ERR(run_err(join_timeout_main), KLAW_EXISTS);
    clean();
}

static klaw_err joins(void *arg) {
    klaw_err e = klaw_join(arg, &W.e[1], NULL, KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    return W.e[0] = e;
}

static klaw_err join_cancel_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(yields, NULL), *g = spawn(joins, f);
    klaw_fiber_cancel(g);
    klaw_err e = join(g);
    if (e == KLAW_CANCELLED)
        klaw_detach(f); /* the handle stayed ours */
    return KLAW_OK;
}

SCENARIO(join_against_cancel) {
    fresh();
    run(join_cancel_main);
    clean();
}

static klaw_err detach_main(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        klaw_fiber *f = spawn(yields, NULL);
        if (choose(2))
            pass();
        klaw_detach(f);
    }
    return KLAW_OK;
}

SCENARIO(detach_against_exit) {
    fresh();
    run(detach_main);
    KLAW_DET_CHECK(W.ran == 3 && W.live == 0);
    clean();
}

static klaw_err early_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(waits, NULL), *g = spawn(waits, NULL);
    klaw_fiber_cancel(f);
    klaw_fiber_cancel(f);
    CHECK_ERR(join(f), KLAW_CANCELLED);
    klaw_fiber_cancel(g);
    CHECK_ERR(join(g), KLAW_CANCELLED);
    KLAW_DET_CHECK(W.ran == 2); /* it runs even when it was cancelled before it began */
    return KLAW_OK;
}

SCENARIO(cancel_before_the_first_run) {
    fresh();
    run(early_main);
    clean();
}

/* --- time ------------------------------------------------------------------------------------ */

static klaw_err sleeps(void *arg) {
    klaw_deadline until = klaw_after((int64_t)(intptr_t)arg);
    klaw_err e = klaw_sleep(until);
    KLAW_DET_CHECK(e == KLAW_CANCELLED || klaw_now() >= until);
    return e;
}

static klaw_err sleep_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(sleeps, (void *)(intptr_t)200000), *g = spawn(sleeps, (void *)1);
    if (choose(2))
        CHECK_ERR(sleeps((void *)(intptr_t)150000), KLAW_OK);
    klaw_fiber_cancel(f);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    CHECK_ERR(join(g), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(sleep_against_cancel) {
    fresh();
    run(sleep_main);
    clean();
}

/* The next wait of a fiber may not be hit by the deadline of an earlier one. */
static klaw_err stale_main(void *arg) {
    (void)arg;
    uint64_t v = 3;
    for (int i = 0; i < 2; i++) {
        klaw_fiber *f = spawn(sleeps, (void *)(intptr_t)100000);
        CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
        CHECK_ERR(klaw_recv(W.rx, &v, klaw_after(70000)), KLAW_OK);
        CHECK_ERR(klaw_recv(W.rx, &v, KLAW_NOWAIT), KLAW_EMPTY);
        CHECK_ERR(join(f), KLAW_OK);
        klaw_deadline until = klaw_after(300000);
        CHECK_ERR(klaw_recv(W.rx, &v, until), KLAW_TIMEOUT);
        KLAW_DET_CHECK(klaw_now() >= until);
    }
    return KLAW_OK;
}

SCENARIO(a_stale_deadline_hits_nobody) {
    fresh();
    run(stale_main);
    clean();
}

static klaw_err sends_twice(void *arg) {
    uint64_t v = 3;
    (void)arg;
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(klaw_sleep(klaw_after(i ? 300000 : 1000)), KLAW_OK);
        CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    }
    return KLAW_OK;
}

/* A wait with a deadline that ended early, then one without, or with a later one. */
static klaw_err next_wait_main(void *arg) {
    (void)arg;
    uint64_t v;
    klaw_fiber *f = spawn(sends_twice, NULL);
    klaw_err e = klaw_recv(W.rx, &v, klaw_after(150000));
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    klaw_deadline until = choose(2) ? KLAW_FOREVER : klaw_after(400000);
    e = klaw_recv(W.rx, &v, until);
    KLAW_DET_CHECK(e == KLAW_OK || (e == KLAW_TIMEOUT && klaw_now() >= until));
    return join(f);
}

SCENARIO(a_stale_deadline_spares_the_next_wait) {
    fresh();
    run(next_wait_main);
    clean();
}

static void fires(void *arg) {
    (void)arg;
    W.fired++;
}

static klaw_err timer_main(void *arg) {
    (void)arg;
    klaw_timer_init(&W.timer, fires, NULL);
    CHECK_ERR(klaw_timer_arm(&W.timer, soon()), KLAW_OK);
    if (choose(2))
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    if (choose(2)) {
        bool caught = klaw_timer_cancel(&W.timer);
        klaw_timer_drain(&W.timer);
        KLAW_DET_CHECK(W.fired == !caught);
    } else {
        klaw_timer_drain(&W.timer);
    }
    int n = W.fired;
    CHECK_ERR(klaw_sleep(klaw_after(400000)), KLAW_OK);
    KLAW_DET_CHECK(W.fired == n && n <= 1);
    return KLAW_OK;
}

SCENARIO(timer_cancel_against_fire) {
    fresh();
    run(timer_main);
    clean();
}

static klaw_err rearms(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_timer_arm(&W.timer, soon()), KLAW_OK);
    return KLAW_OK;
}

static klaw_err rearm_main(void *arg) {
    (void)arg;
    klaw_timer_init(&W.timer, fires, NULL);
    CHECK_ERR(klaw_timer_arm(&W.timer, soon()), KLAW_OK);
    klaw_fiber *f = spawn(rearms, NULL);
    CHECK_ERR(join(f), KLAW_OK);
    while (W.fired == 0) /* it does fire, soon */
        CHECK_ERR(klaw_sleep(klaw_after(100000)), KLAW_OK);
    klaw_timer_drain(&W.timer);
    KLAW_DET_CHECK(W.fired <= 2);
    return KLAW_OK;
}

SCENARIO(timer_arm_against_fire) {
    fresh();
    run(rearm_main);
    clean();
}

/* Callbacks take their time here, on two workers at once: drain waits for its own. */
static void takes_time(void *arg) {
    W.live++;
    for (int i = 0; i < 10; i++)
        KLAWI_POINT();
    if (arg)
        KLAW_DET_CHECK(!W.done); /* not after the drain */
    W.live--;
    W.fired++;
}

static klaw_err two_timers_main(void *arg) {
    static klaw_timer t[2];
    (void)arg;
    for (int i = 0; i < 2; i++) {
        klaw_timer_init(&t[i], takes_time, i ? &t[i] : NULL);
        CHECK_ERR(klaw_timer_arm(&t[i], soon()), KLAW_OK);
    }
    CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    klaw_timer_drain(&t[1]);
    W.done = true;
    klaw_timer_drain(&t[0]);
    KLAW_DET_CHECK(W.live == 0);
    return KLAW_OK;
}

SCENARIO(drain_waits_for_its_own_callback) {
    fresh();
    run(two_timers_main);
    clean();
}

static void sends_tick(void *arg) {
    uint64_t v = 1;
    (void)arg;
    W.fired += klaw_send(W.tx, &v, KLAW_NOWAIT) == KLAW_OK;
}

static klaw_err timer_sends_main(void *arg) {
    uint64_t v = 0;
    (void)arg;
    klaw_timer_init(&W.timer, sends_tick, NULL);
    CHECK_ERR(klaw_timer_arm(&W.timer, soon()), KLAW_OK);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    klaw_timer_drain(&W.timer);
    return KLAW_OK;
}

SCENARIO(a_timer_callback_sends) {
    fresh();
    run(timer_sends_main);
    KLAW_DET_CHECK(W.fired == 1);
    clean();
}

static klaw_err ticker_main(void *arg) {
    uint64_t v, last = 0;
    klaw_receiver *rx;
    (void)arg;
    CHECK_ERR(klaw_ticker_open(KLAW_US(100), &rx), KLAW_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(klaw_recv(rx, &v, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK(v > last);
        last = v;
    }
    klaw_receiver_unref(rx);
    return KLAW_OK;
}

SCENARIO(ticks_come_and_merge) {
    fresh();
    run(ticker_main);
    clean();
}

INTERLEAVE_MAIN
