/* SPDX-License-Identifier: Apache-2.0 */
/* op.c - operations on channels as awaitables: real coroutines, written in C.
 *
 * An operation tries first (`attempt`): whatever needs no waiting is done at the first send, and the
 * awaiting task never suspends. Else it parks: a klaw_op goes into the channel's queue, the operation
 * yields itself, and the task registers its wake-up with it as with a future.
 *
 *   NEW --attempt--> DONE
 *    | would wait
 *   PARKED --pump: granted()--> GRANTED --send: finish--> DONE      (peer left meanwhile: NEW again)
 *    |--cancel()--> CANCELLED --throw--> DONE
 *    |--timer-----> EXPIRED --send: the timeout's answer--> DONE
 *
 * A grant is a permit, never the element: the element moves in `finish`, when the task runs again. So a
 * task that is cancelled, thrown into, or destroyed between the two gives the permit to the next one
 * who waits, and nothing is lost or doubled (klaw_op_cancel).
 *
 * Which library awaits is found out when the operation first has to wait: a running asyncio loop on
 * this thread, else trio, whose waiting is Python code (klaw_core.runtime._trio) that is delegated to.
 * Every TURN immediate completions of its kind, sends or all others, the operation yields to the loop
 * before it tries, so that a loop that is always ready lets others run. A wait begins both counts anew.
 *
 * The collector sees an operation that waits, or that sends something which the collector sees. One
 * that has not begun and receives refers to nothing but its endpoint.
 *
 * Everything here happens with the GIL held; the GIL is released only while a thread waits in poll(2).
 * Queued objects are touched only with the GIL held, which is what lets chan.c traverse them. */
#include "coro.h"
#include "op.h"

#include <stddef.h>
#include <structmember.h>

#define TURN 128

static __thread unsigned sends, others; /* immediate ones since the loop last ran */

static const char *const verbs[] = {"Sender.send",
                                    "Sender.try_send",
                                    "Sender.send_batch",
                                    "Receiver.recv",
                                    "Receiver.try_recv",
                                    "Receiver.recv_batch",
                                    "Receiver.__anext__",
                                    "Receiver.changed",
                                    "select",
                                    "close",
                                    "__aenter__"};

static void track(klawpy_op *o) {
    if (!o->tracked) {
        o->tracked = true;
        PyObject_GC_Track(o);
    }
}

/* Before the fields of a wait are used. */
static void will_wait(klawpy_op *o) {
    o->has_waited = true;
    track(o);
}

/* --- waiting --- */
/* asyncio's loop, borrowed; NULL: it is trio that waits, or nobody. */
static PyObject *loop_of(klawpy_op *o) {
    PyObject *ref = o->inbox ? o->inbox->loop : NULL, *loop = ref ? PyWeakref_GetObject(ref) : NULL;
    return loop == Py_None ? NULL : loop;
}

