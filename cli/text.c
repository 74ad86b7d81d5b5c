/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - numbers, times and names for people.
 *
 * Names come from other processes: what could move a terminal's cursor does not get through. */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cli.h"

static bool colours;

void cli_colour_begin(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    colours = isatty(STDOUT_FILENO) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

const char *cli_colour(enum cli_colour c) {
    static const char *const codes[] = {"\033[0m",  "\033[1m",  "\033[2m", "\033[31m",
                                        "\033[32m", "\033[33m", "\033[36m"};
    return colours ? codes[c] : "";
}

void cli_duration(char *text, size_t size, int64_t ns) {
    int64_t s = ns / 1000000000;
    if (ns < 0)
        snprintf(text, size, "-");
    else if (ns < 1000000)
        snprintf(text, size, "%" PRId64 " us", ns / 1000);
    else if (s < 1)
        snprintf(text, size, "%" PRId64 " ms", ns / 1000000);
    else if (s < 60)
        snprintf(text, size, "%" PRId64 ".%" PRId64 " s", s, ns % 1000000000 / 100000000);
    else if (s < 3600)
        snprintf(text, size, "%" PRId64 " min %02" PRId64 " s", s / 60, s % 60);
    else
        snprintf(text, size, "%" PRId64 " h %02" PRId64 " min", s / 3600, s % 3600 / 60);
}

void cli_count(char *text, size_t size, double n) {
    static const char units[] = " kMGTPE";
    int unit = 0;
    if (n < 1000 && n == (double)(int64_t)n) {
        snprintf(text, size, "%d", (int)n);
        return;
    }
    while (n >= 999.95 && unit < 6) {
        n /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(text, size, "%.1f", n);
    else
        snprintf(text, size, n < 99.95 ? "%.1f%c" : "%.0f%c", n, units[unit]);
}

bool cli_parse_duration(const char *text, int64_t *ns) {
    static const struct {
        const char *name;
        double scale;
    } units[] = {{"", 1e9},   {"s", 1e9},    {"ms", 1e6},  {"us", 1e3},
                 {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}};
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    double n = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].name) == 0) {
            n *= units[i].scale;
            if (n > 9e18)
                return false;
            *ns = (int64_t)n;
            return true;
        }
    return false;
}

size_t cli_clean(char *out, size_t size, const char *text, size_t width) {
    size_t columns = 0, at = 0, cut_at = 0;
    mbstate_t state = {0};
    while (*text && at + 8 < size) {
        wchar_t c;
        size_t n = mbrtowc(&c, text, strlen(text), &state);
        int w = n == 0 || n > 6 ? -1 : wcwidth(c);
        if (n == 0 || n > 6) {
            n = 1;
            memset(&state, 0, sizeof state);
        }
        if (columns + (size_t)(w < 0 ? 1 : w) > width) {
            /* Room for the ellipsis. */
            at = cut_at;
            memcpy(out + at, width > 1 ? "\xe2\x80\xa6" : "", width > 1 ? 3 : 0);
            out[at + (width > 1 ? 3 : 0)] = 0;
            return width > 1 ? columns : 0;
        }
        if (w < 0)
            out[at++] = '?';
        else {
            memcpy(out + at, text, n);
            at += n;
        }
        columns += (size_t)(w < 0 ? 1 : w);
        if (columns + 1 <= width)
            cut_at = at;
        text += n;
    }
    out[at] = 0;
    return columns;
}

void cli_put(FILE *out, const char *text, size_t width, bool pad) {
    char clean[1024];
    size_t columns = cli_clean(clean, sizeof clean, text, width);
    fputs(clean, out);
    for (; pad && columns < width; columns++)
        fputc(' ', out);
}
