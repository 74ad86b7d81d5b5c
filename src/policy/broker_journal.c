/* SPDX-License-Identifier: Apache-2.0 */
/* broker_journal.c - the log of a durable broker (W28).
 *
 * Records are appended as things happen, and given away as one transaction each time the holder asks.
 * An answer waits until the transaction with its effects is committed (klawi_answer_send), and so
 * does the delivery of an item (klawi_queue_front). A snapshot is the same sequence of records, of
 * what there is, so that there is one reader for both.
 *
 * Deliveries are not recorded: after a restart every item that was not acknowledged may have been
 * seen, so all are marked redelivered. Attachments can't be written: items that have one are lost
 * with the broker's process, and counted.
 *
 * A blob: version, channel, kind, records, sum. A record: its sort, then
 *   PEER   identity: whose the records behind it are
 *   NEXT   next, done, ranges above it, ranges refused: where that client stands
 *   ITEM   seq, flags, length and body
 *   VOID   seq, refused: holds a place
 *   DONE   seq
 *   FLAGS  senders closed, receivers closed, deleted, senders opened, receivers opened */
#include "policy/broker.h"

#include <stdlib.h>

enum record { REC_PEER = 1, REC_NEXT, REC_ITEM, REC_VOID, REC_DONE, REC_FLAGS };

/* What one small record takes at most, with a change of client and the head. */
#define THING 64

bool klawi_journal_reserve(klaw_broker *b, uint64_t things, size_t bytes) {
    if (!b->opts.durable)
        return true;
    uint64_t need = (2 * things + b->live + 4) * THING + bytes;
    bool ok = need <= SIZE_MAX / 4 && klawi_out_room(&b->journal, (size_t)need);
    b->journal.failed = false; /* nothing is cut: the next one may have its memory */
    return ok;
}

static void journal_head(const klaw_broker *b, klawi_out *o) {
    klawi_out_u8(o, KLAW_REMOTE_VERSION);
    klawi_out_raw(o, b->opts.channel, KLAW_REMOTE_ID);
    klawi_out_u8(o, b->opts.kind);
}

/* Begins a record of p's in b->journal. */
static void record(klaw_broker *b, klawi_peer *p, enum record sort) {
    klawi_out *o = &b->journal;
    if (o->size == 0) {
        journal_head(b, o);
        b->journal_peer = NULL;
    }
    if (p && b->journal_peer != p) {
        klawi_out_u8(o, REC_PEER);
        klawi_out_raw(o, p->id.id, KLAW_REMOTE_ID);
        b->journal_peer = p;
    }
    klawi_out_u8(o, sort);
}

static void write_item(klawi_out *o, const klawi_node *n) {
    klawi_out_var(o, n->seq);
    klawi_out_u8(o, n->flags);
    klawi_out_bytes(o, n->body, n->body_size);
}

void klawi_journal_item(klaw_broker *b, const klawi_node *n) {
    if (!b->opts.durable || b->replaying)
        return;
    record(b, n->from, REC_ITEM);
    write_item(&b->journal, n);
}

void klawi_journal_void(klaw_broker *b, klawi_peer *p, uint64_t seq, bool refused) {
    if (!b->opts.durable || b->replaying)
        return;
    record(b, p, REC_VOID);
    klawi_out_var(&b->journal, seq);
    klawi_out_u8(&b->journal, refused);
}

void klawi_journal_done(klaw_broker *b, klawi_peer *p, uint64_t seq) {
    if (!b->opts.durable || b->replaying || KLAWI_POLICY_MUTANT(ACKS_UNWRITTEN))
        return;
    record(b, p, REC_DONE);
    klawi_out_var(&b->journal, seq);
}

