/* SPDX-License-Identifier: Apache-2.0 */
/* test_hosts.c - fibers with plain threads, foreign loops, the blocking pool, descriptors; idle
 * workers, pinned fibers, stopping. */
#include "interleave/harness.h"

#include <string.h>
#include <unistd.h>

#include "sched/sched.h"

static struct {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_err e[4];
    klaw_fiber *f;
    klaw_inbox *inbox;
    klaw_op op[2];
    klawi_poller poller;
    int called, pipe[2], ran;
    uint32_t home;
    bool flag;
} W;

static void drop(void *elem) {
    received(*(uint64_t *)elem);
}
static const klaw_type counted = {.name = "counted", .size = sizeof(uint64_t), .drop = drop};

static void fresh(int64_t capacity) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts o = {.capacity = capacity};
    CHECK_ERR(klaw_channel(&counted, &o, &W.tx, &W.rx), KLAW_OK);
}

static void clean(void) {
    drain(W.rx);
    klaw_sender_unref(W.tx);
    klaw_receiver_unref(W.rx);
    account_closed();
}

/* --- threads --------------------------------------------------------------------------------- */

static void *thread_sends(void *arg) {
    uint64_t first = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 0; i < 3; i++)
        CHECK_ERR(put(W.tx, first + i, KLAW_FOREVER), KLAW_OK);
    return NULL;
}

static void *thread_receives(void *arg) {
    uint64_t v, last = 0;
    (void)arg;
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK(v > last);
        last = v;
    }
    return NULL;
}

static klaw_err fiber_receives(void *arg) {
    thread_receives(arg);
    return KLAW_OK;
}

static klaw_err fiber_sends(void *arg) {
    thread_sends(arg ? arg : (void *)1);
    return KLAW_OK;
}

SCENARIO(a_thread_sends_to_a_fiber) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    vthread t = vthread_start("sends", thread_sends, (void *)1);
    run(fiber_receives);
    vthread_join(t);
    clean();
}

SCENARIO(a_fiber_sends_to_a_thread) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    vthread t = vthread_start("receives", thread_receives, NULL);
    run(fiber_sends);
    vthread_join(t);
    clean();
}

SCENARIO(two_threads_and_no_runtime) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    vthread a = vthread_start("sends", thread_sends, (void *)1);
    vthread b = vthread_start("receives", thread_receives, NULL);
    vthread_join(a);
    vthread_join(b);
    clean();
}

static void *thread_recv_soon(void *arg) {
    (void)arg;
    W.e[0] = take(W.rx, NULL, soon());
    KLAW_DET_CHECK(W.e[0] == KLAW_OK || W.e[0] == KLAW_TIMEOUT);
    return NULL;
}

static klaw_err send_soon(void *arg) {
    (void)arg;
    W.e[1] = put(W.tx, 9, soon());
    KLAW_DET_CHECK(W.e[1] == KLAW_OK || W.e[1] == KLAW_TIMEOUT);
    return KLAW_OK;
}

SCENARIO(a_thread_that_times_out) {
    fresh(KLAW_RENDEZVOUS);
    vthread t = vthread_start("receives", thread_recv_soon, NULL);
    run(send_soon);
    vthread_join(t);
    KLAW_DET_CHECK(W.e[0] == W.e[1]);
    clean();
}

static void *thread_recv_or_closed(void *arg) {
    int i = (int)(intptr_t)arg;
    W.e[i] = take(W.rx, NULL, KLAW_FOREVER);
    return NULL;
}

static klaw_err send_and_close(void *arg) {
    (void)arg;
    klaw_err e = put(W.tx, 9, KLAW_FOREVER);
    klaw_sender_close(W.tx);
    return e;
}

SCENARIO(close_wakes_threads) {
    fresh(1);
    vthread a = vthread_start("a", thread_recv_or_closed, (void *)0);
    vthread b = vthread_start("b", thread_recv_or_closed, (void *)1);
    run(send_and_close);
    vthread_join(a);
    vthread_join(b);
    KLAW_DET_CHECK((W.e[0] == KLAW_OK) != (W.e[1] == KLAW_OK));
    KLAW_DET_CHECK((W.e[0] == KLAW_CLOSED) != (W.e[1] == KLAW_CLOSED));
    clean();
}

