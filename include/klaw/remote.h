/* SPDX-License-Identifier: Apache-2.0 */
/* remote.h - named channels shared with other processes and machines, and functions that run there, on
 * Ray.
 *
 *     klaw_error_info info;
 *     klaw_sender *tx;
 *     klaw_err e = klaw_remote_channel("numbers", &klaw_u64, NULL, &tx, NULL, &info);
 *     if (e)
 *         fprintf(stderr, "%s: %s\n", klaw_err_text(e), info.message);
 *     …
 *     e = klaw_send(tx, &(uint64_t){42}, KLAW_WITHIN(KLAW_S(10)));
 *
 * The endpoints are the ones of channel.h; transport.h says what differs when the channel is not in the
 * process. Python shares such a channel by channel("numbers", backend="ray", codec="msgpack") or
 * get_channel: it sees int for klaw_u64 and klaw_i64, float for klaw_f64, str for klaw_text, bytes for
 * klaw_bytes and for what the `encode` of any other type gives (or, with .packed, the objects whose
 * MessagePack that is). What does not decode is reported by KLAW_TYPE, once, in its place.
 *
 * Ray's part is in libklaw_ray.so, which starts a Python interpreter inside the process (or uses the one
 * that is there) and joins a cluster. It is loaded by the first call of this header; nothing else of klaw
 * needs Python. When something of it is missing the call answers KLAW_BACKEND and info->message says
 * what to do: no libklaw_ray, no Python or another version of it, no klaw_core or Ray in it, nobody at
 * the address, a token that is refused.
 *
 * Environment: KLAW_RAY_LIBRARY, the path of libklaw_ray.so (else: beside libklaw, then as the system
 * finds it). KLAW_PYTHON, the interpreter whose libraries and packages are used (else: that of the
 * environment whose klaw_core has this libklaw_ray, else python3.x in the PATH); its minor version has to
 * be the one libklaw_ray was built for. RAY_ADDRESS, RAY_AUTH_MODE and
 * what else Ray itself looks at. KLAW_RAY_NAMESPACE, where names are when nobody says.
 *
 * All functions here wait: from a fiber they park it, from a plain thread they put it to sleep. A thread
 * that holds the lock (GIL) of the Python that is in the process would wait for ever: those that wait for
 * an answer refuse it with KLAW_BACKEND. C code that Python calls releases it around the call
 * (Py_BEGIN_ALLOW_THREADS; ctypes.CDLL does, ctypes.PyDLL does not). */
#ifndef KLAW_REMOTE_H
#define KLAW_REMOTE_H

#include "klaw/transport.h"

KLAW_BEGIN

/* Which cluster, which channel; all zero is the default. */
typedef struct klaw_remote_opts {
    const char
        *address; /* "host:port", "auto", or "local" (starts a Ray that ends with the process);
                               NULL: RAY_ADDRESS, else the Ray that runs on this machine. The first call of
                               the process decides */
    const char *namespace_; /* of names; NULL: KLAW_RAY_NAMESPACE, else "klaw" */
    int64_t timeout_ns;  /* how long joining the cluster and finding the actor may take; 0: 60 s */
    int64_t capacity;    /* elements; 0: 10 000; KLAW_UNBOUNDED; of a channel that is made */
    klaw_remote_ack ack; /* when an element counts as received; of a channel that is made */
    bool durable;        /* confirmed elements survive the channel's actor; of one that is made */
    bool packed;         /* the type's encode and decode speak MessagePack */
    uint32_t ahead;      /* elements kept here beyond what is asked for; 0: 32 */
    int64_t linger_ns;   /* how long leaving may take; 0: 3 s */
} klaw_remote_opts;

/* See klaw_remote_channel. */
KLAW_API KLAW_MUST klaw_err klaw_remote_channel_sized(const char *name, const klaw_type *type,
                                                      const klaw_remote_opts *opts,
                                                      size_t opts_size, klaw_sender **tx,
                                                      klaw_receiver **rx, klaw_error_info *info);
/* Joins the channel of that name, or makes it. tx or rx may be NULL: then the channel does not see a
 * sender, or a receiver, of this process (it closes when the last one of a side has gone). It lives on
 * when the process ends, until klaw_remote_delete. Errors, told in info (NULL: nobody wants to know):
 * BACKEND; EXISTS: it is there and another (kind, capacity, or a channel of pickled objects); INVALID,
 * TYPE, LIMIT, NOMEM, SYSTEM: as klaw_remote_open; TIMEOUT: of opts; CANCELLED. */
