/* SPDX-License-Identifier: Apache-2.0 */
/* model_shield.h - the claim word while its owner is shielded from cancellation (protocol P7).
 *
 * The owner waits once inside a shield (only the peer may end that wait), leaves the shield and
 * waits again (only the canceller will). The shield is a word of its own, written by the owner.
 * Shown: a shielded wait is not cancelled, and a cancel that comes while the owner leaves the
 * shield is not lost.
 *
 * Two rules that P7 does not spell out, with a mutant each:
 *  - A canceller may set CANCEL on an armed shielded host, so whoever claims has to accept ARMED
 *    with CANCEL and keep the bit. A claim that expects the bare ARMED|e fails, takes that for a
 *    lost race, and the sleeper is never woken.
 *  - The canceller sets the bit first and looks at the shield after that, with the acquire of that
 *    same operation: then either the owner's next arming sees the bit, or the canceller sees the
 *    shield gone. The other way round (look, then decide between claiming and setting) the owner
 *    can leave the shield and arm in between: a lost cancel.
 */
#ifndef KLAW_TESTS_MODEL_SHIELD_H
#define KLAW_TESTS_MODEL_SHIELD_H

#include "model/explore.h"

enum { SHIELD_ARMED = 1, SHIELD_CANCEL = 2, SHIELD_EPOCH = 4 };

enum { SHIELD_WORD, SHIELD_ON, SHIELD_READY }; /* atomic */
enum { SHIELD_RESULT };                        /* plain: 1 the peer, 2 the canceller */

enum {
    SHIELD_AT_ARM,
    SHIELD_AT_PEER,
    SHIELD_AT_SET,
    SHIELD_AT_READY,
    SHIELD_AT_RESUME,
    SHIELD_SITES
};
static const struct mo_site shield_sites[] = {
    [SHIELD_AT_ARM] = {"owner arms the word", MO_REL},
    [SHIELD_AT_PEER] = {"peer claims", MO_ACQ},
    [SHIELD_AT_SET] = {"canceller sets the bit", MO_ACQ},
    [SHIELD_AT_READY] = {"winner readies the host", MO_REL},
    [SHIELD_AT_RESUME] = {"owner resumes", MO_ACQ},
};

enum { SHIELD_KEEPS_BIT, SHIELD_SET_FIRST, SHIELD_LOOKS, SHIELD_LEAVE_CHECKS, SHIELD_STEPS };
static const char *const shield_steps[] = {
    [SHIELD_KEEPS_BIT] = "a claim accepts and keeps CANCEL",
    [SHIELD_SET_FIRST] = "canceller sets the bit before it looks at the shield",
    [SHIELD_LOOKS] = "canceller looks at the shield",
    [SHIELD_LEAVE_CHECKS] = "the first wait after the shield checks the bit",
};

static void shield_init(void) {
    mo_atom(SHIELD_WORD, "word", 0);
    mo_atom(SHIELD_ON, "shield", 1);
    mo_atom(SHIELD_READY, "ready", 0);
    mo_plain(SHIELD_RESULT, "result", 0);
}

/* Returns the result, or 2 if CANCEL was set before the arming and nothing shields. */
static int shield_wait(int epoch, bool shielded) {
    mo_set(SHIELD_RESULT, 0);
    int w = mo_load(SHIELD_WORD, MO_RLX);
    for (;;) {
        bool heed = !shielded && mo_step(SHIELD_LEAVE_CHECKS);
        if (heed && w & SHIELD_CANCEL)
            return 2;
        int armed = epoch * SHIELD_EPOCH | SHIELD_ARMED | (w & SHIELD_CANCEL);
        int was = mo_cas(SHIELD_WORD, w, armed, mo_at(SHIELD_AT_ARM), MO_RLX);
        if (was == w)
            break;
        w = was;
    }
    mo_await(SHIELD_READY, epoch, mo_at(SHIELD_AT_RESUME));
    return mo_get(SHIELD_RESULT);
}

static void shield_owner(void) {
    mo_assert(shield_wait(1, true) == 1, "a shielded wait was cancelled");
    mo_store(SHIELD_ON, 0, MO_RLX);
    mo_assert(shield_wait(2, false) == 2, "ended by a stranger");
}

/* One claim of (host, epoch); 'w' is a first guess. */
static bool shield_claim(int epoch, int w, enum mo_order order) {
    int armed = epoch * SHIELD_EPOCH | SHIELD_ARMED;
    if (!mo_step(SHIELD_KEEPS_BIT))
        return mo_cas(SHIELD_WORD, armed, armed & ~1, order, MO_RLX) == armed;
    while ((w & ~SHIELD_CANCEL) == armed) {
        int was = mo_cas(SHIELD_WORD, w, w & ~SHIELD_ARMED, order, MO_RLX);
        if (was == w)
            return true;
        w = was;
    }
    return false;
}

static void shield_ready(int epoch, int result) {
    mo_set(SHIELD_RESULT, result);
    mo_store(SHIELD_READY, epoch, mo_at(SHIELD_AT_READY));
}

static void shield_peer(void) {
    /* The queue's lock would tell it that a waiter is linked. */
    int w = mo_await_not(SHIELD_WORD, 0, MO_RLX);
    while (w == SHIELD_CANCEL)
        w = mo_await_not(SHIELD_WORD, SHIELD_CANCEL, MO_RLX);
    if (shield_claim(1, w, mo_at(SHIELD_AT_PEER)))
        shield_ready(1, 1);
}

static void shield_canceller(void) {
    if (!mo_step(SHIELD_SET_FIRST) && mo_load(SHIELD_ON, MO_RLX) != 0) {
        mo_or(SHIELD_WORD, SHIELD_CANCEL, mo_at(SHIELD_AT_SET));
        return;
    }
    int w = mo_or(SHIELD_WORD, SHIELD_CANCEL, mo_at(SHIELD_AT_SET)) | SHIELD_CANCEL;
    if (!(w & SHIELD_ARMED))
        return; /* the next arming will see it, or the next leaving */
    if (mo_step(SHIELD_LOOKS) && mo_load(SHIELD_ON, MO_RLX) != 0)
        return;
    int epoch = w / SHIELD_EPOCH;
    if (shield_claim(epoch, w, MO_RLX))
        shield_ready(epoch, 2);
}

static const struct mo_model shield_model = {
    .name = "claim word in a shield",
    .variants = 1,
    .threads = 3,
    .thread = {shield_owner, shield_peer, shield_canceller},
    .thread_name = {"owner", "peer", "canceller"},
    .init = shield_init,
    .sites = shield_sites,
    .n_sites = SHIELD_SITES,
    .steps = shield_steps,
    .n_steps = SHIELD_STEPS,
};

#endif
