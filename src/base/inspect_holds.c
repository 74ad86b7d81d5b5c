/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_holds.c - who waits for whom among published tasks, as their layer has told last (publish.h).
 *
 * Rejected: asking the layer while a snapshot is taken. It may hold a lock of its own (Python's GIL) for long; so it is
 * told of the wish, and what it finds out is in a later snapshot.
 *
 * `lock` (rank REGISTRY) guards the rows; `asking` is held while the looker is called, which does not wait. */
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/inspect.h"
#include "base/lock.h"
#include "klaw/publish.h"

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klaw_hold_info *holds; /* (lock) n_holds of them */
static size_t n_holds;        /* (lock) */

static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
static void (*looker)(void *user); /* (asking) */
static void *looker_user;          /* (asking) */

static size_t count(void) {
    klawi_lock_acquire(&lock);
    size_t n = n_holds;
    klawi_lock_release(&lock);
    return n;
}

static size_t fill(void *out, size_t max) {
    klawi_lock_acquire(&lock);
    size_t n = n_holds;
    if (n && max)
        memcpy(out, holds, (n < max ? n : max) * sizeof *holds);
    klawi_lock_release(&lock);
    return n;
}

static void json(struct klawi_text *t, const void *item) {
    const klaw_hold_info *h = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "waiter_id", h->waiter_id);
    klawi_object_u64(&o, "holder_id", h->holder_id);
    KLAWI_OBJECT_STRING(&o, h, what);
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider provider = {"hold", count, fill, sizeof(klaw_hold_info),
                                                       json};

klaw_err klaw_publish_holds(const klaw_hold_info *rows, size_t n) {
    klaw_hold_info *copy = NULL, *old;
    if (n && !rows)
        return KLAW_INVALID;
    if (n && (copy = klawi_calloc(n, sizeof *copy)) == NULL)
        return KLAW_NOMEM;
    if (n)
        memcpy(copy, rows, n * sizeof *copy);
    (void)klawi_inspect_provide(&provider);
    klawi_lock_acquire(&lock);
    old = holds;
    holds = copy;
    n_holds = n;
    klawi_lock_release(&lock);
    klawi_free(old);
    return KLAW_OK;
}

void klaw_publish_looker(void (*fn)(void *user), void *user) {
    (void)pthread_mutex_lock(&asking);
    looker = fn;
    looker_user = user;
    (void)pthread_mutex_unlock(&asking);
}

void klawi_inspect_look(void) {
    (void)pthread_mutex_lock(&asking);
    if (looker)
        looker(looker_user);
    (void)pthread_mutex_unlock(&asking);
}
