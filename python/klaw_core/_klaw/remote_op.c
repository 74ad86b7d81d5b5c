/* SPDX-License-Identifier: Apache-2.0 */
/* remote_op.c - sends to and receives from a hub as awaitables: real coroutines, written in C, awaited as
 * those of op.c under asyncio, uvloop and trio.
 *
 * A send hands its item to the hub and waits for the event that tells what became of it; when the hub
 * has no room it stands in `rooms` first, from where the hub's own step queues it. A receive takes what
 * is there, else it stands in `takers` (remote_wait.c).
 *
 *   NEW --nothing to wait for--> DONE
 *    | starts
 *   PARKED --told, pumped--> GRANTED --send: finish--> DONE   (a receive that found nothing: NEW again)
 *    |--cancel()--> CANCELLED --throw--> DONE
 *    |--timer-----> EXPIRED --send: the timeout's answer--> DONE
 *
 * A send that is cancelled on its way is not reported as uncertain: CancelledError is what it raises, and
 * the attribute `uncertain` says whether it may have happened. A timeout raises UncertainError then. */
#include "coro.h"
#include "hub.h"

#include <stddef.h>
#include <structmember.h>

#define TURN 128

static __thread unsigned immediate;

static const char *name_of(const klawpy_remote_op *o) {
    return o->receives ? "Hub.recv_op" : "Hub.send_op";
}

static void forget_wait(klawpy_remote_op *o) {
    PyObject *timer = o->timer;
    o->timer = NULL;
    klawpy_timer_cancel(o->hub->st, timer);
    Py_CLEAR(o->callback);
    Py_CLEAR(o->context);
    klawpy_remote_forget(o);
}

/* asyncio's loop, borrowed; NULL: it is trio that waits, or nobody. */
static PyObject *loop_of(klawpy_remote_op *o) {
    PyObject *ref = o->inbox ? o->inbox->loop : NULL, *loop = ref ? PyWeakref_GetObject(ref) : NULL;
    return loop == Py_None ? NULL : loop;
}

static int start_timer(klawpy_state *st, klawpy_remote_op *o) {
    if (o->timeout >= 0 && !o->timer)
        o->timer = klawpy_timer_new(st, loop_of(o), (PyObject *)o, o->timeout);
    return o->timeout < 0 || o->timer ? 0 : -1;
}

static outcome delegate(klawpy_remote_op *o, const char *function) {
    o->delegate = klawpy_trio((PyObject *)o, function);
    if (!o->delegate)
        return FAIL;
    o->state = OP_DELEGATED;
    return WAIT;
}

static outcome park(klawpy_state *st, klawpy_remote_op *o) {
    if (o->receives && o->timeout == 0)
        return klawpy_remote_expired(o, false);
    PyObject *loop = klawpy_running_loop(st);
    if (!loop)
        return FAIL;
    immediate = 0;
    if (loop == Py_None) {
        Py_DECREF(loop);
        return delegate(o, "park");
    }
    if (!o->inbox)
        o->inbox = klawpy_inbox_of_loop(st, loop);
    Py_DECREF(loop);
    if (!o->inbox)
        return FAIL;
    outcome r = klawpy_remote_start(o);
    if (r == WAIT && start_timer(st, o) < 0) {
        (void)klawpy_remote_abandon(o);
        return FAIL;
    }
    return r;
}

