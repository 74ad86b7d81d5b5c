/* SPDX-License-Identifier: Apache-2.0 */
/* 11_inspect.c - what is alive in this process, and what is it waiting for?
 *
 * A snapshot is taken without stopping anybody. Names make it readable: give them to fibers, scopes
 * and channels. */
#include <klaw/klaw.h>

#include <string.h>

#include "check.h"

static klaw_err stuck(void *arg) {
    uint64_t value;
    return klaw_recv(arg, &value, KLAW_FOREVER);
}

/* How many fibers of this name wait in a receive? */
static int waiting(const klaw_snapshot *snap, const char *name) {
    size_t n;
    int found = 0;
    const klaw_fiber_info *fibers = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(fibers[i].name, name) == 0 && strcmp(fibers[i].waiting_on, "recv") == 0)
            found++;
    }
    return found;
}

static klaw_err first(void *arg) {
    (void)arg;
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_scope *scope;
    klaw_snapshot *snap = NULL;
    klaw_channel_opts opts = {.capacity = 5, .name = "orders"};
    CHECK(klaw_channel(&klaw_u64, &opts, &tx, &rx) == KLAW_OK);
    CHECK(klaw_scope_open(&(klaw_scope_opts){.name = "shop"}, &scope) == KLAW_OK);
    for (int i = 0; i < 3; i++)
        CHECK(klaw_spawn(NULL, stuck, rx, &(klaw_fiber_opts){.name = "seller"}, NULL) == KLAW_OK);

    /* They have to run before they can wait: look until they do. */
    int64_t limit = klaw_after(KLAW_S(5));
    do {
        klaw_snapshot_free(snap);
        CHECK(klaw_now() < limit && klaw_yield() == KLAW_OK);
        CHECK(klaw_snapshot_take(&snap) == KLAW_OK);
    } while (waiting(snap, "seller") < 3);

    size_t n;
    const klaw_channel_stats *channels = klaw_snapshot_channels(snap, &n);
    CHECK(n == 1 && strcmp(channels[0].name, "orders") == 0 && channels[0].capacity == 5);
    CHECK(channels[0].waiting_receivers == 3 && channels[0].queue_size == 0);

    char *json;
    CHECK(klaw_snapshot_json(snap, &json, NULL) == KLAW_OK);
    printf("%s\n", json);
    CHECK(strstr(json, "\"orders\"") && strstr(json, "\"shop\"") && strstr(json, "\"seller\""));
    klaw_snapshot_text_free(json);
    klaw_snapshot_free(snap);

    klaw_scope_cancel(scope, "seen enough");
    CHECK(klaw_scope_close(scope) == KLAW_CANCELLED);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    return KLAW_OK;
}

int main(void) {
    CHECK(klaw_run(first, NULL, NULL) == KLAW_OK);
    return 0;
}
