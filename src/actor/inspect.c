/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - actors and supervisors that have not ended, as snapshots show them: each under its own
 * lock, a supervisor with its children. */
#include "base/inspect.h"

#include "actor/actor.h"
#include "actor/publish.h"
#include "actor/supervisor.h"

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
    return klawi_published_actors(out, max, f.n);
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
    klawi_object_u64(&o, "fiber_id", a->fiber_id);
    klawi_text_str(t, "}");
}

/* --- supervisors --- */
struct supervisor_fill {
    void *out;
    size_t max, n;
};

static void supervisor(klaw_supervisor *s, void *user) {
    struct supervisor_fill *f = user;
    klaw_supervisor_counts c;
    if (f->n++ >= f->max)
        return;
    klaw_supervisor_info *o = (klaw_supervisor_info *)f->out + f->n - 1;
    klawi_supervisor_counts(s, &c);
    o->id = s->id;
    o->parent_id = s->parent ? s->parent->sup->id : 0;
    o->fiber_id = s->keeper_id;
    o->specs = c.specs;
    o->active = c.active;
    o->abandoned = c.abandoned;
    o->restarts = c.restarts;
    o->strategy = s->opts.policy.strategy;
    o->stopping = s->want_stop;
    memcpy(o->name, s->name, sizeof o->name);
}

static void children(klaw_supervisor *s, void *user) {
    struct supervisor_fill *f = user;
    for (klawi_link *l = s->kids.next; l != &s->kids; l = l->next) {
        if (f->n++ >= f->max)
            continue;
        klaw_supervised_info *o = (klaw_supervised_info *)f->out + f->n - 1;
        o->supervisor_id = s->id;
        klawi_kid_tell(KLAWI_CONTAINER(l, klawi_kid, order), &o->child);
    }
}

static size_t supervisors_fill(void *out, size_t max) {
    struct supervisor_fill f = {out, max, 0};
    klawi_supervisors_each(supervisor, &f);
    return klawi_published_supervisors(out, max, f.n);
}
static size_t supervisors_count(void) {
    return supervisors_fill(NULL, 0);
}
static size_t children_fill(void *out, size_t max) {
    struct supervisor_fill f = {out, max, 0};
    klawi_supervisors_each(children, &f);
    return klawi_published_children(out, max, f.n);
}
static size_t children_count(void) {
    return children_fill(NULL, 0);
}

static const char *strategy_name(klaw_strategy s) {
    static const char *const names[] = {"one_for_one", "one_for_all", "rest_for_one", "dynamic"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

static void supervisor_json(struct klawi_text *t, const void *item) {
    const klaw_supervisor_info *s = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", s->id);
    KLAWI_OBJECT_STRING(&o, s, name);
    klawi_object_u64(&o, "parent_id", s->parent_id);
    klawi_object_u64(&o, "fiber_id", s->fiber_id);
    klawi_object_string(&o, "strategy", strategy_name(s->strategy), 16);
    klawi_object_u64(&o, "specs", s->specs);
    klawi_object_u64(&o, "active", s->active);
    klawi_object_u64(&o, "abandoned", s->abandoned);
    klawi_object_u64(&o, "restarts", s->restarts);
    klawi_object_boolean(&o, "stopping", s->stopping);
    klawi_text_str(t, "}");
}

static void child_json(struct klawi_text *t, const void *item) {
    const klaw_supervised_info *s = item;
    const klaw_child_info *c = &s->child;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "supervisor_id", s->supervisor_id);
    KLAWI_OBJECT_STRING(&o, c, name);
    klawi_object_string(&o, "kind", klaw_child_kind_name(c->kind), 16);
    klawi_object_i64(&o, "id", c->id);
    klawi_object_string(&o, "state", klaw_child_state_name(c->state), 16);
    klawi_object_boolean(&o, "significant", c->significant);
    klawi_object_boolean(&o, "abandoned", c->abandoned);
    klawi_object_u64(&o, "restarts", c->restarts);
    klawi_object_string(&o, "last_error", klaw_err_name(c->last_error), 32);
    KLAWI_OBJECT_STRING(&o, c, last_detail);
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider actors = {"actor", actors_count, actors_fill,
                                                     sizeof(klaw_actor_stats), actor_json};

static const struct klawi_inspect_provider supervisors = {
    "supervisor", supervisors_count, supervisors_fill, sizeof(klaw_supervisor_info),
    supervisor_json};
static const struct klawi_inspect_provider supervisions = {
    "supervision", children_count, children_fill, sizeof(klaw_supervised_info), child_json};

void klawi_inspect_actors(void) {
    klawi_inspect_provide(&supervisors);
    klawi_inspect_provide(&supervisions);
    klawi_inspect_provide(&actors);
}
