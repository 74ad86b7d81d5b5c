/* SPDX-License-Identifier: Apache-2.0 */
/* supervision.c - libklaw's supervision machine as a Python type: the decisions are its, Python carries
 * them out (klaw_core.runtime.supervisor).
 *
 * The host is the clock and the dice: every call takes the time of now and fresh random bits. Errors of
 * children are told apart only as failed or not; what they were stays in Python. One task drives a
 * machine, with the GIL held, so there is no lock. */
#include "state.h"

#include <sys/random.h>

typedef struct machine {
    PyObject_HEAD klaw_supervision *s;
} machine;

static klaw_supervision *of(PyObject *self) {
    return ((machine *)self)->s;
}

static uint64_t dice(void) {
    static __thread uint64_t x;
    if (x == 0 && getrandom(&x, sizeof x, GRND_NONBLOCK) != (ssize_t)sizeof x)
        x = (uint64_t)klaw_now() | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x * 2685821657736338717u;
}

static PyObject *told(PyObject *self, klaw_err e) {
    if (e == KLAW_OK)
        Py_RETURN_NONE;
    if (e == KLAW_NOMEM)
        return PyErr_NoMemory();
    PyObject *type = e == KLAW_NOT_FOUND ? PyExc_KeyError
                     : e == KLAW_INVALID ? PyExc_ValueError
                                         : PyExc_RuntimeError;
    PyErr_Format(type, "supervision: %s", klaw_err_text(e));
    (void)self;
    return NULL;
}

/* Seconds to ns: 0 stays 0 (the library's default), negative: KLAW_NONE, infinite: for ever. */
static int64_t ns_of(double seconds) {
    return seconds < 0 ? KLAW_NONE : seconds > 9e9 ? INT64_MAX : (int64_t)(seconds * 1e9);
}

static PyObject *machine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {
        "strategy",  "auto_shutdown", "max_restarts", "restart_window", "backoff",
        "max_delay", "factor",        "kind",         "jitter",         NULL};
    int strategy = 0, shutdown = 0, restarts = 0, kind = 0, jitter = 0;
    double window = 0, backoff = 0, max_delay = 0, factor = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|iiidddd$ii", keys, &strategy, &shutdown,
                                     &restarts, &window, &backoff, &max_delay, &factor, &kind,
                                     &jitter))
        return NULL;
    klaw_supervision_opts o = {
        .strategy = (klaw_strategy)strategy,
        .auto_shutdown = (klaw_auto_shutdown)shutdown,
        .max_restarts = restarts,
        .restart_window = ns_of(window),
        .no_backoff = backoff < 0,
        .backoff = {.kind = (klaw_backoff_kind)kind,
                    .jitter = (klaw_jitter)jitter,
                    .base = backoff < 0 ? 0 : ns_of(backoff),
                    .max_delay = ns_of(max_delay),
                    .factor = factor},
    };
    machine *self = (machine *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    klaw_err e = klaw_supervision_new(&o, &self->s);
    if (e) {
        Py_DECREF(self);
        return told(NULL, e);
    }
    return (PyObject *)self;
}

static void machine_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    klaw_supervision_free(of(self));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *add(PyObject *self, PyObject *args) {
    int restart, significant;
    double shutdown;
    uint32_t child = 0;
    if (!PyArg_ParseTuple(args, "ipd", &restart, &significant, &shutdown))
        return NULL;
    klaw_supervision_child c = {
        .restart = (klaw_restart)restart, .significant = significant, .shutdown = ns_of(shutdown)};
    klaw_err e = klaw_supervision_add(of(self), &c, &child);
    return e ? told(self, e) : PyLong_FromUnsignedLong(child);
}

static bool number(PyObject *o, uint32_t *out) {
    unsigned long n = PyLong_AsUnsignedLong(o);
    if (n == (unsigned long)-1 && PyErr_Occurred())
        return false;
    *out = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    return true;
}

/* Methods that take a child, and what they call. */
#define CHILD(name, call)                                     \
    static PyObject *name(PyObject *self, PyObject *arg) {    \
        uint32_t child;                                       \
        return number(arg, &child) ? told(self, call) : NULL; \
    }
