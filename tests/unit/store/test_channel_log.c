/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_log.c - the journal of a durable channel: what was appended is there, in order, after any
 * end: another handle, kill -9, a power loss at any instant, a disk whose n-th call fails.
 *
 * Tried with these bugs seeded: a compaction that keeps what it replaces, or that forgets where the log
 * begins now, an append without the check of the holder, a load that does not count. */
#include <spawn.h>
#include <sys/wait.h>

#include "store/channel_log.h"
#include "support/disk.h"
#include "support/runs.h"
#include "support/storemodel.h"

extern char **environ;

static const unsigned char ID[KLAW_REMOTE_ID] = "0123456789abcdef";
static const unsigned char OTHER[KLAW_REMOTE_ID] = "0123456789abcdeF";
static char self[4096];
static folder dir;

static klaw_channel_log *log_at(const char *path, bool existing) {
    klaw_channel_log *l = NULL;
    klaw_error_info info = {.sys = 0};
    klaw_channel_log_opts o = {.existing = existing};
    klaw_err e = klaw_channel_log_open(path, ID, &o, &l, &info);
    if (e)
        check_failed(__FILE__, __LINE__, klaw_err_name(e), info.message);
    return l;
}

/* --- a history: step i appends value i, or begins anew with it --- */

static bool compacts(size_t i) {
    return i % 7 == 5;
}
static size_t size_of(size_t i) {
    return i % 11 == 3 ? 9000 + i : 1 + i % 300;
}
static klaw_err step(klaw_channel_log *l, size_t i, klaw_error_info *info) {
    static unsigned char value[16384];
    value_fill(value, size_of(i), "r", i);
    return compacts(i) ? klaw_channel_log_compact(l, value, size_of(i), KLAW_FOREVER, info)
                       : klaw_channel_log_append(l, value, size_of(i), KLAW_FOREVER, info);
}

/* Whether it holds what steps 1 .. n leave. */
static bool holds_steps(klaw_channel_log *l, size_t n, char *why, size_t room) {
    klaw_channel_log_contents c;
    klaw_channel_log_counts counts;
    klaw_error_info info = {.sys = 0};
    size_t from = n;
    klaw_err e = klaw_channel_log_load(l, &c, KLAW_FOREVER, &info);
    if (e) {
        snprintf(why, room, "load: %s: %s", klaw_err_name(e), info.message);
        return false;
    }
    while (from > 0 && !compacts(from))
        from--;
    bool same = c.n == n - from && (c.snapshot != NULL) == (from > 0);
    if (same && from)
        same = value_is(c.snapshot, size_of(from), "r", from);
    for (size_t i = 0; same && i < c.n; i++)
        same = value_is(c.records[i], size_of(from + 1 + i), "r", from + 1 + i);
    snprintf(why, room, "%zu records%s, not those of %zu steps", c.n,
             c.snapshot ? " and a snapshot" : "", n);
    klaw_channel_log_look(l, &counts);
    CHECK(counts.records == c.n && (counts.snapshot_bytes > 0) == (c.snapshot != NULL));
    klaw_channel_log_contents_free(&c);
    return same;
}
static void is_after(klaw_channel_log *l, size_t n) {
    char why[512];
    if (!holds_steps(l, n, why, sizeof why))
        check_failed(__FILE__, __LINE__, "contents", why);
}

/* --- in short --- */

PLAIN(what_was_appended_comes_back_in_order) {
    dir = folder_make();
    klaw_channel_log *l = log_at(dir.file, false);
    is_after(l, 0);
    for (size_t i = 1; i <= 40; i++) {
        OK(step(l, i, NULL));
        is_after(l, i);
        if (i % 5 == 0) {
            klaw_channel_log_free(l);
            l = log_at(dir.file, true);
            is_after(l, i);
        }
    }
    klaw_channel_log_free(l);
    folder_free(&dir);
}

