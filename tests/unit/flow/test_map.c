/* SPDX-License-Identifier: Apache-2.0 */
/* test_map.c - maps over arrays and ranges, and as iterators. */
#include "klaw/executor.h"
#include "support/random.h"
#include "support/runs.h"

static klaw_executor *open_with(klaw_executor_opts o) {
    klaw_executor *ex = NULL;
    OK(klaw_executor_open(&o, &ex));
    return ex;
}
#define EXECUTOR(...) open_with((klaw_executor_opts){__VA_ARGS__})

static void done_with(klaw_executor *ex) {
    OK(klaw_executor_close(ex, KLAW_WITHIN(SOON_NS), NULL));
    klaw_executor_unref(ex);
}

static klaw_err doubles(const void *item, void *result, void *arg) {
    uint32_t x = *(const uint32_t *)item;
    (void)arg;
    *(uint64_t *)result = 2ull * x;
    return KLAW_OK;
}

static uint32_t *numbers(size_t n) {
    uint32_t *x = malloc((n + 1) * sizeof *x);
    CHECK(x);
    for (size_t i = 0; i < n; i++)
        x[i] = (uint32_t)i;
    return x;
}

static void map_of(klaw_executor *ex, size_t n, klaw_map_opts o) {
    uint32_t *items = numbers(n);
    uint64_t *results = calloc(n + 1, sizeof *results);
    klaw_err *errors = malloc((n + 1) * sizeof *errors);
    memset(errors, 0xff, (n + 1) * sizeof *errors);
    OK(klaw_map(ex, doubles, NULL, items, sizeof *items, n, results, sizeof *results, errors, &o));
    for (size_t i = 0; i < n; i++) {
        SAME(results[i], 2 * i);
        OK(errors[i]);
    }
    free(items);
    free(results);
    free(errors);
}

RUNS(results_stand_in_the_order_of_the_items, 2) {
    klaw_executor *ex = EXECUTOR(.name = "map");
    for (size_t n = 0; n < 20; n++)
        map_of(ex, n, (klaw_map_opts){0});
    map_of(ex, 100000, (klaw_map_opts){0});
    map_of(ex, 1000, (klaw_map_opts){.chunk = 1});
    map_of(ex, 1000, (klaw_map_opts){.chunk = 7, .concurrency = 1});
    map_of(ex, 1000, (klaw_map_opts){.chunk = 100000});
    done_with(ex);
}

/* Fails, waits or computes, as the item says. */
static _Atomic int begun, inside, most;
static gate G;
enum { FINE, FAILS, WAITS, PARKS, BURNS };

static klaw_err acts(const void *item, void *result, void *arg) {
    int now = atomic_fetch_add(&inside, 1) + 1, seen = atomic_load(&most);
    klaw_err e = KLAW_OK;
    (void)result;
    (void)arg;
    atomic_fetch_add(&begun, 1);
    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
        ;
    switch (*(const int *)item) {
    case FAILS: e = KLAW_NOT_FOUND; break;
    case WAITS: e = gate_wait(&G) == KLAW_CLOSED ? KLAW_OK : KLAW_CANCELLED; break;
    case PARKS: e = klaw_sleep(KLAW_FOREVER); break;
    case BURNS: /* keeps its worker until another one has come */
        for (int64_t until = klaw_now() + SOON_NS; atomic_load(&most) < 2 && klaw_now() < until;)
            compute(KLAW_US(10));
        break;
    default: break;
    }
    atomic_fetch_sub(&inside, 1);
    return e;
}

static void forget(void) {
    atomic_store(&begun, 0);
    atomic_store(&most, 0);
    CHECK(atomic_load(&inside) == 0);
}

RUNS(an_items_error_is_its_own, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    int items[200] = {0};
    klaw_err errors[200];
    forget();
    items[17] = items[150] = FAILS;
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 200, NULL, 0, errors, NULL),
          KLAW_NOT_FOUND);
    for (int i = 0; i < 200; i++)
        GIVES(errors[i], i == 17 || i == 150 ? KLAW_NOT_FOUND : KLAW_OK);
    SAME(begun, 200);
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 200, NULL, 0, NULL, NULL), KLAW_NOT_FOUND);
    done_with(ex);
}

static klaw_err opens_the_gate(void *arg) {
    UNTIL(atomic_load(&inside) == (int)(intptr_t)arg);
    gate_open(&G);
    return KLAW_OK;
}

