/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.h - the pieces of work that the soak mixes. Each one makes what it needs, uses it the way programs do, checks its
 * own result and leaves nothing behind; many run at once. */
#ifndef KLAW_TESTS_SOAK_JOBS_H
#define KLAW_TESTS_SOAK_JOBS_H

#include "klaw/klaw.h"
#include "support/check.h"
#include "support/random.h"

typedef struct job {
    const char *name;
    void (*run)(rng *r);
    bool slow; /* waits for the disk or starts processes: run seldom */
} job;

extern const job soak_jobs[];
extern const size_t soak_n_jobs;

/* The store that jobs keep things in; set by the test. */
extern klaw_store *soak_store;

#endif
