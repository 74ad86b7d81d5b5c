/* SPDX-License-Identifier: Apache-2.0 */
/* test_runtime_stress.c - runtime objects that come and go while fibers and threads spawn, submit,
 * send, make channels and actors: all that was accepted has run and ended when the shutdown
 * returns, nothing leaks. */
#include "klaw/runtime.h"
#include "support/actors.h"
#include "support/random.h"
#include "support/worlds.h"

#define HOSTS 3

static klaw_runtime *rt;
static uint64_t seed, each;
static _Atomic uint64_t accepted, over, refused;
static _Atomic int ready;

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)message;
    (void)reply;
    return KLAW_OK;
}
static const klaw_behavior idle = {.name = "idle", .message = &klaw_u64, .handle = handle};

static klaw_err works(void *arg) {
    (void)(klaw_sleep(KLAW_WITHIN(KLAW_US(1 + (uintptr_t)arg % 50))) == KLAW_OK);
    atomic_fetch_add(&over, 1);
    return KLAW_OK;
}
static void released(void *arg) {
    (void)arg;
    atomic_fetch_add(&over, 1);
}
static klaw_err task(void *arg) {
    return klaw_sleep(KLAW_WITHIN(KLAW_US(1 + (uintptr_t)arg % 50)));
}
static klaw_err reads(void *arg) {
    klaw_receiver *rx = arg;
    uint64_t v;
    while (klaw_recv(rx, &v, KLAW_FOREVER) == KLAW_OK) {}
    klaw_receiver_unref(rx);
    atomic_fetch_add(&over, 1);
    return KLAW_OK;
}

static klaw_err one_step(rng *r) {
    void *n = (void *)(uintptr_t)rng_below(r, 1000);
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_task_opts to = {.release = released};
    klaw_actor_opts ao = {.release = released};
    klaw_err e;
    switch (rng_below(r, 4)) {
    case 0: return klaw_runtime_spawn(rt, works, n, NULL, NULL);
    case 1: return klaw_submit(klaw_runtime_executor(rt), task, n, &to, NULL);
    case 2: return klaw_runtime_spawn_actor(rt, &idle, NULL, &ao, NULL);
    default:
        e = klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx);
        if (e)
            return e;
        e = klaw_runtime_spawn(rt, reads, rx, NULL, NULL);
        if (e)
            klaw_receiver_unref(rx);
        for (uint64_t i = 0; i < 5; i++)
            if (klaw_send(tx, &i, KLAW_FOREVER) != KLAW_OK)
                break;
        klaw_sender_unref(tx);
        return e;
    }
}

static klaw_err host(void *arg) {
    rng r = rng_part(seed, (uint64_t)(uintptr_t)arg);
    klaw_err e = KLAW_OK;
    for (uint64_t i = 0; i < 200 && e == KLAW_OK; i++) {
        if (i == 20)
            atomic_fetch_add(&ready, 1);
        e = one_step(&r);
        CHECK(e == KLAW_OK || e == KLAW_STOPPED || e == KLAW_CLOSED);
        atomic_fetch_add(e ? &refused : &accepted, 1);
    }
    return KLAW_OK;
}

static void one_life(uint64_t i) {
    job j[HOSTS];
    rng r = rng_part(seed, 1000 + i);
    klaw_runtime_opts o = {.run = {.workers = 2}, .executor = {.concurrency = 3}};
    klaw_shutdown_opts so = {.now = rng_one_in(&r, 2)};
    klaw_shutdown_report report;
    bool inside = klaw_self_id() != 0;
    atomic_store(&ready, 0);
    OK(klaw_runtime_open(&o, &rt, NULL));
    for (uint64_t k = 0; k < HOSTS; k++) /* of a run of its own all fibers would be its fibers */
        job_start_as(&j[k], host, (void *)(uintptr_t)(i * HOSTS + k), inside && k % 2);
    if (rng_one_in(&r, 2))
        UNTIL(atomic_load(&ready) > 0);
    klaw_err e = klaw_runtime_shutdown(rt, &so, &report);
    OK(e);
    SAME(report.abandoned, 0);
    CHECK(so.now || report.cancelled == 0);
    for (int k = 0; k < HOSTS; k++)
        OK(job_end(&j[k]));
    klaw_runtime_free(rt);
    SAME(atomic_load(&over), atomic_load(&accepted));
}

static void lives(void) {
    for (uint64_t i = 0; i < each; i++)
        one_life(i);
}

PLAIN(with_runs_of_their_own) {
    seed = seed_begin();
    each = rounds(150);
    lives();
}
RUNS(inside_of_a_run, 2) {
    each = rounds(300);
    lives();
}
PLAIN(both_things_happened) {
    CHECK(atomic_load(&accepted) > 0 && atomic_load(&refused) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(with_runs_of_their_own),
        TEST(inside_of_a_run),
        TEST(both_things_happened),
    };
    return cmocka_run_group_tests_name("runtime_stress", tests, NULL, NULL);
}
