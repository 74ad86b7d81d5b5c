/* SPDX-License-Identifier: Apache-2.0 */
/* hub.c - klaw_hub as a Python type: the near end of a remote channel, one in a process and channel.
 *
 * Every method is one step with the GIL held, so the tasks and threads of a process share a hub; none
 * waits, and objects that the hub gives back are let go after the step (remote.h). The clocks are read
 * here, and a new identity is given here when the hub asks for one (W24).
 *
 * Sends that wait are places in `slots`, so that the collector sees the objects that stand for them. An
 * awaited send (remote_op.c) is told of its end at once, in the step that brings the event; the waiters
 * of the others come out of events(). */
#include "hub.h"

#include <string.h>
#include <stddef.h>
#include <structmember.h>

static klaw_hub *of(PyObject *self) {
    return ((klawpy_hub *)self)->h;
}
static klawpy_state *state_of(PyObject *self) {
    return ((klawpy_hub *)self)->st;
}

PyObject *klawpy_hub_raise(PyObject *self, klaw_err e, const char *invalid) {
    if (e == KLAW_INVALID || e == KLAW_LIMIT) {
        PyErr_SetString(PyExc_ValueError, e == KLAW_LIMIT ? KLAWPY_REMOTE_LIMIT : invalid);
        return NULL;
    }
    return klawpy_raise_code(state_of(self), e);
}

PyObject *klawpy_hub_error(klawpy_hub *hub, const char *reason, uint64_t missed) {
    klawpy_state *st = hub->st;
    char text[128];
    const char *trouble = klaw_hub_trouble(hub->h);
    bool backend = strcmp(reason, "backend") == 0;
    if (hub->on_error) {
        PyObject *f = Py_NewRef(hub->on_error);
        PyObject *error = PyObject_CallFunction(f, "sK", reason, (unsigned long long)missed);
        Py_DECREF(f);
        if (error && PyExceptionInstance_Check(error))
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        else if (error)
            PyErr_Format(PyExc_TypeError, "on_error gives an exception, not %R", error);
        Py_XDECREF(error);
        return NULL;
    }
    if (strcmp(reason, "lagged") == 0)
        return klawpy_raise(st, "ChannelLaggedError", "(K)", (unsigned long long)missed);
    if (strcmp(reason, "full") == 0) {
        klaw_hub_state look;
        klaw_hub_look(hub->h, &look);
        return klawpy_raise(st, "ChannelFullError", "(L)", (long long)look.capacity);
    }
    if (strcmp(reason, "uncertain") == 0)
        return klawpy_raise(st, "UncertainError", "()");
    if (strcmp(reason, "closed") == 0)
        return klawpy_raise(st, "ChannelClosedError", "()");
    PyOS_snprintf(text, sizeof text, "at least %llu items were lost when the channel's actor ended",
                  (unsigned long long)missed);
    return klawpy_raise(st, "ChannelBackendErrorException", "(ss)", backend ? trouble : text,
                        "ray");
}

/* --- places --- */
uint64_t klawpy_hub_slot(klawpy_hub *hub, PyObject *waiter, klawpy_remote_op *op) {
    if (!hub->free_slot) {
        uint32_t n = hub->n_slots ? 2 * hub->n_slots : 64;
        klawpy_slot *more = n > hub->n_slots ? PyMem_Realloc(hub->slots, n * sizeof *more) : NULL;
        if (!more) {
            PyErr_NoMemory();
            return 0;
        }
        for (uint32_t i = hub->n_slots; i < n; i++)
            more[i] = (klawpy_slot){.generation = 1, .next = i + 1 < n ? i + 2 : 0};
        hub->free_slot = hub->n_slots + 1;
        hub->slots = more;
        hub->n_slots = n;
    }
    uint32_t place = hub->free_slot;
    klawpy_slot *s = &hub->slots[place - 1];
    hub->free_slot = s->next;
    s->waiter = Py_XNewRef(waiter);
    s->op = op;
    s->used = true;
    return (uint64_t)s->generation << 32 | place;
}

