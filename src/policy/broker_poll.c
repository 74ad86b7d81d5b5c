/* SPDX-License-Identifier: Apache-2.0 */
/* broker_poll.c - items that go out: polls, credits, acknowledgements, and what else a client is
 * told.
 *
 * A hub keeps one poll here (W16), numbered: the last number again means that its answer was lost,
 * and it is made again of the leases it held (W17); the next number proves that it arrived. Between
 * polls a renew says the same things (credits, acknowledgements) and is answered at once.
 *
 * Parked polls stand in `parked`, oldest first (W19); those that may have items also in `hungry`,
 * which is served in turn, each a fair share; those that have something else to hear in `news`:
 * first what is urgent (room, the end), then acknowledgements, which wait a little for more.
 *
 * Credits are limits, not increments: a client may have been given so many items in all. So updates
 * may be repeated and lost; `stamp` orders them. */
#include "policy/broker.h"

/* --- what a poll or renew says --- */

/* An update's parts, checked; readers at their first element. */
typedef struct update {
    uint64_t stamp, got, limit, answer;
    klawi_in endpoints, acks, nacks;
    uint64_t n_endpoints, n_acks, n_nacks;
} update;

static bool update_parse(klawi_in *in, update *u) {
    u->stamp = klawi_in_var(in);
    u->got = klawi_in_var(in);
    u->limit = klawi_in_var(in);
    u->n_endpoints = klawi_in_count(in, 3);
    u->endpoints = *in;
    for (uint64_t i = 0; i < 3 * u->n_endpoints; i++)
        klawi_in_var(in);
    u->n_acks = klawi_in_count(in, 2);
    u->acks = *in;
    uint64_t last = 0;
    for (uint64_t i = 0; i < u->n_acks; i++) {
        uint64_t gap = klawi_in_var(in), more = klawi_in_var(in);
        in->bad |= last + gap < last || last + gap + more < more;
        last += gap + more;
    }
    u->n_nacks = klawi_in_count(in, 2);
    u->nacks = *in;
    for (uint64_t i = 0; i < u->n_nacks; i++) {
        klawi_in_var(in);
        klawi_in_u8(in);
    }
    u->answer = klawi_in_left(in) ? klawi_in_var(in) : 0;
    return klawi_in_done(in) && u->answer <= KLAWI_WIRE_PAYLOAD;
}

/* Found at *at, or from there on, when it is asked for in their order: there may be thousands. */
static klawi_endpoint *endpoint_find(klawi_peer *p, uint64_t id, size_t *at) {
    for (size_t i = 0; i < p->n_receivers; i++) {
        size_t k = *at + i < p->n_receivers ? *at + i : *at + i - p->n_receivers;
        if (p->receivers[k].id == id) {
            *at = k + 1 < p->n_receivers ? k + 1 : 0;
            return &p->receivers[k];
        }
    }
    return NULL;
}

static void update_apply(klaw_broker *b, klawi_peer *p, const update *u) {
    klawi_in in = u->acks;
    uint64_t last = 0;
    for (uint64_t i = 0; i < u->n_acks; i++) {
        uint64_t from = last + klawi_in_var(&in), to = from + klawi_in_var(&in);
        last = to;
        if (from < p->lease_base) { /* late: without effect (W22) */
            if (KLAWI_POLICY_MUTANT(LATE_ACK_TAKEN) && p->held)
                klawi_lease_end(b, p, p->lease_base, KLAWI_LEASE_ACK, NULL);
            from = p->lease_base;
        }
        for (uint64_t l = from; l <= to && l < p->lease_next; l++)
            klawi_lease_end(b, p, l, KLAWI_LEASE_ACK, NULL);
    }
    klawi_node *hint = NULL;
    in = u->nacks;
    for (uint64_t i = 0; i < u->n_nacks; i++) {
        uint64_t l = klawi_in_var(&in);
        bool seen = klawi_in_u8(&in);
        if (l < p->lease_base || l >= p->lease_next)
            continue;
        klawi_lease_end(b, p, l,
                        b->opts.kind != KLAW_REMOTE_QUEUE ? KLAWI_LEASE_ACK
                        : seen                            ? KLAWI_LEASE_SEEN
                                                          : KLAWI_LEASE_UNSEEN,
                        &hint);
    }
    if (u->stamp <= p->stamp)
        return; /* an earlier one, come late */
    p->stamp = u->stamp;
    p->limit = u->limit;
    p->answer = (size_t)u->answer;
    in = u->endpoints;
    size_t at = 0;
    for (uint64_t i = 0; i < u->n_endpoints; i++) {
        klawi_endpoint *e = endpoint_find(p, klawi_in_var(&in), &at);
        uint64_t limit = klawi_in_var(&in), received = klawi_in_var(&in);
        if (!e)
            continue;
        e->limit = limit;
        if (received > e->received) {
            e->received = received;
            e->seen_at = b->now;
        }
    }
}

