/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.c - an open workflow: opening, ending, closing it. Steps are in workflow_step.c.
 *
 * The log (workflow_log.c) is the truth, the policy (klaw/workflow_policy.h) decides on what it says, and
 * every decision is carried out in the transaction that read what it is based on. A handle keeps in
 * memory only what this run has asked for.
 *
 * Invariants:
 *   W1  a transaction that changes a workflow for a run finds the run's token in it, else it changes
 *       nothing and the run is lost: its results are refused, whatever any clock says.
 *   W2  a row DONE is never written again, and a step whose row is DONE is not run.
 *   W3  a start is on the disk before the step's function runs (unless it is not recorded at all), its
 *       result before the caller has it.
 *   W4  what records an end is shielded from cancellation: an end that happened is kept.
 * wf->lock guards what is marked (L) in workflow.h; no other lock is taken under it. Wake-ups: a loss or a
 * cancellation that is noticed cancels the scope of each running step (klawi_wf_mark).
 *
 * Rejected: leaving decisions to a state in memory and writing behind. A runner that slept through its
 * lease would then overwrite what its successor has done. */
#include "store/workflow.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "sched/sched.h"

/* Opening looks again this often while somebody else runs it. */
#define LOOK KLAW_MS(50)

klaw_err klawi_wf_say(klaw_error_info *info, klaw_store *s, const char *name, klaw_err e,
                      const char *fmt, ...) {
    if (info) {
        char tail[160] = "";
        va_list ap;
        memset(info, 0, sizeof *info);
        snprintf(info->backend, sizeof info->backend, "workflow");
        if (s) {
            /* Of a long path the end says more. */
            const char *path = klaw_store_path(s);
            size_t n = strlen(path);
            snprintf(tail, sizeof tail, " (workflow \"%.40s\" in %s%s)", name, n > 80 ? "..." : "",
                     n > 80 ? path + n - 80 : path);
        }
        va_start(ap, fmt);
        vsnprintf(info->message, sizeof info->message - strlen(tail), fmt, ap);
        va_end(ap);
        memcpy(info->message + strlen(info->message), tail, strlen(tail) + 1);
    }
    return e;
}

klaw_err klawi_wf_write(klaw_workflow *wf, klawi_store_fn fn, void *arg, bool shield,
                        klaw_error_info *info) {
    klaw_deadline limit = klaw_after(KLAWI_WF_PATIENCE);
    klaw_scope *s = NULL;
    if (shield) {
        /* Where no runtime runs nobody cancels; without memory the write is tried all the same. */
        klaw_scope_opts o = {.name = "workflow-log", .deadline = limit, .shield = true};
        if (klaw_scope_open(&o, &s) != KLAW_OK)
            s = NULL;
    }
    klaw_err e = klawi_store_write(wf->store, fn, arg, limit, info);
    if (s && klaw_scope_close(s) != KLAW_OK)
        s = NULL; /* its time was up; the write has said so */
    return e;
}

void klawi_wf_unref(klaw_workflow *wf) {
    if (atomic_fetch_sub_explicit(&wf->refs, 1, memory_order_acq_rel) != 1)
        return;
    klawi_wf_table_free(wf);
    klaw_store_unref(wf->store);
    klawi_free(wf);
}

void klawi_wf_mark(klaw_workflow *wf, bool lost) {
    klaw_scope *s;
    atomic_store(lost ? &wf->lost : &wf->cancelled, true);
    do {
        klawi_lock_acquire(&wf->lock);
        struct klaw_step *r = wf->running;
        while (r && (r->told || !r->scope))
            r = r->next;
        s = r ? klaw_scope_ref(r->scope) : NULL;
        if (r)
            r->told = true;
        klawi_lock_release(&wf->lock);
        if (s)
            klaw_scope_cancel(s, lost ? "lease lost" : "workflow cancelled");
        klaw_scope_unref(s);
    } while (s);
}

/* --- opening --- */

