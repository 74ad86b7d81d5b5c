/* SPDX-License-Identifier: Apache-2.0 */
/* test_broadcast.c - every receiver gets every message; what happens to those that lag, to the
 * exact number.
 *
 * Tried with these bugs seeded into broadcast.c: a lag counted one too few, LAGGED reported twice,
 * a cut receiver that goes on, a share that fails and loses the message, a waiting sender that is
 * not woken when the slow receiver closes. */
#include "support/chans.h"

static pair broadcast_of(const klaw_type *type, int64_t capacity, klaw_lag lag) {
    klaw_broadcast_opts o = {.capacity = capacity, .lag = lag};
    pair p;
    OK(klaw_broadcast(type, &o, &p.tx, &p.rx));
    return p;
}
static pair broadcast(int64_t capacity, klaw_lag lag) {
    return broadcast_of(&klaw_u64, capacity, lag);
}
static klaw_receiver *subscribe(pair p, klaw_lag lag) {
    klaw_receiver *rx = NULL;
    OK(klaw_broadcast_subscribe(p.tx, lag, &rx));
    CHECK(rx);
    return rx;
}
/* The receiver answers LAGGED, once, with this number. */
static void lagged_by(klaw_receiver *rx, uint64_t n) {
    GIVES(nothing_of(rx, KLAW_NOWAIT), KLAW_LAGGED);
    SAME(klaw_receiver_missed(rx), n);
}

SPEC_PLAIN(broadcast_refuses_bad_arguments) {
    klaw_broadcast_opts o = {0};
    klaw_type t = klaw_u64;
    pair p = {NULL, NULL}, q;
    klaw_receiver *rx = NULL;
    GIVES(klaw_broadcast(NULL, NULL, &p.tx, &p.rx), KLAW_INVALID);
    GIVES(klaw_broadcast(&klaw_u64, NULL, NULL, &p.rx), KLAW_INVALID);
    GIVES(klaw_broadcast(&klaw_u64, NULL, &p.tx, NULL), KLAW_INVALID);
    t.size = 0;
    GIVES(klaw_broadcast(&t, NULL, &p.tx, &p.rx), KLAW_INVALID);
    t.size = KLAW_ELEM_MAX + 1;
    GIVES(klaw_broadcast(&t, NULL, &p.tx, &p.rx), KLAW_LIMIT);
    t = counted_type;
    t.share = NULL;
    GIVES(klaw_broadcast(&t, NULL, &p.tx, &p.rx), KLAW_TYPE);
    o.capacity = -1;
    GIVES(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx), KLAW_INVALID);
    o.capacity = (1 << 20) + 1;
    GIVES(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx), KLAW_LIMIT);
    o.capacity = 0;
    o.lag = (klaw_lag)4;
    GIVES(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx), KLAW_INVALID);
    CHECK(!p.tx && !p.rx);
    p = broadcast(4, KLAW_LAG_DEFAULT);
    q = chan(4);
    GIVES(klaw_broadcast_subscribe(NULL, KLAW_LAG_WAIT, &rx), KLAW_INVALID);
    GIVES(klaw_broadcast_subscribe(p.tx, KLAW_LAG_WAIT, NULL), KLAW_INVALID);
    GIVES(klaw_broadcast_subscribe(p.tx, (klaw_lag)9, &rx), KLAW_INVALID);
    GIVES(klaw_broadcast_subscribe(q.tx, KLAW_LAG_WAIT, &rx), KLAW_INVALID);
    CHECK(!rx && strcmp(stats_of(p).kind, "broadcast") == 0);
    pair_free(p);
    pair_free(q);
}

SPEC_PLAIN(broadcast_has_its_defaults) {
    pair p;
    OK(klaw_broadcast(&klaw_u64, NULL, &p.tx, &p.rx));
    SAME(stats_of(p).capacity, 1024);
    CHECK(strcmp(stats_of(p).name, "broadcast") == 0);
    for (uint64_t i = 0; i < 1030; i++)
        OK(put(p.tx, i, KLAW_NOWAIT)); /* drops the oldest */
    lagged_by(p.rx, 6);
    SAME(next_of(p.rx), 6);
    pair_free(p);
}

