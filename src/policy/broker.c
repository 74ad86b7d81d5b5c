/* SPDX-License-Identifier: Apache-2.0 */
/* broker.c - a broker's life, its calls and answers, its clock, its statistics. See policy/broker.h
 * for the parts and the invariants.
 *
 * Each entry point first does what time has made due, then its own work, then serves those that wait.
 * Checks of a call in this order, each without effects (W2): version, channel, deleted, boot, client. */
#include "policy/broker.h"

#include <stdio.h>

/* --- life --- */

static int64_t or_default(int64_t value, int64_t otherwise) {
    return value ? value : otherwise;
}

#define SECOND INT64_C(1000000000)

static bool opts_ok(const klaw_broker_opts *o) {
    return o->boot && (unsigned)o->kind <= KLAW_REMOTE_WATCH &&
           (unsigned)o->ack <= KLAW_REMOTE_ACK_BEFORE && o->capacity >= KLAW_NONE &&
           (o->type_size == 0 || o->type) && o->lease_ns >= 0 && o->gather_ns >= 0 &&
           o->park_ns >= 0 && o->remember_ns >= 0 && o->token_ns >= 0 &&
           !(o->durable && o->kind != KLAW_REMOTE_QUEUE) && !klawi_id_zero(o->channel);
}

klaw_err klaw_broker_new_sized(const klaw_broker_opts *opts, size_t opts_size, klaw_broker **out) {
    klaw_broker_opts o = {0};
    if (!opts || !out || opts_size > sizeof o)
        return KLAW_INVALID;
    memcpy(&o, opts, opts_size);
    if (!opts_ok(&o))
        return KLAW_INVALID;
    klaw_broker *b = klawi_calloc(1, sizeof *b);
    if (!b)
        return KLAW_NOMEM;
    o.capacity = or_default(o.capacity, 10000);
    o.lease_ns = or_default(o.lease_ns, 15 * SECOND);
    o.gather_ns = or_default(o.gather_ns, 2 * SECOND);
    o.park_ns = or_default(o.park_ns, 10 * SECOND);
    o.remember_ns = or_default(o.remember_ns, 600 * SECOND);
    o.token_ns = or_default(o.token_ns, 300 * SECOND);
    o.max_parked = o.max_parked ? o.max_parked : 900;
    void *type = klawi_alloc(o.type_size);
    if (type && o.type_size)
        memcpy(type, o.type, o.type_size);
    o.type = type;
    b->opts = o;
    b->gathering = o.restarted;
    b->log_first = b->log_next = 1;
    b->drains = 1;
    b->hold_until = INT64_MIN;
    klawi_link *lists[] = {&b->alive,  &b->gone,    &b->open_tokens, &b->ended_tokens, &b->parked,
                           &b->hungry, &b->blocked, &b->granted,     &b->news,         &b->answers};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        klawi_link_init(lists[i]);
    static const unsigned char nobody[KLAW_REMOTE_ID];
    bool ok = type && klawi_id_init(&b->peers) && klawi_id_init(&b->tokens) &&
              (b->anonymous = klawi_peer_new(b, nobody)) && klawi_done_reserve(b->anonymous, 1) &&
              klawi_journal_reserve(b, 1, 0);
    if (!ok) {
        klaw_broker_free(b);
        return KLAW_NOMEM;
    }
    *out = b;
    return KLAW_OK;
}

/* Every node that p's leases and stash hold. */
static void peer_nodes_free(klaw_broker *b, klawi_peer *p) {
    for (uint64_t i = p->lease_base; i < p->lease_next; i++) {
        klawi_node *n = klawi_lease_at(p, i)->node;
        if (n && (b->opts.kind == KLAW_REMOTE_QUEUE || --n->holders == 0))
            klawi_node_drop(b, n);
    }
    klawi_stash_drop(b, p);
}

