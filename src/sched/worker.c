/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - what a worker runs next, and how it sleeps (rules R1-R7).
 *
 * Order of search (R1): next slot, own queue (the global one first every 61st turn), pinned fibers
 * and the foreign inbox, global list, timers and poller, steal, a bounded spin, sleep. A turn
 * begins when a fiber is taken from anything but the slot.
 *
 * Sleeping (R5). One sleeper is the poller: it waits in epoll, with the time of the next timer; the
 * others wait on their futex.
 *   sleeper: state := SLEEPING or POLLING, sleepers++ (both seq_cst), look at everything again,
 *   wait.
 *   pusher:  push, seq_cst fence, read sleepers and searching; wake one when somebody sleeps and
 *   nobody searches.
 * Either the pusher sees the sleeper or the sleeper sees the push. A searcher clears `searching`
 * before it looks the last time, so a pusher that relied on it is seen as well. A worker that
 * pushes to its own queue wakes nobody until the queue stayed non-empty for two turn boundaries
 * (R3).
 *
 * While some worker runs and another sleeps the poller ticks every millisecond (R4): it fires due
 * timers of all workers, and takes the queue and even the slot of a worker whose turn counter stood
 * still. A worker that leaves the poller's role while others sleep wakes one to take it over. When
 * all sleep nothing ticks.
 *
 * Invariants:
 *   K1  sleepers == number of workers whose state is not RUNNING (changed by the one that wins the
 *       state's compare-and-swap).
 *   K2  head and tail: tail - head <= KLAWI_RUNQ; only the owner writes tail and ring, everybody
 *       moves head by compare-and-swap.
 *   K3  a fiber is in one place: slot, ring, a list, or running.
 *
 * Rejected: waking a worker at each push (20-46 us of the other core for fibers that would have run
 * here 30 ns later); a monitor thread of its own (one more thread to stop, name and explain). */
#include "sched/sched.h"

#define TICK KLAW_MS(1)
#define SPIN_NS KLAW_US(30)
/* Processor cycles, roughly 50 us: how long fibers may stand in the queue before a sleeper is woken
 * for them. */
#define QUEUE_DELAY 150000u

_Atomic(klawi_runtime *) klawi_rt;

/* A list with a head that is looked at without its lock: first..last go to its end. Under the lock.
 * */
static void append(_Atomic(klaw_fiber *) *head, klaw_fiber **end, klaw_fiber *first,
                   klaw_fiber *last) {
    last->next = NULL;
    if (atomic_load_explicit(head, memory_order_relaxed))
        (*end)->next = first;
    else
        atomic_store_explicit(head, first, memory_order_relaxed);
    *end = last;
}

/* --- the run queue --- */
/* The ring was full while its head was at `head`: half of it and f go to the global list. It has to
 * be that very look: behind a later one thieves may have left less than half, and what lies past
 * the tail has run already. */
static KLAWI_NOINLINE void overflow(klawi_worker *w, klaw_fiber *f, uint32_t head) {
    klaw_fiber *first = NULL, **last = &first;
    uint32_t n = KLAWI_RUNQ / 2;
    klaw_fiber *batch[KLAWI_RUNQ / 2];
    KLAWI_POINT();
    if (KLAWI_MUTANT(K2_LATER_HEAD))
        head = atomic_load_explicit(&w->head, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++)
        batch[i] = atomic_load_explicit(&w->ring[(head + i) % KLAWI_RUNQ], memory_order_relaxed);
    KLAWI_POINT();
    if (!atomic_compare_exchange_strong_explicit(&w->head, &head, head + n, memory_order_acq_rel,
                                                 memory_order_relaxed)) {
        klawi_runq_push(w, f); /* a thief made room */
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        *last = batch[i];
        last = &batch[i]->next;
    }
    *last = f;
    f->next = NULL;
    klawi_runtime *rt = w->rt;
    klawi_lock_acquire(&rt->global_lock);
    append(&rt->global, &rt->global_last, first, f);
    atomic_fetch_add_explicit(&rt->global_len, n + 1, memory_order_relaxed);
    klawi_lock_release(&rt->global_lock);
}

static void pinned_push(klawi_worker *w, klaw_fiber *f) {
    f->next = NULL;
    *w->pinned_tail = f;
    w->pinned_tail = &f->next;
}

static void runq_push(klawi_worker *w, klaw_fiber *f) {
    if (KLAWI_UNLIKELY(klawi_ff(f) & KLAWI_FF_PINNED)) {
        pinned_push(w, f);
        return;
    }
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
    KLAWI_POINT();
    /* Acquire: pairs with a thief's release of head: it has read the entries we overwrite. */
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    if (KLAWI_UNLIKELY(tail - head >= KLAWI_RUNQ)) {
        overflow(w, f, head);
        return;
    }
    atomic_store_explicit(&w->ring[tail % KLAWI_RUNQ], f, memory_order_relaxed);
    KLAWI_POINT();
    /* Release: pairs with a thief's acquire of tail. */
    atomic_store_explicit(&w->tail, tail + 1, memory_order_release);
}

void klawi_runq_push(klawi_worker *w, klaw_fiber *f) {
    KLAWI_OWNED_BEGIN();
    runq_push(w, f);
    KLAWI_OWNED_END();
}

static inline klaw_fiber *runq_pop(klawi_worker *w) {
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    for (;;) {
        if (head == atomic_load_explicit(&w->tail, memory_order_relaxed))
            return NULL;
        klaw_fiber *f = atomic_load_explicit(&w->ring[head % KLAWI_RUNQ], memory_order_relaxed);
        KLAWI_POINT();
        if (atomic_compare_exchange_weak_explicit(&w->head, &head, head + 1, memory_order_acq_rel,
                                                  memory_order_acquire))
            return f;
    }
}

static uint32_t runq_len(klawi_worker *w) {
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    return atomic_load_explicit(&w->tail, memory_order_acquire) - head;
}

/* R7: half of the victim's queue; returns one of them to run. */
static klaw_fiber *steal_half(klawi_worker *w, klawi_worker *v) {
    klaw_fiber *batch[KLAWI_RUNQ / 2];
    for (;;) {
        /* Acquire head then tail: an older head with a newer tail only makes n too large, which the
         * CAS notices. */
        uint32_t head = atomic_load_explicit(&v->head, memory_order_acquire);
        KLAWI_POINT();
        uint32_t tail = atomic_load_explicit(&v->tail, memory_order_acquire);
        uint32_t n = tail - head;
        n -= n / 2;
        if (n == 0)
            return NULL;
        if (n > KLAWI_RUNQ / 2)
            continue;
        for (uint32_t i = 0; i < n; i++)
            batch[i] =
                atomic_load_explicit(&v->ring[(head + i) % KLAWI_RUNQ], memory_order_relaxed);
        KLAWI_POINT();
        if (!atomic_compare_exchange_strong_explicit(&v->head, &head, head + n,
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue;
        for (uint32_t i = 1; i < n; i++)
            klawi_runq_push(w, batch[i]);
        atomic_fetch_add_explicit(&w->steals, n, memory_order_relaxed);
        return batch[0];
    }
}

/* R4: the slot of a worker that stands still. */
static klaw_fiber *steal_slot(klawi_worker *w, klawi_worker *v) {
    klaw_fiber *f = klawi_slot_steal(v);
    if (f)
        atomic_fetch_add_explicit(&w->steals, 1, memory_order_relaxed);
    return f;
}

/* --- lists that others push to --- */
void klawi_inject(klawi_runtime *rt, klaw_fiber *f) {
    uint32_t early = KLAWI_MUTANT(R5_NO_FENCE) ? atomic_load(&rt->sleepers) : 1;
    klawi_lock_acquire(&rt->global_lock);
    KLAWI_OWNED_BEGIN();
    append(&rt->global, &rt->global_last, f, f);
    KLAWI_OWNED_END();
    atomic_fetch_add_explicit(&rt->global_len, 1, memory_order_relaxed);
    klawi_lock_release(&rt->global_lock);
    KLAWI_POINT();
    klawi_fence(); /* R5: pairs with the sleeper's publication; its mutant reads `sleepers` early */
    if (early && atomic_load_explicit(&rt->sleepers, memory_order_relaxed) > 0 &&
        atomic_load_explicit(&rt->searching, memory_order_relaxed) == 0)
        klawi_wake_one(rt);
}

/* Takes up to its share of the global list: one to run, the rest into the own queue. */
static klaw_fiber *global_take(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    if (!atomic_load_explicit(&rt->global, memory_order_relaxed))
        return NULL;
    klaw_fiber *first, *last;
    klawi_lock_acquire(&rt->global_lock);
    first = atomic_load_explicit(&rt->global, memory_order_relaxed);
    uint32_t len = atomic_load_explicit(&rt->global_len, memory_order_relaxed),
             n = len / rt->nworkers + 1, got = 0;
    if (n > KLAWI_RUNQ / 2)
        n = KLAWI_RUNQ / 2;
    last = NULL;
    klaw_fiber *f = first;
    while (f && got < n) {
        last = f;
        f = f->next;
        got++;
    }
    atomic_store_explicit(&rt->global, f, memory_order_relaxed);
    atomic_store_explicit(&rt->global_len, len - got, memory_order_relaxed);
    klawi_lock_release(&rt->global_lock);
    if (!first || !last)
        return NULL;
    last->next = NULL;
    for (klaw_fiber *next, *k = first->next; k; k = next) {
        next = k->next;
        klawi_runq_push(w, k);
    }
    return first;
}

/* `to`: WOKEN (counted as searching) or RUNNING. True when it slept and we woke it. */
static bool wake_worker(klawi_runtime *rt, klawi_worker *v, uint32_t to) {
    uint32_t s = KLAWI_W_SLEEPING;
    if (atomic_compare_exchange_strong(&v->state, &s, to)) {
        atomic_fetch_sub(&rt->sleepers, 1);
        klawi_futex_wake(&v->state, 1);
        if (atomic_load(&rt->polling) == 2)
            klawi_poller_wake(&rt->poller); /* R4: somebody runs, so it has to tick */
        return true;
    }
    if (s == KLAWI_W_POLLING && atomic_compare_exchange_strong(&v->state, &s, to)) {
        atomic_fetch_sub(&rt->sleepers, 1);
        klawi_poller_wake(&rt->poller);
        return true;
    }
    return false;
}

void klawi_inject_pinned(klawi_runtime *rt, klaw_fiber *f) {
    KLAWI_OWNED_BEGIN();
    klawi_worker *v = rt->workers[klawi_home(f)];
    KLAWI_OWNED_END();
    klawi_lock_acquire(&v->inbox_lock);
    KLAWI_OWNED_BEGIN();
    append(&v->inbox, &v->inbox_last, f, f);
    KLAWI_OWNED_END();
    klawi_lock_release(&v->inbox_lock);
    KLAWI_POINT();
    klawi_fence(); /* R5 */
    if (atomic_load_explicit(&v->state, memory_order_relaxed) != KLAWI_W_RUNNING)
        wake_worker(rt, v, KLAWI_W_RUNNING);
}

static void inbox_take(klawi_worker *w) {
    if (!atomic_load_explicit(&w->inbox, memory_order_relaxed))
        return;
    klawi_lock_acquire(&w->inbox_lock);
    klaw_fiber *f = atomic_load_explicit(&w->inbox, memory_order_relaxed);
    atomic_store_explicit(&w->inbox, NULL, memory_order_relaxed);
    klawi_lock_release(&w->inbox_lock);
    for (klaw_fiber *next; f; f = next) {
        next = f->next;
        pinned_push(w, f);
    }
}

static klaw_fiber *pinned_pop(klawi_worker *w) {
    inbox_take(w);
    klaw_fiber *f = w->pinned;
    if (f && (w->pinned = f->next) == NULL)
        w->pinned_tail = &w->pinned;
    return f;
}

/* --- waking others --- */
static klawi_worker *find_sleeper(klawi_runtime *rt, uint32_t state) {
    for (uint32_t i = 0; i < rt->nworkers; i++)
        if (atomic_load_explicit(&rt->workers[i]->state, memory_order_relaxed) == state)
            return rt->workers[i];
    return NULL;
}

void klawi_wake_one(klawi_runtime *rt) {
    for (;;) {
        uint32_t zero = 0;
        klawi_worker *v;
        /* The sleeper woken here counts as searching, so that nobody wakes a second one for the
         * same work. */
        if (!atomic_compare_exchange_strong(&rt->searching, &zero, 1))
            return;
        while ((v = find_sleeper(rt, KLAWI_W_SLEEPING)) != NULL ||
               (v = find_sleeper(rt, KLAWI_W_POLLING)) != NULL)
            if (wake_worker(rt, v, KLAWI_W_WOKEN))
                return;
        atomic_store(&rt->searching, 0);
        /* Like every searcher: clear, then look. Somebody may have gone to sleep behind our scan,
         * and a pusher relied on us meanwhile. Who stands is going to look for itself. */
        klawi_fence();
        if (!atomic_load_explicit(&rt->global, memory_order_relaxed) ||
            (!find_sleeper(rt, KLAWI_W_SLEEPING) && !find_sleeper(rt, KLAWI_W_POLLING)))
            return;
    }
}

void klawi_poll_kick(klawi_runtime *rt) {
    klawi_fence(); /* pairs with poll_long: it sees the timer or we see it polling */
    if (atomic_load(&rt->polling))
        klawi_poller_wake(&rt->poller);
}

klawi_wheel *klawi_wheel_for(klawi_ctx *c) {
    if (c && c->worker)
        return &c->worker->wheel;
    klawi_runtime *rt = atomic_load(&klawi_rt);
    return rt ? &rt->workers[0]->wheel : NULL;
}

/* --- the turn boundary --- */
/* R3: wakes a sleeper when the fibers that stood in the queue some time ago stand there still. */
static void watch_queue(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed),
             head = atomic_load_explicit(&w->head, memory_order_relaxed);
    if (head == tail || atomic_load_explicit(&rt->sleepers, memory_order_relaxed) == 0) {
        w->watching = false;
        return;
    }
    uint64_t now = klawi_ticks();
    if (!w->watching || (int32_t)(head - w->watch_pos) >= 0) {
        w->watching = true;
        w->watch_pos = tail;
        w->watch_since = now;
    } else if (now - w->watch_since > QUEUE_DELAY) {
        w->watching = false;
        if (atomic_load_explicit(&rt->searching, memory_order_relaxed) == 0)
            klawi_wake_one(rt);
    }
}

static void turn_begins(klawi_worker *w) {
    atomic_store_explicit(&w->turns, atomic_load_explicit(&w->turns, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    w->slot_runs = 0;
    __atomic_store_n(&w->ctx.budget, KLAWI_TURN_OPS, __ATOMIC_RELAXED);
    watch_queue(w);
}

static inline bool periodic(klawi_worker *w) {
    return atomic_load_explicit(&w->turns, memory_order_relaxed) % KLAWI_GLOBAL_EVERY ==
           KLAWI_GLOBAL_EVERY - 1;
}

/* The own queue, then what only this worker may run. NULL also when periodic work is due: that is
 * for the scheduler's own stack. */
klaw_fiber *klawi_next_local(klawi_worker *w) {
    if (KLAWI_UNLIKELY(periodic(w)))
        return NULL;
    klaw_fiber *f = NULL;
    if (w->slot_runs >= KLAWI_SLOT_RUNS) { /* R2: its turn is over, to the tail with the slot */
        f = klawi_slot_take(w);
        if (f)
            klawi_runq_push(w, f);
    }
    f = NULL;
    if (KLAWI_UNLIKELY(w->pinned != NULL ||
                       atomic_load_explicit(&w->inbox, memory_order_relaxed) != NULL) &&
        (atomic_load_explicit(&w->turns, memory_order_relaxed) & 1))
        f = pinned_pop(w);
    if (!f)
        f = runq_pop(w);
    if (!f)
        f = pinned_pop(w);
    if (f)
        turn_begins(w);
    return f;
}

/* --- timers and poller --- */
static unsigned poll_events(klawi_worker *w, int64_t until) {
    klawi_poll_event ev[64];
    int n = klawi_poller_wait(&w->rt->poller, ev, 64, until);
    if (n > 0)
        klawi_fd_events(w->rt, ev, n);
    return n > 0 ? (unsigned)n : 0;
}

static unsigned own_timers(klawi_worker *w) {
    if (klawi_wheel_next(&w->wheel) == KLAW_FOREVER)
        return 0;
    return klawi_wheel_run(&w->wheel, klawi_clock());
}

/* Every 61st turn: the global list, timers, descriptors. */
static klaw_fiber *periodic_work(klawi_worker *w) {
    atomic_store_explicit(&w->turns, atomic_load_explicit(&w->turns, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    own_timers(w);
    if (atomic_load_explicit(&w->rt->fd_waits, memory_order_relaxed) > 0)
        poll_events(w, KLAW_NOWAIT);
    return global_take(w);
}

/* --- stealing --- */
static klaw_fiber *steal(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    uint32_t n = rt->nworkers;
    if (n < 2)
        return NULL;
    uint32_t start = klawi_rand(&w->ctx.seed) % n;
    for (uint32_t i = 0; i < n; i++) {
        klawi_worker *v = rt->workers[(start + i) % n];
        klaw_fiber *f = v == w ? NULL : steal_half(w, v);
        if (f)
            return f;
    }
    return NULL;
}

static bool others_have_work(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    if (atomic_load_explicit(&rt->global, memory_order_relaxed) ||
        atomic_load_explicit(&w->inbox, memory_order_relaxed) || w->pinned ||
        atomic_load_explicit(&w->slot, memory_order_relaxed))
        return true;
    for (uint32_t i = 0; i < rt->nworkers; i++)
        if (runq_len(rt->workers[i]) > 0)
            return true;
    return false;
}

/* R6: one spinner at a time, 30 us at most. True when something turned up. */
static bool spin(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    uint32_t zero = 0;
    if (!rt->can_spin || !atomic_compare_exchange_strong(&rt->searching, &zero, 1))
        return false;
    int64_t until = klawi_clock() + SPIN_NS;
    bool found = false;
    for (uint32_t i = 1; !found; i++) {
        klawi_pause();
        found = atomic_load_explicit(&rt->global, memory_order_relaxed) ||
                atomic_load_explicit(&w->inbox, memory_order_relaxed) ||
                atomic_load_explicit(&rt->stop, memory_order_relaxed);
        if (i % 64 == 0 && (klawi_clock() > until || (found = others_have_work(w))))
            break;
    }
    atomic_store(&rt->searching, 0);
    return found;
}

/* --- sleeping --- */
static int64_t next_timer(klawi_runtime *rt) {
    int64_t at = KLAW_FOREVER;
    for (uint32_t i = 0; i < rt->nworkers; i++) {
        int64_t t = klawi_wheel_next(&rt->workers[i]->wheel);
        if (t < at)
            at = t;
    }
    return at;
}

/* R4: one look at everything that nobody else may be looking at. Returns a fiber to run. */
static klaw_fiber *monitor(klawi_worker *w, unsigned *fired) {
    klawi_runtime *rt = w->rt;
    klaw_fiber *f = NULL;
    int64_t now = klawi_clock();
    for (uint32_t i = 0; i < rt->nworkers; i++) {
        klawi_worker *v = rt->workers[i];
        if (klawi_wheel_next(&v->wheel) <= now)
            *fired += klawi_wheel_run(&v->wheel, now);
        uint32_t turns = atomic_load_explicit(&v->turns, memory_order_relaxed);
        bool still = v != w && turns == v->seen_turns &&
                     atomic_load_explicit(&v->state, memory_order_relaxed) == KLAWI_W_RUNNING;
        v->seen_turns = turns;
        if (still && !f && !KLAWI_MUTANT(R4_NO_STEAL) && (f = steal_half(w, v)) == NULL)
            f = steal_slot(w, v);
    }
    return f;
}

/* The poller's wait. Returns when there is something to run, to stop, or when it was woken. */
static klaw_fiber *poll_long(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    for (;;) {
        bool others = atomic_load(&rt->sleepers) < rt->nworkers;
        int64_t until = next_timer(rt);
        atomic_store(&rt->poll_until, until);
        atomic_store(&rt->polling, others ? 1 : 2);
        /* Between the two looks somebody may have started to run and found `polling` as it was:
         * look again after publishing. */
        if (!others && (atomic_load(&rt->sleepers) < rt->nworkers || next_timer(rt) < until))
            continue;
        if (others) {
            int64_t tick = klawi_clock() + TICK;
            if (tick < until)
                until = tick;
        }
        unsigned fired = poll_events(w, until);
        klaw_fiber *f = monitor(w, &fired);
        if (f || fired || atomic_load(&w->state) != KLAWI_W_POLLING || atomic_load(&rt->stop) ||
            others_have_work(w))
            return f;
    }
}

/* Undoes the publication unless a waker did. */
static void stand_up(klawi_worker *w) {
    switch (atomic_exchange(&w->state, KLAWI_W_RUNNING)) {
    case KLAWI_W_SLEEPING:
    case KLAWI_W_POLLING: atomic_fetch_sub(&w->rt->sleepers, 1); break;
    case KLAWI_W_WOKEN: atomic_store(&w->rt->searching, 0); break;
    default: break;
    }
}

/* R4: while we run somebody who sleeps has to poll. */
static void pass_on_polling(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    if (atomic_load(&rt->polling) != 0 || atomic_load(&rt->sleepers) == 0 || atomic_load(&rt->stop))
        return;
    for (uint32_t i = 0; i < rt->nworkers; i++)
        if (rt->workers[i] != w && wake_worker(rt, rt->workers[i], KLAWI_W_RUNNING))
            break;
}

static klaw_fiber *sleep_now(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    klaw_fiber *f = NULL;
    uint32_t zero = 0;
    bool poller = atomic_compare_exchange_strong(&rt->polling, &zero, 1);
    uint32_t as = poller ? KLAWI_W_POLLING : KLAWI_W_SLEEPING;
    atomic_store(&w->state, as); /* R5: publish, seq_cst */
    atomic_fetch_add(&rt->sleepers, 1);
    klawi_fence(); /* R5: pairs with the pusher's fence */
    KLAWI_POINT();
    if (!(KLAWI_MUTANT(R5_NO_RECHECK)) && (others_have_work(w) || atomic_load(&rt->stop))) {
        stand_up(w);
        if (poller)
            atomic_store(&rt->polling, 0);
    } else if (poller) {
        f = poll_long(w);
        stand_up(w);
        atomic_store(&rt->polling, 0);
    } else {
        atomic_fetch_add_explicit(&w->parks, 1, memory_order_relaxed);
        /* If the poller left its role after we tried for it, it has woken us or will (R4). */
        while (atomic_load(&w->state) == KLAWI_W_SLEEPING && !atomic_load(&rt->stop)) {
            if (atomic_load(&rt->polling) == 0)
                break;
            klawi_futex_wait(&w->state, KLAWI_W_SLEEPING, KLAW_FOREVER);
        }
        stand_up(w);
    }
    if (poller)
        pass_on_polling(w);
    return f;
}

/* --- the loop --- */
static klaw_fiber *find(klawi_worker *w) {
    klawi_runtime *rt = w->rt;
    klaw_fiber *f;
    bool slept = false;
    for (;;) {
        if (KLAWI_UNLIKELY(periodic(w)) && (f = periodic_work(w)) != NULL)
            break;
        if ((f = klawi_pick(w)) != NULL) {
            if (slept)
                pass_on_polling(w);
            return f;
        }
        if ((f = global_take(w)) != NULL)
            break;
        if (atomic_load_explicit(&rt->stop, memory_order_acquire))
            return NULL;
        unsigned fired = own_timers(w);
        if (atomic_load_explicit(&rt->fd_waits, memory_order_relaxed) > 0)
            fired += poll_events(w, KLAW_NOWAIT);
        if (fired)
            continue;
        if ((f = steal(w)) != NULL)
            break;
        if (spin(w))
            continue;
        slept = true;
        if ((f = sleep_now(w)) != NULL)
            break;
    }
    /* We may have been woken to poll and have found this instead. */
    if (slept)
        pass_on_polling(w);
    turn_begins(w);
    return f;
}

#if defined(KLAWI_ASAN)
void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
#endif
#if defined(KLAWI_TSAN)
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_destroy_fiber(void *fiber);
#endif

static void enter_fiber(klawi_worker *w, klaw_fiber *f) {
    klawi_cur_set(w, &f->host);
#if defined(KLAWI_ASAN)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, f->stack->low,
                                   (size_t)((char *)f->stack - f->stack->low));
#endif
    void *sp = f->sp;
#if defined(KLAWI_TSAN)
    __tsan_switch_to_fiber(f->stack->tsan_fiber, 1);
#endif
    klawi_switch(&w->sched_sp, sp, &w->dummy);
#if defined(KLAWI_ASAN)
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

void klawi_worker_loop(klawi_worker *w) {
    /* This stack touches nothing but what the worker owns and what locks and atomics guard. */
    KLAWI_OWNED_BEGIN();
#if !defined(KLAWI_DET)
    unsigned requeued = 0;
#endif
    for (;;) {
        klaw_fiber *f = w->handoff;
        w->handoff = NULL;
        if (!f && (f = find(w)) == NULL)
            break;
        /* P8: it may still be leaving its stack on another worker. */
        int spins = 0;
        while (atomic_load_explicit(&f->on_cpu, memory_order_acquire) != 0 &&
               !KLAWI_MUTANT(P8_IGNORE_ON_CPU)) {
            if (++spins > 64) {
                klawi_runq_push(w, f);
                f = NULL;
                break;
            }
            klawi_pause();
        }
        if (!f) {
#if !defined(KLAWI_DET)
            /* Its worker lost the processor between the wake-up and the switch: give it ours. */
            if (++requeued % 8)
                klawi_thread_yield();
            else
                klawi_thread_nap(20000);
#endif
            continue;
        }
        if (klawi_ff(f) & KLAWI_FF_NEW)
            klawi_fiber_attach(w, f);
        if (klawi_ff(f) & KLAWI_FF_SLOW)
            klawi_fiber_restore(f);
        enter_fiber(w, f);
        if (w->dead_stack) {
#if defined(KLAWI_TSAN)
            __tsan_destroy_fiber(
                w->dead_stack->tsan_fiber); /* the next fiber on this stack is another one */
            w->dead_stack->tsan_fiber = NULL;
#endif
            klawi_stack_give(&w->stacks, w->dead_stack);
            w->dead_stack = NULL;
        }
    }
    KLAWI_OWNED_END();
}
