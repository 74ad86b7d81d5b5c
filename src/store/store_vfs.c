/* SPDX-License-Identifier: Apache-2.0 */
/* store_vfs.c - the file layer below a store's connection (see store.c for what it is good for).
 *
 * It hands every call on to the real VFS, and
 *   V1  a page that is written to the database file gets the checksum of its number and its first 4088 bytes into
 *       its last 8, which SQLite leaves alone (the header says so: reserved space 8). The buffer in SQLite's cache gets
 *       it too, so a clean cached page always is what lies on the disk, and so is its image in a rollback journal.
 *   V2  a page that is read from the database file is checked. A wrong one is counted, not refused: whoever reads
 *       decides whether the answer can still be trusted (klawi_store_read), and takes care that it
 *       is not kept in the cache.
 *   V3  a page image that is read from a rollback journal is checked and refused: playing it back would put a
 *       right checksum on wrong bytes.
 *   V4  pages in a write-ahead log have SQLite's own checksums; in the cache their last 8 bytes are 0, "not known",
 *       until a checkpoint writes them to the database file.
 *   V5  once a sync has failed, nothing is written, synced, cut or deleted any more, not even by a roll-back: what
 *       the kernel still has of those pages is unknown. The journal stays, the next opening plays it back.
 *   V6  a file that is not ours (`own`) is neither checked nor changed in its last 8 bytes.
 *
 * It offers no memory mapping: pages would be read without V2.
 *
 * Rejected: SQLite's own checksum VFS, an extension that is not there on most machines; a checksum over the whole
 * file or per key alone, which finds damaged values but not a damaged tree that hides a newer version. */
#include "store/store_vfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum kind { DATABASE, JOURNAL, LOG, OTHER };

typedef struct file {
    sqlite3_file base; /* first */
    klawi_store_vfs *v;
    enum kind kind;
    uint32_t number; /* the last 4 bytes read: in a journal the number of the page that follows */
    sqlite3_int64 after; /* where they end */
} file;

static file *of(sqlite3_file *f) {
    return (file *)(void *)f;
}
/* SQLite's memory for the real file lies behind ours. */
static sqlite3_file *real_of(sqlite3_file *f) {
    return (sqlite3_file *)(void *)(of(f) + 1);
}
static klawi_store_vfs *layer(sqlite3_vfs *v) {
    return (klawi_store_vfs *)(void *)v;
}

/* ---- checksums of pages ---- */

#define SUMMED (KLAWI_STORE_PAGE - KLAWI_STORE_RESERVED)

static uint64_t sum_of(uint32_t number, const void *page) {
    return klawi_store_sum(number, page, SUMMED);
}
static uint64_t sum_in(const void *page) {
    uint64_t sum = 0;
    const unsigned char *p = (const unsigned char *)page + SUMMED;
    for (int i = 0; i < 8; i++)
        sum |= (uint64_t)p[i] << (8 * i);
    return sum;
}
static void sum_put(void *page, uint64_t sum) {
    unsigned char *p = (unsigned char *)page + SUMMED;
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(sum >> (8 * i));
}
static uint32_t page_at(sqlite3_int64 at) {
    return (uint32_t)(at / KLAWI_STORE_PAGE + 1);
}
static bool whole_page(int size, sqlite3_int64 at) {
    return size == KLAWI_STORE_PAGE && at % KLAWI_STORE_PAGE == 0;
}
static void met(klawi_store_vfs *v, uint32_t number) {
    if (v->bad++ == 0)
        v->first_bad = number;
    v->met++;
}
static uint32_t be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- files ---- */

