/* SPDX-License-Identifier: Apache-2.0 */
/* 12_event_loop.c - a foreign event loop that receives from a channel without blocking.
 *
 * A GUI, a game or a language's own loop has a thread that must never wait in klaw. It polls the
 * descriptor of an inbox beside its own ones, and is called back when an operation has been
 * granted. A grant is a permit: the element moves in klaw_op_finish, so giving up at any moment
 * loses nothing. */
#include <klaw/klaw.h>

#include <poll.h>
#include <pthread.h>

#include "check.h"

#define N 1000

typedef struct loop {
    klaw_inbox *inbox;
    klaw_receiver *rx;
    klaw_op op; /* embedded; stays where it is while it is not idle */
    uint64_t sum;
    bool ended;
    int wakeups;
} loop;

static void next(loop *l);

/* From klaw_inbox_pump, on the loop's thread: the receive was granted. */
static void granted(klaw_op *op, void *user) {
    loop *l = user;
    uint64_t value;
    klaw_err e = klaw_op_finish(op, &value);
    if (e == KLAW_OK)
        l->sum += value;
    l->ended = e == KLAW_CLOSED;
    if (!l->ended)
        next(l);
}

/* Takes what is there already, then leaves a receive waiting. */
static void next(loop *l) {
    bool waiting = false;
    klaw_err e;
    while ((e = klaw_op_recv(&l->op, l->rx, &waiting)) == KLAW_OK && !waiting) {
        uint64_t value;
        e = klaw_op_finish(&l->op, &value);
        if (e == KLAW_OK)
            l->sum += value;
    }
    l->ended = e == KLAW_CLOSED;
}

static void *run_loop(void *arg) {
    loop *l = arg;
    struct pollfd fds[] = {{.fd = klaw_inbox_fd(l->inbox), .events = POLLIN}}; /* and its own */
    klaw_op_init(&l->op, l->inbox, granted, l);
    next(l);
    while (!l->ended) {
        CHECK(poll(fds, 1, 5000) == 1);
        l->wakeups++;
        klaw_inbox_pump(l->inbox, 0);
    }
    return NULL;
}

static klaw_err produce(void *arg) {
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= N; i++) {
        e = klaw_send(arg, &i, KLAW_FOREVER);
        if (!e && i % 100 == 0)
            e = klaw_sleep(klaw_after(KLAW_MS(1)));
    }
    klaw_sender_unref(arg);
    return e;
}

int main(void) {
    loop l = {0};
    klaw_sender *tx;
    pthread_t thread;
    CHECK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 16}, &tx, &l.rx) == KLAW_OK);
    CHECK(klaw_inbox_open(&l.inbox) == KLAW_OK);
    CHECK(pthread_create(&thread, NULL, run_loop, &l) == 0);
    CHECK(klaw_run(produce, tx, NULL) == KLAW_OK);
    CHECK(pthread_join(thread, NULL) == 0);
    printf("the loop got %d numbers in %d wake-ups\n", N, l.wakeups);
    CHECK(l.sum == (uint64_t)N * (N + 1) / 2);
    klaw_inbox_unref(l.inbox);
    klaw_receiver_unref(l.rx);
    return 0;
}
