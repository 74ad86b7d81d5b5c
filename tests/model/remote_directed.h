/* SPDX-License-Identifier: Apache-2.0 */
/* remote_directed.h - short scenes, each for one rule of docs/ray-protocol.md that random histories
 * seldom show: hubs and a broker over a network that does what the scene says. */
#ifndef KLAW_TESTS_MODEL_REMOTE_DIRECTED_H
#define KLAW_TESTS_MODEL_REMOTE_DIRECTED_H

#include "model/remote_world.h"

static struct scene {
    klaw_broker *b;
    klaw_hub *h[4];
    unsigned char client[4][KLAW_REMOTE_ID];
    bool cut[4]; /* its calls go nowhere */
    int64_t now;
    struct {
        int hub;
        uint64_t ticket, id;
    } call[512];
    int calls;
    uint64_t tickets;
    int sent, refused, unsent, uncertain;
} d;

static void d_start(klaw_broker_opts o) {
    memset(&d, 0, sizeof d);
    d.now = SECOND;
    o.channel[0] = 1;
    o.boot = o.boot ? o.boot : 1;
    EXPECT(klaw_broker_new(&o, &d.b) == KLAW_OK);
}
static void d_hub(int i, klaw_hub_opts o) {
    if (!o.channel[0])
        o.channel[0] = 1;
    o.client[0] = (unsigned char)(i + 1);
    memcpy(d.client[i], o.client, KLAW_REMOTE_ID);
    EXPECT(klaw_hub_new(&o, &d.h[i]) == KLAW_OK);
}
static void d_end(void) {
    for (int i = 0; i < 4; i++)
        klaw_hub_free(d.h[i]);
    klaw_broker_free(d.b);
    memset(&d, 0, sizeof d);
}
static void d_answers(void) {
    for (klaw_broker_answer a; klaw_broker_next(d.b, &a);) {
        int i = 0;
        while (i < d.calls && d.call[i].ticket != a.ticket)
            i++;
        EXPECT(i < d.calls);
        klaw_hub *h = d.h[d.call[i].hub];
        if (h && !d.cut[d.call[i].hub])
            EXPECT(klaw_hub_reply(h, d.now, d.call[i].id, a.data, a.size, a.attachments,
                                  a.attached) == KLAW_OK);
        d.call[i] = d.call[--d.calls];
        klaw_remote_free(a.data);
        klaw_remote_free(a.attachments);
    }
}
static void d_call(int hub, const klaw_hub_call *c) {
    uint64_t t;
    EXPECT(klaw_broker_call(d.b, d.now, d.now, c->data, c->size, NULL, 0, &t, NULL) == KLAW_OK);
    EXPECT(d.calls < 512);
    d.call[d.calls].hub = hub;
    d.call[d.calls].ticket = t;
    d.call[d.calls++].id = c->id;
}
static void d_pump(void) {
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 4; i++) {
            klaw_hub_call c;
            for (int n = 0; d.h[i] && !d.cut[i] && n < 20 && klaw_hub_next_call(d.h[i], d.now, &c);
                 n++) {
                d_call(i, &c);
                klaw_remote_free(c.data);
            }
            klaw_hub_event e;
            while (d.h[i] && klaw_hub_next_event(d.h[i], &e)) {
                d.sent += e.kind == KLAW_HUB_SENT;
                d.refused += e.kind == KLAW_HUB_REFUSED;
                d.unsent += e.kind == KLAW_HUB_UNSENT;
                d.uncertain += e.kind == KLAW_HUB_UNCERTAIN;
            }
        }
        d_answers();
    }
}
static void d_wait(int64_t ns) {
    for (int64_t until = d.now + ns; d.now < until;) {
        d.now += ns > SECOND ? 50 * MS : 5 * MS;
        for (int i = 0; i < 4; i++)
            if (d.h[i])
                klaw_hub_tick(d.h[i], d.now);
        klaw_broker_tick(d.b, d.now, d.now);
        d_pump();
    }
}
static uint64_t d_open(int hub, klaw_remote_side side) {
    uint64_t id;
    EXPECT(klaw_hub_open(d.h[hub], d.now, side, NULL, &id) == KLAW_OK);
    d_pump();
    return id;
}
static klaw_err d_send(int hub, uint64_t tx, char c, uint32_t flags) {
    klaw_remote_item i = {.data = &c, .size = 1, .flags = flags};
    return klaw_hub_send(d.h[hub], d.now, tx, &i, 1, false, ++d.tickets);
}
/* Takes all there is into a text, a capital letter for what is marked; acks unless held. */
static const char *d_take(int hub, uint64_t rx, bool ack) {
    static char text[64];
    size_t n = 0;
    klaw_remote_item i;
    d_pump();
    while (n < 60 && klaw_hub_take(d.h[hub], d.now, d.now, rx, &i, NULL) == KLAW_OK) {
        text[n++] = (char)(*(const char *)i.data - (i.flags & KLAW_REMOTE_REDELIVERED ? 32 : 0));
        klaw_remote_free((void *)(uintptr_t)i.data);
        if (ack)
            (void)klaw_hub_ack(d.h[hub], d.now, rx, i.lease);
        d_pump();
    }
    text[n] = '\0';
    return text;
}
static klaw_broker_stats d_look(void) {
    klaw_broker_stats s;
    klaw_broker_look(d.b, d.now, &s);
    return s;
}
#define TEXT(got, want)                                            \
    do {                                                           \
        const char *text_ = (got);                                 \
        if (strcmp(text_, want) != 0)                              \
            DIFFERS("received '%s' instead of '%s'", text_, want); \
    } while (0)
