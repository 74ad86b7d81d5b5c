/* SPDX-License-Identifier: Apache-2.0 */
/* The klaw command: what it is given by people, by the processes that it asks, and by channels. The first byte says which:
 *   o  a command line, an argument a line, the verb first
 *   s  what a process answers to "snapshot"; the wait-for graph of it is made and solved
 *   m  an element of a channel (MessagePack): what is read is written and read again, the same
 *   j  the commands of klaw run-jobs
 *   t  a name, and a duration
 * Tried with these bugs: an ellipsis at the end of the room; a map's key that holds a NUL. */
#include <getopt.h>
#include <jansson.h>
#include <locale.h>
#include <string.h>

#include "../cli/graph.h"
#include "../cli/jobs/jobs.h"
#include "../cli/pack.h"
#include "fuzz.h"

#define ARGUMENTS 64

static bool is_of(const cli_verb *v, int id) {
    for (const cli_option *o = v->options; o && o->name; o++)
        if (o->id == id)
            return true;
    return false;
}

static void command_line(char *text) {
    static char name[] = "klaw";
    char *argv[ARGUMENTS + 2] = {name}, *rest = text, *verb = strsep(&rest, "\n");
    const char *value = NULL;
    int argc = 1, id, code;
    options jobs;
    for (char *a; argc <= ARGUMENTS && (a = strsep(&rest, "\n")) != NULL;)
        argv[argc++] = a;
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        if (strcmp((*v)->name, verb) != 0)
            continue;
        optind = 0;
        if (*v == &cli_run_jobs) {
            code = options_parse(argc, argv, &jobs);
            HOLDS(code == OPTIONS_GO_ON || code == EXIT_FINE || code == EXIT_USAGE);
            if (code == OPTIONS_GO_ON)
                HOLDS(strlen(jobs.name) <= JOBS_NAME_MAX && jobs.parallel != 0);
            return;
        }
        while ((id = cli_next(*v, argc, argv, &value)) > 0 && id != '?')
            HOLDS(is_of(*v, id));
        HOLDS(id == -1 || id == 0 || id == '?');
        HOLDS(optind >= 1 && optind <= argc);
        if (*v == &cli_completion_verb) {
            optind = 0;
            code = cli_run_completion(argc, argv);
            HOLDS(code == EXIT_FINE || code == EXIT_USAGE);
        }
    }
}

static void snapshot(const char *text, size_t size) {
    char why[160] = "";
    cli_stats stats;
    size_t ring[16];
    (void)cli_stats_parse(text, size, &stats);
    cli_snapshot *s = cli_snapshot_parse(text, size, why, sizeof why);
    if (!s) {
        HOLDS(*why);
        return;
    }
    cli_graph *g = cli_graph_make(s, 0, false);
    HOLDS(g);
    for (size_t i = 0; i < g->n && i < 100; i++) {
        size_t n = cli_graph_ring(g, i, ring, 16);
        HOLDS(n <= 16 && cli_graph_find(g, g->nodes[i].kind, g->nodes[i].id) == i);
        for (size_t k = 0; k < n; k++)
            HOLDS(ring[k] < g->n && cli_graph_edge(g, ring[k], ring[(k + 1) % n]));
    }
    cli_graph_free(g);
    cli_snapshot_free(s);
}

static void element(const char *bytes, size_t size) {
    json_t *one = NULL, *two = NULL;
    klaw_blob *b = NULL;
    klaw_err e = cli_json_type.decode(bytes, size, &one);
    if (e) {
        HOLDS(e == KLAW_TYPE);
        return;
    }
    HOLDS(cli_json_type.encode(&one, &b) == KLAW_OK);
    HOLDS(cli_json_type.decode(klaw_blob_data(b), klaw_blob_size(b), &two) == KLAW_OK);
    HOLDS(json_equal(one, two));
    klaw_blob_unref(b);
    cli_json_type.drop(&one);
    cli_json_type.drop(&two);
}

/* Takes the text over. */
static void jobs(char *text, size_t size) {
    commands c;
    if (!commands_parse(text, size, &c))
        return;
    HOLDS(c.n > 0);
    for (size_t i = 0; i < c.n; i++)
        HOLDS(*c.list[i].text && *c.list[i].step && c.list[i].number == i + 1 &&
              strlen(c.list[i].step) < 264);
    commands_free(&c);
}

static void name_and_duration(const char *text) {
    char clean[128];
    int64_t ns = -1;
    for (size_t width = 0; width < 40; width += 13)
        for (size_t size = 16; size <= sizeof clean; size += 56) {
            size_t columns = cli_clean(clean, size, text, width);
            HOLDS(strlen(clean) < size && columns <= width);
            HOLDS(mbstowcs(NULL, clean, 0) != (size_t)-1);
            for (const char *p = clean; *p; p++)
                HOLDS((unsigned char)*p >= 0x20 && *p != 0x7f);
        }
    if (cli_parse_duration(text, &ns))
        HOLDS(ns >= 0);
    cli_duration(clean, sizeof clean, ns);
    cli_count(clean, sizeof clean, (double)ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static FILE *nowhere;
    FILE *out = stdout, *err = stderr;
    if (!nowhere) {
        HOLDS(setlocale(LC_CTYPE, "C.UTF-8"));
        nowhere = fopen("/dev/null", "we");
        HOLDS(nowhere);
        opterr = 0;
    }
    char *text = size ? malloc(size) : NULL;
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    stdout = stderr = nowhere; /* usage and help of each input */
    switch (data[0]) {
    case 'o': command_line(text); break;
    case 's': snapshot(text, size - 1); break;
    case 'm': element(text, size - 1); break;
    case 'j':
        jobs(text, size - 1);
        text = NULL;
        break;
    default: name_and_duration(text);
    }
    stdout = out;
    stderr = err;
    free(text);
    return 0;
}
