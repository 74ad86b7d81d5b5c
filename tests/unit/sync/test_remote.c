/* SPDX-License-Identifier: Apache-2.0 */
/* test_remote.c - senders and receivers of a remote channel, over a broker in this process.
 *
 * Tried with these bugs seeded, each of which it catches: a receive that does not acknowledge the one
 * before it; a send that returns before the broker has the item; a withdrawn send that is framed all the
 * same; a grant in `serve` without handing over; unseen items acknowledged at close. */
#include "support/chans.h"
#include "support/loopback.h"

typedef struct far {
    loopback *loop;
    klaw_sender *tx;
    klaw_receiver *rx;
} far;

static far far_open(const klaw_type *type, int64_t capacity, klaw_remote_ack ack) {
    far f = {.loop = loop_open(&(klaw_broker_opts){.capacity = capacity, .ack = ack})};
    loop_join(f.loop, type, ack, &f.tx, NULL);
    loop_join(f.loop, type, ack, NULL, &f.rx);
    return f;
}
static far far_u64(void) {
    return far_open(&klaw_u64, 0, KLAW_REMOTE_ACK_NEXT);
}
static void far_close(far f) {
    klaw_sender_unref(f.tx);
    klaw_receiver_unref(f.rx);
    loop_close(f.loop);
}

/* Fills the channel up; the first number that had no room. Items that somebody has asked for without
 * taking them lie elsewhere. */
static uint64_t fill_up(far f, uint64_t n) {
    while (put(f.tx, n, KLAW_NOWAIT) == KLAW_OK)
        n++;
    return n;
}

/* A send waits, or there was room at the last moment: what was ahead has moved on. */
static bool waits_or_went(far f, op *o) {
    return stats_of((pair){.tx = f.tx}).waiting_senders == 1 || atomic_load(&o->job.done);
}

/* --- sending and receiving --- */
SPEC(remote_elements_arrive_in_order) {
    far f = far_u64();
    for (uint64_t i = 1; i <= 100; i++)
        OK(put(f.tx, i, SOON));
    for (uint64_t i = 1; i <= 100; i++)
        SAME(next_of(f.rx), i);
    far_close(f);
}

SPEC(remote_receive_waits_for_a_send) {
    far f = far_u64();
    op *o = receives(f.rx, SOON);
    UNTIL(stats_of((pair){.rx = f.rx}).waiting_receivers == 1);
    OK(put(f.tx, 7, SOON));
    SAME(op_value(o), 7);
    far_close(f);
}

SPEC(remote_elements_that_nobody_asks_for_any_more_go_to_another_process) {
    far f = far_u64();
    klaw_receiver *other;
    uint64_t v = 0;
    loop_join(f.loop, &klaw_u64, KLAW_REMOTE_ACK_NEXT, NULL, &other);
    GIVES(klaw_recv(f.rx, &v, KLAW_NOWAIT), KLAW_EMPTY); /* asks, and does not wait */
    UNTIL(loop_stats(f.loop).parked > 0);
    OK(put(f.tx, 7, SOON));
    SAME(next_of(other), 7);
    klaw_receiver_unref(other);
    far_close(f);
}

SPEC(remote_send_returns_when_the_broker_has_it) {
    far f = far_u64();
    for (uint64_t i = 1; i <= 5; i++) {
        OK(put(f.tx, i, SOON));
        SAME(loop_stats(f.loop).total_sent, i);
    }
    far_close(f);
}