static int wake(klawpy_op *o, PyObject *callback, PyObject *context) {
    if (o->inbox && o->inbox->loop)
        return klawpy_inbox_wake(klawpy_op_state_of(o), o->inbox, callback, (PyObject *)o, context);
    PyObject *r = PyObject_CallNoArgs(callback);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* Once. Not picked up yet: add_done_callback will see the state. */
static int schedule(klawpy_op *o) {
    PyObject *callback = o->callback, *context = o->extra;
    if (!callback)
        return 0;
    o->callback = o->extra = NULL;
    int e = wake(o, callback, context);
    Py_DECREF(callback);
    Py_XDECREF(context);
    return e;
}

void klawpy_granted(klawpy_op *o) {
    Py_INCREF(o);
    if (schedule(o) < 0) { /* nobody runs this task any more: the grant goes to the next */
        if (o->inbox && o->inbox->loop && PyErr_ExceptionMatches(PyExc_RuntimeError))
            PyErr_Clear(); /* its loop is closed */
        else
            PyErr_WriteUnraisable((PyObject *)o);
        klawpy_abandon(o);
        o->state = OP_CANCELLED;
    }
    Py_DECREF(o);
}

static void forget_wait(klawpy_op *o) {
    PyObject *timer = o->timer;
    o->timer = NULL;
    klawpy_timer_cancel(klawpy_op_state_of(o), timer);
    Py_CLEAR(o->callback);
    Py_CLEAR(o->extra);
    Py_CLEAR(o->inbox);
}

/* Starts to wait through o->inbox. DONE: granted at once; WAIT; FAIL. */
static outcome enlist(klawpy_state *st, klawpy_op *o) {
    klaw_err e = klawpy_start(o);
    if (e == KLAW_OK)
        return o->state == OP_PARKED ? WAIT : DONE;
    PyObject *unused;
    return klawpy_received(st, o, e, NULL, &unused);
}

static int start_timer(klawpy_state *st, klawpy_op *o) {
    if (o->timeout >= 0 && !o->timer)
        o->timer = klawpy_timer_new(st, loop_of(o), (PyObject *)o, o->timeout);
    return o->timeout < 0 || o->timer ? 0 : -1;
}

/* Hands the wait (or, turn, one pass through the loop) over to trio. */
static outcome delegate(klawpy_state *st, klawpy_op *o, const char *function) {
    (void)st;
    will_wait(o);
    o->delegate = klawpy_trio((PyObject *)o, function);
    if (!o->delegate)
        return FAIL;
    o->state = OP_DELEGATED;
    return WAIT;
}

static outcome park(klawpy_state *st, klawpy_op *o, PyObject **out) {
    if (o->timeout == 0)
        return klawpy_expired(st, o, out);
    will_wait(o);
    PyObject *loop = klawpy_running_loop(st);
    if (!loop)
        return FAIL;
    sends = others = 0;
    if (loop == Py_None) {
        Py_DECREF(loop);
        return delegate(st, o, "park");
    }
    if (!o->inbox)
        o->inbox = klawpy_inbox_of_loop(st, loop);
    Py_DECREF(loop);
    if (!o->inbox)
        return FAIL;
    outcome r = enlist(st, o);
    if (r == WAIT && start_timer(st, o) < 0) {
        klawpy_abandon(o);
        return FAIL;
    }
    return r;
}

/* --- the coroutine --- */
static PySendResult end(klawpy_op *o, outcome r, PyObject *value, PyObject **result) {
    if (o->has_waited) {
        klawpy_abandon(o);
        forget_wait(o);
    }
    o->state = OP_DONE;
    *result = r == DONE ? value : NULL;
    return r == DONE ? PYGEN_RETURN : PYGEN_ERROR;
}

/* The next try. */
static outcome try_on(klawpy_state *st, klawpy_op *o, PyObject **value) {
    if (o->state == OP_GRANTED) {
        outcome r = klawpy_finish(st, o, value);
        if (r == WAIT)
            o->state = OP_NEW;
        return r;
    }
    return o->state == OP_EXPIRED ? klawpy_expired(st, o, value) : klawpy_attempt(st, o, value);
}

/* Goes on, after a try that gave `r`, until the result or until it has to wait. */
static PySendResult advance_from(klawpy_state *st, klawpy_op *o, outcome r, PyObject *value,
                                 PyObject **result) {
    for (;; r = try_on(st, o, &value)) {
        if (r != WAIT)
            return end(o, r, value, result);
        r = park(st, o, &value);
        if (r == DONE && o->state == OP_GRANTED)
            continue;
        if (r != WAIT)
            return end(o, r, value, result);
        if (o->state == OP_PARKED) {
            o->blocking = true;
            *result = Py_NewRef((PyObject *)o);
        }
        return PYGEN_NEXT;
    }
}

static PySendResult advance(klawpy_state *st, klawpy_op *o, PyObject **result) {
    PyObject *value = NULL;
    outcome r = try_on(st, o, &value);
    return advance_from(st, o, r, value, result);
}

/* Lets the loop run. PYGEN_RETURN: nothing to yield to, go on. */
static PySendResult give_way(klawpy_state *st, klawpy_op *o, PyObject **result) {
    sends = others = 0;
    PyObject *trio = PyImport_GetModule(st->s_trio), *loop = NULL;
    if (!trio && PyErr_Occurred())
        return PYGEN_ERROR;
    Py_XDECREF(trio);
    if (trio && !(loop = klawpy_running_loop(st)))
        return PYGEN_ERROR;
    Py_XDECREF(loop);
    if (loop != Py_None) { /* asyncio, or whoever else takes a bare yield */
        o->state = OP_YIELDED;
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    return delegate(st, o, "checkpoint") == FAIL ? PYGEN_ERROR : PYGEN_NEXT;
}

/* Drives trio's coroutine one step further; `error`: throws it in (stolen) instead of sending. When it
 * has ended the operation goes on itself. */
static PySendResult drive(klawpy_state *st, klawpy_op *o, PyObject *arg, PyObject **result) {
    for (;;) {
        PySendResult r = PyIter_Send(o->delegate, arg, result);
        if (r == PYGEN_NEXT)
            return r;
        Py_CLEAR(o->delegate);
        if (r == PYGEN_ERROR)
            return end(o, FAIL, NULL, result);
        /* What park returns: True: granted; False: its time has passed; None: a checkpoint. */
        PyObject *said = *result;
        o->state = said == Py_True ? OP_GRANTED : said == Py_False ? OP_EXPIRED : OP_NEW;
        Py_DECREF(said);
        r = advance(st, o, result);
        if (r != PYGEN_NEXT || o->state != OP_DELEGATED)
            return r;
        arg = Py_None;
    }
}

/* After a first try that has not succeeded. */
static KLAWPY_COLD PySendResult begun(klawpy_op *o, klaw_err e, PyObject **result) {
    klawpy_state *st = klawpy_op_state_of(o);
    PyObject *value = NULL;
    outcome r = klawpy_received(st, o, e, NULL, &value);
    PySendResult s = advance_from(st, o, r, value, result);
    return s == PYGEN_NEXT && o->state == OP_DELEGATED ? drive(st, o, Py_None, result) : s;
}

static KLAWPY_COLD PySendResult send_slow(PyObject *self, PyObject *arg, PyObject **result) {
    klawpy_op *o = (klawpy_op *)self;
    klawpy_state *st = klawpy_op_state_of(o);
    *result = NULL;
    if (o->delegate) /* whatever the pump made of the state meanwhile: trio's coroutine ends first */
        return drive(st, o, arg, result);
    PySendResult r;
    switch ((klawpy_op_state)o->state) {
    case OP_NEW:
        if (arg != Py_None) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        if ((sends >= TURN || others >= TURN) && o->verb < KLAWPY_CLOSE) {
            r = give_way(st, o, result);
            if (r == PYGEN_ERROR)
                return end(o, FAIL, NULL, result);
            if (o->state == OP_YIELDED)
                return r;
            return drive(st, o, Py_None, result);
        }
        break;
    case OP_YIELDED: o->state = OP_NEW; break;
    case OP_DELEGATED: break;
    case OP_PARKED: /* nobody woke us: wait on */
        o->blocking = true;
        *result = Py_NewRef(self);
        return PYGEN_NEXT;
    case OP_CANCELLED: /* the exception is thrown by whoever cancelled; without it this is it */
        PyErr_SetNone(st->cancelled_error);
        return end(o, FAIL, NULL, result);
    case OP_DONE:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    default: break;
    }
    r = advance(st, o, result);
    if (r == PYGEN_NEXT && o->state == OP_DELEGATED)
        return drive(st, o, Py_None, result);
    return r;
}

/* The first try of the two commonest verbs takes no detour. */
static PySendResult op_send_(PyObject *self, PyObject *arg, PyObject **result) {
    klawpy_op *o = (klawpy_op *)self;
    klaw_err e;
    if (o->state != OP_NEW || arg != Py_None)
        return send_slow(self, arg, result);
    if (o->verb == KLAWPY_RECV) {
        if (++others >= TURN)
            return send_slow(self, arg, result);
        e = klawpy_recv_one(o->end, result);
    } else if (o->verb == KLAWPY_SEND) {
        if (++sends >= TURN)
            return send_slow(self, arg, result);
        e = klawpy_send_one(o->end, o->value);
        *result = Py_None;
    } else {
        others++;
        return send_slow(self, arg, result);
    }
    if (e)
        return begun(o, e, result);
    if (o->verb == KLAWPY_SEND)
        Py_INCREF(Py_None);
    o->state = OP_DONE;
    return PYGEN_RETURN;
}

static PyObject *method_throw(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_op *o = (klawpy_op *)self;
    PyObject *value = NULL;
    if (!klawpy_throw_args(n))
        return NULL;
    if (o->delegate) {
        PyObject *r = klawpy_delegate_throw(o->delegate, args, n, &value);
        if (r)
            return r; /* it yielded on */
        if (value) {
            klawpy_state *st = klawpy_op_state_of(o);
            Py_CLEAR(o->delegate);
            o->state = value == Py_True ? OP_GRANTED : value == Py_False ? OP_EXPIRED : OP_NEW;
            Py_DECREF(value);
            PySendResult s = advance(st, o, &value);
            if (s == PYGEN_NEXT && o->state == OP_DELEGATED)
                s = drive(st, o, Py_None, &value);
            return klawpy_returned(s, value);
        }
        Py_CLEAR(o->delegate);
    } else {
        klawpy_set_thrown(args, n);
    }
    end(o, FAIL, NULL, &value);
    return NULL;
}

static PyObject *method_close(PyObject *self, PyObject *unused) {
    klawpy_op *o = (klawpy_op *)self;
    (void)unused;
    if (klawpy_delegate_close(&o->delegate) < 0)
        return NULL;
    PyObject *value;
    end(o, DONE, NULL, &value);
    Py_RETURN_NONE;
}

/* --- as asyncio's future --- */
static PyObject *get_blocking(PyObject *self, void *unused) {
    (void)unused;
    /* asyncio.isfuture asks for "not None": before it waits an operation is a coroutine only. */
    if (((klawpy_op *)self)->state == OP_NEW)
        Py_RETURN_NONE;
    return PyBool_FromLong(((klawpy_op *)self)->blocking);
}

static int set_blocking(PyObject *self, PyObject *v, void *unused) {
    (void)unused;
    int is = v ? PyObject_IsTrue(v) : 0;
    if (is < 0)
        return -1;
    ((klawpy_op *)self)->blocking = is;
    return 0;
}

static PyObject *get_loop(PyObject *self, void *unused) {
    klawpy_op *o = (klawpy_op *)self;
    (void)unused;
    PyObject *loop = loop_of(o);
    return Py_NewRef(loop ? loop : Py_None);
}

static PyObject *method_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                          PyObject *kwnames) {
    klawpy_op *o = (klawpy_op *)self;
    if (n != 1 || (kwnames && PyTuple_GET_SIZE(kwnames) > 1)) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(fn, *, context=None)");
        return NULL;
    }
    will_wait(o);
    PyObject *context = kwnames && PyTuple_GET_SIZE(kwnames) ? args[1] : NULL;
    if (o->state == OP_PARKED) {
        Py_XSETREF(o->callback, Py_NewRef(args[0]));
        Py_XSETREF(o->extra, Py_XNewRef(context));
    } else if (wake(o, args[0], context) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *method_remove_done_callback(PyObject *self, PyObject *fn) {
    klawpy_op *o = (klawpy_op *)self;
    if (!o->callback)
        return PyLong_FromLong(0);
    int same = PyObject_RichCompareBool(o->callback, fn, Py_EQ);
    if (same < 0)
        return NULL;
    if (same) {
        Py_CLEAR(o->callback);
        Py_CLEAR(o->extra);
    }
    return PyLong_FromLong(same);
}

/* By Task.cancel, on what it waits for. */
static PyObject *method_cancel(PyObject *self, PyObject *const *args, Py_ssize_t n,
                               PyObject *kwnames) {
    klawpy_op *o = (klawpy_op *)self;
    if (o->state != OP_PARKED)
        Py_RETURN_FALSE; /* granted: the task throws it in when it runs, and the grant goes back */
    klawpy_abandon(o);
    o->state = OP_CANCELLED;
    int e = schedule(o);
    if (n + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0) > 0)
        Py_XSETREF(o->extra, Py_NewRef(args[0]));
    if (e < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* What the task asks when it is woken. */
static PyObject *method_result(PyObject *self, PyObject *unused) {
    klawpy_op *o = (klawpy_op *)self;
    (void)unused;
    if (o->state != OP_CANCELLED)
        Py_RETURN_NONE;
    klawpy_state *st = klawpy_op_state_of(o);
    if (o->extra && o->extra != Py_None)
        PyErr_SetObject(st->cancelled_error, o->extra);
    else
        PyErr_SetNone(st->cancelled_error);
    return NULL;
}

static PyObject *method_done(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(((klawpy_op *)self)->state != OP_PARKED);
}

/* The timer of a wait. */
static PyObject *method_expire(PyObject *self, PyObject *unused) {
    klawpy_op *o = (klawpy_op *)self;
    (void)unused;
    Py_CLEAR(o->timer);
    if (o->state == OP_PARKED) {
        klawpy_abandon(o);
        o->state = OP_EXPIRED;
        if (schedule(o) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* --- for trio's side (klaw_core.runtime._trio) --- */
static PyObject *method_start(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_op *o = (klawpy_op *)self;
    klawpy_state *st = klawpy_op_state_of(o);
    if (n != 2 || !PyObject_TypeCheck(args[0], st->inbox_type)) {
        PyErr_SetString(PyExc_TypeError, "_start(inbox, callback)");
        return NULL;
    }
    will_wait(o);
    Py_XSETREF(o->inbox, (klawpy_inbox *)Py_NewRef(args[0]));
    Py_CLEAR(o->callback); /* not called for what is granted at once: the task runs */
    outcome r = enlist(st, o);
    o->state = OP_DELEGATED;
    if (r == FAIL)
        return NULL;
    if (r == WAIT)
        o->callback = Py_NewRef(args[1]);
    return PyBool_FromLong(r == WAIT);
}

static PyObject *method_abandon(PyObject *self, PyObject *unused) {
    klawpy_op *o = (klawpy_op *)self;
    (void)unused;
    klawpy_abandon(o);
    Py_CLEAR(o->callback);
    Py_RETURN_NONE;
}

/* --- life --- */
/* From the free list, or new; all fields but the first few zero. */
static klawpy_op *take(klawpy_state *st) {
    klawpy_op *o = st->free_ops;
    if (!o) {
        o = PyObject_GC_New(klawpy_op, st->op_type);
        if (o)
            memset((char *)o + sizeof(PyObject), 0, sizeof *o - sizeof(PyObject));
        return o;
    }
    st->free_ops = o->next_free;
    st->free_count--;
    o->next_free = NULL;
    klawpy_revive((PyObject *)o, st->op_type);
    return o;
}

PyObject *klawpy_op_new(klawpy_state *st, klawpy_verb verb, klawpy_end *e, PyObject *value,
                        Py_ssize_t max, double timeout) {
    klawpy_op *o = take(st);
    if (!o)
        return NULL;
    o->verb = (uint8_t)verb;
    o->state = OP_NEW;
    o->end = (klawpy_end *)Py_NewRef((PyObject *)e);
    o->value = Py_XNewRef(value);
    o->max = max < INT32_MAX ? (int32_t)max : INT32_MAX;
    o->timeout = timeout;
    if (value && PyType_IS_GC(Py_TYPE(value)))
        track(o);
    return (PyObject *)o;
}

static int op_traverse(PyObject *self, visitproc visit, void *arg) {
    klawpy_op *o = (klawpy_op *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(o->end);
    Py_VISIT(o->value);
    Py_VISIT(o->inbox);
    Py_VISIT(o->callback);
    Py_VISIT(o->extra);
    Py_VISIT(o->timer);
    Py_VISIT(o->delegate);
    return 0;
}

static int op_clear(PyObject *self) {
    klawpy_op *o = (klawpy_op *)self;
    klawpy_abandon(o);
    Py_CLEAR(o->value);
    Py_CLEAR(o->callback);
    Py_CLEAR(o->extra);
    Py_CLEAR(o->timer);
    Py_CLEAR(o->delegate);
    return 0;
}

static void op_finalize(PyObject *self) {
    klawpy_op *o = (klawpy_op *)self;
    o->finalized = true;
    if (o->state != OP_NEW || o->verb >= KLAWPY_CLOSE)
        return;
    klawpy_never_awaited(self, verbs[o->verb]);
}

static void op_dealloc(PyObject *self) {
    klawpy_op *o = (klawpy_op *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (o->state == OP_NEW && PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    if (o->tracked) {
        o->tracked = false;
        PyObject_GC_UnTrack(self);
    }
    if (o->weaklist)
        PyObject_ClearWeakRefs(self);
    if (o->has_waited) {
        klawpy_abandon(o);
        Py_CLEAR(o->timer); /* one that will still fire holds the operation */
        forget_wait(o);
        Py_CLEAR(o->delegate);
        o->blocking = o->has_waited = false;
    }
    Py_CLEAR(o->value);
    klawpy_end *e = o->end;
    klawpy_state *st = e->chan->st;
    /* Finalizers run once in an object's life: one that has been finalized is not used again. */
    if (!o->finalized && st->op_type && st->free_count < KLAWPY_FREE_OPS) {
        o->next_free = st->free_ops;
        st->free_ops = o;
        st->free_count++;
    } else {
        PyObject_GC_Del(o);
    }
    Py_DECREF(e); /* last: st goes with the module, which the channel holds */
    Py_DECREF(type);
}

void klawpy_op_free_all(klawpy_state *st) {
    while (st->free_ops) {
        klawpy_op *o = st->free_ops;
        st->free_ops = o->next_free;
        PyObject_GC_Del(o);
    }
    st->free_count = 0;
}

static PyObject *op_repr(PyObject *self) {
    static const char *const states[] = {"new",     "waiting", "granted", "cancelled",
                                         "expired", "waiting", "waiting", "done"};
    klawpy_op *o = (klawpy_op *)self;
    return PyUnicode_FromFormat("<%s %s at %p>", verbs[o->verb], states[o->state], self);
}

static PyMethodDef methods[] = {
    {"send", klawpy_coro_send, METH_O, "send($self, value, /)\n--\n\nAs a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))method_throw, METH_FASTCALL,
     "As a coroutine's: leaves the wait; a grant goes to the next who waits."},
    {"close", method_close, METH_NOARGS, "close($self, /)\n--\n\nAs a coroutine's."},
    {"add_done_callback", (PyCFunction)(void (*)(void))method_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, "As a future's; there is one callback."},
    {"remove_done_callback", method_remove_done_callback, METH_O,
     "remove_done_callback($self, fn, /)\n--\n\nAs a future's."},
    {"cancel", (PyCFunction)(void (*)(void))method_cancel, METH_FASTCALL | METH_KEYWORDS,
     "As a future's: nothing that the channel holds is lost."},
    {"result", method_result, METH_NOARGS, "result($self, /)\n--\n\nAs a future's."},
    {"done", method_done, METH_NOARGS, "done($self, /)\n--\n\nAs a future's."},
    {"_expire", method_expire, METH_NOARGS, NULL},
    {"_start", (PyCFunction)(void (*)(void))method_start, METH_FASTCALL, NULL},
    {"_abandon", method_abandon, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_name(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(verbs[((klawpy_op *)self)->verb]);
}

static PyGetSetDef getset[] = {
    {"__name__", get_name, NULL, NULL, NULL},
    {"__qualname__", get_name, NULL, NULL, NULL},
    {"_asyncio_future_blocking", get_blocking, set_blocking, NULL, NULL},
    {"_loop", get_loop, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(klawpy_op, weaklist), READONLY, NULL},
    {"_timeout", T_DOUBLE, offsetof(klawpy_op, timeout), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_finalize, op_finalize},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_repr, op_repr},
    {Py_tp_iter, klawpy_coro_self},
    {Py_tp_iternext, klawpy_coro_next},
    {Py_am_await, klawpy_coro_self},
    {Py_am_send, op_send_},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, "An operation on a channel, to be awaited: a coroutine written in C."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Operation",
    .basicsize = sizeof(klawpy_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int klawpy_op_init(PyObject *module, klawpy_state *st) {
    return (st->op_type = klawpy_add_type(module, &spec, NULL)) ? 0 : -1;
}
