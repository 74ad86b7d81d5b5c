/* SPDX-License-Identifier: Apache-2.0 */
/* select.c - wait for the first of several operations (rule P9).
 *
 * Pass 1: the cases in random order, one lock at a time; the first that can go on is committed
 * there and then. Pass 2: all locks, scopes before channels and each by rising id; every case is
 * looked at again; all are linked; the host is armed once; unlock; leave. After: the winner has
 * written result and case index (H2) and unlinked its waiter; the host unlinks the others under
 * their locks before it returns. A waiter that told it only to look again (KLAWI_RETRY) starts it
 * over.
 *
 * Nothing of the host is linked during a pass, so a select never meets itself. Losers have no
 * effect: they are only unlinked.
 *
 * Invariants:
 *   L1  at return no waiter of the call is linked anywhere.
 *   L2  exactly one case is committed when OK is returned, none otherwise.
 *
 * Rejected: try in source order (starves); one global select lock. */
#include "klaw/select.h"

#include "base/alloc.h"
#include "sync/cell.h"
#include "sync/chan.h"

#define INLINE_CASES 16

typedef struct sel {
    klaw_case *cases;
    size_t n;
    klawi_host *h;
    klawi_waiter *w; /* n of them */
    uint16_t *order; /* active cases: shuffled in pass 1, by lock order in pass 2 */
    size_t active;
    int64_t timer_at; /* the earliest timer case, absolute; KLAW_FOREVER: none */
    size_t timer_case;
    int64_t now; /* 0: not read */
} sel;

static klawi_end *end_of(const klaw_case *c) {
    return c->kind == KLAW_CASE_SEND ? &c->tx->e : &c->rx->e;
}
static bool on_channel(const klaw_case *c) {
    return c->kind == KLAW_CASE_SEND || c->kind == KLAW_CASE_RECV;
}
static klawi_lock *lock_of(const klaw_case *c) {
    return c->kind == KLAW_CASE_SCOPE ? &c->scope->lock : &end_of(c)->ch->lock;
}
static uint64_t rank_of(const klaw_case *c) {
    return c->kind == KLAW_CASE_SCOPE ? c->scope->id : end_of(c)->ch->id | (uint64_t)1 << 63;
}

/* --- looking at the cases --- */
static klaw_err check_case(const klaw_case *c) {
    switch (c->kind) {
    case KLAW_CASE_NONE: return KLAW_OK;
    case KLAW_CASE_RECV:
        return c->rx && c->elem && c->rx->e.ch->ops->selects ? KLAW_OK : KLAW_INVALID;
    case KLAW_CASE_SEND:
        if (!c->tx || !c->elem || !c->tx->e.ch->ops->selects)
            return KLAW_INVALID;
        return c->tx->e.ch->ops->receives_only ? KLAW_TYPE : KLAW_OK;
    case KLAW_CASE_TIMER: return c->deadline == KLAW_NOWAIT ? KLAW_INVALID : KLAW_OK;
    case KLAW_CASE_SCOPE: return c->scope ? KLAW_OK : KLAW_INVALID;
    default: return KLAW_INVALID;
    }
}

static klaw_err check(sel *s) {
    s->active = 0;
    s->timer_at = KLAW_FOREVER;
    for (size_t i = 0; i < s->n; i++) {
        klaw_case *c = &s->cases[i];
        klaw_err e = check_case(c);
        if (e)
            return e;
        if (c->kind == KLAW_CASE_NONE ||
            (c->kind == KLAW_CASE_TIMER && c->deadline == KLAW_FOREVER))
            continue;
        if (c->kind == KLAW_CASE_TIMER) {
            int64_t at = c->deadline;
            if (s->now == 0)
                s->now = klawi_clock();
            if (at < 0)
                at = s->now > KLAW_FOREVER - 1 + at ? KLAW_FOREVER - 1 : s->now - at;
            if (at < s->timer_at) {
                s->timer_at = at;
                s->timer_case = i;
            }
        }
        s->order[s->active++] = (uint16_t)i;
    }
    return KLAW_OK;
}

