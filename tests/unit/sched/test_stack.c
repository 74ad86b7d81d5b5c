/* SPDX-License-Identifier: Apache-2.0 */
/* test_stack.c - stacks of fibers: sizes, deep recursion, very many of them, what a parked one
 * costs. */
#include <unistd.h>

#include "support/random.h"
#include "support/runs.h"

/* --- sizes --- */
/* Uses about `left` bytes of stack, and yields at the bottom. */
static __attribute__((noinline)) uint64_t dig(size_t left) {
    volatile char frame[1024];
    frame[0] = frame[sizeof frame - 1] = (char)left;
    if (left <= sizeof frame * 2) {
        OK(klaw_yield());
        return 1;
    }
    uint64_t deeper = dig(left - sizeof frame);
    return deeper + (uint64_t)(frame[0] == (char)left && frame[sizeof frame - 1] == (char)left);
}

static klaw_err digs(void *arg) {
    CHECK(dig((size_t)(uintptr_t)arg) > 0);
    return KLAW_OK;
}

RUNS(a_stack_is_as_large_as_asked, 2) {
    static const size_t kib[] = {16, 20, 64, 256, 300, 1024, 8192, 65536};
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++)
        for (int unguarded = 0; unguarded < 2; unguarded++) {
            klaw_fiber_opts o = {.stack_size = kib[i] * 1024, .unguarded = unguarded};
            size_t use = kib[i] * 1024 / (SANITIZED ? 4 : 1) * 3 / 4;
            if (SANITIZED && kib[i] < 64)
                use = 2048;
            klaw_fiber *f[4];
            for (int k = 0; k < 4; k++)
                f[k] = fiber_with(o, digs, (void *)(uintptr_t)use);
            for (int k = 0; k < 4; k++)
                OK(result_of(f[k]));
        }
}

static klaw_err digs_and_asks_for_more(void *arg) {
    OK(result_of(fiber(digs, arg)));
    return digs(arg);
}

PLAIN(the_runs_stack_size_is_the_default_of_its_fibers) {
    klaw_run_opts o = {.workers = 2, .stack_size = 4 << 20};
    OK(klaw_run(digs_and_asks_for_more, (void *)(uintptr_t)(SANITIZED ? 1 << 19 : 3 << 20), &o));
    o.stack_size = 32 << 10;
    OK(klaw_run(digs_and_asks_for_more, (void *)(uintptr_t)(SANITIZED ? 4096 : 20 << 10), &o));
}

RUNS(the_largest_stack_there_is, 1) {
    klaw_fiber_opts o = {.stack_size = (size_t)1 << 30};
    klaw_fiber *f = NULL;
    klaw_err e = klaw_spawn(NULL, digs, (void *)(uintptr_t)(8 << 20), &o, &f);
    if (e == KLAW_OK)
        OK(result_of(f));
    else
        GIVES(e, KLAW_NOMEM); /* address space may be limited here */
}

/* A stack goes from fiber to fiber of different sizes and kinds; each is whole. */
static klaw_err fills_and_yields(void *arg) {
    volatile uint64_t mine[512];
    uint64_t me = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < 512; i++)
        mine[i] = me * 1000 + (uint64_t)i;
    for (int k = 0; k < 5; k++) {
        OK(klaw_yield());
        for (int i = 0; i < 512; i++)
            SAME(mine[i], me * 1000 + (uint64_t)i);
    }
    return KLAW_OK;
}

