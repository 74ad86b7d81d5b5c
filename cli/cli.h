/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h - what the files of the klaw command share: verbs, their options and help, exit codes, text for
 * people.
 *
 * A verb is a table entry: from its texts and options come --help, the man page, the shells' completion
 * and getopt's tables, so none of them can be wrong about another. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes of every verb; those of run-jobs are the same. */
enum {
    EXIT_FINE = 0,
    EXIT_FOUND = 1,   /* doctor found something, commands of a run failed, nothing to do it to */
    EXIT_USAGE = 2,   /* the command line is wrong, or names what is not there */
    EXIT_TROUBLE = 3, /* no process, no answer, no store */
};

/* ---- verbs ---- */

typedef struct cli_option {
    const char *name; /* long; NULL ends the table */
    int id;           /* the letter, or over 255 when there is none */
    const char *arg;  /* what its argument is called; NULL: it takes none */
    const char *help;
    const char *values; /* for completion: words, "FILE", or NULL */
} cli_option;

typedef struct cli_verb {
    const char *name;
    const char *const *usage; /* without "klaw NAME"; ended by NULL */
    const char *summary;      /* one line */
    const char *about;        /* paragraphs, separated by empty lines */
    const cli_option *options;
    const char *examples; /* lines "command\twhat it does" */
    const char *exits;    /* sentences; NULL: the common ones */
    const char *words;    /* for completion: what the arguments may be; "PID" for processes */
    int (*run)(int argc, char **argv);
} cli_verb;

/* All of them, ended by a NULL name (main.c). */
extern const cli_verb *const cli_verbs[];

/* The next option of argv (getopt_long over the verb's table): its id with *value set; -1 at the end,
 * optind is the first argument; 0: --help was asked for and given (exit with FINE); '?': wrong and
 * told (exit with USAGE). */
int cli_next(const cli_verb *verb, int argc, char **argv, const char **value);
/* "klaw VERB: text; --help explains"; EXIT_USAGE. */
int cli_usage(const cli_verb *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_help(const cli_verb *verb, FILE *out);
/* A page of the manual in roff; NULL: of the command as a whole. */
void cli_man(const cli_verb *verb, FILE *out);
/* The completion script of a shell ("bash", "zsh", "fish"); false: no such shell. */
bool cli_completion(const char *shell, FILE *out);
/* Whether stdout went through; tells when it did not. The verb's exit code, or TROUBLE. */
int cli_end(int code);

/* ---- text.c ---- */

enum cli_colour { CLI_PLAIN, CLI_BOLD, CLI_DIM, CLI_RED, CLI_GREEN, CLI_YELLOW, CLI_CYAN };
/* Decides whether stdout gets colours: a terminal, no NO_COLOR, no TERM=dumb. */
void cli_colour_begin(void);
/* The sequence that begins a colour, "" without colours. CLI_PLAIN ends all. */
const char *cli_colour(enum cli_colour c);

/* "1.2 s", "340 ms", "2 h 05 min"; "-" for a negative one. */
void cli_duration(char *text, size_t size, int64_t ns);
/* "12", "3.4k", "5.0M": at most five columns. */
void cli_count(char *text, size_t size, double n);
/* Reads "500ms", "2s", "5m", "1h"; a bare number is seconds. False: it is not one. */
bool cli_parse_duration(const char *text, int64_t *ns);
/* Copies text for a terminal: control characters and what is not UTF-8 become '?', cut to `width`
 * columns with an ellipsis. Returns the columns. */
size_t cli_clean(char *out, size_t size, const char *text, size_t width);
/* The same, printed, filled up with blanks to `width` columns when pad is set. */
void cli_put(FILE *out, const char *text, size_t width, bool pad);

#endif
