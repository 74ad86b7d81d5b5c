/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the command line. */
#include "jobs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const lines[] = {"[options] [FILE]", "--resume [options] [NAME]",
                                    "--list | --show NAME [N] | --delete NAME", NULL};

enum {
    OPT_BACKOFF = 256,
    OPT_GRACE,
    OPT_TAIL,
    OPT_RESUME,
    OPT_RETRY_FAILED,
    OPT_ALLOW_CHANGES,
    OPT_RESTART,
    OPT_DELETE,
    OPT_STORE
};

static const cli_option table[] = {
    {"jobs", 'j', "N", "so many at a time (one per processor)", ""},
    {"retries", 'r', "N", "try a command that fails N times more (0)", ""},
    {"backoff", OPT_BACKOFF, "T",
     "the wait before the second attempt; it doubles each time, up to 5 min, with some chance in "
     "it "
     "(1s)",
     "100ms 1s 10s"},
    {"timeout", 't', "T", "the time limit of one attempt (none)", "10s 1m 10m 1h"},
    {"grace", OPT_GRACE, "T", "between SIGTERM and SIGKILL when a command has to end (5s)",
     "1s 5s"},
    {"tail", OPT_TAIL, "BYTES", "how much of the end of a command's output is kept (4096)", ""},
    {"name", 'n', "NAME", "what the run is called (the file's name; 'stdin')", ""},
    {"resume", OPT_RESUME, NULL,
     "go on with a run that exists (the last unfinished one); without FILE its commands are in the "
     "store",
     NULL},
    {"retry-failed", OPT_RETRY_FAILED, NULL, "on the way, run those that failed again", NULL},
    {"allow-changes", OPT_ALLOW_CHANGES, NULL,
     "the commands may have changed; those with a result keep it", NULL},
    {"restart", OPT_RESTART, NULL, "forget what the run has done and begin again", NULL},
    {"list", 'l', NULL, "the runs in the store", NULL},
    {"show", 's', NULL, "what became of the commands of a run; of command N, with its output",
     NULL},
    {"delete", OPT_DELETE, NULL, "forget a run", NULL},
    {"store", OPT_STORE, "FILE", "where all is kept (~/.klaw/checkpoints/jobs.db)", "FILE"},
    {"verbose", 'v', NULL, "say how each command ended, with its output", NULL},
    {"quiet", 'q', NULL, "only errors", NULL},
    {0},
};

const cli_verb cli_run_jobs = {
    .name = "run-jobs",
    .usage = lines,
    .summary = "run shell commands in parallel, resumable",
    .about =
        "Runs the commands of FILE, one a line ('-': stdin), several at a time, and remembers what "
        "became of each: interrupt it, kill it, pull the plug, and it goes on where it was. A "
        "command "
        "that has finished never runs again.\n\n"
        "Times are 500ms, 10s, 5m or 2h. Empty lines and lines that begin with # are skipped. Each "
        "command goes to /bin/sh -c, without input; its output and errors go to the store, not to "
        "the terminal. It finds JOBS_RUN, JOBS_NUMBER, JOBS_ATTEMPT and JOBS_ID (the same in each "
        "attempt and run) in its environment.\n\n"
        "The same name again goes on with that run: its commands have to be the same ones. A "
        "command "
        "that was running when klaw run-jobs was killed is run again, so let it be harmless to "
        "repeat. Commands that failed for good are finished, too, unless you say --retry-failed. "
        "Only one process can work at a run.\n\n"
        "Ctrl-C asks the running commands to end (SIGTERM, to all that they have started), waits "
        "for "
        "them and keeps the state; a second one ends everything at once. When it is killed it "
        "takes "
        "its commands with it.",
    .options = table,
    .examples = "klaw run-jobs -j 8 --retries 3 downloads.txt\tmany at a time\n"
                "ls *.wav | sed 's/.*/lame -h \"&\"/' | klaw run-jobs -n encode\tfrom a pipe\n"
                "klaw run-jobs --resume encode\tgo on after Ctrl-C\n"
                "klaw run-jobs --show encode\twhat became of them",
    .exits =
        "0 all commands succeeded; 1 some failed; 2 wrong usage; 3 the run could not go on (the "
        "store, or somebody else works at it); 130 after Ctrl-C, 143 after SIGTERM.",
    .words = "FILE",
    .run = cli_run_run_jobs,
};

static int wrong(const char *option, const char *value) {
    fprintf(stderr, "klaw run-jobs: %s does not take '%s'; --help explains\n", option, value);
    return EXIT_USAGE;
}

static int usage(const char *text) {
    fprintf(stderr, "klaw run-jobs: %s; --help explains\n", text);
    return EXIT_USAGE;
}

/* The number at the beginning of a text, and what follows it. */
static bool number(const char *text, int64_t max, int64_t *out, const char **rest) {
    char *end;
    errno = 0;
    if (text[0] < '0' || text[0] > '9')
        return false;
    long long n = strtoll(text, &end, 10);
    if (errno || n > max)
        return false;
    *out = n;
    *rest = end;
    return true;
}

