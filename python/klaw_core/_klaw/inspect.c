/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - inspection from outside: opening the process, and Published, which shows a task, an actor or
 * a supervisor of Python in libklaw's snapshots.
 *
 * libklaw's server never asks Python anything: it may be asked just because Python stands still. So
 * objects tell what becomes of them (publish.h). A Published keeps the mailbox's receiver alive as long
 * as libklaw looks at it. */
#include "inspect.h"

#include <klaw/publish.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "chan.h"

typedef struct published {
    PyObject_HEAD klaw_published *shown;
    PyObject *mailbox; /* a Receiver, or NULL */
    klaw_actor_stats actor;
    klaw_supervisor_info supervisor;
} published;

static published *of(PyObject *self) {
    return (published *)self;
}

static void copy(char *out, size_t size, const char *text) {
    PyOS_snprintf(out, size, "%s", text);
}

static PyObject *published_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    const char *kind, *name, *what = "";
    int strategy = 0;
    klaw_err e = KLAW_INVALID;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Published takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "ss|si", &kind, &name, &what, &strategy))
        return NULL;
    published *p = (published *)type->tp_alloc(type, 0);
    if (!p)
        return NULL;
    if (strcmp(kind, "task") == 0) {
        klaw_task_info now = {.running = true};
        copy(now.name, sizeof now.name, name);
        e = klaw_publish_task(&now, &p->shown);
    } else if (strcmp(kind, "actor") == 0) {
        copy(p->actor.name, sizeof p->actor.name, name);
        copy(p->actor.behavior, sizeof p->actor.behavior, what);
        e = klaw_publish_actor(&p->actor, NULL, &p->shown);
    } else if (strcmp(kind, "supervisor") == 0) {
        copy(p->supervisor.name, sizeof p->supervisor.name, name);
        p->supervisor.strategy = (klaw_strategy)strategy;
        e = klaw_publish_supervisor(&p->supervisor, &p->shown);
    }
    if (e) {
        Py_DECREF(p);
        if (e == KLAW_NOMEM)
            return PyErr_NoMemory();
        PyErr_Format(PyExc_ValueError, "kind has to be 'task', 'actor' or 'supervisor', not '%s'",
                     kind);
        return NULL;
    }
    return (PyObject *)p;
}

static void end(published *p) {
    klaw_unpublish(p->shown);
    p->shown = NULL;
    Py_CLEAR(p->mailbox);
}

static int published_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->mailbox);
    return 0;
}

static int published_clear(PyObject *self) {
    end(of(self));
    return 0;
}

static void published_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    end(of(self));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *published_end(PyObject *self, PyObject *unused) {
    (void)unused;
    end(of(self));
    Py_RETURN_NONE;
}

static PyObject *get_id(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(of(self)->shown ? klaw_published_id(of(self)->shown) : 0);
}

/* --- actors --- */
static void tell_actor(published *p) {
    klaw_receiver *box = p->mailbox ? ((klawpy_end *)p->mailbox)->rx : NULL;
    klaw_published_actor(p->shown, &p->actor, box);
}

static PyObject *actor_starts(PyObject *self, PyObject *args) {
    published *p = of(self);
    unsigned long long incarnation;
    PyObject *mailbox;
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &klawpy_module);
    if (!module || !PyArg_ParseTuple(args, "KO!", &incarnation,
                                     klawpy_state_of_module(module)->receiver_type, &mailbox))
        return NULL;
    PyObject *before = p->mailbox;
    p->mailbox = Py_NewRef(mailbox);
    p->actor.incarnation = incarnation;
    p->actor.restarts = incarnation - 1;
    p->actor.state = KLAW_ACTOR_STARTING;
    tell_actor(p);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *actor_idle(PyObject *self, PyObject *unused) {
    (void)unused;
    of(self)->actor.state = KLAW_ACTOR_IDLE;
    tell_actor(of(self));
    Py_RETURN_NONE;
}

static PyObject *actor_busy(PyObject *self, PyObject *unused) {
    (void)unused;
    of(self)->actor.state = KLAW_ACTOR_RUNNING;
    tell_actor(of(self));
    Py_RETURN_NONE;
}

static PyObject *actor_handled(PyObject *self, PyObject *unused) {
    of(self)->actor.handled++;
    return actor_idle(self, unused);
}

