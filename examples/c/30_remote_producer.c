/* SPDX-License-Identifier: Apache-2.0 */
/* 30_remote_producer.c - a channel that C and Python share on a Ray cluster: this program sends, fibers of
 * it at once, and examples/python/31_remote_consumer.py receives, as many of them as are started.
 *
 *     ray start --head --node-ip-address=127.0.0.1
 *     python examples/python/31_remote_consumer.py readings &
 *     30_remote_producer readings 1000
 *
 * The name leads to the channel, whoever comes first makes it. An element is there when klaw_send has
 * returned OK; when the last sender has closed, the consumers receive what is left and end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <klaw/klaw.h>

#define SENDERS 4

typedef struct work {
    klaw_sender *tx;
    uint64_t from, to;
} work;

static klaw_err produce(void *arg) {
    work *w = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = w->from; !e && i < w->to; i++)
        e = klaw_send(w->tx, &i, KLAW_WITHIN(KLAW_S(60)));
    if (e) {
        klaw_error_info info;
        if (klaw_remote_sender_trouble(w->tx, &info) == KLAW_OK)
            fprintf(stderr, "%s %s\n", klaw_err_text(e), info.message);
    }
    return e;
}

static klaw_err produce_all(void *arg) {
    char **args = arg;
    static work works[SENDERS];
    klaw_error_info info;
    klaw_sender *tx;
    uint64_t n = strtoull(args[2], NULL, 10);
    klaw_err e = klaw_remote_channel(args[1], &klaw_u64, NULL, &tx, NULL, &info);
    if (e) {
        fprintf(stderr, "%s: %s\n", klaw_err_text(e), info.message);
        return e;
    }
    klaw_scope *scope;
    if ((e = klaw_scope_open(NULL, &scope)) != KLAW_OK)
        return e;
    for (uint64_t i = 0; !e && i < SENDERS; i++) {
        works[i] = (work){tx, 1 + n * i / SENDERS, 1 + n * (i + 1) / SENDERS};
        e = klaw_go(produce, &works[i]);
    }
    klaw_err first = klaw_scope_close(scope);
    klaw_sender_unref(tx); /* the last one here: the consumers learn that this program is through */
    if (!e && !first)
        printf("sent %" PRIu64 " numbers, their sum is %" PRIu64 "\n", n, n * (n + 1) / 2);
    return e ? e : first;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: 30_remote_producer CHANNEL HOW_MANY\n");
        return 2;
    }
    return klaw_run(produce_all, argv, NULL) == KLAW_OK ? 0 : 1;
}