struct opening {
    klaw_workflow *wf;
    const klaw_workflow_opts *o;
    klaw_lease_clock now;
    struct klawi_wf_owner self;
    struct klawi_wf_head head;
    const char **recorded; /* names that live in the handle's table */
    size_t n;
    klaw_workflow_opening what;
    int64_t wait; /* how long the other one's lease lasts */
    char diff[256];
};

/* A step the log or the list knows. */
static klaw_err know(klaw_workflow *wf, const char *name, klaw_step_state state, bool dropped,
                     const char **kept_name) {
    klaw_err e = klawi_wf_table_grow(wf);
    struct klawi_wf_step *s = e ? NULL : klawi_wf_step_make(name);
    if (!s)
        return KLAW_NOMEM;
    s->state = state;
    s->known = true;
    s->dropped = dropped;
    klawi_lock_acquire(&wf->lock);
    klawi_wf_step_add(wf, s);
    wf->unasked += !dropped;
    klawi_lock_release(&wf->lock);
    *kept_name = s->name;
    return KLAW_OK;
}

static klaw_err know_row(const struct klawi_wf_row *r, void *arg) {
    struct opening *op = arg;
    const char *name;
    klaw_err e = know(op->wf, r->name, r->state, r->dropped, &name);
    if (!e && !r->dropped)
        op->recorded[op->n++] = name;
    return e;
}

/* Reads the steps of op->head into the handle. */
static klaw_err read_steps(struct opening *op, klawi_store_tx *tx) {
    klawi_wf_table_free(op->wf);
    klawi_free((void *)op->recorded);
    op->n = 0;
    op->recorded = klawi_calloc(op->head.steps, sizeof(char *));
    if (!op->recorded)
        return KLAW_NOMEM;
    return klawi_wf_row_each(tx, &op->head, know_row, op);
}

/* Makes the declared list the recorded one. */
static klaw_err write_list(struct opening *op, klawi_store_tx *tx) {
    const klaw_workflow_opts *o = op->o;
    struct klawi_wf_row r;
    klaw_err e = KLAW_OK;
    for (size_t i = 0; !e && i < op->n; i++) {
        e = klawi_wf_row_find(tx, op->head.id, op->recorded[i], &r);
        r.dropped = true;
        r.position = (int64_t)(o->n_steps + i);
        if (!e)
            e = klawi_wf_row_save(tx, op->head.id, &r, NULL);
    }
    for (size_t i = 0; !e && i < o->n_steps; i++) {
        e = klawi_wf_row_find(tx, op->head.id, o->steps[i], &r);
        if (e == KLAW_NOT_FOUND) {
            memset(&r, 0, sizeof r);
            snprintf(r.name, sizeof r.name, "%s", o->steps[i]);
            op->head.steps++;
            e = KLAW_OK;
        }
        r.dropped = false;
        r.position = (int64_t)i;
        if (!e)
            e = klawi_wf_row_save(tx, op->head.id, &r, NULL);
    }
    return e;
}

/* How the list and version asked for differ from the record. */
static klaw_workflow_change compare(struct opening *op) {
    const klaw_workflow_opts *o = op->o;
    klaw_workflow_list recorded = {op->recorded, op->n, op->head.version};
    klaw_workflow_list declared = {o->steps, o->n_steps, o->version};
    if (!o->steps) { /* the recorded list goes on to hold */
        declared.names = op->recorded;
        declared.n = op->n;
    }
    klaw_workflow_diff d = klaw_workflow_compare(&recorded, &declared);
    klaw_workflow_diff_text(d, &recorded, &declared, op->diff, sizeof op->diff);
    return d.change;
}

/* The lease is ours: the head says so. */
static void take(struct opening *op) {
    struct klawi_wf_head *h = &op->head;
    h->lease = klaw_lease_grant(&op->now, op->wf->duration, h->lease.token + 1);
    h->owner = op->self;
    h->state = KLAW_WORKFLOW_RUNNING;
    h->cancel = false;
    h->error = KLAW_OK;
    h->message[0] = 0;
    h->finished = 0;
    h->updated = op->now.wall;
    h->declared |= op->o->steps != NULL;
    snprintf(h->version, sizeof h->version, "%s", op->o->version ? op->o->version : "");
}

