/* SPDX-License-Identifier: Apache-2.0 */
/* actor.c - identities: making, stopping, killing, joining, ending.
 *
 * An identity (klaw_actor) holds the mailbox and outlives its incarnations (klaw_self, life.c): the
 * bonds, the promises and the system messages of an incarnation are hung into the identity's lists
 * and cleared when the incarnation ends, so a list never mixes two of them.
 *
 *   A10 done is set last: after the mailbox was emptied, monitors were told and the argument was
 *       released. Who joins sees all of that.
 *
 * Memory: references are counted; the incarnation's fiber holds one, so does each promise and each
 * bond on its target. The ring and all lists are empty when the last one goes. */
#include "actor/actor.h"
#include "actor/registry.h"

#include <stdio.h>

#include "base/alloc.h"
#include "klaw/log.h"

#define RING_FIRST 8u

static _Atomic uint64_t next_id = 1;

uint64_t klawi_actor_number(void) {
    return atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
}

/* --- making --- */

static klaw_err opts_check(const klaw_behavior *b, const klaw_actor_opts *o) {
    if (!b || !b->message || !b->handle || !b->name || !b->message->name || !b->message->size)
        return KLAW_INVALID;
    if (b->reply && (!b->reply->name || !b->reply->size))
        return KLAW_INVALID;
    if (o->capacity < 0 && o->capacity != KLAW_UNBOUNDED)
        return KLAW_INVALID;
    if ((unsigned)o->restart > KLAW_RESTART_NEVER || o->max_restarts < KLAW_NONE ||
        o->restart_window < 0)
        return KLAW_INVALID;
    if (klaw_backoff_check(&o->backoff) || !klawi_checkpoint_valid(b, o))
        return KLAW_INVALID;
    if (b->message->size > KLAW_ELEM_MAX || (b->reply && b->reply->size > KLAW_ELEM_MAX) ||
        o->capacity > KLAW_CAPACITY_MAX)
        return KLAW_LIMIT;
    return KLAW_OK;
}

static char *text_copy(const char *text) {
    size_t n = strlen(text) + 1;
    char *p = klawi_alloc(n);
    if (p)
        memcpy(p, text, n);
    return p;
}

static void fill(klaw_actor *a, const klaw_behavior *b, void *arg, const klaw_actor_opts *o,
                 const klawi_actor_control *control) {
    memset(a, 0, sizeof *a);
    atomic_init(&a->refs, 1);
    a->behavior = b;
    a->arg = arg;
    a->control = control;
    a->opts = *o;
    a->size = (uint32_t)b->message->size;
    a->reply_size = b->reply ? (uint32_t)b->reply->size : 0;
    a->cell = sizeof(klawi_envelope) + (b->message->size + 15) / 16 * 16;
    a->room = o->capacity == KLAW_UNBOUNDED ? UINT64_MAX / 2
              : o->capacity                 ? (uint64_t)o->capacity
                                            : KLAW_MAILBOX_DEFAULT;
    a->phase = KLAW_ACTOR_STARTING;
    snprintf(a->name, sizeof a->name, "%s", o->name ? o->name : b->name);
    a->opts.name = a->name;
    klawi_lock_init(&a->lock, KLAWI_RANK_ACTOR);
    klawi_link_init(&a->watchers);
    klawi_link_init(&a->links);
    klawi_link_init(&a->sys);
    klawi_link_init(&a->sq);
    klawi_link_init(&a->joiners);
    klawi_link_init(&a->promises);
}

klaw_err klawi_actor_new(const klaw_behavior *behavior, void *arg, const klaw_actor_opts *opts,
                         const klawi_actor_control *control, klaw_actor **out) {
    static const klaw_actor_opts none;
    klaw_err e = opts_check(behavior, opts ? opts : &none);
    if (e)
        return e;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return KLAW_STOPPED;
    klaw_actor *a =
        klawi_alloc_aligned(KLAWI_LINE, (sizeof *a + KLAWI_LINE - 1) / KLAWI_LINE * KLAWI_LINE);
    if (!a)
        return KLAW_NOMEM;
    fill(a, behavior, arg, opts ? opts : &none, control);
    a->ring = klawi_alloc(RING_FIRST * a->cell);
    a->mask = RING_FIRST - 1;
    if (a->opts.checkpointer)
        a->key = text_copy(a->opts.checkpoint_key ? a->opts.checkpoint_key : a->name);
    if (!a->ring || (a->opts.checkpointer && !a->key)) {
        klawi_free(a->ring);
        klawi_free(a->key);
        klawi_free_aligned(a);
        return KLAW_NOMEM;
    }
    a->opts.checkpoint_key = a->key;
    a->id = klawi_actor_number();
    klawi_actor_enlist(a);
    *out = a;
    return KLAW_OK;
}

