/* SPDX-License-Identifier: Apache-2.0 */
/* test_backoff.c - delays: growth, bounds, jitter, and what is refused.
 *
 * Tried with these bugs seeded: one power too many, the jitter's upper end left out, a bound that is
 * compared after the conversion to an integer. */
#include <math.h>

#include "support/random.h"
#include "support/runs.h"

#define MS KLAW_MS(1)
#define TOP UINT64_MAX

static klaw_backoff plain(klaw_backoff_kind kind) {
    return (klaw_backoff){.kind = kind, .jitter = KLAW_JITTER_NONE};
}

PLAIN(default_doubles_from_100_ms_to_30_s) {
    klaw_backoff b = plain(KLAW_BACKOFF_EXPONENTIAL);
    SAME(klaw_backoff_delay(&b, 1, 0), 100 * MS);
    SAME(klaw_backoff_delay(&b, 2, 0), 200 * MS);
    SAME(klaw_backoff_delay(&b, 3, 0), 400 * MS);
    SAME(klaw_backoff_delay(&b, 9, 0), 25600 * MS);
    SAME(klaw_backoff_delay(&b, 10, 0), 30000 * MS);
    SAME(klaw_backoff_delay(&b, UINT32_MAX, 0), 30000 * MS);
    SAME(klaw_backoff_delay(NULL, 1, 0), 0); /* full jitter */
    SAME(klaw_backoff_delay(NULL, 1, TOP), 100 * MS);
    SAME(klaw_backoff_delay(NULL, 3, TOP / 2), 200 * MS);
}

PLAIN(constant_and_linear_grow_as_they_say) {
    klaw_backoff c = plain(KLAW_BACKOFF_CONSTANT), l = plain(KLAW_BACKOFF_LINEAR);
    c.base = l.base = 7;
    for (uint32_t i = 1; i < 100; i++) {
        SAME(klaw_backoff_delay(&c, i, 0), 7);
        SAME(klaw_backoff_delay(&l, i, 0), 7 * i);
    }
    l.max_delay = 20;
    SAME(klaw_backoff_delay(&l, 2, 0), 14);
    SAME(klaw_backoff_delay(&l, 3, 0), 20);
    c.max_delay = 5; /* the bound counts for the first one, too */
    SAME(klaw_backoff_delay(&c, 1, 0), 5);
}

PLAIN(factor_may_be_any_number_from_1) {
    klaw_backoff b = plain(KLAW_BACKOFF_EXPONENTIAL);
    b.base = 1000;
    b.factor = 1;
    SAME(klaw_backoff_delay(&b, 1000000, 0), 1000);
    b.factor = 1.5;
    SAME(klaw_backoff_delay(&b, 3, 0), 2250);
    b.factor = 10;
    SAME(klaw_backoff_delay(&b, 4, 0), 1000000);
}

PLAIN(no_delay_before_the_first_attempt_or_without_a_base) {
    klaw_backoff b = plain(KLAW_BACKOFF_LINEAR);
    SAME(klaw_backoff_delay(&b, 0, TOP), 0);
    b.base = KLAW_NONE;
    SAME(klaw_backoff_delay(&b, 5, TOP), 0);
    b.jitter = KLAW_JITTER_EQUAL;
    SAME(klaw_backoff_delay(&b, 5, TOP), 0);
}

PLAIN(unbounded_delays_do_not_overflow) {
    for (int jitter = KLAW_JITTER_FULL; jitter <= KLAW_JITTER_EQUAL; jitter++) {
        klaw_backoff b = {.max_delay = KLAW_NONE, .jitter = (klaw_jitter)jitter};
        SAME(klaw_backoff_delay(&b, UINT32_MAX, TOP), INT64_MAX);
        SAME(klaw_backoff_delay(&b, 64, TOP), INT64_MAX);
        b.kind = KLAW_BACKOFF_LINEAR;
        b.base = INT64_MAX;
        SAME(klaw_backoff_delay(&b, 2, TOP), INT64_MAX);
        SAME(klaw_backoff_delay(&b, 1, TOP), INT64_MAX);
        b.max_delay = INT64_MAX;
        SAME(klaw_backoff_delay(&b, 1, TOP), INT64_MAX);
        b.factor = NAN; /* refused by the check, harmless here */
        b.kind = KLAW_BACKOFF_EXPONENTIAL;
        SAME(klaw_backoff_delay(&b, 3, TOP), INT64_MAX);
    }
}

PLAIN(jitter_stays_in_its_range_and_reaches_both_ends) {
    rng r = {seed_begin()};
    for (int i = 0; i < 20000; i++) {
        klaw_backoff b = {.base = 1 + rng_below(&r, 9), .max_delay = 1 + rng_below(&r, 20)};
        uint32_t attempt = 1 + rng_below(&r, 5);
        b.jitter = KLAW_JITTER_NONE;
        int64_t d = klaw_backoff_delay(&b, attempt, rng_next(&r));
        b.jitter = KLAW_JITTER_FULL;
        int64_t full = klaw_backoff_delay(&b, attempt, rng_next(&r));
        CHECK(full >= 0 && full <= d);
        SAME(klaw_backoff_delay(&b, attempt, 0), 0);
        SAME(klaw_backoff_delay(&b, attempt, TOP), d);
        b.jitter = KLAW_JITTER_EQUAL;
        int64_t equal = klaw_backoff_delay(&b, attempt, rng_next(&r));
        CHECK(equal >= d / 2 && equal <= d);
        SAME(klaw_backoff_delay(&b, attempt, 0), d / 2);
        SAME(klaw_backoff_delay(&b, attempt, TOP), d);
    }
}

PLAIN(full_jitter_is_uniform) {
    rng r = {seed_begin()};
    klaw_backoff b = {.kind = KLAW_BACKOFF_CONSTANT, .base = 9}; /* ten values */
    int seen[10] = {0};
    for (int i = 0; i < 100000; i++)
        seen[klaw_backoff_delay(&b, 1, rng_next(&r))]++;
    for (int i = 0; i < 10; i++)
        CHECK(seen[i] > 9000 && seen[i] < 11000); /* ten standard deviations */
}

PLAIN(check_refuses_what_is_no_backoff) {
    const klaw_backoff wrong[] = {
        {.kind = (klaw_backoff_kind)-1},
        {.kind = (klaw_backoff_kind)3},
        {.jitter = (klaw_jitter)-1},
        {.jitter = (klaw_jitter)3},
        {.base = -2},
        {.max_delay = -2},
        {.factor = 0.99},
        {.factor = -1},
        {.factor = INFINITY},
        {.factor = NAN},
    };
    const klaw_backoff right[] = {
        {0},
        {.kind = KLAW_BACKOFF_LINEAR, .jitter = KLAW_JITTER_EQUAL},
        {.base = KLAW_NONE, .max_delay = KLAW_NONE, .factor = 1},
        {.base = INT64_MAX, .max_delay = INT64_MAX, .factor = 1e300},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        GIVES(klaw_backoff_check(&wrong[i]), KLAW_INVALID);
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        OK(klaw_backoff_check(&right[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(default_doubles_from_100_ms_to_30_s),
        TEST(constant_and_linear_grow_as_they_say),
        TEST(factor_may_be_any_number_from_1),
        TEST(no_delay_before_the_first_attempt_or_without_a_base),
        TEST(unbounded_delays_do_not_overflow),
        TEST(jitter_stays_in_its_range_and_reaches_both_ends),
        TEST(full_jitter_is_uniform),
        TEST(check_refuses_what_is_no_backoff),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
