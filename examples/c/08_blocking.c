/* SPDX-License-Identifier: Apache-2.0 */
/* 08_blocking.c - calls that block, and plain threads beside fibers.
 *
 * A fiber that calls something that blocks (a name look-up, a database library, a long read) would
 * stop its worker and everybody who waits for it. klaw_blocking runs the call on a thread made for
 * that and parks the fiber. And channels do not care who uses them: a plain thread may send to a
 * fiber. */
#include <klaw/klaw.h>

#include <pthread.h>
#include <time.h>

#include "check.h"

#define CALLS 8

/* Something old that takes 50 ms and knows nothing of fibers. */
static klaw_err slow_library(void *arg) {
    int *answer = arg;
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    *answer = 42;
    return KLAW_OK; /* what it returns is what klaw_blocking returns */
}

static klaw_err caller(void *arg) {
    return klaw_blocking(slow_library, arg);
}

static klaw_err beat(void *arg) {
    int *beats = arg;
    klaw_err e;
    while ((e = klaw_sleep(klaw_after(KLAW_MS(1)))) == KLAW_OK)
        ++*beats;
    return e;
}

static void *plain_thread(void *arg) {
    klaw_sender *tx = arg;
    for (uint64_t i = 1; i <= 1000; i++)
        CHECK(klaw_send(tx, &i, KLAW_FOREVER) == KLAW_OK); /* a thread sleeps where a fiber parks */
    klaw_sender_unref(tx);
    return NULL;
}

static klaw_err first(void *arg) {
    (void)arg;
    int answers[CALLS] = {0}, beats = 0;
    klaw_scope *heart, *calls;
    int64_t start = klaw_now();
    CHECK(klaw_scope_open(NULL, &heart) == KLAW_OK);
    CHECK(klaw_go(beat, &beats) == KLAW_OK);
    CHECK(klaw_scope_open(NULL, &calls) == KLAW_OK);
    for (int i = 0; i < CALLS; i++)
        CHECK(klaw_go(caller, &answers[i]) == KLAW_OK);
    CHECK(klaw_scope_close(calls) == KLAW_OK);
    int64_t took = klaw_now() - start;
    klaw_scope_cancel(heart, "done");
    CHECK(klaw_scope_close(heart) == KLAW_CANCELLED);
    for (int i = 0; i < CALLS; i++)
        CHECK(answers[i] == 42);
    CHECK(beats > 0); /* other fibers went on meanwhile */
    printf("%d blocking calls of 50 ms each took %d ms together\n", CALLS, (int)(took / 1000000));

    klaw_sender *tx;
    klaw_receiver *rx;
    pthread_t thread;
    uint64_t value, sum = 0;
    CHECK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 16}, &tx, &rx) == KLAW_OK);
    CHECK(pthread_create(&thread, NULL, plain_thread, tx) == 0);
    while (klaw_recv(rx, &value, KLAW_FOREVER) == KLAW_OK)
        sum += value;
    CHECK(sum == 500500);
    klaw_receiver_unref(rx);
    CHECK(pthread_join(thread, NULL) == 0);
    return KLAW_OK;
}

int main(void) {
    CHECK(klaw_run(first, NULL, NULL) == KLAW_OK);
    return 0;
}
