/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - the checkpoint store: named values, several versions of each, in one file that survives
 * kill -9 and power loss.
 *
 * A key is a non-empty text of at most KLAW_STORE_KEY_MAX bytes, a value is opaque bytes. Each save makes a new
 * version of its key (1, 2, 3, …) and the oldest ones beyond `keep` go. A save that returned OK is there after
 * any crash, whole; one that did not is absent, except after an error of fsync, which leaves it open. Every value
 * carries a checksum, and so does every page of the file: what is damaged is KLAW_CORRUPT, never a wrong answer.
 *
 * Several handles and several processes may use one file at once. A handle may be used by many fibers and
 * threads; it does one thing at a time. From a fiber the work runs on the blocking pool (klaw_blocking), from a plain
 * thread directly.
 *
 * All calls that take a deadline wait for their turn and for other processes' locks until then. The disk
 * itself is waited for in any case. They are cancel points: CANCELLED means that nothing happened. Errors that each
 * of them may give:
 *   INVALID    an argument is wrong (NULL, an empty or over-long key)
 *   TIMEOUT    the file stayed locked beyond the deadline (also for KLAW_NOWAIT); nothing happened
 *   CANCELLED  nothing happened
 *   CLOSED     the handle was closed
 *   STOPPED    in the child of a fork
 *   CORRUPT    what the call needs to read is damaged; the message names the file, and the key where it is known
 *   NOMEM      nothing happened
 *   SYSTEM     the operating system refused: no space (sys = ENOSPC), read-only (EROFS, EACCES), an I/O error;
 *              nothing happened. An error of fsync is final: whether that last change survives is not known, and the
 *              handle answers SYSTEM to everything from then on, saying so.
 * The info argument may be NULL; on failure it gets a message that names the file, backend "sqlite" and sys. */
#ifndef KLAW_STORE_H
#define KLAW_STORE_H

#include "klaw/time.h"
#include "klaw/type.h"

KLAW_BEGIN

/* A handle on a store; reference counted. */
typedef struct klaw_store klaw_store;

/* The longest key, in bytes. */
#define KLAW_STORE_KEY_MAX 1023
/* The largest value, in bytes: 512 MiB. */
#define KLAW_STORE_VALUE_MAX ((size_t)1 << 29)
/* How many versions of a key are kept unless the options say otherwise. */
#define KLAW_STORE_KEEP 3

/* Options of klaw_store_open; all zero is the default. */
typedef struct klaw_store_opts {
    /* Versions kept of each key; 0: KLAW_STORE_KEEP; KLAW_NONE: all. A save drops older ones. */
    int64_t keep;
    /* For the opening, which may wait for a lock; 0: none. */
    klaw_deadline deadline;
    /* Open for reading only, even when the first page is damaged: loads still return nothing that is not
     * whole. What changes the store is then INVALID. */
    bool salvage;
} klaw_store_opts;

/* One version of one key. */
typedef struct klaw_store_entry {
    /* NUL-terminated; belongs to the list. */
    const char *key;
    /* Its number, from 1. */
    uint64_t version;
    /* Bytes of the value. */
    uint64_t size;
    /* When it was saved: ns of CLOCK_REALTIME. */
    int64_t saved_at;
    /* How many versions of the key there are. */
    uint64_t versions;
} klaw_store_entry;

/* Entries as one block. */
typedef struct klaw_store_entries {
    /* n of them; NULL when there are none. */
    klaw_store_entry *entries;
    /* How many. */
    size_t n;
} klaw_store_entries;

/* What a store holds and has done; path, journal and sqlite are NUL-terminated and cut to fit. */
typedef struct klaw_store_counts {
    /* The file. */
    char path[256];
    /* "wal" or "delete" (a rollback journal). */
    char journal[16];
    /* The version of the SQLite in use. */
    char sqlite[16];
    /* The file's schema version. */
    uint64_t schema;
    /* Distinct keys. */
    uint64_t keys;
    /* Versions of all keys. */
    uint64_t versions;
    /* Bytes of all values. */
    uint64_t value_bytes;
    /* Bytes of the file. */
    uint64_t file_bytes;
    /* Saves through this handle that returned OK. */
    uint64_t saves;
    /* Loads through this handle that returned OK. */
    uint64_t loads;
    /* Times this handle has met damage. */
    uint64_t damage_met;
} klaw_store_counts;

/* What klaw_store_check has found. */
typedef struct klaw_store_report {
    /* Pages of the file, and those whose checksum is wrong. */
    uint64_t pages;
    /* Pages whose checksum is wrong. */
    uint64_t damaged_pages;
    /* Versions that could be reached. */
    uint64_t versions;
    /* Those among them that are damaged. */
    uint64_t damaged_versions;
    /* The first damaged key, cut to fit; "": none. */
    char key[128];
    /* Its version; 0: none. */
    uint64_t version;
    /* What SQLite's integrity_check said first; "ok" when it found nothing. */
    char integrity[128];
} klaw_store_report;

