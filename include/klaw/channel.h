/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h - endpoints, the verbs that work on every kind of channel, and the many-to-many
 * channel.
 *
 * Rules of every kind:
 *  - Success moves, failure leaves: after a send that returned OK the channel owns the element;
 *    after any other answer it is the caller's.
 *  - An operation happened or did not, and the code says which.
 *  - A side closes when its last endpoint closes. Buffered elements stay receivable after the
 *    senders are gone, then recv answers CLOSED. When the receivers are gone send answers CLOSED,
 *    and what was buffered is dropped.
 *  - All functions work from fibers (which park) and from threads (which sleep), mixed. Handles may
 *    be used concurrently. */
#ifndef KLAW_CHANNEL_H
#define KLAW_CHANNEL_H

#include "klaw/time.h"
#include "klaw/type.h"

KLAW_BEGIN

typedef struct klaw_sender klaw_sender;
typedef struct klaw_receiver klaw_receiver;

/* Capacities that are not a number of elements. */
#define KLAW_RENDEZVOUS (-1)
#define KLAW_UNBOUNDED (-2)
/* Capacity when none is given. */
#define KLAW_CAPACITY_DEFAULT 10000
/* The largest capacity; above it LIMIT. */
#define KLAW_CAPACITY_MAX ((int64_t)1 << 40)

/* Options of klaw_channel; all zero is the default. */
typedef struct klaw_channel_opts {
    /* Elements it holds; 0: KLAW_CAPACITY_DEFAULT; KLAW_RENDEZVOUS; KLAW_UNBOUNDED. */
    int64_t capacity;
    /* For inspect; copied (31 bytes kept); NULL: "channel". */
    const char *name;
    /* Promise: at most one host sends and at most one receives at a time. Then a lock-free ring is
     * used. Broken promises are undefined (asserted in debug builds). Bounded only; no clone, no
     * reserve, no select (INVALID). */
    bool one_to_one;
} klaw_channel_opts;

/* The default options, for C++17. */
static inline klaw_channel_opts klaw_channel_opts_default(void) {
    klaw_channel_opts o;
    o.capacity = 0;
    o.name = NULL;
    o.one_to_one = false;
    return o;
}

/* See klaw_channel. */
KLAW_API KLAW_MUST klaw_err klaw_channel_sized(const klaw_type *type, const klaw_channel_opts *opts,
                                               size_t opts_size, klaw_sender **tx,
                                               klaw_receiver **rx);

/* Makes a many-to-many channel with one endpoint of each side. Linearizable, first in first out.
 * Errors: INVALID (NULL, size 0, capacity below KLAW_UNBOUNDED, one_to_one with a special
 * capacity), LIMIT (element or capacity too large), NOMEM. From anywhere; no runtime is needed. */
static inline KLAW_MUST klaw_err klaw_channel(const klaw_type *type, const klaw_channel_opts *opts,
                                              klaw_sender **tx, klaw_receiver **rx) {
    return klaw_channel_sized(type, opts, sizeof(klaw_channel_opts), tx, rx);
}

/* Sends *elem (moved on OK). Errors: FULL (NOWAIT), TIMEOUT, CANCELLED, CLOSED (no receivers, or
 * this handle is closed), NOMEM (the ring could not grow), INVALID (NULL). Broadcast and watch may
 * also answer what the type's share returned. */
KLAW_API KLAW_MUST klaw_err klaw_send(klaw_sender *tx, const void *elem, klaw_deadline deadline);
/* Receives into *elem. Errors: EMPTY (NOWAIT), TIMEOUT, CANCELLED, CLOSED (drained and no senders,
 * or this handle is closed), LAGGED (broadcast: klaw_receiver_missed says how many), INVALID
 * (NULL). *elem is written only on OK. */
KLAW_API KLAW_MUST klaw_err klaw_recv(klaw_receiver *rx, void *elem, klaw_deadline deadline);

/* Sends n elements (an array) as one: all of them, adjacent and in order, or none. n = 0 is OK on
 * an open handle. Errors: as klaw_send; LIMIT (n over the capacity); INVALID (rendezvous, oneshot,
 * broadcast, watch). */
