/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - libklaw's checkpoint store and workflows as Python types. All calls block on the disk, so they
 * run without the GIL; klaw_core.runtime runs them on threads.
 *
 * A workflow's step calls back from klaw_workflow_step with the GIL taken again: what it returns are the
 * bytes that are kept. Python's exception travels beside the library's code and is raised instead of it. */
#include "remote.h"

typedef struct store {
    PyObject_HEAD klaw_store *s;
} store;

typedef struct workflow {
    PyObject_HEAD klaw_workflow *w;
    PyObject *store; /* keeps the file open */
} workflow;

PyObject *klawpy_raise_info(klawpy_state *st, klaw_err e, const klaw_error_info *info) {
    const char *text = info->message[0] ? info->message : klaw_err_text(e);
    PyObject *type = PyExc_RuntimeError;
    switch (e) {
    case KLAW_NOMEM: return PyErr_NoMemory();
    case KLAW_NOT_FOUND: type = PyExc_KeyError; break;
    case KLAW_SYSTEM: type = PyExc_OSError; break;
    case KLAW_TIMEOUT: type = PyExc_TimeoutError; break;
    case KLAW_INVALID:
    case KLAW_LIMIT: type = PyExc_ValueError; break;
    case KLAW_CORRUPT:
    case KLAW_BACKEND:
        return st ? klawpy_raise(st, "BackendErrorException", "(ss)", text, "store") : NULL;
    case KLAW_CANCELLED: return st ? klawpy_raise(st, "TaskCancelledError", "(s)", text) : NULL;
    default: break;
    }
    PyErr_SetString(type, text);
    return NULL;
}

static PyObject *raise_info(PyObject *self, klaw_err e, const klaw_error_info *info) {
    return klawpy_raise_info(klawpy_state_of(Py_TYPE(self)), e, info);
}

/* --- Store --- */
static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"path", "keep", NULL};
    const char *path = NULL;
    long long keep = KLAW_STORE_KEEP;
    klaw_error_info info = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|zL", keys, &path, &keep))
        return NULL;
    store *self = (store *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    klaw_store_opts o = {.keep = keep <= 0 ? KLAW_NONE : keep};
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_store_open(path, &o, &self->s, &info);
    Py_END_ALLOW_THREADS if (e == KLAW_OK) return (PyObject *)self;
    raise_info((PyObject *)self, e, &info);
    Py_DECREF(self);
    return NULL;
}

static void store_dealloc(PyObject *o) {
    store *self = (store *)o;
    PyTypeObject *type = Py_TYPE(o);
    klaw_store *s = self->s;
    if (s) {
        Py_BEGIN_ALLOW_THREADS klaw_store_unref(s);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(o);
    Py_DECREF(type);
}

static klaw_store *of(PyObject *self) {
    return ((store *)self)->s;
}

static PyObject *store_save(PyObject *self, PyObject *args) {
    const char *key;
    Py_buffer value;
    uint64_t version = 0;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "sy*", &key, &value))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e =
        klaw_store_save(of(self), key, value.buf, (size_t)value.len, &version, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS PyBuffer_Release(&value);
    return e ? raise_info(self, e, &info) : PyLong_FromUnsignedLongLong(version);
}

static PyObject *bytes_of(klaw_blob *b) {
    PyObject *r = b ? PyBytes_FromStringAndSize(klaw_blob_data(b), (Py_ssize_t)klaw_blob_size(b))
                    : PyBytes_FromStringAndSize(NULL, 0);
    klaw_blob_unref(b);
    return r;
}

static PyObject *store_load(PyObject *self, PyObject *args) {
    const char *key;
    unsigned long long version = 0;
    uint64_t found = 0;
    klaw_blob *b = NULL;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s|K", &key, &version))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e =
        version ? klaw_store_load_version(of(self), key, version, &b, KLAW_FOREVER, &info)
                : klaw_store_load(of(self), key, &b, &found, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS if (e == KLAW_NOT_FOUND) Py_RETURN_NONE;
    return e ? raise_info(self, e, &info) : bytes_of(b);
}

static PyObject *entries(PyObject *self, klaw_err e, klaw_store_entries *list,
                         const klaw_error_info *info) {
    if (e)
        return raise_info(self, e, info);
    PyObject *r = PyList_New((Py_ssize_t)list->n);
    for (size_t i = 0; r && i < list->n; i++) {
        klaw_store_entry *v = &list->entries[i];
        PyObject *t = Py_BuildValue("(sKKdK)", v->key, (unsigned long long)v->version,
                                    (unsigned long long)v->size, (double)v->saved_at / 1e9,
                                    (unsigned long long)v->versions);
        if (t)
            PyList_SET_ITEM(r, (Py_ssize_t)i, t);
        else
            Py_CLEAR(r);
    }
    klaw_store_entries_free(list);
    return r;
}

static PyObject *store_list(PyObject *self, PyObject *args) {
    const char *prefix = NULL;
    klaw_store_entries list = {0};
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "|z", &prefix))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_store_list(of(self), prefix, &list, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS return entries(self, e, &list, &info);
}

