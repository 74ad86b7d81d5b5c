/* SPDX-License-Identifier: Apache-2.0 */
/* test_context.c - contexts on plain threads: values, limits, traces, entering and leaving. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "klaw/alloc.h"
#include "klaw/context.h"
#include "klaw/log.h"

static uint64_t live_before;

static int remember_live(void **state) {
    (void)state;
    live_before = klaw_alloc_live();
    return 0;
}

static int nothing_leaks(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    return klaw_alloc_live() != live_before;
}

static klaw_context *with(const klaw_context *base, const char *key, const char *value) {
    klaw_context *c = NULL;
    klaw_context_value v = {key, value};
    assert_int_equal(klaw_context_with(base, &v, 1, &c), KLAW_OK);
    return c;
}

/* ---- values ---- */

static void context_empty_has_nothing(void **state) {
    (void)state;
    klaw_context *c = NULL;
    klaw_trace t;
    size_t n = 7;
    assert_int_equal(klaw_context_with(NULL, NULL, 0, &c), KLAW_OK);
    for (int i = 0; i < 2; i++) {
        const klaw_context *each = i ? NULL : c;
        assert_null(klaw_context_request_id(each));
        assert_null(klaw_context_get(each, "k"));
        assert_null(klaw_context_values(each, &n));
        assert_int_equal(n, 0);
        assert_false(klaw_context_trace(each, &t));
    }
    assert_null(klaw_context_get(c, NULL));
    klaw_context_unref(c);
    klaw_context_unref(NULL);
    assert_null(klaw_context_ref(NULL));
}

static void context_copies_its_strings(void **state) {
    (void)state;
    char key[] = "key", value[] = "value";
    klaw_context *c = with(NULL, key, value);
    key[0] = value[0] = 'x';
    assert_string_equal(klaw_context_get(c, "key"), "value");
    assert_null(klaw_context_get(c, "xey"));
    assert_null(klaw_context_get(c, "ke"));
    assert_null(klaw_context_get(c, ""));
    klaw_context_unref(c);
}

static void context_is_immutable(void **state) {
    (void)state;
    klaw_context *a = with(NULL, "k", "1");
    klaw_context *b = with(a, "k", "2");
    klaw_context *c = with(b, "other", "3");
    klaw_context *d = with(c, "k", NULL);
    assert_string_equal(klaw_context_get(a, "k"), "1");
    assert_string_equal(klaw_context_get(b, "k"), "2");
    klaw_context_unref(a);
    klaw_context_unref(b);
    assert_string_equal(klaw_context_get(c, "k"), "2");
    assert_string_equal(klaw_context_get(c, "other"), "3");
    assert_null(klaw_context_get(d, "k"));
    assert_string_equal(klaw_context_get(d, "other"), "3");
    klaw_context_unref(c);
    klaw_context_unref(d);
}

static void context_values_are_sorted_and_the_last_counts(void **state) {
    (void)state;
    static const klaw_context_value in[] = {
        {"m", "1"},    {"z", "2"},     {"a", "3"},      {"m", "4"}, {"ä", "5"},
        {"gone", "6"}, {"gone", NULL}, {"never", NULL}, {"mm", ""},
    };
    static const klaw_context_value out[] = {
        {"a", "3"}, {"m", "4"}, {"mm", ""}, {"z", "2"}, {"ä", "5"}};
    klaw_context *c = NULL;
    size_t n;
    assert_int_equal(klaw_context_with(NULL, in, sizeof in / sizeof in[0], &c), KLAW_OK);
    const klaw_context_value *values = klaw_context_values(c, &n);
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(values[i].key, out[i].key);
        assert_string_equal(values[i].value, out[i].value);
    }
    klaw_context_unref(c);
}

