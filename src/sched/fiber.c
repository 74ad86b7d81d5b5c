/* SPDX-License-Identifier: Apache-2.0 */
/* fiber.c - the life of a fiber: made, run, ended, joined.
 *
 * Descriptors are type-stable: cut from blocks that are never freed while a runtime runs, so that
 * timers and cancellers may try a stale (host, epoch) at any time. Names are cells of type-stable
 * memory for the same reason.
 *
 * Two hold a fiber: its run and its handle. The one that ends last, by the join lock, recycles the
 * descriptor: an ended fiber (state DONE) with a handle waits for join or detach. A joiner that
 * finds DONE may recycle at once, so the run touches nothing of it after that.
 *
 * Ending: scope left and joiner claimed in one section of the join lock (result first, state DONE
 * last), then the stack goes to the worker's own cache while we still run on it: nobody else takes
 * from that cache, and we take only after the switch (P11). If the next fiber is new and wants the
 * same kind of stack it simply begins on ours.
 *
 * Invariants under f->join_lock:
 *   F1  state LIVE from spawn until the result is stored; id, name, scope stand still while LIVE.
 *   F2  at most one joiner, and only while LIVE.
 *   F3  LIVE => the scope exists: the fiber is its member until the section that ends LIVE. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "sched/context.h"
#include "sched/sched.h"

#define BLOCK_FIRST 64u
#define BLOCK_MAX 8192u
#define HUGE_PAGE ((size_t)2 << 20)
#define FREE_MAX 128u
#define ID_BLOCK 1024u

struct block {
    struct block *next; /* (c) once published */
    uint32_t count;     /* (c) */
    klaw_fiber *fibers; /* (c) */
};

union name_cell {
    union name_cell *next;
    char text[KLAWI_NAME_MAX];
};

static struct {
    klawi_lock lock;
    klaw_fiber *free;               /* (L) */
    _Atomic(struct block *) blocks; /* (L) written, walked without */
    uint32_t next_count;            /* (L) */
    union name_cell *names;         /* (L) free cells */
    _Atomic uint64_t next_id;       /* (a) */
} pool = {KLAWI_LOCK_INIT(KLAWI_RANK_POOL), NULL, NULL, BLOCK_FIRST, NULL, 1};

const char *klawi_fiber_name(const klaw_fiber *f) {
    return f->name ? f->name : "fiber";
}

/* --- descriptors --- */
static klaw_err more_fibers(void) {
    klawi_lock_acquire(&pool.lock);
    uint32_t n = pool.next_count;
    klawi_lock_release(&pool.lock);
    struct block *b = klawi_alloc(sizeof *b);
    if (!b)
        return KLAW_NOMEM;
    b->count = n;
    size_t bytes = n * sizeof *b->fibers;
    b->fibers = klawi_fail_point()
                    ? MAP_FAILED
                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->fibers == MAP_FAILED) {
        klawi_free(b);
        return KLAW_NOMEM;
    }
    if (bytes >= HUGE_PAGE) /* a page fault each 13 descriptors costs more than they do */
        madvise(b->fibers, bytes, MADV_HUGEPAGE);
    for (uint32_t i = 0; i < n; i++) {
        b->fibers[i].host.kind = KLAWI_FIBER;
        klawi_lock_init(&b->fibers[i].join_lock, KLAWI_RANK_FIBER);
        klawi_link_init(&b->fibers[i].joiners);
        b->fibers[i].next = i + 1 < n ? &b->fibers[i + 1] : NULL;
    }
    klawi_lock_acquire(&pool.lock);
    b->next = atomic_load_explicit(&pool.blocks, memory_order_relaxed);
    atomic_store_explicit(&pool.blocks, b, memory_order_release);
    b->fibers[n - 1].next = pool.free;
    pool.free = &b->fibers[0];
    if (n < BLOCK_MAX)
        pool.next_count = n * 2;
    klawi_lock_release(&pool.lock);
    return KLAW_OK;
}

static klaw_fiber *pool_take(void) {
    klawi_lock_acquire(&pool.lock);
    klaw_fiber *f = pool.free;
    if (f)
        pool.free = f->next;
    klawi_lock_release(&pool.lock);
    return f;
}

