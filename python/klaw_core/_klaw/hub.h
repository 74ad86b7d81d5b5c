/* SPDX-License-Identifier: Apache-2.0 */
/* hub.h - klaw_hub as a Python object, and the sends and receives that wait in it. */
#ifndef KLAWPY_HUB_H
#define KLAWPY_HUB_H

#include "inbox.h"
#include "op.h"
#include "remote.h"

typedef struct klawpy_remote_op klawpy_remote_op;
typedef struct klawpy_hub klawpy_hub;

/* Operations in order; each is in one list at most. */
typedef struct klawpy_remote_list {
    klawpy_remote_op *first, *last;
} klawpy_remote_list;

/* A send or a receive that is awaited (remote_op.c). */
struct klawpy_remote_op {
    PyObject_HEAD uint8_t state; /* klawpy_op_state */
    bool receives;               /* else it sends */
    bool blocking;               /* asyncio's mark: yielded, not yet picked up */
    bool waits;                  /* has a ticket, or is in a list of the hub */
    bool told;                   /* what it waits for has come: `kind`, or something to take */
    int counted;                 /* items that the hub counts as waited for here */
    uint32_t most;               /* a receive: items of a batch; 0: one item, as it is */
    bool parked;                 /* counted by the inbox */
    klaw_hub_event_kind kind;
    klaw_err error; /* UNSENT: why */
    klawpy_hub *hub;
    uint64_t endpoint, ticket, lease; /* lease: to acknowledge first */
    PyObject *payload, *attachment, *extra;
    PyObject *got; /* taken already */
    int64_t deadline;
    uint32_t flags;
    int codec;
    double timeout;
    /* while it waits */
    klawpy_inbox *inbox;
    PyObject *callback, *context, *timer, *message;
    PyObject *delegate; /* trio's coroutine */
    klawpy_remote_list *list;
    klawpy_remote_op *next, *back;
    PyObject *weaklist;
    klawpy_remote_op *next_free;
};

/* A send that has not been answered: its ticket is (generation << 32 | place + 1). */
typedef struct klawpy_slot {
    PyObject *waiter;     /* owned, or NULL */
    klawpy_remote_op *op; /* borrowed: it takes itself out; or NULL */
    uint32_t generation;
    uint32_t next; /* free places */
    bool used;
} klawpy_slot;

/* What a take may still have to say (told once by the state machine). */
typedef struct klawpy_told {
    uint64_t endpoint, missed;
    klaw_err e;
} klawpy_told;

struct klawpy_hub {
    PyObject_HEAD klaw_hub *h;
    klawpy_state *st;
    klawpy_slot *slots;
    uint32_t n_slots, free_slot; /* free_slot: place + 1 */
    klawpy_told *told;
    size_t n_told;
    PyObject *client;           /* of the last item taken, to share */
    PyObject *on_calls;         /* called when calls() may have something to give, or NULL */
    PyObject *on_error;         /* makes exceptions, or NULL */
    PyObject *backlog;          /* events drained early, for events(); or NULL */
    klawpy_remote_list rooms;   /* sends that wait for room */
    klawpy_remote_list *takers; /* receives that wait; not of a queue: by endpoint & takers_mask */
    uint64_t takers_mask;
    size_t woken;               /* receives that were told and have not looked yet */
    bool explicit_acks;         /* a receive waits for no more than one item (W18) */
    unsigned answer;            /* of the last poll: bytes its answer may have */
    bool told_room, told_items; /* for events(), once each */
    bool rung;                  /* on_calls has been called since the last calls() */
    unsigned char id[KLAW_REMOTE_ID];
    PyObject *weaklist;
};

/* A ticket for what waits; 0: no memory. waiter: a new reference is made; op: borrowed. */
KLAWPY_HIDDEN uint64_t klawpy_hub_slot(klawpy_hub *hub, PyObject *waiter, klawpy_remote_op *op);
/* Gives the place of a ticket back; the waiter, whose reference is the caller's, or NULL. */
KLAWPY_HIDDEN PyObject *klawpy_hub_unslot(klawpy_hub *hub, uint64_t ticket);
/* klaw_hub_send under a place for waiter or op; OK: op->ticket is set. */
KLAWPY_HIDDEN klaw_err klawpy_hub_queue(klawpy_hub *hub, int64_t now, uint64_t endpoint,
                                        klaw_remote_item *items, size_t n, bool whole,
                                        PyObject *waiter, klawpy_remote_op *op);
/* The next item of an endpoint; NULL: there is none (*empty), or an exception is set. */
KLAWPY_HIDDEN PyObject *klawpy_hub_take(klawpy_hub *hub, int64_t now, uint64_t endpoint,
                                        bool *empty);
/* Up to `most` items of it: (values, leases, last item), where a value is bytes that were sent as they
 * are, or an item; as klawpy_hub_take. */
