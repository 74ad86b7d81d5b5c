/* SPDX-License-Identifier: Apache-2.0 */
/* test_sched_stress.c - random trees of fibers and scopes with cancellations, sleeps, joins and
 * messages; then the account: every fiber that was accepted has run and ended, no scope closed
 * before its fibers, nothing is left allocated.
 *
 * A seed replays the operations; threads run as they please. */
#include "klaw/select.h"
#include "support/random.h"
#include "support/runs.h"

typedef struct account {
    _Atomic uint64_t spawned, began, ended, timers, blocked;
    _Atomic int64_t left; /* fibers that may still be spawned */
    klaw_sender *tx;      /* everybody sends and receives here, small */
    klaw_receiver *rx;
    _Atomic uint64_t sent, received;
} account;
static account acc;

/* A fiber's own part of the tree. */
typedef struct node {
    uint64_t seed;
    int depth;
    _Atomic int64_t *live; /* of the scope it is in: the scope must see 0 at its close */
} node;

static klaw_err walks(void *arg);

static void spawn_child(rng *r, int depth, _Atomic int64_t *live, klaw_scope *s, klaw_fiber **out) {
    if (atomic_fetch_sub(&acc.left, 1) <= 0)
        return;
    node *n = malloc(sizeof *n);
    CHECK(n);
    *n = (node){rng_next(r), depth + 1, live};
    klaw_fiber_opts o = {.name = rng_one_in(r, 4) ? "named" : NULL,
                         .pinned = rng_one_in(r, 6),
                         .fpenv = rng_one_in(r, 8),
                         .unguarded = rng_one_in(r, 8),
                         .stack_size = rng_one_in(r, 6) ? (size_t)64 << 10 : 0};
    atomic_fetch_add(live, 1);
    OK(klaw_spawn(s, walks, n, &o, out));
    atomic_fetch_add(&acc.spawned, 1);
}

static klaw_err blocks_shortly(void *arg) {
    atomic_fetch_add((_Atomic uint64_t *)arg, 1);
    return KLAW_OK;
}

static void exchanges(rng *r) {
    uint64_t v = 1;
    size_t chosen = 99;
    klaw_deadline d = rng_one_in(r, 3) ? KLAW_NOWAIT : KLAW_WITHIN(rng_below(r, 200000) + 1);
    switch (rng_below(r, 3)) {
    case 0:
        if (klaw_send(acc.tx, &v, d) == KLAW_OK)
            atomic_fetch_add(&acc.sent, 1);
        break;
    case 1:
        if (klaw_recv(acc.rx, &v, d) == KLAW_OK)
            atomic_fetch_add(&acc.received, 1);
        break;
    default: {
        klaw_case c[] = {klaw_case_send(acc.tx, &v), klaw_case_recv(acc.rx, &(uint64_t){0}),
                         klaw_case_timer(KLAW_WITHIN(KLAW_US(50)))};
        if (klaw_select(c, 3, &chosen, d) == KLAW_OK && c[chosen].err == KLAW_OK) {
            atomic_fetch_add(&acc.sent, chosen == 0);
            atomic_fetch_add(&acc.received, chosen == 1);
        }
    }
    }
}

/* One operation that may wait; whatever it answers is right. */
static void waits_somehow(rng *r) {
    klaw_err e = KLAW_OK;
    switch (rng_below(r, 6)) {
    case 0: e = klaw_yield(); break;
    case 1: e = klaw_sleep(KLAW_WITHIN(rng_below(r, 300000) + 1)); break;
    case 2: OK(klaw_blocking(blocks_shortly, &acc.blocked)); break;
    default: exchanges(r); break;
    }
    CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
}

