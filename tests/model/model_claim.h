/* SPDX-License-Identifier: Apache-2.0 */
/* model_claim.h - the claim word of a host (protocol P1, P3-P7, P10): who ends a wait.
 *
 * One word: epoch * 4 | CANCEL | ARMED. The owner waits twice. A peer brings one element, a timer
 * is set for the first wait only, a canceller comes at any time. Shown: of all who want to end a
 * wait exactly one does; a loser touches nothing (it would be a race); what the winner wrote is
 * there after the resume; the timer of the first wait never ends the second; a cancel is never
 * lost; the element arrives once or stays in the channel.
 *
 * Two things that were not obvious:
 *  - The timer becomes visible to others only after the arming. If it could fire before, it would
 *    find the old epoch, be discarded as stale, and the time-out would never come.
 *  - Only the canceller's claim needs acquire: it goes on to read the waiter's queue with nothing
 *    else to order that. The peer has the queue's lock, under which the waiter was armed; the timer
 *    has the wheel's, taken after the arming.
 */
#ifndef KLAW_TESTS_MODEL_CLAIM_H
#define KLAW_TESTS_MODEL_CLAIM_H

#include "model/explore.h"

enum { CLAIM_ARMED = 1, CLAIM_CANCEL = 2, CLAIM_EPOCH = 4 };
enum { CLAIM_NONE, CLAIM_GOT, CLAIM_TIMEOUT, CLAIM_CANCELLED };

enum { CLAIM_WORD, CLAIM_LOCK, CLAIM_READY, CLAIM_TIMER };                  /* atomic */
enum { CLAIM_LINKED, CLAIM_QUEUE, CLAIM_SLOT, CLAIM_RESULT, CLAIM_BUFFER }; /* plain */

enum {
    CLAIM_AT_ARM,
    CLAIM_AT_PEER,
    CLAIM_AT_TIMER,
    CLAIM_AT_CANCEL,
    CLAIM_AT_READY,
    CLAIM_AT_RESUME,
    CLAIM_AT_LOCK,
    CLAIM_AT_UNLOCK,
    CLAIM_AT_SET_TIMER,
    CLAIM_AT_FIRE,
    CLAIM_SITES,
};
static const struct mo_site claim_sites[] = {
    [CLAIM_AT_ARM] = {"owner arms the word", MO_REL},
    [CLAIM_AT_PEER] = {"peer claims under the lock", MO_RLX},
    [CLAIM_AT_TIMER] = {"timer claims", MO_RLX},
    [CLAIM_AT_CANCEL] = {"canceller claims", MO_ACQ},
    [CLAIM_AT_READY] = {"winner readies the host", MO_REL},
    [CLAIM_AT_RESUME] = {"owner resumes", MO_ACQ},
    [CLAIM_AT_LOCK] = {"queue lock", MO_ACQ},
    [CLAIM_AT_UNLOCK] = {"queue unlock", MO_REL},
    [CLAIM_AT_SET_TIMER] = {"timer is put on the wheel", MO_REL},
    [CLAIM_AT_FIRE] = {"timer is taken off the wheel", MO_ACQ},
};

enum {
    CLAIM_CHECK_AGAIN,
    CLAIM_EPOCH_MATCHES,
    CLAIM_TIMER_AFTER_ARM,
    CLAIM_ARM_SEES_CANCEL,
    CLAIM_TIMER_UNLINKS,
    CLAIM_SET_IF_LOST,
    CLAIM_STEPS
};
static const char *const claim_steps[] = {
    [CLAIM_CHECK_AGAIN] = "owner checks again under the lock",
    [CLAIM_EPOCH_MATCHES] = "timer's epoch is part of its claim",
    [CLAIM_TIMER_AFTER_ARM] = "timer is set after the arming, not before",
    [CLAIM_ARM_SEES_CANCEL] = "arming fails if CANCEL is set",
    [CLAIM_TIMER_UNLINKS] = "timer and canceller unlink under the lock before ready",
    [CLAIM_SET_IF_LOST] = "canceller sets the bit if it can't claim",
};

