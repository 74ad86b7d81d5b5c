/* SPDX-License-Identifier: Apache-2.0 */
/* actor.h - actors, as the files of this layer share them, and what a supervisor needs of them.
 *
 * Field marks: (c) constant after creation, (o) the incarnation's fiber only, (a) atomic, (L) the
 * actor's lock, (B) the lock of bonds (bond.c). */
#ifndef KLAWI_ACTOR_H
#define KLAWI_ACTOR_H

#include <string.h>

#include "klaw/actor.h"
#include "sched/context.h"
#include "sched/sched.h"

/* To a resting incarnation: look again (OK: a message was handed to it). */
#define KLAWI_LOOK ((klaw_err)100)

/* --- what a supervisor needs --- */

/* What becomes of an incarnation. */
enum klawi_actor_event {
    KLAWI_ACTOR_STARTED,      /* start() and restore() are done */
    KLAWI_ACTOR_START_FAILED, /* with the error; the incarnation is gone */
    KLAWI_ACTOR_EXITED,       /* OK: normal end; it is gone */
    KLAWI_ACTOR_GONE          /* one that was given up has ended after all */
};

/* Who decides over incarnations; constant. Told on the actor's fiber, no lock held; it must not wait.
 * After START_FAILED and EXITED the next klawi_actor_start is allowed, also from within. */
typedef struct klawi_actor_control {
    void (*event)(void *user, klaw_actor *a, uint64_t incarnation, enum klawi_actor_event event,
                  klaw_err error);
    void *user;
} klawi_actor_control;

/* An identity without an incarnation. control NULL: it decides for itself by its options, and the
 * first klawi_actor_start is the only one. Errors as klaw_actor_spawn. */
klaw_err klawi_actor_new(const klaw_behavior *behavior, void *arg, const klaw_actor_opts *opts,
                         const klawi_actor_control *control, klaw_actor **out);
/* Starts one incarnation in `scope` (NULL: the current one). Errors: EXISTS (one is there), STOPPED
 * (ended for good; no runtime), NOMEM. No event follows an error. */
klaw_err klawi_actor_start(klaw_actor *a, struct klaw_scope *scope);
/* Sends a copy of the message, made at `copy`; it is dropped when it was not sent. Errors: of
 * type->share and of klaw_actor_send. */
klaw_err klawi_actor_send_copy(klaw_actor *a, const klaw_type *type, const void *message,
                               void *copy, klaw_deadline deadline);
/* Ends the incarnation after what it is doing now, without draining; messages stay, the mailbox
 * stays open. EXITED(OK) follows. */
void klawi_actor_halt(klaw_actor *a);
/* Cancels its fiber; EXITED(CANCELLED) follows when it reaches a cancel point. = klaw_actor_kill */
void klawi_actor_cut(klaw_actor *a);
/* Gives the incarnation up: askers, links and timers are dealt with here, only GONE follows, its fiber
 * and memory stay until its function returns. False: there was none. */
bool klawi_actor_abandon(klaw_actor *a, klaw_err why);
/* Ends the identity for good; there is no incarnation. */
void klawi_actor_finish(klaw_actor *a, klaw_err why);

/* --- the parts --- */

/* Before each message in the ring, and of the message in hand. */
typedef struct klawi_envelope {
    klawi_host *asker;     /* NULL: a send. Type-stable, so a stale one does no harm */
    uint64_t epoch;        /* of its wait */
    klaw_context *context; /* owned; NULL: none */
    void *pad;
} klawi_envelope;
_Static_assert(sizeof(klawi_envelope) == 32, "messages are aligned to 16");

enum klawi_sys_kind { KLAWI_SYS_BOND = 1, KLAWI_SYS_TIMER };
/* A system message; part of the object it is about, so that delivery needs no memory (A8). */
typedef struct klawi_sys {
    klawi_link link; /* (L of the receiver) next NULL: not queued */
    uint8_t kind;
} klawi_sys;

typedef struct klawi_tick {
    klawi_sys sys;
    klaw_timer timer;
    klawi_link link; /* (L) in self->ticks */
    klaw_actor *actor;
    uint64_t id;
    int64_t period; /* 0: once */
    int64_t next;   /* (callback) */
    bool internal;  /* checkpoints */
    bool dead;      /* (L) taken out of the list */
    bool arming;    /* (L) who set it is about to arm the timer, and frees it if it is dead then */
} klawi_tick;

