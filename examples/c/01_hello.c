/* SPDX-License-Identifier: Apache-2.0 */
/* 01_hello.c - a fiber, a channel, a message.
 *
 * klaw_run starts the runtime, runs one function as the first fiber and returns when every fiber
 * has ended. klaw_go starts another fiber. A channel connects them. */
#include <klaw/klaw.h>

#include "check.h"

/* A fiber is a function from a pointer to a klaw_err. A channel of `klaw_ptr` carries pointers. */
static klaw_err greeter(void *arg) {
    klaw_sender *tx = arg;
    const char *words[] = {"hello", "from", "a", "fiber"};
    klaw_err e = KLAW_OK;
    for (size_t i = 0; !e && i < 4; i++)
        e = klaw_send(tx, &words[i], KLAW_FOREVER); /* the element is *copied from* &words[i] */
    klaw_sender_unref(tx);                          /* the last sender goes: the channel closes */
    return e;
}

static klaw_err first(void *arg) {
    int *received = arg;
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_err e = klaw_channel(&klaw_ptr, NULL, &tx, &rx);
    if (e)
        return e;
    e = klaw_go(greeter, tx);
    if (e)
        klaw_sender_unref(tx); /* the fiber will not run: tx is still ours */

    /* Receive until the channel is closed *and* drained. Nothing is lost by closing early. */
    char *word;
    while (!e && (e = klaw_recv(rx, &word, KLAW_FOREVER)) == KLAW_OK) {
        printf("%s\n", word);
        ++*received;
    }
    klaw_receiver_unref(rx);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

int main(void) {
    int received = 0;
    klaw_err e = klaw_run(first, &received, NULL);
    if (e)
        fprintf(stderr, "failed: %s\n", klaw_err_text(e));
    CHECK(e == KLAW_OK && received == 4);
    return 0;
}
