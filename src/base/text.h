/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - writing text into a buffer that is either fixed (log records) or grows (snapshots), and
 * the JSON pieces of both. */
#ifndef KLAWI_BASE_TEXT_H
#define KLAWI_BASE_TEXT_H

#include "klaw/def.h"

/* All fields belong to the one who writes. */
struct klawi_text {
    char *p;
    size_t len;
    size_t cap; /* bytes that may be used */
    bool grows; /* by klawi_realloc */
    bool full;  /* something did not fit (or no memory): everything after it is left out, too */
};

/* Bytes of a UTF-8 sequence that begins at s (n > 0 bytes are there): its length, *ok true; or
 * the length of the longest part of one that is wrong, at least 1, *ok false. Surrogates,
 * overlong forms and numbers over U+10FFFF are wrong. */
size_t klawi_utf8_step(const char *text, size_t n, bool *ok);
bool klawi_utf8_valid(const char *s, size_t n);

/* All or nothing; nothing once t->full. */
void klawi_text_put(struct klawi_text *t, const char *s, size_t n);
void klawi_text_str(struct klawi_text *t, const char *s);
void klawi_text_u64(struct klawi_text *t, uint64_t v);
void klawi_text_i64(struct klawi_text *t, int64_t v);
/* The shortest digits that read back as v, whatever the locale; NaN, Infinity and
 * -Infinity by these names. */
void klawi_text_f64(struct klawi_text *t, double v);
void klawi_text_bool(struct klawi_text *t, bool v);
/* Lower-case hexadecimal digits of n bytes. */
void klawi_text_hex(struct klawi_text *t, const unsigned char *bytes, size_t n);
/* RFC 3339 in UTC with nanoseconds: 1970-01-01T00:00:00.000000000Z. */
void klawi_text_time(struct klawi_text *t, int64_t wall_ns);

/* A quoted, escaped JSON string of n bytes. What is not UTF-8 becomes U+FFFD. When it does not
 * fit it is cut between characters, closed, and t->full is set. False when not even the quotes
 * fitted. */
bool klawi_text_json_string(struct klawi_text *t, const char *s, size_t n);

/* "name": with a comma before it unless *first, which becomes false. `name` needs no escapes. */
void klawi_text_member(struct klawi_text *t, bool *first, const char *name);

#endif
