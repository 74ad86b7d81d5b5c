/* SPDX-License-Identifier: Apache-2.0 */
/* broker_peer.c - a broker's clients: identities, attach, endpoints, tokens, the sides of the
 * channel, death, and what clients report of an earlier boot.
 *
 * An attach states all that its client has open, so that a repeated or a late one does no harm (W5):
 * endpoints are sets of numbers (W6), what is missing from the set is closed. Closed senders hold
 * their side open until the items sent before are accepted (`through`).
 *
 * After a restart sides stay open until every client that lives must have come back (a lease's
 * time): a sender that is slow to reconnect does not find its channel closed. */
#include "policy/broker.h"

/* --- clients --- */

klawi_peer *klawi_peer_new(klaw_broker *b, const unsigned char *id) {
    klawi_peer *p = klawi_calloc(1, sizeof *p);
    if (!p)
        return NULL;
    memcpy(p->id.id, id, KLAW_REMOTE_ID);
    p->next = 1;
    p->lease_base = p->lease_next = 1;
    p->seen_at = b->now;
    p->base = 1;
    return p;
}

static klawi_peer *peer_add(klaw_broker *b, const unsigned char *id) {
    klawi_peer *p = klawi_peer_new(b, id);
    if (p) {
        klawi_id_add(&b->peers, &p->id);
        klawi_link_push(&b->gone, &p->age);
    }
    return p;
}

klawi_peer *klawi_peer_known(klaw_broker *b, const unsigned char *id) {
    klawi_peer *p = (klawi_peer *)(void *)klawi_id_find(&b->peers, id);
    return p ? p : peer_add(b, id);
}

static void endpoint_free(klawi_endpoint *e) {
    klawi_free(e->name);
    klawi_free(e->node);
}

void klawi_peer_free(klaw_broker *b, klawi_peer *p) {
    KLAWI_ASSERT(p->nodes == 0);
    (void)b;
    for (size_t i = 0; i < p->n_receivers; i++)
        endpoint_free(&p->receivers[i]);
    klawi_free(p->receivers);
    klawi_free(p->senders);
    klawi_free(p->leases);
    klawi_free(p->bits);
    klawi_free(p->claims);
    klawi_free(p->node);
    klawi_ranges_free(&p->refused);
    klawi_ranges_free(&p->had);
    klawi_free(p);
}

void klawi_peer_state_set(klaw_broker *b, klawi_peer *p, enum klawi_peer_state state) {
    bool was = klawi_peer_gone(p);
    b->n_alive += state == KLAWI_PEER_ALIVE;
    b->n_alive -= p->state == KLAWI_PEER_ALIVE;
    p->state = state;
    if (klawi_peer_gone(p) && !was)
        b->orphans += p->queued;
    if (!klawi_peer_gone(p) && was)
        b->orphans -= p->queued;
}

void klawi_side_count(klaw_broker *b, klaw_remote_side side, int64_t delta) {
    b->open[side] += (uint64_t)delta;
    b->opened[side] |= b->open[side] > 0;
}

void klawi_peer_count(klaw_broker *b, klawi_peer *p) {
    uint64_t counts[2] = {0, 0};
    bool unsettled = false;
    if (p->state == KLAWI_PEER_ALIVE || p == b->anonymous) {
        counts[KLAW_REMOTE_SENDER] = p->n_senders;
        counts[KLAW_REMOTE_RECEIVER] = p->n_receivers;
        /* W6: what was sent before the close comes first. */
        uint64_t through = b->sealed && p->confirmed < p->through ? p->confirmed : p->through;
        unsettled = p->next <= through && !KLAWI_POLICY_MUTANT(CLOSE_AT_ONCE);
        counts[KLAW_REMOTE_SENDER] += unsettled;
    }
    b->unsettled += unsettled;
    b->unsettled -= p->unsettled;
    p->unsettled = unsettled;
    for (int side = 0; side < 2; side++) {
        klawi_side_count(b, (klaw_remote_side)side, (int64_t)(counts[side] - p->counted[side]));
        p->counted[side] = counts[side];
    }
}

