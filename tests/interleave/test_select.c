/* SPDX-License-Identifier: Apache-2.0 */
/* test_select.c - exactly one case commits, and the losers have no effect at all. */
#include "interleave/harness.h"

#include <string.h>

static struct {
    klaw_sender *tx[2];
    klaw_receiver *rx[2];
    klaw_scope *scope;
    klaw_fiber *f;
    klaw_err e[4];
    size_t chosen[4];
    int met;
} W;

static void open_two(int64_t capacity) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = capacity};
    for (int i = 0; i < 2; i++)
        CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx[i], &W.rx[i]), KLAW_OK);
}

static void close_two(void) {
    for (int i = 0; i < 2; i++) {
        drain(W.rx[i]);
        klaw_sender_unref(W.tx[i]);
        klaw_receiver_unref(W.rx[i]);
    }
    account_closed();
}

static klaw_err send_to(void *arg) { /* element 1 or 2, to the channel of that number */
    int i = (int)(intptr_t)arg;
    return W.e[i] = put(W.tx[i], 1 + (uint64_t)i, KLAW_FOREVER);
}

static klaw_err recv_from(void *arg) {
    int i = (int)(intptr_t)arg;
    return W.e[i] = take(W.rx[i], NULL, KLAW_FOREVER);
}

/* Receives from either; checks that the element came by the chosen channel. */
static klaw_err select_recv(klaw_deadline d, size_t *chosen) {
    uint64_t v[2] = {0, 0};
    klaw_case c[2] = {klaw_case_recv(W.rx[0], &v[0]), klaw_case_recv(W.rx[1], &v[1])};
    size_t k = 9;
    klaw_err e = klaw_select(c, 2, &k, d);
    if (e != KLAW_OK) {
        KLAW_DET_CHECK(v[0] == 0 && v[1] == 0);
        return e;
    }
    KLAW_DET_CHECK(k < 2 && v[1 - k] == 0);
    if (c[k].err == KLAW_OK)
        received(v[k]);
    *chosen = k;
    return c[k].err;
}

/* Sends 3 to the first or 4 to the second. */
static klaw_err select_send(klaw_deadline d, size_t *chosen) {
    uint64_t v[2] = {3, 4};
    klaw_case c[2] = {klaw_case_send(W.tx[0], &v[0]), klaw_case_send(W.tx[1], &v[1])};
    size_t k = 9;
    klaw_err e = klaw_select(c, 2, &k, d);
    if (e != KLAW_OK)
        return e;
    KLAW_DET_CHECK(k < 2);
    if (c[k].err == KLAW_OK)
        sent(v[k]);
    *chosen = k;
    return c[k].err;
}

static klaw_err two_senders_main(void *arg) {
    size_t k, other;
    (void)arg;
    go(send_to, (void *)0);
    go(send_to, (void *)1);
    CHECK_ERR(select_recv(KLAW_FOREVER, &k), KLAW_OK);
    KLAW_DET_CHECK(was_received(1 + k) && !was_received(2 - k));
    CHECK_ERR(select_recv(KLAW_FOREVER, &other), KLAW_OK);
    KLAW_DET_CHECK(other == 1 - k);
    return KLAW_OK;
}

SCENARIO(select_two_channels_two_senders) {
    open_two(1);
    run(two_senders_main);
    close_two();
}

SCENARIO(select_two_rendezvous_two_senders) {
    open_two(KLAW_RENDEZVOUS);
    run(two_senders_main);
    close_two();
}

static klaw_err selects_one(void *arg) {
    int i = (int)(intptr_t)arg;
    return W.e[i] = select_recv(KLAW_FOREVER, &W.chosen[i]);
}