SPEC(broadcast_reaches_every_receiver_in_order) {
    pair p = broadcast(8, KLAW_LAG_DEFAULT);
    klaw_receiver *b = subscribe(p, KLAW_LAG_WAIT), *c;
    OK(klaw_receiver_clone(p.rx, &c));
    for (uint64_t i = 0; i < 8; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 8; i++) {
        SAME(next_of(c), i);
        SAME(next_of(p.rx), i);
    }
    for (uint64_t i = 0; i < 8; i++)
        SAME(next_of(b), i);
    GIVES(nothing_of(b, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(nothing_of(b, PAST), KLAW_TIMEOUT);
    SAME(stats_of(p).total_sent, 8);
    SAME(stats_of(p).total_received, 24);
    SAME(stats_of(p).receiver_count, 3);
    klaw_receiver_unref(b);
    klaw_receiver_unref(c);
    pair_free(p);
}

SPEC(broadcast_subscriber_gets_what_is_sent_from_then_on) {
    pair p = broadcast(8, KLAW_LAG_DEFAULT);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    klaw_receiver *late = subscribe(p, KLAW_LAG_DEFAULT);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    SAME(next_of(late), 2);
    GIVES(nothing_of(late, KLAW_NOWAIT), KLAW_EMPTY);
    SAME(next_of(p.rx), 1);
    SAME(next_of(p.rx), 2);
    klaw_receiver_unref(late);
    pair_free(p);
}

SPEC(broadcast_clone_starts_where_the_original_stands) {
    pair p = broadcast(8, KLAW_LAG_DEFAULT);
    klaw_receiver *twin;
    for (uint64_t i = 0; i < 4; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    SAME(next_of(p.rx), 0);
    OK(klaw_receiver_clone(p.rx, &twin));
    for (uint64_t i = 1; i < 4; i++)
        SAME(next_of(twin), i);
    SAME(next_of(p.rx), 1);
    klaw_receiver_unref(twin);
    pair_free(p);
}

SPEC(broadcast_clone_of_a_lagging_receiver_lags_as_much) {
    pair p = broadcast(2, KLAW_LAG_DROP_OLDEST);
    klaw_receiver *twin;
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    OK(klaw_receiver_clone(p.rx, &twin));
    lagged_by(twin, 3);
    SAME(next_of(twin), 3);
    lagged_by(p.rx, 3);
    SAME(next_of(p.rx), 3);
    klaw_receiver_unref(twin);
    pair_free(p);
}

/* --- lag --- */
SPEC(broadcast_lag_drop_oldest_says_exactly_how_many) {
    for (uint64_t cap = 1; cap <= 9; cap++) {
        for (uint64_t over = 0; over <= 20; over++) {
            pair p = broadcast((int64_t)cap, KLAW_LAG_DROP_OLDEST);
            for (uint64_t i = 0; i < cap + over; i++)
                OK(put(p.tx, i, KLAW_NOWAIT));
            if (over)
                lagged_by(p.rx, over);
            for (uint64_t i = over; i < cap + over; i++)
                SAME(next_of(p.rx), i);
            GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
            pair_free(p);
        }
    }
}

SPEC(broadcast_lag_is_counted_for_each_receiver) {
    pair p = broadcast(4, KLAW_LAG_DROP_OLDEST);
    klaw_receiver *quick = subscribe(p, KLAW_LAG_DEFAULT);
    for (uint64_t i = 0; i < 10; i++) {
        OK(put(p.tx, i, KLAW_NOWAIT));
        SAME(next_of(quick), i);
    }
    klaw_receiver *later = subscribe(p, KLAW_LAG_DEFAULT);
    for (uint64_t i = 10; i < 15; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    lagged_by(p.rx, 11);
    lagged_by(quick, 1);
    lagged_by(later, 1);
    SAME(next_of(p.rx), 11);
    SAME(next_of(quick), 11);
    SAME(next_of(later), 11);
    klaw_receiver_unref(quick);
    klaw_receiver_unref(later);
    pair_free(p);
}

SPEC(broadcast_lag_between_two_reports_is_reported_apart) {
    pair p = broadcast(2, KLAW_LAG_DROP_OLDEST);
    for (uint64_t i = 0; i < 3; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    lagged_by(p.rx, 1);
    for (uint64_t i = 3; i < 7; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    lagged_by(p.rx, 4);
    SAME(next_of(p.rx), 5);
    SAME(klaw_receiver_missed(p.rx), 4); /* the last report stays readable */
    pair_free(p);
}

SPEC(broadcast_lag_is_never_mistaken_for_close) {
    pair p = broadcast(2, KLAW_LAG_DROP_OLDEST);
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    lagged_by(p.rx, 3);
    SAME(next_of(p.rx), 3);
    SAME(next_of(p.rx), 4);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
}

SPEC(broadcast_lag_wait_holds_the_sender) {
    pair p = broadcast(2, KLAW_LAG_WAIT);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT));
    GIVES(put(p.tx, 3, KLAW_NOWAIT), KLAW_FULL);
    GIVES(put(p.tx, 3, PAST), KLAW_TIMEOUT);
    op *s = sends(p.tx, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    SAME(next_of(p.rx), 1);
    OK(op_end(s));
    SAME(next_of(p.rx), 2);
    SAME(next_of(p.rx), 3);
    SAME(klaw_receiver_missed(p.rx), 0);
    pair_free(p);
}

SPEC(broadcast_lag_wait_ends_when_the_slow_receiver_goes) {
    pair p = broadcast(1, KLAW_LAG_DROP_OLDEST);
    klaw_receiver *slow = subscribe(p, KLAW_LAG_WAIT);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *s = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_receiver_unref(slow);
    OK(op_end(s));
    lagged_by(p.rx, 1);
    SAME(next_of(p.rx), 2);
    pair_free(p);
}

SPEC(broadcast_lag_wait_of_one_does_not_make_the_others_lose) {
    pair p = broadcast(2, KLAW_LAG_DROP_OLDEST);
    klaw_receiver *slow = subscribe(p, KLAW_LAG_WAIT);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_FULL); /* has no effect on p.rx */
    SAME(next_of(p.rx), 0);
    SAME(next_of(slow), 0);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    SAME(next_of(p.rx), 1);
    klaw_receiver_unref(slow);
    pair_free(p);
}

SPEC(broadcast_lag_disconnect_cuts_off_with_the_exact_number) {
    pair p = broadcast(3, KLAW_LAG_DISCONNECT);
    klaw_receiver *other = subscribe(p, KLAW_LAG_DROP_OLDEST);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    SAME(next_of(p.rx), 0);
    for (uint64_t i = 1; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT)); /* the fourth one cuts */
    lagged_by(p.rx, 4);
    for (int i = 0; i < 3; i++)
        GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    OK(put(p.tx, 5, KLAW_NOWAIT));
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
    lagged_by(other, 3);
    SAME(next_of(other), 3);
    klaw_receiver_unref(other);
    pair_free(p);
}

/* --- closing --- */
SPEC(broadcast_drains_after_close_and_wakes_waiters) {
    pair p = broadcast(4, KLAW_LAG_DEFAULT);
    klaw_receiver *b = subscribe(p, KLAW_LAG_DEFAULT);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(next_of(b), 1);
    op *w = receives(b, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_sender_close(p.tx);
    GIVES(op_end(w), KLAW_CLOSED);
    SAME(next_of(p.rx), 1);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_receiver *none = NULL;
    GIVES(klaw_broadcast_subscribe(p.tx, KLAW_LAG_DEFAULT, &none), KLAW_CLOSED);
    klaw_receiver_unref(b);
    pair_free(p);
}

SPEC(broadcast_close_of_one_receiver_wakes_who_waits_on_it) {
    pair p = broadcast(4, KLAW_LAG_DEFAULT);
    klaw_receiver *b = subscribe(p, KLAW_LAG_DEFAULT);
    op *stays = receives(p.rx, KLAW_FOREVER), *goes = receives(b, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 2);
    klaw_receiver_close(b);
    GIVES(op_end(goes), KLAW_CLOSED);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(op_value(stays), 1);
    klaw_receiver_unref(b);
    pair_free(p);
}

SPEC(broadcast_without_receivers_goes_nowhere) {
    pair p = broadcast(1, KLAW_LAG_WAIT);
    klaw_receiver_close(p.rx);
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    klaw_receiver *b = subscribe(p, KLAW_LAG_DEFAULT);
    OK(put(p.tx, 9, KLAW_NOWAIT));
    SAME(next_of(b), 9);
    klaw_receiver_unref(b);
    pair_free(p);
}

SPEC(broadcast_wakes_every_waiting_receiver) {
    pair p = broadcast(4, KLAW_LAG_DEFAULT);
    klaw_receiver *rx[4];
    op *r[4];
    for (int i = 0; i < 4; i++) {
        rx[i] = subscribe(p, KLAW_LAG_DEFAULT);
        r[i] = receives(rx[i], KLAW_FOREVER);
    }
    UNTIL(WAITING_RECEIVERS(p) == 4);
    OK(put(p.tx, 6, KLAW_NOWAIT));
    for (int i = 0; i < 4; i++) {
        SAME(op_value(r[i]), 6);
        klaw_receiver_unref(rx[i]);
    }
    pair_free(p);
}

/* --- owned elements --- */
SPEC(broadcast_shares_owned_elements_and_drops_each_once) {
    pair p = broadcast_of(&counted_type, 2, KLAW_LAG_DROP_OLDEST);
    klaw_receiver *b = subscribe(p, KLAW_LAG_DEFAULT);
    for (int i = 0; i < 5; i++) {
        counted c = counted_make(), got;
        OK(klaw_send(p.tx, &c, KLAW_NOWAIT));
        OK(klaw_recv(b, &got, KLAW_NOWAIT));
        CHECK(got.id != c.id); /* an element of its own */
        counted_drop(&got);
        CHECK(counted_alive() <= 2);
    }
    klaw_receiver_unref(b);
    pair_free(p);
    SAME(counted_alive(), 0);
}

SPEC(broadcast_share_that_fails_leaves_the_cursor) {
    pair p = broadcast_of(&counted_type, 4, KLAW_LAG_DROP_OLDEST);
    counted a = counted_make(), b = counted_make(), got;
    OK(klaw_send(p.tx, &a, KLAW_NOWAIT));
    OK(klaw_send(p.tx, &b, KLAW_NOWAIT));
    atomic_store(&counted_fail_shares, 2);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_NOMEM);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_NOMEM);
    SAME(stats_of(p).total_received, 0);
    for (int i = 0; i < 2; i++) {
        OK(klaw_recv(p.rx, &got, KLAW_NOWAIT));
        counted_drop(&got);
    }
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
    SAME(counted_alive(), 0);
}

/* A batch is going on, and the receiver falls behind in the middle of it. */
static klaw_sender *share_sends;
static void owned_drop(void *elem) {
    (void)elem;
}
static klaw_err share_and_send(const void *from, void *to) {
    memcpy(to, from, 8);
    for (uint64_t i = 100; share_sends && i < 105; i++)
        OK(put(share_sends, i, KLAW_NOWAIT));
    share_sends = NULL;
    return KLAW_OK;
}
static const klaw_type overtaking = {
    .name = "overtaking", .size = 8, .drop = owned_drop, .share = share_and_send};

SPEC(broadcast_batch_receive_does_not_swallow_a_lag) {
    uint64_t v[8], missed = 0, seen = 0;
    size_t got = 0;
    pair p = broadcast_of(&overtaking, 2, KLAW_LAG_DROP_OLDEST);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT));
    share_sends = p.tx;
    for (;;) {
        klaw_err e = klaw_recv_batch(p.rx, v, 8, &got, KLAW_NOWAIT);
        if (e == KLAW_LAGGED)
            missed += klaw_receiver_missed(p.rx);
        else if (e == KLAW_OK)
            seen += got;
        else
            break;
    }
    SAME(seen + missed, 7);
    SAME(seen, 3);
    pair_free(p);
}

