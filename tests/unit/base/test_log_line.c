/* SPDX-License-Identifier: Apache-2.0 */
/* test_log_line.c - records as lines: both formats, every escape, truncation, what is injected. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/text.h"
#include "unit/base/log_sink.h"

/* ---- lines ---- */

static void every_kind(void) {
    KLAW_LOG_INFO("all kinds", klaw_log_str("str", "two words"), klaw_log_strn("strn", "cut", 2),
                  klaw_log_i64("least", INT64_MIN), klaw_log_i64("most", INT64_MAX),
                  klaw_log_u64("u64", UINT64_MAX), klaw_log_u64("zero", 0),
                  klaw_log_f64("f64", 0.1), klaw_log_bool("yes", true), klaw_log_bool("no", false),
                  klaw_log_err("err", KLAW_CLOSED), klaw_log_str("null", NULL), klaw_log_none(),
                  klaw_log_str("empty", ""));
    take_valid();
    assert_string_equal(got("msg"), "all kinds");
    assert_string_equal(got("str"), "two words");
    assert_string_equal(got("strn"), "cu");
    assert_string_equal(got("least"), "-9223372036854775808");
    assert_string_equal(got("most"), "9223372036854775807");
    assert_string_equal(got("u64"), "18446744073709551615");
    assert_string_equal(got("zero"), "0");
    assert_string_equal(got("f64"), "0.1");
    assert_string_equal(got("yes"), "true");
    assert_string_equal(got("no"), "false");
    assert_string_equal(got("err"), "KLAW_CLOSED");
    assert_string_equal(got("empty"), "");
    assert_null(got("null"));
    assert_null(got("truncated"));
}

static void log_json_has_every_kind_of_field(void **state) {
    (void)state;
    every_kind();
    assert_int_equal(json_count(text, text_size, ""), 3 + 11);
}

static void log_logfmt_has_every_kind_of_field(void **state) {
    (void)state;
    klaw_log_set_format(KLAW_LOG_LOGFMT);
    every_kind();
    assert_true(strstr(text, " level=info msg=\"all kinds\" str=\"two words\" strn=cu ") != NULL);
    assert_true(strstr(text, " empty=\"\"") != NULL);
}

static void log_needs_no_fields_and_no_message(void **state) {
    (void)state;
    for (int format = KLAW_LOG_JSON; format <= KLAW_LOG_LOGFMT; format++) {
        klaw_log_set_format((klaw_log_format)format);
        KLAW_LOG_INFO("alone");
        take_valid();
        assert_string_equal(got("msg"), "alone");
        klaw_log_write(KLAW_LEVEL_INFO, NULL, NULL, 3);
        take_valid();
        assert_string_equal(got("msg"), "");
    }
}

/* One string through both formats and back, as a value and as a message. */
static void round_trip(const char *s, size_t n, const char *expected) {
    for (int format = KLAW_LOG_JSON; format <= KLAW_LOG_LOGFMT; format++) {
        klaw_log_field f = klaw_log_strn("k", s, n);
        klaw_log_set_format((klaw_log_format)format);
        klaw_log_write(KLAW_LEVEL_INFO, strlen(s) == n ? s : "", &f, 1);
        take_valid();
        assert_string_equal(got("k"), expected);
        if (strlen(s) == n)
            assert_string_equal(got("msg"), expected);
    }
}

static void log_escapes_every_character(void **state) {
    (void)state;
    for (int c = 1; c < 0x80; c++) {
        char s[] = {'a', (char)c, 'b', 0};
        round_trip(s, 3, s);
        s[0] = (char)c;
        s[1] = 0;
        round_trip(s, 1, s);
    }
    round_trip("a\0b", 3, "a"); /* the checker's strings end there; its validity was checked */
    KLAW_LOG_INFO("\"\\\b\f\n\r\t\x01\x1f/\x7f", klaw_log_strn("nul", "a\0b", 3));
    klaw_log_set_format(KLAW_LOG_JSON);
    taken();
    KLAW_LOG_INFO("\"\\\b\f\n\r\t\x01\x1f/\x7f", klaw_log_strn("nul", "a\0b", 3));
    taken();
    assert_true(strstr(text, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f/\x7f\"") != NULL);
    assert_true(strstr(text, "\"nul\":\"a\\u0000b\"") != NULL);
}

