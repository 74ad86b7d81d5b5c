/* SPDX-License-Identifier: Apache-2.0 */
/* watch.c - the latest value, and who wants to know when it changes.
 *
 * Every value lives in a reference-counted cell (cell.h), so that a borrowed view stays while newer
 * values come. version counts the values; a receiver's cursor is the version it has seen.
 *
 * Invariants whenever ch->lock is free:
 *   V1  cell is the latest value and holds one reference.
 *   V2  cursor <= version; a receiver that waits has cursor == version.
 * Wake-up: a send wakes everyone who waits (KLAWI_RETRY); so does the close of the last sender. A
 * send with nobody waiting wakes nobody and takes one lock. Nobody ever hangs in sq. */
#include "klaw/watch.h"

#include "base/alloc.h"
#include "sync/cell.h"
#include "sync/chan.h"

typedef struct watch {
    klawi_chan base;
    klawi_cell *cell; /* (L) */
    uint64_t version; /* (L) */
    uint64_t received;
} watch;

static inline watch *of(klawi_chan *ch) {
    return (watch *)(void *)ch;
}

static klaw_err try_send(klawi_chan *ch, klawi_end *end, const void *elem, size_t n, klawi_fx *fx) {
    watch *w = of(ch);
    (void)n;
    if (ch->tx_closed)
        return KLAW_CLOSED;
    /* A value nobody has borrowed and that needs no drop is replaced in place. */
    if (!ch->type->drop && atomic_load_explicit(&w->cell->refs, memory_order_acquire) == 1) {
        klawi_elem_copy(w->cell->value, elem, ch->size);
    } else {
        if (!end->spare)
            return KLAWI_GROW;
        klawi_cell *c = end->spare;
        end->spare = NULL;
        memcpy(c->value, elem, ch->size);
        klawi_cell_fall(w->cell, fx);
        w->cell = c;
    }
    w->version++;
    klawi_grant_all(&ch->rq, NULL, KLAWI_RETRY, fx);
    return KLAW_OK;
}

static klaw_err grow(klawi_chan *ch, klawi_end *end, size_t n) {
    (void)n;
    return klawi_cell_spare(ch, end);
}

static klaw_err ready(klawi_chan *ch, klawi_end *end, enum klawi_side side) {
    if (side == KLAWI_TX || end->cursor != of(ch)->version)
        return KLAW_OK;
    return ch->tx_closed ? KLAW_CLOSED : KLAW_EMPTY;
}

static klaw_err try_recv(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    watch *w = of(ch);
    klaw_err e = ready(ch, end, KLAWI_RX);
    if (e)
        return e;
    fx->pos = end->cursor;
    end->cursor = w->version;
    w->received++;
    if (!elem) /* klaw_watch_changed */
        return KLAW_OK;
    if (!ch->type->drop) {
        klawi_elem_copy(elem, w->cell->value, ch->size);
        return KLAW_OK;
    }
    fx->cell = w->cell;
    klawi_cell_ref(w->cell);
    return KLAW_OK;
}

static klaw_err after(klawi_chan *ch, klawi_end *end, void *elem, klawi_fx *fx) {
    klaw_err e = klawi_cell_share(ch, fx->cell, elem);
    if (e) { /* not seen after all */
        klawi_fx again;
        klawi_fx_init(&again);
        klawi_lock_acquire(&ch->lock);
        end->cursor = fx->pos;
        of(ch)->received--;
        klawi_grant_all(&ch->rq, end, KLAWI_RETRY, &again); /* V2: others on this receiver */
        klawi_lock_release(&ch->lock);
        klawi_fx_run(ch, &again);
    }
    klawi_cell_unref(ch, fx->cell);
    return e;
}

static void closing(klawi_chan *ch, klawi_end *end, klawi_fx *fx) {
    if (end->side == KLAWI_TX && ch->tx_closed)
        klawi_grant_all(&ch->rq, NULL, KLAWI_RETRY, fx);
}

static klaw_err clone_end(klawi_chan *ch, klawi_end *from, klawi_end *to) {
    /* A clone of a receiver has seen what that one has; a subscriber has seen nothing: the present
     * value counts as new. */
    to->cursor = from->side == KLAWI_RX ? from->cursor : of(ch)->version - 1;
    return KLAW_OK;
}

