/* SPDX-License-Identifier: Apache-2.0 */
/* 20_workflow.c - a workflow: steps whose results are kept, so that a program that died goes on where it
 * was.
 *
 * The program runs the same workflow twice. The first run stops in the middle, as if it had been killed; the
 * second one finds the results of the first and only does the rest. Kill it with -9 wherever you
 * like: a step whose result was kept never runs again. */
#include <klaw/klaw.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static int fetched, counted, published;

/* A step gives bytes. Here it "downloads" a text, and fails at first: the step's options say how often it is
 * tried. */
static klaw_err fetch(klaw_step *step, void *arg, klaw_blob **result) {
    const char *text = arg;
    if (++fetched == 1) {
        klaw_step_explain(step, "the line is busy");
        return KLAW_BACKEND;
    }
    printf("fetch, attempt %u\n", klaw_step_attempt(step));
    return klaw_blob_new(text, strlen(text), result);
}

/* A step that needs the result of another one asks for it by name. */
static klaw_err count(klaw_step *step, void *arg, klaw_blob **result) {
    klaw_blob *text = NULL;
    uint64_t words = 0;
    (void)arg;
    klaw_err e = klaw_workflow_kept(klaw_step_workflow(step), "fetch", &text, NULL);
    if (e)
        return e;
    const char *p = klaw_blob_data(text);
    for (size_t i = 0; i < klaw_blob_size(text); i++)
        words += p[i] != ' ' && (i == 0 || p[i - 1] == ' ');
    klaw_blob_unref(text);
    counted++;
    return klaw_blob_new(&words, sizeof words, result);
}

/* The id of a step is the same in every attempt and run: give it to whoever must not do a thing twice. */
static klaw_err publish(klaw_step *step, void *arg, klaw_blob **result) {
    (void)arg;
    (void)result;
    published++;
    printf("publish, with the key %.8s.../publish\n", klaw_step_id(step));
    return KLAW_OK;
}

/* One run of the program; `crashes`: it ends after the second step. */
static klaw_err run(const char *path, bool crashes) {
    /* The declared list is part of what is recorded: a resume with another one is refused. */
    static const char *const steps[] = {"fetch", "count", "publish"};
    klaw_workflow_opts opts = {.steps = steps, .n_steps = 3, .version = "1"};
    klaw_step_opts tries = {.retry = {.attempts = 3, .backoff = {.base = KLAW_MS(5)}}};
    char text[] = "the quick brown fox jumps over the lazy dog";
    klaw_store *store = NULL;
    klaw_workflow *wf = NULL;
    klaw_blob *words = NULL;
    klaw_error_info info = {.sys = 0};

    klaw_err e = klaw_store_open(path, NULL, &store, &info);
    if (!e)
        e = klaw_workflow_open(store, "report", &opts, &wf, &info);
    if (!e)
        e = klaw_workflow_step(wf, "fetch", fetch, text, &tries, NULL, &info);
    if (!e)
        e = klaw_workflow_step(wf, "count", count, NULL, NULL, &words, &info);
    if (!e && !crashes)
        e = klaw_workflow_step(wf, "publish", publish, NULL, NULL, NULL, &info);
    if (!e && !crashes)
        e = klaw_workflow_finish(wf, words, &info);
    if (e)
        fprintf(stderr, "failed: %s\n", info.message);
    klaw_blob_unref(words);
    klaw_workflow_close(wf); /* a process that is killed does not come here; its lease ends then */
    klaw_store_unref(store);
    return e;
}

static klaw_err first(void *arg) {
    const char *path = arg;
    klaw_err e = run(path, true);
    printf("-- and now the rest --\n");
    return e ? e : run(path, false);
}

/* What anybody who can open the store may see. */
static void show(const char *path) {
    klaw_store *store = NULL;
    klaw_workflow_info wf;
    klaw_step_info *steps = NULL;
    size_t n = 0;
    CHECK(klaw_store_open(path, NULL, &store, NULL) == KLAW_OK);
    CHECK(klaw_workflow_inspect(store, "report", &wf, &steps, &n, NULL) == KLAW_OK);
    printf("%s: %s, run %u times\n", wf.name, klaw_workflow_state_name(wf.state),
           (unsigned)wf.token);
    for (size_t i = 0; i < n; i++)
        printf("  %-8s %s after %u attempts\n", steps[i].name, klaw_step_state_name(steps[i].state),
               steps[i].attempts);
    CHECK(wf.state == KLAW_WORKFLOW_DONE && n == 3 && steps[0].attempts == 2);
    klaw_step_info_free(steps);
    klaw_store_unref(store);
}

int main(void) {
    char folder[] = "/tmp/klaw-workflow-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/klaw.db", folder);
    klaw_err e = klaw_run(first, path, NULL);
    show(path);
    CHECK(e == KLAW_OK && fetched == 2 && counted == 1 && published == 1);
    unlink(path);
    CHECK(rmdir(folder) == 0);
    return 0;
}
