/* SPDX-License-Identifier: Apache-2.0 */
/* test_open.c - where a store lies, who may get at it, and what is refused: other people's folders, other programs'
 * files, newer schemas, damaged files. A refused file is left as it was. */
#include <errno.h>
#include <sys/syscall.h>

#include "store/store_core.h"
#include "support/runs.h"
#include "support/store.h"

static folder dir;
static klaw_error_info info;

static klaw_err opens_with(const char *path, klaw_store_opts o) {
    klaw_store *s = NULL;
    memset(&info, 0, sizeof info);
    klaw_err e = klaw_store_open(path, &o, &s, &info);
    CHECK((s != NULL) == (e == KLAW_OK));
    klaw_store_unref(s);
    return e;
}
static klaw_err opens(const char *path) {
    return opens_with(path, (klaw_store_opts){.keep = 0});
}
static bool says(const char *text) {
    return strstr(info.message, text) != NULL;
}
static void exec_on(const char *path, const char *sql) {
    sqlite3 *db = NULL;
    SAME(sqlite3_open(path, &db), SQLITE_OK);
    SAME(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    SAME(sqlite3_close(db), SQLITE_OK);
}
/* It is refused with that code, its message names it, and not a byte of it changes. */
static void refused_as_it_is(klaw_err want) {
    size_t n, m;
    unsigned char *before = file_bytes(dir.file, &n);
    GIVES(opens(dir.file), want);
    CHECK(says(dir.file));
    CHECK(strcmp(info.backend, "sqlite") == 0);
    unsigned char *after = file_bytes(dir.file, &m);
    CHECK(n == m && memcmp(before, after, n) == 0);
    free(before);
    free(after);
}

/* ---- where ---- */

static klaw_err sees_modes(klawi_store_tx *tx, void *arg) {
    char name[320];
    (void)arg;
    sqlite3_stmt *st;
    OK(klawi_tx_stmt(tx, "DELETE FROM checkpoint", &st));
    OK(klawi_tx_run(tx, st));
    snprintf(name, sizeof name, "%s-%s", tx->store->path, tx->store->wal ? "wal" : "journal");
    SAME(mode_of(name), 0600);
    return KLAW_OK;
}

PLAIN(the_file_and_what_is_beside_it_belong_to_the_user_alone) {
    char deep[400], file[420];
    dir = folder_make();
    snprintf(deep, sizeof deep, "%s/new/deeper", dir.path);
    snprintf(file, sizeof file, "%s/x.db", deep);
    mode_t mask = umask(0);
    klaw_store *s = store_at(file);
    SAME(umask(mask), 0); /* as it was */
    SAME(mode_of(deep), 0700);
    SAME(mode_of(file), 0600);
    (void)save_value(s, "k", 10, 1);
    mask = umask(0);
    OK(klawi_store_write(s, sees_modes, NULL, KLAW_FOREVER, NULL));
    umask(mask);
    klaw_store_unref(s);
    folder_free(&dir);
}

PLAIN(a_folder_means_the_file_in_it) {
    char path[300];
    dir = folder_make();
    OK(opens(dir.path));
    SAME(mode_of(dir.file), 0600);
    snprintf(path, sizeof path, "%s/other/", dir.path);
    OK(opens(path));
    snprintf(path, sizeof path, "%s/other/klaw.db", dir.path);
    SAME(mode_of(path), 0600);
    folder_free(&dir);
}

PLAIN(by_default_it_lies_in_the_home_folder) {
    char path[320], *home = getenv("HOME");
    dir = folder_make();
    home = home ? strdup(home) : NULL;
    setenv("HOME", dir.path, 1);
    OK(opens(NULL));
    snprintf(path, sizeof path, "%s/.klaw/checkpoints/klaw.db", dir.path);
    SAME(mode_of(path), 0600);
    snprintf(path, sizeof path, "%s/.klaw/checkpoints", dir.path);
    SAME(mode_of(path), 0700);
    snprintf(path, sizeof path, "%s/.klaw", dir.path);
    SAME(mode_of(path), 0700);
    if (home)
        setenv("HOME", home, 1);
    free(home);
    folder_free(&dir);
}

PLAIN(a_file_with_more_rights_loses_them) {
    dir = folder_make();
    OK(opens(dir.file));
    SAME(chmod(dir.file, 0644), 0);
    OK(opens(dir.file));
    SAME(mode_of(dir.file), 0600);
    folder_free(&dir);
}

PLAIN(a_folder_that_others_may_write_is_refused) {
    static const mode_t modes[] = {0777, 01777, 0770, 0702};
    dir = folder_make();
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        SAME(chmod(dir.path, modes[i]), 0);
        GIVES(opens(dir.file), KLAW_INVALID);
        CHECK(says("others may write") && says(dir.path + 5));
        CHECK(access(dir.file, F_OK) != 0);
    }
    SAME(chmod(dir.path, 0755), 0);
    OK(opens(dir.file));
    folder_free(&dir);
}

