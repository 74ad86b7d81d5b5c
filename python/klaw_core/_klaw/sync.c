/* SPDX-License-Identifier: Apache-2.0 */
/* sync.c - operations of plain threads: the same permits as for event loops, waited for in poll(2)
 * without the GIL.
 *
 * An operation that waits is on the heap, not on the stack: when the interpreter ends it ends daemon
 * threads where they want the GIL back, here, and their stacks with them, while what they stood in the
 * queue with is still linked there. It is never freed then, nor the inbox it holds.
 *
 * Rejected: klaw_send and klaw_recv without the GIL. They move elements, and queued objects may only be
 * touched with the GIL held (chan.c traverses them). */
#include <limits.h>
#include <poll.h>

#include "op.h"

/* Waits for the grant without the GIL. False with an exception set; *late: the time has passed. */
static bool thread_wait(klawpy_op *o, int64_t *until, bool *late) {
    if (!*until) /* the clock is read when there is something to wait for, not before */
        *until = o->timeout < 0       ? KLAW_FOREVER
                 : o->timeout > 9.2e9 ? KLAW_FOREVER - 1
                                      : klaw_now() + (int64_t)(o->timeout * 1e9);
    while (o->state == OP_PARKED) {
        struct pollfd p = {.fd = klaw_inbox_fd(o->inbox->in), .events = POLLIN};
        int ms = -1;
        if (*until != KLAW_FOREVER) {
            int64_t left = *until - klaw_now();
            if (left <= 0) {
                *late = true;
                return true;
            }
            ms = left / 1000000 > INT_MAX - 1 ? INT_MAX : (int)(left / 1000000) + 1;
        }
        int n;
        Py_BEGIN_ALLOW_THREADS n = poll(&p, 1, ms);
        Py_END_ALLOW_THREADS if (n < 0 && PyErr_CheckSignals() < 0) return false;
        klawpy_inbox_pump(o->inbox);
    }
    return true;
}

/* One that has not begun; not a Python object: only its fields are used. */
static void begin(klawpy_op *o, klawpy_verb verb, klawpy_end *e, PyObject *value, Py_ssize_t max,
                  double timeout) {
    o->verb = (uint8_t)verb;
    o->state = OP_NEW;
    o->waits = o->parked = false;
    o->by_thread = true;
    o->end = e;
    o->value = value;
    o->max = max < INT32_MAX ? (int32_t)max : INT32_MAX;
    o->timeout = timeout;
    o->inbox = NULL;
}

PyObject *klawpy_op_run(klawpy_state *st, klawpy_verb verb, klawpy_end *e, PyObject *value,
                        Py_ssize_t max, double timeout) {
    klawpy_op local, *o = &local;
    PyObject *out = NULL;
    int64_t until = 0;
    begin(o, verb, e, value, max, timeout);
    outcome r = klawpy_attempt(st, o, &out);
    while (r == WAIT) {
        bool late = timeout == 0;
        if (!late && o == &local) {
            if (!(o = PyMem_RawMalloc(sizeof *o))) {
                PyErr_NoMemory();
                return NULL;
            }
            begin(o, verb, e, value, max, timeout);
        }
        if (!late && !o->inbox && !(o->inbox = klawpy_inbox_of_thread(st)))
            break;
        if (!late) {
            klaw_err err = klawpy_start(o);
            if (err) {
                r = klawpy_received(st, o, err, NULL, &out);
                continue;
            }
            if (!thread_wait(o, &until, &late)) {
                klawpy_abandon(o);
                break;
            }
        }
        if (late) {
            klawpy_abandon(o);
            r = klawpy_attempt(st, o, &out); /* once more: it may have come with the clock */
            if (r == WAIT)
                r = klawpy_expired(st, o, &out);
        } else {
            r = klawpy_finish(st, o, &out);
            o->state = OP_NEW;
        }
    }
    Py_XDECREF(o->inbox);
    if (o != &local)
        PyMem_RawFree(o);
    return r == DONE ? out : NULL;
}
