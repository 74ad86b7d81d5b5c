/* SPDX-License-Identifier: Apache-2.0 */
/* task.c - one task: handed over, cancelled, joined, given back.
 *
 * A task ends once, under its executor's lock: by its runner; by who cancels it while it is queued
 * (then it goes to the graves, from where a runner gives its arg back: what the user wrote runs on
 * runners alone); or by a spawner that found no memory for a runner.
 *
 * Memory: tasks come from the executor's free list, filled by slabs; they go back when the last
 * handle and the executor's own reference are gone. Slabs live as long as the executor, and that as
 * long as a task is out, so a handle may outlive everything else.
 *
 * Invariants under ex->lock:
 *   D1  state DONE is stored once, with release, after value and error; nothing of the three
 *       changes afterwards.
 *   D2  joiners and watches are empty once DONE.
 *   D3  in the queue <=> QUEUED, and ex->queued counts them; in the graves => DONE.
 *
 * Wake-up: the end claims all joiners under the lock; they are readied after it. A join of a task
 * that has ended takes no lock.
 *
 * Rejected: the canceller calls `release` itself (a timer's callback can't, a caller may hold locks
 * of its own); a reference count outside of the lock (an atomic more for each task). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "flow/executor.h"

#define SLAB 64u

struct klawi_slab {
    struct klawi_slab *next;
    _Alignas(KLAWI_LINE) klaw_task tasks[SLAB];
    klawi_task_more more[SLAB];
};

#if !defined(KLAWI_DEBUG)
_Static_assert(sizeof(klaw_task) <= 2 * KLAWI_LINE, "a thousand in flight fit the cache");
#endif

static klaw_err more_tasks(klaw_executor *ex) {
    struct klawi_slab *s = klawi_alloc_aligned(KLAWI_LINE, sizeof *s);
    if (!s)
        return KLAW_NOMEM;
    for (uint32_t i = 0; i < SLAB; i++) {
        klaw_task *t = &s->tasks[i];
        memset(t, 0, sizeof *t);
        t->ex = ex;
        t->more = &s->more[i];
        klawi_link_init(&t->joiners);
        t->link.prev = NULL;
        t->link.next = i + 1 < SLAB ? &s->tasks[i + 1].link : NULL;
    }
    klawi_lock_acquire(&ex->lock);
    s->next = ex->slabs;
    ex->slabs = s;
    s->tasks[SLAB - 1].link.next = ex->free ? &ex->free->link : NULL;
    ex->free = &s->tasks[0];
    klawi_lock_release(&ex->lock);
    return KLAW_OK;
}

/* Under the lock. NULL: none is left. */
static inline klaw_task *task_take(klaw_executor *ex) {
    klaw_task *t = ex->free;
    if (KLAWI_UNLIKELY(!t))
        return NULL;
    ex->free = t->link.next ? KLAWI_CONTAINER(t->link.next, klaw_task, link) : NULL;
    t->link.next = NULL;
    ex->taken++;
    return t;
}

/* Under the lock. */
static inline void task_give(klaw_task *t) {
    klaw_executor *ex = t->ex;
    atomic_store_explicit(&t->state, KLAWI_T_FREE, memory_order_relaxed);
    t->link.next = ex->free ? &ex->free->link : NULL;
    ex->free = t;
    ex->taken--;
}

/* --- ending --- */
void klawi_task_end(klaw_task *t, klaw_err error, klawi_wakes *wakes) {
    klaw_executor *ex = t->ex;
    t->error = (int32_t)error;
    t->runner = NULL;
    if (KLAWI_LIKELY(error == KLAW_OK))
        ex->succeeded++;
    else if (error == KLAW_CANCELLED)
        ex->cancelled++;
    else if (error == KLAW_TIMEOUT)
        ex->timed_out++;
    else
        ex->failed++;
    atomic_store_explicit(&t->state, KLAWI_T_DONE, memory_order_release); /* D1 */
    if (!klawi_link_empty(&t->joiners))
        klawi_claim_waiters(&t->joiners, wakes);
    if (KLAWI_UNLIKELY(t->watches != NULL))
        klawi_watches_tell(t, wakes);
}

void klawi_task_drop(klaw_task *t, klawi_wakes *wakes) {
    klaw_executor *ex = t->ex;
    if (--t->refs == 0)
        task_give(t);
    klawi_executor_settle(ex, wakes);
}