static klaw_err create(struct opening *op, klawi_store_tx *tx) {
    struct klawi_wf_head *h = &op->head;
    memset(h, 0, sizeof *h);
    snprintf(h->name, sizeof h->name, "%s", op->wf->name);
    h->created = op->now.wall;
    klaw_err e = klawi_wf_random(h->uid);
    take(op);
    if (!e)
        e = klawi_wf_insert(tx, h);
    if (e || !op->o->n_steps)
        return e;
    e = write_list(op, tx);
    return e ? e : klawi_wf_update(tx, h);
}

static klaw_err resume(struct opening *op, klawi_store_tx *tx, klaw_workflow_change change) {
    struct klawi_wf_head *h = &op->head;
    klaw_err e = KLAW_OK;
    take(op);
    if (h->result_size || h->result_sum)
        e = klawi_wf_keep(tx, h, NULL); /* it was DONE, with another list */
    if (!e && change != KLAW_WORKFLOW_SAME && op->o->steps)
        e = write_list(op, tx);
    return e ? e : klawi_wf_update(tx, h);
}

static klaw_err open_in(klawi_store_tx *tx, void *arg) {
    struct opening *op = arg;
    klaw_workflow_change change = KLAW_WORKFLOW_SAME;
    klaw_workflow_wish wish = {op->o->allow_changes, op->o->takeover, op->o->uncancel};
    klaw_workflow_head head = {0};
    klaw_lease_owner owner = KLAW_OWNER_UNKNOWN;
    klawi_wf_table_free(op->wf);
    op->n = 0;
    klawi_wf_clock(&op->now);
    klaw_err e = klawi_wf_tables_make(tx);
    if (!e)
        e = klawi_wf_find(tx, op->wf->name, &op->head);
    if (e && e != KLAW_NOT_FOUND)
        return e;
    head.exists = !e;
    if (head.exists) {
        if ((e = read_steps(op, tx)))
            return e;
        head.state = op->head.state;
        head.cancel = op->head.cancel;
        head.lease = op->head.lease;
        owner = klawi_wf_owner_alive(&op->head, &op->now);
        change = compare(op);
    }
    op->what = klaw_workflow_open_decide(&head, change, wish, &op->now, owner, &op->wait);
    if (op->what == KLAW_OPENING_CREATE)
        e = create(op, tx);
    else if (op->what == KLAW_OPENING_RESUME || op->what == KLAW_OPENING_TAKE_OVER)
        e = resume(op, tx, change);
    else
        return KLAW_OK;
    return e ? e : read_steps(op, tx);
}

/* Opens, and waits for others as long as it may. */
static klaw_err try_open(struct opening *op, klaw_deadline wait, klaw_error_info *info) {
    klaw_workflow *wf = op->wf;
    for (;;) {
        klaw_err e = klawi_wf_write(wf, open_in, op, false, info);
        if (e || op->what != KLAW_OPENING_BUSY)
            return e;
        const struct klawi_wf_owner *o = &op->head.owner;
        int64_t now = klaw_now(), next = now + (op->wait < LOOK ? op->wait : LOOK);
        if (now >= wait)
            return klawi_wf_say(info, wf->store, wf->name, op->o->wait ? KLAW_TIMEOUT : KLAW_EXISTS,
                                "process %lld on %s runs it, its lease lasts %lld ms",
                                (long long)o->pid, o->host, (long long)op->wait / 1000000 + 1);
        e = klaw_sleep(next < wait ? next : wait);
        if (e)
            return klawi_wf_say(info, wf->store, wf->name, e, "cancelled while it waited");
    }
}

