/* SPDX-License-Identifier: Apache-2.0 */
/* chan.h - what all kinds of channels share: the base, the endpoints, and the operations table of a
 * kind.
 *
 * A kind says, under the channel's lock, whether an operation can happen now and carries it out
 * (try_send, try_recv). Everything else - waiting, deadlines, cancellation, select, foreign loops,
 * closing - is written once, in chan.c, select.c and op.c. */
#ifndef KLAWI_CHAN_H
#define KLAWI_CHAN_H

#include <string.h>

#include "base/inspect.h"
#include "klaw/broadcast.h"
#include "klaw/channel.h"
#include "sched/sched.h"

typedef struct klawi_chan klawi_chan;
typedef struct klawi_end klawi_end;

/* Answers of a kind beside klaw_err. */
#define KLAWI_RETRY ((klaw_err)100) /* to a waiter: look again */
#define KLAWI_GROW ((klaw_err)101)  /* memory is needed: call grow without the lock, then again */

/* What is to be done after the unlock. */
typedef struct klawi_fx {
    klawi_wakes wakes;
    struct klawi_cell *cell;   /* pinned by try_recv: `after` makes the caller's copy */
    struct klawi_cell *fallen; /* lost its place in the channel */
    uint64_t pos;
    bool more; /* the peer is ahead: more could have been had */
} klawi_fx;

static inline void klawi_fx_init(klawi_fx *fx) {
    klawi_wakes_init(&fx->wakes);
    fx->cell = fx->fallen = NULL;
    fx->more = false;
}

enum klawi_side { KLAWI_TX, KLAWI_RX };

/* A kind. try_*, closing, ready, stats and unserved are called under the lock. */
typedef struct klawi_chan_ops {
    const char *name;
    /* OK; FULL: would wait; GROW; LIMIT. n elements, all or nothing. */
    klaw_err (*try_send)(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx);
    /* OK; EMPTY: would wait; CLOSED: and never will be; LAGGED. */
    klaw_err (*try_recv)(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx);
    /* Gets the memory that try_send wants. No lock. */
    klaw_err (*grow)(klawi_chan *ch, klawi_end *end, size_t n);
    /* Completes a receive whose cell is pinned in fx. No lock. NULL: never needed. */
    klaw_err (*after)(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx);
    /* The endpoint has just been marked closed and counted out. */
    void (*closing)(klawi_chan *ch, klawi_end *end, klawi_fx *fx);
    /* After the unlock of a closing: drops what nobody will receive. NULL: nothing. */
    void (*drop_rest)(klawi_chan *ch);
    /* A batch waiter left: others may fit now. NULL: no batches. */
    void (*unserved)(klawi_chan *ch, klawi_fx *fx);
    /* Foreign loops: take a permit (OK, or would wait), give it back, redeem it. NULL: the kind
     * only notifies, and redeeming is try_*. */
    klaw_err (*permit)(klawi_chan *ch, klawi_end *end, enum klawi_side side, size_t n,
                       klawi_fx *fx);
    void (*unpermit)(klawi_chan *ch, enum klawi_side side, size_t n, klawi_fx *fx);
    klaw_err (*redeem)(klawi_chan *ch, klawi_end *end, enum klawi_side side, void *elem,
                       klawi_fx *fx);
    /* The same for n slots and as many elements. NULL: no batches. */
    klaw_err (*redeem_batch)(klawi_chan *ch, const void *elems, size_t n, klawi_fx *fx);
    /* Whether an operation would not wait, without doing it; for kinds without permits. */
    klaw_err (*ready)(klawi_chan *ch, klawi_end *end, enum klawi_side side);
    void (*stats)(klawi_chan *ch, klaw_channel_stats *out);
    /* Every element that lies in the channel, for klaw_receiver_visit. No lock; nobody operates. */
    void (*visit)(klawi_chan *ch, void (*visit)(void *elem, void *user), void *user);
    /* A fresh endpoint of a clone: copies the kind's fields. NULL: can't be cloned. */
    klaw_err (*clone)(klawi_chan *ch, klawi_end *from, klawi_end *to);
    /* An endpoint's memory goes. NULL: nothing of the kind in it. */
    void (*end_free)(klawi_chan *ch, klawi_end *end);
    /* The last reference is gone. */
    void (*destroy)(klawi_chan *ch);
    /* Kinds that do not use the lock at all. NULL: the common way. */
    klaw_err (*send)(klawi_end *end, const void *elem, size_t n, klaw_deadline d);
    klaw_err (*recv)(klawi_end *end, void *elem, size_t max, size_t *got, klaw_deadline d);
    bool batches;       /* takes send_batch */
    bool selects;       /* may stand in a select and in foreign loops */
    bool receives_only; /* … but sends may not: TYPE */
} klawi_chan_ops;