KLAWPY_HIDDEN PyObject *klawpy_hub_take_batch(klawpy_hub *hub, int64_t now, uint64_t endpoint,
                                              uint32_t most, bool *empty);
/* What a take gave and nobody has seen. */
KLAWPY_HIDDEN void klawpy_hub_give_back(klawpy_hub *hub, uint64_t endpoint, PyObject *got);
/* Hands the events of operations that are awaited to them; the others go to the backlog. -1 with an
 * exception set. */
KLAWPY_HIDDEN int klawpy_hub_drain(klawpy_hub *hub);
/* After a step that may have calls to make: tells on_calls, once. -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_hub_ring(klawpy_hub *hub);
/* Raises what fits the reason (see on_error). Always NULL. */
KLAWPY_HIDDEN PyObject *klawpy_hub_error(klawpy_hub *hub, const char *reason, uint64_t missed);

static inline bool klawpy_u64(PyObject *o, uint64_t *out) {
    *out = PyLong_AsUnsignedLongLong(o);
    return !(*out == (uint64_t)-1 && PyErr_Occurred());
}
/* After a step: lets go what was dropped. */
static inline PyObject *klawpy_hub_done(PyObject *result) {
    klawpy_bury();
    return result;
}
/* The same, and rings. */
static inline PyObject *klawpy_hub_rings(PyObject *hub, PyObject *result) {
    klawpy_bury();
    if (result && klawpy_hub_ring((klawpy_hub *)hub) < 0)
        Py_CLEAR(result);
    return result;
}
/* ValueError with that text for INVALID, else what fits the code. Always NULL. */
KLAWPY_HIDDEN PyObject *klawpy_hub_raise(PyObject *hub, klaw_err e, const char *invalid);

/* hub_take.c: methods of Hub */
KLAWPY_HIDDEN PyObject *klawpy_hub_wait(PyObject *self, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_hub_take_one(PyObject *self, PyObject *arg);
KLAWPY_HIDDEN PyObject *klawpy_hub_take_many(PyObject *self, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_hub_ack(PyObject *self, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_hub_ack_many(PyObject *self, PyObject *items);
KLAWPY_HIDDEN PyObject *klawpy_hub_ack_leases(PyObject *self, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_hub_nack(PyObject *self, PyObject *const *args, Py_ssize_t n);

/* remote_wait.c */
/* Wakes its task, once. -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_remote_schedule(klawpy_remote_op *o);
/* Gives its inbox back. */
KLAWPY_HIDDEN void klawpy_remote_forget(klawpy_remote_op *o);
KLAWPY_HIDDEN void klawpy_remote_unlink(klawpy_remote_op *o);
/* What needs no waiting. */
KLAWPY_HIDDEN outcome klawpy_remote_attempt(klawpy_remote_op *o, PyObject **out);
/* Begins to wait through o->inbox. WAIT; DONE: told already; FAIL. */
KLAWPY_HIDDEN outcome klawpy_remote_start(klawpy_remote_op *o);
/* What was told. WAIT: a receive that found nothing. */
KLAWPY_HIDDEN outcome klawpy_remote_finish(klawpy_remote_op *o, PyObject **out);
/* Its time has passed: what a wait that has been abandoned answers. */
KLAWPY_HIDDEN outcome klawpy_remote_expired(klawpy_remote_op *o, bool uncertain);
/* Leaves the hub, whatever it waits for. True: a send that may have happened all the same. */
KLAWPY_HIDDEN bool klawpy_remote_abandon(klawpy_remote_op *o);
/* Not counted as waiting any more. */
KLAWPY_HIDDEN void klawpy_remote_uncount(klawpy_remote_op *o);
/* On a plain thread: carries it out, takes the reference. */
KLAWPY_HIDDEN PyObject *klawpy_remote_run(klawpy_remote_op *o);

/* remote_op.c */
KLAWPY_HIDDEN int klawpy_remote_op_init(PyObject *module, klawpy_state *st);
/* Methods of Hub. */
KLAWPY_HIDDEN PyObject *klawpy_remote_send(PyObject *hub, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_remote_send_wait(PyObject *hub, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_remote_recv(PyObject *hub, PyObject *const *args, Py_ssize_t n);
KLAWPY_HIDDEN PyObject *klawpy_remote_recv_wait(PyObject *hub, PyObject *const *args, Py_ssize_t n);
/* From klawpy_hub_drain; no Python code runs in these. A send has ended so. */
KLAWPY_HIDDEN void klawpy_remote_op_told(klawpy_remote_op *o, klaw_hub_event_kind kind);
/* There is room again: what waits for it is queued, in order. */
KLAWPY_HIDDEN void klawpy_remote_op_room(klawpy_hub *hub);
/* There is something to take for this endpoint (0: for any): who waits is told. False: nobody did. */
KLAWPY_HIDDEN bool klawpy_remote_op_items(klawpy_hub *hub, uint64_t endpoint);

#endif
