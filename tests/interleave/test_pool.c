/* SPDX-License-Identifier: Apache-2.0 */
/* test_pool.c - pools: sends and asks against resizes, stops and members that end. Each message is
 * counted: made once, dropped once, handled at most once. */
#include "interleave/harness.h"

#include <string.h>

#define MESSAGES 6

static struct {
    klaw_pool *p;
    uint64_t made, dropped, handled[MESSAGES + 1], released;
    klaw_err sent[MESSAGES + 1];
    uint64_t asked, answered;
} W;

static void message_drop(void *elem) {
    (void)elem;
    W.dropped++;
}
static const klaw_type message_type = {
    .name = "message", .size = sizeof(uint64_t), .drop = message_drop};

/* 5 ends the member. */
static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t n = *(uint64_t *)message;
    (void)self;
    (void)state;
    W.handled[n]++;
    pass();
    if (reply)
        *(uint64_t *)reply = n;
    return n == 5 ? KLAW_CORRUPT : KLAW_OK;
}
static const klaw_behavior behavior = {
    .name = "member", .message = &message_type, .reply = &klaw_u64, .handle = handle};

static void released(void *arg) {
    (void)arg;
    W.released++;
}

static void open_pool(uint32_t size, klaw_restart restart) {
    memset(&W, 0, sizeof W);
    klaw_pool_opts o = {.size = size};
    o.actor.restart = restart;
    o.actor.no_backoff = true;
    o.actor.release = released;
    CHECK_ERR(klaw_pool_open(&behavior, NULL, &o, &W.p), KLAW_OK);
}

static void put_one(uint64_t n, klaw_deadline d) {
    W.made++;
    W.sent[n] = klaw_pool_send_key(W.p, n, &n, d);
    if (W.sent[n]) {
        KLAW_DET_CHECK(W.sent[n] == KLAW_STOPPED);
        W.dropped++; /* failure leaves */
    }
}

static klaw_err sends(void *arg) {
    (void)arg;
    for (uint64_t n = 1; n <= 3; n++)
        put_one(n, KLAW_FOREVER);
    return KLAW_OK;
}

static klaw_err asks(void *arg) {
    (void)arg;
    uint64_t n = 4, reply = 0;
    bool moved;
    W.made++;
    W.asked++;
    klaw_err e = klaw_pool_ask_moved(W.p, &n, &reply, KLAW_FOREVER, &moved);
    if (!moved)
        W.dropped++;
    if (e == KLAW_OK) {
        KLAW_DET_CHECK(reply == 4);
        W.answered++;
    } else {
        KLAW_DET_CHECK(e == KLAW_STOPPED);
    }
    return KLAW_OK;
}

static klaw_err grows(void *arg) {
    (void)arg;
    klaw_err e = klaw_pool_resize(W.p, 3);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
    return KLAW_OK;
}

static klaw_err shrinks(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_pool_resize(W.p, 1), KLAW_OK);
    return KLAW_OK;
}

static klaw_err stops(void *arg) {
    (void)arg;
    pass();
    if (choose(2))
        klaw_pool_stop(W.p);
    else
        klaw_pool_kill(W.p);
    return KLAW_OK;
}

/* All have ended, and every message has. */
static void closes(void) {
    CHECK_ERR(klaw_pool_join(W.p, KLAW_FOREVER), KLAW_OK);
    klaw_pool_unref(W.p);
    KLAW_DET_CHECK(W.made == W.dropped);
    for (uint64_t n = 1; n <= MESSAGES; n++)
        KLAW_DET_CHECK(W.handled[n] <= 1);
}

static klaw_err stop_against_resize(void *arg) {
    (void)arg;
    open_pool(1, KLAW_RESTART_ON_FAILURE);
    klaw_fiber *f[] = {spawn(grows, NULL), spawn(stops, NULL), spawn(sends, NULL)};
    for (int i = 0; i < 3; i++)
        join(f[i]);
    CHECK_ERR(klaw_pool_resize(W.p, 2), KLAW_STOPPED);
    closes();
    return KLAW_OK;
}

SCENARIO_COST(a_stop_against_a_resize, 16) {
    run(stop_against_resize);
}

static klaw_err shrink_against_sends(void *arg) {
    (void)arg;
    open_pool(3, KLAW_RESTART_ON_FAILURE);
    klaw_fiber *f[] = {spawn(sends, NULL), spawn(shrinks, NULL), spawn(asks, NULL)};
    for (int i = 0; i < 3; i++)
        join(f[i]);
    klaw_pool_stop(W.p);
    closes();
    KLAW_DET_CHECK(W.released == 3);
    for (uint64_t n = 1; n <= 3; n++) /* who leaves drains first: nothing is lost */
        KLAW_DET_CHECK(W.sent[n] == KLAW_OK && W.handled[n] == 1);
    KLAW_DET_CHECK(W.answered == 1);
    return KLAW_OK;
}

SCENARIO_COST(a_shrink_loses_nothing, 16) {
    run(shrink_against_sends);
}

static klaw_err end_against_sends(void *arg) {
    (void)arg;
    open_pool(2, KLAW_RESTART_NEVER);
    klaw_fiber *f[] = {spawn(sends, NULL), spawn(asks, NULL)};
    put_one(5, KLAW_FOREVER); /* one of the members ends */
    KLAW_DET_CHECK(W.sent[5] == KLAW_OK);
    for (int i = 0; i < 2; i++)
        join(f[i]);
    for (uint64_t n = 1; n <= 3; n++) /* the other one takes its part */
        KLAW_DET_CHECK(W.sent[n] == KLAW_OK);
    klaw_pool_stop(W.p);
    closes();
    return KLAW_OK;
}

SCENARIO_COST(a_member_ends_and_the_other_goes_on, 16) {
    run(end_against_sends);
}

INTERLEAVE_MAIN
