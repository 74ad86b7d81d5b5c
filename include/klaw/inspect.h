/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - what is alive in this process, as structs and as JSON.
 *
 * A snapshot is consistent per object: the numbers of one channel (fiber, scope, worker) belong
 * together, two objects may have been looked at some microseconds apart. Taking one stops
 * nobody; it may be taken in the middle of load, from any thread or fiber. Objects are found by
 * `id`, unique per kind in the process and never used again. */
#ifndef KLAW_INSPECT_H
#define KLAW_INSPECT_H

#include "klaw/actor.h"
#include "klaw/channel.h"
#include "klaw/executor.h"
#include "klaw/supervisor.h"

KLAW_BEGIN

typedef struct klaw_snapshot klaw_snapshot;

/* Where a fiber is in its life. Numbers never change between versions. */
typedef enum klaw_fiber_state {
    KLAW_FIBER_NEW = 0,      /* spawned, has not run yet */
    KLAW_FIBER_RUNNABLE = 1, /* in a queue */
    KLAW_FIBER_RUNNING = 2,  /* on a worker */
    KLAW_FIBER_WAITING = 3,  /* parked, see waiting_on */
    KLAW_FIBER_DONE = 4,     /* ended, not joined yet */
} klaw_fiber_state;

/* The lower-case name of a state, e.g. "waiting"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_fiber_state_name(klaw_fiber_state state);

/* One fiber. */
typedef struct klaw_fiber_info {
    uint64_t id;         /* as klaw_self_id */
    uint64_t scope_id;   /* the scope that waits for it */
    uint64_t waiting_id; /* the channel, fiber, scope or descriptor it waits on; 0: none */
    int64_t age;         /* ns since it was spawned; KLAW_NONE: spawning reads no clock */
    char name[32];       /* NUL-terminated, any bytes */
    /* "send", "recv", "select", "sleep", "join" (a fiber), "scope", "fd", "blocking", "ask" (an
     * actor), "mailbox" (of itself), "task", "executor", "actor" (its end), "tell" (room in an
     * actor's mailbox); "" */
    char waiting_on[16];
    klaw_fiber_state state;
    int32_t worker; /* where it runs, or has to (pinned); else KLAW_NONE */
    bool pinned;
    bool cancelled; /* its waits answer CANCELLED */
    bool timed;     /* the wait has a deadline */
    uint64_t waits; /* how often it has waited: the same number twice, and it has not moved */
} klaw_fiber_info;

/* One scope. */
typedef struct klaw_scope_info {
    uint64_t id;
    uint64_t parent_id;     /* 0: the root scope */
    uint64_t live;          /* fibers of its own that have not ended */
    klaw_deadline deadline; /* ns of CLOCK_MONOTONIC; 0: none */
    char name[32];
    char reason[64]; /* why it was cancelled; "" */
    bool cancelled;  /* by itself or from outside */
    bool shield;
} klaw_scope_info;

/* One worker thread. */
typedef struct klaw_worker_info {
    uint64_t turns;        /* fibers resumed */
    uint64_t steals;       /* times it took work from another worker */
    uint64_t parks;        /* times it went to sleep */
    uint64_t queue_length; /* runnable fibers in its own queue, the next slot included */
    uint64_t fiber_id;     /* the fiber on it now; 0: none */
    int32_t index;
    bool sleeping;
} klaw_worker_info;

/* One task of an executor that has not ended. */
typedef struct klaw_task_info {
    uint64_t id;          /* as klaw_task_id */
    uint64_t executor_id; /* as klaw_executor_stats */
    uint64_t fiber_id;    /* the fiber that runs it; 0: it waits for its turn */
    char name[32];
    bool running;
} klaw_task_info;

/* One supervisor that has not ended. */
typedef struct klaw_supervisor_info {
    uint64_t id;        /* as klaw_supervisor_id */
    uint64_t parent_id; /* the supervisor it is a child of; 0: none */
    uint64_t fiber_id;  /* the fiber that does its work */
    uint64_t specs;     /* children it knows; so the next ones, see klaw_supervisor_counts */
    uint64_t active;
    uint64_t abandoned;
    uint64_t restarts;
    char name[KLAW_CHILD_NAME_MAX + 1];
    klaw_strategy strategy;
    bool stopping; /* it has been asked to stop */
} klaw_supervisor_info;

/* What can wait, and hold endpoints. Numbers never change between versions. */
typedef enum klaw_host_kind {
    KLAW_HOST_UNKNOWN = 0, /* nobody knows */
    KLAW_HOST_FIBER = 1,   /* its number is klaw_self_id's */
    KLAW_HOST_THREAD = 2,  /* the kernel's number of the thread */
    KLAW_HOST_FOREIGN = 3, /* an operation of an event loop; see klaw_op_label */
    KLAW_HOST_RUNTIME = 4, /* klaw itself: signals, tickers, ends of actors */
} klaw_host_kind;