/* --- parked polls --- */

static void unpark(klaw_broker *b, klawi_peer *p) {
    klawi_link_remove(&p->park);
    if (p->is_hungry)
        klawi_link_remove(&p->hungry);
    if (p->news.next)
        klawi_link_remove(&p->news);
    p->is_hungry = p->parked = false;
    b->n_parked--;
}

static void news_link(klaw_broker *b, klawi_peer *p) {
    if (!p->parked || p->news.next || (!p->urgent && !p->news_at))
        return;
    klawi_link_push(p->urgent ? b->news.next : &b->news, &p->news);
}

void klawi_news(klaw_broker *b, klawi_peer *p, bool urgent) {
    if (p->urgent || (p->news_at && !urgent) || KLAWI_POLICY_MUTANT(NO_NEWS))
        return;
    if (urgent && p->news.next)
        klawi_link_remove(&p->news);
    p->urgent |= urgent;
    if (!p->news_at)
        p->news_at = b->now + KLAWI_LAZY_NS;
    news_link(b, p);
}

void klawi_news_told(klawi_peer *p) {
    if (p->urgent || p->untold) /* or not all of it */
        return;
    if (p->news.next)
        klawi_link_remove(&p->news);
    p->news_at = 0;
}

static bool wants_items(const klaw_broker *b, const klawi_peer *p) {
    if (b->opts.kind == KLAW_REMOTE_QUEUE)
        return p->limit > p->delivered || KLAWI_POLICY_MUTANT(CREDIT_IGNORED);
    for (size_t i = 0; i < p->n_receivers; i++)
        if (p->receivers[i].limit > p->receivers[i].delivered)
            return true;
    return false;
}

static void feed(klaw_broker *b, klawi_peer *p) {
    if (!p->parked || p->is_hungry || !wants_items(b, p))
        return;
    p->is_hungry = true;
    klawi_link_push(&b->hungry, &p->hungry);
}

static void endpoints_end(klaw_broker *b, klawi_peer *p);

/* Whether it has to hear that nothing more will come. */
static bool end_untold(klaw_broker *b, klawi_peer *p) {
    if (b->opts.kind == KLAW_REMOTE_QUEUE) {
        if (p->drained == b->drains || !klawi_drained_for(b, p))
            return false;
        p->drained = b->drains;
        return true;
    }
    endpoints_end(b, p);
    for (size_t i = 0; i < p->n_receivers; i++)
        if (p->receivers[i].ended && !p->receivers[i].told)
            return true;
    return false;
}

static void park(klaw_broker *b, klawi_peer *p, uint64_t ticket) {
    p->urgent |= end_untold(b, p);
    p->parked = true;
    p->ticket = ticket;
    p->parked_at = b->now;
    klawi_link_push(&b->parked, &p->park);
    b->n_parked++;
    news_link(b, p);
    feed(b, p);
}

/* --- answers with items --- */

/* A client in the answer's table, added when it is not there. */
static uint64_t table_at(klaw_broker *b, klawi_out *table, uint64_t *n, klawi_peer *from) {
    if (from->table != b->tables) {
        from->table = b->tables;
        from->table_at = (*n)++;
        klawi_out_raw(table, from->id.id, KLAW_REMOTE_ID);
        klawi_out_var(table, from->base);
    }
    return from->table_at;
}

/* Whether an answer to p that has `size` bytes of items may have `more`; the first item always may. */
static bool answer_fits(const klawi_peer *p, size_t size, size_t more) {
    return size == 0 || size + more <= (p->answer ? p->answer : KLAWI_ANSWER_BYTES) ||
           KLAWI_POLICY_MUTANT(ANSWER_UNBOUNDED);
}

