/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.c - klaw_runtime: one owner of an executor, channels, fibers and actors.
 *
 * A fiber, the keeper, holds it together: it opens a scope for actors, inside it one for the work,
 * and the executor in that, then waits to be stopped and closes both scopes. Where no run is
 * there, a thread runs klaw_run with the keeper as its main; else the keeper is a fiber of the
 * opener's scope. Whoever shuts the object down does the waiting and cancelling from where he is,
 * with references to the scopes, and lets the keeper go at the end.
 *
 * Invariants:
 *   RT1  `closed` is set once, under the lock; a channel or an actor is filed only before that. A
 *       fiber or actor that is spawned by somebody who has seen `closed` unset joins a scope that
 *       is cancelled before the keeper closes it, or is refused by the closed scope: the shutdown
 *       always cancels both, also when nothing was late.
 *   RT2  exactly one caller carries the shutdown out; its answer is complete when done_tx closes.
 *   RT3  the keeper (with the run's thread) and the owner hold one reference each. A keeper that
 *       waits for an abandoned fiber never gives its one back: what that fiber may touch stays.
 *   RT4  `ended_tx` closes after the last thing that was owned has ended: by the keeper inside of a
 *       run, else by the thread after klaw_run.
 *
 * The lock (rank RUNTIME) guards closed, the list of actors and the filing of channels. Nothing is
 * polled: ready, stop, ended and done are oneshots that nobody sends to; closing one wakes whoever
 * waits, and needs no memory.
 *
 * Rejected: clones of the endpoints to close channels by, since a clone keeps a side open that the
 * program has closed; the ends of a channel are known to it (klawi_chan_shut). Actors in the scope
 * of the work: nobody could wait for the work alone. */
#include "klaw/runtime.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "runtime/late.h"
#include "sched/mutant.h"
#include "sched/sched.h"
#include "sync/chan.h"

#define TIMEOUT_DEFAULT KLAW_S(30)
#define GRACE_DEFAULT KLAW_S(5)
#define ACTORS_FIRST 16u

/* A oneshot that says something by being closed. */
struct gate {
    klaw_sender *tx;
    klaw_receiver *rx;
};

struct klaw_runtime {
    _Atomic uint32_t refs; /* (a) RT3 */
    klawi_lock lock;
    bool closed;                           /* (L) RT1 */
    bool shutting;                         /* (L) somebody carries a shutdown out */
    _Atomic bool cancelled;                /* (a) from outside, before a shutdown */
    _Atomic bool keeping;                  /* (a) the keeper runs; paired with its thread's end */
    klawi_link channels;                   /* (L) for filing; the channels' own lock for the rest */
    klaw_actor **actors;                   /* (L) counted */
    size_t n_actors, room, pending;        /* (L) filed, allocated, about to be filed */
    klaw_scope *actor_scope, *work, *root; /* (c) since ready; root NULL: inside of a run */
    klaw_executor *ex;                     /* (c) since ready */
    struct gate ready, stop, ended, done;
    klaw_run_opts run;          /* (c) */
    klaw_executor_opts ex_opts; /* (c) valid until ready */
    bool has_thread;            /* (c) */
    klawi_thread_id thread;     /* (c) */
    klaw_fiber *keeper;         /* (c) NULL with a thread */
    klaw_err open_error;        /* set before ready closes; so told, by the keeper */
    bool told;
    klaw_err error;  /* of the work; set before ended */
    klaw_err result; /* (c) since done, with report */
    klaw_shutdown_report report;
    char name[KLAWI_NAME_MAX];
};

/* There is nothing to be done about it. */
static void ignore(klaw_err e) {
    (void)e;
}

/* --- gates --- */
static klaw_err gate_open(struct gate *g) {
    klaw_err e = klaw_oneshot(&klaw_u64, &g->tx, &g->rx);
    if (e == KLAW_OK)
        klawi_end_internal(g->tx);
    return e;
}

static void gate_free(struct gate *g) {
    klaw_sender_unref(g->tx);
    klaw_receiver_unref(g->rx);
}

/* Until it is closed. A caller that is cancelled and could not be shielded waits by yielding. */
static klaw_err gate_await(struct gate *g, klaw_deadline d) {
    uint64_t v;
    for (;;) {
        klaw_err e = klaw_recv(g->rx, &v, d);
        if (e != KLAW_CANCELLED)
            return e == KLAW_TIMEOUT ? e : KLAW_OK;
        if (klaw_now() >= d)
            return KLAW_TIMEOUT;
        ignore(klaw_yield());
    }
}

/* A thread that is new to the library gets what it needs to wait now, while that may still fail. */
static klaw_err can_wait(void) {
    klaw_err why = KLAW_OK;
    if (klawi_ctx_need(&why))
        return KLAW_OK;
    return why ? why : KLAW_NOMEM;
}

static void runtime_unref(klaw_runtime *rt) {
    if (atomic_fetch_sub_explicit(&rt->refs, 1, memory_order_acq_rel) > 1)
        return;
    klaw_executor_unref(rt->ex);
    klaw_scope_unref(rt->work);
    klaw_scope_unref(rt->actor_scope);
    klaw_scope_unref(rt->root);
    for (size_t i = 0; i < rt->n_actors; i++)
        klaw_actor_unref(rt->actors[i]);
    klawi_free(rt->actors);
    gate_free(&rt->ready);
    gate_free(&rt->stop);
    gate_free(&rt->ended);
    gate_free(&rt->done);
    klawi_free(rt);
}

/* --- closing --- */
/* True for the first. */
static bool refuse_more(klaw_runtime *rt) {
    klawi_lock_acquire(&rt->lock);
    bool first = !rt->closed;
    rt->closed = true;
    klawi_lock_release(&rt->lock);
    return first;
}

static void close_channels(klaw_runtime *rt, bool receivers) {
    for (klawi_chan *ch; (ch = klawi_chan_disown(&rt->channels)) != NULL;) {
        klawi_chan_shut(ch, KLAWI_TX);
        if (receivers)
            klawi_chan_shut(ch, KLAWI_RX);
        klawi_chan_unref(ch);
    }
}

/* --- the keeper --- */
static klaw_err keeper_open(klaw_runtime *rt, klaw_scope **actors, klaw_scope **work) {
    klaw_scope_opts so = {.name = rt->name};
    klaw_err e = klaw_scope_open(&so, actors);
    if (e)
        return e;
    if ((e = klaw_scope_open(&so, work)) != KLAW_OK)
        goto no_work;
    if ((e = klaw_executor_open(&rt->ex_opts, &rt->ex)) != KLAW_OK)
        goto no_executor;
    rt->actor_scope = klaw_scope_ref(*actors);
    rt->work = klaw_scope_ref(*work);
    if (rt->has_thread)
        rt->root = klawi_root_ref();
    return KLAW_OK;
no_executor:
    ignore(klaw_scope_close(*work));
no_work:
    ignore(klaw_scope_close(*actors));
    return e;
}

static klaw_err keeper(void *arg) {
    klaw_runtime *rt = arg;
    klaw_scope *actors = NULL, *work = NULL;
    klaw_err e = keeper_open(rt, &actors, &work);
    uint64_t none;
    atomic_store_explicit(&rt->keeping, true, memory_order_relaxed);
    rt->open_error = e;
    rt->told = true;
    klaw_sender_close(rt->ready.tx);
    if (e == KLAW_OK) {
        if (klaw_recv(rt->stop.rx, &none, KLAW_FOREVER) == KLAW_CANCELLED && refuse_more(rt)) {
            atomic_store_explicit(&rt->cancelled, true, memory_order_release);
            klaw_executor_shut(rt->ex);
            close_channels(rt, true);
        }
        e = klaw_scope_close(work);
        rt->error = e == KLAW_CANCELLED ? KLAW_OK : e;
        ignore(klaw_scope_close(actors));
    }
    atomic_store_explicit(&rt->keeping, false, memory_order_release); /* RT3 */
    if (!rt->has_thread) {                                            /* RT4 */
        klaw_sender_close(rt->ended.tx);
        runtime_unref(rt);
    }
    return KLAW_OK;
}

static void *thread_main(void *arg) {
    klaw_runtime *rt = arg;
    klaw_err e = klaw_run(keeper, rt, &rt->run);
    if (!rt->told) { /* the keeper never ran */
        rt->open_error = e;
        klaw_sender_close(rt->ready.tx);
    }
    klaw_sender_close(rt->ended.tx);
    if (atomic_load_explicit(&rt->keeping, memory_order_acquire) == false)
        runtime_unref(rt);
    return NULL;
}

/* --- opening --- */
static klaw_err make(const klaw_runtime_opts *o, klaw_runtime **out) {
    klaw_runtime *rt = klawi_calloc(1, sizeof *rt);
    if (!rt)
        return KLAW_NOMEM;
    atomic_init(&rt->refs, 2);
    klawi_lock_init(&rt->lock, KLAWI_RANK_RUNTIME);
    klawi_link_init(&rt->channels);
    rt->run = o->run;
    rt->run.name = o->run.name ? o->run.name : rt->name;
    rt->ex_opts = o->executor;
    snprintf(rt->name, sizeof rt->name, "%s", o->name ? o->name : "runtime");
    klaw_err e = gate_open(&rt->ready);
    if (e == KLAW_OK)
        e = gate_open(&rt->stop);
    if (e == KLAW_OK)
        e = gate_open(&rt->ended);
    if (e == KLAW_OK)
        e = gate_open(&rt->done);
    if (e) {
        atomic_store_explicit(&rt->refs, 1, memory_order_relaxed);
        runtime_unref(rt);
        return e;
    }
    *out = rt;
    return KLAW_OK;
}

/* A thread with a run of its own, or a fiber of the one that is there. On an error its reference is
 * gone. */
static klaw_err start_keeper(klaw_runtime *rt) {
    klaw_err e;
    rt->has_thread = klaw_run_workers() == 0;
    if (rt->has_thread)
        e = klawi_fail_point() ? KLAW_SYSTEM
                               : klawi_thread_start(&rt->thread, "klaw-runtime", thread_main, rt);
    else
        e = klaw_spawn(NULL, keeper, rt, &(klaw_fiber_opts){.name = rt->name}, &rt->keeper);
    if (e)
        runtime_unref(rt);
    return e;
}

/* It has ended, or will at once: everything is told. */
static void join_keeper(klaw_runtime *rt) {
    if (rt->has_thread)
        klawi_thread_join(rt->thread);
    else if (klaw_join(rt->keeper, NULL, NULL, KLAW_FOREVER) != KLAW_OK)
        klaw_detach(rt->keeper);
}

klaw_err klaw_runtime_open_sized(const klaw_runtime_opts *opts, size_t opts_size,
                                 klaw_runtime **out, klaw_error_info *info) {
    klaw_runtime_opts o = {0};
    klaw_runtime *rt;
    uint64_t none;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!out)
        return klawi_error(info, KLAW_INVALID, "out is NULL");
    klaw_err e = o.config ? klaw_init(o.config, info) : KLAW_OK;
    if (e)
        return e;
    if ((e = can_wait()) != KLAW_OK)
        return klawi_error(info, e, "the calling thread can't wait: %s", klaw_err_text(e));
    if ((e = make(&o, &rt)) != KLAW_OK)
        return klawi_error(info, e, "the runtime can't be made: %s", klaw_err_text(e));
    if ((e = start_keeper(rt)) != KLAW_OK) {
        runtime_unref(rt);
        return klawi_error(info, e, "the runtime can't be started: %s", klaw_err_text(e));
    }
    e = klaw_recv(rt->ready.rx, &none, KLAW_FOREVER);
    if (e == KLAW_CLOSED)
        e = rt->open_error;
    if (e) { /* also: the caller was cancelled */
        klaw_sender_close(rt->stop.tx);
        ignore(gate_await(&rt->ended, KLAW_FOREVER));
        join_keeper(rt);
        runtime_unref(rt);
        return klawi_error(info, e, "the runtime can't be started: %s", klaw_err_text(e));
    }
    *out = rt;
    return KLAW_OK;
}