CHILD(started, klaw_supervision_started(of(self), child, klaw_now()))
CHILD(start_failed,
      klaw_supervision_start_failed(of(self), child, KLAW_BACKEND, klaw_now(), dice()))
CHILD(abandoned, klaw_supervision_abandoned(of(self), child, klaw_now()))
CHILD(stop_child, klaw_supervision_stop_child(of(self), child, klaw_now()))
CHILD(restart_child, klaw_supervision_restart_child(of(self), child, klaw_now()))
CHILD(remove_child, klaw_supervision_remove(of(self), child))

static PyObject *exited(PyObject *self, PyObject *args) {
    unsigned child;
    int failed;
    if (!PyArg_ParseTuple(args, "Ip", &child, &failed))
        return NULL;
    return told(self, klaw_supervision_exited(of(self), child, failed ? KLAW_BACKEND : KLAW_OK,
                                              klaw_now(), dice()));
}

static PyObject *begin(PyObject *self, PyObject *unused) {
    (void)unused;
    return told(self, klaw_supervision_begin(of(self), klaw_now()));
}

static PyObject *shut_down(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_supervision_shutdown(of(self), klaw_now());
    Py_RETURN_NONE;
}

static PyObject *next(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_supervision_action a = klaw_supervision_next(of(self), klaw_now());
    if (a.verb == KLAW_SUP_NOTHING)
        Py_RETURN_NONE;
    return Py_BuildValue("(iIIi)", (int)a.verb, (unsigned)a.child, (unsigned)a.attempt,
                         (int)a.error);
}

static PyObject *due(PyObject *self, PyObject *unused) {
    (void)unused;
    int64_t at = klaw_supervision_due(of(self));
    if (at == INT64_MAX)
        Py_RETURN_NONE;
    int64_t left = at - klaw_now();
    return PyFloat_FromDouble(left > 0 ? (double)left / 1e9 : 0.0);
}

static PyObject *state(PyObject *self, PyObject *arg) {
    uint32_t child;
    return number(arg, &child) ? PyLong_FromLong(klaw_supervision_state(of(self), child)) : NULL;
}

static PyObject *restarts(PyObject *self, PyObject *arg) {
    uint32_t child;
    return number(arg, &child)
               ? PyLong_FromUnsignedLongLong(klaw_supervision_restarts(of(self), child))
               : NULL;
}

static PyMethodDef methods[] = {
    {"add", add, METH_VARARGS, "add($self, restart, significant, shutdown, /)\n--\n\nThe number."},
    {"begin", begin, METH_NOARGS, "begin($self, /)\n--\n\nStarts the children left to right."},
    {"started", started, METH_O, "started($self, child, /)\n--\n\nEvent."},
    {"start_failed", start_failed, METH_O, "start_failed($self, child, /)\n--\n\nEvent."},
    {"exited", exited, METH_VARARGS, "exited($self, child, failed, /)\n--\n\nEvent."},
    {"abandoned", abandoned, METH_O, "abandoned($self, child, /)\n--\n\nEvent."},
    {"stop_child", stop_child, METH_O, "stop_child($self, child, /)\n--\n\nRequest."},
    {"restart_child", restart_child, METH_O, "restart_child($self, child, /)\n--\n\nRequest."},
    {"remove", remove_child, METH_O, "remove($self, child, /)\n--\n\nRequest."},
    {"shutdown", shut_down, METH_NOARGS, "shutdown($self, /)\n--\n\nRequest."},
    {"next", next, METH_NOARGS,
     "next($self, /)\n--\n\n(verb, child, attempt, error) to be carried out, or None."},
    {"due", due, METH_NOARGS, "due($self, /)\n--\n\nSeconds until it wants a look, or None."},
    {"state", state, METH_O, "state($self, child, /)\n--\n\nAs klaw_child_state."},
    {"restarts", restarts, METH_O, "restarts($self, child, /)\n--\n\nSince it was added."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, machine_new},
    {Py_tp_dealloc, machine_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "libklaw's supervision machine; times in seconds, enums as numbers (policy.h)."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Supervision",
    .basicsize = sizeof(machine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int klawpy_supervision_init(PyObject *module, klawpy_state *st) {
    (void)st;
    PyTypeObject *t = klawpy_add_type(module, &spec, NULL);
    Py_XDECREF(t);
    return t ? 0 : -1;
}
