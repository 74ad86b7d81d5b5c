/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor_keeper.c - the keeper: the fiber that holds a supervisor's machine and carries out what it
 * decides.
 *
 * It waits for news (runs that started or ended, requests, the wish to stop) and for the machine's
 * next time, tells the machine, and does what the machine says until it says NOTHING. It never waits for
 * a child: a start, a stop and an end are all told to it. Only hooks hold it up.
 *
 * It lives in the root scope (a nested one: in its parent's), not in the scope the supervisor was opened
 * in: there a second fiber waits, so that an abandoned child holds up nobody but this one. Its own scope,
 * where all children run, is a shield: a cancellation of the run reaches the supervisor through that
 * second fiber, and the children through the machine, in order.
 *
 * Invariants:
 *   S1  the machine is touched by the keeper alone, with no lock held; so are hooks called.
 *   S2  kid->run != NULL exactly while the machine thinks of the child as started and not ended; a run that
 *       was given up is no kid's run any more, and tells nothing.
 *   S3  a request is answered once: when its child has come to where it was asked to be, or, with STOPPED,
 *       when the supervisor is done.
 *   S4  begun and finished are set once; finished after every run has ended or been given up, and after
 *       every child has been forgotten.
 *   S5  what others read (kid->state and such) is written under the lock after each event of
 *       that child; of children whose state changed without one, before the keeper waits again.
 *   S6  forced: every run has been killed; nothing takes longer than its grace from then on.
 *
 * Wake-up: news is put into a list under the lock and the keeper's wait claimed there, as everywhere
 * (P4); it looks again under the same lock before it parks.
 *
 * Rejected: a channel for the news (a send may lack memory; the end of a child must not). */
#include <stdio.h>
#include <string.h>

#include "actor/supervisor.h"
#include "base/alloc.h"
#include "klaw/log.h"

/* Machine's words between two chances for other fibers. */
#define TURN 64

struct keep {
    klaw_supervisor *s;
    uint32_t turn;
};

static uint64_t chance(void) {
    klawi_ctx *c = klawi_ctx_get();
    uint64_t high = klawi_ctx_rand(c);
    return high << 32 | klawi_ctx_rand(c);
}

static void take_turns(struct keep *k) {
    if (++k->turn % TURN == 0 && klaw_yield() != KLAW_OK)
        return; /* not in a shield */
}

/* --- requests --- */
static void answer(klaw_supervisor *s, klawi_request *q, klaw_err result, const klawi_kid *k) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    q->result = result;
    if (k && result) {
        q->sys = k->last_sys;
        memcpy(q->detail, k->last_detail, sizeof q->detail);
    }
    q->done = true;
    if (q->inbox.next && !KLAWI_MUTANT(S3_KEEP_WITHDRAWN)) /* withdrawn meanwhile: too late */
        klawi_link_remove(&q->inbox);
    klawi_supervisor_claim(&q->waiters, &wakes);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    klawi_request_unref(q);
}

/* What the answer to q is now; false: none yet. S3 */
static bool answer_now(const klawi_request *q, const klawi_kid *k, klaw_child_state state,
                       klaw_err *result) {
    bool rest = k->forgotten || state == KLAW_CHILD_STOPPED;
    if (q->kind == KLAWI_REQ_STOP) { /* BACKOFF: it has ended, and its group brings it back */
        *result = KLAW_OK;
        return rest || state == KLAW_CHILD_BACKOFF;
    }
    if (q->withdrawing) {
        *result = KLAW_CANCELLED;
        return k->forgotten;
    }
    *result = state == KLAW_CHILD_RUNNING ? KLAW_OK
              : k->start_error            ? k->start_error
                                          : KLAW_STOPPED;
    return rest || state == KLAW_CHILD_RUNNING;
}

static void answer_all(klaw_supervisor *s, klawi_kid *k, klaw_child_state state) {
    klawi_request **at = &k->pending;
    while (*at) {
        klawi_request *q = *at;
        klaw_err result;
        if (answer_now(q, k, state, &result)) {
            *at = q->next;
            answer(s, q, result, k);
        } else {
            at = &q->next;
        }
    }
}

