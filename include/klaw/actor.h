/* SPDX-License-Identifier: Apache-2.0 */
/* actor.h - actors: a state of their own, a bounded mailbox, one message at a time; ask with a
 * deadline, restarts, monitors, links, timers, checkpoints.
 *
 * A `klaw_actor` is a counted reference to an identity. The identity has one mailbox and survives
 * restarts: a new incarnation gets a fresh state and goes on with the messages that are still there.
 * An actor ends for good when it stops, is killed, fails and is not to be restarted, or when its
 * scope is cancelled. Then its mailbox is closed, what is in it is dropped, whoever waits for it
 * gets an error, monitors are told, and klaw_actor_join returns.
 *
 *     static klaw_err count(klaw_self *self, void *state, void *message, void *reply) {
 *         uint64_t *n = state;
 *         *n += *(uint64_t *)message;
 *         if (reply)
 *             *(uint64_t *)reply = *n;
 *         return KLAW_OK;
 *     }
 *     static const klaw_behavior counter = {
 *         .name = "counter", .message = &klaw_u64, .reply = &klaw_u64,
 *         .state_size = sizeof(uint64_t), .handle = count };
 *     …
 *     e = klaw_actor_spawn(&counter, NULL, NULL, &a);
 *     e = klaw_actor_ask(a, &(uint64_t){1}, &total, KLAW_WITHIN(KLAW_S(1)));
 *     klaw_actor_stop(a);
 *     e = klaw_actor_join(a, KLAW_FOREVER, NULL);
 *     klaw_actor_unref(a);
 *
 * A scope waits for its actors as for its fibers: stop them, or cancel it. An actor's failure is
 * told to joiners, monitors, links, hooks and the log; it is not an error of the scope. */
#ifndef KLAW_ACTOR_H
#define KLAW_ACTOR_H

#include "klaw/channel.h"
#include "klaw/policy.h"

KLAW_BEGIN

/* A counted reference to an actor. */
typedef struct klaw_actor klaw_actor;
/* One incarnation, as its callbacks see it. Valid within them, on the actor's own fiber. */
typedef struct klaw_self klaw_self;
/* The right and the duty to answer one ask, later or from elsewhere. */
typedef struct klaw_promise klaw_promise;
struct klaw_scope;

/* Capacity of a mailbox when none is given. */
#define KLAW_MAILBOX_DEFAULT 1000

/* Why a klaw_down was delivered. */
typedef enum klaw_down_kind {
    KLAW_DOWN_MONITOR = 0, /* klaw_self_monitor, klaw_actor_watch */
    KLAW_DOWN_LINK = 1     /* klaw_self_link, with klaw_self_trap */
} klaw_down_kind;

/* An actor has ended. */
typedef struct klaw_down {
    uint64_t id;       /* of the monitor; 0: a link, or klaw_actor_watch */
    klaw_actor *actor; /* which; borrowed in down(), owned when received from klaw_actor_watch */
    char name[32];     /* its name */
    klaw_err reason;   /* OK: it ended normally; CANCELLED: killed or its scope was cancelled */
    klaw_down_kind kind;
} klaw_down;

/* The element type of klaw_actor_watch's receiver; its drop gives the reference back. */
extern KLAW_API const klaw_type klaw_down_type;

/* What actors of a kind do. Constant; outlives its actors. Only name, message and handle are
 * needed. All functions run on the actor's fiber, one at a time, with no lock held; they may wait,
 * spawn and open scopes. */
