/* SPDX-License-Identifier: Apache-2.0 */
/* remote_codec.c - one element as one MessagePack object.
 *
 * What Python sees: klaw_u64 and klaw_i64 are int, klaw_f64 is float, klaw_text is str, klaw_bytes and
 * the bytes of other types are bytes. Only these scalars are read here; a type that wants lists and maps
 * says `packed` and speaks MessagePack itself.
 *
 * Bytes come from outside: every length is checked against what is there, nothing nests, and what
 * follows the object is an error. */
#include "sync/remote_codec.h"

#include <string.h>

typedef enum shape { U64, I64, F64, BIN, STR } shape;

static bool is(const klaw_type *type, const klaw_type *ready_made) {
    return type == ready_made ||
           (type->encode == ready_made->encode && strcmp(type->name, ready_made->name) == 0);
}

static shape shape_of(const klaw_type *type) {
    return is(type, &klaw_u64)    ? U64
           : is(type, &klaw_i64)  ? I64
           : is(type, &klaw_f64)  ? F64
           : is(type, &klaw_text) ? STR
                                  : BIN;
}

klaw_err klawi_remote_codec_check(const klaw_type *type) {
    return type->encode && type->decode ? KLAW_OK : KLAW_TYPE;
}

/* --- writing --- */

/* tag, then the low `bytes` bytes of v, the most significant first. */
static size_t put(unsigned char *at, unsigned tag, uint64_t v, int bytes) {
    at[0] = (unsigned char)tag;
    for (int i = 0; i < bytes; i++)
        at[1 + i] = (unsigned char)(v >> (8 * (bytes - 1 - i)));
    return (size_t)bytes + 1;
}

static size_t put_u64(unsigned char *at, uint64_t v) {
    if (v < 0x80)
        return put(at, (unsigned)v, 0, 0);
    if (v <= UINT8_MAX)
        return put(at, 0xcc, v, 1);
    if (v <= UINT16_MAX)
        return put(at, 0xcd, v, 2);
    return v <= UINT32_MAX ? put(at, 0xce, v, 4) : put(at, 0xcf, v, 8);
}

static size_t put_i64(unsigned char *at, int64_t v) {
    if (v >= 0)
        return put_u64(at, (uint64_t)v);
    if (v >= -32)
        return put(at, (unsigned)(v & 0xff), 0, 0);
    if (v >= INT8_MIN)
        return put(at, 0xd0, (uint64_t)v, 1);
    if (v >= INT16_MIN)
        return put(at, 0xd1, (uint64_t)v, 2);
    return v >= INT32_MIN ? put(at, 0xd2, (uint64_t)v, 4) : put(at, 0xd3, (uint64_t)v, 8);
}

static size_t put_head(unsigned char *at, shape s, uint64_t size) {
    if (s == STR && size < 32)
        return put(at, 0xa0 | (unsigned)size, 0, 0);
    unsigned tag = s == STR ? 0xd9 : 0xc4;
    return size <= UINT8_MAX    ? put(at, tag, size, 1)
           : size <= UINT16_MAX ? put(at, tag + 1, size, 2)
                                : put(at, tag + 2, size, 4);
}

static klaw_err wrap(shape s, klaw_blob *inner, klaw_blob **out) {
    unsigned char head[5];
    size_t size = klaw_blob_size(inner);
    if (size > UINT32_MAX)
        return KLAW_LIMIT;
    size_t n = put_head(head, s, size);
    klaw_err e = klaw_blob_new(NULL, n + size, out);
    if (e)
        return e;
    memcpy(klaw_blob_data(*out), head, n);
    memcpy((unsigned char *)klaw_blob_data(*out) + n, klaw_blob_data(inner), size);
    return KLAW_OK;
}

klaw_err klawi_remote_encode(const klaw_type *type, bool packed, const void *elem,
                             klaw_blob **out) {
    unsigned char small[9];
    shape s = shape_of(type);
    uint64_t u = 0;
    int64_t i;
    if (s == U64 || s == I64 || s == F64) {
        memcpy(&u, elem, sizeof u);
        memcpy(&i, &u, sizeof i);
        size_t n = s == U64   ? put_u64(small, u)
                   : s == I64 ? put_i64(small, i)
                              : put(small, 0xcb, u, 8);
        return klaw_blob_new(small, n, out);
    }
    klaw_blob *inner = NULL;
    klaw_err e = type->encode(elem, &inner);
    if (e)
        return e;
    if (packed && s == BIN && !is(type, &klaw_bytes)) {
        *out = inner;
        return KLAW_OK;
    }
    e = wrap(s, inner, out);
    klaw_blob_unref(inner);
    return e;
}

