/* SPDX-License-Identifier: Apache-2.0 */
/* storemodel.h - what a store should hold after each of a row of random changes, and whether one does. */
#ifndef KLAW_TESTS_SUPPORT_STOREMODEL_H
#define KLAW_TESTS_SUPPORT_STOREMODEL_H

#include "store/store_core.h"
#include "support/random.h"
#include "support/store.h"

#define MODEL_KEYS 5
#define MODEL_KEEP 3
#define MODEL_CHANGES 512

typedef struct model_version {
    uint64_t version, n; /* value n of its key */
    uint32_t size;
} model_version;
typedef struct model_key {
    model_version v[MODEL_KEEP]; /* oldest first */
    uint32_t count;
} model_key;
typedef struct model_state {
    model_key key[MODEL_KEYS];
} model_state;
typedef struct model_change {
    uint8_t key;
    bool deletes; /* all of the key */
    uint32_t size;
} model_change;

/* state[i]: after i changes. */
typedef struct model {
    model_change change[MODEL_CHANGES];
    model_state state[MODEL_CHANGES + 1];
    size_t n;
} model;

static const char *const model_keys[MODEL_KEYS] = {"a", "bb", "counter/1", "counter/2", "z"};

static inline void model_make(model *m, size_t n, rng *rnd) {
    CHECK(n <= MODEL_CHANGES);
    memset(m, 0, sizeof *m);
    m->n = n;
    for (size_t i = 0; i < n; i++) {
        model_change *c = &m->change[i];
        c->key = (uint8_t)rng_below(rnd, MODEL_KEYS);
        c->size = rng_one_in(rnd, 4) ? rng_below(rnd, 30000) : rng_below(rnd, 300);
        m->state[i + 1] = m->state[i];
        model_key *k = &m->state[i + 1].key[c->key];
        c->deletes = k->count && rng_one_in(rnd, 10);
        if (c->deletes) {
            k->count = 0;
            continue;
        }
        uint64_t version = k->count ? k->v[k->count - 1].version + 1 : 1;
        if (k->count == MODEL_KEEP)
            memmove(&k->v[0], &k->v[1], --k->count * sizeof k->v[0]);
        k->v[k->count++] = (model_version){version, i + 1, c->size};
    }
}

/* Change i (from 0) done to a store. */
static inline klaw_err model_do(const model *m, size_t i, klaw_store *s, klaw_error_info *info) {
    static unsigned char value[32768];
    const model_change *c = &m->change[i];
    const char *key = model_keys[c->key];
    if (c->deletes)
        return klaw_store_delete(s, key, 0, KLAW_FOREVER, info);
    value_fill(value, c->size, key, i + 1);
    return klaw_store_save(s, key, value, c->size, NULL, KLAW_FOREVER, info);
}

/* Whether the store holds exactly this; `why` says what differs. */
static inline bool model_holds(const model_state *want, klaw_store *s, char *why, size_t size) {
    klaw_error_info info;
    for (int i = 0; i < MODEL_KEYS; i++) {
        const model_key *k = &want->key[i];
        klaw_store_entries all;
        klaw_err e = klaw_store_versions(s, model_keys[i], &all, KLAW_FOREVER, &info);
        if (e != (k->count ? KLAW_OK : KLAW_NOT_FOUND)) {
            snprintf(why, size, "key %s: %s: %s", model_keys[i], klaw_err_name(e),
                     e ? info.message : "versions");
            klaw_store_entries_free(&all);
            return false;
        }
        bool same = all.n == k->count;
        for (size_t j = 0; same && j < all.n; j++)
            same = all.entries[j].version == k->v[k->count - 1 - j].version;
        if (!same)
            snprintf(why, size, "key %s: %zu versions up to %llu, not %u up to %llu", model_keys[i],
                     all.n, all.n ? (unsigned long long)all.entries[0].version : 0, k->count,
                     k->count ? (unsigned long long)k->v[k->count - 1].version : 0);
        klaw_store_entries_free(&all);
        for (uint32_t j = 0; same && j < k->count; j++) {
            klaw_blob *b = NULL;
            e = klaw_store_load_version(s, model_keys[i], k->v[j].version, &b, KLAW_FOREVER, &info);
            same = e == KLAW_OK && value_is(b, k->v[j].size, model_keys[i], k->v[j].n);
            if (!same)
                snprintf(why, size, "key %s, version %llu: %s: %s", model_keys[i],
                         (unsigned long long)k->v[j].version, klaw_err_name(e),
                         e ? info.message : "another value");
            klaw_blob_unref(b);
        }
        if (!same)
            return false;
    }
    return true;
}

#endif
