/* SPDX-License-Identifier: Apache-2.0 */
/* test_bonds.c - monitors, links, watches, and incarnations under outside control.
 *
 * Tried with these bugs seeded: a monitor that fires at a restart, a link that fires at a normal end,
 * a demonitor that leaves what has fired, a watch that keeps its actor alive. */
#include "actor/actor.h"
#include "support/actors.h"

RUNS(a_monitor_tells_the_end_once, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .name = "watcher"), *b = DOER(&e, .no_backoff = true);
    uint64_t id = asks(a, MONITOR, 0, b), id2 = asks(a, MONITOR, 0, b);
    CHECK(id && id2 && id != id2);
    tell(b, FAIL, KLAW_LIMIT, NULL); /* a restart is not the end */
    (void)asks(b, ADD, 1, NULL);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.downs, 0);
    ends(b, KLAW_OK);
    UNTIL(d.downs == 2);
    SAME(d.last_down_reason, KLAW_OK);
    CHECK(d.last_down_id == id || d.last_down_id == id2);
    SAME(asks(a, DEMONITOR, id, NULL), KLAW_NOT_FOUND);
    ends(a, KLAW_OK);
    SAME(d.downs, 2);
}

RUNS(monitoring_a_dead_actor_tells_at_once, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .name = "watcher"), *b = DOER(&e, .restart = KLAW_RESTART_NEVER);
    tell(b, FAIL, KLAW_CORRUPT, NULL);
    GIVES(why_of(b), KLAW_CORRUPT);
    uint64_t id = asks(a, MONITOR, 0, b);
    UNTIL(d.downs == 1);
    SAME(d.last_down_id, id);
    SAME(d.last_down_reason, KLAW_CORRUPT);
    klaw_actor_unref(b);
    ends(a, KLAW_OK);
}

RUNS(a_monitor_can_be_ended, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .name = "watcher"), *b = DOER(&e, .name = NULL);
    uint64_t id = asks(a, MONITOR, 0, b);
    SAME(asks(a, DEMONITOR, id, NULL), KLAW_OK);
    SAME(asks(a, DEMONITOR, id, NULL), KLAW_NOT_FOUND);
    ends(b, KLAW_OK);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.downs, 0);
    ends(a, KLAW_OK);
}

typedef struct rivals {
    klaw_actor *b;
    uint64_t id;
} rivals;
static rivals rival;
/* The end of b is in our system list when we look again, but we are in a handler. */
static klaw_err demonitors_late(klaw_self *self, doer_state *s) {
    (void)s;
    klaw_actor_stop(rival.b);
    OK(klaw_actor_join(rival.b, KLAW_FOREVER, NULL));
    GIVES(klaw_self_demonitor(self, rival.id), KLAW_OK);
    return KLAW_OK;
}
static deed_fn do_demonitors_late = demonitors_late;

RUNS(what_a_demonitor_finds_fired_is_not_told, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .name = "watcher");
    rival.b = DOER(&e, .name = NULL);
    rival.id = asks(a, MONITOR, 0, rival.b);
    (void)asks(a, CALL, 0, &do_demonitors_late);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.downs, 0);
    klaw_actor_unref(rival.b);
    ends(a, KLAW_OK);
}

RUNS(monitors_end_with_their_incarnation, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true), *b = DOER(&e, .name = NULL);
    (void)asks(a, MONITOR, 0, b);
    tell(a, FAIL, KLAW_LIMIT, NULL);
    (void)asks(a, ADD, 1, NULL);
    ends(b, KLAW_OK);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.downs, 0);
    ends(a, KLAW_OK);
}

RUNS(a_link_takes_the_other_one_down, 1) {
    diary d = {0}, e = {0};
    for (int side = 0; side < 2; side++) {
        klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER),
                   *b = DOER(&e, .restart = KLAW_RESTART_NEVER);
        SAME(asks(a, LINK, 0, b), KLAW_OK);
        SAME(asks(a, LINK, 0, b), KLAW_OK);
        SAME(asks(a, LINK, 0, a), KLAW_OK);
        tell(side ? a : b, FAIL, KLAW_CORRUPT, NULL);
        GIVES(why_of(a), KLAW_CORRUPT);
        GIVES(why_of(b), KLAW_CORRUPT);
        SAME(actor_stats(side ? b : a).failed, 1);
        klaw_actor_unref(a);
        klaw_actor_unref(b);
    }
}

RUNS(a_normal_end_just_removes_the_link, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER), *b = DOER(&e, .name = NULL);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    ends(b, KLAW_OK);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.downs, 0);
    ends(a, KLAW_OK);
}