struct klawi_chan {
    const klawi_chan_ops *ops;    /* (c) */
    const klaw_type *type;        /* (c) */
    uint32_t size;                /* (c) of an element */
    _Atomic uint32_t refs;        /* (a) endpoints' memory */
    int64_t capacity;             /* (c) as asked for */
    uint64_t id;                  /* (c) */
    int64_t created_at;           /* (c) */
    klawi_link live;              /* (registry lock) */
    klawi_link owned;             /* (registry lock) in its owner's list; next NULL: none */
    klawi_chan *drop_next;        /* (o) of the thread that drops */
    void (*on_rx_closed)(void *); /* (L) called once when the receivers have closed */
    void *on_rx_closed_arg;
    char name[KLAWI_NAME_MAX]; /* (c) */
    _Alignas(KLAWI_LINE) klawi_lock lock;
    bool tx_closed, rx_closed;   /* (L) */
    uint32_t senders, receivers; /* (L) open endpoints */
    klawi_waitq rq, sq;          /* (L) */
    klawi_link ends;             /* (L) the open endpoints, by `open` */
};

/* An endpoint of either side. */
struct klawi_end {
    klawi_chan *ch;              /* (c) */
    _Atomic bool closed;         /* (L) written */
    uint8_t side;                /* (c) */
    uint8_t lag;                 /* (c) broadcast receivers */
    bool cut;                    /* (L) broadcast: disconnected for lagging */
    uint64_t cursor;             /* (L) broadcast: next message; watch: version seen */
    uint64_t missed;             /* (L) broadcast: not yet reported */
    _Atomic uint64_t reported;   /* (a) broadcast: the last report */
    struct klawi_cell *spare;    /* (L) broadcast, watch senders: a cell made outside the lock */
    struct klawi_delivery *kept; /* (L) remote receivers: not acknowledged, the newest first */
    klawi_link link;             /* (L) broadcast: receivers of the channel */
    klawi_link open;             /* (L) in ch->ends until it is closed */
    _Atomic uint64_t by;         /* (a relaxed) who used it last, see klawi_end_used */
};
struct klaw_sender {
    klawi_end e;
};
struct klaw_receiver {
    klawi_end e;
};

/* Who a host is, for inspection: klaw_host_kind << 62, its number, and a bit that says that it has
 * only made the endpoint. */
#define KLAWI_BY_KIND 62
#define KLAWI_BY_MADE (1ull << 61)
#define KLAWI_BY_RUNTIME (1ull << 60) /* nobody's but klaw's; no kind, no number */
#define KLAWI_BY_ID (KLAWI_BY_RUNTIME - 1)
static inline uint64_t klawi_host_by(const klawi_host *h) {
    uint64_t id = 0;
    if (!h || h->kind < KLAWI_FIBER || h->kind > KLAWI_CALLBACK)
        return 0;
    if (h->kind == KLAWI_FIBER)
        id = ((const klaw_fiber *)(const void *)h)->id;
    else if (h->kind == KLAWI_THREAD)
        id = KLAWI_CONTAINER(h, const klawi_thread, host)->tid;
    else
        id = atomic_load_explicit(&h->object, memory_order_relaxed); /* klaw_op_label */
    return (uint64_t)h->kind << KLAWI_BY_KIND | (id & KLAWI_BY_ID);
}
/* Notes who uses it. Only while the process is open to inspection. */
static inline void klawi_end_used(klawi_end *e, const klawi_host *h) {
    uint64_t by = klawi_host_by(h);
    if (by && atomic_load_explicit(&e->by, memory_order_relaxed) != by)
        atomic_store_explicit(&e->by, by, memory_order_relaxed);
}
void klawi_end_made(klawi_end *e);
/* Of a channel of klaw's own that has just been made: who waits there waits for no host. */
void klawi_end_internal(klaw_sender *tx);

/* Fills the base (zeroed memory) and makes the two first endpoints. On an error nothing is left but
 * *ch's memory. */
klaw_err klawi_chan_open(klawi_chan *ch, const klawi_chan_ops *ops, const klaw_type *type,
                         const char *name, int64_t capacity, klaw_sender **tx, klaw_receiver **rx);
