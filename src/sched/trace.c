/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c - spans around asks, messages, tasks and steps.
 *
 * Invariants:
 *   T1  A span is begun only when a collector is set and the current context has a sampled trace; what goes wrong at
 *       its beginning (no memory, no random numbers) means no span, never an error of the work.
 *   T2  Between begin and end its own context is current on the host that began it, so that what is started inside
 *       becomes its child.
 *   T3  A collector that was set is never freed: a span may still end with it. There are as many as calls of
 *       klaw_trace_collect, which a program makes once or twice.
 *
 * Rejected: a queue of spans with a thread that drains it (exporters have one); telling of beginnings, too (a
 * collector of ended spans is what OTLP and its like want). */
#include "sched/trace.h"

#include <string.h>

#include "base/alloc.h"
#include "plat/os.h"

struct klawi_collector {
    klaw_span_fn fn;
    void *user;
    const struct klawi_collector *earlier; /* so that leak checkers see it */
};

_Atomic(const struct klawi_collector *) klawi_collector;
static _Atomic(const struct klawi_collector *) all;

const char *klaw_span_kind_name(klaw_span_kind kind) {
    static const char *const names[] = {"ask", "handle", "task", "step"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

klaw_err klaw_trace_collect(klaw_span_fn fn, void *user) {
    struct klawi_collector *c = NULL;
    if (fn) {
        c = klawi_alloc(sizeof *c);
        if (!c)
            return KLAW_NOMEM;
        c->fn = fn;
        c->user = user;
        c->earlier = atomic_load(&all);
        while (!atomic_compare_exchange_weak(&all, &c->earlier, c)) {}
    }
    atomic_store_explicit(&klawi_collector, c, memory_order_release);
    return KLAW_OK;
}

void klawi_span_start(klawi_span *s) {
    const struct klawi_collector *c = atomic_load_explicit(&klawi_collector, memory_order_acquire);
    klaw_context *now = klaw_context_current();
    klaw_trace trace;
    if (!c || !now || !klaw_context_trace(now, &trace) || !(trace.flags & KLAW_TRACE_SAMPLED) ||
        klaw_context_new_span(now, &s->context) != KLAW_OK)
        return;
    if (klaw_context_enter(s->context, &s->token) != KLAW_OK) {
        klaw_context_unref(s->context);
        return;
    }
    memcpy(s->parent, trace.span_id, sizeof s->parent);
    s->began = klawi_wall_clock();
    s->collector = c;
}

void klawi_span_stop(klawi_span *s, klaw_span_kind kind, const char *name, klaw_err e) {
    klaw_span span = {.kind = kind, .name = name, .began = s->began, .error = e};
    span.ended = klawi_wall_clock();
    memcpy(span.parent, s->parent, sizeof span.parent);
    (void)klaw_context_trace(s->context, &span.trace);
    klaw_context_leave(&s->token);
    s->collector->fn(&span, s->collector->user);
    klaw_context_unref(s->context);
    s->collector = NULL;
}