static void context_refuses_bad_arguments(void **state) {
    (void)state;
    klaw_context *c = NULL;
    klaw_context_value v = {"k", "v"};
    assert_int_equal(klaw_context_with(NULL, &v, 1, NULL), KLAW_INVALID);
    assert_int_equal(klaw_context_with(NULL, NULL, 1, &c), KLAW_INVALID);
    v.key = NULL;
    assert_int_equal(klaw_context_with(NULL, &v, 1, &c), KLAW_INVALID);
    v.key = "";
    assert_int_equal(klaw_context_with(NULL, &v, 1, &c), KLAW_INVALID);
    v.key = "\xff";
    assert_int_equal(klaw_context_with(NULL, &v, 1, &c), KLAW_INVALID);
    v.key = "k";
    v.value = "\xed\xa0\x80";
    assert_int_equal(klaw_context_with(NULL, &v, 1, &c), KLAW_INVALID);
    assert_int_equal(klaw_context_with_request_id(NULL, "x", NULL), KLAW_INVALID);
    assert_int_equal(klaw_context_with_request_id(NULL, "", &c), KLAW_INVALID);
    assert_int_equal(klaw_context_with_request_id(NULL, "\x80", &c), KLAW_INVALID);
    assert_int_equal(klaw_context_with_trace(NULL, NULL, NULL), KLAW_INVALID);
    assert_int_equal(klaw_context_new_trace(NULL, NULL), KLAW_INVALID);
    assert_int_equal(klaw_context_new_span(NULL, NULL), KLAW_INVALID);
    assert_int_equal(klaw_context_enter(NULL, NULL), KLAW_INVALID);
    klaw_context_leave(NULL);
    assert_null(c);
}

static char *text_of(size_t n) {
    char *s = calloc(1, n + 1);
    memset(s, 'x', n);
    return s;
}

static void context_limits_are_exact(void **state) {
    (void)state;
    klaw_context *c = NULL;
    struct {
        size_t key, value;
        klaw_err expected;
    } cases[] = {
        {KLAW_CONTEXT_KEY_MAX, 1, KLAW_OK},
        {KLAW_CONTEXT_KEY_MAX + 1, 1, KLAW_LIMIT},
        {1, KLAW_CONTEXT_VALUE_MAX, KLAW_OK},
        {1, KLAW_CONTEXT_VALUE_MAX + 1, KLAW_LIMIT},
    };
    for (size_t i = 0; i < 4; i++) {
        char *key = text_of(cases[i].key), *value = text_of(cases[i].value);
        klaw_context_value v = {key, value};
        klaw_err e = klaw_context_with(NULL, &v, 1, &c);
        assert_int_equal(e, cases[i].expected);
        if (!e)
            klaw_context_unref(c);
        free(key);
        free(value);
    }
    for (size_t n = KLAW_CONTEXT_REQUEST_ID_MAX; n < KLAW_CONTEXT_REQUEST_ID_MAX + 2; n++) {
        char *id = text_of(n);
        klaw_err e = klaw_context_with_request_id(NULL, id, &c);
        assert_int_equal(e, n > KLAW_CONTEXT_REQUEST_ID_MAX ? KLAW_LIMIT : KLAW_OK);
        if (!e)
            klaw_context_unref(c);
        free(id);
    }
}

static void context_has_64_values_at_most(void **state) {
    (void)state;
    klaw_context *c = NULL, *more = NULL;
    char keys[65][16];
    klaw_context_value v[65];
    for (int i = 0; i < 65; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "k%d", i);
        v[i] = (klaw_context_value){keys[i], "v"};
    }
    assert_int_equal(klaw_context_with(NULL, v, 65, &c), KLAW_LIMIT);
    assert_null(c);
    assert_int_equal(klaw_context_with(NULL, v, 64, &c), KLAW_OK);
    assert_int_equal(klaw_context_with(c, &v[64], 1, &more), KLAW_LIMIT);
    assert_int_equal(klaw_context_with(c, v, 64, &more), KLAW_OK); /* they are there */
    for (int i = 0; i < 64; i++)
        assert_string_equal(klaw_context_get(more, keys[i]), "v");
    klaw_context_unref(more);
    klaw_context_unref(c);
}

