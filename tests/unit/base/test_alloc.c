/* SPDX-License-Identifier: Apache-2.0 */
/* test_alloc.c - hooks, failure injection, counters, aligned blocks, trimming. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"

/* ---- hooks that count ---- */

struct counts {
    int mallocs, reallocs, frees;
};

static void *count_malloc(size_t size, void *user) {
    ((struct counts *)user)->mallocs++;
    void *p = malloc(size);
    if (p)
        memset(p, 0xa5, size);
    return p;
}

static void *count_realloc(void *p, size_t size, void *user) {
    ((struct counts *)user)->reallocs++;
    return realloc(p, size);
}

static void count_free(void *p, void *user) {
    ((struct counts *)user)->frees++;
    free(p);
}

static void *no_malloc(size_t size, void *user) {
    (void)size;
    (void)user;
    return NULL;
}

static void *no_realloc(void *p, size_t size, void *user) {
    (void)p;
    (void)size;
    (void)user;
    return NULL;
}

static int back_to_default(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    return klaw_alloc_live() == 0 && klaw_alloc_set(NULL) == KLAW_OK ? 0 : -1;
}

static void alloc_points_cost_nothing_before_they_are_asked_for(void **state) {
    (void)state;
    /* First of all tests: fail_at was never called in this process. */
    void *p = klawi_alloc(10);
    assert_non_null(p);
    assert_int_equal(klaw_alloc_points(), 0);
    assert_false(klawi_fail_point());
    klawi_free(p);
}

static void alloc_sizes_of_zero_give_a_block(void **state) {
    (void)state;
    void *a = klawi_alloc(0), *b = klawi_calloc(0, 8), *c = klawi_realloc(NULL, 0);
    void *d = klawi_alloc_aligned(64, 0);
    assert_true(a && b && c && d);
    assert_int_equal(klaw_alloc_live(), 4);
    c = klawi_realloc(c, 0);
    assert_non_null(c);
    klawi_free(a);
    klawi_free(b);
    klawi_free(c);
    klawi_free_aligned(d);
    klawi_free(NULL);
    klawi_free_aligned(NULL);
}

static void alloc_calloc_zeroes_and_checks_the_product(void **state) {
    (void)state;
    unsigned char zeros[300] = {0};
    unsigned char *p = klawi_calloc(3, 100);
    assert_memory_equal(p, zeros, sizeof zeros);
    klawi_free(p);
    volatile size_t huge = SIZE_MAX / 2, most = SIZE_MAX;
    assert_null(klawi_calloc(huge, 3));
    assert_null(klawi_alloc_aligned(64, most));
}

static void alloc_aligned_is_aligned_and_writable(void **state) {
    (void)state;
    for (size_t align = 1; align <= 65536; align *= 2)
        for (size_t size = 1; size < 300; size += 97) {
            unsigned char *p = klawi_alloc_aligned(align, size);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            memset(p, 0x5a, size);
            klawi_free_aligned(p);
        }
}

static void alloc_live_counts_blocks(void **state) {
    (void)state;
    void *p = klawi_alloc(1);
    assert_int_equal(klaw_alloc_live(), 1);
    p = klawi_realloc(p, 100000);
    assert_int_equal(klaw_alloc_live(), 1);
    void *q = klawi_alloc_aligned(64, 64);
    assert_int_equal(klaw_alloc_live(), 2);
    klawi_free_aligned(q);
    klawi_free(p);
    assert_int_equal(klaw_alloc_live(), 0);
}

static void alloc_hooks_get_every_block(void **state) {
    (void)state;
    struct counts n = {0, 0, 0};
    unsigned char zeros[64] = {0};
    klaw_alloc_hooks hooks = {count_malloc, count_realloc, count_free, &n};
    assert_int_equal(klaw_alloc_set(&hooks), KLAW_OK);
    memset(&hooks, 0, sizeof hooks); /* it was copied */
    void *a = klawi_alloc(10), *b = klawi_calloc(1, 64), *c = klawi_alloc_aligned(128, 10);
    assert_memory_equal(b, zeros, sizeof zeros);
    a = klawi_realloc(a, 20);
    assert_int_equal(n.mallocs, 3);
    assert_int_equal(n.reallocs, 1);
    klawi_free(a);
    klawi_free(b);
    klawi_free_aligned(c);
    assert_int_equal(n.frees, 3);
}