typedef struct klaw_behavior {
    /* For logs and inspect where the actor has no name of its own. */
    const char *name;
    /* Type of the messages. */
    const klaw_type *message;
    /* Type of the answers; NULL: ask is INVALID. */
    const klaw_type *reply;
    /* Bytes of state, zeroed before each start; aligned for anything. */
    size_t state_size;
    /* Builds the state; `arg` as given to spawn, the same for each incarnation. An error is a failure:
     * of the first start it ends the actor, of a later one it counts for max_restarts. stop() is not
     * called then. NULL: zeroed is fine. */
    klaw_err (*start)(klaw_self *self, void *state, void *arg);
    /* One message. `reply` is NULL for a send; for an ask it is zeroed storage to fill. OK: the
     * answer is moved to the asker, or dropped by its type when the asker has left. Any other
     * value: the actor fails with that error, the asker gets it too, and *reply is not looked at.
     * *message is dropped afterwards unless klaw_self_take was called. */
    klaw_err (*handle)(klaw_self *self, void *state, void *message, void *reply);
    /* A monitored actor has ended, or (trapping) a linked one. An error is a failure. NULL: ignored. */
    klaw_err (*down)(klaw_self *self, void *state, const klaw_down *down);
    /* A timer has fired. An error is a failure. NULL: klaw_self_after answers INVALID. */
    klaw_err (*timer)(klaw_self *self, void *state, uint64_t id);
    /* The incarnation ends: frees what the state holds. `why`: OK (stopped), CANCELLED (killed; waits
     * answer CANCELLED unless shielded), or what it failed with. NULL: nothing to do. */
    void (*stop)(klaw_self *self, void *state, klaw_err why);
    /* The state as bytes, one reference, the caller's. On an error nothing is saved. */
    klaw_err (*snapshot)(klaw_self *self, void *state, klaw_blob **out);
    /* After start(), when a checkpoint exists. An error is a failure of the start. The bytes may come
     * from an older program or a damaged disk: check them. */
    klaw_err (*restore)(klaw_self *self, void *state, const void *bytes, size_t size);
} klaw_behavior;

/* Where snapshots are kept. Both functions run on a thread for blocking calls (klaw_blocking); the
 * struct outlives the actors that use it. */
typedef struct klaw_checkpointer {
    void *user; /* handed to both */
    /* Keeps `size` bytes under `key` (NUL-terminated, valid during the call). OK: they survive. */
    klaw_err (*save)(void *user, const char *key, const void *bytes, size_t size);
    /* The bytes last saved under `key`, one reference, the caller's. NOT_FOUND: there are none. */
    klaw_err (*load)(void *user, const char *key, klaw_blob **out);
} klaw_checkpointer;

/* Called on the actor's fiber, no lock held. May wait, but the actor waits with it. `attempt` counts
 * failures within the present series, from 1. */
typedef void (*klaw_actor_hook)(void *user, klaw_actor *actor, klaw_err error, uint32_t attempt);

/* Options of klaw_actor_spawn; all zero is the default. */
typedef struct klaw_actor_opts {
    /* Copied (31 bytes kept); NULL: the behavior's. */
    const char *name;
    /* Messages the mailbox holds; 0: KLAW_MAILBOX_DEFAULT; KLAW_UNBOUNDED. */
    int64_t capacity;
    /* When a failed or ended actor is started again. 0 is KLAW_RESTART_ON_FAILURE;
     * KLAW_RESTART_NEVER: the first failure ends it; KLAW_RESTART_ALWAYS: also after klaw_self_stop
     * (not after klaw_actor_stop and _kill, which end it for good). */
    klaw_restart restart;
    /* So many restarts within restart_window; one failure more ends it. 0: 3; KLAW_NONE: none. */
    int32_t max_restarts;
    /* ns; 0: 5 s. */
    int64_t restart_window;
    /* Waits between restarts. Messages stay in the mailbox meanwhile. */
    klaw_backoff backoff;
    /* Restart at once, without backoff. */
    bool no_backoff;
    /* Where it runs; NULL: the caller's current scope (from a thread outside: the root scope). */
    struct klaw_scope *scope;
    /* Stack of its fiber in bytes of address space; 0: the runtime's default. */
    size_t stack_size;
    /* Called once with spawn's arg, when the actor has ended for good. NULL: nothing. Not called when
     * spawn fails. */
    void (*release)(void *arg);
    /* Hooks; NULL: none. Each event is also logged. */
    void *hook_user;                 /* handed to all hooks */
    klaw_actor_hook on_failure;      /* it failed */
    klaw_actor_hook on_restart;      /* it runs again; error: the failure before */
    klaw_actor_hook on_max_restarts; /* it will not be restarted any more */
    klaw_actor_hook on_checkpoint; /* a save failed (attempt: saves failed in a row); it goes on */
    klaw_checkpointer *checkpointer; /* NULL: no checkpoints. Needs snapshot and restore */
    int64_t checkpoint_interval;     /* ns; 0: 60 s; KLAW_NONE: only when it stops */
    const char *checkpoint_key;      /* copied; NULL: the actor's name */
} klaw_actor_opts;

