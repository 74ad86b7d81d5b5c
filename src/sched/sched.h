/* SPDX-License-Identifier: Apache-2.0 */
/* sched.h - fibers, workers and the runtime, as the files of this layer share them.
 *
 * Field marks: (c) constant after creation, (o) owner only, (a) atomic, (L) the named lock. */
#ifndef KLAWI_SCHED_H
#define KLAWI_SCHED_H

#include "klaw/context.h"
#include "klaw/fiber.h"
#include "klaw/scope.h"
#include "plat/switch.h"
#include "sched/host.h"
#include "sched/stack.h"

typedef struct klawi_worker klawi_worker;
typedef struct klawi_runtime klawi_runtime;

#define KLAWI_NAME_MAX 32

/* --- fibers --- */
enum klawi_fiber_state { KLAWI_F_FREE, KLAWI_F_LIVE, KLAWI_F_DONE };

#define KLAWI_FF_NEW 1u /* has no stack yet */
#define KLAWI_FF_PINNED 2u
#define KLAWI_FF_FPENV 4u
#define KLAWI_FF_CXX 8u
#define KLAWI_FF_CANARY 16u    /* unguarded stack */
#define KLAWI_FF_CONTEXT 32u   /* holds a reference of its context */
#define KLAWI_FF_UNGUARDED 64u /* wants an unguarded stack */
#define KLAWI_FF_ABANDONED \
    128u /* with PINNED, to nowhere: its run has been given up, it is never readied again */
/* The other word, under the scope's lock: */
#define KLAWI_FS_INNER 1u     /* has a scope open: that scope cancels it, not its own */
#define KLAWI_FS_CANCELLED 2u /* by klaw_fiber_cancel */
#define KLAWI_FF_SLOW (KLAWI_FF_NEW | KLAWI_FF_FPENV | KLAWI_FF_CXX | KLAWI_FF_CANARY)

struct klaw_fiber {
    klawi_host host;         /* first: a fiber is a host */
    void *sp;                /* saved stack pointer, valid when on_cpu is 0 */
    _Atomic uint32_t on_cpu; /* (a) P8 */
    _Atomic uint32_t flags;  /* (a relaxed) KLAWI_FF_*, written by the worker that has it */
    klawi_stack *stack;      /* (o) while it runs */
    klaw_fn fn;              /* (c) */
    void *arg;               /* (c) */
    void *value;             /* (o), then the joiner's */
    klaw_scope *scope;       /* (c) the scope it is a member of */
    klaw_scope *inner;       /* (o) the innermost scope it has opened; NULL: none */
    klawi_link member;       /* (scope's lock) in scope->members */
    klaw_context *context;   /* (o) what it inherited or entered */
    struct klaw_fiber *next; /* run lists, free lists, cancellation chains: one at a time */
    char *name;              /* (join lock) NULL: "fiber"; a cell of type-stable memory */
    uint64_t id;             /* (join lock) */
    klawi_link joiners;      /* (join lock) at most one */
    klawi_lock join_lock;
    _Atomic uint32_t state; /* (join lock) enum klawi_fiber_state */
    _Atomic uint16_t home;  /* (a relaxed) pinned: index of its worker */
    uint8_t size_class;     /* (c) of its stack */
    uint8_t governed;       /* (scope's lock) KLAWI_FS_* */
    bool handle;            /* (join lock) somebody may join */
};
#if !defined(KLAWI_DEBUG)
_Static_assert(sizeof(struct klaw_fiber) <= 296,
               "a parked fiber costs a page and a descriptor: speed.md, row 7");
#endif

static inline uint32_t klawi_ff(const struct klaw_fiber *f) {
    return atomic_load_explicit(&f->flags, memory_order_relaxed);
}
static inline uint16_t klawi_home(const struct klaw_fiber *f) {
    return atomic_load_explicit(&f->home, memory_order_relaxed);
}
static inline void klawi_ff_set(struct klaw_fiber *f, uint32_t bits) {
    atomic_store_explicit(&f->flags, klawi_ff(f) | bits, memory_order_relaxed);
}
static inline void klawi_ff_clear(struct klaw_fiber *f, uint32_t bits) {
    atomic_store_explicit(&f->flags, klawi_ff(f) & ~bits, memory_order_relaxed);
}

