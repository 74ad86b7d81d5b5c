/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow.c - steps that run once, results that are kept, retries, deadlines, lists that change.
 *
 * Tried with these bugs seeded: an end that forgets steps_done, a replay that runs the step again, a
 * retry that counts attempts of former runs, a list written without positions. */
#include "support/workflow.h"

static folder dir;
static klaw_store *store;

static void begin(void) {
    dir = wf_folder();
    store = store_at(dir.file);
}
static void end(void) {
    klaw_store_unref(store);
    folder_free(&dir);
}
/* As another process would find it. */
static void again(void) {
    klaw_store_unref(store);
    store = store_at(dir.file);
}

static void kept_results_are_replayed(void) {
    job a = {.value = 1}, b = {.value = 2};
    begin();
    klaw_workflow *wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    SAME(a.attempt, 1);
    klaw_workflow_close(wf);
    again();
    wf = WF(store, "w");
    a.value = 7; /* it does not run: the first value is what was kept */
    SAME(wf_step(wf, "a", &a), 1);
    SAME(wf_step(wf, "b", &b), 2);
    klaw_blob *r = NULL, *got = NULL;
    OK(klaw_blob_new("end", 3, &r));
    OK(klaw_workflow_finish(wf, r, NULL));
    klaw_blob_unref(r);
    CHECK(klaw_workflow_done(wf));
    klaw_workflow_close(wf);
    again();
    wf = WF(store, "w");
    CHECK(klaw_workflow_done(wf));
    SAME(wf_step(wf, "a", &a), 1);
    OK(klaw_workflow_kept(wf, "b", &got, NULL));
    SAME(number_of(got), 2);
    OK(klaw_workflow_result(wf, &got, NULL));
    SAME(klaw_blob_size(got), 3);
    CHECK(memcmp(klaw_blob_data(got), "end", 3) == 0);
    klaw_blob_unref(got);
    GIVES(klaw_workflow_step(wf, "c", job_fn, &b, NULL, NULL, NULL), KLAW_INVALID);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    SAME(a.runs, 1);
    SAME(b.runs, 1);
    end();
}
PLAIN(on_a_thread_kept_results_are_replayed) {
    kept_results_are_replayed();
}
RUNS(on_a_fiber_kept_results_are_replayed, 2) {
    kept_results_are_replayed();
}

static klaw_err no_bytes(klaw_step *s, void *arg, klaw_blob **result) {
    (void)s, (void)arg, (void)result;
    return KLAW_OK;
}

PLAIN(results_are_any_bytes) {
    static unsigned char big[300000];
    klaw_blob *b = NULL;
    begin();
    klaw_workflow *wf = WF(store, "w");
    OK(klaw_workflow_step(wf, "none", no_bytes, NULL, NULL, &b, NULL));
    SAME(klaw_blob_size(b), 0);
    klaw_blob_unref(b);
    OK(klaw_workflow_step(wf, "nobody asks", no_bytes, NULL, NULL, NULL, NULL));
    klaw_workflow_close(wf);
    again();
    wf = WF(store, "w");
    OK(klaw_workflow_step(wf, "none", no_bytes, NULL, NULL, &b, NULL));
    SAME(klaw_blob_size(b), 0);
    klaw_blob_unref(b);
    OK(klaw_workflow_step(wf, "nobody asks", no_bytes, NULL, NULL, NULL, NULL));
    value_fill(big, sizeof big, "w", 1);
    OK(klaw_blob_new(big, sizeof big, &b));
    OK(klaw_workflow_finish(wf, b, NULL));
    klaw_blob_unref(b);
    OK(klaw_workflow_result(wf, &b, NULL));
    CHECK(value_is(b, sizeof big, "w", 1));
    klaw_blob_unref(b);
    klaw_workflow_close(wf);
    end();
}