void klaw_broker_free(klaw_broker *b) {
    if (!b)
        return;
    for (klaw_broker_answer a; b->committed = UINT64_MAX, klaw_broker_next(b, &a);) {
        for (size_t i = 0; i < a.attached; i++)
            klawi_broker_drop(b, a.attachments[i]);
        klawi_free(a.attachments);
        klawi_free(a.data);
    }
    for (klawi_node *n; (n = b->head);) {
        b->head = n->next;
        klawi_node_drop(b, n);
    }
    for (; b->log_first < b->log_next; b->log_first++) {
        klawi_node *n = b->log[b->log_first & b->log_mask];
        if (--n->holders == 0)
            klawi_node_drop(b, n);
    }
    if (b->latest && --b->latest->holders == 0)
        klawi_node_drop(b, b->latest);
    klawi_link *lists[] = {&b->alive, &b->gone};
    for (int i = 0; i < 2; i++)
        for (klawi_link *l = lists[i]->next; l != lists[i]; l = l->next)
            peer_nodes_free(b, KLAWI_CONTAINER(l, klawi_peer, age));
    for (int i = 0; i < 2; i++)
        for (klawi_link *l = lists[i]->next, *next; l && l != lists[i]; l = next) {
            next = l->next;
            klawi_peer_free(b, KLAWI_CONTAINER(l, klawi_peer, age));
        }
    for (size_t i = 0; b->tokens.slot && i < b->tokens.slots; i++)
        for (klawi_id_node *t = b->tokens.slot[i], *next; t; t = next) {
            next = t->next;
            klawi_free(t);
        }
    for (klawi_node *n; (n = b->free_nodes);) {
        b->free_nodes = n->next;
        klawi_free(n);
    }
    if (b->anonymous)
        klawi_peer_free(b, b->anonymous);
    klawi_free(b->log);
    klawi_free(b->peers.slot);
    klawi_free(b->tokens.slot);
    klawi_free(b->journal.data);
    klawi_free((void *)(uintptr_t)b->opts.type);
    klawi_free(b);
}

/* --- answers --- */

klawi_answer *klawi_answer_new(void) {
    return klawi_calloc(1, sizeof(klawi_answer));
}

void klawi_answer_head(klaw_broker *b, klawi_out *o, enum klawi_wire_status status) {
    klawi_out_u8(o, KLAW_REMOTE_VERSION);
    klawi_out_u8(o, status);
    klawi_out_u64(o, b->opts.boot);
    klawi_out_var(o, ++b->stamp);
}

/* Ranges above `done` that are finished: as many as fit, from where the last answer stopped, so that all
 * of them are told by and by: one item that somebody keeps for long holds back no others (W11). What
 * an answer that was lost said is said again on the next way through. */
#define ANSWER_RANGES 32
#define ANSWER_WINDOW 65536 /* numbers that are looked at */

static void answer_done(klawi_out *o, klawi_peer *p) {
    klawi_range at[ANSWER_RANGES];
    klawi_ranges r = {at, 0, ANSWER_RANGES};
    uint64_t s = p->tell_from > p->done && !KLAWI_POLICY_MUTANT(DONE_FIRST_ONES) ? p->tell_from
                                                                                 : p->done + 1;
    uint64_t end = p->next - s > ANSWER_WINDOW ? s + ANSWER_WINDOW : p->next;
    for (; s < end; s++) {
        uint64_t word = p->bits[(s & p->mask) / 64];
        if (word == 0) { /* none of these */
            s |= 63;
            continue;
        }
        if (!klawi_is_done(p, s))
            continue;
        if (r.n == ANSWER_RANGES && r.at[r.n - 1].to + 1 != s)
            break;
        uint64_t to = word == UINT64_MAX && (s | 63) < p->next ? s | 63 : s;
        if (r.n && r.at[r.n - 1].to + 1 == s)
            r.at[r.n - 1].to = to;
        else
            r.at[r.n++] = (klawi_range){s, to};
        s = to;
    }
    klawi_out_ranges(o, &r);
    bool through = s >= p->next;
    p->tell_from = through ? 0 : s;
    p->untold = through ? p->untold_below : p->untold;
    p->untold_below &= !through;
}

