/* SPDX-License-Identifier: Apache-2.0 */
/* executor.c - executors: opened, closed, waited for, counted, found.
 *
 * An executor is a queue with a bound; who runs what is in it stands in runner.c, what a task is in
 * task.c. It holds a reference of the scope it was opened in and spawns its runners there, so the
 * scope waits for them; when the scope has been closed a spawn answers STOPPED, and so does submit.
 *
 * Life: it exists while a handle, a runner, a task that somebody still holds, or a map does
 * (klawi_executor_unused); who takes the last of them away frees it, after the unlock.
 *
 * Invariants under ex->lock:
 *   X1  pending == tasks accepted whose executor's reference is not dropped, and maps under way.
 *   X2  idle waits only while pending > 0.
 *   X3  closed never goes back.
 *
 * Locks: the registry's, then the executor's, then a group's (gather.c).
 *
 * Rejected: a queue for each worker with stealing between them. Fibers are stolen already, and a
 * runner that is stolen takes the queue's work with it; the one lock is held for some 5 ns. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "flow/executor.h"

#define CONCURRENCY_DEFAULT 256u

static klawi_lock registry_lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link registry = {&registry, &registry};
static _Atomic uint64_t next_id = 1;

/* --- small things of all files --- */
void klawi_claim_waiters(klawi_waitq *q, klawi_wakes *wakes) {
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = next) {
        next = klawi_waitq_next(q, w);
        if (!klawi_claim(w->host, w->epoch))
            continue; /* the winner unlinks it */
        klawi_link_remove(&w->link);
        w->host->result = KLAW_OK;
        klawi_wakes_add(wakes, w);
    }
}

void klawi_executor_settle(klaw_executor *ex, klawi_wakes *wakes) {
    KLAWI_ASSERT(ex->pending > 0);
    if (--ex->pending == 0 && KLAWI_UNLIKELY(!klawi_link_empty(&ex->idle)))
        klawi_claim_waiters(&ex->idle, wakes);
}

/* --- opening --- */
static klaw_err check(const klaw_executor_opts *o) {
    if (o->concurrency < KLAW_NONE || o->task.blocking < KLAW_NONE ||
        (o->stack_size && !klawi_stack_class(o->stack_size)))
        return KLAW_INVALID;
    return KLAW_OK;
}

static void fill(klaw_executor *ex, const klaw_executor_opts *o) {
    klawi_lock_init(&ex->lock, KLAWI_RANK_EXECUTOR);
    klawi_link_init(&ex->queue);
    klawi_link_init(&ex->graves);
    klawi_link_init(&ex->runners);
    klawi_link_init(&ex->idle);
    ex->refs = 1;
    ex->limit = o->concurrency == KLAW_NONE ? UINT32_MAX
                : o->concurrency            ? (uint32_t)o->concurrency
                                            : CONCURRENCY_DEFAULT;
    ex->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    snprintf(ex->name, sizeof ex->name, "%s", o->name ? o->name : "executor");
    snprintf(ex->task_name, sizeof ex->task_name, "%s", o->task.name ? o->task.name : "task");
    ex->stack_size = o->stack_size;
    ex->task = o->task;
    ex->task.name = NULL;
    if (o->task.retry) {
        ex->retry = *o->task.retry;
        ex->task.retry = &ex->retry;
    }
    klawi_context_ref(ex->task.context);
}

klaw_err klaw_executor_open_sized(const klaw_executor_opts *opts, size_t opts_size,
                                  klaw_executor **out) {
    klaw_executor_opts o = {0};
    klaw_err e = KLAW_OK;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!out || (e = check(&o)) != KLAW_OK)
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klaw_scope *s = klawi_scope_of(c);
    s = s ? klaw_scope_ref(s) : klawi_root_ref();
    if (!s)
        return KLAW_STOPPED;
    klaw_executor *ex = klawi_alloc_aligned(KLAWI_LINE, sizeof *ex);
    if (!ex) {
        klaw_scope_unref(s);
        return KLAW_NOMEM;
    }
    memset(ex, 0, sizeof *ex);
    ex->scope = s;
    fill(ex, &o);
    klawi_lock_acquire(&registry_lock);
    klawi_link_push(&registry, &ex->live);
    klawi_lock_release(&registry_lock);
    *out = ex;
    return KLAW_OK;
}

void klawi_executor_free(klaw_executor *ex) {
    klawi_lock_acquire(&registry_lock);
    klawi_link_remove(&ex->live);
    klawi_lock_release(&registry_lock);
    klawi_slabs_free(ex->slabs);
    klawi_context_unref(ex->task.context);
    klaw_scope_unref(ex->scope);
    klawi_free_aligned(ex);
}

klaw_executor *klaw_executor_ref(klaw_executor *ex) {
    if (!ex)
        return NULL;
    klawi_lock_acquire(&ex->lock);
    ex->refs++;
    klawi_lock_release(&ex->lock);
    return ex;
}

void klaw_executor_unref(klaw_executor *ex) {
    if (!ex)
        return;
    klawi_lock_acquire(&ex->lock);
    KLAWI_ASSERT(ex->refs > 0);
    if (--ex->refs == 0)
        ex->closed = true;
    bool last = klawi_executor_unused(ex);
    klawi_lock_release(&ex->lock);
    if (last)
        klawi_executor_free(ex);
}

/* --- closing --- */
void klaw_executor_shut(klaw_executor *ex) {
    if (!ex)
        return;
    klawi_lock_acquire(&ex->lock);
    ex->closed = true;
    klawi_lock_release(&ex->lock);
}

