/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow_lease.c - who may run a workflow, who is fenced, and looking after them from outside. Two
 * handles of one file stand for two processes; the clocks of leases stand still until a test
 * moves them, or another process would be needed to see them end.
 *
 * Tried with these bugs seeded: an end that does not look for its token, a renewal that does not look
 * whether the lease was given back, a takeover without a new token, a delete that leaves steps. */
#include "store/workflow.h"
#include "support/workflow.h"

static folder dir;
static klaw_store *a, *b;

static void begin(void) {
    dir = wf_folder();
    a = store_at(dir.file);
    b = store_at(dir.file);
    wf_clock_set();
}
static void end(void) {
    wf_clock_reset();
    klaw_store_unref(a);
    klaw_store_unref(b);
    folder_free(&dir);
}

PLAIN(one_at_a_time_runs_a_workflow) {
    job j = {.value = 1};
    char pid[32];
    begin();
    snprintf(pid, sizeof pid, "process %ld on", (long)getpid());
    klaw_workflow *w = WF(a, "w");
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, pid);
    wf_refuses(a, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, "klaw.db");
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = KLAW_WITHIN(KLAW_MS(20))}, KLAW_TIMEOUT, pid);
    klaw_workflow *other = WF(b, "another");
    klaw_workflow_close(other);
    wf_clock_move(KLAW_S(30) - 1, KLAW_S(1000000)); /* the wall may jump as it likes */
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, pid);
    SAME(wf_step(w, "s", &j), 1);
    klaw_workflow_close(w);
    w = WF(b, "w");
    SAME(wf_step(w, "s", &j), 1);
    OK(klaw_workflow_finish(w, NULL, NULL));
    other = WF(a, "w"); /* reading a DONE one needs no lease */
    SAME(wf_step(other, "s", &j), 1);
    klaw_workflow_close(other);
    klaw_workflow_close(w);
    SAME(j.runs, 1);
    end();
}

/* Everything a fenced runner may try. */
static void is_fenced(klaw_workflow *w) {
    job j = {.value = 66};
    klaw_error_info info;
    GIVES(klaw_workflow_step(w, "late", job_fn, &j, NULL, NULL, &info), KLAW_STOPPED);
    CHECK(strstr(info.message, "lease is lost"));
    GIVES(klaw_workflow_finish(w, NULL, NULL), KLAW_STOPPED);
    GIVES(klaw_workflow_fail(w, KLAW_SYSTEM, NULL, NULL), KLAW_STOPPED);
    SAME(j.runs, 0);
}

static klaw_workflow *successor;
static klaw_err is_overtaken(klaw_step *s, void *arg) {
    (void)s;
    wf_clock_move(KLAW_S(30), 0);
    successor = WF(b, arg);
    return KLAW_OK;
}

PLAIN(the_result_of_a_runner_that_was_overtaken_is_refused) {
    job first = {.value = 1}, slow = {.value = 2, .also = is_overtaken, .arg = "w"},
        again = {.value = 3};
    klaw_blob *r = NULL;
    begin();
    klaw_workflow *w = WF(a, "w");
    SAME(wf_step(w, "first", &first), 1);
    GIVES(klaw_workflow_step(w, "slow", job_fn, &slow, NULL, &r, NULL), KLAW_STOPPED);
    SAME(slow.runs, 1);
    CHECK(!r);
    is_fenced(w);
    klaw_workflow_close(w); /* does not give back what is not its own */
    SAME(wf_look(a, "w").token, 2);
    CHECK(wf_look(a, "w").leased);
    SAME(wf_step(successor, "first", &first), 1);
    SAME(wf_step(successor, "slow", &again), 3);
    OK(klaw_workflow_finish(successor, NULL, NULL));
    klaw_workflow_close(successor);
    SAME(first.runs, 1);
    end();
}

