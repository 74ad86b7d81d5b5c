/* SPDX-License-Identifier: Apache-2.0 */
/* test_litmus.c - the explorer itself: known small programs, and whether the memory model shows an
 * outcome or not.
 *
 * Each litmus row is a program of up to four threads, one outcome of it (values of registers and
 * final values of variables) and whether C11 allows that outcome. An allowed one must be found, a
 * forbidden one must not. The rows are the classical ones (store buffering, message passing, and so
 * on). Where the model differs on purpose (no load buffering, seq_cst accesses that are no more
 * than acquire and release) a row says so. Below the rows: races, futexes, events, spin loops, and
 * that states known already are cut off without losing an outcome.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "model/explore_engine.h"

enum { X, Y, Z };
enum { DATA };
enum { REGS = 4, ANY = -1 };

enum { END, W, R, F, ADD, XCHG, HEAVY, LIGHT };
struct instr {
    int what, var, arg; /* arg: value of a write or an RMW, register of a read */
    enum mo_order order;
};

struct litmus {
    const char *name;
    struct instr thread[4][5];
    int reg[REGS], last[3]; /* the outcome; ANY where it does not matter */
    enum {
        FORBIDDEN,
        ALLOWED,
        PESSIMISTIC
    } c11; /* pessimistic: C11 forbids it, the explorer shows it */
};

#define NO_REGS \
    { ANY, ANY, ANY, ANY }
#define NO_LAST \
    { ANY, ANY, ANY }

