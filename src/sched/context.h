/* SPDX-License-Identifier: Apache-2.0 */
/* context.h - contexts, as the other files of this layer need them.
 *
 * A host's slot (klawi_host_context) holds a reference or NULL. Who spawns puts
 * klawi_context_ref(*own slot) into the new fiber's slot; who ends a host gives what is left in it
 * to klawi_context_unref. Neither waits; the latter may free, so no lock may be held. */
#ifndef KLAWI_SCHED_CONTEXT_H
#define KLAWI_SCHED_CONTEXT_H

#include "klaw/context.h"

static inline klaw_context *klawi_context_ref(klaw_context *c) {
    return c ? klaw_context_ref(c) : NULL;
}
static inline void klawi_context_unref(klaw_context *c) {
    if (c)
        klaw_context_unref(c);
}

/* Lets log records name the fiber and carry the context. When a runtime starts, and at the first
 * klaw_context_enter; again is harmless. */
void klawi_context_log(void);

#endif
