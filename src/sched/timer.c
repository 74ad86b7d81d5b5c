/* SPDX-License-Identifier: Apache-2.0 */
/* timer.c - sleeping, and timers that call back; the wheel does the work.
 *
 * A klaw_timer holds a klawi_timer. A sleep is a park with
 * nothing to wait for but its deadline; the sleeper's own waiter hangs nowhere.
 * Callbacks run on a worker's own stack, with no lock held. */
#include <string.h>

#include "sched/sched.h"

struct timer {
    klawi_timer t;
};
_Static_assert(sizeof(struct timer) <= sizeof(klaw_timer), "klaw_timer is too small");

static struct timer *real(klaw_timer *t) {
    return (struct timer *)(void *)t;
}

int64_t klaw_now(void) {
    return klawi_clock();
}

klaw_deadline klaw_after(int64_t ns) {
    int64_t now = klawi_clock(), at;
    if (__builtin_add_overflow(now, ns, &at) || at == KLAW_FOREVER)
        at = KLAW_FOREVER - 1;
    return at < 1 ? 1 : at;
}

klaw_err klaw_sleep(klaw_deadline until) {
    klaw_err e = KLAW_OK;
    int64_t at;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    if (klawi_host_cancelled(h))
        return KLAW_CANCELLED;
    if (klawi_deadline_resolve(until, KLAW_TIMEOUT, &at) != KLAW_OK)
        return klaw_check();
    klawi_host_waits(h, KLAWI_WAIT_SLEEP, 0);
    uint64_t epoch =
        (atomic_load_explicit(&h->word, memory_order_relaxed) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
    if (h->kind == KLAWI_FIBER)
        atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&klawi_thread_of(h)->flag, 0, memory_order_relaxed);
    h->waiter.epoch = 0; /* hangs nowhere: klawi_finish_claimed */
    if (!klawi_arm(h, epoch))
        return KLAW_CANCELLED;
    e = klawi_park_armed(h, epoch, at);
    return e == KLAW_TIMEOUT ? KLAW_OK : e;
}

void klaw_timer_init(klaw_timer *t, void (*fn)(void *), void *arg) {
    memset(t, 0, sizeof *t);
    real(t)->t.fn = fn;
    real(t)->t.key = (uintptr_t)arg;
}

klaw_err klaw_timer_arm(klaw_timer *t, klaw_deadline deadline) {
    if (!t || deadline == KLAW_NOWAIT || deadline == KLAW_FOREVER)
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_get();
    klawi_wheel *wh = klawi_wheel_for(c);
    if (!wh)
        return KLAW_STOPPED;
    int64_t at = deadline;
    if (deadline < 0) {
        int64_t now = klawi_clock();
        at = now > KLAW_FOREVER - 1 + deadline ? KLAW_FOREVER - 1 : now - deadline;
    }
    if (!klawi_wheel_set(wh, &real(t)->t, at))
        return KLAW_STOPPED;
    if (KLAWI_UNLIKELY(!c || !c->worker)) {
        klawi_runtime *rt = atomic_load(&klawi_rt);
        klawi_fence(); /* pairs with poll_long: it sees the timer or we see its poll_until */
        if (rt && at < atomic_load(&rt->poll_until))
            klawi_poll_kick(rt);
    }
    return KLAW_OK;
}

bool klaw_timer_cancel(klaw_timer *t) {
    return klawi_wheel_remove(&real(t)->t);
}

void klaw_timer_drain(klaw_timer *t) {
    klawi_wheel_drain(&real(t)->t);
}
