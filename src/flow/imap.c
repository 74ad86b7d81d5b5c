/* SPDX-License-Identifier: Apache-2.0 */
/* imap.c - a map as an iterator: results while items still run, bounded in flight.
 *
 * There are in_flight slots; each holds an item, its result and its task. The caller of
 * klaw_imap_next fills free slots from the source, then waits: in the order of the items for the
 * task of the next slot (slots are used round robin), else for whichever ends first (a group, see
 * gather.c). All but the tasks is the caller's own, so there is no lock.
 *
 * Invariants between two calls:
 *   V1  given <= taken <= given + slots; taken - given slots have a task, the others are free.
 *   V2  ordered: the item i is in slot i % slots.
 *   V3  end is set once: no item is taken from the source after that.
 *   V4  an item that there was no memory to submit waits in `drawn` and is submitted before another
 *       is taken: running out of memory costs time, no item.
 *
 * Rejected: a producer fiber of its own with channels both ways (two switches an item, and the
 * source would run somewhere the user did not call it from). */
#include <string.h>

#include "base/alloc.h"
#include "flow/executor.h"

#define IN_FLIGHT_DEFAULT 64u
#define ALIGNED(n) (((n) + 15u) / 16u * 16u)

typedef struct slot {
    klawi_watch watch; /* first */
    klaw_imap *it;     /* (c) */
    klaw_task *task;   /* NULL: free */
    struct slot *next; /* free list */
    uint64_t index;
    char *item, *result; /* (c) */
} slot;

struct klaw_imap {
    klaw_executor *ex;
    klaw_map_fn fn;
    void *arg;
    klaw_imap_opts o;
    klaw_retry_opts retry;
    klawi_group group;
    uint32_t n;
    uint64_t taken, given;
    bool ended;
    klaw_err end; /* what klaw_imap_next answers when all is given out */
    slot *free;
    slot *drawn; /* V4 */
    char *buffers;
    slot slots[];
};

static klaw_err run_slot(void *p) {
    slot *s = p;
    return s->it->fn(s->item, s->result, s->it->arg);
}

klaw_err klaw_imap_open_sized(klaw_executor *ex, klaw_map_fn fn, void *arg,
                              const klaw_imap_opts *opts, size_t opts_size, klaw_imap **out) {
    klaw_imap_opts o = {0};
    size_t bytes, each, all;
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (!ex || !fn || !out || (!o.next && o.n && o.item_size && !o.items) ||
        o.task.blocking < KLAW_NONE)
        return KLAW_INVALID;
    uint32_t n = o.in_flight ? o.in_flight : IN_FLIGHT_DEFAULT;
    if (o.item_size > SIZE_MAX / 4 || o.result_size > SIZE_MAX / 4)
        return KLAW_NOMEM;
    each = ALIGNED(o.item_size) + ALIGNED(o.result_size);
    if (__builtin_mul_overflow(each, (size_t)n, &all) ||
        __builtin_mul_overflow(sizeof(slot), (size_t)n, &bytes))
        return KLAW_NOMEM;
    klaw_imap *it = klawi_calloc(1, sizeof *it + bytes);
    if (!it || (all && (it->buffers = klawi_calloc(1, all)) == NULL)) {
        klawi_free(it);
        return KLAW_NOMEM;
    }
    it->ex = klaw_executor_ref(ex);
    it->fn = fn;
    it->arg = arg;
    it->o = o;
    if (o.task.retry) {
        it->retry = *o.task.retry;
        it->o.task.retry = &it->retry;
    }
    klawi_context_ref(o.task.context);
    klawi_group_init(&it->group);
    it->n = n;
    for (uint32_t i = n; i-- > 0;) {
        slot *s = &it->slots[i];
        s->it = it;
        s->item = each ? it->buffers + i * each : NULL;
        s->result = each ? s->item + ALIGNED(o.item_size) : NULL;
        s->next = it->free;
        it->free = s;
    }
    *out = it;
    return KLAW_OK;
}

/* --- the source --- */
static klaw_err next_item(klaw_imap *it, void *item) {
    if (it->o.next)
        return it->o.next(item, it->o.user);
    if (it->taken == it->o.n)
        return KLAW_CLOSED;
    if (it->o.item_size)
        memcpy(item, (const char *)it->o.items + it->taken * it->o.item_size, it->o.item_size);
    return KLAW_OK;
}

/* Takes one item, unless one is left from before. */
static klaw_err draw(klaw_imap *it) {
    slot *s = it->o.ordered ? &it->slots[it->taken % it->n] : it->free;
    if (it->drawn)
        return KLAW_OK;
    klaw_err e = next_item(it, s->item);
    if (e)
        return e;
    it->drawn = s;
    if (!it->o.ordered)
        it->free = s->next;
    return KLAW_OK;
}

/* Hands over the item that was drawn. */
static klaw_err launch(klaw_imap *it) {
    klaw_task_opts o;
    slot *s = it->drawn;
    klaw_err e = klawi_task_opts_merge(it->ex, &it->o.task, sizeof o, &o);
    if (!e)
        e = klawi_submit(it->ex, run_slot, s, &o, false, &s->task);
    if (e)
        return e == KLAW_CLOSED ? KLAW_STOPPED : e;
    s->index = it->taken++;
    it->drawn = NULL;
    if (!it->o.ordered)
        klawi_watch_add(&s->watch, s->task, &it->group);
    return KLAW_OK;
}

/* --- results --- */
static void give(klaw_imap *it, slot *s, void *result, klaw_imap_item *item) {
    klaw_err e = KLAW_OK, joined = klaw_task_join(s->task, KLAW_NOWAIT, &e, NULL);
    KLAWI_ASSERT(joined == KLAW_OK);
    (void)joined;
    if (item)
        *item = (klaw_imap_item){s->index, e};
    if (result && it->o.result_size && e == KLAW_OK)
        memcpy(result, s->result, it->o.result_size);
    klaw_task_unref(s->task);
    s->task = NULL;
    if (!it->o.ordered) {
        s->next = it->free;
        it->free = s;
    }
    it->given++;
}

klaw_err klaw_imap_next(klaw_imap *it, void *result, klaw_imap_item *item, klaw_deadline deadline) {
    klaw_err e = KLAW_OK;
    slot *s;
    if (!it)
        return KLAW_INVALID;
    while (!it->ended && !e && it->taken - it->given < it->n) {
        bool drawn = (e = draw(it)) == KLAW_OK;
        if (drawn)
            e = launch(it);
        it->ended = e && !(drawn && e == KLAW_NOMEM); /* V3, V4 */
    }
    if (it->ended && e)
        it->end = e;
    if (it->taken == it->given)
        return it->ended ? it->end : e;
    if (it->o.ordered) {
        s = &it->slots[it->given % it->n];
        e = klaw_task_join(s->task, deadline, NULL, NULL);
    } else {
        klawi_watch *w = NULL;
        e = klawi_group_next(&it->group, deadline, false, &w);
        s = (slot *)(void *)w;
    }
    if (e)
        return e;
    give(it, s, result, item);
    return KLAW_OK;
}

void klaw_imap_close(klaw_imap *it) {
    if (!it)
        return;
    for (uint32_t i = 0; i < it->n; i++)
        klaw_task_cancel(it->slots[i].task, "iterator closed");
    for (uint32_t i = 0; i < it->n; i++)
        if (it->slots[i].task) {
            klawi_task_await(it->slots[i].task);
            klaw_task_unref(it->slots[i].task);
        }
    klawi_context_unref(it->o.task.context);
    klaw_executor_unref(it->ex);
    klawi_free(it->buffers);
    klawi_free(it);
}
