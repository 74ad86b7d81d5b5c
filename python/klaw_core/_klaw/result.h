/* SPDX-License-Identifier: Apache-2.0 */
/* result.h - Ok, Err, Some, Nothing: how the rest of the module makes them. */
#ifndef KLAWPY_RESULT_H
#define KLAWPY_RESULT_H

#include "state.h"

/* New references; value is borrowed. NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_ok(klawpy_state *st, PyObject *value);
KLAWPY_HIDDEN PyObject *klawpy_err(klawpy_state *st, PyObject *error);
KLAWPY_HIDDEN PyObject *klawpy_some(klawpy_state *st, PyObject *value);
KLAWPY_HIDDEN PyObject *klawpy_nothing(klawpy_state *st);

#endif
