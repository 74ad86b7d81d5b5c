/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what a target of tests/fuzz offers: one input at a time. With clang (the preset fuzz) libFuzzer drives it, else
 * driver.c, which replays the corpus and seeded mutations of it. A target ends the process on what must not be. */
#ifndef KLAW_TESTS_FUZZ_H
#define KLAW_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* One input; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise, checked in every build. */
#define HOLDS(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

#endif
