/* SPDX-License-Identifier: Apache-2.0 */
/* hub_take.c - the methods of Hub for receivers: what is here is taken, acknowledged, given back. */
#include "hub.h"

/* --- receiving --- */
PyObject *klawpy_hub_wait(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    uint64_t endpoint;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "wait(endpoint, delta)");
        return NULL;
    }
    long delta = PyLong_AsLong(args[1]);
    if ((delta == -1 && PyErr_Occurred()) || !klawpy_u64(args[0], &endpoint))
        return NULL;
    klaw_hub_wait(((klawpy_hub *)self)->h, klaw_now(), endpoint, (int)delta);
    return klawpy_hub_rings(self, Py_NewRef(Py_None));
}

static PyObject *raise_take(PyObject *self, klaw_err e, uint64_t missed) {
    klawpy_hub *hub = (klawpy_hub *)self;
    switch (e) {
    case KLAW_LAGGED: return klawpy_hub_error(hub, "lagged", missed);
    case KLAW_STOPPED: return klawpy_hub_error(hub, "lost", missed);
    case KLAW_BACKEND: return klawpy_hub_error(hub, "backend", 0);
    case KLAW_CLOSED: return klawpy_hub_error(hub, "closed", 0);
    default: return klawpy_hub_raise(self, e, "no such receiver");
    }
}

/* What was found behind items that were given first. */
static bool told_before(klawpy_hub *hub, uint64_t endpoint, klaw_err *e, uint64_t *missed) {
    for (size_t i = 0; i < hub->n_told; i++)
        if (hub->told[i].endpoint == endpoint) {
            *e = hub->told[i].e;
            *missed = hub->told[i].missed;
            hub->told[i] = hub->told[--hub->n_told];
            return true;
        }
    return false;
}

static bool tell_later(klawpy_hub *hub, uint64_t endpoint, klaw_err e, uint64_t missed) {
    klawpy_told *more = PyMem_Realloc(hub->told, (hub->n_told + 1) * sizeof *more);
    if (!more)
        return false;
    hub->told = more;
    more[hub->n_told++] = (klawpy_told){endpoint, missed, e};
    return true;
}

PyObject *klawpy_hub_take(klawpy_hub *hub, int64_t now, uint64_t endpoint, bool *empty) {
    klaw_remote_item i;
    uint64_t missed = 0;
    klaw_err e = KLAW_OK;
    *empty = false;
    if (!told_before(hub, endpoint, &e, &missed))
        e = klaw_hub_take(hub->h, now, klawpy_real(now), endpoint, &i, &missed);
    if (e == KLAW_OK)
        return klawpy_hub_done(klawpy_item_make(hub->st, &i, endpoint, &hub->client));
    *empty = e == KLAW_EMPTY;
    return klawpy_hub_done(e == KLAW_EMPTY ? NULL : raise_take((PyObject *)hub, e, missed));
}

/* (values or items, their leases, the last item): what a batch is given as. */
static PyObject *batch_new(void) {
    PyObject *t = PyTuple_New(3);
    for (Py_ssize_t i = 0; t && i < 2; i++) {
        PyObject *list = PyList_New(0);
        if (list)
            PyTuple_SET_ITEM(t, i, list);
        else
            Py_CLEAR(t);
    }
    return t;
}

/* Adds what was taken and takes it over: plain bytes as they are, the rest as items. */
static bool batch_add(klawpy_hub *hub, PyObject *batch, klaw_remote_item *i, uint64_t endpoint,
                      bool last) {
    PyObject *lease = PyLong_FromUnsignedLongLong(i->lease), *value;
    bool plain = i->codec == KLAW_REMOTE_BYTES && !i->attachment;
    if (plain && !last) {
        value = PyBytes_FromStringAndSize(i->data, (Py_ssize_t)i->size);
        klaw_remote_free((void *)(uintptr_t)i->data);
    } else {
        value = klawpy_item_make(hub->st, i, endpoint, &hub->client);
        if (value && last)
            PyTuple_SET_ITEM(batch, 2, Py_NewRef(value));
        if (value && plain)
            Py_SETREF(value, Py_NewRef(((klawpy_item *)value)->payload));
    }
    bool good = lease && value && PyList_Append(PyTuple_GET_ITEM(batch, 1), lease) == 0 &&
                PyList_Append(PyTuple_GET_ITEM(batch, 0), value) == 0;
    Py_XDECREF(lease);
    Py_XDECREF(value);
    return good;
}