/* After anything that concerns k. S5 */
static void settle(klaw_supervisor *s, klawi_kid *k) {
    klaw_child_state state =
        k->forgotten ? KLAW_CHILD_STOPPED : klaw_supervision_state(s->machine, k->number);
    uint64_t restarts =
        k->forgotten ? k->restarts : klaw_supervision_restarts(s->machine, k->number);
    klawi_lock_acquire(&s->lock);
    s->restarts += restarts - k->restarts;
    k->state = state;
    k->restarts = restarts;
    klawi_lock_release(&s->lock);
    if (k->withdrawn && !k->forgotten) {
        /* Its group may have brought it back. */
        if (state == KLAW_CHILD_BACKOFF || state <= KLAW_CHILD_RUNNING)
            (void)!klaw_supervision_stop_child(s->machine, k->number, klawi_clock());
        if (klaw_supervision_state(s->machine, k->number) == KLAW_CHILD_STOPPED)
            k->withdrawn = klaw_supervision_remove(s->machine, k->number) != KLAW_OK;
        return; /* REMOVED answers; in the end DONE does */
    }
    if (k->pending)
        answer_all(s, k, state);
}

static void pend(klawi_kid *k, klawi_request *q) {
    q->next = k->pending;
    k->pending = q;
}

static klaw_err begin_start(klaw_supervisor *s, klawi_request *q) {
    klawi_kid *k = q->kid;
    while (q->make_name) {
        s->last_name++;
        snprintf(k->name, sizeof k->name, "%.40s-%llu", k->def->name,
                 (unsigned long long)s->last_name);
        q->make_name = klawi_kid_find(s, k->name) != NULL;
    }
    if (s->stopping)
        return KLAW_STOPPED;
    klaw_err e = klawi_kid_enter(s, k);
    if (e)
        return e;
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed); /* the tables' */
    q->entered = true;
    pend(k, q);
    return KLAW_OK;
}

static void begin_other(klaw_supervisor *s, klawi_request *q, int64_t now) {
    klawi_kid *k = klawi_kid_find(s, q->name);
    klaw_err e = s->stopping ? KLAW_STOPPED : KLAW_NOT_FOUND;
    if (k && !s->stopping && q->kind == KLAWI_REQ_DELETE)
        e = klaw_supervision_remove(s->machine, k->number);
    else if (k && !s->stopping && q->kind == KLAWI_REQ_STOP)
        e = klaw_supervision_stop_child(s->machine, k->number, now);
    else if (k && !s->stopping)
        e = klaw_supervision_restart_child(s->machine, k->number, now);
    if (e || q->kind == KLAWI_REQ_DELETE) {
        answer(s, q, e, NULL);
        return;
    }
    pend(k, q);
    if (q->kind == KLAWI_REQ_RESTART) {
        k->start_error = KLAW_OK;
        return; /* STOPPED until its turn comes */
    }
    settle(s, k);
}

/* The asker has left: what it wanted is undone. */
static void withdraw(klaw_supervisor *s, klawi_request *q, int64_t now) {
    q->withdrawing = q->kid->withdrawn = true;
    if (s->stopping) /* DONE answers */
        return;
    if (klaw_supervision_stop_child(s->machine, q->kid->number, now) == KLAW_OK)
        settle(s, q->kid);
}

static void on_request(klaw_supervisor *s, klawi_request *q) {
    int64_t now = klawi_clock();
    klawi_lock_acquire(&s->lock);
    bool withdrawn = q->withdrawn;
    klawi_lock_release(&s->lock);
    if (withdrawn && !q->entered) { /* between our taking it and our looking at it */
        answer(s, q, KLAW_CANCELLED, NULL);
    } else if (withdrawn) {
        withdraw(s, q, now);
    } else if (q->kind == KLAWI_REQ_START) {
        klaw_err e = begin_start(s, q);
        if (e)
            answer(s, q, e, NULL);
    } else {
        begin_other(s, q, now);
    }
}

/* --- hooks and the log --- */
static void note_failure(klaw_supervisor *s, klawi_kid *k, klaw_err e, int sys, const char *text) {
    klawi_lock_acquire(&s->lock);
    k->last_error = e;
    k->last_sys = sys;
    snprintf(k->last_detail, sizeof k->last_detail, "%s", text);
    klawi_lock_release(&s->lock);
}