void klawi_endpoint_close(klaw_broker *b, klawi_endpoint *e) {
    b->readers--;
    if (b->opts.kind == KLAW_REMOTE_BROADCAST) {
        uint64_t pos = e->cursor > b->log_first ? e->cursor : b->log_first;
        for (; pos < b->log_next; pos++)
            b->log[pos & b->log_mask]->readers--;
    }
    endpoint_free(e);
}

void klawi_endpoint_open(klaw_broker *b, klawi_endpoint *e, uint64_t id, bool all) {
    *e = (klawi_endpoint){.id = id, .registered_at = b->now, .seen_at = b->now};
    b->readers++;
    if (b->opts.kind != KLAW_REMOTE_BROADCAST)
        return;
    e->cursor = all ? b->log_first : b->log_next;
    for (uint64_t pos = e->cursor; pos < b->log_next; pos++)
        b->log[pos & b->log_mask]->readers++;
}

static void token_end(klaw_broker *b, klawi_token *t) {
    klawi_side_count(b, t->side, -1);
    if (t->owner) { /* so that it need not state it any more */
        t->owner->tokens_ended++;
        klawi_news(b, t->owner, false);
    }
    t->open = false;
    t->owner = NULL;
    t->at = b->now;
    klawi_link_remove(&t->link);
    klawi_link_push(&b->ended_tokens, &t->link);
}

void klawi_peer_end(klaw_broker *b, klawi_peer *p, enum klawi_peer_state state, uint64_t seen) {
    klawi_poll_forget(b, p);
    klawi_unblock(b, p);
    klawi_stash_drop(b, p);
    klawi_link_remove(&p->age);
    klawi_link_push(&b->gone, &p->age);
    p->seen_at = b->now;
    klawi_peer_state_set(b, p, state);
    klawi_node *hint = NULL;
    for (uint64_t i = p->lease_base, end = p->lease_next; i < end; i++)
        klawi_lease_end(b, p, i,
                        state == KLAWI_PEER_LEFT && i > seen ? KLAWI_LEASE_UNSEEN
                        : KLAWI_POLICY_MUTANT(DEATH_ACKS)    ? KLAWI_LEASE_ACK
                                                             : KLAWI_LEASE_SEEN,
                        &hint);
    for (size_t i = 0; i < p->n_receivers; i++)
        klawi_endpoint_close(b, &p->receivers[i]);
    klawi_log_trim(b);
    p->n_receivers = p->n_senders = 0;
    if (state == KLAWI_PEER_DEAD)
        for (klawi_link *l = b->open_tokens.next, *next; l != &b->open_tokens; l = next) {
            next = l->next;
            klawi_token *t = KLAWI_CONTAINER(l, klawi_token, link);
            if (t->owner == p)
                token_end(b, t);
        }
    if (!KLAWI_POLICY_MUTANT(DEAD_COUNTED))
        klawi_peer_count(b, p);
}

/* Its number is forgotten (W25), once nothing points to it. */
static void peer_forget(klaw_broker *b, klawi_peer *p) {
    for (klawi_link *l = b->open_tokens.next; l != &b->open_tokens; l = l->next) {
        klawi_token *t = KLAWI_CONTAINER(l, klawi_token, link);
        if (t->owner == p)
            t->owner = NULL;
    }
    if (b->journal_peer == p)
        b->journal_peer = NULL;
    klawi_link_remove(&p->age);
    klawi_id_remove(&b->peers, &p->id);
    klawi_peer_free(b, p);
}

