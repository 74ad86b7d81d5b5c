/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.c - starting and stopping: klaw_run.
 *
 * The calling thread sleeps; the workers are threads of their own, so that a fiber that never
 * reaches a cancel point can be abandoned while klaw_run returns. The runtime object, its workers
 * and its poller are made once and used again by the next run: a foreign thread that is still
 * inside a wake-up of the former run touches valid memory. After an abandonment they are left to
 * the stuck worker and the next run makes new ones.
 *
 * Life: klawi_rt is set -> workers start -> main fiber -> the root scope becomes empty (on_empty)
 * -> closed -> stop -> workers leave -> klawi_rt is NULL.
 *
 * Invariants:
 *   T1  at most one runtime runs; `starting` is won by compare-and-swap.
 *   T2  a spawn that succeeded keeps the root scope alive, so no worker leaves while a fiber exists
 *       (unless abandoned). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/inspect.h"
#include "sched/context.h"
#include "sched/sched.h"

#if defined(KLAWI_TSAN)
void *__tsan_get_current_fiber(void);
#endif

#define GRACE_DEFAULT KLAW_S(5)
#define WORKERS_MAX ((uint32_t)KLAW_CONFIG_CONCURRENCY_MAX)
#define BLOCKING_DEFAULT 64u

static _Atomic uint32_t starting;
static klawi_runtime *kept; /* owner: who won `starting` */

/* --- making --- */
static klawi_worker *worker_new(klawi_runtime *rt, uint32_t index) {
    klawi_worker *w = klawi_alloc_aligned(KLAWI_LINE, sizeof *w);
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    w->index = index;
    w->rt = rt;
    klawi_lock_init(&w->inbox_lock, KLAWI_RANK_INBOX);
    klawi_wheel_init(&w->wheel, 0);
    return w;
}

static void worker_reset(klawi_worker *w, size_t stack_size) {
    w->ctx.worker = w;
    klawi_cur_set(w, &w->idle_host);
#if defined(KLAWI_DET)
    w->ctx.seed = klawi_det_choose(UINT32_MAX) | 1;
    w->next_id = 0; /* a schedule must not depend on what the one before left */
#else
    w->ctx.seed = 0x9e3779b9u * (w->index + 1) | 1;
#endif
    w->ctx.budget = KLAWI_TURN_OPS;
    atomic_store(&w->inbox, NULL);
    w->pinned = NULL;
    w->pinned_tail = &w->pinned;
    w->slot_runs = 0;
    w->watching = false;
    w->handoff = NULL;
    w->dead_stack = NULL;
    atomic_store(&w->slot, NULL);
    atomic_store(&w->taking, false);
    atomic_store(&w->lockout, false);
    atomic_store(&w->turns, 0);
    atomic_store(&w->state, KLAWI_W_RUNNING);
    w->seen_turns = 0;
    w->stacks.size_class = (uint8_t)klawi_stack_class(stack_size);
    klawi_wheel_revive(&w->wheel, klawi_clock());
}

static klawi_runtime *runtime_new(void) {
    klawi_runtime *rt = klawi_alloc_aligned(KLAWI_LINE, sizeof *rt);
    if (!rt)
        return NULL;
    memset(rt, 0, sizeof *rt);
    klawi_lock_init(&rt->global_lock, KLAWI_RANK_INBOX);
    rt->poller.epfd = rt->poller.evfd = -1;
    rt->workers = klawi_calloc(WORKERS_MAX, sizeof(klawi_worker *));
    if (!rt->workers) {
        klawi_free_aligned(rt);
        return NULL;
    }
    return rt;
}

static void runtime_free(klawi_runtime *rt) {
    klawi_poller_close(&rt->poller);
    for (uint32_t i = 0; i < WORKERS_MAX && rt->workers[i]; i++)
        klawi_free_aligned(rt->workers[i]);
    klawi_free(rt->workers);
    klawi_free_aligned(rt);
}

static void root_empty(void *arg) {
    klawi_runtime *rt = arg;
    atomic_fetch_or(&rt->done, 1);
    klawi_futex_wake(&rt->done, 1);
}