static void hook(klaw_supervisor *s, klawi_kid *k, const klaw_supervision_action *a,
                 klaw_child_hook fn) {
    klaw_error_info info = {.sys = k->last_sys};
    if (!fn)
        return;
    snprintf(info.message, sizeof info.message, "%s",
             k->last_detail[0] ? k->last_detail : klaw_err_text(k->last_error));
    if (k->def->kind == KLAW_CHILD_ACTOR)
        snprintf(info.actor_name, sizeof info.actor_name, "%s", k->name);
    klaw_child_event ev = {.supervisor = s,
                           .supervisor_name = s->name,
                           .child = k->name,
                           .kind = k->def->kind,
                           .error = a->verb == KLAW_SUP_RESTARTED ? k->last_error : a->error,
                           .attempt = a->attempt,
                           .info = &info};
    KLAWI_ASSERT_UNLOCKED(); /* S1 */
    fn(&ev, s->opts.user);
}

static void say(klaw_log_level level, const char *message, const klaw_supervisor *s,
                const klawi_kid *k, uint32_t attempt) {
    KLAW_LOG(level, message, klaw_log_str("supervisor", s->name), klaw_log_str("child", k->name),
             klaw_log_err("error", k->last_error),
             klaw_log_str("detail", k->last_detail[0] ? k->last_detail : NULL),
             klaw_log_u64("attempt", attempt));
}

static void report(klaw_supervisor *s, klawi_kid *k, const klaw_supervision_action *a) {
    if (a->verb == KLAW_SUP_FAILED) {
        say(KLAW_LEVEL_WARN, "child failed", s, k, a->attempt);
        hook(s, k, a, s->opts.on_failure);
    } else if (a->verb == KLAW_SUP_RESTARTED) {
        say(KLAW_LEVEL_INFO, "child restarted", s, k, a->attempt);
        hook(s, k, a, s->opts.on_restart);
    } else {
        say(KLAW_LEVEL_ERROR, "too many restarts", s, k, a->attempt);
        s->refresh = true;
        hook(s, k, a, s->opts.on_max_restarts);
    }
}

/* --- runs --- */

/* The kid's run is over, or is not the kid's any more. */
static void run_leave(klaw_supervisor *s, klawi_run *r) {
    klawi_lock_acquire(&s->lock);
    if (r->kid->run == r)
        r->kid->run = NULL;
    klawi_lock_release(&s->lock);
    if (r->dying.next)
        klawi_link_remove(&r->dying);
    klawi_run_unref(r);
}

static void start_failed(klaw_supervisor *s, klawi_kid *k, klaw_err e, int sys, const char *text) {
    note_failure(s, k, e, sys, text);
    k->start_error = e;
    if (!s->begun && !s->fail_child[0]) {
        memcpy(s->fail_child, k->name, sizeof s->fail_child);
        snprintf(s->fail_detail, sizeof s->fail_detail, "%s", text);
        s->fail_sys = sys;
    }
    if (klaw_supervision_start_failed(s->machine, k->number, e, klawi_clock(), chance()) != KLAW_OK)
        KLAWI_ASSERT(false);
    s->refresh = true;
}

static void on_started(klaw_supervisor *s, klawi_kid *k) {
    k->start_error = KLAW_OK;
    if (klaw_supervision_started(s->machine, k->number, klawi_clock()) != KLAW_OK)
        KLAWI_ASSERT(false);
}

static void start(klaw_supervisor *s, klawi_kid *k) {
    klawi_run *r;
    KLAWI_ASSERT(!k->run); /* S2 */
    klaw_err e = klawi_run_start(s, k, &r);
    if (e) {
        start_failed(s, k, e, 0, "");
    } else {
        klawi_lock_acquire(&s->lock);
        k->run = r;
        klawi_lock_release(&s->lock);
        if (k->def->kind == KLAW_CHILD_FIBER && !k->def->init) {
            r->started = true;
            on_started(s, k);
        }
    }
    settle(s, k);
}

