/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.c - klaw doctor: what hurts in a process, by three looks within --for.
 *
 * Each complaint needs the same sign in all looks, so that what merely passes by is not told:
 *   deadlock   dead in the wait-for graph, and has not moved (graph.c)
 *   leak       waits, without a deadline, for ends that only ended fibers have used
 *   stuck      an actor with messages waiting that has handled none, in a wait without a deadline or
 *              always running
 *   growing    a queue (channel, mailbox, executor) that got longer at each look
 *   stalled    a full channel whose senders wait and from which nothing was taken
 *   restarts   so many restarts within the time that it is a storm */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph.h"
#include "verbs.h"

#define LOOKS 3
#define RING_MAX 16
#define STORM 3        /* restarts within the time */
#define GROWTH_MIN 10u /* elements more from the first to the last look */
#define TOLD_MAX 20    /* of each kind, for people */

static const char *const usage[] = {"[--json] [--for T] [PID | NAME | --all]", NULL};
static const cli_option options[] = {
    {"json", 'j', NULL, "an array with an object for each process", NULL},
    {"for", 'f', "T", "how long to look (2s); three looks, at the beginning, half-way, and the end",
     "500ms 2s 10s 1m"},
    {"all", 'a', NULL, "every process of this user that is open to inspection", NULL},
    {0},
};
const cli_verb cli_doctor = {
    .name = "doctor",
    .usage = usage,
    .summary = "find deadlocks, leaks, stuck actors, growing queues, restart storms",
    .about =
        "Looks at a process three times and tells what hurts.\n\n"
        "deadlock: fibers, actors, threads or tasks of Python's asyncio that wait for each other "
        "in a "
        "ring, which is named, and who waits for them. Who holds the other end of a channel is "
        "told "
        "by who used it last; in Python, where an endpoint may be anybody's, by who refers to it, "
        "for "
        "which the program stands still for a moment. A deadlock that is told is one: whatever is "
        "not "
        "known counts as able to go on.\n\n"
        "leak: somebody waits at a channel whose other ends were left open by fibers that have "
        "ended.\n\n"
        "stuck: an actor that has messages and handles none. growing: a channel, mailbox or "
        "executor "
        "whose queue got longer at each look. stalled: a full channel from which nobody takes. "
        "restarts: three or more within the time.",
    .options = options,
    .examples = "klaw doctor || echo 'something hurts'\tfor scripts\n"
                "klaw doctor --for 10s server\ta longer look\n"
                "klaw doctor --json --all | jq '.[].findings[].kind'\teverything of this user",
    .exits = "0 nothing was found; 1 something was; 2 wrong usage; 3 no process, or it did not "
             "answer.",
    .words = "PID",
    .run = cli_run_doctor,
};

/* ---- findings ---- */

struct visit {
    cli_snapshot *look[LOOKS]; /* the first to the last */
    cli_graph *graph[LOOKS];
    double seconds;
    long pid;
    char program[64];
    json_t *findings;
    size_t untold;
    bool json;
};

static void tell(struct visit *v, const char *kind, enum cli_colour colour, json_t *details,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

static void tell(struct visit *v, const char *kind, enum cli_colour colour, json_t *details,
                 const char *format, ...) {
    char *text = NULL;
    va_list ap;
    va_start(ap, format);
    int n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0) {
        json_decref(details);
        return;
    }
    json_t *o = json_pack("{s:s,s:s}", "kind", kind, "text", text);
    if (details)
        json_object_update(o, details);
    json_decref(details);
    size_t same = 0, i;
    json_t *other;
    json_array_foreach(v->findings, i, other) same +=
        strcmp(json_string_value(json_object_get(other, "kind")), kind) == 0;
    json_array_append_new(v->findings, o);
    if (!v->json && same < TOLD_MAX)
        printf("%s%-9s%s %s\n", cli_colour(colour), kind, cli_colour(CLI_PLAIN), text);
    v->untold += same >= TOLD_MAX;
    free(text);
}

/* ---- deadlocks and leaks ---- */

/* Dead in the last look, and the same wait as in the first. */
static bool has_not_moved(const struct visit *v, size_t i) {
    const cli_graph *first = v->graph[0];
    const cli_node *now = &v->graph[LOOKS - 1]->nodes[i];
    size_t k = cli_graph_find(first, now->kind, now->id);
    return k < first->n && first->nodes[k].waiting && first->nodes[k].count == now->count &&
           first->nodes[k].channel == now->channel;
}

