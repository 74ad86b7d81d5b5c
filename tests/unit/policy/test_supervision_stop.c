/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervision_stop.c - the machine on its own: stopping, shutdown times, requests, significant
 * and dynamic children, events that do not fit, and many children.
 *
 * Tried with the mutants of src/policy/mutant.h; tests/model catches all of them. */
#include <time.h>

#include "machine.h"

/* --- shutdown --- */

PLAIN(shutdown_stops_right_to_left_one_at_a_time) {
    MACHINE(0);
    BEGIN(3, 0);
    klaw_supervision_shutdown(machine, t);
    SAYS("-2");
    klaw_supervision_shutdown(machine, t);
    SAYS("");
    ends(2, KLAW_OK);
    SAYS("-1");
    fails(0); /* by itself, before its turn */
    SAYS("f0:1:SYSTEM");
    ends(1, KLAW_OK);
    SAYS("done:OK");
    SAYS("");
    SAME(klaw_supervision_due(machine), INT64_MAX);
    SAME(klaw_supervision_count(machine), 3);
    machine_free();
}

PLAIN(shutdown_before_the_beginning_is_done_at_once) {
    MACHINE(0);
    CHILD(0), CHILD(NEVER);
    klaw_supervision_shutdown(machine, t);
    SAYS("x1 done:OK");
    GIVES(klaw_supervision_begin(machine, t), KLAW_STOPPED);
    machine_free();
}

PLAIN(nothing_is_accepted_once_it_stops) {
    uint32_t number;
    MACHINE(0);
    BEGIN(1, 0);
    klaw_supervision_shutdown(machine, t);
    GIVES(klaw_supervision_add(machine, NULL, &number), KLAW_STOPPED);
    GIVES(klaw_supervision_stop_child(machine, 0, t), KLAW_STOPPED);
    GIVES(klaw_supervision_restart_child(machine, 0, t), KLAW_STOPPED);
    GIVES(klaw_supervision_begin(machine, t), KLAW_EXISTS);
    SAYS("-0");
    ends(0, KLAW_OK);
    SAYS("done:OK");
    OK(klaw_supervision_remove(machine, 0));
    SAYS("x0");
    machine_free();
}

PLAIN(shutdown_in_the_middle_of_a_beginning) {
    MACHINE(0);
    CHILD(0), CHILD(0), CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    runs(0);
    SAYS("+1");
    klaw_supervision_shutdown(machine, t);
    SAYS("-1"); /* though it has not answered yet */
    no_start(1);
    SAYS("-0");
    ends(0, KLAW_OK);
    SAYS("done:OK");
    machine_free();
}

PLAIN(shutdown_in_the_middle_of_every_part_of_a_restart) {
    for (int part = 0; part < 4; part++) {
        MACHINE(.strategy = KLAW_ONE_FOR_ALL,
                .backoff = {.jitter = KLAW_JITTER_NONE, .base = KLAW_MS(10)});
        BEGIN(3, 0);
        fails(0);
        SAYS("f0:1:SYSTEM -2");
        if (part == 0)
            klaw_supervision_shutdown(machine, t);
        SAYS("");
        ends(2, KLAW_OK);
        SAYS("-1");
        if (part == 1)
            klaw_supervision_shutdown(machine, t);
        SAYS("");
        ends(1, KLAW_OK);
        SAYS(part < 2 ? "done:OK" : "");
        if (part == 2) {
            klaw_supervision_shutdown(machine, t);
            SAYS("done:OK");
        } else if (part == 3) {
            t += KLAW_MS(10);
            SAYS("+0");
            runs(0);
            SAYS("r0:1 +1");
            klaw_supervision_shutdown(machine, t);
            SAYS("-1");
            ends(1, KLAW_OK);
            SAYS("-0");
            ends(0, KLAW_OK);
            SAYS("done:OK");
        }
        machine_free();
    }
}

PLAIN(shutdown_in_the_middle_of_a_backoff) {
    MACHINE(0);
    BEGIN(2, 0);
    OK(klaw_supervision_exited(machine, 1, KLAW_SYSTEM, t, UINT64_MAX));
    SAYS("f1:1:SYSTEM");
    STATE(1, BACKOFF);
    klaw_supervision_shutdown(machine, t);
    SAYS("-0");
    STATE(1, STOPPED);
    ends(0, KLAW_OK);
    SAYS("done:OK");
    machine_free();
}

