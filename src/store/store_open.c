/* SPDX-License-Identifier: Apache-2.0 */
/* store_open.c - opening: the folder, the connection and its settings, whose file it is, the schema.
 *
 * In this order: path and folder (store_path.c); SQLite under umask 0077, so that nothing it makes is open to others,
 * whatever its version does about the modes of side files; whose file: an empty one becomes a store, another
 * program's database is refused before anything is written to it; the schema; the journal.
 *
 * Journal: SQLite from 3.51.3 on gets a write-ahead log with synchronous=FULL. Older ones have a defect that can lose a
 * commit when several connections reset the log; they get a rollback journal with synchronous=EXTRA, which also
 * syncs the folder after the journal is deleted: the deletion is the commit, and without that sync a power
 * loss could bring the journal back and undo a confirmed save.
 *
 * The umask is the process's: a file that another thread makes in that moment gets fewer rights than it asked for. It
 * is set for the few system calls of the opening alone. */
#include "store/store_core.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"

#define WAL_FROM 3051003 /* the first SQLite whose write-ahead log is safe with several writers */
#define OLDEST 3034000

/* One opening at a time: the umask, and store_path.c's own descriptor. Never held across a wait of klaw. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

typedef struct open_job {
    klaw_store *s;
    const char *path;
    const klawi_store_extra *extra;
    klaw_error_info *info;
    char *file;
    bool salvage;
    bool busy;
} open_job;

/* ---- small questions to SQLite ---- */

static klaw_err answer(open_job *j, int rc) {
    klaw_err e = klawi_store_result(j->s, rc, j->info);
    if (e == KLAW_TIMEOUT)
        j->busy = true;
    return e;
}

static klaw_err set(open_job *j, const char *sql) {
    return answer(j, sqlite3_exec(j->s->db, sql, NULL, NULL, NULL));
}

/* The first column of the first row: a number into *n, text into buf. */
static klaw_err ask(open_job *j, const char *sql, int64_t *n, char *buf, size_t size) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(j->s->db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW && n)
        *n = sqlite3_column_int64(st, 0);
    if (rc == SQLITE_ROW && buf) {
        const unsigned char *text = sqlite3_column_text(st, 0);
        snprintf(buf, size, "%s", text ? (const char *)text : "");
    }
    int end = sqlite3_finalize(st);
    return answer(j, end != SQLITE_OK ? end : rc);
}

static int on_busy(void *arg, int times) {
    klaw_store *s = arg;
    (void)times;
    if (klaw_now() >= s->busy_until)
        return 0;
    klawi_thread_nap(KLAW_MS(1));
    return 1;
}

/* ---- the connection ---- */

static klaw_err connect(open_job *j) {
    klaw_store *s = j->s;
    int n = KLAWI_STORE_RESERVED;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (!j->salvage)
        flags |= SQLITE_OPEN_CREATE;
    if (!j->extra->vfs)
        flags |= SQLITE_OPEN_NOFOLLOW;
    if (sqlite3_libversion_number() < OLDEST || !sqlite3_threadsafe())
        return klawi_store_fail(
            s, j->info, KLAW_BACKEND,
            "SQLite %s can't serve: 3.34 or later, built for threads, is needed",
            sqlite3_libversion());
    klaw_err e = klawi_store_vfs_open(&s->vfs, j->extra->vfs);
    if (e)
        return klawi_store_fail(s, j->info, e, "SQLite has no file layer %s",
                                j->extra->vfs ? j->extra->vfs : "at all");
    e = answer(j, sqlite3_open_v2(s->path, &s->db, flags, s->vfs.name));
    if (e)
        return e;
    (void)sqlite3_busy_handler(s->db, on_busy, s);
    /* Before the first page is read; it counts for new files alone. */
    (void)sqlite3_file_control(s->db, "main", SQLITE_FCNTL_RESERVE_BYTES, &n);
    return set(j, "PRAGMA page_size=4096; PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;"
                  "PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY");
}

