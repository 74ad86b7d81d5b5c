/* SPDX-License-Identifier: Apache-2.0 */
/* remote_desk.h - what libklaw asks of a backend's process-wide part, and how that part fetches the
 * questions and answers them. The structures marked ABI are shared with libklaw_ray and with the Python
 * that it runs (klaw_core/runtime/channels/ray/_embed.py): a change is a new KLAWI_DESK_VERSION. */
#ifndef KLAWI_REMOTE_DESK_H
#define KLAWI_REMOTE_DESK_H

#include "klaw/remote.h"

/* Of everything below that is marked ABI. */
#define KLAWI_DESK_VERSION 3u

/* ABI. What is asked. `text` is a JSON object. */
enum klawi_verb {
    KLAWI_VERB_OPEN = 1,   /* a channel; the answer is a klawi_opened */
    KLAWI_VERB_DELETE = 2, /* a channel */
    KLAWI_VERB_LIST = 3,   /* the answer: names, each with its NUL */
    KLAWI_VERB_TASK = 4,   /* data: the argument; the answer: what came out, see klawi_desk_ask */
    KLAWI_VERB_SPAWN = 5,  /* an actor; data: the argument; the answer: its key, 8 bytes */
    KLAWI_VERB_FIND = 6,   /* an actor by its name; the answer: its key */
    KLAWI_VERB_ASK = 7,    /* key: the actor; data: the message */
    KLAWI_VERB_STOP = 8,   /* key: the actor */
    KLAWI_VERB_FORGET = 9, /* key: the actor; no answer */
    KLAWI_VERB_CALL =
        10, /* key: the channel; kind, data: the hub's call; told by reply or failed */
    KLAWI_VERB_CLOSE = 11,  /* key: the channel, no more calls; no answer */
    KLAWI_VERB_CANCEL = 12, /* id: the ticket that nobody waits for any more; no answer */
    KLAWI_VERB_STATS = 13,  /* a channel; the answer is a klawi_looked */
    KLAWI_VERB_PEEK = 14    /* a channel; the answer: its boot (8 bytes), then for each item a
                               klawi_peeked and the payload */
};

/* ABI. One question. Everything it points to is valid until `release`. */
typedef struct klawi_request {
    uint64_t ticket; /* to answer with; 0: no answer */
    uint64_t key;    /* see the verbs */
    uint64_t id;     /* CALL: the call's; CANCEL: the ticket */
    void *remote;    /* CALL: whom to tell */
    const char *text;
    const void *data;
    uint64_t size; /* bytes of data */
    int32_t verb;
    int32_t kind; /* CALL: klaw_hub_call_kind */
    void *memory; /* for release */
} klawi_request;

/* ABI. The answer to OPEN, little-endian, without gaps. */
typedef struct klawi_opened {
    uint64_t key;
    unsigned char channel[KLAW_REMOTE_ID];
    int64_t ack; /* klaw_remote_ack */
} klawi_opened;

/* ABI. The answer to STATS, little-endian, without gaps: klaw_remote_counts, each member 8 bytes. */
typedef struct klawi_looked {
    uint64_t senders, receivers, queued, high_watermark, total_sent, total_received;
    uint64_t leased, redelivered, duplicates, expired, lost, missed, clients, parked, bytes;
    int64_t capacity, created_at, kind, ack, durable, senders_closed, receivers_closed, gathering;
    uint64_t boot, pid;
} klawi_looked;

/* ABI. An item in the answer to PEEK, little-endian, without gaps. */
typedef struct klawi_peeked {
    uint64_t place;
    unsigned char client[KLAW_REMOTE_ID];
    uint64_t seq;
    int64_t sent_at;
    uint32_t codec, flags;
    uint64_t size; /* of the payload that follows */
} klawi_peeked;

/* ABI. What the other side may call, from any thread. */
typedef struct klawi_desk {
    uint32_t version;    /* KLAWI_DESK_VERSION */
    uint32_t size;       /* of this structure */
    const char *library; /* klaw_version() */
    /* The next question: 1; 0: none within wait_ns; -1: leave. */
    int32_t (*next)(klawi_request *out, int64_t wait_ns);
    /* Gives back what a question points to. */
    void (*release)(void *memory);
    /* Answers one. code: a klaw_err; far: it is the answer of a function that ran there, not of the
     * backend. Strings may be NULL. */
    void (*answer)(uint64_t ticket, int32_t code, int32_t far, const void *data, uint64_t size,
                   const char *message, const char *actor, const char *namespace_);
    /* How a CALL ended. */
    void (*reply)(void *remote, uint64_t id, const void *data, uint64_t size);
    void (*failed)(void *remote, uint64_t id, int32_t dead, const char *message);
    /* Nobody fetches questions any more, and why (NULL: the process leaves): all are answered so. */
    void (*broken)(const char *message);
    /* A connection to Ray was made. Ray has registered exit functions that must not run before klaw has
     * left, so klaw's own has to be registered once more: the last one runs first. */
    void (*connected)(void);
    /* The interpreter is about to end: leaves all channels, then makes `next` answer -1. */
    void (*leave)(void);
} klawi_desk;

/* ABI. The one function of a backend's library, "klaw_ray_start": begins to fetch questions, on a thread
 * of its own, and returns. An error, told in info: nothing has begun. */
typedef klaw_err (*klawi_desk_start)(const klawi_desk *desk, klaw_error_info *info);
/* ABI. The other one, "klaw_ray_locks": whether the calling thread holds a lock without which no question
 * of its can be answered (the interpreter's). */
typedef bool (*klawi_desk_locks)(void);

/* --- inside libklaw --- */

/* One question and its answer. */
typedef struct klawi_ask {
    enum klawi_verb verb;
    const char *text; /* copied */
    uint64_t key;
    const void *data; /* copied */
    size_t size;
    klaw_blob **out; /* NULL: not wanted; may be set to NULL */
    klaw_deadline deadline;
    klaw_error_info *info; /* may be NULL */
} klawi_ask;

/* Asks and waits; loads the backend first, if need be. The answer's code; else BACKEND, STOPPED, NOMEM,
 * and what a wait answers (then a CANCEL goes out). */
klaw_err klawi_desk_ask(const klawi_ask *what);
/* Says something that has no answer. What can't be said is dropped. */
void klawi_desk_tell(enum klawi_verb verb, uint64_t key, uint64_t id);
/* Hands a hub's call over: OK, and then data is the desk's; NOMEM; BACKEND, with the reason told to the
 * remote by klaw_hub_failed's words. */
klaw_err klawi_desk_call(uint64_t key, klaw_remote *r, const klaw_hub_call *call);

/* remote_load.c: finds and starts the backend; locks: its function of that name. Blocks for some 10 ms. */
klaw_err klawi_remote_load(const klawi_desk *desk, klawi_desk_locks *locks, klaw_error_info *info);

#endif
