/* SPDX-License-Identifier: Apache-2.0 */
/* list.c - the list of live actors, and their counters. An actor is in it until it has ended. */
#include "actor/actor.h"

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link list = {&list, &list};

void klawi_actor_enlist(klaw_actor *a) {
    klawi_lock_acquire(&lock);
    klawi_link_push(&list, &a->live);
    klawi_lock_release(&lock);
}

void klawi_actor_delist(klaw_actor *a) {
    klawi_lock_acquire(&lock);
    klawi_link_remove(&a->live);
    klawi_lock_release(&lock);
}

void klawi_actors_each(void (*visit)(klaw_actor *a, void *user), void *user) {
    klawi_lock_acquire(&lock);
    for (klawi_link *l = list.next; l != &list; l = l->next)
        visit(KLAWI_CONTAINER(l, klaw_actor, live), user);
    klawi_lock_release(&lock);
}

const char *klaw_actor_state_name(klaw_actor_state state) {
    static const char *const names[] = {"starting", "idle",     "running",
                                        "backoff",  "stopping", "ended"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "?";
}

static klaw_actor_state state_of(const klaw_actor *a) {
    if (a->ended)
        return KLAW_ACTOR_ENDED;
    if (a->phase != KLAW_ACTOR_RUNNING)
        return (klaw_actor_state)a->phase;
    if (a->closed || a->halt)
        return KLAW_ACTOR_STOPPING;
    return a->idle && a->accepts ? KLAW_ACTOR_IDLE : KLAW_ACTOR_RUNNING;
}

void klawi_actor_stats(klaw_actor *a, klaw_actor_stats *out) {
    memset(out, 0, sizeof *out);
    out->id = a->id;
    memcpy(out->name, a->name, sizeof out->name);
    strncpy(out->behavior, a->behavior->name, sizeof out->behavior - 1);
    out->capacity = a->opts.capacity ? a->opts.capacity : KLAW_MAILBOX_DEFAULT;
    klawi_lock_acquire(&a->lock);
    out->state = state_of(a);
    out->mailbox_size = a->tail - a->head;
    out->high_watermark = a->high;
    out->handled = atomic_load_explicit(&a->handled, memory_order_relaxed);
    out->failed = a->failed;
    out->expired = a->expired;
    out->restarts = a->restarts;
    out->incarnation = a->incarnation;
    out->waiting_asks = a->asks + a->promised;
    if (a->self && a->self->env.asker && klawi_asker_waits(&a->self->env))
        out->waiting_asks++;
    for (klawi_waiter *w = klawi_waitq_first(&a->sq); w; w = klawi_waitq_next(&a->sq, w))
        out->waiting_senders += klawi_waiter_live(w);
    out->reason = a->reason;
    out->fiber_id = a->self && a->self->fiber ? a->self->fiber->id : 0;
    klawi_lock_release(&a->lock);
}

klaw_err klaw_actor_stats_get(klaw_actor *a, klaw_actor_stats *out) {
    if (!a || !out)
        return KLAW_INVALID;
    klawi_actor_stats(a, out);
    return KLAW_OK;
}

__attribute__((constructor)) static void inspect_init(void) {
    klawi_inspect_actors();
}
