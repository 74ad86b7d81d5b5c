/* SPDX-License-Identifier: Apache-2.0 */
/* graph.c - the wait-for graph, and its solution.
 *
 * A host waits for any one of several others (the last users of the other side's open ends, the
 * members of a scope, the actor that is asked): it goes on when one of them does. So who can go on at
 * all is a least fixpoint: begin with those that run or wait for a clock or a descriptor, add whoever waits
 * for one of them, until nothing changes. The rest can never go on: each of its waits leads into itself.
 *
 * What is not known counts as alive, so that a deadlock that is told is one:
 *   - a wait with a deadline, on a descriptor, in a blocking call, of an idle actor, for a cancellation;
 *   - an end whose holder nobody knows, or who has only made it and may have handed it on: whoever runs may
 *     have it (`any`); with nobody left who runs, and no thread outside, it is nobody;
 *   - a foreign operation without a label, a thread that is not seen waiting;
 *   - a task of an event loop whose own layer has not told who may end its wait (klaw_hold_info): there an endpoint is an
 *     object that any number of tasks may have, so who used it last says nothing.
 *
 * Rings for people are the shortest walk along edges from a dead node back to itself. */
#include "graph.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- nodes ---- */

static int by_host(const void *a, const void *b) {
    const cli_node *x = a, *y = b;
    if (x->kind != y->kind)
        return (x->kind > y->kind) - (x->kind < y->kind);
    return (x->id > y->id) - (x->id < y->id);
}

size_t cli_graph_find(const cli_graph *g, klaw_host_kind kind, uint64_t id) {
    cli_node key = {.kind = kind, .id = id};
    const cli_node *found = g->n ? bsearch(&key, g->nodes, g->n, sizeof *g->nodes, by_host) : NULL;
    return found ? (size_t)(found - g->nodes) : g->n;
}

static void quote(char *out, size_t size, const char *what, const char *name, uint64_t id) {
    char clean[48];
    cli_clean(clean, sizeof clean, name, 32);
    snprintf(out, size, "%s '%s' (#%llu)", what, clean, (unsigned long long)id);
}

/* Fibers are called by what they are for. */
static void name_nodes(cli_graph *g, const cli_snapshot *s) {
    for (size_t i = 0; i < s->n_tasks; i++) {
        const klaw_task_info *t = &s->tasks[i];
        size_t k = t->fiber_id      ? cli_graph_find(g, KLAW_HOST_FIBER, t->fiber_id)
                   : t->executor_id ? g->n
                                    : cli_graph_find(g, KLAW_HOST_FOREIGN, t->id);
        if (k < g->n)
            quote(g->nodes[k].name, sizeof g->nodes[k].name, "task", t->name, t->id);
    }
    for (size_t i = 0; i < s->n_actors; i++) {
        const klaw_actor_stats *a = &s->actors[i];
        size_t k = a->fiber_id ? cli_graph_find(g, KLAW_HOST_FIBER, a->fiber_id) : g->n;
        if (k < g->n)
            quote(g->nodes[k].name, sizeof g->nodes[k].name, "actor", a->name, a->id);
    }
}

