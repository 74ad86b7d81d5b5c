/* SPDX-License-Identifier: Apache-2.0 */
/* env.c - the environment, and the concurrency that klaw_run and klaw_config_get both answer.
 *
 * The settled number and its source are one atomic word, so that a reader never sees the number of
 * one klaw_init with the source of another; 0: nothing is settled. Nothing else is kept: without
 * klaw_init the environment and the machine are looked at each time.
 *
 * Rejected: taking a wrong KLAW_CONCURRENCY for none. Somebody meant something by it. */
#include "base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plat/os.h"

static _Atomic uint32_t settled; /* (a) number << 2 | source */

klaw_err klawi_error(klaw_error_info *info, klaw_err e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (info) {
        memset(info, 0, sizeof *info);
        vsnprintf(info->message, sizeof info->message, fmt, ap);
    }
    va_end(ap);
    return e;
}

const char *klawi_env(const char *name) {
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

klaw_err klawi_concurrency_parse(const char *text, const char *what, uint32_t *out,
                                 klaw_error_info *info) {
    uint32_t v = 0;
    size_t n = strspn(text, "0123456789");
    for (size_t i = 0; i < n && v <= KLAW_CONFIG_CONCURRENCY_MAX; i++)
        v = v * 10 + (uint32_t)(text[i] - '0');
    if (n == 0 || text[n] != '\0' || v == 0 || v > KLAW_CONFIG_CONCURRENCY_MAX)
        return klawi_error(info, KLAW_INVALID, "%s is '%.40s': it has to be a number from 1 to %d",
                           what, text, KLAW_CONFIG_CONCURRENCY_MAX);
    *out = v;
    return KLAW_OK;
}

klaw_err klawi_concurrency(uint32_t *out, klaw_source *source, klaw_error_info *info) {
    uint32_t s = atomic_load_explicit(&settled, memory_order_relaxed);
    klaw_source from = (klaw_source)(s & 3);
    const char *text;
    if (s != 0) {
        *out = s >> 2;
    } else if ((text = klawi_env("KLAW_CONCURRENCY")) != NULL) {
        from = KLAW_SOURCE_ENVIRONMENT;
        klaw_err e = klawi_concurrency_parse(text, "KLAW_CONCURRENCY", out, info);
        if (e)
            return e;
    } else {
        unsigned n = klawi_cpu_usable();
        *out = n < KLAW_CONFIG_CONCURRENCY_MAX ? n : KLAW_CONFIG_CONCURRENCY_MAX;
    }
    if (source)
        *source = from;
    return KLAW_OK;
}

void klawi_concurrency_settle(uint32_t n, klaw_source source) {
    atomic_store_explicit(&settled, n << 2 | (n ? (uint32_t)source : 0), memory_order_relaxed);
}
