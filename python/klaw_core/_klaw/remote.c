/* SPDX-License-Identifier: Apache-2.0 */
/* remote.c - what the bindings of remote channels share, and the type of delivered items. */
#include "remote.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/random.h>
#include <time.h>

/* --- time --- */
int64_t klawpy_real(int64_t now) {
    static __thread int64_t offset, until;
    if (now >= until) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        offset = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec - now;
        until = now + KLAW_MS(100);
    }
    return now + offset;
}

int64_t klawpy_ns(double seconds) {
    return seconds >= 9e9 ? KLAW_FOREVER : (int64_t)(seconds * 1e9);
}

PyObject *klawpy_when(int64_t at) {
    if (at == INT64_MAX)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)at / 1e9);
}

/* --- attachments --- */
static __thread struct {
    PyObject **v;
    size_t n, room;
} grave;

void klawpy_drop(void *attachment) {
    if (!attachment)
        return;
    if (grave.n == grave.room) {
        size_t room = grave.room ? 2 * grave.room : 64;
        PyObject **more = PyMem_RawRealloc(grave.v, room * sizeof *more);
        if (!more)
            return; /* a leak is better than code that runs in the middle of a step */
        grave.v = more;
        grave.room = room;
    }
    grave.v[grave.n++] = attachment;
}

void *klawpy_share(void *attachment) {
    return Py_XNewRef((PyObject *)attachment);
}

void klawpy_bury(void) {
    if (grave.n == 0)
        return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    while (grave.n > 0) /* a finalizer may come here again */
        Py_DECREF(grave.v[--grave.n]);
    PyMem_RawFree(grave.v);
    grave.v = NULL;
    grave.room = 0;
    PyErr_Restore(type, value, trace);
}

bool klawpy_attached_from(PyObject *o, klawpy_attached *out) {
    *out = (klawpy_attached){NULL, 0};
    if (!o || o == Py_None || (PyTuple_CheckExact(o) && PyTuple_GET_SIZE(o) == 0))
        return true;
    PyObject *fast = PySequence_Fast(o, "attachments: a sequence is needed");
    if (!fast)
        return false;
    size_t n = (size_t)PySequence_Fast_GET_SIZE(fast);
    if (n && !(out->v = PyMem_Calloc(n, sizeof *out->v))) {
        Py_DECREF(fast);
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < n; i++)
        out->v[i] = Py_NewRef(PySequence_Fast_GET_ITEM(fast, (Py_ssize_t)i));
    out->n = n;
    Py_DECREF(fast);
    return true;
}

void klawpy_attached_end(klawpy_attached *a, bool references) {
    void **v = a->v;
    size_t n = references ? a->n : 0;
    *a = (klawpy_attached){NULL, 0};
    for (size_t i = 0; i < n; i++)
        Py_XDECREF((PyObject *)v[i]);
    PyMem_Free(v);
}

PyObject *klawpy_attached_list(void **v, size_t n) {
    PyObject *r = n ? PyList_New((Py_ssize_t)n) : PyTuple_New(0);
    for (size_t i = 0; i < n; i++) {
        if (r)
            PyList_SET_ITEM(r, (Py_ssize_t)i, v[i]);
        else
            klawpy_drop(v[i]);
    }
    klaw_remote_free(v);
    return r;
}

PyObject *klawpy_blob(void *data, size_t size) {
    PyObject *r = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    klaw_remote_free(data);
    return r;
}

/* --- arguments --- */
bool klawpy_view_of(PyObject *o, klawpy_view *v) {
    v->buffer.obj = NULL;
    if (PyBytes_CheckExact(o)) {
        v->data = PyBytes_AS_STRING(o);
        v->size = (size_t)PyBytes_GET_SIZE(o);
        return true;
    }
    if (PyObject_GetBuffer(o, &v->buffer, PyBUF_SIMPLE) < 0) {
        v->buffer.obj = NULL;
        return false;
    }
    v->data = v->buffer.buf;
    v->size = (size_t)v->buffer.len;
    return true;
}

bool klawpy_id(PyObject *o, const char *what, unsigned char *out) {
    klawpy_view v;
    if (!klawpy_view_of(o, &v))
        return false;
    bool fits = v.size == KLAW_REMOTE_ID;
    if (fits)
        memcpy(out, v.data, KLAW_REMOTE_ID);
    else
        PyErr_Format(PyExc_ValueError, "%s: %d bytes are needed, not %zu", what, KLAW_REMOTE_ID,
                     v.size);
    klawpy_view_end(&v);
    return fits;
}

bool klawpy_random_id(unsigned char *out) {
    if (getrandom(out, KLAW_REMOTE_ID, 0) == KLAW_REMOTE_ID)
        return true;
    PyErr_SetFromErrno(PyExc_OSError);
    return false;
}

int klawpy_side(PyObject *o) {
    if (PyUnicode_Check(o)) {
        if (PyUnicode_CompareWithASCIIString(o, "sender") == 0)
            return KLAW_REMOTE_SENDER;
        if (PyUnicode_CompareWithASCIIString(o, "receiver") == 0)
            return KLAW_REMOTE_RECEIVER;
    } else {
        long v = PyLong_AsLong(o);
        if (v == -1 && PyErr_Occurred())
            return -1;
        if (v == KLAW_REMOTE_SENDER || v == KLAW_REMOTE_RECEIVER)
            return (int)v;
    }
    PyErr_Format(PyExc_ValueError, "a side is \"sender\" or \"receiver\", not %R", o);
    return -1;
}

