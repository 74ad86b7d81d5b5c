/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h - spans, as the layers above begin and end them. */
#ifndef KLAWI_SCHED_TRACE_H
#define KLAWI_SCHED_TRACE_H

#include <stdatomic.h>

#include "klaw/trace.h"
#include "plat/plat.h"

struct klawi_collector;
/* Who is told; NULL: nobody. Partner of klaw_trace_collect: release there, acquire in klawi_span_begin; the relaxed
 * look before it only decides whether to look at all. */
extern _Atomic(const struct klawi_collector *) klawi_collector;

/* A span under way. */
typedef struct klawi_span {
    const struct klawi_collector *collector; /* NULL: there is none */
    klaw_context *context;                   /* its own, current while it lasts */
    klaw_context_token token;
    uint8_t parent[8];
    int64_t began;
} klawi_span;

void klawi_span_start(klawi_span *s);
void klawi_span_stop(klawi_span *s, klaw_span_kind kind, const char *name, klaw_err e);

/* Begins a span inside the current context's trace; nothing when nobody collects or nothing is traced. */
static inline void klawi_span_begin(klawi_span *s) {
    s->collector = NULL;
    if (KLAWI_UNLIKELY(atomic_load_explicit(&klawi_collector, memory_order_relaxed) != NULL))
        klawi_span_start(s);
}
/* Ends it, on the host that began it, in reverse order. */
static inline void klawi_span_end(klawi_span *s, klaw_span_kind kind, const char *name,
                                  klaw_err e) {
    if (KLAWI_UNLIKELY(s->collector != NULL))
        klawi_span_stop(s, kind, name, e);
}

#endif
