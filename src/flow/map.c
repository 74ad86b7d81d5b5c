/* SPDX-License-Identifier: Apache-2.0 */
/* map.c - one function over many items: klaw_map and klaw_map_range.
 *
 * A map is one entry in the executor's queue, on its caller's stack. A runner that takes it puts it
 * back to the end of the queue (others may join in), then takes chunks off the range until there
 * are none. A chunk begins with one item and grows while chunks take less than CHUNK_TICKS, so that
 * taking one, a lock and two looks at the cycle counter, costs next to nothing; it shrinks when
 * they take longer. What a runner has taken it gives back in two cases, seen by two loads an item:
 *   - its fiber parked in an item (the host's epoch has moved): items that wait go one at a time,
 *     so that as many wait together as the executor allows;
 *   - somebody came and found nothing to take (`hungry`): half of the rest is for him.
 * A chunk of the range form is handed over whole.
 *
 * A runner that finds the work to be long wakes a sleeping worker for the fresh runner that stands
 * in its queue; short maps wake nobody.
 *
 * Invariants under ex->lock:
 *   M1  each index is in exactly one of: [next, n), rest[], taken by a runner, done.
 *   M2  active == runners whose job this is; stop is set once.
 *   M3  the caller returns only with active == 0 and the entry out of the queue, so runners may use
 *       the job while they count as active.
 *   M4  nothing to take and active == 0 => the caller has been claimed, or looks.
 *
 * Rejected: dividing the range among the workers beforehand (one slow part is waited for); a task
 * for each item or leaf (25 ns each where the item takes 2); stealing halves from the other's range
 * without being asked (an atomic per item). */
#include <string.h>

#include "flow/executor.h"

#define REST_MAX 32u
#define CHUNK_TICKS 60000u /* about 20 us */
#define CHUNK_OPS 8        /* of the turn's budget, for each chunk */
#define CHUNK_MAX ((size_t)1 << 24)

typedef struct range {
    size_t begin, end;
} range;

struct klawi_job {
    klaw_task entry;               /* first; flags, link, ex */
    klaw_map_fn item_fn;           /* (c) or */
    klaw_range_fn range_fn;        /* (c) */
    void *arg;                     /* (c) */
    const char *items;             /* (c) */
    char *results;                 /* (c) */
    size_t item_size, result_size; /* (c) */
    klaw_err *errors;              /* (c) of each item, by whoever has it */
    size_t n, next;                /* (c), (L) */
    size_t chunk;                  /* (c) 0: found out */
    uint32_t limit;                /* (c) runners at most */
    bool cancel_on_error;          /* (c) */
    uint32_t active;               /* (L) */
    uint32_t nrest;                /* (L) */
    range rest[REST_MAX];          /* (L) given back */
    klawi_waitq waiting;           /* (L) the caller */
    _Atomic uint32_t stop;         /* (L) written: why nothing more is begun; OK: go on */
    _Atomic bool hungry;           /* (L) written */
    klaw_err error;                /* (L) of the item that comes first */
    size_t error_at;               /* (L) */
};

klawi_job *klawi_job_of(klaw_task *entry) {
    return (klawi_job *)(void *)entry;
}

static inline klaw_err stopped(klawi_job *j) {
    return (klaw_err)atomic_load_explicit(&j->stop, memory_order_relaxed);
}

/* --- taking and giving back; under the lock --- */
static inline bool left(const klawi_job *j) {
    return j->nrest > 0 || j->next < j->n;
}

static bool take(klawi_job *j, size_t want, range *out) {
    if (stopped(j))
        return false;
    if (j->nrest > 0) {
        range *r = &j->rest[j->nrest - 1];
        out->begin = r->begin;
        out->end = r->end - r->begin > want ? r->begin + want : r->end;
        r->begin = out->end;
        j->nrest -= r->begin == r->end;
        return true;
    }
    size_t rest = j->n - j->next;
    if (rest == 0)
        return false;
    if (!j->chunk && want > rest / 4 + 1) /* the last ones together */
        want = rest / 4 + 1;
    out->begin = j->next;
    out->end = j->next += want < rest ? want : rest;
    return true;
}

/* Puts the entry into the queue, so that others may join in; true: a runner has to be spawned. */
static bool invite(klawi_job *j) {
    klaw_executor *ex = j->entry.ex;
    if (j->entry.link.next || !left(j) || j->active >= j->limit || stopped(j))
        return false;
    klawi_link_push(&ex->queue, &j->entry.link);
    return klawi_runner_wanted(ex);
}

/* --- items --- */
typedef struct piece {
    klawi_job *job;
    range r;
    size_t i;
} piece;

