/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervision.c - the machine on its own: strategies, restart policies, intensity, backoff.
 *
 * Tried with the mutants of src/policy/mutant.h; tests/model catches all of them. */
#include "machine.h"

#define SECOND KLAW_S(1)

/* --- options --- */

PLAIN(options_out_of_range_are_refused) {
    const klaw_supervision_opts wrong[] = {
        {.strategy = (klaw_strategy)-1},
        {.strategy = (klaw_strategy)4},
        {.auto_shutdown = (klaw_auto_shutdown)-1},
        {.auto_shutdown = (klaw_auto_shutdown)3},
        {.max_restarts = -2},
        {.max_restarts = 1000001},
        {.restart_window = -1},
        {.backoff.base = -2},
    };
    klaw_supervision *none = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        GIVES(klaw_supervision_new(&wrong[i], &none), KLAW_INVALID);
    CHECK(!none);
    OK(klaw_supervision_new(NULL, &none));
    klaw_supervision_free(none);
    klaw_supervision_free(NULL);
}

PLAIN(children_out_of_range_are_refused) {
    const klaw_supervision_child wrong[] = {
        {.restart = (klaw_restart)-1},
        {.restart = (klaw_restart)3},
        {.shutdown = -2},
        {.significant = true, ALWAYS},
    };
    uint32_t number = 5;
    MACHINE(.auto_shutdown = KLAW_SHUTDOWN_ANY_SIGNIFICANT);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        GIVES(klaw_supervision_add(machine, &wrong[i], &number), KLAW_INVALID);
    SAME(number, 5);
    OK(klaw_supervision_add(machine, NULL, &number));
    SAME(number, 0);
    machine_free();
    MACHINE(0);
    klaw_supervision_child c = {.significant = true};
    GIVES(klaw_supervision_add(machine, &c, &number), KLAW_INVALID);
    SAME(klaw_supervision_count(machine), 0);
    machine_free();
}

/* --- the beginning --- */

PLAIN(children_start_left_to_right_each_after_the_one_before_runs) {
    MACHINE(0);
    for (uint32_t i = 0; i < 3; i++)
        SAME(CHILD(0), i);
    SAYS("");
    OK(klaw_supervision_begin(machine, t));
    GIVES(klaw_supervision_begin(machine, t), KLAW_EXISTS);
    STATE(0, BACKOFF);
    SAYS("+0");
    STATE(0, STARTING);
    runs(0);
    STATE(0, RUNNING);
    SAYS("+1");
    SAYS("");
    runs(1);
    SAYS("+2");
    runs(2);
    SAYS("begun");
    SAME(klaw_supervision_count(machine), 3);
    SAME(klaw_supervision_due(machine), INT64_MAX);
    SAME(klaw_supervision_restarts(machine, 0), 0);
    machine_free();
}

PLAIN(machine_without_children_has_begun_at_once) {
    for (int strategy = KLAW_ONE_FOR_ONE; strategy <= KLAW_DYNAMIC; strategy++) {
        MACHINE(.strategy = (klaw_strategy)strategy);
        OK(klaw_supervision_begin(machine, t));
        SAYS("begun");
        klaw_supervision_shutdown(machine, t);
        SAYS("done:OK");
        machine_free();
    }
}

PLAIN(first_start_that_fails_stops_the_others_and_ends_the_machine) {
    MACHINE(0);
    for (int i = 0; i < 4; i++)
        CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    runs(0);
    SAYS("+1");
    runs(1);
    SAYS("+2");
    no_start(2);
    SAYS("f2:1:SYSTEM -1");
    ends(1, KLAW_OK);
    SAYS("-0");
    ends(0, KLAW_CANCELLED);
    SAYS("done:SYSTEM");
    SAYS("");
    STATE(3, STOPPED);
    machine_free();
}

PLAIN(child_that_fails_during_the_beginning_is_restarted_beside_it) {
    MACHINE(.no_backoff = true);
    CHILD(0), CHILD(0), CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    runs(0);
    SAYS("+1");
    fails(0);
    SAYS("f0:1:SYSTEM +0");
    runs(1);
    SAYS("+2");
    runs(2);
    SAYS("begun");
    runs(0);
    SAYS("r0:1");
    machine_free();
}

