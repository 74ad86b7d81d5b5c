/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.c - supervisors as others see them: opened, asked, waited for, looked at.
 *
 * What changes something is a request that the keeper carries out (supervisor_keeper.c); what only looks
 * reads, under the lock, what the keeper has written there.
 *
 * Invariants under s->lock:
 *   E1  names: every kid of s->kids is in the bucket of its name, and nobody else.
 *   E2  a request is linked only until it is answered; none is linked once s->finished is set and the
 *       keeper has answered the last ones.
 *
 * An open supervisor is held by its handle, by its keeper, by the fiber that stands for it in the
 * opener's scope, and by each run. */
#include <stdio.h>
#include <string.h>

#include "actor/supervisor.h"
#include "base/alloc.h"

static klawi_lock registry_lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link registry = {&registry, &registry};
static _Atomic uint64_t next_id = 1;

uint64_t klawi_supervisor_number(void) {
    return atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
}

const char *klaw_child_kind_name(klaw_child_kind kind) {
    static const char *const names[] = {"fiber", "actor", "supervisor", "process"};
    return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

const char *klaw_child_state_name(klaw_child_state state) {
    static const char *const names[] = {"stopped",  "starting", "running",
                                        "stopping", "killing",  "backoff"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "?";
}

/* --- waiting --- */
void klawi_supervisor_claim(klawi_waitq *q, klawi_wakes *wakes) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = next) {
        next = klawi_waitq_next(q, w);
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        w->host->result = KLAW_OK;
        klawi_wakes_add(wakes, w);
    }
}

klaw_err klawi_supervisor_await(klaw_supervisor *s, klawi_waitq *q, const bool *flag,
                                klaw_deadline deadline, bool shielded) {
    klaw_err e = KLAW_OK;
    int64_t at = KLAW_FOREVER;
    bool resolved = shielded;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    for (;;) {
        klawi_lock_acquire(&s->lock);
        bool set = *flag;
        klawi_lock_release(&s->lock);
        if (set)
            return KLAW_OK;
        if (!resolved && (e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &at)) != KLAW_OK)
            return e;
        resolved = true;
        klawi_host_waits(h, KLAWI_WAIT_JOIN, 0);
        klawi_waiter_fill(&h->waiter, h, &s->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_lock_acquire(&s->lock);
        if (*flag) {
            klawi_lock_release(&s->lock);
            return KLAW_OK;
        }
        klawi_waitq_push(q, &h->waiter);
        if (shielded)
            klawi_park_shielded(h, &h->waiter, &s->lock);
        else if ((e = klawi_park(h, &h->waiter, &s->lock, at)) != KLAW_OK)
            return e;
    }
}

/* The keeper, in a hook: it can't wait for itself. */
static bool inside(klaw_supervisor *s) {
    uint64_t id = klaw_self_id();
    klawi_lock_acquire(&s->lock);
    bool is = id != 0 && s->keeper_id == id;
    klawi_lock_release(&s->lock);
    return is;
}

