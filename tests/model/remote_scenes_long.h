/* SPDX-License-Identifier: Apache-2.0 */
/* remote_scenes_long.h - scenes of what lasts long: items that are kept, waits that are given up, clients
 * that come and go, logs. */
#ifndef KLAW_TESTS_MODEL_REMOTE_SCENES_LONG_H
#define KLAW_TESTS_MODEL_REMOTE_SCENES_LONG_H

#include "model/remote_scenes_recv.h"
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

/* More than a transaction holds, in batches and single items, is there after each number of parts. */
static void w28_much_is_written_in_parts(void) {
    klaw_broker_opts o = {.channel = {1}, .boot = 2, .durable = true, .restarted = true};
    void *data[100];
    size_t size[100], n = 0;
    uint64_t mark = 0, last = 0;
    klaw_broker *copy;
    klaw_broker_stats s;
    B(.durable = true);
    H(0, 0);
    uint64_t tx = d_open(0, KLAW_REMOTE_SENDER);
    klaw_remote_item batch[4];
    for (int k = 0; k < 4; k++)
        batch[k] = (klaw_remote_item){.data = "B", .size = 1};
    (void)d_commit(NULL);
    d_wait(50 * MS);
    for (int k = 0; k < 10; k++) {
        EXPECT(d_send(0, tx, 'a', 0) == KLAW_OK);
        EXPECT(klaw_hub_send(d.h[0], d.now, tx, batch, 4, true, 1000 + (uint64_t)k) == KLAW_OK);
    }
    d_pump(); /* some go */
    for (int k = 0; k < 20; k++)
        EXPECT(klaw_broker_put(d.b, d.now, d.now, batch, 4) == KLAW_OK);
    uint64_t queued = d_look().queued;
    EXPECT(d.sent == 0 && queued > 80);
    while (klaw_broker_journal(d.b, &data[n], &size[n], &mark)) {
        EXPECT(n < 99 && size[n] <= KLAWI_JOURNAL_PART + 16);
        if (n)
            klaw_broker_committed(d.b, last);
        d_pump();
        EXPECT(d.sent == 0); /* not before the last one */
        last = mark;
        n++;
    }
    EXPECT(n > 3);
    klaw_broker_committed(d.b, last);
    d_pump();
    EXPECT(d.sent > 0);
    for (size_t k = 1; k <= n; k++) {
        EXPECT(klaw_broker_new(&o, &copy) == KLAW_OK);
        for (size_t i = 0; i < k; i++)
            EXPECT(klaw_broker_replay(copy, data[i], size[i]) == KLAW_OK);
        klaw_remote_item i;
        void *cursor = NULL;
        int of_batch[2] = {0};
        unsigned char from;
        while (klaw_broker_peek(copy, &cursor, &i) == KLAW_OK) {
            from = i.client[0];
            of_batch[from != 0] += *(const char *)i.data == 'B';
            klaw_remote_free((void *)(uintptr_t)i.data);
        }
        EXPECT(of_batch[0] % 4 == 0 && of_batch[1] % 4 == 0);
        klaw_broker_look(copy, d.now, &s);
        EXPECT(k < n || s.queued == queued);
        klaw_broker_free(copy);
    }
    for (size_t k = 0; k < n; k++)
        klaw_remote_free(data[k]);
}
static void w28_too_much_is_refused(void) {
    char big[KLAWI_DURABLE_MAX] = {0};
    klaw_remote_item i = {.data = big, .size = sizeof big}, half[2];
    half[0] = half[1] = (klaw_remote_item){.data = big, .size = sizeof big / 2};
    B(.durable = true);
    H(0, 0);
    uint64_t tx;
    EXPECT(klaw_hub_open(d.h[0], d.now, KLAW_REMOTE_SENDER, NULL, &tx) == KLAW_OK);
    EXPECT(klaw_hub_send(d.h[0], d.now, tx, &i, 1, false, ++d.tickets) == KLAW_OK);
    for (int k = 0; k < 20; k++) {
        d_wait(10 * MS);
        (void)d_commit(NULL);
    }
    EXPECT(d.refused == 1 && d_look().total_sent == 0); /* it did not know */
    EXPECT(klaw_hub_send(d.h[0], d.now, tx, &i, 1, false, ++d.tickets) == KLAW_LIMIT);
    EXPECT(klaw_hub_send(d.h[0], d.now, tx, half, 2, true, ++d.tickets) == KLAW_LIMIT);
    EXPECT(klaw_hub_send(d.h[0], d.now, tx, half, 2, false, ++d.tickets) == KLAW_OK);
    EXPECT(klaw_broker_put(d.b, d.now, d.now, &i, 1) == KLAW_LIMIT);
    EXPECT(klaw_broker_put(d.b, d.now, d.now, half, 2) == KLAW_LIMIT);
}
/* A snapshot in which all but the first of very many numbers are finished. */
static void w28_one_item_may_be_held_up_for_long(void) {
    const uint64_t next = UINT64_C(100) << 20;
    for (int damaged = 0; damaged < 2; damaged++) {
        klaw_broker_opts o = {.channel = {1}, .boot = 2, .durable = true, .restarted = true};
        klaw_broker *copy;
        klawi_out out = {0};
        klawi_range all = {2, damaged ? next - 1000 : next - 1};
        klawi_ranges finished = {&all, 1, 1}, none = {0};
        klawi_wire_item i = {.data = (const unsigned char *)"a", .size = 1};
        unsigned char client[KLAW_REMOTE_ID] = {7}, body[64];
        klawi_out item = {body, 0, sizeof body, false};
        klawi_out_u8(&out, KLAW_REMOTE_VERSION);
        klawi_out_raw(&out, o.channel, KLAW_REMOTE_ID);
        klawi_out_u8(&out, KLAW_REMOTE_QUEUE);
        klawi_out_u8(&out, 1); /* whose */
        klawi_out_raw(&out, client, sizeof client);
        klawi_out_u8(&out, 2); /* where it stands */
        klawi_out_var(&out, next);
        klawi_out_var(&out, 0);
        klawi_out_ranges(&out, &finished);
        klawi_out_ranges(&out, &none);
        klawi_out_u8(&out, 3); /* the first item */
        klawi_out_var(&out, 1);
        klawi_out_u8(&out, 0);
        klawi_out_item(&item, &i);
        klawi_out_bytes(&out, item.data, item.size);
        EXPECT(klawi_out_seal(&out) && klaw_broker_new(&o, &copy) == KLAW_OK);
        klaw_err e = klaw_broker_restore(copy, out.data, out.size);
        klaw_broker_stats s;
        klaw_broker_look(copy, d.now, &s);
        klaw_broker_free(copy);
        klaw_remote_free(out.data);
        EXPECT(damaged ? e == KLAW_CORRUPT : e == KLAW_OK && s.queued == 1);
    }
    B(0);
}

#endif
