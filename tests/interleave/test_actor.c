/* SPDX-License-Identifier: Apache-2.0 */
/* test_actor.c - actors: asks against kills, stops, failures and deadlines; monitors; promises;
 * timers. Each message and each answer is counted: made once, dropped once. */
#include "interleave/harness.h"

#include <string.h>

#include "actor/actor.h"

enum deed { ADD, FAIL, DEFER, LINK, MONITOR, DEMONITOR, AFTER, LINGER };

typedef struct order {
    uint64_t deed, n;
} order;
typedef struct reply {
    uint64_t n;
} reply;

static struct {
    klaw_actor *a, *b;
    klaw_fiber *f;
    klaw_promise *promise;
    uint64_t made, dropped, handled[32], answered, answers_dropped;
    uint64_t downs, timers, starts, stops, released;
    uint64_t monitor;
    klaw_err e, reason;
    bool started_late, left, demonitored, given_up;
    klaw_receiver *rx;
} W;

static void order_drop(void *elem) {
    (void)elem;
    W.dropped++;
}
static void reply_drop(void *elem) {
    (void)elem;
    W.answers_dropped++;
}
static const klaw_type order_type = {.name = "order", .size = sizeof(order), .drop = order_drop};
static const klaw_type reply_type = {.name = "reply", .size = sizeof(reply), .drop = reply_drop};

static klaw_err start(klaw_self *self, void *state, void *arg) {
    (void)self;
    (void)arg;
    KLAW_DET_CHECK(*(uint64_t *)state == 0);
    W.starts++;
    pass();
    return KLAW_OK;
}

static klaw_err handle(klaw_self *self, void *state, void *message, void *answer) {
    order *o = message;
    klaw_err e = KLAW_OK;
    W.handled[o->n]++;
    *(uint64_t *)state += 1;
    if (o->n == 31 && W.left)
        W.started_late = true;
    switch ((enum deed)o->deed) {
    case FAIL: return KLAW_CORRUPT;
    case DEFER: return klaw_self_defer(self, &W.promise);
    case LINK:
        e = klaw_self_link(self, W.b);
        e = e == KLAW_STOPPED ? KLAW_OK : e;
        break;
    case MONITOR: CHECK_ERR(klaw_self_monitor(self, W.b, &W.monitor), KLAW_OK); break;
    case DEMONITOR:
        e = klaw_sleep(soon());
        if (!e)
            W.demonitored = klaw_self_demonitor(self, W.monitor) == KLAW_OK;
        break;
    case AFTER:
        e = klaw_self_after(self, KLAW_US(1), klaw_self_incarnation(self));
        if (e != KLAW_STOPPED || !W.given_up)
            CHECK_ERR(e, KLAW_OK);
        break;
    case LINGER: e = klaw_sleep(soon()); break;
    case ADD: break;
    }
    if (!e && answer) {
        ((reply *)answer)->n = o->n + 100;
        W.answered++;
    }
    return e;
}

static klaw_err on_down(klaw_self *self, void *state, const klaw_down *d) {
    (void)self;
    (void)state;
    KLAW_DET_CHECK(d->actor == W.b && d->id == W.monitor);
    KLAW_DET_CHECK(!W.demonitored);
    W.reason = d->reason;
    W.downs++;
    return KLAW_OK;
}

static klaw_err on_timer(klaw_self *self, void *state, uint64_t id) {
    (void)state;
    KLAW_DET_CHECK(id == klaw_self_incarnation(self)); /* none of an earlier one */
    W.timers++;
    return KLAW_OK;
}

static void stop(klaw_self *self, void *state, klaw_err why) {
    (void)self;
    (void)state;
    (void)why;
    W.stops++;
}
static void release(void *arg) {
    (void)arg;
    W.released++;
}

static const klaw_behavior behavior = {.name = "det",
                                       .message = &order_type,
                                       .reply = &reply_type,
                                       .state_size = sizeof(uint64_t),
                                       .start = start,
                                       .handle = handle,
                                       .down = on_down,
                                       .timer = on_timer,
                                       .stop = stop};

