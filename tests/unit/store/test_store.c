/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c - saving, loading, versions, lists; from fibers and from threads; two handles on one file. */
#include "support/runs.h"
#include "support/store.h"

static folder dir;

PLAIN(what_was_saved_is_loaded) {
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    SAME(save_value(s, "a", 10, 1), 1);
    SAME(save_value(s, "b", 100000, 2), 1);
    SAME(save_value(s, "empty", 0, 0), 1);
    SAME(save_value(s, "a", 20, 3), 2);
    SAME(load_value(s, "a", 20, 3), 2);
    SAME(load_value(s, "b", 100000, 2), 1);
    SAME(load_value(s, "empty", 0, 0), 1);
    klaw_store_unref(s);
    s = store_at(dir.file);
    SAME(load_value(s, "a", 20, 3), 2);
    SAME(load_value(s, "b", 100000, 2), 1);
    OK(klaw_store_check(s, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    folder_free(&dir);
}

RUNS(fibers_share_a_handle, 2) {
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    SAME(save_value(s, "a", 10, 1), 1);
    SAME(load_value(s, "a", 10, 1), 1);
    klaw_store_unref(s);
    folder_free(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_was_saved_is_loaded),
        TEST(fibers_share_a_handle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
