/* SPDX-License-Identifier: Apache-2.0 */
/* bond.c - who is told when an actor ends: monitors, links, watchers.
 *
 * A bond hangs in its target's list (monitors and watchers in `watchers`, told when the identity
 * ends; half links in `links`, told when an incarnation ends) and, unless it is a watch, in the list of the
 * incarnation that owns it. A link is two halves, one for each side, that know each other. One lock (B)
 * guards all of these lists: bonds join two actors, and two locks would have an order only by search.
 * It is held for a few pointers at a time, never for a whole list. The system list of the owner is
 * under the owner's own lock, taken inside.
 *
 *   A7  a bond is armed (in its target's list), fired (in its owner's system list), or being
 *       delivered; it goes from one to the next under B, so it is delivered once, or, taken out by
 *       its owner first, never.
 *   A9  a->gone => its lists stay empty: whoever comes later is told at once.
 *   A11 self->cleared => it lives no further incarnation, holds no bond and gets none (links are made
 *       from the other side, too, and between two of its incarnations).
 *
 * Rejected: a message in the mailbox (it would need room); a lock for each pair. */
#include "base/alloc.h"
#include "klaw/oneshot.h"
#include "sync/chan.h"
#include "actor/actor.h"

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_BOND);
static _Atomic uint64_t next_id = 1;

static void down_drop(void *elem) {
    klaw_actor_unref(((klaw_down *)elem)->actor);
}
static klaw_err down_share(const void *from, void *to) {
    *(klaw_down *)to = *(const klaw_down *)from;
    klaw_actor_ref(((klaw_down *)to)->actor);
    return KLAW_OK;
}
const klaw_type klaw_down_type = {
    .name = "klaw_down", .size = sizeof(klaw_down), .drop = down_drop, .share = down_share};

static klawi_bond *bond_new(klaw_self *owner, klaw_actor *target, bool is_link) {
    klawi_bond *b = klawi_calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->sys.kind = KLAWI_SYS_BOND;
    b->owner = owner;
    b->target = klaw_actor_ref(target);
    b->is_link = is_link;
    atomic_init(&b->refs, 1);
    if (!is_link)
        b->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    return b;
}

void klawi_bond_free(klawi_bond *b) {
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_sender_unref(b->tx);
    klaw_actor_unref(b->target);
    klawi_free(b);
}

/* --- firing --- */

/* Under B: the bond is out of its target's list; its owner gets the news. */
static void fire(klawi_bond *b, klaw_err why, klawi_wakes *wakes) {
    klaw_actor *owner = b->owner->actor;
    b->reason = why;
    if (b->peer) {
        b->peer->peer = NULL;
        b->peer = NULL;
    }
    klawi_lock_acquire(&owner->lock);
    klawi_mailbox_sys(owner, &b->sys, wakes);
    klawi_lock_release(&owner->lock);
}

static void fire_all(klawi_link *list, klaw_err why) {
    for (;;) {
        klawi_wakes wakes;
        klawi_bond *watch = NULL;
        klawi_wakes_init(&wakes);
        klawi_lock_acquire(&lock);
        if (klawi_link_empty(list)) {
            klawi_lock_release(&lock);
            return;
        }
        klawi_bond *b = KLAWI_CONTAINER(list->next, klawi_bond, at_target);
        klawi_link_remove(&b->at_target);
        if (b->owner)
            fire(b, why, &wakes);
        else
            watch = b;
        klawi_lock_release(&lock);
        klawi_wakes_run(&wakes);
        if (watch) {
            klaw_down d = {.actor = klaw_actor_ref(watch->target), .reason = why};
            memcpy(d.name, watch->target->name, sizeof d.name);
            if (klaw_send(watch->tx, &d, KLAW_NOWAIT) != KLAW_OK)
                klaw_actor_unref(d.actor); /* its receiver has just closed */
            klaw_sender_close(watch->tx);
            klawi_bond_free(watch);
        }
    }
}