static bool is_dead(const struct visit *v, size_t i) {
    const cli_graph *first = v->graph[0];
    const cli_node *now = &v->graph[LOOKS - 1]->nodes[i];
    size_t k = cli_graph_find(first, now->kind, now->id);
    return !now->alive && has_not_moved(v, i) && !first->nodes[k].alive;
}

static void tell_ring(struct visit *v, const size_t *ring, size_t n, size_t behind) {
    const cli_graph *g = v->graph[LOOKS - 1];
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    json_t *hosts = json_array();
    if (!out)
        return;
    if (n == 1)
        fputs("one waits for itself:", out);
    else
        fprintf(out, "%zu wait for each other:", n);
    for (size_t i = 0; i < n; i++) {
        const cli_node *k = &g->nodes[ring[i]], *next = &g->nodes[ring[(i + 1) % n]];
        const cli_edge *e = cli_graph_edge(g, ring[i], ring[(i + 1) % n]);
        fprintf(out, "\n          %s waits %s", k->name, k->waits);
        if (e && e->channel)
            fprintf(out, ", whose other end %s has%s", next == k ? "itself" : next->name,
                    e->made ? " made" : "");
        json_array_append_new(hosts, json_pack("{s:s,s:s,s:I,s:s}", "host",
                                               klaw_host_kind_name(k->kind), "name", k->name, "id",
                                               (json_int_t)k->id, "waits", k->waits));
    }
    if (behind)
        fprintf(out, "\n          and %zu more wait%s for them", behind, behind == 1 ? "s" : "");
    fclose(out);
    tell(v, "deadlock", CLI_RED,
         json_pack("{s:o,s:I}", "hosts", hosts, "behind", (json_int_t)behind), "%s", text);
    free(text);
}

static void find_deadlocks(struct visit *v) {
    const cli_graph *g = v->graph[LOOKS - 1];
    bool *told = calloc(g->n + 1, sizeof *told);
    size_t rings = 0, dead = 0, in_rings = 0, ring[RING_MAX], first[RING_MAX] = {0}, first_n = 0;
    /* Breadth-first from everyone is quadratic: a ring that is told leaves the rest to the count. */
    for (size_t i = 0; told && i < g->n; i++)
        dead += is_dead(v, i);
    for (size_t i = 0; told && dead > 0 && i < g->n && rings < TOLD_MAX; i++) {
        if (told[i] || !is_dead(v, i))
            continue;
        size_t n = cli_graph_ring(g, i, ring, RING_MAX);
        bool all = n > 0;
        for (size_t k = 0; k < n; k++)
            all = all && is_dead(v, ring[k]) && !told[ring[k]];
        if (!all)
            continue;
        for (size_t k = 0; k < n; k++)
            told[ring[k]] = true;
        in_rings += n;
        if (rings++ > 0) {
            tell_ring(v, ring, n, 0);
        } else {
            memcpy(first, ring, n * sizeof *ring);
            first_n = n;
        }
    }
    if (first_n)
        tell_ring(v, first, first_n, dead - in_rings);
    else if (dead > 0) {
        for (size_t i = 0; i < g->n; i++)
            if (is_dead(v, i) && !g->nodes[i].lost) {
                tell(v, "deadlock", CLI_RED, json_pack("{s:I}", "behind", (json_int_t)(dead - 1)),
                     "nobody is left who could go on: %s waits %s%s", g->nodes[i].name,
                     g->nodes[i].waits, dead > 1 ? ", and others like it" : "");
                break;
            }
    }
    free(told);
}

static void find_leaks(struct visit *v) {
    const cli_graph *g = v->graph[LOOKS - 1];
    for (size_t i = 0; i < g->n; i++) {
        const cli_node *k = &g->nodes[i];
        if (!k->lost || !has_not_moved(v, i))
            continue;
        const klaw_fiber_info *f =
            k->kind == KLAW_HOST_FIBER ? cli_fiber(v->look[LOOKS - 1], k->id) : NULL;
        if (f && f->timed)
            continue;
        tell(v, "leak", CLI_YELLOW,
             json_pack("{s:I,s:s}", "channel", (json_int_t)k->channel, "name", k->name),
             "%s waits %s, whose other ends were left open by fibers that have ended", k->name,
             k->waits);
    }
}

