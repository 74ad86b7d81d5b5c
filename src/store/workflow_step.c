/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_step.c - running one step, and a whole list of them.
 *
 * A step that has no kept result: decide (the policy), record the start, run the function in a scope of its
 * own, record the end; again after a backoff if it failed and may be tried again. Invariants W1 to W4 of
 * workflow.c. The outer scope holds all attempts and the waits between them, and is what a
 * cancellation or a loss of the lease cancels; the inner one is an attempt with its deadline, and is left
 * before the end is recorded, so that no fiber of the step runs any more when its result is kept. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "klaw/retry.h"
#include "sched/trace.h"
#include "store/workflow.h"

/* On a thread without a runtime nobody cancels a sleep: it is cut into these. */
#define NAP KLAW_MS(50)

/* --- inside a step --- */

const char *klaw_step_name(const klaw_step *s) {
    return s->name;
}
uint32_t klaw_step_attempt(const klaw_step *s) {
    return s->attempt;
}
klaw_deadline klaw_step_deadline(const klaw_step *s) {
    return s->deadline;
}
const char *klaw_step_id(const klaw_step *s) {
    return s->id;
}
klaw_workflow *klaw_step_workflow(const klaw_step *s) {
    return s->wf;
}

bool klaw_step_cancelled(const klaw_step *s) {
    return atomic_load(&s->wf->lost) || atomic_load(&s->wf->cancelled) ||
           (s->scope && klaw_scope_cancelled(s->scope)) ||
           (s->deadline != KLAW_FOREVER && klaw_now() >= s->deadline);
}

void klaw_step_explain(klaw_step *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, ap);
    va_end(ap);
}

/* --- the log --- */

struct record {
    struct klaw_step *step;
    klaw_err error; /* of an end */
    klaw_blob *result;
    bool cancelled;
    bool fresh; /* there is no row yet; it is made at the end */
    struct klawi_wf_row row;
};

/* The head, if the run still holds it; STOPPED when it does not. */
static klaw_err own(klawi_store_tx *tx, klaw_workflow *wf, struct klawi_wf_head *h) {
    klaw_err e = klawi_wf_find_id(tx, wf->id, h);
    if (e == KLAW_NOT_FOUND || (!e && !klawi_wf_mine(h, wf->token)))
        return KLAW_STOPPED;
    return e;
}

static klaw_err start_in(klawi_store_tx *tx, void *arg) {
    struct record *rec = arg;
    klaw_workflow *wf = rec->step->wf;
    struct klawi_wf_head h;
    struct klawi_wf_row *r = &rec->row;
    klaw_err e = own(tx, wf, &h);
    rec->cancelled = !e && h.cancel;
    if (e || rec->cancelled)
        return e;
    e = klawi_wf_row_find(tx, h.id, rec->step->name, r);
    rec->fresh = e == KLAW_NOT_FOUND;
    if (rec->fresh) {
        memset(r, 0, sizeof *r);
        snprintf(r->name, sizeof r->name, "%s", rec->step->name);
        e = KLAW_OK;
    }
    if (e)
        return e;
    if (r->state == KLAW_STEP_DONE) /* W2: not by this run, which has the token */
        return klawi_tx_fail(tx, KLAW_CORRUPT, "step \"%.100s\" is done behind its run", r->name);
    r->state = KLAW_STEP_STARTED;
    r->attempts += r->attempts < UINT32_MAX;
    r->started = h.updated = klawi_wall_clock();
    r->finished = 0;
    r->error = KLAW_OK;
    r->message[0] = 0;
    if (rec->step->opts.unrecorded_start)
        return KLAW_OK;
    if (rec->fresh)
        r->position = (int64_t)h.steps++;
    rec->fresh = false;
    e = klawi_wf_row_save(tx, h.id, r, NULL);
    return e ? e : klawi_wf_update(tx, &h);
}