static const struct litmus rows[] = {
    {"SB relaxed",
     {{{W, X, 1, MO_RLX}, {R, Y, 0, MO_RLX}}, {{W, Y, 1, MO_RLX}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB release and acquire",
     {{{W, X, 1, MO_REL}, {R, Y, 0, MO_ACQ}}, {{W, Y, 1, MO_REL}, {R, X, 1, MO_ACQ}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB two full fences",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, Y, 0, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"SB two full fences, one late",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, Y, 0, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, X, 1, MO_RLX}}},
     {0, 1, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB one full fence",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, Y, 0, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {F, 0, 0, MO_AR}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB seq_cst accesses",
     {{{W, X, 1, MO_SC}, {R, Y, 0, MO_SC}}, {{W, Y, 1, MO_SC}, {R, X, 1, MO_SC}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     PESSIMISTIC},
    {"SB seq_cst stores, relaxed loads",
     {{{W, X, 1, MO_SC}, {R, Y, 0, MO_RLX}}, {{W, Y, 1, MO_SC}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB seq_cst exchange, relaxed loads",
     {{{XCHG, X, 1, MO_SC}, {R, Y, 0, MO_RLX}}, {{XCHG, Y, 1, MO_SC}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"SB seq_cst accesses against a fence",
     {{{W, X, 1, MO_SC}, {R, Y, 0, MO_SC}},
      {{W, Y, 1, MO_RLX}, {F, 0, 0, MO_SC}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     PESSIMISTIC},
    {"SB heavy and light fence",
     {{{W, X, 1, MO_RLX}, {HEAVY, 0, 0, MO_SC}, {R, Y, 0, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {LIGHT, 0, 0, MO_RLX}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"SB two light fences",
     {{{W, X, 1, MO_RLX}, {LIGHT, 0, 0, MO_RLX}, {R, Y, 0, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {LIGHT, 0, 0, MO_RLX}, {R, X, 1, MO_RLX}}},
     {0, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"MP relaxed",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_RLX}}, {{R, Y, 0, MO_RLX}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"MP release only",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_REL}}, {{R, Y, 0, MO_RLX}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"MP acquire only",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_RLX}}, {{R, Y, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"MP release and acquire",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_REL}}, {{R, Y, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"MP fences",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_REL}, {W, Y, 1, MO_RLX}},
      {{R, Y, 0, MO_RLX}, {F, 0, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"MP release fence too late",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_RLX}, {F, 0, 0, MO_REL}},
      {{R, Y, 0, MO_RLX}, {F, 0, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"MP through a relaxed RMW",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_REL}},
      {{ADD, Y, 1, MO_RLX}},
      {{R, Y, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {2, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"MP through a relaxed store",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_REL}, {W, Y, 2, MO_RLX}},
      {{R, Y, 0, MO_ACQ}, {R, X, 1, MO_RLX}}},
     {2, 0, ANY, ANY},
     NO_LAST,
     ALLOWED},
    {"CoRR",
     {{{W, X, 1, MO_RLX}}, {{R, X, 0, MO_RLX}, {R, X, 1, MO_RLX}}},
     {1, 0, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"CoRR two readers",
     {{{W, X, 1, MO_RLX}},
      {{W, X, 2, MO_RLX}},
      {{R, X, 0, MO_RLX}, {R, X, 1, MO_RLX}},
      {{R, X, 2, MO_RLX}, {R, X, 3, MO_RLX}}},
     {1, 2, 2, 1},
     NO_LAST,
     FORBIDDEN},
    {"CoWR",
     {{{W, X, 1, MO_RLX}, {R, X, 0, MO_RLX}}, {{W, X, 2, MO_RLX}}},
     {0, ANY, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
    {"CoRW",
     {{{R, X, 0, MO_RLX}, {W, X, 1, MO_RLX}}, {{W, X, 2, MO_RLX}}},
     {2, ANY, ANY, ANY},
     {2, ANY, ANY},
     FORBIDDEN},
    {"CoWW", {{{W, X, 1, MO_RLX}, {W, X, 2, MO_RLX}}}, NO_REGS, {1, ANY, ANY}, FORBIDDEN},
    {"2+2W relaxed",
     {{{W, X, 1, MO_RLX}, {W, Y, 2, MO_RLX}}, {{W, Y, 1, MO_RLX}, {W, X, 2, MO_RLX}}},
     NO_REGS,
     {1, 1, ANY},
     ALLOWED},
    {"2+2W release",
     {{{W, X, 1, MO_REL}, {W, Y, 2, MO_REL}}, {{W, Y, 1, MO_REL}, {W, X, 2, MO_REL}}},
     NO_REGS,
     {1, 1, ANY},
     ALLOWED},
    {"2+2W fences",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_SC}, {W, Y, 2, MO_RLX}},
      {{W, Y, 1, MO_RLX}, {F, 0, 0, MO_SC}, {W, X, 2, MO_RLX}}},
     NO_REGS,
     {1, 1, ANY},
     FORBIDDEN},
    {"2+2W seq_cst",
     {{{W, X, 1, MO_SC}, {W, Y, 2, MO_SC}}, {{W, Y, 1, MO_SC}, {W, X, 2, MO_SC}}},
     NO_REGS,
     {1, 1, ANY},
     PESSIMISTIC},
    {"S relaxed",
     {{{W, X, 2, MO_RLX}, {W, Y, 1, MO_RLX}}, {{R, Y, 0, MO_RLX}, {W, X, 1, MO_RLX}}},
     {1, ANY, ANY, ANY},
     {2, ANY, ANY},
     ALLOWED},
    {"S release and acquire",
     {{{W, X, 2, MO_RLX}, {W, Y, 1, MO_REL}}, {{R, Y, 0, MO_ACQ}, {W, X, 1, MO_RLX}}},
     {1, ANY, ANY, ANY},
     {2, ANY, ANY},
     FORBIDDEN},
    {"R fences",
     {{{W, X, 1, MO_RLX}, {F, 0, 0, MO_SC}, {W, Y, 1, MO_RLX}},
      {{W, Y, 2, MO_RLX}, {F, 0, 0, MO_SC}, {R, X, 0, MO_RLX}}},
     {0, ANY, ANY, ANY},
     {ANY, 2, ANY},
     FORBIDDEN},
    {"R release and acquire",
     {{{W, X, 1, MO_RLX}, {W, Y, 1, MO_REL}}, {{W, Y, 2, MO_REL}, {R, X, 0, MO_ACQ}}},
     {0, ANY, ANY, ANY},
     {ANY, 2, ANY},
     ALLOWED},
    {"WRC relaxed",
     {{{W, X, 1, MO_RLX}},
      {{R, X, 0, MO_RLX}, {W, Y, 1, MO_RLX}},
      {{R, Y, 1, MO_RLX}, {R, X, 2, MO_RLX}}},
     {1, 1, 0, ANY},
     NO_LAST,
     ALLOWED},
    {"WRC release and acquire",
     {{{W, X, 1, MO_RLX}},
      {{R, X, 0, MO_RLX}, {W, Y, 1, MO_REL}},
      {{R, Y, 1, MO_ACQ}, {R, X, 2, MO_RLX}}},
     {1, 1, 0, ANY},
     NO_LAST,
     FORBIDDEN},
    {"IRIW acquire",
     {{{W, X, 1, MO_REL}},
      {{W, Y, 1, MO_REL}},
      {{R, X, 0, MO_ACQ}, {R, Y, 1, MO_ACQ}},
      {{R, Y, 2, MO_ACQ}, {R, X, 3, MO_ACQ}}},
     {1, 0, 1, 0},
     NO_LAST,
     ALLOWED},
    {"IRIW fences between the loads",
     {{{W, X, 1, MO_RLX}},
      {{W, Y, 1, MO_RLX}},
      {{R, X, 0, MO_RLX}, {F, 0, 0, MO_SC}, {R, Y, 1, MO_RLX}},
      {{R, Y, 2, MO_RLX}, {F, 0, 0, MO_SC}, {R, X, 3, MO_RLX}}},
     {1, 0, 1, 0},
     NO_LAST,
     FORBIDDEN},
    {"IRIW one fence",
     {{{W, X, 1, MO_RLX}},
      {{W, Y, 1, MO_RLX}},
      {{R, X, 0, MO_RLX}, {F, 0, 0, MO_SC}, {R, Y, 1, MO_RLX}},
      {{R, Y, 2, MO_ACQ}, {R, X, 3, MO_ACQ}}},
     {1, 0, 1, 0},
     NO_LAST,
     ALLOWED},
    {"IRIW seq_cst",
     {{{W, X, 1, MO_SC}},
      {{W, Y, 1, MO_SC}},
      {{R, X, 0, MO_SC}, {R, Y, 1, MO_SC}},
      {{R, Y, 2, MO_SC}, {R, X, 3, MO_SC}}},
     {1, 0, 1, 0},
     NO_LAST,
     PESSIMISTIC},
    {"no increment is lost",
     {{{ADD, X, 1, MO_RLX}, {ADD, X, 1, MO_RLX}}, {{ADD, X, 1, MO_RLX}}, {{ADD, X, 1, MO_RLX}}},
     NO_REGS,
     {3, ANY, ANY},
     FORBIDDEN},
    {"an increment in the middle",
     {{{W, X, 5, MO_RLX}, {R, Y, 0, MO_RLX}}, {{W, Y, 1, MO_RLX}, {ADD, X, 1, MO_RLX}}},
     {0, ANY, ANY, ANY},
     {5, 1, ANY},
     ALLOWED},
    {"LB is not modelled",
     {{{R, X, 0, MO_RLX}, {W, Y, 1, MO_RLX}}, {{R, Y, 1, MO_RLX}, {W, X, 1, MO_RLX}}},
     {1, 1, ANY, ANY},
     NO_LAST,
     FORBIDDEN},
};

static const struct litmus *row;
static int regs[REGS];
static bool found;

static void litmus_thread(void) {
    for (const struct instr *i = row->thread[mo_w.running]; i->what != END; i++) {
        switch (i->what) {
        case W: mo_store(i->var, i->arg, i->order); break;
        case R: regs[i->arg] = mo_load(i->var, i->order); break;
        case F: mo_fence(i->order); break;
        case ADD: mo_add(i->var, i->arg, i->order); break;
        case XCHG: mo_xchg(i->var, i->arg, i->order); break;
        case HEAVY: mo_fence_heavy(); break;
        case LIGHT: mo_fence_light(); break;
        default: break;
        }
    }
}

static void litmus_init(void) {
    static const char *const names[] = {"x", "y", "z"};
    for (int i = 0; i < 3; i++)
        mo_atom(i, names[i], 0);
    mo_plain(DATA, "data", 0);
    memset(regs, 0, sizeof regs);
}

static void litmus_check(void) {
    bool same = true;
    for (int i = 0; i < REGS; i++)
        same &= row->reg[i] == ANY || row->reg[i] == regs[i];
    for (int i = 0; i < 3; i++)
        same &= row->last[i] == ANY || row->last[i] == mo_last(i);
    found |= same;
}

static void litmus_outcomes_are_those_of_c11(void **state) {
    (void)state;
    uint64_t executions = 0, wrong = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mo_model m = {.name = rows[i].name,
                             .variants = 1,
                             .threads = 4,
                             .heavy = true,
                             .thread = {litmus_thread, litmus_thread, litmus_thread, litmus_thread},
                             .thread_name = {"a", "b", "c", "d"},
                             .init = litmus_init,
                             .check = litmus_check};
        row = &rows[i];
        found = false;
        struct mo_result r = mo_explore(&m, 0, UINT64_MAX);
        executions += r.executions;
        if (r.failed || !r.exhaustive || found != (row->c11 != FORBIDDEN)) {
            print_message("  %s: %s\n", row->name,
                          r.failed ? r.why
                          : found  ? "found"
                                   : "not found");
            wrong++;
        }
    }
    print_message("  %zu litmus rows, %llu executions\n", sizeof rows / sizeof rows[0],
                  (unsigned long long)executions);
    assert_int_equal(wrong, 0);
}

/* ---- the rest of the explorer ---------------------------------------------------------------- */

static struct mo_result run(void (*a)(void), void (*b)(void), int variant) {
    struct mo_model m = {.name = "probe",
                         .variants = 1,
                         .threads = 2,
                         .thread = {a, b},
                         .thread_name = {"a", "b"},
                         .init = litmus_init};
    mo_unmutate(&m);
    return mo_explore(&m, variant, UINT64_MAX);
}

static void pass_writer(void) {
    mo_set(DATA, 1);
    mo_store(X, 1, mo_variant() & 1 ? MO_REL : MO_RLX);
}
static void pass_reader(void) {
    if (mo_load(X, mo_variant() & 2 ? MO_ACQ : MO_RLX) == 1)
        mo_assert(mo_get(DATA) == 1, "stale");
}
static void pass_wait(void) {
    mo_await(X, 1, mo_variant() & 2 ? MO_ACQ : MO_RLX);
    mo_set(DATA, 2);
}

static void a_race_on_plain_data_is_found_without_release_and_acquire(void **state) {
    (void)state;
    for (int v = 0; v < 4; v++) {
        assert_int_equal(run(pass_writer, pass_reader, v).failed, v != 3);
        assert_int_equal(run(pass_writer, pass_wait, v).failed, v != 3);
    }
}

/* A reader that leaves, a writer that overwrites: the case that needs a load ordered before a later
 * store. */
static void leave_reader(void) {
    mo_peek(DATA);
    mo_load(Y, MO_RLX);
    if (mo_cas(X, 0, 1, mo_variant() & 1 ? MO_REL : MO_RLX, MO_RLX) == 0)
        mo_keep(DATA);
}
static void leave_writer(void) {
    if (mo_load(X, mo_variant() & 2 ? MO_ACQ : MO_RLX) == 1)
        mo_set(DATA, 1);
}
static void discarded_writer(void) {
    if (mo_cas(X, 0, 2, MO_RLX, MO_RLX) == 0)
        mo_set(DATA, 1);
}
static void eager_writer(void) {
    mo_set(DATA, 1);
    mo_store(Y, 1, MO_RLX);
}

static void an_optimistic_read_is_checked_only_if_kept(void **state) {
    (void)state;
    for (int v = 0; v < 4; v++)
        assert_int_equal(run(leave_reader, leave_writer, v).failed, v != 3);
    assert_false(run(leave_reader, discarded_writer, 3).failed);
    assert_true(run(leave_reader, eager_writer, 3).failed);
}

/* Variant 0: tells and wakes. 1: forgets to wake. 2: the sleeper does not look again. */
static void sleeper(void) {
    if (mo_variant() == 2) {
        if (mo_load(X, MO_RLX) == 0)
            mo_futex_wait(Y, 0);
        return;
    }
    while (mo_load(X, MO_RLX) == 0)
        mo_futex_wait(X, 0);
}
static void waker(void) {
    mo_store(X, 1, MO_RLX);
    if (mo_variant() != 1)
        mo_futex_wake(mo_variant() == 2 ? Y : X);
}

static void a_lost_wakeup_is_a_deadlock(void **state) {
    (void)state;
    assert_false(run(sleeper, waker, 0).failed);
    struct mo_result r = run(sleeper, waker, 1);
    assert_true(r.failed);
    assert_non_null(strstr(r.why, "deadlock"));
    assert_true(run(sleeper, waker, 2).failed);
}

static void event_reader(void) {
    int n = 0;
    while (n < 2)
        n += mo_event_read(Z);
}
static void event_writer(void) {
    mo_event_write(Z);
    if (mo_variant() == 0)
        mo_event_write(Z);
}

static void an_event_counter_keeps_what_was_written(void **state) {
    (void)state;
    assert_false(run(event_reader, event_writer, 0).failed);
    assert_true(run(event_reader, event_writer, 1).failed);
}

static void locker(void) {
    mo_await_cas(X, 0, 1, MO_ACQ);
    mo_set(DATA, mo_get(DATA) + 1);
    mo_store(X, 0, MO_REL);
}
static void keeper(void) {
    locker();
    mo_await_cas(X, 0, 1, MO_ACQ);
}

static void a_spin_loop_that_nobody_can_end_is_a_deadlock(void **state) {
    (void)state;
    assert_false(run(locker, locker, 0).failed);
    assert_true(run(keeper, locker, 0).failed);
}

/* 15!/(5!)^3 = 756 756 interleavings; what is left of the past does not tell most of them apart. */
static void counter(void) {
    for (int i = 0; i < 5; i++) {
        mo_add(X, 1, MO_RLX);
        mo_forget(i, 0);
    }
}
static void counter_check(void) {
    mo_assert(mo_last(X) == 15, "an increment was lost");
}

static void known_states_are_not_entered_twice(void **state) {
    (void)state;
    struct mo_model m = {.name = "counters",
                         .variants = 1,
                         .threads = 3,
                         .thread = {counter, counter, counter},
                         .thread_name = {"a", "b", "c"},
                         .init = litmus_init,
                         .check = counter_check};
    mo_unmutate(&m);
    struct mo_result r = mo_explore(&m, 0, 1000000);
    assert_false(r.failed);
    assert_true(r.exhaustive);
    assert_true(r.executions < 20000);
    print_message("  3 threads of 5 increments: %llu states, %llu executions\n",
                  (unsigned long long)r.states, (unsigned long long)r.executions);
    r = mo_explore(&m, 0, 100);
    assert_false(r.exhaustive);
}

int main(void) {
#if defined(__SANITIZE_THREAD__)
    print_message("one thread with stacks of its own: nothing here for ThreadSanitizer\n");
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(litmus_outcomes_are_those_of_c11),
        cmocka_unit_test(a_race_on_plain_data_is_found_without_release_and_acquire),
        cmocka_unit_test(an_optimistic_read_is_checked_only_if_kept),
        cmocka_unit_test(a_lost_wakeup_is_a_deadlock),
        cmocka_unit_test(an_event_counter_keeps_what_was_written),
        cmocka_unit_test(a_spin_loop_that_nobody_can_end_is_a_deadlock),
        cmocka_unit_test(known_states_are_not_entered_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
