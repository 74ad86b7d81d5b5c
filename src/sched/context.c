/* SPDX-License-Identifier: Apache-2.0 */
/* context.c - immutable contexts, the current one of each host, and W3C traceparents.
 *
 * A context is one block: the struct, the sorted array of key/values, then their strings. Making
 * one from another copies it (64 KiB at most, usually some dozens of bytes), which is what
 * immutability costs and what makes inheriting one a single reference.
 *
 * Invariants:
 *   C1  after klaw_context_* returned it, a context never changes but for refs; who takes refs
 *       to 0 frees it (release by all, acquire by the last).
 *   C2  values are sorted by strcmp of their keys, keys differ; the limits of context.h hold;
 *       all strings are UTF-8.
 *   C3  a host's slot owns one reference; while a token is armed it owns the one of the context
 *       before. So entering and leaving count nothing but the entered one, and allocate nothing.
 *
 * No locks: contexts are constant, slots belong to their host.
 *
 * Rejected: a chain of parents with one value each (a lookup walks it, and a long-lived child
 * keeps every ancestor); keys as pointers registered beforehand (Python and remote calls have
 * only text). */
#include "sched/context.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "sched/sched.h"

struct klaw_context {
    _Atomic uint64_t refs;  /* (a) C1; all others (c) */
    const char *request_id; /* NULL: none */
    klaw_trace trace;
    bool traced;
    size_t n;
    klaw_context_value values[];
};

/* What a context will be: pointers into the base and the caller's strings. */
struct draft {
    const char *request_id;
    const klaw_trace *trace;
    size_t n;
    klaw_context_value values[KLAW_CONTEXT_VALUES_MAX];
};

/* ---- making ---- */

static void draft_from(struct draft *d, const klaw_context *base) {
    d->request_id = base ? base->request_id : NULL;
    d->trace = base && base->traced ? &base->trace : NULL;
    d->n = base ? base->n : 0;
    if (d->n)
        memcpy(d->values, base->values, d->n * sizeof d->values[0]);
}

static klaw_err check_text(const char *s, size_t max) {
    size_t n = strnlen(s, max + 1);
    if (n > max)
        return KLAW_LIMIT;
    return klawi_utf8_valid(s, n) ? KLAW_OK : KLAW_INVALID;
}

