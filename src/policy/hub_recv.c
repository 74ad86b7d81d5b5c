/* SPDX-License-Identifier: Apache-2.0 */
/* hub_recv.c - a hub's items that came in: leases, acknowledgements, credits, and what was received
 * of whom.
 *
 * Leases have dense numbers, given by the broker, and stand in a ring. QUEUE: ready ones form one
 * list for all receivers; else one for each endpoint. What was received is remembered as ranges of
 * each sender's numbers (W26), down to what that sender has let go of: a broker that starts anew
 * does not deliver it again. */
#include "policy/hub.h"

static klawi_hub_lease *lease_at(const klaw_hub *h, uint64_t number) {
    return &h->leases[number & h->lease_mask];
}

static klawi_hub_endpoint *ready_of(klaw_hub *h, uint64_t endpoint) {
    return h->opts.kind == KLAW_REMOTE_QUEUE ? &h->queue : klawi_hub_endpoint_find(h, endpoint);
}

/* --- room --- */

static bool leases_reserve(klaw_hub *h, uint64_t more) {
    uint64_t used = h->lease_next - h->lease_base, room = h->leases ? h->lease_mask + 1 : 0;
    if (room - used >= more)
        return true;
    room = room ? room : 64;
    while (room - used < more)
        room *= 2;
    klawi_hub_lease *leases = klawi_calloc((size_t)room, sizeof *leases);
    if (!leases)
        return false;
    for (uint64_t i = h->lease_base; i < h->lease_next; i++)
        leases[i & (room - 1)] = *lease_at(h, i);
    klawi_free(h->leases);
    h->leases = leases;
    h->lease_mask = room - 1;
    return true;
}

bool klawi_hub_acks_reserve(klaw_hub *h, uint64_t more) {
    size_t need = (size_t)(h->live + more) + 1;
    if (!klawi_ranges_reserve(&h->acks, need))
        return false;
    if (h->nacks.room - h->nacks.n >= need)
        return true;
    size_t room = 2 * (h->nacks.n + need);
    klawi_nack *at = klawi_realloc(h->nacks.at, room * sizeof *at);
    if (!at)
        return false;
    h->nacks.at = at;
    h->nacks.room = room;
    return true;
}

static klawi_had *had_of(klawi_origin *o, uint64_t endpoint) {
    for (size_t i = 0; i < o->n_had; i++)
        if (o->had[i].endpoint == endpoint)
            return &o->had[i];
    return NULL;
}

static void had_free(klawi_had *had) {
    klawi_ranges_free(&had->seqs);
    klawi_ranges_free(&had->done);
}

static void origin_free(klawi_origin *o) {
    for (size_t i = 0; i < o->n_had; i++)
        had_free(&o->had[i]);
    klawi_free(o->had);
    klawi_free(o);
}

void klawi_hub_had_forget(klaw_hub *h, uint64_t endpoint) {
    for (klawi_origin *o = h->origins; o; o = o->next) {
        klawi_had *had = had_of(o, endpoint);
        if (!had || KLAWI_POLICY_MUTANT(HAD_KEPT))
            continue;
        had_free(had);
        *had = o->had[--o->n_had];
    }
}

/* How often that is looked for. */
#define FORGET_NS INT64_C(60000000000)

void klawi_hub_origins_tick(klaw_hub *h) {
    if (h->now < h->forget_at || KLAWI_POLICY_MUTANT(HAD_KEPT))
        return;
    h->forget_at = h->now + FORGET_NS;
    for (klawi_origin **at = &h->origins, *o; (o = *at);) {
        if (o->live || h->now - o->seen_at < KLAWI_HUB_REMEMBER_NS) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        klawi_id_remove(&h->origin_map, &o->id);
        h->n_origins--;
        origin_free(o);
    }
}

/* That sender's and that endpoint's record, with room for `more` items. NULL: no memory. */
static klawi_had *had_reserve(klawi_origin *o, uint64_t endpoint, uint64_t more) {
    klawi_had *had = had_of(o, endpoint);
    if (!had) {
        klawi_had *all = klawi_realloc(o->had, (o->n_had + 1) * sizeof *all);
        if (!all)
            return NULL;
        o->had = all;
        had = &all[o->n_had++];
        *had = (klawi_had){.endpoint = endpoint};
    }
    /* Each live item may split a range when it goes back. */
    return klawi_ranges_reserve(&had->seqs, (size_t)(had->live + 2 * more) + 1) ? had : NULL;
}