PLAIN(another_channels_log_and_a_missing_one_are_refused) {
    klaw_channel_log *l = NULL;
    klaw_error_info info = {.sys = 0};
    klaw_channel_log_opts there = {.existing = true};
    dir = folder_make();
    GIVES(klaw_channel_log_open(dir.file, ID, &there, &l, &info), KLAW_NOT_FOUND);
    CHECK(strstr(info.message, "klaw.db"));
    CHECK(access(dir.file, F_OK) != 0);
    GIVES(klaw_channel_log_open("/nowhere/at/all", ID, &there, &l, &info), KLAW_NOT_FOUND);
    klaw_store_unref(store_at(dir.file)); /* a store without a log */
    GIVES(klaw_channel_log_open(dir.file, ID, &there, &l, &info), KLAW_NOT_FOUND);
    klaw_channel_log_free(log_at(dir.file, false));
    GIVES(klaw_channel_log_open(dir.file, OTHER, NULL, &l, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "another channel"));
    CHECK(!l);
    klaw_channel_log_free(log_at(dir.file, true));
    folder_free(&dir);
}

PLAIN(the_last_to_open_is_the_only_holder) {
    klaw_channel_log_contents c;
    klaw_error_info info = {.sys = 0};
    dir = folder_make();
    klaw_channel_log *old = log_at(dir.file, false);
    OK(step(old, 1, NULL));
    klaw_channel_log *l = log_at(dir.file, true);
    GIVES(step(old, 2, &info), KLAW_STOPPED);
    CHECK(strstr(info.message, "taken over"));
    GIVES(klaw_channel_log_compact(old, "x", 1, KLAW_FOREVER, NULL), KLAW_STOPPED);
    GIVES(klaw_channel_log_load(old, &c, KLAW_FOREVER, NULL), KLAW_STOPPED);
    OK(step(l, 2, NULL));
    is_after(l, 2);
    klaw_channel_log_free(old);
    klaw_channel_log_close(l);
    GIVES(step(l, 3, NULL), KLAW_CLOSED);
    klaw_channel_log_close(l);
    klaw_channel_log_free(l);
    klaw_channel_log_free(NULL);
    klaw_channel_log_close(NULL);
    folder_free(&dir);
}