PLAIN(start_that_was_not_told_yet_is_taken_back) {
    MACHINE(.no_backoff = true);
    BEGIN(3, 0);
    fails(0);
    fails(1);
    klaw_supervision_shutdown(machine, t);
    SAYS("f0:1:SYSTEM f1:1:SYSTEM -2");
    ends(2, KLAW_OK);
    SAYS("done:OK");
    machine_free();
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(1, 0);
    CHILD(0), CHILD(NEVER);
    OK(klaw_supervision_stop_child(machine, 1, t));
    fails(0);
    SAYS("x2 f0:1:SYSTEM +0");
    runs(0);
    SAYS("r0:1 +1"); /* STOPPED, and started with its group */
    machine_free();
}

PLAIN(group_takes_back_a_start_and_gives_it_its_turn) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(1, 0);
    CHILD(0);
    fails(0);
    SAYS("f0:1:SYSTEM +0");
    runs(0);
    SAYS("r0:1 +1");
    no_start(1); /* it was added and has never run: removed */
    SAYS("f1:1:SYSTEM x1");
    machine_free();
}

/* --- shutdown times --- */

PLAIN(child_that_does_not_stop_in_its_time_is_killed) {
    MACHINE(0);
    BEGIN(2, .shutdown = 100);
    klaw_supervision_shutdown(machine, t);
    SAYS("-1");
    STATE(1, STOPPING);
    SAME(klaw_supervision_due(machine), t + 100);
    t += 99;
    SAYS("");
    t += 1;
    SAYS("!1");
    STATE(1, KILLING);
    SAME(klaw_supervision_due(machine), INT64_MAX);
    ends(1, KLAW_SYSTEM);
    SAYS("-0");
    t += 5000;
    SAYS("!0");
    OK(klaw_supervision_abandoned(machine, 0, t)); /* can't be ended: goes on */
    SAYS("done:OK");
    GIVES(klaw_supervision_exited(machine, 0, KLAW_OK, t, 0), KLAW_INVALID);
    machine_free();
}

PLAIN(shutdown_times_default_kill_and_for_ever) {
    MACHINE(0);
    CHILD(0), CHILD(.shutdown = KLAW_SHUTDOWN_KILL), CHILD(.shutdown = KLAW_SHUTDOWN_FOREVER);
    OK(klaw_supervision_begin(machine, t));
    for (uint32_t i = 0; i < 3; i++) {
        (void)said();
        runs(i);
    }
    SAYS("begun");
    klaw_supervision_shutdown(machine, t);
    SAYS("-2");
    SAME(klaw_supervision_due(machine), INT64_MAX);
    ends(2, KLAW_OK);
    SAYS("!1");
    ends(1, KLAW_OK);
    SAYS("-0");
    SAME(klaw_supervision_due(machine), t + KLAW_S(5));
    ends(0, KLAW_OK);
    SAYS("done:OK");
    machine_free();
}

PLAIN(abandoned_child_of_a_group_is_started_anew) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(2, .shutdown = KLAW_SHUTDOWN_KILL);
    fails(0);
    SAYS("f0:1:SYSTEM !1");
    OK(klaw_supervision_abandoned(machine, 1, t));
    SAYS("+0");
    runs(0);
    SAYS("r0:1 +1");
    machine_free();
}

PLAIN(kill_time_that_passed_before_stop_was_told_kills) {
    MACHINE(0);
    BEGIN(1, .shutdown = 10);
    OK(klaw_supervision_stop_child(machine, 0, t));
    t += 10;
    SAYS("!0");
    ends(0, KLAW_OK);
    machine_free();
}

/* --- requests --- */

