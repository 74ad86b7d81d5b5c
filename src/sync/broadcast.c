/* SPDX-License-Identifier: Apache-2.0 */
/* broadcast.c - every receiver gets every message, with a lag policy each.
 *
 * A ring of the last `cap` messages; next is the number of the next message, each receiver has a
 * cursor. A message leaves when it falls out of the ring. Types without drop are copied out under
 * the lock. Types with a drop live in reference-counted cells: a receive pins the cell under the
 * lock and shares it after; the ring holds one reference.
 *
 * Invariants whenever ch->lock is free:
 *   B1  oldest <= cursor of every receiver that is not cut, <= next; next - oldest <= cap.
 *   B2  a receiver that waits has cursor == next, missed == 0 and is not cut.
 *   B3  a sender waits only if some receiver with KLAW_LAG_WAIT has cursor == oldest and the ring
 *       is full.
 *   B4  missed counts exactly the messages between a receiver's last one and its cursor.
 *
 * Wake-up: a send wakes all waiting receivers, a receiver that moved off the oldest message wakes
 * all waiting senders; both look again (KLAWI_RETRY).
 *
 * Rejected: handing the element to each waiting receiver (the sender would pay for all copies under
 * the lock). */
#include "klaw/broadcast.h"

#include "base/alloc.h"
#include "sync/cell.h"
#include "sync/chan.h"

#define CAP_DEFAULT 1024
#define CAP_MAX ((int64_t)1 << 20)

typedef struct broadcast {
    klawi_chan base;
    /* (L) all below */
    uint64_t oldest, next;
    uint64_t cap, mask; /* (c) */
    klawi_link ends;    /* open receivers */
    uint8_t lag;        /* (c) default policy */
    bool cells;         /* (c) elements live in cells */
    uint64_t received, high;
    char *ring;
} broadcast;

static inline broadcast *of(klawi_chan *ch) {
    return (broadcast *)(void *)ch;
}
static inline char *slot_of(broadcast *b, uint64_t i) {
    return b->ring + (i & b->mask) * (b->cells ? sizeof(klawi_cell *) : b->base.size);
}
static inline klawi_cell **cell_of(broadcast *b, uint64_t i) {
    return (klawi_cell **)(void *)slot_of(b, i);
}

static void broadcast_check(broadcast *b) {
#if defined(KLAWI_DEBUG)
    KLAWI_ASSERT(b->next - b->oldest <= b->cap); /* B1 */
    for (klawi_link *l = b->ends.next; l != &b->ends; l = l->next) {
        klawi_end *e = KLAWI_CONTAINER(l, klawi_end, link);
        KLAWI_ASSERT(e->cursor <= b->next && (e->cut || e->cursor >= b->oldest));
    }
#else
    (void)b;
#endif
}

/* Makes room for one more: moves receivers on that lag, or says FULL for one that is to be waited
 * for. */
static klaw_err make_room(broadcast *b, klawi_fx *fx) {
    for (klawi_link *l = b->ends.next; l != &b->ends; l = l->next) {
        klawi_end *e = KLAWI_CONTAINER(l, klawi_end, link);
        if (e->cursor == b->oldest && !e->cut && e->lag == KLAW_LAG_WAIT)
            return KLAW_FULL;
    }
    for (klawi_link *l = b->ends.next; l != &b->ends; l = l->next) {
        klawi_end *e = KLAWI_CONTAINER(l, klawi_end, link);
        if (e->cursor != b->oldest || e->cut)
            continue;
        if (e->lag == KLAW_LAG_DISCONNECT) { /* the one about to be sent is missed too */
            e->cut = true;
            e->missed += b->next - e->cursor + 1;
        } else {
            e->missed++;
            e->cursor++;
        }
    }
    if (b->cells) {
        *cell_of(b, b->oldest) = klawi_cell_fall(*cell_of(b, b->oldest), fx);
    }
    b->oldest++;
    return KLAW_OK;
}