void klawi_answer_common(klaw_broker *b, klawi_out *o, klawi_peer *p) {
    uint32_t flags = 0;
    flags |= b->closed[KLAW_REMOTE_SENDER] || b->sealed ? KLAWI_WIRE_NO_SENDERS : 0;
    flags |= b->closed[KLAW_REMOTE_RECEIVER] ? KLAWI_WIRE_NO_RECEIVERS : 0;
    flags |=
        b->opened[KLAW_REMOTE_SENDER] || b->heard[KLAW_REMOTE_SENDER] ? KLAWI_WIRE_HAD_SENDERS : 0;
    flags |= b->opened[KLAW_REMOTE_RECEIVER] || b->heard[KLAW_REMOTE_RECEIVER]
                 ? KLAWI_WIRE_HAD_RECEIVERS
                 : 0;
    flags |= b->sealed && !b->closed[KLAW_REMOTE_SENDER] ? KLAWI_WIRE_SEALED : 0;
    flags |= p->is_blocked ? KLAWI_WIRE_FULL : 0;
    flags |= klawi_drained_for(b, p) ? KLAWI_WIRE_EMPTY : 0;
    klawi_out_u8(o, flags);
    klawi_out_var(o, p->next - 1);
    klawi_out_var(o, p->done);
    answer_done(o, p);
    klawi_out_ranges(o, &p->refused);
    klawi_out_var(o, p->is_granted ? p->grant : 0);
    klawi_out_var(o, b->orphans);
    klawi_out_var(o, b->gathering ? 0 : b->lost);
    klawi_out_var(o, p->tokens_ended);
}

void klawi_answer_describe(klaw_broker *b, klawi_out *o) {
    klawi_out_raw(o, b->opts.channel, KLAW_REMOTE_ID);
    klawi_out_u8(o, b->opts.kind);
    klawi_out_u8(o, b->opts.ack);
    klawi_out_u8(o, b->opts.durable);
    klawi_out_u64(o, (uint64_t)b->opts.capacity);
    klawi_out_u64(o, (uint64_t)b->opts.lease_ns);
    klawi_out_u64(o, (uint64_t)b->opts.token_ns);
    klawi_out_bytes(o, b->opts.type, b->opts.type_size);
}

bool klawi_answer_send(klaw_broker *b, klawi_answer *a, klawi_out *o, uint64_t ticket,
                       void **attachments, size_t attached) {
    if (!klawi_out_seal(o)) {
        klawi_free(a);
        return false;
    }
    a->a = (klaw_broker_answer){ticket, o->data, o->size, attachments, attached};
    /* W28: what has happened until now has to be on disk first. */
    bool early =
        !b->opts.durable || b->deleted || b->failed || KLAWI_POLICY_MUTANT(CONFIRMED_EARLY);
    a->mark = early ? 0 : b->mark + (b->journal.size > 0);
    klawi_link_push(&b->answers, &a->link);
    return true;
}

bool klawi_answer_status(klaw_broker *b, enum klawi_wire_status status, klawi_peer *p,
                         uint64_t ticket) {
    klawi_answer *a = klawi_answer_new();
    klawi_out o = {0};
    if (!a)
        return false;
    klawi_answer_head(b, &o, status);
    if (status == KLAWI_WIRE_BROKEN)
        klawi_out_bytes(&o, b->trouble, strlen(b->trouble));
    else if (p)
        klawi_answer_common(b, &o, p);
    return klawi_answer_send(b, a, &o, ticket, NULL, 0);
}

/* Answers that wait for a disk that will not come: what they say is not so. */
static void answers_fail(klaw_broker *b) {
    for (klawi_link *l = b->answers.next; l != &b->answers; l = l->next) {
        klawi_answer *a = KLAWI_CONTAINER(l, klawi_answer, link);
        if (a->mark <= b->committed)
            continue;
        klawi_out o = {0};
        klawi_answer_head(b, &o, KLAWI_WIRE_BROKEN);
        klawi_out_bytes(&o, b->trouble, strlen(b->trouble));
        if (!klawi_out_seal(&o)) {
            b->short_of_memory = true; /* again at the next tick */
            return;
        }
        for (size_t i = 0; i < a->a.attached; i++)
            klawi_broker_drop(b, a->a.attachments[i]);
        klawi_free(a->a.attachments);
        klawi_free(a->a.data);
        a->a = (klaw_broker_answer){a->a.ticket, o.data, o.size, NULL, 0};
        a->mark = 0;
    }
}

bool klaw_broker_next(klaw_broker *b, klaw_broker_answer *out) {
    if (klawi_link_empty(&b->answers))
        return false;
    klawi_answer *a = KLAWI_CONTAINER(b->answers.next, klawi_answer, link);
    if (a->mark > b->committed)
        return false;
    klawi_link_remove(&a->link);
    *out = a->a;
    klawi_free(a);
    return true;
}