RUNS(a_kill_counts_as_a_failure_for_links, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER), *b = DOER(&e, .name = NULL);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    klaw_actor_kill(b);
    GIVES(why_of(a), KLAW_CANCELLED);
    GIVES(why_of(b), KLAW_CANCELLED);
    klaw_actor_unref(a);
    klaw_actor_unref(b);
}

RUNS(unlinking_and_a_dead_partner, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER),
               *b = DOER(&e, .restart = KLAW_RESTART_NEVER);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    SAME(asks(b, UNLINK, 0, a), KLAW_OK); /* either side may */
    SAME(asks(a, UNLINK, 0, b), KLAW_NOT_FOUND);
    tell(b, FAIL, KLAW_LIMIT, NULL);
    GIVES(why_of(b), KLAW_LIMIT);
    SAME(asks(a, LINK, 0, b), KLAW_STOPPED);
    klaw_actor_unref(b);
    ends(a, KLAW_OK);
}

RUNS(trapping_turns_exits_into_news, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER), *b = DOER(&e, .no_backoff = true);
    (void)asks(a, TRAP, 1, NULL);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    tell(b, FAIL, KLAW_LIMIT, NULL); /* links fire for each incarnation */
    UNTIL(d.downs == 1);
    SAME(d.last_down_reason, KLAW_LIMIT);
    SAME(d.last_down_id, 0);
    (void)asks(b, ADD, 1, NULL);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    ends(b, KLAW_OK);
    UNTIL(d.downs == 2);
    SAME(d.last_down_reason, KLAW_OK);
    ends(a, KLAW_OK);
}

RUNS(linked_actors_restart_together, 1) {
    diary d = {0}, e = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true), *b = DOER(&e, .no_backoff = true);
    SAME(asks(a, LINK, 0, b), KLAW_OK);
    tell(b, FAIL, KLAW_LIMIT, NULL);
    UNTIL(d.starts == 2 && e.starts == 2);
    tell(b, FAIL, KLAW_LIMIT, NULL); /* the link is used up */
    UNTIL(e.starts == 3);
    (void)asks(a, ADD, 1, NULL);
    SAME(d.starts, 2);
    ends(a, KLAW_OK);
    ends(b, KLAW_OK);
}

RUNS(a_watch_tells_hosts_that_are_no_actors, 2) {
    diary d = {0};
    klaw_receiver *rx, *ry, *rz;
    klaw_down n;
    klaw_actor *a = DOER(&d, .name = "watched", .restart = KLAW_RESTART_NEVER);
    GIVES(klaw_actor_watch(NULL, &rx), KLAW_INVALID);
    GIVES(klaw_actor_watch(a, NULL), KLAW_INVALID);
    OK(klaw_actor_watch(a, &rx));
    OK(klaw_actor_watch(a, &ry));
    klaw_receiver_unref(ry); /* ends the watch */
    GIVES(klaw_recv(rx, &n, KLAW_NOWAIT), KLAW_EMPTY);
    tell(a, FAIL, KLAW_EXISTS, NULL);
    OK(klaw_recv(rx, &n, KLAW_WITHIN(CHECK_PATIENCE)));
    SAME(n.reason, KLAW_EXISTS);
    CHECK(n.actor == a && strcmp(n.name, "watched") == 0);
    klaw_down_type.drop(&n);
    GIVES(klaw_recv(rx, &n, KLAW_FOREVER), KLAW_CLOSED);
    klaw_receiver_unref(rx);
    GIVES(why_of(a), KLAW_EXISTS);
    OK(klaw_actor_watch(a, &rz)); /* one that has ended */
    OK(klaw_recv(rz, &n, KLAW_NOWAIT));
    SAME(n.reason, KLAW_EXISTS);
    klaw_down_type.drop(&n);
    klaw_receiver_unref(rz);
    OK(klaw_actor_watch(a, &rz)); /* never received */
    klaw_receiver_unref(rz);
    klaw_actor_unref(a);
}

/* --- outside control --- */

typedef struct boss {
    _Atomic int started, failed, exited, gone;
    _Atomic klaw_err error;
    _Atomic uint64_t incarnation;
    klaw_actor *a;
} boss;

static void on_event(void *user, klaw_actor *a, uint64_t incarnation, enum klawi_actor_event ev,
                     klaw_err error) {
    boss *b = user;
    (void)a;
    atomic_store(&b->incarnation, incarnation);
    if (ev != KLAWI_ACTOR_STARTED)
        atomic_store(&b->error, error);
    atomic_fetch_add(ev == KLAWI_ACTOR_STARTED        ? &b->started
                     : ev == KLAWI_ACTOR_START_FAILED ? &b->failed
                     : ev == KLAWI_ACTOR_GONE         ? &b->gone
                                                      : &b->exited,
                     1);
}

