/* SPDX-License-Identifier: Apache-2.0 */
/* remote_scenes_long.h - scenes of what lasts long: items that are kept, waits that are given up, clients
 * that come and go, logs. */
#ifndef KLAW_TESTS_MODEL_REMOTE_SCENES_LONG_H
#define KLAW_TESTS_MODEL_REMOTE_SCENES_LONG_H

#include "model/remote_stage.h"
#include "policy/hub.h"

static klaw_hub_state d_state(int hub) {
    klaw_hub_state s;
    klaw_hub_look(d.h[hub], &s);
    return s;
}
/* Takes one item, which is held. */
static klaw_remote_item d_hold(int hub, uint64_t rx) {
    klaw_remote_item i;
    EXPECT(klaw_hub_take(d.h[hub], d.now, d.now, rx, &i, NULL) == KLAW_OK);
    klaw_remote_free((void *)(uintptr_t)i.data);
    return i;
}
/* Every other one of more items than an answer has ranges is acknowledged. */
static void w11_all_that_is_finished_is_told(void) {
    enum { N = 200 };
    B(.ack = KLAW_REMOTE_ACK_EXPLICIT);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER), lease[N];
    for (int n = 0; n < N; n++)
        EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, N);
    d_wait(SECOND);
    for (int n = 0; n < N; n++)
        lease[n] = d_hold(1, rx).lease;
    for (int n = 1; n < N; n += 2)
        EXPECT(klaw_hub_ack(d.h[1], d.now, rx, lease[n]) == KLAW_OK);
    d_wait(SECOND);
    EXPECT(d_state(0).retained_bytes == N / 2);
    for (int n = N - 2; n > 0; n -= 2) { /* from the end */
        EXPECT(klaw_hub_ack(d.h[1], d.now, rx, lease[n]) == KLAW_OK);
        d_wait(30 * MS);
    }
    d_wait(SECOND);
    EXPECT(d_state(0).retained_bytes == 1);
}
static void w12_given_up_places_go_on(void) {
    B(.capacity = 10);
    H(0, 0);
    H(1, 0);
    uint64_t a = d_open(0, KLAW_REMOTE_SENDER), b = d_open(1, KLAW_REMOTE_SENDER);
    (void)d_open(1, KLAW_REMOTE_RECEIVER);
    for (int n = 0; n < 6; n++)
        EXPECT(d_send(0, a, 'a', 0) == KLAW_OK);
    d_wait(50 * MS);
    klaw_remote_item batch[5];
    for (int n = 0; n < 5; n++)
        batch[n] = (klaw_remote_item){.data = "B", .size = 1};
    EXPECT(klaw_hub_send(d.h[0], d.now, a, batch, 5, true, 1000) == KLAW_OK);
    EXPECT(d_send(0, a, 'c', 0) == KLAW_OK); /* behind it */
    d_wait(50 * MS);
    EXPECT(d_send(1, b, 'd', 0) == KLAW_OK);
    d_wait(50 * MS);
    EXPECT(d_look().total_sent == 6);
    EXPECT(klaw_hub_withdraw(d.h[0], d.now, 1000) == KLAW_UNCERTAIN);
    d_wait(50 * MS);
    EXPECT(d_look().total_sent == 8);
}
static void w12_given_up_puts_go_on(void) {
    B(.capacity = 10);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    klaw_remote_item some[6];
    for (int n = 0; n < 6; n++)
        some[n] = (klaw_remote_item){.data = "a", .size = 1};
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(klaw_broker_put(d.b, d.now, d.now, some, 6) == KLAW_OK);
    EXPECT(klaw_broker_put(d.b, d.now, d.now, some, 6) == KLAW_FULL);
    EXPECT(d_send(0, tx, 'b', 0) == KLAW_OK);
    d_wait(3 * SECOND);
    EXPECT(d_look().total_sent == 6);
    klaw_broker_unblock(d.b, d.now);
    d_wait(50 * MS);
    EXPECT(d_look().total_sent == 7);
}
static void w26_senders_are_forgotten(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    H(2, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), ty = d_open(2, KLAW_REMOTE_SENDER),
             rx = d_open(1, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 2);
    d_wait(50 * MS);
    TEXT(d_take(1, rx, true), "a");
    EXPECT(d_send(2, ty, 'b', 0) == KLAW_OK);
    d_wait(50 * MS);
    klaw_remote_item held = d_hold(1, rx);
    EXPECT(d.h[1]->n_origins == 2);
    for (int n = 0; n < 12; n++) { /* not in one go: time passes in larger steps then */
        klaw_hub_detach(d.h[0], d.now);
        d_wait(60 * SECOND);
    }
    EXPECT(d.h[1]->n_origins == 1);
    EXPECT(klaw_hub_ack(d.h[1], d.now, rx, held.lease) == KLAW_OK);
    d_wait(5 * 60 * SECOND);
    EXPECT(d.h[1]->n_origins == 1); /* nor at once what was held for long */
    d_wait(7 * 60 * SECOND);
    EXPECT(d.h[1]->n_origins == 0);
    EXPECT(d_send(2, ty, 'c', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(50 * MS);
    TEXT(d_take(1, rx, true), "c");
}
static void w26_closed_receivers_are_forgotten(void) {
    B(.kind = KLAW_REMOTE_BROADCAST);
    H(0, .kind = KLAW_REMOTE_BROADCAST);
    H(1, .kind = KLAW_REMOTE_BROADCAST);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_open(1, KLAW_REMOTE_RECEIVER);
    for (int n = 0; n < 5; n++) {
        uint64_t rx = d_open(1, KLAW_REMOTE_RECEIVER);
        klaw_hub_wait(d.h[1], d.now, rx, 2);
        d_wait(20 * MS);
        EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
        d_wait(20 * MS);
        TEXT(d_take(1, rx, n % 2 == 0), "a");
        EXPECT(d_send(0, tx, 'b', 0) == KLAW_OK);
        EXPECT(klaw_hub_close(d.h[1], d.now, rx) == KLAW_OK);
        d_wait(50 * MS);
        EXPECT(d.h[1]->n_origins == 1 && d.h[1]->origins->n_had == 0);
    }
}

#endif
