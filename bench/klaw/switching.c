/* SPDX-License-Identifier: Apache-2.0 */
/* switching.c - a value goes back and forth, and round a ring: rows 5, 5b, 5c and 10. */
#include "bench.h"

#include <pthread.h>

/* One slot, the smallest buffer. Each peer has 0 or 1, whichever suits it best. */
#define PING_CAPACITY 1

typedef struct ends {
    klaw_sender *tx;
    klaw_receiver *rx;
} ends;

typedef struct pair {
    ends near, far;
    uint64_t n, sum;
    double ns;
} pair;

static void pair_open(pair *p, bool one_to_one) {
    bench_channel(PING_CAPACITY, one_to_one, &p->near.tx, &p->far.rx);
    bench_channel(PING_CAPACITY, one_to_one, &p->far.tx, &p->near.rx);
}

static klaw_err echo(void *arg) {
    ends *e = arg;
    uint64_t v;
    while (klaw_recv(e->rx, &v, KLAW_FOREVER) == KLAW_OK)
        MUST(klaw_send(e->tx, &v, KLAW_FOREVER));
    klaw_receiver_unref(e->rx);
    klaw_sender_unref(e->tx);
    return KLAW_OK;
}

static void ping(pair *p) {
    int64_t start = klaw_now();
    for (uint64_t i = 0, v; i < p->n; i++) {
        MUST(klaw_send(p->near.tx, &i, KLAW_FOREVER));
        MUST(klaw_recv(p->near.rx, &v, KLAW_FOREVER));
        p->sum += v;
    }
    p->ns = bench_per_op(start, p->n);
    klaw_sender_unref(p->near.tx);
    klaw_receiver_unref(p->near.rx);
}

static klaw_err ping_main(void *arg) {
    pair *p = arg;
    klaw_fiber *f = bench_spawn(echo, &p->far);
    ping(p);
    bench_join(f);
    return KLAW_OK;
}

static double pingpong(uint32_t workers, uint64_t n, bool one_to_one) {
    pair p = {.n = n};
    pair_open(&p, one_to_one);
    bench_run(ping_main, &p, workers);
    bench_check(p.sum, bench_sum(n));
    return p.ns;
}

static double pingpong_1w(void) {
    return pingpong(1, 8000000, false);
}
static double pingpong_1w_one(void) {
    return pingpong(1, 8000000, true);
}
static double pingpong_2w(void) {
    return pingpong(2, 6000000, false);
}
static double pingpong_2w_one(void) {
    return pingpong(2, 6000000, true);
}

static void *echo_thread(void *arg) {
    MUST(echo(arg));
    return NULL;
}

static double threads(bool one_to_one) {
    pair p = {.n = 300000};
    pthread_t other;
    pair_open(&p, one_to_one);
    if (pthread_create(&other, NULL, echo_thread, &p.far) != 0)
        bench_fail(__LINE__, KLAW_SYSTEM);
    ping(&p);
    pthread_join(other, NULL);
    bench_check(p.sum, bench_sum(p.n));
    return p.ns;
}

static double pingpong_threads(void) {
    return threads(false);
}
static double pingpong_threads_one(void) {
    return threads(true);
}

/* ---- a token goes round 1000 fibers; each adds one ---- */

#define MEMBERS 1000
#define LAPS 10000

typedef struct ring {
    ends member[MEMBERS];
    double ns;
} ring;

static klaw_err pass_on(void *arg) {
    ends *e = arg;
    uint64_t v;
    while (klaw_recv(e->rx, &v, KLAW_FOREVER) == KLAW_OK) {
        v++;
        MUST(klaw_send(e->tx, &v, KLAW_FOREVER));
    }
    klaw_receiver_unref(e->rx);
    klaw_sender_unref(e->tx);
    return KLAW_OK;
}

static klaw_err ring_main(void *arg) {
    ring *r = arg;
    uint64_t token = 0;
    for (int k = 0; k < MEMBERS; k++) {
        bench_channel(PING_CAPACITY, false, &r->member[k].tx, &r->member[(k + 1) % MEMBERS].rx);
    }
    int64_t start = klaw_now();
    for (int k = 1; k < MEMBERS; k++)
        MUST(klaw_go(pass_on, &r->member[k]));
    for (int lap = 0; lap < LAPS; lap++) {
        MUST(klaw_send(r->member[0].tx, &token, KLAW_FOREVER));
        MUST(klaw_recv(r->member[0].rx, &token, KLAW_FOREVER));
        token++;
    }
    r->ns = bench_per_op(start, (uint64_t)MEMBERS * LAPS);
    bench_check(token, (uint64_t)MEMBERS * LAPS);
    klaw_sender_unref(r->member[0].tx); /* the close goes round, too, and ends them all */
    klaw_receiver_unref(r->member[0].rx);
    return KLAW_OK;
}

static double ring_1000(void) {
    static ring r;
    bench_run(ring_main, &r, 1);
    return r.ns;
}

static const bench_job jobs[] = {
    {"pingpong_1w", "klaw", pingpong_1w},
    {"pingpong_1w", "klaw-1to1", pingpong_1w_one},
    {"pingpong_2w", "klaw", pingpong_2w},
    {"pingpong_2w", "klaw-1to1", pingpong_2w_one},
    {"pingpong_threads", "klaw", pingpong_threads},
    {"pingpong_threads", "klaw-1to1", pingpong_threads_one},
    {"ring_1000", "klaw", ring_1000},
};

BENCH_MAIN(jobs)
