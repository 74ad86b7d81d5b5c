/* SPDX-License-Identifier: Apache-2.0 */
/* context.h - what a piece of work carries along: a request id, a trace (W3C Trace Context) and
 * key/values.
 *
 * A context is immutable and reference counted: adding something makes another one. Each fiber and
 * thread has a current one (or none); a fiber starts with its spawner's, and the log writes it into
 * every record.
 *
 *     klaw_context *c;
 *     klaw_context_token token;
 *     e = klaw_context_with_request_id(klaw_context_current(), "r-17", &c);
 *     …
 *     e = klaw_context_enter(c, &token);
 *     … spawn, log, call …
 *     klaw_context_leave(&token);
 *     klaw_context_unref(c);
 *
 * Functions that take a `const klaw_context *` take NULL for the empty one. */
#ifndef KLAW_CONTEXT_H
#define KLAW_CONTEXT_H

#include "klaw/err.h"

KLAW_BEGIN

typedef struct klaw_context klaw_context;

/* Limits of one context; more is LIMIT. Sizes are in bytes without the NUL. */
#define KLAW_CONTEXT_VALUES_MAX 64
#define KLAW_CONTEXT_KEY_MAX 63
#define KLAW_CONTEXT_VALUE_MAX 4096
#define KLAW_CONTEXT_REQUEST_ID_MAX 255
/* Keys and values together, NULs not counted. */
#define KLAW_CONTEXT_BYTES_MAX 65536

/* One key with its value: UTF-8, NUL-terminated; the key is not empty. */
typedef struct klaw_context_value {
    const char *key;
    const char *value;
} klaw_context_value;

/* A W3C trace: ids in the order of their hexadecimal digits, never all zero. */
typedef struct klaw_trace {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    /* KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM */
    uint8_t flags;
} klaw_trace;

/* The caller may have recorded it. */
#define KLAW_TRACE_SAMPLED 0x01u
/* The trace id is random in (at least) its last seven bytes. */
#define KLAW_TRACE_RANDOM 0x02u

/* ---- making ---- */

/* A new context: what `base` has, and `n` key/values more. A key that is there already gets the
 * new value, also within `values` (they are applied in their order); a NULL value takes the key
 * away. All strings are copied. With n = 0 it is a plain copy. One reference, the caller's.
 * Errors: INVALID (NULL, empty key, not UTF-8), LIMIT, NOMEM. From anywhere, like all of this
 * header. */
KLAW_API KLAW_MUST klaw_err klaw_context_with(const klaw_context *base,
                                              const klaw_context_value *values, size_t n,
                                              klaw_context **out);
/* The same with another request id; NULL: with none. Errors: INVALID (out, not UTF-8, empty),
 * LIMIT, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_context_with_request_id(const klaw_context *base, const char *id,
                                                         klaw_context **out);
/* The same with another trace; NULL: with none. Errors: INVALID (out, an id that is all zero),
 * NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_context_with_trace(const klaw_context *base,
                                                    const klaw_trace *trace, klaw_context **out);
/* The same in a trace that begins here: random ids, sampled. Errors: INVALID, NOMEM, SYSTEM (no
 * random numbers). */
KLAW_API KLAW_MUST klaw_err klaw_context_new_trace(const klaw_context *base, klaw_context **out);
/* The same in a new span of its trace: the trace id and flags stay, the span id is random.
 * Without a trace: as klaw_context_new_trace. Errors: INVALID, NOMEM, SYSTEM. */
KLAW_API KLAW_MUST klaw_err klaw_context_new_span(const klaw_context *base, klaw_context **out);

/* A further reference; returns c. NULL allowed. */
KLAW_API klaw_context *klaw_context_ref(klaw_context *c);
/* Gives a reference back; the last one frees. NULL allowed. */
KLAW_API void klaw_context_unref(klaw_context *c);

/* ---- looking; strings and arrays live as long as the context ---- */

/* The request id, or NULL. */
KLAW_API const char *klaw_context_request_id(const klaw_context *c);
/* True, and *out filled, when there is a trace. */
KLAW_API bool klaw_context_trace(const klaw_context *c, klaw_trace *out);
/* The value of a key, or NULL. */
KLAW_API const char *klaw_context_get(const klaw_context *c, const char *key);
/* All key/values, sorted by the bytes of their keys; *n says how many. NULL when there are none. */
KLAW_API const klaw_context_value *klaw_context_values(const klaw_context *c, size_t *n);

/* ---- the current one ---- */

/* What klaw_context_leave needs; all fields are private. */
typedef struct klaw_context_token {
    klaw_context *previous_;
    klaw_context *entered_;
    bool armed_;
} klaw_context_token;

/* Makes c the caller's current context and keeps a reference to it. NULL: none is current.
 * Spawned fibers get it from now on. Errors: INVALID (no token), STOPPED (the child of a fork),
 * NOMEM (a thread klaw meets for the first time). */
KLAW_API KLAW_MUST klaw_err klaw_context_enter(klaw_context *c, klaw_context_token *token);
/* Makes the previous one current again. On the fiber or thread that entered, in reverse order
 * (debug builds assert it). A token that is zeroed or has been used is ignored. */
KLAW_API void klaw_context_leave(klaw_context_token *token);
/* The caller's current context, or NULL. Borrowed: valid until the caller leaves it. */
KLAW_API klaw_context *klaw_context_current(void);

/* ---- W3C traceparent, https://www.w3.org/TR/trace-context/ ---- */

/* Bytes of a formatted traceparent, with its NUL. */
#define KLAW_TRACEPARENT_SIZE 56

/* Reads a header value of `size` bytes: version 00 exactly, higher versions as far as 00 knows
 * them. Upper-case digits, spaces, version ff, all-zero ids and anything after a version 00 are
 * INVALID, and *out is left alone. Flags that are not known are dropped. */
KLAW_API KLAW_MUST klaw_err klaw_traceparent_parse(const char *text, size_t size, klaw_trace *out);
/* Writes version 00 and a NUL. Errors: INVALID (NULL, an id that is all zero). */
KLAW_API KLAW_MUST klaw_err klaw_traceparent_format(const klaw_trace *trace,
                                                    char out[KLAW_TRACEPARENT_SIZE]);

KLAW_END

#endif
