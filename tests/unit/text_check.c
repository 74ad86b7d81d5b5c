/* SPDX-License-Identifier: Apache-2.0 */
/* text_check.c - strict little readers of JSON and logfmt.
 *
 * Written apart from src/base/text.c on purpose: the two share no code, not even the UTF-8 rules. */
#include "unit/text_check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct in {
    const char *p, *end;
};

/* ---- characters ---- */

/* Decodes one UTF-8 character; false when it is not well formed. */
static bool utf8(struct in *in, uint32_t *out) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = (unsigned char)*in->p;
    int n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    if (n == 0 || in->end - in->p < n)
        return false;
    uint32_t v = n == 1 ? c : c & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        unsigned char d = (unsigned char)in->p[i];
        if (d >> 6 != 2)
            return false;
        v = v << 6 | (d & 0x3f);
    }
    if ((n > 1 && v < least[n]) || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return false;
    in->p += n;
    *out = v;
    return true;
}

static bool hex4(struct in *in, uint32_t *out) {
    char digits[5] = {0};
    if (in->end - in->p < 4)
        return false;
    memcpy(digits, in->p, 4);
    if (strspn(digits, "0123456789abcdefABCDEF") != 4)
        return false;
    *out = (uint32_t)strtoul(digits, NULL, 16);
    in->p += 4;
    return true;
}

static bool escape(struct in *in, uint32_t *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (in->p == in->end)
        return false;
    char c = *in->p++;
    if (c == 'u')
        return hex4(in, out);
    const char *at = strchr(from, c);
    if (!c || !at)
        return false;
    *out = (uint32_t)to[at - from];
    return true;
}

static bool put(char **out, char *end, uint32_t v) {
    char bytes[4];
    int n = 0;
    if (!*out)
        return true;
    if (v < 0x80) {
        bytes[n++] = (char)v;
    } else if (v < 0x800) {
        bytes[n++] = (char)(0xc0 | v >> 6);
        bytes[n++] = (char)(0x80 | (v & 63));
    } else if (v < 0x10000) {
        bytes[n++] = (char)(0xe0 | v >> 12);
        bytes[n++] = (char)(0x80 | (v >> 6 & 63));
        bytes[n++] = (char)(0x80 | (v & 63));
    } else {
        bytes[n++] = (char)(0xf0 | v >> 18);
        bytes[n++] = (char)(0x80 | (v >> 12 & 63));
        bytes[n++] = (char)(0x80 | (v >> 6 & 63));
        bytes[n++] = (char)(0x80 | (v & 63));
    }
    if (end - *out <= n)
        return false;
    memcpy(*out, bytes, (size_t)n);
    *out += n;
    return true;
}

/* A quoted string; decoded into out when that is not NULL. */
static bool string(struct in *in, char *out, size_t cap) {
    char *end = out ? out + cap : NULL;
    if (in->p == in->end || *in->p != '"')
        return false;
    in->p++;
    while (in->p < in->end && *in->p != '"') {
        uint32_t v;
        if ((unsigned char)*in->p < 0x20)
            return false;
        if (*in->p == '\\') {
            in->p++;
            if (!escape(in, &v))
                return false;
        } else if (!utf8(in, &v)) {
            return false;
        }
        if (!put(&out, end, v))
            return false;
    }
    if (in->p == in->end)
        return false;
    in->p++;
    if (out)
        *out = 0;
    return true;
}

/* ---- JSON ---- */

static void space(struct in *in) {
    while (in->p < in->end && *in->p && strchr(" \t\r\n", *in->p))
        in->p++;
}

static bool eat(struct in *in, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(in->end - in->p) < n || memcmp(in->p, word, n) != 0)
        return false;
    in->p += n;
    return true;
}

static bool digits(struct in *in) {
    const char *from = in->p;
    while (in->p < in->end && *in->p >= '0' && *in->p <= '9')
        in->p++;
    return in->p > from;
}

static bool number(struct in *in) {
    (void)eat(in, "-");
    if (!eat(in, "0") && !digits(in))
        return false;
    if (eat(in, ".") && !digits(in))
        return false;
    if (eat(in, "e") || eat(in, "E")) {
        if (!eat(in, "+"))
            (void)eat(in, "-");
        if (!digits(in))
            return false;
    }
    return true;
}

static bool value(struct in *in);

/* What a search wants of an array or object. */
struct want {
    const char *key; /* NULL: nothing */
    size_t key_size;
    bool found;
    struct in value;
    int count;
};

