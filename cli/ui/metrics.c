/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.c - what processes answer, in Prometheus's text format.
 *
 * A family is written as a whole (HELP, TYPE, then its samples of all processes), as the format wants; so all snapshots are
 * held at once. Names end in _total where they only grow. */
#include "metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../client.h"

typedef struct look {
    cli_process process;
    cli_snapshot *snapshot;
    cli_stats stats;
} look;

/* A label's value: backslash, quote and newline are escaped, what is not printable ASCII or UTF-8 becomes '?'. */
static void put_value(FILE *out, const char *text) {
    char clean[256];
    cli_clean(clean, sizeof clean, text, 128);
    for (const char *p = clean; *p; p++)
        if (*p == '\\' || *p == '"')
            fprintf(out, "\\%c", *p);
        else
            fputc(*p, out);
}

static void put_family(FILE *out, const char *name, const char *type, const char *help) {
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{pid="…",program="…"  without the closing brace */
static void put_head(FILE *out, const char *name, const look *l) {
    fprintf(out, "%s{pid=\"%ld\",program=\"", name, l->process.pid);
    put_value(out, l->stats.program);
    fputc('"', out);
}

static void put_named(FILE *out, const char *metric, const look *l, const char *label,
                      const char *name, uint64_t id, const char *kind, const char *what) {
    put_head(out, metric, l);
    fprintf(out, ",%s=\"", label);
    put_value(out, name);
    fprintf(out, "\",id=\"%" PRIu64 "\"", id);
    if (kind) {
        fprintf(out, ",%s=\"", kind);
        put_value(out, what);
        fputc('"', out);
    }
    fputs("} ", out);
}

#define PROCESS(metric, type, help, field)                         \
    do {                                                           \
        put_family(out, metric, type, help);                       \
        for (size_t i = 0; i < n; i++) {                           \
            put_head(out, metric, &looks[i]);                      \
            fprintf(out, "} %" PRIu64 "\n", looks[i].stats.field); \
        }                                                          \
    } while (0)

static void put_processes(FILE *out, const look *looks, size_t n) {
    PROCESS("klaw_workers", "gauge", "Worker threads.", workers);
    PROCESS("klaw_fibers", "gauge", "Fibers that have not ended.", fibers);
    PROCESS("klaw_tasks", "gauge", "Tasks of executors that have not ended.", tasks);
    PROCESS("klaw_channels", "gauge", "Channels.", channels);
    PROCESS("klaw_actors", "gauge", "Actors.", actors);
    PROCESS("klaw_turns_total", "counter", "Times a fiber was resumed.", turns);
    PROCESS("klaw_sent_total", "counter", "Elements sent, over all channels that exist.",
            total_sent);
    PROCESS("klaw_received_total", "counter", "Elements received, over all channels that exist.",
            total_received);
    PROCESS("klaw_restarts_total", "counter", "Restarts of actors and children that exist.",
            restarts);
}

#define CHANNEL(metric, type, help, format, value)                                             \
    do {                                                                                       \
        put_family(out, metric, type, help);                                                   \
        for (size_t i = 0; i < n; i++)                                                         \
            for (size_t k = 0; k < looks[i].snapshot->n_channels; k++) {                       \
                const klaw_channel_stats *c = &looks[i].snapshot->channels[k];                 \
                put_named(out, metric, &looks[i], "channel", c->name, c->id, "kind", c->kind); \
                fprintf(out, format "\n", value);                                              \
            }                                                                                  \
    } while (0)

static void put_channels(FILE *out, const look *looks, size_t n) {
    CHANNEL("klaw_channel_depth", "gauge", "Elements that wait.", "%" PRIu64, c->queue_size);
    CHANNEL("klaw_channel_capacity", "gauge", "Elements it holds; -1 rendezvous, -2 no bound.",
            "%" PRId64, c->capacity);
    CHANNEL("klaw_channel_high_watermark", "gauge", "The most that ever waited.", "%" PRIu64,
            c->high_watermark);
    CHANNEL("klaw_channel_sent_total", "counter", "Elements sent.", "%" PRIu64, c->total_sent);
    CHANNEL("klaw_channel_received_total", "counter", "Elements received.", "%" PRIu64,
            c->total_received);
    CHANNEL("klaw_channel_waiting_senders", "gauge", "Senders that wait for room.", "%" PRIu64,
            c->waiting_senders);
    CHANNEL("klaw_channel_waiting_receivers", "gauge", "Receivers that wait for an element.",
            "%" PRIu64, c->waiting_receivers);
}

#define ACTOR(metric, type, help, value)                                                \
    do {                                                                                \
        put_family(out, metric, type, help);                                            \
        for (size_t i = 0; i < n; i++)                                                  \
            for (size_t k = 0; k < looks[i].snapshot->n_actors; k++) {                  \
                const klaw_actor_stats *a = &looks[i].snapshot->actors[k];              \
                put_named(out, metric, &looks[i], "actor", a->name, a->id, NULL, NULL); \
                fprintf(out, "%" PRIu64 "\n", (uint64_t)(value));                       \
            }                                                                           \
    } while (0)

static void put_actors(FILE *out, const look *looks, size_t n) {
    ACTOR("klaw_actor_mailbox", "gauge", "Messages that wait.", a->mailbox_size);
    ACTOR("klaw_actor_handled_total", "counter", "Messages handled.", a->handled);
    ACTOR("klaw_actor_failed_total", "counter", "Failures.", a->failed);
    ACTOR("klaw_actor_restarts_total", "counter", "Restarts.", a->restarts);
    put_family(out, "klaw_supervisor_restarts_total", "counter",
               "Restarts of a supervisor's children.");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < looks[i].snapshot->n_supervisors; k++) {
            const klaw_supervisor_info *s = &looks[i].snapshot->supervisors[k];
            put_named(out, "klaw_supervisor_restarts_total", &looks[i], "supervisor", s->name,
                      s->id, NULL, NULL);
            fprintf(out, "%" PRIu64 "\n", (uint64_t)s->restarts);
        }
}

static bool look_at(look *l) {
    cli_link link;
    size_t size;
    bool ok = false;
    if (!cli_link_open(&link, &l->process))
        return false;
    char *answer = cli_ask(&link, "stats", &size);
    if (answer && cli_stats_parse(answer, size, &l->stats))
        ok = (l->snapshot = cli_look(&link)) != NULL;
    free(answer);
    cli_link_close(&link);
    return ok;
}

char *cli_metrics(size_t *size) {
    cli_process *processes = NULL;
    size_t found = 0, n = 0;
    char *text = NULL;
    if (!cli_processes(&processes, &found))
        return NULL;
    look *looks = calloc(found ? found : 1, sizeof *looks);
    FILE *out = looks ? open_memstream(&text, size) : NULL;
    if (out) {
        for (size_t i = 0; i < found; i++) {
            looks[n].process = processes[i];
            n += look_at(&looks[n]); /* one that has ended meanwhile is left out */
        }
        put_processes(out, looks, n);
        put_channels(out, looks, n);
        put_actors(out, looks, n);
        for (size_t i = 0; i < n; i++)
            cli_snapshot_free(looks[i].snapshot);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    free(looks);
    free(processes);
    return text;
}
