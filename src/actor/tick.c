/* SPDX-License-Identifier: Apache-2.0 */
/* tick.c - timers of actors.
 *
 * A tick is a klaw_timer whose callback, on some worker, queues the tick's own system message; if that is
 * still queued from last time the two are merged. The incarnation owns its ticks; whoever takes one out
 * of self->ticks drains its timer and then frees it, so no callback outlives its tick, and none of an
 * earlier incarnation is left when the next one begins (A11). An incarnation that is given up while it
 * arms a timer frees that one itself: it still has it in its hands.
 *
 * Locks: the actor's for the list and the system message. The timer is drained without it: its
 * callback takes it. */
#include "base/alloc.h"
#include "actor/actor.h"

/* About 146 years: no sum overflows. */
#define NS_MAX (INT64_MAX / 2)

static void on_time(void *arg) {
    klawi_tick *t = arg;
    klaw_actor *a = t->actor;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    if (!t->dead && !t->sys.link.next)
        klawi_mailbox_sys(a, &t->sys, &wakes);
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
    if (t->period) {
        int64_t now = klawi_clock();
        int64_t passed = now > t->next ? (now - t->next) / t->period : 0;
        t->next += (1 + passed) * t->period;
        if (klaw_timer_arm(&t->timer, t->next) != KLAW_OK)
            t->next = 0; /* the run is over, and the actor with it */
    }
}

/* It is in no list any more. No lock held. */
static void tick_free(klawi_tick *t) {
    if (!t)
        return;
    KLAWI_ASSERT(!t->arming);
    klaw_timer_drain(&t->timer);
    klawi_free(t);
}

/* Under the lock: out of the list and of the system messages. */
static void unhang(klawi_tick *t) {
    t->dead = true;
    klawi_link_remove(&t->link);
    if (t->sys.link.next)
        klawi_link_remove(&t->sys.link);
}

static klawi_tick *find(klaw_self *s, uint64_t id, bool internal) {
    for (klawi_link *l = s->ticks.next; l != &s->ticks; l = l->next) {
        klawi_tick *t = KLAWI_CONTAINER(l, klawi_tick, link);
        if (t->id == id && t->internal == internal)
            return t;
    }
    return NULL;
}

klaw_err klawi_tick_set(klaw_self *s, int64_t ns, int64_t period, uint64_t id, bool internal) {
    klaw_actor *a = s->actor;
    klawi_tick *t = klawi_calloc(1, sizeof *t), *old = NULL;
    if (!t)
        return KLAW_NOMEM;
    if (ns > NS_MAX)
        ns = NS_MAX;
    t->sys.kind = KLAWI_SYS_TIMER;
    t->actor = a;
    t->id = id;
    t->period = period > NS_MAX ? NS_MAX : period;
    t->internal = internal;
    t->arming = true;
    t->next = klawi_clock() + ns;
    klaw_timer_init(&t->timer, on_time, t);
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s;
    if (mine) {
        old = find(s, id, internal);
        if (old)
            unhang(old);
        klawi_link_push(&s->ticks, &t->link);
    }
    klawi_lock_release(&a->lock);
    tick_free(old);
    if (!mine) {
        klawi_free(t);
        return KLAW_STOPPED;
    }
    klaw_err e = klaw_timer_arm(&t->timer, t->next);
    klawi_lock_acquire(&a->lock);
    t->arming = false;
    bool given_up = t->dead; /* else only the own fiber removes it, and that is us */
    if (e && !given_up)
        unhang(t);
    klawi_lock_release(&a->lock);
    if (e || given_up)
        tick_free(t);
    return given_up ? KLAW_STOPPED : e;
}

bool klawi_tick_take(klaw_self *s, klawi_tick *t, uint64_t *id, bool *internal) {
    klaw_actor *a = s->actor;
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s, once = false;
    if (mine) {
        *id = t->id;
        *internal = t->internal;
        once = t->period == 0;
        if (once)
            unhang(t);
    }
    klawi_lock_release(&a->lock);
    if (once)
        tick_free(t);
    return mine;
}

void klawi_ticks_end(klaw_self *s) {
    klaw_actor *a = s->actor;
    if (KLAWI_MUTANT(A11_STALE_TICK))
        return;
    for (;;) {
        klawi_tick *t = NULL;
        klawi_lock_acquire(&a->lock);
        if (!klawi_link_empty(&s->ticks)) {
            t = KLAWI_CONTAINER(s->ticks.next, klawi_tick, link);
            unhang(t);
        }
        bool arming = t && t->arming && !KLAWI_MUTANT(A11_FREE_ARMING);
        klawi_lock_release(&a->lock);
        if (!t)
            return;
        if (!arming)
            tick_free(t);
    }
}

/* --- for callbacks --- */

klaw_err klaw_self_after(klaw_self *self, int64_t ns, uint64_t id) {
    if (!self || ns <= 0 || !self->actor->behavior->timer)
        return KLAW_INVALID;
    return klawi_tick_set(self, ns, 0, id, false);
}

klaw_err klaw_self_every(klaw_self *self, int64_t period, uint64_t id) {
    if (!self || period <= 0 || !self->actor->behavior->timer)
        return KLAW_INVALID;
    return klawi_tick_set(self, period, period, id, false);
}

klaw_err klaw_self_cancel_timer(klaw_self *self, uint64_t id) {
    if (!self)
        return KLAW_INVALID;
    klaw_actor *a = self->actor;
    klawi_tick *t = NULL;
    klawi_lock_acquire(&a->lock);
    if (a->self == self && (t = find(self, id, false)) != NULL)
        unhang(t);
    klawi_lock_release(&a->lock);
    tick_free(t);
    return t ? KLAW_OK : KLAW_NOT_FOUND;
}