RUNS(items_that_wait_wait_together, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 8);
    int items[100];
    for (int i = 0; i < 100; i++)
        items[i] = i >= 50 ? WAITS : FINE; /* the first ones are quick: chunks grow */
    G = gate_make();
    forget();
    klaw_fiber *f = fiber(opens_the_gate, (void *)(intptr_t)8);
    OK(klaw_map(ex, acts, NULL, items, sizeof *items, 100, NULL, 0, NULL, NULL));
    OK(result_of(f));
    CHECK(most <= 8);
    SAME(begun, 100);
    gate_free(&G);
    done_with(ex);
}

RUNS(a_map_keeps_to_its_own_bound, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 8);
    int items[60];
    for (int i = 0; i < 60; i++)
        items[i] = WAITS;
    G = gate_make();
    forget();
    klaw_fiber *f = fiber(opens_the_gate, (void *)(intptr_t)3);
    OK(klaw_map(ex, acts, NULL, items, sizeof *items, 60, NULL, 0, NULL,
                &(klaw_map_opts){.concurrency = 3}));
    OK(result_of(f));
    CHECK(most <= 3);
    gate_free(&G);
    done_with(ex);
}

RUNS(the_first_error_cancels_the_rest_when_asked, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    int items[100];
    klaw_err errors[100];
    for (int i = 0; i < 100; i++)
        items[i] = i == 2 ? FAILS : PARKS;
    forget();
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 100, NULL, 0, errors,
                   &(klaw_map_opts){.cancel_on_error = true}),
          KLAW_NOT_FOUND);
    for (int i = 0; i < 100; i++)
        GIVES(errors[i], i == 2 ? KLAW_NOT_FOUND : KLAW_CANCELLED);
    CHECK(begun <= 5);
    for (int i = 0; i < 100; i++) /* its fibers are as good as new */
        items[i] = FINE;
    OK(klaw_map(ex, acts, NULL, items, sizeof *items, 100, NULL, 0, errors, NULL));
    done_with(ex);
}

RUNS(a_map_has_a_deadline, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    int items[10] = {FINE, PARKS, PARKS, PARKS, PARKS, PARKS, PARKS, PARKS, PARKS, PARKS};
    klaw_err errors[10];
    forget();
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 10, NULL, 0, errors,
                   &(klaw_map_opts){.deadline = KLAW_WITHIN(KLAW_MS(2))}),
          KLAW_TIMEOUT);
    CHECK(errors[0] == (begun ? KLAW_OK : KLAW_TIMEOUT));
    for (int i = 1; i < 10; i++)
        GIVES(errors[i], KLAW_TIMEOUT);
    forget();
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 10, NULL, 0, errors,
                   &(klaw_map_opts){.deadline = KLAW_NOWAIT}),
          KLAW_TIMEOUT);
    GIVES(errors[0], KLAW_TIMEOUT);
    SAME(begun, 0);
    done_with(ex);
}

static klaw_err maps_parkers(void *arg) {
    int items[20];
    klaw_err errors[20];
    for (int i = 0; i < 20; i++)
        items[i] = PARKS;
    klaw_err e = klaw_map(arg, acts, NULL, items, sizeof *items, 20, NULL, 0, errors, NULL);
    for (int i = 0; i < 20; i++)
        GIVES(errors[i], KLAW_CANCELLED);
    SAME(inside, 0); /* never returns while an item runs */
    return e;
}

RUNS(cancelling_the_caller_cancels_the_map, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    forget();
    klaw_fiber *f = fiber(maps_parkers, ex);
    UNTIL(atomic_load(&inside) == 4);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
    f = fiber(maps_parkers, ex); /* and so does cancelling the executor's work */
    UNTIL(atomic_load(&inside) == 4);
    klaw_executor_cancel(ex, "stop");
    GIVES(result_of(f), KLAW_CANCELLED);
    done_with(ex);
}

RUNS(a_scope_that_is_cancelled_cancels_the_map, 2) {
    klaw_scope *outer = klaw_scope_current(), *s = SCOPE(.name = "s");
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    forget();
    klaw_fiber *f = fiber_in(outer, maps_parkers, ex);
    UNTIL(atomic_load(&inside) == 4);
    klaw_scope_cancel(s, "stop");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(result_of(f), KLAW_CANCELLED);
    int item = FINE;
    GIVES(klaw_map(ex, acts, NULL, &item, sizeof item, 1, NULL, 0, NULL, NULL), KLAW_STOPPED);
    done_with(ex);
}

