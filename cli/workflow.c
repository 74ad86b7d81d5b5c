/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.c - klaw workflow: what is in the stores, and a hand on it. It only looks and marks; the steps
 * are run by the program they belong to. */
#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <klaw/klaw.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verbs.h"

#define PATIENCE KLAW_S(10)
#define STORES_MAX 256
#define JOBS "jobs/"

static const char *const usage[] = {"ls [--store FILE] [--json] [PREFIX]",
                                    "show [--store FILE] [--json] NAME",
                                    "resume [--store FILE] [--evict] NAME [-- COMMAND [ARG...]]",
                                    "cancel [--store FILE] [--reason TEXT] NAME", NULL};
static const cli_option options[] = {
    {"store", 's', "FILE", "the store; without it every *.db in the folder of checkpoints", "FILE"},
    {"json", 'j', NULL, "for programs", NULL},
    {"reason", 'r', "TEXT", "cancel: why; it is kept", ""},
    {"evict", 'e', NULL,
     "resume: also take it from a runner that is still said to be there; if it lives, it is fenced",
     NULL},
    {0},
};
const cli_verb cli_workflow = {
    .name = "workflow",
    .usage = usage,
    .summary = "list, show, resume and cancel workflows in stores",
    .about =
        "Works on the workflows that programs keep in their stores (workflow.h; Workflow in "
        "Python), also while they run.\n\n"
        "ls lists them: running (somebody is at it), unfinished (it was cut, and goes on when its "
        "program opens it), done, failed, cancelled. show tells the steps of one.\n\n"
        "resume makes one that failed or was cancelled resumable; then COMMAND, if given, is "
        "run, which is the program that has its steps. A run of klaw run-jobs (jobs/NAME) is gone "
        "on "
        "with at once. cancel ends one: who runs it notices at its next step, and its waits are "
        "cancelled.",
    .options = options,
    .examples =
        "klaw workflow ls\tall there are\n"
        "klaw workflow show --json import | jq '.step_list[] | select(.state==\"failed\")'\twhy\n"
        "klaw workflow resume import -- ./importer\tagain, from where it was",
    .exits =
        "0 done; 1 nothing to be done to it in its state; 2 wrong usage or no such workflow; 3 a "
        "store can't be read. resume with COMMAND: that one's.",
    .words = "ls show resume cancel",
    .run = cli_run_workflow,
};

struct request {
    const char *verb, *name, *store, *reason;
    bool json, evict;
    char **command;
};

/* ---- the stores ---- */

struct stores {
    char *path[STORES_MAX];
    size_t n;
};

static int by_path(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool find_stores(const char *given, struct stores *out) {
    klaw_config config;
    klaw_error_info info = {0};
    out->n = 0;
    if (given) {
        if (access(given, R_OK) != 0) { /* opening would make it */
            fprintf(stderr, "klaw workflow: there is no store '%s'\n", given);
            return false;
        }
        out->path[out->n++] = strdup(given);
        return true;
    }
    if (klaw_config_get(&config, &info) != KLAW_OK) {
        fprintf(stderr, "klaw workflow: %s\n", info.message);
        return false;
    }
    DIR *d = opendir(config.checkpoint_path);
    for (struct dirent *e; d && out->n < STORES_MAX && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 3, ".db") != 0)
            continue;
        size_t size = strlen(config.checkpoint_path) + n + 2;
        char *path = malloc(size);
        if (!path)
            continue;
        snprintf(path, size, "%s/%s", config.checkpoint_path, e->d_name);
        out->path[out->n++] = path;
    }
    if (d)
        closedir(d);
    qsort(out->path, out->n, sizeof *out->path, by_path);
    return true;
}

static void free_stores(struct stores *s) {
    for (size_t i = 0; i < s->n; i++)
        free(s->path[i]);
}

static int explain(const char *what, klaw_err e, const klaw_error_info *info) {
    fprintf(stderr, "klaw workflow: %s: %s\n", what,
            *info->message ? info->message : klaw_err_text(e));
    return e == KLAW_NOT_FOUND ? EXIT_USAGE : EXIT_TROUBLE;
}

static klaw_store *open_store(const char *path, int *code) {
    klaw_store *s = NULL;
    klaw_error_info info = {0};
    klaw_store_opts opts = {.keep = KLAW_NONE, .deadline = klaw_after(PATIENCE)};
    klaw_err e = klaw_store_open(path, &opts, &s, &info);
    if (e)
        *code = explain(path, e, &info);
    return e ? NULL : s;
}

/* ---- telling ---- */

