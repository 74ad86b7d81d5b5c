/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.h - the parts of klaw run-jobs.
 *
 * A run is a workflow of klaw (named "jobs/" and the run's name) in a store; each command is one of its
 * steps. Beside the workflow the store keeps, under keys of the program's own,
 *   jobs/<run>/run            the commands and the options, so that --resume needs nothing else
 *   jobs/<run>/result/<step>  what became of a command that ended: see struct result
 * A command is finished when its step is: DONE when it succeeded; FAILED with any error but CANCELLED
 * and a result beside it when it did not, all attempts included. Everything else is to be run. */
#ifndef JOBS_H
#define JOBS_H

#include <klaw/klaw.h>
#include <stdio.h>

#include "../verbs.h"

#define JOBS_NAME_MAX 100
#define JOBS_PREFIX "jobs/"
/* How long a locked store is waited for. */
#define JOBS_PATIENCE KLAW_S(30)

/* ---- options.c ---- */

typedef enum action { ACTION_RUN, ACTION_LIST, ACTION_SHOW, ACTION_DELETE } action;

typedef struct options {
    action action;
    const char *file; /* of the commands; "-": stdin; NULL: none given */
    char name[JOBS_NAME_MAX + 1];
    const char *store; /* NULL: the default */
    uint64_t number;   /* --show: of a command; 0: all */
    bool resume, restart, retry_failed, allow_changes;
    bool quiet, verbose;
    /* Kept with the run; -1: not given. */
    int64_t parallel;
    int64_t retries;
    int64_t backoff; /* ns */
    int64_t timeout; /* ns; 0: none */
    int64_t grace;   /* ns */
    int64_t tail;    /* bytes of output that are kept */
} options;

/* What options_parse decided: go on, or end the program with this exit code. */
#define OPTIONS_GO_ON (-1)
int options_parse(int argc, char **argv, options *out);
/* What has not been given is taken from `kept`. */
void options_fill(options *o, const options *kept);
/* The rest is the default. */
void options_default(options *o);

/* ---- input.c: the commands ---- */

typedef struct command {
    const char *text; /* for the shell; in commands.text */
    char *step;       /* its name in the workflow */
    uint64_t number;  /* from 1 */
} command;

typedef struct commands {
    char *text; /* one NUL-terminated command after the other */
    command *list;
    size_t n;
} commands;

/* All of a file, NUL-terminated, malloc'd; "-" is stdin. NULL: explained on stderr. Blocks. */
char *input_read(const char *file, size_t *size);
/* Takes the text over. False: explained on stderr. */
bool commands_parse(char *text, size_t size, commands *out);
void commands_free(commands *c);

/* ---- record.c: what the store keeps ---- */

typedef enum outcome {
    OUTCOME_OK = 0,
    OUTCOME_FAILED = 1,   /* an exit code, or a signal */
    OUTCOME_TIMEOUT = 2,  /* the last attempt was cut by its time limit */
    OUTCOME_NO_START = 3, /* the shell could not be started */
} outcome;

typedef struct result {
    outcome outcome;
    klaw_process_status status;
    uint32_t attempts;
    int64_t began;   /* wall clock, ns: the first attempt */
    int64_t took;    /* ns, the last attempt */
    uint64_t output; /* bytes it wrote, the last attempt */
    size_t tail_size;
    char *tail; /* the last of them, malloc'd */
} result;

void result_free(result *r);
/* "exit code 3", "signal 9 (KILL)", "time limit"; for people. */
void result_text(const result *r, char *text, size_t size);

klaw_err result_save(klaw_store *s, const char *run, const command *c, const result *r,
                     klaw_error_info *info);
/* NOT_FOUND: none. */
klaw_err result_load(klaw_store *s, const char *run, const command *c, result *out,
                     klaw_error_info *info);
/* The commands and options of a run. NOT_FOUND: no such run. */
klaw_err run_save(klaw_store *s, const char *run, const options *o, const commands *c,
                  klaw_error_info *info);
klaw_err run_load(klaw_store *s, const char *run, options *o, commands *c, klaw_error_info *info);
/* Deletes what this program keeps of a run. */
klaw_err run_forget(klaw_store *s, const char *run, klaw_error_info *info);
void run_workflow_name(char *out, size_t size, const char *run);

/* ---- command.c: running one ---- */

typedef struct attempt {
    const char *text;
    const char *const *env;
    klaw_scope *readers; /* where the fibers that read output live: Ctrl-C does not reach it */
    int64_t grace;       /* ns between SIGTERM and SIGKILL */
    size_t tail_max;
} attempt;

/* Runs the command until it ends, `deadline` (TIMEOUT: it was stopped) or a cancellation (CANCELLED: it
 * was stopped). OK: exit code 0; SYSTEM: another end; else it could not be started. Fills all of *r but
 * attempts and began. */
klaw_err attempt_run(const attempt *a, klaw_deadline deadline, result *r);

/* ---- show.c ---- */

int show_list(klaw_store *s);
int show_run(klaw_store *s, const options *o);
int show_delete(klaw_store *s, const options *o);
/* "1.2 s", "340 ms", "2 h 05 min". */
void duration_text(char *text, size_t size, int64_t ns);
/* A command on one line, cut to `width` columns or so. */
void put_command(FILE *out, const char *text, size_t width);
/* "klaw run-jobs: what: message". */
void say(const char *what, klaw_err e, const klaw_error_info *info);

#endif
