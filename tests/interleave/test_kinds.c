/* SPDX-License-Identifier: Apache-2.0 */
/* test_kinds.c - oneshot, broadcast, watch and the one-to-one ring under every order. */
#include "interleave/harness.h"

#include <string.h>

static struct {
    klaw_sender *tx;
    klaw_receiver *rx, *rx2;
    klaw_err e[4];
    uint64_t v[4], missed;
    int n;
} W;

static void close_all(void) {
    klaw_sender_unref(W.tx);
    klaw_receiver_unref(W.rx);
    klaw_receiver_unref(W.rx2);
}

static klaw_err closes_sender(void *arg) {
    (void)arg;
    klaw_sender_close(W.tx);
    return KLAW_OK;
}

static klaw_err closes_receiver(void *arg) {
    (void)arg;
    klaw_receiver_close(W.rx);
    return KLAW_OK;
}

static klaw_err sends_one(void *arg) {
    (void)arg;
    W.e[1] = put(W.tx, 7, KLAW_FOREVER);
    return KLAW_OK;
}

/* --- oneshot --------------------------------------------------------------------------------- */

static void oneshot(void) {
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_oneshot(&klaw_u64, &W.tx, &W.rx), KLAW_OK);
}

static klaw_err oneshot_main(void *arg) {
    (void)arg;
    go(sends_one, NULL);
    uint64_t v;
    CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(v == 7);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_CLOSED);
    CHECK_ERR(put(W.tx, 8, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(oneshot_one_value_once) {
    oneshot();
    run(oneshot_main);
    close_all();
    account_closed();
}

static klaw_err oneshot_two_main(void *arg) {
    (void)arg;
    go(sends_one, NULL);
    klaw_err e = put(W.tx, 9, KLAW_FOREVER);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    W.e[0] = e;
    return KLAW_OK;
}

SCENARIO(oneshot_first_send_wins) {
    oneshot();
    run(oneshot_two_main);
    KLAW_DET_CHECK((W.e[0] == KLAW_OK) != (W.e[1] == KLAW_OK));
    KLAW_DET_CHECK((W.e[0] == KLAW_CLOSED) != (W.e[1] == KLAW_CLOSED));
    close_all();
    account_closed();
}

static klaw_err oneshot_drop_main(void *arg) {
    (void)arg;
    go(closes_sender, NULL);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(oneshot_dropped_sender_is_no_hang) {
    oneshot();
    run(oneshot_drop_main);
    close_all();
}

static klaw_err oneshot_timeout_main(void *arg) {
    (void)arg;
    go(sends_one, NULL);
    W.e[0] = take(W.rx, NULL, soon());
    return KLAW_OK;
}

SCENARIO(oneshot_send_against_timeout) {
    oneshot();
    run(oneshot_timeout_main);
    CHECK_ERR(W.e[1], KLAW_OK);
    if (W.e[0] == KLAW_TIMEOUT)
        CHECK_ERR(take(W.rx, NULL, KLAW_NOWAIT), KLAW_OK);
    close_all();
    account_closed();
}

static klaw_err oneshot_close_main(void *arg) {
    (void)arg;
    go(sends_one, NULL);
    return closes_receiver(NULL);
}

SCENARIO(oneshot_send_against_close) {
    oneshot();
    run(oneshot_close_main);
    KLAW_DET_CHECK(W.e[1] == KLAW_OK || W.e[1] == KLAW_CLOSED);
    close_all();
}

/* --- broadcast ------------------------------------------------------------------------------- */

static void broadcast(int64_t capacity, klaw_lag lag) {
    memset(&W, 0, sizeof W);
    klaw_broadcast_opts o = {.capacity = capacity, .lag = lag};
    CHECK_ERR(klaw_broadcast(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
    CHECK_ERR(klaw_broadcast_subscribe(W.tx, lag, &W.rx2), KLAW_OK);
}

static klaw_err publish4(void *arg) {
    (void)arg;
    for (uint64_t v = 1; v <= 4; v++)
        CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    klaw_sender_close(W.tx);
    return KLAW_OK;
}

/* Every element is received in order or counted as missed, exactly. */
static klaw_err follow(klaw_receiver *rx, bool may_lag, bool disconnects) {
    uint64_t next = 1, v;
    bool cut = false;
    for (;;) {
        klaw_err e = klaw_recv(rx, &v, KLAW_FOREVER);
        if (e == KLAW_OK) {
            KLAW_DET_CHECK(!cut && v == next);
            next++;
        } else if (e == KLAW_LAGGED) {
            KLAW_DET_CHECK(may_lag && !cut && klaw_receiver_missed(rx) > 0);
            cut = disconnects;
            next += klaw_receiver_missed(rx);
        } else {
            CHECK_ERR(e, KLAW_CLOSED);
            break;
        }
    }
    KLAW_DET_CHECK(next == 5 || cut);
    return KLAW_OK;
}

static klaw_err follows_all(void *arg) {
    return follow(arg ? W.rx2 : W.rx, false, false);
}
static klaw_err follows_lagging(void *arg) {
    return follow(arg ? W.rx2 : W.rx, true, false);
}
static klaw_err follows_until_cut(void *arg) {
    return follow(arg ? W.rx2 : W.rx, true, true);
}

static klaw_err lag_wait_main(void *arg) {
    (void)arg;
    go(follows_all, (void *)0);
    go(follows_all, (void *)1);
    return publish4(NULL);
}

SCENARIO(broadcast_waits_for_the_slowest) {
    broadcast(1, KLAW_LAG_WAIT);
    run(lag_wait_main);
    close_all();
}

static klaw_err lag_drop_main(void *arg) {
    (void)arg;
    go(follows_lagging, (void *)0);
    go(follows_lagging, (void *)1);
    return publish4(NULL);
}

SCENARIO(broadcast_counts_what_was_missed) {
    broadcast(1 + choose(2), KLAW_LAG_DROP_OLDEST);
    run(lag_drop_main);
    close_all();
}

static klaw_err lag_disconnect_main(void *arg) {
    (void)arg;
    go(follows_until_cut, (void *)0);
    go(follows_until_cut, (void *)1);
    return publish4(NULL);
}

SCENARIO(broadcast_cuts_laggards_off) {
    broadcast(1 + choose(2), KLAW_LAG_DISCONNECT);
    run(lag_disconnect_main);
    close_all();
}

static klaw_err closes_second(void *arg) {
    uint64_t v;
    (void)arg;
    if (choose(2))
        CHECK_ERR(klaw_recv(W.rx2, &v, KLAW_FOREVER), KLAW_OK);
    klaw_receiver_close(W.rx2);
    return KLAW_OK;
}

static klaw_err lag_leaver_main(void *arg) {
    (void)arg;
    go(follows_all, (void *)0);
    go(closes_second, NULL);
    return publish4(NULL);
}

SCENARIO(broadcast_goes_on_when_the_slowest_leaves) {
    broadcast(1, KLAW_LAG_WAIT);
    run(lag_leaver_main);
    close_all();
}

static klaw_err subscribes(void *arg) { /* from some element on, all of them in order */
    uint64_t v, last = 0;
    klaw_receiver *rx;
    (void)arg;
    klaw_err e = klaw_broadcast_subscribe(W.tx, KLAW_LAG_WAIT, &rx);
    if (e == KLAW_CLOSED)
        return KLAW_OK;
    CHECK_ERR(e, KLAW_OK);
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) == KLAW_OK) {
        KLAW_DET_CHECK(last == 0 || v == last + 1);
        last = v;
    }
    CHECK_ERR(e, KLAW_CLOSED);
    KLAW_DET_CHECK(last == 0 || last == 4);
    klaw_receiver_unref(rx);
    return KLAW_OK;
}

static klaw_err subscribe_main(void *arg) {
    (void)arg;
    go(follows_all, (void *)0);
    go(follows_all, (void *)1);
    go(subscribes, NULL);
    return publish4(NULL);
}

SCENARIO(broadcast_subscribe_while_sending) {
    broadcast(2, KLAW_LAG_WAIT);
    run(subscribe_main);
    close_all();
}

static klaw_err recv_broadcast(void *arg) {
    uint64_t v;
    (void)arg;
    klaw_err e = klaw_recv(W.rx, &v, choose(2) ? soon() : KLAW_FOREVER);
    W.n += e == KLAW_OK;
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT);
    return KLAW_OK;
}

static klaw_err broadcast_cancel_main(void *arg) {
    (void)arg;
    uint64_t v = 5;
    klaw_fiber *f = spawn(recv_broadcast, NULL);
    go(sends_one, NULL);
    klaw_fiber_cancel(f);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(klaw_recv(W.rx2, &v, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(v == 7);
    if (!W.n)
        CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_NOWAIT), KLAW_EMPTY);
    return KLAW_OK;
}

SCENARIO(broadcast_recv_against_cancel) {
    broadcast(2, KLAW_LAG_WAIT);
    run(broadcast_cancel_main);
    close_all();
}

/* --- watch ----------------------------------------------------------------------------------- */

static void watch(void) {
    uint64_t zero = 0;
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_watch(&klaw_u64, &zero, &W.tx, &W.rx), KLAW_OK);
    CHECK_ERR(klaw_watch_subscribe(W.tx, &W.rx2), KLAW_OK);
}

static klaw_err publish3(void *arg) {
    (void)arg;
    for (uint64_t v = 1; v <= 3; v++) {
        CHECK_ERR(klaw_send(W.tx, &v, KLAW_NOWAIT), KLAW_OK);
        if (choose(2))
            pass();
    }
    klaw_sender_close(W.tx);
    return KLAW_OK;
}

static klaw_err watches(void *arg) {
    uint64_t v, last = 0;
    klaw_receiver *rx = arg ? W.rx2 : W.rx;
    klaw_err e;
    bool first = arg != NULL; /* a later subscriber has not seen the value that is there */
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) == KLAW_OK) {
        KLAW_DET_CHECK(v > last || first);
        first = false;
        last = v;
    }
    CHECK_ERR(e, KLAW_CLOSED);
    KLAW_DET_CHECK(last == 3); /* the last value is never missed */
    return KLAW_OK;
}