/* The default options, for C++17. */
static inline klaw_actor_opts klaw_actor_opts_default(void) {
    static const klaw_actor_opts zero =
#if defined(__cplusplus)
        {};
#else
        {0};
#endif
    return zero;
}

/* See klaw_actor_spawn. */
KLAW_API KLAW_MUST klaw_err klaw_actor_spawn_sized(const klaw_behavior *behavior, void *arg,
                                                   const klaw_actor_opts *opts, size_t opts_size,
                                                   klaw_actor **out);

/* Starts an actor on a fiber of its own and returns at once: start() runs there, and messages may be
 * sent already. *out is a reference (NULL: none is wanted). Errors: INVALID (a behavior without
 * message or handle, an option out of range, a checkpointer without snapshot and restore), LIMIT
 * (message or reply too large, capacity), NOMEM, STOPPED (no runtime, the scope is closed). From a
 * fiber or a thread. */
static inline KLAW_MUST klaw_err klaw_actor_spawn(const klaw_behavior *behavior, void *arg,
                                                  const klaw_actor_opts *opts, klaw_actor **out) {
    return klaw_actor_spawn_sized(behavior, arg, opts, sizeof(klaw_actor_opts), out);
}

/* A further reference; returns a. NULL allowed. From anywhere. */
KLAW_API klaw_actor *klaw_actor_ref(klaw_actor *a);
/* Gives a reference back. The actor goes on without references. NULL allowed. From anywhere. */
KLAW_API void klaw_actor_unref(klaw_actor *a);
/* The number of the identity, unique in the process and never used again. */
KLAW_API uint64_t klaw_actor_id(const klaw_actor *a);
/* Its name; valid while a reference is held. */
KLAW_API const char *klaw_actor_name(const klaw_actor *a);
/* What it does. */
KLAW_API const klaw_behavior *klaw_actor_behavior(const klaw_actor *a);
/* Whether it has not ended for good. */
KLAW_API bool klaw_actor_alive(const klaw_actor *a);

/* Puts *message into the mailbox (moved on OK; that it is handled is not promised: the actor may end
 * before). A full mailbox: waits to the deadline. The sender's context travels along. Errors: FULL
 * (NOWAIT, or an actor sends to itself), TIMEOUT, CANCELLED, STOPPED (stopping or ended), NOMEM,
 * INVALID (NULL). From a fiber, a thread; with NOWAIT also from a timer's callback. */
KLAW_API KLAW_MUST klaw_err klaw_actor_send(klaw_actor *a, const void *message,
                                            klaw_deadline deadline);
/* Sends *message and waits for the answer, which is moved into *reply; written only on OK. One
 * answer or one error, always. The message is moved when it reached the mailbox; `moved` (may be NULL)
 * says whether it did, for messages that own something: false: it is still the caller's. Errors:
 *   TIMEOUT, CANCELLED  the asker left; a request that has not been started never will be, the
 *                       answer of one that has is dropped;
 *   STOPPED             the actor ended before it answered, or does not take messages any more;
 *   what the actor failed with while it handled this, or refused with (klaw_self_refuse), as it is;
 *   INVALID             NULL, NOWAIT, the behavior does not answer, an actor asks itself;
 *   NOMEM.
 * From a fiber or a thread. */
KLAW_API KLAW_MUST klaw_err klaw_actor_ask_moved(klaw_actor *a, const void *message, void *reply,
                                                 klaw_deadline deadline, bool *moved);
