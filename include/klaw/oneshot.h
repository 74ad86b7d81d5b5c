/* SPDX-License-Identifier: Apache-2.0 */
/* oneshot.h - one value, once. */
#ifndef KLAW_ONESHOT_H
#define KLAW_ONESHOT_H

#include "klaw/channel.h"

KLAW_BEGIN

/* Makes a oneshot: the first klaw_send wins and never waits (a second one answers CLOSED), one
 * klaw_recv gets the value, later ones CLOSED. A sender closed without a send makes recv answer
 * CLOSED at once: never a hang. Endpoints can't be cloned. Errors: INVALID, LIMIT (element size),
 * NOMEM. */
KLAW_API KLAW_MUST klaw_err klaw_oneshot(const klaw_type *type, klaw_sender **tx,
                                         klaw_receiver **rx);

KLAW_END

#endif