static klawpy_slot *slot_of(klawpy_hub *hub, uint64_t ticket) {
    uint32_t place = (uint32_t)ticket;
    if (place == 0 || place > hub->n_slots)
        return NULL;
    klawpy_slot *s = &hub->slots[place - 1];
    return s->used && s->generation == (uint32_t)(ticket >> 32) ? s : NULL;
}

PyObject *klawpy_hub_unslot(klawpy_hub *hub, uint64_t ticket) {
    klawpy_slot *s = slot_of(hub, ticket);
    if (!s)
        return NULL;
    PyObject *waiter = s->waiter;
    s->waiter = NULL;
    s->op = NULL;
    s->used = false;
    s->generation++;
    s->next = hub->free_slot;
    hub->free_slot = (uint32_t)ticket;
    return waiter;
}

/* --- life --- */
static PyObject *hub_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"channel", "kind",        "ack",          "node",
                           "type",    "frame_bytes", "in_flight",    "retain_bytes",
                           "renew",   "retry",       "answer_bytes", NULL};
    klaw_hub_opts o = {.drop = klawpy_drop, .share = klawpy_share};
    PyObject *channel, *retain = NULL;
    int kind = 0, ack = 0;
    const char *elements = NULL;
    Py_ssize_t elements_size = 0;
    unsigned int frame = 0, flight = 0, answer = 0;
    double renew = 0, retry = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$iizy#IIOddI", keys, &channel, &kind, &ack,
                                     &o.node, &elements, &elements_size, &frame, &flight, &retain,
                                     &renew, &retry, &answer) ||
        !klawpy_id(channel, "channel", o.channel) || !klawpy_random_id(o.client) ||
        (retain && !klawpy_bound(retain, &o.retain_bytes)))
        return NULL;
    o.kind = (klaw_remote_kind)kind;
    o.ack = (klaw_remote_ack)ack;
    o.type = elements;
    o.type_size = (size_t)elements_size;
    o.frame_bytes = frame;
    o.in_flight = flight;
    o.answer_bytes = answer;
    o.renew_ns = klawpy_ns(renew);
    o.retry_ns = klawpy_ns(retry);
    klawpy_hub *self = (klawpy_hub *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = klawpy_state_of(type);
    memcpy(self->id, o.client, sizeof self->id);
    self->explicit_acks = o.ack == KLAW_REMOTE_ACK_EXPLICIT;
    self->takers_mask = o.kind == KLAW_REMOTE_QUEUE ? 0 : 255;
    self->takers = PyMem_Calloc(self->takers_mask + 1, sizeof *self->takers);
    klaw_err e = self->takers ? klaw_hub_new(&o, &self->h) : KLAW_NOMEM;
    if (e == KLAW_OK)
        return (PyObject *)self;
    klawpy_hub_raise((PyObject *)self, e, "a hub with these options makes no sense");
    Py_DECREF(self);
    return NULL;
}

static int hub_traverse(PyObject *o, visitproc visit, void *arg) {
    klawpy_hub *self = (klawpy_hub *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->on_calls);
    Py_VISIT(self->on_error);
    Py_VISIT(self->backlog);
    for (uint32_t i = 0; i < self->n_slots; i++)
        Py_VISIT(self->slots[i].waiter);
    return 0;
}

static int hub_clear(PyObject *o) {
    klawpy_hub *self = (klawpy_hub *)o;
    Py_CLEAR(self->on_calls);
    Py_CLEAR(self->on_error);
    Py_CLEAR(self->backlog);
    for (uint32_t i = 0; i < self->n_slots; i++)
        Py_CLEAR(self->slots[i].waiter);
    return 0;
}

