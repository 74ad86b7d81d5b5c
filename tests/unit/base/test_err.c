/* SPDX-License-Identifier: Apache-2.0 */
/* test_err.c - every code has its own name and text; a number that is none is harmless. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "klaw/klaw.h"

static const struct {
    klaw_err code;
    int number;
    const char *name;
} codes[] = {
#define ROW(name, number, text) {KLAW_##name, number, "KLAW_" #name},
    KLAW_ERR_LIST(ROW)
#undef ROW
};
#define CODES (sizeof codes / sizeof codes[0])

static void err_names_are_as_in_the_source(void **state) {
    (void)state;
    for (size_t i = 0; i < CODES; i++) {
        assert_int_equal(codes[i].code, codes[i].number);
        assert_string_equal(klaw_err_name(codes[i].code), codes[i].name);
    }
    assert_int_equal(KLAW_OK, 0);
    assert_int_equal(CODES, 18);
}

static void err_texts_differ_and_are_lower_case(void **state) {
    (void)state;
    for (size_t i = 0; i < CODES; i++) {
        const char *text = klaw_err_text(codes[i].code);
        assert_true(strlen(text) > 0);
        assert_true(text[0] >= 'a' && text[0] <= 'z');
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(text, klaw_err_text(codes[k].code));
    }
}

static void err_unknown_numbers_have_a_name(void **state) {
    (void)state;
    static const int strange[] = {-1, (int)CODES, 1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        assert_string_equal(klaw_err_name((klaw_err)strange[i]), "KLAW_?");
        assert_string_equal(klaw_err_text((klaw_err)strange[i]), "unknown code");
    }
}

static void version_is_that_of_the_headers(void **state) {
    (void)state;
    assert_string_equal(klaw_version(), KLAW_VERSION);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_names_are_as_in_the_source),
        cmocka_unit_test(err_texts_differ_and_are_lower_case),
        cmocka_unit_test(err_unknown_numbers_have_a_name),
        cmocka_unit_test(version_is_that_of_the_headers),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
