/* SPDX-License-Identifier: Apache-2.0 */
/* hub_send.c - a hub's items on their way out: tickets, numbers, what is kept for resends.
 *
 * Bytes are copied once into chunks that many items share; a frame is written from there each time it
 * is made, so that a resend tells today's truth (an item whose sender gave up goes as void, W14).
 * Numbers are given when an item enters a frame (W4). A batch that has to stay whole is numbered and
 * framed whole. */
#include "policy/hub.h"

#define CHUNK_BYTES ((size_t)64 << 10)

/* --- memory --- */

static void chunk_unref(klawi_chunk *c) {
    if (c && --c->refs == 0)
        klawi_free(c);
}

/* `size` bytes of a chunk, counted; NULL: no memory. */
static klawi_chunk *chunk_take(klaw_hub *h, size_t size, unsigned char **at) {
    klawi_chunk *c = h->chunk;
    if (!c || c->size - c->used < size) {
        size_t room = size > CHUNK_BYTES / 4 ? size : CHUNK_BYTES;
        c = klawi_alloc(sizeof *c + room);
        if (!c)
            return NULL;
        *c = (klawi_chunk){.refs = 0, .used = 0, .size = room};
        if (room == CHUNK_BYTES) {
            chunk_unref(h->chunk);
            h->chunk = c;
            c->refs = 1;
        }
    }
    *at = c->data + c->used;
    c->used += size;
    c->refs++;
    return c;
}

static void item_free(klaw_hub *h, klawi_hub_item *i) {
    chunk_unref(i->chunk);
    if (i->attachment && h->opts.drop)
        h->opts.drop(i->attachment);
    i->chunk = NULL;
    i->attachment = NULL;
}

