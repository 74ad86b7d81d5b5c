/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - klaw run-jobs: runs shell commands, several at a time, and remembers what became of each. --help
 * says what it does for its user; this is how klaw's parts are put together.
 *
 *   store      one file that survives kill -9 and power cuts: results, and the workflow's own log
 *   workflow   the run; each command is a step. A step with a result never runs again, and only one
 *              process at a time holds the run
 *   executor   -j: so many at a time. Its iterator takes the next command when a place is free
 *   retry      --retries and --backoff: attempts, and the waits between them
 *   process    the command itself, with its group: stopped as a whole, killed when we are
 *   scopes     Ctrl-C cancels `work`, in which the executor lives; what must come to its end all the
 *              same (a result that has to be saved, last words of a command) is shielded or lives
 *              outside of it
 *
 * What happens when: the step is recorded as started; the command runs; its result is saved; the
 * step is recorded as done or failed. Killed before the last of these, the command runs again. */
#include "jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What is to be done with a command, and what has been. Its task alone writes to it while it runs. */
typedef struct job {
    struct runner *run;
    const command *command;
    bool todo;
    bool before;       /* finished by an earlier run of this program */
    bool finished;     /* `result` counts */
    klaw_err returned; /* by its step */
    result result;
} job;

typedef struct runner {
    options opts;
    commands commands;
    job *jobs;   /* one for each command */
    size_t next; /* the first that was not given out */
    klaw_store *store;
    klaw_workflow *workflow;
    klaw_scope *work;    /* what Ctrl-C cancels */
    klaw_scope *readers; /* what it does not */
    klaw_receiver *signals;
    klaw_executor *executor;
    int64_t start;
    int code; /* of the program */
    bool to_terminal;
    atomic_int signal;
    /* For the progress line. */
    atomic_uint_fast64_t ok, failed, running, waiting, repeated;
    /* The first error that is not a command's. */
    atomic_flag explained;
} runner;

/* ---- what it says ---- */

/* A line above the progress line, in one write. */
static void say_line(runner *r, const char *text, size_t size) {
    char *line = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&line, &length);
    if (!out)
        return;
    if (r->to_terminal)
        fputs("\r\033[K", out);
    fwrite(text, 1, size, out);
    if (fclose(out) == 0) {
        ssize_t written = write(STDERR_FILENO, line, length);
        (void)written; /* there is nobody to tell */
    }
    free(line);
}

/* The first trouble ends the run: no command is begun after it. */
static void trouble(runner *r, const char *what, klaw_err e, const klaw_error_info *info) {
    if (atomic_flag_test_and_set(&r->explained))
        return;
    if (r->to_terminal)
        fputs("\r\033[K", stderr);
    say(what, e, info);
    r->code = EXIT_TROUBLE;
    klaw_scope_cancel(r->work, "trouble");
}

/* How a command ended: failures always, all of them with --verbose. */
static void say_finished(runner *r, const job *j) {
    char text[64], took[32];
    char *line = NULL;
    size_t length = 0;
    const result *res = &j->result;
    if (r->opts.quiet || (res->outcome == OUTCOME_OK && !r->opts.verbose))
        return;
    FILE *out = open_memstream(&line, &length);
    if (!out)
        return;
    result_text(res, text, sizeof text);
    duration_text(took, sizeof took, res->took);
    fprintf(out, "%s, %" PRIu32 " %s, %s: #%" PRIu64 " ", text, res->attempts,
            res->attempts == 1 ? "attempt" : "attempts", took, j->command->number);
    put_command(out, j->command->text, 200);
    fputc('\n', out);
    if (r->opts.verbose && res->tail_size > 0) {
        fwrite(res->tail, 1, res->tail_size, out);
        if (res->tail[res->tail_size - 1] != '\n')
            fputc('\n', out);
    }
    if (fclose(out) == 0)
        say_line(r, line, length);
    free(line);
}

