/* SPDX-License-Identifier: Apache-2.0 */
/* wheel.c - a hierarchical timing wheel: 8 levels of 64 slots, a tick of 65.5 us; filing, moving
 * and removing take constant time.
 *
 * Level l, slot s holds timers whose tick differs from the wheel's first in the l-th group of six
 * bits. Advancing to a slot of level 0 fires it; one of a higher level files its timers again,
 * further down.
 *
 * Invariants under wh->lock:
 *   W1  a filed timer has t->wheel == wh and stands in the slot of its `when`; when <= deadline.
 *   W2  wh->next <= the earliest `when`.
 *   W3  t->wheel changes from NULL by one filer (callback timers: by way of `busy`), to NULL only
 *       under the lock of the wheel it is on.
 *   W4  dead => nothing is filed: the runtime of the wheel has stopped.
 * A host's deadline stays filed when its wait ends early; the next wait with a later deadline only
 * updates the field (P10). When the stale time comes it is filed again. So waits with a time limit
 * do not touch the wheel each time. The lock is released before a claim or a callback (P10, R9). A
 * timer counts its callbacks begun and ended: drain waits until they are equal, whatever wheel it
 * was on (a callback that runs on one worker may arm its timer on another's wheel). Two callbacks
 * of one timer never run at once.
 *
 * Rejected: a heap (log n and a cache miss per level at a million timers); removing the deadline at
 * each wake-up (2 lock pairs a wait). */
#include "sched/mutant.h"
#include "sched/wheel.h"

#include "plat/os.h"

void klawi_wheel_init(klawi_wheel *wh, int64_t now) {
    klawi_lock_init(&wh->lock, KLAWI_RANK_WHEEL);
    wh->tick = now >> KLAWI_TICK_SHIFT;
    wh->count = 0;
    wh->dead = false;
    atomic_init(&wh->next, KLAW_FOREVER);
    for (int l = 0; l < KLAWI_WHEEL_LEVELS; l++) {
        wh->used[l] = 0;
        for (int s = 0; s < KLAWI_WHEEL_SLOTS; s++)
            klawi_link_init(&wh->slot[l][s]);
    }
}

/* The tick at which a time has passed for certain: never early. The last tick there is has no such
 * one. */
static int64_t tick_of(int64_t when) {
    int64_t tick = (when >> KLAWI_TICK_SHIFT) + 1;
    return tick > KLAW_FOREVER >> KLAWI_TICK_SHIFT ? KLAW_FOREVER >> KLAWI_TICK_SHIFT : tick;
}

static void file(klawi_wheel *wh, klawi_timer *t) {
    int64_t tick = tick_of(t->when);
    if (tick < wh->tick)
        tick = wh->tick;
    uint64_t diff = ((uint64_t)tick ^ (uint64_t)wh->tick) | 1;
    unsigned level = (63u - (unsigned)__builtin_clzll(diff)) / 6u;
    if (level >= KLAWI_WHEEL_LEVELS)
        level = KLAWI_WHEEL_LEVELS - 1;
    unsigned s = (unsigned)((uint64_t)tick >> (6 * level)) & 63u;
    klawi_link_push(&wh->slot[level][s], &t->link);
    wh->used[level] |= 1ull << s;
    int64_t at = tick << KLAWI_TICK_SHIFT;
    if (at < atomic_load_explicit(&wh->next, memory_order_relaxed))
        atomic_store_explicit(&wh->next, at, memory_order_relaxed);
}

static void unfile(klawi_wheel *wh, klawi_timer *t) {
    klawi_link *alone = t->link.next == t->link.prev ? t->link.next : NULL;
    klawi_link_remove(&t->link);
    if (alone) { /* its slot is empty now: find which one it was by the head's address */
        size_t i = (size_t)(alone - &wh->slot[0][0]);
        wh->used[i / KLAWI_WHEEL_SLOTS] &= ~(1ull << (i % KLAWI_WHEEL_SLOTS));
    }
}