static bool make_nodes(cli_graph *g, const cli_snapshot *s) {
    size_t n = 0;
    g->nodes = calloc(s->n_fibers + s->n_waits + s->n_holds + 1, sizeof *g->nodes);
    if (!g->nodes)
        return false;
    for (size_t i = 0; i < s->n_fibers; i++) {
        const klaw_fiber_info *f = &s->fibers[i];
        if (f->state == KLAW_FIBER_DONE)
            continue;
        cli_node *k = &g->nodes[n++];
        k->kind = KLAW_HOST_FIBER;
        k->id = f->id;
        k->count = f->waits;
        k->waiting = f->state == KLAW_FIBER_WAITING;
        k->alive = !k->waiting || f->timed;
        quote(k->name, sizeof k->name, "fiber", f->name, f->id);
    }
    for (size_t i = 0; i < s->n_waits; i++) {
        const klaw_wait_info *w = &s->waits[i];
        if (w->host == KLAW_HOST_FIBER || w->host_id == 0)
            continue;
        cli_node *k = &g->nodes[n++];
        k->kind = w->host;
        k->id = w->host_id;
        k->waiting = true;
        k->alive = w->timed || (w->host == KLAW_HOST_FOREIGN && !cli_holds(s, w->host_id));
        snprintf(k->name, sizeof k->name, "%s #%llu",
                 w->host == KLAW_HOST_THREAD ? "thread" : "task", (unsigned long long)w->host_id);
    }
    for (size_t i = 0; i < s->n_holds; i++) {
        uint64_t id = s->holds[i].waiter_id;
        if ((i > 0 && s->holds[i - 1].waiter_id == id) || !cli_foreign_task(s, id))
            continue; /* it has ended since */
        cli_node *k = &g->nodes[n++];
        k->kind = KLAW_HOST_FOREIGN;
        k->id = id;
        k->waiting = true;
    }
    qsort(g->nodes, n, sizeof *g->nodes, by_host);
    /* Who waits on several channels stands there several times. */
    for (size_t i = 0; i < n; i++) {
        if (g->n > 0 && by_host(&g->nodes[g->n - 1], &g->nodes[i]) == 0) {
            g->nodes[g->n - 1].alive |= g->nodes[i].alive;
            continue;
        }
        g->nodes[g->n++] = g->nodes[i];
    }
    name_nodes(g, s);
    return true;
}

/* ---- edges ---- */

static void add_edge(cli_graph *g, cli_node *from, size_t to, uint64_t channel, bool made) {
    if (g->n_edges == g->room) {
        size_t room = g->room ? 2 * g->room : 256;
        cli_edge *more = realloc(g->edges, room * sizeof *more);
        if (!more) {
            g->memory = false;
            return;
        }
        g->edges = more;
        g->room = room;
    }
    g->edges[g->n_edges++] = (cli_edge){to, channel, made};
    from->n++;
}

/* The first of an array sorted by channel. */
static const klaw_endpoint_info *ends_of(const cli_snapshot *s, uint64_t channel) {
    size_t low = 0, high = s->n_endpoints;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->endpoints[middle].channel_id < channel)
            low = middle + 1;
        else
            high = middle;
    }
    return s->endpoints + low;
}

static bool thread_exists(long pid, uint64_t tid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/task/%llu", pid, (unsigned long long)tid);
    return pid == 0 || access(path, F_OK) == 0;
}

/* Waits on one channel: for those who hold its other side. */
static void channel_edges(cli_graph *g, const cli_snapshot *s, cli_node *from, uint64_t channel,
                          bool sends, long pid) {
    size_t ends = 0, gone = 0;
    const klaw_endpoint_info *last = s->endpoints + s->n_endpoints;
    for (const klaw_endpoint_info *e = ends_of(s, channel); e < last && e->channel_id == channel;
         e++) {
        if (e->sender == sends)
            continue;
        size_t k = cli_graph_find(g, e->host, e->host_id);
        ends++;
        if (e->host == KLAW_HOST_RUNTIME) {
            from->alive = true;
        } else if (e->host == KLAW_HOST_UNKNOWN || (e->host == KLAW_HOST_FOREIGN && !e->host_id)) {
            from->any = true;
        } else if (k < g->n) {
            from->any |=
                !e->used || e->host == KLAW_HOST_FOREIGN; /* a Python object may be anybody's */
            add_edge(g, from, k, channel, !e->used);
        } else if (e->host == KLAW_HOST_FIBER ||
                   (e->host == KLAW_HOST_THREAD && !thread_exists(pid, e->host_id))) {
            from->any = true; /* it may have handed the end on */
            gone++;
        } else {
            from->alive = true; /* a thread or a task that runs */
        }
    }
    from->lost |= ends > 0 && gone == ends;
    if (ends == 0)
        from->alive = true; /* it is being woken */
}

/* A task of an event loop: what its layer has told. */
static void hold_edges(cli_graph *g, const cli_snapshot *s, cli_node *from, bool on_channel) {
    const klaw_hold_info *h = cli_holds(s, from->id), *end = s->holds + s->n_holds;
    from->alive |= !h || (!*h->what && !on_channel); /* it is being woken */
    if (h && *h->what && !on_channel) {
        char clean[64];
        cli_clean(clean, sizeof clean, h->what, 48);
        snprintf(from->waits, sizeof from->waits, "for %s", clean);
    }
    for (; h && h < end && h->waiter_id == from->id; h++) {
        size_t k = h->holder_id ? cli_graph_find(g, KLAW_HOST_FOREIGN, h->holder_id) : g->n;
        if (k < g->n)
            add_edge(g, from, k, from->channel, false);
        else
            from->alive = true;
    }
}