static klawi_origin *origin_get(klaw_hub *h, const unsigned char *id) {
    klawi_origin *o = (klawi_origin *)(void *)klawi_id_find(&h->origin_map, id);
    if (o) {
        o->seen_at = h->now;
        return o;
    }
    o = klawi_calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->seen_at = h->now;
    memcpy(o->id.id, id, KLAW_REMOTE_ID);
    klawi_id_add(&h->origin_map, &o->id);
    o->next = h->origins;
    h->origins = o;
    h->n_origins++;
    return o;
}

/* --- the ends of leases --- */

/* Out of the ring; back: its item was not received, after all. */
static void lease_end(klaw_hub *h, uint64_t number, bool back) {
    klawi_hub_lease *l = lease_at(h, number);
    klawi_had *had = had_of(l->from, h->opts.kind == KLAW_REMOTE_QUEUE ? 0 : l->endpoint);
    if (had) {
        had->live--;
        if (back)
            klawi_ranges_remove(&had->seqs, l->seq);
    }
    l->from->live--;
    l->from->seen_at = h->now;
    h->held -= l->state == KLAWI_HUB_HELD;
    h->live--;
    klawi_frame_unref(l->frame);
    if (l->attachment && h->opts.drop)
        h->opts.drop(l->attachment);
    *l = (klawi_hub_lease){0};
    while (h->lease_base < h->lease_next && lease_at(h, h->lease_base)->state == KLAWI_HUB_NONE)
        h->lease_base++;
    if (h->empty && h->held == 0)
        klawi_hub_items_event(h, &h->queue);
}

static void ack_soon(klaw_hub *h) {
    if (h->ack_at == 0)
        h->ack_at = h->now;
}

static void lease_ack(klaw_hub *h, uint64_t number) {
    klawi_hub_endpoint *e = klawi_hub_endpoint_find(h, lease_at(h, number)->endpoint);
    if (e)
        e->received++;
    lease_end(h, number, false);
    klawi_ranges_add(&h->acks, number);
    ack_soon(h);
}

static void lease_nack(klaw_hub *h, uint64_t number, bool seen) {
    lease_end(h, number, true);
    h->nacks.at[h->nacks.n++] = (klawi_nack){number, seen};
    h->empty = false; /* it may come again */
    h->queue.ended = false;
    ack_soon(h);
}

/* The first ready lease, taken out of the list; 0: none. */
static uint64_t ready_pop(klaw_hub *h, klawi_hub_endpoint *e) {
    uint64_t number = e->head;
    if (!number)
        return 0;
    e->head = lease_at(h, number)->next;
    if (!e->head)
        e->tail = 0;
    e->ready--;
    h->ready--;
    return number;
}

static void ready_push(klaw_hub *h, klawi_hub_endpoint *e, uint64_t number) {
    if (e->tail)
        lease_at(h, e->tail)->next = number;
    else
        e->head = number;
    e->tail = number;
    e->ready++;
    h->ready++;
}

/* All that is ready goes back unseen (W18). */
static void ready_return(klaw_hub *h, klawi_hub_endpoint *e) {
    for (uint64_t number; (number = ready_pop(h, e));)
        if (h->opts.kind == KLAW_REMOTE_QUEUE)
            lease_nack(h, number, false);
        else
            lease_ack(h, number); /* it was a copy for this endpoint */
}

static bool receivers_left(const klaw_hub *h) {
    for (size_t i = 0; i < h->n_endpoints; i++)
        if (h->endpoints[i]->side == KLAW_REMOTE_RECEIVER)
            return true;
    return false;
}

void klawi_hub_receiver_close(klaw_hub *h, klawi_hub_endpoint *e) {
    for (uint64_t i = h->lease_base, end = h->lease_next; i < end; i++) {
        klawi_hub_lease *l = i >= h->lease_base ? lease_at(h, i) : NULL;
        if (!l || l->state != KLAWI_HUB_HELD || l->endpoint != e->id)
            continue;
        if (h->opts.kind == KLAW_REMOTE_QUEUE && h->ack == KLAW_REMOTE_ACK_EXPLICIT &&
            !KLAWI_POLICY_MUTANT(CLOSE_ACKS))
            lease_nack(h, i, true); /* W20: nobody has said that it is done */
        else
            lease_ack(h, i);
    }
    h->queue.waiting -= e->waiting;
    if (h->opts.kind != KLAW_REMOTE_QUEUE)
        ready_return(h, e);
    klawi_hub_endpoint_drop(h, e);
    if (h->opts.kind == KLAW_REMOTE_QUEUE && !receivers_left(h) &&
        !KLAWI_POLICY_MUTANT(KEEPS_UNUSED))
        ready_return(h, &h->queue);
}

