/* SPDX-License-Identifier: Apache-2.0 */
/* test_runtime.c - the end of a runtime object against those who still spawn, send, make channels
 * and end it, too. */
#include "interleave/harness.h"

#include <string.h>

#include "klaw/runtime.h"

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)message;
    (void)reply;
    return KLAW_OK;
}
static const klaw_behavior idle = {.name = "idle", .message = &klaw_u64, .handle = handle};

static struct {
    klaw_runtime *rt;
    int ran, cancelled, spawned;
    klaw_err e[4];
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_actor *a;
} W;

static void begin(void) {
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_runtime_open(NULL, &W.rt, NULL), KLAW_OK);
}

static klaw_err works(void *arg) {
    (void)arg;
    klaw_err e = klaw_sleep(soon());
    __atomic_fetch_add(e ? &W.cancelled : &W.ran, 1, __ATOMIC_RELAXED);
    return KLAW_OK;
}

static klaw_err spawns(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        klaw_err e = klaw_runtime_spawn(W.rt, works, NULL, NULL, NULL);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        if (e == KLAW_OK)
            __atomic_fetch_add(&W.spawned, 1, __ATOMIC_RELAXED);
    }
    return KLAW_OK;
}

static klaw_err spawn_main(void *arg) {
    (void)arg;
    begin();
    klaw_fiber *f = spawn(spawns, NULL);
    klaw_err e = klaw_runtime_shutdown(W.rt, NULL, NULL);
    CHECK_ERR(e, KLAW_OK);
    /* What was accepted has run; what comes later is refused or was cancelled and has run. */
    int before = __atomic_load_n(&W.ran, __ATOMIC_RELAXED);
    before += __atomic_load_n(&W.cancelled, __ATOMIC_RELAXED);
    join(f);
    KLAW_DET_CHECK(before == W.spawned);
    KLAW_DET_CHECK(W.ran + W.cancelled == W.spawned);
    klaw_runtime_free(W.rt);
    return KLAW_OK;
}
SCENARIO_COST(shutdown_against_spawn, 8) {
    run(spawn_main);
}

static klaw_err makes_a_channel(void *arg) {
    (void)arg;
    W.e[0] = klaw_runtime_channel(W.rt, &klaw_u64, NULL, &W.tx, &W.rx);
    return KLAW_OK;
}
static klaw_err makes_an_actor(void *arg) {
    (void)arg;
    W.e[1] = klaw_runtime_spawn_actor(W.rt, &idle, NULL, NULL, &W.a);
    return KLAW_OK;
}
static klaw_err own_main(void *arg) {
    uint64_t v = 1;
    (void)arg;
    begin();
    klaw_fiber *f = spawn(makes_a_channel, NULL), *g = spawn(makes_an_actor, NULL);
    klaw_shutdown_opts o = {.now = choose(2) != 0};
    CHECK_ERR(klaw_runtime_shutdown(W.rt, &o, NULL), KLAW_OK);
    join(f);
    join(g);
    if (W.e[0] == KLAW_OK) { /* filed: so it was closed */
        CHECK_ERR(klaw_send(W.tx, &v, KLAW_NOWAIT), KLAW_CLOSED);
        klaw_sender_unref(W.tx);
        klaw_receiver_unref(W.rx);
    } else {
        CHECK_ERR(W.e[0], KLAW_STOPPED);
    }
    if (W.e[1] == KLAW_OK) {
        KLAW_DET_CHECK(!klaw_actor_alive(W.a));
        klaw_actor_unref(W.a);
    } else {
        CHECK_ERR(W.e[1], KLAW_STOPPED);
    }
    klaw_runtime_free(W.rt);
    return KLAW_OK;
}
SCENARIO_COST(shutdown_against_what_it_owns, 8) {
    run(own_main);
}

static klaw_err ends_it(void *arg) {
    size_t i = (size_t)arg;
    klaw_shutdown_opts o = {.now = i == 1};
    W.e[i] = klaw_runtime_shutdown(W.rt, &o, NULL);
    KLAW_DET_CHECK(W.ran + W.cancelled == 2);
    return KLAW_OK;
}
static klaw_err twice_main(void *arg) {
    (void)arg;
    begin();
    CHECK_ERR(klaw_runtime_spawn(W.rt, works, NULL, NULL, NULL), KLAW_OK);
    CHECK_ERR(klaw_runtime_spawn(W.rt, works, NULL, NULL, NULL), KLAW_OK);
    klaw_fiber *f = spawn(ends_it, (void *)1);
    (void)ends_it((void *)2);
    join(f);
    KLAW_DET_CHECK(W.e[1] == W.e[2]);
    klaw_runtime_free(W.rt);
    return KLAW_OK;
}
SCENARIO_COST(two_shutdowns, 8) {
    run(twice_main);
}

static klaw_err cancelled_main(void *arg) {
    klaw_scope *s;
    (void)arg;
    klaw_scope_opts so = {.deadline = soon()};
    if (so.deadline == KLAW_NOWAIT)
        so.deadline = 1;
    CHECK_ERR(klaw_scope_open(&so, &s), KLAW_OK);
    memset(&W, 0, sizeof W);
    klaw_err e = klaw_runtime_open(NULL, &W.rt, NULL);
    if (e == KLAW_OK) {
        klaw_err spawned = klaw_runtime_spawn(W.rt, works, NULL, NULL, NULL);
        KLAW_DET_CHECK(spawned == KLAW_OK || spawned == KLAW_STOPPED);
        e = klaw_runtime_shutdown(W.rt, NULL, NULL);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT);
        KLAW_DET_CHECK(W.ran + W.cancelled == (spawned == KLAW_OK));
        klaw_runtime_free(W.rt);
    } else {
        CHECK_ERR(e, KLAW_CANCELLED);
    }
    (void)(klaw_scope_close(s) == KLAW_OK);
    return KLAW_OK;
}
SCENARIO_COST(shutdown_against_the_scope_it_lives_in, 8) {
    run(cancelled_main);
}

static void outside(void) {
    begin();
    CHECK_ERR(klaw_runtime_spawn(W.rt, works, NULL, NULL, NULL), KLAW_OK);
    klaw_shutdown_opts o = {.now = choose(2) != 0};
    CHECK_ERR(klaw_runtime_shutdown(W.rt, &o, NULL), KLAW_OK);
    KLAW_DET_CHECK(W.ran + W.cancelled == 1);
    KLAW_DET_CHECK(klaw_run_workers() == 0);
    klaw_runtime_free(W.rt);
}
SCENARIO_COST(a_run_of_its_own, 8) {
    outside();
}

INTERLEAVE_MAIN
