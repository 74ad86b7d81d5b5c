/* SPDX-License-Identifier: Apache-2.0 */
/* broker.c - klaw_broker as a Python type: the far end of a remote channel, for whoever holds it (the
 * channel's actor).
 *
 * Every method is one step with the GIL held, so threads may share a broker; none of them waits, and
 * objects that the broker gives back are let go after the step (remote.h). The clocks are read here. */
#include "remote.h"

#include <string.h>

typedef struct broker {
    PyObject_HEAD klaw_broker *b;
    klawpy_state *st;
} broker;

static klaw_broker *of(PyObject *self) {
    return ((broker *)self)->b;
}

/* After each step; NULL stays NULL. */
static PyObject *done(PyObject *result) {
    klawpy_bury();
    return result;
}

static PyObject *str(PyObject *interned) {
    return Py_NewRef(interned);
}

static PyObject *raise(PyObject *self, klaw_err e, const char *invalid) {
    if (e == KLAW_INVALID || e == KLAW_LIMIT) {
        PyErr_SetString(PyExc_ValueError, e == KLAW_LIMIT ? KLAWPY_REMOTE_LIMIT : invalid);
        return NULL;
    }
    if (e == KLAW_CORRUPT)
        return klawpy_raise(((broker *)self)->st, "BackendErrorException", "(ss)",
                            "the journal of the channel is damaged", "store");
    return klawpy_raise_code(((broker *)self)->st, e);
}

static bool random_u64(uint64_t *out) {
    unsigned char bytes[KLAW_REMOTE_ID];
    do {
        if (!klawpy_random_id(bytes))
            return false;
        memcpy(out, bytes, sizeof *out);
    } while (*out == 0);
    return true;
}

static PyObject *broker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"channel", "boot",     "kind",      "ack",        "capacity",
                           "type",    "durable",  "restarted", "lease",      "gather",
                           "park",    "remember", "token",     "max_parked", NULL};
    klaw_broker_opts o = {.drop = klawpy_drop, .share = klawpy_share};
    PyObject *channel, *capacity = NULL;
    unsigned long long boot = 0;
    int kind = 0, ack = 0, durable = 0, restarted = 0;
    const char *elements = NULL;
    Py_ssize_t elements_size = 0;
    double lease = 0, gather = 0, park = 0, remember = 0, token = 0;
    unsigned int parked = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$KiiOy#ppdddddI", keys, &channel, &boot,
                                     &kind, &ack, &capacity, &elements, &elements_size, &durable,
                                     &restarted, &lease, &gather, &park, &remember, &token,
                                     &parked) ||
        !klawpy_id(channel, "channel", o.channel) ||
        (capacity && !klawpy_bound(capacity, &o.capacity)))
        return NULL;
    o.boot = boot;
    if (boot == 0 && !random_u64(&o.boot))
        return NULL;
    o.kind = (klaw_remote_kind)kind;
    o.ack = (klaw_remote_ack)ack;
    o.type = elements;
    o.type_size = (size_t)elements_size;
    o.durable = durable;
    o.restarted = restarted;
    o.lease_ns = klawpy_ns(lease);
    o.gather_ns = klawpy_ns(gather);
    o.park_ns = klawpy_ns(park);
    o.remember_ns = klawpy_ns(remember);
    o.token_ns = klawpy_ns(token);
    o.max_parked = parked;
    broker *self = (broker *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = klawpy_state_of(type);
    klaw_err e = klaw_broker_new(&o, &self->b);
    if (e == KLAW_OK)
        return (PyObject *)self;
    raise((PyObject *)self, e, "a broker with these options makes no sense");
    Py_DECREF(self);
    return NULL;
}

static void broker_dealloc(PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    klaw_broker_free(of(o));
    klawpy_bury();
    type->tp_free(o);
    Py_DECREF(type);
}

