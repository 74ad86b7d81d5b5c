/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_log.c - the log of workflows: its two tables, and every statement on them.
 *
 *   workflow       one row each: state, list, lease, owner, result
 *   workflow_step  one row a step: state, attempts, result
 *
 * Invariants of the file between transactions:
 *   L1  `sum` of a row covers all its other columns but the result's bytes, whose own sum and size are
 *       columns; a row that does not fit its sum is CORRUPT and nothing is done with it.
 *   L2  workflow.steps and steps_done are the numbers of rows of its steps, and of those DONE: a step
 *       that has vanished is noticed.
 *   L3  an id is never used twice (AUTOINCREMENT), a token only grows: (id, token) names one run.
 *
 * Results are the last column, so that looking at rows does not read them. The tables are made by the
 * first open, not with the store: a store without workflows has none. */
#include <string.h>

#include "store/workflow.h"

static const char *const TABLES[] = {
    "CREATE TABLE IF NOT EXISTS workflow ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, version TEXT NOT NULL,"
    "uid TEXT NOT NULL, declared INTEGER NOT NULL, cancel INTEGER NOT NULL,"
    "state INTEGER NOT NULL, token INTEGER NOT NULL, lease INTEGER NOT NULL, boot TEXT NOT NULL,"
    "until_boot INTEGER NOT NULL, until_wall INTEGER NOT NULL, owner TEXT NOT NULL,"
    "host TEXT NOT NULL, pid INTEGER NOT NULL, pid_start INTEGER NOT NULL,"
    "pid_space INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
    "finished INTEGER NOT NULL, steps INTEGER NOT NULL, steps_done INTEGER NOT NULL,"
    "error INTEGER NOT NULL, message TEXT NOT NULL, result_size INTEGER NOT NULL,"
    "result_sum INTEGER NOT NULL, sum INTEGER NOT NULL, result BLOB)",
    "CREATE TABLE IF NOT EXISTS workflow_step ("
    "workflow INTEGER NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,"
    "state INTEGER NOT NULL, dropped INTEGER NOT NULL, attempts INTEGER NOT NULL,"
    "started INTEGER NOT NULL, finished INTEGER NOT NULL, error INTEGER NOT NULL,"
    "message TEXT NOT NULL, result_size INTEGER NOT NULL, result_sum INTEGER NOT NULL,"
    "sum INTEGER NOT NULL, result BLOB, PRIMARY KEY (workflow, name))"};

/* --- binding, reading and summing one value after the other --- */

typedef struct writer {
    klawi_store_tx *tx;
    sqlite3_stmt *st;
    int at;
    uint64_t sum;
    klaw_err e;
} writer;

static writer write_to(klawi_store_tx *tx, const char *sql, uint64_t seed) {
    writer w = {.tx = tx, .sum = seed};
    w.e = klawi_tx_stmt(tx, sql, &w.st);
    return w;
}

static void put_i64(writer *w, int64_t v) {
    w->sum = klawi_store_sum(w->sum, &v, sizeof v);
    if (!w->e)
        w->e = klawi_tx_result(w->tx, sqlite3_bind_int64(w->st, ++w->at, v));
}

/* Bound without a copy: it has to live until the statement has run. */
static void put_text(writer *w, const char *s) {
    w->sum = klawi_store_sum(w->sum, s, strlen(s));
    if (!w->e)
        w->e = klawi_tx_result(w->tx, sqlite3_bind_text(w->st, ++w->at, s, -1, SQLITE_STATIC));
}

static void put_blob(writer *w, klaw_blob *b) {
    if (!w->e)
        w->e = klawi_tx_result(w->tx, sqlite3_bind_blob64(w->st, ++w->at, klaw_blob_data(b),
                                                          klaw_blob_size(b), SQLITE_STATIC));
}

static klaw_err put_done(writer *w) {
    return w->e ? w->e : klawi_tx_run(w->tx, w->st);
}

typedef struct reader {
    sqlite3_stmt *st;
    int at;
    uint64_t sum;
    bool nomem, wrong;
} reader;