static void on_ended(klaw_supervisor *s, klawi_run *r) {
    klawi_kid *k = r->kid;
    bool was_asked = atomic_load_explicit(&r->asked, memory_order_relaxed);
    /* CANCELLED is what a fiber that was asked to stop returns. */
    klaw_err e = was_asked && r->error == KLAW_CANCELLED ? KLAW_OK : r->error;
    k->exit_error = e;
    if (!r->started) {
        start_failed(s, k, e ? e : KLAW_CANCELLED, r->sys, r->detail);
    } else {
        if (e && !was_asked)
            note_failure(s, k, e, r->sys, r->detail);
        if (klaw_supervision_exited(s->machine, k->number, e, klawi_clock(), chance()) != KLAW_OK)
            KLAWI_ASSERT(false);
        s->refresh |= e != KLAW_OK;
    }
    run_leave(s, r);
}

static void on_run(klaw_supervisor *s, klawi_run *r, uint8_t told) {
    klawi_kid *k = r->kid;
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed); /* past the run's end */
    if (told & KLAWI_RUN_STARTED) {
        r->started = true;
        on_started(s, k);
    } else {
        on_ended(s, r);
    }
    settle(s, k);
    klawi_kid_unref(k);
}

/* It did not end when it was forced. */
static void abandon(klaw_supervisor *s, klawi_run *r) {
    klawi_kid *k = r->kid;
    if (!klawi_run_abandon(r)) { /* just in time: its news wait */
        if (r->dying.next)
            klawi_link_remove(&r->dying);
        return;
    }
    KLAW_LOG_ERROR("child abandoned: it did not stop", klaw_log_str("supervisor", s->name),
                   klaw_log_str("child", k->name),
                   klaw_log_str("kind", klaw_child_kind_name(k->def->kind)));
    int64_t now = klawi_clock();
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    /* Forced by its parent the machine does not know of the kill yet (S6). */
    if (klaw_supervision_abandoned(s->machine, k->number, now) != KLAW_OK &&
        klaw_supervision_exited(s->machine, k->number, KLAW_OK, now, chance()) != KLAW_OK &&
        klaw_supervision_start_failed(s->machine, k->number, KLAW_CANCELLED, now, chance()) !=
            KLAW_OK)
        KLAWI_ASSERT(false);
    run_leave(s, r);
    settle(s, k);
    klawi_kid_unref(k);
}

static void kill_run(klaw_supervisor *s, klawi_run *r) {
    int64_t grace = klawi_run_kill(r);
    if (r->dying.next)
        return;
    r->give_up = klawi_clock() + grace;
    klawi_link *at = &s->dying; /* sorted; mostly at the end */
    while (at->prev != &s->dying &&
           KLAWI_CONTAINER(at->prev, klawi_run, dying)->give_up > r->give_up)
        at = at->prev;
    klawi_link_push(at, &r->dying); /* before `at` */
}

/* --- the machine's words --- */
static void forget(klaw_supervisor *s, klawi_kid *k) {
    k->forgotten = true;
    klawi_kid_leave(s, k);
    if (k->actor)
        klawi_actor_finish(k->actor, k->exit_error);
    settle(s, k);
    klawi_kid_unref(k);
}

static void begun(klaw_supervisor *s) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&s->lock);
    s->begun = s->settled = true; /* S4 */
    klawi_supervisor_claim(&s->begun_waiters, &wakes);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    if (s->parent)
        klawi_run_tell(s->parent, KLAWI_RUN_STARTED, KLAW_OK, 0, NULL);
}

/* Whether a child that is stopped now will not come back: the machine is closing, or forgets it. */
static bool for_good(klaw_supervisor *s, const klawi_kid *k) {
    return s->template_ || k->def->policy.restart == KLAW_RESTART_NEVER ||
           klaw_supervision_stop_child(s->machine, UINT32_MAX, 0) == KLAW_STOPPED;
}

