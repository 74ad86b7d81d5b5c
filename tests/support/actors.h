/* SPDX-License-Identifier: Apache-2.0 */
/* actors.h - one behavior that does on request whatever a test wants of an actor. Its messages and
 * answers are counted blocks, so that nothing of them is lost or dropped twice.
 *
 *     klaw_actor *a = doer((klaw_actor_opts){.capacity = 2});
 *     SAME(asks(a, ADD, 3, NULL), 3);
 *     ends(a, KLAW_OK); */
#ifndef KLAW_TESTS_SUPPORT_ACTORS_H
#define KLAW_TESTS_SUPPORT_ACTORS_H

#include "support/runs.h"

enum deed {
    ADD,     /* adds n to the sum; answers the sum */
    FAIL,    /* fails with n */
    REFUSE,  /* refuses with n */
    DEFER,   /* puts a promise into *(_Atomic(klaw_promise *) *)arg */
    WAIT,    /* waits at the gate arg; answers n, or fails with what the wait ended with */
    STOP,    /* klaw_self_stop */
    MONITOR, /* of the actor arg; answers the id */
    DEMONITOR,
    LINK, /* to the actor arg */
    UNLINK,
    TRAP,
    AFTER,  /* a timer, n ns, id 7 */
    EVERY,  /* the same */
    CANCEL, /* the timer 7 */
    TAKE,   /* takes the message, keeps it at arg */
    SAVE,   /* a checkpoint now */
    CALL    /* calls *(deed_fn *)arg; n: it has dealt with the asker */
};

/* What an actor has seen; shared with the test. */
typedef struct diary {
    _Atomic uint64_t starts, stops, handled, timers, downs;
    _Atomic uint64_t last_why, last_down_id, last_down_reason, last_timer;
    _Atomic int start_fails; /* so many next starts fail with LIMIT */
    _Atomic uint64_t released, restored;
    _Atomic uint64_t failures, restarts, gave_up, bad_saves, last_attempt;
} diary;

typedef struct order {
    uint64_t deed, n;
    void *arg;
    uint64_t *cell; /* counted: one allocation a message */
} order;

typedef struct doer_state {
    uint64_t sum, incarnation;
    diary *d;
    void *block; /* stop() frees it */
} doer_state;

static _Atomic int64_t orders_live, answers_live;

static inline void order_drop(void *elem) {
    free(((order *)elem)->cell);
    atomic_fetch_sub(&orders_live, 1);
}
static const klaw_type order_type = {.name = "order", .size = sizeof(order), .drop = order_drop};

typedef struct answer {
    uint64_t n;
    uint64_t *cell;
} answer;
static inline void answer_drop(void *elem) {
    free(((answer *)elem)->cell);
    atomic_fetch_sub(&answers_live, 1);
}
static const klaw_type answer_type = {
    .name = "answer", .size = sizeof(answer), .drop = answer_drop};

static inline void answer_make(void *reply, uint64_t n) {
    answer *r = reply;
    if (!r)
        return;
    r->n = n;
    r->cell = malloc(sizeof *r->cell);
    atomic_fetch_add(&answers_live, 1);
}

static inline klaw_err doer_start(klaw_self *self, void *state, void *arg) {
    doer_state *s = state;
    CHECK(s->sum == 0 && !s->d && !s->block); /* zeroed */
    diary *d = arg;
    atomic_fetch_add(&d->starts, 1);
    if (atomic_load(&d->start_fails) > 0) {
        atomic_fetch_sub(&d->start_fails, 1);
        return KLAW_LIMIT;
    }
    s->d = d;
    s->block = malloc(8);
    s->incarnation = klaw_self_incarnation(self);
    return KLAW_OK;
}

static inline void doer_stop(klaw_self *self, void *state, klaw_err why) {
    doer_state *s = state;
    (void)self;
    free(s->block);
    atomic_store(&s->d->last_why, why);
    atomic_fetch_add(&s->d->stops, 1);
}

typedef klaw_err (*deed_fn)(klaw_self *self, doer_state *s);

