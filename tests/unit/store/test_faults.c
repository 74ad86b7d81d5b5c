/* SPDX-License-Identifier: Apache-2.0 */
/* test_faults.c - the n-th call to the disk fails, for every n until a run gets through: any I/O error, a full disk, a
 * failing sync; once, or from then on. The call says so with the file's name; what was confirmed stays; after
 * a failed sync the handle does nothing more and touches nothing more.
 *
 * Tried with: an error of sync not remembered (written later is then not 0, and the next call is OK). */
#include <errno.h>

#include "support/disk.h"
#include "support/runs.h"
#include "support/storemodel.h"

#define CHANGES 12

static model *plan;

typedef struct trial {
    int journal;
    disk *d;
    size_t done;  /* changes confirmed */
    size_t begun; /* the last one begun */
    klaw_err error;
    bool reading_failed;
} trial;

static klaw_store *open_on(trial *t, klaw_error_info *info) {
    klaw_store *s = NULL;
    klaw_store_opts o = {.keep = MODEL_KEEP};
    klawi_store_extra extra = {.vfs = "disk", .journal = t->journal};
    memset(info, 0, sizeof *info);
    t->error = klawi_store_open("/disk/klaw.db", &o, &extra, &s, info);
    return t->error ? NULL : s;
}

static void check_error(klaw_err e, const klaw_error_info *info) {
    if (e != KLAW_SYSTEM && e != KLAW_NOMEM)
        check_failed(__FILE__, __LINE__, klaw_err_name(e), info->message);
    CHECK(e == KLAW_NOMEM || strstr(info->message, "/disk/klaw.db"));
    CHECK(e == KLAW_NOMEM || strcmp(info->backend, "sqlite") == 0);
}

/* After a failed sync nothing is done any more, and it says so. */
static void check_final(klaw_store *s) {
    klaw_blob *b = NULL;
    klaw_error_info info;
    GIVES(klaw_store_save(s, "a", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_SYSTEM);
    CHECK(strstr(info.message, "fsync"));
    GIVES(klaw_store_load(s, "a", &b, NULL, KLAW_FOREVER, &info), KLAW_SYSTEM);
    CHECK(strstr(info.message, "fsync"));
}

/* Some changes, the store opened anew in the middle; goes on after an error. */
static void work(trial *t, size_t from, size_t to) {
    klaw_error_info info;
    klaw_store *s = open_on(t, &info);
    if (!s) {
        check_error(t->error, &info);
        return;
    }
    for (size_t i = from; i < to; i++) {
        t->begun = i + 1;
        t->error = model_do(plan, i, s, &info);
        if (t->error) {
            check_error(t->error, &info);
            if (t->d->sync_failed)
                check_final(s);
            break;
        }
        t->done = i + 1;
        klaw_blob *b = NULL;
        klaw_err e =
            klaw_store_load(s, model_keys[plan->change[i].key], &b, NULL, KLAW_FOREVER, &info);
        if (e && e != KLAW_NOT_FOUND) {
            check_error(e, &info);
            t->reading_failed = true;
        }
        klaw_blob_unref(b);
    }
    klaw_store_unref(s);
    t->d->sync_failed =
        false; /* at the latest in the checkpoint of the close; the next handle begins anew */
}

/* What was confirmed is there, and nothing else; it goes on from there. */
static void check_after(trial *t) {
    char why[512] = "";
    klaw_error_info info;
    t->d->fail_at = 0;
    t->d->sync_failed = false;
    klaw_store *s = open_on(t, &info);
    if (!s)
        check_failed(__FILE__, __LINE__, "it opens again", info.message);
    if (!model_holds(&plan->state[t->done], s, why, sizeof why) &&
        !(t->begun != t->done && model_holds(&plan->state[t->begun], s, why, sizeof why)))
        check_failed(__FILE__, __LINE__, "what was confirmed is there", why);
    OK(klaw_store_check(s, NULL, KLAW_FOREVER, NULL));
    OK(klaw_store_save(s, "more", "more", 4, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
}

static void every_call(int journal, bool sticky, bool full, bool syncs) {
    uint64_t n = 1, failed = 0;
    for (bool through = false; !through; n += disk_share()) {
        trial t = {.journal = journal, .d = disk_make()};
        disk_mount(t.d);
        t.d->fail_at = n;
        t.d->sticky = sticky;
        t.d->full = full;
        t.d->fail_syncs = syncs;
        work(&t, 0, CHANGES / 2);
        if (t.error == KLAW_OK)
            work(&t, CHANGES / 2, CHANGES);
        through = !t.d->failed;
        failed += t.error != KLAW_OK;
        if (through)
            SAME(t.done, CHANGES);
        SAME(t.d->refused_later, 0); /* nothing was written after a failed sync */
        check_after(&t);
        disk_free(t.d);
        CHECK(n < 20000);
    }
    CHECK(failed > 10 / disk_share());
    printf("%" PRIu64 " calls, %" PRIu64 " failures seen%s\n", n, failed,
           sticky ? ", and all later ones" : "");
}

static void both(int journal) {
    every_call(journal, false, false, false);
    every_call(journal, true, false, false);
}

PLAIN(any_failing_call_with_a_rollback_journal) {
    both(KLAWI_JOURNAL_ROLLBACK);
}
PLAIN(any_failing_call_with_a_log) {
    both(KLAWI_JOURNAL_WAL);
}
PLAIN(a_full_disk) {
    every_call(KLAWI_JOURNAL_ROLLBACK, true, true, false);
    every_call(KLAWI_JOURNAL_WAL, true, true, false);
}
PLAIN(a_failing_sync_is_final) {
    every_call(KLAWI_JOURNAL_ROLLBACK, false, false, true);
    every_call(KLAWI_JOURNAL_WAL, false, false, true);
}

PLAIN(a_full_disk_says_so) {
    trial t = {.journal = KLAWI_JOURNAL_ROLLBACK, .d = disk_make()};
    klaw_error_info info;
    disk_mount(t.d);
    klaw_store *s = open_on(&t, &info);
    SAME(save_value(s, "a", 100, 1), 1);
    t.d->full = t.d->sticky = true;
    t.d->fail_at = t.d->calls + 1;
    GIVES(klaw_store_save(s, "a", "x", 1, NULL, KLAW_FOREVER, &info), KLAW_SYSTEM);
    SAME(info.sys, ENOSPC);
    CHECK(strstr(info.message, "space") && strstr(info.message, "/disk/klaw.db"));
    SAME(load_value(s, "a", 100, 1), 1);
    t.d->fail_at = 0;
    SAME(save_value(s, "a", 100, 2), 2); /* room again */
    klaw_store_unref(s);
    disk_free(t.d);
}

static int plan_make(void **state) {
    (void)state;
    rng rnd = rng_part(seed_begin(), 0);
    plan = malloc(sizeof *plan);
    CHECK(plan);
    model_make(plan, CHANGES, &rnd);
    return 0;
}
static int plan_free(void **state) {
    (void)state;
    free(plan);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(any_failing_call_with_a_rollback_journal),
        TEST(any_failing_call_with_a_log),
        TEST(a_full_disk),
        TEST(a_failing_sync_is_final),
        TEST(a_full_disk_says_so),
    };
    return cmocka_run_group_tests(tests, plan_make, plan_free);
}