PLAIN(stopped_child_keeps_its_place_until_restarted_or_removed) {
    MACHINE(0);
    BEGIN(3, ALWAYS);
    OK(klaw_supervision_stop_child(machine, 1, t));
    SAYS("-1");
    OK(klaw_supervision_stop_child(machine, 1, t));
    GIVES(klaw_supervision_restart_child(machine, 1, t), KLAW_EXISTS);
    GIVES(klaw_supervision_remove(machine, 1), KLAW_EXISTS);
    fails(1);
    SAYS("");
    STATE(1, STOPPED);
    OK(klaw_supervision_stop_child(machine, 1, t));
    OK(klaw_supervision_restart_child(machine, 1, t));
    SAYS("+1");
    runs(1);
    SAYS(""); /* asked for: no restart to report */
    SAME(klaw_supervision_restarts(machine, 1), 0);
    OK(klaw_supervision_stop_child(machine, 1, t));
    SAYS("-1");
    ends(1, KLAW_OK);
    SAYS("");
    OK(klaw_supervision_remove(machine, 1));
    SAYS("x1");
    GIVES(klaw_supervision_remove(machine, 1), KLAW_NOT_FOUND);
    GIVES(klaw_supervision_stop_child(machine, 1, t), KLAW_NOT_FOUND);
    GIVES(klaw_supervision_restart_child(machine, 9, t), KLAW_NOT_FOUND);
    SAME(klaw_supervision_restarts(machine, 1), 0);
    STATE(1, STOPPED);
    klaw_supervision_shutdown(machine, t);
    SAYS("-2");
    machine_free();
}

PLAIN(requests_before_the_beginning) {
    MACHINE(0);
    CHILD(0), CHILD(0);
    GIVES(klaw_supervision_restart_child(machine, 0, t), KLAW_INVALID);
    OK(klaw_supervision_stop_child(machine, 0, t));
    OK(klaw_supervision_remove(machine, 0));
    SAYS("x0");
    OK(klaw_supervision_begin(machine, t));
    SAYS("+1");
    machine_free();
}

PLAIN(requested_start_that_fails_leaves_the_child_stopped) {
    MACHINE(.max_restarts = KLAW_NONE);
    BEGIN(1, 0);
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("-0");
    ends(0, KLAW_OK);
    for (int i = 0; i < 3; i++) {
        OK(klaw_supervision_restart_child(machine, 0, t));
        SAYS("+0");
        no_start(0);
        SAYS("f0:1:SYSTEM");
        STATE(0, STOPPED);
    }
    machine_free();
}

PLAIN(added_child_starts_at_once_and_is_removed_if_it_cannot) {
    MACHINE(0);
    BEGIN(1, 0);
    SAME(CHILD(0), 1);
    SAME(CHILD(0), 2);
    SAYS("+1 +2"); /* not waiting for each other */
    no_start(1);
    SAYS("f1:1:SYSTEM x1");
    runs(2);
    SAYS("");
    fails(2);
    SAYS("f2:1:SYSTEM +2"); /* jitter 0 */
    machine_free();
}

PLAIN(child_added_during_a_round_starts_in_its_turn) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(2, 0);
    fails(0);
    SAYS("f0:1:SYSTEM -1");
    SAME(CHILD(0), 2);
    STATE(2, BACKOFF);
    SAYS("");
    ends(1, KLAW_OK);
    SAYS("+0");
    SAME(CHILD(0), 3);
    runs(0);
    SAYS("r0:1 +1");
    runs(1);
    SAYS("r1:0 +2");
    runs(2);
    SAYS("+3");
    runs(3);
    SAYS("");
    machine_free();
}

PLAIN(child_added_when_the_round_is_at_its_end_starts_too) {
    MACHINE(0);
    OK(klaw_supervision_begin(machine, t)); /* nobody's turn, and not looked at yet */
    SAME(CHILD(0), 0);
    SAYS("+0");
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("-0 begun");
    machine_free();
}

PLAIN(child_stopped_during_a_round_is_left_out) {
    MACHINE(.strategy = KLAW_ONE_FOR_ALL, .no_backoff = true);
    BEGIN(4, 0);
    fails(3);
    SAYS("f3:1:SYSTEM -2");
    OK(klaw_supervision_stop_child(machine, 0, t)); /* runs */
    OK(klaw_supervision_stop_child(machine, 2, t)); /* being stopped */
    OK(klaw_supervision_stop_child(machine, 3, t)); /* waits */
    SAYS("-0");
    ends(0, KLAW_OK);
    ends(2, KLAW_OK);
    SAYS("-1");
    OK(klaw_supervision_restart_child(machine, 2, t)); /* and comes back in its turn */
    SAYS("");
    ends(1, KLAW_OK);
    SAYS("+1");
    OK(klaw_supervision_restart_child(machine, 3, t));
    OK(klaw_supervision_restart_child(machine, 0, t)); /* its turn is over: at once */
    SAYS("+0");
    runs(1);
    SAYS("r1:0 +2");
    runs(2);
    SAYS("+3");
    runs(3);
    SAYS("");
    machine_free();
}

