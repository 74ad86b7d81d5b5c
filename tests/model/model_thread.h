/* SPDX-License-Identifier: Apache-2.0 */
/* model_thread.h - a thread as a host: it sleeps on a flag of its own (protocol, "Thread hosts").
 *
 * Two waits in a row, each ended by another waker (the claim word sees to it that there is one).
 * The waker's futex call may come late, into the second wait. Shown: no wake-up is lost, what the
 * waker wrote is seen.
 *
 * The sleeper takes the flag back before it arms again, and the waker asks the kernel only if the
 * old value says that somebody sleeps. A waker may touch the flag's address after the sleeper went
 * on: hosts stay mapped (P1).
 */
#ifndef KLAW_TESTS_MODEL_THREAD_H
#define KLAW_TESTS_MODEL_THREAD_H

#include "model/explore.h"

enum { THREAD_IDLE, THREAD_READY, THREAD_SLEEPING };

enum { THREAD_FLAG, THREAD_ARMED }; /* atomic */
enum { THREAD_RESULT };             /* plain */

enum {
    THREAD_AT_ARM,
    THREAD_AT_CLAIM,
    THREAD_AT_READY,
    THREAD_AT_SPIN,
    THREAD_AT_CHECK,
    THREAD_SITES
};
static const struct mo_site thread_sites[] = {
    [THREAD_AT_ARM] = {"sleeper arms", MO_REL},
    [THREAD_AT_CLAIM] = {"waker claims", MO_ACQ},
    [THREAD_AT_READY] = {"waker sets READY", MO_REL},
    [THREAD_AT_SPIN] = {"sleeper spins on the flag", MO_ACQ},
    [THREAD_AT_CHECK] = {"sleeper checks after sleeping", MO_ACQ},
};

enum { THREAD_LOOP, THREAD_WAKE, THREAD_SLEEP_BY_CAS, THREAD_RESET_FIRST, THREAD_STEPS };
static const char *const thread_steps[] = {
    [THREAD_LOOP] = "sleeper checks in a loop",
    [THREAD_WAKE] = "waker wakes a sleeper",
    [THREAD_SLEEP_BY_CAS] = "SLEEPING is set by compare-and-swap, not stored",
    [THREAD_RESET_FIRST] = "the flag is taken back before arming, not after",
};

static void thread_init(void) {
    mo_atom(THREAD_FLAG, "flag", THREAD_IDLE);
    mo_atom(THREAD_ARMED, "armed", 0);
    mo_plain(THREAD_RESULT, "result", 0);
}

static void thread_wait(int epoch) {
    if (mo_step(THREAD_RESET_FIRST))
        mo_store(THREAD_FLAG, THREAD_IDLE, MO_RLX);
    mo_store(THREAD_ARMED, epoch, mo_at(THREAD_AT_ARM));
    if (!mo_step(THREAD_RESET_FIRST))
        mo_store(THREAD_FLAG, THREAD_IDLE, MO_RLX);
    if (mo_load(THREAD_FLAG, mo_at(THREAD_AT_SPIN)) != THREAD_READY) {
        if (mo_step(THREAD_SLEEP_BY_CAS))
            mo_cas(THREAD_FLAG, THREAD_IDLE, THREAD_SLEEPING, MO_RLX, MO_RLX);
        else
            mo_store(THREAD_FLAG, THREAD_SLEEPING, MO_RLX);
        while (mo_load(THREAD_FLAG, mo_at(THREAD_AT_CHECK)) != THREAD_READY) {
            mo_futex_wait(THREAD_FLAG, THREAD_SLEEPING);
            if (!mo_step(THREAD_LOOP))
                break;
        }
    }
    mo_assert(mo_get(THREAD_RESULT) == epoch, "woken without a result");
}

static void thread_sleeper(void) {
    thread_wait(1);
    thread_wait(2);
}

static void thread_wake(int epoch) {
    mo_await(THREAD_ARMED, epoch, mo_at(THREAD_AT_CLAIM));
    mo_set(THREAD_RESULT, epoch);
    int was = mo_xchg(THREAD_FLAG, THREAD_READY, mo_at(THREAD_AT_READY));
    if (was == THREAD_SLEEPING && mo_step(THREAD_WAKE))
        mo_futex_wake(THREAD_FLAG);
}
static void thread_waker_1(void) {
    thread_wake(1);
}
static void thread_waker_2(void) {
    thread_wake(2);
}

static const struct mo_model thread_model = {
    .name = "thread host",
    .variants = 1,
    .threads = 3,
    .thread = {thread_sleeper, thread_waker_1, thread_waker_2},
    .thread_name = {"sleeper", "waker 1", "waker 2"},
    .init = thread_init,
    .spurious = 1,
    .sites = thread_sites,
    .n_sites = THREAD_SITES,
    .steps = thread_steps,
    .n_steps = THREAD_STEPS,
};

#endif