RUNS(stacks_of_all_kinds_in_disorder, 2) {
    rng r = {seed_begin()};
    static const size_t sizes[] = {0, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
    for (uint64_t round = 0; round < rounds(20); round++) {
        klaw_scope *s = SCOPE(0);
        for (uintptr_t i = 1; i <= 200; i++) {
            klaw_fiber_opts o = {.stack_size = sizes[rng_below(&r, 5)],
                                 .unguarded = rng_one_in(&r, 3),
                                 .pinned = rng_one_in(&r, 5),
                                 .fpenv = rng_one_in(&r, 5),
                                 .name = rng_one_in(&r, 2) ? "disorder" : NULL};
            OK(klaw_spawn(NULL, fills_and_yields, (void *)i, &o, NULL));
        }
        OK(klaw_scope_close(s));
    }
}

/* --- very many --- */
static size_t resident(void) {
    size_t all = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    CHECK(f && fscanf(f, "%zu %zu", &all, &rss) == 2);
    fclose(f);
    return rss * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t mappings(void) {
    size_t n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    CHECK(f);
    for (int c; (c = getc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

typedef struct many {
    size_t wanted, made, cost, maps;
    _Atomic size_t parking;
    bool unguarded;
} many;

static klaw_err counts_and_parks(void *arg) {
    atomic_fetch_add(&((many *)arg)->parking, 1);
    return klaw_sleep(KLAW_FOREVER);
}

static klaw_err parks_many(void *arg) {
    many *m = arg;
    klaw_scope *s = SCOPE(0);
    klaw_fiber_opts o = {.unguarded = m->unguarded};
    klaw_err e = KLAW_OK;
    size_t before = resident();
    while (m->made < m->wanted && (e = klaw_spawn(s, counts_and_parks, m, &o, NULL)) == KLAW_OK)
        m->made++;
    CHECK(e == KLAW_OK || e == KLAW_NOMEM);
    UNTIL(atomic_load(&m->parking) == m->made);
    m->cost = m->made ? (resident() - before) / m->made : 0;
    m->maps = mappings();
    klaw_scope_cancel(s, "enough");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    return KLAW_OK;
}

static void park(many *m) {
    klaw_run_opts o = {.workers = 2};
    OK(klaw_run(parks_many, m, &o));
    printf("%zu of %zu parked, %zu bytes each, %zu mappings\n", m->made, m->wanted, m->cost,
           m->maps);
}

PLAIN(a_parked_fiber_costs_a_page_and_little_more) {
    many m = {.wanted = SANITIZED ? 4000 : 10000}; /* TSan takes 8128 threads */
    size_t n = m.wanted;
    park(&m);
    SAME(m.made, n);
#if defined(NDEBUG) && !SANITIZED
    CHECK(m.cost <= 4600);
#endif
}

/* All of them, or NOMEM and nothing lost; the guards take no mappings away from the rest of the
 * process. */
PLAIN(a_million_fibers_park) {
    const char *slice = getenv("KLAW_TEST_SLICE");
    many m = {.wanted = SANITIZED ? 4000 : slice && strcmp(slice, "soak") == 0 ? 1000000 : 200000};
    if (slice && strcmp(slice, "valgrind") == 0)
        m.wanted = 2000;
    park(&m);
    CHECK(m.maps < 60000);
    m = (many){.wanted = m.wanted, .unguarded = true};
    park(&m);
}

static _Atomic uint64_t ended;

static klaw_err ends_at_once(void *arg) {
    (void)arg;
    atomic_fetch_add_explicit(&ended, 1, memory_order_relaxed);
    return KLAW_OK;
}

static klaw_err spawns_a_million(void *arg) {
    uint64_t n = *(uint64_t *)arg;
    for (uint64_t i = 0; i < n; i++)
        OK(klaw_go(ends_at_once, NULL));
    return KLAW_OK;
}

PLAIN(a_million_fibers_run) {
    for (uint32_t w = 1; w <= 2; w++) {
        klaw_run_opts o = {.workers = w};
        uint64_t n = rounds(SANITIZED ? 20000 : 1000000);
        atomic_store(&ended, 0);
        OK(klaw_run(spawns_a_million, &n, &o));
        SAME(ended, n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_stack_is_as_large_as_asked),
        TEST(the_runs_stack_size_is_the_default_of_its_fibers),
        TEST(the_largest_stack_there_is),
        TEST(stacks_of_all_kinds_in_disorder),
        TEST(a_parked_fiber_costs_a_page_and_little_more),
        TEST(a_million_fibers_park),
        TEST(a_million_fibers_run),
    };
    return cmocka_run_group_tests_name("stack", tests, NULL, NULL);
}
