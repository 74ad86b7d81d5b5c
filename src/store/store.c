/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - the checkpoint store: saving, loading, listing, checking.
 *
 * The file is a SQLite database of 4096-byte pages, application_id "klaw", user_version the schema's number
 * (store_schema.c). Beside it there may be, while it is in use or after a crash, a journal:
 *
 *     klaw.db            the pages
 *     klaw.db-journal    rollback journal: pages as they were before the change under way
 *     klaw.db-wal, -shm  instead, from SQLite 3.51.3 on: pages as they are after each change, and its index
 *
 *     page  | ... 4088 bytes of SQLite ... | checksum of page number and these bytes, 8 bytes |
 *     row   | key | version | saved_at | size | sum of the other columns | bytes |
 *
 * A save is one transaction: insert the new version, delete what is over `keep`, commit. Recovery is SQLite's:
 *   rollback journal  the old pages are synced to the journal before the first page of the file changes; the
 *                     changed pages are synced before the journal is deleted; its deletion is the commit, and
 *                     is synced. A journal found at the next opening is played back: the save never was.
 *   write-ahead log   the new pages with running checksums are synced to the log; the last frame of a transaction is
 *                     the commit. The next opening goes on from the last whole transaction.
 * So the save is whole or absent after a crash at any instant, and what it returned OK for is there.
 *
 * Damage (a flipped bit, a page of another time) is found by two checksums with different jobs:
 *   pages  everything a load relies on, the tree above the row too: a damaged inner page could lead past the newest
 *          version, and the one before it would look like the answer. Checked at each read from the file
 *          (store_vfs.c).
 *   rows   the value a load returns, from the caller's bytes at the save to the caller's bytes at the load. A load of
 *          one given version is satisfied with it: nothing else can pass for this version of this key. So
 *          what lies on a damaged page, or is no longer found by its damaged index, can still be had.
 *
 * Invariants after each commit:
 *   S1  versions of a key are distinct, and a new one is larger than all that are there.
 *   S2  at most `keep` versions of a key are there once it was saved by this handle.
 *   S3  every row's sum is that of its columns, every page's checksum that of its bytes.
 *   S4  no change is kept whose transaction read a damaged page.
 *
 * Damage in a log or journal that is left after a crash is outside of this: there SQLite's own checksums decide where
 * the valid part ends.
 *
 * Rejected: one file per checkpoint and rename (no common commit with workflows, no listing without reading, and
 * syncing folders right is what SQLite has done already); a vacuum that shrinks the file (freed pages are used
 * again; a rewrite of everything is one more moment to lose it). */
#include "klaw/actor.h"
#include "klaw/log.h"
#include "store/store_core.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

/* ---- rows ---- */

static void put64(unsigned char *p, uint64_t v) {
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t row_sum(const void *key, size_t key_size, uint64_t version, int64_t saved_at,
                        const void *bytes, size_t size) {
    unsigned char numbers[24];
    put64(numbers, version);
    put64(numbers + 8, (uint64_t)saved_at);
    put64(numbers + 16, size);
    uint64_t sum = klawi_store_sum(0, key, key_size);
    sum = klawi_store_sum(sum, numbers, sizeof numbers);
    return klawi_store_sum(sum, bytes, size);
}

#define COLUMNS KLAWI_STORE_COLUMNS

/* S3 */
bool klawi_store_row_whole(sqlite3_stmt *st, const char *key) {
    for (int i = 0; i < 6; i++)
        if (sqlite3_column_type(st, i) != (i == 0 || i == 5 ? SQLITE_BLOB : SQLITE_INTEGER))
            return false;
    size_t n = (size_t)sqlite3_column_bytes(st, 0), size = (size_t)sqlite3_column_bytes(st, 5);
    const void *k = sqlite3_column_blob(st, 0), *bytes = sqlite3_column_blob(st, 5);
    if (!k || (size && !bytes) || (uint64_t)sqlite3_column_int64(st, 3) != size)
        return false;
    if (key && (n != strlen(key) || memcmp(k, key, n) != 0))
        return false;
    return (uint64_t)sqlite3_column_int64(st, 4) ==
           row_sum(k, n, (uint64_t)sqlite3_column_int64(st, 1), sqlite3_column_int64(st, 2), bytes,
                   size);
}

static klaw_err bind_key(klawi_store_tx *tx, sqlite3_stmt *st, int at, const char *key) {
    return klawi_tx_result(tx, sqlite3_bind_blob(st, at, key, (int)strlen(key), SQLITE_STATIC));
}
static klaw_err bind_int(klawi_store_tx *tx, sqlite3_stmt *st, int at, int64_t v) {
    return klawi_tx_result(tx, sqlite3_bind_int64(st, at, v));
}

static bool good_key(const char *key) {
    size_t n = key ? strnlen(key, KLAW_STORE_KEY_MAX + 1) : 0;
    return n > 0 && n <= KLAW_STORE_KEY_MAX;
}

static klaw_err bad_argument(klaw_store *s, klaw_error_info *info, const char *what) {
    return s ? klawi_store_fail(s, info, KLAW_INVALID, "%s", what) : KLAW_INVALID;
}
#define BAD_KEY "a key has 1 to 1023 bytes"

/* ---- saving ---- */

typedef struct save {
    const char *key;
    const void *bytes;
    size_t size;
    uint64_t version;
} save;

static klaw_err newest_of(klawi_store_tx *tx, const char *key, uint64_t *version) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = klawi_tx_stmt(tx, "SELECT max(version) FROM checkpoint WHERE key = ?1", &st);
    if (!e)
        e = bind_key(tx, st, 1, key);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    *version = !e && row ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
    return e;
}

