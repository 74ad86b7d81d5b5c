/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - a text buffer, and what log records and snapshots write into it.
 *
 * Invariants:
 *   X1  len <= cap; p[0..len) is valid UTF-8 whatever the callers' bytes were.
 *   X2  full is set by the first piece that does not fit, and from then on nothing is added: the
 *       text is a prefix of what it would have been, save that a cut string is closed.
 *
 * A buffer belongs to one writer; there are no locks. Numbers are written by hand: printf would
 * need a kilobyte of the fiber's stack and knows locales. Doubles do use it, and put its point
 * right.
 *
 * Rejected: a JSON library. Two writers and no reader do not pay for one. */
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "plat/plat.h"

/* ---- UTF-8 (the table of well-formed sequences of the Unicode standard) ---- */

size_t klawi_utf8_step(const char *text, size_t n, bool *ok) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned char low = 0x80, high = 0xbf;
    size_t want;
    *ok = true;
    if (s[0] < 0x80)
        return 1;
    *ok = false;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 1;
    want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] == 0xe0)
        low = 0xa0; /* overlong */
    if (s[0] == 0xed)
        high = 0x9f; /* surrogates */
    if (s[0] == 0xf0)
        low = 0x90; /* overlong */
    if (s[0] == 0xf4)
        high = 0x8f; /* over U+10FFFF */
    for (size_t i = 1; i < want; i++) {
        if (i == n || s[i] < low || s[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *ok = true;
    return want;
}

bool klawi_utf8_valid(const char *s, size_t n) {
    bool ok = true;
    for (size_t i = 0; ok && i < n;)
        i += klawi_utf8_step(s + i, n - i, &ok);
    return ok;
}

/* ---- plain pieces ---- */

static bool room(struct klawi_text *t, size_t n) {
    if (t->full)
        return false;
    if (n <= t->cap - t->len)
        return true;
    if (t->grows) {
        size_t cap = t->cap < 512 ? 512 : t->cap;
        while (cap - t->len < n && cap <= SIZE_MAX / 4)
            cap *= 2;
        char *p = cap - t->len < n ? NULL : klawi_realloc(t->p, cap);
        if (p) {
            t->p = p;
            t->cap = cap;
            return true;
        }
    }
    t->full = true; /* X2 */
    return false;
}

/* The caller has asked for room. */
static void add(struct klawi_text *t, const char *s, size_t n) {
    KLAWI_ASSERT(n <= t->cap - t->len); /* X1 */
    memcpy(t->p + t->len, s, n);
    t->len += n;
}

void klawi_text_put(struct klawi_text *t, const char *s, size_t n) {
    if (n > 0 && room(t, n))
        add(t, s, n);
}

void klawi_text_str(struct klawi_text *t, const char *s) {
    klawi_text_put(t, s, strlen(s));
}

void klawi_text_u64(struct klawi_text *t, uint64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    klawi_text_put(t, digits + at, sizeof digits - at);
}

void klawi_text_i64(struct klawi_text *t, int64_t v) {
    if (v >= 0) {
        klawi_text_u64(t, (uint64_t)v);
        return;
    }
    size_t mark = t->len;
    klawi_text_put(t, "-", 1);
    klawi_text_u64(t, 0 - (uint64_t)v);
    if (t->full)
        t->len = mark;
}

void klawi_text_f64(struct klawi_text *t, double v) {
    char digits[40];
    if (v != v) {
        klawi_text_str(t, "NaN");
        return;
    }
    if (v > 1.7976931348623157e308 || v < -1.7976931348623157e308) {
        klawi_text_str(t, v > 0 ? "Infinity" : "-Infinity");
        return;
    }
    for (int precision = 15; precision <= 17; precision++) {
        (void)snprintf(digits, sizeof digits, "%.*g", precision, v);
        if (strtod(digits, NULL) == v)
            break;
    }
    size_t to = 0;
    for (const char *d = digits; *d; d++) {
        if ((*d >= '0' && *d <= '9') || strchr("+-e", *d))
            digits[to++] = *d;
        else if (to > 0 && digits[to - 1] != '.') /* the locale's point, of any number of bytes */
            digits[to++] = '.';
    }
    klawi_text_put(t, digits, to);
}

void klawi_text_bool(struct klawi_text *t, bool v) {
    klawi_text_str(t, v ? "true" : "false");
}

static const char hex_digits[] = "0123456789abcdef";

void klawi_text_hex(struct klawi_text *t, const unsigned char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char two[2] = {hex_digits[bytes[i] >> 4], hex_digits[bytes[i] & 15]};
        klawi_text_put(t, two, 2);
    }
}

/* ---- time ---- */

static void digits_into(char *to, int n, uint64_t v) {
    while (n-- > 0) {
        to[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

void klawi_text_time(struct klawi_text *t, int64_t wall_ns) {
    int64_t second = wall_ns / 1000000000, ns = wall_ns % 1000000000;
    if (ns < 0) {
        second--;
        ns += 1000000000;
    }
    int64_t day = second / 86400, rest = second % 86400;
    if (rest < 0) {
        day--;
        rest += 86400;
    }
    /* Years that begin in March put the leap day last; 719468 days lie between 0000-03-01 and
     * 1970. An int64_t of nanoseconds stays within the years 1677 to 2262, so everything is
     * positive. */
    uint64_t z = (uint64_t)(day + 719468), era = z / 146097, of_era = z % 146097;
    uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153;
    uint64_t month = m < 10 ? m + 3 : m - 9;
    char text[] = "0000-00-00T00:00:00.000000000Z";
    digits_into(text, 4, year + era * 400 + (month <= 2));
    digits_into(text + 5, 2, month);
    digits_into(text + 8, 2, of_year - (153 * m + 2) / 5 + 1);
    digits_into(text + 11, 2, (uint64_t)rest / 3600);
    digits_into(text + 14, 2, (uint64_t)rest / 60 % 60);
    digits_into(text + 17, 2, (uint64_t)rest % 60);
    digits_into(text + 20, 9, (uint64_t)ns);
    klawi_text_put(t, text, sizeof text - 1);
}

/* ---- JSON ---- */

/* What stands for the character at s in a string: itself, an escape, or U+FFFD. *used: bytes of
 * s. */
static const char *escaped(const char *s, size_t n, char buffer[6], size_t *used, size_t *size) {
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    bool ok;
    *used = klawi_utf8_step(s, n, &ok);
    if (!ok) {
        *size = 3;
        return "\xef\xbf\xbd";
    }
    for (const char *c = shorts; *c; c += 2) {
        if (*s != *c)
            continue;
        buffer[0] = '\\';
        buffer[1] = c[1];
        *size = 2;
        return buffer;
    }
    if ((unsigned char)*s < 0x20) {
        memcpy(buffer, "\\u00", 4);
        buffer[4] = hex_digits[*s >> 4];
        buffer[5] = hex_digits[*s & 15];
        *size = 6;
        return buffer;
    }
    *size = *used;
    return s;
}

bool klawi_text_json_string(struct klawi_text *t, const char *s, size_t n) {
    char buffer[6];
    size_t used, size;
    if (!room(t, 2))
        return false;
    add(t, "\"", 1);
    for (size_t i = 0; i < n; i += used) {
        const char *unit = escaped(s + i, n - i, buffer, &used, &size);
        if (!room(t, size + 1))
            break; /* one place stays for the closing quote */
        add(t, unit, size);
    }
    add(t, "\"", 1);
    return true;
}

void klawi_text_member(struct klawi_text *t, bool *first, const char *name) {
    klawi_text_str(t, *first ? "\"" : ",\"");
    klawi_text_str(t, name);
    klawi_text_str(t, "\":");
    *first = false;
}
