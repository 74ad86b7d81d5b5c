/* SPDX-License-Identifier: Apache-2.0 */
/* remote.h - the remote kind of channel, as its two halves share it: the endpoints (remote.c), on
 * whatever host they are used, and the thread that drives the hub (remote_serve.c).
 *
 * Field marks: (c) constant, (L) the channel's lock, (t) the channel's thread alone. */
#ifndef KLAWI_REMOTE_H
#define KLAWI_REMOTE_H

#include "klaw/transport.h"
#include "sync/chan.h"

/* What is to become of a delivery when its consumer, or the channel, is through with it. */
enum klawi_fate { KLAWI_ACK, KLAWI_RETURN_SEEN, KLAWI_RETURN_UNSEEN };

/* One element that has arrived, or an error in the place of one. */
typedef struct klawi_delivery {
    struct klawi_delivery *next;
    klaw_err err;    /* OK, or what its receive answers */
    uint64_t missed; /* LAGGED */
    bool leased;     /* the hub waits to hear of it */
    bool full;       /* elem has an element that nobody has moved out */
    enum klawi_fate fate;
    klaw_remote_delivery about;
    _Alignas(max_align_t) unsigned char elem[];
} klawi_delivery;

/* A list, first in first out. */
typedef struct klawi_deliveries {
    klawi_delivery *first, **last;
    uint64_t n;
} klawi_deliveries;

/* One send; on the stack of its host, which does not leave before it has ENDED or is unlinked. Its
 * address is its ticket. */
typedef struct klawi_sending {
    klawi_link link;         /* in the outbox (L), then in one of the thread's lists (t) */
    klawi_link leaving;      /* (L) in r->leavers */
    klaw_remote_item *items; /* (c) */
    size_t n;                /* (c) */
    enum { KLAWI_S_OUTBOX, KLAWI_S_TAKEN, KLAWI_S_ENDED } state; /* (L) */
    bool given;                                                  /* (t) the hub has it */
    bool over;            /* (t) it ends at the end of this turn */
    klaw_err result;      /* (L) when ENDED; KLAWI_WITHDRAWN: it never left */
    klawi_waiter *waiter; /* (L) where its host hangs; NULL: nowhere */
} klawi_sending;
#define KLAWI_WITHDRAWN ((klaw_err)102)

/* An answer on its way to the hub. */
typedef struct klawi_answer {
    struct klawi_answer *next;
    uint64_t id;
    bool failed, dead;
    size_t size;
    unsigned char data[]; /* the blob, or a message with its NUL */
} klawi_answer;

struct klaw_remote {
    klawi_chan base;
    const klaw_transport *transport; /* (c) */
    void *user;                      /* (c) of the transport */
    bool packed;                     /* (c) */
    uint8_t ack;                     /* (c) klaw_remote_ack */
    uint32_t ahead;                  /* (c) */
    int64_t answer_ns, linger_ns;    /* (c) */
    _Atomic uint32_t holds;          /* (a) the endpoints, the thread, each call under way */
    klawi_link live;                 /* (list lock) */
    /* (L) */
    klawi_waitq thread;       /* its thread, when it sleeps */
    bool kick;                /* there is something for it to do */
    klawi_link outbox;        /* klawi_sending */
    klawi_link leavers;       /* klawi_sending */
    klawi_deliveries arrived; /* for whoever receives */
    uint64_t permits;         /* of those, promised to foreign loops */
    klawi_deliveries done;    /* for the hub to hear of, then to be freed */
    klawi_answer *answers, **last_answer;
    bool demand;               /* somebody asked and found nothing */
    bool close_tx, close_rx;   /* the last endpoint of a side has closed */
    bool dying;                /* nobody has an endpoint any more, or the process leaves */
    bool left;                 /* the thread has ended */
    klaw_err tx_over, rx_over; /* OK, or what operations answer from here on */
    uint64_t sent, received;   /* elements */
    uint64_t high;
    klaw_hub_state state; /* the hub's, as of the last look */
    char trouble[256];
    /* (t) */
    klaw_hub *hub;
    uint64_t tx_end, rx_end;   /* the hub's numbers of our endpoints; 0: none */
    klawi_link pending, given; /* klawi_sending: not yet the hub's, and the hub's */
    int told;                  /* receivers the hub knows to wait */
    uint64_t counted, lately,
        before;             /* received up to the last turn, in this window, in the last */
    int64_t window_at;      /* when this window began */
    int64_t demand_until;   /* a demand without anybody waiting ends then; 0: none */
    int64_t idle_since;     /* an element came, or was received, or somebody waited */
    uint64_t idle_received; /* elements received by then */
    int64_t retry_at;       /* memory was short: again then; 0: no */
    int64_t leave_by;       /* when leaving ends, whatever the broker says; 0: not leaving */
    bool blocked;           /* the hub has no room for more sends */
    bool taken_all;         /* klaw_hub_take has said the last word */
};

static inline klaw_remote *klawi_remote_of(klawi_chan *ch) {
    return (klaw_remote *)(void *)ch;
}

static inline void klawi_deliveries_init(klawi_deliveries *l) {
    l->first = NULL;
    l->last = &l->first;
    l->n = 0;
}
static inline void klawi_deliveries_push(klawi_deliveries *l, klawi_delivery *d) {
    d->next = NULL;
    *l->last = d;
    l->last = &d->next;
    l->n++;
}
static inline klawi_delivery *klawi_deliveries_pop(klawi_deliveries *l) {
    klawi_delivery *d = l->first;
    if (d) {
        l->first = d->next;
        l->n--;
        if (!l->first)
            l->last = &l->first;
    }
    return d;
}
/* All of `from` to the end of `to`. */
static inline void klawi_deliveries_move(klawi_deliveries *to, klawi_deliveries *from) {
    if (!from->first)
        return;
    *to->last = from->first;
    to->last = from->last;
    to->n += from->n;
    klawi_deliveries_init(from);
}

/* remote.c, under the lock: the thread has something to do. */
void klawi_remote_kick(klaw_remote *r, klawi_fx *fx);
/* Under the lock: gives what has arrived, or the end, to those who wait. */
void klawi_remote_serve(klaw_remote *r, klawi_fx *fx);
/* Under the lock: the process leaves. What consumers hold counts as received (W20), what nobody has got
 * goes back. */
void klawi_remote_give_up(klaw_remote *r);
/* remote_serve.c: makes the hub and its endpoints, starts the thread, which takes over one hold. On an
 * error nothing has happened. */
klaw_err klawi_remote_start(klaw_remote *r, const klaw_hub_opts *hub, bool tx, bool rx);
/* One hold less; the last one frees. No lock. */
void klawi_remote_release(klaw_remote *r);

#endif
