/* SPDX-License-Identifier: Apache-2.0 */
/* test_damage.c - flipped bits: a load gives what was saved or says CORRUPT, never another answer; a check
 * finds every one; older versions can still be had. Files that are no stores, and newer ones.
 *
 * Mutant it catches, run here: no checksums of pages. */
#include "support/disk.h"
#include "support/runs.h"
#include "support/storemodel.h"

static uint64_t seed;

static klaw_err open_on(disk *d, bool salvage, bool no_sums, klaw_store **s,
                        klaw_error_info *info) {
    klaw_store_opts o = {.keep = MODEL_KEEP, .salvage = salvage};
    klawi_store_extra extra = {.vfs = "disk", .no_sums = no_sums};
    disk_mount(d);
    return klawi_store_open("/disk/klaw.db", &o, &extra, s, info);
}

typedef struct tally {
    uint64_t flips, unopened, found, loads, corrupt, older, older_lost, wrong, silent;
} tally;

static bool is_value(klaw_blob *b, const char *key, const model_version *v) {
    bool same = value_is(b, v->size, key, v->n);
    klaw_blob_unref(b);
    return same;
}

/* Everything of one key. */
static void look(klaw_store *s, const char *key, const model_key *k, tally *t) {
    klaw_blob *b = NULL;
    uint64_t version = 0;
    klaw_error_info info;
    klaw_err e = klaw_store_load(s, key, &b, &version, KLAW_FOREVER, &info);
    t->loads++;
    if (e == KLAW_CORRUPT) {
        t->corrupt++;
        CHECK(strstr(info.message, "/disk/klaw.db"));
    } else if (k->count == 0) {
        t->wrong += e != KLAW_NOT_FOUND;
        klaw_blob_unref(b);
    } else if (e != KLAW_OK || !is_value(b, key, &k->v[k->count - 1]) ||
               version != k->v[k->count - 1].version) {
        t->wrong++;
    }
    for (uint32_t i = 0; i < k->count; i++) {
        b = NULL;
        klaw_err o = klaw_store_load_version(s, key, k->v[i].version, &b, KLAW_FOREVER, &info);
        if (o == KLAW_OK)
            t->wrong += !is_value(b, key, &k->v[i]);
        else
            t->wrong += o != KLAW_CORRUPT;
        if (e == KLAW_CORRUPT && i + 1 < k->count) {
            t->older++;
            t->older_lost += o != KLAW_OK;
        }
    }
}

static void flip_one(disk *d, const model *m, size_t bit, bool no_sums, tally *t) {
    klaw_store *s = NULL;
    klaw_store_report report;
    klaw_error_info info;
    bool found = false;
    d->inode[0].p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    t->flips++;
    klaw_err e = open_on(d, false, no_sums, &s, &info);
    if (e) {
        t->wrong += e != KLAW_CORRUPT;
        t->unopened++;
        found = true;
        if (open_on(d, true, no_sums, &s, &info) != KLAW_OK)
            s = NULL;
    }
    if (s) {
        for (int i = 0; i < MODEL_KEYS; i++)
            look(s, model_keys[i], &m->state[m->n].key[i], t);
        e = klaw_store_check(s, &report, KLAW_FOREVER, &info);
        found |= e == KLAW_CORRUPT;
        t->wrong += e != KLAW_OK && e != KLAW_CORRUPT;
        klaw_store_unref(s);
    }
    t->found += found;
    t->silent += !found;
    d->inode[0].p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    SAME(d->name[DISK_JOURNAL], -1);
}

static tally flip_many(uint64_t n, bool no_sums, bool small) {
    rng rnd = rng_part(seed, small ? 2 : 1);
    model *m = malloc(sizeof *m);
    disk *d = disk_make();
    klaw_store *s = NULL;
    klaw_error_info info;
    tally t = {0};
    CHECK(m);
    model_make(m, small ? 30 : 80, &rnd);
    for (size_t i = 0; small && i < m->n; i++)
        m->change[i].size %= 300;
    if (small)
        for (size_t i = 0; i <= m->n; i++)
            for (int k = 0; k < MODEL_KEYS; k++)
                for (uint32_t j = 0; j < m->state[i].key[k].count; j++)
                    m->state[i].key[k].v[j].size %= 300;
    OK(open_on(d, false, no_sums, &s, &info));
    for (size_t i = 0; i < m->n; i++)
        OK(model_do(m, i, s, &info));
    klaw_store_unref(s);
    SAME(d->name[DISK_DB], 0);
    for (uint64_t i = 0; i < n; i++)
        flip_one(d, m, rng_below(&rnd, (uint32_t)d->inode[0].size * 8), no_sums, &t);
    printf("%" PRIu64 " flips of %zu bytes: %" PRIu64 " found, %" PRIu64
           " not opened but for salvage, "
           "%" PRIu64 " of %" PRIu64 " loads CORRUPT, %" PRIu64 " of %" PRIu64
           " older versions lost with them, %" PRIu64 " wrong\n",
           t.flips, d->inode[0].size, t.found, t.unopened, t.corrupt, t.loads, t.older_lost,
           t.older, t.wrong);
    disk_free(d);
    free(m);
    return t;
}

