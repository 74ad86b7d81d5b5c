/* SPDX-License-Identifier: Apache-2.0 */
/* try.c - what an operation on a channel does when it need not wait, and what it answers.
 *
 * Nothing here waits or releases the GIL. A call that may complete operations of this thread's own loop
 * stands between klawpy_enter and klawpy_leave. */
#include "native.h"
#include "inspect.h"
#include "op.h"
#include "result.h"

/* --- standing in queues --- */
/* Tells the inbox whether this operation waits through it. */
static void count(klawpy_op *o, bool parks) {
    if (o->parked == parks)
        return;
    o->parked = parks;
    if (parks)
        o->inbox->mine->parked++;
    else
        o->inbox->mine->parked--;
}

static void one_granted(klaw_op *op, void *user) {
    klawpy_op *o = user;
    (void)op;
    count(o, false);
    o->state = OP_GRANTED;
    if (!o->by_thread)
        klawpy_granted(o);
}

/* The first one wins: the others leave their queues, grants that came with it go to the next. */
static void choose(klawpy_op *o, Py_ssize_t i) {
    o->select.chosen = i;
    count(o, false);
    o->state = OP_GRANTED;
    for (Py_ssize_t k = 0; k < o->max; k++)
        if (k != i && o->select.cases[k].waits) {
            o->select.cases[k].waits = false;
            klaw_op_cancel(&o->select.cases[k].op);
        }
}

static void case_granted(klaw_op *op, void *user) {
    klawpy_case *c = user;
    (void)op;
    choose(c->of, c - c->of->select.cases);
    if (!c->of->by_thread)
        klawpy_granted(c->of);
}

static klawpy_end *receiver(klawpy_op *o, Py_ssize_t i) {
    return (klawpy_end *)PyTuple_GET_ITEM(o->value, i);
}

static klaw_err start_select(klawpy_op *o, uint32_t label) {
    klaw_err last = KLAW_CLOSED;
    Py_ssize_t standing = 0;
    o->select.cases = PyMem_Calloc((size_t)o->max, sizeof *o->select.cases);
    if (!o->select.cases)
        return KLAW_NOMEM;
    o->waits = true;
    o->state = OP_PARKED;
    count(o, true);
    for (Py_ssize_t i = 0; i < o->max; i++) {
        klawpy_case *c = &o->select.cases[i];
        bool waiting = false;
        c->of = o;
        klaw_op_init(&c->op, o->inbox->in, case_granted, c);
        if (label)
            klaw_op_label(&c->op, label);
        klaw_err e = klaw_op_recv(&c->op, receiver(o, i)->rx, &waiting);
        c->waits = e == KLAW_OK;
        standing += c->waits;
        if (e && e != KLAW_CLOSED)
            last = e;
        if (c->waits && !waiting) {
            choose(o, i);
            return KLAW_OK;
        }
    }
    if (standing > 0)
        return KLAW_OK;
    klawpy_abandon(o);
    o->state = OP_NEW;
    return last;
}

klaw_err klawpy_start(klawpy_op *o) {
    bool waiting = false;
    klaw_err e;
    klawpy_state *st = klawpy_op_state_of(o);
    PyObject *ends = o->verb == KLAWPY_SELECT ? o->value : (PyObject *)o->end;
    uint32_t label = st->label_of ? klawpy_label(st, ends, o->timeout >= 0) : 0;
    klaw_inbox *held = klawpy_enter();
    if (o->verb == KLAWPY_SELECT) {
        e = start_select(o, label);
    } else {
        klaw_op_init(&o->op, o->inbox->in, one_granted, o);
        if (label)
            klaw_op_label(&o->op, label);
        if (o->verb == KLAWPY_SEND_BATCH)
            e = klaw_op_send_batch(&o->op, o->end->tx, (size_t)PyTuple_GET_SIZE(o->value),
                                   &waiting);
        else if (o->end->tx)
            e = klaw_op_send(&o->op, o->end->tx, &waiting);
        else
            e = klaw_op_recv(&o->op, o->end->rx, &waiting);
        o->waits = e == KLAW_OK;
        if (e == KLAW_OK)
            o->state = waiting ? OP_PARKED : OP_GRANTED;
        count(o, e == KLAW_OK && waiting);
    }
    klawpy_leave(held);
    return e;
}