static klaw_err runtime_prepare(const klaw_run_opts *o) {
    klaw_err e;
    if (!kept && (kept = runtime_new()) == NULL)
        return KLAW_NOMEM;
    klawi_runtime *rt = kept;
    uint32_t cpus = klawi_cpu_seen(); /* fibers, whose stacks may be small, find it remembered */
    rt->nworkers = o->workers;
    rt->blocking_max = o->blocking_threads ? o->blocking_threads : BLOCKING_DEFAULT;
    rt->grace = o->grace ? o->grace : GRACE_DEFAULT;
    rt->stack_size = o->stack_size ? o->stack_size : KLAWI_STACK_DEFAULT;
    rt->can_spin = rt->nworkers > 1 && cpus > 1;
    snprintf(rt->name, sizeof rt->name, "%s", o->name ? o->name : "main");
    for (uint32_t i = 0; i < rt->nworkers; i++) {
        if (!rt->workers[i] && (rt->workers[i] = worker_new(rt, i)) == NULL)
            return KLAW_NOMEM;
        worker_reset(rt->workers[i], rt->stack_size);
    }
    if (rt->poller.epfd < 0 && (e = klawi_poller_open(&rt->poller)) != KLAW_OK)
        return e;
    atomic_store(&rt->global, NULL);
    atomic_store(&rt->global_len, 0);
    atomic_store(&rt->sleepers, 0);
    atomic_store(&rt->searching, 0);
    atomic_store(&rt->polling, 0);
    atomic_store(&rt->stop, 0);
    atomic_store(&rt->done, 0);
    klawi_context_log();
    klaw_scope_opts so = {.name = "root"};
    if ((e = klawi_scope_new(&so, &rt->root)) != KLAW_OK)
        return e;
    rt->root->on_empty = root_empty;
    rt->root->on_empty_arg = rt;
    klawi_heavy = klawi_heavy_fence_ready();
    klawi_stack_slack(rt->nworkers, klawi_stack_class(rt->stack_size));
    return KLAW_OK;
}

/* --- workers --- */
static void *worker_main(void *arg) {
    klawi_worker *w = arg;
    klawi_tls = &w->ctx;
    w->sig_stack = klawi_fault_stack_enter();
#if defined(KLAWI_TSAN)
    w->tsan_fiber = __tsan_get_current_fiber();
#endif
#if defined(KLAWI_ASAN)
    pthread_attr_t at;
    void *low;
    if (pthread_getattr_np(pthread_self(), &at) == 0) {
        pthread_attr_getstack(&at, &low, &w->asan_size);
        w->asan_low = low;
        pthread_attr_destroy(&at);
    }
#endif
    klawi_worker_loop(w);
#if defined(KLAWI_TSAN)
    (void)atomic_load_explicit(&w->ended, memory_order_acquire);
#endif
    klawi_worker_caches_free(w);
    klawi_fault_stack_leave(w->sig_stack);
    klawi_tls = NULL;
    return NULL;
}

static void stop_workers(klawi_runtime *rt, uint32_t started) {
    atomic_store(&rt->stop, 1);
    for (uint32_t i = 0; i < started; i++) {
        klawi_worker *w = rt->workers[i];
        uint32_t s = KLAWI_W_SLEEPING;
        if (atomic_compare_exchange_strong(&w->state, &s, KLAWI_W_RUNNING))
            atomic_fetch_sub(&rt->sleepers, 1);
        klawi_futex_wake(&w->state, 1);
        klawi_poller_wake(&rt->poller);
    }
    for (uint32_t i = 0; i < started; i++)
        klawi_thread_join(rt->workers[i]->thread);
}

static klaw_err start_workers(klawi_runtime *rt) {
    for (uint32_t i = 0; i < rt->nworkers; i++) {
        char name[16];
        snprintf(name, sizeof name, "klaw-%u", i);
        klaw_err e = klawi_fail_point() ? KLAW_SYSTEM
                                        : klawi_thread_start(&rt->workers[i]->thread, name,
                                                             worker_main, rt->workers[i]);
        if (e) {
            stop_workers(rt, i);
            return e;
        }
    }
    return KLAW_OK;
}

