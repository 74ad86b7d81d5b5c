/* SPDX-License-Identifier: Apache-2.0 */
/* views.c - the views of klaw top: channels, fibers, tasks, actors, the supervision tree, executors. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "view.h"

/* ---- helpers ---- */

static double rate(uint64_t now, const uint64_t *before, const cli_looks *l) {
    return before && l->seconds > 0 && now >= *before ? (double)(now - *before) / l->seconds : 0;
}

static void count_cell(char *out, size_t size, double n) {
    if (n == 0)
        snprintf(out, size, ".");
    else
        cli_count(out, size, n);
}

static void text_cell(char *out, size_t size, const char *text) {
    (void)cli_clean(out, size, text, 48);
}

static void say(FILE *out, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(FILE *out, const char *label, const char *format, ...) {
    va_list ap;
    fprintf(out, "%-18s ", label);
    va_start(ap, format);
    vfprintf(out, format, ap);
    va_end(ap);
    fputc('\n', out);
}

static void say_text(FILE *out, const char *label, const char *text) {
    char clean[512];
    (void)cli_clean(clean, sizeof clean, text, 200);
    say(out, label, "%s", clean);
}

/* ---- channels ---- */

enum {
    CH_ID,
    CH_NAME,
    CH_KIND,
    CH_DEPTH,
    CH_CAP,
    CH_HIGH,
    CH_IN,
    CH_OUT,
    CH_TXW,
    CH_RXW,
    CH_AGE,
    CH_N
};
static const cli_column channel_columns[] = {
    {"id", 7, false},      {"name", 0, true},     {"kind", 10, true},   {"depth", 7, false},
    {"cap", 7, false},     {"high", 7, false},    {"sent/s", 7, false}, {"recv/s", 7, false},
    {"tx wait", 7, false}, {"rx wait", 7, false}, {"oldest", 9, false},
};

static size_t channel_count(const cli_snapshot *s) {
    return s->n_channels;
}
static uint64_t channel_id(const cli_snapshot *s, size_t i) {
    return s->channels[i].id;
}
static const char *channel_name(const cli_snapshot *s, size_t i) {
    return s->channels[i].name;
}

static double channel_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_channel_stats *c = &l->now->channels[i];
    const klaw_channel_stats *b = l->before ? cli_channel(l->before, c->id) : NULL;
    switch (column) {
    case CH_ID: return -(double)c->id;
    case CH_NAME: *text = c->name; return 0;
    case CH_KIND: *text = c->kind; return 0;
    case CH_DEPTH: return (double)c->queue_size;
    case CH_CAP: return c->capacity == KLAW_UNBOUNDED ? 1e18 : (double)c->capacity;
    case CH_HIGH: return (double)c->high_watermark;
    case CH_IN: return rate(c->total_sent, b ? &b->total_sent : NULL, l);
    case CH_OUT: return rate(c->total_received, b ? &b->total_received : NULL, l);
    case CH_TXW: return (double)c->waiting_senders;
    case CH_RXW: return (double)c->waiting_receivers;
    default: return (double)c->oldest_age;
    }
}

static void channel_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const klaw_channel_stats *c = &l->now->channels[i];
    const char *text;
    switch (column) {
    case CH_ID: snprintf(out, size, "%" PRIu64, c->id); break;
    case CH_NAME: text_cell(out, size, c->name); break;
    case CH_KIND: text_cell(out, size, c->kind); break;
    case CH_CAP:
        if (c->capacity == KLAW_UNBOUNDED)
            snprintf(out, size, "-");
        else if (c->capacity == KLAW_RENDEZVOUS)
            snprintf(out, size, "0");
        else
            count_cell(out, size, (double)c->capacity);
        break;
    case CH_AGE:
        if (c->oldest_age < 0)
            snprintf(out, size, ".");
        else
            cli_duration(out, size, c->oldest_age);
        break;
    default: count_cell(out, size, channel_value(l, i, column, &text)); break;
    }
}

