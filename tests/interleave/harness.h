/* SPDX-License-Identifier: Apache-2.0 */
/* harness.h - interleaving scenarios: a small program, thousands of schedules.
 *
 * A scenario runs on virtual processor 0 of the deterministic build, starts klaw_run (or virtual
 * threads) itself and checks what came out. Seed n always gives the same schedule:
 *
 *     KLAW_SCENARIO=name KLAW_SEED=n <program>     replays one schedule and prints each switch
 *                                                  (at-each-point scenarios: and KLAW_POINT=k)
 *                                                  (after the schedules 1 to KLAW_AFTER; with
 *                                                  KLAW_POINTS=1 each point is printed)
 *     KLAW_SCENARIO=name <program>                 that scenario alone
 *     KLAW_MUTANT=name                             with that bug switched on (plat/det.h)
 *     KLAW_TEST_SLICE=ci|soak                      20 000 or 200 000 schedules each (else 2 000)
 *
 * Each scenario runs in a child process: a crash or a deadlock ends it and no other. */
#ifndef KLAW_TESTS_INTERLEAVE_HARNESS_H
#define KLAW_TESTS_INTERLEAVE_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "klaw/klaw.h"
#include "plat/det.h"
#include "plat/os.h"

struct scenario {
    const char *name;
    void (*fn)(void);
    uint32_t divide; /* run only 1/divide of the schedules: for those that are long */
    bool each_point; /* each seed again and again, with gate_k = 1, 2, 3 … until !gate_reached */
    struct scenario *next;
};
void scenario_add(struct scenario *s);

/* SCENARIO(name) { body }: registers it. */
#define SCENARIO(id) SCENARIO_COST(id, 1)
#define SCENARIO_COST(id, cost)                                                                  \
    static void scenario_##id(void);                                                             \
    __attribute__((constructor)) static void scenario_add_##id(void) {                           \
        static struct scenario s = {#id, scenario_##id, (cost) ? (cost) : 1, (cost) == 0, NULL}; \
        scenario_add(&s);                                                                        \
    }                                                                                            \
    static void scenario_##id(void)
/* A scenario in which something happens at the gate_k-th point; it sets gate_reached. */
#define SCENARIO_AT_EACH_POINT(id) SCENARIO_COST(id, 0)
extern uint64_t gate_k;
extern bool gate_reached;

/* Fails the schedule: prints scenario, seed and every virtual processor. */
#define KLAW_DET_CHECK(cond) ((cond) ? (void)0 : klawi_det_fail(#cond, __FILE__, __LINE__))
/* e == want, printed by name. */
#define CHECK_ERR(e, want) check_err((e), (want), #e, __FILE__, __LINE__)
void check_err(klaw_err e, klaw_err want, const char *text, const char *file, int line);

/* Runs every scenario of the program; the exit status. */
int interleave_main(void);
#if !defined(INTERLEAVE_NO_MAIN)
#define INTERLEAVE_MAIN           \
    int main(void) {              \
        return interleave_main(); \
    }
#else
#define INTERLEAVE_MAIN
#endif

/* How a child that ran schedules ended. */
struct verdict {
    bool failed;
    int signal;         /* it died of */
    uint64_t seed, k;   /* of the schedule that failed */
    uint64_t schedules; /* that passed */
    uint64_t distinct;  /* trace hashes among them */
    uint64_t points;    /* in all of them */
    uint64_t most_k;    /* the largest gate_k that was reached */
};
const struct scenario *scenario_first(void);
/* Runs the seeds from base on, n schedules, in a child process, its stderr thrown away when quiet.
 * The first `twice` run again at the end, their hashes compared. */
struct verdict scenario_child(const struct scenario *s, uint64_t base, uint64_t n, uint64_t twice,
                              bool quiet);

/* --- little helpers of the scenarios --- */

/* A virtual thread that is no worker. */
typedef struct vthread {
    klawi_thread_id id;
} vthread;
vthread vthread_start(const char *name, void *(*fn)(void *), void *arg);
void vthread_join(vthread t);

/* klaw_run with two workers (sometimes three). run checks that fn answered OK, whatever the other
 * fibers did; run_err gives what klaw_run answers. */
void run(klaw_fn fn);
klaw_err run_err(klaw_fn fn);
/* klaw_go, checked. */
void go(klaw_fn fn, void *arg);
/* klaw_spawn with a handle, checked. */
klaw_fiber *spawn(klaw_fn fn, void *arg);
/* Joins, checked; what the function returned. */
klaw_err join(klaw_fiber *f);
/* klaw_yield, whatever it answers. */
void pass(void);
/* A number below n from the seed. */
uint32_t choose(uint32_t n);
/* Lets virtual time pass by about this many microseconds, or none: the seed says. */
klaw_deadline soon(void);

/* The account: every element sent with OK is received once or drained once. Numbers 1 to 255. */
void sent(uint64_t v);
void received(uint64_t v);
bool was_sent(uint64_t v);
bool was_received(uint64_t v);
/* Send and receive that keep the account. */
klaw_err put(klaw_sender *tx, uint64_t v, klaw_deadline d);
klaw_err take(klaw_receiver *rx, uint64_t *v, klaw_deadline d);
/* Receives what is left, without waiting, until the end. */
void drain(klaw_receiver *rx);
/* All that was sent was received, and nothing else. */
void account_closed(void);
void account_open(void);

#endif