static int claim_received; /* by the owner, in this execution */

/* Variant 0: all, and two waits. 1 to 3: one wait, and only this one to end it. */
enum { CLAIM_ALL, CLAIM_TIMER_ALONE, CLAIM_PEER_ALONE, CLAIM_CANCELLER_ALONE, CLAIM_VARIANTS };
static bool claim_is(int alone) {
    return mo_variant() == CLAIM_ALL || mo_variant() == alone;
}

static void claim_init(void) {
    mo_atom(CLAIM_WORD, "word", 0);
    mo_atom(CLAIM_LOCK, "lock", 0);
    mo_atom(CLAIM_READY, "ready", 0);
    mo_atom(CLAIM_TIMER, "timer", 0);
    mo_plain(CLAIM_LINKED, "linked", 0);
    mo_plain(CLAIM_QUEUE, "waiter's queue", 0);
    mo_plain(CLAIM_SLOT, "slot", 0);
    mo_plain(CLAIM_RESULT, "result", 0);
    mo_plain(CLAIM_BUFFER, "buffer", 0);
    claim_received = 0;
}

static void claim_lock(void) {
    mo_await_cas(CLAIM_LOCK, 0, 1, mo_at(CLAIM_AT_LOCK));
}
static void claim_unlock(void) {
    mo_store(CLAIM_LOCK, 0, mo_at(CLAIM_AT_UNLOCK));
}

/* One wait. *epoch is the last one used. */
static int claim_wait(int *epoch, bool timed) {
    claim_lock();
    if (mo_step(CLAIM_CHECK_AGAIN) && mo_get(CLAIM_BUFFER)) {
        mo_set(CLAIM_BUFFER, 0);
        claim_unlock();
        claim_received++;
        return CLAIM_GOT;
    }
    int claimed = *epoch * CLAIM_EPOCH, armed = ++*epoch * CLAIM_EPOCH | CLAIM_ARMED;
    mo_set(CLAIM_SLOT, 0);
    mo_set(CLAIM_RESULT, CLAIM_NONE);
    mo_set(CLAIM_QUEUE, *epoch);
    mo_assert(mo_get(CLAIM_LINKED) == 0, "linked twice");
    mo_set(CLAIM_LINKED, *epoch);
    if (timed && !mo_step(CLAIM_TIMER_AFTER_ARM))
        mo_store(CLAIM_TIMER, *epoch, mo_at(CLAIM_AT_SET_TIMER));
    int was = mo_cas(CLAIM_WORD, claimed, armed, mo_at(CLAIM_AT_ARM), MO_RLX);
    if (was != claimed && !mo_step(CLAIM_ARM_SEES_CANCEL))
        was = mo_cas(CLAIM_WORD, claimed | CLAIM_CANCEL, armed | CLAIM_CANCEL, mo_at(CLAIM_AT_ARM),
                     MO_RLX) &
              ~CLAIM_CANCEL;
    if (was != claimed) {
        mo_set(CLAIM_LINKED, 0);
        claim_unlock();
        return CLAIM_CANCELLED;
    }
    claim_unlock();
    if (timed && mo_step(CLAIM_TIMER_AFTER_ARM))
        mo_store(CLAIM_TIMER, *epoch, mo_at(CLAIM_AT_SET_TIMER));
    mo_await(CLAIM_READY, *epoch, mo_at(CLAIM_AT_RESUME));
    int result = mo_get(CLAIM_RESULT);
    mo_assert(mo_get(CLAIM_SLOT) == (result == CLAIM_GOT ? 7 : 0), "slot and result differ");
    claim_received += result == CLAIM_GOT;
    return result;
}

static void claim_owner(void) {
    int epoch = 0, result = claim_wait(&epoch, claim_is(CLAIM_TIMER_ALONE));
    if (result == CLAIM_CANCELLED || epoch == 0)
        mo_cas(CLAIM_TIMER, 0, -1, MO_RLX, MO_RLX); /* the timer may never have been set */
    mo_assert(result != CLAIM_NONE, "woken by nobody");
    if (result == CLAIM_CANCELLED || mo_variant() != CLAIM_ALL)
        return;
    result = claim_wait(&epoch, false);
    mo_assert(result != CLAIM_TIMEOUT, "a stale timer ended a later wait");
}

