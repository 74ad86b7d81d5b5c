/* SPDX-License-Identifier: Apache-2.0 */
/* publish.c - objects of another language's layer, kept as they were told last.
 *
 * Invariants:
 *   U1  an object is in the list from publishing to unpublishing, under its number, which no other has.
 *   U2  a mailbox in an object is valid: it is exchanged and taken away under the lock alone.
 *
 * The lock (rank REGISTRY; a channel's lock may be taken inside) guards list and contents. Nobody
 * waits. Rejected: asking the other layer at each look: it may hold a lock of its own (Python's GIL) for
 * long, and just then people look. */
#include "klaw/publish.h"

#include <string.h>

#include "actor/actor.h"
#include "actor/publish.h"
#include "base/alloc.h"
#include "flow/executor.h"

enum kind { TASK, ACTOR, SUPERVISOR };

struct klaw_published {
    klawi_link link; /* (L) */
    enum kind kind;  /* (c) */
    uint64_t id;     /* (c) */
    union {          /* (L) */
        klaw_task_info task;
        klaw_actor_stats actor;
        klaw_supervisor_info supervisor;
    };
    klaw_receiver *mailbox;    /* (L) U2 */
    klaw_child_info *children; /* (L) n of them */
    size_t n;
};

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY);
static klawi_link list = {&list, &list};
static _Atomic uint32_t tasks = 1; /* numbered per executor; theirs is 0 */

static klaw_err publish(enum kind kind, const void *now, size_t size, klaw_receiver *mailbox,
                        klaw_published **out) {
    if (!now || !out)
        return KLAW_INVALID;
    klaw_published *p = klawi_calloc(1, sizeof *p);
    if (!p)
        return KLAW_NOMEM;
    p->kind = kind;
    p->id = kind == ACTOR        ? klawi_actor_number()
            : kind == SUPERVISOR ? klawi_supervisor_number()
                                 : atomic_fetch_add_explicit(&tasks, 1, memory_order_relaxed);
    memcpy(&p->task, now, size);
    p->mailbox = mailbox;
    klawi_inspect_actors();
    klawi_inspect_flow();
    atomic_store_explicit(&klawi_more_tasks, klawi_published_tasks, memory_order_relaxed);
    klawi_lock_acquire(&lock);
    klawi_link_push(&list, &p->link);
    klawi_lock_release(&lock);
    *out = p;
    return KLAW_OK;
}

klaw_err klaw_publish_task(const klaw_task_info *now, klaw_published **out) {
    return publish(TASK, now, sizeof *now, NULL, out);
}

klaw_err klaw_publish_actor(const klaw_actor_stats *now, klaw_receiver *mailbox,
                            klaw_published **out) {
    return publish(ACTOR, now, sizeof *now, mailbox, out);
}

klaw_err klaw_publish_supervisor(const klaw_supervisor_info *now, klaw_published **out) {
    return publish(SUPERVISOR, now, sizeof *now, NULL, out);
}

void klaw_published_actor(klaw_published *p, const klaw_actor_stats *now, klaw_receiver *mailbox) {
    if (!p || !now || p->kind != ACTOR)
        return;
    klawi_lock_acquire(&lock);
    p->actor = *now;
    p->mailbox = mailbox;
    klawi_lock_release(&lock);
}

klaw_err klaw_published_supervisor(klaw_published *p, const klaw_supervisor_info *now,
                                   const klaw_child_info *children, size_t n) {
    klaw_child_info *copy = NULL, *old;
    if (!p || !now || p->kind != SUPERVISOR || (n && !children))
        return KLAW_INVALID;
    if (n && (copy = klawi_calloc(n, sizeof *copy)) == NULL)
        return KLAW_NOMEM;
    if (n)
        memcpy(copy, children, n * sizeof *copy);
    klawi_lock_acquire(&lock);
    old = p->children;
    p->supervisor = *now;
    p->children = copy;
    p->n = n;
    klawi_lock_release(&lock);
    klawi_free(old);
    return KLAW_OK;
}

uint64_t klaw_published_id(const klaw_published *p) {
    return p->id;
}

void klaw_unpublish(klaw_published *p) {
    if (!p)
        return;
    klawi_lock_acquire(&lock);
    klawi_link_remove(&p->link);
    klawi_lock_release(&lock);
    klawi_free(p->children);
    klawi_free(p);
}

/* ---- for inspect.c: each adds to what is there already ---- */

static size_t each(enum kind kind, void *out, size_t max, size_t n,
                   size_t (*fill)(klaw_published *p, void *out, size_t max, size_t n)) {
    klawi_lock_acquire(&lock);
    for (klawi_link *l = list.next; l != &list; l = l->next) {
        klaw_published *p = KLAWI_CONTAINER(l, klaw_published, link);
        if (p->kind == kind)
            n = fill(p, out, max, n);
    }
    klawi_lock_release(&lock);
    return n;
}

static size_t fill_actor(klaw_published *p, void *out, size_t max, size_t n) {
    klaw_channel_stats box;
    if (n >= max)
        return n + 1;
    klaw_actor_stats *o = (klaw_actor_stats *)out + n;
    *o = p->actor;
    o->id = p->id;
    if (p->mailbox && klaw_receiver_stats(p->mailbox, &box) == KLAW_OK) { /* U2 */
        o->mailbox_size = box.queue_size;
        o->capacity = box.capacity;
        o->high_watermark = box.high_watermark;
        o->waiting_senders = box.waiting_senders;
    }
    return n + 1;
}

static size_t fill_supervisor(klaw_published *p, void *out, size_t max, size_t n) {
    if (n < max) {
        klaw_supervisor_info *o = (klaw_supervisor_info *)out + n;
        *o = p->supervisor;
        o->id = p->id;
    }
    return n + 1;
}

static size_t fill_children(klaw_published *p, void *out, size_t max, size_t n) {
    for (size_t i = 0; i < p->n; i++, n++)
        if (n < max) {
            klaw_supervised_info *o = (klaw_supervised_info *)out + n;
            o->supervisor_id = p->id;
            o->child = p->children[i];
        }
    return n;
}

static size_t fill_task(klaw_published *p, void *out, size_t max, size_t n) {
    if (n < max) {
        klaw_task_info *o = (klaw_task_info *)out + n;
        *o = p->task;
        o->id = p->id;
    }
    return n + 1;
}

size_t klawi_published_actors(void *out, size_t max, size_t n) {
    return each(ACTOR, out, max, n, fill_actor);
}
size_t klawi_published_supervisors(void *out, size_t max, size_t n) {
    return each(SUPERVISOR, out, max, n, fill_supervisor);
}
size_t klawi_published_children(void *out, size_t max, size_t n) {
    return each(SUPERVISOR, out, max, n, fill_children);
}
size_t klawi_published_tasks(void *out, size_t max, size_t n) {
    return each(TASK, out, max, n, fill_task);
}
