/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel.c - the many-to-many channel under every order of a few fibers: nothing lost,
 * nothing doubled, first in first out, and the answer says what happened. */
#include "interleave/harness.h"

#include <string.h>

static struct {
    klaw_sender *tx, *tx2;
    klaw_receiver *rx, *rx2;
    klaw_err e[8];
    klaw_fiber *f[4];
    uint64_t last[4]; /* per sender: the latest element received */
    int n;
} W;

/* An element that a channel destroys counts as received. */
static void drop(void *elem) {
    received(*(uint64_t *)elem);
}
static const klaw_type counted = {.name = "counted", .size = sizeof(uint64_t), .drop = drop};

static void open_channel(int64_t capacity) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = capacity};
    CHECK_ERR(klaw_channel(&counted, &o, &W.tx, &W.rx), KLAW_OK);
}

static void close_channel(void) {
    drain(W.rx);
    klaw_sender_unref(W.tx);
    klaw_sender_unref(W.tx2);
    klaw_receiver_unref(W.rx);
    klaw_receiver_unref(W.rx2);
    account_closed();
}

/* Element = sender * 16 + number; each receiver sees those of one sender in order. */
static void in_order(uint64_t v, uint64_t *last) {
    KLAW_DET_CHECK(v > last[v >> 4]);
    last[v >> 4] = v;
}

static klaw_err sends(void *arg) { /* three elements of this sender */
    uint64_t me = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 1; i <= 3; i++)
        CHECK_ERR(put(W.tx, me * 16 + i, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

static klaw_err receives(void *arg) {
    uint64_t v, last[4] = {0};
    for (int n = (int)(intptr_t)arg; n > 0; n--) {
        CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
        in_order(v, last);
    }
    return KLAW_OK;
}

static klaw_err one_to_one_main(void *arg) {
    (void)arg;
    go(receives, (void *)3);
    return sends((void *)1);
}

SCENARIO(one_sender_one_receiver) {
    open_channel(1);
    run(one_to_one_main);
    close_channel();
}

SCENARIO(one_sender_one_receiver_rendezvous) {
    open_channel(KLAW_RENDEZVOUS);
    run(one_to_one_main);
    close_channel();
}

SCENARIO(one_sender_one_receiver_unbounded) {
    open_channel(KLAW_UNBOUNDED);
    run(one_to_one_main);
    close_channel();
}

static klaw_err two_senders_main(void *arg) {
    (void)arg;
    go(sends, (void *)1);
    go(sends, (void *)2);
    return receives((void *)6);
}

SCENARIO(two_senders_one_receiver) {
    open_channel(1);
    run(two_senders_main);
    close_channel();
}

static klaw_err two_and_two_main(void *arg) {
    (void)arg;
    go(receives, (void *)3);
    go(sends, (void *)1);
    go(receives, (void *)3);
    return sends((void *)2);
}

SCENARIO(two_senders_two_receivers) {
    open_channel(2);
    run(two_and_two_main);
    close_channel();
}

SCENARIO(rendezvous_pairs) {
    open_channel(KLAW_RENDEZVOUS);
    run(two_and_two_main);
    close_channel();
}

/* --- cancel and time-out --------------------------------------------------------------------- */

static klaw_err recv_once(void *arg) {
    int i = (int)(intptr_t)arg;
    return W.e[i] = take(W.rx, NULL, i >= 4 ? soon() : KLAW_FOREVER);
}

static klaw_err send_once(void *arg) { /* element 16 + i; i >= 4: with a deadline */
    int i = (int)(intptr_t)arg;
    return W.e[i] = put(W.tx, 16 + (uint64_t)i, i >= 4 ? soon() : KLAW_FOREVER);
}

static klaw_err recv_cancel_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(recv_once, (void *)0);
    go(send_once, (void *)1);
    klaw_fiber_cancel(f);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    KLAW_DET_CHECK((e == KLAW_OK) == was_received(17));
    return KLAW_OK;
}

SCENARIO(recv_against_cancel) {
    open_channel(1);
    run(recv_cancel_main);
    CHECK_ERR(W.e[1], KLAW_OK);
    close_channel();
}

static klaw_err send_cancel_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *f = spawn(send_once, (void *)1);
    go(recv_once, (void *)0);
    klaw_fiber_cancel(f);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    return KLAW_OK;
}

SCENARIO(send_against_cancel) {
    open_channel(1);
    run(send_cancel_main);
    CHECK_ERR(W.e[0], KLAW_OK);
    close_channel();
}