klaw_executor *klaw_runtime_executor(klaw_runtime *rt) {
    return rt->ex;
}

/* --- what it owns --- */
static bool is_closed(klaw_runtime *rt) {
    klawi_lock_acquire(&rt->lock);
    bool closed = rt->closed;
    klawi_lock_release(&rt->lock);
    return closed;
}

klaw_err klaw_runtime_spawn_sized(klaw_runtime *rt, klaw_fn fn, void *arg,
                                  const klaw_fiber_opts *opts, size_t opts_size, klaw_fiber **out) {
    if (!rt)
        return KLAW_INVALID;
    return is_closed(rt) ? KLAW_STOPPED : klaw_spawn_sized(rt->work, fn, arg, opts, opts_size, out);
}

/* Moves the actors that live into `fresh`; those that have ended stay in the old array, which the
 * caller gets with their number. Under the lock. */
static klaw_actor **move_actors(klaw_runtime *rt, klaw_actor **fresh, size_t room, size_t *ended) {
    klaw_actor **old = rt->actors;
    size_t n = 0;
    *ended = 0;
    for (size_t i = 0; i < rt->n_actors; i++) {
        if (klaw_actor_alive(old[i]))
            fresh[n++] = old[i];
        else
            old[(*ended)++] = old[i];
    }
    rt->actors = fresh;
    rt->n_actors = n;
    rt->room = room;
    return old;
}

