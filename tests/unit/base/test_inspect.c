/* SPDX-License-Identifier: Apache-2.0 */
/* test_inspect.c - snapshots of fake providers: nothing of the runtime is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/inspect.h"
#include "base/text.h"
#include "klaw/klaw.h"
#include "unit/text_check.h"

/* A kind that no layer provides: the real "fiber", "scope" … may be registered here, too. */

struct toy {
    uint64_t id;
    char name[16];
};

static size_t toys;        /* how many there are */
static bool toys_breed;    /* twice as many at each look */
static size_t toys_stated; /* what count says; SIZE_MAX: the truth */
static int fills;

static size_t toy_count(void) {
    return toys_stated == SIZE_MAX ? toys : toys_stated;
}

static size_t toy_fill(void *out, size_t max) {
    struct toy *t = out;
    fills++;
    if (toys_breed)
        toys *= 2;
    for (size_t i = 0; i < toys && i < max; i++) {
        t[i].id = i + 1;
        (void)snprintf(t[i].name, sizeof t[i].name, "toy %u", (unsigned)i + 1);
    }
    return toys;
}

static void toy_json(struct klawi_text *t, const void *item) {
    const struct toy *toy = item;
    bool first = true;
    klawi_text_str(t, "{");
    klawi_text_member(t, &first, "id");
    klawi_text_u64(t, toy->id);
    klawi_text_member(t, &first, "name");
    (void)klawi_text_json_string(t, toy->name, strnlen(toy->name, sizeof toy->name));
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider toy_provider = {
    .kind = "toy",
    .count = toy_count,
    .fill = toy_fill,
    .item_size = sizeof(struct toy),
    .json = toy_json,
};

static int toys_reset(void **state) {
    (void)state;
    toys = 3;
    toys_breed = false;
    toys_stated = SIZE_MAX;
    fills = 0;
    klaw_alloc_fail_at(0, false);
    return !klawi_inspect_provide(&toy_provider);
}

static int nothing_leaks(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    return klaw_alloc_live() != 0;
}

static klaw_snapshot *take(void) {
    klaw_snapshot *snap = NULL;
    assert_int_equal(klaw_snapshot_take(&snap), KLAW_OK);
    assert_non_null(snap);
    return snap;
}

/* ---- taking ---- */

static void snapshot_has_what_is_provided(void **state) {
    (void)state;
    size_t n = 77;
    klaw_snapshot *snap = take();
    const struct toy *t = klawi_snapshot_items(snap, "toy", &n);
    assert_int_equal(n, 3);
    assert_int_equal(t[2].id, 3);
    assert_string_equal(t[0].name, "toy 1");
    assert_false(klaw_snapshot_truncated(snap));
    assert_true(klaw_snapshot_time(snap) > 1700000000000000000);
    klaw_snapshot_free(snap);
}

static void snapshot_of_unknown_and_empty_kinds_is_null(void **state) {
    (void)state;
    size_t n = 77;
    toys = 0;
    klaw_snapshot *snap = take();
    assert_null(klawi_snapshot_items(snap, "toy", &n));
    assert_int_equal(n, 0);
    n = 77;
    assert_null(klawi_snapshot_items(snap, "dragon", &n));
    assert_int_equal(n, 0);
    klaw_snapshot_free(snap);
    klaw_snapshot_free(NULL);
}

static void snapshot_makes_room_until_it_fits(void **state) {
    (void)state;
    size_t n;
    toys = 1000;
    toys_stated = 0; /* count knew of none */
    klaw_snapshot *snap = take();
    const struct toy *t = klawi_snapshot_items(snap, "toy", &n);
    assert_int_equal(n, 1000);
    assert_int_equal(t[999].id, 1000);
    assert_false(klaw_snapshot_truncated(snap));
    assert_int_equal(fills, 2);
    klaw_snapshot_free(snap);
}

static void snapshot_gives_up_on_an_endless_flood(void **state) {
    (void)state;
    char value[16];
    size_t n, size;
    char *text;
    toys = 1000;
    toys_breed = true; /* always more than the slack */
    klaw_snapshot *snap = take();
    (void)klawi_snapshot_items(snap, "toy", &n);
    assert_true(n > 0 && n < toys);
    assert_true(klaw_snapshot_truncated(snap));
    assert_int_equal(klaw_snapshot_json(snap, &text, &size), KLAW_OK);
    assert_true(json_get(text, size, "truncated", value, sizeof value));
    assert_string_equal(value, "true");
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(snap);
}

static void snapshot_refuses_null(void **state) {
    (void)state;
    char *text = NULL;
    klaw_snapshot *snap = take();
    assert_int_equal(klaw_snapshot_take(NULL), KLAW_INVALID);
    assert_int_equal(klaw_snapshot_json(NULL, &text, NULL), KLAW_INVALID);
    assert_int_equal(klaw_snapshot_json(snap, NULL, NULL), KLAW_INVALID);
    klaw_snapshot_free(snap);
    klaw_snapshot_text_free(NULL);
}

static void snapshot_survives_every_lack_of_memory(void **state) {
    (void)state;
    klaw_err e = KLAW_NOMEM;
    toys = 300;
    uint64_t base = klaw_alloc_live();
    for (uint64_t at = 1; e != KLAW_OK; at++) {
        klaw_snapshot *snap = NULL;
        char *text = NULL;
        assert_true(at < 100);
        klaw_alloc_fail_at(at, false);
        e = klaw_snapshot_take(&snap);
        if (!e)
            e = klaw_snapshot_json(snap, &text, NULL);
        klaw_alloc_fail_at(0, false);
        assert_true(e == KLAW_OK || e == KLAW_NOMEM);
        assert_int_equal(e == KLAW_OK, text != NULL);
        klaw_snapshot_text_free(text);
        klaw_snapshot_free(snap);
        assert_int_equal(klaw_alloc_live(), base);
    }
}

/* ---- JSON ---- */

static void snapshot_json_has_every_kind(void **state) {
    (void)state;
    static const char *const kinds[] = {"workers", "scopes", "fibers", "channels"};
    char value[64];
    char *text = NULL;
    size_t size = 0;
    klaw_snapshot *snap = take();
    assert_int_equal(klaw_snapshot_json(snap, &text, &size), KLAW_OK);
    assert_int_equal(strlen(text), size);
    assert_true(json_valid(text, size));
    for (size_t i = 0; i < 4; i++)
        assert_true(json_count(text, size, kinds[i]) >= 0);
    assert_int_equal(json_count(text, size, "toys"), 3);
    assert_true(json_get(text, size, "toys.1.name", value, sizeof value));
    assert_string_equal(value, "toy 2");
    assert_true(json_get(text, size, "version", value, sizeof value));
    assert_string_equal(value, KLAW_VERSION);
    assert_true(json_get(text, size, "time", value, sizeof value));
    assert_int_equal(strlen(value), 30);
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(snap);
}

/* ---- the four kinds of the library, where nobody else provides them ---- */

static const klaw_fiber_info fibers[] = {
    {.id = 1,
     .scope_id = 2,
     .waiting_id = 3,
     .age = 4,
     .name = "reader",
     .waiting_on = "recv",
     .state = KLAW_FIBER_WAITING,
     .worker = 0,
     .pinned = true},
    {.id = UINT64_MAX,
     .name = "\"\\\n\x01\xff"
             "é",
     .worker = KLAW_NONE,
     .cancelled = true},
    /* Every byte in use: no NUL. */
    {.id = 5, .name = "0123456789abcdef0123456789abcdef", .state = (klaw_fiber_state)99},
};
static const klaw_scope_info scopes[] = {
    {.id = 1, .live = 3, .name = "main"},
    {.id = 2, .parent_id = 1, .deadline = 99, .name = "s", .reason = "deadline", .cancelled = true},
    {.id = 3, .deadline = KLAW_FOREVER, .shield = true},
};
static const klaw_worker_info workers[] = {
    {.turns = 10, .steals = 11, .parks = 12, .queue_length = 13, .fiber_id = 14, .sleeping = true},
};
static const klaw_channel_stats channels[] = {
    {.id = 7, .name = "lines", .kind = "mpmc", .capacity = KLAW_RENDEZVOUS, .total_sent = 100},
};

#define FAKE(kind_, array)                                          \
    static size_t kind_##_count(void) {                             \
        return sizeof array / sizeof array[0];                      \
    }                                                               \
    static size_t kind_##_fill(void *out, size_t max) {             \
        size_t n = sizeof array / sizeof array[0];                  \
        memcpy(out, array, (n < max ? n : max) * sizeof array[0]);  \
        return n;                                                   \
    }                                                               \
    static const struct klawi_inspect_provider kind_##_provider = { \
        .kind = #kind_,                                             \
        .count = kind_##_count,                                     \
        .fill = kind_##_fill,                                       \
        .item_size = sizeof array[0],                               \
    }