static void log_keeps_utf8_and_replaces_the_rest(void **state) {
    (void)state;
    static const char *const good[] = {"ä",
                                       "€",
                                       "𝄞",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xc2\x80",
                                       "\xe0\xa0\x80",
                                       "\xf0\x90\x80\x80",
                                       "a\xe2\x80\xa8z"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        round_trip(good[i], strlen(good[i]), good[i]);
#define R "\xef\xbf\xbd"
    static const struct {
        const char *bad, *expected;
    } bad[] = {
        {"\x80", R}, /* a continuation alone */
        {"a\xff"
         "b",
         "a" R "b"},      /* never a byte of UTF-8 */
        {"\xc3", R},      /* broken off */
        {"\xc3(", R "("}, /* broken by another character */
        {"\xe2\x82", R},  /* one mark for one broken character */
        {"\xe2\x82z", R "z"},
        {"\xf0\x9d\x84", R},
        {"\xc0\xaf", R R}, /* overlong */
        {"\xe0\x80\xaf", R R R},
        {"\xf0\x80\x80\xaf", R R R R},
        {"\xed\xa0\x80", R R R},       /* surrogate */
        {"\xf4\x90\x80\x80", R R R R}, /* over U+10FFFF */
        {"\xf5\x80", R R},
    };
#undef R
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        round_trip(bad[i].bad, strlen(bad[i].bad), bad[i].expected);
}

static void log_survives_random_bytes(void **state) {
    (void)state;
    uint32_t seed = 12345;
    char s[200], key[20];
    for (int round = 0; round < 4000; round++) {
        size_t n = klawi_rand(&seed) % sizeof s;
        for (size_t i = 0; i < n; i++)
            s[i] = (char)klawi_rand(&seed);
        for (size_t i = 0; i < sizeof key - 1; i++)
            key[i] = (char)klawi_rand(&seed);
        key[sizeof key - 1] = 0;
        klaw_log_set_format(round % 2 ? KLAW_LOG_JSON : KLAW_LOG_LOGFMT);
        KLAW_LOG_INFO("random", klaw_log_strn("s", s, n), klaw_log_strn(key, s, n));
        take_valid();
        assert_string_equal(got("msg"), "random");
    }
}

static void log_keys_are_kept_valid(void **state) {
    (void)state;
    klaw_log_set_format(KLAW_LOG_LOGFMT);
    KLAW_LOG_INFO("m", klaw_log_i64("a b", 1), klaw_log_i64("c=d", 2), klaw_log_i64("", 3),
                  klaw_log_i64("e\"\xff\n", 4), klaw_log_i64("ü", 5));
    take_valid();
    assert_string_equal(got("a_b"), "1");
    assert_string_equal(got("c_d"), "2");
    assert_string_equal(got("_"), "3");
    assert_string_equal(got("e___"), "4");
    assert_string_equal(got("ü"), "5");
    klaw_log_set_format(KLAW_LOG_JSON);
    klaw_log_field f = klaw_log_i64(NULL, 6);
    klaw_log_write(KLAW_LEVEL_INFO, "m", &f, 1);
    take_valid();
    assert_int_equal(json_count(text, text_size, ""), 4);
}

static void log_writes_doubles_that_read_back(void **state) {
    (void)state;
    static const double values[] = {0.0,
                                    -0.0,
                                    1.0,
                                    -1.5,
                                    0.1,
                                    1e22,
                                    1e-7,
                                    1.0 / 3,
                                    DBL_MAX,
                                    DBL_MIN,
                                    4.9e-324,
                                    -2.5e-5,
                                    123456789012345678.0,
                                    3.141592653589793};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        KLAW_LOG_INFO("m", klaw_log_f64("v", values[i]));
        take_valid();
        assert_true(strtod(got("v"), NULL) == values[i]);
    }
    KLAW_LOG_INFO("m", klaw_log_f64("nan", (double)NAN), klaw_log_f64("inf", (double)INFINITY),
                  klaw_log_f64("minus", -(double)INFINITY));
    take_valid();
    assert_string_equal(got("nan"), "NaN");
    assert_string_equal(got("inf"), "Infinity");
    assert_string_equal(got("minus"), "-Infinity");
}

static void log_time_is_rfc3339(void **state) {
    (void)state;
    static const struct {
        int64_t ns;
        const char *text;
    } times[] = {
        {0, "1970-01-01T00:00:00.000000000Z"},
        {1, "1970-01-01T00:00:00.000000001Z"},
        {-1, "1969-12-31T23:59:59.999999999Z"},
        {951782400000000000, "2000-02-29T00:00:00.000000000Z"},
        {951868799999999999, "2000-02-29T23:59:59.999999999Z"},
        {951868800000000000, "2000-03-01T00:00:00.000000000Z"},
        {1767225599123456789, "2025-12-31T23:59:59.123456789Z"},
        {4107542400000000000, "2100-03-01T00:00:00.000000000Z"},
        {4107542399000000000, "2100-02-28T23:59:59.000000000Z"},
        {INT64_MAX, "2262-04-11T23:47:16.854775807Z"},
        {INT64_MIN, "1677-09-21T00:12:43.145224192Z"},
    };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char buffer[64] = {0};
        struct klawi_text t = {.p = buffer, .cap = sizeof buffer};
        klawi_text_time(&t, times[i].ns);
        assert_string_equal(buffer, times[i].text);
    }
    KLAW_LOG_INFO("now");
    take_valid();
    assert_int_equal(strlen(got("time")), 30);
}

/* ---- truncation ---- */

