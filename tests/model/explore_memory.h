/* SPDX-License-Identifier: Apache-2.0 */
/* explore_memory.h - the weak memory of explore.h: writes, views, fences, races. Included once, by
 * explore_engine.h.
 *
 * A view says, per atomic variable, the oldest place in its modification order that may still be
 * read, and per thread how much of that thread's past happened before (a vector clock; it ticks at
 * each release).
 *
 * Invariants between two operations:
 *   M1  the writes of a variable stand in modification order; every place in every view exists.
 *   M2  writes[i].chained => writes[i + 1] is the RMW that read writes[i]; nothing is ever put
 *       between them.
 *   M3  cur <= acq for each thread (acq: what an acquire fence would add); rel <= cur (what a
 *       release fence left).
 *   M4  the global view has places only: seq_cst order is no happens-before.
 *
 * Rejected: time stamps with gaps instead of places that shift. Equal states would no longer look
 * equal.
 */
#ifndef KLAW_TESTS_MODEL_EXPLORE_MEMORY_H
#define KLAW_TESTS_MODEL_EXPLORE_MEMORY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/explore.h"

struct mo_view {
    uint8_t place[MO_ATOMS];
    uint8_t clock[8];
};

struct mo_write {
    int value;
    bool chained;
    struct mo_view view; /* what an acquire load of this write learns */
};

struct mo_var {
    const char *name;
    int n;
    struct mo_write writes[MO_WRITES];
};

struct mo_plain_var {
    const char *name;
    int value;
    int writer;
    uint8_t written;          /* the writer's clock */
    uint8_t read[MO_THREADS]; /* each reader's clock since that write, 0 if none */
};

enum mo_kind {
    MO_LOAD,
    MO_STORE,
    MO_RMW,
    MO_FENCE,
    MO_HEAVY_BEGIN,
    MO_HEAVY_END,
    MO_FUTEX_WAIT,
    MO_FUTEX_WAKE,
    MO_CHOOSE,
};
enum mo_cond { MO_ANY, MO_EQUAL, MO_NOT_EQUAL };
enum mo_func { MO_SET, MO_ADD, MO_OR };

struct mo_op {
    enum mo_kind kind;
    int var, value, cmp;
    enum mo_order order, if_not;
    enum mo_cond cond;
    enum mo_func func;
    bool block; /* waits until cond can hold */
};

enum mo_status { MO_READY, MO_ASLEEP, MO_DONE };

struct mo_thread {
    struct mo_view cur, acq, rel;
    struct mo_op op; /* what it is about to do */
    int result;
    enum mo_status status;
    bool ipi; /* a heavy fence still has to pass here */
    uint64_t past;
    struct {
        int writer;
        uint8_t written, clock;
        bool ok;
    } peeked[MO_PLAINS];
    void *sp;
};

/* One execution. */
static struct mo_world {
    struct mo_var vars[MO_ATOMS];
    struct mo_plain_var plains[MO_PLAINS];
    struct mo_thread threads[MO_THREADS];
    struct mo_view global;
    int n_vars, n_plains, n_threads;
    int running; /* -1 outside threads */
    int spurious;
    bool failed;
    char why[96];
} mo_w;

static void mo_fail(const char *what, const char *which) {
    if (mo_w.failed)
        return;
    mo_w.failed = true;
    snprintf(mo_w.why, sizeof mo_w.why, "%s%s%s", what, *which ? ": " : "", which);
}

