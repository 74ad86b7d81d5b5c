/* SPDX-License-Identifier: Apache-2.0 */
/* show.c - what the store knows: --list, --show, --delete. They only look, so they may be asked while a
 * run is under way. */
#include "jobs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void say(const char *what, klaw_err e, const klaw_error_info *info) {
    fprintf(stderr, "klaw run-jobs: %s: %s\n", what,
            info && *info->message ? info->message : klaw_err_text(e));
}

void duration_text(char *text, size_t size, int64_t ns) {
    int64_t s = ns / KLAW_S(1);
    if (ns < KLAW_S(1))
        snprintf(text, size, "%" PRId64 " ms", ns / KLAW_MS(1));
    else if (s < 60)
        snprintf(text, size, "%" PRId64 ".%" PRId64 " s", s, ns % KLAW_S(1) / KLAW_MS(100));
    else if (s < 3600)
        snprintf(text, size, "%" PRId64 " min %02" PRId64 " s", s / 60, s % 60);
    else
        snprintf(text, size, "%" PRId64 " h %02" PRId64 " min", s / 3600, s % 3600 / 60);
}

void put_command(FILE *out, const char *text, size_t width) {
    size_t columns = 0;
    const char *p = text;
    for (; *p && columns < width; p++) {
        unsigned char c = (unsigned char)*p;
        fputc(c < 0x20 || c == 0x7f ? ' ' : c, out);
        columns += (c & 0xc0) != 0x80;
    }
    /* Not in the middle of a character. */
    for (; ((unsigned char)*p & 0xc0) == 0x80; p++)
        fputc(*p, out);
    if (*p)
        fputs("\xe2\x80\xa6", out);
}

