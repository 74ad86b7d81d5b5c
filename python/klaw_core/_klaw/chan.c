/* SPDX-License-Identifier: Apache-2.0 */
/* chan.c - channels of Python objects over libklaw: Sender and Receiver of every kind.
 *
 * The element of the klaw channel is a reference (PyObject *). The queue belongs to one Python object,
 * the Channel, which endpoints share: its traversal visits each queued element once, so that a cycle
 * through a channel is collected. It needs no lock, because queued elements are only touched with the
 * GIL held (op.c).
 *
 * An endpoint that is collected closes itself. The handles of the first two endpoints stay with the
 * Channel until it goes, those of clones with their endpoint. With KLAW_DEBUG=1 an endpoint that is
 * collected open is warned about, with the place where it was made. */
#include "chan.h"

#include <stddef.h>
#include <stdlib.h>
#include <structmember.h>

#include "inbox.h"
#include "op.h"
#include "result.h"

/* --- the element --- */
/* Only Python closes such a channel, so the GIL is held. (PyGILState_Ensure knows one interpreter.) */
static void drop_object(void *elem) {
    Py_XDECREF(*(PyObject **)elem);
}

static klaw_err share_object(const void *from, void *to) {
    *(PyObject **)to = Py_NewRef(*(PyObject *const *)from);
    return KLAW_OK;
}

const klaw_type klawpy_object_type = {
    .name = "python.object",
    .size = sizeof(PyObject *),
    .drop = drop_object,
    .share = share_object,
};

/* --- the Channel --- */
struct visiting {
    visitproc visit;
    void *arg;
    int result;
};

static void visit_element(void *elem, void *user) {
    struct visiting *v = user;
    PyObject *o = *(PyObject **)elem;
    if (v->result == 0 && o)
        v->result = v->visit(o, v->arg);
}

static int chan_traverse(PyObject *self, visitproc visit, void *arg) {
    struct visiting v = {visit, arg, 0};
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((klawpy_chan *)self)->validator);
    Py_VISIT(((klawpy_chan *)self)->module);
    if (((klawpy_chan *)self)->elem ==
        KLAWPY_OBJECT) /* others hold nothing of Python, and work on */
        klaw_receiver_visit(((klawpy_chan *)self)->rx, visit_element, &v);
    return v.result;
}

static int chan_clear(PyObject *self) {
    klawpy_chan *c = (klawpy_chan *)self;
    klaw_inbox *held = klawpy_enter();
    klaw_sender_close(c->tx);
    klaw_receiver_close(c->rx);
    klawpy_leave(held);
    Py_CLEAR(c->validator);
    return 0;
}

