/* SPDX-License-Identifier: Apache-2.0 */
/* gather.c - waiting for several tasks: groups, and klaw_gather on them.
 *
 * A group gets tasks in the order in which they end. A watch ties one task to one group; it hangs in
 * the task until that ends, then goes to the group's list, and whoever waits for the group is
 * claimed. The task may be of any executor: its lock is taken first, the group's inside.
 *
 * Invariants:
 *   G1  a watch is in the task's list (listed, that executor's lock) or in the group's or in
 *       neither, never in both.
 *   G2  under the group's lock: somebody waits => the list is empty.
 *
 * Rejected: joining one task after the other (the first error of a later one would be seen late). */
#include <string.h>

#include "base/alloc.h"
#include "flow/executor.h"

#define WATCHES_HERE 16u

void klawi_group_init(klawi_group *g) {
    klawi_lock_init(&g->lock, KLAWI_RANK_GATHER);
    g->first = NULL;
    g->last = &g->first;
    klawi_link_init(&g->waiting);
}

/* Under the executor's lock. */
static void tell(klawi_watch *w, klawi_wakes *wakes) {
    klawi_group *g = w->group;
    klawi_lock_acquire(&g->lock);
    w->listed = false;
    w->next = NULL;
    *g->last = w;
    g->last = &w->next;
    klawi_claim_waiters(&g->waiting, wakes);
    klawi_lock_release(&g->lock);
}

void klawi_watches_tell(klaw_task *t, klawi_wakes *wakes) {
    klawi_watch *w = t->watches, *next;
    t->watches = NULL;
    for (; w; w = next) {
        next = w->next;
        tell(w, wakes);
    }
}

void klawi_watch_add(klawi_watch *w, klaw_task *t, klawi_group *g) {
    klaw_executor *ex = t->ex;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    w->task = t;
    w->group = g;
    klawi_lock_acquire(&ex->lock);
    if (atomic_load_explicit(&t->state, memory_order_relaxed) == KLAWI_T_DONE) {
        tell(w, &wakes);
    } else {
        w->listed = true;
        w->next = t->watches;
        t->watches = w;
    }
    klawi_lock_release(&ex->lock);
    klawi_wakes_run(&wakes);
}

void klawi_watch_remove(klawi_watch *w) {
    klaw_executor *ex = w->task->ex;
    klawi_lock_acquire(&ex->lock);
    if (w->listed) {
        klawi_watch **at = &w->task->watches;
        while (*at != w)
            at = &(*at)->next;
        *at = w->next;
        w->listed = false;
    }
    klawi_lock_release(&ex->lock);
}

klaw_err klawi_group_next(klawi_group *g, klaw_deadline deadline, bool shielded,
                          klawi_watch **out) {
    klaw_err e = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    bool resolved = false;
    int64_t at = KLAW_FOREVER;
    for (;;) {
        klawi_lock_acquire(&g->lock);
        klawi_watch *w = g->first;
        if (w) {
            if ((g->first = w->next) == NULL)
                g->last = &g->first;
            klawi_lock_release(&g->lock);
            *out = w;
            return KLAW_OK;
        }
        if (!resolved) {
            klawi_lock_release(&g->lock);
            if (!shielded && (e = klawi_deadline_resolve(deadline, KLAW_EMPTY, &at)) != KLAW_OK)
                return e;
            resolved = true;
            continue;
        }
        klawi_host_waits(h, KLAWI_WAIT_JOIN, 0);
        klawi_waiter_fill(&h->waiter, h, &g->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&g->waiting, &h->waiter);
        if (shielded)
            klawi_park_shielded(h, &h->waiter, &g->lock);
        else if ((e = klawi_park(h, &h->waiter, &g->lock, at)) != KLAW_OK)
            return e;
    }
}

/* --- klaw_gather --- */
static klaw_err error_of(klaw_task *t) {
    return (klaw_err)t->error;
}

/* Waits until all n have ended. The first error in time, if that ends the rest. */
static klaw_err gather(klaw_task *const *tasks, size_t n, klawi_group *g, bool cancel_on_error,
                       klaw_deadline deadline) {
    klaw_err first = KLAW_OK;
    for (size_t done = 0; done < n;) {
        klawi_watch *w = NULL;
        klaw_err e = klawi_group_next(g, deadline, first != KLAW_OK, &w);
        bool cut = e != KLAW_OK;
        if (cut && !cancel_on_error)
            return e;
        if (w) {
            done++;
            (void)atomic_load_explicit(&w->task->state, memory_order_acquire);
            e = error_of(w->task);
        }
        if (e == KLAW_OK || !cancel_on_error || first)
            continue;
        first = e == KLAW_EMPTY ? KLAW_TIMEOUT : e;
        for (size_t i = 0; i < n; i++)
            klaw_task_cancel(tasks[i], cut ? "gather: cancelled" : "gather: another one failed");
    }
    return first;
}

klaw_err klaw_gather(klaw_task *const *tasks, size_t n, klaw_task_result *results,
                     bool cancel_on_error, klaw_deadline deadline) {
    klawi_watch here[WATCHES_HERE], *w = here;
    klawi_group g;
    if (n && !tasks)
        return KLAW_INVALID;
    for (size_t i = 0; i < n; i++)
        if (!tasks[i])
            return KLAW_INVALID;
    if (n > WATCHES_HERE && (w = klawi_calloc(n, sizeof *w)) == NULL)
        return KLAW_NOMEM;
    klawi_group_init(&g);
    for (size_t i = 0; i < n; i++)
        klawi_watch_add(&w[i], tasks[i], &g);
    klaw_err e = gather(tasks, n, &g, cancel_on_error, deadline), first = KLAW_OK;
    for (size_t i = 0; i < n; i++) {
        klawi_watch_remove(&w[i]);
        bool ended = atomic_load_explicit(&tasks[i]->state, memory_order_acquire) == KLAWI_T_DONE;
        if (results)
            results[i] = ended ? (klaw_task_result){error_of(tasks[i]), tasks[i]->value}
                               : (klaw_task_result){KLAW_EMPTY, NULL};
        if (ended && first == KLAW_OK)
            first = error_of(tasks[i]);
    }
    if (w != here)
        klawi_free(w);
    return e ? e : first;
}
