/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.h - supervisors, as their files share them.
 *
 * Field marks: (c) constant after creation, (a) atomic, (L) the supervisor's lock, (K) the keeper alone:
 * the one fiber that carries out what the machine of policy.h decides. */
#ifndef KLAWI_ACTOR_SUPERVISOR_H
#define KLAWI_ACTOR_SUPERVISOR_H

#include "actor/actor.h"
#include "base/link.h"
#include "klaw/supervisor.h"
#include "sched/sched.h"

#define KLAWI_CHILD_NAME (KLAW_CHILD_NAME_MAX + 1)
/* How deep supervisors may nest in one definition. */
#define KLAWI_TREE_DEPTH 32
/* How long a child that has been forced (SIGKILL, klaw_actor_kill, a cancellation that was the first
 * word) may take before it is abandoned. */
#define KLAWI_KILL_GRACE KLAW_S(1)

typedef struct klawi_def klawi_def;
typedef struct klawi_kid klawi_kid;
typedef struct klawi_run klawi_run;
typedef struct klawi_request klawi_request;

/* --- supervisor_spec.c: definitions --- */

/* A nested supervisor's. */
typedef struct klawi_tree {
    klaw_supervisor_opts opts; /* (c) */
    klawi_def **children;      /* (c) n of them, each a reference */
    size_t n;                  /* (c) */
} klawi_tree;

/* A copied klaw_child_spec. */
struct klawi_def {
    _Atomic uint32_t refs; /* (a) */
    _Atomic bool adopted;  /* (a relaxed) arg is ours to drop */
    klaw_child_kind kind;  /* (c), so all the rest */
    klaw_supervision_child policy;
    void *arg;
    void (*drop)(void *arg);
    bool is_template; /* of dynamic children: each has an arg of its own */
    klaw_fn run, init;
    klaw_fiber_opts fiber;
    const klaw_behavior *behavior;
    klaw_actor_opts actor;
    klaw_process_opts process;
    klawi_tree tree;
    uint32_t depth;                 /* supervisors below, itself included */
    char **argv, **env, *cwd, *key; /* copies that process and actor point to */
    char name[KLAWI_CHILD_NAME];
    char short_name[KLAWI_NAME_MAX]; /* of the fiber, the actor */
};

/* A copy, one reference; `depth` supervisors are around it. Errors: INVALID, LIMIT, NOMEM. */
klaw_err klawi_def_new(const klaw_child_spec *given, size_t size, uint32_t depth, bool template_,
                       klawi_def **out);
/* Copies n specs of `size` bytes each. */
klaw_err klawi_defs_new(const klaw_child_spec *specs, size_t size, size_t n, uint32_t depth,
                        bool template_, klawi_def ***out);
void klawi_defs_free(klawi_def **defs, size_t n);
klawi_def *klawi_def_ref(klawi_def *d);
/* The last one drops an adopted arg. */
void klawi_def_unref(klawi_def *d);
/* The args of d and of all below are the supervisor's from now on. */
void klawi_def_adopt(klawi_def *d);
/* A copy of a list of strings in one block, for klawi_free. NULL gives NULL. */
klaw_err klawi_strings_copy(const char *const *list, char ***out);
/* Copies a name; `fallback` when it is NULL. LIMIT, INVALID (empty). */
klaw_err klawi_child_name(const char *name, const char *fallback, char out[KLAWI_CHILD_NAME]);

