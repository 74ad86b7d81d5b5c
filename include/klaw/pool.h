/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - several actors of one behavior behind one handle: messages go to them by turns, to the
 * least loaded, or by key.
 *
 *     klaw_pool_opts o = {.size = 8, .strategy = KLAW_POOL_LEAST_LOADED};
 *     e = klaw_pool_open(&resizer, NULL, &o, &pool);
 *     e = klaw_pool_map(pool, images, 100, thumbs, NULL, 0, KLAW_FOREVER);
 *     klaw_pool_stop(pool);
 *     e = klaw_pool_join(pool, KLAW_FOREVER);
 *     klaw_pool_unref(pool);
 *
 * A member that fails is replaced by a new incarnation under the restart policy and intensity of
 * opts.actor; what is in its mailbox stays there. One that fails too often ends for good: the others
 * take its part, and klaw_pool_resize, also to the same size, puts a new one in its place. When all
 * have ended the pool answers STOPPED. */
#ifndef KLAW_POOL_H
#define KLAW_POOL_H

#include "klaw/actor.h"

KLAW_BEGIN

/* A counted reference to a pool. */
typedef struct klaw_pool klaw_pool;

/* Members a pool has at most. */
#define KLAW_POOL_MAX 4096

/* Who gets a message that comes without a key. */
typedef enum klaw_pool_strategy {
    KLAW_POOL_ROUND_ROBIN = 0, /* by turns; members whose mailbox is full or that wait for a restart
                                 * are passed over while there are others */
    KLAW_POOL_LEAST_LOADED = 1, /* who has the least to do (looks at every member) */
    KLAW_POOL_BY_KEY = 2        /* the member of opts.key(message) */
} klaw_pool_strategy;

/* Options of klaw_pool_open; all zero is the default. */
typedef struct klaw_pool_opts {
    /* Members; 0: one per worker thread of the runtime; at most KLAW_POOL_MAX. */
    uint32_t size;
    /* Who gets a message without a key. */
    klaw_pool_strategy strategy;
    /* The key of a message; BY_KEY needs it. Any host, no lock held, must not wait. */
    uint64_t (*key)(const void *message);
    /* Makes each member's own argument, instead of the one given to klaw_pool_open; `index` is its
     * place from 0. An error fails the opening or resizing. Called by who opens or resizes. */
    klaw_err (*make_arg)(void *user, uint32_t index, void **arg);
    /* Handed to make_arg. */
    void *user;
    /* Of each member: mailbox, restart policy and intensity (max_restarts within restart_window),
     * scope (NULL: the one current at klaw_pool_open), hooks. `name` (NULL: the behavior's) gets the
     * place behind it: "resizer-3", which is also its key in a checkpointer; checkpoint_key has to be
     * NULL. `release` is called for each member's argument. */
    klaw_actor_opts actor;
} klaw_pool_opts;

/* See klaw_pool_open. */
KLAW_API KLAW_MUST klaw_err klaw_pool_open_sized(const klaw_behavior *behavior, void *arg,
                                                 const klaw_pool_opts *opts, size_t opts_size,
                                                 klaw_pool **out);

/* Spawns the members. Errors: INVALID (an option out of range, BY_KEY without key), those of
 * klaw_actor_spawn and of make_arg; members spawned until then are killed. From a fiber or a thread. */
static inline KLAW_MUST klaw_err klaw_pool_open(const klaw_behavior *behavior, void *arg,
                                                const klaw_pool_opts *opts, klaw_pool **out) {
    return klaw_pool_open_sized(behavior, arg, opts, sizeof(klaw_pool_opts), out);
}

/* A further reference; returns p. NULL allowed. From anywhere. */
KLAW_API klaw_pool *klaw_pool_ref(klaw_pool *p);
/* Gives a reference back; the last one stops the pool (klaw_pool_stop). NULL allowed. From a fiber or
 * a thread. */
KLAW_API void klaw_pool_unref(klaw_pool *p);

/* As klaw_actor_send, to the member that the strategy says. FULL (NOWAIT): the member chosen has no
 * room, by turns: none has. STOPPED: the pool was stopped, or all members have ended. */
KLAW_API KLAW_MUST klaw_err klaw_pool_send(klaw_pool *p, const void *message,
                                           klaw_deadline deadline);
/* The same to the member of a key, whatever the strategy. One key, one member, so messages of one
 * sender with one key are handled in order, until the pool is resized (of n to n + 1 members, one key
 * in n + 1 moves) or that member ends for good. */
KLAW_API KLAW_MUST klaw_err klaw_pool_send_key(klaw_pool *p, uint64_t key, const void *message,
                                               klaw_deadline deadline);
/* As klaw_actor_ask_moved, of the member that the strategy says. A member that ends before the
 * message reached it costs nothing: another one is asked. */