static klaw_err ends(void *arg) {
    (void)arg;
    if (choose(2))
        pass();
    return KLAW_EXISTS;
}

static void *thread_joins(void *arg) {
    (void)arg;
    KLAW_DET_CHECK(join(W.f) == KLAW_EXISTS);
    return NULL;
}

static klaw_err thread_joins_main(void *arg) {
    (void)arg;
    W.f = spawn(ends, NULL);
    vthread t = vthread_start("joins", thread_joins, NULL);
    if (choose(2))
        pass();
    vthread_join(t); /* this worker is away meanwhile */
    return KLAW_OK;
}

SCENARIO(a_thread_joins_a_fiber) {
    fresh(0);
    run(thread_joins_main);
    clean();
}

/* --- idle workers ---------------------------------------------------------------------------- */

static void *thread_pings(void *arg) { /* the workers are idle now and then */
    (void)arg;
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_ERR(put(W.tx, i, KLAW_FOREVER), KLAW_OK);
        if (choose(2))
            klawi_det_sleep(choose(2) ? 100 : 50000);
    }
    klaw_sender_close(W.tx);
    return NULL;
}

static klaw_err until_closed(void *arg) {
    klaw_err e;
    (void)arg;
    while ((e = take(W.rx, NULL, KLAW_FOREVER)) == KLAW_OK)
        ;
    CHECK_ERR(e, KLAW_CLOSED);
    return KLAW_OK;
}

static klaw_err idle_main(void *arg) {
    (void)arg;
    go(until_closed, NULL);
    return until_closed(NULL);
}

SCENARIO(idle_workers_wake_for_a_foreign_thread) {
    fresh(1);
    vthread t = vthread_start("pings", thread_pings, NULL);
    run(idle_main);
    vthread_join(t);
    clean();
}

static klaw_err marks(void *arg) {
    (void)arg;
    W.ran++;
    uint64_t v = (uint64_t)W.ran;
    return klaw_send(W.tx, &v, KLAW_FOREVER);
}

static void *thread_spawns(void *arg) {
    (void)arg;
    for (int i = 0; i < 2; i++)
        CHECK_ERR(klaw_go(marks, NULL), KLAW_OK);
    return NULL;
}

static klaw_err spawned_main(void *arg) {
    uint64_t v;
    (void)arg;
    vthread t = vthread_start("spawns", thread_spawns, NULL);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    vthread_join(t);
    return KLAW_OK;
}

SCENARIO(a_thread_spawns_fibers) {
    fresh(0);
    run(spawned_main);
    KLAW_DET_CHECK(W.ran == 2);
    clean();
}

static klaw_err spins_until_flag(void *arg) {
    (void)arg;
    while (!W.flag)
        KLAWI_POINT();
    return KLAW_OK;
}

static klaw_err sets_flag(void *arg) {
    (void)arg;
    W.flag = true;
    return KLAW_OK;
}

/* R4: a fiber that does not reach a turn boundary; what it spawned is stolen from it, slot or not. */
static klaw_err hog_main(void *arg) {
    (void)arg;
    go(sets_flag, NULL);
    return spins_until_flag(NULL);
}

SCENARIO_COST(work_is_taken_from_a_busy_worker, 2) {
    fresh(0);
    run(hog_main);
    clean();
}

static klaw_err hog_wakes_main(void *arg) { /* the same with one it wakes */
    (void)arg;
    uint64_t v = 1;
    klaw_fiber *f = spawn(until_closed, NULL);
    if (choose(2))
        pass();
    CHECK_ERR(put(W.tx, v, KLAW_FOREVER), KLAW_OK);
    while (!was_received(1))
        KLAWI_POINT();
    klaw_sender_close(W.tx);
    return join(f);
}

SCENARIO_COST(a_woken_fiber_is_taken_from_a_busy_worker, 2) {
    fresh(0);
    run(hog_wakes_main);
    clean();
}

/* R8: fibers that never park give others their turn. */
static klaw_err busy(void *arg) {
    (void)arg;
    while (!W.flag)
        CHECK_ERR(klaw_check(), KLAW_OK);
    W.ran++;
    return KLAW_OK;
}

