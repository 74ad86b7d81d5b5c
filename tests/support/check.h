/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - checks that work on any host: cmocka's own jump to the test's start, which a fiber or
 * another thread may not do. A failed one prints where it stands (and the seed, if there is one)
 * and ends the program. */
#ifndef KLAW_TESTS_SUPPORT_CHECK_H
#define KLAW_TESTS_SUPPORT_CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "klaw/klaw.h"

/* What the running test is called, for the message. */
static const char *check_test = "?";
static uint64_t check_seed;

static inline void check_failed(const char *file, int line, const char *text, const char *more) {
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: failed: %s%s%s\n", file, line, check_test, text, *more ? ": " : "",
            more);
    if (check_seed)
        fprintf(stderr, "KLAW_SEED=%" PRIu64 " runs it again\n", check_seed);
    fflush(stderr);
    abort();
}

static inline void check_equal(uint64_t a, uint64_t b, const char *file, int line,
                               const char *text) {
    if (a == b)
        return;
    char more[96];
    snprintf(more, sizeof more, "%" PRIu64 " is not %" PRIu64, a, b);
    check_failed(file, line, text, more);
}

static inline void check_code(klaw_err e, klaw_err want, const char *file, int line,
                              const char *text) {
    if (e == want)
        return;
    char more[96];
    snprintf(more, sizeof more, "%s is not %s", klaw_err_name(e), klaw_err_name(want));
    check_failed(file, line, text, more);
}

#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond, ""))
/* Two numbers are equal. */
#define SAME(a, b) check_equal((uint64_t)(a), (uint64_t)(b), __FILE__, __LINE__, #a " == " #b)
/* The call answers this code. */
#define GIVES(call, want) check_code((call), (want), __FILE__, __LINE__, #call)
#define OK(call) GIVES(call, KLAW_OK)

#define CHECK_PATIENCE KLAW_S(60)

static inline void until_pass(int64_t *deadline, const char *file, int line, const char *text) {
    if (*deadline == 0)
        *deadline = klaw_now() + CHECK_PATIENCE;
    if (klaw_now() > *deadline)
        check_failed(file, line, text, "did not come true");
    if (klaw_yield() != KLAW_OK)
        return; /* cancelled hosts wait all the same */
}

/* Waits until the condition holds, letting others run. */
#define UNTIL(cond)                            \
    for (int64_t until_deadline = 0; !(cond);) \
    until_pass(&until_deadline, __FILE__, __LINE__, #cond)

#endif