static klaw_err recv_timeout_main(void *arg) {
    (void)arg;
    go(recv_once, (void *)4);
    klaw_fiber *f = spawn(send_once, (void *)1);
    CHECK_ERR(join(f), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(recv_against_timeout) {
    open_channel(1);
    klaw_err e = run_err(recv_timeout_main);
    KLAW_DET_CHECK(e == W.e[4] && (e == KLAW_OK || e == KLAW_TIMEOUT));
    KLAW_DET_CHECK((e == KLAW_OK) == was_received(17));
    close_channel();
}

static klaw_err send_timeout_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    go(send_once, (void *)4);
    if (choose(2))
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    return take(W.rx, NULL, KLAW_FOREVER);
}

SCENARIO(send_against_timeout) {
    open_channel(1);
    klaw_err e = run_err(send_timeout_main);
    KLAW_DET_CHECK(e == W.e[4] && (e == KLAW_OK || e == KLAW_TIMEOUT));
    KLAW_DET_CHECK((e == KLAW_OK) == was_sent(20));
    close_channel();
}

static klaw_err hand_on_main(void *arg) {
    (void)arg;
    klaw_fiber *a = spawn(recv_once, (void *)0), *b = spawn(recv_once, (void *)1);
    if (choose(2))
        pass();
    klaw_fiber *c = spawn(send_once, (void *)2);
    klaw_fiber_cancel(a);
    CHECK_ERR(join(c), KLAW_OK);
    klaw_err ea = join(a), eb;
    klaw_sender_close(W.tx);
    eb = join(b);
    KLAW_DET_CHECK((ea == KLAW_OK) != (eb == KLAW_OK));
    KLAW_DET_CHECK(ea == KLAW_OK || ea == KLAW_CANCELLED);
    KLAW_DET_CHECK(eb == KLAW_OK || eb == KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(a_cancelled_receiver_hands_its_wake_on) {
    open_channel(1);
    run(hand_on_main);
    close_channel();
}

SCENARIO(a_cancelled_receiver_hands_its_wake_on_rendezvous) {
    open_channel(KLAW_RENDEZVOUS);
    run(hand_on_main);
    close_channel();
}

static klaw_err until_closed(void *arg) {
    klaw_err e;
    (void)arg;
    while ((e = take(W.rx, NULL, KLAW_FOREVER)) == KLAW_OK)
        ;
    CHECK_ERR(e, KLAW_CLOSED);
    return KLAW_OK;
}

static klaw_err sender_leaves_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *a = spawn(send_once, (void *)4), *b = spawn(send_once, (void *)1);
    go(until_closed, NULL);
    klaw_err ea = join(a);
    KLAW_DET_CHECK(ea == KLAW_OK || ea == KLAW_TIMEOUT);
    CHECK_ERR(join(b), KLAW_OK);
    klaw_sender_close(W.tx);
    return KLAW_OK;
}

SCENARIO(a_sender_that_times_out_lets_the_next_one_in) {
    open_channel(1);
    klaw_err e = run_err(sender_leaves_main);
    KLAW_DET_CHECK(e == W.e[4]);
    close_channel();
}

static klaw_err leavers_main(void *arg) {
    (void)arg;
    klaw_fiber *s[2], *r[2];
    int ok = 0;
    for (int i = 0; i < 2; i++) {
        s[i] = spawn(send_once, (void *)(intptr_t)(4 + i));
        r[i] = spawn(recv_once, (void *)(intptr_t)(6 + i));
    }
    if (choose(2))
        klaw_fiber_cancel(choose(2) ? s[0] : r[0]);
    for (int i = 0; i < 2; i++)
        ok += (join(s[i]) == KLAW_OK) - (join(r[i]) == KLAW_OK);
    KLAW_DET_CHECK(ok == 0); /* as many sends as receives */
    return KLAW_OK;
}

SCENARIO(rendezvous_with_leavers) {
    open_channel(KLAW_RENDEZVOUS);
    (void)run_err(leavers_main);
    account_closed(); /* nothing can be inside */
    close_channel();
}

/* --- close ----------------------------------------------------------------------------------- */

static klaw_err close_receivers_main(void *arg) {
    (void)arg;
    klaw_fiber *a = spawn(recv_once, (void *)0), *b = spawn(recv_once, (void *)1);
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_sender_close(W.tx);
    klaw_err ea = join(a), eb = join(b);
    KLAW_DET_CHECK((ea == KLAW_OK && eb == KLAW_CLOSED) || (ea == KLAW_CLOSED && eb == KLAW_OK));
    CHECK_ERR(put(W.tx, 2, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(close_wakes_parked_receivers) {
    open_channel(1);
    run(close_receivers_main);
    close_channel();
}

static klaw_err close_senders_main(void *arg) {
    (void)arg;
    klaw_fiber *a = spawn(send_once, (void *)0), *b = spawn(send_once, (void *)1);
    if (choose(2))
        CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    klaw_receiver_close(W.rx);
    klaw_err ea = join(a), eb = join(b);
    KLAW_DET_CHECK(ea == KLAW_OK || ea == KLAW_CLOSED);
    KLAW_DET_CHECK(eb == KLAW_OK || eb == KLAW_CLOSED);
    CHECK_ERR(put(W.tx, 2, KLAW_FOREVER), KLAW_CLOSED);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(close_wakes_parked_senders) {
    open_channel(1);
    run(close_senders_main);
    close_channel(); /* what was inside has been dropped, once */
}

SCENARIO(close_wakes_parked_senders_rendezvous) {
    open_channel(KLAW_RENDEZVOUS);
    run(close_senders_main);
    close_channel();
}

static klaw_err own_handle_main(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_receiver_clone(W.rx, &W.rx2), KLAW_OK);
    klaw_fiber *a = spawn(recv_once, (void *)0), *b = spawn(send_once, (void *)1);
    klaw_receiver_close(W.rx);
    klaw_err ea = join(a);
    KLAW_DET_CHECK(ea == KLAW_OK || ea == KLAW_CLOSED);
    CHECK_ERR(join(b), KLAW_OK);
    if (ea == KLAW_CLOSED)
        CHECK_ERR(take(W.rx2, NULL, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(closing_a_handle_wakes_who_waits_on_it) {
    open_channel(1);
    run(own_handle_main);
    close_channel();
}

static klaw_err send_clone(void *arg) {
    (void)arg;
    return W.e[0] = put(W.tx2, 5, KLAW_FOREVER);
}

static klaw_err own_sender_main(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_sender_clone(W.tx, &W.tx2), KLAW_OK);
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *a = spawn(send_clone, NULL), *b = spawn(recv_once, (void *)1);
    klaw_sender_close(W.tx2);
    klaw_err ea = join(a);
    KLAW_DET_CHECK(ea == KLAW_OK || ea == KLAW_CLOSED);
    CHECK_ERR(join(b), KLAW_OK);
    CHECK_ERR(put(W.tx, 2, ea == KLAW_OK ? KLAW_NOWAIT : KLAW_FOREVER),
              ea == KLAW_OK ? KLAW_FULL : KLAW_OK);
    return KLAW_OK;
}

SCENARIO(closing_a_sender_handle_wakes_who_waits_on_it) {
    open_channel(1);
    run(own_sender_main);
    close_channel();
}

static klaw_err close_clone(void *arg) {
    (void)arg;
    klaw_err e = put(W.tx2, 3, KLAW_FOREVER);
    klaw_sender_close(W.tx2);
    return e;
}

static klaw_err last_closes_main(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_sender_clone(W.tx, &W.tx2), KLAW_OK);
    go(close_clone, NULL);
    klaw_fiber *f = spawn(until_closed, NULL);
    CHECK_ERR(put(W.tx, 2, KLAW_FOREVER), KLAW_OK);
    klaw_sender_close(W.tx);
    klaw_sender_close(W.tx);
    return join(f);
}

SCENARIO(the_last_sender_closes_the_channel) {
    open_channel(1);
    run(last_closes_main);
    KLAW_DET_CHECK(was_received(2) && was_received(3));
    close_channel();
}

/* --- permits --------------------------------------------------------------------------------- */

static klaw_err reserve_and_send(void *arg) {
    klaw_permit p;
    uint64_t v = (uint64_t)(uintptr_t)arg;
    CHECK_ERR(klaw_reserve(W.tx, &p, KLAW_FOREVER), KLAW_OK);
    if (choose(2))
        pass();
    CHECK_ERR(klaw_permit_send(&p, &v), KLAW_OK);
    sent(v);
    klaw_permit_drop(&p); /* used: ignored */
    return KLAW_OK;
}

static klaw_err reserve_main(void *arg) {
    (void)arg;
    go(reserve_and_send, (void *)17);
    go(reserve_and_send, (void *)33);
    return receives((void *)2);
}

SCENARIO(permits_are_slots) {
    open_channel(1);
    run(reserve_main);
    close_channel();
}

static klaw_err reserve_and_drop(void *arg) {
    klaw_permit p;
    klaw_err e = klaw_reserve(W.tx, &p, KLAW_FOREVER);
    if (e == KLAW_OK) {
        if (choose(2))
            pass();
        klaw_permit_drop(&p);
    }
    (void)arg;
    return W.e[7] = e;
}

static klaw_err permit_drop_main(void *arg) {
    (void)arg;
    go(reserve_and_drop, NULL);
    klaw_fiber *a = spawn(send_once, (void *)1), *b = spawn(reserve_and_send, (void *)33);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(a), KLAW_OK);
    CHECK_ERR(join(b), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(a_dropped_permit_wakes_whoever_waits) {
    open_channel(1);
    run(permit_drop_main);
    close_channel();
}

static klaw_err reserve_cancel_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *a = spawn(reserve_and_drop, NULL), *b = spawn(send_once, (void *)1);
    go(recv_once, (void *)0);
    klaw_fiber_cancel(a);
    CHECK_ERR(join(b), KLAW_OK);
    klaw_err e = join(a);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    return KLAW_OK;
}

SCENARIO(a_cancelled_reserve_hands_the_slot_on) {
    open_channel(1);
    run(reserve_cancel_main);
    close_channel();
}

static klaw_err reserve_or_closed(void *arg) {
    klaw_permit p;
    uint64_t v = (uint64_t)(uintptr_t)arg;
    klaw_err e = klaw_reserve(W.tx, &p, KLAW_FOREVER);
    if (e == KLAW_OK && (e = klaw_permit_send(&p, &v)) == KLAW_OK)
        sent(v);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CLOSED);
    return KLAW_OK;
}

static klaw_err reserve_close_main(void *arg) {
    (void)arg;
    go(reserve_or_closed, (void *)17);
    go(reserve_or_closed, (void *)18);
    if (choose(2))
        pass();
    klaw_receiver_close(W.rx);
    return KLAW_OK;
}

SCENARIO(reserve_against_close) {
    open_channel(1);
    run(reserve_close_main);
    close_channel();
}

/* --- batches --------------------------------------------------------------------------------- */

static klaw_err batch_of(uint64_t first, uint64_t n, klaw_deadline d) {
    uint64_t v[4] = {0};
    for (uint64_t i = 0; i < n; i++)
        v[i] = first + i;
    klaw_err e = klaw_send_batch(W.tx, v, n, d);
    for (uint64_t i = 0; i < n && e == KLAW_OK; i++)
        sent(first + i);
    return e;
}

static klaw_err batch3(void *arg) {
    (void)arg;
    CHECK_ERR(batch_of(33, 3, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

static klaw_err batch_main(void *arg) {
    (void)arg;
    uint64_t v = 0, last = 0;
    go(batch3, NULL);
    go(sends, (void *)1);
    for (int i = 0; i < 6; i++) {
        CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK((v != 34 && v != 35) || last == v - 1); /* adjacent */
        last = v;
    }
    return KLAW_OK;
}

SCENARIO(a_batch_stays_together) {
    open_channel(3);
    run(batch_main);
    close_channel();
}

static klaw_err batch_leaves(void *arg) {
    (void)arg;
    klaw_err e = batch_of(33, 2, choose(2) ? soon() : KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_CANCELLED);
    return KLAW_OK;
}

static klaw_err batch_leaves_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *a = spawn(batch_leaves, NULL), *b = spawn(sends, (void *)1);
    klaw_fiber *c = spawn(until_closed, NULL);
    if (choose(2))
        klaw_fiber_cancel(a);
    CHECK_ERR(join(a), KLAW_OK);
    CHECK_ERR(join(b), KLAW_OK);
    klaw_sender_close(W.tx);
    return join(c);
}

SCENARIO(a_batch_is_all_or_nothing) {
    open_channel(2);
    run(batch_leaves_main);
    KLAW_DET_CHECK(was_received(33) == was_received(34));
    close_channel();
}

static klaw_err batch_recv_main(void *arg) {
    (void)arg;
    uint64_t v[3], last[4] = {0};
    go(sends, (void *)1);
    go(sends, (void *)2);
    for (size_t all = 0, got; all < 6; all += got) {
        got = 9;
        CHECK_ERR(klaw_recv_batch(W.rx, v, 3, &got, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK(got >= 1 && got <= 3);
        for (size_t i = 0; i < got; i++) {
            received(v[i]);
            in_order(v[i], last);
        }
    }
    return KLAW_OK;
}

SCENARIO(batch_receive) {
    open_channel(2);
    run(batch_recv_main);
    close_channel();
}

/* --- a ring that grows ----------------------------------------------------------------------- */

static klaw_err many(void *arg) {
    uint64_t first = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 0; i < 24; i++)
        CHECK_ERR(put(W.tx, first + i, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

static klaw_err growth_main(void *arg) {
    (void)arg;
    go(many, (void *)1);
    go(many, (void *)101);
    uint64_t v = 0, a = 0, b = 100;
    for (int i = 0; i < 12; i++) {
        CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK(v == (v > 100 ? b : a) + 1);
        *(v > 100 ? &b : &a) = v;
    }
    return KLAW_OK;
}

SCENARIO_COST(the_ring_grows_under_two_senders, 4) {
    open_channel(1000);
    run(growth_main);
    close_channel();
}

INTERLEAVE_MAIN