/* --- what the thread-local pointer leads to: a worker, or a plain thread --- */
typedef struct klawi_ctx {
    klawi_host *cur;      /* (o) the host that runs; NULL inside the scheduler */
    int32_t budget;       /* (o) R8: operations left in this turn */
    uint32_t seed;        /* (o) random numbers */
    klawi_worker *worker; /* (c) NULL: a plain thread */
    uint32_t patience;    /* (o) pauses before the first look again, see klawi_spin */
    int32_t held;         /* (o) > 0: the host must not yield now */
} klawi_ctx;

/* A plain thread as a host; type-stable. */
typedef struct klawi_thread {
    klawi_ctx ctx;
    klawi_host host;
    _Atomic uint32_t flag; /* (a) 0 waiting, 1 asleep, 2 ready */
    uint32_t tid;          /* (c) while it is a host: the kernel's number of the thread */
    klaw_scope *inner;
    klaw_context *context;
    struct klawi_thread *next; /* free list */
} klawi_thread;

#if defined(KLAWI_DET)
#define KLAWI_RUNQ 8u /* so that schedules of a few fibers fill it */
#else
#define KLAWI_RUNQ 256u
#endif
#define KLAWI_TURN_OPS 128
#define KLAWI_SLOT_RUNS 32u
#define KLAWI_GLOBAL_EVERY 61u

/* WOKEN: by klawi_wake_one, and counted in rt->searching until it stands up. */
enum klawi_worker_state { KLAWI_W_RUNNING, KLAWI_W_SLEEPING, KLAWI_W_POLLING, KLAWI_W_WOKEN };

struct klawi_worker {
    /* hot, owner only */
    _Alignas(KLAWI_LINE) klawi_ctx ctx;
    _Atomic(klaw_fiber *) slot; /* (a) R1: next slot; only the monitor steals from it (R4) */
    _Atomic bool taking;        /* (a) the owner is at the slot; see slot_take in park.c */
    _Atomic bool lockout;       /* (a) the monitor is at the slot */
    void *sched_sp;             /* the worker's own stack while a fiber runs */
    uint32_t slot_runs;         /* R2 */
    uint32_t watch_pos;         /* R3: the queue's tail when watching began */
    bool watching;
    uint64_t watch_since;
    _Atomic uint32_t turns;   /* (a) written by the owner */
    uint32_t index;           /* (c) */
    klaw_fiber *handoff;      /* for the scheduler loop to run next */
    klawi_stack *dead_stack;  /* of a fiber that has just ended, for the loop to give back */
    uint64_t next_id;         /* of fibers spawned here */
    klawi_runtime *rt;        /* (c) */
    klawi_stack_cache stacks; /* (o) */
    klaw_fiber *free_fibers;  /* (o) */
    uint32_t free_count;
    _Atomic uint32_t dummy; /* what klawi_switch clears when nobody cares */
    /* the run queue: Go's bounded ring; thieves write head */
    _Alignas(KLAWI_LINE) _Atomic uint32_t head;
    _Atomic uint32_t tail; /* (a) written by the owner */
    _Atomic(klaw_fiber *) ring[KLAWI_RUNQ];
    /* pushed to by anybody: pinned fibers */
    _Alignas(KLAWI_LINE) klawi_lock inbox_lock;
    _Atomic(klaw_fiber *) inbox; /* (L) written; looked at without */
    klaw_fiber *inbox_last;      /* (L) while inbox is not empty */
    /* pinned fibers of the owner: no thief takes them */
    klaw_fiber *pinned, **pinned_tail;
    klawi_wheel wheel;
    /* sleeping */
    _Alignas(KLAWI_LINE) _Atomic uint32_t state; /* (a) enum klawi_worker_state, the futex */
    _Atomic uint64_t steals, parks;
    uint32_t seen_turns; /* (monitor) turns of this worker at the last tick */
    klawi_thread_id thread;
    void *sig_stack;
    klawi_host idle_host; /* never parks; keeps ctx.cur non-NULL for callbacks */
#if defined(KLAWI_TSAN)
    void *tsan_fiber;
    _Atomic uint32_t ended; /* fibers, for the order between them and the worker's end */
#endif
#if defined(KLAWI_ASAN)
    const void *asan_low; /* the worker thread's own stack */
    size_t asan_size;
#endif
};

