/* SPDX-License-Identifier: Apache-2.0 */
/* native.h - elements of channels that C shares: what a queue holds, from and to Python objects. */
#ifndef KLAWPY_NATIVE_H
#define KLAWPY_NATIVE_H

#include "chan.h"

/* native.c: the slow halves of the three below. */
KLAWPY_HIDDEN klaw_err klawpy_native_elem(klawpy_chan *c, PyObject *value, PyObject **elem);
KLAWPY_HIDDEN klaw_err klawpy_native_object(klawpy_chan *c, PyObject **elem);
KLAWPY_HIDDEN void klawpy_native_drop(klawpy_chan *c, PyObject *elem);

/* What goes into the queue for this value, which the channel's validator has seen: one word, the caller's.
 * NOMEM. */
static inline klaw_err klawpy_elem(klawpy_chan *c, PyObject *value, PyObject **elem) {
    if (c->elem)
        return klawpy_native_elem(c, value, elem);
    *elem = Py_NewRef(value);
    return KLAW_OK;
}

/* Turns what came out of the queue into the Python object, in place. NOMEM: it is gone. */
static inline klaw_err klawpy_object(klawpy_chan *c, PyObject **elem) {
    return c->elem ? klawpy_native_object(c, elem) : KLAW_OK;
}

/* Gives back an element that could not be sent. */
static inline void klawpy_elem_drop(klawpy_chan *c, PyObject *elem) {
    if (c->elem)
        klawpy_native_drop(c, elem);
    else
        Py_DECREF(elem);
}

#endif