/* --- calls of hubs --- */
static PyObject *broker_call(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_view v;
    klawpy_attached a;
    uint64_t ticket = 0;
    unsigned char client[KLAW_REMOTE_ID] = {0};
    if (n < 1 || n > 2) {
        PyErr_SetString(PyExc_TypeError, "call(blob, attachments=())");
        return NULL;
    }
    if (!klawpy_attached_from(n > 1 ? args[1] : NULL, &a))
        return NULL;
    if (!klawpy_view_of(args[0], &v)) {
        klawpy_attached_end(&a, true);
        return NULL;
    }
    int64_t now = klaw_now();
    klaw_err e = klaw_broker_call(of(self), now, klawpy_real(now), v.data, v.size, a.v, a.n,
                                  &ticket, client);
    klawpy_view_end(&v);
    klawpy_attached_end(&a, e == KLAW_NOMEM);
    return done(e ? raise(self, e, "this is not a call of a hub")
                  : Py_BuildValue("(Ky#)", (unsigned long long)ticket, (char *)client,
                                  (Py_ssize_t)KLAW_REMOTE_ID));
}

static PyObject *broker_answers(PyObject *self, PyObject *unused) {
    klaw_broker_answer a;
    PyObject *list = PyList_New(0);
    (void)unused;
    while (list && klaw_broker_next(of(self), &a)) {
        PyObject *attachments = klawpy_attached_list(a.attachments, a.attached);
        PyObject *blob = klawpy_blob(a.data, a.size);
        PyObject *t = attachments && blob
                          ? Py_BuildValue("(KNN)", (unsigned long long)a.ticket, blob, attachments)
                          : NULL;
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    return done(list);
}

static PyObject *broker_deadline(PyObject *self, PyObject *unused) {
    (void)unused;
    return klawpy_when(klaw_broker_deadline(of(self)));
}

static PyObject *broker_tick(PyObject *self, PyObject *unused) {
    int64_t now = klaw_now();
    (void)unused;
    klaw_broker_tick(of(self), now, klawpy_real(now));
    return done(Py_NewRef(Py_None));
}

static PyObject *broker_client_died(PyObject *self, PyObject *client) {
    unsigned char id[KLAW_REMOTE_ID];
    if (!klawpy_id(client, "client", id))
        return NULL;
    klaw_broker_client_died(of(self), klaw_now(), id);
    return done(Py_NewRef(Py_None));
}

static PyObject *broker_delete(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_broker_delete(of(self), klaw_now());
    return done(Py_NewRef(Py_None));
}

static PyObject *broker_fail(PyObject *self, PyObject *why) {
    const char *text = PyUnicode_AsUTF8(why);
    if (!text)
        return NULL;
    klaw_broker_fail(of(self), klaw_now(), text);
    return done(Py_NewRef(Py_None));
}

/* --- without a hub --- */
typedef struct parts {
    klaw_remote_item *items;
    klawpy_view *views;
    Py_ssize_t n;
} parts;

static void parts_end(parts *p, bool references) {
    for (Py_ssize_t i = 0; i < p->n; i++) {
        klawpy_view_end(&p->views[2 * i]);
        klawpy_view_end(&p->views[2 * i + 1]);
        if (references)
            Py_XDECREF((PyObject *)p->items[i].attachment);
    }
    PyMem_Free(p->items);
    PyMem_Free(p->views);
}

/* One of put's tuples into place p->n. */
static bool part(parts *p, PyObject *t, int64_t real) {
    PyObject *payload, *codec, *attachment = NULL, *context = NULL;
    double deadline = 0;
    klaw_remote_item *i = &p->items[p->n];
    klawpy_view *v = &p->views[2 * p->n];
    if (!PyTuple_Check(t)) {
        PyErr_SetString(PyExc_TypeError,
                        "an item is (payload, codec[, attachment[, context[, deadline]]])");
        return false;
    }
    if (!PyArg_ParseTuple(t, "OO|OOd", &payload, &codec, &attachment, &context, &deadline) ||
        !klawpy_item_from(payload, codec, attachment, i, v))
        return false;
    v[1].buffer.obj = NULL;
    v[1].size = 0;
    if (context && context != Py_None && !klawpy_view_of(context, &v[1])) {
        klawpy_view_end(v);
        return false;
    }
    i->context = v[1].size ? v[1].data : NULL;
    i->context_size = v[1].size;
    i->sent_at = real;
    i->deadline = klawpy_ns(deadline);
    Py_XINCREF((PyObject *)i->attachment);
    p->n++;
    return true;
}

static PyObject *broker_put(PyObject *self, PyObject *args) {
    klawpy_state *st = ((broker *)self)->st;
    PyObject *list;
    int waits = 0;
    if (!PyArg_ParseTuple(args, "O|p", &list, &waits))
        return NULL;
    PyObject *fast = PySequence_Fast(list, "put takes a list of items");
    if (!fast)
        return NULL;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(fast);
    parts p = {.items = PyMem_Calloc((size_t)n + 1, sizeof *p.items),
               .views = PyMem_Calloc(2 * (size_t)n + 1, sizeof *p.views)};
    int64_t now = klaw_now(), real = klawpy_real(now);
    klaw_err e = KLAW_NOMEM;
    bool good = p.items && p.views;
    if (!good)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; good && i < n; i++)
        good = part(&p, PySequence_Fast_GET_ITEM(fast, i), real);
    if (good && n && !waits)
        p.items[0].flags |= KLAW_REMOTE_NOWAIT;
    if (good)
        e = klaw_broker_put(of(self), now, real, p.items, (size_t)n);
    parts_end(&p, e != KLAW_OK);
    Py_DECREF(fast);
    if (!good)
        return done(NULL);
    switch (e) {
    case KLAW_OK: return done(str(st->s_ok));
    case KLAW_FULL: return done(str(st->s_full));
    case KLAW_CLOSED: return done(str(st->s_closed));
    default: return done(raise(self, e, "an item is not valid"));
    }
}