void klawi_peers_due(klaw_broker *b) {
    while (!klawi_link_empty(&b->alive)) {
        klawi_peer *p = KLAWI_CONTAINER(b->alive.next, klawi_peer, age);
        if (b->now - p->seen_at < b->opts.lease_ns || KLAWI_POLICY_MUTANT(LEASE_FOREVER))
            break;
        klawi_peer_end(b, p, KLAWI_PEER_DEAD, 0); /* W24 */
    }
    int64_t keep = KLAWI_POLICY_MUTANT(FORGETS_EARLY) ? b->opts.lease_ns : b->opts.remember_ns;
    for (klawi_link *l = b->gone.next, *next; l != &b->gone; l = next) {
        next = l->next;
        klawi_peer *p = KLAWI_CONTAINER(l, klawi_peer, age);
        if (b->now - p->seen_at < keep)
            break;
        if (p->nodes || p->held || p->n_claims) { /* asked again after as long */
            p->seen_at = b->now;
            klawi_link_remove(&p->age);
            klawi_link_push(&b->gone, &p->age);
        } else {
            peer_forget(b, p);
        }
    }
}

/* --- tokens (W7) --- */

void klawi_tokens_due(klaw_broker *b) {
    while (!klawi_link_empty(&b->open_tokens)) {
        klawi_token *t = KLAWI_CONTAINER(b->open_tokens.next, klawi_token, link);
        if (b->now - t->at < b->opts.token_ns || KLAWI_POLICY_MUTANT(TOKEN_FOREVER))
            break;
        token_end(b, t);
    }
    while (!klawi_link_empty(&b->ended_tokens)) {
        klawi_token *t = KLAWI_CONTAINER(b->ended_tokens.next, klawi_token, link);
        if (b->now - t->at < b->opts.token_ns)
            break;
        klawi_link_remove(&t->link);
        klawi_id_remove(&b->tokens, &t->id);
        klawi_free(t);
    }
}

/* One that was not known is made; it is nobody's and has ended. NULL: no memory. */
static klawi_token *token_get(klaw_broker *b, const unsigned char *id, klaw_remote_side side,
                              bool *made) {
    klawi_token *t = (klawi_token *)(void *)klawi_id_find(&b->tokens, id);
    *made = t == NULL;
    if (t)
        return t;
    t = klawi_calloc(1, sizeof *t);
    if (!t)
        return NULL;
    memcpy(t->id.id, id, KLAW_REMOTE_ID);
    t->side = side;
    t->at = b->now;
    klawi_id_add(&b->tokens, &t->id);
    klawi_link_push(&b->ended_tokens, &t->link);
    return t;
}

/* --- sides (W8) --- */

static void side_close(klaw_broker *b, int side) {
    b->closed[side] = true;
    if (b->opts.durable)
        klawi_journal_flags(b);
    for (klawi_link *l = b->alive.next; l != &b->alive; l = l->next)
        klawi_news(b, KLAWI_CONTAINER(l, klawi_peer, age), true);
}

/* The senders were closed in an earlier boot: only what was confirmed then is taken again. */
static void side_seal(klaw_broker *b) {
    b->sealed = true;
    for (klawi_link *l = b->alive.next; l != &b->alive; l = l->next) {
        klawi_peer *p = KLAWI_CONTAINER(l, klawi_peer, age);
        klawi_peer_count(b, p);
        klawi_news(b, p, true);
    }
}

void klawi_sides_settle(klaw_broker *b) {
    for (int side = 0; side < 2; side++) {
        bool opened = b->opened[side] || b->heard[side];
        bool empty =
            b->open[side] == 0 || (side == KLAW_REMOTE_SENDER && b->sealed && b->unsettled == 0);
        if (!b->closed[side] && opened && empty && !b->gathering &&
            (b->now >= b->hold_until || KLAWI_POLICY_MUTANT(CLOSES_IN_HOLD)) &&
            !KLAWI_POLICY_MUTANT(NEVER_CLOSES))
            side_close(b, side);
    }
    if (!b->closed[KLAW_REMOTE_RECEIVER])
        return;
    while (b->head) { /* nobody will have them */
        klawi_node *n = b->head;
        klawi_queue_unlink(b, n);
        klawi_node_finish(b, n);
    }
    while (!klawi_link_empty(&b->blocked))
        klawi_unblock(b, KLAWI_CONTAINER(b->blocked.next, klawi_peer, blocked));
}

