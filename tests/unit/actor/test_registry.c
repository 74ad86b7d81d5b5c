/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry.c - names and groups of actors.
 *
 * Tried with these bugs seeded: an ended actor keeps its name; a restart loses it; await looks once
 * and never waits; one of two who await is forgotten; members are waited for one after the other; a
 * copy that could not be sent is not dropped. */
#include "support/actors.h"

#include "actor/registry.h"

static klaw_actor *where(const char *name) {
    klaw_actor *a = NULL;
    OK(klaw_whereis(name, &a));
    klaw_actor_unref(a);
    return a;
}
static size_t members(const char *group) {
    size_t n = 9;
    klaw_err e = klaw_group_members(group, NULL, 0, &n);
    CHECK(e == KLAW_OK ? n > 0 : e == KLAW_NOT_FOUND && n == 0);
    return n;
}

RUNS(a_name_leads_to_its_actor, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, 0), *b = DOER(&d, 0), *got = NULL;
    GIVES(klaw_whereis("x", &got), KLAW_NOT_FOUND);
    CHECK(!got);
    OK(klaw_registry_register("x", a));
    OK(klaw_registry_register("y", a)); /* several names */
    OK(klaw_registry_register("\xc3\xa4 b", b));
    GIVES(klaw_registry_register("x", b), KLAW_EXISTS);
    GIVES(klaw_registry_register("x", a), KLAW_EXISTS);
    CHECK(where("x") == a && where("y") == a && where("\xc3\xa4 b") == b);
    OK(klaw_registry_unregister("x"));
    GIVES(klaw_registry_unregister("x"), KLAW_NOT_FOUND);
    GIVES(klaw_whereis("x", &got), KLAW_NOT_FOUND);
    CHECK(where("y") == a);
    OK(klaw_registry_register("x", b));
    CHECK(where("x") == b);
    ends(a, KLAW_OK);
    ends(b, KLAW_OK);
}

RUNS(wrong_names_are_refused, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, 0), *got = NULL;
    char name[KLAW_NAME_MAX + 2];
    size_t n = 0;
    static const char *const wrong[] = {NULL, "", "\xff", "a\xc3"};
    for (size_t i = 0; i < 4; i++) {
        GIVES(klaw_registry_register(wrong[i], a), KLAW_INVALID);
        GIVES(klaw_registry_unregister(wrong[i]), KLAW_INVALID);
        GIVES(klaw_whereis(wrong[i], &got), KLAW_INVALID);
        GIVES(klaw_registry_get(wrong[i], &order_type, &got), KLAW_INVALID);
        GIVES(klaw_registry_await(wrong[i], KLAW_FOREVER, &got), KLAW_INVALID);
        GIVES(klaw_group_join(wrong[i], a), KLAW_INVALID);
        GIVES(klaw_group_leave(wrong[i], a), KLAW_INVALID);
        GIVES(klaw_group_members(wrong[i], NULL, 0, &n), KLAW_INVALID);
        GIVES(klaw_group_send(wrong[i], &klaw_u64, &n, KLAW_NOWAIT, NULL), KLAW_INVALID);
    }
    GIVES(klaw_registry_register("x", NULL), KLAW_INVALID);
    GIVES(klaw_whereis("x", NULL), KLAW_INVALID);
    GIVES(klaw_registry_get("x", NULL, &got), KLAW_INVALID);
    GIVES(klaw_registry_await("x", KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_group_join("x", NULL), KLAW_INVALID);
    GIVES(klaw_group_leave("x", NULL), KLAW_INVALID);
    GIVES(klaw_group_members("x", NULL, 1, &n), KLAW_INVALID);
    GIVES(klaw_group_members("x", NULL, 0, NULL), KLAW_INVALID);
    GIVES(klaw_group_send("x", NULL, &n, KLAW_NOWAIT, NULL), KLAW_INVALID);
    GIVES(klaw_group_send("x", &klaw_u64, NULL, KLAW_NOWAIT, NULL), KLAW_INVALID);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    GIVES(klaw_registry_register(name, a), KLAW_LIMIT);
    GIVES(klaw_group_join(name, a), KLAW_LIMIT);
    name[sizeof name - 2] = '\0';
    OK(klaw_registry_register(name, a));
    CHECK(where(name) == a);
    ends(a, KLAW_OK);
}

