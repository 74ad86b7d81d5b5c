/* SPDX-License-Identifier: Apache-2.0 */
/* late.h - who has not ended in a runtime object. */
#ifndef KLAWI_RUNTIME_LATE_H
#define KLAWI_RUNTIME_LATE_H

#include "klaw/runtime.h"

/* Where to look. */
struct klawi_late_where {
    uint64_t scope_id;    /* fibers in this scope and all inside it */
    uint64_t executor_id; /* whose tasks have names */
    klaw_actor **actors;  /* n_actors of them, which stand still meanwhile */
    size_t n_actors;
};

/* Counts the fibers there, and describes the first KLAW_SHUTDOWN_NAMED in `out`, *n of them.
 * *incomplete is set when there is no memory to look. Never waits. */
size_t klawi_late_find(const struct klawi_late_where *where, klaw_late *out, size_t *n,
                       bool *incomplete);

#endif
