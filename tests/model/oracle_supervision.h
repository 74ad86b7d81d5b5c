/* SPDX-License-Identifier: Apache-2.0 */
/* oracle_supervision.h - what a supervisor has to do, written from OTP's documented rules and the
 * list of rules in klaw/policy.h, and from nothing else.
 *
 * It is slow and plain on purpose: one list of children in their order, one list of what has to be
 * told, all restarts ever counted, no timers. Whatever is to be decided is looked for in the whole
 * list each time. It shares no code with the machine but the arithmetic of delays. */
#ifndef KLAW_TESTS_MODEL_ORACLE_SUPERVISION_H
#define KLAW_TESTS_MODEL_ORACLE_SUPERVISION_H

#include "klaw/policy.h"
#include "support/check.h"

#define O_KIDS 24
#define O_RESTARTS 512

/* A child as OTP sees it: no process, a process, or "restarting". */
typedef enum o_phase {
    O_NONE,     /* the specification alone */
    O_DUE,      /* its turn will come in the round under way */
    O_DELAYED,  /* restarting, after `until` */
    O_STARTING, /* told: see `said` */
    O_UP,
    O_ASKED, /* to stop, until `until` */
    O_FORCED
} o_phase;

typedef struct o_kid {
    uint32_t id;
    uint64_t order;
    klaw_supervision_child spec;
    o_phase phase;
    bool comes_back; /* its group is being restarted, and it with it */
    bool answered;   /* its start has been */
    bool never_ran;  /* since it was added */
    bool initial;    /* of the beginning, and still to be started by it */
    bool by_request; /* this start is restart_child's */
    uint32_t ends;   /* in a row */
    klaw_err last_error;
    int64_t until, since; /* since: running */
    uint64_t restarts;
} o_kid;

typedef struct oracle {
    klaw_supervision_opts opts;
    o_kid kid[O_KIDS];
    uint32_t kids;
    uint64_t orders;
    klaw_supervision_action out[4 * O_KIDS]; /* to be told; a verb of NOTHING was taken back */
    uint32_t outs;
    int64_t restarted[O_RESTARTS];
    uint32_t restarts;
    bool begun, begun_told, ending, done_told;
    klaw_err reason;
    /* The round: nobody's, stopping the group, starting it. */
    enum { O_QUIET, O_DOWN, O_BACK } round;
    uint64_t from;    /* the group: children from this place on */
    uint64_t reached; /* O_BACK: the place of the one it waits for */
    int64_t resume;
} oracle;

static inline void o_init(oracle *o, const klaw_supervision_opts *opts) {
    memset(o, 0, sizeof *o);
    o->opts = *opts;
}

/* --- lists --- */
static inline o_kid *o_find(oracle *o, uint32_t id) {
    for (uint32_t i = 0; i < o->kids; i++)
        if (o->kid[i].id == id)
            return &o->kid[i];
    return NULL;
}
static inline bool o_has_process(const o_kid *k) {
    return k->phase >= O_STARTING;
}
/* Together with what else has to be told of this child, else last. */
static inline void o_tell(oracle *o, klaw_supervision_verb verb, uint32_t id, uint32_t attempt,
                          klaw_err e) {
    uint32_t at = o->outs;
    for (uint32_t i = 0; i < o->outs; i++)
        if (o->out[i].child == id)
            at = i + 1;
    CHECK(o->outs < 4 * O_KIDS);
    memmove(&o->out[at + 1], &o->out[at], (o->outs - at) * sizeof *o->out);
    o->out[at] = (klaw_supervision_action){verb, id, attempt, e};
    o->outs++;
}
static inline bool o_take_back(oracle *o, klaw_supervision_verb verb, uint32_t id) {
    for (uint32_t i = 0; i < o->outs; i++)
        if (o->out[i].child == id && o->out[i].verb == verb) {
            o->out[i].verb = KLAW_SUP_NOTHING;
            return true;
        }
    return false;
}
static inline bool o_untold(const oracle *o, klaw_supervision_verb verb, uint32_t id) {
    for (uint32_t i = 0; i < o->outs; i++)
        if (o->out[i].child == id && o->out[i].verb == verb)
            return true;
    return false;
}
static inline void o_forget(oracle *o, o_kid *k) {
    uint32_t id = k->id, at = (uint32_t)(k - o->kid);
    memmove(k, k + 1, (o->kids - at - 1) * sizeof *k);
    o->kids--;
    o_tell(o, KLAW_SUP_REMOVED, id, 0, KLAW_OK);
}

