/* SPDX-License-Identifier: Apache-2.0 */
/* chans.h - short words for tests of channels: pairs of endpoints, operations on helper hosts,
 * elements that count their drops. */
#ifndef KLAW_TESTS_SUPPORT_CHANS_H
#define KLAW_TESTS_SUPPORT_CHANS_H

#include <string.h>

#include "support/worlds.h"

#define SOON KLAW_WITHIN(CHECK_PATIENCE)
#define PAST ((klaw_deadline)1)

typedef struct pair {
    klaw_sender *tx;
    klaw_receiver *rx;
} pair;

static inline pair chan_of(const klaw_type *type, int64_t capacity) {
    pair p = {NULL, NULL};
    klaw_channel_opts opts = {.capacity = capacity};
    OK(klaw_channel(type, &opts, &p.tx, &p.rx));
    CHECK(p.tx && p.rx);
    return p;
}
static inline pair chan(int64_t capacity) {
    return chan_of(&klaw_u64, capacity);
}
static inline void pair_free(pair p) {
    klaw_sender_unref(p.tx);
    klaw_receiver_unref(p.rx);
}

static inline klaw_channel_stats stats_of(pair p) {
    klaw_channel_stats s;
    if (p.tx)
        OK(klaw_sender_stats(p.tx, &s));
    else
        OK(klaw_receiver_stats(p.rx, &s));
    return s;
}
#define WAITING_SENDERS(p) (stats_of(p).waiting_senders)
#define WAITING_RECEIVERS(p) (stats_of(p).waiting_receivers)

/* One number. */
static inline klaw_err put(klaw_sender *tx, uint64_t v, klaw_deadline d) {
    return klaw_send(tx, &v, d);
}
static inline klaw_err take(klaw_receiver *rx, uint64_t *v, klaw_deadline d) {
    return klaw_recv(rx, v, d);
}
/* The number that is next; it has to be there or come. */
static inline uint64_t next_of(klaw_receiver *rx) {
    uint64_t v = 0;
    OK(klaw_recv(rx, &v, SOON));
    return v;
}
/* What a receive answers that gets nothing. */
static inline klaw_err nothing_of(klaw_receiver *rx, klaw_deadline d) {
    uint64_t v = 0xdead;
    klaw_err e = klaw_recv(rx, &v, d);
    SAME(v, 0xdead);
    return e;
}

/* --- operations on helper hosts --- */
typedef struct op {
    job job;
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_deadline deadline;
    uint64_t v[64];
    size_t n, got;
    klaw_permit permit;
} op;

/* Its answer; the operation is over and freed. */
static inline klaw_err op_end(op *o) {
    klaw_err e = job_end(&o->job);
    free(o);
    return e;
}
/* It was a receive that got this value. */
static inline uint64_t op_value(op *o) {
    OK(job_end(&o->job));
    uint64_t v = o->v[0];
    free(o);
    return v;
}
static inline void op_cancel(op *o) {
    CHECK(o->job.fiber);
    klaw_fiber_cancel(o->job.fiber);
}

static inline klaw_err op_send(void *arg) {
    op *o = arg;
    uint64_t before = o->v[0];
    klaw_err e = klaw_send(o->tx, o->v, o->deadline);
    SAME(o->v[0], before);
    return e;
}
static inline klaw_err op_recv(void *arg) {
    op *o = arg;
    o->v[0] = 0xdead;
    klaw_err e = klaw_recv(o->rx, o->v, o->deadline);
    CHECK(e == KLAW_OK || o->v[0] == 0xdead);
    return e;
}
static inline klaw_err op_send_batch(void *arg) {
    op *o = arg;
    return klaw_send_batch(o->tx, o->v, o->n, o->deadline);
}
static inline klaw_err op_recv_batch(void *arg) {
    op *o = arg;
    return klaw_recv_batch(o->rx, o->v, o->n, &o->got, o->deadline);
}
static inline klaw_err op_reserve(void *arg) {
    op *o = arg;
    return klaw_reserve(o->tx, &o->permit, o->deadline);
}

static inline op *op_with(op *o, klaw_err (*fn)(void *)) {
    job_start(&o->job, fn, o);
    return o;
}
static inline op *op_new(klaw_sender *tx, klaw_receiver *rx, size_t n, klaw_deadline d) {
    op *o = calloc(1, sizeof *o);
    CHECK(o && n <= 64);
    o->tx = tx;
    o->rx = rx;
    o->n = n;
    o->deadline = d;
    return o;
}
static inline op *sends(klaw_sender *tx, uint64_t v, klaw_deadline d) {
    op *o = op_new(tx, NULL, 1, d);
    o->v[0] = v;
    return op_with(o, op_send);
}
static inline op *receives(klaw_receiver *rx, klaw_deadline d) {
    return op_with(op_new(NULL, rx, 1, d), op_recv);
}
/* n numbers from `first` on. */
static inline op *sends_batch(klaw_sender *tx, uint64_t first, size_t n, klaw_deadline d) {
    op *o = op_new(tx, NULL, n, d);
    for (size_t i = 0; i < n; i++)
        o->v[i] = first + i;
    return op_with(o, op_send_batch);
}
static inline op *receives_batch(klaw_receiver *rx, size_t max, klaw_deadline d) {
    return op_with(op_new(NULL, rx, max, d), op_recv_batch);
}
static inline op *reserves(klaw_sender *tx, klaw_deadline d) {
    return op_with(op_new(tx, NULL, 1, d), op_reserve);
}

/* --- elements that count --- */
#define COUNTED_MAX 65536
/* Owned: from counted_make until it is dropped, by the channel or by counted_done. */
typedef struct counted {
    uint64_t id;
} counted;
static _Atomic uint8_t counted_drops[COUNTED_MAX];
static _Atomic uint64_t counted_live;
static _Atomic uint64_t counted_ids;
/* The next this many shares fail with NOMEM. */
static _Atomic int counted_fail_shares;

static inline void counted_drop(void *elem) {
    counted *c = elem;
    CHECK(c->id < COUNTED_MAX);
    SAME(atomic_fetch_add(&counted_drops[c->id], 1), 0); /* once */
    atomic_fetch_sub(&counted_live, 1);
}
static inline counted counted_make(void) {
    counted c = {atomic_fetch_add(&counted_ids, 1) % COUNTED_MAX};
    atomic_store(&counted_drops[c.id], 0);
    atomic_fetch_add(&counted_live, 1);
    return c;
}
static inline klaw_err counted_share(const void *from, void *to) {
    const counted *f = from;
    SAME(atomic_load(&counted_drops[f->id]), 0); /* still alive */
    if (atomic_load(&counted_fail_shares) > 0) {
        atomic_fetch_sub(&counted_fail_shares, 1);
        return KLAW_NOMEM;
    }
    counted c = counted_make();
    memcpy(to, &c, sizeof c);
    return KLAW_OK;
}
static const klaw_type counted_type = {
    .name = "counted", .size = sizeof(counted), .drop = counted_drop, .share = counted_share};

static inline bool counted_dropped(counted c) {
    return atomic_load(&counted_drops[c.id]) != 0;
}
static inline uint64_t counted_alive(void) {
    return atomic_load(&counted_live);
}

#endif
