/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c - runs scenarios through their schedules, and keeps the account of elements. */
#include "interleave/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sched/sched.h"

void klawi_thread_host_drop(void); /* sched/thread.c */

static struct scenario *first, **last = &first;
uint64_t gate_k = 1;
bool gate_reached;

void scenario_add(struct scenario *s) {
    *last = s;
    last = &s->next;
}

const struct scenario *scenario_first(void) {
    return first;
}

void check_err(klaw_err e, klaw_err want, const char *text, const char *file, int line) {
    if (e == want)
        return;
    fprintf(stderr, "%s is %s, not %s\n", text, klaw_err_name(e), klaw_err_name(want));
    klawi_det_fail("wrong answer", file, line);
}

/* --- schedules ------------------------------------------------------------------------------- */

static uint64_t one(const struct scenario *s, uint64_t seed, int verbose) {
    klawi_det_begin(seed, s->name, verbose);
    account_open();
    s->fn();
    klawi_thread_host_drop(); /* of virtual processor 0, which goes on to the next schedule */
    return klawi_det_end();
}

/* Within a report: what the library knows of its fibers. */
static void snapshot(void) {
    klaw_snapshot *snap;
    char *text;
    if (klaw_snapshot_take(&snap) != KLAW_OK)
        return;
    if (klaw_snapshot_json(snap, &text, NULL) == KLAW_OK)
        fprintf(stderr, "%s\n", text);
}

static klaw_err warm_fiber(void *arg) {
    (void)arg;
    return klaw_yield();
}

static klaw_err warm_main(void *arg) {
    klaw_fiber_opts named = {.name = "warm"}; /* names are kept, too */
    (void)arg;
    for (int i = 0; i < 400; i++)
        if (i < 32)
            CHECK_ERR(klaw_spawn(NULL, warm_fiber, NULL, &named, NULL), KLAW_OK);
        else
            go(warm_fiber, NULL);
    return KLAW_OK;
}

/* Schedules must not depend on what earlier ones left in the caches: fill these first. */
static void warm_up(const struct scenario *s) {
    klawi_det_register_tls(&klawi_tls, sizeof klawi_tls);
    klawi_det_on_vcpu_exit(klawi_thread_host_drop);
    klawi_det_on_report(snapshot);
    static const struct scenario warm = {"warm-up", NULL, 1, false, NULL};
    klawi_det_begin(1, warm.name, 0);
    run(warm_main);
    klawi_det_end();
    for (uint64_t seed = 1; seed <= 3; seed++)
        one(s, seed, 0);
}

/* A set of hashes. */
struct seen {
    uint64_t *slot, mask, count;
};

static void seen_add(struct seen *set, uint64_t hash) {
    hash |= 1;
    uint64_t i = (hash >> 7) & set->mask;
    while (set->slot[i] && set->slot[i] != hash)
        i = (i + 1) & set->mask;
    if (!set->slot[i]) {
        set->slot[i] = hash;
        set->count++;
    }
}

/* The schedule after (seed, gate_k). */
static void advance(const struct scenario *s, struct verdict *v) {
    if (s->each_point && gate_reached) {
        v->k = ++gate_k;
        if (gate_k > v->most_k)
            v->most_k = gate_k;
        return;
    }
    v->seed++;
    v->k = gate_k = 1;
}

static void leak_check(uint64_t live) {
    klaw_alloc_trim();
    if (klaw_alloc_live() <= live)
        return;
    fprintf(stderr, "%llu blocks before, %llu after\n", (unsigned long long)live,
            (unsigned long long)klaw_alloc_live());
    klawi_det_fail("memory leak in one of the schedules", NULL, 0);
}

static void run_seeds(const struct scenario *s, uint64_t base, uint64_t n, uint64_t twice,
                      struct verdict *v) {
    struct seen seen = {NULL, 1024, 0};
    while (seen.mask < 2 * n)
        seen.mask *= 2;
    seen.slot = calloc(seen.mask--, sizeof *seen.slot);
    uint64_t *hashes = calloc(twice + 1, sizeof *hashes), begin_k = v->k;
    v->seed = base;
    warm_up(s);
    klaw_alloc_trim();
    uint64_t live = klaw_alloc_live();
    warm_up(s);
    gate_k = begin_k;
    while (v->schedules < n) {
        uint64_t hash = one(s, v->seed, 0);
        v->points += klawi_det_points();
        seen_add(&seen, hash);
        v->distinct = seen.count;
        if (v->schedules < twice)
            hashes[v->schedules] = hash;
        v->schedules++;
        advance(s, v);
    }
    v->seed = base;
    v->k = gate_k = begin_k;
    for (uint64_t i = 0; i < twice && i < n; i++) {
        if (one(s, v->seed, 0) != hashes[i])
            klawi_det_fail("same seed, another trace hash", NULL, 0);
        advance(s, v);
    }
    leak_check(live);
}