static klaw_fiber *take(klawi_worker *w) {
    klaw_fiber *f;
    if (w && (f = w->free_fibers) != NULL) {
        w->free_fibers = f->next;
        w->free_count--;
        return f;
    }
    while ((f = pool_take()) == NULL)
        if (more_fibers() != KLAW_OK)
            return NULL;
    if (!w)
        return f;
    klawi_lock_acquire(&pool.lock); /* some more for this worker */
    while (w->free_count < FREE_MAX / 2 && pool.free) {
        klaw_fiber *g = pool.free;
        pool.free = g->next;
        g->next = w->free_fibers;
        w->free_fibers = g;
        w->free_count++;
    }
    klawi_lock_release(&pool.lock);
    return f;
}

static void give(klawi_worker *w, klaw_fiber *f) {
    if (w && w->free_count < FREE_MAX) {
        f->next = w->free_fibers;
        w->free_fibers = f;
        w->free_count++;
        return;
    }
    klaw_fiber *last = f;
    f->next = NULL;
    while (w && w->free_count > FREE_MAX / 2) {
        last->next = w->free_fibers;
        last = last->next;
        w->free_fibers = last->next;
        w->free_count--;
    }
    klawi_lock_acquire(&pool.lock);
    last->next = pool.free;
    pool.free = f;
    klawi_lock_release(&pool.lock);
}

static klaw_fiber *fiber_take(klawi_worker *w) {
    KLAWI_OWNED_BEGIN();
    klaw_fiber *f = take(w);
    KLAWI_OWNED_END();
    if (f)
        (void)atomic_load_explicit(
            &f->state,
            memory_order_acquire); /* pairs with the release of FREE: whoever had it before is done */
    return f;
}

static void fiber_give(klawi_worker *w, klaw_fiber *f) {
    KLAWI_OWNED_BEGIN();
    give(w, f);
    KLAWI_OWNED_END();
}

void klawi_worker_caches_free(klawi_worker *w) {
    klawi_stack_cache_flush(&w->stacks);
    while (w->free_fibers) {
        klaw_fiber *f = w->free_fibers;
        w->free_fibers = f->next;
        fiber_give(NULL, f);
    }
    w->free_count = 0;
}

static char *name_take(const char *name) {
    klawi_lock_acquire(&pool.lock);
    union name_cell *c = pool.names;
    if (c)
        pool.names = c->next;
    klawi_lock_release(&pool.lock);
    if (!c && (c = klawi_alloc(sizeof *c)) == NULL)
        return NULL;
    snprintf(c->text, sizeof c->text, "%s", name);
    return c->text;
}

static void name_give(char *name) {
    union name_cell *c = (union name_cell *)(void *)name;
    klawi_lock_acquire(&pool.lock);
    c->next = pool.names;
    pool.names = c;
    klawi_lock_release(&pool.lock);
}

void klawi_fibers_each(void (*visit)(klaw_fiber *f, void *user), void *user) {
    for (struct block *b = atomic_load_explicit(&pool.blocks, memory_order_acquire); b; b = b->next)
        for (uint32_t i = 0; i < b->count; i++) {
            klaw_fiber *f = &b->fibers[i];
            if (atomic_load_explicit(&f->state, memory_order_relaxed) != KLAWI_F_LIVE)
                continue;
            klawi_lock_acquire(&f->join_lock);
            if (atomic_load_explicit(&f->state, memory_order_acquire) == KLAWI_F_LIVE)
                visit(f, user);
            klawi_lock_release(&f->join_lock);
        }
}

/* --- spawning --- */
static klaw_err fiber_fill(klaw_fiber *f, klawi_runtime *rt, klawi_ctx *c,
                           const klaw_fiber_opts *o) {
    size_t size = o->stack_size ? o->stack_size : rt->stack_size;
    unsigned class = klawi_stack_class(size);
    uint32_t flags = KLAWI_FF_NEW;
    if (class == 0)
        return KLAW_INVALID;
    char *name = NULL;
    if (o->name && (name = name_take(o->name)) == NULL)
        return KLAW_NOMEM;
    klawi_stack_cache *cache = c->worker ? &c->worker->stacks : NULL;
    KLAWI_OWNED_BEGIN();
    klaw_err e = klawi_stack_reserve(cache, class, o->unguarded);
    KLAWI_OWNED_END();
    if (e) {
        if (name)
            name_give(name);
        return e;
    }
    flags |= o->pinned ? KLAWI_FF_PINNED : 0;
    flags |= o->cxx ? KLAWI_FF_CXX : 0;
    flags |= o->fpenv ? KLAWI_FF_FPENV : 0;
    flags |= o->unguarded ? KLAWI_FF_UNGUARDED : 0;
    f->size_class = (uint8_t) class;
    atomic_store_explicit(&f->home, (uint16_t)(c->worker ? c->worker->index : 0),
                          memory_order_relaxed);
    f->stack = NULL;
    f->value = NULL;
    f->inner = NULL;
    f->host.result = 0;
    atomic_store_explicit(&f->host.what, KLAWI_WAIT_NONE, memory_order_relaxed);
    atomic_fetch_and_explicit(&f->host.word, ~KLAWI_CANCEL, memory_order_relaxed);
    atomic_store_explicit(&f->on_cpu, 0, memory_order_relaxed);
    atomic_store_explicit(&f->flags, flags, memory_order_relaxed);
    klawi_lock_acquire(&f->join_lock);
    f->name = name;
    klawi_lock_release(&f->join_lock);
    return KLAW_OK;
}

