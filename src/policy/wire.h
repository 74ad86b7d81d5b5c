/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h - the blobs that hubs and brokers exchange (docs/ray-protocol.md, W1 to W3): writers and
 * readers of numbers, headers, items and ranges.
 *
 * A blob: version, kind or status, the header's fields, the body, 8 bytes of check sum over all that
 * stands before. Numbers are LEB128 varints unless fixed; fixed ones are little-endian.
 *
 * Invariants:
 *   B1  A reader never reads past its end: after a bad read every later one gives zeros and `bad`
 *       stays set. Whoever reads a count checks it against the bytes that are left.
 *   B2  A blob whose sum does not agree is refused before a byte of it is believed.
 *   B3  A writer that ran out of memory says so once, at its end (`failed`). */
#ifndef KLAWI_POLICY_WIRE_H
#define KLAWI_POLICY_WIRE_H

#include <string.h>

#include "klaw/broker.h"
#include "plat/plat.h"

/* Bytes of the sum at the end. */
#define KLAWI_WIRE_SUM 8
/* An item's payload at most. */
#define KLAWI_WIRE_PAYLOAD ((size_t)1 << 30)

/* Calls; those of klaw_hub_call_kind. */
enum klawi_wire_kind {
    KLAWI_WIRE_ATTACH,
    KLAWI_WIRE_PUSH,
    KLAWI_WIRE_POLL,
    KLAWI_WIRE_RENEW,
    KLAWI_WIRE_DETACH,
    KLAWI_WIRE_KINDS
};

/* The first thing an answer says. */
enum klawi_wire_status {
    KLAWI_WIRE_OK,
    KLAWI_WIRE_OLD,      /* an earlier call, come late: no effect */
    KLAWI_WIRE_GONE,     /* another channel lives here (W2) */
    KLAWI_WIRE_STALE,    /* another boot (W2, W26) */
    KLAWI_WIRE_EXPIRED,  /* the client is held for dead (W24) */
    KLAWI_WIRE_MISMATCH, /* another kind or type (W5) */
    KLAWI_WIRE_DELETED,  /* W29 */
    KLAWI_WIRE_VERSION,  /* the call's format is not known here */
    KLAWI_WIRE_BROKEN,   /* its journal can't be written; why, as a text (W28) */
    KLAWI_WIRE_STATUSES
};

/* Flags of an answer's common part. */
enum {
    KLAWI_WIRE_NO_SENDERS = 1,   /* no more will be sent */
    KLAWI_WIRE_NO_RECEIVERS = 2, /* nobody will receive */
    KLAWI_WIRE_FULL = 4,         /* the client has to wait for room (W12) */
    KLAWI_WIRE_HAD_SENDERS = 8,  /* the side was open once (W8) */
    KLAWI_WIRE_HAD_RECEIVERS = 16,
    KLAWI_WIRE_SEALED = 64, /* NO_SENDERS, but what an earlier boot had is taken again */
    KLAWI_WIRE_EMPTY = 32   /* no senders, and nothing is queued or leased to anybody */
};

/* A durable broker's log: bytes that are worth a transaction of their own, and what one may hold. Small in
 * the model test, so that it meets them. */
#if defined(KLAWI_POLICY_MUTANTS)
#define KLAWI_JOURNAL_PART ((size_t)400)
#define KLAWI_DURABLE_MAX ((size_t)2000)
#else
#define KLAWI_JOURNAL_PART ((size_t)64 << 20)
#define KLAWI_DURABLE_MAX KLAW_REMOTE_DURABLE_MAX
#endif

/* An item's flags on the wire beyond the public ones. */
enum { KLAWI_WIRE_DEADLINE = 64, KLAWI_WIRE_ATTACHED = 128 };
#define KLAWI_WIRE_PUBLIC_FLAGS 63u

/* Numbers from `from` up to `to`, both included. */
typedef struct klawi_range {
    uint64_t from, to;
} klawi_range;

/* A sorted list of ranges that don't touch each other. */
typedef struct klawi_ranges {
    klawi_range *at;
    size_t n, room;
} klawi_ranges;