/* --- what the documentation says --- */

/* "Temporary children are never restarted ... the child specification is removed when the child
 * terminates"; simple_one_for_one keeps no specification of a child that has terminated. */
static inline bool o_kept(const oracle *o, const o_kid *k) {
    return k->spec.restart != KLAW_RESTART_NEVER && o->opts.strategy != KLAW_DYNAMIC;
}
/* "permanent: always restarted; transient: restarted only if it terminates abnormally; temporary:
 * never restarted". */
static inline bool o_wants_restart(const o_kid *k, klaw_err e) {
    switch (k->spec.restart) {
    case KLAW_RESTART_ALWAYS: return true;
    case KLAW_RESTART_ON_FAILURE: return e != KLAW_OK;
    default: return false;
    }
}
static inline int64_t o_window(const oracle *o) {
    return o->opts.restart_window ? o->opts.restart_window : KLAW_S(5);
}
/* "If more than MaxR restarts occur within MaxT, the supervisor terminates all child processes and
 * then itself". */
static inline bool o_too_many(oracle *o, int64_t now) {
    uint32_t within = 0, allowed = o->opts.max_restarts == 0  ? 3
                                   : o->opts.max_restarts < 0 ? 0
                                                              : (uint32_t)o->opts.max_restarts;
    CHECK(o->restarts < O_RESTARTS);
    o->restarted[o->restarts++] = now;
    for (uint32_t i = 0; i < o->restarts; i++)
        within += now <= o->restarted[i] + o_window(o);
    return within > allowed;
}

static inline void o_no_process(oracle *o, o_kid *k) {
    k->phase = O_NONE;
    k->comes_back = false;
    if (!o_kept(o, k))
        o_forget(o, k);
}
/* It is gone or was never told to start, and nobody restarts it for that. */
static inline void o_gone(oracle *o, o_kid *k) {
    if (k->comes_back)
        k->phase = O_DUE;
    else
        o_no_process(o, k);
}
static inline void o_start(oracle *o, o_kid *k) {
    k->phase = O_STARTING;
    k->comes_back = k->answered = false;
    o_tell(o, KLAW_SUP_START, k->id, k->ends, KLAW_OK);
}
/* "An integer time-out: the supervisor tells the child to terminate and waits for an exit signal; if
 * none is received within the time, the child is unconditionally terminated. brutal_kill: at once.
 * infinity: for ever." */
static inline void o_stop(oracle *o, o_kid *k, int64_t now) {
    if (k->phase == O_STARTING && o_take_back(o, KLAW_SUP_START, k->id)) {
        o_gone(o, k);
        return;
    }
    int64_t time = k->spec.shutdown ? k->spec.shutdown : KLAW_S(5);
    bool kill = time == KLAW_SHUTDOWN_KILL;
    k->phase = kill ? O_FORCED : O_ASKED;
    k->until = time == KLAW_SHUTDOWN_FOREVER || kill ? INT64_MAX : now + time;
    o_tell(o, kill ? KLAW_SUP_KILL : KLAW_SUP_STOP, k->id, 0, KLAW_OK);
}

static inline void o_end(oracle *o, klaw_err reason, int64_t now) {
    if (o->ending)
        return;
    o->ending = true;
    o->reason = reason;
    for (uint32_t i = 0; i < o->kids;) {
        o_kid *k = &o->kid[i];
        uint32_t id = k->id;
        k->comes_back = false;
        if (!o_has_process(k))
            o_no_process(o, k);
        else if (k->phase == O_STARTING && o_take_back(o, KLAW_SUP_START, id))
            o_gone(o, k);
        else if (o->opts.strategy == KLAW_DYNAMIC && k->phase <= O_UP)
            o_stop(o, k, now); /* "all at once": there is no order */
        i += i < o->kids && o->kid[i].id == id;
    }
}

/* "one_for_all: all other child processes are terminated and then all child processes are restarted;
 * rest_for_one: the rest of the child processes (those after it in start order)". */