static void hub_dealloc(PyObject *o) {
    klawpy_hub *self = (klawpy_hub *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    if (self->weaklist)
        PyObject_ClearWeakRefs(o);
    hub_clear(o);
    klaw_hub_free(self->h);
    klawpy_bury();
    PyMem_Free(self->slots);
    PyMem_Free(self->told);
    PyMem_Free(self->takers);
    Py_CLEAR(self->client);
    type->tp_free(o);
    Py_DECREF(type);
}

/* --- events --- */
static bool keep_event(klawpy_hub *hub, const klaw_hub_event *ev, PyObject *waiter) {
    PyObject *t = Py_BuildValue("(iOK)", (int)ev->kind, waiter ? waiter : Py_None,
                                (unsigned long long)ev->endpoint);
    bool good = t && (hub->backlog || (hub->backlog = PyList_New(0))) &&
                PyList_Append(hub->backlog, t) == 0;
    Py_XDECREF(t);
    return good;
}

int klawpy_hub_drain(klawpy_hub *hub) {
    klaw_hub_event ev;
    int result = 0;
    klaw_inbox *held = klawpy_enter();
    while (klaw_hub_next_event(hub->h, &ev)) {
        klawpy_slot *s = ev.kind <= KLAW_HUB_UNCERTAIN ? slot_of(hub, ev.ticket) : NULL;
        klawpy_remote_op *op = s ? s->op : NULL;
        PyObject *waiter = s ? klawpy_hub_unslot(hub, ev.ticket) : NULL;
        if (op) {
            klawpy_remote_op_told(op, ev.kind);
        } else if (ev.kind == KLAW_HUB_RENAMED) {
            unsigned char id[KLAW_REMOTE_ID];
            if (!klawpy_random_id(id)) {
                result = -1;
                break;
            }
            memcpy(hub->id, id, sizeof id);
            klaw_hub_rename(hub->h, klaw_now(), id);
        } else if (ev.kind == KLAW_HUB_ROOM) {
            klawpy_remote_op_room(hub);
            hub->told_room = true;
        } else if (ev.kind == KLAW_HUB_ITEMS && ev.endpoint == 0) {
            klawpy_remote_op_items(hub, 0);
            hub->told_items = true;
        } else if (ev.kind != KLAW_HUB_ITEMS || !klawpy_remote_op_items(hub, ev.endpoint)) {
            if (!keep_event(hub, &ev, waiter))
                result = -1;
        }
        Py_XDECREF(waiter);
    }
    klawpy_leave(held);
    return result;
}

static bool keep_once(klawpy_hub *hub, bool *told, klaw_hub_event_kind kind) {
    klaw_hub_event ev = {.kind = kind};
    bool was = *told;
    *told = false;
    return !was || keep_event(hub, &ev, NULL);
}

static PyObject *hub_take_events(PyObject *self, PyObject *unused) {
    klawpy_hub *hub = (klawpy_hub *)self;
    (void)unused;
    int r = klawpy_hub_drain(hub);
    klawpy_bury();
    if (r < 0 || !keep_once(hub, &hub->told_room, KLAW_HUB_ROOM) ||
        !keep_once(hub, &hub->told_items, KLAW_HUB_ITEMS))
        return NULL;
    PyObject *list = hub->backlog;
    hub->backlog = NULL;
    return list ? list : PyList_New(0);
}

/* --- endpoints --- */
static PyObject *hub_open(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"side", "token", NULL};
    PyObject *side, *token = NULL;
    unsigned char id[KLAW_REMOTE_ID];
    uint64_t endpoint = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", keys, &side, &token))
        return NULL;
    bool claims = token && token != Py_None;
    int s = klawpy_side(side);
    if (s < 0 || (claims && !klawpy_id(token, "token", id)))
        return NULL;
    klaw_err e =
        klaw_hub_open(of(self), klaw_now(), (klaw_remote_side)s, claims ? id : NULL, &endpoint);
    if (e == KLAW_CLOSED && klaw_hub_trouble(of(self))[0])
        e = KLAW_BACKEND;
    if (e == KLAW_BACKEND)
        return klawpy_hub_error((klawpy_hub *)self, "backend", 0);
    return klawpy_hub_rings(self, e ? klawpy_hub_raise(self, e, "this can't be opened")
                                    : PyLong_FromUnsignedLongLong(endpoint));
}

