/* SPDX-License-Identifier: Apache-2.0 */
/* scope.c - structured concurrency: membership, cancellation, deadlines, shields.
 *
 * A scope has members (fibers spawned into it) and children (scopes opened inside it). A host's
 * CANCEL bit always mirrors the innermost scope it is in: its own scope while it has none open
 * (KLAWI_FS_INNER clear), else the innermost open one. So a shield is nothing but a scope that does
 * not inherit, and leaving any scope makes the bit mirror the outer one again.
 *
 * Invariants under s->lock:
 *   C1  cancelled is set once, after the reason; it never goes back.
 *   C2  a member without INNER has CANCEL set if the scope is cancelled (or it was cancelled
 *       itself).
 *   C3  a child that is not a shield is cancelled, or is on the work list of a canceller, if the
 *       scope is.
 *   C4  owner != NULL && inner == NULL: the owner's CANCEL bit is this scope's business.
 *   C5  live == number of members; drained waits only while live > 0.
 *
 * Cancelling (P7): under the lock set the flag and claim the members' waits by one compare-and-swap
 * each, chaining the claimed ones through their own `next` (they can't run, so it is free); after
 * the lock finish each (P6). Children go to a work list, one reference each: no recursion, however
 * deep the tree. A scope is on one work list at most, that of the one canceller of its parent.
 *
 * Lock order: a parent's and a child's lock are never held together, nor a scope's and a channel's.
 *
 * Rejected: a walk at each wait up the chain of scopes (cost on the fast path); cancellation as a
 * message (level-triggered needs state). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "sched/context.h"
#include "sched/sched.h"

static klawi_lock registry_lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link registry = {&registry, &registry};
static _Atomic uint64_t next_id = 1;

static void scope_check(klaw_scope *s) {
#if defined(KLAWI_DEBUG)
    KLAWI_ASSERT((s->live == 0) == klawi_link_empty(&s->members)); /* C5 */
    /* One that has timed out may still hang there until its claimer unlinks it (H1). */
    for (klawi_waiter *w = klawi_waitq_first(&s->drained); w && s->live == 0;
         w = klawi_waitq_next(&s->drained, w))
        KLAWI_ASSERT((atomic_load_explicit(&w->host->word, memory_order_relaxed) &
                      ~(KLAWI_CANCEL | KLAWI_SHIELD)) != (w->epoch | KLAWI_ARMED));
    if (s->cancelled)
        KLAWI_ASSERT(s->reason[0] != '\0'); /* C1 */
#else
    (void)s;
#endif
}

static klawi_host *owner_of(klaw_scope *s) {
    return atomic_load_explicit(&s->owner, memory_order_relaxed);
}

static void unref(klaw_scope *s) {
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    klawi_context_unref(s->context);
    klawi_free(s);
}

static void on_deadline(void *arg);

klaw_err klawi_scope_new(const klaw_scope_opts *o, klaw_scope **out) {
    klaw_scope *s = klawi_calloc(1, sizeof *s);
    if (!s)
        return KLAW_NOMEM;
    klawi_lock_init(&s->lock, KLAWI_RANK_SCOPE);
    atomic_init(&s->refs, 1);
    s->shield = o->shield;
    s->cancel_on_error = o->cancel_on_error;
    klawi_link_init(&s->members);
    klawi_link_init(&s->children);
    klawi_link_init(&s->drained);
    klawi_link_init(&s->watchers);
    s->timer.fn = on_deadline;
    s->timer.key = (uintptr_t)s;
    s->deadline = KLAW_FOREVER;
    s->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    snprintf(s->name, sizeof s->name, "%s", o->name ? o->name : "scope");
    klawi_lock_acquire(&registry_lock);
    klawi_link_push(&registry, &s->live_scopes);
    klawi_lock_release(&registry_lock);
    *out = s;
    return KLAW_OK;
}

void klawi_scope_retire(klaw_scope *s) {
    klawi_lock_acquire(&registry_lock);
    klawi_link_remove(&s->live_scopes);
    klawi_lock_release(&registry_lock);
    unref(s);
}

