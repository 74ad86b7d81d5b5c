/* SPDX-License-Identifier: Apache-2.0 */
/* test_cancel.c - cancellation at every interleaving point of every operation that waits.
 *
 * A fiber does one operation; a virtual thread cancels it at the k-th point after the operation
 * began, whoever passes that point, for k = 1, 2, 3 … until it ends before the k-th. The operation
 * happened (OK) or did not (CANCELLED), and an element is in exactly one place. */
#include "interleave/harness.h"

#include <string.h>
#include <unistd.h>

static struct {
    klaw_sender *tx, *tx2;
    klaw_receiver *rx, *rx2;
    klaw_fiber *f, *target;
    klaw_scope *scope;
    klaw_err (*op)(void);
    klaw_err e;
    klaw_permit permit;
    size_t chosen;
    int pipe[2];
    bool ended;
} W;

static void *cancels(void *arg) {
    (void)arg;
    klawi_det_gate_wait();
    klaw_fiber_cancel(W.f);
    klawi_det_gate_done();
    return NULL;
}

static klaw_err does(void *arg) {
    (void)arg;
    klawi_det_gate_open_at(gate_k);
    W.e = W.op();
    gate_reached = !klawi_det_gate_open();
    return KLAW_OK;
}

static vthread canceller;
static void begin(klaw_err (*op)(void)) {
    W.op = op;
    W.f = spawn(does, NULL);
    canceller = vthread_start("cancels", cancels, NULL);
}

/* Whether it happened. */
static bool happened(void) {
    vthread_join(canceller);
    CHECK_ERR(join(W.f), KLAW_OK);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_CANCELLED);
    if (!gate_reached)
        CHECK_ERR(W.e, KLAW_OK);
    return W.e == KLAW_OK;
}

static void open_channel(int64_t capacity) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = capacity};
    CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
}

static void clean(void) {
    klaw_sender_unref(W.tx);
    klaw_sender_unref(W.tx2);
    klaw_receiver_unref(W.rx);
    klaw_receiver_unref(W.rx2);
    account_closed();
}

static klaw_err puts_1(void *arg) {
    (void)arg;
    return put(W.tx, 1, KLAW_FOREVER);
}
static klaw_err takes(void *arg) {
    (void)arg;
    return take(W.rx, NULL, KLAW_FOREVER);
}

/* --- channels -------------------------------------------------------------------------------- */

static klaw_err op_recv(void) {
    return take(W.rx, NULL, KLAW_FOREVER);
}

static klaw_err recv_main(void *arg) {
    (void)arg;
    begin(op_recv);
    klaw_fiber *g = spawn(puts_1, NULL);
    bool got = happened();
    CHECK_ERR(take(W.rx, NULL, got ? KLAW_NOWAIT : KLAW_FOREVER), got ? KLAW_EMPTY : KLAW_OK);
    return join(g);
}

SCENARIO_AT_EACH_POINT(cancel_recv) {
    open_channel(1);
    run(recv_main);
    clean();
}

SCENARIO_AT_EACH_POINT(cancel_recv_rendezvous) {
    open_channel(KLAW_RENDEZVOUS);
    run(recv_main);
    clean();
}

static klaw_err op_send(void) {
    return put(W.tx, 2, KLAW_FOREVER);
}

static klaw_err send_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    begin(op_send);
    klaw_fiber *g = spawn(takes, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    KLAW_DET_CHECK(was_received(1));
    CHECK_ERR(take(W.rx, NULL, KLAW_NOWAIT), done ? KLAW_OK : KLAW_EMPTY);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_send) {
    open_channel(1);
    run(send_main);
    clean();
}

static klaw_err send_rendezvous_main(void *arg) {
    (void)arg;
    begin(op_send);
    klaw_fiber *g = spawn(takes, NULL);
    if (!happened())
        CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    return join(g);
}

SCENARIO_AT_EACH_POINT(cancel_send_rendezvous) {
    open_channel(KLAW_RENDEZVOUS);
    run(send_rendezvous_main);
    clean();
}

static klaw_err op_batch(void) {
    uint64_t v[2] = {2, 3};
    klaw_err e = klaw_send_batch(W.tx, v, 2, KLAW_FOREVER);
    if (e == KLAW_OK) {
        sent(2);
        sent(3);
    }
    return e;
}

