/* SPDX-License-Identifier: Apache-2.0 */
/* ps.c - klaw ps: the processes of this user that are open to inspection. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "verbs.h"

static const char *const usage[] = {"[--json | --quiet]", NULL};
static const cli_option options[] = {
    {"json", 'j', NULL, "an array of objects, as klaw stats gives them", NULL},
    {"quiet", 'q', NULL, "only the numbers of the processes, one a line", NULL},
    {0},
};
const cli_verb cli_ps = {
    .name = "ps",
    .usage = usage,
    .summary = "list the processes that run klaw",
    .about =
        "Lists the processes of this user that are open to inspection: those that were started "
        "with KLAW_INSPECT=1 in their environment, or have opened themselves (the option "
        "inspect of klaw_run and klaw_init, init(inspect=True) in Python).\n\n"
        "Columns: workers, fibers, channels, tasks and actors there are; elements that lie in "
        "channels and mailboxes; restarts of actors and of what supervisors keep.",
    .options = options,
    .examples = "KLAW_INSPECT=1 ./program & klaw ps\tsee it\n"
                "klaw ps --quiet | xargs -n1 klaw doctor\tlook at all of them",
    .exits = "0, also when there are none; 2 wrong usage; 3 a process did not answer.",
    .run = cli_run_ps,
};

/* For each process: one that is stopped, or swapped out, does not hold up the list for long. */
#define PATIENCE_MS 2000

static void row(const cli_stats *s, const char *text) {
    char queued[16], boxes[16];
    cli_count(queued, sizeof queued, (double)s->queued);
    cli_count(boxes, sizeof boxes, (double)s->in_mailboxes);
    printf("%8ld %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8s %8s %8" PRIu64
           "  ",
           s->pid, s->workers, s->fibers, s->channels, s->tasks, s->actors, queued, boxes,
           s->restarts);
    cli_put(stdout, text, 60, false);
    putchar('\n');
}

/* The program with its arguments, from /proc. */
static void command_line(const cli_stats *s, char *out, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/cmdline", s->pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    if (f)
        fclose(f);
    while (n > 0 && out[n - 1] == 0)
        n--;
    out[n] = 0;
    for (size_t i = 0; i < n; i++)
        if (!out[i])
            out[i] = ' ';
    if (n == 0)
        snprintf(out, size, "%s", s->program);
}

int cli_run_ps(int argc, char **argv) {
    bool json = false, quiet = false;
    const char *value;
    int id, code = EXIT_FINE;
    cli_process *list;
    size_t n;
    while ((id = cli_next(&cli_ps, argc, argv, &value)) > 0) {
        if (id == '?')
            return EXIT_USAGE;
        json |= id == 'j';
        quiet |= id == 'q';
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind < argc)
        return cli_usage(&cli_ps, "it takes no arguments");
    if (!cli_processes(&list, &n)) {
        fputs("klaw ps: no memory\n", stderr);
        return EXIT_TROUBLE;
    }
    json_t *all = json ? json_array() : NULL;
    if (!json && !quiet && n > 0)
        printf("%s%8s %8s %8s %8s %8s %8s %8s %8s %8s  %s%s\n", cli_colour(CLI_BOLD), "pid",
               "workers", "fibers", "channels", "tasks", "actors", "queued", "mailbox", "restarts",
               "command", cli_colour(CLI_PLAIN));
    for (size_t i = 0; i < n; i++) {
        cli_link link;
        cli_stats stats;
        char text[512];
        size_t size;
        if (quiet) {
            printf("%ld\n", list[i].pid);
            continue;
        }
        char *answer = NULL;
        if (cli_link_open(&link, &list[i])) {
            link.patience = PATIENCE_MS;
            answer = cli_ask(&link, "stats", &size);
        }
        if (!answer && kill((pid_t)list[i].pid, 0) != 0 && errno == ESRCH)
            continue; /* it ended just now */
        if (!answer) {
            fprintf(stderr, "klaw ps: %s\n", link.why);
            code = EXIT_TROUBLE;
            continue;
        }
        cli_link_close(&link);
        if (json) {
            json_array_append_new(all, json_loadb(answer, size, 0, NULL));
        } else if (cli_stats_parse(answer, size, &stats)) {
            command_line(&stats, text, sizeof text);
            row(&stats, text);
        }
        free(answer);
    }
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(all);
    } else if (n == 0 && !quiet) {
        fputs("klaw ps: no process of this user is open to inspection; start one with "
              "KLAW_INSPECT=1\n",
              stderr);
    }
    free(list);
    return code;
}
