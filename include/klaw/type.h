/* SPDX-License-Identifier: Apache-2.0 */
/* type.h - what a channel knows of its elements.
 *
 * Elements are moved by value, `size` bytes each (memcpy: a type may not depend on its own
 * address). A small struct travels inline, without an allocation. */
#ifndef KLAW_TYPE_H
#define KLAW_TYPE_H

#include "klaw/err.h"

KLAW_BEGIN

/* Reference-counted immutable bytes; the element of klaw_bytes is a `klaw_blob *`. */
typedef struct klaw_blob klaw_blob;

/* The largest element size a channel takes, in bytes; larger ones are KLAW_LIMIT (send a pointer).
 * */
#define KLAW_ELEM_MAX 65536

/* Describes an element type. A klaw_type is constant and must outlive every channel that uses it.
 * */
typedef struct klaw_type {
    /* For people and for type checks between processes; not NULL. */
    const char *name;
    /* Bytes per element, 1 to KLAW_ELEM_MAX. */
    size_t size;
    /* Destroys *elem where a channel has to (closed with elements inside). NULL: nothing to do.
     * Runs with no lock held; may call non-waiting functions of klaw, never waits. */
    void (*drop)(void *elem);
    /* Makes *to a second, independent element equal to *from (broadcast and watch need it for a
     * type with a drop). On an error *to is left alone. NULL for a type without drop: the bytes are
     * copied. Runs with no lock held. */
    klaw_err (*share)(const void *from, void *to);
    /* To and from bytes, for remote channels and stores; NULL when the type stays in the process.
     * */
    klaw_err (*encode)(const void *elem, klaw_blob **out);
    klaw_err (*decode)(const void *data, size_t size, void *elem);
} klaw_type;

/* uint64_t, copied. */
extern KLAW_API const klaw_type klaw_u64;
/* int64_t, copied. */
extern KLAW_API const klaw_type klaw_i64;
/* double, copied. */
extern KLAW_API const klaw_type klaw_f64;
/* void *, copied: the pointer travels, what it points to stays the users' business; no drop. */
extern KLAW_API const klaw_type klaw_ptr;
/* klaw_blob *, owned: dropping unreferences, sharing references. */
extern KLAW_API const klaw_type klaw_bytes;
/* The same for text: UTF-8, without a NUL at its end. What sets it apart is how others see it: in
 * Python a str where klaw_bytes is bytes. */
extern KLAW_API const klaw_type klaw_text;

/* A blob with a copy of `size` bytes at `data` (data may be NULL: zeroed), one reference, the
 * caller's. Errors: NOMEM; LIMIT when size is over 2^40; INVALID for a NULL out. From anywhere. */
KLAW_API KLAW_MUST klaw_err klaw_blob_new(const void *data, size_t size, klaw_blob **out);
/* The bytes, valid while a reference is held; writable only until the blob is first shared. */
KLAW_API void *klaw_blob_data(klaw_blob *b);
/* How many bytes. */
KLAW_API size_t klaw_blob_size(const klaw_blob *b);
/* One more reference; returns b. */
KLAW_API klaw_blob *klaw_blob_ref(klaw_blob *b);
/* One reference less; the last one frees. NULL is allowed. */
KLAW_API void klaw_blob_unref(klaw_blob *b);

KLAW_END

#endif
