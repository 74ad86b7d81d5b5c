/* SPDX-License-Identifier: Apache-2.0 */
/* tree.c - klaw tree: who answers for whom: supervisors with their children, then scopes with their
 * fibers.
 *
 * A cycle of parents can't come from a sound process, but two objects of a snapshot may be
 * some microseconds apart and the bytes are an outsider's: depth is bounded. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "verbs.h"

#define DEPTH_MAX 64

static const char *const usage[] = {"[--all | --supervisors] [--max N] [PID | NAME]", NULL};
static const cli_option options[] = {
    {"all", 'a', NULL, "fibers too that belong to an actor, a task or a supervisor shown before",
     NULL},
    {"supervisors", 's', NULL, "only supervisors and what they keep", NULL},
    {"max", 'm', "N", "at most N children of one parent; the rest is counted (20)", ""},
    {0},
};
const cli_verb cli_tree = {
    .name = "tree",
    .usage = usage,
    .summary = "supervisors and scopes as trees",
    .about = "Prints the supervision tree of a process: each supervisor with its strategy and its "
             "children, with their states and how often they were restarted and why; then the "
             "scopes with the fibers that live in them, and what each fiber waits for.",
    .options = options,
    .examples = "klaw tree --supervisors server\twho restarts whom",
    .words = "PID",
    .run = cli_run_tree,
};

struct tree {
    const cli_snapshot *s;
    size_t max;
    bool all;
    bool last[DEPTH_MAX + 1]; /* at each depth: no sibling follows */
};

static void branch(const struct tree *t, size_t depth) {
    for (size_t i = 1; i < depth; i++)
        fputs(t->last[i] ? "   " : "\xe2\x94\x82  ", stdout);
    if (depth > 0)
        fputs(t->last[depth] ? "\xe2\x94\x94\xe2\x94\x80 " : "\xe2\x94\x9c\xe2\x94\x80 ", stdout);
}

static void rest(struct tree *t, size_t depth, size_t n) {
    t->last[depth] = true;
    branch(t, depth);
    printf("%s… %zu more%s\n", cli_colour(CLI_DIM), n, cli_colour(CLI_PLAIN));
}

static void name(const char *text) {
    cli_put(stdout, *text ? text : "(no name)", 60, false);
}

/* ---- supervisors ---- */

static void put_supervisor(struct tree *t, const klaw_supervisor_info *s, size_t depth);

static void put_child(struct tree *t, const klaw_child_info *c, size_t depth) {
    const klaw_supervisor_info *sub = c->kind == KLAW_CHILD_SUPERVISOR && c->id > 0
                                          ? cli_supervisor(t->s, (uint64_t)c->id)
                                          : NULL;
    if (sub && depth < DEPTH_MAX) {
        put_supervisor(t, sub, depth);
        return;
    }
    const klaw_actor_stats *a =
        c->kind == KLAW_CHILD_ACTOR && c->id > 0 ? cli_actor(t->s, (uint64_t)c->id) : NULL;
    branch(t, depth);
    name(c->name);
    const char *state = klaw_child_state_name(c->state);
    printf(" %s(%s", cli_colour(CLI_DIM), klaw_child_kind_name(c->kind));
    if (c->id)
        printf(" %" PRId64, c->id);
    printf(", %s%s)", state, c->significant ? ", significant" : "");
    fputs(cli_colour(CLI_PLAIN), stdout);
    if (a)
        printf(" mailbox %" PRIu64 ", handled %" PRIu64, a->mailbox_size, a->handled);
    if (c->restarts) {
        printf(" %s%" PRIu64 " restart%s%s", cli_colour(CLI_YELLOW), c->restarts,
               c->restarts == 1 ? "" : "s", cli_colour(CLI_PLAIN));
        if (c->last_error) {
            printf(", last: %s", klaw_err_text(c->last_error));
            if (*c->last_detail) {
                fputs(" (", stdout);
                name(c->last_detail);
                putchar(')');
            }
        }
    }
    if (c->abandoned)
        printf(" %sabandoned%s", cli_colour(CLI_RED), cli_colour(CLI_PLAIN));
    putchar('\n');
}