static inline klaw_err doer_handle(klaw_self *self, void *state, void *message, void *reply) {
    doer_state *s = state;
    order *o = message;
    uint64_t n = 0;
    klaw_err e = KLAW_OK;
    atomic_fetch_add(&s->d->handled, 1);
    switch ((enum deed)o->deed) {
    case ADD: n = s->sum += o->n; break;
    case FAIL: return (klaw_err)o->n;
    case REFUSE: return klaw_self_refuse(self, (klaw_err)o->n);
    case DEFER: {
        klaw_promise *p = NULL;
        e = klaw_self_defer(self, &p);
        atomic_store((_Atomic(klaw_promise *) *)o->arg, p);
        return e;
    }
    case WAIT:
        n = o->n;
        e = passes(o->arg);
        break;
    case STOP: klaw_self_stop(self); break;
    case MONITOR: e = klaw_self_monitor(self, o->arg, &n); break;
    case DEMONITOR: n = (uint64_t)klaw_self_demonitor(self, o->n); break;
    case LINK: n = (uint64_t)klaw_self_link(self, o->arg); break;
    case UNLINK: n = (uint64_t)klaw_self_unlink(self, o->arg); break;
    case TRAP: klaw_self_trap(self, o->n != 0); break;
    case AFTER: e = klaw_self_after(self, (int64_t)o->n, 7); break;
    case EVERY: e = klaw_self_every(self, (int64_t)o->n, 7); break;
    case CANCEL: n = (uint64_t)klaw_self_cancel_timer(self, 7); break;
    case TAKE:
        klaw_self_take(self);
        *(order *)o->arg = *o;
        break;
    case SAVE: n = (uint64_t)klaw_self_checkpoint(self); break;
    case CALL:
        e = (*(deed_fn *)o->arg)(self, s);
        if (!e && o->n)
            return e;
        break;
    }
    if (!e)
        answer_make(reply, n);
    return e;
}

static inline klaw_err doer_down(klaw_self *self, void *state, const klaw_down *down) {
    doer_state *s = state;
    (void)self;
    atomic_store(&s->d->last_down_id, down->id);
    atomic_store(&s->d->last_down_reason, down->reason);
    atomic_fetch_add(&s->d->downs, 1);
    return KLAW_OK;
}

static inline klaw_err doer_timer(klaw_self *self, void *state, uint64_t id) {
    doer_state *s = state;
    (void)self;
    atomic_store(&s->d->last_timer, id);
    atomic_fetch_add(&s->d->timers, 1);
    return KLAW_OK;
}

static inline klaw_err doer_snapshot(klaw_self *self, void *state, klaw_blob **out) {
    (void)self;
    return klaw_blob_new(&((doer_state *)state)->sum, sizeof(uint64_t), out);
}

static inline klaw_err doer_restore(klaw_self *self, void *state, const void *bytes, size_t size) {
    doer_state *s = state;
    (void)self;
    if (size != sizeof s->sum)
        return KLAW_CORRUPT;
    memcpy(&s->sum, bytes, size);
    atomic_fetch_add(&s->d->restored, 1);
    return KLAW_OK;
}

static const klaw_behavior doer_behavior = {.name = "doer",
                                            .message = &order_type,
                                            .reply = &answer_type,
                                            .state_size = sizeof(doer_state),
                                            .start = doer_start,
                                            .handle = doer_handle,
                                            .down = doer_down,
                                            .timer = doer_timer,
                                            .stop = doer_stop,
                                            .snapshot = doer_snapshot,
                                            .restore = doer_restore};

static inline void diary_failure(void *user, klaw_actor *a, klaw_err e, uint32_t attempt) {
    (void)a;
    (void)e;
    atomic_store(&((diary *)user)->last_attempt, attempt);
    atomic_fetch_add(&((diary *)user)->failures, 1);
}
static inline void diary_restart(void *user, klaw_actor *a, klaw_err e, uint32_t attempt) {
    (void)a;
    (void)e;
    (void)attempt;
    atomic_fetch_add(&((diary *)user)->restarts, 1);
}
static inline void diary_gave_up(void *user, klaw_actor *a, klaw_err e, uint32_t attempt) {
    (void)a;
    (void)e;
    (void)attempt;
    atomic_fetch_add(&((diary *)user)->gave_up, 1);
}
static inline void diary_bad_save(void *user, klaw_actor *a, klaw_err e, uint32_t attempt) {
    (void)a;
    (void)e;
    atomic_store(&((diary *)user)->last_attempt, attempt);
    atomic_fetch_add(&((diary *)user)->bad_saves, 1);
}
static inline void diary_release(void *arg) {
    atomic_fetch_add(&((diary *)arg)->released, 1);
}