static PyObject *hub_close(PyObject *self, PyObject *arg) {
    uint64_t endpoint;
    if (!klawpy_u64(arg, &endpoint))
        return NULL;
    klaw_err e = klaw_hub_close(of(self), klaw_now(), endpoint);
    return klawpy_hub_rings(self, PyBool_FromLong(e == KLAW_OK));
}

static PyObject *hub_mint(PyObject *self, PyObject *side) {
    unsigned char id[KLAW_REMOTE_ID];
    int s = klawpy_side(side);
    if (s < 0 || !klawpy_random_id(id))
        return NULL;
    klaw_err e = klaw_hub_mint(of(self), klaw_now(), (klaw_remote_side)s, id);
    return klawpy_hub_rings(self, e ? klawpy_hub_raise(self, e, "no token")
                                    : PyBytes_FromStringAndSize((char *)id, KLAW_REMOTE_ID));
}

/* --- sending --- */
static PyObject *sent(PyObject *self, klaw_err e) {
    klawpy_state *st = state_of(self);
    switch (e) {
    case KLAW_OK: return klawpy_hub_rings(self, Py_NewRef(st->s_ok));
    case KLAW_FULL: return klawpy_hub_rings(self, Py_NewRef(st->s_full));
    case KLAW_CLOSED: return klawpy_hub_done(Py_NewRef(st->s_closed));
    default: return klawpy_hub_done(klawpy_hub_raise(self, e, "this is not an item"));
    }
}

klaw_err klawpy_hub_queue(klawpy_hub *hub, int64_t now, uint64_t endpoint, klaw_remote_item *items,
                          size_t n, bool whole, PyObject *waiter, klawpy_remote_op *op) {
    uint64_t ticket = klawpy_hub_slot(hub, waiter, op);
    if (!ticket)
        return KLAW_NOMEM;
    for (size_t i = 0; i < n; i++)
        Py_XINCREF((PyObject *)items[i].attachment);
    klaw_err e = klaw_hub_send(hub->h, now, endpoint, items, n, whole, ticket);
    if (e) {
        for (size_t i = 0; i < n; i++)
            klawpy_drop(items[i].attachment);
        klawpy_drop(klawpy_hub_unslot(hub, ticket));
    } else if (op) {
        op->ticket = ticket;
    }
    return e;
}

/* send(endpoint, payload, codec, waiter, flags=0, attachment=None, context=b"", deadline=0.0) */
static PyObject *hub_send(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klaw_remote_item i;
    klawpy_view v, c = {.size = 0};
    uint64_t endpoint;
    if (n < 4 || n > 8) {
        PyErr_SetString(PyExc_TypeError, "send(endpoint, payload, codec, waiter, flags=0, "
                                         "attachment=None, context=b'', deadline=0.0)");
        return NULL;
    }
    unsigned long flags = n > 4 ? PyLong_AsUnsignedLong(args[4]) : 0;
    double deadline = n > 7 ? PyFloat_AsDouble(args[7]) : 0;
    if (PyErr_Occurred() || !klawpy_u64(args[0], &endpoint) ||
        !klawpy_item_from(args[1], args[2], n > 5 ? args[5] : Py_None, &i, &v))
        return NULL;
    if (n > 6 && args[6] != Py_None && !klawpy_view_of(args[6], &c)) {
        klawpy_view_end(&v);
        return NULL;
    }
    int64_t now = klaw_now();
    i.flags = (uint32_t)flags;
    i.sent_at = klawpy_real(now);
    i.deadline = klawpy_ns(deadline);
    i.context = c.size ? c.data : NULL;
    i.context_size = c.size;
    klaw_err e = klawpy_hub_queue((klawpy_hub *)self, now, endpoint, &i, 1, false, args[3], NULL);
    klawpy_view_end(&v);
    if (n > 6 && args[6] != Py_None)
        klawpy_view_end(&c);
    return sent(self, e);
}