PLAIN(only_a_regular_file_can_be_a_store) {
    char other[300], link[300];
    dir = folder_make();
    snprintf(other, sizeof other, "%s/other.db", dir.path);
    snprintf(link, sizeof link, "%s/link.db", dir.path);
    OK(opens(other));
    SAME(symlink(other, link), 0);
    GIVES(opens(link), KLAW_INVALID);
    CHECK(says("no regular file") && says("link.db"));
    SAME(mkfifo(dir.file, 0600), 0);
    GIVES(opens(dir.file), KLAW_INVALID);
    CHECK(says("no regular file"));
    GIVES(opens(""), KLAW_INVALID);
    snprintf(link, sizeof link, "%s/other.db/x.db", dir.path);
    CHECK(opens(link) != KLAW_OK); /* a file is no folder */
    CHECK(says("other.db"));
    folder_free(&dir);
}

/* ---- whose ---- */

PLAIN(what_is_no_database_is_refused) {
    char text[9000];
    dir = folder_make();
    memset(text, 'x', sizeof text);
    file_write(dir.file, text, sizeof text);
    refused_as_it_is(KLAW_CORRUPT);
    CHECK(says("no SQLite database"));
    file_write(dir.file, "short", 5);
    refused_as_it_is(KLAW_CORRUPT);
    folder_free(&dir);
}

PLAIN(another_programs_database_is_refused) {
    dir = folder_make();
    exec_on(dir.file, "CREATE TABLE notes (t); INSERT INTO notes VALUES ('hello')");
    SAME(chmod(dir.file, 0600), 0);
    refused_as_it_is(KLAW_INVALID);
    CHECK(says("another program"));
    exec_on(dir.file, "PRAGMA journal_mode=WAL; INSERT INTO notes VALUES ('more')");
    refused_as_it_is(KLAW_INVALID);
    folder_free(&dir);
}

/* What another program does to a store: it writes pages without our checksums. */
PLAIN(a_store_that_another_program_wrote_to_is_damaged) {
    dir = folder_make();
    OK(opens(dir.file));
    exec_on(dir.file, "CREATE TABLE notes (t)");
    refused_as_it_is(KLAW_CORRUPT);
    folder_free(&dir);
}

static klaw_err sets_version(klawi_store_tx *tx, void *arg) {
    (void)arg;
    char text[64];
    snprintf(text, sizeof text, "PRAGMA user_version=%d", klawi_store_schema_newest + 1);
    return klawi_tx_result(tx, sqlite3_exec(tx->store->db, text, NULL, NULL, NULL));
}

