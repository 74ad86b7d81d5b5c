/* SPDX-License-Identifier: Apache-2.0 */
/* model.c - what a process answers, from JSON to the structs of klaw/inspect.h. Members that are not
 * there are zero and ones that are not known are skipped, so that versions mix. */
#include <jansson.h>
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
#define TEXT(o, item, field) snprintf((item)->field, sizeof(item)->field, "%s", text(o, #field))

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

#define ENUM(out, type, from, name_of, last)            \
    do {                                                \
        for (int i_ = 0; i_ <= (int)(last); i_++)       \
            if (strcmp(name_of((type)i_), (from)) == 0) \
                (out) = (type)i_;                       \
    } while (0)

/* ---- items ---- */

static void fiber(const json_t *o, void *item) {
    klaw_fiber_info *f = item;
    f->id = number(o, "id");
    f->scope_id = number(o, "scope_id");
    f->waiting_id = number(o, "waiting_id");
    f->age = integer(o, "age", KLAW_NONE);
    f->worker = (int32_t)integer(o, "worker", KLAW_NONE);
    f->pinned = flag(o, "pinned");
    f->cancelled = flag(o, "cancelled");
    f->timed = flag(o, "timed");
    f->waits = number(o, "waits");
    TEXT(o, f, name);
    TEXT(o, f, waiting_on);
    ENUM(f->state, klaw_fiber_state, text(o, "state"), klaw_fiber_state_name, KLAW_FIBER_DONE);
}

static void scope(const json_t *o, void *item) {
    klaw_scope_info *s = item;
    s->id = number(o, "id");
    s->parent_id = number(o, "parent_id");
    s->live = number(o, "live");
    s->deadline = integer(o, "deadline", 0);
    s->cancelled = flag(o, "cancelled");
    s->shield = flag(o, "shield");
    TEXT(o, s, name);
    TEXT(o, s, reason);
}

static void worker(const json_t *o, void *item) {
    klaw_worker_info *w = item;
    w->index = (int32_t)integer(o, "index", 0);
    w->turns = number(o, "turns");
    w->steals = number(o, "steals");
    w->parks = number(o, "parks");
    w->queue_length = number(o, "queue_length");
    w->fiber_id = number(o, "fiber_id");
    w->sleeping = flag(o, "sleeping");
}

static void channel(const json_t *o, void *item) {
    klaw_channel_stats *c = item;
    c->id = number(o, "id");
    TEXT(o, c, name);
    TEXT(o, c, kind);
    c->sender_count = number(o, "sender_count");
    c->receiver_count = number(o, "receiver_count");
    c->queue_size = number(o, "queue_size");
    c->capacity = integer(o, "capacity", KLAW_UNBOUNDED);
    c->high_watermark = number(o, "high_watermark");
    c->total_sent = number(o, "total_sent");
    c->total_received = number(o, "total_received");
    c->waiting_senders = number(o, "waiting_senders");
    c->waiting_receivers = number(o, "waiting_receivers");
    c->permits = number(o, "permits");
    c->created_at = integer(o, "created_at", 0);
    c->senders_closed = flag(o, "senders_closed");
    c->receivers_closed = flag(o, "receivers_closed");
    c->oldest_age = integer(o, "oldest_age", KLAW_NONE);
}

static void executor(const json_t *o, void *item) {
    klaw_executor_stats *e = item;
    e->id = number(o, "id");
    TEXT(o, e, name);
    e->scope_id = number(o, "scope_id");
    e->concurrency = integer(o, "concurrency", KLAW_NONE);
    e->queued = number(o, "queued");
    e->running = number(o, "running");
    e->submitted = number(o, "submitted");
    e->succeeded = number(o, "succeeded");
    e->failed = number(o, "failed");
    e->cancelled = number(o, "cancelled");
    e->timed_out = number(o, "timed_out");
    e->closed = flag(o, "closed");
}

static void task(const json_t *o, void *item) {
    klaw_task_info *t = item;
    t->id = number(o, "id");
    TEXT(o, t, name);
    t->executor_id = number(o, "executor_id");
    t->fiber_id = number(o, "fiber_id");
    t->running = flag(o, "running");
}

static void actor(const json_t *o, void *item) {
    klaw_actor_stats *a = item;
    a->id = number(o, "id");
    TEXT(o, a, name);
    TEXT(o, a, behavior);
    ENUM(a->state, klaw_actor_state, text(o, "state"), klaw_actor_state_name, KLAW_ACTOR_ENDED);
    a->mailbox_size = number(o, "mailbox_size");
    a->capacity = integer(o, "capacity", KLAW_UNBOUNDED);
    a->high_watermark = number(o, "high_watermark");
    a->handled = number(o, "handled");
    a->failed = number(o, "failed");
    a->expired = number(o, "expired");
    a->restarts = number(o, "restarts");
    a->incarnation = number(o, "incarnation");
    a->waiting_asks = number(o, "waiting_asks");
    a->waiting_senders = number(o, "waiting_senders");
    a->fiber_id = number(o, "fiber_id");
}