void klawi_task_reason(klaw_task *t, const char *reason) {
    if (t->asked & KLAWI_TA_REASON || !reason)
        return;
    snprintf(t->more->reason, sizeof t->more->reason, "%s", reason);
    t->asked |= KLAWI_TA_REASON;
}

void klawi_task_cancel(klaw_task *t, const char *reason, uint32_t late) {
    klaw_executor *ex = t->ex;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&ex->lock);
    uint32_t state = atomic_load_explicit(&t->state, memory_order_relaxed);
    bool queued = state == KLAWI_T_QUEUED || state == KLAWI_T_NEW;
    if (!(t->asked & KLAWI_TA_CANCELLED) && (queued || t->runner)) {
        t->asked |= KLAWI_TA_CANCELLED | late;
        klawi_task_reason(t, reason);
        if (state == KLAWI_T_QUEUED && !KLAWI_MUTANT(E5_CANCELLED_RUNS)) {
            klawi_link_remove(&t->link);
            klawi_link_push(&ex->graves, &t->link);
            ex->queued--;
        }
        if (queued)
            klawi_task_end(t, late ? KLAW_TIMEOUT : KLAW_CANCELLED, &wakes);
        else
            klawi_runner_cancel(t->runner);
    }
    klawi_lock_release(&ex->lock);
    klawi_wakes_run(&wakes);
}

void klaw_task_cancel(klaw_task *t, const char *reason) {
    if (t)
        klawi_task_cancel(t, reason && *reason ? reason : "cancelled", 0);
}

static void on_deadline(void *arg) {
    klawi_task_cancel(arg, "deadline", KLAWI_TA_LATE);
}

/* --- handing over --- */
/* Whether the options say nothing. */
static inline bool plain(const klaw_task_opts *o) {
    return !o->name && !o->deadline && !o->retry && !o->release && o->blocking <= 0;
}

/* What the options want besides; t is NEW. No lock held. */
static klaw_err fill_more(klaw_task *t, const klaw_task_opts *o, bool releases) {
    klawi_task_more *m = t->more;
    klaw_executor *ex = t->ex;
    uint32_t flags = KLAWI_TF_MORE;
    if (o->name)
        snprintf(m->name, sizeof m->name, "%s", o->name);
    else
        memcpy(m->name, ex->task_name, sizeof m->name);
    m->release = releases ? o->release : NULL;
    if (o->retry) {
        m->retry = *o->retry;
        flags |= KLAWI_TF_RETRY;
    }
    if (o->blocking > 0)
        flags |= KLAWI_TF_BLOCKING;
    if (o->deadline && o->deadline != KLAW_FOREVER) {
        klaw_deadline at = o->deadline == KLAW_NOWAIT ? 1 : o->deadline;
        klaw_timer_init(&m->timer, on_deadline, t);
        flags |= KLAWI_TF_TIMER;
        t->flags = flags;
        return klaw_timer_arm(&m->timer, at);
    }
    t->flags = flags;
    return KLAW_OK;
}

/* The submitter's context, borrowed. */
static inline klaw_context *current_context(klawi_ctx *c) {
    klawi_host *h = klawi_cur(c);
    return h->kind == KLAWI_FIBER    ? klawi_fiber_of(h)->context
           : h->kind == KLAWI_THREAD ? klawi_thread_of(h)->context
                                     : NULL;
}

/* Under the lock; true: a runner has to be spawned. */
static inline bool enqueue(klaw_executor *ex, klaw_task *t) {
    ex->submitted++;
    ex->pending++;
    if (atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_NEW) {
        atomic_store_explicit(&t->state, KLAWI_T_QUEUED, memory_order_relaxed);
        ex->queued++;
        klawi_link_push(&ex->queue, &t->link);
    } else { /* its deadline has passed */
        klawi_link_push(&ex->graves, &t->link);
    }
    return klawi_runner_wanted(ex);
}

/* A task that has not been handed over after all. */
static void withdraw(klaw_task *t, bool counted) {
    klaw_executor *ex = t->ex;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_context_unref(t->context);
    t->context = NULL;
    if (t->flags & KLAWI_TF_TIMER)
        klaw_timer_drain(&t->more->timer);
    klawi_lock_acquire(&ex->lock);
    bool late = atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_DONE;
    ex->timed_out -= late; /* by its deadline: nobody else has a handle */
    ex->submitted -= counted;
    task_give(t);
    if (counted)
        klawi_executor_settle(ex, &wakes);
    klawi_lock_release(&ex->lock);
    klawi_wakes_run(&wakes);
}

