/* SPDX-License-Identifier: Apache-2.0 */
/* executor.c - maps and tasks: rows 13 and 14.
 *
 * The tiny function is x -> x * x + 1 on 8-byte numbers, from one array to another; executor_map
 * calls it once an item, executor_map_chunked once a range that the executor chooses. */
#include "bench.h"

#define ITEMS 1000000u
#define MAPS 50u

typedef struct mapping {
    bool chunked;
    uint64_t *items, *results;
    double ns;
} mapping;

static klaw_err square(const void *item, void *result, void *arg) {
    (void)arg;
    uint64_t x = *(const uint64_t *)item;
    *(uint64_t *)result = x * x + 1;
    return KLAW_OK;
}

static klaw_err square_range(size_t begin, size_t end, void *arg) {
    const mapping *m = arg;
    for (size_t i = begin; i < end; i++)
        m->results[i] = m->items[i] * m->items[i] + 1;
    return KLAW_OK;
}

static void map_once(klaw_executor *ex, mapping *m) {
    if (m->chunked)
        MUST(klaw_map_range(ex, square_range, m, ITEMS, NULL));
    else
        MUST(klaw_map(ex, square, m, m->items, sizeof *m->items, ITEMS, m->results,
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
        want += i * i + 1;
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

#define IN_FLIGHT 1000u
#define TASKS 5000000u

static klaw_err give_back(void *arg) {
    klaw_set_value(arg);
    return KLAW_OK;
}

static klaw_err submit_main(void *arg) {
    double *ns = arg;
    klaw_executor *ex;
    klaw_task **t = calloc(IN_FLIGHT, sizeof *t);
    uint64_t sum = 0;
    if (t == NULL)
        return KLAW_NOMEM;
    MUST(klaw_executor_open(NULL, &ex));
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < TASKS + IN_FLIGHT; i++) {
        klaw_task **at = &t[i % IN_FLIGHT];
        if (*at != NULL) {
            klaw_err e = KLAW_OK;
            void *value = NULL;
            MUST(klaw_task_join(*at, KLAW_FOREVER, &e, &value));
            MUST(e);
            sum += (uintptr_t)value;
            klaw_task_unref(*at);
        }
        *at = NULL;
        if (i < TASKS)
            MUST(klaw_submit(ex, give_back, (void *)(uintptr_t)i, NULL, at));
    }
    *ns = bench_per_op(start, TASKS);
    MUST(klaw_executor_close(ex, KLAW_FOREVER, NULL));
    klaw_executor_unref(ex);
    free(t);
    bench_check(sum, bench_sum(TASKS));
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