/* Another process may wait for it. Copies have nobody else to go to. */
int64_t klawi_hub_idle_at(const klaw_hub *h) {
    bool idle = h->opts.kind == KLAW_REMOTE_QUEUE && h->queue.ready && h->queue.waiting == 0 &&
                !KLAWI_POLICY_MUTANT(KEEPS_IDLE);
    return idle ? h->idle_since + KLAWI_HUB_IDLE_NS : INT64_MAX;
}

void klawi_hub_idle_return(klaw_hub *h) {
    ready_return(h, &h->queue);
    h->taken_at[0] = h->taken_at[1] = h->taken; /* no reason to ask for more */
}

void klawi_hub_leases_drop(klaw_hub *h) {
    bool queue = h->opts.kind == KLAW_REMOTE_QUEUE;
    for (uint64_t i = h->lease_base, end = h->lease_next; i < end; i++) {
        klawi_hub_lease *l = i >= h->lease_base ? lease_at(h, i) : NULL;
        if (!l || l->state == KLAWI_HUB_NONE || (!queue && l->state == KLAWI_HUB_READY))
            continue;
        lease_end(h, i, queue); /* others will have it */
    }
    if (queue) {
        h->ready = h->queue.ready = 0;
        h->queue.head = h->queue.tail = 0;
    }
    h->acks.n = 0;
    h->nacks.n = 0;
}

/* --- items that come --- */

/* An answer's items, between the two walks over it. */
typedef struct arrival {
    klawi_in in;
    uint64_t clients, n, first;
    klawi_origin **table;
} arrival;

/* Reads the head of one. */
static bool arrival_item(const klaw_hub *h, klawi_in *in, const arrival *a, klawi_hub_lease *l,
                         klawi_wire_item *w) {
    uint64_t at = klawi_in_var(in);
    *l = (klawi_hub_lease){.seq = klawi_in_var(in)};
    if (h->opts.kind != KLAW_REMOTE_QUEUE) {
        l->endpoint = klawi_in_var(in);
        l->missed = klawi_in_var(in);
    }
    if (!klawi_in_item(in, w) || at >= a->clients)
        return false;
    l->from = a->table[at];
    l->deadline = w->deadline;
    l->flags = w->flags;
    l->body_size = (uint32_t)w->body_size;
    return true;
}

/* Checks all and takes the memory. */
static klaw_err arrival_reserve(klaw_hub *h, arrival *a, size_t attached) {
    klawi_in in = a->in;
    uint64_t attachments = 0, fresh = 0;
    for (uint64_t i = 0; i < a->n; i++) {
        klawi_hub_lease l;
        klawi_wire_item w;
        if (!arrival_item(h, &in, a, &l, &w))
            return KLAW_INVALID;
        attachments += (w.flags & KLAWI_WIRE_ATTACHED) != 0;
        fresh += a->first + i >= h->lease_next;
        if (ready_of(h, l.endpoint) && !had_reserve(l.from, l.endpoint, a->n))
            return KLAW_NOMEM;
    }
    while (klawi_in_left(&in) && !in.bad) /* endpoints that are at their end */
        klawi_in_var(&in);
    if (in.bad || attachments != attached ||
        (a->n && (a->first > h->lease_next || a->first + a->n < h->lease_next)))
        return KLAW_INVALID;
    if (!leases_reserve(h, fresh) || !klawi_hub_acks_reserve(h, fresh))
        return KLAW_NOMEM;
    return KLAW_OK;
}

/* A broadcast item that this endpoint had of an earlier boot (W27). */
static bool had_before(const klawi_had *had, const klawi_hub_lease *l) {
    return (l->flags & KLAW_REMOTE_REDELIVERED) && klawi_ranges_has(&had->seqs, l->seq);
}

static void arrival_take(klaw_hub *h, klawi_hub_lease *l, klawi_frame *f, size_t at,
                         void *attachment) {
    bool queue = h->opts.kind == KLAW_REMOTE_QUEUE;
    klawi_hub_endpoint *e = ready_of(h, l->endpoint);
    klawi_had *had = e ? had_of(l->from, queue ? 0 : l->endpoint) : NULL; /* it was closed */
    uint64_t number = h->lease_next++;
    l->body = f->data + at;
    l->frame = f;
    f->refs++;
    l->attachment = attachment;
    l->state = KLAWI_HUB_READY;
    bool again = !queue && had && had_before(had, l);
    if (had) {
        klawi_ranges_add(&had->seqs, l->seq);
        had->live++;
        if (had->seqs.n > KLAWI_HUB_RANGES)
            klawi_ranges_below(&had->seqs, had->seqs.at[1].from);
    }
    l->from->live++;
    *lease_at(h, number) = *l;
    h->live++;
    if (e)
        e->got++;
    if (queue ? !receivers_left(h) : !e) {
        if (queue)
            lease_nack(h, number, false);
        else
            lease_ack(h, number);
        return;
    }
    if (again) {
        lease_ack(h, number);
        return;
    }
    ready_push(h, e, number);
    h->idle_since = h->now;
    klawi_hub_items_event(h, e);
}