static klaw_err end_in(klawi_store_tx *tx, void *arg) {
    struct record *rec = arg;
    struct klawi_wf_head h;
    struct klawi_wf_row r = rec->row;
    klaw_err e = own(tx, rec->step->wf, &h);
    if (e)
        return e;
    rec->cancelled = h.cancel;
    if (rec->fresh)
        r.position = (int64_t)h.steps++;
    r.finished = h.updated = klawi_wall_clock();
    r.error = rec->error;
    r.state = rec->error ? KLAW_STEP_FAILED : KLAW_STEP_DONE;
    if (rec->error)
        snprintf(r.message, sizeof r.message, "%s",
                 rec->step->why[0] ? rec->step->why : klaw_err_text(rec->error));
    else
        h.steps_done++;
    e = klawi_wf_row_save(tx, h.id, &r, rec->error ? NULL : rec->result);
    return e ? e : klawi_wf_update(tx, &h);
}

/* --- attempts --- */

static klaw_err lost(klaw_workflow *wf, klaw_error_info *info) {
    klawi_wf_mark(wf, true);
    return klawi_wf_say(info, wf->store, wf->name, KLAW_STOPPED,
                        "the lease is lost: another process runs it, or it was deleted");
}

static klaw_err cancelled(klaw_workflow *wf, klaw_error_info *info) {
    return klawi_wf_say(info, wf->store, wf->name, KLAW_CANCELLED, "it was cancelled");
}

/* Why a step may not go on; OK: it may. */
static klaw_err stopped(struct klaw_step *s, klaw_error_info *info) {
    if (atomic_load(&s->wf->lost))
        return lost(s->wf, info);
    if (atomic_load(&s->wf->cancelled))
        return cancelled(s->wf, info);
    return KLAW_OK;
}

/* What the function's answer and that of its scope make together. */
static klaw_err verdict(struct klaw_step *s, klaw_err e, bool children, klaw_err scope) {
    if (!e && children)
        e = scope; /* what it started belongs to it */
    if (e == KLAW_CANCELLED && s->deadline != KLAW_FOREVER && klaw_now() >= s->deadline &&
        !atomic_load(&s->wf->lost) && !atomic_load(&s->wf->cancelled))
        e = KLAW_TIMEOUT;
    return e;
}

/* Calls the function in a scope of its own. */
static klaw_err call(struct klaw_step *s, klaw_step_fn fn, void *arg, klaw_blob **result) {
    klaw_scope *in = NULL;
    klawi_span span;
    klaw_scope_opts o = {.name = s->name};
    s->deadline = s->until;
    if (s->opts.timeout > 0) {
        klaw_deadline t = klaw_after(s->opts.timeout);
        s->deadline = t < s->until ? t : s->until;
    }
    o.deadline = s->deadline == KLAW_FOREVER ? 0 : s->deadline;
    klaw_err e = s->scope ? klaw_scope_open(&o, &in) : KLAW_OK;
    if (e)
        return e;
    s->why[0] = 0;
    klawi_span_begin(&span);
    e = fn(s, arg, result);
    klawi_span_end(&span, KLAW_SPAN_STEP, s->name, e);
    bool children = in && klaw_scope_live(in) > 0;
    klaw_err left = in ? klaw_scope_close(in) : KLAW_OK;
    e = verdict(s, e, children || (left != KLAW_TIMEOUT && left != KLAW_CANCELLED), left);
    if (!e && *result && klaw_blob_size(*result) > KLAW_STORE_VALUE_MAX) {
        klaw_step_explain(s, "the result is too large");
        e = KLAW_LIMIT;
    }
    return e;
}

