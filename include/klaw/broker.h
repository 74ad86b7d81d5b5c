/* SPDX-License-Identifier: Apache-2.0 */
/* broker.h - the far end of a remote channel as a pure state machine: the queue that one process (on
 * Ray: the channel's actor) keeps for senders and receivers in many others.
 *
 * Its peers are hubs (klaw/hub.h): one in each process that uses the channel. Hub and broker talk by
 * calls, opaque blobs of bytes that a transport carries; it may lose, repeat, delay and reorder them.
 * Together they promise: enqueued exactly once and in order per sender; received exactly once while
 * nobody dies; redelivered and marked when a receiver dies with what it had not acknowledged. The
 * numbered rules (W1-W31) stand in docs/ray-protocol.md and are cited in the code.
 *
 * No thread, no clock, no I/O in here: time and random bits come in as arguments, calls and answers go
 * through functions. None of it locks: one host drives a broker at a time. Times are nanoseconds of
 * any monotonic clock, the same one for every call on a broker; deadlines of items alone are of the
 * real-time clock, since they cross machines. */
#ifndef KLAW_BROKER_H
#define KLAW_BROKER_H

#include "klaw/err.h"

KLAW_BEGIN

/* Bytes in an identity (of a channel, a client, a token): random, never reused. */
#define KLAW_REMOTE_ID 16
/* What an item, or a batch that is accepted whole, may take in a durable channel, 64 bytes for each item
 * included: its log writes it in one piece. */
#define KLAW_REMOTE_DURABLE_MAX ((size_t)500 << 20)
/* The version of the calls' format; a call of another one is answered `version`. */
#define KLAW_REMOTE_VERSION 1

/* What a remote channel is. Numbers are stored and sent and never change. */
typedef enum klaw_remote_kind {
    KLAW_REMOTE_QUEUE = 0,     /* each item to one receiver */
    KLAW_REMOTE_BROADCAST = 1, /* each item to each receiver that is open when it is accepted */
    KLAW_REMOTE_WATCH = 2      /* the newest value, to each receiver */
} klaw_remote_kind;

/* When an item counts as received (W20). Numbers are sent and never change. */
typedef enum klaw_remote_ack {
    KLAW_REMOTE_ACK_NEXT = 0,     /* when its consumer asks for the next one, or closes */
    KLAW_REMOTE_ACK_EXPLICIT = 1, /* when the consumer says so */
    KLAW_REMOTE_ACK_BEFORE = 2    /* when it is handed out: at most once */
} klaw_remote_ack;

/* The two sides of a channel. Numbers are sent and never change. */
typedef enum klaw_remote_side { KLAW_REMOTE_SENDER = 0, KLAW_REMOTE_RECEIVER = 1 } klaw_remote_side;

/* How the payload of an item is encoded; the broker never looks. Numbers never change. */
typedef enum klaw_remote_codec {
    KLAW_REMOTE_BYTES = 0,   /* as it is */
    KLAW_REMOTE_MSGPACK = 1, /* MessagePack */
    KLAW_REMOTE_PICKLE = 2   /* Python's pickle, protocol 5 */
} klaw_remote_codec;

/* Flags of an item. Numbers are sent and never change. */
enum {
    KLAW_REMOTE_VOID = 1, /* withdrawn: holds its place in the order, is delivered to nobody */
    KLAW_REMOTE_REDELIVERED = 2, /* may have been seen by a consumer before */
    KLAW_REMOTE_BATCH_FIRST = 4, /* the first of a batch that is accepted whole or not at all */
    KLAW_REMOTE_BATCH_LAST = 8,  /* its last one */
    KLAW_REMOTE_REFERENCE = 16,  /* the payload is a reference to the value, not the value */
    KLAW_REMOTE_NOWAIT = 32 /* refused (and made void) rather than kept waiting for room (W13) */
};

/* One item. Pointers are borrowed for the call that takes or gives it, unless said otherwise there. */
typedef struct klaw_remote_item {
    const void *data;    /* the payload */
    size_t size;         /* its bytes */
    const void *context; /* what travels beside it (request and trace ids), encoded by the caller */
    size_t context_size; /* its bytes, at most 65 535 */
    void *attachment;    /* an object that travels beside the bytes, or NULL; see `drop` */
    int64_t sent_at;     /* ns since 1970 */
    int64_t deadline;    /* ns since 1970; 0: none. Past it, it is dropped and counted as expired */
    uint64_t seq;        /* number within its client, from 1; given by the hub */
    uint64_t lease;      /* (delivered) names this delivery in an ack */
    unsigned char client[KLAW_REMOTE_ID]; /* (delivered) who sent it; (client, seq) is its id */
    uint32_t flags;                       /* KLAW_REMOTE_VOID, … */
    klaw_remote_codec codec;              /* of the payload */
    uint64_t
        place; /* (peeked) where it stands in the queue's order: rising, from 1, until a restart */
} klaw_remote_item;