KLAW_API KLAW_MUST klaw_err klaw_send_batch(klaw_sender *tx, const void *elems, size_t n,
                                            klaw_deadline deadline);
/* Receives between 1 and max elements into an array: waits for the first, takes what else is there.
 * *got is set also on an error (0). Errors: as klaw_recv; INVALID when max is 0. */
KLAW_API KLAW_MUST klaw_err klaw_recv_batch(klaw_receiver *rx, void *elems, size_t max, size_t *got,
                                            klaw_deadline deadline);

/* A slot taken before the value is made. Plain data; used up by exactly one of the two calls below.
 * */
typedef struct klaw_permit {
    klaw_sender *tx;
} klaw_permit;

/* Takes a slot. Errors: as klaw_send; INVALID on rendezvous and one_to_one channels and on kinds
 * without slots. */
KLAW_API KLAW_MUST klaw_err klaw_reserve(klaw_sender *tx, klaw_permit *out, klaw_deadline deadline);
/* Sends into the slot, never waits. Errors: CLOSED (the receivers are gone; the permit is used up,
 * the element is the caller's). */
KLAW_API KLAW_MUST klaw_err klaw_permit_send(klaw_permit *permit, const void *elem);
/* Gives the slot back and wakes whoever waits for one. A zeroed or used permit is ignored. */
KLAW_API void klaw_permit_drop(klaw_permit *permit);

/* A further endpoint of the same side. On broadcast a cloned receiver starts where the original
 * stands. Errors: CLOSED (this handle is), NOMEM, INVALID (one_to_one, oneshot). */
KLAW_API KLAW_MUST klaw_err klaw_sender_clone(klaw_sender *tx, klaw_sender **out);
KLAW_API KLAW_MUST klaw_err klaw_receiver_clone(klaw_receiver *rx, klaw_receiver **out);
/* Closes this endpoint. Idempotent, from any host; whoever waits on this handle gets CLOSED. The
 * handle stays valid until _unref. NULL allowed. */
KLAW_API void klaw_sender_close(klaw_sender *tx);
KLAW_API void klaw_receiver_close(klaw_receiver *rx);
/* Closes and gives the handle up: no other call on it may be under way or come later, and no
 * permit, select or granted klaw_op may hold it. (Close it first: that ends them.) NULL allowed. */
KLAW_API void klaw_sender_unref(klaw_sender *tx);
KLAW_API void klaw_receiver_unref(klaw_receiver *rx);

/* How many messages the last LAGGED of this receiver reported; 0 for other kinds. */
KLAW_API uint64_t klaw_receiver_missed(klaw_receiver *rx);
/* The element type of an endpoint. */
KLAW_API const klaw_type *klaw_sender_type(const klaw_sender *tx);
KLAW_API const klaw_type *klaw_receiver_type(const klaw_receiver *rx);

/* A channel's counters, consistent with one another. Times in ns (CLOCK_REALTIME for created_at).
 * */
typedef struct klaw_channel_stats {
    uint64_t id;
    char name[32];
    char kind[16]; /* "mpmc", "one_to_one", "oneshot", "broadcast", "watch" */
    uint64_t sender_count;
    uint64_t receiver_count;
    uint64_t queue_size;
    int64_t capacity; /* elements, or KLAW_RENDEZVOUS, KLAW_UNBOUNDED */
    uint64_t high_watermark;
    uint64_t total_sent;
    uint64_t total_received;
    uint64_t waiting_senders;
    uint64_t waiting_receivers;
    uint64_t permits;
    int64_t created_at;
    bool senders_closed;
    bool receivers_closed;
    /* ns since the oldest element in it was sent, or some less (what lay before it when it came is
     * older); KLAW_NONE: it is empty, or nobody knows: it is noted while the process is open to
     * inspection (inspect.h), by channels of klaw_channel. */
    int64_t oldest_age;
} klaw_channel_stats;

/* Fills *out. INVALID for NULL. From anywhere, never waits. */
KLAW_API KLAW_MUST klaw_err klaw_sender_stats(klaw_sender *tx, klaw_channel_stats *out);
KLAW_API KLAW_MUST klaw_err klaw_receiver_stats(klaw_receiver *rx, klaw_channel_stats *out);

KLAW_END

#endif
