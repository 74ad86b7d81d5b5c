/* SPDX-License-Identifier: Apache-2.0 */
/* inbox.h - where completed operations of one event loop, or of one thread that waits, arrive. */
#ifndef KLAWPY_INBOX_H
#define KLAWPY_INBOX_H

#include "state.h"

typedef struct klawpy_inbox {
    PyObject_HEAD klaw_inbox *in;
    struct klawpy_mine *mine; /* shared with the thread it belongs to */
    PyObject *loop;           /* a weak reference to the asyncio loop it belongs to, or NULL */
    PyObject *weaklist;
} klawpy_inbox;

/* The inbox of a running asyncio loop on the calling thread, made and registered with the loop on first
 * use. A new reference; NULL with an exception set. */
KLAWPY_HIDDEN klawpy_inbox *klawpy_inbox_of_loop(klawpy_state *st, PyObject *loop);
/* The inbox in which the calling thread waits by itself. A new reference; NULL with an exception set. */
KLAWPY_HIDDEN klawpy_inbox *klawpy_inbox_of_thread(klawpy_state *st);
/* Delivers what is in it: calls the operations' callbacks. */
KLAWPY_HIDDEN void klawpy_inbox_pump(klawpy_inbox *inbox);

/* Around everything that may complete operations of the calling thread's own loop: what it completes is
 * delivered by _leave, without a trip through the loop's selector. */
KLAWPY_HIDDEN klaw_inbox *klawpy_enter(void);
KLAWPY_HIDDEN void klawpy_leave(klaw_inbox *held);

#endif