/* --- a child: what stays over restarts --- */
struct klawi_kid {
    klawi_link order;       /* (L) written by the keeper: in s->kids */
    klawi_kid *chain;       /* (L) the same: in its bucket of s->names */
    _Atomic uint32_t refs;  /* (a) the table's, each run's, a request's */
    klawi_def *def;         /* (c) a reference */
    void *arg;              /* (c) the definition's, or its own */
    char **argv;            /* (c) its own, dynamic process; NULL */
    bool own_arg;           /* (c) arg is its own: dynamic */
    _Atomic bool adopted;   /* (a relaxed) own_arg: arg is ours to drop */
    bool forgotten;         /* (K) REMOVED */
    bool withdrawn;         /* (K) to be forgotten as soon as it is STOPPED */
    uint32_t number;        /* (K) in the machine */
    klawi_request *pending; /* (K) who waits for what becomes of it */
    klaw_err start_error;   /* (K) of the last start that failed */
    klaw_supervisor *sup;   /* (c) for who holds a run, which holds the supervisor */
    /* ACTOR: */
    klawi_actor_control control; /* (c) once actor is set */
    klaw_actor *actor;           /* (L) written by the keeper: the identity, a reference */
    klawi_run *actor_run;        /* (L) whose events these are, with its second reference */
    klawi_run *given_up;         /* (L) incarnations that still run, so */
    uint64_t dead;               /* (L) incarnations up to this one are none of ours */
    klaw_err exit_error;         /* (K) how its last run ended */
    klawi_run *run;              /* (L) written by the keeper: what runs now; NULL */
    /* (L) written by the keeper: what klaw_supervisor_which tells */
    klaw_child_state state;
    uint64_t restarts;
    uint32_t abandoned; /* runs */
    klaw_err last_error;
    int last_sys;
    char last_detail[64];
    char name[KLAWI_CHILD_NAME]; /* (c) */
};
void klawi_kid_unref(klawi_kid *k);

/* --- supervisor_run.c: one run of a child, from a start to its end --- */
#define KLAWI_RUN_STARTED 1u
#define KLAWI_RUN_ENDED 2u /* before STARTED: the start has failed */

struct klawi_run {
    klawi_link inbox;         /* (L) next NULL: not linked */
    klawi_link dying;         /* (K) next NULL: not linked */
    _Atomic uint32_t refs;    /* (a) the keeper's, and that of whoever runs it */
    klaw_supervisor *sup;     /* (c) a reference */
    klawi_kid *kid;           /* (c) a reference */
    int64_t give_up;          /* (K) when it is abandoned */
    _Atomic bool asked;       /* (a) told to stop; written under L */
    bool forced;              /* (L) */
    bool abandoned;           /* (L) the keeper has given its reference up */
    uint8_t told;             /* (L) KLAWI_RUN_* not yet looked at */
    bool started;             /* (K) STARTED has been looked at */
    bool start_told;          /* (L) STARTED has been told */
    klaw_err error;           /* (L) with ENDED */
    int sys;                  /* (L) with ENDED */
    int64_t id;               /* (L) */
    klawi_run *next_given_up; /* (L) in kid->given_up */
    klaw_scope *scope;        /* (L) FIBER; all three references, set once and kept */
    klaw_process *process;    /* (L) */
    klaw_supervisor *nested;  /* (L) */
    char detail[64];          /* (L) with ENDED */
};

/* All by the keeper. Starts the child; what becomes of it is told by klawi_run_tell, at once or later. An
 * error: nothing has been started, nothing will be told. */
klaw_err klawi_run_start(klaw_supervisor *s, klawi_kid *k, klawi_run **out);
/* Asks it to stop; for_good: it will not be started again, so an actor handles what it has got. */
void klawi_run_stop(klawi_run *r, bool for_good);
/* Forces it. The time in ns until it has to be given up: 0: now. */
int64_t klawi_run_kill(klawi_run *r);
/* Gives it up: it tells nothing from now on. False: it has ended, and that waits to be heard. */
bool klawi_run_abandon(klawi_run *r);
void klawi_run_unref(klawi_run *r);
/* By whoever runs it; ENDED uses up his reference. */
void klawi_run_tell(klawi_run *r, uint8_t what, klaw_err error, int sys, const char *detail);

/* --- requests: what other hosts want of the keeper --- */
enum klawi_request_kind { KLAWI_REQ_START, KLAWI_REQ_STOP, KLAWI_REQ_RESTART, KLAWI_REQ_DELETE };

struct klawi_request {
    klawi_link inbox;      /* (L) next NULL: not linked */
    klawi_request *next;   /* (K) in kid->pending */
    _Atomic uint32_t refs; /* (a) the asker's and the supervisor's */
    uint8_t kind;          /* (c) */
    klawi_kid *kid;        /* START: the asker's, a reference; else (K) borrowed */
    char name[KLAWI_CHILD_NAME];
    bool make_name;      /* (c) START: the keeper makes one */
    bool withdrawn;      /* (L) START: the asker has left */
    bool entered;        /* (K) START: its kid is in the machine */
    bool withdrawing;    /* (K) so it is being undone */
    bool done;           /* (L) */
    klaw_err result;     /* (L) with done */
    int sys;             /* (L) with done */
    char detail[64];     /* (L) with done */
    klawi_waitq waiters; /* (L) */
};
void klawi_request_unref(klawi_request *q);