/* Under the case's lock: commits it if it can go on. EMPTY or FULL: it would wait. */
static klaw_err try_case(klaw_case *c, klawi_fx *fx) {
    if (c->kind == KLAW_CASE_SCOPE)
        return atomic_load_explicit(&c->scope->cancelled, memory_order_relaxed) ? KLAW_OK
                                                                                : KLAW_EMPTY;
    klawi_end *e = end_of(c);
    if (atomic_load_explicit(&e->closed, memory_order_relaxed))
        return KLAW_CLOSED;
    return c->kind == KLAW_CASE_SEND ? e->ch->ops->try_send(e->ch, e, c->elem, 1, fx)
                                     : e->ch->ops->try_recv(e->ch, e, c->elem, fx);
}

static bool would_wait(klaw_err e) {
    return e == KLAW_EMPTY || e == KLAW_FULL;
}

/* No lock held: what is left to do of a committed case. */
static void complete(klaw_case *c, klaw_err e, klawi_fx *fx) {
    if (on_channel(c)) {
        klawi_end *end = end_of(c);
        klawi_fx_run(end->ch, fx);
        if (fx->cell)
            e = end->ch->ops->after(end->ch, end, c->elem, fx);
    }
    c->err = e;
}

/* A case that would wait may have told a foreign sender that somebody is here (rendezvous). No lock
 * held. */
static void tell(klawi_fx *fx) {
    if (fx->wakes.first)
        klawi_wakes_run(&fx->wakes);
    klawi_wakes_init(&fx->wakes);
}

/* --- pass 1 --- */
/* OK: case *chosen is done. EMPTY: none could go on. Draws the order as it goes, so that the first
 * ready one costs one random number. */
static klaw_err pass1(sel *s, klawi_ctx *c, size_t *chosen) {
    for (size_t left = s->active; left > 0; left--) {
#if defined(KLAWI_DET)
        size_t k = klawi_det_choose((uint32_t)left);
#else
        size_t k = (size_t)(((uint64_t)klawi_ctx_rand(c) * left) >> 32);
#endif
        (void)c;
        uint16_t i = s->order[k];
        s->order[k] = s->order[left - 1];
        s->order[left - 1] = i;
        klaw_case *cs = &s->cases[i];
        klawi_fx fx;
        klaw_err e;
        klawi_fx_init(&fx);
        if (cs->kind == KLAW_CASE_TIMER) {
            if (i != s->timer_case || s->now < s->timer_at)
                continue;
            e = KLAW_OK;
        } else {
            klawi_lock *l = lock_of(cs);
            klawi_lock_acquire(l);
            e = try_case(cs, &fx);
            klawi_lock_release(l);
            if (would_wait(e))
                tell(&fx);
            if (e == KLAWI_GROW) {
                klawi_end *end = end_of(cs);
                e = end->ch->ops->grow(end->ch, end, 1);
                if (e == KLAW_OK) {
                    left++; /* the same one again, some time */
                    continue;
                }
            }
            if (would_wait(e))
                continue;
        }
        complete(cs, e, &fx);
        *chosen = i;
        return KLAW_OK;
    }
    return KLAW_EMPTY;
}

/* --- pass 2 --- */
static void sort_for_locks(sel *s) {
    if (KLAWI_MUTANT(P9_LOCK_ORDER))
        return;
    for (size_t i = 1; i < s->active; i++) {
        uint16_t k = s->order[i];
        uint64_t r = s->cases[k].kind == KLAW_CASE_TIMER ? 0 : rank_of(&s->cases[k]);
        size_t j = i;
        for (; j > 0; j--) {
            klaw_case *p = &s->cases[s->order[j - 1]];
            if ((p->kind == KLAW_CASE_TIMER ? 0 : rank_of(p)) <= r)
                break;
            s->order[j] = s->order[j - 1];
        }
        s->order[j] = k;
    }
}

static void lock_all(sel *s) {
    klawi_lock *last = NULL;
    for (size_t i = 0; i < s->active; i++) {
        klaw_case *c = &s->cases[s->order[i]];
        if (c->kind == KLAW_CASE_TIMER || lock_of(c) == last)
            continue;
        last = lock_of(c);
        klawi_lock_acquire(last);
    }
}