PLAIN(a_lease_that_is_over_and_was_not_taken_still_keeps_results) {
    job j = {.value = 1};
    begin();
    klaw_workflow *w = WF(a, "w");
    wf_clock_move(KLAW_S(3000), 0);
    SAME(wf_step(w, "s", &j), 1);
    CHECK(!wf_look(b, "w").leased);
    OK(klaw_workflow_finish(w, NULL, NULL));
    klaw_workflow_close(w);
    end();
}

PLAIN(taking_over_fences_a_runner_that_is_alive) {
    job j = {.value = 1};
    begin();
    klaw_workflow *w = WF(a, "w");
    SAME(wf_step(w, "s", &j), 1);
    klaw_workflow *other = WF(b, "w", .takeover = true);
    is_fenced(w);
    klaw_workflow_close(w);
    SAME(wf_step(other, "s", &j), 1);
    OK(klaw_workflow_evict(a, "w", NULL));
    OK(klaw_workflow_evict(a, "w", NULL));
    w = WF(a, "w");
    is_fenced(other);
    klaw_workflow_close(other);
    klaw_workflow_close(w);
    GIVES(klaw_workflow_evict(a, "x", NULL), KLAW_NOT_FOUND);
    end();
}

PLAIN(a_runner_that_was_overtaken_can_neither_end_it_nor_give_its_lease_back) {
    begin();
    for (int how = 0; how < 3; how++) {
        klaw_workflow *w = WF(a, "w"), *other = WF(b, "w", .takeover = true);
        if (how == 0)
            GIVES(klaw_workflow_finish(w, NULL, NULL), KLAW_STOPPED);
        else if (how == 1)
            GIVES(klaw_workflow_fail(w, KLAW_SYSTEM, NULL, NULL), KLAW_STOPPED);
        klaw_workflow_close(w);
        SAME(wf_look(a, "w").state, KLAW_WORKFLOW_RUNNING);
        CHECK(wf_look(a, "w").leased);
        klaw_workflow_close(other);
    }
    end();
}

PLAIN(a_handle_that_could_not_give_its_lease_back_holds_nobody_up) {
    begin();
    klaw_workflow *w = WF(a, "w");
    klaw_store_close(a);
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, "runs it");
    klaw_workflow_close(w); /* the log still says that this process holds it */
    w = WF(b, "w");
    SAME(wf_look(b, "w").token, 2);
    klaw_workflow_close(w);
    end();
}

/* As klaw_workflow_close does it, between its write and the moment the keeper knows. */
static klaw_err gives_back(klawi_store_tx *tx, void *arg) {
    struct klawi_wf_head h;
    (void)arg;
    OK(klawi_wf_find(tx, "w", &h));
    h.lease.duration = 0;
    return klawi_wf_update(tx, &h);
}

PLAIN(a_renewal_does_not_take_back_what_was_given_back) {
    begin();
    klaw_workflow *v = WF(a, "v", .lease = KLAW_MS(90)), *w = WF(a, "w", .lease = KLAW_MS(60));
    OK(klawi_store_write(b, gives_back, NULL, KLAW_FOREVER, NULL));
    for (int i = 0; i < 4; i++) { /* v is renewed after w: by then w's turn has come */
        wf_clock_move(KLAW_MS(30), 0);
        UNTIL(wf_look(b, "v").lease_left == KLAW_MS(90));
    }
    CHECK(!wf_look(b, "w").leased);
    klaw_workflow_close(v);
    klaw_workflow_close(w);
    end();
}

PLAIN(between_boots_the_wall_clock_ends_a_lease) {
    begin();
    klaw_workflow *w = WF(a, "w");
    wf_clock_boot("another boot");
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, "runs it");
    wf_clock_move(0, KLAW_S(29));
    wf_refuses(b, "w", (klaw_workflow_opts){.wait = 0}, KLAW_EXISTS, "runs it");
    wf_clock_move(0, KLAW_S(1));
    klaw_workflow *other = WF(b, "w");
    is_fenced(w);
    klaw_workflow_close(w);
    wf_clock_move(0, -KLAW_S(10000)); /* set back by more than a lease: nobody waits for hours */
    wf_clock_boot("a third boot");
    w = WF(a, "w");
    is_fenced(other);
    klaw_workflow_close(other);
    klaw_workflow_close(w);
    end();
}