/* One attempt; s->failed says whether what it answers is the step's own failure. */
static klaw_err attempt(struct klaw_step *s, klaw_step_fn fn, void *arg, klaw_blob **result,
                        klaw_error_info *info) {
    klaw_workflow *wf = s->wf;
    struct record rec = {.step = s};
    s->failed = false;
    klaw_err e = stopped(s, info);
    if (e)
        return e;
    if (s->opts.unrecorded_start)
        e = klawi_store_read(wf->store, start_in, &rec, klaw_after(KLAWI_WF_PATIENCE), info);
    else
        e = klawi_wf_write(wf, start_in, &rec, false, info);
    if (!e && rec.cancelled) {
        klawi_wf_mark(wf, false);
        return cancelled(wf, info);
    }
    if (e == KLAW_STOPPED)
        return lost(wf, info);
    if (e) { /* CANCELLED: by the caller's scope, or because the keeper has noticed something */
        klaw_err why = stopped(s, info);
        return why ? why : e;
    }
    klawi_lock_acquire(&wf->lock);
    klawi_wf_step_find(wf, s->name)->known = true;
    klawi_lock_release(&wf->lock);
    s->attempt = rec.row.attempts;
    rec.error = call(s, fn, arg, result);
    rec.result = *result;
    e = klawi_wf_write(wf, end_in, &rec, true, info);
    if (e == KLAW_STOPPED)
        return lost(wf, info);
    if (!e && rec.cancelled)
        klawi_wf_mark(wf, false); /* this end is kept; nothing starts any more */
    if (e || !rec.error)
        return e;
    s->failed = true;
    return klawi_wf_say(info, wf->store, wf->name, rec.error, "step \"%.64s\" failed: %.100s",
                        s->name, s->why[0] ? s->why : klaw_err_text(rec.error));
}

static klaw_err pause_until(struct klaw_step *s, int64_t at) {
    klaw_err e = KLAW_OK;
    if (s->scope)
        return klaw_sleep(at);
    for (int64_t now; !e && (now = klaw_now()) < at && !klaw_step_cancelled(s);)
        e = klaw_sleep(at - now < NAP ? at : now + NAP);
    return e;
}

static klaw_err attempts(struct klaw_step *s, klaw_step_fn fn, void *arg, klaw_blob **result,
                         klaw_error_info *info) {
    for (uint32_t failures = 1;; failures += failures < UINT32_MAX - 1) {
        int64_t at;
        klaw_err e = attempt(s, fn, arg, result, info);
        if (!e)
            return KLAW_OK;
        klaw_blob_unref(*result);
        *result = NULL;
        if (!s->failed || e == KLAW_CANCELLED ||
            !(s->opts.retry_on ? s->opts.retry_on(e, arg) : klaw_retry_default(e)))
            return e;
        if (!klaw_step_retry_decide(&s->opts.retry, failures, e, klaw_now(), s->until,
                                    klawi_wf_chance(), &at))
            return e;
        s->deadline = s->until;
        if (pause_until(s, at) != KLAW_OK) {
            e = stopped(s, info);
            return e ? e : cancelled(s->wf, info);
        }
    }
}

/* --- asking for a step --- */

static void link_running(struct klaw_step *s) {
    klaw_workflow *wf = s->wf;
    s->back = &wf->running;
    s->next = wf->running;
    if (s->next)
        s->next->back = &s->next;
    wf->running = s;
}

/* Decides, and notes that the step is asked for. *entry may be put into the table. Under the lock. */
static klaw_step_verdict ask(struct klaw_step *s, klaw_workflow_run_view *run,
                             struct klawi_wf_step **entry) {
    klaw_workflow *wf = s->wf;
    struct klawi_wf_step *t = klawi_wf_step_find(wf, s->name);
    klaw_step_view v = {0};
    if (t) {
        v.known = t->known && !t->dropped;
        v.state = t->state;
        v.running = t->running;
        v.asked = t->asked;
    }
    run->unasked = wf->unasked;
    klaw_step_verdict d = klaw_step_decide(run, &v);
    if (d != KLAW_STEP_RUN && d != KLAW_STEP_REPLAY)
        return d;
    if (!t) {
        t = *entry;
        *entry = NULL;
        klawi_wf_step_add(wf, t);
        t->asked = true; /* it never was unasked */
    }
    if (!t->asked && !t->dropped)
        wf->unasked--;
    t->asked = true;
    if (d == KLAW_STEP_RUN) {
        t->running = true;
        link_running(s);
    }
    return d;
}

