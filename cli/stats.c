/* SPDX-License-Identifier: Apache-2.0 */
/* stats.c - klaw stats: the numbers of one process, once or in a rhythm, for people and for programs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verbs.h"

static const char *const usage[] = {"[--json] [--every T [--times N]] [PID | NAME]",
                                    "--snapshot [PID | NAME]", NULL};
static const cli_option options[] = {
    {"json", 'j', NULL, "one JSON object a line", NULL},
    {"every", 'e', "T", "again and again, every T (500ms, 2s, 1m)", "500ms 1s 5s 1m"},
    {"times", 'n', "N", "with --every: so often, then end", ""},
    {"snapshot", 's', NULL, "everything that is alive, as one JSON object (see klaw/inspect.h)",
     NULL},
    {0},
};
const cli_verb cli_stats_verb = {
    .name = "stats",
    .usage = usage,
    .summary = "the numbers of a process",
    .about =
        "Prints how many workers, fibers, channels, tasks, actors and supervisors a process has, "
        "and their sums: elements sent, received and waiting, messages handled, failures, "
        "restarts. PID may be left out when only one process is open to inspection; a program's "
        "name does where it is the only one of that name.",
    .options = options,
    .examples = "klaw stats --json | jq .queued\tone number\n"
                "klaw stats --json --every 1s server >> log\ta line a second\n"
                "klaw stats --snapshot | jq '.channels[].name'\tall there is",
    .words = "PID",
    .run = cli_run_stats,
};

static void print_stats(const cli_stats *s) {
    printf("%s%ld %s%s (klaw %s)\n", cli_colour(CLI_BOLD), s->pid, s->program,
           cli_colour(CLI_PLAIN), s->version);
    printf("workers      %10" PRIu64 "   turns        %12" PRIu64 "\n", s->workers, s->turns);
    printf("fibers       %10" PRIu64 "   tasks        %12" PRIu64 "\n", s->fibers, s->tasks);
    printf("channels     %10" PRIu64 "   queued       %12" PRIu64 "\n", s->channels, s->queued);
    printf("  sent       %10" PRIu64 "   received     %12" PRIu64 "\n", s->total_sent,
           s->total_received);
    printf("  waiting    %10" PRIu64 "\n", s->waiting);
    printf("actors       %10" PRIu64 "   in mailboxes %12" PRIu64 "\n", s->actors, s->in_mailboxes);
    printf("  handled    %10" PRIu64 "   failed       %12" PRIu64 "\n", s->handled, s->failed);
    printf("supervisors  %10" PRIu64 "   restarts     %12" PRIu64 "\n", s->supervisors,
           s->restarts);
}

static bool once(cli_link *link, const char *what, bool json) {
    cli_stats stats;
    size_t size;
    char *answer = cli_ask(link, what, &size);
    if (!answer) {
        fprintf(stderr, "klaw stats: %s\n", link->why);
        return false;
    }
    if (json)
        fwrite(answer, 1, size, stdout);
    else if (cli_stats_parse(answer, size, &stats))
        print_stats(&stats);
    fflush(stdout);
    free(answer);
    return !ferror(stdout);
}

int cli_run_stats(int argc, char **argv) {
    bool json = false, snapshot = false;
    int64_t every = 0;
    long times = 0;
    const char *value;
    char *end;
    int id;
    cli_process process;
    cli_link link;
    while ((id = cli_next(&cli_stats_verb, argc, argv, &value)) > 0) {
        switch (id) {
        case 'j': json = true; break;
        case 's': snapshot = true; break;
        case 'e':
            if (!cli_parse_duration(value, &every) || every < 1000000)
                return cli_usage(&cli_stats_verb, "--every does not take '%s'", value);
            break;
        case 'n':
            times = strtol(value, &end, 10);
            if (*end || times < 1)
                return cli_usage(&cli_stats_verb, "--times does not take '%s'", value);
            break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind + 1 < argc)
        return cli_usage(&cli_stats_verb, "one process at a time");
    if (!cli_choose(&cli_stats_verb, argv[optind], &process))
        return EXIT_TROUBLE;
    if (!cli_link_open(&link, &process)) {
        fprintf(stderr, "klaw stats: %s\n", link.why);
        return EXIT_TROUBLE;
    }
    bool ok = once(&link, snapshot ? "snapshot" : "stats", json || snapshot);
    for (long i = 1; ok && every && (times == 0 || i < times); i++) {
        struct timespec t = {every / 1000000000, every % 1000000000};
        nanosleep(&t, NULL);
        ok = once(&link, snapshot ? "snapshot" : "stats", json || snapshot);
    }
    cli_link_close(&link);
    return ok ? EXIT_FINE : EXIT_TROUBLE;
}