static const char *state_of(const klaw_workflow_info *w) {
    if (w->state == KLAW_WORKFLOW_RUNNING)
        return w->leased ? "running" : "unfinished";
    return klaw_workflow_state_name(w->state);
}

static enum cli_colour colour_of(const klaw_workflow_info *w) {
    switch (w->state) {
    case KLAW_WORKFLOW_DONE: return CLI_GREEN;
    case KLAW_WORKFLOW_FAILED: return CLI_RED;
    case KLAW_WORKFLOW_CANCELLED: return CLI_DIM;
    default: return w->leased ? CLI_CYAN : CLI_YELLOW;
    }
}

static void time_text(char *out, size_t size, int64_t wall) {
    time_t seconds = (time_t)(wall / KLAW_S(1));
    struct tm tm;
    *out = 0;
    if (wall > 0 && localtime_r(&seconds, &tm))
        strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm);
}

static json_t *utf8(const char *text) {
    json_t *s = json_string(text);
    return s ? s : json_string("?"); /* it is not UTF-8 */
}

static json_t *json_of(const klaw_workflow_info *w, const char *path) {
    return json_pack("{s:o,s:s,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:o,s:I,s:s,s:o}", "name",
                     utf8(w->name), "state", state_of(w), "store", utf8(path), "version",
                     utf8(w->version), "steps", (json_int_t)w->steps, "steps_done",
                     (json_int_t)w->steps_done, "created", (json_int_t)w->created, "updated",
                     (json_int_t)w->updated, "finished", (json_int_t)w->finished, "result_size",
                     (json_int_t)w->result_size, "cancel_requested", w->cancel_requested,
                     "owner_host", utf8(w->owner_host), "owner_pid", (json_int_t)w->owner_pid,
                     "error", klaw_err_name(w->error), "message", utf8(w->message));
}

static void put_row(const klaw_workflow_info *w, const char *path, bool many) {
    char when[32], steps[48];
    time_text(when, sizeof when, w->updated);
    snprintf(steps, sizeof steps, "%" PRIu64 "/%" PRIu64, w->steps_done, w->steps);
    printf("%s%-11s%s %10s  %-19s  ", cli_colour(colour_of(w)), state_of(w), cli_colour(CLI_PLAIN),
           steps, when);
    cli_put(stdout, w->name, 60, many);
    if (many) {
        fputs("  ", stdout);
        cli_put(stdout, path, 120, false);
    }
    putchar('\n');
}

