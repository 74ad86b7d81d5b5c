/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_reserve.c - permits: a slot taken before the value is made.
 *
 * Tried with these bugs seeded into mpmc.c: a dropped permit that wakes nobody, permits that do not
 * count as filled, a channel that ends for its receivers while a permit is out. */
#include "support/chans.h"

SPEC_PLAIN(reserve_refuses_bad_arguments_and_other_kinds) {
    klaw_permit permit = {NULL};
    uint64_t v = 1;
    pair r = chan(KLAW_RENDEZVOUS), p;
    klaw_channel_opts o = {.capacity = 4, .one_to_one = true};
    GIVES(klaw_reserve(NULL, &permit, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_reserve(r.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(r);
    OK(klaw_channel(&klaw_u64, &o, &p.tx, &p.rx));
    GIVES(klaw_reserve(p.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(p);
    OK(klaw_oneshot(&klaw_u64, &p.tx, &p.rx));
    GIVES(klaw_reserve(p.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(p);
    OK(klaw_broadcast(&klaw_u64, NULL, &p.tx, &p.rx));
    GIVES(klaw_reserve(p.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(p);
    OK(klaw_watch(&klaw_u64, &v, &p.tx, &p.rx));
    GIVES(klaw_reserve(p.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(p);
    CHECK(!permit.tx);
    GIVES(klaw_permit_send(&permit, &v), KLAW_INVALID);
    GIVES(klaw_permit_send(NULL, &v), KLAW_INVALID);
    klaw_permit_drop(&permit); /* ignored */
    klaw_permit_drop(NULL);
}

SPEC(reserve_takes_a_slot) {
    klaw_permit a, b, c;
    pair p = chan(2);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    SAME(stats_of(p).permits, 1);
    SAME(stats_of(p).queue_size, 0);
    OK(klaw_reserve(p.tx, &b, KLAW_FOREVER));
    GIVES(klaw_reserve(p.tx, &c, KLAW_NOWAIT), KLAW_FULL);
    GIVES(klaw_reserve(p.tx, &c, PAST), KLAW_TIMEOUT);
    CHECK(!c.tx);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_FULL);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    klaw_permit_drop(&a);
    klaw_permit_drop(&b);
    SAME(stats_of(p).permits, 0);
    pair_free(p);
}

SPEC(reserve_send_goes_into_the_slot_when_it_is_used) {
    klaw_permit a, b;
    uint64_t v = 1;
    pair p = chan(3);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    OK(klaw_reserve(p.tx, &b, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT)); /* comes before what is not there yet */
    OK(klaw_permit_send(&b, &v));
    v = 3;
    OK(klaw_permit_send(&a, &v));
    CHECK(!a.tx && !b.tx);
    GIVES(klaw_permit_send(&a, &v), KLAW_INVALID); /* used up */
    klaw_permit_drop(&a);
    SAME(next_of(p.rx), 2);
    SAME(next_of(p.rx), 1);
    SAME(next_of(p.rx), 3);
    SAME(stats_of(p).permits, 0);
    SAME(stats_of(p).total_sent, 3);
    pair_free(p);
}

SPEC(reserve_dropped_wakes_who_waits_for_a_slot) {
    klaw_permit a, b;
    pair p = chan(1);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    op *s = sends(p.tx, 5, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_permit_drop(&a);
    OK(op_end(s));
    SAME(next_of(p.rx), 5);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    op *r = reserves(p.tx, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_permit_drop(&a);
    OK(job_end(&r->job));
    b = r->permit;
    free(r);
    SAME(stats_of(p).permits, 1);
    klaw_permit_drop(&b);
    pair_free(p);
}

SPEC(reserve_waits_for_room) {
    pair p = chan(1);
    uint64_t v = 2;
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *r = reserves(p.tx, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    SAME(next_of(p.rx), 1);
    OK(job_end(&r->job));
    GIVES(put(p.tx, 3, KLAW_NOWAIT), KLAW_FULL);
    OK(klaw_permit_send(&r->permit, &v));
    free(r);
    SAME(next_of(p.rx), 2);
    pair_free(p);
}

SPEC(reserve_send_hands_over_to_a_waiting_receiver) {
    klaw_permit a;
    uint64_t v = 6;
    pair p = chan(1);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    op *s = sends(p.tx, 7, KLAW_FOREVER); /* hands over itself, or waits for the permit's slot */
    OK(klaw_permit_send(&a, &v));
    OK(op_end(s));
    uint64_t one = op_value(r), two = next_of(p.rx);
    CHECK((one == 6 && two == 7) || (one == 7 && two == 6));
    pair_free(p);
}

SPEC(reserve_answers_closed_when_the_receivers_are_gone) {
    klaw_permit a;
    counted mine = counted_make();
    pair p = chan_of(&counted_type, 2);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    klaw_receiver_close(p.rx);
    GIVES(klaw_permit_send(&a, &mine), KLAW_CLOSED);
    CHECK(!counted_dropped(mine));
    CHECK(!a.tx);
    SAME(stats_of(p).permits, 0);
    GIVES(klaw_reserve(p.tx, &a, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
    counted_drop(&mine);
}

SPEC(reserve_waiting_wakes_on_close_of_either_kind) {
    pair p = chan(1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *r = reserves(p.tx, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_receiver_close(p.rx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
    p = chan(1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    r = reserves(p.tx, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_sender_close(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
}

SPEC(reserve_keeps_the_channel_open_for_receivers_until_it_is_used) {
    klaw_permit a, b;
    uint64_t v = 4;
    pair p = chan(2);
    OK(klaw_reserve(p.tx, &a, KLAW_NOWAIT));
    OK(klaw_reserve(p.tx, &b, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(klaw_permit_send(&a, &v));
    SAME(op_value(r), 4);
    r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_permit_drop(&b);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
}

SPEC_FIBERS(reserve_cancelled_or_timed_out_takes_nothing) {
    pair p = chan(1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *r = reserves(p.tx, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    GIVES(op_end(reserves(p.tx, KLAW_WITHIN(KLAW_MS(1)))), KLAW_TIMEOUT);
    SAME(next_of(p.rx), 1);
    SAME(stats_of(p).permits, 0);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    pair_free(p);
}

SPEC(reserve_on_an_unbounded_channel_is_granted_at_once) {
    pair p = chan(KLAW_UNBOUNDED);
    klaw_permit a[100];
    for (int i = 0; i < 100; i++)
        OK(klaw_reserve(p.tx, &a[i], KLAW_NOWAIT));
    for (uint64_t i = 0; i < 100; i++) {
        if (i % 2)
            OK(klaw_permit_send(&a[i], &i));
        else
            klaw_permit_drop(&a[i]);
    }
    for (uint64_t i = 1; i < 100; i += 2)
        SAME(next_of(p.rx), i);
    pair_free(p);
}

static klaw_err use_permits(void *arg) {
    op *o = arg;
    for (uint64_t i = 0; i < 500; i++) {
        klaw_permit permit;
        klaw_err e = klaw_reserve(o->tx, &permit, KLAW_FOREVER);
        if (e)
            return e;
        if (i % 3 == 0)
            klaw_permit_drop(&permit);
        else
            OK(klaw_permit_send(&permit, &i));
    }
    return KLAW_OK;
}

SPEC(reserve_by_many_hosts_loses_no_slot) {
    pair p = chan(2);
    op *s[4];
    uint64_t n = 4 * (500 - 167);
    for (int i = 0; i < 4; i++)
        s[i] = op_with(op_new(p.tx, NULL, 0, 0), use_permits);
    for (uint64_t i = 0; i < n; i++)
        (void)next_of(p.rx);
    for (int i = 0; i < 4; i++)
        OK(op_end(s[i]));
    SAME(stats_of(p).permits, 0);
    SAME(stats_of(p).total_sent, n);
    SAME(stats_of(p).queue_size, 0);
    CHECK(stats_of(p).high_watermark <= 2);
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserve_refuses_bad_arguments_and_other_kinds),
        cmocka_unit_test(reserve_takes_a_slot),
        cmocka_unit_test(reserve_send_goes_into_the_slot_when_it_is_used),
        cmocka_unit_test(reserve_dropped_wakes_who_waits_for_a_slot),
        cmocka_unit_test(reserve_waits_for_room),
        cmocka_unit_test(reserve_send_hands_over_to_a_waiting_receiver),
        cmocka_unit_test(reserve_answers_closed_when_the_receivers_are_gone),
        cmocka_unit_test(reserve_waiting_wakes_on_close_of_either_kind),
        cmocka_unit_test(reserve_keeps_the_channel_open_for_receivers_until_it_is_used),
        cmocka_unit_test(reserve_cancelled_or_timed_out_takes_nothing),
        cmocka_unit_test(reserve_on_an_unbounded_channel_is_granted_at_once),
        cmocka_unit_test(reserve_by_many_hosts_loses_no_slot),
    };
    return cmocka_run_group_tests_name("channel_reserve", tests, NULL, NULL);
}
