/* SPDX-License-Identifier: Apache-2.0 */
/* backoff.c - how long to wait before the next attempt, as plain arithmetic.
 *
 * The growth is computed in double, where it may overflow to infinity without harm, and cut at
 * max_delay before it becomes an integer again. Powers by squaring: 32 products at most for any
 * attempt, and no libm.
 *
 * Rejected: remembering the last delay ("decorrelated jitter"). It needs state for each attempt,
 * which not every host can keep, and does not spread better than full jitter. */
#include "klaw/policy.h"

#include <math.h>

#define DEFAULT_BASE ((int64_t)100 * 1000 * 1000)
#define DEFAULT_MAX ((int64_t)30 * 1000 * 1000 * 1000)
#define DEFAULT_FACTOR 2.0

klaw_err klaw_backoff_check(const klaw_backoff *b) {
    if (b->kind < KLAW_BACKOFF_EXPONENTIAL || b->kind > KLAW_BACKOFF_LINEAR)
        return KLAW_INVALID;
    if (b->jitter < KLAW_JITTER_FULL || b->jitter > KLAW_JITTER_EQUAL)
        return KLAW_INVALID;
    if (b->base < KLAW_NONE || b->max_delay < KLAW_NONE)
        return KLAW_INVALID;
    if (b->factor != 0 && !(b->factor >= 1 && isfinite(b->factor)))
        return KLAW_INVALID;
    return KLAW_OK;
}

static double power(double x, uint32_t n) {
    double result = 1;
    for (; n; n >>= 1) {
        if (n & 1)
            result *= x;
        x *= x;
    }
    return result;
}

/* Uniform in 0..d. */
static int64_t some_of(int64_t d, uint64_t random) {
    __extension__ typedef unsigned __int128 wide;
    return (int64_t)((wide)random * ((uint64_t)d + 1) >> 64);
}

int64_t klaw_backoff_delay(const klaw_backoff *b, uint32_t attempt, uint64_t random) {
    static const klaw_backoff by_default;
    if (!b)
        b = &by_default;
    int64_t base = b->base == 0 ? DEFAULT_BASE : b->base;
    int64_t max = b->max_delay == 0 ? DEFAULT_MAX : b->max_delay < 0 ? INT64_MAX : b->max_delay;
    if (attempt == 0 || base < 0)
        return 0;
    double grown = (double)base;
    if (b->kind == KLAW_BACKOFF_LINEAR)
        grown *= attempt;
    else if (b->kind == KLAW_BACKOFF_EXPONENTIAL)
        grown *= power(b->factor == 0 ? DEFAULT_FACTOR : b->factor, attempt - 1);
    /* The comparison is true for what is not a number, too. */
    int64_t d = !(grown < (double)max) ? max : (int64_t)grown;
    if (b->jitter == KLAW_JITTER_NONE)
        return d;
    if (b->jitter == KLAW_JITTER_EQUAL)
        return d / 2 + some_of(d - d / 2, random);
    return some_of(d, random);
}
