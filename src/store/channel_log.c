/* SPDX-License-Identifier: Apache-2.0 */
/* channel_log.c - the journal of a durable remote channel: two tables in a store's file.
 *
 *   channel         one row: whose log it is, who holds it, which records there are
 *   channel_record  one row a record, numbered; the snapshot is the first of them
 *
 * Invariants of the file between transactions:
 *   C1  channel.sum covers the row, a record's sum its number, its kind and its bytes, seeded by the channel's
 *       id: a row that does not fit is CORRUPT.
 *   C2  the records are those with the numbers first .. next - 1, all of them, and only the one numbered
 *       `first` may be a snapshot. So a record that vanished is noticed; numbers are never used again.
 *   C3  channel.token grows with each opening. Every call compares it with its own inside of its transaction, so
 *       the holder before the last can't change or read what the last one goes on from.
 *
 * A handle is constant but for its counts, which are hints for the caller and no part of the log.
 *
 * Rejected: a plain file with fsync (its own recovery, checksums and space handling, all of which the store has and
 * has tested); records beside the snapshot in the row of the channel (each append would write the snapshot's
 * pages again). */
#include "store/channel_log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "store/store_core.h"

_Static_assert(KLAW_REMOTE_DURABLE_MAX + ((size_t)1 << 20) <= KLAW_STORE_VALUE_MAX,
               "what a broker takes fits into its log");

struct klaw_channel_log {
    klaw_store *store;                                      /* (c) a reference */
    uint64_t token;                                         /* (c) */
    unsigned char channel[KLAW_REMOTE_ID];                  /* (c) */
    _Atomic uint64_t records, record_bytes, snapshot_bytes; /* (a relaxed) */
};

/* The row of `channel`. */
typedef struct head {
    unsigned char channel[KLAW_REMOTE_ID];
    int64_t token, first, next;
} head;

static const char *const TABLES[] = {
    "CREATE TABLE IF NOT EXISTS channel (id INTEGER PRIMARY KEY, channel BLOB NOT NULL,"
    "token INTEGER NOT NULL, first INTEGER NOT NULL, next INTEGER NOT NULL,"
    "sum INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS channel_record (number INTEGER PRIMARY KEY,"
    "snapshot INTEGER NOT NULL, size INTEGER NOT NULL, sum INTEGER NOT NULL,"
    "bytes BLOB NOT NULL)"};

/* ---- rows ---- */

static uint64_t head_sum(const head *h) {
    int64_t numbers[3] = {h->token, h->first, h->next};
    uint64_t sum = klawi_store_sum(0, h->channel, sizeof h->channel);
    return klawi_store_sum(sum, numbers, sizeof numbers);
}

static uint64_t record_sum(const unsigned char *channel, int64_t number, bool snapshot,
                           const void *bytes, size_t size) {
    int64_t numbers[2] = {number, snapshot};
    uint64_t sum = klawi_store_sum(0, channel, KLAW_REMOTE_ID);
    sum = klawi_store_sum(sum, numbers, sizeof numbers);
    return klawi_store_sum(sum, bytes, size);
}

static klaw_err bind(klawi_store_tx *tx, sqlite3_stmt *st, int at, int64_t v) {
    return klawi_tx_result(tx, sqlite3_bind_int64(st, at, v));
}