static bool members(struct in *in, char close, struct want *want) {
    char key[256];
    space(in);
    for (want->count = 0; in->p < in->end && *in->p != close; want->count++) {
        if (want->count > 0 && !eat(in, ","))
            return false;
        space(in);
        if (close == '}') {
            if (!string(in, key, sizeof key))
                return false;
            space(in);
            if (!eat(in, ":"))
                return false;
            space(in);
        } else {
            size_t at = sizeof key - 1;
            int n = want->count;
            key[at] = 0;
            do {
                key[--at] = (char)('0' + n % 10);
            } while (n /= 10);
            memmove(key, key + at, sizeof key - at);
        }
        const char *from = in->p;
        if (!value(in))
            return false;
        if (want->key && !want->found && strlen(key) == want->key_size &&
            memcmp(key, want->key, want->key_size) == 0) {
            want->found = true;
            want->value = (struct in){from, in->p};
        }
        space(in);
    }
    return in->p < in->end && *in->p++ == close;
}

static bool value(struct in *in) {
    struct want nothing = {0};
    if (in->p == in->end)
        return false;
    switch (*in->p) {
    case '{': in->p++; return members(in, '}', &nothing);
    case '[': in->p++; return members(in, ']', &nothing);
    case '"': return string(in, NULL, 0);
    case 't': return eat(in, "true");
    case 'f': return eat(in, "false");
    case 'n': return eat(in, "null");
    default: return number(in);
    }
}

bool json_valid(const char *s, size_t n) {
    struct in in = {s, s + n};
    space(&in);
    if (!value(&in))
        return false;
    space(&in);
    return in.p == in.end;
}

static bool find(const char *s, size_t n, const char *path, struct in *out, int *count) {
    struct in in = {s, s + n};
    for (;;) {
        space(&in);
        struct want want = {0};
        struct in copy = in;
        bool inner = in.p < in.end && (*in.p == '{' || *in.p == '[');
        want.key = *path ? path : NULL;
        want.key_size = strcspn(path, ".");
        copy.p++;
        if (inner && !members(&copy, *in.p == '{' ? '}' : ']', &want))
            return false;
        *out = in;
        *count = inner ? want.count : -1;
        if (!*path)
            return true;
        if (!want.found)
            return false;
        in = want.value;
        path += want.key_size;
        path += *path == '.';
    }
}

bool json_get(const char *s, size_t n, const char *path, char *out, size_t cap) {
    struct in at;
    int count;
    if (!json_valid(s, n) || !find(s, n, path, &at, &count))
        return false;
    if (*at.p == '"')
        return string(&at, out, cap);
    size_t size = (size_t)(at.end - at.p);
    if (size >= cap)
        return false;
    memcpy(out, at.p, size);
    out[size] = 0;
    return true;
}

int json_count(const char *s, size_t n, const char *path) {
    struct in at;
    int count;
    return json_valid(s, n) && find(s, n, path, &at, &count) ? count : -1;
}

/* ---- logfmt ---- */

static bool pair(struct in *in, struct in *key, char *out, size_t cap) {
    uint32_t v;
    key->p = in->p;
    while (in->p < in->end && *in->p != '=')
        if (!utf8(in, &v) || v <= ' ' || v == '"' || v == 0x7f)
            return false;
    key->end = in->p;
    if (key->p == key->end || !eat(in, "="))
        return false;
    if (in->p < in->end && *in->p == '"')
        return string(in, out, cap);
    const char *from = in->p;
    char *end = out ? out + cap : NULL;
    while (in->p < in->end && *in->p != ' ') {
        if (!utf8(in, &v) || v <= ' ' || v == '"' || v == '=' || v == 0x7f)
            return false;
        if (!put(&out, end, v))
            return false;
    }
    if (out)
        *out = 0;
    return in->p > from;
}

static bool pairs(const char *s, size_t n, const char *want, char *out, size_t cap, bool *found) {
    struct in in = {s, s + n}, key;
    *found = false;
    while (in.p < in.end) {
        struct in again = in;
        if (!pair(&in, &key, NULL, 0))
            return false;
        size_t size = (size_t)(key.end - key.p);
        if (want && !*found && size == strlen(want) && memcmp(key.p, want, size) == 0)
            *found = pair(&again, &key, out, cap);
        if (in.p == in.end)
            return true;
        if (!eat(&in, " ") || in.p == in.end)
            return false;
    }
    return false;
}

bool logfmt_valid(const char *s, size_t n) {
    bool found;
    return pairs(s, n, NULL, NULL, 0, &found);
}

bool logfmt_get(const char *s, size_t n, const char *key, char *out, size_t cap) {
    bool found;
    return pairs(s, n, key, out, cap, &found) && found;
}
