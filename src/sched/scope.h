/* SPDX-License-Identifier: Apache-2.0 */
/* scope.h - scopes inside the scheduler. Included by sched.h. */
#ifndef KLAWI_SCOPE_H
#define KLAWI_SCOPE_H

struct klaw_scope {
    klawi_lock lock;
    _Atomic uint32_t refs;  /* (a) */
    _Atomic bool cancelled; /* (L) written; read anywhere */
    bool shield;            /* (c) */
    bool cancel_on_error;   /* (c) */
    bool timed_out;         /* (L) its deadline was the first reason */
    bool closed;            /* (L) no more fibers */
    int32_t error;          /* (L) the first error of a member */
    uint64_t live;          /* (L) members */
    uint32_t
        guests; /* (L) root: scopes that threads have open in it; they keep the run alive as members do */
    klawi_link members;  /* (L) fibers, by member */
    klawi_link children; /* (L) scopes, by sibling */
    klawi_link sibling;  /* (parent's L) */
    /* (L) who opened it and is inside; NULL once left. Compared under the parent's lock too. */
    _Atomic(klawi_host *) owner;
    klaw_scope *parent;   /* (c) NULL: root; valid until closed */
    klaw_scope *root;     /* (c) a thread's outermost scope keeps the root's memory */
    klaw_scope *inner;    /* (L) the same owner's next scope inside this one */
    klawi_waitq drained;  /* (L) who waits for live == 0 */
    klawi_waitq watchers; /* (L) select cases that wait for its cancellation */
    klaw_scope *work; /* the canceller that cancelled its parent: list of scopes to go on with */
    klaw_context *context; /* (c) owned; members borrow it */
    klawi_timer timer;
    klawi_wheel *home;           /* (c) the wheel of the timer */
    int64_t deadline;            /* (c) KLAW_FOREVER: none */
    uint64_t id, parent_id;      /* (c) */
    klawi_link live_scopes;      /* (registry lock) */
    void (*on_empty)(void *arg); /* (c) root: called when live becomes 0, no lock held */
    void *on_empty_arg;
    char reason[64]; /* (L) written once, before cancelled */
    char name[KLAWI_NAME_MAX];
};

/* The root scope of the running runtime, with a reference; NULL when none runs. */
klaw_scope *klawi_root_ref(void);
/* A scope outside any host (the root). */
klaw_err klawi_scope_new(const klaw_scope_opts *o, klaw_scope **out);
/* Makes f a member; STOPPED when the scope is closed. Sets CANCEL on f when the scope is cancelled.
 * */
klaw_err klawi_scope_join(klaw_scope *s, klaw_fiber *f);
/* f's function returned `result`: keeps the first error, cancels the rest if asked. */
void klawi_scope_failed(klaw_fiber *f, klaw_err result);
/* f is no member any more; the scope may be gone as soon as the wakes have run. Under f's join
 * lock. */
typedef struct klawi_scope_end {
    void (*on_empty)(void *arg); /* to be called after the wakes; NULL: nothing */
    void *arg;
} klawi_scope_end;
void klawi_scope_exit(klaw_fiber *f, klawi_wakes *wakes, klawi_scope_end *end);
/* Out of the registry, and the owner's reference away. */
void klawi_scope_retire(klaw_scope *s);
/* The caller's current scope; NULL: a thread with none. */
klaw_scope *klawi_scope_of(klawi_ctx *c);
/* What klaw_scope_close returns. */
klaw_err klawi_scope_result(klaw_scope *s);
/* Refuses new members and says whether none is left. */
bool klawi_scope_shut(klaw_scope *s);
/* Closes the scopes the calling fiber or thread left open. */
void klawi_scope_unwind(klaw_scope *const *inner);
/* Cancels one fiber (klaw_fiber_cancel). */
void klawi_scope_cancel_member(klaw_fiber *f);
/* The calling fiber, with no scope of its own open, is no longer cancelled by klaw_fiber_cancel;
 * its scope's cancellation stands. */
void klawi_scope_revive(klaw_fiber *f);
/* Calls visit for every live scope, under its lock. */
void klawi_scopes_each(void (*visit)(klaw_scope *s, void *user), void *user);

#endif