static void context_sum_is_limited(void **state) {
    (void)state;
    klaw_context *c = NULL, *full = NULL;
    char *value = text_of(KLAW_CONTEXT_VALUE_MAX);
    char keys[16][12];
    klaw_context_value v[16];
    for (int i = 0; i < 16; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "%02d", i);
        v[i] = (klaw_context_value){keys[i], value};
    }
    assert_int_equal(klaw_context_with(NULL, v, 16, &c), KLAW_LIMIT); /* 16 * 4098 */
    assert_int_equal(klaw_context_with(NULL, v, 15, &c), KLAW_OK);
    /* Exactly 64 KiB: 15 * 4098 are there, the last one is 4066 with its key. */
    v[15].value = value + (KLAW_CONTEXT_VALUE_MAX - 4064);
    assert_int_equal(klaw_context_with(c, &v[15], 1, &full), KLAW_OK);
    klaw_context_unref(full);
    v[15].value--;
    assert_int_equal(klaw_context_with(c, &v[15], 1, &full), KLAW_LIMIT);
    klaw_context_unref(c);
    free(value);
}

static void context_request_id_is_kept_apart(void **state) {
    (void)state;
    klaw_context *a = NULL, *b, *c = NULL;
    assert_int_equal(klaw_context_with_request_id(NULL, "r-1", &a), KLAW_OK);
    b = with(a, "k", "v");
    assert_string_equal(klaw_context_request_id(b), "r-1");
    assert_int_equal(klaw_context_with_request_id(b, NULL, &c), KLAW_OK);
    assert_null(klaw_context_request_id(c));
    assert_string_equal(klaw_context_get(c, "k"), "v");
    klaw_context_unref(a);
    klaw_context_unref(b);
    klaw_context_unref(c);
}

static void context_lives_until_its_last_reference(void **state) {
    (void)state;
    klaw_context *c = with(NULL, "k", "v");
    assert_ptr_equal(klaw_context_ref(c), c);
    klaw_context_unref(c);
    assert_string_equal(klaw_context_get(c, "k"), "v");
    assert_int_equal(klaw_alloc_live(), live_before + 1);
    klaw_context_unref(c);
    assert_int_equal(klaw_alloc_live(), live_before);
}

/* ---- traces in contexts ---- */

static void context_trace_is_kept_and_taken_away(void **state) {
    (void)state;
    klaw_trace t = {{1}, {2}, 0xff}, back;
    klaw_context *a = NULL, *b, *c = NULL;
    assert_int_equal(klaw_context_with_trace(NULL, &t, &a), KLAW_OK);
    b = with(a, "k", "v");
    assert_true(klaw_context_trace(b, &back));
    assert_memory_equal(back.trace_id, t.trace_id, 16);
    assert_memory_equal(back.span_id, t.span_id, 8);
    assert_int_equal(back.flags, 3);
    assert_int_equal(klaw_context_with_trace(b, NULL, &c), KLAW_OK);
    assert_false(klaw_context_trace(c, &back));
    assert_string_equal(klaw_context_get(c, "k"), "v");
    klaw_context_unref(a);
    klaw_context_unref(b);
    klaw_context_unref(c);
    memset(&t, 0, sizeof t);
    assert_int_equal(klaw_context_with_trace(NULL, &t, &c), KLAW_INVALID);
}

static void context_new_traces_are_random_and_spans_stay_in_them(void **state) {
    (void)state;
    klaw_context *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    klaw_trace ta, tb, tc, td;
    assert_int_equal(klaw_context_new_trace(NULL, &a), KLAW_OK);
    assert_int_equal(klaw_context_new_trace(a, &b), KLAW_OK);
    assert_int_equal(klaw_context_new_span(a, &c), KLAW_OK);
    assert_int_equal(klaw_context_new_span(NULL, &d), KLAW_OK);
    assert_true(klaw_context_trace(a, &ta) && klaw_context_trace(b, &tb));
    assert_true(klaw_context_trace(c, &tc) && klaw_context_trace(d, &td));
    assert_memory_not_equal(ta.trace_id, tb.trace_id, 16);
    assert_memory_not_equal(ta.trace_id, td.trace_id, 16);
    assert_memory_equal(ta.trace_id, tc.trace_id, 16);
    assert_memory_not_equal(ta.span_id, tc.span_id, 8);
    assert_int_equal(ta.flags, KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM);
    assert_int_equal(tc.flags, ta.flags);
    klaw_context_unref(a);
    klaw_context_unref(b);
    klaw_context_unref(c);
    klaw_context_unref(d);
}

