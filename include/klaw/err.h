/* SPDX-License-Identifier: Apache-2.0 */
/* err.h - the result codes of the whole library, named by outcome.
 *
 * Every call that can fail returns a klaw_err and marks it must-use; results come through trailing
 * out-parameters, which are written only as each call documents. There is no errno and no hidden
 * last error. */
#ifndef KLAW_ERR_H
#define KLAW_ERR_H

#include "klaw/def.h"

KLAW_BEGIN

/* X(name, number, text): the one list; the enum, the texts and the Python exceptions come from it.
 * */
#define KLAW_ERR_LIST(X)                                           \
    X(OK, 0, "success")                                            \
    X(FULL, 1, "no room, and the caller would not wait")           \
    X(EMPTY, 2, "nothing there, and the caller would not wait")    \
    X(CLOSED, 3, "the channel or handle is closed")                \
    X(TIMEOUT, 4, "the deadline passed first")                     \
    X(CANCELLED, 5, "cancelled before it happened")                \
    X(LAGGED, 6, "the receiver fell behind and missed messages")   \
    X(EXISTS, 7, "it exists already")                              \
    X(NOT_FOUND, 8, "there is no such thing")                      \
    X(STOPPED, 9, "the runtime or actor is not running")           \
    X(LIMIT, 10, "over a documented limit")                        \
    X(TYPE, 11, "not supported for this element type")             \
    X(BACKEND, 12, "the backend failed")                           \
    X(CORRUPT, 13, "stored data is damaged")                       \
    X(INVALID, 14, "an argument is wrong")                         \
    X(UNCERTAIN, 15, "a remote send may or may not have happened") \
    X(NOMEM, 16, "out of memory")                                  \
    X(SYSTEM, 17, "the operating system refused")

/* Result codes. 0 is success; numbers never change between versions. */
typedef enum klaw_err {
#define KLAW_ERR_ENUM(name, number, text) KLAW_##name = number,
    KLAW_ERR_LIST(KLAW_ERR_ENUM)
#undef KLAW_ERR_ENUM
} klaw_err;

/* The name of a code as in the source, e.g. "KLAW_CLOSED"; "KLAW_?" for a number that is none.
 * Static; never NULL. From anywhere, signal handlers included. */
KLAW_API const char *klaw_err_name(klaw_err e);

/* One lower-case sentence for people, e.g. "the deadline passed first". Static; never NULL. From
 * anywhere. */
KLAW_API const char *klaw_err_text(klaw_err e);

/* Where a code alone does not help, a call takes one of these (or NULL) and fills it when it fails.
 * All strings are NUL-terminated and truncated to fit; unused ones are empty. sys is the operating
 * system's error number, or 0. */
typedef struct klaw_error_info {
    char message[256];
    char backend[32];
    char actor_name[64];
    char namespace_[64];
    int sys;
} klaw_error_info;

KLAW_END

#endif