static void progress_line(runner *r) {
    char took[32];
    uint64_t ok = atomic_load(&r->ok), failed = atomic_load(&r->failed);
    uint64_t waiting = atomic_load(&r->waiting);
    duration_text(took, sizeof took, klaw_now() - r->start);
    dprintf(STDERR_FILENO,
            "\r\033[K%" PRIu64 "/%zu finished, %" PRIu64 " failed, %" PRIu64 " running",
            ok + failed, r->commands.n, failed, (uint64_t)atomic_load(&r->running));
    if (waiting)
        dprintf(STDERR_FILENO, ", %" PRIu64 " to be tried again", waiting);
    dprintf(STDERR_FILENO, ", %s", took);
}

static klaw_err progress(void *arg) {
    runner *r = arg;
    klaw_receiver *ticks;
    uint64_t tick;
    klaw_err e = klaw_ticker_open(KLAW_MS(100), &ticks);
    if (e)
        return e;
    do {
        progress_line(r);
    } while ((e = klaw_recv(ticks, &tick, KLAW_FOREVER)) == KLAW_OK);
    dprintf(STDERR_FILENO, "\r\033[K");
    klaw_receiver_unref(ticks);
    return e; /* CANCELLED, when all is done */
}

/* The first signal ends the work. Then the receiver is closed, and with it the default action is back: a
 * second one ends the process, and the commands with it. */
static klaw_err signals(void *arg) {
    runner *r = arg;
    uint64_t number;
    static const char text[] =
        "klaw run-jobs: ending the running commands; once more to stop at once\n";
    klaw_err e = klaw_recv(r->signals, &number, KLAW_FOREVER);
    if (e)
        return e;
    atomic_store(&r->signal, (int)number);
    klaw_receiver_close(r->signals);
    say_line(r, text, sizeof text - 1);
    klaw_scope_cancel(r->work, strsignal((int)number));
    return KLAW_OK;
}

/* ---- one command ---- */

static void on_attempt(uint32_t n, klaw_err e, int64_t delay, void *user) {
    job *j = user;
    runner *r = j->run;
    char text[64], wait[32], line[512];
    (void)e;
    if (delay < 0)
        return; /* the last one */
    atomic_fetch_add(&r->repeated, 1);
    if (!r->opts.verbose || r->opts.quiet)
        return;
    result_text(&j->result, text, sizeof text);
    duration_text(wait, sizeof wait, delay);
    int size =
        snprintf(line, sizeof line, "%s, attempt %" PRIu32 ", again in %s: #%" PRIu64 " %.200s\n",
                 text, n, wait, j->command->number, j->command->text);
    say_line(r, line, (size_t)size);
}

/* All attempts. */
static klaw_err try_command(job *j, const char *id) {
    runner *r = j->run;
    char run[JOBS_NAME_MAX + 16], number[48], name[48], key[512];
    const char *env[] = {run, number, name, key, NULL};
    attempt a = {.text = j->command->text,
                 .env = env,
                 .readers = r->readers,
                 .grace = r->opts.grace,
                 .tail_max = (size_t)r->opts.tail};
    klaw_retry_opts retry = {.attempts = (int32_t)r->opts.retries + 1,
                             .backoff = {.base = r->opts.backoff ? r->opts.backoff : KLAW_NONE,
                                         .max_delay = KLAW_S(300),
                                         .jitter = KLAW_JITTER_EQUAL},
                             .attempt_timeout = r->opts.timeout,
                             .on_attempt = on_attempt,
                             .user = j};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(run, sizeof run, "JOBS_RUN=%s", r->opts.name);
    snprintf(number, sizeof number, "JOBS_NUMBER=%" PRIu64, j->command->number);
    snprintf(key, sizeof key, "JOBS_ID=%s", id);
    klaw_retry_iter it;
    klaw_retry_begin(&it, &retry);
    for (uint32_t n = 1;; n++) {
        atomic_fetch_add(&r->waiting, n > 1);
        bool go = klaw_retry_next(&it);
        atomic_fetch_sub(&r->waiting, n > 1);
        if (!go)
            break;
        snprintf(name, sizeof name, "JOBS_ATTEMPT=%" PRIu32, n);
        result_free(&j->result);
        j->result.attempts = n;
        j->result.began = (int64_t)now.tv_sec * KLAW_S(1) + now.tv_nsec;
        atomic_fetch_add(&r->running, 1);
        klaw_err e = attempt_run(&a, klaw_retry_deadline(&it), &j->result);
        atomic_fetch_sub(&r->running, 1);
        if (klaw_retry_done(&it, e))
            break;
    }
    return klaw_retry_result(&it);
}

