/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - what a worker of a Ray cluster runs for wordcount --backend ray: the same counting, on a chunk
 * that came by the wire. Built, with words.c and far.c, as wordcount_ray.so. */
#include "../wordcount.h"

#include <stdlib.h>
#include <string.h>

#include <klaw/klaw.h>

__attribute__((visibility("default"))) klaw_err wordcount_chunk(const void *text, size_t size,
                                                                klaw_blob **out);

/* A klaw_remote_fn. */
klaw_err wordcount_chunk(const void *text, size_t size, klaw_blob **out) {
    table t;
    chunk c = {.text = malloc(size + CHUNK_PAD), .size = size};
    if (!c.text || !table_init(&t)) {
        free(c.text);
        return KLAW_NOMEM;
    }
    memcpy(c.text, text, size);
    klaw_err e = table_count(&t, &c) && far_encode(&t, out) ? KLAW_OK : KLAW_NOMEM;
    table_free(&t);
    free(c.text);
    return e;
}
