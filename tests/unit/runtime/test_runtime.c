/* SPDX-License-Identifier: Apache-2.0 */
/* test_runtime.c - the runtime object: what it owns, how it ends, what it tells.
 *
 * Tried with these bugs seeded: actors are stopped before the work is done; a graceful shutdown
 * does not close channels; one that is late is not cancelled; the scopes are not cancelled when
 * nothing was late; a channel that has gone stays in the list; a second shutdown does not wait. */
#include "support/actors.h"

#include "klaw/runtime.h"
#include "support/child.h"

#include "sched/sched.h"

/* Runs the body that follows on a plain thread (the object starts a run) and inside of one. */
static bool inside;
static void in_both(void (*body)(void)) {
    inside = false;
    body();
    SAME(klaw_run_workers(), 0);
    inside = true;
    OK(run_with(2, body));
}
#define BOTH(name)                   \
    static void name##_body(void);   \
    static void name(void **state) { \
        (void)state;                 \
        check_test = #name;          \
        in_both(name##_body);        \
    }                                \
    static void name##_body(void)

static klaw_runtime *opened(klaw_runtime_opts o) {
    klaw_runtime *rt = NULL;
    o.run.workers = 2;
    OK(klaw_runtime_open(&o, &rt, NULL));
    CHECK(rt);
    return rt;
}
static klaw_runtime *fresh(void) {
    return opened((klaw_runtime_opts){.name = "test"});
}
/* Everything ends by itself. */
static void closes(klaw_runtime *rt) {
    klaw_shutdown_report r;
    OK(klaw_runtime_shutdown(rt, NULL, &r));
    SAME(r.cancelled + r.queued + r.abandoned + r.n_late + r.n_lost, 0);
    CHECK(!r.incomplete);
    OK(r.error);
    klaw_runtime_free(rt);
}
static bool names(const klaw_late *l, size_t n, const char *kind, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(l[i].kind, kind) == 0 && strcmp(l[i].name, name) == 0)
            return true;
    return false;
}

static _Atomic int ran;
static klaw_err runs(void *arg) {
    (void)arg;
    atomic_fetch_add(&ran, 1);
    return KLAW_OK;
}
static _Atomic int staying;
static klaw_err stays(void *arg) {
    atomic_fetch_add(&staying, 1);
    klaw_err e = klaw_sleep(KLAW_FOREVER);
    atomic_fetch_sub(&staying, 1);
    if (arg)
        *(_Atomic int *)arg = (int)e;
    return e;
}

BOTH(it_runs_and_ends) {
    klaw_runtime *rt = fresh();
    klaw_task *t = NULL;
    klaw_err e = KLAW_LIMIT;
    atomic_store(&ran, 0);
    SAME(klaw_run_workers(), 2);
    OK(klaw_runtime_spawn(rt, runs, NULL, NULL, NULL));
    OK(klaw_submit(klaw_runtime_executor(rt), runs, NULL, NULL, &t));
    OK(klaw_runtime_wait(rt, KLAW_WITHIN(CHECK_PATIENCE)));
    OK(klaw_runtime_wait(rt, KLAW_NOWAIT));
    SAME(ran, 2);
    OK(klaw_task_join(t, KLAW_NOWAIT, &e, NULL));
    OK(e);
    klaw_task_unref(t);
    closes(rt);
    SAME(klaw_run_workers(), inside ? 2 : 0);
}

BOTH(several_live_side_by_side) {
    klaw_runtime *a = fresh();
    if (!inside) { /* the second one is a guest of the first one's run */
        klaw_runtime *b = fresh();
        OK(klaw_runtime_spawn(b, runs, NULL, NULL, NULL));
        closes(b);
    } else {
        klaw_runtime *b = fresh();
        OK(klaw_runtime_spawn(a, runs, NULL, NULL, NULL));
        closes(b);
    }
    closes(a);
}

BOTH(it_can_be_opened_again_and_again) {
    for (int i = 0; i < 20; i++)
        closes(fresh());
    for (int i = 0; i < 20; i++)
        klaw_runtime_free(fresh());
    klaw_runtime_free(NULL);
}

