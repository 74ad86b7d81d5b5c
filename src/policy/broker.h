/* SPDX-License-Identifier: Apache-2.0 */
/* broker.h - the broker's insides, shared by its files. Rules Wn: docs/ray-protocol.md.
 *
 *   broker.c         life, calls in, answers out, time, statistics
 *   broker_peer.c    clients: attach, endpoints, tokens, sides, death, what they reported of a boot
 *   broker_queue.c   items: nodes, the queue, the log, leases, done windows
 *   broker_push.c    frames in: duplicates, stash, room, batches
 *   broker_poll.c    items out: polls, credits, acknowledgements
 *   broker_local.c   put, get and register without a hub
 *   broker_journal.c the log of a durable broker
 *
 * Invariants:
 *   K1  A call takes all the memory it may need before its first effect: NOMEM leaves no trace.
 *       What a call does for others (answers to parked polls) is tried again when memory is short.
 *   K2  QUEUE: a node is in the queue, or in exactly one lease, or in a stash; the queue is ordered
 *       by `pos`, so that what comes back stands where it stood (W21).
 *   K3  Of each client all seqs below `next` were accepted once; those up to `done` are finished,
 *       and above it those whose bit is set.
 *   K4  open[side] is the sum of what clients, tokens and anonymous endpoints count for.
 *   K5  fresh + reserved never exceed the capacity but by what came back or was there at a restart.
 *   K6  Every ticket is answered exactly once. */
#ifndef KLAWI_POLICY_BROKER_H
#define KLAWI_POLICY_BROKER_H

#include "base/alloc.h"
#include "base/link.h"
#include "klaw/broker.h"
#include "policy/mutant.h"
#include "policy/wire.h"

/* Frames of one client that wait for an earlier one (W10). */
#define KLAWI_STASH 8
/* Bytes of items in one answer, about: Ray sends up to 100 KiB along with an answer. */
#define KLAWI_ANSWER_BYTES ((size_t)92 << 10)
/* Acknowledgements are told to a sender that polls so long after the first, together, unless an
 * answer to its pushes has told them. */
#define KLAWI_LAZY_NS 20000000
/* Room that was offered and not used goes on to the next one after that. */
#define KLAWI_GRANT_NS INT64_C(1000000000)
/* Leases of one client span at most that many numbers. */
#define KLAWI_SPAN ((uint64_t)1 << 20)

typedef struct klawi_peer klawi_peer;

/* An item that was accepted (or waits in a stash). */
typedef struct klawi_node {
    struct klawi_node *next, *prev; /* in the queue; stash and free list: next */
    klawi_frame *frame;
    const unsigned char *body; /* in the frame: as on the wire */
    klawi_peer *from;
    uint64_t seq, pos, mark; /* mark: of the journal, when it was accepted */
    int64_t deadline, sent_at;
    void *attachment;
    uint32_t body_size, payload;
    uint32_t flags;   /* public ones */
    uint32_t holders; /* leases, and one for the log */
    uint32_t readers; /* BROADCAST: endpoints that have not had it */
    bool counted;     /* takes room (W21) */
    bool attached;
} klawi_node;

/* A delivery that is not acknowledged. Empty: node and from are NULL. */
typedef struct klawi_lease {
    klawi_node *node;
    klawi_peer *from; /* a claim of an earlier boot whose item has not come again: whose, */
    uint64_t seq;     /* and which (W27); else what was missed before it (BROADCAST) */
    uint64_t endpoint;
} klawi_lease;

/* An open receiver. */
typedef struct klawi_endpoint {
    uint64_t id;
    uint64_t cursor;           /* BROADCAST: next pos; WATCH: pos of the last value had */
    uint64_t missed;           /* not told yet */
    uint64_t limit, delivered; /* credits: their difference (W18) */
    uint64_t received;
    int64_t registered_at, seen_at;
    char *name, *node; /* anonymous ones */
    bool ended;        /* nothing more will come */
    bool told;         /* in an answer to a poll */
} klawi_endpoint;

typedef struct klawi_stashed {
    uint64_t first, count;
    klawi_node *chain;
} klawi_stashed;

enum klawi_peer_state {
    KLAWI_PEER_ABSENT, /* known of an earlier boot, or by hearsay */
    KLAWI_PEER_ALIVE,
    KLAWI_PEER_DEAD, /* W23, W24 */
    KLAWI_PEER_LEFT  /* W30 */
};

