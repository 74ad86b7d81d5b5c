/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c - saving, loading, versions, lists; fibers, threads and other connections on one file; closing,
 * waiting, cancelling; transactions of the internal door. */
#include "store/store_core.h"
#include "support/runs.h"
#include "support/store.h"

static folder dir;
static klaw_store *store;

static void begin_with(klaw_store_opts o) {
    dir = folder_make();
    store = store_with(dir.file, o);
}
static void begin(void) {
    begin_with((klaw_store_opts){.keep = 0});
}
static void end(void) {
    klaw_store_unref(store);
    folder_free(&dir);
}
static void again(klaw_store_opts o) {
    klaw_store_unref(store);
    store = store_with(dir.file, o);
}

static klaw_err load_of(const char *key, uint64_t version) {
    klaw_blob *b = NULL;
    klaw_err e = version ? klaw_store_load_version(store, key, version, &b, KLAW_FOREVER, NULL)
                         : klaw_store_load(store, key, &b, NULL, KLAW_FOREVER, NULL);
    CHECK((b != NULL) == (e == KLAW_OK));
    klaw_blob_unref(b);
    return e;
}
static size_t versions_of(const char *key) {
    klaw_store_entries all;
    klaw_err e = klaw_store_versions(store, key, &all, KLAW_FOREVER, NULL);
    size_t n = all.n;
    CHECK(e == (n ? KLAW_OK : KLAW_NOT_FOUND));
    klaw_store_entries_free(&all);
    return n;
}
static klaw_store_counts counts_of(klaw_store *s) {
    klaw_store_counts c;
    OK(klaw_store_stats(s, &c, KLAW_FOREVER, NULL));
    return c;
}

/* ---- values and versions ---- */

PLAIN(what_was_saved_is_loaded_also_by_the_next_handle) {
    static const size_t sizes[] = {0, 1, 7, 8, 100, 4000, 4088, 4096, 10000, 100000, 3000000};
    char key[16];
    begin();
    for (int again_ = 0; again_ < 2; again_++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            snprintf(key, sizeof key, "size %zu", sizes[i]);
            if (!again_)
                SAME(save_value(store, key, sizes[i], i), 1);
            SAME(load_value(store, key, sizes[i], i), 1);
        }
        again((klaw_store_opts){.keep = 0});
    }
    OK(klaw_store_check(store, NULL, KLAW_FOREVER, NULL));
    end();
}

PLAIN(the_last_three_versions_are_kept) {
    begin();
    for (uint64_t i = 1; i <= 10; i++)
        SAME(save_value(store, "k", 50, i), i);
    SAME(versions_of("k"), 3);
    for (uint64_t i = 1; i <= 10; i++)
        GIVES(load_of("k", i), i < 8 ? KLAW_NOT_FOUND : KLAW_OK);
    SAME(load_value(store, "k", 50, 10), 10);
    end();
}

PLAIN(as_many_versions_are_kept_as_asked_for) {
    begin_with((klaw_store_opts){.keep = KLAW_NONE});
    for (uint64_t i = 1; i <= 40; i++)
        SAME(save_value(store, "k", 50, i), i);
    SAME(versions_of("k"), 40);
    again((klaw_store_opts){.keep = 1});
    SAME(versions_of("k"), 40); /* until the next save */
    SAME(save_value(store, "k", 50, 41), 41);
    SAME(versions_of("k"), 1);
    end();
}

PLAIN(versions_go_on_after_one_was_deleted) {
    begin();
    for (uint64_t i = 1; i <= 3; i++)
        SAME(save_value(store, "k", 5, i), i);
    OK(klaw_store_delete(store, "k", 2, KLAW_FOREVER, NULL));
    GIVES(klaw_store_delete(store, "k", 2, KLAW_FOREVER, NULL), KLAW_NOT_FOUND);
    GIVES(load_of("k", 2), KLAW_NOT_FOUND);
    SAME(save_value(store, "k", 5, 4), 4);
    SAME(versions_of("k"), 3);
    OK(klaw_store_delete(store, "k", 0, KLAW_FOREVER, NULL));
    GIVES(load_of("k", 0), KLAW_NOT_FOUND);
    SAME(versions_of("k"), 0);
    GIVES(klaw_store_delete(store, "k", 0, KLAW_FOREVER, NULL), KLAW_NOT_FOUND);
    end();
}