static void chan_dealloc(PyObject *self) {
    klawpy_chan *c = (klawpy_chan *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    klaw_sender *tx = c->tx;
    klaw_receiver *rx = c->rx;
    klaw_inbox *held = klawpy_enter();
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    klawpy_leave(held);
    Py_CLEAR(c->validator);
    Py_CLEAR(c->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot chan_slots[] = {
    {Py_tp_dealloc, chan_dealloc},
    {Py_tp_traverse, chan_traverse},
    {Py_tp_clear, chan_clear},
    {Py_tp_doc, "The queue that endpoints share."},
    {0, NULL},
};

static PyType_Spec chan_spec = {
    .name = "klaw_core._klaw.Channel",
    .basicsize = sizeof(klawpy_chan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = chan_slots,
};

/* --- endpoints --- */
static inline klawpy_end *end_of(PyObject *self) {
    return (klawpy_end *)self;
}

void klawpy_end_close(klawpy_end *e) {
    if (e->closed)
        return;
    e->closed = true;
    klaw_inbox *held = klawpy_enter();
    if (e->tx)
        klaw_sender_close(e->tx);
    else
        klaw_receiver_close(e->rx);
    klawpy_leave(held);
}

/* "file.py:12" of the innermost Python frame, when KLAW_DEBUG asks for it. NULL: it does not. */
static PyObject *here(void) {
    const char *debug = getenv("KLAW_DEBUG");
    if (!debug || !*debug || *debug == '0')
        return NULL;
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame)
        return NULL;
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *text = PyUnicode_FromFormat("%U:%d", code->co_filename, PyFrame_GetLineNumber(frame));
    Py_DECREF(code);
    if (!text)
        PyErr_Clear();
    return text;
}

PyObject *klawpy_end_make(PyTypeObject *type, klawpy_chan *chan, klaw_sender *tx, klaw_receiver *rx,
                          bool owned) {
    klawpy_end *e = (klawpy_end *)type->tp_alloc(type, 0);
    if (!e)
        return NULL;
    e->chan = (klawpy_chan *)Py_NewRef((PyObject *)chan);
    e->tx = tx;
    e->rx = rx;
    e->owned = owned;
    e->made_at = here();
    return (PyObject *)e;
}

static int end_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(end_of(self)->chan);
    return 0;
}

static void end_finalize(PyObject *self) {
    klawpy_end *e = end_of(self);
    if (e->closed || !e->chan)
        return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (e->made_at && PyErr_WarnFormat(PyExc_ResourceWarning, 1, "unclosed %s, made at %U",
                                       Py_TYPE(self)->tp_name, e->made_at) < 0)
        PyErr_WriteUnraisable(self);
    klawpy_end_close(e);
    PyErr_Restore(type, value, trace);
}

static void end_dealloc(PyObject *self) {
    klawpy_end *e = end_of(self);
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (e->weaklist)
        PyObject_ClearWeakRefs(self);
    if (e->owned) {
        klaw_sender_unref(e->tx);
        klaw_receiver_unref(e->rx);
    }
    Py_CLEAR(e->chan);
    Py_CLEAR(e->made_at);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Seconds of a timeout argument; None and NULL: none (-1). Negative counts as 0. False with an exception
 * set. */
bool klawpy_seconds(PyObject *o, double *out) {
    *out = -1;
    if (!o || o == Py_None)
        return true;
    double s = PyFloat_AsDouble(o);
    if (s == -1 && PyErr_Occurred())
        return false;
    if (s != s) {
        PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds or None, not NaN");
        return false;
    }
    *out = s < 0 ? 0 : s > 1e15 ? -1 : s;
    return true;
}

static PyObject *op(PyObject *self, klawpy_verb verb, PyObject *value, Py_ssize_t max,
                    double timeout) {
    return klawpy_op_new(end_of(self)->chan->st, verb, end_of(self), value, max, timeout);
}

static PyObject *run(PyObject *self, klawpy_verb verb, PyObject *value, Py_ssize_t max,
                     double timeout) {
    return klawpy_op_run(end_of(self)->chan->st, verb, end_of(self), value, max, timeout);
}

/* (max_items, timeout=None) or (timeout=None). */
static bool limits(PyObject *const *args, Py_ssize_t n, PyObject *kwnames, Py_ssize_t *max,
                   double *timeout) {
    if (!max && n == 1 && !kwnames) /* recv(None), recv(0.5) */
        return klawpy_seconds(args[0], timeout);
    PyObject *tuple = PyTuple_New(n), *kwargs = kwnames ? PyDict_New() : NULL, *seconds = NULL;
    static char *with[] = {"max_items", "timeout", NULL}, *without[] = {"timeout", NULL};
    bool ok = tuple && (!kwnames || kwargs);
    for (Py_ssize_t i = 0; ok && i < n; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    for (Py_ssize_t i = 0; ok && kwnames && i < PyTuple_GET_SIZE(kwnames); i++)
        ok = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, i), args[n + i]) == 0;
    ok = ok && (max ? PyArg_ParseTupleAndKeywords(tuple, kwargs, "n|O", with, max, &seconds)
                    : PyArg_ParseTupleAndKeywords(tuple, kwargs, "|O", without, &seconds));
    ok = ok && klawpy_seconds(seconds, timeout);
    if (ok && max && *max < 1) {
        PyErr_SetString(PyExc_ValueError, "max_items has to be at least 1");
        ok = false;
    }
    Py_XDECREF(tuple);
    Py_XDECREF(kwargs);
    return ok;
}

static PyObject *end_close(PyObject *self, PyObject *unused) {
    (void)unused;
    return op(self, KLAWPY_CLOSE, NULL, 0, -1);
}

static PyObject *end_close_sync(PyObject *self, PyObject *unused) {
    (void)unused;
    klawpy_end_close(end_of(self));
    Py_RETURN_NONE;
}

static PyObject *end_aenter(PyObject *self, PyObject *unused) {
    (void)unused;
    return op(self, KLAWPY_ENTER, NULL, 0, -1);
}

static PyObject *end_aexit(PyObject *self, PyObject *unused) {
    (void)unused;
    return op(self, KLAWPY_CLOSE, NULL, 0, -1);
}

static PyObject *end_enter(PyObject *self, PyObject *unused) {
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *end_exit(PyObject *self, PyObject *unused) {
    return end_close_sync(self, unused);
}

static PyObject *get_capacity(PyObject *self, void *unused) {
    (void)unused;
    int64_t c = end_of(self)->chan->capacity;
    if (c == KLAW_UNBOUNDED)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(c == KLAW_RENDEZVOUS ? 0 : c);
}

static PyObject *end_stats(PyObject *self, PyObject *unused) {
    klawpy_end *e = end_of(self);
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    klaw_channel_stats s;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err err = e->tx ? klaw_sender_stats(e->tx, &s) : klaw_receiver_stats(e->rx, &s);
    if (err)
        return klawpy_raise_code(st, err);
    PyObject *module = PyImport_ImportModule("klaw_core.runtime.channels.stats");
    PyObject *type = module ? PyObject_GetAttrString(module, "ChannelStats") : NULL, *r = NULL;
    PyObject *fields =
        type ? Py_BuildValue("{s:K,s:K,s:K,s:N,s:O,s:O,s:d,s:K,s:K,s:K,s:{s:s,s:s,s:K,s:K}}",
                             "sender_count", s.sender_count, "receiver_count", s.receiver_count,
                             "queue_size", s.queue_size, "capacity", get_capacity(self, NULL),
                             "senders_closed", s.senders_closed ? Py_True : Py_False,
                             "receivers_closed", s.receivers_closed ? Py_True : Py_False,
                             "created_at", (double)s.created_at / 1e9, "high_watermark",
                             s.high_watermark, "total_sent", s.total_sent, "total_received",
                             s.total_received, "backend_extras", "name", s.name, "kind", s.kind,
                             "waiting_senders", s.waiting_senders, "waiting_receivers",
                             s.waiting_receivers)
             : NULL;
    PyObject *empty = fields ? PyTuple_New(0) : NULL;
    if (empty)
        r = PyObject_Call(type, empty, fields);
    Py_XDECREF(empty);
    Py_XDECREF(fields);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return r;
}

static PyObject *end_clone(PyObject *self, PyObject *unused) {
    klawpy_end *e = end_of(self);
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err err = e->tx ? klaw_sender_clone(e->tx, &tx) : klaw_receiver_clone(e->rx, &rx);
    if (err == KLAW_INVALID) {
        PyErr_Format(PyExc_TypeError, "%s can't be cloned", Py_TYPE(self)->tp_name);
        return NULL;
    }
    if (err)
        return klawpy_raise_code(st, err);
    PyObject *r = klawpy_end_make(Py_TYPE(self), e->chan, tx, rx, true);
    if (!r) {
        klaw_sender_unref(tx);
        klaw_receiver_unref(rx);
    }
    return r;
}

static PyObject *get_closed(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(end_of(self)->closed);
}

static PyObject *end_repr(PyObject *self) {
    klawpy_end *e = end_of(self);
    klaw_channel_stats s;
    klaw_err err = e->tx ? klaw_sender_stats(e->tx, &s) : klaw_receiver_stats(e->rx, &s);
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    name = name ? name + 1 : Py_TYPE(self)->tp_name;
    if (err)
        return PyUnicode_FromFormat("<%s>", name);
    return PyUnicode_FromFormat("<%s of '%s', %llu queued%s>", name, s.name, s.queue_size,
                                e->closed ? ", closed" : "");
}

/* --- Sender --- */
/* Whether the channel takes this value; else an exception is set. */
static bool valid(PyObject *self, PyObject *value) {
    PyObject *validator = end_of(self)->chan->validator;
    if (!validator)
        return true;
    PyObject *r = PyObject_CallOneArg(validator, value);
    Py_XDECREF(r);
    return r != NULL;
}

static bool all_valid(PyObject *self, PyObject *values) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); i++)
        if (!valid(self, PyTuple_GET_ITEM(values, i)))
            return false;
    return true;
}