static bool is_inside(const cli_snapshot *s, uint64_t scope, uint64_t outer) {
    for (size_t i = 0; scope && i <= s->n_scopes; i++) {
        const klaw_scope_info *in = cli_scope(s, scope);
        if (scope == outer)
            return true;
        scope = in ? in->parent_id : 0;
    }
    return false;
}

/* To the fiber; who is not there any more has just ended. */
static void fiber_edge(cli_graph *g, cli_node *from, uint64_t fiber) {
    size_t k = fiber ? cli_graph_find(g, KLAW_HOST_FIBER, fiber) : g->n;
    if (k < g->n)
        add_edge(g, from, k, 0, false);
    else
        from->alive = true;
}

static void executor_edges(cli_graph *g, const cli_snapshot *s, cli_node *from, uint64_t id) {
    size_t before = from->n;
    for (size_t i = 0; i < s->n_tasks; i++)
        if (s->tasks[i].executor_id == id && s->tasks[i].fiber_id)
            fiber_edge(g, from, s->tasks[i].fiber_id);
    from->alive |= from->n == before;
}

/* All tasks of this number, whosever executor they are of: too many ways out are no wrong alarm. */
static void task_edges(cli_graph *g, const cli_snapshot *s, cli_node *from, uint64_t id) {
    const klaw_task_info *t = cli_task(s, id), *end = s->tasks + s->n_tasks;
    from->alive |= !t;
    for (; t && t < end && t->id == id; t++)
        if (t->fiber_id)
            fiber_edge(g, from, t->fiber_id);
        else
            executor_edges(g, s, from, t->executor_id);
}

static void other_edges(cli_graph *g, const cli_snapshot *s, cli_node *from,
                        const klaw_fiber_info *f) {
    const char *what = f->waiting_on;
    uint64_t id = f->waiting_id;
    const klaw_actor_stats *a = cli_actor(s, id);
    if (strcmp(what, "join") == 0 && id) {
        fiber_edge(g, from, id);
    } else if (strcmp(what, "scope") == 0) {
        for (size_t i = 0; i < s->n_fibers; i++)
            if (s->fibers[i].id != f->id && s->fibers[i].state != KLAW_FIBER_DONE &&
                is_inside(s, s->fibers[i].scope_id, id))
                fiber_edge(g, from, s->fibers[i].id);
        from->alive |= from->n == 0;
    } else if (strcmp(what, "ask") == 0 || strcmp(what, "tell") == 0 ||
               strcmp(what, "actor") == 0) {
        fiber_edge(g, from, a ? a->fiber_id : 0);
    } else if (strcmp(what, "task") == 0) {
        task_edges(g, s, from, id);
    } else if (strcmp(what, "executor") == 0) {
        executor_edges(g, s, from, id);
    } else if (strcmp(what, "fd") == 0 || strcmp(what, "blocking") == 0 || !*what ||
               strcmp(what, "mailbox") == 0 || strcmp(what, "sleep") == 0) {
        from->alive = true; /* an actor may have timers; a sleeper waits for a signal, say */
    } else {
        from->any = true; /* several tasks, the children of a supervisor, … */
    }
}