static void ends_take(klaw_hub *h, klawi_in *in) {
    while (klawi_in_left(in)) {
        klawi_hub_endpoint *e = klawi_hub_endpoint_find(h, klawi_in_var(in));
        if (!e || e->ended)
            continue;
        e->ended = true;
        klawi_hub_items_event(h, e);
    }
}

klaw_err klawi_hub_items(klaw_hub *h, klawi_in *in, const void *data, size_t size,
                         void *const *attachments, size_t attached) {
    arrival a = {.clients = klawi_in_count(in, KLAW_REMOTE_ID + 1)};
    a.table = klawi_alloc((size_t)a.clients * sizeof(klawi_origin *));
    klaw_err e = a.table ? KLAW_OK : KLAW_NOMEM;
    for (uint64_t i = 0; e == KLAW_OK && i < a.clients; i++) {
        const unsigned char *id = klawi_in_raw(in, KLAW_REMOTE_ID);
        uint64_t base = klawi_in_var(in);
        if (in->bad)
            e = KLAW_INVALID;
        else if (!(a.table[i] = origin_get(h, id)))
            e = KLAW_NOMEM;
        else if (base > a.table[i]->base) {
            a.table[i]->base = base;
            for (size_t j = 0; j < a.table[i]->n_had; j++)
                klawi_ranges_below(&a.table[i]->had[j].seqs, base);
        }
    }
    a.first = klawi_in_var(in);
    a.n = klawi_in_count(in, 14);
    a.in = *in;
    klawi_frame *f = NULL;
    if (e == KLAW_OK)
        e = in->bad ? KLAW_INVALID : arrival_reserve(h, &a, attached);
    if (e == KLAW_OK && a.n && !(f = klawi_frame_new(size)))
        e = KLAW_NOMEM;
    if (e != KLAW_OK) {
        klawi_free(a.table);
        return e;
    }
    if (f)
        memcpy(f->data, data, size);
    size_t used = 0;
    for (uint64_t i = 0; i < a.n; i++) {
        klawi_hub_lease l;
        klawi_wire_item w;
        bool ok = arrival_item(h, in, &a, &l, &w);
        KLAWI_ASSERT(ok);
        (void)ok;
        void *attachment = w.flags & KLAWI_WIRE_ATTACHED ? attachments[used++] : NULL;
        if (a.first + i >= h->lease_next)
            arrival_take(h, &l, f, (size_t)(w.body - (const unsigned char *)data), attachment);
        else if (attachment && h->opts.drop)
            h->opts.drop(attachment);
    }
    klawi_frame_unref(f);
    klawi_free(a.table);
    ends_take(h, in);
    h->took = true;
    return KLAW_OK;
}

/* --- credits (W18) --- */

/* Consumption in two round trips, at most what it was since the poll before the last one. */
static uint64_t prefetch(const klaw_hub *h) {
    if (h->ack == KLAW_REMOTE_ACK_EXPLICIT || h->opts.kind == KLAW_REMOTE_WATCH)
        return KLAWI_POLICY_MUTANT(PREFETCHES) ? 100 : 0;
    uint64_t n = h->taken - h->taken_at[1];
    int64_t spent = h->now - h->polled_at[1], trips = 2 * (h->rtt > 1000000 ? h->rtt : 1000000);
    if (spent > trips)
        n = (uint64_t)((double)n * (double)trips / (double)spent);
    return KLAWI_POLICY_MUTANT(PREFETCHES) ? n + 100 : n;
}

uint64_t klawi_hub_limit(const klaw_hub *h, const klawi_hub_endpoint *e) {
    int64_t want = e->waiting - (int64_t)e->ready;
    if (e->waiting > 0 || e->ready > 0 || h->taken > h->taken_at[1])
        want += (int64_t)prefetch(h);
    return e->got + (uint64_t)(want > 0 ? want : 0);
}

void klaw_hub_wait(klaw_hub *h, int64_t now, uint64_t endpoint, int delta) {
    h->now = now;
    klawi_hub_endpoint *e = klawi_hub_endpoint_find(h, endpoint);
    if (!e || e->side != KLAW_REMOTE_RECEIVER)
        return;
    if (e->waiting + delta < 0)
        delta = (int)-e->waiting;
    e->waiting += delta;
    h->queue.waiting += delta;
}