static PyObject *sender_send(PyObject *self, PyObject *value) {
    return valid(self, value) ? op(self, KLAWPY_SEND, value, 0, -1) : NULL;
}

static PyObject *sender_try_send(PyObject *self, PyObject *value) {
    return valid(self, value) ? op(self, KLAWPY_TRY_SEND, value, 0, -1) : NULL;
}

static PyObject *sender_send_batch(PyObject *self, PyObject *values) {
    PyObject *tuple = PySequence_Tuple(values);
    PyObject *r =
        tuple && all_valid(self, tuple) ? op(self, KLAWPY_SEND_BATCH, tuple, 0, -1) : NULL;
    Py_XDECREF(tuple);
    return r;
}

/* (value, timeout=None), of which `value` alone is by far the most frequent. */
static bool send_sync_args(PyObject *const *args, Py_ssize_t n, PyObject *kwnames, PyObject **value,
                           double *timeout) {
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    PyObject *seconds = n > 1 ? args[1] : NULL;
    *value = n > 0 ? args[0] : NULL;
    bool ok = n <= 2;
    for (Py_ssize_t i = 0; ok && i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        PyObject **to = PyUnicode_CompareWithASCIIString(name, "value") == 0     ? value
                        : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? &seconds
                                                                                 : NULL;
        ok = to && !*to;
        if (ok)
            *to = args[n + i];
    }
    if (!ok || !*value) {
        PyErr_SetString(PyExc_TypeError, "send_sync(value, timeout=None)");
        return false;
    }
    return klawpy_seconds(seconds, timeout);
}

