/* SPDX-License-Identifier: Apache-2.0 */
/* disk.h - a disk in memory as a VFS of SQLite: it records what is written and synced, builds from the record what a
 * power loss may leave, and fails at the n-th call.
 *
 * What a power loss leaves: all that was synced; of each later write to a file nothing, all of it, or some of its
 * 512-byte sectors; of what a lost write would have appended zeros or garbage; of each later truncation
 * nothing or all. Names (a file made or deleted) are kept when the folder is synced, which deleting with a sync and the
 * first sync of a journal or log do, as on Linux; else any first part of what happened to each name. */
#ifndef KLAW_TESTS_SUPPORT_DISK_H
#define KLAW_TESTS_SUPPORT_DISK_H

#include <sqlite3.h>
#include <string.h>

#include "support/random.h"
#include "support/store.h"

#define DISK_INODES 4096
#define DISK_NAMES 4
#define DISK_SECTOR 512

typedef struct bytes {
    unsigned char *p;
    size_t size, room;
} bytes;

static inline void bytes_resize(bytes *b, size_t size) {
    if (size > b->room) {
        size_t room = size * 2 + 8192;
        b->p = realloc(b->p, room);
        CHECK(b->p);
        b->room = room;
    }
    if (size > b->size)
        memset(b->p + b->size, 0, size - b->size);
    b->size = size;
}
static inline void bytes_put(bytes *b, size_t at, const void *data, size_t n) {
    if (at + n > b->size)
        bytes_resize(b, at + n);
    memcpy(b->p + at, data, n);
}
static inline void bytes_set(bytes *b, const bytes *from) {
    bytes_resize(b, 0);
    bytes_resize(b, from->size);
    if (from->size)
        memcpy(b->p, from->p, from->size);
}

/* "db", "db-journal", "db-wal": what a path ends in says which. */
enum { DISK_DB, DISK_JOURNAL, DISK_WAL, DISK_OTHER };
static inline int disk_name(const char *path) {
    size_t n = strlen(path);
    if (n > 8 && strcmp(path + n - 8, "-journal") == 0)
        return DISK_JOURNAL;
    return n > 4 && strcmp(path + n - 4, "-wal") == 0 ? DISK_WAL : DISK_DB;
}

/* What happened, in order. */
typedef struct disk_op {
    enum {
        DISK_CREATE,
        DISK_WRITE,
        DISK_TRUNCATE,
        DISK_SYNC,
        DISK_DELETE,
        DISK_BEGIN,
        DISK_DONE
    } what;
    int name;     /* of the file */
    int inode;    /* its content: a file that is made anew has another one */
    bool folder;  /* SYNC, DELETE: the folder too */
    size_t at, n; /* WRITE, TRUNCATE (n: the size); BEGIN, DONE (n: of the test's change) */
    unsigned char *data;
} disk_op;

typedef struct disk {
    bytes inode[DISK_INODES];
    int inodes;
    int name[DISK_NAMES];    /* the inode, or -1 */
    bool fresh[DISK_INODES]; /* its first sync syncs the folder */
    bool record;
    disk_op *ops;
    size_t n_ops, cap_ops;
    void *shm[16];
    /* failing */
    uint64_t calls, fail_at; /* calls that can fail; 0: none does */
    bool sticky, full;       /* every later one too; as a full disk: writes alone */
    bool fail_syncs;         /* only syncs count and fail */
    bool failed;
    uint64_t refused_later; /* what was written, synced or deleted after a sync had failed */
    bool sync_failed;
} disk;

static disk *disk_now;