/* klaw_actor_ask_moved for messages that own nothing: nobody has to know whether they moved. */
static inline KLAW_MUST klaw_err klaw_actor_ask(klaw_actor *a, const void *message, void *reply,
                                                klaw_deadline deadline) {
    return klaw_actor_ask_moved(a, message, reply, deadline, NULL);
}

/* Graceful end: takes no more messages, handles what is in the mailbox, runs stop(OK), ends for good.
 * Does not wait (klaw_actor_join does). Idempotent. A supervised actor is restarted if its policy
 * says so; between two incarnations of one there is nothing to stop. From anywhere. */
KLAW_API void klaw_actor_stop(klaw_actor *a);
/* Ends it now: cancels its fiber, so that its waits answer CANCELLED; no further message is handled;
 * stop(CANCELLED) runs. A function that reaches no cancel point is waited for. Idempotent. From
 * anywhere but a timer's callback. */
KLAW_API void klaw_actor_kill(klaw_actor *a);
/* Waits until the actor has ended for good. OK: *why (may be NULL) is as klaw_down.reason. Errors:
 * EMPTY (NOWAIT), TIMEOUT, CANCELLED, INVALID (NULL, oneself). Any number of joiners, at any time. */
KLAW_API KLAW_MUST klaw_err klaw_actor_join(klaw_actor *a, klaw_deadline deadline, klaw_err *why);
/* A receiver that gets one klaw_down when the actor ends for good (at once when it has), and is then
 * closed: for hosts that are no actors. Unreference it to stop watching. Errors: INVALID, NOMEM.
 * From anywhere. */
KLAW_API KLAW_MUST klaw_err klaw_actor_watch(klaw_actor *a, klaw_receiver **out);

/* Where an actor is in its life. Numbers never change. */
typedef enum klaw_actor_state {
    KLAW_ACTOR_STARTING = 0, /* start() runs, or has not begun */
    KLAW_ACTOR_IDLE = 1,     /* waits for a message */
    KLAW_ACTOR_RUNNING = 2,  /* in a callback, or about to be */
    KLAW_ACTOR_BACKOFF = 3,  /* failed, will be restarted */
    KLAW_ACTOR_STOPPING = 4, /* takes no more messages */
    KLAW_ACTOR_ENDED = 5     /* for good */
} klaw_actor_state;

/* The lower-case name of a state, e.g. "idle"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_actor_state_name(klaw_actor_state state);

/* An actor's counters, consistent with one another. */
typedef struct klaw_actor_stats {
    uint64_t id;
    char name[32];
    char behavior[32];
    klaw_actor_state state;
    uint64_t mailbox_size;   /* messages in it now */
    int64_t capacity;        /* or KLAW_UNBOUNDED */
    uint64_t high_watermark; /* of the mailbox */
    uint64_t handled;        /* messages whose handle returned OK */
    uint64_t failed;         /* failures: of handle, start, down, timer, by a link */
    uint64_t expired;        /* asks that were not started because the asker had left */
    uint64_t restarts;
    uint64_t incarnation;     /* 1 for the first; 0: not started yet */
    uint64_t waiting_asks;    /* in the mailbox, in progress, promised */
    uint64_t waiting_senders; /* for room */
    klaw_err reason;          /* ENDED: why */
    uint64_t fiber_id;        /* the fiber of its incarnation; 0: there is none now */
} klaw_actor_stats;

/* Fills *out. INVALID for NULL. From anywhere, never waits. */
KLAW_API KLAW_MUST klaw_err klaw_actor_stats_get(klaw_actor *a, klaw_actor_stats *out);

/* --- for callbacks: on the actor's own fiber, with the self they were given --- */

/* The actor; borrowed. */
KLAW_API klaw_actor *klaw_self_actor(klaw_self *self);
/* The number of the incarnation, from 1. */
KLAW_API uint64_t klaw_self_incarnation(const klaw_self *self);
/* Within handle: the message is the behavior's now and is not dropped afterwards (its bytes are
 * still only valid until handle returns: copy them). */
