/* SPDX-License-Identifier: Apache-2.0 */
/* self.c - what a callback may do about the message in hand, and promises.
 *
 * A promise takes (host, epoch) of the asker over from the envelope in hand (A5) and hangs in its
 * actor's list until it is used up or the incarnation ends; then it names nobody, and its memory stays the
 * holder's. Who answers takes the name out under the lock, claims without it. */
#include "actor/actor.h"
#include "base/alloc.h"

klaw_actor *klaw_self_actor(klaw_self *self) {
    return self->actor;
}
uint64_t klaw_self_incarnation(const klaw_self *self) {
    return self->incarnation;
}
void klaw_self_take(klaw_self *self) {
    KLAWI_ASSERT(self->in_handle);
    self->has_message = false;
}

void klaw_self_stop(klaw_self *self) {
    klaw_actor *a = self->actor;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    if (a->self == self)
        klawi_mailbox_close(a, &wakes);
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
}

klaw_err klaw_self_refuse(klaw_self *self, klaw_err error) {
    if (!self || !self->open || error == KLAW_OK)
        return KLAW_INVALID;
    self->open = false;
    (void)klawi_asker_answer(self->env.asker, self->env.epoch, error, NULL, 0);
    return KLAW_OK;
}

klaw_err klaw_self_defer(klaw_self *self, klaw_promise **out) {
    if (!self || !out || !self->open)
        return KLAW_INVALID;
    klaw_promise *p = klawi_calloc(1, sizeof *p);
    if (!p)
        return KLAW_NOMEM;
    klaw_actor *a = p->actor = klaw_actor_ref(self->actor);
    klawi_lock_acquire(&a->lock);
    if (a->self == self) { /* else it was given up, and its asker told (A12) */
        p->asker = self->env.asker;
        p->epoch = self->env.epoch;
        klawi_link_push(&a->promises, &p->link);
        a->promised++;
    }
    self->env.asker = NULL;
    klawi_lock_release(&a->lock);
    self->open = false;
    *out = p;
    return KLAW_OK;
}

/* Under the lock. */
static void unhang(klaw_promise *p) {
    klawi_link_remove(&p->link);
    p->actor->promised--;
}

static bool use_up(klaw_promise *p, klaw_err result, const void *reply) {
    klaw_actor *a = p->actor;
    klawi_lock_acquire(&a->lock);
    klawi_host *h = p->asker;
    if (p->link.next)
        unhang(p);
    klawi_lock_release(&a->lock);
    bool told = h && klawi_asker_answer(h, p->epoch, result, reply, a->reply_size);
    klaw_actor_unref(a);
    klawi_free(p);
    return told;
}

klaw_err klaw_promise_answer(klaw_promise *p, const void *reply) {
    if (!p)
        return KLAW_INVALID;
    if (!reply) {
        (void)use_up(p, KLAW_STOPPED, NULL);
        return KLAW_INVALID;
    }
    return use_up(p, KLAW_OK, reply) ? KLAW_OK : KLAW_CLOSED;
}

void klaw_promise_refuse(klaw_promise *p, klaw_err error) {
    if (p)
        (void)use_up(p, error ? error : KLAW_STOPPED, NULL);
}

void klaw_promise_drop(klaw_promise *p) {
    klaw_promise_refuse(p, KLAW_STOPPED);
}

bool klaw_promise_wanted(klaw_promise *p) {
    klawi_envelope e = {0};
    if (!p)
        return false;
    klawi_lock_acquire(&p->actor->lock);
    e.asker = p->asker;
    e.epoch = p->epoch;
    klawi_lock_release(&p->actor->lock);
    return e.asker && klawi_asker_waits(&e);
}

void klawi_promises_break(klaw_actor *a, klaw_err why) {
    if (KLAWI_MUTANT(A5_KEEP_PROMISE))
        return;
    for (;;) {
        klawi_host *h = NULL;
        uint64_t epoch = 0;
        klawi_lock_acquire(&a->lock);
        bool any = !klawi_link_empty(&a->promises);
        if (any) {
            klaw_promise *p = KLAWI_CONTAINER(a->promises.next, klaw_promise, link);
            h = p->asker;
            epoch = p->epoch;
            p->asker = NULL;
            unhang(p);
        }
        klawi_lock_release(&a->lock);
        if (!any)
            return;
        (void)klawi_asker_answer(h, epoch, why, NULL, 0);
    }
}