/* ---- the current one ---- */

static void context_enters_nested_and_leaves_in_reverse(void **state) {
    (void)state;
    klaw_context *a = with(NULL, "k", "a"), *b = with(a, "k", "b");
    klaw_context_token ta, tb, tn;
    assert_null(klaw_context_current());
    assert_int_equal(klaw_context_enter(a, &ta), KLAW_OK);
    assert_ptr_equal(klaw_context_current(), a);
    assert_int_equal(klaw_context_enter(b, &tb), KLAW_OK);
    assert_ptr_equal(klaw_context_current(), b);
    klaw_context_unref(b); /* entering keeps one */
    assert_string_equal(klaw_context_get(klaw_context_current(), "k"), "b");
    assert_int_equal(klaw_context_enter(NULL, &tn), KLAW_OK);
    assert_null(klaw_context_current());
    klaw_context_leave(&tn);
    assert_ptr_equal(klaw_context_current(), b);
    klaw_context_leave(&tb);
    assert_ptr_equal(klaw_context_current(), a);
    klaw_context_leave(&tb); /* used up */
    assert_ptr_equal(klaw_context_current(), a);
    assert_int_equal(klaw_context_enter(a, &tb), KLAW_OK); /* the same one again */
    klaw_context_leave(&tb);
    klaw_context_leave(&ta);
    assert_null(klaw_context_current());
    memset(&ta, 0, sizeof ta);
    klaw_context_leave(&ta);
    klaw_context_unref(a);
}

static void *other_thread(void *arg) {
    klaw_context_token token;
    bool ok = klaw_context_current() == NULL;
    ok = ok && klaw_context_enter(arg, &token) == KLAW_OK;
    ok = ok && klaw_context_current() == arg;
    klaw_context_leave(&token);
    return ok && klaw_context_current() == NULL ? arg : NULL;
}

static void context_is_the_threads_own(void **state) {
    (void)state;
    klaw_context *a = with(NULL, "k", "a"), *b = with(NULL, "k", "b");
    klaw_context_token token;
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(klaw_context_enter(a, &token), KLAW_OK);
    assert_int_equal(pthread_create(&thread, NULL, other_thread, b), 0);
    pthread_join(thread, &result);
    assert_ptr_equal(result, b);
    assert_ptr_equal(klaw_context_current(), a);
    klaw_context_leave(&token);
    klaw_context_unref(a);
    klaw_context_unref(b);
}

static klaw_log_record seen;
static char seen_value[64];

static void see(const klaw_log_record *record, void *user) {
    (void)user;
    seen = *record;
    if (record->n_values)
        (void)snprintf(seen_value, sizeof seen_value, "%s", record->values[0].value);
}

static void context_is_in_log_records(void **state) {
    (void)state;
    klaw_context *a = with(NULL, "tenant", "acme"), *b = NULL, *c = NULL;
    klaw_context_token token;
    uint64_t hook;
    assert_int_equal(klaw_context_with_request_id(a, "r-1", &b), KLAW_OK);
    assert_int_equal(klaw_context_new_trace(b, &c), KLAW_OK);
    assert_int_equal(klaw_log_hook_add(see, NULL, NULL, &hook), KLAW_OK);
    klaw_log_set_fd(KLAW_NONE);
    klaw_log_set_level(KLAW_LEVEL_INFO);
    assert_int_equal(klaw_context_enter(c, &token), KLAW_OK);
    KLAW_LOG_INFO("inside");
    assert_string_equal(seen.request_id, "r-1");
    assert_non_null(seen.trace);
    assert_int_equal(seen.n_values, 1);
    assert_string_equal(seen_value, "acme");
    klaw_context_leave(&token);
    KLAW_LOG_INFO("outside");
    assert_null(seen.request_id);
    assert_null(seen.trace);
    assert_int_equal(seen.n_values, 0);
    assert_null(seen.fiber);
    klaw_log_set_level(KLAW_LEVEL_OFF);
    klaw_log_set_fd(2);
    assert_int_equal(klaw_log_hook_remove(hook), KLAW_OK);
    klaw_context_unref(a);
    klaw_context_unref(b);
    klaw_context_unref(c);
}

