/* SPDX-License-Identifier: Apache-2.0 */
/* test_remote_look.c - looking into a remote queue: where klaw_broker_seek and klaw_broker_peek stand, and what the
 * calls of remote.h refuse before they ask anybody. What they answer is tested against Ray, in Python.
 *
 * Tried with these bugs seeded: the item at `after` itself visited, one more from the end. */
#include <string.h>

#include "klaw/remote.h"
#include "support/runs.h"

static klaw_broker *queue_of(unsigned items) {
    klaw_broker *b;
    klaw_broker_opts opts = {.channel = {1}, .boot = 7};
    OK(klaw_broker_new(&opts, &b));
    OK(klaw_broker_register(b, 1, KLAW_REMOTE_SENDER, NULL, NULL));
    for (unsigned char i = 0; i < items; i++)
        OK(klaw_broker_put(b, 2, 2, &(klaw_remote_item){.data = &i, .size = 1}, 1));
    return b;
}

/* The payloads after a place as digits, e.g. "012"; *last: the last one's place. */
static const char *seen(klaw_broker *b, uint64_t after, size_t most, uint64_t *last) {
    static char text[64];
    size_t n = 0;
    void *cursor = NULL;
    klaw_remote_item item;
    klaw_broker_seek(b, after, most, &cursor);
    for (uint64_t before = 0; n < most && klaw_broker_peek(b, &cursor, &item) == KLAW_OK;) {
        assert_true(item.place > before && (after == KLAW_BROKER_END || item.place > after));
        before = item.place;
        if (last)
            *last = item.place;
        text[n++] = (char)('0' + *(const unsigned char *)item.data);
        klaw_remote_free((void *)(uintptr_t)item.data);
    }
    text[n] = 0;
    return text;
}

PLAIN(look_pages_through_what_waits_and_takes_nothing) {
    uint64_t at = 0, end = 0;
    klaw_broker *b = queue_of(5);
    assert_string_equal(seen(b, 0, 2, &at), "01");
    assert_string_equal(seen(b, at, 2, &at), "23");
    assert_string_equal(seen(b, at, 2, &end), "4");
    assert_string_equal(seen(b, end, 2, NULL), "");
    assert_string_equal(seen(b, at, 9, NULL), "4");
    assert_string_equal(seen(b, KLAW_BROKER_END, 2, NULL), "34");
    assert_string_equal(seen(b, KLAW_BROKER_END, 5, NULL), "01234");
    assert_string_equal(seen(b, KLAW_BROKER_END, 60, NULL), "01234");
    klaw_broker_free(b);
}

PLAIN(look_goes_on_behind_an_item_that_was_taken) {
    uint64_t at = 0, missed;
    klaw_remote_item item;
    klaw_broker *b = queue_of(4);
    assert_string_equal(seen(b, 0, 2, &at), "01");
    for (int i = 0; i < 3; i++) {
        OK(klaw_broker_get(b, 3, 3, "", &item, &missed));
        klaw_remote_free((void *)(uintptr_t)item.data);
    }
    assert_string_equal(seen(b, at, 9, &at), "3");
    OK(klaw_broker_put(b, 4, 4, &(klaw_remote_item){.data = &(unsigned char){8}, .size = 1}, 1));
    assert_string_equal(seen(b, at, 9, NULL), "8");
    klaw_broker_free(b);
}

PLAIN(look_into_an_empty_queue_sees_nothing) {
    klaw_broker *b = queue_of(0);
    assert_string_equal(seen(b, 0, 3, NULL), "");
    assert_string_equal(seen(b, KLAW_BROKER_END, 3, NULL), "");
    klaw_broker_free(b);
}

static bool nobody(void *user, const klaw_remote_item *item) {
    (void)user, (void)item;
    return false;
}

PLAIN(look_refuses_what_makes_no_sense) {
    klaw_error_info info;
    klaw_remote_counts counts;
    klaw_remote_mark mark = {0};
    GIVES(klaw_remote_stats(NULL, NULL, &counts, &info), KLAW_INVALID);
    GIVES(klaw_remote_stats("", NULL, &counts, NULL), KLAW_INVALID);
    GIVES(klaw_remote_stats("x", NULL, NULL, &info), KLAW_INVALID);
    GIVES(klaw_remote_peek(NULL, &mark, 1, NULL, nobody, NULL, &info), KLAW_INVALID);
    GIVES(klaw_remote_peek("x", NULL, 1, NULL, nobody, NULL, &info), KLAW_INVALID);
    GIVES(klaw_remote_peek("x", &mark, 0, NULL, nobody, NULL, &info), KLAW_INVALID);
    GIVES(klaw_remote_peek("x", &mark, 1, NULL, NULL, NULL, &info), KLAW_INVALID);
    assert_true(*info.message);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(look_pages_through_what_waits_and_takes_nothing),
        TEST(look_goes_on_behind_an_item_that_was_taken),
        TEST(look_into_an_empty_queue_sees_nothing),
        TEST(look_refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests_name("remote look", tests, NULL, NULL);
}