/* --- time --- */

/* The end of gathering (W27): what is nowhere is lost. */
static void gather_end(klaw_broker *b) {
    b->gathering = false;
    if (!b->opts.durable && !KLAWI_POLICY_MUTANT(LOSS_UNCOUNTED))
        b->lost += b->heard_orphans;
    for (klawi_link *l = b->alive.next; l != &b->alive; l = l->next)
        if (b->lost)
            klawi_news(b, KLAWI_CONTAINER(l, klawi_peer, age), true);
}

static void do_due(klaw_broker *b, int64_t now, int64_t real_now) {
    b->now = now;
    b->real_now = real_now;
    if (!b->started) {
        b->started = true;
        if (b->opts.restarted) {
            int64_t hold =
                b->opts.lease_ns > b->opts.gather_ns ? b->opts.lease_ns : b->opts.gather_ns;
            b->gather_until = now + (KLAWI_POLICY_MUTANT(NO_GATHER) ? 0 : b->opts.gather_ns);
            b->hold_until = now + hold;
        }
    }
    if (b->gathering && now >= b->gather_until)
        gather_end(b);
    klawi_peers_due(b);
    klawi_tokens_due(b);
    klawi_grants_due(b);
    klawi_queue_due(b);
    klawi_sides_settle(b);
}

static void do_after(klaw_broker *b) {
    b->short_of_memory = false;
    if (b->failed)
        answers_fail(b);
    klawi_sides_settle(b);
    klawi_log_trim(b);
    klawi_serve(b);
    klawi_polls_due(b);
}

static void sooner(int64_t *at, int64_t other) {
    if (other < *at)
        *at = other;
}

int64_t klaw_broker_deadline(const klaw_broker *b) {
    int64_t at = INT64_MAX;
    if (!b->started)
        return b->opts.restarted ? INT64_MIN : INT64_MAX;
    if (b->short_of_memory)
        return b->now + 1000000;
    if (b->gathering)
        sooner(&at, b->gather_until);
    else if (b->now < b->hold_until)
        sooner(&at, b->hold_until);
    if (!klawi_link_empty(&b->alive))
        sooner(&at, KLAWI_CONTAINER(b->alive.next, klawi_peer, age)->seen_at + b->opts.lease_ns);
    if (!klawi_link_empty(&b->gone))
        sooner(&at, KLAWI_CONTAINER(b->gone.next, klawi_peer, age)->seen_at + b->opts.remember_ns);
    if (!klawi_link_empty(&b->open_tokens))
        sooner(&at, KLAWI_CONTAINER(b->open_tokens.next, klawi_token, link)->at + b->opts.token_ns);
    if (!klawi_link_empty(&b->ended_tokens))
        sooner(&at,
               KLAWI_CONTAINER(b->ended_tokens.next, klawi_token, link)->at + b->opts.token_ns);
    if (!klawi_link_empty(&b->granted))
        sooner(&at, KLAWI_CONTAINER(b->granted.next, klawi_peer, blocked)->grant_until);
    if (!klawi_link_empty(&b->parked))
        sooner(&at, KLAWI_CONTAINER(b->parked.next, klawi_peer, park)->parked_at + b->opts.park_ns);
    if (!klawi_link_empty(&b->news)) {
        const klawi_peer *p = KLAWI_CONTAINER(b->news.next, klawi_peer, news);
        sooner(&at, p->urgent ? b->now : p->news_at);
    }
    if (b->first_deadline) {
        int64_t due = b->now + (b->first_deadline - b->real_now);
        sooner(&at, due > b->scan_at ? due : b->scan_at);
    }
    return at;
}

void klaw_broker_tick(klaw_broker *b, int64_t now, int64_t real_now) {
    do_due(b, now, real_now);
    do_after(b);
}

/* --- calls --- */

/* A call of a client that is attached. */
static klaw_err call_of(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, klawi_in *in,
                        const void *data, size_t size, void *const *attachments, size_t attached,
                        uint64_t ticket) {
    if (c->kind == KLAWI_WIRE_PUSH)
        return klawi_push(b, p, in, data, size, attachments, attached, ticket);
    if (attached)
        return KLAW_INVALID;
    return c->kind == KLAWI_WIRE_POLL ? klawi_poll(b, p, c, in, ticket)
                                      : klawi_renew(b, p, c, in, ticket);
}

