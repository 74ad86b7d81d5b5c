/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor_stress.c - many children, storms of failures and requests, processes that are killed
 * at random. Then the account: nothing runs any more, each arg was dropped once, no process is left.
 *
 * A seed replays the operations; threads and the kernel run as they please. Tried with these bugs
 * seeded: a stop that walks all children for each, a run's reference that is kept. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plat/os.h"
#include "support/random.h"
#include "support/runs.h"

static uint64_t seed;
static _Atomic int64_t running, dropped;

static void drop(void *arg) {
    (void)arg;
    atomic_fetch_add(&dropped, 1);
}
static void stop(klaw_supervisor *s) {
    OK(klaw_supervisor_stop(s, klaw_after(SOON_NS)));
    klaw_supervisor_unref(s);
}

/* --- ten thousand --- */
static klaw_err rests(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}

/* What this process has computed, in ns. */
static int64_t computed(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * KLAW_S(1) + t.tv_nsec;
}

static int64_t stop_of(size_t n, bool dynamic) {
    klaw_supervisor *s;
    klaw_supervisor_opts o = {.policy = {.strategy = dynamic ? KLAW_DYNAMIC : KLAW_ONE_FOR_ONE}};
    klaw_child_spec def = {.name = "w", .run = rests, .drop = drop};
    klaw_supervisor_counts counts;
    dropped = 0;
    OK(klaw_supervisor_open(&o, &def, dynamic ? 1 : 0, &s, NULL));
    for (size_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "w%zu", i);
        def.name = name;
        if (dynamic)
            OK(klaw_supervisor_start_dynamic(s, NULL, NULL, KLAW_FOREVER, NULL));
        else
            OK(klaw_supervisor_start_child(s, &def, KLAW_FOREVER, NULL));
    }
    OK(klaw_supervisor_count(s, &counts));
    SAME(counts.active, n);
    int64_t from = computed();
    stop(s);
    SAME(dropped, n);
    return computed() - from;
}

RUNS(ten_thousand_children_stop_in_proportional_time, 2) {
    size_t many = SANITIZED ? 500 : 10000, few = many / 10;
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        int64_t best_many = INT64_MAX, best_few = INT64_MAX;
        for (int i = 0; i < (SANITIZED ? 1 : 3); i++) {
            int64_t a = stop_of(few, dynamic), b = stop_of(many, dynamic);
            best_few = a < best_few ? a : best_few;
            best_many = b < best_many ? b : best_many;
        }
        printf("%s: %zu stop in %lld us, %zu in %lld us\n", dynamic ? "dynamic" : "ordered", few,
               (long long)best_few / 1000, many, (long long)best_many / 1000);
        CHECK(SANITIZED ||
              best_many < 50 * best_few); /* ten times as many; squared it would be 100 */
    }
}

/* --- storms --- */
typedef struct kid {
    rng r;
    _Atomic int runs;
} kid;

static klaw_err storm_init(void *arg) {
    kid *k = arg;
    if (rng_one_in(&k->r, 10))
        return KLAW_CORRUPT;
    return KLAW_OK;
}
static klaw_err storm_run(void *arg) {
    kid *k = arg;
    klaw_err e = KLAW_OK;
    SAME(atomic_fetch_add(&k->runs, 1), 0); /* one at a time */
    atomic_fetch_add(&running, 1);
    for (uint32_t i = rng_below(&k->r, 20); i > 0 && !e; i--)
        e = rng_one_in(&k->r, 3) ? klaw_sleep(KLAW_WITHIN(KLAW_US(50))) : klaw_yield();
    if (!e && rng_one_in(&k->r, 2))
        e = klaw_sleep(KLAW_FOREVER);
    if (!e && !rng_one_in(&k->r, 4))
        e = KLAW_SYSTEM;
    atomic_fetch_sub(&running, 1);
    atomic_fetch_sub(&k->runs, 1);
    return e;
}

#define KIDS 12
struct storm {
    klaw_supervisor *s;
    rng r;
    kid kids[KIDS];
    char names[KIDS][16];
};

static void request(struct storm *st, rng *r) {
    uint32_t i = rng_below(r, KIDS);
    klaw_deadline d = rng_one_in(r, 4) ? KLAW_WITHIN(KLAW_US(100)) : KLAW_FOREVER;
    klaw_child_info info[KIDS];
    size_t n;
    klaw_err e = KLAW_OK;
    switch (rng_below(r, 4)) {
    case 0: e = klaw_supervisor_stop_child(st->s, st->names[i], d); break;
    case 1: e = klaw_supervisor_restart_child(st->s, st->names[i], d); break;
    case 2: e = klaw_supervisor_which(st->s, info, KIDS, &n); break;
    default: e = klaw_sleep(KLAW_WITHIN(KLAW_US(100)));
    }
    CHECK(e == KLAW_OK || e == KLAW_STOPPED || e == KLAW_EXISTS || e == KLAW_TIMEOUT ||
          e == KLAW_NOT_FOUND || e == KLAW_CORRUPT || e == KLAW_CANCELLED);
}