/* --- kids and their table --- */
static uint32_t hash(const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

klawi_kid *klawi_kid_find(const klaw_supervisor *s, const char *name) {
    klawi_kid *k = s->buckets ? s->names[hash(name) & (s->buckets - 1)] : NULL;
    while (k && strcmp(k->name, name) != 0)
        k = k->chain;
    return k;
}

klawi_kid *klawi_kid_new(klaw_supervisor *s, klawi_def *d, const char *name) {
    klawi_kid *k = klawi_calloc(1, sizeof *k);
    if (!k)
        return NULL;
    atomic_init(&k->refs, 1);
    k->sup = s;
    k->def = klawi_def_ref(d);
    k->arg = d->arg;
    snprintf(k->name, sizeof k->name, "%s", name);
    return k;
}

void klawi_kid_unref(klawi_kid *k) {
    /* acq_rel: the last one sees what the others did. */
    if (atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_actor_unref(k->actor);
    if (k->own_arg && k->def->drop && atomic_load_explicit(&k->adopted, memory_order_relaxed))
        k->def->drop(k->arg);
    klawi_free(k->argv);
    klawi_def_unref(k->def);
    klawi_free(k);
}

/* Room for one more number and one more name. */
static klaw_err make_room(klaw_supervisor *s) {
    if (s->numbers + 1 >= s->numbers_cap) {
        uint32_t cap = s->numbers_cap ? s->numbers_cap * 2 : 8;
        klawi_kid **more = klawi_realloc(s->by_number, cap * sizeof(klawi_kid *));
        if (!more)
            return KLAW_NOMEM;
        s->by_number = more;
        s->numbers_cap = cap;
    }
    if (s->count < s->buckets)
        return KLAW_OK;
    uint32_t n = s->buckets ? s->buckets * 2 : 8;
    klawi_kid **names = klawi_calloc(n, sizeof(klawi_kid *));
    if (!names)
        return KLAW_NOMEM;
    klawi_lock_acquire(&s->lock);
    klawi_kid **old = s->names;
    for (klawi_link *l = s->kids.next; l != &s->kids; l = l->next) {
        klawi_kid *k = KLAWI_CONTAINER(l, klawi_kid, order), **b = &names[hash(k->name) & (n - 1)];
        k->chain = *b;
        *b = k;
    }
    s->names = names;
    s->buckets = n;
    klawi_lock_release(&s->lock);
    klawi_free(old);
    return KLAW_OK;
}

klaw_err klawi_kid_enter(klaw_supervisor *s, klawi_kid *k) {
    if (klawi_kid_find(s, k->name))
        return KLAW_EXISTS;
    klaw_err e = make_room(s);
    if (!e)
        e = klaw_supervision_add(s->machine, &k->def->policy, &k->number);
    if (e)
        return e;
    if (k->number >= s->numbers)
        s->numbers = k->number + 1;
    s->by_number[k->number] = k;
    klawi_lock_acquire(&s->lock);
    k->state = klaw_supervision_state(s->machine, k->number);
    klawi_kid **b = &s->names[hash(k->name) & (s->buckets - 1)];
    k->chain = *b;
    *b = k;
    klawi_link_push(&s->kids, &k->order);
    s->count++;
    klawi_lock_release(&s->lock);
    return KLAW_OK;
}

void klawi_kid_leave(klaw_supervisor *s, klawi_kid *k) {
    klawi_lock_acquire(&s->lock);
    klawi_kid **b = &s->names[hash(k->name) & (s->buckets - 1)];
    while (*b != k)
        b = &(*b)->chain;
    *b = k->chain;
    klawi_link_remove(&k->order);
    s->count--;
    klawi_lock_release(&s->lock);
}

/* --- life --- */
static void destroy(klaw_supervisor *s) {
    while (!klawi_link_empty(&s->kids)) { /* it never ran */
        klawi_kid *k = KLAWI_CONTAINER(s->kids.next, klawi_kid, order);
        klawi_kid_leave(s, k);
        klawi_kid_unref(k);
    }
    klawi_lock_acquire(&registry_lock);
    klawi_link_remove(&s->all);
    klawi_lock_release(&registry_lock);
    klaw_supervision_free(s->machine);
    klawi_free(s->by_number);
    klawi_free(s->names);
    if (s->template_)
        klawi_def_unref(s->template_);
    if (s->parent)
        klawi_run_unref(s->parent);
    klawi_free(s);
}

klaw_supervisor *klaw_supervisor_ref(klaw_supervisor *s) {
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void klaw_supervisor_unref(klaw_supervisor *s) {
    /* acq_rel: the last one sees what the others did. */
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        destroy(s);
}

static klaw_err fill(klaw_supervisor *s, klawi_def *const *defs, size_t n) {
    if (s->opts.policy.strategy == KLAW_DYNAMIC) {
        s->template_ = klawi_def_ref(defs[0]);
        return KLAW_OK;
    }
    for (size_t i = 0; i < n; i++) {
        klawi_kid *k = klawi_kid_new(s, defs[i], defs[i]->name);
        klaw_err e = k ? klawi_kid_enter(s, k) : KLAW_NOMEM;
        if (e) {
            memcpy(s->fail_child, defs[i]->name, sizeof s->fail_child);
            if (k)
                klawi_kid_unref(k);
            return e;
        }
    }
    return KLAW_OK;
}

klaw_err klawi_supervisor_new(const klaw_supervisor_opts *o, klawi_def *const *defs, size_t n,
                              klawi_run *parent, klaw_supervisor **out) {
    klaw_supervisor *s = klawi_calloc(1, sizeof *s);
    if (!s)
        return KLAW_NOMEM;
    klawi_lock_init(&s->lock, KLAWI_RANK_SUPERVISOR);
    atomic_init(&s->refs, 1);
    s->id = klawi_supervisor_number();
    s->opts = *o;
    klawi_link_init(&s->runs);
    klawi_link_init(&s->requests);
    klawi_link_init(&s->keeper);
    klawi_link_init(&s->begun_waiters);
    klawi_link_init(&s->finished_waiters);
    klawi_link_init(&s->kids);
    klawi_link_init(&s->dying);
    klaw_err e = klawi_child_name(o->name, "supervisor", s->name);
    s->opts.name = s->name;
    if (!e)
        e = klaw_supervision_new(&o->policy, &s->machine);
    klawi_lock_acquire(&registry_lock);
    klawi_link_push(&registry, &s->all);
    klawi_lock_release(&registry_lock);
    if (!e)
        e = fill(s, defs, n);
    if (!e && parent) {
        s->parent = parent;
        atomic_fetch_add_explicit(&parent->refs, 1, memory_order_relaxed);
    }
    if (e) {
        klaw_supervisor_unref(s);
        return e;
    }
    *out = s;
    return KLAW_OK;
}

void klawi_supervisors_each(void (*visit)(klaw_supervisor *s, void *user), void *user) {
    klawi_lock_acquire(&registry_lock);
    for (klawi_link *l = registry.next; l != &registry; l = l->next) {
        klaw_supervisor *s = KLAWI_CONTAINER(l, klaw_supervisor, all);
        klawi_lock_acquire(&s->lock);
        if (!s->finished)
            visit(s, user);
        klawi_lock_release(&s->lock);
    }
    klawi_lock_release(&registry_lock);
}

void klawi_supervisor_want(klaw_supervisor *s, bool force) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    s->want_stop = true;
    s->want_force |= force;
    klawi_supervisor_claim(&s->keeper, &wakes);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
}

/* What the opener's scope sees of it. */
static klaw_err stand(void *arg) {
    klaw_supervisor *s = arg;
    klaw_err e = klawi_supervisor_await(s, &s->finished_waiters, &s->finished, KLAW_FOREVER, false);
    if (e) {
        klawi_supervisor_want(s, false);
        (void)klawi_supervisor_await(s, &s->finished_waiters, &s->finished, KLAW_FOREVER, true);
    }
    if (s->begun && s->why) /* else the opener is told */
        e = s->why;
    klaw_supervisor_unref(s);
    return e;
}

/* It will not run: as if it had finished. */
static void stillborn(klaw_supervisor *s) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    s->finished = s->settled = true;
    klawi_supervisor_claim(&s->finished_waiters, &wakes);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
}

static klaw_err launch(klaw_supervisor *s) {
    klaw_scope *root = klawi_root_ref();
    klaw_fiber_opts fo = {.name = s->name};
    if (!root)
        return KLAW_STOPPED;
    klaw_err e = klaw_spawn(NULL, stand, klaw_supervisor_ref(s), &fo, NULL);
    if (e) {
        klaw_supervisor_unref(s);
    } else {
        e = klaw_spawn(root, klawi_supervisor_keep, klaw_supervisor_ref(s), &fo, NULL);
        if (e) {
            klaw_supervisor_unref(s);
            stillborn(s);
        }
    }
    klaw_scope_unref(root);
    return e;
}

static void tell_why(klaw_error_info *info, const char *child, const char *detail, int sys,
                     klaw_err e) {
    if (!info)
        return;
    info->sys = sys;
    if (child[0])
        snprintf(info->message, sizeof info->message, "child '%s': %s", child,
                 detail[0] ? detail : klaw_err_text(e));
    else
        snprintf(info->message, sizeof info->message, "%s", detail[0] ? detail : klaw_err_text(e));
}

/* Until all children run, or none does. */
static klaw_err open_wait(klaw_supervisor *s, klaw_error_info *info) {
    klaw_err e = klawi_supervisor_await(s, &s->begun_waiters, &s->settled, KLAW_FOREVER, false);
    if (e) {
        klawi_supervisor_want(s, false);
        (void)klawi_supervisor_await(s, &s->finished_waiters, &s->finished, KLAW_FOREVER, true);
        return e;
    }
    klawi_lock_acquire(&s->lock);
    bool begun = s->begun;
    e = begun ? KLAW_OK : s->why ? s->why : KLAW_STOPPED;
    klawi_lock_release(&s->lock);
    if (e)
        tell_why(info, s->fail_child, s->fail_detail, s->fail_sys, e);
    return e;
}

klaw_err klaw_supervisor_open_sized(const klaw_supervisor_opts *opts, size_t opts_size,
                                    const klaw_child_spec *children, size_t child_size, size_t n,
                                    klaw_supervisor **out, klaw_error_info *info) {
    klaw_supervisor_opts o = {0};
    klawi_def **defs;
    klaw_supervisor *s = NULL;
    if (info)
        memset(info, 0, sizeof *info);
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    bool dynamic = o.policy.strategy == KLAW_DYNAMIC;
    if (!out || (!children && n) || (dynamic && n != 1))
        return KLAW_INVALID;
    klaw_err e = klawi_defs_new(children, child_size, n, 0, dynamic, &defs);
    if (e)
        return e;
    e = klawi_supervisor_new(&o, defs, n, NULL, &s);
    if (!e)
        e = launch(s);
    if (!e)
        e = open_wait(s, info);
    for (size_t i = 0; i < n && !e; i++)
        klawi_def_adopt(defs[i]);
    klawi_defs_free(defs, n);
    if (e)
        klaw_supervisor_unref(s);
    else
        *out = s;
    return e;
}

/* --- requests --- */
void klawi_request_unref(klawi_request *q) {
    /* acq_rel: the last one sees what the other did. */
    if (atomic_fetch_sub_explicit(&q->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (q->kid)
        klawi_kid_unref(q->kid);
    klawi_free(q);
}

static klawi_request *request_new(uint8_t kind) {
    klawi_request *q = klawi_calloc(1, sizeof *q);
    if (!q)
        return NULL;
    atomic_init(&q->refs, 2);
    q->kind = kind;
    klawi_link_init(&q->waiters);
    return q;
}

/* Gives it to the keeper. STOPPED: nobody will look at it. */
static klaw_err post(klaw_supervisor *s, klawi_request *q) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    bool finished = s->finished && !KLAWI_MUTANT(E2_POST_FINISHED);
    if (!finished) {
        klawi_link_push(&s->requests, &q->inbox);
        klawi_supervisor_claim(&s->keeper, &wakes);
    }
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    return finished ? KLAW_STOPPED : KLAW_OK;
}

/* The asker of a START leaves with `e`. OK: it is answered already. Else `e`, and nothing is left. */
static klaw_err leave_start(klaw_supervisor *s, klawi_request *q, klaw_err e, bool *answered) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    bool unseen = q->inbox.next != NULL && !q->done;
    if (unseen) {
        klawi_link_remove(&q->inbox);
    } else if (!q->done) {
        q->withdrawn = true;
        klawi_link_push(&s->requests, &q->inbox);
        klawi_supervisor_claim(&s->keeper, &wakes);
    }
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    if (unseen) {
        klawi_request_unref(q); /* the keeper's */
        return e;
    }
    (void)klawi_supervisor_await(s, &q->waiters, &q->done, KLAW_FOREVER, true);
    *answered = true;
    return q->result == KLAW_CANCELLED ? e : q->result;
}

/* Posts q, waits for its answer, gives the asker's reference up. */
static klaw_err ask(klaw_supervisor *s, klawi_request *q, klaw_deadline deadline,
                    klaw_error_info *info) {
    klaw_err e = post(s, q);
    if (e) {
        klawi_request_unref(q);
        klawi_request_unref(q);
        return e;
    }
    e = klawi_supervisor_await(s, &q->waiters, &q->done, deadline, false);
    bool answered = e == KLAW_OK; /* else the keeper may be writing right now */
    if (e == KLAW_EMPTY)
        e = KLAW_TIMEOUT;
    if (answered)
        e = q->result;
    else if (q->kind == KLAWI_REQ_START)
        e = leave_start(s, q, e, &answered);
    if (e && answered && q->kind != KLAWI_REQ_STOP)
        tell_why(info, q->kid ? q->kid->name : q->name, q->detail, q->sys, e);
    if (!e && q->kind == KLAWI_REQ_START) { /* before the references go */
        if (q->kid->own_arg)
            atomic_store_explicit(&q->kid->adopted, true, memory_order_relaxed);
        else
            klawi_def_adopt(q->kid->def);
    }
    klawi_request_unref(q);
    return e;
}

static klaw_err ask_start(klaw_supervisor *s, klawi_kid *k, bool make_name, klaw_deadline deadline,
                          klaw_error_info *info) {
    klawi_request *q = request_new(KLAWI_REQ_START);
    if (!q) {
        klawi_kid_unref(k);
        return KLAW_NOMEM;
    }
    q->kid = k;
    q->make_name = make_name;
    return ask(s, q, deadline, info);
}

klaw_err klaw_supervisor_start_child_sized(klaw_supervisor *s, const klaw_child_spec *spec,
                                           size_t spec_size, klaw_deadline deadline,
                                           klaw_error_info *info) {
    klawi_def *d;
    if (info)
        memset(info, 0, sizeof *info);
    if (!s || !spec || s->template_ || inside(s))
        return KLAW_INVALID;
    klaw_err e = klawi_def_new(spec, spec_size, 0, false, &d);
    if (e)
        return e;
    klawi_kid *k = klawi_kid_new(s, d, d->name);
    klawi_def_unref(d);
    return k ? ask_start(s, k, false, deadline, info) : KLAW_NOMEM;
}

klaw_err klaw_supervisor_start_dynamic(klaw_supervisor *s, const char *name, void *arg,
                                       klaw_deadline deadline, klaw_error_info *info) {
    char text[KLAWI_CHILD_NAME];
    if (info)
        memset(info, 0, sizeof *info);
    if (!s || !s->template_ || inside(s))
        return KLAW_INVALID;
    klaw_err e = klawi_child_name(name, s->template_->name, text);
    klawi_kid *k = e ? NULL : klawi_kid_new(s, s->template_, text);
    if (!e && !k)
        e = KLAW_NOMEM;
    if (!e && s->template_->kind == KLAW_CHILD_PROCESS) {
        e = klawi_strings_copy(arg, &k->argv);
    } else if (!e) {
        k->arg = arg;
        k->own_arg = true;
    }
    if (e) {
        if (k)
            klawi_kid_unref(k);
        return e;
    }
    return ask_start(s, k, name == NULL, deadline, info);
}

static klaw_err ask_name(klaw_supervisor *s, uint8_t kind, const char *name,
                         klaw_deadline deadline) {
    char text[KLAWI_CHILD_NAME];
    if (!s || !name || inside(s))
        return KLAW_INVALID;
    if (klawi_child_name(name, "", text) != KLAW_OK)
        return KLAW_NOT_FOUND;
    klawi_request *q = request_new(kind);
    if (!q)
        return KLAW_NOMEM;
    memcpy(q->name, text, sizeof q->name);
    return ask(s, q, deadline, NULL);
}

klaw_err klaw_supervisor_stop_child(klaw_supervisor *s, const char *name, klaw_deadline deadline) {
    return ask_name(s, KLAWI_REQ_STOP, name, deadline);
}
klaw_err klaw_supervisor_restart_child(klaw_supervisor *s, const char *name,
                                       klaw_deadline deadline) {
    return ask_name(s, KLAWI_REQ_RESTART, name, deadline);
}
klaw_err klaw_supervisor_delete_child(klaw_supervisor *s, const char *name,
                                      klaw_deadline deadline) {
    return ask_name(s, KLAWI_REQ_DELETE, name, deadline);
}

klaw_err klaw_supervisor_stop(klaw_supervisor *s, klaw_deadline deadline) {
    if (!s || inside(s))
        return KLAW_INVALID;
    klawi_supervisor_want(s, false);
    klaw_err e = klawi_supervisor_await(s, &s->finished_waiters, &s->finished, deadline, false);
    return e == KLAW_EMPTY ? KLAW_TIMEOUT : e;
}

klaw_err klaw_supervisor_join(klaw_supervisor *s, klaw_deadline deadline, klaw_err *why) {
    if (!s || inside(s))
        return KLAW_INVALID;
    klaw_err e = klawi_supervisor_await(s, &s->finished_waiters, &s->finished, deadline, false);
    if (!e && why)
        *why = s->why;
    return e;
}