static void supervisor(const json_t *o, void *item) {
    static const char *const strategies[] = {"one_for_one", "one_for_all", "rest_for_one",
                                             "dynamic"};
    klaw_supervisor_info *s = item;
    s->id = number(o, "id");
    TEXT(o, s, name);
    s->parent_id = number(o, "parent_id");
    s->fiber_id = number(o, "fiber_id");
    for (int i = 0; i < 4; i++)
        if (strcmp(strategies[i], text(o, "strategy")) == 0)
            s->strategy = (klaw_strategy)i;
    s->specs = number(o, "specs");
    s->active = number(o, "active");
    s->abandoned = number(o, "abandoned");
    s->restarts = number(o, "restarts");
    s->stopping = flag(o, "stopping");
}

static klaw_err error_of(const char *name) {
    for (int i = 0; i < 100; i++)
        if (strcmp(klaw_err_name((klaw_err)i), name) == 0)
            return (klaw_err)i;
    return KLAW_OK;
}

static void supervised(const json_t *o, void *item) {
    klaw_supervised_info *s = item;
    klaw_child_info *c = &s->child;
    s->supervisor_id = number(o, "supervisor_id");
    TEXT(o, c, name);
    ENUM(c->kind, klaw_child_kind, text(o, "kind"), klaw_child_kind_name, 8);
    ENUM(c->state, klaw_child_state, text(o, "state"), klaw_child_state_name, 8);
    c->id = integer(o, "id", 0);
    c->significant = flag(o, "significant");
    c->abandoned = flag(o, "abandoned");
    c->restarts = number(o, "restarts");
    c->last_error = error_of(text(o, "last_error"));
    TEXT(o, c, last_detail);
}

static void wait(const json_t *o, void *item) {
    klaw_wait_info *w = item;
    w->channel_id = number(o, "channel_id");
    w->host_id = number(o, "host_id");
    w->sends = flag(o, "sends");
    w->timed = flag(o, "timed");
    ENUM(w->host, klaw_host_kind, text(o, "host"), klaw_host_kind_name, KLAW_HOST_FOREIGN);
}

static void endpoint(const json_t *o, void *item) {
    klaw_endpoint_info *e = item;
    e->channel_id = number(o, "channel_id");
    e->host_id = number(o, "host_id");
    e->sender = flag(o, "sender");
    e->used = flag(o, "used");
    ENUM(e->host, klaw_host_kind, text(o, "host"), klaw_host_kind_name, KLAW_HOST_FOREIGN);
}

static void hold(const json_t *o, void *item) {
    klaw_hold_info *h = item;
    h->waiter_id = number(o, "waiter_id");
    h->holder_id = number(o, "holder_id");
    TEXT(o, h, what);
}

/* ---- arrays ---- */

/* Each item begins with the number it is sorted by. */
static int by_first(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static bool load(const json_t *root, const char *name, size_t item_size,
                 void (*read)(const json_t *o, void *item), void **out, size_t *n, bool sorted) {
    const json_t *array = json_object_get(root, name);
    *n = json_array_size(array);
    *out = calloc(*n + 1, item_size);
    if (!*out)
        return false;
    for (size_t i = 0; i < *n; i++)
        read(json_array_get(array, i), (char *)*out + i * item_size);
    if (sorted && *n > 1)
        qsort(*out, *n, item_size, by_first);
    return true;
}

#define LOAD(s, root, name, read, field, sorted) \
    load(root, name, sizeof *(s)->field, read, (void **)&(s)->field, &(s)->n_##field, sorted)

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
    TEXT(o, out, program);
    TEXT(o, out, version);
    out->time = when(o, "time");
    out->open_since = when(o, "open_since");
    out->workers = number(o, "workers");
    out->fibers = number(o, "fibers");
    out->channels = number(o, "channels");
    out->executors = number(o, "executors");
    out->tasks = number(o, "tasks");
    out->actors = number(o, "actors");
    out->supervisors = number(o, "supervisors");
    out->turns = number(o, "turns");
    out->queued = number(o, "queued");
    out->total_sent = number(o, "total_sent");
    out->total_received = number(o, "total_received");
    out->waiting = number(o, "waiting");
    out->handled = number(o, "handled");
    out->failed = number(o, "failed");
    out->in_mailboxes = number(o, "in_mailboxes");
    out->restarts = number(o, "restarts");
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