/* send_batch(endpoint, items, waiter, flags=0, whole=False, context=b"", deadline=0.0) */
static PyObject *hub_send_batch(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"endpoint", "items",   "waiter",   "flags",
                           "whole",    "context", "deadline", NULL};
    unsigned long long endpoint;
    PyObject *items, *waiter, *fast = NULL, *result = NULL;
    unsigned int flags = 0;
    int whole = 0;
    const char *context = NULL;
    Py_ssize_t context_size = 0, n = 0, k = 0;
    double deadline = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KOO|Ipy#d", keys, &endpoint, &items, &waiter,
                                     &flags, &whole, &context, &context_size, &deadline) ||
        !(fast = PySequence_Fast(items, "send_batch takes a list of items")))
        return NULL;
    n = PySequence_Fast_GET_SIZE(fast);
    klaw_remote_item *v = PyMem_Calloc((size_t)n + 1, sizeof *v);
    klawpy_view *views = PyMem_Calloc((size_t)n + 1, sizeof *views);
    int64_t now = klaw_now(), real = klawpy_real(now);
    bool good = v && views;
    if (!good)
        PyErr_NoMemory();
    for (; good && k < n; k += good) {
        PyObject *t = PySequence_Fast_GET_ITEM(fast, k);
        if (PyBytes_CheckExact(t)) {
            v[k].data = PyBytes_AS_STRING(t);
            v[k].size = (size_t)PyBytes_GET_SIZE(t);
        } else if ((good = PyTuple_Check(t) && PyTuple_GET_SIZE(t) >= 2) == false) {
            PyErr_SetString(PyExc_TypeError, "an item is bytes, or (payload, codec[, attachment])");
            break;
        } else {
            good = klawpy_item_from(PyTuple_GET_ITEM(t, 0), PyTuple_GET_ITEM(t, 1),
                                    PyTuple_GET_SIZE(t) > 2 ? PyTuple_GET_ITEM(t, 2) : Py_None,
                                    &v[k], &views[k]);
        }
        if (good) {
            v[k].flags = flags;
            v[k].sent_at = real;
            v[k].deadline = klawpy_ns(deadline);
            v[k].context = context_size ? context : NULL;
            v[k].context_size = (size_t)context_size;
        }
    }
    if (good)
        result = sent(self, klawpy_hub_queue((klawpy_hub *)self, now, endpoint, v, (size_t)n, whole,
                                             waiter, NULL));
    while (k-- > 0)
        klawpy_view_end(&views[k]);
    PyMem_Free(v);
    PyMem_Free(views);
    Py_DECREF(fast);
    return result;
}

static PyObject *hub_withdraw(PyObject *self, PyObject *waiter) {
    klawpy_hub *hub = (klawpy_hub *)self;
    const char *says = "done";
    for (uint32_t i = hub->n_slots; i-- > 0;) {
        klawpy_slot *s = &hub->slots[i];
        if (!s->used || s->waiter != waiter)
            continue;
        uint64_t ticket = (uint64_t)s->generation << 32 | (i + 1);
        klaw_err e = klaw_hub_withdraw(hub->h, klaw_now(), ticket);
        if (e != KLAW_NOT_FOUND) /* else its event waits to be fetched, and takes it along */
            klawpy_drop(klawpy_hub_unslot(hub, ticket));
        says = e == KLAW_OK ? "withdrawn" : e == KLAW_UNCERTAIN ? "uncertain" : "done";
        break;
    }
    return klawpy_hub_rings(self, PyUnicode_InternFromString(says));
}

/* --- the wire --- */
int klawpy_hub_ring(klawpy_hub *hub) {
    if (!hub->on_calls || hub->rung)
        return 0;
    hub->rung = true;
    PyObject *f = Py_NewRef(hub->on_calls);
    PyObject *r = PyObject_CallNoArgs(f);
    Py_DECREF(f);
    Py_XDECREF(r);
    if (!r)
        hub->rung = false;
    return r ? 0 : -1;
}