static klaw_err status_only(klaw_broker *b, enum klawi_wire_status status, klawi_peer *p,
                            uint64_t ticket) {
    return klawi_answer_status(b, status, p, ticket) ? KLAW_OK : KLAW_NOMEM;
}

static void seen(klaw_broker *b, klawi_peer *p) {
    p->seen_at = b->now;
    klawi_link_remove(&p->age);
    klawi_link_push(p->state == KLAWI_PEER_ALIVE ? &b->alive : &b->gone, &p->age);
}

/* *took: the attachments have found their owners. */
static klaw_err dispatch(klaw_broker *b, const klawi_wire_call *c, klawi_in *in, const void *data,
                         size_t size, void *const *attachments, size_t attached, uint64_t ticket,
                         bool *took) {
    bool unknown = c->kind == KLAWI_WIRE_ATTACH && klawi_id_zero(c->channel);
    if (!unknown && !klawi_id_same(c->channel, b->opts.channel) &&
        !KLAWI_POLICY_MUTANT(ANY_CHANNEL))
        return status_only(b, KLAWI_WIRE_GONE, NULL, ticket);
    klawi_peer *p = (klawi_peer *)(void *)klawi_id_find(&b->peers, c->client);
    if (b->deleted)
        return status_only(b, KLAWI_WIRE_DELETED, p ? p : b->anonymous, ticket);
    if (b->failed)
        return status_only(b, KLAWI_WIRE_BROKEN, NULL, ticket);
    if (c->boot && c->boot != b->opts.boot && !KLAWI_POLICY_MUTANT(ANY_BOOT))
        return status_only(b, KLAWI_WIRE_STALE, NULL, ticket);
    if (c->kind == KLAWI_WIRE_ATTACH) {
        *took = true;
        klaw_err e = klawi_peer_attach(b, c, in, ticket);
        p = (klawi_peer *)(void *)klawi_id_find(&b->peers, c->client);
        if (e == KLAW_OK && p && p->state == KLAWI_PEER_ALIVE)
            seen(b, p);
        return e;
    }
    if (p && p->state == KLAWI_PEER_LEFT) /* a detach that comes again has succeeded */
        return status_only(b, c->kind == KLAWI_WIRE_DETACH ? KLAWI_WIRE_OK : KLAWI_WIRE_OLD, p,
                           ticket);
    if (!p || p->state != KLAWI_PEER_ALIVE)
        return status_only(b, KLAWI_WIRE_EXPIRED, NULL, ticket);
    klaw_err e = call_of(b, p, c, in, data, size, attachments, attached, ticket);
    *took = e == KLAW_OK;
    if (e == KLAW_OK)
        seen(b, p);
    return e;
}

klaw_err klaw_broker_call(klaw_broker *b, int64_t now, int64_t real_now, const void *data,
                          size_t size, void *const *attachments, size_t attached, uint64_t *ticket,
                          unsigned char client[KLAW_REMOTE_ID]) {
    klawi_in in;
    klawi_wire_call c;
    bool version, took = false;
    do_due(b, now, real_now);
    uint64_t number = b->tickets + 1;
    klaw_err e = KLAW_INVALID;
    if (klawi_in_open(&in, data, size) && klawi_in_call(&in, &c, &version)) {
        if (!version)
            e = status_only(b, KLAWI_WIRE_VERSION, NULL, number);
        else
            e = dispatch(b, &c, &in, data, size, attachments, attached, number, &took);
        if (client && version)
            memcpy(client, c.client, KLAW_REMOTE_ID);
    }
    if (e == KLAW_OK)
        *ticket = b->tickets = number;
    for (size_t i = 0; e != KLAW_NOMEM && !took && i < attached; i++)
        klawi_broker_drop(b, attachments[i]);
    do_after(b);
    return e;
}