static int64_t get_i64(reader *r) {
    int64_t v = sqlite3_column_int64(r->st, r->at++);
    r->sum = klawi_store_sum(r->sum, &v, sizeof v);
    return v;
}

/* A number that is at most `max`. */
static int get_enum(reader *r, int max) {
    int64_t v = get_i64(r);
    r->wrong |= v < 0 || v > max;
    return r->wrong ? 0 : (int)v;
}

static void get_text(reader *r, char *out, size_t size) {
    int at = r->at++;
    const char *s = (const char *)sqlite3_column_text(r->st, at);
    size_t n = s ? (size_t)sqlite3_column_bytes(r->st, at) : 0;
    out[0] = 0;
    if (!s)
        r->nomem |= sqlite3_column_type(r->st, at) != SQLITE_NULL;
    if (!s || n >= size || strlen(s) != n) {
        r->wrong = true;
        return;
    }
    memcpy(out, s, n + 1);
    r->sum = klawi_store_sum(r->sum, out, n);
}

/* The sum stands in the next column. */
static klaw_err get_done(reader *r, klawi_store_tx *tx, const char *what, const char *name) {
    uint64_t sum = r->sum;
    if (r->nomem)
        return KLAW_NOMEM;
    if ((uint64_t)get_i64(r) != sum || r->wrong)
        return klawi_tx_fail(tx, KLAW_CORRUPT, "the record of %s \"%.100s\" is damaged", what,
                             name);
    return KLAW_OK;
}

static uint64_t sum_of(uint64_t seed, klaw_blob *b) {
    return klawi_store_sum(seed, klaw_blob_data(b), klaw_blob_size(b));
}

/* The bytes in column 0, if they fit size and sum. */
static klaw_err get_blob(klawi_store_tx *tx, sqlite3_stmt *st, uint64_t seed, uint64_t size,
                         uint64_t sum, const char *name, klaw_blob **out) {
    const void *bytes = sqlite3_column_blob(st, 0);
    size_t n = (size_t)sqlite3_column_bytes(st, 0);
    if (!bytes && sqlite3_errcode(sqlite3_db_handle(st)) == SQLITE_NOMEM)
        return KLAW_NOMEM;
    if (n != size || klawi_store_sum(seed, bytes, n) != sum)
        return klawi_tx_fail(tx, KLAW_CORRUPT, "the result of \"%.100s\" is damaged", name);
    return klaw_blob_new(bytes, n, out);
}

/* --- tables --- */

klaw_err klawi_wf_tables_make(klawi_store_tx *tx) {
    return klawi_tx_run_all(tx, TABLES, sizeof TABLES / sizeof *TABLES);
}

