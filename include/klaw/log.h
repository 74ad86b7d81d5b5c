/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - structured records: silent by default, one relaxed load where nothing is logged.
 *
 *     klaw_log_set_level(KLAW_LEVEL_INFO);
 *     KLAW_LOG_INFO("listening", klaw_log_str("host", host), klaw_log_i64("port", port));
 *
 *     {"time":"2026-01-02T03:04:05.000000006Z","level":"info","msg":"listening","host":"::1", ...
 *     time=2026-01-02T03:04:05.000000006Z level=info msg=listening host=::1 port=80
 *
 * A record goes to a file descriptor as one line by one write(), so lines of many hosts never mix,
 * and to every hook. The current context is written into it (context.h). Nothing is allocated;
 * nothing parks: the write blocks the calling thread if the descriptor blocks. From any thread or
 * fiber, not from signal handlers.
 *
 * A line has at most KLAW_LOG_LINE_MAX bytes. Of a longer one strings are cut, what does not fit
 * is left out, and it ends with "truncated":true. A message is cut at KLAW_LOG_MESSAGE_MAX.
 * Bytes that are not UTF-8 are written as U+FFFD. */
#ifndef KLAW_LOG_H
#define KLAW_LOG_H

#include <string.h>

#include "klaw/context.h"

KLAW_BEGIN

/* The longest line, in bytes, newline included. */
#define KLAW_LOG_LINE_MAX 2048
/* The longest message, in bytes. */
#define KLAW_LOG_MESSAGE_MAX 1024
/* Hooks at a time. */
#define KLAW_LOG_HOOKS_MAX 8

/* How grave a record is; as a setting: the least grave one that is written. Numbers never
 * change. */
typedef enum klaw_log_level {
    KLAW_LEVEL_OFF = 0, /* only as a setting: nothing is written; the default */
    KLAW_LEVEL_ERROR = 1,
    KLAW_LEVEL_WARN = 2,
    KLAW_LEVEL_INFO = 3,
    KLAW_LEVEL_DEBUG = 4,
    KLAW_LEVEL_TRACE = 5
} klaw_log_level;

/* How a line is written. */
typedef enum klaw_log_format {
    KLAW_LOG_JSON = 0, /* one JSON object a line; the default */
    KLAW_LOG_LOGFMT = 1
} klaw_log_format;

/* What a field holds. */
typedef enum klaw_log_kind {
    KLAW_LOG_KIND_NONE = 0, /* left out */
    KLAW_LOG_KIND_STR = 1,
    KLAW_LOG_KIND_I64 = 2,
    KLAW_LOG_KIND_U64 = 3,
    KLAW_LOG_KIND_F64 = 4,
    KLAW_LOG_KIND_BOOL = 5
} klaw_log_kind;

/* One field of a record. Its strings need to live only until the call returns. Keys that klaw
 * writes by itself (time, level, msg, fiber, request_id, trace_id, span_id, truncated) are
 * better not used. */
typedef struct klaw_log_field {
    const char *key;
    klaw_log_kind kind;
    size_t size; /* STR: bytes */
    /* The value, by kind. */
    union {
        const char *str;
        int64_t i64;
        uint64_t u64;
        double f64;
        bool boolean;
    } v;
} klaw_log_field;

/* A field that is left out. */
static inline klaw_log_field klaw_log_none(void) {
    klaw_log_field f;
    f.key = "";
    f.kind = KLAW_LOG_KIND_NONE;
    f.size = 0;
    f.v.u64 = 0;
    return f;
}

/* `size` bytes of text. */
static inline klaw_log_field klaw_log_strn(const char *key, const char *v, size_t size) {
    klaw_log_field f = klaw_log_none();
    f.key = key;
    f.kind = KLAW_LOG_KIND_STR;
    f.size = size;
    f.v.str = v;
    return f;
}

/* Text; NULL leaves the field out. */
static inline klaw_log_field klaw_log_str(const char *key, const char *v) {
    return v ? klaw_log_strn(key, v, strlen(v)) : klaw_log_none();
}

/* A signed number. */
static inline klaw_log_field klaw_log_i64(const char *key, int64_t v) {
    klaw_log_field f = klaw_log_none();
    f.key = key;
    f.kind = KLAW_LOG_KIND_I64;
    f.v.i64 = v;
    return f;
}

/* An unsigned number. */
static inline klaw_log_field klaw_log_u64(const char *key, uint64_t v) {
    klaw_log_field f = klaw_log_none();
    f.key = key;
    f.kind = KLAW_LOG_KIND_U64;
    f.v.u64 = v;
    return f;
}

/* A number; NaN and the infinities are written as text. */
static inline klaw_log_field klaw_log_f64(const char *key, double v) {
    klaw_log_field f = klaw_log_none();
    f.key = key;
    f.kind = KLAW_LOG_KIND_F64;
    f.v.f64 = v;
    return f;
}

/* true or false. */
static inline klaw_log_field klaw_log_bool(const char *key, bool v) {
    klaw_log_field f = klaw_log_none();
    f.key = key;
    f.kind = KLAW_LOG_KIND_BOOL;
    f.v.boolean = v;
    return f;
}

/* The name of a result code. */
static inline klaw_log_field klaw_log_err(const char *key, klaw_err e) {
    return klaw_log_str(key, klaw_err_name(e));
}

/* What a hook gets. Everything is valid until the hook returns. */
typedef struct klaw_log_record {
    int64_t time; /* ns of CLOCK_REALTIME */
    klaw_log_level level;
    const char *message;
    const klaw_log_field *fields; /* with those of kind NONE */
    size_t n_fields;
    const char *fiber;                /* its name; NULL on a plain thread */
    uint64_t fiber_id;                /* 0 on a plain thread */
    const char *request_id;           /* NULL: none */
    const klaw_trace *trace;          /* NULL: none */
    const klaw_context_value *values; /* key/values of the context */
    size_t n_values;
} klaw_log_record;

/* The least grave level that is written. From anywhere, at any time, like the next ones. An
 * unknown number counts as OFF. */
KLAW_API void klaw_log_set_level(klaw_log_level level);
KLAW_API klaw_log_level klaw_log_get_level(void);
/* "off", "error", …, "trace"; "?" for a number that is none. Static. */
KLAW_API const char *klaw_log_level_name(klaw_log_level level);
/* The reverse, in lower or upper case. Errors: INVALID, *out is left alone. */
KLAW_API KLAW_MUST klaw_err klaw_log_level_parse(const char *name, klaw_log_level *out);

/* JSON lines or logfmt. */
KLAW_API void klaw_log_set_format(klaw_log_format format);
/* Where lines go: a descriptor, which stays the caller's; KLAW_NONE: nowhere (hooks alone). The
 * default is 2, stderr. */
KLAW_API void klaw_log_set_fd(int fd);
/* Lines that could not be written since the process began (descriptor closed, disk full, a pipe
 * nobody reads for 100 ms). */
KLAW_API uint64_t klaw_log_dropped(void);

/* Called for each record, on the host that logs: it must be short and must not wait; it may send
 * with NOWAIT. What it logs itself goes to the descriptor only, not to hooks. */
typedef void (*klaw_log_hook)(const klaw_log_record *record, void *user);

/* Adds a hook. release(user) (may be NULL) is called once, after the hook has been removed and
 * its last call has returned. *id is for klaw_log_hook_remove (may be NULL: the hook stays).
 * Errors: INVALID (no hook), LIMIT (KLAW_LOG_HOOKS_MAX are there). */
KLAW_API KLAW_MUST klaw_err klaw_log_hook_add(klaw_log_hook hook, void (*release)(void *user),
                                              void *user, uint64_t *id);
/* Removes a hook. Calls that have begun may still be running when it returns; release tells when
 * they are over. Errors: NOT_FOUND. From anywhere, hooks included. */
KLAW_API KLAW_MUST klaw_err klaw_log_hook_remove(uint64_t id);

/* Writes a record if its level is on. Fields are an array of n (NULL when n is 0). Use the
 * macros: they skip making the fields. */
KLAW_API void klaw_log_write(klaw_log_level level, const char *message,
                             const klaw_log_field *fields, size_t n);

/* The level that is set; private, klaw_log_on reads it. */
extern KLAW_API int klaw_log_level_;

/* Whether a record of this level would be written. One relaxed load. */
static inline bool klaw_log_on(klaw_log_level level) {
    return (int)level <= __atomic_load_n(&klaw_log_level_, __ATOMIC_RELAXED);
}

/* KLAW_LOG(level, "message", fields …): the fields are only computed when the level is on. */
#define KLAW_LOG(level, ...) KLAW_LOG_AT_(level, __VA_ARGS__, klaw_log_none())
#define KLAW_LOG_ERROR(...) KLAW_LOG(KLAW_LEVEL_ERROR, __VA_ARGS__)
#define KLAW_LOG_WARN(...) KLAW_LOG(KLAW_LEVEL_WARN, __VA_ARGS__)
#define KLAW_LOG_INFO(...) KLAW_LOG(KLAW_LEVEL_INFO, __VA_ARGS__)
#define KLAW_LOG_DEBUG(...) KLAW_LOG(KLAW_LEVEL_DEBUG, __VA_ARGS__)
#define KLAW_LOG_TRACE(...) KLAW_LOG(KLAW_LEVEL_TRACE, __VA_ARGS__)

/* Private: the part that needs a statement. The field at the end lets a record have none. */
#define KLAW_LOG_AT_(level, message, ...)                                             \
    do {                                                                              \
        if (klaw_log_on(level)) {                                                     \
            const klaw_log_field klaw_log_fields_[] = {__VA_ARGS__};                  \
            klaw_log_write(level, message, klaw_log_fields_,                          \
                           sizeof klaw_log_fields_ / sizeof klaw_log_fields_[0] - 1); \
        }                                                                             \
    } while (0)

KLAW_END

#endif
