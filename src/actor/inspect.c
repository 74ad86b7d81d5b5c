/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - actors that have not ended, as snapshots show them: each under its own lock. */
#include "base/inspect.h"

#include "actor/actor.h"

struct fill {
    klaw_actor_stats *out;
    size_t max, n;
};

static void fill(klaw_actor *a, void *user) {
    struct fill *f = user;
    if (f->n++ < f->max)
        klawi_actor_stats(a, &f->out[f->n - 1]);
}

static size_t actors_fill(void *out, size_t max) {
    struct fill f = {out, max, 0};
    klawi_actors_each(fill, &f);
    return f.n;
}
static size_t actors_count(void) {
    return actors_fill(NULL, 0);
}

static void actor_json(struct klawi_text *t, const void *item) {
    const klaw_actor_stats *a = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", a->id);
    KLAWI_OBJECT_STRING(&o, a, name);
    KLAWI_OBJECT_STRING(&o, a, behavior);
    klawi_object_string(&o, "state", klaw_actor_state_name(a->state), 16);
    klawi_object_u64(&o, "mailbox_size", a->mailbox_size);
    klawi_object_i64(&o, "capacity", a->capacity);
    klawi_object_u64(&o, "high_watermark", a->high_watermark);
    klawi_object_u64(&o, "handled", a->handled);
    klawi_object_u64(&o, "failed", a->failed);
    klawi_object_u64(&o, "expired", a->expired);
    klawi_object_u64(&o, "restarts", a->restarts);
    klawi_object_u64(&o, "incarnation", a->incarnation);
    klawi_object_u64(&o, "waiting_asks", a->waiting_asks);
    klawi_object_u64(&o, "waiting_senders", a->waiting_senders);
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider actors = {"actor", actors_count, actors_fill,
                                                     sizeof(klaw_actor_stats), actor_json};

void klawi_inspect_actors(void) {
    klawi_inspect_provide(&actors);
}
