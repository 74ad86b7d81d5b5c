/* SPDX-License-Identifier: Apache-2.0 */
/* model_idle.h - a worker goes to sleep while foreign threads push (protocol R5).
 *
 * The worker takes what it finds in the inbox, else publishes that it is idle, looks again, and
 * sleeps; it may wake for no reason (a timer). Two pushers each put one element in under the
 * inbox's lock, then wake the worker if it said idle. Shown: the worker never sleeps on while the
 * inbox has something; what was pushed arrives whole.
 *
 * Both sides are store, full fence, load. A seq_cst store of `idle` followed by weaker loads of the
 * queues is not enough (it is on x86, where the store is an xchg; on AArch64 the loads overtake
 * it): the fence has to be there. That is the first of the mutants.
 */
#ifndef KLAW_TESTS_MODEL_IDLE_H
#define KLAW_TESTS_MODEL_IDLE_H

#include "model/explore.h"

enum { IDLE_AWAKE, IDLE_ASLEEP, IDLE_WOKEN };

enum { IDLE_LOCK, IDLE_COUNT, IDLE_STATE }; /* atomic */
enum { IDLE_ITEM };                         /* plain, one for each pusher */

enum { IDLE_AT_FENCE, IDLE_AT_PUSH_FENCE, IDLE_AT_LOCK, IDLE_AT_UNLOCK, IDLE_SITES };
static const struct mo_site idle_sites[] = {
    [IDLE_AT_FENCE] = {"worker's fence between publishing idle and looking again", MO_SC},
    [IDLE_AT_PUSH_FENCE] = {"pusher's fence between push and look at idle", MO_SC},
    [IDLE_AT_LOCK] = {"inbox lock", MO_ACQ},
    [IDLE_AT_UNLOCK] = {"inbox unlock", MO_REL},
};

enum { IDLE_LOOK_AGAIN, IDLE_WAKE, IDLE_PUBLISH_FIRST, IDLE_STEPS };
static const char *const idle_steps[] = {
    [IDLE_LOOK_AGAIN] = "worker looks again after publishing idle",
    [IDLE_WAKE] = "pusher wakes a worker that said idle",
    [IDLE_PUBLISH_FIRST] = "worker publishes idle before it looks again, not after",
};

static void idle_init(void) {
    mo_atom(IDLE_LOCK, "lock", 0);
    mo_atom(IDLE_COUNT, "inbox length", 0);
    mo_atom(IDLE_STATE, "idle", IDLE_AWAKE);
    mo_plain(IDLE_ITEM, "item 0", 0);
    mo_plain(IDLE_ITEM + 1, "item 1", 0);
}

static void idle_lock(void) {
    mo_await_cas(IDLE_LOCK, 0, 1, mo_at(IDLE_AT_LOCK));
}
static void idle_unlock(void) {
    mo_store(IDLE_LOCK, 0, mo_at(IDLE_AT_UNLOCK));
}

/* The inbox is a set of bits; its length is looked at without the lock. */
static int idle_take(void) {
    idle_lock();
    int items = mo_load(IDLE_COUNT, MO_RLX);
    mo_store(IDLE_COUNT, 0, MO_RLX);
    idle_unlock();
    for (int i = 0; i < 2; i++)
        if (items >> i & 1)
            mo_assert(mo_get(IDLE_ITEM + i) == 1, "half an item");
    return items;
}

static void idle_worker(void) {
    int got = 0;
    while (got != 3) {
        mo_forget(1, got);
        if (mo_load(IDLE_COUNT, MO_RLX) != 0) {
            int items = idle_take();
            mo_assert((got & items) == 0, "taken twice");
            got |= items;
            continue;
        }
        if (mo_step(IDLE_PUBLISH_FIRST))
            mo_store(IDLE_STATE, IDLE_ASLEEP, MO_RLX);
        mo_fence(mo_at(IDLE_AT_FENCE));
        bool empty = !mo_step(IDLE_LOOK_AGAIN) || mo_load(IDLE_COUNT, MO_RLX) == 0;
        if (!mo_step(IDLE_PUBLISH_FIRST))
            mo_store(IDLE_STATE, IDLE_ASLEEP, MO_RLX);
        if (empty)
            mo_futex_wait(IDLE_STATE, IDLE_ASLEEP);
        mo_store(IDLE_STATE, IDLE_AWAKE, MO_RLX);
    }
}

static void idle_push(int i) {
    mo_set(IDLE_ITEM + i, 1);
    idle_lock();
    mo_store(IDLE_COUNT, mo_load(IDLE_COUNT, MO_RLX) | 1 << i, MO_RLX);
    idle_unlock();
    mo_fence(mo_at(IDLE_AT_PUSH_FENCE));
    if (mo_load(IDLE_STATE, MO_RLX) != IDLE_ASLEEP)
        return;
    int was = mo_cas(IDLE_STATE, IDLE_ASLEEP, IDLE_WOKEN, MO_RLX, MO_RLX);
    if (was == IDLE_ASLEEP && mo_step(IDLE_WAKE))
        mo_futex_wake(IDLE_STATE);
}
static void idle_pusher_0(void) {
    idle_push(0);
}
static void idle_pusher_1(void) {
    idle_push(1);
}

static const struct mo_model idle_model = {
    .name = "idle worker",
    .variants = 1,
    .threads = 3,
    .thread = {idle_worker, idle_pusher_0, idle_pusher_1},
    .thread_name = {"worker", "pusher 0", "pusher 1"},
    .init = idle_init,
    .spurious = 1,
    .sites = idle_sites,
    .n_sites = IDLE_SITES,
    .steps = idle_steps,
    .n_steps = IDLE_STEPS,
};

#endif