void klawi_scopes_each(void (*visit)(klaw_scope *s, void *user), void *user) {
    klawi_lock_acquire(&registry_lock);
    for (klawi_link *l = registry.next; l != &registry; l = l->next) {
        klaw_scope *s = KLAWI_CONTAINER(l, klaw_scope, live_scopes);
        klawi_lock_acquire(&s->lock);
        visit(s, user);
        klawi_lock_release(&s->lock);
    }
    klawi_lock_release(&registry_lock);
}

/* --- the current scope --- */
static klaw_scope **inner_of(klawi_host *h) {
    return h->kind == KLAWI_FIBER ? &klawi_fiber_of(h)->inner : &klawi_thread_of(h)->inner;
}

klaw_scope *klawi_scope_of(klawi_ctx *c) {
    klawi_host *h = c ? klawi_cur(c) : NULL;
    if (!h || (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD))
        return NULL;
    klaw_scope *s = *inner_of(h);
    return s ? s : h->kind == KLAWI_FIBER ? klawi_fiber_of(h)->scope : NULL;
}

klaw_scope *klaw_scope_current(void) {
    return klawi_scope_of(klawi_ctx_get());
}

/* --- membership --- */
klaw_err klawi_scope_join(klaw_scope *s, klaw_fiber *f) {
    klawi_lock_acquire(&s->lock);
    if (s->closed) {
        klawi_lock_release(&s->lock);
        return KLAW_STOPPED;
    }
    klawi_link_push(&s->members, &f->member);
    s->live++;
    if (atomic_load_explicit(&s->cancelled, memory_order_relaxed) && !KLAWI_MUTANT(P7_SPAWN_UNSEEN))
        atomic_fetch_or_explicit(&f->host.word, KLAWI_CANCEL, memory_order_relaxed);
    scope_check(s);
    klawi_lock_release(&s->lock);
    return KLAW_OK;
}

/* Claims everyone in q; they are readied after the unlock. */
static void claim_all(klawi_waitq *q, klawi_wakes *wakes, klaw_err result) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = next) {
        next = klawi_waitq_next(q, w);
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        w->host->result = (int32_t)result;
        w->host->chosen = w->index;
        klawi_wakes_add(wakes, w);
    }
}

static void cancel(klaw_scope *s, const char *reason, bool timed_out);

void klawi_scope_failed(klaw_fiber *f, klaw_err result) {
    klaw_scope *s = f->scope;
    if (KLAWI_LIKELY(result == KLAW_OK || result == KLAW_CANCELLED))
        return;
    klawi_lock_acquire(&s->lock);
    bool cancels = !s->error && s->cancel_on_error;
    if (!s->error)
        s->error = (int32_t)result;
    klawi_lock_release(&s->lock);
    if (cancels) {
        char text[64];
        snprintf(text, sizeof text, "error: %s in fiber %.30s", klaw_err_name(result) + 5,
                 klawi_fiber_name(f));
        cancel(s, text, false);
    }
}

void klawi_scope_exit(klaw_fiber *f, klawi_wakes *wakes, klawi_scope_end *end) {
    klaw_scope *s = f->scope;
    klawi_lock_acquire(&s->lock);
    klawi_link_remove(&f->member);
    end->on_empty = NULL;
    if (--s->live == 0) {
        claim_all(&s->drained, wakes, KLAW_OK);
        end->on_empty = s->on_empty;
        end->arg = s->on_empty_arg;
    }
    scope_check(s);
    klawi_lock_release(&s->lock);
}

bool klawi_scope_shut(klaw_scope *s) {
    klawi_lock_acquire(&s->lock);
    bool empty = s->live == 0 && s->guests == 0;
    if (empty)
        s->closed = true;
    klawi_lock_release(&s->lock);
    return empty;
}

/* --- cancelling --- */
/* The claimed hosts hang on *chain by `next`; threads have no such field, so each scope has at most
 * one: its owner. */
static void cancel_host(klawi_host *h, klaw_fiber **chain, klawi_host **thread) {
    if (!klawi_cancel_claim(h))
        return;
    if (h->kind == KLAWI_FIBER) {
        klawi_fiber_of(h)->next = *chain;
        *chain = klawi_fiber_of(h);
    } else {
        *thread = h;
    }
}

