/* SPDX-License-Identifier: Apache-2.0 */
/* test_actor.c - spawning, sending, asking, stopping, killing, joining.
 *
 * Tried with these bugs seeded: a stop that does not drain, a reply that is moved to an asker that has
 * left, a full mailbox that takes one more, a message that is not dropped after handle. */
#include "support/actors.h"

RUNS(spawn_refuses_bad_arguments, 1) {
    klaw_actor *a = NULL;
    klaw_behavior b = doer_behavior;
    diary d = {0};
    GIVES(klaw_actor_spawn(NULL, &d, NULL, &a), KLAW_INVALID);
    b.message = NULL;
    GIVES(klaw_actor_spawn(&b, &d, NULL, &a), KLAW_INVALID);
    b = doer_behavior;
    b.handle = NULL;
    GIVES(klaw_actor_spawn(&b, &d, NULL, &a), KLAW_INVALID);
    b = doer_behavior;
    GIVES(klaw_actor_spawn(&b, &d, &(klaw_actor_opts){.capacity = KLAW_RENDEZVOUS}, &a),
          KLAW_INVALID);
    GIVES(klaw_actor_spawn(&b, &d, &(klaw_actor_opts){.max_restarts = -2}, &a), KLAW_INVALID);
    GIVES(klaw_actor_spawn(&b, &d, &(klaw_actor_opts){.restart = (klaw_restart)9}, &a),
          KLAW_INVALID);
    GIVES(klaw_actor_spawn(&b, &d, &(klaw_actor_opts){.capacity = KLAW_CAPACITY_MAX + 1}, &a),
          KLAW_LIMIT);
    klaw_type huge = order_type;
    huge.size = KLAW_ELEM_MAX + 1;
    b.message = &huge;
    GIVES(klaw_actor_spawn(&b, &d, NULL, &a), KLAW_LIMIT);
    CHECK(!a);
    SAME(d.starts, 0);
}

PLAIN(spawn_without_a_runtime_is_stopped) {
    klaw_actor *a = NULL;
    diary d = {0};
    klaw_actor_opts o = {.release = diary_release};
    GIVES(klaw_actor_spawn(&doer_behavior, &d, &o, &a), KLAW_STOPPED);
    CHECK(!a);
    SAME(d.released, 0);
}

RUNS(messages_are_handled_in_order_and_dropped, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .name = "adder");
    CHECK(strcmp(klaw_actor_name(a), "adder") == 0);
    CHECK(klaw_actor_behavior(a) == &doer_behavior);
    CHECK(klaw_actor_id(a) != 0);
    for (uint64_t i = 1; i <= 100; i++)
        tell(a, ADD, i, NULL);
    SAME(asks(a, ADD, 0, NULL), 5050);
    SAME(actor_stats(a).handled, 101);
    SAME(actor_stats(a).incarnation, 1);
    ends(a, KLAW_OK);
    SAME(d.starts, 1);
    SAME(d.stops, 1);
    SAME(d.released, 1);
    SAME(d.last_why, KLAW_OK);
    nothing_lost();
}

static klaw_err asks_much(void *arg) {
    for (int i = 0; i < 500; i++)
        (void)asks(arg, ADD, 1, NULL);
    return KLAW_OK;
}

