/* SPDX-License-Identifier: Apache-2.0 */
/* transport.h - a remote channel over any transport: the door for those who bring one.
 *
 * klaw_remote_open gives the same klaw_sender and klaw_receiver that a local channel has, over a hub
 * (klaw/hub.h) whose calls somebody carries to the channel's broker. libklaw_ray is one such carrier
 * (klaw/remote.h is its face); a program with a network of its own may be another.
 *
 * What holds for these endpoints, beside what channel.h says:
 *  - klaw_send returns OK when the channel has accepted the element, which is a round trip (W14).
 *    TIMEOUT, CANCELLED and CLOSED mean that it was not sent; UNCERTAIN that it had left: it arrives
 *    once or never, and the element is still yours. BACKEND: the far end is gone for good.
 *  - KLAW_NOWAIT does not wait for room, but for the channel's answer: OK or FULL, or UNCERTAIN when
 *    there is none within `answer_ns`.
 *  - An element counts as received when its receiver is asked for the next one, or is closed (W20);
 *    until then the death of the process gives it to somebody else. So each consumer wants a handle
 *    of its own (klaw_receiver_clone).
 *  - A receive stands in a select and in foreign loops (waiter.h); a send does not: KLAW_TYPE.
 *  - An element that can't be decoded is reported by KLAW_TYPE or what `decode` answered, once, in its
 *    place.
 *  - klaw_sender_stats shows this process's part; queue_size is what has arrived here.
 *
 * A thread of its own drives each channel's hub, carries the calls and keeps the lease alive. It ends
 * after the last endpoint is unreferenced and the broker has been told (at most `linger_ns`). */
#ifndef KLAW_TRANSPORT_H
#define KLAW_TRANSPORT_H

#include "klaw/channel.h"
#include "klaw/hub.h"

KLAW_BEGIN

/* A remote channel as its transport sees it. */
typedef struct klaw_remote klaw_remote;

/* Carries calls. Constant; outlives its channels. */
typedef struct klaw_transport {
    /* Begins one call; call->data and call->attachments are the transport's from here on. Runs on the
     * channel's thread, one at a time, no lock held; should not wait. After OK its end is told exactly
     * once by klaw_remote_reply or klaw_remote_failed, from any thread, from in here too. Any other
     * answer: it was not begun, and is tried again later (BACKEND: the far end is gone for good). */
    klaw_err (*call)(void *user, klaw_remote *r, const klaw_hub_call *call);
    /* No further calls will come; those under way may still be told. On the channel's thread. */
    void (*end)(void *user);
} klaw_transport;

/* How a remote channel is opened; all zero is the default. */
typedef struct klaw_transport_opts {
    const char *name;  /* for inspect and errors; copied, 31 bytes kept; NULL: "remote" */
    klaw_hub_opts hub; /* of the hub; client (all zero: drawn here), drop and share are set here */
    int64_t answer_ns; /* how long a KLAW_NOWAIT send waits for the answer; 0: 10 s */
    int64_t linger_ns; /* how long it may take to leave; 0: 3 s */
    uint32_t ahead;    /* elements kept here beyond what is asked for, at most and
 by consumers that are quick; 0: 32 */
    bool packed;       /* the type's encode and decode speak MessagePack; see klaw/remote.h */
    bool reads_contexts; /* reserved, has to be false */
} klaw_transport_opts;

/* See klaw_remote_open. */
KLAW_API KLAW_MUST klaw_err klaw_remote_open_sized(const klaw_type *type,
                                                   const klaw_transport *transport, void *user,
                                                   const klaw_transport_opts *opts,
                                                   size_t opts_size, klaw_sender **tx,
                                                   klaw_receiver **rx);
/* Opens a channel's endpoints over a transport; `user` is handed to it. tx or rx may be NULL: then the
 * channel does not see a sender or a receiver here. Never waits: the first call goes out at once, on
 * the channel's thread. transport->end is called once after OK, never after an error. Errors: INVALID
 * (both NULL, a kind other than QUEUE), TYPE (the type has no encode or decode and is none of the
 * ready-made ones), LIMIT (element size), NOMEM, SYSTEM (no thread). From anywhere. */
static inline KLAW_MUST klaw_err klaw_remote_open(const klaw_type *type,
                                                  const klaw_transport *transport, void *user,
                                                  const klaw_transport_opts *opts, klaw_sender **tx,
                                                  klaw_receiver **rx) {
    return klaw_remote_open_sized(type, transport, user, opts, sizeof(klaw_transport_opts), tx, rx);
}

/* A call's answer; the bytes are copied. Attachments are not carried by this interface. Never waits.
 * NOMEM: the answer counts as lost, the call is made again. From any thread. */
KLAW_API klaw_err klaw_remote_reply(klaw_remote *r, uint64_t id, const void *data, size_t size);
/* A call failed; see klaw_hub_failed. message (NULL: none) is copied, 255 bytes kept. Never waits.
 * From any thread. */
KLAW_API void klaw_remote_failed(klaw_remote *r, uint64_t id, bool dead, const char *message);

/* What travelled with the element a receiver gave last. */
typedef struct klaw_remote_delivery {
    uint64_t lease;                       /* names it in klaw_remote_done and klaw_remote_return */
    uint64_t seq;                         /* its number within its client; with client, its id */
    unsigned char client[KLAW_REMOTE_ID]; /* the process that sent it */
    int64_t sent_at;                      /* ns since 1970, the sender's clock */
    int64_t deadline;                     /* ns since 1970; 0: none */
    bool redelivered;                     /* a consumer may have seen it before */
} klaw_remote_delivery;

/* About the last element of this receiver that is not acknowledged yet. NOT_FOUND: there is none;
 * INVALID: NULL, or not a remote one. From anywhere, never waits. */
KLAW_API KLAW_MUST klaw_err klaw_remote_last(klaw_receiver *rx, klaw_remote_delivery *out);
/* The consumer is done with it: what an ACK_EXPLICIT channel waits for, and others may say early.
 * NOT_FOUND: that lease is not (any more) of this receiver; INVALID. Never waits. */
KLAW_API KLAW_MUST klaw_err klaw_remote_done(klaw_receiver *rx, uint64_t lease);
/* Gives it back, for whoever receives next (W21); it is marked as redelivered. As above. */
KLAW_API KLAW_MUST klaw_err klaw_remote_return(klaw_receiver *rx, uint64_t lease);

/* Why operations answer BACKEND (or TYPE, CLOSED): fills info->message and what else is known. INVALID:
 * NULL, or not a remote endpoint. */
KLAW_API KLAW_MUST klaw_err klaw_remote_sender_trouble(klaw_sender *tx, klaw_error_info *info);
/* As above. */
KLAW_API KLAW_MUST klaw_err klaw_remote_receiver_trouble(klaw_receiver *rx, klaw_error_info *info);

/* Leaves every remote channel of the process, as before its exit (W30): what consumers hold counts as
 * received, what nobody has got goes back; endpoints answer STOPPED or CLOSED from here on. Waits until
 * the brokers have been told. OK; TIMEOUT: some have not; STOPPED: after a fork. From a thread, not from
 * a fiber. */
KLAW_API KLAW_MUST klaw_err klaw_remote_leave(klaw_deadline deadline);

KLAW_END

#endif
