/* SPDX-License-Identifier: Apache-2.0 */
/* publish.h - showing objects in snapshots that klaw did not make: the tasks, actors and supervisors of
 * another language's layer (the Python package is the first).
 *
 * A published object stands in snapshots beside klaw's own of its kind, as it was told last, until it
 * is given up. Its number is one of its kind that no other object has, klaw's own included; a task's
 * among those whose executor_id is 0. All functions: from any thread or fiber; none waits. */
#ifndef KLAW_PUBLISH_H
#define KLAW_PUBLISH_H

#include "klaw/inspect.h"

KLAW_BEGIN

typedef struct klaw_published klaw_published;

/* Publishes a task, an actor or a supervisor; `now` is copied, its id is not looked at. `mailbox` (may be
 * NULL) is the receiver of the actor's mailbox: size, capacity, high watermark and waiting senders are
 * taken from it at each look. It has to stay valid until another one is told or the actor given up. Errors: INVALID
 * (NULL), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_publish_task(const klaw_task_info *now, klaw_published **out);
KLAW_API KLAW_MUST klaw_err klaw_publish_actor(const klaw_actor_stats *now, klaw_receiver *mailbox,
                                               klaw_published **out);
KLAW_API KLAW_MUST klaw_err klaw_publish_supervisor(const klaw_supervisor_info *now,
                                                    klaw_published **out);
/* Tells how it is now. Of another kind than it was published as: nothing happens. */
KLAW_API void klaw_published_actor(klaw_published *p, const klaw_actor_stats *now,
                                   klaw_receiver *mailbox);
/* The same for a supervisor, with its n children in the order of their start (copied). Errors: INVALID (not
 * a supervisor, NULL), NOMEM; then it is as it was. */
KLAW_API KLAW_MUST klaw_err klaw_published_supervisor(klaw_published *p,
                                                      const klaw_supervisor_info *now,
                                                      const klaw_child_info *children, size_t n);
/* --- who waits for whom ---
 * What a published task waits for, and who may end that wait, only its own layer can know. It tells so, in rows, when it
 * is asked: a reader that wants to know of deadlocks sends the request "look". */

/* One who may end a task's wait. */
typedef struct klaw_hold_info {
    uint64_t waiter_id; /* the published task that waits */
    uint64_t
        holder_id; /* the published task that may end it; 0: somebody nobody knows, so it may go on */
    char what[48]; /* what it waits for, e.g. "Future"; "": for a channel, see klaw_wait_info */
} klaw_hold_info;

/* Tells all rows anew (copied). A task without a row is not known to wait. Errors: INVALID (NULL), NOMEM: then
 * the rows are those from before. */
KLAW_API KLAW_MUST klaw_err klaw_publish_holds(const klaw_hold_info *rows, size_t n);
/* Sets who is told of a request "look": fn(user) is called by the thread that answers readers, must not wait, and
 * causes klaw_publish_holds some time later. NULL: nobody; when it returns fn is not running and won't be called again. */
KLAW_API void klaw_publish_looker(void (*fn)(void *user), void *user);

/* Its number. */
KLAW_API uint64_t klaw_published_id(const klaw_published *p);
/* Takes it out of snapshots and gives it up. NULL allowed. */
KLAW_API void klaw_unpublish(klaw_published *p);

KLAW_END

#endif