static klaw_err requests(void *arg) {
    struct storm *st = arg;
    rng r = rng_part(seed, klaw_self_id());
    for (int i = 0; i < 30; i++)
        request(st, &r);
    return KLAW_OK;
}

static void storm(uint64_t round) {
    static struct storm st;
    klaw_child_spec c[KIDS], in = {.name = "in", .kind = KLAW_CHILD_SUPERVISOR};
    memset(&st, 0, sizeof st);
    st.r = rng_part(seed, round);
    rng *r = &st.r;
    klaw_supervisor_opts o = {
        .policy = {.strategy = (klaw_strategy)rng_below(r, 3),
                   .max_restarts = rng_one_in(r, 3) ? 20 : KLAW_RESTARTS_UNLIMITED,
                   .no_backoff = rng_one_in(r, 2),
                   .backoff = {.base = KLAW_US(100), .max_delay = KLAW_MS(1)}}};
    klaw_supervisor_opts inner = o;
    for (uint32_t i = 0; i < KIDS; i++) {
        snprintf(st.names[i], sizeof st.names[i], "k%u", i);
        st.kids[i].r = rng_part(rng_next(r), i);
        c[i] = (klaw_child_spec){.name = st.names[i],
                                 .run = storm_run,
                                 .init = rng_one_in(r, 2) ? storm_init : NULL,
                                 .arg = &st.kids[i],
                                 .drop = drop,
                                 .restart = (klaw_restart)rng_below(r, 3)};
    }
    uint32_t below = rng_below(r, KIDS - 1); /* the last so many are in a nested one */
    in.supervisor = &inner;
    in.children = &c[KIDS - below];
    in.n_children = below;
    dropped = 0;
    klaw_scope *scope = SCOPE(.name = "storm");
    klaw_err e = klaw_supervisor_open(&o, c, KIDS - below, &st.s, NULL);
    CHECK(e == KLAW_OK || e == KLAW_CORRUPT || e == KLAW_LIMIT);
    bool nested = !e && klaw_supervisor_start_child(st.s, &in, KLAW_FOREVER, NULL) == KLAW_OK;
    if (!e) {
        klaw_fiber *f[3];
        for (int i = 0; i < 3; i++)
            f[i] = fiber(requests, &st);
        if (rng_one_in(r, 3))
            klaw_scope_cancel(scope, "storm");
        for (int i = 0; i < 3; i++) {
            klaw_err ignored;
            while (klaw_join(f[i], &ignored, NULL, KLAW_FOREVER) != KLAW_OK)
                (void)!klaw_yield();
        }
        klaw_supervisor *s = st.s;
        while (klaw_supervisor_stop(s, KLAW_FOREVER) != KLAW_OK)
            (void)!klaw_yield(); /* cancelled */
        klaw_supervisor_unref(s);
    }
    (void)!klaw_scope_close(scope);
    SAME(running, 0);
    SAME(dropped, e ? 0 : nested ? KIDS : KIDS - below);
}

RUNS(storms_of_failures_and_requests_end, 2) {
    uint64_t n = rounds(400);
    for (uint64_t i = 0; i < n; i++)
        storm(i);
}

/* --- processes --- */
#define PROCESSES 8

RUNS(processes_that_are_killed_come_back_and_none_is_left, 2) {
    klaw_process_opts o = {
        .argv = (const char *const[]){"/bin/sh", "-c", "sleep 60 & exec sleep 60", NULL}};
    klaw_child_spec c[PROCESSES];
    char names[PROCESSES][16];
    rng r = rng_part(seed, 12345);
    klaw_supervisor *s;
    for (int i = 0; i < PROCESSES; i++) {
        snprintf(names[i], sizeof names[i], "p%d", i);
        c[i] = (klaw_child_spec){.name = names[i],
                                 .kind = KLAW_CHILD_PROCESS,
                                 .process = &o,
                                 .shutdown = i % 3 ? 0 : KLAW_SHUTDOWN_KILL};
    }
    klaw_supervisor_opts so = {
        .policy = {.no_backoff = true, .max_restarts = KLAW_RESTARTS_UNLIMITED}};
    uint64_t n = rounds(200), kills = 0;
    OK(klaw_supervisor_open(&so, c, PROCESSES, &s, NULL));
    while (kills < n) {
        klaw_process *p;
        const char *name = names[rng_below(&r, PROCESSES)];
        if (klaw_supervisor_child_process(s, name, &p) != KLAW_OK) {
            OK(klaw_yield());
            continue;
        }
        kills += klaw_process_signal(p, rng_one_in(&r, 2) ? SIGKILL : SIGTERM) == KLAW_OK;
        klaw_process_unref(p);
        if (rng_one_in(&r, 10)) {
            OK(klaw_supervisor_stop_child(s, name, KLAW_FOREVER));
            OK(klaw_supervisor_restart_child(s, name, KLAW_FOREVER));
        }
    }
    stop(s);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && klawi_errno() == ECHILD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(ten_thousand_children_stop_in_proportional_time),
        TEST(storms_of_failures_and_requests_end),
        TEST(processes_that_are_killed_come_back_and_none_is_left),
    };
    seed = seed_begin();
    return cmocka_run_group_tests_name("supervisor_stress", tests, NULL, NULL);
}