/* A broker. */
typedef struct klaw_broker klaw_broker;

/* How a broker is made; all zero is the default, but for `channel`. */
typedef struct klaw_broker_opts {
    unsigned char channel[KLAW_REMOTE_ID]; /* who the channel is, over restarts too (W2) */
    uint64_t boot;                         /* random, new at each start of the holder (W2); not 0 */
    klaw_remote_kind kind;                 /* what it is */
    klaw_remote_ack ack;                   /* when an item counts as received */
    /* Items (WATCH: ignored; BROADCAST: a receiver); 0: 10 000; KLAW_NONE: no bound. */
    int64_t capacity;
    const void *type;    /* describes the elements' type, compared at attach (W5); copied */
    size_t type_size;    /* its bytes; 0: any */
    bool durable;        /* keeps a journal, answers after it is committed (W28) */
    bool restarted;      /* an earlier boot may have had clients: gathers them first (W27) */
    int64_t lease_ns;    /* a client that says nothing that long is dead (W24); 0: 15 s */
    int64_t gather_ns;   /* how long a restarted broker gathers (W27); 0: 2 s */
    int64_t park_ns;     /* how long a poll is kept (W19); 0: 10 s */
    int64_t remember_ns; /* how long a dead client's numbers are kept (W25); 0: 10 min */
    int64_t token_ns; /* how long a token lives that nobody claims or states again (W7); 0: 300 s */
    uint32_t max_parked; /* polls parked at once, over that the oldest gets `again`; 0: 900 */
    void (*drop)(void *attachment);   /* gives an attachment back; NULL: there are none */
    void *(*share)(void *attachment); /* one more reference to it: the broker keeps one until the
                                         item is acknowledged; as above */
} klaw_broker_opts;

/* Makes one. INVALID: options that make no sense (durable with BROADCAST or WATCH among them). NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_broker_new_sized(const klaw_broker_opts *opts, size_t opts_size,
                                                  klaw_broker **out);
/* As above. */
static inline klaw_err klaw_broker_new(const klaw_broker_opts *opts, klaw_broker **out) {
    return klaw_broker_new_sized(opts, sizeof *opts, out);
}
/* Frees it and drops every attachment. NULL allowed. */
KLAW_API void klaw_broker_free(klaw_broker *b);

/* --- calls of hubs --- */

/* An answer that is ready. */
typedef struct klaw_broker_answer {
    uint64_t ticket; /* the call it answers */
    void *data;      /* the blob; owned by the caller: klaw_remote_free */
    size_t size;     /* its bytes */
    /* Those of its items in order; owned by the caller, the array too: each goes on to the receiving
     * hub, or to `drop`. */
    void **attachments;
    size_t attached; /* how many */
} klaw_broker_answer;

/* Takes one call. attachments: `attached` of them in the order of their items, taken over on OK and
 * INVALID alike; those of an attach call stay the caller's (the first one is the sentinel, whose end
 * the caller tells by klaw_broker_client_died). *ticket: the number by which klaw_broker_next tells its answer, at
 * once or (a poll) later; *client (or NULL) is filled with the caller's identity. INVALID: not a call
 * (cut, too deep, lengths that lie): there is no answer. NOMEM: nothing happened, the call may be
 * repeated. */
KLAW_API KLAW_MUST klaw_err klaw_broker_call(klaw_broker *b, int64_t now, int64_t real_now,
                                             const void *data, size_t size,
                                             void *const *attachments, size_t attached,
                                             uint64_t *ticket,
                                             unsigned char client[KLAW_REMOTE_ID]);
/* The next answer that is ready; false: none (any more). A durable broker gives none whose effects are
 * not committed (W28). */
KLAW_API bool klaw_broker_next(klaw_broker *b, klaw_broker_answer *out);
/* Gives back what came out of a broker or hub as an owned blob. NULL allowed. */
KLAW_API void klaw_remote_free(void *data);