static klaw_err one_item(void *p) {
    piece *c = p;
    klawi_job *j = c->job;
    return j->item_fn(j->items + c->i * j->item_size, j->results + c->i * j->result_size, j->arg);
}

static klaw_err one_range(void *p) {
    piece *c = p;
    return c->job->range_fn(c->r.begin, c->r.end, c->job->arg);
}

static klaw_err one_item_blocking(void *p) {
    return klaw_blocking(one_item, p);
}

static klaw_err one_range_blocking(void *p) {
    return klaw_blocking(one_range, p);
}

/* One item or range with what the executor's defaults add. */
static KLAWI_NOINLINE klaw_err call(piece *c) {
    const klaw_task_opts *o = &c->job->entry.ex->task;
    klaw_fn fn = c->job->range_fn ? (o->blocking > 0 ? one_range_blocking : one_range)
                                  : (o->blocking > 0 ? one_item_blocking : one_item);
    return o->retry ? klaw_retry(fn, c, o->retry, NULL) : fn(c);
}

static void note_error(klawi_job *j, size_t at, klaw_err e) {
    klaw_executor *ex = j->entry.ex;
    klawi_lock_acquire(&ex->lock);
    bool better = j->error == KLAW_OK || (j->error == KLAW_CANCELLED && e != KLAW_CANCELLED) ||
                  (at < j->error_at && (e != KLAW_CANCELLED || j->error == KLAW_CANCELLED));
    if (better) {
        j->error = e;
        j->error_at = at;
    }
    klawi_lock_release(&ex->lock);
}

/* What an item that failed leaves; true: the map ends. */
static KLAWI_COLD bool failed(klawi_job *j, size_t at, klaw_err e) {
    klaw_err why = stopped(j);
    if (e == KLAW_CANCELLED && why)
        e = why;
    if (j->errors)
        j->errors[at] = e;
    note_error(j, at, e);
    return j->cancel_on_error && e != KLAW_CANCELLED;
}

/* Gives back half of what is left of the chunk, or all; c->r shrinks to what stays. */
static KLAWI_NOINLINE void give_back(klawi_job *j, piece *c, bool all) {
    klaw_executor *ex = j->entry.ex;
    size_t rest = c->r.end - c->i;
    bool spawn = false;
    klawi_lock_acquire(&ex->lock);
    atomic_store_explicit(&j->hungry, false, memory_order_relaxed);
    if (rest > (all ? 0u : 1u) && j->nrest < REST_MAX) {
        size_t mid = all ? c->i : c->i + (rest + 1) / 2;
        j->rest[j->nrest++] = (range){mid, c->r.end};
        c->r.end = mid;
        spawn = invite(j);
    }
    klawi_lock_release(&ex->lock);
    if (spawn)
        (void)klawi_runner_spawn(ex, NULL, false);
}

static inline uint64_t epoch_of(klaw_fiber *f) {
    return atomic_load_explicit(&f->host.word, memory_order_relaxed) & ~KLAWI_FLAGS;
}

/* Does the items of c->r, which may shrink meanwhile; true: the map ends. *waited: it parked. */
static bool run_items(klawi_job *j, klaw_fiber *f, piece *c, bool *waited) {
    const klaw_map_fn fn = j->item_fn;
    const size_t isize = j->item_size, rsize = j->result_size;
    void *const arg = j->arg;
    klaw_err *const errors = j->errors;
    const klaw_task_opts *o = &j->entry.ex->task;
    const bool direct = !o->retry && o->blocking <= 0;
    const char *item = j->items + c->i * isize;
    char *result = j->results + c->i * rsize;
    uint64_t epoch = epoch_of(f);
    size_t end = c->r.end, i = c->i;
    while (i < end) {
        klaw_err e;
        if (KLAWI_LIKELY(direct)) {
            e = fn(item, result, arg);
        } else {
            c->i = i;
            e = call(c);
        }
        item += isize;
        result += rsize;
        if (errors)
            errors[i] = e;
        i++;
        if (KLAWI_UNLIKELY(e != KLAW_OK) && failed(j, i - 1, e)) {
            c->i = i;
            return true;
        }
        bool parked = epoch_of(f) != epoch;
        if (KLAWI_UNLIKELY(parked || atomic_load_explicit(&j->hungry, memory_order_relaxed))) {
            if (KLAWI_UNLIKELY(f->inner != NULL))
                klawi_scope_unwind(&f->inner);
            c->i = i;
            *waited |= parked;
            give_back(j, c, parked);
            end = c->r.end;
            epoch = epoch_of(f);
        }
        if (KLAWI_UNLIKELY(atomic_load_explicit(&j->stop, memory_order_relaxed)))
            break;
    }
    c->i = i;
    return false;
}