static void put_time(FILE *out, int64_t wall) {
    time_t seconds = (time_t)(wall / KLAW_S(1));
    struct tm tm;
    char text[32] = "";
    if (localtime_r(&seconds, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    fputs(text, out);
}

static const char *state_text(const klaw_workflow_info *w) {
    switch (w->state) {
    case KLAW_WORKFLOW_DONE: return "done";
    case KLAW_WORKFLOW_FAILED: return "failed";
    case KLAW_WORKFLOW_CANCELLED: return "cancelled";
    default: return w->leased ? "running" : "unfinished";
    }
}

int show_list(klaw_store *s) {
    klaw_workflow_info *list;
    klaw_error_info info = {0};
    size_t n;
    klaw_err e = klaw_workflow_list_all(s, JOBS_PREFIX, &list, &n, &info);
    if (e) {
        say("the runs can't be listed", e, &info);
        return EXIT_TROUBLE;
    }
    if (n > 0)
        printf("%-11s %8s %8s  %-19s  %s\n", "state", "ok", "of", "last change", "run");
    for (size_t i = 0; i < n; i++) {
        const klaw_workflow_info *w = &list[i];
        printf("%-11s %8" PRIu64 " %8" PRIu64 "  ", state_text(w), w->steps_done, w->steps);
        put_time(stdout, w->updated);
        printf("  %s\n", w->name + strlen(JOBS_PREFIX));
    }
    klaw_workflow_info_free(list);
    return EXIT_FINE;
}

/* ---- one run ---- */

typedef struct view {
    klaw_store *store;
    const char *run;
    klaw_workflow_info workflow;
    klaw_step_info *steps;
    size_t n_steps;
    commands commands;
} view;

static void view_close(view *v) {
    klaw_step_info_free(v->steps);
    commands_free(&v->commands);
}

static klaw_err view_open(view *v, klaw_store *s, const char *run) {
    klaw_error_info info = {0};
    char name[JOBS_NAME_MAX + sizeof JOBS_PREFIX];
    options kept;
    *v = (view){.store = s, .run = run};
    run_workflow_name(name, sizeof name, run);
    klaw_err e = klaw_workflow_inspect(s, name, &v->workflow, &v->steps, &v->n_steps, &info);
    if (!e)
        e = run_load(s, run, &kept, &v->commands, &info);
    if (e == KLAW_NOT_FOUND)
        fprintf(stderr, "klaw run-jobs: %s has no run '%s'; --list shows the runs\n",
                klaw_store_path(s), run);
    else if (e)
        say(run, e, &info);
    if (e)
        view_close(v);
    return e;
}

static int by_name(const void *left, const void *right) {
    const klaw_step_info *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* The step of a command; the steps are sorted by name. */
static const klaw_step_info *step_of(const view *v, const command *c) {
    klaw_step_info key;
    snprintf(key.name, sizeof key.name, "%s", c->step);
    return v->n_steps ? bsearch(&key, v->steps, v->n_steps, sizeof key, by_name) : NULL;
}

/* How it stands with one command. *r is filled when it has finished. */
static klaw_err standing(const view *v, const command *c, char *text, size_t size, result *r) {
    klaw_error_info info = {0};
    const klaw_step_info *step = step_of(v, c);
    klaw_step_state state = step ? step->state : KLAW_STEP_PENDING;
    *r = (result){0};
    bool cut = state == KLAW_STEP_FAILED && step->error == KLAW_CANCELLED;
    if (state == KLAW_STEP_DONE || (state == KLAW_STEP_FAILED && !cut)) {
        klaw_err e = result_load(v->store, v->run, c, r, &info);
        if (!e)
            result_text(r, text, size);
        else
            snprintf(text, size, "%s",
                     e == KLAW_NOT_FOUND ? klaw_err_text(step->error) : "damaged");
        return e == KLAW_NOT_FOUND ? KLAW_OK : e;
    }
    snprintf(text, size, "%s",
             cut                          ? "interrupted"
             : state == KLAW_STEP_PENDING ? "waiting"
             : v->workflow.leased         ? "running"
                                          : "interrupted");
    return KLAW_OK;
}

static int show_table(view *v) {
    klaw_err worst = KLAW_OK;
    printf("run %s: %s, %" PRIu64 " of %zu ok\n\n", v->run, state_text(&v->workflow),
           v->workflow.steps_done, v->commands.n);
    printf("%6s  %-20s %8s %12s  %s\n", "number", "result", "attempts", "took", "command");
    for (size_t i = 0; i < v->commands.n; i++) {
        const command *c = &v->commands.list[i];
        char text[64], took[32] = "";
        result r;
        klaw_err e = standing(v, c, text, sizeof text, &r);
        worst = worst ? worst : e;
        if (r.attempts > 0)
            duration_text(took, sizeof took, r.took);
        printf("%6" PRIu64 "  %-20s %8" PRIu32 " %12s  ", c->number, text, r.attempts, took);
        put_command(stdout, c->text, 100);
        putchar('\n');
        result_free(&r);
    }
    return worst ? EXIT_TROUBLE : EXIT_FINE;
}

static int show_one(view *v, uint64_t number) {
    char text[64], took[32];
    result r;
    if (number > v->commands.n) {
        fprintf(stderr, "klaw run-jobs: the run '%s' has %zu commands\n", v->run, v->commands.n);
        return EXIT_USAGE;
    }
    const command *c = &v->commands.list[number - 1];
    klaw_err e = standing(v, c, text, sizeof text, &r);
    printf("command   %s\nresult    %s\n", c->text, text);
    if (r.attempts > 0) {
        duration_text(took, sizeof took, r.took);
        printf("attempts  %" PRIu32 "\nbegan     ", r.attempts);
        put_time(stdout, r.began);
        printf("\ntook      %s\noutput    %" PRIu64 " bytes", took, r.output);
        if (r.output > r.tail_size)
            printf(", the last %zu:", r.tail_size);
        putchar('\n');
        if (r.tail_size > 0) {
            putchar('\n');
            fwrite(r.tail, 1, r.tail_size, stdout);
            if (r.tail[r.tail_size - 1] != '\n')
                putchar('\n');
        }
    }
    result_free(&r);
    return e ? EXIT_TROUBLE : EXIT_FINE;
}

int show_run(klaw_store *s, const options *o) {
    view v;
    klaw_err e = view_open(&v, s, o->name);
    if (e)
        return e == KLAW_NOT_FOUND ? EXIT_USAGE : EXIT_TROUBLE;
    if (v.n_steps > 0)
        qsort(v.steps, v.n_steps, sizeof *v.steps, by_name);
    int code = o->number ? show_one(&v, o->number) : show_table(&v);
    view_close(&v);
    return code;
}

int show_delete(klaw_store *s, const options *o) {
    klaw_error_info info = {0};
    char name[JOBS_NAME_MAX + sizeof JOBS_PREFIX];
    run_workflow_name(name, sizeof name, o->name);
    klaw_err e = klaw_workflow_delete(s, name, false, &info);
    if (e == KLAW_EXISTS) {
        say("it can't be deleted", e, &info);
        return EXIT_TROUBLE;
    }
    /* A run that was killed in its first moment has a workflow and no commands. */
    klaw_err forgotten = e && e != KLAW_NOT_FOUND ? e : run_forget(s, o->name, &info);
    if (e == KLAW_NOT_FOUND && !forgotten) {
        fprintf(stderr, "klaw run-jobs: %s has no run '%s'\n", klaw_store_path(s), o->name);
        return EXIT_USAGE;
    }
    if (forgotten)
        say("it can't be deleted", forgotten, &info);
    return forgotten ? EXIT_TROUBLE : EXIT_FINE;
}