static klaw_err try_send(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx) {
    broadcast *b = of(ch);
    (void)n;
    if (ch->tx_closed)
        return KLAW_CLOSED;
    if (b->cells && !end->spare)
        return KLAWI_GROW;
    if (b->next - b->oldest == b->cap) {
        klaw_err e = make_room(b, fx);
        if (e)
            return e;
    }
    if (b->cells) {
        klawi_cell *c = end->spare;
        end->spare = NULL;
        memcpy(c->value, elem, ch->size);
        *cell_of(b, b->next) = c;
    } else {
        klawi_elem_copy(slot_of(b, b->next), elem, ch->size);
    }
    b->next++;
    if (b->next - b->oldest > b->high)
        b->high = b->next - b->oldest;
    klawi_grant_all(&ch->rq, NULL, KLAWI_RETRY, fx);
    broadcast_check(b);
    return KLAW_OK;
}

static klaw_err grow(klawi_chan *ch, klawi_end *end, size_t n) {
    (void)n;
    return klawi_cell_spare(ch, end);
}

static klaw_err try_recv(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    broadcast *b = of(ch);
    if (end->missed) {
        atomic_store_explicit(&end->reported, end->missed, memory_order_relaxed);
        end->missed = 0;
        return KLAW_LAGGED;
    }
    if (end->cut)
        return KLAW_CLOSED;
    if (end->cursor == b->next)
        return ch->tx_closed ? KLAW_CLOSED : KLAW_EMPTY;
    uint64_t at = end->cursor++;
    b->received++;
    if (b->cells) {
        fx->cell = *cell_of(b, at);
        fx->pos = at;
        klawi_cell_ref(fx->cell);
    } else {
        klawi_elem_copy(elem, slot_of(b, at), ch->size);
    }
    if (at == b->oldest)
        klawi_grant_all(&ch->sq, NULL, KLAWI_RETRY, fx);
    broadcast_check(b);
    return KLAW_OK;
}

/* Another host that waits on the same receiver has something to look at again (B2). Releases the
 * lock. */
static void tell_sharers(klawi_chan *ch, klawi_end *end) {
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_grant_all(&ch->rq, end, KLAWI_RETRY, &fx);
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
}

static klaw_err after(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    broadcast *b = of(ch);
    klaw_err e = klawi_cell_share(ch, fx->cell, elem);
    if (e) { /* the cursor stays, unless somebody else has used this receiver meanwhile */
        klawi_lock_acquire(&ch->lock);
        if (end->cursor == fx->pos + 1 && fx->pos >= b->oldest && !end->cut) {
            end->cursor--;
            b->received--;
        } else {
            end->missed++;
        }
        tell_sharers(ch, end);
    }
    klawi_cell_unref(ch, fx->cell);
    return e;
}

static klaw_err ready(klawi_chan *ch, klawi_end *end, enum klawi_side side) {
    broadcast *b = of(ch);
    if (side == KLAWI_RX)
        return end->missed || end->cut || end->cursor != b->next ? KLAW_OK
               : ch->tx_closed                                   ? KLAW_CLOSED
                                                                 : KLAW_EMPTY;
    if (b->next - b->oldest == b->cap)
        for (klawi_link *l = b->ends.next; l != &b->ends; l = l->next) {
            klawi_end *e = KLAWI_CONTAINER(l, klawi_end, link);
            if (e->cursor == b->oldest && !e->cut && e->lag == KLAW_LAG_WAIT)
                return KLAW_FULL;
        }
    return KLAW_OK;
}

static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    broadcast *b = of(ch);
    if (end->side == KLAWI_TX) {
        if (ch->tx_closed)
            klawi_grant_all(&ch->rq, NULL, KLAWI_RETRY, fx);
        return;
    }
    klawi_link_remove(&end->link);
    klawi_link_init(&end->link);
    klawi_grant_all(&ch->sq, NULL, KLAWI_RETRY, fx);
    broadcast_check(b);
}