PLAIN(removed_children_do_not_confuse_a_round) {
    MACHINE(0);
    for (int i = 0; i < 4; i++)
        CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("-0 +1"); /* 0 is on its way out, nobody waits for it */
    runs(1);
    OK(klaw_supervision_stop_child(machine, 2, t));
    OK(klaw_supervision_remove(machine, 2));
    SAYS("x2 +3");
    OK(klaw_supervision_stop_child(machine, 3, t));
    SAYS("-3 begun");
    no_start(3);
    OK(klaw_supervision_remove(machine, 3));
    no_start(0);
    OK(klaw_supervision_remove(machine, 0));
    SAYS("x3 x0");
    klaw_supervision_shutdown(machine, t);
    SAYS("-1");
    machine_free();
}

PLAIN(cursor_of_a_round_moves_on_when_its_child_goes) {
    MACHINE(.strategy = KLAW_REST_FOR_ONE, .backoff = {.jitter = KLAW_JITTER_NONE});
    BEGIN(3, 0);
    ends(1, KLAW_OK);
    fails(2);
    SAYS("f2:1:SYSTEM"); /* waits; the round would go on with 1, then 0 */
    OK(klaw_supervision_remove(machine, 1));
    fails(0);
    SAYS("x1 f0:1:SYSTEM");
    t += KLAW_MS(100);
    SAYS("+0");
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("-0 +2");
    machine_free();
    MACHINE(.strategy = KLAW_DYNAMIC);
    BEGIN(0, 0);
    CHILD(0);
    SAYS("+0");
    machine_free();
}

/* --- significant children --- */

PLAIN(any_significant_child_that_ends_shuts_down) {
    MACHINE(.auto_shutdown = KLAW_SHUTDOWN_ANY_SIGNIFICANT, .no_backoff = true);
    CHILD(0), CHILD(.significant = true), CHILD(.significant = true, NEVER);
    OK(klaw_supervision_begin(machine, t));
    for (uint32_t i = 0; i < 3; i++) {
        (void)said();
        runs(i);
    }
    SAYS("begun");
    ends(0, KLAW_OK); /* not significant */
    fails(1);         /* restarted */
    SAYS("f1:1:SYSTEM +1");
    runs(1);
    SAYS("r1:1");
    ends(1, KLAW_OK);
    SAYS("-2");
    ends(2, KLAW_OK);
    SAYS("x2 done:OK");
    machine_free();
}

PLAIN(all_significant_children_have_to_end) {
    MACHINE(.auto_shutdown = KLAW_SHUTDOWN_ALL_SIGNIFICANT);
    CHILD(0), CHILD(.significant = true), CHILD(.significant = true, NEVER);
    CHILD(.significant = true);
    OK(klaw_supervision_begin(machine, t));
    for (uint32_t i = 0; i < 4; i++) {
        (void)said();
        runs(i);
    }
    SAYS("begun");
    fails(2);
    SAYS("f2:1:SYSTEM x2");
    OK(klaw_supervision_stop_child(machine, 3, t)); /* by request: does not end it, nor hold it */
    SAYS("-3");
    ends(3, KLAW_OK);
    SAYS("");
    OK(klaw_supervision_exited(machine, 1, KLAW_SYSTEM, t, UINT64_MAX));
    SAYS("f1:1:SYSTEM"); /* will run again */
    t += KLAW_MS(100);
    SAYS("+1");
    runs(1);
    SAYS("r1:1");
    ends(1, KLAW_OK);
    SAYS("-0");
    ends(0, KLAW_OK);
    SAYS("done:OK");
    machine_free();
}

PLAIN(significant_child_stopped_by_request_ends_nothing) {
    MACHINE(.auto_shutdown = KLAW_SHUTDOWN_ANY_SIGNIFICANT);
    BEGIN(2, .significant = true);
    OK(klaw_supervision_stop_child(machine, 1, t));
    SAYS("-1");
    ends(1, KLAW_OK);
    SAYS("");
    STATE(0, RUNNING);
    machine_free();
}

/* --- dynamic children --- */

