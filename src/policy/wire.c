/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - the blobs of hubs and brokers: sums, numbers, headers, items, ranges.
 *
 * The sum is no cryptography: it notices damage, not malice. It runs over four lanes of eight bytes,
 * since one lane would cost a multiplication's latency for each eight bytes of every item. Rejected:
 * no sum at all (a flipped bit in a length is noticed by the parser, one in a number has effects),
 * CRC32 by table (3 times as slow). */
#include "policy/wire.h"

#include "base/alloc.h"

#define PRIME 0x9e3779b97f4a7c15ull

static uint64_t load64(const unsigned char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

static inline uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * PRIME;
    return h ^ h >> 32;
}

static uint64_t sum_of(const unsigned char *p, size_t n) {
    uint64_t lane[4] = {n, 1, 2, 3};
    size_t whole = n & ~(size_t)31;
    for (const unsigned char *end = p + whole; p < end; p += 32)
        for (int i = 0; i < 4; i++)
            lane[i] = mix(lane[i], load64(p + 8 * i));
    unsigned char rest[32] = {0};
    if (n > whole)
        memcpy(rest, p, n - whole);
    uint64_t h = PRIME;
    for (int i = 0; i < 4; i++)
        h = mix(mix(h, lane[i]), load64(rest + 8 * i));
    return mix(h, h);
}

/* --- ranges --- */

bool klawi_ranges_reserve(klawi_ranges *r, size_t n) {
    if (r->room - r->n >= n)
        return true;
    size_t room = r->room ? r->room : 4;
    while (room - r->n < n)
        room *= 2;
    klawi_range *at = klawi_realloc(r->at, room * sizeof *at);
    if (!at)
        return false;
    r->at = at;
    r->room = room;
    return true;
}

/* The first range whose end is at or past x. */
static size_t range_at(const klawi_ranges *r, uint64_t x) {
    size_t low = 0, high = r->n;
    if (high && r->at[high - 1].to < x)
        return high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (r->at[mid].to < x)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void range_drop(klawi_ranges *r, size_t i, size_t n) {
    memmove(&r->at[i], &r->at[i + n], (r->n - i - n) * sizeof *r->at);
    r->n -= n;
}

void klawi_ranges_add_span(klawi_ranges *r, uint64_t from, uint64_t to) {
    /* What touches it: ranges that end at from - 1 or later and begin at to + 1 or before. */
    size_t i = range_at(r, from ? from - 1 : 0), last = i;
    while (last < r->n && r->at[last].from <= (to == UINT64_MAX ? to : to + 1))
        last++;
    if (last == i) {
        KLAWI_ASSERT(r->n < r->room);
        memmove(&r->at[i + 1], &r->at[i], (r->n - i) * sizeof *r->at);
        r->at[i] = (klawi_range){from, to};
        r->n++;
        return;
    }
    if (r->at[i].from < from)
        from = r->at[i].from;
    if (r->at[last - 1].to > to)
        to = r->at[last - 1].to;
    r->at[i] = (klawi_range){from, to};
    range_drop(r, i + 1, last - i - 1);
}

bool klawi_ranges_add(klawi_ranges *r, uint64_t x) {
    if (r->n && r->at[r->n - 1].to + 1 == x) {
        r->at[r->n - 1].to = x;
        return true;
    }
    if (klawi_ranges_has(r, x))
        return false;
    klawi_ranges_add_span(r, x, x);
    return true;
}

bool klawi_ranges_has(const klawi_ranges *r, uint64_t x) {
    size_t i = range_at(r, x);
    return i < r->n && r->at[i].from <= x;
}

void klawi_ranges_remove(klawi_ranges *r, uint64_t x) {
    size_t i = range_at(r, x);
    if (i == r->n || r->at[i].from > x)
        return;
    klawi_range old = r->at[i];
    if (old.from == old.to) {
        range_drop(r, i, 1);
    } else if (old.from == x) {
        r->at[i].from++;
    } else if (old.to == x) {
        r->at[i].to--;
    } else {
        KLAWI_ASSERT(r->n < r->room);
        memmove(&r->at[i + 1], &r->at[i], (r->n - i) * sizeof *r->at);
        r->n++;
        r->at[i].to = x - 1;
        r->at[i + 1].from = x + 1;
    }
}

void klawi_ranges_below(klawi_ranges *r, uint64_t x) {
    if (r->n == 0 || r->at[0].from >= x)
        return;
    size_t i = range_at(r, x);
    if (i)
        range_drop(r, 0, i);
    if (r->n && r->at[0].from < x)
        r->at[0].from = x;
}

void klawi_ranges_free(klawi_ranges *r) {
    klawi_free(r->at);
    *r = (klawi_ranges){0};
}

/* --- writing --- */

bool klawi_out_grow(klawi_out *o, size_t n) {
    if (o->failed)
        return false;
    size_t room = o->room ? o->room * 2 : 128;
    if (room < o->size + n)
        room = o->size + n;
    unsigned char *data = klawi_realloc(o->data, room);
    if (!data) {
        o->failed = true;
        return false;
    }
    o->data = data;
    o->room = room;
    return true;
}

bool klawi_out_seal(klawi_out *o) {
    if (klawi_out_room(o, KLAWI_WIRE_SUM)) {
        klawi_put_u64(o->data + o->size, sum_of(o->data, o->size));
        o->size += KLAWI_WIRE_SUM;
    }
    if (!o->failed)
        return true;
    klawi_free(o->data);
    *o = (klawi_out){.failed = true};
    return false;
}

/* A count; then of each the distance from the last one's end, and its length less one. */
void klawi_out_ranges(klawi_out *o, const klawi_ranges *r) {
    uint64_t last = 0;
    klawi_out_var(o, r->n);
    for (size_t i = 0; i < r->n; i++) {
        klawi_out_var(o, r->at[i].from - last);
        klawi_out_var(o, r->at[i].to - r->at[i].from);
        last = r->at[i].to;
    }
}

/* --- reading --- */

bool klawi_in_open(klawi_in *in, const void *data, size_t size) {
    const unsigned char *p = data;
    *in = (klawi_in){p, p, true};
    if (size < KLAWI_WIRE_SUM)
        return false;
    size -= KLAWI_WIRE_SUM;
    if (klawi_get_u64(p + size) != sum_of(p, size))
        return false;
    *in = (klawi_in){p, p + size, false};
    return true;
}

uint64_t klawi_in_var_long(klawi_in *in) {
    uint64_t x = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint64_t b = klawi_in_u8(in);
        x |= (b & 127) << shift;
        if (b < 128) {
            if (shift == 63 && b > 1)
                in->bad = true;
            return in->bad ? 0 : x;
        }
    }
    in->bad = true;
    return 0;
}

