/* SPDX-License-Identifier: Apache-2.0 */
/* test_executor.c - tasks under every order: cancel against begin and end, submit against a runner
 * that leaves and against close, deadlines, maps that are cut, gathers. */
#include "interleave/harness.h"

#include <string.h>

#include "klaw/executor.h"

static struct {
    klaw_executor *ex;
    klaw_task *t[4];
    int ran[4], released, running, most;
    klaw_err seen[4];
    klaw_sender *tx;
    klaw_receiver *rx;
} W;

static void fresh(int32_t concurrency) {
    memset(&W, 0, sizeof W);
    klaw_executor_opts o = {.concurrency = concurrency};
    CHECK_ERR(klaw_executor_open(&o, &W.ex), KLAW_OK);
    CHECK_ERR(klaw_channel(&klaw_u64, NULL, &W.tx, &W.rx), KLAW_OK);
}

static void clean(void) {
    CHECK_ERR(klaw_executor_close(W.ex, KLAW_FOREVER, NULL), KLAW_OK);
    klaw_executor_stats s;
    klaw_executor_get_stats(W.ex, &s);
    KLAW_DET_CHECK(s.queued == 0 && s.running == 0);
    KLAW_DET_CHECK(s.submitted == s.succeeded + s.failed + s.cancelled + s.timed_out);
    klaw_executor_unref(W.ex);
    klaw_sender_unref(W.tx);
    klaw_receiver_unref(W.rx);
}

static void releases(void *arg) {
    (void)arg;
    W.released++;
}

static klaw_task *submit(klaw_fn fn, uintptr_t i) {
    klaw_task_opts o = {.release = releases};
    klaw_task *t = NULL;
    CHECK_ERR(klaw_submit(W.ex, fn, (void *)i, &o, &t), KLAW_OK);
    return t;
}

static klaw_err ending(klaw_task *t) {
    klaw_err e = KLAW_OK;
    CHECK_ERR(klaw_task_join(t, KLAW_FOREVER, &e, NULL), KLAW_OK);
    klaw_task_unref(t);
    return e;
}

/* Waits for a moment; says whether it was let. */
static klaw_err naps(void *arg) {
    uintptr_t i = (uintptr_t)arg;
    W.ran[i]++;
    W.seen[i] = klaw_sleep(soon());
    return W.seen[i];
}

static klaw_err cancels_first(void *arg) {
    (void)arg;
    klaw_task_cancel(W.t[0], "not wanted");
    return KLAW_OK;
}

/* Only the first is cancelled, whatever it is doing; the same runner has the second next. */
static klaw_err cancel_main(void *arg) {
    (void)arg;
    fresh(1);
    W.t[0] = submit(naps, 0);
    klaw_fiber *f = spawn(cancels_first, NULL);
    W.t[1] = submit(naps, 1);
    klaw_err e;
    CHECK_ERR(klaw_task_join(W.t[0], KLAW_FOREVER, &e, NULL), KLAW_OK);
    if (e == KLAW_CANCELLED)
        KLAW_DET_CHECK(strcmp(klaw_task_exit_reason(W.t[0]), "not wanted") == 0);
    KLAW_DET_CHECK(e == (W.ran[0] ? W.seen[0] : KLAW_CANCELLED));
    CHECK_ERR(join(f), KLAW_OK);
    klaw_task_unref(W.t[0]);
    CHECK_ERR(ending(W.t[1]), KLAW_OK);
    CHECK_ERR(W.seen[1], KLAW_OK);
    KLAW_DET_CHECK(W.ran[0] <= 1 && W.ran[1] == 1);
    CHECK_ERR(klaw_executor_wait(W.ex, KLAW_FOREVER), KLAW_OK);
    KLAW_DET_CHECK(W.released == 2);
    clean();
    return KLAW_OK;
}

SCENARIO_COST(cancel_reaches_its_task_and_no_other, 2) {
    run(cancel_main);
}

/* The first occupies the only place until the second has been cancelled in the queue. */
static klaw_err holds(void *arg) {
    uint64_t v;
    (void)arg;
    W.ran[0]++;
    return klaw_recv(W.rx, &v, KLAW_FOREVER);
}