static enum cli_colour channel_colour(const cli_looks *l, size_t i) {
    const klaw_channel_stats *c = &l->now->channels[i];
    if (c->capacity > 0 && c->queue_size >= (uint64_t)c->capacity)
        return CLI_RED;
    return c->senders_closed || c->receivers_closed ? CLI_DIM : CLI_PLAIN;
}

static void channel_page(const cli_looks *l, size_t i, FILE *out) {
    const cli_snapshot *s = l->now;
    const klaw_channel_stats *c = &s->channels[i];
    const char *text;
    char name[160], age[32];
    cli_duration(age, sizeof age, c->oldest_age);
    say_text(out, "channel", c->name);
    say(out, "number, kind", "%" PRIu64 ", %s", c->id, c->kind);
    if (c->capacity > 0)
        say(out, "depth", "%" PRIu64 " of %" PRId64 ", at most %" PRIu64 " so far", c->queue_size,
            c->capacity, c->high_watermark);
    else
        say(out, "depth", "%" PRIu64 " (%s), at most %" PRIu64 " so far", c->queue_size,
            c->capacity == KLAW_UNBOUNDED ? "unbounded" : "rendezvous", c->high_watermark);
    say(out, "oldest element", "%s", age);
    say(out, "sent", "%" PRIu64 ", %.1f/s", c->total_sent, channel_value(l, i, CH_IN, &text));
    say(out, "received", "%" PRIu64 ", %.1f/s", c->total_received,
        channel_value(l, i, CH_OUT, &text));
    say(out, "permits", "%" PRIu64, c->permits);
    say(out, "senders", "%" PRIu64 "%s", c->sender_count, c->senders_closed ? ", closed" : "");
    say(out, "receivers", "%" PRIu64 "%s", c->receiver_count,
        c->receivers_closed ? ", closed" : "");
    fputs("\nwho waits\n", out);
    for (size_t k = 0; k < s->n_waits; k++) {
        const klaw_wait_info *w = &s->waits[k];
        if (w->channel_id != c->id)
            continue;
        cli_host_name(s, w->host, w->host_id, name, sizeof name);
        fprintf(out, "  %-8s %s%s\n", w->sends ? "to send" : "to recv", name,
                w->timed ? ", with a deadline" : "");
    }
    fputs("\nwho holds its ends (who used them last)\n", out);
    for (size_t k = 0; k < s->n_endpoints; k++) {
        const klaw_endpoint_info *e = &s->endpoints[k];
        if (e->channel_id != c->id)
            continue;
        cli_host_name(s, e->host, e->host_id, name, sizeof name);
        fprintf(out, "  %-8s %s%s\n", e->sender ? "sender" : "receiver", name,
                e->host != KLAW_HOST_UNKNOWN && e->host != KLAW_HOST_RUNTIME && !e->used
                    ? ", has made it"
                    : "");
    }
}

static const cli_view channels = {"channels",    channel_columns, CH_N,         CH_IN,
                                  channel_count, channel_id,      channel_name, channel_value,
                                  channel_cell,  channel_colour,  channel_page};

/* ---- fibers ---- */

enum { FI_ID, FI_NAME, FI_STATE, FI_WAITS, FI_ON, FI_SWITCHES, FI_N };
static const cli_column fiber_columns[] = {
    {"id", 9, false},    {"name", 0, true}, {"state", 9, true},
    {"waits", 10, true}, {"on", 24, true},  {"waits/s", 8, false},
};

static size_t fiber_count(const cli_snapshot *s) {
    return s->n_fibers;
}
static uint64_t fiber_id(const cli_snapshot *s, size_t i) {
    return s->fibers[i].id;
}
static const char *fiber_name(const cli_snapshot *s, size_t i) {
    return s->fibers[i].name;
}

