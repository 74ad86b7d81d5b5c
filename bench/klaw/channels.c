/* SPDX-License-Identifier: Apache-2.0 */
/* channels.c - streams through a channel: rows 1 to 4 of the goals. */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define BATCH 64u
#define SIDE_MAX 4

/* One stream: `senders` times a share of 0 .. n-1 into one channel, summed by `receivers`. */
typedef struct stream {
    klaw_sender *tx[SIDE_MAX];
    klaw_receiver *rx[SIDE_MAX];
    uint64_t n;
    int senders, receivers;
    _Atomic int next_sender, next_receiver;
    _Atomic uint64_t sum;
    _Atomic int apart; /* set when the far receiver has been spawned on the other worker */
    pid_t near_tid, far_tid;
    klaw_fiber *far;
    double ns;
} stream;

static klaw_err send_all(void *arg) {
    stream *s = arg;
    int k = atomic_fetch_add(&s->next_sender, 1);
    klaw_sender *tx = s->tx[k];
    uint64_t part = s->n / (uint64_t)s->senders;
    for (uint64_t i = (uint64_t)k * part, end = i + part; i < end; i++) {
        MUST(klaw_send(tx, &i, KLAW_FOREVER));
    }
    klaw_sender_unref(tx);
    return KLAW_OK;
}

static klaw_err recv_all(void *arg) {
    stream *s = arg;
    klaw_receiver *rx = s->rx[atomic_fetch_add(&s->next_receiver, 1)];
    uint64_t sum = 0, v;
    klaw_err e;
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) == KLAW_OK)
        sum += v;
    klaw_receiver_unref(rx);
    atomic_fetch_add(&s->sum, sum);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static klaw_err send_batches(void *arg) {
    stream *s = arg;
    uint64_t block[BATCH];
    for (uint64_t i = 0; i < s->n; i += BATCH) {
        for (uint64_t k = 0; k < BATCH; k++)
            block[k] = i + k;
        MUST(klaw_send_batch(s->tx[0], block, BATCH, KLAW_FOREVER));
    }
    klaw_sender_unref(s->tx[0]);
    return KLAW_OK;
}