PLAIN(leases_are_renewed_while_it_runs) {
    begin();
    klaw_workflow *w = WF(a, "w", .lease = KLAW_MS(300)), *v = WF(a, "v", .lease = KLAW_MS(300));
    for (int i = 0; i < 3; i++) {
        wf_clock_move(KLAW_MS(100), 0);
        UNTIL(wf_look(b, "w").lease_left == KLAW_MS(300));
        UNTIL(wf_look(b, "v").lease_left == KLAW_MS(300));
    }
    SAME(wf_look(b, "w").token, 1);
    klaw_workflow_close(w);
    CHECK(!wf_look(b, "w").leased);
    klaw_workflow_close(v);
    end();
}

/* --- noticing --- */

static _Atomic int inside;
static klaw_err stays(klaw_step *s, void *arg) {
    (void)arg;
    atomic_fetch_add(&inside, 1);
    klaw_err e = klaw_sleep(KLAW_FOREVER);
    CHECK(klaw_step_cancelled(s));
    return e;
}
static klaw_err stays_without_a_runtime(klaw_step *s, void *arg) {
    (void)arg;
    atomic_fetch_add(&inside, 1);
    UNTIL(klaw_step_cancelled(s));
    return KLAW_OK;
}

typedef struct stuck {
    klaw_workflow *w;
    job j;
    klaw_err want;
    bool completes;
} stuck;
static klaw_err runs_stuck(void *arg) {
    stuck *s = arg;
    klaw_step_opts o = {.retry = {.attempts = 5}};
    klaw_err e = klaw_workflow_step(s->w, "stuck", job_fn, &s->j, &o, NULL, NULL);
    GIVES(e, s->completes ? KLAW_OK : s->want);
    GIVES(klaw_workflow_step(s->w, "next", job_fn, &s->j, &o, NULL, NULL), s->want);
    SAME(s->j.runs, 1);
    return KLAW_OK;
}

RUNS(a_lost_lease_cancels_the_waits_of_its_steps, 2) {
    begin();
    atomic_store(&inside, 0);
    stuck s = {.w = WF(a, "w", .lease = KLAW_MS(60)), .j = {.also = stays}, .want = KLAW_STOPPED};
    klaw_fiber *f = fiber(runs_stuck, &s);
    UNTIL(atomic_load(&inside));
    OK(klaw_workflow_evict(b, "w", NULL));
    OK(result_of(f));
    klaw_workflow_close(s.w);
    end();
}

PLAIN(without_a_runtime_a_step_can_ask_whether_its_lease_is_lost) {
    thread_job t;
    begin();
    atomic_store(&inside, 0);
    stuck s = {.w = WF(a, "w", .lease = KLAW_MS(60)),
               .j = {.also = stays_without_a_runtime},
               .want = KLAW_STOPPED};
    thread_start(&t, runs_stuck, &s);
    UNTIL(atomic_load(&inside));
    OK(klaw_workflow_delete(b, "w", true, NULL));
    OK(thread_end(&t));
    klaw_workflow_close(s.w);
    end();
}

