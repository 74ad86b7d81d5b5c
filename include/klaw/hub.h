/* SPDX-License-Identifier: Apache-2.0 */
/* hub.h - the near end of a remote channel as a pure state machine: what one process knows of it,
 * whatever number of its tasks send and receive there.
 *
 * The far end is a broker (klaw/broker.h). A hub turns sends into frames, keeps what is not yet
 * confirmed and resends it, keeps one long poll outstanding, hands out what arrives, and sends
 * acknowledgements along. Its holder carries the calls (klaw_hub_next_call, klaw_hub_reply) by
 * whatever transport it has, and tells the waiting tasks what has become of their sends
 * (klaw_hub_next_event).
 *
 * No thread, no clock, no I/O: as in broker.h. None of it locks. */
#ifndef KLAW_HUB_H
#define KLAW_HUB_H

#include "klaw/broker.h"

KLAW_BEGIN

/* A hub. */
typedef struct klaw_hub klaw_hub;

/* How a hub is made; all zero is the default, but for `channel` and `client`. */
typedef struct klaw_hub_opts {
    unsigned char
        channel[KLAW_REMOTE_ID]; /* who the channel is; all zero: learns it at the first attach */
    unsigned char client[KLAW_REMOTE_ID]; /* 128 random bits, never reused (W2) */
    klaw_remote_kind kind;                /* what the channel has to be (W5) */
    klaw_remote_ack ack;  /* how its receivers acknowledge: the broker's own counts; see attach */
    const char *node;     /* where the process is, for statistics; copied, at most 255 bytes */
    const void *type;     /* compared with the broker's (W5); copied */
    size_t type_size;     /* its bytes; 0: any */
    uint32_t frame_bytes; /* a frame's size, a larger single item goes alone (W9); 0: 96 KiB */
    uint32_t in_flight;   /* frames at most (W9); 0: 8 */
    /* Kept until acknowledged, over that sends wait (W15); 0: 64 MiB; KLAW_NONE: no bound. */
    int64_t retain_bytes;
    /* Bytes of items in an answer to a poll, about: fewer while little comes, a larger single item
     * alone; 0: what the broker gives (92 KiB). */
    uint32_t answer_bytes;
    int64_t renew_ns; /* how often the lease is renewed at least (W24), a third of it if that is
                         shorter; 0: 5 s */
    int64_t retry_ns; /* a call that failed is repeated after that, doubling up to 1 s; 0: 20 ms */
    void (*drop)(void *attachment);   /* gives an attachment back; NULL: there are none */
    void *(*share)(void *attachment); /* one more reference to it, for resends; as above */
} klaw_hub_opts;

/* Makes one; it does nothing until its first endpoint opens. INVALID, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_hub_new_sized(const klaw_hub_opts *opts, size_t opts_size,
                                               klaw_hub **out);
/* As above. */
static inline klaw_err klaw_hub_new(const klaw_hub_opts *opts, klaw_hub **out) {
    return klaw_hub_new_sized(opts, sizeof *opts, out);
}
/* Frees it and drops every attachment; tickets that are open are forgotten. NULL allowed. */
KLAW_API void klaw_hub_free(klaw_hub *h);

/* --- endpoints --- */

/* Opens an endpoint at once, without a round trip (W6, W7). token: NULL, or the KLAW_REMOTE_ID bytes
 * of klaw_hub_mint, which it claims. *endpoint is its number, from 1. CLOSED: the channel is closed to
 * that side, deleted or broken; NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_hub_open(klaw_hub *h, int64_t now, klaw_remote_side side,
                                          const unsigned char *token, uint64_t *endpoint);
/* Closes one: a sender's close takes effect once all that was sent here before is accepted; what a
 * receiver's consumer holds is acknowledged (W20). NOT_FOUND: it is not open. */
KLAW_API klaw_err klaw_hub_close(klaw_hub *h, int64_t now, uint64_t endpoint);
/* Mints a token that stands for an endpoint of this client until somebody claims it (W7); random:
 * KLAW_REMOTE_ID random bytes, which become the token. CLOSED, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_hub_mint(klaw_hub *h, int64_t now, klaw_remote_side side,
                                          const unsigned char *random);

/* --- sending --- */