static double fiber_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_fiber_info *f = &l->now->fibers[i];
    const klaw_fiber_info *b = l->before ? cli_fiber(l->before, f->id) : NULL;
    switch (column) {
    case FI_ID: return -(double)f->id;
    case FI_NAME: *text = f->name; return 0;
    case FI_STATE: *text = klaw_fiber_state_name(f->state); return 0;
    case FI_WAITS: *text = f->waiting_on; return 0;
    case FI_ON: *text = ""; return (double)f->waiting_id;
    default: return rate(f->waits, b ? &b->waits : NULL, l);
    }
}

static void on_what(const cli_snapshot *s, const klaw_fiber_info *f, char *out, size_t size) {
    const klaw_channel_stats *c =
        strcmp(f->waiting_on, "send") == 0 || strcmp(f->waiting_on, "recv") == 0
            ? cli_channel(s, f->waiting_id)
            : NULL;
    char clean[80];
    if (c) {
        cli_clean(clean, sizeof clean, c->name, 16);
        snprintf(out, size, "%s #%" PRIu64, clean, c->id);
    } else if (f->waiting_id) {
        snprintf(out, size, "#%" PRIu64, f->waiting_id);
    } else {
        *out = 0;
    }
}

static void fiber_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const klaw_fiber_info *f = &l->now->fibers[i];
    const char *text;
    switch (column) {
    case FI_ID: snprintf(out, size, "%" PRIu64, f->id); break;
    case FI_NAME: text_cell(out, size, f->name); break;
    case FI_STATE: text_cell(out, size, klaw_fiber_state_name(f->state)); break;
    case FI_WAITS: text_cell(out, size, f->waiting_on); break;
    case FI_ON: on_what(l->now, f, out, size); break;
    default: count_cell(out, size, fiber_value(l, i, column, &text)); break;
    }
}

static enum cli_colour fiber_colour(const cli_looks *l, size_t i) {
    const klaw_fiber_info *f = &l->now->fibers[i];
    return f->cancelled                     ? CLI_YELLOW
           : f->state == KLAW_FIBER_RUNNING ? CLI_GREEN
           : f->state == KLAW_FIBER_WAITING ? CLI_PLAIN
                                            : CLI_CYAN;
}

static void fiber_page(const cli_looks *l, size_t i, FILE *out) {
    const cli_snapshot *s = l->now;
    const klaw_fiber_info *f = &s->fibers[i];
    char text[160];
    const char *none;
    say_text(out, "fiber", f->name);
    cli_host_name(s, KLAW_HOST_FIBER, f->id, text, sizeof text);
    say(out, "number, what", "%" PRIu64 ", %s", f->id, text);
    say(out, "state", "%s%s%s", klaw_fiber_state_name(f->state), f->cancelled ? ", cancelled" : "",
        f->pinned ? ", pinned" : "");
    on_what(s, f, text, sizeof text);
    say(out, "waits for", "%s %s%s", f->waiting_on, text, f->timed ? ", with a deadline" : "");
    say(out, "waits so far", "%" PRIu64 ", %.1f/s", f->waits,
        fiber_value(l, i, FI_SWITCHES, &none));
    for (uint64_t id = f->scope_id, k = 0; id && k < 32; k++) {
        const klaw_scope_info *scope = cli_scope(s, id);
        if (!scope)
            break;
        char clean[80];
        cli_clean(clean, sizeof clean, scope->name, 40);
        say(out, k ? "  inside" : "scope", "%s #%" PRIu64 ", %" PRIu64 " live%s", clean, scope->id,
            scope->live, scope->cancelled ? ", cancelled" : "");
        id = scope->parent_id;
    }
    fputs("\nends it used last\n", out);
    for (size_t k = 0; k < s->n_endpoints; k++) {
        const klaw_endpoint_info *e = &s->endpoints[k];
        const klaw_channel_stats *c = cli_channel(s, e->channel_id);
        if (e->host != KLAW_HOST_FIBER || e->host_id != f->id || !c)
            continue;
        cli_clean(text, sizeof text, c->name, 40);
        fprintf(out, "  %-8s of %s #%" PRIu64 "%s\n", e->sender ? "sender" : "receiver", text,
                c->id, e->used ? "" : ", has made it");
    }
}

