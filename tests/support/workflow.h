/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.h - short words for tests of workflows: steps that count their runs, results that are
 * numbers, clocks that a test sets. */
#ifndef KLAW_TESTS_SUPPORT_WORKFLOW_H
#define KLAW_TESTS_SUPPORT_WORKFLOW_H

#include "support/runs.h"
#include "support/store.h"

/* Made by the library; a test may put its own clock in its place. */
extern void (*klawi_wf_clock)(klaw_lease_clock *out);

/* A folder in memory, where the machine has that: these tests are about records, not about disks. */
static inline folder wf_folder(void) {
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK | X_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    return folder_make();
}

/* What a step of a test does. */
typedef struct job {
    _Atomic int runs;                          /* how often it was called */
    int failures;                              /* so many times it fails first */
    klaw_err error;                            /* with this; OK: TIMEOUT's neighbour SYSTEM */
    uint64_t value;                            /* its result */
    const char *why;                           /* klaw_step_explain */
    uint32_t attempt;                          /* as it was told */
    klaw_err (*also)(klaw_step *s, void *arg); /* called first */
    void *arg;
    char id[320];
} job;

static inline klaw_err job_fn(klaw_step *s, void *arg, klaw_blob **result) {
    job *j = arg;
    int n = atomic_fetch_add(&j->runs, 1) + 1;
    j->attempt = klaw_step_attempt(s);
    snprintf(j->id, sizeof j->id, "%s", klaw_step_id(s));
    klaw_err e = j->also ? j->also(s, j->arg) : KLAW_OK;
    if (e)
        return e;
    if (n <= j->failures) {
        if (j->why)
            klaw_step_explain(s, "%s %d", j->why, n);
        return j->error ? j->error : KLAW_SYSTEM;
    }
    return klaw_blob_new(&j->value, sizeof j->value, result);
}

static inline uint64_t number_of(klaw_blob *b) {
    uint64_t v = 0;
    CHECK(b);
    SAME(klaw_blob_size(b), sizeof v);
    memcpy(&v, klaw_blob_data(b), sizeof v);
    klaw_blob_unref(b);
    return v;
}

static inline klaw_workflow *wf_open(klaw_store *s, const char *name, klaw_workflow_opts o) {
    klaw_workflow *wf = NULL;
    klaw_error_info info = {.sys = 0};
    klaw_err e = klaw_workflow_open(s, name, &o, &wf, &info);
    if (e)
        check_failed(__FILE__, __LINE__, "klaw_workflow_open", info.message);
    CHECK(wf);
    return wf;
}
#define WF(store, name, ...) wf_open(store, name, (klaw_workflow_opts){.n_steps = 0, __VA_ARGS__})

/* Opening is refused with this, and the message holds that text. */
static inline void wf_refuses(klaw_store *s, const char *name, klaw_workflow_opts o, klaw_err want,
                              const char *text) {
    klaw_workflow *wf = NULL;
    klaw_error_info info = {.sys = 0};
    GIVES(klaw_workflow_open(s, name, &o, &wf, &info), want);
    CHECK(!wf);
    if (!strstr(info.message, text))
        check_failed(__FILE__, __LINE__, text, info.message);
}

/* Runs a step; its number. */
static inline uint64_t wf_step(klaw_workflow *wf, const char *name, job *j) {
    klaw_blob *b = NULL;
    klaw_error_info info = {.sys = 0};
    klaw_err e = klaw_workflow_step(wf, name, job_fn, j, NULL, &b, &info);
    if (e)
        check_failed(__FILE__, __LINE__, name, info.message);
    return number_of(b);
}

static inline klaw_workflow_info wf_look(klaw_store *s, const char *name) {
    klaw_workflow_info i;
    OK(klaw_workflow_inspect(s, name, &i, NULL, NULL, NULL));
    return i;
}

/* A clock that stands still until a test moves it; keepers read it, too. */
static pthread_mutex_t wf_clock_lock = PTHREAD_MUTEX_INITIALIZER;
static klaw_lease_clock wf_now;
static inline void wf_clock_read(klaw_lease_clock *out) {
    pthread_mutex_lock(&wf_clock_lock);
    *out = wf_now;
    pthread_mutex_unlock(&wf_clock_lock);
}
static void (*wf_clock_real)(klaw_lease_clock *out);
static inline void wf_clock_set(void) {
    wf_clock_real = klawi_wf_clock;
    wf_clock_real(&wf_now);
    klawi_wf_clock = wf_clock_read;
}
static inline void wf_clock_move(int64_t boot, int64_t wall) {
    pthread_mutex_lock(&wf_clock_lock);
    wf_now.since_boot += boot;
    wf_now.wall += wall;
    pthread_mutex_unlock(&wf_clock_lock);
}
/* As after another boot. */
static inline void wf_clock_boot(const char *boot) {
    pthread_mutex_lock(&wf_clock_lock);
    snprintf(wf_now.boot, sizeof wf_now.boot, "%s", boot);
    wf_now.since_boot = 5;
    pthread_mutex_unlock(&wf_clock_lock);
}
static inline void wf_clock_reset(void) {
    klawi_wf_clock = wf_clock_real;
}

#endif