/* --- attach --- */

/* What an attach says, checked; pointers into the blob. */
typedef struct attach {
    const unsigned char *node, *type;
    size_t node_size, type_size;
    uint32_t kind;
    klawi_in senders, receivers, minted, claimed; /* at their first element */
    uint64_t n_senders, n_receivers, n_minted, n_claimed;
    uint64_t through;
    bool resume;
    uint64_t base, confirmed;
    uint32_t heard;
    uint64_t heard_stamp, heard_orphans;
    uint64_t lease_next;
    klawi_in table, live;
    uint64_t n_table, n_live;
} attach;

static void skip_numbers(klawi_in *in, klawi_in *at, uint64_t *n) {
    *n = klawi_in_count(in, 1);
    *at = *in;
    for (uint64_t i = 0; i < *n; i++)
        klawi_in_var(in);
}

static void skip_tokens(klawi_in *in, klawi_in *at, uint64_t *n) {
    *n = klawi_in_count(in, KLAW_REMOTE_ID + 1);
    *at = *in;
    for (uint64_t i = 0; i < *n; i++) {
        klawi_in_raw(in, KLAW_REMOTE_ID);
        in->bad |= klawi_in_u8(in) > KLAW_REMOTE_RECEIVER;
    }
}

/* One sender's entry: its identity, and ranges of what was received of it. *n: how many. */
static const unsigned char *skip_ranges(klawi_in *in, uint64_t *n) {
    const unsigned char *id = klawi_in_raw(in, KLAW_REMOTE_ID);
    *n = klawi_in_count(in, 2);
    uint64_t last = 0;
    for (uint64_t i = 0; i < *n; i++) {
        uint64_t gap = klawi_in_var(in), more = klawi_in_var(in);
        in->bad |= last + gap < last || last + gap + more < more;
        last += gap + more;
    }
    in->bad |= !id;
    return id;
}

static void parse_resume(klawi_in *in, attach *a) {
    uint64_t n, last = 0;
    a->base = klawi_in_var(in);
    a->confirmed = klawi_in_var(in);
    a->heard = klawi_in_u8(in);
    a->heard_stamp = klawi_in_var(in);
    a->heard_orphans = klawi_in_var(in);
    a->n_table = klawi_in_count(in, KLAW_REMOTE_ID + 1);
    a->table = *in;
    for (uint64_t i = 0; i < a->n_table; i++)
        skip_ranges(in, &n);
    a->n_live = klawi_in_count(in, 3);
    a->live = *in;
    for (uint64_t i = 0; i < a->n_live; i++) {
        uint64_t gap = klawi_in_var(in);
        in->bad |= gap == 0 || last + gap < last;
        last += gap;
        if (i == 0) /* leases span little (K1: the ring is as long as that) */
            in->bad |= last >= a->lease_next || a->lease_next - last > KLAWI_SPAN;
        in->bad |= klawi_in_var(in) >= a->n_table || klawi_in_var(in) == 0;
    }
    in->bad |= a->base == 0 || (a->n_live && last >= a->lease_next) || a->base > INT64_MAX;
}

static bool parse_attach(klawi_in *in, attach *a) {
    memset(a, 0, sizeof *a);
    a->node = klawi_in_bytes(in, &a->node_size);
    a->kind = klawi_in_u8(in);
    a->type = klawi_in_bytes(in, &a->type_size);
    skip_numbers(in, &a->senders, &a->n_senders);
    skip_numbers(in, &a->receivers, &a->n_receivers);
    a->through = klawi_in_var(in);
    skip_tokens(in, &a->minted, &a->n_minted);
    skip_tokens(in, &a->claimed, &a->n_claimed);
    a->lease_next = klawi_in_var(in);
    in->bad |= a->lease_next == 0 || a->lease_next > INT64_MAX;
    a->resume = klawi_in_u8(in);
    if (a->resume)
        parse_resume(in, a);
    return klawi_in_done(in) && a->node_size <= 255;
}

