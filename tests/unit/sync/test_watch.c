/* SPDX-License-Identifier: Apache-2.0 */
/* test_watch.c - the latest value, and who wants to know when it changes.
 *
 * Tried with these bugs seeded into watch.c: a borrowed view that changes with the next send, a
 * last value that is lost with the last sender, a subscriber that counts the present value as
 * seen. */
#include "support/chans.h"

static pair watch_of(const klaw_type *type, const void *initial) {
    pair p;
    OK(klaw_watch(type, initial, &p.tx, &p.rx));
    return p;
}
static pair watch(uint64_t initial) {
    return watch_of(&klaw_u64, &initial);
}
static bool changed(klaw_receiver *rx) {
    bool yes = false;
    OK(klaw_watch_has_changed(rx, &yes));
    return yes;
}
static uint64_t look(klaw_receiver *rx) {
    const void *view = NULL;
    OK(klaw_watch_borrow(rx, &view));
    uint64_t v = *(const uint64_t *)view;
    klaw_watch_release(rx, view);
    return v;
}

SPEC_PLAIN(watch_refuses_bad_arguments) {
    uint64_t v = 1;
    bool yes;
    const void *view;
    klaw_type t = klaw_u64;
    klaw_receiver *rx = NULL;
    pair p = {NULL, NULL}, q = chan(1);
    GIVES(klaw_watch(NULL, &v, &p.tx, &p.rx), KLAW_INVALID);
    GIVES(klaw_watch(&klaw_u64, NULL, &p.tx, &p.rx), KLAW_INVALID);
    GIVES(klaw_watch(&klaw_u64, &v, NULL, &p.rx), KLAW_INVALID);
    GIVES(klaw_watch(&klaw_u64, &v, &p.tx, NULL), KLAW_INVALID);
    t.size = KLAW_ELEM_MAX + 1;
    GIVES(klaw_watch(&t, &v, &p.tx, &p.rx), KLAW_LIMIT);
    t = counted_type;
    t.share = NULL;
    GIVES(klaw_watch(&t, &v, &p.tx, &p.rx), KLAW_TYPE);
    CHECK(!p.tx && !p.rx);
    GIVES(klaw_watch_changed(q.rx, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_watch_changed(NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_watch_has_changed(q.rx, &yes), KLAW_INVALID);
    GIVES(klaw_watch_borrow(q.rx, &view), KLAW_INVALID);
    GIVES(klaw_watch_subscribe(q.tx, &rx), KLAW_INVALID);
    p = watch(1);
    GIVES(klaw_watch_has_changed(p.rx, NULL), KLAW_INVALID);
    GIVES(klaw_watch_borrow(p.rx, NULL), KLAW_INVALID);
    GIVES(klaw_watch_subscribe(p.tx, NULL), KLAW_INVALID);
    klaw_watch_release(p.rx, NULL);
    CHECK(!rx && strcmp(stats_of(p).kind, "watch") == 0);
    pair_free(p);
    pair_free(q);
}

SPEC(watch_initial_value_counts_as_seen) {
    pair p = watch(5);
    CHECK(!changed(p.rx));
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(nothing_of(p.rx, PAST), KLAW_TIMEOUT);
    GIVES(klaw_watch_changed(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    SAME(look(p.rx), 5);
    pair_free(p);
}

SPEC(watch_keeps_the_latest_value_only) {
    pair p = watch(0);
    for (uint64_t i = 1; i <= 100; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    CHECK(changed(p.rx));
    SAME(next_of(p.rx), 100);
    CHECK(!changed(p.rx));
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    OK(put(p.tx, 100, KLAW_NOWAIT)); /* an equal value is a new one too */
    SAME(next_of(p.rx), 100);
    SAME(stats_of(p).total_sent, 101);
    pair_free(p);
}

SPEC(watch_receivers_see_for_themselves) {
    pair p = watch(0);
    klaw_receiver *twin, *late;
    OK(klaw_receiver_clone(p.rx, &twin));
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(next_of(p.rx), 1);
    CHECK(changed(twin));
    OK(klaw_watch_subscribe(p.tx, &late));
    CHECK(changed(late)); /* the present value is unseen there */
    SAME(next_of(late), 1);
    SAME(next_of(twin), 1);
    GIVES(nothing_of(late, KLAW_NOWAIT), KLAW_EMPTY);
    klaw_receiver_unref(twin);
    klaw_receiver_unref(late);
    pair_free(p);
}

SPEC(watch_clone_has_seen_what_the_original_has) {
    pair p = watch(0);
    klaw_receiver *a, *b;
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(klaw_receiver_clone(p.rx, &a));
    SAME(next_of(p.rx), 1);
    OK(klaw_receiver_clone(p.rx, &b));
    CHECK(changed(a) && !changed(b));
    klaw_receiver_unref(a);
    klaw_receiver_unref(b);
    pair_free(p);
}

SPEC(watch_changed_waits_and_marks_seen) {
    pair p = watch(0);
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    SAME(op_value(r), 1);
    OK(put(p.tx, 2, KLAW_NOWAIT));
    OK(klaw_watch_changed(p.rx, KLAW_FOREVER));
    CHECK(!changed(p.rx));
    GIVES(klaw_watch_changed(p.rx, PAST), KLAW_TIMEOUT);
    SAME(look(p.rx), 2);
    pair_free(p);
}

static klaw_err op_changed(void *arg) {
    op *o = arg;
    return klaw_watch_changed(o->rx, o->deadline);
}

SPEC(watch_send_wakes_everyone_who_waits) {
    pair p = watch(0);
    klaw_receiver *rx[4];
    op *r[4];
    for (int i = 0; i < 4; i++) {
        OK(klaw_receiver_clone(p.rx, &rx[i]));
        r[i] = op_with(op_new(NULL, rx[i], 1, KLAW_FOREVER), i % 2 ? op_recv : op_changed);
    }
    UNTIL(WAITING_RECEIVERS(p) == 4);
    OK(put(p.tx, 3, KLAW_NOWAIT));
    for (int i = 0; i < 4; i++) {
        OK(op_end(r[i]));
        klaw_receiver_unref(rx[i]);
    }
    pair_free(p);
}

SPEC(watch_last_value_stays_readable_after_close) {
    pair p = watch(0);
    bool yes = false;
    OK(put(p.tx, 4, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    OK(klaw_watch_has_changed(p.rx, &yes));
    CHECK(yes);
    SAME(next_of(p.rx), 4);
    GIVES(klaw_watch_has_changed(p.rx, &yes), KLAW_CLOSED);
    GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    GIVES(klaw_watch_changed(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    SAME(look(p.rx), 4); /* still */
    GIVES(put(p.tx, 5, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_receiver *rx = NULL;
    GIVES(klaw_watch_subscribe(p.tx, &rx), KLAW_CLOSED);
    pair_free(p);
}

SPEC(watch_close_wakes_who_waits) {
    pair p = watch(0);
    klaw_receiver *rx;
    const void *view;
    OK(klaw_receiver_clone(p.rx, &rx));
    op *one = receives(p.rx, KLAW_FOREVER), *two = receives(rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 2);
    klaw_receiver_close(rx);
    GIVES(op_end(two), KLAW_CLOSED);
    GIVES(klaw_watch_borrow(rx, &view), KLAW_CLOSED);
    klaw_sender_close(p.tx);
    GIVES(op_end(one), KLAW_CLOSED);
    klaw_receiver_unref(rx);
    pair_free(p);
}

SPEC(watch_view_stays_while_newer_values_come) {
    pair p = watch(1);
    const void *old, *new;
    OK(klaw_watch_borrow(p.rx, &old));
    for (uint64_t i = 2; i < 10; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    SAME(*(const uint64_t *)old, 1);
    CHECK(changed(p.rx));
    OK(klaw_watch_borrow(p.rx, &new));
    CHECK(!changed(p.rx)); /* a view marks it seen */
    SAME(*(const uint64_t *)new, 9);
    SAME(*(const uint64_t *)old, 1);
    klaw_watch_release(p.rx, new);
    klaw_watch_release(p.rx, old);
    OK(put(p.tx, 10, KLAW_NOWAIT));
    SAME(look(p.rx), 10);
    pair_free(p);
}

SPEC(watch_drops_each_value_once) {
    counted c = counted_make(), got;
    const void *view;
    pair p = watch_of(&counted_type, &c);
    OK(klaw_watch_borrow(p.rx, &view));
    for (int i = 0; i < 5; i++) {
        counted next = counted_make();
        OK(klaw_send(p.tx, &next, KLAW_NOWAIT));
    }
    SAME(counted_alive(), 2); /* the latest, and the one in view */
    CHECK(!counted_dropped(c));
    klaw_watch_release(p.rx, view);
    CHECK(counted_dropped(c));
    OK(klaw_recv(p.rx, &got, KLAW_NOWAIT));
    SAME(counted_alive(), 2);
    pair_free(p);
    SAME(counted_alive(), 1);
    counted_drop(&got);
}

SPEC(watch_share_that_fails_leaves_the_value_unseen) {
    counted c = counted_make(), d = counted_make(), got;
    pair p = watch_of(&counted_type, &c);
    OK(klaw_send(p.tx, &d, KLAW_NOWAIT));
    atomic_store(&counted_fail_shares, 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_NOMEM);
    CHECK(changed(p.rx));
    OK(klaw_recv(p.rx, &got, KLAW_NOWAIT));
    counted_drop(&got);
    pair_free(p);
    SAME(counted_alive(), 0);
}

SPEC(watch_refused_initial_value_stays_the_callers) {
    counted c = counted_make();
    klaw_sender *tx;
    GIVES(klaw_watch(&counted_type, &c, &tx, NULL), KLAW_INVALID);
    CHECK(!counted_dropped(c));
    counted_drop(&c);
}

struct pair_of_numbers {
    uint64_t a, b[30];
};
static const klaw_type wide = {.name = "wide", .size = sizeof(struct pair_of_numbers)};

static klaw_err send_wide(void *arg) {
    op *o = arg;
    for (uint64_t i = 1; i <= 3000; i++) {
        struct pair_of_numbers v = {.a = i};
        for (int k = 0; k < 30; k++)
            v.b[k] = i;
        OK(klaw_send(o->tx, &v, KLAW_FOREVER));
    }
    klaw_sender_close(o->tx);
    return KLAW_OK;
}

SPEC(watch_values_are_never_torn_and_never_go_back) {
    struct pair_of_numbers v = {0};
    uint64_t last = 0;
    klaw_err e;
    pair p = watch_of(&wide, &v);
    op *s = op_with(op_new(p.tx, NULL, 0, 0), send_wide);
    do {
        const void *view;
        OK(klaw_watch_borrow(p.rx, &view));
        memcpy(&v, view, sizeof v);
        uint64_t borrowed = v.a;
        CHECK(borrowed >= last && v.b[0] == v.a && v.b[29] == v.a);
        klaw_watch_release(p.rx, view);
        e = klaw_recv(p.rx, &v, KLAW_FOREVER);
        if (e == KLAW_OK) {
            CHECK(v.a > borrowed && v.b[0] == v.a && v.b[29] == v.a);
            last = v.a;
        }
    } while (e == KLAW_OK);
    GIVES(e, KLAW_CLOSED);
    SAME(look(p.rx), 3000);
    OK(op_end(s));
    pair_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watch_refuses_bad_arguments),
        cmocka_unit_test(watch_initial_value_counts_as_seen),
        cmocka_unit_test(watch_keeps_the_latest_value_only),
        cmocka_unit_test(watch_receivers_see_for_themselves),
        cmocka_unit_test(watch_clone_has_seen_what_the_original_has),
        cmocka_unit_test(watch_changed_waits_and_marks_seen),
        cmocka_unit_test(watch_send_wakes_everyone_who_waits),
        cmocka_unit_test(watch_last_value_stays_readable_after_close),
        cmocka_unit_test(watch_close_wakes_who_waits),
        cmocka_unit_test(watch_view_stays_while_newer_values_come),
        cmocka_unit_test(watch_drops_each_value_once),
        cmocka_unit_test(watch_share_that_fails_leaves_the_value_unseen),
        cmocka_unit_test(watch_refused_initial_value_stays_the_callers),
        cmocka_unit_test(watch_values_are_never_torn_and_never_go_back),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
