/* SPDX-License-Identifier: Apache-2.0 */
/* channel_log.c - libklaw's log of a durable channel as a Python type. Its calls block on the disk and run
 * without the GIL; they may come from several threads. */
#include "remote.h"

#include <string.h>

typedef struct channel_log {
    PyObject_HEAD klaw_channel_log *l;
    klawpy_state *st;
} channel_log;

/* Whatever is wrong with the log is an error of the backend of its channel. */
static PyObject *raise(klawpy_state *st, klaw_err e, const klaw_error_info *info) {
    if (e == KLAW_NOT_FOUND || e == KLAW_INVALID || e == KLAW_STOPPED)
        e = KLAW_BACKEND;
    if (e == KLAW_CLOSED) {
        PyErr_SetString(PyExc_ValueError, "the log is closed");
        return NULL;
    }
    return klawpy_raise_info(st, e, info);
}

static PyObject *log_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"path", "channel", "existing", NULL};
    PyObject *path, *channel;
    int existing = 0;
    unsigned char id[KLAW_REMOTE_ID];
    klaw_error_info info = {0};
    klaw_channel_log *l = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O|$p", keys, PyUnicode_FSConverter, &path,
                                     &channel, &existing))
        return NULL;
    channel_log *self =
        klawpy_id(channel, "channel", id) ? (channel_log *)type->tp_alloc(type, 0) : NULL;
    if (self) {
        klaw_channel_log_opts o = {.existing = existing};
        const char *p = PyBytes_AS_STRING(path);
        klaw_err e;
        self->st = klawpy_state_of(type);
        Py_BEGIN_ALLOW_THREADS e = klaw_channel_log_open(p, id, &o, &l, &info);
        Py_END_ALLOW_THREADS self->l = l;
        if (e) {
            raise(self->st, e, &info);
            Py_CLEAR(self);
        }
    }
    Py_DECREF(path);
    return (PyObject *)self;
}

static void log_dealloc(PyObject *o) {
    channel_log *self = (channel_log *)o;
    PyTypeObject *type = Py_TYPE(o);
    klaw_channel_log *l = self->l;
    if (l) {
        Py_BEGIN_ALLOW_THREADS klaw_channel_log_free(l);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *write_one(PyObject *o, PyObject *bytes, bool snapshot) {
    channel_log *self = (channel_log *)o;
    klaw_error_info info = {0};
    klawpy_view v;
    klaw_err e;
    if (!klawpy_view_of(bytes, &v))
        return NULL;
    Py_BEGIN_ALLOW_THREADS e =
        snapshot ? klaw_channel_log_compact(self->l, v.data, v.size, KLAW_FOREVER, &info)
                 : klaw_channel_log_append(self->l, v.data, v.size, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS klawpy_view_end(&v);
    if (e)
        return raise(self->st, e, &info);
    Py_RETURN_NONE;
}

static PyObject *log_append(PyObject *self, PyObject *bytes) {
    return write_one(self, bytes, false);
}
static PyObject *log_compact(PyObject *self, PyObject *bytes) {
    return write_one(self, bytes, true);
}

static PyObject *bytes_of(klaw_blob *b) {
    return PyBytes_FromStringAndSize(klaw_blob_data(b), (Py_ssize_t)klaw_blob_size(b));
}

static PyObject *log_load(PyObject *o, PyObject *unused) {
    channel_log *self = (channel_log *)o;
    klaw_error_info info = {0};
    klaw_channel_log_contents c = {.n = 0};
    klaw_err e;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS e = klaw_channel_log_load(self->l, &c, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS if (e) return raise(self->st, e, &info);
    PyObject *snapshot = c.snapshot ? bytes_of(c.snapshot) : Py_NewRef(Py_None);
    PyObject *records = PyList_New((Py_ssize_t)c.n);
    for (size_t i = 0; records && i < c.n; i++) {
        PyObject *r = bytes_of(c.records[i]);
        if (r)
            PyList_SET_ITEM(records, (Py_ssize_t)i, r);
        else
            Py_CLEAR(records);
    }
    klaw_channel_log_contents_free(&c);
    PyObject *pair = snapshot && records ? PyTuple_Pack(2, snapshot, records) : NULL;
    Py_XDECREF(snapshot);
    Py_XDECREF(records);
    return pair;
}

static PyObject *log_close(PyObject *o, PyObject *unused) {
    klaw_channel_log *l = ((channel_log *)o)->l;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS klaw_channel_log_close(l);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *log_sizes(PyObject *o, PyObject *unused) {
    klaw_channel_log_counts c;
    (void)unused;
    klaw_channel_log_look(((channel_log *)o)->l, &c);
    return Py_BuildValue("(KKK)", (unsigned long long)c.records, (unsigned long long)c.record_bytes,
                         (unsigned long long)c.snapshot_bytes);
}

static PyMethodDef methods[] = {
    {"append", log_append, METH_O, "append($self, record, /)\n--\n\nOn the disk when it returns."},
    {"compact", log_compact, METH_O,
     "compact($self, snapshot, /)\n--\n\nBegins anew with a snapshot."},
    {"load", log_load, METH_NOARGS, "load($self, /)\n--\n\n(snapshot or None, records after it)."},
    {"sizes", log_sizes, METH_NOARGS,
     "sizes($self, /)\n--\n\n(records, bytes of them, bytes of the snapshot)."},
    {"close", log_close, METH_NOARGS, "close($self, /)\n--\n\nIdempotent."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, log_new},
    {Py_tp_dealloc, log_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The log of a durable channel in a file of its own; blocks on the disk."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.ChannelLog",
    .basicsize = sizeof(channel_log),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int klawpy_channel_log_init(PyObject *module, klawpy_state *st) {
    PyTypeObject *t = klawpy_add_type(module, &spec, NULL);
    (void)st;
    Py_XDECREF(t);
    return t ? 0 : -1;
}
