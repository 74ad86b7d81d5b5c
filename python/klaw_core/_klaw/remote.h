/* SPDX-License-Identifier: Apache-2.0 */
/* remote.h - what the bindings of remote channels (broker.c, hub.c) share: time, identities, attachments,
 * items.
 *
 * Attachments are references to Python objects. The state machines give them back (`drop`) in the middle
 * of their work, where no Python code may run: klawpy_drop puts them aside, klawpy_bury, called after
 * each call into a state machine, lets them go. In between the GIL is never released, so a call is as one
 * step to other threads. */
#ifndef KLAWPY_REMOTE_H
#define KLAWPY_REMOTE_H

#include "state.h"

/* What a KLAW_LIMIT of a hub or a broker says. */
#define KLAWPY_REMOTE_LIMIT \
    "an item is over 1 GiB, or (durable channel) it or a batch that stays whole is over 500 MiB"

/* A delivered item, as Hub.take gives it. */
typedef struct klawpy_item {
    PyObject_HEAD PyObject *payload; /* bytes */
    PyObject *context;               /* bytes, or NULL: empty */
    PyObject *attachment;            /* or NULL: None */
    PyObject *client;                /* bytes */
    unsigned long long seq, lease, endpoint;
    double sent_at; /* seconds since 1970 */
    int codec;
    unsigned flags;
} klawpy_item;

/* CLOCK_REALTIME, from a CLOCK_MONOTONIC of just now; follows steps of the clock within 100 ms. */
KLAWPY_HIDDEN int64_t klawpy_real(int64_t now);
/* Seconds of an option as ns, 0 stays 0. */
KLAWPY_HIDDEN int64_t klawpy_ns(double seconds);
/* A deadline of a state machine as seconds of time.monotonic(), or None. */
KLAWPY_HIDDEN PyObject *klawpy_when(int64_t at);

KLAWPY_HIDDEN void klawpy_drop(void *attachment);
KLAWPY_HIDDEN void *klawpy_share(void *attachment);
/* Lets go what was dropped; keeps an exception that is set. */
KLAWPY_HIDDEN void klawpy_bury(void);

/* Copies the KLAW_REMOTE_ID bytes of an identity; false with an exception set. */
KLAWPY_HIDDEN bool klawpy_id(PyObject *o, const char *what, unsigned char *out);
/* Random bytes of an identity; false with an exception set. */
KLAWPY_HIDDEN bool klawpy_random_id(unsigned char *out);
/* A side: 0 or "sender", 1 or "receiver"; -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_side(PyObject *o);
/* KLAW_NONE for None, else the number, which may not be negative; false with an exception set. */
KLAWPY_HIDDEN bool klawpy_bound(PyObject *o, int64_t *out);

/* A borrowed view of bytes: of a bytes object as it is, of anything else through a buffer. */
typedef struct klawpy_view {
    const void *data;
    size_t size;
    Py_buffer buffer; /* obj NULL: none */
} klawpy_view;
KLAWPY_HIDDEN bool klawpy_view_of(PyObject *o, klawpy_view *v);
static inline void klawpy_view_end(klawpy_view *v) {
    if (v->buffer.obj)
        PyBuffer_Release(&v->buffer);
}

/* References to the objects of a sequence, in a vector by PyMem. */
typedef struct klawpy_attached {
    void **v;
    size_t n;
} klawpy_attached;
KLAWPY_HIDDEN bool klawpy_attached_from(PyObject *o, klawpy_attached *out);
/* Frees the vector; references: gives them back, too. */
KLAWPY_HIDDEN void klawpy_attached_end(klawpy_attached *a, bool references);
/* A list that takes over references and vector of a state machine; () when there are none. */
KLAWPY_HIDDEN PyObject *klawpy_attached_list(void **v, size_t n);
/* Bytes of an owned blob, which is freed. */
KLAWPY_HIDDEN PyObject *klawpy_blob(void *data, size_t size);

/* One item to send from its Python parts; borrowed. context, attachment: NULL or None for none. */
KLAWPY_HIDDEN bool klawpy_item_from(PyObject *payload, PyObject *codec, PyObject *attachment,
                                    klaw_remote_item *out, klawpy_view *view);
/* The item object around what a state machine gave, all of which it takes over. client: the object to
 * share when it is the same bytes, replaced when not. */
KLAWPY_HIDDEN PyObject *klawpy_item_make(klawpy_state *st, klaw_remote_item *i, uint64_t endpoint,
                                         PyObject **client);

/* Raises what fits a code and message of the store (store.c). Always NULL. */
KLAWPY_HIDDEN PyObject *klawpy_raise_info(klawpy_state *st, klaw_err e,
                                          const klaw_error_info *info);

#endif