static klaw_err budget_main(void *arg) {
    (void)arg;
    go(busy, NULL);
    go(sets_flag, NULL);
    return busy(NULL);
}

SCENARIO(budgets_let_others_run) {
    fresh(0);
    klaw_run_opts o = {.workers = 1};
    CHECK_ERR(klaw_run(budget_main, NULL, &o), KLAW_OK);
    KLAW_DET_CHECK(W.ran == 2);
    clean();
}

/* R2: two that wake each other for ever let a third one run, after 32 turns of theirs. */
static klaw_err ping(void *arg) {
    uint64_t v = 1;
    (void)arg;
    while (!W.flag && klaw_recv(W.rx, &v, KLAW_FOREVER) == KLAW_OK &&
           klaw_send(W.tx, &v, KLAW_FOREVER) == KLAW_OK)
        KLAW_DET_CHECK(++W.ran <= 40);
    return KLAW_OK;
}

static klaw_err ping_main(void *arg) {
    uint64_t v = 1;
    (void)arg;
    klaw_fiber *f = spawn(ping, NULL), *g = spawn(ping, NULL);
    CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(spawn(sets_flag, NULL)), KLAW_OK);
    klaw_sender_close(W.tx);
    klaw_receiver_close(W.rx);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(a_busy_pair_does_not_starve_a_third) {
    memset(&W, 0, sizeof W);
    klaw_channel_opts c = {.capacity = KLAW_RENDEZVOUS};
    klaw_run_opts o = {.workers = 1};
    CHECK_ERR(klaw_channel(&klaw_u64, &c, &W.tx, &W.rx), KLAW_OK);
    CHECK_ERR(klaw_run(ping_main, NULL, &o), KLAW_OK);
    klaw_sender_unref(W.tx);
    klaw_receiver_unref(W.rx);
}

static klaw_err pinned(void *arg) {
    uint64_t v;
    (void)arg;
    uint32_t home = klawi_ctx_get()->worker->index;
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
        KLAW_DET_CHECK(klawi_ctx_get()->worker->index == home);
        CHECK_ERR(klaw_yield(), KLAW_OK);
        KLAW_DET_CHECK(klawi_ctx_get()->worker->index == home);
    }
    return KLAW_OK;
}

static klaw_err pinned_main(void *arg) {
    klaw_fiber *f[2];
    klaw_fiber_opts o = {.pinned = true};
    (void)arg;
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(klaw_spawn(NULL, pinned, NULL, &o, &f[i]), KLAW_OK);
        pass();
    }
    vthread t = vthread_start("sends", thread_sends, (void *)11);
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    for (int i = 0; i < 2; i++)
        CHECK_ERR(join(f[i]), KLAW_OK);
    vthread_join(t);
    return KLAW_OK;
}

SCENARIO(pinned_fibers_stay_on_their_worker) {
    fresh(1);
    run(pinned_main);
    clean();
}

