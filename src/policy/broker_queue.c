/* SPDX-License-Identifier: Apache-2.0 */
/* broker_queue.c - a broker's items: nodes, the queue (QUEUE), the log (BROADCAST), the newest value
 * (WATCH), leases, and which of a client's items are finished.
 *
 * Invariants K2, K3, K5 (broker.h). Nodes come from a free list that calls fill before they have
 * effects; payloads stay in the frame they came in, which its nodes count. Nothing here allocates
 * but the functions named reserve.
 *
 * Cost: O(1) an item, memory moved once from the frame into an answer; a returned item walks past
 * those that came back before it. */
#include "policy/broker.h"

/* --- nodes --- */

bool klawi_nodes_reserve(klaw_broker *b, uint64_t n) {
    while (b->n_free < n) {
        klawi_node *node = klawi_alloc(sizeof *node);
        if (!node)
            return false;
        node->next = b->free_nodes;
        b->free_nodes = node;
        b->n_free++;
    }
    return true;
}

klawi_node *klawi_node_take(klaw_broker *b) {
    klawi_node *n = b->free_nodes;
    KLAWI_ASSERT(n);
    b->free_nodes = n->next;
    b->n_free--;
    memset(n, 0, sizeof *n);
    return n;
}

/* How many free nodes are kept. */
#define FREE_NODES 4096

void klawi_node_drop(klaw_broker *b, klawi_node *n) {
    klawi_broker_drop(b, n->attachment);
    klawi_frame_unref(n->frame);
    if (n->from)
        n->from->nodes--;
    if (b->n_free >= FREE_NODES) {
        klawi_free(n);
        return;
    }
    n->next = b->free_nodes;
    b->free_nodes = n;
    b->n_free++;
}

bool klawi_node_late(const klaw_broker *b, const klawi_node *n) {
    return n->deadline && n->deadline <= b->real_now && !KLAWI_POLICY_MUTANT(EXPIRED_KEPT);
}

/* --- what is finished --- */

bool klawi_done_reserve(klawi_peer *p, uint64_t more) {
    uint64_t need = p->next + more - p->done, room = p->mask + 1;
    if (p->bits && need <= room)
        return true;
    if (!p->bits)
        room = 64;
    while (room < need)
        room *= 2;
    uint64_t *bits = klawi_calloc(room / 64, sizeof *bits);
    if (!bits)
        return false;
    for (uint64_t s = p->done + 1; p->bits && s < p->next; s++)
        if (p->bits[(s & p->mask) / 64] >> (s & 63) & 1)
            bits[(s & (room - 1)) / 64] |= 1ull << (s & 63);
    klawi_free(p->bits);
    p->bits = bits;
    p->mask = room - 1;
    return true;
}

bool klawi_is_done(const klawi_peer *p, uint64_t seq) {
    return seq <= p->done ||
           (seq < p->next && p->bits && (p->bits[(seq & p->mask) / 64] >> (seq & 63) & 1));
}

void klawi_done(klaw_broker *b, klawi_peer *p, uint64_t seq) {
    if (p == b->anonymous && !b->opts.durable) {
        return;
    }
    if (klawi_is_done(p, seq))
        return;
    if (b->opts.durable)
        klawi_journal_done(b, p, seq);
    uint64_t mask = p->mask;
    p->bits[(seq & mask) / 64] |= 1ull << (seq & 63);
    for (uint64_t s = p->done + 1; s < p->next; s++) {
        uint64_t *word = &p->bits[(s & mask) / 64], bit = 1ull << (s & 63);
        if (!(*word & bit))
            break;
        *word &= ~bit;
        p->done = s;
    }
    if (seq > p->done)
        *(seq < p->tell_from ? &p->untold_below : &p->untold) = true;
    klawi_news(b, p, false);
}

void klawi_node_finish(klaw_broker *b, klawi_node *n) {
    b->bytes -= n->payload;
    b->live--;
    klawi_done(b, n->from, n->seq);
    klawi_node_drop(b, n);
}

void klawi_node_release(klaw_broker *b, klawi_node *n) {
    KLAWI_ASSERT(n->holders);
    if (--n->holders == 0)
        klawi_node_finish(b, n);
}

/* --- the queue --- */

static void queue_insert(klaw_broker *b, klawi_node *before, klawi_node *n, klawi_node *after) {
    n->prev = before;
    n->next = after;
    *(before ? &before->next : &b->head) = n;
    *(after ? &after->prev : &b->tail) = n;
    b->queued++;
    b->drains++;
    n->from->queued++;
    b->orphans += klawi_peer_gone(n->from);
    if (n->counted)
        b->fresh++;
    if (b->queued > b->high)
        b->high = b->queued;
}