void klawpy_hub_give_back(klawpy_hub *hub, uint64_t endpoint, PyObject *got) {
    int64_t now = klaw_now();
    if (!PyTuple_CheckExact(got)) {
        (void)klaw_hub_nack(hub->h, now, endpoint, ((klawpy_item *)got)->lease, false);
        return;
    }
    PyObject *leases = PyTuple_GET_ITEM(got, 1);
    for (Py_ssize_t i = PyList_GET_SIZE(leases); i-- > 0;)
        (void)klaw_hub_nack(hub->h, now, endpoint,
                            PyLong_AsUnsignedLongLong(PyList_GET_ITEM(leases, i)), false);
}

PyObject *klawpy_hub_take_batch(klawpy_hub *hub, int64_t now, uint64_t endpoint, uint32_t most,
                                bool *empty) {
    klaw_remote_item i, next;
    uint64_t missed = 0;
    int64_t real = klawpy_real(now);
    klaw_err e = KLAW_OK;
    *empty = false;
    if (!told_before(hub, endpoint, &e, &missed))
        e = klaw_hub_take(hub->h, now, real, endpoint, &i, &missed);
    if (e) {
        *empty = e == KLAW_EMPTY;
        return klawpy_hub_done(*empty ? NULL : raise_take((PyObject *)hub, e, missed));
    }
    PyObject *batch = batch_new();
    bool good = batch != NULL;
    if (!good) {
        (void)klaw_hub_nack(hub->h, now, endpoint, i.lease, false);
        klaw_remote_free((void *)(uintptr_t)i.data);
        klawpy_drop(i.attachment);
        return klawpy_hub_done(NULL);
    }
    for (uint32_t n = 1; good && n < most; n++) {
        e = klaw_hub_take(hub->h, now, real, endpoint, &next, &missed);
        if (e)
            break;
        good = batch_add(hub, batch, &i, endpoint, false);
        i = next;
    }
    good = batch_add(hub, batch, &i, endpoint, true) && good;
    /* Others than these two are told again. */
    if (good && (e == KLAW_LAGGED || e == KLAW_STOPPED) && !tell_later(hub, endpoint, e, missed)) {
        PyErr_NoMemory();
        good = false;
    }
    if (!good) {
        klawpy_hub_give_back(hub, endpoint, batch);
        Py_CLEAR(batch);
    }
    return klawpy_hub_done(batch);
}

PyObject *klawpy_hub_take_one(PyObject *self, PyObject *arg) {
    uint64_t endpoint;
    bool empty;
    if (!klawpy_u64(arg, &endpoint))
        return NULL;
    PyObject *o = klawpy_hub_take((klawpy_hub *)self, klaw_now(), endpoint, &empty);
    return empty ? Py_NewRef(Py_None) : o;
}

