/* SPDX-License-Identifier: Apache-2.0 */
/* runner.c - the fibers that run tasks.
 *
 * A runner takes a task, calls its function on its own stack, tells how it ended, takes the next,
 * and ends when there is none: an idle executor has no fibers, and the scope can close. So a task
 * that never waits costs no switch, and one that waits occupies its runner, which is what the
 * executor's bound is about.
 *
 * Runners are spawned one at a time. Whoever queues something, and every runner that leaves
 * something in the queue when it takes, makes sure that one `fresh` runner is under way (up to the
 * bound); it sits in a run queue until the running one parks, yields or is too long about it, or
 * another worker steals it. Bursts of short tasks are therefore run by one runner, without waking
 * anybody; long or waiting ones spread as fast as runners begin.
 *
 * Cancelling what runs cancels the runner's fiber (klaw_fiber_cancel, outside of the lock) and
 * taints it. The canceller pins the runner under the lock before and unpins it after; a runner does
 * not go on to the next task while it is pinned, and revives its fiber when it is tainted. So a
 * cancellation reaches the task it was meant for and no other.
 *
 * Invariants whenever ex->lock is free:
 *   E1  the queue or the graves are not empty => running > 0. The spawner of the only runner, when it fails, ends
 *       what is queued.
 *   E2  they are not, and fresh == 0 => running == limit, or a spawn has failed meanwhile.
 *   E3  a runner's fiber is cancelled on account of a task only from klawi_runner_cancel until
 *       klawi_runner_done; while it is, task or job is set.
 *   E4  t->runner is set => t is RUNNING and t->runner->task == t.
 *
 * Lock: ex->lock; it is never held while a function of the user runs.
 *
 * Rejected: a fiber for each task (a stack and two switches each); runners that park when idle (the
 * scope would wait for them for ever); a scope for each task, to be cancelled (an allocation and
 * two locks for what hardly any task needs). */
#include <string.h>

#include "flow/executor.h"
#include "sched/trace.h"

/* --- cancelling --- */
void klawi_runner_cancel(klawi_runner *r) {
    klaw_executor *ex = r->ex;
    klaw_fiber *f = r->fiber;
    r->tainted = true;
    if (!KLAWI_MUTANT(E3_NO_PIN))
        r->pins++;
    klawi_lock_release(&ex->lock);
    klaw_fiber_cancel(f);
    klawi_lock_acquire(&ex->lock);
    if (!KLAWI_MUTANT(E3_NO_PIN))
        r->pins--;
}

void klawi_runner_done(klawi_runner *r) {
    klaw_executor *ex = r->ex;
    while (KLAWI_UNLIKELY(r->pins > 0)) { /* between the pin and the unpin are no waits */
        klawi_lock_release(&ex->lock);
        klawi_pause();
        klawi_lock_acquire(&ex->lock);
    }
    if (r->task)
        r->task->runner = NULL; /* E4 */
    r->task = NULL;
    r->job = NULL;
    if (KLAWI_UNLIKELY(r->tainted)) {
        r->tainted = false;
        klawi_lock_release(&ex->lock);
        if (!KLAWI_MUTANT(E3_NO_REVIVE))
            klawi_scope_revive(r->fiber);
        klawi_lock_acquire(&ex->lock);
    }
}

/* --- one task --- */
static klaw_err call_blocking(void *p) {
    klaw_task *t = p;
    return klaw_blocking(t->fn, t->arg);
}

static KLAWI_NOINLINE klaw_err call(klaw_task *t) {
    bool blocking = (t->flags & KLAWI_TF_BLOCKING) != 0;
    if (!(t->flags & KLAWI_TF_RETRY))
        return call_blocking(t);
    klaw_fn fn = blocking ? call_blocking : t->fn;
    return klaw_retry(fn, blocking ? t : t->arg, &t->more->retry, NULL);
}

/* What is left of a task besides its result. No lock held. */
static void give_back(klaw_task *t) {
    uint32_t flags = t->flags;
    klawi_context_unref(t->context);
    t->context = NULL;
    if (!(flags & KLAWI_TF_MORE))
        return;
    if (flags & KLAWI_TF_TIMER)
        klaw_timer_drain(&t->more->timer);
    if (t->more->release)
        t->more->release(t->arg);
}

static klaw_err run_in_context(klaw_task *t, klaw_fiber *f) {
    klaw_context_token token;
    klawi_span span;
    bool other = f->context != t->context;
    klaw_err e;
    if (KLAWI_UNLIKELY(other) && (e = klaw_context_enter(t->context, &token)) != KLAW_OK)
        return e;
    klawi_span_begin(&span);
    f->value = NULL;
    e = KLAWI_LIKELY(!(t->flags & KLAWI_TF_CALL)) ? t->fn(t->arg) : call(t);
    if (KLAWI_UNLIKELY(f->inner != NULL))
        klawi_scope_unwind(&f->inner);
    klawi_span_end(&span, KLAW_SPAN_TASK, klawi_task_name(t), e);
    if (KLAWI_UNLIKELY(other))
        klaw_context_leave(&token);
    return e;
}

