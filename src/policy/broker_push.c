/* SPDX-License-Identifier: Apache-2.0 */
/* broker_push.c - frames of items that come in: duplicates, what came too early, room, batches.
 *
 * A frame is copied once; its items become nodes that point into the copy, before anything happens
 * (K1). Then they are accepted in the order of their seqs (W10): what is below `next` is dropped,
 * what is above waits in the stash, and the rest is taken in unit by unit, a unit being an item or
 * a whole batch (W13).
 *
 * Room (W12): a client that was refused waits in `blocked`. As soon as there is room for the first
 * one's next unit it is granted a share: room that is reserved for it, while those behind it wait;
 * nobody overtakes it: a batch as large as the channel gets in when the queue has run dry, those
 * behind it wait that long. It hears of its share by its poll. A grant that is not used within a
 * second goes on to the next one; its owner asks again by pushing, and has twice as long next time. */
#include "policy/broker.h"

int64_t klawi_room(const klaw_broker *b) {
    if (b->opts.capacity == KLAW_NONE || b->opts.kind != KLAW_REMOTE_QUEUE)
        return INT64_MAX;
    return b->opts.capacity - (int64_t)(b->fresh + b->reserved);
}

void klawi_stash_drop(klaw_broker *b, klawi_peer *p) {
    for (uint32_t i = 0; i < p->stashed; i++)
        for (klawi_node *n = p->stash[i].chain, *next; n; n = next) {
            next = n->next;
            klawi_node_drop(b, n);
        }
    p->stashed = 0;
}

void klawi_unblock(klaw_broker *b, klawi_peer *p) {
    if (p->is_blocked || p->is_granted)
        klawi_link_remove(&p->blocked);
    b->n_blocked -= p->is_blocked;
    p->is_blocked = p->is_granted = false;
    b->reserved -= p->grant;
    p->grant = 0;
}

void klawi_push_block(klaw_broker *b, klawi_peer *p, uint64_t need) {
    p->need = need;
    if (p->is_blocked)
        return;
    klawi_unblock(b, p);
    p->is_blocked = true;
    b->n_blocked++;
    klawi_link_push(&b->blocked, &p->blocked);
}

void klawi_grant(klaw_broker *b) {
    while (!klawi_link_empty(&b->blocked) && !b->deleted && !b->gathering) {
        klawi_peer *p = KLAWI_CONTAINER(b->blocked.next, klawi_peer, blocked);
        int64_t room = klawi_room(b);
        if (room < (int64_t)p->need || room <= 0 || KLAWI_POLICY_MUTANT(SPACE_UNTOLD))
            return;
        uint64_t share = (uint64_t)room / b->n_blocked;
        if (share < p->need)
            share = p->need;
        klawi_unblock(b, p);
        p->is_granted = true;
        p->grant = share;
        /* Who comes too late again and again (a large batch, a busy machine) gets more time. */
        p->grant_until = b->now + (KLAWI_GRANT_NS << (p->unused < 5 ? p->unused : 5));
        b->reserved += share;
        klawi_link_push(&b->granted, &p->blocked);
        klawi_news(b, p, true);
    }
}

void klawi_grants_due(klaw_broker *b) {
    while (!klawi_link_empty(&b->granted)) {
        klawi_peer *p = KLAWI_CONTAINER(b->granted.next, klawi_peer, blocked);
        if (b->now < p->grant_until || KLAWI_POLICY_MUTANT(GRANT_FOREVER))
            return;
        p->unused += !KLAWI_POLICY_MUTANT(GRANT_HASTY);
        klawi_unblock(b, p);
    }
}

bool klawi_push_room(klaw_broker *b, klawi_peer *p, uint64_t n) {
    if (KLAWI_POLICY_MUTANT(CAPACITY_IGNORED))
        return true;
    int64_t room = klawi_room(b);
    if (room == INT64_MAX)
        return true;
    if (b->n_blocked && !KLAWI_POLICY_MUTANT(OVERTAKES)) /* they were first */
        room = 0;
    if (room < 0)
        room = 0;
    if ((uint64_t)room + p->grant < n)
        return false;
    uint64_t granted = n < p->grant ? n : p->grant;
    p->grant -= granted;
    b->reserved -= granted;
    p->unused = 0;
    return true;
}