void klawpy_abandon(klawpy_op *o) {
    if (!o->waits)
        return;
    o->waits = false;
    klaw_inbox *held = klawpy_enter();
    count(o, false);
    if (o->verb == KLAWPY_SELECT) {
        for (Py_ssize_t i = 0; i < o->max; i++)
            if (o->select.cases[i].waits)
                klaw_op_cancel(&o->select.cases[i].op);
        PyMem_Free(o->select.cases);
        o->select.cases = NULL;
    } else {
        klaw_op_cancel(&o->op);
    }
    klawpy_leave(held);
}

/* --- one try --- */

static outcome done(PyObject **out, PyObject *result) {
    *out = result;
    return result ? DONE : FAIL;
}

static outcome failed(klawpy_state *st, klawpy_op *o, klaw_err e) {
    switch (e) {
    case KLAW_FULL:
    case KLAW_EMPTY: return WAIT;
    case KLAW_LAGGED:
        klawpy_raise(st, "ChannelLaggedError", "(K)",
                     (unsigned long long)klaw_receiver_missed(o->end->rx));
        return FAIL;
    case KLAW_LIMIT:
        klawpy_raise(st, "LimitExceededError", "(Ln)", (long long)o->end->chan->capacity,
                     o->value ? PySequence_Size(o->value) : 0);
        return FAIL;
    default: klawpy_raise_code(st, e); return FAIL;
    }
}

/* Err(error) of a failed try_; NULL with an exception set for what is no answer. */
static PyObject *answer(klawpy_end *end, klaw_err e) {
    klawpy_state *st = end->chan->st;
    PyObject *error = NULL;
    if (e == KLAW_FULL)
        error = klawpy_error_value(st, "ChannelFull", "(L)", (long long)end->chan->capacity);
    else if (e == KLAW_EMPTY)
        error = klawpy_error_value(st, "ChannelEmpty", "()");
    else if (e == KLAW_CLOSED)
        error = klawpy_error_value(st, "ChannelClosed", "()");
    else if (e == KLAW_LAGGED)
        error = klawpy_error_value(st, "ChannelLagged", "(K)",
                                   (unsigned long long)klaw_receiver_missed(end->rx));
    else
        return klawpy_raise_code(st, e);
    PyObject *r = error ? klawpy_err(st, error) : NULL;
    Py_XDECREF(error);
    return r;
}

/* What a try_recv answers; takes v. */
static PyObject *maybe(klawpy_end *end, klaw_err e, PyObject *v) {
    if (e)
        return answer(end, e);
    PyObject *r = klawpy_ok(end->chan->st, v);
    Py_DECREF(v);
    return r;
}

PyObject *klawpy_try_send(klawpy_end *end, PyObject *value) {
    klaw_err e = klawpy_send_one(end, value);
    return e ? answer(end, e) : klawpy_ok(end->chan->st, Py_None);
}

PyObject *klawpy_try_recv(klawpy_end *end) {
    PyObject *v = NULL;
    klaw_err e = klawpy_recv_one(end, &v);
    return maybe(end, e, v);
}

/* The elements of a batch, as an array: of objects the tuple itself, with references. NOMEM. */
static klaw_err batch_elems(klawpy_op *o, PyObject ***elems) {
    Py_ssize_t n = PyTuple_GET_SIZE(o->value);
    if (!o->end->chan->elem) {
        for (Py_ssize_t i = 0; i < n; i++)
            Py_INCREF(PyTuple_GET_ITEM(o->value, i));
        *elems = &PyTuple_GET_ITEM(o->value, 0);
        return KLAW_OK;
    }
    PyObject **all = PyMem_New(PyObject *, n ? n : 1);
    klaw_err e = all ? KLAW_OK : KLAW_NOMEM;
    for (Py_ssize_t i = 0; !e && i < n; i++) {
        e = klawpy_elem(o->end->chan, PyTuple_GET_ITEM(o->value, i), &all[i]);
        while (e && i-- > 0)
            klawpy_elem_drop(o->end->chan, all[i]);
    }
    if (e)
        PyMem_Free(all);
    *elems = all;
    return e;
}

/* After the send: gives back what was not sent. */
static void batch_done(klawpy_op *o, PyObject **elems, bool sent) {
    for (Py_ssize_t i = 0; !sent && i < PyTuple_GET_SIZE(o->value); i++)
        klawpy_elem_drop(o->end->chan, elems[i]);
    if (o->end->chan->elem)
        PyMem_Free(elems);
}