/* A further endpoint, counted in; lag: a broadcast receiver's policy, 0 where there is none. CLOSED when its side has closed. */
klaw_err klawi_end_add(klawi_chan *ch, klawi_end *from, enum klawi_side side, uint8_t lag,
                       klawi_end **out);
klaw_err klawi_type_check(const klaw_type *type);
void klawi_chan_unref(klawi_chan *ch);

/* Files the channel, which has no owner yet, in a list of its owner's, until it dies or is taken
 * off. The list's head lies still; nothing else may touch it. */
void klawi_chan_own(klaw_sender *tx, klawi_link *list);
/* Takes the first channel off such a list, with a reference; NULL: there is none. */
klawi_chan *klawi_chan_disown(klawi_link *list);
/* Closes every open endpoint of one side, as if its holder had. */
void klawi_chan_shut(klawi_chan *ch, enum klawi_side side);

/* Under the lock, the operation would wait: hangs the host into q and parks. Releases the lock. *d
 * becomes absolute. */
klaw_err klawi_chan_wait(klawi_ctx *c, klawi_end *end, klawi_waitq *q, uint8_t op, void *slot,
                         size_t n, klaw_deadline *d);
klaw_err klawi_chan_send(klawi_end *end, const void *elem, size_t n, klaw_deadline d);
klaw_err klawi_chan_recv(klawi_end *end, void *elem, klaw_deadline d);
/* Counts the operation towards the turn; NULL with *e set when it has to end here. */
klawi_ctx *klawi_op_begins(klaw_err *e);

/* Claims one waiter for good: unlinks it, sets its result, queues it for readying. False: it has
 * another winner. Under the lock. */
static inline bool klawi_grant(klawi_waiter *w, klaw_err result, klawi_fx *fx) {
    if (!klawi_claim(w->host, w->epoch))
        return false;
    klawi_link_remove(&w->link);
    w->host->result = (int32_t)result;
    w->host->chosen = w->index;
    klawi_wakes_add(&fx->wakes, w);
    return true;
}
/* Grants `result` to everyone in q who waits on `handle` (NULL: on any). */
void klawi_grant_all(klawi_waitq *q, void *handle, klaw_err result, klawi_fx *fx);

void klawi_cells_fall(klawi_chan *ch, struct klawi_cell *c);
static inline void klawi_fx_run(klawi_chan *ch, klawi_fx *fx) {
    if (fx->wakes.first)
        klawi_wakes_run(&fx->wakes);
    if (KLAWI_UNLIKELY(fx->fallen != NULL))
        klawi_cells_fall(ch, fx->fallen);
}

static inline void klawi_elem_copy(void *to, const void *from, size_t size) {
    if (size == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, size);
}

/* Drops the rest of channels one after the other, however they contain each other. */
void klawi_drop_later(klawi_chan *ch);

/* fn(arg) once, no lock held, on the host that closes the last receiver (at once when that has
 * happened). It may not wait. */
void klawi_channel_on_receivers_closed(klaw_sender *tx, void (*fn)(void *), void *arg);

/* Calls visit for every live channel, under its lock. */
void klawi_chans_each(void (*visit)(klawi_chan *ch, void *user), void *user);
void klawi_chan_stats(klawi_chan *ch, klaw_channel_stats *out);
/* Registers the provider of inspect.c. Called by name: a constructor alone would not be linked from
 * the static library. */
void klawi_inspect_channels(void);

extern const klawi_chan_ops klawi_mpmc_ops;
/* mpmc.c: the fast paths, chosen by ops. */
klaw_err klawi_mpmc_send(klawi_end *end, const void *elem, klaw_deadline d);
klaw_err klawi_mpmc_recv(klawi_end *end, void *elem, klaw_deadline d);
klaw_err klawi_mpmc_recv_batch(klawi_end *end, void *elems, size_t max, size_t *got,
                               klaw_deadline d);
klaw_err klawi_mpmc_open(const klaw_type *type, const klaw_channel_opts *o, klaw_sender **tx,
                         klaw_receiver **rx);
klaw_err klawi_mpmc_reserve(klawi_end *end, klaw_deadline d);
klaw_err klawi_mpmc_permit_send(klawi_end *end, const void *elem);
void klawi_mpmc_permit_drop(klawi_end *end);
/* ring1.c */
klaw_err klawi_ring1_open(const klaw_type *type, const klaw_channel_opts *o, klaw_sender **tx,
                          klaw_receiver **rx);

#endif
