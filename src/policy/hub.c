/* SPDX-License-Identifier: Apache-2.0 */
/* hub.c - a hub's life: endpoints, tokens, events, its clock. See policy/hub.h for the parts and the
 * invariants. */
#include "policy/hub.h"

#include <stdio.h>

#define SECOND INT64_C(1000000000)

/* --- life --- */

static bool opts_ok(const klaw_hub_opts *o) {
    return !klawi_id_zero(o->client) && (unsigned)o->kind <= KLAW_REMOTE_WATCH &&
           (unsigned)o->ack <= KLAW_REMOTE_ACK_BEFORE && (o->type_size == 0 || o->type) &&
           (!o->node || strlen(o->node) <= 255) && o->in_flight <= 64 &&
           o->retain_bytes >= KLAW_NONE && o->renew_ns >= 0 && o->retry_ns >= 0 &&
           o->frame_bytes <= 1u << 30 && o->answer_bytes <= 1u << 30;
}

klaw_err klaw_hub_new_sized(const klaw_hub_opts *opts, size_t opts_size, klaw_hub **out) {
    klaw_hub_opts o = {0};
    if (!opts || !out || opts_size > sizeof o)
        return KLAW_INVALID;
    memcpy(&o, opts, opts_size);
    if (!opts_ok(&o))
        return KLAW_INVALID;
    klaw_hub *h = klawi_calloc(1, sizeof *h);
    if (!h)
        return KLAW_NOMEM;
    o.frame_bytes = o.frame_bytes ? o.frame_bytes : 96u << 10;
    o.in_flight = o.in_flight ? o.in_flight : 8;
    o.retain_bytes = o.retain_bytes ? o.retain_bytes : 64 << 20;
    o.renew_ns = o.renew_ns ? o.renew_ns : 5 * SECOND;
    o.retry_ns = o.retry_ns ? o.retry_ns : 20000000;
    size_t node_size = o.node ? strlen(o.node) : 0;
    char *node = klawi_calloc(node_size + 1, 1);
    void *type = klawi_alloc(o.type_size);
    if (node && node_size)
        memcpy(node, o.node, node_size);
    if (type && o.type_size)
        memcpy(type, o.type, o.type_size);
    o.node = node;
    o.type = type;
    h->opts = o;
    h->ack = o.ack;
    h->answer = o.answer_bytes < KLAWI_HUB_ANSWER ? o.answer_bytes : KLAWI_HUB_ANSWER;
    h->kept.first = h->kept.next = 1;
    h->lease_base = h->lease_next = 1;
    h->tokens_at = INT64_MAX;
    h->push = klawi_calloc(o.in_flight, sizeof *h->push);
    if (!node || !type || !h->push || !klawi_id_init(&h->origin_map) ||
        !klawi_hub_events_reserve(h, 8)) {
        klaw_hub_free(h);
        return KLAW_NOMEM;
    }
    *out = h;
    return KLAW_OK;
}

void klaw_hub_free(klaw_hub *h) {
    if (!h)
        return;
    if (h->push)
        klawi_hub_slots_reset(h);
    klawi_hub_send_free(h);
    klawi_hub_recv_free(h);
    for (size_t i = 0; i < h->n_endpoints; i++)
        klawi_free(h->endpoints[i]);
    klawi_free(h->endpoints);
    klawi_free(h->tokens);
    klawi_free(h->events);
    klawi_free(h->push);
    klawi_free((void *)(uintptr_t)h->opts.node);
    klawi_free((void *)(uintptr_t)h->opts.type);
    klawi_free(h);
}

/* --- events --- */