static klaw_err pinned_waits(void *arg) {
    uint64_t v;
    (void)arg;
    W.home = klawi_ctx_get()->worker->index;
    W.flag = true;
    CHECK_ERR(take(W.rx, &v, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(klawi_ctx_get()->worker->index == W.home);
    return KLAW_OK;
}

/* R4, R7: the slot of a worker that stands still, with a pinned fiber in it. */
static klaw_err pinned_hog_main(void *arg) {
    klaw_fiber *f;
    klaw_fiber_opts o = {.pinned = true};
    (void)arg;
    CHECK_ERR(klaw_spawn(NULL, pinned_waits, NULL, &o, &f), KLAW_OK);
    while (!W.flag)
        pass();
    pass();
    CHECK_ERR(put(W.tx, 1, KLAW_FOREVER), KLAW_OK);
    klaw_deadline until = klaw_after(KLAW_MS(4));
    for (int i = 0; i < 1000 && klaw_now() < until; i++)
        KLAWI_POINT();
    return join(f);
}

SCENARIO(a_pinned_fiber_stays_in_a_busy_workers_slot) {
    fresh(1);
    run(pinned_hog_main);
    clean();
}

/* --- foreign loops --------------------------------------------------------------------------- */

static void *thread_recv_1(void *arg) {
    (void)arg;
    CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    return NULL;
}

static void *thread_send_1(void *arg) {
    (void)arg;
    W.e[3] = put(W.tx, 9, KLAW_FOREVER);
    return NULL;
}

static void *thread_closes_sender(void *arg) {
    (void)arg;
    klaw_sender_close(W.tx);
    return NULL;
}

static void called(klaw_op *op, void *user) {
    (void)user;
    KLAW_DET_CHECK(klaw_op_state(op) == 2);
    W.called++;
}

static void loop_open(void) {
    CHECK_ERR(klaw_inbox_open(&W.inbox), KLAW_OK);
    for (int i = 0; i < 2; i++)
        klaw_op_init(&W.op[i], W.inbox, called, NULL);
    CHECK_ERR(klawi_poller_open(&W.poller), KLAW_OK);
}

static void loop_close(void) {
    KLAW_DET_CHECK(klaw_op_state(&W.op[0]) == 0 && klaw_op_state(&W.op[1]) == 0);
    klawi_poller_close(&W.poller);
    klaw_inbox_unref(W.inbox);
}

/* What an event loop does: waits until the inbox's descriptor is readable, then pumps. */
static void loop_once(void) {
    klawi_poll_event ev;
    KLAW_DET_CHECK(klawi_poller_arm(&W.poller, klaw_inbox_fd(W.inbox), KLAW_READ, 1) == 0);
    while (klawi_poller_wait(&W.poller, &ev, 1, KLAW_FOREVER) == 0)
        ;
    klaw_inbox_pump(W.inbox, 0);
}

/* Receives once through an operation; the answer of start or finish. */
static klaw_err op_take(klaw_op *op) {
    uint64_t v = 0;
    for (;;) {
        bool waiting = true;
        klaw_err e = klaw_op_recv(op, W.rx, &waiting);
        if (e != KLAW_OK)
            return e;
        for (int before = W.called; waiting && W.called == before;)
            loop_once();
        e = klaw_op_finish(op, &v);
        if (e == KLAW_EMPTY) /* the peer left in between */
            continue;
        if (e == KLAW_OK)
            received(v);
        return e;
    }
}

SCENARIO(a_loop_receives_from_a_thread) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    loop_open();
    vthread t = vthread_start("sends", thread_sends, (void *)1);
    for (int i = 0; i < 3; i++)
        CHECK_ERR(op_take(&W.op[0]), KLAW_OK);
    vthread_join(t);
    loop_close();
    clean();
}

static klaw_err op_put(klaw_op *op, uint64_t v) {
    for (;;) {
        bool waiting = true;
        klaw_err e = klaw_op_send(op, W.tx, &waiting);
        if (e != KLAW_OK)
            return e;
        for (int before = W.called; waiting && W.called == before;)
            loop_once();
        uint64_t copy = v;
        e = klaw_op_finish(op, &copy);
        if (e == KLAW_FULL)
            continue;
        if (e == KLAW_OK)
            sent(v);
        return e;
    }
}

SCENARIO(a_loop_sends_to_a_thread) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    loop_open();
    vthread t = vthread_start("receives", thread_receives, NULL);
    for (uint64_t v = 1; v <= 3; v++)
        CHECK_ERR(op_put(&W.op[0], v), KLAW_OK);
    vthread_join(t);
    loop_close();
    clean();
}

SCENARIO(an_abandoned_grant_goes_to_the_next) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    loop_open();
    bool waiting;
    CHECK_ERR(klaw_op_recv(&W.op[0], W.rx, &waiting), KLAW_OK);
    KLAW_DET_CHECK(waiting);
    vthread r = vthread_start("receives", thread_recv_1, NULL);
    vthread s = vthread_start("sends", thread_send_1, NULL);
    if (choose(2))
        loop_once();
    klaw_op_cancel(&W.op[0]); /* waiting, in the inbox, or called back */
    klaw_op_cancel(&W.op[0]);
    vthread_join(s);
    vthread_join(r);
    CHECK_ERR(W.e[3], KLAW_OK);
    int n = W.called;
    klaw_inbox_pump(W.inbox, 0);
    KLAW_DET_CHECK(W.called == n); /* not called back after the cancel */
    loop_close();
    clean();
}