RUNS(names_follow_restarts_and_go_with_the_end, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .no_backoff = true), *got = NULL;
    OK(klaw_registry_register("x", a));
    OK(klaw_group_join("g", a));
    GIVES(ask_until(a, FAIL, KLAW_TYPE, NULL, NULL, KLAW_FOREVER), KLAW_TYPE);
    SAME(asks(where("x"), ADD, 1, NULL), 1); /* the next incarnation */
    SAME(actor_stats(a).incarnation, 2);
    SAME(members("g"), 1);
    klaw_actor_stop(a);
    OK(why_of(a));
    GIVES(klaw_whereis("x", &got), KLAW_NOT_FOUND);
    SAME(members("g"), 0);
    GIVES(klaw_registry_register("x", a), KLAW_STOPPED);
    GIVES(klaw_group_join("g", a), KLAW_STOPPED);
    GIVES(klaw_whereis("x", &got), KLAW_NOT_FOUND);
    klaw_actor_unref(a);
    nothing_lost();
}

RUNS(the_name_is_free_when_the_end_is_told, 1) {
    diary d = {0};
    klaw_receiver *rx = NULL;
    klaw_down down;
    for (int i = 0; i < 50; i++) {
        klaw_actor *a = DOER(&d, 0);
        OK(klaw_registry_register("x", a));
        OK(klaw_actor_watch(a, &rx));
        klaw_actor_kill(a);
        OK(klaw_recv(rx, &down, KLAW_WITHIN(CHECK_PATIENCE)));
        GIVES(klaw_registry_unregister("x"), KLAW_NOT_FOUND);
        klaw_down_type.drop(&down);
        klaw_receiver_unref(rx);
        klaw_actor_unref(a);
    }
}

RUNS(the_registry_keeps_a_reference, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, 0), *b = NULL;
    OK(klaw_registry_register("x", a));
    klaw_actor_unref(a);
    OK(klaw_whereis("x", &b));
    CHECK(a == b);
    ends(b, KLAW_OK);
}

RUNS(get_looks_at_the_type, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, 0), *got = NULL;
    OK(klaw_registry_register("x", a));
    GIVES(klaw_registry_get("x", &klaw_u64, &got), KLAW_TYPE);
    CHECK(!got);
    GIVES(klaw_registry_get("y", &order_type, &got), KLAW_NOT_FOUND);
    OK(klaw_registry_get("x", &order_type, &got));
    CHECK(got == a);
    klaw_actor_unref(got);
    ends(a, KLAW_OK);
}

/* --- awaiting --- */
static _Atomic(klaw_actor *) found;
static klaw_err awaits(void *arg) {
    klaw_actor *a = NULL;
    klaw_err e = klaw_registry_await(arg, KLAW_WITHIN(CHECK_PATIENCE), &a);
    if (e == KLAW_OK) {
        klaw_actor *before = atomic_exchange(&found, a);
        CHECK(!before || before == a);
        klaw_actor_unref(a);
    }
    return e;
}