static klaw_err check_opts(klaw_store *store, const char *name, const klaw_workflow_opts *o,
                           klaw_error_info *info) {
    klaw_workflow_list list = {o->steps, o->steps ? o->n_steps : 0, o->version};
    size_t bad;
    if (!klaw_workflow_name_ok(name))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID,
                            "a workflow's name has 1 to 255 bytes, no control characters");
    if (o->lease && (o->lease < KLAW_MS(50) || o->lease > KLAW_S(86400)))
        return klawi_wf_say(info, store, name, KLAW_INVALID, "a lease lasts 50 ms to 1 day");
    if (o->n_steps && !o->steps)
        return klawi_wf_say(info, store, name, KLAW_INVALID, "n_steps without steps");
    klaw_err e = klaw_workflow_list_check(&list, &bad);
    if (e != KLAW_INVALID)
        return e;
    if (bad == list.n)
        return klawi_wf_say(info, store, name, e, "the version is over 63 bytes or not text");
    const char *wrong = o->steps ? o->steps[bad] : NULL;
    return klawi_wf_say(info, store, name, e,
                        "step %zu has no good name, or one that is taken: \"%.80s\"", bad + 1,
                        wrong ? wrong : "");
}

static klaw_deadline absolute(klaw_deadline d, klaw_deadline zero) {
    if (d == 0)
        return zero;
    return d < 0 && d != KLAW_NOWAIT ? klaw_after(-d) : d;
}

static klaw_err begin(struct opening *op, klaw_error_info *info) {
    klaw_workflow *wf = op->wf;
    klawi_wf_self(&op->self);
    klaw_err e = klawi_wf_random(op->self.id);
    if (!e)
        e = klawi_wf_keeper_get(wf->store, &wf->keeper);
    if (e)
        return klawi_wf_say(info, wf->store, wf->name, e, "no thread for its lease");
    memcpy(wf->owner, op->self.id, sizeof wf->owner);
    klawi_wf_keeper_add(wf->keeper, wf);
    if ((e = try_open(op, absolute(op->o->wait, KLAW_NOWAIT), info)))
        return e;
    if (op->what == KLAW_OPENING_CANCELLED)
        return klawi_wf_say(info, wf->store, wf->name, KLAW_CANCELLED, "it was cancelled: %.120s",
                            op->head.message);
    if (op->what == KLAW_OPENING_CHANGED)
        return klawi_wf_say(info, wf->store, wf->name, KLAW_INVALID,
                            "its steps have changed: %.180s", op->diff);
    wf->id = op->head.id;
    wf->token = op->head.lease.token;
    wf->declared = op->head.declared;
    memcpy(wf->uid, op->head.uid, sizeof wf->uid);
    if (op->what == KLAW_OPENING_READ) {
        atomic_store(&wf->ended, true);
        atomic_store(&wf->done, true);
    } else {
        klawi_wf_keeper_begin(wf->keeper, wf, &op->head.lease);
    }
    return KLAW_OK;
}

klaw_err klaw_workflow_open_sized(klaw_store *store, const char *name,
                                  const klaw_workflow_opts *opts, size_t opts_size,
                                  klaw_workflow **out, klaw_error_info *info) {
    klaw_workflow_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!store || !out)
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "a workflow needs a store and an out");
    klaw_err e = check_opts(store, name, &o, info);
    if (e)
        return e;
    struct opening *op = klawi_calloc(1, sizeof *op);
    klaw_workflow *wf = klawi_calloc(1, sizeof *wf);
    if (!op || !wf) {
        klawi_free(op);
        klawi_free(wf);
        return klawi_wf_say(info, store, name, KLAW_NOMEM, "no memory");
    }
    op->wf = wf;
    op->o = &o;
    atomic_init(&wf->refs, 1);
    klawi_lock_init(&wf->lock, KLAWI_RANK_LEAF);
    wf->store = klaw_store_ref(store);
    wf->last = &wf->first;
    wf->duration = o.lease ? o.lease : KLAW_S(30);
    wf->deadline = absolute(o.deadline, KLAW_FOREVER);
    wf->allow_changes = o.allow_changes;
    snprintf(wf->name, sizeof wf->name, "%s", name);
    e = begin(op, info);
    klawi_free((void *)op->recorded);
    klawi_free(op);
    if (e) {
        if (wf->keeper) {
            klawi_wf_keeper_remove(wf->keeper, wf);
            klawi_wf_keeper_put(wf->keeper);
        }
        klawi_wf_unref(wf);
        return e;
    }
    *out = wf;
    return KLAW_OK;
}

