/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry.c - names under every order: awaiting against registering, registering against the
 * actor's end, leaving against both. */
#include "interleave/harness.h"

#include <string.h>

#include "actor/registry.h"

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)message;
    (void)reply;
    return KLAW_OK;
}
static const klaw_behavior idle = {.name = "idle", .message = &klaw_u64, .handle = handle};

static struct {
    klaw_actor *a, *b;
    klaw_err e[4];
    klaw_actor *got[4];
} W;

static void begin(void) {
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_actor_spawn(&idle, NULL, NULL, &W.a), KLAW_OK);
}
static void end_actor(klaw_actor *a) {
    if (!a)
        return;
    klaw_actor_stop(a);
    CHECK_ERR(klaw_actor_join(a, KLAW_FOREVER, NULL), KLAW_OK);
    klaw_actor_unref(a);
}
/* Nobody has the name, nobody waits for it. */
static void nothing_left(const char *name) {
    klaw_actor *a = NULL;
    size_t n = 0;
    CHECK_ERR(klaw_whereis(name, &a), KLAW_NOT_FOUND);
    CHECK_ERR(klaw_group_members(name, NULL, 0, &n), KLAW_NOT_FOUND);
    KLAW_DET_CHECK(klawi_registry_waiting() == 0);
}

static klaw_err registers(void *arg) {
    W.e[0] = klaw_registry_register("it", arg);
    return KLAW_OK;
}
static klaw_err awaits(void *arg) {
    size_t i = (size_t)arg;
    W.e[i] = klaw_registry_await("it", KLAW_FOREVER, &W.got[i]);
    return KLAW_OK;
}
static klaw_err awaits_briefly(void *arg) {
    size_t i = (size_t)arg;
    W.e[i] = klaw_registry_await("it", soon(), &W.got[i]);
    return KLAW_OK;
}
static klaw_err stops(void *arg) {
    klaw_actor_stop(arg);
    return KLAW_OK;
}

static klaw_err await_main(void *arg) {
    (void)arg;
    begin();
    klaw_fiber *f = spawn(registers, W.a);
    klaw_fiber *g = spawn(awaits, (void *)1);
    (void)awaits((void *)2);
    join(f);
    join(g);
    CHECK_ERR(W.e[0], KLAW_OK);
    CHECK_ERR(W.e[1], KLAW_OK);
    CHECK_ERR(W.e[2], KLAW_OK);
    KLAW_DET_CHECK(W.got[1] == W.a && W.got[2] == W.a);
    klaw_actor_unref(W.got[1]);
    klaw_actor_unref(W.got[2]);
    end_actor(W.a);
    nothing_left("it");
    return KLAW_OK;
}
SCENARIO_COST(await_against_register, 4) {
    run(await_main);
}

static klaw_err end_main(void *arg) {
    (void)arg;
    begin();
    klaw_fiber *f = spawn(registers, W.a);
    klaw_fiber *g = spawn(stops, W.a);
    join(f);
    join(g);
    KLAW_DET_CHECK(W.e[0] == KLAW_OK || W.e[0] == KLAW_STOPPED);
    end_actor(W.a); /* joined: it has lost its name */
    nothing_left("it");
    return KLAW_OK;
}
SCENARIO_COST(register_against_the_end, 4) {
    run(end_main);
}

static klaw_err joins_group(void *arg) {
    W.e[1] = klaw_group_join("it", arg);
    return KLAW_OK;
}
static klaw_err leaves_group(void *arg) {
    W.e[2] = klaw_group_leave("it", arg);
    return KLAW_OK;
}
static klaw_err group_main(void *arg) {
    (void)arg;
    begin();
    klaw_fiber *f = spawn(joins_group, W.a);
    klaw_fiber *g = spawn(leaves_group, W.a);
    klaw_fiber *h = spawn(stops, W.a);
    size_t sent = 9;
    klaw_err e = klaw_group_send("it", &klaw_u64, &(uint64_t){1}, KLAW_FOREVER, &sent);
    KLAW_DET_CHECK(e == KLAW_OK ? sent <= 1 : e == KLAW_NOT_FOUND && sent == 0);
    join(f);
    join(g);
    join(h);
    KLAW_DET_CHECK(W.e[1] == KLAW_OK || W.e[1] == KLAW_STOPPED);
    KLAW_DET_CHECK(W.e[2] == KLAW_OK ? W.e[1] == KLAW_OK : W.e[2] == KLAW_NOT_FOUND);
    end_actor(W.a);
    nothing_left("it");
    return KLAW_OK;
}
SCENARIO_COST(group_against_the_end, 4) {
    run(group_main);
}

static klaw_err cancel_main(void *arg) {
    (void)arg;
    begin();
    klaw_fiber *f = spawn(awaits, (void *)1);
    klaw_fiber *g = spawn(awaits_briefly, (void *)2);
    klaw_fiber *h = spawn(registers, W.a);
    klaw_fiber_cancel(f);
    join(f);
    join(g);
    join(h);
    CHECK_ERR(W.e[0], KLAW_OK);
    KLAW_DET_CHECK(W.e[1] == KLAW_OK ? W.got[1] == W.a : W.e[1] == KLAW_CANCELLED && !W.got[1]);
    KLAW_DET_CHECK(W.e[2] == KLAW_OK ? W.got[2] == W.a : W.e[2] == KLAW_TIMEOUT && !W.got[2]);
    klaw_actor_unref(W.got[1]);
    klaw_actor_unref(W.got[2]);
    end_actor(W.a);
    nothing_left("it");
    return KLAW_OK;
}
SCENARIO_COST(leaving_await_against_register, 4) {
    run(cancel_main);
}

INTERLEAVE_MAIN