/* A claim of an earlier boot: item `seq` of the peer it stands at is held by `holder` (W27). */
typedef struct klawi_claim {
    uint64_t seq, lease;
    klawi_peer *holder;
} klawi_claim;

/* A client. */
struct klawi_peer {
    klawi_id_node id; /* first: the map's */
    enum klawi_peer_state state;
    klawi_link age;  /* alive: by last call; else: by the time it ended */
    int64_t seen_at; /* last call; else when it ended */
    uint64_t number; /* of the last attach (W5) */
    bool resumed;
    char *node;

    /* sending */
    uint64_t next, done;
    uint64_t confirmed; /* by an earlier boot */
    uint64_t *bits;     /* bit seq & mask: done */
    uint64_t mask;
    uint64_t tell_from;   /* where the next answer goes on telling what is finished; 0: at `done` */
    bool untold;          /* something there or behind it is not told yet, */
    bool untold_below;    /* or before it: on the next way through */
    klawi_ranges refused; /* made void (W13), until the hub has dropped them */
    klawi_stashed stash[KLAWI_STASH];
    uint32_t stashed;
    uint64_t through; /* its closed senders count until that is accepted (W6) */
    uint64_t *senders;
    size_t n_senders;
    uint64_t base; /* what the hub has let go */
    klawi_link blocked;
    bool is_blocked; /* in `blocked` */
    bool is_granted; /* in `granted` */
    uint64_t need, grant;
    uint32_t unused; /* grants in a row that were not used */
    int64_t grant_until;
    uint64_t nodes; /* that point here */
    uint64_t queued;
    klawi_ranges had; /* seqs that receivers of an earlier boot had and are done with */
    klawi_claim *claims;
    size_t n_claims, claims_room;

    /* receiving */
    klawi_endpoint *receivers;
    size_t n_receivers;
    uint64_t limit, delivered; /* QUEUE: credits */
    uint64_t stamp;            /* of the last update (W18) */
    size_t answer;             /* bytes of items its poll may be answered with; 0: not told */
    klawi_lease *leases;
    uint64_t lease_mask, lease_base, lease_next; /* numbers [base, next) */
    uint64_t held;                               /* of them not empty */
    uint64_t poll;                               /* last number (W17) */
    uint64_t poll_from, poll_to;                 /* leases in its answer */
    bool parked, polled;
    uint64_t ticket;
    int64_t parked_at;
    klawi_link park;
    klawi_link hungry;
    bool is_hungry;
    klawi_link news;
    int64_t news_at;       /* 0: not linked */
    bool urgent;           /* its poll is to be answered at once */
    uint64_t drained;      /* which end of the queue it was told of, or will be */
    uint64_t tokens_ended; /* of those it had minted */

    uint64_t counted[2]; /* what it stands for in open[] */
    bool unsettled;      /* of it: items sent before a close are not accepted */
    uint64_t table;      /* which answer's client table it is in */
    uint64_t table_at;
};

typedef struct klawi_token {
    klawi_id_node id;
    klawi_link link; /* open or ended, by time */
    klawi_peer *owner;
    int64_t at;
    klaw_remote_side side;
    bool open;
} klawi_token;

typedef struct klawi_answer {
    klawi_link link;
    uint64_t mark;
    klaw_broker_answer a;
} klawi_answer;

struct klaw_broker {
    klaw_broker_opts opts; /* with defaults filled in; `type` owned */
    int64_t now, real_now;
    uint64_t stamp, tickets, tables;
    klawi_id_map peers, tokens;
    klawi_link alive, gone; /* peers */
    klawi_link open_tokens, ended_tokens;
    klawi_link parked, hungry, blocked, granted, news, answers;
    uint64_t n_parked, n_blocked, n_alive;
    klawi_peer *anonymous;
    klawi_node *free_nodes;
    uint64_t n_free;

    klawi_node *head, *tail; /* QUEUE */
    uint64_t queued, fresh, reserved, leased, holders;
    klawi_node **log; /* BROADCAST: [log_first, log_next) by pos; WATCH: *latest */
    uint64_t log_mask, log_first, log_next;
    klawi_node *latest;
    uint64_t pos;
    uint64_t bytes, live; /* of payloads; nodes accepted and not finished */
    uint32_t readers;     /* endpoints that receive */
    uint64_t orphans;     /* queued, of clients that are gone */
    int64_t first_deadline, scan_at;

