/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot.c - what snapshots show of fibers, scopes and workers, at rest and in the middle of
 * load. */
#include "support/random.h"
#include "support/runs.h"

/* --- at rest --- */
static const klaw_fiber_info *fiber_named(const klaw_snapshot *snap, const char *name) {
    size_t n;
    const klaw_fiber_info *f = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(f[i].name, name) == 0)
            return &f[i];
    return NULL;
}
static const klaw_scope_info *scope_with_id(const klaw_snapshot *snap, uint64_t id) {
    size_t n;
    const klaw_scope_info *s = klaw_snapshot_scopes(snap, &n);
    for (size_t i = 0; i < n; i++)
        if (s[i].id == id)
            return &s[i];
    return NULL;
}

RUNS(a_snapshot_shows_fibers_and_their_scopes, 2) {
    klaw_snapshot *snap;
    gate g = gate_make();
    klaw_scope *outer = SCOPE(.name = "outer", .deadline = klaw_after(KLAW_S(1000)));
    klaw_scope *in = SCOPE(.name = "inner", .shield = true, .deadline = KLAW_WITHIN(KLAW_S(900)));
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "waiter", .pinned = true}, passes, &g);
    UNTIL(waiting("waiter", "recv") == 1);
    klaw_scope_cancel(outer, "because");
    OK(klaw_snapshot_take(&snap));
    const klaw_fiber_info *w = fiber_named(snap, "waiter"), *m = fiber_named(snap, "main");
    CHECK(w && m && w->id != m->id);
    SAME(w->state, KLAW_FIBER_WAITING);
    assert_string_equal(w->waiting_on, "recv");
    CHECK(w->waiting_id != 0 && w->pinned && !w->cancelled && !m->pinned);
    SAME(m->id, klaw_self_id());
    SAME(m->state, KLAW_FIBER_RUNNING);
    const klaw_scope_info *i = scope_with_id(snap, w->scope_id);
    CHECK(i && strcmp(i->name, "inner") == 0 && i->live == 1 && i->shield && !i->cancelled);
    const klaw_scope_info *o = scope_with_id(snap, i->parent_id);
    CHECK(o && strcmp(o->name, "outer") == 0 && o->live == 0 && o->cancelled &&
          o->deadline > klaw_now());
    assert_string_equal(o->reason, "because");
    const klaw_scope_info *root = scope_with_id(snap, o->parent_id);
    CHECK(root && root->parent_id == 0 && root->live == 1 && root->deadline == 0 &&
          root->id == m->scope_id);
    klaw_snapshot_free(snap);
    gate_open(&g);
    OK(klaw_scope_close(in));
    GIVES(klaw_scope_close(outer), KLAW_CANCELLED);
    OK(result_of(f));
    gate_free(&g);
}

RUNS(a_snapshot_shows_workers, 3) {
    klaw_snapshot *snap;
    size_t n, running = 0;
    OK(klaw_yield());
    OK(klaw_snapshot_take(&snap));
    const klaw_worker_info *w = klaw_snapshot_workers(snap, &n);
    SAME(n, 3);
    for (size_t i = 0; i < n; i++) {
        SAME(w[i].index, i);
        if (w[i].fiber_id == klaw_self_id()) {
            running++;
            CHECK(!w[i].sleeping && w[i].turns > 0);
        }
    }
    SAME(running, 1);
    klaw_snapshot_free(snap);
}

PLAIN(a_snapshot_without_a_runtime_has_channels_alone) {
    klaw_snapshot *snap;
    size_t n;
    gate g = gate_make();
    OK(klaw_snapshot_take(&snap));
    CHECK(!klaw_snapshot_fibers(snap, &n) && n == 0);
    CHECK(!klaw_snapshot_scopes(snap, &n) && n == 0);
    CHECK(!klaw_snapshot_workers(snap, &n) && n == 0);
    CHECK(klaw_snapshot_channels(snap, &n) && n == 1);
    klaw_snapshot_free(snap);
    gate_free(&g);
}

/* --- under load --- */
static _Atomic bool enough;

static klaw_err lives_a_little(void *arg) {
    rng r = {(uint64_t)(uintptr_t)arg};
    klaw_scope *s = SCOPE(.name = "of a worker", .deadline = KLAW_WITHIN(KLAW_S(3600)),
                          .shield = rng_one_in(&r, 2));
    gate g = gate_make();
    klaw_fiber_opts o = {.name = "sub", .pinned = rng_one_in(&r, 4)};
    uint64_t v = 1;
    OK(klaw_spawn(NULL, passes, &g, &o, NULL));
    OK(klaw_send(g.tx, &v, KLAW_NOWAIT));
    if (rng_one_in(&r, 3))
        OK(klaw_sleep(KLAW_WITHIN(rng_below(&r, 50000))));
    if (rng_one_in(&r, 2))
        klaw_scope_cancel(s, "a reason that is somewhat longer than a word");
    gate_open(&g);
    klaw_err e = klaw_scope_close(s);
    CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    gate_free(&g);
    return KLAW_OK;
}

