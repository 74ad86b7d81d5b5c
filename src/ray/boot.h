/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - how libklaw_ray finds an interpreter and starts it. */
#ifndef KLAWI_RAY_BOOT_H
#define KLAWI_RAY_BOOT_H

#include "runtime/remote_desk.h"

/* What an interpreter says of itself. */
typedef struct klawi_python {
    char version[16];      /* "3.11" */
    char executable[1024]; /* as it names itself: in an environment, the environment's */
    char library[1024];    /* its shared library */
    bool shared;           /* it has one */
} klawi_python;

/* Runs the interpreter `path` for a moment and asks it. BACKEND, told in info. */
klaw_err klawi_python_ask(const char *path, klawi_python *out, klaw_error_info *info);
/* Fills info with a message. Returns BACKEND. */
klaw_err klawi_ray_error(klaw_error_info *info, const char *format, ...) KLAW_PRINTF(2, 3);

#endif