/* Under B: out of both lists, and out of the owner's system list if it has fired. */
static void unhang(klawi_bond *b) {
    klaw_actor *owner = b->owner->actor;
    klawi_link_remove(&b->at_owner);
    if (b->at_target.next)
        klawi_link_remove(&b->at_target);
    klawi_lock_acquire(&owner->lock);
    if (b->sys.link.next && !KLAWI_MUTANT(A7_KEEP_FIRED))
        klawi_link_remove(&b->sys.link);
    klawi_lock_release(&owner->lock);
}

/* Under B: b is given up by its owner; its other half, if armed still, goes with it. *other is to be
 * freed too. */
static void dissolve(klawi_bond *b, klawi_bond **other) {
    klawi_bond *peer = b->peer;
    unhang(b);
    *other = NULL;
    if (peer) {
        b->peer = peer->peer = NULL;
        unhang(peer);
        *other = peer;
    }
}

bool klawi_bond_take(klaw_self *s, klawi_bond *b) {
    klawi_lock_acquire(&lock);
    bool mine = !s->cleared;
    if (mine)
        klawi_link_remove(&b->at_owner);
    klawi_lock_release(&lock);
    return mine;
}

void klawi_bonds_end(klaw_self *s, klaw_actor *a, klaw_err why, bool last) {
    fire_all(&a->links, why);
    for (;;) {
        klawi_bond *other = NULL;
        klawi_lock_acquire(&lock);
        if (klawi_link_empty(&s->bonds)) {
            s->cleared = last;
            klawi_lock_release(&lock);
            return;
        }
        klawi_bond *b = KLAWI_CONTAINER(s->bonds.next, klawi_bond, at_owner);
        dissolve(b, &other);
        klawi_lock_release(&lock);
        klawi_bond_free(b);
        klawi_bond_free(other);
    }
}

void klawi_bonds_finish(klaw_actor *a, klaw_err why) {
    klawi_lock_acquire(&lock);
    a->gone = !KLAWI_MUTANT(A9_MISS_GONE);
    klawi_lock_release(&lock);
    fire_all(&a->links, why); /* links made since its last incarnation ended */
    fire_all(&a->watchers, why);
}

/* --- monitors --- */

/* Under B: whether s may still hold bonds. */
static bool owns(klaw_self *s) {
    klawi_lock_acquire(&s->actor->lock);
    bool mine = s->actor->self == s;
    klawi_lock_release(&s->actor->lock);
    return mine;
}

klaw_err klaw_self_monitor(klaw_self *self, klaw_actor *other, uint64_t *id) {
    if (!self || !other || !self->actor->behavior->down)
        return KLAW_INVALID;
    klawi_bond *b = bond_new(self, other, false);
    if (!b)
        return KLAW_NOMEM;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&lock);
    bool mine = owns(self);
    if (mine) {
        if (id)
            *id = b->id;
        klawi_link_push(&self->bonds, &b->at_owner);
        if (other->gone) { /* A9; the reason was written before */
            klawi_lock_acquire(&other->lock);
            klaw_err why = other->reason;
            klawi_lock_release(&other->lock);
            fire(b, why, &wakes);
        } else {
            klawi_link_push(&other->watchers, &b->at_target);
        }
    }
    klawi_lock_release(&lock);
    klawi_wakes_run(&wakes);
    if (!mine)
        klawi_bond_free(b);
    return mine ? KLAW_OK : KLAW_STOPPED;
}

/* Under B. */
static klawi_bond *find(klaw_self *s, uint64_t id, const klaw_actor *target) {
    for (klawi_link *l = s->bonds.next; l != &s->bonds; l = l->next) {
        klawi_bond *b = KLAWI_CONTAINER(l, klawi_bond, at_owner);
        if (target ? b->is_link && b->target == target : !b->is_link && b->id == id)
            return b;
    }
    return NULL;
}

