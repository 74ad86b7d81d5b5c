/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h - what the files of klaw channel share. */
#ifndef CLI_CHANNEL_H
#define CLI_CHANNEL_H

#include <klaw/remote.h>
#include <signal.h>

#include "cli.h"

/* The command line. */
typedef struct cli_request {
    klaw_remote_opts opts;
    bool json, make, follow;
    bool counted;    /* count was given */
    uint64_t count;  /* recv: 0: no end */
    int64_t timeout; /* ns; 0: none */
    int64_t every;   /* ns; 0: not given */
} cli_request;

/* The signal that said to end, or 0. */
extern volatile sig_atomic_t cli_channel_stopped;

/* Tells an error; the exit code it means. */
int cli_channel_explain(const char *what, klaw_err e, const klaw_error_info *info);

/* channel_look.c: stats and tail; their exit code. */
int cli_channel_stats(const cli_request *r, const char *name);
int cli_channel_tail(const cli_request *r, const char *name);

#endif