/* The place of a key in sorted values, or where it belongs. */
static size_t place_of(const klaw_context_value *values, size_t n, const char *key, bool *found) {
    size_t low = 0, high = n;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(values[middle].key, key);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static klaw_err draft_set(struct draft *d, const klaw_context_value *v) {
    bool found;
    klaw_err e;
    if (!v->key || !v->key[0])
        return KLAW_INVALID;
    if ((e = check_text(v->key, KLAW_CONTEXT_KEY_MAX)))
        return e;
    if (v->value && (e = check_text(v->value, KLAW_CONTEXT_VALUE_MAX)))
        return e;
    size_t at = place_of(d->values, d->n, v->key, &found);
    klaw_context_value *place = &d->values[at];
    if (!v->value) {
        if (!found)
            return KLAW_OK;
        d->n--;
        memmove(place, place + 1, (d->n - at) * sizeof *place);
        return KLAW_OK;
    }
    if (!found) {
        if (d->n == KLAW_CONTEXT_VALUES_MAX)
            return KLAW_LIMIT;
        memmove(place + 1, place, (d->n - at) * sizeof *place);
        d->n++;
    }
    *place = *v;
    return KLAW_OK;
}

static const char *copy_text(char **to, const char *s) {
    size_t size = strlen(s) + 1;
    char *copy = memcpy(*to, s, size);
    *to += size;
    return copy;
}

static klaw_err draft_build(const struct draft *d, klaw_context **out) {
    size_t bytes = 0;
    for (size_t i = 0; i < d->n; i++)
        bytes += strlen(d->values[i].key) + strlen(d->values[i].value);
    if (bytes > KLAW_CONTEXT_BYTES_MAX)
        return KLAW_LIMIT;
    bytes += 2 * d->n + (d->request_id ? strlen(d->request_id) + 1 : 0);
    klaw_context *c = klawi_alloc(sizeof *c + d->n * sizeof c->values[0] + bytes);
    if (!c)
        return KLAW_NOMEM;
    atomic_init(&c->refs, 1);
    c->traced = d->trace != NULL;
    memset(&c->trace, 0, sizeof c->trace);
    if (d->trace)
        c->trace = *d->trace;
    c->n = d->n;
    char *text = (char *)&c->values[c->n];
    for (size_t i = 0; i < c->n; i++) {
        c->values[i].key = copy_text(&text, d->values[i].key);
        c->values[i].value = copy_text(&text, d->values[i].value);
    }
    c->request_id = d->request_id ? copy_text(&text, d->request_id) : NULL;
    *out = c;
    return KLAW_OK;
}

klaw_err klaw_context_with(const klaw_context *base, const klaw_context_value *values, size_t n,
                           klaw_context **out) {
    struct draft d;
    if (!out || (n > 0 && !values))
        return KLAW_INVALID;
    draft_from(&d, base);
    for (size_t i = 0; i < n; i++) {
        klaw_err e = draft_set(&d, &values[i]);
        if (e)
            return e;
    }
    return draft_build(&d, out);
}

klaw_err klaw_context_with_request_id(const klaw_context *base, const char *id,
                                      klaw_context **out) {
    struct draft d;
    if (!out || (id && !id[0]))
        return KLAW_INVALID;
    if (id) {
        klaw_err e = check_text(id, KLAW_CONTEXT_REQUEST_ID_MAX);
        if (e)
            return e;
    }
    draft_from(&d, base);
    d.request_id = id;
    return draft_build(&d, out);
}

/* ---- traces ---- */

static bool all_zero(const uint8_t *bytes, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= bytes[i];
    return any == 0;
}

static bool trace_valid(const klaw_trace *t) {
    return !all_zero(t->trace_id, sizeof t->trace_id) && !all_zero(t->span_id, sizeof t->span_id);
}

klaw_err klaw_context_with_trace(const klaw_context *base, const klaw_trace *trace,
                                 klaw_context **out) {
    struct draft d;
    klaw_trace known;
    if (!out || (trace && !trace_valid(trace)))
        return KLAW_INVALID;
    draft_from(&d, base);
    d.trace = NULL;
    if (trace) {
        known = *trace;
        known.flags &= KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM;
        d.trace = &known;
    }
    return draft_build(&d, out);
}

/* Random bytes that are not all zero. */
static klaw_err random_id(uint8_t *bytes, size_t n) {
    do {
        /* Up to 256 bytes come whole, unless a signal arrives before there is any entropy. */
        ssize_t got = getrandom(bytes, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != (ssize_t)n)
            return KLAW_SYSTEM;
        if (!all_zero(bytes, n))
            return KLAW_OK;
    } while (true);
}

static klaw_err new_span(const klaw_context *base, const klaw_trace *in, klaw_context **out) {
    klaw_trace t;
    klaw_err e;
    if (!out)
        return KLAW_INVALID;
    if (in) {
        t = *in;
    } else {
        if ((e = random_id(t.trace_id, sizeof t.trace_id)))
            return e;
        t.flags = KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM;
    }
    if ((e = random_id(t.span_id, sizeof t.span_id)))
        return e;
    return klaw_context_with_trace(base, &t, out);
}

klaw_err klaw_context_new_trace(const klaw_context *base, klaw_context **out) {
    return new_span(base, NULL, out);
}

klaw_err klaw_context_new_span(const klaw_context *base, klaw_context **out) {
    return new_span(base, base && base->traced ? &base->trace : NULL, out);
}

/* ---- references and looking ---- */

klaw_context *klaw_context_ref(klaw_context *c) {
    if (!c)
        return NULL;
    uint64_t before = atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    KLAWI_ASSERT(before > 0); /* C1 */
    (void)before;
    return c;
}

void klaw_context_unref(klaw_context *c) {
    if (!c)
        return;
    uint64_t before = atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel);
    KLAWI_ASSERT(before > 0); /* C1 */
    if (before == 1)
        klawi_free(c);
}

const char *klaw_context_request_id(const klaw_context *c) {
    return c ? c->request_id : NULL;
}

bool klaw_context_trace(const klaw_context *c, klaw_trace *out) {
    if (!c || !c->traced)
        return false;
    *out = c->trace;
    return true;
}

const char *klaw_context_get(const klaw_context *c, const char *key) {
    bool found;
    if (!c || !key)
        return NULL;
    size_t at = place_of(c->values, c->n, key, &found);
    return found ? c->values[at].value : NULL;
}

const klaw_context_value *klaw_context_values(const klaw_context *c, size_t *n) {
    *n = c ? c->n : 0;
    return *n ? c->values : NULL;
}

/* ---- the current one ---- */

