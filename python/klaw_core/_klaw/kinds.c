/* SPDX-License-Identifier: Apache-2.0 */
/* kinds.c - the kinds of channels: many-to-many, oneshot, broadcast, watch; what only one of them has;
 * select.
 *
 * Every kind has its own two types, under Sender and Receiver, so that users can name them; the verbs
 * are the base types'. */
#include "chan.h"
#include "inbox.h"
#include "op.h"
#include "result.h"

static inline klawpy_end *end_of(PyObject *self) {
    return (klawpy_end *)self;
}

/* --- broadcast --- */
static PyObject *broadcast_subscribe(PyObject *self, PyObject *unused) {
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    klaw_receiver *rx = NULL;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err e = klaw_broadcast_subscribe(end_of(self)->tx, KLAW_LAG_DEFAULT, &rx);
    if (e)
        return klawpy_raise_code(st, e);
    PyObject *r = klawpy_end_make(st->broadcast_receiver_type, end_of(self)->chan, NULL, rx, true);
    if (!r)
        klaw_receiver_unref(rx);
    return r;
}

/* --- watch --- */
static PyObject *watch_subscribe(PyObject *self, PyObject *unused) {
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    klaw_receiver *rx = NULL;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err e = klaw_watch_subscribe(end_of(self)->tx, &rx);
    if (e)
        return klawpy_raise_code(st, e);
    PyObject *r = klawpy_end_make(st->watch_receiver_type, end_of(self)->chan, NULL, rx, true);
    if (!r)
        klaw_receiver_unref(rx);
    return r;
}

static PyObject *watch_borrow(PyObject *self, PyObject *unused) {
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    const void *view;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err e = klaw_watch_borrow(end_of(self)->rx, &view);
    if (e)
        return klawpy_raise_code(st, e);
    PyObject *value = Py_NewRef(*(PyObject *const *)view);
    klaw_watch_release(end_of(self)->rx, view);
    return value;
}

static PyObject *watch_changed(PyObject *self, PyObject *unused) {
    (void)unused;
    return klawpy_op_new(end_of(self)->chan->st, KLAWPY_CHANGED, end_of(self), NULL, 0, -1);
}

static PyObject *watch_has_changed(PyObject *self, PyObject *unused) {
    klawpy_state *st = klawpy_state_of(Py_TYPE(self));
    bool changed = false;
    (void)unused;
    if (!st)
        return NULL;
    klaw_err e = klaw_watch_has_changed(end_of(self)->rx, &changed);
    return e ? klawpy_raise_code(st, e) : PyBool_FromLong(changed);
}

/* --- types --- */
static PyMethodDef broadcast_sender_methods[] = {
    {"subscribe", broadcast_subscribe, METH_NOARGS,
     "subscribe($self, /)\n--\n\nA receiver that gets what is sent from now on."},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef watch_sender_methods[] = {
    {"subscribe", watch_subscribe, METH_NOARGS,
     "subscribe($self, /)\n--\n\nA receiver that counts the present value as unseen."},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef watch_receiver_methods[] = {
    {"borrow", watch_borrow, METH_NOARGS,
     "borrow($self, /)\n--\n\nThe latest value, seen or not, at once; counts as seen."},
    {"changed", watch_changed, METH_NOARGS,
     "changed($self, /)\n--\n\nWaits for a value this receiver has not seen, and marks it seen. "
     "Awaitable."},
    {"has_changed", watch_has_changed, METH_NOARGS,
     "has_changed($self, /)\n--\n\nWhether there is a value this receiver has not seen."},
    {NULL, NULL, 0, NULL},
};

/* Collected as their base types are: the flag and the functions are inherited together. */
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)
static PyTypeObject *add(PyObject *module, const char *name, const char *doc, PyMethodDef *methods,
                         PyTypeObject *base) {
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)doc},
        {methods ? Py_tp_methods : 0, methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name, .basicsize = sizeof(klawpy_end), .flags = FLAGS, .slots = slots};
    return klawpy_add_type(module, &spec, base);
}

/* --- making --- */
bool klawpy_capacity(klawpy_state *st, long long n, long long least, long long most) {
    if (n < least) {
        PyErr_Format(PyExc_ValueError, "capacity has to be %lld or more, not %lld", least, n);
        return false;
    }
    if (n > most)
        klawpy_raise(st, "LimitExceededError", "(LL)", most, n);
    return n <= most;
}