/* --- reading --- */

/* One scalar as it lies in the bytes. */
typedef struct scalar {
    enum { UNSIGNED, SIGNED, FLOAT32, FLOAT64, BYTES, TEXT, OTHER } is;
    uint64_t bits;             /* a number's, sign-extended; of bytes and text the length */
    const unsigned char *data; /* bytes and text */
} scalar;

static uint64_t get(const unsigned char *at, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

/* Which kind a tag is, and how many bytes of number or length follow. */
static int read_tag(unsigned tag, scalar *out) {
    static const uint8_t widths[] = {1, 2, 4, 8};
    out->is = OTHER;
    if (tag >= 0xc4 && tag <= 0xc6) {
        out->is = BYTES;
        return widths[tag - 0xc4];
    }
    if (tag == 0xca || tag == 0xcb) {
        out->is = tag == 0xca ? FLOAT32 : FLOAT64;
        return tag == 0xca ? 4 : 8;
    }
    if (tag >= 0xcc && tag <= 0xd3) {
        out->is = tag < 0xd0 ? UNSIGNED : SIGNED;
        return widths[(tag - 0xcc) & 3];
    }
    if (tag >= 0xd9 && tag <= 0xdb) {
        out->is = TEXT;
        return widths[tag - 0xd9];
    }
    return 0;
}

static klaw_err read_scalar(const unsigned char *data, size_t size, scalar *out) {
    if (size == 0)
        return KLAW_CORRUPT;
    unsigned tag = data[0];
    size_t at = 1;
    int width = 0;
    if (tag < 0x80 || tag >= 0xe0) {
        out->is = tag < 0x80 ? UNSIGNED : SIGNED;
        out->bits = tag < 0x80 ? tag : (uint64_t)(int64_t)(int8_t)tag;
    } else if (tag >= 0xa0 && tag < 0xc0) {
        out->is = TEXT;
        out->bits = tag & 31;
    } else {
        width = read_tag(tag, out);
        if (out->is == OTHER)
            return KLAW_TYPE;
        if (size - at < (size_t)width)
            return KLAW_CORRUPT;
        out->bits = get(data + at, width);
        at += (size_t)width;
        if (out->is == SIGNED && width < 8) { /* the sign goes on to the left */
            uint64_t sign = (uint64_t)1 << (8 * width - 1);
            out->bits = (out->bits ^ sign) - sign;
        }
    }
    out->data = data + at;
    if (out->is == BYTES || out->is == TEXT)
        return size - at == out->bits ? KLAW_OK : KLAW_CORRUPT;
    return at == size ? KLAW_OK : KLAW_CORRUPT;
}

static klaw_err to_double(const scalar *v, void *elem) {
    double d;
    if (v->is == FLOAT64) {
        memcpy(&d, &v->bits, sizeof d);
    } else if (v->is == FLOAT32) {
        float f;
        uint32_t bits = (uint32_t)v->bits;
        memcpy(&f, &bits, sizeof f);
        d = f;
    } else if (v->is == UNSIGNED) {
        d = (double)v->bits;
    } else if (v->is == SIGNED) {
        d = (double)(int64_t)v->bits;
    } else {
        return KLAW_TYPE;
    }
    memcpy(elem, &d, sizeof d);
    return KLAW_OK;
}

static klaw_err to_integer(const scalar *v, shape s, void *elem) {
    bool negative = v->is == SIGNED && (int64_t)v->bits < 0;
    if (v->is != SIGNED && v->is != UNSIGNED)
        return KLAW_TYPE;
    if (s == U64 ? negative : !negative && v->bits > INT64_MAX)
        return KLAW_TYPE;
    memcpy(elem, &v->bits, sizeof v->bits);
    return KLAW_OK;
}

klaw_err klawi_remote_decode(const klaw_type *type, bool packed, klaw_remote_codec codec,
                             const void *data, size_t size, void *elem) {
    shape s = shape_of(type);
    scalar v;
    if (codec == KLAW_REMOTE_BYTES && s == BIN && (!packed || is(type, &klaw_bytes)))
        return type->decode(data, size, elem);
    if (codec != KLAW_REMOTE_MSGPACK)
        return KLAW_TYPE;
    if (packed && s == BIN && !is(type, &klaw_bytes))
        return type->decode(data, size, elem);
    klaw_err e = read_scalar(data, size, &v);
    if (e)
        return e;
    if (s == F64)
        return to_double(&v, elem);
    if (s == U64 || s == I64)
        return to_integer(&v, s, elem);
    return v.is == (s == STR ? TEXT : BYTES) ? type->decode(v.data, (size_t)v.bits, elem)
                                             : KLAW_TYPE;
}