PLAIN(group_that_fails_during_the_beginning_begins_again) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    CHILD(0), CHILD(0), CHILD(NEVER);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    runs(0);
    SAYS("+1");
    fails(0);
    SAYS("f0:1:SYSTEM -1"); /* told to stop while it starts */
    OK(klaw_supervision_start_failed(machine, 1, KLAW_SYSTEM, t, 0));
    SAYS("+0");
    runs(0);
    SAYS("r0:1 +1");
    no_start(1); /* it has never run */
    SAYS("f1:1:SYSTEM x2 -0");
    ends(0, KLAW_OK);
    SAYS("done:SYSTEM");
    machine_free();
}

PLAIN(child_stopped_during_the_beginning_is_passed_over) {
    MACHINE(0);
    CHILD(0), CHILD(0), CHILD(NEVER), CHILD(0);
    OK(klaw_supervision_stop_child(machine, 1, t)); /* not begun: nothing */
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    OK(klaw_supervision_stop_child(machine, 1, t));
    OK(klaw_supervision_stop_child(machine, 2, t));
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("x2 -0 +3");
    runs(3);
    SAYS("begun");
    ends(0, KLAW_OK);
    SAYS("");
    STATE(0, STOPPED);
    STATE(1, STOPPED);
    SAME(klaw_supervision_count(machine), 3);
    machine_free();
}

/* --- restart policies --- */

PLAIN(on_failure_restarts_failed_children_only) {
    MACHINE(.no_backoff = true);
    BEGIN(2, ON_FAILURE);
    fails(0);
    SAYS("f0:1:SYSTEM +0");
    runs(0);
    SAYS("r0:1");
    SAME(klaw_supervision_restarts(machine, 0), 1);
    ends(0, KLAW_OK);
    SAYS("");
    STATE(0, STOPPED);
    SAME(klaw_supervision_count(machine), 2);
    machine_free();
}

PLAIN(always_restarts_normal_ends_too_and_they_count) {
    MACHINE(.no_backoff = true, .max_restarts = 1);
    BEGIN(1, ALWAYS);
    ends(0, KLAW_OK);
    SAYS("+0");
    runs(0);
    SAYS("r0:1");
    ends(0, KLAW_OK);
    SAYS("g0:2 done:LIMIT");
    machine_free();
}

PLAIN(never_children_are_removed_when_they_end) {
    MACHINE(.no_backoff = true);
    BEGIN(3, NEVER);
    fails(1);
    SAYS("f1:1:SYSTEM x1");
    ends(0, KLAW_OK);
    SAYS("x0");
    SAME(klaw_supervision_count(machine), 1);
    GIVES(klaw_supervision_exited(machine, 0, KLAW_OK, t, 0), KLAW_INVALID);
    SAME(CHILD(0), 0); /* numbers are used again, the last one first */
    SAYS("+0");
    SAME(CHILD(0), 1);
    SAYS("+1");
    machine_free();
}

PLAIN(number_is_not_used_again_before_removed_was_told) {
    MACHINE(.no_backoff = true);
    BEGIN(1, NEVER);
    ends(0, KLAW_OK);
    SAME(klaw_supervision_count(machine), 0);
    SAME(CHILD(0), 1);
    SAYS("x0 +1");
    SAME(CHILD(0), 0);
    machine_free();
}

/* --- strategies --- */

PLAIN(one_for_one_restarts_that_one) {
    MACHINE(.no_backoff = true);
    BEGIN(3, 0);
    fails(1);
    SAYS("f1:1:SYSTEM +1");
    fails(0); /* nobody waits for the other */
    SAYS("f0:1:SYSTEM +0");
    runs(0);
    runs(1);
    SAYS("r0:1 r1:1");
    machine_free();
}

PLAIN(one_for_all_stops_right_to_left_and_starts_left_to_right) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(4, 0);
    fails(1);
    SAYS("f1:1:SYSTEM -3");
    STATE(1, BACKOFF);
    ends(3, KLAW_SYSTEM); /* told to: no failure */
    SAYS("-2");
    ends(2, KLAW_OK);
    SAYS("-0");
    ends(0, KLAW_OK);
    SAYS("+0");
    runs(0);
    SAYS("r0:0 +1");
    runs(1);
    SAYS("r1:1 +2");
    runs(2);
    SAYS("r2:0 +3");
    runs(3);
    SAYS("r3:0");
    machine_free();
}