PLAIN(no_flipped_bit_leads_to_a_wrong_answer) {
    tally t = flip_many(1000 / disk_share(), false, false);
    SAME(t.wrong, 0);
    t = flip_many(1000 / disk_share(), false, true);
    SAME(t.wrong, 0);
    SAME(t.silent, 0); /* all pages are in use */
}

PLAIN(without_checksums_of_pages_flips_go_unseen) {
    tally t = flip_many(1000 / disk_share(), true, false);
    CHECK(t.wrong + t.silent > 0);
}

/* A crash in the middle of a save leaves a journal; a page image in it is damaged: played back under a right checksum
 * it would be believed. */
PLAIN(a_damaged_page_in_a_journal_is_not_played_back) {
    rng rnd = rng_part(seed, 3);
    klaw_store *s = NULL;
    klaw_error_info info;
    disk *d = disk_make(), *crashed = disk_make();
    uint64_t tried = 0;
    OK(open_on(d, false, false, &s, &info));
    for (uint64_t i = 1; i <= 6; i++)
        (void)save_value(s, "k", 300, i);
    d->record = true;
    (void)save_value(s, "k", 300, 7);
    d->record = false;
    klaw_store_unref(s);
    /* Just before the journal goes: all is synced. */
    disk_op *last = &d->ops[d->n_ops - 1];
    CHECK(last->what == DISK_DELETE);
    for (uint64_t i = 0; i < 50; i++) {
        klaw_blob *b = NULL;
        bytes *journal = &crashed->inode[DISK_JOURNAL];
        crashed->inodes = DISK_NAMES;
        for (int n = 0; n < DISK_NAMES; n++)
            crashed->name[n] = -1;
        crashed->name[DISK_DB] = DISK_DB;
        crashed->name[DISK_JOURNAL] = DISK_JOURNAL;
        bytes_set(&crashed->inode[DISK_DB], &d->inode[d->name[DISK_DB]]);
        bytes_set(journal, &d->inode[last->inode]);
        /* A header of one sector; then number, page, SQLite's sum. It sees every 200th byte alone. */
        uint32_t pages = (uint32_t)((journal->size - 4096) / 4104);
        CHECK(pages > 0);
        size_t at = 4096 + (size_t)rng_below(&rnd, pages) * 4104 + 4 + rng_below(&rnd, 4096);
        if (i)
            journal->p[at] ^= (unsigned char)(1u << rng_below(&rnd, 8));
        klaw_err e = open_on(crashed, false, false, &s, &info);
        if (i == 0) {
            OK(e);
            SAME(load_value(s, "k", 300, 6), 6);
            klaw_store_unref(s);
        } else if (e == KLAW_OK) { /* SQLite's own sum has stopped before it */
            e = klaw_store_load(s, "k", &b, NULL, KLAW_FOREVER, &info);
            CHECK(e == KLAW_CORRUPT ||
                  (e == KLAW_OK && (value_is(b, 300, "k", 6) || value_is(b, 300, "k", 7))));
            klaw_blob_unref(b);
            klaw_store_unref(s);
        } else {
            GIVES(e, KLAW_CORRUPT);
            CHECK(crashed->name[DISK_JOURNAL] >= 0); /* it stays */
            tried++;
        }
    }
    CHECK(tried > 30);
    disk_free(d);
    disk_free(crashed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(no_flipped_bit_leads_to_a_wrong_answer),
        TEST(without_checksums_of_pages_flips_go_unseen),
        TEST(a_damaged_page_in_a_journal_is_not_played_back),
    };
    seed = seed_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
