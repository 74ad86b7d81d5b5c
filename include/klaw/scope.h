/* SPDX-License-Identifier: Apache-2.0 */
/* scope.h - structured concurrency: a scope owns fibers, waits for them, can be cancelled, has a
 * deadline, nests.
 *
 * Cancellation is level-triggered: once a scope is cancelled every wait of its fibers (and of
 * scopes inside) returns CANCELLED at once, except inside a shielded scope. An operation that
 * completed returns OK all the same. */
#ifndef KLAW_SCOPE_H
#define KLAW_SCOPE_H

#include "klaw/fiber.h"

KLAW_BEGIN

typedef struct klaw_scope klaw_scope;

/* Options of klaw_scope_open; all zero is the default. */
typedef struct klaw_scope_opts {
    /* Copied (31 bytes kept); NULL: "scope". */
    const char *name;
    /* When it is cancelled by itself; 0: never. Then klaw_scope_close still waits for its fibers.
     * */
    klaw_deadline deadline;
    /* Cancellation from outside does not reach in; needs a deadline (else INVALID). */
    bool shield;
    /* The first fiber that returns an error (other than CANCELLED) cancels the rest. */
    bool cancel_on_error;
} klaw_scope_opts;

/* See klaw_scope_open. */
KLAW_API KLAW_MUST klaw_err klaw_scope_open_sized(const klaw_scope_opts *opts, size_t opts_size,
                                                  klaw_scope **out);

/* Opens a scope inside the current one; it is the caller's current scope until it is closed. Scopes
 * close in reverse order, by the fiber or thread that opened them. Errors: NOMEM, INVALID, STOPPED
 * (no runtime runs: threads may open scopes only while one does). */
static inline KLAW_MUST klaw_err klaw_scope_open(const klaw_scope_opts *opts, klaw_scope **out) {
    return klaw_scope_open_sized(opts, sizeof(klaw_scope_opts), out);
}

/* Waits for every fiber of the scope, leaves it, and gives up the caller's reference. Never returns
 * while a child runs. Returns the first error of a child other than CANCELLED; else TIMEOUT when
 * its deadline cancelled it; else CANCELLED when something else did; else OK. INVALID when it is
 * not the caller's innermost scope (nothing happens then). */
KLAW_API KLAW_MUST klaw_err klaw_scope_close(klaw_scope *s);
/* Waits until the scope has no fibers, later ones included, without leaving it. OK, TIMEOUT,
 * CANCELLED; INVALID (NULL, a timer's callback). */
KLAW_API KLAW_MUST klaw_err klaw_scope_wait(klaw_scope *s, klaw_deadline deadline);
/* Cancels it and what is inside. The first reason (copied, 63 bytes kept; NULL: "cancelled") wins.
 * Idempotent; from anywhere that holds a reference. */
KLAW_API void klaw_scope_cancel(klaw_scope *s, const char *reason);
/* Why it was cancelled: "deadline", "error: …" or the reason given; NULL when it was not. An
 * ancestor's reason counts unless the scope is shielded. Valid while a reference is held. */
KLAW_API const char *klaw_scope_reason(klaw_scope *s);
/* Whether waits in this scope are cancelled. */
KLAW_API bool klaw_scope_cancelled(klaw_scope *s);
/* Fibers of this scope that have not ended (those of inner scopes count there). */
KLAW_API uint64_t klaw_scope_live(klaw_scope *s);
/* The caller's innermost scope, borrowed; NULL on a thread that opened none. */
KLAW_API klaw_scope *klaw_scope_current(void);
/* A further reference, for those who cancel or look from elsewhere; a closed scope answers
 * harmlessly. Returns s. */
KLAW_API klaw_scope *klaw_scope_ref(klaw_scope *s);
/* Gives a reference of klaw_scope_ref back. NULL is allowed. */
KLAW_API void klaw_scope_unref(klaw_scope *s);

KLAW_END

#endif