/* An answer that is being filled. */
typedef struct reply {
    klawi_out table, items;
    uint64_t clients, n;
    void **attachments;
    size_t attached, room;
    bool failed;
} reply;

static void reply_item(klaw_broker *b, reply *r, const klawi_node *n, uint64_t endpoint,
                       uint64_t missed) {
    klawi_out *o = &r->items;
    klawi_out_var(o, table_at(b, &r->table, &r->clients, n->from));
    klawi_out_var(o, n->seq);
    if (b->opts.kind != KLAW_REMOTE_QUEUE) {
        klawi_out_var(o, endpoint);
        klawi_out_var(o, missed);
    }
    size_t at = o->size;
    klawi_out_raw(o, n->body, n->body_size);
    if (!o->failed)
        o->data[at] = (unsigned char)((n->body[0] & ~KLAWI_WIRE_PUBLIC_FLAGS) | n->flags);
    r->n++;
    if (!n->attached)
        return;
    if (r->attached == r->room) {
        size_t room = r->room ? r->room * 2 : 16;
        void **more = klawi_realloc(r->attachments, room * sizeof(void *));
        if (!more) {
            r->failed = true;
            return;
        }
        r->attachments = more;
        r->room = room;
    }
    r->attachments[r->attached++] =
        b->opts.share && n->attachment ? b->opts.share(n->attachment) : n->attachment;
}

static void reply_free(klaw_broker *b, reply *r) {
    for (size_t i = 0; b->opts.share && i < r->attached; i++)
        klawi_broker_drop(b, r->attachments[i]);
    klawi_free(r->attachments);
    klawi_free(r->table.data);
    klawi_free(r->items.data);
}

/* Puts the parts together and sends them. What was made ready (leases) is the caller's. */
static bool reply_send(klaw_broker *b, klawi_peer *p, reply *r, uint64_t first, uint64_t ticket,
                       uint64_t delay_ms) {
    klawi_answer *an = klawi_answer_new();
    klawi_out o = {0};
    bool ok = an && !r->failed && !r->table.failed && !r->items.failed &&
              klawi_out_room(&o, klawi_answer_room(p) + r->table.size + r->items.size +
                                     20 * p->n_receivers);
    if (!ok) {
        klawi_free(an);
        klawi_free(o.data);
        return false;
    }
    klawi_answer_head(b, &o, KLAWI_WIRE_OK);
    klawi_answer_common(b, &o, p);
    klawi_out_var(&o, delay_ms);
    klawi_out_var(&o, r->clients);
    klawi_out_raw(&o, r->table.data, r->table.size);
    klawi_out_var(&o, first);
    klawi_out_var(&o, r->n);
    klawi_out_raw(&o, r->items.data, r->items.size);
    if (b->opts.kind != KLAW_REMOTE_QUEUE)
        for (size_t i = 0; i < p->n_receivers; i++)
            if (p->receivers[i].ended)
                klawi_out_var(&o, p->receivers[i].id);
    ok = klawi_answer_send(b, an, &o, ticket, r->attachments, r->attached);
    KLAWI_ASSERT(ok);
    r->attachments = NULL;
    r->attached = 0;
    for (size_t i = 0; i < p->n_receivers; i++)
        p->receivers[i].told = p->receivers[i].ended;
    p->urgent = false;
    p->news_at = p->untold ? b->now + KLAWI_LAZY_NS : 0;
    return ok;
}

/* Whether all that was sent has reached an endpoint (BROADCAST, WATCH). */
static void endpoints_end(klaw_broker *b, klawi_peer *p) {
    for (size_t i = 0; i < p->n_receivers; i++) {
        klawi_endpoint *e = &p->receivers[i];
        uint64_t last = b->opts.kind == KLAW_REMOTE_BROADCAST         ? b->log_next
                        : b->latest && !klawi_node_late(b, b->latest) ? b->latest->pos
                                                                      : 0;
        e->ended = b->closed[KLAW_REMOTE_SENDER] && e->cursor >= last && !b->gathering;
    }
}