static klaw_actor *actor(int64_t capacity, klaw_restart restart) {
    klaw_actor *a;
    klaw_actor_opts o = {.capacity = capacity,
                         .restart = restart,
                         .no_backoff = true,
                         .max_restarts = 100,
                         .release = release};
    CHECK_ERR(klaw_actor_spawn(&behavior, NULL, &o, &a), KLAW_OK);
    return a;
}

static klaw_err tell(klaw_actor *a, enum deed deed, uint64_t n, klaw_deadline d) {
    order o = {deed, n};
    W.made++;
    klaw_err e = klaw_actor_send(a, &o, d);
    if (e)
        order_drop(&o);
    return e;
}

static klaw_err ask(klaw_actor *a, enum deed deed, uint64_t n, klaw_deadline d) {
    order o = {deed, n};
    reply r = {0};
    bool moved;
    W.made++;
    klaw_err e = klaw_actor_ask_moved(a, &o, &r, d, &moved);
    if (!moved)
        order_drop(&o);
    if (e) {
        KLAW_DET_CHECK(r.n == 0);
        return e;
    }
    KLAW_DET_CHECK(moved && r.n == n + 100);
    reply_drop(&r);
    return KLAW_OK;
}

static klaw_err ended(klaw_actor *a) {
    klaw_err why;
    uint64_t released = W.released;
    CHECK_ERR(klaw_actor_join(a, KLAW_FOREVER, &why), KLAW_OK);
    KLAW_DET_CHECK(W.released >= 1 && W.released >= released);
    klaw_actor_unref(a);
    return why;
}

/* After the run: everything was dropped once, each incarnation that started has stopped. */
static void closed(void) {
    KLAW_DET_CHECK(W.made == W.dropped);
    KLAW_DET_CHECK(W.answered == W.answers_dropped);
    KLAW_DET_CHECK(W.starts == W.stops);
    KLAW_DET_CHECK(!W.started_late);
}

static void play(klaw_fn fn) {
    memset(&W, 0, sizeof W);
    run(fn);
    closed();
}

/* --- asks ------------------------------------------------------------------------------------ */

static klaw_err asks_1(void *arg) {
    (void)arg;
    W.e = ask(W.a, ADD, 1, KLAW_FOREVER);
    return KLAW_OK;
}

static klaw_err ask_kill_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_ALWAYS);
    klaw_fiber *f = spawn(asks_1, NULL);
    klaw_err e = tell(W.a, LINGER, 2, soon());
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_FULL);
    pass();
    klaw_actor_kill(W.a);
    CHECK_ERR(join(f), KLAW_OK);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_STOPPED);
    CHECK_ERR(ended(W.a), KLAW_CANCELLED);
    return KLAW_OK;
}
SCENARIO_COST(ask_against_kill, 4) {
    play(ask_kill_main);
}

static void *thread_asks(void *arg) {
    (void)arg;
    W.e = ask(W.a, ADD, 1, KLAW_FOREVER);
    return NULL;
}
static klaw_err ask_thread_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_NEVER);
    vthread t = vthread_start("asks", thread_asks, NULL);
    klaw_err e = ask(W.a, ADD, 2, KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK);
    klaw_actor_stop(W.a);
    vthread_join(t);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_STOPPED);
    CHECK_ERR(ended(W.a), KLAW_OK);
    return KLAW_OK;
}
SCENARIO_COST(a_thread_asks_against_stop, 4) {
    play(ask_thread_main);
}

static klaw_err asks_briefly(void *arg) {
    (void)arg;
    klaw_actor_stats s;
    W.e = ask(W.a, ADD, 31, soon());
    /* Else it may have been taken, and its handler not have come to its first line. */
    CHECK_ERR(klaw_actor_stats_get(W.a, &s), KLAW_OK);
    W.left = W.e && s.mailbox_size > 0;
    return KLAW_OK;
}
static klaw_err ask_deadline_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_NEVER);
    CHECK_ERR(tell(W.a, LINGER, 2, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *f = spawn(asks_briefly, NULL);
    CHECK_ERR(join(f), KLAW_OK);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_TIMEOUT || W.e == KLAW_INVALID);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    /* What was not started when its asker left never was. */
    KLAW_DET_CHECK(!W.left || !W.handled[31]);
    return KLAW_OK;
}
SCENARIO_COST(ask_deadline_against_answer, 4) {
    play(ask_deadline_main);
}