static PyObject *store_versions(PyObject *self, PyObject *args) {
    const char *key;
    klaw_store_entries list = {0};
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s", &key))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_store_versions(of(self), key, &list, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS return e == KLAW_NOT_FOUND ? PyList_New(0)
                                                    : entries(self, e, &list, &info);
}

static PyObject *store_delete(PyObject *self, PyObject *args) {
    const char *key;
    unsigned long long version = 0;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s|K", &key, &version))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_store_delete(of(self), key, version, KLAW_FOREVER, &info);
    Py_END_ALLOW_THREADS if (e == KLAW_NOT_FOUND) Py_RETURN_FALSE;
    if (e)
        return raise_info(self, e, &info);
    Py_RETURN_TRUE;
}

static PyObject *store_close(PyObject *self, PyObject *unused) {
    (void)unused;
    Py_BEGIN_ALLOW_THREADS klaw_store_close(of(self));
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *store_path(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_DecodeFSDefault(klaw_store_path(of(self)));
}

/* --- administration of workflows --- */
static PyObject *workflow_list(PyObject *self, PyObject *args) {
    const char *prefix = NULL;
    klaw_workflow_info *list = NULL;
    size_t n = 0;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "|z", &prefix))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_list_all(of(self), prefix, &list, &n, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    PyObject *r = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; r && i < n; i++) {
        PyObject *t =
            Py_BuildValue("(ssKKs)", list[i].name, klaw_workflow_state_name(list[i].state),
                          (unsigned long long)list[i].steps, (unsigned long long)list[i].steps_done,
                          list[i].message);
        if (t)
            PyList_SET_ITEM(r, (Py_ssize_t)i, t);
        else
            Py_CLEAR(r);
    }
    klaw_workflow_info_free(list);
    return r;
}

/* Wall-clock ns as seconds; 0, "not yet", as None. */
static PyObject *seconds_of(int64_t ns) {
    return ns ? PyFloat_FromDouble((double)ns / 1e9) : Py_NewRef(Py_None);
}

static PyObject *text_of(klaw_err e) {
    return e ? PyUnicode_FromString(klaw_err_name(e)) : Py_NewRef(Py_None);
}

static PyObject *workflow_inspect(PyObject *self, PyObject *args) {
    const char *name;
    klaw_workflow_info w;
    klaw_step_info *steps = NULL;
    size_t n = 0;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_inspect(of(self), name, &w, &steps, &n, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        klaw_step_info *s = &steps[i];
        PyObject *t = Py_BuildValue(
            "(ssOINNKNs)", s->name, klaw_step_state_name(s->state), s->dropped ? Py_True : Py_False,
            s->attempts, seconds_of(s->started), seconds_of(s->finished),
            (unsigned long long)s->result_size, text_of(s->error), s->message);
        if (t)
            PyList_SET_ITEM(list, (Py_ssize_t)i, t);
        else
            Py_CLEAR(list);
    }
    klaw_step_info_free(steps);
    if (!list)
        return NULL;
    return Py_BuildValue("(sssOOOsLNNNKKKNsN)", w.name, w.version,
                         klaw_workflow_state_name(w.state), w.declared ? Py_True : Py_False,
                         w.cancel_requested ? Py_True : Py_False, w.leased ? Py_True : Py_False,
                         w.owner_host, (long long)w.owner_pid, seconds_of(w.created),
                         seconds_of(w.updated), seconds_of(w.finished), (unsigned long long)w.steps,
                         (unsigned long long)w.steps_done, (unsigned long long)w.result_size,
                         text_of(w.error), w.message, list);
}

