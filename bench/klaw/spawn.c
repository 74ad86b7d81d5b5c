/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.c - what a fiber costs: rows 6, 6b and 7. */
#include "bench.h"

#include <unistd.h>

typedef struct crowd {
    uint64_t rounds, each, sum;
    double ns;
} crowd;

static klaw_err give_back(void *arg) {
    klaw_set_value(arg);
    return KLAW_OK;
}

static klaw_err crowd_main(void *arg) {
    crowd *c = arg;
    klaw_fiber **f = calloc(c->each, sizeof *f);
    if (f == NULL)
        return KLAW_NOMEM;
    int64_t start = klaw_now();
    for (uint64_t r = 0; r < c->rounds; r++) {
        for (uint64_t i = 0; i < c->each; i++) {
            MUST(klaw_spawn(NULL, give_back, (void *)(uintptr_t)i, NULL, &f[i]));
        }
        for (uint64_t i = 0; i < c->each; i++) {
            void *value = NULL;
            MUST(klaw_join(f[i], NULL, &value, KLAW_FOREVER));
            c->sum += (uintptr_t)value;
        }
    }
    c->ns = bench_per_op(start, c->rounds * c->each);
    free(f);
    return KLAW_OK;
}

static double crowd_run(uint64_t rounds, uint64_t each) {
    crowd c = {.rounds = rounds, .each = each};
    bench_run(crowd_main, &c, 1);
    bench_check(c.sum, rounds * bench_sum(each));
    return c.ns;
}

static double spawn_join_1000(void) {
    return crowd_run(5000, 1000);
}
static double spawn_1m(void) {
    return crowd_run(1, 1000000);
}

/* ---- memory of fibers that all wait on one channel ---- */

#define PARKED 100000u

typedef struct hall {
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t parked, left; /* one worker: plain counters */
    double bytes;
} hall;

static double rss(void) {
    double total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%lf %lf", &total, &resident) != 2) {
        bench_fail(__LINE__, KLAW_SYSTEM);
    }
    fclose(f);
    return resident * (double)sysconf(_SC_PAGESIZE);
}

static klaw_err wait_for_close(void *arg) {
    hall *h = arg;
    uint64_t v;
    h->parked++;
    klaw_err e = klaw_recv(h->rx, &v, KLAW_FOREVER);
    h->left++;
    return e == KLAW_CLOSED ? KLAW_OK : KLAW_INVALID;
}

static klaw_err hall_main(void *arg) {
    hall *h = arg;
    double before = rss();
    for (uint64_t i = 0; i < PARKED; i++)
        MUST(klaw_go(wait_for_close, h));
    while (h->parked < PARKED)
        MUST(klaw_yield());
    MUST(klaw_yield());
    h->bytes = (rss() - before) / PARKED;
    klaw_sender_unref(h->tx);
    while (h->left < PARKED)
        MUST(klaw_yield());
    return KLAW_OK;
}

static double mem_parked(void) {
    hall h = {0};
    bench_channel(1, false, &h.tx, &h.rx);
    bench_run(hall_main, &h, 1);
    klaw_receiver_unref(h.rx);
    bench_check(h.left, PARKED);
    return h.bytes;
}

static const bench_job jobs[] = {
    {"spawn_join_1000", "klaw", spawn_join_1000},
    {"spawn_1m", "klaw", spawn_1m},
    {"mem_parked", "klaw", mem_parked},
};

BENCH_MAIN(jobs)
