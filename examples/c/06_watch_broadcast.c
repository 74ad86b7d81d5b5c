/* SPDX-License-Identifier: Apache-2.0 */
/* 06_watch_broadcast.c - one to many: the latest configuration, and every event.
 *
 * A watch holds the latest value: readers look at it when they like and can wait for a change;
 * values nobody looked at in time are gone, which is right for a configuration. A broadcast gives
 * every receiver every message; who falls behind by the capacity is dealt with as its lag policy
 * says. */
#include <klaw/klaw.h>

#include "check.h"

typedef struct config {
    uint32_t version;
    uint32_t verbosity;
} config;

static const klaw_type config_type = {.name = "config", .size = sizeof(config)};

#define READERS 3
#define LAST 20

/* Sees some of the versions, in order, and the last one for sure. */
static klaw_err follow_config(void *arg) {
    klaw_receiver *rx = arg;
    uint32_t seen = 0;
    klaw_err e;
    while ((e = klaw_watch_changed(rx, KLAW_FOREVER)) == KLAW_OK) {
        const void *view; /* pinned, not copied: hold it briefly */
        if ((e = klaw_watch_borrow(rx, &view)))
            break;
        const config *c = view;
        CHECK(c->version > seen && c->verbosity == c->version % 3);
        seen = c->version;
        klaw_watch_release(rx, view);
    }
    CHECK(e == KLAW_CLOSED && seen == LAST);
    klaw_receiver_unref(rx);
    return KLAW_OK;
}

static klaw_err reload(void *arg) {
    (void)arg;
    klaw_sender *tx;
    klaw_receiver *rx;
    config c = {0, 0};
    CHECK(klaw_watch(&config_type, &c, &tx, &rx) == KLAW_OK);
    for (int i = 0; i < READERS; i++) {
        klaw_receiver *each;
        CHECK(klaw_receiver_clone(rx, &each) == KLAW_OK);
        CHECK(klaw_go(follow_config, each) == KLAW_OK);
    }
    klaw_receiver_unref(rx);
    for (c.version = 1; c.version <= LAST; c.version++) {
        c.verbosity = c.version % 3;
        CHECK(klaw_send(tx, &c, KLAW_NOWAIT) == KLAW_OK); /* never waits for readers */
        CHECK(klaw_yield() == KLAW_OK);
    }
    klaw_sender_unref(tx);
    return KLAW_OK;
}

static klaw_err events(void *arg) {
    (void)arg;
    klaw_sender *tx;
    klaw_receiver *fast, *slow;
    klaw_broadcast_opts opts = {.capacity = 4, .lag = KLAW_LAG_DROP_OLDEST};
    uint64_t value, sum = 0;
    CHECK(klaw_broadcast(&klaw_u64, &opts, &tx, &fast) == KLAW_OK);
    CHECK(klaw_broadcast_subscribe(tx, KLAW_LAG_DEFAULT, &slow) == KLAW_OK);
    for (uint64_t i = 1; i <= 10; i++) {
        CHECK(klaw_send(tx, &i, KLAW_FOREVER) == KLAW_OK);
        CHECK(klaw_recv(fast, &value, KLAW_NOWAIT) == KLAW_OK && value == i);
    }
    klaw_sender_unref(tx);

    /* The slow one is told exactly how many it missed, once, and goes on with what is left. */
    CHECK(klaw_recv(slow, &value, KLAW_NOWAIT) == KLAW_LAGGED);
    CHECK(klaw_receiver_missed(slow) == 6);
    while (klaw_recv(slow, &value, KLAW_FOREVER) == KLAW_OK)
        sum += value;
    CHECK(sum == 7 + 8 + 9 + 10);
    klaw_receiver_unref(fast);
    klaw_receiver_unref(slow);
    return KLAW_OK;
}

int main(void) {
    CHECK(klaw_run(reload, NULL, NULL) == KLAW_OK);
    CHECK(klaw_run(events, NULL, NULL) == KLAW_OK); /* one runtime after the other */
    printf("%d readers saw version %d; the slow one missed 6 of 10\n", READERS, LAST);
    return 0;
}
