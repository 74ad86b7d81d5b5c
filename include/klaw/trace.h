/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h - spans: what an ask, a task and a workflow step took, told to whoever collects traces.
 *
 * The trace itself travels in the context (context.h), in and out of the process as a traceparent header. Where a
 * context with a sampled trace is current and a collector is set, an ask, the handling of a message, a task and a step each
 * run in a span of their own: a child of the current one, current itself for what happens inside. When it ends the
 * collector is told. Without a collector, or without a trace, nothing of this happens and it costs nothing.
 *
 *     static void collect(const klaw_span *s, void *user) { my_exporter_add(user, s); }
 *     e = klaw_trace_collect(collect, exporter);
 */
#ifndef KLAW_TRACE_H
#define KLAW_TRACE_H

#include "klaw/context.h"
#include "klaw/err.h"

KLAW_BEGIN

/* What a span is of. */
typedef enum klaw_span_kind {
    KLAW_SPAN_ASK = 0,    /* klaw_actor_ask, as who asks sees it */
    KLAW_SPAN_HANDLE = 1, /* an actor handles a message */
    KLAW_SPAN_TASK = 2,   /* a task runs */
    KLAW_SPAN_STEP = 3    /* a step of a workflow: one attempt */
} klaw_span_kind;

/* "ask", "handle", "task", "step"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_span_kind_name(klaw_span_kind kind);

/* A span that has ended. */
typedef struct klaw_span {
    klaw_span_kind kind; /* what of */
    const char *name;    /* of the actor, the task or the step; borrowed for the call */
    klaw_trace trace;    /* the trace, and its own span id */
    uint8_t parent[8];   /* the span id it is a child of */
    int64_t began;       /* ns since 1970 */
    int64_t ended;       /* ns since 1970 */
    klaw_err error;      /* OK, or how it failed */
} klaw_span;

/* Told of each span on the host that ended it, with no lock held. Must not wait. */
typedef void (*klaw_span_fn)(const klaw_span *span, void *user);

/* Sets the collector for the process; NULL: none any more. A span that began before ends with the collector of its
 * beginning, so `user` has to stay valid. NOMEM. From anywhere. */
KLAW_API KLAW_MUST klaw_err klaw_trace_collect(klaw_span_fn fn, void *user);

KLAW_END

#endif
