/* SPDX-License-Identifier: Apache-2.0 */
/* top.c - klaw top: a live view of one process.
 *
 * One loop: look when it is time, draw, wait for a key until the next look. A look may take its time (the
 * process is busy, the snapshot large); keys are served between looks. What is selected is kept by
 * its number, not by its place. Without a terminal one frame is printed. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../verbs.h"
#include "screen.h"
#include "view.h"

#define FILTER_MAX 40
#define PAGE_LINES 4000

static const char *const usage[] = {"[options] [PID | NAME]", NULL};
static const cli_option options[] = {
    {"every", 'e', "T", "look so often (1s)", "500ms 1s 2s 5s"},
    {"view", 'v', "NAME", "begin with channels, fibers, tasks, actors, tree or executors",
     "channels fibers tasks actors tree executors"},
    {"sort", 's', "COLUMN", "by this column's title", ""},
    {"reverse", 'r', NULL, "the other way round", NULL},
    {"filter", 'f', "TEXT", "only rows with TEXT in their name, or this number", ""},
    {"once", '1', NULL, "two looks, one frame, without taking the terminal; so it is in a pipe",
     NULL},
    {"lines", 'n', "N", "with --once: at most N rows (40)", ""},
    {0},
};
const cli_verb cli_top = {
    .name = "top",
    .usage = usage,
    .summary = "a live view of a process",
    .about = "Shows what is alive in a process: channels with depth, rates, high watermark, who "
             "waits and the age of the oldest element; fibers and what they wait for; tasks; "
             "actors with "
             "mailbox and restarts; what supervisors keep; executors.\n\n"
             "Keys: 1 to 6, Tab: another view. Arrows, Page, Home, End: move. Enter: all about "
             "one; Escape: "
             "back. < and >: sort by another column; r: the other way round. /: filter; Escape "
             "ends it. p: "
             "pause. + and -: look more and less often. o: another process. h: help. q: end.\n\n"
             "Rates are of the time since the look before. Oldest: at least so old is the oldest "
             "element.",
    .options = options,
    .examples = "klaw top\tthe only process, or a list to choose from\n"
                "klaw top --view actors --sort mailbox server\twho has most to do\n"
                "klaw top --once --view channels | head\tfor scripts and mails",
    .exits = "0 it was ended by q or Ctrl-C; 2 wrong usage; 3 no process, or it does not answer.",
    .words = "PID",
    .run = cli_run_top,
};

enum mode { MODE_TABLE, MODE_PAGE, MODE_HELP, MODE_PROCESSES };

struct top {
    cli_link link;
    char program[64];
    cli_looks looks;
    cli_snapshot *now, *before;
    cli_stats stats, stats_before;
    enum mode mode;
    size_t view, sort, selected, scroll; /* scroll: the first row or line seen */
    uint64_t selected_id;                /* of the row; of the page */
    bool reverse, paused, typing, has_selected;
    int64_t every, next; /* ns */
    char filter[FILTER_MAX + 1];
    char message[208];
    cli_row *rows;
    size_t n_rows, height; /* height: rows that fit */
    cli_process *processes;
    size_t n_processes;
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static const cli_view *view(const struct top *t) {
    return cli_views[t->view];
}

/* ---- looking ---- */

static void set_view(struct top *t, size_t index) {
    t->view = index;
    t->sort = cli_views[index]->sort;
    t->reverse = false;
    t->selected = t->scroll = 0;
    t->has_selected = false;
}

static void find_rows(struct top *t) {
    free(t->rows);
    t->rows =
        t->now ? cli_rows(view(t), &t->looks, t->filter, t->sort, t->reverse, &t->n_rows) : NULL;
    if (!t->rows)
        t->n_rows = 0;
    if (t->has_selected)
        for (size_t i = 0; i < t->n_rows; i++)
            if (t->rows[i].id == t->selected_id)
                t->selected = i;
    if (t->selected >= t->n_rows)
        t->selected = t->n_rows ? t->n_rows - 1 : 0;
}

