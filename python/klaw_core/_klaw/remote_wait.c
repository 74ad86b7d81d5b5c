/* SPDX-License-Identifier: Apache-2.0 */
/* remote_wait.c - how sends and receives wait in a hub: places, lists, inboxes; and plain threads.
 *
 * Invariants (all with the GIL held)
 *   Q1  waits: the operation has a ticket, whose place in the hub points to it, or is in the hub's list;
 *       told: it has left them. So the hub never points to an operation that has ended.
 *   Q2  a receive that was told holds no item: the item stays in the hub until the task runs. One that
 *       leaves wakes the next, so a cancelled task loses nothing and keeps nobody waiting.
 *   Q3  what is told goes into the list of its inbox (a loop's, a thread's), and the first one signals it:
 *       one wake-up of the loop serves all that a frame has settled.
 *
 * Rejected: a future and call_soon_threadsafe for each send (2 us each); handing the item to the receive
 * that is woken (lost when it is cancelled in between, or put back out of order). */
#include <limits.h>
#include <poll.h>

#include "hub.h"

/* Items that a waiting receive of a batch asks for at most (W18). */
#define MOST_ASKED 1024

/* --- lists --- */
static void push(klawpy_remote_list *l, klawpy_remote_op *o) {
    o->list = l;
    o->next = NULL;
    o->back = l->last;
    if (l->last)
        l->last->next = o;
    else
        l->first = o;
    l->last = o;
}

void klawpy_remote_unlink(klawpy_remote_op *o) {
    klawpy_remote_list *l = o->list;
    if (!l)
        return;
    if (o->back)
        o->back->next = o->next;
    else
        l->first = o->next;
    if (o->next)
        o->next->back = o->back;
    else
        l->last = o->back;
    o->list = NULL;
}

/* --- inboxes --- */

/* Hangs on an inbox: what was told and not yet delivered. The channel of one byte is the signal. */
struct klawpy_group {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_op op;
    klawpy_inbox *inbox; /* borrowed: it owns this */
    bool armed, signalled;
    klawpy_remote_list ready;
};

void klawpy_group_free(klawpy_group *g) {
    if (!g)
        return;
    if (g->armed)
        klaw_op_cancel(&g->op);
    klaw_sender_unref(g->tx);
    klaw_receiver_unref(g->rx);
    PyMem_Free(g);
}

static void deliver(klawpy_group *g);

/* The inbox's thread is to deliver. Once: signalled says that a byte lies in the channel or was taken for
 * a delivery that has not begun. */
static void signal_it(klawpy_group *g) {
    unsigned char byte = 0;
    if (!g->signalled)
        (void)klaw_send(g->tx, &byte, KLAW_NOWAIT); /* FULL: it is signalled already */
    g->signalled = true;
}

static void signalled(klaw_op *op, void *user) {
    klawpy_group *g = user;
    unsigned char byte;
    (void)op;
    g->armed = false;
    (void)klaw_op_finish(&g->op, &byte);
    deliver(g);
}

/* The next signal is waited for. */
static klaw_err arm(klawpy_group *g) {
    bool waiting = false;
    klaw_err e = KLAW_OK;
    while (!g->armed && !e) {
        unsigned char byte;
        klaw_op_init(&g->op, g->inbox->in, signalled, g);
        e = klaw_op_recv(&g->op, g->rx, &waiting);
        g->armed = !e && waiting;
        if (!e && !waiting) { /* a signal for what was delivered meanwhile */
            (void)klaw_op_finish(&g->op, &byte);
            g->signalled = false;
        }
    }
    return e;
}

static klaw_err group_of(klawpy_inbox *inbox, klawpy_group **out) {
    klawpy_group *g = inbox->group;
    if (!g) {
        static const klaw_type byte = {.size = 1, .name = "signal"};
        klaw_channel_opts o = {.capacity = 1, .name = "remote operations"};
        if (!(g = PyMem_Calloc(1, sizeof *g)))
            return KLAW_NOMEM;
        klaw_err e = klaw_channel(&byte, &o, &g->tx, &g->rx);
        if (e) {
            PyMem_Free(g);
            return e;
        }
        g->inbox = inbox;
        inbox->group = g;
    }
    *out = g;
    klaw_err e = arm(g);
    if (!e && g->ready.first)
        signal_it(g);
    return e;
}

