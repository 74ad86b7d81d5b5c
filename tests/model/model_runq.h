/* SPDX-License-Identifier: Apache-2.0 */
/* model_runq.h - a worker's run queue: a bounded ring, filled and emptied by its owner, halved by
 * thieves.
 *
 * The owner pushes at the tail and pops at the head; a thief copies up to half, then commits by
 * moving the head. The ring has four places and five fibers go through, so places are used again.
 * Shown: every fiber runs exactly once, what was written before the push is seen by whoever runs
 * it, a thief never takes more than half a ring.
 *
 * The entries are relaxed atomics: a thief that comes too late reads garbage and throws it away.
 * Beside each stands a plain cell, written with the entry and read (if the copy is kept) as of the
 * moment of the copy: it is what shows that the owner may write a place again only after the
 * thief's copy, an order of a load before a store.
 *
 * The thief's load of head may be relaxed although it comes before that of tail: a head newer than
 * the tail gives a negative length, which is "more than half a ring" and given up; a head too old
 * fails the compare-and-swap.
 */
#ifndef KLAW_TESTS_MODEL_RUNQ_H
#define KLAW_TESTS_MODEL_RUNQ_H

#include "model/explore.h"

enum { RUNQ_CAP = 4, RUNQ_FIBERS = 5 };

enum { RUNQ_HEAD, RUNQ_TAIL, RUNQ_RING }; /* atomic; RING has CAP places */
enum {
    RUNQ_CELL,
    RUNQ_FIBER = RUNQ_CELL + RUNQ_CAP
}; /* plain; FIBER + n is what fiber n consists of */

enum {
    RUNQ_AT_PUSH_HEAD,
    RUNQ_AT_PUSH_TAIL,
    RUNQ_AT_POP_HEAD,
    RUNQ_AT_POP_COMMIT,
    RUNQ_AT_STEAL_HEAD,
    RUNQ_AT_STEAL_TAIL,
    RUNQ_AT_STEAL_COMMIT,
    RUNQ_SITES
};
static const struct mo_site runq_sites[] = {
    [RUNQ_AT_PUSH_HEAD] = {"push loads head", MO_ACQ},
    [RUNQ_AT_PUSH_TAIL] = {"push stores tail", MO_REL},
    [RUNQ_AT_POP_HEAD] = {"pop loads head", MO_RLX},
    [RUNQ_AT_POP_COMMIT] = {"pop moves head", MO_RLX},
    [RUNQ_AT_STEAL_HEAD] = {"thief loads head", MO_RLX},
    [RUNQ_AT_STEAL_TAIL] = {"thief loads tail", MO_ACQ},
    [RUNQ_AT_STEAL_COMMIT] = {"thief moves head", MO_REL},
};

enum { RUNQ_FULL, RUNQ_HALF, RUNQ_POP_BY_CAS, RUNQ_HEAD_FIRST, RUNQ_STEPS };
static const char *const runq_steps[] = {
    [RUNQ_FULL] = "push checks for a full ring",
    [RUNQ_HALF] = "thief gives up if head and tail don't fit together",
    [RUNQ_POP_BY_CAS] = "pop moves head by compare-and-swap, not by a store",
    [RUNQ_HEAD_FIRST] = "thief copies before it moves head, not after",
};

static int runq_ran[RUNQ_FIBERS + 1]; /* in this execution */

static void runq_init(void) {
    static const char *const cells[] = {"cell 0", "cell 1", "cell 2", "cell 3"};
    static const char *const rings[] = {"ring 0", "ring 1", "ring 2", "ring 3"};
    static const char *const fibers[] = {"", "fiber 1", "fiber 2", "fiber 3", "fiber 4", "fiber 5"};
    mo_atom(RUNQ_HEAD, "head", 0);
    mo_atom(RUNQ_TAIL, "tail", 0);
    for (int i = 0; i < RUNQ_CAP; i++) {
        mo_atom(RUNQ_RING + i, rings[i], 0);
        mo_plain(RUNQ_CELL + i, cells[i], 0);
    }
    for (int i = 1; i <= RUNQ_FIBERS; i++)
        mo_plain(RUNQ_FIBER + i, fibers[i], 0);
    memset(runq_ran, 0, sizeof runq_ran);
}

