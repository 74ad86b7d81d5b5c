/* SPDX-License-Identifier: Apache-2.0 */
/* broadcast.h - every receiver gets every message sent after it subscribed. */
#ifndef KLAW_BROADCAST_H
#define KLAW_BROADCAST_H

#include "klaw/channel.h"

KLAW_BEGIN

/* What happens to a receiver that is `capacity` messages behind when another one is sent. */
typedef enum klaw_lag {
    /* KLAW_LAG_DROP_OLDEST. */
    KLAW_LAG_DEFAULT = 0,
    /* The sender waits for it. */
    KLAW_LAG_WAIT = 1,
    /* It loses its oldest messages; its next recv answers LAGGED with the exact number, once, then
     * it goes on. */
    KLAW_LAG_DROP_OLDEST = 2,
    /* It is cut off: its next recv answers LAGGED with the number of messages it did not get, then
     * CLOSED for ever. */
    KLAW_LAG_DISCONNECT = 3,
} klaw_lag;

/* Options of klaw_broadcast; all zero is the default. */
typedef struct klaw_broadcast_opts {
    /* Messages kept for the slowest receiver, 1 to 2^20; 0: 1024. */
    int64_t capacity;
    /* Policy of receivers that do not choose one in klaw_broadcast_subscribe. */
    klaw_lag lag;
    /* For inspect; copied; NULL: "broadcast". */
    const char *name;
} klaw_broadcast_opts;

/* See klaw_broadcast. */
KLAW_API KLAW_MUST klaw_err klaw_broadcast_sized(const klaw_type *type,
                                                 const klaw_broadcast_opts *opts, size_t opts_size,
                                                 klaw_sender **tx, klaw_receiver **rx);

/* Makes a broadcast channel with one sender and one receiver. A send with no receivers is OK and
 * goes nowhere while the channel can still be subscribed to. Errors: INVALID, LIMIT, TYPE (a drop
 * without a share), NOMEM. */
static inline KLAW_MUST klaw_err klaw_broadcast(const klaw_type *type,
                                                const klaw_broadcast_opts *opts, klaw_sender **tx,
                                                klaw_receiver **rx) {
    return klaw_broadcast_sized(type, opts, sizeof(klaw_broadcast_opts), tx, rx);
}

/* A new receiver that gets what is sent from now on, with its own lag policy. Errors: CLOSED,
 * NOMEM, INVALID (no broadcast sender). */
KLAW_API KLAW_MUST klaw_err klaw_broadcast_subscribe(klaw_sender *tx, klaw_lag lag,
                                                     klaw_receiver **out);

KLAW_END

#endif