static inline void o_restart_group(oracle *o, uint64_t order, int64_t resume) {
    uint64_t from = o->opts.strategy == KLAW_ONE_FOR_ALL ? 0 : order;
    bool grows = o->round == O_DOWN;
    o->from = grows && o->from < from ? o->from : from;
    o->resume = grows && o->resume > resume ? o->resume : resume;
    o->round = O_DOWN;
    for (uint32_t i = o->kids; i-- > 0;) {
        o_kid *k = &o->kid[i];
        if (k->order < o->from || k->comes_back)
            continue;
        if (k->spec.restart != KLAW_RESTART_NEVER) {
            bool had_none = k->phase == O_NONE;
            k->comes_back = true;
            if (had_none || k->by_request)
                k->initial = k->by_request = k->never_ran = false; /* an ordinary restart now */
            if (had_none)
                o_gone(o, k);
        }
        if (k->phase == O_STARTING && o_take_back(o, KLAW_SUP_START, k->id))
            o_gone(o, k);
    }
}
static inline bool o_group_stops(const oracle *o, const o_kid *k) {
    return o->round == O_DOWN && k->order >= o->from;
}

static inline void o_restart(oracle *o, o_kid *k, int64_t now, uint64_t random) {
    if (o_too_many(o, now)) {
        o_tell(o, KLAW_SUP_GAVE_UP, k->id, k->ends, k->last_error);
        o_no_process(o, k);
        o_end(o, KLAW_LIMIT, now);
        return;
    }
    int64_t delay = o->opts.no_backoff ? 0 : klaw_backoff_delay(&o->opts.backoff, k->ends, random);
    k->by_request = k->initial = k->never_ran = false;
    if (o->opts.strategy == KLAW_ONE_FOR_ALL || o->opts.strategy == KLAW_REST_FOR_ONE) {
        k->comes_back = true;
        k->phase = O_DUE;
        o_restart_group(o, k->order, now + delay);
    } else if (delay == 0) {
        o_start(o, k);
    } else {
        k->phase = O_DELAYED;
        k->until = now + delay;
    }
}

/* "any_significant: the supervisor shuts down when any significant child terminates by itself;
 * all_significant: when all of them have." A restart is no such end. */
static inline void o_ended_by_itself(oracle *o, o_kid *k, int64_t now) {
    bool significant = k->spec.significant, left = false;
    o_no_process(o, k);
    for (uint32_t i = 0; i < o->kids; i++)
        left |= o->kid[i].spec.significant && o->kid[i].phase != O_NONE;
    if (significant && (o->opts.auto_shutdown == KLAW_SHUTDOWN_ANY_SIGNIFICANT || !left))
        o_end(o, KLAW_OK, now);
}

/* --- events --- */
static inline klaw_err o_started(oracle *o, uint32_t id, int64_t now) {
    o_kid *k = o_find(o, id);
    if (!k || !o_has_process(k) || k->answered || o_untold(o, KLAW_SUP_START, id))
        return KLAW_INVALID;
    k->answered = true;
    if (k->phase != O_STARTING)
        return KLAW_OK;
    k->phase = O_UP;
    k->since = now;
    if (!k->never_ran && !k->by_request) {
        k->restarts++;
        o_tell(o, KLAW_SUP_RESTARTED, id, k->ends, KLAW_OK);
    }
    k->never_ran = k->by_request = k->initial = false;
    return KLAW_OK;
}
static inline klaw_err o_start_failed(oracle *o, uint32_t id, klaw_err e, int64_t now,
                                      uint64_t random) {
    o_kid *k = o_find(o, id);
    if (!k || !o_has_process(k) || k->answered || o_untold(o, KLAW_SUP_START, id) || e == KLAW_OK)
        return KLAW_INVALID;
    if (k->phase != O_STARTING) {
        o_take_back(o, KLAW_SUP_STOP, id);
        o_take_back(o, KLAW_SUP_KILL, id);
        o_gone(o, k);
        return KLAW_OK;
    }
    k->ends++;
    k->last_error = e;
    o_tell(o, KLAW_SUP_FAILED, id, k->ends, e);
    if (k->initial) { /* "the supervisor terminates all already started children and exits" */
        o_no_process(o, k);
        o_end(o, e, now);
    } else if (k->never_ran && !k->by_request) { /* "the child specification is discarded" */
        o_forget(o, k);
    } else if (o_group_stops(o, k) || o->ending || k->by_request) {
        o_gone(o, k);
    } else {
        o_restart(o, k, now, random);
    }
    return KLAW_OK;
}
static inline klaw_err o_exited(oracle *o, uint32_t id, klaw_err e, int64_t now, uint64_t random) {
    o_kid *k = o_find(o, id);
    if (!k || k->phase < O_UP)
        return KLAW_INVALID;
    if (k->phase != O_UP) {
        o_take_back(o, KLAW_SUP_STOP, id);
        o_take_back(o, KLAW_SUP_KILL, id);
        o_gone(o, k);
        return KLAW_OK;
    }
    if (now - k->since >= o_window(o))
        k->ends = 0;
    if (e != KLAW_OK || o_wants_restart(k, e)) {
        k->ends++;
        k->last_error = e;
    }
    if (e != KLAW_OK)
        o_tell(o, KLAW_SUP_FAILED, id, k->ends, e);
    if (o->ending || o_group_stops(o, k))
        o_gone(o, k);
    else if (o_wants_restart(k, e))
        o_restart(o, k, now, random);
    else
        o_ended_by_itself(o, k, now);
    return KLAW_OK;
}
static inline klaw_err o_abandoned(oracle *o, uint32_t id) {
    o_kid *k = o_find(o, id);
    if (!k || k->phase != O_FORCED || o_untold(o, KLAW_SUP_KILL, id))
        return KLAW_INVALID;
    o_gone(o, k);
    return KLAW_OK;
}

