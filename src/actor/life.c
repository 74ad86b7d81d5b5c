/* SPDX-License-Identifier: Apache-2.0 */
/* life.c - incarnations: a fiber that builds the state, serves the mailbox, ends, and (without a
 * supervisor) decides by the supervision machine whether there is another one.
 *
 * A klaw_self is one fiber's memory: state, message in hand, reply. Without a supervisor one fiber
 * lives all incarnations of its actor, one after the other; with one each has a fiber of its own, since
 * the supervisor may have to cancel or to give up the last one.
 *
 *   A11 what belongs to an incarnation ends with it, before the next one begins or the identity ends:
 *       ticks, bonds, promises, the trap. So a list of the identity holds things of a->self alone.
 *   A12 an abandoned incarnation changes nothing of its actor but `handled`: every function that would
 *       looks whether a->self is still the caller, under the lock.
 *
 * Failure: the asker in hand gets the error at once; then stop(), then A11, then hooks and backoff.
 * Messages stay in the ring meanwhile; the failing one is gone. */
#include "actor/actor.h"
#include "base/alloc.h"
#include "klaw/log.h"
#include "sched/trace.h"

#define ALIGN16(n) (((n) + 15) / 16 * 16)

/* --- memory --- */

static klaw_self *self_new(klaw_actor *a) {
    const klaw_behavior *b = a->behavior;
    size_t head = ALIGN16(sizeof(klaw_self)), state = ALIGN16(b->state_size),
           message = ALIGN16((size_t)a->size);
    klaw_self *s = klawi_alloc(head + state + message + ALIGN16((size_t)a->reply_size) + 16);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    atomic_init(&s->refs, 1);
    s->state = (char *)s + head;
    s->message = (char *)s->state + state;
    s->reply = (char *)s->message + message;
    klawi_link_init(&s->ticks);
    klawi_link_init(&s->bonds);
    s->actor = klaw_actor_ref(a);
    return s;
}

void klawi_self_unref(klaw_self *s) {
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_detach(s->fiber);
    klaw_supervision_free(s->machine);
    klaw_actor_unref(s->actor);
    klawi_free(s);
}

static klaw_err machine_new(klaw_self *s) {
    const klaw_actor_opts *o = &s->actor->opts;
    klaw_supervision_opts so = {.max_restarts = o->max_restarts,
                                .restart_window = o->restart_window,
                                .backoff = o->backoff,
                                .no_backoff = o->no_backoff};
    klaw_supervision_child c = {.restart = o->restart, .shutdown = KLAW_SHUTDOWN_FOREVER};
    klaw_err e = klaw_supervision_new(&so, &s->machine);
    if (!e)
        e = klaw_supervision_add(s->machine, &c, &s->child);
    return e;
}

static klaw_err self_main(void *arg);

klaw_err klawi_actor_start(klaw_actor *a, struct klaw_scope *scope) {
    klaw_fiber_opts fo = {.name = a->name, .stack_size = a->opts.stack_size};
    klaw_fiber *handle; /* the fiber keeps it itself */
    klaw_self *s = self_new(a);
    if (!s)
        return KLAW_NOMEM;
    klaw_err e = !a->control && a->opts.restart != KLAW_RESTART_NEVER ? machine_new(s) : KLAW_OK;
    klawi_lock_acquire(&a->lock);
    if (!e && (a->self || a->ended))
        e = a->ended ? KLAW_STOPPED : KLAW_EXISTS;
    if (!e) {
        a->self = s;
        a->phase = KLAW_ACTOR_STARTING;
        a->halt = false;
        if (a->control)
            a->closed = a->stopped = false;
    }
    klawi_lock_release(&a->lock);
    if (!e) {
        e = klaw_spawn(scope, self_main, s, &fo, &handle);
        if (!e)
            return KLAW_OK;
        klawi_lock_acquire(&a->lock);
        a->self = NULL;
        klawi_lock_release(&a->lock);
    }
    klawi_self_unref(s);
    return e;
}

/* --- one message --- */

static KLAWI_NOINLINE void context_enter(klaw_self *s, klawi_span *span) {
    if (klaw_context_enter(s->env.context, &s->context) != KLAW_OK)
        s->context.armed_ = false;
    klawi_span_begin(span);
}
static KLAWI_NOINLINE void context_leave(klaw_self *s, klawi_span *span, klaw_err e) {
    klawi_span_end(span, KLAW_SPAN_HANDLE, klaw_actor_name(s->actor), e);
    klaw_context_leave(&s->context);
    klawi_context_unref(s->env.context);
}