static PyObject *workflow_cancel(PyObject *self, PyObject *args) {
    const char *name, *reason = NULL;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s|z", &name, &reason))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_cancel(of(self), name, reason, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    Py_RETURN_NONE;
}

static PyObject *workflow_evict(PyObject *self, PyObject *args) {
    const char *name;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_evict(of(self), name, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    Py_RETURN_NONE;
}

static PyObject *workflow_delete(PyObject *self, PyObject *args) {
    const char *name;
    int force = 0;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "s|p", &name, &force))
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_delete(of(self), name, force, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    Py_RETURN_NONE;
}

static PyMethodDef store_methods[] = {
    {"save", store_save, METH_VARARGS, "save($self, key, value, /)\n--\n\nThe version's number."},
    {"load", store_load, METH_VARARGS,
     "load($self, key, version=0, /)\n--\n\nBytes (0: the newest), or None."},
    {"list", store_list, METH_VARARGS,
     "list($self, prefix=None, /)\n--\n\n[(key, version, size, saved_at, versions)]."},
    {"versions", store_versions, METH_VARARGS,
     "versions($self, key, /)\n--\n\nAs list, of one key, newest first."},
    {"delete", store_delete, METH_VARARGS,
     "delete($self, key, version=0, /)\n--\n\nWhether there was one."},
    {"close", store_close, METH_NOARGS, "close($self, /)\n--\n\nIdempotent."},
    {"workflows", workflow_list, METH_VARARGS,
     "workflows($self, prefix=None, /)\n--\n\n[(name, state, steps, steps_done, message)]."},
    {"inspect_workflow", workflow_inspect, METH_VARARGS,
     "inspect_workflow($self, name, /)\n--\n\nThe fields of WorkflowInfo, the last one the fields "
     "of "
     "its StepInfos. KeyError."},
    {"evict_workflow", workflow_evict, METH_VARARGS,
     "evict_workflow($self, name, /)\n--\n\nEnds the lease of whoever runs it. KeyError."},
    {"cancel_workflow", workflow_cancel, METH_VARARGS,
     "cancel_workflow($self, name, reason=None, /)\n--\n\n"},
    {"delete_workflow", workflow_delete, METH_VARARGS,
     "delete_workflow($self, name, force=False, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"path", store_path, NULL, "The file.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_doc, "Store(path=None, keep=3)\n--\n\nlibklaw's checkpoint store; blocks on the disk."},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "klaw_core._klaw.Store",
    .basicsize = sizeof(store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};

/* --- WorkflowRun --- */
static PyObject *run_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"store",         "name",     "steps",    "version", "lease",
                           "allow_changes", "takeover", "uncancel", "wait",    NULL};
    PyObject *keeper, *steps = NULL;
    const char *name, *version = NULL;
    double lease = 0, wait = 0;
    int allow = 0, takeover = 0, uncancel = 0;
    klawpy_state *st = klawpy_state_of(type);
    if (!st || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!s|Ozdpppd", keys, st->store_type,
                                            &keeper, &name, &steps, &version, &lease, &allow,
                                            &takeover, &uncancel, &wait))
        return NULL;
    klaw_workflow_opts o = {.version = version,
                            .lease = (int64_t)(lease * 1e9),
                            .allow_changes = allow,
                            .takeover = takeover,
                            .uncancel = uncancel,
                            .wait = wait > 0 ? klaw_after((int64_t)(wait * 1e9)) : 0};
    const char **names = NULL;
    klaw_error_info info = {0};
    PyObject *list = steps && steps != Py_None ? PySequence_Tuple(steps) : NULL;
    if (steps && steps != Py_None) {
        if (!list)
            return NULL;
        o.n_steps = (size_t)PyTuple_GET_SIZE(list);
        names = PyMem_Calloc(o.n_steps + 1, sizeof *names);
        for (size_t i = 0; names && i < o.n_steps; i++)
            if (!(names[i] = PyUnicode_AsUTF8(PyTuple_GET_ITEM(list, (Py_ssize_t)i)))) {
                PyMem_Free(names);
                Py_DECREF(list);
                return NULL;
            }
        o.steps = names;
    }
    workflow *self = (workflow *)type->tp_alloc(type, 0);
    klaw_err e = KLAW_NOMEM;
    if (self && (names || !list)) {
        klaw_store *s = of(keeper);
        self->store = Py_NewRef(keeper);
        Py_BEGIN_ALLOW_THREADS e = klaw_workflow_open(s, name, &o, &self->w, &info);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(names);
    Py_XDECREF(list);
    if (e == KLAW_OK)
        return (PyObject *)self;
    if (self)
        raise_info((PyObject *)self, e, &info);
    Py_XDECREF(self);
    return NULL;
}

