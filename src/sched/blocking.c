/* SPDX-License-Identifier: Apache-2.0 */
/* blocking.c - calls that block run on threads of their own while the fiber is parked.
 *
 * The job lies on the parked fiber's stack. The fiber arms itself (shielded: the call is awaited,
 * never cut), then queues the job; a pool thread runs it, claims the fiber and readies it. Threads
 * are started when a job finds none idle, up to the limit, and end with the runtime.
 *
 * Invariants under pool.lock:
 *   B1  idle threads > 0 => the queue is empty, or a wake-up for each queued job is under way.
 *   B2  a queued job's fiber is armed with the job's epoch until its thread claims it.
 *   B3  the queue is not empty => threads > 0; who can't start the last one fails what is queued.
 * Wake-up: push, then ticket++ and futex wake; an idle thread reads ticket under the lock before it
 * sleeps on that value.
 *
 * Rejected: one thread per job (20 us each); running jobs on workers (they would stop). */
#include "base/alloc.h"
#include "sched/sched.h"

typedef struct job {
    klaw_fn fn;
    void *arg;
    klaw_err result;
    klawi_host *host;
    uint64_t epoch;
    struct job *next;
} job;

#define THREADS_MAX 1024

static struct {
    klawi_lock lock;
    job *first, **last;     /* (L) */
    uint32_t threads;       /* (L) started or being started */
    uint32_t started, idle; /* (L) */
    uint32_t queued;        /* (L) */
    uint32_t
        generation; /* (L) one more after each abandonment: threads of an older one have no business here */
    bool stop;                        /* (L) */
    _Atomic uint32_t ticket;          /* (L) written; futex */
    klawi_thread_id ids[THREADS_MAX]; /* (L) */
} pool = {.lock = KLAWI_LOCK_INIT(KLAWI_RANK_BLOCKING), .last = &pool.first};

/* After the ready the job is gone. */
static void finish(job *j, klaw_err result) {
    klawi_host *h = j->host;
    j->result = result;
    /* Nobody else claims a shielded wait without a queue. */
    bool won = klawi_claim(h, j->epoch);
    KLAWI_ASSERT(won);
    (void)won;
    h->result = KLAW_OK;
    klawi_ready(h);
}

/* All queued jobs. Under the lock. */
static job *take_all(void) {
    job *all = pool.first;
    pool.first = NULL;
    pool.last = &pool.first;
    pool.queued = 0;
    return all;
}

static void *thread_main(void *arg) {
    uint32_t generation = (uint32_t)(uintptr_t)arg;
    klawi_lock_acquire(&pool.lock);
    while (pool.generation == generation) {
        job *j = pool.first;
        bool stop = pool.stop;
        uint32_t ticket = atomic_load_explicit(&pool.ticket, memory_order_relaxed);
        if (j) {
            if ((pool.first = j->next) == NULL)
                pool.last = &pool.first;
            pool.queued--;
        } else if (stop) {
            break;
        } else {
            pool.idle++;
        }
        klawi_lock_release(&pool.lock);
        if (j) {
            klaw_err result = j->fn(j->arg);
            klawi_lock_acquire(&pool.lock);
            if (pool.generation != generation)
                break; /* the fiber was abandoned meanwhile */
            klawi_lock_release(&pool.lock);
            finish(j, result);
        } else {
            klawi_futex_wait(&pool.ticket, ticket, KLAW_FOREVER);
        }
        klawi_lock_acquire(&pool.lock);
        if (!j && pool.generation == generation)
            pool.idle--;
    }
    klawi_lock_release(&pool.lock);
    return NULL;
}