static klaw_err refuse(struct klaw_step *s, klaw_step_verdict d, klaw_error_info *info) {
    klaw_workflow *wf = s->wf;
    const char *why = "it has ended";
    klaw_err e = KLAW_INVALID;
    switch (d) {
    case KLAW_STEP_LOST: return lost(wf, info);
    case KLAW_STEP_CANCELLED: return cancelled(wf, info);
    case KLAW_STEP_TWICE: why = "this run has asked for it before"; break;
    case KLAW_STEP_UNDECLARED: why = "it is not in the declared list"; break;
    case KLAW_STEP_CHANGED:
        why = "its steps have changed: this one is new, and recorded ones come after it";
        break;
    case KLAW_STEP_TIMEOUT:
        why = "the time is up";
        e = KLAW_TIMEOUT;
        break;
    default: break;
    }
    return klawi_wf_say(info, wf->store, wf->name, e, "step \"%.64s\": %s", s->name, why);
}

/* The step ran, or not: it is not running any more. */
static void leave(struct klaw_step *s, bool done) {
    klaw_workflow *wf = s->wf;
    klawi_lock_acquire(&wf->lock);
    struct klawi_wf_step *t = klawi_wf_step_find(wf, s->name);
    t->running = false;
    if (done)
        t->state = KLAW_STEP_DONE;
    else if (t->known)
        t->state = KLAW_STEP_FAILED;
    *s->back = s->next;
    if (s->next)
        s->next->back = s->back;
    klawi_lock_release(&wf->lock);
}

static klaw_err run_step(struct klaw_step *s, klaw_step_fn fn, void *arg, klaw_blob **result,
                         klaw_error_info *info) {
    klaw_workflow *wf = s->wf;
    klaw_scope_opts o = {.name = s->name};
    klaw_scope *scope = NULL;
    klaw_err e = klaw_scope_open(&o, &scope);
    if (e && e != KLAW_STOPPED) {
        leave(s, false);
        return klawi_wf_say(info, wf->store, wf->name, e, "no scope for step \"%.64s\"", s->name);
    }
    klawi_lock_acquire(&wf->lock);
    s->scope = scope;
    klawi_lock_release(&wf->lock);
    /* What was noticed before there was a scope to cancel. */
    if (scope && (atomic_load(&wf->lost) || atomic_load(&wf->cancelled)))
        klaw_scope_cancel(scope, "workflow stopped");
    e = attempts(s, fn, arg, result, info);
    leave(s, e == KLAW_OK);
    if (scope && klaw_scope_close(scope) != KLAW_OK)
        scope = NULL; /* told already */
    return e;
}

/* As klaw_workflow_step; *failed: the error is the step's own. */
static klaw_err step(klaw_workflow *wf, const char *name, klaw_step_fn fn, void *arg,
                     const klaw_step_opts *opts, size_t opts_size, klaw_blob **result, bool *failed,
                     klaw_error_info *info) {
    struct klaw_step s = {.wf = wf, .name = name};
    klaw_blob *got = NULL;
    if (!wf || !fn || !klaw_workflow_name_ok(name))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID, "no workflow, function or good name");
    if (opts)
        memcpy(&s.opts, opts, opts_size < sizeof s.opts ? opts_size : sizeof s.opts);
    if (s.opts.timeout < 0 || klaw_backoff_check(&s.opts.retry.backoff) != KLAW_OK)
        return klawi_wf_say(info, wf->store, wf->name, KLAW_INVALID,
                            "step \"%.64s\": a wrong timeout or backoff", name);
    klaw_deadline d = s.opts.deadline;
    s.until = d == 0 ? KLAW_FOREVER : d < 0 && d != KLAW_NOWAIT ? klaw_after(-d) : d;
    if (wf->deadline < s.until)
        s.until = wf->deadline;
    s.deadline = s.until;
    snprintf(s.id, sizeof s.id, "%s/%s", wf->uid, name);
    klaw_workflow_run_view run = {.declared = wf->declared,
                                  .allow_changes = wf->allow_changes,
                                  .read_only = atomic_load(&wf->ended),
                                  .lost = atomic_load(&wf->lost),
                                  .cancelled =
                                      atomic_load(&wf->cancelled) || klaw_check() == KLAW_CANCELLED,
                                  .late = s.until != KLAW_FOREVER && klaw_now() >= s.until};
    struct klawi_wf_step *entry = klawi_wf_step_make(name);
    if (!entry || klawi_wf_table_grow(wf) != KLAW_OK) {
        klawi_free(entry);
        return klawi_wf_say(info, wf->store, wf->name, KLAW_NOMEM, "no memory");
    }
    klawi_lock_acquire(&wf->lock);
    klaw_step_verdict v = ask(&s, &run, &entry);
    klawi_lock_release(&wf->lock);
    klawi_free(entry);
    klaw_err e = v == KLAW_STEP_RUN      ? run_step(&s, fn, arg, &got, info)
                 : v == KLAW_STEP_REPLAY ? klawi_wf_read_result(wf, name, &got, info)
                                         : refuse(&s, v, info);
    if (!e && !got && result)
        e = klaw_blob_new(NULL, 0, &got);
    if (!e && result)
        *result = got;
    else
        klaw_blob_unref(got);
    *failed = e && s.failed;
    return e;
}