PLAIN(wrong_arguments_are_refused) {
    klaw_channel_log *l = NULL;
    klaw_channel_log_contents c;
    klaw_error_info info = {.sys = 0};
    dir = folder_make();
    GIVES(klaw_channel_log_open(NULL, ID, NULL, &l, NULL), KLAW_INVALID);
    GIVES(klaw_channel_log_open(dir.file, NULL, NULL, &l, NULL), KLAW_INVALID);
    GIVES(klaw_channel_log_open(dir.file, ID, NULL, NULL, NULL), KLAW_INVALID);
    l = log_at(dir.file, false);
    GIVES(klaw_channel_log_append(l, "", 0, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_channel_log_append(l, NULL, 3, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_channel_log_append(NULL, "x", 1, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_channel_log_append(l, "x", KLAW_STORE_VALUE_MAX + 1, KLAW_FOREVER, &info),
          KLAW_LIMIT);
    GIVES(klaw_channel_log_load(l, NULL, KLAW_FOREVER, &info), KLAW_INVALID);
    GIVES(klaw_channel_log_load(NULL, &c, KLAW_FOREVER, &info), KLAW_INVALID);
    OK(klaw_channel_log_compact(l, NULL, 0, KLAW_FOREVER, &info)); /* an empty snapshot is one */
    OK(klaw_channel_log_load(l, &c, KLAW_FOREVER, &info));
    CHECK(c.snapshot && klaw_blob_size(c.snapshot) == 0 && c.n == 0);
    klaw_channel_log_contents_free(&c);
    klaw_channel_log_contents_free(NULL);
    klaw_channel_log_free(l);
    folder_free(&dir);
}

RUNS(fibers_append_one_after_the_other, 2) {
    char why[256];
    dir = folder_make();
    klaw_channel_log *l = log_at(dir.file, false);
    for (size_t i = 1; i <= 4; i++)
        OK(step(l, i, NULL));
    CHECK(holds_steps(l, 4, why, sizeof why));
    klaw_channel_log_free(l);
    folder_free(&dir);
}

/* --- damage --- */

static klaw_err sql_in(klawi_store_tx *tx, void *arg) {
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(tx, arg, &st);
    return e ? e : klawi_tx_run(tx, st);
}

/* Rows changed behind the library's back; the text has to be a literal. */
static void is_noticed(const char *sql) {
    klaw_channel_log_contents c;
    klaw_error_info info = {.sys = 0};
    dir = folder_make();
    klaw_channel_log *l = log_at(dir.file, false);
    for (size_t i = 1; i <= 9; i++) /* 5 compacts */
        OK(step(l, i, NULL));
    klaw_store *s = store_at(dir.file);
    OK(klawi_store_write(s, sql_in, (void *)(uintptr_t)sql, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    klaw_err e = klaw_channel_log_load(l, &c, KLAW_FOREVER, &info);
    if (e != KLAW_CORRUPT)
        check_failed(__FILE__, __LINE__, sql, klaw_err_name(e));
    CHECK(strstr(info.message, dir.file));
    klaw_channel_log_free(l);
    folder_free(&dir);
}

PLAIN(changed_rows_are_corrupt) {
    is_noticed("UPDATE channel_record SET bytes = zeroblob(7) WHERE number = 6");
    is_noticed("UPDATE channel_record SET bytes = zeroblob(length(bytes)) WHERE number = 5");
    is_noticed("UPDATE channel_record SET snapshot = 1 WHERE number = 6");
    is_noticed("UPDATE channel_record SET snapshot = 0 WHERE number = 5");
    is_noticed("UPDATE channel_record SET size = size + 1 WHERE number = 7");
    is_noticed("DELETE FROM channel_record WHERE number = 5");
    is_noticed("DELETE FROM channel_record WHERE number = 7");
    is_noticed("DELETE FROM channel_record WHERE number = 9");
    is_noticed("INSERT INTO channel_record SELECT 10, snapshot, size, sum, bytes FROM "
               "channel_record WHERE number = 9");
    is_noticed("UPDATE channel SET next = next - 1");
    is_noticed("UPDATE channel SET channel = zeroblob(16)");
    is_noticed("UPDATE channel SET channel = zeroblob(15)");
    is_noticed("DELETE FROM channel");
}

/* --- calls to the disk that fail --- */

static klaw_err open_on(int journal, klaw_channel_log **l, klaw_error_info *info) {
    klaw_store *s = NULL;
    klaw_store_opts o = {.keep = 0};
    klawi_store_extra extra = {.vfs = "disk", .journal = journal};
    klaw_err e = klawi_store_open("/disk/klaw.db", &o, &extra, &s, info);
    if (!e)
        e = klawi_channel_log_on(s, ID, false, 0, l, info);
    if (e)
        klaw_store_unref(s);
    return e;
}

#define FAULT_STEPS 7

typedef struct trial {
    int journal;
    size_t done; /* steps that were confirmed */
} trial;

/* Runs steps while they succeed. */
static klaw_err run_steps(void *arg, klaw_error_info *info) {
    trial *t = arg;
    klaw_channel_log *l = NULL;
    klaw_err e = open_on(t->journal, &l, info);
    for (t->done = 0; !e && t->done < FAULT_STEPS; t->done += e == KLAW_OK)
        e = step(l, t->done + 1, info);
    klaw_channel_log_free(l);
    return e;
}

/* Another handle, later. */
static void look_again(void *arg) {
    trial *t = arg;
    klaw_channel_log *l = NULL;
    char why[512];
    OK(open_on(t->journal, &l, NULL));
    /* After an error of fsync it is open whether the change is there. */
    if (!holds_steps(l, t->done, why, sizeof why) && !holds_steps(l, t->done + 1, why, sizeof why))
        check_failed(__FILE__, __LINE__, "contents", why);
    klaw_channel_log_free(l);
}

static void every_call(disk_fault fault) {
    trial t = {.journal = fault.journal};
    disk_every_call(&fault, run_steps, look_again, &t);
    SAME(t.done, FAULT_STEPS);
}

PLAIN(any_call_to_the_disk_may_fail) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK});
    every_call((disk_fault){.journal = KLAWI_JOURNAL_WAL});
}
PLAIN(the_disk_may_be_full) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK, .sticky = true, .full = true});
}
PLAIN(any_sync_may_fail) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK, .syncs = true});
    every_call((disk_fault){.journal = KLAWI_JOURNAL_WAL, .syncs = true});
}

/* --- power loss --- */

