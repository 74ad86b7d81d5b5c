/* SPDX-License-Identifier: Apache-2.0 */
/* test_restart.c - incarnations: what survives a restart, who is told, when it is over.
 *
 * Tried with these bugs seeded: a restart that keeps the old state, one that drops the mailbox, a
 * timer that outlives its incarnation, hooks that are not called. */
#include "support/actors.h"

RUNS(a_restart_keeps_the_mailbox_and_zeroes_the_state, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .no_backoff = true);
    (void)asks(a, ADD, 7, NULL);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 2);
    tell(a, FAIL, KLAW_LIMIT, NULL);
    tell(a, ADD, 5, NULL);
    gate_open(&g);
    SAME(asks(a, ADD, 0, NULL), 5);
    SAME(d.starts, 2);
    SAME(d.failures, 1);
    SAME(d.restarts, 1);
    SAME(d.stops, 1);
    klaw_actor_stats s = actor_stats(a);
    SAME(s.incarnation, 2);
    SAME(s.restarts, 1);
    SAME(s.failed, 1);
    ends(a, KLAW_OK);
    SAME(d.released, 1);
    gate_free(&g);
    nothing_lost();
}

RUNS(one_failure_too_many_ends_it, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true, .max_restarts = 2);
    for (int i = 0; i < 3; i++)
        GIVES(ask_until(a, FAIL, KLAW_CORRUPT, NULL, NULL, KLAW_FOREVER), KLAW_CORRUPT);
    GIVES(why_of(a), KLAW_CORRUPT);
    SAME(d.starts, 3);
    SAME(d.failures, 3);
    SAME(d.restarts, 2);
    SAME(d.gave_up, 1);
    klaw_actor_unref(a);
    nothing_lost();
}

RUNS(no_restarts_means_none, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .max_restarts = KLAW_NONE);
    tell(a, FAIL, KLAW_LIMIT, NULL);
    GIVES(why_of(a), KLAW_LIMIT);
    SAME(d.starts, 1);
    SAME(d.gave_up, 1);
    klaw_actor_unref(a);
}

RUNS(an_always_actor_comes_back_after_a_normal_end, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true, .restart = KLAW_RESTART_ALWAYS);
    tell(a, STOP, 0, NULL);
    UNTIL(d.starts == 2);
    while (tell_until(a, ADD, 1, NULL, KLAW_FOREVER) == KLAW_STOPPED)
        OK(klaw_yield());
    SAME(asks(a, ADD, 0, NULL), 1);
    SAME(d.failures, 0);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(the_first_start_that_fails_ends_it, 1) {
    diary d = {.start_fails = 1};
    klaw_actor *a = DOER(&d, .no_backoff = true);
    GIVES(why_of(a), KLAW_LIMIT);
    SAME(d.starts, 1);
    SAME(d.stops, 0);
    klaw_actor_unref(a);
}

RUNS(a_later_start_that_fails_is_tried_again, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true, .max_restarts = 3);
    (void)asks(a, ADD, 1, NULL);
    atomic_store(&d.start_fails, 2);
    tell(a, FAIL, KLAW_CORRUPT, NULL);
    SAME(asks(a, ADD, 1, NULL), 1);
    SAME(d.starts, 4);
    SAME(d.failures, 3);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(messages_wait_while_it_backs_off, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .backoff = {.kind = KLAW_BACKOFF_CONSTANT,
                                         .jitter = KLAW_JITTER_NONE,
                                         .base = KLAW_MS(20)});
    tell(a, FAIL, KLAW_LIMIT, NULL);
    UNTIL(actor_stats(a).state == KLAW_ACTOR_BACKOFF && d.failures == 1);
    tell(a, ADD, 1, NULL);
    SAME(d.starts, 1);
    SAME(asks(a, ADD, 1, NULL), 2);
    SAME(d.starts, 2);
    ends(a, KLAW_OK);
    nothing_lost();
}

static klaw_err asks_one(void *arg) {
    return ask_until(arg, ADD, 1, NULL, NULL, KLAW_FOREVER);
}

RUNS(stop_and_kill_end_a_backoff, 1) {
    for (int kill = 0; kill < 2; kill++) {
        diary d = {0};
        klaw_actor *a = DOER(&d, .backoff = {.kind = KLAW_BACKOFF_CONSTANT,
                                             .jitter = KLAW_JITTER_NONE,
                                             .base = KLAW_S(3600),
                                             .max_delay = KLAW_NONE});
        tell(a, FAIL, KLAW_LIMIT, NULL);
        UNTIL(actor_stats(a).state == KLAW_ACTOR_BACKOFF && d.failures == 1);
        tell(a, ADD, 1, NULL);
        attempt *t = attempts(asks_one, a);
        UNTIL(actor_stats(a).waiting_asks == 1);
        if (kill)
            klaw_actor_kill(a);
        else
            klaw_actor_stop(a);
        GIVES(outcome(t), KLAW_STOPPED);
        GIVES(why_of(a), KLAW_LIMIT);
        SAME(d.starts, 1);
        klaw_actor_unref(a);
        nothing_lost();
    }
}

