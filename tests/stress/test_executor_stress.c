/* SPDX-License-Identifier: Apache-2.0 */
/* test_executor_stress.c - fibers and threads submit, cancel, join, map and gather on one executor,
 * all at once; every task ends once, gives its arg back once, and the counters add up. */
#include "klaw/executor.h"
#include "support/random.h"
#include "support/runs.h"

#define ROUNDS 150u
#define TASKS 24u

typedef struct one {
    _Atomic int ran, released;
    int kind;
} one;

static klaw_executor *ex;
static uint64_t seed;
static _Atomic uint64_t submitted;

static void releases(void *arg) {
    one *o = arg;
    atomic_fetch_add(&o->released, 1);
}

/* Returns, yields, sleeps a little, sleeps for ever, or opens a scope and sleeps in it. */
static klaw_err acts(void *arg) {
    one *o = arg;
    klaw_scope *s;
    klaw_err e = KLAW_OK;
    atomic_fetch_add(&o->ran, 1);
    switch (o->kind) {
    case 0: return KLAW_OK;
    case 1: return klaw_yield();
    case 2: return klaw_sleep(KLAW_WITHIN(KLAW_US(20)));
    case 3: return klaw_sleep(KLAW_FOREVER);
    case 4: e = klaw_scope_open(NULL, &s); break;
    default: return KLAW_NOT_FOUND;
    }
    if (e)
        return e;
    e = klaw_sleep(KLAW_WITHIN(KLAW_US(20)));
    klaw_err closed = klaw_scope_close(s);
    return e ? e : closed;
}

static void one_round(rng *r) {
    one o[TASKS];
    klaw_task *t[TASKS];
    uint32_t n = 1 + rng_below(r, TASKS);
    for (uint32_t i = 0; i < n; i++) {
        o[i] = (one){.kind = (int)rng_below(r, 6)};
        klaw_task_opts opts = {.release = releases};
        if (rng_one_in(r, 4))
            opts.deadline = KLAW_WITHIN(KLAW_US(1) + rng_below(r, 300000));
        OK(klaw_submit(ex, acts, &o[i], &opts, &t[i]));
        if (rng_one_in(r, 3))
            klaw_task_cancel(t[rng_below(r, i + 1)], "stress");
    }
    atomic_fetch_add(&submitted, n);
    for (uint32_t i = 0; i < n; i++)
        if (o[i].kind == 3)
            klaw_task_cancel(t[i], "for ever is too long");
    if (rng_one_in(r, 2)) {
        klaw_err e = klaw_gather(t, n, NULL, rng_one_in(r, 2), KLAW_WITHIN(SOON_NS));
        CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT || e == KLAW_NOT_FOUND);
    }
    for (uint32_t i = 0; i < n; i++) {
        klaw_err e;
        OK(klaw_task_join(t[i], KLAW_WITHIN(SOON_NS), &e, NULL));
        CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT ||
              (e == KLAW_NOT_FOUND && o[i].kind == 5));
        CHECK(e != KLAW_OK || atomic_load(&o[i].ran) == 1);
        klaw_task_unref(t[i]);
    }
    for (uint32_t i = 0; i < n; i++) { /* one that was cancelled in the queue a moment later */
        UNTIL(atomic_load(&o[i].released) > 0);
        SAME(o[i].released, 1);
        CHECK(atomic_load(&o[i].ran) <= 1);
    }
}

static klaw_err item(const void *it, void *result, void *arg) {
    uint32_t x = *(const uint32_t *)it;
    (void)arg;
    *(uint32_t *)result = x + 1;
    return x % 64 == 63 ? klaw_sleep(KLAW_WITHIN(KLAW_US(10))) : KLAW_OK;
}

static void one_map(rng *r) {
    uint32_t items[1000], results[1000], n = rng_below(r, 1000);
    klaw_err errors[1000];
    for (uint32_t i = 0; i < n; i++)
        items[i] = i;
    klaw_map_opts o = {.deadline = rng_one_in(r, 2) ? KLAW_WITHIN(1 + rng_below(r, 400000)) : 0};
    klaw_err e =
        klaw_map(ex, item, NULL, items, sizeof *items, n, results, sizeof *results, errors, &o);
    CHECK(e == KLAW_OK || (o.deadline && e == KLAW_TIMEOUT));
    for (uint32_t i = 0; i < n; i++) {
        CHECK(errors[i] == KLAW_OK || (e && errors[i] == KLAW_TIMEOUT));
        CHECK(errors[i] || results[i] == i + 1);
    }
}

static klaw_err user(void *arg) {
    rng r = rng_part(seed, (uint64_t)(uintptr_t)arg);
    uint64_t n = rounds(ROUNDS);
    for (uint64_t i = 0; i < n; i++)
        if (rng_one_in(&r, 8))
            one_map(&r);
        else
            one_round(&r);
    return KLAW_OK;
}

static void all_at_once(int32_t concurrency) {
    klaw_fiber *f[4];
    thread_job t[2];
    atomic_store(&submitted, 0);
    OK(klaw_executor_open(&(klaw_executor_opts){.concurrency = concurrency}, &ex));
    for (uintptr_t i = 0; i < 4; i++)
        f[i] = fiber(user, (void *)i);
    for (uintptr_t i = 0; i < 2; i++)
        thread_start(&t[i], user, (void *)(i + 4));
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
    OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    klaw_executor_stats s;
    klaw_executor_get_stats(ex, &s);
    SAME(s.submitted, submitted);
    SAME(s.submitted, s.succeeded + s.failed + s.cancelled + s.timed_out);
    SAME(s.queued + s.running, 0);
    klaw_executor_unref(ex);
}

RUNS(every_task_ends_once, 2) {
    seed = seed_begin();
    all_at_once(1);
    all_at_once(4);
    all_at_once(KLAW_NONE);
}

/* Runs come and go under the hands of threads that submit. */
static _Atomic bool over;
static _Atomic uint64_t accepted, released;

static void counts_release(void *arg) {
    (void)arg;
    atomic_fetch_add(&released, 1);
}

static klaw_err submits_on(void *arg) {
    klaw_executor *mine = arg;
    klaw_task_opts o = {.release = counts_release};
    while (!atomic_load(&over)) {
        klaw_err e = klaw_submit(mine, returns_ok, NULL, &o, NULL);
        CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        atomic_fetch_add(&accepted, e == KLAW_OK);
        if (e)
            break;
    }
    klaw_executor_unref(mine);
    return KLAW_OK;
}

static thread_job jobs[2];

static void run_that_ends(void) {
    OK(klaw_executor_open(NULL, &ex));
    for (int i = 0; i < 2; i++)
        thread_start(&jobs[i], submits_on, klaw_executor_ref(ex));
    UNTIL(atomic_load(&accepted) > 50 || klaw_scope_cancelled(klaw_scope_current()));
}

PLAIN(the_run_ends_while_threads_submit) {
    uint64_t n = rounds(20);
    for (uint64_t i = 0; i < n; i++) {
        atomic_store(&accepted, 0);
        atomic_store(&released, 0);
        atomic_store(&over, false);
        klaw_err e = KLAW_OK;
        klaw_run_opts o = {.workers = 2, .deadline = KLAW_WITHIN(KLAW_MS(20))};
        void (*body)(void) = run_that_ends;
        e = klaw_run(runs_body, (void *)&body, &o);
        CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
        atomic_store(&over, true);
        for (int k = 0; k < 2; k++)
            OK(thread_end(&jobs[k]));
        SAME(accepted, released);
        klaw_executor_unref(ex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_task_ends_once),
        TEST(the_run_ends_while_threads_submit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