int klawpy_remote_schedule(klawpy_remote_op *o) {
    PyObject *callback = o->callback, *context = o->context;
    int e = 0;
    if (!callback)
        return 0; /* not picked up yet: add_done_callback will see the state */
    o->callback = o->context = NULL;
    if (o->inbox && o->inbox->loop) {
        e = klawpy_inbox_wake(o->hub->st, o->inbox, callback, (PyObject *)o, context);
    } else {
        PyObject *r = PyObject_CallNoArgs(callback);
        e = r ? 0 : -1;
        Py_XDECREF(r);
    }
    Py_DECREF(callback);
    Py_XDECREF(context);
    return e;
}

static void unpark(klawpy_remote_op *o) {
    if (o->parked)
        o->inbox->mine->parked--;
    o->parked = false;
}

void klawpy_remote_forget(klawpy_remote_op *o) {
    if (!o->inbox)
        return;
    unpark(o);
    Py_CLEAR(o->inbox);
}

/* On the inbox's thread: calls back all that was told. */
static void deliver(klawpy_group *g) {
    klawpy_inbox *inbox = (klawpy_inbox *)Py_NewRef((PyObject *)g->inbox);
    g->signalled = false;
    for (klawpy_remote_op *o; (o = g->ready.first) != NULL;) {
        klawpy_remote_unlink(o);
        Py_INCREF(o);
        if (o->state == OP_PARKED)
            o->state = OP_GRANTED;
        if (klawpy_remote_schedule(o) < 0)
            PyErr_WriteUnraisable((PyObject *)o);
        Py_DECREF(o);
    }
    (void)arm(g); /* NOMEM is met again, and said, by who waits next */
    Py_DECREF(inbox);
}

/* What it waits for has come. */
static void tell(klawpy_remote_op *o) {
    klawpy_group *g = o->inbox->group;
    o->told = true;
    o->waits = false;
    push(&g->ready, o);
    signal_it(g);
}

/* --- what the hub tells --- */
void klawpy_remote_op_told(klawpy_remote_op *o, klaw_hub_event_kind kind) {
    o->kind = kind;
    o->ticket = 0;
    tell(o);
}

static klaw_err offer(klawpy_remote_op *o) {
    klawpy_view v, c = {.size = 0};
    int64_t now = klaw_now();
    if (!klawpy_view_of(o->payload, &v))
        return KLAW_INVALID;
    klaw_remote_item i = {.data = v.data,
                          .size = v.size,
                          .attachment = o->attachment,
                          .codec = (klaw_remote_codec)o->codec,
                          .flags = o->flags,
                          .deadline = o->deadline,
                          .sent_at = klawpy_real(now)};
    if (o->extra) {
        c.data = PyBytes_AS_STRING(o->extra);
        c.size = (size_t)PyBytes_GET_SIZE(o->extra);
        i.context = c.data;
        i.context_size = c.size;
    }
    klaw_err e = klawpy_hub_queue(o->hub, now, o->endpoint, &i, 1, false, NULL, o);
    klawpy_view_end(&v);
    return e;
}

void klawpy_remote_op_room(klawpy_hub *hub) {
    for (klawpy_remote_op *o; (o = hub->rooms.first) != NULL;) {
        klaw_err e = offer(o);
        if (e == KLAW_FULL)
            return;
        klawpy_remote_unlink(o);
        if (e) {
            o->kind = KLAW_HUB_UNSENT;
            o->error = e;
            tell(o);
        }
    }
}

/* Tells up to `most` of a list, of that endpoint (0: of any); how many there were. */
static size_t tell_some(klawpy_remote_list *l, uint64_t endpoint, size_t most) {
    size_t n = 0;
    for (klawpy_remote_op *o = l->first, *next; o && n < most; o = next) {
        next = o->next;
        if (endpoint && o->endpoint != endpoint)
            continue;
        klawpy_remote_unlink(o);
        o->hub->woken++;
        n++;
        tell(o);
    }
    return n;
}

bool klawpy_remote_op_items(klawpy_hub *hub, uint64_t endpoint) {
    klaw_hub_state s;
    size_t most = SIZE_MAX, n = 0;
    if (endpoint)
        return tell_some(&hub->takers[endpoint & hub->takers_mask], endpoint, most) > 0;
    klaw_hub_look(hub->h, &s);
    if (!s.closed_to_receive && !s.deleted && !s.broken)
        most = s.ready == 0           ? 1 /* a loss to be told of */
               : s.ready > hub->woken ? (size_t)s.ready - hub->woken
                                      : 0;
    for (uint64_t i = 0; i <= hub->takers_mask && n < most; i++)
        n += tell_some(&hub->takers[i], 0, most - n);
    return n > 0;
}

