/* SPDX-License-Identifier: Apache-2.0 */
/* supervision.c - the rules of supervision as a machine without thread, clock and I/O.
 *
 * Events change the state of single children at once. What follows an order is a *round*: it stops
 * a part of the children right to left, waits for a backoff, and starts them left to right. The
 * beginning is a round that only starts, shutting down one that only stops. A round goes one step
 * whenever everything else has been told (klaw_supervision_next), so it never has more than one
 * child on its way, and what was decided for single children comes first.
 *
 *     none -> start             begin
 *     none, start -> stop       a child of a group failed (start: the round begins again)
 *     stop -> wait -> start     nobody of the group is left; the delay is over
 *     stop, wait -> stop        one to the left of the group failed: the group grows
 *     start -> none             everybody has had his turn
 *     any -> stop               shutdown, giving up, auto-shutdown: closing; its end is DONE
 *
 * Invariants, outside of the functions:
 *   V1  stop: children of the group right of the cursor are at rest (STOPPED or BACKOFF).
 *       wait: all of the group are, and the cursor is the first child left of it.
 *       start: children with `turn` are at the cursor or right of it.
 *   V2  `turn` at rest is BACKOFF; only children of the round's group have it.
 *   V3  a child has a timer if it is STOPPING with an end of its shutdown time, or in a BACKOFF of
 *       its own (ONE_FOR_ONE, DYNAMIC).
 *   V4  a NEVER child is STOPPED only until the machine begins; a DYNAMIC one too.
 *   V5  closing: nobody has `turn`, nobody is in BACKOFF, nothing starts any more.
 *   V6  alive counts the children that are STARTING, RUNNING, STOPPING or KILLING, significant
 *       those marked so that are not STOPPED.
 *
 * Restarts within the window: only the time of the max_restarts-th last one is of interest, so the
 * times are a ring of that many.
 *
 * Rejected: doing things in the order in which the host reports them (a mailbox, as OTP). There a
 * start that takes long holds up everything else, a shutdown too, because a supervisor of OTP can't
 * listen while it waits. Rejected too: a queue of actions. Children get one entry each, with bits:
 * no event can fail for lack of memory, and a START that has become wrong is taken back. */
#include "klaw/policy.h"

#include "base/alloc.h"
#include "plat/plat.h"
#include "policy/children.h"
#include "policy/mutant.h"

#define DEFAULT_RESTARTS 3
#define DEFAULT_WINDOW ((int64_t)5 * 1000 * 1000 * 1000)
#define DEFAULT_SHUTDOWN ((int64_t)5 * 1000 * 1000 * 1000)
#define RESTARTS_MAX 1000000

enum round_mode { ROUND_NONE, ROUND_STOP, ROUND_WAIT, ROUND_START };

struct klaw_supervision {
    klaw_strategy strategy;
    klaw_auto_shutdown auto_shutdown;
    klaw_backoff backoff;
    bool no_backoff;
    bool begun, begun_told;
    bool closing, done_told;
    klaw_err outcome; /* closing: of DONE */
    int64_t window;

    klawi_children all;
    uint32_t alive, significant;

    enum round_mode mode;
    uint32_t cursor;
    uint64_t low;      /* the round's group: children from this seq on */
    int64_t resume_at; /* when its backoff is over */

    uint32_t limit; /* UINT32_MAX: none */
    uint32_t times_head, times_count;
    int64_t times[]; /* limit of them */
};

/* --- making --- */

static klaw_err check_opts(const klaw_supervision_opts *o) {
    if (o->strategy < KLAW_ONE_FOR_ONE || o->strategy > KLAW_DYNAMIC)
        return KLAW_INVALID;
    if (o->auto_shutdown < KLAW_SHUTDOWN_NEVER || o->auto_shutdown > KLAW_SHUTDOWN_ALL_SIGNIFICANT)
        return KLAW_INVALID;
    if (o->max_restarts < KLAW_NONE)
        return KLAW_INVALID;
    if (o->max_restarts > RESTARTS_MAX && o->max_restarts != KLAW_RESTARTS_UNLIMITED)
        return KLAW_INVALID;
    if (o->restart_window < 0)
        return KLAW_INVALID;
    return klaw_backoff_check(&o->backoff);
}