static klaw_err send_all(klawpy_op *o) {
    PyObject **elems;
    klaw_err e = batch_elems(o, &elems);
    if (e)
        return e;
    klaw_inbox *held = klawpy_enter();
    e = klaw_send_batch(o->end->tx, elems, (size_t)PyTuple_GET_SIZE(o->value), KLAW_NOWAIT);
    klawpy_leave(held);
    batch_done(o, elems, e == KLAW_OK);
    return e;
}

/* Up to max items as a list, `first` (stolen, may be NULL) in front. */
static klaw_err recv_some(klawpy_op *o, PyObject *first, PyObject **list) {
    PyObject *items[256];
    klaw_err e = KLAW_OK;
    Py_ssize_t have = 0;
    *list = PyList_New(0);
    if (*list && first && (have = 1, PyList_Append(*list, first) < 0))
        Py_CLEAR(*list);
    Py_XDECREF(first);
    while (*list && have < o->max) {
        size_t want = (size_t)(o->max - have), got = 0;
        klaw_inbox *held = klawpy_enter();
        e = klaw_recv_batch(o->end->rx, items, want < 256 ? want : 256, &got, KLAW_NOWAIT);
        klawpy_leave(held);
        if (e)
            break;
        for (size_t i = 0; i < got; i++) {
            klaw_err bad = klawpy_object(o->end->chan, &items[i]);
            if (*list && (bad || PyList_Append(*list, items[i]) < 0))
                Py_CLEAR(*list);
            Py_XDECREF(items[i]);
        }
        have += (Py_ssize_t)got;
        if (got < 256)
            break;
    }
    if (!*list)
        return KLAW_NOMEM;
    if (have > 0)
        return KLAW_OK;
    Py_CLEAR(*list);
    return e;
}

/* What a receive has given, as this verb returns it. */
outcome klawpy_received(klawpy_state *st, klawpy_op *o, klaw_err e, PyObject *v, PyObject **out) {
    if (o->verb == KLAWPY_TRY_RECV)
        return done(out, maybe(o->end, e, v));
    if (e == KLAW_OK)
        return done(out, v);
    if (e == KLAW_CLOSED && o->verb == KLAWPY_NEXT) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return FAIL;
    }
    return failed(st, o, e);
}

/* (receiver, item) of a select; takes `item`. */
static outcome selected(klawpy_op *o, Py_ssize_t i, PyObject *item, PyObject **out) {
    return done(out, Py_BuildValue("(ON)", receiver(o, i), item));
}

static void lagged(klawpy_state *st, klawpy_op *o, Py_ssize_t i) {
    klawpy_raise(st, "ChannelLaggedError", "(K)",
                 (unsigned long long)klaw_receiver_missed(receiver(o, i)->rx));
}

/* One look at each receiver, from one that chance chooses on. */
static outcome select_try(klawpy_state *st, klawpy_op *o, PyObject **out) {
    static __thread uint32_t seed = 2463534242u;
    Py_ssize_t closed = 0;
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    for (Py_ssize_t k = 0; k < o->max; k++) {
        Py_ssize_t i = (Py_ssize_t)((seed + (uint32_t)k) % (uint32_t)o->max);
        PyObject *v = NULL;
        klaw_inbox *held = klawpy_enter();
        klaw_err e = klaw_recv(receiver(o, i)->rx, &v, KLAW_NOWAIT);
        klawpy_leave(held);
        if (e == KLAW_OK)
            e = klawpy_object(receiver(o, i)->chan, &v);
        if (e == KLAW_OK)
            return selected(o, i, v, out);
        if (e == KLAW_LAGGED) {
            lagged(st, o, i);
            return FAIL;
        }
        if (e != KLAW_EMPTY && e != KLAW_CLOSED)
            return failed(st, o, e);
        closed += e == KLAW_CLOSED;
    }
    return closed == o->max ? failed(st, o, KLAW_CLOSED) : WAIT;
}