klaw_err klawi_submit(klaw_executor *ex, klaw_fn fn, void *arg, const klaw_task_opts *o,
                      bool releases, klaw_task **out) {
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klaw_context *context = o->context ? o->context : current_context(c);
    bool simple = plain(o);
    klaw_task *t;
    if (KLAWI_UNLIKELY(klaw_scope_cancelled(ex->scope)))
        return KLAW_STOPPED; /* else who submits on and on would keep the scope from ending */
    klawi_lock_acquire(&ex->lock);
    while (!ex->closed && KLAWI_UNLIKELY((t = task_take(ex)) == NULL)) {
        klawi_lock_release(&ex->lock);
        if ((e = more_tasks(ex)) != KLAW_OK)
            return e;
        klawi_lock_acquire(&ex->lock);
    }
    if (ex->closed) {
        klawi_lock_release(&ex->lock);
        return KLAW_CLOSED;
    }
    t->fn = fn;
    t->arg = arg;
    t->value = NULL;
    t->error = KLAW_OK;
    t->flags = t->asked = 0;
    t->refs = out ? 2 : 1;
    t->id = ++ex->next_task;
    atomic_store_explicit(&t->state, KLAWI_T_NEW, memory_order_relaxed);
    t->context = context;
    if (KLAWI_UNLIKELY(context || !simple)) {
        klawi_lock_release(&ex->lock);
        klawi_context_ref(context);
        if (!simple && (e = fill_more(t, o, releases)) != KLAW_OK) {
            withdraw(t, false);
            return e;
        }
        klawi_lock_acquire(&ex->lock);
    }
    bool spawn = enqueue(ex, t);
    if (!KLAWI_MUTANT(E1_NO_REF))
        t->refs += spawn; /* the spawner has to find it even if it has ended meanwhile */
    klawi_lock_release(&ex->lock);
    if (KLAWI_UNLIKELY(spawn)) {
        if ((e = klawi_runner_spawn(ex, t, true)) != KLAW_OK) {
            withdraw(t, true);
            return e;
        }
        if (!KLAWI_MUTANT(E1_NO_REF))
            klaw_task_unref(t);
    }
    if (out)
        *out = t;
    c = klawi_ctx_get();
    if (KLAWI_UNLIKELY(klawi_budget_take(c))) /* R8: who submits without end lets them run, too */
        (void)klawi_budget_spent(c);
    return KLAW_OK;
}

klaw_err klaw_submit_sized(klaw_executor *ex, klaw_fn fn, void *arg, const klaw_task_opts *opts,
                           size_t opts_size, klaw_task **out) {
    if (!ex || !fn)
        return KLAW_INVALID;
    if (KLAWI_LIKELY(!opts))
        return klawi_submit(ex, fn, arg, &ex->task, true, out);
    klaw_task_opts o = {0};
    klaw_err e = klawi_task_opts_merge(ex, opts, opts_size, &o);
    return e ? e : klawi_submit(ex, fn, arg, &o, true, out);
}

klaw_err klawi_task_opts_merge(const klaw_executor *ex, const klaw_task_opts *opts, size_t size,
                               klaw_task_opts *o) {
    memset(o, 0, sizeof *o);
    memcpy(o, opts, size < sizeof *o ? size : sizeof *o);
    const klaw_task_opts *d = &ex->task;
    if (o->blocking < KLAW_NONE)
        return KLAW_INVALID;
    o->name = o->name ? o->name : d->name;
    o->deadline = o->deadline ? o->deadline : d->deadline;
    o->retry = o->retry ? o->retry : d->retry;
    o->context = o->context ? o->context : d->context;
    o->release = o->release ? o->release : d->release;
    o->blocking = o->blocking ? o->blocking : d->blocking;
    return KLAW_OK;
}