KLAW_API KLAW_MUST klaw_err klaw_pool_ask_moved(klaw_pool *p, const void *message, void *reply,
                                                klaw_deadline deadline, bool *moved);
/* The same of the member of a key. */
KLAW_API KLAW_MUST klaw_err klaw_pool_ask_key_moved(klaw_pool *p, uint64_t key, const void *message,
                                                    void *reply, klaw_deadline deadline,
                                                    bool *moved);
/* klaw_pool_ask_moved for messages that own nothing. */
static inline KLAW_MUST klaw_err klaw_pool_ask(klaw_pool *p, const void *message, void *reply,
                                               klaw_deadline deadline) {
    return klaw_pool_ask_moved(p, message, reply, deadline, NULL);
}
/* klaw_pool_ask_key_moved for messages that own nothing. */
static inline KLAW_MUST klaw_err klaw_pool_ask_key(klaw_pool *p, uint64_t key, const void *message,
                                                   void *reply, klaw_deadline deadline) {
    return klaw_pool_ask_key_moved(p, key, message, reply, deadline, NULL);
}

/* How one message of klaw_pool_map went. */
typedef struct klaw_pool_outcome {
    klaw_err err; /* OK: its reply is there; else as klaw_pool_ask */
    bool moved;   /* false: the message is still the caller's */
} klaw_pool_outcome;

/* Asks with n messages (an array of the behavior's message type) and puts the answers into `replies`
 * (of its reply type) in the same order; those of failed ones are not written. At most `in_flight`
 * asks are under way at once; 0: twice the members. `outcomes` (n of them, or NULL for messages that
 * own nothing) says how each went. One that fails does not stop the others, except that after a
 * TIMEOUT or CANCELLED no more are begun. OK when all went well, else the error of the first in the
 * array that did not. INVALID (NULL, NOWAIT), STOPPED (no runtime), NOMEM: nothing was asked.
 * From a fiber, or from a thread while a runtime runs. */
KLAW_API KLAW_MUST klaw_err klaw_pool_map(klaw_pool *p, const void *messages, size_t n,
                                          void *replies, klaw_pool_outcome *outcomes,
                                          uint32_t in_flight, klaw_deadline deadline);

/* Sends a copy of *message (by its type's share) to every member; the message stays the caller's.
 * *reached (may be NULL): how many got it. OK when all members that have not ended did; else the
 * first error, after all have been tried. Errors: TYPE (a drop without a share), STOPPED, those of
 * klaw_actor_send and of share, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_pool_broadcast(klaw_pool *p, const void *message,
                                                klaw_deadline deadline, uint32_t *reached);

/* Makes it n members. More: new ones are spawned at the end. Fewer: the last ones take no more
 * messages, handle what they have and end; this does not wait for it. Members that have ended are
 * replaced. Either all of it happens or nothing. Errors: INVALID (n), EXISTS (somebody else resizes),
 * STOPPED (the pool, or the members' scope is closed), those of klaw_pool_open. From a fiber or a
 * thread. */
KLAW_API KLAW_MUST klaw_err klaw_pool_resize(klaw_pool *p, uint32_t n);
/* How many members it has, those included that have ended for good. From anywhere. */
KLAW_API uint32_t klaw_pool_size(klaw_pool *p);
/* The member at a place from 0, one reference, the caller's; NULL: there is none. */
KLAW_API klaw_actor *klaw_pool_member(klaw_pool *p, uint32_t index);

/* What a pool is and has done; its numbers are taken member by member. */
typedef struct klaw_pool_stats {
    uint32_t size;         /* members */
    uint32_t alive;        /* of them, those that take messages */
    uint32_t draining;     /* former members that have not ended yet */
    bool stopped;          /* by klaw_pool_stop or _kill */
    uint64_t mailbox_size; /* messages in the mailboxes, also of those that drain */
    uint64_t handled;      /* of members and of former ones still known */
    uint64_t failed;
    uint64_t restarts;
} klaw_pool_stats;

/* Fills *out. INVALID for NULL. From anywhere, never waits. */
KLAW_API KLAW_MUST klaw_err klaw_pool_stats_get(klaw_pool *p, klaw_pool_stats *out);

/* Graceful end: the pool answers STOPPED, its members handle what they have and end. Does not wait.
 * Idempotent. From a fiber or a thread. */
KLAW_API void klaw_pool_stop(klaw_pool *p);
/* Ends the members now (klaw_actor_kill). Idempotent. From a fiber or a thread. */
KLAW_API void klaw_pool_kill(klaw_pool *p);
/* Waits until all members, former ones too, have ended. Errors: EMPTY (NOWAIT), TIMEOUT, CANCELLED,
 * INVALID (NULL, a member itself). */
KLAW_API KLAW_MUST klaw_err klaw_pool_join(klaw_pool *p, klaw_deadline deadline);

KLAW_END

#endif