static outcome select_finish(klawpy_state *st, klawpy_op *o, PyObject **out) {
    PyObject *v = NULL;
    Py_ssize_t i = o->select.chosen;
    klaw_inbox *held = klawpy_enter();
    klaw_err e = klaw_op_finish(&o->select.cases[i].op, &v);
    klawpy_leave(held);
    PyMem_Free(o->select.cases);
    o->select.cases = NULL;
    if (e == KLAW_OK)
        e = klawpy_object(receiver(o, i)->chan, &v);
    if (e == KLAW_OK)
        return selected(o, i, v, out);
    if (e == KLAW_LAGGED) {
        lagged(st, o, i);
        return FAIL;
    }
    if (e == KLAW_NOMEM)
        return failed(st, o, e);
    return select_try(st, o, out); /* that one has closed, or the peer left */
}

outcome klawpy_attempt(klawpy_state *st, klawpy_op *o, PyObject **out) {
    PyObject *v = NULL;
    klaw_err e;
    switch ((klawpy_verb)o->verb) {
    case KLAWPY_SEND:
        e = klawpy_send_one(o->end, o->value);
        return e ? failed(st, o, e) : done(out, Py_NewRef(Py_None));
    case KLAWPY_TRY_SEND: return done(out, klawpy_try_send(o->end, o->value));
    case KLAWPY_SEND_BATCH:
        e = send_all(o);
        return e ? failed(st, o, e) : done(out, Py_NewRef(Py_None));
    case KLAWPY_RECV:
    case KLAWPY_TRY_RECV:
    case KLAWPY_NEXT: e = klawpy_recv_one(o->end, &v); return klawpy_received(st, o, e, v, out);
    case KLAWPY_RECV_BATCH: e = recv_some(o, NULL, &v); return e ? failed(st, o, e) : done(out, v);
    case KLAWPY_CHANGED:
        e = klaw_watch_changed(o->end->rx, KLAW_NOWAIT);
        return e ? failed(st, o, e) : done(out, Py_NewRef(Py_None));
    case KLAWPY_SELECT: return select_try(st, o, out);
    case KLAWPY_CLOSE: klawpy_end_close(o->end); return done(out, Py_NewRef(Py_None));
    case KLAWPY_ENTER: return done(out, Py_NewRef((PyObject *)o->end));
    }
    Py_UNREACHABLE();
}

/* Redeems the grant. WAIT: the peer left in between. */
outcome klawpy_finish(klawpy_state *st, klawpy_op *o, PyObject **out) {
    PyObject *v = NULL;
    klaw_err e;
    o->waits = false;
    if (o->verb == KLAWPY_SELECT)
        return select_finish(st, o, out);
    PyObject **elems = NULL;
    bool sends = o->verb == KLAWPY_SEND;
    e = o->verb == KLAWPY_SEND_BATCH ? batch_elems(o, &elems)
        : sends                      ? klawpy_elem(o->end->chan, o->value, &v)
                                     : KLAW_OK;
    klaw_inbox *held = klawpy_enter();
    if (e) {
        klaw_op_cancel(&o->op);
        klawpy_leave(held);
        return failed(st, o, e);
    }
    if (elems) {
        e = klaw_op_finish(&o->op, elems);
        klawpy_leave(held);
        batch_done(o, elems, e == KLAW_OK);
        return e ? failed(st, o, e) : done(out, Py_NewRef(Py_None));
    }
    if (o->verb == KLAWPY_CHANGED) {
        klaw_op_cancel(&o->op); /* the grant was for one: look again for all */
        klawpy_leave(held);
        return klawpy_attempt(st, o, out);
    }
    e = klaw_op_finish(&o->op, &v);
    klawpy_leave(held);
    if (sends) {
        if (e)
            klawpy_elem_drop(o->end->chan, v);
        return e ? failed(st, o, e) : done(out, Py_NewRef(Py_None));
    }
    if (e == KLAW_OK)
        e = klawpy_object(o->end->chan, &v);
    if (o->verb != KLAWPY_RECV_BATCH)
        return klawpy_received(st, o, e, v, out);
    if (e)
        return failed(st, o, e);
    e = recv_some(o, v, &v);
    return e ? failed(st, o, e) : done(out, v);
}

/* The answer of a wait whose time has passed. */
outcome klawpy_expired(klawpy_state *st, klawpy_op *o, PyObject **out) {
    if (o->verb == KLAWPY_RECV_BATCH)
        return done(out, PyList_New(0));
    if (o->end->tx)
        klawpy_raise(st, "ChannelFullError", "(L)", (long long)o->end->chan->capacity);
    else
        klawpy_raise(st, "ChannelEmptyError", "()");
    return FAIL;
}