/* The next tick at which a slot has to be looked at, and which; INT64_MAX when all is empty. */
static int64_t next_slot(klawi_wheel *wh, unsigned *level, unsigned *slot) {
    for (unsigned l = 0; l < KLAWI_WHEEL_LEVELS; l++) {
        if (!wh->used[l])
            continue;
        unsigned pos = (unsigned)((uint64_t)wh->tick >> (6 * l)) & 63u;
        uint64_t rot = (wh->used[l] >> pos) | (pos ? wh->used[l] << (64 - pos) : 0);
        unsigned dist = (unsigned)__builtin_ctzll(rot);
        *level = l;
        *slot = (pos + dist) & 63u;
        int64_t base = (int64_t)(((uint64_t)wh->tick >> (6 * l)) + dist);
        return (int64_t)((uint64_t)base << (6 * l));
    }
    return INT64_MAX;
}

static void publish_next(klawi_wheel *wh) {
    unsigned l, s;
    int64_t tick = next_slot(wh, &l, &s);
    int64_t at = tick == INT64_MAX ? KLAW_FOREVER : tick << KLAWI_TICK_SHIFT;
    atomic_store_explicit(&wh->next, at, memory_order_relaxed);
}

static void insert(klawi_wheel *wh, klawi_timer *t, int64_t deadline) {
    t->when = t->deadline = deadline;
    atomic_store_explicit(&t->wheel, wh, memory_order_release);
    wh->count++;
    file(wh, t);
}

/* Stands in t->wheel while a callback timer is on its way onto a wheel: one filer at a time. */
static klawi_wheel busy;

/* Locks the wheel the timer is filed on; NULL when it is on none. */
static klawi_wheel *lock_home(klawi_timer *t) {
    for (;;) {
        klawi_wheel *wh = atomic_load_explicit(&t->wheel, memory_order_acquire);
        if (!wh)
            return NULL;
        if (wh == &busy) { /* some instructions */
            klawi_thread_yield();
            continue;
        }
        klawi_lock_acquire(&wh->lock);
        if (atomic_load_explicit(&t->wheel, memory_order_relaxed) == wh)
            return wh;
        klawi_lock_release(&wh->lock);
    }
}

void klawi_wheel_set_host(klawi_wheel *own, klawi_timer *t, uint64_t epoch, int64_t deadline) {
    klawi_wheel *wh = lock_home(t);
    if (!wh) {
        klawi_lock_acquire(&own->lock);
        t->key = epoch;
        if (!own->dead)
            insert(own, t, deadline);
        klawi_lock_release(&own->lock);
        return;
    }
    t->key = epoch;
    t->deadline = deadline;
    if (deadline < t->when) {
        unfile(wh, t);
        t->when = deadline;
        file(wh, t);
    }
    klawi_lock_release(&wh->lock);
}

klawi_wheel *klawi_wheel_set(klawi_wheel *own, klawi_timer *t, int64_t deadline) {
    for (;;) {
        klawi_wheel *wh = lock_home(t);
        if (wh) { /* it stays where it is: every wheel is looked at */
            unfile(wh, t);
            t->when = t->deadline = deadline;
            file(wh, t);
            klawi_lock_release(&wh->lock);
            return wh;
        }
        if (atomic_compare_exchange_strong_explicit(&t->wheel, &wh, &busy, memory_order_acquire,
                                                    memory_order_relaxed))
            break;
    }
    klawi_lock_acquire(&own->lock);
    bool filed = !own->dead;
    if (filed)
        insert(own, t, deadline);
    else
        atomic_store_explicit(&t->wheel, NULL, memory_order_release);
    klawi_lock_release(&own->lock);
    return filed ? own : NULL;
}

bool klawi_wheel_remove(klawi_timer *t) {
    klawi_wheel *wh = lock_home(t);
    if (!wh)
        return false;
    unfile(wh, t);
    wh->count--;
    atomic_store_explicit(&t->wheel, NULL, memory_order_release);
    klawi_lock_release(&wh->lock);
    return true;
}

void klawi_wheel_drain(klawi_timer *t) {
    for (;;) {
        klawi_wheel_remove(t);
        /* Ended before, begun after: when they are equal no callback ran in between, so what
         * `wheel` said stays true. */
        uint32_t ended = atomic_load_explicit(&t->ended, memory_order_acquire);
        bool filed = atomic_load_explicit(&t->wheel, memory_order_acquire) != NULL;
        if (!filed && atomic_load_explicit(&t->begun, memory_order_acquire) == ended)
            return;
        klawi_thread_yield();
    }
}

#define BATCH 64

/* Takes due timers out of one slot of level 0; host deadlines go to `due`, a callback ends the
 * round. */
