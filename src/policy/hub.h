/* SPDX-License-Identifier: Apache-2.0 */
/* hub.h - the hub's insides, shared by its files. Rules Wn: docs/ray-protocol.md.
 *
 *   hub.c        life, endpoints, tokens, events, clock
 *   hub_send.c   items that go out: tickets, numbers, what is kept for resends
 *   hub_recv.c   items that came in: leases, acknowledgements, what was received of whom
 *   hub_call.c   the calls that have to be made
 *   hub_reply.c  their answers
 *
 * Invariants:
 *   H1  Each ticket has exactly one event, or was withdrawn; there is room for it in the queue of
 *       events from the moment its send was taken.
 *   H2  Items base … framed have numbers and stand in `kept` until they are acknowledged (W15);
 *       those behind them have none and stand in `unsent`, in the order of their sends (W4).
 *   H3  there <= pushed <= framed; pushed goes back to `there` when all that was under way has
 *       been answered and something is missing (W10).
 *   H4  A lease is READY (nobody has it), HELD (a consumer has), or gone; its acknowledgement stands
 *       in `acks` or in a call until that call is answered. There is always room for it.
 *   H5  At most one ATTACH or DETACH, one POLL and one RENEW are under way (W16), and in_flight
 *       PUSHes (W9). A call that failed is made again with the same number. */
#ifndef KLAWI_POLICY_HUB_H
#define KLAWI_POLICY_HUB_H

#include "base/alloc.h"
#include "base/link.h"
#include "klaw/hub.h"
#include "policy/mutant.h"
#include "policy/wire.h"

/* Ranges of received numbers that are remembered of one sender. */
#define KLAWI_HUB_RANGES 1024

/* A poll with little to ask for waits that long after the last one. */
#define KLAWI_HUB_CALM_NS 5000000
/* Acknowledgements wait that long for a poll to go with, then a renewal tells them. */
#define KLAWI_HUB_ACK_NS 20000000
/* Items that came for receivers who do not ask any more go back after that (W18). */
#define KLAWI_HUB_IDLE_NS INT64_C(1000000000)

/* Bytes that are worth a frame beside those under way. */
#define KLAWI_HUB_WORTH ((uint64_t)192 << 10)
/* Bytes of items that a broker gives in an answer when it is not told. */
#define KLAWI_HUB_ANSWER ((uint32_t)92 << 10)

/* What was received of a sender is remembered that long after the last of it: so long a broker knows who
 * is gone (W25), and would take nothing of it again. */
#define KLAWI_HUB_REMEMBER_NS INT64_C(600000000000)

/* Memory for payloads; each item in it counts one. */
typedef struct klawi_chunk {
    uint32_t refs;
    size_t used, size;
    unsigned char data[];
} klawi_chunk;

typedef struct klawi_ticket {
    struct klawi_ticket *next; /* in the table, or the free list */
    uint64_t number;
    uint32_t n, left, refused,
        unsent;  /* items: all, without an outcome, refused, without a number */
    uint64_t at; /* its first place in `unsent` */
    bool gone;   /* withdrawn or told */
} klawi_ticket;

struct klawi_hub_endpoint;

typedef struct klawi_hub_item {
    klawi_chunk *chunk;
    const unsigned char *data; /* context, then payload */
    size_t size;
    int64_t sent_at, deadline;
    void *attachment;
    klawi_ticket *ticket; /* NULL: nobody asks any more */
    struct klawi_hub_endpoint *from;
    uint32_t context_size;
    uint32_t flags;
    uint8_t codec;
    bool dropped; /* withdrawn before it had a number */
} klawi_hub_item;

/* A ring of items; numbers [first, next). */
typedef struct klawi_item_ring {
    klawi_hub_item *at;
    uint64_t mask, first, next;
} klawi_item_ring;

typedef struct klawi_hub_endpoint {
    uint64_t id;
    klaw_remote_side side;
    bool closing;      /* a sender whose items are not all numbered */
    uint64_t unsent;   /* items in `unsent` */
    int64_t waiting;   /* receivers */
    uint64_t received; /* acknowledged */
    /* not QUEUE: */
    uint64_t got;        /* of this boot */
    uint64_t head, tail; /* ready leases; 0: none */
    uint64_t ready;
    bool ended, told; /* told: an ITEMS event is queued */
    bool told_lost;
} klawi_hub_endpoint;

enum klawi_lease_state { KLAWI_HUB_NONE, KLAWI_HUB_READY, KLAWI_HUB_HELD };

struct klawi_origin;

typedef struct klawi_hub_lease {
    klawi_frame *frame;
    const unsigned char *body;
    struct klawi_origin *from;
    uint64_t seq, endpoint, missed;
    uint64_t next; /* ready one; 0: none */
    void *attachment;
    int64_t deadline;
    uint32_t body_size, flags;
    enum klawi_lease_state state;
} klawi_hub_lease;