PLAIN(rest_for_one_leaves_those_before_alone) {
    MACHINE(.strategy = KLAW_REST_FOR_ONE, .no_backoff = true);
    BEGIN(4, 0);
    fails(2);
    SAYS("f2:1:SYSTEM -3");
    ends(3, KLAW_OK);
    SAYS("+2");
    runs(2);
    SAYS("r2:1 +3");
    runs(3);
    SAYS("r3:0");
    SAME(klaw_supervision_restarts(machine, 1), 0);
    machine_free();
}

PLAIN(never_children_of_a_group_are_stopped_and_removed) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    CHILD(0), CHILD(NEVER), CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    for (uint32_t i = 0; i < 3; i++) {
        (void)said();
        runs(i);
    }
    SAYS("begun");
    fails(2);
    SAYS("f2:1:SYSTEM -1");
    ends(1, KLAW_OK);
    SAYS("x1 -0");
    ends(0, KLAW_OK);
    SAYS("+0");
    runs(0);
    SAYS("r0:0 +2");
    machine_free();
}

PLAIN(stopped_children_of_a_group_are_started_with_it) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(3, 0);
    ends(0, KLAW_OK);
    OK(klaw_supervision_stop_child(machine, 1, t));
    SAYS("-1");
    ends(1, KLAW_OK);
    SAYS("");
    fails(2);
    SAYS("f2:1:SYSTEM +0");
    runs(0);
    SAYS("r0:0 +1");
    no_start(1); /* a restart: it counts, and the round begins again */
    SAYS("f1:1:SYSTEM -0");
    ends(0, KLAW_OK);
    SAYS("+0");
    machine_free();
}

PLAIN(child_that_ends_before_its_turn_to_stop_counts_as_stopped) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true, .max_restarts = 1);
    BEGIN(3, ALWAYS);
    fails(0);
    SAYS("f0:1:SYSTEM -2");
    fails(1);
    SAYS("f1:1:SYSTEM");
    ends(2, KLAW_OK);
    SAYS("+0");
    runs(0);
    SAYS("r0:1 +1");
    runs(1);
    SAYS("r1:1 +2");
    machine_free();
}

PLAIN(child_that_fails_while_its_group_starts_begins_the_round_again) {
    MACHINE(.strategy = KLAW_REST_FOR_ONE, .no_backoff = true);
    BEGIN(4, 0);
    fails(1);
    SAYS("f1:1:SYSTEM -3");
    ends(3, KLAW_OK);
    SAYS("-2");
    ends(2, KLAW_OK);
    SAYS("+1");
    runs(1);
    SAYS("r1:1 +2");
    runs(2);
    SAYS("r2:0 +3");
    fails(2);
    SAYS("f2:1:SYSTEM -3"); /* it starts: told to stop */
    runs(3);                /* it could not know */
    SAYS("");
    GIVES(klaw_supervision_started(machine, 3, t), KLAW_INVALID);
    GIVES(klaw_supervision_start_failed(machine, 3, KLAW_SYSTEM, t, 0), KLAW_INVALID);
    ends(3, KLAW_OK);
    SAYS("+2");
    machine_free();
}

PLAIN(group_grows_by_a_failure_to_its_left) {
    MACHINE(.strategy = KLAW_REST_FOR_ONE, .backoff = {.jitter = KLAW_JITTER_NONE});
    BEGIN(5, 0);
    fails(3);
    SAYS("f3:1:SYSTEM -4");
    t += KLAW_MS(50);
    fails(1);
    SAYS("f1:1:SYSTEM");
    ends(4, KLAW_OK);
    SAYS("-2");
    ends(2, KLAW_OK);
    SAYS("");
    SAME(klaw_supervision_due(machine), t + KLAW_MS(100));
    t += KLAW_MS(50);
    fails(0); /* while it waits */
    SAYS("f0:1:SYSTEM");
    SAME(klaw_supervision_due(machine), t + KLAW_MS(100));
    t += KLAW_MS(99);
    SAYS("");
    t += KLAW_MS(1);
    SAYS("+0");
    machine_free();
}