static void put_waits(cli_node *k, const cli_snapshot *s, const klaw_fiber_info *f) {
    const klaw_channel_stats *c = k->channel ? cli_channel(s, k->channel) : NULL;
    const klaw_actor_stats *a = f ? cli_actor(s, f->waiting_id) : NULL;
    const klaw_fiber_info *other = f ? cli_fiber(s, f->waiting_id) : NULL;
    const klaw_scope_info *scope = f ? cli_scope(s, f->waiting_id) : NULL;
    const char *what = f ? f->waiting_on : "";
    char name[80] = "";
    if (c) {
        quote(name, sizeof name, "channel", c->name, c->id);
        snprintf(k->waits, sizeof k->waits, "%s %s",
                 strcmp(what, "select") == 0      ? "in a select on"
                 : strncmp(k->waits, "s", 1) == 0 ? "to send to"
                                                  : "to receive from",
                 name);
    } else if (a && strcmp(what, "ask") == 0) {
        quote(name, sizeof name, "actor", a->name, a->id);
        snprintf(k->waits, sizeof k->waits, "for the answer of %s", name);
    } else if (a && strcmp(what, "tell") == 0) {
        quote(name, sizeof name, "actor", a->name, a->id);
        snprintf(k->waits, sizeof k->waits, "for room in the mailbox of %s", name);
    } else if (a && strcmp(what, "actor") == 0) {
        quote(name, sizeof name, "actor", a->name, a->id);
        snprintf(k->waits, sizeof k->waits, "for the end of %s", name);
    } else if (other && strcmp(what, "join") == 0) {
        quote(name, sizeof name, "fiber", other->name, other->id);
        snprintf(k->waits, sizeof k->waits, "for the end of %s", name);
    } else if (scope && strcmp(what, "scope") == 0) {
        quote(name, sizeof name, "scope", scope->name, scope->id);
        snprintf(k->waits, sizeof k->waits, "for all in %s", name);
    } else if (strcmp(what, "mailbox") == 0) {
        snprintf(k->waits, sizeof k->waits, "for a message");
    } else if (*what) {
        snprintf(k->waits, sizeof k->waits, "for %s %llu", what,
                 (unsigned long long)(f ? f->waiting_id : 0));
    }
}

/* Who waits on channels, by host. */
typedef struct hung {
    klaw_host_kind kind;
    uint64_t id;
    const klaw_wait_info *wait;
} hung;

static int by_hung(const void *a, const void *b) {
    const hung *x = a, *y = b;
    if (x->kind != y->kind)
        return (x->kind > y->kind) - (x->kind < y->kind);
    if (x->id != y->id)
        return (x->id > y->id) - (x->id < y->id);
    return (x->wait > y->wait) - (x->wait < y->wait);
}

static bool make_edges(cli_graph *g, const cli_snapshot *s, long pid) {
    hung *list = calloc(s->n_waits + 1, sizeof *list);
    size_t n = 0, at = 0;
    if (!list)
        return false;
    for (size_t i = 0; i < s->n_waits; i++)
        if (s->waits[i].host_id)
            list[n++] = (hung){s->waits[i].host, s->waits[i].host_id, &s->waits[i]};
    qsort(list, n, sizeof *list, by_hung);
    for (size_t i = 0; i < g->n; i++) { /* both are in the same order */
        cli_node *k = &g->nodes[i];
        const klaw_fiber_info *f = k->kind == KLAW_HOST_FIBER ? cli_fiber(s, k->id) : NULL;
        bool on_channels = false;
        k->first = g->n_edges;
        while (at < n &&
               (list[at].kind < k->kind || (list[at].kind == k->kind && list[at].id < k->id)))
            at++;
        for (; at < n && list[at].kind == k->kind && list[at].id == k->id; at++) {
            const klaw_wait_info *w = list[at].wait;
            if (!k->waiting)
                continue;
            on_channels = true;
            k->channel = w->channel_id;
            k->waits[0] = w->sends ? 's' : 'r';
            k->waits[1] = 0;
            if (k->kind != KLAW_HOST_FOREIGN)
                channel_edges(g, s, k, w->channel_id, w->sends, pid);
        }
        if (!k->waiting)
            continue;
        if (k->kind == KLAW_HOST_FOREIGN)
            hold_edges(g, s, k, on_channels);
        if (!on_channels && f)
            other_edges(g, s, k, f);
        put_waits(k, s, f);
    }
    free(list);
    return g->memory;
}

/* ---- the solution ---- */