klaw_err klawi_in_ranges(klawi_in *in, klawi_ranges *r) {
    uint64_t n = klawi_in_count(in, 2), last = 0;
    if (n && !klawi_ranges_reserve(r, (size_t)n))
        return KLAW_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t gap = klawi_in_var(in), more = klawi_in_var(in);
        if (gap < (i ? 2 : 0) || last + gap < last || last + gap + more < more || in->bad) {
            in->bad = true;
            return KLAW_INVALID;
        }
        r->at[r->n++] = (klawi_range){last + gap, last + gap + more};
        last += gap + more;
    }
    return in->bad ? KLAW_INVALID : KLAW_OK;
}

/* --- headers --- */

void klawi_out_call(klawi_out *o, const klawi_wire_call *c) {
    klawi_out_u8(o, KLAW_REMOTE_VERSION);
    klawi_out_u8(o, c->kind);
    klawi_out_raw(o, c->channel, KLAW_REMOTE_ID);
    klawi_out_u64(o, c->boot);
    klawi_out_raw(o, c->client, KLAW_REMOTE_ID);
    klawi_out_var(o, c->number);
}

bool klawi_in_call(klawi_in *in, klawi_wire_call *c, bool *version) {
    *version = klawi_in_u8(in) == KLAW_REMOTE_VERSION;
    if (in->bad)
        return false;
    if (!*version)
        return true;
    uint32_t kind = klawi_in_u8(in);
    c->kind = (enum klawi_wire_kind)kind;
    c->channel = klawi_in_raw(in, KLAW_REMOTE_ID);
    c->boot = klawi_in_u64(in);
    c->client = klawi_in_raw(in, KLAW_REMOTE_ID);
    c->number = klawi_in_var(in);
    return !in->bad && kind < KLAWI_WIRE_KINDS && !klawi_id_zero(c->client) &&
           (c->boot || kind == KLAWI_WIRE_ATTACH);
}

/* --- items --- */

