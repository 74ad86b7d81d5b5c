/* SPDX-License-Identifier: Apache-2.0 */
/* fanout.c - one publisher, eight receivers: rows 11 and 11b. */
#include "bench.h"

#define RECEIVERS 8

typedef struct fan {
    klaw_sender *tx;
    klaw_receiver *rx[RECEIVERS];
    uint64_t n, seen, sum; /* one worker: plain counters */
    int next;
    double ns;
} fan;

static void fan_clone(fan *f) {
    for (int k = 1; k < RECEIVERS; k++)
        MUST(klaw_receiver_clone(f->rx[0], &f->rx[k]));
}

static klaw_err take_all(void *arg) {
    fan *f = arg;
    klaw_receiver *rx = f->rx[f->next++];
    uint64_t v;
    klaw_err e;
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) == KLAW_OK) {
        f->sum += v;
        f->seen++;
    }
    klaw_receiver_unref(rx);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static klaw_err broadcast_main(void *arg) {
    fan *f = arg;
    klaw_fiber *takers[RECEIVERS];
    int64_t start = klaw_now();
    for (int k = 0; k < RECEIVERS; k++)
        takers[k] = bench_spawn(take_all, f);
    for (uint64_t i = 0; i < f->n; i++)
        MUST(klaw_send(f->tx, &i, KLAW_FOREVER));
    klaw_sender_unref(f->tx);
    for (int k = 0; k < RECEIVERS; k++)
        bench_join(takers[k]);
    f->ns = bench_per_op(start, f->n);
    return KLAW_OK;
}

static double broadcast_8(void) {
    fan f = {.n = 4000000};
    klaw_broadcast_opts opts = {.capacity = 1024, .lag = KLAW_LAG_WAIT};
    MUST(klaw_broadcast(&klaw_u64, &opts, &f.tx, &f.rx[0]));
    fan_clone(&f);
    bench_run(broadcast_main, &f, 1);
    bench_check(f.sum, RECEIVERS * bench_sum(f.n));
    return f.ns;
}

static void fan_watch(fan *f) {
    uint64_t initial = 0;
    MUST(klaw_watch(&klaw_u64, &initial, &f->tx, &f->rx[0]));
    fan_clone(f);
}

static klaw_err idle_main(void *arg) {
    fan *f = arg;
    int64_t start = klaw_now();
    for (uint64_t i = 1; i <= f->n; i++)
        MUST(klaw_send(f->tx, &i, KLAW_FOREVER));
    f->ns = bench_per_op(start, f->n);
    klaw_sender_unref(f->tx);
    return take_all(f);
}

static double watch_8_idle(void) {
    fan f = {.n = 20000000};
    fan_watch(&f);
    bench_run(idle_main, &f, 1);
    for (int k = 1; k < RECEIVERS; k++)
        MUST(take_all(&f));
    bench_check(f.sum, RECEIVERS * f.n);
    return f.ns;
}

static klaw_err seen_main(void *arg) {
    fan *f = arg;
    klaw_fiber *takers[RECEIVERS];
    for (int k = 0; k < RECEIVERS; k++)
        takers[k] = bench_spawn(take_all, f);
    int64_t start = klaw_now();
    for (uint64_t i = 1; i <= f->n; i++) {
        MUST(klaw_send(f->tx, &i, KLAW_FOREVER));
        while (*(volatile uint64_t *)&f->seen < RECEIVERS * i)
            MUST(klaw_yield());
    }
    f->ns = bench_per_op(start, f->n);
    klaw_sender_unref(f->tx);
    for (int k = 0; k < RECEIVERS; k++)
        bench_join(takers[k]);
    return KLAW_OK;
}

static double watch_8_seen(void) {
    fan f = {.n = 700000};
    fan_watch(&f);
    bench_run(seen_main, &f, 1);
    bench_check(f.sum, RECEIVERS * (bench_sum(f.n) + f.n));
    return f.ns;
}

static const bench_job jobs[] = {
    {"broadcast_8", "klaw", broadcast_8},
    {"watch_8_idle", "klaw", watch_8_idle},
    {"watch_8_seen", "klaw", watch_8_seen},
};

BENCH_MAIN(jobs)
