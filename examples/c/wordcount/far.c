/* SPDX-License-Identifier: Apache-2.0 */
/* far.c - has a chunk counted by a worker of a Ray cluster. The worker gets the text and sends back a
 * table: for each word its count (8 bytes), its size (4) and its bytes, in the machine's byte order. */
#include "wordcount.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <klaw/klaw.h>

#define LIBRARY "wordcount_ray.so"

bool far_encode(const table *t, klaw_blob **out) {
    size_t size = 0;
    for (size_t i = 0; i <= t->mask; i++)
        size += t->slots[i].count ? 12 + (size_t)t->slots[i].size : 0;
    if (klaw_blob_new(NULL, size, out))
        return false;
    char *at = klaw_blob_data(*out);
    for (size_t i = 0; i <= t->mask; i++) {
        const slot *s = &t->slots[i];
        uint64_t count = s->count;
        uint32_t length = (uint32_t)s->size;
        if (!count)
            continue;
        memcpy(at, &count, 8);
        memcpy(at + 8, &length, 4);
        memcpy(at + 12, table_text(t, s), length);
        at += 12 + length;
    }
    return true;
}

bool far_decode(table *t, const void *bytes, size_t size) {
    const char *at = bytes, *end = at + size;
    while (at < end) {
        uint64_t count;
        uint32_t length;
        if (end - at < 12)
            return false;
        memcpy(&count, at, 8);
        memcpy(&length, at + 8, 4);
        at += 12;
        if (count == 0 || length == 0 || (size_t)(end - at) < length)
            return false;
        if (!table_add(t, at, length, count))
            return false;
        at += length;
    }
    return true;
}

bool far_library(char *out, size_t size) {
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n <= 0)
        return false;
    out[n] = 0;
    char *name = strrchr(out, '/') + 1;
    return (size_t)snprintf(name, size - (size_t)(name - out), "%s", LIBRARY) <
           size - (size_t)(name - out);
}

int far_count(table *t, const chunk *c) {
    static atomic_bool told;
    char path[4096];
    klaw_error_info info;
    klaw_blob *out = NULL;
    if (!far_library(path, sizeof path))
        return KLAW_SYSTEM;
    /* A worker that dies is Ray's to replace; what fails for good is the supervisor's. */
    klaw_err e =
        klaw_remote_task(path, "wordcount_chunk", c->text, c->size,
                         &(klaw_remote_task_opts){.retries = 5}, &out, KLAW_FOREVER, &info);
    if (e && e != KLAW_CANCELLED && !atomic_exchange(&told, true))
        dprintf(STDERR_FILENO, "wordcount: a chunk was not counted: %s\n", info.message);
    if (e)
        return e;
    bool added = out && far_decode(t, klaw_blob_data(out), klaw_blob_size(out));
    klaw_blob_unref(out);
    return added ? KLAW_OK : KLAW_NOMEM;
}
