/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - what this process may use of the machine: processors, cores, memory. */
#ifndef KLAWI_MACHINE_H
#define KLAWI_MACHINE_H

#include "klaw/config.h"
#include "plat/plat.h"

#define KLAWI_CPUS_MAX 4096u

/* A set of logical processors. */
typedef struct klawi_cpus {
    uint64_t bits[KLAWI_CPUS_MAX / 64];
} klawi_cpus;

/* Reads "0-3,8" (white space may follow). False, and *out is empty, for anything else. */
bool klawi_cpus_parse(const char *text, klawi_cpus *out);
unsigned klawi_cpus_count(const klawi_cpus *s);

/* What klawi_detect looks at; the rest of *out is left zero. */
#define KLAWI_DETECT_CPUS 1u
#define KLAWI_DETECT_CORES 2u /* with CPUS */
#define KLAWI_DETECT_MEMORY 4u

/* Looks at the files of /proc and /sys below `root`: "" is this machine, then the kernel itself is
 * asked for the affinity; else a recorded tree, whose proc/self/status tells it. Never fails: what
 * is not there or makes no sense is no limit. About 6 KiB of stack, no allocation. */
void klawi_detect(const char *root, unsigned what, klaw_machine *out);

#endif
