/* SPDX-License-Identifier: Apache-2.0 */
/* store_turn.c - one at a time on a store's connection, and transactions on it.
 *
 * The turn: a flag and a queue of waiters, handed on in order. A fiber parks for it, a thread sleeps; the work itself
 * runs by klaw_blocking.
 *
 * Invariants whenever s->lock is free:
 *   U1  !busy => nobody waits (who is linked has been claimed, and is about to be unlinked by his claimer).
 *   U2  closed => nobody waits.
 *   U3  the connection is touched by the holder of the turn alone. When the store is closed the last one to
 *       hold it closes the connection, and the turn is never given again.
 *
 * Another process's lock: SQLite is told not to wait for it (but briefly at a commit, which readers may delay). The
 * transaction is rolled back, the thread goes back to the pool, the fiber sleeps some milliseconds and tries again
 * until the deadline: so a wait for a lock can be cancelled and keeps no thread. The turn is kept meanwhile;
 * others would meet the same lock.
 *
 * Rejected: SQLite's mutexes for the turn (they block a thread each); a channel of one token (it would
 * show up among the user's channels). */
#include "store/store_core.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "sched/sched.h"

#define COMMIT_PATIENCE KLAW_MS(100)
#define PAUSE_MAX KLAW_MS(25)

/* ---- the turn ---- */

int64_t klawi_store_deadline(klaw_deadline d) {
    int64_t at = KLAW_FOREVER;
    return klawi_deadline_resolve(d, KLAW_TIMEOUT, &at) == KLAW_OK ? at : 1;
}

klaw_err klawi_store_turn_take(klaw_store *s, int64_t at) {
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    klawi_lock_acquire(&s->lock);
    if (s->closed)
        e = KLAW_CLOSED;
    else if (!s->busy)
        s->busy = true;
    else if (klawi_deadline_resolve(at, KLAW_TIMEOUT, &at) != KLAW_OK)
        e = KLAW_TIMEOUT;
    else {
        klawi_waiter *w = &h->waiter;
        klawi_host_waits(h, KLAWI_WAIT_BLOCKING, 0);
        klawi_waiter_fill(w, h, &s->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&s->waiting, w);
        return klawi_park(h, w, &s->lock, at);
    }
    klawi_lock_release(&s->lock);
    return e;
}

/* Claims the first that still waits and unlinks it; NULL: nobody does. Under the lock. */
static klawi_waiter *claim_first(klaw_store *s, klaw_err result) {
    for (klawi_waiter *w = klawi_waitq_first(&s->waiting); w;
         w = klawi_waitq_next(&s->waiting, w)) {
        if (!klawi_claim(w->host, w->epoch))
            continue; /* who claimed it unlinks it */
        klawi_link_remove(&w->link);
        w->host->result = (int32_t)result;
        return w;
    }
    return NULL;
}

void klawi_store_turn_give(klaw_store *s) {
    klawi_lock_acquire(&s->lock);
    bool last = s->closed; /* U3 */
    klawi_waiter *w = last ? NULL : claim_first(s, KLAW_OK);
    if (!last && !w)
        s->busy = false;
    klawi_lock_release(&s->lock);
    if (w)
        klawi_ready(w->host);
    if (last)
        klawi_store_disconnect(s);
}

void klaw_store_close(klaw_store *s) {
    klawi_wakes wakes;
    if (!s)
        return;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    bool mine = !s->closed && !s->busy;
    s->closed = true;
    s->busy = true;
    for (klawi_waiter *w; (w = claim_first(s, KLAW_CLOSED)) != NULL;)
        klawi_wakes_add(&wakes, w);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    if (mine)
        klawi_store_disconnect(s);
}

klaw_store *klaw_store_ref(klaw_store *s) {
    /* Relaxed: the caller holds one. */
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void klaw_store_unref(klaw_store *s) {
    if (!s)
        return;
    uint32_t before = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel);
    KLAWI_ASSERT(before > 0);
    if (before != 1)
        return;
    klaw_store_close(s);
    klawi_free(s);
}

/* ---- the connection ---- */

void klawi_store_disconnect_now(klaw_store *s) {
    for (size_t i = 0; i < s->n_stmts; i++)
        (void)sqlite3_finalize(s->stmts[i].st);
    klawi_free(s->stmts);
    s->stmts = NULL;
    s->n_stmts = s->cap_stmts = 0;
    if (s->db)
        (void)sqlite3_close(s->db);
    s->db = NULL;
    klawi_store_vfs_close(&s->vfs);
}

static klaw_err disconnect(void *arg) {
    klawi_store_disconnect_now(arg);
    return KLAW_OK;
}

void klawi_store_disconnect(klaw_store *s) {
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return; /* the connection is the parent's: it is left alone */
    if (klaw_blocking(disconnect, s) != KLAW_OK) /* no thread to be had: then here */
        (void)disconnect(s);
}

klaw_err klawi_store_fail(klaw_store *s, klaw_error_info *info, klaw_err e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    klawi_store_vsays(info, s->path, 0, fmt, args);
    va_end(args);
    return e;
}