static void unlock_all(sel *s) {
    klawi_lock *last = NULL;
    for (size_t i = s->active; i-- > 0;) {
        klaw_case *c = &s->cases[s->order[i]];
        if (c->kind == KLAW_CASE_TIMER || lock_of(c) == last)
            continue;
        last = lock_of(c);
        klawi_lock_release(last);
    }
}

static void link_all(sel *s, uint64_t *epoch) {
    for (size_t i = 0; i < s->active; i++) {
        uint16_t k = s->order[i];
        klaw_case *c = &s->cases[k];
        klawi_waiter *w = &s->w[k];
        w->link.next = NULL;
        if (c->kind == KLAW_CASE_TIMER)
            continue;
        if (c->kind == KLAW_CASE_SCOPE) {
            klawi_waiter_fill(w, s->h, &c->scope->lock, KLAWI_OP_NOTIFY, NULL, NULL);
            klawi_waitq_push(&c->scope->watchers, w);
        } else {
            klawi_end *end = end_of(c);
            bool send = c->kind == KLAW_CASE_SEND;
            if (klawi_inspecting())
                klawi_end_used(end, s->h);
            klawi_waiter_fill(w, s->h, &end->ch->lock, send ? KLAWI_OP_SEND : KLAWI_OP_RECV,
                              c->elem, end);
            klawi_waitq_push(send ? &end->ch->sq : &end->ch->rq, w);
        }
        w->index = k;
        *epoch = w->epoch;
    }
}

/* Takes the waiters out again; the winner's is out already. `locked`: all locks are held. */
static void unlink_all(sel *s, bool locked) {
    for (size_t i = 0; i < s->active; i++) {
        uint16_t k = s->order[i];
        klaw_case *c = &s->cases[k];
        if (c->kind == KLAW_CASE_TIMER)
            continue;
        if (!locked)
            klawi_lock_acquire(lock_of(c));
        if (s->w[k].link.next)
            klawi_link_remove(&s->w[k].link);
        if (!locked)
            klawi_lock_release(lock_of(c));
    }
}

/* Under all locks: a case that has become ready meanwhile is committed. */
static klaw_err recheck(sel *s, size_t *chosen, klawi_fx *fx) {
    for (size_t i = 0; i < s->active; i++) {
        klaw_case *c = &s->cases[s->order[i]];
        if (c->kind == KLAW_CASE_TIMER)
            continue;
        klaw_err e = try_case(c, fx);
        if (would_wait(e))
            continue;
        *chosen = s->order[i];
        return e;
    }
    return KLAW_EMPTY;
}

/* After the unlock: ends what recheck has committed. OK; RETRY: start over. */
static klaw_err rechecked(klaw_case *c, klaw_err e, klawi_fx *fx) {
    tell(fx);
    if (e == KLAWI_GROW) {
        klawi_end *end = end_of(c);
        e = end->ch->ops->grow(end->ch, end, 1);
        if (e == KLAW_OK)
            return KLAWI_RETRY;
    }
    complete(c, e, fx);
    return KLAW_OK;
}

/* Does not wait. EMPTY: nothing is ready, and that at one moment; what pass 1 saw of one case after
 * the other may never have been true of all. OK: *chosen is done. RETRY: start over. */
static klaw_err look(sel *s, size_t *chosen) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    sort_for_locks(s);
    lock_all(s);
    klaw_err e = recheck(s, chosen, &fx);
    unlock_all(s);
    if (e != KLAW_EMPTY)
        return rechecked(&s->cases[*chosen], e, &fx);
    tell(&fx);
    return e;
}