static void inherit_context(klaw_fiber *f, klawi_ctx *c, klaw_scope *scope) {
    klawi_host *h = klawi_cur(c);
    klaw_context *ctx = h->kind == KLAWI_FIBER    ? klawi_fiber_of(h)->context
                        : h->kind == KLAWI_THREAD ? klawi_thread_of(h)->context
                                                  : NULL;
    f->context = ctx;
    if (ctx && ctx != scope->context) { /* the scope's own is borrowed: R10 */
        klawi_context_ref(ctx);
        klawi_ff_set(f, KLAWI_FF_CONTEXT);
    }
}

/* Not LIVE, nobody holds it, join lock not held. */
static void recycle(klaw_fiber *f) {
    klawi_ctx *c = klawi_ctx_get();
    KLAWI_OWNED_BEGIN();
    char *name = f->name;
    f->name = NULL;
    KLAWI_OWNED_END();
    if (name)
        name_give(name);
    fiber_give(c ? c->worker : NULL, f);
}

/* Numbers in blocks per worker, so that spawning shares no counter. */
static uint64_t next_id(klawi_worker *w) {
    if (!w)
        return atomic_fetch_add_explicit(&pool.next_id, 1, memory_order_relaxed);
    KLAWI_OWNED_BEGIN();
    if (w->next_id % ID_BLOCK == 0)
        w->next_id = atomic_fetch_add_explicit(&pool.next_id, ID_BLOCK * 2, memory_order_relaxed) /
                         ID_BLOCK * ID_BLOCK +
                     ID_BLOCK;
    uint64_t id = w->next_id++;
    KLAWI_OWNED_END();
    return id;
}

klaw_err klawi_fiber_spawn(klawi_runtime *rt, klawi_ctx *c, klaw_scope *scope, klaw_fn fn,
                           void *arg, const klaw_fiber_opts *o, bool next, klaw_fiber **out) {
    klaw_fiber *f = fiber_take(c->worker);
    if (!f)
        return KLAW_NOMEM;
    klaw_err e = fiber_fill(f, rt, c, o);
    if (e) {
        fiber_give(c->worker, f);
        return e;
    }
    f->fn = fn;
    f->arg = arg;
    f->scope = scope;
    f->handle = out != NULL;
    f->governed = 0;
    f->id = next_id(c->worker);
    inherit_context(f, c, scope);
    e = klawi_scope_join(scope, f);
    if (e) {
        klawi_stack_unreserve(c->worker ? &c->worker->stacks : NULL, f->size_class, o->unguarded);
        if (klawi_ff(f) & KLAWI_FF_CONTEXT)
            klawi_context_unref(f->context);
        recycle(f);
        return e;
    }
    /* Release: who looks (under the join lock) and finds LIVE finds all of the above. */
    atomic_store_explicit(&f->state, KLAWI_F_LIVE, memory_order_release);
    if (out)
        *out = f;
    if (c->worker && next && !o->pinned)
        klawi_ready(&f->host);
    else if (c->worker) /* its home is here */
        klawi_runq_push(c->worker, f);
    else if (o->pinned)
        klawi_inject_pinned(rt, f);
    else
        klawi_inject(rt, f);
    return KLAW_OK;
}