/* Queues n items in this order; bytes are copied, attachments taken over on OK. With whole set they are
 * accepted whole or not at all (n at most the capacity, checked by the broker: FULL as an event).
 * One event tells what became of all n, with this ticket (never 0). OK; FULL: retain_bytes are reached
 * (W15): try again after KLAW_HUB_ROOM; CLOSED: the channel, or this endpoint; LIMIT: an item over
 * 1 GiB, or of a durable channel it or all that stays whole over KLAW_REMOTE_DURABLE_MAX (before the
 * hub knows that it is durable: KLAW_HUB_REFUSED); NOMEM. Errors leave everything with the caller. */
KLAW_API KLAW_MUST klaw_err klaw_hub_send(klaw_hub *h, int64_t now, uint64_t endpoint,
                                          const klaw_remote_item *items, size_t n, bool whole,
                                          uint64_t ticket);
/* The sender gave up waiting. OK: it was not framed and never will be, its event will not come.
 * UNCERTAIN: it is on its way; its event will not come. NOT_FOUND: its event came already. */
KLAW_API klaw_err klaw_hub_withdraw(klaw_hub *h, int64_t now, uint64_t ticket);

/* --- receiving --- */

/* delta receivers more (or fewer) of this endpoint wait for an item: this is what asks the broker for
 * items (W18). */
KLAW_API void klaw_hub_wait(klaw_hub *h, int64_t now, uint64_t endpoint, int delta);
/* The next item that was delivered to this endpoint (QUEUE: to any). It is held until klaw_hub_ack,
 * klaw_hub_nack or the end of the endpoint; with KLAW_REMOTE_ACK_BEFORE it is acknowledged here. One
 * past its deadline is acknowledged unseen. OK; EMPTY (wait for KLAW_HUB_ITEMS); CLOSED: empty, and no
 * more will come, or no such receiver; NOMEM: it stays the next one; LAGGED: *missed were dropped before the next (BROADCAST), told once; BACKEND: see
 * klaw_hub_trouble; STOPPED: items may have been lost, *missed of them, told once (W27). *out: data,
 * context and attachment are owned by the caller (data and context in one block:
 * klaw_remote_free((void *)out->data)). */
KLAW_API KLAW_MUST klaw_err klaw_hub_take(klaw_hub *h, int64_t now, int64_t real_now,
                                          uint64_t endpoint, klaw_remote_item *out,
                                          uint64_t *missed);
/* Its consumer is done with the item of this lease (W20). NOT_FOUND: it was acknowledged, or went back
 * in the meantime (W22). */
KLAW_API klaw_err klaw_hub_ack(klaw_hub *h, int64_t now, uint64_t endpoint, uint64_t lease);
/* Gives an item back for others (W21): it stands again where it stood, takes no room, and may come to
 * this hub again. seen: its consumer may have looked at it: it is marked. A copy (BROADCAST, WATCH) has
 * nobody else to go to: it counts as acknowledged. NOT_FOUND: as of klaw_hub_ack. The caller keeps the
 * attachment it took. */
KLAW_API klaw_err klaw_hub_nack(klaw_hub *h, int64_t now, uint64_t endpoint, uint64_t lease,
                                bool seen);

/* --- the wire --- */

/* What a call is for. POLL and RENEW each want a concurrency group of their own at the far end. */
typedef enum klaw_hub_call_kind {
    KLAW_HUB_ATTACH = 0, /* endpoints, tokens; its first attachment is the process's sentinel */
    KLAW_HUB_PUSH = 1,   /* items */
    KLAW_HUB_POLL = 2,   /* items back, acknowledgements, room; may take long */
    KLAW_HUB_RENEW = 3,  /* the lease, acknowledgements */
    KLAW_HUB_DETACH = 4  /* everything at an end (W30) */
} klaw_hub_call_kind;

/* A call to make. */
typedef struct klaw_hub_call {
    uint64_t id;             /* by which its end is reported */
    void *data;              /* the blob; the caller's: klaw_remote_free */
    size_t size;             /* its bytes */
    void **attachments;      /* each the caller's (shared), the array too; NULL: none */
    size_t attached;         /* how many */
    klaw_hub_call_kind kind; /* what for */
    uint32_t answer;         /* POLL: bytes of items its answer may have, about; 0: 92 KiB */
} klaw_hub_call;

