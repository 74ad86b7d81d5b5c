/* SPDX-License-Identifier: Apache-2.0 */
/* park.c - parking, waking and the switch between fibers (rules P1-P11, R2, R8).
 *
 * A park: the caller has checked again under the queue's lock, filled and linked the waiter.
 * klawi_park arms (one compare-and-swap, which fails when the host is cancelled), releases the
 * lock, files the deadline if there is one, and leaves. From the arming on anybody may claim; a
 * fiber that is claimed before it has left its stack is protected by on_cpu, which only the switch
 * clears, after it has changed the stack pointer (P8).
 *
 * Wake-up protocol:
 *   claim (host.h) -> the winner writes result, chosen, element -> unlocks -> klawi_ready once.
 *   fiber     into the waker's next slot, what was there goes to the queue (R2); from a foreign
 *             thread into the global list.
 *   thread    flag := ready; a futex wake only when it slept.
 *   callback  klawi_callback_ready (op.c) pushes it to its loop's inbox.
 *
 * A direct switch goes only to a fiber with on_cpu == 0, a stack and no special needs; everything
 * else goes through the worker's own stack (worker.c), which may spin or requeue. Two workers never
 * wait for each other.
 *
 * Rejected: a flag "wake pending" per fiber instead of on_cpu (each wake-up would read-modify-write
 * it); always switching by the worker's stack (two switches instead of one). */
#include "sched/sched.h"

__thread klawi_ctx *klawi_tls __attribute__((tls_model("initial-exec")));

/* Set by the layer above (waiter.h operations). */
void (*klawi_callback_ready)(klawi_host *h);

#if !(defined(__x86_64__) && !defined(KLAWI_SAN) && !defined(KLAWI_DET))
KLAWI_NOINLINE klawi_ctx *klawi_ctx_load(void);
KLAWI_NOINLINE klawi_ctx *klawi_ctx_load(void) {
    __asm__ volatile("");
    KLAWI_OWNED_BEGIN();
    klawi_ctx *c = klawi_tls;
    KLAWI_OWNED_END();
    return c;
}
#endif

/* --- the switch, with what sanitizers want --- */
#if defined(KLAWI_ASAN)
void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
#endif
#if defined(KLAWI_TSAN)
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

#if !defined(KLAWI_SAN)

static inline void switch_to(klawi_worker *w, void **from, klaw_fiber *n,
                             _Atomic uint32_t *on_cpu) {
    klawi_cur_set(w, &n->host);
    klawi_switch(from, n->sp, on_cpu);
}

void klawi_leave(klawi_worker *w, klaw_fiber *f, klaw_fiber *n) {
    KLAWI_ASSERT_UNLOCKED();
    KLAWI_POINT();
    if (KLAWI_LIKELY(n != NULL)) {
        if (n == f) { /* P8: it was claimed before it left */
            return;
        }
        /* Acquire: pairs with the clearing store in the switch; then sp and the stack are whole. */
        if (KLAWI_LIKELY(((klawi_ff(f) | klawi_ff(n)) & KLAWI_FF_SLOW) == 0 &&
                         (atomic_load_explicit(&n->on_cpu, memory_order_acquire) == 0 ||
                          KLAWI_MUTANT(P8_IGNORE_ON_CPU)))) {
            switch_to(w, &f->sp, n, &f->on_cpu);
            return;
        }
        w->handoff = n;
    }
    if (KLAWI_UNLIKELY(klawi_ff(f) & KLAWI_FF_SLOW))
        klawi_fiber_store(f);
    klawi_cur_set(w, &w->idle_host);
    klawi_switch(&f->sp, w->sched_sp, &f->on_cpu);
}

#else /* sanitizers: always by the worker's stack */

