/* SPDX-License-Identifier: Apache-2.0 */
/* completion.c - scripts for bash, zsh and fish, made from the table of verbs.
 *
 * Processes are offered by asking `klaw ps --quiet`, which prints one number a line. */
#include <string.h>

#include "cli.h"

static void list_verbs(FILE *out) {
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        fprintf(out, "%s%s", v == cli_verbs ? "" : " ", (*v)->name);
}

/* A text in single quotes. */
static void quoted(FILE *out, const char *text, bool brackets) {
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (brackets && strchr("[]:\\", *text))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
    fputc('\'', out);
}

static void bash(FILE *out) {
    fputs("# bash completion of klaw; made by `klaw completion bash`.\n"
          "_klaw() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} "
          "verb=${COMP_WORDS[1]}\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    list_verbs(out);
    fputs(" --help --version' -- \"$cur\"))\n        return\n    fi\n"
          "    local options= words=\n    case $verb in\n",
          out);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(out, "        %s)\n            case $prev in\n", (*v)->name);
        for (const cli_option *o = (*v)->options; o && o->name; o++) {
            if (!o->arg)
                continue;
            fprintf(out, "                --%s", o->name);
            if (o->id < 256)
                fprintf(out, "|-%c", o->id);
            if (o->values && strcmp(o->values, "FILE") == 0)
                fputs(") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", out);
            else
                fprintf(out, ") COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                        o->values ? o->values : "");
        }
        fputs("            esac\n            options='--help", out);
        for (const cli_option *o = (*v)->options; o && o->name; o++)
            fprintf(out, " --%s", o->name);
        fputs("'\n", out);
        if ((*v)->words && strcmp((*v)->words, "PID") == 0)
            fputs("            words=$(klaw ps --quiet 2>/dev/null)\n", out);
        else if ((*v)->words && strcmp((*v)->words, "FILE") == 0)
            fputs("            [ \"${cur#-}\" != \"$cur\" ] || { COMPREPLY=($(compgen -f -- "
                  "\"$cur\")); "
                  "return; }\n",
                  out);
        else if ((*v)->words)
            fprintf(out, "            words='%s'\n", (*v)->words);
        fputs("            ;;\n", out);
    }
    fputs("    esac\n"
          "    if [ \"${cur#-}\" != \"$cur\" ]; then words=$options; fi\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "}\ncomplete -F _klaw klaw\n",
          out);
}

static void zsh(FILE *out) {
    fputs("#compdef klaw\n# zsh completion of klaw; made by `klaw completion zsh`.\n"
          "_klaw_pids() { local -a pids; pids=(${(f)\"$(klaw ps --quiet 2>/dev/null)\"}); "
          "compadd -a pids }\n"
          "_klaw() {\n    local line state\n"
          "    _arguments -C '(- *)--help[explain]' '(- *)--version[which klaw this is]' '1: "
          ":->verb' "
          "'*:: :->rest'\n"
          "    case $state in\n    verb)\n        local -a verbs\n        verbs=(\n",
          out);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        char text[200];
        snprintf(text, sizeof text, "%s:%s", (*v)->name, (*v)->summary);
        fputs("            ", out);
        quoted(out, text, false);
        fputc('\n', out);
    }
    fputs("        )\n        _describe verb verbs ;;\n    rest)\n        case $line[1] in\n", out);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(out, "        %s) _arguments '--help[explain]'", (*v)->name);
        for (const cli_option *o = (*v)->options; o && o->name; o++) {
            const char *values = o->values;
            fprintf(out, " \\\n            '--%s'", o->name);
            fputs("'[", out);
            for (const char *p = o->help; *p; p++)
                if (*p == '\'')
                    fputs("'\\''", out);
                else
                    fprintf(out, strchr("[]:\\", *p) ? "\\%c" : "%c", *p);
            fputs("]'", out);
            if (o->arg && values && strcmp(values, "FILE") == 0)
                fprintf(out, "':%s:_files'", o->arg);
            else if (o->arg)
                fprintf(out, "':%s:(%s)'", o->arg, values ? values : "");
        }
        const char *words = (*v)->words;
        if (words && strcmp(words, "PID") == 0)
            fputs(" \\\n            '*:process:_klaw_pids'", out);
        else if (words && strcmp(words, "FILE") == 0)
            fputs(" \\\n            '*:file:_files'", out);
        else if (words)
            fprintf(out, " \\\n            '*: :(%s)'", words);
        fputs(" ;;\n", out);
    }
    fputs("        esac ;;\n    esac\n}\n_klaw \"$@\"\n", out);
}

static void fish(FILE *out) {
    fputs("# fish completion of klaw; made by `klaw completion fish`.\ncomplete -c klaw -f\n"
          "complete -c klaw -l help -s h -d 'explain'\n"
          "complete -c klaw -n __fish_use_subcommand -l version -d 'which klaw this is'\n",
          out);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        const char *name = (*v)->name, *words = (*v)->words;
        fprintf(out, "complete -c klaw -n __fish_use_subcommand -a %s -d ", name);
        quoted(out, (*v)->summary, false);
        fputc('\n', out);
        for (const cli_option *o = (*v)->options; o && o->name; o++) {
            fprintf(out, "complete -c klaw -n '__fish_seen_subcommand_from %s' -l %s", name,
                    o->name);
            if (o->id < 256)
                fprintf(out, " -s %c", o->id);
            if (o->arg && o->values && strcmp(o->values, "FILE") == 0)
                fputs(" -r -F", out);
            else if (o->arg)
                fprintf(out, " -x -a '%s'", o->values ? o->values : "");
            fputs(" -d ", out);
            quoted(out, o->help, false);
            fputc('\n', out);
        }
        if (words && strcmp(words, "PID") == 0)
            fprintf(out,
                    "complete -c klaw -n '__fish_seen_subcommand_from %s' -a '(klaw ps --quiet)'\n",
                    name);
        else if (words && strcmp(words, "FILE") == 0)
            fprintf(out, "complete -c klaw -n '__fish_seen_subcommand_from %s' -F\n", name);
        else if (words)
            fprintf(out, "complete -c klaw -n '__fish_seen_subcommand_from %s' -a '%s'\n", name,
                    words);
    }
}

bool cli_completion(const char *shell, FILE *out) {
    if (strcmp(shell, "bash") == 0)
        bash(out);
    else if (strcmp(shell, "zsh") == 0)
        zsh(out);
    else if (strcmp(shell, "fish") == 0)
        fish(out);
    else
        return false;
    return true;
}