struct verdict scenario_child(const struct scenario *s, uint64_t base, uint64_t n, uint64_t twice,
                              bool quiet) {
    struct verdict *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 0, sizeof *shared);
    shared->k = gate_k;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (quiet) {
            int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(null, STDERR_FILENO);
        }
        if (klawi_mutant)
            alarm(20); /* one that hangs outside of every point */
        run_seeds(s, base, n, twice, shared);
        fflush(NULL);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    struct verdict v = *shared;
    munmap(shared, sizeof *shared);
    v.failed = status != 0;
    v.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return v;
}

static bool scenario_passes(const struct scenario *s, uint64_t base, uint64_t n, const char *exe) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    n = n / s->divide + 1;
    struct verdict v = scenario_child(s, base, n, klawi_mutant ? 0 : n < 1000 ? n : 1000, false);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6;
    printf("%-44s %6llu schedules %6llu distinct %5.0f points each %6.0f ms", s->name,
           (unsigned long long)v.schedules, (unsigned long long)v.distinct,
           (double)v.points / (double)(v.schedules ? v.schedules : 1), ms);
    if (s->each_point)
        printf(", points 1 to %llu", (unsigned long long)v.most_k);
    putchar('\n');
    if (!v.failed)
        return true;
    printf("FAILED: scenario %s, seed %llu", s->name, (unsigned long long)v.seed);
    if (v.signal)
        printf(", signal %d (%s)", v.signal, strsignal(v.signal));
    printf("\n  replay: KLAW_SCENARIO=%s KLAW_SEED=%llu ", s->name, (unsigned long long)v.seed);
    if (s->each_point)
        printf("KLAW_POINT=%llu ", (unsigned long long)v.k);
    printf("%s\n", exe);
    gate_k = v.k;
    struct verdict again = scenario_child(s, v.seed, 1, 0, true);
    gate_k = 1;
    printf("  alone in a fresh process it %s\n", again.failed ? "fails again" : "passes");
    return false;
}

static bool find_mutant(const char *name) {
    for (int m = 1; m < KLAWI_M_COUNT; m++)
        if (strcmp(klawi_mutant_name(m), name) == 0)
            klawi_mutant = m;
    if (!klawi_mutant)
        fprintf(stderr, "no mutant %s\n", name);
    return klawi_mutant != 0;
}

int interleave_main(void) {
    const char *slice = getenv("KLAW_TEST_SLICE"), *only = getenv("KLAW_SCENARIO");
    const char *seed = getenv("KLAW_SEED"), *mutant = getenv("KLAW_MUTANT");
    char exe[256] = "";
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    const char *name = len > 0 && strrchr(exe, '/') ? strrchr(exe, '/') + 1 : "program";
    uint64_t n = 2000, base = 1;
    if (slice && strcmp(slice, "ci") == 0)
        n = 20000;
    if (slice && strcmp(slice, "soak") == 0) {
        n = 200000;
        base = (uint64_t)time(NULL) << 20; /* others each time */
    }
    if (getenv("KLAW_SCHEDULES"))
        n = strtoull(getenv("KLAW_SCHEDULES"), NULL, 10);
    if (mutant && !find_mutant(mutant))
        return 2;
    int failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!seed)
        printf("seed: %llu and on, %llu schedules each\n", (unsigned long long)base,
               (unsigned long long)n);
    for (const struct scenario *s = first; s; s = s->next) {
        if (only && strcmp(only, s->name) != 0)
            continue;
        if (seed && only) {
            warm_up(s);
            if (getenv("KLAW_AFTER")) /* does it depend on what ran before? */
                for (uint64_t i = 1; i <= strtoull(getenv("KLAW_AFTER"), NULL, 10); i++)
                    one(s, i, 0);
            gate_k = getenv("KLAW_POINT") ? strtoull(getenv("KLAW_POINT"), NULL, 10) : 1;
            one(s, strtoull(seed, NULL, 10), getenv("KLAW_POINTS") ? 2 : 1);
            return 0;
        }
        if (seed)
            base = strtoull(seed, NULL, 10);
        failed += !scenario_passes(s, base, n, name);
    }
    if (failed)
        printf("%d scenarios failed\n", failed);
    return failed != 0;
}