/* --- running --- */
static klaw_err main_fiber(void *p) {
    klawi_runtime *rt = p;
    rt->result = rt->main(rt->main_arg);
    return rt->result == KLAW_CANCELLED ? KLAW_OK : rt->result;
}

/* Names it, once in its life, and sees to it that nobody readies it in another run. Only of one
 * that waits nobody else writes the flags. */
static void name_stuck(klaw_fiber *f, void *user) {
    (void)user;
    if (klawi_ff(f) & KLAWI_FF_ABANDONED)
        return;
    if (atomic_load_explicit(&f->host.word, memory_order_relaxed) & KLAWI_ARMED) {
        atomic_store_explicit(&f->home, UINT16_MAX, memory_order_relaxed);
        klawi_ff_set(f, KLAWI_FF_PINNED | KLAWI_FF_ABANDONED);
    }
    fprintf(stderr, "klaw: abandoned fiber '%s' (id %llu): it reached no cancel point\n",
            klawi_fiber_name(f), (unsigned long long)f->id);
}

/* Waits until the root scope is empty, cancelling at the deadline and giving up after the grace.
 * False: abandoned. done: bit 0: empty; bit 1: look again (klaw_run_stop); bit 2: give up. */
static bool wait_done(klawi_runtime *rt, int64_t deadline) {
    int64_t give_up = KLAW_FOREVER;
    for (;;) {
        uint32_t done = atomic_exchange(&rt->done, 0);
        if ((done & 1) && klawi_scope_shut(rt->root))
            return true; /* else a foreign thread spawned in between: it will be empty once more */
        int64_t now =
            give_up == KLAW_FOREVER && deadline == KLAW_FOREVER && !done ? 0 : klawi_clock();
        if (now >= deadline && !klaw_scope_cancelled(rt->root))
            rt->root->timer.fn((void *)(uintptr_t)rt->root->timer.key);
        if (done & 4)
            give_up = now;
        else if (give_up == KLAW_FOREVER && klaw_scope_cancelled(rt->root))
            give_up = klawi_clock() + rt->grace;
        if (now >= give_up)
            return false;
        klawi_futex_wait(&rt->done, 0, give_up != KLAW_FOREVER ? give_up : deadline);
    }
}

/* Guards the way from klawi_rt to its root against the end of the run. */
static klawi_lock root_lock = KLAWI_LOCK_INIT(KLAWI_RANK_RUNTIME);

klaw_scope *klawi_root_ref(void) {
    klawi_lock_acquire(&root_lock);
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    klaw_scope *s = rt ? klaw_scope_ref(rt->root) : NULL;
    klawi_lock_release(&root_lock);
    return s;
}

static void set_current(klawi_runtime *rt) {
    klawi_lock_acquire(&root_lock);
    atomic_store_explicit(&klawi_rt, rt, memory_order_release);
    klawi_lock_release(&root_lock);
}

/* `only`: nothing happens in a run with another root. */
static klaw_err stop(const klaw_scope *only, const char *reason, uint32_t bit) {
    klaw_scope *root = atomic_load(&klawi_forked) ? NULL : klawi_root_ref();
    if (!root || (only && root != only)) {
        klaw_scope_unref(root);
        return KLAW_STOPPED;
    }
    klawi_runtime *rt = root->on_empty_arg;
    klaw_scope_cancel(root, reason);
    atomic_fetch_or(&rt->done, bit);
    klawi_futex_wake(&rt->done, 1);
    klaw_scope_unref(root);
    return KLAW_OK;
}

klaw_err klaw_run_stop(const char *reason) {
    return stop(NULL, reason, 2);
}

klaw_err klawi_run_give_up(const klaw_scope *root, const char *reason) {
    return stop(root, reason, 4);
}

uint32_t klaw_run_workers(void) {
    klawi_runtime *rt = atomic_load_explicit(&klawi_rt, memory_order_acquire);
    return rt ? rt->nworkers : 0;
}

