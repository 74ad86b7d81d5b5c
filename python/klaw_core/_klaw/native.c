/* SPDX-License-Identifier: Apache-2.0 */
/* native.c - channels whose other end may be C: u64 and bytes, handed over in capsules (klaw/python.h).
 *
 * The queue of such a channel holds what C holds: an uint64_t, a klaw_blob *. Fibers and threads work on
 * it without the GIL, so nothing of Python is ever in it; conversion is done at its edge, in try.c. An
 * element is one word in all kinds of channels, and travels as PyObject * there.
 *
 * The channel's validator is one of the two functions below: a value that can't be converted never gets
 * as far as an operation. An endpoint out of a capsule has a Channel of its own, which holds no handle:
 * the endpoint owns it. */
#include "native.h"

#include <klaw/python.h>

/* --- elements --- */
klaw_err klawpy_native_elem(klawpy_chan *c, PyObject *value, PyObject **elem) {
    if (c->elem == KLAWPY_U64) {
        *elem = (PyObject *)(uintptr_t)PyLong_AsUnsignedLongLongMask(value);
        return KLAW_OK;
    }
    klaw_blob *b;
    klaw_err e = klaw_blob_new(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value), &b);
    if (e == KLAW_OK)
        *elem = (PyObject *)b;
    return e;
}

klaw_err klawpy_native_object(klawpy_chan *c, PyObject **elem) {
    PyObject *o;
    if (c->elem == KLAWPY_U64) {
        o = PyLong_FromUnsignedLongLong((uintptr_t)*elem);
    } else {
        klaw_blob *b = (klaw_blob *)*elem;
        o = PyBytes_FromStringAndSize(klaw_blob_data(b), (Py_ssize_t)klaw_blob_size(b));
        klaw_blob_unref(b);
    }
    if (!o)
        PyErr_Clear();
    *elem = o;
    return o ? KLAW_OK : KLAW_NOMEM;
}

void klawpy_native_drop(klawpy_chan *c, PyObject *elem) {
    if (c->elem == KLAWPY_BYTES)
        klaw_blob_unref((klaw_blob *)elem);
}

static PyObject *wrong(PyObject *module, const char *expected, PyObject *value) {
    return klawpy_raise(klawpy_state_of_module(module), "ChannelTypeErrorException", "(ss)",
                        expected, Py_TYPE(value)->tp_name);
}

static PyObject *check_u64(PyObject *module, PyObject *value) {
    if (!PyLong_Check(value))
        return wrong(module, "int", value);
    if (PyLong_AsUnsignedLongLong(value) == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *check_bytes(PyObject *module, PyObject *value) {
    if (!PyBytes_Check(value))
        return wrong(module, "bytes", value);
    Py_RETURN_NONE;
}

/* --- making --- */
static void dress(klawpy_chan *c, const klaw_type *type) {
    c->elem = type == &klaw_u64 ? KLAWPY_U64 : KLAWPY_BYTES;
    c->validator = Py_NewRef(c->elem == KLAWPY_U64 ? c->st->check_u64 : c->st->check_bytes);
}

static PyObject *native_channel(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"element", "capacity", "unbounded", "name", NULL};
    klawpy_state *st = klawpy_state_of_module(module);
    const char *element, *name = NULL;
    long long capacity = KLAW_CAPACITY_DEFAULT;
    int unbounded = 0;
    klaw_sender *tx;
    klaw_receiver *rx;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|Lpz", keys, &element, &capacity, &unbounded,
                                     &name) ||
        !klawpy_capacity(st, capacity, 0, KLAW_CAPACITY_MAX))
        return NULL;
    const klaw_type *type = strcmp(element, "u64") == 0     ? &klaw_u64
                            : strcmp(element, "bytes") == 0 ? &klaw_bytes
                                                            : NULL;
    if (!type)
        return PyErr_Format(PyExc_ValueError, "element has to be 'u64' or 'bytes', not '%s'",
                            element);
    int64_t c = unbounded ? KLAW_UNBOUNDED : capacity == 0 ? KLAW_RENDEZVOUS : capacity;
    klaw_channel_opts o = {.capacity = c, .name = name};
    klaw_err e = klaw_channel(type, &o, &tx, &rx);
    if (e)
        return klawpy_raise_code(st, e);
    PyObject *both =
        klawpy_pair(st, st->native_sender_type, st->native_receiver_type, KLAWPY_MPMC, c, tx, rx);
    if (both)
        dress(((klawpy_end *)PyTuple_GET_ITEM(both, 0))->chan, type);
    return both;
}