/* The next call that has to be made; false: none now. */
KLAW_API bool klaw_hub_next_call(klaw_hub *h, int64_t now, klaw_hub_call *out);
/* A call's answer; attachments are taken over. INVALID: not an answer (the hub treats the call as
 * failed); NOMEM: nothing happened, say it again. */
KLAW_API klaw_err klaw_hub_reply(klaw_hub *h, int64_t now, uint64_t id, const void *data,
                                 size_t size, void *const *attachments, size_t attached);
/* A call failed: it may or may not have arrived. dead: the far end is gone for good (W29): the hub is
 * broken with that message. Else the same call is made again after a while. */
KLAW_API void klaw_hub_failed(klaw_hub *h, int64_t now, uint64_t id, bool dead,
                              const char *message);
/* Begins to leave (W30): gives back what nobody took, closes every endpoint; afterwards the calls that
 * are left end in a DETACH. klaw_hub_idle tells when it is through. */
KLAW_API void klaw_hub_detach(klaw_hub *h, int64_t now);
/* Nothing is on its way and nothing waits to be sent, acknowledged or told. */
KLAW_API bool klaw_hub_idle(const klaw_hub *h);

/* When klaw_hub_tick wants to be called; INT64_MAX: not before something else happens. */
KLAW_API int64_t klaw_hub_deadline(const klaw_hub *h);
/* Does what is due: renewals, repeats. */
KLAW_API void klaw_hub_tick(klaw_hub *h, int64_t now);

/* --- events --- */

/* What has happened. */
typedef enum klaw_hub_event_kind {
    KLAW_HUB_SENT = 0, /* the ticket's items are enqueued (W14) */
    KLAW_HUB_REFUSED =
        1, /* no room and NOWAIT, or a batch larger than the capacity: none is enqueued */
    KLAW_HUB_UNSENT = 2,    /* closed, deleted or broken first: none is enqueued */
    KLAW_HUB_UNCERTAIN = 3, /* it may or may not be enqueued (W24) */
    KLAW_HUB_ROOM = 4,      /* retain_bytes have room again */
    KLAW_HUB_ITEMS = 5,     /* klaw_hub_take has something (or CLOSED, …) to say to waiters */
    KLAW_HUB_OPENED = 6,    /* the first attach succeeded: kind, capacity and type agree */
    KLAW_HUB_RENAMED =
        7 /* the lease had expired: it wants klaw_hub_rename before it goes on (W24) */
} klaw_hub_event_kind;

/* An event. */
typedef struct klaw_hub_event {
    klaw_hub_event_kind kind; /* what */
    uint64_t ticket;          /* SENT, REFUSED, UNSENT, UNCERTAIN: whose */
    uint64_t endpoint;        /* ITEMS: whose (QUEUE: 0) */
} klaw_hub_event;

/* The next event; false: none (any more). */
KLAW_API bool klaw_hub_next_event(klaw_hub *h, klaw_hub_event *out);
/* A new identity after KLAW_HUB_RENAMED: KLAW_REMOTE_ID random bytes. */
KLAW_API void klaw_hub_rename(klaw_hub *h, int64_t now, const unsigned char *random);

/* Where a hub stands. */
typedef struct klaw_hub_state {
    bool attached;           /* the last attach was answered */
    bool closed_to_send;     /* a send would answer CLOSED */
    bool closed_to_receive;  /* nothing will come any more, when what is here is taken */
    bool deleted;            /* the channel was deleted */
    bool broken;             /* see klaw_hub_trouble */
    uint64_t boot;           /* of the broker, 0: unknown yet */
    int64_t capacity;        /* of the channel, KLAW_NONE: no bound, 0: unknown yet */
    uint64_t framed;         /* last number given */
    uint64_t accepted;       /* all up to this are enqueued */
    uint64_t unsent;         /* items that wait to be framed */
    uint64_t retained_bytes; /* kept for resends */
    uint64_t ready;          /* items here that nobody took */
    uint64_t held;           /* items a consumer took and did not acknowledge */
    uint64_t tokens;         /* minted here, and not known to be claimed */
} klaw_hub_state;

/* Fills *out. */
KLAW_API void klaw_hub_look(const klaw_hub *h, klaw_hub_state *out);
/* What broke it ("…, another kind: …"), "" while it is whole. Borrowed until the next call on h. */
KLAW_API const char *klaw_hub_trouble(const klaw_hub *h);

KLAW_END

#endif