/* Items that were not begun because the map has ended. */
static void skip(klawi_job *j, range r) {
    klaw_err why = stopped(j);
    for (size_t i = r.begin; j->errors && i < r.end; i++)
        j->errors[i] = why;
    if (r.begin < r.end)
        note_error(j, r.begin, why);
}

/* Does one chunk; *taken becomes what was not begun of it. No lock held. True: the map ends. */
static bool run_chunk(klawi_runner *r, klawi_job *j, range *taken, bool *waited) {
    piece c = {j, *taken, taken->begin};
    bool ends = false;
    klaw_context_token token = {0};
    klaw_fiber *f = r->fiber;
    bool other = f->context != j->entry.context; /* on a fiber entering can't fail */
    if (KLAWI_UNLIKELY(other) && klaw_context_enter(j->entry.context, &token) != KLAW_OK)
        other = false;
    if (j->range_fn) {
        uint64_t epoch = epoch_of(f);
        const klaw_task_opts *o = &j->entry.ex->task;
        bool direct = !o->retry && o->blocking <= 0;
        klaw_err e = direct ? j->range_fn(c.r.begin, c.r.end, j->arg) : call(&c);
        *waited = epoch_of(f) != epoch;
        c.i = c.r.end;
        ends = e != KLAW_OK && failed(j, c.r.begin, e);
    } else {
        ends = run_items(j, f, &c, waited);
    }
    if (KLAWI_UNLIKELY(f->inner != NULL))
        klawi_scope_unwind(&f->inner);
    if (KLAWI_UNLIKELY(other))
        klaw_context_leave(&token);
    *taken = (range){c.i, c.r.end};
    return ends;
}

/* --- runners --- */
/* Wakes a sleeping worker for the fresh runner in this one's queue. */
static void call_help(void) {
    klawi_worker *w = klawi_ctx_get()->worker;
    klawi_runtime *rt = w->rt;
    klawi_fence(); /* R5: pairs with the sleeper's publication */
    if (atomic_load_explicit(&rt->sleepers, memory_order_relaxed) > 0 &&
        atomic_load_explicit(&rt->searching, memory_order_relaxed) == 0)
        klawi_wake_one(rt);
}

/* The next chunk's size, after one of `n` items that took so long. */
static size_t adapt(size_t want, size_t n, uint64_t took, bool waited) {
    if (waited)
        return 1;
    if (took < CHUNK_TICKS / 2 && n >= want && want < CHUNK_MAX)
        return took < CHUNK_TICKS / 8 ? want * 4 : want * 2;
    return took > CHUNK_TICKS * 2 && want > 1 ? want / 2 : want;
}

static void budget(void) {
    klawi_ctx *c = klawi_ctx_get();
    int32_t left_ops = __atomic_load_n(&c->budget, __ATOMIC_RELAXED) - CHUNK_OPS;
    __atomic_store_n(&c->budget, left_ops, __ATOMIC_RELAXED);
    if (left_ops <= 0)
        (void)klawi_budget_spent(c);
}

/* All chunks this runner gets. Under the lock, which is released and taken again. */
static void work(klawi_runner *r, klawi_job *j) {
    klaw_executor *ex = r->ex;
    size_t want = j->chunk ? j->chunk : 1;
    range c;
    uint64_t begun = klawi_ticks();
    while (take(j, want, &c)) {
        bool waited = false;
        size_t n = c.end - c.begin;
        klawi_lock_release(&ex->lock);
        if (run_chunk(r, j, &c, &waited)) {
            klawi_lock_acquire(&ex->lock);
            klawi_job_stop(j, KLAW_CANCELLED, r);
            klawi_lock_release(&ex->lock);
        }
        uint64_t now = klawi_ticks(), took = now - begun;
        if (!j->chunk)
            want = adapt(want, n, took, waited);
        if (c.begin < c.end)
            skip(j, c);
        if (took > CHUNK_TICKS / 8)
            budget();
        if (klaw_scope_cancelled(ex->scope) && !stopped(j)) {
            klawi_lock_acquire(&ex->lock);
            klawi_job_stop(j, KLAW_CANCELLED, r);
            klawi_lock_release(&ex->lock);
        }
        begun = klawi_ticks();
        klawi_lock_acquire(&ex->lock);
        if (took > CHUNK_TICKS / 4 && ex->fresh > 0 && left(j)) {
            klawi_lock_release(&ex->lock);
            call_help();
            klawi_lock_acquire(&ex->lock);
        }
    }
}

