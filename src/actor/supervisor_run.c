/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor_run.c - one run of a child, whatever its kind: started, asked to stop, forced, and what it
 * tells.
 *
 * Each run has a fiber that carries it and tells the keeper what becomes of it: the child itself
 * (fiber, actor), who waits for it (process), or the keeper of a nested supervisor. It lives in the
 * keeper's scope, which is shielded: only the keeper asks it to stop.
 *
 * Invariants:
 *   U1  a run whose start returned OK tells ENDED exactly once; STARTED at most once, and before.
 *   U2  `asked` and `forced` are written, and process and nested are published, under the lock:
 *       of a stop and a start that meet, exactly one sees the other and passes the stop on.
 *   U3  after `abandoned` the keeper is told nothing any more; who runs it keeps run, kid and
 *       supervisor alive by the run's second reference.
 *   U4  a run that was not given up holds nothing any more once the keeper hears of its end: what the
 *       child was given is dropped when the supervisor forgets it, not some time later.
 *
 * Rejected: letting children be members of the scope the supervisor was opened in. A cancellation would
 * reach all of them at once, and the order of the stop would be nobody's. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "actor/supervisor.h"
#include "base/alloc.h"
#include "klaw/log.h"

void klawi_run_unref(klawi_run *r) {
    /* acq_rel: the last one sees what the other did. */
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    KLAWI_ASSERT(!r->inbox.next && !r->dying.next);
    klaw_scope_unref(r->scope);
    klaw_process_unref(r->process);
    klaw_supervisor_unref(r->nested);
    klawi_kid_unref(r->kid);
    klaw_supervisor_unref(r->sup);
    klawi_free(r);
}

void klawi_run_tell(klawi_run *r, uint8_t what, klaw_err error, int sys, const char *detail) {
    klaw_supervisor *s = r->sup;
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    bool late = r->abandoned && !KLAWI_MUTANT(U3_TELL_LATE);
    if (what == KLAWI_RUN_ENDED) {
        r->error = error;
        r->sys = sys;
        snprintf(r->detail, sizeof r->detail, "%.63s", detail ? detail : "");
        r->id = 0;
        s->abandoned -= late;
        r->kid->abandoned -= late;
    }
    if (!late) {                     /* U3 */
        if (what == KLAWI_RUN_ENDED) /* not the last one; before the keeper may hear of it (U4) */
            atomic_fetch_sub_explicit(&r->refs, 1, memory_order_release);
        r->told |= what;
        r->start_told |= what == KLAWI_RUN_STARTED;
        if (!r->inbox.next)
            klawi_link_push(&s->runs, &r->inbox);
        klawi_supervisor_claim(&s->keeper, &wakes);
    }
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    if (late && what == KLAWI_RUN_ENDED) {
        KLAW_LOG_WARN("abandoned child ended", klaw_log_str("supervisor", s->name),
                      klaw_log_str("child", r->kid->name), klaw_log_err("error", error));
        klawi_run_unref(r);
    }
}

static bool asked(klawi_run *r) {
    return atomic_load_explicit(&r->asked, memory_order_acquire);
}

/* What it is now known by. Returns `forced` and whether it had been asked to stop before (U2). */
static bool publish(klawi_run *r, int64_t id, klaw_scope *scope, klaw_process *p, bool *forced) {
    klawi_lock_acquire(&r->sup->lock);
    r->id = id;
    r->scope = scope;
    r->process = p;
    *forced = r->forced;
    bool stop = asked(r);
    klawi_lock_release(&r->sup->lock);
    return stop;
}

/* --- fibers: the child is a scope with a fiber in it, so that what it spawns belongs to it. It is the
 * scope that is cancelled: klaw_fiber_cancel looks for it among all its siblings. --- */
static klaw_err fiber_body(klawi_run *r) {
    klaw_scope *scope;
    bool forced;
    klaw_scope_opts so = {.name = r->kid->def->short_name};
    klaw_err e = klaw_scope_open(&so, &scope);
    if (e)
        return e;
    e = publish(r, (int64_t)klaw_self_id(), klaw_scope_ref(scope), NULL, &forced) ? KLAW_CANCELLED
                                                                                  : KLAW_OK;
    if (!e && r->kid->def->init && (e = r->kid->def->init(r->kid->arg)) == KLAW_OK)
        klawi_run_tell(r, KLAWI_RUN_STARTED, KLAW_OK, 0, NULL);
    if (!e)
        e = r->kid->def->run(r->kid->arg);
    if (e)
        klaw_scope_cancel(scope, "child ended");
    klaw_err of_others = klaw_scope_close(scope);
    /* Cancelled: by us, just above, or by the keeper, which knows. */
    return e || of_others == KLAW_CANCELLED ? e : of_others;
}