PyObject *klawpy_hub_take_many(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_hub *hub = (klawpy_hub *)self;
    uint64_t endpoint, missed = 0;
    klaw_err e = KLAW_OK;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "take_many(endpoint, n)");
        return NULL;
    }
    Py_ssize_t most = PyLong_AsSsize_t(args[1]);
    if ((most == -1 && PyErr_Occurred()) || !klawpy_u64(args[0], &endpoint))
        return NULL;
    PyObject *list = PyList_New(0);
    if (!list)
        return NULL;
    if (told_before(hub, endpoint, &e, &missed)) {
        Py_DECREF(list);
        return klawpy_hub_done(raise_take(self, e, missed));
    }
    int64_t now = klaw_now(), real = klawpy_real(now);
    while (PyList_GET_SIZE(list) < most) {
        klaw_remote_item i;
        e = klaw_hub_take(hub->h, now, real, endpoint, &i, &missed);
        if (e)
            break;
        PyObject *o = klawpy_item_make(hub->st, &i, endpoint, &hub->client);
        int r = o ? PyList_Append(list, o) : -1;
        Py_XDECREF(o);
        if (r < 0) {
            Py_DECREF(list);
            return klawpy_hub_done(NULL);
        }
    }
    if (e == KLAW_OK || e == KLAW_EMPTY)
        return klawpy_hub_done(list);
    if (PyList_GET_SIZE(list) > 0 &&
        ((e != KLAW_LAGGED && e != KLAW_STOPPED) || tell_later(hub, endpoint, e, missed)))
        return klawpy_hub_done(list); /* the others are told again */
    Py_DECREF(list);
    return klawpy_hub_done(raise_take(self, e, missed));
}

PyObject *klawpy_hub_ack(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    uint64_t endpoint, lease;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "ack(endpoint, lease)");
        return NULL;
    }
    if (!klawpy_u64(args[0], &endpoint) || !klawpy_u64(args[1], &lease))
        return NULL;
    klaw_err e = klaw_hub_ack(((klawpy_hub *)self)->h, klaw_now(), endpoint, lease);
    if (e == KLAW_NOMEM)
        return klawpy_hub_done(PyErr_NoMemory());
    return klawpy_hub_rings(self, PyBool_FromLong(e == KLAW_OK));
}

PyObject *klawpy_hub_ack_leases(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    uint64_t endpoint, lease;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "ack_leases(endpoint, leases)");
        return NULL;
    }
    PyObject *fast = klawpy_u64(args[0], &endpoint)
                         ? PySequence_Fast(args[1], "ack_leases takes numbers of leases")
                         : NULL;
    if (!fast)
        return NULL;
    int64_t now = klaw_now();
    Py_ssize_t known = 0;
    bool good = true;
    for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(fast); i++) {
        good = klawpy_u64(PySequence_Fast_GET_ITEM(fast, i), &lease);
        if (good)
            known += klaw_hub_ack(((klawpy_hub *)self)->h, now, endpoint, lease) == KLAW_OK;
    }
    Py_DECREF(fast);
    return good ? klawpy_hub_rings(self, PyLong_FromSsize_t(known)) : klawpy_hub_done(NULL);
}

PyObject *klawpy_hub_ack_many(PyObject *self, PyObject *items) {
    klawpy_state *st = ((klawpy_hub *)self)->st;
    PyObject *fast = PySequence_Fast(items, "ack_many takes a list of items");
    if (!fast)
        return NULL;
    int64_t now = klaw_now();
    Py_ssize_t n = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        klawpy_item *o = (klawpy_item *)PySequence_Fast_GET_ITEM(fast, i);
        if (!PyObject_TypeCheck((PyObject *)o, st->item_type)) {
            PyErr_SetString(PyExc_TypeError, "ack_many takes items as take_many gives them");
            n = -1;
            break;
        }
        n += klaw_hub_ack(((klawpy_hub *)self)->h, now, o->endpoint, o->lease) == KLAW_OK;
    }
    Py_DECREF(fast);
    return n < 0 ? klawpy_hub_done(NULL) : klawpy_hub_rings(self, PyLong_FromSsize_t(n));
}

PyObject *klawpy_hub_nack(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    uint64_t endpoint, lease;
    if (n < 2 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "nack(endpoint, lease, seen=True)");
        return NULL;
    }
    int seen = n > 2 ? PyObject_IsTrue(args[2]) : 1;
    if (seen < 0 || !klawpy_u64(args[0], &endpoint) || !klawpy_u64(args[1], &lease))
        return NULL;
    klaw_err e = klaw_hub_nack(((klawpy_hub *)self)->h, klaw_now(), endpoint, lease, seen);
    if (e == KLAW_NOMEM)
        return klawpy_hub_done(PyErr_NoMemory());
    return klawpy_hub_rings(self, PyBool_FromLong(e == KLAW_OK));
}
