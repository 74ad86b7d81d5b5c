/* SPDX-License-Identifier: Apache-2.0 */
/* test_crash_states.c - power loss at any instant: a run of changes is recorded on a disk in memory; from every prefix
 * of the record disks are made on which unsynced writes are lost, torn or out of order (disk.h), and each has to open
 * with what was confirmed, whole, or that and the change that was under way.
 *
 * Mutants it catches, run here each time: synchronous OFF, NORMAL and (for the rollback journal) FULL; for the
 * log OFF and NORMAL. */
#include "support/disk.h"
#include "support/runs.h"
#include "support/storemodel.h"

static uint64_t seed;

typedef struct plan {
    klawi_store_extra extra;
    size_t changes;
    uint64_t states; /* at least */
} plan;

static klaw_store *open_on(disk *d, const plan *p, klaw_error_info *info) {
    klaw_store *s = NULL;
    klaw_store_opts o = {.keep = MODEL_KEEP};
    disk_mount(d);
    if (klawi_store_open("/disk/klaw.db", &o, &p->extra, &s, info) != KLAW_OK)
        return NULL;
    return s;
}

/* All changes, recorded; the store is opened anew now and then. */
static void record(disk *d, const model *m, const plan *p, rng *rnd) {
    klaw_error_info info;
    d->record = true;
    klaw_store *s = open_on(d, p, &info);
    CHECK(s);
    for (size_t i = 0; i < m->n; i++) {
        if (rng_one_in(rnd, 12)) {
            klaw_store_unref(s);
            s = open_on(d, p, &info);
            CHECK(s);
        }
        disk_begin(d, i + 1);
        OK(model_do(m, i, s, &info));
        disk_done(d, i + 1);
    }
    klaw_store_unref(s);
    d->record = false;
}

/* One state: NULL when it is as it should be, else why not. */
static const char *wrong(disk *d, const model *m, const plan *p, const disk_replay *r, rng *rnd) {
    static char why[512];
    klaw_error_info info;
    klaw_store_report report;
    klaw_store *s = open_on(d, p, &info);
    if (!s) {
        snprintf(why, sizeof why, "it does not open: %s", info.message);
        return why;
    }
    bool good = model_holds(&m->state[r->done], s, why, sizeof why) ||
                (r->begun != r->done && model_holds(&m->state[r->begun], s, why, sizeof why));
    if (good && klaw_store_check(s, &report, KLAW_FOREVER, &info) != KLAW_OK) {
        snprintf(why, sizeof why, "check: %s", info.message);
        good = false;
    }
    if (good && rng_one_in(rnd, 16)) { /* it goes on from there */
        good = klaw_store_save(s, "more", "more", 4, NULL, KLAW_FOREVER, &info) == KLAW_OK;
        snprintf(why, sizeof why, "no further save: %s", info.message);
    }
    klaw_store_unref(s);
    return good ? NULL : why;
}

/* How many states were wrong; `all`: goes on after the first. */
static uint64_t explore(const plan *p, bool quiet, uint64_t *states) {
    rng rnd = rng_part(seed, p->changes);
    model *m = malloc(sizeof *m);
    disk *d = disk_make(), *crashed = disk_make();
    uint64_t found = 0;
    CHECK(m);
    model_make(m, p->changes, &rnd);
    record(d, m, p, &rnd);
    disk_replay *r = replay_make(d);
    uint64_t each = p->states / d->n_ops + 1;
    *states = 0;
    while (r->at < d->n_ops && (found == 0 || !quiet)) {
        replay_step(r);
        if (!quiet && rng_below(&rnd, disk_share()) != 0)
            continue;
        for (uint64_t i = 0; i < each && (found == 0 || !quiet); i++, ++*states) {
            replay_crash(r, crashed, &rnd);
            const char *why = wrong(crashed, m, p, r, &rnd);
            if (why) {
                found++;
                if (!quiet) {
                    fprintf(stderr, "after op %zu of %zu, change %zu confirmed, %zu begun: %s\n",
                            r->at, d->n_ops, r->done, r->begun, why);
                    CHECK(found < 5);
                }
            }
        }
    }
    replay_free(r);
    disk_free(d);
    disk_free(crashed);
    free(m);
    return found;
}

static void holds(int journal, size_t changes, uint64_t states) {
    plan p = {.extra = {.vfs = "disk", .journal = journal},
              .changes = changes,
              .states = rounds(states) / disk_share()};
    uint64_t tried;
    SAME(explore(&p, false, &tried), 0);
    printf("%" PRIu64 " crash states\n", tried);
}
static void caught(int journal, const char *synchronous) {
    plan p = {.extra = {.vfs = "disk", .journal = journal, .synchronous = synchronous},
              .changes = 60,
              .states = 10000};
    uint64_t tried;
    CHECK(explore(&p, true, &tried) > 0);
    printf("synchronous=%s: caught after %" PRIu64 " states\n", synchronous, tried);
}

PLAIN(what_was_confirmed_is_there_after_a_power_loss_with_a_rollback_journal) {
    holds(KLAWI_JOURNAL_ROLLBACK, 90, 10000);
}
PLAIN(what_was_confirmed_is_there_after_a_power_loss_with_a_log) {
    holds(KLAWI_JOURNAL_WAL, 90, 3000);
}
PLAIN(syncing_less_is_caught_with_a_rollback_journal) {
    caught(KLAWI_JOURNAL_ROLLBACK, "OFF");
    caught(KLAWI_JOURNAL_ROLLBACK, "NORMAL");
    caught(KLAWI_JOURNAL_ROLLBACK, "FULL");
}
PLAIN(syncing_less_is_caught_with_a_log) {
    caught(KLAWI_JOURNAL_WAL, "OFF");
    caught(KLAWI_JOURNAL_WAL, "NORMAL");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_was_confirmed_is_there_after_a_power_loss_with_a_rollback_journal),
        TEST(what_was_confirmed_is_there_after_a_power_loss_with_a_log),
        TEST(syncing_less_is_caught_with_a_rollback_journal),
        TEST(syncing_less_is_caught_with_a_log),
    };
    seed = seed_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