static klaw_err send_series(void *arg) {
    op *o = arg;
    for (uint64_t i = 0; i < 3000; i++)
        OK(put(o->tx, i, KLAW_FOREVER));
    klaw_sender_close(o->tx);
    return KLAW_OK;
}

static klaw_err account_for_series(void *arg) {
    op *o = arg;
    uint64_t next = 0, v = 0;
    for (;;) {
        klaw_err e = take(o->rx, &v, KLAW_FOREVER);
        if (e == KLAW_OK) {
            SAME(v, next++);
        } else if (e == KLAW_LAGGED) {
            CHECK(o->n != KLAW_LAG_WAIT);
            next += klaw_receiver_missed(o->rx);
            if (o->n == KLAW_LAG_DISCONNECT) {
                GIVES(nothing_of(o->rx, KLAW_FOREVER), KLAW_CLOSED);
                return KLAW_OK;
            }
        } else {
            GIVES(e, KLAW_CLOSED);
            SAME(next, 3000);
            return KLAW_OK;
        }
    }
}

SPEC(broadcast_received_and_missed_add_up_under_load) {
    pair p = broadcast(8, KLAW_LAG_DROP_OLDEST);
    op *r[4];
    klaw_receiver *rx[4] = {p.rx, subscribe(p, KLAW_LAG_WAIT), subscribe(p, KLAW_LAG_DISCONNECT),
                            subscribe(p, KLAW_LAG_DROP_OLDEST)};
    static const klaw_lag lag[4] = {KLAW_LAG_DROP_OLDEST, KLAW_LAG_WAIT, KLAW_LAG_DISCONNECT,
                                    KLAW_LAG_DROP_OLDEST};
    for (int i = 0; i < 4; i++)
        r[i] = op_with(op_new(NULL, rx[i], lag[i], 0), account_for_series);
    op *s = op_with(op_new(p.tx, NULL, 0, 0), send_series);
    OK(op_end(s));
    for (int i = 0; i < 4; i++) {
        OK(op_end(r[i]));
        klaw_receiver_unref(rx[i]);
    }
    klaw_sender_unref(p.tx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broadcast_refuses_bad_arguments),
        cmocka_unit_test(broadcast_has_its_defaults),
        cmocka_unit_test(broadcast_reaches_every_receiver_in_order),
        cmocka_unit_test(broadcast_subscriber_gets_what_is_sent_from_then_on),
        cmocka_unit_test(broadcast_clone_starts_where_the_original_stands),
        cmocka_unit_test(broadcast_clone_of_a_lagging_receiver_lags_as_much),
        cmocka_unit_test(broadcast_lag_drop_oldest_says_exactly_how_many),
        cmocka_unit_test(broadcast_lag_is_counted_for_each_receiver),
        cmocka_unit_test(broadcast_lag_between_two_reports_is_reported_apart),
        cmocka_unit_test(broadcast_lag_is_never_mistaken_for_close),
        cmocka_unit_test(broadcast_lag_wait_holds_the_sender),
        cmocka_unit_test(broadcast_lag_wait_ends_when_the_slow_receiver_goes),
        cmocka_unit_test(broadcast_lag_wait_of_one_does_not_make_the_others_lose),
        cmocka_unit_test(broadcast_lag_disconnect_cuts_off_with_the_exact_number),
        cmocka_unit_test(broadcast_drains_after_close_and_wakes_waiters),
        cmocka_unit_test(broadcast_close_of_one_receiver_wakes_who_waits_on_it),
        cmocka_unit_test(broadcast_without_receivers_goes_nowhere),
        cmocka_unit_test(broadcast_wakes_every_waiting_receiver),
        cmocka_unit_test(broadcast_shares_owned_elements_and_drops_each_once),
        cmocka_unit_test(broadcast_share_that_fails_leaves_the_cursor),
        cmocka_unit_test(broadcast_received_and_missed_add_up_under_load),
        cmocka_unit_test(broadcast_batch_receive_does_not_swallow_a_lag),
    };
    return cmocka_run_group_tests_name("broadcast", tests, NULL, NULL);
}