RUNS(await_waits_for_the_name, 2) {
    diary d = {0};
    klaw_actor *a = DOER(&d, 0), *got = NULL;
    attempt *t[5];
    found = NULL;
    GIVES(klaw_registry_await("x", KLAW_NOWAIT, &got), KLAW_NOT_FOUND);
    GIVES(klaw_registry_await("x", KLAW_WITHIN(KLAW_MS(1)), &got), KLAW_TIMEOUT);
    CHECK(!got);
    for (int i = 0; i < 5; i++)
        t[i] = attempts(awaits, "x");
    attempt *other = attempts(awaits, "y");
    UNTIL(klawi_registry_waiting() == 6);
    OK(klaw_registry_register("x", a));
    for (int i = 0; i < 5; i++)
        OK(outcome(t[i]));
    CHECK(found == a);
    SAME(klawi_registry_waiting(), 1);
    OK(klaw_registry_await("x", KLAW_NOWAIT, &got));
    klaw_actor_unref(got);
    OK(klaw_registry_await("x", 1, &got)); /* in the past, but no wait is needed */
    klaw_actor_unref(got);
    klaw_fiber_cancel(other->f);
    GIVES(outcome(other), KLAW_CANCELLED);
    SAME(klawi_registry_waiting(), 0);
    ends(a, KLAW_OK);
}

static void *awaits_on_a_thread(void *arg) {
    OK(awaits(arg));
    return NULL;
}

RUNS(a_thread_awaits, 2) {
    diary d = {0};
    pthread_t t;
    klaw_actor *a = DOER(&d, 0);
    found = NULL;
    SAME(pthread_create(&t, NULL, awaits_on_a_thread, "x"), 0);
    UNTIL(klawi_registry_waiting() == 1);
    OK(klaw_registry_register("x", a));
    SAME(pthread_join(t, NULL), 0);
    CHECK(found == a);
    ends(a, KLAW_OK);
}

/* --- groups --- */
static klaw_err sum_handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    *(uint64_t *)state += *(uint64_t *)message;
    if (reply)
        *(uint64_t *)reply = *(uint64_t *)state;
    return KLAW_OK;
}
static const klaw_behavior summer = {.name = "summer",
                                     .message = &klaw_u64,
                                     .reply = &klaw_u64,
                                     .state_size = 8,
                                     .handle = sum_handle};

static klaw_actor *new_summer(void) {
    klaw_actor *a = NULL;
    OK(klaw_actor_spawn(&summer, NULL, NULL, &a));
    return a;
}
static uint64_t sum_of(klaw_actor *a) {
    uint64_t v = 0;
    OK(klaw_actor_ask(a, &(uint64_t){0}, &v, KLAW_WITHIN(CHECK_PATIENCE)));
    return v;
}

RUNS(a_group_gets_every_message, 1) {
    enum { N = 100 }; /* more than fit on the stack */
    klaw_actor *a[N], *out[N];
    uint64_t seven = 7;
    size_t n = 0;
    GIVES(klaw_group_send("g", &klaw_u64, &seven, KLAW_FOREVER, &n), KLAW_NOT_FOUND);
    for (int i = 0; i < N; i++) {
        a[i] = new_summer();
        OK(klaw_group_join("g", a[i]));
        OK(klaw_group_send("g", &klaw_u64, &seven, KLAW_FOREVER, &n));
        SAME(n, i + 1);
    }
    GIVES(klaw_group_join("g", a[3]), KLAW_EXISTS);
    for (int i = 0; i < N; i++)
        SAME(sum_of(a[i]), 7 * (N - i));
    OK(klaw_group_members("g", out, 2, &n));
    SAME(n, N);
    CHECK(out[0] == a[0] && out[1] == a[1]); /* in the order of joining */
    klaw_actor_unref(out[0]);
    klaw_actor_unref(out[1]);
    OK(klaw_group_leave("g", a[0]));
    GIVES(klaw_group_leave("g", a[0]), KLAW_NOT_FOUND);
    GIVES(klaw_group_leave("h", a[0]), KLAW_NOT_FOUND);
    SAME(members("g"), N - 1);
    for (int i = 0; i < N; i++)
        ends(a[i], KLAW_OK);
    SAME(members("g"), 0);
}