static const cli_view fibers = {"fibers",    fiber_columns, FI_N,       FI_SWITCHES,
                                fiber_count, fiber_id,      fiber_name, fiber_value,
                                fiber_cell,  fiber_colour,  fiber_page};

/* ---- tasks ---- */

enum { TA_ID, TA_NAME, TA_STATE, TA_EXECUTOR, TA_FIBER, TA_N };
static const cli_column task_columns[] = {{"id", 9, false},
                                          {"name", 0, true},
                                          {"state", 9, true},
                                          {"executor", 20, true},
                                          {"fiber", 9, false}};

static size_t task_count(const cli_snapshot *s) {
    return s->n_tasks;
}
static uint64_t task_id(const cli_snapshot *s, size_t i) {
    return s->tasks[i].executor_id << 40 ^ s->tasks[i].id; /* numbered per executor */
}
static const char *task_name(const cli_snapshot *s, size_t i) {
    return s->tasks[i].name;
}
static const char *executor_of(const cli_snapshot *s, const klaw_task_info *t) {
    const klaw_executor_stats *e = cli_executor(s, t->executor_id);
    return e ? e->name : "";
}

static double task_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_task_info *t = &l->now->tasks[i];
    switch (column) {
    case TA_ID: return -(double)t->id;
    case TA_NAME: *text = t->name; return 0;
    case TA_STATE: *text = t->running ? "running" : "waiting"; return 0;
    case TA_EXECUTOR: *text = executor_of(l->now, t); return 0;
    default: return (double)t->fiber_id;
    }
}

static void task_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const klaw_task_info *t = &l->now->tasks[i];
    const char *text = "";
    if (column == TA_ID || (column == TA_FIBER && t->fiber_id))
        snprintf(out, size, "%" PRIu64, column == TA_ID ? t->id : t->fiber_id);
    else {
        (void)task_value(l, i, column, &text);
        text_cell(out, size, column == TA_FIBER ? "." : text);
    }
}

static enum cli_colour task_colour(const cli_looks *l, size_t i) {
    return l->now->tasks[i].running ? CLI_PLAIN : CLI_DIM;
}

static void task_page(const cli_looks *l, size_t i, FILE *out) {
    const klaw_task_info *t = &l->now->tasks[i];
    const klaw_fiber_info *f = cli_fiber(l->now, t->fiber_id);
    say_text(out, "task", t->name);
    say(out, "number", "%" PRIu64 ", %s", t->id, t->running ? "running" : "waits for its turn");
    say_text(out, "executor", executor_of(l->now, t));
    if (f) {
        fputc('\n', out);
        fiber_page(l, (size_t)(f - l->now->fibers), out);
    }
}

static const cli_view tasks = {"tasks",   task_columns, TA_N,      TA_STATE,    task_count, task_id,
                               task_name, task_value,   task_cell, task_colour, task_page};

/* ---- actors ---- */

enum {
    AC_ID,
    AC_NAME,
    AC_BEHAVIOR,
    AC_STATE,
    AC_BOX,
    AC_HIGH,
    AC_RATE,
    AC_FAILED,
    AC_RESTARTS,
    AC_ASKS,
    AC_N
};
static const cli_column actor_columns[] = {
    {"id", 7, false},       {"name", 0, true},  {"behavior", 14, true}, {"state", 9, true},
    {"mailbox", 8, false},  {"high", 7, false}, {"msg/s", 7, false},    {"failed", 7, false},
    {"restarts", 8, false}, {"asks", 6, false}};

static size_t actor_count(const cli_snapshot *s) {
    return s->n_actors;
}
static uint64_t actor_id(const cli_snapshot *s, size_t i) {
    return s->actors[i].id;
}
static const char *actor_name(const cli_snapshot *s, size_t i) {
    return s->actors[i].name;
}