/* --- helpers --------------------------------------------------------------------------------- */

vthread vthread_start(const char *name, void *(*fn)(void *), void *arg) {
    vthread t;
    KLAW_DET_CHECK(klawi_thread_start(&t.id, name, fn, arg) == KLAW_OK);
    return t;
}

void vthread_join(vthread t) {
    klawi_thread_join(t.id);
}

klaw_err run_err(klaw_fn fn) {
    return klaw_run(fn, NULL, &(klaw_run_opts){.workers = choose(4) ? 2 : 3});
}

static klaw_fn main_fn;
static klaw_err main_result;

static klaw_err main_wrapper(void *arg) {
    main_result = main_fn(arg);
    return main_result;
}

/* A fiber that returns an error makes klaw_run return it: here only main's result counts. */
void run(klaw_fn fn) {
    main_fn = fn;
    main_result = KLAW_SYSTEM;
    (void)run_err(main_wrapper);
    CHECK_ERR(main_result, KLAW_OK);
}

/* A worker wakes another one only when its queue has been waiting for some time (R3). That is too
 * seldom for scenarios this short: here the seed may do it at any operation. */
static void wake_another(uint32_t one_in) {
    klawi_runtime *rt = klawi_rt;
    if (rt && choose(one_in) == 0)
        klawi_wake_one(rt);
}

void go(klaw_fn fn, void *arg) {
    CHECK_ERR(klaw_go(fn, arg), KLAW_OK);
    wake_another(2);
}

klaw_fiber *spawn(klaw_fn fn, void *arg) {
    klaw_fiber *f = NULL;
    CHECK_ERR(klaw_spawn(NULL, fn, arg, NULL, &f), KLAW_OK);
    wake_another(2);
    return f;
}

klaw_err join(klaw_fiber *f) {
    klaw_err e = KLAW_SYSTEM;
    CHECK_ERR(klaw_join(f, &e, NULL, KLAW_FOREVER), KLAW_OK);
    return e;
}

void pass(void) {
    klaw_err e = klaw_yield();
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
}

uint32_t choose(uint32_t n) {
    return klawi_det_choose(n);
}

klaw_deadline soon(void) {
    static const int64_t ns[] = {1, 20000, 70000, 200000};
    return klaw_after(ns[choose(4)]);
}

static uint8_t account[2][256];

void account_open(void) {
    memset(account, 0, sizeof account);
}

void sent(uint64_t v) {
    KLAW_DET_CHECK(v < 256 && account[0][v] == 0);
    account[0][v]++;
}

void received(uint64_t v) {
    KLAW_DET_CHECK(v > 0 && v < 256 && account[1][v] == 0);
    account[1][v]++;
}

bool was_sent(uint64_t v) {
    return account[0][v] != 0;
}

bool was_received(uint64_t v) {
    return account[1][v] != 0;
}

klaw_err put(klaw_sender *tx, uint64_t v, klaw_deadline d) {
    uint64_t copy = v;
    wake_another(8);
    klaw_err e = klaw_send(tx, &copy, d);
    KLAW_DET_CHECK(copy == v); /* the caller's memory is only read */
    if (e == KLAW_OK)
        sent(v);
    return e;
}

klaw_err take(klaw_receiver *rx, uint64_t *v, klaw_deadline d) {
    uint64_t got = 0;
    wake_another(8);
    klaw_err e = klaw_recv(rx, &got, d);
    if (e == KLAW_OK)
        received(got);
    else
        KLAW_DET_CHECK(got == 0); /* written only on OK */
    if (v)
        *v = got;
    return e;
}

void drain(klaw_receiver *rx) {
    klaw_err e;
    while ((e = take(rx, NULL, KLAW_NOWAIT)) == KLAW_OK)
        ;
    KLAW_DET_CHECK(e == KLAW_EMPTY || e == KLAW_CLOSED);
}

void account_closed(void) {
    for (int v = 0; v < 256; v++)
        if (account[0][v] != account[1][v]) {
            fprintf(stderr, "element %d: sent %d times, received %d times\n", v, account[0][v],
                    account[1][v]);
            klawi_det_fail("the account does not balance", __FILE__, __LINE__);
        }
}