static inline KLAW_MUST klaw_err klaw_remote_channel(const char *name, const klaw_type *type,
                                                     const klaw_remote_opts *opts, klaw_sender **tx,
                                                     klaw_receiver **rx, klaw_error_info *info) {
    return klaw_remote_channel_sized(name, type, opts, sizeof(klaw_remote_opts), tx, rx, info);
}

/* See klaw_remote_get. */
KLAW_API KLAW_MUST klaw_err klaw_remote_get_sized(const char *name, const klaw_type *type,
                                                  const klaw_remote_opts *opts, size_t opts_size,
                                                  klaw_sender **tx, klaw_receiver **rx,
                                                  klaw_error_info *info);
/* The same for one that is there: NOT_FOUND when it is not. Capacity, ack and durability are the
 * channel's. */
static inline KLAW_MUST klaw_err klaw_remote_get(const char *name, const klaw_type *type,
                                                 const klaw_remote_opts *opts, klaw_sender **tx,
                                                 klaw_receiver **rx, klaw_error_info *info) {
    return klaw_remote_get_sized(name, type, opts, sizeof(klaw_remote_opts), tx, rx, info);
}

/* See klaw_remote_delete. */
KLAW_API KLAW_MUST klaw_err klaw_remote_delete_sized(const char *name, const klaw_remote_opts *opts,
                                                     size_t opts_size, klaw_error_info *info);
/* Ends a channel for everyone: all operations on it answer CLOSED from now on. NOT_FOUND, BACKEND,
 * INVALID, TIMEOUT, CANCELLED. */
static inline KLAW_MUST klaw_err klaw_remote_delete(const char *name, const klaw_remote_opts *opts,
                                                    klaw_error_info *info) {
    return klaw_remote_delete_sized(name, opts, sizeof(klaw_remote_opts), info);
}

/* See klaw_remote_list. */
KLAW_API KLAW_MUST klaw_err klaw_remote_list_sized(const klaw_remote_opts *opts, size_t opts_size,
                                                   bool (*visit)(void *user, const char *name),
                                                   void *user, klaw_error_info *info);
/* Visits the names of the namespace's channels in order; a visit that returns false ends it. A name is
 * borrowed for its visit. BACKEND, INVALID, NOMEM, TIMEOUT, CANCELLED. */
static inline KLAW_MUST klaw_err klaw_remote_list(const klaw_remote_opts *opts,
                                                  bool (*visit)(void *user, const char *name),
                                                  void *user, klaw_error_info *info) {
    return klaw_remote_list_sized(opts, sizeof(klaw_remote_opts), visit, user, info);
}

/* --- looking in, without becoming an endpoint --- */

/* What the actor of a channel knows. Counts are items and endpoints since the channel was made. */
typedef struct klaw_remote_counts {
    klaw_remote_kind kind;   /* what it is */
    klaw_remote_ack ack;     /* when an item counts as received */
    bool durable;            /* confirmed items survive the actor */
    bool senders_closed;     /* no more can be sent */
    bool receivers_closed;   /* nobody will receive */
    bool gathering;          /* its actor restarted, and clients may still report */
    int64_t capacity;        /* items (BROADCAST: a receiver); KLAW_UNBOUNDED: no bound */
    int64_t created_at;      /* ns since 1970 */
    uint64_t senders;        /* open endpoints */
    uint64_t receivers;      /* open endpoints */
    uint64_t queued;         /* items that wait */
    uint64_t leased;         /* items that are delivered and not acknowledged */
    uint64_t high_watermark; /* the most that ever waited */
    uint64_t total_sent;     /* items accepted */
    uint64_t total_received; /* items acknowledged (BROADCAST, WATCH: delivered) */
    uint64_t redelivered;    /* deliveries of what may have been seen before */
    uint64_t duplicates;     /* items that came again and were dropped */
    uint64_t expired;        /* items dropped past their deadline */
    uint64_t lost;           /* a lower bound of what no restart could bring back */
    uint64_t missed;         /* items dropped before a slow receiver had them (BROADCAST) */
    uint64_t clients;        /* processes attached */
    uint64_t parked;         /* calls for items that wait */
    uint64_t bytes;          /* of payloads held */
    uint64_t boot;           /* random, another one after each restart of the actor */
    uint64_t pid;            /* of the actor's process, on its node */
} klaw_remote_counts;

