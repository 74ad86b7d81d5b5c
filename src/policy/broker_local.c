/* SPDX-License-Identifier: Apache-2.0 */
/* broker_local.c - put, get and register without a hub: one item at a time, anonymous. All of them
 * are one client that never dies (b->anonymous): its identity is zero, its receivers have names. */
#include "policy/broker.h"

/* A node with a frame of its own; NULL: no memory. The attachment stays the caller's. */
static klawi_node *local_node(klaw_broker *b, const klaw_remote_item *i) {
    klawi_wire_item w = {.context = i->context,
                         .data = i->data,
                         .context_size = i->context_size,
                         .size = i->size,
                         .sent_at = i->sent_at,
                         .deadline = i->deadline,
                         .flags = i->flags & KLAW_REMOTE_REFERENCE,
                         .codec = i->codec};
    w.flags |= i->deadline ? KLAWI_WIRE_DEADLINE : 0;
    w.flags |= i->attachment ? KLAWI_WIRE_ATTACHED : 0;
    klawi_frame *f = klawi_frame_new(klawi_wire_item_size(i->size, i->context_size));
    if (!f)
        return NULL;
    klawi_out o = {f->data, 0, f->size, false};
    klawi_out_item(&o, &w);
    klawi_node *n = klawi_node_take(b);
    n->frame = f;
    n->body = f->data;
    n->body_size = (uint32_t)o.size;
    n->payload = (uint32_t)i->size;
    n->flags = i->flags & KLAW_REMOTE_REFERENCE;
    n->attached = i->attachment != NULL;
    n->sent_at = i->sent_at;
    n->deadline = i->deadline;
    n->from = b->anonymous;
    n->from->nodes++;
    return n;
}

static void local_drop(klaw_broker *b, klawi_node *chain) {
    for (klawi_node *next; chain; chain = next) {
        next = chain->next;
        klawi_node_drop(b, chain);
    }
}

klaw_err klaw_broker_put(klaw_broker *b, int64_t now, int64_t real_now,
                         const klaw_remote_item *items, size_t n) {
    klaw_broker_tick(b, now, real_now);
    klawi_peer *p = b->anonymous;
    size_t bytes = 0, logged = 0;
    for (size_t i = 0; i < n; i++) {
        if (items[i].size > KLAWI_WIRE_PAYLOAD || items[i].context_size > UINT16_MAX ||
            (unsigned)items[i].codec > KLAW_REMOTE_PICKLE)
            return KLAW_LIMIT;
        bytes += klawi_wire_item_size(items[i].size, items[i].context_size);
        logged += items[i].size + items[i].context_size + 64;
    }
    if (b->opts.durable && logged > KLAWI_DURABLE_MAX)
        return KLAW_LIMIT;
    if (b->failed)
        return KLAW_BACKEND;
    if (b->deleted || b->closed[KLAW_REMOTE_SENDER] || b->closed[KLAW_REMOTE_RECEIVER])
        return KLAW_CLOSED;
    if (b->opts.kind == KLAW_REMOTE_QUEUE && b->opts.capacity != KLAW_NONE &&
        n > (uint64_t)b->opts.capacity)
        return KLAW_FULL;
    if (!klawi_nodes_reserve(b, n) || !klawi_done_reserve(p, n) ||
        !klawi_queue_reserve(b, n, bytes))
        return KLAW_NOMEM;
    klawi_node *chain = NULL, **end = &chain;
    for (size_t i = 0; i < n; i++, end = &(*end)->next)
        if (!(*end = local_node(b, &items[i]))) {
            local_drop(b, chain);
            return KLAW_NOMEM;
        }
    *end = NULL;
    if (!klawi_push_room(b, p, n)) { /* in turn with those that push (W12) */
        if (!(items[0].flags & KLAW_REMOTE_NOWAIT) && !KLAWI_POLICY_MUTANT(PUT_OVERTAKEN))
            klawi_push_block(b, p, n);
        local_drop(b, chain);
        return KLAW_FULL;
    }
    if (p->is_granted)
        klawi_unblock(b, p);
    for (size_t i = 0; i < n; i++) {
        klawi_node *node = chain;
        chain = node->next;
        node->attachment = items[i].attachment;
        node->seq = p->next++;
        if (b->opts.durable && n > 1) /* its log keeps them together */
            node->flags |= (i == 0 ? (uint32_t)KLAW_REMOTE_BATCH_FIRST : 0) |
                           (i == n - 1 ? (uint32_t)KLAW_REMOTE_BATCH_LAST : 0);
        klawi_queue_add(b, node);
    }
    klaw_broker_tick(b, now, real_now);
    return KLAW_OK;
}