static bool look(struct top *t) {
    size_t size;
    cli_stats stats;
    char *text = cli_ask(&t->link, "stats", &size);
    cli_snapshot *s = text ? cli_look(&t->link) : NULL;
    bool ok = s && cli_stats_parse(text, size, &stats);
    free(text);
    if (!ok) {
        cli_snapshot_free(s);
        snprintf(t->message, sizeof t->message, "%s", t->link.why);
        return false;
    }
    *t->message = 0;
    cli_snapshot_free(t->before);
    t->before = t->now;
    t->now = s;
    t->stats_before = t->before ? t->stats : stats;
    t->stats = stats;
    snprintf(t->program, sizeof t->program, "%s", stats.program);
    t->looks = (cli_looks){t->now, t->before,
                           t->before ? (double)(t->now->time - t->before->time) / 1e9 : 0};
    find_rows(t);
    return true;
}

static void forget(struct top *t) {
    cli_link_close(&t->link);
    cli_snapshot_free(t->now);
    cli_snapshot_free(t->before);
    t->now = t->before = NULL;
    t->looks = (cli_looks){0};
    free(t->rows);
    t->rows = NULL;
    t->n_rows = 0;
}

static bool list_processes(struct top *t) {
    free(t->processes);
    t->processes = NULL;
    t->n_processes = 0;
    if (!cli_processes(&t->processes, &t->n_processes))
        return false;
    t->mode = MODE_PROCESSES;
    t->selected = t->scroll = 0;
    return true;
}

/* ---- drawing ---- */

static void put_cells(const struct top *t, const cli_row *r, FILE *out, size_t columns) {
    const cli_view *v = view(t);
    size_t fixed = 0, rest;
    for (size_t c = 0; c < v->n_columns; c++)
        fixed += (size_t)v->columns[c].width + 1;
    rest = columns > fixed + 8 ? columns - fixed : 8;
    size_t at = 0;
    for (size_t c = 0; c < v->n_columns && at < columns; c++) {
        const cli_column *column = &v->columns[c];
        size_t width = column->width ? (size_t)column->width : rest;
        char text[256], clean[256];
        if (at + width > columns)
            width = columns - at;
        if (r)
            v->cell(&t->looks, r->index, c, text, sizeof text);
        else
            snprintf(text, sizeof text, "%s%s", column->title,
                     c == t->sort ? t->reverse ? "^" : "v" : "");
        size_t used = cli_clean(clean, sizeof clean, text, width);
        if (!column->left)
            fprintf(out, "%*s", (int)(width - used), "");
        fputs(clean, out);
        if (column->left)
            fprintf(out, "%*s", (int)(width - used), "");
        at += width;
        if (at < columns) {
            fputc(' ', out);
            at++;
        }
    }
}

