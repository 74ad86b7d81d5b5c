/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - what processes answer, in Prometheus's text format. */
#ifndef CLI_UI_METRICS_H
#define CLI_UI_METRICS_H

#include <stddef.h>

/* All processes that answer, in text format 0.0.4; the caller's, for free(). NULL: no memory. */
char *cli_metrics(size_t *size);
/* The media type of it. */
#define CLI_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
