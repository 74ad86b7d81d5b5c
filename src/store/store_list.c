/* SPDX-License-Identifier: Apache-2.0 */
/* store_list.c - what a store holds: lists, counts, and the check of the whole file.
 *
 * A list is one block: the entries, and behind them the keys. It is gathered in two growing buffers first, because
 * SQLite's rows come one at a time; keys are offsets until the block is made. */
#include "store/store_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* ---- gathering ---- */

typedef struct gather {
    const char *key; /* or prefix; NULL: all */
    bool versions;   /* of one key */
    klaw_store_entry *entries;
    size_t n, cap;
    char *keys;
    size_t used, room;
    klaw_store_entries out;
} gather;

static void gather_free(gather *g) {
    klawi_free(g->entries);
    klawi_free(g->keys);
    *g = (gather){.key = g->key, .versions = g->versions, .out = g->out};
}

static klaw_err gather_row(gather *g, sqlite3_stmt *st) {
    const void *key = sqlite3_column_blob(st, 0);
    size_t size = (size_t)sqlite3_column_bytes(st, 0);
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 16;
        klaw_store_entry *more = klawi_realloc(g->entries, cap * sizeof *more);
        if (!more)
            return KLAW_NOMEM;
        g->entries = more;
        g->cap = cap;
    }
    if (g->room - g->used < size + 1) {
        size_t room = 2 * g->room + size + 256;
        char *more = klawi_realloc(g->keys, room);
        if (!more)
            return KLAW_NOMEM;
        g->keys = more;
        g->room = room;
    }
    if (size)
        memcpy(g->keys + g->used, key, size);
    g->keys[g->used + size] = '\0';
    g->used += size + 1;
    g->entries[g->n++] = (klaw_store_entry){.version = (uint64_t)sqlite3_column_int64(st, 1),
                                            .size = (uint64_t)sqlite3_column_int64(st, 2),
                                            .saved_at = sqlite3_column_int64(st, 3),
                                            .versions = (uint64_t)sqlite3_column_int64(st, 4)};
    return KLAW_OK;
}

/* Entries and keys into one block. */
static klaw_err gather_pack(gather *g) {
    size_t at = g->n * sizeof *g->entries;
    klaw_store_entry *all = klawi_alloc(at + g->used);
    if (!all)
        return KLAW_NOMEM;
    memcpy(all, g->entries, at);
    char *key = (char *)all + at;
    memcpy(key, g->keys, g->used);
    for (size_t i = 0; i < g->n; i++) {
        all[i].key = key;
        if (g->versions)
            all[i].versions = g->n;
        key += strlen(key) + 1;
    }
    klawi_free(g->out.entries);
    g->out = (klaw_store_entries){all, g->n};
    return KLAW_OK;
}

/* The first key after all that begin with the prefix: its last byte that can, plus one. False: none. */
static bool after_prefix(char *prefix, size_t *n) {
    while (*n && (unsigned char)prefix[*n - 1] == 0xff)
        --*n;
    if (*n)
        prefix[*n - 1] = (char)((unsigned char)prefix[*n - 1] + 1);
    return *n > 0;
}

static klaw_err list_begin(klawi_store_tx *tx, const char *prefix, sqlite3_stmt **st) {
    char after[KLAW_STORE_KEY_MAX + 1];
    size_t n = prefix ? strlen(prefix) : 0, m = n;
    klaw_err e = klawi_tx_stmt(tx,
                               "SELECT key, max(version), size, saved_at, count(*) FROM checkpoint"
                               " WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)"
                               " GROUP BY key ORDER BY key",
                               st);
    if (!e)
        e = klawi_tx_result(tx, n ? sqlite3_bind_blob(*st, 1, prefix, (int)n, SQLITE_STATIC)
                                  : sqlite3_bind_zeroblob(*st, 1, 0));
    memcpy(after, prefix ? prefix : "", n + 1);
    if (!e && after_prefix(after, &m))
        e = klawi_tx_result(tx, sqlite3_bind_blob(*st, 2, after, (int)m, SQLITE_TRANSIENT));
    return e;
}