klaw_err klaw_supervision_new(const klaw_supervision_opts *opts, klaw_supervision **out) {
    static const klaw_supervision_opts by_default;
    if (!opts)
        opts = &by_default;
    klaw_err e = check_opts(opts);
    if (e)
        return e;
    uint32_t limit = opts->max_restarts == 0  ? DEFAULT_RESTARTS
                     : opts->max_restarts < 0 ? 0
                                              : (uint32_t)opts->max_restarts;
    bool unlimited = opts->max_restarts == KLAW_RESTARTS_UNLIMITED;
    limit += KLAWI_POLICY_MUTANT(INTENSITY_MORE);
    limit -= KLAWI_POLICY_MUTANT(INTENSITY_LESS) && limit > 0;
    klaw_supervision *s = klawi_calloc(1, sizeof *s + (unlimited ? 0 : limit) * sizeof s->times[0]);
    if (!s)
        return KLAW_NOMEM;
    s->strategy = opts->strategy;
    s->auto_shutdown = opts->auto_shutdown;
    s->backoff = opts->backoff;
    s->no_backoff = opts->no_backoff;
    s->window = opts->restart_window ? opts->restart_window : DEFAULT_WINDOW;
    s->limit = unlimited ? UINT32_MAX : limit;
    s->cursor = KLAWI_NIL;
    klawi_children_init(&s->all);
    *out = s;
    return KLAW_OK;
}

void klaw_supervision_free(klaw_supervision *s) {
    if (!s)
        return;
    klawi_children_free(&s->all);
    klawi_free(s);
}

/* --- single children --- */

static int64_t later(int64_t now, int64_t by) {
    int64_t at;
    return __builtin_add_overflow(now, by, &at) ? INT64_MAX : at;
}

static bool is_alive(int state) {
    return state != KLAW_CHILD_STOPPED && state != KLAW_CHILD_BACKOFF;
}

static void set_state(klaw_supervision *s, klawi_child *c, klaw_child_state state) {
    s->alive += (uint32_t)is_alive(state) - (uint32_t)is_alive(c->state); /* V6 */
    if (c->significant)
        s->significant +=
            (uint32_t)(state != KLAW_CHILD_STOPPED) - (uint32_t)(c->state != KLAW_CHILD_STOPPED);
    c->state = (uint8_t)state;
    if (state != KLAW_CHILD_STOPPING)
        klawi_children_no_timer(&s->all, c); /* V3; a new BACKOFF sets it anew */
}

/* The cursor leaves c, which goes: to where the round would have gone next. */
static void drop(klaw_supervision *s, klawi_child *c) {
    if (s->cursor == klawi_children_number(&s->all, c))
        s->cursor = s->mode == ROUND_START ? c->next : c->prev;
    klawi_children_drop(&s->all, c);
}

/* c has ended for good: it stays, or not. */
static void end_for_good(klaw_supervision *s, klawi_child *c) {
    set_state(s, c, KLAW_CHILD_STOPPED);
    c->turn = false;
    if (c->restart == KLAW_RESTART_NEVER ||
        (s->strategy == KLAW_DYNAMIC && !KLAWI_POLICY_MUTANT(DYNAMIC_KEPT)))
        drop(s, c);
}

/* c is at rest, and that is nobody's failure. */
static void settle(klaw_supervision *s, klawi_child *c) {
    if (c->turn)
        set_state(s, c, KLAW_CHILD_BACKOFF); /* V2 */
    else
        end_for_good(s, c);
}

static void tell_start(klaw_supervision *s, klawi_child *c) {
    set_state(s, c, KLAW_CHILD_STARTING);
    c->turn = c->ran = false;
    klawi_children_tell(&s->all, c, KLAWI_TELL_START);
}

/* A START that the host has not seen yet does not happen. */
static bool take_back_start(klaw_supervision *s, klawi_child *c) {
    if (!(c->tell & KLAWI_TELL_START))
        return false;
    c->tell &= (uint8_t)~KLAWI_TELL_START;
    settle(s, c);
    return true;
}

