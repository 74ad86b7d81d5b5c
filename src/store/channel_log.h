/* SPDX-License-Identifier: Apache-2.0 */
/* channel_log.h - the channel log's door for tests: a log on a store that is open. */
#ifndef KLAWI_STORE_CHANNEL_LOG_H
#define KLAWI_STORE_CHANNEL_LOG_H

#include "klaw/channel_log.h"
#include "store/store.h"

/* As klaw_channel_log_open on that store, whose reference it takes over on OK. */
klaw_err klawi_channel_log_on(klaw_store *s, const unsigned char channel[KLAW_REMOTE_ID],
                              bool existing, klaw_deadline deadline, klaw_channel_log **out,
                              klaw_error_info *info);

#endif