static klaw_err restart_ask_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_ON_FAILURE);
    klaw_fiber *f = spawn(asks_1, NULL);
    CHECK_ERR(ask(W.a, FAIL, 2, KLAW_FOREVER), KLAW_CORRUPT);
    CHECK_ERR(tell(W.a, FAIL, 3, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(W.e, KLAW_OK); /* the mailbox survives */
    CHECK_ERR(ask(W.a, ADD, 4, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.starts == 3);
    return KLAW_OK;
}
SCENARIO_COST(restart_against_ask, 4) {
    play(restart_ask_main);
}

static void *cancels(void *arg) {
    (void)arg;
    klawi_det_gate_wait();
    klaw_fiber_cancel(W.f);
    klawi_det_gate_done();
    return NULL;
}
static klaw_err asks_at_gate(void *arg) {
    (void)arg;
    klawi_det_gate_open_at(gate_k);
    W.e = ask(W.a, ADD, 1, KLAW_FOREVER);
    gate_reached = !klawi_det_gate_open();
    return KLAW_OK;
}
static klaw_err cancel_ask_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_NEVER);
    W.f = spawn(asks_at_gate, NULL);
    vthread t = vthread_start("cancels", cancels, NULL);
    CHECK_ERR(tell(W.a, ADD, 2, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(tell(W.a, ADD, 3, KLAW_FOREVER), KLAW_OK);
    vthread_join(t);
    CHECK_ERR(join(W.f), KLAW_OK);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_CANCELLED);
    if (!gate_reached)
        CHECK_ERR(W.e, KLAW_OK);
    CHECK_ERR(ask(W.a, ADD, 4, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.handled[2] == 1 && W.handled[3] == 1 && W.handled[1] <= 1);
    return KLAW_OK;
}
SCENARIO_AT_EACH_POINT(cancel_ask) {
    play(cancel_ask_main);
}

/* --- promises -------------------------------------------------------------------------------- */

static klaw_err asks_to_defer(void *arg) {
    (void)arg;
    order o = {DEFER, 5};
    reply r = {0};
    bool moved;
    W.made++;
    W.e = klaw_actor_ask_moved(W.a, &o, &r, choose(2) ? KLAW_FOREVER : soon(), &moved);
    if (!moved)
        order_drop(&o);
    if (W.e == KLAW_OK)
        reply_drop(&r);
    KLAW_DET_CHECK(W.e == KLAW_OK ? r.n == 77 : r.n == 0);
    return KLAW_OK;
}

static klaw_err promise_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_ON_FAILURE);
    klaw_fiber *f = spawn(asks_to_defer, NULL);
    klaw_err told = KLAW_CLOSED;
    bool kill = choose(2);
    CHECK_ERR(ask(W.a, ADD, 1, KLAW_FOREVER), KLAW_OK); /* often behind the other */
    if (kill)
        klaw_actor_kill(W.a);
    else
        (void)tell(W.a, FAIL, 2, KLAW_FOREVER);
    klaw_promise *p = W.promise;
    if (p) {
        reply r = {77};
        told = klaw_promise_answer(p, &r);
        W.answered++;
        if (told != KLAW_OK)
            reply_drop(&r);
        W.promise = NULL;
    }
    klaw_actor_stop(W.a); /* what is promised after we looked is broken by it */
    CHECK_ERR(join(f), KLAW_OK);
    if (p)
        KLAW_DET_CHECK((told == KLAW_OK) == (W.e == KLAW_OK));
    (void)ended(W.a);
    klaw_promise_drop(W.promise);
    return KLAW_OK;
}
static klaw_err promise_failing_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_ON_FAILURE);
    klaw_fiber *f = spawn(asks_to_defer, NULL);
    CHECK_ERR(tell(W.a, FAIL, 2, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(join(f), KLAW_OK);
    (void)ended(W.a);
    KLAW_DET_CHECK(W.e != KLAW_OK);
    klaw_promise_drop(W.promise);
    return KLAW_OK;
}
SCENARIO_COST(late_promise, 4) {
    play(promise_main);
}
SCENARIO_COST(an_end_breaks_promises, 4) {
    play(promise_failing_main);
}

/* --- sends ----------------------------------------------------------------------------------- */

static klaw_err sends_3(void *arg) {
    uint64_t first = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 0; i < 3; i++) {
        klaw_err e = tell(W.a, ADD, first + i, KLAW_FOREVER);
        KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_STOPPED);
        W.handled[first + i] += e == KLAW_STOPPED ? 10 : 0;
    }
    return KLAW_OK;
}

