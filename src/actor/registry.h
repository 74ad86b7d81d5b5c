/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h - what actors tell the registry. */
#ifndef KLAWI_ACTOR_REGISTRY_H
#define KLAWI_ACTOR_REGISTRY_H

#include "klaw/registry.h"

/* The actor has ended for good: it loses its names and leaves its groups. To be called once, after
 * klaw_actor_alive has become false and before whoever joins or watches it is told. The caller
 * holds a reference and no lock. */
void klawi_registry_forget(klaw_actor *a);

/* How many wait for a name, in all (tests). */
size_t klawi_registry_waiting(void);

#endif
