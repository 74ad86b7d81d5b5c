/* SPDX-License-Identifier: Apache-2.0 */
/* model_spsc.h - the one-to-one ring with parking by an asymmetric fence.
 *
 * Each side keeps its own index and a cached copy of the other's, refreshed only when the ring
 * seems full or empty. Who finds nothing to do says "waiting", executes the heavy fence
 * (sys_membarrier), takes the lock, looks again, arms and parks. The running side pays for that
 * with one relaxed load of the waiting flag behind its release store, and nothing between but a
 * compiler barrier. Shown: no lost wake-up on either side, FIFO, every element once and whole.
 *
 * What the heavy fence buys: the running side's store and its load of the flag can't be reordered
 * across it. A full fence in the parking thread alone does not do that; it is a mutant.
 *
 * The look after the fence has to be under the lock: a waker that comes between a look outside it
 * and the arming finds nobody to wake (a mutant too). The fence itself is a system call and stays
 * outside the lock. That look may be relaxed only because its value is compared and not kept: the
 * index is refreshed with acquire before the ring is touched.
 */
#ifndef KLAW_TESTS_MODEL_SPSC_H
#define KLAW_TESTS_MODEL_SPSC_H

#include "model/explore.h"

enum { SPSC_TX, SPSC_RX, SPSC_SIDES };

/* Atomic, + side. INDEX: how many the side has sent or received. PARK: 1 when woken. */
enum { SPSC_INDEX, SPSC_WAITING = 2, SPSC_PARK = 4, SPSC_LOCK = 6 };
enum { SPSC_ARMED, SPSC_CELL = 2 }; /* plain */

enum {
    SPSC_AT_STORE,
    SPSC_AT_REFRESH,
    SPSC_AT_LOOK,
    SPSC_AT_LOCK,
    SPSC_AT_UNLOCK,
    SPSC_AT_WAKE,
    SPSC_AT_RESUME,
    SPSC_SITES
};
static const struct mo_site spsc_sites[] = {
    [SPSC_AT_STORE] = {"own index is published", MO_REL},
    [SPSC_AT_REFRESH] = {"other's index is refreshed", MO_ACQ},
    [SPSC_AT_LOOK] = {"other's index is looked at before parking", MO_RLX},
    [SPSC_AT_LOCK] = {"lock", MO_ACQ},
    [SPSC_AT_UNLOCK] = {"unlock", MO_REL},
    [SPSC_AT_WAKE] = {"waker wakes", MO_REL},
    [SPSC_AT_RESUME] = {"sleeper resumes", MO_ACQ},
};

enum {
    SPSC_HEAVY,
    SPSC_LOOK_AGAIN,
    SPSC_LOOK_LOCKED,
    SPSC_SAY_FIRST,
    SPSC_STORE_FIRST,
    SPSC_STEPS
};
static const char *const spsc_steps[] = {
    [SPSC_HEAVY] = "the fence is heavy, not one of the own thread",
    [SPSC_LOOK_AGAIN] = "looks again before parking",
    [SPSC_LOOK_LOCKED] = "looks again under the lock, not before it",
    [SPSC_SAY_FIRST] = "says waiting before the fence, not after",
    [SPSC_STORE_FIRST] = "publishes its index before it looks at the flag, not after",
};

/* Variant 0: a ring of one place. 1: of two. */
static int spsc_cap(void) {
    return mo_variant() + 1;
}
static int spsc_items(void) {
    return mo_variant() + 2;
}

static void spsc_init(void) {
    static const char *const names[] = {"tail",    "head",    "tx waiting", "rx waiting",
                                        "tx park", "rx park", "lock"};
    for (int i = 0; i <= SPSC_LOCK; i++)
        mo_atom(i, names[i], 0);
    mo_plain(SPSC_ARMED + SPSC_TX, "tx armed", 0);
    mo_plain(SPSC_ARMED + SPSC_RX, "rx armed", 0);
    mo_plain(SPSC_CELL, "cell 0", 0);
    mo_plain(SPSC_CELL + 1, "cell 1", 0);
}

