/* SPDX-License-Identifier: Apache-2.0 */
/* test_unbounded.c - channels of capacity KLAW_UNBOUNDED: a send never waits.
 *
 * Tried with this bug seeded into mpmc.c: a ring that grows and forgets the part that had wrapped
 * around. */
#include "support/chans.h"

SPEC(unbounded_send_never_waits) {
    pair p = chan(KLAW_UNBOUNDED);
    for (uint64_t i = 0; i < 50000; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    SAME(stats_of(p).capacity, KLAW_UNBOUNDED);
    SAME(stats_of(p).queue_size, 50000);
    SAME(stats_of(p).high_watermark, 50000);
    for (uint64_t i = 0; i < 50000; i++)
        SAME(next_of(p.rx), i);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(p);
}

SPEC(unbounded_grows_while_wrapped_around) {
    pair p = chan(KLAW_UNBOUNDED);
    uint64_t in = 0, out = 0;
    for (int i = 0; i < 3000; i++) {
        for (int k = 0; k < 5; k++)
            OK(put(p.tx, in++, KLAW_NOWAIT));
        for (int k = 0; k < 3; k++)
            SAME(next_of(p.rx), out++);
    }
    while (out < in)
        SAME(next_of(p.rx), out++);
    pair_free(p);
}

SPEC(unbounded_takes_batches_of_any_size) {
    static uint64_t v[5000];
    size_t got = 0;
    pair p = chan(KLAW_UNBOUNDED);
    OK(put(p.tx, 0, KLAW_NOWAIT));
    for (uint64_t i = 0; i < 5000; i++)
        v[i] = i + 1;
    OK(klaw_send_batch(p.tx, v, 5000, KLAW_NOWAIT));
    memset(v, 0, sizeof v);
    SAME(next_of(p.rx), 0);
    OK(klaw_recv_batch(p.rx, v, 5000, &got, KLAW_NOWAIT));
    SAME(got, 5000);
    for (uint64_t i = 0; i < 5000; i++)
        SAME(v[i], i + 1);
    pair_free(p);
}

SPEC(unbounded_receive_waits_and_is_woken) {
    pair p = chan(KLAW_UNBOUNDED);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    SAME(op_value(r), 2);
    r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_sender_close(p.tx);
    GIVES(op_end(r), KLAW_CLOSED);
    pair_free(p);
}

static klaw_err send_numbers(void *arg) {
    op *o = arg;
    for (uint64_t i = 0; i < 2000; i++)
        OK(put(o->tx, o->n << 32 | i, KLAW_NOWAIT));
    return KLAW_OK;
}

SPEC(unbounded_keeps_the_order_of_each_sender) {
    pair p = chan(KLAW_UNBOUNDED);
    uint64_t next[4] = {0};
    op *s[4];
    for (uint64_t i = 0; i < 4; i++)
        s[i] = op_with(op_new(p.tx, NULL, i, 0), send_numbers);
    for (int i = 0; i < 8000; i++) {
        uint64_t v = next_of(p.rx);
        SAME(v & 0xffffffff, next[v >> 32]++);
    }
    for (int i = 0; i < 4; i++)
        OK(op_end(s[i]));
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unbounded_send_never_waits),
        cmocka_unit_test(unbounded_grows_while_wrapped_around),
        cmocka_unit_test(unbounded_takes_batches_of_any_size),
        cmocka_unit_test(unbounded_receive_waits_and_is_woken),
        cmocka_unit_test(unbounded_keeps_the_order_of_each_sender),
    };
    return cmocka_run_group_tests_name("unbounded", tests, NULL, NULL);
}
