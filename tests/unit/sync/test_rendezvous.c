/* SPDX-License-Identifier: Apache-2.0 */
/* test_rendezvous.c - channels of capacity KLAW_RENDEZVOUS: sender and receiver meet.
 *
 * Tried with these bugs seeded into mpmc.c: room for one element, a receive that does not look for
 * a waiting sender. */
#include "support/chans.h"

SPEC(rendezvous_holds_nothing) {
    pair p = chan(KLAW_RENDEZVOUS);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_FULL);
    GIVES(put(p.tx, 1, PAST), KLAW_TIMEOUT);
    GIVES(put(p.tx, 1, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(nothing_of(p.rx, PAST), KLAW_TIMEOUT);
    SAME(stats_of(p).capacity, KLAW_RENDEZVOUS);
    SAME(stats_of(p).queue_size, 0);
    SAME(stats_of(p).total_sent, 0);
    pair_free(p);
}

SPEC(rendezvous_sender_returns_when_the_receiver_has_it) {
    pair p = chan(KLAW_RENDEZVOUS);
    op *s = sends(p.tx, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    SAME(stats_of(p).queue_size, 0);
    SAME(next_of(p.rx), 3);
    OK(op_end(s));
    SAME(stats_of(p).total_sent, 1);
    SAME(stats_of(p).total_received, 1);
    pair_free(p);
}

SPEC(rendezvous_receiver_that_waits_is_met_without_waiting) {
    pair p = chan(KLAW_RENDEZVOUS);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 4, KLAW_NOWAIT));
    SAME(op_value(r), 4);
    GIVES(put(p.tx, 5, KLAW_NOWAIT), KLAW_FULL);
    pair_free(p);
}

SPEC(rendezvous_sender_that_waits_is_met_without_waiting) {
    pair p = chan(KLAW_RENDEZVOUS);
    uint64_t v = 0;
    op *s = sends(p.tx, 4, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    OK(take(p.rx, &v, KLAW_NOWAIT));
    SAME(v, 4);
    OK(op_end(s));
    pair_free(p);
}

SPEC(rendezvous_receiver_that_left_is_not_met) {
    pair p = chan(KLAW_RENDEZVOUS);
    GIVES(op_end(receives(p.rx, KLAW_WITHIN(KLAW_MS(2)))), KLAW_TIMEOUT);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_FULL);
    GIVES(op_end(sends(p.tx, 1, KLAW_WITHIN(KLAW_MS(2)))), KLAW_TIMEOUT);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC_FIBERS(rendezvous_cancelled_sides_are_not_met) {
    pair p = chan(KLAW_RENDEZVOUS);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_FULL);
    op *s = sends(p.tx, 1, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op_cancel(s);
    GIVES(op_end(s), KLAW_CANCELLED);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC(rendezvous_meets_in_order_of_arrival) {
    pair p = chan(KLAW_RENDEZVOUS);
    op *s[4];
    for (uint64_t i = 0; i < 4; i++) {
        s[i] = sends(p.tx, i, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) == i + 1);
    }
    for (uint64_t i = 0; i < 4; i++)
        SAME(next_of(p.rx), i);
    for (int i = 0; i < 4; i++)
        OK(op_end(s[i]));
    for (uint64_t i = 0; i < 4; i++) {
        s[i] = receives(p.rx, KLAW_FOREVER);
        UNTIL(WAITING_RECEIVERS(p) == i + 1);
    }
    for (uint64_t i = 0; i < 4; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 4; i++)
        SAME(op_value(s[i]), i);
    pair_free(p);
}

SPEC(rendezvous_close_fails_who_waits_and_leaves_the_element) {
    pair p = chan_of(&counted_type, KLAW_RENDEZVOUS);
    counted mine = counted_make();
    op *o = op_new(p.tx, NULL, 1, KLAW_FOREVER);
    memcpy(o->v, &mine, sizeof mine);
    op_with(o, op_send);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_receiver_close(p.rx);
    GIVES(op_end(o), KLAW_CLOSED);
    CHECK(!counted_dropped(mine));
    pair_free(p);
    counted_drop(&mine);
    p = chan(KLAW_RENDEZVOUS);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_sender_close(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
}

SPEC(rendezvous_of_many_hosts_pairs_every_send_with_one_receive) {
    pair p = chan(KLAW_RENDEZVOUS);
    op *s[20];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 20; i++)
        s[i] = sends(p.tx, i, KLAW_FOREVER);
    for (int i = 0; i < 20; i++)
        sum += next_of(p.rx);
    SAME(sum, 190);
    for (int i = 0; i < 20; i++)
        OK(op_end(s[i]));
    pair_free(p);
}

SPEC(rendezvous_batch_receive_takes_what_waits) {
    pair p = chan(KLAW_RENDEZVOUS);
    uint64_t v[4], sum = 0;
    size_t all = 0;
    op *s[3];
    for (uint64_t i = 0; i < 3; i++) {
        s[i] = sends(p.tx, i, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) == i + 1);
    }
    while (all < 3) {
        size_t got = 0;
        OK(klaw_recv_batch(p.rx, v, 4, &got, KLAW_FOREVER));
        CHECK(got >= 1 && got <= 3);
        for (size_t i = 0; i < got; i++)
            sum += v[i];
        all += got;
    }
    SAME(sum, 3);
    for (int i = 0; i < 3; i++)
        OK(op_end(s[i]));
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rendezvous_holds_nothing),
        cmocka_unit_test(rendezvous_sender_returns_when_the_receiver_has_it),
        cmocka_unit_test(rendezvous_receiver_that_waits_is_met_without_waiting),
        cmocka_unit_test(rendezvous_sender_that_waits_is_met_without_waiting),
        cmocka_unit_test(rendezvous_receiver_that_left_is_not_met),
        cmocka_unit_test(rendezvous_cancelled_sides_are_not_met),
        cmocka_unit_test(rendezvous_meets_in_order_of_arrival),
        cmocka_unit_test(rendezvous_close_fails_who_waits_and_leaves_the_element),
        cmocka_unit_test(rendezvous_of_many_hosts_pairs_every_send_with_one_receive),
        cmocka_unit_test(rendezvous_batch_receive_takes_what_waits),
    };
    return cmocka_run_group_tests_name("rendezvous", tests, NULL, NULL);
}
