/* SPDX-License-Identifier: Apache-2.0 */
/* oneshot.c - one value, once.
 *
 * Invariants whenever ch->lock is free:
 *   O1  sent is set once; full => sent.
 *   O2  full => no live receiver waits.
 *   O3  the sender closed without a send => no live receiver waits (they got CLOSED).
 * A send never waits: nobody ever hangs in sq. */
#include "klaw/oneshot.h"

#include "base/alloc.h"
#include "sync/chan.h"

typedef struct oneshot {
    klawi_chan base;
    bool sent, full, taken; /* (L) */
    bool rest;              /* (L) the value is to be dropped */
    _Alignas(16) char value[];
} oneshot;

static inline oneshot *of(klawi_chan *ch) {
    return (oneshot *)(void *)ch;
}

static klaw_err try_send(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx) {
    oneshot *o = of(ch);
    (void)end;
    (void)n;
    if (o->sent || ch->rx_closed)
        return KLAW_CLOSED;
    o->sent = true;
    klawi_waiter *next;
    for (klawi_waiter *w = klawi_waitq_first(&ch->rq); w; w = next) {
        next = klawi_waitq_next(&ch->rq, w);
        void *slot = w->slot;
        bool plain = w->op == KLAWI_OP_RECV;
        if (plain && !o->full && !o->taken) {
            if (klawi_grant(w, KLAW_OK, fx)) {
                memcpy(slot, elem, ch->size);
                o->taken = true;
            }
            continue;
        }
        klawi_grant(w, o->taken ? KLAW_CLOSED : KLAWI_RETRY, fx);
    }
    if (!o->taken) {
        memcpy(o->value, elem, ch->size);
        o->full = true;
    }
    return KLAW_OK;
}

static klaw_err try_recv(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    oneshot *o = of(ch);
    (void)end;
    (void)fx;
    if (o->full) {
        memcpy(elem, o->value, ch->size);
        o->full = false;
        o->taken = true;
        klawi_grant_all(&ch->rq, NULL, KLAW_CLOSED, fx);
        return KLAW_OK;
    }
    return o->sent || ch->tx_closed ? KLAW_CLOSED : KLAW_EMPTY;
}

static klaw_err ready(klawi_chan *ch, klawi_end *end, enum klawi_side side) {
    oneshot *o = of(ch);
    (void)end;
    if (side == KLAWI_TX)
        return o->sent || ch->rx_closed ? KLAW_CLOSED : KLAW_OK;
    return o->full ? KLAW_OK : o->sent || ch->tx_closed ? KLAW_CLOSED : KLAW_EMPTY;
}

static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    oneshot *o = of(ch);
    if (end->side == KLAWI_TX) {
        if (!o->full)
            klawi_grant_all(&ch->rq, NULL, KLAW_CLOSED, fx);
    } else if (o->full) {
        o->full = false;
        o->rest = true;
    }
}

static void drop_rest(klawi_chan *ch) {
    oneshot *o = of(ch);
    klawi_lock_acquire(&ch->lock);
    bool rest = o->rest;
    o->rest = false;
    klawi_lock_release(&ch->lock);
    if (rest && ch->type->drop)
        ch->type->drop(o->value);
}

static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    oneshot *o = of(ch);
    out->queue_size = o->full;
    out->high_watermark = o->sent;
    out->total_sent = o->sent;
    out->total_received = o->taken;
}

static void destroy(klawi_chan *ch) {
    klawi_free_aligned(of(ch));
}

static void visit_all(klawi_chan *ch, void (*visit)(void *elem, void *user), void *user) {
    if (of(ch)->full || of(ch)->rest)
        visit(of(ch)->value, user);
}

static const klawi_chan_ops ops = {
    .name = "oneshot",
    .try_send = try_send,
    .try_recv = try_recv,
    .closing = closing,
    .drop_rest = drop_rest,
    .ready = ready,
    .stats = stats,
    .visit = visit_all,
    .destroy = destroy,
    .selects = true,
};

klaw_err klaw_oneshot(const klaw_type *type, klaw_sender **tx, klaw_receiver **rx) {
    klaw_err e = klawi_type_check(type);
    if (e || !tx || !rx)
        return e ? e : KLAW_INVALID;
    size_t size = (sizeof(oneshot) + type->size + KLAWI_LINE - 1) / KLAWI_LINE * KLAWI_LINE;
    oneshot *o = klawi_alloc_aligned(KLAWI_LINE, size);
    if (!o)
        return KLAW_NOMEM;
    memset(o, 0, sizeof *o);
    e = klawi_chan_open(&o->base, &ops, type, "oneshot", 1, tx, rx);
    if (e)
        klawi_free_aligned(o);
    return e;
}
