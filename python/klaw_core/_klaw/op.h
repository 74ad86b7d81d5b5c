/* SPDX-License-Identifier: Apache-2.0 */
/* op.h - operations on channels as awaitables. */
#ifndef KLAWPY_OP_H
#define KLAWPY_OP_H

#include "chan.h"
#include "inbox.h"
#include "native.h"

typedef enum klawpy_verb {
    KLAWPY_SEND,
    KLAWPY_TRY_SEND,
    KLAWPY_SEND_BATCH,
    KLAWPY_RECV,
    KLAWPY_TRY_RECV,
    KLAWPY_RECV_BATCH,
    KLAWPY_NEXT,
    KLAWPY_CHANGED,
    KLAWPY_SELECT,
    KLAWPY_CLOSE,
    KLAWPY_ENTER
} klawpy_verb;

/* Where an operation is (op.c). */
typedef enum klawpy_op_state {
    OP_NEW,
    OP_PARKED,
    OP_GRANTED,
    OP_CANCELLED,
    OP_EXPIRED,
    OP_YIELDED,   /* gave way to the loop, has not tried yet */
    OP_DELEGATED, /* trio's coroutine waits for it */
    OP_DONE
} klawpy_op_state;

/* What every operation uses comes first; a parked one has to be small. */
struct klawpy_op {
    PyObject_HEAD uint8_t verb, state;
    bool tracked : 1;    /* by the collector */
    bool finalized : 1;  /* by it or dealloc: not to be used again */
    bool has_waited : 1; /* what follows `timeout` may be set; else all of that is zero */
    bool by_thread : 1;  /* a thread waits for it, and looks at the state */
    bool blocking : 1;   /* asyncio's mark: yielded, not yet picked up */
    bool waits : 1;      /* `op`, or `select`, is in use */
    bool parked : 1;     /* counted by the inbox */
    int32_t max;
    klawpy_end *end;
    union {
        PyObject *value;      /* to send; select: the receivers */
        klawpy_op *next_free; /* in the free list */
    };
    PyObject *weaklist;
    double timeout;
    /* while it waits */
    klawpy_inbox *inbox;
    PyObject *callback;
    PyObject *extra; /* the callback's context; once cancelled: the message */
    PyObject *timer;
    PyObject *delegate; /* trio's coroutine */
    union {
        klaw_op op;
        struct {
            struct klawpy_case *cases; /* max of them */
            Py_ssize_t chosen;         /* which was granted */
        } select;
    };
};

/* One receiver of a select that waits. */
typedef struct klawpy_case {
    klaw_op op;
    klawpy_op *of;
    bool waits;
} klawpy_case;

static inline klawpy_state *klawpy_op_state_of(klawpy_op *o) {
    return o->end->chan->st;
}

/* One send or receive without waiting. */
static inline klaw_err klawpy_send_one(klawpy_end *end, PyObject *value) {
    PyObject *v;
    klaw_err e = klawpy_elem(end->chan, value, &v);
    if (e)
        return e;
    klaw_inbox *held = klawpy_enter();
    e = klaw_send(end->tx, &v, KLAW_NOWAIT);
    klawpy_leave(held);
    if (e)
        klawpy_elem_drop(end->chan, v);
    return e;
}

/* *v: a new reference when it succeeds. */
static inline klaw_err klawpy_recv_one(klawpy_end *end, PyObject **v) {
    klaw_inbox *held = klawpy_enter();
    klaw_err e = klaw_recv(end->rx, v, KLAW_NOWAIT);
    klawpy_leave(held);
    return e ? e : klawpy_object(end->chan, v);
}

/* What a try gives: DONE (*out is the result), WAIT, FAIL (an exception is set). */
typedef enum outcome { DONE, WAIT, FAIL } outcome;

/* try.c: one try without waiting; the grant redeemed (WAIT: the peer left in between); the answer of a
 * wait whose time has passed; what a receive answered, as the verb returns it. *out is a new reference
 * with DONE. */
KLAWPY_HIDDEN outcome klawpy_attempt(klawpy_state *st, klawpy_op *o, PyObject **out);
KLAWPY_HIDDEN outcome klawpy_finish(klawpy_state *st, klawpy_op *o, PyObject **out);
KLAWPY_HIDDEN outcome klawpy_expired(klawpy_state *st, klawpy_op *o, PyObject **out);
KLAWPY_HIDDEN outcome klawpy_received(klawpy_state *st, klawpy_op *o, klaw_err e, PyObject *v,
                                      PyObject **out);
/* try_send and try_recv, now. New references; NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_try_send(klawpy_end *end, PyObject *value);
KLAWPY_HIDDEN PyObject *klawpy_try_recv(klawpy_end *end);
/* A task's operation has been granted: wakes the task. From the pump. */
KLAWPY_HIDDEN void klawpy_granted(klawpy_op *o);
/* Stands in the channel's queue (select: in all of them) through o->inbox; state is OP_PARKED or
 * OP_GRANTED. Errors as klaw_op_recv, NOMEM: it does not stand there. */
KLAWPY_HIDDEN klaw_err klawpy_start(klawpy_op *o);
/* Leaves the queue, or gives the grant to the next who waits. */
KLAWPY_HIDDEN void klawpy_abandon(klawpy_op *o);

/* An operation that has not begun. `value`: what to send, borrowed, or NULL. `timeout` in seconds,
 * negative: none. A new reference; NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_op_new(klawpy_state *st, klawpy_verb verb, klawpy_end *end,
                                      PyObject *value, Py_ssize_t max, double timeout);
/* Carries the operation out on the calling thread, which waits without the GIL. The result, a new
 * reference; NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_op_run(klawpy_state *st, klawpy_verb verb, klawpy_end *end,
                                      PyObject *value, Py_ssize_t max, double timeout);

#endif