static double actor_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_actor_stats *a = &l->now->actors[i];
    const klaw_actor_stats *b = l->before ? cli_actor(l->before, a->id) : NULL;
    switch (column) {
    case AC_ID: return -(double)a->id;
    case AC_NAME: *text = a->name; return 0;
    case AC_BEHAVIOR: *text = a->behavior; return 0;
    case AC_STATE: *text = klaw_actor_state_name(a->state); return 0;
    case AC_BOX: return (double)a->mailbox_size;
    case AC_HIGH: return (double)a->high_watermark;
    case AC_RATE: return rate(a->handled, b ? &b->handled : NULL, l);
    case AC_FAILED: return (double)a->failed;
    case AC_RESTARTS: return (double)a->restarts;
    default: return (double)a->waiting_asks;
    }
}

static void actor_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const char *text = NULL;
    double value = actor_value(l, i, column, &text);
    if (column == AC_ID)
        snprintf(out, size, "%" PRIu64, l->now->actors[i].id);
    else if (text)
        text_cell(out, size, text);
    else
        count_cell(out, size, value);
}

static enum cli_colour actor_colour(const cli_looks *l, size_t i) {
    const klaw_actor_stats *a = &l->now->actors[i];
    return a->state == KLAW_ACTOR_BACKOFF                                ? CLI_RED
           : a->capacity > 0 && a->mailbox_size >= (uint64_t)a->capacity ? CLI_RED
           : a->restarts                                                 ? CLI_YELLOW
                                                                         : CLI_PLAIN;
}

static void actor_page(const cli_looks *l, size_t i, FILE *out) {
    const cli_snapshot *s = l->now;
    const klaw_actor_stats *a = &s->actors[i];
    const klaw_fiber_info *f = cli_fiber(s, a->fiber_id);
    const char *none;
    char text[80];
    say_text(out, "actor", a->name);
    say(out, "number, state", "%" PRIu64 ", %s", a->id, klaw_actor_state_name(a->state));
    say_text(out, "behavior", a->behavior);
    say(out, "mailbox", "%" PRIu64 ", at most %" PRIu64 " so far", a->mailbox_size,
        a->high_watermark);
    say(out, "handled", "%" PRIu64 ", %.1f/s", a->handled, actor_value(l, i, AC_RATE, &none));
    say(out, "failed", "%" PRIu64, a->failed);
    say(out, "restarts", "%" PRIu64 ", this is life %" PRIu64, a->restarts, a->incarnation);
    say(out, "asks", "%" PRIu64 " wait for an answer, %" PRIu64 " came too late", a->waiting_asks,
        a->expired);
    say(out, "senders", "%" PRIu64 " wait for room", a->waiting_senders);
    if (f) {
        on_what(s, f, text, sizeof text);
        say(out, "its fiber", "%" PRIu64 ", %s %s %s", f->id, klaw_fiber_state_name(f->state),
            f->waiting_on, text);
    }
    for (size_t k = 0; k < s->n_supervised; k++)
        if (s->supervised[k].child.kind == KLAW_CHILD_ACTOR &&
            (uint64_t)s->supervised[k].child.id == a->id) {
            const klaw_supervisor_info *sup = cli_supervisor(s, s->supervised[k].supervisor_id);
            say_text(out, "supervisor", sup ? sup->name : "");
        }
}

static const cli_view actors = {"actors",    actor_columns, AC_N,       AC_RATE,
                                actor_count, actor_id,      actor_name, actor_value,
                                actor_cell,  actor_colour,  actor_page};

/* ---- the supervision tree: a row for each child, under its supervisor ---- */

enum { TR_NAME, TR_SUPERVISOR, TR_KIND, TR_STATE, TR_RESTARTS, TR_RATE, TR_ERROR, TR_N };
static const cli_column tree_columns[] = {{"child", 0, true},      {"of supervisor", 20, true},
                                          {"kind", 11, true},      {"state", 10, true},
                                          {"restarts", 8, false},  {"rest/s", 7, false},
                                          {"last error", 24, true}};