static void put_head(const struct top *t, FILE *out, size_t columns, void (*end)(FILE *)) {
    char line[512], turns[16], sent[16], handled[16], every[32], clock[16] = "";
    const cli_snapshot *s = t->now;
    double seconds = t->looks.seconds > 0 ? t->looks.seconds : 1;
    size_t running = 0, asleep = 0;
    time_t wall = (time_t)(s ? s->time / 1000000000 : 0);
    struct tm tm;
    if (localtime_r(&wall, &tm))
        strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    cli_duration(every, sizeof every, t->every);
    snprintf(line, sizeof line, "klaw top - %ld %s   %s   every %s%s%s", t->link.process.pid,
             t->program, clock, every, t->paused ? "   PAUSED" : "",
             s && s->truncated ? "   (not all could be seen)" : "");
    fputs(cli_colour(CLI_BOLD), out);
    cli_put(out, line, columns, false);
    fputs(cli_colour(CLI_PLAIN), out);
    end(out);
    for (size_t i = 0; s && i < s->n_fibers; i++)
        running +=
            s->fibers[i].state == KLAW_FIBER_RUNNING || s->fibers[i].state == KLAW_FIBER_RUNNABLE;
    for (size_t i = 0; s && i < s->n_workers; i++)
        asleep += s->workers[i].sleeping;
    cli_count(turns, sizeof turns, (double)(t->stats.turns - t->stats_before.turns) / seconds);
    cli_count(sent, sizeof sent,
              t->stats.total_sent >= t->stats_before.total_sent
                  ? (double)(t->stats.total_sent - t->stats_before.total_sent) / seconds
                  : 0);
    cli_count(handled, sizeof handled,
              t->stats.handled >= t->stats_before.handled
                  ? (double)(t->stats.handled - t->stats_before.handled) / seconds
                  : 0);
    snprintf(line, sizeof line,
             "workers %" PRIu64 " (%zu asleep)  turns %s/s  fibers %" PRIu64
             " (%zu ready)  channels %" PRIu64 ": %s/s, %" PRIu64 " queued  actors %" PRIu64
             ": %s/s  restarts %" PRIu64,
             t->stats.workers, asleep, turns, t->stats.fibers, running, t->stats.channels, sent,
             t->stats.queued, t->stats.actors, handled, t->stats.restarts);
    cli_put(out, line, columns, false);
    end(out);
    size_t at = 0;
    for (size_t i = 0; cli_views[i]; i++) {
        char tab[40];
        int n = snprintf(tab, sizeof tab, " %zu %s %zu ", i + 1, cli_views[i]->name,
                         s ? cli_views[i]->count(s) : 0);
        if (at + (size_t)n > columns)
            break;
        bool here = i == t->view;
        fprintf(out, "%s%s%s", here ? *cli_colour(CLI_BOLD) ? "\033[7m" : "[" : "", tab,
                here ? *cli_colour(CLI_BOLD) ? "\033[27m" : "]" : "");
        at += (size_t)n;
    }
    if (*t->filter || t->typing)
        fprintf(out, "  /%s%s", t->filter, t->typing ? "_" : "");
    end(out);
}

static void newline(FILE *out) {
    fputc('\n', out);
}

static void draw_table(struct top *t, FILE *out, size_t rows, size_t columns) {
    put_head(t, out, columns, screen_line);
    fputs("\033[7m", out);
    put_cells(t, NULL, out, columns);
    screen_line(out);
    t->height = rows > 6 ? rows - 5 : 1;
    if (t->selected < t->scroll)
        t->scroll = t->selected;
    if (t->selected >= t->scroll + t->height)
        t->scroll = t->selected + 1 - t->height;
    for (size_t i = 0; i < t->height; i++) {
        size_t k = t->scroll + i;
        if (k < t->n_rows) {
            fputs(k == t->selected ? "\033[7m"
                                   : cli_colour(view(t)->colour(&t->looks, t->rows[k].index)),
                  out);
            put_cells(t, &t->rows[k], out, columns);
        }
        screen_line(out);
    }
}

/* The page's text is made whole; what is seen of it is cut out. */
static void draw_page(struct top *t, FILE *out, size_t rows, size_t columns) {
    char *text = NULL;
    size_t size = 0, line = 0, index = SIZE_MAX;
    FILE *page = open_memstream(&text, &size);
    for (size_t i = 0; t->now && i < view(t)->count(t->now); i++)
        if (view(t)->id(t->now, i) == t->selected_id)
            index = i;
    if (page) {
        if (index == SIZE_MAX)
            fputs("it is not there any more; Escape goes back\n", page);
        else
            view(t)->page(&t->looks, index, page);
        if (fclose(page) != 0)
            size = 0;
    }
    put_head(t, out, columns, screen_line);
    t->height = rows > 5 ? rows - 4 : 1;
    size_t lines = 0;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (t->scroll + t->height > lines)
        t->scroll = lines > t->height ? lines - t->height : 0;
    char *p = text;
    for (; p && *p && line < t->scroll + t->height && line < PAGE_LINES; line++) {
        char *end = strchr(p, '\n');
        if (end)
            *end = 0;
        if (line >= t->scroll) {
            cli_put(out, p, columns, false);
            screen_line(out);
        }
        p = end ? end + 1 : NULL;
    }
    for (; line < t->scroll + t->height; line++)
        screen_line(out);
    free(text);
}