/* See klaw_remote_stats. */
KLAW_API KLAW_MUST klaw_err klaw_remote_stats_sized(const char *name, const klaw_remote_opts *opts,
                                                    size_t opts_size, klaw_remote_counts *out,
                                                    size_t out_size, klaw_error_info *info);
/* The counters of a channel of any kind. Fills *out on OK only. NOT_FOUND, BACKEND, INVALID, NOMEM, TIMEOUT,
 * CANCELLED. */
static inline KLAW_MUST klaw_err klaw_remote_stats(const char *name, const klaw_remote_opts *opts,
                                                   klaw_remote_counts *out, klaw_error_info *info) {
    return klaw_remote_stats_sized(name, opts, sizeof(klaw_remote_opts), out,
                                   sizeof(klaw_remote_counts), info);
}

/* As a mark's place: behind everything. */
#define KLAW_REMOTE_END KLAW_BROKER_END

/* How far one has looked into a queue; all zero: nothing was seen. */
typedef struct klaw_remote_mark {
    uint64_t boot;  /* of the actor that counted the places; 0: not known yet */
    uint64_t place; /* of the last item that was seen; KLAW_REMOTE_END: see klaw_remote_peek */
} klaw_remote_mark;

/* See klaw_remote_peek. */
KLAW_API KLAW_MUST klaw_err klaw_remote_peek_sized(
    const char *name, klaw_remote_mark *at, size_t most, const klaw_remote_opts *opts,
    size_t opts_size, bool (*visit)(void *user, const klaw_remote_item *item), void *user,
    klaw_error_info *info);
/* Visits items that wait in a queue, oldest first, and leaves them there: at most `most` of those behind the mark *at, or of
 * the last `most` when its place is KLAW_REMOTE_END; fewer when they are large (about 4 MiB): then a further call goes
 * on, and no visit means that there are none. The mark moves to the last one visited. After a restart of the actor it
 * begins before the oldest one again. What is taken between two calls is not seen; what comes back to its place after
 * the mark has passed it neither. An item is borrowed for its visit, with data, size, codec, flags, client, seq, sent_at
 * and place; a visit that returns false ends it. EXISTS: it is no queue; INVALID: most is 0, or a pointer is missing;
 * NOT_FOUND, BACKEND, NOMEM, TIMEOUT, CANCELLED. */
static inline KLAW_MUST klaw_err klaw_remote_peek(
    const char *name, klaw_remote_mark *at, size_t most, const klaw_remote_opts *opts,
    bool (*visit)(void *user, const klaw_remote_item *item), void *user, klaw_error_info *info) {
    return klaw_remote_peek_sized(name, at, most, opts, sizeof(klaw_remote_opts), visit, user,
                                  info);
}

/* --- functions on Ray's workers --- */

/* A function that runs there, by the name of its symbol in a shared library. `arg` is borrowed; *out is
 * its answer (one reference, klaw_blob_new), NULL: none. Any klaw_err but OK is the caller's answer. It
 * runs on a plain thread of a worker process, outside of any run; it may call klaw_run. */
typedef klaw_err (*klaw_remote_fn)(const void *arg, size_t size, klaw_blob **out);

/* Where and how; all zero is the default. */
typedef struct klaw_remote_task_opts {
    const char *address;    /* as in klaw_remote_opts */
    const char *namespace_; /* of actors' names; as in klaw_remote_opts */
    int64_t connect_ns;     /* how long joining the cluster may take; 0: 60 s */
    double cpus;            /* processors it occupies; 0: 1; KLAW_NONE: none */
    int32_t retries;        /* runs again when its worker dies; 0: never */
    const char *resources;  /* further ones, as a JSON object: "{\"gpu_slot\": 1}"; NULL: none */
} klaw_remote_task_opts;

/* See klaw_remote_task. */
KLAW_API KLAW_MUST klaw_err klaw_remote_task_sized(const char *library, const char *symbol,
                                                   const void *arg, size_t size,
                                                   const klaw_remote_task_opts *opts,
                                                   size_t opts_size, klaw_blob **out,
                                                   klaw_deadline deadline, klaw_error_info *info);
