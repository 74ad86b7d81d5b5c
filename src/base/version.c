/* SPDX-License-Identifier: Apache-2.0 */
/* version.c - which libklaw is loaded, for programs that were compiled against other headers. */
#include "klaw/klaw.h"

const char *klaw_version(void) {
    return KLAW_VERSION;
}