static PyObject *sender_send_sync(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames) {
    PyObject *value;
    double timeout;
    if (!send_sync_args(args, n, kwnames, &value, &timeout) || !valid(self, value))
        return NULL;
    return run(self, KLAWPY_SEND, value, 0, timeout);
}

static PyObject *sender_try_send_sync(PyObject *self, PyObject *value) {
    return valid(self, value) ? klawpy_try_send(end_of(self), value) : NULL;
}

/* --- Receiver --- */
static PyObject *receiver_recv(PyObject *self, PyObject *const *args, Py_ssize_t n,
                               PyObject *kwnames) {
    double timeout = -1;
    if ((n || kwnames) && !limits(args, n, kwnames, NULL, &timeout))
        return NULL;
    return op(self, KLAWPY_RECV, NULL, 0, timeout);
}

static PyObject *receiver_try_recv(PyObject *self, PyObject *unused) {
    (void)unused;
    return op(self, KLAWPY_TRY_RECV, NULL, 0, -1);
}

static PyObject *receiver_recv_batch(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                     PyObject *kwnames) {
    Py_ssize_t max;
    double timeout;
    if (!limits(args, n, kwnames, &max, &timeout))
        return NULL;
    return op(self, KLAWPY_RECV_BATCH, NULL, max, timeout);
}