static size_t tree_count(const cli_snapshot *s) {
    return s->n_supervised;
}
/* Children have no number of their own that lasts. */
static uint64_t tree_id(const cli_snapshot *s, size_t i) {
    uint64_t h = 0xcbf29ce484222325u ^ s->supervised[i].supervisor_id;
    for (const char *p = s->supervised[i].child.name; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    return h;
}
static const char *tree_name(const cli_snapshot *s, size_t i) {
    return s->supervised[i].child.name;
}

static const klaw_supervised_info *tree_before(const cli_looks *l, size_t i) {
    const klaw_supervised_info *c = &l->now->supervised[i];
    const cli_snapshot *b = l->before;
    /* It mostly stands where it stood. */
    for (size_t k = 0, n = b ? b->n_supervised : 0; k < n; k++) {
        const klaw_supervised_info *o = &b->supervised[(i + k) % n];
        if (o->supervisor_id == c->supervisor_id && strcmp(o->child.name, c->child.name) == 0)
            return o;
    }
    return NULL;
}

static double tree_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_supervised_info *c = &l->now->supervised[i];
    const klaw_supervisor_info *s = cli_supervisor(l->now, c->supervisor_id);
    const klaw_supervised_info *b;
    switch (column) {
    case TR_NAME: *text = c->child.name; return 0;
    case TR_SUPERVISOR: *text = s ? s->name : ""; return 0;
    case TR_KIND: *text = klaw_child_kind_name(c->child.kind); return 0;
    case TR_STATE: *text = klaw_child_state_name(c->child.state); return 0;
    case TR_RESTARTS: return (double)c->child.restarts;
    case TR_RATE:
        b = tree_before(l, i);
        return rate(c->child.restarts, b ? &b->child.restarts : NULL, l);
    default:
        *text = !c->child.last_error    ? ""
                : *c->child.last_detail ? c->child.last_detail
                                        : klaw_err_text(c->child.last_error);
        return 0;
    }
}

static void tree_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const char *text = NULL;
    double value = tree_value(l, i, column, &text);
    if (text)
        text_cell(out, size, text);
    else
        count_cell(out, size, value);
}

static enum cli_colour tree_colour(const cli_looks *l, size_t i) {
    const klaw_child_info *c = &l->now->supervised[i].child;
    return c->abandoned ? CLI_RED : c->restarts ? CLI_YELLOW : CLI_PLAIN;
}

static void tree_page(const cli_looks *l, size_t i, FILE *out) {
    const klaw_supervised_info *c = &l->now->supervised[i];
    const klaw_supervisor_info *s = cli_supervisor(l->now, c->supervisor_id);
    const char *text = "";
    say_text(out, "child", c->child.name);
    say(out, "kind, number", "%s, %" PRId64, klaw_child_kind_name(c->child.kind), c->child.id);
    say(out, "state", "%s%s%s", klaw_child_state_name(c->child.state),
        c->child.significant ? ", significant" : "", c->child.abandoned ? ", abandoned" : "");
    say(out, "restarts", "%" PRIu64 ", %.1f/s", c->child.restarts,
        tree_value(l, i, TR_RATE, &text));
    (void)tree_value(l, i, TR_ERROR, &text);
    say_text(out, "last error", text);
    if (s) {
        say_text(out, "supervisor", s->name);
        say(out, "  its children", "%" PRIu64 ", %" PRIu64 " run, %" PRIu64 " restarts in all",
            s->specs, s->active, s->restarts);
    }
    const klaw_actor_stats *a = c->child.kind == KLAW_CHILD_ACTOR && c->child.id > 0
                                    ? cli_actor(l->now, (uint64_t)c->child.id)
                                    : NULL;
    if (a) {
        fputc('\n', out);
        actor_page(l, (size_t)(a - l->now->actors), out);
    }
}

static const cli_view tree = {"tree",    tree_columns, TR_N,      TR_N,        tree_count, tree_id,
                              tree_name, tree_value,   tree_cell, tree_colour, tree_page};