/* --- requests --- */
static inline klaw_err o_add(oracle *o, const klaw_supervision_child *spec, uint32_t id) {
    if (o->ending)
        return KLAW_STOPPED;
    CHECK(o->kids < O_KIDS && !o_find(o, id) && !o_untold(o, KLAW_SUP_REMOVED, id));
    o_kid *k = &o->kid[o->kids++];
    *k = (o_kid){.id = id, .order = ++o->orders, .spec = *spec, .never_ran = true};
    k->initial = !o->begun && o->opts.strategy != KLAW_DYNAMIC;
    if (o->round != O_QUIET) {
        k->comes_back = true;
        k->phase = O_DUE;
    } else if (o->begun) {
        o_start(o, k);
    }
    return KLAW_OK;
}
static inline klaw_err o_begin(oracle *o) {
    if (o->begun)
        return KLAW_EXISTS;
    if (o->ending)
        return KLAW_STOPPED;
    o->begun = true;
    for (uint32_t i = 0; i < o->kids; i++) {
        if (o->opts.strategy == KLAW_DYNAMIC) {
            o_start(o, &o->kid[i]);
        } else {
            o->kid[i].comes_back = true;
            o->kid[i].phase = O_DUE;
        }
    }
    o->round = o->opts.strategy == KLAW_DYNAMIC ? O_QUIET : O_BACK;
    o->from = o->reached = 0;
    return KLAW_OK;
}
static inline klaw_err o_stop_child(oracle *o, uint32_t id, int64_t now) {
    o_kid *k = o_find(o, id);
    if (o->ending)
        return KLAW_STOPPED;
    if (!k)
        return KLAW_NOT_FOUND;
    k->comes_back = false;
    if (k->phase == O_DUE || k->phase == O_DELAYED)
        o_no_process(o, k);
    else if (k->phase == O_STARTING || k->phase == O_UP)
        o_stop(o, k, now);
    return KLAW_OK;
}
static inline klaw_err o_restart_child(oracle *o, uint32_t id) {
    o_kid *k = o_find(o, id);
    if (o->ending)
        return KLAW_STOPPED;
    if (!k)
        return KLAW_NOT_FOUND;
    if (!o->begun)
        return KLAW_INVALID;
    if (k->phase != O_NONE)
        return KLAW_EXISTS;
    k->ends = 0;
    k->by_request = true;
    k->initial = false;
    if ((o->round == O_DOWN && k->order >= o->from) ||
        (o->round == O_BACK && k->order >= o->from && k->order >= o->reached)) {
        k->comes_back = true;
        k->phase = O_DUE;
    } else {
        o_start(o, k);
    }
    return KLAW_OK;
}
static inline klaw_err o_remove(oracle *o, uint32_t id) {
    o_kid *k = o_find(o, id);
    if (!k)
        return KLAW_NOT_FOUND;
    if (k->phase != O_NONE)
        return KLAW_EXISTS;
    o_forget(o, k);
    return KLAW_OK;
}

/* --- what is to be done now --- */

