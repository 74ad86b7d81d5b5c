/* SPDX-License-Identifier: Apache-2.0 */
/* text_check.h - strict little readers of JSON and logfmt, for tests of what klaw writes. */
#ifndef KLAW_TEST_TEXT_CHECK_H
#define KLAW_TEST_TEXT_CHECK_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the n bytes are exactly one JSON value (RFC 8259, UTF-8). */
bool json_valid(const char *s, size_t n);

/* The value at a path such as "fibers.0.name" of a valid JSON text: strings are decoded, everything
 * else is copied as it is written. NUL-terminated; false when there is none or it does not fit. The
 * first of two equal keys counts. */
bool json_get(const char *s, size_t n, const char *path, char *out, size_t cap);

/* How many elements the array (or members the object) at a path has; -1 when there is none. */
int json_count(const char *s, size_t n, const char *path);

/* Whether the n bytes are key=value pairs with one space between them, quoted where needed, valid
 * UTF-8; and the value of a key, decoded. */
bool logfmt_valid(const char *s, size_t n);
bool logfmt_get(const char *s, size_t n, const char *key, char *out, size_t cap);

#endif