/* c is STARTING or RUNNING. */
static void tell_stop(klaw_supervision *s, klawi_child *c, int64_t now) {
    if (take_back_start(s, c))
        return;
    if (c->shutdown == KLAW_SHUTDOWN_KILL && !KLAWI_POLICY_MUTANT(KILL_IS_STOP)) {
        set_state(s, c, KLAW_CHILD_KILLING);
        klawi_children_tell(&s->all, c, KLAWI_TELL_KILL);
        return;
    }
    set_state(s, c, KLAW_CHILD_STOPPING);
    klawi_children_tell(&s->all, c, KLAWI_TELL_STOP);
    if (c->shutdown != KLAW_SHUTDOWN_FOREVER && !KLAWI_POLICY_MUTANT(NO_KILL))
        klawi_children_timer(&s->all, c, later(now, c->shutdown));
}

/* --- rounds --- */

static klawi_child *at(const klaw_supervision *s, uint32_t number) {
    return klawi_children_at(&s->all, number);
}

static bool in_round(const klaw_supervision *s, const klawi_child *c) {
    return s->mode != ROUND_NONE && c->seq >= s->low;
}

/* Whether c will be stopped, or is at rest, because of its group. */
static bool group_stops(const klaw_supervision *s, const klawi_child *c) {
    return in_round(s, c) && s->mode != ROUND_START;
}

/* Stops everything; the end is DONE with `outcome`. */
static void close_all(klaw_supervision *s, klaw_err outcome, int64_t now) {
    if (s->closing)
        return;
    s->closing = true;
    s->outcome = outcome;
    s->mode = ROUND_STOP;
    s->low = 0;
    uint32_t next;
    for (uint32_t i = s->all.head; i != KLAWI_NIL; i = next) {
        klawi_child *c = at(s, i);
        next = c->next;
        c->turn = false;
        if (c->state == KLAW_CHILD_BACKOFF || c->state == KLAW_CHILD_STOPPED)
            end_for_good(s, c); /* V5 */
        else if (c->state == KLAW_CHILD_STARTING && take_back_start(s, c))
            continue;
        else if (s->strategy == KLAW_DYNAMIC && c->state <= KLAW_CHILD_RUNNING)
            tell_stop(s, c, now);
    }
    s->cursor = s->all.tail;
}

/* Child c of the group is given its turn in the round that begins. */
static void give_turn(klaw_supervision *s, klawi_child *c) {
    if (c->turn)
        return;
    if (c->restart == KLAW_RESTART_NEVER && !KLAWI_POLICY_MUTANT(NEVER_RESTARTED)) {
        (void)take_back_start(s, c);
        return;
    }
    if (c->state == KLAW_CHILD_STOPPED && KLAWI_POLICY_MUTANT(STOPPED_LEFT_OUT))
        return;
    c->turn = true;
    if (c->state == KLAW_CHILD_STOPPED || c->origin == KLAWI_ORIGIN_REQUESTED)
        c->origin = KLAWI_ORIGIN_RESTART;
    if (c->state == KLAW_CHILD_STOPPED)
        settle(s, c);
    else
        (void)take_back_start(s, c);
}

/* c has failed, is at rest and has its turn: its group is stopped, and at resume_at started again. */
static void restart_group(klaw_supervision *s, const klawi_child *c, int64_t resume_at) {
    bool all = s->strategy == KLAW_ONE_FOR_ALL || KLAWI_POLICY_MUTANT(REST_IS_ALL);
    if (s->mode == ROUND_STOP || s->mode == ROUND_WAIT) {
        /* c is left of the group. The cursor is in between or still in the group (V1). */
        if (resume_at < s->resume_at)
            resume_at = s->resume_at;
    } else {
        s->cursor = s->all.tail;
    }
    s->mode = ROUND_STOP;
    s->low = all ? 0 : c->seq;
    s->resume_at = resume_at;
    if (KLAWI_POLICY_MUTANT(REST_IS_ONE) && !all)
        return;
    uint32_t before;
    for (uint32_t i = s->all.tail; i != KLAWI_NIL && at(s, i)->seq >= s->low; i = before) {
        before = at(s, i)->prev;
        give_turn(s, at(s, i));
    }
}