static klaw_err defers(void *arg) {
    void **p = arg;
    return ask_until(p[0], DEFER, 0, p[1], NULL, KLAW_FOREVER);
}

RUNS(a_failure_breaks_promises, 1) {
    diary d = {0};
    _Atomic(klaw_promise *) p = NULL;
    klaw_actor *a = DOER(&d, .no_backoff = true);
    void *arg[2] = {a, (void *)&p};
    attempt *t = attempts(defers, arg);
    UNTIL(p);
    tell(a, FAIL, KLAW_CORRUPT, NULL);
    GIVES(outcome(t), KLAW_CORRUPT);
    CHECK(!klaw_promise_wanted(p));
    (void)asks(a, ADD, 1, NULL);
    klaw_promise_drop(p);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(timers_fire_once_again_and_again_or_not, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true);
    (void)asks(a, AFTER, KLAW_MS(1), NULL);
    UNTIL(d.timers == 1);
    SAME(d.last_timer, 7);
    SAME(asks(a, CANCEL, 0, NULL), KLAW_NOT_FOUND);
    (void)asks(a, EVERY, KLAW_MS(1), NULL);
    UNTIL(d.timers >= 4);
    SAME(asks(a, CANCEL, 0, NULL), KLAW_OK);
    uint64_t n = d.timers;
    (void)asks(a, AFTER, KLAW_S(3600), NULL);
    (void)asks(a, AFTER, KLAW_MS(1), NULL); /* replaces it */
    UNTIL(d.timers == n + 1);
    SAME(asks(a, CANCEL, 0, NULL), KLAW_NOT_FOUND);
    ends(a, KLAW_OK);
    nothing_lost();
}

RUNS(timers_end_with_their_incarnation, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true);
    (void)asks(a, AFTER, KLAW_MS(2), NULL);
    (void)asks(a, EVERY, KLAW_MS(2), NULL); /* the same id: replaced */
    tell(a, FAIL, KLAW_LIMIT, NULL);
    (void)asks(a, ADD, 1, NULL);
    uint64_t n = d.timers;
    OK(klaw_sleep(klaw_after(KLAW_MS(10))));
    SAME(d.timers, n);
    ends(a, KLAW_OK);
}

static klaw_err no_such_timer(klaw_self *self, doer_state *s) {
    (void)s;
    GIVES(klaw_self_after(self, 0, 1), KLAW_INVALID);
    GIVES(klaw_self_every(self, -1, 1), KLAW_INVALID);
    GIVES(klaw_self_cancel_timer(self, 1), KLAW_NOT_FOUND);
    GIVES(klaw_self_checkpoint(self), KLAW_INVALID);
    GIVES(klaw_self_refuse(self, KLAW_OK), KLAW_INVALID);
    GIVES(klaw_self_monitor(self, NULL, NULL), KLAW_INVALID);
    GIVES(klaw_self_link(self, NULL), KLAW_INVALID);
    GIVES(klaw_self_demonitor(self, 12345), KLAW_NOT_FOUND);
    GIVES(klaw_self_unlink(self, klaw_self_actor(self)), KLAW_NOT_FOUND);
    return KLAW_OK;
}
static deed_fn do_no_such_timer = no_such_timer;

RUNS(bad_arguments_of_callbacks_are_refused, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .restart = KLAW_RESTART_NEVER);
    (void)asks(a, CALL, 0, &do_no_such_timer);
    ends(a, KLAW_OK);
}

/* --- checkpoints --- */

typedef struct shelf {
    pthread_mutex_t lock;
    uint64_t value;
    _Atomic int saves, loads;
    _Atomic klaw_err save_answers, load_answers;
    bool there;
} shelf;

static klaw_err shelf_save(void *user, const char *key, const void *bytes, size_t size) {
    shelf *s = user;
    CHECK(strcmp(key, "shelf") == 0 && size == 8);
    atomic_fetch_add(&s->saves, 1);
    if (s->save_answers)
        return s->save_answers;
    pthread_mutex_lock(&s->lock);
    memcpy(&s->value, bytes, 8);
    s->there = true;
    pthread_mutex_unlock(&s->lock);
    return KLAW_OK;
}
static klaw_err shelf_load(void *user, const char *key, klaw_blob **out) {
    shelf *s = user;
    CHECK(strcmp(key, "shelf") == 0);
    atomic_fetch_add(&s->loads, 1);
    if (s->load_answers)
        return s->load_answers;
    pthread_mutex_lock(&s->lock);
    klaw_err e = s->there ? klaw_blob_new(&s->value, 8, out) : KLAW_NOT_FOUND;
    pthread_mutex_unlock(&s->lock);
    return e;
}
#define SHELF(name)                                   \
    shelf name = {.lock = PTHREAD_MUTEX_INITIALIZER}; \
    klaw_checkpointer name##_c = {&name, shelf_save, shelf_load}