/* Marks alive whoever waits for somebody alive. The edges turned round are counted out first. */
static bool solve(cli_graph *g, bool outside) {
    size_t *first = calloc(g->n + 2, sizeof *first), *from = calloc(g->n_edges + 1, sizeof *from),
           *todo = calloc(g->n + 1, sizeof *todo), n = 0;
    bool ok = first && from && todo, somebody = outside;
    for (size_t i = 0; ok && i < g->n_edges; i++)
        first[g->edges[i].to + 2]++;
    for (size_t i = 2; ok && i < g->n + 2; i++)
        first[i] += first[i - 1];
    for (size_t i = 0; ok && i < g->n; i++) {
        for (size_t k = 0; k < g->nodes[i].n; k++)
            from[first[g->edges[g->nodes[i].first + k].to + 1]++] = i;
        if (g->nodes[i].alive)
            todo[n++] = i;
    }
    somebody |= n > 0;
    for (size_t i = 0; ok && somebody && i < g->n; i++)
        if (g->nodes[i].any && !g->nodes[i].alive) {
            g->nodes[i].alive = true;
            todo[n++] = i;
        }
    while (ok && n > 0) {
        size_t i = todo[--n];
        for (size_t k = first[i]; k < first[i + 1]; k++)
            if (!g->nodes[from[k]].alive) {
                g->nodes[from[k]].alive = true;
                todo[n++] = from[k];
            }
    }
    free(first);
    free(from);
    free(todo);
    return ok;
}

cli_graph *cli_graph_make(const cli_snapshot *s, long pid, bool outside) {
    cli_graph *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->memory = true;
    if (make_nodes(g, s) && make_edges(g, s, pid) && solve(g, outside))
        return g;
    cli_graph_free(g);
    return NULL;
}

void cli_graph_free(cli_graph *g) {
    if (!g)
        return;
    free(g->nodes);
    free(g->edges);
    free(g);
}

const cli_edge *cli_graph_edge(const cli_graph *g, size_t from, size_t to) {
    for (size_t i = 0; i < g->nodes[from].n; i++)
        if (g->edges[g->nodes[from].first + i].to == to)
            return &g->edges[g->nodes[from].first + i];
    return NULL;
}

/* Breadth first: the first way back is the shortest. */
size_t cli_graph_ring(const cli_graph *g, size_t from, size_t *ring, size_t max) {
    size_t *before = calloc(g->n + 1, sizeof *before), *queue = calloc(g->n + 1, sizeof *queue);
    size_t head = 0, tail = 0, end = SIZE_MAX, n = 0;
    if (!before || !queue || g->nodes[from].alive)
        goto out;
    queue[tail++] = from;
    while (head < tail && end == SIZE_MAX) {
        size_t i = queue[head++];
        for (size_t k = 0; k < g->nodes[i].n && end == SIZE_MAX; k++) {
            size_t to = g->edges[g->nodes[i].first + k].to;
            if (g->nodes[to].alive)
                continue;
            if (to == from)
                end = i;
            else if (!before[to]) {
                before[to] = i + 1;
                queue[tail++] = to;
            }
        }
    }
    for (size_t i = end; i != SIZE_MAX; i = i == from ? SIZE_MAX : before[i] - 1)
        n++;
    if (end == SIZE_MAX || n > max) {
        n = 0;
        goto out;
    }
    for (size_t i = end, at = n; at > 0; i = before[i] ? before[i] - 1 : from)
        ring[--at] = i;
out:
    free(before);
    free(queue);
    return n;
}

bool cli_has_outside(long pid, const cli_snapshot *s) {
    char path[64];
    size_t others = 0;
    bool main_runs = s->n_workers > 0;
    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    DIR *d = opendir(path);
    if (!d)
        return true;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char file[384], name[32] = "";
        if (!isdigit((unsigned char)*e->d_name))
            continue;
        snprintf(file, sizeof file, "%s/%s/comm", path, e->d_name);
        FILE *f = fopen(file, "re");
        bool known = f && fgets(name, sizeof name, f) != NULL;
        if (f)
            fclose(f);
        if (!known)
            continue;
        if (strncmp(name, "klaw-runtime", 12) == 0)
            main_runs = false; /* that one sleeps in klaw_run, so the first thread does not */
        others += strncmp(name, "klaw-", 5) != 0;
    }
    closedir(d);
    for (size_t i = 0; i < s->n_waits; i++)
        if (s->waits[i].host == KLAW_HOST_THREAD && others > 0)
            others--; /* it is a node of the graph; rows of a select count once too often */
    return others > (main_runs ? 1 : 0);
}