static PyObject *hub_calls(PyObject *self, PyObject *unused) {
    klawpy_hub *hub = (klawpy_hub *)self;
    klaw_hub_call c;
    int64_t now = klaw_now();
    (void)unused;
    hub->rung = false;
    PyObject *list = PyList_New(0);
    while (list && klaw_hub_next_call(hub->h, now, &c)) {
        if (c.kind == KLAW_HUB_POLL)
            hub->answer = c.answer;
        PyObject *attachments = klawpy_attached_list(c.attachments, c.attached);
        PyObject *blob = klawpy_blob(c.data, c.size);
        PyObject *t = attachments && blob ? Py_BuildValue("(KiNN)", (unsigned long long)c.id,
                                                          (int)c.kind, blob, attachments)
                                          : NULL;
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    return klawpy_hub_done(list);
}

static PyObject *hub_reply(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    klawpy_hub *hub = (klawpy_hub *)self;
    klawpy_view v;
    klawpy_attached a;
    uint64_t id;
    if (n < 2 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "reply(id, blob, attachments=())");
        return NULL;
    }
    if (!klawpy_u64(args[0], &id) || !klawpy_attached_from(n > 2 ? args[2] : NULL, &a))
        return NULL;
    if (!klawpy_view_of(args[1], &v)) {
        klawpy_attached_end(&a, true);
        return NULL;
    }
    klaw_err e = klaw_hub_reply(hub->h, klaw_now(), id, v.data, v.size, a.v, a.n);
    klawpy_view_end(&v);
    klawpy_attached_end(&a, e == KLAW_NOMEM);
    if (e == KLAW_NOMEM)
        return klawpy_hub_done(PyErr_NoMemory());
    if (klawpy_hub_drain(hub) < 0)
        return klawpy_hub_done(NULL);
    return klawpy_hub_rings(self, PyBool_FromLong(e == KLAW_OK));
}

static PyObject *hub_failed(PyObject *self, PyObject *args) {
    unsigned long long id;
    int dead = 0;
    const char *message = "";
    if (!PyArg_ParseTuple(args, "K|ps", &id, &dead, &message))
        return NULL;
    klaw_hub_failed(of(self), klaw_now(), id, dead, message);
    if (klawpy_hub_drain((klawpy_hub *)self) < 0)
        return klawpy_hub_done(NULL);
    return klawpy_hub_rings(self, Py_NewRef(Py_None));
}

static PyObject *hub_deadline(PyObject *self, PyObject *unused) {
    (void)unused;
    return klawpy_when(klaw_hub_deadline(of(self)));
}

static PyObject *hub_tick(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_hub_tick(of(self), klaw_now());
    if (klawpy_hub_drain((klawpy_hub *)self) < 0)
        return klawpy_hub_done(NULL);
    return klawpy_hub_rings(self, Py_NewRef(Py_None));
}

static PyObject *hub_detach(PyObject *self, PyObject *unused) {
    (void)unused;
    klaw_hub_detach(of(self), klaw_now());
    if (klawpy_hub_drain((klawpy_hub *)self) < 0)
        return klawpy_hub_done(NULL);
    return klawpy_hub_rings(self, Py_NewRef(Py_None));
}

/* --- looking in --- */
#define COUNTS(X) \
    X(boot) X(framed) X(accepted) X(unsent) X(retained_bytes) X(ready) X(held) X(tokens)
#define FLAGS(X) X(attached) X(closed_to_send) X(closed_to_receive) X(deleted) X(broken)

static bool set(PyObject *d, const char *key, PyObject *v) {
    bool good = v && PyDict_SetItemString(d, key, v) == 0;
    Py_XDECREF(v);
    return good;
}

