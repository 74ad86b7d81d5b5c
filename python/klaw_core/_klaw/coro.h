/* SPDX-License-Identifier: Apache-2.0 */
/* coro.h - what every awaitable written in C (op.c, remote_op.c) has in common with a coroutine, with
 * asyncio's timers and with trio's side of a wait. */
#ifndef KLAWPY_CORO_H
#define KLAWPY_CORO_H

#include "inbox.h"

/* asyncio's running loop on this thread, or None: a new reference; NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_running_loop(klawpy_state *st);
/* The loop will call op._expire() in so many seconds: its timer, a new reference; NULL with an exception
 * set. */
KLAWPY_HIDDEN PyObject *klawpy_timer_new(klawpy_state *st, PyObject *loop, PyObject *op,
                                         double seconds);
/* Cancels a timer, which is stolen; NULL: nothing. An exception that is set stays. */
KLAWPY_HIDDEN void klawpy_timer_cancel(klawpy_state *st, PyObject *timer);
/* trio's coroutine for `op`: "park" or "checkpoint" of klaw_core.runtime._trio. A new reference; NULL
 * with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_trio(PyObject *op, const char *function);
/* Throws into a delegate. What it yielded; or NULL, and then *said is what it returned (a new
 * reference), or NULL with an exception set. */
KLAWPY_HIDDEN PyObject *klawpy_delegate_throw(PyObject *delegate, PyObject *const *args,
                                              Py_ssize_t n, PyObject **said);
/* Closes a delegate and gives it up; NULL: nothing. -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_delegate_close(PyObject **delegate);
/* Whether throw() has the arguments a coroutine's takes; else TypeError. */
KLAWPY_HIDDEN bool klawpy_throw_args(Py_ssize_t n);
/* Sets the exception that throw(type[, value[, traceback]]) means. */
KLAWPY_HIDDEN void klawpy_set_thrown(PyObject *const *args, Py_ssize_t n);
/* What the methods of a coroutine return for a step; `value` is stolen. */
KLAWPY_HIDDEN PyObject *klawpy_returned(PySendResult r, PyObject *value);
/* tp_iternext and the method send of a type that has am_send. */
KLAWPY_HIDDEN PyObject *klawpy_coro_next(PyObject *self);
KLAWPY_HIDDEN PyObject *klawpy_coro_send(PyObject *self, PyObject *arg);
/* tp_iter and am_await: itself. */
KLAWPY_HIDDEN PyObject *klawpy_coro_self(PyObject *self);
/* tp_finalize of one that has not begun. */
KLAWPY_HIDDEN void klawpy_never_awaited(PyObject *self, const char *name);

#endif