/* Promises room for one actor more, dropping those that have ended. */
static klaw_err reserve(klaw_runtime *rt) {
    klaw_actor **fresh = NULL, **old = NULL;
    size_t room = 0, ended = 0;
    klaw_err e = KLAW_OK;
    for (bool settled = false; !settled;) {
        klawi_lock_acquire(&rt->lock);
        if (room > rt->room && !rt->closed) {
            old = move_actors(rt, fresh, room, &ended);
            fresh = NULL;
        }
        settled = rt->closed || rt->n_actors + rt->pending < rt->room;
        if (rt->closed)
            e = KLAW_STOPPED;
        else if (settled)
            rt->pending++;
        room = rt->room ? 2 * rt->room : ACTORS_FIRST;
        klawi_lock_release(&rt->lock);
        while (ended > 0)
            klaw_actor_unref(old[--ended]);
        klawi_free(old);
        klawi_free(fresh);
        old = fresh = NULL;
        if (!settled && (fresh = klawi_calloc(room, sizeof(klaw_actor *))) == NULL)
            return KLAW_NOMEM;
    }
    return e;
}

/* Files it in the room promised; a == NULL gives the room back. */
static void file_actor(klaw_runtime *rt, klaw_actor *a) {
    klawi_lock_acquire(&rt->lock);
    bool late = rt->closed;
    rt->pending--;
    if (a && !late)
        rt->actors[rt->n_actors++] = a;
    klawi_lock_release(&rt->lock);
    if (a && late) { /* its scope will be cancelled; stopping is kinder */
        klaw_actor_stop(a);
        klaw_actor_unref(a);
    }
}