static PyObject *broker_unblock(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_broker_unblock(of(self), klaw_now());
    return done(Py_NewRef(Py_None));
}

/* (status, payload, codec, attachment, flags, missed) */
static PyObject *got(PyObject *self, klaw_err e, klaw_remote_item *i, uint64_t missed, bool lent) {
    klawpy_state *st = ((broker *)self)->st;
    PyObject *status = NULL;
    switch (e) {
    case KLAW_OK: break;
    case KLAW_EMPTY: status = str(st->s_empty); break;
    case KLAW_CLOSED: status = str(st->s_closed); break;
    case KLAW_LAGGED: status = PyUnicode_InternFromString("lagged"); break;
    case KLAW_NOT_FOUND: status = PyUnicode_InternFromString("missing"); break;
    default: return raise(self, e, "no such receiver");
    }
    if (e)
        return status ? Py_BuildValue("(NOiOIK)", status, Py_None, 0, Py_None, 0u,
                                      (unsigned long long)(e == KLAW_LAGGED ? missed : 0))
                      : NULL;
    PyObject *attachment = i->attachment ? i->attachment : Py_None;
    if (lent || !i->attachment)
        Py_INCREF(attachment);
    PyObject *payload = PyBytes_FromStringAndSize(i->data, (Py_ssize_t)i->size);
    klaw_remote_free((void *)(uintptr_t)i->data);
    if (!payload) {
        Py_DECREF(attachment);
        return NULL;
    }
    return Py_BuildValue("(ONiNIK)", st->s_ok, payload, (int)i->codec, attachment, i->flags, 0ULL);
}

static PyObject *broker_get(PyObject *self, PyObject *args) {
    const char *reader = "";
    klaw_remote_item i = {0};
    uint64_t missed = 0;
    if (!PyArg_ParseTuple(args, "|s", &reader))
        return NULL;
    int64_t now = klaw_now();
    klaw_err e = klaw_broker_get(of(self), now, klawpy_real(now), reader, &i, &missed);
    return done(got(self, e, &i, missed, false));
}

static PyObject *broker_borrow(PyObject *self, PyObject *unused) {
    klaw_remote_item i = {0};
    (void)unused;
    klaw_err e = klaw_broker_borrow(of(self), &i);
    return done(got(self, e, &i, 0, true));
}