static klaw_err batch_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    begin(op_batch);
    klaw_fiber *g = spawn(takes, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    for (int i = 0; i < 2; i++)
        CHECK_ERR(take(W.rx, NULL, KLAW_NOWAIT), done ? KLAW_OK : KLAW_EMPTY);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_send_batch) {
    open_channel(2);
    run(batch_main);
    clean();
}

static klaw_err op_recv_batch(void) {
    uint64_t v[2];
    size_t got = 9;
    klaw_err e = klaw_recv_batch(W.rx, v, 2, &got, KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK ? got == 1 : got == 0);
    if (e == KLAW_OK)
        received(v[0]);
    return e;
}

static klaw_err recv_batch_main(void *arg) {
    (void)arg;
    begin(op_recv_batch);
    klaw_fiber *g = spawn(puts_1, NULL);
    if (!happened())
        CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    return join(g);
}

SCENARIO_AT_EACH_POINT(cancel_recv_batch) {
    open_channel(2);
    run(recv_batch_main);
    clean();
}

static klaw_err op_reserve(void) {
    return klaw_reserve(W.tx, &W.permit, KLAW_FOREVER);
}

static klaw_err reserve_main(void *arg) {
    (void)arg;
    uint64_t v = 2;
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    begin(op_reserve);
    klaw_fiber *g = spawn(takes, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    if (done) {
        CHECK_ERR(put(W.tx, 3, KLAW_NOWAIT), KLAW_FULL); /* the slot is held */
        CHECK_ERR(klaw_permit_send(&W.permit, &v), KLAW_OK);
        sent(v);
    } else {
        CHECK_ERR(put(W.tx, 3, KLAW_NOWAIT), KLAW_OK);
    }
    drain(W.rx);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_reserve) {
    open_channel(1);
    run(reserve_main);
    clean();
}

/* --- select ---------------------------------------------------------------------------------- */

static klaw_err op_select(void) {
    uint64_t v[2] = {0, 9};
    klaw_case c[2] = {klaw_case_recv(W.rx, &v[0]), klaw_case_send(W.tx2, &v[1])};
    klaw_err e = klaw_select(c, 2, &W.chosen, KLAW_FOREVER);
    if (e != KLAW_OK)
        return e;
    CHECK_ERR(c[W.chosen].err, KLAW_OK);
    if (W.chosen == 0)
        received(v[0]);
    else
        sent(9);
    return e;
}

static klaw_err takes_other(void *arg) {
    (void)arg;
    return take(W.rx2, NULL, KLAW_FOREVER);
}

static klaw_err select_main(void *arg) {
    (void)arg;
    CHECK_ERR(put(W.tx2, 8, KLAW_FOREVER), KLAW_OK);
    begin(op_select);
    klaw_fiber *g = spawn(puts_1, NULL), *h = spawn(takes_other, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(join(h), KLAW_OK);
    KLAW_DET_CHECK(was_received(1) == (done && W.chosen == 0));
    KLAW_DET_CHECK(was_sent(9) == (done && W.chosen == 1));
    drain(W.rx);
    drain(W.rx2);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_select) {
    open_channel(1);
    klaw_channel_opts o = {.capacity = 1};
    CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx2, &W.rx2), KLAW_OK);
    run(select_main);
    clean();
}

/* --- the other kinds ------------------------------------------------------------------------- */

static klaw_err oneshot_main(void *arg) {
    (void)arg;
    begin(op_recv);
    klaw_fiber *g = spawn(puts_1, NULL);
    bool got = happened();
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), got ? KLAW_CLOSED : KLAW_OK);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_oneshot_recv) {
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_oneshot(&klaw_u64, &W.tx, &W.rx), KLAW_OK);
    run(oneshot_main);
    clean();
}

SCENARIO_AT_EACH_POINT(cancel_ring_recv) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = 1, .one_to_one = true};
    CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
    run(recv_main);
    clean();
}

