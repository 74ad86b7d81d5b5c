/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - how a layer shows its objects in snapshots: it registers one provider per kind. */
#ifndef KLAWI_BASE_INSPECT_H
#define KLAWI_BASE_INSPECT_H

#include "klaw/inspect.h"

struct klawi_text;

/* Kinds that base knows the struct and the JSON of: "fiber", "scope", "worker", "channel"
 * (klaw_fiber_info, klaw_scope_info, klaw_worker_info, klaw_channel_stats). */
struct klawi_inspect_provider {
    const char *kind; /* (c) singular, an identifier; its array in the JSON is kind + "s" */
    /* An estimate of how many there are now. */
    size_t (*count)(void);
    /* Writes min(max, existing) items, each consistent in itself, and returns how many exist: a
     * result above max means that it did not fit and will be asked again with more room.
     * Allocates nothing, may take locks, waits for nobody. */
    size_t (*fill)(void *out, size_t max);
    size_t item_size;
    /* The item as one JSON object. NULL for the kinds above. */
    void (*json)(struct klawi_text *t, const void *item);
};

#define KLAWI_INSPECT_KINDS 16

/* Registers a static provider; one provider pointer twice, or a second one of the same kind, is
 * the first one. Constant time, no allocation, no lock. False when there are KLAWI_INSPECT_KINDS
 * others. */
bool klawi_inspect_provide(const struct klawi_inspect_provider *p);

/* The items of any kind in a snapshot; NULL and 0 when there are none. */
const void *klawi_snapshot_items(const klaw_snapshot *snap, const char *kind, size_t *n);

#endif
