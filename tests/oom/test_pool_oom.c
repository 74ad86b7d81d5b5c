/* SPDX-License-Identifier: Apache-2.0 */
/* test_pool_oom.c - pools without memory: each call fails at its n-th allocation, for every n until
 * it passes. It says so, nothing is half done, nothing leaks, and the pool works afterwards.
 *
 * Tried with these bugs seeded: a resize that keeps what it has spawned, a broadcast that leaks its
 * list. */
#include "support/runs.h"

static klaw_err answer_twice(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    if (reply)
        *(uint64_t *)reply = 2 * *(uint64_t *)message;
    return KLAW_OK;
}
static const klaw_behavior doubler = {
    .name = "doubler", .message = &klaw_u64, .reply = &klaw_u64, .handle = answer_twice};

static klaw_pool *pool;
static const klaw_pool_opts three = {.size = 3, .actor = {.restart = KLAW_RESTART_NEVER}};

static void pool_ends(klaw_pool *p) {
    klaw_pool_stop(p);
    OK(klaw_pool_join(p, KLAW_WITHIN(CHECK_PATIENCE)));
    klaw_pool_unref(p);
}
static void pool_works(uint32_t size) {
    uint64_t reply = 0;
    SAME(klaw_pool_size(pool), size);
    OK(klaw_pool_ask(pool, &(uint64_t){21}, &reply, KLAW_WITHIN(CHECK_PATIENCE)));
    SAME(reply, 42);
}

static klaw_err opens(void) {
    klaw_pool *p = NULL;
    klaw_err e = klaw_pool_open(&doubler, NULL, &three, &p);
    CHECK(e ? !p : p != NULL);
    if (!e)
        pool_ends(p); /* needs no memory */
    return e;
}
static klaw_err grows(void) {
    klaw_err e = klaw_pool_resize(pool, 5);
    uint64_t n = e ? 3 : 5;
    SAME(klaw_pool_size(pool), n);
    if (!e) {
        klaw_alloc_fail_at(0, false);
        OK(klaw_pool_resize(pool, 3));
    }
    return e;
}
static klaw_err shrinks(void) {
    klaw_err e = klaw_pool_resize(pool, 2);
    SAME(klaw_pool_size(pool), e ? 3 : 2);
    if (!e) {
        klaw_alloc_fail_at(0, false);
        OK(klaw_pool_resize(pool, 3));
    }
    return e;
}
static klaw_err broadcasts(void) {
    uint32_t reached = 9;
    klaw_err e = klaw_pool_broadcast(pool, &(uint64_t){1}, KLAW_FOREVER, &reached);
    CHECK(e ? reached <= 3 : reached == 3);
    return e;
}
/* Its helpers may be missing, what is asked may fail, but each message has its outcome. */
static klaw_err maps(void) {
    uint64_t in[6] = {1, 2, 3, 4, 5, 6}, out[6] = {0};
    klaw_pool_outcome how[6];
    klaw_err first = KLAW_OK;
    memset(how, 0xff, sizeof how);
    klaw_err e = klaw_pool_map(pool, in, 6, out, how, 3, KLAW_FOREVER);
    if (e && (int)how[0].err == -1)
        return e; /* nothing was asked */
    for (int i = 0; i < 6; i++) {
        CHECK(how[i].err == KLAW_OK || how[i].err == KLAW_NOMEM);
        SAME(out[i], how[i].err ? 0 : 2 * in[i]);
        first = first ? first : how[i].err;
    }
    GIVES(e, first);
    return e;
}
/* Some points are passed by other fibers, or need not be met: the call may pass all the same. */
static void until_it_passes(klaw_err (*call)(void)) {
    uint64_t failures = 0;
    for (uint64_t n = 1;; n++) {
        klaw_alloc_fail_at(n, false);
        klaw_err e = call();
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e) {
            GIVES(e, KLAW_NOMEM);
            failures++;
        }
        pool_works(3);
        CHECK(n < 1000);
        if (e == KLAW_OK && !met)
            break;
    }
    CHECK(failures > 0);
}

RUNS(every_call_survives_every_failed_allocation, 1) {
    OK(klaw_pool_open(&doubler, NULL, &three, &pool));
    pool_works(3);
    check_test = "open";
    until_it_passes(opens);
    check_test = "grow";
    until_it_passes(grows);
    check_test = "shrink";
    until_it_passes(shrinks);
    check_test = "broadcast";
    until_it_passes(broadcasts);
    check_test = "map";
    until_it_passes(maps);
    pool_ends(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_call_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("pool_oom", tests, NULL, NULL);
}
