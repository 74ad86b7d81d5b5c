/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - seeds and sizes of random tests: KLAW_SEED replays, KLAW_TEST_SLICE scales and says
 * whether seeds are new. */
#ifndef KLAW_TESTS_SUPPORT_RANDOM_H
#define KLAW_TESTS_SUPPORT_RANDOM_H

#include <string.h>
#include <time.h>

#include "support/check.h"

/* splitmix64 */
typedef struct rng {
    uint64_t at;
} rng;

static inline uint64_t rng_next(rng *r) {
    uint64_t z = (r->at += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
/* A number below n. */
static inline uint32_t rng_below(rng *r, uint32_t n) {
    return (uint32_t)((rng_next(r) >> 32) * n >> 32);
}
static inline bool rng_one_in(rng *r, uint32_t n) {
    return rng_below(r, n) == 0;
}
/* A generator for part `i` of a run. */
static inline rng rng_part(uint64_t seed, uint64_t i) {
    rng r = {seed ^ (i + 1) * 0xd1342543de82ef95ull};
    (void)rng_next(&r);
    return r;
}

/* The run's seed, printed: KLAW_SEED, or in the slices of the change under test always the same (what
 * fails is then the change's doing), or a new one. */
static inline uint64_t seed_begin(void) {
    const char *text = getenv("KLAW_SEED"), *slice = getenv("KLAW_TEST_SLICE");
    struct timespec t;
    if (text && *text) {
        check_seed = strtoull(text, NULL, 10);
    } else if (slice && (strcmp(slice, "ci") == 0 || strcmp(slice, "valgrind") == 0)) {
        check_seed = 20261121;
    } else {
        clock_gettime(CLOCK_REALTIME, &t);
        rng r = {(uint64_t)t.tv_nsec ^ (uint64_t)t.tv_sec << 20};
        check_seed = rng_next(&r) >> 24 | 1;
    }
    printf("seed %" PRIu64 "\n", check_seed);
    fflush(stdout);
    return check_seed;
}

/* n scaled to the slice: `soak` 20 times as many, `valgrind` a fiftieth, sanitizers a quarter; at
 * least 1. */
static inline uint64_t rounds(uint64_t n) {
    const char *slice = getenv("KLAW_TEST_SLICE");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    n /= 4;
#endif
    if (slice && strcmp(slice, "soak") == 0)
        n *= 20;
    else if (slice && strcmp(slice, "valgrind") == 0)
        n /= 50;
    return n ? n : 1;
}

#endif