static int file_close(sqlite3_file *f) {
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int file_read(sqlite3_file *f, void *buf, int size, sqlite3_int64 at) {
    file *o = of(f);
    klawi_store_vfs *v = o->v;
    int rc = real_of(f)->pMethods->xRead(real_of(f), buf, size, at);
    if (rc != SQLITE_OK || !v->own)
        return rc;
    if (o->kind == DATABASE && size >= 512) {
        if (!whole_page(size, at))
            met(v, 1); /* the header's page size is damaged */
        else if (sum_in(buf) != sum_of(page_at(at), buf))
            met(v, page_at(at)); /* V2 */
    } else if (o->kind == JOURNAL && size == 4) {
        o->number = be32(buf);
        o->after = at + 4;
    } else if (o->kind == JOURNAL && size == KLAWI_STORE_PAGE && at == o->after) {
        uint64_t sum = sum_in(buf);
        if (sum != 0 && sum != sum_of(o->number, buf)) { /* V3, V4 */
            met(v, o->number);
            return SQLITE_IOERR_DATA;
        }
    } else if (o->kind == LOG && size == KLAWI_STORE_PAGE) {
        sum_put(buf, 0); /* V4 */
    }
    return rc;
}

static int file_write(sqlite3_file *f, const void *buf, int size, sqlite3_int64 at) {
    file *o = of(f);
    klawi_store_vfs *v = o->v;
    if (v->sync_failed)
        return SQLITE_IOERR_WRITE; /* V5 */
    if (o->kind == DATABASE && v->own && whole_page(size, at))
        sum_put((void *)(uintptr_t)buf,
                sum_of(page_at(at), buf)); /* V1: SQLite's own page buffer */
    int rc = real_of(f)->pMethods->xWrite(real_of(f), buf, size, at);
    if (o->kind == LOG && v->own && size == KLAWI_STORE_PAGE)
        sum_put((void *)(uintptr_t)buf, 0); /* V4 */
    return rc;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
    if (of(f)->v->sync_failed)
        return SQLITE_IOERR_TRUNCATE;
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int file_sync(sqlite3_file *f, int flags) {
    klawi_store_vfs *v = of(f)->v;
    if (v->sync_failed)
        return SQLITE_IOERR_FSYNC;
    int rc = real_of(f)->pMethods->xSync(real_of(f), flags);
    if (rc != SQLITE_OK) {
        v->sync_failed = true; /* V5 */
        v->sys = errno;
    }
    return rc;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size) {
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}
static int file_lock(sqlite3_file *f, int level) {
    return real_of(f)->pMethods->xLock(real_of(f), level);
}
static int file_unlock(sqlite3_file *f, int level) {
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}
static int file_check_lock(sqlite3_file *f, int *out) {
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}
static int file_control(sqlite3_file *f, int op, void *arg) {
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}
static int file_sector(sqlite3_file *f) {
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}
static int file_device(sqlite3_file *f) {
    /* Batches of atomic writes would go around the journal, whose syncs and images V3 and V5 rely on. */
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f)) & ~SQLITE_IOCAP_BATCH_ATOMIC;
}
static int shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
    if (real_of(f)->pMethods->iVersion < 2)
        return SQLITE_IOERR_SHMMAP;
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}
static int shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}
static void shm_barrier(sqlite3_file *f) {
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}
static int shm_unmap(sqlite3_file *f, int del) {
    return real_of(f)->pMethods->xShmUnmap(real_of(f), del);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* 3 would be memory mapping */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_device,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* ---- the VFS ---- */

/* Whether a database file is ours, by its first 100 bytes: magic, reserved space, application. An empty
 * one will be. */
static int is_own(sqlite3_file *real, bool *own) {
    unsigned char head[100] = {0};
    sqlite3_int64 size = 0;
    int rc = real->pMethods->xFileSize(real, &size);
    if (rc == SQLITE_OK && size > 0)
        rc = real->pMethods->xRead(real, head, sizeof head, 0);
    *own = size == 0 ||
           (memcmp(head, "SQLite format 3", 16) == 0 && head[20] == KLAWI_STORE_RESERVED &&
            be32(head + 68) == KLAWI_STORE_APPLICATION);
    return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *got) {
    klawi_store_vfs *v = layer(vfs);
    file *o = of(f);
    memset(o, 0, sizeof *o);
    o->v = v;
    o->kind = flags & SQLITE_OPEN_MAIN_DB        ? DATABASE
              : flags & SQLITE_OPEN_MAIN_JOURNAL ? JOURNAL
              : flags & SQLITE_OPEN_WAL          ? LOG
                                                 : OTHER;
    real_of(f)->pMethods = NULL;
    o->after = -1;
    int rc = v->real->xOpen(v->real, name, real_of(f), flags, got);
    if (rc == SQLITE_OK && o->kind == DATABASE)
        rc = is_own(real_of(f), &v->own);
    if (rc == SQLITE_OK)
        o->base.pMethods = &methods;
    else if (real_of(f)->pMethods)
        real_of(f)->pMethods->xClose(real_of(f));
    return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync) {
    klawi_store_vfs *v = layer(vfs);
    if (v->sync_failed)
        return SQLITE_IOERR_DELETE;
    int rc = v->real->xDelete(v->real, name, sync);
    if (rc == SQLITE_IOERR_DIR_FSYNC) {
        v->sync_failed = true;
        v->sys = errno;
    }
    return rc;
}
static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out) {
    return layer(vfs)->real->xAccess(layer(vfs)->real, name, flags, out);
}
static int vfs_path(sqlite3_vfs *vfs, const char *name, int size, char *out) {
    return layer(vfs)->real->xFullPathname(layer(vfs)->real, name, size, out);
}
static int vfs_random(sqlite3_vfs *vfs, int size, char *out) {
    return layer(vfs)->real->xRandomness(layer(vfs)->real, size, out);
}
static int vfs_sleep(sqlite3_vfs *vfs, int us) {
    return layer(vfs)->real->xSleep(layer(vfs)->real, us);
}
static int vfs_time(sqlite3_vfs *vfs, double *out) {
    return layer(vfs)->real->xCurrentTime(layer(vfs)->real, out);
}
static int vfs_error(sqlite3_vfs *vfs, int size, char *out) {
    return layer(vfs)->real->xGetLastError
               ? layer(vfs)->real->xGetLastError(layer(vfs)->real, size, out)
               : 0;
}