PLAIN(a_failed_step_is_recorded_and_may_be_asked_again) {
    job a = {.value = 1, .failures = 2, .why = "no luck"};
    klaw_error_info info;
    klaw_step_info *steps;
    size_t n;
    begin();
    klaw_workflow *wf = WF(store, "w");
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, &info), KLAW_SYSTEM);
    CHECK(strstr(info.message, "no luck 1") && strstr(info.message, "klaw.db"));
    GIVES(klaw_workflow_kept(wf, "a", &(klaw_blob *){NULL}, NULL), KLAW_NOT_FOUND);
    OK(klaw_workflow_inspect(store, "w", NULL, &steps, &n, NULL));
    SAME(n, 1);
    SAME(steps[0].state, KLAW_STEP_FAILED);
    SAME(steps[0].error, KLAW_SYSTEM);
    SAME(steps[0].attempts, 1);
    CHECK(strcmp(steps[0].message, "no luck 1") == 0);
    CHECK(steps[0].started > 0 && steps[0].finished >= steps[0].started);
    klaw_step_info_free(steps);
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, NULL), KLAW_SYSTEM);
    OK(klaw_workflow_fail(wf, KLAW_SYSTEM, "gave up", NULL));
    GIVES(klaw_workflow_fail(wf, KLAW_SYSTEM, NULL, NULL), KLAW_INVALID);
    klaw_workflow_close(wf);
    klaw_workflow_info i = wf_look(store, "w");
    SAME(i.state, KLAW_WORKFLOW_FAILED);
    SAME(i.error, KLAW_SYSTEM);
    CHECK(strcmp(i.message, "gave up") == 0 && !i.leased && i.finished >= i.created);
    wf = WF(store, "w"); /* opening it resumes it */
    SAME(wf_step(wf, "a", &a), 1);
    SAME(a.attempt, 3); /* of all runs */
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    SAME(wf_look(store, "w").state, KLAW_WORKFLOW_DONE);
    end();
}

static klaw_step_opts tries(uint32_t n) {
    return (klaw_step_opts){.retry = {.attempts = n, .backoff = {.base = KLAW_MS(1)}}};
}
static bool only_timeouts(klaw_err e, void *arg) {
    (void)arg;
    return e == KLAW_TIMEOUT;
}

static void retries_with_backoff(void) {
    job a = {.value = 1, .failures = 3}, b = {.failures = 3, .error = KLAW_INVALID},
        c = {.failures = 1, .error = KLAW_CANCELLED}, d = {.failures = 9};
    klaw_step_opts o = tries(3);
    klaw_blob *r = NULL;
    begin();
    klaw_workflow *wf = WF(store, "w");
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, &o, &r, NULL), KLAW_SYSTEM);
    SAME(a.runs, 3);
    OK(klaw_workflow_step(wf, "a", job_fn, &a, &o, &r, NULL)); /* attempts are counted anew */
    SAME(number_of(r), 1);
    SAME(a.runs, 4);
    GIVES(klaw_workflow_step(wf, "b", job_fn, &b, &o, NULL, NULL), KLAW_INVALID);
    SAME(b.runs, 1); /* what another attempt does not change */
    GIVES(klaw_workflow_step(wf, "c", job_fn, &c, &o, NULL, NULL), KLAW_CANCELLED);
    SAME(c.runs, 1);
    o.retry_on = only_timeouts;
    GIVES(klaw_workflow_step(wf, "d", job_fn, &d, &o, NULL, NULL), KLAW_SYSTEM);
    SAME(d.runs, 1);
    o = tries(UINT32_MAX); /* as often as the time allows */
    o.retry.backoff.base = KLAW_NONE;
    d.failures = 20;
    OK(klaw_workflow_step(wf, "d", job_fn, &d, &o, NULL, NULL));
    SAME(d.runs, 21);
    klaw_workflow_close(wf);
    end();
}
PLAIN(on_a_thread_failed_attempts_are_repeated) {
    retries_with_backoff();
}
RUNS(on_a_fiber_failed_attempts_are_repeated, 1) {
    retries_with_backoff();
}