/* Whom an entry of the table means: zero is what was put without a hub. NULL: no memory. */
static klawi_peer *table_peer(klaw_broker *b, const unsigned char *id) {
    return klawi_id_zero(id) ? b->anonymous : klawi_peer_known(b, id);
}

/* Memory that the effects want, taken before them (K1). */
typedef struct attach_room {
    char *node;
    uint64_t *senders;
    klawi_endpoint *receivers;
    klawi_peer **table; /* of its clients */
} attach_room;

static void attach_room_free(attach_room *room) {
    klawi_free(room->node);
    klawi_free(room->senders);
    klawi_free(room->receivers);
    klawi_free(room->table);
}

static bool attach_reserve(klaw_broker *b, klawi_peer *p, const attach *a, attach_room *room) {
    bool ok = true, made;
    room->node = klawi_alloc(a->node_size + 1);
    room->senders = klawi_alloc((size_t)a->n_senders * sizeof *room->senders);
    room->receivers = klawi_calloc((size_t)a->n_receivers, sizeof *room->receivers);
    room->table = klawi_alloc((size_t)a->n_table * sizeof(klawi_peer *));
    ok = room->node && room->senders && room->receivers && room->table &&
         (!b->opts.durable || klawi_journal_reserve(b, 4, 0)) && klawi_done_reserve(p, 0);
    /* Tokens and clients by hearsay are made right here: unknown ones that have ended. */
    klawi_in in = a->claimed;
    for (uint64_t i = 0; ok && i < a->n_claimed; i++) {
        const unsigned char *id = klawi_in_raw(&in, KLAW_REMOTE_ID);
        ok = token_get(b, id, (klaw_remote_side)klawi_in_u8(&in), &made) != NULL;
    }
    in = a->table;
    for (uint64_t i = 0; ok && i < a->n_table; i++) {
        uint64_t n;
        const unsigned char *id = skip_ranges(&in, &n);
        klawi_peer *from = room->table[i] = table_peer(b, id);
        ok = from && klawi_ranges_reserve(&from->had, (size_t)(n + from->n_claims + a->n_live));
        if (ok && from->claims_room - from->n_claims < a->n_live) {
            size_t claims = from->n_claims + (size_t)a->n_live;
            klawi_claim *more = klawi_realloc(from->claims, claims * sizeof *more);
            ok = more != NULL;
            from->claims = more ? more : from->claims;
            from->claims_room = more ? claims : from->claims_room;
        }
    }
    if (ok && a->n_live) {
        klawi_in live = a->live;
        ok = klawi_leases_reserve(p, a->lease_next - klawi_in_var(&live) + 1);
    }
    if (ok)
        return true;
    attach_room_free(room);
    return false;
}

static void attach_tokens(klaw_broker *b, klawi_peer *p, const attach *a, klawi_token **minted) {
    klawi_in in = a->minted;
    for (uint64_t i = 0; i < a->n_minted; i++) {
        const unsigned char *id = klawi_in_raw(&in, KLAW_REMOTE_ID);
        klaw_remote_side side = (klaw_remote_side)klawi_in_u8(&in);
        klawi_token *t = minted[i];
        klawi_token *known = (klawi_token *)(void *)klawi_id_find(&b->tokens, id);
        if (known && known->open && known->owner == p) { /* it is still wanted */
            known->at = b->now;
            klawi_link_remove(&known->link);
            klawi_link_push(&b->open_tokens, &known->link);
        }
        if (!t || known || KLAWI_POLICY_MUTANT(TOKEN_IGNORED)) {
            klawi_free(t);
            continue; /* known: open, or claimed before its mint was heard of */
        }
        memcpy(t->id.id, id, KLAW_REMOTE_ID);
        t->side = side;
        t->at = b->now;
        t->open = true;
        t->owner = p;
        klawi_id_add(&b->tokens, &t->id);
        klawi_link_push(&b->open_tokens, &t->link);
        klawi_side_count(b, side, 1);
    }
    in = a->claimed;
    for (uint64_t i = 0; i < a->n_claimed; i++) {
        klawi_id_node *n = klawi_id_find(&b->tokens, klawi_in_raw(&in, KLAW_REMOTE_ID));
        klawi_in_u8(&in);
        klawi_token *t = (klawi_token *)(void *)n;
        if (t->open && !KLAWI_POLICY_MUTANT(CLAIM_IGNORED))
            token_end(b, t);
    }
}