/* The last child of the group that has a process. */
static inline o_kid *o_last_alive(oracle *o, uint64_t from) {
    for (uint32_t i = o->kids; i-- > 0;)
        if (o->kid[i].order >= from && o_has_process(&o->kid[i]))
            return &o->kid[i];
    return NULL;
}
/* "Children are terminated in reversed start order", one at a time. */
static inline bool o_stop_last(oracle *o, uint64_t from, int64_t now, bool *none) {
    o_kid *k = o_last_alive(o, from);
    *none = !k;
    if (!k || k->phase > O_UP)
        return false;
    o_stop(o, k, now);
    return true;
}
/* "Children are started in the order of the list", one at a time. */
static inline bool o_start_next(oracle *o) {
    for (uint32_t i = 0; i < o->kids; i++) {
        o_kid *k = &o->kid[i];
        if (k->order < o->reached)
            continue;
        if (k->phase == O_STARTING || k->phase == O_DUE)
            o->reached = k->order;
        if (k->phase == O_STARTING)
            return false;
        if (k->phase == O_DUE) {
            o_start(o, k);
            return true;
        }
    }
    o->round = O_QUIET;
    return false;
}
static inline bool o_more(oracle *o, int64_t now) {
    bool none;
    if (o->ending)
        return o->opts.strategy != KLAW_DYNAMIC && o_stop_last(o, 0, now, &none);
    if (o->round == O_DOWN) {
        if (o_stop_last(o, o->from, now, &none))
            return true;
        if (!none || now < o->resume)
            return false;
        o->round = O_BACK;
        o->reached = o->from;
    }
    return o->round == O_BACK && o_start_next(o);
}
/* The child whose time is over first, of those whose time is over. */
static inline o_kid *o_over(oracle *o, int64_t now) {
    o_kid *first = NULL;
    for (uint32_t i = 0; i < o->kids; i++) {
        o_kid *k = &o->kid[i];
        if ((k->phase == O_DELAYED || k->phase == O_ASKED) && k->until <= now &&
            (!first || k->until < first->until))
            first = k;
    }
    return first;
}
static inline klaw_supervision_action o_next(oracle *o, int64_t now) {
    for (o_kid *k; (k = o_over(o, now));) {
        if (k->phase == O_DELAYED) {
            o_start(o, k);
        } else {
            k->phase = O_FORCED;
            o_take_back(o, KLAW_SUP_STOP, k->id);
            o_tell(o, KLAW_SUP_KILL, k->id, 0, KLAW_OK);
        }
    }
    do {
        while (o->outs) {
            klaw_supervision_action a = o->out[0];
            memmove(o->out, o->out + 1, --o->outs * sizeof *o->out);
            if (a.verb != KLAW_SUP_NOTHING)
                return a;
        }
    } while (o_more(o, now));
    if (o->ending && !o->done_told && !o_last_alive(o, 0)) {
        o->done_told = true;
        return (klaw_supervision_action){.verb = KLAW_SUP_DONE, .error = o->reason};
    }
    if (!o->ending && o->begun && !o->begun_told && o->round == O_QUIET) {
        o->begun_told = true;
        return (klaw_supervision_action){.verb = KLAW_SUP_BEGUN};
    }
    return (klaw_supervision_action){0};
}
static inline int64_t o_due(const oracle *o) {
    int64_t due = INT64_MAX;
    bool down = o->round == O_DOWN && !o->ending;
    for (uint32_t i = 0; i < o->kids; i++) {
        const o_kid *k = &o->kid[i];
        if ((k->phase == O_DELAYED || k->phase == O_ASKED) && k->until < due)
            due = k->until;
        if (o_has_process(k) && k->order >= o->from)
            down = false; /* it waits for somebody, not for the time */
    }
    return down && o->resume < due ? o->resume : due;
}
static inline klaw_child_state o_state(oracle *o, uint32_t id) {
    static const klaw_child_state states[] = {
        [O_NONE] = KLAW_CHILD_STOPPED,    [O_DUE] = KLAW_CHILD_BACKOFF,
        [O_DELAYED] = KLAW_CHILD_BACKOFF, [O_STARTING] = KLAW_CHILD_STARTING,
        [O_UP] = KLAW_CHILD_RUNNING,      [O_ASKED] = KLAW_CHILD_STOPPING,
        [O_FORCED] = KLAW_CHILD_KILLING};
    const o_kid *k = o_find(o, id);
    return k ? states[k->phase] : KLAW_CHILD_STOPPED;
}

#endif