static void draw_help(FILE *out, size_t columns) {
    static const char *const lines[] = {
        "klaw top",
        "",
        "1 to 6, Tab       channels, fibers, tasks, actors, tree, executors",
        "arrows, j, k      move; Page Up and Down, Home, End",
        "Enter             all about the row",
        "Escape            back; ends a filter",
        "< >               sort by the column to the left, to the right",
        "r                 the other way round",
        "/                 filter: a part of the name, or the number; Enter keeps it",
        "p                 pause",
        "+ -               look more often, less often",
        "o                 another process",
        "q                 end",
        "",
        "sent/s, recv/s and the like are of the time since the look before.",
        "oldest: at least so old is the oldest element of the channel.",
        "Red: full, or failed and about to be restarted. Yellow: was restarted.",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        cli_put(out, lines[i], columns, false);
        screen_line(out);
    }
}

static void draw_processes(struct top *t, FILE *out, size_t rows, size_t columns) {
    fputs("\033[1mklaw top: which process?\033[0m Enter chooses, q ends", out);
    screen_line(out);
    screen_line(out);
    t->height = rows > 4 ? rows - 3 : 1;
    if (t->selected >= t->n_processes)
        t->selected = t->n_processes ? t->n_processes - 1 : 0;
    t->scroll = t->selected >= t->height ? t->selected + 1 - t->height : 0;
    if (t->n_processes == 0) {
        cli_put(out, "none is open to inspection; start one with KLAW_INSPECT=1", columns, false);
        screen_line(out);
    }
    for (size_t i = t->scroll; i < t->n_processes && i < t->scroll + t->height; i++) {
        char path[64], name[256] = "", line[400];
        snprintf(path, sizeof path, "/proc/%ld/cmdline", t->processes[i].pid);
        FILE *f = fopen(path, "re");
        size_t n = f ? fread(name, 1, sizeof name - 1, f) : 0;
        if (f)
            fclose(f);
        for (size_t k = 0; k + 1 < n; k++)
            if (!name[k])
                name[k] = ' ';
        snprintf(line, sizeof line, "%8ld  %s", t->processes[i].pid, name);
        if (i == t->selected)
            fputs("\033[7m", out);
        cli_put(out, line, columns, true);
        screen_line(out);
    }
}

static bool draw(struct top *t) {
    size_t rows, columns;
    FILE *out = screen_frame();
    if (!out)
        return true; /* the next frame may find memory */
    screen_size(&rows, &columns);
    switch (t->mode) {
    case MODE_TABLE: draw_table(t, out, rows, columns); break;
    case MODE_PAGE: draw_page(t, out, rows, columns); break;
    case MODE_HELP: draw_help(out, columns); break;
    case MODE_PROCESSES: draw_processes(t, out, rows, columns); break;
    }
    fprintf(out, "\033[%zuH", rows);
    if (*t->message)
        fputs(cli_colour(CLI_RED), out);
    cli_put(out,
            *t->message ? t->message
            : t->mode == MODE_TABLE
                ? "Enter all about one  / filter  < > sort  r reverse  p pause  "
                  "o process  h help  q end"
                : "Escape back  q end",
            columns > 1 ? columns - 1 : 1, false);
    fputs("\033[0m\033[K", out);
    return screen_show(out);
}

/* ---- keys ---- */

static void select_row(struct top *t, size_t i) {
    t->selected = i;
    t->has_selected = i < t->n_rows;
    if (t->has_selected)
        t->selected_id = t->rows[i].id;
}

static void move(struct top *t, int key) {
    size_t *at = t->mode == MODE_PAGE ? &t->scroll : &t->selected;
    size_t n = t->mode == MODE_PAGE        ? PAGE_LINES
               : t->mode == MODE_PROCESSES ? t->n_processes
                                           : t->n_rows;
    size_t page = t->height > 1 ? t->height - 1 : 1;
    switch (key) {
    case KEY_UP:
    case 'k': *at -= *at > 0; break;
    case KEY_DOWN:
    case 'j': *at += *at + 1 < n; break;
    case KEY_PAGE_UP: *at -= *at < page ? *at : page; break;
    case KEY_PAGE_DOWN: *at = *at + page < n ? *at + page : n ? n - 1 : 0; break;
    case KEY_HOME: *at = 0; break;
    default: *at = n ? n - 1 : 0; break; /* KEY_END */
    }
    if (t->mode == MODE_TABLE)
        select_row(t, t->selected);
}

