/* SPDX-License-Identifier: Apache-2.0 */
/* verb.c - from a verb's table: its options, --help, its page of the manual. */
#include <errno.h>
#include <getopt.h>
#include <klaw/klaw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define OPTIONS_MAX 40
#define HELP_COLUMNS 92

static const char common_exits[] =
    "0 all is well; 1 something was found or failed; 2 wrong usage; 3 no answer.";

int cli_next(const cli_verb *verb, int argc, char **argv, const char **value) {
    static struct option longs[OPTIONS_MAX + 2];
    static char shorts[3 * OPTIONS_MAX + 4];
    static const cli_verb *made;
    if (made != verb) {
        size_t n = 0, at = 0;
        shorts[at++] = 'h';
        for (const cli_option *o = verb->options; o && o->name && n < OPTIONS_MAX; o++) {
            longs[n++] =
                (struct option){o->name, o->arg ? required_argument : no_argument, NULL, o->id};
            if (o->id < 256) {
                shorts[at++] = (char)o->id;
                if (o->arg)
                    shorts[at++] = ':';
            }
        }
        longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
        longs[n] = (struct option){0};
        shorts[at] = 0;
        made = verb;
    }
    int id = getopt_long(argc, argv, shorts, longs, NULL);
    *value = optarg;
    if (id == 'h') {
        cli_help(verb, stdout);
        return 0;
    }
    if (id == '?')
        fprintf(stderr, "klaw %s: --help explains\n", verb->name);
    return id;
}

int cli_usage(const cli_verb *verb, const char *format, ...) {
    va_list ap;
    fprintf(stderr, "klaw %s: ", verb->name);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputs("; --help explains\n", stderr);
    return EXIT_USAGE;
}

int cli_end(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    if (errno != EPIPE) /* `| head` is no trouble */
        fputs("klaw: the output could not be written\n", stderr);
    return code ? code : EXIT_TROUBLE;
}

/* ---- help ---- */

/* Wraps a paragraph that begins at column `at`, further lines indented by `indent`. */
static void wrap(FILE *out, const char *text, size_t at, size_t indent) {
    size_t columns = at;
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (columns > indent && columns + 1 + n > HELP_COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            columns = indent;
        } else if (columns > indent) {
            fputc(' ', out);
            columns++;
        }
        fwrite(text, 1, n, out);
        columns += n;
        text += n;
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n\n%*s", (int)indent, "");
            columns = indent;
        }
        text += strspn(text, " \n");
    }
    fputc('\n', out);
}

static void option_text(const cli_option *o, char *text, size_t size) {
    char letter[8] = "    ";
    if (o->id < 256)
        snprintf(letter, sizeof letter, "-%c, ", o->id);
    snprintf(text, size, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void put_options(const cli_option *options, FILE *out) {
    static const cli_option help = {"help", 'h', NULL, "this text", NULL};
    for (const cli_option *o = options;; o++) {
        char text[64];
        bool last = !o || !o->name;
        if (last)
            o = &help;
        option_text(o, text, sizeof text);
        int n = fprintf(out, "  %-26s ", text);
        if (n > 29) {
            fprintf(out, "\n%29s", "");
            n = 29;
        }
        wrap(out, o->help, (size_t)n, 29);
        if (last)
            break;
    }
}

static void put_examples(const char *text, FILE *out) {
    while (text && *text) {
        size_t line = strcspn(text, "\n"), tab = strcspn(text, "\t");
        fprintf(out, "  %-44.*s  %.*s\n", (int)tab, text, (int)(line - tab - 1), text + tab + 1);
        text += line + (text[line] == '\n');
    }
}

void cli_help(const cli_verb *v, FILE *out) {
    for (const char *const *u = v->usage; *u; u++)
        fprintf(out, "%s klaw %s %s\n", u == v->usage ? "usage:" : "      ", v->name, *u);
    fputc('\n', out);
    wrap(out, v->about, 0, 0);
    fputc('\n', out);
    put_options(v->options, out);
    if (v->examples) {
        fputs("\nExamples:\n", out);
        put_examples(v->examples, out);
    }
    fputs("\nExit status:", out);
    wrap(out, v->exits ? v->exits : common_exits, 12, 0);
}

/* ---- the manual ---- */

/* Text in roff: backslashes and dashes as they are, no line that looks like a request. */
static void roff(FILE *out, const char *text) {
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        start = false;
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            text++;
            start = true;
        } else
            fputc(*text, out);
    }
    fputc('\n', out);
}

static void man_examples(const char *text, FILE *out) {
    while (text && *text) {
        char command[160], what[200];
        size_t line = strcspn(text, "\n"), tab = strcspn(text, "\t");
        snprintf(command, sizeof command, "%.*s", (int)tab, text);
        snprintf(what, sizeof what, "%.*s", (int)(line - tab - 1), text + tab + 1);
        fputs(".TP\n.B ", out);
        roff(out, command);
        roff(out, what);
        text += line + (text[line] == '\n');
    }
}

static void man_verb(const cli_verb *v, FILE *out) {
    fprintf(out,
            ".TH KLAW\\-%s 1 \"\" \"klaw " KLAW_VERSION "\" \"klaw\"\n.SH NAME\nklaw\\-%s \\- ",
            v->name, v->name);
    roff(out, v->summary);
    fputs(".SH SYNOPSIS\n", out);
    for (const char *const *u = v->usage; *u; u++) {
        if (u > v->usage)
            fputs(".br\n", out);
        fprintf(out, ".B klaw %s\n", v->name);
        roff(out, *u);
    }
    fputs(".SH DESCRIPTION\n", out);
    roff(out, v->about);
    fputs(".SH OPTIONS\n", out);
    for (const cli_option *o = v->options; o && o->name; o++) {
        char text[64];
        option_text(o, text, sizeof text);
        fputs(".TP\n.B ", out);
        roff(out, text + strspn(text, " "));
        roff(out, o->help);
    }
    if (v->examples) {
        fputs(".SH EXAMPLES\n", out);
        man_examples(v->examples, out);
    }
    fputs(".SH EXIT STATUS\n", out);
    roff(out, v->exits ? v->exits : common_exits);
    fputs(".SH SEE ALSO\n.BR klaw (1)\n", out);
}

void cli_man(const cli_verb *verb, FILE *out) {
    if (verb) {
        man_verb(verb, out);
        return;
    }
    fputs(".TH KLAW 1 \"\" \"klaw " KLAW_VERSION "\" \"klaw\"\n.SH NAME\n"
          "klaw \\- look into running klaw programs, and run jobs that resume\n"
          ".SH SYNOPSIS\n.B klaw\n.I VERB\n[options] [arguments]\n.SH DESCRIPTION\n"
          "A program that uses klaw, in C or in Python, answers this command when it was started\n"
          "with\n.B KLAW_INSPECT=1\nin its environment, or has opened itself. It does so on a Unix "
          "socket\n"
          "of its user; no port is opened.\n.SH VERBS\n",
          out);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(out, ".TP\n.BR klaw\\-%s (1)\n", (*v)->name);
        roff(out, (*v)->summary);
    }
    fputs(".SH ENVIRONMENT\n.TP\n.B KLAW_INSPECT\n1: a program opens itself to inspection.\n"
          ".TP\n.B XDG_RUNTIME_DIR\nWhere the sockets are: its folder klaw; without it\n"
          ".I /tmp/klaw\\-UID\\fR.\n.TP\n.B KLAW_CHECKPOINT_PATH\nThe folder of stores.\n"
          ".TP\n.B NO_COLOR\nNo colours.\n.SH EXIT STATUS\n",
          out);
    roff(out, common_exits);
}
