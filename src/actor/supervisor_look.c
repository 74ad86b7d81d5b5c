/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor_look.c - what a supervisor tells of itself and its children, without waiting.
 *
 * Everything is read under the lock, where the keeper writes it (S5). References are taken there,
 * too: a run keeps what it has published until it is freed, and it is not freed while it is a
 * kid's. */
#include <string.h>

#include "actor/supervisor.h"

uint64_t klaw_supervisor_id(const klaw_supervisor *s) {
    return s ? s->id : 0;
}

const char *klaw_supervisor_name(const klaw_supervisor *s) {
    return s ? s->name : "?";
}

void klawi_kid_tell(const klawi_kid *k, klaw_child_info *out) {
    memcpy(out->name, k->name, sizeof out->name);
    out->kind = k->def->kind;
    out->state = k->state;
    out->restart = k->def->policy.restart;
    out->significant = k->def->policy.significant;
    out->abandoned = k->abandoned > 0;
    out->restarts = k->restarts;
    out->id = k->run ? k->run->id : 0;
    out->last_error = k->last_error;
    memcpy(out->last_detail, k->last_detail, sizeof out->last_detail);
}

klaw_err klaw_supervisor_which(klaw_supervisor *s, klaw_child_info *out, size_t max, size_t *n) {
    size_t i = 0;
    if (!s || !n || (!out && max))
        return KLAW_INVALID;
    klawi_lock_acquire(&s->lock);
    for (klawi_link *l = s->kids.next; l != &s->kids && i < max; l = l->next)
        klawi_kid_tell(KLAWI_CONTAINER(l, klawi_kid, order), &out[i++]);
    *n = s->count;
    klawi_lock_release(&s->lock);
    return KLAW_OK;
}

void klawi_supervisor_counts(const klaw_supervisor *s, klaw_supervisor_counts *out) {
    memset(out, 0, sizeof *out);
    for (klawi_link *l = s->kids.next; l != &s->kids; l = l->next) {
        const klawi_kid *k = KLAWI_CONTAINER(l, klawi_kid, order);
        out->active += k->state >= KLAW_CHILD_RUNNING && k->state <= KLAW_CHILD_KILLING;
        out->supervisors += k->def->kind == KLAW_CHILD_SUPERVISOR;
    }
    out->specs = s->count;
    out->workers = out->specs - out->supervisors;
    out->abandoned = s->abandoned;
    out->restarts = s->restarts;
}

klaw_err klaw_supervisor_count(klaw_supervisor *s, klaw_supervisor_counts *out) {
    if (!s || !out)
        return KLAW_INVALID;
    klawi_lock_acquire(&s->lock);
    klawi_supervisor_counts(s, out);
    klawi_lock_release(&s->lock);
    return KLAW_OK;
}

/* A run of a child of that kind as a pinned reference: klawi_run_unref. */
static klaw_err find(klaw_supervisor *s, const char *name, klaw_child_kind kind, klawi_run **out) {
    klaw_err e = KLAW_STOPPED;
    if (!s || !name)
        return KLAW_INVALID;
    klawi_lock_acquire(&s->lock);
    klawi_kid *k = klawi_kid_find(s, name);
    klawi_run *r = k ? k->run : NULL;
    if (!k)
        e = KLAW_NOT_FOUND;
    else if (k->def->kind != kind)
        e = KLAW_TYPE;
    else if (r && r->id) {
        atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
        e = KLAW_OK;
    }
    klawi_lock_release(&s->lock);
    *out = r;
    return e;
}

klaw_err klaw_supervisor_child_actor(klaw_supervisor *s, const char *name, klaw_actor **out) {
    klawi_run *r;
    klaw_err e = out ? find(s, name, KLAW_CHILD_ACTOR, &r) : KLAW_INVALID;
    if (e)
        return e;
    *out = klaw_actor_ref(r->kid->actor);
    klawi_run_unref(r);
    return KLAW_OK;
}

klaw_err klaw_supervisor_child_process(klaw_supervisor *s, const char *name, klaw_process **out) {
    klawi_run *r;
    klaw_err e = out ? find(s, name, KLAW_CHILD_PROCESS, &r) : KLAW_INVALID;
    if (e)
        return e;
    *out = klaw_process_ref(r->process);
    klawi_run_unref(r);
    return KLAW_OK;
}

klaw_err klaw_supervisor_child_supervisor(klaw_supervisor *s, const char *name,
                                          klaw_supervisor **out) {
    klawi_run *r;
    klaw_err e = out ? find(s, name, KLAW_CHILD_SUPERVISOR, &r) : KLAW_INVALID;
    if (e)
        return e;
    *out = klaw_supervisor_ref(r->nested);
    klawi_run_unref(r);
    return KLAW_OK;
}
