/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - snapshots: what every layer has alive, copied out.
 *
 * Base knows no scheduler and no channel. Each layer registers a provider that can count and
 * copy its objects; a snapshot is one array per provider. Copying runs under the provider's own
 * locks, one object (or one shard) at a time, so a snapshot is consistent per object and stops
 * nobody.
 *
 * Invariants:
 *   N1  providers[] is filled from the front and never emptied; a provider is constant.
 *   N2  nothing is allocated while a provider's locks are held: room is made first, and when
 *       objects were made meanwhile the copy is repeated with more of it.
 *   N3  a finished snapshot is constant: any number of readers at once.
 *
 * No locks of its own: registering is one compare-and-swap per occupied place (release, paired
 * with the acquire of the reader). The times a copy is repeated are bounded; then the snapshot
 * says that it is truncated.
 *
 * Rejected: one stop-the-world picture. It would need every lock of the process at once, and
 * what people look for (who waits for whom, what grows) is visible without. */
#include "base/inspect.h"

#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "klaw/klaw.h"
#include "plat/os.h"

#define TRIES 8

typedef const struct klawi_inspect_provider *provider;

static _Atomic provider providers[KLAWI_INSPECT_KINDS]; /* (a) N1 */

struct part {
    provider of; /* NULL: after the last one */
    void *items;
    size_t n;
};

struct klaw_snapshot {
    int64_t taken;
    bool truncated;
    struct part parts[KLAWI_INSPECT_KINDS];
};

bool klawi_inspect_provide(provider p) {
    for (int i = 0; i < KLAWI_INSPECT_KINDS; i++) {
        provider there = NULL;
        if (atomic_compare_exchange_strong_explicit(&providers[i], &there, p, memory_order_acq_rel,
                                                    memory_order_acquire))
            return true;
        if (there == p || strcmp(there->kind, p->kind) == 0)
            return true;
    }
    return false;
}

/* ---- taking ---- */

static klaw_err take_part(klaw_snapshot *snap, struct part *part, provider p) {
    size_t room = p->count();
    part->of = p;
    for (int i = 0; i < TRIES; i++) {
        room += room / 4 + 16;
        klawi_free(part->items);
        part->items = klawi_calloc(room, p->item_size); /* N2 */
        if (!part->items)
            return KLAW_NOMEM;
        size_t n = p->fill(part->items, room);
        part->n = n < room ? n : room;
        if (n <= room)
            return KLAW_OK;
        room = n;
    }
    snap->truncated = true;
    return KLAW_OK;
}

klaw_err klaw_snapshot_take(klaw_snapshot **out) {
    if (!out)
        return KLAW_INVALID;
    klaw_snapshot *snap = klawi_calloc(1, sizeof *snap);
    if (!snap)
        return KLAW_NOMEM;
    snap->taken = klawi_wall_clock();
    for (int i = 0; i < KLAWI_INSPECT_KINDS; i++) {
        provider p = atomic_load_explicit(&providers[i], memory_order_acquire);
        if (!p)
            break; /* N1 */
        klaw_err e = take_part(snap, &snap->parts[i], p);
        if (e) {
            klaw_snapshot_free(snap);
            return e;
        }
    }
    *out = snap;
    return KLAW_OK;
}

void klaw_snapshot_free(klaw_snapshot *snap) {
    if (!snap)
        return;
    for (int i = 0; i < KLAWI_INSPECT_KINDS; i++)
        klawi_free(snap->parts[i].items);
    klawi_free(snap);
}

/* ---- looking ---- */

int64_t klaw_snapshot_time(const klaw_snapshot *snap) {
    return snap->taken;
}

bool klaw_snapshot_truncated(const klaw_snapshot *snap) {
    return snap->truncated;
}

const void *klawi_snapshot_items(const klaw_snapshot *snap, const char *kind, size_t *n) {
    *n = 0;
    for (int i = 0; i < KLAWI_INSPECT_KINDS && snap->parts[i].of; i++) {
        const struct part *part = &snap->parts[i];
        if (strcmp(part->of->kind, kind) != 0)
            continue;
        *n = part->n;
        return part->n ? part->items : NULL;
    }
    return NULL;
}

const klaw_fiber_info *klaw_snapshot_fibers(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "fiber", n);
}

const klaw_scope_info *klaw_snapshot_scopes(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "scope", n);
}

const klaw_worker_info *klaw_snapshot_workers(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "worker", n);
}