/* Steps of a round: true when something new has to be told. */
static bool step_stop(klaw_supervision *s, int64_t now) {
    if (KLAWI_POLICY_MUTANT(STOP_LEFT_TO_RIGHT)) {
        for (uint32_t i = s->all.head; i != KLAWI_NIL; i = at(s, i)->next) {
            klawi_child *c = at(s, i);
            if (c->seq < s->low || !is_alive(c->state))
                continue;
            if (c->state > KLAW_CHILD_RUNNING)
                return false;
            tell_stop(s, c, now);
            return true;
        }
        s->cursor = KLAWI_NIL;
    }
    for (klawi_child *c; (c = at(s, s->cursor)) && c->seq >= s->low; s->cursor = c->prev) {
        if (c->state == KLAW_CHILD_STARTING || c->state == KLAW_CHILD_RUNNING) {
            tell_stop(s, c, now);
            return true;
        }
        if (is_alive(c->state) && !KLAWI_POLICY_MUTANT(STOP_NO_WAIT))
            return false;
    }
    if (s->closing)
        return false;
    s->mode = ROUND_WAIT;
    return true;
}

static bool step_start(klaw_supervision *s) {
    for (klawi_child *c; (c = at(s, s->cursor)); s->cursor = c->next) {
        if (c->turn) {
            KLAWI_ASSERT(c->state == KLAW_CHILD_BACKOFF); /* V2 */
            tell_start(s, c);
            return true;
        }
        if (c->state == KLAW_CHILD_STARTING && !KLAWI_POLICY_MUTANT(START_NO_WAIT))
            return false;
    }
    s->mode = ROUND_NONE;
    return false;
}

static bool step(klaw_supervision *s, int64_t now) {
    switch (s->mode) {
    case ROUND_STOP: return step_stop(s, now);
    case ROUND_WAIT:
        if (now < s->resume_at)
            return false;
        s->mode = ROUND_START;
        s->cursor = s->cursor == KLAWI_NIL ? s->all.head : at(s, s->cursor)->next;
        return true;
    case ROUND_START: return step_start(s);
    case ROUND_NONE: break;
    }
    return false;
}

/* --- failures --- */

/* One restart more: false when that is one too many. */
static bool count_restart(klaw_supervision *s, int64_t now) {
    uint32_t limit = s->limit;
    if (limit == UINT32_MAX)
        return true;
    if (s->times_count < limit) {
        s->times[s->times_count++] = now;
        return true;
    }
    if (limit == 0)
        return false;
    /* The oldest of the last `limit` ones; with this one, that many and one more. */
    int64_t age = now - s->times[s->times_head];
    bool counts = KLAWI_POLICY_MUTANT(WINDOW_OPEN) ? age < s->window : age <= s->window;
    if (counts || KLAWI_POLICY_MUTANT(WINDOW_NONE))
        return false;
    s->times[s->times_head] = now;
    s->times_head = (s->times_head + 1) % limit;
    return true;
}

/* c, which is to be restarted, ended or could not start. */
static void restart(klaw_supervision *s, klawi_child *c, bool uncounted, int64_t now,
                    uint64_t random) {
    if (!uncounted && !count_restart(s, now)) {
        klawi_children_tell(&s->all, c, KLAWI_TELL_GAVE_UP);
        end_for_good(s, c);
        close_all(s, KLAW_LIMIT, now);
        return;
    }
    int64_t delay = s->no_backoff ? 0 : klaw_backoff_delay(&s->backoff, c->failures, random);
    c->origin = KLAWI_ORIGIN_RESTART;
    if (s->strategy == KLAW_ONE_FOR_ALL || s->strategy == KLAW_REST_FOR_ONE) {
        c->turn = true;
        settle(s, c);
        restart_group(s, c, KLAWI_POLICY_MUTANT(BACKOFF_LOST) ? now : later(now, delay));
    } else if (delay == 0) {
        tell_start(s, c);
    } else {
        set_state(s, c, KLAW_CHILD_BACKOFF);
        klawi_children_timer(&s->all, c, later(now, delay));
    }
}

/* c has ended by itself and is not restarted. */
static void end_by_itself(klaw_supervision *s, klawi_child *c, int64_t now) {
    bool significant = c->significant;
    end_for_good(s, c);
    if (!significant)
        return;
    bool any = s->auto_shutdown == KLAW_SHUTDOWN_ANY_SIGNIFICANT;
    if (KLAWI_POLICY_MUTANT(ALL_IS_ANY) || KLAWI_POLICY_MUTANT(ANY_IS_ALL))
        any = KLAWI_POLICY_MUTANT(ALL_IS_ANY);
    if (any || s->significant == 0)
        close_all(s, KLAW_OK, now);
}