RUNS(many_askers_each_get_their_answer, 2) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .capacity = 2);
    attempt *f[8];
    thread_job t[2];
    for (int i = 0; i < 8; i++)
        f[i] = attempts(asks_much, a);
    for (int i = 0; i < 2; i++)
        thread_start(&t[i], asks_much, a);
    for (int i = 0; i < 8; i++)
        OK(outcome(f[i]));
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
    SAME(asks(a, ADD, 0, NULL), 5000);
    CHECK(actor_stats(a).high_watermark <= 2);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(asks_that_cannot_work_are_invalid, 1) {
    diary d = {0};
    klaw_behavior mute = doer_behavior;
    klaw_actor *a = NULL, *b = DOER(&d, .name = NULL);
    order o = {ADD, 0, NULL, NULL};
    answer r;
    mute.reply = NULL;
    OK(klaw_actor_spawn(&mute, &d, NULL, &a));
    GIVES(klaw_actor_ask(a, &o, &r, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_actor_ask(b, &o, &r, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_actor_ask(b, &o, &r, 1), KLAW_TIMEOUT);
    GIVES(klaw_actor_ask(b, NULL, &r, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_actor_ask(NULL, &o, &r, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_actor_send(NULL, &o, KLAW_FOREVER), KLAW_INVALID);
    ends(a, KLAW_OK);
    ends(b, KLAW_OK);
}

static klaw_err asks_itself(klaw_self *self, doer_state *s) {
    (void)s;
    GIVES(ask_until(klaw_self_actor(self), ADD, 1, NULL, NULL, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_actor_join(klaw_self_actor(self), KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_actor_join(klaw_self_actor(self), KLAW_NOWAIT, NULL), KLAW_INVALID);
    for (int i = 0; i < 3; i++)
        OK(tell_until(klaw_self_actor(self), ADD, 1, NULL, KLAW_FOREVER));
    return tell_until(klaw_self_actor(self), ADD, 1, NULL, KLAW_FOREVER) == KLAW_FULL
               ? KLAW_OK
               : KLAW_CORRUPT;
}
static deed_fn do_asks_itself = asks_itself;

RUNS(an_actor_never_waits_for_itself, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .capacity = 3);
    (void)asks(a, CALL, 0, &do_asks_itself);
    SAME(asks(a, ADD, 0, NULL), 3);
    ends(a, KLAW_OK);
    nothing_lost();
}

static klaw_err tells_one(void *arg) {
    return tell_until(arg, ADD, 1, NULL, KLAW_FOREVER);
}

RUNS(a_full_mailbox_lets_senders_wait_to_their_deadline, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .capacity = 2);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 1);
    tell(a, ADD, 1, NULL);
    tell(a, ADD, 1, NULL);
    GIVES(tell_until(a, ADD, 1, NULL, KLAW_NOWAIT), KLAW_FULL);
    GIVES(tell_until(a, ADD, 1, NULL, 1), KLAW_TIMEOUT);
    GIVES(tell_until(a, ADD, 1, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    GIVES(ask_until(a, ADD, 1, NULL, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    attempt *f[3], *late = attempts(parks, NULL);
    for (int i = 0; i < 3; i++)
        f[i] = attempts(tells_one, a);
    UNTIL(actor_stats(a).waiting_senders == 3);
    SAME(actor_stats(a).mailbox_size, 2);
    klaw_fiber_cancel(f[1]->f);
    GIVES(outcome(f[1]), KLAW_CANCELLED);
    gate_open(&g);
    OK(outcome(f[0]));
    OK(outcome(f[2]));
    SAME(asks(a, ADD, 0, NULL), 4);
    SAME(actor_stats(a).high_watermark, 2);
    klaw_fiber_cancel(late->f);
    GIVES(outcome(late), KLAW_CANCELLED);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

static klaw_err asks_one(void *arg) {
    return ask_until(arg, ADD, 1, NULL, NULL, KLAW_FOREVER);
}

RUNS(askers_wait_for_room_too, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .capacity = 1);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 1);
    tell(a, ADD, 1, NULL);
    attempt *f[4];
    for (int i = 0; i < 4; i++)
        f[i] = attempts(i % 2 ? tells_one : asks_one, a);
    UNTIL(actor_stats(a).waiting_senders == 4);
    gate_open(&g);
    for (int i = 0; i < 4; i++)
        OK(outcome(f[i]));
    SAME(asks(a, ADD, 0, NULL), 5);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

RUNS(an_expired_request_is_not_started, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .name = NULL);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 1);
    GIVES(ask_until(a, ADD, 100, NULL, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    attempt *f = attempts(asks_one, a);
    UNTIL(actor_stats(a).waiting_asks == 1 + 1); /* the one that left still lies there */
    klaw_fiber_cancel(f->f);
    GIVES(outcome(f), KLAW_CANCELLED);
    gate_open(&g);
    SAME(asks(a, ADD, 1, NULL), 1);
    SAME(actor_stats(a).expired, 2);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

RUNS(a_late_answer_is_dropped, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .name = NULL);
    GIVES(ask_until(a, WAIT, 5, &g, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    gate_open(&g);
    SAME(asks(a, ADD, 1, NULL), 1);
    SAME(atomic_load(&answers_live), 0);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

RUNS(a_failure_answers_its_asker_and_ends_the_actor, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    GIVES(ask_until(a, FAIL, KLAW_CORRUPT, NULL, NULL, KLAW_FOREVER), KLAW_CORRUPT);
    GIVES(why_of(a), KLAW_CORRUPT);
    GIVES(tell_until(a, ADD, 1, NULL, KLAW_FOREVER), KLAW_STOPPED);
    GIVES(ask_until(a, ADD, 1, NULL, NULL, KLAW_FOREVER), KLAW_STOPPED);
    SAME(actor_stats(a).state, KLAW_ACTOR_ENDED);
    SAME(actor_stats(a).reason, KLAW_CORRUPT);
    SAME(actor_stats(a).failed, 1);
    SAME(d.failures, 1);
    SAME(d.last_why, KLAW_CORRUPT);
    klaw_actor_unref(a);
    nothing_lost();
}

RUNS(refusing_answers_without_failing, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    GIVES(ask_until(a, REFUSE, KLAW_NOT_FOUND, NULL, NULL, KLAW_FOREVER), KLAW_NOT_FOUND);
    SAME(asks(a, ADD, 1, NULL), 1);
    /* Refusing a send, or with OK, is INVALID, which here makes it fail. */
    tell(a, REFUSE, KLAW_NOT_FOUND, NULL);
    GIVES(why_of(a), KLAW_INVALID);
    klaw_actor_unref(a);
    nothing_lost();
}

RUNS(stop_drains_the_mailbox, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .capacity = 3);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 1);
    for (int i = 0; i < 3; i++)
        tell(a, ADD, 1, NULL);
    attempt *f = attempts(tells_one, a), *q = attempts(asks_one, a);
    UNTIL(actor_stats(a).waiting_senders == 2);
    klaw_actor_stop(a);
    klaw_actor_stop(a);
    GIVES(outcome(f), KLAW_STOPPED);
    GIVES(outcome(q), KLAW_STOPPED);
    GIVES(tell_until(a, ADD, 1, NULL, KLAW_FOREVER), KLAW_STOPPED);
    SAME(actor_stats(a).state, KLAW_ACTOR_STOPPING);
    GIVES(klaw_actor_join(a, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    GIVES(klaw_actor_join(a, KLAW_WITHIN(KLAW_MS(1)), NULL), KLAW_TIMEOUT);
    gate_open(&g);
    GIVES(why_of(a), KLAW_OK);
    SAME(d.handled, 4);
    SAME(d.released, 1);
    OK(klaw_actor_join(a, KLAW_NOWAIT, NULL));
    klaw_actor_unref(a);
    gate_free(&g);
    nothing_lost();
}

RUNS(self_stop_handles_what_is_there_and_ends, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_ON_FAILURE);
    tell(a, STOP, 0, NULL);
    tell(a, ADD, 1, NULL);
    GIVES(why_of(a), KLAW_OK);
    SAME(d.handled, 2);
    SAME(d.starts, 1);
    klaw_actor_unref(a);
    nothing_lost();
}

static klaw_err waits_at(void *arg) {
    void **p = arg;
    return ask_until(p[0], WAIT, 1, p[1], NULL, KLAW_FOREVER);
}

RUNS(kill_ends_it_in_the_middle_and_releases_askers, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_ALWAYS);
    void *p[2] = {a, &g};
    attempt *f = attempts(waits_at, p);
    UNTIL(d.handled == 1);
    attempt *q = attempts(asks_one, a);
    UNTIL(actor_stats(a).waiting_asks == 2);
    tell(a, ADD, 1, NULL);
    klaw_actor_kill(a);
    klaw_actor_kill(a);
    GIVES(outcome(f), KLAW_STOPPED);
    GIVES(outcome(q), KLAW_STOPPED);
    GIVES(why_of(a), KLAW_CANCELLED);
    SAME(d.handled, 1);
    SAME(d.starts, 1);
    SAME(d.failures, 0);
    SAME(d.last_why, KLAW_CANCELLED);
    klaw_actor_unref(a);
    gate_free(&g);
    nothing_lost();
}

RUNS(kill_before_the_first_start_and_at_rest, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .name = NULL);
    klaw_actor_kill(a);
    GIVES(why_of(a), KLAW_CANCELLED);
    klaw_actor_unref(a);
    a = DOER(&d, .name = NULL);
    (void)asks(a, ADD, 1, NULL);
    klaw_actor_kill(a);
    GIVES(why_of(a), KLAW_CANCELLED);
    klaw_actor_stop(a);
    klaw_actor_kill(a);
    klaw_actor_unref(a);
    nothing_lost();
}

RUNS(a_cancelled_scope_ends_its_actors, 2) {
    diary d = {0};
    klaw_scope *s = SCOPE(.name = "house");
    klaw_actor *a = DOER(&d, .name = NULL), *b = DOER(&d, .name = NULL);
    (void)asks(a, ADD, 1, NULL);
    klaw_scope_cancel(s, "over");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(why_of(a), KLAW_CANCELLED);
    GIVES(why_of(b), KLAW_CANCELLED);
    klaw_actor_unref(a);
    klaw_actor_unref(b);
    nothing_lost();
}

RUNS(a_scope_waits_for_its_actors_and_takes_no_error_of_theirs, 1) {
    diary d = {0};
    klaw_scope *s = SCOPE(.cancel_on_error = true);
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    tell(a, FAIL, KLAW_LIMIT, NULL);
    OK(klaw_scope_close(s));
    GIVES(why_of(a), KLAW_LIMIT);
    klaw_actor_unref(a);
}

RUNS(a_cancelled_asker_does_not_move_its_message, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .name = NULL);
    klaw_scope *s = SCOPE(.name = "s");
    klaw_scope_cancel(s, NULL);
    GIVES(ask_until(a, ADD, 1, NULL, NULL, KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    SAME(asks(a, ADD, 0, NULL), 0);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(a_taken_message_is_not_dropped, 1) {
    diary d = {0};
    order mine = {0};
    klaw_actor *a = DOER(&d, .name = NULL);
    (void)asks(a, TAKE, 9, &mine);
    SAME(mine.n, 9);
    ends(a, KLAW_OK);
    SAME(atomic_load(&orders_live), 1);
    order_drop(&mine);
    nothing_lost();
}

RUNS(an_unbounded_mailbox_grows, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .capacity = KLAW_UNBOUNDED);
    tell(a, WAIT, 0, &g);
    for (int i = 0; i < 5000; i++)
        OK(tell_until(a, ADD, 1, NULL, KLAW_NOWAIT));
    gate_open(&g);
    SAME(asks(a, ADD, 0, NULL), 5000);
    SAME(actor_stats(a).capacity, (uint64_t)KLAW_UNBOUNDED);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

static klaw_err sees_context(klaw_self *self, doer_state *s) {
    const char *id = klaw_context_request_id(klaw_context_current());
    (void)self;
    (void)s;
    return id && strcmp(id, "r-1") == 0 ? KLAW_OK : KLAW_CORRUPT;
}
static deed_fn do_sees_context = sees_context;
static klaw_err sees_none(klaw_self *self, doer_state *s) {
    (void)self;
    (void)s;
    return klaw_context_current() ? KLAW_CORRUPT : KLAW_OK;
}
static deed_fn do_sees_none = sees_none;

RUNS(the_senders_context_travels_with_the_message, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER, .capacity = 1);
    klaw_context *c;
    klaw_context_token token;
    OK(klaw_context_with_request_id(NULL, "r-1", &c));
    OK(klaw_context_enter(c, &token));
    (void)asks(a, CALL, 0, &do_sees_context);
    for (int i = 0; i < 3; i++) /* handed over, in the ring, after a wait for room */
        tell(a, CALL, 0, &do_sees_context);
    klaw_context_leave(&token);
    (void)asks(a, CALL, 0, &do_sees_none);
    OK(klaw_context_enter(c, &token));
    tell(a, ADD, 0, NULL);
    klaw_context_leave(&token);
    klaw_context_unref(c);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(promises_are_answered_later_and_from_elsewhere, 1) {
    diary d = {0};
    _Atomic(klaw_promise *) p = NULL;
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    order o = order_of(DEFER, 0, &p);
    answer r;
    /* One that has left: the answer stays ours. */
    GIVES(klaw_actor_ask(a, &o, &r, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    CHECK(p && !klaw_promise_wanted(p));
    answer_make(&r, 4);
    GIVES(klaw_promise_answer(p, &r), KLAW_CLOSED);
    answer_drop(&r);
    ends(a, KLAW_OK);
    nothing_lost();
}

static klaw_err asks_to_defer(void *arg) {
    void **p = arg;
    uint64_t n = 0;
    klaw_err e = ask_until(p[0], DEFER, 0, p[1], &n, KLAW_FOREVER);
    return e ? e : n == 42 ? KLAW_OK : KLAW_CORRUPT;
}

RUNS(a_promise_answers_refuses_or_is_dropped, 1) {
    diary d = {0};
    _Atomic(klaw_promise *) p = NULL;
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    void *arg[2] = {a, (void *)&p};
    answer r;
    attempt *f = attempts(asks_to_defer, arg);
    UNTIL(p);
    SAME(asks(a, ADD, 1, NULL), 1); /* it goes on meanwhile */
    SAME(actor_stats(a).waiting_asks, 1);
    CHECK(klaw_promise_wanted(p));
    answer_make(&r, 42);
    OK(klaw_promise_answer(p, &r));
    OK(outcome(f));
    p = NULL;
    f = attempts(asks_to_defer, arg);
    UNTIL(p);
    klaw_promise_refuse(p, KLAW_EXISTS);
    GIVES(outcome(f), KLAW_EXISTS);
    p = NULL;
    f = attempts(asks_to_defer, arg);
    UNTIL(p);
    klaw_promise_drop(p);
    GIVES(outcome(f), KLAW_STOPPED);
    klaw_promise_drop(NULL);
    /* The end of the actor answers what it promised. */
    p = NULL;
    f = attempts(asks_to_defer, arg);
    UNTIL(p);
    ends(a, KLAW_OK);
    GIVES(outcome(f), KLAW_STOPPED);
    answer_make(&r, 42);
    GIVES(klaw_promise_answer(p, &r), KLAW_CLOSED);
    answer_drop(&r);
    nothing_lost();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(spawn_refuses_bad_arguments),
        TEST(spawn_without_a_runtime_is_stopped),
        TEST(messages_are_handled_in_order_and_dropped),
        TEST(many_askers_each_get_their_answer),
        TEST(asks_that_cannot_work_are_invalid),
        TEST(an_actor_never_waits_for_itself),
        TEST(a_full_mailbox_lets_senders_wait_to_their_deadline),
        TEST(askers_wait_for_room_too),
        TEST(an_expired_request_is_not_started),
        TEST(a_late_answer_is_dropped),
        TEST(a_failure_answers_its_asker_and_ends_the_actor),
        TEST(refusing_answers_without_failing),
        TEST(stop_drains_the_mailbox),
        TEST(self_stop_handles_what_is_there_and_ends),
        TEST(kill_ends_it_in_the_middle_and_releases_askers),
        TEST(kill_before_the_first_start_and_at_rest),
        TEST(a_cancelled_scope_ends_its_actors),
        TEST(a_scope_waits_for_its_actors_and_takes_no_error_of_theirs),
        TEST(a_cancelled_asker_does_not_move_its_message),
        TEST(a_taken_message_is_not_dropped),
        TEST(an_unbounded_mailbox_grows),
        TEST(the_senders_context_travels_with_the_message),
        TEST(promises_are_answered_later_and_from_elsewhere),
        TEST(a_promise_answers_refuses_or_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
