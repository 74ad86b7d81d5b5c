/* SPDX-License-Identifier: Apache-2.0 */
/* err.c - the names and texts of the result codes.
 *
 * Both functions are async-signal-safe: constant tables and nothing else. Every code is its own
 * index; a number that is no code (an enum may hold any int) answers with a question mark instead
 * of reading past the table.
 *
 * Rejected: a registry to which upper layers add codes. Outcomes are few and named once (err.h). */
#include "klaw/err.h"

static const char *const names[] = {
#define NAME(name, number, text) [number] = "KLAW_" #name,
    KLAW_ERR_LIST(NAME)
#undef NAME
};

static const char *const texts[] = {
#define TEXT(name, number, text) [number] = text,
    KLAW_ERR_LIST(TEXT)
#undef TEXT
};

/* The list has no holes: a table has as many places as the list has lines. */
#define ONE(name, number, text) +1
_Static_assert(sizeof names / sizeof names[0] == (size_t)(0 KLAW_ERR_LIST(ONE)), "holes");
#undef ONE

static bool known(klaw_err e) {
    return (unsigned)e < sizeof names / sizeof names[0];
}

const char *klaw_err_name(klaw_err e) {
    return known(e) ? names[e] : "KLAW_?";
}

const char *klaw_err_text(klaw_err e) {
    return known(e) ? texts[e] : "unknown code";
}