static klaw_err makes_load(void *arg) {
    for (uint64_t i = 1; !atomic_load(&enough); i++) {
        klaw_scope *s = SCOPE(.name = "load");
        for (uint64_t k = 0; k < 8; k++)
            OK(klaw_go(lives_a_little,
                       (void *)(uintptr_t)(i * 977 + k + (uint64_t)(uintptr_t)arg)));
        OK(klaw_scope_close(s));
    }
    return KLAW_OK;
}

static void looks_sound(const klaw_snapshot *snap) {
    size_t n;
    const klaw_fiber_info *f = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++) {
        CHECK(f[i].id != 0 && f[i].scope_id != 0 && f[i].state <= KLAW_FIBER_DONE);
        CHECK(memchr(f[i].name, 0, sizeof f[i].name) && f[i].name[0] != '\0');
        CHECK((f[i].state == KLAW_FIBER_WAITING) == (f[i].waiting_on[0] != '\0') ||
              f[i].waiting_on[0] == '\0');
        CHECK(f[i].worker >= -1 && f[i].worker < 2);
        for (size_t k = 0; k < i && k < 50; k++)
            CHECK(f[k].id != f[i].id);
    }
    const klaw_scope_info *s = klaw_snapshot_scopes(snap, &n);
    for (size_t i = 0; i < n; i++) {
        CHECK(s[i].id != 0 && s[i].name[0] != '\0' && s[i].live < 1000000);
        CHECK(s[i].cancelled == (s[i].reason[0] != '\0'));
        CHECK(s[i].parent_id < s[i].id);
    }
    const klaw_worker_info *w = klaw_snapshot_workers(snap, &n);
    SAME(n, 2);
    for (size_t i = 0; i < n; i++)
        CHECK(w[i].queue_length <= 257);
}

static klaw_err looks(void *arg) {
    for (uint64_t i = 0; i < rounds(2000); i++) {
        klaw_snapshot *snap;
        char *text;
        size_t size;
        OK(klaw_snapshot_take(&snap));
        looks_sound(snap);
        if (i % 50 == 0) {
            OK(klaw_snapshot_json(snap, &text, &size));
            CHECK(text[0] == '{' && text[size - 1] == '}' && strlen(text) == size);
            klaw_snapshot_text_free(text);
        }
        klaw_snapshot_free(snap);
        if (arg)
            OK(klaw_yield());
    }
    return KLAW_OK;
}

RUNS(snapshots_are_sound_in_the_middle_of_load, 2) {
    klaw_fiber *f[4];
    thread_job t;
    atomic_store(&enough, false);
    for (uintptr_t i = 0; i < 4; i++)
        f[i] = fiber(makes_load, (void *)(i * 1000003));
    thread_start(&t, looks, NULL);
    OK(looks(&t));
    OK(thread_end(&t));
    atomic_store(&enough, true);
    for (int i = 0; i < 4; i++)
        OK(result_of(f[i]));
}

static klaw_err short_run(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++)
        OK(klaw_go(returns_ok, NULL));
    return KLAW_OK;
}

static klaw_err looks_all_the_time(void *arg) {
    (void)arg;
    while (!atomic_load(&enough)) {
        klaw_snapshot *snap;
        OK(klaw_snapshot_take(&snap));
        klaw_snapshot_free(snap);
    }
    return KLAW_OK;
}

PLAIN(snapshots_while_runs_begin_and_end) {
    thread_job t;
    atomic_store(&enough, false);
    thread_start(&t, looks_all_the_time, NULL);
    for (uint32_t i = 0; i < rounds(300); i++) {
        klaw_run_opts o = {.workers = 1 + i % 3};
        OK(klaw_run(short_run, NULL, &o));
    }
    atomic_store(&enough, true);
    OK(thread_end(&t));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_shows_fibers_and_their_scopes),
        TEST(a_snapshot_shows_workers),
        TEST(a_snapshot_without_a_runtime_has_channels_alone),
        TEST(snapshots_are_sound_in_the_middle_of_load),
        TEST(snapshots_while_runs_begin_and_end),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
