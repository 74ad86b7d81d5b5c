/* SPDX-License-Identifier: Apache-2.0 */
/* 03_select.c - wait for several things at once: two channels and a timer.
 *
 * klaw_select waits until one of its cases can go on and carries out exactly that one. The others
 * have no effect at all: no element is taken, none is sent. */
#include <klaw/klaw.h>

#include "check.h"

typedef struct producer {
    klaw_sender *tx;
    uint64_t n;
} producer;

static klaw_err produce(void *arg) {
    producer *p = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 0; !e && i < p->n; i++)
        e = klaw_send(p->tx, &i, KLAW_FOREVER);
    klaw_sender_unref(p->tx);
    return e;
}

static klaw_err consume(void *arg) {
    int *ticks = arg;
    klaw_receiver *apples, *pears;
    producer a = {.n = 300}, b = {.n = 700};
    uint64_t value, got[2] = {0, 0};
    CHECK(klaw_channel(&klaw_u64, NULL, &a.tx, &apples) == KLAW_OK);
    CHECK(klaw_channel(&klaw_u64, NULL, &b.tx, &pears) == KLAW_OK);
    CHECK(klaw_go(produce, &a) == KLAW_OK);
    CHECK(klaw_go(produce, &b) == KLAW_OK);

    int64_t start = klaw_now();
    klaw_case cases[] = {
        klaw_case_recv(apples, &value),
        klaw_case_recv(pears, &value),
        klaw_case_timer(klaw_after(KLAW_MS(50))),
    };
    while (cases[2].kind != KLAW_CASE_NONE) {
        size_t which;
        CHECK(klaw_select(cases, 3, &which, KLAW_FOREVER) == KLAW_OK);
        if (which == 2) {
            ++*ticks;
            cases[2].kind = KLAW_CASE_NONE; /* a case that is switched off is never ready */
        } else if (cases[which].err == KLAW_CLOSED) {
            cases[which].kind = KLAW_CASE_NONE; /* else it would be ready for ever */
        } else {
            got[which]++;
        }
    }
    printf("%d apples, %d pears, and the timer went off\n", (int)got[0], (int)got[1]);
    CHECK(got[0] == 300 && got[1] == 700);
    CHECK(klaw_now() - start >= KLAW_MS(50)); /* never early */

    /* With KLAW_NOWAIT a select has a default: EMPTY, when nothing is ready. */
    klaw_sender *tx;
    klaw_receiver *rx;
    size_t which;
    CHECK(klaw_channel(&klaw_u64, NULL, &tx, &rx) == KLAW_OK);
    klaw_case one = klaw_case_recv(rx, &value);
    CHECK(klaw_select(&one, 1, &which, KLAW_NOWAIT) == KLAW_EMPTY);

    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    klaw_receiver_unref(apples);
    klaw_receiver_unref(pears);
    return KLAW_OK;
}

int main(void) {
    int ticks = 0;
    CHECK(klaw_run(consume, &ticks, NULL) == KLAW_OK);
    CHECK(ticks == 1);
    return 0;
}
