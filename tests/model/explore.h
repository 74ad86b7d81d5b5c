/* SPDX-License-Identifier: Apache-2.0 */
/* explore.h - tries every execution of a small concurrent program under a weak memory model.
 *
 * A model is a few threads (plain C functions, each on a stack of its own), some atomic variables,
 * some plain ones, and a table of the memory order of every atomic access. mo_explore runs it again
 * and again from the start, each time with another answer to "who goes on" and "which write does
 * this load see", until nothing is left to try. States that were seen before are not entered twice.
 * mo_verify does the same once more for every mutant of the model and expects each of them to fail.
 *
 * Part of the test program, which includes explore_memory.h and explore_engine.h once; these files
 * stay headers so that a test builds alone: cc -Itests tests/model/test_models.c -lcmocka.
 *
 * The memory model (explore_memory.h has the rules). It is C11 without load buffering, not x86:
 *  - per variable a modification order; a store may be placed anywhere behind what its thread has
 *    seen of the variable, a load may read any write that is not older than that. An RMW is placed
 *    right behind the write it read.
 *  - release and acquire accesses and fences carry views; relaxed RMWs continue release sequences
 *    (as in C++20).
 *  - a seq_cst fence is a full fence: it exchanges views with one global view.
 *  - a seq_cst access is acquire and release and no more. C11 promises more (store buffering
 *    between seq_cst accesses), but less than a fence: a relaxed access behind a seq_cst store may
 *    overtake it, as it does on AArch64. An algorithm that leans on seq_cst here has to say so with
 *    a fence.
 *  - a load never reads a write that is executed later (no load buffering). Where an algorithm
 *    needs a load ordered before a store of another thread, the model says so with a plain
 *    variable: races are found by vector clocks, which see that order too.
 *  - plain variables: two accesses, one a write, neither ordered before the other by
 *    happens-before, are a failure.
 *  - futex and eventfd calls are full fences without a happens-before edge: data may not lean on
 *    them.
 */
#ifndef KLAW_TESTS_MODEL_EXPLORE_H
#define KLAW_TESTS_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MO_THREADS = 4,
    MO_ATOMS = 16,  /* atomic variables */
    MO_PLAINS = 16, /* plain variables */
    MO_WRITES = 24, /* writes to one atomic variable in one execution */
    MO_SITES = 24,  /* rows of a model's table of orders, and of its table of steps */
};

enum mo_order { MO_RLX, MO_ACQ, MO_REL, MO_AR, MO_SC };

/* ---- inside the threads of a model ----------------------------------------------------------- */

int mo_load(int var, enum mo_order order);
void mo_store(int var, int value, enum mo_order order);
int mo_xchg(int var, int value, enum mo_order order);
int mo_add(int var, int value, enum mo_order order);
int mo_or(int var, int value, enum mo_order order);
/* Strong compare-and-swap. Returns the value read: it succeeded if that is `expect`. */
int mo_cas(int var, int expect, int value, enum mo_order order, enum mo_order if_not);
void mo_fence(enum mo_order order); /* MO_RLX: none */

/* A loop that spins until the load reads (not) the value. Failed turns have no effect but to pass
 * time, so they are not explored; if no thread can ever end the loop, that is a deadlock. */
int mo_await(int var, int value, enum mo_order order);
int mo_await_not(int var, int value, enum mo_order order);
/* A loop around a compare-and-swap: the acquire side of a spin lock. */
void mo_await_cas(int var, int expect, int value, enum mo_order order);

/* The asymmetric pair: the heavy fence makes every other thread execute a full fence at some point
 * between its begin and its end (sys_membarrier); the light one only keeps the compiler from
 * reordering, so the model does nothing. */
void mo_fence_heavy(void);
static inline void mo_fence_light(void) {}

/* futex: sleeps if the variable holds `expect`. True if it slept (also when woken for no reason,
 * see .spurious). */
bool mo_futex_wait(int var, int expect);
void mo_futex_wake(int var); /* one sleeper, any */
/* eventfd: a counter; the read clears it and blocks at zero. */
void mo_event_write(int var);
int mo_event_read(int var);

int mo_choose(int n);              /* 0 to n-1, all are tried */
int mo_get(int plain);             /* plain read, checked for races */
void mo_set(int plain, int value); /* plain write, checked for races */
/* An optimistic read: taken now, thrown away unless kept later (the copy of a thief before its
 * compare-and-swap). Only a kept read is checked, as of the moment it was taken. */
void mo_peek(int plain);
void mo_keep(int plain);
void mo_assert(bool ok, const char *what);
/* From here on the thread's state is (place, value) and nothing else: joins paths that differ only
 * in the past. */
void mo_forget(int place, int value);

enum mo_order mo_at(int site); /* the order in the model's table, or what the mutant put there */
bool mo_step(int step);        /* true unless the mutant drops this step */
int mo_variant(void);

/* ---- outside --------------------------------------------------------------------------------- */

void mo_atom(int var, const char *name, int value);    /* in .init: declares an atomic variable */
void mo_plain(int plain, const char *name, int value); /* in .init: declares a plain variable */
int mo_last(int var); /* in .check: the last value in modification order */
int mo_last_plain(int plain);

struct mo_site {
    const char *name;
    enum mo_order order;
};

struct mo_benign { /* a mutant that is allowed to pass */
    const char *mutant, *reason;
};

struct mo_model {
    const char *name;
    int variants; /* initial situations, at least 1; a mutant must fail in one of them */
    int threads;
    void (*thread[MO_THREADS])(void);
    const char *thread_name[MO_THREADS];
    void (*init)(void);
    void (*check)(void); /* after every thread has returned; may be NULL */
    bool heavy;          /* a thread uses mo_fence_heavy */
    int spurious;        /* how many futex sleepers may wake for no reason, per execution */
    const struct mo_site *sites;
    int n_sites;
    const char *const *steps; /* what a mutant can drop */
    int n_steps;
    const struct mo_benign *benign;
    int n_benign;
};

struct mo_result {
    bool failed, exhaustive;
    uint64_t executions, states;
    char why[96];
};

/* Explores one variant as mutated at the moment. At most `cap` states; fewer means exhaustive. */
struct mo_result mo_explore(const struct mo_model *model, int variant, uint64_t cap);
/* The model passes exhaustively, every mutant fails. Prints one line, and a failing execution. */
bool mo_verify(const struct mo_model *model, uint64_t cap);

#endif