static void alloc_set_refuses(void **state) {
    (void)state;
    struct counts n = {0, 0, 0};
    klaw_alloc_hooks hooks = {count_malloc, count_realloc, count_free, &n};
    klaw_alloc_hooks broken = hooks;
    broken.free_fn = NULL;
    assert_int_equal(klaw_alloc_set(&broken), KLAW_INVALID);
    broken = hooks;
    broken.malloc_fn = NULL;
    assert_int_equal(klaw_alloc_set(&broken), KLAW_INVALID);
    broken = hooks;
    broken.realloc_fn = NULL;
    assert_int_equal(klaw_alloc_set(&broken), KLAW_INVALID);
    void *p = klawi_alloc(1);
    assert_int_equal(klaw_alloc_set(&hooks), KLAW_EXISTS);
    assert_int_equal(klaw_alloc_set(NULL), KLAW_EXISTS);
    klawi_free(p);
    assert_int_equal(n.mallocs + n.frees, 0);
}

static void alloc_hooks_may_have_no_memory(void **state) {
    (void)state;
    struct counts n = {0, 0, 0};
    klaw_alloc_hooks hooks = {no_malloc, no_realloc, count_free, &n};
    assert_int_equal(klaw_alloc_set(&hooks), KLAW_OK);
    assert_null(klawi_alloc(1));
    assert_null(klawi_calloc(1, 1));
    assert_null(klawi_realloc(NULL, 1));
    assert_null(klawi_alloc_aligned(64, 1));
    assert_int_equal(klaw_alloc_live(), 0);
}

static void alloc_fails_once_at_the_point(void **state) {
    (void)state;
    void *p[5];
    for (uint64_t at = 1; at <= 5; at++) {
        klaw_alloc_fail_at(at, false);
        for (uint64_t i = 1; i <= 5; i++) {
            p[i - 1] = klawi_alloc(1);
            assert_int_equal(p[i - 1] == NULL, i == at);
            assert_int_equal(klaw_alloc_points(), i);
        }
        for (int i = 0; i < 5; i++)
            klawi_free(p[i]);
    }
}

static void alloc_sticky_failure_stays(void **state) {
    (void)state;
    klaw_alloc_fail_at(2, true);
    void *p = klawi_alloc(1);
    assert_non_null(p);
    assert_null(klawi_alloc(1));
    assert_null(klawi_calloc(1, 1));
    assert_null(klawi_realloc(p, 2)); /* p stays */
    assert_true(klawi_fail_point());
    assert_null(klawi_alloc_aligned(64, 1));
    assert_int_equal(klaw_alloc_points(), 6);
    klaw_alloc_fail_at(0, true);
    assert_false(klawi_fail_point());
    assert_int_equal(klaw_alloc_points(), 1);
    klawi_free(p);
}

static int trimmed_a, trimmed_b;
static void trim_a(void) {
    trimmed_a++;
}
static void trim_b(void) {
    trimmed_b++;
}

static void alloc_trim_calls_every_cache_once(void **state) {
    (void)state;
    klaw_alloc_trim();
    klawi_trim_register(trim_a);
    klawi_trim_register(trim_b);
    klawi_trim_register(trim_a);
    klaw_alloc_trim();
    assert_int_equal(trimmed_a, 1);
    assert_int_equal(trimmed_b, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_points_cost_nothing_before_they_are_asked_for),
        cmocka_unit_test_teardown(alloc_sizes_of_zero_give_a_block, back_to_default),
        cmocka_unit_test_teardown(alloc_calloc_zeroes_and_checks_the_product, back_to_default),
        cmocka_unit_test_teardown(alloc_aligned_is_aligned_and_writable, back_to_default),
        cmocka_unit_test_teardown(alloc_live_counts_blocks, back_to_default),
        cmocka_unit_test_teardown(alloc_hooks_get_every_block, back_to_default),
        cmocka_unit_test_teardown(alloc_set_refuses, back_to_default),
        cmocka_unit_test_teardown(alloc_hooks_may_have_no_memory, back_to_default),
        cmocka_unit_test_teardown(alloc_fails_once_at_the_point, back_to_default),
        cmocka_unit_test_teardown(alloc_sticky_failure_stays, back_to_default),
        cmocka_unit_test_teardown(alloc_trim_calls_every_cache_once, back_to_default),
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
