/* SPDX-License-Identifier: Apache-2.0 */
/* inbox.h - where completed operations of one event loop, or of one thread that waits, arrive. */
#ifndef KLAWPY_INBOX_H
#define KLAWPY_INBOX_H

#include <stdatomic.h>

#include "state.h"

typedef struct klawpy_mine klawpy_mine;
typedef struct klawpy_group klawpy_group;
/* Frees what remote operations keep with an inbox. NULL allowed. */
KLAWPY_HIDDEN void klawpy_group_free(klawpy_group *g);

/* A task that is to go on: callback(op) in this context (NULL: the current one). Owns its parts. */
typedef struct klawpy_wake {
    PyObject *callback, *op, *context;
} klawpy_wake;

typedef struct klawpy_inbox {
    PyObject_HEAD klaw_inbox *in;
    klawpy_mine *mine; /* shared with the thread it belongs to */
    PyObject *loop;    /* a weak reference to the asyncio loop it belongs to, or NULL */
    PyObject *weaklist;
    klawpy_wake *wakes; /* a ring of `size`, a power of two: what the loop is to wake, in order */
    size_t first, count, size;
    bool scheduled;      /* the loop is to call _drain */
    klawpy_group *group; /* of remote operations (remote_wait.c), or NULL */
} klawpy_inbox;

/* What the inbox and its thread share. */
struct klawpy_mine {
    _Atomic int refs;
    klaw_inbox *in;
    klawpy_inbox *object; /* (GIL) while it is alive */
    PyInterpreterState *owner;
    size_t parked; /* (GIL) operations that wait through it */
};

/* The calling thread's; NULL: none. */
extern KLAWPY_HIDDEN __thread klawpy_mine *klawpy_here;
/* More than one interpreter has had the module: a thread's inbox may be another one's than runs now. */
extern KLAWPY_HIDDEN _Atomic bool klawpy_many_owners;

/* Whether there is one, and it is the running interpreter's. */
static inline bool klawpy_mine_usable(const klawpy_mine *m) {
    return m && (!atomic_load_explicit(&klawpy_many_owners, memory_order_relaxed) ||
                 m->owner == PyInterpreterState_Get());
}

/* The inbox of a running asyncio loop on the calling thread, made and registered with the loop on first
 * use. A new reference; NULL with an exception set. */
KLAWPY_HIDDEN klawpy_inbox *klawpy_inbox_of_loop(klawpy_state *st, PyObject *loop);
/* The inbox in which the calling thread waits by itself. A new reference; NULL with an exception set. */
KLAWPY_HIDDEN klawpy_inbox *klawpy_inbox_of_thread(klawpy_state *st);
/* Delivers what is in it: calls the operations' callbacks. */
KLAWPY_HIDDEN void klawpy_inbox_pump(klawpy_inbox *inbox);
/* The loop, of which it is the inbox, will call callback(op) in this context (NULL: the current one)
 * soon. -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_inbox_wake(klawpy_state *st, klawpy_inbox *inbox, PyObject *callback,
                                    PyObject *op, PyObject *context);
/* The loop that is waking tasks on the calling thread now, so that it runs: a borrowed reference, or
 * NULL. */
KLAWPY_HIDDEN PyObject *klawpy_waking_loop(klawpy_state *st);

/* Around everything that may complete operations of the calling thread's own loop: what it completes is
 * delivered by _leave, without a trip through the loop's selector. */
KLAWPY_HIDDEN void klawpy_deliver(klaw_inbox *held);

static inline klaw_inbox *klawpy_enter(void) {
    klawpy_mine *m = klawpy_here;
    if (!m || !m->parked || !klawpy_mine_usable(m))
        return NULL;
    klaw_inbox_hold(m->in);
    return m->in;
}

static inline void klawpy_leave(klaw_inbox *held) {
    if (held && klaw_inbox_release(held))
        klawpy_deliver(held);
}

#endif