/* --- events --- */

klaw_err klaw_supervision_started(klaw_supervision *s, uint32_t child, int64_t now) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (!c || !is_alive(c->state) || c->ran || (c->tell & KLAWI_TELL_START))
        return KLAW_INVALID;
    c->ran = true;
    if (c->state != KLAW_CHILD_STARTING)
        return KLAW_OK; /* told to stop meanwhile */
    set_state(s, c, KLAW_CHILD_RUNNING);
    c->started_at = now;
    if (c->origin == KLAWI_ORIGIN_RESTART) {
        c->restarts++;
        c->restarted_after = c->failures;
        klawi_children_tell(&s->all, c, KLAWI_TELL_RESTARTED);
    }
    c->origin = KLAWI_ORIGIN_RESTART;
    return KLAW_OK;
}

static void failed(klaw_supervision *s, klawi_child *c, klaw_err error) {
    c->failed_after = ++c->failures;
    c->error = error;
    if (error)
        klawi_children_tell(&s->all, c, KLAWI_TELL_FAILED);
}

klaw_err klaw_supervision_start_failed(klaw_supervision *s, uint32_t child, klaw_err error,
                                       int64_t now, uint64_t random) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (!c || !is_alive(c->state) || c->ran || (c->tell & KLAWI_TELL_START) || error == KLAW_OK)
        return KLAW_INVALID;
    if (c->state != KLAW_CHILD_STARTING) { /* told to stop meanwhile */
        c->tell &= (uint8_t) ~(KLAWI_TELL_STOP | KLAWI_TELL_KILL);
        settle(s, c);
        return KLAW_OK;
    }
    failed(s, c, error);
    if (c->origin == KLAWI_ORIGIN_FIRST && !KLAWI_POLICY_MUTANT(FIRST_START_RETRIED)) {
        end_for_good(s, c);
        close_all(s, error, now);
    } else if (c->origin == KLAWI_ORIGIN_ADDED && !KLAWI_POLICY_MUTANT(ADDED_KEPT)) {
        set_state(s, c, KLAW_CHILD_STOPPED);
        drop(s, c);
    } else if (group_stops(s, c) || s->closing || c->origin == KLAWI_ORIGIN_REQUESTED) {
        settle(s, c);
    } else {
        restart(s, c, KLAWI_POLICY_MUTANT(FAILED_START_FREE), now, random);
    }
    return KLAW_OK;
}

/* c ran until now and was not told to stop. */
static void ended(klaw_supervision *s, klawi_child *c, klaw_err error, int64_t now,
                  uint64_t random) {
    bool again = c->restart == KLAW_RESTART_ALWAYS ||
                 (c->restart == KLAW_RESTART_ON_FAILURE && error != KLAW_OK);
    if (KLAWI_POLICY_MUTANT(NORMAL_RESTARTED))
        again = c->restart != KLAW_RESTART_NEVER;
    if (KLAWI_POLICY_MUTANT(NORMAL_KEPT))
        again = c->restart != KLAW_RESTART_NEVER && error != KLAW_OK;
    if (now - c->started_at >= s->window && !KLAWI_POLICY_MUTANT(BACKOFF_KEPT))
        c->failures = 0;
    if (again || error != KLAW_OK)
        failed(s, c, error);
    if (s->closing || (group_stops(s, c) && !KLAWI_POLICY_MUTANT(STOPPED_COUNTS)))
        settle(s, c);
    else if (again)
        restart(s, c, false, now, random);
    else
        end_by_itself(s, c, now);
}

/* c, which was told to stop, is gone. */
static void stopped(klaw_supervision *s, klawi_child *c, int64_t now) {
    c->tell &= (uint8_t) ~(KLAWI_TELL_STOP | KLAWI_TELL_KILL);
    if (KLAWI_POLICY_MUTANT(SIGNIFICANT_STOP) && c->significant && !c->turn)
        end_by_itself(s, c, now);
    else
        settle(s, c);
}

