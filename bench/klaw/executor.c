/* SPDX-License-Identifier: Apache-2.0 */
/* executor.c - maps and tasks: rows 13 and 14.
 *
 * The tiny function is that of the peers: it triples a number, from one array to another, and is
 * not inlined. executor_map gives each item to the executor, executor_map_chunked ranges that the
 * executor chooses. */
#include "bench.h"

#include "klaw/executor.h"

#define ITEMS 1000000u
#define MAPS 100u

typedef struct mapping {
    bool chunked;
    uint64_t *items, *results;
    double ns;
} mapping;

static __attribute__((noinline)) uint64_t triple(uint64_t x) {
    __asm__ volatile(""); /* or its calls are merged */
    return 3 * x;
}

static klaw_err triple_item(const void *item, void *result, void *arg) {
    (void)arg;
    *(uint64_t *)result = triple(*(const uint64_t *)item);
    return KLAW_OK;
}

static klaw_err triple_range(size_t begin, size_t end, void *arg) {
    const mapping *m = arg;
    for (size_t i = begin; i < end; i++)
        m->results[i] = triple(m->items[i]);
    return KLAW_OK;
}

static void map_once(klaw_executor *ex, mapping *m) {
    if (m->chunked)
        MUST(klaw_map_range(ex, triple_range, m, ITEMS, NULL));
    else
        MUST(klaw_map(ex, triple_item, m, m->items, sizeof *m->items, ITEMS, m->results,
                      sizeof *m->results, NULL, NULL));
}

static klaw_err map_main(void *arg) {
    mapping *m = arg;
    klaw_executor *ex;
    uint64_t sum = 0, want = 0;
    MUST(klaw_executor_open(NULL, &ex));
    map_once(ex, m); /* touches the pages */
    memset(m->results, 0, ITEMS * sizeof *m->results);
    int64_t start = klaw_now();
    for (uint64_t r = 0; r < MAPS; r++)
        map_once(ex, m);
    m->ns = bench_per_op(start, (uint64_t)MAPS * ITEMS);
    MUST(klaw_executor_close(ex, KLAW_FOREVER, NULL));
    klaw_executor_unref(ex);
    for (uint64_t i = 0; i < ITEMS; i++) {
        sum += m->results[i];
        want += 3 * i;
    }
    bench_check(sum, want);
    return KLAW_OK;
}

static double map_run(bool chunked) {
    mapping m = {.chunked = chunked,
                 .items = malloc(ITEMS * sizeof *m.items),
                 .results = malloc(ITEMS * sizeof *m.results)};
    if (m.items == NULL || m.results == NULL)
        bench_fail(__LINE__, KLAW_NOMEM);
    for (uint64_t i = 0; i < ITEMS; i++)
        m.items[i] = i;
    bench_run(map_main, &m, 2);
    free(m.items);
    free(m.results);
    return m.ns;
}

static double executor_map(void) {
    return map_run(false);
}
static double executor_map_chunked(void) {
    return map_run(true);
}

/* ---- submit and join, 1000 in flight ---- */

#define ROUNDS 5000u
#define EACH 1000u

static klaw_err give_back(void *arg) {
    klaw_set_value((void *)(uintptr_t)triple((uintptr_t)arg));
    return KLAW_OK;
}

static klaw_err submit_main(void *arg) {
    double *ns = arg;
    klaw_executor *ex;
    klaw_task *t[EACH];
    uint64_t sum = 0;
    MUST(klaw_executor_open(NULL, &ex));
    int64_t start = klaw_now();
    for (uint64_t r = 0; r < ROUNDS; r++) {
        for (uint64_t i = 0; i < EACH; i++)
            MUST(klaw_submit(ex, give_back, (void *)(uintptr_t)i, NULL, &t[i]));
        for (uint64_t i = 0; i < EACH; i++) {
            klaw_err e = KLAW_OK;
            void *value = NULL;
            MUST(klaw_task_join(t[i], KLAW_FOREVER, &e, &value));
            MUST(e);
            sum += (uintptr_t)value;
            klaw_task_unref(t[i]);
        }
    }
    *ns = bench_per_op(start, (uint64_t)ROUNDS * EACH);
    MUST(klaw_executor_close(ex, KLAW_FOREVER, NULL));
    klaw_executor_unref(ex);
    bench_check(sum, 3 * ROUNDS * bench_sum(EACH));
    return KLAW_OK;
}

static double executor_submit(void) {
    double ns = 0;
    bench_run(submit_main, &ns, 2);
    return ns;
}

static const bench_job jobs[] = {
    {"executor_map", "klaw", executor_map},
    {"executor_map_chunked", "klaw", executor_map_chunked},
    {"executor_submit", "klaw", executor_submit},
};

BENCH_MAIN(jobs)
