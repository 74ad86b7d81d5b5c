/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_admin.c - looking after workflows from outside: list, inspect, cancel, evict, delete.
 *
 * Each call is one transaction. None of them speaks to the runner: what they change in the log, it
 * finds at its next step or renewal (invariant W1 of workflow.c). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "store/workflow.h"

static void tell(const struct klawi_wf_head *h, klaw_workflow_info *out) {
    klaw_lease_clock now;
    klawi_wf_clock(&now);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", h->name);
    snprintf(out->version, sizeof out->version, "%s", h->version);
    snprintf(out->owner_host, sizeof out->owner_host, "%s", h->owner.host);
    snprintf(out->owner_id, sizeof out->owner_id, "%s", h->owner.id);
    snprintf(out->message, sizeof out->message, "%s", h->message);
    out->state = h->state;
    out->declared = h->declared;
    out->cancel_requested = h->cancel && h->state == KLAW_WORKFLOW_RUNNING;
    out->lease_left = klaw_lease_remaining(&h->lease, &now, klawi_wf_owner_alive(h, &now));
    out->leased = out->lease_left > 0;
    out->owner_pid = h->owner.pid;
    out->token = h->lease.token;
    out->created = h->created;
    out->updated = h->updated;
    out->finished = h->finished;
    out->steps = h->steps;
    out->steps_done = h->steps_done;
    out->result_size = h->result_size;
    out->error = h->error;
}

/* Room for one more element of `size` bytes. */
static klaw_err room(void **list, size_t n, size_t *cap, size_t size) {
    if (n < *cap)
        return KLAW_OK;
    size_t want = *cap ? *cap * 2 : 8;
    void *p = klawi_realloc(*list, want * size);
    if (!p)
        return KLAW_NOMEM;
    *list = p;
    *cap = want;
    return KLAW_OK;
}

struct looking {
    const char *name; /* or prefix */
    klaw_workflow_info *out;
    klaw_workflow_info *all;
    klaw_step_info *steps;
    bool want_steps;
    size_t n, cap;
};

static klaw_err list_one(const struct klawi_wf_head *h, bool *more, void *arg) {
    struct looking *l = arg;
    *more = strncmp(h->name, l->name, strlen(l->name)) == 0;
    void *list = l->all;
    klaw_err e = *more ? room(&list, l->n, &l->cap, sizeof *l->all) : KLAW_OK;
    l->all = list;
    if (!e && *more)
        tell(h, &l->all[l->n++]);
    return e;
}

static klaw_err list_in(klawi_store_tx *tx, void *arg) {
    struct looking *l = arg;
    l->n = 0;
    return klawi_wf_each(tx, l->name, list_one, l);
}

klaw_err klaw_workflow_list_all(klaw_store *store, const char *prefix, klaw_workflow_info **out,
                                size_t *n, klaw_error_info *info) {
    struct looking l = {.name = prefix ? prefix : ""};
    if (!store || !out || !n)
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no store, or no out");
    klaw_err e = klawi_store_read(store, list_in, &l, klaw_after(KLAWI_WF_PATIENCE), info);
    if (e) {
        klawi_free(l.all);
        return e;
    }
    *out = l.all;
    *n = l.n;
    return KLAW_OK;
}

static klaw_err step_one(const struct klawi_wf_row *r, void *arg) {
    struct looking *l = arg;
    void *list = l->steps;
    klaw_err e = room(&list, l->n, &l->cap, sizeof *l->steps);
    l->steps = list;
    if (e)
        return e;
    klaw_step_info *s = &l->steps[l->n++];
    memset(s, 0, sizeof *s);
    snprintf(s->name, sizeof s->name, "%s", r->name);
    snprintf(s->message, sizeof s->message, "%s", r->message);
    s->state = r->state;
    s->dropped = r->dropped;
    s->attempts = r->attempts;
    s->started = r->started;
    s->finished = r->finished;
    s->result_size = r->result_size;
    s->error = r->error;
    return KLAW_OK;
}

static klaw_err inspect_in(klawi_store_tx *tx, void *arg) {
    struct looking *l = arg;
    struct klawi_wf_head h;
    l->n = 0;
    klaw_err e = klawi_wf_find(tx, l->name, &h);
    if (e)
        return e;
    tell(&h, l->out);
    return l->want_steps ? klawi_wf_row_each(tx, &h, step_one, l) : KLAW_OK;
}

/* NOT_FOUND gets its text. */
static klaw_err answer(klaw_store *store, const char *name, klaw_err e, klaw_error_info *info) {
    if (e == KLAW_NOT_FOUND)
        return klawi_wf_say(info, store, name, e, "there is no such workflow");
    return e;
}