const klaw_channel_stats *klaw_snapshot_channels(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "channel", n);
}
const klaw_executor_stats *klaw_snapshot_executors(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "executor", n);
}
const klaw_task_info *klaw_snapshot_tasks(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "task", n);
}
const klaw_actor_stats *klaw_snapshot_actors(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "actor", n);
}
const klaw_supervisor_info *klaw_snapshot_supervisors(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "supervisor", n);
}
const klaw_supervised_info *klaw_snapshot_supervised(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "supervision", n);
}

const klaw_wait_info *klaw_snapshot_waits(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "wait", n);
}
const klaw_endpoint_info *klaw_snapshot_endpoints(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "endpoint", n);
}

const char *klaw_host_kind_name(klaw_host_kind kind) {
    static const char *const names[] = {"unknown", "fiber", "thread", "foreign", "runtime"};
    return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

const char *klaw_fiber_state_name(klaw_fiber_state state) {
    static const char *const names[] = {"new", "runnable", "running", "waiting", "done"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "?";
}

/* ---- JSON ---- */

static void fiber_json(struct klawi_text *t, const void *item) {
    const klaw_fiber_info *f = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", f->id);
    KLAWI_OBJECT_STRING(&o, f, name);
    klawi_object_string(&o, "state", klaw_fiber_state_name(f->state), 16);
    KLAWI_OBJECT_STRING(&o, f, waiting_on);
    klawi_object_u64(&o, "waiting_id", f->waiting_id);
    klawi_object_u64(&o, "scope_id", f->scope_id);
    klawi_object_optional(&o, "worker", f->worker != KLAW_NONE, f->worker);
    klawi_object_boolean(&o, "pinned", f->pinned);
    klawi_object_boolean(&o, "cancelled", f->cancelled);
    klawi_object_i64(&o, "age", f->age);
    klawi_object_boolean(&o, "timed", f->timed);
    klawi_object_u64(&o, "waits", f->waits);
    klawi_text_str(t, "}");
}

static void scope_json(struct klawi_text *t, const void *item) {
    const klaw_scope_info *s = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", s->id);
    KLAWI_OBJECT_STRING(&o, s, name);
    klawi_object_u64(&o, "parent_id", s->parent_id);
    klawi_object_u64(&o, "live", s->live);
    klawi_object_boolean(&o, "cancelled", s->cancelled);
    KLAWI_OBJECT_STRING(&o, s, reason);
    klawi_object_optional(&o, "deadline", s->deadline != 0 && s->deadline != KLAW_FOREVER,
                          s->deadline);
    klawi_object_boolean(&o, "shield", s->shield);
    klawi_text_str(t, "}");
}

static void worker_json(struct klawi_text *t, const void *item) {
    const klaw_worker_info *w = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_i64(&o, "index", w->index);
    klawi_object_u64(&o, "turns", w->turns);
    klawi_object_u64(&o, "steals", w->steals);
    klawi_object_u64(&o, "parks", w->parks);
    klawi_object_u64(&o, "queue_length", w->queue_length);
    klawi_object_u64(&o, "fiber_id", w->fiber_id);
    klawi_object_boolean(&o, "sleeping", w->sleeping);
    klawi_text_str(t, "}");
}

static void channel_json(struct klawi_text *t, const void *item) {
    const klaw_channel_stats *c = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", c->id);
    KLAWI_OBJECT_STRING(&o, c, name);
    KLAWI_OBJECT_STRING(&o, c, kind);
    klawi_object_u64(&o, "sender_count", c->sender_count);
    klawi_object_u64(&o, "receiver_count", c->receiver_count);
    klawi_object_u64(&o, "queue_size", c->queue_size);
    klawi_object_i64(&o, "capacity", c->capacity);
    klawi_object_u64(&o, "high_watermark", c->high_watermark);
    klawi_object_u64(&o, "total_sent", c->total_sent);
    klawi_object_u64(&o, "total_received", c->total_received);
    klawi_object_u64(&o, "waiting_senders", c->waiting_senders);
    klawi_object_u64(&o, "waiting_receivers", c->waiting_receivers);
    klawi_object_u64(&o, "permits", c->permits);
    klawi_object_i64(&o, "created_at", c->created_at);
    klawi_object_boolean(&o, "senders_closed", c->senders_closed);
    klawi_object_boolean(&o, "receivers_closed", c->receivers_closed);
    klawi_object_optional(&o, "oldest_age", c->oldest_age != KLAW_NONE, c->oldest_age);
    klawi_text_str(t, "}");
}

static void wait_json(struct klawi_text *t, const void *item) {
    const klaw_wait_info *w = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "channel_id", w->channel_id);
    klawi_object_string(&o, "host", klaw_host_kind_name(w->host), 16);
    klawi_object_u64(&o, "host_id", w->host_id);
    klawi_object_boolean(&o, "sends", w->sends);
    klawi_object_boolean(&o, "timed", w->timed);
    klawi_text_str(t, "}");
}

static void endpoint_json(struct klawi_text *t, const void *item) {
    const klaw_endpoint_info *e = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "channel_id", e->channel_id);
    klawi_object_boolean(&o, "sender", e->sender);
    klawi_object_string(&o, "host", klaw_host_kind_name(e->host), 16);
    klawi_object_u64(&o, "host_id", e->host_id);
    klawi_object_boolean(&o, "used", e->used);
    klawi_text_str(t, "}");
}

