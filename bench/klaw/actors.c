/* SPDX-License-Identifier: Apache-2.0 */
/* actors.c - a request to an actor and its answer: row 9. */
#include "bench.h"

#include "klaw/actor.h"

#define ASKS 4000000

typedef struct asking {
    uint64_t sum;
    double ns;
} asking;

static klaw_err answer(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    *(uint64_t *)state += 1;
    *(uint64_t *)reply = *(uint64_t *)message;
    return KLAW_OK;
}

static const klaw_behavior echo = {.name = "echo",
                                   .message = &klaw_u64,
                                   .reply = &klaw_u64,
                                   .state_size = sizeof(uint64_t),
                                   .handle = answer};

static klaw_err ask_main(void *arg) {
    asking *a = arg;
    klaw_actor *actor;
    uint64_t v = 0;
    MUST(klaw_actor_spawn(&echo, NULL, NULL, &actor));
    MUST(klaw_actor_ask(actor, &v, &v, KLAW_FOREVER)); /* it has started */
    int64_t start = klaw_now();
    for (uint64_t i = 0; i < ASKS; i++) {
        MUST(klaw_actor_ask(actor, &i, &v, KLAW_FOREVER));
        a->sum += v;
    }
    a->ns = bench_per_op(start, ASKS);
    klaw_actor_stop(actor);
    MUST(klaw_actor_join(actor, KLAW_FOREVER, NULL));
    klaw_actor_unref(actor);
    return KLAW_OK;
}

static double actor_ask(void) {
    asking a = {0};
    bench_run(ask_main, &a, 1);
    bench_check(a.sum, bench_sum(ASKS));
    return a.ns;
}

static const bench_job jobs[] = {
    {"actor_ask", "klaw", actor_ask},
};

BENCH_MAIN(jobs)