/* --- ending --- */

struct ending {
    klaw_workflow *wf;
    klaw_workflow_state state; /* RUNNING: only the lease is given back */
    klaw_blob *result;
    klaw_err error;
    const char *message;
};

static klaw_err end_in(klawi_store_tx *tx, void *arg) {
    struct ending *en = arg;
    struct klawi_wf_head h;
    klaw_err e = klawi_wf_find_id(tx, en->wf->id, &h);
    if (e == KLAW_NOT_FOUND || (!e && !klawi_wf_mine(&h, en->wf->token)))
        return KLAW_STOPPED;
    if (e)
        return e;
    klaw_lease_clock now;
    klawi_wf_clock(&now);
    h.lease.duration = 0;
    if (h.cancel && en->state != KLAW_WORKFLOW_DONE) {
        h.state = KLAW_WORKFLOW_CANCELLED; /* its message is there */
        h.finished = h.updated = now.wall;
    } else if (en->state != KLAW_WORKFLOW_RUNNING) {
        h.state = en->state;
        h.error = en->error;
        snprintf(h.message, sizeof h.message, "%s", en->message);
        h.finished = h.updated = now.wall;
    }
    h.cancel = false;
    if (en->state == KLAW_WORKFLOW_DONE)
        e = klawi_wf_keep(tx, &h, en->result);
    return e ? e : klawi_wf_update(tx, &h);
}

/* Whether it may end. */
static klaw_err may_end(klaw_workflow *wf, klaw_workflow_state state, klaw_error_info *info) {
    klaw_workflow_run_view v = {.declared = wf->declared,
                                .allow_changes = wf->allow_changes,
                                .lost = atomic_load(&wf->lost)};
    char name[81] = "";
    klawi_lock_acquire(&wf->lock);
    bool running = wf->running != NULL;
    v.unasked = wf->unasked;
    for (struct klawi_wf_step *s = wf->first; s && !name[0]; s = s->after)
        if (!s->asked && !s->dropped)
            snprintf(name, sizeof name, "%s", s->name);
    klawi_lock_release(&wf->lock);
    if (running)
        return klawi_wf_say(info, wf->store, wf->name, KLAW_EXISTS, "a step is running");
    if (state != KLAW_WORKFLOW_DONE) /* what fails may have left steps out */
        v.unasked = 0;
    switch (klaw_workflow_finish_decide(&v)) {
    case KLAW_STEP_LOST:
        return klawi_wf_say(info, wf->store, wf->name, KLAW_STOPPED, "the lease is lost");
    case KLAW_STEP_CHANGED:
        return klawi_wf_say(info, wf->store, wf->name, KLAW_INVALID,
                            "its steps have changed: \"%s\" is recorded and was not asked for",
                            name);
    default: return KLAW_OK;
    }
}

static klaw_err end(klaw_workflow *wf, struct ending *en, klaw_error_info *info) {
    if (atomic_load(&wf->ended)) {
        if (en->state == KLAW_WORKFLOW_DONE && atomic_load(&wf->done))
            return KLAW_OK;
        return klawi_wf_say(info, wf->store, wf->name, KLAW_INVALID, "it has ended");
    }
    klaw_err e = may_end(wf, en->state, info);
    if (e)
        return e;
    e = klawi_wf_write(wf, end_in, en, true, info);
    if (e == KLAW_STOPPED) {
        klawi_wf_mark(wf, true);
        return klawi_wf_say(info, wf->store, wf->name, e, "the lease is lost");
    }
    if (e)
        return e;
    klawi_wf_keeper_remove(wf->keeper, wf);
    atomic_store(&wf->ended, true);
    atomic_store(&wf->done, en->state == KLAW_WORKFLOW_DONE);
    return KLAW_OK;
}

klaw_err klaw_workflow_finish(klaw_workflow *wf, klaw_blob *result, klaw_error_info *info) {
    struct ending en = {.wf = wf, .state = KLAW_WORKFLOW_DONE, .result = result, .message = ""};
    if (!wf)
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no workflow");
    if (result && klaw_blob_size(result) > KLAW_STORE_VALUE_MAX)
        return klawi_wf_say(info, wf->store, wf->name, KLAW_LIMIT, "the result is too large");
    return end(wf, &en, info);
}

