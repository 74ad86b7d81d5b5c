/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_close.c - closing: what stays receivable, who is woken, what is dropped and how
 * often.
 *
 * Tried with these bugs seeded into chan.c and mpmc.c: a close that wakes only the first waiter,
 * one that wakes waiters of other handles, a rest that is not dropped, dropping by recursion. */
#include "support/chans.h"

SPEC(close_of_the_senders_leaves_buffered_elements_receivable) {
    pair p = chan(8);
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    CHECK(stats_of(p).senders_closed);
    for (uint64_t i = 0; i < 5; i++)
        SAME(next_of(p.rx), i);
    for (int i = 0; i < 3; i++) { /* for ever */
        GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
        GIVES(nothing_of(p.rx, PAST), KLAW_CLOSED);
        GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    }
    pair_free(p);
}

SPEC(close_of_the_receivers_makes_sends_answer_closed) {
    pair p = chan(8);
    klaw_receiver_close(p.rx);
    CHECK(stats_of(p).receivers_closed);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(put(p.tx, 1, PAST), KLAW_CLOSED);
    GIVES(put(p.tx, 1, KLAW_FOREVER), KLAW_CLOSED);
    uint64_t two[2] = {1, 2};
    GIVES(klaw_send_batch(p.tx, two, 2, KLAW_FOREVER), KLAW_CLOSED);
    klaw_permit permit;
    GIVES(klaw_reserve(p.tx, &permit, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
}

SPEC(close_is_idempotent_and_the_handle_stays_valid) {
    pair p = chan(8);
    for (int i = 0; i < 3; i++) {
        klaw_sender_close(p.tx);
        klaw_receiver_close(p.rx);
    }
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_channel_stats s = stats_of(p);
    SAME(s.sender_count, 0);
    SAME(s.receiver_count, 0);
    CHECK(klaw_sender_type(p.tx) == &klaw_u64);
    pair_free(p);
}

SPEC(close_wakes_blocked_receivers) {
    pair p = chan(8);
    op *r[4];
    for (int i = 0; i < 4; i++)
        r[i] = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 4);
    klaw_sender_close(p.tx);
    for (int i = 0; i < 4; i++)
        GIVES(op_end(r[i]), KLAW_CLOSED);
    pair_free(p);
}

SPEC(close_wakes_blocked_senders) {
    pair p = chan(1);
    op *s[4];
    OK(put(p.tx, 9, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 4; i++)
        s[i] = sends(p.tx, i, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 4);
    klaw_receiver_close(p.rx);
    for (int i = 0; i < 4; i++)
        GIVES(op_end(s[i]), KLAW_CLOSED);
    pair_free(p);
}

SPEC(close_of_one_handle_wakes_who_waits_on_it_and_nobody_else) {
    pair p = chan(1);
    klaw_receiver *rx2;
    OK(klaw_receiver_clone(p.rx, &rx2));
    op *stays = receives(p.rx, KLAW_FOREVER), *goes = receives(rx2, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 2);
    klaw_receiver_close(rx2);
    GIVES(op_end(goes), KLAW_CLOSED);
    SAME(WAITING_RECEIVERS(p), 1);
    OK(put(p.tx, 3, KLAW_NOWAIT));
    SAME(op_value(stays), 3);
    klaw_receiver_unref(rx2);
    pair_free(p);
}

SPEC(close_of_one_sender_wakes_who_sends_by_it_and_nobody_else) {
    pair p = chan(1);
    klaw_sender *tx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(put(p.tx, 0, KLAW_NOWAIT));
    op *goes = sends(tx2, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op *stays = sends(p.tx, 1, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 2);
    klaw_sender_close(tx2);
    GIVES(op_end(goes), KLAW_CLOSED);
    SAME(next_of(p.rx), 0);
    SAME(next_of(p.rx), 1);
    OK(op_end(stays));
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    klaw_sender_unref(tx2);
    pair_free(p);
}

SPEC(close_of_a_handle_makes_its_own_calls_answer_closed) {
    pair p = chan(4);
    klaw_sender *tx2;
    klaw_receiver *rx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(klaw_receiver_clone(p.rx, &rx2));
    OK(put(tx2, 1, KLAW_NOWAIT));
    klaw_sender_close(tx2);
    klaw_receiver_close(rx2);
    GIVES(put(tx2, 2, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(nothing_of(rx2, KLAW_NOWAIT), KLAW_CLOSED); /* although there is something */
    uint64_t v[2] = {0};
    size_t got = 7;
    GIVES(klaw_recv_batch(rx2, v, 2, &got, KLAW_NOWAIT), KLAW_CLOSED);
    SAME(got, 0);
    GIVES(klaw_send_batch(tx2, v, 2, KLAW_NOWAIT), KLAW_CLOSED);
    SAME(next_of(p.rx), 1);
    klaw_sender_unref(tx2);
    klaw_receiver_unref(rx2);
    pair_free(p);
}

SPEC(close_comes_with_the_last_endpoint_of_a_side) {
    pair p = chan(4);
    klaw_sender *tx[3];
    for (int i = 0; i < 3; i++)
        OK(klaw_sender_clone(p.tx, &tx[i]));
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    for (int i = 0; i < 3; i++) {
        klaw_sender_unref(tx[i]);
        SAME(WAITING_RECEIVERS(p), 1);
        CHECK(!stats_of(p).senders_closed);
    }
    klaw_sender_close(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
}

SPEC(unref_closes_and_wakes_the_other_side) {
    pair p = chan(1);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_sender_unref(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    klaw_receiver_unref(p.rx);
    p = chan(1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *s = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_receiver_unref(p.rx);
    GIVES(op_end(s), KLAW_CLOSED);
    klaw_sender_unref(p.tx);
}

/* --- drops --- */
static counted send_counted(klaw_sender *tx) {
    counted c = counted_make();
    OK(klaw_send(tx, &c, KLAW_NOWAIT));
    return c;
}

SPEC(close_of_the_receivers_drops_what_is_buffered_once) {
    static const int64_t caps[] = {1, 3, 64, 1000, KLAW_UNBOUNDED};
    for (size_t k = 0; k < sizeof caps / sizeof *caps; k++) {
        uint64_t alive = counted_alive();
        pair p = chan_of(&counted_type, caps[k]);
        int n = caps[k] < 0 || caps[k] > 100 ? 100 : (int)caps[k];
        counted all[100];
        for (int i = 0; i < n; i++)
            all[i] = send_counted(p.tx);
        SAME(counted_alive(), alive + (uint64_t)n);
        klaw_receiver_close(p.rx);
        SAME(counted_alive(), alive);
        for (int i = 0; i < n; i++)
            CHECK(counted_dropped(all[i]));
        SAME(stats_of(p).queue_size, 0);
        pair_free(p);
        SAME(counted_alive(), alive);
    }
}

SPEC(close_drops_nothing_that_was_received) {
    pair p = chan_of(&counted_type, 8);
    counted a = send_counted(p.tx), b = send_counted(p.tx), got;
    OK(klaw_recv(p.rx, &got, KLAW_NOWAIT));
    SAME(got.id, a.id);
    pair_free(p);
    CHECK(!counted_dropped(a) && counted_dropped(b));
    counted_drop(&got);
    SAME(counted_alive(), 0);
}

SPEC(close_leaves_unsent_elements_to_their_sender) {
    pair p = chan_of(&counted_type, 1);
    counted in = send_counted(p.tx), mine = counted_make();
    GIVES(klaw_send(p.tx, &mine, KLAW_NOWAIT), KLAW_FULL);
    GIVES(klaw_send(p.tx, &mine, PAST), KLAW_TIMEOUT);
    klaw_receiver_close(p.rx);
    GIVES(klaw_send(p.tx, &mine, KLAW_NOWAIT), KLAW_CLOSED);
    CHECK(counted_dropped(in) && !counted_dropped(mine));
    pair_free(p);
    CHECK(!counted_dropped(mine));
    counted_drop(&mine);
}

SPEC(close_of_the_senders_drops_nothing) {
    pair p = chan_of(&counted_type, 4);
    counted a = send_counted(p.tx);
    klaw_sender_unref(p.tx);
    CHECK(!counted_dropped(a));
    klaw_receiver_unref(p.rx);
    CHECK(counted_dropped(a));
}

/* Elements that are the last endpoint of a further channel. */
static void drop_receiver(void *elem) {
    klaw_receiver_unref(*(klaw_receiver **)elem);
}
static void drop_sender(void *elem) {
    klaw_sender_unref(*(klaw_sender **)elem);
}
static const klaw_type receiver_type = {
    .name = "receiver", .size = sizeof(klaw_receiver *), .drop = drop_receiver};
static const klaw_type sender_type = {
    .name = "sender", .size = sizeof(klaw_sender *), .drop = drop_sender};

/* n channels, each inside the next; the outermost's receiver. make() gives the next channel. */
static klaw_receiver *nest(int n, pair (*make)(void)) {
    klaw_receiver *inner = NULL;
    for (int i = 0; i < n; i++) {
        pair p = make();
        if (inner)
            OK(klaw_send(p.tx, &inner, KLAW_NOWAIT));
        klaw_sender_unref(p.tx);
        inner = p.rx;
    }
    return inner;
}
#define DEEP                                                                                  \
    ((int)(getenv("KLAW_TEST_SLICE") && !strcmp(getenv("KLAW_TEST_SLICE"), "valgrind") ? 5000 \
                                                                                       : 100000))

static pair plain_of_receivers(void) {
    return chan_of(&receiver_type, 1);
}
SPEC(close_of_channels_nested_100000_deep_needs_no_stack) {
    klaw_receiver_unref(nest(DEEP, plain_of_receivers));
}

static pair one_to_one_of_receivers(void) {
    klaw_channel_opts o = {.capacity = 1, .one_to_one = true};
    pair p;
    OK(klaw_channel(&receiver_type, &o, &p.tx, &p.rx));
    return p;
}
SPEC(close_of_one_to_one_channels_nested_100000_deep_needs_no_stack) {
    klaw_receiver_unref(nest(DEEP, one_to_one_of_receivers));
}

static pair oneshot_of_receivers(void) {
    pair p;
    OK(klaw_oneshot(&receiver_type, &p.tx, &p.rx));
    return p;
}
SPEC(close_of_oneshots_nested_100000_deep_needs_no_stack) {
    klaw_receiver_unref(nest(DEEP, oneshot_of_receivers));
}

static klaw_err share_receiver(const void *from, void *to) {
    return klaw_receiver_clone(*(klaw_receiver *const *)from, to);
}
static const klaw_type shared_receiver_type = {.name = "receiver",
                                               .size = sizeof(klaw_receiver *),
                                               .drop = drop_receiver,
                                               .share = share_receiver};
static pair broadcast_of_receivers(void) {
    klaw_broadcast_opts o = {.capacity = 1};
    pair p;
    OK(klaw_broadcast(&shared_receiver_type, &o, &p.tx, &p.rx));
    return p;
}
SPEC(close_of_broadcasts_nested_100000_deep_needs_no_stack) {
    klaw_receiver_unref(nest(DEEP, broadcast_of_receivers));
}

SPEC(close_of_watches_nested_100000_deep_needs_no_stack) {
    pair p;
    klaw_receiver *inner = NULL;
    OK(klaw_oneshot(&receiver_type, &p.tx, &p.rx));
    klaw_sender_unref(p.tx);
    inner = p.rx;
    for (int i = 0; i < DEEP; i++) {
        OK(klaw_watch(&shared_receiver_type, &inner, &p.tx, &p.rx));
        klaw_sender_unref(p.tx);
        inner = p.rx;
    }
    klaw_receiver_unref(inner);
}

SPEC(close_may_drop_an_endpoint_of_the_channel_itself) {
    pair p = chan_of(&sender_type, 2);
    klaw_sender *again;
    OK(klaw_sender_clone(p.tx, &again));
    OK(klaw_send(p.tx, &again, KLAW_NOWAIT)); /* a cycle: the channel holds its own sender */
    klaw_sender_unref(p.tx);
    CHECK(!stats_of((pair){NULL, p.rx}).senders_closed);
    klaw_receiver_unref(p.rx);
}

/* Drops may call what does not wait, as often as they like. */
static klaw_sender *graveyard;
static void drop_and_tell(void *elem) {
    OK(klaw_send(graveyard, elem, KLAW_NOWAIT));
}
static const klaw_type telling_type = {.name = "telling", .size = 8, .drop = drop_and_tell};

static klaw_err bury_channels(void *arg) {
    uint64_t *n = arg;
    for (uint64_t i = 0; i < *n; i++) {
        pair p = chan_of(&telling_type, KLAW_UNBOUNDED);
        for (uint64_t k = 0; k < 300; k++)
            OK(put(p.tx, k, KLAW_NOWAIT));
        pair_free(p);
    }
    return KLAW_OK;
}

SPEC(close_may_run_drops_that_send) {
    uint64_t each = 20, v = 0, sum = 0;
    pair g = chan(KLAW_UNBOUNDED);
    job *j[4];
    graveyard = g.tx;
    for (int i = 0; i < 4; i++)
        j[i] = start(bury_channels, &each);
    for (int i = 0; i < 4; i++)
        OK(ended(j[i]));
    while (take(g.rx, &v, KLAW_NOWAIT) == KLAW_OK)
        sum += v;
    SAME(stats_of(g).total_sent, 4 * each * 300);
    SAME(sum, 4 * each * (299 * 300 / 2));
    pair_free(g);
}

SPEC(close_and_use_may_race) {
    for (int i = 0; i < 200; i++) {
        pair p = chan(1 + i % 3);
        op *s = sends(p.tx, 1, KLAW_FOREVER), *s2 = sends(p.tx, 2, KLAW_FOREVER);
        op *r = receives(p.rx, KLAW_FOREVER);
        klaw_receiver_close(p.rx);
        klaw_sender_close(p.tx);
        klaw_err e = op_end(s), e2 = op_end(s2), er = op_end(r);
        CHECK(e == KLAW_OK || e == KLAW_CLOSED);
        CHECK(e2 == KLAW_OK || e2 == KLAW_CLOSED);
        CHECK(er == KLAW_OK || er == KLAW_CLOSED);
        CHECK(er != KLAW_OK || e == KLAW_OK || e2 == KLAW_OK);
        pair_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close_of_the_senders_leaves_buffered_elements_receivable),
        cmocka_unit_test(close_of_the_receivers_makes_sends_answer_closed),
        cmocka_unit_test(close_is_idempotent_and_the_handle_stays_valid),
        cmocka_unit_test(close_wakes_blocked_receivers),
        cmocka_unit_test(close_wakes_blocked_senders),
        cmocka_unit_test(close_of_one_handle_wakes_who_waits_on_it_and_nobody_else),
        cmocka_unit_test(close_of_one_sender_wakes_who_sends_by_it_and_nobody_else),
        cmocka_unit_test(close_of_a_handle_makes_its_own_calls_answer_closed),
        cmocka_unit_test(close_comes_with_the_last_endpoint_of_a_side),
        cmocka_unit_test(unref_closes_and_wakes_the_other_side),
        cmocka_unit_test(close_of_the_receivers_drops_what_is_buffered_once),
        cmocka_unit_test(close_drops_nothing_that_was_received),
        cmocka_unit_test(close_leaves_unsent_elements_to_their_sender),
        cmocka_unit_test(close_of_the_senders_drops_nothing),
        cmocka_unit_test(close_of_channels_nested_100000_deep_needs_no_stack),
        cmocka_unit_test(close_of_oneshots_nested_100000_deep_needs_no_stack),
        cmocka_unit_test(close_may_drop_an_endpoint_of_the_channel_itself),
        cmocka_unit_test(close_may_run_drops_that_send),
        cmocka_unit_test(close_and_use_may_race),
        cmocka_unit_test(close_of_one_to_one_channels_nested_100000_deep_needs_no_stack),
        cmocka_unit_test(close_of_broadcasts_nested_100000_deep_needs_no_stack),
        cmocka_unit_test(close_of_watches_nested_100000_deep_needs_no_stack),
    };
    return cmocka_run_group_tests_name("channel_close", tests, NULL, NULL);
}