/* Runs t, which has been taken. Under the lock, which is released and taken again. */
static void run_task(klawi_runner *r, klaw_task *t, klawi_wakes *wakes) {
    klaw_executor *ex = r->ex;
    r->task = t;
    t->runner = r;
    atomic_store_explicit(&t->state, KLAWI_T_RUNNING, memory_order_relaxed);
    bool more = klawi_runner_wanted(ex);
    klawi_lock_release(&ex->lock);
    if (KLAWI_UNLIKELY(more))
        (void)klawi_runner_spawn(ex, NULL, false);

    klaw_err e = run_in_context(t, r->fiber);
    t->value = e == KLAW_OK ? r->fiber->value : NULL;

    klawi_lock_acquire(&ex->lock);
    klawi_runner_done(r);
    if (KLAWI_UNLIKELY(t->context || (t->flags & KLAWI_TF_MORE))) {
        klawi_lock_release(&ex->lock);
        give_back(t);
        klawi_lock_acquire(&ex->lock);
    }
    if (KLAWI_UNLIKELY(e == KLAW_CANCELLED)) {
        if (t->asked & KLAWI_TA_LATE)
            e = KLAW_TIMEOUT;
        else if (!(t->asked & KLAWI_TA_CANCELLED) && klaw_scope_cancelled(ex->scope))
            klawi_task_reason(t, klaw_scope_reason(ex->scope));
    }
    klawi_task_end(t, e, wakes);
    klawi_task_drop(t, wakes);
}

/* A task that does not run: it has ended already, or the scope has been cancelled.
 * Under the lock, which is released and taken again. */
static void bury(klaw_executor *ex, klaw_task *t, klaw_err e, klawi_wakes *wakes) {
    uint32_t was = atomic_load_explicit(&t->state, memory_order_relaxed);
    if (was != KLAWI_T_DONE) {
        if (e == KLAW_CANCELLED && klaw_scope_cancelled(ex->scope))
            klawi_task_reason(t, klaw_scope_reason(ex->scope));
        klawi_task_end(t, e, wakes);
    }
    klawi_lock_release(&ex->lock);
    give_back(t);
    klawi_lock_acquire(&ex->lock);
    klawi_task_drop(t, wakes);
}

/* Takes the next thing to do. Under the lock. */
static inline klaw_task *take(klaw_executor *ex) {
    klawi_link *from = &ex->graves;
    if (KLAWI_LIKELY(klawi_link_empty(from))) {
        from = &ex->queue;
        if (klawi_link_empty(from))
            return NULL;
    }
    klaw_task *t = KLAWI_CONTAINER(from->next, klaw_task, link);
    klawi_link_remove(&t->link);
    if (atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_QUEUED)
        ex->queued--;
    return t;
}

/* --- the fiber --- */
static klaw_err runner_main(void *arg) {
    klaw_executor *ex = arg;
    klawi_runner r = {.ex = ex, .fiber = klawi_fiber_of(klawi_cur(klawi_ctx_get()))};
    klawi_wakes wakes;
    klaw_task *t;
    klawi_lock_acquire(&ex->lock);
    ex->fresh--;
    klawi_link_push(&ex->runners, &r.link);
    while ((t = take(ex)) != NULL) {
        klawi_wakes_init(&wakes);
        if (KLAWI_UNLIKELY(t->flags & KLAWI_TF_JOB))
            klawi_job_run(&r, t);
        else if (KLAWI_LIKELY(
                     (atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_QUEUED ||
                      KLAWI_MUTANT(E5_CANCELLED_RUNS)) &&
                     !klaw_scope_cancelled(ex->scope)))
            run_task(&r, t, &wakes);
        else
            bury(ex, t, KLAW_CANCELLED, &wakes);
        klawi_ctx *c = klawi_ctx_get();
        bool spent = klawi_budget_take(c);
        if (wakes.first || spent) {
            klawi_lock_release(&ex->lock);
            klawi_wakes_run(&wakes);
            if (spent)
                (void)klawi_budget_spent(klawi_ctx_get()); /* a cancelled scope shows above */
            klawi_lock_acquire(&ex->lock);
        }
    }
    if (KLAWI_MUTANT(E1_LEAVE_LATE)) {
        klawi_lock_release(&ex->lock);
        klawi_lock_acquire(&ex->lock);
    }
    klawi_link_remove(&r.link);
    ex->running--;
    bool last = klawi_executor_unused(ex);
    klawi_lock_release(&ex->lock);
    if (last)
        klawi_executor_free(ex);
    return KLAW_OK;
}

klaw_err klawi_runner_spawn(klaw_executor *ex, klaw_task *mine, bool next) {
    klaw_fiber_opts o = {.name = ex->name, .stack_size = ex->stack_size};
    klawi_wakes wakes;
    klaw_task *t;
    klawi_ctx *c = klawi_ctx_get();
    klaw_err e = c && c->worker ? klawi_fiber_spawn(c->worker->rt, c, ex->scope, runner_main, ex,
                                                    &o, next, NULL)
                                : klaw_spawn(ex->scope, runner_main, ex, &o, NULL);
    if (KLAWI_LIKELY(e == KLAW_OK))
        return KLAW_OK;
    klawi_lock_acquire(&ex->lock);
    ex->fresh--;
    ex->running--;
    if (ex->running > 0) { /* the others will have to do */
        klawi_lock_release(&ex->lock);
        return KLAW_OK;
    }
    bool failed = mine && mine->link.next != NULL;
    if (failed) {
        klawi_link_remove(&mine->link);
        ex->queued -= !(mine->flags & KLAWI_TF_JOB) &&
                      atomic_load_explicit(&mine->state, memory_order_relaxed) == KLAWI_T_QUEUED;
    }
    /* Nobody else will come by: E1. */
    while (ex->running == 0 && (t = take(ex)) != NULL) {
        klawi_wakes_init(&wakes);
        if (t->flags & KLAWI_TF_JOB)
            klawi_job_stop(klawi_job_of(t), e, NULL);
        else
            bury(ex, t, e, &wakes);
        klawi_lock_release(&ex->lock);
        klawi_wakes_run(&wakes);
        klawi_lock_acquire(&ex->lock);
    }
    klawi_lock_release(&ex->lock);
    return failed ? e : KLAW_OK;
}