/* --- taking --- */

static klaw_err take_nothing(klaw_hub *h, klawi_hub_endpoint *e) {
    if (h->broken)
        return KLAW_BACKEND;
    /* What another consumer of this process holds may come back. */
    bool ended = h->opts.kind != KLAW_REMOTE_QUEUE
                     ? e->ended
                     : h->empty && (h->held == 0 || h->ack != KLAW_REMOTE_ACK_NEXT);
    if (h->deleted || h->left || h->no_receivers || ended)
        return KLAW_CLOSED;
    return KLAW_EMPTY;
}

static klaw_err take_copy(const klawi_hub_lease *l, uint64_t number, klaw_remote_item *out) {
    klaw_err e = klawi_wire_copy(l->body, l->body_size, out);
    if (e)
        return e;
    out->attachment = l->attachment;
    out->seq = l->seq;
    out->lease = number;
    out->flags &= KLAWI_WIRE_PUBLIC_FLAGS & ~(uint32_t)KLAW_REMOTE_NOWAIT;
    memcpy(out->client, l->from->id.id, KLAW_REMOTE_ID);
    return KLAW_OK;
}

klaw_err klaw_hub_take(klaw_hub *h, int64_t now, int64_t real_now, uint64_t endpoint,
                       klaw_remote_item *out, uint64_t *missed) {
    h->now = now;
    uint64_t none;
    missed = missed ? missed : &none;
    *missed = 0;
    klawi_hub_endpoint *taker = klawi_hub_endpoint_find(h, endpoint);
    if (!taker || taker->side != KLAW_REMOTE_RECEIVER)
        return KLAW_CLOSED;
    if (h->lost) { /* W27: told once */
        *missed = h->lost;
        h->lost = 0;
        return KLAW_STOPPED;
    }
    klawi_hub_endpoint *e = h->opts.kind == KLAW_REMOTE_QUEUE ? &h->queue : taker;
    while (e->head) {
        uint64_t number = e->head;
        klawi_hub_lease *l = lease_at(h, number);
        if (l->missed) { /* even if the item itself is late */
            *missed = l->missed;
            l->missed = 0;
            return KLAW_LAGGED;
        }
        if (l->deadline && l->deadline <= real_now) {
            ready_pop(h, e);
            lease_ack(h, number);
            continue;
        }
        klaw_err err = take_copy(l, number, out);
        if (err != KLAW_OK)
            return err;
        ready_pop(h, e);
        l->attachment = NULL;
        l->endpoint = endpoint;
        l->state = KLAWI_HUB_HELD;
        h->held++;
        h->taken++;
        h->idle_since = now;
        if (h->ack == KLAW_REMOTE_ACK_BEFORE && !KLAWI_POLICY_MUTANT(BEFORE_IS_NEXT))
            lease_ack(h, number);
        return KLAW_OK;
    }
    return take_nothing(h, e);
}

static klaw_err held_check(klaw_hub *h, uint64_t lease) {
    return lease >= h->lease_base && lease < h->lease_next &&
                   lease_at(h, lease)->state == KLAWI_HUB_HELD
               ? KLAW_OK
               : KLAW_NOT_FOUND;
}

klaw_err klaw_hub_ack(klaw_hub *h, int64_t now, uint64_t endpoint, uint64_t lease) {
    h->now = now;
    (void)endpoint; /* whoever took it is counted */
    klaw_err e = held_check(h, lease);
    if (e == KLAW_OK && !KLAWI_POLICY_MUTANT(ACK_DROPPED))
        lease_ack(h, lease);
    return e;
}

klaw_err klaw_hub_nack(klaw_hub *h, int64_t now, uint64_t endpoint, uint64_t lease, bool seen) {
    h->now = now;
    (void)endpoint;
    klaw_err e = held_check(h, lease);
    if (e == KLAW_OK)
        lease_nack(h, lease, seen);
    return e;
}

void klawi_hub_recv_free(klaw_hub *h) {
    for (uint64_t i = h->lease_base; i < h->lease_next; i++) {
        klawi_hub_lease *l = lease_at(h, i);
        klawi_frame_unref(l->frame);
        if (l->attachment && h->opts.drop)
            h->opts.drop(l->attachment);
    }
    for (klawi_origin *o; (o = h->origins);) {
        h->origins = o->next;
        origin_free(o);
    }
    klawi_free(h->origin_map.slot);
    klawi_free(h->leases);
    klawi_ranges_free(&h->acks);
    klawi_free(h->nacks.at);
}