static unsigned collect(klawi_wheel *wh, klawi_link *slot, int64_t now, klawi_timer **due,
                        uint64_t *epochs, klawi_timer **call) {
    unsigned n = 0;
    while (!klawi_link_empty(slot) && n < BATCH && !*call) {
        klawi_timer *t = KLAWI_CONTAINER(slot->next, klawi_timer, link);
        unfile(wh, t);
        if (t->deadline > now &&
            !KLAWI_MUTANT(
                P10_FIRE_EARLY)) { /* moved to later meanwhile (P10), or a far slot came round */
            t->when = t->deadline;
            file(wh, t);
            continue;
        }
        uint32_t begun = atomic_load_explicit(&t->begun, memory_order_relaxed);
        if (begun != atomic_load_explicit(
                         &t->ended,
                         memory_order_acquire)) { /* armed by its own callback, which still runs */
            t->when = t->deadline = now + ((int64_t)1 << KLAWI_TICK_SHIFT);
            file(wh, t);
            continue;
        }
        wh->count--;
        if (t->fn)
            atomic_store_explicit(&t->begun, begun + 1, memory_order_relaxed);
        /* Release: who finds it on no wheel sees that its callback has begun. */
        atomic_store_explicit(&t->wheel, NULL, memory_order_release);
        if (t->fn) {
            *call = t;
        } else {
            due[n] = t;
            epochs[n++] = t->key;
        }
    }
    return n;
}

unsigned klawi_wheel_run(klawi_wheel *wh, int64_t now) {
    klawi_timer *due[BATCH], *call;
    uint64_t epochs[BATCH];
    unsigned fired = 0, n;
    if (klawi_wheel_next(wh) > now)
        return 0;
    int64_t limit = now >> KLAWI_TICK_SHIFT;
    klawi_lock_acquire(&wh->lock);
    for (;;) {
        unsigned level, s;
        int64_t tick = next_slot(wh, &level, &s);
        if (tick > limit)
            break;
        if (tick > wh->tick)
            wh->tick = tick;
        if (level > 0) { /* cascade: file again, relative to the new tick */
            klawi_link *slot = &wh->slot[level][s], moved;
            klawi_link_init(&moved);
            while (!klawi_link_empty(slot)) {
                klawi_link *l = slot->next;
                klawi_link_remove(l);
                klawi_link_push(&moved, l);
            }
            wh->used[level] &= ~(1ull << s);
            while (!klawi_link_empty(&moved)) {
                klawi_timer *t = KLAWI_CONTAINER(moved.next, klawi_timer, link);
                klawi_link_remove(&t->link);
                file(wh, t);
            }
            continue;
        }
        call = NULL;
        n = collect(wh, &wh->slot[0][s], now, due, epochs, &call);
        klawi_lock_release(&wh->lock);
        for (unsigned i = 0; i < n; i++)
            fired += klawi_host_timeout(due[i], epochs[i]);
        if (call) {
            call->fn((void *)(uintptr_t)call->key);
            /* Release: pairs with drain, whose caller may free it at once. */
            atomic_fetch_add_explicit(&call->ended, 1, memory_order_release);
            fired++;
        }
        klawi_lock_acquire(&wh->lock);
    }
    if (limit > wh->tick && wh->count == 0)
        wh->tick = limit;
    publish_next(wh);
    klawi_lock_release(&wh->lock);
    return fired;
}

void klawi_wheel_revive(klawi_wheel *wh, int64_t now) {
    klawi_lock_acquire(&wh->lock);
    wh->tick = now >> KLAWI_TICK_SHIFT;
    wh->dead = false;
    klawi_lock_release(&wh->lock);
}

void klawi_wheel_clear(klawi_wheel *wh) {
    klawi_lock_acquire(&wh->lock);
    wh->dead = true;
    for (unsigned l = 0; l < KLAWI_WHEEL_LEVELS; l++)
        for (; wh->used[l]; wh->used[l] &= wh->used[l] - 1) {
            klawi_link *slot = &wh->slot[l][__builtin_ctzll(wh->used[l])];
            while (!klawi_link_empty(slot)) {
                klawi_timer *t = KLAWI_CONTAINER(slot->next, klawi_timer, link);
                klawi_link_remove(&t->link);
                atomic_store_explicit(&t->wheel, NULL, memory_order_release);
            }
        }
    wh->count = 0;
    atomic_store_explicit(&wh->next, KLAW_FOREVER, memory_order_relaxed);
    klawi_lock_release(&wh->lock);
}