static bool ring_reserve(klawi_item_ring *r, uint64_t n) {
    uint64_t used = r->next - r->first, room = r->at ? r->mask + 1 : 0;
    if (room - used >= n)
        return true;
    room = room ? room : 64;
    while (room - used < n)
        room *= 2;
    klawi_hub_item *at = klawi_alloc((size_t)room * sizeof *at);
    if (!at)
        return false;
    for (uint64_t i = r->first; i < r->next; i++)
        /* Not so, but the analyzer does not follow why. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
        at[i & (room - 1)] = r->at[i & r->mask];
    klawi_free(r->at);
    r->at = at;
    r->mask = room - 1;
    return true;
}

bool klawi_hub_kept_reserve(klaw_hub *h, uint64_t n) {
    return ring_reserve(&h->kept, n);
}

/* --- tickets --- */

static klawi_ticket **ticket_slot(const klaw_hub *h, uint64_t number) {
    return &h->tickets[(number * 0x9e3779b97f4a7c15ull >> 32) & (h->ticket_slots - 1)];
}

static klawi_ticket **ticket_find(const klaw_hub *h, uint64_t number) {
    if (!h->tickets)
        return NULL;
    klawi_ticket **at = ticket_slot(h, number);
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return *at ? at : NULL;
}

/* Without memory a full table stays as it is. */
static void tickets_grow(klaw_hub *h) {
    size_t slots = h->ticket_slots ? h->ticket_slots * 4 : 64, old = h->ticket_slots;
    klawi_ticket **was = h->tickets, **grown = klawi_calloc(slots, sizeof(klawi_ticket *));
    if (!grown)
        return;
    h->tickets = grown;
    h->ticket_slots = slots;
    for (size_t i = 0; i < old; i++)
        for (klawi_ticket *t = was[i], *next; t; t = next) {
            next = t->next;
            klawi_ticket **at = ticket_slot(h, t->number);
            t->next = *at;
            *at = t;
        }
    klawi_free(was);
}

static klawi_ticket *ticket_new(klaw_hub *h, uint64_t number, uint32_t n) {
    if (h->n_tickets >= h->ticket_slots)
        tickets_grow(h);
    klawi_ticket *t = h->free_tickets;
    if (t)
        h->free_tickets = t->next;
    else
        t = h->tickets ? klawi_alloc(sizeof *t) : NULL;
    if (!t)
        return NULL;
    klawi_ticket **at = ticket_slot(h, number);
    *t = (klawi_ticket){
        .next = *at, .number = number, .n = n, .left = n, .unsent = n, .at = h->unsent.next};
    *at = t;
    h->n_tickets++;
    return t;
}

/* Out of the table; its items may still point to it until the last has let go. */
static void ticket_retire(klaw_hub *h, klawi_ticket *t) {
    klawi_ticket **at = ticket_find(h, t->number);
    KLAWI_ASSERT(at && *at == t);
    *at = t->next;
    h->n_tickets--;
    t->gone = true;
}

static void ticket_tell(klaw_hub *h, klawi_ticket *t, klaw_hub_event_kind kind) {
    if (t->gone)
        return;
    ticket_retire(h, t);
    klawi_hub_event(h, kind, t->number, 0);
}

/* One of its items has let go of it. */
static void ticket_unref(klaw_hub *h, klawi_hub_item *i) {
    klawi_ticket *t = i->ticket;
    i->ticket = NULL;
    if (!t || --t->left > 0)
        return;
    if (!t->gone)
        ticket_tell(h, t, t->refused ? KLAW_HUB_REFUSED : KLAW_HUB_SENT);
    t->next = h->free_tickets;
    h->free_tickets = t;
}

/* --- send --- */

/* Small items cost what they are kept in. */
static uint64_t bytes_held(const klaw_hub *h) {
    return h->unsent_bytes + h->kept_bytes + h->items_held * sizeof(klawi_hub_item);
}

static klaw_err send_check(const klaw_hub *h, const klawi_hub_endpoint *e,
                           const klaw_remote_item *items, size_t n, bool whole, uint64_t *bytes) {
    uint64_t unit = 0;
    if (klawi_hub_over(h) || h->no_receivers || h->no_senders || h->detaching)
        return KLAW_CLOSED;
    if (!e || e->side != KLAW_REMOTE_SENDER || e->closing)
        return KLAW_CLOSED;
    for (size_t i = 0; i < n; i++) {
        if (items[i].size > KLAWI_WIRE_PAYLOAD || items[i].context_size > UINT16_MAX ||
            (unsigned)items[i].codec > KLAW_REMOTE_PICKLE)
            return KLAW_LIMIT;
        unit = (whole ? unit : 0) + items[i].size + items[i].context_size + 64;
        if (h->durable && unit > KLAWI_DURABLE_MAX)
            return KLAW_LIMIT;
        *bytes += items[i].size + items[i].context_size;
    }
    return KLAW_OK;
}

static void unsent_cut(klaw_hub *h, uint64_t n) {
    while (n--) {
        klawi_hub_item *i = &h->unsent.at[--h->unsent.next & h->unsent.mask];
        h->unsent_bytes -= i->size + i->context_size;
        h->items_held--;
        i->attachment = NULL; /* still the caller's */
        item_free(h, i);
    }
}

static bool send_one(klaw_hub *h, klawi_hub_endpoint *e, const klaw_remote_item *in,
                     klawi_ticket *t, uint32_t flags) {
    unsigned char *at = NULL;
    klawi_chunk *c = chunk_take(h, in->context_size + in->size, &at);
    if (!c)
        return false;
    if (in->context_size)
        memcpy(at, in->context, in->context_size);
    if (in->size)
        memcpy(at + in->context_size, in->data, in->size);
    h->unsent.at[h->unsent.next++ & h->unsent.mask] = (klawi_hub_item){
        .chunk = c,
        .data = at,
        .size = in->size,
        .sent_at = in->sent_at,
        .deadline = in->deadline,
        .attachment = in->attachment,
        .ticket = t,
        .from = e,
        .context_size = (uint32_t)in->context_size,
        .flags = flags | (in->flags & (KLAW_REMOTE_REFERENCE | KLAW_REMOTE_NOWAIT)),
        .codec = (uint8_t)in->codec,
    };
    h->unsent_bytes += in->size + in->context_size;
    h->items_held++;
    return true;
}

klaw_err klaw_hub_send(klaw_hub *h, int64_t now, uint64_t endpoint, const klaw_remote_item *items,
                       size_t n, bool whole, uint64_t ticket) {
    uint64_t bytes = 0;
    h->now = now;
    klawi_hub_endpoint *e = klawi_hub_endpoint_find(h, endpoint);
    if (n == 0 || n > UINT32_MAX || ticket == 0)
        return KLAW_INVALID;
    /* Several that don't wait are one decision, too (W13). */
    whole = n > 1 && (whole || (items[0].flags & KLAW_REMOTE_NOWAIT));
    klaw_err err = send_check(h, e, items, n, whole, &bytes);
    if (err != KLAW_OK)
        return err;
    if (h->opts.retain_bytes != KLAW_NONE && bytes_held(h) &&
        bytes_held(h) + bytes + n * sizeof(klawi_hub_item) > (uint64_t)h->opts.retain_bytes &&
        !KLAWI_POLICY_MUTANT(RETAINS_ALL)) { /* W15 */
        h->want_room = true;
        return KLAW_FULL;
    }
    klawi_ticket *t = NULL;
    if (!ring_reserve(&h->unsent, n) || !klawi_hub_events_reserve(h, 1) ||
        !(t = ticket_new(h, ticket, (uint32_t)n)))
        return KLAW_NOMEM;
    for (size_t i = 0; i < n; i++) {
        uint32_t flags = whole && i == 0 ? KLAW_REMOTE_BATCH_FIRST : 0;
        flags |= whole && i == n - 1 ? KLAW_REMOTE_BATCH_LAST : 0;
        if (!send_one(h, e, &items[i], t, flags)) {
            unsent_cut(h, i);
            ticket_retire(h, t);
            t->next = h->free_tickets;
            h->free_tickets = t;
            return KLAW_NOMEM;
        }
    }
    e->unsent += n;
    return KLAW_OK;
}

static void room_event(klaw_hub *h) {
    if (!h->want_room || h->opts.retain_bytes == KLAW_NONE ||
        bytes_held(h) > (uint64_t)h->opts.retain_bytes / 2 || !klawi_hub_events_reserve(h, 1))
        return;
    h->want_room = false;
    klawi_hub_event(h, KLAW_HUB_ROOM, 0, 0);
}

/* An unsent item is not wanted any more; its place is skipped. */
static void unsent_drop(klaw_hub *h, klawi_hub_item *i) {
    h->unsent_bytes -= i->size + i->context_size;
    i->size = i->context_size = 0;
    h->items_held--;
    item_free(h, i);
    i->dropped = true;
    i->from->unsent--;
    if (i->from->closing && i->from->unsent == 0)
        klawi_hub_endpoint_drop(h, i->from);
    i->from = NULL;
}

void klawi_hub_unsent_skip(klaw_hub *h) {
    while (h->unsent.first < h->unsent.next &&
           h->unsent.at[h->unsent.first & h->unsent.mask].dropped)
        h->unsent.first++;
}

/* A kept item becomes void: it goes on holding its number. */
static void kept_void(klaw_hub *h, klawi_hub_item *i) {
    h->kept_bytes -= i->size + i->context_size;
    i->size = i->context_size = 0;
    item_free(h, i);
    i->flags = KLAW_REMOTE_VOID | (i->flags & (KLAW_REMOTE_BATCH_FIRST | KLAW_REMOTE_BATCH_LAST));
}

klaw_err klaw_hub_withdraw(klaw_hub *h, int64_t now, uint64_t ticket) {
    h->now = now;
    klawi_ticket **at = ticket_find(h, ticket), *t = at ? *at : NULL;
    if (!t)
        return KLAW_NOT_FOUND;
    bool uncertain = t->unsent < t->n;
    ticket_retire(h, t);
    t->left++; /* until this is through */
    for (uint64_t s = t->at > h->unsent.first ? t->at : h->unsent.first;
         t->unsent && s < h->unsent.next; s++) {
        klawi_hub_item *i = &h->unsent.at[s & h->unsent.mask];
        if (i->ticket != t)
            continue;
        t->unsent--;
        t->left--;
        i->ticket = NULL;
        unsent_drop(h, i);
    }
    klawi_hub_unsent_skip(h);
    for (uint64_t s = h->accepted + 1; s <= h->framed && uncertain; s++) {
        klawi_hub_item *i = klawi_hub_kept(h, s);
        if (i->ticket != t || KLAWI_POLICY_MUTANT(WITHDRAWN_RESENT))
            continue;
        kept_void(h, i);
        /* It may be the one for which the broker keeps a place in the line. */
        h->head_void |= s == h->there + 1 && !KLAWI_POLICY_MUTANT(PLACE_KEPT);
    }
    klawi_hub_item last = {.ticket = t};
    ticket_unref(h, &last);
    room_event(h);
    return uncertain && !KLAWI_POLICY_MUTANT(UNCERTAIN_IS_OK) ? KLAW_UNCERTAIN : KLAW_OK;
}

/* --- numbers --- */

uint64_t klawi_hub_number(klaw_hub *h, uint64_t most) {
    klawi_hub_unsent_skip(h);
    if (h->unsent.first == h->unsent.next)
        return 0;
    uint64_t n = 0;
    bool whole =
        (h->unsent.at[h->unsent.first & h->unsent.mask].flags & KLAW_REMOTE_BATCH_FIRST) != 0;
    for (bool last = false; !last && h->unsent.first < h->unsent.next;) {
        klawi_hub_item *i = &h->unsent.at[h->unsent.first & h->unsent.mask];
        KLAWI_ASSERT(!i->dropped || !whole);
        if (!whole && n >= most)
            break;
        h->unsent.first++;
        last = !whole || (i->flags & KLAW_REMOTE_BATCH_LAST);
        h->unsent_bytes -= i->size + i->context_size;
        h->kept_bytes += i->size + i->context_size;
        i->ticket->unsent--;
        if (--i->from->unsent == 0 && i->from->closing)
            klawi_hub_endpoint_drop(h, i->from);
        i->from = NULL;
        h->kept.at[h->kept.next++ & h->kept.mask] = *i;
        h->framed++;
        n++;
    }
    return n;
}

/* What is finished is let go; the kept ones begin at the first that is not. */
static void kept_release(klaw_hub *h, uint64_t seq) {
    klawi_hub_item *i = klawi_hub_kept(h, seq);
    if (i->ticket || i->dropped)
        return; /* not confirmed by this answer: an older one */
    h->items_held--;
    if (!(i->flags & KLAW_REMOTE_VOID))
        kept_void(h, i);
    i->dropped = true;
}

void klawi_hub_confirm(klaw_hub *h, uint64_t accepted, const klawi_ranges *refused, uint64_t done,
                       const klawi_ranges *more_done) {
    for (size_t r = 0; r < refused->n; r++) { /* W13: final, accepted or not */
        uint64_t from = refused->at[r].from, to = refused->at[r].to;
        from = from < h->kept.first ? h->kept.first : from;
        for (uint64_t s = from; s <= to && s <= h->framed; s++) {
            klawi_hub_item *i = klawi_hub_kept(h, s);
            if (!i->ticket || (i->flags & KLAW_REMOTE_VOID))
                continue;
            i->ticket->refused++;
            kept_void(h, i);
            ticket_unref(h, i);
        }
    }
    if (accepted > h->framed)
        accepted = h->framed;
    for (uint64_t s = h->accepted + 1; s <= accepted; s++)
        ticket_unref(h, klawi_hub_kept(h, s));
    if (accepted > h->accepted)
        h->accepted = accepted;
    if (accepted > h->there)
        h->there = accepted;
    if (h->pushed < h->there)
        h->pushed = h->there;
    /* W15; nothing is sent twice to a broker that forgets nothing, or if that is not wanted. */
    bool keeps = !h->durable && h->ack != KLAW_REMOTE_ACK_BEFORE;
    if (!keeps || KLAWI_POLICY_MUTANT(KEEPS_NOTHING))
        done = h->there;
    if (done > h->there)
        done = h->there;
    for (uint64_t s = h->kept.first; s <= done; s++)
        kept_release(h, s);
    for (size_t r = 0; r < more_done->n; r++) {
        uint64_t from = more_done->at[r].from, to = more_done->at[r].to;
        from = from < h->kept.first ? h->kept.first : from;
        for (uint64_t s = from; s <= to && s <= h->there; s++)
            kept_release(h, s);
    }
    while (h->kept.first <= h->there && klawi_hub_kept(h, h->kept.first)->dropped)
        h->kept.first++;
    room_event(h);
}

void klawi_hub_fail_sends(klaw_hub *h, klaw_hub_event_kind unsent, klaw_hub_event_kind framed) {
    for (uint64_t s = h->accepted + 1; s <= h->framed; s++) {
        klawi_hub_item *i = klawi_hub_kept(h, s);
        if (!i->ticket)
            continue;
        /* A part of it is there already, or an earlier boot may have had it. */
        bool perhaps = s <= h->earlier || i->ticket->left < i->ticket->n;
        ticket_tell(h, i->ticket, perhaps ? KLAW_HUB_UNCERTAIN : framed);
        ticket_unref(h, i);
        if (!(i->flags & KLAW_REMOTE_VOID))
            kept_void(h, i);
    }
    /* Without a number: all of them, or those of a ticket that has ended in part. */
    bool all = unsent != framed || unsent != KLAW_HUB_UNCERTAIN;
    for (uint64_t s = h->unsent.first; s < h->unsent.next; s++) {
        klawi_hub_item *i = &h->unsent.at[s & h->unsent.mask];
        if (i->dropped || !(all || i->ticket->gone || i->ticket->unsent < i->ticket->n))
            continue;
        ticket_tell(h, i->ticket, i->ticket->unsent < i->ticket->n ? KLAW_HUB_UNCERTAIN : unsent);
        ticket_unref(h, i);
        unsent_drop(h, i);
    }
    klawi_hub_unsent_skip(h);
    room_event(h);
}

void klawi_hub_numbers_reset(klaw_hub *h) {
    for (uint64_t s = h->kept.first; s < h->kept.next; s++) {
        klawi_hub_item *i = klawi_hub_kept(h, s);
        if (!(i->flags & KLAW_REMOTE_VOID))
            kept_void(h, i);
        h->items_held -= !i->dropped;
    }
    h->kept.first = h->kept.next = 1;
    h->framed = h->pushed = h->accepted = h->there = h->earlier = 0;
    room_event(h);
}

void klawi_hub_numbers_resume(klaw_hub *h) {
    if (h->ack == KLAW_REMOTE_ACK_BEFORE && !h->durable && !KLAWI_POLICY_MUTANT(BEFORE_RESENT))
        klawi_hub_fail_sends(h, KLAW_HUB_UNCERTAIN, KLAW_HUB_UNCERTAIN); /* at most once */
    for (uint64_t s = h->kept.first; s <= h->framed; s++) {
        klawi_hub_item *i = klawi_hub_kept(h, s);
        if (!h->durable && !KLAWI_POLICY_MUTANT(RESENT_UNMARKED))
            i->flags |= KLAW_REMOTE_REDELIVERED;
        /* The earlier boot may have taken it: it can't be refused any more. */
        i->flags &= ~(uint32_t)KLAW_REMOTE_NOWAIT;
        if (s <= h->accepted)
            i->flags &= ~(uint32_t)(KLAW_REMOTE_BATCH_FIRST | KLAW_REMOTE_BATCH_LAST);
    }
    h->earlier = h->durable ? 0 : h->framed;
    h->pushed = h->there = h->kept.first - 1;
    h->full = false;
    h->room = 0;
}

static void item_end(klaw_hub *h, klawi_hub_item *i) {
    klawi_ticket *t = i->ticket;
    item_free(h, i);
    if (t && --t->left == 0 && t->gone)
        klawi_free(t); /* it is in no table */
}

void klawi_hub_send_free(klaw_hub *h) {
    for (uint64_t s = h->kept.first; s < h->kept.next; s++)
        item_end(h, klawi_hub_kept(h, s));
    for (uint64_t s = h->unsent.first; s < h->unsent.next; s++)
        item_end(h, &h->unsent.at[s & h->unsent.mask]);
    for (size_t i = 0; i < h->ticket_slots; i++)
        for (klawi_ticket *t = h->tickets[i], *next; t; t = next) {
            next = t->next;
            klawi_free(t);
        }
    for (klawi_ticket *t; (t = h->free_tickets);) {
        h->free_tickets = t->next;
        klawi_free(t);
    }
    klawi_free(h->tickets);
    klawi_free(h->unsent.at);
    klawi_free(h->kept.at);
    chunk_unref(h->chunk);
}