/* --- the coroutine --- */
static PySendResult end(klawpy_remote_op *o, outcome r, PyObject *value, PyObject **result) {
    if (o->waits || o->told) {
        PyObject *type, *v, *trace;
        PyErr_Fetch(&type, &v, &trace);
        if (klawpy_remote_abandon(o))
            o->kind = KLAW_HUB_UNCERTAIN;
        PyErr_Restore(type, v, trace);
    }
    klawpy_remote_uncount(o);
    if (o->inbox || o->timer || o->callback)
        forget_wait(o);
    Py_CLEAR(o->got);
    o->state = OP_DONE;
    *result = r == DONE ? value : NULL;
    return r == DONE ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult advance(klawpy_state *st, klawpy_remote_op *o, PyObject **result) {
    PyObject *value = NULL;
    outcome r = WAIT;
    for (;;) {
        if (o->state == OP_GRANTED) {
            r = klawpy_remote_finish(o, &value);
            if (r == WAIT)
                o->state = OP_NEW;
        } else if (o->state == OP_EXPIRED) {
            r = klawpy_remote_expired(o, o->kind == KLAW_HUB_UNCERTAIN);
        } else {
            r = klawpy_remote_attempt(o, &value);
        }
        if (r != WAIT)
            return end(o, r, value, result);
        r = park(st, o);
        if (r == DONE)
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

static PySendResult drive(klawpy_state *st, klawpy_remote_op *o, PyObject *arg, PyObject **result) {
    for (;;) {
        PySendResult r = PyIter_Send(o->delegate, arg, result);
        if (r == PYGEN_NEXT)
            return r;
        Py_CLEAR(o->delegate);
        if (r == PYGEN_ERROR)
            return end(o, FAIL, NULL, result);
        PyObject *said = *result;
        o->state = said == Py_True ? OP_GRANTED : said == Py_False ? OP_EXPIRED : OP_NEW;
        Py_DECREF(said);
        r = advance(st, o, result);
        if (r != PYGEN_NEXT || o->state != OP_DELEGATED)
            return r;
        arg = Py_None;
    }
}

/* Lets the loop run before the next of many that need not wait. */
static PySendResult give_way(klawpy_state *st, klawpy_remote_op *o, PyObject **result) {
    immediate = 0;
    PyObject *loop = klawpy_running_loop(st);
    if (!loop)
        return end(o, FAIL, NULL, result);
    Py_DECREF(loop);
    if (loop != Py_None) {
        o->state = OP_YIELDED;
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    if (delegate(o, "checkpoint") == FAIL)
        return end(o, FAIL, NULL, result);
    return drive(st, o, Py_None, result);
}

static PySendResult op_send_(PyObject *self, PyObject *arg, PyObject **result) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    klawpy_state *st = o->hub->st;
    *result = NULL;
    if (o->delegate)
        return drive(st, o, arg, result);
    switch ((klawpy_op_state)o->state) {
    case OP_NEW:
        if (arg != Py_None) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        if (++immediate >= TURN && o->receives)
            return give_way(st, o, result);
        break;
    case OP_YIELDED: o->state = OP_NEW; break;
    case OP_PARKED: /* nobody woke us: wait on */
        o->blocking = true;
        *result = Py_NewRef(self);
        return PYGEN_NEXT;
    case OP_CANCELLED: PyErr_SetNone(st->cancelled_error); return end(o, FAIL, NULL, result);
    case OP_DONE:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    default: break;
    }
    PySendResult r = advance(st, o, result);
    if (r == PYGEN_NEXT && o->state == OP_DELEGATED)
        return drive(st, o, Py_None, result);
    return r;
}

static PyObject *method_throw(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    PyObject *value = NULL;
    if (!klawpy_throw_args(n))
        return NULL;
    if (o->delegate) {
        PyObject *r = klawpy_delegate_throw(o->delegate, args, n, &value);
        if (r)
            return r; /* it yielded on */
        if (value) {
            klawpy_state *st = o->hub->st;
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
    klawpy_remote_op *o = (klawpy_remote_op *)self;
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
    if (((klawpy_remote_op *)self)->state == OP_NEW)
        Py_RETURN_NONE;
    return PyBool_FromLong(((klawpy_remote_op *)self)->blocking);
}

static int set_blocking(PyObject *self, PyObject *v, void *unused) {
    (void)unused;
    int is = v ? PyObject_IsTrue(v) : 0;
    if (is < 0)
        return -1;
    ((klawpy_remote_op *)self)->blocking = is;
    return 0;
}

static PyObject *method_get_loop(PyObject *self, PyObject *unused) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    (void)unused;
    PyObject *loop = loop_of(o);
    return Py_NewRef(loop ? loop : Py_None);
}

static PyObject *method_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                          PyObject *kwnames) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    if (n != 1 || (kwnames && PyTuple_GET_SIZE(kwnames) > 1)) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(fn, *, context=None)");
        return NULL;
    }
    Py_XSETREF(o->callback, Py_NewRef(args[0]));
    Py_XSETREF(o->context, kwnames && PyTuple_GET_SIZE(kwnames) ? Py_NewRef(args[1]) : NULL);
    if (o->state != OP_PARKED && klawpy_remote_schedule(o) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *method_remove_done_callback(PyObject *self, PyObject *fn) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    if (!o->callback)
        return PyLong_FromLong(0);
    int same = PyObject_RichCompareBool(o->callback, fn, Py_EQ);
    if (same < 0)
        return NULL;
    if (same) {
        Py_CLEAR(o->callback);
        Py_CLEAR(o->context);
    }
    return PyLong_FromLong(same);
}

/* By Task.cancel, on what it waits for. */
static PyObject *method_cancel(PyObject *self, PyObject *const *args, Py_ssize_t n,
                               PyObject *kwnames) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    if (o->state != OP_PARKED || o->told)
        Py_RETURN_FALSE; /* told: the task throws it in when it runs */
    o->kind = klawpy_remote_abandon(o) ? KLAW_HUB_UNCERTAIN : KLAW_HUB_UNSENT;
    o->state = OP_CANCELLED;
    if (n + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0) > 0)
        Py_XSETREF(o->message, Py_NewRef(args[0]));
    if (klawpy_hub_ring(o->hub) < 0 || klawpy_remote_schedule(o) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* What the task asks when it is woken. */
static PyObject *method_result(PyObject *self, PyObject *unused) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    klawpy_state *st = o->hub->st;
    (void)unused;
    if (o->state != OP_CANCELLED)
        Py_RETURN_NONE;
    if (o->message && o->message != Py_None)
        PyErr_SetObject(st->cancelled_error, o->message);
    else
        PyErr_SetNone(st->cancelled_error);
    return NULL;
}

static PyObject *method_done(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(((klawpy_remote_op *)self)->state != OP_PARKED);
}

/* The timer of a wait. */
static PyObject *method_expire(PyObject *self, PyObject *unused) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    (void)unused;
    Py_CLEAR(o->timer);
    if (o->state == OP_PARKED && !o->told) {
        o->kind = klawpy_remote_abandon(o) ? KLAW_HUB_UNCERTAIN : KLAW_HUB_UNSENT;
        o->state = OP_EXPIRED;
        if (klawpy_remote_schedule(o) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* --- for trio's side (klaw_core.runtime._trio) --- */
static PyObject *method_start(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    klawpy_state *st = o->hub->st;
    if (n != 2 || !PyObject_TypeCheck(args[0], st->inbox_type)) {
        PyErr_SetString(PyExc_TypeError, "_start(inbox, callback)");
        return NULL;
    }
    klawpy_remote_forget(o);
    o->inbox = (klawpy_inbox *)Py_NewRef(args[0]);
    outcome r = klawpy_remote_start(o);
    o->state = OP_DELEGATED;
    if (r == FAIL)
        return NULL;
    if (r == WAIT) /* not before: a task that runs can't be woken */
        Py_XSETREF(o->callback, Py_NewRef(args[1]));
    return PyBool_FromLong(r == WAIT);
}

static PyObject *method_abandon(PyObject *self, PyObject *unused) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    (void)unused;
    if (o->waits || o->told)
        o->kind = klawpy_remote_abandon(o) ? KLAW_HUB_UNCERTAIN : KLAW_HUB_UNSENT;
    Py_CLEAR(o->callback);
    if (klawpy_hub_ring(o->hub) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- life --- */
static klawpy_remote_op *make(klawpy_hub *hub, bool receives) {
    klawpy_state *st = hub->st;
    klawpy_remote_op *o = st->free_remote;
    if (o) {
        st->free_remote = o->next_free;
        st->free_remote_count--;
        PyObject_Init((PyObject *)o, st->remote_op_type);
    } else if (!(o = PyObject_GC_New(klawpy_remote_op, st->remote_op_type))) {
        return NULL;
    }
    o->state = OP_NEW;
    o->receives = receives;
    o->blocking = o->waits = o->told = o->parked = false;
    o->counted = 0;
    o->most = 0;
    o->kind = KLAW_HUB_UNSENT;
    o->error = KLAW_CLOSED;
    o->hub = (klawpy_hub *)Py_NewRef((PyObject *)hub);
    o->endpoint = o->ticket = o->lease = 0;
    o->payload = o->attachment = o->extra = o->got = NULL;
    o->deadline = 0;
    o->flags = 0;
    o->codec = 0;
    o->timeout = -1;
    o->inbox = NULL;
    o->callback = o->context = o->timer = o->message = o->delegate = NULL;
    o->list = NULL;
    o->next = o->back = NULL;
    o->weaklist = NULL;
    return o;
}

static bool seconds(PyObject *o, double *out) {
    if (o == Py_None)
        return true;
    *out = PyFloat_AsDouble(o);
    return !(*out == -1 && PyErr_Occurred());
}

static klawpy_remote_op *send_new(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    if (n < 3 || n > 8) {
        PyErr_SetString(PyExc_TypeError, "(endpoint, payload, codec, flags=0, attachment=None, "
                                         "context=b'', deadline=0.0, timeout=-1.0)");
        return NULL;
    }
    klawpy_remote_op *o = make((klawpy_hub *)hub, false);
    if (!o)
        return NULL;
    double deadline = 0;
    o->endpoint = PyLong_AsUnsignedLongLong(args[0]);
    o->payload = Py_NewRef(args[1]);
    o->codec = (int)PyLong_AsLong(args[2]);
    bool good = !PyErr_Occurred();
    if (good && n > 3) {
        o->flags = (uint32_t)PyLong_AsUnsignedLong(args[3]);
        good = !PyErr_Occurred();
    }
    if (n > 4 && args[4] != Py_None)
        o->attachment = Py_NewRef(args[4]);
    if (good && n > 5 && args[5] != Py_None) {
        good = PyBytes_Check(args[5]);
        if (!good)
            PyErr_SetString(PyExc_TypeError, "a context is bytes");
        else if (PyBytes_GET_SIZE(args[5]) > 0)
            o->extra = Py_NewRef(args[5]);
    }
    if (good && n > 6 && (good = seconds(args[6], &deadline)))
        o->deadline = klawpy_ns(deadline);
    good = good && (n <= 7 || seconds(args[7], &o->timeout));
    if (good && !PyBytes_CheckExact(o->payload)) { /* offered again later: as it is now */
        PyObject *copy = PyBytes_FromObject(o->payload);
        good = copy != NULL;
        if (copy)
            Py_SETREF(o->payload, copy);
    }
    PyObject_GC_Track(o);
    if (!good) {
        o->state = OP_DONE;
        Py_CLEAR(o);
    }
    return o;
}

static klawpy_remote_op *recv_new(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    if (n < 1 || n > 4) {
        PyErr_SetString(PyExc_TypeError, "(endpoint, lease=0, timeout=-1.0, most=0)");
        return NULL;
    }
    klawpy_remote_op *o = make((klawpy_hub *)hub, true);
    if (!o)
        return NULL;
    o->endpoint = PyLong_AsUnsignedLongLong(args[0]);
    bool good = !PyErr_Occurred();
    if (good && n > 1) {
        o->lease = PyLong_AsUnsignedLongLong(args[1]);
        good = !PyErr_Occurred();
    }
    good = good && (n <= 2 || seconds(args[2], &o->timeout));
    if (good && n > 3) {
        unsigned long most = PyLong_AsUnsignedLong(args[3]);
        good = !PyErr_Occurred();
        o->most = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
    }
    PyObject_GC_Track(o);
    if (!good) {
        o->state = OP_DONE;
        Py_CLEAR(o);
    }
    return o;
}

PyObject *klawpy_remote_send(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    return (PyObject *)send_new(hub, args, n);
}
PyObject *klawpy_remote_recv(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    return (PyObject *)recv_new(hub, args, n);
}

PyObject *klawpy_remote_send_wait(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    klawpy_remote_op *o = send_new(hub, args, n);
    return o ? klawpy_remote_run(o) : NULL;
}
PyObject *klawpy_remote_recv_wait(PyObject *hub, PyObject *const *args, Py_ssize_t n) {
    klawpy_remote_op *o = recv_new(hub, args, n);
    return o ? klawpy_remote_run(o) : NULL;
}

static int op_traverse(PyObject *self, visitproc visit, void *arg) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(o->hub);
    Py_VISIT(o->payload);
    Py_VISIT(o->attachment);
    Py_VISIT(o->got);
    Py_VISIT(o->inbox);
    Py_VISIT(o->callback);
    Py_VISIT(o->context);
    Py_VISIT(o->timer);
    Py_VISIT(o->message);
    Py_VISIT(o->delegate);
    return 0;
}

static int op_clear(PyObject *self) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    if (o->waits || o->told)
        (void)klawpy_remote_abandon(o);
    Py_CLEAR(o->payload);
    Py_CLEAR(o->attachment);
    Py_CLEAR(o->got);
    Py_CLEAR(o->callback);
    Py_CLEAR(o->context);
    Py_CLEAR(o->timer);
    Py_CLEAR(o->message);
    Py_CLEAR(o->delegate);
    return 0;
}

static void op_finalize(PyObject *self) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    if (o->state != OP_NEW)
        return;
    klawpy_never_awaited(self, name_of(o));
}

static void op_dealloc(PyObject *self) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (o->state == OP_NEW && PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (o->weaklist)
        PyObject_ClearWeakRefs(self);
    if (o->waits || o->told)
        (void)klawpy_remote_abandon(o);
    klawpy_remote_uncount(o);
    klawpy_remote_unlink(o);
    if (o->inbox || o->timer || o->callback || o->context)
        forget_wait(o);
    Py_CLEAR(o->payload);
    Py_CLEAR(o->attachment);
    Py_CLEAR(o->extra);
    Py_CLEAR(o->got);
    Py_CLEAR(o->message);
    Py_CLEAR(o->delegate);
    klawpy_hub *hub = o->hub;
    klawpy_state *st = hub->st;
    /* Finalizers run once in an object's life: one that has been finalized is not used again. */
    if (!PyObject_GC_IsFinalized(self) && st->remote_op_type &&
        st->free_remote_count < KLAWPY_FREE_OPS) {
        o->next_free = st->free_remote;
        st->free_remote = o;
        st->free_remote_count++;
    } else {
        PyObject_GC_Del(o);
    }
    Py_DECREF(hub);
    Py_DECREF(type);
}

void klawpy_remote_free_all(klawpy_state *st) {
    while (st->free_remote) {
        klawpy_remote_op *o = st->free_remote;
        st->free_remote = o->next_free;
        PyObject_GC_Del(o);
    }
    st->free_remote_count = 0;
}

static PyObject *op_repr(PyObject *self) {
    static const char *const states[] = {"new",     "waiting", "granted", "cancelled",
                                         "expired", "waiting", "waiting", "done"};
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    return PyUnicode_FromFormat("<%s %s at %p>", name_of(o), states[o->state], self);
}

static PyObject *get_uncertain(PyObject *self, void *unused) {
    klawpy_remote_op *o = (klawpy_remote_op *)self;
    (void)unused;
    return PyBool_FromLong(!o->receives && o->kind == KLAW_HUB_UNCERTAIN);
}

static PyMethodDef methods[] = {
    {"send", klawpy_coro_send, METH_O, "send($self, value, /)\n--\n\nAs a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))method_throw, METH_FASTCALL,
     "As a coroutine's: leaves the wait; what has come goes to the next who waits."},
    {"close", method_close, METH_NOARGS, "close($self, /)\n--\n\nAs a coroutine's."},
    {"get_loop", method_get_loop, METH_NOARGS, "get_loop($self, /)\n--\n\nAs a future's."},
    {"add_done_callback", (PyCFunction)(void (*)(void))method_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, "As a future's; there is one callback."},
    {"remove_done_callback", method_remove_done_callback, METH_O,
     "remove_done_callback($self, fn, /)\n--\n\nAs a future's."},
    {"cancel", (PyCFunction)(void (*)(void))method_cancel, METH_FASTCALL | METH_KEYWORDS,
     "As a future's: withdraws the send, if that is still possible."},
    {"result", method_result, METH_NOARGS, "result($self, /)\n--\n\nAs a future's."},
    {"done", method_done, METH_NOARGS, "done($self, /)\n--\n\nAs a future's."},
    {"_expire", method_expire, METH_NOARGS, NULL},
    {"_start", (PyCFunction)(void (*)(void))method_start, METH_FASTCALL, NULL},
    {"_abandon", method_abandon, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"_asyncio_future_blocking", get_blocking, set_blocking, NULL, NULL},
    {"uncertain", get_uncertain, NULL,
     "A send that was given up, and may have happened all the same.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(klawpy_remote_op, weaklist), READONLY, NULL},
    {"_timeout", T_DOUBLE, offsetof(klawpy_remote_op, timeout), READONLY, NULL},
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
    {Py_tp_doc, "A send or a receive of a remote channel, to be awaited: a coroutine in C."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.RemoteOperation",
    .basicsize = sizeof(klawpy_remote_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int klawpy_remote_op_init(PyObject *module, klawpy_state *st) {
    return (st->remote_op_type = klawpy_add_type(module, &spec, NULL)) ? 0 : -1;
}
