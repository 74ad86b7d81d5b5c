/* SPDX-License-Identifier: Apache-2.0 */
/* 05_workers.c - a pool of workers: many jobs, a few fibers, results as they come.
 *
 * All workers receive from one channel: whoever is free takes the next job. Endpoints are counted:
 * each worker has its own clone of the result sender, and when the last one is gone the results
 * end. An element is moved by value; `drop` says how to destroy one that nobody received. */
#include <klaw/klaw.h>

#include "check.h"

#define WORKERS 4
#define JOBS 1000

typedef struct result {
    uint32_t number;
    uint32_t steps;
} result;

static const klaw_type result_type = {.name = "result", .size = sizeof(result)};

typedef struct worker {
    klaw_receiver *jobs;
    klaw_sender *results;
} worker;

static uint32_t collatz(uint64_t n) {
    uint32_t steps = 0;
    for (; n != 1; steps++)
        n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

static klaw_err work(void *arg) {
    worker *w = arg;
    uint64_t n;
    klaw_err e;
    while ((e = klaw_recv(w->jobs, &n, KLAW_FOREVER)) == KLAW_OK) {
        result r = {(uint32_t)n, collatz(n)};
        if ((e = klaw_send(w->results, &r, KLAW_FOREVER)))
            break;
    }
    klaw_sender_unref(w->results);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static klaw_err first(void *arg) {
    result *best = arg, r;
    klaw_sender *jobs, *results;
    klaw_receiver *todo, *done;
    worker workers[WORKERS];
    int received = 0;
    CHECK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.name = "jobs"}, &jobs, &todo) == KLAW_OK);
    CHECK(klaw_channel(&result_type, &(klaw_channel_opts){.capacity = 8}, &results, &done) == 0);

    klaw_scope *scope;
    CHECK(klaw_scope_open(NULL, &scope) == KLAW_OK);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].jobs = todo; /* handles may be shared by fibers */
        CHECK(klaw_sender_clone(results, &workers[i].results) == KLAW_OK);
        CHECK(klaw_go(work, &workers[i]) == KLAW_OK);
    }
    klaw_sender_unref(results); /* the workers have theirs */

    for (uint64_t n = 1; n <= JOBS; n++) /* the channel holds 10 000: this never waits */
        CHECK(klaw_send(jobs, &n, KLAW_NOWAIT) == KLAW_OK);
    klaw_sender_unref(jobs); /* no more jobs: workers drain the channel and end */

    while (klaw_recv(done, &r, KLAW_FOREVER) == KLAW_OK) {
        received++;
        if (r.steps > best->steps)
            *best = r;
    }
    CHECK(klaw_scope_close(scope) == KLAW_OK);
    CHECK(received == JOBS);
    klaw_receiver_unref(todo);
    klaw_receiver_unref(done);
    return KLAW_OK;
}

int main(void) {
    result best = {0, 0};
    CHECK(klaw_run(first, &best, NULL) == KLAW_OK);
    printf("up to %d, %u takes the most steps: %u\n", JOBS, best.number, best.steps);
    CHECK(best.number == 871 && best.steps == 178);
    return 0;
}