RUNS(a_supervisor_decides_over_incarnations, 1) {
    diary d = {0};
    boss b = {0};
    klawi_actor_control c = {on_event, &b};
    klaw_actor *a;
    klaw_actor_opts o = {.release = diary_release};
    OK(klawi_actor_new(&doer_behavior, &d, &o, &c, &a));
    tell(a, ADD, 1, NULL); /* the mailbox is there before the first incarnation */
    OK(klawi_actor_start(a, NULL));
    GIVES(klawi_actor_start(a, NULL), KLAW_EXISTS);
    UNTIL(b.started == 1);
    SAME(asks(a, ADD, 0, NULL), 1);
    tell(a, FAIL, KLAW_CORRUPT, NULL);
    tell(a, ADD, 3, NULL);
    UNTIL(b.exited == 1);
    SAME(b.error, KLAW_CORRUPT);
    CHECK(klaw_actor_alive(a));
    OK(klawi_actor_start(a, NULL));
    SAME(asks(a, ADD, 0, NULL), 3);
    SAME(b.incarnation, 2);
    klawi_actor_halt(a);
    UNTIL(b.exited == 2);
    SAME(b.error, KLAW_OK);
    tell(a, ADD, 4, NULL); /* open meanwhile */
    OK(klawi_actor_start(a, NULL));
    SAME(asks(a, ADD, 0, NULL), 4);
    klaw_actor_kill(a);
    UNTIL(b.exited == 3);
    SAME(b.error, KLAW_CANCELLED);
    atomic_store(&d.start_fails, 1);
    OK(klawi_actor_start(a, NULL));
    UNTIL(b.failed == 1);
    SAME(b.error, KLAW_LIMIT);
    OK(klawi_actor_start(a, NULL));
    klaw_actor_stop(a);
    UNTIL(b.exited == 4);
    SAME(b.error, KLAW_OK);
    GIVES(klaw_actor_join(a, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    klawi_actor_finish(a, KLAW_TIMEOUT);
    GIVES(why_of(a), KLAW_TIMEOUT);
    GIVES(klawi_actor_start(a, NULL), KLAW_STOPPED);
    SAME(d.released, 1);
    klaw_actor_unref(a);
    nothing_lost();
}

static _Atomic bool stubborn_ends;
static klaw_err stubborn(klaw_self *self, doer_state *s) {
    (void)s;
    while (!atomic_load(&stubborn_ends)) /* no cancel point that it heeds */
        if (klaw_yield() != KLAW_OK)
            continue;
    klaw_promise *p = NULL;
    GIVES(klaw_self_after(self, KLAW_MS(1), 1), KLAW_STOPPED);
    GIVES(klaw_self_monitor(self, klaw_self_actor(self), NULL), KLAW_STOPPED);
    GIVES(klaw_self_link(self, klaw_self_actor(self)), KLAW_OK);
    OK(klaw_self_defer(self, &p));
    CHECK(!klaw_promise_wanted(p));
    klaw_promise_drop(p);
    klaw_self_stop(self);
    return KLAW_OK;
}
static deed_fn do_stubborn = stubborn;
static klaw_err asks_stubborn(void *arg) {
    return ask_until(arg, CALL, 1, &do_stubborn, NULL, KLAW_FOREVER);
}

RUNS(an_incarnation_that_cannot_be_ended_is_given_up, 1) {
    diary d = {0};
    boss b = {0};
    klawi_actor_control c = {on_event, &b};
    klaw_actor *a, *other = DOER(&d, .restart = KLAW_RESTART_NEVER);
    atomic_store(&stubborn_ends, false);
    OK(klawi_actor_new(&doer_behavior, &d, NULL, &c, &a));
    CHECK(!klawi_actor_abandon(a, KLAW_TIMEOUT));
    OK(klawi_actor_start(a, NULL));
    (void)asks(a, EVERY, KLAW_MS(1), NULL);
    (void)asks(a, MONITOR, 0, other);
    SAME(asks(other, LINK, 0, a), KLAW_OK);
    attempt *t = attempts(asks_stubborn, a);
    UNTIL(d.handled == 4);
    klaw_actor_kill(a);
    for (int i = 0; i < 5; i++)
        OK(klaw_yield());
    SAME(b.exited, 0);
    CHECK(klawi_actor_abandon(a, KLAW_TIMEOUT));
    GIVES(outcome(t), KLAW_TIMEOUT);
    GIVES(why_of(other), KLAW_TIMEOUT); /* by the link */
    OK(klawi_actor_start(a, NULL));
    SAME(asks(a, ADD, 1, NULL), 1);
    atomic_store(&stubborn_ends, true);
    UNTIL(b.gone == 1);
    SAME(asks(a, ADD, 1, NULL), 2);
    klaw_actor_stop(a);
    UNTIL(b.exited == 1);
    klawi_actor_finish(a, KLAW_OK);
    klaw_actor_unref(other);
    klaw_actor_unref(a);
    nothing_lost();
}

/* --- its checkpoints --- */

static _Atomic int late_saves, save_answer;
static klaw_err count_save(void *user, const char *key, const void *bytes, size_t size) {
    (void)user;
    (void)key;
    (void)bytes;
    (void)size;
    atomic_fetch_add(&late_saves, 1);
    return KLAW_OK;
}
static klaw_err nothing_kept(void *user, const char *key, klaw_blob **out) {
    (void)user;
    (void)key;
    (void)out;
    return KLAW_NOT_FOUND;
}
static klaw_err saves_late(klaw_self *self, doer_state *s) {
    (void)s;
    while (!atomic_load(&stubborn_ends))
        if (klaw_yield() != KLAW_OK)
            continue;
    atomic_store(&save_answer, (int)klaw_self_checkpoint(self));
    return KLAW_OK;
}
static deed_fn do_saves_late = saves_late;
static klaw_err asks_saves_late(void *arg) {
    return ask_until(arg, CALL, 0, &do_saves_late, NULL, KLAW_FOREVER);
}

RUNS(an_incarnation_that_was_given_up_saves_nothing_over_its_successors_checkpoint, 1) {
    diary d = {0};
    boss b = {0};
    klawi_actor_control c = {on_event, &b};
    static klaw_checkpointer counter = {NULL, count_save, nothing_kept};
    klaw_actor *a;
    klaw_actor_opts o = {.checkpointer = &counter, .checkpoint_interval = KLAW_NONE};
    atomic_store(&stubborn_ends, false);
    atomic_store(&late_saves, 0);
    OK(klawi_actor_new(&doer_behavior, &d, &o, &c, &a));
    OK(klawi_actor_start(a, NULL));
    attempt *t = attempts(asks_saves_late, a);
    UNTIL(d.handled == 1);
    klaw_actor_kill(a);
    CHECK(klawi_actor_abandon(a, KLAW_TIMEOUT));
    GIVES(outcome(t), KLAW_TIMEOUT);
    OK(klawi_actor_start(a, NULL));
    SAME(asks(a, ADD, 1, NULL), 1);
    atomic_store(&stubborn_ends, true);
    UNTIL(b.gone == 1);
    GIVES((klaw_err)save_answer, KLAW_STOPPED);
    SAME(late_saves, 0);
    klaw_actor_stop(a);
    UNTIL(b.exited == 1);
    SAME(late_saves, 1);
    klawi_actor_finish(a, KLAW_OK);
    klaw_actor_unref(a);
    nothing_lost();
}

static void count_actor(klaw_actor *a, void *user) {
    (void)a;
    ++*(int *)user;
}

RUNS(live_actors_can_be_walked, 1) {
    diary d = {0};
    int n = 0;
    klaw_actor *a = DOER(&d, .name = NULL), *b = DOER(&d, .name = NULL);
    klawi_actors_each(count_actor, &n);
    SAME(n, 2);
    ends(a, KLAW_OK);
    n = 0;
    klawi_actors_each(count_actor, &n);
    SAME(n, 1);
    UNTIL(actor_stats(b).state == KLAW_ACTOR_IDLE);
    CHECK(strcmp(klaw_actor_state_name(KLAW_ACTOR_IDLE), "idle") == 0);
    CHECK(strcmp(klaw_actor_state_name((klaw_actor_state)99), "?") == 0);
    ends(b, KLAW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_monitor_tells_the_end_once),
        TEST(monitoring_a_dead_actor_tells_at_once),
        TEST(a_monitor_can_be_ended),
        TEST(what_a_demonitor_finds_fired_is_not_told),
        TEST(monitors_end_with_their_incarnation),
        TEST(a_link_takes_the_other_one_down),
        TEST(a_normal_end_just_removes_the_link),
        TEST(a_kill_counts_as_a_failure_for_links),
        TEST(unlinking_and_a_dead_partner),
        TEST(trapping_turns_exits_into_news),
        TEST(linked_actors_restart_together),
        TEST(a_watch_tells_hosts_that_are_no_actors),
        TEST(a_supervisor_decides_over_incarnations),
        TEST(an_incarnation_that_cannot_be_ended_is_given_up),
        TEST(an_incarnation_that_was_given_up_saves_nothing_over_its_successors_checkpoint),
        TEST(live_actors_can_be_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