/* Leaves everything to the stuck fibers: their worker never comes back, or does so harmlessly. */
static klaw_err abandon(klawi_runtime *rt) {
    klawi_fibers_each(name_stuck, NULL);
    atomic_store(&rt->stop, 1);
    for (uint32_t i = 0; i < rt->nworkers; i++) {
        klawi_futex_wake(&rt->workers[i]->state, 1);
        klawi_thread_detach(rt->workers[i]->thread);
    }
    klawi_poller_wake(&rt->poller);
    klawi_blocking_abandon();
    for (uint32_t i = 0; i < rt->nworkers;
         i++) /* descriptors that are used again must not stay filed here */
        klawi_wheel_clear(&rt->workers[i]->wheel);
    kept = NULL;
    return KLAW_TIMEOUT;
}

static klaw_err run(klaw_fn fn, void *arg, const klaw_run_opts *o) {
    klaw_err why = KLAW_OK;
    klawi_ctx *c = klawi_ctx_need(&why);
    if (!c)
        return why;
    klaw_err e = runtime_prepare(o);
    if (e)
        return e;
    klawi_runtime *rt = kept;
    if ((e = start_workers(rt)) != KLAW_OK) {
        klawi_scope_retire(rt->root);
        return e;
    }
    static const klaw_fiber_opts none;
    klaw_fiber_opts fo = none;
    fo.name = rt->name;
    rt->main = fn;
    rt->main_arg = arg;
    rt->result = KLAW_OK;
    set_current(rt);
    e = klawi_fiber_spawn(rt, c, rt->root, main_fiber, rt, &fo, false, NULL);
    if (e)
        root_empty(rt); /* unless another thread has spawned meanwhile: that is waited for */
    int64_t at = KLAW_FOREVER;
    if (o->deadline && klawi_deadline_resolve(o->deadline, KLAW_TIMEOUT, &at) != KLAW_OK)
        at = 0;
    if (!wait_done(rt, at)) {
        set_current(NULL);
        return abandon(rt);
    }
    klawi_blocking_stop(rt);
    stop_workers(rt, rt->nworkers);
    set_current(NULL);
    for (uint32_t i = 0; i < rt->nworkers; i++)
        klawi_wheel_clear(&rt->workers[i]->wheel);
    if (e == KLAW_OK) { /* that main was cancelled does not say why: the scope knows */
        e = klawi_scope_result(rt->root);
        if (rt->result && (rt->result != KLAW_CANCELLED || e == KLAW_OK))
            e = rt->result;
    }
    klawi_scope_retire(rt->root);
    return e;
}

klaw_err klaw_run_sized(klaw_fn fn, void *arg, const klaw_run_opts *opts, size_t opts_size) {
    klaw_run_opts o = {0};
    uint32_t zero = 0;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    klawi_ctx *c = klawi_ctx_get();
    if (!fn || o.workers > WORKERS_MAX || o.grace < 0 ||
        (o.stack_size && !klawi_stack_class(o.stack_size)))
        return KLAW_INVALID;
    if (c && c->worker)
        return KLAW_EXISTS;
    if (atomic_load(&klawi_forked))
        return KLAW_STOPPED;
    if (!atomic_compare_exchange_strong(&starting, &zero, 1))
        return KLAW_EXISTS;
    klawi_thread_setup();
    klawi_fault_install();
    klaw_error_info info;
    klaw_err e = o.workers ? KLAW_OK : klawi_concurrency(&o.workers, NULL, &info);
    if (e == KLAW_OK)
        e = klawi_inspect_begin(o.inspect, &info);
    if (e)
        fprintf(stderr, "klaw: %s\n", info.message);
    else
        e = run(fn, arg, &o);
    atomic_store(&starting, 0);
    return e;
}

static void trim(void) {
    uint32_t zero = 0;
    if (!atomic_compare_exchange_strong(&starting, &zero, 1))
        return;
    if (kept)
        runtime_free(kept);
    kept = NULL;
    atomic_store(&starting, 0);
}

__attribute__((constructor)) static void runtime_init(void) {
    klawi_trim_register(trim);
    klawi_inspect_sched();
}
