/* SPDX-License-Identifier: Apache-2.0 */
/* env.h - what of the configuration lower layers need: messages, the environment, and how many
 * workers a run gets that does not say. */
#ifndef KLAWI_BASE_ENV_H
#define KLAWI_BASE_ENV_H

#include "klaw/config.h"

/* Fills info (NULL allowed) with a message, everything else empty. Returns e. */
klaw_err klawi_error(klaw_error_info *info, klaw_err e, const char *fmt, ...) KLAW_PRINTF(3, 4);

/* A variable's value; NULL when it is not set or empty. */
const char *klawi_env(const char *name);

/* "1" to KLAW_CONFIG_CONCURRENCY_MAX; `what` names the value in the message. INVALID. */
klaw_err klawi_concurrency_parse(const char *text, const char *what, uint32_t *out,
                                 klaw_error_info *info);

/* What holds now: settled by klaw_init, else KLAW_CONCURRENCY, else the usable processors. *source
 * (NULL allowed) says which. INVALID: the variable is wrong. Up to 8 KiB of stack. */
klaw_err klawi_concurrency(uint32_t *out, klaw_source *source, klaw_error_info *info);

/* klaw_init's; 0 takes it back. */
void klawi_concurrency_settle(uint32_t n, klaw_source source);

#endif