/* NOT_FOUND: there are none. */
static klaw_err tables_there(klawi_store_tx *tx) {
    sqlite3_stmt *st;
    bool row;
    klaw_err e = klawi_tx_stmt(
        tx, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'workflow_step'", &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    return e ? e : row ? KLAW_OK : KLAW_NOT_FOUND;
}

/* --- workflows --- */

#define HEAD                                                                                       \
    "id, name, version, uid, declared, cancel, state, token, lease, boot, until_boot, until_wall," \
    "owner, host, pid, pid_start, pid_space, created, updated, finished, steps, steps_done, "      \
    "error,"                                                                                       \
    "message, result_size, result_sum, sum"

static klaw_err head_read(klawi_store_tx *tx, sqlite3_stmt *st, struct klawi_wf_head *h) {
    reader r = {.st = st};
    memset(h, 0, sizeof *h);
    h->id = get_i64(&r);
    get_text(&r, h->name, sizeof h->name);
    get_text(&r, h->version, sizeof h->version);
    get_text(&r, h->uid, sizeof h->uid);
    h->declared = get_enum(&r, 1);
    h->cancel = get_enum(&r, 1);
    h->state = (klaw_workflow_state)get_enum(&r, KLAW_WORKFLOW_CANCELLED);
    h->lease.token = (uint64_t)get_i64(&r);
    h->lease.duration = get_i64(&r);
    get_text(&r, h->lease.boot, sizeof h->lease.boot);
    h->lease.until_boot = get_i64(&r);
    h->lease.until_wall = get_i64(&r);
    get_text(&r, h->owner.id, sizeof h->owner.id);
    get_text(&r, h->owner.host, sizeof h->owner.host);
    h->owner.pid = get_i64(&r);
    h->owner.start = get_i64(&r);
    h->owner.space = get_i64(&r);
    h->created = get_i64(&r);
    h->updated = get_i64(&r);
    h->finished = get_i64(&r);
    h->steps = (uint64_t)get_i64(&r);
    h->steps_done = (uint64_t)get_i64(&r);
    h->error = (klaw_err)get_enum(&r, KLAW_SYSTEM);
    get_text(&r, h->message, sizeof h->message);
    h->result_size = (uint64_t)get_i64(&r);
    h->result_sum = (uint64_t)get_i64(&r);
    return get_done(&r, tx, "workflow", h->name);
}

/* The row's values in the order of HEAD. */
static void head_write(writer *w, const struct klawi_wf_head *h) {
    put_i64(w, h->id);
    put_text(w, h->name);
    put_text(w, h->version);
    put_text(w, h->uid);
    put_i64(w, h->declared);
    put_i64(w, h->cancel);
    put_i64(w, h->state);
    put_i64(w, (int64_t)h->lease.token);
    put_i64(w, h->lease.duration);
    put_text(w, h->lease.boot);
    put_i64(w, h->lease.until_boot);
    put_i64(w, h->lease.until_wall);
    put_text(w, h->owner.id);
    put_text(w, h->owner.host);
    put_i64(w, h->owner.pid);
    put_i64(w, h->owner.start);
    put_i64(w, h->owner.space);
    put_i64(w, h->created);
    put_i64(w, h->updated);
    put_i64(w, h->finished);
    put_i64(w, (int64_t)h->steps);
    put_i64(w, (int64_t)h->steps_done);
    put_i64(w, h->error);
    put_text(w, h->message);
    put_i64(w, (int64_t)h->result_size);
    put_i64(w, (int64_t)h->result_sum);
    put_i64(w, (int64_t)w->sum);
}

klaw_err klawi_wf_find(klawi_store_tx *tx, const char *name, struct klawi_wf_head *out) {
    bool row = false;
    klaw_err e = tables_there(tx);
    if (e)
        return e;
    writer w = write_to(tx, "SELECT " HEAD " FROM workflow WHERE name = ?1", 0);
    put_text(&w, name);
    e = w.e ? w.e : klawi_tx_step(tx, w.st, &row);
    return e ? e : row ? head_read(tx, w.st, out) : KLAW_NOT_FOUND;
}

klaw_err klawi_wf_find_id(klawi_store_tx *tx, int64_t id, struct klawi_wf_head *out) {
    bool row = false;
    writer w = write_to(tx, "SELECT " HEAD " FROM workflow WHERE id = ?1", 0);
    put_i64(&w, id);
    klaw_err e = w.e ? w.e : klawi_tx_step(tx, w.st, &row);
    return e ? e : row ? head_read(tx, w.st, out) : KLAW_NOT_FOUND;
}

klaw_err klawi_wf_insert(klawi_store_tx *tx, struct klawi_wf_head *h) {
    /* The id is part of the sum: it is taken first. */
    sqlite3_stmt *st;
    bool row;
    klaw_err e =
        klawi_tx_stmt(tx, "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'workflow'", &st);
    if (!e)
        e = klawi_tx_step(tx, st, &row);
    if (e)
        return e;
    h->id = row ? sqlite3_column_int64(st, 0) : 1;
    writer w = write_to(tx,
                        "INSERT INTO workflow (" HEAD ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
                        "?,?,?,?,?,?,?,?,?,?,?,?)",
                        0);
    head_write(&w, h);
    return put_done(&w);
}

klaw_err klawi_wf_update(klawi_store_tx *tx, const struct klawi_wf_head *h) {
    writer w = write_to(
        tx,
        "UPDATE workflow SET name = ?2, version = ?3, uid = ?4, declared = ?5, cancel = ?6,"
        "state = ?7, token = ?8, lease = ?9, boot = ?10, until_boot = ?11, until_wall = ?12,"
        "owner = ?13, host = ?14, pid = ?15, pid_start = ?16, pid_space = ?17, created = ?18,"
        "updated = ?19, finished = ?20, steps = ?21, steps_done = ?22, error = ?23,"
        "message = ?24, result_size = ?25, result_sum = ?26, sum = ?27 WHERE id = ?1",
        0);
    head_write(&w, h);
    return put_done(&w);
}

klaw_err klawi_wf_keep(klawi_store_tx *tx, struct klawi_wf_head *h, klaw_blob *result) {
    h->result_size = result ? klaw_blob_size(result) : 0;
    h->result_sum = result ? sum_of((uint64_t)h->id, result) : 0;
    writer w = write_to(tx, "UPDATE workflow SET result = ?2 WHERE id = ?1", 0);
    put_i64(&w, h->id);
    if (result)
        put_blob(&w, result);
    return put_done(&w);
}

klaw_err klawi_wf_kept(klawi_store_tx *tx, const struct klawi_wf_head *h, klaw_blob **out) {
    bool row = false;
    if (h->result_sum == 0)
        return klaw_blob_new(NULL, 0, out);
    writer w = write_to(tx, "SELECT result FROM workflow WHERE id = ?1", 0);
    put_i64(&w, h->id);
    klaw_err e = w.e ? w.e : klawi_tx_step(tx, w.st, &row);
    if (e || !row)
        return e ? e : KLAW_NOT_FOUND;
    return get_blob(tx, w.st, (uint64_t)h->id, h->result_size, h->result_sum, h->name, out);
}

klaw_err klawi_wf_delete(klawi_store_tx *tx, int64_t id) {
    writer w = write_to(tx, "DELETE FROM workflow_step WHERE workflow = ?1", 0);
    put_i64(&w, id);
    klaw_err e = put_done(&w);
    if (e)
        return e;
    w = write_to(tx, "DELETE FROM workflow WHERE id = ?1", 0);
    put_i64(&w, id);
    return put_done(&w);
}

klaw_err klawi_wf_each(klawi_store_tx *tx, const char *from,
                       klaw_err (*each)(const struct klawi_wf_head *h, bool *more, void *arg),
                       void *arg) {
    struct klawi_wf_head h;
    bool row = false, more = true;
    klaw_err e = tables_there(tx);
    if (e)
        return e == KLAW_NOT_FOUND ? KLAW_OK : e;
    writer w = write_to(tx, "SELECT " HEAD " FROM workflow WHERE name >= ?1 ORDER BY name", 0);
    put_text(&w, from);
    for (e = w.e; !e && more;) {
        e = klawi_tx_step(tx, w.st, &row);
        if (e || !row)
            break;
        e = head_read(tx, w.st, &h);
        if (!e)
            e = each(&h, &more, arg);
    }
    return e;
}

/* --- steps --- */

#define ROW                                                                                     \
    "name, position, state, dropped, attempts, started, finished, error, message, result_size," \
    "result_sum, sum"

/* The sum of a step depends on whose it is. */
static klaw_err row_read(klawi_store_tx *tx, sqlite3_stmt *st, int64_t id,
                         struct klawi_wf_row *out) {
    reader r = {.st = st, .sum = klawi_store_sum(0, &id, sizeof id)};
    memset(out, 0, sizeof *out);
    get_text(&r, out->name, sizeof out->name);
    out->position = get_i64(&r);
    out->state = (klaw_step_state)get_enum(&r, KLAW_STEP_DONE);
    out->dropped = get_enum(&r, 1);
    out->attempts = (uint32_t)get_i64(&r);
    out->started = get_i64(&r);
    out->finished = get_i64(&r);
    out->error = (klaw_err)get_enum(&r, KLAW_SYSTEM);
    get_text(&r, out->message, sizeof out->message);
    out->result_size = (uint64_t)get_i64(&r);
    out->result_sum = (uint64_t)get_i64(&r);
    return get_done(&r, tx, "step", out->name);
}

klaw_err klawi_wf_row_find(klawi_store_tx *tx, int64_t id, const char *name,
                           struct klawi_wf_row *out) {
    bool row = false;
    writer w =
        write_to(tx, "SELECT " ROW " FROM workflow_step WHERE workflow = ?1 AND name = ?2", 0);
    put_i64(&w, id);
    put_text(&w, name);
    klaw_err e = w.e ? w.e : klawi_tx_step(tx, w.st, &row);
    return e ? e : row ? row_read(tx, w.st, id, out) : KLAW_NOT_FOUND;
}

klaw_err klawi_wf_row_save(klawi_store_tx *tx, int64_t id, struct klawi_wf_row *r,
                           klaw_blob *result) {
    if (result) {
        r->result_size = klaw_blob_size(result);
        r->result_sum = sum_of((uint64_t)id, result);
    }
    writer w = write_to(
        tx,
        "INSERT INTO workflow_step (workflow, " ROW ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
        "ON CONFLICT (workflow, name) DO UPDATE SET position = ?3, state = ?4, dropped = ?5,"
        "attempts = ?6, started = ?7, finished = ?8, error = ?9, message = ?10,"
        "result_size = ?11, result_sum = ?12, sum = ?13",
        0);
    put_i64(&w, id);
    put_text(&w, r->name);
    put_i64(&w, r->position);
    put_i64(&w, r->state);
    put_i64(&w, r->dropped);
    put_i64(&w, r->attempts);
    put_i64(&w, r->started);
    put_i64(&w, r->finished);
    put_i64(&w, r->error);
    put_text(&w, r->message);
    put_i64(&w, (int64_t)r->result_size);
    put_i64(&w, (int64_t)r->result_sum);
    put_i64(&w, (int64_t)w.sum);
    klaw_err e = put_done(&w);
    if (e || !result)
        return e;
    w = write_to(tx, "UPDATE workflow_step SET result = ?3 WHERE workflow = ?1 AND name = ?2", 0);
    put_i64(&w, id);
    put_text(&w, r->name);
    put_blob(&w, result);
    return put_done(&w);
}

klaw_err klawi_wf_row_kept(klawi_store_tx *tx, int64_t id, const struct klawi_wf_row *r,
                           klaw_blob **out) {
    bool row = false;
    if (r->result_sum == 0)
        return klaw_blob_new(NULL, 0, out);
    writer w =
        write_to(tx, "SELECT result FROM workflow_step WHERE workflow = ?1 AND name = ?2", 0);
    put_i64(&w, id);
    put_text(&w, r->name);
    klaw_err e = w.e ? w.e : klawi_tx_step(tx, w.st, &row);
    if (e || !row)
        return e ? e : KLAW_NOT_FOUND;
    return get_blob(tx, w.st, (uint64_t)id, r->result_size, r->result_sum, r->name, out);
}

klaw_err klawi_wf_row_each(klawi_store_tx *tx, const struct klawi_wf_head *h,
                           klaw_err (*each)(const struct klawi_wf_row *r, void *arg), void *arg) {
    struct klawi_wf_row r;
    bool row = false;
    uint64_t n = 0, done = 0;
    writer w = write_to(
        tx, "SELECT " ROW " FROM workflow_step WHERE workflow = ?1 ORDER BY position, name", 0);
    put_i64(&w, h->id);
    klaw_err e = w.e;
    while (!e) {
        e = klawi_tx_step(tx, w.st, &row);
        if (e || !row)
            break;
        e = row_read(tx, w.st, h->id, &r);
        n++;
        done += !e && r.state == KLAW_STEP_DONE;
        if (!e)
            e = each(&r, arg);
    }
    if (!e && (n != h->steps || done != h->steps_done))
        return klawi_tx_fail(tx, KLAW_CORRUPT, "workflow \"%.100s\" has lost steps", h->name);
    return e;
}