static klaw_err watch_main(void *arg) {
    (void)arg;
    go(watches, (void *)0);
    go(watches, (void *)1);
    return publish3(NULL);
}

SCENARIO(watch_shows_the_last_value_to_all) {
    watch();
    run(watch_main);
    close_all();
}

static klaw_err waits_for_change(void *arg) {
    (void)arg;
    klaw_err e = klaw_watch_changed(W.rx, choose(2) ? soon() : KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT);
    W.e[0] = e;
    return KLAW_OK;
}

static klaw_err watch_cancel_main(void *arg) {
    (void)arg;
    bool changed = false;
    klaw_fiber *f = spawn(waits_for_change, NULL), *g = spawn(sends_one, NULL);
    klaw_fiber_cancel(f);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_watch_has_changed(W.rx, &changed), KLAW_OK);
    KLAW_DET_CHECK(changed == (W.e[0] != KLAW_OK));
    return KLAW_OK;
}

SCENARIO(watch_changed_against_cancel) {
    watch();
    run(watch_cancel_main);
    close_all();
}

static klaw_err borrows(void *arg) {
    const void *view;
    (void)arg;
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(klaw_watch_borrow(W.rx, &view), KLAW_OK);
        uint64_t v = *(const uint64_t *)view;
        pass();
        KLAW_DET_CHECK(*(const uint64_t *)view == v);
        klaw_watch_release(W.rx, view);
    }
    return KLAW_OK;
}

