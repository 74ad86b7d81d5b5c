/* SPDX-License-Identifier: Apache-2.0 */
/* model_next.h - the next slot of a worker, which the monitor may steal (protocol R2, R4).
 *
 * The owner pays for no read-modify-write: it says `taking`, looks at `lockout`, takes or swaps, and
 * says that it is done. A thief sets `lockout`, executes the heavy fence (sys_membarrier) and looks
 * at `taking`. Whoever sees the other leaves the slot alone; a fiber that finds the slot closed goes
 * to the queue. The same fiber comes back, so a thief may meet it twice. Shown: every fiber runs
 * exactly as often as it was put, and is seen whole.
 *
 * The owner's plain store is allowed because only the owner ever makes the slot non-empty: once it
 * has read "empty", nobody else writes.
 */
#ifndef KLAW_TESTS_MODEL_NEXT_H
#define KLAW_TESTS_MODEL_NEXT_H

#include "model/explore.h"

enum { NEXT_FIBERS = 2 };
enum { NEXT_SLOT, NEXT_TAKING, NEXT_LOCKOUT }; /* atomic */
enum { NEXT_FIBER };                           /* plain, + n */

enum {
    NEXT_AT_STORE,
    NEXT_AT_LOOK_LOCKOUT,
    NEXT_AT_DONE,
    NEXT_AT_GIVE_UP,
    NEXT_AT_LOOK_TAKING,
    NEXT_AT_STEAL,
    NEXT_AT_OPEN,
    NEXT_SITES
};
static const struct mo_site next_sites[] = {
    [NEXT_AT_STORE] = {"owner stores into an empty slot", MO_REL},
    [NEXT_AT_LOOK_LOCKOUT] = {"owner looks at lockout", MO_ACQ},
    [NEXT_AT_DONE] = {"owner says that it is done", MO_REL},
    [NEXT_AT_GIVE_UP] = {"owner says so when it found the slot closed", MO_REL},
    [NEXT_AT_LOOK_TAKING] = {"thief looks at taking", MO_ACQ},
    [NEXT_AT_STEAL] = {"thief reads the slot", MO_ACQ},
    [NEXT_AT_OPEN] = {"thief ends the lockout", MO_REL},
};

enum { NEXT_LOOK, NEXT_HEAVY, NEXT_SEES_TAKING, NEXT_SEES_LOCKOUT, NEXT_SAY_FIRST, NEXT_STEPS };
static const char *const next_steps[] = {
    [NEXT_LOOK] = "owner stores only into an empty slot",
    [NEXT_HEAVY] = "the thief's fence is heavy, not one of its own thread",
    [NEXT_SEES_TAKING] = "thief leaves the slot alone while the owner is at it",
    [NEXT_SEES_LOCKOUT] = "owner leaves the slot alone while the thief is at it",
    [NEXT_SAY_FIRST] = "owner says taking before it looks at lockout, not after",
};

static int next_put_n[NEXT_FIBERS + 1], next_ran[NEXT_FIBERS + 1]; /* in this execution */

static void next_init(void) {
    static const char *const names[] = {"", "fiber 1", "fiber 2"};
    mo_atom(NEXT_SLOT, "slot", 0);
    mo_atom(NEXT_TAKING, "taking", 0);
    mo_atom(NEXT_LOCKOUT, "lockout", 0);
    for (int i = 1; i <= NEXT_FIBERS; i++)
        mo_plain(NEXT_FIBER + i, names[i], 0);
    memset(next_put_n, 0, sizeof next_put_n);
    memset(next_ran, 0, sizeof next_ran);
}

static void next_run(int fiber) {
    mo_set(NEXT_FIBER + fiber, mo_get(NEXT_FIBER + fiber) - 1);
    next_ran[fiber]++;
}

static bool next_enter(void) {
    bool closed = false;
    if (!mo_step(NEXT_SAY_FIRST))
        closed = mo_load(NEXT_LOCKOUT, mo_at(NEXT_AT_LOOK_LOCKOUT)) != 0;
    mo_store(NEXT_TAKING, 1, MO_RLX);
    mo_fence_light();
    if (mo_step(NEXT_SAY_FIRST))
        closed = mo_load(NEXT_LOCKOUT, mo_at(NEXT_AT_LOOK_LOCKOUT)) != 0;
    if (!closed || !mo_step(NEXT_SEES_LOCKOUT))
        return true;
    mo_store(NEXT_TAKING, 0, mo_at(NEXT_AT_GIVE_UP));
    return false;
}

/* Puts `fiber` (0: none) in; returns what was there, -1 when the slot is closed. */
static int next_swap(int fiber) {
    if (!next_enter())
        return -1;
    int old = mo_load(NEXT_SLOT, MO_RLX);
    mo_store(NEXT_SLOT, fiber, MO_RLX); /* released by the next line */
    mo_store(NEXT_TAKING, 0, mo_at(NEXT_AT_DONE));
    return old;
}

static void next_put(int fiber) {
    mo_set(NEXT_FIBER + fiber, mo_get(NEXT_FIBER + fiber) + 1);
    next_put_n[fiber]++;
    if (mo_load(NEXT_SLOT, MO_RLX) == 0 || !mo_step(NEXT_LOOK)) {
        mo_store(NEXT_SLOT, fiber, mo_at(NEXT_AT_STORE));
        return;
    }
    int old = next_swap(fiber);
    if (old != 0)
        next_run(old > 0 ? old : fiber); /* stands for the queue */
}

static int next_take(void) {
    int fiber = mo_load(NEXT_SLOT, MO_RLX) ? next_swap(0) : 0;
    if (fiber > 0)
        next_run(fiber);
    return fiber;
}

static void next_owner(void) {
    next_put(1);
    if (next_take() == 1)
        next_put(1); /* the same one again */
    next_put(2);
    while (next_take() == -1) /* closed: it comes back to it */
        mo_await(NEXT_LOCKOUT, 0, MO_RLX);
}

static void next_thief(void) {
    int fiber = 0;
    if (mo_load(NEXT_SLOT, MO_RLX) == 0 || mo_cas(NEXT_LOCKOUT, 0, 1, MO_RLX, MO_RLX) != 0)
        return;
    if (mo_step(NEXT_HEAVY))
        mo_fence_heavy();
    else
        mo_fence(MO_SC);
    if (mo_load(NEXT_TAKING, mo_at(NEXT_AT_LOOK_TAKING)) == 0 || !mo_step(NEXT_SEES_TAKING)) {
        fiber = mo_load(NEXT_SLOT, mo_at(NEXT_AT_STEAL));
        if (fiber)
            mo_store(NEXT_SLOT, 0, MO_RLX);
    }
    mo_store(NEXT_LOCKOUT, 0, mo_at(NEXT_AT_OPEN));
    if (fiber)
        next_run(fiber);
}

static void next_check(void) {
    for (int i = 1; i <= NEXT_FIBERS; i++)
        mo_assert(next_ran[i] == next_put_n[i] && mo_last_plain(NEXT_FIBER + i) == 0,
                  "fiber lost or doubled");
    mo_assert(mo_last(NEXT_SLOT) == 0, "slot not empty");
}

static const struct mo_model next_model = {
    .name = "next slot",
    .variants = 1,
    .threads = 3,
    .thread = {next_owner, next_thief, next_thief},
    .thread_name = {"owner", "thief 1", "thief 2"},
    .init = next_init,
    .heavy = true,
    .check = next_check,
    .sites = next_sites,
    .n_sites = NEXT_SITES,
    .steps = next_steps,
    .n_steps = NEXT_STEPS,
};

#endif
