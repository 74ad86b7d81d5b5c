/* SPDX-License-Identifier: Apache-2.0 */
/* det.h - the deterministic build: virtual processors, one seed, and bugs on purpose.
 *
 * Only with KLAWI_DET. A schedule is what happens between klawi_det_begin and klawi_det_end: the
 * calling thread is virtual processor 0, each klawi_thread_start makes a further one, all of them
 * run on that one OS thread, and the seed decides who goes on at each interleaving point. */
#ifndef KLAWI_DET_H
#define KLAWI_DET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, what it breaks): KLAWI_MUTANT(name) is true while that bug is switched on. */
#define KLAWI_MUTANT_LIST(X)                                                          \
    X(P1_IGNORE_EPOCH, "a claim with a stale epoch succeeds")                         \
    X(P3_ARM_CANCELLED, "a cancelled host parks all the same")                        \
    X(P3_RING_NO_RECHECK, "a ring's receiver parks without looking again")            \
    X(P4_CLAIM_ALWAYS, "a claim that lost goes on as if it had won")                  \
    X(P5_READY_TWICE, "a host is readied twice")                                      \
    X(P5_RESULT_LATE, "a host is readied before its result is written")               \
    X(P6_NO_UNLINK, "a time-out or cancellation leaves its waiter in the queue")      \
    X(P7_LOSE_CANCEL, "cancelling a host that does not wait leaves no mark")          \
    X(P7_THROUGH_SHIELD, "cancellation ends a shielded wait")                         \
    X(P7_NO_MIRROR, "leaving a scope forgets what the outer one is")                  \
    X(P7_SPAWN_UNSEEN, "a fiber spawned into a cancelled scope is not cancelled")     \
    X(P8_IGNORE_ON_CPU, "a fiber is run before it has left its stack")                \
    X(P9_NO_RECHECK, "a select parks without looking again")                          \
    X(P9_NO_UNLINK, "a select leaves its losing waiters in their queues")             \
    X(P9_LOCK_ORDER, "a select locks its channels in any order")                      \
    X(P10_FIRE_EARLY, "a deadline moved to later fires at the old time")              \
    X(P11_EARLY_READY, "a joiner is readied before the exit result is stored")        \
    X(K2_LATER_HEAD, "a full run queue is halved by a later look at its head")        \
    X(R2_SLOT_FOR_EVER, "the next slot is run without bound")                         \
    X(R4_NO_STEAL, "the monitor takes nothing from a worker that stands still")       \
    X(R4_IGNORE_TAKING, "the monitor takes a slot while its owner is at it")          \
    X(R5_NO_FENCE, "a pusher reads the sleepers before its push is visible")          \
    X(R5_NO_RECHECK, "a worker goes to sleep without looking again")                  \
    X(R7_STEAL_PINNED, "a pinned fiber is stolen")                                    \
    X(R8_NO_BUDGET, "a turn has no end")                                              \
    X(R9_READY_UNDER_LOCK, "a host is readied under a channel's lock")                \
    X(I2_NO_ADMIT, "a slot that is given back goes to nobody")                        \
    X(I3_NO_SETTLE, "receivers are not told that the channel has drained and closed") \
    X(E1_LEAVE_LATE, "an executor's runner decides to end before it says so")         \
    X(E1_NO_REF, "a runner's spawner looks for a task that may be gone")              \
    X(E3_NO_PIN, "a runner goes on to the next task under a canceller's hands")       \
    X(E3_NO_REVIVE, "a runner whose task was cancelled stays cancelled")              \
    X(E5_CANCELLED_RUNS, "a task that was cancelled in the queue runs all the same")  \
    X(OP_KEEPS_PERMIT, "an abandoned operation keeps its grant")                      \
    X(A2_NO_NUDGE, "what is put into a resting actor's mailbox does not wake it")     \
    X(A3_NO_ADMIT, "room in a mailbox is given to no sender that waits")              \
    X(A4_START_EXPIRED, "an ask whose asker has left is started all the same")        \
    X(A5_FORGET_ASKER, "an actor ends and forgets the askers in its mailbox")         \
    X(A5_KEEP_PROMISE, "an incarnation ends and forgets what it has promised")        \
    X(A7_KEEP_FIRED, "a bond that is given up stays among the system messages")       \
    X(A9_MISS_GONE, "a monitor on an actor that has ended is never delivered")        \
    X(A11_LATE_LINK, "a link is hung upon an incarnation that has ended")             \
    X(A11_STALE_TICK, "a timer of an earlier incarnation fires")                      \
    X(A11_FREE_ARMING, "a timer is freed while it is being armed")                    \
    X(A10_DONE_EARLY, "joiners are told before the actor has ended")                  \
    X(O2_UNSEEN, "a pool is stopped while it grows, and its new members go on")       \
    X(G2_HOPE_IN_VAIN, "a name is awaited although it was registered meanwhile")      \
    X(G3_NAME_THE_DEAD, "an actor that has ended is given a name")                    \
    X(S_NO_RECHECK, "a keeper parks without looking for news again")                  \
    X(S_NO_SHIELD, "a cancellation reaches supervised children by itself")            \
    X(S3_KEEP_WITHDRAWN, "an answered request stays in the supervisor's list")        \
    X(E2_POST_FINISHED, "a supervisor that has ended is asked for something")         \
    X(U1_ABANDON_ENDED, "a child is abandoned although it has told its end")          \
    X(U3_TELL_LATE, "an abandoned child tells its end")                               \
    X(RT1_FILE_LATE, "a channel is filed after all have been closed")                 \
    X(RT2_SECOND_EARLY, "a second shutdown does not wait for the first")              \
    X(THREAD_NO_SLEEP_FLAG, "a thread sleeps without saying so")