static klaw_err insert(klawi_store_tx *tx, const save *v, int64_t saved_at) {
    sqlite3_stmt *st;
    uint64_t sum = row_sum(v->key, strlen(v->key), v->version, saved_at, v->bytes, v->size);
    klaw_err e = klawi_tx_stmt(
        tx, "INSERT INTO checkpoint (" COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6)", &st);
    if (!e)
        e = bind_key(tx, st, 1, v->key);
    if (!e)
        e = bind_int(tx, st, 2, (int64_t)v->version);
    if (!e)
        e = bind_int(tx, st, 3, saved_at);
    if (!e)
        e = bind_int(tx, st, 4, (int64_t)v->size);
    if (!e)
        e = bind_int(tx, st, 5, (int64_t)sum);
    if (!e)
        e = klawi_tx_result(tx, v->size
                                    ? sqlite3_bind_blob64(st, 6, v->bytes, v->size, SQLITE_STATIC)
                                    : sqlite3_bind_zeroblob(st, 6, 0));
    return e ? e : klawi_tx_run(tx, st);
}

/* S2 */
static klaw_err prune(klawi_store_tx *tx, const char *key) {
    sqlite3_stmt *st;
    if (tx->store->keep == KLAW_NONE)
        return KLAW_OK;
    klaw_err e = klawi_tx_stmt(tx,
                               "DELETE FROM checkpoint WHERE key = ?1 AND version <= "
                               "(SELECT version FROM checkpoint WHERE key = ?1"
                               " ORDER BY version DESC LIMIT 1 OFFSET ?2)",
                               &st);
    if (!e)
        e = bind_key(tx, st, 1, key);
    if (!e)
        e = bind_int(tx, st, 2, tx->store->keep);
    return e ? e : klawi_tx_run(tx, st);
}

static klaw_err save_in(klawi_store_tx *tx, void *arg) {
    save *v = arg;
    klaw_err e = newest_of(tx, v->key, &v->version);
    if (e)
        return e;
    if (v->version >= INT64_MAX)
        return klawi_tx_fail(tx, KLAW_LIMIT, "no more versions of this key");
    v->version++; /* S1 */
    e = insert(tx, v, klawi_wall_clock());
    return e ? e : prune(tx, v->key);
}

klaw_err klaw_store_save(klaw_store *s, const char *key, const void *bytes, size_t size,
                         uint64_t *version, klaw_deadline deadline, klaw_error_info *info) {
    save v = {key, bytes, size, 0};
    if (!s || !good_key(key) || (!bytes && size))
        return bad_argument(s, info, good_key(key) ? "no bytes" : BAD_KEY);
    if (size > KLAW_STORE_VALUE_MAX)
        return klawi_store_fail(s, info, KLAW_LIMIT, "key %.64s: %zu bytes are too many", key,
                                size);
    klaw_err e = klawi_store_write(s, save_in, &v, deadline, info);
    if (e == KLAW_OK) {
        atomic_fetch_add_explicit(&s->saves, 1, memory_order_relaxed);
        if (version)
            *version = v.version;
    }
    return e;
}