klaw_err klaw_workflow_step_sized(klaw_workflow *wf, const char *name, klaw_step_fn fn, void *arg,
                                  const klaw_step_opts *opts, size_t opts_size, klaw_blob **result,
                                  klaw_error_info *info) {
    bool failed;
    return step(wf, name, fn, arg, opts, opts_size, result, &failed, info);
}

/* --- the declarative form --- */

static klaw_err run_all(klaw_workflow *wf, const char *steps, size_t n, size_t step_size, void *arg,
                        klaw_blob **last, klaw_error_info *info) {
    for (size_t i = 0; i < n; i++) {
        klaw_step_def def = {0};
        memcpy(&def, steps + i * step_size, step_size < sizeof def ? step_size : sizeof def);
        klaw_blob_unref(*last);
        *last = NULL;
        bool failed = false;
        klaw_err e = step(wf, def.name, def.fn, arg, &def.opts, sizeof def.opts,
                          i + 1 == n ? last : NULL, &failed, info);
        if (failed && e != KLAW_CANCELLED) {
            char text[160];
            snprintf(text, sizeof text, "step \"%.100s\" failed", def.name);
            klaw_err f = klaw_workflow_fail(wf, e, text, NULL);
            (void)f; /* it stays resumable in any case; the step's own error says more */
        }
        if (e)
            return e;
    }
    return klaw_workflow_finish(wf, *last, info);
}

klaw_err klaw_workflow_run_sized(klaw_store *store, const char *name, const klaw_step_def *steps,
                                 size_t n, size_t step_size, void *arg,
                                 const klaw_workflow_opts *opts, size_t opts_size,
                                 klaw_blob **result, klaw_error_info *info) {
    klaw_workflow_opts o = {0};
    klaw_workflow *wf = NULL;
    klaw_blob *last = NULL;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (o.steps || !steps || n == 0 || step_size < offsetof(klaw_step_def, opts))
        return klawi_wf_say(info, NULL, "", KLAW_INVALID,
                            "a declarative run needs steps, and none in its options");
    const char **names = klawi_calloc(n, sizeof *names);
    if (!names)
        return klawi_wf_say(info, NULL, "", KLAW_NOMEM, "no memory");
    for (size_t i = 0; i < n; i++)
        names[i] =
            ((const klaw_step_def *)(const void *)((const char *)steps + i * step_size))->name;
    o.steps = names;
    o.n_steps = n;
    klaw_err e = klaw_workflow_open(store, name, &o, &wf, info);
    klawi_free((void *)names);
    if (e)
        return e;
    if (klaw_workflow_done(wf))
        e = klaw_workflow_result(wf, &last, info);
    else
        e = run_all(wf, (const char *)steps, n, step_size, arg, &last, info);
    klaw_workflow_close(wf);
    if (!e && result) {
        *result = last;
        return KLAW_OK;
    }
    klaw_blob_unref(last);
    return e;
}