/* When klaw_broker_tick wants to be called, INT64_MAX: not before something else happens. */
KLAW_API int64_t klaw_broker_deadline(const klaw_broker *b);
/* Does what is due: leases, tokens, parked polls, expired items, the end of gathering. */
KLAW_API void klaw_broker_tick(klaw_broker *b, int64_t now, int64_t real_now);
/* That client's process is gone (W23). */
KLAW_API void klaw_broker_client_died(klaw_broker *b, int64_t now,
                                      const unsigned char client[KLAW_REMOTE_ID]);
/* Deletes the channel: every parked and later call is answered `deleted` (W29). */
KLAW_API void klaw_broker_delete(klaw_broker *b, int64_t now);

/* --- without a hub: one item at a time, anonymous, at least once ---
 * For holders that offer plain put and get besides; these senders and receivers have no lease: whoever
 * registers has to deregister. A durable broker has no answer to hold back here: after each put or get
 * its holder has to take klaw_broker_journal, write it and say klaw_broker_committed before it tells
 * its own caller; until then an item that was put is given to nobody (get: EMPTY). */

/* Accepts items, all or none. OK; FULL: no room for all, or senders behind hubs wait for some; CLOSED: a
 * side is closed, or it is deleted; LIMIT: an item over 1 GiB or a context over 65 535 bytes, or (durable)
 * all of them over KLAW_REMOTE_DURABLE_MAX; BACKEND: klaw_broker_fail; NOMEM.
 * Attachments are taken over on OK only. FULL: unless the first item has KLAW_REMOTE_NOWAIT the caller is
 * expected to try again, or to say klaw_broker_unblock: a place is kept for such callers in turn with
 * senders behind hubs, and when its turn has come the room, for a while.
 * Of the other flags KLAW_REMOTE_REFERENCE alone counts. */
KLAW_API KLAW_MUST klaw_err klaw_broker_put(klaw_broker *b, int64_t now, int64_t real_now,
                                            const klaw_remote_item *items, size_t n);
/* Nobody tries klaw_broker_put again after its last FULL: gives up the place in the line, which would
 * hold up everybody behind it. */
KLAW_API void klaw_broker_unblock(klaw_broker *b, int64_t now);
/* Takes the oldest item out; it counts as received. OK; EMPTY; CLOSED: empty and no sender is left;
 * BACKEND: klaw_broker_fail; NOMEM. *out: data, context and attachment are owned by the caller (data
 * and context in one block: klaw_remote_free(out->data)). reader: whose statistics it counts in, "" for nobody's; BROADCAST and
 * WATCH: whose copy; NOT_FOUND: no such reader. LAGGED (BROADCAST): *missed were dropped, told once. */
KLAW_API KLAW_MUST klaw_err klaw_broker_get(klaw_broker *b, int64_t now, int64_t real_now,
                                            const char *reader, klaw_remote_item *out,
                                            uint64_t *missed);
/* The newest value without taking it (WATCH). EMPTY: none yet, or past its deadline. *out as of klaw_broker_get, but the
 * attachment is only lent. */
KLAW_API KLAW_MUST klaw_err klaw_broker_borrow(klaw_broker *b, klaw_remote_item *out);
/* For klaw_broker_seek: count from the end. */
#define KLAW_BROKER_END UINT64_MAX
/* The items that wait, oldest first, without taking them (QUEUE): *cursor is NULL for the first one, and is
 * moved on; valid until the broker is called otherwise. EMPTY: no (further) one; NOMEM. *out as of
 * klaw_broker_borrow. */
KLAW_API KLAW_MUST klaw_err klaw_broker_peek(klaw_broker *b, void **cursor, klaw_remote_item *out);
/* Sets *cursor so that klaw_broker_peek goes on with the first item whose place is over `after`; KLAW_BROKER_END:
 * with the first of the last `most` items. */
KLAW_API void klaw_broker_seek(const klaw_broker *b, uint64_t after, size_t most, void **cursor);
/* One anonymous endpoint more. CLOSED: that side is closed for good. EXISTS: a reader of that name.
 * reader: for a RECEIVER its name; node: where it is; both copied, at most 255 bytes. */
KLAW_API KLAW_MUST klaw_err klaw_broker_register(klaw_broker *b, int64_t now, klaw_remote_side side,
                                                 const char *reader, const char *node);