static PyObject *make_channel(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"capacity", "unbounded", "name", "validator", NULL};
    klawpy_state *st = klawpy_state_of_module(module);
    long long capacity = KLAW_CAPACITY_DEFAULT;
    int unbounded = 0;
    const char *name = NULL;
    PyObject *validator = NULL;
    klaw_sender *tx;
    klaw_receiver *rx;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|LpzO", keys, &capacity, &unbounded, &name,
                                     &validator) ||
        !klawpy_capacity(st, capacity, 0, KLAW_CAPACITY_MAX))
        return NULL;
    int64_t c = unbounded ? KLAW_UNBOUNDED : capacity == 0 ? KLAW_RENDEZVOUS : capacity;
    klaw_channel_opts o = {.capacity = c, .name = name};
    klaw_err e = klaw_channel(&klawpy_object_type, &o, &tx, &rx);
    if (e)
        return klawpy_raise_code(st, e);
    PyObject *both =
        klawpy_pair(st, st->local_sender_type, st->local_receiver_type, KLAWPY_MPMC, c, tx, rx);
    if (both && validator && validator != Py_None)
        end_of(PyTuple_GET_ITEM(both, 0))->chan->validator = Py_NewRef(validator);
    return both;
}

static PyObject *make_oneshot(PyObject *module, PyObject *unused) {
    klawpy_state *st = klawpy_state_of_module(module);
    klaw_sender *tx;
    klaw_receiver *rx;
    (void)unused;
    klaw_err e = klaw_oneshot(&klawpy_object_type, &tx, &rx);
    return e ? klawpy_raise_code(st, e)
             : klawpy_pair(st, st->oneshot_sender_type, st->oneshot_receiver_type, KLAWPY_ONESHOT,
                           1, tx, rx);
}

static PyObject *make_broadcast(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"capacity", "lag", "name", NULL};
    static const char *const policies[] = {"drop_oldest", "wait", "disconnect"};
    static const klaw_lag lags[] = {KLAW_LAG_DROP_OLDEST, KLAW_LAG_WAIT, KLAW_LAG_DISCONNECT};
    klawpy_state *st = klawpy_state_of_module(module);
    long long capacity = 1024;
    const char *lag = policies[0], *name = NULL;
    klaw_sender *tx;
    klaw_receiver *rx;
    int which = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Lsz", keys, &capacity, &lag, &name) ||
        !klawpy_capacity(st, capacity, 1, 1 << 20))
        return NULL;
    while (which < 3 && strcmp(lag, policies[which]) != 0)
        which++;
    if (which == 3) {
        PyErr_Format(PyExc_ValueError,
                     "lag has to be 'drop_oldest', 'wait' or 'disconnect', not '%s'", lag);
        return NULL;
    }
    klaw_broadcast_opts o = {.capacity = capacity, .lag = lags[which], .name = name};
    klaw_err e = klaw_broadcast(&klawpy_object_type, &o, &tx, &rx);
    return e ? klawpy_raise_code(st, e)
             : klawpy_pair(st, st->broadcast_sender_type, st->broadcast_receiver_type,
                           KLAWPY_BROADCAST, capacity, tx, rx);
}

static PyObject *make_watch(PyObject *module, PyObject *initial) {
    klawpy_state *st = klawpy_state_of_module(module);
    klaw_sender *tx;
    klaw_receiver *rx;
    PyObject *value = Py_NewRef(initial);
    klaw_err e = klaw_watch(&klawpy_object_type, &value, &tx, &rx);
    if (e)
        Py_DECREF(value);
    return e ? klawpy_raise_code(st, e)
             : klawpy_pair(st, st->watch_sender_type, st->watch_receiver_type, KLAWPY_WATCH, 1, tx,
                           rx);
}

/* --- select --- */
static PyObject *make_select(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"timeout", NULL};
    klawpy_state *st = klawpy_state_of_module(module);
    PyObject *empty = PyTuple_New(0), *seconds = NULL;
    double timeout;
    bool ok = empty && PyArg_ParseTupleAndKeywords(empty, kwargs, "|$O", keys, &seconds) &&
              klawpy_seconds(seconds, &timeout);
    Py_XDECREF(empty);
    if (!ok)
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(args);
    if (n < 1 || n > KLAW_SELECT_MAX) {
        PyErr_Format(PyExc_ValueError, "select takes 1 to %d receivers, not %zd", KLAW_SELECT_MAX,
                     n);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if (!PyObject_TypeCheck(PyTuple_GET_ITEM(args, i), st->receiver_type)) {
            PyErr_Format(PyExc_TypeError, "select takes local receivers, not %.100s",
                         Py_TYPE(PyTuple_GET_ITEM(args, i))->tp_name);
            return NULL;
        }
    return klawpy_op_new(st, KLAWPY_SELECT, end_of(PyTuple_GET_ITEM(args, 0)), args, n, timeout);
}