klaw_err klaw_spawn_sized(klaw_scope *scope, klaw_fn fn, void *arg, const klaw_fiber_opts *opts,
                          size_t opts_size, klaw_fiber **out) {
    static const klaw_fiber_opts none;
    klaw_fiber_opts copy;
    klaw_err e = KLAW_OK;
    if (!fn)
        return KLAW_INVALID;
    if (opts && opts_size < sizeof copy) {
        memset(&copy, 0, sizeof copy);
        memcpy(&copy, opts, opts_size);
        opts = &copy;
    }
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_runtime *rt =
        c->worker ? c->worker->rt : atomic_load_explicit(&klawi_rt, memory_order_acquire);
    if (!rt)
        return KLAW_STOPPED;
    if (!scope)
        scope = klawi_scope_of(c);
    if (!scope) { /* a thread outside: the run may end under our hands */
        if ((scope = klawi_root_ref()) == NULL)
            return KLAW_STOPPED;
        rt = scope->on_empty_arg; /* the run that this root is of */
        e = klawi_fiber_spawn(rt, c, scope, fn, arg, opts ? opts : &none, false, out);
        klaw_scope_unref(scope);
        return e;
    }
    return klawi_fiber_spawn(rt, c, scope, fn, arg, opts ? opts : &none, false, out);
}

klaw_err klaw_go(klaw_fn fn, void *arg) {
    return klaw_spawn_sized(NULL, fn, arg, NULL, 0, NULL);
}

/* --- running --- */
#if defined(KLAWI_TSAN)
void *__tsan_create_fiber(unsigned flags);
#endif
#if defined(KLAWI_ASAN)
void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
#endif
/* C++'s per-thread exception state; there only in programs with C++. */
extern void *__cxa_get_globals(void) __attribute__((weak));

void klawi_fiber_attach(klawi_worker *w, klaw_fiber *f) {
    klawi_stack *s =
        klawi_stack_take(&w->stacks, f->size_class, (klawi_ff(f) & KLAWI_FF_UNGUARDED) != 0);
    f->stack = s;
    klawi_ff_clear(f, KLAWI_FF_NEW);
    if (s->no_guard)
        klawi_ff_set(f, KLAWI_FF_CANARY);
    klawi_fpenv env;
    klawi_fpenv_save(&env);
    s->fpenv = env.word;
    s->cxx[0] = s->cxx[1] = 0;
#if defined(KLAWI_TSAN)
    if (!s->tsan_fiber)
        s->tsan_fiber = __tsan_create_fiber(0);
#endif
    f->sp = klawi_stack_prepare(s->top, klawi_fiber_entry, f);
}

static void swap_globals(klawi_stack *s) {
    if (!__cxa_get_globals)
        return;
    KLAWI_OWNED_BEGIN(); /* the thread's, whichever fiber is on it */
    uint64_t *g = __cxa_get_globals(), old[2] = {g[0], g[1]};
    g[0] = s->cxx[0];
    g[1] = s->cxx[1];
    s->cxx[0] = old[0];
    s->cxx[1] = old[1];
    KLAWI_OWNED_END();
}

static void swap_fpenv(klawi_stack *s) {
    klawi_fpenv now, next = {s->fpenv};
    klawi_fpenv_save(&now);
    klawi_fpenv_load(&next);
    s->fpenv = now.word;
}

void klawi_fiber_leaves(klawi_stack *s, uint32_t flags) {
    if (flags & KLAWI_FF_FPENV)
        swap_fpenv(s);
    if (flags & KLAWI_FF_CXX)
        swap_globals(s);
}

static void check_canary(const klaw_fiber *f) {
    if ((klawi_ff(f) & KLAWI_FF_CANARY) && !klawi_stack_intact(f->stack))
        klawi_fatal("stack overflow in fiber '%s' (id %llu, %zu KiB, unguarded): raise "
                    "klaw_fiber_opts.stack_size",
                    klawi_fiber_name(f), (unsigned long long)f->id,
                    ((size_t)1 << f->size_class) / 1024);
}

void klawi_fiber_store(klaw_fiber *f) {
    uint32_t flags = klawi_ff(f);
    check_canary(f);
    klawi_fiber_leaves(f->stack, flags);
}

void klawi_fiber_restore(klaw_fiber *f) {
    uint32_t flags = klawi_ff(f);
    if (flags & KLAWI_FF_FPENV)
        swap_fpenv(f->stack);
    if (flags & KLAWI_FF_CXX)
        swap_globals(f->stack);
}

/* Runs the function and tells whoever waits. With a handle out the descriptor may be gone at
 * return; true: it is ours to recycle. */
