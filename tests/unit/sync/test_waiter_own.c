/* SPDX-License-Identifier: Apache-2.0 */
/* test_waiter_own.c - what a loop may do on its own thread: complete its own operations without a
 * signal (hold, release), and look at what lies in a channel (visit).
 *
 * Tried with a hold that is ignored, and with a visit that starts at the ring's first place. */
#include <poll.h>

#include "klaw/watch.h"
#include "support/chans.h"

static bool readable(klaw_inbox *in) {
    struct pollfd p = {.fd = klaw_inbox_fd(in), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void counts(klaw_op *o, void *user) {
    (void)o;
    ++*(int *)user;
}

static void waits(klaw_op *o, klaw_inbox *in, klaw_receiver *rx, int *calls) {
    bool waiting = false;
    klaw_op_init(o, in, counts, calls);
    OK(klaw_op_recv(o, rx, &waiting));
    CHECK(waiting);
}

SPEC_PLAIN(held_inbox_is_not_signalled_by_its_own_thread) {
    klaw_inbox *in = NULL;
    klaw_op o;
    int calls = 0;
    uint64_t v = 0;
    pair p = chan(1);
    OK(klaw_inbox_open(&in));
    klaw_inbox_hold(in);
    CHECK(!klaw_inbox_release(in));
    waits(&o, in, p.rx, &calls);
    klaw_inbox_hold(in);
    OK(put(p.tx, 6, KLAW_NOWAIT));
    CHECK(!readable(in));
    CHECK(klaw_inbox_release(in));
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(calls, 1);
    OK(klaw_op_finish(&o, &v));
    SAME(v, 6);
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(held_inbox_is_signalled_by_other_threads) {
    klaw_inbox *in = NULL, *other = NULL;
    klaw_op o;
    int calls = 0;
    uint64_t v = 0;
    pair p = chan(1);
    OK(klaw_inbox_open(&in));
    OK(klaw_inbox_open(&other));
    waits(&o, in, p.rx, &calls);
    klaw_inbox_hold(in);
    OK(ended(start(op_send, &(op){.tx = p.tx, .v = {7}, .deadline = KLAW_NOWAIT})));
    CHECK(readable(in));
    CHECK(klaw_inbox_release(in));
    SAME(klaw_inbox_pump(in, 0), 1);
    OK(klaw_op_finish(&o, &v));
    waits(&o, in, p.rx, &calls);
    klaw_inbox_hold(other); /* holding one says nothing of another */
    OK(put(p.tx, 8, KLAW_NOWAIT));
    CHECK(readable(in));
    CHECK(!klaw_inbox_release(other));
    SAME(klaw_inbox_pump(in, 0), 1);
    OK(klaw_op_finish(&o, &v));
    SAME(v, 8);
    klaw_inbox_unref(other);
    klaw_inbox_unref(in);
    pair_free(p);
}

typedef struct seen {
    uint64_t v[8];
    size_t n;
} seen;

static void sees(void *elem, void *user) {
    seen *s = user;
    CHECK(s->n < 8);
    s->v[s->n++] = *(uint64_t *)elem;
}

static seen visit(klaw_receiver *rx) {
    seen s = {.n = 0};
    klaw_receiver_visit(rx, sees, &s);
    return s;
}

SPEC_PLAIN(visit_sees_what_lies_in_a_channel_once) {
    pair p = chan(4);
    SAME(visit(p.rx).n, 0);
    for (uint64_t i = 1; i <= 4; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    SAME(next_of(p.rx), 1);
    seen s = visit(p.rx);
    SAME(s.n, 3);
    for (uint64_t i = 0; i < 3; i++)
        SAME(s.v[i], i + 2);
    klaw_receiver_visit(NULL, sees, &s);
    pair_free(p);
}

SPEC_PLAIN(visit_sees_the_value_of_every_kind) {
    pair p;
    seen s;
    OK(klaw_oneshot(&klaw_u64, &p.tx, &p.rx));
    SAME(visit(p.rx).n, 0);
    OK(put(p.tx, 5, KLAW_NOWAIT));
    s = visit(p.rx);
    SAME(s.n, 1);
    SAME(s.v[0], 5);
    pair_free(p);
    OK(klaw_watch(&klaw_u64, &(uint64_t){6}, &p.tx, &p.rx));
    s = visit(p.rx);
    SAME(s.n, 1);
    SAME(s.v[0], 6);
    pair_free(p);
    OK(klaw_broadcast(&klaw_u64, NULL, &p.tx, &p.rx));
    OK(put(p.tx, 7, KLAW_NOWAIT));
    OK(put(p.tx, 8, KLAW_NOWAIT));
    s = visit(p.rx);
    SAME(s.n, 2);
    SAME(s.v[1], 8);
    pair_free(p);
}

/* --- batches --- */
static void sends_batch_of(klaw_op *o, klaw_inbox *in, klaw_sender *tx, size_t n, int *calls,
                           bool expected) {
    bool waiting = !expected;
    klaw_op_init(o, in, counts, calls);
    OK(klaw_op_send_batch(o, tx, n, &waiting));
    CHECK(waiting == expected);
}

SPEC_PLAIN(batch_of_a_loop_waits_for_all_its_slots) {
    klaw_inbox *in = NULL;
    klaw_op o;
    int calls = 0;
    uint64_t v[3] = {11, 12, 13};
    pair p = chan(3);
    OK(klaw_inbox_open(&in));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    sends_batch_of(&o, in, p.tx, 3, &calls, true);
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_FULL); /* behind it: it must not starve */
    SAME(next_of(p.rx), 1);
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(calls, 1);
    GIVES(put(p.tx, 2, KLAW_NOWAIT), KLAW_FULL); /* the slots are reserved */
    OK(klaw_op_finish(&o, v));
    for (uint64_t i = 11; i <= 13; i++)
        SAME(next_of(p.rx), i);
    sends_batch_of(&o, in, p.tx, 3, &calls, false);
    OK(klaw_op_finish(&o, v));
    SAME(stats_of(p).queue_size, 3);
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(batch_of_a_loop_that_leaves_gives_its_slots_back) {
    klaw_inbox *in = NULL;
    klaw_op o, single;
    int calls = 0, singles = 0;
    uint64_t v = 7;
    bool waiting = false;
    pair p = chan(2);
    OK(klaw_inbox_open(&in));
    sends_batch_of(&o, in, p.tx, 2, &calls, false);
    klaw_op_init(&single, in, counts, &singles);
    OK(klaw_op_send(&single, p.tx, &waiting));
    CHECK(waiting);
    klaw_op_cancel(&o); /* granted: both slots are free again */
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(singles, 1);
    OK(klaw_op_finish(&single, &v));
    sends_batch_of(&o, in, p.tx, 2, &calls, true);
    klaw_op_init(&single, in, counts, &singles);
    OK(klaw_op_send(&single, p.tx, &waiting));
    CHECK(waiting);
    klaw_op_cancel(&o); /* waiting: the one behind it fits */
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(singles, 2);
    OK(klaw_op_finish(&single, &v));
    SAME(calls, 0);
    SAME(stats_of(p).queue_size, 2);
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(batch_of_a_loop_meets_closed_ends_and_limits) {
    klaw_inbox *in = NULL;
    klaw_op o;
    int calls = 0;
    uint64_t v[2] = {1, 2};
    bool waiting = false;
    pair p = chan(2), r = chan(KLAW_RENDEZVOUS);
    OK(klaw_inbox_open(&in));
    klaw_op_init(&o, in, counts, &calls);
    GIVES(klaw_op_send_batch(&o, p.tx, 3, &waiting), KLAW_LIMIT);
    GIVES(klaw_op_send_batch(&o, p.tx, 0, &waiting), KLAW_INVALID);
    GIVES(klaw_op_send_batch(&o, r.tx, 2, &waiting), KLAW_INVALID);
    sends_batch_of(&o, in, p.tx, 2, &calls, false);
    klaw_receiver_close(p.rx);
    GIVES(klaw_op_finish(&o, v), KLAW_CLOSED);
    GIVES(klaw_op_send_batch(&o, p.tx, 2, &waiting), KLAW_CLOSED);
    klaw_inbox_unref(in);
    pair_free(r);
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_inbox_is_not_signalled_by_its_own_thread),
        cmocka_unit_test(held_inbox_is_signalled_by_other_threads),
        cmocka_unit_test(visit_sees_what_lies_in_a_channel_once),
        cmocka_unit_test(visit_sees_the_value_of_every_kind),
        cmocka_unit_test(batch_of_a_loop_waits_for_all_its_slots),
        cmocka_unit_test(batch_of_a_loop_that_leaves_gives_its_slots_back),
        cmocka_unit_test(batch_of_a_loop_meets_closed_ends_and_limits),
    };
    return cmocka_run_group_tests_name("waiter_own", tests, NULL, NULL);
}