static PyMethodDef functions[] = {
    {"channel", (PyCFunction)(void (*)(void))make_channel, METH_VARARGS | METH_KEYWORDS,
     "channel($module, /, capacity=10000, unbounded=False, name=None, validator=None)\n--\n\n"
     "A local many-to-many channel: (LocalSender, LocalReceiver). capacity 0 is a rendezvous.\n\n"
     ">>> tx, rx = channel(1)\n>>> tx.try_send_sync('x')\nOk(None)\n>>> rx.recv_sync()\n'x'"},
    {"oneshot", make_oneshot, METH_NOARGS,
     "oneshot($module, /)\n--\n\nOne value, once: (OneshotSender, OneshotReceiver).\n\n"
     ">>> tx, rx = oneshot()\n>>> tx.send_sync(1)\n>>> rx.recv_sync()\n1"},
    {"broadcast", (PyCFunction)(void (*)(void))make_broadcast, METH_VARARGS | METH_KEYWORDS,
     "broadcast($module, /, capacity=1024, lag='drop_oldest', name=None)\n--\n\n"
     "Every receiver gets every message: (BroadcastSender, BroadcastReceiver). `lag` says what "
     "happens "
     "to a receiver that is `capacity` messages behind: 'drop_oldest', 'wait' (the sender waits), "
     "'disconnect'.\n\n"
     ">>> tx, a = broadcast(8)\n>>> b = tx.subscribe()\n>>> tx.send_sync('x')\n"
     ">>> a.recv_sync(), b.recv_sync()\n('x', 'x')"},
    {"watch", make_watch, METH_O,
     "watch($module, initial, /)\n--\n\nThe latest value: (WatchSender, WatchReceiver).\n\n"
     ">>> tx, rx = watch(1)\n>>> rx.borrow(), rx.has_changed()\n(1, False)\n>>> tx.send_sync(2)\n"
     ">>> rx.recv_sync()\n2"},
    {"select", (PyCFunction)(void (*)(void))make_select, METH_VARARGS | METH_KEYWORDS,
     "select(*receivers, timeout=None)\n\nWaits for the first item of any of them: (receiver, "
     "item). "
     "Awaitable. The others lose nothing. Ready ones are chosen evenly, closed ones are skipped; "
     "ChannelClosedError when all are, ChannelEmptyError after `timeout` seconds."},
    {NULL, NULL, 0, NULL},
};

int klawpy_kinds_init(PyObject *module, klawpy_state *st) {
    PyTypeObject *s = st->sender_type, *r = st->receiver_type;
    return (st->local_sender_type = add(module, "klaw_core._klaw.LocalSender",
                                        "The sending side of channel().", NULL, s)) &&
                   (st->local_receiver_type = add(module, "klaw_core._klaw.LocalReceiver",
                                                  "The receiving side of channel().", NULL, r)) &&
                   (st->oneshot_sender_type = add(module, "klaw_core._klaw.OneshotSender",
                                                  "The sending side of oneshot().", NULL, s)) &&
                   (st->oneshot_receiver_type = add(module, "klaw_core._klaw.OneshotReceiver",
                                                    "The receiving side of oneshot().", NULL, r)) &&
                   (st->broadcast_sender_type =
                        add(module, "klaw_core._klaw.BroadcastSender",
                            "The sending side of broadcast().", broadcast_sender_methods, s)) &&
                   (st->broadcast_receiver_type =
                        add(module, "klaw_core._klaw.BroadcastReceiver",
                            "The receiving side of broadcast().", NULL, r)) &&
                   (st->watch_sender_type =
                        add(module, "klaw_core._klaw.WatchSender", "The sending side of watch().",
                            watch_sender_methods, s)) &&
                   (st->watch_receiver_type =
                        add(module, "klaw_core._klaw.WatchReceiver",
                            "The receiving side of watch().", watch_receiver_methods, r)) &&
                   PyModule_AddFunctions(module, functions) == 0
               ? 0
               : -1;
}