SPEC(remote_values_of_each_type_come_back) {
    static const int64_t numbers[] = {
        0,      1,      -1,        31,        -32,       -33,       127,
        128,    255,    256,       -128,      -129,      65535,     65536,
        -32768, -32769, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, (int64_t)UINT32_MAX + 1};
    far f = far_open(&klaw_i64, 0, KLAW_REMOTE_ACK_NEXT);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t v = 0;
        OK(klaw_send(f.tx, &numbers[i], SOON));
        OK(klaw_recv(f.rx, &v, SOON));
        SAME(v, numbers[i]);
    }
    far_close(f);
    f = far_open(&klaw_f64, 0, KLAW_REMOTE_ACK_NEXT);
    double d = -0.1, back = 0;
    OK(klaw_send(f.tx, &d, SOON));
    OK(klaw_recv(f.rx, &back, SOON));
    CHECK(memcmp(&d, &back, sizeof d) == 0);
    far_close(f);
    static const klaw_type *const blobs[] = {&klaw_bytes, &klaw_text};
    static const size_t sizes[] = {0, 5, 31, 32, 255, 256, 70000};
    for (size_t t = 0; t < 2; t++) {
        f = far_open(blobs[t], 0, KLAW_REMOTE_ACK_NEXT);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            klaw_blob *b = NULL, *got = NULL;
            OK(klaw_blob_new(NULL, sizes[i], &b));
            memset(klaw_blob_data(b), 'x', sizes[i]);
            klaw_blob_ref(b);
            OK(klaw_send(f.tx, &b, SOON));
            OK(klaw_recv(f.rx, &got, SOON));
            SAME(klaw_blob_size(got), sizes[i]);
            CHECK(memcmp(klaw_blob_data(got), klaw_blob_data(b), sizes[i]) == 0);
            klaw_blob_unref(b);
            klaw_blob_unref(got);
        }
        far_close(f);
    }
}

SPEC(remote_types_meet_halfway) { /* what one side wrote as i64 the other reads as f64, if it can */
    loopback *l = loop_open(NULL);
    klaw_sender *tx;
    klaw_receiver *rx;
    loop_join(l, &klaw_i64, KLAW_REMOTE_ACK_NEXT, &tx, NULL);
    loop_join(l, &klaw_u64, KLAW_REMOTE_ACK_NEXT, NULL, &rx);
    uint64_t v = 0xdead;
    int64_t n = -5;
    OK(klaw_send(tx, &n, SOON));
    n = 5;
    OK(klaw_send(tx, &n, SOON));
    GIVES(klaw_recv(rx, &v, SOON), KLAW_TYPE); /* once, in its place */
    SAME(v, 0xdead);
    OK(klaw_recv(rx, &v, SOON));
    SAME(v, 5);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    loop_close(l);
}