RUNS(names_and_groups_do_not_know_each_other, 1) {
    klaw_actor *a = new_summer(), *b = new_summer(), *got = NULL;
    OK(klaw_registry_register("x", a));
    OK(klaw_group_join("x", b));
    CHECK(where("x") == a);
    OK(klaw_registry_unregister("x"));
    GIVES(klaw_whereis("x", &got), KLAW_NOT_FOUND);
    SAME(members("x"), 1);
    ends(a, KLAW_OK);
    ends(b, KLAW_OK);
}

RUNS(a_group_has_one_type, 1) {
    diary d = {0};
    klaw_actor *a = new_summer(), *b = DOER(&d, 0);
    uint64_t v = 1;
    size_t n = 9;
    OK(klaw_group_join("g", a));
    GIVES(klaw_group_join("g", b), KLAW_TYPE);
    GIVES(klaw_group_send("g", &klaw_ptr, &v, KLAW_FOREVER, &n), KLAW_TYPE);
    SAME(n, 0);
    /* A type that owns something needs a share. */
    OK(klaw_group_join("h", b));
    order o = order_of(ADD, 1, NULL);
    GIVES(klaw_group_send("h", &order_type, &o, KLAW_FOREVER, &n), KLAW_TYPE);
    order_drop(&o);
    ends(a, KLAW_OK);
    ends(b, KLAW_OK);
    nothing_lost();
}

/* Bytes that are shared. */
static klaw_err bytes_handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)reply;
    CHECK(klaw_blob_size(*(klaw_blob **)message) == 5);
    return KLAW_OK;
}
static klaw_err send_waits(void *arg) {
    size_t n = 0;
    klaw_err e = klaw_group_send("g", &klaw_bytes, arg, KLAW_WITHIN(CHECK_PATIENCE), &n);
    SAME(n, 3);
    return e;
}
static _Atomic int gate_open_;
static klaw_err bytes_wait(klaw_self *self, void *state, void *message, void *reply) {
    while (!atomic_load(&gate_open_))
        if (klaw_sleep(KLAW_WITHIN(KLAW_US(100))) != KLAW_OK)
            break;
    return bytes_handle(self, state, message, reply);
}
static const klaw_behavior reader = {
    .name = "reader", .message = &klaw_bytes, .handle = bytes_handle};
static const klaw_behavior slow_reader = {
    .name = "slow", .message = &klaw_bytes, .handle = bytes_wait};

RUNS(a_slow_member_delays_itself_alone, 1) {
    klaw_actor *fast[2], *slow = NULL;
    klaw_blob *b = NULL;
    size_t n = 0;
    atomic_store(&gate_open_, 0);
    klaw_actor_opts o = {.capacity = 1};
    OK(klaw_actor_spawn(&slow_reader, NULL, &o, &slow));
    OK(klaw_group_join("g", slow));
    for (int i = 0; i < 2; i++) {
        OK(klaw_actor_spawn(&reader, NULL, NULL, &fast[i]));
        OK(klaw_group_join("g", fast[i]));
    }
    OK(klaw_blob_new("hello", 5, &b));
    OK(klaw_group_send("g", &klaw_bytes, &b, KLAW_FOREVER, &n)); /* in hand */
    SAME(n, 3);
    UNTIL(actor_stats(slow).mailbox_size == 0);
    OK(klaw_group_send("g", &klaw_bytes, &b, KLAW_FOREVER, &n)); /* in the mailbox */
    SAME(n, 3);
    GIVES(klaw_group_send("g", &klaw_bytes, &b, KLAW_NOWAIT, &n), KLAW_FULL);
    SAME(n, 2);
    GIVES(klaw_group_send("g", &klaw_bytes, &b, KLAW_WITHIN(KLAW_MS(1)), &n), KLAW_TIMEOUT);
    SAME(n, 2);
    UNTIL(actor_stats(fast[1]).handled == 4);
    attempt *t = attempts(send_waits, &b);
    UNTIL(actor_stats(fast[1]).handled == 5); /* while the slow one stands still */
    atomic_store(&gate_open_, 1);
    OK(outcome(t));
    klaw_blob_unref(b);
    ends(slow, KLAW_OK);
    ends(fast[0], KLAW_OK);
    ends(fast[1], KLAW_OK);
}

