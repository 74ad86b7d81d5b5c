/* SPDX-License-Identifier: Apache-2.0 */
/* thread.c - plain threads as hosts, and what a fork leaves behind.
 *
 * A thread that calls a waiting function for the first time gets a host from a type-stable pool; a
 * pthread key gives it back at the thread's end. In the child of a fork the thread-local pointer is
 * cleared, so the fast paths find no context and the slow path answers STOPPED: nothing else checks
 * for forks.
 *
 * Guards: pool.lock for the free list; the rest belongs to its thread. */
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "sched/context.h"
#include "sched/sched.h"

static struct {
    klawi_lock lock;
    klawi_thread *free;
} pool = {KLAWI_LOCK_INIT(KLAWI_RANK_POOL), NULL};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic bool key_ready;
_Atomic bool klawi_forked;

static void thread_give(void *p) {
    klawi_thread *t = p;
    klawi_scope_unwind(&t->inner);
    klawi_context_unref(t->context);
    t->context = NULL;
    klawi_tls = NULL;
    klawi_lock_acquire(&pool.lock);
    t->next = pool.free;
    pool.free = t;
    klawi_lock_release(&pool.lock);
}

void klawi_thread_host_drop(void) {
    klawi_ctx *c = klawi_ctx_get();
    if (!c || c->worker)
        return;
    if (atomic_load(&key_ready))
        pthread_setspecific(key, NULL);
    thread_give(KLAWI_CONTAINER(c, klawi_thread, ctx));
}

static void in_child(void) {
    atomic_store(&klawi_forked, true);
    atomic_store(&klawi_rt, NULL); /* its workers are not here, its poller is the parent's */
    klawi_tls = NULL;
}

static void make_key(void) {
    atomic_store(&key_ready, pthread_key_create(&key, thread_give) == 0);
    pthread_atfork(NULL, NULL, in_child);
}

void klawi_thread_setup(void) {
    pthread_once(&once, make_key);
}

KLAWI_COLD klawi_ctx *klawi_ctx_slow(klaw_err *why) {
    klaw_err ignored;
    if (!why)
        why = &ignored;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed)) {
        *why = KLAW_STOPPED;
        return NULL;
    }
    klawi_thread_setup();
    klawi_lock_acquire(&pool.lock);
    klawi_thread *t = pool.free;
    if (t)
        pool.free = t->next;
    klawi_lock_release(&pool.lock);
    if (!t && (t = klawi_alloc_aligned(KLAWI_LINE, (sizeof *t + KLAWI_LINE - 1) / KLAWI_LINE *
                                                       KLAWI_LINE)) != NULL)
        *t = (klawi_thread){0};
    if (!t) {
        *why = KLAW_NOMEM;
        return NULL;
    }
    t->host.kind = KLAWI_THREAD;
    t->tid = (uint32_t)syscall(SYS_gettid);
    atomic_fetch_and(&t->host.word, ~KLAWI_CANCEL);
    t->ctx.cur = &t->host;
#if defined(KLAWI_DET)
    t->ctx.seed = klawi_det_choose(UINT32_MAX) | 1;
#else
    t->ctx.seed = (uint32_t)(uintptr_t)t | 1;
#endif
    t->ctx.worker = NULL;
    t->ctx.budget = KLAWI_TURN_OPS;
    t->inner = NULL;
#if !defined(KLAWI_DET)
    if (atomic_load(&key_ready))
        pthread_setspecific(key, t);
#endif
    klawi_tls = &t->ctx;
    return &t->ctx;
}

klaw_context **klawi_host_context(void) {
    klawi_ctx *c = klawi_ctx_need(NULL);
    if (!c || !klawi_cur(c))
        return NULL;
    if (klawi_cur(c)->kind == KLAWI_FIBER)
        return &klawi_fiber_of(klawi_cur(c))->context;
    return klawi_cur(c)->kind == KLAWI_THREAD ? &klawi_thread_of(klawi_cur(c))->context : NULL;
}

static void trim(void) {
    klawi_lock_acquire(&pool.lock);
    klawi_thread *t = pool.free;
    pool.free = NULL;
    klawi_lock_release(&pool.lock);
    while (t) {
        klawi_thread *next = t->next;
        klawi_free_aligned(t);
        t = next;
    }
}

__attribute__((constructor)) static void thread_init(void) {
    klawi_trim_register(trim);
}
