/* SPDX-License-Identifier: Apache-2.0 */
/* wheel.h - the timing wheel; each worker has one. */
#ifndef KLAWI_WHEEL_H
#define KLAWI_WHEEL_H

#include "base/link.h"
#include "base/lock.h"
#include "klaw/time.h"

#define KLAWI_WHEEL_LEVELS 8
#define KLAWI_WHEEL_SLOTS 64
#define KLAWI_TICK_SHIFT 16 /* 65.5 us a tick */

typedef struct klawi_wheel klawi_wheel;

/* fn NULL: the deadline of a host, `key` is its epoch. Else a callback, `key` is its argument. */
typedef struct klawi_timer {
    klawi_link link;               /* (L) the wheel's lock */
    int64_t when;                  /* (L) the time it is filed under, <= deadline */
    int64_t deadline;              /* (L) */
    uint64_t key;                  /* (L) */
    void (*fn)(void *);            /* (c) */
    _Atomic(klawi_wheel *) wheel;  /* (L of that wheel) NULL: not filed */
    _Atomic uint32_t begun, ended; /* (a) callbacks; one at a time writes */
} klawi_timer;

struct klawi_wheel {
    _Alignas(KLAWI_LINE) klawi_lock lock;
    int64_t tick;                      /* (L) everything before it has fired */
    bool dead;                         /* (L) its runtime has stopped */
    uint64_t count;                    /* (L) timers filed */
    uint64_t used[KLAWI_WHEEL_LEVELS]; /* (L) bit per slot that is not empty */
    _Atomic int64_t next;              /* (a) no timer fires before it; KLAW_FOREVER when none */
    klawi_link slot[KLAWI_WHEEL_LEVELS][KLAWI_WHEEL_SLOTS];
};

void klawi_wheel_init(klawi_wheel *wh, int64_t now);

/* Files or moves a host's deadline (P10). Only the host itself calls it; `own` is used when it is
 * not filed anywhere. */
void klawi_wheel_set_host(klawi_wheel *own, klawi_timer *t, uint64_t epoch, int64_t deadline);
/* Files or moves a callback timer, from anywhere. Returns the wheel it is on; NULL when `own` is dead. */
klawi_wheel *klawi_wheel_set(klawi_wheel *own, klawi_timer *t, int64_t deadline);
/* Takes it out. True when it was filed. */
bool klawi_wheel_remove(klawi_timer *t);
/* Takes it out and waits until its callback is not running. */
void klawi_wheel_drain(klawi_timer *t);
/* Fires what is due at `now`; returns how many fired. No lock held. */
unsigned klawi_wheel_run(klawi_wheel *wh, int64_t now);
/* Takes everything out, without firing, and refuses more: the runtime stops. */
void klawi_wheel_clear(klawi_wheel *wh);
/* Takes timers again: the next run. */
void klawi_wheel_revive(klawi_wheel *wh, int64_t now);
/* When the next one may be due. */
static inline int64_t klawi_wheel_next(klawi_wheel *wh) {
    return atomic_load_explicit(&wh->next, memory_order_relaxed);
}
/* Called for due host deadlines: claims (host, epoch) if it still waits. In park.c. */
bool klawi_host_timeout(klawi_timer *t, uint64_t epoch);

#endif