static inline disk *disk_make(void) {
    disk *d = calloc(1, sizeof *d);
    CHECK(d);
    for (int i = 0; i < DISK_NAMES; i++)
        d->name[i] = -1;
    return d;
}
static inline void disk_free(disk *d) {
    for (int i = 0; i < DISK_INODES; i++)
        free(d->inode[i].p);
    for (size_t i = 0; i < d->n_ops; i++)
        free(d->ops[i].data);
    for (int i = 0; i < 16; i++)
        free(d->shm[i]);
    free(d->ops);
    free(d);
}
static inline int disk_inode(disk *d) {
    CHECK(d->inodes < DISK_INODES);
    bytes_resize(&d->inode[d->inodes], 0);
    return d->inodes++;
}
static inline disk_op *disk_log(disk *d, disk_op op) {
    if (!d->record)
        return NULL;
    if (d->n_ops == d->cap_ops) {
        d->cap_ops = d->cap_ops ? 2 * d->cap_ops : 1024;
        d->ops = realloc(d->ops, d->cap_ops * sizeof *d->ops);
        CHECK(d->ops);
    }
    d->ops[d->n_ops] = op;
    return &d->ops[d->n_ops++];
}
/* The test's change number n begins, is confirmed. */
static inline void disk_begin(disk *d, size_t n) {
    disk_log(d, (disk_op){.what = DISK_BEGIN, .n = n});
}
static inline void disk_done(disk *d, size_t n) {
    disk_log(d, (disk_op){.what = DISK_DONE, .n = n});
}

/* Whether this call fails. */
static inline bool disk_fails(disk *d, bool writes, bool sync) {
    if (d->fail_at == 0 || (d->full && !writes) || (d->fail_syncs && !sync))
        return false;
    d->calls++;
    bool fails = d->calls == d->fail_at || (d->sticky && d->calls > d->fail_at);
    d->failed |= fails;
    return fails;
}

/* ---- SQLite's files ---- */
typedef struct disk_file {
    sqlite3_file base;
    disk *d;
    int name, inode;
} disk_file;

static inline int df_close(sqlite3_file *f) {
    (void)f;
    return SQLITE_OK;
}
static inline bytes *df_bytes(sqlite3_file *f) {
    disk_file *o = (disk_file *)(void *)f;
    return &o->d->inode[o->inode];
}
static inline int df_read(sqlite3_file *f, void *buf, int n, sqlite3_int64 at) {
    disk_file *o = (disk_file *)(void *)f;
    bytes *b = df_bytes(f);
    if (disk_fails(o->d, false, false))
        return SQLITE_IOERR_READ;
    size_t have = (size_t)at < b->size ? b->size - (size_t)at : 0;
    size_t take = have < (size_t)n ? have : (size_t)n;
    if (take)
        memcpy(buf, b->p + at, take);
    if (take == (size_t)n)
        return SQLITE_OK;
    memset((char *)buf + take, 0, (size_t)n - take);
    return SQLITE_IOERR_SHORT_READ;
}
static inline int df_write(sqlite3_file *f, const void *buf, int n, sqlite3_int64 at) {
    disk_file *o = (disk_file *)(void *)f;
    o->d->refused_later += o->d->sync_failed;
    if (disk_fails(o->d, true, false))
        return o->d->full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    bytes_put(df_bytes(f), (size_t)at, buf, (size_t)n);
    disk_op *op = disk_log(
        o->d, (disk_op){DISK_WRITE, o->name, o->inode, false, (size_t)at, (size_t)n, NULL});
    if (op) {
        op->data = malloc((size_t)n);
        CHECK(op->data);
        memcpy(op->data, buf, (size_t)n);
    }
    return SQLITE_OK;
}
static inline int df_truncate(sqlite3_file *f, sqlite3_int64 size) {
    disk_file *o = (disk_file *)(void *)f;
    o->d->refused_later += o->d->sync_failed;
    if (disk_fails(o->d, true, false))
        return SQLITE_IOERR_TRUNCATE;
    bytes_resize(df_bytes(f), (size_t)size);
    disk_log(o->d, (disk_op){DISK_TRUNCATE, o->name, o->inode, false, 0, (size_t)size, NULL});
    return SQLITE_OK;
}
static inline int df_sync(sqlite3_file *f, int flags) {
    disk_file *o = (disk_file *)(void *)f;
    (void)flags;
    o->d->refused_later += o->d->sync_failed;
    if (disk_fails(o->d, true, true)) {
        o->d->sync_failed = true;
        return SQLITE_IOERR_FSYNC;
    }
    disk_log(o->d, (disk_op){DISK_SYNC, o->name, o->inode, o->d->fresh[o->inode], 0, 0, NULL});
    o->d->fresh[o->inode] = false;
    return SQLITE_OK;
}
static inline int df_size(sqlite3_file *f, sqlite3_int64 *size) {
    *size = (sqlite3_int64)df_bytes(f)->size;
    return SQLITE_OK;
}
static inline int df_lock(sqlite3_file *f, int level) {
    (void)f;
    (void)level;
    return SQLITE_OK;
}
static inline int df_check(sqlite3_file *f, int *out) {
    (void)f;
    *out = 0;
    return SQLITE_OK;
}
static inline int df_control(sqlite3_file *f, int op, void *arg) {
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}
static inline int df_sector(sqlite3_file *f) {
    (void)f;
    return 4096; /* as on Linux */
}
static inline int df_device(sqlite3_file *f) {
    (void)f;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as on Linux */
}
static inline int df_shm_map(sqlite3_file *f, int at, int size, int extend, void volatile **out) {
    disk *d = ((disk_file *)(void *)f)->d;
    CHECK(at < 16);
    if (!d->shm[at] && extend) {
        d->shm[at] = calloc(1, (size_t)size);
        CHECK(d->shm[at]);
    }
    *out = d->shm[at];
    return SQLITE_OK;
}
static inline int df_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    (void)f;
    (void)offset;
    (void)n;
    (void)flags;
    return SQLITE_OK;
}
static inline void df_shm_barrier(sqlite3_file *f) {
    (void)f;
}
static inline int df_shm_unmap(sqlite3_file *f, int del) {
    disk *d = ((disk_file *)(void *)f)->d;
    for (int i = 0; del && i < 16; i++) {
        free(d->shm[i]);
        d->shm[i] = NULL;
    }
    return SQLITE_OK;
}
static const sqlite3_io_methods disk_methods = {
    2,           df_close,       df_read,      df_write,   df_truncate, df_sync,   df_size,
    df_lock,     df_lock,        df_check,     df_control, df_sector,   df_device, df_shm_map,
    df_shm_lock, df_shm_barrier, df_shm_unmap, NULL,       NULL,
};