/* X(result of SQLite, code, error number when SQLite has none, what it means) */
#define RESULTS(X)                                                                               \
    X(SQLITE_BUSY, KLAW_TIMEOUT, 0, "it is locked by another process")                           \
    X(SQLITE_LOCKED, KLAW_TIMEOUT, 0, "it is locked by another process")                         \
    X(SQLITE_CORRUPT, KLAW_CORRUPT, 0, "the file is damaged")                                    \
    X(SQLITE_NOTADB, KLAW_CORRUPT, 0, "this is no SQLite database, or its beginning is damaged") \
    X(SQLITE_FULL, KLAW_SYSTEM, ENOSPC, "no space is left on the disk")                          \
    X(SQLITE_READONLY, KLAW_SYSTEM, EROFS, "it, or its folder, can't be written to")             \
    X(SQLITE_CANTOPEN, KLAW_SYSTEM, EACCES, "it, or its journal, can't be opened")               \
    X(SQLITE_PERM, KLAW_SYSTEM, EACCES, "access is denied")                                      \
    X(SQLITE_AUTH, KLAW_SYSTEM, EACCES, "access is denied")                                      \
    X(SQLITE_IOERR, KLAW_SYSTEM, EIO, "reading or writing failed")                               \
    X(SQLITE_TOOBIG, KLAW_LIMIT, 0, "too large for SQLite")                                      \
    X(SQLITE_NOMEM, KLAW_NOMEM, ENOMEM, "out of memory")

klaw_err klawi_store_result(klaw_store *s, int rc, klaw_error_info *info) {
    static const struct {
        int rc;
        klaw_err e;
        int sys;
        const char *text;
    } table[] = {
#define ROW(rc, e, sys, text) {rc, e, sys, text},
        RESULTS(ROW)
#undef ROW
    };
    if (rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE)
        return KLAW_OK;
    if (s->vfs.sync_failed) {
        klawi_store_says(info, s->path, s->vfs.sys ? s->vfs.sys : EIO,
                         "fsync failed; whether the last change survives is not known, and this "
                         "handle does nothing any more: open the store again");
        return KLAW_SYSTEM;
    }
    if (rc == SQLITE_IOERR_NOMEM)
        rc = SQLITE_NOMEM;
    else if (rc == SQLITE_IOERR_DATA || rc == SQLITE_IOERR_CORRUPTFS)
        rc = SQLITE_CORRUPT;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].rc != (rc & 0xff))
            continue;
        int sys = table[i].e == KLAW_SYSTEM && s->db ? sqlite3_system_errno(s->db) : 0;
        klawi_store_says(info, s->path, sys ? sys : table[i].sys, "%s (%s)", table[i].text,
                         sqlite3_errstr(rc));
        return table[i].e;
    }
    klawi_store_says(info, s->path, 0, "SQLite: %s", s->db ? sqlite3_errmsg(s->db) : "?");
    return s->vfs.bad ? KLAW_CORRUPT : KLAW_BACKEND; /* a damaged schema is said in many ways */
}

/* ---- trying again ---- */

klaw_err klawi_store_retry(klaw_store *s, klaw_err (*fn)(void *arg), void *arg, const bool *busy,
                           int64_t at, klaw_error_info *info) {
    for (int64_t pause = KLAW_MS(1);; pause = pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX) {
        klaw_err e = klaw_blocking(fn, arg);
        if (e != KLAW_TIMEOUT || !*busy)
            return e;
        int64_t now = klaw_now();
        if (now >= at)
            return klawi_store_fail(s, info, KLAW_TIMEOUT,
                                    "it was locked by another process beyond the deadline");
        if ((e = klaw_sleep(at - now < pause ? at : now + pause)) != KLAW_OK)
            return e;
    }
}

/* ---- transactions ---- */

typedef struct transaction {
    klawi_store_tx tx; /* first */
    klawi_store_fn fn;
    void *arg;
    int64_t at;
    bool writes;
    bool busy;
} transaction;

static klaw_err exec(transaction *t, const char *sql) {
    return klawi_tx_result(&t->tx, sqlite3_exec(t->tx.store->db, sql, NULL, NULL, NULL));
}

/* What was read on the way: may the answer be given, may the change be kept? */
static klaw_err judge(transaction *t, klaw_err e) {
    klaw_store *s = t->tx.store;
    if (s->vfs.bad == 0 || (e == KLAW_OK && t->tx.verified && !t->writes))
        return e;
    if (e == KLAW_OK || e == KLAW_NOT_FOUND)
        e = klawi_store_fail(s, t->tx.info, KLAW_CORRUPT, "page %u is damaged",
                             (unsigned)s->vfs.first_bad);
    return e;
}