/* Room for n more ranges; false: no memory. */
bool klawi_ranges_reserve(klawi_ranges *r, size_t n);
/* Adds one number, for which room was reserved. false: it was there. O(1) at the end, else O(n). */
bool klawi_ranges_add(klawi_ranges *r, uint64_t x);
/* Adds a span; room for one was reserved. */
void klawi_ranges_add_span(klawi_ranges *r, uint64_t from, uint64_t to);
bool klawi_ranges_has(const klawi_ranges *r, uint64_t x);
/* Takes x out; room for one more was reserved. */
void klawi_ranges_remove(klawi_ranges *r, uint64_t x);
/* Forgets what is below x. */
void klawi_ranges_below(klawi_ranges *r, uint64_t x);
void klawi_ranges_free(klawi_ranges *r);

/* --- writing --- */

typedef struct klawi_out {
    unsigned char *data;
    size_t size, room;
    bool failed;
} klawi_out;

/* Room for n bytes more; false (and failed): no memory. */
bool klawi_out_grow(klawi_out *o, size_t n);
static inline bool klawi_out_room(klawi_out *o, size_t n) {
    return KLAWI_LIKELY(o->room - o->size >= n) || klawi_out_grow(o, n);
}
static inline void klawi_out_raw(klawi_out *o, const void *p, size_t n) {
    if (n == 0 || !klawi_out_room(o, n))
        return;
    memcpy(o->data + o->size, p, n);
    o->size += n;
}
static inline void klawi_out_u8(klawi_out *o, uint32_t x) {
    if (klawi_out_room(o, 1))
        o->data[o->size++] = (unsigned char)x;
}
static inline unsigned char *klawi_put_var(unsigned char *p, uint64_t x) {
    while (x >= 128) {
        *p++ = (unsigned char)(x | 128);
        x >>= 7;
    }
    *p++ = (unsigned char)x;
    return p;
}
static inline void klawi_out_var(klawi_out *o, uint64_t x) {
    if (klawi_out_room(o, 10))
        o->size = (size_t)(klawi_put_var(o->data + o->size, x) - o->data);
}
static inline unsigned char *klawi_put_u64(unsigned char *p, uint64_t x) {
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(x >> 8 * i);
    return p + 8;
}
static inline void klawi_out_u64(klawi_out *o, uint64_t x) {
    if (klawi_out_room(o, 8)) {
        klawi_put_u64(o->data + o->size, x);
        o->size += 8;
    }
}
/* A length and the bytes. */
static inline void klawi_out_bytes(klawi_out *o, const void *p, size_t n) {
    klawi_out_var(o, n);
    klawi_out_raw(o, p, n);
}
void klawi_out_ranges(klawi_out *o, const klawi_ranges *r);
/* Adds the sum; false: no memory at some point, and all is freed. */
bool klawi_out_seal(klawi_out *o);

/* --- reading --- */

typedef struct klawi_in {
    const unsigned char *p, *end;
    bool bad;
} klawi_in;

/* Checks the sum and leaves a reader over what stands before it (B2). */
bool klawi_in_open(klawi_in *in, const void *data, size_t size);
static inline size_t klawi_in_left(const klawi_in *in) {
    return (size_t)(in->end - in->p);
}
static inline const unsigned char *klawi_in_raw(klawi_in *in, size_t n) {
    const unsigned char *p = in->p;
    if (KLAWI_UNLIKELY(in->bad || klawi_in_left(in) < n)) {
        in->bad = true;
        return NULL;
    }
    in->p += n;
    return p;
}
static inline uint32_t klawi_in_u8(klawi_in *in) {
    const unsigned char *p = klawi_in_raw(in, 1);
    return p ? *p : 0;
}
static inline uint64_t klawi_get_u64(const unsigned char *p) {
    uint64_t x = 0;
    for (int i = 0; i < 8; i++)
        x |= (uint64_t)p[i] << 8 * i;
    return x;
}
static inline uint64_t klawi_in_u64(klawi_in *in) {
    const unsigned char *p = klawi_in_raw(in, 8);
    return p ? klawi_get_u64(p) : 0;
}
uint64_t klawi_in_var_long(klawi_in *in);
static inline uint64_t klawi_in_var(klawi_in *in) {
    if (KLAWI_LIKELY(in->p < in->end && *in->p < 128 && !in->bad))
        return *in->p++;
    return klawi_in_var_long(in);
}
/* A length and the bytes; *n of them. */
static inline const unsigned char *klawi_in_bytes(klawi_in *in, size_t *n) {
    uint64_t size = klawi_in_var(in);
    const unsigned char *p = size <= SIZE_MAX / 2 ? klawi_in_raw(in, (size_t)size) : NULL;
    *n = p ? (size_t)size : 0;
    in->bad |= p == NULL;
    return p;
}
/* A count of things that take at least `each` bytes. */
static inline uint64_t klawi_in_count(klawi_in *in, size_t each) {
    uint64_t n = klawi_in_var(in);
    if (n > klawi_in_left(in) / each) {
        in->bad = true;
        return 0;
    }
    return n;
}
/* Fills *r, which was empty; NOMEM, or INVALID: not sorted. */
klaw_err klawi_in_ranges(klawi_in *in, klawi_ranges *r);
/* The reader is at its end and never went wrong. */
static inline bool klawi_in_done(const klawi_in *in) {
    return !in->bad && in->p == in->end;
}