/* New sets of endpoints in place of the old ones. */
static void attach_endpoints(klaw_broker *b, klawi_peer *p, const attach *a, attach_room *room) {
    klawi_in in = a->senders;
    for (uint64_t i = 0; i < a->n_senders; i++)
        room->senders[i] = klawi_in_var(&in);
    in = a->receivers;
    for (uint64_t i = 0; i < a->n_receivers; i++) {
        uint64_t id = klawi_in_var(&in);
        klawi_endpoint *old = NULL;
        for (size_t j = 0; j < p->n_receivers && !old; j++)
            if (p->receivers[j].id == id && p->receivers[j].seen_at >= 0)
                old = &p->receivers[j];
        if (old) {
            room->receivers[i] = *old;
            old->seen_at = -1; /* moved */
        } else {
            klawi_endpoint_open(b, &room->receivers[i], id, a->resume);
        }
    }
    for (size_t j = 0; j < p->n_receivers; j++)
        if (p->receivers[j].seen_at >= 0)
            klawi_endpoint_close(b, &p->receivers[j]);
    klawi_log_trim(b);
    klawi_free(p->receivers);
    klawi_free(p->senders);
    p->receivers = room->receivers;
    p->n_receivers = (size_t)a->n_receivers;
    p->senders = room->senders;
    p->n_senders = (size_t)a->n_senders;
    p->through = a->through;
}

/* Items that are here already and that p says it holds, or is done with (W27). */
static void claims_meet_queue(klaw_broker *b) {
    for (klawi_node *n = b->head, *next; n; n = next) {
        next = n->next;
        klawi_peer *from = n->from;
        if (klawi_ranges_has(&from->had, n->seq)) {
            klawi_queue_unlink(b, n);
            klawi_node_finish(b, n);
            continue;
        }
        for (size_t i = 0; i < from->n_claims; i++) {
            klawi_claim c = from->claims[i];
            if (c.seq != n->seq)
                continue;
            from->claims[i] = from->claims[--from->n_claims];
            klawi_queue_unlink(b, n);
            *klawi_lease_at(c.holder, c.lease) = (klawi_lease){.node = n};
            break;
        }
    }
}

/* Whether p's numbers of an earlier boot mean something in this one: those of what was put without a
 * hub begin anew unless they are in the log. */
static bool numbered(const klaw_broker *b, const klawi_peer *p) {
    return p != b->anonymous || b->opts.durable;
}

