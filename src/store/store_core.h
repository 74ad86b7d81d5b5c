/* SPDX-License-Identifier: Apache-2.0 */
/* store_core.h - the store's own insides, for the files store*.c alone. */
#ifndef KLAWI_STORE_CORE_H
#define KLAWI_STORE_CORE_H

#include <stdarg.h>

#include "base/lock.h"
#include "sched/host.h"
#include "store/store_vfs.h"

/* The version of the tables that this library makes, see store_schema.c. */
extern const int klawi_store_schema_newest;

/* A prepared statement, kept. */
typedef struct klawi_store_stmt {
    const char *sql;
    sqlite3_stmt *st;
} klawi_store_stmt;

struct klaw_store {
    _Atomic uint32_t refs; /* (a) */
    klawi_lock lock;       /* rank ENDPOINT */
    klawi_waitq waiting;   /* (L) */
    bool busy;             /* (L) somebody has the turn */
    bool closed;           /* (L) */
    int64_t keep;          /* (c) */
    bool salvage;          /* (c) */
    /* What follows belongs to whoever has the turn. */
    sqlite3 *db; /* NULL: not open (any more) */
    klawi_store_vfs vfs;
    klawi_store_stmt *stmts;
    size_t n_stmts, cap_stmts;
    int64_t busy_until; /* how long SQLite may wait for a lock now */
    bool wal;
    _Atomic uint64_t saves, loads; /* (a relaxed) */
    char path[];                   /* (c) */
};

struct klawi_store_tx {
    klaw_store *store;
    klaw_error_info *info; /* NULL allowed */
    bool busy;             /* something met a lock: roll back, try again */
    bool verified;         /* see klawi_tx_verified */
};

/* What tests may ask for besides the public options. */
typedef struct klawi_store_extra {
    const char *vfs; /* another VFS below: no folder is looked at, the path is its own */
    enum { KLAWI_JOURNAL_AUTO, KLAWI_JOURNAL_ROLLBACK, KLAWI_JOURNAL_WAL } journal;
    /* Bugs on purpose. */
    const char *synchronous; /* instead of what the journal needs */
    bool no_sums;            /* the file is not ours for the layer: no checksums of pages */
} klawi_store_extra;
klaw_err klawi_store_open(const char *path, const klaw_store_opts *opts,
                          const klawi_store_extra *extra, klaw_store **out, klaw_error_info *info);

/* --- store_turn.c: one at a time, transactions --- */
klaw_err klawi_store_turn_take(klaw_store *s, int64_t at);
void klawi_store_turn_give(klaw_store *s);
/* An absolute deadline; NOWAIT becomes one in the past. */
int64_t klawi_store_deadline(klaw_deadline d);
/* Runs fn(arg), which may block, over and over while it answers that a lock is held (*busy set), until `at`. The
 * caller has the turn. */
klaw_err klawi_store_retry(klaw_store *s, klaw_err (*fn)(void *arg), void *arg, const bool *busy,
                           int64_t at, klaw_error_info *info);
/* An answer of SQLite as a code, with info. */
klaw_err klawi_store_result(klaw_store *s, int rc, klaw_error_info *info);
klaw_err klawi_store_fail(klaw_store *s, klaw_error_info *info, klaw_err e, const char *fmt, ...)
    KLAW_PRINTF(4, 5);
/* Closes the connection; has the turn. May block. */
void klawi_store_disconnect(klaw_store *s);
/* The same on a thread that may block anyway. */
void klawi_store_disconnect_now(klaw_store *s);

/* --- store_path.c --- */
/* The file's absolute path, its folder made and looked at; *out by klawi_alloc. May block. `make`: the
 * folder may be made. */
klaw_err klawi_store_path_find(const char *path, bool make, char **out, klaw_error_info *info);
/* What is to be done to the file itself before SQLite opens it: a regular file, mode 0600. */
klaw_err klawi_store_path_secure(const char *file, bool make, klaw_error_info *info);
/* "store <path>: <text>" into info->message, backend "sqlite"; NULL info: nothing. */
void klawi_store_says(klaw_error_info *info, const char *path, int sys, const char *fmt, ...)
    KLAW_PRINTF(4, 5);
void klawi_store_vsays(klaw_error_info *info, const char *path, int sys, const char *fmt,
                       va_list args);

/* --- store.c --- */
/* The columns of a row, from 0, in every statement that verifies it. */
#define KLAWI_STORE_COLUMNS "key, version, saved_at, size, sum, bytes"
/* The row's sum is right, and it is that of `key` (NULL: of any). */
bool klawi_store_row_whole(sqlite3_stmt *st, const char *key);

/* --- store_schema.c --- */
/* Inside a write transaction: from `version` to the newest. */
klaw_err klawi_store_schema_apply(klawi_store_tx *tx, int version);

#endif