SCENARIO(an_abandoned_send_grant_goes_to_the_next) {
    fresh(choose(2) ? 1 : KLAW_RENDEZVOUS);
    loop_open();
    bool waiting = false;
    if (choose(2))
        (void)put(W.tx, 1, KLAW_NOWAIT);
    CHECK_ERR(klaw_op_send(&W.op[0], W.tx, &waiting), KLAW_OK);
    vthread s = vthread_start("sends", thread_send_1, NULL);
    vthread r = vthread_start("receives", thread_recv_1, NULL);
    klaw_op_cancel(&W.op[0]);
    vthread_join(r);
    if (was_received(1)) /* else the rendezvous took 9 already */
        CHECK_ERR(take(W.rx, NULL, KLAW_FOREVER), KLAW_OK);
    vthread_join(s);
    CHECK_ERR(W.e[3], KLAW_OK);
    loop_close();
    clean();
}

SCENARIO(two_operations_share_one_element) {
    fresh(1);
    loop_open();
    bool waiting;
    uint64_t v = 0;
    for (int i = 0; i < 2; i++)
        CHECK_ERR(klaw_op_recv(&W.op[i], W.rx, &waiting), KLAW_OK);
    vthread s = vthread_start("sends", thread_send_1, NULL);
    while (W.called == 0)
        loop_once();
    int k = klaw_op_state(&W.op[0]) == 2 ? 0 : 1;
    KLAW_DET_CHECK(klaw_op_state(&W.op[1 - k]) != 2);
    CHECK_ERR(klaw_op_finish(&W.op[k], &v), KLAW_OK);
    received(v);
    klaw_op_cancel(&W.op[1 - k]);
    vthread_join(s);
    loop_close();
    clean();
}

SCENARIO(close_calls_operations_back) {
    fresh(1);
    loop_open();
    vthread c = vthread_start("closes", thread_closes_sender, NULL);
    CHECK_ERR(op_take(&W.op[0]), KLAW_CLOSED);
    vthread_join(c);
    loop_close();
    clean();
}

/* --- the blocking pool ----------------------------------------------------------------------- */

static klaw_err blocks(void *arg) {
    (void)arg;
    if (choose(2))
        klawi_det_sleep(1000);
    W.ran++;
    return KLAW_LIMIT;
}

static klaw_err calls_blocking(void *arg) {
    (void)arg;
    CHECK_ERR(klaw_blocking(blocks, NULL), KLAW_LIMIT);
    return KLAW_OK;
}

static klaw_err blocking_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(calls_blocking, NULL);
    go(calls_blocking, NULL);
    if (choose(2))
        klaw_fiber_cancel(f); /* awaited all the same */
    CHECK_ERR(calls_blocking(NULL), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    return KLAW_OK;
}

SCENARIO(blocking_calls_are_awaited) {
    fresh(0);
    run(blocking_main);
    KLAW_DET_CHECK(W.ran == 3);
    clean();
}

/* --- descriptors ----------------------------------------------------------------------------- */

static klaw_err fd_waits(void *arg) {
    int i = (int)(intptr_t)arg;
    return W.e[i] = klaw_fd_wait(W.pipe[0], KLAW_READ, i == 1 ? soon() : KLAW_FOREVER);
}

static klaw_err fd_writes(void *arg) {
    (void)arg;
    KLAW_DET_CHECK(write(W.pipe[1], "x", 1) == 1);
    return KLAW_OK;
}

static void open_pipe(void) {
    fresh(0);
    KLAW_DET_CHECK(pipe(W.pipe) == 0);
}

static void close_pipe(void) {
    close(W.pipe[1]);
    clean();
}

static klaw_err fd_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(fd_waits, (void *)0), *g = spawn(fd_waits, (void *)0);
    go(fd_writes, NULL);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_fd_close(W.pipe[0]), KLAW_OK);
    return KLAW_OK;
}

SCENARIO_COST(a_descriptor_becomes_ready, 2) {
    open_pipe();
    run(fd_main);
    close_pipe();
}