bool klawi_hub_events_reserve(klaw_hub *h, uint64_t n) {
    /* One for each ticket and each endpoint, and a few that come once. */
    uint64_t used = h->event_next - h->event_first,
             need = used + h->n_tickets + h->n_endpoints + n + 8,
             room = h->events ? h->event_mask + 1 : 0;
    if (room >= need)
        return true;
    room = room ? room : 32;
    while (room < need)
        room *= 2;
    klaw_hub_event *events = klawi_alloc((size_t)room * sizeof *events);
    if (!events)
        return false;
    for (uint64_t i = h->event_first; i < h->event_next; i++)
        /* Not so, but the analyzer does not follow why. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
        events[i & (room - 1)] = h->events[i & h->event_mask];
    klawi_free(h->events);
    h->events = events;
    h->event_mask = room - 1;
    return true;
}

void klawi_hub_event(klaw_hub *h, klaw_hub_event_kind kind, uint64_t ticket, uint64_t endpoint) {
    KLAWI_ASSERT(h->event_next - h->event_first <= h->event_mask);
    h->events[h->event_next++ & h->event_mask] = (klaw_hub_event){kind, ticket, endpoint};
}

void klawi_hub_items_event(klaw_hub *h, klawi_hub_endpoint *e) {
    if (e->told)
        return;
    e->told = true;
    klawi_hub_event(h, KLAW_HUB_ITEMS, 0, e->id);
}

void klawi_hub_wake_all(klaw_hub *h) {
    if (h->opts.kind == KLAW_REMOTE_QUEUE) {
        klawi_hub_items_event(h, &h->queue);
        return;
    }
    for (size_t i = 0; i < h->n_endpoints; i++)
        if (h->endpoints[i]->side == KLAW_REMOTE_RECEIVER)
            klawi_hub_items_event(h, h->endpoints[i]);
}

bool klaw_hub_next_event(klaw_hub *h, klaw_hub_event *out) {
    if (h->event_first == h->event_next)
        return false;
    *out = h->events[h->event_first++ & h->event_mask];
    if (out->kind == KLAW_HUB_ITEMS) {
        klawi_hub_endpoint *e =
            out->endpoint ? klawi_hub_endpoint_find(h, out->endpoint) : &h->queue;
        if (e)
            e->told = false;
    }
    return true;
}

/* --- endpoints --- */

/* The place of an id, or where it would be. */
static size_t endpoint_at(const klaw_hub *h, uint64_t id) {
    size_t low = 0, high = h->n_endpoints;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (h->endpoints[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

klawi_hub_endpoint *klawi_hub_endpoint_find(const klaw_hub *h, uint64_t id) {
    size_t i = endpoint_at(h, id);
    return i < h->n_endpoints && h->endpoints[i]->id == id ? h->endpoints[i] : NULL;
}

void klawi_hub_endpoint_drop(klaw_hub *h, klawi_hub_endpoint *e) {
    size_t i = endpoint_at(h, e->id);
    if (e->side == KLAW_REMOTE_RECEIVER && h->opts.kind != KLAW_REMOTE_QUEUE)
        klawi_hub_had_forget(h, e->id);
    h->n_endpoints--;
    memmove(&h->endpoints[i], &h->endpoints[i + 1],
            (h->n_endpoints - i) * sizeof(klawi_hub_endpoint *));
    klawi_free(e);
    h->changed = true;
}

static bool closed_to(const klaw_hub *h, klaw_remote_side side) {
    return klawi_hub_over(h) || h->detaching || (side == KLAW_REMOTE_SENDER && h->no_senders) ||
           h->no_receivers;
}

/* A place for one more token. */
static klawi_hub_token *token_place(klaw_hub *h, const unsigned char *id, klaw_remote_side side) {
    if (h->n_tokens == h->tokens_room) {
        size_t room = h->tokens_room ? h->tokens_room * 2 : 8;
        klawi_hub_token *more = klawi_realloc(h->tokens, room * sizeof *more);
        if (!more)
            return NULL;
        h->tokens = more;
        h->tokens_room = room;
    }
    klawi_hub_token *t = &h->tokens[h->n_tokens];
    *t = (klawi_hub_token){.side = side, .number = UINT64_MAX, .at = h->now};
    memcpy(t->id, id, KLAW_REMOTE_ID);
    return t;
}

/* How long the broker keeps a token that nobody states anew. */
static int64_t token_lives(const klaw_hub *h) {
    return h->token_ns ? h->token_ns : 300 * SECOND;
}

static int64_t token_due(const klaw_hub *h, const klawi_hub_token *t) {
    return t->at + (t->claimed ? token_lives(h) : token_lives(h) / 3);
}

static void token_added(klaw_hub *h) {
    const klawi_hub_token *t = &h->tokens[h->n_tokens++];
    h->n_claimed += t->claimed;
    if (token_due(h, t) < h->tokens_at)
        h->tokens_at = token_due(h, t);
    h->wanted = h->changed = true;
}

static void token_remove(klaw_hub *h, size_t i) {
    h->n_claimed -= h->tokens[i].claimed;
    h->tokens[i] = h->tokens[--h->n_tokens];
}

void klawi_hub_token_drop(klaw_hub *h, const unsigned char *id) {
    for (size_t i = 0; i < h->n_tokens; i++)
        if (!h->tokens[i].claimed && klawi_id_same(h->tokens[i].id, id)) {
            token_remove(h, i);
            return;
        }
}

void klawi_hub_tokens_restate(klaw_hub *h) {
    if (KLAWI_POLICY_MUTANT(TOKEN_NOT_RENEWED))
        return;
    for (size_t i = 0; i < h->n_tokens; i++) {
        klawi_hub_token *t = &h->tokens[i];
        if (t->claimed || !t->known)
            continue;
        t->known = false;
        t->at = h->now;
        h->changed = true;
    }
}

/* Claimed ones are kept for a broker that starts anew, until their minter must have heard; minted
 * ones are stated anew as long as they are open. */
static void tokens_tick(klaw_hub *h) {
    if (h->now < h->tokens_at)
        return;
    bool due = false;
    for (size_t i = 0; i < h->n_tokens;) {
        bool over = h->now >= token_due(h, &h->tokens[i]);
        if (over && h->tokens[i].claimed) {
            token_remove(h, i);
        } else {
            due |= over;
            i++;
        }
    }
    if (due)
        klawi_hub_tokens_restate(h);
    h->tokens_at = INT64_MAX;
    for (size_t i = 0; i < h->n_tokens; i++)
        if ((h->tokens[i].claimed || h->tokens[i].known || h->tokens[i].at == h->now) &&
            token_due(h, &h->tokens[i]) < h->tokens_at)
            h->tokens_at = token_due(h, &h->tokens[i]);
}

klaw_err klaw_hub_open(klaw_hub *h, int64_t now, klaw_remote_side side, const unsigned char *token,
                       uint64_t *endpoint) {
    h->now = now;
    if (closed_to(h, side))
        return KLAW_CLOSED;
    if (!klawi_hub_events_reserve(h, 1))
        return KLAW_NOMEM;
    if (h->n_endpoints == h->endpoints_room) {
        size_t room = h->endpoints_room ? h->endpoints_room * 2 : 8;
        klawi_hub_endpoint **more =
            klawi_realloc(h->endpoints, room * sizeof(klawi_hub_endpoint *));
        if (!more)
            return KLAW_NOMEM;
        h->endpoints = more;
        h->endpoints_room = room;
    }
    klawi_hub_endpoint *e = klawi_calloc(1, sizeof *e);
    klawi_hub_token *t = e && token ? token_place(h, token, side) : NULL;
    if (!e || (token && !t)) {
        klawi_free(e);
        return KLAW_NOMEM;
    }
    if (t) {
        t->claimed = true;
        token_added(h);
    }
    e->id = *endpoint = ++h->endpoint_ids;
    e->side = side;
    h->endpoints[h->n_endpoints++] = e;
    h->wanted = h->changed = true;
    return KLAW_OK;
}

klaw_err klaw_hub_close(klaw_hub *h, int64_t now, uint64_t endpoint) {
    h->now = now;
    klawi_hub_endpoint *e = klawi_hub_endpoint_find(h, endpoint);
    if (!e || e->closing)
        return KLAW_NOT_FOUND;
    if (e->side == KLAW_REMOTE_RECEIVER) {
        klawi_hub_receiver_close(h, e);
    } else {
        e->closing = true; /* W6: told when its items have numbers */
        if (e->unsent == 0)
            klawi_hub_endpoint_drop(h, e);
    }
    return KLAW_OK;
}

klaw_err klaw_hub_mint(klaw_hub *h, int64_t now, klaw_remote_side side,
                       const unsigned char *random) {
    h->now = now;
    if (closed_to(h, side))
        return KLAW_CLOSED;
    if (!token_place(h, random, side))
        return KLAW_NOMEM;
    token_added(h);
    return KLAW_OK;
}

/* --- ends --- */

void klawi_hub_break(klaw_hub *h, const char *format, const char *detail) {
    snprintf(h->trouble, sizeof h->trouble, format, detail);
    h->broken = true;
    h->attached = false;
    klawi_hub_fail_sends(h, KLAW_HUB_UNSENT, KLAW_HUB_UNCERTAIN);
    klawi_hub_slots_reset(h);
    klawi_hub_wake_all(h);
}

void klaw_hub_rename(klaw_hub *h, int64_t now, const unsigned char *random) {
    h->now = now;
    if (!h->expired)
        return;
    memcpy(h->opts.client, random, KLAW_REMOTE_ID);
    h->expired = false;
    h->resume = false;
    h->number = h->poll = 0;
    h->queue.got = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        h->endpoints[i]->got = 0;
    h->tokens_ended = 0;
    for (size_t i = 0; i < h->n_tokens;) { /* those it had minted have ended (W23) */
        bool ended = h->tokens[i].known && !h->tokens[i].claimed;
        h->tokens[i].known = false;
        if (ended)
            token_remove(h, i);
        else
            i++;
    }
    h->full = h->empty = false;
    h->room = 0;
    h->poll_at = h->poll_not_before = 0;
}

void klaw_hub_detach(klaw_hub *h, int64_t now) {
    h->now = now;
    if (h->detaching)
        return;
    for (size_t i = h->n_endpoints; i-- > 0;)
        if (i < h->n_endpoints)
            (void)klaw_hub_close(h, now, h->endpoints[i]->id);
    h->detaching = true;
    if (!h->wanted)
        h->left = true;
}

bool klaw_hub_idle(const klaw_hub *h) {
    if (h->event_first != h->event_next)
        return false;
    if (klawi_hub_over(h) || !h->wanted)
        return true;
    return !h->detaching && h->attached && !h->changed && h->attach.state == KLAWI_SLOT_FREE &&
           h->unsent.first == h->unsent.next && h->there >= klawi_hub_through(h) &&
           klawi_hub_push_idle(h) && h->acks.n == 0 && h->nacks.n == 0 && h->polling.acks.n == 0 &&
           h->polling.nacks.n == 0 && h->renew.acks.n == 0 && h->renew.nacks.n == 0;
}

/* --- time --- */

static void sooner(int64_t *at, int64_t other) {
    if (other < *at)
        *at = other;
}

int64_t klaw_hub_deadline(const klaw_hub *h) {
    int64_t at = INT64_MAX;
    if (!h->wanted || h->expired || klawi_hub_over(h))
        return at;
    const klawi_slot *fixed[] = {&h->attach, &h->polling, &h->renew};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (fixed[i]->state == KLAWI_SLOT_AGAIN)
            sooner(&at, fixed[i]->at);
    for (uint32_t i = 0; i < h->opts.in_flight; i++)
        if (h->push[i].state == KLAWI_SLOT_AGAIN)
            sooner(&at, h->push[i].at);
    if (h->n_tokens)
        sooner(&at, h->tokens_at);
    if (!h->attached)
        return at;
    sooner(&at, klawi_hub_idle_at(h));
    if (h->renew.state == KLAWI_SLOT_FREE)
        sooner(&at, h->renew_at);
    if (h->polling.state == KLAWI_SLOT_FREE && !klawi_hub_poll_over(h))
        sooner(&at, h->poll_not_before > h->poll_at ? h->poll_not_before : h->poll_at);
    if (h->polling.state == KLAWI_SLOT_OUT && h->renew.state == KLAWI_SLOT_FREE &&
        (h->acks.n || h->nacks.n))
        sooner(&at, h->ack_at + KLAWI_HUB_ACK_NS);
    return at;
}

void klaw_hub_tick(klaw_hub *h, int64_t now) {
    h->now = now;
    tokens_tick(h);
    klawi_hub_origins_tick(h);
    if (h->attached && now >= klawi_hub_idle_at(h))
        klawi_hub_idle_return(h);
}

/* --- looking in --- */

void klaw_hub_look(const klaw_hub *h, klaw_hub_state *out) {
    bool over = klawi_hub_over(h);
    *out = (klaw_hub_state){
        .attached = h->attached,
        .closed_to_send = over || h->no_senders || h->no_receivers || h->detaching,
        .closed_to_receive =
            over || h->no_receivers || (h->opts.kind == KLAW_REMOTE_QUEUE && h->empty),
        .deleted = h->deleted,
        .broken = h->broken,
        .boot = h->boot,
        .capacity = h->capacity,
        .framed = h->framed,
        .accepted = h->accepted,
        .unsent = h->unsent.next - h->unsent.first,
        .retained_bytes = h->kept_bytes,
        .ready = h->ready,
        .held = h->held,
        .tokens = h->n_tokens - h->n_claimed,
    };
}

const char *klaw_hub_trouble(const klaw_hub *h) {
    return h->trouble;
}