static void write_next(klawi_out *o, const klawi_peer *p) {
    klawi_out_var(o, p->next);
    klawi_out_var(o, p->done);
    uint64_t n = 0;
    for (uint64_t s = p->done + 1; s < p->next; s++)
        n += klawi_is_done(p, s) && !klawi_is_done(p, s - 1);
    klawi_out_var(o, n);
    for (uint64_t s = p->done + 1; s < p->next; s++) {
        if (!klawi_is_done(p, s))
            continue;
        uint64_t from = s;
        while (s + 1 < p->next && klawi_is_done(p, s + 1))
            s++;
        klawi_out_var(o, from);
        klawi_out_var(o, s - from);
    }
    klawi_out_ranges(o, &p->refused);
}

void klawi_journal_next(klaw_broker *b, klawi_peer *p) {
    if (!b->opts.durable || b->replaying)
        return;
    record(b, p, REC_NEXT);
    write_next(&b->journal, p);
}

static uint32_t flags_of(const klaw_broker *b) {
    return (uint32_t)b->closed[0] | (uint32_t)b->closed[1] << 1 | (uint32_t)b->deleted << 2 |
           (uint32_t)(b->opened[0] || b->heard[0]) << 3 |
           (uint32_t)(b->opened[1] || b->heard[1]) << 4;
}

void klawi_journal_flags(klaw_broker *b) {
    if (!b->opts.durable || b->replaying)
        return;
    record(b, NULL, REC_FLAGS);
    klawi_out_u8(&b->journal, flags_of(b));
}

/* Passes over a record. *whose: the client it is about; *batch: a batch goes on behind it. */
static void skip_record(klawi_in *in, const unsigned char **whose, bool *batch) {
    size_t size;
    uint32_t flags;
    switch (klawi_in_u8(in)) {
    case REC_PEER: *whose = klawi_in_raw(in, KLAW_REMOTE_ID); break;
    case REC_NEXT:
        klawi_in_var(in);
        klawi_in_var(in);
        for (int list = 0; list < 2; list++)
            for (uint64_t n = 2 * klawi_in_count(in, 2); n; n--)
                klawi_in_var(in);
        break;
    case REC_ITEM:
        klawi_in_var(in);
        flags = klawi_in_u8(in);
        *batch = (*batch || (flags & KLAW_REMOTE_BATCH_FIRST)) && !(flags & KLAW_REMOTE_BATCH_LAST);
        klawi_in_bytes(in, &size);
        break;
    case REC_VOID:
        klawi_in_var(in);
        klawi_in_u8(in);
        break;
    case REC_DONE: klawi_in_var(in); break;
    default: klawi_in_u8(in); break;
    }
}

/* version, channel, kind */
#define HEAD (1 + KLAW_REMOTE_ID + 1)

/* Where a journal that is too long is cut: between records, outside of batches. 0: nowhere. *whose: the
 * client of the record behind it. */
static size_t journal_cut(const klawi_out *o, const unsigned char **whose) {
    klawi_in in = {o->data + HEAD, o->data + o->size, false};
    size_t cut = 0;
    const unsigned char *client = NULL;
    for (bool batch = false; klawi_in_left(&in) && !in.bad;) {
        size_t at = (size_t)(in.p - o->data);
        if (!batch && at > HEAD) {
            if (cut && at > KLAWI_JOURNAL_PART)
                break;
            cut = at;
            *whose = client;
        }
        skip_record(&in, &client, &batch);
    }
    KLAWI_ASSERT(!in.bad);
    return cut;
}

/* The first part of a long journal. Its mark is the last one's: nobody waits for it. false: no memory,
 * or it can't be parted. */
static bool journal_part(klaw_broker *b, void **data, size_t *size, uint64_t *mark) {
    klawi_out *o = &b->journal, part = {0};
    const unsigned char *whose = NULL;
    size_t cut = journal_cut(o, &whose);
    if (!cut || !klawi_out_room(&part, cut + 16))
        return false;
    klawi_out_raw(&part, o->data, cut);
    if (!klawi_out_seal(&part))
        return false;
    size_t start = HEAD;
    if (whose) {
        unsigned char id[KLAW_REMOTE_ID];
        memcpy(id, whose, sizeof id);
        o->data[start++] = REC_PEER;
        memcpy(o->data + start, id, sizeof id);
        start += sizeof id;
    }
    memmove(o->data + start, o->data + cut, o->size - cut);
    o->size -= cut - start;
    *data = part.data;
    *size = part.size;
    *mark = b->mark;
    return true;
}