static klaw_err waits_for_ever(klaw_step *s, void *arg) {
    (void)s, (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}
static klaw_err waits_past_its_time(klaw_step *s, void *arg) {
    (void)arg;
    CHECK(klaw_step_deadline(s) != KLAW_FOREVER);
    UNTIL(klaw_step_cancelled(s));
    return KLAW_OK;
}

RUNS(an_attempt_is_cut_at_its_time_and_counts_as_a_failure, 2) {
    job a = {.also = waits_for_ever}, b = {.also = waits_past_its_time, .value = 2};
    klaw_step_opts o = tries(2);
    klaw_step_info *steps;
    size_t n;
    klaw_blob *r = NULL;
    begin();
    klaw_workflow *wf = WF(store, "w");
    o.timeout = KLAW_MS(10);
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, &o, NULL, NULL), KLAW_TIMEOUT);
    SAME(a.runs, 2);
    OK(klaw_workflow_inspect(store, "w", NULL, &steps, &n, NULL));
    SAME(steps[0].error, KLAW_TIMEOUT);
    klaw_step_info_free(steps);
    OK(klaw_workflow_step(wf, "b", job_fn, &b, &o, &r, NULL)); /* late, but it succeeded */
    SAME(number_of(r), 2);
    o = tries(UINT32_MAX);
    o.retry.backoff.base = KLAW_S(1000);
    o.retry.backoff.max_delay = KLAW_NONE;
    o.retry.backoff.jitter = KLAW_JITTER_NONE;
    o.deadline = klaw_after(KLAW_S(100)); /* the next attempt would be beyond it */
    job c = {.failures = 9};
    GIVES(klaw_workflow_step(wf, "c", job_fn, &c, &o, NULL, NULL), KLAW_SYSTEM);
    SAME(c.runs, 1);
    o.deadline = KLAW_NOWAIT;
    GIVES(klaw_workflow_step(wf, "c", job_fn, &c, &o, NULL, NULL), KLAW_TIMEOUT);
    SAME(c.runs, 1);
    klaw_workflow_close(wf);
    wf = WF(store, "w", .deadline = klaw_now() - 1);
    GIVES(klaw_workflow_step(wf, "c", job_fn, &c, NULL, NULL, NULL), KLAW_TIMEOUT);
    SAME(wf_step(wf, "b", &b), 2); /* what is kept needs no time */
    klaw_workflow_close(wf);
    SAME(c.runs, 1);
    SAME(b.runs, 1);
    end();
}

static klaw_err fails_later(void *arg) {
    (void)arg;
    klaw_err e = klaw_sleep(KLAW_WITHIN(KLAW_MS(1)));
    return e ? e : KLAW_TYPE;
}
static klaw_err starts_one_that_fails(klaw_step *s, void *arg) {
    (void)s, (void)arg;
    return klaw_go(fails_later, NULL);
}

RUNS(fibers_of_a_step_belong_to_it, 2) {
    job a = {.also = starts_one_that_fails};
    begin();
    klaw_workflow *wf = WF(store, "w");
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, NULL), KLAW_TYPE);
    klaw_workflow_close(wf);
    end();
}

static klaw_workflow_opts list_of(const char *const *names, size_t n, const char *version) {
    return (klaw_workflow_opts){.steps = names, .n_steps = n, .version = version};
}
#define LIST(version, ...)                      \
    list_of((const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), version)

PLAIN(a_changed_list_is_refused_and_the_difference_named) {
    job a = {.value = 1}, c = {.value = 3};
    klaw_step_info *steps;
    size_t n;
    begin();
    klaw_workflow *wf = wf_open(store, "w", LIST("1", "a", "b", "c"));
    SAME(wf_step(wf, "a", &a), 1);
    SAME(wf_step(wf, "c", &c), 3);
    GIVES(klaw_workflow_step(wf, "x", job_fn, &a, NULL, NULL, NULL), KLAW_INVALID);
    klaw_workflow_close(wf);
    wf_refuses(store, "w", LIST("1", "a", "x", "c"), KLAW_INVALID,
               "step 2 was \"b\" and is \"x\" now");
    wf_refuses(store, "w", LIST("1", "a", "c", "b"), KLAW_INVALID,
               "step 2 was \"b\" and is \"c\" now");
    wf_refuses(store, "w", LIST("1", "a", "c"), KLAW_INVALID, "step 2 \"b\" is gone");
    wf_refuses(store, "w", LIST("1", "a", "b", "c", "d"), KLAW_INVALID, "step 4 \"d\" is new");
    wf_refuses(store, "w", LIST("2", "a", "b", "c"), KLAW_INVALID,
               "the version was \"1\" and is \"2\" now");
    wf_refuses(store, "w", (klaw_workflow_opts){.version = "2"}, KLAW_INVALID, "version");
    wf_refuses(store, "w", LIST("2", "a", "b", "a"), KLAW_INVALID, "step 3");
    wf_refuses(store, "w", LIST("2", "a", ""), KLAW_INVALID, "step 2");
    wf = wf_open(store, "w", LIST("1", "a", "b", "c"));
    klaw_workflow_close(wf);
    wf = WF(store, "w", .version = "1"); /* the recorded list holds */
    GIVES(klaw_workflow_step(wf, "x", job_fn, &a, NULL, NULL, NULL), KLAW_INVALID);
    klaw_workflow_close(wf);
    klaw_workflow_opts o = LIST("2", "x", "c", "b");
    o.allow_changes = true;
    wf = wf_open(store, "w", o);
    SAME(wf_step(wf, "c", &c), 3);
    SAME(wf_step(wf, "x", &a), 1);
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, NULL), KLAW_INVALID);
    klaw_workflow_close(wf);
    OK(klaw_workflow_inspect(store, "w", NULL, &steps, &n, NULL));
    const char *want[] = {"x", "c", "b", "a"};
    SAME(n, 4);
    for (size_t i = 0; i < n; i++)
        CHECK(strcmp(steps[i].name, want[i]) == 0 && steps[i].dropped == (i == 3));
    klaw_step_info_free(steps);
    o = LIST("2", "a", "x", "c", "b"); /* it comes back, and what it has kept counts */
    o.allow_changes = true;
    wf = wf_open(store, "w", o);
    SAME(wf_step(wf, "a", &a), 1);
    klaw_workflow_close(wf);
    SAME(a.runs, 2);
    SAME(c.runs, 1);
    end();
}