FAKE(fiber, fibers);
FAKE(scope, scopes);
FAKE(worker, workers);
FAKE(channel, channels);

/* They must be the first of their kind in this process: nothing of klaw runs before this. */
static int provide_fakes(void **state) {
    (void)state;
    return !(klawi_inspect_provide(&fiber_provider) && klawi_inspect_provide(&scope_provider) &&
             klawi_inspect_provide(&worker_provider) && klawi_inspect_provide(&channel_provider));
}

static char *text;
static size_t text_size;

static const char *got(const char *path) {
    static char value[256];
    return json_get(text, text_size, path, value, sizeof value) ? value : "(none)";
}

static void snapshot_json_members_are_named_as_the_fields(void **state) {
    (void)state;
    size_t n;
    klaw_snapshot *snap = take();
    assert_int_equal(klaw_snapshot_fibers(snap, &n)[1].id, UINT64_MAX);
    assert_int_equal(n, 3);
    assert_int_equal(klaw_snapshot_scopes(snap, &n)[1].parent_id, 1);
    assert_int_equal(n, 3);
    assert_int_equal(klaw_snapshot_workers(snap, &n)[0].parks, 12);
    assert_int_equal(n, 1);
    assert_int_equal(klaw_snapshot_channels(snap, &n)[0].total_sent, 100);
    assert_int_equal(n, 1);
    assert_int_equal(klaw_snapshot_json(snap, &text, &text_size), KLAW_OK);
    assert_true(json_valid(text, text_size));
    assert_string_equal(got("fibers.0.name"), "reader");
    assert_string_equal(got("fibers.0.state"), "waiting");
    assert_string_equal(got("fibers.0.waiting_on"), "recv");
    assert_string_equal(got("fibers.0.waiting_id"), "3");
    assert_string_equal(got("fibers.0.scope_id"), "2");
    assert_string_equal(got("fibers.0.worker"), "0");
    assert_string_equal(got("fibers.0.pinned"), "true");
    assert_string_equal(got("fibers.0.cancelled"), "false");
    assert_string_equal(got("fibers.0.age"), "4");
    assert_string_equal(got("fibers.1.id"), "18446744073709551615");
    assert_string_equal(got("fibers.1.worker"), "null");
    assert_string_equal(got("fibers.1.name"), "\"\\\n\x01\xef\xbf\xbd"
                                              "é");
    assert_string_equal(got("fibers.2.name"), "0123456789abcdef0123456789abcdef");
    assert_string_equal(got("fibers.2.state"), "?");
    assert_string_equal(got("scopes.0.deadline"), "null");
    assert_string_equal(got("scopes.1.deadline"), "99");
    assert_string_equal(got("scopes.1.reason"), "deadline");
    assert_string_equal(got("scopes.2.deadline"), "null");
    assert_string_equal(got("scopes.2.shield"), "true");
    assert_string_equal(got("workers.0.queue_length"), "13");
    assert_string_equal(got("workers.0.sleeping"), "true");
    assert_string_equal(got("channels.0.capacity"), "-1");
    assert_string_equal(got("channels.0.kind"), "mpmc");
    assert_string_equal(got("channels.0.total_sent"), "100");
    assert_string_equal(got("channels.0.receivers_closed"), "false");
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(snap);
}