/* --- waiting --- */

/* Not counted as waiting any more. */
void klawpy_remote_uncount(klawpy_remote_op *o) {
    if (!o->counted)
        return;
    klaw_hub_wait(o->hub->h, klaw_now(), o->endpoint, -o->counted);
    o->counted = 0;
}

/* A receive that was told has looked, or leaves without: `leaves`: the next one may. */
static void looked(klawpy_remote_op *o, bool leaves) {
    klaw_hub_state s;
    klawpy_hub *hub = o->hub;
    if (hub->woken > 0)
        hub->woken--;
    if (!leaves)
        return;
    klaw_hub_look(hub->h, &s);
    if (s.ready > hub->woken || s.closed_to_receive || s.deleted || s.broken) {
        klaw_inbox *held = klawpy_enter();
        (void)klawpy_remote_op_items(hub, hub->takers_mask ? o->endpoint : 0);
        klawpy_leave(held);
    }
}

/* Leaves the hub, whatever it waits for. True: a send that may have happened all the same. */
bool klawpy_remote_abandon(klawpy_remote_op *o) {
    bool uncertain = false;
    klawpy_remote_unlink(o);
    if (o->waits && o->ticket) {
        klaw_err e = klaw_hub_withdraw(o->hub->h, klaw_now(), o->ticket);
        (void)klawpy_hub_unslot(o->hub, o->ticket);
        uncertain = e != KLAW_OK;
        o->ticket = 0;
    } else if (o->told && !o->receives) {
        uncertain = o->kind == KLAW_HUB_UNCERTAIN || o->kind == KLAW_HUB_SENT;
    }
    bool woken = o->told && o->receives;
    if (o->got) { /* nobody has seen it */
        klawpy_hub_give_back(o->hub, o->endpoint, o->got);
        Py_CLEAR(o->got);
    }
    o->waits = o->told = false;
    klawpy_remote_uncount(o);
    if (woken)
        looked(o, true);
    klawpy_bury();
    return uncertain;
}

static outcome failed(klawpy_remote_op *o, klaw_err e) {
    if (e == KLAW_CLOSED)
        klawpy_hub_error(o->hub, klaw_hub_trouble(o->hub->h)[0] ? "backend" : "closed", 0);
    else if (e == KLAW_LIMIT)
        PyErr_SetString(PyExc_ValueError, KLAWPY_REMOTE_LIMIT);
    else if (!PyErr_Occurred())
        klawpy_raise_code(o->hub->st, e);
    return FAIL;
}

static outcome take(klawpy_remote_op *o, int64_t now, PyObject **out) {
    bool empty;
    *out = o->most ? klawpy_hub_take_batch(o->hub, now, o->endpoint, o->most, &empty)
                   : klawpy_hub_take(o->hub, now, o->endpoint, &empty);
    return *out ? DONE : empty ? WAIT : FAIL;
}

/* What needs no waiting. */
outcome klawpy_remote_attempt(klawpy_remote_op *o, PyObject **out) {
    if (!o->receives)
        return WAIT;
    int64_t now = klaw_now();
    if (o->lease) {
        (void)klaw_hub_ack(o->hub->h, now, o->endpoint, o->lease);
        o->lease = 0;
        klawpy_bury();
        if (klawpy_hub_ring(o->hub) < 0)
            return FAIL;
    }
    return take(o, now, out);
}

/* Begins to wait through o->inbox. WAIT; DONE: told already; FAIL. */
outcome klawpy_remote_start(klawpy_remote_op *o) {
    klawpy_group *g;
    klaw_err e = group_of(o->inbox, &g);
    if (e)
        return failed(o, e);
    o->state = OP_PARKED;
    if (!o->parked)
        o->inbox->mine->parked++;
    o->parked = true;
    if (o->receives) {
        outcome r = take(o, klaw_now(), &o->got); /* what came since the attempt told nobody */
        if (r == FAIL)
            return FAIL;
        if (r == DONE) {
            o->told = true;
            o->hub->woken++;
            o->state = OP_GRANTED;
            return DONE;
        }
        push(&o->hub->takers[o->endpoint & o->hub->takers_mask], o);
        o->waits = true;
        if (!o->counted) {
            o->counted = o->most > 1 && !o->hub->explicit_acks
                             ? (int)(o->most < MOST_ASKED ? o->most : MOST_ASKED)
                             : 1;
            klaw_hub_wait(o->hub->h, klaw_now(), o->endpoint, o->counted);
        }
    } else {
        e = o->hub->rooms.first ? KLAW_FULL : offer(o);
        if (e == KLAW_FULL)
            push(&o->hub->rooms, o);
        else if (e)
            return failed(o, e);
        o->waits = true;
    }
    klawpy_bury();
    if (klawpy_hub_drain(o->hub) < 0 || klawpy_hub_ring(o->hub) < 0) {
        (void)klawpy_remote_abandon(o);
        return FAIL;
    }
    if (!o->told)
        return WAIT;
    klawpy_remote_unlink(o);
    o->state = OP_GRANTED;
    return DONE;
}