static inline int dv_open(sqlite3_vfs *v, const char *path, sqlite3_file *f, int flags, int *got) {
    disk *d = disk_now;
    disk_file *o = (disk_file *)(void *)f;
    (void)v;
    memset(o, 0, sizeof *o);
    if (disk_fails(d, false, false))
        return SQLITE_CANTOPEN;
    CHECK(path);
    o->d = d;
    o->name = disk_name(path);
    if (d->name[o->name] < 0) {
        if (!(flags & SQLITE_OPEN_CREATE))
            return SQLITE_CANTOPEN;
        int i = disk_inode(d);
        d->name[o->name] = i;
        d->fresh[i] = o->name != DISK_DB;
        disk_log(d, (disk_op){DISK_CREATE, o->name, i, false, 0, 0, NULL});
    }
    o->inode = d->name[o->name];
    o->base.pMethods = &disk_methods;
    if (got)
        *got = flags;
    return SQLITE_OK;
}
static inline int dv_delete(sqlite3_vfs *v, const char *path, int sync) {
    disk *d = disk_now;
    int name = disk_name(path);
    (void)v;
    d->refused_later += d->sync_failed;
    if (disk_fails(d, true, sync))
        return SQLITE_IOERR_DELETE;
    if (d->name[name] < 0)
        return SQLITE_IOERR_DELETE_NOENT;
    disk_log(d, (disk_op){DISK_DELETE, name, d->name[name], sync != 0, 0, 0, NULL});
    d->name[name] = -1;
    return SQLITE_OK;
}
static inline int dv_access(sqlite3_vfs *v, const char *path, int flags, int *out) {
    disk *d = disk_now;
    (void)v;
    if (disk_fails(d, false, false))
        return SQLITE_IOERR_ACCESS;
    int inode = d->name[disk_name(path)];
    /* As on Linux: an empty file does not count as existing. */
    *out = inode >= 0 && (flags != SQLITE_ACCESS_EXISTS || d->inode[inode].size > 0);
    return SQLITE_OK;
}
static inline int dv_path(sqlite3_vfs *v, const char *path, int size, char *out) {
    (void)v;
    snprintf(out, (size_t)size, "%s", path);
    return SQLITE_OK;
}
static inline int dv_random(sqlite3_vfs *v, int n, char *out) {
    (void)v;
    memset(out, 7, (size_t)n);
    return n;
}
static inline int dv_sleep(sqlite3_vfs *v, int us) {
    (void)v;
    return us;
}
static inline int dv_time(sqlite3_vfs *v, double *out) {
    (void)v;
    *out = 2460000.5;
    return SQLITE_OK;
}
static inline int dv_error(sqlite3_vfs *v, int n, char *out) {
    (void)v;
    (void)n;
    (void)out;
    return 0;
}
/* Makes SQLite know it; what is opened with the VFS "disk" then lies on *d. */
static inline void disk_mount(disk *d) {
    static sqlite3_vfs vfs = {.iVersion = 1,
                              .szOsFile = sizeof(disk_file),
                              .mxPathname = 512,
                              .zName = "disk",
                              .xOpen = dv_open,
                              .xDelete = dv_delete,
                              .xAccess = dv_access,
                              .xFullPathname = dv_path,
                              .xRandomness = dv_random,
                              .xSleep = dv_sleep,
                              .xCurrentTime = dv_time,
                              .xGetLastError = dv_error};
    disk_now = d;
    if (!sqlite3_vfs_find("disk"))
        SAME(sqlite3_vfs_register(&vfs, 0), SQLITE_OK);
}