/* ---- actors ---- */

static void find_stuck(struct visit *v) {
    const cli_snapshot *first = v->look[0], *last = v->look[LOOKS - 1];
    for (size_t i = 0; i < last->n_actors; i++) {
        const klaw_actor_stats *a = &last->actors[i], *was = cli_actor(first, a->id);
        bool busy = true;
        for (int k = 0; k < LOOKS; k++) {
            const klaw_actor_stats *at = cli_actor(v->look[k], a->id);
            busy = busy && at && at->state == KLAW_ACTOR_RUNNING && at->mailbox_size > 0;
        }
        if (!busy || a->handled != was->handled || a->failed != was->failed)
            continue;
        const klaw_fiber_info *f = cli_fiber(last, a->fiber_id);
        const klaw_fiber_info *before = f ? cli_fiber(first, f->id) : NULL;
        if (f && (!before || before->waits != f->waits || f->timed))
            continue; /* it works on it */
        size_t node = f ? cli_graph_find(v->graph[LOOKS - 1], KLAW_HOST_FIBER, f->id) : SIZE_MAX;
        if (node < v->graph[LOOKS - 1]->n && is_dead(v, node))
            continue; /* told as a deadlock */
        const char *waits = f && f->state == KLAW_FIBER_WAITING && node < v->graph[LOOKS - 1]->n
                                ? v->graph[LOOKS - 1]->nodes[node].waits
                                : "";
        char name[80];
        cli_clean(name, sizeof name, a->name, 32);
        tell(v, "stuck", CLI_YELLOW,
             json_pack("{s:I,s:I}", "actor", (json_int_t)a->id, "mailbox",
                       (json_int_t)a->mailbox_size),
             "actor '%s' (#%" PRIu64 ") handles nothing, %" PRIu64 " message%s wait%s%s%s", name,
             a->id, a->mailbox_size, a->mailbox_size == 1 ? "" : "s",
             a->mailbox_size == 1 ? "s" : "", *waits ? "; it waits " : "", waits);
    }
}

/* ---- queues ---- */

static bool grows(const uint64_t size[LOOKS]) {
    for (int i = 1; i < LOOKS; i++)
        if (size[i] <= size[i - 1])
            return false;
    uint64_t more = size[LOOKS - 1] - size[0];
    return more >= GROWTH_MIN && more * 50 >= size[LOOKS - 1]; /* 2 % of it */
}

static void tell_growth(struct visit *v, const char *what, const char *raw, uint64_t id,
                        const uint64_t size[LOOKS], int64_t capacity, int64_t age) {
    char name[80], rate[16], full[64] = "", old[64] = "", text[32];
    double each = (double)(size[LOOKS - 1] - size[0]) / v->seconds;
    cli_clean(name, sizeof name, raw, 32);
    cli_count(rate, sizeof rate, each);
    if (capacity > 0 && (uint64_t)capacity > size[LOOKS - 1]) {
        cli_duration(text, sizeof text,
                     (int64_t)((double)((uint64_t)capacity - size[LOOKS - 1]) / each * 1e9));
        snprintf(full, sizeof full, "; full in %s", text);
    }
    if (age > 0) {
        cli_duration(text, sizeof text, age);
        snprintf(old, sizeof old, "; the oldest is %s old", text);
    }
    tell(v, "growing", CLI_YELLOW,
         json_pack("{s:s,s:I,s:I,s:f}", "what", what, "id", (json_int_t)id, "size",
                   (json_int_t)size[LOOKS - 1], "per_second", each),
         "%s '%s' (#%" PRIu64 "): %" PRIu64 " wait, %s more each second%s%s", what, name, id,
         size[LOOKS - 1], rate, full, old);
}

