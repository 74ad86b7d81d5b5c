/* SPDX-License-Identifier: Apache-2.0 */
/* sqlite_oom.h - SQLite's allocations fail at klaw_alloc_fail_at's points like the library's own, while
 * `sqlite_too` is set. sqlite_may_fail() comes before any other call of SQLite. */
#ifndef KLAW_TESTS_SUPPORT_SQLITE_OOM_H
#define KLAW_TESTS_SUPPORT_SQLITE_OOM_H

#include <sqlite3.h>

#include "base/alloc.h"
#include "support/check.h"

static bool sqlite_too;
static sqlite3_mem_methods plain;
static inline void *failing_malloc(int n) {
    return sqlite_too && klawi_fail_point() ? NULL : plain.xMalloc(n);
}
static inline void *failing_realloc(void *p, int n) {
    return sqlite_too && klawi_fail_point() ? NULL : plain.xRealloc(p, n);
}

static inline bool sqlite_may_fail(void) {
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain) != SQLITE_OK)
        return false;
    sqlite3_mem_methods failing = plain;
    failing.xMalloc = failing_malloc;
    failing.xRealloc = failing_realloc;
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &failing) == SQLITE_OK;
}

#endif
