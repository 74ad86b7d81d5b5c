/* SPDX-License-Identifier: Apache-2.0 */
/* inbox.c - inboxes of event loops and of threads.
 *
 * An asyncio loop has one inbox, watched by add_reader: a peer on another thread writes to the inbox's
 * descriptor, the loop calls pump, pump calls back. A peer on the loop's own thread takes no such trip:
 * its inbox is "here" to the thread, held while it operates (klaw_inbox_hold) unless nothing waits in it,
 * and pumped by klawpy_leave. The loop owns its inbox, by what it calls; the dictionary that finds it is
 * weak at both ends, since what is to be woken refers to the loop.
 *
 * Waking a task that was granted is a call of the loop's (tasks don't nest), but not a call for each: the
 * inbox keeps them in a ring and has the loop call _drain once. What these tasks wake in turn goes on in
 * the same call, up to CHAIN of them and for SLICE: a ping-pong of two tasks does not go through the
 * selector each time, and the rest of the loop has its turn all the same. A call is asked for with the
 * first wake-up of each slice, also within _drain, so that none depends on _drain returning (a loop that
 * is run again from within a task).
 *
 * Ownership: the inbox object and the thread share a small counted struct; the klaw_inbox goes with the
 * last of them, so that an inbox that is collected on another thread leaves no dangling pointer here.
 * Operations that wait hold the inbox object, so a klaw_inbox is never given up while it is waited on. */
#include "inbox.h"

#include <pthread.h>
#include <stddef.h>
#include <structmember.h>

/* Tasks that woken tasks wake in turn go on at once, at most so many and so long (nanoseconds). */
#define CHAIN 32
#define SLICE 100000

__thread klawpy_mine *klawpy_here;
_Atomic bool klawpy_many_owners;
static PyInterpreterState *_Atomic first_owner;
static __thread klawpy_inbox *waking; /* whose _drain runs */
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
    if (klawpy_here == m)
        return;
    pthread_once(&mine_once, make_key);
    mine_unref(klawpy_here);
    atomic_fetch_add(&m->refs, 1);
    klawpy_here = m;
    pthread_setspecific(mine_key, m);
}

void klawpy_deliver(klaw_inbox *held) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    klaw_inbox_pump(held, 0);
    PyErr_Restore(type, value, trace);
}

void klawpy_inbox_pump(klawpy_inbox *inbox) {
    klaw_inbox_pump(inbox->in, 0);
}

/* --- waking --- */
static int schedule(klawpy_state *st, klawpy_inbox *inbox) {
    PyObject *loop = inbox->loop ? PyWeakref_GetObject(inbox->loop) : Py_None, *r = NULL;
    if (loop == Py_None) {
        PyErr_SetString(PyExc_RuntimeError, "the event loop is gone");
        return -1;
    }
    Py_INCREF(loop);
    PyObject *drain = PyObject_GetAttr((PyObject *)inbox, st->s_drain), *args[] = {loop, drain};
    if (drain)
        r = PyObject_VectorcallMethod(st->s_call_soon, args, 2, NULL);
    Py_XDECREF(drain);
    Py_DECREF(loop);
    Py_XDECREF(r);
    inbox->scheduled = r != NULL;
    return r ? 0 : -1;
}

/* Room for one more. */
static bool reserve(klawpy_inbox *inbox) {
    if (inbox->count < inbox->size)
        return true;
    size_t size = inbox->size ? inbox->size * 2 : 8;
    klawpy_wake *wakes = PyMem_Calloc(size, sizeof *wakes);
    if (!wakes)
        return false;
    for (size_t i = 0; i < inbox->count; i++)
        wakes[i] = inbox->wakes[(inbox->first + i) & (inbox->size - 1)];
    PyMem_Free(inbox->wakes);
    inbox->wakes = wakes;
    inbox->size = size;
    inbox->first = 0;
    return true;
}

int klawpy_inbox_wake(klawpy_state *st, klawpy_inbox *inbox, PyObject *callback, PyObject *op,
                      PyObject *context) {
    if (!inbox->scheduled && schedule(st, inbox) < 0)
        return -1;
    if (!reserve(inbox)) { /* last: the loop's call_soon may run anything, wake-ups as well */
        PyErr_NoMemory();
        return -1;
    }
    klawpy_wake *w = &inbox->wakes[(inbox->first + inbox->count++) & (inbox->size - 1)];
    w->callback = Py_NewRef(callback);
    w->op = Py_NewRef(op);
    w->context = Py_XNewRef(context);
    return 0;
}

static klawpy_wake take(klawpy_inbox *inbox) {
    klawpy_wake w = inbox->wakes[inbox->first];
    inbox->first = (inbox->first + 1) & (inbox->size - 1);
    inbox->count--;
    return w;
}

static bool wake_one(klawpy_wake w) {
    PyObject *r = NULL;
    if (!w.context || PyContext_Enter(w.context) == 0) {
        r = PyObject_CallOneArg(w.callback, w.op);
        if (w.context && PyContext_Exit(w.context) < 0)
            Py_CLEAR(r);
    }
    Py_DECREF(w.callback);
    Py_DECREF(w.op);
    Py_XDECREF(w.context);
    Py_XDECREF(r);
    return r != NULL;
}

