/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_batch.c - batches: all or nothing, adjacent, never starved, never in the others'
 * way.
 *
 * Tried with these bugs seeded into mpmc.c and chan.c: a batch that goes in as soon as one element
 * fits, senders that overtake a waiting batch, a leaving batch that does not let others in. */
#include "support/chans.h"

SPEC_PLAIN(batch_refuses_bad_arguments) {
    uint64_t v[8] = {0};
    size_t got = 5;
    pair p = chan(4), r = chan(KLAW_RENDEZVOUS), u = chan(KLAW_UNBOUNDED), o;
    OK(klaw_oneshot(&klaw_u64, &o.tx, &o.rx));
    OK(klaw_send_batch(p.tx, v, 0, KLAW_NOWAIT));
    OK(klaw_send_batch(p.tx, NULL, 0, KLAW_NOWAIT));
    GIVES(klaw_send_batch(p.tx, v, 5, KLAW_NOWAIT), KLAW_LIMIT);
    GIVES(klaw_send_batch(r.tx, v, 2, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_send_batch(o.tx, v, 2, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_recv_batch(p.rx, v, 0, &got, KLAW_NOWAIT), KLAW_INVALID);
    SAME(got, 0);
    got = 5;
    GIVES(klaw_recv_batch(p.rx, v, 1, &got, KLAW_NOWAIT), KLAW_EMPTY);
    SAME(got, 0);
    got = 5;
    GIVES(klaw_recv_batch(p.rx, v, 1, &got, PAST), KLAW_TIMEOUT);
    SAME(got, 0);
    SAME(stats_of(p).total_sent, 0);
    OK(klaw_send_batch(u.tx, v, 8, KLAW_NOWAIT));
    pair_free(p);
    pair_free(r);
    pair_free(u);
    pair_free(o);
}

SPEC(batch_goes_in_whole_or_not_at_all) {
    uint64_t v[4] = {1, 2, 3, 4};
    pair p = chan(4);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    GIVES(klaw_send_batch(p.tx, v, 4, KLAW_NOWAIT), KLAW_FULL);
    GIVES(klaw_send_batch(p.tx, v, 4, PAST), KLAW_TIMEOUT);
    GIVES(klaw_send_batch(p.tx, v, 4, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    SAME(stats_of(p).queue_size, 1);
    OK(klaw_send_batch(p.tx, v, 3, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 4; i++)
        SAME(next_of(p.rx), i);
    pair_free(p);
}

SPEC(batch_waits_until_all_of_it_fits) {
    pair p = chan(4);
    for (uint64_t i = 0; i < 3; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    op *b = sends_batch(p.tx, 10, 4, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    for (uint64_t i = 0; i < 2; i++) {
        SAME(next_of(p.rx), i);
        SAME(WAITING_SENDERS(p), 1);
    }
    SAME(next_of(p.rx), 2);
    OK(op_end(b));
    SAME(stats_of(p).queue_size, 4);
    for (uint64_t i = 10; i < 14; i++)
        SAME(next_of(p.rx), i);
    pair_free(p);
}

SPEC(batch_is_received_by_waiting_receivers_in_order) {
    uint64_t v[4] = {1, 2, 3, 4};
    pair p = chan(4);
    op *r[3];
    for (uint64_t i = 0; i < 3; i++) {
        r[i] = receives(p.rx, KLAW_FOREVER);
        UNTIL(WAITING_RECEIVERS(p) == i + 1);
    }
    OK(klaw_send_batch(p.tx, v, 4, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 3; i++)
        SAME(op_value(r[i]), i + 1);
    SAME(next_of(p.rx), 4);
    pair_free(p);
}

static klaw_err send_many_batches(void *arg) {
    op *o = arg;
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t v[5];
        for (uint64_t k = 0; k < 5; k++)
            v[k] = o->n << 32 | (i * 5 + k);
        klaw_err e = klaw_send_batch(o->tx, v, 5, KLAW_FOREVER);
        if (e)
            return e;
    }
    return KLAW_OK;
}

SPEC(batch_elements_stay_adjacent_among_other_senders) {
    pair p = chan(7);
    op *s[3];
    uint64_t next[3] = {0};
    for (uint64_t i = 0; i < 3; i++)
        s[i] = op_with(op_new(p.tx, NULL, i, KLAW_FOREVER), send_many_batches);
    for (int i = 0; i < 3 * 200; i++) {
        uint64_t v = next_of(p.rx), who = v >> 32;
        SAME(v & 0xffffffff, next[who]);
        for (uint64_t k = 1; k < 5; k++)
            SAME(next_of(p.rx), v + k);
        next[who] += 5;
    }
    for (int i = 0; i < 3; i++)
        OK(op_end(s[i]));
    pair_free(p);
}

SPEC(batch_that_waits_is_not_overtaken_for_ever) {
    pair p = chan(4);
    for (uint64_t i = 0; i < 4; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    op *big = sends_batch(p.tx, 10, 4, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    for (uint64_t i = 0; i < 3; i++) {
        SAME(next_of(p.rx), i);
        GIVES(put(p.tx, 99, KLAW_NOWAIT), KLAW_FULL); /* there is room, but it is the batch's */
    }
    SAME(next_of(p.rx), 3);
    OK(op_end(big));
    SAME(next_of(p.rx), 10);
    OK(put(p.tx, 14, KLAW_NOWAIT));
    for (uint64_t i = 11; i < 15; i++)
        SAME(next_of(p.rx), i);
    pair_free(p);
}

SPEC(batch_that_gives_up_lets_the_others_in) {
    pair p = chan(4);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *big = sends_batch(p.tx, 10, 3, KLAW_WITHIN(KLAW_MS(30)));
    UNTIL(WAITING_SENDERS(p) == 1 || stats_of(p).queue_size != 2 || atomic_load(&big->job.done));
    op *small = sends(p.tx, 2, KLAW_FOREVER);
    GIVES(op_end(big), KLAW_TIMEOUT);
    OK(op_end(small));
    for (uint64_t i = 0; i < 3; i++)
        SAME(next_of(p.rx), i);
    pair_free(p);
}

SPEC(batch_whose_handle_closes_lets_the_others_in) {
    pair p = chan(4);
    klaw_sender *tx2;
    OK(klaw_sender_clone(p.tx, &tx2));
    OK(put(p.tx, 0, KLAW_NOWAIT));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *big = sends_batch(tx2, 10, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op *small = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 2);
    klaw_sender_close(tx2);
    GIVES(op_end(big), KLAW_CLOSED);
    OK(op_end(small)); /* nobody receives meanwhile */
    for (uint64_t i = 0; i < 3; i++)
        SAME(next_of(p.rx), i);
    klaw_sender_unref(tx2);
    pair_free(p);
}

SPEC_FIBERS(batch_that_is_cancelled_lets_the_others_in) {
    pair p = chan(4);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    op *big = sends_batch(p.tx, 10, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op *small = sends(p.tx, 2, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 2);
    op_cancel(big);
    GIVES(op_end(big), KLAW_CANCELLED);
    OK(op_end(small));
    pair_free(p);
}

SPEC(batch_larger_than_the_ring_so_far_does_not_stall) {
    pair p = chan(40); /* rings start smaller than that */
    OK(put(p.tx, 0, KLAW_NOWAIT));
    op *big = sends_batch(p.tx, 100, 40, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    op *small = sends(p.tx, 1, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 2);
    bool seen_small = false;
    SAME(next_of(p.rx), 0);
    for (uint64_t i = 0; i < 41; i++) {
        uint64_t v = next_of(p.rx);
        if (v == 1) {
            CHECK(i == 0 || i == 40); /* before or after, not between */
            seen_small = true;
        } else {
            SAME(v, 100 + i - (seen_small ? 1 : 0));
        }
    }
    CHECK(seen_small);
    OK(op_end(big));
    OK(op_end(small));
    pair_free(p);
}

SPEC(batch_receive_takes_what_is_there) {
    uint64_t v[8];
    size_t got = 0;
    pair p = chan(8);
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    OK(klaw_recv_batch(p.rx, v, 3, &got, KLAW_NOWAIT));
    SAME(got, 3);
    for (uint64_t i = 0; i < 3; i++)
        SAME(v[i], i);
    OK(klaw_recv_batch(p.rx, v, 8, &got, KLAW_FOREVER));
    SAME(got, 2);
    SAME(v[0], 3);
    SAME(v[1], 4);
    pair_free(p);
}

SPEC(batch_receive_waits_for_the_first) {
    pair p = chan(8);
    op *r = receives_batch(p.rx, 8, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 7, KLAW_NOWAIT));
    OK(job_end(&r->job));
    SAME(r->got, 1);
    SAME(r->v[0], 7);
    free(r);
    pair_free(p);
}

SPEC(batch_receive_lets_waiting_senders_in) {
    uint64_t v[4];
    size_t got;
    pair p = chan(4);
    op *s[4];
    for (uint64_t i = 0; i < 4; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 4; i++) {
        s[i] = sends(p.tx, 4 + i, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) == i + 1);
    }
    OK(klaw_recv_batch(p.rx, v, 4, &got, KLAW_NOWAIT));
    SAME(got, 4);
    for (int i = 0; i < 4; i++)
        OK(op_end(s[i]));
    OK(klaw_recv_batch(p.rx, v, 4, &got, KLAW_NOWAIT));
    SAME(got, 4);
    for (uint64_t i = 0; i < 4; i++)
        SAME(v[i], 4 + i);
    pair_free(p);
}

SPEC(batch_receive_drains_and_then_answers_closed) {
    uint64_t v[8] = {1, 2, 3};
    size_t got = 9;
    pair p = chan(8);
    OK(klaw_send_batch(p.tx, v, 3, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    OK(klaw_recv_batch(p.rx, v, 8, &got, KLAW_FOREVER));
    SAME(got, 3);
    GIVES(klaw_recv_batch(p.rx, v, 8, &got, KLAW_FOREVER), KLAW_CLOSED);
    SAME(got, 0);
    pair_free(p);
}

SPEC(batch_crosses_the_end_of_the_ring) {
    pair p = chan(32);
    uint64_t in = 0, out = 0, v[32];
    for (int i = 0; i < 200; i++) {
        size_t n = (size_t)(1 + i * 7 % 31), got = 0;
        for (size_t k = 0; k < n; k++)
            v[k] = in++;
        OK(klaw_send_batch(p.tx, v, n, KLAW_NOWAIT));
        for (size_t left = n; left > 0; left -= got) {
            OK(klaw_recv_batch(p.rx, v, 1 + left / 2, &got, KLAW_NOWAIT));
            for (size_t k = 0; k < got; k++)
                SAME(v[k], out++);
        }
    }
    SAME(in, out);
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_refuses_bad_arguments),
        cmocka_unit_test(batch_goes_in_whole_or_not_at_all),
        cmocka_unit_test(batch_waits_until_all_of_it_fits),
        cmocka_unit_test(batch_is_received_by_waiting_receivers_in_order),
        cmocka_unit_test(batch_elements_stay_adjacent_among_other_senders),
        cmocka_unit_test(batch_that_waits_is_not_overtaken_for_ever),
        cmocka_unit_test(batch_that_gives_up_lets_the_others_in),
        cmocka_unit_test(batch_that_is_cancelled_lets_the_others_in),
        cmocka_unit_test(batch_receive_takes_what_is_there),
        cmocka_unit_test(batch_receive_waits_for_the_first),
        cmocka_unit_test(batch_receive_lets_waiting_senders_in),
        cmocka_unit_test(batch_receive_drains_and_then_answers_closed),
        cmocka_unit_test(batch_crosses_the_end_of_the_ring),
        cmocka_unit_test(batch_whose_handle_closes_lets_the_others_in),
        cmocka_unit_test(batch_larger_than_the_ring_so_far_does_not_stall),
    };
    return cmocka_run_group_tests_name("channel_batch", tests, NULL, NULL);
}