static void put_supervisor(struct tree *t, const klaw_supervisor_info *s, size_t depth) {
    static const char *const strategies[] = {"one_for_one", "one_for_all", "rest_for_one",
                                             "dynamic"};
    size_t n = 0, shown = 0;
    branch(t, depth);
    fputs(cli_colour(CLI_BOLD), stdout);
    name(s->name);
    printf("%s %s(supervisor %" PRIu64 ", %s%s)%s", cli_colour(CLI_PLAIN), cli_colour(CLI_DIM),
           s->id, strategies[s->strategy & 3], s->stopping ? ", stopping" : "",
           cli_colour(CLI_PLAIN));
    printf(" %" PRIu64 " of %" PRIu64 " running", s->active, s->specs);
    if (s->restarts)
        printf(", %s%" PRIu64 " restart%s%s", cli_colour(CLI_YELLOW), s->restarts,
               s->restarts == 1 ? "" : "s", cli_colour(CLI_PLAIN));
    putchar('\n');
    for (size_t i = 0; i < t->s->n_supervised; i++)
        n += t->s->supervised[i].supervisor_id == s->id;
    for (size_t i = 0; i < t->s->n_supervised; i++) {
        if (t->s->supervised[i].supervisor_id != s->id)
            continue;
        if (shown == t->max) {
            rest(t, depth + 1, n - shown);
            break;
        }
        t->last[depth + 1] = ++shown == n;
        put_child(t, &t->s->supervised[i].child, depth + 1);
    }
}

static bool is_kept(const cli_snapshot *s, const klaw_supervisor_info *sup) {
    if (sup->parent_id && cli_supervisor(s, sup->parent_id))
        return true;
    for (size_t i = 0; i < s->n_supervised; i++)
        if (s->supervised[i].child.kind == KLAW_CHILD_SUPERVISOR &&
            (uint64_t)s->supervised[i].child.id == sup->id)
            return true;
    return false;
}

static bool put_supervisors(struct tree *t) {
    bool any = false;
    for (size_t i = 0; i < t->s->n_supervisors; i++) {
        const klaw_supervisor_info *s = &t->s->supervisors[i];
        if (is_kept(t->s, s))
            continue;
        put_supervisor(t, s, 0);
        any = true;
    }
    return any;
}

/* ---- scopes ---- */

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct owned {
    uint64_t *fibers;
    size_t n;
};

static bool is_owned(const struct owned *o, uint64_t fiber) {
    return o->n && bsearch(&fiber, o->fibers, o->n, sizeof *o->fibers, by_value);
}

static void put_fiber(struct tree *t, const klaw_fiber_info *f, size_t depth) {
    branch(t, depth);
    name(f->name);
    printf(" %s(fiber %" PRIu64 ")%s ", cli_colour(CLI_DIM), f->id, cli_colour(CLI_PLAIN));
    if (f->state != KLAW_FIBER_WAITING) {
        printf("%s%s%s", cli_colour(CLI_GREEN), klaw_fiber_state_name(f->state),
               cli_colour(CLI_PLAIN));
    } else {
        bool on_channel = strcmp(f->waiting_on, "send") == 0 || strcmp(f->waiting_on, "recv") == 0;
        const klaw_channel_stats *c = on_channel ? cli_channel(t->s, f->waiting_id) : NULL;
        printf("waits: %s", f->waiting_on);
        if (c) {
            printf(" on #%" PRIu64 " ", c->id);
            name(c->name);
        } else if (f->waiting_id) {
            printf(" %" PRIu64, f->waiting_id);
        }
        if (f->timed)
            fputs(", with a deadline", stdout);
    }
    puts(f->cancelled ? " (cancelled)" : "");
}

static void put_scope(struct tree *t, const klaw_scope_info *s, const struct owned *owned,
                      size_t depth) {
    size_t n = 0, shown = 0;
    const cli_snapshot *snap = t->s;
    branch(t, depth);
    printf("%s", cli_colour(CLI_BOLD));
    name(s->name);
    printf("%s %s(scope %" PRIu64 "%s)%s", cli_colour(CLI_PLAIN), cli_colour(CLI_DIM), s->id,
           s->shield ? ", shielded" : "", cli_colour(CLI_PLAIN));
    printf(" %" PRIu64 " live", s->live);
    if (s->cancelled) {
        fputs(", cancelled: ", stdout);
        name(s->reason);
    }
    putchar('\n');
    for (size_t i = 0; i < snap->n_fibers; i++)
        n += snap->fibers[i].scope_id == s->id && !is_owned(owned, snap->fibers[i].id);
    for (size_t i = 0; i < snap->n_scopes; i++)
        n += snap->scopes[i].parent_id == s->id && depth < DEPTH_MAX;
    for (size_t i = 0; i < snap->n_fibers; i++) {
        const klaw_fiber_info *f = &snap->fibers[i];
        if (f->scope_id != s->id || is_owned(owned, f->id))
            continue;
        if (shown >= t->max)
            break;
        t->last[depth + 1] = ++shown == n;
        put_fiber(t, f, depth + 1);
    }
    for (size_t i = 0; i < snap->n_scopes && depth < DEPTH_MAX; i++) {
        if (snap->scopes[i].parent_id != s->id)
            continue;
        if (shown >= t->max)
            break;
        t->last[depth + 1] = ++shown == n;
        put_scope(t, &snap->scopes[i], owned, depth + 1);
    }
    if (shown < n)
        rest(t, depth + 1, n - shown);
}