static bool count(const char *text, int64_t min, int64_t max, int64_t *out) {
    const char *rest;
    return number(text, max, out, &rest) && !*rest && *out >= min;
}

static bool duration(const char *text, int64_t *out) {
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ms", KLAW_MS(1)}, {"s", KLAW_S(1)},    {"", KLAW_S(1)},
                 {"m", KLAW_S(60)},  {"min", KLAW_S(60)}, {"h", KLAW_S(3600)}};
    const char *unit;
    if (!number(text, 1000000, out, &unit))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name) == 0) {
            *out *= units[i].ns;
            return true;
        }
    }
    return false;
}

/* A name stands in keys and in messages. */
static bool take_name(const char *text, char *out) {
    size_t size = strlen(text);
    if (size == 0 || size > JOBS_NAME_MAX || strchr(text, '/'))
        return false;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            return false;
    }
    memcpy(out, text, size + 1);
    return true;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return strcmp(path, "-") == 0 ? "stdin" : slash ? slash + 1 : path;
}

/* The arguments that are no options. */
static int take_arguments(int argc, char **argv, options *o) {
    bool named = o->name[0] != 0;
    int64_t n;
    if (o->action == ACTION_LIST)
        return argc > 0 ? usage("--list takes no argument") : OPTIONS_GO_ON;
    if (o->action == ACTION_RUN && o->resume && o->restart)
        return usage("--resume and --restart exclude each other");
    if (argc > 0) {
        const char *first = argv[0];
        if (!named && !take_name(base_name(first), o->name))
            return wrong("the name of a run (1 to 100 bytes, no '/')", base_name(first));
        if (o->action == ACTION_RUN)
            o->file = first;
        argc--;
        argv++;
    } else if (o->action != ACTION_RUN && !named) {
        return usage("which run? A name is missing");
    }
    if (o->action == ACTION_SHOW && argc > 0) {
        if (!count(argv[0], 1, INT32_MAX, &n))
            return wrong("--show (the number of a command)", argv[0]);
        o->number = (uint64_t)n;
        argc--;
    }
    return argc > 0 ? usage("too many arguments") : OPTIONS_GO_ON;
}

/* One option with a value. */
static int take_value(int option, const char *value, options *o) {
    switch (option) {
    case 'j':
        return count(value, 1, 10000, &o->parallel) ? OPTIONS_GO_ON
                                                    : wrong("--jobs (1 to 10000)", value);
    case 'r':
        return count(value, 0, 1000000, &o->retries) ? OPTIONS_GO_ON : wrong("--retries", value);
    case 't': return duration(value, &o->timeout) ? OPTIONS_GO_ON : wrong("--timeout", value);
    case 'n': return take_name(value, o->name) ? OPTIONS_GO_ON : wrong("--name", value);
    case OPT_BACKOFF:
        return duration(value, &o->backoff) ? OPTIONS_GO_ON : wrong("--backoff", value);
    case OPT_GRACE: return duration(value, &o->grace) ? OPTIONS_GO_ON : wrong("--grace", value);
    case OPT_TAIL:
        return count(value, 0, 1 << 24, &o->tail) ? OPTIONS_GO_ON : wrong("--tail", value);
    default: o->store = value; return *value ? OPTIONS_GO_ON : wrong("--store", value);
    }
}

int options_parse(int argc, char **argv, options *out) {
    int c;
    const char *value;
    *out = (options){
        .parallel = -1, .retries = -1, .backoff = -1, .timeout = -1, .grace = -1, .tail = -1};
    while ((c = cli_next(&cli_run_jobs, argc, argv, &value)) != -1) {
        int code = OPTIONS_GO_ON;
        switch (c) {
        case OPT_RESUME: out->resume = true; break;
        case OPT_RETRY_FAILED: out->retry_failed = true; break;
        case OPT_ALLOW_CHANGES: out->allow_changes = true; break;
        case OPT_RESTART: out->restart = true; break;
        case 'l': out->action = ACTION_LIST; break;
        case 's': out->action = ACTION_SHOW; break;
        case OPT_DELETE: out->action = ACTION_DELETE; break;
        case 'v': out->verbose = true; break;
        case 'q': out->quiet = true; break;
        case 0: return EXIT_FINE; /* help */
        case '?': return EXIT_USAGE;
        default: code = take_value(c, value, out); break;
        }
        if (code != OPTIONS_GO_ON)
            return code;
    }
    return take_arguments(argc - optind, argv + optind, out);
}

void options_fill(options *o, const options *kept) {
    int64_t *mine[] = {&o->parallel, &o->retries, &o->backoff, &o->timeout, &o->grace, &o->tail};
    const int64_t theirs[] = {kept->parallel, kept->retries, kept->backoff,
                              kept->timeout,  kept->grace,   kept->tail};
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        *mine[i] = *mine[i] < 0 ? theirs[i] : *mine[i];
}

void options_default(options *o) {
    klaw_machine machine;
    options kept = {.parallel = 1, .backoff = KLAW_S(1), .grace = KLAW_S(5), .tail = 4096};
    if (klaw_machine_get(&machine) == KLAW_OK)
        kept.parallel = machine.usable;
    options_fill(o, &kept);
}