static void survives(int journal, size_t steps, uint64_t states) {
    rng rnd = rng_part(seed_begin(), steps);
    disk *d = disk_make(), *crashed = disk_make();
    klaw_error_info info = {.sys = 0};
    klaw_channel_log *l = NULL;
    uint64_t tried = 0;
    disk_mount(d);
    d->record = true;
    OK(open_on(journal, &l, &info));
    for (size_t i = 1; i <= steps; i++) {
        if (rng_one_in(&rnd, 12)) {
            klaw_channel_log_free(l);
            OK(open_on(journal, &l, &info));
        }
        disk_begin(d, i);
        OK(step(l, i, &info));
        disk_done(d, i);
    }
    klaw_channel_log_free(l);
    d->record = false;
    disk_replay *r = replay_make(d);
    uint64_t each = rounds(states) / disk_share() / d->n_ops + 1;
    while (r->at < d->n_ops) {
        replay_step(r);
        if (rng_below(&rnd, disk_share()) != 0)
            continue;
        for (uint64_t i = 0; i < each; i++, tried++) {
            char why[512] = "";
            replay_crash(r, crashed, &rnd);
            disk_mount(crashed);
            klaw_err e = open_on(journal, &l, &info);
            if (e)
                check_failed(__FILE__, __LINE__, klaw_err_name(e), info.message);
            if (!holds_steps(l, r->done, why, sizeof why) &&
                !holds_steps(l, r->begun, why, sizeof why))
                check_failed(__FILE__, __LINE__, "after a power loss", why);
            klaw_channel_log_free(l);
        }
    }
    replay_free(r);
    disk_free(d);
    disk_free(crashed);
    printf("%" PRIu64 " crash states\n", tried);
}

PLAIN(what_was_confirmed_is_there_after_a_power_loss) {
    survives(KLAWI_JOURNAL_ROLLBACK, 40, 2500);
    survives(KLAWI_JOURNAL_WAL, 40, 1000);
}

/* --- kill -9 --- */

/* Another process: goes on from `from`, a byte on standard output for each confirmed step, until it dies. */
static int writer_main(const char *path, size_t from) {
    klaw_channel_log *l = log_at(path, false);
    is_after(l, from);
    for (size_t i = from + 1; i < 100000; i++) {
        OK(step(l, i, NULL));
        SAME(write(1, "c", 1), 1);
    }
    return 0;
}

PLAIN(what_was_confirmed_is_there_after_a_kill) {
    size_t done = 0;
    dir = folder_make();
    for (uint64_t round = 0; round < rounds(12); round++) {
        char from[24], buf[64], why[512];
        const char *argv[] = {self, dir.file, from, NULL};
        posix_spawn_file_actions_t fa;
        int out[2], status;
        pid_t pid;
        ssize_t got;
        snprintf(from, sizeof from, "%zu", done);
        SAME(pipe2(out, O_CLOEXEC), 0);
        SAME(posix_spawn_file_actions_init(&fa), 0);
        SAME(posix_spawn_file_actions_adddup2(&fa, out[1], 1), 0);
        SAME(posix_spawn(&pid, self, &fa, NULL, (char **)(uintptr_t)argv, environ), 0);
        posix_spawn_file_actions_destroy(&fa);
        close(out[1]);
        for (size_t heard = 0; heard < 3 + round % 5; heard += (size_t)got, done += (size_t)got)
            CHECK((got = read(out[0], buf, 1)) == 1);
        kill(pid, SIGKILL);
        while ((got = read(out[0], buf, sizeof buf)) > 0)
            done += (size_t)got;
        close(out[0]);
        SAME(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        klaw_channel_log *l = log_at(dir.file, true);
        if (holds_steps(l, done + 1, why, sizeof why)) /* committed, not yet said */
            done++;
        is_after(l, done);
        klaw_channel_log_free(l);
    }
    printf("%zu steps\n", done);
    folder_free(&dir);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(what_was_appended_comes_back_in_order),
        TEST(another_channels_log_and_a_missing_one_are_refused),
        TEST(the_last_to_open_is_the_only_holder),
        TEST(wrong_arguments_are_refused),
        TEST(fibers_append_one_after_the_other),
        TEST(changed_rows_are_corrupt),
        TEST(any_call_to_the_disk_may_fail),
        TEST(the_disk_may_be_full),
        TEST(any_sync_may_fail),
        TEST(what_was_confirmed_is_there_after_a_power_loss),
        TEST(what_was_confirmed_is_there_after_a_kill),
    };
    if (argc == 3) {
        check_test = "writer";
        alarm(120);
        return writer_main(argv[1], strtoul(argv[2], NULL, 10));
    }
    CHECK(realpath(argv[0], self) != NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