static PyObject *hub_state(PyObject *self, PyObject *unused) {
    klaw_hub_state s;
    PyObject *d = PyDict_New();
    bool good = d != NULL;
    (void)unused;
    klaw_hub_look(of(self), &s);
#define X(name) good = good && set(d, #name, PyLong_FromUnsignedLongLong(s.name));
    COUNTS(X)
#undef X
#define X(name) good = good && set(d, #name, PyBool_FromLong(s.name));
    FLAGS(X)
#undef X
    good = good && set(d, "capacity",
                       s.capacity < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(s.capacity));
    if (!good)
        Py_CLEAR(d);
    return d;
}

static PyObject *get_client(PyObject *self, void *unused) {
    (void)unused;
    return PyBytes_FromStringAndSize((char *)((klawpy_hub *)self)->id, KLAW_REMOTE_ID);
}
static PyObject *get_idle(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(klaw_hub_idle(of(self)));
}
static PyObject *get_trouble(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_DecodeUTF8(klaw_hub_trouble(of(self)),
                                (Py_ssize_t)strlen(klaw_hub_trouble(of(self))), "replace");
}
static PyObject *get_on_calls(PyObject *self, void *unused) {
    PyObject *f = ((klawpy_hub *)self)->on_calls;
    (void)unused;
    return Py_NewRef(f ? f : Py_None);
}
static int set_on_calls(PyObject *self, PyObject *v, void *unused) {
    klawpy_hub *hub = (klawpy_hub *)self;
    (void)unused;
    Py_XSETREF(hub->on_calls, v && v != Py_None ? Py_NewRef(v) : NULL);
    hub->rung = false;
    return 0;
}

static PyObject *get_on_error(PyObject *self, void *unused) {
    PyObject *f = ((klawpy_hub *)self)->on_error;
    (void)unused;
    return Py_NewRef(f ? f : Py_None);
}
static int set_on_error(PyObject *self, PyObject *v, void *unused) {
    (void)unused;
    Py_XSETREF(((klawpy_hub *)self)->on_error, v && v != Py_None ? Py_NewRef(v) : NULL);
    return 0;
}