/* ---- lack of memory ---- */

static klaw_err everything(void) {
    static const klaw_context_value v = {"k", "v"};
    klaw_context *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    klaw_trace t = {{1}, {1}, 0};
    klaw_err e;
    if ((e = klaw_context_with(NULL, &v, 1, &a)))
        goto out;
    if ((e = klaw_context_with_request_id(a, "r", &b)))
        goto out;
    if ((e = klaw_context_with_trace(b, &t, &c)))
        goto out;
    e = klaw_context_new_span(c, &d);
    if (!e)
        klaw_context_unref(d);
out:
    klaw_context_unref(a);
    klaw_context_unref(b);
    klaw_context_unref(c);
    return e;
}

static void context_survives_every_lack_of_memory(void **state) {
    (void)state;
    klaw_err e = KLAW_NOMEM;
    for (uint64_t at = 1; e != KLAW_OK; at++) {
        assert_true(at < 10);
        klaw_alloc_fail_at(at, false);
        e = everything();
        klaw_alloc_fail_at(0, false);
        assert_int_equal(e, at <= 4 ? KLAW_NOMEM : KLAW_OK);
        assert_int_equal(klaw_alloc_live(), live_before);
    }
}

/* On a thread klaw has not met: entering may have to make it a host. */
static void *enter_without_memory(void *arg) {
    klaw_context_token token;
    klaw_err e = klaw_context_enter(arg, &token);
    if (!e)
        klaw_context_leave(&token);
    return (void *)(intptr_t)e;
}

static void context_enter_survives_every_lack_of_memory(void **state) {
    (void)state;
    klaw_context *c = with(NULL, "k", "v");
    klaw_err e = KLAW_NOMEM;
    for (uint64_t at = 1; e != KLAW_OK; at++) {
        pthread_t thread;
        void *result;
        assert_true(at < 10);
        klaw_alloc_fail_at(at, false);
        assert_int_equal(pthread_create(&thread, NULL, enter_without_memory, c), 0);
        pthread_join(thread, &result);
        klaw_alloc_fail_at(0, false);
        e = (klaw_err)(intptr_t)result;
        assert_true(e == KLAW_OK || e == KLAW_NOMEM);
    }
    klaw_context_unref(c);
    live_before = klaw_alloc_live(); /* hosts of threads are kept for the next ones */
}

#define T(name) cmocka_unit_test_setup_teardown(name, remember_live, nothing_leaks)

/* This thread becomes a host before blocks are counted. */
static int meet_klaw(void **state) {
    klaw_context_token token;
    (void)state;
    if (klaw_context_enter(NULL, &token) != KLAW_OK)
        return -1;
    klaw_context_leave(&token);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T(context_empty_has_nothing),
        T(context_copies_its_strings),
        T(context_is_immutable),
        T(context_values_are_sorted_and_the_last_counts),
        T(context_refuses_bad_arguments),
        T(context_limits_are_exact),
        T(context_has_64_values_at_most),
        T(context_sum_is_limited),
        T(context_request_id_is_kept_apart),
        T(context_lives_until_its_last_reference),
        T(context_trace_is_kept_and_taken_away),
        T(context_new_traces_are_random_and_spans_stay_in_them),
        T(context_enters_nested_and_leaves_in_reverse),
        cmocka_unit_test(context_is_the_threads_own),
        T(context_is_in_log_records),
        T(context_survives_every_lack_of_memory),
        T(context_enter_survives_every_lack_of_memory),
    };
    return cmocka_run_group_tests_name("context", tests, meet_klaw, NULL);
}
