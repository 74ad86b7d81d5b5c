/* SPDX-License-Identifier: Apache-2.0 */
/* test_runtime_oom.c - the n-th allocation, mapping or thread start fails, for every n: opening says
 * so and leaves nothing; what could not be made is told; a shutdown ends everything all the same,
 * at worst without names. */
#include "klaw/runtime.h"
#include "support/actors.h"

static bool short_of(klaw_err e) {
    return e == KLAW_NOMEM || e == KLAW_SYSTEM;
}
static klaw_err note(klaw_err *first, klaw_err e) {
    CHECK(e == KLAW_OK || short_of(e));
    *first = *first ? *first : e;
    return e;
}

static _Atomic int running;
static klaw_err stays(void *arg) {
    (void)arg;
    atomic_fetch_add(&running, 1);
    klaw_err e = klaw_sleep(KLAW_FOREVER);
    atomic_fetch_sub(&running, 1);
    return e == KLAW_CANCELLED ? KLAW_OK : e;
}

/* A bit of everything. Returns the first error. `late`: some of it has to be cancelled. */
static klaw_err life(bool late) {
    static diary d;
    klaw_err first = KLAW_OK, e;
    klaw_runtime *rt = NULL;
    klaw_runtime_opts o = {.run = {.workers = 2}};
    klaw_shutdown_opts so = {.timeout = KLAW_MS(1)};
    klaw_shutdown_report r;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_actor *a = NULL;
    klaw_error_info info;
    if (note(&first, klaw_runtime_open(&o, &rt, &info)) != KLAW_OK) {
        CHECK(info.message[0] && !rt);
        return first;
    }
    if (note(&first, klaw_runtime_channel(rt, &klaw_u64, NULL, &tx, &rx)) == KLAW_OK)
        note(&first, klaw_send(tx, &(uint64_t){1}, KLAW_NOWAIT));
    note(&first, klaw_runtime_spawn_actor(rt, &doer_behavior, &d, NULL, &a));
    note(&first, klaw_runtime_spawn(rt, late ? stays : returns_ok, NULL, NULL, NULL));
    note(&first,
         klaw_submit(klaw_runtime_executor(rt), late ? stays : returns_ok, NULL, NULL, NULL));
    e = klaw_runtime_shutdown(rt, late ? &so : NULL, &r);
    CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
    SAME(r.abandoned, 0);
    CHECK(late || e == KLAW_OK);
    SAME(running, 0);
    klaw_runtime_free(rt);
    if (r.incomplete)
        first = first ? first : KLAW_NOMEM;
    CHECK(!a || !klaw_actor_alive(a));
    klaw_actor_unref(a);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    return first;
}

static void every_point(bool late, bool sticky) {
    uint64_t n = 1;
    for (int quiet = 0; quiet < 3; n++) { /* what runs beside may pass a point more or less */
        CHECK(n < 3000);
        CHECK(klaw_run_workers() > 0 || runs_nothing_left());
        klaw_alloc_fail_at(n, sticky);
        klaw_err e = life(late);
        quiet = klaw_alloc_points() < n ? quiet + 1 : 0;
        klaw_alloc_fail_at(0, false);
        CHECK(!quiet || e == KLAW_OK);
    }
    CHECK(klaw_run_workers() > 0 || runs_nothing_left());
    OK(life(late));
}

PLAIN(every_single_failure_is_told) {
    every_point(false, false);
}
PLAIN(every_failure_and_all_later_ones_are_told) {
    every_point(false, true);
}
PLAIN(late_ones_are_cancelled_without_memory) {
    every_point(true, false);
}
PLAIN(late_ones_are_cancelled_with_none_at_all) {
    every_point(true, true);
}

RUNS(inside_of_a_run_too, 2) {
    every_point(false, false);
    every_point(true, false);
    every_point(false, true);
    every_point(true, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_single_failure_is_told),
        TEST(every_failure_and_all_later_ones_are_told),
        TEST(late_ones_are_cancelled_without_memory),
        TEST(late_ones_are_cancelled_with_none_at_all),
        TEST(inside_of_a_run_too),
    };
    return cmocka_run_group_tests_name("runtime_oom", tests, NULL, NULL);
}