/* One less; the last endpoint of a side closes it (W8). NOT_FOUND: there was none. */
KLAW_API klaw_err klaw_broker_deregister(klaw_broker *b, int64_t now, klaw_remote_side side,
                                         const char *reader);

/* --- the journal of a durable broker --- */

/* What has happened since the last call of this: bytes to append to the log as one transaction, with
 * the mark to report when that is done. Of very much it gives a part (over 64 MiB only what can't be
 * parted): call it until it says false, append in this order; what waits for the disk waits for the
 * last of them. false: nothing, or no memory (klaw_broker_deadline is near
 * then: ask again after the tick). The blob is the caller's (klaw_remote_free). */
KLAW_API bool klaw_broker_journal(klaw_broker *b, void **data, size_t *size, uint64_t *mark);
/* Everything up to that mark is on disk. */
KLAW_API void klaw_broker_committed(klaw_broker *b, uint64_t mark);
/* The journal can't be written (any more). From now on every call is answered with `why` (copied, at most
 * 255 bytes), and so are parked ones and those whose answers wait for the disk: their hubs are broken
 * with that message, unconfirmed sends stay unconfirmed. klaw_broker_put and klaw_broker_get answer
 * BACKEND. What is on disk stays there for the next start. */
KLAW_API void klaw_broker_fail(klaw_broker *b, int64_t now, const char *why);
/* The whole state, to begin the log anew with: in the place of all that was journalled, also of what
 * klaw_broker_journal gave out just before and is not in the log. Nothing older may be appended behind
 * it. NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_broker_snapshot(klaw_broker *b, void **data, size_t *size);
/* Reads a snapshot, then each log record in order, into a new broker, before its first call. CORRUPT:
 * the bytes are not whole; INVALID: of another channel or kind; NOMEM. After an error it is of no use
 * but for klaw_broker_free: begin again with a new one. */
KLAW_API KLAW_MUST klaw_err klaw_broker_restore(klaw_broker *b, const void *snapshot, size_t size);
/* As above. */
KLAW_API KLAW_MUST klaw_err klaw_broker_replay(klaw_broker *b, const void *record, size_t size);

/* --- looking in --- */

/* What a broker knows. */
typedef struct klaw_broker_stats {
    uint64_t senders;        /* open endpoints, tokens included */
    uint64_t receivers;      /* open endpoints, tokens included */
    uint64_t queued;         /* items that wait */
    uint64_t leased;         /* items that are delivered and not acknowledged */
    uint64_t high_watermark; /* the most that ever waited */
    uint64_t total_sent;     /* items accepted, voids aside */
    uint64_t total_received; /* items acknowledged (BROADCAST, WATCH: delivered) */
    uint64_t redelivered;    /* deliveries that were marked */
    uint64_t duplicates;     /* items that came again and were dropped */
    uint64_t expired;        /* items dropped past their deadline */
    uint64_t lost;           /* a lower bound of what no restart could bring back (W27) */
    uint64_t missed;         /* dropped before a slow receiver had them (BROADCAST) */
    uint64_t clients;        /* processes attached */
    uint64_t parked;         /* polls that wait */
    uint64_t bytes;          /* of payloads held */
    int64_t capacity;        /* KLAW_NONE: no bound */
    int64_t oldest_ns;       /* age of the oldest item by its sent_at, 0: none */
    uint64_t boot;           /* of this start */
    bool senders_closed;     /* no more can be sent */
    bool receivers_closed;   /* nobody will receive */
    bool deleted;            /* klaw_broker_delete */
    bool gathering;          /* restarted, and clients may still report (W27) */
} klaw_broker_stats;

/* Fills *out. */
KLAW_API void klaw_broker_look(const klaw_broker *b, int64_t real_now, klaw_broker_stats *out);

/* One open receiver. Strings are borrowed for the visit. */
typedef struct klaw_broker_reader {
    const char *reader; /* its name: that of klaw_broker_register, or 32 hex digits and a number */
    const char *node;   /* where it is */
    int64_t registered_at;   /* ns of the broker's clock */
    int64_t last_seen_at;    /* ns of the broker's clock: its last item or its client's last call */
    uint64_t total_received; /* items it acknowledged */
} klaw_broker_reader;

/* Visits each open receiver; a visit that returns false ends it. */
KLAW_API void klaw_broker_readers(const klaw_broker *b,
                                  bool (*visit)(void *user, const klaw_broker_reader *r),
                                  void *user);

KLAW_END

#endif
