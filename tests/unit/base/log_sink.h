/* SPDX-License-Identifier: Apache-2.0 */
/* log_sink.h - a descriptor for the log whose lines can be taken back; for the tests of the log. */
#ifndef KLAW_TEST_LOG_SINK_H
#define KLAW_TEST_LOG_SINK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "unit/text_check.h"

static int sink;
static char text[1 << 16];
static size_t text_size;

static int open_sink(void **state) {
    (void)state;
    sink = memfd_create("log", 0);
    klaw_log_set_fd(sink);
    klaw_log_set_level(KLAW_LEVEL_TRACE);
    klaw_log_set_format(KLAW_LOG_JSON);
    return sink < 0;
}

static int close_sink(void **state) {
    (void)state;
    klaw_log_set_level(KLAW_LEVEL_OFF);
    klaw_log_set_fd(2);
    klaw_log_set_format(KLAW_LOG_JSON);
    atomic_store(&klawi_log_context, NULL);
    atomic_store(&klawi_log_fiber, NULL);
    return close(sink);
}

/* Takes what was written; one line without its newline, or "" for none. */
static const char *taken(void) {
    ssize_t n = pread(sink, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    assert_int_equal(ftruncate(sink, 0), 0);
    assert_int_equal(lseek(sink, 0, SEEK_SET), 0);
    text_size = (size_t)n;
    text[text_size] = 0;
    if (text_size > 0) {
        assert_int_equal(text[text_size - 1], '\n');
        text[--text_size] = 0;
        assert_null(strchr(text, '\n'));
    }
    return text;
}

static const char *got(const char *key) {
    static char value[4096];
    bool found = text[0] == '{' ? json_get(text, text_size, key, value, sizeof value)
                                : logfmt_get(text, text_size, key, value, sizeof value);
    return found ? value : NULL;
}

static void take_valid(void) {
    taken();
    assert_true(text_size > 0 && text_size < KLAW_LOG_LINE_MAX);
    assert_true(text[0] == '{' ? json_valid(text, text_size) : logfmt_valid(text, text_size));
}

#define T(name) cmocka_unit_test_setup_teardown(name, open_sink, close_sink)

#endif