/* ---- loading ---- */

typedef struct load {
    const char *key;
    uint64_t version; /* in: 0 is the newest */
    uint64_t got;
    klaw_blob *blob;
} load;

static klaw_err damaged(klawi_store_tx *tx, const load *l) {
    if (l->version)
        return klawi_tx_fail(tx, KLAW_CORRUPT, "version %llu of key %.64s is damaged",
                             (unsigned long long)l->version, l->key);
    return klawi_tx_fail(tx, KLAW_CORRUPT, "the newest version of key %.64s is damaged", l->key);
}

/* The row under the statement: verified and copied. */
static klaw_err take(klawi_store_tx *tx, load *l, sqlite3_stmt *st) {
    if (!klawi_store_row_whole(st, l->key))
        return damaged(tx, l);
    l->got = (uint64_t)sqlite3_column_int64(st, 1);
    int size = sqlite3_column_bytes(st, 5);
    return klaw_blob_new(size ? sqlite3_column_blob(st, 5) : NULL, (size_t)size, &l->blob);
}

static klaw_err load_newest(klawi_store_tx *tx, load *l) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = klawi_tx_stmt(tx,
                               "SELECT " COLUMNS " FROM checkpoint WHERE key = ?1"
                               " ORDER BY version DESC LIMIT 1",
                               &st);
    if (!e)
        e = bind_key(tx, st, 1, l->key);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (!e)
        e = row ? take(tx, l, st) : KLAW_NOT_FOUND;
    return e;
}

/* By the index, or through the whole table: a damaged index does not hide what is there. */
static klaw_err load_one(klawi_store_tx *tx, load *l, bool scan) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = scan ? klawi_tx_stmt(tx,
                                      "SELECT " COLUMNS " FROM checkpoint NOT INDEXED"
                                      " WHERE key = ?1 AND version = ?2",
                                      &st)
                      : klawi_tx_stmt(tx,
                                      "SELECT " COLUMNS " FROM checkpoint"
                                      " WHERE key = ?1 AND version = ?2",
                                      &st);
    if (!e)
        e = bind_key(tx, st, 1, l->key);
    if (!e)
        e = bind_int(tx, st, 2, (int64_t)l->version);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (e || !row)
        return e ? e : KLAW_NOT_FOUND;
    e = take(tx, l, st);
    if (e == KLAW_OK && l->got == l->version)
        klawi_tx_verified(tx);
    return e;
}

static void drop(load *l) {
    klaw_blob_unref(l->blob);
    l->blob = NULL;
}

static klaw_err load_in(klawi_store_tx *tx, void *arg) {
    load *l = arg;
    drop(l); /* of an earlier try */
    klaw_err e = l->version ? load_one(tx, l, false) : load_newest(tx, l);
    if (l->version && (e == KLAW_CORRUPT || (e == KLAW_NOT_FOUND && tx->store->vfs.bad))) {
        e = load_one(tx, l, true);
        if (e == KLAW_NOT_FOUND)
            e = KLAW_CORRUPT;
    }
    return e == KLAW_CORRUPT ? damaged(tx, l) : e;
}

static klaw_err load_any(klaw_store *s, load *l, klaw_blob **out, klaw_deadline deadline,
                         klaw_error_info *info) {
    if (!s || !out || !good_key(l->key) || l->version > INT64_MAX)
        return bad_argument(s, info, good_key(l->key) ? "an argument is wrong" : BAD_KEY);
    klaw_err e = klawi_store_read(s, load_in, l, deadline, info);
    if (e) {
        drop(l);
        if (e == KLAW_NOT_FOUND)
            (void)klawi_store_fail(s, info, e, "there is no such version of key %.64s", l->key);
        return e;
    }
    atomic_fetch_add_explicit(&s->loads, 1, memory_order_relaxed);
    *out = l->blob;
    return KLAW_OK;
}

