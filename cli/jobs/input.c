/* SPDX-License-Identifier: Apache-2.0 */
/* input.c - the commands, and their names as steps.
 *
 * A step is called as its command, so that a result stays with its command when lines are added or
 * moved (--allow-changes). Names are short and have no control characters: a command that has
 * is cut or cleaned and gets a hash of the whole. The same command again gets its ordinal. */
#include "jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP_TEXT 200        /* bytes of the command in the name */
#define ORDINAL " \xc2\xb7 " /* " · 2"; a command with this dot in it gets a hash */

char *input_read(const char *file, size_t *size) {
    bool standard = strcmp(file, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    size_t room = 1 << 16;
    char *text = malloc(room);
    ssize_t n = -1;
    *size = 0;
    while (text && fd >= 0 &&
           ((n = read(fd, text + *size, room - 1 - *size)) > 0 || errno == EINTR)) {
        *size += n > 0 ? (size_t)n : 0;
        if (n == 0)
            break;
        if (*size == room - 1) {
            char *bigger = realloc(text, room *= 2);
            if (!bigger)
                free(text);
            text = bigger;
        }
    }
    if (!text || n < 0) {
        fprintf(stderr, "klaw run-jobs: %s: %s\n", standard ? "stdin" : file,
                strerror(text ? errno : ENOMEM));
        free(text);
        text = NULL;
    } else {
        text[*size] = 0;
    }
    if (fd > STDIN_FILENO)
        close(fd);
    return text;
}

static uint64_t hash_text(const char *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        h = (h ^ *p) * 0x100000001b3u;
    return h;
}

static char *step_name(const char *text) {
    size_t size = strlen(text);
    char *name = malloc(STEP_TEXT + 64);
    if (!name)
        return NULL;
    bool altered = size > STEP_TEXT || strstr(text, ORDINAL) != NULL;
    size_t n = size < STEP_TEXT ? size : STEP_TEXT;
    while (n < size && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a character */
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        name[i] = c < 0x20 || c == 0x7f ? ' ' : text[i];
        altered |= name[i] != text[i];
    }
    name[n] = 0;
    if (altered)
        snprintf(name + n, 64, " #%016" PRIx64, hash_text(text));
    return name;
}

static int by_step(const void *left, const void *right) {
    const command *a = *(const command *const *)left;
    const command *b = *(const command *const *)right;
    int order = strcmp(a->step, b->step);
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

/* "make", "make · 2", "make · 3". */
static bool number_repeats(commands *c) {
    command **order = malloc((c->n + 1) * sizeof(command *));
    if (!order)
        return false;
    for (size_t i = 0; i < c->n; i++)
        order[i] = &c->list[i];
    qsort(order, c->n, sizeof *order, by_step);
    for (size_t first = 0, next; first < c->n; first = next) {
        for (next = first + 1; next < c->n; next++) {
            char *name = order[next]->step;
            if (strcmp(order[first]->step, name) != 0)
                break;
            snprintf(name + strlen(name), 40, ORDINAL "%zu", next - first + 1);
        }
    }
    free(order);
    return true;
}

static bool add_line(commands *c, size_t *room, char *line) {
    char *begin = line + strspn(line, " \t");
    size_t size = strlen(begin);
    while (size > 0 && strchr(" \t\r", begin[size - 1]))
        size--;
    begin[size] = 0;
    if (size == 0 || *begin == '#')
        return true;
    if (c->n == *room) {
        *room = *room ? *room * 2 : 64;
        command *bigger = realloc(c->list, *room * sizeof *bigger);
        if (!bigger)
            return false;
        c->list = bigger;
    }
    command *added = &c->list[c->n];
    *added = (command){.text = begin, .step = step_name(begin), .number = c->n + 1};
    c->n += added->step != NULL;
    return added->step != NULL;
}

bool commands_parse(char *text, size_t size, commands *out) {
    size_t room = 0;
    const char *why = NULL;
    *out = (commands){.text = text};
    if (memchr(text, 0, size))
        why = "the commands contain a NUL byte";
    for (char *line = text; !why && line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = 0;
        if (!add_line(out, &room, line))
            why = klaw_err_text(KLAW_NOMEM);
        line = end;
    }
    if (!why && out->n == 0)
        why = "there are no commands";
    if (!why && !number_repeats(out))
        why = klaw_err_text(KLAW_NOMEM);
    if (!why)
        return true;
    fprintf(stderr, "klaw run-jobs: %s\n", why);
    commands_free(out);
    return false;
}

void commands_free(commands *c) {
    for (size_t i = 0; i < c->n; i++)
        free(c->list[i].step);
    free(c->list);
    free(c->text);
    *c = (commands){0};
}