    uint64_t open[2];
    uint64_t unsettled;                  /* clients */
    bool opened[2], heard[2], closed[2]; /* heard: opened in an earlier boot */
    bool sealed; /* its senders were closed in an earlier boot; what was sent comes again */
    bool deleted, gathering, short_of_memory, failed;
    char trouble[256];                /* why it has failed */
    uint64_t drains, told_drained;    /* ends of the queue after its senders' */
    int64_t gather_until, hold_until; /* set by the first call or tick */
    bool started;
    uint64_t heard_stamp, heard_orphans;

    klawi_out journal;
    klawi_peer *journal_peer;
    uint64_t mark, committed;
    bool replaying;

    uint64_t high, sent, received, redelivered, duplicates, expired, lost, missed;
};

/* broker_peer.c */
klawi_peer *klawi_peer_new(klaw_broker *b, const unsigned char *id);
/* That of an identity, made (absent) when it is not known; NULL: no memory. */
klawi_peer *klawi_peer_known(klaw_broker *b, const unsigned char *id);
/* Frees it for good; it is in no map. */
void klawi_peer_free(klaw_broker *b, klawi_peer *p);
klaw_err klawi_peer_attach(klaw_broker *b, const klawi_wire_call *c, klawi_in *in, uint64_t ticket);
/* It is gone: drops endpoints and polls, gives leases back (W23, W30). seen: up to that lease its
 * hub had received. */
void klawi_peer_end(klaw_broker *b, klawi_peer *p, enum klawi_peer_state state, uint64_t seen);
/* An endpoint begins; all: it gets what there is, too (BROADCAST). */
void klawi_endpoint_open(klaw_broker *b, klawi_endpoint *e, uint64_t id, bool all);
/* It ends: what it has not had is not kept for it any more. */
void klawi_endpoint_close(klaw_broker *b, klawi_endpoint *e);
/* Counts its endpoints anew (K4). */
void klawi_peer_count(klaw_broker *b, klawi_peer *p);
void klawi_side_count(klaw_broker *b, klaw_remote_side side, int64_t delta);
/* Closes sides that are empty (W8), ends tokens, forgets what is long gone. */
void klawi_sides_settle(klaw_broker *b);
void klawi_tokens_due(klaw_broker *b);
void klawi_peers_due(klaw_broker *b);
/* Changes its state, and with it the orphans. */
void klawi_peer_state_set(klaw_broker *b, klawi_peer *p, enum klawi_peer_state state);
static inline bool klawi_peer_gone(const klawi_peer *p) {
    return p->state == KLAWI_PEER_DEAD || p->state == KLAWI_PEER_LEFT;
}

/* broker_queue.c */
bool klawi_nodes_reserve(klaw_broker *b, uint64_t n);
klawi_node *klawi_node_take(klaw_broker *b);
/* Gives frame and attachment back, and the node. It is nowhere. */
void klawi_node_drop(klaw_broker *b, klawi_node *n);
/* Room for the bits of `more` seqs from next on. */
bool klawi_done_reserve(klawi_peer *p, uint64_t more);
/* That seq is finished (K3). */
void klawi_done(klaw_broker *b, klawi_peer *p, uint64_t seq);
bool klawi_is_done(const klawi_peer *p, uint64_t seq);
/* Room in log or journal for n items of `bytes`. */
bool klawi_queue_reserve(klaw_broker *b, uint64_t n, size_t bytes);
/* Takes an accepted item in: queue, log or latest value. */
void klawi_queue_add(klaw_broker *b, klawi_node *n);
/* Puts one back where it stood; `hint` is where the last one went, or NULL. */
void klawi_queue_return(klaw_broker *b, klawi_node *n, klawi_node **hint);
void klawi_queue_unlink(klaw_broker *b, klawi_node *n);
/* It is finished: tells its sender's window. */
void klawi_node_finish(klaw_broker *b, klawi_node *n);
/* One holder less (BROADCAST, WATCH). */
void klawi_node_release(klaw_broker *b, klawi_node *n);
/* Drops the log's oldest, or what every reader has had. */
void klawi_log_trim(klaw_broker *b);
/* The first that can be delivered (QUEUE), expired ones dropped; NULL: none. */
klawi_node *klawi_queue_front(klaw_broker *b);
bool klawi_node_late(const klaw_broker *b, const klawi_node *n);
/* Drops what is past its deadline, when that is due. */
void klawi_queue_due(klaw_broker *b);
/* Room for `more` leases. */
bool klawi_leases_reserve(klawi_peer *p, uint64_t more);
static inline klawi_lease *klawi_lease_at(const klawi_peer *p, uint64_t number) {
    return &p->leases[number & p->lease_mask];
}
/* Empties a lease: acknowledged, or (back) returned. */
enum klawi_lease_end { KLAWI_LEASE_ACK, KLAWI_LEASE_SEEN, KLAWI_LEASE_UNSEEN };
void klawi_lease_end(klaw_broker *b, klawi_peer *p, uint64_t number, enum klawi_lease_end how,
                     klawi_node **hint);