static klaw_err fiber_main(void *arg) {
    klawi_run *r = arg;
    klaw_err e = fiber_body(r);
    klawi_run_tell(r, KLAWI_RUN_ENDED, e, 0, NULL);
    return KLAW_OK;
}

/* --- processes --- */
static void process_signal(klaw_process *p, int sig) {
    klaw_err e = klaw_process_kill_group(p, sig);
    if (e && e != KLAW_NOT_FOUND)
        KLAW_LOG_WARN("a process group cannot be signalled",
                      klaw_log_i64("pid", klaw_process_pid(p)), klaw_log_err("error", e));
}

static klaw_err process_main(void *arg) {
    klawi_run *r = arg;
    klaw_process_opts o = r->kid->def->process;
    klaw_error_info info = {0};
    klaw_process *p = NULL;
    klaw_process_status st = {0};
    char detail[64];
    bool forced;
    if (r->kid->argv)
        o.argv = (const char *const *)(uintptr_t)r->kid->argv;
    klaw_err e = klaw_process_spawn(&o, &p, &info);
    if (e) {
        klawi_run_tell(r, KLAWI_RUN_ENDED, e, info.sys, info.message);
        return KLAW_OK;
    }
    if (publish(r, klaw_process_pid(p), NULL, p, &forced))
        process_signal(p, forced ? SIGKILL : SIGTERM);
    klawi_run_tell(r, KLAWI_RUN_STARTED, KLAW_OK, 0, NULL);
    while (klaw_process_wait(p, KLAW_FOREVER, &st) != KLAW_OK)
        if (klaw_sleep(KLAW_WITHIN(KLAW_MS(10))) != KLAW_OK) /* no memory to wait with: later */
            break;
    klaw_process_status_text(&st, detail, sizeof detail);
    bool failed = st.code != 0;
    klawi_run_tell(r, KLAWI_RUN_ENDED, failed ? KLAW_SYSTEM : KLAW_OK, 0, failed ? detail : NULL);
    return KLAW_OK;
}

/* --- actors: the identity is the kid's and survives its runs, each of which is one incarnation --- */

/* On the actor's fiber. Of an incarnation that was given up only its end is of interest; which of several
 * it was does not matter. */
static void actor_event(void *user, klaw_actor *a, uint64_t incarnation,
                        enum klawi_actor_event event, klaw_err error) {
    klawi_kid *k = user;
    klaw_supervisor *s = k->sup;
    bool ended = event != KLAWI_ACTOR_STARTED;
    (void)a;
    klawi_lock_acquire(&s->lock);
    klawi_run *r = incarnation > k->dead ? k->actor_run : NULL;
    if (ended && r) {
        k->actor_run = NULL;
    } else if (ended && (r = k->given_up) != NULL) {
        k->given_up = r->next_given_up;
    }
    klawi_lock_release(&s->lock);
    KLAWI_ASSERT(r || !ended);
    if (r)
        klawi_run_tell(r, ended ? KLAWI_RUN_ENDED : KLAWI_RUN_STARTED, error, 0, NULL);
}

static klaw_err start_actor(klawi_run *r) {
    klawi_kid *k = r->kid;
    klaw_actor *a = k->actor;
    klaw_err e = KLAW_OK;
    if (!a) {
        k->control = (klawi_actor_control){actor_event, k};
        e = klawi_actor_new(k->def->behavior, k->arg, &k->def->actor, &k->control, &a);
        if (e)
            return e;
    }
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    klawi_lock_acquire(&r->sup->lock);
    k->actor = a;
    k->actor_run = r;
    r->id = (int64_t)klaw_actor_id(a);
    klawi_lock_release(&r->sup->lock);
    e = klawi_actor_start(a, NULL); /* the keeper's scope */
    if (!e)
        return KLAW_OK;
    klawi_lock_acquire(&r->sup->lock);
    k->actor_run = NULL;
    klawi_lock_release(&r->sup->lock);
    atomic_fetch_sub_explicit(&r->refs, 1, memory_order_relaxed);
    return e;
}

/* --- starting --- */
static klaw_err start_fiber(klawi_run *r, klaw_fn fn, const klaw_fiber_opts *o) {
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    klaw_err e = klaw_spawn(NULL, fn, r, o, NULL); /* the keeper's scope */
    if (e)
        atomic_fetch_sub_explicit(&r->refs, 1, memory_order_relaxed);
    return e;
}