/* A duplicate, or what nobody will receive. */
static void push_drop(klaw_broker *b, klawi_node *n) {
    klawi_node_drop(b, n);
}

static bool node_void(const klawi_peer *p, const klawi_node *n) {
    /* Not so, but the analyzer does not follow why. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
    return (n->flags & KLAW_REMOTE_VOID) != 0 ||
           (p->refused.n && klawi_ranges_has(&p->refused, n->seq));
}

/* n is the next one and has its room. */
static void accept_one(klaw_broker *b, klawi_peer *p, klawi_node *n) {
    p->next = n->seq + 1;
    if (node_void(p, n) && !KLAWI_POLICY_MUTANT(VOID_DELIVERED)) {
        if (b->opts.durable)
            klawi_journal_void(b, p, n->seq, klawi_ranges_has(&p->refused, n->seq));
        b->live++; /* finish counts it back */
        n->payload = 0;
        klawi_node_finish(b, n);
        return;
    }
    if (p->had.n && klawi_ranges_has(&p->had, n->seq)) { /* W27 */
        b->live++;
        b->sent++;
        n->payload = 0;
        klawi_journal_void(b, p, n->seq, false);
        klawi_node_finish(b, n);
        return;
    }
    for (size_t i = 0; i < p->n_claims; i++) {
        if (p->claims[i].seq != n->seq)
            continue;
        klawi_claim c = p->claims[i];
        p->claims[i] = p->claims[--p->n_claims];
        klawi_queue_add(b, n);
        klawi_queue_unlink(b, n);
        *klawi_lease_at(c.holder, c.lease) = (klawi_lease){.node = n};
        return;
    }
    klawi_queue_add(b, n);
}

/* Makes a unit's items void for good, those that are next at once. */
static void refuse_unit(klaw_broker *b, klawi_peer *p, klawi_node **chain, uint64_t n) {
    while (n--) {
        klawi_node *node = *chain;
        *chain = node->next;
        if (!node_void(p, node) && !KLAWI_POLICY_MUTANT(REFUSED_SILENTLY))
            klawi_ranges_add(&p->refused, node->seq);
        if (node->seq == p->next)
            accept_one(b, p, node);
        else
            push_drop(b, node);
    }
}

/* The unit that begins at n: items up to the batch's last, *wanted of them not void. A peer that lies
 * about what was confirmed may have the rest of its batch cut off. */
static uint64_t unit_at(const klawi_peer *p, const klawi_node *n, uint64_t *wanted) {
    uint64_t size = 1;
    *wanted = !node_void(p, n);
    if (!(n->flags & KLAW_REMOTE_BATCH_FIRST) || KLAWI_POLICY_MUTANT(BATCH_SPLIT))
        return 1;
    while (!(n->flags & KLAW_REMOTE_BATCH_LAST) && n->next) {
        n = n->next;
        size++;
        *wanted += !node_void(p, n);
    }
    return size;
}

/* Its log can't hold that in one piece (W28). */
static bool too_large(const klaw_broker *b, const klawi_node *n, uint64_t count) {
    uint64_t bytes = 0;
    if (!b->opts.durable || KLAWI_POLICY_MUTANT(JOURNAL_WHOLE))
        return false;
    for (; count; count--, n = n->next)
        bytes += n->body_size + 32;
    return bytes > KLAWI_DURABLE_MAX;
}

/* Takes in what it can of a chain whose first seq is not above next. false: it had to stop. */
static bool accept_chain(klaw_broker *b, klawi_peer *p, klawi_node *chain) {
    while (chain && chain->seq < p->next && !KLAWI_POLICY_MUTANT(DUPLICATES_TAKEN)) {
        klawi_node *n = chain;
        chain = n->next;
        b->duplicates += !node_void(p, n);
        push_drop(b, n);
    }
    /* It gave up what it waited for: what follows waits anew, if it has to. */
    if (p->is_blocked && chain && node_void(p, chain) && !KLAWI_POLICY_MUTANT(PLACE_KEPT))
        klawi_unblock(b, p);
    bool blocked = false;
    if (b->sealed) /* closed, but for what an earlier boot had */
        for (klawi_node **n = &chain; *n;) {
            klawi_node *node = *n;
            if (node->seq > p->confirmed) {
                *n = node->next;
                push_drop(b, node);
            } else {
                n = &node->next;
            }
        }
    while (chain) {
        uint64_t wanted, size = unit_at(p, chain, &wanted);
        bool nowait = (chain->flags & KLAW_REMOTE_NOWAIT) != 0;
        bool never = too_large(b, chain, size) ||
                     (wanted > 1 && b->opts.kind == KLAW_REMOTE_QUEUE &&
                      b->opts.capacity != KLAW_NONE && wanted > (uint64_t)b->opts.capacity);
        /* Whether senders are closed is not known before all have told what they heard (W27). */
        bool early = b->gathering && !b->opts.durable && chain->seq > p->confirmed;
        bool room = wanted == 0 || (!blocked && !early && !never && klawi_push_room(b, p, wanted));
        if (room && !blocked) {
            while (size--) {
                klawi_node *n = chain;
                chain = n->next;
                accept_one(b, p, n);
            }
        } else if ((nowait && !KLAWI_POLICY_MUTANT(NOWAIT_WAITS)) || never) {
            refuse_unit(b, p, &chain, size);
        } else {
            if (!blocked)
                klawi_push_block(b, p, wanted ? wanted : 1);
            blocked = true;
            while (size--) { /* in order: nothing behind it gets in (W12) */
                klawi_node *n = chain;
                chain = n->next;
                push_drop(b, n);
            }
        }
    }
    return !blocked;
}

/* What waited for this. */
static void accept_stash(klaw_broker *b, klawi_peer *p) {
    for (uint32_t i = 0; i < p->stashed;) {
        klawi_stashed s = p->stash[i];
        if (s.first > p->next) {
            i++;
            continue;
        }
        p->stash[i] = p->stash[--p->stashed];
        if (!accept_chain(b, p, s.chain)) {
            klawi_stash_drop(b, p);
            return;
        }
        i = 0;
    }
}

/* Keeps a frame that came too early; false: there is no place. */
static bool stash(klawi_peer *p, uint64_t first, uint64_t count, klawi_node *chain) {
    if (p->stashed == KLAWI_STASH || KLAWI_POLICY_MUTANT(NO_STASH))
        return false;
    for (uint32_t i = 0; i < p->stashed; i++)
        if (p->stash[i].first == first && p->stash[i].count >= count)
            return false;
    p->stash[p->stashed++] = (klawi_stashed){first, count, chain};
    return true;
}

static void chain_drop(klaw_broker *b, klawi_node *chain) {
    for (klawi_node *next; chain; chain = next) {
        next = chain->next;
        klawi_node_drop(b, chain);
    }
}

/* The frame's items as a chain of nodes over a copy of it. INVALID: not items. */
static klaw_err push_parse(klaw_broker *b, klawi_peer *p, klawi_in *in, uint64_t first,
                           uint64_t count, const void *data, size_t size, klawi_node **out) {
    klawi_frame *f = klawi_frame_new(size);
    if (!f || !klawi_nodes_reserve(b, count)) {
        klawi_frame_unref(f);
        return KLAW_NOMEM;
    }
    memcpy(f->data, data, size);
    klawi_node **end = out;
    bool batch = false;
    *out = NULL;
    for (uint64_t i = 0; i < count; i++) {
        klawi_wire_item item;
        bool ok = klawi_in_item(in, &item);
        if (ok && (item.flags & KLAW_REMOTE_BATCH_FIRST)) {
            ok = !batch;
            batch = true;
        }
        if (!ok)
            break;
        if (item.flags & KLAW_REMOTE_BATCH_LAST)
            batch = false;
        klawi_node *n = klawi_node_take(b);
        n->frame = f;
        f->refs++;
        n->body = f->data + (item.body - (const unsigned char *)data);
        n->body_size = (uint32_t)item.body_size;
        n->payload = (uint32_t)item.size;
        n->flags = item.flags & KLAWI_WIRE_PUBLIC_FLAGS;
        n->attached = (item.flags & KLAWI_WIRE_ATTACHED) != 0;
        n->sent_at = item.sent_at;
        n->deadline = item.deadline;
        n->seq = first + i;
        n->from = p;
        p->nodes++;
        *end = n;
        end = &n->next;
    }
    *end = NULL;
    klawi_frame_unref(f);
    if (!klawi_in_done(in) || batch) {
        chain_drop(b, *out);
        return KLAW_INVALID;
    }
    return KLAW_OK;
}

/* Hands out the call's attachments; INVALID: not as many as its items say. */
static bool push_attach(klawi_node *chain, void *const *attachments, size_t attached) {
    size_t n = 0;
    for (klawi_node *c = chain; c; c = c->next)
        n += c->attached;
    if (n != attached)
        return false;
    n = 0;
    for (klawi_node *c = chain; c; c = c->next)
        c->attachment = c->attached ? attachments[n++] : NULL;
    return true;
}

klaw_err klawi_push(klaw_broker *b, klawi_peer *p, klawi_in *in, const void *data, size_t size,
                    void *const *attachments, size_t attached, uint64_t ticket) {
    uint64_t base = klawi_in_var(in), first = klawi_in_var(in);
    bool more = klawi_in_u8(in);
    uint64_t count = klawi_in_count(in, 12);
    if (in->bad || count == 0 || first == 0 || first > INT64_MAX || base > first)
        return KLAW_INVALID;
    klawi_node *chain;
    klaw_err e = push_parse(b, p, in, first, count, data, size, &chain);
    if (e != KLAW_OK)
        return e;
    uint64_t waiting = count, refusable = 0;
    for (uint32_t i = 0; i < p->stashed; i++)
        waiting += p->stash[i].count;
    for (uint32_t i = 0; i <= p->stashed; i++)
        for (klawi_node *n = i ? p->stash[i - 1].chain : chain; n; n = n->next)
            refusable += (n->flags & (KLAW_REMOTE_NOWAIT | KLAW_REMOTE_BATCH_FIRST)) != 0;
    klawi_answer *an = klawi_answer_new();
    klawi_out o = {0};
    bool room = an && klawi_out_room(&o, klawi_answer_room(p) + 20 * refusable) &&
                klawi_done_reserve(p, waiting) &&
                klawi_ranges_reserve(&p->refused, (size_t)waiting) &&
                klawi_queue_reserve(b, waiting, size);
    if (!room || !push_attach(chain, attachments, attached)) {
        for (klawi_node *n = chain; n; n = n->next)
            n->attachment = NULL;
        chain_drop(b, chain);
        klawi_free(an);
        klawi_free(o.data);
        return room ? KLAW_INVALID : KLAW_NOMEM;
    }
    if (base > p->base)
        p->base = base;
    klawi_ranges_below(&p->refused, p->base);
    if (b->closed[KLAW_REMOTE_RECEIVER] || b->closed[KLAW_REMOTE_SENDER]) {
        chain_drop(b, chain);
        klawi_stash_drop(b, p);
        klawi_unblock(b, p);
    } else if (first <= p->next || KLAWI_POLICY_MUTANT(GAPS_TAKEN)) {
        if (accept_chain(b, p, chain))
            accept_stash(b, p);
        else
            klawi_stash_drop(b, p);
        if (p->is_granted && (!more || p->grant == 0))
            klawi_unblock(b, p);
    } else if (p->is_blocked || !stash(p, first, count, chain)) {
        chain_drop(b, chain);
    }
    klawi_peer_count(b, p);
    klawi_answer_head(b, &o, KLAWI_WIRE_OK);
    klawi_answer_common(b, &o, p);
    klawi_news_told(p);
    bool sent = klawi_answer_send(b, an, &o, ticket, NULL, 0);
    KLAWI_ASSERT(sent);
    (void)sent;
    return KLAW_OK;
}