/* A node becomes p's under a number that is free. */
void klawi_lease_put(klaw_broker *b, klawi_peer *p, uint64_t number, klawi_node *n);
/* Nothing more will come to p (QUEUE). */
bool klawi_drained_for(const klaw_broker *b, const klawi_peer *p);

/* broker_push.c */
klaw_err klawi_push(klaw_broker *b, klawi_peer *p, klawi_in *in, const void *data, size_t size,
                    void *const *attachments, size_t attached, uint64_t ticket);
/* Room that is free, for nobody in particular. */
int64_t klawi_room(const klaw_broker *b);
void klawi_grant(klaw_broker *b);
void klawi_grants_due(klaw_broker *b);
/* Whether n items of p have room; takes it. */
bool klawi_push_room(klaw_broker *b, klawi_peer *p, uint64_t n);
/* p waits for room for n, behind those that do already. */
void klawi_push_block(klaw_broker *b, klawi_peer *p, uint64_t n);
/* Takes it out of the lists of those that wait for room. */
void klawi_unblock(klaw_broker *b, klawi_peer *p);
void klawi_stash_drop(klaw_broker *b, klawi_peer *p);

/* broker_poll.c */
klaw_err klawi_poll(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, klawi_in *in,
                    uint64_t ticket);
klaw_err klawi_renew(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, klawi_in *in,
                     uint64_t ticket);
/* Answers its parked poll without items. false: no memory. */
bool klawi_poll_release(klaw_broker *b, klawi_peer *p, uint64_t delay_ms);
/* Its parked poll, answered that the call is old. */
void klawi_poll_forget(klaw_broker *b, klawi_peer *p);
void klawi_polls_due(klaw_broker *b);
/* Gives what there is to those that wait. */
void klawi_serve(klaw_broker *b);
/* The client p is to hear something: at once, or with what else comes. */
void klawi_news(klaw_broker *b, klawi_peer *p, bool urgent);
/* An answer has just told p's acknowledgements: its poll need not. */
void klawi_news_told(klawi_peer *p);

/* broker.c */
/* Begins an answer. */
void klawi_answer_head(klaw_broker *b, klawi_out *o, enum klawi_wire_status status);
/* What every answer to an attached client says (W11). */
void klawi_answer_common(klaw_broker *b, klawi_out *o, klawi_peer *p);
/* Bytes that suffice for head and common part. */
static inline size_t klawi_answer_room(const klawi_peer *p) {
    return 2048 + 20 * p->refused.n;
}
/* What the channel is (W5). */
void klawi_answer_describe(klaw_broker *b, klawi_out *o);
/* An answer without contents yet; NULL: no memory. */
klawi_answer *klawi_answer_new(void);
/* Seals and queues it. false: no memory, all freed. Attachments are the answer's. */
bool klawi_answer_send(klaw_broker *b, klawi_answer *a, klawi_out *o, uint64_t ticket,
                       void **attachments, size_t attached);
/* A whole answer of a status and, if p, the common part. false: no memory. */
bool klawi_answer_status(klaw_broker *b, enum klawi_wire_status status, klawi_peer *p,
                         uint64_t ticket);
static inline void klawi_broker_drop(const klaw_broker *b, void *attachment) {
    if (attachment && b->opts.drop)
        b->opts.drop(attachment);
}

/* broker_journal.c: each notes one thing, for which room was reserved; there is always room to note
 * the end of each live node. */
bool klawi_journal_reserve(klaw_broker *b, uint64_t things, size_t bytes);
void klawi_journal_item(klaw_broker *b, const klawi_node *n);
void klawi_journal_void(klaw_broker *b, klawi_peer *p, uint64_t seq, bool refused);
void klawi_journal_done(klaw_broker *b, klawi_peer *p, uint64_t seq);
void klawi_journal_next(klaw_broker *b, klawi_peer *p);
void klawi_journal_flags(klaw_broker *b);

#endif
