/* SPDX-License-Identifier: Apache-2.0 */
/* timers.c - timers that are armed and cancelled before they fire: row 12. */
#include "bench.h"

#define OPS ((uint64_t)20000000)
#define OUTSTANDING ((uint64_t)1000000)

typedef struct clockwork {
    uint64_t fired, cancelled;
    double ns;
} clockwork;

static void fire(void *arg) {
    clockwork *c = arg;
    c->fired++;
}

/* One deadline, prepared: the peer that wins this row (libuv) reads no clock either. */
static klaw_err again_main(void *arg) {
    clockwork *c = arg;
    klaw_timer t;
    klaw_deadline hour = klaw_after(KLAW_S(3600));
    klaw_timer_init(&t, fire, c);
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < OPS; i++) {
        MUST(klaw_timer_arm(&t, hour));
        c->cancelled += klaw_timer_cancel(&t);
    }
    c->ns = bench_per_op(start, OPS);
    klaw_timer_drain(&t);
    return KLAW_OK;
}

static double timer_arm_cancel(void) {
    clockwork c = {0};
    bench_run(again_main, &c, 1);
    bench_check(c.cancelled, OPS);
    bench_check(c.fired, 0);
    return c.ns;
}

/* Deadlines spread over the next hour, in no order. */
static klaw_err outstanding_main(void *arg) {
    clockwork *c = arg;
    klaw_timer *all = calloc(OUTSTANDING, sizeof *all);
    if (all == NULL)
        return KLAW_NOMEM;
    klaw_deadline base = klaw_after(KLAW_S(60));
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < OUTSTANDING; i++) {
        klaw_timer_init(&all[i], fire, c);
        MUST(klaw_timer_arm(&all[i], base + KLAW_MS((int64_t)(i * 2654435761u % 3600000u))));
    }
    for (uint64_t i = 0; i < OUTSTANDING; i++)
        c->cancelled += klaw_timer_cancel(&all[i]);
    c->ns = bench_per_op(start, OUTSTANDING);
    free(all);
    return KLAW_OK;
}

static double timer_1m(void) {
    clockwork c = {0};
    bench_run(outstanding_main, &c, 1);
    bench_check(c.cancelled, OUTSTANDING);
    bench_check(c.fired, 0);
    return c.ns;
}

static const bench_job jobs[] = {
    {"timer_arm_cancel", "klaw", timer_arm_cancel},
    {"timer_1m", "klaw", timer_1m},
};

BENCH_MAIN(jobs)