klaw_err klaw_supervision_exited(klaw_supervision *s, uint32_t child, klaw_err error, int64_t now,
                                 uint64_t random) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (!c)
        return KLAW_INVALID;
    if (c->state == KLAW_CHILD_RUNNING)
        ended(s, c, error, now, random);
    else if (c->state == KLAW_CHILD_STOPPING || c->state == KLAW_CHILD_KILLING)
        stopped(s, c, now);
    else
        return KLAW_INVALID;
    return KLAW_OK;
}

klaw_err klaw_supervision_abandoned(klaw_supervision *s, uint32_t child, int64_t now) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (!c || c->state != KLAW_CHILD_KILLING || (c->tell & KLAWI_TELL_KILL))
        return KLAW_INVALID;
    if (!KLAWI_POLICY_MUTANT(ABANDONED_BLOCKS))
        stopped(s, c, now);
    return KLAW_OK;
}

/* --- requests --- */

klaw_err klaw_supervision_add(klaw_supervision *s, const klaw_supervision_child *o,
                              uint32_t *child) {
    static const klaw_supervision_child by_default;
    if (!o)
        o = &by_default;
    if (o->restart < KLAW_RESTART_ON_FAILURE || o->restart > KLAW_RESTART_NEVER ||
        o->shutdown < KLAW_NONE)
        return KLAW_INVALID;
    if (o->significant &&
        (s->auto_shutdown == KLAW_SHUTDOWN_NEVER || o->restart == KLAW_RESTART_ALWAYS))
        return KLAW_INVALID;
    if (s->closing)
        return KLAW_STOPPED;
    klawi_child *c = klawi_children_add(&s->all);
    if (!c)
        return KLAW_NOMEM;
    *child = klawi_children_number(&s->all, c);
    c->restart = (uint8_t)o->restart;
    c->significant = o->significant;
    c->shutdown = o->shutdown ? o->shutdown : DEFAULT_SHUTDOWN;
    c->origin = s->begun || s->strategy == KLAW_DYNAMIC ? KLAWI_ORIGIN_ADDED : KLAWI_ORIGIN_FIRST;
    if (s->mode != ROUND_NONE) {
        if (s->mode == ROUND_START && s->cursor == KLAWI_NIL)
            s->cursor = *child; /* V1: it was past the end */
        c->turn = true;
        settle(s, c);
    } else if (s->begun) {
        tell_start(s, c);
    }
    return KLAW_OK;
}

klaw_err klaw_supervision_begin(klaw_supervision *s, int64_t now) {
    (void)now;
    if (s->begun)
        return KLAW_EXISTS;
    if (s->closing)
        return KLAW_STOPPED;
    s->begun = true;
    for (uint32_t i = s->all.head; i != KLAWI_NIL; i = at(s, i)->next) {
        klawi_child *c = at(s, i);
        if (s->strategy == KLAW_DYNAMIC) {
            tell_start(s, c);
        } else {
            c->turn = true;
            settle(s, c);
        }
    }
    if (s->strategy != KLAW_DYNAMIC) {
        s->mode = ROUND_START;
        s->cursor = s->all.head;
    }
    return KLAW_OK;
}

klaw_err klaw_supervision_stop_child(klaw_supervision *s, uint32_t child, int64_t now) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (s->closing)
        return KLAW_STOPPED;
    if (!c)
        return KLAW_NOT_FOUND;
    if (!KLAWI_POLICY_MUTANT(STOP_CHILD_RESTARTS))
        c->turn = false;
    if (c->state == KLAW_CHILD_BACKOFF)
        settle(s, c);
    else if (c->state == KLAW_CHILD_STARTING || c->state == KLAW_CHILD_RUNNING)
        tell_stop(s, c, now);
    return KLAW_OK;
}

klaw_err klaw_supervision_restart_child(klaw_supervision *s, uint32_t child, int64_t now) {
    (void)now;
    klawi_child *c = klawi_children_find(&s->all, child);
    if (s->closing)
        return KLAW_STOPPED;
    if (!c)
        return KLAW_NOT_FOUND;
    if (!s->begun)
        return KLAW_INVALID;
    if (c->state != KLAW_CHILD_STOPPED)
        return KLAW_EXISTS;
    c->failures = 0;
    c->origin = KLAWI_ORIGIN_REQUESTED;
    const klawi_child *cursor = at(s, s->cursor);
    if (in_round(s, c) && (s->mode != ROUND_START || (cursor && c->seq >= cursor->seq))) {
        c->turn = true;
        settle(s, c);
    } else {
        tell_start(s, c);
    }
    return KLAW_OK;
}

