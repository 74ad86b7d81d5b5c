/* SPDX-License-Identifier: Apache-2.0 */
/* test_mutants.c - an interleaving test that passes with the bug seeded is broken: for each mutant of
 * plat/det.h a scenario must fail within a few thousand schedules.
 *
 * The scenarios live in the programs next to this one; each is run with KLAW_MUTANT set, in its own
 * process: a mutant may crash, hang or lose memory. Without the mutant the same run must pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plat/det.h"

#define SCHEDULES "6000"

static const struct mutant {
    int id;
    const char *program, *scenario;
} mutants[] = {
    {KLAWI_M_P1_IGNORE_EPOCH, "scope", "a_stale_deadline_spares_the_next_wait"},
    {KLAWI_M_P3_ARM_CANCELLED, "hosts", "run_stop_reaches_every_fiber"},
    {KLAWI_M_P3_RING_NO_RECHECK, "kinds", "ring_parks_both_sides"},
    {KLAWI_M_P4_CLAIM_ALWAYS, "cancel", "cancel_recv"},
    {KLAWI_M_P5_READY_TWICE, "channel", "two_senders_one_receiver"},
    {KLAWI_M_P5_RESULT_LATE, "hosts", "run_stop_reaches_every_fiber"},
    {KLAWI_M_P6_NO_UNLINK, "scope", "a_stale_deadline_hits_nobody"},
    {KLAWI_M_P7_LOSE_CANCEL, "hosts", "run_stop_reaches_every_fiber"},
    {KLAWI_M_P7_THROUGH_SHIELD, "hosts", "blocking_calls_are_awaited"},
    {KLAWI_M_P7_NO_MIRROR, "scope", "a_shielded_part_finishes"},
    {KLAWI_M_P7_SPAWN_UNSEEN, "scope", "scope_cancel_against_spawn"},
    {KLAWI_M_P8_IGNORE_ON_CPU, "channel", "two_senders_two_receivers"},
    {KLAWI_M_P9_NO_RECHECK, "select", "a_thread_selects"},
    {KLAWI_M_P9_NO_UNLINK, "select", "a_select_leaves_nothing_behind"},
    {KLAWI_M_P9_LOCK_ORDER, "select", "two_selects_in_opposite_order"},
    {KLAWI_M_P10_FIRE_EARLY, "scope", "a_stale_deadline_spares_the_next_wait"},
    {KLAWI_M_P11_EARLY_READY, "hosts", "a_thread_joins_a_fiber"},
    {KLAWI_M_K2_LATER_HEAD, "hosts", "a_full_run_queue_runs_each_once"},
    {KLAWI_M_R2_SLOT_FOR_EVER, "hosts", "a_busy_pair_does_not_starve_a_third"},
    {KLAWI_M_R4_NO_STEAL, "hosts", "a_woken_fiber_is_taken_from_a_busy_worker"},
    {KLAWI_M_R4_IGNORE_TAKING, "channel", "two_senders_one_receiver"},
    {KLAWI_M_R5_NO_FENCE, "hosts", "budgets_let_others_run"},
    {KLAWI_M_R5_NO_RECHECK, "hosts", "budgets_let_others_run"},
    {KLAWI_M_R7_STEAL_PINNED, "hosts", "a_pinned_fiber_stays_in_a_busy_workers_slot"},
    {KLAWI_M_R8_NO_BUDGET, "hosts", "budgets_let_others_run"},
    {KLAWI_M_R9_READY_UNDER_LOCK, "channel", "a_dropped_permit_wakes_whoever_waits"},
    {KLAWI_M_I2_NO_ADMIT, "channel", "a_dropped_permit_wakes_whoever_waits"},
    {KLAWI_M_I3_NO_SETTLE, "channel", "close_wakes_parked_receivers"},
    {KLAWI_M_E1_LEAVE_LATE, "executor", "a_submit_against_a_runner_that_leaves"},
    {KLAWI_M_E1_NO_REF, "executor", "submitters_without_a_runner"},
    {KLAWI_M_E3_NO_PIN, "executor", "cancel_reaches_its_task_and_no_other"},
    {KLAWI_M_E3_NO_REVIVE, "executor", "cancel_reaches_its_task_and_no_other"},
    {KLAWI_M_E5_CANCELLED_RUNS, "executor", "a_task_cancelled_in_the_queue_never_runs"},
    {KLAWI_M_OP_KEEPS_PERMIT, "hosts", "an_abandoned_grant_goes_to_the_next"},
    {KLAWI_M_O2_UNSEEN, "pool", "a_stop_against_a_resize"},
    {KLAWI_M_G2_HOPE_IN_VAIN, "registry", "await_against_register"},
    {KLAWI_M_G3_NAME_THE_DEAD, "registry", "register_against_the_end"},
    {KLAWI_M_A2_NO_NUDGE, "actor", "ask_against_kill"},
    {KLAWI_M_A3_NO_ADMIT, "actor", "a_full_mailbox_against_cancellation"},
    {KLAWI_M_A4_START_EXPIRED, "actor", "ask_deadline_against_answer"},
    {KLAWI_M_A5_FORGET_ASKER, "actor", "ask_against_kill"},
    {KLAWI_M_A5_KEEP_PROMISE, "actor", "an_end_breaks_promises"},
    {KLAWI_M_A9_MISS_GONE, "actor", "down_exactly_once"},
    {KLAWI_M_A7_KEEP_FIRED, "actor", "a_monitor_is_ended_while_its_actor_ends"},
    {KLAWI_M_A11_LATE_LINK, "actor", "a_link_is_made_while_the_other_one_ends"},
    {KLAWI_M_A11_STALE_TICK, "actor", "timers_against_restart"},
    {KLAWI_M_A11_FREE_ARMING, "actor", "an_incarnation_is_given_up_while_it_sets_a_timer"},
    {KLAWI_M_A10_DONE_EARLY, "actor", "join_against_end"},
    {KLAWI_M_S_NO_RECHECK, "supervisor", "a_stop_against_restarts"},
    {KLAWI_M_S_NO_SHIELD, "supervisor", "a_run_that_stops_stops_children_in_order"},
    {KLAWI_M_S3_KEEP_WITHDRAWN, "supervisor", "a_start_against_its_deadline"},
    {KLAWI_M_E2_POST_FINISHED, "supervisor", "requests_against_the_end"},
    {KLAWI_M_U1_ABANDON_ENDED, "supervisor", "an_end_against_its_limit"},
    {KLAWI_M_U3_TELL_LATE, "supervisor", "an_end_against_its_limit"},
    {KLAWI_M_RT1_FILE_LATE, "runtime", "shutdown_against_what_it_owns"},
    {KLAWI_M_RT2_SECOND_EARLY, "runtime", "two_shutdowns"},
    {KLAWI_M_THREAD_NO_SLEEP_FLAG, "hosts", "a_fiber_sends_to_a_thread"},
};
#define COUNT (sizeof mutants / sizeof *mutants)

/* The sibling's path: ours with its last word exchanged. */
static void sibling(char *path, size_t size, const char *program) {
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    assert_true(n > 0);
    path[n] = '\0';
    char *at = strstr(strrchr(path, '/'), "mutants");
    assert_non_null(at);
    snprintf(at, size - (size_t)(at - path), "%s", program);
}