/* --- the supervisor --- */
struct klaw_supervisor {
    klawi_lock lock;
    _Atomic uint32_t refs;     /* (a) */
    uint64_t id;               /* (c) */
    klaw_supervisor_opts opts; /* (c) */
    klawi_def *template_;      /* (c) dynamic: a reference */
    klawi_run *parent;         /* (c) the run of the supervisor around it; a reference; NULL */
    klawi_link all;            /* (registry's L) */
    /* (L) what wakes the keeper */
    klawi_link runs;     /* with news, by inbox */
    klawi_link requests; /* by inbox */
    bool want_stop, want_force;
    klawi_waitq keeper; /* the keeper, when it waits */
    /* (L) what others wait for */
    klawi_waitq begun_waiters, finished_waiters;
    bool begun;         /* all children have started once */
    bool settled;       /* begun, or finished before */
    bool finished;      /* nothing runs any more, but what was abandoned */
    klaw_err why;       /* with finished */
    uint64_t keeper_id; /* (L) written by the keeper: its fiber */
    /* (L) written by the keeper: the children */
    klawi_link kids;
    klawi_kid **names; /* buckets */
    uint32_t buckets, count;
    uint64_t abandoned, restarts;
    /* the opener's, then the keeper's */
    klaw_supervision *machine;
    klawi_kid **by_number;
    uint32_t numbers, numbers_cap; /* all below `numbers` may be used */
    klawi_link dying;              /* forced runs, by give_up */
    uint64_t last_name;            /* of dynamic children */
    bool stopping, forced;         /* the machine has been told; everything has been forced */
    bool refresh;                  /* states may have changed without an action */
    bool done;                     /* the machine has said DONE */
    klaw_err outcome;              /* of DONE */
    int fail_sys;                  /* the first failed start: */
    char fail_child[KLAWI_CHILD_NAME], fail_detail[64];
    char name[KLAWI_CHILD_NAME]; /* (c) */
};

/* supervisor.c */
/* A supervisor with its children in the machine, not begun; children's definitions get a reference
 * each. */
klaw_err klawi_supervisor_new(const klaw_supervisor_opts *o, klawi_def *const *defs, size_t n,
                              klawi_run *parent, klaw_supervisor **out);
/* Tells the keeper. From anywhere. */
void klawi_supervisor_want(klaw_supervisor *s, bool force);
/* Waits, under s's lock in between, until *flag; shielded: whatever comes. */
klaw_err klawi_supervisor_await(klaw_supervisor *s, klawi_waitq *q, const bool *flag,
                                klaw_deadline deadline, bool shielded);
/* Under the lock: claims who waits in q. */
void klawi_supervisor_claim(klawi_waitq *q, klawi_wakes *wakes);
klawi_kid *klawi_kid_new(klaw_supervisor *s, klawi_def *d, const char *name);
/* Under the lock (or by the keeper). */
klawi_kid *klawi_kid_find(const klaw_supervisor *s, const char *name);
/* By the keeper: enters a kid into machine and tables. Its reference is taken on OK. */
klaw_err klawi_kid_enter(klaw_supervisor *s, klawi_kid *k);
/* By the keeper: out of the tables; the tables' reference is the caller's now. */
void klawi_kid_leave(klaw_supervisor *s, klawi_kid *k);

/* supervisor_keeper.c: the keeper's function; arg is the supervisor, one reference. */
klaw_err klawi_supervisor_keep(void *arg);

/* supervisor_look.c: what klaw_supervisor_which and _count tell. Under the lock. */
void klawi_kid_tell(const klawi_kid *k, klaw_child_info *out);
void klawi_supervisor_counts(const klaw_supervisor *s, klaw_supervisor_counts *out);

/* Calls visit for every supervisor that has not finished, children and all standing still, under
 * locks: it must not wait, allocate or call back. */
void klawi_supervisors_each(void (*visit)(klaw_supervisor *s, void *user), void *user);

#endif