static bool run_to_end(klaw_fiber *f) {
    klaw_err result = f->fn(f->arg);
    klawi_wakes wakes;
    klawi_scope_end end;
    check_canary(f); /* before the stack goes to another, who would be blamed */
    klawi_wakes_init(&wakes);
    if (KLAWI_UNLIKELY(f->inner != NULL))
        klawi_scope_unwind(&f->inner);
    if (klawi_ff(f) & KLAWI_FF_CONTEXT)
        klawi_context_unref(f->context);
    klawi_scope_failed(f, result);
    klawi_lock_acquire(&f->join_lock);
    if (!KLAWI_MUTANT(P11_EARLY_READY))
        f->host.result = (int32_t)result;
    klawi_scope_exit(f, &wakes, &end);
    klawi_waiter *w = klawi_waitq_first(&f->joiners);
    if (w && klawi_claim(w->host, w->epoch)) {
        klawi_link_remove(&w->link);
        w->host->result = KLAW_OK;
        klawi_wakes_add(&wakes, w);
    }
    bool mine = !f->handle;
    atomic_store_explicit(&f->state, mine ? KLAWI_F_FREE : KLAWI_F_DONE, memory_order_release);
    klawi_lock_release(&f->join_lock);
    klawi_wakes_run(&wakes);
    if (KLAWI_MUTANT(P11_EARLY_READY)) {
        KLAWI_POINT();
        f->host.result = (int32_t)result;
    }
    if (end.on_empty)
        end.on_empty(end.arg);
    return mine;
}

/* The stack may be reused by the next fiber as it stands. */
static inline bool same_stack(const klaw_fiber *n, const klawi_stack *s) {
    return (klawi_ff(n) & (KLAWI_FF_SLOW | KLAWI_FF_UNGUARDED)) == KLAWI_FF_NEW &&
           n->size_class == s->size_class && !s->no_guard;
}

void klawi_fiber_entry(void *arg) {
    klaw_fiber *f = arg;
#if defined(KLAWI_TSAN)
    KLAWI_OWNED_BEGIN();
    (void)atomic_load_explicit(&f->stack->ended, memory_order_acquire);
    KLAWI_OWNED_END();
#endif
    (void)atomic_load_explicit(
        &f->state, memory_order_acquire); /* pairs with the release of LIVE in klawi_fiber_spawn */
#if defined(KLAWI_ASAN)
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    for (;;) {
        klawi_stack *s = f->stack;
        uint32_t flags = klawi_ff(f);
        bool mine = run_to_end(f);
        klawi_worker *w = klawi_ctx_get()->worker;
        if (flags & KLAWI_FF_SLOW)
            klawi_fiber_leaves(s, flags);
        KLAWI_OWNED_BEGIN();
        klawi_stack_unreserve(&w->stacks, s->size_class, s->unguarded);
        KLAWI_OWNED_END();
#if defined(KLAWI_SAN)
        if (mine)
            recycle(f);
        KLAWI_OWNED_BEGIN();
        w->dead_stack = s; /* the loop gives it back */
#if defined(KLAWI_TSAN)
        atomic_fetch_add_explicit(&s->ended, 1, memory_order_release);
#endif
        KLAWI_OWNED_END();
        klawi_leave_for_good(w);
        __builtin_unreachable();
#else
        if (mine)
            recycle(f);
        klawi_cur_set(w, &w->idle_host);
        klaw_fiber *n = klawi_pick(w);
        if (n && same_stack(n, s)) {
            n->stack = s;
            klawi_ff_clear(n, KLAWI_FF_NEW);
            klawi_cur_set(w, &n->host);
            f = n;
            continue;
        }
        void *nowhere;
        if (s->unguarded || s->size_class != w->stacks.size_class) {
            /* Not to the common list while we stand on it: the loop does it. */
            w->handoff = n;
            w->dead_stack = s;
            klawi_switch(&nowhere, w->sched_sp, &w->dummy);
            __builtin_unreachable();
        }
        klawi_stack_give(&w->stacks, s);
        if (n && (klawi_ff(n) & KLAWI_FF_SLOW) == 0 &&
            atomic_load_explicit(&n->on_cpu, memory_order_acquire) == 0) {
            klawi_cur_set(w, &n->host);
            klawi_switch(&nowhere, n->sp, &w->dummy);
        } else {
            w->handoff = n;
            klawi_switch(&nowhere, w->sched_sp, &w->dummy);
        }
        __builtin_unreachable();
#endif
    }
}

