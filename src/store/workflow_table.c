/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_table.c - the steps an open workflow knows, by name.
 *
 * A hash table with chains; wf->lock guards it. Memory is taken outside of the lock: a step is made first
 * and put in then, buckets are made first and exchanged then. Names are not secrets and come from
 * the program itself: FNV-1a serves. */
#include <string.h>

#include "base/alloc.h"
#include "store/workflow.h"

static uint64_t hash_of(const char *s) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
    return h ^ h >> 32;
}

struct klawi_wf_step *klawi_wf_step_find(klaw_workflow *wf, const char *name) {
    uint64_t h = hash_of(name);
    struct klawi_wf_step *s = wf->n_buckets ? wf->buckets[h & (wf->n_buckets - 1)] : NULL;
    while (s && (s->hash != h || strcmp(s->name, name) != 0))
        s = s->next;
    return s;
}

struct klawi_wf_step *klawi_wf_step_make(const char *name) {
    size_t n = strlen(name) + 1;
    struct klawi_wf_step *s = klawi_calloc(1, sizeof *s + n);
    if (s) {
        s->hash = hash_of(name);
        memcpy(s->name, name, n);
    }
    return s;
}

void klawi_wf_step_add(klaw_workflow *wf, struct klawi_wf_step *s) {
    struct klawi_wf_step **b = &wf->buckets[s->hash & (wf->n_buckets - 1)];
    s->next = *b;
    *b = s;
    s->after = NULL;
    *wf->last = s;
    wf->last = &s->after;
    wf->n_steps++;
}

klaw_err klawi_wf_table_grow(klaw_workflow *wf) {
    struct klawi_wf_step **fresh = NULL, **old = NULL;
    klawi_lock_acquire(&wf->lock);
    size_t now = wf->n_buckets, want = now ? now : 16;
    while (want < wf->n_steps)
        want *= 2;
    klawi_lock_release(&wf->lock);
    if (want == now)
        return KLAW_OK;
    fresh = klawi_calloc(want, sizeof(void *));
    if (!fresh)
        return now ? KLAW_OK : KLAW_NOMEM; /* full chains are only slow */
    klawi_lock_acquire(&wf->lock);
    if (wf->n_buckets < want) {
        old = wf->buckets;
        wf->buckets = fresh;
        wf->n_buckets = want;
        for (struct klawi_wf_step *s = wf->first; s; s = s->after) {
            struct klawi_wf_step **b = &fresh[s->hash & (want - 1)];
            s->next = *b;
            *b = s;
        }
        fresh = NULL;
    }
    klawi_lock_release(&wf->lock);
    klawi_free((void *)old);
    klawi_free((void *)fresh);
    return KLAW_OK;
}

void klawi_wf_table_free(klaw_workflow *wf) {
    struct klawi_wf_step *s = wf->first, *after;
    for (; s; s = after) {
        after = s->after;
        klawi_free(s);
    }
    klawi_free((void *)wf->buckets);
    wf->buckets = NULL;
    wf->n_buckets = wf->n_steps = wf->unasked = 0;
    wf->first = NULL;
    wf->last = &wf->first;
}