static void perform(klaw_supervisor *s, const klaw_supervision_action *a) {
    klawi_kid *k =
        a->verb == KLAW_SUP_DONE || a->verb == KLAW_SUP_BEGUN ? NULL : s->by_number[a->child];
    switch (a->verb) {
    case KLAW_SUP_START: start(s, k); break;
    case KLAW_SUP_STOP:
        if (k->run && s->forced)
            kill_run(s, k->run);
        else if (k->run)
            klawi_run_stop(k->run, for_good(s, k));
        settle(s, k);
        break;
    case KLAW_SUP_KILL:
        if (k->run)
            kill_run(s, k->run);
        settle(s, k);
        break;
    case KLAW_SUP_REMOVED: forget(s, k); break;
    case KLAW_SUP_BEGUN: begun(s); break;
    case KLAW_SUP_DONE:
        s->done = true;
        s->outcome = a->error;
        break;
    default: report(s, k, a);
    }
}

static void drain(struct keep *k) {
    for (;;) {
        klaw_supervision_action a = klaw_supervision_next(k->s->machine, klawi_clock());
        if (a.verb == KLAW_SUP_NOTHING)
            return;
        perform(k->s, &a);
        take_turns(k);
    }
}

/* Gives up whose time has come; when the next one's comes. */
static int64_t give_up(struct keep *k) {
    klaw_supervisor *s = k->s;
    while (!klawi_link_empty(&s->dying)) {
        klawi_run *r = KLAWI_CONTAINER(s->dying.next, klawi_run, dying);
        if (r->give_up > klawi_clock())
            return r->give_up;
        abandon(s, r);
        drain(k);
    }
    return KLAW_FOREVER;
}

/* --- news --- */
struct news {
    klawi_run *run;
    uint8_t told;
    klawi_request *request;
    bool stop, force;
};

/* Under the lock. False: there is none. */
static bool take(klaw_supervisor *s, struct news *n) {
    *n = (struct news){0};
    n->stop = s->want_stop && !s->stopping;
    n->force = s->want_force && !s->forced;
    if (n->stop || n->force)
        return true;
    if (!klawi_link_empty(&s->runs)) {
        klawi_run *r = n->run = KLAWI_CONTAINER(s->runs.next, klawi_run, inbox);
        /* One thing at a time: the machine is listened to after each. */
        n->told = r->told & KLAWI_RUN_STARTED ? KLAWI_RUN_STARTED : r->told;
        r->told &= (uint8_t)~n->told;
        if (!r->told)
            klawi_link_remove(&r->inbox);
        return true;
    }
    if (!klawi_link_empty(&s->requests)) {
        n->request = KLAWI_CONTAINER(s->requests.next, klawi_request, inbox);
        klawi_link_remove(&n->request->inbox);
        return true;
    }
    return false;
}

static void force_all(klaw_supervisor *s) {
    s->forced = true; /* S6 */
    for (klawi_link *l = s->kids.next; l != &s->kids; l = l->next) {
        klawi_kid *k = KLAWI_CONTAINER(l, klawi_kid, order);
        if (k->run)
            kill_run(s, k->run);
    }
}

static void handle(klaw_supervisor *s, const struct news *n) {
    if (n->stop) {
        s->stopping = true;
        s->refresh = true;
        klaw_supervision_shutdown(s->machine, klawi_clock());
    }
    if (n->force)
        force_all(s);
    if (n->run)
        on_run(s, n->run, n->told);
    if (n->request)
        on_request(s, n->request);
}

static void refresh(klaw_supervisor *s) {
    s->refresh = false;
    for (klawi_link *l = s->kids.next, *next; l != &s->kids; l = next) {
        next = l->next;
        klawi_kid *k = KLAWI_CONTAINER(l, klawi_kid, order);
        klawi_lock_acquire(&s->lock);
        k->state = klaw_supervision_state(s->machine, k->number);
        klawi_lock_release(&s->lock);
    }
}

/* Waits until there is news or `due`. */
static void idle(klaw_supervisor *s, int64_t due) {
    klaw_err e;
    klawi_ctx *c = klawi_ctx_need(&e);
    klawi_host *h = klawi_cur(c);
    if (due <= klawi_clock())
        return;
    klawi_host_waits(h, KLAWI_WAIT_RECV, 0);
    klawi_waiter_fill(&h->waiter, h, &s->lock, KLAWI_OP_NOTIFY, NULL, NULL);
    klawi_lock_acquire(&s->lock);
    bool quiet = (klawi_link_empty(&s->runs) && klawi_link_empty(&s->requests) &&
                  !(s->want_stop && !s->stopping) && !(s->want_force && !s->forced)) ||
                 KLAWI_MUTANT(S_NO_RECHECK);
    if (!quiet) {
        klawi_lock_release(&s->lock);
        return;
    }
    klawi_waitq_push(&s->keeper, &h->waiter);
    e = klawi_park(h, &h->waiter, &s->lock, due);
    KLAWI_ASSERT(e != KLAW_CANCELLED); /* a shield */
}

