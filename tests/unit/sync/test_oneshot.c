/* SPDX-License-Identifier: Apache-2.0 */
/* test_oneshot.c - one value, once.
 *
 * Tried with these bugs seeded into oneshot.c: a close that does not wake the receiver, a second
 * send that replaces the first. */
#include "support/chans.h"

static pair oneshot_of(const klaw_type *type) {
    pair p;
    OK(klaw_oneshot(type, &p.tx, &p.rx));
    return p;
}
static pair oneshot(void) {
    return oneshot_of(&klaw_u64);
}

SPEC_PLAIN(oneshot_refuses_bad_arguments) {
    pair p = {NULL, NULL}, q = {NULL, NULL};
    klaw_type t = klaw_u64;
    GIVES(klaw_oneshot(NULL, &p.tx, &p.rx), KLAW_INVALID);
    GIVES(klaw_oneshot(&klaw_u64, NULL, &p.rx), KLAW_INVALID);
    GIVES(klaw_oneshot(&klaw_u64, &p.tx, NULL), KLAW_INVALID);
    t.size = 0;
    GIVES(klaw_oneshot(&t, &p.tx, &p.rx), KLAW_INVALID);
    t.size = KLAW_ELEM_MAX + 1;
    GIVES(klaw_oneshot(&t, &p.tx, &p.rx), KLAW_LIMIT);
    CHECK(!p.tx && !p.rx);
    p = oneshot();
    GIVES(klaw_sender_clone(p.tx, &q.tx), KLAW_INVALID);
    GIVES(klaw_receiver_clone(p.rx, &q.rx), KLAW_INVALID);
    SAME(stats_of(p).sender_count, 1);
    CHECK(strcmp(stats_of(p).kind, "oneshot") == 0);
    pair_free(p);
}

SPEC(oneshot_gives_its_value_once) {
    pair p = oneshot();
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(nothing_of(p.rx, PAST), KLAW_TIMEOUT);
    OK(put(p.tx, 7, KLAW_NOWAIT));
    SAME(stats_of(p).queue_size, 1);
    SAME(next_of(p.rx), 7);
    SAME(stats_of(p).total_sent, 1);
    SAME(stats_of(p).total_received, 1);
    for (int i = 0; i < 2; i++) {
        GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
        GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
    }
    pair_free(p);
}

SPEC(oneshot_takes_one_send_only) {
    pair p = oneshot();
    OK(put(p.tx, 1, KLAW_NOWAIT));
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(put(p.tx, 2, KLAW_FOREVER), KLAW_CLOSED);
    SAME(next_of(p.rx), 1);
    GIVES(put(p.tx, 3, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
}

SPEC(oneshot_receiver_waits_for_the_value) {
    pair p = oneshot();
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 8, KLAW_NOWAIT));
    SAME(op_value(r), 8);
    GIVES(put(p.tx, 9, KLAW_NOWAIT), KLAW_CLOSED);
    pair_free(p);
}

SPEC(oneshot_gives_one_of_several_waiters_the_value_and_the_others_closed) {
    pair p = oneshot();
    op *r[4];
    int got = 0;
    for (int i = 0; i < 4; i++)
        r[i] = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 4);
    OK(put(p.tx, 8, KLAW_NOWAIT));
    for (int i = 0; i < 4; i++) {
        klaw_err e = job_end(&r[i]->job);
        if (e == KLAW_OK) {
            SAME(r[i]->v[0], 8);
            got++;
        } else {
            GIVES(e, KLAW_CLOSED);
        }
        free(r[i]);
    }
    SAME(got, 1);
    pair_free(p);
}

SPEC(oneshot_sender_that_goes_is_an_error_and_never_a_hang) {
    pair p = oneshot();
    klaw_sender_close(p.tx);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_CLOSED);
    pair_free(p);
    p = oneshot();
    op *r = receives(p.rx, KLAW_FOREVER), *r2 = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 2);
    klaw_sender_unref(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    GIVES(op_end(r2), KLAW_CLOSED);
    klaw_receiver_unref(p.rx);
}

