/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h - the latest value, and who wants to know when it changes. */
#ifndef KLAW_WATCH_H
#define KLAW_WATCH_H

#include "klaw/channel.h"

KLAW_BEGIN

/* Makes a watch that holds *initial (moved on OK). klaw_send replaces the value and never waits
 * (also while there are no receivers: one may subscribe); klaw_recv waits for a value this
 * receiver has not seen and copies (or shares) it out, the initial one counts as seen. After the
 * senders are gone an unseen last value is still received, then CLOSED. Errors: INVALID, LIMIT,
 * TYPE (a drop without a share), NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_watch(const klaw_type *type, const void *initial, klaw_sender **tx,
                                       klaw_receiver **rx);

/* Waits until there is an unseen value, and marks it seen without copying it. Errors as klaw_recv;
 * INVALID for other kinds. */
KLAW_API KLAW_MUST klaw_err klaw_watch_changed(klaw_receiver *rx, klaw_deadline deadline);
/* Whether there is a value this receiver has not seen. CLOSED when there is none and there never
 * will be. */
KLAW_API KLAW_MUST klaw_err klaw_watch_has_changed(klaw_receiver *rx, bool *out);
/* A pinned view of the latest value, seen or not, which stays unchanged until klaw_watch_release;
 * marks it seen. Works after close. Hold it briefly: each held view keeps an old value alive.
 * Errors: INVALID; CLOSED (this handle). */
KLAW_API KLAW_MUST klaw_err klaw_watch_borrow(klaw_receiver *rx, const void **out);
/* Ends a view. */
KLAW_API void klaw_watch_release(klaw_receiver *rx, const void *view);
/* A further receiver, which counts the present value as unseen. Errors: CLOSED, NOMEM, INVALID. */
KLAW_API KLAW_MUST klaw_err klaw_watch_subscribe(klaw_sender *tx, klaw_receiver **out);

KLAW_END

#endif