static klaw_err watch_borrow_main(void *arg) {
    (void)arg;
    go(borrows, NULL);
    go(borrows, NULL);
    return publish3(NULL);
}

SCENARIO(watch_views_do_not_change) {
    watch();
    run(watch_borrow_main);
    close_all();
}

static klaw_err watch_close_main(void *arg) {
    (void)arg;
    go(closes_sender, NULL);
    CHECK_ERR(klaw_watch_changed(W.rx, KLAW_FOREVER), KLAW_CLOSED);
    CHECK_ERR(klaw_watch_changed(W.rx2, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_watch_changed(W.rx2, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

SCENARIO(watch_close_against_changed) {
    watch();
    run(watch_close_main);
    close_all();
}

/* --- the one-to-one ring --------------------------------------------------------------------- */

static void ring(int64_t capacity) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = capacity, .one_to_one = true};
    CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
}

static klaw_err ring_sends(void *arg) {
    (void)arg;
    for (uint64_t v = 1; v <= 5; v++)
        CHECK_ERR(put(W.tx, v, KLAW_FOREVER), KLAW_OK);
    klaw_sender_close(W.tx);
    return KLAW_OK;
}

static klaw_err ring_receives(void *arg) {
    uint64_t v, next = 1;
    klaw_err e;
    (void)arg;
    while ((e = take(W.rx, &v, KLAW_FOREVER)) == KLAW_OK)
        KLAW_DET_CHECK(v == next++);
    CHECK_ERR(e, KLAW_CLOSED);
    KLAW_DET_CHECK(next == 6);
    return KLAW_OK;
}

static klaw_err ring_main(void *arg) {
    (void)arg;
    go(ring_receives, NULL);
    return ring_sends(NULL);
}

SCENARIO(ring_parks_both_sides) {
    ring(1 + choose(2));
    run(ring_main);
    close_all();
    account_closed();
}

static klaw_err ring_recv_once(void *arg) {
    (void)arg;
    return W.e[0] = take(W.rx, NULL, choose(2) ? soon() : KLAW_FOREVER);
}

static klaw_err ring_cancel_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(ring_recv_once, NULL), *g = spawn(sends_one, NULL);
    klaw_fiber_cancel(f);
    klaw_err e = join(f);
    CHECK_ERR(join(g), KLAW_OK);
    if (e != KLAW_OK)
        CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(ring_recv_against_cancel) {
    ring(1);
    run(ring_cancel_main);
    close_all();
    account_closed();
}

static klaw_err ring_fills(void *arg) {
    klaw_err e = KLAW_OK;
    (void)arg;
    for (uint64_t v = 1; v <= 3 && e == KLAW_OK; v++)
        e = put(W.tx, v, KLAW_FOREVER);
    CHECK_ERR(e, KLAW_CLOSED);
    return KLAW_OK;
}

static klaw_err ring_close_main(void *arg) {
    (void)arg;
    go(ring_fills, NULL);
    if (choose(2))
        CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    return closes_receiver(NULL);
}

SCENARIO(ring_close_wakes_the_sender) {
    ring(1);
    run(ring_close_main);
    close_all();
}

INTERLEAVE_MAIN