RUNS(a_cancellation_from_outside_is_noticed_at_a_renewal, 2) {
    job j = {.value = 4};
    begin();
    atomic_store(&inside, 0);
    stuck s = {.w = WF(a, "w", .lease = KLAW_MS(60)), .j = {.also = stays}, .want = KLAW_CANCELLED};
    klaw_fiber *f = fiber(runs_stuck, &s);
    UNTIL(atomic_load(&inside));
    OK(klaw_workflow_cancel(b, "w", "no longer wanted", NULL));
    OK(klaw_workflow_cancel(b, "w", "a second reason", NULL));
    CHECK(wf_look(b, "w").cancel_requested);
    OK(result_of(f));
    klaw_workflow_close(s.w);
    klaw_workflow_info i = wf_look(b, "w");
    SAME(i.state, KLAW_WORKFLOW_CANCELLED);
    CHECK(strcmp(i.message, "no longer wanted") == 0 && !i.leased && !i.cancel_requested);
    wf_refuses(a, "w", (klaw_workflow_opts){.wait = 0}, KLAW_CANCELLED, "no longer wanted");
    klaw_workflow *w = WF(a, "w", .uncancel = true);
    SAME(wf_step(w, "stuck", &j), 4);
    SAME(j.attempt, 2);
    klaw_workflow_close(w);
    SAME(wf_look(b, "w").state, KLAW_WORKFLOW_RUNNING);
    end();
}

static klaw_err is_cancelled_meanwhile(klaw_step *s, void *arg) {
    (void)s, (void)arg;
    OK(klaw_workflow_cancel(b, "w", NULL, NULL));
    return KLAW_OK;
}