/* Also counts: the constant keeps a run of zeros from looking like no run at all. */
static inline uint64_t mo_mix(uint64_t h, uint64_t v) {
    h = (h + 0x8cb92ba72f3d8dd7u) ^ v;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline bool mo_acquires(enum mo_order o) {
    return o == MO_ACQ || o >= MO_AR;
}
static inline bool mo_releases(enum mo_order o) {
    return o >= MO_REL;
}

static inline void mo_join(struct mo_view *into, const struct mo_view *from) {
    for (int i = 0; i < MO_ATOMS; i++)
        if (into->place[i] < from->place[i])
            into->place[i] = from->place[i];
    for (int i = 0; i < 8; i++)
        if (into->clock[i] < from->clock[i])
            into->clock[i] = from->clock[i];
}

static void mo_tick(int t) {
    struct mo_thread *th = &mo_w.threads[t];
    if (++th->cur.clock[t] == 250)
        mo_fail("execution too long for its clocks", "");
    th->acq.clock[t] = th->cur.clock[t];
}

static void mo_apply_fence(int t, enum mo_order order) {
    struct mo_thread *th = &mo_w.threads[t];
    if (mo_acquires(order))
        th->cur = th->acq;
    if (order == MO_SC) {
        for (int i = 0; i < mo_w.n_vars; i++) {
            uint8_t *mine = &th->cur.place[i], *all = &mo_w.global.place[i];
            *mine = *all = *mine > *all ? *mine : *all;
        }
        mo_join(&th->acq, &th->cur);
    }
    if (mo_releases(order)) {
        th->rel = th->cur;
        mo_tick(t);
    }
}

/* The oldest place thread t may read from, the fence of a system call included. */
static int mo_oldest(const struct mo_thread *th, const struct mo_op *op) {
    int x = op->var, lo = th->cur.place[x];
    if (op->kind != MO_FUTEX_WAIT)
        return lo;
    if (lo < th->acq.place[x])
        lo = th->acq.place[x];
    return lo < mo_w.global.place[x] ? mo_w.global.place[x] : lo;
}

static bool mo_holds(const struct mo_op *op, int value) {
    if (op->cond == MO_ANY)
        return true;
    return (op->cond == MO_EQUAL) == (value == op->cmp);
}

/* The ways in which a thread's next operation can go, as places or numbers; 0 if it has to wait. */
static int mo_ways(int t, uint8_t ways[MO_WRITES]) {
    const struct mo_thread *th = &mo_w.threads[t];
    const struct mo_op *op = &th->op;
    const struct mo_var *v = &mo_w.vars[op->var];
    int n = 0;
    switch (op->kind) {
    case MO_LOAD:
    case MO_FUTEX_WAIT:
        for (int i = mo_oldest(th, op); i < v->n; i++)
            if (!op->block || mo_holds(op, v->writes[i].value))
                ways[n++] = (uint8_t)i;
        return n;
    case MO_STORE:
        for (int i = mo_oldest(th, op) + 1; i <= v->n; i++)
            if (!v->writes[i - 1].chained)
                ways[n++] = (uint8_t)i;
        return n;
    case MO_RMW:
        for (int i = mo_oldest(th, op); i < v->n; i++) {
            bool hit = mo_holds(op, v->writes[i].value);
            if (hit ? !v->writes[i].chained : !op->block)
                ways[n++] = (uint8_t)i;
        }
        return n;
    case MO_FUTEX_WAKE:
        for (int u = 0; u < mo_w.n_threads; u++)
            if (mo_w.threads[u].status == MO_ASLEEP && mo_w.threads[u].op.var == op->var)
                ways[n++] = (uint8_t)u;
        if (n == 0)
            ways[n++] = MO_THREADS;
        return n;
    case MO_CHOOSE:
        for (; n < op->value; n++)
            ways[n] = (uint8_t)n;
        return n;
    case MO_HEAVY_END:
        for (int u = 0; u < mo_w.n_threads; u++)
            if (mo_w.threads[u].ipi)
                return 0;
        break;
    case MO_FENCE:
    case MO_HEAVY_BEGIN: break;
    }
    ways[0] = 0;
    return 1;
}

static void mo_apply_read(int t, int x, int place, enum mo_order order) {
    struct mo_thread *th = &mo_w.threads[t];
    const struct mo_write *w = &mo_w.vars[x].writes[place];
    uint8_t at = (uint8_t)place;
    if (th->cur.place[x] < at)
        th->cur.place[x] = at;
    if (th->acq.place[x] < at)
        th->acq.place[x] = at;
    mo_join(&th->acq, &w->view);
    if (mo_acquires(order))
        mo_join(&th->cur, &w->view);
}

static void mo_shift_view(struct mo_view *view, int x, int place) {
    if (view->place[x] >= place)
        view->place[x]++;
}

/* Makes room at a place of x; what stood there and behind moves one on, in all views. */
static void mo_make_room(int x, int place) {
    struct mo_var *v = &mo_w.vars[x];
    if (v->n == MO_WRITES) {
        mo_fail("too many writes to one variable", v->name);
        v->n--;
    }
    if (place < v->n) {
        memmove(&v->writes[place + 1], &v->writes[place],
                (size_t)(v->n - place) * sizeof v->writes[0]);
        v->n++;
        for (int y = 0; y < mo_w.n_vars; y++)
            for (int i = 0; i < mo_w.vars[y].n; i++)
                if (y != x || i != place)
                    mo_shift_view(&mo_w.vars[y].writes[i].view, x, place);
        for (int u = 0; u < mo_w.n_threads; u++) {
            mo_shift_view(&mo_w.threads[u].cur, x, place);
            mo_shift_view(&mo_w.threads[u].acq, x, place);
            mo_shift_view(&mo_w.threads[u].rel, x, place);
        }
        mo_shift_view(&mo_w.global, x, place);
    } else
        v->n++;
}

/* Puts a write at a place. An RMW passes the view of the write it read: it continues that release
 * sequence. */
static void mo_apply_write(int t, int x, int place, int value, enum mo_order order, bool rmw) {
    struct mo_thread *th = &mo_w.threads[t];
    mo_make_room(x, place);
    struct mo_write *w = &mo_w.vars[x].writes[place];
    th->cur.place[x] = (uint8_t)place;
    if (th->acq.place[x] < place)
        th->acq.place[x] = (uint8_t)place;
    w->value = value;
    w->chained = false;
    w->view = mo_releases(order) ? th->cur : th->rel;
    if (rmw) {
        w[-1].chained = true;
        mo_join(&w->view, &w[-1].view);
    }
    if (mo_releases(order))
        mo_tick(t);
}

static int mo_apply_rmw(int t, const struct mo_op *op, int place) {
    int old = mo_w.vars[op->var].writes[place].value;
    if (!mo_holds(op, old)) {
        mo_apply_read(t, op->var, place, op->if_not);
        return old;
    }
    mo_apply_read(t, op->var, place, op->order);
    int value = op->func == MO_SET   ? op->value
                : op->func == MO_ADD ? old + op->value
                                     : old | op->value;
    mo_apply_write(t, op->var, place + 1, value, op->order, true);
    return old;
}

/* ---- plain variables ------------------------------------------------------------------------- */

static inline bool mo_write_seen(const struct mo_thread *th, const struct mo_plain_var *p) {
    return p->written <= th->cur.clock[p->writer];
}

int mo_get(int plain) {
    struct mo_plain_var *p = &mo_w.plains[plain];
    int t = mo_w.running;
    struct mo_thread *th = &mo_w.threads[t];
    if (!mo_write_seen(th, p))
        mo_fail("race: read of", p->name);
    p->read[t] = th->cur.clock[t];
    th->past = mo_mix(th->past, (unsigned)p->value);
    return p->value;
}

void mo_set(int plain, int value) {
    struct mo_plain_var *p = &mo_w.plains[plain];
    int t = mo_w.running;
    const struct mo_thread *th = &mo_w.threads[t];
    if (!mo_write_seen(th, p))
        mo_fail("race: two writes of", p->name);
    for (int u = 0; u < mo_w.n_threads; u++) {
        if (u != t && p->read[u] > th->cur.clock[u])
            mo_fail("race: write after read of", p->name);
        p->read[u] = 0;
    }
    p->value = value;
    p->writer = t;
    p->written = th->cur.clock[t];
}

void mo_peek(int plain) {
    const struct mo_plain_var *p = &mo_w.plains[plain];
    struct mo_thread *th = &mo_w.threads[mo_w.running];
    th->peeked[plain].writer = p->writer;
    th->peeked[plain].written = p->written;
    th->peeked[plain].clock = th->cur.clock[mo_w.running];
    th->peeked[plain].ok = mo_write_seen(th, p);
}

void mo_keep(int plain) {
    struct mo_plain_var *p = &mo_w.plains[plain];
    int t = mo_w.running;
    const struct mo_thread *th = &mo_w.threads[t];
    bool same = p->writer == th->peeked[plain].writer && p->written == th->peeked[plain].written;
    if (!th->peeked[plain].ok)
        mo_fail("race: kept read of", p->name);
    if (!same)
        mo_fail("race: overwritten before the read was kept", p->name);
    if (p->read[t] < th->peeked[plain].clock)
        p->read[t] = th->peeked[plain].clock;
}

#endif