static PyObject *receiver_recv_sync(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                    PyObject *kwnames) {
    double timeout = -1;
    if ((n || kwnames) && !limits(args, n, kwnames, NULL, &timeout))
        return NULL;
    return run(self, KLAWPY_RECV, NULL, 0, timeout);
}

static PyObject *receiver_try_recv_sync(PyObject *self, PyObject *unused) {
    (void)unused;
    return klawpy_try_recv(end_of(self));
}

static PyObject *receiver_next_async(PyObject *self) {
    return op(self, KLAWPY_NEXT, NULL, 0, -1);
}

static PyObject *itself(PyObject *self) {
    return Py_NewRef(self);
}

/* The next item; ends (without an exception) on close. */
static PyObject *receiver_next(PyObject *self) {
    PyObject *r = run(self, KLAWPY_NEXT, NULL, 0, -1);
    if (!r && PyErr_ExceptionMatches(PyExc_StopAsyncIteration))
        PyErr_Clear();
    return r;
}

/* --- tables --- */
#define FAST(f) ((PyCFunction)(void (*)(void))(f))
#define COMMON                                                                                     \
    {"close", end_close, METH_NOARGS,                                                              \
     "close($self, /)\n--\n\nCloses this endpoint. Awaitable; idempotent."},                       \
        {"close_sync", end_close_sync, METH_NOARGS,                                                \
         "close_sync($self, /)\n--\n\nCloses this endpoint, from anywhere. Idempotent."},          \
        {"clone", end_clone, METH_NOARGS,                                                          \
         "clone($self, /)\n--\n\nA further endpoint of the same side, to be closed by itself."},   \
        {"stats", end_stats, METH_NOARGS,                                                          \
         "stats($self, /)\n--\n\nThe channel's counters, a ChannelStats."},                        \
        {"__aenter__", end_aenter, METH_NOARGS, NULL},                                             \
        {"__aexit__", end_aexit, METH_VARARGS, NULL}, {"__enter__", end_enter, METH_NOARGS, NULL}, \
        {"__exit__", end_exit, METH_VARARGS, NULL},                                                \
        {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}, {                       \
        NULL, NULL, 0, NULL                                                                        \
    }

static PyMethodDef sender_methods[] = {
    {"send", sender_send, METH_O,
     "send($self, value, /)\n--\n\nSends, waiting for room. Awaitable. ChannelClosedError when the "
     "receivers are gone: the value was not sent."},
    {"try_send", sender_try_send, METH_O,
     "try_send($self, value, /)\n--\n\nSends without waiting. Awaitable: Ok(None), "
     "Err(ChannelFull) or Err(ChannelClosed)."},
    {"send_batch", sender_send_batch, METH_O,
     "send_batch($self, values, /)\n--\n\nSends all of them, adjacent and in order, or none. "
     "Awaitable. LimitExceededError when they are more than the capacity."},
    {"send_sync", FAST(sender_send_sync), METH_FASTCALL | METH_KEYWORDS,
     "send_sync($self, value, timeout=None)\n--\n\nSends from a plain thread, which waits at most "
     "`timeout` seconds: ChannelFullError."},
    {"try_send_sync", sender_try_send_sync, METH_O,
     "try_send_sync($self, value, /)\n--\n\ntry_send without await."},
    COMMON,
};

static PyMethodDef receiver_methods[] = {
    {"recv", FAST(receiver_recv), METH_FASTCALL | METH_KEYWORDS,
     "recv($self, timeout=None)\n--\n\nThe next item. Awaitable. ChannelClosedError when drained "
     "and closed, ChannelEmptyError after `timeout` seconds, ChannelLaggedError on a broadcast."},
    {"try_recv", receiver_try_recv, METH_NOARGS,
     "try_recv($self, /)\n--\n\nThe next item without waiting. Awaitable: Ok(item), "
     "Err(ChannelEmpty) or Err(ChannelClosed)."},
    {"recv_batch", FAST(receiver_recv_batch), METH_FASTCALL | METH_KEYWORDS,
     "recv_batch($self, max_items, timeout=None)\n--\n\nBetween one and max_items items: waits for "
     "the first. Awaitable; [] after `timeout` seconds."},
    {"recv_sync", FAST(receiver_recv_sync), METH_FASTCALL | METH_KEYWORDS,
     "recv_sync($self, timeout=None)\n--\n\nrecv from a plain thread, which waits."},
    {"try_recv_sync", receiver_try_recv_sync, METH_NOARGS,
     "try_recv_sync($self, /)\n--\n\ntry_recv without await."},
    COMMON,
};