/* On a thread that may block. */
static klaw_err transact(void *arg) {
    transaction *t = arg;
    klaw_store *s = t->tx.store;
    t->busy = t->tx.busy = t->tx.verified = false;
    if (s->vfs.sync_failed)
        return klawi_store_result(s, SQLITE_IOERR_FSYNC, t->tx.info);
    s->vfs.bad = 0;
    s->busy_until = 0;
    klaw_err e = exec(t, t->writes ? "BEGIN IMMEDIATE" : "BEGIN");
    if (e == KLAW_OK) {
        int64_t now = klaw_now();
        s->busy_until = t->at - now < COMMIT_PATIENCE ? t->at : now + COMMIT_PATIENCE;
        e = judge(t, t->fn(&t->tx, t->arg));
        for (size_t i = 0; i < s->n_stmts; i++)
            (void)sqlite3_reset(s->stmts[i].st);
        if (e == KLAW_OK)
            e = exec(t, "COMMIT");
        s->busy_until = 0;
    }
    if (s->db && !sqlite3_get_autocommit(s->db))
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    if (s->vfs.sync_failed)
        e = klawi_store_result(s, SQLITE_IOERR_FSYNC, t->tx.info);
    if (s->vfs
            .bad) /* damaged pages are not to stay in the cache: the next one has to meet them, too */
        (void)sqlite3_db_release_memory(s->db);
    t->busy = t->tx.busy;
    return e;
}

static klaw_err run(klaw_store *s, bool writes, klawi_store_fn fn, void *arg, klaw_deadline d,
                    klaw_error_info *info) {
    if (!s || !fn)
        return KLAW_INVALID;
    transaction t = {.tx = {.store = s, .info = info}, .fn = fn, .arg = arg, .writes = writes};
    klaw_err e = klaw_check();
    if (e)
        return e;
    if (writes && s->salvage)
        return klawi_store_fail(s, info, KLAW_INVALID, "it is open for reading only (salvage)");
    t.at = klawi_store_deadline(d);
    if ((e = klawi_store_turn_take(s, t.at)) != KLAW_OK) {
        if (e == KLAW_TIMEOUT)
            (void)klawi_store_fail(s, info, e, "others used this handle beyond the deadline");
        return e;
    }
    e = klawi_store_retry(s, transact, &t, &t.busy, t.at, info);
    klawi_store_turn_give(s);
    return e;
}

klaw_err klawi_store_write(klaw_store *s, klawi_store_fn fn, void *arg, klaw_deadline deadline,
                           klaw_error_info *info) {
    return run(s, true, fn, arg, deadline, info);
}

klaw_err klawi_store_read(klaw_store *s, klawi_store_fn fn, void *arg, klaw_deadline deadline,
                          klaw_error_info *info) {
    return run(s, false, fn, arg, deadline, info);
}

/* ---- inside one ---- */

klaw_err klawi_tx_result(klawi_store_tx *tx, int rc) {
    klaw_err e = klawi_store_result(tx->store, rc, tx->info);
    if (e == KLAW_TIMEOUT)
        tx->busy = true;
    return e;
}

klaw_err klawi_tx_fail(klawi_store_tx *tx, klaw_err e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    klawi_store_vsays(tx->info, tx->store->path, 0, fmt, args);
    va_end(args);
    return e;
}

void klawi_tx_verified(klawi_store_tx *tx) {
    tx->verified = true;
}

klaw_err klawi_tx_stmt(klawi_store_tx *tx, const char *sql, sqlite3_stmt **out) {
    klaw_store *s = tx->store;
    for (size_t i = 0; i < s->n_stmts; i++) {
        if (s->stmts[i].sql != sql)
            continue;
        *out = s->stmts[i].st;
        (void)sqlite3_reset(*out);
        (void)sqlite3_clear_bindings(*out);
        return KLAW_OK;
    }
    if (s->n_stmts == s->cap_stmts) {
        size_t cap = s->cap_stmts ? 2 * s->cap_stmts : 16;
        klawi_store_stmt *more = klawi_realloc(s->stmts, cap * sizeof *more);
        if (!more)
            return KLAW_NOMEM;
        s->stmts = more;
        s->cap_stmts = cap;
    }
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL);
    if (rc != SQLITE_OK)
        return klawi_tx_result(tx, rc);
    s->stmts[s->n_stmts++] = (klawi_store_stmt){sql, st};
    *out = st;
    return KLAW_OK;
}

klaw_err klawi_tx_step(klawi_store_tx *tx, sqlite3_stmt *st, bool *row) {
    int rc = sqlite3_step(st);
    *row = rc == SQLITE_ROW;
    return klawi_tx_result(tx, rc);
}

klaw_err klawi_tx_run(klawi_store_tx *tx, sqlite3_stmt *st) {
    klaw_err e = klawi_tx_result(tx, sqlite3_step(st));
    (void)sqlite3_reset(st);
    return e;
}

klaw_err klawi_tx_run_all(klawi_store_tx *tx, const char *const *sql, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sqlite3_stmt *st = NULL;
        klaw_err e = klawi_tx_stmt(tx, sql[i], &st);
        if (!e)
            e = klawi_tx_run(tx, st);
        if (e)
            return e;
    }
    return KLAW_OK;
}

int64_t klawi_tx_changes(klawi_store_tx *tx) {
    return sqlite3_changes(tx->store->db);
}