/* Waits. OK: *chosen is done. RETRY: start over. */
static klaw_err pass2(sel *s, size_t *chosen, int64_t at) {
    klawi_fx fx;
    klawi_host *h = s->h;
    uint64_t epoch =
        (atomic_load_explicit(&h->word, memory_order_relaxed) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
    klawi_fx_init(&fx);
    sort_for_locks(s);
    lock_all(s);
    klaw_err e = KLAWI_MUTANT(P9_NO_RECHECK) ? KLAW_EMPTY : recheck(s, chosen, &fx);
    if (e != KLAW_EMPTY) {
        unlock_all(s);
        return rechecked(&s->cases[*chosen], e, &fx);
    }
    link_all(s, &epoch);
    klawi_host_waits(h, KLAWI_WAIT_SELECT, 0);
    h->waiter.epoch = 0; /* ours hang, not that one: klawi_finish_claimed */
    if (h->kind == KLAWI_FIBER)
        atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&klawi_thread_of(h)->flag, 0, memory_order_relaxed);
    if (!klawi_arm(h, epoch)) {
        unlink_all(s, true);
        unlock_all(s);
        tell(&fx);
        return KLAW_CANCELLED;
    }
    unlock_all(s);
    tell(&fx);
    e = klawi_park_armed(h, epoch, at < s->timer_at ? at : s->timer_at);
    size_t won = h->chosen;
    if (!KLAWI_MUTANT(P9_NO_UNLINK))
        unlink_all(s, false);
    if (e == KLAW_TIMEOUT) {
        if (s->timer_at > at)
            return KLAW_TIMEOUT;
        *chosen = s->timer_case;
        s->cases[*chosen].err = KLAW_OK;
        return KLAW_OK;
    }
    if (e == KLAW_CANCELLED || e == KLAWI_RETRY)
        return e;
    *chosen = won;
    s->cases[won].err = e;
    return KLAW_OK;
}

static klaw_err run(sel *s, size_t *chosen, klaw_deadline d) {
    klaw_err e = check(s);
    int64_t at = KLAW_FOREVER;
    bool resolved = false;
    if (e)
        return e;
    if (s->active == 0) {
        if (d == KLAW_FOREVER)
            return KLAW_INVALID;
        if (d == KLAW_NOWAIT)
            return KLAW_EMPTY;
        e = klaw_sleep(d);
        return e ? e : KLAW_TIMEOUT;
    }
    for (;;) {
        klawi_ctx *c = klawi_ctx_need(&e);
        if (!c || (klawi_budget_take(c) && (e = klawi_budget_spent(c)) != KLAW_OK))
            return e;
        c = klawi_ctx_get();
        s->h = klawi_cur(c);
        e = pass1(s, c, chosen);
        if (e != KLAW_EMPTY)
            return e;
        if (!resolved && (e = klawi_deadline_resolve(d, KLAW_EMPTY, &at)) != KLAW_OK) {
            klaw_err found = s->active > 1 ? look(s, chosen) : KLAW_EMPTY;
            if (found == KLAWI_RETRY)
                continue;
            return found == KLAW_EMPTY ? e : found;
        }
        resolved = true;
        if (s->h->kind != KLAWI_FIBER && s->h->kind != KLAWI_THREAD)
            return KLAW_INVALID;
        e = pass2(s, chosen, at);
        if (e != KLAWI_RETRY)
            return e;
        if (s->timer_at != KLAW_FOREVER)
            s->now = klawi_clock();
    }
}

klaw_err klaw_select(klaw_case *cases, size_t n, size_t *chosen, klaw_deadline deadline) {
    klawi_waiter waiters[INLINE_CASES];
    uint16_t order[INLINE_CASES];
    if ((!cases && n) || !chosen || (n == 0 && deadline == KLAW_FOREVER))
        return KLAW_INVALID;
    if (n > KLAW_SELECT_MAX)
        return KLAW_LIMIT;
    sel s = {.cases = cases, .n = n, .w = waiters, .order = order};
    void *memory = NULL;
    if (n > INLINE_CASES) {
        memory = klawi_alloc(n * (sizeof *s.w + sizeof *s.order));
        if (!memory)
            return KLAW_NOMEM;
        s.w = memory;
        s.order = (uint16_t *)(void *)(s.w + n);
    }
    klaw_err e = run(&s, chosen, deadline);
    if (memory)
        klawi_free(memory);
    return e;
}