/* --- a graceful end --- */
static klaw_err sums(void *arg) {
    klaw_receiver *rx = arg;
    uint64_t v, sum = 0;
    klaw_err e;
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) == KLAW_OK)
        sum += v;
    klaw_set_value((void *)(uintptr_t)sum);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

BOTH(channels_are_closed_and_drained) {
    klaw_runtime *rt = fresh();
    klaw_sender *tx = NULL, *clone = NULL;
    klaw_receiver *rx = NULL;
    klaw_fiber *f = NULL;
    klaw_err e = KLAW_LIMIT;
    void *sum = NULL;
    OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx));
    OK(klaw_sender_clone(tx, &clone));
    for (uint64_t i = 1; i <= 100; i++)
        OK(klaw_send(i % 2 ? tx : clone, &i, KLAW_FOREVER));
    OK(klaw_runtime_spawn(rt, sums, rx, NULL, &f));
    OK(klaw_runtime_shutdown(rt, NULL, NULL));
    OK(klaw_join(f, &e, &sum, KLAW_FOREVER));
    OK(e);
    SAME((uintptr_t)sum, 5050);
    GIVES(klaw_send(tx, &(uint64_t){1}, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(klaw_send(clone, &(uint64_t){1}, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_runtime_free(rt);
    klaw_sender_unref(tx);
    klaw_sender_unref(clone);
    klaw_receiver_unref(rx);
}

BOTH(every_kind_of_channel_is_closed) {
    klaw_runtime *rt = fresh();
    klaw_sender *tx[5];
    klaw_receiver *rx[5];
    klaw_channel_opts ring = {.one_to_one = true};
    uint64_t v = 5;
    OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx[0], &rx[0]));
    OK(klaw_runtime_channel(rt, &klaw_u64, &ring, &tx[1], &rx[1]));
    OK(klaw_runtime_oneshot(rt, &klaw_u64, &tx[2], &rx[2]));
    OK(klaw_runtime_broadcast(rt, &klaw_u64, NULL, &tx[3], &rx[3]));
    OK(klaw_runtime_watch(rt, &klaw_u64, &v, &tx[4], &rx[4]));
    for (int i = 0; i < 2; i++)
        OK(klaw_send(tx[i], &v, KLAW_NOWAIT));
    OK(klaw_send(tx[3], &v, KLAW_NOWAIT));
    OK(klaw_send(tx[4], &v, KLAW_NOWAIT));
    closes(rt);
    for (int i = 0; i < 5; i++) {
        GIVES(klaw_send(tx[i], &v, KLAW_NOWAIT), KLAW_CLOSED);
        if (i != 2) { /* what was in it is still there */
            v = 0;
            OK(klaw_recv(rx[i], &v, KLAW_NOWAIT));
            SAME(v, 5);
        }
        GIVES(klaw_recv(rx[i], &v, KLAW_FOREVER), KLAW_CLOSED);
        klaw_sender_unref(tx[i]);
        klaw_receiver_unref(rx[i]);
    }
}

BOTH(channels_that_have_gone_are_forgotten) {
    klaw_runtime *rt = fresh();
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    uint64_t live = klaw_alloc_live();
    for (int i = 0; i < 100; i++) {
        OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx));
        klaw_sender_unref(tx);
        klaw_receiver_unref(rx);
    }
    SAME(klaw_alloc_live(), live);
    OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx));
    klaw_receiver_unref(rx);
    closes(rt);
    klaw_sender_unref(tx);
}

/* Asks an actor when it is let. */
static klaw_actor *asked;
static klaw_err asks_late(void *arg) {
    OK(passes(arg));
    return ask_until(asked, ADD, 1, NULL, NULL, KLAW_WITHIN(CHECK_PATIENCE));
}