static void attach_resume(klaw_broker *b, klawi_peer *p, const attach *a,
                          klawi_peer *const *table) {
    p->resumed = true;
    p->confirmed = a->confirmed;
    if (p->next < a->base) { /* what was before is finished */
        p->next = a->base;
        p->done = a->base - 1;
        if (b->opts.durable)
            klawi_journal_next(b, p);
    }
    b->heard[KLAW_REMOTE_SENDER] |= (a->heard & KLAWI_WIRE_HAD_SENDERS) != 0;
    b->heard[KLAW_REMOTE_RECEIVER] |= (a->heard & KLAWI_WIRE_HAD_RECEIVERS) != 0;
    if ((a->heard & KLAWI_WIRE_NO_SENDERS) && !b->sealed)
        side_seal(b);
    if ((a->heard & KLAWI_WIRE_NO_RECEIVERS) && !b->closed[KLAW_REMOTE_RECEIVER])
        side_close(b, KLAW_REMOTE_RECEIVER);
    if (a->heard_stamp > b->heard_stamp) {
        b->heard_stamp = a->heard_stamp;
        b->heard_orphans = a->heard_orphans;
    }
    if (KLAWI_POLICY_MUTANT(RECEIVED_FORGOTTEN) || b->opts.kind != KLAW_REMOTE_QUEUE)
        return;
    klawi_in in = a->table;
    for (uint64_t i = 0; i < a->n_table; i++) {
        klawi_in_raw(&in, KLAW_REMOTE_ID);
        klawi_peer *from = table[i];
        uint64_t n = klawi_in_var(&in), last = 0;
        for (uint64_t j = 0; j < n; j++) {
            uint64_t gap = klawi_in_var(&in), more = klawi_in_var(&in);
            if (numbered(b, from))
                klawi_ranges_add_span(&from->had, last + gap, last + gap + more);
            last += gap + more;
        }
    }
    in = a->live;
    if (a->n_live) {
        klawi_in first = in;
        p->lease_base = klawi_in_var(&first);
        p->lease_next = a->lease_next;
    }
    uint64_t lease = 0;
    for (uint64_t i = 0; i < a->n_live; i++) {
        lease += klawi_in_var(&in);
        klawi_peer *from = table[klawi_in_var(&in)];
        uint64_t seq = klawi_in_var(&in);
        bool taken = !numbered(b, from) || klawi_ranges_has(&from->had, seq);
        for (size_t j = 0; j < from->n_claims; j++)
            taken |= from->claims[j].seq == seq;
        if (taken)
            continue;
        from->claims[from->n_claims++] = (klawi_claim){seq, lease, p};
        *klawi_lease_at(p, lease) = (klawi_lease){.from = from, .seq = seq};
        if (p->held++ == 0)
            b->holders++;
        b->leased++;
    }
    claims_meet_queue(b);
}

/* Answers MISMATCH, with what the channel is. */
static klaw_err answer_mismatch(klaw_broker *b, uint64_t ticket) {
    klawi_answer *an = klawi_answer_new();
    klawi_out o = {0};
    if (!an)
        return KLAW_NOMEM;
    klawi_answer_head(b, &o, KLAWI_WIRE_MISMATCH);
    klawi_answer_describe(b, &o);
    return klawi_answer_send(b, an, &o, ticket, NULL, 0) ? KLAW_OK : KLAW_NOMEM;
}

static bool mismatch(const klaw_broker *b, const attach *a) {
    if (KLAWI_POLICY_MUTANT(ANY_TYPE))
        return false;
    return a->kind != (uint32_t)b->opts.kind ||
           (a->type_size && b->opts.type_size &&
            (a->type_size != b->opts.type_size ||
             memcmp(a->type, b->opts.type, a->type_size) != 0));
}

static void tokens_free(klawi_token **minted, uint64_t n) {
    for (uint64_t i = 0; minted && i < n; i++)
        klawi_free(minted[i]);
    klawi_free(minted);
}

/* Tokens for the minted ones that are not known; NULL entries: known. NULL: no memory. */
static klawi_token **tokens_new(klaw_broker *b, const attach *a) {
    klawi_token **minted = klawi_calloc((size_t)a->n_minted, sizeof(klawi_token *));
    klawi_in in = a->minted;
    for (uint64_t i = 0; minted && i < a->n_minted; i++) {
        const unsigned char *id = klawi_in_raw(&in, KLAW_REMOTE_ID);
        klawi_in_u8(&in);
        bool known = klawi_id_find(&b->tokens, id) != NULL;
        klawi_in before = a->minted;
        for (uint64_t j = 0; j < i && !known; j++) { /* twice in one call: the parser's worry */
            known = klawi_id_same(klawi_in_raw(&before, KLAW_REMOTE_ID), id);
            klawi_in_u8(&before);
        }
        if (!known && !(minted[i] = klawi_calloc(1, sizeof **minted))) {
            tokens_free(minted, i);
            return NULL;
        }
    }
    return minted;
}

