/* SPDX-License-Identifier: Apache-2.0 */
/* 13_ticker.c - something every so often, without drift and without a backlog.
 *
 * A ticker's element is the number of the tick. Ticks nobody took are merged into the latest one: a
 * slow reader sees a gap in the numbers and can tell how late it is, and never has to catch up. */
#include <klaw/klaw.h>

#include "check.h"

#define PERIOD KLAW_MS(5)

static klaw_err first(void *arg) {
    uint64_t *gaps = arg, tick = 0, before = 0;
    klaw_receiver *ticks;
    CHECK(klaw_ticker_open(0, &ticks) == KLAW_INVALID); /* at least a microsecond */
    int64_t start = klaw_now();
    CHECK(klaw_ticker_open(PERIOD, &ticks) == KLAW_OK);
    for (int i = 0; i < 10; i++) {
        CHECK(klaw_recv(ticks, &tick, klaw_after(KLAW_S(5))) == KLAW_OK);
        CHECK(tick > before);                                /* the numbers only grow */
        CHECK(klaw_now() - start >= (int64_t)tick * PERIOD); /* and are never early */
        *gaps += tick - before - 1;
        before = tick;
        if (i == 4)
            CHECK(klaw_sleep(klaw_after(4 * PERIOD)) == KLAW_OK); /* too slow for once */
    }
    klaw_receiver_unref(ticks); /* ends it */
    printf("tick %d came after %d ms\n", (int)tick, (int)((klaw_now() - start) / 1000000));
    return KLAW_OK;
}

int main(void) {
    uint64_t gaps = 0;
    CHECK(klaw_run(first, &gaps, NULL) == KLAW_OK);
    printf("%d ticks were merged\n", (int)gaps);
    CHECK(gaps >= 2);
    return 0;
}
