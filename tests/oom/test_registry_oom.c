/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_oom.c - the n-th allocation of each operation on names and groups fails, for every
 * n: it says so, nothing is half done, nothing leaks. */
#include "support/actors.h"

#include "actor/registry.h"

static klaw_err sum_handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)reply;
    *(uint64_t *)state += *(uint64_t *)message;
    return KLAW_OK;
}
static const klaw_behavior summer = {
    .name = "summer", .message = &klaw_u64, .state_size = 8, .handle = sum_handle};
static klaw_actor *a;

static klaw_err registers(void) {
    klaw_err e = klaw_registry_register("x", a);
    GIVES(klaw_registry_unregister("x"), e ? KLAW_NOT_FOUND : KLAW_OK);
    return e;
}
static klaw_err joins(void) {
    size_t n;
    klaw_err e = klaw_group_join("g", a);
    GIVES(klaw_group_members("g", NULL, 0, &n), e ? KLAW_NOT_FOUND : KLAW_OK);
    GIVES(klaw_group_leave("g", a), e ? KLAW_NOT_FOUND : KLAW_OK);
    return e;
}
static klaw_err awaits(void) {
    klaw_actor *got = NULL;
    klaw_err e = klaw_registry_await("x", KLAW_WITHIN(KLAW_US(10)), &got);
    CHECK(!got);
    SAME(klawi_registry_waiting(), 0);
    return e == KLAW_TIMEOUT ? KLAW_OK : e;
}
static klaw_err sends(void) {
    size_t n = 9;
    klaw_err e = klaw_group_send("all", &klaw_u64, &(uint64_t){1}, KLAW_FOREVER, &n);
    CHECK(e ? n <= 40 : n == 40);
    return e;
}
/* Tables that can't grow still work. */
static klaw_err many(void) {
    char name[16];
    klaw_err first = KLAW_OK;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "n%d", i);
        klaw_err e = klaw_registry_register(name, a);
        CHECK(e == KLAW_OK || e == KLAW_NOMEM);
        first = first ? first : e;
    }
    for (int i = 0; i < 200; i++) {
        klaw_actor *got = NULL;
        snprintf(name, sizeof name, "n%d", i);
        if (klaw_whereis(name, &got) == KLAW_OK)
            OK(klaw_registry_unregister(name));
        klaw_actor_unref(got);
    }
    return first;
}

static void every_point(klaw_err (*fn)(void), uint64_t step) {
    bool beyond = false;
    for (uint64_t n = 1; !beyond; n += step) {
        CHECK(n < 5000);
        klaw_alloc_fail_at(n, false);
        klaw_err e = fn();
        beyond = klaw_alloc_points() < n;
        klaw_alloc_fail_at(0, false);
        CHECK(e == KLAW_OK || e == KLAW_NOMEM);
        OK(fn());
    }
}

RUNS(every_failure_is_told_and_leaves_nothing, 1) {
    klaw_actor *members[40];
    OK(klaw_actor_spawn(&summer, NULL, NULL, &a));
    for (int i = 0; i < 40; i++) {
        OK(klaw_actor_spawn(&summer, NULL, NULL, &members[i]));
        OK(klaw_group_join("all", members[i]));
    }
    every_point(registers, 1);
    every_point(joins, 1);
    every_point(awaits, 1);
    every_point(sends, 1);
    every_point(many, 1);
    for (int i = 0; i < 40; i++)
        ends(members[i], KLAW_OK);
    ends(a, KLAW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(every_failure_is_told_and_leaves_nothing)};
    return cmocka_run_group_tests_name("registry_oom", tests, NULL, NULL);
}