SCENARIO_AT_EACH_POINT(cancel_ring_send) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = 1, .one_to_one = true};
    CHECK_ERR(klaw_channel(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
    run(send_main);
    clean();
}

static klaw_err op_broadcast_send(void) {
    uint64_t v = 2;
    return klaw_send(W.tx, &v, KLAW_FOREVER);
}

static klaw_err recv_1(void *arg) {
    uint64_t v = 0;
    (void)arg;
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(v == 1);
    return KLAW_OK;
}

static klaw_err broadcast_main(void *arg) {
    uint64_t v = 1;
    (void)arg;
    CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    begin(op_broadcast_send);
    klaw_fiber *g = spawn(recv_1, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_NOWAIT), done ? KLAW_OK : KLAW_EMPTY);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_broadcast_send) {
    memset(&W, 0, sizeof W);
    klaw_broadcast_opts o = {.capacity = 1, .lag = KLAW_LAG_WAIT};
    CHECK_ERR(klaw_broadcast(&klaw_u64, &o, &W.tx, &W.rx), KLAW_OK);
    run(broadcast_main);
    clean();
}

static klaw_err op_changed(void) {
    return klaw_watch_changed(W.rx, KLAW_FOREVER);
}

static klaw_err publishes(void *arg) {
    uint64_t v = 1;
    (void)arg;
    return klaw_send(W.tx, &v, KLAW_FOREVER);
}

static klaw_err changed_main(void *arg) {
    bool changed;
    (void)arg;
    begin(op_changed);
    klaw_fiber *g = spawn(publishes, NULL);
    bool done = happened();
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_watch_has_changed(W.rx, &changed), KLAW_OK);
    KLAW_DET_CHECK(changed == !done);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_watch_changed) {
    uint64_t v = 0;
    memset(&W, 0, sizeof W);
    CHECK_ERR(klaw_watch(&klaw_u64, &v, &W.tx, &W.rx), KLAW_OK);
    run(changed_main);
    clean();
}

/* --- fibers, scopes, time, descriptors ------------------------------------------------------- */

static klaw_err op_sleep(void) {
    return klaw_sleep(klaw_after(100000));
}

static klaw_err sleep_main(void *arg) {
    (void)arg;
    begin(op_sleep);
    (void)happened();
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_sleep) {
    open_channel(1);
    run(sleep_main);
    clean();
}

static klaw_err ends(void *arg) {
    (void)arg;
    pass();
    W.ended = true;
    return KLAW_EXISTS;
}

static klaw_err op_join(void) {
    klaw_err result = KLAW_OK, e = klaw_join(W.target, &result, NULL, KLAW_FOREVER);
    KLAW_DET_CHECK(e != KLAW_OK || (W.ended && result == KLAW_EXISTS));
    return e;
}

static klaw_err join_main(void *arg) {
    (void)arg;
    W.target = spawn(ends, NULL);
    begin(op_join);
    if (!happened())
        CHECK_ERR(join(W.target), KLAW_EXISTS);
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_join) {
    open_channel(1);
    run(join_main);
    clean();
}

static klaw_err op_scope(void) {
    klaw_scope *s;
    CHECK_ERR(klaw_scope_open(NULL, &s), KLAW_OK);
    go(ends, NULL);
    klaw_err w = klaw_scope_wait(s, KLAW_FOREVER), e = klaw_scope_close(s);
    KLAW_DET_CHECK(W.ended); /* close waits, cancelled or not */
    KLAW_DET_CHECK(e == KLAW_EXISTS);
    return w;
}

static klaw_err scope_main(void *arg) {
    (void)arg;
    begin(op_scope);
    (void)happened();
    return KLAW_OK;
}

SCENARIO_AT_EACH_POINT(cancel_scope_wait) {
    open_channel(1);
    run(scope_main);
    clean();
}

static klaw_err op_fd(void) {
    return klaw_fd_wait(W.pipe[0], KLAW_READ, KLAW_FOREVER);
}

static klaw_err fd_writes(void *arg) {
    (void)arg;
    return write(W.pipe[1], "x", 1) == 1 ? KLAW_OK : KLAW_SYSTEM;
}

static klaw_err fd_main(void *arg) {
    (void)arg;
    begin(op_fd);
    klaw_fiber *g = spawn(fd_writes, NULL);
    (void)happened();
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_fd_wait(W.pipe[0], KLAW_READ, KLAW_FOREVER), KLAW_OK);
    return klaw_fd_close(W.pipe[0]);
}

SCENARIO_AT_EACH_POINT(cancel_fd_wait) {
    open_channel(1);
    KLAW_DET_CHECK(pipe(W.pipe) == 0);
    run(fd_main);
    close(W.pipe[1]);
    clean();
}

INTERLEAVE_MAIN
