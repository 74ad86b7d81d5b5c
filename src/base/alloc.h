/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.h - the library's own malloc: hooks, failure injection and the count of live blocks lie
 * behind it. */
#ifndef KLAWI_BASE_ALLOC_H
#define KLAWI_BASE_ALLOC_H

#include "klaw/alloc.h"

/* As their namesakes of the C library, except that a size of 0 gives a block too. Each is one
 * allocation point. Not under a lock. */
void *klawi_alloc(size_t size) __attribute__((malloc, alloc_size(1)));
/* Zeroed; NULL when n * size does not fit. */
void *klawi_calloc(size_t n, size_t size) __attribute__((malloc, alloc_size(1, 2)));
/* NULL leaves the old block as it is. */
void *klawi_realloc(void *p, size_t size) __attribute__((alloc_size(2)));
/* NULL allowed. */
void klawi_free(void *p);

/* `align` is a power of two. Only for klawi_free_aligned. */
void *klawi_alloc_aligned(size_t align, size_t size) __attribute__((alloc_size(2)));
/* NULL allowed. */
void klawi_free_aligned(void *p);

/* One allocation point of another sort (mmap, thread creation) has been reached: true when it
 * has to fail. One relaxed load unless klaw_alloc_fail_at was ever called. */
bool klawi_fail_point(void);

/* fn gives cached memory back in klaw_alloc_trim; registering it again changes nothing. At most
 * 16. No allocation, no lock. */
void klawi_trim_register(void (*fn)(void));

#endif