/* Runs a klaw_remote_fn on some worker and waits for its answer. library: a path, or a name that the
 * worker's loader finds. Errors: what the function returned (info->backend is then empty); BACKEND: no
 * cluster, no such library or symbol on the worker, the worker died; TIMEOUT and CANCELLED: it was not
 * waited for any longer, and is cancelled if it has not begun (one that runs goes on); INVALID; NOMEM.
 * Many at a time: from many fibers, as by klaw_map. */
static inline KLAW_MUST klaw_err klaw_remote_task(const char *library, const char *symbol,
                                                  const void *arg, size_t size,
                                                  const klaw_remote_task_opts *opts,
                                                  klaw_blob **out, klaw_deadline deadline,
                                                  klaw_error_info *info) {
    return klaw_remote_task_sized(library, symbol, arg, size, opts, sizeof(klaw_remote_task_opts),
                                  out, deadline, info);
}

/* An actor in C on a worker: a constant object of this type, found by the name of its symbol. Its
 * functions are called one at a time, on one thread. */
typedef struct klaw_remote_behavior {
    /* Makes the state; an error is the answer of klaw_remote_actor. NULL: the state is NULL. */
    klaw_err (*start)(const void *arg, size_t size, void **state);
    /* One message. *reply as in klaw_remote_fn. An error is the asker's answer; the actor goes on. */
    klaw_err (*handle)(void *state, const void *message, size_t size, klaw_blob **reply);
    /* Frees the state, when it is stopped. NULL: nothing to do. */
    void (*stop)(void *state);
} klaw_remote_behavior;

/* A counted reference to such an actor. */
typedef struct klaw_remote_ref klaw_remote_ref;

/* See klaw_remote_actor. */
KLAW_API KLAW_MUST klaw_err klaw_remote_actor_sized(const char *library, const char *symbol,
                                                    const char *name, const void *arg, size_t size,
                                                    const klaw_remote_task_opts *opts,
                                                    size_t opts_size, klaw_remote_ref **out,
                                                    klaw_deadline deadline, klaw_error_info *info);
/* Starts an actor on some worker. name: under which others find it (it lives on when this process
 * ends), NULL: it has none and ends with this process. Errors: what start returned; EXISTS: the name is
 * taken; BACKEND, TIMEOUT, CANCELLED, INVALID, NOMEM as of klaw_remote_task. */
static inline KLAW_MUST klaw_err klaw_remote_actor(const char *library, const char *symbol,
                                                   const char *name, const void *arg, size_t size,
                                                   const klaw_remote_task_opts *opts,
                                                   klaw_remote_ref **out, klaw_deadline deadline,
                                                   klaw_error_info *info) {
    return klaw_remote_actor_sized(library, symbol, name, arg, size, opts,
                                   sizeof(klaw_remote_task_opts), out, deadline, info);
}

/* See klaw_remote_find. */
KLAW_API KLAW_MUST klaw_err klaw_remote_find_sized(const char *name,
                                                   const klaw_remote_task_opts *opts,
                                                   size_t opts_size, klaw_remote_ref **out,
                                                   klaw_deadline deadline, klaw_error_info *info);
/* The actor of that name. NOT_FOUND; else as klaw_remote_actor. */
static inline KLAW_MUST klaw_err klaw_remote_find(const char *name,
                                                  const klaw_remote_task_opts *opts,
                                                  klaw_remote_ref **out, klaw_deadline deadline,
                                                  klaw_error_info *info) {
    return klaw_remote_find_sized(name, opts, sizeof(klaw_remote_task_opts), out, deadline, info);
}

/* Sends a message and waits for the reply (reply NULL: it is dropped). Errors: what handle returned;
 * STOPPED: the actor was stopped; BACKEND: it died with its worker; TIMEOUT, CANCELLED: not waited for
 * any longer, it may have been handled; INVALID; NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_remote_ask(klaw_remote_ref *actor, const void *message,
                                            size_t size, klaw_blob **reply, klaw_deadline deadline,
                                            klaw_error_info *info);
/* Lets it handle what it has, calls its stop, ends it. OK; STOPPED: it has ended before. */
KLAW_API KLAW_MUST klaw_err klaw_remote_stop(klaw_remote_ref *actor, klaw_deadline deadline,
                                             klaw_error_info *info);
/* Gives the reference up; an actor without a name ends. NULL allowed. Never waits. */
KLAW_API void klaw_remote_unref(klaw_remote_ref *actor);

KLAW_END

#endif