RUNS(a_stop_saves_and_a_start_restores, 1) {
    diary d = {0};
    SHELF(s);
    klaw_actor *a = DOER(&d, .name = "shelf", .checkpointer = &s_c);
    (void)asks(a, ADD, 42, NULL);
    SAME(s.saves, 0);
    ends(a, KLAW_OK);
    SAME(s.saves, 1);
    SAME(s.value, 42);
    a = DOER(&d, .name = "other", .checkpointer = &s_c, .checkpoint_key = "shelf");
    SAME(asks(a, ADD, 1, NULL), 43);
    SAME(d.restored, 1);
    SAME(asks(a, SAVE, 0, NULL), KLAW_OK);
    SAME(s.value, 43);
    klaw_actor_kill(a);
    GIVES(why_of(a), KLAW_CANCELLED);
    SAME(s.saves, 2);
    klaw_actor_unref(a);
}

RUNS(a_restart_goes_back_to_the_last_checkpoint, 1) {
    diary d = {0};
    SHELF(s);
    klaw_actor *a = DOER(&d, .name = "shelf", .checkpointer = &s_c, .no_backoff = true,
                         .checkpoint_interval = KLAW_MS(1));
    (void)asks(a, ADD, 5, NULL);
    int n = s.saves;
    UNTIL(s.saves >= n + 2);
    tell(a, FAIL, KLAW_LIMIT, NULL);
    SAME(asks(a, ADD, 1, NULL), 6);
    ends(a, KLAW_OK);
}

RUNS(a_cancelled_scope_saves_what_is_whole, 1) {
    diary d = {0};
    SHELF(s);
    klaw_scope *house = SCOPE(.name = "house");
    klaw_actor *a =
        DOER(&d, .name = "shelf", .checkpointer = &s_c, .checkpoint_interval = KLAW_NONE);
    (void)asks(a, ADD, 5, NULL);
    klaw_scope_cancel(house, NULL);
    GIVES(klaw_scope_close(house), KLAW_CANCELLED);
    SAME(s.value, 5);
    klaw_actor_unref(a);
}

RUNS(a_save_that_fails_is_reported_and_the_actor_goes_on, 1) {
    diary d = {0};
    SHELF(s);
    klaw_actor *a = DOER(&d, .name = "shelf", .checkpointer = &s_c);
    s.save_answers = KLAW_SYSTEM;
    SAME(asks(a, SAVE, 0, NULL), KLAW_SYSTEM);
    SAME(asks(a, SAVE, 0, NULL), KLAW_SYSTEM);
    SAME(d.bad_saves, 2);
    SAME(d.last_attempt, 2);
    (void)asks(a, ADD, 1, NULL);
    ends(a, KLAW_OK);
    SAME(d.bad_saves, 3);
}

RUNS(a_checkpoint_that_cannot_be_read_fails_the_start, 1) {
    diary d = {0};
    SHELF(s);
    s.load_answers = KLAW_CORRUPT;
    klaw_actor *a = DOER(&d, .name = "shelf", .checkpointer = &s_c);
    GIVES(why_of(a), KLAW_CORRUPT);
    SAME(s.saves, 0);
    SAME(d.stops, 1); /* start() was OK: what it built is freed */
    klaw_actor_unref(a);
}

RUNS(checkpoints_need_snapshot_and_restore, 1) {
    diary d = {0};
    SHELF(s);
    klaw_behavior b = doer_behavior;
    b.snapshot = NULL;
    klaw_actor_opts o = {.checkpointer = &s_c};
    GIVES(klaw_actor_spawn(&b, &d, &o, NULL), KLAW_INVALID);
    o.checkpoint_key = "";
    GIVES(klaw_actor_spawn(&doer_behavior, &d, &o, NULL), KLAW_INVALID);
    o.checkpoint_key = NULL;
    o.checkpoint_interval = -2;
    GIVES(klaw_actor_spawn(&doer_behavior, &d, &o, NULL), KLAW_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_restart_keeps_the_mailbox_and_zeroes_the_state),
        TEST(one_failure_too_many_ends_it),
        TEST(no_restarts_means_none),
        TEST(an_always_actor_comes_back_after_a_normal_end),
        TEST(the_first_start_that_fails_ends_it),
        TEST(a_later_start_that_fails_is_tried_again),
        TEST(messages_wait_while_it_backs_off),
        TEST(stop_and_kill_end_a_backoff),
        TEST(a_failure_breaks_promises),
        TEST(timers_fire_once_again_and_again_or_not),
        TEST(timers_end_with_their_incarnation),
        TEST(bad_arguments_of_callbacks_are_refused),
        TEST(a_stop_saves_and_a_start_restores),
        TEST(a_restart_goes_back_to_the_last_checkpoint),
        TEST(a_cancelled_scope_saves_what_is_whole),
        TEST(a_save_that_fails_is_reported_and_the_actor_goes_on),
        TEST(a_checkpoint_that_cannot_be_read_fails_the_start),
        TEST(checkpoints_need_snapshot_and_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
