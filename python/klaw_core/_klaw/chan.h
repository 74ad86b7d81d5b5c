/* SPDX-License-Identifier: Apache-2.0 */
/* chan.h - channels of Python objects: the queue's owner and the endpoints. */
#ifndef KLAWPY_CHAN_H
#define KLAWPY_CHAN_H

#include "state.h"

typedef enum klawpy_kind {
    KLAWPY_MPMC,
    KLAWPY_ONESHOT,
    KLAWPY_BROADCAST,
    KLAWPY_WATCH
} klawpy_kind;

/* What lies in the queue: references to Python objects, or (native.c) what C can share. */
typedef enum klawpy_elem_kind { KLAWPY_OBJECT, KLAWPY_U64, KLAWPY_BYTES } klawpy_elem_kind;

/* Owns the queued objects: the one object whose traversal visits them. */
typedef struct klawpy_chan {
    PyObject_HEAD klaw_sender *tx; /* the first endpoints' handles, kept until the end; or NULL */
    klaw_receiver *rx;
    int64_t capacity; /* as klaw_channel_stats */
    klawpy_kind kind;
    klawpy_elem_kind elem;
    PyObject *validator; /* called with each value before it is sent, or NULL */
    PyObject *module;    /* keeps st alive; given up in dealloc alone */
    klawpy_state *st;    /* for all endpoints and their operations */
} klawpy_chan;

/* A Sender (tx) or a Receiver (rx). */
typedef struct klawpy_end {
    PyObject_HEAD klawpy_chan *chan;
    klaw_sender *tx;
    klaw_receiver *rx;
    bool owned;        /* the handle is this object's own, not the channel's */
    bool closed;       /* by this object */
    PyObject *made_at; /* KLAW_DEBUG: where */
    PyObject *weaklist;
} klawpy_end;

/* The element type: a reference to a Python object. */
extern KLAWPY_HIDDEN const klaw_type klawpy_object_type;
/* An endpoint object around a handle; owned: it unreferences it. NULL with an exception set: then the
 * handle is still the caller's. */
KLAWPY_HIDDEN PyObject *klawpy_end_make(PyTypeObject *type, klawpy_chan *chan, klaw_sender *tx,
                                        klaw_receiver *rx, bool owned);
/* A Channel around handles, which it takes over (they may be NULL). NULL with an exception set: then they
 * are still the caller's. */
KLAWPY_HIDDEN klawpy_chan *klawpy_chan_make(klawpy_state *st, klawpy_kind kind, int64_t capacity,
                                            klaw_sender *tx, klaw_receiver *rx);
/* Whether a capacity is within bounds; else an exception is set. */
KLAWPY_HIDDEN bool klawpy_capacity(klawpy_state *st, long long n, long long least, long long most);
/* (sender, receiver) around fresh handles, which it takes over whatever happens. */
KLAWPY_HIDDEN PyObject *klawpy_pair(klawpy_state *st, PyTypeObject *sender, PyTypeObject *receiver,
                                    klawpy_kind kind, int64_t capacity, klaw_sender *tx,
                                    klaw_receiver *rx);
/* Seconds of a timeout argument; None and NULL: none (-1). False with an exception set. */
KLAWPY_HIDDEN bool klawpy_seconds(PyObject *o, double *out);
/* Closes the endpoint; idempotent. Wakes who waits, may run the destructors of queued objects. */
KLAWPY_HIDDEN void klawpy_end_close(klawpy_end *e);

#endif