static klaw_err two_selects_main(void *arg) {
    (void)arg;
    klaw_fiber *a = spawn(selects_one, (void *)2), *b = spawn(selects_one, (void *)3);
    CHECK_ERR(put(W.tx[0], 1, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(put(W.tx[1], 2, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(a), KLAW_OK);
    CHECK_ERR(join(b), KLAW_OK);
    KLAW_DET_CHECK(W.chosen[2] != W.chosen[3]);
    return KLAW_OK;
}

SCENARIO(two_selects_two_elements) {
    open_two(choose(2) ? 1 : KLAW_RENDEZVOUS);
    run(two_selects_main);
    close_two();
}

static klaw_err select_sends_main(void *arg) {
    size_t k;
    (void)arg;
    CHECK_ERR(put(W.tx[0], 1, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(put(W.tx[1], 2, KLAW_FOREVER), KLAW_OK);
    go(recv_from, (void *)0);
    go(recv_from, (void *)1);
    CHECK_ERR(select_send(KLAW_FOREVER, &k), KLAW_OK);
    KLAW_DET_CHECK(was_sent(3 + k) && !was_sent(4 - k));
    return KLAW_OK;
}

SCENARIO(select_sends_to_one_of_two) {
    open_two(1);
    run(select_sends_main);
    close_two();
}

static klaw_err selecting_sender(void *arg) {
    (void)arg;
    return W.e[1] = select_send(KLAW_FOREVER, &W.chosen[1]);
}

static klaw_err select_meets_select_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(selecting_sender, NULL);
    CHECK_ERR(select_recv(KLAW_FOREVER, &W.chosen[0]), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    KLAW_DET_CHECK(W.chosen[0] == W.chosen[1]);
    return KLAW_OK;
}

SCENARIO(a_select_meets_a_select) {
    open_two(choose(2) ? 1 : KLAW_RENDEZVOUS);
    run(select_meets_select_main);
    close_two();
}

/* Two selects name the two channels in opposite order. */
static klaw_err selects_backwards(void *arg) {
    uint64_t v[2] = {0, 0};
    klaw_case c[2] = {klaw_case_recv(W.rx[1], &v[1]), klaw_case_recv(W.rx[0], &v[0])};
    size_t k = 9;
    (void)arg;
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_FOREVER), KLAW_OK);
    received(v[1 - k]);
    return KLAW_OK;
}

static klaw_err backwards_main(void *arg) {
    (void)arg;
    klaw_fiber *a = spawn(selects_one, (void *)2), *b = spawn(selects_backwards, NULL);
    if (choose(4)) /* so that both find nothing and lock both channels */
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    CHECK_ERR(put(W.tx[0], 1, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(put(W.tx[1], 2, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(a), KLAW_OK);
    CHECK_ERR(join(b), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(two_selects_in_opposite_order) {
    open_two(1);
    run(backwards_main);
    close_two();
}

static void scribble(void) {
    volatile unsigned char junk[3000];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = 0x5a;
}

/* The waiters of a select lie on its stack: none may hang anywhere once it has returned. */
static klaw_err nothing_behind_main(void *arg) {
    size_t k;
    (void)arg;
    klaw_fiber *a = spawn(send_to, (void *)(intptr_t)choose(2));
    CHECK_ERR(select_recv(KLAW_FOREVER, &k), KLAW_OK);
    scribble();
    CHECK_ERR(put(W.tx[1 - k], 7, KLAW_FOREVER), KLAW_OK);
    scribble();
    CHECK_ERR(take(W.rx[1 - k], NULL, KLAW_FOREVER), KLAW_OK);
    return join(a);
}

SCENARIO(a_select_leaves_nothing_behind) {
    open_two(1);
    run(nothing_behind_main);
    close_two();
}

/* --- send and receive on one channel --------------------------------------------------------- */

static klaw_err swaps(void *arg) {
    uint64_t mine = 5 + (uint64_t)(uintptr_t)arg, got = 0;
    klaw_case c[2] = {klaw_case_send(W.tx[0], &mine), klaw_case_recv(W.rx[0], &got)};
    size_t k = 9;
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(c[k].err, KLAW_OK);
    if (k == 0) {
        sent(mine);
        W.met++;
    } else {
        KLAW_DET_CHECK(got != mine); /* never itself */
        received(got);
        W.met--;
    }
    return KLAW_OK;
}

static klaw_err swap_main(void *arg) {
    (void)arg;
    go(swaps, (void *)0);
    go(swaps, (void *)1);
    return KLAW_OK;
}

SCENARIO(select_send_and_receive_on_one_channel) {
    open_two(KLAW_RENDEZVOUS);
    run(swap_main);
    KLAW_DET_CHECK(W.met == 0);
    close_two();
}

static klaw_err alone_main(void *arg) {
    uint64_t mine = 5, got = 0;
    klaw_case c[2] = {klaw_case_send(W.tx[0], &mine), klaw_case_recv(W.rx[0], &got)};
    size_t k;
    (void)arg;
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_NOWAIT), KLAW_EMPTY);
    CHECK_ERR(klaw_select(c, 2, &k, soon()), KLAW_TIMEOUT);
    return KLAW_OK;
}

SCENARIO(a_select_does_not_meet_itself) {
    open_two(KLAW_RENDEZVOUS);
    run(alone_main);
    close_two();
}

static klaw_err twice_main(void *arg) {
    uint64_t v[2] = {0, 0};
    klaw_case c[2] = {klaw_case_recv(W.rx[0], &v[0]), klaw_case_recv(W.rx[0], &v[1])};
    size_t k;
    (void)arg;
    go(send_to, (void *)0);
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(c[k].err, KLAW_OK);
    KLAW_DET_CHECK(v[k] == 1 && v[1 - k] == 0);
    received(v[k]);
    return KLAW_OK;
}

SCENARIO(one_channel_in_two_cases) {
    open_two(choose(2) ? 1 : KLAW_RENDEZVOUS);
    run(twice_main);
    close_two();
}

/* --- close, cancel, time --------------------------------------------------------------------- */

static klaw_err closes_first(void *arg) {
    (void)arg;
    klaw_sender_close(W.tx[0]);
    return KLAW_OK;
}

static klaw_err closed_main(void *arg) {
    size_t k;
    (void)arg;
    go(closes_first, NULL);
    go(send_to, (void *)1);
    klaw_err e = select_recv(KLAW_FOREVER, &k);
    CHECK_ERR(e, k == 0 ? KLAW_CLOSED : KLAW_OK);
    if (k == 0)
        CHECK_ERR(take(W.rx[1], NULL, KLAW_FOREVER), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(select_sees_a_close) {
    open_two(1);
    run(closed_main);
    close_two();
}

static klaw_err selects_or_leaves(void *arg) {
    klaw_deadline d = arg ? soon() : KLAW_FOREVER;
    return W.e[2] = select_recv(d, &W.chosen[2]);
}

static klaw_err cancel_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(selects_or_leaves, NULL);
    klaw_fiber *a = spawn(send_to, (void *)0), *b = spawn(send_to, (void *)1);
    klaw_fiber_cancel(f);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    for (int i = 0; i < 2; i++) {
        if (e == KLAW_CANCELLED || W.chosen[2] != (size_t)i)
            CHECK_ERR(take(W.rx[i], NULL, KLAW_FOREVER), KLAW_OK);
        CHECK_ERR(join(i ? b : a), KLAW_OK);
    }
    return KLAW_OK;
}

SCENARIO(select_against_cancel) {
    open_two(1);
    run(cancel_main);
    close_two();
}

SCENARIO(select_rendezvous_against_cancel) {
    open_two(KLAW_RENDEZVOUS);
    run(cancel_main);
    close_two();
}

static klaw_err timeout_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(selects_or_leaves, (void *)1);
    klaw_fiber *a = spawn(send_to, (void *)0);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    if (e != KLAW_OK)
        CHECK_ERR(take(W.rx[0], NULL, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(a), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(select_against_timeout) {
    open_two(choose(2) ? 1 : KLAW_RENDEZVOUS);
    klaw_err e = run_err(timeout_main);
    KLAW_DET_CHECK(e == W.e[2]);
    close_two();
}

static klaw_err timer_main(void *arg) {
    uint64_t v = 0;
    (void)arg;
    klaw_deadline at = soon();
    klaw_case c[2] = {klaw_case_timer(at), klaw_case_recv(W.rx[0], &v)};
    size_t k = 9;
    klaw_fiber *f = spawn(send_to, (void *)0);
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(c[k].err, KLAW_OK);
    if (k == 0) {
        KLAW_DET_CHECK(klaw_now() >= at && v == 0);
        CHECK_ERR(take(W.rx[0], NULL, KLAW_FOREVER), KLAW_OK);
    } else {
        received(v);
    }
    return join(f);
}

SCENARIO(select_against_a_timer_case) {
    open_two(1);
    run(timer_main);
    close_two();
}

static klaw_err cancels_scope(void *arg) {
    (void)arg;
    klaw_scope_cancel(W.scope, "enough");
    return KLAW_OK;
}

static klaw_err selects_scope(void *arg) {
    uint64_t v = 0;
    klaw_case c[2] = {klaw_case_scope(W.scope), klaw_case_recv(W.rx[0], &v)};
    size_t k = 9;
    (void)arg;
    CHECK_ERR(klaw_select(c, 2, &k, KLAW_FOREVER), KLAW_OK);
    if (k == 1)
        received(v);
    else
        KLAW_DET_CHECK(v == 0 && klaw_scope_cancelled(W.scope));
    return KLAW_OK;
}

static klaw_err scope_main(void *arg) {
    (void)arg;
    klaw_fiber *f, *g;
    klaw_scope *root = klaw_scope_current();
    CHECK_ERR(klaw_scope_open(NULL, &W.scope), KLAW_OK);
    klaw_scope_ref(W.scope);
    CHECK_ERR(klaw_spawn(root, selects_scope, NULL, NULL, &f), KLAW_OK);
    CHECK_ERR(klaw_spawn(root, send_to, (void *)0, NULL, &g), KLAW_OK);
    cancels_scope(NULL);
    CHECK_ERR(klaw_scope_close(W.scope), KLAW_CANCELLED);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    klaw_scope_unref(W.scope);
    return KLAW_OK;
}

SCENARIO(select_against_a_scope_case) {
    open_two(1);
    run(scope_main);
    close_two();
}

static void *thread_selects(void *arg) {
    (void)arg;
    W.e[2] = select_recv(KLAW_FOREVER, &W.chosen[2]);
    return NULL;
}

SCENARIO(a_thread_selects) {
    open_two(choose(2) ? 1 : KLAW_RENDEZVOUS);
    vthread t = vthread_start("selects", thread_selects, NULL);
    size_t k = choose(2);
    CHECK_ERR(put(W.tx[k], 1, KLAW_FOREVER), KLAW_OK);
    vthread_join(t);
    KLAW_DET_CHECK(W.e[2] == KLAW_OK && W.chosen[2] == k);
    close_two();
}

INTERLEAVE_MAIN