static void attach_apply(klaw_broker *b, klawi_peer *p, const klawi_wire_call *c, const attach *a,
                         attach_room *room, klawi_token **minted) {
    p->number = c->number;
    klawi_free(p->node);
    memcpy(room->node, a->node, a->node_size);
    room->node[a->node_size] = '\0';
    p->node = room->node;
    if (p->state != KLAWI_PEER_ALIVE) {
        klawi_peer_state_set(b, p, KLAWI_PEER_ALIVE);
        klawi_link_remove(&p->age);
        klawi_link_push(&b->alive, &p->age);
        p->seen_at = b->now;
    }
    if (p->poll == 0 && p->held == 0 && p->lease_next < a->lease_next)
        p->lease_base = p->lease_next = a->lease_next;
    if (a->resume && !p->resumed && p->poll == 0)
        attach_resume(b, p, a, room->table);
    klawi_free(room->table);
    attach_endpoints(b, p, a, room);
    attach_tokens(b, p, a, minted);
    klawi_free(minted);
    klawi_peer_count(b, p);
}

/* Those of the minted ones that have ended: their minter need not state them again. */
static void answer_ended(klaw_broker *b, klawi_out *o, const attach *a) {
    for (int walk = 0, n = 0; walk < 2; walk++) {
        klawi_in in = a->minted;
        if (walk)
            klawi_out_var(o, (uint64_t)n);
        for (uint64_t i = 0; i < a->n_minted; i++) {
            const unsigned char *id = klawi_in_raw(&in, KLAW_REMOTE_ID);
            klawi_in_u8(&in);
            const klawi_id_node *t = klawi_id_find(&b->tokens, id);
            if (t && ((const klawi_token *)(const void *)t)->open)
                continue;
            n++;
            if (walk)
                klawi_out_raw(o, id, KLAW_REMOTE_ID);
        }
    }
}

klaw_err klawi_peer_attach(klaw_broker *b, const klawi_wire_call *c, klawi_in *in,
                           uint64_t ticket) {
    attach a;
    if (!parse_attach(in, &a))
        return KLAW_INVALID;
    klawi_peer *p = (klawi_peer *)(void *)klawi_id_find(&b->peers, c->client);
    if (p && p->state == KLAWI_PEER_DEAD)
        return klawi_answer_status(b, KLAWI_WIRE_EXPIRED, NULL, ticket) ? KLAW_OK : KLAW_NOMEM;
    if (p && (p->state == KLAWI_PEER_LEFT ||
              (c->number < p->number && !KLAWI_POLICY_MUTANT(ATTACH_ANY_ORDER))))
        return klawi_answer_status(b, KLAWI_WIRE_OLD, NULL, ticket) ? KLAW_OK : KLAW_NOMEM;
    if (mismatch(b, &a))
        return answer_mismatch(b, ticket);
    if (!p && !(p = peer_add(b, c->client)))
        return KLAW_NOMEM;
    klawi_answer *an = klawi_answer_new();
    klawi_token **minted = tokens_new(b, &a);
    attach_room room = {0};
    klawi_out o = {0};
    /* The answer's size is known but for ranges, which are few. */
    if (!an || !minted ||
        !klawi_out_room(&o, klawi_answer_room(p) + b->opts.type_size +
                                (size_t)a.n_minted * KLAW_REMOTE_ID) ||
        !attach_reserve(b, p, &a, &room)) {
        klawi_free(o.data);
        klawi_free(an);
        tokens_free(minted, a.n_minted);
        return KLAW_NOMEM;
    }
    if (p->state != KLAWI_PEER_ALIVE || c->number != p->number)
        attach_apply(b, p, c, &a, &room, minted);
    else {
        attach_room_free(&room);
        tokens_free(minted, a.n_minted);
    }
    klawi_answer_head(b, &o, KLAWI_WIRE_OK);
    klawi_answer_common(b, &o, p);
    klawi_answer_describe(b, &o);
    answer_ended(b, &o, &a);
    bool sent = klawi_answer_send(b, an, &o, ticket, NULL, 0);
    KLAWI_ASSERT(sent);
    (void)sent;
    return KLAW_OK;
}