PLAIN(versions_are_listed_newest_first) {
    klaw_store_entries all;
    begin();
    for (uint64_t i = 1; i <= 5; i++)
        SAME(save_value(store, "k", 10 * i, i), i);
    OK(klaw_store_versions(store, "k", &all, KLAW_FOREVER, NULL));
    SAME(all.n, 3);
    for (size_t i = 0; i < all.n; i++) {
        SAME(all.entries[i].version, 5 - i);
        SAME(all.entries[i].size, 10 * (5 - i));
        SAME(all.entries[i].versions, 3);
        CHECK(strcmp(all.entries[i].key, "k") == 0);
        CHECK(all.entries[i].saved_at > 0);
    }
    klaw_store_entries_free(&all);
    SAME(all.n, 0);
    end();
}

static void listed(const char *prefix, const char *want) {
    klaw_store_entries all;
    char got[256] = "";
    OK(klaw_store_list(store, prefix, &all, KLAW_FOREVER, NULL));
    for (size_t i = 0; i < all.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s:%u ", all.entries[i].key,
                 (unsigned)all.entries[i].version);
    klaw_store_entries_free(&all);
    if (strcmp(got, want) != 0)
        check_failed(__FILE__, __LINE__, want, got);
}

PLAIN(keys_are_listed_by_prefix_in_order) {
    begin();
    listed(NULL, "");
    static const char *const keys[] = {"b",     "a/2",       "a/1",      "a", "a/1",
                                       "a\xff", "a\xff\xff", "\xff\xff", "A"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        (void)save_value(store, keys[i], 3, i);
    listed(NULL, "A:1 a:1 a/1:2 a/2:1 a\xff:1 a\xff\xff:1 b:1 \xff\xff:1 ");
    listed("", "A:1 a:1 a/1:2 a/2:1 a\xff:1 a\xff\xff:1 b:1 \xff\xff:1 ");
    listed("a", "a:1 a/1:2 a/2:1 a\xff:1 a\xff\xff:1 ");
    listed("a/", "a/1:2 a/2:1 ");
    listed("a\xff", "a\xff:1 a\xff\xff:1 ");
    listed("\xff", "\xff\xff:1 ");
    listed("c", "");
    end();
}

PLAIN(wrong_arguments_are_refused) {
    char long_key[KLAW_STORE_KEY_MAX + 2];
    klaw_blob *b;
    klaw_store_entries all;
    klaw_error_info info;
    klaw_store *none = NULL;
    begin();
    memset(long_key, 'k', sizeof long_key);
    long_key[KLAW_STORE_KEY_MAX + 1] = '\0';
    GIVES(klaw_store_save(store, long_key, "x", 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "1023"));
    GIVES(klaw_store_save(store, "", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_save(store, NULL, "x", 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_save(store, "k", NULL, 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_save(NULL, "k", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_save(store, "k", "x", KLAW_STORE_VALUE_MAX + 1, NULL, KLAW_FOREVER, &info),
          KLAW_LIMIT);
    GIVES(klaw_store_load(store, "", &b, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_load(store, "k", NULL, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_load_version(store, "k", 0, &b, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_load_version(store, "k", UINT64_MAX, &b, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_versions(store, NULL, &all, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_list(store, long_key, &all, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_delete(store, "", 0, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_stats(store, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_check(NULL, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_store_open(dir.file, &(klaw_store_opts){.keep = -2}, &none, &info), KLAW_INVALID);
    GIVES(klaw_store_open(dir.file, NULL, NULL, &info), KLAW_INVALID);
    long_key[KLAW_STORE_KEY_MAX] = '\0';
    SAME(save_value(store, long_key, 3, 1), 1);
    SAME(load_value(store, long_key, 3, 1), 1);
    GIVES(klaw_store_load(store, "nobody", &b, NULL, KLAW_FOREVER, &info), KLAW_NOT_FOUND);
    CHECK(strstr(info.message, dir.file + 5) && strstr(info.message, "nobody"));
    end();
}

PLAIN(stats_count) {
    begin();
    for (uint64_t i = 0; i < 5; i++)
        (void)save_value(store, i % 2 ? "a" : "b", 100, i);
    (void)load_value(store, "b", 100, 4);
    klaw_store_counts c = counts_of(store);
    SAME(c.keys, 2);
    SAME(c.versions, 5);
    SAME(c.value_bytes, 500);
    SAME(c.saves, 5);
    SAME(c.loads, 1);
    SAME(c.damage_met, 0);
    SAME(c.schema, klawi_store_schema_newest);
    size_t size;
    free(file_bytes(dir.file, &size));
    SAME(c.file_bytes, size);
    CHECK(strcmp(c.journal, sqlite3_libversion_number() >= 3051003 ? "wal" : "delete") == 0);
    CHECK(strcmp(c.sqlite, sqlite3_libversion()) == 0);
    CHECK(strstr(klaw_store_path(store), "/klaw.db"));
    end();
}

/* ---- many at once ---- */

#define SHARERS 12
#define TIMES 6

static klaw_err shares(void *arg) {
    char key[16];
    uint64_t me = (uint64_t)(uintptr_t)arg;
    klaw_store *s = klaw_store_ref(store);
    snprintf(key, sizeof key, "of %u", (unsigned)me);
    for (uint64_t i = 1; i <= TIMES; i++) {
        SAME(save_value(s, key, 200, i), i);
        SAME(load_value(s, key, 200, i), i);
        OK(klaw_store_save(s, "all", &me, sizeof me, NULL, KLAW_FOREVER, NULL));
    }
    klaw_store_unref(s);
    return KLAW_OK;
}

RUNS(fibers_and_threads_share_a_handle, 2) {
    klaw_fiber *f[SHARERS];
    thread_job t[2];
    begin();
    for (uintptr_t i = 0; i < SHARERS; i++)
        f[i] = fiber(shares, (void *)i);
    for (uintptr_t i = 0; i < 2; i++)
        thread_start(&t[i], shares, (void *)(SHARERS + i));
    for (int i = 0; i < SHARERS; i++)
        OK(result_of(f[i]));
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
    klaw_store_entries all;
    OK(klaw_store_versions(store, "all", &all, KLAW_FOREVER, NULL));
    SAME(all.entries[0].version, (SHARERS + 2) * TIMES); /* none was lost */
    klaw_store_entries_free(&all);
    OK(klaw_store_check(store, NULL, KLAW_FOREVER, NULL));
    end();
}

static klaw_err own_handle(void *arg) {
    klaw_store *s = store_at(dir.file);
    for (int i = 0; i < TIMES; i++)
        OK(klaw_store_save(s, "all", &arg, sizeof arg, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    return KLAW_OK;
}

RUNS(handles_of_one_file_wait_for_one_another, 2) {
    klaw_fiber *f[4];
    begin();
    for (int i = 0; i < 4; i++)
        f[i] = fiber(own_handle, NULL);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
    klaw_store_entries all;
    OK(klaw_store_versions(store, "all", &all, KLAW_FOREVER, NULL));
    SAME(all.entries[0].version, 4 * TIMES);
    klaw_store_entries_free(&all);
    end();
}

/* ---- locks of others ---- */

/* Another program on the file. */
static sqlite3 *lock_file(const char *how) {
    sqlite3 *db = NULL;
    SAME(sqlite3_open_v2(dir.file, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    SAME(sqlite3_exec(db, how, NULL, NULL, NULL), SQLITE_OK);
    return db;
}

RUNS(a_locked_file_is_waited_for_until_the_deadline, 2) {
    klaw_error_info info;
    klaw_blob *b = NULL;
    begin();
    (void)save_value(store, "k", 10, 1);
    sqlite3 *db = lock_file("BEGIN EXCLUSIVE");
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_NOWAIT, &info), KLAW_TIMEOUT);
    CHECK(strstr(info.message, "locked by another process") && strstr(info.message, "klaw.db"));
    int64_t start = klaw_now();
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_WITHIN(KLAW_MS(40)), &info), KLAW_TIMEOUT);
    CHECK(klaw_now() - start >= KLAW_MS(40));
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, 1, NULL), KLAW_TIMEOUT); /* long ago */
    if (!store->wal)
        GIVES(klaw_store_load(store, "k", &b, NULL, KLAW_NOWAIT, &info), KLAW_TIMEOUT);
    sqlite3_close(db);
    SAME(load_value(store, "k", 10, 1), 1);
    SAME(save_value(store, "k", 10, 2), 2);
    end();
}

static _Atomic int refused; /* saves that met a closed store */

static klaw_err saves_patiently(void *arg) {
    (void)arg;
    klaw_err e = klaw_store_save(store, "k", "x", 1, NULL, KLAW_FOREVER, NULL);
    if (e != KLAW_CLOSED)
        return e;
    atomic_fetch_add(&refused, 1);
    return KLAW_OK;
}

RUNS(a_wait_for_a_lock_ends_with_the_lock, 2) {
    begin();
    sqlite3 *db = lock_file("BEGIN IMMEDIATE");
    klaw_fiber *f = fiber(saves_patiently, NULL);
    UNTIL(waiting("fiber", "sleep") == 1);
    sqlite3_close(db);
    OK(result_of(f));
    GIVES(load_of("k", 0), KLAW_OK);
    end();
}

RUNS(a_wait_for_a_lock_can_be_cancelled, 2) {
    begin();
    sqlite3 *db = lock_file("BEGIN IMMEDIATE");
    klaw_fiber *f = fiber(saves_patiently, NULL);
    UNTIL(waiting("fiber", "sleep") == 1);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
    sqlite3_close(db);
    GIVES(load_of("k", 0), KLAW_NOT_FOUND);
    end();
}

RUNS(opening_a_locked_file_ends_at_its_deadline, 1) {
    klaw_error_info info;
    klaw_store *s = NULL;
    begin();
    klaw_store_unref(store);
    sqlite3 *db = lock_file("BEGIN EXCLUSIVE");
    klaw_store_opts o = {.deadline = KLAW_WITHIN(KLAW_MS(30))};
    GIVES(klaw_store_open(dir.file, &o, &s, &info), KLAW_TIMEOUT);
    CHECK(strstr(info.message, "locked by another process"));
    sqlite3_close(db);
    store = store_with(dir.file, o);
    end();
}

PLAIN(a_reader_that_stays_delays_a_save_and_loses_nothing) {
    klaw_error_info info;
    begin();
    (void)save_value(store, "k", 10, 1);
    sqlite3 *db = lock_file("BEGIN; SELECT count(*) FROM checkpoint");
    if (!store->wal)
        GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_WITHIN(KLAW_MS(30)), &info),
              KLAW_TIMEOUT);
    SAME(load_value(store, "k", 10, 1), 1);
    sqlite3_close(db);
    (void)save_value(store, "k", 10, 2);
    end();
}

/* ---- the turn, closing, cancelling ---- */

static _Atomic bool inside, leave;

static klaw_err stays(klawi_store_tx *tx, void *arg) {
    (void)tx;
    (void)arg;
    atomic_store(&inside, true);
    while (!atomic_load(&leave))
        klawi_thread_nap(KLAW_MS(1));
    return KLAW_OK;
}
static klaw_err holds(void *arg) {
    (void)arg;
    return klawi_store_read(store, stays, NULL, KLAW_FOREVER, NULL);
}
static klaw_fiber *hold(void) {
    atomic_store(&inside, false);
    atomic_store(&leave, false);
    klaw_fiber *f = fiber(holds, NULL);
    UNTIL(atomic_load(&inside));
    return f;
}

RUNS(a_turn_is_waited_for_until_the_deadline, 2) {
    klaw_error_info info;
    begin();
    klaw_fiber *f = hold();
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_NOWAIT, &info), KLAW_TIMEOUT);
    CHECK(strstr(info.message, "others used this handle"));
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_WITHIN(KLAW_MS(20)), &info), KLAW_TIMEOUT);
    klaw_fiber *w[3];
    for (int i = 0; i < 3; i++)
        w[i] = fiber(saves_patiently, NULL);
    UNTIL(waiting("fiber", "blocking") == 4);
    klaw_fiber_cancel(w[1]);
    GIVES(result_of(w[1]), KLAW_CANCELLED);
    atomic_store(&leave, true);
    OK(result_of(f));
    OK(result_of(w[0]));
    OK(result_of(w[2]));
    SAME(versions_of("k"), 2);
    end();
}

RUNS(closing_ends_all_waits, 2) {
    begin();
    klaw_fiber *f = hold(), *w[3];
    thread_job t;
    for (int i = 0; i < 3; i++)
        w[i] = fiber(saves_patiently, NULL);
    thread_start(&t, saves_patiently, NULL);
    UNTIL(waiting("fiber", "blocking") == 4);
    klaw_store_close(store);
    klaw_store_close(store);
    for (int i = 0; i < 3; i++)
        OK(result_of(w[i]));
    OK(thread_end(&t));
    SAME(atomic_exchange(&refused, 0), 4);
    GIVES(load_of("k", 0), KLAW_CLOSED);
    atomic_store(&leave, true);
    OK(result_of(f)); /* what was under way is finished */
    GIVES(load_of("k", 0), KLAW_CLOSED);
    klaw_store_close(NULL);
    klaw_store_unref(NULL);
    end();
}

static klaw_err saves_cancelled(void *arg) {
    (void)arg;
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_store_save(store, "k", "x", 1, NULL, KLAW_FOREVER, NULL), KLAW_CANCELLED);
    klaw_store *s = NULL;
    GIVES(klaw_store_open(dir.file, NULL, &s, NULL), KLAW_CANCELLED);
    return KLAW_OK;
}

RUNS(a_cancelled_fiber_saves_nothing, 1) {
    begin();
    klaw_fiber *f = fiber(saves_cancelled, NULL);
    UNTIL(waiting("fiber", "sleep") == 1);
    klaw_fiber_cancel(f);
    OK(result_of(f));
    SAME(versions_of("k"), 0);
    end();
}

/* ---- the internal door ---- */

typedef struct two {
    klaw_err answer;
    int runs;
} two;

static klaw_err inserts_two(klawi_store_tx *tx, void *arg) {
    two *t = arg;
    t->runs++;
    for (int i = 0; i < 2; i++) {
        sqlite3_stmt *st;
        OK(klawi_tx_stmt(tx,
                         "INSERT INTO checkpoint (key, version, saved_at, size, sum, bytes)"
                         " VALUES (?1, ?2, 0, 0, 0, zeroblob(0))",
                         &st));
        OK(klawi_tx_result(tx, sqlite3_bind_text(st, 1, "two", -1, SQLITE_STATIC)));
        OK(klawi_tx_result(tx, sqlite3_bind_int(st, 2, i)));
        klaw_err e = klawi_tx_run(tx, st);
        if (e)
            return e;
        SAME(klawi_tx_changes(tx), 1);
    }
    return t->answer ? klawi_tx_fail(tx, t->answer, "number %d", 7) : KLAW_OK;
}

PLAIN(a_transaction_is_kept_or_rolled_back_as_a_whole) {
    klaw_error_info info;
    two t = {.answer = KLAW_EXISTS};
    begin();
    GIVES(klawi_store_write(store, inserts_two, &t, KLAW_FOREVER, &info), KLAW_EXISTS);
    CHECK(strstr(info.message, "number 7") && strstr(info.message, "klaw.db"));
    SAME(counts_of(store).versions, 0);
    t.answer = KLAW_OK;
    OK(klawi_store_write(store, inserts_two, &t, KLAW_FOREVER, &info));
    SAME(counts_of(store).versions, 2);
    SAME(t.runs, 2);
    GIVES(klawi_store_write(store, inserts_two, &t, KLAW_FOREVER, &info),
          KLAW_BACKEND); /* not unique */
    CHECK(strstr(info.message, "UNIQUE"));
    SAME(counts_of(store).versions, 2);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_was_saved_is_loaded_also_by_the_next_handle),
        TEST(the_last_three_versions_are_kept),
        TEST(as_many_versions_are_kept_as_asked_for),
        TEST(versions_go_on_after_one_was_deleted),
        TEST(versions_are_listed_newest_first),
        TEST(keys_are_listed_by_prefix_in_order),
        TEST(wrong_arguments_are_refused),
        TEST(stats_count),
        TEST(fibers_and_threads_share_a_handle),
        TEST(handles_of_one_file_wait_for_one_another),
        TEST(a_locked_file_is_waited_for_until_the_deadline),
        TEST(a_wait_for_a_lock_ends_with_the_lock),
        TEST(a_wait_for_a_lock_can_be_cancelled),
        TEST(opening_a_locked_file_ends_at_its_deadline),
        TEST(a_reader_that_stays_delays_a_save_and_loses_nothing),
        TEST(a_turn_is_waited_for_until_the_deadline),
        TEST(closing_ends_all_waits),
        TEST(a_cancelled_fiber_saves_nothing),
        TEST(a_transaction_is_kept_or_rolled_back_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