static void snapshot_json_is_valid_for_any_bytes(void **state) {
    (void)state;
    uint32_t seed = 99;
    for (int round = 0; round < 2000; round++) {
        struct klawi_text t = {.grows = true};
        char name[32];
        for (size_t i = 0; i < sizeof name; i++)
            name[i] = (char)(seed = seed * 1664525u + 1013904223u, seed >> 24);
        assert_true(klawi_text_json_string(&t, name, sizeof name));
        assert_false(t.full);
        assert_true(json_valid(t.p, t.len));
        klaw_snapshot_text_free(t.p);
    }
}

static void fiber_states_have_names(void **state) {
    (void)state;
    assert_string_equal(klaw_fiber_state_name(KLAW_FIBER_NEW), "new");
    assert_string_equal(klaw_fiber_state_name(KLAW_FIBER_RUNNABLE), "runnable");
    assert_string_equal(klaw_fiber_state_name(KLAW_FIBER_RUNNING), "running");
    assert_string_equal(klaw_fiber_state_name(KLAW_FIBER_WAITING), "waiting");
    assert_string_equal(klaw_fiber_state_name(KLAW_FIBER_DONE), "done");
    assert_string_equal(klaw_fiber_state_name((klaw_fiber_state)-1), "?");
    assert_string_equal(klaw_fiber_state_name((klaw_fiber_state)5), "?");
}