klaw_err klaw_runtime_spawn_actor_sized(klaw_runtime *rt, const klaw_behavior *behavior, void *arg,
                                        const klaw_actor_opts *opts, size_t opts_size,
                                        klaw_actor **out) {
    klaw_actor_opts o = klaw_actor_opts_default();
    klaw_actor *a = NULL;
    if (!rt)
        return KLAW_INVALID;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    o.scope = rt->actor_scope;
    klaw_err e = reserve(rt);
    if (e)
        return e;
    e = klaw_actor_spawn(behavior, arg, &o, &a);
    if (e == KLAW_OK && out)
        *out = klaw_actor_ref(a);
    file_actor(rt, a);
    return e;
}

/* Files a channel that has just been made, if `e` says so. */
static klaw_err file_channel(klaw_runtime *rt, klaw_err e, klaw_sender **tx, klaw_receiver **rx) {
    if (e)
        return e;
    klawi_lock_acquire(&rt->lock);
    bool late = rt->closed && !KLAWI_MUTANT(RT1_FILE_LATE);
    if (!late)
        klawi_chan_own(*tx, &rt->channels); /* RT1 */
    klawi_lock_release(&rt->lock);
    if (!late)
        return KLAW_OK;
    klaw_sender_unref(*tx);
    klaw_receiver_unref(*rx);
    *tx = NULL;
    *rx = NULL;
    return KLAW_STOPPED;
}