static void log_cuts_a_long_string(void **state) {
    (void)state;
    static char big[5000];
    /* Characters of one to four bytes, and ones that are escaped: the cut falls between them. */
    static const char *const units[] = {"x", "ä", "€", "𝄞", "\n", "\x01", "\xff", "\""};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
        for (size_t shift = 0; shift < 8; shift++) {
            memset(big, 'y', shift);
            size_t n = shift, size = strlen(units[u]);
            for (; n + size < sizeof big; n += size)
                memcpy(big + n, units[u], size);
            big[n] = 0;
            for (int format = KLAW_LOG_JSON; format <= KLAW_LOG_LOGFMT; format++) {
                klaw_log_set_format((klaw_log_format)format);
                KLAW_LOG_INFO("m", klaw_log_str("before", "b"), klaw_log_strn("big", big, n),
                              klaw_log_str("after", "a"));
                take_valid();
                assert_true(text_size + 1 > KLAW_LOG_LINE_MAX - 40);
                assert_string_equal(got("before"), "b");
                assert_string_equal(got("truncated"), "true");
                assert_non_null(got("big"));
                assert_null(got("after"));
            }
        }
}

static void log_leaves_out_what_does_not_fit(void **state) {
    (void)state;
    static char fill[KLAW_LOG_LINE_MAX];
    memset(fill, 'z', sizeof fill);
    for (int format = KLAW_LOG_JSON; format <= KLAW_LOG_LOGFMT; format++)
        for (size_t n = 1800; n < 2040; n++) {
            klaw_log_set_format((klaw_log_format)format);
            KLAW_LOG_INFO("m", klaw_log_strn("fill", fill, n), klaw_log_i64("i64", INT64_MIN),
                          klaw_log_bool("bool", true), klaw_log_f64("f64", -(double)INFINITY),
                          klaw_log_u64("u64", UINT64_MAX));
            take_valid();
            bool whole = got("u64") != NULL;
            assert_int_equal(whole, got("truncated") == NULL);
            if (got("i64"))
                assert_string_equal(got("i64"), "-9223372036854775808");
            if (got("bool"))
                assert_string_equal(got("bool"), "true");
            if (got("f64"))
                assert_string_equal(got("f64"), "-Infinity");
            if (whole)
                assert_string_equal(got("u64"), "18446744073709551615");
        }
}

static void log_cuts_a_long_message(void **state) {
    (void)state;
    static char big[5000];
    for (size_t i = 0; i + 3 < sizeof big; i += 3)
        memcpy(big + i, "€", 3);
    for (size_t shift = 0; shift < 3; shift++) {
        KLAW_LOG_INFO(big + shift, klaw_log_str("after", "a"));
        take_valid();
        assert_true(strlen(got("msg")) <= KLAW_LOG_MESSAGE_MAX + 6);
        assert_string_equal(got("after"), "a");
        assert_string_equal(got("truncated"), "true");
    }
    memset(big, 'm', sizeof big);
    big[KLAW_LOG_MESSAGE_MAX] = 0;
    KLAW_LOG_INFO(big);
    take_valid();
    assert_string_equal(got("msg"), big);
    assert_null(got("truncated"));
}

/* ---- what is injected ---- */

static const klaw_trace some_trace = {{0xab, [15] = 0x01}, {0xcd, [7] = 0x02}, 1};
static const klaw_context_value some_values[] = {{"tenant", "acme corp"}, {"user", "u\"1"}};

static void fill_context(klaw_log_record *r) {
    r->request_id = "r-17";
    r->trace = &some_trace;
    r->values = some_values;
    r->n_values = 2;
}

static void fill_fiber(klaw_log_record *r) {
    r->fiber = "worker 3";
    r->fiber_id = 42;
}

static void log_names_fiber_and_context(void **state) {
    (void)state;
    atomic_store(&klawi_log_context, fill_context);
    atomic_store(&klawi_log_fiber, fill_fiber);
    for (int format = KLAW_LOG_JSON; format <= KLAW_LOG_LOGFMT; format++) {
        klaw_log_set_format((klaw_log_format)format);
        KLAW_LOG_INFO("m", klaw_log_i64("n", 1));
        take_valid();
        assert_string_equal(got("fiber"), "worker 3");
        assert_string_equal(got("request_id"), "r-17");
        assert_string_equal(got("trace_id"), "ab000000000000000000000000000001");
        assert_string_equal(got("span_id"), "cd00000000000002");
        assert_string_equal(got("n"), "1");
        assert_string_equal(got("tenant"), "acme corp");
        assert_string_equal(got("user"), "u\"1");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T(log_json_has_every_kind_of_field),
        T(log_logfmt_has_every_kind_of_field),
        T(log_needs_no_fields_and_no_message),
        T(log_escapes_every_character),
        T(log_keeps_utf8_and_replaces_the_rest),
        T(log_survives_random_bytes),
        T(log_keys_are_kept_valid),
        T(log_writes_doubles_that_read_back),
        T(log_time_is_rfc3339),
        T(log_cuts_a_long_string),
        T(log_leaves_out_what_does_not_fit),
        T(log_cuts_a_long_message),
        T(log_names_fiber_and_context),
    };
    return cmocka_run_group_tests_name("log_line", tests, NULL, NULL);
}