/* --- waiting --- */
/* Parks the caller until the task has ended. OK: it has. */
static klaw_err park(klaw_task *t, klawi_host *h, int64_t at, bool shielded) {
    klaw_executor *ex = t->ex;
    klaw_err e = KLAW_OK;
    klawi_host_waits(h, KLAWI_WAIT_TASK, t->id);
    klawi_waiter_fill(&h->waiter, h, &ex->lock, KLAWI_OP_NOTIFY, NULL, NULL);
    klawi_lock_acquire(&ex->lock);
    if (atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_DONE) {
        klawi_lock_release(&ex->lock);
        return KLAW_OK;
    }
    klawi_waitq_push(&t->joiners, &h->waiter);
    if (shielded)
        klawi_park_shielded(h, &h->waiter, &ex->lock);
    else
        e = klawi_park(h, &h->waiter, &ex->lock, at);
    return e;
}

static inline bool ended(klaw_task *t) {
    /* Acquire: pairs with the release of D1. */
    return atomic_load_explicit(&t->state, memory_order_acquire) == KLAWI_T_DONE;
}

klaw_err klaw_task_join(klaw_task *t, klaw_deadline deadline, klaw_err *error, void **value) {
    klaw_err e = KLAW_INVALID;
    klawi_ctx *c = t ? klawi_ctx_need(&e) : NULL;
    if (!c)
        return e;
    if (KLAWI_UNLIKELY(!ended(t))) {
        klawi_host *h = klawi_cur(c);
        int64_t at = KLAW_FOREVER;
        if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
            return KLAW_INVALID;
        if ((e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &at)) != KLAW_OK ||
            (e = park(t, h, at, false)) != KLAW_OK)
            return e;
        (void)ended(t);
    } else if (klawi_budget_take(c)) {
        (void)klawi_budget_spent(c); /* it has happened: OK, cancelled or not */
    }
    if (error)
        *error = (klaw_err)t->error;
    if (value)
        *value = t->value;
    return KLAW_OK;
}

void klawi_task_await(klaw_task *t) {
    klawi_ctx *c = klawi_ctx_need(NULL);
    while (c && !ended(t))
        (void)park(t, klawi_cur(c), KLAW_FOREVER, true);
}

/* --- handles --- */
klaw_task *klaw_task_ref(klaw_task *t) {
    if (!t)
        return NULL;
    klawi_lock_acquire(&t->ex->lock);
    t->refs++;
    klawi_lock_release(&t->ex->lock);
    return t;
}

void klaw_task_unref(klaw_task *t) {
    if (!t)
        return;
    klaw_executor *ex = t->ex;
    klawi_lock_acquire(&ex->lock);
    KLAWI_ASSERT(t->refs > 0);
    bool last = false;
    if (--t->refs == 0) {
        task_give(t);
        last = klawi_executor_unused(ex);
    }
    klawi_lock_release(&ex->lock);
    if (KLAWI_UNLIKELY(last))
        klawi_executor_free(ex);
}

bool klaw_task_is_running(klaw_task *t) {
    return t && atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_RUNNING;
}

const char *klaw_task_exit_reason(klaw_task *t) {
    static const char *const errors[] = {
#define ERROR_TEXT(name, number, text) [number] = "error: " #name,
        KLAW_ERR_LIST(ERROR_TEXT)
#undef ERROR_TEXT
    };
    if (!t || !ended(t))
        return NULL;
    uint32_t e = (uint32_t)t->error;
    klawi_lock_acquire(&t->ex->lock);
    uint32_t asked = t->asked;
    klawi_lock_release(&t->ex->lock);
    if (e == KLAW_OK)
        return "ok";
    bool told = e == KLAW_CANCELLED || (e == KLAW_TIMEOUT && (asked & KLAWI_TA_LATE));
    if (told && (asked & KLAWI_TA_REASON))
        return t->more->reason;
    return e == KLAW_CANCELLED                  ? "cancelled"
           : e < sizeof errors / sizeof *errors ? errors[e]
                                                : "error";
}

const char *klawi_task_name(const klaw_task *t) {
    return t->flags & KLAWI_TF_MORE ? t->more->name : t->ex->task_name;
}

const char *klaw_task_name(klaw_task *t) {
    return t ? klawi_task_name(t) : NULL;
}

uint64_t klaw_task_id(klaw_task *t) {
    return t ? t->id : 0;
}

void klawi_slabs_free(struct klawi_slab *s) {
    while (s) {
        struct klawi_slab *next = s->next;
        klawi_free_aligned(s);
        s = next;
    }
}