/* The result has to be kept though Ctrl-C came: the command has finished. */
static klaw_err keep_result(job *j, klaw_error_info *info) {
    runner *r = j->run;
    klaw_scope *shield;
    klaw_scope_opts opts = {.shield = true, .deadline = klaw_after(2 * JOBS_PATIENCE)};
    klaw_err e = klaw_scope_open(&opts, &shield);
    if (e)
        return e;
    e = result_save(r->store, r->opts.name, j->command, &j->result, info);
    klaw_err closed = klaw_scope_close(shield);
    (void)closed; /* no fiber was in it */
    return e;
}

static klaw_err run_step(klaw_step *step, void *arg, klaw_blob **out) {
    job *j = arg;
    klaw_error_info info = {0};
    char text[64];
    (void)out; /* the result has a place of its own: --show can read it while we run */
    klaw_err e = try_command(j, klaw_step_id(step));
    if (e == KLAW_CANCELLED)
        return e; /* not finished: it runs again */
    result_text(&j->result, text, sizeof text);
    if (e)
        klaw_step_explain(step, "%s", text);
    klaw_err kept = keep_result(j, &info);
    if (kept) {
        trouble(j->run, "a result can't be kept", kept, &info);
        return kept;
    }
    j->finished = true;
    j->returned = e;
    return e;
}

/* A task of the executor; its item is a job. */
static klaw_err run_job(const void *item, void *unused, void *arg) {
    runner *r = arg;
    job *j = *(job *const *)item;
    klaw_error_info info = {0};
    (void)unused;
    klaw_err e = klaw_workflow_step(r->workflow, j->command->step, run_step, j, NULL, NULL, &info);
    if (!j->finished || e != j->returned) {
        j->finished = false; /* the workflow does not know */
        if (e != KLAW_CANCELLED)
            trouble(r, "the run can't go on", e, &info);
        return e;
    }
    atomic_fetch_add(e ? &r->failed : &r->ok, 1);
    say_finished(r, j);
    /* The tail is kept in the store, and thousands of them would be much. */
    free(j->result.tail);
    j->result.tail = NULL;
    j->result.tail_size = 0;
    return KLAW_OK;
}

static klaw_err next_job(void *item, void *user) {
    runner *r = user;
    while (r->next < r->commands.n && !r->jobs[r->next].todo)
        r->next++;
    if (r->next == r->commands.n)
        return KLAW_CLOSED;
    *(job **)item = &r->jobs[r->next++];
    return KLAW_OK;
}

/* ---- the run ---- */