void klaw_broker_unblock(klaw_broker *b, int64_t now) {
    klawi_unblock(b, b->anonymous);
    klaw_broker_tick(b, now, b->real_now + (now - b->now));
}

/* Copies a node's contents; the attachment is only named. NOMEM. */
static klaw_err local_copy(const klawi_node *n, klaw_remote_item *out) {
    klaw_err e = klawi_wire_copy(n->body, n->body_size, out);
    if (e)
        return e;
    out->attachment = n->attachment;
    out->seq = n->seq;
    out->flags = n->flags;
    out->place = n->pos;
    memcpy(out->client, n->from->id.id, KLAW_REMOTE_ID);
    return KLAW_OK;
}

static klawi_endpoint *reader_find(klaw_broker *b, const char *reader) {
    klawi_peer *p = b->anonymous;
    for (size_t i = 0; i < p->n_receivers; i++)
        if (strcmp(p->receivers[i].name, reader) == 0)
            return &p->receivers[i];
    return NULL;
}

/* The attachment goes along: the node's own, or another reference to it. */
static void local_hand_over(klaw_broker *b, klawi_node *n, klaw_remote_item *out, bool last) {
    if (last)
        n->attachment = NULL;
    else if (n->attachment && b->opts.share)
        out->attachment = b->opts.share(n->attachment);
}

static klaw_err get_queue(klaw_broker *b, klawi_endpoint *e, klaw_remote_item *out) {
    klawi_node *n = b->gathering ? NULL : klawi_queue_front(b);
    if (!n)
        return b->deleted || b->closed[KLAW_REMOTE_RECEIVER] ||
                       (b->closed[KLAW_REMOTE_SENDER] && !b->queued)
                   ? KLAW_CLOSED
                   : KLAW_EMPTY;
    klaw_err err = local_copy(n, out);
    if (err != KLAW_OK)
        return err;
    local_hand_over(b, n, out, true);
    klawi_queue_unlink(b, n);
    b->redelivered += (n->flags & KLAW_REMOTE_REDELIVERED) != 0;
    b->received++;
    if (e)
        e->received++;
    klawi_node_finish(b, n);
    return KLAW_OK;
}

static klaw_err get_copy(klaw_broker *b, klawi_endpoint *e, klaw_remote_item *out,
                         uint64_t *missed) {
    klawi_node *n = NULL;
    if (b->opts.kind == KLAW_REMOTE_WATCH) {
        if (b->latest && b->latest->pos > e->cursor && !klawi_node_late(b, b->latest))
            n = b->latest;
    } else {
        for (; !n && e->cursor < b->log_next; e->cursor += n == NULL) {
            if (e->cursor < b->log_first) {
                *missed = b->log_first - e->cursor;
                e->cursor = b->log_first;
                return KLAW_LAGGED;
            }
            n = b->log[e->cursor & b->log_mask];
            if (!klawi_node_late(b, n))
                break;
            n->readers--;
            b->expired++;
            n = NULL;
        }
    }
    if (!n)
        return b->closed[KLAW_REMOTE_SENDER] || b->deleted ? KLAW_CLOSED : KLAW_EMPTY;
    klaw_err err = local_copy(n, out);
    if (err != KLAW_OK)
        return err;
    local_hand_over(b, n, out, false);
    e->cursor = n->pos + (b->opts.kind == KLAW_REMOTE_BROADCAST);
    e->received++;
    b->received++;
    if (b->opts.kind == KLAW_REMOTE_BROADCAST)
        n->readers--;
    return KLAW_OK;
}