klaw_err klaw_context_enter(klaw_context *c, klaw_context_token *token) {
    klaw_err why = KLAW_NOMEM;
    if (!token)
        return KLAW_INVALID;
    klaw_context **slot = klawi_ctx_need(&why) ? klawi_host_context() : NULL;
    if (!slot)
        return why;
    klawi_context_log();
    token->previous_ = *slot; /* C3: the slot's reference moves here */
    token->entered_ = c;
    token->armed_ = true;
    *slot = klaw_context_ref(c);
    return KLAW_OK;
}

void klaw_context_leave(klaw_context_token *token) {
    if (!token || !token->armed_)
        return;
    klaw_context **slot = klawi_ctx_get() ? klawi_host_context() : NULL;
    bool innermost = slot && *slot == token->entered_;
    KLAWI_ASSERT(innermost);
    if (!innermost)
        return;
    *slot = token->previous_;
    token->previous_ = NULL;
    token->armed_ = false;
    klaw_context_unref(token->entered_);
    token->entered_ = NULL;
}

klaw_context *klaw_context_current(void) {
    /* A thread klaw has not met has none; asking must not make it a host. */
    klaw_context **slot = klawi_ctx_get() ? klawi_host_context() : NULL;
    return slot ? *slot : NULL;
}

/* ---- the log ---- */

static void log_context(klaw_log_record *r) {
    const klaw_context *c = klaw_context_current();
    if (!c)
        return;
    r->request_id = c->request_id;
    r->trace = c->traced ? &c->trace : NULL;
    r->values = c->n ? c->values : NULL;
    r->n_values = c->n;
}

static void log_fiber(klaw_log_record *r) {
    r->fiber_id = klaw_self_id();
    if (r->fiber_id)
        r->fiber = klaw_self_name();
}

void klawi_context_log(void) {
    /* Pair with the acquire in klaw_log_write. */
    if (atomic_load_explicit(&klawi_log_context, memory_order_relaxed) == log_context)
        return;
    atomic_store_explicit(&klawi_log_fiber, log_fiber, memory_order_release);
    atomic_store_explicit(&klawi_log_context, log_context, memory_order_release);
}

/* ---- traceparent: version "-" trace-id "-" parent-id "-" flags ---- */

#define TRACE_AT 3
#define SPAN_AT 36
#define FLAGS_AT 53
#define TRACEPARENT_LEN (KLAW_TRACEPARENT_SIZE - 1)

/* Lower-case digits only, as the specification has them. */
static bool hex_read(const char *s, uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < 2 * n; i++) {
        uint8_t v;
        if (s[i] >= '0' && s[i] <= '9')
            v = (uint8_t)(s[i] - '0');
        else if (s[i] >= 'a' && s[i] <= 'f')
            v = (uint8_t)(s[i] - 'a' + 10);
        else
            return false;
        bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] << 4 | v : v);
    }
    return true;
}

klaw_err klaw_traceparent_parse(const char *text, size_t size, klaw_trace *out) {
    klaw_trace t;
    uint8_t version;
    if (!text || !out || size < TRACEPARENT_LEN)
        return KLAW_INVALID;
    if (!hex_read(text, &version, 1) || version == 0xff)
        return KLAW_INVALID;
    if (text[TRACE_AT - 1] != '-' || text[SPAN_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
        return KLAW_INVALID;
    /* Later versions may only add fields behind another dash. */
    if (size > TRACEPARENT_LEN && (version == 0 || text[TRACEPARENT_LEN] != '-'))
        return KLAW_INVALID;
    if (!hex_read(text + TRACE_AT, t.trace_id, sizeof t.trace_id) ||
        !hex_read(text + SPAN_AT, t.span_id, sizeof t.span_id) ||
        !hex_read(text + FLAGS_AT, &t.flags, 1) || !trace_valid(&t))
        return KLAW_INVALID;
    t.flags &= KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM;
    *out = t;
    return KLAW_OK;
}

klaw_err klaw_traceparent_format(const klaw_trace *trace, char out[KLAW_TRACEPARENT_SIZE]) {
    if (!trace || !out || !trace_valid(trace))
        return KLAW_INVALID;
    struct klawi_text t = {.p = out, .cap = TRACEPARENT_LEN};
    uint8_t flags = trace->flags & (KLAW_TRACE_SAMPLED | KLAW_TRACE_RANDOM);
    klawi_text_str(&t, "00-");
    klawi_text_hex(&t, trace->trace_id, sizeof trace->trace_id);
    klawi_text_str(&t, "-");
    klawi_text_hex(&t, trace->span_id, sizeof trace->span_id);
    klawi_text_str(&t, "-");
    klawi_text_hex(&t, &flags, 1);
    out[TRACEPARENT_LEN] = 0;
    return KLAW_OK;
}