klaw_err klaw_store_load(klaw_store *s, const char *key, klaw_blob **out, uint64_t *version,
                         klaw_deadline deadline, klaw_error_info *info) {
    load l = {.key = key};
    klaw_err e = load_any(s, &l, out, deadline, info);
    if (e == KLAW_OK && version)
        *version = l.got;
    return e;
}

klaw_err klaw_store_load_version(klaw_store *s, const char *key, uint64_t version, klaw_blob **out,
                                 klaw_deadline deadline, klaw_error_info *info) {
    load l = {.key = key, .version = version};
    if (version == 0)
        return bad_argument(s, info, "versions begin at 1");
    return load_any(s, &l, out, deadline, info);
}

/* ---- deleting ---- */

typedef struct deletion {
    const char *key;
    uint64_t version;
} deletion;

static klaw_err delete_in(klawi_store_tx *tx, void *arg) {
    const deletion *d = arg;
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(
        tx, "DELETE FROM checkpoint WHERE key = ?1 AND (?2 = 0 OR version = ?2)", &st);
    if (!e)
        e = bind_key(tx, st, 1, d->key);
    if (!e)
        e = bind_int(tx, st, 2, (int64_t)d->version);
    if (!e)
        e = klawi_tx_run(tx, st);
    return !e && klawi_tx_changes(tx) == 0 ? KLAW_NOT_FOUND : e;
}

klaw_err klaw_store_delete(klaw_store *s, const char *key, uint64_t version, klaw_deadline deadline,
                           klaw_error_info *info) {
    deletion d = {key, version};
    if (!s || !good_key(key) || version > INT64_MAX)
        return bad_argument(s, info, BAD_KEY);
    klaw_err e = klawi_store_write(s, delete_in, &d, deadline, info);
    if (e == KLAW_NOT_FOUND)
        (void)klawi_store_fail(s, info, e, "there is no such version of key %.64s", key);
    return e;
}

const char *klaw_store_path(const klaw_store *s) {
    return s->path;
}

/* ---- snapshots of actors ---- */

#define CHECKPOINT_PATIENCE KLAW_S(30)

static klaw_err checkpoint_save(void *user, const char *key, const void *bytes, size_t size) {
    klaw_error_info info;
    klaw_err e =
        klaw_store_save(user, key, bytes, size, NULL, KLAW_WITHIN(CHECKPOINT_PATIENCE), &info);
    if (e)
        KLAW_LOG_WARN("checkpoint not saved", klaw_log_str("key", key), klaw_log_err("error", e),
                      klaw_log_str("reason", info.message));
    return e;
}

/* The newest version that is whole, of those before a damaged one. */
static klaw_err load_older(klaw_store *s, const char *key, klaw_blob **out) {
    klaw_store_entries all;
    klaw_err e = klaw_store_versions(s, key, &all, KLAW_WITHIN(CHECKPOINT_PATIENCE), NULL);
    if (e)
        return e;
    e = KLAW_CORRUPT;
    for (size_t i = 0; e == KLAW_CORRUPT && i < all.n; i++) {
        e = klaw_store_load_version(s, key, all.entries[i].version, out,
                                    KLAW_WITHIN(CHECKPOINT_PATIENCE), NULL);
        if (e == KLAW_OK)
            KLAW_LOG_WARN("checkpoint damaged, an older one is used", klaw_log_str("key", key),
                          klaw_log_u64("version", all.entries[i].version));
    }
    klaw_store_entries_free(&all);
    return e;
}

static klaw_err checkpoint_load(void *user, const char *key, klaw_blob **out) {
    klaw_error_info info;
    klaw_err e = klaw_store_load(user, key, out, NULL, KLAW_WITHIN(CHECKPOINT_PATIENCE), &info);
    if (e == KLAW_CORRUPT && load_older(user, key, out) == KLAW_OK)
        return KLAW_OK;
    if (e && e != KLAW_NOT_FOUND)
        KLAW_LOG_WARN("checkpoint not loaded", klaw_log_str("key", key), klaw_log_err("error", e),
                      klaw_log_str("reason", info.message));
    return e;
}

void klaw_store_checkpointer(klaw_store *s, struct klaw_checkpointer *out) {
    *out = (klaw_checkpointer){.user = s, .save = checkpoint_save, .load = checkpoint_load};
}