static klaw_scope *cancel_one(klaw_scope *s, const char *reason, bool timed_out, klaw_scope *work) {
    klaw_fiber *chain = NULL;
    klawi_host *thread = NULL;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    if (!atomic_load_explicit(&s->cancelled, memory_order_relaxed)) {
        snprintf(s->reason, sizeof s->reason, "%s", reason);
        s->timed_out = timed_out;
        atomic_store_explicit(&s->cancelled, true, memory_order_release);
        for (klawi_link *l = s->members.next; l != &s->members; l = l->next) {
            klaw_fiber *f = KLAWI_CONTAINER(l, klaw_fiber, member);
            if (!(f->governed & KLAWI_FS_INNER))
                cancel_host(&f->host, &chain, &thread);
        }
        klawi_host *owner = owner_of(s);
        if (owner && !s->inner)
            cancel_host(owner, &chain, &thread); /* C4 */
        for (klawi_link *l = s->children.next; l != &s->children; l = l->next) {
            klaw_scope *child = KLAWI_CONTAINER(l, klaw_scope, sibling);
            if (child->shield)
                continue;
            atomic_fetch_add_explicit(&child->refs, 1, memory_order_relaxed);
            child->work = work;
            work = child;
        }
        claim_all(&s->watchers, &wakes, KLAW_OK);
    }
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    if (thread)
        klawi_finish_claimed(thread, KLAW_CANCELLED);
    for (klaw_fiber *next; chain; chain = next) {
        next = chain->next;
        klawi_finish_claimed(&chain->host, KLAW_CANCELLED);
    }
    return work;
}

static void cancel(klaw_scope *s, const char *reason, bool timed_out) {
    klaw_scope *work = cancel_one(s, reason, timed_out, NULL);
    while (work) {
        klaw_scope *child = work;
        work = child->work;
        work = cancel_one(child, reason, false, work);
        unref(child);
    }
}

void klaw_scope_cancel(klaw_scope *s, const char *reason) {
    if (s)
        cancel(s, reason && *reason ? reason : "cancelled", false);
}

static void on_deadline(void *arg) {
    cancel(arg, "deadline", true);
}

void klawi_scope_cancel_member(klaw_fiber *f) {
    klaw_scope *s = f->scope, *inner = NULL;
    klaw_fiber *chain = NULL;
    klawi_host *thread = NULL;
    klawi_lock_acquire(&s->lock);
    if (atomic_load_explicit(&f->state, memory_order_acquire) == KLAWI_F_LIVE) {
        f->governed |= KLAWI_FS_CANCELLED;
        if (!(f->governed & KLAWI_FS_INNER))
            cancel_host(&f->host, &chain, &thread);
        for (klawi_link *l = s->children.next; l != &s->children && !inner; l = l->next) {
            klaw_scope *child = KLAWI_CONTAINER(l, klaw_scope, sibling);
            if (owner_of(child) == &f->host && !child->shield)
                inner = child;
        }
        if (inner)
            atomic_fetch_add_explicit(&inner->refs, 1, memory_order_relaxed);
    }
    klawi_lock_release(&s->lock);
    if (chain)
        klawi_finish_claimed(&chain->host, KLAW_CANCELLED);
    if (inner) {
        cancel(inner, "fiber cancelled", false);
        unref(inner);
    }
}

/* --- opening and closing --- */
static void mirror(klawi_host *h, bool cancelled) {
    if (cancelled)
        atomic_fetch_or_explicit(&h->word, KLAWI_CANCEL, memory_order_acq_rel);
    else
        klawi_cancel_clear(h);
}

void klawi_scope_revive(klaw_fiber *f) {
    klaw_scope *s = f->scope;
    klawi_lock_acquire(&s->lock);
    KLAWI_ASSERT(!(f->governed & KLAWI_FS_INNER));
    f->governed &= (uint8_t)~KLAWI_FS_CANCELLED;
    mirror(&f->host, atomic_load_explicit(&s->cancelled, memory_order_relaxed)); /* C2 */
    klawi_lock_release(&s->lock);
}

