/* SPDX-License-Identifier: Apache-2.0 */
/* select.c - a select over eight channels: rows 8 and 8b. */
#include "bench.h"

#define CASES 8
#define EACH ((uint64_t)262144)
/* Nine tenths: each channel is still sure to hold something, so all eight cases are ready. */
#define READY_OPS (EACH * CASES * 9 / 10)
#define PARKED_OPS ((uint64_t)3000000)

typedef struct eight {
    klaw_sender *tx[CASES];
    klaw_receiver *rx[CASES];
    klaw_sender *ack_tx;
    klaw_receiver *ack_rx;
    uint64_t sum;
    double ns;
} eight;

static void eight_open(eight *s, int64_t capacity) {
    for (int k = 0; k < CASES; k++)
        bench_channel(capacity, false, &s->tx[k], &s->rx[k]);
    bench_channel(1, false, &s->ack_tx, &s->ack_rx);
}

static void eight_close(eight *s) {
    for (int k = 0; k < CASES; k++) {
        klaw_sender_unref(s->tx[k]);
        klaw_receiver_unref(s->rx[k]);
    }
    klaw_sender_unref(s->ack_tx);
    klaw_receiver_unref(s->ack_rx);
}

static klaw_err ready_main(void *arg) {
    eight *s = arg;
    uint64_t v;
    klaw_case cases[CASES];
    size_t chosen = 0;
    for (uint64_t i = 0; i < EACH * CASES; i++)
        MUST(klaw_send(s->tx[i % CASES], &i, KLAW_NOWAIT));
    for (int k = 0; k < CASES; k++)
        cases[k] = klaw_case_recv(s->rx[k], &v);
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < READY_OPS; i++) {
        MUST(klaw_select(cases, CASES, &chosen, KLAW_FOREVER));
        MUST(cases[chosen].err);
        s->sum += v;
    }
    s->ns = bench_per_op(start, READY_OPS);
    for (int k = 0; k < CASES; k++) {
        while (klaw_recv(s->rx[k], &v, KLAW_NOWAIT) == KLAW_OK)
            s->sum += v;
    }
    return KLAW_OK;
}

static double select_8_ready(void) {
    eight s = {0};
    eight_open(&s, (int64_t)EACH);
    bench_run(ready_main, &s, 1);
    eight_close(&s);
    bench_check(s.sum, bench_sum(EACH * CASES));
    return s.ns;
}

static klaw_err select_and_ack(void *arg) {
    eight *s = arg;
    uint64_t v;
    klaw_case cases[CASES];
    size_t chosen = 0;
    for (int k = 0; k < CASES; k++)
        cases[k] = klaw_case_recv(s->rx[k], &v);
    for (uint64_t i = 0; i < PARKED_OPS; i++) {
        MUST(klaw_select(cases, CASES, &chosen, KLAW_FOREVER));
        MUST(cases[chosen].err);
        MUST(klaw_send(s->ack_tx, &v, KLAW_FOREVER));
    }
    return KLAW_OK;
}

static klaw_err parked_main(void *arg) {
    eight *s = arg;
    uint64_t v;
    klaw_fiber *f = bench_spawn(select_and_ack, s);
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < PARKED_OPS; i++) {
        MUST(klaw_send(s->tx[i % CASES], &i, KLAW_FOREVER));
        MUST(klaw_recv(s->ack_rx, &v, KLAW_FOREVER));
        s->sum += v;
    }
    s->ns = bench_per_op(start, PARKED_OPS);
    bench_join(f);
    return KLAW_OK;
}

static double select_8_parked(void) {
    eight s = {0};
    eight_open(&s, 1);
    bench_run(parked_main, &s, 1);
    eight_close(&s);
    bench_check(s.sum, bench_sum(PARKED_OPS));
    return s.ns;
}

static const bench_job jobs[] = {
    {"select_8_ready", "klaw", select_8_ready},
    {"select_8_parked", "klaw", select_8_parked},
};

BENCH_MAIN(jobs)