/* Under the lock, which may be released and taken again; the job may be gone afterwards. */
static void stop_held(klawi_job *j, klaw_err why) {
    j->active++; /* M3 */
    klawi_job_stop(j, why, NULL);
    j->active--;
    klawi_job_stop(j, why, NULL); /* tells its caller, if we were the last */
}

void klawi_job_run(klawi_runner *r, klaw_task *entry) {
    klaw_executor *ex = r->ex;
    klawi_job *j = klawi_job_of(entry);
    klawi_wakes wakes;
    if (klaw_scope_cancelled(ex->scope)) {
        stop_held(j, KLAW_CANCELLED);
        return;
    }
    if (stopped(j) || !left(j)) {
        if (j->active > 0)
            atomic_store_explicit(&j->hungry, true, memory_order_relaxed);
        return;
    }
    j->active++;
    r->job = j;
    bool spawn = invite(j);
    if (!spawn)
        spawn = klawi_runner_wanted(ex);
    if (spawn) {
        klawi_lock_release(&ex->lock);
        (void)klawi_runner_spawn(ex, NULL, false);
        klawi_lock_acquire(&ex->lock);
    }
    work(r, j);
    klawi_runner_done(r);
    klawi_wakes_init(&wakes);
    if (--j->active == 0 && (!left(j) || stopped(j)))
        klawi_claim_waiters(&j->waiting, &wakes);
    if (wakes.first) { /* the job may be gone from here on */
        klawi_lock_release(&ex->lock);
        klawi_wakes_run(&wakes);
        klawi_lock_acquire(&ex->lock);
    }
}

void klawi_job_stop(klawi_job *j, klaw_err why, klawi_runner *except) {
    klaw_executor *ex = j->entry.ex;
    klawi_wakes wakes;
    if (!stopped(j))
        atomic_store_explicit(&j->stop, (uint32_t)why, memory_order_relaxed);
    for (klawi_link *l = ex->runners.next, *next; l != &ex->runners; l = next) {
        klawi_runner *r = KLAWI_CONTAINER(l, klawi_runner, link);
        next = l->next;
        if (r->job != j || r->tainted || r == except)
            continue;
        klawi_link_remove(l); /* to the end: the next look finds the rest soon */
        klawi_link_push(&ex->runners, l);
        klawi_runner_cancel(r);
        next = ex->runners.next;
    }
    klawi_wakes_init(&wakes);
    if (j->active == 0)
        klawi_claim_waiters(&j->waiting, &wakes);
    if (wakes.first) {
        klawi_lock_release(&ex->lock);
        klawi_wakes_run(&wakes);
        klawi_lock_acquire(&ex->lock);
    }
}

void klawi_jobs_stop(klaw_executor *ex) {
    klawi_lock_acquire(&ex->lock);
    for (klawi_link *l = ex->runners.next, *next; l != &ex->runners; l = next) {
        klawi_job *j = KLAWI_CONTAINER(l, klawi_runner, link)->job;
        next = l->next;
        if (!j || stopped(j))
            continue;
        stop_held(j, KLAW_CANCELLED);
        next = ex->runners.next;
    }
    for (klawi_link *l = ex->queue.next, *next; l != &ex->queue; l = next) {
        klaw_task *t = KLAWI_CONTAINER(l, klaw_task, link);
        next = l->next;
        if (!(t->flags & KLAWI_TF_JOB) || stopped(klawi_job_of(t)))
            continue;
        stop_held(klawi_job_of(t), KLAW_CANCELLED);
        next = ex->queue.next;
    }
    klawi_lock_release(&ex->lock);
}

/* --- the caller --- */
/* Waits until nothing is left or runs; why the caller ended it early. Under the lock, which is
 * released. */
static klaw_err await(klawi_job *j, klawi_host *h, int64_t at) {
    klaw_executor *ex = j->entry.ex;
    klaw_err cut = KLAW_OK;
    for (;;) {
        if (j->active == 0 && (!left(j) || stopped(j))) {
            klawi_lock_release(&ex->lock);
            return cut;
        }
        klawi_host_waits(h, KLAWI_WAIT_EXECUTOR, ex->id);
        klawi_waiter_fill(&h->waiter, h, &ex->lock, KLAWI_OP_NOTIFY, NULL, NULL);
        klawi_waitq_push(&j->waiting, &h->waiter);
        if (stopped(j)) {
            klawi_park_shielded(h, &h->waiter, &ex->lock);
        } else {
            klaw_err e = klawi_park(h, &h->waiter, &ex->lock, at);
            if (e) {
                cut = e;
                klawi_lock_acquire(&ex->lock);
                j->active++; /* M3: this one is not told while it stops the others */
                klawi_job_stop(j, e, NULL);
                j->active--;
                klawi_lock_release(&ex->lock);
            }
        }
        klawi_lock_acquire(&ex->lock);
    }
}