static void spsc_lock(void) {
    mo_await_cas(SPSC_LOCK, 0, 1, mo_at(SPSC_AT_LOCK));
}
static void spsc_unlock(void) {
    mo_store(SPSC_LOCK, 0, mo_at(SPSC_AT_UNLOCK));
}

/* Parks until the other's index is no longer `stuck`; a return does not promise that it isn't. */
static void spsc_park(int side, int stuck) {
    int other = SPSC_INDEX + !side, now = stuck;
    if (mo_step(SPSC_SAY_FIRST))
        mo_store(SPSC_WAITING + side, 1, MO_RLX);
    if (mo_step(SPSC_HEAVY))
        mo_fence_heavy();
    else
        mo_fence(MO_SC);
    if (!mo_step(SPSC_SAY_FIRST))
        mo_store(SPSC_WAITING + side, 1, MO_RLX);
    if (!mo_step(SPSC_LOOK_LOCKED))
        now = mo_load(other, mo_at(SPSC_AT_LOOK));
    spsc_lock();
    if (mo_step(SPSC_LOOK_LOCKED) && mo_step(SPSC_LOOK_AGAIN))
        now = mo_load(other, mo_at(SPSC_AT_LOOK));
    if (now != stuck) {
        mo_store(SPSC_WAITING + side, 0, MO_RLX);
        spsc_unlock();
        return;
    }
    mo_store(SPSC_PARK + side, 0, MO_RLX);
    mo_set(SPSC_ARMED + side, 1);
    spsc_unlock();
    mo_await(SPSC_PARK + side, 1, mo_at(SPSC_AT_RESUME));
}

static void spsc_wake(int side) {
    spsc_lock();
    bool armed = mo_get(SPSC_ARMED + side);
    if (armed) {
        mo_set(SPSC_ARMED + side, 0);
        mo_store(SPSC_WAITING + side, 0, MO_RLX);
    }
    spsc_unlock();
    if (armed)
        mo_store(SPSC_PARK + side, 1, mo_at(SPSC_AT_WAKE));
}

/* Waits while the other's index is `stuck`. Returns it. */
static int spsc_refresh(int side, int stuck) {
    int now;
    while ((now = mo_load(SPSC_INDEX + !side, mo_at(SPSC_AT_REFRESH))) == stuck)
        spsc_park(side, stuck);
    return now;
}

static void spsc_publish(int side, int index) {
    bool waits = false;
    if (!mo_step(SPSC_STORE_FIRST))
        waits = mo_load(SPSC_WAITING + !side, MO_RLX);
    mo_store(SPSC_INDEX + side, index, mo_at(SPSC_AT_STORE));
    mo_fence_light();
    if (mo_step(SPSC_STORE_FIRST))
        waits = mo_load(SPSC_WAITING + !side, MO_RLX);
    if (waits)
        spsc_wake(!side);
}

static void spsc_sender(void) {
    int head = 0; /* cached */
    for (int tail = 0; tail < spsc_items(); tail++) {
        mo_forget(tail, head);
        if (tail - head == spsc_cap())
            head = spsc_refresh(SPSC_TX, head);
        mo_set(SPSC_CELL + tail % spsc_cap(), tail + 1);
        spsc_publish(SPSC_TX, tail + 1);
    }
}

static void spsc_receiver(void) {
    int tail = 0; /* cached */
    for (int head = 0; head < spsc_items(); head++) {
        mo_forget(head, tail);
        if (tail == head)
            tail = spsc_refresh(SPSC_RX, tail);
        mo_assert(mo_get(SPSC_CELL + head % spsc_cap()) == head + 1, "out of order");
        spsc_publish(SPSC_RX, head + 1);
    }
}

static const struct mo_model spsc_model = {
    .name = "one-to-one ring",
    .variants = 2,
    .threads = 2,
    .thread = {spsc_sender, spsc_receiver},
    .thread_name = {"sender", "receiver"},
    .init = spsc_init,
    .heavy = true,
    .sites = spsc_sites,
    .n_sites = SPSC_SITES,
    .steps = spsc_steps,
    .n_steps = SPSC_STEPS,
};

#endif