static void find_growing(struct visit *v) {
    const cli_snapshot *last = v->look[LOOKS - 1];
    uint64_t size[LOOKS];
    for (size_t i = 0; i < last->n_channels; i++) {
        const klaw_channel_stats *c = &last->channels[i], *was = cli_channel(v->look[0], c->id);
        for (int k = 0; k < LOOKS; k++) {
            const klaw_channel_stats *at = cli_channel(v->look[k], c->id);
            size[k] = at ? at->queue_size : 0;
        }
        if (was && grows(size))
            tell_growth(v, "channel", c->name, c->id, size, c->capacity, c->oldest_age);
        else if (was && c->capacity > 0 && c->waiting_senders && was->waiting_senders &&
                 c->queue_size >= (uint64_t)c->capacity &&
                 c->total_received == was->total_received) {
            char name[80];
            cli_clean(name, sizeof name, c->name, 32);
            tell(v, "stalled", CLI_YELLOW, json_pack("{s:I}", "channel", (json_int_t)c->id),
                 "channel '%s' (#%" PRIu64 ") is full, %" PRIu64
                 " wait to send, and nothing was taken",
                 name, c->id, c->waiting_senders);
        }
    }
    for (size_t i = 0; i < last->n_actors; i++) {
        const klaw_actor_stats *a = &last->actors[i];
        for (int k = 0; k < LOOKS; k++) {
            const klaw_actor_stats *at = cli_actor(v->look[k], a->id);
            size[k] = at ? at->mailbox_size : 0;
        }
        if (cli_actor(v->look[0], a->id) && grows(size))
            tell_growth(v, "mailbox", a->name, a->id, size, a->capacity, 0);
    }
    for (size_t i = 0; i < last->n_executors; i++) {
        const klaw_executor_stats *e = &last->executors[i];
        for (int k = 0; k < LOOKS; k++) {
            const klaw_executor_stats *at = cli_executor(v->look[k], e->id);
            size[k] = at ? at->queued : 0;
        }
        if (cli_executor(v->look[0], e->id) && grows(size))
            tell_growth(v, "executor", e->name, e->id, size, 0, 0);
    }
}

/* ---- restarts ---- */

static void tell_storm(struct visit *v, const char *what, const char *raw, uint64_t id,
                       uint64_t more, const char *why) {
    char name[80], clean[80];
    cli_clean(name, sizeof name, raw, 32);
    cli_clean(clean, sizeof clean, why, 60);
    tell(v, "restarts", CLI_RED,
         json_pack("{s:s,s:I,s:I}", "what", what, "id", (json_int_t)id, "restarts",
                   (json_int_t)more),
         "%s '%s' (#%" PRIu64 "): %" PRIu64 " restarts in %.1f s%s%s", what, name, id, more,
         v->seconds, *clean ? "; last: " : "", clean);
}

static void find_storms(struct visit *v) {
    const cli_snapshot *first = v->look[0], *last = v->look[LOOKS - 1];
    for (size_t i = 0; i < last->n_supervisors; i++) {
        const klaw_supervisor_info *s = &last->supervisors[i], *was = cli_supervisor(first, s->id);
        char why[200] = "";
        if (!was || s->restarts < was->restarts + STORM)
            continue;
        for (size_t k = 0; k < last->n_supervised; k++) {
            const klaw_supervised_info *c = &last->supervised[k];
            if (c->supervisor_id == s->id && c->child.last_error)
                snprintf(why, sizeof why, "%s: %s %s", c->child.name,
                         klaw_err_text(c->child.last_error), c->child.last_detail);
        }
        tell_storm(v, "supervisor", s->name, s->id, s->restarts - was->restarts, why);
    }
    for (size_t i = 0; i < last->n_actors; i++) {
        const klaw_actor_stats *a = &last->actors[i], *was = cli_actor(first, a->id);
        if (was && a->restarts >= was->restarts + STORM)
            tell_storm(v, "actor", a->name, a->id, a->restarts - was->restarts, "");
    }
}

/* ---- the visit ---- */

/* Asks the process to find out who waits for whom among tasks of event loops: the next look shows it. A process of an
 * older klaw does not know the word. */
static void ask_for_tasks(cli_link *link) {
    size_t size;
    free(cli_ask(link, "look", &size));
}

