/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - the contract of every benchmark program, for klaw's own.
 *
 * `prog --list` prints one `JOB IMPL` a line; `prog JOB [IMPL]` runs that job once, checks its
 * own result and prints `JOB IMPL VALUE UNIT`. A wrong result aborts. Elements are 8 bytes;
 * senders send 0, 1, 2 ..., receivers sum. A program whose name ends in -static is linked with the
 * static library and says so in IMPL; the objects are the same. */
#ifndef KLAW_BENCH_H
#define KLAW_BENCH_H

#include "klaw/broadcast.h"
#include "klaw/select.h"
#include "klaw/watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One job: returns nanoseconds an operation, or bytes a fiber. */
typedef struct bench_job {
    const char *name;
    const char *impl;
    double (*run)(void);
} bench_job;

static inline void bench_fail(int line, klaw_err e) {
    fprintf(stderr, "line %d: %s (%s)\n", line, klaw_err_name(e), klaw_err_text(e));
    abort();
}

/* Aborts unless the call answered OK. */
#define MUST(call)                                 \
    do {                                           \
        klaw_err must_ = (call);                   \
        if (__builtin_expect(must_ != KLAW_OK, 0)) \
            bench_fail(__LINE__, must_);           \
    } while (0)

/* Aborts unless the result is the expected one. */
static inline void bench_check(uint64_t got, uint64_t want) {
    if (got == want)
        return;
    fprintf(stderr, "wrong result: %" PRIu64 ", expected %" PRIu64 "\n", got, want);
    abort();
}

/* 0 + 1 + ... + (n - 1). */
static inline uint64_t bench_sum(uint64_t n) {
    return n * (n - 1) / 2;
}

/* Nanoseconds an operation since `start`. */
static inline double bench_per_op(int64_t start, uint64_t ops) {
    return (double)(klaw_now() - start) / (double)ops;
}

/* Runs main(arg) on a runtime with this many workers. */
static inline void bench_run(klaw_fn main_fn, void *arg, uint32_t workers) {
    klaw_run_opts opts = {.workers = workers, .name = "bench"};
    MUST(klaw_run(main_fn, arg, &opts));
}

/* A channel of 8-byte elements. */
static inline void bench_channel(int64_t capacity, bool one_to_one, klaw_sender **tx,
                                 klaw_receiver **rx) {
    klaw_channel_opts opts = {.capacity = capacity, .one_to_one = one_to_one};
    MUST(klaw_channel(&klaw_u64, &opts, tx, rx));
}

/* A fiber to be joined by bench_join. */
static inline klaw_fiber *bench_spawn(klaw_fn fn, void *arg) {
    klaw_fiber *f = NULL;
    MUST(klaw_spawn(NULL, fn, arg, NULL, &f));
    return f;
}

static inline void bench_join(klaw_fiber *f) {
    klaw_err result = KLAW_OK;
    MUST(klaw_join(f, &result, NULL, KLAW_FOREVER));
    MUST(result);
}

/* The program. */
static inline int bench_main(int argc, char **argv, const bench_job *jobs, size_t n) {
    size_t len = strlen(argv[0]);
    const char *tail = len > 7 && strcmp(argv[0] + len - 7, "-static") == 0 ? "-static" : "";
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < n; i++)
            printf("%s %s%s\n", jobs[i].name, jobs[i].impl, tail);
        return 0;
    }
    for (size_t i = 0; argc >= 2 && i < n; i++) {
        char impl[64];
        snprintf(impl, sizeof impl, "%s%s", jobs[i].impl, tail);
        if (strcmp(argv[1], jobs[i].name) != 0)
            continue;
        if (argc >= 3 && strcmp(argv[2], impl) != 0)
            continue;
        double value = jobs[i].run();
        const char *unit = strncmp(jobs[i].name, "mem_", 4) == 0 ? "bytes" : "ns";
        printf("%s %s %.2f %s\n", jobs[i].name, impl, value, unit);
        return 0;
    }
    fprintf(stderr, "usage: %s --list | JOB [IMPL]\n", argv[0]);
    return 2;
}

#define BENCH_MAIN(jobs)                                                    \
    int main(int argc, char **argv) {                                       \
        return bench_main(argc, argv, jobs, sizeof(jobs) / sizeof *(jobs)); \
    }

#endif