enum klawi_mutant {
    KLAWI_M_NONE = 0,
#define KLAWI_MUTANT_ENUM(name, text) KLAWI_M_##name,
    KLAWI_MUTANT_LIST(KLAWI_MUTANT_ENUM)
#undef KLAWI_MUTANT_ENUM
        KLAWI_M_COUNT
};

#if defined(KLAWI_DET)

/* Which bug is switched on; set it between schedules only. */
extern int klawi_mutant;
#define KLAWI_MUTANT(id) __builtin_expect(klawi_mutant == KLAWI_M_##id, 0)
/* The name and the sentence of a mutant; "?" for a number that is none. */
const char *klawi_mutant_name(int mutant);
const char *klawi_mutant_text(int mutant);

/* At most so many virtual processors at once. */
#define KLAWI_DET_VCPUS 64
/* Points per schedule above which it counts as a livelock. */
#define KLAWI_DET_POINTS 2000000
/* Exit status of a process whose schedule failed (deadlock, livelock, a check of the harness). */
#define KLAWI_DET_EXIT 70

/* The virtual processor that runs now; 0 outside of a schedule. */
extern int klawi_det_vcpu;

/* Starts a schedule. `name` is for reports and has to live on; `verbose` 1 prints each switch, 2
 * each point. */
void klawi_det_begin(uint64_t seed, const char *name, int verbose);
/* Waits for all other virtual processors to end, closes the schedule, returns its trace hash. */
uint64_t klawi_det_end(void);
/* Whether a schedule is open. */
bool klawi_det_active(void);
/* Points passed in this schedule. */
uint64_t klawi_det_points(void);
/* Advances virtual time, for scenarios that want a deadline to be due. */
void klawi_det_sleep(int64_t ns);
/* Prints what, the seed and every virtual processor's state, then ends the process with
 * KLAWI_DET_EXIT. Any thread of control may call it. */
void klawi_det_fail(const char *what, const char *file, int line) __attribute__((noreturn));

/* `size` bytes at `addr` belong to each virtual processor separately: swapped at every switch, zero
 * at its start. At most 4 blocks of up to 64 bytes; outside of a schedule. Registering a block
 * again changes nothing. */
void klawi_det_register_tls(void *addr, size_t size);
/* fn runs on each virtual processor after its function has returned (what a destructor of a
 * thread-local would do). At most 4; registering again changes nothing. */
void klawi_det_on_vcpu_exit(void (*fn)(void));
/* fn runs within a failure report, to add what it knows. */
void klawi_det_on_report(void (*fn)(void));

/* One virtual processor waits at the gate, in klawi_det_gate_wait, until it opens; then it alone
 * runs until it blocks, ends, or says klawi_det_gate_done. klawi_det_gate_open_at(k) opens it at
 * the k-th point from now, whoever passes it. klawi_det_gate_open opens it at once, if it has not
 * been: false when it had been. */
void klawi_det_gate_wait(void);
void klawi_det_gate_open_at(uint64_t k);
bool klawi_det_gate_open(void);
void klawi_det_gate_done(void);

#else
#define KLAWI_MUTANT(id) 0
#endif

#endif