static void runq_run(int fiber) {
    mo_assert(fiber > 0 && mo_get(RUNQ_FIBER + fiber) == 1, "not a whole fiber");
    if (fiber > 0)
        runq_ran[fiber]++;
}

/* The owner keeps its tail in a register. */
static void runq_push(int *tail, int fiber) {
    mo_set(RUNQ_FIBER + fiber, 1);
    int head = mo_load(RUNQ_HEAD, mo_at(RUNQ_AT_PUSH_HEAD));
    if (*tail - head >= RUNQ_CAP && mo_step(RUNQ_FULL)) {
        runq_run(fiber); /* stands for the global queue */
        return;
    }
    mo_set(RUNQ_CELL + *tail % RUNQ_CAP, fiber);
    mo_store(RUNQ_RING + *tail % RUNQ_CAP, fiber, MO_RLX);
    mo_store(RUNQ_TAIL, ++*tail, mo_at(RUNQ_AT_PUSH_TAIL));
}

static bool runq_pop(int tail) {
    int head = mo_load(RUNQ_HEAD, mo_at(RUNQ_AT_POP_HEAD));
    for (;;) {
        if (head == tail)
            return false;
        int fiber = mo_load(RUNQ_RING + head % RUNQ_CAP, MO_RLX);
        int was = head;
        if (mo_step(RUNQ_POP_BY_CAS))
            was = mo_cas(RUNQ_HEAD, head, head + 1, mo_at(RUNQ_AT_POP_COMMIT), MO_RLX);
        else
            mo_store(RUNQ_HEAD, head + 1, mo_at(RUNQ_AT_POP_COMMIT));
        if (was == head) {
            runq_run(fiber);
            return true;
        }
        head = was;
    }
}

static void runq_owner(void) {
    int tail = 0;
    for (int fiber = 1; fiber <= RUNQ_FIBERS; fiber++) {
        runq_push(&tail, fiber);
        if (fiber == 3 && mo_variant() == 1)
            runq_pop(tail);
    }
    while (runq_pop(tail)) {}
}

static void runq_copy(int head, int n, int *fibers) {
    for (int i = 0; i < n; i++) {
        mo_peek(RUNQ_CELL + (head + i) % RUNQ_CAP);
        fibers[i] = mo_load(RUNQ_RING + (head + i) % RUNQ_CAP, MO_RLX);
    }
}

static void runq_thief(void) {
    int fibers[RUNQ_CAP + 1];
    int head = mo_load(RUNQ_HEAD, mo_at(RUNQ_AT_STEAL_HEAD));
    int tail = mo_load(RUNQ_TAIL, mo_at(RUNQ_AT_STEAL_TAIL));
    unsigned n = (unsigned)(tail - head);
    n -= n / 2;
    if (n == 0 || (n > RUNQ_CAP / 2 && mo_step(RUNQ_HALF)))
        return;
    if (n > RUNQ_CAP / 2) {
        mo_assert(false, "a thief takes more than its own ring is sure to hold");
        return;
    }
    if (mo_step(RUNQ_HEAD_FIRST))
        runq_copy(head, (int)n, fibers);
    int to = head + (int)n;
    if (mo_cas(RUNQ_HEAD, head, to, mo_at(RUNQ_AT_STEAL_COMMIT), MO_RLX) != head)
        return;
    if (!mo_step(RUNQ_HEAD_FIRST))
        runq_copy(head, (int)n, fibers);
    for (int i = 0; i < (int)n; i++) {
        mo_keep(RUNQ_CELL + (head + i) % RUNQ_CAP);
        runq_run(fibers[i]);
    }
}

static void runq_check(void) {
    for (int i = 1; i <= RUNQ_FIBERS; i++)
        mo_assert(runq_ran[i] == 1, "fiber lost or doubled");
}

static const struct mo_model runq_model = {
    .name = "run queue",
    .variants = 2,
    .threads = 3,
    .thread = {runq_owner, runq_thief, runq_thief},
    .thread_name = {"owner", "thief 1", "thief 2"},
    .init = runq_init,
    .check = runq_check,
    .sites = runq_sites,
    .n_sites = RUNQ_SITES,
    .steps = runq_steps,
    .n_steps = RUNQ_STEPS,
};

#endif