klaw_err klaw_runtime_channel_sized(klaw_runtime *rt, const klaw_type *type,
                                    const klaw_channel_opts *opts, size_t opts_size,
                                    klaw_sender **tx, klaw_receiver **rx) {
    klaw_err e = rt ? klaw_channel_sized(type, opts, opts_size, tx, rx) : KLAW_INVALID;
    return file_channel(rt, e, tx, rx);
}

klaw_err klaw_runtime_broadcast_sized(klaw_runtime *rt, const klaw_type *type,
                                      const klaw_broadcast_opts *opts, size_t opts_size,
                                      klaw_sender **tx, klaw_receiver **rx) {
    klaw_err e = rt ? klaw_broadcast_sized(type, opts, opts_size, tx, rx) : KLAW_INVALID;
    return file_channel(rt, e, tx, rx);
}

klaw_err klaw_runtime_oneshot(klaw_runtime *rt, const klaw_type *type, klaw_sender **tx,
                              klaw_receiver **rx) {
    klaw_err e = rt ? klaw_oneshot(type, tx, rx) : KLAW_INVALID;
    return file_channel(rt, e, tx, rx);
}

klaw_err klaw_runtime_watch(klaw_runtime *rt, const klaw_type *type, const void *initial,
                            klaw_sender **tx, klaw_receiver **rx) {
    klaw_err e = rt ? klaw_watch(type, initial, tx, rx) : KLAW_INVALID;
    return file_channel(rt, e, tx, rx);
}

/* --- waiting and ending --- */
/* Whether the caller is one of its own fibers, which would wait for itself. */
static bool is_own(const klaw_runtime *rt) {
    for (const klaw_scope *s = klaw_scope_current(); s; s = s->parent)
        if (s == rt->actor_scope || s == rt->root)
            return true;
    return false;
}

klaw_err klaw_runtime_wait(klaw_runtime *rt, klaw_deadline deadline) {
    if (!rt || is_own(rt))
        return KLAW_INVALID;
    if (deadline == KLAW_NOWAIT)
        return klaw_scope_live(rt->work) == 0 ? KLAW_OK : KLAW_EMPTY;
    return klaw_scope_wait(rt->work, deadline);
}

/* Lets everything end by itself. OK: it has. */
static klaw_err let_end(klaw_runtime *rt, klaw_deadline limit) {
    close_channels(rt, false);
    klaw_executor_shut(rt->ex);
    klaw_err e = klaw_scope_wait(rt->work, limit);
    if (e)
        return e;
    klawi_lock_acquire(&rt->lock); /* nothing is filed any more: RT1 */
    size_t n = rt->n_actors;
    klawi_lock_release(&rt->lock);
    for (size_t i = 0; i < n; i++)
        klaw_actor_stop(rt->actors[i]);
    return klaw_scope_wait(rt->actor_scope, limit);
}

static void cancel_all(klaw_runtime *rt, bool now, const char *reason) {
    close_channels(rt, now);
    klaw_executor_shut(rt->ex);
    klaw_executor_cancel(rt->ex, reason);
    klaw_scope_cancel(rt->actor_scope, reason);
    if (rt->root)
        klaw_scope_cancel(rt->root, reason);
    klaw_sender_close(rt->stop.tx);
}

