/* SPDX-License-Identifier: Apache-2.0 */
/* late.c - who has not ended in a runtime object: the fibers of a snapshot that are in its scopes,
 * each told as what it is to the program: a task, an actor, a fiber.
 *
 * A snapshot is consistent per object, so somebody who ends meanwhile may be in it or not. Scopes
 * and owners of fibers are looked up by bisection: there may be very many of all of them. */
#include "runtime/late.h"

#include <stdlib.h>
#include <string.h>

#include "actor/actor.h"
#include "base/alloc.h"
#include "klaw/inspect.h"

struct owner {
    uint64_t fiber_id, id;
    const char *name, *kind;
};

static int by_scope(const void *a, const void *b) {
    uint64_t x = ((const klaw_scope_info *)a)->id, y = ((const klaw_scope_info *)b)->id;
    return (x > y) - (x < y);
}
static int by_fiber(const void *a, const void *b) {
    uint64_t x = ((const struct owner *)a)->fiber_id, y = ((const struct owner *)b)->fiber_id;
    return (x > y) - (x < y);
}

static bool is_inside(const klaw_scope_info *scopes, size_t n, uint64_t id, uint64_t outer) {
    for (size_t i = 0; i <= n && id != 0; i++) {
        klaw_scope_info key = {.id = id};
        if (id == outer)
            return true;
        const klaw_scope_info *s = bsearch(&key, scopes, n, sizeof *scopes, by_scope);
        id = s ? s->parent_id : 0;
    }
    return false;
}

static uint64_t fiber_of(klaw_actor *a) {
    klawi_lock_acquire(&a->lock);
    klaw_fiber *f = a->self ? a->self->fiber : NULL;
    uint64_t id = f ? f->id : 0;
    klawi_lock_release(&a->lock);
    return id;
}

/* The fibers of tasks and actors, sorted. */
static size_t find_owners(const struct klawi_late_where *w, const klaw_snapshot *snap,
                          struct owner *out) {
    size_t n_tasks, n = 0;
    const klaw_task_info *tasks = klaw_snapshot_tasks(snap, &n_tasks);
    for (size_t i = 0; i < n_tasks; i++)
        if (tasks[i].executor_id == w->executor_id && tasks[i].fiber_id)
            out[n++] = (struct owner){tasks[i].fiber_id, tasks[i].id, tasks[i].name, "task"};
    for (size_t i = 0; i < w->n_actors; i++) {
        uint64_t fiber_id = fiber_of(w->actors[i]);
        if (fiber_id)
            out[n++] = (struct owner){fiber_id, klaw_actor_id(w->actors[i]),
                                      klaw_actor_name(w->actors[i]), "actor"};
    }
    qsort(out, n, sizeof *out, by_fiber);
    return n;
}

static void describe(klaw_late *out, const klaw_fiber_info *f, const struct owner *o) {
    memset(out, 0, sizeof *out);
    out->id = o ? o->id : f->id;
    strncpy(out->name, o ? o->name : f->name, sizeof out->name - 1);
    strncpy(out->kind, o ? o->kind : "fiber", sizeof out->kind - 1);
    memcpy(out->waiting_on, f->waiting_on, sizeof out->waiting_on);
}

size_t klawi_late_find(const struct klawi_late_where *where, klaw_late *out, size_t *n,
                       bool *incomplete) {
    klaw_snapshot *snap;
    size_t n_fibers, n_scopes, n_tasks, count = 0;
    *n = 0;
#if defined(KLAWI_DET)
    /* A snapshot passes a point per descriptor there ever was: the schedule would depend on those
     * before it. */
    *incomplete = true;
    return 0;
#endif
    if (klaw_snapshot_take(&snap) != KLAW_OK) {
        *incomplete = true;
        return 0;
    }
    const klaw_fiber_info *fibers = klaw_snapshot_fibers(snap, &n_fibers);
    const klaw_scope_info *in = klaw_snapshot_scopes(snap, &n_scopes);
    (void)klaw_snapshot_tasks(snap, &n_tasks);
    klaw_scope_info *scopes = klawi_calloc(n_scopes + 1, sizeof *scopes);
    struct owner *owners = klawi_calloc(n_tasks + where->n_actors + 1, sizeof *owners);
    if (!scopes || !owners || klaw_snapshot_truncated(snap))
        *incomplete = true;
    if (scopes && owners) {
        if (n_scopes)
            memcpy(scopes, in, n_scopes * sizeof *scopes);
        qsort(scopes, n_scopes, sizeof *scopes, by_scope);
        size_t n_owners = find_owners(where, snap, owners);
        for (size_t i = 0; i < n_fibers; i++) {
            struct owner key = {.fiber_id = fibers[i].id};
            if (fibers[i].state == KLAW_FIBER_DONE ||
                !is_inside(scopes, n_scopes, fibers[i].scope_id, where->scope_id))
                continue;
            if (count++ < KLAW_SHUTDOWN_NAMED)
                describe(&out[(*n)++], &fibers[i],
                         bsearch(&key, owners, n_owners, sizeof key, by_fiber));
        }
    }
    klawi_free(scopes);
    klawi_free(owners);
    klaw_snapshot_free(snap);
    return count;
}