static klaw_err table_there(klawi_store_tx *tx, bool *there) {
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(
        tx, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'channel'", &st);
    return e ? e : klawi_tx_step(tx, st, there);
}

/* NOT_FOUND: there is none. C1 */
static klaw_err head_read(klawi_store_tx *tx, head *h) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e =
        klawi_tx_stmt(tx, "SELECT channel, token, first, next, sum FROM channel WHERE id = 1", &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (e || !row)
        return e ? e : KLAW_NOT_FOUND;
    const void *channel = sqlite3_column_blob(st, 0);
    bool whole = channel && sqlite3_column_bytes(st, 0) == KLAW_REMOTE_ID;
    if (!channel && sqlite3_errcode(sqlite3_db_handle(st)) == SQLITE_NOMEM)
        return KLAW_NOMEM;
    if (whole) {
        memcpy(h->channel, channel, KLAW_REMOTE_ID);
        h->token = sqlite3_column_int64(st, 1);
        h->first = sqlite3_column_int64(st, 2);
        h->next = sqlite3_column_int64(st, 3);
        whole = (uint64_t)sqlite3_column_int64(st, 4) == head_sum(h);
    }
    return whole ? KLAW_OK : klawi_tx_fail(tx, KLAW_CORRUPT, "the channel's record is damaged");
}

static klaw_err head_write(klawi_store_tx *tx, const head *h) {
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(tx,
                               "INSERT OR REPLACE INTO channel (id, channel, token, first, next, "
                               "sum) VALUES (1, ?1, ?2, ?3, ?4, ?5)",
                               &st);
    if (!e)
        e = klawi_tx_result(tx,
                            sqlite3_bind_blob(st, 1, h->channel, sizeof h->channel, SQLITE_STATIC));
    if (!e)
        e = bind(tx, st, 2, h->token);
    if (!e)
        e = bind(tx, st, 3, h->first);
    if (!e)
        e = bind(tx, st, 4, h->next);
    if (!e)
        e = bind(tx, st, 5, (int64_t)head_sum(h));
    return e ? e : klawi_tx_run(tx, st);
}

/* The head, if this handle is still its holder. C3 */
static klaw_err mine(klawi_store_tx *tx, const klaw_channel_log *l, head *h) {
    klaw_err e = head_read(tx, h);
    if (e == KLAW_NOT_FOUND)
        return klawi_tx_fail(tx, KLAW_CORRUPT, "the channel's record is missing");
    if (!e && memcmp(h->channel, l->channel, sizeof h->channel) != 0)
        return klawi_tx_fail(tx, KLAW_CORRUPT, "the channel's record is another channel's");
    /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
    if (!e && (uint64_t)h->token != l->token)
        return klawi_tx_fail(tx, KLAW_STOPPED,
                             "the channel's log was taken over by another holder");
    return e;
}

/* ---- opening ---- */

typedef struct claim {
    klaw_channel_log *l;
    bool existing;
    uint64_t records, record_bytes, snapshot_bytes;
} claim;

static klaw_err sizes(klawi_store_tx *tx, claim *c) {
    sqlite3_stmt *st;
    bool row = false;
    klaw_err e = klawi_tx_stmt(tx,
                               "SELECT count(*) - coalesce(sum(snapshot), 0),"
                               " coalesce(sum((1 - snapshot) * size), 0),"
                               " coalesce(sum(snapshot * size), 0) FROM channel_record",
                               &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (e || !row)
        return e;
    c->records = (uint64_t)sqlite3_column_int64(st, 0);
    c->record_bytes = (uint64_t)sqlite3_column_int64(st, 1);
    c->snapshot_bytes = (uint64_t)sqlite3_column_int64(st, 2);
    return KLAW_OK;
}

static klaw_err claim_in(klawi_store_tx *tx, void *arg) {
    claim *c = arg;
    head h;
    bool there = false;
    klaw_err e = table_there(tx, &there);
    if (!e && !there && !c->existing)
        e = klawi_tx_run_all(tx, TABLES, sizeof TABLES / sizeof *TABLES);
    if (!e && there)
        e = head_read(tx, &h);
    else if (!e)
        e = KLAW_NOT_FOUND;
    if (e == KLAW_NOT_FOUND) {
        if (c->existing)
            return klawi_tx_fail(tx, e, "there is no channel's log in it");
        h = (head){.token = 0, .first = 1, .next = 1};
        memcpy(h.channel, c->l->channel, sizeof h.channel);
        e = KLAW_OK;
    }
    if (e)
        return e;
    if (memcmp(h.channel, c->l->channel, sizeof h.channel) != 0)
        return klawi_tx_fail(tx, KLAW_INVALID, "this is the log of another channel");
    /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
    h.token++;
    c->l->token = (uint64_t)h.token;
    e = head_write(tx, &h);
    return e ? e : sizes(tx, c);
}

static void set_counts(klaw_channel_log *l, uint64_t records, uint64_t bytes, uint64_t snapshot) {
    atomic_store_explicit(&l->records, records, memory_order_relaxed);
    atomic_store_explicit(&l->record_bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&l->snapshot_bytes, snapshot, memory_order_relaxed);
}

klaw_err klawi_channel_log_on(klaw_store *s, const unsigned char channel[KLAW_REMOTE_ID],
                              bool existing, klaw_deadline deadline, klaw_channel_log **out,
                              klaw_error_info *info) {
    klaw_channel_log *l = klawi_calloc(1, sizeof *l);
    if (!l)
        return KLAW_NOMEM;
    memcpy(l->channel, channel, sizeof l->channel);
    claim c = {.l = l, .existing = existing};
    klaw_err e = klawi_store_write(s, claim_in, &c, deadline ? deadline : KLAW_FOREVER, info);
    if (e) {
        klawi_free(l);
        return e;
    }
    l->store = s;
    set_counts(l, c.records, c.record_bytes, c.snapshot_bytes);
    *out = l;
    return KLAW_OK;
}

typedef struct search {
    const char *path;
    klaw_error_info *info;
} search;

/* Whether the file is there; nothing is made. May block. */
static klaw_err look_for(void *arg) {
    search *s = arg;
    char *file = NULL;
    klaw_err e = klawi_store_path_find(s->path, false, &file, s->info);
    if (e == KLAW_SYSTEM && s->info && s->info->sys == ENOENT)
        return KLAW_NOT_FOUND;
    if (!e && access(file, F_OK) != 0) {
        klawi_store_says(s->info, file, ENOENT, "the channel's log is missing");
        e = KLAW_NOT_FOUND;
    }
    klawi_free(file);
    return e;
}

klaw_err klaw_channel_log_open_sized(const char *path, const unsigned char channel[KLAW_REMOTE_ID],
                                     const klaw_channel_log_opts *opts, size_t opts_size,
                                     klaw_channel_log **out, klaw_error_info *info) {
    klaw_channel_log_opts o = {0};
    klaw_error_info own = {.sys = 0};
    klaw_store *s = NULL;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!path || !channel || !out)
        return KLAW_INVALID;
    if (!info)
        info = &own;
    klaw_err e = klaw_check();
    if (!e && o.existing)
        e = klaw_blocking(look_for, &(search){path, info});
    if (!e)
        e = klaw_store_open(path, &(klaw_store_opts){.deadline = o.deadline}, &s, info);
    if (!e)
        e = klawi_channel_log_on(s, channel, o.existing, o.deadline, out, info);
    if (e)
        klaw_store_unref(s);
    return e;
}

/* ---- writing ---- */

typedef struct entry {
    const klaw_channel_log *l;
    const void *bytes;
    size_t size;
    bool snapshot;
} entry;

static klaw_err record_write(klawi_store_tx *tx, const entry *r, int64_t number) {
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(tx,
                               "INSERT INTO channel_record (number, snapshot, size, sum, bytes) "
                               "VALUES (?1, ?2, ?3, ?4, ?5)",
                               &st);
    if (!e)
        e = bind(tx, st, 1, number);
    if (!e)
        e = bind(tx, st, 2, r->snapshot);
    if (!e)
        e = bind(tx, st, 3, (int64_t)r->size);
    if (!e)
        e = bind(tx, st, 4,
                 (int64_t)record_sum(r->l->channel, number, r->snapshot, r->bytes, r->size));
    if (!e)
        e = klawi_tx_result(tx, r->size
                                    ? sqlite3_bind_blob64(st, 5, r->bytes, r->size, SQLITE_STATIC)
                                    : sqlite3_bind_zeroblob(st, 5, 0));
    return e ? e : klawi_tx_run(tx, st);
}

static klaw_err write_in(klawi_store_tx *tx, void *arg) {
    const entry *r = arg;
    head h;
    klaw_err e = mine(tx, r->l, &h);
    /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
    if (!e && h.next == INT64_MAX)
        e = klawi_tx_fail(tx, KLAW_LIMIT, "no more records");
    if (!e)
        e = record_write(tx, r, h.next);
    if (!e && r->snapshot) {
        sqlite3_stmt *st;
        e = klawi_tx_stmt(tx, "DELETE FROM channel_record WHERE number < ?1", &st);
        if (!e)
            e = bind(tx, st, 1, h.next);
        if (!e)
            e = klawi_tx_run(tx, st);
        h.first = h.next;
    }
    /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
    h.next++;
    return e ? e : head_write(tx, &h); /* C2 */
}

static klaw_err write_entry(klaw_channel_log *l, const entry *r, klaw_deadline deadline,
                            klaw_error_info *info) {
    if (!l || (!r->bytes && r->size) || (!r->size && !r->snapshot))
        return l ? klawi_store_fail(l->store, info, KLAW_INVALID, "no bytes") : KLAW_INVALID;
    if (r->size > KLAW_STORE_VALUE_MAX)
        return klawi_store_fail(l->store, info, KLAW_LIMIT, "%zu bytes are too many for a %s",
                                r->size, r->snapshot ? "snapshot" : "record");
    return klawi_store_write(l->store, write_in, (void *)(uintptr_t)r, deadline, info);
}

klaw_err klaw_channel_log_append(klaw_channel_log *l, const void *bytes, size_t size,
                                 klaw_deadline deadline, klaw_error_info *info) {
    entry r = {.l = l, .bytes = bytes, .size = size};
    klaw_err e = write_entry(l, &r, deadline, info);
    if (!e) {
        atomic_fetch_add_explicit(&l->records, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&l->record_bytes, size, memory_order_relaxed);
    }
    return e;
}

klaw_err klaw_channel_log_compact(klaw_channel_log *l, const void *snapshot, size_t size,
                                  klaw_deadline deadline, klaw_error_info *info) {
    entry r = {.l = l, .bytes = snapshot, .size = size, .snapshot = true};
    klaw_err e = write_entry(l, &r, deadline, info);
    if (!e)
        set_counts(l, 0, 0, size);
    return e;
}

/* ---- reading ---- */

typedef struct reading {
    const klaw_channel_log *l;
    klaw_channel_log_contents c;
    size_t room;
} reading;

/* The row under the statement, which has to be that number. C1 */
static klaw_err take(klawi_store_tx *tx, reading *r, sqlite3_stmt *st, const head *h,
                     int64_t number) {
    klaw_blob *b = NULL;
    bool snapshot = sqlite3_column_int64(st, 1) == 1;
    const void *bytes = sqlite3_column_blob(st, 4);
    size_t size = (size_t)sqlite3_column_bytes(st, 4);
    if (!bytes && sqlite3_errcode(sqlite3_db_handle(st)) == SQLITE_NOMEM)
        return KLAW_NOMEM;
    if (sqlite3_column_int64(st, 0) != number || (snapshot && number != h->first) ||
        (uint64_t)sqlite3_column_int64(st, 2) != size ||
        (uint64_t)sqlite3_column_int64(st, 3) !=
            record_sum(r->l->channel, number, snapshot, bytes, size))
        return klawi_tx_fail(tx, KLAW_CORRUPT,
                             "record %lld of the channel's log is damaged or missing",
                             (long long)number);
    if (!snapshot && r->c.n == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        klaw_blob **more = klawi_realloc(r->c.records, room * sizeof *more);
        if (!more)
            return KLAW_NOMEM;
        r->c.records = more;
        r->room = room;
    }
    klaw_err e = klaw_blob_new(bytes, size, &b);
    if (e)
        return e;
    if (snapshot)
        r->c.snapshot = b;
    else
        r->c.records[r->c.n++] = b;
    return KLAW_OK;
}

static klaw_err load_in(klawi_store_tx *tx, void *arg) {
    reading *r = arg;
    sqlite3_stmt *st;
    head h;
    klaw_channel_log_contents_free(&r->c); /* of an earlier try */
    r->room = 0;
    klaw_err e = mine(tx, r->l, &h);
    if (!e)
        e = klawi_tx_stmt(tx,
                          "SELECT number, snapshot, size, sum, bytes FROM channel_record "
                          "ORDER BY number",
                          &st);
    /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
    int64_t number = e ? 0 : h.first;
    for (bool row = true; !e; number++) {
        e = klawi_tx_step(tx, st, &row);
        if (!e && !row)
            break;
        if (!e)
            e = take(tx, r, st, &h, number);
    }
    if (!e && number != h.next) /* C2 */
        e = klawi_tx_fail(tx, KLAW_CORRUPT, "record %lld of the channel's log is missing",
                          (long long)number);
    return e;
}

klaw_err klaw_channel_log_load(klaw_channel_log *l, klaw_channel_log_contents *out,
                               klaw_deadline deadline, klaw_error_info *info) {
    reading r = {.l = l};
    if (!l || !out)
        return KLAW_INVALID;
    klaw_err e = klawi_store_read(l->store, load_in, &r, deadline, info);
    if (e)
        klaw_channel_log_contents_free(&r.c);
    else
        *out = r.c;
    return e;
}

void klaw_channel_log_contents_free(klaw_channel_log_contents *c) {
    if (!c)
        return;
    klaw_blob_unref(c->snapshot);
    for (size_t i = 0; i < c->n; i++)
        klaw_blob_unref(c->records[i]);
    klawi_free(c->records);
    *c = (klaw_channel_log_contents){.n = 0};
}

void klaw_channel_log_look(const klaw_channel_log *l, klaw_channel_log_counts *out) {
    out->records = atomic_load_explicit(&l->records, memory_order_relaxed);
    out->record_bytes = atomic_load_explicit(&l->record_bytes, memory_order_relaxed);
    out->snapshot_bytes = atomic_load_explicit(&l->snapshot_bytes, memory_order_relaxed);
}

void klaw_channel_log_close(klaw_channel_log *l) {
    if (l)
        klaw_store_close(l->store);
}

void klaw_channel_log_free(klaw_channel_log *l) {
    if (!l)
        return;
    klaw_store_unref(l->store);
    klawi_free(l);
}