/* --- headers --- */

typedef struct klawi_wire_call {
    enum klawi_wire_kind kind;
    const unsigned char *channel, *client; /* KLAW_REMOTE_ID bytes, in the blob */
    uint64_t boot;                         /* 0: not known yet (attach alone) */
    uint64_t number;
} klawi_wire_call;

void klawi_out_call(klawi_out *o, const klawi_wire_call *c);
/* false: not a call. *version tells one of another version, of which nothing else is known. */
bool klawi_in_call(klawi_in *in, klawi_wire_call *c, bool *version);

/* --- items --- */

/* An item as it stands in a frame: the body can be copied as it is. */
typedef struct klawi_wire_item {
    const unsigned char *body; /* from its flags on */
    size_t body_size;
    const unsigned char *context, *data;
    size_t context_size, size;
    int64_t sent_at, deadline;
    uint32_t flags; /* the wire's too */
    uint32_t codec;
} klawi_wire_item;

/* Bytes it may take at most beside context and payload. */
#define KLAWI_WIRE_ITEM_HEAD 32
/* The size of it in a frame. */
static inline size_t klawi_wire_item_size(size_t size, size_t context_size) {
    return size + context_size + KLAWI_WIRE_ITEM_HEAD;
}
void klawi_out_item(klawi_out *o, const klawi_wire_item *i);
/* false: not one. */
bool klawi_in_item(klawi_in *in, klawi_wire_item *i);
/* Copies an item that was checked before, for klaw_remote_free: what of *out the wire says is set, the
 * flags as on the wire, everything else zero. NOMEM. */
klaw_err klawi_wire_copy(const unsigned char *body, size_t body_size, klaw_remote_item *out);

/* --- frames: blobs that items point into --- */

/* Counted: each item in use holds one reference. */
typedef struct klawi_frame {
    uint32_t refs;
    size_t size;
    unsigned char data[];
} klawi_frame;

/* One reference, `size` bytes; NULL: no memory. */
klawi_frame *klawi_frame_new(size_t size);
void klawi_frame_free(klawi_frame *f);
static inline void klawi_frame_unref(klawi_frame *f) {
    if (f && --f->refs == 0)
        klawi_frame_free(f);
}

static inline bool klawi_id_same(const unsigned char *a, const unsigned char *b) {
    return memcmp(a, b, KLAW_REMOTE_ID) == 0;
}
static inline bool klawi_id_zero(const unsigned char *a) {
    static const unsigned char zero[KLAW_REMOTE_ID];
    return memcmp(a, zero, KLAW_REMOTE_ID) == 0;
}

/* --- tables --- */

/* Things that are found by an identity. */
typedef struct klawi_id_node {
    struct klawi_id_node *next;
    unsigned char id[KLAW_REMOTE_ID];
} klawi_id_node;
typedef struct klawi_id_map {
    klawi_id_node **slot;
    size_t slots, n;
} klawi_id_map;

klawi_id_node *klawi_id_find(const klawi_id_map *m, const unsigned char *id);
bool klawi_id_init(klawi_id_map *m);
void klawi_id_add(klawi_id_map *m, klawi_id_node *n);
void klawi_id_remove(klawi_id_map *m, klawi_id_node *n);

#endif