PLAIN(a_step_that_completes_while_cancelled_is_kept) {
    job j = {.value = 5, .also = is_cancelled_meanwhile}, next = {.value = 6};
    begin();
    klaw_workflow *w = WF(a, "w");
    SAME(wf_step(w, "s", &j), 5);
    GIVES(klaw_workflow_step(w, "next", job_fn, &next, NULL, NULL, NULL), KLAW_CANCELLED);
    klaw_workflow_close(w);
    SAME(wf_look(a, "w").state, KLAW_WORKFLOW_CANCELLED);
    w = WF(a, "w", .uncancel = true);
    SAME(wf_step(w, "s", &j), 5);
    SAME(wf_step(w, "next", &next), 6);
    OK(klaw_workflow_cancel(b, "w", NULL, NULL));
    OK(klaw_workflow_finish(w, NULL, NULL)); /* too late to stop it */
    klaw_workflow_close(w);
    SAME(wf_look(a, "w").state, KLAW_WORKFLOW_DONE);
    GIVES(klaw_workflow_cancel(b, "w", NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_cancel(b, "x", NULL, NULL), KLAW_NOT_FOUND);
    SAME(j.runs, 1);
    /* One that nobody runs is CANCELLED at once. */
    w = WF(a, "v");
    klaw_workflow_close(w);
    OK(klaw_workflow_cancel(b, "v", NULL, NULL));
    SAME(wf_look(a, "v").state, KLAW_WORKFLOW_CANCELLED);
    /* So is one whose runner is late; it is not fenced, but stops. */
    w = WF(a, "u");
    wf_clock_move(KLAW_S(31), 0);
    OK(klaw_workflow_cancel(b, "u", NULL, NULL));
    GIVES(klaw_workflow_step(w, "next", job_fn, &next, NULL, NULL, NULL), KLAW_CANCELLED);
    klaw_workflow_close(w);
    SAME(wf_look(a, "u").state, KLAW_WORKFLOW_CANCELLED);
    end();
}

static klaw_err cancels_its_scope(klaw_step *s, void *arg) {
    (void)s;
    klaw_scope_cancel(arg, "test");
    return KLAW_OK;
}

RUNS(a_step_that_completes_in_a_cancelled_scope_is_kept, 2) {
    job j = {.value = 5, .also = cancels_its_scope}, next = {.value = 6};
    begin();
    klaw_workflow *w = WF(a, "w");
    klaw_scope *s = SCOPE(.name = "outer");
    j.arg = s;
    SAME(wf_step(w, "s", &j), 5);
    GIVES(klaw_workflow_step(w, "next", job_fn, &next, NULL, NULL, NULL), KLAW_CANCELLED);
    klaw_workflow_close(w); /* gives the lease back all the same */
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    CHECK(!wf_look(b, "w").leased);
    w = WF(a, "w");
    SAME(wf_step(w, "s", &j), 5);
    klaw_workflow_close(w);
    SAME(j.runs, 1);
    SAME(next.runs, 0);
    end();
}

/* --- a runner that can't renew --- */

static _Atomic bool hold, holding;
static klaw_err holds_the_file(klawi_store_tx *tx, void *arg) {
    (void)tx, (void)arg;
    atomic_store(&holding, true);
    while (atomic_load(&hold))
        sched_yield();
    return KLAW_OK;
}
static klaw_err keeps_others_out(void *arg) {
    (void)arg;
    return klawi_store_write(b, holds_the_file, NULL, KLAW_FOREVER, NULL);
}

PLAIN(a_runner_that_could_not_renew_until_its_end_counts_as_lost) {
    thread_job t, u;
    begin();
    atomic_store(&inside, 0);
    atomic_store(&hold, true);
    atomic_store(&holding, false);
    stuck s = {.w = WF(a, "w", .lease = KLAW_MS(60)),
               .j = {.also = stays_without_a_runtime},
               .want = KLAW_STOPPED,
               .completes = true}; /* nobody has taken over: the result is kept */
    thread_start(&t, runs_stuck, &s);
    UNTIL(atomic_load(&inside));
    thread_start(&u, keeps_others_out, NULL);
    UNTIL(atomic_load(&holding));
    CHECK(!atomic_load(&s.w->lost)); /* its clock stands still */
    wf_clock_move(KLAW_MS(60), 0);
    UNTIL(atomic_load(&s.w->lost));
    atomic_store(&hold, false);
    OK(thread_end(&u));
    OK(thread_end(&t));
    klaw_workflow_close(s.w);
    end();
}

/* --- waiting for one's turn --- */

static klaw_err waits_for_it(void *arg) {
    klaw_workflow *w = NULL, **out = arg;
    klaw_workflow_opts o = {.wait = KLAW_FOREVER};
    klaw_err e = klaw_workflow_open(b, "w", &o, &w, NULL);
    *out = w;
    return e;
}

RUNS(opening_may_wait_for_the_runner_before, 2) {
    klaw_workflow *next = NULL;
    begin();
    klaw_workflow *w = WF(a, "w");
    klaw_fiber *f = fiber(waits_for_it, &next);
    UNTIL(waiting("fiber", "sleep") == 1);
    klaw_workflow_close(w);
    OK(result_of(f));
    klaw_workflow_close(next);
    w = WF(a, "w");
    f = fiber(waits_for_it, &next);
    UNTIL(waiting("fiber", "sleep") == 1);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
    CHECK(!next);
    klaw_workflow_close(w);
    end();
}

/* --- looking, deleting --- */

PLAIN(a_running_one_is_deleted_only_by_force) {
    job j = {.value = 1};
    klaw_error_info info;
    klaw_workflow_info *list;
    size_t n;
    begin();
    OK(klaw_workflow_list_all(b, NULL, &list, &n, NULL)); /* before there are tables */
    SAME(n, 0);
    klaw_workflow_info_free(list);
    GIVES(klaw_workflow_delete(b, "w", true, &info), KLAW_NOT_FOUND);
    CHECK(strstr(info.message, "klaw.db"));
    klaw_workflow *w = WF(a, "w");
    SAME(wf_step(w, "s", &j), 1);
    GIVES(klaw_workflow_delete(b, "w", false, &info), KLAW_EXISTS);
    CHECK(strstr(info.message, "runs it"));
    OK(klaw_workflow_delete(b, "w", true, NULL));
    GIVES(klaw_workflow_inspect(b, "w", NULL, NULL, NULL, NULL), KLAW_NOT_FOUND);
    klaw_blob *r = NULL;
    GIVES(klaw_workflow_kept(w, "s", &r, NULL), KLAW_STOPPED);
    klaw_workflow *other = WF(b, "w"); /* the same name, the same first token, another one */
    SAME(wf_look(a, "w").token, 1);
    is_fenced(w);
    klaw_workflow_close(w);
    SAME(wf_step(other, "s", &j), 1);
    klaw_workflow_close(other);
    SAME(j.runs, 2);
    OK(klaw_workflow_delete(b, "w", false, NULL));
    end();
}

PLAIN(lists_are_by_name_and_prefix) {
    klaw_workflow_info *list;
    klaw_step_info *steps;
    size_t n;
    job j = {.value = 1};
    char name[24];
    begin();
    for (int i = 19; i >= 0; i--) {
        snprintf(name, sizeof name, "%s-%02d", i % 2 ? "odd" : "even", i);
        klaw_workflow *w = WF(a, name, .version = "7");
        SAME(wf_step(w, "s", &j), 1);
        klaw_workflow_close(w);
    }
    klaw_workflow *w = WF(a, "odd-05", .version = "7");
    OK(klaw_workflow_list_all(b, NULL, &list, &n, NULL));
    SAME(n, 20);
    klaw_workflow_info_free(list);
    OK(klaw_workflow_list_all(b, "odd-", &list, &n, NULL));
    SAME(n, 10);
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "odd-%02zu", 2 * i + 1);
        CHECK(strcmp(list[i].name, name) == 0 && strcmp(list[i].version, "7") == 0);
        SAME(list[i].steps, 1);
        SAME(list[i].steps_done, 1);
        SAME(list[i].leased, i == 2);
        SAME(list[i].lease_left, i == 2 ? KLAW_S(30) : 0);
        SAME(list[i].owner_pid, getpid());
        SAME(strlen(list[i].owner_id), 32);
        SAME(list[i].token, i == 2 ? 2 : 1);
        CHECK(list[i].created > 0 && list[i].updated >= list[i].created && !list[i].finished);
    }
    klaw_workflow_info_free(list);
    OK(klaw_workflow_list_all(b, "zzz", &list, &n, NULL));
    SAME(n, 0);
    klaw_workflow_info_free(list);
    OK(klaw_workflow_inspect(b, "odd-05", NULL, &steps, &n, NULL));
    SAME(n, 1);
    SAME(steps[0].state, KLAW_STEP_DONE);
    SAME(steps[0].result_size, 8);
    klaw_step_info_free(steps);
    klaw_workflow_close(w);
    GIVES(klaw_workflow_list_all(NULL, NULL, &list, &n, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_inspect(b, "", NULL, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_cancel(b, "", NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_delete(NULL, "w", true, NULL), KLAW_INVALID);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_at_a_time_runs_a_workflow),
        TEST(the_result_of_a_runner_that_was_overtaken_is_refused),
        TEST(a_lease_that_is_over_and_was_not_taken_still_keeps_results),
        TEST(taking_over_fences_a_runner_that_is_alive),
        TEST(a_runner_that_was_overtaken_can_neither_end_it_nor_give_its_lease_back),
        TEST(a_handle_that_could_not_give_its_lease_back_holds_nobody_up),
        TEST(a_renewal_does_not_take_back_what_was_given_back),
        TEST(between_boots_the_wall_clock_ends_a_lease),
        TEST(leases_are_renewed_while_it_runs),
        TEST(a_lost_lease_cancels_the_waits_of_its_steps),
        TEST(without_a_runtime_a_step_can_ask_whether_its_lease_is_lost),
        TEST(a_cancellation_from_outside_is_noticed_at_a_renewal),
        TEST(a_step_that_completes_while_cancelled_is_kept),
        TEST(a_step_that_completes_in_a_cancelled_scope_is_kept),
        TEST(a_runner_that_could_not_renew_until_its_end_counts_as_lost),
        TEST(opening_may_wait_for_the_runner_before),
        TEST(a_running_one_is_deleted_only_by_force),
        TEST(lists_are_by_name_and_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