klaw_err klaw_actor_spawn_sized(const klaw_behavior *behavior, void *arg,
                                const klaw_actor_opts *opts, size_t opts_size, klaw_actor **out) {
    klaw_actor_opts o = klaw_actor_opts_default();
    klaw_actor *a;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    klaw_err e = klawi_actor_new(behavior, arg, &o, NULL, &a);
    if (e)
        return e;
    e = klawi_actor_start(a, o.scope);
    if (e) {
        a->opts.release = NULL;
        klawi_actor_finish(a, e);
        klaw_actor_unref(a);
        return e;
    }
    if (out)
        *out = a;
    else
        klaw_actor_unref(a);
    return KLAW_OK;
}

/* --- references --- */

klaw_actor *klaw_actor_ref(klaw_actor *a) {
    if (a)
        atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void klaw_actor_unref(klaw_actor *a) {
    /* acq_rel: the last one sees what all others did. */
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (!a->ended) { /* its supervisor never started it */
        atomic_store_explicit(&a->refs, 1, memory_order_relaxed);
        klawi_actor_finish(a, KLAW_STOPPED);
    }
    klawi_free(a->ring);
    klawi_free(a->key);
    klawi_free_aligned(a);
}

uint64_t klaw_actor_id(const klaw_actor *a) {
    return a->id;
}
const char *klaw_actor_name(const klaw_actor *a) {
    return a->name;
}
const klaw_behavior *klaw_actor_behavior(const klaw_actor *a) {
    return a->behavior;
}

bool klaw_actor_alive(const klaw_actor *a) {
    klaw_actor *m = (klaw_actor *)(uintptr_t)a;
    klawi_lock_acquire(&m->lock);
    bool alive = !m->ended;
    klawi_lock_release(&m->lock);
    return alive;
}

/* --- stopping --- */

void klaw_actor_stop(klaw_actor *a) {
    klawi_wakes wakes;
    if (!a)
        return;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    if (a->self || !a->control) {
        a->stopped = true;
        klawi_mailbox_close(a, &wakes);
    }
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
}

void klawi_actor_halt(klaw_actor *a) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    if (a->self) {
        a->halt = true;
        klawi_mailbox_nudge(a, &wakes);
    }
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
}

void klawi_actor_cut(klaw_actor *a) {
    klaw_actor_kill(a);
}

void klaw_actor_kill(klaw_actor *a) {
    klaw_fiber *f = NULL;
    if (!a)
        return;
    klawi_lock_acquire(&a->lock);
    klaw_self *s = a->self;
    if (s) {
        s->cut = true;
        if (!a->control)
            a->closed = true;
        if (s->host) { /* else it looks at `cut` first thing */
            f = klawi_fiber_of(s->host);
            atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
        }
    }
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    if (a->closed)
        klawi_mailbox_close(a, &wakes);
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
    if (f) {
        klaw_fiber_cancel(f);
        klawi_self_unref(s);
    }
}

/* --- the end --- */

void klawi_actor_finish(klaw_actor *a, klaw_err why) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    KLAWI_ASSERT(!a->self); /* A1 */
    bool again = a->ended;
    a->ended = true;
    a->reason = why;
    if (!again)
        klawi_mailbox_close(a, &wakes);
    klawi_lock_release(&a->lock);
    if (again)
        return;
    klawi_wakes_run(&wakes);
    klawi_actor_delist(a);
    klawi_mailbox_drop(a);
    if (atomic_load_explicit(&a->named, memory_order_relaxed))
        klawi_registry_forget(a);
    if (!KLAWI_MUTANT(A10_DONE_EARLY))
        klawi_bonds_finish(a, why);
    if (a->opts.release)
        a->opts.release(a->arg);
    KLAW_LOG_DEBUG("actor ended", klaw_log_str("actor", a->name), klaw_log_u64("actor_id", a->id),
                   klaw_log_err("reason", why));
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    a->done = true;
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&a->joiners); w; w = next) {
        next = klawi_waitq_next(&a->joiners, w);
        if (!klawi_claim(w->host, w->epoch))
            continue;
        klawi_link_remove(&w->link);
        w->host->result = KLAW_OK;
        klawi_wakes_add(&wakes, w);
    }
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
    if (KLAWI_MUTANT(A10_DONE_EARLY))
        klawi_bonds_finish(a, why);
}

klaw_err klaw_actor_join(klaw_actor *a, klaw_deadline deadline, klaw_err *why) {
    klaw_err e = KLAW_OK;
    if (!a)
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    klawi_lock_acquire(&a->lock);
    if (!a->done) {
        if ((a->self && a->self->host == h) ||
            (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD && deadline != KLAW_NOWAIT))
            e = KLAW_INVALID;
        else
            e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &deadline);
        if (e) {
            klawi_lock_release(&a->lock);
            return e;
        }
        klawi_waiter *w = &h->waiter;
        klawi_host_waits(h, KLAWI_WAIT_ACTOR, a->id);
        klawi_waiter_fill(w, h, &a->lock, KLAWI_OP_NOTIFY, NULL, a);
        klawi_waitq_push(&a->joiners, w);
        e = klawi_park(h, w, &a->lock, deadline);
        if (e)
            return e;
        klawi_lock_acquire(&a->lock);
    }
    if (why)
        *why = a->reason;
    klawi_lock_release(&a->lock);
    return KLAW_OK;
}
