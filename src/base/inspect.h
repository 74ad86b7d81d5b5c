/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - how a layer shows its objects in snapshots: it registers one provider per kind. */
#ifndef KLAWI_BASE_INSPECT_H
#define KLAWI_BASE_INSPECT_H

#include <string.h>

#include "base/text.h"
#include "klaw/inspect.h"
#include "plat/plat.h"

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

/* Whether the process is open to inspection from outside (inspect_server.c): channels note more. */
#if defined(KLAWI_DET)
#define klawi_inspecting() false
#else
extern _Atomic bool klawi_inspected;
#define klawi_inspecting() \
    KLAWI_UNLIKELY(atomic_load_explicit(&klawi_inspected, memory_order_relaxed))
#endif

/* What KLAW_INSPECT says: *out. INVALID: neither 0 nor 1. */
klaw_err klawi_inspect_env(bool *out, klaw_error_info *info);
/* For klaw_run: opens the process if `asked`, or the environment says so, which then only warns when
 * it can't be done. */
klaw_err klawi_inspect_begin(bool asked, klaw_error_info *info);

/* The arrays of the kinds in `kinds` (ended by NULL; NULL: all) as klaw_snapshot_json. */
klaw_err klawi_snapshot_json(const klaw_snapshot *snap, const char *const *kinds, char **text,
                             size_t *size);

/* Tells the layer of published tasks that somebody wants to know who waits for whom (publish.h). */
void klawi_inspect_look(void);

/* --- writing an item as JSON --- */
/* One object under construction. */
struct klawi_object {
    struct klawi_text *t;
    bool first;
};

static inline void klawi_object_u64(struct klawi_object *o, const char *name, uint64_t v) {
    klawi_text_member(o->t, &o->first, name);
    klawi_text_u64(o->t, v);
}

static inline void klawi_object_i64(struct klawi_object *o, const char *name, int64_t v) {
    klawi_text_member(o->t, &o->first, name);
    klawi_text_i64(o->t, v);
}

static inline void klawi_object_boolean(struct klawi_object *o, const char *name, bool v) {
    klawi_text_member(o->t, &o->first, name);
    klawi_text_bool(o->t, v);
}

/* v when `there`, else null. */
static inline void klawi_object_optional(struct klawi_object *o, const char *name, bool there,
                                         int64_t v) {
    klawi_text_member(o->t, &o->first, name);
    if (there)
        klawi_text_i64(o->t, v);
    else
        klawi_text_str(o->t, "null");
}

static inline void klawi_object_string(struct klawi_object *o, const char *name, const char *v,
                                       size_t max) {
    klawi_text_member(o->t, &o->first, name);
    (void)klawi_text_json_string(o->t, v, strnlen(v, max));
}
#define KLAWI_OBJECT_STRING(o, item, field) \
    klawi_object_string(o, #field, (item)->field, sizeof(item)->field)

#endif