klaw_err klaw_workflow_inspect(klaw_store *store, const char *name, klaw_workflow_info *out,
                               klaw_step_info **steps, size_t *n, klaw_error_info *info) {
    klaw_workflow_info got;
    struct looking l = {.name = name, .out = &got, .want_steps = steps != NULL};
    if (!store || !klaw_workflow_name_ok(name) || (steps && !n))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no store, no good name, or no out");
    klaw_err e = klawi_store_read(store, inspect_in, &l, klaw_after(KLAWI_WF_PATIENCE), info);
    if (e) {
        klawi_free(l.steps);
        return answer(store, name, e, info);
    }
    if (out)
        *out = got;
    if (steps) {
        *steps = l.steps;
        *n = l.n;
    }
    return KLAW_OK;
}

void klaw_workflow_info_free(klaw_workflow_info *list) {
    klawi_free(list);
}

void klaw_step_info_free(klaw_step_info *list) {
    klawi_free(list);
}

/* --- changing --- */

struct change {
    const char *name, *reason;
    bool force;
    int64_t pid; /* of who runs it */
};

static bool runs(struct klawi_wf_head *h) {
    klaw_lease_clock now;
    klawi_wf_clock(&now);
    h->updated = now.wall;
    return klaw_lease_remaining(&h->lease, &now, klawi_wf_owner_alive(h, &now)) > 0;
}

static klaw_err cancel_in(klawi_store_tx *tx, void *arg) {
    struct change *c = arg;
    struct klawi_wf_head h;
    klaw_err e = klawi_wf_find(tx, c->name, &h);
    if (e)
        return e;
    if (h.state == KLAW_WORKFLOW_DONE)
        return KLAW_INVALID;
    bool running = runs(&h);
    if ((running && h.cancel) || h.state == KLAW_WORKFLOW_CANCELLED)
        return KLAW_OK; /* the first reason stays */
    if (!h.cancel)
        snprintf(h.message, sizeof h.message, "%s", c->reason);
    h.cancel = true; /* also for a runner whose lease is over and who does not know yet */
    if (!running) {
        h.state = KLAW_WORKFLOW_CANCELLED;
        h.finished = h.updated;
    }
    return klawi_wf_update(tx, &h);
}

static klaw_err evict_in(klawi_store_tx *tx, void *arg) {
    struct change *c = arg;
    struct klawi_wf_head h;
    klaw_err e = klawi_wf_find(tx, c->name, &h);
    if (e || h.lease.duration == 0)
        return e;
    (void)runs(&h);
    h.lease.duration = 0;
    h.lease.token++;
    return klawi_wf_update(tx, &h);
}

static klaw_err delete_in(klawi_store_tx *tx, void *arg) {
    struct change *c = arg;
    struct klawi_wf_head h;
    klaw_err e = klawi_wf_find(tx, c->name, &h);
    if (e)
        return e;
    c->pid = h.owner.pid;
    if (runs(&h) && !c->force)
        return KLAW_EXISTS;
    return klawi_wf_delete(tx, h.id);
}

static klaw_err change(klaw_store *store, klawi_store_fn fn, struct change *c,
                       klaw_error_info *info) {
    if (!store || !klaw_workflow_name_ok(c->name))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no store, or no good name");
    klaw_err e = klawi_store_write(store, fn, c, klaw_after(KLAWI_WF_PATIENCE), info);
    return answer(store, c->name, e, info);
}

klaw_err klaw_workflow_cancel(klaw_store *store, const char *name, const char *reason,
                              klaw_error_info *info) {
    struct change c = {.name = name, .reason = reason && *reason ? reason : "cancelled"};
    klaw_err e = change(store, cancel_in, &c, info);
    if (e == KLAW_INVALID && store && klaw_workflow_name_ok(name))
        return klawi_wf_say(info, store, name, e, "it is done");
    return e;
}

klaw_err klaw_workflow_evict(klaw_store *store, const char *name, klaw_error_info *info) {
    struct change c = {.name = name};
    return change(store, evict_in, &c, info);
}

klaw_err klaw_workflow_delete(klaw_store *store, const char *name, bool force,
                              klaw_error_info *info) {
    struct change c = {.name = name, .force = force};
    klaw_err e = change(store, delete_in, &c, info);
    if (e == KLAW_EXISTS)
        return klawi_wf_say(info, store, name, e, "process %lld runs it", (long long)c.pid);
    return e;
}