void klawi_leave(klawi_worker *w, klaw_fiber *f, klaw_fiber *n) {
    KLAWI_ASSERT_UNLOCKED();
    if (n == f)
        return;
    KLAWI_OWNED_BEGIN();
    w->handoff = n;
    if (klawi_ff(f) & KLAWI_FF_SLOW)
        klawi_fiber_store(f);
    klawi_cur_set(w, &w->idle_host);
#if defined(KLAWI_ASAN)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, w->asan_low, w->asan_size);
#endif
    void *sp = w->sched_sp;
#if defined(KLAWI_TSAN)
    __tsan_switch_to_fiber(w->tsan_fiber, 1);
#endif
    klawi_switch(&f->sp, sp, &f->on_cpu);
    KLAWI_OWNED_END();
    (void)atomic_load_explicit(&f->host.word, memory_order_acquire); /* pairs with klawi_ready */
#if defined(KLAWI_ASAN)
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

void klawi_leave_for_good(klawi_worker *w) {
    void *nowhere;
    klawi_cur_set(w, &w->idle_host);
    KLAWI_OWNED_BEGIN();
    void *sp = w->sched_sp;
#if defined(KLAWI_TSAN)
    void *tsan_fiber = w->tsan_fiber;
#endif
    KLAWI_OWNED_END();
#if defined(KLAWI_ASAN)
    __sanitizer_start_switch_fiber(NULL, w->asan_low, w->asan_size);
#endif
#if defined(KLAWI_TSAN)
    atomic_fetch_add_explicit(&w->ended, 1, memory_order_release);
    __tsan_switch_to_fiber(tsan_fiber, 1);
#endif
    klawi_switch(&nowhere, sp, &w->dummy);
    __builtin_unreachable();
}
#endif

/* --- the next slot ---
 * Taken by its owner at every switch and by the monitor hardly ever (R4), so the owner pays no
 * atomic read-modify-write: it says `taking`, looks at `lockout`, takes, and is done; the monitor
 * sets `lockout`, makes a barrier in every thread, looks at `taking`. Whoever sees the other leaves
 * the slot alone. */
bool klawi_heavy;

void klawi_fence_heavy(void) {
    klawi_fence();
    if (klawi_heavy)
        klawi_heavy_fence();
}

static inline bool slot_enter(klawi_worker *w) {
    atomic_store_explicit(&w->taking, true, memory_order_relaxed);
    klawi_fence_light(); /* pairs with klawi_fence_heavy in klawi_slot_steal */
    KLAWI_POINT();
    if (KLAWI_LIKELY(!atomic_load_explicit(&w->lockout, memory_order_acquire)))
        return true;
    atomic_store_explicit(&w->taking, false, memory_order_release);
    return false;
}

static inline void slot_leave(klawi_worker *w) {
    KLAWI_POINT();
    atomic_store_explicit(&w->taking, false,
                          memory_order_release); /* pairs with the acquire in klawi_slot_steal */
}

/* Puts f (may be NULL) in and returns what was there. *ok false: the monitor is at it, nothing
 * happened. */
static inline klaw_fiber *slot_swap(klawi_worker *w, klaw_fiber *f, bool *ok) {
    *ok = slot_enter(w);
    if (KLAWI_UNLIKELY(!*ok))
        return NULL;
    klaw_fiber *old = atomic_load_explicit(&w->slot, memory_order_relaxed);
    KLAWI_POINT();
    atomic_store_explicit(&w->slot, f, memory_order_release);
    slot_leave(w);
    return old;
}

klaw_fiber *klawi_slot_take(klawi_worker *w) {
    bool ok;
    return atomic_load_explicit(&w->slot, memory_order_relaxed) ? slot_swap(w, NULL, &ok) : NULL;
}

klaw_fiber *klawi_slot_steal(klawi_worker *v) {
    klaw_fiber *f = NULL;
    bool no = false;
    if (!atomic_load_explicit(&v->slot, memory_order_relaxed) ||
        !atomic_compare_exchange_strong_explicit(&v->lockout, &no, true, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return NULL;
    klawi_fence_heavy();
    KLAWI_POINT();
    if (!atomic_load_explicit(&v->taking, memory_order_acquire) || KLAWI_MUTANT(R4_IGNORE_TAKING)) {
        f = atomic_load_explicit(&v->slot, memory_order_acquire);
        KLAWI_POINT();
        if (f && (klawi_ff(f) & KLAWI_FF_PINNED) && !KLAWI_MUTANT(R7_STEAL_PINNED)) /* R7 */
            f = NULL;
        if (f)
            atomic_store_explicit(&v->slot, NULL, memory_order_relaxed);
    }
    atomic_store_explicit(&v->lockout, false, memory_order_release);
    return f;
}

/* The next fiber of this turn (R1, R2): the slot, at most 32 times in a row, then the own queue. */
klaw_fiber *klawi_pick(klawi_worker *w) {
    if (KLAWI_LIKELY(atomic_load_explicit(&w->slot, memory_order_relaxed) != NULL) &&
        KLAWI_LIKELY(++w->slot_runs < KLAWI_SLOT_RUNS || KLAWI_MUTANT(R2_SLOT_FOR_EVER))) {
        klaw_fiber *n = klawi_slot_take(w);
        if (KLAWI_LIKELY(n != NULL)) {
            atomic_store_explicit(&w->turns,
                                  atomic_load_explicit(&w->turns, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
            return n;
        }
    }
    return klawi_next_local(w);
}

/* --- parking --- */
static klaw_err park_thread(klawi_host *h, uint64_t epoch, int64_t deadline);

/* The host is armed and nothing is locked. */
static inline void leave_fiber(klawi_ctx *c, klawi_host *h) {
    klawi_worker *w = c->worker;
    klaw_fiber *f = klawi_fiber_of(h);
    KLAWI_OWNED_BEGIN();
    klaw_fiber *n = klawi_pick(w);
    KLAWI_OWNED_END();
    klawi_leave(w, f, n);
}

static KLAWI_NOINLINE klaw_err park_deadline(klawi_host *h, uint64_t epoch, int64_t deadline) {
    klawi_ctx *c = klawi_ctx_get();
    if (deadline != KLAW_FOREVER) /* for inspect; it can't run before it has left */
        atomic_store_explicit(
            &h->what,
            (uint8_t)(atomic_load_explicit(&h->what, memory_order_relaxed) | KLAWI_WAIT_TIMED),
            memory_order_relaxed);
    if (!c->worker)
        return park_thread(h, epoch, deadline);
    int64_t at;
    if (klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &at) != KLAW_OK)
        at = klawi_clock(); /* just passed: fires at the next tick */
    klawi_wheel_set_host(&c->worker->wheel, &h->timer, epoch, at);
    leave_fiber(c, h);
    return (klaw_err)h->result;
}

klaw_err klawi_park_armed(klawi_host *h, uint64_t epoch, klaw_deadline deadline) {
    if (deadline != KLAW_FOREVER || h->kind != KLAWI_FIBER)
        return park_deadline(h, epoch, deadline);
    leave_fiber(klawi_ctx_get(), h);
    return (klaw_err)h->result;
}

klaw_err klawi_park(klawi_host *h, klawi_waiter *w, klawi_lock *l, klaw_deadline deadline) {
    uint64_t epoch = w->epoch;
    if (h->kind == KLAWI_FIBER)
        atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&klawi_thread_of(h)->flag, 0, memory_order_relaxed);
    if (KLAWI_UNLIKELY(!klawi_arm(h, epoch))) {
        klawi_link_remove(&w->link);
        klawi_lock_release(l);
        return KLAW_CANCELLED;
    }
    klawi_lock_release(l);
    return klawi_park_armed(h, epoch, deadline);
}

void klawi_park_shielded(klawi_host *h, klawi_waiter *w, klawi_lock *l) {
    uint64_t epoch = w->epoch;
    if (h->kind == KLAWI_FIBER)
        atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&klawi_thread_of(h)->flag, 0, memory_order_relaxed);
    klawi_arm_shielded(h, epoch);
    klawi_lock_release(l);
    (void)klawi_park_armed(h, epoch, KLAW_FOREVER);
}

/* --- spinning --- */
#define SPIN_ROUNDS_FIBER 6
#define SPIN_ROUNDS_THREAD 12
#define PATIENCE_MAX 16u

#if !defined(KLAWI_DET)
/* Whether nobody else could use this processor through us. */
static bool alone(klawi_worker *w) {
    return w->rt->can_spin && !atomic_load_explicit(&w->slot, memory_order_relaxed) && !w->pinned &&
           !atomic_load_explicit(&w->inbox, memory_order_relaxed) &&
           !atomic_load_explicit(&w->rt->global, memory_order_relaxed) &&
           atomic_load_explicit(&w->head, memory_order_relaxed) ==
               atomic_load_explicit(&w->tail, memory_order_relaxed);
}

#endif

bool klawi_spin_wants(const klawi_spin *s, klawi_ctx *c) {
#if defined(KLAWI_DET)
    (void)s;
    (void)c;
    return false;
#else
    if (c->worker)
        return s->rounds < SPIN_ROUNDS_FIBER && alone(c->worker);
    return s->rounds < SPIN_ROUNDS_THREAD && klawi_cpu_seen() > 1;
#endif
}

void klawi_spin_pause(klawi_spin *s, klawi_ctx *c) {
    KLAWI_OWNED_BEGIN();
    if (s->rounds++ == 0)
        s->pauses = c->patience ? c->patience : 1;
    else if (s->pauses < PATIENCE_MAX)
        s->pauses *= 2;
    KLAWI_OWNED_END();
    for (uint32_t i = 0; i < s->pauses; i++)
        klawi_pause();
}

void klawi_spin_won(klawi_spin *s, klawi_ctx *c, bool more) {
    (void)s;
    KLAWI_OWNED_BEGIN();
    if (more)
        c->patience =
            c->patience < PATIENCE_MAX ? (c->patience ? c->patience * 2 : 2) : PATIENCE_MAX;
    else
        c->patience /= 2;
    KLAWI_OWNED_END();
}

#define SPIN_NS 20000

/* A plain thread: spins a little, then sleeps; its deadline it keeps itself. */
static klaw_err park_thread(klawi_host *h, uint64_t epoch, int64_t deadline) {
    klawi_thread *t = klawi_thread_of(h);
    int64_t at = deadline;
    if (deadline != KLAW_FOREVER && klawi_deadline_resolve(deadline, KLAW_TIMEOUT, &at) != KLAW_OK)
        at = 0;
#if !defined(KLAWI_DET)
    if (klawi_cpu_seen() > 1) {
        int64_t until = 0;
        for (int i = 0; atomic_load_explicit(&t->flag, memory_order_acquire) == 0; i++) {
            klawi_pause();
            if (i % 64 == 63) {
                int64_t now = klawi_clock();
                if (until == 0)
                    until = now + SPIN_NS;
                else if (now > until)
                    break;
            }
        }
    }
#endif
    uint32_t zero = 0;
    KLAWI_POINT();
    /* 0 -> asleep; the waker that finds "asleep" wakes us (see thread_ready). */
    if (!KLAWI_MUTANT(THREAD_NO_SLEEP_FLAG))
        atomic_compare_exchange_strong_explicit(&t->flag, &zero, 1, memory_order_acq_rel,
                                                memory_order_acquire);
    while (atomic_load_explicit(&t->flag, memory_order_acquire) != 2) {
        klawi_futex_wait(&t->flag, KLAWI_MUTANT(THREAD_NO_SLEEP_FLAG) ? 0 : 1, at);
        if (at != KLAW_FOREVER && atomic_load_explicit(&t->flag, memory_order_acquire) != 2 &&
            klawi_clock() >= at) {
            if (klawi_claim(h, epoch)) { /* we time ourselves out: P6 without the ready */
                klawi_waiter *w = &h->waiter;
                h->result = KLAW_TIMEOUT;
                if (w->epoch == epoch) {
                    klawi_lock *l = w->lock;
                    klawi_lock_acquire(l);
                    klawi_link_remove(&w->link);
                    klawi_lock_release(l);
                }
                return KLAW_TIMEOUT;
            }
            at = KLAW_FOREVER; /* somebody else won: the ready is on its way */
        }
    }
    return (klaw_err)h->result;
}

/* --- waking --- */
static void thread_ready(klawi_host *h) {
    klawi_thread *t = klawi_thread_of(h);
    /* Release: the result is visible to whoever sees 2. After this store the thread may go on; its
     * memory is type-stable. */
    if (atomic_exchange_explicit(&t->flag, 2, memory_order_acq_rel) == 1)
        klawi_futex_wake(&t->flag, 1);
}

static KLAWI_NOINLINE void ready_slow(klawi_host *h, klawi_worker *w) {
    if (h->kind == KLAWI_THREAD) {
        thread_ready(h);
        return;
    }
    if (h->kind == KLAWI_CALLBACK) {
        klawi_callback_ready(h);
        return;
    }
    klaw_fiber *f = klawi_fiber_of(h);
    klawi_runtime *rt = w ? w->rt : atomic_load_explicit(&klawi_rt, memory_order_acquire);
    if (!rt || (klawi_ff(f) & KLAWI_FF_ABANDONED))
        return; /* a late wake-up of a run that was given up */
    if (klawi_ff(f) & KLAWI_FF_PINNED)
        klawi_inject_pinned(rt, f);
    else
        klawi_inject(rt, f);
}

static inline void slot_put(klawi_worker *w, klaw_fiber *f) {
    KLAWI_POINT();
    if (KLAWI_LIKELY(atomic_load_explicit(&w->slot, memory_order_relaxed) == NULL)) {
        /* Release: pairs with the monitor's acquire. Nobody but us makes it non-NULL. */
        atomic_store_explicit(&w->slot, f, memory_order_release);
        return;
    }
    bool ok;
    klaw_fiber *old = slot_swap(w, f, &ok);
    if (!ok)
        old = f;
    if (old)
        klawi_runq_push(w, old);
}

void klawi_ready(klawi_host *h) {
    KLAWI_ASSERT_UNLOCKED();
#if defined(KLAWI_TSAN)
    /* What orders the claimer's writes before the resumed fiber are the run queues; they end in the
     * worker, so say it for the fiber itself. */
    atomic_fetch_add_explicit(&h->word, 0, memory_order_release);
#endif
    klawi_ctx *c = klawi_ctx_get();
    klawi_worker *w = c ? c->worker : NULL;
    if (KLAWI_UNLIKELY(!w || h->kind != KLAWI_FIBER)) {
        ready_slow(h, w);
        return;
    }
    klaw_fiber *f = klawi_fiber_of(h);
    KLAWI_OWNED_BEGIN();
    bool here = KLAWI_LIKELY(!(klawi_ff(f) & KLAWI_FF_PINNED)) || klawi_home(f) == w->index;
    if (here)
        slot_put(w, f);
    KLAWI_OWNED_END();
    if (KLAWI_UNLIKELY(!here))
        ready_slow(h, w);
}

void klawi_wakes_run(klawi_wakes *l) {
    klawi_link *next;
    *l->last = NULL;
    for (klawi_link *k = l->first; k; k = next) {
        next = k->next;
        k->next = NULL;
        klawi_host *h = ((klawi_waiter *)(void *)k)->host;
        klawi_ready(h);
        if (KLAWI_MUTANT(P5_READY_TWICE))
            klawi_ready(h);
    }
}

void klawi_finish_claimed(klawi_host *h, klaw_err result) {
    klawi_waiter *w = &h->waiter;
    uint64_t epoch = atomic_load_explicit(&h->word, memory_order_relaxed) & ~KLAWI_FLAGS;
    KLAWI_ASSERT_UNLOCKED();
    /* A select hangs other waiters, a sleep none: both clear this one's epoch before they arm. Else
     * it is linked (H1), and ours to unlink (H3). */
    if (w->epoch == epoch && !KLAWI_MUTANT(P6_NO_UNLINK)) {
        klawi_lock *l = w->lock;
        klawi_lock_acquire(l);
        klawi_link_remove(&w->link);
        klawi_lock_release(l);
    }
    if (!KLAWI_MUTANT(P5_RESULT_LATE))
        h->result = (int32_t)result;
    klawi_ready(h);
    if (KLAWI_MUTANT(P5_RESULT_LATE))
        h->result = (int32_t)result;
}

bool klawi_host_timeout(klawi_timer *t, uint64_t epoch) {
    klawi_host *h = KLAWI_CONTAINER(t, klawi_host, timer);
    if (!klawi_claim(h, epoch)) /* P10: stale */
        return false;
    klawi_finish_claimed(h, KLAW_TIMEOUT);
    return true;
}

/* --- yielding --- */
void klawi_yield_now(klawi_worker *w, klaw_fiber *f) {
    atomic_store_explicit(&f->on_cpu, 1, memory_order_relaxed);
    KLAWI_OWNED_BEGIN();
    w->slot_runs = KLAWI_SLOT_RUNS; /* the turn ends: the queue comes before the slot */
    klawi_runq_push(w, f);
    klaw_fiber *n = klawi_pick(w);
    KLAWI_OWNED_END();
    klawi_leave(w, f, n);
}

/* The turn's operations are used up: the fiber in the slot goes on in our place and we wait in the
 * slot, so that the two ends of a busy channel stay on one worker (R2 bounds how long). With an
 * empty slot: to the tail of the queue. */
static void yield_to_slot(klawi_worker *w, klaw_fiber *f) {
    KLAWI_OWNED_BEGIN();
    bool swap = !(KLAWI_MUTANT(R2_SLOT_FOR_EVER)) ? ++w->slot_runs < KLAWI_SLOT_RUNS : true;
    klaw_fiber *n = NULL;
    if (swap && atomic_load_explicit(&w->slot, memory_order_relaxed)) {
        bool ok;
        atomic_store_explicit(&f->on_cpu, 1, memory_order_relaxed);
        n = slot_swap(w, f, &ok);
        if (!ok)
            klawi_runq_push(w, f);
        if (!n)
            n = klawi_pick(w); /* the monitor took it, or is at it */
    } else {
        swap = false;
    }
    KLAWI_OWNED_END();
    if (swap)
        klawi_leave(w, f, n);
    else
        klawi_yield_now(w, f);
}

KLAWI_NOINLINE klaw_err klawi_budget_spent(klawi_ctx *c) {
    __atomic_store_n(&c->budget, KLAWI_TURN_OPS, __ATOMIC_RELAXED);
    klawi_host *h = klawi_cur(c);
    if (!c->worker || !h || h->kind != KLAWI_FIBER || KLAWI_MUTANT(R8_NO_BUDGET) ||
        __atomic_load_n(&c->held, __ATOMIC_RELAXED) > 0)
        return KLAW_OK;
    if (klawi_host_cancelled(h))
        return KLAW_CANCELLED;
    yield_to_slot(c->worker, klawi_fiber_of(h));
    return klawi_host_cancelled(h) ? KLAW_CANCELLED : KLAW_OK;
}

klaw_err klaw_yield(void) {
    klawi_ctx *c = klawi_ctx_get();
    if (!c || !c->worker || klawi_cur(c)->kind != KLAWI_FIBER) {
        klawi_thread_yield();
        return c && klawi_cur(c) && klawi_host_cancelled(klawi_cur(c)) ? KLAW_CANCELLED : KLAW_OK;
    }
    klawi_host *h = klawi_cur(c);
    klawi_yield_now(c->worker, klawi_fiber_of(h));
    return klawi_host_cancelled(h) ? KLAW_CANCELLED : KLAW_OK;
}

klaw_err klaw_check(void) {
    klawi_ctx *c = klawi_ctx_get();
    if (!c || !klawi_cur(c))
        return KLAW_OK;
    if (klawi_budget_take(c)) {
        klaw_err e = klawi_budget_spent(c);
        if (e)
            return e;
        c = klawi_ctx_get();
    }
    return klawi_host_cancelled(klawi_cur(c)) ? KLAW_CANCELLED : KLAW_OK;
}