static void type(struct top *t, int key) {
    size_t n = strlen(t->filter);
    if (key == KEY_ENTER) {
        t->typing = false;
    } else if (key == KEY_ESCAPE) {
        t->typing = false;
        *t->filter = 0;
    } else if (key == KEY_BACKSPACE) {
        while (n > 0 && ((unsigned char)t->filter[--n] & 0xc0) == 0x80)
            ; /* a whole character */
        t->filter[n] = 0;
    } else if (key >= ' ' && key < 0x100 && n < FILTER_MAX) {
        t->filter[n] = (char)key;
        t->filter[n + 1] = 0;
    }
    find_rows(t);
}

static void choose_process(struct top *t) {
    if (t->selected >= t->n_processes)
        return;
    forget(t);
    if (cli_link_open(&t->link, &t->processes[t->selected])) {
        t->mode = MODE_TABLE;
        set_view(t, t->view);
        t->next = 0;
    } else {
        snprintf(t->message, sizeof t->message, "%s", t->link.why);
    }
}

static void sort_by(struct top *t, int step) {
    size_t n = view(t)->n_columns;
    t->sort = (t->sort % (n + 1) + (size_t)((int)n + 1 + step)) % (n + 1);
    if (t->sort == n) /* as they come: only where that says something */
        t->sort = view(t)->sort == n ? n : step > 0 ? 0 : n - 1;
    find_rows(t);
}

static void table_key(struct top *t, int key) {
    size_t views = 0;
    while (cli_views[views])
        views++;
    if (key >= '1' && key < '1' + (int)views) {
        set_view(t, (size_t)(key - '1'));
        find_rows(t);
        return;
    }
    switch (key) {
    case '\t':
    case KEY_RIGHT: set_view(t, (t->view + 1) % views); break;
    case KEY_BACK_TAB:
    case KEY_LEFT: set_view(t, (t->view + views - 1) % views); break;
    case KEY_ENTER:
        if (t->n_rows > 0) {
            select_row(t, t->selected);
            t->mode = MODE_PAGE;
            t->scroll = 0;
        }
        return;
    case '<': sort_by(t, -1); return;
    case '>': sort_by(t, 1); return;
    case 'r': t->reverse = !t->reverse; break;
    case '/': t->typing = true; return;
    case KEY_ESCAPE: *t->filter = 0; break;
    default: return;
    }
    find_rows(t);
}

/* False: the end. */
static bool on_key(struct top *t, int key) {
    if (key == KEY_END_OF_ALL)
        return false;
    if (t->typing && key != KEY_RESIZE) {
        type(t, key);
        return true;
    }
    switch (key) {
    case 'q': return false;
    case 'h':
    case '?': t->mode = t->mode == MODE_HELP ? MODE_TABLE : MODE_HELP; return true;
    case 'p': t->paused = !t->paused; return true;
    case 'o': (void)list_processes(t); return true;
    case '+': t->every = t->every >= 100000000 ? t->every / 2 : t->every; return true;
    case '-': t->every = t->every < 30000000000 ? t->every * 2 : t->every; return true;
    case KEY_UP:
    case KEY_DOWN:
    case 'j':
    case 'k':
    case KEY_PAGE_UP:
    case KEY_PAGE_DOWN:
    case KEY_HOME:
    case KEY_END: move(t, key); return true;
    default: break;
    }
    if (t->mode == MODE_TABLE) {
        table_key(t, key);
    } else if (t->mode == MODE_PROCESSES && key == KEY_ENTER) {
        choose_process(t);
    } else if (key == KEY_ESCAPE || key == KEY_BACKSPACE) {
        t->mode = t->link.fd >= 0 || t->now ? MODE_TABLE : MODE_PROCESSES;
        t->scroll = 0;
    }
    return true;
}

/* ---- the loop ---- */