static PyObject *broker_peek(PyObject *self, PyObject *unused) {
    PyObject *list = PyList_New(0);
    void *cursor = NULL;
    klaw_remote_item i = {0};
    klaw_err e = KLAW_OK;
    (void)unused;
    int collects = PyGC_Disable(); /* no finalizer may touch the broker in between */
    while (list && (e = klaw_broker_peek(of(self), &cursor, &i)) == KLAW_OK) {
        PyObject *t = got(self, e, &i, 0, true);
        PyObject *part = t ? PyTuple_GetSlice(t, 1, 4) : NULL;
        if (!part || PyList_Append(list, part) < 0)
            Py_CLEAR(list);
        Py_XDECREF(part);
        Py_XDECREF(t);
    }
    if (collects)
        PyGC_Enable();
    if (list && e == KLAW_NOMEM) {
        Py_CLEAR(list);
        PyErr_NoMemory();
    }
    return list;
}

/* What an item costs in an answer beside its payload, about. */
#define ITEM_BYTES 100

static PyObject *broker_waiting(PyObject *self, PyObject *args) {
    PyObject *after;
    Py_ssize_t most, size;
    uint64_t from = KLAW_BROKER_END;
    if (!PyArg_ParseTuple(args, "Onn", &after, &most, &size))
        return NULL;
    if (after != Py_None && (from = PyLong_AsUnsignedLongLong(after)) == (uint64_t)-1 &&
        PyErr_Occurred())
        return NULL;
    PyObject *list = PyList_New(0);
    void *cursor = NULL;
    klaw_remote_item i = {0};
    klaw_err e = KLAW_OK;
    int collects = PyGC_Disable(); /* no finalizer may touch the broker in between */
    klaw_broker_seek(of(self), from, most > 0 ? (size_t)most : 0, &cursor);
    for (; list && most > 0 && size > 0; most--) {
        if ((e = klaw_broker_peek(of(self), &cursor, &i)) != KLAW_OK)
            break;
        size -= ITEM_BYTES + (Py_ssize_t)i.size;
        PyObject *item = Py_BuildValue(
            "(Ky#KLiIy#)", (unsigned long long)i.place, (const char *)i.client,
            (Py_ssize_t)sizeof i.client, (unsigned long long)i.seq, (long long)i.sent_at,
            (int)i.codec, (unsigned)i.flags, (const char *)i.data, (Py_ssize_t)i.size);
        klaw_remote_free((void *)(uintptr_t)i.data);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    if (collects)
        PyGC_Enable();
    if (list && e == KLAW_NOMEM) {
        Py_CLEAR(list);
        PyErr_NoMemory();
    }
    return list;
}

static PyObject *broker_register(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"side", "reader", "node", NULL};
    PyObject *side;
    const char *reader = "", *node = "";
    klawpy_state *st = ((broker *)self)->st;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|ss", keys, &side, &reader, &node))
        return NULL;
    int s = klawpy_side(side);
    if (s < 0)
        return NULL;
    klaw_err e = klaw_broker_register(of(self), klaw_now(), (klaw_remote_side)s, reader, node);
    switch (e) {
    case KLAW_OK: return done(str(st->s_ok));
    case KLAW_CLOSED: return done(str(st->s_closed));
    case KLAW_EXISTS: return done(PyUnicode_InternFromString("exists"));
    default: return done(raise(self, e, "not a name of a reader"));
    }
}

static PyObject *broker_deregister(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"side", "reader", NULL};
    PyObject *side;
    const char *reader = "";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s", keys, &side, &reader))
        return NULL;
    int s = klawpy_side(side);
    if (s < 0)
        return NULL;
    klaw_err e = klaw_broker_deregister(of(self), klaw_now(), (klaw_remote_side)s, reader);
    return done(PyBool_FromLong(e == KLAW_OK));
}