/* See klaw_store_open; opts_size is sizeof(klaw_store_opts) as the caller was compiled. */
KLAW_API KLAW_MUST klaw_err klaw_store_open_sized(const char *path, const klaw_store_opts *opts,
                                                  size_t opts_size, klaw_store **out,
                                                  klaw_error_info *info);

/* Opens the store in the file `path`, or makes it (mode 0600). A path that is a folder or ends in '/' means
 * klaw.db in it; NULL means ~/.klaw/checkpoints/klaw.db. Missing folders are made with mode 0700. *out is one
 * reference, the caller's, to be given back by klaw_store_unref.
 * Errors besides the general ones: INVALID also for a folder that others may write (its message says which), for
 * a path that is no regular file, and for another program's SQLite database; BACKEND: the schema is newer than this
 * library, or the SQLite in use can't serve; NOT_FOUND: salvage, and there is no file. From a fiber or a
 * thread. */
static inline KLAW_MUST klaw_err klaw_store_open(const char *path, const klaw_store_opts *opts,
                                                 klaw_store **out, klaw_error_info *info) {
    return klaw_store_open_sized(path, opts, sizeof(klaw_store_opts), out, info);
}

/* Saves `size` bytes as the next version of the key, whose number *version gets (may be NULL). After OK it is on
 * the disk. LIMIT: size is over KLAW_STORE_VALUE_MAX. */
KLAW_API KLAW_MUST klaw_err klaw_store_save(klaw_store *s, const char *key, const void *bytes,
                                            size_t size, uint64_t *version, klaw_deadline deadline,
                                            klaw_error_info *info);

/* Loads the newest version: *out is a reference to its bytes, the caller's; *version (may be NULL) its number.
 * NOT_FOUND: no such key. CORRUPT: the newest one is damaged; an older one may be whole (klaw_store_versions,
 * klaw_store_load_version). */
KLAW_API KLAW_MUST klaw_err klaw_store_load(klaw_store *s, const char *key, klaw_blob **out,
                                            uint64_t *version, klaw_deadline deadline,
                                            klaw_error_info *info);
/* Loads that version. NOT_FOUND: it is not there (any more). */
KLAW_API KLAW_MUST klaw_err klaw_store_load_version(klaw_store *s, const char *key,
                                                    uint64_t version, klaw_blob **out,
                                                    klaw_deadline deadline, klaw_error_info *info);

/* The newest version of each key that starts with `prefix` (NULL: all), by key. The caller gives *out back
 * with klaw_store_entries_free. */
KLAW_API KLAW_MUST klaw_err klaw_store_list(klaw_store *s, const char *prefix,
                                            klaw_store_entries *out, klaw_deadline deadline,
                                            klaw_error_info *info);
/* All versions of one key, newest first; none: NOT_FOUND. In a damaged file it lists what can be reached and
 * still answers OK if that is anything. */
KLAW_API KLAW_MUST klaw_err klaw_store_versions(klaw_store *s, const char *key,
                                                klaw_store_entries *out, klaw_deadline deadline,
                                                klaw_error_info *info);
/* Gives a list back and empties it. NULL allowed. From anywhere. */
KLAW_API void klaw_store_entries_free(klaw_store_entries *list);

/* Deletes one version of the key, or all of them (version 0). NOT_FOUND: there was none. */
KLAW_API KLAW_MUST klaw_err klaw_store_delete(klaw_store *s, const char *key, uint64_t version,
                                              klaw_deadline deadline, klaw_error_info *info);

/* Fills *out; counts by reading the whole index. */
KLAW_API KLAW_MUST klaw_err klaw_store_stats(klaw_store *s, klaw_store_counts *out,
                                             klaw_deadline deadline, klaw_error_info *info);

/* Reads the whole file and verifies every page and every value. OK: all is whole. CORRUPT: *report says what
 * is not. */
KLAW_API KLAW_MUST klaw_err klaw_store_check(klaw_store *s, klaw_store_report *report,
                                             klaw_deadline deadline, klaw_error_info *info);

struct klaw_checkpointer;
/* Fills *out, the place where actors keep their snapshots (klaw_actor_opts.checkpointer), for this store. It borrows
 * the store: keep a reference for as long as an actor uses it. A load whose newest version is damaged
 * gives the newest one that is whole, and logs a warning. A file locked by others is waited for up to 30 s. */
KLAW_API void klaw_store_checkpointer(klaw_store *s, struct klaw_checkpointer *out);

/* The file's path, absolute. Valid while a reference is held. From anywhere. */
KLAW_API const char *klaw_store_path(const klaw_store *s);

/* Closes: whoever waits for his turn, and every later call, gets CLOSED; what is under way is finished.
 * Idempotent, from any host; NULL allowed. May write to the disk. */
KLAW_API void klaw_store_close(klaw_store *s);
/* One more reference; returns s. */
KLAW_API klaw_store *klaw_store_ref(klaw_store *s);
/* One reference less; the last one closes and frees. NULL allowed. */
KLAW_API void klaw_store_unref(klaw_store *s);

KLAW_END

#endif