static void loop(klaw_supervisor *s) {
    struct keep k = {s, 0};
    struct news n;
    drain(&k);
    while (!s->done) {
        klawi_lock_acquire(&s->lock);
        bool some = take(s, &n);
        klawi_lock_release(&s->lock);
        if (some)
            handle(s, &n);
        drain(&k);
        int64_t due = give_up(&k), machine_due;
        if (some || s->done) {
            take_turns(&k);
            continue;
        }
        if (s->refresh)
            refresh(s);
        machine_due = klaw_supervision_due(s->machine);
        idle(s, due < machine_due ? due : machine_due);
    }
}

/* --- the end --- */

/* Everybody is forgotten; who still waits for something gets STOPPED. */
static void forget_all(klaw_supervisor *s) {
    while (!klawi_link_empty(&s->kids)) {
        klawi_kid *k = KLAWI_CONTAINER(s->kids.next, klawi_kid, order);
        KLAWI_ASSERT(!k->run); /* S2 */
        klawi_kid_leave(s, k);
        if (k->actor)
            klawi_actor_finish(k->actor, k->exit_error);
        for (klawi_request *q; (q = k->pending) != NULL;) {
            k->pending = q->next;
            answer(s, q, q->withdrawing ? KLAW_CANCELLED : KLAW_STOPPED, NULL);
        }
        klawi_kid_unref(k);
    }
}

static void finish(klaw_supervisor *s) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    forget_all(s);
    klawi_lock_acquire(&s->lock);
    s->finished = s->settled = true; /* S4: no request comes after it */
    s->why = s->outcome;
    klawi_supervisor_claim(&s->begun_waiters, &wakes);
    klawi_supervisor_claim(&s->finished_waiters, &wakes);
    klawi_lock_release(&s->lock);
    klawi_wakes_run(&wakes);
    for (;;) {
        klawi_lock_acquire(&s->lock);
        klawi_request *q = klawi_link_empty(&s->requests)
                               ? NULL
                               : KLAWI_CONTAINER(s->requests.next, klawi_request, inbox);
        if (q)
            klawi_link_remove(&q->inbox);
        bool answered = q && q->done;
        klawi_lock_release(&s->lock);
        if (!q)
            break;
        if (!answered)
            answer(s, q, KLAW_STOPPED, NULL);
    }
    if (s->parent) {
        char detail[64];
        snprintf(detail, sizeof detail, "%s%.55s", s->fail_child[0] && !s->begun ? "child " : "",
                 s->fail_child[0] && !s->begun ? s->fail_child : "");
        klawi_run *parent = s->parent;
        s->parent = NULL; /* who still has a handle must not keep it */
        klawi_run_tell(parent, KLAWI_RUN_ENDED, s->why, s->fail_sys, detail);
    }
}

klaw_err klawi_supervisor_keep(void *arg) {
    klaw_supervisor *s = arg;
    klaw_scope *shield = NULL;
    klaw_scope_opts so = {
        .name = "children", .deadline = KLAW_FOREVER, .shield = !KLAWI_MUTANT(S_NO_SHIELD)};
    klawi_lock_acquire(&s->lock);
    s->keeper_id = klaw_self_id();
    klawi_lock_release(&s->lock);
    klaw_err e = klaw_scope_open(&so, &shield);
    if (!e)
        e = klaw_supervision_begin(s->machine, klawi_clock());
    if (e)
        s->outcome = e;
    else
        loop(s);
    finish(s);
    if (shield && klaw_scope_close(shield) != KLAW_OK) { /* waits for the abandoned ones */
    }
    klaw_supervisor_unref(s);
    return KLAW_OK;
}