/* What one endpoint (QUEUE: all) had of a sender. */
typedef struct klawi_had {
    uint64_t endpoint;
    klawi_ranges seqs; /* all */
    klawi_ranges done; /* made of the former when it is told: without what is live */
    uint64_t live;     /* of them READY or HELD */
} klawi_had;

/* A client whose items came here. */
typedef struct klawi_origin {
    klawi_id_node id; /* first: the map's */
    struct klawi_origin *next;
    uint64_t base;
    klawi_had *had;
    size_t n_had;
    uint64_t live;   /* leases that point here */
    int64_t seen_at; /* something of it came, or was let go */
    uint64_t at;     /* in a table that is being written */
} klawi_origin;

typedef struct klawi_nack {
    uint64_t lease;
    bool seen;
} klawi_nack;
typedef struct klawi_nacks {
    klawi_nack *at;
    size_t n, room;
} klawi_nacks;

typedef struct klawi_hub_token {
    unsigned char id[KLAW_REMOTE_ID];
    klaw_remote_side side;
    bool claimed;
    bool known;      /* the broker of this boot has answered */
    uint64_t number; /* of the attach that told */
    int64_t at;      /* claimed: when; else when it was stated last */
} klawi_hub_token;

enum klawi_slot_state { KLAWI_SLOT_FREE, KLAWI_SLOT_OUT, KLAWI_SLOT_AGAIN };

/* A call under way. */
typedef struct klawi_slot {
    enum klawi_slot_state state;
    klaw_hub_call_kind kind;
    uint64_t id, number;
    uint64_t first, last; /* PUSH: items */
    int64_t at, delay;    /* AGAIN: when; and the next pause */
    klawi_ranges acks;    /* POLL, RENEW, DETACH: what it tells */
    klawi_nacks nacks;
} klawi_slot;

struct klaw_hub {
    klaw_hub_opts opts; /* defaults filled in; type and node owned */
    int64_t now;

    /* endpoints */
    klawi_hub_endpoint **endpoints; /* by id */
    size_t n_endpoints, endpoints_room;
    uint64_t endpoint_ids;
    klawi_hub_endpoint queue; /* QUEUE: where all is ready */
    klawi_hub_token *tokens;
    size_t n_tokens, tokens_room, n_claimed;
    int64_t tokens_at;     /* when one of them is due, or earlier */
    uint64_t tokens_ended; /* of those minted here, as the broker has told */

    /* standing */
    bool wanted, attached, resume, opened, expired, detaching, left, deleted, broken;
    bool sealed; /* no_senders, but this boot takes what an earlier one had */
    bool no_senders, no_receivers, told_no_receivers, empty, full, durable;
    uint32_t heard;
    uint64_t heard_stamp, heard_orphans;
    bool changed; /* endpoints or tokens, since the last attach */
    uint64_t boot, stamp;
    int64_t capacity, lease_ns, token_ns;
    klaw_remote_ack ack;
    char trouble[256];
    bool took;     /* the attachments of the answer at hand */
    uint64_t lost; /* not told yet */
    uint64_t lost_boot;

    /* calls */
    uint64_t ids, number, poll, update;
    klawi_slot attach, polling, renew, *push;
    int64_t renew_at, poll_at, poll_not_before, ack_at;
    uint64_t told_limit;
    uint32_t answer; /* bytes that the next poll asks for at most; 0: it does not say */
    int64_t sent_at[2], rtt;

    /* sending */
    klawi_item_ring unsent, kept; /* kept: by seq */
    uint64_t framed, pushed, accepted;
    uint64_t there;   /* accepted by this boot */
    uint64_t earlier; /* up to that an earlier boot may have accepted */
    uint64_t room;    /* what was granted; 0: nothing known */
    uint64_t unsent_bytes, kept_bytes;
    uint64_t items_held; /* in `unsent` and `kept` without those that are dropped */
    bool want_room;
    bool head_void; /* the first that is not accepted was withdrawn: the broker is to hear (W12) */
    klawi_chunk *chunk;
    klawi_ticket **tickets, *free_tickets;
    size_t ticket_slots;
    uint64_t n_tickets;

    /* receiving */
    klawi_hub_lease *leases;
    uint64_t lease_mask, lease_base, lease_next;
    uint64_t live, ready, held;
    klawi_id_map origin_map;
    klawi_origin *origins;
    uint64_t n_origins;
    int64_t forget_at; /* when to look for those that can be forgotten */
    klawi_ranges acks;
    klawi_nacks nacks;
    uint64_t taken, taken_at[2]; /* items consumed; at the last two polls */
    int64_t idle_since;          /* the last item came, or was taken */
    int64_t polled_at[2];

    /* events */
    klaw_hub_event *events;
    uint64_t event_mask, event_first, event_next;
};