/* Tests on one of these disks have one thread: only every n-th of their points under TSan, which looks for
 * what threads do, and under valgrind, which is slow. */
static inline uint32_t disk_share(void) {
#if defined(__SANITIZE_THREAD__)
    return 16;
#else
    const char *slice = getenv("KLAW_TEST_SLICE");
    return slice && strcmp(slice, "valgrind") == 0 ? 32 : 1;
#endif
}

/* ---- power loss ---- */

/* Follows the record: what is durable, and what is not yet. */
typedef struct disk_replay {
    const disk *from;
    size_t at;                  /* ops done */
    bytes durable[DISK_INODES]; /* of the inodes */
    size_t since[DISK_INODES];  /* index of the first op that may not be durable */
    int name[DISK_NAMES];       /* durable */
    size_t names_since;
    size_t begun, done; /* of the test's changes */
} disk_replay;

static inline disk_replay *replay_make(const disk *from) {
    disk_replay *r = calloc(1, sizeof *r);
    CHECK(r);
    r->from = from;
    for (int i = 0; i < DISK_NAMES; i++)
        r->name[i] = -1;
    return r;
}
static inline void replay_free(disk_replay *r) {
    for (int i = 0; i < DISK_INODES; i++)
        free(r->durable[i].p);
    free(r);
}
static inline void replay_apply(bytes *b, const disk_op *op) {
    if (op->what == DISK_WRITE)
        bytes_put(b, op->at, op->data, op->n);
    else if (op->what == DISK_TRUNCATE)
        bytes_resize(b, op->n);
}
static inline void replay_names(disk_replay *r) {
    for (size_t i = r->names_since; i <= r->at; i++) {
        const disk_op *op = &r->from->ops[i];
        if (op->what == DISK_CREATE)
            r->name[op->name] = op->inode;
        else if (op->what == DISK_DELETE)
            r->name[op->name] = -1;
    }
    r->names_since = r->at + 1;
}
static inline void replay_step(disk_replay *r) {
    const disk_op *op = &r->from->ops[r->at];
    if (op->what == DISK_SYNC) {
        for (size_t i = r->since[op->inode]; i < r->at; i++)
            if (r->from->ops[i].inode == op->inode)
                replay_apply(&r->durable[op->inode], &r->from->ops[i]);
        r->since[op->inode] = r->at + 1;
    }
    if (op->what == DISK_CREATE)
        r->since[op->inode] = r->at;
    if ((op->what == DISK_SYNC || op->what == DISK_DELETE) && op->folder)
        replay_names(r);
    if (op->what == DISK_BEGIN)
        r->begun = op->n;
    if (op->what == DISK_DONE)
        r->done = op->n;
    r->at++;
}