bool klaw_broker_journal(klaw_broker *b, void **data, size_t *size, uint64_t *mark) {
    if (!b->opts.durable || b->journal.size == 0)
        return false;
    if (b->journal.size > KLAWI_JOURNAL_PART && !KLAWI_POLICY_MUTANT(JOURNAL_WHOLE) &&
        journal_part(b, data, size, mark))
        return true;
    klawi_out next = {0}, was = b->journal;
    b->journal = next;
    if (!klawi_journal_reserve(b, 1, 0)) { /* it has to have room for the end of each item */
        klawi_free(b->journal.data);
        b->journal = was;
        b->short_of_memory = true; /* asks for a tick, after which the holder comes again */
        return false;
    }
    if (!klawi_out_seal(&was)) { /* unlikely: there is always room */
        b->short_of_memory = true;
        return false;
    }
    *data = was.data;
    *size = was.size;
    *mark = ++b->mark;
    b->journal_peer = NULL;
    return true;
}

void klaw_broker_committed(klaw_broker *b, uint64_t mark) {
    if (mark > b->committed)
        b->committed = mark;
    if (b->started)
        klaw_broker_tick(b, b->now, b->real_now); /* what waited for this can go out */
}

/* --- snapshots --- */

static int by_pos(const void *x, const void *y) {
    const klawi_node *a = *(klawi_node *const *)x, *c = *(klawi_node *const *)y;
    return a->pos < c->pos ? -1 : a->pos > c->pos;
}

static void snapshot_peer(klawi_out *o, const klawi_peer *p) {
    if (p->next == 1)
        return;
    klawi_out_u8(o, REC_PEER);
    klawi_out_raw(o, p->id.id, KLAW_REMOTE_ID);
    klawi_out_u8(o, REC_NEXT);
    write_next(o, p);
}

klaw_err klaw_broker_snapshot(klaw_broker *b, void **data, size_t *size) {
    if (!b->opts.durable)
        return KLAW_INVALID;
    klawi_node **all = klawi_alloc((size_t)(b->queued + b->leased) * sizeof(klawi_node *));
    if (!all)
        return KLAW_NOMEM;
    size_t n = 0;
    klawi_out o = {0};
    journal_head(b, &o);
    klawi_out_u8(&o, REC_FLAGS);
    klawi_out_u8(&o, flags_of(b));
    snapshot_peer(&o, b->anonymous);
    klawi_link *lists[] = {&b->alive, &b->gone};
    for (int i = 0; i < 2; i++)
        for (klawi_link *l = lists[i]->next; l != lists[i]; l = l->next) {
            const klawi_peer *p = KLAWI_CONTAINER(l, klawi_peer, age);
            snapshot_peer(&o, p);
            for (uint64_t j = p->lease_base; j < p->lease_next; j++)
                if (klawi_lease_at(p, j)->node)
                    all[n++] = klawi_lease_at(p, j)->node;
        }
    for (klawi_node *node = b->head; node; node = node->next)
        all[n++] = node;
    qsort(all, n, sizeof(klawi_node *), by_pos);
    const klawi_peer *last = NULL;
    for (size_t i = 0; i < n; i++) {
        if (klawi_is_done(all[i]->from, all[i]->seq))
            continue; /* handed out at most once */
        if (all[i]->from != last) {
            last = all[i]->from;
            klawi_out_u8(&o, REC_PEER);
            klawi_out_raw(&o, last->id.id, KLAW_REMOTE_ID);
        }
        klawi_out_u8(&o, REC_ITEM);
        write_item(&o, all[i]);
    }
    klawi_free(all);
    if (!klawi_out_seal(&o))
        return KLAW_NOMEM;
    *data = o.data;
    *size = o.size;
    return KLAW_OK;
}

