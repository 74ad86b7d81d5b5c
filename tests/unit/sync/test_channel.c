/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel.c - the many-to-many channel: making, sending, receiving, capacity, order,
 * deadlines, cloning, statistics.
 *
 * Tried with these bugs seeded into mpmc.c, each of which it catches: the hand-over to a waiting
 * receiver left out, hand-overs not counted, room compared with <= instead of <. */
#include "support/chans.h"

/* --- making --- */
SPEC_PLAIN(channel_refuses_bad_arguments) {
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_channel_opts o = {0};
    klaw_type t = klaw_u64;
    GIVES(klaw_channel(NULL, NULL, &tx, &rx), KLAW_INVALID);
    GIVES(klaw_channel(&klaw_u64, NULL, NULL, &rx), KLAW_INVALID);
    GIVES(klaw_channel(&klaw_u64, NULL, &tx, NULL), KLAW_INVALID);
    t.size = 0;
    GIVES(klaw_channel(&t, NULL, &tx, &rx), KLAW_INVALID);
    t.size = KLAW_ELEM_MAX + 1;
    GIVES(klaw_channel(&t, NULL, &tx, &rx), KLAW_LIMIT);
    o.capacity = -3;
    GIVES(klaw_channel(&klaw_u64, &o, &tx, &rx), KLAW_INVALID);
    o.capacity = INT64_MIN;
    GIVES(klaw_channel(&klaw_u64, &o, &tx, &rx), KLAW_INVALID);
    o.capacity = KLAW_CAPACITY_MAX + 1;
    GIVES(klaw_channel(&klaw_u64, &o, &tx, &rx), KLAW_LIMIT);
    o.one_to_one = true;
    o.capacity = KLAW_RENDEZVOUS;
    GIVES(klaw_channel(&klaw_u64, &o, &tx, &rx), KLAW_INVALID);
    o.capacity = KLAW_UNBOUNDED;
    GIVES(klaw_channel(&klaw_u64, &o, &tx, &rx), KLAW_INVALID);
    CHECK(!tx && !rx);
}

SPEC_PLAIN(channel_takes_its_limits) {
    klaw_type t = {.name = "large", .size = KLAW_ELEM_MAX};
    static char one[KLAW_ELEM_MAX], two[KLAW_ELEM_MAX];
    pair p = chan_of(&t, KLAW_CAPACITY_MAX);
    SAME(stats_of(p).capacity, KLAW_CAPACITY_MAX);
    memset(one, 7, sizeof one);
    OK(klaw_send(p.tx, one, KLAW_NOWAIT));
    OK(klaw_recv(p.rx, two, KLAW_NOWAIT));
    CHECK(memcmp(one, two, sizeof one) == 0);
    pair_free(p);
}

SPEC_PLAIN(channel_options_may_be_left_out) {
    pair p = {NULL, NULL};
    OK(klaw_channel(&klaw_u64, NULL, &p.tx, &p.rx));
    klaw_channel_stats s = stats_of(p);
    SAME(s.capacity, KLAW_CAPACITY_DEFAULT);
    CHECK(strcmp(s.name, "channel") == 0);
    CHECK(strcmp(s.kind, "mpmc") == 0);
    CHECK(klaw_sender_type(p.tx) == &klaw_u64 && klaw_receiver_type(p.rx) == &klaw_u64);
    pair_free(p);
}

SPEC_PLAIN(channel_takes_options_of_an_older_and_of_a_newer_program) {
    struct {
        klaw_channel_opts now;
        char later[64];
    } newer;
    pair p;
    memset(&newer, 0xff, sizeof newer);
    newer.now = klaw_channel_opts_default();
    newer.now.capacity = 5;
    OK(klaw_channel_sized(&klaw_u64, &newer.now, sizeof newer, &p.tx, &p.rx));
    SAME(stats_of(p).capacity, 5);
    pair_free(p);
    newer.now.name = "not looked at";
    OK(klaw_channel_sized(&klaw_u64, &newer.now, sizeof newer.now.capacity, &p.tx, &p.rx));
    SAME(stats_of(p).capacity, 5);
    CHECK(strcmp(stats_of(p).name, "channel") == 0);
    pair_free(p);
}

SPEC_PLAIN(channel_name_is_copied_and_cut) {
    char name[64];
    klaw_channel_opts o = {.name = name};
    pair p;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    OK(klaw_channel(&klaw_u64, &o, &p.tx, &p.rx));
    name[0] = 'x';
    klaw_channel_stats s = stats_of(p);
    SAME(strlen(s.name), 31);
    CHECK(s.name[0] == 'n');
    pair_free(p);
}