static klaw_err start_nested(klawi_run *r) {
    const klawi_tree *t = &r->kid->def->tree;
    klaw_supervisor *s;
    klaw_err e = klawi_supervisor_new(&t->opts, t->children, t->n, r, &s);
    if (e)
        return e;
    klaw_fiber_opts fo = {.name = s->name};
    e = klaw_spawn(NULL, klawi_supervisor_keep, klaw_supervisor_ref(s), &fo, NULL);
    if (e)
        klaw_supervisor_unref(s);
    if (e) {
        klaw_supervisor_unref(s);
        return e;
    }
    klawi_lock_acquire(&r->sup->lock);
    r->nested = s;
    r->id = (int64_t)s->id;
    klawi_lock_release(&r->sup->lock);
    return KLAW_OK;
}

klaw_err klawi_run_start(klaw_supervisor *s, klawi_kid *k, klawi_run **out) {
    klaw_fiber_opts fo = {.name = k->def->short_name[0] ? k->def->short_name : k->name};
    klawi_run *r = klawi_calloc(1, sizeof *r);
    klaw_err e;
    if (!r)
        return KLAW_NOMEM;
    atomic_init(&r->refs, 1);
    r->sup = klaw_supervisor_ref(s);
    r->kid = k;
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    switch (k->def->kind) {
    case KLAW_CHILD_FIBER: e = start_fiber(r, fiber_main, &k->def->fiber); break;
    case KLAW_CHILD_ACTOR: e = start_actor(r); break;
    case KLAW_CHILD_PROCESS: e = start_fiber(r, process_main, &fo); break;
    default: e = start_nested(r);
    }
    if (e) {
        klawi_run_unref(r);
        return e;
    }
    *out = r;
    return KLAW_OK;
}

/* --- stopping --- */

/* Marks it under the lock (U2); what is there to be passed on lives as long as the run. True: it had been
 * asked before. */
static bool mark(klawi_run *r, bool force, klaw_scope **scope, klaw_process **p) {
    klawi_lock_acquire(&r->sup->lock);
    bool before = asked(r);
    atomic_store_explicit(&r->asked, true, memory_order_release);
    r->forced |= force;
    *scope = r->scope;
    *p = r->process;
    klawi_lock_release(&r->sup->lock);
    return before;
}

void klawi_run_stop(klawi_run *r, bool for_good) {
    klaw_scope *scope;
    klaw_process *p;
    (void)mark(r, false, &scope, &p);
    switch (r->kid->def->kind) {
    case KLAW_CHILD_FIBER: klaw_scope_cancel(scope, "stopped by its supervisor"); break;
    case KLAW_CHILD_ACTOR:
        if (for_good)
            klaw_actor_stop(r->kid->actor);
        else
            klawi_actor_halt(r->kid->actor);
        break;
    case KLAW_CHILD_PROCESS:
        if (p)
            process_signal(p, SIGTERM);
        break;
    default: klawi_supervisor_want(r->nested, false);
    }
}

int64_t klawi_run_kill(klawi_run *r) {
    klaw_scope *scope;
    klaw_process *p;
    bool before = mark(r, true, &scope, &p);
    switch (r->kid->def->kind) {
    case KLAW_CHILD_FIBER:
        if (before)
            return 0; /* there is nothing stronger */
        klaw_scope_cancel(scope, "killed by its supervisor");
        break;
    case KLAW_CHILD_ACTOR: klawi_actor_cut(r->kid->actor); break;
    case KLAW_CHILD_PROCESS:
        if (p)
            process_signal(p, SIGKILL);
        break;
    default: klawi_supervisor_want(r->nested, true);
    }
    return KLAWI_KILL_GRACE * (1 + (int64_t)r->kid->def->depth);
}

bool klawi_run_abandon(klawi_run *r) {
    klawi_kid *k = r->kid;
    klaw_supervisor *s = r->sup;
    bool actor = k->def->kind == KLAW_CHILD_ACTOR;
    klawi_lock_acquire(&s->lock);
    bool ended = (r->told & KLAWI_RUN_ENDED) != 0 || (actor && !k->actor_run);
    ended = ended && !KLAWI_MUTANT(U1_ABANDON_ENDED);
    if (!ended) {
        r->abandoned = true; /* U3 */
        if (r->inbox.next)
            klawi_link_remove(&r->inbox);
        k->abandoned++;
        s->abandoned++;
        if (actor) {
            r->next_given_up = k->given_up;
            k->given_up = r;
            k->actor_run = NULL;
        }
    }
    klawi_lock_release(&s->lock);
    if (ended || !actor)
        return !ended;
    /* False: it is ending just now, and its end will be told as that of one given up. */
    (void)klawi_actor_abandon(k->actor, KLAW_STOPPED);
    klaw_actor_stats st;
    if (klaw_actor_stats_get(k->actor, &st) == KLAW_OK) {
        klawi_lock_acquire(&s->lock);
        k->dead = st.incarnation;
        klawi_lock_release(&s->lock);
    }
    return true;
}