static void opens_a_scope(rng *r, int depth) {
    _Atomic int64_t live = 0;
    klaw_fiber *handle[4] = {NULL};
    klaw_scope_opts o = {.name = "node",
                         .deadline = rng_one_in(r, 3) ? KLAW_WITHIN(rng_below(r, 2000000) + 1) : 0,
                         .cancel_on_error = rng_one_in(r, 4)};
    if (o.deadline)
        o.shield = rng_one_in(r, 3);
    klaw_scope *s = scope_open(o);
    for (uint32_t i = rng_below(r, 5); i > 0; i--)
        spawn_child(r, depth, &live, rng_one_in(r, 2) ? s : NULL,
                    rng_one_in(r, 2) ? &handle[i - 1] : NULL);
    for (uint32_t i = rng_below(r, 3); i > 0; i--)
        waits_somehow(r);
    for (int i = 0; i < 4; i++) {
        if (!handle[i])
            continue;
        if (rng_one_in(r, 3))
            klaw_fiber_cancel(handle[i]);
        klaw_err e, got = rng_one_in(r, 2) ? klaw_join(handle[i], &e, NULL,
                                                       KLAW_WITHIN(rng_below(r, 300000) + 1))
                                           : KLAW_TIMEOUT;
        CHECK(got == KLAW_OK || got == KLAW_TIMEOUT || got == KLAW_CANCELLED);
        if (got != KLAW_OK)
            klaw_detach(handle[i]);
    }
    if (rng_one_in(r, 4))
        klaw_scope_cancel(s, "at random");
    klaw_err e = klaw_scope_close(s);
    CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_TIMEOUT || e == KLAW_TYPE);
    SAME(atomic_load(&live), 0);
}

static klaw_err walks(void *arg) {
    node n = *(node *)arg;
    rng r = {n.seed};
    free(arg);
    atomic_fetch_add(&acc.began, 1);
    for (uint32_t i = rng_below(&r, 4); i > 0; i--)
        if (n.depth < 12 && rng_one_in(&r, 2))
            opens_a_scope(&r, n.depth);
        else
            waits_somehow(&r);
    atomic_fetch_add(&acc.ended, 1);
    atomic_fetch_sub(n.live, 1);
    return rng_one_in(&r, 10) ? KLAW_TYPE : KLAW_OK;
}

/* A plain thread does the same beside the fibers. */
static klaw_err walks_on_a_thread(void *arg) {
    rng r = {(uint64_t)(uintptr_t)arg};
    for (int i = 0; i < 20; i++)
        opens_a_scope(&r, 0);
    return KLAW_OK;
}

static klaw_err root(void *arg) {
    rng r = {*(uint64_t *)arg};
    thread_job t;
    thread_start(&t, walks_on_a_thread, (void *)(uintptr_t)rng_next(&r));
    while (atomic_load(&acc.left) > 0)
        opens_a_scope(&r, 0);
    return thread_end(&t);
}

static void one_round(uint64_t seed, uint32_t workers, int64_t fibers) {
    klaw_run_opts o = {.workers = workers, .blocking_threads = 3};
    klaw_channel_opts small = {.capacity = 2};
    uint64_t v, there = 0;
    memset(&acc, 0, sizeof acc);
    atomic_store(&acc.left, fibers);
    OK(klaw_channel(&klaw_u64, &small, &acc.tx, &acc.rx));
    OK(klaw_run(root, &seed, &o));
    SAME(acc.spawned, acc.began);
    SAME(acc.began, acc.ended);
    while (klaw_recv(acc.rx, &v, KLAW_NOWAIT) == KLAW_OK)
        there++;
    SAME(acc.sent, acc.received + there);
    klaw_sender_unref(acc.tx);
    klaw_receiver_unref(acc.rx);
    klaw_alloc_trim();
    CHECK(runs_nothing_left());
}

static void walk_with(uint32_t workers) {
    uint64_t seed = seed_begin();
    for (uint64_t i = 0; i < rounds(20); i++)
        one_round(seed + i, workers, 2000);
}

PLAIN(trees_on_one_worker) {
    walk_with(1);
}
PLAIN(trees_on_two_workers) {
    walk_with(2);
}
PLAIN(trees_on_four_workers) {
    walk_with(4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(trees_on_one_worker),
        TEST(trees_on_two_workers),
        TEST(trees_on_four_workers),
    };
    return cmocka_run_group_tests_name("sched_stress", tests, NULL, NULL);
}