/* The next thing for e, or NULL; *missed before it. */
static klawi_node *endpoint_next(klaw_broker *b, klawi_endpoint *e, uint64_t *at,
                                 uint64_t *missed) {
    if (b->opts.kind == KLAW_REMOTE_WATCH)
        return b->latest && b->latest->pos > *at && !klawi_node_late(b, b->latest) ? b->latest
                                                                                   : NULL;
    if (*at < b->log_first) {
        *missed += b->log_first - *at;
        *at = b->log_first;
    }
    (void)e;
    return *at < b->log_next ? b->log[*at & b->log_mask] : NULL;
}

/* Gives p what it may have of the queue, at most `share` items. false: no memory. */
static bool deliver_queue(klaw_broker *b, klawi_peer *p, uint64_t share) {
    uint64_t want = p->limit > p->delivered ? p->limit - p->delivered : 0;
    if (KLAWI_POLICY_MUTANT(CREDIT_IGNORED))
        want = 1000;
    if (want > share)
        want = share;
    klawi_node *first = klawi_queue_front(b), *n = first;
    if (!first || want == 0)
        return true;
    reply r = {0};
    b->tables++;
    /* Leases may not span more than they can be reported in (W26). */
    if (p->lease_next - p->lease_base + want > KLAWI_SPAN)
        want = KLAWI_SPAN - (p->lease_next - p->lease_base);
    for (; n && r.n < want && answer_fits(p, r.items.size, n->body_size) &&
           n->mark <= b->committed && !klawi_node_late(b, n);
         n = n->next)
        reply_item(b, &r, n, 0, 0);
    uint64_t from = p->lease_next;
    bool ok = r.n && klawi_leases_reserve(p, r.n);
    /* At most once: it is on disk that they are received before they go out. */
    n = b->head;
    for (uint64_t i = 0; ok && b->opts.durable && i < r.n; i++, n = n->next)
        if (b->opts.ack == KLAW_REMOTE_ACK_BEFORE && !KLAWI_POLICY_MUTANT(BEFORE_AFTER))
            klawi_done(b, n->from, n->seq);
    if (!ok || !reply_send(b, p, &r, from, p->ticket, 0)) {
        bool none = r.n == 0;
        reply_free(b, &r);
        return none;
    }
    for (uint64_t i = 0; i < r.n; i++) {
        n = b->head;
        klawi_queue_unlink(b, n);
        b->redelivered += (n->flags & KLAW_REMOTE_REDELIVERED) != 0;
        klawi_lease_put(b, p, p->lease_next++, n);
    }
    p->delivered += r.n;
    p->poll_from = from;
    p->poll_to = p->lease_next;
    unpark(b, p);
    reply_free(b, &r);
    return true;
}

/* As above for endpoints with cursors: two walks, the second has the effects (K1). */
static bool deliver_log(klaw_broker *b, klawi_peer *p) {
    reply r = {0};
    b->tables++;
    uint64_t from = p->lease_next;
    for (int walk = 0; walk < 2; walk++) {
        uint64_t size = 0, n = 0;
        for (size_t i = 0; i < p->n_receivers; i++) {
            klawi_endpoint *e = &p->receivers[i];
            uint64_t at = e->cursor, missed = e->missed, given = 0;
            for (klawi_node *node; e->limit > e->delivered + (walk ? 0 : given) &&
                                   n < KLAWI_SPAN / 2 &&
                                   (node = endpoint_next(b, e, &at, &missed)) &&
                                   answer_fits(p, size, node->body_size);) {
                /* One that is late still carries what was missed before it: its hub drops it. */
                bool late = klawi_node_late(b, node) && !missed;
                at = node->pos + (b->opts.kind == KLAW_REMOTE_BROADCAST);
                if (walk) {
                    e->cursor = at;
                    if (b->opts.kind == KLAW_REMOTE_BROADCAST)
                        node->readers--;
                    b->expired += late;
                }
                if (late)
                    continue;
                size += node->body_size;
                given++;
                n++;
                if (!walk) {
                    reply_item(b, &r, node, e->id, missed);
                } else {
                    klawi_lease_put(b, p, p->lease_next, node);
                    klawi_lease *l = klawi_lease_at(p, p->lease_next++);
                    l->endpoint = e->id;
                    l->seq = missed;
                    node->holders++;
                    e->delivered++;
                    e->missed = 0;
                    e->seen_at = b->now;
                }
                missed = 0;
            }
            if (walk && given == 0)
                e->missed = missed;
            if (walk && e->cursor < at)
                e->cursor = at;
        }
        endpoints_end(b, p);
        if (walk == 0 && r.n &&
            (!klawi_leases_reserve(p, r.n) || !reply_send(b, p, &r, from, p->ticket, 0))) {
            reply_free(b, &r);
            return false;
        }
    }
    reply_free(b, &r);
    if (r.n) {
        p->poll_from = from;
        p->poll_to = p->lease_next;
        unpark(b, p);
    } else if (end_untold(b, p)) { /* what was left was too late */
        klawi_news(b, p, true);
    }
    klawi_log_trim(b);
    return true;
}

