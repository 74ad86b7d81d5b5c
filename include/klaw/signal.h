/* SPDX-License-Identifier: Apache-2.0 */
/* signal.h - signals as elements of a channel: Ctrl-C in a select. */
#ifndef KLAW_SIGNAL_H
#define KLAW_SIGNAL_H

#include "klaw/channel.h"

KLAW_BEGIN

/* A receiver of klaw_u64 that gets the number of each of the `n` signals when it arrives; up to 16
 * wait, the same signal is merged as the kernel does. Several receivers of one signal all get it.
 * While at least one is open the default action is off; the former handler comes back when the last
 * one closes. Errors: INVALID (n = 0, NULL, SIGKILL, SIGSTOP, SIGSEGV and the other synchronous
 * ones), NOMEM, SYSTEM. From anywhere; no runtime is needed. */
KLAW_API KLAW_MUST klaw_err klaw_signal_open(const int *signals, size_t n, klaw_receiver **out);

KLAW_END

#endif