klaw_err klaw_workflow_fail(klaw_workflow *wf, klaw_err error, const char *message,
                            klaw_error_info *info) {
    struct ending en = {.wf = wf,
                        .state = KLAW_WORKFLOW_FAILED,
                        .error = error,
                        .message = message ? message : klaw_err_text(error)};
    if (!wf || error == KLAW_OK || (unsigned)error > KLAW_SYSTEM)
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "failing needs a workflow and an error");
    return end(wf, &en, info);
}

bool klaw_workflow_done(const klaw_workflow *wf) {
    return wf && atomic_load(&wf->done);
}

void klaw_workflow_close(klaw_workflow *wf) {
    if (!wf)
        return;
    klawi_lock_acquire(&wf->lock);
    bool running = wf->running != NULL;
    klawi_lock_release(&wf->lock);
    if (running)
        klawi_fatal("workflow \"%s\" is closed while a step runs", wf->name);
    if (!atomic_load(&wf->ended) && !atomic_load(&wf->lost)) {
        struct ending en = {.wf = wf, .state = KLAW_WORKFLOW_RUNNING, .message = ""};
        if (klawi_wf_write(wf, end_in, &en, true, NULL) != KLAW_OK)
            atomic_store(&wf->lost, true); /* the lease ends by itself; in this process, now (K2) */
    }
    klawi_wf_keeper_remove(wf->keeper, wf);
    klawi_wf_keeper_put(wf->keeper);
    klawi_wf_unref(wf);
}

/* --- results --- */

struct reading {
    klaw_workflow *wf;
    const char *step; /* NULL: the workflow's own */
    klaw_blob *out;
};

static klaw_err read_in(klawi_store_tx *tx, void *arg) {
    struct reading *rd = arg;
    struct klawi_wf_head h;
    struct klawi_wf_row r;
    klaw_blob_unref(rd->out);
    rd->out = NULL;
    klaw_err e = klawi_wf_find_id(tx, rd->wf->id, &h);
    if (e)
        return e == KLAW_NOT_FOUND ? KLAW_STOPPED : e;
    if (!rd->step)
        return h.state == KLAW_WORKFLOW_DONE ? klawi_wf_kept(tx, &h, &rd->out) : KLAW_NOT_FOUND;
    e = klawi_wf_row_find(tx, h.id, rd->step, &r);
    if (!e && r.state != KLAW_STEP_DONE)
        e = KLAW_NOT_FOUND;
    return e ? e : klawi_wf_row_kept(tx, h.id, &r, &rd->out);
}

klaw_err klawi_wf_read_result(klaw_workflow *wf, const char *step, klaw_blob **result,
                              klaw_error_info *info) {
    struct reading rd = {.wf = wf, .step = step};
    klaw_err e = klawi_store_read(wf->store, read_in, &rd, klaw_after(KLAWI_WF_PATIENCE), info);
    if (e) {
        klaw_blob_unref(rd.out);
        if (e == KLAW_STOPPED && !atomic_load(&klawi_forked))
            return klawi_wf_say(info, wf->store, wf->name, e, "it was deleted");
        if (e == KLAW_NOT_FOUND)
            return klawi_wf_say(info, wf->store, wf->name, e, "no result is kept%s%.80s",
                                step ? " of step " : "", step ? step : "");
        return e;
    }
    *result = rd.out;
    return KLAW_OK;
}

klaw_err klaw_workflow_kept(klaw_workflow *wf, const char *step, klaw_blob **result,
                            klaw_error_info *info) {
    if (!wf || !result || !klaw_workflow_name_ok(step))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no workflow, no such name, or no out");
    return klawi_wf_read_result(wf, step, result, info);
}

klaw_err klaw_workflow_result(klaw_workflow *wf, klaw_blob **result, klaw_error_info *info) {
    if (!wf || !result)
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no workflow, or no out");
    return klawi_wf_read_result(wf, NULL, result, info);
}
