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

/* Owns the queued objects: the one object whose traversal visits them. */
typedef struct klawpy_chan {
    PyObject_HEAD klaw_sender *tx; /* the first endpoints' handles, kept until the end */
    klaw_receiver *rx;
    int64_t capacity; /* as klaw_channel_stats */
    klawpy_kind kind;
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

/* Closes the endpoint; idempotent. Wakes who waits, may run the destructors of queued objects. */
KLAWPY_HIDDEN void klawpy_end_close(klawpy_end *e);

#endif