typedef struct klawi_bond {
    klawi_sys sys;
    klawi_link at_target;    /* (B) in target->watchers or target->links; next NULL: fired */
    klawi_link at_owner;     /* (B) in owner->bonds */
    klaw_actor *target;      /* (c) counted */
    klaw_self *owner;        /* (c) NULL: a watch */
    klaw_sender *tx;         /* (c) a watch */
    struct klawi_bond *peer; /* (B) the other half of a link; NULL once that is gone */
    uint64_t id;
    klaw_err reason; /* (B) once fired */
    bool is_link;
    _Atomic uint32_t refs; /* a watch: the list and the receiver */
} klawi_bond;

struct klaw_promise {
    klawi_link link;   /* (L) in actor->promises; next NULL: not in it */
    klaw_actor *actor; /* (c) counted */
    klawi_host *asker; /* (L) NULL: answered by the end of the incarnation */
    uint64_t epoch;
};

struct klaw_self {
    klaw_actor *actor;             /* (c) counted */
    klawi_host *host;              /* (L) set once by its fiber */
    uint64_t epoch;                /* (L) while actor->idle is this one */
    klawi_envelope env;            /* (L) written; of the message in hand */
    void *state, *message, *reply; /* (c) behind this struct */
    bool has_message;              /* (o) message holds one that is to be dropped */
    bool open;                     /* (o) the ask in hand is not answered yet */
    bool in_handle;                /* (o) */
    bool trap;                     /* (o) */
    bool abandoned;                /* (L) */
    bool cut;                      /* (L) to be cancelled */
    bool quiet;                    /* (o) cancelled between two messages: the state is whole */
    bool stopping;                 /* (o) stop was asked from outside or by klaw_self_stop */
    uint64_t incarnation;          /* (o) */
    klaw_context_token context;    /* (o) of the message in hand */
    klawi_link ticks;              /* (L) */
    klawi_link bonds;              /* (B) monitors and links it holds */
    bool cleared;                  /* (B) over, or given up: holds no bonds */
    klaw_fiber *fiber;             /* (c) handle */
    _Atomic uint32_t refs;         /* (a) its fiber, cutters */
    uint32_t save_failures;        /* (o) */
    klaw_supervision *machine;     /* (o) restarts; NULL: never, or a supervisor's business */
    uint32_t child;
    klaw_err last_error; /* (o) the failure before */
};

struct klaw_actor {
    _Atomic uint32_t refs;              /* (a) */
    const klaw_behavior *behavior;      /* (c) */
    void *arg;                          /* (c) */
    const klawi_actor_control *control; /* (c) NULL: decides for itself */
    klaw_actor_opts opts;               /* (c) */
    char *key;                          /* (c) of checkpoints */
    uint64_t id;                        /* (c) */
    uint32_t size, reply_size;          /* (c) of a message, of an answer */
    size_t cell;                        /* (c) of the ring */
    uint64_t room;                      /* (c) messages it may hold */
    klawi_link live;                    /* (registry lock) */
    char name[KLAWI_NAME_MAX];          /* (c) */
    klawi_link watchers;                /* (B) bonds told when it ends for good */
    klawi_link links;                   /* (B) half links told when an incarnation ends */
    bool gone;                          /* (B) no bond may be added */

    _Atomic bool named; /* (a) was ever in the registry; paired by `lock`, see G3 there */

    _Alignas(KLAWI_LINE) klawi_lock lock;
    bool closed;               /* (L) takes no messages */
    bool halt;                 /* (L) ends without draining */
    bool stopped;              /* (L) klaw_actor_stop */
    bool ended;                /* (L) for good */
    bool done;                 /* (L) and everything has been told */
    bool accepts;              /* (L) idle, and a message may be handed over */
    uint8_t phase;             /* (L) klaw_actor_state, unless idle */
    klaw_self *self;           /* (L) the incarnation, A1 */
    klaw_self *idle;           /* (L) it rests */
    char *ring;                /* (L) all below */
    uint64_t mask, head, tail; /* messages taken out and put in so far */
    uint64_t permits;          /* slots promised to askers */
    uint64_t high;
    uint64_t asks; /* in the ring */
    klawi_link sys;
    klawi_waitq sq; /* who waits for room */
    klawi_waitq joiners;
    klawi_link promises;
    uint64_t promised;
    uint64_t incarnation, restarts, failed, expired;
    klaw_err reason;
    _Atomic uint64_t handled; /* (a relaxed) written by the incarnation */
};

