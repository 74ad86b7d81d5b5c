/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_stress.c - fibers and threads register, await, look, join, leave and send while the
 * actors end: nobody waits for a name that is there, no ended actor keeps one, nothing leaks. */
#include "support/actors.h"

#include "actor/registry.h"
#include "support/random.h"
#include "support/worlds.h"

#define NAMES 4
#define HOSTS 6

static const char *const names[NAMES] = {"a", "b", "c", "d"};
static _Atomic uint64_t found, delivered;
static uint64_t seed, each;

static klaw_err sum_handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)reply;
    *(uint64_t *)state += *(uint64_t *)message;
    atomic_fetch_add(&delivered, 1);
    if (*(uint64_t *)state % 7 == 6)
        klaw_self_stop(self);
    return KLAW_OK;
}
static const klaw_behavior summer = {
    .name = "summer", .message = &klaw_u64, .state_size = 8, .handle = sum_handle};

static void one_step(rng *r, klaw_actor **mine) {
    const char *name = names[rng_below(r, NAMES)];
    klaw_actor *got = NULL;
    size_t n;
    klaw_err e;
    switch (rng_below(r, 8)) {
    case 0:
    case 1:
        if (*mine) {
            klaw_actor_stop(*mine);
            OK(klaw_actor_join(*mine, KLAW_FOREVER, NULL));
            GIVES(klaw_registry_register(name, *mine), KLAW_STOPPED);
            GIVES(klaw_group_leave(name, *mine), KLAW_NOT_FOUND);
            klaw_actor_unref(*mine);
        }
        OK(klaw_actor_spawn(&summer, NULL, NULL, mine));
        break;
    case 2:
    case 3:
        if (!*mine)
            break;
        e = klaw_registry_register(name, *mine);
        CHECK(e == KLAW_OK || e == KLAW_EXISTS || e == KLAW_STOPPED);
        break;
    case 4:
        e = klaw_registry_unregister(name);
        CHECK(e == KLAW_OK || e == KLAW_NOT_FOUND);
        break;
    case 5:
        e = klaw_registry_await(name, KLAW_WITHIN(KLAW_US(1 + rng_below(r, 300))), &got);
        CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
        CHECK((e == KLAW_OK) == (got != NULL));
        if (got)
            atomic_fetch_add(&found, 1);
        klaw_actor_unref(got);
        break;
    case 6:
        if (!*mine)
            break;
        e = rng_one_in(r, 3) ? klaw_group_leave(name, *mine) : klaw_group_join(name, *mine);
        CHECK(e == KLAW_OK || e == KLAW_EXISTS || e == KLAW_STOPPED || e == KLAW_NOT_FOUND);
        break;
    default:
        e = klaw_group_send(name, &klaw_u64, &(uint64_t){1}, KLAW_WITHIN(CHECK_PATIENCE), &n);
        CHECK(e == KLAW_OK || e == KLAW_NOT_FOUND);
        break;
    }
}

static klaw_err host(void *arg) {
    rng r = rng_part(seed, (uint64_t)(uintptr_t)arg);
    klaw_actor *mine = NULL;
    for (uint64_t i = 0; i < each; i++)
        one_step(&r, &mine);
    if (mine) {
        klaw_actor_stop(mine);
        OK(klaw_actor_join(mine, KLAW_FOREVER, NULL));
        klaw_actor_unref(mine);
    }
    return KLAW_OK;
}

RUNS(names_and_groups_under_load, 2) {
    job j[HOSTS];
    seed = seed_begin();
    each = rounds(4000);
    for (uint64_t i = 0; i < HOSTS; i++)
        job_start_as(&j[i], host, (void *)(uintptr_t)i, i % 3 != 0);
    for (uint64_t i = 0; i < HOSTS; i++)
        OK(job_end(&j[i]));
    for (int i = 0; i < NAMES; i++) {
        klaw_actor *got = NULL;
        size_t n;
        GIVES(klaw_whereis(names[i], &got), KLAW_NOT_FOUND);
        GIVES(klaw_group_members(names[i], NULL, 0, &n), KLAW_NOT_FOUND);
    }
    SAME(klawi_registry_waiting(), 0);
    CHECK(atomic_load(&found) > 0 && atomic_load(&delivered) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(names_and_groups_under_load)};
    return cmocka_run_group_tests_name("registry_stress", tests, NULL, NULL);
}