/* --- the journal --- */
static PyObject *broker_journal(PyObject *self, PyObject *unused) {
    void *data;
    size_t size;
    uint64_t mark;
    (void)unused;
    if (!klaw_broker_journal(of(self), &data, &size, &mark))
        Py_RETURN_NONE;
    PyObject *blob = klawpy_blob(data, size);
    return blob ? Py_BuildValue("(NK)", blob, (unsigned long long)mark) : NULL;
}

static PyObject *broker_committed(PyObject *self, PyObject *arg) {
    unsigned long long mark = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred())
        return NULL;
    klaw_broker_committed(of(self), mark);
    return done(Py_NewRef(Py_None));
}

static PyObject *broker_snapshot(PyObject *self, PyObject *unused) {
    void *data = NULL;
    size_t size = 0;
    (void)unused;
    klaw_err e = klaw_broker_snapshot(of(self), &data, &size);
    return e ? raise(self, e, "what is journalled is not committed yet") : klawpy_blob(data, size);
}

static PyObject *put_back(PyObject *self, PyObject *bytes, bool snapshot) {
    klawpy_view v;
    if (!klawpy_view_of(bytes, &v))
        return NULL;
    klaw_err e = snapshot ? klaw_broker_restore(of(self), v.data, v.size)
                          : klaw_broker_replay(of(self), v.data, v.size);
    klawpy_view_end(&v);
    return done(e ? raise(self, e, "this is of another channel or kind, or comes too late")
                  : Py_NewRef(Py_None));
}
static PyObject *broker_restore(PyObject *self, PyObject *bytes) {
    return put_back(self, bytes, true);
}
static PyObject *broker_replay(PyObject *self, PyObject *bytes) {
    return put_back(self, bytes, false);
}

/* --- looking in --- */
/* clang-format off */
#define COUNTS(X)                                                                        \
    X(senders) X(receivers) X(queued) X(leased) X(high_watermark) X(total_sent)          \
    X(total_received) X(redelivered) X(duplicates) X(expired) X(lost) X(missed)          \
    X(clients) X(parked) X(bytes) X(boot)
/* clang-format on */
#define FLAGS(X) X(senders_closed) X(receivers_closed) X(deleted) X(gathering)

static bool set(PyObject *d, const char *key, PyObject *v) {
    bool good = v && PyDict_SetItemString(d, key, v) == 0;
    Py_XDECREF(v);
    return good;
}

static PyObject *broker_stats(PyObject *self, PyObject *unused) {
    klaw_broker_stats s;
    PyObject *d = PyDict_New();
    (void)unused;
    if (!d)
        return NULL;
    klaw_broker_look(of(self), klawpy_real(klaw_now()), &s);
    bool good = true;
#define X(name) good = good && set(d, #name, PyLong_FromUnsignedLongLong(s.name));
    COUNTS(X)
#undef X
#define X(name) good = good && set(d, #name, PyBool_FromLong(s.name));
    FLAGS(X)
#undef X
    good =
        good &&
        set(d, "capacity", s.capacity < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(s.capacity)) &&
        set(d, "oldest", PyFloat_FromDouble((double)s.oldest_ns / 1e9));
    if (!good)
        Py_CLEAR(d);
    return d;
}

static bool visit_reader(void *user, const klaw_broker_reader *r) {
    PyObject *list = user;
    PyObject *d = Py_BuildValue("{s:s,s:s,s:d,s:d,s:K}", "reader", r->reader, "node", r->node,
                                "registered_at", (double)r->registered_at / 1e9, "last_seen_at",
                                (double)r->last_seen_at / 1e9, "total_received",
                                (unsigned long long)r->total_received);
    bool good = d && PyList_Append(list, d) == 0;
    Py_XDECREF(d);
    return good;
}

static PyObject *broker_readers(PyObject *self, PyObject *unused) {
    PyObject *list = PyList_New(0);
    (void)unused;
    int collects = PyGC_Disable(); /* no finalizer may come in the middle of the visit */
    if (list)
        klaw_broker_readers(of(self), visit_reader, list);
    if (collects)
        PyGC_Enable();
    if (list && PyErr_Occurred())
        Py_CLEAR(list);
    return list;
}