bool klawpy_bound(PyObject *o, int64_t *out) {
    if (o == Py_None) {
        *out = KLAW_NONE;
        return true;
    }
    *out = PyLong_AsLongLong(o);
    if (*out == -1 && PyErr_Occurred())
        return false;
    if (*out >= 0)
        return true;
    PyErr_SetString(PyExc_ValueError, "a bound is None, or not negative");
    return false;
}

bool klawpy_item_from(PyObject *payload, PyObject *codec, PyObject *attachment,
                      klaw_remote_item *out, klawpy_view *view) {
    long c = PyLong_AsLong(codec);
    if (c < 0 || c > 255) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "no such codec: %ld", c);
        return false;
    }
    if (!klawpy_view_of(payload, view))
        return false;
    *out = (klaw_remote_item){.data = view->data,
                              .size = view->size,
                              .codec = (klaw_remote_codec)c,
                              .attachment = attachment == Py_None ? NULL : attachment};
    return true;
}

/* --- items --- */
PyObject *klawpy_item_make(klawpy_state *st, klaw_remote_item *i, uint64_t endpoint,
                           PyObject **client) {
    klawpy_item *o = PyObject_GC_New(klawpy_item, st->item_type);
    if (!o) {
        klaw_remote_free((void *)(uintptr_t)i->data);
        klawpy_drop(i->attachment);
        return NULL;
    }
    o->context = NULL;
    o->client = NULL;
    o->attachment = i->attachment;
    o->seq = i->seq;
    o->lease = i->lease;
    o->endpoint = endpoint;
    o->sent_at = (double)i->sent_at / 1e9;
    o->codec = (int)i->codec;
    o->flags = i->flags;
    o->payload = PyBytes_FromStringAndSize(i->data, (Py_ssize_t)i->size);
    if (o->payload && i->context_size)
        o->context = PyBytes_FromStringAndSize(i->context, (Py_ssize_t)i->context_size);
    if (!*client || memcmp(PyBytes_AS_STRING(*client), i->client, KLAW_REMOTE_ID) != 0)
        Py_XSETREF(*client, PyBytes_FromStringAndSize((char *)i->client, KLAW_REMOTE_ID));
    o->client = Py_XNewRef(*client);
    klaw_remote_free((void *)(uintptr_t)i->data);
    if (!o->payload || !o->client || (i->context_size && !o->context))
        Py_CLEAR(o);
    else if (o->attachment)
        PyObject_GC_Track(o);
    return (PyObject *)o;
}

static int item_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((klawpy_item *)self)->attachment);
    return 0;
}

static int item_clear(PyObject *self) {
    Py_CLEAR(((klawpy_item *)self)->attachment);
    return 0;
}

static void item_dealloc(PyObject *self) {
    klawpy_item *o = (klawpy_item *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(o->payload);
    Py_CLEAR(o->context);
    Py_CLEAR(o->client);
    Py_CLEAR(o->attachment);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *get_context(PyObject *self, void *unused) {
    klawpy_item *o = (klawpy_item *)self;
    (void)unused;
    return o->context ? Py_NewRef(o->context) : PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *get_redelivered(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(((klawpy_item *)self)->flags & KLAW_REMOTE_REDELIVERED);
}

static PyObject *item_repr(PyObject *self) {
    klawpy_item *o = (klawpy_item *)self;
    return PyUnicode_FromFormat("<RemoteItem %llu, %zd bytes%s>", o->seq,
                                o->payload ? PyBytes_GET_SIZE(o->payload) : 0,
                                o->flags & KLAW_REMOTE_REDELIVERED ? ", redelivered" : "");
}

static PyGetSetDef getset[] = {
    {"context", get_context, NULL, "What travelled beside it, bytes.", NULL},
    {"redelivered", get_redelivered, NULL, "It may have been seen by a consumer before.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"payload", T_OBJECT, offsetof(klawpy_item, payload), READONLY, "The encoded value, bytes."},
    {"attachment", T_OBJECT, offsetof(klawpy_item, attachment), READONLY,
     "The object that travelled beside it, or None."},
    {"client", T_OBJECT, offsetof(klawpy_item, client), READONLY, "Who sent it, 16 bytes."},
    {"seq", T_ULONGLONG, offsetof(klawpy_item, seq), READONLY, "Its number within its client."},
    {"lease", T_ULONGLONG, offsetof(klawpy_item, lease), READONLY, "Names it in ack and nack."},
    {"endpoint", T_ULONGLONG, offsetof(klawpy_item, endpoint), READONLY, "Which took it."},
    {"sent_at", T_DOUBLE, offsetof(klawpy_item, sent_at), READONLY, "Seconds since 1970."},
    {"codec", T_INT, offsetof(klawpy_item, codec), READONLY, "How the payload is encoded."},
    {"flags", T_UINT, offsetof(klawpy_item, flags), READONLY, "Its flags."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, item_dealloc},
    {Py_tp_traverse, item_traverse},
    {Py_tp_clear, item_clear},
    {Py_tp_repr, item_repr},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, "An item that a remote channel delivered."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.RemoteItem",
    .basicsize = sizeof(klawpy_item),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int klawpy_remote_init(PyObject *module, klawpy_state *st) {
    st->s_ok = PyUnicode_InternFromString("ok");
    st->s_full = PyUnicode_InternFromString("full");
    st->s_closed = PyUnicode_InternFromString("closed");
    st->s_empty = PyUnicode_InternFromString("empty");
    return st->s_ok && st->s_full && st->s_closed && st->s_empty &&
                   (st->item_type = klawpy_add_type(module, &spec, NULL))
               ? 0
               : -1;
}