KLAW_API void klaw_self_take(klaw_self *self);
/* As klaw_actor_stop by the actor itself: handles what is in the mailbox, then ends; restarted when
 * the policy is ALWAYS. */
KLAW_API void klaw_self_stop(klaw_self *self);
/* Within handle of an ask: answers with an error (not OK), without failing; handle then returns OK and
 * the reply is not looked at. Errors: INVALID (not an ask, answered or deferred already). */
KLAW_API KLAW_MUST klaw_err klaw_self_refuse(klaw_self *self, klaw_err error);
/* Within handle of an ask: the answer comes later, by *out; handle then returns OK. The promise is
 * used up by exactly one of the calls below, from anywhere. When the incarnation ends first, the
 * asker gets an error and the promise answers CLOSED. Errors: INVALID (as refuse), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_self_defer(klaw_self *self, klaw_promise **out);

/* Answers: moves *reply to the asker. Uses the promise up whatever it returns. OK; CLOSED: nobody
 * waits any more, *reply is still the caller's. Never waits. */
KLAW_API KLAW_MUST klaw_err klaw_promise_answer(klaw_promise *p, const void *reply);
/* The asker gets `error` (OK counts as STOPPED). Uses the promise up. */
KLAW_API void klaw_promise_refuse(klaw_promise *p, klaw_err error);
/* The asker gets STOPPED. Uses the promise up. NULL allowed. */
KLAW_API void klaw_promise_drop(klaw_promise *p);
/* Whether somebody still waits for the answer. */
KLAW_API bool klaw_promise_wanted(klaw_promise *p);

/* Monitors `other`: down() is called once with *id when it has ended for good; soon when it already
 * has. Monitors belong to the incarnation: a restart forgets them. Errors: INVALID (NULL, no down()),
 * NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_self_monitor(klaw_self *self, klaw_actor *other, uint64_t *id);
/* Ends a monitor: down() will not be called for it any more. NOT_FOUND: it is none, or was delivered. */
KLAW_API KLAW_MUST klaw_err klaw_self_demonitor(klaw_self *self, uint64_t id);
/* Links the two: when an incarnation of one fails (a kill and a cancelled scope count), the other one
 * fails with the same error; a normal end just removes the link. A link fires once; it does not
 * survive a restart. Linking again, and oneself, changes nothing. Errors: STOPPED (`other` has
 * ended), INVALID, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_self_link(klaw_self *self, klaw_actor *other);
/* Removes the link; nothing of it arrives afterwards. NOT_FOUND: there is none. */
KLAW_API KLAW_MUST klaw_err klaw_self_unlink(klaw_self *self, klaw_actor *other);
/* With true, the end of a linked actor is told to down(), normal ends as well, instead of failing this
 * one. A restart begins without. */
KLAW_API void klaw_self_trap(klaw_self *self, bool on);

/* Calls timer(id) once, `ns` (> 0) from now. A timer of that id that is under way is replaced. Timers
 * come before messages and end with the incarnation. Errors: INVALID (ns <= 0, no timer()), NOMEM,
 * STOPPED. */
KLAW_API KLAW_MUST klaw_err klaw_self_after(klaw_self *self, int64_t ns, uint64_t id);
/* The same, every `period` ns; calls that the actor is too slow for are merged. */
KLAW_API KLAW_MUST klaw_err klaw_self_every(klaw_self *self, int64_t period, uint64_t id);
/* Ends it: timer(id) will not be called any more. NOT_FOUND: there is none. */
KLAW_API KLAW_MUST klaw_err klaw_self_cancel_timer(klaw_self *self, uint64_t id);

/* Saves a snapshot now and waits for it. Errors: INVALID (no checkpointer), STOPPED (its
 * supervisor has given this incarnation up: nothing is saved), what snapshot and save return. */
KLAW_API KLAW_MUST klaw_err klaw_self_checkpoint(klaw_self *self);

KLAW_END

#endif