/* The last answer again (W17), with what it held then and today's news. */
static bool reply_again(klaw_broker *b, klawi_peer *p, uint64_t ticket) {
    reply r = {0};
    b->tables++;
    uint64_t first = p->poll_to;
    /* What is acknowledged already has arrived. */
    while (first > p->poll_from && first > p->lease_base && klawi_lease_at(p, first - 1)->node &&
           !KLAWI_POLICY_MUTANT(ANSWER_LOST))
        first--;
    for (uint64_t i = first; i < p->poll_to; i++) {
        klawi_lease *l = klawi_lease_at(p, i);
        reply_item(b, &r, l->node, l->endpoint, l->seq);
    }
    endpoints_end(b, p);
    bool ok = reply_send(b, p, &r, first, ticket, 0);
    reply_free(b, &r);
    return ok;
}

bool klawi_poll_release(klaw_broker *b, klawi_peer *p, uint64_t delay_ms) {
    reply r = {0};
    endpoints_end(b, p);
    if (!reply_send(b, p, &r, p->lease_next, p->ticket, delay_ms))
        return false;
    p->poll_from = p->poll_to = p->lease_next;
    unpark(b, p);
    return true;
}

void klawi_poll_forget(klaw_broker *b, klawi_peer *p) {
    if (!p->parked)
        return;
    enum klawi_wire_status status = b->deleted  ? KLAWI_WIRE_DELETED
                                    : b->failed ? KLAWI_WIRE_BROKEN
                                                : KLAWI_WIRE_OLD;
    if (klawi_answer_status(b, status, p, p->ticket)) {
        unpark(b, p);
        return;
    }
    b->short_of_memory = true; /* again at the next tick */
    if (p->is_hungry)
        klawi_link_remove(&p->hungry);
    p->is_hungry = false;
    if (p->news.next)
        klawi_link_remove(&p->news);
}

/* --- calls --- */

klaw_err klawi_poll(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, klawi_in *in,
                    uint64_t ticket) {
    update u;
    if (!update_parse(in, &u))
        return KLAW_INVALID;
    if (c->number != p->poll && c->number != p->poll + 1)
        return klawi_answer_status(b, KLAWI_WIRE_OLD, NULL, ticket) ? KLAW_OK : KLAW_NOMEM;
    if (c->number == p->poll && !p->parked && !KLAWI_POLICY_MUTANT(POLL_AGAIN_NEW)) {
        update_apply(b, p, &u); /* first: what it gives back keeps the end from being told */
        return reply_again(b, p, ticket) ? KLAW_OK : KLAW_NOMEM;
    }
    if (p->parked) {
        /* The same call came twice: the earlier copy is answered for form's sake. */
        if (!klawi_answer_status(b, KLAWI_WIRE_OLD, NULL, p->ticket))
            return KLAW_NOMEM;
        unpark(b, p);
    }
    p->poll = c->number;
    update_apply(b, p, &u);
    park(b, p, ticket);
    return KLAW_OK;
}