klaw_err klawi_store_vfs_open(klawi_store_vfs *v, const char *real) {
    static _Atomic uint32_t number;
    memset(v, 0, sizeof *v);
    v->real = sqlite3_vfs_find(real);
    if (!v->real)
        return KLAW_BACKEND;
    snprintf(v->name, sizeof v->name, "klaw-%u", (unsigned)atomic_fetch_add(&number, 1));
    v->vfs = (sqlite3_vfs){
        .iVersion = 1,
        .szOsFile = (int)sizeof(file) + v->real->szOsFile,
        .mxPathname = v->real->mxPathname,
        .zName = v->name,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_path,
        .xRandomness = vfs_random,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_error,
    };
    return sqlite3_vfs_register(&v->vfs, 0) == SQLITE_OK ? KLAW_OK : KLAW_NOMEM;
}

void klawi_store_vfs_close(klawi_store_vfs *v) {
    if (v->real)
        (void)sqlite3_vfs_unregister(&v->vfs);
    v->real = NULL;
}

/* ---- the whole file ---- */

/* Marks the leaves of the list of free pages: what they hold means nothing, and a crash while one of them was being
 * used again leaves it torn, for it is in no journal. The trunks are in use. */
static void mark_free(sqlite3_file *real, uint64_t pages, unsigned char *marks) {
    unsigned char page[KLAWI_STORE_PAGE];
    if (real->pMethods->xRead(real, page, sizeof page, 0) != SQLITE_OK)
        return;
    uint32_t trunk = be32(page + 32);
    for (uint64_t i = 0; i < pages && trunk > 1 && trunk <= pages; i++) {
        sqlite3_int64 at = (sqlite3_int64)(trunk - 1) * KLAWI_STORE_PAGE;
        if (real->pMethods->xRead(real, page, sizeof page, at) != SQLITE_OK ||
            sum_in(page) != sum_of(trunk, page))
            return;
        uint32_t n = be32(page + 4);
        for (uint32_t j = 0; j < n && 8 + 4 * j < SUMMED; j++) {
            uint32_t leaf = be32(page + 8 + (size_t)4 * j);
            if (leaf > 1 && leaf <= pages)
                marks[leaf / 8] |= (unsigned char)(1u << leaf % 8);
        }
        trunk = be32(page);
    }
}

static bool zeros(const unsigned char *p, size_t n) {
    while (n && *p == 0)
        p++, n--;
    return n == 0;
}

int klawi_store_vfs_scan(klawi_store_vfs *v, sqlite3 *db, uint64_t *pages, uint64_t *damaged) {
    unsigned char page[KLAWI_STORE_PAGE];
    sqlite3_file *f = NULL;
    sqlite3_int64 size = 0;
    int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f);
    if (rc == SQLITE_OK)
        rc = f->pMethods->xFileSize(f, &size);
    if (rc != SQLITE_OK)
        return rc;
    *pages = (uint64_t)(size + KLAWI_STORE_PAGE - 1) / KLAWI_STORE_PAGE;
    *damaged = 0;
    if (!v->own)
        return SQLITE_OK; /* V6 */
    unsigned char *marks = klawi_calloc(1, *pages / 8 + 1);
    if (!marks)
        return SQLITE_NOMEM;
    mark_free(real_of(f), *pages, marks);
    for (uint64_t i = 1; rc == SQLITE_OK && i <= *pages; i++) {
        sqlite3_int64 at = (sqlite3_int64)(i - 1) * KLAWI_STORE_PAGE;
        rc = real_of(f)->pMethods->xRead(real_of(f), page, KLAWI_STORE_PAGE, at);
        bool cut = rc == SQLITE_IOERR_SHORT_READ;
        if (cut)
            rc = SQLITE_OK;
        if (rc != SQLITE_OK || (marks[i / 8] & 1u << i % 8))
            continue;
        /* Zeros: never written, like the page in which SQLite's locks lie. In use it would be damage to SQLite. */
        if (cut || (sum_in(page) != sum_of((uint32_t)i, page) && !zeros(page, sizeof page))) {
            met(v, (uint32_t)i);
            ++*damaged;
        }
    }
    klawi_free(marks);
    return rc;
}