SPEC_PLAIN(channel_calls_refuse_null) {
    pair p = chan(4);
    uint64_t v = 1;
    size_t got = 9;
    klaw_channel_stats s;
    GIVES(klaw_send(NULL, &v, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_send(p.tx, NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv(NULL, &v, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv(p.rx, NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_send_batch(NULL, &v, 1, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_send_batch(p.tx, NULL, 1, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv_batch(NULL, &v, 1, &got, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv_batch(p.rx, NULL, 1, &got, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv_batch(p.rx, &v, 1, NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_reserve(p.tx, NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_sender_clone(NULL, &p.tx), KLAW_INVALID);
    GIVES(klaw_sender_clone(p.tx, NULL), KLAW_INVALID);
    GIVES(klaw_receiver_clone(NULL, &p.rx), KLAW_INVALID);
    GIVES(klaw_receiver_clone(p.rx, NULL), KLAW_INVALID);
    GIVES(klaw_sender_stats(NULL, &s), KLAW_INVALID);
    GIVES(klaw_sender_stats(p.tx, NULL), KLAW_INVALID);
    GIVES(klaw_receiver_stats(NULL, &s), KLAW_INVALID);
    GIVES(klaw_receiver_stats(p.rx, NULL), KLAW_INVALID);
    klaw_sender_close(NULL);
    klaw_receiver_close(NULL);
    klaw_sender_unref(NULL);
    klaw_receiver_unref(NULL);
    SAME(klaw_receiver_missed(p.rx), 0);
    pair_free(p);
}

/* --- moving --- */
SPEC(channel_gives_what_was_sent_in_its_order) {
    pair p = chan(100);
    for (uint64_t i = 0; i < 100; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 100; i++)
        SAME(next_of(p.rx), i);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC(channel_never_holds_more_than_its_capacity) {
    for (int64_t cap = 1; cap <= 70; cap = cap * 2 + 1) {
        pair p = chan(cap);
        for (int64_t i = 0; i < cap; i++)
            OK(put(p.tx, (uint64_t)i, KLAW_NOWAIT));
        GIVES(put(p.tx, 99, KLAW_NOWAIT), KLAW_FULL);
        SAME(stats_of(p).queue_size, cap);
        SAME(next_of(p.rx), 0);
        OK(put(p.tx, 99, KLAW_NOWAIT));
        GIVES(put(p.tx, 99, KLAW_NOWAIT), KLAW_FULL);
        pair_free(p);
    }
}

SPEC(channel_wraps_around_many_times) {
    pair p = chan(7);
    uint64_t in = 0, out = 0;
    for (int i = 0; i < 1000; i++) {
        while (put(p.tx, in, KLAW_NOWAIT) == KLAW_OK)
            in++;
        for (int k = 0; k <= i % 7; k++)
            SAME(next_of(p.rx), out++);
    }
    pair_free(p);
}

SPEC(channel_keeps_elements_of_any_size_whole) {
    static const size_t sizes[] = {1, 2, 3, 4, 7, 8, 9, 16, 24, 33, 100, 4097};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        klaw_type t = {.name = "bytes", .size = sizes[k]};
        unsigned char in[4100], out[4100];
        pair p = chan_of(&t, 40);
        for (int i = 0; i < 40; i++) {
            memset(in, i, sizeof in);
            OK(klaw_send(p.tx, in, KLAW_NOWAIT));
        }
        for (int i = 0; i < 40; i++) {
            memset(in, i, sizeof in);
            memset(out, 0xee, sizeof out);
            OK(klaw_recv(p.rx, out, KLAW_NOWAIT));
            CHECK(memcmp(in, out, t.size) == 0);
            CHECK(out[t.size] == 0xee); /* nor more than that */
        }
        pair_free(p);
    }
}

SPEC(channel_receive_waits_for_a_send) {
    pair p = chan(2);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 41, KLAW_NOWAIT));
    SAME(op_value(r), 41);
    SAME(stats_of(p).queue_size, 0);
    pair_free(p);
}

SPEC(channel_send_waits_for_room) {
    pair p = chan(2);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT));
    op *s = sends(p.tx, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    SAME(next_of(p.rx), 1);
    OK(op_end(s));
    SAME(next_of(p.rx), 2);
    SAME(next_of(p.rx), 3);
    pair_free(p);
}

SPEC(channel_serves_waiting_receivers_in_their_order) {
    pair p = chan(4);
    op *r[5];
    for (uint64_t i = 0; i < 5; i++) {
        r[i] = receives(p.rx, KLAW_FOREVER);
        UNTIL(WAITING_RECEIVERS(p) == i + 1);
    }
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 5; i++)
        SAME(op_value(r[i]), i);
    pair_free(p);
}

SPEC(channel_serves_waiting_senders_in_their_order) {
    pair p = chan(1);
    op *s[5];
    OK(put(p.tx, 99, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 5; i++) {
        s[i] = sends(p.tx, i, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) == i + 1);
    }
    SAME(next_of(p.rx), 99);
    for (uint64_t i = 0; i < 5; i++)
        SAME(next_of(p.rx), i);
    for (uint64_t i = 0; i < 5; i++)
        OK(op_end(s[i]));
    pair_free(p);
}

/* --- deadlines --- */
SPEC(channel_codes_tell_nowait_from_a_passed_deadline) {
    pair p = chan(1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(nothing_of(p.rx, PAST), KLAW_TIMEOUT);
    GIVES(nothing_of(p.rx, klaw_now() - 1), KLAW_TIMEOUT);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_FULL);
    GIVES(put(p.tx, 2, PAST), KLAW_TIMEOUT);
    OK(put(p.tx, 0, PAST) == KLAW_TIMEOUT ? KLAW_OK : KLAW_INVALID);
    SAME(next_of(p.rx), 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC(channel_does_what_needs_no_waiting_whatever_the_deadline) {
    static const klaw_deadline all[] = {PAST, KLAW_NOWAIT, KLAW_FOREVER, KLAW_WITHIN(1),
                                        KLAW_WITHIN(KLAW_S(60))};
    pair p = chan(1);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t v = 0;
        OK(put(p.tx, i, all[i]));
        OK(take(p.rx, &v, all[i]));
        SAME(v, i);
    }
    pair_free(p);
}

SPEC(channel_wait_ends_at_its_deadline_and_not_before) {
    pair p = chan(1);
    int64_t from = klaw_now();
    GIVES(nothing_of(p.rx, KLAW_WITHIN(KLAW_MS(5))), KLAW_TIMEOUT);
    CHECK(klaw_now() - from >= KLAW_MS(5));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    klaw_deadline at = klaw_after(KLAW_MS(5));
    GIVES(put(p.tx, 2, at), KLAW_TIMEOUT);
    CHECK(klaw_now() >= at);
    SAME(WAITING_SENDERS(p) + WAITING_RECEIVERS(p), 0);
    SAME(next_of(p.rx), 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY); /* 2 stayed with its sender */
    pair_free(p);
}

SPEC(channel_goes_on_after_a_waiter_timed_out) {
    pair p = chan(1);
    op *gone = receives(p.rx, KLAW_WITHIN(KLAW_MS(2)));
    UNTIL(WAITING_RECEIVERS(p) == 1 || atomic_load(&gone->job.done) || gone->job.fiber);
    op *stays = receives(p.rx, KLAW_FOREVER);
    GIVES(op_end(gone), KLAW_TIMEOUT);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 5, KLAW_NOWAIT));
    SAME(op_value(stays), 5);
    pair_free(p);
}

/* --- cancellation --- */
SPEC_FIBERS(channel_cancelled_waits_leave_nothing_behind) {
    pair p = chan(1);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    SAME(WAITING_RECEIVERS(p), 0);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *s = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op_cancel(s);
    GIVES(op_end(s), KLAW_CANCELLED);
    SAME(WAITING_SENDERS(p), 0);
    SAME(next_of(p.rx), 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

static klaw_err op_in_cancelled_scope(void *arg) {
    pair *p = arg;
    klaw_scope *s;
    OK(klaw_scope_open(NULL, &s));
    klaw_scope_cancel(s, NULL);
    OK(put(p->tx, 8, KLAW_FOREVER)); /* needs no waiting: it happens all the same */
    GIVES(put(p->tx, 9, KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(put(p->tx, 9, SOON), KLAW_CANCELLED);
    SAME(next_of(p->rx), 8);
    GIVES(nothing_of(p->rx, KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(nothing_of(p->rx, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    return KLAW_OK;
}

SPEC_FIBERS(channel_in_a_cancelled_scope_does_what_needs_no_waiting) {
    pair p = chan(1);
    OK(op_in_cancelled_scope(&p));
    pair_free(p);
}

/* --- clones --- */
SPEC(channel_clones_are_counted) {
    pair p = chan(1);
    klaw_sender *tx2;
    klaw_receiver *rx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(klaw_receiver_clone(p.rx, &rx2));
    klaw_channel_stats s = stats_of(p);
    SAME(s.sender_count, 2);
    SAME(s.receiver_count, 2);
    klaw_sender_close(tx2);
    klaw_sender_close(tx2); /* once more is nothing */
    klaw_receiver_unref(rx2);
    s = stats_of(p);
    SAME(s.sender_count, 1);
    SAME(s.receiver_count, 1);
    CHECK(!s.senders_closed && !s.receivers_closed);
    klaw_sender_unref(tx2);
    SAME(stats_of(p).sender_count, 1);
    pair_free(p);
}

SPEC(channel_clones_share_one_queue) {
    pair p = chan(4);
    klaw_sender *tx2;
    klaw_receiver *rx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(klaw_receiver_clone(p.rx, &rx2));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(tx2, 2, KLAW_NOWAIT));
    SAME(next_of(rx2), 1);
    SAME(next_of(p.rx), 2);
    klaw_sender_unref(tx2);
    klaw_receiver_unref(rx2);
    pair_free(p);
}

SPEC(channel_clone_of_a_closed_handle_is_refused) {
    pair p = chan(1);
    klaw_sender *tx2;
    klaw_receiver *rx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(klaw_receiver_clone(p.rx, &rx2));
    klaw_sender *no_tx = NULL;
    klaw_receiver *no_rx = NULL;
    klaw_sender_close(tx2);
    klaw_receiver_close(rx2);
    GIVES(klaw_sender_clone(tx2, &no_tx), KLAW_CLOSED);
    GIVES(klaw_receiver_clone(rx2, &no_rx), KLAW_CLOSED);
    CHECK(!no_tx && !no_rx);
    klaw_sender_unref(tx2);
    klaw_receiver_unref(rx2);
    pair_free(p);
}

/* --- statistics --- */
SPEC(channel_statistics_add_up) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t before = t.tv_sec * KLAW_S(1) + t.tv_nsec;
    pair p = chan(8), q = chan(8);
    for (uint64_t i = 0; i < 6; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 4; i++)
        SAME(next_of(p.rx), i);
    klaw_channel_stats s = stats_of(p), r;
    OK(klaw_receiver_stats(p.rx, &r));
    CHECK(memcmp(&s, &r, sizeof s) == 0);
    SAME(s.queue_size, 2);
    SAME(s.high_watermark, 6);
    SAME(s.total_sent, 6);
    SAME(s.total_received, 4);
    SAME(s.permits, 0);
    SAME(s.sender_count, 1);
    SAME(s.receiver_count, 1);
    SAME(s.capacity, 8);
    CHECK(s.created_at >= before && s.created_at < before + KLAW_S(60));
    CHECK(!s.senders_closed && !s.receivers_closed);
    CHECK(s.id != stats_of(q).id && s.id != 0);
    klaw_sender_close(p.tx);
    CHECK(stats_of(p).senders_closed && stats_of(p).sender_count == 0);
    pair_free(p);
    pair_free(q);
}

SPEC(channel_statistics_count_hand_overs_too) {
    pair p = chan(1);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(op_value(r), 1);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    op *s = sends(p.tx, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    SAME(stats_of(p).total_sent, 2); /* a send that waits has not happened */
    SAME(next_of(p.rx), 2);
    OK(op_end(s));
    SAME(stats_of(p).total_sent, 3);
    SAME(stats_of(p).total_received, 2);
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channel_refuses_bad_arguments),
        cmocka_unit_test(channel_takes_its_limits),
        cmocka_unit_test(channel_options_may_be_left_out),
        cmocka_unit_test(channel_takes_options_of_an_older_and_of_a_newer_program),
        cmocka_unit_test(channel_name_is_copied_and_cut),
        cmocka_unit_test(channel_calls_refuse_null),
        cmocka_unit_test(channel_gives_what_was_sent_in_its_order),
        cmocka_unit_test(channel_never_holds_more_than_its_capacity),
        cmocka_unit_test(channel_wraps_around_many_times),
        cmocka_unit_test(channel_keeps_elements_of_any_size_whole),
        cmocka_unit_test(channel_receive_waits_for_a_send),
        cmocka_unit_test(channel_send_waits_for_room),
        cmocka_unit_test(channel_serves_waiting_receivers_in_their_order),
        cmocka_unit_test(channel_serves_waiting_senders_in_their_order),
        cmocka_unit_test(channel_codes_tell_nowait_from_a_passed_deadline),
        cmocka_unit_test(channel_does_what_needs_no_waiting_whatever_the_deadline),
        cmocka_unit_test(channel_wait_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(channel_goes_on_after_a_waiter_timed_out),
        cmocka_unit_test(channel_cancelled_waits_leave_nothing_behind),
        cmocka_unit_test(channel_in_a_cancelled_scope_does_what_needs_no_waiting),
        cmocka_unit_test(channel_clones_are_counted),
        cmocka_unit_test(channel_clones_share_one_queue),
        cmocka_unit_test(channel_clone_of_a_closed_handle_is_refused),
        cmocka_unit_test(channel_statistics_add_up),
        cmocka_unit_test(channel_statistics_count_hand_overs_too),
    };
    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