static klaw_err recv_batches(void *arg) {
    stream *s = arg;
    uint64_t block[BATCH], sum = 0;
    size_t got = 0;
    klaw_err e;
    while ((e = klaw_recv_batch(s->rx[0], block, BATCH, &got, KLAW_FOREVER)) == KLAW_OK) {
        for (size_t k = 0; k < got; k++)
            sum += block[k];
    }
    klaw_receiver_unref(s->rx[0]);
    atomic_fetch_add(&s->sum, sum);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static void stream_open(stream *s, int64_t capacity, bool one_to_one) {
    bench_channel(capacity, one_to_one, &s->tx[0], &s->rx[0]);
    for (int k = 1; k < s->senders; k++)
        MUST(klaw_sender_clone(s->tx[0], &s->tx[k]));
    for (int k = 1; k < s->receivers; k++)
        MUST(klaw_receiver_clone(s->rx[0], &s->rx[k]));
}

static klaw_err stream_main(void *arg) {
    stream *s = arg;
    klaw_fiber *f[2 * SIDE_MAX];
    int n = 0;
    int64_t start = klaw_now();
    for (int k = 0; k < s->receivers; k++)
        f[n++] = bench_spawn(recv_all, s);
    for (int k = 0; k < s->senders; k++)
        f[n++] = bench_spawn(send_all, s);
    while (n > 0)
        bench_join(f[--n]);
    s->ns = bench_per_op(start, s->n);
    return KLAW_OK;
}

static klaw_err batch_main(void *arg) {
    stream *s = arg;
    int64_t start = klaw_now();
    klaw_fiber *rx = bench_spawn(recv_batches, s), *tx = bench_spawn(send_batches, s);
    bench_join(tx);
    bench_join(rx);
    s->ns = bench_per_op(start, s->n);
    return KLAW_OK;
}

static double stream_run(stream s, klaw_fn main_fn, uint32_t workers, int64_t capacity, bool one) {
    stream_open(&s, capacity, one);
    bench_run(main_fn, &s, workers);
    bench_check(s.sum, bench_sum(s.n));
    return s.ns;
}

static double plain(uint32_t workers, int64_t capacity, bool one, uint64_t n) {
    stream s = {.n = n, .senders = 1, .receivers = 1};
    return stream_run(s, stream_main, workers, capacity, one);
}

static double spsc_1w(void) {
    return plain(1, 1024, false, 40000000);
}
static double spsc_1w_one(void) {
    return plain(1, 1024, true, 40000000);
}
static double spsc_2w(void) {
    return plain(2, 1024, false, 30000000);
}
static double spsc_2w_one(void) {
    return plain(2, 1024, true, 30000000);
}
static double spsc_2w_10k(void) {
    return plain(2, 10000, false, 30000000);
}
static double spsc_2w_10k_one(void) {
    return plain(2, 10000, true, 30000000);
}

static double spsc_batch64(void) {
    stream s = {.n = 1000000 * BATCH, .senders = 1, .receivers = 1};
    return stream_run(s, batch_main, 1, 1024, false);
}

static double spsc_batch64_one(void) {
    stream s = {.n = 1000000 * BATCH, .senders = 1, .receivers = 1};
    return stream_run(s, batch_main, 1, 1024, true);
}

static double mpsc_4_1(void) {
    stream s = {.n = 20000000, .senders = 4, .receivers = 1};
    return stream_run(s, stream_main, 2, 1024, false);
}

static double mpmc_4_4(void) {
    stream s = {.n = 20000000, .senders = 4, .receivers = 4};
    return stream_run(s, stream_main, 2, 1024, false);
}

/* ---- ends pinned to different workers ----
 * A pinned fiber stays where its spawner is. So a free fiber lets itself be stolen from the main
 * fiber, which holds its worker by spinning, and spawns the receiver from there. */

static klaw_err recv_far(void *arg) {
    stream *s = arg;
    s->far_tid = gettid();
    return recv_all(s);
}

static klaw_err send_near(void *arg) {
    stream *s = arg;
    pid_t tid = gettid();
    klaw_err e = send_all(s);
    bench_check((uint64_t)gettid(), (uint64_t)tid);
    return e;
}

static klaw_err go_far(void *arg) {
    stream *s = arg;
    while (gettid() == s->near_tid)
        MUST(klaw_yield());
    klaw_fiber_opts opts = {.pinned = true};
    MUST(klaw_spawn(NULL, recv_far, s, &opts, &s->far));
    atomic_store(&s->apart, 1);
    return KLAW_OK;
}

static klaw_err pinned_main(void *arg) {
    stream *s = arg;
    klaw_fiber_opts opts = {.pinned = true};
    klaw_fiber *near = NULL;
    s->near_tid = gettid();
    klaw_fiber *mover = bench_spawn(go_far, s);
    int64_t limit = klaw_now() + KLAW_S(5);
    while (!atomic_load(&s->apart)) {
        if (klaw_now() > limit)
            bench_fail(__LINE__, KLAW_TIMEOUT);
    }
    int64_t start = klaw_now();
    MUST(klaw_spawn(NULL, send_near, s, &opts, &near));
    bench_join(near);
    bench_join(s->far);
    s->ns = bench_per_op(start, s->n);
    bench_join(mover);
    if (s->far_tid == s->near_tid)
        bench_fail(__LINE__, KLAW_INVALID);
    return KLAW_OK;
}

static double pinned(bool one) {
    stream s = {.n = 10000000, .senders = 1, .receivers = 1};
    return stream_run(s, pinned_main, 2, 1024, one);
}

static double spsc_2w_pinned(void) {
    return pinned(false);
}
static double spsc_2w_pinned_one(void) {
    return pinned(true);
}

/* ---- plain threads, no runtime ---- */

static void *send_thread(void *arg) {
    MUST(send_all(arg));
    return NULL;
}

static double threads(bool one) {
    stream s = {.n = 10000000, .senders = 1, .receivers = 1};
    pthread_t sender;
    stream_open(&s, 1024, one);
    int64_t start = klaw_now();
    if (pthread_create(&sender, NULL, send_thread, &s) != 0)
        bench_fail(__LINE__, KLAW_SYSTEM);
    MUST(recv_all(&s));
    pthread_join(sender, NULL);
    double ns = bench_per_op(start, s.n);
    bench_check(s.sum, bench_sum(s.n));
    return ns;
}

static double spsc_threads(void) {
    return threads(false);
}
static double spsc_threads_one(void) {
    return threads(true);
}

static const bench_job jobs[] = {
    {"spsc_1w", "klaw", spsc_1w},
    {"spsc_1w", "klaw-1to1", spsc_1w_one},
    {"spsc_2w", "klaw", spsc_2w},
    {"spsc_2w", "klaw-1to1", spsc_2w_one},
    {"spsc_2w_pinned", "klaw", spsc_2w_pinned},
    {"spsc_2w_pinned", "klaw-1to1", spsc_2w_pinned_one},
    {"spsc_threads", "klaw", spsc_threads},
    {"spsc_threads", "klaw-1to1", spsc_threads_one},
    {"spsc_batch64", "klaw", spsc_batch64},
    {"spsc_batch64", "klaw-1to1", spsc_batch64_one},
    {"spsc_2w_10k", "klaw", spsc_2w_10k},
    {"spsc_2w_10k", "klaw-1to1", spsc_2w_10k_one},
    {"mpsc_4_1", "klaw", mpsc_4_1},
    {"mpmc_4_4", "klaw", mpmc_4_4},
};

BENCH_MAIN(jobs)
