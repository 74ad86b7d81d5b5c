/* SPDX-License-Identifier: Apache-2.0 */
/* channel_log.h - the journal of a durable remote channel, in a store's file of its own: what
 * klaw_broker_journal gives goes in here, what klaw_broker_restore and klaw_broker_replay want comes
 * out.
 *
 * The log is a snapshot (or none) and the records after it, opaque bytes in order. Each append and each
 * compaction is one transaction: after OK it is on the disk, whole, whatever happens to the process or
 * the machine; before that it is absent (store.h says when neither is known). The file carries the
 * channel's id, and the last one to open it is its only holder: whoever had it open before gets
 * STOPPED, so that two holders never write one history.
 *
 * From a fiber or a thread; the calls but _stats, _close and _free wait as store.h's do and may give its
 * errors. The info argument may be NULL. */
#ifndef KLAW_CHANNEL_LOG_H
#define KLAW_CHANNEL_LOG_H

#include "klaw/broker.h"
#include "klaw/store.h"

KLAW_BEGIN

/* A log that is open. */
typedef struct klaw_channel_log klaw_channel_log;

/* Options of klaw_channel_log_open; all zero is the default. */
typedef struct klaw_channel_log_opts {
    /* The log has to be there already: it is not made. */
    bool existing;
    /* For the opening, which may wait for a lock; 0: none. */
    klaw_deadline deadline;
} klaw_channel_log_opts;

/* What a log holds. */
typedef struct klaw_channel_log_contents {
    /* Where to begin; NULL: with an empty channel. */
    klaw_blob *snapshot;
    /* n records, in the order of their appends. */
    klaw_blob **records;
    /* How many. */
    size_t n;
} klaw_channel_log_contents;

/* How large it is, as far as this handle knows: when to compact. */
typedef struct klaw_channel_log_counts {
    /* Records after the snapshot. */
    uint64_t records;
    /* Their bytes. */
    uint64_t record_bytes;
    /* Bytes of the snapshot, 0: none. */
    uint64_t snapshot_bytes;
} klaw_channel_log_counts;

/* See klaw_channel_log_open; opts_size is sizeof(klaw_channel_log_opts) as the caller was compiled. */
KLAW_API KLAW_MUST klaw_err klaw_channel_log_open_sized(const char *path,
                                                        const unsigned char channel[KLAW_REMOTE_ID],
                                                        const klaw_channel_log_opts *opts,
                                                        size_t opts_size, klaw_channel_log **out,
                                                        klaw_error_info *info);
/* Opens the log in the store's file `path` (as klaw_store_open; one channel a file), or makes it, and takes it
 * over from whoever holds it. *out is to be given back by klaw_channel_log_free. Errors besides
 * klaw_store_open's: INVALID: it is another channel's; NOT_FOUND: `existing`, and it is not there, nothing was
 * made. */
static inline KLAW_MUST klaw_err klaw_channel_log_open(const char *path,
                                                       const unsigned char channel[KLAW_REMOTE_ID],
                                                       const klaw_channel_log_opts *opts,
                                                       klaw_channel_log **out,
                                                       klaw_error_info *info) {
    return klaw_channel_log_open_sized(path, channel, opts, sizeof(klaw_channel_log_opts), out,
                                       info);
}

/* Appends one record of 1 to KLAW_STORE_VALUE_MAX bytes (LIMIT above). STOPPED: another has taken the log over. */
KLAW_API KLAW_MUST klaw_err klaw_channel_log_append(klaw_channel_log *l, const void *bytes,
                                                    size_t size, klaw_deadline deadline,
                                                    klaw_error_info *info);
/* Begins anew with a snapshot of at most KLAW_STORE_VALUE_MAX bytes (LIMIT above): what was before goes. STOPPED as
 * above. */
KLAW_API KLAW_MUST klaw_err klaw_channel_log_compact(klaw_channel_log *l, const void *snapshot,
                                                     size_t size, klaw_deadline deadline,
                                                     klaw_error_info *info);
/* Reads all of it into *out, which the caller gives back with klaw_channel_log_contents_free. CORRUPT: any part is
 * damaged or missing. STOPPED as above. */
KLAW_API KLAW_MUST klaw_err klaw_channel_log_load(klaw_channel_log *l,
                                                  klaw_channel_log_contents *out,
                                                  klaw_deadline deadline, klaw_error_info *info);
/* Gives contents back and empties them. NULL allowed. From anywhere. */
KLAW_API void klaw_channel_log_contents_free(klaw_channel_log_contents *c);

/* Fills *out. From anywhere. */
KLAW_API void klaw_channel_log_look(const klaw_channel_log *l, klaw_channel_log_counts *out);
/* Closes: what is under way ends, later calls get CLOSED. Idempotent, from any host; NULL allowed. */
KLAW_API void klaw_channel_log_close(klaw_channel_log *l);
/* Closes and frees; nobody may be in a call on it. NULL allowed. */
KLAW_API void klaw_channel_log_free(klaw_channel_log *l);

KLAW_END

#endif
