/* SPDX-License-Identifier: Apache-2.0 */
/* store_vfs.h - the file layer below a store's connection: checks and writes page checksums, and makes an error
 * of fsync final. */
#ifndef KLAWI_STORE_VFS_H
#define KLAWI_STORE_VFS_H

#include "store/store.h"

#define KLAWI_STORE_PAGE 4096
/* Bytes at the end of each page that SQLite leaves alone: the checksum. */
#define KLAWI_STORE_RESERVED 8
/* "klaw", in the file's header. */
#define KLAWI_STORE_APPLICATION 0x6b6c6177

/* One per store, registered with SQLite under a name of its own. Everything is used by one thread at a time: the one
 * that has the store's turn. */
typedef struct klawi_store_vfs {
    sqlite3_vfs vfs;    /* first */
    sqlite3_vfs *real;  /* (c) does the work */
    char name[24];      /* (c) */
    bool own;           /* the file is a store (or will be made one): its pages carry checksums */
    bool sync_failed;   /* nothing is written any more */
    int sys;            /* the error number of that */
    uint32_t bad;       /* damaged pages read since somebody set it to 0 */
    uint32_t first_bad; /* the number of the first of them */
    uint64_t met;       /* damaged pages read in all */
} klawi_store_vfs;

/* Registers a layer over the VFS of that name (NULL: SQLite's default). BACKEND: there is none; NOMEM. */
klaw_err klawi_store_vfs_open(klawi_store_vfs *v, const char *real);
void klawi_store_vfs_close(klawi_store_vfs *v);
/* Reads every page as it lies in the file, within a transaction of db. */
int klawi_store_vfs_scan(klawi_store_vfs *v, sqlite3 *db, uint64_t *pages, uint64_t *damaged);

#endif