struct klawi_runtime {
    /* (c) of a run; atomic for foreign threads that still look while the next run begins */
    _Atomic uint32_t nworkers;
    uint32_t blocking_max;
    bool can_spin;
    int64_t grace;
    _Atomic size_t stack_size;
    klawi_worker **workers; /* (c) */
    klaw_scope *root;       /* (c) */
    /* global run list */
    _Alignas(KLAWI_LINE) klawi_lock global_lock;
    _Atomic(klaw_fiber *) global; /* (L) */
    klaw_fiber *global_last;      /* (L) while global is not empty */
    _Atomic uint32_t global_len;
    _Alignas(KLAWI_LINE) _Atomic uint32_t sleepers; /* (a) R5: workers that sleep or poll */
    _Atomic uint32_t searching;                     /* (a) R3, R6 */
    _Atomic uint32_t polling;   /* (a) 0 nobody, 1 the monitor ticks, 2 it waits long */
    _Atomic int64_t poll_until; /* (a) what a long poll waits for */
    _Atomic uint32_t stop;      /* (a) workers leave */
    _Atomic uint32_t fd_waits;  /* (a) waits armed in the poller */
    klawi_poller poller;
    klaw_fn main;          /* (c) */
    void *main_arg;        /* (c) */
    _Atomic uint32_t done; /* (a) futex: the root scope is empty */
    klaw_err
        result; /* of main; here, not on klaw_run's stack: an abandoned main may still write it */
    char name[KLAWI_NAME_MAX];
};

extern __thread klawi_ctx *klawi_tls;
extern _Atomic(klawi_runtime *) klawi_rt;

/* The thread-local pointer, read afresh each time: a fiber may have moved to another thread, and
 * the compiler must not keep the thread's address across a switch. */