static klaw_err undo(klaw_self *self, uint64_t id, klaw_actor *target) {
    klawi_bond *b, *other = NULL;
    klawi_lock_acquire(&lock);
    b = self->cleared ? NULL : find(self, id, target);
    if (b)
        dissolve(b, &other);
    klawi_lock_release(&lock);
    klawi_bond_free(b);
    klawi_bond_free(other);
    return b ? KLAW_OK : KLAW_NOT_FOUND;
}

klaw_err klaw_self_demonitor(klaw_self *self, uint64_t id) {
    return self ? undo(self, id, NULL) : KLAW_INVALID;
}

/* --- links --- */

klaw_err klaw_self_link(klaw_self *self, klaw_actor *other) {
    klaw_err e = KLAW_OK;
    if (!self || !other)
        return KLAW_INVALID;
    if (other == self->actor)
        return KLAW_OK;
    klawi_bond *mine = bond_new(self, other, true), *theirs = NULL;
    if (!mine || (theirs = bond_new(NULL, self->actor, true)) == NULL) {
        klawi_bond_free(mine);
        return KLAW_NOMEM;
    }
    klawi_lock_acquire(&lock);
    klawi_bond *before = find(self, 0, other);
    klawi_lock_acquire(&other->lock);
    theirs->owner = other->self;
    klawi_lock_release(&other->lock);
    if (theirs->owner && theirs->owner->cleared)
        theirs->owner = NULL; /* A11 */
    if (!owns(self) || other->gone)
        e = KLAW_STOPPED;
    else if (!before || !before->at_target.next) {
        klawi_link_push(&self->bonds, &mine->at_owner);
        klawi_link_push(&other->links, &mine->at_target);
        mine = NULL;
    }
    if (!e && !mine && theirs->owner) {
        /* Without an incarnation of the other one there is nobody to be told; it is only us. */
        mine = KLAWI_CONTAINER(self->bonds.prev, klawi_bond, at_owner);
        klawi_link_push(&theirs->owner->bonds, &theirs->at_owner);
        klawi_link_push(&self->actor->links, &theirs->at_target);
        theirs->peer = mine;
        mine->peer = theirs;
        mine = theirs = NULL;
    }
    klawi_lock_release(&lock);
    klawi_bond_free(mine);
    klawi_bond_free(theirs);
    return e;
}

klaw_err klaw_self_unlink(klaw_self *self, klaw_actor *other) {
    return self && other ? undo(self, 0, other) : KLAW_INVALID;
}

void klaw_self_trap(klaw_self *self, bool on) {
    if (self)
        self->trap = on;
}

/* --- watchers --- */

/* The receiver has closed: the watch goes if it has not fired. */
static void unwatch(void *arg) {
    klawi_bond *b = arg;
    klawi_lock_acquire(&lock);
    bool armed = b->at_target.next != NULL;
    if (armed)
        klawi_link_remove(&b->at_target);
    klawi_lock_release(&lock);
    if (armed)
        klawi_bond_free(b);
    klawi_bond_free(b);
}

klaw_err klaw_actor_watch(klaw_actor *a, klaw_receiver **out) {
    if (!a || !out)
        return KLAW_INVALID;
    klawi_bond *b = bond_new(NULL, a, false);
    if (!b)
        return KLAW_NOMEM;
    klaw_err e = klaw_oneshot(&klaw_down_type, &b->tx, out);
    if (e) {
        klawi_bond_free(b);
        return e;
    }
    atomic_store_explicit(&b->refs, 2, memory_order_relaxed);
    klawi_channel_on_receivers_closed(b->tx, unwatch, b);
    klawi_lock_acquire(&lock);
    bool gone = a->gone;
    if (!gone)
        klawi_link_push(&a->watchers, &b->at_target);
    klawi_lock_release(&lock);
    if (gone) {
        klawi_link alone;
        klawi_link_init(&alone);
        klawi_link_push(&alone, &b->at_target);
        klawi_lock_acquire(&a->lock);
        klaw_err why = a->reason;
        klawi_lock_release(&a->lock);
        fire_all(&alone, why);
    }
    return KLAW_OK;
}