PLAIN(without_a_list_a_new_step_before_recorded_ones_is_a_change) {
    job a = {.value = 1}, b = {.value = 2}, x = {.value = 9};
    klaw_error_info info;
    begin();
    klaw_workflow *wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    SAME(wf_step(wf, "b", &b), 2);
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "asked for it before"));
    klaw_workflow_close(wf);
    wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    GIVES(klaw_workflow_step(wf, "x", job_fn, &x, NULL, NULL, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "\"x\"") && strstr(info.message, "changed"));
    GIVES(klaw_workflow_finish(wf, NULL, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "\"b\""));
    SAME(wf_step(wf, "b", &b), 2);
    SAME(wf_step(wf, "x", &x), 9);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    wf = WF(store, "w2");
    SAME(wf_step(wf, "b", &b), 2);
    klaw_workflow_close(wf);
    wf = WF(store, "w2", .allow_changes = true);
    SAME(wf_step(wf, "x", &x), 9);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    end();
}

PLAIN(a_done_one_with_another_list_runs_again_only_if_allowed) {
    job a = {.value = 1}, b = {.value = 2};
    klaw_blob *r = NULL;
    begin();
    klaw_workflow *wf = wf_open(store, "w", LIST("", "a"));
    SAME(wf_step(wf, "a", &a), 1);
    OK(klaw_blob_new("x", 1, &r));
    OK(klaw_workflow_finish(wf, r, NULL));
    klaw_blob_unref(r);
    klaw_workflow_close(wf);
    wf_refuses(store, "w", LIST("", "a", "b"), KLAW_INVALID, "\"b\" is new");
    klaw_workflow_opts o = LIST("", "a", "b");
    o.allow_changes = true;
    wf = wf_open(store, "w", o);
    CHECK(!klaw_workflow_done(wf));
    GIVES(klaw_workflow_result(wf, &r, NULL), KLAW_NOT_FOUND);
    SAME(wf_step(wf, "a", &a), 1);
    SAME(wf_step(wf, "b", &b), 2);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    SAME(a.runs, 1);
    SAME(wf_look(store, "w").result_size, 0);
    end();
}

PLAIN(ids_name_a_step_for_ever) {
    job a = {.failures = 1, .value = 1}, b = {.value = 1};
    char first[320];
    begin();
    klaw_workflow *wf = WF(store, "w");
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, NULL, NULL, NULL), KLAW_SYSTEM);
    memcpy(first, a.id, sizeof first);
    klaw_workflow_close(wf);
    wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    CHECK(strcmp(first, a.id) == 0 && strstr(first, "/a"));
    SAME(wf_step(wf, "b", &b), 1);
    CHECK(strcmp(first, b.id) != 0);
    klaw_workflow_close(wf);
    OK(klaw_workflow_delete(store, "w", false, NULL));
    wf = WF(store, "w");
    a.runs = 1;
    SAME(wf_step(wf, "a", &a), 1);
    CHECK(strcmp(first, a.id) != 0); /* of the same names, but another one */
    klaw_workflow_close(wf);
    end();
}

/* --- many at once --- */
typedef struct part {
    klaw_workflow *wf;
    char name[24];
    job j;
} part;

static klaw_err ask_part(void *arg) {
    part *p = arg;
    klaw_blob *b = NULL;
    klaw_err e = klaw_workflow_step(p->wf, p->name, job_fn, &p->j, NULL, &b, NULL);
    if (!e)
        SAME(number_of(b), p->j.value);
    return e;
}