/* --- reading it back --- */

static klawi_node *restored_find(klaw_broker *b, const klawi_peer *p, uint64_t seq) {
    klawi_node *n = b->head; /* items are mostly finished in their order */
    while (n && (n->from != p || n->seq != seq))
        n = n->next;
    return n;
}

static klaw_err read_item(klaw_broker *b, klawi_peer *p, klawi_in *in) {
    uint64_t seq = klawi_in_var(in);
    uint32_t flags = klawi_in_u8(in);
    size_t size;
    const unsigned char *body = klawi_in_bytes(in, &size);
    klawi_in item = {body, body ? body + size : body, in->bad};
    klawi_wire_item w;
    if (in->bad || !p || seq == 0 || seq > INT64_MAX || !klawi_in_item(&item, &w) ||
        !klawi_in_done(&item))
        return KLAW_CORRUPT;
    if (seq >= p->next + KLAWI_SPAN)
        return KLAW_CORRUPT;
    uint64_t more = seq >= p->next ? seq - p->next + 1 : 0;
    klawi_frame *f = klawi_frame_new(size);
    if (!f || !klawi_nodes_reserve(b, 1) || !klawi_done_reserve(p, more) ||
        !klawi_queue_reserve(b, 1, size)) {
        klawi_frame_unref(f);
        return KLAW_NOMEM;
    }
    memcpy(f->data, body, size);
    klawi_node *n = klawi_node_take(b);
    n->frame = f;
    n->body = f->data;
    n->body_size = (uint32_t)size;
    n->payload = (uint32_t)w.size;
    n->flags = flags | KLAW_REMOTE_REDELIVERED;
    n->sent_at = w.sent_at;
    n->deadline = w.deadline;
    n->seq = seq;
    n->from = p;
    p->nodes++;
    if (seq >= p->next)
        p->next = seq + 1;
    if (w.flags & KLAWI_WIRE_ATTACHED) { /* what was attached is gone */
        b->lost++;
        b->live++;
        n->payload = 0;
        klawi_node_finish(b, n);
        return KLAW_OK;
    }
    klawi_queue_add(b, n);
    n->counted = true;
    return KLAW_OK;
}

/* As many numbers as one item may hold up: 512 MiB of bits. */
#define WINDOW_MAX ((uint64_t)1 << 32)

/* Whether a window can be as large as it says: what is not finished in it is here, or comes. */
static bool window_ok(const klawi_peer *p, klawi_in in, uint64_t next, uint64_t done, uint64_t n) {
    uint64_t last = done, open = next - 1 - done;
    if (next - done > WINDOW_MAX)
        return false;
    while (n--) {
        uint64_t from = klawi_in_var(&in), more = klawi_in_var(&in);
        if (in.bad || from <= last || from >= next || more >= next - from)
            return false;
        last = from + more;
        open -= more + 1;
    }
    bool comes = open <= p->nodes + klawi_in_left(&in) / 12;
    return KLAWI_POLICY_MUTANT(WINDOW_BOUND) ? next - done <= 64 * KLAWI_SPAN : comes;
}

static klaw_err read_next(klaw_broker *b, klawi_peer *p, klawi_in *in) {
    (void)b;
    uint64_t next = klawi_in_var(in), done = klawi_in_var(in), n = klawi_in_count(in, 2);
    if (in->bad || !p || next == 0 || done >= next || next > INT64_MAX ||
        !window_ok(p, *in, next, done, n))
        return KLAW_CORRUPT;
    p->next = next;
    p->done = done;
    klawi_free(p->bits);
    p->bits = NULL;
    if (!klawi_done_reserve(p, 1))
        return KLAW_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = klawi_in_var(in), more = klawi_in_var(in);
        for (uint64_t s = from; s <= from + more; s++) {
            bool word = (s & 63) == 0 && from + more - s >= 63;
            p->bits[(s & p->mask) / 64] |= word ? UINT64_MAX : 1ull << (s & 63);
            s += word ? 63 : 0;
        }
    }
    klawi_ranges_free(&p->refused);
    klaw_err e = klawi_in_ranges(in, &p->refused);
    return e == KLAW_INVALID ? KLAW_CORRUPT : e;
}

