/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - what the files of the log share, and where upper layers plug in. */
#ifndef KLAWI_BASE_LOG_H
#define KLAWI_BASE_LOG_H

#include "klaw/log.h"
#include "plat/plat.h"

/* Set by the scheduler's layer, store with release; NULL until then. Each fills its part of a
 * record whose other fields are zero, without waiting and without allocating: klawi_log_context:
 * request_id, trace, values, n_values (borrowed from the current context); klawi_log_fiber:
 * fiber and fiber_id; leaves them alone on a plain thread. */
typedef void (*klawi_log_fill)(klaw_log_record *record);
extern _Atomic(klawi_log_fill) klawi_log_context;
extern _Atomic(klawi_log_fill) klawi_log_fiber;

/* Writes the record as one line, newline included, at most KLAW_LOG_LINE_MAX bytes; returns how
 * many. */
size_t klawi_log_line(char *buffer, klaw_log_format format, const klaw_log_record *r);

/* Calls the hooks, unless the caller is inside one. */
void klawi_log_hooks_run(const klaw_log_record *record);

#endif