PLAIN(later_failure_does_not_shorten_the_wait_of_the_first) {
    MACHINE(.strategy = KLAW_REST_FOR_ONE, .max_restarts = 9,
            .backoff = {.jitter = KLAW_JITTER_NONE, .base = SECOND, .max_delay = KLAW_NONE});
    BEGIN(2, 0);
    fails(1);
    SAYS("f1:1:SYSTEM");
    t += SECOND;
    SAYS("+1");
    no_start(1);
    SAYS("f1:2:SYSTEM"); /* two seconds from here */
    fails(0);            /* one second */
    SAYS("f0:1:SYSTEM");
    SAME(klaw_supervision_due(machine), t + 2 * SECOND);
    machine_free();
}

/* --- intensity --- */

PLAIN(exactly_one_restart_more_than_allowed_escalates) {
    for (int32_t allowed = KLAW_NONE; allowed < 6; allowed++) {
        MACHINE(.no_backoff = true, .max_restarts = allowed);
        BEGIN(2, 0);
        int times = allowed < 0 ? 0 : allowed == 0 ? 3 : allowed;
        for (int i = 0; i < times; i++) {
            fails(0);
            (void)said();
            runs(0);
            (void)said();
            STATE(1, RUNNING);
        }
        fails(0);
        char want[64];
        snprintf(want, sizeof want, "f0:%d:SYSTEM g0:%d -1", times + 1, times + 1);
        SAYS(want);
        ends(1, KLAW_OK);
        SAYS("done:LIMIT");
        machine_free();
    }
}

PLAIN(restart_counts_up_to_the_end_of_its_window) {
    for (int after = 0; after < 2; after++) {
        MACHINE(.no_backoff = true, .max_restarts = 2, .restart_window = 100);
        BEGIN(1, 0);
        int64_t begin = t;
        for (int i = 0; i < 2; i++) {
            fails(0);
            (void)said();
            runs(0);
            (void)said();
            t += 60;
        }
        t = begin + 100 + after; /* the first one is this old now */
        fails(0);
        SAYS(after ? "f0:3:SYSTEM +0" : "f0:3:SYSTEM g0:3 done:LIMIT");
        machine_free();
    }
}

PLAIN(window_slides) {
    MACHINE(.no_backoff = true, .max_restarts = 2, .restart_window = 100);
    BEGIN(1, 0);
    for (int i = 0; i < 50; i++) { /* never three within 100 */
        fails(0);
        (void)said();
        runs(0);
        (void)said();
        t += i % 2 ? 95 : 6;
    }
    STATE(0, RUNNING);
    SAME(klaw_supervision_restarts(machine, 0), 50);
    machine_free();
}

PLAIN(unlimited_restarts_never_escalate) {
    MACHINE(.no_backoff = true, .max_restarts = KLAW_RESTARTS_UNLIMITED);
    BEGIN(1, 0);
    for (int i = 0; i < 100000; i++) {
        fails(0);
        (void)said();
        runs(0);
    }
    SAME(klaw_supervision_restarts(machine, 0), 100000);
    machine_free();
}

PLAIN(restart_that_cannot_start_is_tried_again_and_counts) {
    MACHINE(.no_backoff = true, .max_restarts = 2);
    BEGIN(1, 0);
    fails(0);
    SAYS("f0:1:SYSTEM +0");
    no_start(0);
    SAYS("f0:2:SYSTEM +0");
    no_start(0);
    SAYS("f0:3:SYSTEM g0:3 done:LIMIT");
    machine_free();
}

/* --- backoff --- */