/* A seq that is finished, or void. */
static klaw_err read_seq(klaw_broker *b, klawi_peer *p, klawi_in *in, bool is_void) {
    uint64_t seq = klawi_in_var(in);
    bool refused = is_void && klawi_in_u8(in);
    if (in->bad || !p || seq == 0 || seq >= p->next + (is_void ? KLAWI_SPAN : 0))
        return KLAW_CORRUPT;
    uint64_t more = seq >= p->next ? seq - p->next + 1 : 0;
    if (!klawi_done_reserve(p, more) || !klawi_ranges_reserve(&p->refused, 1))
        return KLAW_NOMEM;
    if (is_void && seq >= p->next)
        p->next = seq + 1;
    if (refused && !klawi_ranges_has(&p->refused, seq))
        klawi_ranges_add(&p->refused, seq);
    klawi_node *n = klawi_is_done(p, seq) ? NULL : restored_find(b, p, seq);
    if (n) {
        klawi_queue_unlink(b, n);
        klawi_node_finish(b, n);
    } else {
        klawi_done(b, p, seq);
    }
    return KLAW_OK;
}

static klaw_err read_peer(klaw_broker *b, klawi_in *in, klawi_peer **out) {
    const unsigned char *id = klawi_in_raw(in, KLAW_REMOTE_ID);
    if (!id)
        return KLAW_CORRUPT;
    *out = klawi_id_zero(id) ? b->anonymous : klawi_peer_known(b, id);
    return *out ? KLAW_OK : KLAW_NOMEM;
}

static klaw_err read_flags(klaw_broker *b, klawi_in *in) {
    uint32_t flags = klawi_in_u8(in);
    for (int side = 0; side < 2; side++) {
        b->closed[side] |= flags >> side & 1;
        b->heard[side] |= flags >> (3 + side) & 1;
    }
    b->deleted |= flags >> 2 & 1;
    return in->bad ? KLAW_CORRUPT : KLAW_OK;
}

klaw_err klaw_broker_replay(klaw_broker *b, const void *data, size_t size) {
    klawi_in in;
    if (!b->opts.durable || b->started)
        return KLAW_INVALID;
    if (!klawi_in_open(&in, data, size))
        return KLAW_CORRUPT;
    uint32_t version = klawi_in_u8(&in);
    const unsigned char *channel = klawi_in_raw(&in, KLAW_REMOTE_ID);
    uint32_t kind = klawi_in_u8(&in);
    if (in.bad)
        return KLAW_CORRUPT;
    if (version != KLAW_REMOTE_VERSION || !klawi_id_same(channel, b->opts.channel) ||
        kind != (uint32_t)b->opts.kind)
        return KLAW_INVALID;
    klaw_err e = KLAW_OK;
    klawi_peer *p = NULL;
    b->replaying = true;
    while (e == KLAW_OK && klawi_in_left(&in)) {
        switch (klawi_in_u8(&in)) {
        case REC_PEER: e = read_peer(b, &in, &p); break;
        case REC_NEXT: e = read_next(b, p, &in); break;
        case REC_ITEM: e = read_item(b, p, &in); break;
        case REC_VOID: e = read_seq(b, p, &in, true); break;
        case REC_DONE: e = read_seq(b, p, &in, false); break;
        case REC_FLAGS: e = read_flags(b, &in); break;
        default: e = KLAW_CORRUPT; break;
        }
    }
    b->replaying = false;
    return e;
}

klaw_err klaw_broker_restore(klaw_broker *b, const void *snapshot, size_t size) {
    return klaw_broker_replay(b, snapshot, size);
}
