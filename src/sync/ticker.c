/* SPDX-License-Identifier: Apache-2.0 */
/* ticker.c - a receiver that gets a number every period.
 *
 * A timer sends into a channel of capacity 1 and arms itself for the next multiple of the period; a
 * tick that finds the slot taken is merged into it. The receiver's close stops the timer (a hook of
 * the channel), waits for a callback that runs, and frees the ticker. */
#include "base/alloc.h"
#include "sync/chan.h"

/* About 146 years: with today's clock no sum overflows. */
#define PERIOD_MAX (INT64_MAX / 2)

typedef struct ticker {
    klaw_timer timer;
    klaw_sender *tx;
    int64_t period, next;
    uint64_t count;
} ticker;

static void on_tick(void *arg) {
    ticker *t = arg;
    int64_t now = klawi_clock();
    uint64_t passed = now > t->next ? (uint64_t)((now - t->next) / t->period) : 0;
    t->count += 1 + passed;
    t->next += (int64_t)(1 + passed) * t->period;
    klaw_err e = klaw_send(t->tx, &t->count, KLAW_NOWAIT);
    if ((e == KLAW_OK || e == KLAW_FULL) && klaw_timer_arm(&t->timer, t->next) != KLAW_OK)
        t->next = 0; /* the run is over, and the ticker with it */
}

static void on_closed(void *arg) {
    ticker *t = arg;
    klaw_timer_drain(&t->timer);
    klaw_sender_unref(t->tx);
    klawi_free(t);
}

klaw_err klaw_ticker_open(int64_t period, klaw_receiver **out) {
    if (!out || period < KLAW_US(1))
        return KLAW_INVALID;
    if (period > PERIOD_MAX)
        period = PERIOD_MAX;
    if (!klawi_wheel_for(klawi_ctx_get()))
        return KLAW_STOPPED;
    ticker *t = klawi_calloc(1, sizeof *t);
    if (!t)
        return KLAW_NOMEM;
    klaw_channel_opts o = {.capacity = 1, .name = "ticker"};
    klaw_err e = klaw_channel(&klaw_u64, &o, &t->tx, out);
    if (e) {
        klawi_free(t);
        return e;
    }
    t->period = period;
    t->next = klawi_clock() + period;
    klaw_timer_init(&t->timer, on_tick, t);
    klawi_channel_on_receivers_closed(t->tx, on_closed, t);
    e = klaw_timer_arm(&t->timer, t->next);
    if (e)
        klaw_receiver_unref(*out);
    return e;
}