static klaw_err queued_main(void *arg) {
    uint64_t v = 1;
    (void)arg;
    fresh(1);
    W.t[0] = submit(holds, 0);
    W.t[1] = submit(naps, 1);
    W.t[2] = submit(naps, 2);
    klaw_task_cancel(W.t[1], "queued");
    KLAW_DET_CHECK(klaw_task_exit_reason(W.t[1]) != NULL || W.ran[1]);
    CHECK_ERR(klaw_send(W.tx, &v, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(ending(W.t[1]), KLAW_CANCELLED);
    CHECK_ERR(ending(W.t[0]), KLAW_OK);
    CHECK_ERR(ending(W.t[2]), KLAW_OK);
    clean();
    KLAW_DET_CHECK(W.ran[1] == 0 && W.released == 3);
    return KLAW_OK;
}

SCENARIO_COST(a_task_cancelled_in_the_queue_never_runs, 2) {
    run(queued_main);
}

/* Each submit meets a runner that is about to end. */
static klaw_err counts(void *arg) {
    W.ran[(uintptr_t)arg]++;
    return KLAW_OK;
}

static klaw_err one_by_one_main(void *arg) {
    (void)arg;
    fresh(1);
    for (uintptr_t i = 0; i < 4; i++) {
        W.t[i] = submit(counts, i);
        pass();
    }
    for (int i = 0; i < 4; i++)
        CHECK_ERR(ending(W.t[i]), KLAW_OK);
    for (int i = 0; i < 4; i++)
        KLAW_DET_CHECK(W.ran[i] == 1);
    clean();
    return KLAW_OK;
}

SCENARIO_COST(a_submit_against_a_runner_that_leaves, 2) {
    run(one_by_one_main);
}

static klaw_err submits_two(void *arg) {
    (void)arg;
    for (uintptr_t i = 0; i < 2; i++) {
        klaw_err e = klaw_submit(W.ex, naps, (void *)i, NULL, &W.t[i]);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CLOSED);
        pass();
    }
    return KLAW_OK;
}

static klaw_err close_main(void *arg) {
    (void)arg;
    fresh(1);
    klaw_fiber *f = spawn(submits_two, NULL);
    pass();
    klaw_err e = klaw_executor_close(W.ex, soon(), "closed");
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    CHECK_ERR(join(f), KLAW_OK);
    for (int i = 0; i < 2; i++)
        if (W.t[i]) { /* what was accepted has ended */
            klaw_err t;
            CHECK_ERR(klaw_task_join(W.t[i], KLAW_NOWAIT, &t, NULL), KLAW_OK);
            KLAW_DET_CHECK(t == (W.ran[i] ? W.seen[i] : KLAW_CANCELLED));
            klaw_task_unref(W.t[i]);
        } else {
            KLAW_DET_CHECK(W.ran[i] == 0);
        }
    clean();
    return KLAW_OK;
}

SCENARIO_COST(close_against_submit, 4) {
    run(close_main);
}

/* The executor's scope is closed meanwhile: then no runner can be had. */
static int accepted;

static klaw_err submits_in_vain(void *arg) {
    klaw_task_opts o = {.release = releases};
    (void)arg;
    for (int i = 0; i < 3; i++) {
        klaw_err e = klaw_submit(W.ex, counts, NULL, &o, NULL);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        accepted += e == KLAW_OK; /* it ran, or ended with STOPPED: another one had no runner */
    }
    return KLAW_OK;
}

static klaw_err no_runner_main(void *arg) {
    klaw_scope *outer = klaw_scope_current(), *s;
    klaw_fiber *f;
    (void)arg;
    accepted = 0;
    CHECK_ERR(klaw_scope_open(NULL, &s), KLAW_OK);
    fresh(2);
    CHECK_ERR(klaw_submit(W.ex, naps, (void *)1, NULL, NULL), KLAW_OK); /* has a runner */
    CHECK_ERR(klaw_spawn(outer, submits_in_vain, NULL, NULL, &f), KLAW_OK);
    CHECK_ERR(klaw_scope_close(s), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    KLAW_DET_CHECK(W.released == accepted && W.ran[0] <= accepted);
    clean();
    return KLAW_OK;
}

SCENARIO(submitters_without_a_runner) {
    run(no_runner_main);
}

static klaw_err deadline_main(void *arg) {
    (void)arg;
    fresh(1);
    for (uintptr_t i = 0; i < 3; i++) {
        klaw_task_opts o = {.release = releases, .deadline = i == 2 ? 0 : soon()};
        CHECK_ERR(klaw_submit(W.ex, naps, (void *)i, &o, &W.t[i]), KLAW_OK);
    }
    for (int i = 0; i < 2; i++) {
        klaw_err e = ending(W.t[i]);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
        KLAW_DET_CHECK(e == KLAW_OK ? W.ran[i] == 1 : W.ran[i] == 0 || W.seen[i] != KLAW_OK);
    }
    CHECK_ERR(ending(W.t[2]), KLAW_OK);
    CHECK_ERR(W.seen[2], KLAW_OK);
    clean();
    KLAW_DET_CHECK(W.released == 3);
    return KLAW_OK;
}

SCENARIO_COST(a_deadline_against_begin_and_end, 4) {
    run(deadline_main);
}

/* --- maps --- */
static klaw_err item(const void *it, void *result, void *arg) {
    int i = *(const int *)it;
    (void)arg;
    (void)result;
    W.ran[i]++;
    if (++W.running > W.most)
        W.most = W.running;
    if (i % 2)
        W.seen[i] = klaw_sleep(soon());
    W.running--;
    return W.seen[i];
}

static const int items[4] = {0, 1, 2, 3};

static klaw_err maps(void *arg) {
    klaw_err errors[4];
    klaw_map_opts o = {.deadline = arg ? soon() : 0};
    klaw_err e = klaw_map(W.ex, item, NULL, items, sizeof *items, 4, NULL, 0, errors, &o);
    KLAW_DET_CHECK(W.running == 0 && W.most <= 2);
    for (int i = 0; i < 4; i++) {
        KLAW_DET_CHECK(W.ran[i] <= 1);
        KLAW_DET_CHECK(W.ran[i] || errors[i] != KLAW_OK);
        KLAW_DET_CHECK(e != KLAW_OK || (W.ran[i] && errors[i] == KLAW_OK));
    }
    return e;
}

static klaw_err map_main(void *arg) {
    (void)arg;
    fresh(2);
    klaw_fiber *f = spawn(maps, NULL);
    CHECK_ERR(join(f), KLAW_OK);
    clean();
    return KLAW_OK;
}

SCENARIO_COST(a_map_does_each_item_once, 4) {
    run(map_main);
}

static klaw_err map_late_main(void *arg) {
    (void)arg;
    fresh(2);
    klaw_fiber *f = spawn(maps, &W);
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    W.t[0] = submit(naps, 0); /* on a fiber that is not cancelled any more */
    CHECK_ERR(ending(W.t[0]), KLAW_OK);
    clean();
    return KLAW_OK;
}

SCENARIO_COST(a_map_that_is_late_leaves_nothing_running, 4) {
    run(map_late_main);
}

static klaw_err map_cancel_main(void *arg) {
    (void)arg;
    fresh(2);
    klaw_fiber *f = spawn(maps, NULL);
    pass();
    pass();
    klaw_executor_cancel(W.ex, "stop");
    klaw_err e = join(f);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    clean();
    return KLAW_OK;
}

SCENARIO_COST(a_map_is_cancelled_with_its_executor, 4) {
    run(map_cancel_main);
}

/* --- several tasks --- */
static klaw_err fails(void *arg) {
    (void)arg;
    return KLAW_CORRUPT;
}

static klaw_err gather_main(void *arg) {
    (void)arg;
    klaw_task_result r[3];
    fresh(2);
    W.t[0] = submit(holds, 0);
    W.t[1] = submit(naps, 1);
    W.t[2] = submit(fails, 2);
    CHECK_ERR(klaw_gather(W.t, 3, r, true, KLAW_FOREVER), KLAW_CORRUPT);
    CHECK_ERR(r[0].error, KLAW_CANCELLED);
    KLAW_DET_CHECK(r[1].error == KLAW_OK || r[1].error == KLAW_CANCELLED);
    CHECK_ERR(r[2].error, KLAW_CORRUPT);
    for (int i = 0; i < 3; i++)
        klaw_task_unref(W.t[i]);
    clean();
    KLAW_DET_CHECK(W.released == 3);
    return KLAW_OK;
}

SCENARIO_COST(the_first_error_of_a_gather_cancels_the_rest, 4) {
    run(gather_main);
}

static void *thread_joins(void *arg) {
    (void)arg;
    W.seen[3] = ending(W.t[3]);
    return NULL;
}

static klaw_err thread_main(void *arg) {
    (void)arg;
    fresh(1);
    W.t[2] = submit(naps, 2);
    W.t[3] = klaw_task_ref(W.t[2]);
    vthread t = vthread_start("joiner", thread_joins, NULL);
    CHECK_ERR(ending(W.t[2]), KLAW_OK);
    clean();
    vthread_join(t);
    CHECK_ERR(W.seen[3], KLAW_OK);
    return KLAW_OK;
}

SCENARIO_COST(a_thread_and_a_fiber_join_one_task, 4) {
    run(thread_main);
}

INTERLEAVE_MAIN