static klaw_err fd_close_writes_first_main(void *arg) {
    (void)arg;
    CHECK_ERR(fd_writes(NULL), KLAW_OK);
    klaw_fiber *f = spawn(fd_waits, (void *)0);
    CHECK_ERR(klaw_fd_close(W.pipe[0]), KLAW_OK);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CLOSED || e == KLAW_INVALID);
    return KLAW_OK;
}

static klaw_err fd_close_plain_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(fd_waits, (void *)0);
    if (choose(2))
        pass();
    CHECK_ERR(klaw_fd_close(W.pipe[0]), KLAW_OK);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_CLOSED || e == KLAW_INVALID);
    return KLAW_OK;
}

SCENARIO_COST(closing_a_descriptor_wakes_who_waits, 2) {
    open_pipe();
    run(choose(2) ? fd_close_plain_main : fd_close_writes_first_main);
    close_pipe();
}

static klaw_err fd_leave_main(void *arg) {
    (void)arg;
    klaw_fiber *f = spawn(fd_waits, (void *)(intptr_t)choose(2));
    klaw_fiber *g = spawn(fd_writes, NULL);
    if (choose(2))
        klaw_fiber_cancel(f);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT);
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(klaw_fd_wait(W.pipe[0], KLAW_READ, KLAW_FOREVER), KLAW_OK); /* still there */
    CHECK_ERR(klaw_fd_close(W.pipe[0]), KLAW_OK);
    return KLAW_OK;
}

SCENARIO_COST(a_descriptor_wait_that_leaves, 2) {
    open_pipe();
    run(fd_leave_main);
    close_pipe();
}

/* K2: a run queue that overflows while two thieves are at it. */
#define CROWD 14

static klaw_err counts_itself(void *arg) {
    if (choose(2))
        CHECK_ERR(klaw_yield(), KLAW_OK);
    ((uint8_t *)arg)[0]++;
    return KLAW_OK;
}

static klaw_err crowd_main(void *arg) {
    for (int i = 0; i < CROWD; i++)
        CHECK_ERR(klaw_go(counts_itself, (uint8_t *)arg + i), KLAW_OK);
    return KLAW_OK;
}

SCENARIO_COST(a_full_run_queue_runs_each_once, 2) {
    uint8_t ran[CROWD] = {0};
    fresh(0);
    CHECK_ERR(klaw_run(crowd_main, ran, &(klaw_run_opts){.workers = 4}), KLAW_OK);
    for (int i = 0; i < CROWD; i++)
        KLAW_DET_CHECK(ran[i] == 1);
    clean();
}

/* --- stopping -------------------------------------------------------------------------------- */

static klaw_err cancelled(void *arg) {
    uint64_t v;
    (void)arg;
    W.ran++;
    CHECK_ERR(klaw_recv(W.rx, &v, KLAW_FOREVER), KLAW_CANCELLED);
    return KLAW_CANCELLED;
}

static void *stops(void *arg) {
    (void)arg;
    while (klaw_run_stop("enough") != KLAW_OK) /* not started yet */
        klawi_thread_yield();
    return NULL;
}

static klaw_err stop_main(void *arg) {
    (void)arg;
    go(cancelled, NULL);
    go(cancelled, NULL);
    return cancelled(NULL);
}

SCENARIO(run_stop_reaches_every_fiber) {
    fresh(0);
    vthread t = vthread_start("stops", stops, NULL);
    CHECK_ERR(run_err(stop_main), KLAW_CANCELLED);
    vthread_join(t);
    KLAW_DET_CHECK(W.ran == 3);
    clean();
}

static klaw_err deadline_main(void *arg) {
    (void)arg;
    go(cancelled, NULL);
    cancelled(NULL);
    return KLAW_OK;
}

SCENARIO(run_deadline_cancels_everything) {
    fresh(0);
    klaw_run_opts o = {.workers = 2, .deadline = soon()};
    CHECK_ERR(klaw_run(deadline_main, NULL, &o), KLAW_TIMEOUT);
    KLAW_DET_CHECK(W.ran == 2);
    clean();
}

static klaw_err quick_main(void *arg) {
    return arg ? KLAW_OK : KLAW_OK;
}

SCENARIO(start_and_stop) {
    fresh(0);
    run(quick_main);
    run(quick_main);
    clean();
}

INTERLEAVE_MAIN
