/* SPDX-License-Identifier: Apache-2.0 */
/* model.c - what a process answers, from JSON to the structs of klaw/inspect.h. Members that are not
 * there are zero and ones that are not known are skipped, so that versions mix. */
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

/* ---- members ---- */

static uint64_t number(const json_t *o, const char *name) {
    const json_t *v = json_object_get(o, name);
    return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
}

static int64_t integer(const json_t *o, const char *name, int64_t otherwise) {
    const json_t *v = json_object_get(o, name);
    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static bool flag(const json_t *o, const char *name) {
    return json_is_true(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name) {
    const char *v = json_string_value(json_object_get(o, name));
    return v ? v : "";
}

/* RFC 3339 in UTC with nanoseconds. */
static int64_t when(const json_t *o, const char *name) {
    struct tm tm = {0};
    const char *s = text(o, name), *rest = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
    int64_t ns = 0, digit = 100000000;
    if (!rest || tm.tm_year < 70 || tm.tm_year > 300) /* what ns since 1970 can say */
        return 0;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, digit /= 10)
            ns += digit * (*rest - '0');
    return (int64_t)timegm(&tm) * 1000000000 + ns;
}

/* ---- items: which members of the JSON go where ---- */

enum type { NONE, NUMBER, INTEGER, FLAG, STRING, NAMED };

typedef struct member {
    const char *name;
    enum type type;
    size_t at, size;
    int64_t otherwise;          /* INTEGER: when it is not there, or null */
    const char *(*text)(int n); /* NAMED: of an enumeration's value */
    int last;                   /* NAMED: its highest value */
} member;

#define AT(m) offsetof(ROW, m), sizeof(((ROW *)0)->m)
#define U(m) \
    { #m, NUMBER, AT(m), 0, NULL, 0 }
#define I(m, otherwise) \
    { #m, INTEGER, AT(m), otherwise, NULL, 0 }
#define B(m) \
    { #m, FLAG, AT(m), 0, NULL, 0 }
#define T(m) \
    { #m, STRING, AT(m), 0, NULL, 0 }
#define E(m, text, last) \
    { #m, NAMED, AT(m), 0, text, last }
#define END \
    { NULL, NONE, 0, 0, 0, NULL, 0 }

static void store(char *to, size_t size, int64_t v) {
    int32_t half = (int32_t)v;
    if (size == sizeof half)
        memcpy(to, &half, sizeof half);
    else
        memcpy(to, &v, sizeof v);
}

static void read_item(const json_t *o, const member *m, void *item) {
    for (; m->name; m++) {
        char *to = (char *)item + m->at;
        switch (m->type) {
        case NUMBER: store(to, m->size, (int64_t)number(o, m->name)); break;
        case INTEGER: store(to, m->size, integer(o, m->name, m->otherwise)); break;
        case FLAG: *(bool *)to = flag(o, m->name); break;
        case STRING: snprintf(to, m->size, "%s", text(o, m->name)); break;
        default:
            for (int i = 0; i <= m->last; i++)
                if (strcmp(m->text(i), text(o, m->name)) == 0)
                    store(to, m->size, i);
        }
    }
}

#define NAMES(function, of, type)        \
    static const char *function(int n) { \
        return of((type)n);              \
    }
NAMES(fiber_state, klaw_fiber_state_name, klaw_fiber_state)
NAMES(actor_state, klaw_actor_state_name, klaw_actor_state)
NAMES(child_kind, klaw_child_kind_name, klaw_child_kind)
NAMES(child_state, klaw_child_state_name, klaw_child_state)
NAMES(host_kind, klaw_host_kind_name, klaw_host_kind)
NAMES(error_name, klaw_err_name, klaw_err)

static const char *strategy(int n) {
    static const char *const names[] = {"one_for_one", "one_for_all", "rest_for_one", "dynamic"};
    return names[n];
}

#define ROW klaw_fiber_info
static const member fiber[] = {U(id),
                               U(scope_id),
                               U(waiting_id),
                               I(age, KLAW_NONE),
                               I(worker, KLAW_NONE),
                               B(pinned),
                               B(cancelled),
                               B(timed),
                               U(waits),
                               T(name),
                               T(waiting_on),
                               E(state, fiber_state, KLAW_FIBER_DONE),
                               END};
#undef ROW
#define ROW klaw_scope_info
static const member scope[] = {
    U(id), U(parent_id), U(live), I(deadline, 0), B(cancelled), B(shield), T(name), T(reason), END};
#undef ROW
#define ROW klaw_worker_info
static const member worker[] = {I(index, 0),     U(turns),    U(steals),   U(parks),
                                U(queue_length), U(fiber_id), B(sleeping), END};
#undef ROW
#define ROW klaw_channel_stats
static const member channel[] = {U(id),
                                 T(name),
                                 T(kind),
                                 U(sender_count),
                                 U(receiver_count),
                                 U(queue_size),
                                 I(capacity, KLAW_UNBOUNDED),
                                 U(high_watermark),
                                 U(total_sent),
                                 U(total_received),
                                 U(waiting_senders),
                                 U(waiting_receivers),
                                 U(permits),
                                 I(created_at, 0),
                                 B(senders_closed),
                                 B(receivers_closed),
                                 I(oldest_age, KLAW_NONE),
                                 END};
#undef ROW
#define ROW klaw_executor_stats
static const member executor[] = {U(id),     T(name),      U(scope_id),  I(concurrency, KLAW_NONE),
                                  U(queued), U(running),   U(submitted), U(succeeded),
                                  U(failed), U(cancelled), U(timed_out), B(closed),
                                  END};
#undef ROW
#define ROW klaw_task_info
static const member task[] = {U(id), T(name), U(executor_id), U(fiber_id), B(running), END};
#undef ROW
#define ROW klaw_actor_stats
static const member actor[] = {U(id),
                               T(name),
                               T(behavior),
                               E(state, actor_state, KLAW_ACTOR_ENDED),
                               U(mailbox_size),
                               I(capacity, KLAW_UNBOUNDED),
                               U(high_watermark),
                               U(handled),
                               U(failed),
                               U(expired),
                               U(restarts),
                               U(incarnation),
                               U(waiting_asks),
                               U(waiting_senders),
                               U(fiber_id),
                               END};
#undef ROW
#define ROW klaw_supervisor_info
static const member supervisor[] = {
    U(id),    T(name),   U(parent_id), U(fiber_id), E(strategy, strategy, 3),
    U(specs), U(active), U(abandoned), U(restarts), B(stopping),
    END};
#undef ROW
#define ROW klaw_child_info
static const member child[] = {T(name),
                               E(kind, child_kind, 8),
                               E(state, child_state, 8),
                               I(id, 0),
                               B(significant),
                               B(abandoned),
                               U(restarts),
                               E(last_error, error_name, 99),
                               T(last_detail),
                               END};
#undef ROW
#define ROW klaw_supervised_info
static const member supervised[] = {U(supervisor_id), END}; /* and those of child */
#undef ROW
#define ROW klaw_wait_info
static const member wait[] = {
    U(channel_id), U(host_id), B(sends), B(timed), E(host, host_kind, KLAW_HOST_RUNTIME), END};
#undef ROW
#define ROW klaw_endpoint_info
static const member endpoint[] = {
    U(channel_id), U(host_id), B(sender), B(used), E(host, host_kind, KLAW_HOST_RUNTIME), END};
#undef ROW
#define ROW klaw_hold_info
static const member hold[] = {U(waiter_id), U(holder_id), T(what), END};
#undef ROW
#define ROW cli_stats
static const member stats[] = {T(program),        T(version),   U(workers), U(fibers),
                               U(channels),       U(executors), U(tasks),   U(actors),
                               U(supervisors),    U(turns),     U(queued),  U(total_sent),
                               U(total_received), U(waiting),   U(handled), U(failed),
                               U(in_mailboxes),   U(restarts),  END};
#undef ROW

/* ---- arrays ---- */

/* Each item begins with the number it is sorted by. */
static int by_first(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static bool load(const json_t *root, const char *name, size_t item_size, const member *members,
                 void **out, size_t *n, bool sorted) {
    const json_t *array = json_object_get(root, name);
    *n = json_array_size(array);
    *out = calloc(*n + 1, item_size);
    if (!*out)
        return false;
    for (size_t i = 0; i < *n; i++)
        read_item(json_array_get(array, i), members, (char *)*out + i * item_size);
    if (sorted && *n > 1)
        qsort(*out, *n, item_size, by_first);
    return true;
}

#define LOAD(s, root, name, members, field, sorted) \
    load(root, name, sizeof *(s)->field, members, (void **)&(s)->field, &(s)->n_##field, sorted)

cli_snapshot *cli_snapshot_parse(const char *json, size_t size, char *why, size_t why_size) {
    json_error_t error;
    json_t *root = json_loadb(json, size, 0, &error);
    cli_snapshot *s = root ? calloc(1, sizeof *s) : NULL;
    if (!json_is_object(root)) {
        snprintf(why, why_size, "its answer makes no sense: %s", root ? "no object" : error.text);
        goto fail;
    }
    snprintf(why, why_size, "no memory");
    if (!s || !LOAD(s, root, "fibers", fiber, fibers, true) ||
        !LOAD(s, root, "scopes", scope, scopes, true) ||
        !LOAD(s, root, "workers", worker, workers, false) ||
        !LOAD(s, root, "channels", channel, channels, true) ||
        !LOAD(s, root, "executors", executor, executors, true) ||
        !LOAD(s, root, "tasks", task, tasks, true) ||
        !LOAD(s, root, "actors", actor, actors, true) ||
        !LOAD(s, root, "supervisors", supervisor, supervisors, true) ||
        !LOAD(s, root, "supervisions", supervised, supervised, false) ||
        !LOAD(s, root, "waits", wait, waits, true) ||
        !LOAD(s, root, "endpoints", endpoint, endpoints, true) ||
        !LOAD(s, root, "holds", hold, holds, true))
        goto fail;
    json_t *children = json_object_get(root, "supervisions");
    for (size_t i = 0; i < s->n_supervised; i++)
        read_item(json_array_get(children, i), child, &s->supervised[i].child);
    s->time = when(root, "time");
    s->truncated = flag(root, "truncated");
    json_decref(root);
    return s;
fail:
    cli_snapshot_free(s);
    json_decref(root);
    return NULL;
}

void cli_snapshot_free(cli_snapshot *s) {
    if (!s)
        return;
    free(s->fibers);
    free(s->scopes);
    free(s->workers);
    free(s->channels);
    free(s->executors);
    free(s->tasks);
    free(s->actors);
    free(s->supervisors);
    free(s->supervised);
    free(s->waits);
    free(s->endpoints);
    free(s->holds);
    free(s);
}

bool cli_stats_parse(const char *json, size_t size, cli_stats *out) {
    json_t *o = json_loadb(json, size, 0, NULL);
    memset(out, 0, sizeof *out);
    if (!json_is_object(o)) {
        json_decref(o);
        return false;
    }
    out->pid = (long)integer(o, "pid", 0);
    out->time = when(o, "time");
    out->open_since = when(o, "open_since");
    read_item(o, stats, out);
    json_decref(o);
    return true;
}

cli_snapshot *cli_look(cli_link *link) {
    size_t size;
    char why[160], *json = cli_ask(link, "snapshot", &size);
    if (!json)
        return NULL;
    cli_snapshot *s = cli_snapshot_parse(json, size, why, sizeof why);
    free(json);
    if (!s)
        snprintf(link->why, sizeof link->why, "process %ld: %.150s", link->process.pid, why);
    return s;
}

/* ---- finding ---- */

#define FIND(name, field, type)                                                                \
    const type *name(const cli_snapshot *s, uint64_t id) {                                     \
        return s->n_##field ? bsearch(&id, s->field, s->n_##field, sizeof *s->field, by_first) \
                            : NULL;                                                            \
    }
FIND(cli_fiber, fibers, klaw_fiber_info)
FIND(cli_scope, scopes, klaw_scope_info)
FIND(cli_channel, channels, klaw_channel_stats)
FIND(cli_executor, executors, klaw_executor_stats)
FIND(cli_actor, actors, klaw_actor_stats)
FIND(cli_supervisor, supervisors, klaw_supervisor_info)

const klaw_task_info *cli_task(const cli_snapshot *s, uint64_t id) {
    const klaw_task_info *t =
        s->n_tasks ? bsearch(&id, s->tasks, s->n_tasks, sizeof *s->tasks, by_first) : NULL;
    while (t && t > s->tasks && t[-1].id == id)
        t--;
    return t;
}

const klaw_task_info *cli_foreign_task(const cli_snapshot *s, uint64_t id) {
    const klaw_task_info *t = cli_task(s, id), *end = s->tasks + s->n_tasks;
    while (t && t < end && t->id == id && t->executor_id != 0)
        t++;
    return t && t < end && t->id == id ? t : NULL;
}

const klaw_hold_info *cli_holds(const cli_snapshot *s, uint64_t waiter) {
    const klaw_hold_info *h =
        s->n_holds ? bsearch(&waiter, s->holds, s->n_holds, sizeof *s->holds, by_first) : NULL;
    while (h && h > s->holds && h[-1].waiter_id == waiter)
        h--;
    return h;
}
