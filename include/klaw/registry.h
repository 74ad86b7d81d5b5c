/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h - names for actors, and groups of actors, in this process.
 *
 * A name belongs to one actor, from klaw_registry_register until klaw_registry_unregister or until
 * the actor ends for good; restarts do not matter to it. A group is a name for any number of actors
 * that take messages of one type; it exists while it has a member. Names and groups do not know
 * each other. Both are UTF-8, compared byte by byte, 1 to KLAW_NAME_MAX bytes.
 *
 *     e = klaw_registry_register("counter", a);
 *     …
 *     e = klaw_registry_await("counter", KLAW_WITHIN(KLAW_S(5)), &a);
 *     e = klaw_actor_ask(a, &(uint64_t){1}, &total, KLAW_WITHIN(KLAW_S(1)));
 *     klaw_actor_unref(a);
 *
 * Whoever has found an actor holds a reference to it; the actor may end the next moment all the
 * same, then sends to it answer STOPPED.
 *
 * Errors of every function that takes a name: INVALID (NULL, empty, not UTF-8), LIMIT (too long).
 * All of them: from any fiber or thread. */
#ifndef KLAW_REGISTRY_H
#define KLAW_REGISTRY_H

#include "klaw/actor.h"
#include "klaw/inspect.h"

KLAW_BEGIN

/* The longest name, in bytes without the NUL. */
#define KLAW_NAME_MAX 127

/* Gives the actor this name; it may have several. The registry holds a reference while it has it.
 * Whoever awaits the name is woken. Errors: EXISTS (the name is taken, by whomever), STOPPED (the
 * actor has ended for good), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_registry_register(const char *name, klaw_actor *actor);
/* Takes a name away. Errors: NOT_FOUND. */
KLAW_API KLAW_MUST klaw_err klaw_registry_unregister(const char *name);
/* Who has this name: *out is a reference, the caller's. Errors: NOT_FOUND. Never waits. */
KLAW_API KLAW_MUST klaw_err klaw_whereis(const char *name, klaw_actor **out);
/* As klaw_whereis, for an actor that takes messages of this type. Errors: also TYPE (it takes
 * others). */
KLAW_API KLAW_MUST klaw_err klaw_registry_get(const char *name, const klaw_type *message,
                                              klaw_actor **out);
/* As klaw_whereis, but waits for somebody to register the name. All who wait get it. Errors:
 * NOT_FOUND (NOWAIT), TIMEOUT, CANCELLED, NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_registry_await(const char *name, klaw_deadline deadline,
                                                klaw_actor **out);

/* Makes the actor a member, the first of a group makes the group. Errors: EXISTS (it is a member),
 * TYPE (the members take messages of another type), STOPPED (the actor has ended for good), NOMEM.
 */
KLAW_API KLAW_MUST klaw_err klaw_group_join(const char *group, klaw_actor *actor);
/* The actor leaves. Errors: NOT_FOUND (it is no member). */
KLAW_API KLAW_MUST klaw_err klaw_group_leave(const char *group, klaw_actor *actor);
/* Sends each member of the moment a copy of *message (made by the type's share; the bytes where the
 * type has no drop); the message itself stays the caller's. A member whose mailbox is full is
 * waited for to the deadline, after all others have got theirs; one that has ended is left out.
 * *sent (may be NULL; set also on an error) is how many got it. OK: all that had not ended did.
 * Else the first of: FULL (NOWAIT), TIMEOUT, CANCELLED, NOMEM, what share returned. Errors before
 * anything is sent: NOT_FOUND (no such group), TYPE (its members take messages of another type, or
 * the type has a drop and no share), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_group_send(const char *group, const klaw_type *type,
                                            const void *message, klaw_deadline deadline,
                                            size_t *sent);
/* The members, in the order they joined: references to the first `max` of them into `out` (may be
 * NULL with max 0), each the caller's; *n is how many there are. Errors: NOT_FOUND (no such group;
 * *n is 0). */
KLAW_API KLAW_MUST klaw_err klaw_group_members(const char *group, klaw_actor **out, size_t max,
                                               size_t *n);

/* One name and its actor, or one membership: what klaw_snapshot_names gives. */
typedef struct klaw_name_info {
    uint64_t actor_id;
    char name[KLAW_NAME_MAX + 1];
    bool group; /* a membership */
} klaw_name_info;

/* All names and memberships of a snapshot (inspect.h; in its JSON: "names"), as the other arrays
 * there. */
KLAW_API const klaw_name_info *klaw_snapshot_names(const klaw_snapshot *snap, size_t *n);

KLAW_END

#endif
