/* SPDX-License-Identifier: Apache-2.0 */
/* runs.h - short words for tests of the scheduler: a test that runs on its own, fibers with
 * handles, gates, child processes.
 *
 *     RUNS(sleepers_wake_in_order, 2) {           the body is main's fiber; 2 workers
 *         klaw_fiber *f = fiber(fn, arg);
 *         OK(result_of(f));
 *     }
 *     … TEST(sleepers_wake_in_order)              whatever it took from the library it has given
 * back */
#ifndef KLAW_TESTS_SUPPORT_RUNS_H
#define KLAW_TESTS_SUPPORT_RUNS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/check.h"

#define SOON_NS CHECK_PATIENCE
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* --- the frame of a test --- */
static uint64_t runs_live;

static inline int runs_setup(void **state) {
    (void)state;
    klaw_err e = klaw_sleep(1); /* the thread's own host belongs to the thread */
    klaw_alloc_trim();
    runs_live = klaw_alloc_live();
    return e != KLAW_OK;
}

/* A thread that has ended may give its host back a moment later than its join. */
static inline bool runs_nothing_left(void) {
    for (int64_t until = klaw_now() + KLAW_S(5);; klaw_alloc_trim()) {
        klaw_alloc_trim();
        if (klaw_alloc_live() == runs_live)
            return true;
        if (klaw_now() > until)
            return false;
    }
}

static inline int runs_teardown(void **state) {
    (void)state;
    klaw_alloc_fail_at(0, false);
    if (runs_nothing_left())
        return 0;
    fprintf(stderr, "%s: %" PRIu64 " blocks before, %" PRIu64 " after\n", check_test, runs_live,
            klaw_alloc_live());
    return 1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, runs_setup, runs_teardown)

static inline klaw_err runs_body(void *body) {
    (*(void (**)(void))body)();
    return KLAW_OK;
}

/* Runs the body on main's fiber. */
static inline klaw_err run_with(uint32_t workers, void (*body)(void)) {
    klaw_run_opts o = {.workers = workers};
    return klaw_run(runs_body, (void *)&body, &o);
}

/* A body on the test's own thread, outside of any run. */
#define PLAIN(name)                  \
    static void name##_body(void);   \
    static void name(void **state) { \
        (void)state;                 \
        check_test = #name;          \
        name##_body();               \
    }                                \
    static void name##_body(void)
/* A body on main's fiber, with that many workers. */
#define RUNS(name, workers)                   \
    static void name##_body(void);            \
    static void name(void **state) {          \
        (void)state;                          \
        check_test = #name;                   \
        OK(run_with((workers), name##_body)); \
    }                                         \
    static void name##_body(void)

/* --- fibers --- */
static inline klaw_fiber *fiber_in(klaw_scope *s, klaw_err (*fn)(void *), void *arg) {
    klaw_fiber *f = NULL;
    OK(klaw_spawn(s, fn, arg, NULL, &f));
    CHECK(f);
    return f;
}
static inline klaw_fiber *fiber(klaw_err (*fn)(void *), void *arg) {
    return fiber_in(NULL, fn, arg);
}
static inline klaw_fiber *fiber_with(klaw_fiber_opts o, klaw_err (*fn)(void *), void *arg) {
    klaw_fiber *f = NULL;
    OK(klaw_spawn(NULL, fn, arg, &o, &f));
    return f;
}
/* Waits for its end. */
static inline klaw_err result_of(klaw_fiber *f) {
    klaw_err e = KLAW_OK;
    OK(klaw_join(f, &e, NULL, KLAW_WITHIN(SOON_NS)));
    return e;
}
static inline klaw_scope *scope_open(klaw_scope_opts o) {
    klaw_scope *s = NULL;
    OK(klaw_scope_open(&o, &s));
    CHECK(s);
    return s;
}
#define SCOPE(...) scope_open((klaw_scope_opts){__VA_ARGS__})

/* Parks until it is cancelled; says so. */
static inline klaw_err parks(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}
static inline klaw_err returns_ok(void *arg) {
    (void)arg;
    return KLAW_OK;
}
/* Returns the number it is given. */
static inline klaw_err returns(void *arg) {
    return (klaw_err)(intptr_t)arg;
}
static inline klaw_err counts(void *arg) {
    atomic_fetch_add((_Atomic int *)arg, 1);
    return KLAW_OK;
}

/* How many live fibers of this name are in this wait ("sleep", "recv", …). */
static inline size_t waiting(const char *name, const char *what) {
    klaw_snapshot *snap;
    size_t n, found = 0;
    OK(klaw_snapshot_take(&snap));
    const klaw_fiber_info *f = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++)
        found += f[i].state == KLAW_FIBER_WAITING && strcmp(f[i].name, name) == 0 &&
                 strcmp(f[i].waiting_on, what) == 0;
    klaw_snapshot_free(snap);
    return found;
}

/* --- gates: opened once, passed by many --- */
typedef struct gate {
    klaw_sender *tx;
    klaw_receiver *rx;
} gate;
static inline gate gate_make(void) {
    gate g;
    OK(klaw_channel(&klaw_u64, NULL, &g.tx, &g.rx));
    return g;
}
static inline void gate_open(gate *g) {
    klaw_sender_close(g->tx);
}
static inline void gate_free(gate *g) {
    klaw_sender_unref(g->tx);
    klaw_receiver_unref(g->rx);
}
/* CLOSED when it was opened, else why the wait ended. */
static inline klaw_err gate_wait(gate *g) {
    uint64_t v;
    return klaw_recv(g->rx, &v, KLAW_FOREVER);
}
static inline klaw_err passes(void *arg) {
    klaw_err e = gate_wait(arg);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

/* --- threads --- */
typedef struct thread_job {
    klaw_err (*fn)(void *);
    void *arg;
    klaw_err result;
    pthread_t id;
    _Atomic bool done;
} thread_job;
static inline void *thread_job_main(void *p) {
    thread_job *t = p;
    t->result = t->fn(t->arg);
    atomic_store(&t->done, true);
    return NULL;
}
static inline void thread_start(thread_job *t, klaw_err (*fn)(void *), void *arg) {
    t->fn = fn;
    t->arg = arg;
    t->result = KLAW_OK;
    atomic_store(&t->done, false);
    SAME(pthread_create(&t->id, NULL, thread_job_main, t), 0);
}
/* From a fiber too: it does not keep the worker. */
static inline klaw_err thread_end(thread_job *t) {
    UNTIL(atomic_load(&t->done));
    SAME(pthread_join(t->id, NULL), 0);
    return t->result;
}

/* --- time --- */
/* Computes, without a call of klaw. */
static inline void compute(int64_t ns) {
    static _Atomic uint64_t sink;
    int64_t until = klaw_now() + ns;
    while (klaw_now() < until)
        for (int i = 0; i < 1000; i++)
            atomic_fetch_add_explicit(&sink, 1, memory_order_relaxed);
}

#endif