static PyGetSetDef getset[] = {
    {"capacity", get_capacity, NULL, "Items the channel holds; None: any number; 0: rendezvous.",
     NULL},
    {"closed", get_closed, NULL, "Whether this endpoint has been closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(klawpy_end, weaklist), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sender_slots[] = {
    {Py_tp_dealloc, end_dealloc},
    {Py_tp_finalize, end_finalize},
    {Py_tp_traverse, end_traverse},
    {Py_tp_repr, end_repr},
    {Py_tp_methods, sender_methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, "The sending side of a channel."},
    {0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_dealloc, end_dealloc},
    {Py_tp_finalize, end_finalize},
    {Py_tp_traverse, end_traverse},
    {Py_tp_repr, end_repr},
    {Py_tp_iter, itself},
    {Py_tp_iternext, receiver_next},
    {Py_am_aiter, itself},
    {Py_am_anext, receiver_next_async},
    {Py_tp_methods, receiver_methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, "The receiving side of a channel."},
    {0, NULL},
};

#define FLAGS                                                                      \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | \
     Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE)
static PyType_Spec sender_spec = {.name = "klaw_core._klaw.Sender",
                                  .basicsize = sizeof(klawpy_end),
                                  .flags = FLAGS,
                                  .slots = sender_slots};
static PyType_Spec receiver_spec = {.name = "klaw_core._klaw.Receiver",
                                    .basicsize = sizeof(klawpy_end),
                                    .flags = FLAGS,
                                    .slots = receiver_slots};

/* --- making --- */
klawpy_chan *klawpy_chan_make(klawpy_state *st, klawpy_kind kind, int64_t capacity, klaw_sender *tx,
                              klaw_receiver *rx) {
    klawpy_chan *c = (klawpy_chan *)st->chan_type->tp_alloc(st->chan_type, 0);
    if (!c)
        return NULL;
    c->module = Py_NewRef(PyType_GetModule(st->chan_type));
    c->st = st;
    c->tx = tx;
    c->rx = rx;
    c->kind = kind;
    c->capacity = capacity;
    return c;
}

PyObject *klawpy_pair(klawpy_state *st, PyTypeObject *sender, PyTypeObject *receiver,
                      klawpy_kind kind, int64_t capacity, klaw_sender *tx, klaw_receiver *rx) {
    klawpy_chan *c = klawpy_chan_make(st, kind, capacity, tx, rx);
    if (!c) {
        klaw_sender_unref(tx);
        klaw_receiver_unref(rx);
        return NULL;
    }
    PyObject *s = klawpy_end_make(sender, c, tx, NULL, false);
    PyObject *r = s ? klawpy_end_make(receiver, c, NULL, rx, false) : NULL;
    PyObject *both = r ? PyTuple_Pack(2, s, r) : NULL;
    Py_XDECREF(r);
    Py_XDECREF(s);
    Py_DECREF(c);
    return both;
}

int klawpy_chan_init(PyObject *module, klawpy_state *st) {
    return (st->chan_type = klawpy_add_type(module, &chan_spec, NULL)) &&
                   (st->sender_type = klawpy_add_type(module, &sender_spec, NULL)) &&
                   (st->receiver_type = klawpy_add_type(module, &receiver_spec, NULL))
               ? 0
               : -1;
}