PLAIN(a_newer_schema_is_refused) {
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    (void)save_value(s, "k", 10, 1);
    OK(klawi_store_write(s, sets_version, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    refused_as_it_is(KLAW_BACKEND);
    CHECK(says("newer klaw"));
    folder_free(&dir);
}

static klaw_err goes_back(klawi_store_tx *tx, void *arg) {
    (void)arg;
    return klawi_tx_result(tx, sqlite3_exec(tx->store->db,
                                            "DROP TABLE checkpoint; PRAGMA user_version=0", NULL,
                                            NULL, NULL));
}

PLAIN(an_older_schema_is_brought_up) {
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    OK(klawi_store_write(s, goes_back, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    s = store_at(dir.file);
    klaw_store_counts c;
    OK(klaw_store_stats(s, &c, KLAW_FOREVER, NULL));
    SAME(c.schema, klawi_store_schema_newest);
    SAME(save_value(s, "k", 10, 1), 1);
    klaw_store_unref(s);
    folder_free(&dir);
}

/* ---- damage ---- */

PLAIN(a_cut_file_is_damaged) {
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    for (int i = 0; i < 20; i++)
        (void)save_value(s, "k", 20000, (uint64_t)i);
    klaw_store_unref(s);
    size_t n;
    unsigned char *all = file_bytes(dir.file, &n);
    for (size_t cut = 100; cut < n; cut += 3777) {
        file_write(dir.file, all, cut);
        klaw_blob *b = NULL;
        klaw_err e = klaw_store_open(dir.file, NULL, &s, &info);
        if (e == KLAW_OK) {
            e = klaw_store_load(s, "k", &b, NULL, KLAW_FOREVER, &info);
            if (e == KLAW_OK) { /* not in the part that is gone */
                CHECK(value_is(b, 20000, "k", 19));
                klaw_blob_unref(b);
                GIVES(klaw_store_check(s, NULL, KLAW_FOREVER, &info), KLAW_CORRUPT);
                e = KLAW_CORRUPT;
            }
            klaw_store_unref(s);
        }
        GIVES(e, KLAW_CORRUPT);
        CHECK(says(dir.file));
    }
    free(all);
    folder_free(&dir);
}

PLAIN(a_damaged_newest_version_leaves_the_older_ones) {
    static const unsigned char mark[] = "here the newest value begins";
    klaw_blob *b = NULL;
    klaw_store_entries all;
    klaw_store_report r;
    dir = folder_make();
    klaw_store *s = store_at(dir.file);
    (void)save_value(s, "k", 100, 1);
    (void)save_value(s, "k", 100, 2);
    OK(klaw_store_save(s, "k", mark, sizeof mark, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    size_t n;
    unsigned char *bytes = file_bytes(dir.file, &n), *at = memmem(bytes, n, mark, sizeof mark);
    CHECK(at);
    at[5] ^= 1;
    file_write(dir.file, bytes, n);
    free(bytes);
    s = store_at(dir.file);
    for (int i = 0; i < 2; i++) { /* not only the first time */
        GIVES(klaw_store_load(s, "k", &b, NULL, KLAW_FOREVER, &info), KLAW_CORRUPT);
        CHECK(says(dir.file) && says("newest version of key k"));
        GIVES(klaw_store_load_version(s, "k", 3, &b, KLAW_FOREVER, &info), KLAW_CORRUPT);
        CHECK(says("version 3 of key k"));
        OK(klaw_store_versions(s, "k", &all, KLAW_FOREVER, NULL));
        SAME(all.n, 3);
        klaw_store_entries_free(&all);
        for (uint64_t v = 1; v <= 2; v++) {
            OK(klaw_store_load_version(s, "k", v, &b, KLAW_FOREVER, NULL));
            CHECK(value_is(b, 100, "k", v));
            klaw_blob_unref(b);
        }
        GIVES(klaw_store_check(s, &r, KLAW_FOREVER, &info), KLAW_CORRUPT);
        SAME(r.damaged_pages, 1);
        SAME(r.versions, 3);
        SAME(r.damaged_versions, 1);
        SAME(r.version, 3);
        CHECK(strcmp(r.key, "k") == 0);
        /* A change of a damaged page would hide the damage under a right checksum. */
        GIVES(klaw_store_save(s, "k", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_CORRUPT);
    }
    klaw_store_unref(s);
    folder_free(&dir);
}

PLAIN(salvage_reads_what_is_left) {
    klaw_blob *b = NULL;
    klaw_store *s = NULL;
    klaw_store_opts salvage = {.salvage = true};
    dir = folder_make();
    GIVES(opens_with(dir.file, salvage), KLAW_NOT_FOUND);
    CHECK(access(dir.file, F_OK) != 0);
    s = store_at(dir.file);
    (void)save_value(s, "k", 100, 1);
    klaw_store_unref(s);
    size_t n;
    unsigned char *bytes = file_bytes(dir.file, &n);
    bytes[3000] ^= 4; /* of the first page, where nothing is */
    file_write(dir.file, bytes, n);
    free(bytes);
    refused_as_it_is(KLAW_CORRUPT);
    CHECK(says("page 1 is damaged"));
    OK(klaw_store_open(dir.file, &salvage, &s, &info));
    GIVES(klaw_store_save(s, "k", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    CHECK(says("reading only"));
    OK(klaw_store_load_version(s, "k", 1, &b, KLAW_FOREVER, NULL));
    CHECK(value_is(b, 100, "k", 1));
    klaw_blob_unref(b);
    klaw_store_unref(s);
    folder_free(&dir);
}

/* ---- read-only ---- */

/* For root nothing is read-only: the calling thread alone becomes somebody else. */
static void become(uid_t uid) {
    if (getuid() == 0)
        SAME(syscall(SYS_setresuid, -1, uid, -1), 0);
}
#define NOBODY ((uid_t)(getuid() == 0 ? 65534 : getuid()))

PLAIN(in_a_read_only_folder_loads_work_and_saves_say_why_not) {
    dir = folder_make();
    SAME(chown(dir.path, NOBODY, (gid_t)-1), 0);
    become(NOBODY);
    klaw_store *s = store_at(dir.file);
    (void)save_value(s, "k", 100, 1);
    klaw_store_unref(s);
    SAME(chmod(dir.path, 0500), 0);
    s = store_at(dir.file);
    if (!s->wal) {
        SAME(load_value(s, "k", 100, 1), 1);
        GIVES(klaw_store_save(s, "k", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_SYSTEM);
        CHECK(says(dir.file) && (info.sys == EACCES || info.sys == EROFS));
        SAME(load_value(s, "k", 100, 1), 1);
    }
    klaw_store_unref(s);
    char other[300];
    snprintf(other, sizeof other, "%s/new.db", dir.path);
    GIVES(opens(other), KLAW_SYSTEM);
    CHECK(says("new.db") && info.sys == EACCES);
    SAME(chmod(dir.path, 0700), 0);
    SAME(chmod(dir.file, 0400), 0);
    s = NULL;
    klaw_err e = klaw_store_open(dir.file, NULL, &s, &info);
    if (e == KLAW_OK) {
        SAME(load_value(s, "k", 100, 1), 1);
        GIVES(klaw_store_save(s, "k", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_SYSTEM);
        klaw_store_unref(s);
    } else {
        GIVES(e, KLAW_SYSTEM);
    }
    CHECK(says(dir.file));
    become(0);
    folder_free(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_file_and_what_is_beside_it_belong_to_the_user_alone),
        TEST(a_folder_means_the_file_in_it),
        TEST(by_default_it_lies_in_the_home_folder),
        TEST(a_file_with_more_rights_loses_them),
        TEST(a_folder_that_others_may_write_is_refused),
        TEST(only_a_regular_file_can_be_a_store),
        TEST(what_is_no_database_is_refused),
        TEST(another_programs_database_is_refused),
        TEST(a_store_that_another_program_wrote_to_is_damaged),
        TEST(a_newer_schema_is_refused),
        TEST(an_older_schema_is_brought_up),
        TEST(a_cut_file_is_damaged),
        TEST(a_damaged_newest_version_leaves_the_older_ones),
        TEST(salvage_reads_what_is_left),
        TEST(in_a_read_only_folder_loads_work_and_saves_say_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