BOTH(actors_work_until_the_work_is_done) {
    diary d = {0};
    gate g = gate_make();
    klaw_runtime *rt = fresh();
    klaw_actor_opts o = {.release = diary_release};
    asked = NULL;
    OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, &o, &asked));
    OK(klaw_runtime_spawn(rt, asks_late, &g, NULL, NULL));
    GIVES(klaw_runtime_wait(rt, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_runtime_wait(rt, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    for (int i = 0; i < 50; i++)
        tell(asked, ADD, 1, NULL);
    gate_open(&g);
    closes(rt);
    gate_free(&g);
    SAME(d.handled, 51); /* the ask was answered, the mailbox handled */
    SAME(d.stops, 1);
    SAME(d.released, 1);
    SAME(d.last_why, KLAW_OK);
    CHECK(!klaw_actor_alive(asked));
    klaw_actor_unref(asked);
    nothing_lost();
}

BOTH(actors_that_have_ended_are_forgotten) {
    diary d = {0};
    klaw_runtime *rt = fresh();
    for (int i = 0; i < 300; i++) {
        klaw_actor *a = NULL;
        OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, &a));
        if (i % 10)
            ends(a, KLAW_OK);
        else
            klaw_actor_unref(a);
    }
    uint64_t live = klaw_alloc_live();
    for (int i = 0; i < 1000; i++) {
        klaw_actor *a = NULL;
        OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, &a));
        ends(a, KLAW_OK);
    }
    CHECK(klaw_alloc_live() < live + 500);
    size_t n = 0;
    klaw_snapshot *s = NULL;
    OK(klaw_snapshot_take(&s));
    (void)klaw_snapshot_actors(s, &n);
    SAME(n, 30);
    klaw_snapshot_free(s);
    OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, NULL));
    closes(rt);
    SAME(d.stops, 1301);
}

static klaw_err fails(void *arg) {
    (void)arg;
    return KLAW_CORRUPT;
}

BOTH(the_first_error_is_reported) {
    klaw_runtime *rt = fresh();
    klaw_shutdown_report r;
    OK(klaw_runtime_spawn(rt, fails, NULL, NULL, NULL));
    OK(klaw_runtime_shutdown(rt, NULL, &r));
    GIVES(r.error, KLAW_CORRUPT);
    klaw_runtime_free(rt);
}

/* --- late ones --- */
BOTH(what_is_late_is_cancelled_and_named) {
    static _Atomic int how;
    klaw_runtime *rt = opened((klaw_runtime_opts){.executor = {.concurrency = 1}});
    klaw_shutdown_report r;
    klaw_shutdown_opts o = {.timeout = KLAW_MS(20), .reason = "enough"};
    gate g = gate_make();
    diary d = {0};
    klaw_actor *a = NULL;
    klaw_task *t[2];
    atomic_store(&how, 0);
    atomic_store(&staying, 0);
    klaw_fiber_opts fo = {.name = "sleeper"};
    klaw_task_opts to = {.name = "job"};
    klaw_actor_opts ao = {.name = "bob"};
    OK(klaw_runtime_spawn(rt, stays, &how, &fo, NULL));
    OK(klaw_submit(klaw_runtime_executor(rt), stays, NULL, &to, &t[0]));
    OK(klaw_submit(klaw_runtime_executor(rt), stays, NULL, &to, &t[1]));
    OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, &ao, &a));
    tell(a, WAIT, 1, &g);
    UNTIL(atomic_load(&staying) == 2 && atomic_load(&d.handled) == 1);
    GIVES(klaw_runtime_shutdown(rt, &o, &r), KLAW_TIMEOUT);
    SAME(r.cancelled, 3);
    SAME(r.queued, 1);
    SAME(r.abandoned, 0);
    SAME(r.n_late, 3);
    CHECK(names(r.late, r.n_late, "fiber", "sleeper"));
    CHECK(names(r.late, r.n_late, "task", "job"));
    CHECK(names(r.late, r.n_late, "actor", "bob"));
    CHECK(strcmp(r.late[0].waiting_on, "") != 0);
    SAME(how, KLAW_CANCELLED);
    SAME(staying, 0);
    klaw_runtime_free(rt);
    for (int i = 0; i < 2; i++) {
        CHECK(strcmp(klaw_task_exit_reason(t[i]), "enough") == 0);
        klaw_task_unref(t[i]);
    }
    GIVES(why_of(a), KLAW_CANCELLED);
    klaw_actor_unref(a);
    gate_free(&g);
    nothing_lost();
}