static PyObject *actor_failed(PyObject *self, PyObject *unused) {
    (void)unused;
    of(self)->actor.failed++;
    of(self)->actor.state = KLAW_ACTOR_BACKOFF;
    tell_actor(of(self));
    Py_RETURN_NONE;
}

/* --- supervisors --- */
static bool take_child(PyObject *item, klaw_child_info *out) {
    const char *name, *error;
    int kind, state;
    unsigned long long restarts;
    long long id;
    if (!PyTuple_Check(item) ||
        !PyArg_ParseTuple(item, "siiKLs", &name, &kind, &state, &restarts, &id, &error))
        return false;
    copy(out->name, sizeof out->name, name);
    copy(out->last_detail, sizeof out->last_detail, error);
    out->kind = (klaw_child_kind)kind;
    out->state = (klaw_child_state)state;
    out->restarts = restarts;
    out->id = id;
    out->last_error = *error ? KLAW_BACKEND : KLAW_OK;
    return true;
}

static PyObject *supervisor(PyObject *self, PyObject *args) {
    published *p = of(self);
    PyObject *list;
    int stopping;
    unsigned long long parent;
    klaw_supervisor_info *now = &p->supervisor;
    if (!PyArg_ParseTuple(args, "pKO!", &stopping, &parent, &PyList_Type, &list))
        return NULL;
    size_t n = (size_t)PyList_GET_SIZE(list);
    klaw_child_info *children = PyMem_Calloc(n + 1, sizeof *children);
    if (!children)
        return PyErr_NoMemory();
    now->specs = n;
    now->active = now->restarts = 0;
    now->stopping = stopping;
    now->parent_id = parent;
    for (size_t i = 0; i < n; i++) {
        if (!take_child(PyList_GET_ITEM(list, (Py_ssize_t)i), &children[i])) {
            PyMem_Free(children);
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "a child is a tuple");
            return NULL;
        }
        now->active += children[i].state == KLAW_CHILD_RUNNING;
        now->restarts += children[i].restarts;
    }
    klaw_err e = p->shown ? klaw_published_supervisor(p->shown, now, children, n) : KLAW_OK;
    PyMem_Free(children);
    if (e == KLAW_NOMEM)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"actor_starts", actor_starts, METH_VARARGS,
     "actor_starts($self, incarnation, mailbox, /)\n--\n\nA life begins, over this Receiver."},
    {"actor_idle", actor_idle, METH_NOARGS, "actor_idle($self, /)\n--\n\nIt waits for a message."},
    {"actor_busy", actor_busy, METH_NOARGS, "actor_busy($self, /)\n--\n\nIt handles one."},
    {"actor_handled", actor_handled, METH_NOARGS, "actor_handled($self, /)\n--\n\nIt has."},
    {"actor_failed", actor_failed, METH_NOARGS, "actor_failed($self, /)\n--\n\nThe life failed."},
    {"supervisor", supervisor, METH_VARARGS,
     "supervisor($self, stopping, parent, children, /)\n--\n\nHow it is: children as (name, kind, "
     "state, "
     "restarts, id, error)."},
    {"end", published_end, METH_NOARGS, "end($self, /)\n--\n\nTakes it away; idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"id", get_id, NULL, "Its number in snapshots; 0 when it was taken away.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_new, published_new},
    {Py_tp_dealloc, published_dealloc},
    {Py_tp_traverse, published_traverse},
    {Py_tp_clear, published_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_doc,
     "Published(kind, name, behavior='', strategy=0, /)\n--\n\nA task, an actor or a supervisor in "
     "snapshots."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Published",
    .basicsize = sizeof(published),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

/* --- the process --- */
static PyObject *inspect_open(PyObject *module, PyObject *unused) {
    klaw_error_info info = {0};
    (void)module;
    (void)unused;
    klaw_err e = klaw_inspect_open(&info);
    if (e) {
        PyErr_SetString(PyExc_OSError, info.message[0] ? info.message : klaw_err_text(e));
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *inspect_path(PyObject *module, PyObject *unused) {
    char path[128];
    (void)module;
    (void)unused;
    if (klaw_inspect_path(path, sizeof path) != KLAW_OK)
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(path);
}

static PyObject *inspect_labels(PyObject *module, PyObject *function) {
    klawpy_state *st = klawpy_state_of_module(module);
    PyObject *before = st->label_of;
    st->label_of = function == Py_None ? NULL : Py_NewRef(function);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

uint32_t klawpy_label(klawpy_state *st, PyObject *ends, bool timed) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *r =
        PyObject_CallFunctionObjArgs(st->label_of, ends, timed ? Py_True : Py_False, NULL);
    unsigned long long id = r ? PyLong_AsUnsignedLongLong(r) : 0;
    if (PyErr_Occurred()) { /* nobody waits the worse for it */
        PyErr_Clear();
        id = 0;
    }
    Py_XDECREF(r);
    PyErr_Restore(type, value, trace);
    return (uint32_t)id;
}

/* --- who waits for whom --- */
/* A reader of the socket wants to know. The thread that answers it has no time for the GIL, which may be held for ever:
 * another one calls Python, one at a time. It is gone before the interpreter ends (_inspect.py, atexit). */
static _Atomic bool looking;
static PyObject *look_function; /* (GIL) */

static void *look(void *unused) {
    (void)unused;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *function = Py_XNewRef(look_function);
    PyObject *r = function ? PyObject_CallNoArgs(function) : NULL;
    if (function && !r)
        PyErr_WriteUnraisable(function);
    Py_XDECREF(r);
    Py_XDECREF(function);
    PyGILState_Release(gil);
    atomic_store(&looking, false);
    return NULL;
}

static void ask_python(void *unused) {
    pthread_t thread;
    pthread_attr_t detached;
    (void)unused;
    if (atomic_exchange(&looking, true))
        return; /* the one before is at it */
    bool begun = false;
    if (pthread_attr_init(&detached) == 0) {
        begun = pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED) == 0 &&
                pthread_create(&thread, &detached, look, NULL) == 0;
        pthread_attr_destroy(&detached);
    }
    if (begun)
        (void)pthread_setname_np(thread, "klaw-look");
    else
        atomic_store(&looking, false);
}

static PyObject *inspect_look(PyObject *module, PyObject *function) {
    (void)module;
    Py_XSETREF(look_function, function == Py_None ? NULL : Py_NewRef(function));
    Py_BEGIN_ALLOW_THREADS;
    klaw_publish_looker(function == Py_None ? NULL : ask_python, NULL);
    for (int ms = 0; function == Py_None && atomic_load(&looking) && ms < 2000;
         ms++) { /* in a fork: never */
        const struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *publish_holds(PyObject *module, PyObject *list) {
    (void)module;
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "a list of (waiter, holder, what)");
        return NULL;
    }
    size_t n = (size_t)PyList_GET_SIZE(list);
    klaw_hold_info *rows = PyMem_Calloc(n + 1, sizeof *rows);
    klaw_err e = rows ? KLAW_OK : KLAW_NOMEM;
    for (size_t i = 0; !e && i < n; i++) {
        unsigned long long waiter, holder;
        const char *what;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, (Py_ssize_t)i), "KKs", &waiter, &holder,
                              &what)) {
            PyMem_Free(rows);
            return NULL;
        }
        rows[i].waiter_id = waiter;
        rows[i].holder_id = holder;
        copy(rows[i].what, sizeof rows[i].what, what);
    }
    e = e ? e : klaw_publish_holds(rows, n);
    PyMem_Free(rows);
    if (e)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"inspect_open", inspect_open, METH_NOARGS,
     "inspect_open()\n--\n\nOpens the process to the klaw command. OSError."},
    {"inspect_path", inspect_path, METH_NOARGS,
     "inspect_path()\n--\n\nThe path of its socket; None: it is not open."},
    {"inspect_labels", inspect_labels, METH_O,
     "inspect_labels(function, /)\n--\n\nfunction(ends, timed) numbers the task that is about to "
     "wait at an endpoint (a select: at a tuple of them); None: none."},
    {"inspect_look", inspect_look, METH_O,
     "inspect_look(function, /)\n--\n\nfunction() is called, on a thread of its own, when a reader "
     "wants to know who waits for whom; it calls publish_holds. None: nobody is."},
    {"publish_holds", publish_holds, METH_O,
     "publish_holds(rows, /)\n--\n\nWho waits for whom, a list of (waiter, holder, what)."},
    {NULL, NULL, 0, NULL},
};

int klawpy_inspect_init(PyObject *module, klawpy_state *st) {
    (void)st;
    PyTypeObject *t = klawpy_add_type(module, &spec, NULL);
    Py_XDECREF(t);
    return t ? PyModule_AddFunctions(module, functions) : -1;
}
