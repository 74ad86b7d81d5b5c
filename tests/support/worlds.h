/* SPDX-License-Identifier: Apache-2.0 */
/* worlds.h - a test's body runs in three worlds: all hosts are fibers; all are plain threads, with
 * no runtime; a fiber whose helpers are threads and fibers in turn. Whatever it takes from the
 * library it has to give back.
 *
 *     SPEC(close_wakes_a_blocked_sender) {        the body
 *         job *j = start(fn, arg);                a helper host of this world
 *         UNTIL(…);
 *         OK(ended(j));
 *     }
 *     … cmocka_unit_test(close_wakes_a_blocked_sender) */
#ifndef KLAW_TESTS_SUPPORT_WORLDS_H
#define KLAW_TESTS_SUPPORT_WORLDS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/check.h"

enum world { FIBERS, THREADS, MIXED };
static enum world world_now;
static _Atomic unsigned world_starts;

/* A host that runs fn(arg). */
typedef struct job {
    klaw_err (*fn)(void *);
    void *arg;
    klaw_fiber *fiber; /* NULL: a thread */
    pthread_t thread;
    klaw_err result;
    _Atomic bool done;
} job;

static inline void *job_thread(void *arg) {
    job *j = arg;
    j->result = j->fn(j->arg);
    atomic_store(&j->done, true);
    return NULL;
}

/* Its own result: an error of a fiber would be klaw_run's answer. */
static inline klaw_err job_fiber(void *arg) {
    job *j = arg;
    j->result = j->fn(j->arg);
    atomic_store(&j->done, true);
    return KLAW_OK;
}

static inline void job_start_as(job *j, klaw_err (*fn)(void *), void *arg, bool fiber) {
    *j = (job){.fn = fn, .arg = arg};
    if (fiber)
        OK(klaw_spawn(NULL, job_fiber, j, NULL, &j->fiber));
    else
        SAME(pthread_create(&j->thread, NULL, job_thread, j), 0);
}

static inline void job_start(job *j, klaw_err (*fn)(void *), void *arg) {
    bool fiber = world_now == FIBERS || (world_now == MIXED && world_starts++ % 2);
    job_start_as(j, fn, arg, fiber);
}

/* Waits for its end; what it returned. */
static inline klaw_err job_end(job *j) {
    klaw_err e = KLAW_OK;
    if (j->fiber) {
        OK(klaw_join(j->fiber, &e, NULL, KLAW_WITHIN(CHECK_PATIENCE)));
        OK(e);
        return j->result;
    }
    UNTIL(atomic_load(&j->done)); /* pthread_join would keep a worker */
    SAME(pthread_join(j->thread, NULL), 0);
    return j->result;
}

static inline job *start(klaw_err (*fn)(void *), void *arg) {
    job *j = malloc(sizeof *j);
    CHECK(j);
    job_start(j, fn, arg);
    return j;
}
static inline klaw_err ended(job *j) {
    klaw_err e = job_end(j);
    free(j);
    return e;
}

/* --- running --- */
static inline klaw_err world_body(void *body) {
    (*(void (**)(void))body)();
    return KLAW_OK;
}

static inline void *world_thread(void *body) {
    if (world_now == THREADS) {
        (*(void (**)(void))body)();
    } else {
        klaw_run_opts opts = {.workers = 2};
        OK(klaw_run(world_body, body, &opts));
    }
    return NULL;
}

/* Runs the body on a fresh thread in one world; nothing of the library's is left afterwards. */
static inline void run_in(enum world world, void (*body)(void)) {
    pthread_t t;
    klaw_alloc_trim();
    uint64_t live = klaw_alloc_live();
    world_now = world;
    atomic_store(&world_starts, 0);
    SAME(pthread_create(&t, NULL, world_thread, (void *)&body), 0);
    SAME(pthread_join(t, NULL), 0);
    klaw_alloc_trim();
    SAME(klaw_alloc_live(), live);
}

static inline void run_in_all_worlds(void (*body)(void), const char *name) {
    check_test = name;
    run_in(THREADS, body);
    run_in(FIBERS, body);
    run_in(MIXED, body);
}

#define SPEC_IN(name, how)           \
    static void name##_body(void);   \
    static void name(void **state) { \
        (void)state;                 \
        how;                         \
    }                                \
    static void name##_body(void)
/* The body that follows runs in all worlds. */
#define SPEC(name) SPEC_IN(name, run_in_all_worlds(name##_body, #name))
/* Only fibers: cancellation, scopes. */
#define SPEC_FIBERS(name) SPEC_IN(name, check_test = #name; run_in(FIBERS, name##_body))
/* It needs no second host: once, on a plain thread. */
#define SPEC_PLAIN(name) SPEC_IN(name, check_test = #name; run_in(THREADS, name##_body))

#endif