PLAIN(restarts_wait_for_the_backoff) {
    MACHINE(.backoff = {.jitter = KLAW_JITTER_NONE}, .max_restarts = 5);
    BEGIN(3, 0);
    fails(0);
    SAYS("f0:1:SYSTEM");
    STATE(0, BACKOFF);
    SAME(klaw_supervision_due(machine), t + KLAW_MS(100));
    fails(1);
    SAYS("f1:1:SYSTEM");
    t += KLAW_MS(100) - 1;
    SAYS("");
    t += 1;
    SAYS("+0 +1"); /* both are due: in the order of the children */
    no_start(0);
    SAYS("f0:2:SYSTEM");
    SAME(klaw_supervision_due(machine), t + KLAW_MS(200));
    t += KLAW_MS(200);
    SAYS("+0");
    runs(0);
    SAYS("r0:2");
    SAME(klaw_supervision_due(machine), INT64_MAX);
    machine_free();
}

PLAIN(ends_in_a_row_are_forgotten_after_a_window_of_running) {
    MACHINE(.backoff = {.jitter = KLAW_JITTER_NONE}, .restart_window = SECOND);
    BEGIN(1, 0);
    for (int i = 0; i < 2; i++) {
        fails(0);
        (void)said();
        t += KLAW_MS(200);
        SAYS("+0");
        runs(0);
        (void)said();
        t += SECOND - 1;
    }
    fails(0); /* not quite a window */
    SAYS("f0:3:SYSTEM");
    t += KLAW_MS(400);
    SAYS("+0");
    runs(0);
    (void)said();
    t += SECOND;
    fails(0);
    SAYS("f0:1:SYSTEM");
    machine_free();
}

PLAIN(jitter_is_the_hosts_chance) {
    MACHINE(0);
    BEGIN(1, 0);
    OK(klaw_supervision_exited(machine, 0, KLAW_SYSTEM, t, UINT64_MAX / 4));
    SAYS("f0:1:SYSTEM");
    SAME(klaw_supervision_due(machine), t + KLAW_MS(25));
    machine_free();
}

PLAIN(delay_beyond_the_end_of_time_is_for_ever) {
    MACHINE(.backoff = {.jitter = KLAW_JITTER_NONE, .base = INT64_MAX, .max_delay = KLAW_NONE});
    BEGIN(1, 0);
    fails(0);
    SAYS("f0:1:SYSTEM");
    SAME(klaw_supervision_due(machine), INT64_MAX);
    klaw_supervision_shutdown(machine, t);
    SAYS("done:OK");
    machine_free();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(options_out_of_range_are_refused),
        TEST(children_out_of_range_are_refused),
        TEST(children_start_left_to_right_each_after_the_one_before_runs),
        TEST(machine_without_children_has_begun_at_once),
        TEST(first_start_that_fails_stops_the_others_and_ends_the_machine),
        TEST(child_that_fails_during_the_beginning_is_restarted_beside_it),
        TEST(group_that_fails_during_the_beginning_begins_again),
        TEST(child_stopped_during_the_beginning_is_passed_over),
        TEST(on_failure_restarts_failed_children_only),
        TEST(always_restarts_normal_ends_too_and_they_count),
        TEST(never_children_are_removed_when_they_end),
        TEST(number_is_not_used_again_before_removed_was_told),
        TEST(one_for_one_restarts_that_one),
        TEST(one_for_all_stops_right_to_left_and_starts_left_to_right),
        TEST(rest_for_one_leaves_those_before_alone),
        TEST(never_children_of_a_group_are_stopped_and_removed),
        TEST(stopped_children_of_a_group_are_started_with_it),
        TEST(child_that_ends_before_its_turn_to_stop_counts_as_stopped),
        TEST(child_that_fails_while_its_group_starts_begins_the_round_again),
        TEST(group_grows_by_a_failure_to_its_left),
        TEST(later_failure_does_not_shorten_the_wait_of_the_first),
        TEST(exactly_one_restart_more_than_allowed_escalates),
        TEST(restart_counts_up_to_the_end_of_its_window),
        TEST(window_slides),
        TEST(unlimited_restarts_never_escalate),
        TEST(restart_that_cannot_start_is_tried_again_and_counts),
        TEST(restarts_wait_for_the_backoff),
        TEST(ends_in_a_row_are_forgotten_after_a_window_of_running),
        TEST(jitter_is_the_hosts_chance),
        TEST(delay_beyond_the_end_of_time_is_for_ever),
    };
    return cmocka_run_group_tests_name("supervision", tests, NULL, NULL);
}
