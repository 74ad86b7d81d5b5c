/* SPDX-License-Identifier: Apache-2.0 */
/* test_store_oom.c - the n-th allocation fails, klaw's own or SQLite's, for every n until a run gets through: the call
 * says NOMEM, nothing leaks, what was confirmed is there, and the next run works. Of SQLite's many
 * points every second one outside of the soak slice. */
#include <sqlite3.h>

#include "support/runs.h"
#include "support/store.h"

static folder dir;

/* ---- SQLite's memory, with the same sort of failures ---- */

static sqlite3_mem_methods real;
static uint64_t points, fail_at;
static bool sticky_;

static bool fails(void) {
    if (fail_at == 0)
        return false;
    points++;
    return points == fail_at || (sticky_ && points > fail_at);
}
static void *mem_malloc(int n) {
    return fails() ? NULL : real.xMalloc(n);
}
static void *mem_realloc(void *p, int n) {
    return fails() ? NULL : real.xRealloc(p, n);
}

static int config(void **state) {
    (void)state;
    sqlite3_mem_methods mine;
    SAME(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real), SQLITE_OK);
    mine = real;
    mine.xMalloc = mem_malloc;
    mine.xRealloc = mem_realloc;
    SAME(sqlite3_config(SQLITE_CONFIG_MALLOC, &mine), SQLITE_OK);
    SAME(sqlite3_initialize(), SQLITE_OK);
    return 0;
}

/* ---- a bit of everything ---- */

static uint64_t confirmed; /* the last version of "k" that was confirmed */

static klaw_err all_calls(klaw_store *s) {
    klaw_blob *b = NULL;
    klaw_store_entries all;
    klaw_store_counts counts;
    static unsigned char value[9000];
    uint64_t version = 0;
    klaw_err e = klaw_store_save(s, "k", value, sizeof value, &version, KLAW_FOREVER, NULL);
    if (e)
        return e;
    SAME(version, confirmed + 1);
    confirmed = version;
    if ((e = klaw_store_load(s, "k", &b, &version, KLAW_FOREVER, NULL)) != KLAW_OK)
        return e;
    SAME(version, confirmed);
    SAME(klaw_blob_size(b), sizeof value);
    klaw_blob_unref(b);
    if ((e = klaw_store_load_version(s, "k", version, &b, KLAW_FOREVER, NULL)) != KLAW_OK)
        return e;
    klaw_blob_unref(b);
    if ((e = klaw_store_list(s, "k", &all, KLAW_FOREVER, NULL)) != KLAW_OK)
        return e;
    SAME(all.n, 1);
    klaw_store_entries_free(&all);
    if ((e = klaw_store_versions(s, "k", &all, KLAW_FOREVER, NULL)) != KLAW_OK)
        return e;
    klaw_store_entries_free(&all);
    if ((e = klaw_store_save(s, "gone", "x", 1, NULL, KLAW_FOREVER, NULL)) != KLAW_OK ||
        (e = klaw_store_delete(s, "gone", 0, KLAW_FOREVER, NULL)) != KLAW_OK ||
        (e = klaw_store_stats(s, &counts, KLAW_FOREVER, NULL)) != KLAW_OK)
        return e;
    return klaw_store_check(s, NULL, KLAW_FOREVER, NULL);
}

static klaw_err everything(void *arg) {
    klaw_store *s = NULL;
    (void)arg;
    klaw_err e = klaw_store_open(dir.file, NULL, &s, NULL);
    if (e)
        return e;
    e = all_calls(s);
    klaw_store_unref(s);
    return e;
}

static bool sqlite_fails, on_fiber;

static klaw_err run_once(void) {
    return on_fiber ? klaw_run(everything, NULL, &(klaw_run_opts){.workers = 1}) : everything(NULL);
}

/* Fails at n; true when that was beyond the last point. */
static bool attempt(uint64_t n, bool sticky) {
    dir = folder_make();
    confirmed = 0;
    OK(everything(NULL));
    CHECK(runs_nothing_left());
    if (sqlite_fails) {
        points = 0;
        sticky_ = sticky;
        fail_at = n;
    } else {
        klaw_alloc_fail_at(n, sticky);
    }
    klaw_err e = run_once();
    bool beyond = (sqlite_fails ? points : klaw_alloc_points()) < n;
    klaw_alloc_fail_at(0, false);
    fail_at = 0;
    if (beyond)
        OK(e);
    CHECK(e == KLAW_OK || e == KLAW_NOMEM || (on_fiber && e == KLAW_SYSTEM));
    CHECK(runs_nothing_left());
    klaw_store *s = store_at(dir.file);
    klaw_blob *b = NULL;
    uint64_t version = 0;
    OK(klaw_store_load(s, "k", &b, &version, KLAW_FOREVER, NULL));
    SAME(version, confirmed);
    klaw_blob_unref(b);
    klaw_store_unref(s);
    OK(everything(NULL)); /* the next one works */
    folder_free(&dir);
    return beyond;
}

static void every_point(bool sqlite, bool fiber_, bool sticky) {
    const char *slice = getenv("KLAW_TEST_SLICE");
    uint64_t step = !sqlite || (slice && strcmp(slice, "soak") == 0) ? 1 : sticky ? 7 : 2;
    sqlite_fails = sqlite;
    on_fiber = fiber_;
    uint64_t n = 1;
    for (int quiet = 0; quiet < 3; n += step) {
        quiet = attempt(n, sticky) ? quiet + 1 : 0;
        CHECK(n < 20000);
    }
    printf("%" PRIu64 " points%s\n", n, sticky ? ", and all later ones" : "");
}

PLAIN(every_allocation_of_klaw_on_a_thread) {
    every_point(false, false, false);
    every_point(false, false, true);
}
PLAIN(every_allocation_of_klaw_on_a_fiber) {
    every_point(false, true, false);
}
PLAIN(every_allocation_of_sqlite) {
    every_point(true, false, false);
    every_point(true, false, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_allocation_of_klaw_on_a_thread),
        TEST(every_allocation_of_klaw_on_a_fiber),
        TEST(every_allocation_of_sqlite),
    };
    return cmocka_run_group_tests(tests, config, NULL);
}