BOTH(many_late_ones_are_counted_and_some_named) {
    klaw_runtime *rt = fresh();
    klaw_shutdown_report r;
    klaw_shutdown_opts o = {.timeout = 1};
    klaw_fiber *ended = NULL;
    OK(klaw_runtime_spawn(rt, runs, NULL, NULL, &ended)); /* not late, although nobody has joined */
    OK(klaw_runtime_wait(rt, KLAW_WITHIN(CHECK_PATIENCE)));
    for (int i = 0; i < 100; i++)
        OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    GIVES(klaw_runtime_shutdown(rt, &o, &r), KLAW_TIMEOUT);
    SAME(r.cancelled, 100);
    SAME(r.n_late, KLAW_SHUTDOWN_NAMED);
    OK(result_of(ended));
    klaw_runtime_free(rt);
}

BOTH(now_cancels_at_once) {
    klaw_runtime *rt = fresh();
    klaw_shutdown_report r;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    atomic_store(&staying, 0);
    OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx));
    OK(klaw_send(tx, &(uint64_t){1}, KLAW_NOWAIT));
    OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    OK(klaw_submit(klaw_runtime_executor(rt), stays, NULL, NULL, NULL));
    UNTIL(atomic_load(&staying) == 2);
    OK(klaw_runtime_shutdown(rt, &(klaw_shutdown_opts){.now = true}, &r));
    SAME(r.cancelled, 2);
    SAME(r.abandoned, 0);
    SAME(staying, 0);
    GIVES(klaw_recv(rx, &(uint64_t){0}, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_runtime_free(rt);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
}

BOTH(free_alone_ends_everything) {
    klaw_runtime *rt = fresh();
    atomic_store(&staying, 0);
    for (int i = 0; i < 10; i++)
        OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    UNTIL(atomic_load(&staying) == 10);
    klaw_runtime_free(rt);
    SAME(staying, 0);
}

/* A fiber that reaches no cancel point until it is let. */
static _Atomic bool let_go;
static klaw_err spins(void *arg) {
    (void)arg;
    while (!atomic_load(&let_go))
        klawi_thread_nap(KLAW_US(100));
    return KLAW_OK;
}

static void gives_up(void) {
    klaw_runtime *rt = NULL;
    klaw_runtime_opts o = {.run = {.workers = 2, .grace = KLAW_S(3600)}}; /* it does not count */
    klaw_shutdown_report r;
    klaw_fiber_opts fo = {.name = "spinner"};
    klaw_shutdown_opts so = {.timeout = KLAW_MS(10), .grace = KLAW_MS(20)};
    OK(klaw_runtime_open(&o, &rt, NULL));
    OK(klaw_runtime_spawn(rt, spins, NULL, &fo, NULL));
    OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    GIVES(klaw_runtime_shutdown(rt, &so, &r), KLAW_TIMEOUT);
    SAME(r.cancelled, 2);
    SAME(r.abandoned, 1);
    SAME(r.n_lost, 1);
    CHECK(strcmp(r.lost[0].name, "spinner") == 0);
    CHECK(strcmp(r.lost[0].kind, "fiber") == 0);
    klaw_runtime_free(rt);
}

static klaw_err lets_go(void *arg) {
    (void)arg;
    atomic_store(&let_go, true);
    return KLAW_OK;
}
static void gives_up_and_lets_go(void) {
    gives_up();
    OK(klaw_go(lets_go, NULL));
}
static int gives_up_inside(void) {
    check_test = "gives_up_inside";
    OK(run_with(2, gives_up_and_lets_go));
    klaw_alloc_trim();
    return 0;
}

/* The run is given up in a child of its own. */
static int outside_alone(void) {
    check_test = "outside_alone";
    gives_up();
    SAME(klaw_run_workers(), 0);
    klaw_runtime *rt = fresh(); /* and there is life after it */
    atomic_store(&ran, 0);
    OK(klaw_runtime_spawn(rt, runs, NULL, NULL, NULL));
    OK(klaw_runtime_shutdown(rt, NULL, NULL));
    SAME(ran, 1);
    klaw_runtime_free(rt);
    return 0;
}

static void what_reaches_no_cancel_point_is_abandoned_and_named(void **state) {
    (void)state;
    check_test = __func__;
    child_end c = child_of(outside_alone);
    if (!WIFEXITED(c.status) || WEXITSTATUS(c.status) != 0)
        check_failed(__FILE__, __LINE__, "outside", c.text);
    CHECK(strstr(c.text, "abandoned fiber 'spinner'"));
    child_ok(gives_up_inside);
}

/* --- rules --- */
BOTH(after_a_shutdown_everything_is_refused) {
    klaw_runtime *rt = fresh();
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    uint64_t v = 1;
    diary d = {0};
    OK(klaw_runtime_shutdown(rt, NULL, NULL));
    OK(klaw_runtime_shutdown(rt, NULL, NULL));
    GIVES(klaw_runtime_spawn(rt, runs, NULL, NULL, NULL), KLAW_STOPPED);
    GIVES(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, NULL), KLAW_STOPPED);
    klaw_err e = klaw_submit(klaw_runtime_executor(rt), runs, NULL, NULL, NULL);
    CHECK(e == KLAW_CLOSED || e == KLAW_STOPPED); /* the executor is closed, and so is its scope */
    GIVES(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx), KLAW_STOPPED);
    GIVES(klaw_runtime_oneshot(rt, &klaw_u64, &tx, &rx), KLAW_STOPPED);
    GIVES(klaw_runtime_broadcast(rt, &klaw_u64, NULL, &tx, &rx), KLAW_STOPPED);
    GIVES(klaw_runtime_watch(rt, &klaw_u64, &v, &tx, &rx), KLAW_STOPPED);
    CHECK(!tx && !rx);
    OK(klaw_runtime_wait(rt, KLAW_FOREVER));
    klaw_runtime_free(rt);
}