static void run_dealloc(PyObject *o) {
    workflow *self = (workflow *)o;
    PyTypeObject *type = Py_TYPE(o);
    klaw_workflow *w = self->w;
    if (w) {
        Py_BEGIN_ALLOW_THREADS klaw_workflow_close(w);
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF(self->store);
    type->tp_free(o);
    Py_DECREF(type);
}

static klaw_workflow *wf_of(PyObject *self) {
    klaw_workflow *w = ((workflow *)self)->w;
    if (!w)
        PyErr_SetString(PyExc_RuntimeError, "this workflow has been closed");
    return w;
}

struct call {
    PyObject *function;   /* borrowed */
    PyThreadState *state; /* the caller's, while it is without the GIL */
    klawpy_state *st;
    PyObject *type, *value, *trace;
};

/* Whether it was ended from outside: TaskCancelledError, or what is no Exception (asyncio's and trio's
 * cancellation, KeyboardInterrupt). Such a step was interrupted and is not tried again in this run. */
static bool stopped(const struct call *c) {
    if (!PyErr_GivenExceptionMatches(c->type, PyExc_Exception))
        return true;
    PyObject *kind =
        c->st->errors ? PyObject_GetAttrString(c->st->errors, "TaskCancelledError") : NULL;
    bool is = kind && PyErr_GivenExceptionMatches(c->type, kind);
    Py_XDECREF(kind);
    PyErr_Clear();
    return is;
}

/* The step: calls back into Python, on the thread that asked for it. */
static klaw_err run_step(klaw_step *step, void *arg, klaw_blob **result) {
    struct call *c = arg;
    klaw_err e = KLAW_BACKEND;
    PyEval_RestoreThread(c->state);
    Py_CLEAR(c->type);
    Py_CLEAR(c->value);
    Py_CLEAR(c->trace);
    PyObject *r = PyObject_CallNoArgs(c->function);
    char *data;
    Py_ssize_t size;
    if (r && PyBytes_AsStringAndSize(r, &data, &size) == 0)
        e = klaw_blob_new(data, (size_t)size, result);
    Py_XDECREF(r);
    if (PyErr_Occurred()) {
        PyErr_Fetch(&c->type, &c->value, &c->trace);
        PyErr_NormalizeException(&c->type, &c->value, &c->trace);
        e = stopped(c) ? KLAW_CANCELLED : KLAW_BACKEND;
        PyObject *text = c->value ? PyObject_Repr(c->value) : NULL;
        const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
        if (utf8)
            klaw_step_explain(step, "%s", utf8);
        PyErr_Clear();
        Py_XDECREF(text);
    }
    c->state = PyEval_SaveThread();
    return e;
}

static PyObject *run_step_method(PyObject *self, PyObject *args) {
    const char *name;
    struct call c = {0};
    unsigned attempts = 1;
    double backoff = 0;
    klaw_blob *b = NULL;
    klaw_error_info info = {0};
    if (!PyArg_ParseTuple(args, "sO|Id", &name, &c.function, &attempts, &backoff) || !wf_of(self))
        return NULL;
    klaw_step_opts o = {
        .retry = {.attempts = (int32_t)attempts,
                  .backoff = {.base = backoff > 0 ? (int64_t)(backoff * 1e9) : KLAW_NONE}}};
    klaw_workflow *w = ((workflow *)self)->w;
    klaw_err e;
    c.st = klawpy_state_of(Py_TYPE(self));
    if (!c.st->errors && !(c.st->errors = PyImport_ImportModule("klaw_core.runtime.errors")))
        return NULL;
    c.state = PyEval_SaveThread();
    e = klaw_workflow_step(w, name, run_step, &c, &o, &b, &info);
    PyEval_RestoreThread(c.state);
    if (e && c.type) {
        PyErr_Restore(c.type, c.value, c.trace);
        return NULL;
    }
    Py_XDECREF(c.type);
    Py_XDECREF(c.value);
    Py_XDECREF(c.trace);
    return e ? raise_info(self, e, &info) : bytes_of(b);
}

static PyObject *run_kept(PyObject *self, PyObject *name) {
    const char *text = PyUnicode_AsUTF8(name);
    klaw_blob *b = NULL;
    klaw_error_info info = {0};
    klaw_workflow *w = text ? wf_of(self) : NULL;
    if (!w)
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_kept(w, text, &b, &info);
    Py_END_ALLOW_THREADS if (e == KLAW_NOT_FOUND) Py_RETURN_NONE;
    return e ? raise_info(self, e, &info) : bytes_of(b);
}

static PyObject *run_finish(PyObject *self, PyObject *args) {
    Py_buffer value;
    klaw_blob *b = NULL;
    klaw_error_info info = {0};
    klaw_workflow *w = wf_of(self);
    if (!w || !PyArg_ParseTuple(args, "y*", &value))
        return NULL;
    klaw_err e = klaw_blob_new(value.buf, (size_t)value.len, &b);
    PyBuffer_Release(&value);
    if (e == KLAW_OK) {
        Py_BEGIN_ALLOW_THREADS e = klaw_workflow_finish(w, b, &info);
        Py_END_ALLOW_THREADS klaw_blob_unref(b);
    }
    if (e)
        return raise_info(self, e, &info);
    Py_RETURN_NONE;
}

static PyObject *run_fail(PyObject *self, PyObject *message) {
    const char *text = PyUnicode_AsUTF8(message);
    klaw_error_info info = {0};
    klaw_workflow *w = text ? wf_of(self) : NULL;
    if (!w)
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_fail(w, KLAW_BACKEND, text, &info);
    Py_END_ALLOW_THREADS if (e) return raise_info(self, e, &info);
    Py_RETURN_NONE;
}

static PyObject *run_result(PyObject *self, PyObject *unused) {
    klaw_blob *b = NULL;
    klaw_error_info info = {0};
    klaw_workflow *w = wf_of(self);
    (void)unused;
    if (!w)
        return NULL;
    klaw_err e;
    Py_BEGIN_ALLOW_THREADS e = klaw_workflow_result(w, &b, &info);
    Py_END_ALLOW_THREADS if (e == KLAW_NOT_FOUND) Py_RETURN_NONE;
    return e ? raise_info(self, e, &info) : bytes_of(b);
}

static PyObject *run_close(PyObject *self, PyObject *unused) {
    klaw_workflow *w = ((workflow *)self)->w;
    (void)unused;
    ((workflow *)self)->w = NULL;
    if (w) {
        Py_BEGIN_ALLOW_THREADS klaw_workflow_close(w);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *run_done(PyObject *self, void *unused) {
    klaw_workflow *w = wf_of(self);
    (void)unused;
    return w ? PyBool_FromLong(klaw_workflow_done(w)) : NULL;
}

static PyMethodDef run_methods[] = {
    {"step", run_step_method, METH_VARARGS,
     "step($self, name, function, attempts=1, backoff=0.0, /)\n--\n\n"
     "The kept bytes, or those function() returns now."},
    {"kept", run_kept, METH_O, "kept($self, name, /)\n--\n\nThe kept bytes of a step, or None."},
    {"finish", run_finish, METH_VARARGS, "finish($self, result, /)\n--\n\nDone, with these bytes."},
    {"fail", run_fail, METH_O, "fail($self, message, /)\n--\n\nFailed; resumable."},
    {"result", run_result, METH_NOARGS,
     "result($self, /)\n--\n\nThe bytes it finished with, or None."},
    {"close", run_close, METH_NOARGS, "close($self, /)\n--\n\nGives the lease back. Idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef run_getset[] = {
    {"done", run_done, NULL, "Whether it has been finished.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot run_slots[] = {
    {Py_tp_new, run_new},
    {Py_tp_dealloc, run_dealloc},
    {Py_tp_methods, run_methods},
    {Py_tp_getset, run_getset},
    {Py_tp_doc, "One run of a workflow of libklaw; blocks on the disk."},
    {0, NULL},
};

static PyType_Spec run_spec = {
    .name = "klaw_core._klaw.WorkflowRun",
    .basicsize = sizeof(workflow),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = run_slots,
};

int klawpy_store_init(PyObject *module, klawpy_state *st) {
    PyTypeObject *t = NULL;
    if ((st->store_type = klawpy_add_type(module, &store_spec, NULL)))
        t = klawpy_add_type(module, &run_spec, NULL);
    Py_XDECREF(t);
    return t ? 0 : -1;
}