#define FN(f) ((PyCFunction)(void (*)(void))(f))
static PyMethodDef methods[] = {
    {"open", FN(hub_open), METH_VARARGS | METH_KEYWORDS,
     "open($self, side, token=None)\n--\n\nA new endpoint's number, without a round trip."},
    {"close", hub_close, METH_O, "close($self, endpoint, /)\n--\n\nFalse: it was not open."},
    {"mint", hub_mint, METH_O,
     "mint($self, side, /)\n--\n\nA token: an endpoint until somebody claims it."},
    {"send", FN(hub_send), METH_FASTCALL,
     "send($self, endpoint, payload, codec, waiter, flags=0, attachment=None, context=b'', "
     "deadline=0.0, /)\n--\n\nok (an event will hand the waiter back), full or closed."},
    {"send_batch", FN(hub_send_batch), METH_VARARGS | METH_KEYWORDS,
     "send_batch($self, endpoint, items, waiter, flags=0, whole=False, context=b'', "
     "deadline=0.0)\n--\n\nAs send, for [bytes, or (payload, codec, attachment)] with one event."},
    {"send_op", FN(klawpy_remote_send), METH_FASTCALL,
     "send_op($self, endpoint, payload, codec, flags=0, attachment=None, context=b'', "
     "deadline=0.0, timeout=-1.0, /)\n--\n\n"
     "An awaitable: None once the item is enqueued; else an exception says what became of it."},
    {"send_wait", FN(klawpy_remote_send_wait), METH_FASTCALL,
     "send_wait($self, endpoint, payload, codec, flags=0, attachment=None, context=b'', "
     "deadline=0.0, timeout=-1.0, /)\n--\n\nsend_op for a plain thread."},
    {"recv_op", FN(klawpy_remote_recv), METH_FASTCALL,
     "recv_op($self, endpoint, lease=0, timeout=-1.0, most=0, /)\n--\n\n"
     "An awaitable: the next item. The item of that lease is acknowledged first. most: up to so "
     "many, as "
     "(values, leases, last item), where what was sent as bytes is a value and all else an item."},
    {"recv_wait", FN(klawpy_remote_recv_wait), METH_FASTCALL,
     "recv_wait($self, endpoint, lease=0, timeout=-1.0, most=0, /)\n--\n\n"
     "recv_op for a plain thread."},
    {"withdraw", hub_withdraw, METH_O,
     "withdraw($self, waiter, /)\n--\n\n"
     "withdrawn: it never happened; uncertain: it is on its way; done: its event has come."},
    {"wait", FN(klawpy_hub_wait), METH_FASTCALL,
     "wait($self, endpoint, delta, /)\n--\n\nSo many more of its receivers wait for an item."},
    {"take", klawpy_hub_take_one, METH_O,
     "take($self, endpoint, /)\n--\n\nThe next item, or None."},
    {"take_many", FN(klawpy_hub_take_many), METH_FASTCALL,
     "take_many($self, endpoint, n, /)\n--\n\nUp to n items that are here."},
    {"ack", FN(klawpy_hub_ack), METH_FASTCALL,
     "ack($self, endpoint, lease, /)\n--\n\nIts consumer is done with it."},
    {"ack_leases", FN(klawpy_hub_ack_leases), METH_FASTCALL,
     "ack_leases($self, endpoint, leases, /)\n--\n\nHow many of them were held."},
    {"ack_many", klawpy_hub_ack_many, METH_O, "ack_many($self, items, /)\n--\n\nHow many it were."},
    {"nack", FN(klawpy_hub_nack), METH_FASTCALL,
     "nack($self, endpoint, lease, seen=True, /)\n--\n\nGives it back for others."},
    {"calls", hub_calls, METH_NOARGS,
     "calls($self, /)\n--\n\n[(id, kind, blob, attachments)] to make."},
    {"reply", FN(hub_reply), METH_FASTCALL,
     "reply($self, id, blob, attachments=(), /)\n--\n\nA call's answer. False: it is none."},
    {"failed", hub_failed, METH_VARARGS,
     "failed($self, id, dead=False, message='', /)\n--\n\nA call failed."},
    {"events", hub_take_events, METH_NOARGS,
     "events($self, /)\n--\n\n[(kind, waiter or None, endpoint)] since the last time."},
    {"deadline", hub_deadline, METH_NOARGS,
     "deadline($self, /)\n--\n\nWhen tick() is due, of time.monotonic(), or None."},
    {"tick", hub_tick, METH_NOARGS, "tick($self, /)\n--\n\nDoes what is due."},
    {"detach", hub_detach, METH_NOARGS, "detach($self, /)\n--\n\nBegins to leave."},
    {"state", hub_state, METH_NOARGS, "state($self, /)\n--\n\nWhere it stands."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"client", get_client, NULL, "Who this process is, 16 bytes; may change (W24).", NULL},
    {"idle", get_idle, NULL, "Nothing is on its way or waits to be sent.", NULL},
    {"trouble", get_trouble, NULL, "What broke it, or ''.", NULL},
    {"on_calls", get_on_calls, set_on_calls,
     "Called once when calls() may have something to give; again after calls().", NULL},
    {"on_error", get_on_error, set_on_error,
     "Makes the exception for (reason, missed): full, closed, uncertain, lagged, lost, backend.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(klawpy_hub, weaklist), READONLY, NULL},
    {"answer_bytes", T_UINT, offsetof(klawpy_hub, answer), READONLY,
     "Bytes of items that the answer to the last poll may have, about; 0: 92 KiB."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, hub_new},
    {Py_tp_dealloc, hub_dealloc},
    {Py_tp_traverse, hub_traverse},
    {Py_tp_clear, hub_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_tp_doc, "The near end of a remote channel, for all tasks of this process."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "klaw_core._klaw.Hub",
    .basicsize = sizeof(klawpy_hub),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int klawpy_hub_init(PyObject *module, klawpy_state *st) {
    st->hub_type = klawpy_add_type(module, &spec, NULL);
    return st->hub_type ? klawpy_remote_op_init(module, st) : -1;
}
