/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - fibers, scopes and workers as snapshots show them.
 *
 * Each object is read under its own lock (a fiber's join lock, a scope's lock); what changes
 * without it (claim word, wait, turns) is read by relaxed loads. Nobody is stopped. */
#include "base/inspect.h"

#include <stdio.h>
#include <string.h>

#include "sched/sched.h"

static const char *const wait_names[] = {"",        "send",  "recv",     "select",   "sleep",
                                         "join",    "scope", "fd",       "blocking", "ask",
                                         "mailbox", "task",  "executor", "actor",    "tell"};

struct fill {
    char *out;
    size_t max, n;
};

static void count_fiber(klaw_fiber *f, void *user) {
    (void)f;
    ++*(size_t *)user;
}

static size_t fibers_count(void) {
    size_t n = 0;
    klawi_fibers_each(count_fiber, &n);
    return n;
}

static void fill_fiber(klaw_fiber *f, void *user) {
    struct fill *fl = user;
    if (fl->n++ >= fl->max)
        return;
    klaw_fiber_info *o = (klaw_fiber_info *)(void *)fl->out + (fl->n - 1);
    memset(o, 0, sizeof *o);
    uint64_t word = atomic_load_explicit(&f->host.word, memory_order_relaxed);
    uint32_t flags = klawi_ff(f);
    o->id = f->id;
    o->scope_id = f->scope->id;
    snprintf(o->name, sizeof o->name, "%s", klawi_fiber_name(f));
    o->pinned = (flags & KLAWI_FF_PINNED) != 0;
    o->cancelled = (word & KLAWI_CANCEL) != 0;
    o->worker = flags & KLAWI_FF_PINNED ? klawi_home(f) : KLAW_NONE;
    o->age = KLAW_NONE;
    o->waits = word / KLAWI_EPOCH;
    if (flags & KLAWI_FF_NEW) {
        o->state = KLAW_FIBER_NEW;
    } else if (word & KLAWI_ARMED) {
        uint8_t what = atomic_load_explicit(&f->host.what, memory_order_relaxed);
        o->timed = (what & KLAWI_WAIT_TIMED) != 0;
        what &= (uint8_t)~KLAWI_WAIT_TIMED;
        o->state = KLAW_FIBER_WAITING;
        snprintf(o->waiting_on, sizeof o->waiting_on, "%s",
                 what < sizeof wait_names / sizeof *wait_names ? wait_names[what] : "?");
        o->waiting_id = atomic_load_explicit(&f->host.object, memory_order_relaxed);
    } else {
        o->state = KLAW_FIBER_RUNNABLE;
    }
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    for (uint32_t i = 0; rt && i < rt->nworkers; i++)
        if (o->state == KLAW_FIBER_RUNNABLE && klawi_cur_peek(rt->workers[i]) == &f->host) {
            o->state = KLAW_FIBER_RUNNING;
            o->worker = (int32_t)i;
        }
}

static size_t fibers_fill(void *out, size_t max) {
    struct fill fl = {out, max, 0};
    klawi_fibers_each(fill_fiber, &fl);
    return fl.n;
}

static void count_scope(klaw_scope *s, void *user) {
    (void)s;
    ++*(size_t *)user;
}

static size_t scopes_count(void) {
    size_t n = 0;
    klawi_scopes_each(count_scope, &n);
    return n;
}

static void fill_scope(klaw_scope *s, void *user) {
    struct fill *fl = user;
    if (fl->n++ >= fl->max)
        return;
    klaw_scope_info *o = (klaw_scope_info *)(void *)fl->out + (fl->n - 1);
    memset(o, 0, sizeof *o);
    o->id = s->id;
    o->parent_id = s->parent_id;
    o->live = s->live;
    o->deadline = s->deadline == KLAW_FOREVER ? 0 : s->deadline;
    o->cancelled = atomic_load_explicit(&s->cancelled, memory_order_relaxed);
    o->shield = s->shield;
    snprintf(o->name, sizeof o->name, "%s", s->name);
    if (o->cancelled)
        snprintf(o->reason, sizeof o->reason, "%s", s->reason);
}

static size_t scopes_fill(void *out, size_t max) {
    struct fill fl = {out, max, 0};
    klawi_scopes_each(fill_scope, &fl);
    return fl.n;
}

static size_t workers_count(void) {
    return klaw_run_workers();
}

/* Descriptors are type-stable: a fiber that has ended meanwhile is only not LIVE any more. */
static uint64_t running_on(klawi_worker *w) {
    klawi_host *h = klawi_cur_peek(w);
    if (!h || h->kind != KLAWI_FIBER)
        return 0;
    klaw_fiber *f = klawi_fiber_of(h);
    klawi_lock_acquire(&f->join_lock);
    uint64_t id = atomic_load_explicit(&f->state, memory_order_acquire) == KLAWI_F_LIVE ? f->id : 0;
    klawi_lock_release(&f->join_lock);
    return id;
}

static size_t workers_fill(void *out, size_t max) {
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    uint32_t n = rt ? rt->nworkers : 0;
    klaw_worker_info *o = out;
    for (uint32_t i = 0; i < n && i < max; i++, o++) {
        klawi_worker *w = rt->workers[i];
        uint32_t head = atomic_load_explicit(&w->head, memory_order_relaxed);
        memset(o, 0, sizeof *o);
        o->index = (int32_t)i;
        o->turns = atomic_load_explicit(&w->turns, memory_order_relaxed);
        o->steals = atomic_load_explicit(&w->steals, memory_order_relaxed);
        o->parks = atomic_load_explicit(&w->parks, memory_order_relaxed);
        uint32_t len = atomic_load_explicit(&w->tail, memory_order_relaxed) - head;
        o->queue_length = (len > KLAWI_RUNQ ? 0 : len) +
                          (atomic_load_explicit(&w->slot, memory_order_relaxed) != NULL);
        uint32_t state = atomic_load_explicit(&w->state, memory_order_relaxed);
        o->sleeping = state == KLAWI_W_SLEEPING || state == KLAWI_W_POLLING;
        o->fiber_id = o->sleeping ? 0 : running_on(w);
    }
    return n;
}

static const struct klawi_inspect_provider fibers = {"fiber", fibers_count, fibers_fill,
                                                     sizeof(klaw_fiber_info), NULL};
static const struct klawi_inspect_provider scopes = {"scope", scopes_count, scopes_fill,
                                                     sizeof(klaw_scope_info), NULL};
static const struct klawi_inspect_provider workers = {"worker", workers_count, workers_fill,
                                                      sizeof(klaw_worker_info), NULL};

void klawi_inspect_sched(void) {
    klawi_inspect_provide(&fibers);
    klawi_inspect_provide(&scopes);
    klawi_inspect_provide(&workers);
}