/* The next one to be cancelled: queued or running, not asked yet, and not newer than `upto`. Who has
 * been asked goes to the end of the runners, so a sweep is about linear. Under the lock. */
static klaw_task *next_victim(klaw_executor *ex, uint64_t upto) {
    for (klawi_link *l = ex->queue.next; l != &ex->queue; l = l->next) {
        klaw_task *t = KLAWI_CONTAINER(l, klaw_task, link);
        if (!(t->flags & KLAWI_TF_JOB) && t->id <= upto)
            return t;
    }
    for (klawi_link *l = ex->runners.next; l != &ex->runners; l = l->next) {
        klawi_runner *r = KLAWI_CONTAINER(l, klawi_runner, link);
        if (r->task && r->task->id <= upto && !(r->task->asked & KLAWI_TA_CANCELLED)) {
            klawi_link_remove(l);
            klawi_link_push(&ex->runners, l);
            return r->task;
        }
    }
    return NULL;
}

void klaw_executor_cancel(klaw_executor *ex, const char *reason) {
    if (!ex)
        return;
    klawi_jobs_stop(ex);
    klawi_lock_acquire(&ex->lock);
    uint64_t upto = ex->next_task;
    for (klaw_task *t; (t = next_victim(ex, upto)) != NULL;) {
        t->refs++;
        klawi_lock_release(&ex->lock);
        klaw_task_cancel(t, reason);
        klaw_task_unref(t);
        klawi_lock_acquire(&ex->lock);
    }
    klawi_lock_release(&ex->lock);
}

static klaw_err wait_idle(klaw_executor *ex, klaw_deadline deadline, bool shielded) {
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    for (;;) {
        int64_t at = KLAW_FOREVER;
        klawi_lock_acquire(&ex->lock);
        bool none = ex->pending == 0;
        klawi_lock_release(&ex->lock);
        if (none)
            return KLAW_OK;
        if ((e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &at)) != KLAW_OK)
            return e;
        klawi_host_waits(h, KLAWI_WAIT_EXECUTOR, ex->id);
        klawi_waiter_fill(&h->waiter, h, &ex->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_lock_acquire(&ex->lock);
        if (ex->pending == 0) {
            klawi_lock_release(&ex->lock);
            return KLAW_OK;
        }
        klawi_waitq_push(&ex->idle, &h->waiter);
        if (shielded)
            klawi_park_shielded(h, &h->waiter, &ex->lock);
        else if ((e = klawi_park(h, &h->waiter, &ex->lock, at)) != KLAW_OK)
            return e;
    }
}

klaw_err klaw_executor_wait(klaw_executor *ex, klaw_deadline deadline) {
    return ex ? wait_idle(ex, deadline, false) : KLAW_INVALID;
}

klaw_err klaw_executor_close(klaw_executor *ex, klaw_deadline deadline, const char *reason) {
    if (!ex)
        return KLAW_INVALID;
    klaw_executor_shut(ex);
    klaw_err e = wait_idle(ex, deadline, false);
    if (e == KLAW_OK || e == KLAW_INVALID)
        return e;
    klaw_executor_cancel(ex, reason && *reason ? reason : "executor closed");
    (void)wait_idle(ex, KLAW_FOREVER, true);
    return e == KLAW_EMPTY ? KLAW_TIMEOUT : e;
}

/* --- looking --- */
void klaw_executor_get_stats(klaw_executor *ex, klaw_executor_stats *out) {
    memset(out, 0, sizeof *out);
    klawi_lock_acquire(&ex->lock);
    klawi_executor_stats(ex, out);
    klawi_lock_release(&ex->lock);
}

void klawi_executor_stats(klaw_executor *ex, klaw_executor_stats *out) {
    out->id = ex->id;
    out->scope_id = ex->scope->id;
    out->submitted = ex->submitted;
    out->succeeded = ex->succeeded;
    out->failed = ex->failed;
    out->cancelled = ex->cancelled;
    out->timed_out = ex->timed_out;
    out->queued = ex->queued;
    for (klawi_link *l = ex->runners.next; l != &ex->runners; l = l->next) {
        klawi_runner *r = KLAWI_CONTAINER(l, klawi_runner, link);
        out->running += r->task || r->job;
    }
    out->concurrency = ex->limit == UINT32_MAX ? KLAW_NONE : (int64_t)ex->limit;
    memcpy(out->name, ex->name, sizeof out->name);
    out->closed = ex->closed;
}

void klawi_executors_each(void (*visit)(klaw_executor *ex, void *user), void *user) {
    klawi_lock_acquire(&registry_lock);
    for (klawi_link *l = registry.next; l != &registry; l = l->next) {
        klaw_executor *ex = KLAWI_CONTAINER(l, klaw_executor, live);
        klawi_lock_acquire(&ex->lock);
        visit(ex, user);
        klawi_lock_release(&ex->lock);
    }
    klawi_lock_release(&registry_lock);
}

void klawi_tasks_each(klaw_executor *ex, void (*visit)(const klaw_task *t, void *user),
                      void *user) {
    for (klawi_link *l = ex->runners.next; l != &ex->runners; l = l->next) {
        klaw_task *t = KLAWI_CONTAINER(l, klawi_runner, link)->task;
        if (t)
            visit(t, user);
    }
    for (klawi_link *l = ex->queue.next; l != &ex->queue; l = l->next) {
        klaw_task *t = KLAWI_CONTAINER(l, klaw_task, link);
        if (!(t->flags & KLAWI_TF_JOB))
            visit(t, user);
    }
}

__attribute__((constructor)) static void inspect_init(void) {
    klawi_inspect_flow();
}
