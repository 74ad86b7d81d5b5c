/* SPDX-License-Identifier: Apache-2.0 */
/* model_oncpu.h - a fiber's stack goes from one worker to another (protocol P8).
 *
 * "on_cpu": one fiber wanders between two workers, three parks long. Its saved registers are plain
 * memory, written by the switch away and read by the switch to it. Shown: nobody reads them before
 * they are all there.
 *
 * "direct switch": two fibers, two workers; each worker parks its fiber and was given the other's.
 * Shown: the workers never wait for each other, because a worker leaves its old stack before it
 * waits for the new one.
 */
#ifndef KLAW_TESTS_MODEL_ONCPU_H
#define KLAW_TESTS_MODEL_ONCPU_H

#include "model/explore.h"

enum { ONCPU_WORD, ONCPU_FLAG }; /* atomic; the word is epoch * 2 | armed */
enum { ONCPU_REGS };             /* plain */

enum { ONCPU_AT_ARM, ONCPU_AT_CLAIM, ONCPU_AT_CLEAR, ONCPU_AT_LOOK, ONCPU_SITES };
static const struct mo_site oncpu_sites[] = {
    [ONCPU_AT_ARM] = {"owner arms the word", MO_REL},
    [ONCPU_AT_CLAIM] = {"the other claims", MO_ACQ},
    [ONCPU_AT_CLEAR] = {"switch clears on_cpu", MO_REL},
    [ONCPU_AT_LOOK] = {"the other looks at on_cpu", MO_ACQ},
};

enum { ONCPU_SET_FIRST, ONCPU_LOOKS, ONCPU_CLEAR_LAST, ONCPU_STEPS };
static const char *const oncpu_steps[] = {
    [ONCPU_SET_FIRST] = "on_cpu is set before the arming",
    [ONCPU_LOOKS] = "the other looks at on_cpu",
    [ONCPU_CLEAR_LAST] = "on_cpu is cleared after the registers are saved",
};

static void oncpu_init(void) {
    mo_atom(ONCPU_WORD, "word", 0);
    mo_atom(ONCPU_FLAG, "on_cpu", 0);
    mo_plain(ONCPU_REGS, "registers", 0);
}

static void oncpu_park(int epoch) {
    if (mo_step(ONCPU_SET_FIRST))
        mo_store(ONCPU_FLAG, 1, MO_RLX);
    mo_cas(ONCPU_WORD, (epoch - 1) * 2, epoch * 2 | 1, mo_at(ONCPU_AT_ARM), MO_RLX);
    if (!mo_step(ONCPU_SET_FIRST))
        mo_store(ONCPU_FLAG, 1, MO_RLX);
    if (mo_step(ONCPU_CLEAR_LAST))
        mo_set(ONCPU_REGS, epoch);
    mo_store(ONCPU_FLAG, 0, mo_at(ONCPU_AT_CLEAR));
    if (!mo_step(ONCPU_CLEAR_LAST))
        mo_set(ONCPU_REGS, epoch);
}

static void oncpu_resume(int epoch) {
    mo_await_cas(ONCPU_WORD, epoch * 2 | 1, epoch * 2, mo_at(ONCPU_AT_CLAIM));
    if (mo_step(ONCPU_LOOKS))
        mo_await(ONCPU_FLAG, 0, mo_at(ONCPU_AT_LOOK));
    mo_assert(mo_get(ONCPU_REGS) == epoch, "resumed with old registers");
}

static void oncpu_worker_a(void) {
    oncpu_park(1);
    oncpu_resume(2);
    oncpu_park(3);
}

static void oncpu_worker_b(void) {
    oncpu_resume(1);
    oncpu_park(2);
    oncpu_resume(3);
}

static const struct mo_model oncpu_model = {
    .name = "on_cpu",
    .variants = 1,
    .threads = 2,
    .thread = {oncpu_worker_a, oncpu_worker_b},
    .thread_name = {"worker a", "worker b"},
    .init = oncpu_init,
    .sites = oncpu_sites,
    .n_sites = ONCPU_SITES,
    .steps = oncpu_steps,
    .n_steps = ONCPU_STEPS,
};

/* ---- direct switch: fiber 0 starts on worker 0, fiber 1 on worker 1 -------------------------- */

enum { DIRECT_WORD, DIRECT_FLAG = 2, DIRECT_REGS = 0 }; /* + fiber */

enum { DIRECT_AT_CLEAR, DIRECT_AT_LOOK, DIRECT_AT_SPIN, DIRECT_SITES };
static const struct mo_site direct_sites[] = {
    [DIRECT_AT_CLEAR] = {"switch clears on_cpu", MO_REL},
    [DIRECT_AT_LOOK] = {"worker looks at on_cpu before a direct switch", MO_ACQ},
    [DIRECT_AT_SPIN] = {"worker spins for on_cpu on its own stack", MO_ACQ},
};

enum { DIRECT_LEAVE_FIRST, DIRECT_STEPS };
static const char *const direct_steps[] = {
    [DIRECT_LEAVE_FIRST] = "worker leaves its old stack before it spins for the new one",
};

static void direct_init(void) {
    for (int f = 0; f < 2; f++) {
        mo_atom(DIRECT_WORD + f, f ? "word 1" : "word 0", 0);
        mo_atom(DIRECT_FLAG + f, f ? "on_cpu 1" : "on_cpu 0", 1);
        mo_plain(DIRECT_REGS + f, f ? "registers 1" : "registers 0", 0);
    }
}

static void direct_leave(int fiber) {
    mo_set(DIRECT_REGS + fiber, 1);
    mo_store(DIRECT_FLAG + fiber, 0, mo_at(DIRECT_AT_CLEAR));
}

static void direct_worker(int old, int new) {
    mo_store(DIRECT_WORD + old, 1, MO_REL);        /* parks */
    mo_await_cas(DIRECT_WORD + new, 1, 0, MO_ACQ); /* claims the other */
    if (mo_load(DIRECT_FLAG + new, mo_at(DIRECT_AT_LOOK)) == 0)
        direct_leave(old);
    else if (mo_step(DIRECT_LEAVE_FIRST)) {
        direct_leave(old);
        mo_await(DIRECT_FLAG + new, 0, mo_at(DIRECT_AT_SPIN));
    } else {
        mo_await(DIRECT_FLAG + new, 0, mo_at(DIRECT_AT_SPIN));
        direct_leave(old);
    }
    mo_assert(mo_get(DIRECT_REGS + new) == 1, "resumed with old registers");
}
static void direct_worker_0(void) {
    direct_worker(0, 1);
}
static void direct_worker_1(void) {
    direct_worker(1, 0);
}

static const struct mo_model direct_model = {
    .name = "direct switch",
    .variants = 1,
    .threads = 2,
    .thread = {direct_worker_0, direct_worker_1},
    .thread_name = {"worker 0", "worker 1"},
    .init = direct_init,
    .sites = direct_sites,
    .n_sites = DIRECT_SITES,
    .steps = direct_steps,
    .n_steps = DIRECT_STEPS,
};

#endif