RUNS(long_items_use_all_workers, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 8);
    int items[4] = {BURNS, BURNS, BURNS, BURNS};
    forget();
    OK(klaw_map(ex, acts, NULL, items, sizeof *items, 4, NULL, 0, NULL, NULL));
    SAME(begun, 4);
    SAME(most, 2);
    done_with(ex);
}

static klaw_err off_the_workers(const void *item, void *result, void *arg) {
    (void)item;
    (void)arg;
    *(bool *)result = klaw_self_id() == 0;
    return KLAW_OK;
}

static klaw_err third_time(const void *item, void *result, void *arg) {
    (void)item;
    (void)arg;
    return ++*(int *)result == 3 ? KLAW_OK : KLAW_SYSTEM;
}

RUNS(the_executors_defaults_apply_to_each_item, 2) {
    klaw_retry_opts r = {.backoff = {.base = KLAW_NONE}};
    klaw_executor *ex = EXECUTOR(.concurrency = 2, .task = {.blocking = 1, .retry = &r});
    bool off[5] = {0};
    int tries[5] = {0};
    OK(klaw_map(ex, off_the_workers, NULL, NULL, 0, 5, off, sizeof *off, NULL, NULL));
    OK(klaw_map(ex, third_time, NULL, NULL, 0, 5, tries, sizeof *tries, NULL, NULL));
    for (int i = 0; i < 5; i++) {
        CHECK(off[i]);
        SAME(tries[i], 3);
    }
    done_with(ex);
}

static klaw_err same_request(size_t begin, size_t end, void *arg) {
    const char *id = klaw_context_request_id(klaw_context_current());
    (void)SCOPE(.name = "left open");
    (void)begin;
    (void)end;
    return id && strcmp(id, arg) == 0 ? KLAW_OK : KLAW_INVALID;
}

RUNS(a_map_has_its_callers_context, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 2);
    klaw_context *c;
    klaw_context_token token;
    char id[] = "r-1";
    OK(klaw_context_with_request_id(NULL, id, &c));
    OK(klaw_context_enter(c, &token));
    OK(klaw_map_range(ex, same_request, id, 100, NULL));
    klaw_context_leave(&token);
    klaw_context_unref(c);
    GIVES(klaw_map_range(ex, same_request, id, 1, NULL), KLAW_INVALID);
    done_with(ex);
}

