/* SPDX-License-Identifier: Apache-2.0 */
/* inbox.c - inboxes of event loops and of threads.
 *
 * An asyncio loop has one inbox, found in a dictionary with weak keys and watched by add_reader: a peer
 * on another thread writes to the inbox's descriptor, the loop calls _pump, _pump calls back. A peer on
 * the loop's own thread takes no such trip: its inbox is "mine" to the thread, held while it operates
 * (klaw_inbox_hold), and pumped by klawpy_leave.
 *
 * Ownership: the inbox object and the thread share a small counted struct; the klaw_inbox goes with the
 * last of them, so that an inbox that is collected on another thread leaves no dangling pointer here.
 * Operations that wait hold the inbox object, so a klaw_inbox is never given up while it is waited on. */
#include "inbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <structmember.h>

typedef struct klawpy_mine {
    _Atomic int refs;
    klaw_inbox *in;
    klawpy_inbox *object; /* (GIL) while it is alive */
} klawpy_mine;

static __thread klawpy_mine *mine;
static pthread_key_t mine_key;
static pthread_once_t mine_once = PTHREAD_ONCE_INIT;

static void mine_unref(void *p) {
    klawpy_mine *m = p;
    if (m && atomic_fetch_sub(&m->refs, 1) == 1) {
        klaw_inbox_unref(m->in);
        PyMem_RawFree(m);
    }
}

static void make_key(void) {
    pthread_key_create(&mine_key, mine_unref);
}

/* The calling thread operates through this inbox from now on. */
static void adopt(klawpy_mine *m) {
    if (mine == m)
        return;
    pthread_once(&mine_once, make_key);
    mine_unref(mine);
    atomic_fetch_add(&m->refs, 1);
    mine = m;
    pthread_setspecific(mine_key, m);
}

klaw_inbox *klawpy_enter(void) {
    klawpy_mine *m = mine;
    if (!m)
        return NULL;
    klaw_inbox_hold(m->in);
    return m->in;
}

void klawpy_leave(klaw_inbox *held) {
    if (held && klaw_inbox_release(held)) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        klaw_inbox_pump(held, 0);
        PyErr_Restore(type, value, trace);
    }
}

void klawpy_inbox_pump(klawpy_inbox *inbox) {
    klaw_inbox_pump(inbox->in, 0);
}

/* --- the type --- */
static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    char *keys[] = {NULL};
    klawpy_state *st = klawpy_state_of(type);
    if (!st || !PyArg_ParseTupleAndKeywords(args, kwargs, "", keys))
        return NULL;
    klawpy_inbox *self = (klawpy_inbox *)type->tp_alloc(type, 0);
    klawpy_mine *m = self ? PyMem_RawCalloc(1, sizeof *m) : NULL;
    if (!m) {
        Py_XDECREF(self);
        return PyErr_NoMemory();
    }
    klaw_err e = klaw_inbox_open(&m->in);
    if (e) {
        PyMem_RawFree(m);
        Py_DECREF(self);
        return klawpy_raise_code(st, e);
    }
    atomic_init(&m->refs, 1);
    m->object = self;
    self->mine = m;
    self->in = m->in;
    adopt(m);
    return (PyObject *)self;
}

static int inbox_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((klawpy_inbox *)self)->loop);
    return 0;
}

static void inbox_dealloc(PyObject *o) {
    klawpy_inbox *self = (klawpy_inbox *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    if (self->weaklist)
        PyObject_ClearWeakRefs(o);
    Py_CLEAR(self->loop);
    if (self->mine)
        self->mine->object = NULL;
    if (self->mine && mine == self->mine) { /* usual case: its own thread */
        mine = NULL;
        pthread_setspecific(mine_key, NULL);
        mine_unref(self->mine);
    }
    mine_unref(self->mine);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *inbox_fileno(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(klaw_inbox_fd(((klawpy_inbox *)self)->in));
}

static PyObject *inbox_pump(PyObject *self, PyObject *unused) {
    (void)unused;
    adopt(((klawpy_inbox *)self)->mine);
    klawpy_inbox_pump((klawpy_inbox *)self);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"fileno", inbox_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nA descriptor that polls readable while something is to be pumped."},
    {"pump", inbox_pump, METH_NOARGS,
     "pump($self, /)\n--\n\nCalls back the operations that have completed. On the loop's thread."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(klawpy_inbox, weaklist), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, inbox_new},
    {Py_tp_dealloc, inbox_dealloc},
    {Py_tp_traverse, inbox_traverse},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_doc, "Inbox()\n--\n\nWhere completed operations of one event loop arrive."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Inbox",
    .basicsize = sizeof(klawpy_inbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

/* --- finding --- */
static klawpy_inbox *make(klawpy_state *st) {
    return (klawpy_inbox *)PyObject_CallNoArgs((PyObject *)st->inbox_type);
}

static int watch(klawpy_inbox *inbox, PyObject *loop) {
    PyObject *pump = PyObject_GetAttrString((PyObject *)inbox, "pump"), *r = NULL;
    if (pump)
        r = PyObject_CallMethod(loop, "add_reader", "iO", klaw_inbox_fd(inbox->in), pump);
    Py_XDECREF(pump);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

klawpy_inbox *klawpy_inbox_of_loop(klawpy_state *st, PyObject *loop) {
    /* Nearly always the thread's last one. The weak reference tells the loop from another one that has
     * got its address. */
    klawpy_inbox *last = mine ? mine->object : NULL;
    if (last && last->loop && PyWeakref_GetObject(last->loop) == loop)
        return (klawpy_inbox *)Py_NewRef((PyObject *)last);
    if (!st->inboxes) {
        PyObject *weakref = PyImport_ImportModule("weakref");
        st->inboxes = weakref ? PyObject_CallMethod(weakref, "WeakKeyDictionary", NULL) : NULL;
        Py_XDECREF(weakref);
        if (!st->inboxes)
            return NULL;
    }
    klawpy_inbox *inbox = (klawpy_inbox *)PyObject_GetItem(st->inboxes, loop);
    if (!inbox) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return NULL;
        PyErr_Clear();
        inbox = make(st);
        if (inbox && (!(inbox->loop = PyWeakref_NewRef(loop, NULL)) || watch(inbox, loop) < 0 ||
                      PyObject_SetItem(st->inboxes, loop, (PyObject *)inbox) < 0))
            Py_CLEAR(inbox);
    }
    if (inbox)
        adopt(inbox->mine);
    return inbox;
}

klawpy_inbox *klawpy_inbox_of_thread(klawpy_state *st) {
    PyObject *dict = PyThreadState_GetDict();
    if (!dict) {
        PyErr_SetString(PyExc_RuntimeError, "no Python thread");
        return NULL;
    }
    PyObject *key = (PyObject *)st->inbox_type;
    klawpy_inbox *inbox = (klawpy_inbox *)Py_XNewRef(PyDict_GetItemWithError(dict, key));
    if (!inbox && !PyErr_Occurred()) {
        inbox = make(st);
        if (inbox && PyDict_SetItem(dict, key, (PyObject *)inbox) < 0)
            Py_CLEAR(inbox);
    }
    if (inbox)
        adopt(inbox->mine);
    return inbox;
}

int klawpy_inbox_init(PyObject *module, klawpy_state *st) {
    return (st->inbox_type = klawpy_add_type(module, &spec, NULL)) ? 0 : -1;
}
