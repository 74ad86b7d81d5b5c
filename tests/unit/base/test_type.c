/* SPDX-License-Identifier: Apache-2.0 */
/* test_type.c - the ready-made element types and blobs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "klaw/alloc.h"
#include "klaw/type.h"

static int nothing_leaks(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    return klaw_alloc_live() == 0 ? 0 : -1;
}

static void blob_copies_its_bytes(void **state) {
    (void)state;
    char text[] = "some bytes";
    klaw_blob *b = NULL;
    assert_int_equal(klaw_blob_new(text, sizeof text, &b), KLAW_OK);
    memset(text, 0, sizeof text);
    assert_int_equal(klaw_blob_size(b), sizeof text);
    assert_string_equal((char *)klaw_blob_data(b), "some bytes");
    assert_int_equal((uintptr_t)klaw_blob_data(b) % _Alignof(max_align_t), 0);
    klaw_blob_unref(b);
}

static void blob_without_data_is_zeroed(void **state) {
    (void)state;
    klaw_blob *b = NULL;
    unsigned char zeros[4096] = {0};
    assert_int_equal(klaw_blob_new(NULL, sizeof zeros, &b), KLAW_OK);
    assert_memory_equal(klaw_blob_data(b), zeros, sizeof zeros);
    klaw_blob_unref(b);
    assert_int_equal(klaw_blob_new(NULL, 0, &b), KLAW_OK);
    assert_int_equal(klaw_blob_size(b), 0);
    assert_non_null(klaw_blob_data(b));
    klaw_blob_unref(b);
    assert_int_equal(klaw_blob_new("", 0, &b), KLAW_OK);
    klaw_blob_unref(b);
}

static void blob_refuses_bad_arguments(void **state) {
    (void)state;
    klaw_blob *b = NULL;
    assert_int_equal(klaw_blob_new("x", 1, NULL), KLAW_INVALID);
    assert_int_equal(klaw_blob_new(NULL, ((size_t)1 << 40) + 1, &b), KLAW_LIMIT);
    assert_int_equal(klaw_blob_new(NULL, SIZE_MAX, &b), KLAW_LIMIT);
    assert_null(b);
    klaw_blob_unref(NULL);
}

static void blob_lives_until_its_last_reference(void **state) {
    (void)state;
    klaw_blob *b = NULL;
    assert_int_equal(klaw_blob_new("x", 2, &b), KLAW_OK);
    assert_ptr_equal(klaw_blob_ref(b), b);
    klaw_blob_unref(b);
    assert_string_equal((char *)klaw_blob_data(b), "x");
    assert_int_equal(klaw_alloc_live(), 1);
    klaw_blob_unref(b);
    assert_int_equal(klaw_alloc_live(), 0);
}

static void blob_answers_nomem(void **state) {
    (void)state;
    klaw_blob *b = NULL;
    for (int with = 0; with < 2; with++) {
        klaw_alloc_fail_at(1, false);
        assert_int_equal(klaw_blob_new(with ? "x" : NULL, 1, &b), KLAW_NOMEM);
        assert_null(b);
    }
}

static void u64_travels_as_eight_bytes(void **state) {
    (void)state;
    static const unsigned char wire[8] = {0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01};
    uint64_t v = 0x0102030405060708, back = 0;
    klaw_blob *b = NULL;
    assert_int_equal(klaw_u64.size, sizeof v);
    assert_null(klaw_u64.drop);
    assert_null(klaw_u64.share);
    assert_int_equal(klaw_u64.encode(&v, &b), KLAW_OK);
    assert_int_equal(klaw_blob_size(b), 8);
    assert_memory_equal(klaw_blob_data(b), wire, 8);
    assert_int_equal(klaw_u64.decode(klaw_blob_data(b), 8, &back), KLAW_OK);
    assert_true(back == v);
    klaw_blob_unref(b);
}

static void u64_refuses_other_sizes(void **state) {
    (void)state;
    unsigned char wire[9] = {1};
    uint64_t back = 77;
    assert_int_equal(klaw_u64.decode(wire, 7, &back), KLAW_CORRUPT);
    assert_int_equal(klaw_u64.decode(wire, 9, &back), KLAW_CORRUPT);
    assert_int_equal(klaw_u64.decode(wire, 0, &back), KLAW_CORRUPT);
    assert_int_equal(back, 77);
}

static void ptr_stays_in_the_process(void **state) {
    (void)state;
    assert_int_equal(klaw_ptr.size, sizeof(void *));
    assert_null(klaw_ptr.drop);
    assert_null(klaw_ptr.share);
    assert_null(klaw_ptr.encode);
    assert_null(klaw_ptr.decode);
    assert_non_null(klaw_ptr.name);
}

static void bytes_share_and_drop_count(void **state) {
    (void)state;
    klaw_blob *a = NULL, *b = NULL;
    assert_int_equal(klaw_blob_new("abc", 3, &a), KLAW_OK);
    assert_int_equal(klaw_bytes.share(&a, &b), KLAW_OK);
    assert_ptr_equal(a, b);
    klaw_bytes.drop(&a);
    assert_memory_equal(klaw_blob_data(b), "abc", 3);
    klaw_bytes.drop(&b);
    a = NULL;
    assert_int_equal(klaw_bytes.share(&a, &b), KLAW_OK);
    assert_null(b);
    klaw_bytes.drop(&a);
}

static void bytes_encode_and_decode(void **state) {
    (void)state;
    klaw_blob *a = NULL, *wire = NULL, *b = NULL;
    assert_int_equal(klaw_blob_new("abc", 3, &a), KLAW_OK);
    assert_int_equal(klaw_bytes.encode(&a, &wire), KLAW_OK);
    assert_int_equal(klaw_bytes.decode(klaw_blob_data(wire), 3, &b), KLAW_OK);
    assert_ptr_not_equal(a, b);
    assert_memory_equal(klaw_blob_data(b), "abc", 3);
    klaw_blob_unref(a);
    klaw_blob_unref(wire);
    klaw_blob_unref(b);
    assert_int_equal(klaw_bytes.decode("", 0, &b), KLAW_OK);
    assert_int_equal(klaw_blob_size(b), 0);
    klaw_blob_unref(b);
    b = NULL;
    assert_int_equal(klaw_bytes.encode(&b, &wire), KLAW_INVALID);
    klaw_alloc_fail_at(1, false);
    assert_int_equal(klaw_bytes.decode("x", 1, &b), KLAW_NOMEM);
    assert_null(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(blob_copies_its_bytes, nothing_leaks),
        cmocka_unit_test_teardown(blob_without_data_is_zeroed, nothing_leaks),
        cmocka_unit_test_teardown(blob_refuses_bad_arguments, nothing_leaks),
        cmocka_unit_test_teardown(blob_lives_until_its_last_reference, nothing_leaks),
        cmocka_unit_test_teardown(blob_answers_nomem, nothing_leaks),
        cmocka_unit_test_teardown(u64_travels_as_eight_bytes, nothing_leaks),
        cmocka_unit_test_teardown(u64_refuses_other_sizes, nothing_leaks),
        cmocka_unit_test_teardown(ptr_stays_in_the_process, nothing_leaks),
        cmocka_unit_test_teardown(bytes_share_and_drop_count, nothing_leaks),
        cmocka_unit_test_teardown(bytes_encode_and_decode, nothing_leaks),
    };
    return cmocka_run_group_tests_name("type", tests, NULL, NULL);
}