RUNS(wrong_maps_are_refused, 1) {
    klaw_executor *ex = EXECUTOR(.name = NULL);
    int x = 0;
    GIVES(klaw_map(NULL, doubles, NULL, &x, 4, 1, NULL, 0, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_map(ex, NULL, NULL, &x, 4, 1, NULL, 0, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_map(ex, doubles, NULL, NULL, 4, 1, NULL, 0, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_map(ex, doubles, NULL, &x, 4, 1, NULL, 8, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_map_range(ex, NULL, NULL, 1, NULL), KLAW_INVALID);
    GIVES(klaw_map_range(NULL, same_request, NULL, 1, NULL), KLAW_INVALID);
    klaw_executor_shut(ex);
    GIVES(klaw_map_range(ex, same_request, NULL, 1, NULL), KLAW_CLOSED);
    done_with(ex);
}

/* --- ranges --- */

static _Atomic uint8_t seen[50000];

static klaw_err marks(size_t begin, size_t end, void *arg) {
    CHECK(begin < end);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add_explicit(&seen[i], 1, memory_order_relaxed);
    return begin <= 777 && 777 < end && arg ? KLAW_LIMIT : KLAW_OK;
}

RUNS(ranges_cover_each_number_once, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    memset((void *)seen, 0, sizeof seen);
    OK(klaw_map_range(ex, marks, NULL, sizeof seen, NULL));
    OK(klaw_map_range(ex, marks, NULL, sizeof seen, &(klaw_map_opts){.chunk = 333}));
    for (size_t i = 0; i < sizeof seen; i++)
        SAME(seen[i], 2);
    OK(klaw_map_range(ex, marks, NULL, 0, NULL));
    GIVES(klaw_map_range(ex, marks, ex, sizeof seen, NULL), KLAW_LIMIT);
    done_with(ex);
}

static klaw_err maps_on_a_thread(void *arg) {
    klaw_executor *ex = arg;
    uint32_t *items = numbers(5000);
    uint64_t *results = calloc(5000, sizeof *results);
    OK(klaw_map(ex, doubles, NULL, items, sizeof *items, 5000, results, sizeof *results, NULL,
                NULL));
    for (uint64_t i = 0; i < 5000; i++)
        SAME(results[i], 2 * i);
    free(items);
    free(results);
    return KLAW_OK;
}

RUNS(many_callers_share_an_executor, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 3);
    thread_job j[2];
    klaw_fiber *f[4];
    for (int i = 0; i < 2; i++)
        thread_start(&j[i], maps_on_a_thread, ex);
    for (int i = 0; i < 4; i++)
        f[i] = fiber(maps_on_a_thread, ex);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
    for (int i = 0; i < 2; i++)
        OK(thread_end(&j[i]));
    done_with(ex);
}

/* Random kinds of items, chunks and bounds; every item runs exactly once. */
RUNS(random_maps_run_each_item_once, 2) {
    rng r = rng_part(seed_begin(), 0);
    klaw_executor *ex = EXECUTOR(.concurrency = 5);
    G = gate_make();
    gate_open(&G); /* who waits is let through, after a park or without */
    uint64_t maps = rounds(200);
    for (uint64_t m = 0; m < maps; m++) {
        int items[300];
        klaw_err errors[300];
        size_t n = rng_below(&r, 300);
        int failing = 0;
        for (size_t i = 0; i < n; i++) {
            items[i] = rng_one_in(&r, 50) ? FAILS : rng_one_in(&r, 10) ? WAITS : FINE;
            failing += items[i] == FAILS;
        }
        forget();
        GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, n, NULL, 0, errors,
                       &(klaw_map_opts){.chunk = rng_below(&r, 3) * rng_below(&r, 20),
                                        .concurrency = rng_below(&r, 4)}),
              failing ? KLAW_NOT_FOUND : KLAW_OK);
        SAME(begun, n);
        for (size_t i = 0; i < n; i++)
            GIVES(errors[i], items[i] == FAILS ? KLAW_NOT_FOUND : KLAW_OK);
    }
    gate_free(&G);
    done_with(ex);
}

static _Atomic int range_calls;

static klaw_err second_time(size_t begin, size_t end, void *arg) {
    CHECK(klaw_self_id() == 0); /* on a thread for blocking */
    CHECK(begin < end && !arg);
    return atomic_fetch_add(&range_calls, 1) == 0 ? KLAW_SYSTEM : KLAW_OK;
}

RUNS(the_executors_defaults_apply_to_each_range, 2) {
    klaw_retry_opts r = {.backoff = {.base = KLAW_NONE}};
    klaw_executor *ex = EXECUTOR(.concurrency = 2, .task = {.blocking = 1, .retry = &r});
    atomic_store(&range_calls, 0);
    OK(klaw_map_range(ex, second_time, NULL, 5, &(klaw_map_opts){.chunk = 5}));
    SAME(range_calls, 2);
    done_with(ex);
}

RUNS(a_map_that_waits_for_its_turn_is_cancelled, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    int item = PARKS;
    forget();
    OK(klaw_submit(ex, parks, NULL, NULL, NULL));
    klaw_fiber *f = fiber(maps_parkers, ex);
    UNTIL(waiting("fiber", "executor") == 1);
    klaw_executor_cancel(ex, "stop");
    GIVES(result_of(f), KLAW_CANCELLED);
    SAME(begun, 0);
    OK(klaw_submit(ex, parks, NULL, NULL, NULL));
    GIVES(klaw_map(ex, acts, NULL, &item, sizeof item, 1, NULL, 0, NULL,
                   &(klaw_map_opts){.deadline = KLAW_WITHIN(KLAW_MS(1))}),
          KLAW_TIMEOUT);
    SAME(begun, 0);
    GIVES(klaw_executor_close(ex, KLAW_NOWAIT, NULL), KLAW_TIMEOUT);
    klaw_executor_unref(ex);
}

RUNS(the_rest_of_a_chunk_that_fails_is_not_begun, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 1);
    int items[20] = {FINE, FINE, FAILS};
    klaw_err errors[20];
    forget();
    GIVES(klaw_map(ex, acts, NULL, items, sizeof *items, 20, NULL, 0, errors,
                   &(klaw_map_opts){.cancel_on_error = true, .chunk = 10}),
          KLAW_NOT_FOUND);
    SAME(begun, 3);
    for (int i = 0; i < 20; i++)
        GIVES(errors[i], i < 2 ? KLAW_OK : i == 2 ? KLAW_NOT_FOUND : KLAW_CANCELLED);
    done_with(ex);
}