klaw_err klaw_supervision_remove(klaw_supervision *s, uint32_t child) {
    klawi_child *c = klawi_children_find(&s->all, child);
    if (!c)
        return KLAW_NOT_FOUND;
    if (c->state != KLAW_CHILD_STOPPED)
        return KLAW_EXISTS;
    drop(s, c);
    return KLAW_OK;
}

void klaw_supervision_shutdown(klaw_supervision *s, int64_t now) {
    if (KLAWI_POLICY_MUTANT(SHUTDOWN_IN_WAIT) && s->mode == ROUND_WAIT)
        return;
    if (KLAWI_POLICY_MUTANT(SHUTDOWN_IN_START) && s->mode == ROUND_START)
        return;
    close_all(s, KLAW_OK, now);
}

/* --- actions --- */

static void fire(klaw_supervision *s, int64_t now) {
    for (klawi_child *c; (c = klawi_children_first_timer(&s->all)) && c->timer <= now;) {
        if (c->state == KLAW_CHILD_BACKOFF) {
            tell_start(s, c);
        } else {
            c->tell &= (uint8_t)~KLAWI_TELL_STOP;
            set_state(s, c, KLAW_CHILD_KILLING);
            klawi_children_tell(&s->all, c, KLAWI_TELL_KILL);
        }
    }
}

static klaw_supervision_action told(const klaw_supervision *s, int bit, uint32_t number) {
    const klawi_child *c = at(s, number);
    klaw_supervision_action a = {.child = number};
    switch (bit) {
    case KLAWI_TELL_RESTARTED:
        a.verb = KLAW_SUP_RESTARTED;
        a.attempt = c->restarted_after;
        break;
    case KLAWI_TELL_FAILED:
    case KLAWI_TELL_GAVE_UP:
        a.verb = bit == KLAWI_TELL_FAILED ? KLAW_SUP_FAILED : KLAW_SUP_GAVE_UP;
        a.attempt = c->failed_after;
        a.error = c->error;
        break;
    case KLAWI_TELL_START:
        a.verb = KLAW_SUP_START;
        a.attempt = c->failures;
        break;
    case KLAWI_TELL_KILL: a.verb = KLAW_SUP_KILL; break;
    case KLAWI_TELL_STOP: a.verb = KLAW_SUP_STOP; break;
    default: a.verb = KLAW_SUP_REMOVED; break;
    }
    return a;
}

klaw_supervision_action klaw_supervision_next(klaw_supervision *s, int64_t now) {
    uint32_t number;
    int bit;
    fire(s, now);
    do {
        if ((bit = klawi_children_told(&s->all, &number)) != 0)
            return told(s, bit, number);
    } while (step(s, now));
    if (s->closing) {
        /* step_stop went as far as it can: with nobody alive, to the end. */
        if (s->done_told || s->alive > 0)
            return (klaw_supervision_action){0};
        s->done_told = true;
        return (klaw_supervision_action){.verb = KLAW_SUP_DONE, .error = s->outcome};
    }
    if (s->begun && !s->begun_told && s->mode == ROUND_NONE) {
        s->begun_told = true;
        return (klaw_supervision_action){.verb = KLAW_SUP_BEGUN};
    }
    return (klaw_supervision_action){0};
}

int64_t klaw_supervision_due(const klaw_supervision *s) {
    const klawi_child *c = klawi_children_first_timer(&s->all);
    int64_t due = c ? c->timer : INT64_MAX;
    return s->mode == ROUND_WAIT && s->resume_at < due ? s->resume_at : due;
}

klaw_child_state klaw_supervision_state(const klaw_supervision *s, uint32_t child) {
    const klawi_child *c = klawi_children_find(&s->all, child);
    return c ? (klaw_child_state)c->state : KLAW_CHILD_STOPPED;
}

uint64_t klaw_supervision_restarts(const klaw_supervision *s, uint32_t child) {
    const klawi_child *c = klawi_children_find(&s->all, child);
    return c ? c->restarts : 0;
}

uint32_t klaw_supervision_count(const klaw_supervision *s) {
    return s->all.count;
}
