/* SPDX-License-Identifier: Apache-2.0 */
/* 31_remote_consumer.c - the reverse of 30: examples/python/30_remote_producer.py sends lines of text,
 * this program receives them, and counts their words.
 *
 *     python examples/python/30_remote_producer.py lines README.md &
 *     31_remote_consumer lines
 *
 * Each fiber has a receiver of its own: what it has received counts as received when it asks for the next
 * one. Were this program killed in the middle, the line would be delivered again, to another one. */
#include <ctype.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include <klaw/klaw.h>

#define COUNTERS 3

static klaw_receiver *lines;
static atomic_uint_fast64_t total_lines, total_words;

static uint64_t words_of(const char *text, size_t size) {
    uint64_t words = 0;
    for (size_t i = 0; i < size; i++)
        words += !isspace((unsigned char)text[i]) &&
                 (i + 1 == size || isspace((unsigned char)text[i + 1]));
    return words;
}

static klaw_err count(void *arg) {
    klaw_receiver *rx;
    klaw_blob *line;
    (void)arg;
    klaw_err e = klaw_receiver_clone(lines, &rx);
    if (e)
        return e;
    while ((e = klaw_recv(rx, &line, KLAW_FOREVER)) == KLAW_OK) {
        total_words += words_of(klaw_blob_data(line), klaw_blob_size(line));
        total_lines++;
        klaw_blob_unref(line);
    }
    klaw_receiver_unref(rx);
    return e == KLAW_CLOSED ? KLAW_OK : e; /* drained, and no sender is left */
}

static klaw_err count_all(void *name) {
    klaw_error_info info;
    klaw_scope *scope;
    klaw_err e = klaw_remote_channel(name, &klaw_text, NULL, NULL, &lines, &info);
    if (e) {
        fprintf(stderr, "%s: %s\n", klaw_err_text(e), info.message);
        return e;
    }
    if ((e = klaw_scope_open(NULL, &scope)) != KLAW_OK)
        return e;
    for (int i = 0; !e && i < COUNTERS; i++)
        e = klaw_go(count, NULL);
    klaw_err first = klaw_scope_close(scope);
    klaw_receiver_unref(lines);
    printf("received %" PRIu64 " lines, %" PRIu64 " words\n", (uint64_t)total_lines,
           (uint64_t)total_words);
    return e ? e : first;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: 31_remote_consumer CHANNEL\n");
        return 2;
    }
    return klaw_run(count_all, argv[1], NULL) == KLAW_OK ? 0 : 1;
}
