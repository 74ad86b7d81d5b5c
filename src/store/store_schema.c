/* SPDX-License-Identifier: Apache-2.0 */
/* store_schema.c - the tables of a store, as steps from one schema version to the next.
 *
 * Step i leads from version i to i + 1; the header's user_version says where a file stands. A step, once released, never
 * changes: another one follows. All steps of one opening are one transaction. */
#include "store/store_core.h"

static const char *const steps[] = {
    /* One row a version of a key; `sum` covers all other columns but id. Keys compare byte by byte. */
    "CREATE TABLE checkpoint ("
    " id INTEGER PRIMARY KEY,"
    " key BLOB NOT NULL,"
    " version INTEGER NOT NULL,"
    " saved_at INTEGER NOT NULL," /* ns since 1970 */
    " size INTEGER NOT NULL,"
    " sum INTEGER NOT NULL,"
    " bytes BLOB NOT NULL,"
    " UNIQUE (key, version));",
};

const int klawi_store_schema_newest = (int)(sizeof steps / sizeof steps[0]);

klaw_err klawi_store_schema_apply(klawi_store_tx *tx, int version) {
    sqlite3 *db = tx->store->db;
    char text[64];
    klaw_err e = KLAW_OK;
    for (int i = version; !e && i < klawi_store_schema_newest; i++)
        e = klawi_tx_result(tx, sqlite3_exec(db, steps[i], NULL, NULL, NULL));
    if (!e) {
        sqlite3_snprintf(sizeof text, text, "PRAGMA user_version=%d", klawi_store_schema_newest);
        e = klawi_tx_result(tx, sqlite3_exec(db, text, NULL, NULL, NULL));
    }
    if (!e && version == 0) {
        sqlite3_snprintf(sizeof text, text, "PRAGMA application_id=%d", KLAWI_STORE_APPLICATION);
        e = klawi_tx_result(tx, sqlite3_exec(db, text, NULL, NULL, NULL));
    }
    return e;
}