/* One write that may not have reached the disk. */
static inline void replay_tear(bytes *b, const disk_op *op, rng *rnd) {
    size_t old = b->size;
    bool garbage = rng_one_in(rnd, 4);
    if (op->at + op->n > old)
        bytes_resize(b, op->at + op->n);
    for (size_t i = 0; i < op->n;) {
        size_t at = op->at + i, n = DISK_SECTOR - at % DISK_SECTOR;
        n = n < op->n - i ? n : op->n - i;
        if (rng_one_in(rnd, 2))
            memcpy(b->p + at, op->data + i, n);
        else if (garbage && at >= old)
            memset(b->p + at, (int)rng_below(rnd, 256), n);
        i += n;
    }
}
static inline void replay_inode(disk_replay *r, int inode, bytes *out, rng *rnd) {
    /* Some states lose everything, some nothing, most something. */
    uint32_t luck = rng_below(rnd, 5);
    bytes_set(out, &r->durable[inode]);
    for (size_t i = r->since[inode]; i < r->at; i++) {
        const disk_op *op = &r->from->ops[i];
        if (op->inode != inode || (op->what != DISK_WRITE && op->what != DISK_TRUNCATE))
            continue;
        uint32_t fate = luck == 0 ? 0 : luck == 1 ? 1 : rng_below(rnd, 3);
        if (fate == 1)
            replay_apply(out, op);
        else if (fate == 2 && op->what == DISK_WRITE)
            replay_tear(out, op, rnd);
    }
}
/* What a power loss at this moment may leave: a disk of its own, into *out (emptied first). */
static inline void replay_crash(disk_replay *r, disk *out, rng *rnd) {
    int name[DISK_NAMES];
    bool stopped[DISK_NAMES] = {false};
    memcpy(name, r->name, sizeof name);
    for (size_t i = r->names_since; i < r->at; i++) {
        const disk_op *op = &r->from->ops[i];
        if ((op->what != DISK_CREATE && op->what != DISK_DELETE) || stopped[op->name])
            continue;
        if (rng_one_in(rnd, 2))
            stopped[op->name] = true; /* this and all that followed is lost */
        else
            name[op->name] = op->what == DISK_CREATE ? op->inode : -1;
    }
    out->inodes = DISK_NAMES;
    for (int i = 0; i < DISK_NAMES; i++) {
        out->name[i] = name[i] < 0 ? -1 : i;
        out->fresh[i] = false;
        bytes_resize(&out->inode[i], 0);
        if (name[i] >= 0)
            replay_inode(r, name[i], &out->inode[i], rnd);
    }
}

/* --- every call fails once --- */
typedef struct disk_fault {
    int journal;
    bool sticky, full, syncs; /* as in disk */
} disk_fault;

/* Runs `run` on a disk of its own for every n, whose n-th call fails (slow builds draw some), until none does any more;
 * then `look` at what is there, on a disk that works again. What run answers has to be OK, NOMEM, or SYSTEM with the
 * file's name; it is OK when nothing failed. */
static inline void disk_every_call(const disk_fault *fault,
                                   klaw_err (*run)(void *arg, klaw_error_info *info),
                                   void (*look)(void *arg), void *arg) {
    uint64_t n = 1, failed = 0, tried = 0;
    uint64_t share = rounds(200);
    uint32_t stride = share < 10 ? 60 : share < 200 ? 9 : 1;
    rng r = {stride > 1 ? seed_begin() : 0};
    for (bool through = false; !through; n += 1 + rng_below(&r, stride), tried++) {
        disk *d = disk_make();
        klaw_error_info info = {.sys = 0};
        disk_mount(d);
        d->fail_at = n;
        d->sticky = fault->sticky;
        d->full = fault->full;
        d->fail_syncs = fault->syncs;
        klaw_err e = run(arg, &info);
        through = !d->failed;
        failed += e != KLAW_OK;
        if (e && e != KLAW_NOMEM && !(e == KLAW_SYSTEM && strstr(info.message, "/disk/klaw.db")))
            check_failed(__FILE__, __LINE__, klaw_err_name(e), info.message);
        CHECK(!through || e == KLAW_OK);
        d->fail_at = 0;
        d->sync_failed = false;
        look(arg);
        disk_free(d);
        CHECK(n < 20000);
    }
    CHECK(failed > 0 || stride > 1);
    printf("%" PRIu64 " runs, %" PRIu64 " failures seen\n", tried, failed);
}

#endif
