/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - how klaw is set up in this process, and what it found out about the machine.
 *
 * Each value is taken from the first of: what klaw_init was given, the environment (KLAW_BACKEND,
 * KLAW_CONCURRENCY, KLAW_LOG_LEVEL, KLAW_CHECKPOINT_PATH, KLAW_INSPECT; an empty one counts as not set), what is
 * detected. klaw_init is optional: without it the same rules hold with nothing given.
 *
 *     klaw_error_info info;
 *     if (klaw_init(&(klaw_init_opts){.log_level = "info"}, &info) != KLAW_OK)
 *         fprintf(stderr, "%s\n", info.message);
 *
 * All functions: from any thread or fiber, also before and after klaw_run; they read small files of
 * /proc and /sys and use about 8 KiB of stack. */
#ifndef KLAW_CONFIG_H
#define KLAW_CONFIG_H

#include "klaw/log.h"

KLAW_BEGIN

/* The longest checkpoint path, in bytes without the NUL. */
#define KLAW_CONFIG_PATH_MAX 1023
/* Backend options at most; the longest key and value of one, in bytes without the NUL. */
#define KLAW_CONFIG_OPTIONS_MAX 64
#define KLAW_CONFIG_KEY_MAX 63
#define KLAW_CONFIG_VALUE_MAX 4096
/* The largest concurrency. */
#define KLAW_CONFIG_CONCURRENCY_MAX 256

/* Where a value came from. Numbers never change between versions. */
typedef enum klaw_source {
    KLAW_SOURCE_DETECTED = 0,    /* of the machine, or the default */
    KLAW_SOURCE_ENVIRONMENT = 1, /* a variable KLAW_… */
    KLAW_SOURCE_EXPLICIT = 2,    /* given to klaw_init */
} klaw_source;

/* The lower-case name of a source, e.g. "environment"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_source_name(klaw_source source);

/* One option of a backend: NUL-terminated, the key is not empty. */
typedef struct klaw_option {
    const char *key;
    const char *value;
} klaw_option;

/* What klaw_init is given; all zero: nothing, so environment and detection decide. Everything is
 * copied. */
typedef struct klaw_init_opts {
    /* "local" (this process) or "ray"; NULL: not given. Default "local". */
    const char *backend;
    /* Worker threads of a klaw_run that does not say, 1 to KLAW_CONFIG_CONCURRENCY_MAX; 0: not
     * given. Default: the usable processors, see klaw_machine. */
    uint32_t concurrency;
    /* "off", "error", "warn", "info", "debug" or "trace"; NULL: not given. Default: what
     * klaw_log_set_level set last, "off" if nothing. */
    const char *log_level;
    /* The folder of checkpoint stores; NULL: not given. A leading "~/" is the home folder. Default
     * ~/.klaw/checkpoints/. */
    const char *checkpoint_path;
    /* Options that only the chosen backend knows; "local" has none. NULL with n_options 0. */
    const klaw_option *options;
    size_t n_options;
    /* Open the process to inspection from outside, see klaw_inspect_open; false: not given. Default
     * no; KLAW_INSPECT is 1 or 0. */
    bool inspect;
} klaw_init_opts;

/* See klaw_init; opts_size is sizeof(klaw_init_opts) as the caller was compiled. */
KLAW_API KLAW_MUST klaw_err klaw_init_sized(const klaw_init_opts *opts, size_t opts_size,
                                            klaw_error_info *info);

/* Settles the configuration of this process and sets the log's level. Starts no thread but
 * that of inspection. What comes
 * from the environment is read now and stays. Again: OK when what is given is what holds already
 * (what is not given is not compared); nothing changes.
 * Errors: INVALID (a wrong value, given or in the environment; info->message names it and lists the
 * right ones), LIMIT (too long or too many), SYSTEM
 * (inspection was asked for and can't be had), EXISTS (set up already, and differently; the message
 * says in what), NOT_FOUND (no checkpoint path given and no home folder), NOMEM. On an error
 * nothing has changed. info may be NULL. */
static inline KLAW_MUST klaw_err klaw_init(const klaw_init_opts *opts, klaw_error_info *info) {
    return klaw_init_sized(opts, sizeof(klaw_init_opts), info);
}

/* Forgets what klaw_init settled: the environment and detection count again. Closes the process to
 * inspection. The log keeps its
 * level. Nothing happens when klaw_init was not called. */
KLAW_API void klaw_deinit(void);

/* What was found out about the machine, seen from this process. */
typedef struct klaw_machine {
    uint32_t online;       /* logical processors that are switched on */
    uint32_t allowed;      /* of these: what affinity and cpuset leave to the calling thread */
    uint32_t cores;        /* physical cores behind the allowed ones: hyperthreads count once */
    uint32_t quota_milli;  /* thousandths of a processor the tightest cgroup grants; 0: no limit */
    uint32_t usable;       /* allowed, or the quota rounded up where that is less; at least 1 */
    uint64_t memory;       /* bytes of main memory; 0: unknown */
    uint64_t memory_limit; /* the tightest cgroup's limit where less than `memory`, else `memory` */
} klaw_machine;

/* Fills *out. INVALID for NULL. What can't be read or makes no sense counts as no limit. */
KLAW_API KLAW_MUST klaw_err klaw_machine_get(klaw_machine *out);

/* The values in force. */
typedef struct klaw_config {
    char backend[16];
    uint32_t concurrency;
    klaw_log_level log_level;
    char checkpoint_path[KLAW_CONFIG_PATH_MAX + 1]; /* absolute, or as given; "~/" is resolved */
    size_t n_options;                               /* see klaw_config_option */
    bool initialized;                               /* by klaw_init */
    klaw_source backend_source;
    klaw_source concurrency_source;
    klaw_source log_level_source;
    klaw_source checkpoint_path_source;
    klaw_machine machine; /* now */
    bool inspect;         /* open to inspection, or to be */
    klaw_source inspect_source;
} klaw_config;

/* Fills *out with what holds now: after klaw_init what it settled, before it what it would settle
 * if nothing were given. Errors: as klaw_init, except EXISTS; INVALID for a NULL out. info may be
 * NULL. */
KLAW_API KLAW_MUST klaw_err klaw_config_get(klaw_config *out, klaw_error_info *info);

/* Backend option number `i` (from 0, sorted by key): copies key and value, each with its NUL, into
 * the caller's buffers; a NULL buffer is skipped. Errors: NOT_FOUND (no such number), LIMIT (a
 * buffer is too small; KLAW_CONFIG_KEY_MAX + 1 and KLAW_CONFIG_VALUE_MAX + 1 always do). */
KLAW_API KLAW_MUST klaw_err klaw_config_option(size_t i, char *key, size_t key_size, char *value,
                                               size_t value_size);

KLAW_END

#endif