void klawi_queue_unlink(klaw_broker *b, klawi_node *n) {
    *(n->prev ? &n->prev->next : &b->head) = n->next;
    *(n->next ? &n->next->prev : &b->tail) = n->prev;
    b->queued--;
    n->from->queued--;
    b->orphans -= klawi_peer_gone(n->from);
    if (n->counted)
        b->fresh--;
    n->counted = false;
}

bool klawi_queue_reserve(klaw_broker *b, uint64_t n, size_t bytes) {
    if (b->opts.durable && !klawi_journal_reserve(b, n, bytes))
        return false;
    if (b->opts.kind != KLAW_REMOTE_BROADCAST)
        return true;
    uint64_t used = b->log_next - b->log_first, room = b->log ? b->log_mask + 1 : 0;
    if (room - used >= n)
        return true;
    room = room ? room : 64;
    while (room - used < n)
        room *= 2;
    klawi_node **log = klawi_calloc((size_t)room, sizeof(klawi_node *));
    if (!log)
        return false;
    for (uint64_t pos = b->log_first; pos < b->log_next; pos++)
        /* Not so, but the analyzer does not follow why. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
        log[pos & (room - 1)] = b->log[pos & b->log_mask];
    klawi_free(b->log);
    b->log = log;
    b->log_mask = room - 1;
    return true;
}

static void log_add(klaw_broker *b, klawi_node *n) {
    n->pos = b->log_next++;
    n->holders = 1;
    n->readers = b->readers;
    b->log[n->pos & b->log_mask] = n;
    b->queued++;
    if (b->queued > b->high)
        b->high = b->queued;
    klawi_log_trim(b);
}

static klawi_node *log_pop(klaw_broker *b) {
    klawi_node *n = b->log[b->log_first++ & b->log_mask];
    b->queued--;
    return n;
}

void klawi_log_trim(klaw_broker *b) {
    while (b->log_first < b->log_next) {
        klawi_node *n = b->log[b->log_first & b->log_mask];
        bool over = b->opts.capacity != KLAW_NONE &&
                    b->log_next - b->log_first > (uint64_t)b->opts.capacity;
        bool wanted = n->readers > 0 || b->gathering;
        if (wanted && !over)
            return;
        if (wanted)
            b->missed += n->readers;
        klawi_node_release(b, log_pop(b));
    }
}

void klawi_queue_add(klaw_broker *b, klawi_node *n) {
    b->bytes += n->payload;
    b->live++;
    b->sent++;
    n->mark = b->opts.durable && !b->replaying ? b->mark + 1 : 0;
    if (b->opts.durable && !b->replaying)
        klawi_journal_item(b, n);
    if (n->deadline && (b->first_deadline == 0 || n->deadline < b->first_deadline))
        b->first_deadline = n->deadline;
    switch (b->opts.kind) {
    case KLAW_REMOTE_QUEUE:
        n->pos = ++b->pos;
        n->counted = true;
        queue_insert(b, b->tail, n, NULL);
        break;
    case KLAW_REMOTE_BROADCAST: log_add(b, n); break;
    default: /* the newest value takes the place of the last one */
        n->pos = ++b->pos;
        n->holders = 1;
        if (b->latest)
            klawi_node_release(b, b->latest);
        b->latest = n;
        b->queued = b->high = 1;
        break;
    }
}

void klawi_queue_return(klaw_broker *b, klawi_node *n, klawi_node **hint) {
    klawi_node *before = hint ? *hint : NULL;
    if (before && before->pos > n->pos)
        before = NULL;
    klawi_node *after = before ? before->next : b->head;
    while (after && after->pos < n->pos && !KLAWI_POLICY_MUTANT(RETURNED_REVERSED)) {
        before = after;
        after = after->next;
    }
    if (KLAWI_POLICY_MUTANT(RETURNED_LAST)) {
        before = b->tail;
        after = NULL;
    }
    n->counted = KLAWI_POLICY_MUTANT(RETURNED_COUNTS);
    queue_insert(b, before, n, after);
    if (hint)
        *hint = n;
}

klawi_node *klawi_queue_front(klaw_broker *b) {
    for (klawi_node *n; (n = b->head);) {
        if (n->mark > b->committed && !KLAWI_POLICY_MUTANT(DELIVERED_EARLY))
            return NULL;
        if (!klawi_node_late(b, n))
            return n;
        b->expired++;
        klawi_queue_unlink(b, n);
        klawi_node_finish(b, n);
    }
    return NULL;
}

/* Not more often than every 100 ms: items that expire one by one would cost a walk each. */
#define SCAN_NS 100000000

