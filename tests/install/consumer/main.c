/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - a stranger's program: what an installed klaw must let it do. Exits with 0 when it works. */
#include <klaw/klaw.h>
#include <string.h>

static klaw_err producer(void *arg) {
    klaw_sender *tx = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; i <= 100 && e == KLAW_OK; i++)
        e = klaw_send(tx, &i, KLAW_FOREVER);
    klaw_sender_unref(tx);
    return e;
}

static klaw_err sum(void *arg) {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_err e = klaw_channel(&klaw_u64, NULL, &tx, &rx);
    if (e)
        return e;
    e = klaw_go(producer, tx);
    if (e) {
        klaw_sender_unref(tx);
        goto out;
    }
    uint64_t value;
    while ((e = klaw_recv(rx, &value, KLAW_FOREVER)) == KLAW_OK)
        *(uint64_t *)arg += value;
    if (e == KLAW_CLOSED)
        e = KLAW_OK;
out:
    klaw_receiver_unref(rx);
    return e;
}

int main(void) {
    uint64_t total = 0;
    if (strcmp(klaw_version(), KLAW_VERSION) != 0)
        return 1;
    if (klaw_run(sum, &total, NULL) != KLAW_OK)
        return 2;
    return total == 5050 ? 0 : 3;
}
