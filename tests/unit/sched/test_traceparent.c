/* SPDX-License-Identifier: Apache-2.0 */
/* test_traceparent.c - W3C traceparents, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "klaw/context.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void traceparent_reads_good_ones(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned flags;
    } good[] = {
        {"00-" TRACE "-" SPAN "-01", 1},
        {"00-" TRACE "-" SPAN "-00", 0},
        {"00-" TRACE "-" SPAN "-03", 3},
        {"00-" TRACE "-" SPAN "-ff", 3},
        {"00-" TRACE "-" SPAN "-fc", 0},
        {"01-" TRACE "-" SPAN "-01", 1},
        {"01-" TRACE "-" SPAN "-01-", 1},
        {"01-" TRACE "-" SPAN "-01-what the future will be like", 1},
        {"fe-" TRACE "-" SPAN "-01-0", 1},
        {"cc-" TRACE "-" SPAN "-09", 1},
    };
    static const uint8_t span[] = {0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        klaw_trace t;
        char out[KLAW_TRACEPARENT_SIZE];
        assert_int_equal(klaw_traceparent_parse(good[i].text, strlen(good[i].text), &t), 0);
        assert_int_equal(t.trace_id[0], 0x4b);
        assert_int_equal(t.trace_id[15], 0x36);
        assert_memory_equal(t.span_id, span, 8);
        assert_int_equal(t.flags, good[i].flags);
        assert_int_equal(klaw_traceparent_format(&t, out), KLAW_OK);
        assert_int_equal(strlen(out), 55);
        assert_memory_equal(out, "00-" TRACE "-" SPAN "-0", 54);
        assert_int_equal(out[54], '0' + (int)good[i].flags);
    }
}

static void traceparent_refuses_bad_ones(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "00",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-",
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-1",
        "00-" TRACE "-" SPAN "-011", /* too long for version 00 */
        "00-" TRACE "-" SPAN "-01-", /* nothing follows in version 00 */
        "00-" TRACE "-" SPAN "-01-xx",
        "01-" TRACE "-" SPAN "-01.xx", /* later versions go on with a dash */
        "01-" TRACE "-" SPAN "-012",
        "ff-" TRACE "-" SPAN "-01", /* the version that never is */
        "FE-" TRACE "-" SPAN "-01",
        "0g-" TRACE "-" SPAN "-01",
        "0 -" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-" TRACE "-00F067AA0BA902B7-01",
        "00-" TRACE "-" SPAN "-0A",
        "00-" TRACE "-" SPAN "-0x",
        "00-4bf92f3577b34da6a3ce929d0e0e473-6" SPAN "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473.-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE "_" SPAN "-01",
        "00-" TRACE "-" SPAN "_01",
        " 00-" TRACE "-" SPAN "-01",
        "00-" TRACE "-" SPAN "-01 ",
        "00-" TRACE "-" SPAN "-01\n",
        "-" TRACE "-" SPAN "-01-----",
    };
    klaw_trace t, before;
    memset(&before, 0x77, sizeof before);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        t = before;
        assert_int_equal(klaw_traceparent_parse(bad[i], strlen(bad[i]), &t), KLAW_INVALID);
        assert_memory_equal(&t, &before, sizeof t);
    }
    const char *good = "00-" TRACE "-" SPAN "-01";
    assert_int_equal(klaw_traceparent_parse(NULL, 55, &t), KLAW_INVALID);
    assert_int_equal(klaw_traceparent_parse(good, 55, NULL), KLAW_INVALID);
    for (size_t n = 0; n < 55; n++)
        assert_int_equal(klaw_traceparent_parse(good, n, &t), KLAW_INVALID);
    assert_int_equal(klaw_traceparent_parse(good, 56, &t), KLAW_INVALID); /* the NUL counts */
}

static void traceparent_refuses_every_wrong_byte(void **state) {
    (void)state;
    char text[56] = "00-" TRACE "-" SPAN "-01";
    klaw_trace t;
    for (size_t at = 0; at < 55; at++) {
        char kept = text[at];
        for (int c = 0; c < 256; c++) {
            bool dash = at == 2 || at == 35 || at == 52;
            bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
            text[at] = (char)c;
            klaw_err e = klaw_traceparent_parse(text, 55, &t);
            assert_int_equal(e == KLAW_OK, dash ? c == '-' : digit);
        }
        text[at] = kept;
    }
}

static void traceparent_formats_no_empty_ids(void **state) {
    (void)state;
    klaw_trace t = {{1}, {0}, 1};
    char out[KLAW_TRACEPARENT_SIZE];
    assert_int_equal(klaw_traceparent_format(&t, out), KLAW_INVALID);
    t.span_id[7] = 1;
    t.trace_id[0] = 0;
    assert_int_equal(klaw_traceparent_format(&t, out), KLAW_INVALID);
    t.trace_id[15] = 1;
    t.flags = 0xff;
    assert_int_equal(klaw_traceparent_format(&t, out), KLAW_OK);
    assert_string_equal(out, "00-00000000000000000000000000000001-0000000000000001-03");
    assert_int_equal(klaw_traceparent_format(NULL, out), KLAW_INVALID);
    assert_int_equal(klaw_traceparent_format(&t, NULL), KLAW_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traceparent_reads_good_ones),
        cmocka_unit_test(traceparent_refuses_bad_ones),
        cmocka_unit_test(traceparent_refuses_every_wrong_byte),
        cmocka_unit_test(traceparent_formats_no_empty_ids),
    };
    return cmocka_run_group_tests_name("traceparent", tests, NULL, NULL);
}