klaw_err klaw_broker_get(klaw_broker *b, int64_t now, int64_t real_now, const char *reader,
                         klaw_remote_item *out, uint64_t *missed) {
    klaw_broker_tick(b, now, real_now);
    uint64_t none;
    missed = missed ? missed : &none;
    *missed = 0;
    if (b->failed)
        return KLAW_BACKEND;
    klawi_endpoint *e = reader && *reader ? reader_find(b, reader) : NULL;
    if (!e && ((reader && *reader) || b->opts.kind != KLAW_REMOTE_QUEUE))
        return KLAW_NOT_FOUND;
    if (e)
        e->seen_at = now;
    klaw_err err =
        b->opts.kind == KLAW_REMOTE_QUEUE ? get_queue(b, e, out) : get_copy(b, e, out, missed);
    klaw_broker_tick(b, now, real_now);
    return err;
}

klaw_err klaw_broker_borrow(klaw_broker *b, klaw_remote_item *out) {
    return b->latest && !klawi_node_late(b, b->latest) ? local_copy(b->latest, out) : KLAW_EMPTY;
}

klaw_err klaw_broker_peek(klaw_broker *b, void **cursor, klaw_remote_item *out) {
    klawi_node *n = *cursor ? ((klawi_node *)*cursor)->next : b->head;
    if (b->opts.kind != KLAW_REMOTE_QUEUE || !n)
        return KLAW_EMPTY;
    klaw_err err = local_copy(n, out);
    if (err == KLAW_OK)
        *cursor = n;
    return err;
}

void klaw_broker_seek(const klaw_broker *b, uint64_t after, size_t most, void **cursor) {
    klawi_node *n = b->opts.kind == KLAW_REMOTE_QUEUE ? b->tail : NULL;
    if (after == KLAW_BROKER_END)
        for (; n && most > 0; most--)
            n = n->prev;
    else
        while (n && n->pos > after)
            n = n->prev;
    *cursor = n;
}

/* --- endpoints --- */

static char *copy_of(const char *text) {
    size_t n = text ? strlen(text) : 0;
    char *copy = klawi_alloc(n + 1);
    if (copy && n)
        memcpy(copy, text, n);
    if (copy)
        copy[n] = '\0';
    return copy;
}

klaw_err klaw_broker_register(klaw_broker *b, int64_t now, klaw_remote_side side,
                              const char *reader, const char *node) {
    klaw_broker_tick(b, now, b->real_now + (now - b->now));
    klawi_peer *p = b->anonymous;
    if (b->deleted || b->closed[side])
        return KLAW_CLOSED;
    if (side == KLAW_REMOTE_SENDER) {
        p->n_senders++;
        klawi_peer_count(b, p);
        return KLAW_OK;
    }
    if (!reader || strlen(reader) > 255 || (node && strlen(node) > 255))
        return KLAW_INVALID;
    if (reader_find(b, reader))
        return KLAW_EXISTS;
    klawi_endpoint *all = klawi_realloc(p->receivers, (p->n_receivers + 1) * sizeof *p->receivers);
    if (!all)
        return KLAW_NOMEM;
    p->receivers = all;
    char *name = copy_of(reader), *where = copy_of(node);
    if (!name || !where) {
        klawi_free(name);
        klawi_free(where);
        return KLAW_NOMEM;
    }
    klawi_endpoint *e = &all[p->n_receivers++];
    klawi_endpoint_open(b, e, p->n_receivers, false);
    e->name = name;
    e->node = where;
    klawi_peer_count(b, p);
    return KLAW_OK;
}

klaw_err klaw_broker_deregister(klaw_broker *b, int64_t now, klaw_remote_side side,
                                const char *reader) {
    klaw_broker_tick(b, now, b->real_now + (now - b->now));
    klawi_peer *p = b->anonymous;
    if (side == KLAW_REMOTE_SENDER) {
        if (p->n_senders == 0)
            return KLAW_NOT_FOUND;
        p->n_senders--;
    } else {
        klawi_endpoint *e = reader ? reader_find(b, reader) : NULL;
        if (!e)
            return KLAW_NOT_FOUND;
        klawi_endpoint_close(b, e);
        *e = p->receivers[--p->n_receivers];
    }
    klawi_peer_count(b, p);
    klaw_broker_tick(b, now, b->real_now);
    return KLAW_OK;
}