static void claim_peer(void) {
    if (!claim_is(CLAIM_PEER_ALONE))
        return;
    claim_lock();
    int epoch = mo_get(CLAIM_LINKED), armed = epoch * CLAIM_EPOCH | CLAIM_ARMED;
    if (epoch &&
        mo_cas(CLAIM_WORD, armed, armed & ~CLAIM_ARMED, mo_at(CLAIM_AT_PEER), MO_RLX) == armed) {
        mo_set(CLAIM_LINKED, 0);
        mo_set(CLAIM_SLOT, 7);
        mo_set(CLAIM_RESULT, CLAIM_GOT);
        claim_unlock();
        mo_store(CLAIM_READY, epoch, mo_at(CLAIM_AT_READY));
        return;
    }
    mo_set(CLAIM_BUFFER, 1);
    claim_unlock();
}

/* What timer and canceller do after a claim (P6). */
static void claim_finish(int epoch, int result) {
    mo_assert(mo_get(CLAIM_QUEUE) == epoch, "locks the wrong queue");
    if (mo_step(CLAIM_TIMER_UNLINKS)) {
        claim_lock();
        mo_set(CLAIM_LINKED, 0);
        claim_unlock();
    }
    mo_set(CLAIM_RESULT, result);
    mo_store(CLAIM_READY, epoch, mo_at(CLAIM_AT_READY));
}

static void claim_timer(void) {
    if (!claim_is(CLAIM_TIMER_ALONE))
        return;
    int epoch = mo_await_not(CLAIM_TIMER, 0, mo_at(CLAIM_AT_FIRE));
    if (epoch < 0)
        return;
    int armed = epoch * CLAIM_EPOCH | CLAIM_ARMED;
    if (!mo_step(CLAIM_EPOCH_MATCHES)) {
        armed = mo_load(CLAIM_WORD, MO_RLX);
        if (!(armed & CLAIM_ARMED))
            return;
        epoch = armed / CLAIM_EPOCH;
    }
    if (mo_cas(CLAIM_WORD, armed, armed & ~CLAIM_ARMED, mo_at(CLAIM_AT_TIMER), MO_RLX) == armed)
        claim_finish(epoch, CLAIM_TIMEOUT);
}

static void claim_canceller(void) {
    if (!claim_is(CLAIM_CANCELLER_ALONE))
        return;
    int w = mo_load(CLAIM_WORD, MO_RLX);
    for (;;) {
        int next = (w & ~CLAIM_ARMED) | CLAIM_CANCEL;
        if (!(w & CLAIM_ARMED) && !mo_step(CLAIM_SET_IF_LOST))
            return;
        int was =
            mo_cas(CLAIM_WORD, w, next, w & CLAIM_ARMED ? mo_at(CLAIM_AT_CANCEL) : MO_RLX, MO_RLX);
        if (was == w)
            break;
        w = was;
    }
    if (w & CLAIM_ARMED)
        claim_finish(w / CLAIM_EPOCH, CLAIM_CANCELLED);
}

static void claim_check(void) {
    mo_assert(claim_received + mo_last_plain(CLAIM_BUFFER) == claim_is(CLAIM_PEER_ALONE),
              "element lost or doubled");
    mo_assert(!claim_is(CLAIM_CANCELLER_ALONE) || mo_last(CLAIM_WORD) & CLAIM_CANCEL,
              "cancel lost");
}

static const struct mo_model claim_model = {
    .name = "claim word",
    .variants = CLAIM_VARIANTS,
    .threads = 4,
    .thread = {claim_owner, claim_peer, claim_timer, claim_canceller},
    .thread_name = {"owner", "peer", "timer", "canceller"},
    .init = claim_init,
    .check = claim_check,
    .sites = claim_sites,
    .n_sites = CLAIM_SITES,
    .steps = claim_steps,
    .n_steps = CLAIM_STEPS,
};

#endif