#define FN(f) ((PyCFunction)(void (*)(void))(f))
static PyMethodDef methods[] = {
    {"call", FN(broker_call), METH_FASTCALL,
     "call($self, blob, attachments=(), /)\n--\n\n"
     "Takes a call of a hub: (ticket, client). ValueError: it is none, there is no answer."},
    {"answers", broker_answers, METH_NOARGS,
     "answers($self, /)\n--\n\n[(ticket, blob, attachments)] that are ready."},
    {"deadline", broker_deadline, METH_NOARGS,
     "deadline($self, /)\n--\n\nWhen tick() is due, of time.monotonic(), or None."},
    {"tick", broker_tick, METH_NOARGS, "tick($self, /)\n--\n\nDoes what is due."},
    {"client_died", broker_client_died, METH_O,
     "client_died($self, client, /)\n--\n\nThat client's process is gone."},
    {"delete", broker_delete, METH_NOARGS, "delete($self, /)\n--\n\nDeletes the channel."},
    {"fail", broker_fail, METH_O,
     "fail($self, why, /)\n--\n\nThe journal can't be written: every hub is told."},
    {"put", broker_put, METH_VARARGS,
     "put($self, items, waits=False, /)\n--\n\n"
     "Accepts all of [(payload, codec, attachment, context, deadline)]: ok, full or closed. waits: "
     "when "
     "it is full a place in the line is kept for whoever tries again; who does not calls "
     "unblock()."},
    {"unblock", broker_unblock, METH_NOARGS,
     "unblock($self, /)\n--\n\nNobody tries a put again that found no room: its place goes on to "
     "the next."},
    {"get", broker_get, METH_VARARGS,
     "get($self, reader='', /)\n--\n\n(status, payload, codec, attachment, flags, missed)."},
    {"borrow", broker_borrow, METH_NOARGS,
     "borrow($self, /)\n--\n\nThe newest value of a watch, as get() gives it."},
    {"peek", broker_peek, METH_NOARGS,
     "peek($self, /)\n--\n\n[(payload, codec, attachment)] that wait, oldest first; not taken."},
    {"waiting", broker_waiting, METH_VARARGS,
     "waiting($self, after, most, size, /)\n--\n\n"
     "[(place, client, seq, sent_at, codec, flags, payload)] after that place (None: the last), "
     "about `size` bytes of them; not taken."},
    {"register", FN(broker_register), METH_VARARGS | METH_KEYWORDS,
     "register($self, side, reader='', node='')\n--\n\nok, closed or exists."},
    {"deregister", FN(broker_deregister), METH_VARARGS | METH_KEYWORDS,
     "deregister($self, side, reader='')\n--\n\nFalse: there was none."},
    {"journal", broker_journal, METH_NOARGS,
     "journal($self, /)\n--\n\n(record, mark) to append to the log, or None."},
    {"committed", broker_committed, METH_O,
     "committed($self, mark, /)\n--\n\nAll up to that mark is on disk."},
    {"snapshot", broker_snapshot, METH_NOARGS, "snapshot($self, /)\n--\n\nThe whole state."},
    {"restore", broker_restore, METH_O, "restore($self, snapshot, /)\n--\n\nFirst of all."},
    {"replay", broker_replay, METH_O, "replay($self, record, /)\n--\n\nEach record in order."},
    {"stats", broker_stats, METH_NOARGS, "stats($self, /)\n--\n\nWhat it knows."},
    {"readers", broker_readers, METH_NOARGS, "readers($self, /)\n--\n\nEach open receiver."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, broker_new},
    {Py_tp_dealloc, broker_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The far end of a remote channel: its queue, for hubs in other processes."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Broker",
    .basicsize = sizeof(broker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int klawpy_broker_init(PyObject *module, klawpy_state *st) {
    PyTypeObject *t = klawpy_add_type(module, &spec, NULL);
    (void)st;
    Py_XDECREF(t);
    return t ? 0 : -1;
}