/* The file is not a store's: why not. */
static klaw_err stranger(open_job *j, int64_t application) {
    unsigned char head[100] = {0};
    sqlite3_file *f = NULL;
    int rc = sqlite3_file_control(j->s->db, "main", SQLITE_FCNTL_FILE_POINTER, &f);
    if (rc == SQLITE_OK)
        rc = f->pMethods->xRead(f, head, sizeof head, 0);
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ)
        return answer(j, rc);
    /* One damaged byte spoils one of the two marks, not both. */
    if (application != KLAWI_STORE_APPLICATION && head[20] != KLAWI_STORE_RESERVED)
        return klawi_store_fail(j->s, j->info, KLAW_INVALID,
                                "this is another program's SQLite database");
    return klawi_store_fail(j->s, j->info, KLAW_CORRUPT, "its first page is damaged");
}

/* In a transaction: makes or brings up to date the tables. */
static klaw_err bring_up(open_job *j, int64_t version) {
    klawi_store_tx tx = {.store = j->s, .info = j->info};
    klaw_err e = set(j, "BEGIN IMMEDIATE");
    if (e)
        return e;
    int64_t now = -1;
    e = ask(j, "PRAGMA user_version", &now, NULL, 0);
    if (!e && now == version) /* else another process has done it meanwhile */
        e = klawi_store_schema_apply(&tx, (int)version);
    if (!e && j->s->vfs.bad)
        e = klawi_store_fail(j->s, j->info, KLAW_CORRUPT, "page %u is damaged",
                             (unsigned)j->s->vfs.first_bad);
    if (!e)
        e = set(j, "COMMIT");
    j->busy |= tx.busy;
    if (!sqlite3_get_autocommit(j->s->db))
        (void)sqlite3_exec(j->s->db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

static klaw_err whose(open_job *j, int64_t *version) {
    klaw_store *s = j->s;
    int64_t pages = 0, application = 0;
    klaw_err e = ask(j, "PRAGMA page_count", &pages, NULL, 0);
    if (!e)
        e = ask(j, "PRAGMA application_id", &application, NULL, 0);
    if (!e)
        e = ask(j, "PRAGMA user_version", version, NULL, 0);
    if (e)
        return e;
    if (pages == 0) {
        s->vfs.own = !j->extra->no_sums;
        return KLAW_OK;
    }
    if (j->extra->no_sums)
        s->vfs.own = false, s->vfs.bad = 0;
    else if (!s->vfs.own || application != KLAWI_STORE_APPLICATION)
        return stranger(j, application);
    if (s->vfs.bad && !j->salvage)
        return klawi_store_fail(s, j->info, KLAW_CORRUPT, "page %u is damaged",
                                (unsigned)s->vfs.first_bad);
    if (*version > klawi_store_schema_newest)
        return klawi_store_fail(
            s, j->info, KLAW_BACKEND,
            "it was made by a newer klaw (schema %lld; this one knows up to %d)",
            (long long)*version, klawi_store_schema_newest);
    return KLAW_OK;
}

static klaw_err journal(open_job *j) {
    klaw_store *s = j->s;
    char mode[16] = "";
    bool wal = j->extra->journal == KLAWI_JOURNAL_WAL ||
               (j->extra->journal == KLAWI_JOURNAL_AUTO && sqlite3_libversion_number() >= WAL_FROM);
    klaw_err e = ask(j, wal ? "PRAGMA journal_mode=WAL" : "PRAGMA journal_mode=DELETE", NULL, mode,
                     sizeof mode);
    if (e)
        return e;
    s->wal = strcmp(mode, "wal") == 0;
    if (s->wal && !wal) { /* another process has the log open */
        j->busy = true;
        return KLAW_TIMEOUT;
    }
    return set(j, s->wal ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=EXTRA");
}

static klaw_err settle(open_job *j) {
    klaw_store *s = j->s;
    char text[64];
    int64_t version = 0;
    s->vfs.bad = 0;
    klaw_err e = connect(j);
    if (!e) /* until the journal is known, what serves both */
        e = set(j, "PRAGMA synchronous=EXTRA");
    if (!e)
        e = whose(j, &version);
    if (!e && !j->salvage && version < klawi_store_schema_newest)
        e = bring_up(j, version); /* first: a mode alone would make a file that is nobody's */
    if (!e && !j->salvage)
        e = journal(j);
    if (!e && j->extra->synchronous) {
        snprintf(text, sizeof text, "PRAGMA synchronous=%s", j->extra->synchronous);
        e = set(j, text);
    }
    if (!e) /* the tables are read here and not in the first load */
        e = ask(j, "SELECT count(*) FROM sqlite_schema", NULL, NULL, 0);
    if (!e && s->vfs.bad && !j->salvage)
        e = klawi_store_fail(s, j->info, KLAW_CORRUPT, "page %u is damaged",
                             (unsigned)s->vfs.first_bad);
    if (s->vfs.bad && s->db)
        (void)sqlite3_db_release_memory(s->db);
    return e;
}

/* On a thread that may block; run again while the file is locked. */
static klaw_err open_once(void *arg) {
    open_job *j = arg;
    klaw_err e = KLAW_OK;
    j->busy = false;
    (void)pthread_mutex_lock(&opening);
    mode_t mask = umask(0077);
    if (!j->extra->vfs)
        e = klawi_store_path_secure(j->s->path, !j->salvage, j->info);
    if (!e)
        e = settle(j);
    (void)umask(mask);
    (void)pthread_mutex_unlock(&opening);
    if (e)
        klawi_store_disconnect_now(j->s);
    return e;
}

static klaw_err find_once(void *arg) {
    open_job *j = arg;
    return klawi_store_path_find(j->path, !j->salvage, &j->file, j->info);
}

klaw_err klawi_store_open(const char *path, const klaw_store_opts *opts,
                          const klawi_store_extra *extra, klaw_store **out, klaw_error_info *info) {
    static const klawi_store_extra none;
    if (info)
        memset(info, 0, sizeof *info);
    if (!out || opts->keep < KLAW_NONE || (extra && !path))
        return KLAW_INVALID;
    open_job j = {.path = path, .extra = extra ? extra : &none, .info = info};
    j.salvage = opts->salvage;
    klaw_err e = klaw_check();
    if (!e && !j.extra->vfs)
        e = klaw_blocking(find_once, &j);
    if (e)
        return e;
    const char *file = j.file ? j.file : path;
    size_t n = strlen(file) + 1;
    klaw_store *s = klawi_calloc(1, sizeof *s + n);
    if (s) {
        atomic_init(&s->refs, 1);
        klawi_lock_init(&s->lock, KLAWI_RANK_ENDPOINT);
        klawi_link_init(&s->waiting);
        s->keep = opts->keep ? opts->keep : KLAW_STORE_KEEP;
        s->salvage = opts->salvage;
        memcpy(s->path, file, n);
    }
    klawi_free(j.file);
    if (!s)
        return KLAW_NOMEM;
    j.s = s;
    int64_t at = opts->deadline ? klawi_store_deadline(opts->deadline) : KLAW_FOREVER;
    e = klawi_store_retry(s, open_once, &j, &j.busy, at, info);
    if (e)
        klaw_store_unref(s);
    else
        *out = s;
    return e;
}

klaw_err klaw_store_open_sized(const char *path, const klaw_store_opts *opts, size_t opts_size,
                               klaw_store **out, klaw_error_info *info) {
    klaw_store_opts all = {0};
    if (opts)
        memcpy(&all, opts, opts_size < sizeof all ? opts_size : sizeof all);
    return klawi_store_open(path, &all, NULL, out, info);
}
