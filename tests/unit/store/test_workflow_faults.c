/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow_faults.c - workflows on a disk whose n-th call fails, for every n; full disks; records that
 * are damaged. The call says so with the file's name, a step that was kept is kept, the next run goes on.
 *
 * Tried with these bugs seeded: an end whose error is swallowed, rows that are not summed, a lost step that
 * is not counted. */
#include "support/disk.h"
#include "support/random.h"
#include "support/storemodel.h"
#include "support/workflow.h"

#include "store/workflow.h"

static klaw_err open_on(int journal, klaw_store **s, klaw_error_info *info) {
    klaw_store_opts o = {.keep = 0};
    klawi_store_extra extra = {.vfs = "disk", .journal = journal};
    return klawi_store_open("/disk/klaw.db", &o, &extra, s, info);
}

/* --- calls that fail --- */

#define STEPS 3

typedef struct flow {
    int journal;
    job jobs[STEPS];
    int confirmed; /* steps that were answered OK */
} flow;

static klaw_err go_on(flow *f, klaw_error_info *info) {
    static const char *const names[STEPS] = {"a", "b", "c"};
    klaw_store *s = NULL;
    klaw_workflow *wf = NULL;
    klaw_workflow_opts o = {.steps = names, .n_steps = STEPS, .takeover = true};
    klaw_err e = open_on(f->journal, &s, info);
    if (e)
        return e;
    e = klaw_workflow_open(s, "w", &o, &wf, info);
    for (int i = 0; !e && i < STEPS; i++) {
        klaw_blob *b = NULL;
        f->jobs[i].value = 10 + (uint64_t)i;
        e = klaw_workflow_step(wf, names[i], job_fn, &f->jobs[i], NULL, &b, info);
        if (e)
            break;
        SAME(number_of(b), 10 + i);
        if (f->confirmed <= i)
            f->confirmed = i + 1;
    }
    if (!e)
        e = klaw_workflow_finish(wf, NULL, info);
    klaw_workflow_close(wf);
    klaw_store_unref(s);
    return e;
}

static klaw_err run_flow(void *arg, klaw_error_info *info) {
    flow *f = arg;
    *f = (flow){.journal = f->journal};
    return go_on(f, info);
}

/* Another handle, later. */
static void go_on_again(void *arg) {
    flow *f = arg;
    klaw_error_info info = {.sys = 0};
    int runs[STEPS], confirmed = f->confirmed;
    for (int i = 0; i < STEPS; i++)
        runs[i] = f->jobs[i].runs;
    klaw_err e = go_on(f, &info);
    if (e)
        check_failed(__FILE__, __LINE__, klaw_err_name(e), info.message);
    for (int i = 0; i < STEPS; i++) {
        CHECK(f->jobs[i].runs <= 2);
        CHECK(i >= confirmed || f->jobs[i].runs == runs[i]);
    }
}

static void every_call(disk_fault fault) {
    flow f = {.journal = fault.journal};
    disk_every_call(&fault, run_flow, go_on_again, &f);
}

PLAIN(any_call_to_the_disk_may_fail) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK});
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK, .sticky = true});
}
PLAIN(any_call_to_the_disk_may_fail_with_a_log) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_WAL});
}
PLAIN(the_disk_may_be_full) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK, .sticky = true, .full = true});
}
PLAIN(any_sync_may_fail) {
    every_call((disk_fault){.journal = KLAWI_JOURNAL_ROLLBACK, .syncs = true});
}

/* --- damage --- */

static folder dir;
static klaw_store *store;

static klaw_err sql_in(klawi_store_tx *tx, void *arg) {
    sqlite3_stmt *st;
    klaw_err e = klawi_tx_stmt(tx, arg, &st);
    if (!e)
        e = klawi_tx_run(tx, st);
    return e;
}
/* Changes rows behind the library's back; the text has to be a literal. */
static void sql(const char *text) {
    OK(klawi_store_write(store, sql_in, (void *)(uintptr_t)text, KLAW_FOREVER, NULL));
}

static void begin(void) {
    job j = {.value = 1};
    dir = wf_folder();
    store = store_at(dir.file);
    klaw_workflow *wf = WF(store, "w");
    SAME(wf_step(wf, "a", &j), 1);
    SAME(wf_step(wf, "b", &j), 1);
    OK(klaw_workflow_finish(wf, NULL, NULL));
    klaw_workflow_close(wf);
}
static void end(void) {
    klaw_store_unref(store);
    folder_free(&dir);
}

static void is_corrupt(const char *text) {
    klaw_workflow_info i;
    klaw_step_info *steps;
    size_t n;
    klaw_error_info info;
    wf_refuses(store, "w", (klaw_workflow_opts){.takeover = true}, KLAW_CORRUPT, text);
    wf_refuses(store, "w", (klaw_workflow_opts){.takeover = true}, KLAW_CORRUPT, dir.file);
    GIVES(klaw_workflow_inspect(store, "w", &i, &steps, &n, &info), KLAW_CORRUPT);
    CHECK(strstr(info.message, text));
}