/* Makes s the innermost scope of h, inside p. */
static void enter(klaw_scope *s, klawi_host *h, klaw_scope *p) {
    atomic_store_explicit(&s->owner, h, memory_order_relaxed);
    klawi_lock_acquire(&s->lock);
    s->parent = p;
    s->parent_id = p->id;
    klawi_lock_release(&s->lock);
    klawi_lock_acquire(&p->lock);
    klawi_link_push(&p->children, &s->sibling);
    bool inherited = !s->shield && atomic_load_explicit(&p->cancelled, memory_order_relaxed);
    if (h->kind == KLAWI_FIBER && klawi_fiber_of(h)->scope == p) {
        klawi_fiber_of(h)->governed |= KLAWI_FS_INNER;
        inherited |= !s->shield && (klawi_fiber_of(h)->governed & KLAWI_FS_CANCELLED) != 0;
    } else if (owner_of(p) == h) {
        p->inner = s;
    }
    if (inherited) {
        snprintf(s->reason, sizeof s->reason, "%s", p->reason[0] ? p->reason : "fiber cancelled");
        atomic_store_explicit(&s->cancelled, true, memory_order_release);
    }
    mirror(h, inherited);
    klawi_lock_release(&p->lock);
    *inner_of(h) = s;
}

/* Leaves s: the bit mirrors the scope around it again. */
static void leave(klaw_scope *s, klawi_host *h) {
    klaw_scope *p = s->parent;
    klawi_lock_acquire(&s->lock);
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    klawi_lock_release(&s->lock);
    klawi_lock_acquire(&p->lock);
    klawi_link_remove(&s->sibling);
    bool outer = atomic_load_explicit(&p->cancelled, memory_order_relaxed);
    klaw_scope *now = p;
    if (h->kind == KLAWI_FIBER && klawi_fiber_of(h)->scope == p) {
        klawi_fiber_of(h)->governed &= (uint8_t)~KLAWI_FS_INNER;
        outer |= (klawi_fiber_of(h)->governed & KLAWI_FS_CANCELLED) != 0;
        now = NULL;
    } else if (owner_of(p) == h) {
        p->inner = NULL;
    } else {
        outer = false; /* a thread inside the root scope: nobody cancels it */
        now = NULL;
    }
    if (!KLAWI_MUTANT(P7_NO_MIRROR))
        mirror(h, outer);
    klawi_lock_release(&p->lock);
    *inner_of(h) = now;
}

/* A thread opens a scope in the root scope: the run does not end before it is closed. False: it has
 * ended. */
static bool guest_enter(klaw_scope *root) {
    klawi_lock_acquire(&root->lock);
    bool open = !root->closed;
    root->guests += open;
    klawi_lock_release(&root->lock);
    return open;
}

static void guest_leave(klaw_scope *root) {
    klawi_lock_acquire(&root->lock);
    bool empty = --root->guests == 0 && root->live == 0;
    klawi_lock_release(&root->lock);
    if (empty)
        root->on_empty(root->on_empty_arg);
    unref(root);
}

klaw_err klaw_scope_open_sized(const klaw_scope_opts *opts, size_t opts_size, klaw_scope **out) {
    klaw_scope_opts o = {0};
    klaw_err e = KLAW_OK;
    if (!out)
        return KLAW_INVALID;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (o.shield && o.deadline == 0)
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    if (!rt)
        return KLAW_STOPPED;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    klaw_scope *p = klawi_scope_of(c), *s, *root = p ? NULL : klawi_root_ref();
    if (root && !guest_enter(root)) {
        unref(root);
        root = NULL;
    }
    if (!p && !root)
        return KLAW_STOPPED;
    e = klawi_scope_new(&o, &s);
    if (e) {
        if (root)
            guest_leave(root);
        return e;
    }
    s->root = root;
    klaw_context **ctx = klawi_host_context();
    s->context = ctx && *ctx ? klawi_context_ref(*ctx) : NULL;
    enter(s, h, p ? p : root);
    if (o.deadline != 0 && o.deadline != KLAW_FOREVER) {
        int64_t at;
        if (klawi_deadline_resolve(o.deadline, KLAW_TIMEOUT, &at) != KLAW_OK) {
            cancel(s, "deadline", true);
        } else {
            klawi_lock_acquire(&s->lock);
            s->deadline = at;
            klawi_lock_release(&s->lock);
            s->home = klawi_wheel_set(klawi_wheel_for(c), &s->timer, at);
            if (!c->worker)
                klawi_poll_kick(rt);
        }
    }
    *out = s;
    return KLAW_OK;
}