PLAIN(dynamic_children_are_each_for_themselves) {
    MACHINE(.strategy = KLAW_DYNAMIC, .no_backoff = true);
    CHILD(0), CHILD(ALWAYS), CHILD(0);
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0 +1 +2 begun");
    no_start(2); /* no end of the machine */
    SAYS("f2:1:SYSTEM x2");
    runs(0);
    runs(1);
    fails(0);
    SAYS("f0:1:SYSTEM +0");
    runs(0);
    SAYS("r0:1");
    ends(0, KLAW_OK);
    SAYS("x0"); /* ended for good: removed */
    OK(klaw_supervision_stop_child(machine, 1, t));
    SAYS("-1");
    GIVES(klaw_supervision_remove(machine, 1), KLAW_EXISTS);
    ends(1, KLAW_OK);
    SAYS("x1");
    SAME(klaw_supervision_count(machine), 0);
    machine_free();
}

PLAIN(dynamic_children_stop_all_at_once) {
    MACHINE(.strategy = KLAW_DYNAMIC, .max_restarts = KLAW_NONE);
    OK(klaw_supervision_begin(machine, t));
    for (int i = 0; i < 4; i++)
        CHILD(.shutdown = 10);
    SAYS("+0 +1 +2 +3 begun");
    runs(0);
    runs(1);
    runs(2);
    fails(1);
    SAYS("f1:1:SYSTEM g1:1 x1 -0 -2 -3");
    ends(2, KLAW_OK);
    SAYS("x2");
    t += 10;
    SAYS("!0 !3");
    ends(3, KLAW_OK);
    ends(0, KLAW_OK);
    SAYS("x3 x0 done:LIMIT");
    machine_free();
}

PLAIN(dynamic_child_in_backoff_can_be_stopped) {
    MACHINE(.strategy = KLAW_DYNAMIC);
    OK(klaw_supervision_begin(machine, t));
    CHILD(0), CHILD(0);
    SAYS("+0 +1 begun");
    runs(0), runs(1);
    OK(klaw_supervision_exited(machine, 0, KLAW_SYSTEM, t, UINT64_MAX));
    OK(klaw_supervision_exited(machine, 1, KLAW_SYSTEM, t, UINT64_MAX));
    SAYS("f0:1:SYSTEM f1:1:SYSTEM");
    OK(klaw_supervision_stop_child(machine, 0, t));
    SAYS("x0");
    klaw_supervision_shutdown(machine, t);
    SAYS("x1 done:OK");
    machine_free();
}

/* --- events that do not fit --- */

PLAIN(events_that_do_not_fit_are_refused_and_change_nothing) {
    MACHINE(0);
    CHILD(.shutdown = KLAW_SHUTDOWN_KILL);
    for (uint32_t c = 0; c < 3; c++) { /* not begun, and children that are none */
        GIVES(klaw_supervision_started(machine, c, t), KLAW_INVALID);
        GIVES(klaw_supervision_start_failed(machine, c, KLAW_SYSTEM, t, 0), KLAW_INVALID);
        GIVES(klaw_supervision_exited(machine, c, KLAW_OK, t, 0), KLAW_INVALID);
        GIVES(klaw_supervision_abandoned(machine, c, t), KLAW_INVALID);
    }
    OK(klaw_supervision_begin(machine, t));
    SAYS("+0");
    GIVES(klaw_supervision_exited(machine, 0, KLAW_OK, t, 0), KLAW_INVALID);
    GIVES(klaw_supervision_abandoned(machine, 0, t), KLAW_INVALID);
    GIVES(klaw_supervision_start_failed(machine, 0, KLAW_OK, t, 0), KLAW_INVALID);
    runs(0);
    SAYS("begun");
    GIVES(klaw_supervision_started(machine, 0, t), KLAW_INVALID);
    GIVES(klaw_supervision_start_failed(machine, 0, KLAW_SYSTEM, t, 0), KLAW_INVALID);
    uint32_t added = CHILD(0); /* START has not been told */
    GIVES(klaw_supervision_started(machine, added, t), KLAW_INVALID);
    GIVES(klaw_supervision_start_failed(machine, added, KLAW_SYSTEM, t, 0), KLAW_INVALID);
    OK(klaw_supervision_stop_child(machine, 0, t));
    GIVES(klaw_supervision_abandoned(machine, 0, t), KLAW_INVALID); /* nor KILL */
    SAYS("+1 !0");
    OK(klaw_supervision_abandoned(machine, 0, t));
    SAYS("");
    machine_free();
}