RUNS(fibers_run_steps_of_one_workflow_at_once, 2) {
    enum { N = 40 };
    static part parts[N];
    begin();
    klaw_workflow *wf = WF(store, "w", .allow_changes = true);
    for (int round = 0; round < 2; round++) {
        klaw_scope *s = SCOPE(.name = "parts");
        for (int i = 0; i < N; i++) {
            parts[i].wf = wf;
            parts[i].j.value = (uint64_t)i;
            snprintf(parts[i].name, sizeof parts[i].name, "part %d", i);
            OK(klaw_go(ask_part, &parts[i]));
        }
        OK(klaw_scope_close(s));
        klaw_workflow_close(wf);
        wf = WF(store, "w", .allow_changes = true);
    }
    klaw_workflow_close(wf);
    for (int i = 0; i < N; i++) {
        SAME(parts[i].j.runs, 1);
        parts[i].j.runs = 0;
    }
    SAME(wf_look(store, "w").steps_done, N);
    end();
}

static klaw_err asks_for_itself(klaw_step *s, void *arg) {
    klaw_error_info info;
    GIVES(klaw_workflow_step(klaw_step_workflow(s), klaw_step_name(s), job_fn, arg, NULL, NULL,
                             &info),
          KLAW_INVALID);
    CHECK(strstr(info.message, "before"));
    GIVES(klaw_workflow_finish(klaw_step_workflow(s), NULL, NULL), KLAW_EXISTS);
    return KLAW_OK;
}

PLAIN(a_running_step_is_not_started_twice) {
    job a = {.also = asks_for_itself, .value = 1};
    a.arg = &a;
    begin();
    klaw_workflow *wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    klaw_workflow_close(wf);
    end();
}

/* --- the declarative form --- */
static klaw_err adds_up(klaw_step *s, void *arg, klaw_blob **result) {
    job *j = arg;
    klaw_blob *before = NULL;
    atomic_fetch_add(&j->runs, 1);
    OK(klaw_workflow_kept(klaw_step_workflow(s), "first", &before, NULL));
    uint64_t sum = number_of(before) + 5;
    return klaw_blob_new(&sum, sizeof sum, result);
}

static size_t steps_seen;
static klaw_err looks_at_the_log(klaw_step *s, void *arg) {
    (void)arg;
    CHECK(klaw_step_attempt(s) >= 1);
    steps_seen = wf_look(store, "w").steps;
    return KLAW_OK;
}

PLAIN(a_start_need_not_be_recorded) {
    job a = {.value = 1, .also = looks_at_the_log, .failures = 1}, b = {.value = 2};
    klaw_step_opts o = tries(2);
    klaw_step_info *steps;
    klaw_blob *r = NULL;
    size_t n;
    begin();
    klaw_workflow *wf = WF(store, "w");
    o.unrecorded_start = true;
    o.retry.attempts = 1;
    GIVES(klaw_workflow_step(wf, "a", job_fn, &a, &o, &r, NULL), KLAW_SYSTEM);
    SAME(steps_seen, 0); /* while it ran */
    OK(klaw_workflow_step(wf, "a", job_fn, &a, &o, &r, NULL));
    SAME(number_of(r), 1);
    SAME(a.attempt, 2);
    OK(klaw_workflow_step(wf, "b", job_fn, &b, &o, &r, NULL));
    SAME(number_of(r), 2);
    klaw_workflow_close(wf);
    again();
    wf = WF(store, "w");
    SAME(wf_step(wf, "a", &a), 1);
    SAME(wf_step(wf, "b", &b), 2);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
    OK(klaw_workflow_inspect(store, "w", NULL, &steps, &n, NULL));
    SAME(n, 2);
    SAME(steps[0].attempts, 2);
    SAME(steps[1].attempts, 1);
    CHECK(steps[1].started > 0 && steps[1].finished >= steps[1].started);
    klaw_step_info_free(steps);
    SAME(a.runs, 2);
    SAME(b.runs, 1);
    wf = WF(store, "v"); /* it is fenced all the same */
    OK(klaw_workflow_evict(store, "v", NULL));
    GIVES(klaw_workflow_step(wf, "b", job_fn, &b, &o, &r, NULL), KLAW_STOPPED);
    SAME(b.runs, 1);
    klaw_workflow_close(wf);
    end();
}