static PyObject *from_capsule(PyObject *module, PyObject *capsule) {
    klawpy_state *st = klawpy_state_of_module(module);
    const char *name = PyCapsule_CheckExact(capsule) ? PyCapsule_GetName(capsule) : NULL;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_channel_stats s;
    bool sends = name && strncmp(name, "klaw.sender.", 12) == 0;
    const klaw_type *type = name && (strcmp(name, KLAW_CAPSULE_SENDER_U64) == 0 ||
                                     strcmp(name, KLAW_CAPSULE_RECEIVER_U64) == 0)
                                ? &klaw_u64
                                : &klaw_bytes;
    if (sends)
        tx = klaw_python_take_sender(capsule, type);
    else
        rx = klaw_python_take_receiver(capsule, type);
    if (!tx && !rx)
        return NULL;
    PyObject *end = NULL;
    klawpy_chan *c = NULL;
    klaw_err e = tx ? klaw_sender_stats(tx, &s) : klaw_receiver_stats(rx, &s);
    if (e)
        klawpy_raise_code(st, e);
    else
        c = klawpy_chan_make(st, KLAWPY_MPMC, s.capacity, NULL, NULL);
    if (c) {
        dress(c, type);
        end = klawpy_end_make(sends ? st->native_sender_type : st->native_receiver_type, c, tx, rx,
                              true);
        Py_DECREF(c);
    }
    if (!end) {
        klaw_sender_unref(tx);
        klaw_receiver_unref(rx);
    }
    return end;
}

static PyObject *to_capsule(PyObject *self, PyObject *unused) {
    klawpy_end *e = (klawpy_end *)self;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    (void)unused;
    klaw_err err = e->tx ? klaw_sender_clone(e->tx, &tx) : klaw_receiver_clone(e->rx, &rx);
    if (err == KLAW_INVALID)
        return PyErr_Format(PyExc_TypeError, "the endpoint of this channel can't be cloned");
    if (err)
        return klawpy_raise_code(e->chan->st, err);
    PyObject *capsule = tx ? klaw_python_from_sender(tx) : klaw_python_from_receiver(rx);
    if (!capsule) {
        klaw_sender_unref(tx);
        klaw_receiver_unref(rx);
    }
    return capsule;
}

static PyMethodDef end_methods[] = {
    {"capsule", to_capsule, METH_NOARGS,
     "capsule($self, /)\n--\n\nA capsule that owns a further handle on this side of the channel, "
     "for a C module to take (klaw/python.h), or from_capsule. Collected untaken it closes that "
     "handle. TypeError on a oneshot, whose handles can't be cloned.\n\n"
     ">>> tx, rx = native_channel('u64')\n>>> more = from_capsule(tx.capsule())\n"
     ">>> more.send_sync(7)\n>>> rx.recv_sync()\n7"},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef functions[] = {
    {"native_channel", (PyCFunction)(void (*)(void))native_channel, METH_VARARGS | METH_KEYWORDS,
     "native_channel($module, /, element, capacity=10000, unbounded=False, name=None)\n--\n\n"
     "A channel that can be shared with C, by capsule(): (NativeSender, NativeReceiver). element: "
     "'u64' (int, 0 to 2**64 - 1, else OverflowError) or 'bytes'; a send of another type raises "
     "ChannelTypeErrorException. capacity 0 is a rendezvous.\n\n"
     ">>> tx, rx = native_channel('bytes', 8)\n>>> tx.send_sync(b'x')\n>>> rx.recv_sync()\nb'x'"},
    {"from_capsule", from_capsule, METH_O,
     "from_capsule($module, capsule, /)\n--\n\nThe endpoint that a C module handed over in a "
     "capsule (klaw/python.h): a NativeSender or a NativeReceiver. A capsule is used once. "
     "TypeError: no such capsule, taken already, or of another libklaw.\n\n"
     ">>> tx, rx = native_channel('u64')\n>>> from_capsule(rx.capsule())\n"
     "<NativeReceiver of 'channel', 0 queued>"},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef checks[] = {
    {"check_u64", check_u64, METH_O, NULL},
    {"check_bytes", check_bytes, METH_O, NULL},
};

/* Collected as their base types are: the flag and the functions are inherited together. */
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)
static PyTypeObject *add(PyObject *module, const char *name, const char *doc, PyTypeObject *base) {
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)doc}, {Py_tp_methods, end_methods}, {0, NULL}};
    PyType_Spec spec = {
        .name = name, .basicsize = sizeof(klawpy_end), .flags = FLAGS, .slots = slots};
    return klawpy_add_type(module, &spec, base);
}

int klawpy_native_init(PyObject *module, klawpy_state *st) {
    return (st->native_sender_type =
                add(module, "klaw_core._klaw.NativeSender",
                    "The sending side of a channel that C may share.", st->sender_type)) &&
                   (st->native_receiver_type = add(
                        module, "klaw_core._klaw.NativeReceiver",
                        "The receiving side of a channel that C may share.", st->receiver_type)) &&
                   (st->check_u64 = PyCFunction_New(&checks[0], module)) &&
                   (st->check_bytes = PyCFunction_New(&checks[1], module)) &&
                   PyModule_AddFunctions(module, functions) == 0
               ? 0
               : -1;
}