static klaw_err clone_end(klawi_chan *ch, klawi_end *from, klawi_end *to) {
    broadcast *b = of(ch);
    if (to->side == KLAWI_TX)
        return KLAW_OK;
    if (from->side == KLAWI_RX) {
        to->cursor = from->cursor;
        to->missed = from->missed;
        to->cut = from->cut;
        to->lag = from->lag;
    } else {
        to->cursor = b->next;
        to->lag = to->lag ? to->lag : b->lag;
    }
    klawi_link_push(&b->ends, &to->link);
    return KLAW_OK;
}

static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    broadcast *b = of(ch);
    out->queue_size = b->next - b->oldest;
    out->high_watermark = b->high;
    out->total_sent = b->next;
    out->total_received = b->received;
}

static void end_free(klawi_chan *ch, klawi_end *end) {
    (void)ch;
    klawi_cell_free_spare(end);
}

static void destroy(klawi_chan *ch) {
    broadcast *b = of(ch);
    if (b->cells)
        for (uint64_t i = b->oldest; i != b->next; i++)
            klawi_cell_unref(ch, *cell_of(b, i));
    klawi_free(b->ring);
    klawi_free_aligned(b);
}

static void visit_all(klawi_chan *ch, void (*visit)(void *elem, void *user), void *user) {
    broadcast *b = of(ch);
    for (uint64_t i = b->oldest; i != b->next; i++)
        visit(b->cells ? (*cell_of(b, i))->value : (char *)cell_of(b, i), user);
}

static const klawi_chan_ops ops = {
    .name = "broadcast",
    .try_send = try_send,
    .try_recv = try_recv,
    .grow = grow,
    .after = after,
    .closing = closing,
    .ready = ready,
    .stats = stats,
    .visit = visit_all,
    .clone = clone_end,
    .end_free = end_free,
    .destroy = destroy,
    .selects = true,
};

static bool lag_ok(klaw_lag lag) {
    return lag >= KLAW_LAG_DEFAULT && lag <= KLAW_LAG_DISCONNECT;
}

klaw_err klaw_broadcast_sized(const klaw_type *type, const klaw_broadcast_opts *opts,
                              size_t opts_size, klaw_sender **tx, klaw_receiver **rx) {
    klaw_broadcast_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    klaw_err e = klawi_type_check(type);
    if (e)
        return e;
    if (!tx || !rx || o.capacity < 0 || !lag_ok(o.lag))
        return KLAW_INVALID;
    if (o.capacity > CAP_MAX)
        return KLAW_LIMIT;
    if (type->drop && !type->share)
        return KLAW_TYPE;
    broadcast *b = klawi_alloc_aligned(KLAWI_LINE, sizeof *b);
    if (!b)
        return KLAW_NOMEM;
    memset(b, 0, sizeof *b);
    b->cap = o.capacity ? (uint64_t)o.capacity : CAP_DEFAULT;
    uint64_t size = 1;
    while (size < b->cap)
        size *= 2;
    b->mask = size - 1;
    b->cells = type->drop != NULL;
    b->lag = (uint8_t)(o.lag ? o.lag : KLAW_LAG_DROP_OLDEST);
    klawi_link_init(&b->ends);
    b->ring = klawi_calloc(size, b->cells ? sizeof(klawi_cell *) : type->size);
    e = b->ring ? klawi_chan_open(&b->base, &ops, type, o.name ? o.name : "broadcast",
                                  (int64_t)b->cap, tx, rx)
                : KLAW_NOMEM;
    if (e) {
        klawi_free(b->ring);
        klawi_free_aligned(b);
        return e;
    }
    (*rx)->e.lag = b->lag;
    klawi_link_push(&b->ends, &(*rx)->e.link);
    return KLAW_OK;
}

klaw_err klaw_broadcast_subscribe(klaw_sender *tx, klaw_lag lag, klaw_receiver **out) {
    if (!tx || !out || !lag_ok(lag) || tx->e.ch->ops != &ops)
        return KLAW_INVALID;
    klawi_chan *ch = tx->e.ch;
    return klawi_end_add(ch, &tx->e, KLAWI_RX, (uint8_t)lag, (klawi_end **)(void *)out);
}