/* ---- executors ---- */

enum { EX_ID, EX_NAME, EX_BOUND, EX_QUEUED, EX_RUNNING, EX_RATE, EX_FAILED, EX_N };
static const cli_column executor_columns[] = {
    {"id", 7, false},      {"name", 0, true},    {"bound", 7, false}, {"queued", 8, false},
    {"running", 8, false}, {"done/s", 8, false}, {"failed", 8, false}};

static size_t executor_count(const cli_snapshot *s) {
    return s->n_executors;
}
static uint64_t executor_id(const cli_snapshot *s, size_t i) {
    return s->executors[i].id;
}
static const char *executor_name(const cli_snapshot *s, size_t i) {
    return s->executors[i].name;
}
static uint64_t ended(const klaw_executor_stats *e) {
    return e->succeeded + e->failed + e->cancelled + e->timed_out;
}

static double executor_value(const cli_looks *l, size_t i, size_t column, const char **text) {
    const klaw_executor_stats *e = &l->now->executors[i];
    const klaw_executor_stats *b = l->before ? cli_executor(l->before, e->id) : NULL;
    uint64_t was = b ? ended(b) : 0;
    switch (column) {
    case EX_ID: return -(double)e->id;
    case EX_NAME: *text = e->name; return 0;
    case EX_BOUND: return e->concurrency == KLAW_NONE ? 1e18 : (double)e->concurrency;
    case EX_QUEUED: return (double)e->queued;
    case EX_RUNNING: return (double)e->running;
    case EX_RATE: return rate(ended(e), b ? &was : NULL, l);
    default: return (double)e->failed;
    }
}

static void executor_cell(const cli_looks *l, size_t i, size_t column, char *out, size_t size) {
    const klaw_executor_stats *e = &l->now->executors[i];
    const char *text = NULL;
    double value = executor_value(l, i, column, &text);
    if (column == EX_ID)
        snprintf(out, size, "%" PRIu64, e->id);
    else if (text)
        text_cell(out, size, text);
    else if (column == EX_BOUND && e->concurrency == KLAW_NONE)
        snprintf(out, size, "-");
    else
        count_cell(out, size, value);
}

static enum cli_colour executor_colour(const cli_looks *l, size_t i) {
    return l->now->executors[i].closed ? CLI_DIM : CLI_PLAIN;
}

static void executor_page(const cli_looks *l, size_t i, FILE *out) {
    const cli_snapshot *s = l->now;
    const klaw_executor_stats *e = &s->executors[i];
    const char *none;
    say_text(out, "executor", e->name);
    say(out, "number", "%" PRIu64 "%s", e->id, e->closed ? ", closed" : "");
    say(out, "queued, running", "%" PRIu64 ", %" PRIu64, e->queued, e->running);
    say(out, "submitted", "%" PRIu64, e->submitted);
    say(out, "ended",
        "%" PRIu64 ", %.1f/s: %" PRIu64 " well, %" PRIu64 " failed, %" PRIu64 " cancelled, %" PRIu64
        " too late",
        ended(e), executor_value(l, i, EX_RATE, &none), e->succeeded, e->failed, e->cancelled,
        e->timed_out);
    fputs("\ntasks\n", out);
    for (size_t k = 0, shown = 0; k < s->n_tasks && shown < 200; k++) {
        char clean[80];
        if (s->tasks[k].executor_id != e->id)
            continue;
        cli_clean(clean, sizeof clean, s->tasks[k].name, 40);
        fprintf(out, "  %-8s %s #%" PRIu64 "\n", s->tasks[k].running ? "running" : "waits", clean,
                s->tasks[k].id);
        shown++;
    }
}

static const cli_view executors = {"executors",    executor_columns, EX_N,          EX_RATE,
                                   executor_count, executor_id,      executor_name, executor_value,
                                   executor_cell,  executor_colour,  executor_page};

const cli_view *const cli_views[] = {&channels, &fibers, &tasks, &actors, &tree, &executors, NULL};