static void stats(klawi_chan *ch, klaw_channel_stats *out) {
    watch *w = of(ch);
    out->queue_size = 1;
    out->high_watermark = 1;
    out->total_sent = w->version - 1;
    out->total_received = w->received;
}

static void end_free(klawi_chan *ch, klawi_end *end) {
    (void)ch;
    klawi_cell_free_spare(end);
}

static void destroy(klawi_chan *ch) {
    watch *w = of(ch);
    klawi_cell_unref(ch, w->cell);
    klawi_free_aligned(w);
}

static void visit_all(klawi_chan *ch, void (*visit)(void *elem, void *user), void *user) {
    visit(of(ch)->cell->value, user);
}

static const klawi_chan_ops ops = {
    .name = "watch",
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

klaw_err klaw_watch(const klaw_type *type, const void *initial, klaw_sender **tx,
                    klaw_receiver **rx) {
    klaw_err e = klawi_type_check(type);
    if (e)
        return e;
    if (!initial || !tx || !rx)
        return KLAW_INVALID;
    if (type->drop && !type->share)
        return KLAW_TYPE;
    watch *w = klawi_alloc_aligned(KLAWI_LINE, sizeof *w);
    if (!w)
        return KLAW_NOMEM;
    memset(w, 0, sizeof *w);
    w->version = 1;
    w->cell = klawi_alloc(sizeof *w->cell + type->size);
    e = w->cell ? klawi_chan_open(&w->base, &ops, type, "watch", 1, tx, rx) : KLAW_NOMEM;
    if (e) {
        klawi_free(w->cell);
        klawi_free_aligned(w);
        return e;
    }
    atomic_init(&w->cell->refs, 1);
    w->cell->next = NULL;
    memcpy(w->cell->value, initial, type->size);
    (*rx)->e.cursor = 1;
    return KLAW_OK;
}

static bool is_watch(klaw_receiver *rx) {
    return rx && rx->e.ch->ops == &ops;
}

klaw_err klaw_watch_changed(klaw_receiver *rx, klaw_deadline deadline) {
    return is_watch(rx) ? klawi_chan_recv(&rx->e, NULL, deadline) : KLAW_INVALID;
}

klaw_err klaw_watch_has_changed(klaw_receiver *rx, bool *out) {
    if (!is_watch(rx) || !out)
        return KLAW_INVALID;
    klawi_chan *ch = rx->e.ch;
    klawi_lock_acquire(&ch->lock);
    klaw_err e = atomic_load_explicit(&rx->e.closed, memory_order_relaxed)
                     ? KLAW_CLOSED
                     : ready(ch, &rx->e, KLAWI_RX);
    klawi_lock_release(&ch->lock);
    *out = e == KLAW_OK;
    return e == KLAW_CLOSED ? e : KLAW_OK;
}

klaw_err klaw_watch_borrow(klaw_receiver *rx, const void **out) {
    if (!is_watch(rx) || !out)
        return KLAW_INVALID;
    klawi_chan *ch = rx->e.ch;
    klaw_err e = KLAW_CLOSED;
    klawi_lock_acquire(&ch->lock);
    if (!atomic_load_explicit(&rx->e.closed, memory_order_relaxed)) {
        klawi_cell_ref(of(ch)->cell);
        rx->e.cursor = of(ch)->version;
        *out = of(ch)->cell->value;
        e = KLAW_OK;
    }
    klawi_lock_release(&ch->lock);
    return e;
}

void klaw_watch_release(klaw_receiver *rx, const void *view) {
    if (is_watch(rx) && view)
        klawi_cell_unref(rx->e.ch, KLAWI_CONTAINER((void *)(uintptr_t)view, klawi_cell, value));
}

klaw_err klaw_watch_subscribe(klaw_sender *tx, klaw_receiver **out) {
    if (!tx || !out || tx->e.ch->ops != &ops)
        return KLAW_INVALID;
    return klawi_end_add(tx->e.ch, &tx->e, KLAWI_RX, 0, (klawi_end **)(void *)out);
}