/* The same, and waits a second at most for it to be found out. */
static bool wait_for_tasks(cli_link *link) {
    ask_for_tasks(link);
    for (int i = 0; i < 20; i++) {
        cli_snapshot *s = cli_look(link);
        bool known = s && s->n_holds > 0, foreign = false, there = s != NULL;
        for (size_t k = 0; s && k < s->n_tasks; k++)
            foreign |= s->tasks[k].executor_id == 0;
        cli_snapshot_free(s);
        if (!there || known || !foreign)
            return there;
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return true;
}

static bool look(struct visit *v, cli_link *link, int64_t ns) {
    size_t size;
    cli_stats stats;
    char *text = cli_ask(link, "stats", &size);
    if (!text)
        return false;
    if (cli_stats_parse(text, size, &stats))
        snprintf(v->program, sizeof v->program, "%s", stats.program);
    free(text);
    if (!wait_for_tasks(link))
        return false;
    for (int i = 0; i < LOOKS; i++) {
        struct timespec t = {ns / (LOOKS - 1) / 1000000000, ns / (LOOKS - 1) % 1000000000};
        if (i > 0)
            while (nanosleep(&t, &t) != 0 && errno == EINTR)
                ;
        v->look[i] = cli_look(link);
        if (!v->look[i])
            return false;
        v->graph[i] = cli_graph_make(v->look[i], v->pid, cli_has_outside(v->pid, v->look[i]));
        if (!v->graph[i]) {
            snprintf(link->why, sizeof link->why, "no memory");
            return false;
        }
        if (i + 1 < LOOKS && v->look[i]->n_tasks)
            ask_for_tasks(link);
    }
    v->seconds = (double)(v->look[LOOKS - 1]->time - v->look[0]->time) / 1e9;
    if (v->seconds <= 0)
        v->seconds = 1e-3;
    return true;
}

static int visit(const cli_process *p, int64_t ns, bool json, json_t *all) {
    struct visit v = {.pid = p->pid, .json = json, .findings = json_array()};
    cli_link link;
    int code = EXIT_TROUBLE;
    if (cli_link_open(&link, p) && look(&v, &link, ns)) {
        const cli_snapshot *s = v.look[LOOKS - 1];
        char name[80];
        cli_clean(name, sizeof name, v.program, 40);
        if (!json)
            printf("%s%ld %s%s: %zu fibers, %zu channels, %zu actors, looked at for %.1f s%s\n",
                   cli_colour(CLI_BOLD), p->pid, name, cli_colour(CLI_PLAIN), s->n_fibers,
                   s->n_channels, s->n_actors, v.seconds,
                   s->truncated ? " (not all could be seen)" : "");
        find_deadlocks(&v);
        find_leaks(&v);
        find_stuck(&v);
        find_growing(&v);
        find_storms(&v);
        code = json_array_size(v.findings) ? EXIT_FOUND : EXIT_FINE;
        if (v.untold && !json)
            printf("and %zu more of them; --json has all\n", v.untold);
        if (code == EXIT_FINE && !json)
            printf("%snothing found%s\n", cli_colour(CLI_GREEN), cli_colour(CLI_PLAIN));
        json_array_append_new(all,
                              json_pack("{s:I,s:s,s:f,s:O}", "pid", (json_int_t)p->pid, "program",
                                        v.program, "seconds", v.seconds, "findings", v.findings));
    } else {
        fprintf(stderr, "klaw doctor: %s\n", link.why);
    }
    cli_link_close(&link);
    for (int i = 0; i < LOOKS; i++) {
        cli_graph_free(v.graph[i]);
        cli_snapshot_free(v.look[i]);
    }
    json_decref(v.findings);
    return code;
}

int cli_run_doctor(int argc, char **argv) {
    bool json = false, everyone = false;
    int64_t ns = 2000000000;
    const char *value;
    int id, code = EXIT_FINE;
    cli_process one, *list = &one;
    size_t n = 1;
    while ((id = cli_next(&cli_doctor, argc, argv, &value)) > 0) {
        switch (id) {
        case 'j': json = true; break;
        case 'a': everyone = true; break;
        case 'f':
            if (!cli_parse_duration(value, &ns) || ns < 1000000)
                return cli_usage(&cli_doctor, "--for does not take '%s'", value);
            break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind + (everyone ? 0 : 1) < argc)
        return cli_usage(&cli_doctor,
                         everyone ? "--all takes no process" : "one process at a time");
    if (everyone ? !cli_processes(&list, &n) : !cli_choose(&cli_doctor, argv[optind], &one))
        return EXIT_TROUBLE;
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        int found = visit(&list[i], ns, json, all);
        code = found > code ? found : code;
        fflush(stdout);
    }
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(all);
    if (everyone)
        free(list);
    return code;
}