/* A doer that writes into d. */
static inline klaw_actor *doer_of(diary *d, klaw_actor_opts o) {
    klaw_actor *a = NULL;
    o.hook_user = d;
    o.on_failure = diary_failure;
    o.on_restart = diary_restart;
    o.on_max_restarts = diary_gave_up;
    o.on_checkpoint = diary_bad_save;
    o.release = diary_release;
    OK(klaw_actor_spawn(&doer_behavior, d, &o, &a));
    CHECK(a);
    return a;
}
#define DOER(diary, ...) doer_of((diary), (klaw_actor_opts){__VA_ARGS__})

static inline order order_of(enum deed deed, uint64_t n, void *arg) {
    atomic_fetch_add(&orders_live, 1);
    return (order){deed, n, arg, malloc(8)};
}

static inline klaw_err tell_until(klaw_actor *a, enum deed deed, uint64_t n, void *arg,
                                  klaw_deadline d) {
    order o = order_of(deed, n, arg);
    klaw_err e = klaw_actor_send(a, &o, d);
    if (e)
        order_drop(&o); /* failure leaves */
    return e;
}
static inline void tell(klaw_actor *a, enum deed deed, uint64_t n, void *arg) {
    OK(tell_until(a, deed, n, arg, KLAW_FOREVER));
}

static inline klaw_err ask_until(klaw_actor *a, enum deed deed, uint64_t n, void *arg,
                                 uint64_t *out, klaw_deadline d) {
    order o = order_of(deed, n, arg);
    answer r = {0, NULL};
    bool moved;
    klaw_err e = klaw_actor_ask_moved(a, &o, &r, d, &moved);
    if (!moved)
        order_drop(&o);
    if (e) {
        CHECK(r.n == 0 && !r.cell); /* written only on OK */
        return e;
    }
    CHECK(moved);
    if (out)
        *out = r.n;
    answer_drop(&r);
    return KLAW_OK;
}
static inline uint64_t asks(klaw_actor *a, enum deed deed, uint64_t n, void *arg) {
    uint64_t got = 0;
    OK(ask_until(a, deed, n, arg, &got, KLAW_WITHIN(CHECK_PATIENCE)));
    return got;
}

/* A fiber whose error is not the run's. */
typedef struct attempt {
    klaw_err (*fn)(void *);
    void *arg;
    klaw_err result;
    klaw_fiber *f;
} attempt;
static inline klaw_err attempt_main(void *arg) {
    attempt *t = arg;
    t->result = t->fn(t->arg);
    return KLAW_OK;
}
static inline attempt *attempts(klaw_err (*fn)(void *), void *arg) {
    attempt *t = malloc(sizeof *t);
    *t = (attempt){fn, arg, KLAW_OK, NULL};
    t->f = fiber(attempt_main, t);
    return t;
}
static inline klaw_err outcome(attempt *t) {
    OK(result_of(t->f));
    klaw_err e = t->result;
    free(t);
    return e;
}

static inline klaw_actor_stats actor_stats(klaw_actor *a) {
    klaw_actor_stats s;
    OK(klaw_actor_stats_get(a, &s));
    return s;
}

/* Waits for its end. */
static inline klaw_err why_of(klaw_actor *a) {
    klaw_err why = KLAW_OK;
    OK(klaw_actor_join(a, KLAW_WITHIN(CHECK_PATIENCE), &why));
    CHECK(!klaw_actor_alive(a));
    return why;
}
/* Stops it, and gives the reference back. */
static inline void ends(klaw_actor *a, klaw_err why) {
    klaw_actor_stop(a);
    GIVES(why_of(a), why);
    klaw_actor_unref(a);
}
static inline void nothing_lost(void) {
    SAME(atomic_load(&orders_live), 0);
    SAME(atomic_load(&answers_live), 0);
}

#endif