static int list(const struct request *r) {
    struct stores stores;
    int code = EXIT_FINE;
    bool head = false;
    if (!find_stores(r->store, &stores))
        return r->store ? EXIT_USAGE : EXIT_TROUBLE;
    json_t *all = json_array();
    for (size_t i = 0; i < stores.n; i++) {
        klaw_workflow_info *found = NULL;
        klaw_error_info info = {0};
        size_t n = 0;
        klaw_store *s = open_store(stores.path[i], &code);
        if (!s)
            continue;
        klaw_err e = klaw_workflow_list_all(s, r->name, &found, &n, &info);
        if (e)
            code = explain(stores.path[i], e, &info);
        if (n > 0 && !head && !r->json)
            printf("%s%-11s %10s  %-19s  name%s\n", cli_colour(CLI_BOLD), "state", "steps",
                   "last change", cli_colour(CLI_PLAIN));
        head |= n > 0;
        for (size_t k = 0; k < n; k++) {
            if (r->json)
                json_array_append_new(all, json_of(&found[k], stores.path[i]));
            else
                put_row(&found[k], stores.path[i], stores.n > 1);
        }
        klaw_workflow_info_free(found);
        klaw_store_unref(s);
    }
    if (r->json) {
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(all);
    free_stores(&stores);
    return code;
}

/* ---- one workflow ---- */

struct found {
    char path[1200];
    klaw_store *store;
    klaw_workflow_info info;
    klaw_step_info *steps;
    size_t n;
};

static void close_found(struct found *f) {
    klaw_step_info_free(f->steps);
    klaw_store_unref(f->store);
}

/* The workflow of that name, in the one store that has it. */
static int find(const struct request *r, struct found *out) {
    struct stores stores;
    int code = EXIT_FINE;
    size_t times = 0;
    *out = (struct found){0};
    if (!find_stores(r->store, &stores))
        return r->store ? EXIT_USAGE : EXIT_TROUBLE;
    for (size_t i = 0; i < stores.n; i++) {
        struct found f = {0};
        klaw_error_info info = {0};
        f.store = open_store(stores.path[i], &code);
        if (!f.store)
            continue;
        klaw_err e = klaw_workflow_inspect(f.store, r->name, &f.info, &f.steps, &f.n, &info);
        if (e && e != KLAW_NOT_FOUND)
            code = explain(stores.path[i], e, &info);
        snprintf(f.path, sizeof f.path, "%s", stores.path[i]);
        if (e || times++ > 0)
            close_found(&f);
        else
            *out = f;
    }
    free_stores(&stores);
    if (times == 1)
        return EXIT_FINE;
    if (times > 1) {
        fprintf(stderr, "klaw workflow: %zu stores have a workflow '%s'; --store says which\n",
                times, r->name);
        close_found(out);
        return EXIT_USAGE;
    }
    if (code == EXIT_FINE) {
        fprintf(stderr, "klaw workflow: there is no workflow '%s'; klaw workflow ls lists them\n",
                r->name);
        code = EXIT_USAGE;
    }
    return code;
}

static void print_step(const klaw_step_info *s) {
    char took[32] = "";
    enum cli_colour colour = s->state == KLAW_STEP_DONE     ? CLI_GREEN
                             : s->state == KLAW_STEP_FAILED ? CLI_RED
                                                            : CLI_PLAIN;
    if (s->started > 0 && s->finished >= s->started)
        cli_duration(took, sizeof took, s->finished - s->started);
    printf("%s%-8s%s %8" PRIu32 " %12s %10" PRIu64 "  ", cli_colour(colour),
           klaw_step_state_name(s->state), cli_colour(CLI_PLAIN), s->attempts, took,
           s->result_size);
    cli_put(stdout, s->name, 80, false);
    if (s->dropped)
        fputs(" (dropped)", stdout);
    if (*s->message || s->error) {
        fputs(": ", stdout);
        cli_put(stdout, *s->message ? s->message : klaw_err_text(s->error), 120, false);
    }
    putchar('\n');
}

static void print_one(const struct found *f) {
    const klaw_workflow_info *w = &f->info;
    char text[40];
    fputs(cli_colour(CLI_BOLD), stdout);
    cli_put(stdout, w->name, 100, false);
    printf("%s: %s%s%s, %" PRIu64 " of %" PRIu64 " steps done\n", cli_colour(CLI_PLAIN),
           cli_colour(colour_of(w)), state_of(w), cli_colour(CLI_PLAIN), w->steps_done, w->steps);
    printf("store    %s\n", f->path);
    time_text(text, sizeof text, w->created);
    printf("begun    %s\n", text);
    time_text(text, sizeof text, w->updated);
    printf("changed  %s\n", text);
    if (*w->owner_host) {
        fputs(w->leased ? "runner   " : "last run ", stdout);
        cli_put(stdout, w->owner_host, 60, false);
        printf(" process %" PRId64 "\n", w->owner_pid);
    }
    if (w->cancel_requested)
        puts("a cancellation is on its way");
    if (*w->message) {
        fputs("because  ", stdout);
        cli_put(stdout, w->message, 200, false);
        putchar('\n');
    }
    if (f->n > 0)
        printf("\n%s%-8s %8s %12s %10s  step%s\n", cli_colour(CLI_BOLD), "state", "attempts",
               "took", "result", cli_colour(CLI_PLAIN));
    for (size_t i = 0; i < f->n; i++)
        print_step(&f->steps[i]);
}

static int show(const struct request *r) {
    struct found f;
    int code = find(r, &f);
    if (code)
        return code;
    if (!r->json) {
        print_one(&f);
        close_found(&f);
        return EXIT_FINE;
    }
    json_t *o = json_of(&f.info, f.path), *steps = json_array();
    for (size_t i = 0; i < f.n; i++) {
        const klaw_step_info *s = &f.steps[i];
        json_array_append_new(
            steps,
            json_pack("{s:o,s:s,s:I,s:I,s:I,s:I,s:b,s:s,s:o}", "name", utf8(s->name), "state",
                      klaw_step_state_name(s->state), "attempts", (json_int_t)s->attempts,
                      "started", (json_int_t)s->started, "finished", (json_int_t)s->finished,
                      "result_size", (json_int_t)s->result_size, "dropped", s->dropped, "error",
                      klaw_err_name(s->error), "message", utf8(s->message)));
    }
    json_object_set_new(o, "step_list", steps);
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(o);
    close_found(&f);
    return EXIT_FINE;
}

static int cancel(const struct request *r) {
    struct found f;
    klaw_error_info info = {0};
    int code = find(r, &f);
    if (code)
        return code;
    klaw_err e = klaw_workflow_cancel(f.store, r->name, r->reason, &info);
    if (e == KLAW_INVALID) {
        fprintf(stderr, "klaw workflow: '%s' is done\n", r->name);
        code = EXIT_FOUND;
    } else if (e) {
        code = explain(r->name, e, &info);
    } else {
        printf(f.info.leased ? "asked its runner to end: " : "cancelled: ");
        cli_put(stdout, r->name, 200, false);
        putchar('\n');
    }
    close_found(&f);
    return code;
}

/* Opens it with the list of steps it has, and closes it: then it is neither failed nor cancelled. */
static int reopen(const struct request *r, struct found *f) {
    klaw_error_info info = {0};
    klaw_workflow *w;
    const char **names = calloc(f->n + 1, sizeof *names);
    size_t n = 0;
    for (size_t i = 0; names && i < f->n; i++)
        if (!f->steps[i].dropped)
            names[n++] = f->steps[i].name;
    klaw_workflow_opts opts = {.steps = f->info.declared ? names : NULL,
                               .n_steps = f->info.declared ? n : 0,
                               .version = f->info.version,
                               .uncancel = true};
    klaw_err e = KLAW_NOMEM;
    if (names && r->evict && f->info.leased)
        e = klaw_workflow_evict(f->store, r->name, &info);
    else if (names)
        e = KLAW_OK;
    if (e == KLAW_OK)
        e = klaw_workflow_open(f->store, r->name, &opts, &w, &info);
    if (e == KLAW_OK)
        klaw_workflow_close(w);
    free(names);
    if (e == KLAW_EXISTS) {
        fprintf(stderr, "klaw workflow: %s\n", info.message);
        return EXIT_FOUND;
    }
    return e ? explain(r->name, e, &info) : EXIT_FINE;
}

static int resume(const struct request *r) {
    struct found f;
    int code = find(r, &f);
    if (code)
        return code;
    if (f.info.state == KLAW_WORKFLOW_DONE) {
        fprintf(stderr, "klaw workflow: '%s' is done\n", r->name);
        close_found(&f);
        return EXIT_FOUND;
    }
    code = reopen(r, &f);
    char path[sizeof f.path];
    memcpy(path, f.path, sizeof path);
    close_found(&f);
    if (code)
        return code;
    if (r->command) {
        fflush(NULL);
        execvp(r->command[0], r->command);
        fprintf(stderr, "klaw workflow: %s can't be run\n", r->command[0]);
        return EXIT_TROUBLE;
    }
    if (strncmp(r->name, JOBS, strlen(JOBS)) == 0) {
        char *argv[] = {"run-jobs", "--store", path,
                        "--resume", "--name",  (char *)(uintptr_t)(r->name + strlen(JOBS)),
                        NULL};
        optind = 0; /* a command line of its own */
        return cli_run_run_jobs(6, argv);
    }
    fputs("resumable: ", stdout);
    cli_put(stdout, r->name, 200, false);
    puts("; its program goes on with it");
    return EXIT_FINE;
}

int cli_run_workflow(int argc, char **argv) {
    struct request r = {0};
    const char *value;
    int id, first = argc;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--") == 0) {
            first = i;
            break;
        }
    while ((id = cli_next(&cli_workflow, first, argv, &value)) > 0) {
        switch (id) {
        case 's': r.store = value; break;
        case 'j': r.json = true; break;
        case 'r': r.reason = value; break;
        case 'e': r.evict = true; break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    int n = first - optind;
    r.verb = n > 0 ? argv[optind] : "ls";
    r.name = n > 1 ? argv[optind + 1] : NULL;
    r.command = first + 1 < argc ? argv + first + 1 : NULL;
    if (n > 2)
        return cli_usage(&cli_workflow, "one workflow at a time");
    if (r.command && strcmp(r.verb, "resume") != 0)
        return cli_usage(&cli_workflow, "only resume takes a command");
    if (strcmp(r.verb, "ls") == 0)
        return list(&r);
    bool known = strcmp(r.verb, "show") == 0 || strcmp(r.verb, "cancel") == 0 ||
                 strcmp(r.verb, "resume") == 0;
    if (!known)
        return cli_usage(&cli_workflow, "ls, show, resume or cancel, not '%.40s'", r.verb);
    if (!r.name)
        return cli_usage(&cli_workflow, "which workflow? A name is missing");
    return strcmp(r.verb, "show") == 0     ? show(&r)
           : strcmp(r.verb, "cancel") == 0 ? cancel(&r)
                                           : resume(&r);
}