/* Nobody works for it any more: what was not begun gets its error. */
static klaw_err conclude(klawi_job *j) {
    klaw_executor *ex = j->entry.ex;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&ex->lock);
    if (j->entry.link.next)
        klawi_link_remove(&j->entry.link);
    klawi_lock_release(&ex->lock);
    if (stopped(j)) {
        while (j->nrest > 0)
            skip(j, j->rest[--j->nrest]);
        skip(j, (range){j->next, j->n});
    }
    klawi_lock_acquire(&ex->lock);
    klawi_executor_settle(ex, &wakes);
    bool last = klawi_executor_unused(ex);
    klawi_lock_release(&ex->lock);
    klawi_wakes_run(&wakes);
    if (KLAWI_UNLIKELY(last))
        klawi_executor_free(ex);
    return j->error;
}

static klaw_err run_map(klaw_executor *ex, klawi_job *j, const klaw_map_opts *o) {
    klaw_err e = KLAW_OK;
    int64_t at = KLAW_FOREVER;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER && h->kind != KLAWI_THREAD)
        return KLAW_INVALID;
    if (klaw_scope_cancelled(ex->scope))
        return KLAW_STOPPED;
    bool late = o->deadline && klawi_deadline_resolve(o->deadline, KLAW_TIMEOUT, &at) != KLAW_OK;
    j->chunk = o->chunk;
    j->cancel_on_error = o->cancel_on_error;
    j->limit = o->concurrency ? o->concurrency : UINT32_MAX;
    j->entry.ex = ex;
    j->entry.flags = KLAWI_TF_JOB;
    j->entry.context =
        h->kind == KLAWI_FIBER ? klawi_fiber_of(h)->context : klawi_thread_of(h)->context;
    klawi_link_init(&j->waiting);
    atomic_init(&j->stop, late ? KLAW_TIMEOUT : KLAW_OK);
    klawi_lock_acquire(&ex->lock);
    if (ex->closed) {
        klawi_lock_release(&ex->lock);
        return KLAW_CLOSED;
    }
    ex->pending++;
    bool spawn = false;
    if (!late && j->n > 0) {
        klawi_link_push(&ex->queue, &j->entry.link);
        spawn = klawi_runner_wanted(ex);
    }
    klawi_lock_release(&ex->lock);
    if (spawn && (e = klawi_runner_spawn(ex, &j->entry, false)) != KLAW_OK) {
        j->n = 0; /* it was taken out again: nothing happened */
        (void)conclude(j);
        return e;
    }
    klawi_lock_acquire(&ex->lock);
    klaw_err cut = await(j, h, at);
    e = conclude(j);
    return e && cut ? cut : e;
}

static void read_opts(klaw_map_opts *o, const klaw_map_opts *opts, size_t size) {
    memset(o, 0, sizeof *o);
    if (opts)
        memcpy(o, opts, size < sizeof *o ? size : sizeof *o);
}

klaw_err klaw_map_sized(klaw_executor *ex, klaw_map_fn fn, void *arg, const void *items,
                        size_t item_size, size_t n, void *results, size_t result_size,
                        klaw_err *errors, const klaw_map_opts *opts, size_t opts_size) {
    klaw_map_opts o;
    klawi_job j;
    if (!ex || !fn || (n && ((item_size && !items) || (result_size && !results))))
        return KLAW_INVALID;
    read_opts(&o, opts, opts_size);
    memset(&j, 0, sizeof j);
    j.item_fn = fn;
    j.arg = arg;
    j.items = items;
    j.item_size = items ? item_size : 0;
    j.results = results;
    j.result_size = results ? result_size : 0;
    j.errors = errors;
    j.n = n;
    return run_map(ex, &j, &o);
}

klaw_err klaw_map_range_sized(klaw_executor *ex, klaw_range_fn fn, void *arg, size_t n,
                              const klaw_map_opts *opts, size_t opts_size) {
    klaw_map_opts o;
    klawi_job j;
    if (!ex || !fn)
        return KLAW_INVALID;
    read_opts(&o, opts, opts_size);
    memset(&j, 0, sizeof j);
    j.range_fn = fn;
    j.arg = arg;
    j.n = n;
    return run_map(ex, &j, &o);
}