klaw_err klawi_scope_result(klaw_scope *s) {
    klaw_err e = KLAW_OK;
    klawi_lock_acquire(&s->lock); /* whoever has a reference may be cancelling it right now */
    if (s->error)
        e = (klaw_err)s->error;
    else if (s->timed_out)
        e = KLAW_TIMEOUT;
    else if (atomic_load_explicit(&s->cancelled, memory_order_relaxed))
        e = KLAW_CANCELLED;
    klawi_lock_release(&s->lock);
    return e;
}

static klaw_err drain(klaw_scope *s, klawi_host *h, klaw_deadline deadline, bool shielded) {
    klaw_err e = KLAW_OK;
    for (;;) {
        klawi_lock_acquire(&s->lock);
        if (s->live == 0) {
            klawi_lock_release(&s->lock);
            return KLAW_OK;
        }
        klawi_lock_release(&s->lock);
        int64_t at = KLAW_FOREVER;
        if (!shielded && (e = klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &at)) != KLAW_OK)
            return e;
        klawi_host_waits(h, KLAWI_WAIT_SCOPE, s->id);
        klawi_waiter_fill(&h->waiter, h, &s->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_lock_acquire(&s->lock);
        if (s->live == 0) {
            klawi_lock_release(&s->lock);
            return KLAW_OK;
        }
        klawi_waitq_push(&s->drained, &h->waiter);
        if (shielded)
            klawi_park_shielded(h, &h->waiter, &s->lock);
        else if ((e = klawi_park(h, &h->waiter, &s->lock, at)) != KLAW_OK)
            return e;
    }
}

klaw_err klaw_scope_wait(klaw_scope *s, klaw_deadline deadline) {
    klaw_err e = KLAW_INVALID;
    klawi_ctx *c = s ? klawi_ctx_need(&e) : NULL;
    klawi_host *h = c ? klawi_cur(c) : NULL;
    if (h && h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    return h ? drain(s, h, deadline, false) : e;
}

klaw_err klaw_scope_close(klaw_scope *s) {
    klaw_err e = KLAW_INVALID;
    klawi_ctx *c = s ? klawi_ctx_need(&e) : NULL;
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if ((h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD) || *inner_of(h) != s)
        return KLAW_INVALID;
    do {
        (void)drain(s, h, KLAW_FOREVER, true);
    } while (
        !klawi_scope_shut(s)); /* a member of another scope may have spawned into it meanwhile */
    if (s->home)
        klawi_wheel_drain(&s->timer);
    e = klawi_scope_result(s);
    leave(s, h);
    if (s->root)
        guest_leave(s->root);
    klawi_scope_retire(s);
    return e;
}

void klawi_scope_unwind(klaw_scope *const *inner) {
    while (*inner) {
        klaw_err e = klaw_scope_close(*inner);
        (void)e;
    }
}

/* --- looking --- */
bool klaw_scope_cancelled(klaw_scope *s) {
    return s && atomic_load_explicit(&s->cancelled, memory_order_acquire);
}

const char *klaw_scope_reason(klaw_scope *s) {
    return klaw_scope_cancelled(s) ? s->reason : NULL;
}

uint64_t klaw_scope_live(klaw_scope *s) {
    if (!s)
        return 0;
    klawi_lock_acquire(&s->lock);
    uint64_t n = s->live;
    klawi_lock_release(&s->lock);
    return n;
}

klaw_scope *klaw_scope_ref(klaw_scope *s) {
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void klaw_scope_unref(klaw_scope *s) {
    if (s)
        unref(s);
}