/* The lower-case name of a kind, e.g. "fiber"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_host_kind_name(klaw_host_kind kind);

/* Somebody who waits on a channel; a select is on several. */
typedef struct klaw_wait_info {
    uint64_t channel_id; /* what it waits on */
    uint64_t host_id;    /* who; 0: no number */
    klaw_host_kind host; /* of what kind */
    bool sends;          /* for room; else for an element */
    bool timed;          /* it has a deadline; false for a foreign one: nobody knows */
} klaw_wait_info;

/* An endpoint that is not closed, and who used it last: the best there is to know about who holds
 * it. Noted while the process is open to inspection. */
typedef struct klaw_endpoint_info {
    uint64_t channel_id; /* of the channel */
    uint64_t host_id;    /* who; 0: no number */
    klaw_host_kind host; /* of what kind */
    bool sender;         /* which side */
    bool used;           /* it has sent or received; else it has only made the endpoint */
} klaw_endpoint_info;

/* One child of a supervisor. */
typedef struct klaw_supervised_info {
    uint64_t supervisor_id;
    klaw_child_info child;
} klaw_supervised_info;

/* Takes a snapshot, to be given back by klaw_snapshot_free. With no runtime it holds the
 * channels alone. Errors: INVALID (NULL), NOMEM. From any thread or fiber; never waits. */
KLAW_API KLAW_MUST klaw_err klaw_snapshot_take(klaw_snapshot **out);
/* Gives it back. NULL allowed. */
KLAW_API void klaw_snapshot_free(klaw_snapshot *snap);

/* When it was taken, in ns of CLOCK_REALTIME. */
KLAW_API int64_t klaw_snapshot_time(const klaw_snapshot *snap);
/* Whether objects are missing because more and more were made faster than it could look. */
KLAW_API bool klaw_snapshot_truncated(const klaw_snapshot *snap);

/* The objects of one kind: an array of *n (in no particular order), owned by the snapshot; NULL
 * when there are none. n is not NULL. */
KLAW_API const klaw_fiber_info *klaw_snapshot_fibers(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_scope_info *klaw_snapshot_scopes(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_worker_info *klaw_snapshot_workers(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_channel_stats *klaw_snapshot_channels(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_executor_stats *klaw_snapshot_executors(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_task_info *klaw_snapshot_tasks(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_actor_stats *klaw_snapshot_actors(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_supervisor_info *klaw_snapshot_supervisors(const klaw_snapshot *snap,
                                                               size_t *n);
/* Who waits on channels, and who holds them. */
KLAW_API const klaw_wait_info *klaw_snapshot_waits(const klaw_snapshot *snap, size_t *n);
KLAW_API const klaw_endpoint_info *klaw_snapshot_endpoints(const klaw_snapshot *snap, size_t *n);
/* Children of one supervisor stand together, in the order of their start. */
KLAW_API const klaw_supervised_info *klaw_snapshot_supervised(const klaw_snapshot *snap, size_t *n);

/* The snapshot as one JSON object (RFC 8259, UTF-8, NUL-terminated): "version", "time" (RFC
 * 3339), "truncated" and one array per kind: "workers", "scopes", "fibers", "channels",
 * "executors", "tasks", "actors", "supervisors", "supervisions" (their children), "waits",
 * "endpoints", "names" (registry.h), "holds" (publish.h). Members are named as the fields above; no deadline, no worker and no bound are
 * null; bytes in names that are not UTF-8 become U+FFFD. *text is the caller's, for klaw_snapshot_text_free; *size (may be NULL)
 * is its length without the NUL. Errors: INVALID, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_snapshot_json(const klaw_snapshot *snap, char **text,
                                               size_t *size);
/* Gives the text back. NULL allowed. */
KLAW_API void klaw_snapshot_text_free(char *text);

/* --- from outside ---
 * A process that is open to inspection answers the `klaw` command (klaw top, klaw doctor, …) of the
 * same user on a socket of its own: $XDG_RUNTIME_DIR/klaw/<pid>.sock, or /tmp/klaw-<uid>/<pid>.sock
 * where that folder is not there. The folder's mode is 0700 and the socket's 0600; who is not the same user
 * or root is refused; no port is opened. One thread waits there, and costs nothing while nobody
 * asks; meanwhile each channel notes who uses it and the age of what lies in it, which is a compare, and now
 * and then a store, an operation. A process is opened by KLAW_INSPECT=1 in its environment (read by klaw_run and klaw_init), by
 * the option `inspect` of either, or by klaw_inspect_open. */

/* Opens the process; again: OK, and nothing changes. Errors: SYSTEM (the folder can't be made or
 * belongs to somebody else, no socket, no thread; info->message says which; info may be NULL),
 * NOMEM, STOPPED (the child of a fork). From a thread or a fiber; it makes a few system calls. */
KLAW_API KLAW_MUST klaw_err klaw_inspect_open(klaw_error_info *info);
/* Closes it, and takes the socket away; who is being answered sees the connection end. Nothing happens when it is not open. The end
 * of the process does the same. From a thread or a fiber. */
KLAW_API void klaw_inspect_close(void);
/* Copies the path of the socket, with its NUL; 108 bytes always do. Errors: NOT_FOUND (not open), LIMIT, INVALID
 * (NULL). */
KLAW_API KLAW_MUST klaw_err klaw_inspect_path(char *path, size_t size);

KLAW_END

#endif
