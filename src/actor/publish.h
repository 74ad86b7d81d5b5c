/* SPDX-License-Identifier: Apache-2.0 */
/* publish.h - published objects for the providers of snapshots. */
#ifndef KLAWI_ACTOR_PUBLISH_H
#define KLAWI_ACTOR_PUBLISH_H

#include <stddef.h>

/* Each writes its items behind the n that are in `out` (room for max), and returns how many there are in
 * all, which may be over max. */
size_t klawi_published_actors(void *out, size_t max, size_t n);
size_t klawi_published_supervisors(void *out, size_t max, size_t n);
size_t klawi_published_children(void *out, size_t max, size_t n);
size_t klawi_published_tasks(void *out, size_t max, size_t n);

#endif