SPEC(remote_batches_are_whole_and_acknowledged_together) {
    far f = far_open(&klaw_u64, 10, KLAW_REMOTE_ACK_NEXT);
    uint64_t v[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    OK(klaw_send_batch(f.tx, v, 10, SOON));
    GIVES(klaw_send_batch(f.tx, v, 11, SOON), KLAW_LIMIT);
    size_t got = 0, total = 0;
    while (total < 10) {
        uint64_t some[20];
        OK(klaw_recv_batch(f.rx, some, 20, &got, SOON));
        for (size_t i = 0; i < got; i++)
            SAME(some[i], ++total);
    }
    CHECK(loop_stats(f.loop).leased >= 1);
    GIVES(klaw_recv_batch(f.rx, v, 20, &got, KLAW_NOWAIT), KLAW_EMPTY);
    UNTIL(loop_stats(f.loop).leased == 0);
    far_close(f);
}

/* --- acknowledging --- */
SPEC(remote_element_is_acknowledged_by_the_next_receive) {
    far f = far_u64();
    OK(put(f.tx, 1, SOON));
    SAME(next_of(f.rx), 1);
    SAME(loop_stats(f.loop).total_received, 0);
    GIVES(nothing_of(f.rx, KLAW_NOWAIT), KLAW_EMPTY);
    UNTIL(loop_stats(f.loop).total_received == 1);
    far_close(f);
}

SPEC(remote_close_acknowledges_what_was_received_and_returns_the_rest) {
    far f = far_u64();
    for (uint64_t i = 1; i <= 5; i++)
        OK(put(f.tx, i, SOON));
    SAME(next_of(f.rx), 1);
    SAME(next_of(f.rx), 2);
    klaw_receiver_unref(f.rx);
    f.rx = NULL;
    UNTIL(loop_stats(f.loop).total_received == 2 && loop_stats(f.loop).leased == 0);
    far_close(f);
}

SPEC(remote_returned_element_comes_again_and_is_marked) {
    far f = far_u64();
    klaw_receiver *other;
    klaw_remote_delivery d;
    loop_join(f.loop, &klaw_u64, KLAW_REMOTE_ACK_NEXT, NULL, &other);
    GIVES(klaw_remote_last(f.rx, &d), KLAW_NOT_FOUND);
    OK(put(f.tx, 9, SOON));
    SAME(next_of(f.rx), 9);
    OK(klaw_remote_last(f.rx, &d));
    CHECK(!d.redelivered && d.seq == 1 && d.sent_at > 0);
    OK(klaw_remote_return(f.rx, d.lease));
    GIVES(klaw_remote_return(f.rx, d.lease), KLAW_NOT_FOUND);
    SAME(next_of(other), 9);
    OK(klaw_remote_last(other, &d));
    CHECK(d.redelivered && d.seq == 1);
    klaw_receiver_unref(other);
    far_close(f);
}

SPEC(remote_explicit_acknowledgements_wait_for_the_consumer) {
    far f = far_open(&klaw_u64, 0, KLAW_REMOTE_ACK_EXPLICIT);
    klaw_remote_delivery first, second;
    OK(put(f.tx, 1, SOON));
    OK(put(f.tx, 2, SOON));
    SAME(next_of(f.rx), 1);
    OK(klaw_remote_last(f.rx, &first));
    SAME(next_of(f.rx), 2);
    OK(klaw_remote_last(f.rx, &second));
    SAME(loop_stats(f.loop).total_received, 0);
    OK(klaw_remote_done(f.rx, first.lease));
    UNTIL(loop_stats(f.loop).total_received == 1);
    OK(klaw_remote_return(f.rx, second.lease));
    SAME(next_of(f.rx), 2);
    OK(klaw_remote_last(f.rx, &second));
    CHECK(second.redelivered);
    OK(klaw_remote_done(f.rx, second.lease));
    UNTIL(loop_stats(f.loop).total_received == 2);
    far_close(f);
}

/* --- no room, no time --- */
SPEC(remote_nowait_send_is_refused_when_the_channel_is_full) {
    far f = far_open(&klaw_u64, 3, KLAW_REMOTE_ACK_NEXT);
    for (uint64_t i = 1; i <= 3; i++)
        OK(put(f.tx, i, KLAW_NOWAIT));
    GIVES(put(f.tx, 4, KLAW_NOWAIT), KLAW_FULL);
    for (uint64_t i = 1; i <= 3; i++)
        SAME(next_of(f.rx), i);
    OK(put(f.tx, 5, SOON));
    SAME(next_of(f.rx), 5);
    far_close(f);
}

SPEC(remote_send_that_times_out_is_not_sent) {
    far f = far_open(&klaw_u64, 2, KLAW_REMOTE_ACK_NEXT);
    OK(put(f.tx, 1, SOON));
    OK(put(f.tx, 2, SOON));
    klaw_err e = put(f.tx, 3, KLAW_WITHIN(KLAW_MS(50)));
    CHECK(e == KLAW_TIMEOUT || e == KLAW_UNCERTAIN);
    SAME(next_of(f.rx), 1);
    SAME(next_of(f.rx), 2);
    OK(put(f.tx, 4, SOON));
    uint64_t v = next_of(f.rx);
    CHECK(v == 4 || (e == KLAW_UNCERTAIN && v == 3));
    GIVES(put(f.tx, 5, PAST), KLAW_TIMEOUT);
    far_close(f);
}

SPEC_FIBERS(remote_cancelled_waits_end) {
    far f = far_open(&klaw_u64, 1, KLAW_REMOTE_ACK_NEXT);
    op *r = receives(f.rx, KLAW_FOREVER);
    UNTIL(stats_of((pair){.rx = f.rx}).waiting_receivers == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    uint64_t n = fill_up(f, 1);
    CHECK(n <= 6); /* the receive that left had asked: a few may be on their way here */
    op *s = sends(f.tx, n, KLAW_FOREVER);
    UNTIL(waits_or_went(f, s));
    op_cancel(s);
    klaw_err e = op_end(s);
    CHECK(e == KLAW_CANCELLED || e == KLAW_UNCERTAIN || e == KLAW_OK);
    SAME(next_of(f.rx), 1);
    far_close(f);
}

/* --- closing --- */
SPEC(remote_receivers_drain_and_then_learn_of_the_end) {
    far f = far_u64();
    klaw_sender *more;
    OK(klaw_sender_clone(f.tx, &more));
    OK(put(f.tx, 1, SOON));
    klaw_sender_unref(f.tx);
    OK(put(more, 2, SOON));
    SAME(next_of(f.rx), 1);
    op *o = NULL;
    SAME(next_of(f.rx), 2);
    o = receives(f.rx, SOON);
    UNTIL(stats_of((pair){.rx = f.rx}).waiting_receivers == 1);
    klaw_sender_unref(more);
    GIVES(op_end(o), KLAW_CLOSED);
    GIVES(nothing_of(f.rx, SOON), KLAW_CLOSED);
    f.tx = NULL;
    far_close(f);
}

SPEC(remote_senders_learn_that_nobody_receives) {
    far f = far_open(&klaw_u64, 1, KLAW_REMOTE_ACK_NEXT);
    OK(put(f.tx, 1, SOON));
    op *o = sends(f.tx, 2, SOON);
    UNTIL(waits_or_went(f, o));
    klaw_receiver_unref(f.rx);
    f.rx = NULL;
    klaw_err e = op_end(o);
    CHECK(e == KLAW_CLOSED || e == KLAW_UNCERTAIN || e == KLAW_OK);
    GIVES(put(f.tx, 3, SOON), KLAW_CLOSED);
    far_close(f);
}

SPEC(remote_sender_that_closes_at_once_has_been_there) {
    for (int i = 0; i < 5; i++) {
        loopback *l = loop_open(NULL);
        klaw_sender *tx;
        klaw_receiver *rx;
        loop_join(l, &klaw_u64, KLAW_REMOTE_ACK_NEXT, NULL, &rx);
        loop_join(l, &klaw_u64, KLAW_REMOTE_ACK_NEXT, &tx, NULL);
        klaw_sender_unref(tx);
        GIVES(nothing_of(rx, SOON), KLAW_CLOSED);
        klaw_receiver_unref(rx);
        loop_close(l);
    }
}

SPEC(remote_closing_a_handle_ends_its_waits) {
    far f = far_open(&klaw_u64, 1, KLAW_REMOTE_ACK_NEXT);
    klaw_sender *tx;
    klaw_receiver *rx;
    OK(klaw_sender_clone(f.tx, &tx));
    OK(klaw_receiver_clone(f.rx, &rx));
    op *o = receives(rx, SOON);
    UNTIL(stats_of((pair){.rx = f.rx}).waiting_receivers == 1);
    klaw_receiver_close(rx);
    GIVES(op_end(o), KLAW_CLOSED);
    o = sends(tx, fill_up(f, 1), SOON);
    UNTIL(waits_or_went(f, o));
    klaw_sender_close(tx);
    klaw_err e = op_end(o);
    CHECK(e != KLAW_TIMEOUT &&
          e != KLAW_CANCELLED); /* there may have been room at the last moment */
    GIVES(put(tx, 3, SOON), KLAW_CLOSED);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    far_close(f);
}

SPEC(remote_deleted_channel_is_closed_for_everyone) {
    far f = far_u64();
    op *o = receives(f.rx, SOON);
    UNTIL(stats_of((pair){.rx = f.rx}).waiting_receivers == 1);
    pthread_mutex_lock(&f.loop->mutex);
    klaw_broker_delete(f.loop->broker, klaw_now());
    loop_answers(f.loop);
    pthread_mutex_unlock(&f.loop->mutex);
    GIVES(op_end(o), KLAW_CLOSED);
    GIVES(put(f.tx, 1, SOON), KLAW_CLOSED);
    far_close(f);
}

/* --- select, foreign loops --- */
SPEC(remote_receive_stands_in_a_select) {
    far f = far_u64();
    pair near = chan(4);
    uint64_t v = 0, w = 0;
    size_t chosen = 9;
    klaw_case cases[] = {{.kind = KLAW_CASE_RECV, .rx = f.rx, .elem = &v},
                         {.kind = KLAW_CASE_RECV, .rx = near.rx, .elem = &w}};
    OK(put(near.tx, 3, SOON));
    OK(klaw_select(cases, 2, &chosen, SOON));
    SAME(chosen, 1);
    OK(put(f.tx, 4, SOON));
    OK(klaw_select(cases, 2, &chosen, SOON));
    SAME(chosen, 0);
    OK(cases[0].err);
    SAME(v, 4);
    GIVES(klaw_select(cases, 2, &chosen, KLAW_WITHIN(KLAW_MS(5))), KLAW_TIMEOUT);
    klaw_case send = {.kind = KLAW_CASE_SEND, .tx = f.tx, .elem = &v};
    GIVES(klaw_select(&send, 1, &chosen, SOON), KLAW_TYPE);
    pair_free(near);
    far_close(f);
}

static void told(klaw_op *o, void *user) {
    (void)o;
    ++*(int *)user;
}

SPEC_PLAIN(remote_receive_serves_foreign_loops) {
    far f = far_u64();
    klaw_inbox *in;
    klaw_op o;
    bool waiting = false;
    int calls = 0;
    uint64_t v = 0;
    OK(klaw_inbox_open(&in));
    klaw_op_init(&o, in, told, &calls);
    GIVES(klaw_op_send(&o, f.tx, &waiting), KLAW_TYPE);
    OK(klaw_op_recv(&o, f.rx, &waiting));
    CHECK(waiting);
    OK(put(f.tx, 5, SOON));
    UNTIL(klaw_inbox_pump(in, 0) == 1);
    SAME(calls, 1);
    OK(klaw_op_finish(&o, &v));
    SAME(v, 5);
    OK(put(f.tx, 6, SOON));
    OK(klaw_op_recv(&o, f.rx, &waiting));
    if (waiting)
        UNTIL(klaw_inbox_pump(in, 0) == 1);
    klaw_op_cancel(&o); /* the permit goes back: nothing is lost */
    SAME(next_of(f.rx), 6);
    klaw_inbox_unref(in);
    far_close(f);
}

/* --- a bad wire --- */
SPEC(remote_nothing_is_lost_or_doubled_by_a_bad_wire) {
    far f = far_u64();
    f.loop->lose_answer_every = 5;
    f.loop->lose_call_every = 7;
    op *s = sends_batch(f.tx, 0, 1, SOON);
    OK(op_end(s));
    SAME(next_of(f.rx), 0);
    for (uint64_t i = 1; i <= 60; i++) {
        OK(put(f.tx, i, SOON));
        if (i % 3 == 0)
            for (uint64_t k = i - 2; k <= i; k++)
                SAME(next_of(f.rx), k);
    }
    SAME(loop_stats(f.loop).total_sent, 61);
    far_close(f);
}

SPEC(remote_dead_broker_is_a_backend_error_that_says_why) {
    far f = far_u64();
    klaw_error_info info;
    OK(put(f.tx, 1, SOON));
    SAME(next_of(f.rx), 1);
    f.loop->dead = true;
    klaw_err e = put(f.tx, 2, SOON);
    CHECK(e == KLAW_UNCERTAIN || e == KLAW_BACKEND); /* it may have left before */
    GIVES(put(f.tx, 3, SOON), KLAW_BACKEND);
    OK(klaw_remote_sender_trouble(f.tx, &info));
    CHECK(strstr(info.message, "the broker has died") != NULL);
    CHECK(strcmp(info.actor_name, "loop") == 0);
    far_close(f);
}

/* --- many --- */
typedef struct crew {
    far *f;
    uint64_t n, base;
    _Atomic uint64_t count, sum;
} crew;

static klaw_err crew_sends(void *arg) {
    crew *c = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= c->n; i++)
        e = put(c->f->tx, i, SOON);
    return e;
}
static klaw_err crew_receives(void *arg) {
    crew *c = arg;
    klaw_receiver *rx;
    uint64_t v;
    klaw_err e = klaw_receiver_clone(c->f->rx, &rx);
    while (!e && (e = klaw_recv(rx, &v, SOON)) == KLAW_OK) {
        c->count++;
        c->sum += v;
    }
    klaw_receiver_unref(rx);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

SPEC(remote_many_hosts_share_one_hub) {
    far f = far_open(&klaw_u64, 16, KLAW_REMOTE_ACK_NEXT);
    crew c = {.f = &f, .n = 50};
    job *senders[6], *receivers[6];
    for (int i = 0; i < 6; i++)
        receivers[i] = start(crew_receives, &c);
    for (int i = 0; i < 6; i++)
        senders[i] = start(crew_sends, &c);
    for (int i = 0; i < 6; i++)
        OK(ended(senders[i]));
    klaw_sender_unref(f.tx);
    f.tx = NULL;
    for (int i = 0; i < 6; i++)
        OK(ended(receivers[i]));
    SAME(c.count, 300);
    SAME(c.sum, 6 * 50 * 51 / 2);
    UNTIL(loop_stats(f.loop).total_received == 300);
    far_close(f);
}

/* --- asking for nonsense --- */
SPEC_PLAIN(remote_open_refuses_bad_arguments) {
    loopback *l = loop_open(NULL);
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_transport_opts o = {0};
    klaw_transport half = {.call = loop_carry};
    GIVES(klaw_remote_open(&klaw_u64, &loop_transport, l, &o, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_remote_open(&klaw_u64, NULL, l, &o, &tx, &rx), KLAW_INVALID);
    GIVES(klaw_remote_open(&klaw_u64, &half, l, &o, &tx, &rx), KLAW_INVALID);
    GIVES(klaw_remote_open(&klaw_ptr, &loop_transport, l, &o, &tx, &rx), KLAW_TYPE);
    o.hub.kind = KLAW_REMOTE_BROADCAST;
    GIVES(klaw_remote_open(&klaw_u64, &loop_transport, l, &o, &tx, &rx), KLAW_INVALID);
    CHECK(!tx && !rx);
    pair near = chan(1);
    klaw_remote_delivery d;
    klaw_error_info info;
    GIVES(klaw_remote_last(near.rx, &d), KLAW_INVALID);
    GIVES(klaw_remote_done(near.rx, 1), KLAW_INVALID);
    GIVES(klaw_remote_sender_trouble(near.tx, &info), KLAW_INVALID);
    pair_free(near);
    loop_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remote_elements_arrive_in_order),
        cmocka_unit_test(remote_elements_that_nobody_asks_for_any_more_go_to_another_process),
        cmocka_unit_test(remote_receive_waits_for_a_send),
        cmocka_unit_test(remote_send_returns_when_the_broker_has_it),
        cmocka_unit_test(remote_values_of_each_type_come_back),
        cmocka_unit_test(remote_types_meet_halfway),
        cmocka_unit_test(remote_batches_are_whole_and_acknowledged_together),
        cmocka_unit_test(remote_element_is_acknowledged_by_the_next_receive),
        cmocka_unit_test(remote_close_acknowledges_what_was_received_and_returns_the_rest),
        cmocka_unit_test(remote_returned_element_comes_again_and_is_marked),
        cmocka_unit_test(remote_explicit_acknowledgements_wait_for_the_consumer),
        cmocka_unit_test(remote_nowait_send_is_refused_when_the_channel_is_full),
        cmocka_unit_test(remote_send_that_times_out_is_not_sent),
        cmocka_unit_test(remote_cancelled_waits_end),
        cmocka_unit_test(remote_receivers_drain_and_then_learn_of_the_end),
        cmocka_unit_test(remote_senders_learn_that_nobody_receives),
        cmocka_unit_test(remote_sender_that_closes_at_once_has_been_there),
        cmocka_unit_test(remote_closing_a_handle_ends_its_waits),
        cmocka_unit_test(remote_deleted_channel_is_closed_for_everyone),
        cmocka_unit_test(remote_receive_stands_in_a_select),
        cmocka_unit_test(remote_receive_serves_foreign_loops),
        cmocka_unit_test(remote_nothing_is_lost_or_doubled_by_a_bad_wire),
        cmocka_unit_test(remote_dead_broker_is_a_backend_error_that_says_why),
        cmocka_unit_test(remote_many_hosts_share_one_hub),
        cmocka_unit_test(remote_open_refuses_bad_arguments),
    };
    return cmocka_run_group_tests_name("remote", tests, NULL, NULL);
}
