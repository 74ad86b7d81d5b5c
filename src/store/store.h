/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - what the files of this layer share: the door to the one connection of a store.
 *
 * A function handed to klawi_store_write or klawi_store_read runs inside one transaction on the store's connection, on
 * a thread that may block (klaw_blocking): it calls nothing of klaw that waits. It may be run again
 * after its effects were rolled back (another process was in the way), so it starts by resetting its results, which
 * count only when the call returned OK. */
#ifndef KLAWI_STORE_H
#define KLAWI_STORE_H

#include <sqlite3.h>

#include "klaw/store.h"
#include "plat/plat.h"

/* A transaction under way; valid within the function it was handed to. */
typedef struct klawi_store_tx klawi_store_tx;
/* An error rolls the transaction back and is the call's answer. */
typedef klaw_err (*klawi_store_fn)(klawi_store_tx *tx, void *arg);

/* Runs fn in one immediate transaction: nobody else writes to the file meanwhile. OK: committed and on the disk.
 * Errors: fn's own; those of store.h. */
klaw_err klawi_store_write(klaw_store *s, klawi_store_fn fn, void *arg, klaw_deadline deadline,
                           klaw_error_info *info);
/* Runs fn in one read transaction: it sees one moment of the file. A damaged page anywhere on its way makes the
 * answer CORRUPT, unless fn called klawi_tx_verified: what it returns is then covered by checksums of its own. */
klaw_err klawi_store_read(klaw_store *s, klawi_store_fn fn, void *arg, klaw_deadline deadline,
                          klaw_error_info *info);

/* The statement for this text, reset and with its bindings cleared; owned by the store, which keeps it
 * for the next time. `sql` is a literal: its address is the key. */
klaw_err klawi_tx_stmt(klawi_store_tx *tx, const char *sql, sqlite3_stmt **out);
/* One step: *row says whether there is a row. */
klaw_err klawi_tx_step(klawi_store_tx *tx, sqlite3_stmt *st, bool *row);
/* For statements without rows: one step, and a reset. */
klaw_err klawi_tx_run(klawi_store_tx *tx, sqlite3_stmt *st);
/* Each of these, which have no parameters. */
klaw_err klawi_tx_run_all(klawi_store_tx *tx, const char *const *sql, size_t n);
/* Rows the last statement has changed. */
int64_t klawi_tx_changes(klawi_store_tx *tx);
/* The answer of a binding (sqlite3_bind_*) or another call of SQLite as a klaw_err, filling the call's info. */
klaw_err klawi_tx_result(klawi_store_tx *tx, int rc);
/* Fills the call's info with "store <file>: <text>" and returns e: `return klawi_tx_fail(tx, KLAW_CORRUPT, …)`. */
klaw_err klawi_tx_fail(klawi_store_tx *tx, klaw_err e, const char *fmt, ...) KLAW_PRINTF(3, 4);
/* See klawi_store_read. */
void klawi_tx_verified(klawi_store_tx *tx);

/* The 64-bit checksum of rows and pages: any change within one aligned 8-byte word is found for certain, anything
 * else but for one in 2^64. Start with a seed (0), go on with the last answer. Different cuts of the same
 * bytes give different sums: chain per field. Never 0. */
uint64_t klawi_store_sum(uint64_t seed, const void *bytes, size_t size);

#endif