/* --- many children --- */

static int64_t cpu(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The time for n children to begin, fail as a group, be killed after their time, and end. */
static int64_t life_of(uint32_t n, klaw_strategy strategy) {
    int64_t begin = cpu();
    uint32_t stops = 0, kills = 0;
    bool failed = false, done = false;
    MACHINE(.strategy = strategy, .no_backoff = true);
    for (uint32_t i = 0; i < n; i++)
        CHILD(.shutdown = 10);
    OK(klaw_supervision_begin(machine, t));
    while (!done) {
        klaw_supervision_action a = klaw_supervision_next(machine, t);
        switch (a.verb) {
        case KLAW_SUP_START: runs(a.child); break;
        case KLAW_SUP_STOP: stops++; break;
        case KLAW_SUP_KILL:
            kills++;
            ends(a.child, KLAW_OK);
            break;
        case KLAW_SUP_DONE: done = true; break;
        case KLAW_SUP_NOTHING:
            if (!failed) {
                failed = true;
                fails(n / 2);
            } else if (klaw_supervision_due(machine) != INT64_MAX) {
                t = klaw_supervision_due(machine);
            } else {
                klaw_supervision_shutdown(machine, t);
            }
            break;
        default: break;
        }
    }
    SAME(stops, kills);
    CHECK(kills >= n);
    machine_free();
    return cpu() - begin;
}

PLAIN(ten_thousand_children_stop_in_proportional_time) {
    const klaw_strategy kinds[] = {KLAW_ONE_FOR_ALL, KLAW_REST_FOR_ONE, KLAW_DYNAMIC};
    for (int i = 0; i < 3; i++) {
        (void)life_of(10000, kinds[i]); /* warm */
        int64_t few = life_of(10000, kinds[i]), many = life_of(100000, kinds[i]);
        printf("strategy %d: 10 000 children %.1f ms, 100 000 %.1f ms\n", (int)kinds[i],
               (double)few / 1e6, (double)many / 1e6);
        /* Ten times as much; a quadratic one takes a hundred times. */
        CHECK(many < few * 40 + KLAW_MS(50));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(shutdown_stops_right_to_left_one_at_a_time),
        TEST(shutdown_before_the_beginning_is_done_at_once),
        TEST(nothing_is_accepted_once_it_stops),
        TEST(shutdown_in_the_middle_of_a_beginning),
        TEST(shutdown_in_the_middle_of_every_part_of_a_restart),
        TEST(shutdown_in_the_middle_of_a_backoff),
        TEST(start_that_was_not_told_yet_is_taken_back),
        TEST(group_takes_back_a_start_and_gives_it_its_turn),
        TEST(child_that_does_not_stop_in_its_time_is_killed),
        TEST(shutdown_times_default_kill_and_for_ever),
        TEST(abandoned_child_of_a_group_is_started_anew),
        TEST(kill_time_that_passed_before_stop_was_told_kills),
        TEST(stopped_child_keeps_its_place_until_restarted_or_removed),
        TEST(requests_before_the_beginning),
        TEST(requested_start_that_fails_leaves_the_child_stopped),
        TEST(added_child_starts_at_once_and_is_removed_if_it_cannot),
        TEST(child_added_during_a_round_starts_in_its_turn),
        TEST(child_added_when_the_round_is_at_its_end_starts_too),
        TEST(child_stopped_during_a_round_is_left_out),
        TEST(removed_children_do_not_confuse_a_round),
        TEST(cursor_of_a_round_moves_on_when_its_child_goes),
        TEST(any_significant_child_that_ends_shuts_down),
        TEST(all_significant_children_have_to_end),
        TEST(significant_child_stopped_by_request_ends_nothing),
        TEST(dynamic_children_are_each_for_themselves),
        TEST(dynamic_children_stop_all_at_once),
        TEST(dynamic_child_in_backoff_can_be_stopped),
        TEST(events_that_do_not_fit_are_refused_and_change_nothing),
        TEST(ten_thousand_children_stop_in_proportional_time),
    };
    return cmocka_run_group_tests_name("supervision_stop", tests, NULL, NULL);
}
