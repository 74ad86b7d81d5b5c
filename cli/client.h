/* SPDX-License-Identifier: Apache-2.0 */
/* client.h - finding the processes that are open to inspection, and asking them. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <klaw/inspect.h>
#include <klaw/publish.h>

#include "cli.h"

/* A process that answers. */
typedef struct cli_process {
    long pid;
    char path[108]; /* of its socket */
} cli_process;

/* The processes of this user whose sockets are there, by number; *out is the caller's, for free().
 * Sockets that nobody listens at are removed. False: no memory. */
bool cli_processes(cli_process **out, size_t *n);

/* A connection. */
typedef struct cli_link {
    cli_process process;
    int fd;        /* -1: closed */
    int patience;  /* ms without a byte; cli_link_open sets 10 s */
    char why[200]; /* why the last call failed */
} cli_link;

/* A descriptor that, when it is readable, ends every wait for an answer: the user has something to say. -1: none. */
extern int cli_wake_fd;

bool cli_link_open(cli_link *link, const cli_process *process);
void cli_link_close(cli_link *link);
/* The JSON of "snapshot", "stats", "waits" or "look", NUL-terminated, the caller's for free(). NULL: link->why, and the link is closed. It is
 * opened again first when it was closed. */
char *cli_ask(cli_link *link, const char *what, size_t *size);

/* The one process that a verb is about: `text` is its number or the name of its program; NULL: the only
 * one there is. False: told on stderr. */
bool cli_choose(const cli_verb *verb, const char *text, cli_process *out);

/* ---- model.c: an answer as structs ---- */

typedef struct cli_snapshot {
    int64_t time; /* ns of CLOCK_REALTIME */
    bool truncated;
    klaw_fiber_info *fibers;
    klaw_scope_info *scopes;
    klaw_worker_info *workers;
    klaw_channel_stats *channels;
    klaw_executor_stats *executors;
    klaw_task_info *tasks;
    klaw_actor_stats *actors;
    klaw_supervisor_info *supervisors;
    klaw_supervised_info *supervised;
    klaw_wait_info *waits;
    klaw_endpoint_info *endpoints;
    klaw_hold_info *holds;
    size_t n_fibers, n_scopes, n_workers, n_channels, n_executors, n_tasks, n_actors, n_supervisors,
        n_supervised, n_waits, n_endpoints, n_holds;
} cli_snapshot;

/* Numbers of "stats". */
typedef struct cli_stats {
    long pid;
    char program[64], version[32];
    int64_t time, open_since; /* ns of CLOCK_REALTIME */
    uint64_t workers, fibers, channels, executors, tasks, actors, supervisors;
    uint64_t turns, queued, total_sent, total_received, waiting, handled, failed, in_mailboxes,
        restarts;
} cli_stats;

/* Arrays are sorted by id. NULL: it is not what a process answers, or no memory; why says which. */
cli_snapshot *cli_snapshot_parse(const char *json, size_t size, char *why, size_t why_size);
void cli_snapshot_free(cli_snapshot *s);
bool cli_stats_parse(const char *json, size_t size, cli_stats *out);

/* Asks and parses; NULL: link->why. */
cli_snapshot *cli_look(cli_link *link);

/* By number; NULL: it is not there (any more). */
const klaw_fiber_info *cli_fiber(const cli_snapshot *s, uint64_t id);
const klaw_scope_info *cli_scope(const cli_snapshot *s, uint64_t id);
const klaw_channel_stats *cli_channel(const cli_snapshot *s, uint64_t id);
const klaw_executor_stats *cli_executor(const cli_snapshot *s, uint64_t id);
/* Tasks are numbered within their executor: the first of those with that number, which stand together. */
const klaw_task_info *cli_task(const cli_snapshot *s, uint64_t id);
/* The one of an event loop (klaw_op_label). */
const klaw_task_info *cli_foreign_task(const cli_snapshot *s, uint64_t id);
/* The first of the rows of a task that waits, which stand together; NULL: it is not known to wait. */
const klaw_hold_info *cli_holds(const cli_snapshot *s, uint64_t waiter);
const klaw_actor_stats *cli_actor(const cli_snapshot *s, uint64_t id);
const klaw_supervisor_info *cli_supervisor(const cli_snapshot *s, uint64_t id);

#endif