RUNS(an_ended_member_is_left_out, 1) {
    klaw_actor *a = new_summer(), *b = new_summer();
    size_t n = 9;
    OK(klaw_group_join("g", a));
    OK(klaw_group_join("g", b));
    klaw_actor_stop(a); /* may have ended or not */
    klaw_err e = klaw_group_send("g", &klaw_u64, &(uint64_t){1}, KLAW_FOREVER, &n);
    OK(e);
    CHECK(n >= 1);
    OK(why_of(a));
    OK(klaw_group_send("g", &klaw_u64, &(uint64_t){1}, KLAW_FOREVER, &n));
    SAME(n, 1);
    SAME(sum_of(b), 2);
    klaw_actor_unref(a);
    ends(b, KLAW_OK);
}

RUNS(thousands_of_names_come_and_go, 1) {
    enum { N = 3000 };
    static klaw_actor *a[3];
    char name[32];
    for (int i = 0; i < 3; i++)
        a[i] = new_summer();
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "name %d", i);
        OK(klaw_registry_register(name, a[i % 3]));
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "name %d", i);
        CHECK(where(name) == a[i % 3]);
    }
    ends(a[1], KLAW_OK);
    for (int i = 0; i < N; i++) {
        klaw_actor *got = NULL;
        snprintf(name, sizeof name, "name %d", i);
        GIVES(klaw_whereis(name, &got), i % 3 == 1 ? KLAW_NOT_FOUND : KLAW_OK);
        klaw_actor_unref(got);
        if (i % 3 == 0)
            OK(klaw_registry_unregister(name));
    }
    ends(a[0], KLAW_OK);
    ends(a[2], KLAW_OK);
}

RUNS(a_snapshot_shows_names, 1) {
    klaw_actor *a = new_summer();
    klaw_snapshot *snap = NULL;
    char *text = NULL;
    size_t n;
    OK(klaw_registry_register("the \"name\"", a));
    OK(klaw_group_join("the group", a));
    OK(klaw_snapshot_take(&snap));
    const klaw_name_info *i = klaw_snapshot_names(snap, &n);
    SAME(n, 2);
    int group = i[1].group;
    CHECK(i[group].group && !i[!group].group);
    CHECK(strcmp(i[!group].name, "the \"name\"") == 0);
    CHECK(strcmp(i[group].name, "the group") == 0);
    SAME(i[0].actor_id, klaw_actor_id(a));
    OK(klaw_snapshot_json(snap, &text, NULL));
    CHECK(strstr(text, "\"names\":[{"));
    CHECK(strstr(text, "{\"name\":\"the \\\"name\\\"\",\"actor_id\":"));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(snap);
    ends(a, KLAW_OK);
    OK(klaw_snapshot_take(&snap));
    CHECK(!klaw_snapshot_names(snap, &n) && n == 0);
    klaw_snapshot_free(snap);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_name_leads_to_its_actor),
        TEST(wrong_names_are_refused),
        TEST(names_follow_restarts_and_go_with_the_end),
        TEST(the_name_is_free_when_the_end_is_told),
        TEST(the_registry_keeps_a_reference),
        TEST(get_looks_at_the_type),
        TEST(await_waits_for_the_name),
        TEST(a_thread_awaits),
        TEST(a_group_gets_every_message),
        TEST(names_and_groups_do_not_know_each_other),
        TEST(a_group_has_one_type),
        TEST(a_slow_member_delays_itself_alone),
        TEST(an_ended_member_is_left_out),
        TEST(thousands_of_names_come_and_go),
        TEST(a_snapshot_shows_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