/* --- iterators --- */

static klaw_imap *iterate(klaw_executor *ex, klaw_map_fn fn, klaw_imap_opts o) {
    klaw_imap *it = NULL;
    OK(klaw_imap_open(ex, fn, NULL, &o, &it));
    return it;
}

RUNS(an_iterator_gives_results_in_order, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    uint32_t *items = numbers(500);
    klaw_imap_item at;
    uint64_t result;
    klaw_imap *it = iterate(ex, doubles,
                            (klaw_imap_opts){.items = items,
                                             .n = 500,
                                             .item_size = 4,
                                             .result_size = 8,
                                             .ordered = true,
                                             .in_flight = 7});
    for (uint64_t i = 0; i < 500; i++) {
        OK(klaw_imap_next(it, &result, &at, KLAW_WITHIN(SOON_NS)));
        SAME(at.index, i);
        OK(at.error);
        SAME(result, 2 * i);
    }
    GIVES(klaw_imap_next(it, &result, &at, KLAW_FOREVER), KLAW_CLOSED);
    GIVES(klaw_imap_next(it, NULL, NULL, KLAW_FOREVER), KLAW_CLOSED);
    klaw_imap_close(it);
    free(items);
    done_with(ex);
}

RUNS(an_iterator_gives_results_as_they_finish, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    int items[20] = {WAITS};
    klaw_imap_item at;
    bool got[20] = {0};
    G = gate_make();
    forget();
    klaw_imap *it = iterate(
        ex, acts,
        (klaw_imap_opts){.items = items, .n = 20, .item_size = sizeof *items, .in_flight = 3});
    for (int i = 1; i < 20; i++) { /* all but the first, which waits */
        OK(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS)));
        CHECK(at.index > 0 && !got[at.index]);
        got[at.index] = true;
    }
    GIVES(klaw_imap_next(it, NULL, &at, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    gate_open(&G);
    OK(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS)));
    SAME(at.index, 0);
    GIVES(klaw_imap_next(it, NULL, &at, KLAW_FOREVER), KLAW_CLOSED);
    klaw_imap_close(it);
    gate_free(&G);
    done_with(ex);
}

typedef struct source {
    uint32_t made, last;
    klaw_err end;
} source;

static klaw_err makes(void *item, void *user) {
    source *s = user;
    if (s->made == s->last)
        return s->end;
    *(uint32_t *)item = s->made++;
    return KLAW_OK;
}

RUNS(a_source_is_asked_no_faster_than_allowed, 2) {
    klaw_executor *ex = EXECUTOR(.concurrency = 4);
    source s = {0, 50, KLAW_CORRUPT};
    uint64_t sum = 0, result;
    klaw_imap_item at;
    klaw_imap *it =
        iterate(ex, doubles,
                (klaw_imap_opts){
                    .next = makes, .user = &s, .item_size = 4, .result_size = 8, .in_flight = 5});
    SAME(s.made, 0);
    for (uint32_t i = 0; i < 50; i++) {
        OK(klaw_imap_next(it, &result, &at, KLAW_WITHIN(SOON_NS)));
        CHECK(s.made <= i + 5);
        sum += result;
    }
    SAME(sum, 50 * 49);
    GIVES(klaw_imap_next(it, &result, &at, KLAW_FOREVER), KLAW_CORRUPT);
    GIVES(klaw_imap_next(it, &result, &at, KLAW_FOREVER), KLAW_CORRUPT);
    klaw_imap_close(it);
    done_with(ex);
}

