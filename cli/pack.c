/* SPDX-License-Identifier: Apache-2.0 */
/* pack.c - JSON to MessagePack and back.
 *
 * What is read comes from anybody: every length is checked against what is left, and depth is bounded.
 * Keys that are no texts, and numbers over 63 bits, are refused (TYPE). */
#include "pack.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

/* ---- writing ---- */

typedef struct bytes {
    unsigned char *p;
    size_t n, room;
    bool failed;
} bytes;

static void put(bytes *b, const void *data, size_t size) {
    if (b->n + size > b->room && !b->failed) {
        size_t room = 2 * (b->n + size) + 64;
        unsigned char *more = realloc(b->p, room);
        b->failed = !more;
        b->p = more ? more : b->p;
        b->room = more ? room : b->room;
    }
    if (b->failed)
        return;
    memcpy(b->p + b->n, data, size);
    b->n += size;
}

/* A tag and a number of so many bytes, the highest first. */
static void put_number(bytes *b, unsigned char tag, uint64_t v, int size) {
    unsigned char out[9] = {tag};
    for (int i = 0; i < size; i++)
        out[1 + i] = (unsigned char)(v >> 8 * (size - 1 - i));
    put(b, out, (size_t)size + 1);
}

static void put_size(bytes *b, size_t n, unsigned char small, size_t small_max, unsigned char tag8,
                     unsigned char tag16, unsigned char tag32) {
    if (n <= small_max)
        put_number(b, (unsigned char)(small | n), 0, 0);
    else if (tag8 && n <= 0xff)
        put_number(b, tag8, n, 1);
    else if (n <= 0xffff)
        put_number(b, tag16, n, 2);
    else
        put_number(b, tag32, n, 4);
}

static void put_integer(bytes *b, int64_t v) {
    if (v >= 0 && v < 128)
        put_number(b, (unsigned char)v, 0, 0);
    else if (v < 0 && v >= -32)
        put_number(b, (unsigned char)v, 0, 0);
    else if (v >= 0)
        put_number(b, 0xcf, (uint64_t)v, 8);
    else
        put_number(b, 0xd3, (uint64_t)v, 8);
}

static void put_text(bytes *b, const char *s, size_t n) {
    put_size(b, n, 0xa0, 31, 0xd9, 0xda, 0xdb);
    put(b, s, n);
}

static void pack(bytes *b, json_t *v) {
    const char *key;
    json_t *item;
    size_t i;
    double real;
    uint64_t bits;
    switch (json_typeof(v)) {
    case JSON_NULL: put_number(b, 0xc0, 0, 0); break;
    case JSON_FALSE: put_number(b, 0xc2, 0, 0); break;
    case JSON_TRUE: put_number(b, 0xc3, 0, 0); break;
    case JSON_INTEGER: put_integer(b, json_integer_value(v)); break;
    case JSON_REAL:
        real = json_real_value(v);
        memcpy(&bits, &real, sizeof bits);
        put_number(b, 0xcb, bits, 8);
        break;
    case JSON_STRING: put_text(b, json_string_value(v), json_string_length(v)); break;
    case JSON_ARRAY:
        put_size(b, json_array_size(v), 0x90, 15, 0, 0xdc, 0xdd);
        json_array_foreach(v, i, item) pack(b, item);
        break;
    default:
        put_size(b, json_object_size(v), 0x80, 15, 0, 0xde, 0xdf);
        json_object_foreach(v, key, item) {
            put_text(b, key, strlen(key));
            pack(b, item);
        }
    }
}

static klaw_err encode(const void *elem, klaw_blob **out) {
    bytes b = {0};
    pack(&b, *(json_t *const *)elem); /* jansson's own parser bounds the depth */
    klaw_err e = b.failed ? KLAW_NOMEM : klaw_blob_new(b.p, b.n, out);
    free(b.p);
    return e;
}

/* ---- reading ---- */

typedef struct input {
    const unsigned char *p, *end;
    int depth;
} input;

static bool number(input *in, int size, uint64_t *out) {
    *out = 0;
    if (in->end - in->p < size)
        return false;
    for (int i = 0; i < size; i++)
        *out = *out << 8 | *in->p++;
    return true;
}

static json_t *unpack(input *in);