static inline bool klawi_waiter_live(klawi_waiter *w) {
    uint64_t word = atomic_load_explicit(&w->host->word, memory_order_relaxed);
    return (word & ~(KLAWI_CANCEL | KLAWI_SHIELD)) == (w->epoch | KLAWI_ARMED);
}
/* Whether an asker still waits for this answer. */
static inline bool klawi_asker_waits(const klawi_envelope *e) {
    uint64_t word = atomic_load_explicit(&e->asker->word, memory_order_relaxed);
    return (word & ~(KLAWI_CANCEL | KLAWI_SHIELD)) == (e->epoch | KLAWI_ARMED);
}
/* Most messages are one word: no call for those. */
static inline void klawi_message_copy(void *to, const void *from, size_t size) {
    if (KLAWI_LIKELY(size == 8))
        memcpy(to, from, 8);
    else
        memcpy(to, from, size);
}
/* A5: the one answer. `reply` NULL: an error. False: the asker has left. No lock held. */
static inline bool klawi_asker_answer(klawi_host *h, uint64_t epoch, klaw_err result,
                                      const void *reply, size_t size) {
    if (!klawi_claim(h, epoch))
        return false;
    if (reply)
        klawi_message_copy(h->waiter.slot, reply, size);
    h->result = (int32_t)result;
    klawi_ready(h);
    return true;
}

/* --- mailbox.c --- */
enum klawi_next {
    KLAWI_NEXT_MESSAGE,
    KLAWI_NEXT_SYS,
    KLAWI_NEXT_END,
    KLAWI_NEXT_CUT,
    KLAWI_NEXT_TIMEOUT
};
/* What comes next for the incarnation: a message (in self->env and self->message), a system message
 * (*sys), the end. `messages` false: between incarnations, only the end, or the deadline. */
enum klawi_next klawi_mailbox_next(klaw_self *s, bool messages, klaw_deadline d, klawi_sys **sys);
/* Queues a system message and lets the incarnation look. Under the lock. */
void klawi_mailbox_sys(klaw_actor *a, klawi_sys *sys, klawi_wakes *wakes);
/* Lets a resting incarnation look again. Under the lock. */
void klawi_mailbox_nudge(klaw_actor *a, klawi_wakes *wakes);
/* Nobody gets in any more: senders that wait are told STOPPED. Under the lock. */
void klawi_mailbox_close(klaw_actor *a, klawi_wakes *wakes);
/* The message in hand is not handled: it is dropped, its asker gets `why`. No lock held. */
void klawi_mailbox_discard(klaw_self *s, klaw_err why);
/* Drops what is in it, askers get STOPPED. Ended; no lock held. */
void klawi_mailbox_drop(klaw_actor *a);
void klawi_mailbox_check(klaw_actor *a);

/* --- life.c --- */
void klawi_self_unref(klaw_self *s);

/* --- self.c --- */
/* The incarnation of the actor ends: every promise is answered with `why`. */
void klawi_promises_break(klaw_actor *a, klaw_err why);

/* --- bond.c --- */
/* After b was popped as a system message: takes it out of its owner's list; the caller frees it. False:
 * s was given up, b is gone. */
bool klawi_bond_take(klaw_self *s, klawi_bond *b);
void klawi_bond_free(klawi_bond *b);
/* An incarnation ends with `why`: its links fire, its own bonds go. `last`: s lives no other one. */
void klawi_bonds_end(klaw_self *s, klaw_actor *a, klaw_err why, bool last);
/* The identity has ended: monitors and watchers are told. */
void klawi_bonds_finish(klaw_actor *a, klaw_err why);

/* --- tick.c --- */
void klawi_ticks_end(klaw_self *s);
/* After t was popped: what it was for; frees it when it fires once. False: s was given up, t is gone. */
bool klawi_tick_take(klaw_self *s, klawi_tick *t, uint64_t *id, bool *internal);
klaw_err klawi_tick_set(klaw_self *s, int64_t ns, int64_t period, uint64_t id, bool internal);

/* --- checkpoint.c --- */
klaw_err klawi_checkpoint_save(klaw_self *s);
/* Restores if there is a checkpoint, and arms the interval. */
klaw_err klawi_checkpoint_begin(klaw_self *s);
bool klawi_checkpoint_valid(const klaw_behavior *b, const klaw_actor_opts *o);

/* --- list.c --- */
void klawi_actor_enlist(klaw_actor *a);
void klawi_actor_delist(klaw_actor *a);
/* Calls visit for every actor that has not ended, under the lock of the list: it must not take
 * references, nor any lock but the actor's own. */
void klawi_actors_each(void (*visit)(klaw_actor *a, void *user), void *user);
void klawi_actor_stats(klaw_actor *a, klaw_actor_stats *out);

/* --- actor.c, supervisor.c --- */
/* A number that no other one of the kind has. */
uint64_t klawi_actor_number(void);
uint64_t klawi_supervisor_number(void);

/* --- inspect.c --- */
/* Registers the provider. Called by name, so that the static library links it. */
void klawi_inspect_actors(void);

#endif