PLAIN(a_record_that_was_changed_is_corrupt) {
    static const char *const changes[] = {
        "UPDATE workflow SET token = token - 1",
        "UPDATE workflow SET state = 0",
        "UPDATE workflow SET state = 77",
        "UPDATE workflow SET version = 'other'",
        "UPDATE workflow SET version = zeroblob(500)",
        "UPDATE workflow SET message = CAST(x'410042' AS TEXT)",
        "UPDATE workflow SET steps_done = 1",
        "UPDATE workflow SET sum = sum + 1",
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        klaw_workflow_info *list;
        size_t n;
        begin();
        sql(changes[i]);
        is_corrupt("the record of workflow \"w\" is damaged");
        GIVES(klaw_workflow_cancel(store, "w", NULL, NULL), KLAW_CORRUPT);
        GIVES(klaw_workflow_list_all(store, NULL, &list, &n, NULL), KLAW_CORRUPT);
        end();
    }
}

PLAIN(a_step_that_was_changed_is_corrupt) {
    static const char *const changes[] = {
        "UPDATE workflow_step SET state = 0 WHERE name = 'a'",
        "UPDATE workflow_step SET state = 9 WHERE name = 'a'",
        "UPDATE workflow_step SET attempts = 5 WHERE name = 'a'",
        "UPDATE workflow_step SET result_size = 5 WHERE name = 'a'",
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        begin();
        sql(changes[i]);
        is_corrupt("the record of step \"a\" is damaged");
        end();
    }
    begin();
    sql("UPDATE workflow_step SET name = 'x' WHERE name = 'a'");
    is_corrupt("the record of step \"x\" is damaged");
    end();
    begin();
    sql("DELETE FROM workflow_step WHERE name = 'a'");
    is_corrupt("workflow \"w\" has lost steps");
    end();
}

PLAIN(a_result_that_was_changed_is_corrupt) {
    klaw_blob *b = NULL;
    klaw_error_info info;
    job j = {.value = 1};
    begin();
    sql("UPDATE workflow_step SET result = x'0000000000000001' WHERE name = 'a'");
    klaw_workflow *wf = WF(store, "w");
    GIVES(klaw_workflow_step(wf, "a", job_fn, &j, NULL, &b, &info), KLAW_CORRUPT);
    CHECK(strstr(info.message, "\"a\"") && strstr(info.message, dir.file));
    GIVES(klaw_workflow_kept(wf, "a", &b, NULL), KLAW_CORRUPT);
    SAME(j.runs, 0); /* it is not run again behind the user's back */
    SAME(wf_step(wf, "b", &j), 1);
    klaw_workflow_close(wf);
    end();
}

static klaw_err count_in(klawi_store_tx *tx, void *arg) {
    sqlite3_stmt *st;
    bool row;
    OK(klawi_tx_stmt(tx, "SELECT count(*) FROM workflow_step", &st));
    OK(klawi_tx_step(tx, st, &row));
    *(int64_t *)arg = sqlite3_column_int64(st, 0);
    return KLAW_OK;
}

PLAIN(what_is_deleted_leaves_no_rows) {
    int64_t rows = 0;
    begin();
    OK(klawi_store_read(store, count_in, &rows, KLAW_FOREVER, NULL));
    SAME(rows, 2);
    OK(klaw_workflow_delete(store, "w", false, NULL));
    OK(klawi_store_read(store, count_in, &rows, KLAW_FOREVER, NULL));
    SAME(rows, 0);
    end();
}

PLAIN(a_store_for_reading_only_runs_nothing_and_shows_all) {
    klaw_workflow *wf = NULL;
    klaw_error_info info;
    begin();
    klaw_store_unref(store);
    store = store_with(dir.file, (klaw_store_opts){.salvage = true});
    GIVES(klaw_workflow_open(store, "w", NULL, &wf, &info), KLAW_INVALID);
    CHECK(strstr(info.message, dir.file) && strstr(info.message, "reading only"));
    SAME(wf_look(store, "w").steps_done, 2);
    end();
}

PLAIN(a_store_that_is_closed_meanwhile_stops_a_workflow) {
    job j = {.value = 1};
    dir = wf_folder();
    store = store_at(dir.file);
    klaw_workflow *wf = WF(store, "w");
    klaw_store_close(store);
    GIVES(klaw_workflow_step(wf, "a", job_fn, &j, NULL, NULL, NULL), KLAW_CLOSED);
    GIVES(klaw_workflow_finish(wf, NULL, NULL), KLAW_CLOSED);
    klaw_workflow_close(wf);
    SAME(j.runs, 0);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(any_call_to_the_disk_may_fail),
        TEST(any_call_to_the_disk_may_fail_with_a_log),
        TEST(the_disk_may_be_full),
        TEST(any_sync_may_fail),
        TEST(a_record_that_was_changed_is_corrupt),
        TEST(a_step_that_was_changed_is_corrupt),
        TEST(a_result_that_was_changed_is_corrupt),
        TEST(what_is_deleted_leaves_no_rows),
        TEST(a_store_for_reading_only_runs_nothing_and_shows_all),
        TEST(a_store_that_is_closed_meanwhile_stops_a_workflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