static int live(struct top *t) {
    if (!screen_begin()) {
        fputs("klaw top: the terminal can't be had\n", stderr);
        return EXIT_TROUBLE;
    }
    for (bool go = true; go;) {
        int64_t now = now_ns();
        if (now >= t->next && !t->paused && t->mode != MODE_PROCESSES) {
            (void)look(t); /* a failure is a message; the next look tries again */
            t->next = now_ns() + (t->before || *t->message ? t->every : t->every / 4);
        }
        if (!draw(t))
            break;
        now = now_ns();
        int64_t rest = t->paused ? 1000000000 : t->next > now ? t->next - now : 0;
        int key = screen_key((int)(rest / 1000000) + 1);
        while (go && key != KEY_NONE) { /* all that were typed meanwhile */
            go = on_key(t, key);
            key = go ? screen_key(0) : KEY_NONE;
        }
    }
    screen_end();
    return screen_signal() && screen_signal() != SIGINT ? 128 + screen_signal() : EXIT_FINE;
}

static int once(struct top *t, size_t lines) {
    struct timespec pause = {t->every / 1000000000, t->every % 1000000000};
    bool ok = look(t);
    if (ok && nanosleep(&pause, NULL) == 0)
        ok = look(t);
    if (!ok) {
        fprintf(stderr, "klaw top: %s\n", t->message);
        return EXIT_TROUBLE;
    }
    put_head(t, stdout, 200, newline);
    put_cells(t, NULL, stdout, 120);
    putchar('\n');
    for (size_t i = 0; i < t->n_rows && i < lines; i++) {
        put_cells(t, &t->rows[i], stdout, 120);
        putchar('\n');
    }
    if (t->n_rows > lines)
        printf("and %zu more\n", t->n_rows - lines);
    return EXIT_FINE;
}

/* ---- the command line ---- */

static bool take_view(struct top *t, const char *name) {
    for (size_t i = 0; cli_views[i]; i++)
        if (strcmp(cli_views[i]->name, name) == 0) {
            set_view(t, i);
            return true;
        }
    return false;
}

static bool take_sort(struct top *t, const char *title) {
    for (size_t i = 0; i < view(t)->n_columns; i++)
        if (strcmp(view(t)->columns[i].title, title) == 0) {
            t->sort = i;
            return true;
        }
    return false;
}

static int begin(struct top *t, const char *name, bool one_frame) {
    cli_process process;
    if (!name && !one_frame) {
        if (!list_processes(t))
            return EXIT_TROUBLE;
        if (t->n_processes != 1)
            return EXIT_FINE; /* to choose from */
        t->mode = MODE_TABLE;
        process = t->processes[0];
    } else if (!cli_choose(&cli_top, name, &process)) {
        return EXIT_TROUBLE;
    }
    if (!cli_link_open(&t->link, &process)) {
        fprintf(stderr, "klaw top: %s\n", t->link.why);
        return EXIT_TROUBLE;
    }
    return EXIT_FINE;
}

int cli_run_top(int argc, char **argv) {
    struct top t = {.link.fd = -1, .every = 1000000000};
    bool one_frame = !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO), reverse = false;
    const char *value, *sort = NULL;
    size_t lines = 40;
    char *end;
    int id;
    set_view(&t, 0);
    while ((id = cli_next(&cli_top, argc, argv, &value)) > 0) {
        switch (id) {
        case 'e':
            if (!cli_parse_duration(value, &t.every) || t.every < 50000000)
                return cli_usage(&cli_top, "--every does not take '%s' (50ms and more)", value);
            break;
        case 'v':
            if (!take_view(&t, value))
                return cli_usage(&cli_top, "there is no view '%s'", value);
            break;
        case 's': sort = value; break;
        case 'r': reverse = true; break;
        case 'f': snprintf(t.filter, sizeof t.filter, "%s", value); break;
        case '1': one_frame = true; break;
        case 'n':
            lines = strtoul(value, &end, 10);
            if (*end || *value == '-')
                return cli_usage(&cli_top, "--lines does not take '%s'", value);
            break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind + 1 < argc)
        return cli_usage(&cli_top, "one process at a time");
    if (sort && !take_sort(&t, sort))
        return cli_usage(&cli_top, "%s have no column '%s'", view(&t)->name, sort);
    t.reverse = reverse;
    int code = begin(&t, argv[optind], one_frame);
    if (code == EXIT_FINE)
        code = one_frame ? once(&t, lines) : live(&t);
    forget(&t);
    free(t.processes);
    return code;
}