PLAIN(a_declared_list_runs_from_where_it_was) {
    klaw_blob *r = NULL;
    job j = {.value = 37, .failures = 1, .error = KLAW_BACKEND};
    klaw_step_def steps[] = {{.name = "first", .fn = job_fn}, {.name = "second", .fn = adds_up}};
    begin();
    GIVES(klaw_workflow_run(store, "w", steps, 2, &j, NULL, &r, NULL), KLAW_BACKEND);
    klaw_workflow_info i = wf_look(store, "w");
    SAME(i.state, KLAW_WORKFLOW_FAILED);
    CHECK(strstr(i.message, "\"first\""));
    OK(klaw_workflow_run(store, "w", steps, 2, &j, NULL, &r, NULL));
    SAME(number_of(r), 42);
    OK(klaw_workflow_run(store, "w", steps, 2, &j, NULL, &r, NULL));
    SAME(number_of(r), 42);
    SAME(j.runs, 3);
    steps[1].name = "other";
    GIVES(klaw_workflow_run(store, "w", steps, 2, &j, NULL, &r, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_run(store, "w", NULL, 2, &j, NULL, &r, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_run(store, "w", steps, 0, &j, NULL, &r, NULL), KLAW_INVALID);
    steps[1].opts.timeout = -5;
    GIVES(klaw_workflow_run(store, "w3", steps, 2, &j, NULL, &r, NULL), KLAW_INVALID);
    end();
}

PLAIN(wrong_arguments_are_refused) {
    klaw_workflow *wf = NULL;
    klaw_blob *b = NULL;
    job j = {.value = 1};
    begin();
    char name[300];
    memset(name, 'n', 256);
    name[256] = 0;
    GIVES(klaw_workflow_open(NULL, "w", NULL, &wf, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_open(store, "w", NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_open(store, "", NULL, &wf, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_open(store, name, NULL, &wf, NULL), KLAW_INVALID);
    wf_refuses(store, "w", (klaw_workflow_opts){.lease = 1}, KLAW_INVALID, "lease");
    wf_refuses(store, "w", (klaw_workflow_opts){.lease = KLAW_S(100000)}, KLAW_INVALID, "lease");
    wf_refuses(store, "w", (klaw_workflow_opts){.n_steps = 1}, KLAW_INVALID, "steps");
    wf_refuses(store, "w", (klaw_workflow_opts){.version = "\x01"}, KLAW_INVALID, "version");
    name[255] = 0;
    wf = WF(store, name);
    OK(klaw_workflow_step(wf, name, job_fn, &j, NULL, NULL, NULL));
    GIVES(klaw_workflow_step(NULL, "a", job_fn, &j, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_step(wf, "a", NULL, &j, NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_step(wf, "a\n", job_fn, &j, NULL, NULL, NULL), KLAW_INVALID);
    klaw_step_opts o = {.retry = {.backoff = {.factor = 0.5}}};
    GIVES(klaw_workflow_step(wf, "a", job_fn, &j, &o, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_kept(wf, "a", NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_kept(NULL, "a", &b, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_kept(wf, NULL, &b, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_result(wf, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_result(wf, &b, NULL), KLAW_NOT_FOUND);
    GIVES(klaw_workflow_finish(NULL, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_fail(wf, KLAW_OK, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_workflow_fail(wf, (klaw_err)99, NULL, NULL), KLAW_INVALID);
    CHECK(!klaw_workflow_done(NULL));
    klaw_workflow_close(wf);
    klaw_workflow_close(NULL);
    klaw_workflow_info_free(NULL);
    klaw_step_info_free(NULL);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(on_a_thread_kept_results_are_replayed),
        TEST(on_a_fiber_kept_results_are_replayed),
        TEST(results_are_any_bytes),
        TEST(a_failed_step_is_recorded_and_may_be_asked_again),
        TEST(on_a_thread_failed_attempts_are_repeated),
        TEST(on_a_fiber_failed_attempts_are_repeated),
        TEST(an_attempt_is_cut_at_its_time_and_counts_as_a_failure),
        TEST(fibers_of_a_step_belong_to_it),
        TEST(a_changed_list_is_refused_and_the_difference_named),
        TEST(without_a_list_a_new_step_before_recorded_ones_is_a_change),
        TEST(a_done_one_with_another_list_runs_again_only_if_allowed),
        TEST(ids_name_a_step_for_ever),
        TEST(fibers_run_steps_of_one_workflow_at_once),
        TEST(a_running_step_is_not_started_twice),
        TEST(a_start_need_not_be_recorded),
        TEST(a_declared_list_runs_from_where_it_was),
        TEST(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