/* No part of the run, not even a fiber that reaches no cancel point, is waited for any longer. */
static void give_up(klaw_runtime *rt, const char *reason) {
    if (!rt->has_thread) {
        klaw_detach(rt->keeper); /* it ends when they do */
        return;
    }
    ignore(klawi_run_give_up(rt->root, reason));
    klawi_thread_join(rt->thread);
}

struct ending {
    bool now;
    klaw_deadline limit;
    int64_t grace;
    const char *reason;
};

static klaw_err end_all(klaw_runtime *rt, const struct ending *d) {
    klaw_shutdown_report *r = &rt->report;
    klaw_executor_stats stats;
    klaw_scope *shield = NULL;
    klaw_executor_get_stats(rt->ex, &stats);
    struct klawi_late_where where = {rt->actor_scope->id, stats.id, rt->actors, rt->n_actors};
    klaw_err e = d->now ? KLAW_OK : let_end(rt, d->limit);
    bool cancelled = atomic_load_explicit(&rt->cancelled, memory_order_acquire);
    if (d->now || e) {
        klaw_executor_get_stats(rt->ex, &stats);
        r->queued = stats.queued;
        r->cancelled = klawi_late_find(&where, r->late, &r->n_late, &r->incomplete);
    }
    cancel_all(rt, d->now, d->reason);
    /* The caller's own cancellation may not cut this short. Without memory: see gate_await. */
    klaw_scope_opts so = {.name = "shutdown", .shield = true, .deadline = KLAW_FOREVER - 1};
    if (klaw_scope_current() && klaw_scope_open(&so, &shield) != KLAW_OK)
        shield = NULL;
    klaw_err late = gate_await(&rt->ended, klaw_after(d->grace));
    if (late == KLAW_OK) {
        join_keeper(rt);
    } else {
        r->abandoned = klawi_late_find(&where, r->lost, &r->n_lost, &r->incomplete);
        give_up(rt, d->reason);
    }
    if (shield)
        ignore(klaw_scope_close(shield));
    r->error = late ? KLAW_OK : rt->error;
    if (late || (e && r->cancelled + r->queued > 0) || e == KLAW_TIMEOUT)
        return KLAW_TIMEOUT;
    return cancelled ? KLAW_CANCELLED : KLAW_OK;
}

klaw_err klaw_runtime_shutdown_sized(klaw_runtime *rt, const klaw_shutdown_opts *opts,
                                     size_t opts_size, klaw_shutdown_report *report) {
    klaw_shutdown_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!rt || o.timeout < KLAW_NONE || o.grace < KLAW_NONE || is_own(rt))
        return KLAW_INVALID;
    klaw_err e = can_wait();
    if (e)
        return e;
    struct ending d = {.now = o.now, .reason = o.reason ? o.reason : "shutdown"};
    d.limit =
        o.timeout == KLAW_NONE ? KLAW_FOREVER : klaw_after(o.timeout ? o.timeout : TIMEOUT_DEFAULT);
    d.grace = o.grace == KLAW_NONE ? INT64_MAX : o.grace ? o.grace : GRACE_DEFAULT;
    klawi_lock_acquire(&rt->lock);
    bool first = !rt->shutting;
    rt->shutting = true;
    rt->closed = true;
    klawi_lock_release(&rt->lock);
    if (first) {
        rt->result = end_all(rt, &d);
        klaw_sender_close(rt->done.tx);
    } else if (!KLAWI_MUTANT(RT2_SECOND_EARLY)) {
        ignore(gate_await(&rt->done, KLAW_FOREVER));
    }
    if (report)
        *report = rt->report;
    return rt->result;
}

void klaw_runtime_free(klaw_runtime *rt) {
    if (!rt)
        return;
    while (klaw_runtime_shutdown(rt, &(klaw_shutdown_opts){.now = true}, NULL) == KLAW_NOMEM)
        klawi_thread_yield();
    runtime_unref(rt);
}