klaw_err klawi_renew(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, klawi_in *in,
                     uint64_t ticket) {
    update u;
    if (!update_parse(in, &u))
        return KLAW_INVALID;
    klawi_answer *an = klawi_answer_new();
    klawi_out o = {0};
    if (!an || !klawi_out_room(&o, klawi_answer_room(p))) {
        klawi_free(an);
        return KLAW_NOMEM;
    }
    update_apply(b, p, &u);
    feed(b, p);
    if (c->kind == KLAWI_WIRE_DETACH) { /* W30 */
        klawi_peer_end(b, p, KLAWI_PEER_LEFT, u.got);
        p->number = c->number;
    }
    klawi_answer_head(b, &o, KLAWI_WIRE_OK);
    klawi_answer_common(b, &o, p);
    bool sent = klawi_answer_send(b, an, &o, ticket, NULL, 0);
    KLAWI_ASSERT(sent);
    (void)sent;
    return KLAW_OK;
}

void klawi_polls_due(klaw_broker *b) {
    while (!klawi_link_empty(&b->parked)) {
        klawi_peer *p = KLAWI_CONTAINER(b->parked.next, klawi_peer, park);
        if (b->deleted || b->failed || klawi_peer_gone(p)) {
            klawi_poll_forget(b, p);
            if (p->parked)
                return;
            continue;
        }
        bool over = b->n_parked > b->opts.max_parked && !KLAWI_POLICY_MUTANT(PARKS_ALL);
        if (!over && (b->now - p->parked_at < b->opts.park_ns || KLAWI_POLICY_MUTANT(PARKS_LONG)))
            return;
        /* Too many: those that are sent away come back the later the more there are. */
        uint64_t excess = b->n_alive > b->opts.max_parked ? b->n_alive - b->opts.max_parked : 1;
        uint64_t delay = over ? 10 + excess * 1000 / b->opts.max_parked : 0;
        if (!klawi_poll_release(b, p, delay < 5000 ? delay : 5000)) {
            b->short_of_memory = true;
            return;
        }
    }
}

/* After the last item: those that wait hear that no more will come. */
static void tell_drained(klaw_broker *b) {
    if (b->opts.kind != KLAW_REMOTE_QUEUE || !b->closed[KLAW_REMOTE_SENDER] || b->queued ||
        (b->holders > 1 && b->opts.ack == KLAW_REMOTE_ACK_NEXT) || b->gathering)
        return;
    /* Told anew when the last but one holder has let go, and when the last has. */
    uint64_t stage = b->drains * 2 + (b->holders == 0);
    if (b->told_drained == stage)
        return;
    b->told_drained = stage;
    for (klawi_link *l = b->alive.next; l != &b->alive; l = l->next) {
        klawi_peer *p = KLAWI_CONTAINER(l, klawi_peer, age);
        if (p->parked && end_untold(b, p))
            klawi_news(b, p, true);
    }
}

void klawi_serve(klaw_broker *b) {
    if (b->failed)
        return;
    klawi_grant(b);
    if (!b->gathering && b->opts.kind == KLAW_REMOTE_QUEUE) {
        uint64_t hungry = 0;
        for (klawi_link *l = b->hungry.next; l != &b->hungry; l = l->next)
            hungry++;
        while (!klawi_link_empty(&b->hungry) && klawi_queue_front(b)) {
            klawi_peer *p = KLAWI_CONTAINER(b->hungry.next, klawi_peer, hungry);
            /* Not so, but the analyzer does not follow why. NOLINTNEXTLINE(clang-analyzer-core.DivideZero) */
            uint64_t share = (b->queued + hungry - 1) / hungry;
            if (!deliver_queue(b, p, share)) {
                b->short_of_memory = true;
                break;
            }
            if (p->is_hungry) { /* its leases span all they may: nothing now */
                klawi_link_remove(&p->hungry);
                p->is_hungry = false;
            }
            hungry--;
        }
        klawi_grant(b);
    } else if (!b->gathering) {
        for (klawi_link *l = b->hungry.next, *next; l != &b->hungry; l = next) {
            next = l->next;
            if (!deliver_log(b, KLAWI_CONTAINER(l, klawi_peer, hungry)))
                b->short_of_memory = true;
        }
    }
    tell_drained(b);
    while (!klawi_link_empty(&b->news)) {
        klawi_peer *p = KLAWI_CONTAINER(b->news.next, klawi_peer, news);
        if (!p->urgent && p->news_at > b->now)
            break;
        if (!klawi_poll_release(b, p, 0)) {
            b->short_of_memory = true;
            break;
        }
    }
}
