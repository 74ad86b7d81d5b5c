/* SPDX-License-Identifier: Apache-2.0 */
/* test_one_to_one.c - the lock-free ring between one sender and one receiver.
 *
 * Tried with these bugs seeded into ring1.c: no look at the waiting flag after the index is
 * published, a copy of the other side's index that is never refreshed, a ring not dropped. */
#include "support/chans.h"

static pair ring_of(const klaw_type *type, int64_t capacity) {
    klaw_channel_opts o = {.capacity = capacity, .one_to_one = true};
    pair p;
    OK(klaw_channel(type, &o, &p.tx, &p.rx));
    return p;
}
static pair ring(int64_t capacity) {
    return ring_of(&klaw_u64, capacity);
}

SPEC_PLAIN(one_to_one_refuses_what_it_cannot) {
    pair p = ring(4), q = {NULL, NULL};
    klaw_permit permit;
    uint64_t v = 0;
    size_t chosen;
    GIVES(klaw_sender_clone(p.tx, &q.tx), KLAW_INVALID);
    GIVES(klaw_receiver_clone(p.rx, &q.rx), KLAW_INVALID);
    GIVES(klaw_reserve(p.tx, &permit, KLAW_NOWAIT), KLAW_INVALID);
    klaw_case c = klaw_case_recv(p.rx, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c = klaw_case_send(p.tx, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    CHECK(strcmp(stats_of(p).kind, "one_to_one") == 0);
    pair_free(p);
}

SPEC(one_to_one_is_a_bounded_queue) {
    for (int64_t cap = 1; cap < 20; cap++) {
        pair p = ring(cap);
        uint64_t in = 0, out = 0;
        for (int i = 0; i < 50; i++) {
            while (put(p.tx, in, KLAW_NOWAIT) == KLAW_OK)
                in++;
            SAME(in - out, cap);
            SAME(stats_of(p).queue_size, cap);
            GIVES(put(p.tx, in, PAST), KLAW_TIMEOUT);
            for (int64_t k = 0; k <= i % cap; k++)
                SAME(next_of(p.rx), out++);
        }
        while (out < in)
            SAME(next_of(p.rx), out++);
        GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
        GIVES(nothing_of(p.rx, PAST), KLAW_TIMEOUT);
        SAME(stats_of(p).total_sent, in);
        SAME(stats_of(p).total_received, out);
        pair_free(p);
    }
}

SPEC(one_to_one_remembers_its_high_watermark) {
    pair p = ring(8);
    for (uint64_t i = 0; i < 6; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 6; i++)
        SAME(next_of(p.rx), i);
    SAME(stats_of(p).high_watermark, 6);
    pair_free(p);
}

SPEC(one_to_one_waits_on_both_sides) {
    pair p = ring(2);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(op_value(r), 1);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    OK(put(p.tx, 3, KLAW_NOWAIT));
    op *s = sends(p.tx, 4, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    for (uint64_t i = 2; i < 5; i++)
        SAME(next_of(p.rx), i);
    OK(op_end(s));
    pair_free(p);
}

SPEC(one_to_one_waits_end_at_their_deadline) {
    pair p = ring(1);
    int64_t from = klaw_now();
    GIVES(nothing_of(p.rx, KLAW_WITHIN(KLAW_MS(3))), KLAW_TIMEOUT);
    CHECK(klaw_now() - from >= KLAW_MS(3));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    GIVES(put(p.tx, 2, KLAW_WITHIN(KLAW_MS(3))), KLAW_TIMEOUT);
    SAME(next_of(p.rx), 1);
    OK(put(p.tx, 3, KLAW_NOWAIT)); /* a wait that ended leaves nothing behind */
    SAME(next_of(p.rx), 3);
    pair_free(p);
}

SPEC(one_to_one_closes_and_drains) {
    pair p = ring(4);
    for (uint64_t i = 0; i < 3; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    GIVES(put(p.tx, 9, KLAW_NOWAIT), KLAW_CLOSED);
    for (uint64_t i = 0; i < 3; i++)
        SAME(next_of(p.rx), i);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
    p = ring(4);
    klaw_receiver_close(p.rx);
    GIVES(put(p.tx, 9, KLAW_FOREVER), KLAW_CLOSED);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
}

SPEC(one_to_one_close_wakes_either_side) {
    pair p = ring(1);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_sender_close(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
    p = ring(1);
    r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_receiver_close(p.rx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
    p = ring(1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *s = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_receiver_close(p.rx);
    GIVES(op_end(s), KLAW_CLOSED);
    pair_free(p);
}

SPEC_FIBERS(one_to_one_cancelled_waits_leave_nothing_behind) {
    pair p = ring(1);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *s = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op_cancel(s);
    GIVES(op_end(s), KLAW_CANCELLED);
    SAME(next_of(p.rx), 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC(one_to_one_drops_what_nobody_receives_once) {
    pair p = ring_of(&counted_type, 8);
    counted a = counted_make(), b = counted_make(), got;
    OK(klaw_send(p.tx, &a, KLAW_NOWAIT));
    OK(klaw_send(p.tx, &b, KLAW_NOWAIT));
    OK(klaw_recv(p.rx, &got, KLAW_NOWAIT));
    SAME(got.id, a.id);
    pair_free(p);
    CHECK(!counted_dropped(a) && counted_dropped(b));
    counted_drop(&got);
    SAME(counted_alive(), 0);
}

SPEC(one_to_one_takes_batches) {
    uint64_t v[16], in = 0, out = 0;
    size_t got = 0;
    pair p = ring(10);
    GIVES(klaw_send_batch(p.tx, v, 11, KLAW_NOWAIT), KLAW_LIMIT);
    for (int i = 0; i < 300; i++) {
        size_t n = (size_t)(1 + i % 10);
        for (size_t k = 0; k < n; k++)
            v[k] = in + k;
        klaw_err e = klaw_send_batch(p.tx, v, n, KLAW_NOWAIT);
        if (e == KLAW_OK)
            in += n;
        else
            GIVES(e, KLAW_FULL);
        OK(klaw_recv_batch(p.rx, v, 1 + (size_t)i % 16, &got, KLAW_NOWAIT));
        for (size_t k = 0; k < got; k++)
            SAME(v[k], out++);
    }
    SAME(stats_of(p).queue_size, in - out);
    pair_free(p);
}

static klaw_err send_in_order(void *arg) {
    op *o = arg;
    for (uint64_t i = 0; i < o->n * 1000; i++) {
        klaw_deadline d = i % 7 == 0 ? KLAW_WITHIN(KLAW_US(i % 50 + 1)) : KLAW_FOREVER;
        while (put(o->tx, i, d) != KLAW_OK)
            ;
    }
    klaw_sender_close(o->tx);
    return KLAW_OK;
}

SPEC(one_to_one_loses_no_wake_up) {
    for (int64_t cap = 1; cap < 40; cap = cap * 3 + 1) {
        pair p = ring(cap);
        op *s = op_with(op_new(p.tx, NULL, 4, 0), send_in_order);
        uint64_t v = 0, want = 0;
        klaw_err e;
        do {
            e = take(p.rx, &v, want % 5 == 0 ? KLAW_WITHIN(KLAW_US(want % 40 + 1)) : KLAW_FOREVER);
            if (e == KLAW_OK)
                SAME(v, want++);
        } while (e != KLAW_CLOSED);
        SAME(want, 4000);
        OK(op_end(s));
        pair_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_to_one_refuses_what_it_cannot),
        cmocka_unit_test(one_to_one_is_a_bounded_queue),
        cmocka_unit_test(one_to_one_waits_on_both_sides),
        cmocka_unit_test(one_to_one_waits_end_at_their_deadline),
        cmocka_unit_test(one_to_one_closes_and_drains),
        cmocka_unit_test(one_to_one_close_wakes_either_side),
        cmocka_unit_test(one_to_one_cancelled_waits_leave_nothing_behind),
        cmocka_unit_test(one_to_one_drops_what_nobody_receives_once),
        cmocka_unit_test(one_to_one_takes_batches),
        cmocka_unit_test(one_to_one_loses_no_wake_up),
        cmocka_unit_test(one_to_one_remembers_its_high_watermark),
    };
    return cmocka_run_group_tests_name("one_to_one", tests, NULL, NULL);
}