void klawi_queue_due(klaw_broker *b) {
    if (b->first_deadline == 0 || b->real_now < b->first_deadline || b->now < b->scan_at)
        return;
    if (b->opts.kind != KLAW_REMOTE_QUEUE) { /* the log drops its oldest anyway */
        b->first_deadline = 0;
        if (b->latest && klawi_node_late(b, b->latest)) {
            klawi_node_release(b, b->latest);
            b->latest = NULL;
            b->queued = 0;
            b->expired++;
        } else if (b->latest) {
            b->first_deadline = b->latest->deadline;
        }
        return;
    }
    b->scan_at = b->now + SCAN_NS;
    b->first_deadline = 0;
    for (klawi_node *n = b->head, *next; n; n = next) {
        next = n->next;
        if (klawi_node_late(b, n) && n->mark <= b->committed) {
            b->expired++;
            klawi_queue_unlink(b, n);
            klawi_node_finish(b, n);
        } else if (n->deadline && (b->first_deadline == 0 || n->deadline < b->first_deadline)) {
            b->first_deadline = n->deadline;
        }
    }
}

/* --- leases --- */

bool klawi_leases_reserve(klawi_peer *p, uint64_t more) {
    uint64_t used = p->lease_next - p->lease_base, room = p->leases ? p->lease_mask + 1 : 0;
    if (room - used >= more)
        return true;
    room = room ? room : 16;
    while (room - used < more)
        room *= 2;
    klawi_lease *leases = klawi_calloc((size_t)room, sizeof *leases);
    if (!leases)
        return false;
    for (uint64_t i = p->lease_base; i < p->lease_next; i++)
        leases[i & (room - 1)] = *klawi_lease_at(p, i);
    klawi_free(p->leases);
    p->leases = leases;
    p->lease_mask = room - 1;
    return true;
}

void klawi_lease_put(klaw_broker *b, klawi_peer *p, uint64_t number, klawi_node *n) {
    klawi_lease *l = klawi_lease_at(p, number);
    *l = (klawi_lease){.node = n};
    if (p->held++ == 0)
        b->holders++;
    b->leased++;
}

/* Takes back what p's claim of an earlier boot said: its item has not come (W27). */
static void claim_end(klaw_broker *b, klawi_lease *l, enum klawi_lease_end how) {
    klawi_peer *from = l->from;
    for (size_t i = 0; i < from->n_claims; i++) {
        if (from->claims[i].seq != l->seq)
            continue;
        from->claims[i] = from->claims[--from->n_claims];
        break;
    }
    if (how == KLAWI_LEASE_ACK) { /* else whoever has it may send it again */
        klawi_ranges_add(&from->had, l->seq);
        b->received++;
    }
}

void klawi_lease_end(klaw_broker *b, klawi_peer *p, uint64_t number, enum klawi_lease_end how,
                     klawi_node **hint) {
    klawi_lease *l = klawi_lease_at(p, number), was = *l;
    if (!was.node && !was.from)
        return; /* acknowledged before, or returned: stale (W22) */
    *l = (klawi_lease){0};
    if (--p->held == 0)
        b->holders--;
    b->leased--;
    while (p->lease_base < p->lease_next && !klawi_lease_at(p, p->lease_base)->node &&
           !klawi_lease_at(p, p->lease_base)->from)
        p->lease_base++;
    if (!was.node) {
        claim_end(b, &was, how);
        return;
    }
    if (b->opts.kind != KLAW_REMOTE_QUEUE) {
        b->received += how == KLAWI_LEASE_ACK;
        klawi_node_release(b, was.node);
        return;
    }
    if (how == KLAWI_LEASE_SEEN && b->opts.ack == KLAW_REMOTE_ACK_BEFORE &&
        !KLAWI_POLICY_MUTANT(BEFORE_RETURNS))
        how = KLAWI_LEASE_ACK; /* at most once */
    if (how == KLAWI_LEASE_ACK) {
        b->received++;
        klawi_node_finish(b, was.node);
        return;
    }
    if (how == KLAWI_LEASE_SEEN && !KLAWI_POLICY_MUTANT(RETURNED_UNMARKED))
        was.node->flags |= KLAW_REMOTE_REDELIVERED;
    klawi_queue_return(b, was.node, hint);
}

bool klawi_drained_for(const klaw_broker *b, const klawi_peer *p) {
    if (!b->closed[KLAW_REMOTE_SENDER] || b->queued || b->gathering)
        return false;
    /* What another client holds may come back, unless consumers may hold things for long. */
    return b->opts.ack != KLAW_REMOTE_ACK_NEXT || b->leased == p->held ||
           KLAWI_POLICY_MUTANT(CLOSED_EARLY);
}