/* Killed, or its scope was cancelled. A kill is marked before the fiber is cancelled. */
static bool cut_off(klaw_self *s) {
    klawi_lock_acquire(&s->actor->lock);
    bool cut = s->cut;
    klawi_lock_release(&s->actor->lock);
    return cut || klawi_host_cancelled(s->host);
}

/* What an asker is told of a failure: CANCELLED would mean that it was cancelled itself. */
static klaw_err told(klaw_self *s, klaw_err why) {
    return why == KLAW_OK || (why == KLAW_CANCELLED && klawi_host_cancelled(s->host)) ? KLAW_STOPPED
                                                                                      : why;
}

static klaw_err dispatch(klaw_self *s, klaw_actor *a) {
    const klaw_behavior *b = a->behavior;
    bool ask = s->env.asker != NULL;
    void *context = s->env.context;
    klawi_span span;
    if (KLAWI_UNLIKELY(context != NULL))
        context_enter(s, &span);
    s->has_message = s->in_handle = true;
    s->open = ask;
    if (ask) {
        if (KLAWI_LIKELY(a->reply_size == 8))
            memset(s->reply, 0, 8);
        else
            memset(s->reply, 0, a->reply_size);
    }
    klaw_err e = b->handle(s, s->state, s->message, ask ? s->reply : NULL);
    s->in_handle = false;
    if (KLAWI_LIKELY(s->open)) {
        s->open = false;
        if (KLAWI_UNLIKELY(e))
            (void)klawi_asker_answer(s->env.asker, s->env.epoch, told(s, e), NULL, 0);
        else if (!klawi_asker_answer(s->env.asker, s->env.epoch, KLAW_OK, s->reply,
                                     a->reply_size) &&
                 b->reply->drop)
            b->reply->drop(s->reply);
    }
    if (s->has_message && b->message->drop)
        b->message->drop(s->message);
    if (KLAWI_UNLIKELY(context != NULL))
        context_leave(s, &span, e);
    if (KLAWI_LIKELY(!e))
        atomic_store_explicit(&a->handled,
                              atomic_load_explicit(&a->handled, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    return e;
}

static klaw_err system_message(klaw_self *s, klaw_actor *a, klawi_sys *sys) {
    const klaw_behavior *b = a->behavior;
    klaw_err e = KLAW_OK;
    if (sys->kind == KLAWI_SYS_TIMER) {
        uint64_t id;
        bool internal;
        if (!klawi_tick_take(s, KLAWI_CONTAINER(sys, klawi_tick, sys), &id, &internal))
            return KLAW_OK; /* given up meanwhile: it is gone */
        if (internal)
            (void)klawi_checkpoint_save(s); /* reported there; it goes on */
        else
            e = b->timer(s, s->state, id);
        return e;
    }
    klawi_bond *bond = KLAWI_CONTAINER(sys, klawi_bond, sys);
    if (!klawi_bond_take(s, bond))
        return KLAW_OK;
    klaw_down d = {.id = bond->id,
                   .actor = bond->target,
                   .reason = bond->reason,
                   .kind = bond->is_link ? KLAW_DOWN_LINK : KLAW_DOWN_MONITOR};
    memcpy(d.name, bond->target->name, sizeof d.name);
    if (bond->is_link && !s->trap)
        e = d.reason;
    else if (b->down)
        e = b->down(s, s->state, &d);
    klawi_bond_free(bond);
    return e;
}

/* --- one incarnation --- */

static klaw_err serve(klaw_self *s, klaw_actor *a) {
    klawi_sys *sys = NULL;
    klaw_err e;
    for (;;) {
        switch (klawi_mailbox_next(s, true, KLAW_FOREVER, &sys)) {
        case KLAWI_NEXT_MESSAGE: e = dispatch(s, a); break;
        case KLAWI_NEXT_SYS: e = system_message(s, a, sys); break;
        case KLAWI_NEXT_END: return KLAW_OK;
        default: s->quiet = true; return KLAW_CANCELLED;
        }
        if (KLAWI_UNLIKELY(e))
            return e;
    }
}

/* A11. */
static void clear(klaw_self *s, klaw_actor *a, klaw_err why, klaw_err asker_why, bool last) {
    klawi_ticks_end(s);
    klawi_bonds_end(s, a, why, last);
    klawi_promises_break(a, asker_why);
}

/* False: this one was given up. */
static bool phase_set(klaw_self *s, klaw_actor *a, klaw_actor_state phase) {
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s;
    if (mine)
        a->phase = (uint8_t)phase;
    klawi_lock_release(&a->lock);
    return mine;
}

static void began(klaw_self *s, klaw_actor *a);

/* From start() to stop(); *started says whether start() was OK. */
static klaw_err live(klaw_self *s, klaw_actor *a, bool *started) {
    const klaw_behavior *b = a->behavior;
    klawi_lock_acquire(&a->lock);
    if (a->self == s) {
        s->incarnation = ++a->incarnation;
        a->phase = KLAW_ACTOR_STARTING;
        if (!a->stopped)
            a->closed = s->cut && !a->control;
    }
    klawi_lock_release(&a->lock);
    memset(s->state, 0, b->state_size);
    s->quiet = s->trap = false;
    klaw_err e = b->start ? b->start(s, s->state, a->arg) : KLAW_OK;
    *started = !e;
    if (!e) {
        if (a->opts.checkpointer && (e = klawi_checkpoint_begin(s)) != KLAW_OK)
            *started = false;
        if (!e && phase_set(s, a, KLAW_ACTOR_RUNNING)) {
            began(s, a);
            e = serve(s, a);
            klawi_lock_acquire(&a->lock);
            bool cut = s->cut;
            klawi_lock_release(&a->lock);
            if (a->opts.checkpointer && (!e || (s->quiet && !cut)))
                (void)klawi_checkpoint_save(s);
        }
        if (b->stop)
            b->stop(s, s->state, e);
    }
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s;
    if (mine) {
        a->phase = KLAW_ACTOR_BACKOFF;
        a->failed += e && !s->cut && !klawi_host_cancelled(s->host);
    }
    klawi_lock_release(&a->lock);
    if (mine)
        clear(s, a, e, told(s, e), a->control != NULL);
    return e;
}

/* --- without a supervisor: again? --- */

static void hook(klaw_actor *a, klaw_actor_hook fn, klaw_err e, uint32_t attempt) {
    if (fn)
        fn(a->opts.hook_user, a, e, attempt);
}

static void log_failure(klaw_actor *a, klaw_err e, uint32_t attempt) {
    KLAW_LOG_WARN("actor failed", klaw_log_str("actor", a->name), klaw_log_u64("actor_id", a->id),
                  klaw_log_err("error", e), klaw_log_u64("attempt", attempt));
}

static uint64_t random_bits(void) {
    klawi_ctx *c = klawi_ctx_get();
    uint64_t high = klawi_ctx_rand(c);
    return high << 32 | klawi_ctx_rand(c);
}

/* Carries out what the machine says. True: start the next incarnation, or (running) go on. */
static bool machine_step(klaw_self *s, klaw_actor *a, klaw_err why) {
    klawi_sys *none;
    for (;;) {
        klaw_supervision_action act = klaw_supervision_next(s->machine, klaw_now());
        switch (act.verb) {
        case KLAW_SUP_START: return true;
        case KLAW_SUP_FAILED:
            if (act.error) {
                log_failure(a, act.error, act.attempt);
                hook(a, a->opts.on_failure, act.error, act.attempt);
            }
            break;
        case KLAW_SUP_RESTARTED:
            KLAW_LOG_INFO("actor restarted", klaw_log_str("actor", a->name),
                          klaw_log_u64("actor_id", a->id), klaw_log_u64("attempt", act.attempt));
            hook(a, a->opts.on_restart, s->last_error, act.attempt);
            break;
        case KLAW_SUP_GAVE_UP:
            KLAW_LOG_ERROR("actor given up", klaw_log_str("actor", a->name),
                           klaw_log_u64("actor_id", a->id), klaw_log_err("error", why));
            hook(a, a->opts.on_max_restarts, why, act.attempt);
            break;
        case KLAW_SUP_DONE: return false;
        case KLAW_SUP_NOTHING:
            switch (klaw_supervision_state(s->machine, s->child)) {
            case KLAW_CHILD_RUNNING: return true;
            case KLAW_CHILD_BACKOFF:
                if (klawi_mailbox_next(s, false, klaw_supervision_due(s->machine), &none) !=
                    KLAWI_NEXT_TIMEOUT)
                    return false;
                break;
            default: return false;
            }
            break;
        default: break;
        }
    }
}

/* The incarnation runs: tells the supervisor, or the machine and the hooks. */
static void began(klaw_self *s, klaw_actor *a) {
    if (a->control) {
        a->control->event(a->control->user, a, s->incarnation, KLAWI_ACTOR_STARTED, KLAW_OK);
        return;
    }
    if (s->incarnation > 1) {
        klawi_lock_acquire(&a->lock);
        a->restarts++;
        klawi_lock_release(&a->lock);
    }
    if (s->machine && klaw_supervision_started(s->machine, s->child, klaw_now()) == KLAW_OK)
        (void)machine_step(s, a, KLAW_OK);
}

static bool again(klaw_self *s, klaw_actor *a, klaw_err why, bool started) {
    klawi_lock_acquire(&a->lock);
    bool over = a->stopped || a->halt;
    klawi_lock_release(&a->lock);
    bool cut = cut_off(s);
    if (over || cut || !s->machine) {
        if (why && !cut) {
            log_failure(a, why, 1);
            hook(a, a->opts.on_failure, why, 1);
        }
        return false;
    }
    s->last_error = why;
    klaw_err e =
        started
            ? klaw_supervision_exited(s->machine, s->child, why, klaw_now(), random_bits())
            : klaw_supervision_start_failed(s->machine, s->child, why, klaw_now(), random_bits());
    return !e && machine_step(s, a, why);
}

/* --- the fiber --- */

static klaw_err self_main(void *arg) {
    klaw_self *s = arg;
    klaw_actor *a = s->actor;
    klaw_err why;
    bool started = false;
    klawi_lock_acquire(&a->lock);
    s->host = klawi_cur(klawi_ctx_get());
    s->fiber = klawi_fiber_of(s->host);
    bool cut = s->cut;
    klawi_lock_release(&a->lock);
    if (cut)
        klaw_fiber_cancel(s->fiber);
    if (s->machine && klaw_supervision_begin(s->machine, klaw_now()) == KLAW_OK)
        (void)machine_step(s, a, KLAW_OK);
    do
        why = live(s, a, &started);
    while (!a->control && again(s, a, why, started));
    if (!a->control && !KLAWI_MUTANT(A11_LATE_LINK))
        klawi_bonds_end(s, a, why, true);
    klawi_lock_acquire(&a->lock);
    bool mine = a->self == s;
    if (mine) {
        a->self = a->idle = NULL;
        a->accepts = false;
    }
    klawi_lock_release(&a->lock);
    if (a->control)
        a->control->event(a->control->user, a, s->incarnation,
                          !mine     ? KLAWI_ACTOR_GONE
                          : started ? KLAWI_ACTOR_EXITED
                                    : KLAWI_ACTOR_START_FAILED,
                          why);
    else if (mine)
        klawi_actor_finish(a, why);
    klawi_self_unref(s);
    return KLAW_OK;
}

/* --- given up --- */

bool klawi_actor_abandon(klaw_actor *a, klaw_err why) {
    klawi_wakes wakes;
    klawi_wakes_init(&wakes);
    klawi_lock_acquire(&a->lock);
    klaw_self *s = a->self;
    if (!s) {
        klawi_lock_release(&a->lock);
        return false;
    }
    /* From here on its own functions find that they are not a->self any more (A12). */
    klawi_envelope env = s->env;
    s->abandoned = true;
    klawi_mailbox_nudge(a, &wakes); /* at rest it ends by itself */
    a->self = a->idle = NULL;
    a->accepts = false;
    a->phase = KLAW_ACTOR_BACKOFF;
    a->failed++;
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    klawi_lock_release(&a->lock);
    klawi_wakes_run(&wakes);
    if (env.asker) /* A5; stale ones lose the claim */
        (void)klawi_asker_answer(env.asker, env.epoch, why ? why : KLAW_STOPPED, NULL, 0);
    clear(s, a, why, why ? why : KLAW_STOPPED, true);
    klawi_self_unref(s);
    return true;
}