void klaw_broker_client_died(klaw_broker *b, int64_t now,
                             const unsigned char client[KLAW_REMOTE_ID]) {
    do_due(b, now, b->real_now + (now - b->now));
    klawi_peer *p = (klawi_peer *)(void *)klawi_id_find(&b->peers, client);
    if (p && p->state == KLAWI_PEER_ALIVE && !KLAWI_POLICY_MUTANT(DEATH_IGNORED))
        klawi_peer_end(b, p, KLAWI_PEER_DEAD, 0); /* W23 */
    do_after(b);
}

void klaw_broker_delete(klaw_broker *b, int64_t now) {
    do_due(b, now, b->real_now + (now - b->now));
    b->deleted = true; /* W29 */
    for (klawi_link *l = b->answers.next; l != &b->answers; l = l->next)
        KLAWI_CONTAINER(l, klawi_answer, link)->mark = 0; /* no log to wait for any more */
    if (b->opts.durable)
        klawi_journal_flags(b);
    for (klawi_link *l = b->parked.next, *next; l != &b->parked; l = next) {
        next = l->next;
        if (!KLAWI_POLICY_MUTANT(DELETE_UNTOLD))
            klawi_poll_forget(b, KLAWI_CONTAINER(l, klawi_peer, park));
    }
}

void klaw_broker_fail(klaw_broker *b, int64_t now, const char *why) {
    do_due(b, now, b->real_now + (now - b->now));
    snprintf(b->trouble, sizeof b->trouble, "%s", why ? why : "");
    b->failed = !KLAWI_POLICY_MUTANT(FAILURE_UNTOLD);
    do_after(b);
}

/* --- looking in --- */

void klaw_broker_look(const klaw_broker *b, int64_t real_now, klaw_broker_stats *out) {
    const klawi_node *oldest = b->opts.kind == KLAW_REMOTE_QUEUE ? b->head : b->latest;
    if (b->opts.kind == KLAW_REMOTE_BROADCAST && b->log_first < b->log_next)
        oldest = b->log[b->log_first & b->log_mask];
    *out = (klaw_broker_stats){
        .senders = b->open[KLAW_REMOTE_SENDER],
        .receivers = b->open[KLAW_REMOTE_RECEIVER],
        .queued = b->queued,
        .leased = b->leased,
        .high_watermark = b->high,
        .total_sent = b->sent,
        .total_received = b->received,
        .redelivered = b->redelivered,
        .duplicates = b->duplicates,
        .expired = b->expired,
        .lost = b->lost,
        .missed = b->missed,
        .clients = b->n_alive,
        .parked = b->n_parked,
        .bytes = b->bytes,
        .capacity = b->opts.capacity,
        .oldest_ns = oldest && real_now > oldest->sent_at ? real_now - oldest->sent_at : 0,
        .boot = b->opts.boot,
        .senders_closed = b->closed[KLAW_REMOTE_SENDER],
        .receivers_closed = b->closed[KLAW_REMOTE_RECEIVER],
        .deleted = b->deleted,
        .gathering = b->gathering,
    };
}

static bool visit_peer(const klawi_peer *p, bool (*visit)(void *, const klaw_broker_reader *),
                       void *user) {
    for (size_t i = 0; i < p->n_receivers; i++) {
        const klawi_endpoint *e = &p->receivers[i];
        char name[2 * KLAW_REMOTE_ID + 24];
        if (!e->name) {
            for (size_t j = 0; j < KLAW_REMOTE_ID; j++)
                snprintf(name + 2 * j, 3, "%02x", p->id.id[j]);
            snprintf(name + (size_t)2 * KLAW_REMOTE_ID, 24, "-%llu", (unsigned long long)e->id);
        }
        int64_t last = e->name || e->seen_at > p->seen_at ? e->seen_at : p->seen_at;
        klaw_broker_reader r = {e->name ? e->name : name, e->name ? e->node : p->node,
                                e->registered_at, last, e->received};
        if (!visit(user, &r))
            return false;
    }
    return true;
}

void klaw_broker_readers(const klaw_broker *b,
                         bool (*visit)(void *user, const klaw_broker_reader *r), void *user) {
    if (!visit_peer(b->anonymous, visit, user))
        return;
    for (const klawi_link *l = b->alive.next; l != &b->alive; l = l->next)
        if (!visit_peer(KLAWI_CONTAINER(l, const klawi_peer, age), visit, user))
            return;
}