BOTH(wrong_arguments_are_refused) {
    klaw_runtime *rt = NULL;
    klaw_error_info info;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    GIVES(klaw_runtime_open(NULL, NULL, &info), KLAW_INVALID);
    klaw_runtime_opts o = {.executor = {.concurrency = -7}};
    GIVES(klaw_runtime_open(&o, &rt, &info), KLAW_INVALID);
    CHECK(info.message[0] && !rt);
    o = (klaw_runtime_opts){.run = {.workers = 1000}};
    GIVES(klaw_runtime_open(&o, &rt, &info), inside ? KLAW_OK : KLAW_INVALID);
    klaw_runtime_free(rt);
    rt = NULL;
    klaw_init_opts c = {.backend = "no"};
    o = (klaw_runtime_opts){.config = &c};
    GIVES(klaw_runtime_open(&o, &rt, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "'local' or 'ray'"));
    GIVES(klaw_runtime_spawn(NULL, runs, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_spawn_actor(NULL, &doer_behavior, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_channel(NULL, &klaw_u64, NULL, &tx, &rx), KLAW_INVALID);
    GIVES(klaw_runtime_wait(NULL, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_runtime_shutdown(NULL, NULL, NULL), KLAW_INVALID);
    rt = fresh();
    GIVES(klaw_runtime_shutdown(rt, &(klaw_shutdown_opts){.timeout = -2}, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_shutdown(rt, &(klaw_shutdown_opts){.grace = -2}, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_spawn(rt, NULL, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_spawn_actor(rt, NULL, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_channel(rt, NULL, NULL, &tx, &rx), KLAW_INVALID);
    closes(rt);
}

BOTH(the_configuration_is_settled) {
    klaw_init_opts c = {.log_level = "error", .concurrency = 1};
    klaw_config got;
    klaw_runtime *rt = NULL;
    OK(klaw_runtime_open(&(klaw_runtime_opts){.config = &c}, &rt, NULL));
    OK(klaw_config_get(&got, NULL));
    CHECK(got.initialized);
    SAME(klaw_run_workers(), inside ? 2 : 1);
    closes(rt);
    klaw_deinit();
    klaw_log_set_level(KLAW_LEVEL_OFF);
}

static klaw_err ends_itself(void *arg) {
    klaw_scope *s = SCOPE(0);
    GIVES(klaw_runtime_shutdown(arg, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_runtime_wait(arg, KLAW_FOREVER), KLAW_INVALID);
    OK(klaw_scope_close(s));
    return runs(NULL);
}

BOTH(its_own_fibers_cannot_end_it) {
    klaw_runtime *rt = fresh();
    atomic_store(&ran, 0);
    OK(klaw_runtime_spawn(rt, ends_itself, rt, NULL, NULL));
    OK(klaw_submit(klaw_runtime_executor(rt), ends_itself, rt, NULL, NULL));
    closes(rt);
    SAME(ran, 2);
}

static klaw_runtime *shared;
static _Atomic int answers[3];
static void *shuts_down(void *arg) {
    klaw_shutdown_report r;
    klaw_shutdown_opts o = {.timeout = KLAW_MS(10)};
    atomic_store(&answers[(uintptr_t)arg], (int)klaw_runtime_shutdown(shared, &o, &r));
    SAME(r.cancelled, 1);
    return NULL;
}

BOTH(a_second_shutdown_waits_for_the_first) {
    pthread_t t[3];
    shared = fresh();
    OK(klaw_runtime_spawn(shared, stays, NULL, NULL, NULL));
    for (uintptr_t i = 0; i < 3; i++)
        SAME(pthread_create(&t[i], NULL, shuts_down, (void *)i), 0);
    GIVES(klaw_runtime_shutdown(shared, &(klaw_shutdown_opts){.timeout = KLAW_MS(10)}, NULL),
          KLAW_TIMEOUT);
    for (int i = 0; i < 3; i++) {
        SAME(pthread_join(t[i], NULL), 0);
        SAME(answers[i], KLAW_TIMEOUT);
    }
    klaw_runtime_free(shared);
}

/* --- inside of a run --- */
RUNS(the_scope_it_lives_in_cancels_it, 2) {
    klaw_scope *s = SCOPE(.name = "home");
    klaw_runtime *rt = fresh();
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_shutdown_report r;
    atomic_store(&staying, 0);
    OK(klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx));
    OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    UNTIL(atomic_load(&staying) == 1);
    klaw_scope_cancel(s, "no more");
    UNTIL(atomic_load(&staying) == 0);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(klaw_runtime_spawn(rt, runs, NULL, NULL, NULL), KLAW_STOPPED);
    GIVES(klaw_send(tx, &(uint64_t){1}, KLAW_NOWAIT), KLAW_CLOSED);
    GIVES(klaw_runtime_shutdown(rt, NULL, &r), KLAW_CANCELLED);
    SAME(r.abandoned, 0);
    klaw_runtime_free(rt);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
}

static klaw_err shuts_down_for_long(void *arg) {
    klaw_shutdown_opts o = {.timeout = KLAW_NONE, .grace = KLAW_NONE};
    atomic_fetch_add(&ran, 1);
    return klaw_runtime_shutdown(arg, &o, NULL);
}

RUNS(a_caller_that_is_cancelled_cancels_it_all, 2) {
    klaw_runtime *rt = fresh();
    atomic_store(&ran, 0);
    OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    attempt *a = attempts(shuts_down_for_long, rt);
    UNTIL(atomic_load(&ran) == 1);
    klaw_fiber_cancel(a->f);
    GIVES(outcome(a), KLAW_TIMEOUT);
    klaw_runtime_free(rt);
}

RUNS(a_cancelled_caller_opens_nothing, 2) {
    klaw_scope *s = SCOPE(0);
    klaw_runtime *rt = NULL;
    klaw_scope_cancel(s, NULL);
    GIVES(klaw_runtime_open(NULL, &rt, NULL), KLAW_CANCELLED);
    CHECK(!rt);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
}

PLAIN(a_deadline_of_the_run_ends_it) {
    klaw_runtime *rt = NULL;
    klaw_runtime_opts o = {.run = {.workers = 1, .deadline = KLAW_WITHIN(KLAW_MS(20))}};
    atomic_store(&staying, 0);
    OK(klaw_runtime_open(&o, &rt, NULL));
    klaw_err e = klaw_runtime_spawn(rt, stays, NULL, NULL, NULL);
    CHECK(e == KLAW_OK || e == KLAW_STOPPED);
    UNTIL(klaw_run_workers() == 0);
    GIVES(klaw_runtime_shutdown(rt, NULL, NULL), KLAW_CANCELLED);
    SAME(staying, 0);
    klaw_runtime_free(rt);
}

static klaw_err guest(void *arg) {
    (void)arg;
    return stays(NULL);
}

PLAIN(what_others_spawned_in_its_run_ends_with_it) {
    klaw_runtime *rt = fresh();
    atomic_store(&staying, 0);
    OK(klaw_go(guest, NULL));
    UNTIL(atomic_load(&staying) == 1);
    closes(rt);
    SAME(staying, 0);
    SAME(klaw_run_workers(), 0);
}

BOTH(inspect_shows_nothing_afterwards) {
    klaw_snapshot *before = NULL, *after = NULL;
    size_t n[2][5];
    diary d = {0};
    OK(klaw_snapshot_take(&before));
    klaw_runtime *rt = fresh();
    OK(klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, NULL));
    OK(klaw_runtime_spawn(rt, stays, NULL, NULL, NULL));
    OK(klaw_submit(klaw_runtime_executor(rt), stays, NULL, NULL, NULL));
    klaw_runtime_free(rt);
    OK(klaw_snapshot_take(&after));
    for (int i = 0; i < 2; i++) {
        klaw_snapshot *s = i ? after : before;
        (void)klaw_snapshot_fibers(s, &n[i][0]);
        (void)klaw_snapshot_scopes(s, &n[i][1]);
        (void)klaw_snapshot_channels(s, &n[i][2]);
        (void)klaw_snapshot_tasks(s, &n[i][3]);
        (void)klaw_snapshot_actors(s, &n[i][4]);
    }
    for (int i = 0; i < 5; i++)
        SAME(n[0][i], n[1][i]);
    klaw_snapshot_free(before);
    klaw_snapshot_free(after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* First: the parent may not have used klaw when it forks. */
        cmocka_unit_test(what_reaches_no_cancel_point_is_abandoned_and_named),
        TEST(it_runs_and_ends),
        TEST(several_live_side_by_side),
        TEST(it_can_be_opened_again_and_again),
        TEST(channels_are_closed_and_drained),
        TEST(every_kind_of_channel_is_closed),
        TEST(channels_that_have_gone_are_forgotten),
        TEST(actors_work_until_the_work_is_done),
        TEST(actors_that_have_ended_are_forgotten),
        TEST(the_first_error_is_reported),
        TEST(what_is_late_is_cancelled_and_named),
        TEST(many_late_ones_are_counted_and_some_named),
        TEST(now_cancels_at_once),
        TEST(free_alone_ends_everything),
        TEST(after_a_shutdown_everything_is_refused),
        TEST(wrong_arguments_are_refused),
        TEST(the_configuration_is_settled),
        TEST(its_own_fibers_cannot_end_it),
        TEST(a_second_shutdown_waits_for_the_first),
        TEST(the_scope_it_lives_in_cancels_it),
        TEST(a_caller_that_is_cancelled_cancels_it_all),
        TEST(a_cancelled_caller_opens_nothing),
        TEST(a_deadline_of_the_run_ends_it),
        TEST(what_others_spawned_in_its_run_ends_with_it),
        TEST(inspect_shows_nothing_afterwards),
    };
    return cmocka_run_group_tests_name("runtime", tests, NULL, NULL);
}