static inline klawi_ctx *klawi_ctx_get(void) {
#if defined(__x86_64__) && !defined(KLAWI_SAN) && !defined(KLAWI_DET)
    klawi_ctx *c;
    __asm__ volatile("movq klawi_tls@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(c));
    return c;
#else
    klawi_ctx *klawi_ctx_load(void);
    return klawi_ctx_load();
#endif
}

/* The calling host's context; makes one for a thread that is new here. NULL: no memory, or the
 * child of a fork (*why says which). */
klawi_ctx *klawi_ctx_slow(klaw_err *why);
static inline klawi_ctx *klawi_ctx_need(klaw_err *why) {
    klawi_ctx *c = klawi_ctx_get();
    return KLAWI_LIKELY(c != NULL) ? c : klawi_ctx_slow(why);
}

/* Only the owner writes cur; inspect peeks. */
static inline void klawi_cur_set(klawi_worker *w, klawi_host *h) {
    __atomic_store_n(&w->ctx.cur, h, __ATOMIC_RELAXED);
}
static inline klawi_host *klawi_cur_peek(klawi_worker *w) {
    return __atomic_load_n(&w->ctx.cur, __ATOMIC_RELAXED);
}

static inline klaw_fiber *klawi_fiber_of(klawi_host *h) {
    return (klaw_fiber *)(void *)h;
}
static inline klawi_thread *klawi_thread_of(klawi_host *h) {
    return KLAWI_CONTAINER(h, klawi_thread, host);
}

/* The host that runs. Read by relaxed loads because inspect's peer writes by relaxed stores. */
static inline klawi_host *klawi_cur(klawi_ctx *c) {
    return __atomic_load_n(&c->cur, __ATOMIC_RELAXED);
}

/* R8: counts a non-parking operation; true when the turn's are used up. */
static inline bool klawi_budget_take(klawi_ctx *c) {
    int32_t left = __atomic_load_n(&c->budget, __ATOMIC_RELAXED) - 1;
    __atomic_store_n(&c->budget, left, __ATOMIC_RELAXED);
    return KLAWI_UNLIKELY(left <= 0);
}
/* +1: no yields from here on, -1: again. */
static inline void klawi_hold(klawi_ctx *c, int32_t by) {
    __atomic_store_n(&c->held, __atomic_load_n(&c->held, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
}
/* A random number for fairness. */
static inline uint32_t klawi_ctx_rand(klawi_ctx *c) {
    KLAWI_OWNED_BEGIN();
    uint32_t r = klawi_rand(&c->seed);
    KLAWI_OWNED_END();
    return r;
}
/* At zero a fiber checks for cancellation and yields. */
klaw_err klawi_budget_spent(klawi_ctx *c);

/* P3: parks the calling host. The waiter is filled and linked, `l` is held and is released. Returns
 * the host's result: the winner's, TIMEOUT or CANCELLED. `deadline` may be any klaw_deadline;
 * NOWAIT and past ones have to be dealt with before (klawi_deadline_resolve). */
klaw_err klawi_park(klawi_host *h, klawi_waiter *w, klawi_lock *l, klaw_deadline deadline);
/* The same for a wait that neither cancellation nor a deadline ends. */
void klawi_park_shielded(klawi_host *h, klawi_waiter *w, klawi_lock *l);
/* The second half of a park whose waiters are armed and unlocked (select). */
klaw_err klawi_park_armed(klawi_host *h, uint64_t epoch, klaw_deadline deadline);

/* Absolute form of a deadline. OK: *at is KLAW_FOREVER or in the future. Else `nowait` for NOWAIT,
 * TIMEOUT for the past. */
static inline klaw_err klawi_deadline_resolve(klaw_deadline d, klaw_err nowait, int64_t *at) {
    if (d == KLAW_FOREVER) {
        *at = d;
        return KLAW_OK;
    }
    if (d == KLAW_NOWAIT)
        return nowait;
    int64_t now = klawi_clock();
    if (d < 0) {
        *at = now > KLAW_FOREVER - 1 + d ? KLAW_FOREVER - 1 : now - d;
        return KLAW_OK;
    }
    *at = d;
    return d <= now ? KLAW_TIMEOUT : KLAW_OK;
}

/* --- spinning before a park (park.c) ---
 * A host that has nothing else to do and a processor to spare looks a few times more before it
 * parks: waking a sleeping thread costs 20 us and more. */
typedef struct klawi_spin {
    uint32_t rounds, pauses;
} klawi_spin;
/* Whether it is worth another look; s starts all zero. */
bool klawi_spin_wants(const klawi_spin *s, klawi_ctx *c);
/* Lets some time pass. No lock held. */
void klawi_spin_pause(klawi_spin *s, klawi_ctx *c);
/* After a success that spinning has won: `more` says that the peer is ahead of us, so longer pauses
 * let it work undisturbed. */
void klawi_spin_won(klawi_spin *s, klawi_ctx *c, bool more);

/* As klaw_run_stop for the run with this root, which does not wait for its grace: what has not ended
 * is abandoned now. */
klaw_err klawi_run_give_up(const klaw_scope *root, const char *reason);

/* --- worker.c --- */
void klawi_worker_loop(klawi_worker *w);
void klawi_runq_push(klawi_worker *w, klaw_fiber *f);
/* From anywhere: to the global list; wakes a sleeper. */
void klawi_inject(klawi_runtime *rt, klaw_fiber *f);
/* A pinned fiber to its worker. */
void klawi_inject_pinned(klawi_runtime *rt, klaw_fiber *f);
/* Turn boundary work other than the next slot: NULL when the own queue is empty. */
klaw_fiber *klawi_next_local(klawi_worker *w);
void klawi_wake_one(klawi_runtime *rt);
/* Lets a long poll look again (an earlier timer, a stop). */
void klawi_poll_kick(klawi_runtime *rt);
klawi_wheel *klawi_wheel_for(klawi_ctx *c);

/* --- park.c --- */
/* Leaves the fiber: to `n` directly when it can be run, else to the scheduler loop with `n` as its
 * next. */
void klawi_leave(klawi_worker *w, klaw_fiber *f, klaw_fiber *n);
/* Off a stack that is never come back to (sanitizers). */
void klawi_leave_for_good(klawi_worker *w) KLAWI_NORETURN;
void klawi_yield_now(klawi_worker *w, klaw_fiber *f);
klaw_fiber *klawi_pick(klawi_worker *w);
/* The owner takes what is in its slot, if anything. */
klaw_fiber *klawi_slot_take(klawi_worker *w);
/* R4: the monitor takes it from another worker. */
klaw_fiber *klawi_slot_steal(klawi_worker *v);
/* The two halves of an asymmetric barrier: nothing on the fast side where membarrier works. */
extern bool klawi_heavy;
static inline void klawi_fence_light(void) {
    if (KLAWI_LIKELY(klawi_heavy))
        atomic_signal_fence(memory_order_seq_cst);
    else
        klawi_fence();
}
void klawi_fence_heavy(void);

/* --- fiber.c --- */
void klawi_fiber_entry(void *arg);
/* Makes a fiber in `scope` and queues it; `next`: into the worker's next slot, for one that works
 * for its spawner. */
klaw_err klawi_fiber_spawn(klawi_runtime *rt, klawi_ctx *c, klaw_scope *scope, klaw_fn fn,
                           void *arg, const klaw_fiber_opts *opts, bool next, klaw_fiber **out);
void klawi_fiber_attach(klawi_worker *w, klaw_fiber *f);
/* What a fiber with special needs keeps while it does not run: before it leaves, and when it comes
 * back. Checks canaries. */
void klawi_fiber_store(klaw_fiber *f);
void klawi_fiber_restore(klaw_fiber *f);
/* The same when the descriptor may be gone. */
void klawi_fiber_leaves(klawi_stack *s, uint32_t flags);
/* Calls visit for every live fiber, under its join lock: id, name, scope, state stand still
 * meanwhile. */
void klawi_fibers_each(void (*visit)(klaw_fiber *f, void *user), void *user);
const char *klawi_fiber_name(const klaw_fiber *f);
void klawi_worker_caches_free(klawi_worker *w);

/* --- inspect.c --- */
/* Registers the providers. Called by name: a constructor alone would not be linked from the static
 * library. */
void klawi_inspect_sched(void);

/* --- scope.c --- */
#include "sched/scope.h"

/* --- fault.c: stack overflows --- */
void klawi_fault_install(void);
void *klawi_fault_stack_enter(void);
void klawi_fault_stack_leave(void *p);

/* --- blocking.c, fd.c --- */
void klawi_blocking_stop(klawi_runtime *rt);
/* The run has been given up: its threads are left to their jobs, and its jobs to them. */
void klawi_blocking_abandon(void);
void klawi_fd_events(klawi_runtime *rt, const klawi_poll_event *ev, int n);

/* --- thread.c --- */
/* The key that gives hosts back, and the fork handler; once. */
void klawi_thread_setup(void);
/* The calling thread's host goes back now (deterministic build: virtual processors have no thread
 * end). */
void klawi_thread_host_drop(void);
klaw_context **klawi_host_context(void);
extern _Atomic bool klawi_forked;

/* What a host waits for, for inspect. */
enum klawi_wait {
    KLAWI_WAIT_NONE,
    KLAWI_WAIT_SEND,
    KLAWI_WAIT_RECV,
    KLAWI_WAIT_SELECT,
    KLAWI_WAIT_SLEEP,
    KLAWI_WAIT_JOIN,
    KLAWI_WAIT_SCOPE,
    KLAWI_WAIT_FD,
    KLAWI_WAIT_BLOCKING,
    KLAWI_WAIT_ASK,
    KLAWI_WAIT_MAILBOX,
    KLAWI_WAIT_TASK,
    KLAWI_WAIT_EXECUTOR,
    KLAWI_WAIT_ACTOR,
    KLAWI_WAIT_TELL,
};
/* Beside it in host.what: the wait has a deadline. */
#define KLAWI_WAIT_TIMED 0x80u
static inline void klawi_host_waits(klawi_host *h, uint8_t what, uint64_t id) {
    atomic_store_explicit(&h->what, what, memory_order_relaxed);
    atomic_store_explicit(&h->object, id, memory_order_relaxed);
}

#endif