#define B(...) d_start((klaw_broker_opts){__VA_ARGS__})
#define H(i, ...) d_hub(i, (klaw_hub_opts){__VA_ARGS__})

/* A second boot takes the first one's place. */
static void d_restart(klaw_broker_opts o) {
    klaw_broker_free(d.b);
    d.calls = 0;
    o.channel[0] = 1;
    o.boot = 2;
    o.restarted = true;
    EXPECT(klaw_broker_new(&o, &d.b) == KLAW_OK);
    for (int i = 0; i < 4; i++)
        for (uint64_t id = 1; d.h[i] && id < 2000; id++)
            klaw_hub_failed(d.h[i], d.now, id, false, "");
}
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
    H(0, .retain_bytes = 10);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    int n = 0;
    while (n < 50 && d_send(0, tx, 'x', 0) == KLAW_OK)
        n++;
    EXPECT(n == 10);
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

static const struct {
    const char *name;
    void (*run)(void);
} scenes[] = {
#define SCENE(name) \
    { #name, name }
    SCENE(w3_deadline),
    SCENE(w12_batch_is_not_overtaken),
    SCENE(w12_large_batch_gets_in),
    SCENE(w12_late_ones_get_more_time),
    SCENE(w21_back_in_order_of_two),
    SCENE(w28_restored),
    SCENE(w28_failed_disk_is_told),
    SCENE(w28_before_is_written_first),
    SCENE(w2_foreign_channel),
    SCENE(w5_other_type),
    SCENE(w6_close_comes_last),
    SCENE(w7_tokens_count),
    SCENE(w7_token_lives_as_its_minter),
    SCENE(w7_claimed_tokens_are_not_stated_to_a_new_boot),
    SCENE(w10_early_frame_waits),
    SCENE(w12_in_turn),
    SCENE(w13_nowait),
    SCENE(w14_withdrawn),
    SCENE(w15_retains),
    SCENE(w16_acks_are_told),
    SCENE(w18_unused_go_back),
    SCENE(w18_idle_gives_back),
    SCENE(w19_few_are_parked),
    SCENE(w20_before),
    SCENE(w20_before_is_not_resent),
    SCENE(w21_back_in_order),
    SCENE(w21_back_takes_no_room),
    SCENE(w24_lease_is_learnt),
    SCENE(w25_remembered),
    SCENE(w27_not_again),
    SCENE(w27_lost_is_told),
    SCENE(w28_nothing_before_the_disk),
    SCENE(w29_deleted),
    SCENE(w29_deleted_while_the_disk_writes),
    SCENE(w30_detach_comes_last),
};
#define SCENES (sizeof scenes / sizeof *scenes)

#endif