static json_t *text(input *in, uint64_t n) {
    if ((uint64_t)(in->end - in->p) < n)
        return NULL;
    json_t *s = json_stringn((const char *)in->p, (size_t)n);
    in->p += n;
    return s;
}

static json_t *binary(input *in, uint64_t n) {
    static const char digits[] = "0123456789abcdef";
    if ((uint64_t)(in->end - in->p) < n)
        return NULL;
    char *hex = malloc((size_t)n * 2 + 1);
    for (uint64_t i = 0; hex && i < n; i++, in->p++) {
        hex[2 * i] = digits[*in->p >> 4];
        hex[2 * i + 1] = digits[*in->p & 15];
    }
    json_t *o = hex ? json_pack("{s:s#}", "base16", hex, (int)(n * 2)) : NULL;
    free(hex);
    return o;
}

static json_t *array(input *in, uint64_t n) {
    json_t *a = n <= (uint64_t)(in->end - in->p) ? json_array() : NULL;
    for (; a && n > 0; n--) {
        json_t *item = unpack(in);
        if (!item || json_array_append_new(a, item) != 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static json_t *object(input *in, uint64_t n) {
    json_t *o = n <= (uint64_t)(in->end - in->p) ? json_object() : NULL;
    for (; o && n > 0; n--) {
        json_t *key = unpack(in), *item = key ? unpack(in) : NULL;
        bool ok = item && json_is_string(key) &&
                  strlen(json_string_value(key)) == json_string_length(key) &&
                  json_object_set(o, json_string_value(key), item) == 0;
        json_decref(key);
        json_decref(item);
        if (!ok) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *real(uint64_t bits, bool single) {
    float f;
    double d;
    uint32_t half = (uint32_t)bits;
    memcpy(&f, &half, sizeof f);
    memcpy(&d, &bits, sizeof d);
    json_t *r = json_real(single ? (double)f : d);
    return r ? r : json_null(); /* JSON has no infinity */
}

static json_t *sized(input *in, unsigned char tag) {
    uint64_t n;
    static const unsigned char sizes[] = {/* c4 */ 1, 2, 4, 0, 0, 0, 4, 8, 1, 2,
                                          4,          8, 1, 2, 4, 8, 0, 0, 0, 0,
                                          0,          1, 2, 4, 2, 4, 2, 4};
    int size = sizes[tag - 0xc4];
    if (size == 0 || !number(in, size, &n))
        return NULL;
    switch (tag) {
    case 0xc4:
    case 0xc5:
    case 0xc6: return binary(in, n);
    case 0xca: return real(n, true);
    case 0xcb: return real(n, false);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: return n > INT64_MAX ? NULL : json_integer((json_int_t)n);
    case 0xd0: return json_integer((int8_t)n);
    case 0xd1: return json_integer((int16_t)n);
    case 0xd2: return json_integer((int32_t)n);
    case 0xd3: return json_integer((int64_t)n);
    case 0xd9:
    case 0xda:
    case 0xdb: return text(in, n);
    case 0xdc:
    case 0xdd: return array(in, n);
    default: return object(in, n);
    }
}

static json_t *unpack(input *in) {
    json_t *v = NULL;
    if (in->p == in->end || ++in->depth > DEPTH_MAX)
        return NULL;
    unsigned char tag = *in->p++;
    if (tag < 0x80)
        v = json_integer(tag);
    else if (tag < 0x90)
        v = object(in, tag & 15);
    else if (tag < 0xa0)
        v = array(in, tag & 15);
    else if (tag < 0xc0)
        v = text(in, tag & 31);
    else if (tag >= 0xe0)
        v = json_integer((int8_t)tag);
    else if (tag >= 0xc4)
        v = sized(in, tag);
    else if (tag != 0xc1)
        v = tag == 0xc0 ? json_null() : json_boolean(tag == 0xc3);
    in->depth--;
    return v;
}

static klaw_err decode(const void *data, size_t size, void *elem) {
    input in = {data, (const unsigned char *)data + size, 0};
    json_t *v = unpack(&in);
    if (!v || in.p != in.end) {
        json_decref(v);
        return KLAW_TYPE;
    }
    *(json_t **)elem = v;
    return KLAW_OK;
}

static void drop(void *elem) {
    json_decref(*(json_t **)elem);
}

const klaw_type cli_json_type = {
    .name = "json", .size = sizeof(json_t *), .drop = drop, .encode = encode, .decode = decode};