static klaw_err versions_begin(klawi_store_tx *tx, const char *key, bool scan, sqlite3_stmt **st) {
    klaw_err e =
        scan ? klawi_tx_stmt(tx,
                             "SELECT key, version, size, saved_at, 0 FROM checkpoint NOT INDEXED"
                             " WHERE key = ?1",
                             st)
             : klawi_tx_stmt(tx,
                             "SELECT key, version, size, saved_at, 0 FROM checkpoint"
                             " WHERE key = ?1 ORDER BY version DESC",
                             st);
    return e ? e
             : klawi_tx_result(tx, sqlite3_bind_blob(*st, 1, key, (int)strlen(key), SQLITE_STATIC));
}

static klaw_err gather_rows(klawi_store_tx *tx, gather *g, bool scan) {
    sqlite3_stmt *st;
    bool row = false;
    g->n = g->used = 0;
    klaw_err e = g->versions ? versions_begin(tx, g->key, scan, &st) : list_begin(tx, g->key, &st);
    while (!e && (e = klawi_tx_step(tx, st, &row)) == KLAW_OK && row)
        e = gather_row(g, st);
    return e;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = ((const klaw_store_entry *)a)->version, y = ((const klaw_store_entry *)b)->version;
    return x < y ? 1 : x > y ? -1 : 0;
}

static klaw_err gather_in(klawi_store_tx *tx, void *arg) {
    gather *g = arg;
    klaw_err e = gather_rows(tx, g, false);
    if (g->versions && (e == KLAW_CORRUPT || (e == KLAW_OK && tx->store->vfs.bad))) {
        /* The index may hide some: what the table shows of them. Each is checked when it is loaded. */
        e = gather_rows(tx, g, true);
        if (g->n && (e == KLAW_OK || e == KLAW_CORRUPT)) {
            qsort(g->entries, g->n, sizeof *g->entries, newest_first);
            klawi_tx_verified(tx);
            e = KLAW_OK;
        }
    }
    return e == KLAW_OK && g->n ? gather_pack(g) : e;
}

static klaw_err gather_all(klaw_store *s, gather *g, klaw_store_entries *out,
                           klaw_deadline deadline, klaw_error_info *info) {
    *out = (klaw_store_entries){NULL, 0};
    if (!s || (g->key && strnlen(g->key, KLAW_STORE_KEY_MAX + 1) > KLAW_STORE_KEY_MAX) ||
        (g->versions && (!g->key || !*g->key)))
        return KLAW_INVALID;
    klaw_err e = klawi_store_read(s, gather_in, g, deadline, info);
    gather_free(g);
    if (e)
        klaw_store_entries_free(&g->out);
    else
        *out = g->out;
    return e;
}

klaw_err klaw_store_list(klaw_store *s, const char *prefix, klaw_store_entries *out,
                         klaw_deadline deadline, klaw_error_info *info) {
    gather g = {.key = prefix};
    return out ? gather_all(s, &g, out, deadline, info) : KLAW_INVALID;
}

klaw_err klaw_store_versions(klaw_store *s, const char *key, klaw_store_entries *out,
                             klaw_deadline deadline, klaw_error_info *info) {
    gather g = {.key = key, .versions = true};
    if (!out)
        return KLAW_INVALID;
    klaw_err e = gather_all(s, &g, out, deadline, info);
    if (e || out->n)
        return e;
    return klawi_store_fail(s, info, KLAW_NOT_FOUND, "there is no key %.64s", key);
}

void klaw_store_entries_free(klaw_store_entries *list) {
    if (!list)
        return;
    klawi_free(list->entries);
    *list = (klaw_store_entries){NULL, 0};
}

/* ---- counting ---- */

static klaw_err number(klawi_store_tx *tx, const char *sql, uint64_t *out) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = klawi_tx_stmt(tx, sql, &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (!e && row)
        *out = (uint64_t)sqlite3_column_int64(st, 0);
    return e;
}

static klaw_err count_in(klawi_store_tx *tx, void *arg) {
    klaw_store_counts *c = arg;
    klaw_store *s = tx->store;
    uint64_t pages = 0;
    klaw_err e = number(tx, "SELECT count(*) FROM checkpoint", &c->versions);
    if (!e)
        e = number(tx, "SELECT count(DISTINCT key) FROM checkpoint", &c->keys);
    if (!e)
        e = number(tx, "SELECT coalesce(sum(size), 0) FROM checkpoint", &c->value_bytes);
    if (!e)
        e = number(tx, "PRAGMA page_count", &pages);
    if (!e)
        e = number(tx, "PRAGMA user_version", &c->schema);
    c->file_bytes = pages * KLAWI_STORE_PAGE;
    c->damage_met = s->vfs.met;
    snprintf(c->journal, sizeof c->journal, "%s", s->wal ? "wal" : "delete");
    return e;
}

