/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - what a worker of a Ray cluster runs for wordcount --backend ray: the same counting, on a chunk
 * that came by the wire. Built, with words.c and far.c, as wordcount_ray.so. */
#include "../wordcount.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <klaw/klaw.h>

__attribute__((visibility("default"))) klaw_err wordcount_chunk(const void *text, size_t size,
                                                                klaw_blob **out);
__attribute__((visibility("default"))) klaw_err wordcount_worker(const void *arg, size_t size,
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

/* A chunk as it came: the tally of it, sent. */
static klaw_err count_and_send(klaw_sender *tx, klaw_blob *b) {
    far_head head;
    klaw_blob *counts = NULL, *answer = NULL;
    if (klaw_blob_size(b) < sizeof head)
        return KLAW_CORRUPT;
    memcpy(&head, klaw_blob_data(b), sizeof head);
    head.pid = (uint64_t)getpid();
    klaw_err e = wordcount_chunk((char *)klaw_blob_data(b) + sizeof head,
                                 klaw_blob_size(b) - sizeof head, &counts);
    while (!e) {
        e = klaw_blob_new(NULL, sizeof head + klaw_blob_size(counts), &answer);
        if (e)
            break;
        memcpy(klaw_blob_data(answer), &head, sizeof head);
        memcpy((char *)klaw_blob_data(answer) + sizeof head, klaw_blob_data(counts),
               klaw_blob_size(counts));
        e = klaw_send(tx, &answer, KLAW_FOREVER);
        if (!e)
            break;
        klaw_blob_unref(answer);
        if (e == KLAW_UNCERTAIN)
            e = KLAW_OK; /* once more: it has a number */
    }
    klaw_blob_unref(counts);
    return e;
}

/* A klaw_remote_fn: counts chunks until there are no more. Asking for the next one acknowledges the last,
 * whose tally is on disk by then. */
klaw_err wordcount_worker(const void *arg, size_t size, klaw_blob **out) {
    far_names names;
    klaw_error_info info;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    klaw_blob *b;
    (void)out;
    if (size != sizeof names)
        return KLAW_INVALID;
    memcpy(&names, arg, sizeof names);
    klaw_remote_opts opts = {.ahead = 1};
    klaw_err e = klaw_remote_get(names.chunks, &klaw_bytes, &opts, NULL, &rx, &info);
    e = e ? e : klaw_remote_get(names.tallies, &klaw_bytes, &opts, &tx, NULL, &info);
    while (!e && (e = klaw_recv(rx, &b, KLAW_FOREVER)) == KLAW_OK) {
        if (names.dies)
            raise(SIGKILL);
        e = count_and_send(tx, b);
        klaw_blob_unref(b);
    }
    klaw_receiver_unref(rx);
    klaw_sender_unref(tx);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}