/* hub.c */
klawi_hub_endpoint *klawi_hub_endpoint_find(const klaw_hub *h, uint64_t id);
/* Room for n events more than are promised. */
bool klawi_hub_events_reserve(klaw_hub *h, uint64_t n);
void klawi_hub_event(klaw_hub *h, klaw_hub_event_kind kind, uint64_t ticket, uint64_t endpoint);
/* Something for the waiting receivers of e (QUEUE: NULL). */
void klawi_hub_items_event(klaw_hub *h, klawi_hub_endpoint *e);
/* To all receivers. */
void klawi_hub_wake_all(klaw_hub *h);
void klawi_hub_break(klaw_hub *h, const char *format, const char *detail);
void klawi_hub_endpoint_drop(klaw_hub *h, klawi_hub_endpoint *e);
/* Those minted here are to be stated anew (W7). */
void klawi_hub_tokens_restate(klaw_hub *h);
/* A minted one has ended. */
void klawi_hub_token_drop(klaw_hub *h, const unsigned char *id);
/* How often the lease is renewed (W24): three times in it. */
static inline int64_t klawi_hub_renew_ns(const klaw_hub *h) {
    int64_t third = h->lease_ns / 3;
    bool learnt = third > 0 && !KLAWI_POLICY_MUTANT(LEASE_UNLEARNT);
    return learnt && third < h->opts.renew_ns ? third : h->opts.renew_ns;
}

/* hub_send.c */
/* Numbers the next unit of unsent items; 0: there is none. Memory was reserved. */
uint64_t klawi_hub_number(klaw_hub *h, uint64_t most);
/* Forgets what was withdrawn before the first that was not. */
void klawi_hub_unsent_skip(klaw_hub *h);
bool klawi_hub_kept_reserve(klaw_hub *h, uint64_t n);
/* What an answer says of accepted, refused and finished items. */
void klawi_hub_confirm(klaw_hub *h, uint64_t accepted, const klawi_ranges *refused, uint64_t done,
                       const klawi_ranges *more_done);
/* Ends every ticket: those without a number by `unsent`, the others by `framed`. */
void klawi_hub_fail_sends(klaw_hub *h, klaw_hub_event_kind unsent, klaw_hub_event_kind framed);
/* A new identity: what was numbered is forgotten. */
void klawi_hub_numbers_reset(klaw_hub *h);
/* A new boot: what is kept was sent before. */
void klawi_hub_numbers_resume(klaw_hub *h);
void klawi_hub_send_free(klaw_hub *h);
static inline klawi_hub_item *klawi_hub_kept(const klaw_hub *h, uint64_t seq) {
    return &h->kept.at[seq & h->kept.mask];
}

/* hub_recv.c */
/* Items of an answer to a poll; attachments are taken over on OK. */
klaw_err klawi_hub_items(klaw_hub *h, klawi_in *in, const void *data, size_t size,
                         void *const *attachments, size_t attached);
/* How many items may come in all (W18), to e or (QUEUE) to any. */
uint64_t klawi_hub_limit(const klaw_hub *h, const klawi_hub_endpoint *e);
/* Forgets the leases: they went to others (W24). */
void klawi_hub_leases_drop(klaw_hub *h);
/* Forgets what that endpoint had (not QUEUE); none of it is live. */
void klawi_hub_had_forget(klaw_hub *h, uint64_t endpoint);
/* Forgets senders of whom nothing has come for long. */
void klawi_hub_origins_tick(klaw_hub *h);
void klawi_hub_receiver_close(klaw_hub *h, klawi_hub_endpoint *e);
/* When what nobody here wants any more goes back (W18); INT64_MAX: there is nothing. */
int64_t klawi_hub_idle_at(const klaw_hub *h);
/* Gives it back. */
void klawi_hub_idle_return(klaw_hub *h);
/* Room for an end of each live lease (H4). */
bool klawi_hub_acks_reserve(klaw_hub *h, uint64_t more);
void klawi_hub_recv_free(klaw_hub *h);

/* hub_call.c */
void klawi_slot_reset(klawi_slot *s);
void klawi_hub_slots_reset(klaw_hub *h);
bool klawi_hub_push_idle(const klaw_hub *h);
/* The last number that the broker has to accept yet: once the channel is closed, the last one that
 * was accepted (a broker that starts anew has to have it again); after its receivers, none. */
static inline uint64_t klawi_hub_through(const klaw_hub *h) {
    if (h->no_receivers || (h->no_senders && !h->sealed))
        return h->there;
    return h->no_senders ? h->accepted : h->framed;
}
/* It leaves, and has nothing to hear any more. */
static inline bool klawi_hub_poll_over(const klaw_hub *h) {
    return h->detaching && klawi_hub_push_idle(h) && !h->full;
}

static inline bool klawi_hub_over(const klaw_hub *h) {
    return h->broken || h->deleted || h->left;
}

#endif
