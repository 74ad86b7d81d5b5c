/* SPDX-License-Identifier: Apache-2.0 */
/* def.h - attributes that every public header uses. Nothing here is an interface of its own. */
#ifndef KLAW_DEF_H
#define KLAW_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define KLAW_API __attribute__((visibility("default")))
/* The result must be looked at: a klaw_err that is ignored is a bug. */
#define KLAW_MUST __attribute__((warn_unused_result))
#define KLAW_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define KLAW_API
#define KLAW_MUST
#define KLAW_PRINTF(fmt, first)
#endif

#ifdef __cplusplus
#define KLAW_BEGIN extern "C" {
#define KLAW_END }
#else
#define KLAW_BEGIN
#define KLAW_END
#endif

/* In options whose zero means "the default": this many, and really none. */
#define KLAW_NONE (-1)

#endif