/* --- handles --- */
klaw_err klaw_join(klaw_fiber *f, klaw_err *result, void **value, klaw_deadline deadline) {
    klaw_err e = KLAW_INVALID;
    klawi_ctx *c = f ? klawi_ctx_need(&e) : NULL;
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h == &f->host || (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD))
        return KLAW_INVALID;
    klawi_lock_acquire(&f->join_lock);
    KLAWI_ASSERT(f->handle); /* else joined or detached before */
    if (atomic_load_explicit(&f->state, memory_order_acquire) != KLAWI_F_DONE) {
        int64_t at = KLAW_FOREVER;
        klawi_waiter *w = &h->waiter;
        if (!klawi_link_empty(&f->joiners))
            e = KLAW_INVALID;
        else
            e = klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &at);
        if (e) {
            klawi_lock_release(&f->join_lock);
            return e;
        }
        klawi_host_waits(h, KLAWI_WAIT_JOIN, f->id);
        klawi_waiter_fill(w, h, &f->join_lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&f->joiners, w);
        e = klawi_park(h, w, &f->join_lock, at);
        if (e)
            return e;
        klawi_lock_acquire(&f->join_lock);
    }
    /* DONE, so the run has let go of it; the handle's owner is alone with it. */
    f->handle = false;
    if (result)
        *result = (klaw_err)f->host.result;
    if (value)
        *value = f->value;
    atomic_store_explicit(&f->state, KLAWI_F_FREE, memory_order_release);
    klawi_lock_release(&f->join_lock);
    recycle(f);
    return KLAW_OK;
}

void klaw_detach(klaw_fiber *f) {
    if (!f)
        return;
    klawi_lock_acquire(&f->join_lock);
    KLAWI_ASSERT(f->handle);
    f->handle = false;
    bool done = atomic_load_explicit(&f->state, memory_order_relaxed) == KLAWI_F_DONE;
    if (done)
        atomic_store_explicit(&f->state, KLAWI_F_FREE, memory_order_release);
    klawi_lock_release(&f->join_lock);
    if (done)
        recycle(f);
}

void klaw_fiber_cancel(klaw_fiber *f) {
    if (!f)
        return;
    /* While it is LIVE it is a member, so its scope exists; the join lock keeps it LIVE. */
    klawi_lock_acquire(&f->join_lock);
    bool live = atomic_load_explicit(&f->state, memory_order_relaxed) == KLAWI_F_LIVE;
    klaw_scope *s = live ? klaw_scope_ref(f->scope) : NULL;
    klawi_lock_release(&f->join_lock);
    if (live) {
        klawi_scope_cancel_member(f);
        klaw_scope_unref(s);
    }
}

void klaw_set_value(void *value) {
    klawi_ctx *c = klawi_ctx_get();
    if (c && klawi_cur(c) && klawi_cur(c)->kind == KLAWI_FIBER)
        klawi_fiber_of(klawi_cur(c))->value = value;
}

const char *klaw_self_name(void) {
    klawi_ctx *c = klawi_ctx_get();
    return c && klawi_cur(c) && klawi_cur(c)->kind == KLAWI_FIBER
               ? klawi_fiber_name(klawi_fiber_of(klawi_cur(c)))
               : "thread";
}

uint64_t klaw_self_id(void) {
    klawi_ctx *c = klawi_ctx_get();
    return c && klawi_cur(c) && klawi_cur(c)->kind == KLAWI_FIBER ? klawi_fiber_of(klawi_cur(c))->id
                                                                  : 0;
}

/* --- giving memory back --- */
static void trim(void) {
    klawi_lock_acquire(&pool.lock);
    uint64_t total = 0, free_count = 0;
    for (struct block *b = atomic_load(&pool.blocks); b; b = b->next)
        total += b->count;
    for (klaw_fiber *f = pool.free; f; f = f->next)
        free_count++;
    struct block *gone = total == free_count ? atomic_load(&pool.blocks) : NULL;
    union name_cell *names = pool.names;
    pool.names = NULL;
    if (gone) {
        atomic_store(&pool.blocks, NULL);
        pool.free = NULL;
        pool.next_count = BLOCK_FIRST;
    }
    klawi_lock_release(&pool.lock);
    while (gone) {
        struct block *next = gone->next;
        munmap(gone->fibers, gone->count * sizeof *gone->fibers);
        klawi_free(gone);
        gone = next;
    }
    while (names) {
        union name_cell *next = names->next;
        klawi_free(names);
        names = next;
    }
}

__attribute__((constructor)) static void fiber_init(void) {
    klawi_trim_register(trim);
}