/* The fibers of actors, tasks and supervisors. */
static bool find_owned(const cli_snapshot *s, struct owned *o) {
    o->n = 0;
    o->fibers = calloc(s->n_actors + s->n_tasks + s->n_supervisors + 1, sizeof *o->fibers);
    if (!o->fibers)
        return false;
    for (size_t i = 0; i < s->n_actors; i++)
        o->fibers[o->n++] = s->actors[i].fiber_id;
    for (size_t i = 0; i < s->n_tasks; i++)
        o->fibers[o->n++] = s->tasks[i].fiber_id;
    for (size_t i = 0; i < s->n_supervisors; i++)
        o->fibers[o->n++] = s->supervisors[i].fiber_id;
    qsort(o->fibers, o->n, sizeof *o->fibers, by_value);
    return true;
}

static bool has_supervisor(const cli_snapshot *s, const klaw_actor_stats *a) {
    for (size_t i = 0; i < s->n_supervised; i++)
        if (s->supervised[i].child.kind == KLAW_CHILD_ACTOR &&
            (uint64_t)s->supervised[i].child.id == a->id)
            return true;
    return false;
}

static void put_actors(struct tree *t) {
    const cli_snapshot *s = t->s;
    size_t shown = 0, n = 0;
    for (size_t i = 0; i < s->n_actors; i++)
        n += !has_supervisor(s, &s->actors[i]);
    for (size_t i = 0; i < s->n_actors; i++) {
        const klaw_actor_stats *a = &s->actors[i];
        if (has_supervisor(s, a))
            continue;
        if (shown++ == 0)
            printf("%sactors without a supervisor%s\n", cli_colour(CLI_BOLD),
                   cli_colour(CLI_PLAIN));
        if (shown > t->max)
            continue;
        t->last[1] = shown == n;
        branch(t, 1);
        name(a->name);
        printf(" %s(actor %" PRIu64 ", %s)%s mailbox %" PRIu64 ", handled %" PRIu64 "\n",
               cli_colour(CLI_DIM), a->id, klaw_actor_state_name(a->state), cli_colour(CLI_PLAIN),
               a->mailbox_size, a->handled);
    }
    if (shown > t->max)
        rest(t, 1, shown - t->max);
}

static bool put_all(struct tree *t, bool supervisors_only) {
    struct owned owned = {0};
    bool any = put_supervisors(t);
    if (supervisors_only) {
        if (!any)
            puts("no supervisors");
        return true;
    }
    put_actors(t);
    if (!t->all && !find_owned(t->s, &owned))
        return false;
    for (size_t i = 0; i < t->s->n_scopes; i++)
        if (!cli_scope(t->s, t->s->scopes[i].parent_id))
            put_scope(t, &t->s->scopes[i], &owned, 0);
    free(owned.fibers);
    return true;
}

int cli_run_tree(int argc, char **argv) {
    struct tree t = {.max = 20};
    bool supervisors = false;
    const char *value;
    char *end;
    int id;
    cli_process process;
    cli_link link;
    while ((id = cli_next(&cli_tree, argc, argv, &value)) > 0) {
        switch (id) {
        case 'a': t.all = true; break;
        case 's': supervisors = true; break;
        case 'm':
            t.max = strtoul(value, &end, 10);
            if (*end || t.max < 1 || *value == '-')
                return cli_usage(&cli_tree, "--max does not take '%s'", value);
            break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind + 1 < argc)
        return cli_usage(&cli_tree, "one process at a time");
    if (!cli_choose(&cli_tree, argv[optind], &process))
        return EXIT_TROUBLE;
    cli_snapshot *s = cli_link_open(&link, &process) ? cli_look(&link) : NULL;
    cli_link_close(&link);
    if (!s) {
        fprintf(stderr, "klaw tree: %s\n", link.why);
        return EXIT_TROUBLE;
    }
    t.s = s;
    bool ok = put_all(&t, supervisors);
    cli_snapshot_free(s);
    return ok ? EXIT_FINE : EXIT_TROUBLE;
}