static void cuts_an_iterator(bool ordered) {
    klaw_executor *ex = EXECUTOR(.concurrency = 3);
    int items[20] = {FINE, FINE};
    klaw_imap_item at;
    for (int i = 2; i < 20; i++)
        items[i] = PARKS;
    forget();
    klaw_imap *it = iterate(ex, acts,
                            (klaw_imap_opts){.items = items,
                                             .n = 20,
                                             .item_size = sizeof *items,
                                             .ordered = ordered,
                                             .in_flight = 6});
    OK(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS)));
    UNTIL(atomic_load(&inside) == 3);
    klaw_imap_close(it);
    SAME(inside, 0);
    CHECK(begun <= 5);
    done_with(ex);
}

RUNS(closing_an_iterator_cancels_what_is_in_flight, 2) {
    cuts_an_iterator(false);
    cuts_an_iterator(true);
}

RUNS(an_iterators_items_have_options, 2) {
    klaw_retry_opts r = {.attempts = 2, .backoff = {.base = KLAW_NONE}};
    klaw_executor *ex = EXECUTOR(.concurrency = 3);
    int items[3] = {FAILS, FINE, PARKS};
    static const klaw_err want[3] = {KLAW_NOT_FOUND, KLAW_OK, KLAW_TIMEOUT};
    klaw_imap_item at;
    forget();
    klaw_imap *it = iterate(ex, acts,
                            (klaw_imap_opts){.items = items,
                                             .n = 2,
                                             .item_size = sizeof *items,
                                             .ordered = true,
                                             .task = {.retry = &r}});
    for (int i = 0; i < 2; i++) {
        OK(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS)));
        GIVES(at.error, want[i]);
    }
    SAME(begun, 3);
    klaw_imap_close(it);
    it = iterate(ex, acts,
                 (klaw_imap_opts){.items = items + 2,
                                  .n = 1,
                                  .item_size = sizeof *items,
                                  .task = {.deadline = KLAW_WITHIN(KLAW_MS(1))}});
    OK(klaw_imap_next(it, NULL, &at, KLAW_WITHIN(SOON_NS)));
    GIVES(at.error, want[2]);
    klaw_imap_close(it);
    done_with(ex);
}

RUNS(an_iterator_over_a_closed_executor, 1) {
    klaw_executor *ex = EXECUTOR(.concurrency = 3);
    klaw_imap *it = iterate(ex, doubles, (klaw_imap_opts){.n = 3, .result_size = 8});
    GIVES(klaw_imap_open(NULL, doubles, NULL, NULL, &it), KLAW_INVALID);
    GIVES(klaw_imap_open(ex, NULL, NULL, NULL, &it), KLAW_INVALID);
    GIVES(klaw_imap_open(ex, doubles, NULL, &(klaw_imap_opts){.n = 3, .item_size = 4}, &it),
          KLAW_INVALID);
    GIVES(klaw_imap_next(NULL, NULL, NULL, KLAW_NOWAIT), KLAW_INVALID);
    klaw_executor_shut(ex);
    GIVES(klaw_imap_next(it, NULL, NULL, KLAW_NOWAIT), KLAW_STOPPED);
    klaw_imap_close(it);
    klaw_imap_close(NULL);
    done_with(ex);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(results_stand_in_the_order_of_the_items),
        TEST(an_items_error_is_its_own),
        TEST(items_that_wait_wait_together),
        TEST(a_map_keeps_to_its_own_bound),
        TEST(the_first_error_cancels_the_rest_when_asked),
        TEST(a_map_has_a_deadline),
        TEST(cancelling_the_caller_cancels_the_map),
        TEST(a_scope_that_is_cancelled_cancels_the_map),
        TEST(long_items_use_all_workers),
        TEST(the_executors_defaults_apply_to_each_item),
        TEST(a_map_has_its_callers_context),
        TEST(wrong_maps_are_refused),
        TEST(ranges_cover_each_number_once),
        TEST(many_callers_share_an_executor),
        TEST(random_maps_run_each_item_once),
        TEST(the_executors_defaults_apply_to_each_range),
        TEST(a_map_that_waits_for_its_turn_is_cancelled),
        TEST(the_rest_of_a_chunk_that_fails_is_not_begun),
        TEST(an_iterator_gives_results_in_order),
        TEST(an_iterator_gives_results_as_they_finish),
        TEST(a_source_is_asked_no_faster_than_allowed),
        TEST(closing_an_iterator_cancels_what_is_in_flight),
        TEST(an_iterators_items_have_options),
        TEST(an_iterator_over_a_closed_executor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