/* Wakes those who are there, then those whom they woke: CHAIN of them at most, for SLICE, so that the
 * rest of the loop has its turn. False with an exception set: the loop will come again for the rest. */
static bool drain(klawpy_state *st, klawpy_inbox *inbox) {
    klawpy_inbox *outer = waking;
    size_t due = inbox->count;
    int64_t until = 0;
    bool ok = true;
    waking = inbox;
    for (size_t i = 0; ok && inbox->count && i < due + CHAIN; i++) {
        if (i >= due && !until)
            until = klaw_now() + SLICE;
        else if (i >= due && klaw_now() >= until)
            break;
        ok = wake_one(take(inbox));
    }
    waking = outer;
    if (inbox->count && !inbox->scheduled) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        if (schedule(st, inbox) < 0)
            PyErr_WriteUnraisable((PyObject *)inbox);
        PyErr_Restore(type, value, trace);
    }
    return ok;
}

PyObject *klawpy_waking_loop(klawpy_state *st) {
    if (!waking || !waking->loop || Py_TYPE(waking) != st->inbox_type) /* another interpreter's */
        return NULL;
    PyObject *loop = PyWeakref_GetObject(waking->loop);
    return loop == Py_None ? NULL : loop;
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
    m->owner = PyInterpreterState_Get();
    self->mine = m;
    self->in = m->in;
    adopt(m);
    return (PyObject *)self;
}

static int inbox_traverse(PyObject *o, visitproc visit, void *arg) {
    klawpy_inbox *self = (klawpy_inbox *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->loop);
    for (size_t i = 0; i < self->count; i++) {
        klawpy_wake *w = &self->wakes[(self->first + i) & (self->size - 1)];
        Py_VISIT(w->callback);
        Py_VISIT(w->op);
        Py_VISIT(w->context);
    }
    return 0;
}

static int inbox_clear(PyObject *o) {
    klawpy_inbox *self = (klawpy_inbox *)o;
    while (self->count) {
        klawpy_wake w = take(self);
        Py_DECREF(w.callback);
        Py_DECREF(w.op);
        Py_XDECREF(w.context);
    }
    return 0;
}

static void inbox_dealloc(PyObject *o) {
    klawpy_inbox *self = (klawpy_inbox *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    if (self->weaklist)
        PyObject_ClearWeakRefs(o);
    inbox_clear(o);
    PyMem_Free(self->wakes);
    Py_CLEAR(self->loop);
    klawpy_group_free(self->group);
    self->group = NULL;
    if (self->mine)
        self->mine->object = NULL;
    if (self->mine && klawpy_here == self->mine) { /* usual case: its own thread */
        klawpy_here = NULL;
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
    klawpy_inbox *inbox = (klawpy_inbox *)self;
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    if (!st)
        return NULL;
    adopt(inbox->mine);
    klawpy_inbox_pump(inbox);
    if (PyErr_Occurred() || !drain(st, inbox))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *inbox_drain(PyObject *self, PyObject *unused) {
    klawpy_inbox *inbox = (klawpy_inbox *)self;
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    (void)unused;
    inbox->scheduled = false;
    if (!st || !drain(st, inbox))
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"fileno", inbox_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nA descriptor that polls readable while something is to be pumped."},
    {"pump", inbox_pump, METH_NOARGS,
     "pump($self, /)\n--\n\nCalls back the operations that have completed. On the loop's thread."},
    {"_drain", inbox_drain, METH_NOARGS, NULL},
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
    {Py_tp_clear, inbox_clear},
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
    klawpy_inbox *last = klawpy_mine_usable(klawpy_here) ? klawpy_here->object : NULL;
    if (last && last->loop && PyWeakref_GetObject(last->loop) == loop)
        return (klawpy_inbox *)Py_NewRef((PyObject *)last);
    if (!st->inboxes) {
        PyObject *weakref = PyImport_ImportModule("weakref");
        st->inboxes = weakref ? PyObject_CallMethod(weakref, "WeakKeyDictionary", NULL) : NULL;
        Py_XDECREF(weakref);
        if (!st->inboxes)
            return NULL;
    }
    PyObject *ref = PyObject_GetItem(st->inboxes, loop);
    if (!ref) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return NULL;
        PyErr_Clear();
    }
    PyObject *known = ref ? PyWeakref_GetObject(ref) : Py_None;
    klawpy_inbox *inbox = known != Py_None ? (klawpy_inbox *)Py_NewRef(known) : NULL;
    Py_XDECREF(ref);
    if (!inbox) {
        inbox = make(st);
        ref = inbox ? PyWeakref_NewRef((PyObject *)inbox, NULL) : NULL;
        if (inbox && (!ref || !(inbox->loop = PyWeakref_NewRef(loop, NULL)) ||
                      watch(inbox, loop) < 0 || PyObject_SetItem(st->inboxes, loop, ref) < 0))
            Py_CLEAR(inbox);
        Py_XDECREF(ref);
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
    PyInterpreterState *none = NULL, *own = PyInterpreterState_Get();
    if (!atomic_compare_exchange_strong(&first_owner, &none, own) && none != own)
        atomic_store(&klawpy_many_owners, true);
    return (st->inbox_type = klawpy_add_type(module, &spec, NULL)) ? 0 : -1;
}
