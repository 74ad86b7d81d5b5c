/* SPDX-License-Identifier: Apache-2.0 */
/* select.h - wait for the first of several operations; exactly one happens, the others have no
 * effect at all. */
#ifndef KLAW_SELECT_H
#define KLAW_SELECT_H

#include "klaw/channel.h"
#include "klaw/scope.h"

KLAW_BEGIN

/* The largest number of cases; more are LIMIT. */
#define KLAW_SELECT_MAX 1024

/* What a case waits for. */
typedef enum klaw_case_kind {
    KLAW_CASE_NONE = 0, /* never ready: a case switched off */
    KLAW_CASE_RECV,     /* a receive, into elem */
    KLAW_CASE_SEND,     /* a send, of *elem */
    KLAW_CASE_TIMER,    /* a deadline */
    /* a scope being cancelled (not one it is in: then select itself answers CANCELLED) */
    KLAW_CASE_SCOPE
} klaw_case_kind;

/* One case. Fill it with the makers below. */
typedef struct klaw_case {
    klaw_case_kind kind;
    /* Set when this case was chosen: OK, CLOSED, LAGGED or NOMEM, as the operation alone would have
     * answered. */
    klaw_err err;
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_scope *scope;
    void *elem;
    klaw_deadline deadline;
} klaw_case;

/* A receive into *elem. */
static inline klaw_case klaw_case_recv(klaw_receiver *rx, void *elem) {
    klaw_case c = {KLAW_CASE_RECV, KLAW_OK, NULL, rx, NULL, elem, 0};
    return c;
}
/* A send of *elem, moved only when this case is chosen with err OK. */
static inline klaw_case klaw_case_send(klaw_sender *tx, const void *elem) {
    klaw_case c = {KLAW_CASE_SEND, KLAW_OK, tx, NULL, NULL, (void *)(uintptr_t)elem, 0};
    return c;
}
/* Ready when the deadline (absolute or KLAW_WITHIN) has passed. */
static inline klaw_case klaw_case_timer(klaw_deadline deadline) {
    klaw_case c = {KLAW_CASE_TIMER, KLAW_OK, NULL, NULL, NULL, NULL, deadline};
    return c;
}
/* Ready when the scope is cancelled. */
static inline klaw_case klaw_case_scope(klaw_scope *scope) {
    klaw_case c = {KLAW_CASE_SCOPE, KLAW_OK, NULL, NULL, scope, NULL, 0};
    return c;
}

/* Waits until one case can go on, carries out exactly that one, and sets *chosen to its index and
 * cases[*chosen].err. Ready cases are chosen at random, evenly. With KLAW_NOWAIT the default: EMPTY
 * when nothing is ready. A closed channel counts as ready. Send and receive on one channel in one
 * select never meet each other. Errors: EMPTY, TIMEOUT, CANCELLED: nothing happened; INVALID (n = 0
 * or only NONE cases with no deadline to end the wait, NULL, one_to_one endpoints); LIMIT; NOMEM
 * (over 16 cases the waiters are allocated). */
KLAW_API KLAW_MUST klaw_err klaw_select(klaw_case *cases, size_t n, size_t *chosen,
                                        klaw_deadline deadline);

KLAW_END

#endif
