/* SPDX-License-Identifier: Apache-2.0 */
/* waiter.h - how another host waits: the door for event loops (the Python binding is built on it).
 *
 * A foreign loop has one inbox: a queue of completed operations and a descriptor to poll. It embeds
 * a klaw_op in its own objects, starts it, and is called back from klaw_inbox_pump on its own
 * thread when the operation has been granted. A grant is a permit, never the element: the element
 * moves in klaw_op_finish, which never waits. So an operation can be abandoned at any instant
 * (klaw_op_cancel) and nothing is lost or doubled: the permit goes to the next waiter.
 *
 *   idle --start--> waiting --peer grants--> ready (in the inbox) --pump: callback--> granted
 *   --finish--> idle
 *        \----------------------- start found it ready at once: granted -------------/
 *        \--cancel--> idle */
#ifndef KLAW_WAITER_H
#define KLAW_WAITER_H

#include "klaw/channel.h"

KLAW_BEGIN

typedef struct klaw_inbox klaw_inbox;
typedef struct klaw_op klaw_op;

/* An operation, embedded in the host's own object; stays put from klaw_op_init until it is idle.
 * All fields are private. */
struct klaw_op {
    void *private_[26];
};

/* Makes an inbox. Errors: NOMEM, SYSTEM (no eventfd). */
KLAW_API KLAW_MUST klaw_err klaw_inbox_open(klaw_inbox **out);
/* A descriptor that polls readable while the inbox may hold completed operations. Owned by the
 * inbox. */
KLAW_API int klaw_inbox_fd(const klaw_inbox *in);
/* Calls back for up to max completed operations (0: all that are there now), returns how many. Only
 * from the loop's own thread. Callbacks may start, finish and cancel operations of the same inbox,
 * also ones not yet called back. */
KLAW_API size_t klaw_inbox_pump(klaw_inbox *in, size_t max);
/* The loop's own thread is about to operate on channels and will look into the inbox afterwards: until
 * klaw_inbox_release what this thread completes for this inbox does not signal the descriptor. One inbox
 * a thread at a time; nothing in between may wait. */
KLAW_API void klaw_inbox_hold(klaw_inbox *in);
/* Ends that. True: something is in the inbox; call klaw_inbox_pump now, the descriptor may not be
 * readable. */
KLAW_API KLAW_MUST bool klaw_inbox_release(klaw_inbox *in);
/* Gives the inbox up. All of its operations must be idle. NULL allowed. */
KLAW_API void klaw_inbox_unref(klaw_inbox *in);

/* Prepares an idle operation whose grants go to `in` and are told to fn(op, user) by
 * klaw_inbox_pump. */
KLAW_API void klaw_op_init(klaw_op *op, klaw_inbox *in, void (*fn)(klaw_op *op, void *user),
                           void *user);

/* Says for inspection who waits by it: a number of the loop's own, e.g. of a task: klaw_published_id,
 * of which the low half is kept; 0: nobody in particular. Idle operations only. */
KLAW_API void klaw_op_label(klaw_op *op, uint32_t id);

/* Starts a receive. OK with *waiting = false: granted, call klaw_op_finish now (fn is not called).
 * OK with *waiting = true: fn will be called. Other: the operation is idle: CLOSED, LAGGED as
 * klaw_recv; INVALID (not idle, one_to_one). Only from the inbox's thread, like all of klaw_op_*.
 * */
KLAW_API KLAW_MUST klaw_err klaw_op_recv(klaw_op *op, klaw_receiver *rx, bool *waiting);
/* Starts a send; the element is given to klaw_op_finish. Answers as klaw_op_recv, CLOSED as
 * klaw_send. */
KLAW_API KLAW_MUST klaw_err klaw_op_send(klaw_op *op, klaw_sender *tx, bool *waiting);
/* Starts a send of n elements as one: the grant is n slots, klaw_op_finish takes an array of n. n = 1 is
 * klaw_op_send. Errors: as that; LIMIT (n over the capacity); INVALID (n = 0; n > 1 on a rendezvous and
 * on kinds that take no batches). */
KLAW_API KLAW_MUST klaw_err klaw_op_send_batch(klaw_op *op, klaw_sender *tx, size_t n,
                                               bool *waiting);
/* Redeems the grant, never waits: a receive moves the element into *elem, a send moves *elem into
 * the channel. The operation is idle afterwards whatever the answer: OK; CLOSED; LAGGED; EMPTY or
 * FULL: the peer left in between (rendezvous, broadcast, watch), start again; NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_op_finish(klaw_op *op, void *elem);
/* Abandons the operation in any state; fn will not be called. A grant goes to the next who waits.
 * Idempotent. */
KLAW_API void klaw_op_cancel(klaw_op *op);
/* Calls visit(elem, user) for every element that lies in a channel of klaw_channel, klaw_oneshot,
 * klaw_broadcast or klaw_watch, without a lock: for a garbage collector that has stopped whoever could
 * operate on the channel. visit may not call klaw. */
KLAW_API void klaw_receiver_visit(klaw_receiver *rx, void (*visit)(void *elem, void *user),
                                  void *user);
/* The endpoint's user-visible state: 0 idle, 1 waiting, 2 granted. */
KLAW_API int klaw_op_state(const klaw_op *op);

KLAW_END

#endif
