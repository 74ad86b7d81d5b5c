/* SPDX-License-Identifier: Apache-2.0 */
/* remote_scenes_recv.h - scenes of receives, of ends and beginnings (W16 to W31). */
#ifndef KLAW_TESTS_MODEL_REMOTE_SCENES_RECV_H
#define KLAW_TESTS_MODEL_REMOTE_SCENES_RECV_H

#include "model/remote_stage.h"

static void w16_answers_have_room(void) {
    B(0);
    H(0, 0);
    H(1, .answer_bytes = 120);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    for (int i = 0; i < 3; i++)
        d_batch(0, tx, 3, 40);
    d_batch(0, tx, 1, 60);
    d_pump();
    klaw_hub_wait(d.h[1], d.now, rx, 10);
    d.largest = 0;
    d_wait(SECOND);
    klaw_hub_state s;
    klaw_hub_look(d.h[1], &s);
    EXPECT(s.ready == 10);
    EXPECT(d.largest > 120 && d.largest < 240); /* two of 40 bytes, their heads, an answer's own */
}
static void w16_acks_are_told(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(20 * MS);
    TEXT(d_take(1, rx, true), "a");
    d_wait(200 * MS);
    klaw_hub_state s;
    klaw_hub_look(d.h[0], &s);
    EXPECT(s.retained_bytes == 0);
}
static void w18_unused_go_back(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER),
             other = d_open(1, KLAW_REMOTE_RECEIVER);
    for (char c = 'a'; c < 'd'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    klaw_hub_wait(d.h[0], d.now, rx, 3);
    d_wait(50 * MS);
    EXPECT(klaw_hub_close(d.h[0], d.now, rx) == KLAW_OK);
    d_wait(50 * MS);
    klaw_hub_wait(d.h[1], d.now, other, 3);
    d_wait(50 * MS);
    TEXT(d_take(1, other, true), "abc");
}
static void w18_idle_gives_back(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER),
             other = d_open(1, KLAW_REMOTE_RECEIVER);
    klaw_hub_wait(d.h[0], d.now, rx, 3);
    d_wait(50 * MS);
    for (char c = 'a'; c < 'd'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    d_wait(50 * MS);
    klaw_hub_wait(d.h[0], d.now, rx, -3); /* it gave up just before they came */
    klaw_hub_wait(d.h[1], d.now, other, 3);
    d_wait(500 * MS);
    TEXT(d_take(1, other, true), "");
    d_wait(SECOND);
    TEXT(d_take(1, other, true), "abc");
}
static void w19_few_are_parked(void) {
    B(.max_parked = 2);
    for (int i = 0; i < 4; i++) {
        H(i, 0);
        (void)d_open(i, KLAW_REMOTE_RECEIVER);
    }
    for (int i = 0; i < 40; i++) {
        d_wait(50 * MS);
        EXPECT(d_look().parked <= 2);
    }
}
static void w20_before(void) {
    B(.ack = KLAW_REMOTE_ACK_BEFORE);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(20 * MS);
    klaw_broker_client_died(d.b, d.now, d.client[1]);
    EXPECT(d_look().queued == 0 && d_look().leased == 0);
}
static void w21_back_in_order(void) {
    B(.capacity = 4);
    H(0, 0);
    H(1, 0);
    H(2, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER),
             other = d_open(2, KLAW_REMOTE_RECEIVER);
    for (char c = 'a'; c < 'e'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 3);
    d_wait(50 * MS);
    for (char c = 'e'; c < 'h'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    d_wait(50 * MS);
    EXPECT(d.sent == 7);
    d.cut[1] = true;
    klaw_broker_client_died(d.b, d.now, d.client[1]); /* W23: at once */
    EXPECT(d_look().clients == 2 && d_look().queued == 7);
    klaw_hub_wait(d.h[2], d.now, other, 2);
    d_wait(50 * MS);
    EXPECT(d_send(0, tx, 'h', 0) == KLAW_OK);
    d_wait(50 * MS);
    EXPECT(d.sent == 7); /* four wait that take room */
    klaw_hub_wait(d.h[2], d.now, other, 6);
    d_wait(SECOND);
    TEXT(d_take(2, other, true), "ABCdefgh");
}
static void w21_back_takes_no_room(void) {
    B(.capacity = 1);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(50 * MS);
    d.cut[1] = true;
    klaw_broker_client_died(d.b, d.now, d.client[1]);
    EXPECT(d_send(0, tx, 'b', 0) == KLAW_OK);
    d_wait(50 * MS);
    EXPECT(d.sent == 2);
}
static void w24_lease_is_learnt(void) {
    B(.lease_ns = SECOND);
    H(0, 0);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    for (int i = 0; i < 40; i++) {
        d_wait(200 * MS);
        EXPECT(d_look().clients == 1 && d_look().receivers == 1);
    }
}
static void w25_remembered(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    (void)d_open(0, KLAW_REMOTE_SENDER);
    uint64_t id;
    EXPECT(klaw_hub_open(d.h[1], d.now, KLAW_REMOTE_SENDER, NULL, &id) == KLAW_OK);
    klaw_hub_call c;
    EXPECT(klaw_hub_next_call(d.h[1], d.now, &c));
    d_call(1, &c);
    d_answers();
    d.cut[1] = true;
    klaw_broker_client_died(d.b, d.now, d.client[1]);
    d_wait(60 * SECOND);
    d_call(1, &c); /* comes again, late */
    klaw_remote_free(c.data);
    EXPECT(d_look().clients == 1);
}
static void w27_not_again(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(5 * MS);
    TEXT(d_take(1, rx, false), "a");
    EXPECT(d_send(0, tx, 'b', 0) == KLAW_OK);
    d_restart((klaw_broker_opts){0});
    d_wait(SECOND);
    TEXT(d_take(1, rx, true), "");
    EXPECT(d_look().gathering);
    d_wait(3 * SECOND);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(SECOND);
    TEXT(d_take(1, rx, true), "B");
}
static void w27_lost_is_told(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER), missed = 0;
    for (char c = 'a'; c < 'd'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    d_wait(50 * MS);
    klaw_hub_detach(d.h[0], d.now);
    d_wait(6 * SECOND);
    d_restart((klaw_broker_opts){0});
    d_wait(4 * SECOND);
    klaw_remote_item i;
    EXPECT(d_look().lost == 3);
    EXPECT(klaw_hub_take(d.h[1], d.now, d.now, rx, &i, &missed) == KLAW_STOPPED && missed == 3);
    EXPECT(klaw_hub_take(d.h[1], d.now, d.now, rx, &i, &missed) == KLAW_EMPTY);
}
/* Nobody has said that it is done: not by closing, nor by leaving. */
static void w20_explicit_is_returned(void) {
    B(.ack = KLAW_REMOTE_ACK_EXPLICIT);
    for (int i = 0; i < 4; i++)
        H(i, .ack = KLAW_REMOTE_ACK_EXPLICIT);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER); /* asks for nothing */
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    for (int i = 1; i < 4; i++) {
        uint64_t rx = d_open(i, KLAW_REMOTE_RECEIVER);
        klaw_hub_wait(d.h[i], d.now, rx, 1);
        d_wait(SECOND);
        TEXT(d_take(i, rx, i == 3), i == 1 ? "a" : "A");
        if (i == 1)
            EXPECT(klaw_hub_close(d.h[i], d.now, rx) == KLAW_OK);
        else
            klaw_hub_detach(d.h[i], d.now);
        d_wait(SECOND);
        EXPECT(d_look().queued == (i < 3));
    }
}
static void w20_before_is_not_resent(void) {
    B(.ack = KLAW_REMOTE_ACK_BEFORE);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    klaw_hub_call c;
    while (klaw_hub_next_call(d.h[0], d.now, &c))
        klaw_remote_free(c.data); /* perhaps it arrived */
    d_restart((klaw_broker_opts){.ack = KLAW_REMOTE_ACK_BEFORE});
    d_wait(4 * SECOND);
    EXPECT(d.uncertain == 1 && d_look().total_sent == 0);
}
static void w28_nothing_before_the_disk(void) {
    B(.durable = true);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    void *data;
    size_t size;
    uint64_t mark;
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(20 * MS);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    d_wait(20 * MS);
    EXPECT(d.sent == 0 && d_look().leased == 0 && d_look().queued == 1);
    EXPECT(klaw_broker_journal(d.b, &data, &size, &mark));
    d_wait(20 * MS);
    EXPECT(d.sent == 0 && d_look().leased == 0);
    klaw_broker_committed(d.b, mark);
    klaw_remote_free(data);
    d_wait(20 * MS);
    EXPECT(d.sent == 1 && d_look().leased == 1);
}
static void w21_back_in_order_of_two(void) {
    B(0);
    for (int i = 0; i < 4; i++)
        H(i, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    for (int i = 1; i < 3; i++) {
        uint64_t rx = d_open(i, KLAW_REMOTE_RECEIVER);
        EXPECT(d_send(0, tx, (char)('a' + i - 1), 0) == KLAW_OK);
        klaw_hub_wait(d.h[i], d.now, rx, 1);
        d_wait(50 * MS);
    }
    uint64_t rx = d_open(3, KLAW_REMOTE_RECEIVER);
    for (int i = 1; i < 3; i++) {
        d.cut[i] = true;
        klaw_broker_client_died(d.b, d.now, d.client[i]);
    }
    klaw_hub_wait(d.h[3], d.now, rx, 2);
    d_wait(50 * MS);
    TEXT(d_take(3, rx, true), "AB");
}
/* Writes what there is to the disk; the last record stays in *data. */
static size_t d_commit(klaw_broker *copy) {
    void *data;
    size_t size, n = 0;
    uint64_t mark;
    while (klaw_broker_journal(d.b, &data, &size, &mark)) {
        if (copy)
            EXPECT(klaw_broker_replay(copy, data, size) == KLAW_OK);
        klaw_broker_committed(d.b, mark);
        klaw_remote_free(data);
        n++;
    }
    return n;
}
static void w28_failed_disk_is_told(void) {
    B(.durable = true);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    klaw_remote_item i;
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    (void)d_commit(NULL);
    d_wait(20 * MS);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    d_pump();
    klaw_broker_fail(d.b, d.now, "no room on the disk");
    EXPECT(d_send(0, tx, 'b', 0) == KLAW_OK); /* has no number yet */
    d_wait(100 * MS);
    EXPECT(d.sent == 0 && d.uncertain == 1 && d.unsent == 1);
    for (int hub = 0; hub < 2; hub++)
        EXPECT(strcmp(klaw_hub_trouble(d.h[hub]), "no room on the disk") == 0);
    EXPECT(klaw_hub_take(d.h[1], d.now, d.now, rx, &i, NULL) == KLAW_BACKEND);
    i = (klaw_remote_item){.data = "c", .size = 1};
    EXPECT(klaw_broker_put(d.b, d.now, d.now, &i, 1) == KLAW_BACKEND);
}
static void w28_restored(void) {
    klaw_broker_opts o = {.channel = {1}, .boot = 2, .durable = true, .restarted = true};
    klaw_broker *copy;
    B(.durable = true);
    EXPECT(klaw_broker_new(&o, &copy) == KLAW_OK);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK && d_send(0, tx, 'b', 0) == KLAW_OK);
    d_pump();
    EXPECT(d_commit(copy) == 1);
    klaw_hub_wait(d.h[0], d.now, rx, 1);
    d_wait(50 * MS);
    klaw_remote_item i;
    EXPECT(klaw_hub_take(d.h[0], d.now, d.now, rx, &i, NULL) == KLAW_OK);
    klaw_remote_free((void *)(uintptr_t)i.data);
    EXPECT(klaw_hub_ack(d.h[0], d.now, rx, i.lease) == KLAW_OK);
    d_wait(50 * MS);
    (void)d_commit(copy);
    klaw_broker_stats s;
    klaw_broker_look(copy, d.now, &s);
    klaw_broker_free(copy);
    EXPECT(s.queued == 1);
}
static void w28_before_is_written_first(void) {
    B(.durable = true, .ack = KLAW_REMOTE_ACK_BEFORE);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    d_pump();
    (void)d_commit(NULL);
    klaw_hub_wait(d.h[0], d.now, rx, 1);
    d_wait(50 * MS);
    TEXT(d_take(0, rx, true), "");
    EXPECT(d_commit(NULL) == 1);
    d_wait(50 * MS);
    TEXT(d_take(0, rx, true), "a");
}
static void w29_deleted(void) {
    B(0);
    H(0, 0);
    uint64_t rx = d_open(0, KLAW_REMOTE_RECEIVER);
    klaw_remote_item i;
    d_wait(20 * MS);
    klaw_broker_delete(d.b, d.now);
    d_answers();
    EXPECT(d_look().parked == 0);
    EXPECT(klaw_hub_take(d.h[0], d.now, d.now, rx, &i, NULL) == KLAW_CLOSED);
}
static void w29_deleted_while_the_disk_writes(void) {
    B(.durable = true);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_commit(NULL);
    d_pump();
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    d_pump();
    klaw_broker_delete(d.b, d.now);
    d_wait(50 * MS);
    klaw_hub_state s;
    klaw_hub_look(d.h[0], &s);
    EXPECT(s.deleted && d.sent + d.unsent == 1);
}
static void w30_detach_comes_last(void) {
    B(.capacity = 1);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    for (char c = 'a'; c < 'd'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    klaw_hub_detach(d.h[0], d.now);
    d_wait(100 * MS);
    klaw_hub_wait(d.h[1], d.now, rx, 3);
    d_wait(3 * SECOND);
    TEXT(d_take(1, rx, true), "abc");
    EXPECT(klaw_hub_idle(d.h[0]) && d_look().clients == 1);
}
/* A detach that failed goes out again, though a token is due to be stated again meanwhile. */
static void w30_detach_goes_on(void) {
    B(.lease_ns = 1000 * SECOND);
    H(0, 0);
    H(1, 0);
    unsigned char token[KLAW_REMOTE_ID] = {5};
    klaw_hub_call c = {0};
    (void)d_open(1, KLAW_REMOTE_RECEIVER);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    EXPECT(klaw_hub_mint(d.h[0], d.now, KLAW_REMOTE_SENDER, token) == KLAW_OK);
    EXPECT(klaw_hub_close(d.h[0], d.now, tx) == KLAW_OK);
    d_wait(100 * MS);
    klaw_hub_detach(d.h[0], d.now);
    while (c.kind != KLAW_HUB_DETACH && klaw_hub_next_call(d.h[0], d.now, &c)) {
        klaw_remote_free(c.data);
        klaw_hub_failed(d.h[0], d.now, c.id, false, "");
    }
    EXPECT(c.kind == KLAW_HUB_DETACH && !klaw_hub_idle(d.h[0]));
    d.now += 101 * SECOND; /* and nothing could be said meanwhile */
    d_wait(5 * SECOND);
    EXPECT(klaw_hub_idle(d.h[0]) && klaw_hub_deadline(d.h[0]) > d.now && d_look().clients == 1);
}

#endif
