/* SPDX-License-Identifier: Apache-2.0 */
/* test_checkpoint.c - actors that keep their state in a store: every interval, when they stop, on request; restored on
 * a restart, by the next actor of that key and by the next process; older snapshots when the newest is damaged.
 *
 * The tests of processes come first: their parent has not used klaw yet. Tried with: no load at the start, no save at the
 * stop. */
#include "support/child.h"
#include "support/runs.h"
#include "support/store.h"

static folder dir;
static klaw_store *store;
static klaw_checkpointer keeper;

/* A counter: adds the message, answers with the sum; 1000 makes it fail. */
#define FAIL 1000u

static klaw_err count(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t *sum = state, add = *(uint64_t *)message;
    (void)self;
    if (add == FAIL)
        return KLAW_LIMIT;
    *sum += add;
    if (reply)
        *(uint64_t *)reply = *sum;
    return KLAW_OK;
}
static klaw_err snapshot(klaw_self *self, void *state, klaw_blob **out) {
    (void)self;
    return klaw_u64.encode(state, out);
}
static klaw_err restore(klaw_self *self, void *state, const void *bytes, size_t size) {
    (void)self;
    return klaw_u64.decode(bytes, size, state);
}
static const klaw_behavior counter = {.name = "counter",
                                      .message = &klaw_u64,
                                      .reply = &klaw_u64,
                                      .state_size = sizeof(uint64_t),
                                      .handle = count,
                                      .snapshot = snapshot,
                                      .restore = restore};

static klaw_actor *spawn(int64_t interval) {
    klaw_actor *a = NULL;
    klaw_actor_opts o = {
        .checkpointer = &keeper, .checkpoint_interval = interval, .no_backoff = true};
    OK(klaw_actor_spawn(&counter, NULL, &o, &a));
    return a;
}
static uint64_t add(klaw_actor *a, uint64_t n) {
    uint64_t sum = 0;
    OK(klaw_actor_ask(a, &n, &sum, KLAW_WITHIN(SOON_NS)));
    return sum;
}
static void stop(klaw_actor *a) {
    klaw_err why;
    klaw_actor_stop(a);
    OK(klaw_actor_join(a, KLAW_WITHIN(SOON_NS), &why));
    OK(why);
    klaw_actor_unref(a);
}
/* The sum in the newest snapshot; KLAW_NONE: there is none. */
static int64_t saved(uint64_t *version) {
    klaw_blob *b = NULL;
    uint64_t sum = 0;
    klaw_err e = klaw_store_load(store, "counter", &b, version, KLAW_FOREVER, NULL);
    if (e == KLAW_NOT_FOUND)
        return KLAW_NONE;
    OK(e);
    OK(klaw_u64.decode(klaw_blob_data(b), klaw_blob_size(b), &sum));
    klaw_blob_unref(b);
    return (int64_t)sum;
}

static void begin(void) {
    dir = folder_make();
    store = store_at(dir.file);
    klaw_store_checkpointer(store, &keeper);
}
static void end(void) {
    klaw_store_unref(store);
    folder_free(&dir);
}

RUNS(a_snapshot_is_taken_when_it_stops_and_restored_by_the_next, 2) {
    begin();
    klaw_actor *a = spawn(KLAW_NONE);
    SAME(add(a, 5), 5);
    SAME(saved(NULL), KLAW_NONE);
    stop(a);
    SAME(saved(NULL), 5);
    a = spawn(KLAW_NONE);
    SAME(add(a, 2), 7);
    stop(a);
    SAME(saved(NULL), 7);
    end();
}

RUNS(a_snapshot_is_taken_every_interval, 2) {
    uint64_t version = 0;
    begin();
    klaw_actor *a = spawn(KLAW_MS(1));
    SAME(add(a, 3), 3);
    UNTIL(saved(&version) == 3 && version >= 3);
    SAME(add(a, 4), 7);
    UNTIL(saved(NULL) == 7);
    stop(a);
    end();
}

RUNS(a_restart_goes_on_from_the_last_snapshot, 2) {
    uint64_t fail = FAIL;
    begin();
    klaw_actor *a = spawn(KLAW_NONE);
    SAME(add(a, 5), 5);
    stop(a);
    a = spawn(KLAW_NONE);
    SAME(add(a, 100), 105); /* lost: nothing was saved since */
    GIVES(klaw_actor_ask(a, &fail, &fail, KLAW_WITHIN(SOON_NS)), KLAW_LIMIT);
    SAME(add(a, 1), 6);
    stop(a);
    end();
}

static _Atomic int warnings;
static void on_log(const klaw_log_record *record, void *user) {
    (void)user;
    if (strstr(record->message, "checkpoint damaged"))
        atomic_fetch_add(&warnings, 1);
}

static void damage_newest(void) {
    size_t n;
    klaw_store_unref(store);
    unsigned char *bytes = file_bytes(dir.file, &n), newest[8] = {77};
    unsigned char *at = memmem(bytes, n, newest, sizeof newest);
    CHECK(at);
    at[1] ^= 1;
    file_write(dir.file, bytes, n);
    free(bytes);
    store = store_at(dir.file);
    klaw_store_checkpointer(store, &keeper);
}

RUNS(the_newest_whole_snapshot_is_taken_when_the_last_is_damaged, 2) {
    uint64_t hook;
    begin();
    klaw_actor *a = spawn(KLAW_NONE);
    SAME(add(a, 5), 5);
    stop(a);
    a = spawn(KLAW_NONE);
    SAME(add(a, 72), 77);
    stop(a);
    damage_newest();
    klaw_log_set_fd(KLAW_NONE);
    klaw_log_set_level(KLAW_LEVEL_WARN);
    OK(klaw_log_hook_add(on_log, NULL, NULL, &hook));
    a = spawn(KLAW_NONE);
    SAME(add(a, 1), 6);
    SAME(warnings, 1);
    klaw_actor_kill(a);
    OK(klaw_actor_join(a, KLAW_WITHIN(SOON_NS), NULL));
    klaw_actor_unref(a);
    OK(klaw_log_hook_remove(hook));
    klaw_log_set_level(KLAW_LEVEL_OFF);
    klaw_log_set_fd(2);
    end();
}

/* ---- the next process ---- */

static int part;

static klaw_err process_body(void *arg) {
    (void)arg;
    store = store_at(dir.file);
    klaw_store_checkpointer(store, &keeper);
    klaw_actor *a = spawn(KLAW_MS(1));
    if (part == 0) {
        SAME(add(a, 41), 41);
        UNTIL(saved(NULL) == 41);
        _exit(0); /* without a stop */
    }
    SAME(add(a, 1), 42);
    stop(a);
    klaw_store_unref(store);
    return KLAW_OK;
}
static int process(void) {
    return klaw_run(process_body, NULL, NULL) == KLAW_OK ? 0 : 1;
}

static void the_next_process_restores_it(void **state) {
    (void)state;
    check_test = "the_next_process_restores_it";
    dir = folder_make();
    for (part = 0; part < 2; part++)
        child_ok(process);
    folder_free(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_process_restores_it),
        TEST(a_snapshot_is_taken_when_it_stops_and_restored_by_the_next),
        TEST(a_snapshot_is_taken_every_interval),
        TEST(a_restart_goes_on_from_the_last_snapshot),
        TEST(the_newest_whole_snapshot_is_taken_when_the_last_is_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