/* Whether the scenario fails with this mutant switched on (0: none). */
static bool fails(const struct mutant *m, int mutant) {
    char path[4096];
    sibling(path, sizeof path, m->program);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        unsetenv("KLAW_SEED");
        setenv("KLAW_SCHEDULES", SCHEDULES, 1);
        setenv("KLAW_SCENARIO", m->scenario, 1);
        if (mutant)
            setenv("KLAW_MUTANT", klawi_mutant_name(mutant), 1);
        else
            unsetenv("KLAW_MUTANT");
        execl(path, path, (char *)NULL);
        _exit(99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status) == 1;
}

static void every_mutant_is_caught(void **state) {
    (void)state;
    int missed = 0;
    for (size_t i = 0; i < COUNT; i++)
        if (!fails(&mutants[i], mutants[i].id)) {
            missed++;
            print_message("not caught: %s (%s) by %s\n", klawi_mutant_name(mutants[i].id),
                          klawi_mutant_text(mutants[i].id), mutants[i].scenario);
        }
    assert_int_equal(missed, 0);
}

static void without_a_mutant_the_scenarios_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        if (fails(&mutants[i], 0))
            fail_msg("%s fails", mutants[i].scenario);
}

static void the_table_names_every_mutant(void **state) {
    (void)state;
    for (int id = 1; id < KLAWI_M_COUNT; id++) {
        bool found = false;
        for (size_t i = 0; i < COUNT; i++)
            found |= mutants[i].id == id;
        if (!found)
            print_message("no scenario for %s\n", klawi_mutant_name(id));
        assert_true(found);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_names_every_mutant),
        cmocka_unit_test(every_mutant_is_caught),
        cmocka_unit_test(without_a_mutant_the_scenarios_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