SPEC(oneshot_value_outlives_its_sender) {
    pair p = oneshot();
    OK(put(p.tx, 5, KLAW_NOWAIT));
    klaw_sender_unref(p.tx);
    SAME(next_of(p.rx), 5);
    klaw_receiver_unref(p.rx);
}

SPEC(oneshot_receiver_that_goes_leaves_the_value_to_its_sender) {
    counted mine = counted_make();
    pair p = oneshot_of(&counted_type);
    klaw_receiver_close(p.rx);
    GIVES(klaw_send(p.tx, &mine, KLAW_NOWAIT), KLAW_CLOSED);
    pair_free(p);
    CHECK(!counted_dropped(mine));
    counted_drop(&mine);
}

SPEC(oneshot_drops_a_value_nobody_took_once) {
    for (int how = 0; how < 3; how++) {
        counted c = counted_make();
        pair p = oneshot_of(&counted_type);
        OK(klaw_send(p.tx, &c, KLAW_NOWAIT));
        if (how == 0)
            klaw_receiver_close(p.rx);
        else if (how == 1)
            klaw_sender_close(p.tx);
        CHECK(counted_dropped(c) == (how == 0));
        pair_free(p);
        CHECK(counted_dropped(c));
        SAME(counted_alive(), 0);
    }
}

SPEC(oneshot_wait_that_timed_out_may_be_tried_again) {
    pair p = oneshot();
    GIVES(nothing_of(p.rx, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    OK(put(p.tx, 3, KLAW_NOWAIT));
    SAME(next_of(p.rx), 3);
    pair_free(p);
}

SPEC_FIBERS(oneshot_wait_that_was_cancelled_loses_nothing) {
    pair p = oneshot();
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    op_cancel(r);
    GIVES(op_end(r), KLAW_CANCELLED);
    OK(put(p.tx, 3, KLAW_NOWAIT));
    SAME(next_of(p.rx), 3);
    pair_free(p);
}

SPEC(oneshot_send_close_and_receive_may_race) {
    for (int i = 0; i < 300; i++) {
        pair p = oneshot_of(&counted_type);
        counted mine = counted_make();
        op *s = op_new(p.tx, NULL, 1, KLAW_NOWAIT);
        memcpy(s->v, &mine, sizeof mine);
        op_with(s, op_send);
        op *r = receives(p.rx, KLAW_FOREVER);
        if (i % 3 == 0)
            klaw_receiver_close(p.rx);
        if (i % 3 == 1)
            klaw_sender_close(p.tx);
        klaw_err e = op_end(s), er = job_end(&r->job);
        if (er == KLAW_OK) {
            OK(e);
            SAME(r->v[0], mine.id);
        }
        free(r);
        if (e != KLAW_OK || er == KLAW_OK)
            counted_drop(&mine);
        pair_free(p);
        CHECK(counted_dropped(mine));
    }
    SAME(counted_alive(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oneshot_refuses_bad_arguments),
        cmocka_unit_test(oneshot_gives_its_value_once),
        cmocka_unit_test(oneshot_takes_one_send_only),
        cmocka_unit_test(oneshot_receiver_waits_for_the_value),
        cmocka_unit_test(oneshot_gives_one_of_several_waiters_the_value_and_the_others_closed),
        cmocka_unit_test(oneshot_sender_that_goes_is_an_error_and_never_a_hang),
        cmocka_unit_test(oneshot_value_outlives_its_sender),
        cmocka_unit_test(oneshot_receiver_that_goes_leaves_the_value_to_its_sender),
        cmocka_unit_test(oneshot_drops_a_value_nobody_took_once),
        cmocka_unit_test(oneshot_wait_that_timed_out_may_be_tried_again),
        cmocka_unit_test(oneshot_wait_that_was_cancelled_loses_nothing),
        cmocka_unit_test(oneshot_send_close_and_receive_may_race),
    };
    return cmocka_run_group_tests_name("oneshot", tests, NULL, NULL);
}