void klawi_out_item(klawi_out *o, const klawi_wire_item *i) {
    if (!klawi_out_room(o, klawi_wire_item_size(i->size, i->context_size)))
        return;
    unsigned char *p = o->data + o->size;
    *p++ = (unsigned char)i->flags;
    *p++ = (unsigned char)i->codec;
    p = klawi_put_u64(p, (uint64_t)i->sent_at);
    if (i->flags & KLAWI_WIRE_DEADLINE)
        p = klawi_put_u64(p, (uint64_t)i->deadline);
    p = klawi_put_var(p, i->context_size);
    p = klawi_put_var(p, i->size);
    if (i->context_size)
        memcpy(p, i->context, i->context_size);
    p += i->context_size;
    if (i->size)
        memcpy(p, i->data, i->size);
    o->size = (size_t)(p + i->size - o->data);
}

bool klawi_in_item(klawi_in *in, klawi_wire_item *i) {
    i->body = in->p;
    i->flags = klawi_in_u8(in);
    i->codec = klawi_in_u8(in);
    i->sent_at = (int64_t)klawi_in_u64(in);
    i->deadline = i->flags & KLAWI_WIRE_DEADLINE ? (int64_t)klawi_in_u64(in) : 0;
    uint64_t context = klawi_in_var(in), size = klawi_in_var(in);
    if (in->bad || context > UINT16_MAX || size > KLAWI_WIRE_PAYLOAD ||
        i->codec > KLAW_REMOTE_PICKLE)
        return false;
    i->context_size = (size_t)context;
    i->size = (size_t)size;
    i->context = klawi_in_raw(in, i->context_size);
    i->data = klawi_in_raw(in, i->size);
    i->body_size = (size_t)(in->p - i->body);
    return !in->bad;
}

klaw_err klawi_wire_copy(const unsigned char *body, size_t body_size, klaw_remote_item *out) {
    klawi_in in = {body, body + body_size, false};
    klawi_wire_item w;
    bool ok = klawi_in_item(&in, &w);
    KLAWI_ASSERT(ok);
    (void)ok;
    unsigned char *data = klawi_alloc(w.size + w.context_size);
    if (!data)
        return KLAW_NOMEM;
    memcpy(data, w.data, w.size);
    if (w.context_size)
        memcpy(data + w.size, w.context, w.context_size);
    *out = (klaw_remote_item){
        .data = data,
        .size = w.size,
        .context = data + w.size,
        .context_size = w.context_size,
        .sent_at = w.sent_at,
        .deadline = w.deadline,
        .flags = w.flags,
        .codec = (klaw_remote_codec)w.codec,
    };
    return KLAW_OK;
}

/* --- identities --- */

static klawi_id_node **id_slot(const klawi_id_map *m, const unsigned char *id) {
    return &m->slot[klawi_get_u64(id) & (m->slots - 1)];
}

klawi_id_node *klawi_id_find(const klawi_id_map *m, const unsigned char *id) {
    klawi_id_node *n = *id_slot(m, id);
    while (n && !klawi_id_same(n->id, id))
        n = n->next;
    return n;
}

bool klawi_id_init(klawi_id_map *m) {
    m->slots = 16;
    m->slot = klawi_calloc(m->slots, sizeof(klawi_id_node *));
    return m->slot != NULL;
}

/* Without memory it stays as small as it is. */
static void id_grow(klawi_id_map *m) {
    size_t slots = m->slots * 4;
    klawi_id_node **slot = klawi_calloc(slots, sizeof(klawi_id_node *));
    if (!slot)
        return;
    klawi_id_map grown = {slot, slots, m->n};
    for (size_t i = 0; i < m->slots; i++)
        for (klawi_id_node *n = m->slot[i], *next; n; n = next) {
            next = n->next;
            klawi_id_node **at = id_slot(&grown, n->id);
            n->next = *at;
            *at = n;
        }
    klawi_free(m->slot);
    *m = grown;
}

void klawi_id_add(klawi_id_map *m, klawi_id_node *n) {
    if (m->n >= m->slots * 2)
        id_grow(m);
    klawi_id_node **at = id_slot(m, n->id);
    n->next = *at;
    *at = n;
    m->n++;
}

void klawi_id_remove(klawi_id_map *m, klawi_id_node *n) {
    klawi_id_node **at = id_slot(m, n->id);
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    m->n--;
}

/* --- frames --- */

klawi_frame *klawi_frame_new(size_t size) {
    klawi_frame *f = klawi_alloc(sizeof *f + size);
    if (f) {
        f->refs = 1;
        f->size = size;
    }
    return f;
}

void klawi_frame_free(klawi_frame *f) {
    klawi_free(f);
}

void klaw_remote_free(void *data) {
    klawi_free(data);
}