/* ---- the table ---- */

static size_t none_count(void) {
    return 0;
}
static size_t none_fill(void *out, size_t max) {
    (void)out;
    (void)max;
    return 0;
}

/* The last test: it fills the table. */
static void providers_are_kept_once_and_have_a_limit(void **state) {
    (void)state;
    static char names[KLAWI_INSPECT_KINDS + 1][16];
    static struct klawi_inspect_provider more[KLAWI_INSPECT_KINDS + 1];
    int added = 0;
    for (int i = 0; i < 100; i++)
        assert_true(klawi_inspect_provide(&toy_provider));
    for (int i = 0; i <= KLAWI_INSPECT_KINDS; i++) {
        (void)snprintf(names[i], sizeof names[i], "none%d", i);
        more[i] = (struct klawi_inspect_provider){names[i], none_count, none_fill, 8, NULL};
        if (!klawi_inspect_provide(&more[i]))
            break;
        added++;
    }
    assert_true(added > 0 && added < KLAWI_INSPECT_KINDS);
    assert_true(klawi_inspect_provide(&toy_provider));
    struct klawi_inspect_provider twin = toy_provider;
    assert_true(klawi_inspect_provide(&twin)); /* the kind is there; this one is not kept */
    klaw_snapshot *snap = take();
    assert_true(fills == 1);
    klaw_snapshot_free(snap);
}

#define T(name) cmocka_unit_test_setup_teardown(name, toys_reset, nothing_leaks)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(snapshot_has_what_is_provided),
        T(snapshot_of_unknown_and_empty_kinds_is_null),
        T(snapshot_makes_room_until_it_fits),
        T(snapshot_gives_up_on_an_endless_flood),
        T(snapshot_refuses_null),
        T(snapshot_survives_every_lack_of_memory),
        T(snapshot_json_has_every_kind),
        T(snapshot_json_members_are_named_as_the_fields),
        T(snapshot_json_is_valid_for_any_bytes),
        T(fiber_states_have_names),
        T(providers_are_kept_once_and_have_a_limit),
    };
    return cmocka_run_group_tests_name("inspect", tests, provide_fakes, NULL);
}
