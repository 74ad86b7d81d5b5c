/* SPDX-License-Identifier: Apache-2.0 */
/* type.c - the ready-made element types, and the reference-counted bytes that one of them
 * carries.
 *
 * Invariants of a blob:
 *   T1  refs >= 1 while anybody holds it; who takes it to 0 frees it, and nobody else touches
 *       it.
 *   T2  size never changes; the bytes change only while the one who made it holds the only
 *       reference (the user's promise, type.h).
 *
 * Header and bytes are one block: one allocation per message, and the bytes begin at an address
 * good for any type. A reference is added relaxed (who adds one holds one) and given back with
 * release; the last one pairs with the others by acquire.
 *
 * Rejected: small blobs inside the element. The element would depend on its size, and what a
 * channel moves for klaw_bytes is one pointer. */
#include "klaw/type.h"

#include <string.h>

#include "base/alloc.h"
#include "plat/plat.h"

#define BLOB_MAX ((uint64_t)1 << 40)

struct klaw_blob {
    _Atomic uint64_t refs; /* (a) */
    size_t size;           /* (c) */
    alignas(max_align_t) unsigned char data[];
};

klaw_err klaw_blob_new(const void *data, size_t size, klaw_blob **out) {
    if (!out)
        return KLAW_INVALID;
    if (size > BLOB_MAX)
        return KLAW_LIMIT;
    size_t all = sizeof(klaw_blob) + size;
    klaw_blob *b = data ? klawi_alloc(all) : klawi_calloc(1, all);
    if (!b)
        return KLAW_NOMEM;
    atomic_init(&b->refs, 1);
    b->size = size;
    if (data && size)
        memcpy(b->data, data, size);
    *out = b;
    return KLAW_OK;
}

void *klaw_blob_data(klaw_blob *b) {
    return b->data;
}

size_t klaw_blob_size(const klaw_blob *b) {
    return b->size;
}

klaw_blob *klaw_blob_ref(klaw_blob *b) {
    uint64_t before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    KLAWI_ASSERT(before > 0); /* T1 */
    (void)before;
    return b;
}

void klaw_blob_unref(klaw_blob *b) {
    if (!b)
        return;
    uint64_t before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    KLAWI_ASSERT(before > 0); /* T1 */
    if (before == 1)
        klawi_free(b);
}

/* ---- klaw_u64: eight bytes, little-endian on the way out ---- */

static klaw_err u64_encode(const void *elem, klaw_blob **out) {
    uint64_t v;
    unsigned char bytes[8];
    memcpy(&v, elem, sizeof v);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(v >> (8 * i));
    return klaw_blob_new(bytes, sizeof bytes, out);
}

static klaw_err u64_decode(const void *data, size_t size, void *elem) {
    if (size != 8)
        return KLAW_CORRUPT;
    const unsigned char *bytes = data;
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)bytes[i] << (8 * i);
    memcpy(elem, &v, sizeof v);
    return KLAW_OK;
}

/* ---- klaw_i64, klaw_f64: the same bytes of another type ---- */

_Static_assert(sizeof(double) == 8, "a double travels as eight bytes");

/* ---- klaw_bytes, klaw_text: the element is a klaw_blob * ---- */

static klaw_blob *blob_of(const void *elem) {
    klaw_blob *b;
    memcpy(&b, elem, sizeof b);
    return b;
}

static void bytes_drop(void *elem) {
    klaw_blob_unref(blob_of(elem));
}

static klaw_err bytes_share(const void *from, void *to) {
    klaw_blob *b = blob_of(from);
    if (b)
        klaw_blob_ref(b);
    memcpy(to, &b, sizeof b);
    return KLAW_OK;
}

static klaw_err bytes_encode(const void *elem, klaw_blob **out) {
    klaw_blob *b = blob_of(elem);
    if (!b)
        return KLAW_INVALID;
    *out = klaw_blob_ref(b);
    return KLAW_OK;
}

static klaw_err bytes_decode(const void *data, size_t size, void *elem) {
    klaw_blob *b = NULL;
    klaw_err e = klaw_blob_new(size ? data : NULL, size, &b);
    if (e)
        return e;
    memcpy(elem, &b, sizeof b);
    return KLAW_OK;
}

const klaw_type klaw_u64 = {
    .name = "u64",
    .size = sizeof(uint64_t),
    .encode = u64_encode,
    .decode = u64_decode,
};

const klaw_type klaw_i64 = {
    .name = "i64",
    .size = sizeof(int64_t),
    .encode = u64_encode,
    .decode = u64_decode,
};

const klaw_type klaw_f64 = {
    .name = "f64",
    .size = sizeof(double),
    .encode = u64_encode,
    .decode = u64_decode,
};

const klaw_type klaw_ptr = {.name = "ptr", .size = sizeof(void *)};

const klaw_type klaw_bytes = {
    .name = "bytes",
    .size = sizeof(klaw_blob *),
    .drop = bytes_drop,
    .share = bytes_share,
    .encode = bytes_encode,
    .decode = bytes_decode,
};

const klaw_type klaw_text = {
    .name = "text",
    .size = sizeof(klaw_blob *),
    .drop = bytes_drop,
    .share = bytes_share,
    .encode = bytes_encode,
    .decode = bytes_decode,
};