klaw_err klaw_store_stats(klaw_store *s, klaw_store_counts *out, klaw_deadline deadline,
                          klaw_error_info *info) {
    klaw_store_counts c = {.saves = 0};
    if (!s || !out)
        return KLAW_INVALID;
    klaw_err e = klawi_store_read(s, count_in, &c, deadline, info);
    if (e)
        return e;
    c.saves = atomic_load_explicit(&s->saves, memory_order_relaxed);
    c.loads = atomic_load_explicit(&s->loads, memory_order_relaxed);
    snprintf(c.path, sizeof c.path, "%s", s->path);
    snprintf(c.sqlite, sizeof c.sqlite, "%s", sqlite3_libversion());
    *out = c;
    return KLAW_OK;
}

/* ---- checking ---- */

/* Every row that can be reached, by the table. */
static klaw_err check_rows(klawi_store_tx *tx, klaw_store_report *r) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = klawi_tx_stmt(
        tx, "SELECT " KLAWI_STORE_COLUMNS " FROM checkpoint NOT INDEXED ORDER BY id", &st);
    while (!e && (e = klawi_tx_step(tx, st, &row)) == KLAW_OK && row) {
        r->versions++;
        if (klawi_store_row_whole(st, NULL))
            continue;
        if (r->damaged_versions++ == 0) {
            const char *key = sqlite3_column_blob(st, 0);
            snprintf(r->key, sizeof r->key, "%.*s", key ? sqlite3_column_bytes(st, 0) : 0,
                     key ? key : "");
            r->version = (uint64_t)sqlite3_column_int64(st, 1);
        }
    }
    return e;
}

/* As they lie in the file. With a log that may be in the middle of a checkpoint: there it is the pages that were read
 * on the way through the trees. */
static klaw_err check_pages(klawi_store_tx *tx, klaw_store_report *r) {
    if (tx->store->wal) {
        r->damaged_pages = tx->store->vfs.bad;
        return number(tx, "PRAGMA page_count", &r->pages);
    }
    return klawi_tx_result(
        tx, klawi_store_vfs_scan(&tx->store->vfs, tx->store->db, &r->pages, &r->damaged_pages));
}

static klaw_err check_in(klawi_store_tx *tx, void *arg) {
    klaw_store_report *r = arg;
    sqlite3_stmt *st;
    bool row = false;
    memset(r, 0, sizeof *r);
    (void)sqlite3_db_release_memory(tx->store->db); /* what is cached has been read long ago */
    klaw_err e = klawi_tx_stmt(tx, "PRAGMA integrity_check(1)", &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    const unsigned char *text = !e && row ? sqlite3_column_text(st, 0) : NULL;
    if (e == KLAW_OK || e == KLAW_CORRUPT)
        snprintf(r->integrity, sizeof r->integrity, "%s",
                 text ? (const char *)text : "the tree can't be read");
    if (!e || e == KLAW_CORRUPT) {
        klaw_err rows = check_rows(tx, r);
        e = rows == KLAW_OK || rows == KLAW_CORRUPT ? (e ? e : rows) : rows;
    }
    if (!e || e == KLAW_CORRUPT) {
        klaw_err scan = check_pages(tx, r);
        e = scan ? scan : e;
    }
    if (!e && (r->damaged_pages || r->damaged_versions || strcmp(r->integrity, "ok") != 0))
        e = KLAW_CORRUPT;
    if (e == KLAW_CORRUPT)
        (void)klawi_tx_fail(tx, e, "%llu of %llu pages and %llu versions are damaged; %s",
                            (unsigned long long)r->damaged_pages, (unsigned long long)r->pages,
                            (unsigned long long)r->damaged_versions, r->integrity);
    return e;
}

klaw_err klaw_store_check(klaw_store *s, klaw_store_report *report, klaw_deadline deadline,
                          klaw_error_info *info) {
    klaw_store_report r;
    klaw_err e = klawi_store_read(s, check_in, &r, deadline, info);
    if (report && (e == KLAW_OK || e == KLAW_CORRUPT))
        *report = r;
    return e;
}
