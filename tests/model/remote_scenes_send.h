/* SPDX-License-Identifier: Apache-2.0 */
/* remote_scenes_send.h - scenes of attaching, endpoints and sends (W1 to W15). */
#ifndef KLAW_TESTS_MODEL_REMOTE_SCENES_SEND_H
#define KLAW_TESTS_MODEL_REMOTE_SCENES_SEND_H

#include "base/alloc.h"
#include "model/remote_stage.h"
#include "policy/wire.h"

static void w2_foreign_channel(void) {
    B(0);
    H(0, .channel = {7});
    (void)d_open(0, KLAW_REMOTE_SENDER);
    EXPECT(*klaw_hub_trouble(d.h[0]) && d_look().clients == 0);
}
static void w5_other_type(void) {
    B(.type = "int", .type_size = 3);
    H(0, .type = "str", .type_size = 3);
    (void)d_open(0, KLAW_REMOTE_SENDER);
    EXPECT(*klaw_hub_trouble(d.h[0]) && d_look().clients == 0);
}
static void w6_close_comes_last(void) {
    B(.capacity = 1);
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    for (char c = 'a'; c < 'd'; c++)
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
    d_pump();
    EXPECT(klaw_hub_close(d.h[0], d.now, tx) == KLAW_OK);
    d_wait(20 * MS);
    klaw_hub_wait(d.h[1], d.now, rx, 1);
    d_wait(2 * SECOND);
    TEXT(d_take(1, rx, true), "abc");
    d_wait(100 * MS);
    EXPECT(d.sent == 3 && d_look().senders_closed);
}
static void w7_tokens_count(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    unsigned char token[KLAW_REMOTE_ID] = {5};
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), other;
    EXPECT(klaw_hub_mint(d.h[0], d.now, KLAW_REMOTE_SENDER, token) == KLAW_OK);
    EXPECT(klaw_hub_close(d.h[0], d.now, tx) == KLAW_OK);
    d_wait(100 * MS);
    EXPECT(!d_look().senders_closed && d_look().senders == 1);
    EXPECT(klaw_hub_open(d.h[1], d.now, KLAW_REMOTE_SENDER, token, &other) == KLAW_OK);
    d_wait(100 * MS);
    EXPECT(d_look().senders == 1);
    EXPECT(klaw_hub_close(d.h[1], d.now, other) == KLAW_OK);
    d_wait(100 * MS);
    EXPECT(d_look().senders_closed);
}
static uint64_t d_tokens(int hub) {
    klaw_hub_state s;
    klaw_hub_look(d.h[hub], &s);
    return s.tokens;
}
static void w7_token_lives_as_its_minter(void) {
    B(.token_ns = 10 * SECOND);
    H(0, 0);
    H(1, 0);
    unsigned char token[KLAW_REMOTE_ID] = {5}, forgotten[KLAW_REMOTE_ID] = {6};
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), other;
    (void)d_open(1, KLAW_REMOTE_RECEIVER);
    EXPECT(klaw_hub_mint(d.h[0], d.now, KLAW_REMOTE_SENDER, token) == KLAW_OK);
    EXPECT(klaw_hub_mint(d.h[0], d.now, KLAW_REMOTE_SENDER, forgotten) == KLAW_OK);
    EXPECT(klaw_hub_close(d.h[0], d.now, tx) == KLAW_OK);
    d_wait(60 * SECOND); /* a task that is queued for long */
    EXPECT(!d_look().senders_closed && d_look().senders == 2 && d_tokens(0) == 2);
    EXPECT(klaw_hub_open(d.h[1], d.now, KLAW_REMOTE_SENDER, token, &other) == KLAW_OK);
    d_wait(100 * MS);
    EXPECT(d_look().senders == 2 && d_tokens(0) == 1); /* its minter has heard */
    klaw_hub_detach(d.h[0], d.now);
    d_wait(5 * SECOND);
    EXPECT(d_look().clients == 1 && d_look().senders == 2);
    d_wait(8 * SECOND);
    EXPECT(d_look().senders == 1);
}
static void w7_claimed_tokens_are_not_stated_to_a_new_boot(void) {
    B(0);
    H(0, 0);
    H(1, 0);
    unsigned char token[KLAW_REMOTE_ID] = {5};
    uint64_t other;
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(klaw_hub_mint(d.h[0], d.now, KLAW_REMOTE_SENDER, token) == KLAW_OK);
    d_wait(100 * MS);
    EXPECT(klaw_hub_open(d.h[1], d.now, KLAW_REMOTE_SENDER, token, &other) == KLAW_OK);
    d_wait(100 * MS);
    klaw_broker_client_died(d.b, d.now, d.client[1]);
    d.cut[1] = true;
    d_restart((klaw_broker_opts){0});
    d_wait(60 * SECOND);
    EXPECT(d_look().senders == 0 && d_look().senders_closed);
}
static void w9_batches_share_a_frame(void) {
    B(0);
    H(0, .frame_bytes = 400);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    d_wait(50 * MS);
    d_batch(0, tx, 4, 4); /* about 36 bytes an item */
    EXPECT(d_send(0, tx, 'x', 0) == KLAW_OK);
    d_batch(0, tx, 4, 4);
    EXPECT(d_calls(0, KLAW_HUB_PUSH) == 1);
    d_pump();
    EXPECT(d.sent == 3 && d_look().total_sent == 9);
    /* What does not fit waits for the next, whole; one that never fits goes alone. */
    d_batch(0, tx, 4, 4);
    d_batch(0, tx, 8, 8);
    d_batch(0, tx, 8, 60);
    klaw_hub_state s;
    klaw_hub_call c;
    for (int i = 0; i < 3; i++) {
        EXPECT(klaw_hub_next_call(d.h[0], d.now, &c) && c.kind == KLAW_HUB_PUSH);
        klaw_hub_look(d.h[0], &s);
        EXPECT(s.framed == (i == 0 ? 13 : i == 1 ? 21 : 29));
        d_call(0, &c);
        klaw_remote_free(c.data);
    }
    d_pump();
    EXPECT(d.sent == 6 && d_look().total_sent == 29);
}
static void w10_early_frame_waits(void) {
    B(0);
    H(0, .frame_bytes = 40);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    d_wait(50 * MS);
    klaw_hub_call c[8];
    int n = 0;
    for (char x = 'a'; x < 'g'; x++) {
        char big[40] = {x};
        klaw_remote_item i = {.data = big, .size = sizeof big};
        EXPECT(klaw_hub_send(d.h[0], d.now, tx, &i, 1, false, ++d.tickets) == KLAW_OK);
    }
    while (n < 8 && klaw_hub_next_call(d.h[0], d.now, &c[n]))
        n++;
    EXPECT(n > 2 && c[0].kind == KLAW_HUB_PUSH && c[1].kind == KLAW_HUB_PUSH);
    for (int i = n - 1; i >= 0; i--)
        d_call(0, &c[i]);
    EXPECT(d_look().total_sent == 6 && d_look().duplicates == 0);
    for (int i = 0; i < n; i++)
        klaw_remote_free(c[i].data);
}
static void w12_in_turn(void) {
    B(.capacity = 1);
    H(0, 0);
    H(1, 0);
    H(2, 0);
    uint64_t a = d_open(0, KLAW_REMOTE_SENDER), b = d_open(1, KLAW_REMOTE_SENDER),
             rx = d_open(2, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, a, 'a', 0) == KLAW_OK);
    d_pump();
    EXPECT(d_send(0, a, 'b', 0) == KLAW_OK);
    d_pump(); /* waits for room */
    klaw_hub_wait(d.h[2], d.now, rx, 1);
    d.cut[0] = true; /* it does not hear of its room yet */
    d_wait(20 * MS);
    EXPECT(d_send(1, b, 'c', 0) == KLAW_OK);
    d_pump();
    EXPECT(d_look().total_sent == 1);
    d_wait(3 * SECOND); /* what is not used goes on to the next */
    EXPECT(d_look().total_sent == 2);
}
static void w13_nowait(void) {
    B(.capacity = 1);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
    d_pump();
    EXPECT(d_send(0, tx, 'b', KLAW_REMOTE_NOWAIT) == KLAW_OK);
    d_pump();
    EXPECT(d.sent == 1 && d.refused == 1);
}
static void w14_withdrawn(void) {
    B(.capacity = 1);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER);
    for (char c = 'a'; c < 'd'; c++) {
        EXPECT(d_send(0, tx, c, 0) == KLAW_OK);
        d_pump();
    }
    EXPECT(klaw_hub_withdraw(d.h[0], d.now, 2) == KLAW_UNCERTAIN);
    klaw_hub_wait(d.h[0], d.now, rx, 3);
    d_wait(3 * SECOND);
    TEXT(d_take(0, rx, true), "ac");
}
static void w15_retains(void) {
    B(0);
    H(0, .retain_bytes = 10 * (1 + (int64_t)sizeof(klawi_hub_item)));
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    int n = 0;
    while (n < 50 && d_send(0, tx, 'x', 0) == KLAW_OK)
        n++;
    EXPECT(n == 10);
}
static void w3_deadline(void) {
    B(0);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(0, KLAW_REMOTE_RECEIVER);
    klaw_remote_item i = {.data = "a", .size = 1, .deadline = d.now + 100 * MS};
    EXPECT(klaw_hub_send(d.h[0], d.now, tx, &i, 1, false, ++d.tickets) == KLAW_OK);
    d_wait(SECOND);
    klaw_hub_wait(d.h[0], d.now, rx, 1);
    d_wait(50 * MS);
    TEXT(d_take(0, rx, true), "");
    EXPECT(d.sent == 1 && d_look().expired == 1);
}
static void w12_batch_is_not_overtaken(void) {
    B(.capacity = 3);
    H(0, 0);
    H(1, 0);
    uint64_t a = d_open(0, KLAW_REMOTE_SENDER), b = d_open(1, KLAW_REMOTE_SENDER);
    (void)d_open(0, KLAW_REMOTE_RECEIVER);
    EXPECT(d_send(0, a, 'a', 0) == KLAW_OK && d_send(0, a, 'b', 0) == KLAW_OK);
    d_wait(20 * MS);
    klaw_remote_item two[] = {{.data = "c", .size = 1}, {.data = "d", .size = 1}};
    EXPECT(klaw_hub_send(d.h[0], d.now, a, two, 2, true, ++d.tickets) == KLAW_OK);
    d_wait(20 * MS);
    EXPECT(d_send(1, b, 'e', 0) == KLAW_OK);
    d_wait(20 * MS);
    EXPECT(d_look().total_sent == 2);
}
/* One takes an item now and then; two send all the time, a third one a batch as large as it gets. */
static void w12_large_batch_gets_in(void) {
    B(.capacity = 4);
    for (int i = 0; i < 4; i++)
        H(i, 0);
    uint64_t tx[3], rx = d_open(3, KLAW_REMOTE_RECEIVER);
    for (int i = 0; i < 3; i++)
        tx[i] = d_open(i, KLAW_REMOTE_SENDER);
    klaw_remote_item batch[4], i;
    for (int n = 0; n < 4; n++)
        batch[n] = (klaw_remote_item){.data = "B", .size = 1};
    int had = 0, others = 0, put = 0, after = 0;
    for (int step = 0; step < 60; step++) {
        for (int hub = 0; hub < 2; hub++)
            EXPECT(d_send(hub, tx[hub], 'a', 0) == KLAW_OK);
        if (step == 5)
            EXPECT(klaw_hub_send(d.h[2], d.now, tx[2], batch, 4, true, 1000) == KLAW_OK);
        if (step >= 5 && put == 0 && klaw_broker_put(d.b, d.now, d.now, batch, 4) == KLAW_OK)
            put = step;
        d_wait(10 * MS);
        klaw_hub_wait(d.h[3], d.now, rx, 1);
        d_wait(20 * MS);
        if (klaw_hub_take(d.h[3], d.now, d.now, rx, &i, NULL) != KLAW_OK)
            continue;
        klaw_hub_wait(d.h[3], d.now, rx, -1);
        had += *(const char *)i.data == 'B';
        others += *(const char *)i.data == 'a';
        after += *(const char *)i.data == 'a' && had == 8; /* nor do they starve the others */
        klaw_remote_free((void *)(uintptr_t)i.data);
        EXPECT(klaw_hub_ack(d.h[3], d.now, rx, i.lease) == KLAW_OK);
    }
    EXPECT(put > 0 && had == 8 && others > 20 && after > 5);
}
static void w12_late_ones_get_more_time(void) {
    B(.capacity = 1, .ack = KLAW_REMOTE_ACK_EXPLICIT); /* nothing is asked for in advance */
    H(0, 0);
    H(1, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER), rx = d_open(1, KLAW_REMOTE_RECEIVER);
    klaw_remote_item late = {.data = "L", .size = 1};
    bool in = false;
    for (int n = 0; n < 400 && !in; n++) {
        EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK && d_send(0, tx, 'b', 0) == KLAW_OK);
        if (n % 30 == 29) /* 1.5 s, and room is kept for 1 s at first */
            in = klaw_broker_put(d.b, d.now, d.now, &late, 1) == KLAW_OK;
        klaw_hub_wait(d.h[1], d.now, rx, 1);
        d_wait(50 * MS);
        klaw_remote_item i;
        klaw_hub_wait(d.h[1], d.now, rx, -1);
        if (klaw_hub_take(d.h[1], d.now, d.now, rx, &i, NULL) != KLAW_OK)
            continue;
        klaw_remote_free((void *)(uintptr_t)i.data);
        EXPECT(klaw_hub_ack(d.h[1], d.now, rx, i.lease) == KLAW_OK);
    }
    EXPECT(in);
}
/* What was confirmed lies inside a batch: no hub says so, and who does gets no further than his own items. */
static void w27_liars_harm_nobody(void) {
    B(.restarted = true, .boot = 7);
    static const unsigned char attach[] = {0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0};
    static const unsigned char push[] = {1, 1, 0, 3};
    static const unsigned flags[] = {KLAW_REMOTE_BATCH_FIRST, 0, KLAW_REMOTE_BATCH_LAST};
    for (int kind = KLAWI_WIRE_ATTACH; kind <= KLAWI_WIRE_PUSH; kind++) {
        klawi_out o = {0};
        uint64_t t;
        static const unsigned char channel[KLAW_REMOTE_ID] = {1}, client[KLAW_REMOTE_ID] = {9};
        klawi_wire_call call = {.kind = (enum klawi_wire_kind)kind,
                                .channel = channel,
                                .boot = kind == KLAWI_WIRE_ATTACH ? 0 : 7,
                                .client = client,
                                .number = 1};
        klawi_out_call(&o, &call);
        if (kind == KLAWI_WIRE_ATTACH)
            klawi_out_raw(&o, attach, sizeof attach);
        else
            klawi_out_raw(&o, push, sizeof push);
        for (int i = 0; kind == KLAWI_WIRE_PUSH && i < 3; i++) {
            klawi_out_u8(&o, flags[i]);
            klawi_out_u8(&o, 0);
            klawi_out_u64(&o, 0);
            klawi_out_var(&o, 0);
            klawi_out_bytes(&o, "x", 1);
        }
        EXPECT(klawi_out_seal(&o));
        EXPECT(klaw_broker_call(d.b, d.now, d.now, o.data, o.size, NULL, 0, &t, NULL) == KLAW_OK);
        klawi_free(o.data);
    }
    EXPECT(d_look().total_sent == 1);
}

#endif