static klaw_err stop_send_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_NEVER);
    klaw_fiber *f = spawn(sends_3, (void *)(uintptr_t)1), *g = spawn(sends_3, (void *)(uintptr_t)4);
    pass();
    if (choose(2))
        CHECK_ERR(ask(W.a, ADD, 9, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(ended(W.a), KLAW_OK);
    for (int i = 1; i <= 6; i++) /* accepted and handled, or refused */
        KLAW_DET_CHECK(W.handled[i] == 1 || W.handled[i] == 10);
    return KLAW_OK;
}
SCENARIO_COST(stop_against_send, 4) {
    play(stop_send_main);
}

static klaw_err sends_1(void *arg) {
    (void)arg;
    W.e = tell(W.a, ADD, 1, KLAW_FOREVER);
    return KLAW_OK;
}
static klaw_err full_main(void *arg) {
    (void)arg;
    W.a = actor(1, KLAW_RESTART_NEVER);
    W.f = spawn(sends_1, NULL);
    klaw_fiber *g = spawn(asks_1, NULL);
    CHECK_ERR(tell(W.a, ADD, 2, KLAW_FOREVER), KLAW_OK);
    klaw_err e = tell(W.a, ADD, 3, soon());
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_FULL);
    klaw_fiber_cancel(W.f);
    klaw_fiber_cancel(g);
    CHECK_ERR(join(W.f), KLAW_OK);
    CHECK_ERR(join(g), KLAW_OK);
    CHECK_ERR(ask(W.a, ADD, 4, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.handled[3] == (e == KLAW_OK));
    return KLAW_OK;
}
SCENARIO_COST(a_full_mailbox_against_cancellation, 4) {
    play(full_main);
}

/* --- monitors and links ---------------------------------------------------------------------- */

static klaw_err kills_b(void *arg) {
    (void)arg;
    klaw_actor_kill(W.b);
    return KLAW_OK;
}

static klaw_err down_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_NEVER);
    W.b = actor(0, KLAW_RESTART_NEVER);
    klaw_fiber *f = spawn(kills_b, NULL);
    CHECK_ERR(ask(W.a, MONITOR, 1, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(klaw_actor_watch(W.b, &W.rx), KLAW_OK);
    klaw_down d;
    CHECK_ERR(klaw_recv(W.rx, &d, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(d.reason, KLAW_CANCELLED);
    klaw_down_type.drop(&d);
    klaw_receiver_unref(W.rx);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(klaw_actor_join(W.b, KLAW_FOREVER, NULL), KLAW_OK);
    klaw_actor_stop(W.a); /* what was told before comes before the end */
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.downs == 1);
    CHECK_ERR(W.reason, KLAW_CANCELLED);
    klaw_actor_unref(W.b);
    return KLAW_OK;
}
SCENARIO_COST(down_exactly_once, 4) {
    play(down_main);
}

/* Whoever is first: it is delivered once, or ended and never delivered. */
static klaw_err demonitor_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_NEVER);
    W.b = actor(0, KLAW_RESTART_NEVER);
    CHECK_ERR(ask(W.a, MONITOR, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *f = spawn(kills_b, NULL);
    CHECK_ERR(ask(W.a, DEMONITOR, 2, KLAW_FOREVER), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(klaw_actor_join(W.b, KLAW_FOREVER, NULL), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.downs == !W.demonitored);
    klaw_actor_unref(W.b);
    return KLAW_OK;
}
SCENARIO_COST(a_monitor_is_ended_while_its_actor_ends, 4) {
    play(demonitor_main);
}

static klaw_err watch_close_main(void *arg) {
    (void)arg;
    W.b = actor(0, KLAW_RESTART_NEVER);
    klaw_fiber *f = spawn(kills_b, NULL);
    CHECK_ERR(klaw_actor_watch(W.b, &W.rx), KLAW_OK);
    klaw_receiver_unref(W.rx);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(ended(W.b), KLAW_CANCELLED);
    return KLAW_OK;
}
SCENARIO_COST(a_watch_is_given_up_while_its_actor_ends, 4) {
    play(watch_close_main);
}

static klaw_err fails_a(void *arg) {
    (void)arg;
    (void)tell(W.a, FAIL, 8, KLAW_FOREVER);
    return KLAW_OK;
}
static klaw_err links_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_NEVER);
    W.b = actor(0, KLAW_RESTART_NEVER);
    CHECK_ERR(ask(W.a, LINK, 1, KLAW_FOREVER), KLAW_OK);
    klaw_fiber *f = spawn(fails_a, NULL);
    (void)tell(W.b, FAIL, 2, KLAW_FOREVER);
    CHECK_ERR(join(f), KLAW_OK);
    CHECK_ERR(ended(W.a), KLAW_CORRUPT);
    CHECK_ERR(ended(W.b), KLAW_CORRUPT);
    return KLAW_OK;
}
SCENARIO_COST(both_ends_of_a_link_fail, 4) {
    play(links_main);
}

static klaw_err stops_b(void *arg) {
    (void)arg;
    klaw_actor_stop(W.b);
    return KLAW_OK;
}
/* A link that is made while the other one ends leaves nothing of it behind. */
static klaw_err link_end_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_NEVER);
    W.b = actor(0, KLAW_RESTART_NEVER);
    klaw_fiber *f = spawn(choose(2) ? stops_b : kills_b, NULL);
    klaw_err e = ask(W.a, LINK, 1, KLAW_FOREVER);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED || e == KLAW_STOPPED);
    CHECK_ERR(join(f), KLAW_OK);
    (void)ended(W.b);
    klaw_actor_stop(W.a);
    e = ended(W.a);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
    return KLAW_OK;
}
SCENARIO_COST(a_link_is_made_while_the_other_one_ends, 4) {
    play(link_end_main);
}

