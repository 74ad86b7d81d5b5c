/* SPDX-License-Identifier: Apache-2.0 */
/* coro.c - see coro.h. What differs between the awaitables, their states and what they wait for, is in
 * their own files. */
#include "coro.h"

PyObject *klawpy_running_loop(klawpy_state *st) {
    PyObject *known = klawpy_waking_loop(st);
    if (known) /* asyncio's answer costs a system call */
        return Py_NewRef(known);
    if (!st->get_running_loop) {
        PyObject *asyncio = PyImport_ImportModule("asyncio");
        if (asyncio) {
            st->get_running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
            st->cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
            Py_DECREF(asyncio);
        }
        if (!st->get_running_loop || !st->cancelled_error)
            return NULL;
    }
    return PyObject_CallNoArgs(st->get_running_loop);
}

PyObject *klawpy_timer_new(klawpy_state *st, PyObject *loop, PyObject *op, double seconds) {
    PyObject *expire = PyObject_GetAttrString(op, "_expire"), *timer = NULL;
    PyObject *after = expire ? PyFloat_FromDouble(seconds) : NULL;
    if (after)
        timer = PyObject_CallMethodObjArgs(loop, st->s_call_later, after, expire, NULL);
    Py_XDECREF(after);
    Py_XDECREF(expire);
    return timer;
}

void klawpy_timer_cancel(klawpy_state *st, PyObject *timer) {
    PyObject *type, *value, *trace;
    if (!timer)
        return;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *r = PyObject_CallMethodNoArgs(timer, st->s_cancel);
    if (!r)
        PyErr_WriteUnraisable(timer);
    Py_XDECREF(r);
    PyErr_Restore(type, value, trace);
    Py_DECREF(timer);
}

PyObject *klawpy_trio(PyObject *op, const char *function) {
    PyObject *module = PyImport_ImportModule("klaw_core.runtime._trio");
    PyObject *made = module ? PyObject_CallMethod(module, function, "O", op) : NULL;
    Py_XDECREF(module);
    return made;
}

/* The value of the StopIteration that is set, a new reference; NULL: something else is set. */
static PyObject *stop_value(void) {
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return NULL;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *v = value ? PyObject_GetAttrString(value, "value") : NULL;
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return v;
}

PyObject *klawpy_delegate_throw(PyObject *delegate, PyObject *const *args, Py_ssize_t n,
                                PyObject **said) {
    PyObject *inner = Py_NewRef(delegate), *t = PyObject_GetAttrString(inner, "throw");
    PyObject *r = t ? PyObject_Vectorcall(t, args, (size_t)n, NULL) : NULL;
    Py_XDECREF(t);
    Py_DECREF(inner);
    *said = r ? NULL : stop_value();
    return r;
}

int klawpy_delegate_close(PyObject **delegate) {
    PyObject *inner = *delegate;
    if (!inner)
        return 0;
    *delegate = NULL;
    PyObject *r = PyObject_CallMethod(inner, "close", NULL);
    Py_DECREF(inner);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

bool klawpy_throw_args(Py_ssize_t n) {
    if (n >= 1 && n <= 3)
        return true;
    PyErr_SetString(PyExc_TypeError, "throw takes one to three arguments");
    return false;
}

void klawpy_set_thrown(PyObject *const *args, Py_ssize_t n) {
    PyObject *type = args[0], *value = n > 1 ? args[1] : NULL, *trace = n > 2 ? args[2] : NULL;
    if (PyExceptionInstance_Check(type)) {
        if (trace && trace != Py_None)
            PyException_SetTraceback(type, trace);
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        if (value && value != Py_None)
            PyErr_SetObject(type, value);
        else
            PyErr_SetNone(type);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw needs an exception");
    }
}

PyObject *klawpy_returned(PySendResult r, PyObject *value) {
    if (r == PYGEN_NEXT || r == PYGEN_ERROR)
        return value;
    if (value == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
    } else {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (stop) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    Py_XDECREF(value);
    return NULL;
}

PyObject *klawpy_coro_send(PyObject *self, PyObject *arg) {
    PyObject *value = NULL;
    PySendResult r = PyIter_Send(self, arg, &value);
    return klawpy_returned(r, value);
}

PyObject *klawpy_coro_next(PyObject *self) {
    return klawpy_coro_send(self, Py_None);
}

PyObject *klawpy_coro_self(PyObject *self) {
    return Py_NewRef(self);
}

void klawpy_never_awaited(PyObject *self, const char *name) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", name) < 0)
        PyErr_WriteUnraisable(self);
    PyErr_Restore(type, value, trace);
}
