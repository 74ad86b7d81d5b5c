/* SPDX-License-Identifier: Apache-2.0 */
/* test_waiter.c - operations of a foreign event loop: a grant is a permit, never the element;
 * abandoned at any instant it goes to the next who waits.
 *
 * The loops here are plain threads that poll the inbox's descriptor. Tried with these bugs seeded
 * into op.c and mpmc.c: a cancel that keeps the permit, a pump that leaves the descriptor
 * unreadable with work left, a hand-over that moves the ring under a reserved element, a
 * rendezvous whose cancelled foreign sender leaves the next sender and the receiver apart. */
#include <poll.h>

#include "support/chans.h"
#include "support/random.h"

/* --- a small loop --- */
static klaw_inbox *inbox(void) {
    klaw_inbox *in = NULL;
    OK(klaw_inbox_open(&in));
    CHECK(klaw_inbox_fd(in) >= 0);
    return in;
}
static bool readable(klaw_inbox *in, int ms) {
    struct pollfd p = {.fd = klaw_inbox_fd(in), .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}
/* Sleeps in poll until something is there, and pumps. */
static size_t turn(klaw_inbox *in) {
    return readable(in, 20) ? klaw_inbox_pump(in, 0) : 0;
}
#define PUMP_UNTIL(in, cond)                                     \
    for (int64_t until_deadline = 0; !(cond);                    \
         until_pass(&until_deadline, __FILE__, __LINE__, #cond)) \
    (void)turn(in)

typedef struct watched {
    klaw_op op;
    int calls;
    void (*then)(struct watched *w); /* or NULL */
    struct watched *other;
} watched;

static void told(klaw_op *o, void *user) {
    watched *w = user;
    CHECK(o == &w->op);
    SAME(klaw_op_state(o), 2);
    w->calls++;
    if (w->then)
        w->then(w);
}
static void prepare(watched *w, klaw_inbox *in) {
    *w = (watched){.calls = 0};
    klaw_op_init(&w->op, in, told, w);
    SAME(klaw_op_state(&w->op), 0);
}
static void recv_waits(watched *w, klaw_receiver *rx) {
    bool waiting = false;
    OK(klaw_op_recv(&w->op, rx, &waiting));
    CHECK(waiting);
    SAME(klaw_op_state(&w->op), 1);
}
static void send_waits(watched *w, klaw_sender *tx) {
    bool waiting = false;
    OK(klaw_op_send(&w->op, tx, &waiting));
    CHECK(waiting);
    SAME(klaw_op_state(&w->op), 1);
}
static void recv_at_once(watched *w, klaw_receiver *rx) {
    bool waiting = true;
    OK(klaw_op_recv(&w->op, rx, &waiting));
    CHECK(!waiting);
    SAME(klaw_op_state(&w->op), 2);
}
static void send_at_once(watched *w, klaw_sender *tx) {
    bool waiting = true;
    OK(klaw_op_send(&w->op, tx, &waiting));
    CHECK(!waiting);
    SAME(klaw_op_state(&w->op), 2);
}
static uint64_t finish_recv(watched *w) {
    uint64_t v = 0;
    OK(klaw_op_finish(&w->op, &v));
    SAME(klaw_op_state(&w->op), 0);
    return v;
}
static klaw_err finish_send(watched *w, uint64_t v) {
    klaw_err e = klaw_op_finish(&w->op, &v);
    SAME(klaw_op_state(&w->op), 0);
    return e;
}

/* --- one operation --- */
SPEC_PLAIN(waiter_refuses_bad_arguments) {
    klaw_inbox *in = inbox();
    klaw_channel_opts o = {.capacity = 2, .one_to_one = true};
    pair p = chan(2), ring;
    uint64_t v = 1;
    bool waiting = false;
    watched w;
    prepare(&w, in);
    OK(klaw_channel(&klaw_u64, &o, &ring.tx, &ring.rx));
    GIVES(klaw_inbox_open(NULL), KLAW_INVALID);
    GIVES(klaw_op_recv(&w.op, NULL, &waiting), KLAW_INVALID);
    GIVES(klaw_op_send(&w.op, NULL, &waiting), KLAW_INVALID);
    GIVES(klaw_op_recv(&w.op, ring.rx, &waiting), KLAW_INVALID);
    GIVES(klaw_op_send(&w.op, ring.tx, &waiting), KLAW_INVALID);
    GIVES(klaw_op_finish(&w.op, &v), KLAW_INVALID); /* idle */
    recv_waits(&w, p.rx);
    GIVES(klaw_op_recv(&w.op, p.rx, &waiting), KLAW_INVALID); /* not idle */
    GIVES(klaw_op_finish(&w.op, &v), KLAW_INVALID);
    klaw_op_cancel(&w.op);
    klaw_op_cancel(&w.op);
    SAME(klaw_op_state(&w.op), 0);
    SAME(klaw_inbox_pump(in, 0), 0);
    klaw_inbox_unref(NULL);
    klaw_inbox_unref(in);
    pair_free(p);
    pair_free(ring);
}

SPEC_PLAIN(waiter_operation_that_is_ready_is_granted_at_once) {
    klaw_inbox *in = inbox();
    pair p = chan(1);
    watched w;
    prepare(&w, in);
    send_at_once(&w, p.tx);
    GIVES(put(p.tx, 1, KLAW_NOWAIT), KLAW_FULL); /* the slot is taken */
    OK(finish_send(&w, 5));
    recv_at_once(&w, p.rx);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY); /* the element is taken */
    SAME(finish_recv(&w), 5);
    SAME(w.calls, 0);
    CHECK(!readable(in, 0));
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(waiter_operation_that_waits_is_called_back_by_the_pump) {
    klaw_inbox *in = inbox();
    pair p = chan(1);
    watched w;
    prepare(&w, in);
    recv_waits(&w, p.rx);
    SAME(WAITING_RECEIVERS(p), 1);
    CHECK(!readable(in, 0));
    OK(ended(start(op_send, &(op){.tx = p.tx, .v = {6}, .deadline = KLAW_NOWAIT})));
    CHECK(readable(in, 1000));
    SAME(w.calls, 0);
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(w.calls, 1);
    CHECK(!readable(in, 0));
    SAME(finish_recv(&w), 6);
    OK(put(p.tx, 7, KLAW_NOWAIT));
    send_waits(&w, p.tx);
    SAME(next_of(p.rx), 7);
    PUMP_UNTIL(in, w.calls == 2);
    OK(finish_send(&w, 8));
    SAME(next_of(p.rx), 8);
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(waiter_pump_stops_at_its_limit_and_stays_readable) {
    klaw_inbox *in = inbox();
    pair p = chan(8);
    watched w[5];
    int calls = 0;
    for (int i = 0; i < 5; i++) {
        prepare(&w[i], in);
        recv_waits(&w[i], p.rx);
    }
    for (uint64_t i = 0; i < 5; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    SAME(klaw_inbox_pump(in, 2), 2);
    CHECK(readable(in, 0));
    SAME(klaw_inbox_pump(in, 2), 2);
    CHECK(readable(in, 0));
    SAME(klaw_inbox_pump(in, 2), 1);
    CHECK(!readable(in, 0));
    for (uint64_t i = 0; i < 5; i++) {
        calls += w[i].calls;
        SAME(finish_recv(&w[i]), i);
    }
    SAME(calls, 5);
    klaw_inbox_unref(in);
    pair_free(p);
}

/* --- closing --- */
SPEC_PLAIN(waiter_close_reaches_waiting_and_granted_operations) {
    klaw_inbox *in = inbox();
    uint64_t v = 9;
    for (int how = 0; how < 4; how++) {
        pair p = chan(1);
        watched w;
        prepare(&w, in);
        if (how < 2) {
            recv_waits(&w, p.rx);
        } else {
            OK(put(p.tx, 1, KLAW_NOWAIT));
            send_waits(&w, p.tx);
        }
        if (how == 0 || how == 2)
            klaw_sender_close(p.tx);
        else
            klaw_receiver_close(p.rx);
        PUMP_UNTIL(in, w.calls == 1);
        GIVES(klaw_op_finish(&w.op, &v), KLAW_CLOSED);
        SAME(v, 9);
        SAME(klaw_op_state(&w.op), 0);
        bool waiting = true;
        if (how < 2)
            GIVES(klaw_op_recv(&w.op, p.rx, &waiting), KLAW_CLOSED);
        else
            GIVES(klaw_op_send(&w.op, p.tx, &waiting), KLAW_CLOSED);
        SAME(klaw_op_state(&w.op), 0);
        pair_free(p);
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_granted_receive_of_a_closed_channel_drops_the_element_once) {
    klaw_inbox *in = inbox();
    pair p = chan_of(&counted_type, 4);
    watched w;
    counted a = counted_make(), b = counted_make(), got = {77};
    prepare(&w, in);
    recv_waits(&w, p.rx);
    OK(klaw_send(p.tx, &a, KLAW_NOWAIT));
    OK(klaw_send(p.tx, &b, KLAW_NOWAIT));
    klaw_receiver_close(p.rx);
    CHECK(counted_dropped(a) && counted_dropped(b));
    PUMP_UNTIL(in, w.calls == 1);
    GIVES(klaw_op_finish(&w.op, &got), KLAW_CLOSED);
    SAME(got.id, 77);
    pair_free(p);
    p = chan_of(&counted_type, 4);
    counted c = counted_make();
    send_at_once(&w, p.tx);
    klaw_receiver_close(p.rx);
    GIVES(klaw_op_finish(&w.op, &c), KLAW_CLOSED);
    CHECK(!counted_dropped(c));
    counted_drop(&c);
    pair_free(p);
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_granted_receive_after_the_last_sender_gets_its_element) {
    klaw_inbox *in = inbox();
    pair p = chan(4);
    watched w;
    prepare(&w, in);
    recv_waits(&w, p.rx);
    OK(put(p.tx, 3, KLAW_NOWAIT));
    klaw_sender_close(p.tx);
    PUMP_UNTIL(in, w.calls == 1);
    SAME(finish_recv(&w), 3);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_CLOSED);
    klaw_inbox_unref(in);
    pair_free(p);
}

/* --- cancel: at each state the grant goes on --- */
enum stage { WAITS, READY, GRANTED, STAGES };

static const int64_t kinds[] = {KLAW_RENDEZVOUS, 1, 5, KLAW_UNBOUNDED};

SPEC_PLAIN(waiter_cancelled_receive_leaves_its_element_to_the_next) {
    klaw_inbox *in = inbox();
    for (size_t k = 0; k < 4; k++) {
        for (int stage = WAITS; stage < STAGES; stage++) {
            for (int next = 0; next < 3; next++) {
                pair p = chan(kinds[k]);
                watched w, w2;
                op *r = NULL;
                prepare(&w, in);
                prepare(&w2, in);
                recv_waits(&w, p.rx);
                if (next == 1)
                    r = receives(p.rx, KLAW_FOREVER);
                else if (next == 2)
                    recv_waits(&w2, p.rx);
                UNTIL(WAITING_RECEIVERS(p) == (next ? 2u : 1u));
                if (stage != WAITS)
                    OK(put(p.tx, 4, KLAW_NOWAIT));
                if (stage == GRANTED)
                    PUMP_UNTIL(in, w.calls == 1);
                klaw_op_cancel(&w.op);
                SAME(klaw_op_state(&w.op), 0);
                if (stage == WAITS && (next || kinds[k] != KLAW_RENDEZVOUS))
                    OK(put(p.tx, 4, KLAW_NOWAIT));
                if (next == 1) {
                    SAME(op_value(r), 4);
                } else if (next == 2) {
                    PUMP_UNTIL(in, w2.calls == 1);
                    SAME(finish_recv(&w2), 4);
                } else if (stage != WAITS || kinds[k] != KLAW_RENDEZVOUS) {
                    SAME(next_of(p.rx), 4);
                }
                SAME(w.calls, stage == GRANTED);
                SAME(klaw_inbox_pump(in, 0), 0);
                GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
                pair_free(p);
            }
        }
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_cancelled_send_leaves_its_slot_to_the_next) {
    klaw_inbox *in = inbox();
    for (int stage = WAITS; stage < STAGES; stage++) {
        for (int next = 0; next < 2; next++) {
            pair p = chan(1);
            watched w, w2;
            op *s = NULL;
            prepare(&w, in);
            prepare(&w2, in);
            OK(put(p.tx, 1, KLAW_NOWAIT));
            send_waits(&w, p.tx);
            if (next == 0)
                s = sends(p.tx, 2, KLAW_FOREVER);
            else
                send_waits(&w2, p.tx);
            UNTIL(WAITING_SENDERS(p) == 2);
            if (stage != WAITS)
                SAME(next_of(p.rx), 1);
            if (stage == GRANTED)
                PUMP_UNTIL(in, w.calls == 1);
            klaw_op_cancel(&w.op);
            if (stage == WAITS)
                SAME(next_of(p.rx), 1);
            if (next == 0) {
                OK(op_end(s));
            } else {
                PUMP_UNTIL(in, w2.calls == 1);
                OK(finish_send(&w2, 2));
            }
            SAME(next_of(p.rx), 2);
            SAME(stats_of(p).permits, 0);
            SAME(klaw_inbox_pump(in, 0), 0);
            pair_free(p);
        }
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_cancelled_rendezvous_send_leaves_its_receiver_to_the_next) {
    klaw_inbox *in = inbox();
    for (int stage = READY; stage < STAGES; stage++) {
        for (int next = 0; next < 2; next++) {
            pair p = chan(KLAW_RENDEZVOUS);
            watched w, w2;
            op *s = NULL;
            prepare(&w, in);
            prepare(&w2, in);
            send_waits(&w, p.tx);
            op *r = receives(p.rx, KLAW_FOREVER); /* grants w */
            UNTIL(WAITING_RECEIVERS(p) == 1 && WAITING_SENDERS(p) == 0);
            if (stage == GRANTED)
                PUMP_UNTIL(in, w.calls == 1);
            if (next == 0)
                s = sends(p.tx, 3, KLAW_FOREVER);
            else
                send_at_once(&w2, p.tx); /* somebody is there for it too */
            klaw_op_cancel(&w.op);
            if (next == 1)
                OK(finish_send(&w2, 3));
            else
                OK(op_end(s));
            SAME(op_value(r), 3);
            pair_free(p);
        }
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_cancelled_rendezvous_send_does_not_keep_those_behind_it_apart) {
    klaw_inbox *in = inbox();
    for (int how = 0; how < 4; how++) {
        bool foreign_sender = how % 2, foreign_receiver = how / 2;
        pair p = chan(KLAW_RENDEZVOUS);
        watched w, w2, x;
        op *s = NULL, *r = NULL;
        prepare(&w, in);
        prepare(&w2, in);
        prepare(&x, in);
        send_waits(&w, p.tx);
        if (foreign_sender)
            send_waits(&w2, p.tx);
        else
            s = sends(p.tx, 3, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) == 2);
        if (foreign_receiver)
            recv_waits(&x, p.rx);
        else
            r = receives(p.rx, KLAW_FOREVER);
        UNTIL(WAITING_SENDERS(p) < 2); /* one of them was granted */
        klaw_op_cancel(&w.op);
        if (foreign_sender) {
            PUMP_UNTIL(in, w2.calls == 1);
            OK(finish_send(&w2, 3));
        } else {
            OK(op_end(s));
        }
        PUMP_UNTIL(in, !foreign_receiver || x.calls == 1);
        SAME(foreign_receiver ? finish_recv(&x) : op_value(r), 3);
        pair_free(p);
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_rendezvous_receiver_that_left_makes_the_send_answer_full) {
    klaw_inbox *in = inbox();
    pair p = chan(KLAW_RENDEZVOUS);
    watched w;
    prepare(&w, in);
    send_waits(&w, p.tx);
    GIVES(op_end(receives(p.rx, KLAW_WITHIN(KLAW_MS(5)))), KLAW_TIMEOUT);
    PUMP_UNTIL(in, w.calls == 1);
    GIVES(finish_send(&w, 1), KLAW_FULL);
    send_waits(&w, p.tx); /* again */
    op *r = receives(p.rx, KLAW_FOREVER);
    PUMP_UNTIL(in, w.calls == 2);
    OK(finish_send(&w, 2));
    SAME(op_value(r), 2);
    klaw_inbox_unref(in);
    pair_free(p);
}

SPEC_PLAIN(waiter_operations_of_one_loop_meet_each_other) {
    klaw_inbox *in = inbox();
    for (size_t k = 0; k < 4; k++) {
        for (int first = 0; first < 2; first++) {
            pair p = chan(kinds[k]);
            watched s, r;
            bool waiting = false;
            prepare(&s, in);
            prepare(&r, in);
            if (first)
                OK(klaw_op_send(&s.op, p.tx, &waiting));
            recv_waits(&r, p.rx);
            if (!first)
                OK(klaw_op_send(&s.op, p.tx, &waiting));
            PUMP_UNTIL(in, klaw_op_state(&s.op) == 2);
            OK(finish_send(&s, 30 + k));
            PUMP_UNTIL(in, klaw_op_state(&r.op) == 2);
            SAME(finish_recv(&r), 30 + k);
            pair_free(p);
        }
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_reserved_element_stays_while_others_pass_it) {
    klaw_inbox *in = inbox();
    for (size_t k = 0; k < 4; k++) {
        pair p = chan(kinds[k]);
        watched w;
        prepare(&w, in);
        recv_waits(&w, p.rx);
        OK(put(p.tx, 4, KLAW_NOWAIT)); /* reserved for w */
        op *r = receives(p.rx, KLAW_FOREVER), *r2 = receives(p.rx, KLAW_FOREVER);
        UNTIL(WAITING_RECEIVERS(p) == 2);
        OK(put(p.tx, 5, KLAW_NOWAIT));
        UNTIL(WAITING_RECEIVERS(p) == 1);
        op *s = sends(p.tx, 6, KLAW_FOREVER);
        OK(op_end(s));
        SAME(op_value(r) + op_value(r2), 11);
        PUMP_UNTIL(in, w.calls == 1);
        SAME(finish_recv(&w), 4);
        SAME(stats_of(p).total_sent, 3);
        SAME(stats_of(p).total_received, 3);
        pair_free(p);
    }
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_reserved_elements_count_as_buffered) {
    klaw_inbox *in = inbox();
    pair p = chan(2);
    watched w[3];
    for (int i = 0; i < 3; i++) {
        prepare(&w[i], in);
        recv_waits(&w[i], p.rx);
    }
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT));
    GIVES(put(p.tx, 3, KLAW_NOWAIT), KLAW_FULL); /* although w[2] waits */
    SAME(stats_of(p).queue_size, 2);
    op *s = sends(p.tx, 3, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    PUMP_UNTIL(in, w[0].calls && w[1].calls);
    SAME(finish_recv(&w[0]), 1);
    OK(op_end(s));
    PUMP_UNTIL(in, w[2].calls == 1);
    SAME(finish_recv(&w[1]), 2);
    SAME(finish_recv(&w[2]), 3);
    klaw_inbox_unref(in);
    pair_free(p);
}

/* --- callbacks --- */
static void cancel_other(watched *w) {
    klaw_op_cancel(&w->other->op);
}

SPEC_PLAIN(waiter_callback_may_cancel_one_that_was_not_called_back_yet) {
    klaw_inbox *in = inbox();
    pair p = chan(4);
    watched a, b;
    prepare(&a, in);
    prepare(&b, in);
    a.then = b.then = cancel_other;
    a.other = &b;
    b.other = &a;
    recv_waits(&a, p.rx);
    recv_waits(&b, p.rx);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    OK(put(p.tx, 2, KLAW_NOWAIT));
    SAME(klaw_inbox_pump(in, 0), 1);
    SAME(a.calls + b.calls, 1);
    SAME(finish_recv(a.calls ? &a : &b), 1);
    SAME(next_of(p.rx), 2); /* given back */
    SAME(klaw_inbox_pump(in, 0), 0);
    klaw_inbox_unref(in);
    pair_free(p);
}

static pair again_on;
static uint64_t again_sum;
static void finish_and_start_again(watched *w) {
    bool waiting = false;
    again_sum += finish_recv(w);
    while (klaw_op_recv(&w->op, again_on.rx, &waiting) == KLAW_OK && !waiting)
        again_sum += finish_recv(w);
}

SPEC_PLAIN(waiter_callback_may_finish_and_start_again) {
    klaw_inbox *in = inbox();
    watched w;
    again_on = chan(4);
    again_sum = 0;
    prepare(&w, in);
    w.then = finish_and_start_again;
    recv_waits(&w, again_on.rx);
    for (uint64_t i = 1; i <= 100; i++) {
        OK(put(again_on.tx, i, KLAW_NOWAIT));
        PUMP_UNTIL(in, stats_of(again_on).total_received == i);
    }
    SAME(again_sum, 5050);
    klaw_op_cancel(&w.op);
    klaw_inbox_unref(in);
    pair_free(again_on);
}

/* --- kinds that notify --- */
SPEC_PLAIN(waiter_hint_that_came_to_nothing_answers_empty) {
    klaw_inbox *in = inbox();
    uint64_t zero = 0, v = 5;
    pair p;
    watched w, w2;
    OK(klaw_watch(&klaw_u64, &zero, &p.tx, &p.rx));
    prepare(&w, in);
    prepare(&w2, in);
    recv_waits(&w, p.rx);
    recv_waits(&w2, p.rx);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    PUMP_UNTIL(in, w.calls && w2.calls);
    SAME(finish_recv(&w), 1);
    GIVES(klaw_op_finish(&w2.op, &v), KLAW_EMPTY); /* seen by the other */
    SAME(v, 5);
    SAME(klaw_op_state(&w2.op), 0);
    pair_free(p);
    klaw_inbox_unref(in);
}

SPEC_PLAIN(waiter_works_on_oneshot_and_broadcast) {
    klaw_inbox *in = inbox();
    klaw_broadcast_opts o = {.capacity = 1, .lag = KLAW_LAG_WAIT};
    uint64_t v = 0;
    pair p;
    watched r, s;
    prepare(&r, in);
    prepare(&s, in);
    OK(klaw_oneshot(&klaw_u64, &p.tx, &p.rx));
    recv_waits(&r, p.rx);
    send_at_once(&s, p.tx);
    OK(finish_send(&s, 4));
    PUMP_UNTIL(in, r.calls == 1);
    SAME(finish_recv(&r), 4);
    pair_free(p);
    OK(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx));
    send_at_once(&s, p.tx);
    OK(finish_send(&s, 1));
    send_waits(&s, p.tx);
    recv_at_once(&r, p.rx);
    SAME(finish_recv(&r), 1);
    PUMP_UNTIL(in, s.calls == 1);
    OK(finish_send(&s, 2));
    SAME(next_of(p.rx), 2);
    pair_free(p);
    o.lag = KLAW_LAG_DROP_OLDEST;
    OK(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx));
    for (uint64_t i = 0; i < 3; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    recv_at_once(&r, p.rx);
    GIVES(klaw_op_finish(&r.op, &v), KLAW_LAGGED);
    SAME(klaw_receiver_missed(p.rx), 2);
    recv_at_once(&r, p.rx);
    SAME(finish_recv(&r), 2);
    pair_free(p);
    klaw_inbox_unref(in);
}

/* --- thousands --- */
typedef struct relay {
    klaw_receiver *rx;
    klaw_sender *tx;
    uint64_t seed;
    _Atomic uint64_t moved, cancelled;
} relay;
typedef struct line {
    watched w; /* first */
    uint64_t v;
    bool holds; /* v is to be sent */
} line;

/* Starts what is next for this line and goes as far as it can without waiting. False: both ends
 * are over. */
static bool line_go(line *l, relay *r) {
    for (;;) {
        bool waiting = false;
        klaw_err e = l->holds ? klaw_op_send(&l->w.op, r->tx, &waiting)
                              : klaw_op_recv(&l->w.op, r->rx, &waiting);
        if (e == KLAW_CLOSED)
            return false;
        OK(e);
        if (waiting)
            return true;
        e = klaw_op_finish(&l->w.op, &l->v);
        if (e == KLAW_OK) {
            l->holds = !l->holds;
            atomic_fetch_add(&r->moved, !l->holds);
        } else if (e != KLAW_EMPTY && e != KLAW_FULL) {
            GIVES(e, KLAW_CLOSED);
            return false;
        }
    }
}

/* One loop: 8 lines, each receives and sends on; now and then one is abandoned and starts again. */
static klaw_err relay_loop(void *arg) {
    relay *r = arg;
    klaw_inbox *in = inbox();
    line l[8] = {0};
    bool on[8];
    int live = 8;
    rng g = rng_part(r->seed, 1);
    for (int i = 0; i < 8; i++) {
        prepare(&l[i].w, in);
        on[i] = line_go(&l[i], r);
        live -= !on[i];
    }
    while (live > 0) {
        (void)turn(in);
        for (int i = 0; i < 8; i++) {
            if (!on[i])
                continue;
            if (klaw_op_state(&l[i].w.op) == 2 && !rng_one_in(&g, 10)) {
                klaw_err e = klaw_op_finish(&l[i].w.op, &l[i].v);
                if (e == KLAW_OK) {
                    l[i].holds = !l[i].holds;
                    atomic_fetch_add(&r->moved, !l[i].holds);
                }
            } else if (klaw_op_state(&l[i].w.op) == 2 || rng_one_in(&g, 20)) {
                klaw_op_cancel(&l[i].w.op);
                atomic_fetch_add(&r->cancelled, 1);
            } else {
                continue;
            }
            on[i] = line_go(&l[i], r);
            live -= !on[i];
        }
    }
    for (int i = 0; i < 8; i++)
        CHECK(!l[i].holds);
    klaw_inbox_unref(in);
    return KLAW_OK;
}

#define RELAYED ((uint64_t)4000)

static klaw_err relay_source(void *arg) {
    op *o = arg;
    for (uint64_t i = 1; i <= RELAYED; i++)
        OK(put(o->tx, i, i % 3 ? KLAW_FOREVER : SOON));
    klaw_sender_unref(o->tx);
    return KLAW_OK;
}
static klaw_err relay_sink(void *arg) {
    op *o = arg;
    uint64_t v;
    while (take(o->rx, &v, KLAW_FOREVER) == KLAW_OK) {
        o->v[0] += v;
        o->v[1]++;
    }
    return KLAW_OK;
}

/* Two sources, two loops, two sinks, of any kind of host. */
static void relay_through(int64_t cap_in, int64_t cap_out) {
    pair a = chan(cap_in), b = chan(cap_out);
    klaw_sender *tx2;
    relay r[2] = {{.rx = a.rx, .tx = b.tx, .seed = check_seed},
                  {.rx = a.rx, .tx = b.tx, .seed = check_seed + 1}};
    job loops[2];
    OK(klaw_sender_clone(a.tx, &tx2));
    op *src[2] = {op_with(op_new(a.tx, NULL, 0, 0), relay_source),
                  op_with(op_new(tx2, NULL, 0, 0), relay_source)};
    op *sink[2] = {op_with(op_new(NULL, b.rx, 0, 0), relay_sink),
                   op_with(op_new(NULL, b.rx, 0, 0), relay_sink)};
    for (int i = 0; i < 2; i++)
        job_start_as(&loops[i], relay_loop, &r[i], false);
    for (int i = 0; i < 2; i++)
        OK(job_end(&loops[i]));
    for (int i = 0; i < 2; i++)
        OK(op_end(src[i]));
    klaw_sender_unref(b.tx);
    uint64_t sum = 0, n = 0;
    for (int i = 0; i < 2; i++) {
        OK(job_end(&sink[i]->job));
        sum += sink[i]->v[0];
        n += sink[i]->v[1];
        free(sink[i]);
    }
    SAME(n, 2 * RELAYED);
    SAME(sum, RELAYED * (RELAYED + 1));
    SAME(r[0].moved + r[1].moved, n);
    klaw_receiver_unref(a.rx);
    klaw_receiver_unref(b.rx);
}

SPEC(waiter_two_loops_relay_thousands_and_lose_nothing) {
    relay_through(3, 2);
}
SPEC(waiter_two_loops_relay_through_unbounded_channels) {
    relay_through(KLAW_UNBOUNDED, KLAW_UNBOUNDED);
}
SPEC(waiter_two_loops_relay_by_rendezvous) {
    relay_through(KLAW_RENDEZVOUS, KLAW_RENDEZVOUS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiter_refuses_bad_arguments),
        cmocka_unit_test(waiter_operation_that_is_ready_is_granted_at_once),
        cmocka_unit_test(waiter_operation_that_waits_is_called_back_by_the_pump),
        cmocka_unit_test(waiter_pump_stops_at_its_limit_and_stays_readable),
        cmocka_unit_test(waiter_close_reaches_waiting_and_granted_operations),
        cmocka_unit_test(waiter_granted_receive_of_a_closed_channel_drops_the_element_once),
        cmocka_unit_test(waiter_granted_receive_after_the_last_sender_gets_its_element),
        cmocka_unit_test(waiter_cancelled_receive_leaves_its_element_to_the_next),
        cmocka_unit_test(waiter_cancelled_send_leaves_its_slot_to_the_next),
        cmocka_unit_test(waiter_rendezvous_receiver_that_left_makes_the_send_answer_full),
        cmocka_unit_test(waiter_operations_of_one_loop_meet_each_other),
        cmocka_unit_test(waiter_callback_may_cancel_one_that_was_not_called_back_yet),
        cmocka_unit_test(waiter_callback_may_finish_and_start_again),
        cmocka_unit_test(waiter_reserved_element_stays_while_others_pass_it),
        cmocka_unit_test(waiter_reserved_elements_count_as_buffered),
        cmocka_unit_test(waiter_hint_that_came_to_nothing_answers_empty),
        cmocka_unit_test(waiter_works_on_oneshot_and_broadcast),
        cmocka_unit_test(waiter_cancelled_rendezvous_send_leaves_its_receiver_to_the_next),
        cmocka_unit_test(waiter_cancelled_rendezvous_send_does_not_keep_those_behind_it_apart),
        cmocka_unit_test(waiter_two_loops_relay_thousands_and_lose_nothing),
        cmocka_unit_test(waiter_two_loops_relay_through_unbounded_channels),
        cmocka_unit_test(waiter_two_loops_relay_by_rendezvous),
    };
    (void)seed_begin();
    return cmocka_run_group_tests_name("waiter", tests, NULL, NULL);
}