/* The kinds of c-api.md: their arrays are there even when nobody provides them. */
static const struct {
    const char *kind;
    void (*json)(struct klawi_text *t, const void *item);
    size_t item_size;
} known[] = {
    {"worker", worker_json, sizeof(klaw_worker_info)},
    {"scope", scope_json, sizeof(klaw_scope_info)},
    {"fiber", fiber_json, sizeof(klaw_fiber_info)},
    {"channel", channel_json, sizeof(klaw_channel_stats)},
    {"executor", NULL, 0}, /* their providers write them */
    {"task", NULL, 0},
    {"actor", NULL, 0},
    {"supervisor", NULL, 0},
    {"supervision", NULL, 0},
    {"wait", wait_json, sizeof(klaw_wait_info)},
    {"endpoint", endpoint_json, sizeof(klaw_endpoint_info)},
};
#define KNOWN (sizeof known / sizeof known[0])

static void array_json(struct klawi_text *t, const klaw_snapshot *snap, const char *kind,
                       size_t item_size, void (*json)(struct klawi_text *t, const void *item)) {
    size_t n;
    const char *items = klawi_snapshot_items(snap, kind, &n);
    klawi_text_str(t, ",\"");
    klawi_text_str(t, kind);
    klawi_text_str(t, "s\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            klawi_text_str(t, ",");
        json(t, items + i * item_size);
    }
    klawi_text_str(t, "]");
}

/* NULL: nobody provides the kind. */
static provider provider_of(const klaw_snapshot *snap, const char *kind) {
    for (int i = 0; i < KLAWI_INSPECT_KINDS && snap->parts[i].of; i++)
        if (strcmp(snap->parts[i].of->kind, kind) == 0)
            return snap->parts[i].of;
    return NULL;
}

static bool is_known(const char *kind) {
    for (size_t i = 0; i < KNOWN; i++)
        if (strcmp(known[i].kind, kind) == 0)
            return true;
    return false;
}

static bool is_wanted(const char *const *kinds, const char *kind) {
    if (!kinds)
        return true;
    while (*kinds && strcmp(*kinds, kind) != 0)
        kinds++;
    return *kinds != NULL;
}

static void snapshot_json(struct klawi_text *t, const klaw_snapshot *snap,
                          const char *const *kinds) {
    klawi_text_str(t, "{\"version\":\"" KLAW_VERSION "\",\"time\":\"");
    klawi_text_time(t, snap->taken);
    klawi_text_str(t, "\",\"truncated\":");
    klawi_text_bool(t, snap->truncated);
    for (size_t i = 0; i < KNOWN; i++) {
        if (!is_wanted(kinds, known[i].kind))
            continue;
        provider p = known[i].json ? NULL : provider_of(snap, known[i].kind);
        if (p)
            array_json(t, snap, p->kind, p->item_size, p->json);
        else
            array_json(t, snap, known[i].kind, known[i].item_size, known[i].json);
    }
    for (int i = 0; i < KLAWI_INSPECT_KINDS && snap->parts[i].of; i++) {
        provider p = snap->parts[i].of;
        if (p->json && !is_known(p->kind) && is_wanted(kinds, p->kind))
            array_json(t, snap, p->kind, p->item_size, p->json);
    }
    klawi_text_str(t, "}");
}

klaw_err klaw_snapshot_json(const klaw_snapshot *snap, char **text, size_t *size) {
    return klawi_snapshot_json(snap, NULL, text, size);
}

klaw_err klawi_snapshot_json(const klaw_snapshot *snap, const char *const *kinds, char **text,
                             size_t *size) {
    if (!snap || !text)
        return KLAW_INVALID;
    struct klawi_text t = {.grows = true};
    snapshot_json(&t, snap, kinds);
    klawi_text_put(&t, "", 1); /* the NUL */
    if (t.full) {
        klawi_free(t.p);
        return KLAW_NOMEM;
    }
    *text = t.p;
    if (size)
        *size = t.len - 1;
    return KLAW_OK;
}

void klaw_snapshot_text_free(char *text) {
    klawi_free(text);
}