/* What was told. WAIT: a receive that found nothing. */
outcome klawpy_remote_finish(klawpy_remote_op *o, PyObject **out) {
    o->told = false;
    klawpy_remote_unlink(o);
    if (o->receives) {
        *out = o->got;
        o->got = NULL;
        outcome r = *out ? DONE : take(o, klaw_now(), out);
        if (r != WAIT)
            klawpy_remote_uncount(o);
        looked(o, false);
        return r;
    }
    switch (o->kind) {
    case KLAW_HUB_SENT: *out = Py_NewRef(Py_None); return DONE;
    case KLAW_HUB_REFUSED: klawpy_hub_error(o->hub, "full", 0); return FAIL;
    case KLAW_HUB_UNCERTAIN: klawpy_hub_error(o->hub, "uncertain", 0); return FAIL;
    default: return failed(o, o->error);
    }
}

/* Its time has passed: what a wait that has been abandoned answers. */
outcome klawpy_remote_expired(klawpy_remote_op *o, bool uncertain) {
    if (uncertain)
        klawpy_hub_error(o->hub, "uncertain", 0);
    else
        klawpy_raise(o->hub->st, "TimeoutExpiredError", "(d)", o->timeout);
    return FAIL;
}

/* --- for plain threads --- */

/* Waits until told, without the GIL. False with an exception set; *late: the time has passed. */
static bool thread_wait(klawpy_remote_op *o, int64_t until, bool *late) {
    while (!o->told) {
        struct pollfd p = {.fd = klaw_inbox_fd(o->inbox->in), .events = POLLIN};
        int ms = -1;
        if (until != KLAW_FOREVER) {
            int64_t left = until - klaw_now();
            if (left <= 0) {
                *late = true;
                return true;
            }
            ms = left / 1000000 > INT_MAX - 1 ? INT_MAX : (int)(left / 1000000) + 1;
        }
        int got;
        Py_BEGIN_ALLOW_THREADS got = poll(&p, 1, ms);
        Py_END_ALLOW_THREADS if (got < 0 && PyErr_CheckSignals() < 0) return false;
        klawpy_inbox_pump(o->inbox);
    }
    return true;
}

/* Carries it out, takes the reference. */
PyObject *klawpy_remote_run(klawpy_remote_op *o) {
    PyObject *out = NULL;
    int64_t until = o->timeout < 0       ? KLAW_FOREVER
                    : o->timeout > 9.2e9 ? KLAW_FOREVER - 1
                                         : klaw_now() + (int64_t)(o->timeout * 1e9);
    o->hub->rung = false; /* who was told last may be a loop that is busy, or has ended: we pump */
    outcome r = klawpy_remote_attempt(o, &out);
    while (r == WAIT) {
        bool late = o->receives && o->timeout == 0;
        if (!late) {
            if (!o->inbox && !(o->inbox = klawpy_inbox_of_thread(o->hub->st)))
                break;
            r = klawpy_remote_start(o);
            if (r == FAIL || (r == WAIT && !thread_wait(o, until, &late)))
                break;
        }
        r = late ? klawpy_remote_expired(o, klawpy_remote_abandon(o))
                 : klawpy_remote_finish(o, &out);
    }
    if (o->waits || o->told) {
        PyObject *type, *v, *trace;
        PyErr_Fetch(&type, &v, &trace);
        (void)klawpy_remote_abandon(o);
        PyErr_Restore(type, v, trace);
    }
    klawpy_remote_uncount(o);
    klawpy_remote_forget(o);
    o->state = OP_DONE;
    Py_DECREF(o);
    return r == DONE ? out : NULL;
}