/* Sees to it that there is a thread, or one about to be, for one more job. */
static klaw_err need_thread(klawi_runtime *rt) {
    klawi_lock_acquire(&pool.lock);
    uint32_t limit = rt->blocking_max < THREADS_MAX ? rt->blocking_max : THREADS_MAX,
             generation = pool.generation;
    bool start = pool.idle <= pool.queued && pool.threads < limit;
    if (start)
        pool.threads++;
    klawi_lock_release(&pool.lock);
    if (!start)
        return KLAW_OK;
    klawi_thread_id id;
    job *failed = NULL;
    klaw_err e = klawi_fail_point() ? KLAW_SYSTEM
                                    : klawi_thread_start(&id, "klaw-blocking", thread_main,
                                                         (void *)(uintptr_t)generation);
    klawi_lock_acquire(&pool.lock);
    bool old = pool.generation != generation;
    if (!old && e == KLAW_OK) {
        pool.ids[pool.started++] = id;
    } else if (!old && --pool.threads > 0) {
        e = KLAW_OK; /* the others will have to do */
    } else if (!old) {
        e = KLAW_NOMEM;
        failed = take_all(); /* they relied on us */
    }
    klawi_lock_release(&pool.lock);
    if (old && e == KLAW_OK)
        klawi_thread_detach(id);
    for (job *next; failed; failed = next) {
        next = failed->next;
        finish(failed, KLAW_NOMEM);
    }
    return old ? KLAW_STOPPED : e;
}

klaw_err klaw_blocking(klaw_fn fn, void *arg) {
    klaw_err e = KLAW_OK;
    if (!fn)
        return KLAW_INVALID;
    klawi_ctx *c = klawi_ctx_need(&e);
    if (!c)
        return e;
    klawi_host *h = klawi_cur(c);
    if (h->kind != KLAWI_FIBER)
        return fn(arg);
    for (;;) {
        if ((e = need_thread(c->worker->rt)) != KLAW_OK)
            return e;
        klawi_lock_acquire(&pool.lock);
        if (pool.threads > 0)
            break;
        klawi_lock_release(&pool.lock); /* the one that was about to be could not be started */
    }
    job j = {fn,
             arg,
             KLAW_OK,
             h,
             (atomic_load_explicit(&h->word, memory_order_relaxed) & ~KLAWI_FLAGS) + KLAWI_EPOCH,
             NULL};
    klawi_host_waits(h, KLAWI_WAIT_BLOCKING, 0);
    atomic_store_explicit(&klawi_fiber_of(h)->on_cpu, 1, memory_order_relaxed);
    h->waiter.epoch = 0; /* hangs nowhere */
    klawi_arm_shielded(h, j.epoch);
    *pool.last = &j;
    pool.last = &j.next;
    pool.queued++;
    atomic_fetch_add_explicit(&pool.ticket, 1, memory_order_relaxed);
    bool wake = pool.idle > 0;
    klawi_lock_release(&pool.lock);
    if (wake)
        klawi_futex_wake(&pool.ticket, 1);
    (void)klawi_park_armed(h, j.epoch, KLAW_FOREVER);
    return j.result;
}

void klawi_blocking_stop(klawi_runtime *rt) {
    (void)rt;
    klawi_lock_acquire(&pool.lock);
    pool.stop = true;
    uint32_t n = pool.started;
    atomic_fetch_add_explicit(&pool.ticket, 1, memory_order_relaxed);
    klawi_lock_release(&pool.lock);
    klawi_futex_wake(&pool.ticket, INT32_MAX);
    for (uint32_t i = 0; i < n; i++)
        klawi_thread_join(pool.ids[i]);
    klawi_lock_acquire(&pool.lock);
    pool.stop = false;
    pool.threads = pool.started = pool.idle = 0;
    klawi_lock_release(&pool.lock);
}

void klawi_blocking_abandon(void) {
    klawi_lock_acquire(&pool.lock);
    uint32_t n = pool.started;
    pool.generation++;
    pool.threads = pool.started = pool.idle = 0;
    (void)take_all(); /* their fibers are abandoned too */
    atomic_fetch_add_explicit(&pool.ticket, 1, memory_order_relaxed);
    klawi_lock_release(&pool.lock);
    klawi_futex_wake(&pool.ticket, INT32_MAX);
    for (uint32_t i = 0; i < n; i++) /* nobody else writes ids now: no run is under way */
        klawi_thread_detach(pool.ids[i]);
}
