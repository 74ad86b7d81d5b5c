/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the klaw command: one table of verbs, and what they have in common.
 *
 * A new verb: a file with its cli_verb, a declaration in verbs.h, a line in the table. Help, the pages of the
 * manual and the shells' completion come from that. */
#include <fcntl.h>
#include <klaw/klaw.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>

#include "verbs.h"

const cli_verb *const cli_verbs[] = {
    &cli_ps,           &cli_top,      &cli_tree,     &cli_stats_verb,      &cli_doctor,
#if defined(CLI_UI)
    &cli_ui_verb,
#endif
    &cli_channel_verb, &cli_workflow, &cli_run_jobs, &cli_completion_verb, NULL};

static const char *const completion_usage[] = {"bash | zsh | fish", NULL};
static const cli_option completion_options[] = {{0}};
const cli_verb cli_completion_verb = {
    .name = "completion",
    .usage = completion_usage,
    .summary = "print a completion script for a shell",
    .about = "Prints a script that completes verbs, options and the numbers of processes. An "
             "installed klaw has them in place already.",
    .options = completion_options,
    .examples = "source <(klaw completion bash)\tfor this shell",
    .words = "bash zsh fish",
    .run = cli_run_completion,
};

int cli_run_completion(int argc, char **argv) {
    const char *value;
    int id = cli_next(&cli_completion_verb, argc, argv, &value);
    if (id != -1)
        return id == 0 ? EXIT_FINE : EXIT_USAGE;
    if (optind + 1 != argc || !cli_completion(argv[optind], stdout))
        return cli_usage(&cli_completion_verb, "which shell? bash, zsh or fish");
    return EXIT_FINE;
}

static const cli_verb *find(const char *name) {
    for (const cli_verb *const *v = cli_verbs; name && *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    return NULL;
}

static void help(FILE *out) {
    fputs(
        "usage: klaw VERB [options] [arguments]\n"
        "\n"
        "Looks into running programs that use klaw, and runs jobs that resume. A program answers "
        "when\n"
        "it was started with KLAW_INSPECT=1 in its environment, or has opened itself (the option\n"
        "inspect); only its own user is answered, on a Unix socket.\n"
        "\n",
        out);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        fprintf(out, "  %-12s %s\n", (*v)->name, (*v)->summary);
    fputs("\n"
          "klaw VERB --help explains a verb. klaw --version says which klaw this is.\n"
          "\n"
          "Exit status: 0 all is well; 1 something was found or failed; 2 wrong usage; 3 no "
          "answer.\n",
          out);
}

/* The pages of the manual, for the build. */
static int manual(const char *name) {
    const cli_verb *verb = find(name);
    if (name && !verb)
        return EXIT_USAGE;
    cli_man(verb, stdout);
    return EXIT_FINE;
}

static int run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0) {
        puts("klaw " KLAW_VERSION);
        return EXIT_FINE;
    }
    if (strcmp(name, "--man") == 0)
        return manual(argc > 2 ? argv[2] : NULL);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        const cli_verb *verb = find(argc > 2 ? argv[2] : NULL);
        if (verb)
            cli_help(verb, stdout);
        else
            help(stdout);
        return EXIT_FINE;
    }
    const cli_verb *verb = find(name);
    if (!verb) {
        fprintf(stderr, "klaw: there is no verb '%.40s'; klaw --help lists them\n", name);
        return EXIT_USAGE;
    }
    static char called[48]; /* getopt begins its complaints with it */
    snprintf(called, sizeof called, "klaw %s", name);
    argv[1] = called;
    return verb->run(argc - 1, argv + 1);
}

/* A standard descriptor that was closed must not become a socket. What is written there fails, and is told. */
static void fill_descriptors(void) {
    for (int fd = 0; fd <= 2;)
        if (fcntl(fd, F_GETFD) >= 0)
            fd++;
        else if (open("/dev/null", O_RDONLY) < 0)
            return;
}

int main(int argc, char **argv) {
    fill_descriptors();
    /* Names are UTF-8 wherever we run. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8");
    cli_colour_begin();
    return cli_end(run(argc, argv));
}