/* All commands that are to be run, until they have ended or Ctrl-C. */
static klaw_err work(runner *r) {
    klaw_imap *it;
    klaw_executor_opts places = {.concurrency = (int32_t)r->opts.parallel, .name = "commands"};
    klaw_imap_opts opts = {.item_size = sizeof(job *),
                           .next = next_job,
                           .user = r,
                           .in_flight = (uint32_t)r->opts.parallel};
    klaw_err e = klaw_executor_open(&places, &r->executor);
    if (e)
        return e;
    e = klaw_imap_open(r->executor, run_job, r, &opts, &it);
    if (!e) {
        while ((e = klaw_imap_next(it, NULL, NULL, KLAW_FOREVER)) == KLAW_OK)
            ;
        klaw_imap_close(it); /* waits for what it has cancelled */
    }
    klaw_err closed = klaw_executor_close(r->executor, KLAW_NOWAIT, NULL);
    (void)closed;
    klaw_executor_unref(r->executor);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

/* Around the work: who listens for Ctrl-C, who shows the progress, who reads the commands' output. */
static klaw_err work_with_helpers(runner *r) {
    klaw_scope *helpers, *readers, *inner;
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    klaw_err e = klaw_signal_open(ends, sizeof ends / sizeof *ends, &r->signals);
    if (e)
        return e;
    e = klaw_scope_open(&(klaw_scope_opts){.name = "helpers"}, &helpers);
    if (e)
        return e;
    e = klaw_scope_open(&(klaw_scope_opts){.name = "readers"}, &readers);
    if (!e) {
        r->readers = readers;
        e = klaw_scope_open(&(klaw_scope_opts){.name = "work"}, &inner);
        if (!e) {
            r->work = klaw_scope_ref(inner);
            e = klaw_spawn(helpers, signals, r, &(klaw_fiber_opts){.name = "signals"}, NULL);
            if (!e && r->to_terminal && !r->opts.quiet)
                e = klaw_spawn(helpers, progress, r, &(klaw_fiber_opts){.name = "progress"}, NULL);
            e = e ? e : work(r);
            klaw_err ended = klaw_scope_close(inner);
            (void)ended; /* CANCELLED, after Ctrl-C */
        }
        klaw_err ended = klaw_scope_close(readers);
        (void)ended;
    }
    klaw_scope_cancel(helpers, "done");
    klaw_err ended = klaw_scope_close(helpers);
    (void)ended;
    return e == KLAW_CANCELLED ? KLAW_OK : e;
}

static int by_step(const void *left, const void *right) {
    const job *a = *(const job *const *)left, *b = *(const job *const *)right;
    return strcmp(a->command->step, b->command->step);
}

/* Which commands have finished before, by what the workflow and the results say. */
static klaw_err look_back(runner *r, const klaw_step_info *steps, size_t n, klaw_error_info *info) {
    job **order = malloc((r->commands.n + 1) * sizeof *order);
    klaw_err e = order ? KLAW_OK : KLAW_NOMEM;
    uint64_t cut = 0;
    for (size_t i = 0; !e && i < r->commands.n; i++) {
        r->jobs[i] = (job){.run = r, .command = &r->commands.list[i], .todo = true};
        order[i] = &r->jobs[i];
    }
    if (!e)
        qsort(order, r->commands.n, sizeof *order, by_step);
    for (size_t i = 0; !e && i < n; i++) {
        const klaw_step_info *s = &steps[i];
        const command wanted = {.step = (char *)(uintptr_t)s->name};
        const job key = {.command = &wanted}, *key_at = &key;
        job **found = bsearch(&key_at, order, r->commands.n, sizeof *order, by_step);
        bool failed = s->state == KLAW_STEP_FAILED && s->error != KLAW_CANCELLED;
        if (!found || s->dropped)
            continue;
        job *j = *found;
        cut += s->state == KLAW_STEP_STARTED;
        if (s->state == KLAW_STEP_DONE || (failed && !r->opts.retry_failed)) {
            e = result_load(r->store, r->opts.name, j->command, &j->result, info);
            if (e == KLAW_NOT_FOUND && !failed)
                j->result.outcome = OUTCOME_OK; /* the workflow says so */
            if (e == KLAW_NOT_FOUND) {
                e = KLAW_OK;
                if (failed)
                    continue; /* it did not come to a result */
            }
            j->before = j->finished = !e;
            j->todo = false;
            atomic_fetch_add(j->result.outcome == OUTCOME_OK ? &r->ok : &r->failed, !e);
            free(j->result.tail);
            j->result.tail = NULL;
            j->result.tail_size = 0;
        }
    }
    free(order);
    if (!e && cut && !r->opts.quiet)
        fprintf(stderr,
                "klaw run-jobs: %" PRIu64 " %s cut off when the last jobs died; run again\n", cut,
                cut == 1 ? "command was" : "commands were");
    return e;
}

static uint64_t finished_before(const runner *r) {
    uint64_t n = 0;
    for (size_t i = 0; i < r->commands.n; i++)
        n += r->jobs[i].before;
    return n;
}

static void summary(runner *r) {
    char took[32], text[64];
    uint64_t ok = atomic_load(&r->ok), failed = atomic_load(&r->failed);
    uint64_t before = finished_before(r), open = r->commands.n - ok - failed;
    uint64_t shown = 0;
    const char *name = r->opts.name;
    duration_text(took, sizeof took, klaw_now() - r->start);
    printf("run %s: %zu %s, %" PRIu64 " ok, %" PRIu64 " failed", name, r->commands.n,
           r->commands.n == 1 ? "command" : "commands", ok, failed);
    if (open)
        printf(", %" PRIu64 " not finished", open);
    if (before)
        printf(" (%" PRIu64 " before)", before);
    printf("; %" PRIu64 " attempts repeated; %s\n", (uint64_t)atomic_load(&r->repeated), took);
    for (size_t i = 0; i < r->commands.n && shown < 20; i++) {
        const job *j = &r->jobs[i];
        if (!j->finished || j->result.outcome == OUTCOME_OK)
            continue;
        shown++;
        result_text(&j->result, text, sizeof text);
        printf("  #%" PRIu64 " %s: ", j->command->number, text);
        put_command(stdout, j->command->text, 80);
        putchar('\n');
    }
    if (failed > shown)
        printf("  and %" PRIu64 " more\n", failed - shown);
    if (open)
        printf("go on with: klaw run-jobs --resume %s\n", name);
    else if (failed)
        printf(
            "outputs: klaw run-jobs --show %s N; again: klaw run-jobs --resume --retry-failed %s\n",
            name, name);
}

/* Tells the workflow how it ended, and the program's exit code. */
static klaw_err conclude(runner *r, klaw_error_info *info) {
    uint64_t ok = atomic_load(&r->ok), failed = atomic_load(&r->failed);
    int number = atomic_load(&r->signal);
    char text[64];
    if (ok + failed < r->commands.n) {
        /* To be gone on with; closing gives the lease back. */
        r->code = number ? 128 + number : EXIT_TROUBLE;
        return KLAW_OK;
    }
    if (r->code == EXIT_TROUBLE)
        return KLAW_OK;
    snprintf(text, sizeof text, "%" PRIu64 " of %zu commands failed", failed, r->commands.n);
    r->code = failed ? EXIT_FOUND : EXIT_FINE;
    if (failed)
        return klaw_workflow_fail(r->workflow, KLAW_SYSTEM, text, info);
    return klaw_workflow_finish(r->workflow, NULL, info);
}

/* ---- from the arguments to a workflow ---- */

/* --resume alone: the run that was changed last among those that are not done. */
static klaw_err find_unfinished(runner *r, klaw_error_info *info) {
    klaw_workflow_info *list;
    const klaw_workflow_info *last = NULL;
    size_t n;
    klaw_err e = klaw_workflow_list_all(r->store, JOBS_PREFIX, &list, &n, info);
    if (e)
        return e;
    for (size_t i = 0; i < n; i++) {
        bool open = list[i].state == KLAW_WORKFLOW_RUNNING ||
                    (list[i].state == KLAW_WORKFLOW_FAILED && r->opts.retry_failed);
        if (open && !list[i].leased && (!last || list[i].updated > last->updated))
            last = &list[i];
    }
    if (last)
        snprintf(r->opts.name, sizeof r->opts.name, "%s", last->name + strlen(JOBS_PREFIX));
    klaw_workflow_info_free(list);
    if (!last)
        snprintf(info->message, sizeof info->message, "no run in %.150s is unfinished",
                 klaw_store_path(r->store));
    return last ? KLAW_OK : KLAW_NOT_FOUND;
}

static klaw_err read_file_blocking(void *arg) {
    runner *r = arg;
    size_t size;
    char *text = input_read(r->opts.file, &size);
    return text && commands_parse(text, size, &r->commands) ? KLAW_OK : KLAW_INVALID;
}

static bool is_input(const char *file) {
    struct stat st;
    return strcmp(file, "-") == 0 || (stat(file, &st) == 0 && !S_ISDIR(st.st_mode));
}

/* The commands and the options, from the arguments and from what the store has of this run. The
 * program's exit code, or OPTIONS_GO_ON. */
static int prepare(runner *r) {
    options *o = &r->opts, kept = {0};
    commands stored;
    klaw_error_info info = {0};
    if (o->resume && !o->name[0] && find_unfinished(r, &info)) {
        say("nothing to go on with", KLAW_NOT_FOUND, &info);
        return EXIT_USAGE;
    }
    klaw_err e = run_load(r->store, o->name, &kept, &stored, &info);
    if (e && e != KLAW_NOT_FOUND) {
        say("the run can't be read", e, &info);
        return EXIT_TROUBLE;
    }
    bool known = !e;
    if (o->resume && o->file && known && !is_input(o->file))
        o->file = NULL; /* it is the name of a run */
    if (o->resume && !known) {
        fprintf(stderr, "klaw run-jobs: %s has no run '%s'%s\n", klaw_store_path(r->store), o->name,
                o->file && is_input(o->file) ? ": beginning one" : "; --list shows the runs");
        if (!o->file || !is_input(o->file))
            return EXIT_USAGE;
    }
    if (known && !o->restart)
        options_fill(o, &kept);
    options_default(o);
    if (!o->file)
        r->commands = stored;
    else if (known)
        commands_free(&stored);
    if (o->file && klaw_blocking(read_file_blocking, r))
        return EXIT_USAGE;
    r->jobs = calloc(r->commands.n, sizeof *r->jobs);
    return r->jobs ? OPTIONS_GO_ON : EXIT_TROUBLE;
}

static klaw_err forget(runner *r, const char *workflow, klaw_error_info *info) {
    klaw_err e = klaw_workflow_delete(r->store, workflow, false, info);
    return e && e != KLAW_NOT_FOUND ? e : run_forget(r->store, r->opts.name, info);
}

/* Begins the workflow or goes on with it. Code as above. */
static int open_workflow(runner *r) {
    char name[JOBS_NAME_MAX + sizeof JOBS_PREFIX];
    klaw_error_info info = {0};
    const char **steps = malloc(r->commands.n * sizeof *steps);
    run_workflow_name(name, sizeof name, r->opts.name);
    klaw_err e = steps ? KLAW_OK : KLAW_NOMEM;
    if (!e && r->opts.restart)
        e = forget(r, name, &info);
    for (size_t i = 0; !e && i < r->commands.n; i++)
        steps[i] = r->commands.list[i].step;
    klaw_workflow_opts opts = {.steps = steps,
                               .n_steps = r->commands.n,
                               .allow_changes = r->opts.allow_changes,
                               .uncancel = true};
    if (!e)
        e = klaw_workflow_open(r->store, name, &opts, &r->workflow, &info);
    free(steps);
    if (e == KLAW_INVALID) {
        fprintf(stderr,
                "klaw run-jobs: the run '%s' has other commands: %s\n"
                "klaw run-jobs: --allow-changes goes on with the new ones, --restart begins again, "
                "--name NAME "
                "makes another run\n",
                r->opts.name, info.message);
        return EXIT_USAGE;
    }
    if (e)
        say(e == KLAW_EXISTS ? "another klaw run-jobs works at this run"
                             : "the run can't be opened",
            e, &info);
    return e ? EXIT_TROUBLE : OPTIONS_GO_ON;
}

/* What the store knows of the commands, and what it is to know. Code as above. */
static int compare_notes(runner *r) {
    char name[JOBS_NAME_MAX + sizeof JOBS_PREFIX];
    klaw_workflow_info w;
    klaw_step_info *steps = NULL;
    klaw_error_info info = {0};
    size_t n = 0;
    run_workflow_name(name, sizeof name, r->opts.name);
    klaw_err e = klaw_workflow_done(r->workflow)
                     ? KLAW_OK
                     : run_save(r->store, r->opts.name, &r->opts, &r->commands, &info);
    e = e ? e : klaw_workflow_inspect(r->store, name, &w, &steps, &n, &info);
    e = e ? e : look_back(r, steps, n, &info);
    klaw_step_info_free(steps);
    if (e) {
        say("the store", e, &info);
        return EXIT_TROUBLE;
    }
    uint64_t before = finished_before(r);
    if (before && !r->opts.quiet)
        fprintf(stderr, "klaw run-jobs: going on with run %s: %" PRIu64 " of %zu finished before\n",
                r->opts.name, before, r->commands.n);
    return OPTIONS_GO_ON;
}

static klaw_err run_all(runner *r) {
    klaw_error_info info = {0};
    r->code = prepare(r);
    if (r->code == OPTIONS_GO_ON)
        r->code = open_workflow(r);
    if (r->code != OPTIONS_GO_ON)
        return KLAW_OK;
    r->code = compare_notes(r);
    klaw_err e = KLAW_OK;
    if (r->code == OPTIONS_GO_ON) {
        r->start = klaw_now();
        e = work_with_helpers(r);
        e = e ? e : conclude(r, &info);
        if (e) {
            say("the run can't go on", e, &info);
            r->code = EXIT_TROUBLE;
        } else if (!r->opts.quiet) {
            summary(r);
        }
    }
    klaw_workflow_close(r->workflow);
    return KLAW_OK;
}

static klaw_err open_store(runner *r, klaw_error_info *info) {
    klaw_config config;
    char path[sizeof config.checkpoint_path + 32];
    const char *file = r->opts.store;
    klaw_store_opts opts = {.keep = 1, .deadline = klaw_after(JOBS_PATIENCE)};
    if (!file) {
        klaw_err e = klaw_config_get(&config, info);
        if (e)
            return e;
        snprintf(path, sizeof path, "%s/jobs.db", config.checkpoint_path);
        file = path;
    }
    return klaw_store_open(file, &opts, &r->store, info);
}

static klaw_err main_fiber(void *arg) {
    runner *r = arg;
    klaw_error_info info = {0};
    klaw_err e = open_store(r, &info);
    if (e) {
        say("the store can't be opened", e, &info);
        r->code = EXIT_TROUBLE;
        return KLAW_OK;
    }
    switch (r->opts.action) {
    case ACTION_LIST: r->code = show_list(r->store); break;
    case ACTION_SHOW: r->code = show_run(r->store, &r->opts); break;
    case ACTION_DELETE: r->code = show_delete(r->store, &r->opts); break;
    default: e = run_all(r); break;
    }
    klaw_store_unref(r->store);
    return e;
}

int cli_run_run_jobs(int argc, char **argv) {
    runner r = {.explained = ATOMIC_FLAG_INIT};
    options *o = &r.opts;
    int code = options_parse(argc, argv, o);
    if (code != OPTIONS_GO_ON)
        return code;
    if (o->action == ACTION_RUN && !o->file && !o->resume) {
        if (isatty(STDIN_FILENO)) {
            fputs("klaw run-jobs: no commands: name a file of them, or '-'; --help explains\n",
                  stderr);
            return EXIT_USAGE;
        }
        o->file = "-";
        if (!o->name[0])
            snprintf(o->name, sizeof o->name, "stdin");
    }
    r.to_terminal = isatty(STDERR_FILENO) != 0;
    klaw_err e = klaw_run(main_fiber, &r, NULL);
    if (e) {
        fprintf(stderr, "klaw run-jobs: %s\n", klaw_err_text(e));
        r.code = EXIT_TROUBLE;
    }
    for (size_t i = 0; r.jobs && i < r.commands.n; i++)
        result_free(&r.jobs[i].result);
    free(r.jobs);
    commands_free(&r.commands);
    klaw_scope_unref(r.work);
    klaw_receiver_unref(r.signals);
    return r.code;
}