/* --- timers ---------------------------------------------------------------------------------- */

static klaw_err timers_main(void *arg) {
    (void)arg;
    W.a = actor(0, KLAW_RESTART_ON_FAILURE);
    for (uint64_t i = 1; i <= 2; i++) {
        CHECK_ERR(ask(W.a, AFTER, i, KLAW_FOREVER), KLAW_OK);
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
        CHECK_ERR(ask(W.a, FAIL, 3, KLAW_FOREVER), KLAW_CORRUPT);
        CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    }
    CHECK_ERR(ask(W.a, ADD, 4, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(ended(W.a), KLAW_OK);
    KLAW_DET_CHECK(W.timers <= 2);
    return KLAW_OK;
}
SCENARIO_COST(timers_against_restart, 4) {
    play(timers_main);
}

/* --- joining --------------------------------------------------------------------------------- */

static klaw_err joins(void *arg) {
    klaw_err why;
    (void)arg;
    CHECK_ERR(klaw_actor_join(W.b, KLAW_FOREVER, &why), KLAW_OK);
    CHECK_ERR(why, KLAW_OK);
    klaw_down d;
    CHECK_ERR(klaw_recv(W.rx, &d, KLAW_NOWAIT), KLAW_OK); /* told before */
    klaw_down_type.drop(&d);
    KLAW_DET_CHECK(W.released == 1);
    return KLAW_OK;
}
static klaw_err join_main(void *arg) {
    (void)arg;
    W.b = actor(0, KLAW_RESTART_NEVER);
    CHECK_ERR(klaw_actor_watch(W.b, &W.rx), KLAW_OK);
    klaw_fiber *f = spawn(joins, NULL);
    klaw_actor_stop(W.b);
    klaw_err e = klaw_actor_join(W.b, soon(), NULL);
    KLAW_DET_CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_EMPTY);
    CHECK_ERR(join(f), KLAW_OK);
    klaw_receiver_unref(W.rx);
    klaw_actor_unref(W.b);
    return KLAW_OK;
}
SCENARIO_COST(join_against_end, 4) {
    play(join_main);
}

/* --- outside control ------------------------------------------------------------------------- */

static void on_event(void *user, klaw_actor *a, uint64_t incarnation, enum klawi_actor_event ev,
                     klaw_err error) {
    (void)user;
    (void)a;
    (void)incarnation;
    (void)error;
    if (ev == KLAWI_ACTOR_EXITED)
        klaw_sender_close(user);
}

/* Given up at any moment of an ask; the asker gets one answer, the next incarnation serves. */
static klaw_err abandon_main(void *arg) {
    (void)arg;
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t v;
    CHECK_ERR(klaw_channel(&klaw_u64, NULL, &tx, &rx), KLAW_OK);
    static klawi_actor_control c; /* one that was given up tells when it is gone, late */
    c = (klawi_actor_control){on_event, tx};
    CHECK_ERR(klawi_actor_new(&behavior, NULL, NULL, &c, &W.a), KLAW_OK);
    CHECK_ERR(klawi_actor_start(W.a, NULL), KLAW_OK);
    klaw_fiber *f = spawn(asks_1, NULL);
    for (uint32_t n = choose(3); n > 0; n--)
        pass();
    (void)klawi_actor_abandon(W.a, KLAW_TIMEOUT);
    CHECK_ERR(klawi_actor_start(W.a, NULL), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_TIMEOUT);
    CHECK_ERR(ask(W.a, ADD, 2, KLAW_FOREVER), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(klaw_recv(rx, &v, KLAW_FOREVER), KLAW_CLOSED);
    klawi_actor_finish(W.a, KLAW_OK);
    klaw_actor_unref(W.a);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    return KLAW_OK;
}
SCENARIO_COST(an_incarnation_is_given_up, 4) {
    play(abandon_main);
}

/* Given up while it sets a timer: either it is never armed, or whoever armed it takes it back. */
static klaw_err times_1(void *arg) {
    (void)arg;
    W.e = ask(W.a, AFTER, 1, KLAW_FOREVER);
    return KLAW_OK;
}
static klaw_err abandon_timing_main(void *arg) {
    (void)arg;
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t v;
    CHECK_ERR(klaw_channel(&klaw_u64, NULL, &tx, &rx), KLAW_OK);
    static klawi_actor_control c;
    c = (klawi_actor_control){on_event, tx};
    CHECK_ERR(klawi_actor_new(&behavior, NULL, NULL, &c, &W.a), KLAW_OK);
    CHECK_ERR(klawi_actor_start(W.a, NULL), KLAW_OK);
    klaw_fiber *f = spawn(times_1, NULL);
    for (uint32_t n = choose(6); n > 0; n--)
        pass();
    W.given_up = true;
    (void)klawi_actor_abandon(W.a, KLAW_TIMEOUT);
    CHECK_ERR(klawi_actor_start(W.a, NULL), KLAW_OK);
    CHECK_ERR(join(f), KLAW_OK);
    /* STOPPED: from its handler, which has got that from klaw_self_after and was faster. */
    KLAW_DET_CHECK(W.e == KLAW_OK || W.e == KLAW_TIMEOUT || W.e == KLAW_STOPPED);
    CHECK_ERR(klaw_sleep(soon()), KLAW_OK);
    klaw_actor_stop(W.a);
    CHECK_ERR(klaw_recv(rx, &v, KLAW_FOREVER), KLAW_CLOSED);
    klawi_actor_finish(W.a, KLAW_OK);
    klaw_actor_unref(W.a);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    return KLAW_OK;
}
SCENARIO_COST(an_incarnation_is_given_up_while_it_sets_a_timer, 4) {
    play(abandon_timing_main);
}

INTERLEAVE_MAIN
