/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.c - snapshots of an actor's state: when it starts, every interval, when it stops.
 *
 * The actor knows no store: it hands bytes to a klaw_checkpointer, on a thread for blocking calls, and
 * waits for it between two messages, so the bytes are the state of one moment. A save that fails is
 * logged and told to a hook, and the actor goes on; a load that fails (other than NOT_FOUND) fails the
 * start, since an empty state would overwrite the good checkpoint with its next snapshot. */
#include "actor/actor.h"
#include "klaw/log.h"

#define INTERVAL_DEFAULT KLAW_S(60)

typedef struct call {
    klaw_checkpointer *c;
    const char *key;
    klaw_blob *blob;
} call;

static klaw_err do_save(void *arg) {
    call *k = arg;
    return k->c->save(k->c->user, k->key, klaw_blob_data(k->blob), klaw_blob_size(k->blob));
}
static klaw_err do_load(void *arg) {
    call *k = arg;
    return k->c->load(k->c->user, k->key, &k->blob);
}

bool klawi_checkpoint_valid(const klaw_behavior *b, const klaw_actor_opts *o) {
    if (!o->checkpointer)
        return true;
    return b->snapshot && b->restore && o->checkpointer->save && o->checkpointer->load &&
           o->checkpoint_interval >= KLAW_NONE && (!o->checkpoint_key || *o->checkpoint_key);
}

klaw_err klawi_checkpoint_save(klaw_self *s) {
    klaw_actor *a = s->actor;
    call k = {a->opts.checkpointer, a->key, NULL};
    klaw_err e = a->behavior->snapshot(s, s->state, &k.blob);
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s; /* A12: its successor's checkpoint is the newer one */
    klawi_lock_release(&a->lock);
    if (!mine) {
        if (!e)
            klaw_blob_unref(k.blob);
        return KLAW_STOPPED;
    }
    if (!e) {
        e = k.blob ? klaw_blocking(do_save, &k) : KLAW_INVALID;
        klaw_blob_unref(k.blob);
    }
    if (!e) {
        s->save_failures = 0;
        return KLAW_OK;
    }
    s->save_failures++;
    KLAW_LOG_ERROR("checkpoint failed", klaw_log_str("actor", a->name), klaw_log_str("key", a->key),
                   klaw_log_err("error", e), klaw_log_u64("attempt", s->save_failures));
    if (a->opts.on_checkpoint)
        a->opts.on_checkpoint(a->opts.hook_user, a, e, s->save_failures);
    return e;
}

klaw_err klawi_checkpoint_begin(klaw_self *s) {
    klaw_actor *a = s->actor;
    call k = {a->opts.checkpointer, a->key, NULL};
    int64_t every = a->opts.checkpoint_interval;
    klaw_err e = klaw_blocking(do_load, &k);
    if (!e) {
        e = k.blob
                ? a->behavior->restore(s, s->state, klaw_blob_data(k.blob), klaw_blob_size(k.blob))
                : KLAW_CORRUPT;
        klaw_blob_unref(k.blob);
    } else if (e == KLAW_NOT_FOUND) {
        e = KLAW_OK;
    }
    if (!e && every != KLAW_NONE) {
        every = every ? every : INTERVAL_DEFAULT;
        e = klawi_tick_set(s, every, every, 0, true);
    }
    return e;
}

klaw_err klaw_self_checkpoint(klaw_self *self) {
    if (!self || !self->actor->opts.checkpointer)
        return KLAW_INVALID;
    return klawi_checkpoint_save(self);
}
