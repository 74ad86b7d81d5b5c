/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_model.c - random operations on every kind of channel against a naive oracle.
 *
 * One thread, nothing waits, so the oracle says exactly what each call has to answer. Elements
 * count their drops: at the end of each run nothing is alive. A channel that loses, doubles or
 * swaps an element or forgets a close (the faults at the end) has to be found out, else the
 * checker itself is broken.
 *
 *     KLAW_SEED=n     the same operations again
 *     KLAW_TEST_SLICE ci, soak, valgrind */
#include "support/chans.h"
#include "support/random.h"

#define ENDS 4
#define PERMITS 3
#define OPS 150
#define BATCH 6
#define QUEUE (OPS * BATCH)

/* --- elements: a value, and the account of drops --- */
typedef struct item {
    counted c;
    uint64_t v;
} item;
static void item_drop(void *elem) {
    counted_drop(&((item *)elem)->c);
}
static klaw_err item_share(const void *from, void *to) {
    const item *f = from;
    item made = {.v = f->v};
    SAME(atomic_load(&counted_drops[f->c.id]), 0);
    made.c = counted_make();
    memcpy(to, &made, sizeof made);
    return KLAW_OK;
}
static const klaw_type item_type = {
    .name = "item", .size = sizeof(item), .drop = item_drop, .share = item_share};

enum kind { MPMC, ONESHOT, BROADCAST, WATCH };
/* What the channel under test does wrong on purpose. */
enum fault { NONE, LOSES_ONE, DOUBLES_ONE, SWAPS_TWO, FORGETS_CLOSE, FAULTS };

typedef struct model {
    enum kind kind;
    int64_t cap;
    klaw_lag lag;
    rng g;
    enum fault fault;
    uint64_t sends; /* of this run, to place the fault */
    item held;
    bool holding;
    char why[160];
    klaw_sender *tx[ENDS];
    klaw_receiver *rx[ENDS];
    bool tx_open[ENDS], rx_open[ENDS];
    klaw_permit permits[PERMITS];
    int permit_count;
    /* the oracle: queues (the first is everybody's, but for broadcast) */
    uint64_t q[ENDS][QUEUE];
    uint64_t n[ENDS];
    uint64_t missed[ENDS];
    klaw_lag lags[ENDS];
    bool cut[ENDS];
    bool sent; /* oneshot */
    uint64_t latest, version, seen[ENDS];
    uint64_t next_value, total_sent;
} model;

static bool differ(model *m, const char *what, uint64_t got, uint64_t want) {
    snprintf(m->why, sizeof m->why, "%s: %" PRIu64 " instead of %" PRIu64, what, got, want);
    return false;
}
#define AGREE(what, got, want)                                         \
    do {                                                               \
        if ((uint64_t)(got) != (uint64_t)(want))                       \
            return differ(m, what, (uint64_t)(got), (uint64_t)(want)); \
    } while (0)

/* --- the oracle --- */
static int open_ends(const bool *open) {
    int n = 0;
    for (int i = 0; i < ENDS; i++)
        n += open[i];
    return n;
}
static uint64_t room(const model *m) {
    if (m->cap == KLAW_UNBOUNDED)
        return QUEUE;
    uint64_t used = m->n[0] + (uint64_t)m->permit_count;
    return m->cap == KLAW_RENDEZVOUS || used >= (uint64_t)m->cap ? 0 : (uint64_t)m->cap - used;
}

static klaw_err want_send(const model *m, int i, size_t n) {
    if (!m->tx_open[i])
        return KLAW_CLOSED;
    if (m->kind == WATCH)
        return KLAW_OK;
    if (m->kind == BROADCAST) {
        for (int k = 0; k < ENDS; k++)
            if (m->rx_open[k] && !m->cut[k] && m->lags[k] == KLAW_LAG_WAIT &&
                m->n[k] == (uint64_t)m->cap)
                return KLAW_FULL;
        return KLAW_OK;
    }
    if (open_ends(m->rx_open) == 0 || m->sent)
        return KLAW_CLOSED;
    return m->kind == ONESHOT || room(m) >= n ? KLAW_OK : KLAW_FULL;
}

static void pop(model *m, int i, uint64_t n) {
    memmove(m->q[i], m->q[i] + n, (m->n[i] - n) * sizeof m->q[i][0]);
    m->n[i] -= n;
}

static void did_send(model *m, uint64_t v) {
    m->total_sent++;
    if (m->kind == ONESHOT)
        m->sent = true;
    if (m->kind == WATCH) {
        m->latest = v;
        m->version++;
        return;
    }
    for (int i = 0; i < (m->kind == BROADCAST ? ENDS : 1); i++) {
        if (m->kind == BROADCAST && (!m->rx_open[i] || m->cut[i]))
            continue;
        if (m->kind == BROADCAST && m->n[i] == (uint64_t)m->cap) {
            if (m->lags[i] == KLAW_LAG_DISCONNECT) {
                m->cut[i] = true;
                m->missed[i] += m->n[i] + 1;
                m->n[i] = 0;
                continue;
            }
            pop(m, i, 1);
            m->missed[i]++;
        }
        m->q[i][m->n[i]++] = v;
    }
}

static int queue_of(const model *m, int i) {
    return m->kind == BROADCAST ? i : 0;
}

static klaw_err want_recv(const model *m, int i, uint64_t *v) {
    bool tx_closed = open_ends(m->tx_open) == 0 && m->permit_count == 0;
    int q = queue_of(m, i);
    if (!m->rx_open[i])
        return KLAW_CLOSED;
    if (m->missed[i])
        return KLAW_LAGGED;
    if (m->cut[i])
        return KLAW_CLOSED;
    if (m->kind == WATCH && m->seen[i] != m->version) {
        *v = m->latest;
        return KLAW_OK;
    }
    if (m->n[q] > 0) {
        *v = m->q[q][0];
        return KLAW_OK;
    }
    return tx_closed || m->sent ? KLAW_CLOSED : KLAW_EMPTY;
}

static void did_recv(model *m, int i, klaw_err e) {
    if (e == KLAW_LAGGED)
        m->missed[i] = 0;
    if (e != KLAW_OK)
        return;
    if (m->kind == WATCH)
        m->seen[i] = m->version;
    else
        pop(m, queue_of(m, i), 1);
}

static void did_close_rx(model *m, int i) {
    m->rx_open[i] = false;
    if (m->kind == BROADCAST) {
        m->n[i] = m->missed[i] = 0;
        m->cut[i] = false;
    } else if (open_ends(m->rx_open) == 0) {
        m->n[0] = 0;
    }
}

/* --- the channel, with its faults --- */
static item item_new(model *m) {
    item it = {.v = ++m->next_value};
    it.c = counted_make();
    return it;
}

static klaw_err real_send(model *m, int i, item *it) {
    bool now = ++m->sends == 6;
    if (now && m->fault == LOSES_ONE) {
        item_drop(it);
        return KLAW_OK;
    }
    if (now && m->fault == DOUBLES_ONE) {
        item twin = {.v = it->v, .c = counted_make()};
        if (klaw_send(m->tx[i], &twin, KLAW_NOWAIT) != KLAW_OK)
            item_drop(&twin);
    }
    if (now && m->fault == SWAPS_TWO && !m->holding) {
        m->held = *it;
        m->holding = true;
        return KLAW_OK;
    }
    klaw_err e = klaw_send(m->tx[i], it, KLAW_NOWAIT);
    if (e == KLAW_OK && m->holding) {
        m->holding = false;
        if (klaw_send(m->tx[i], &m->held, KLAW_NOWAIT) != KLAW_OK)
            item_drop(&m->held);
    }
    return e;
}

/* --- operations: each asks the oracle first, then the channel --- */
static int some_end(model *m, void *const *ends) {
    for (;;) {
        int i = (int)rng_below(&m->g, ENDS);
        if (ends[i])
            return i;
        if (!ends[0] && !ends[1] && !ends[2] && !ends[3])
            return -1;
    }
}
#define SOME_TX(m) some_end(m, (void *const *)(m)->tx)
#define SOME_RX(m) some_end(m, (void *const *)(m)->rx)

static bool do_send(model *m) {
    int i = SOME_TX(m);
    if (i < 0)
        return true;
    item it = item_new(m);
    klaw_err want = want_send(m, i, 1), e = real_send(m, i, &it);
    if (e != KLAW_OK) {
        CHECK(!counted_dropped(it.c));
        item_drop(&it);
    }
    AGREE("send", e, want);
    if (e == KLAW_OK)
        did_send(m, it.v);
    return true;
}

static bool do_recv(model *m) {
    int i = SOME_RX(m);
    uint64_t v = 0;
    item it = {.v = 0};
    if (i < 0)
        return true;
    klaw_err want = want_recv(m, i, &v);
    klaw_err e = klaw_recv(m->rx[i], &it, KLAW_NOWAIT);
    if (e == KLAW_OK)
        item_drop(&it);
    AGREE("recv", e, want);
    AGREE("value", it.v, v);
    if (e == KLAW_LAGGED)
        AGREE("missed", klaw_receiver_missed(m->rx[i]), m->missed[i]);
    did_recv(m, i, e);
    return true;
}

static bool do_send_batch(model *m) {
    item it[BATCH];
    int i = SOME_TX(m);
    size_t n = 1 + rng_below(&m->g, BATCH);
    if (i < 0)
        return true;
    klaw_err want = want_send(m, i, n);
    if (m->kind != MPMC || m->cap == KLAW_RENDEZVOUS)
        want = KLAW_INVALID;
    else if (m->cap > 0 && n > (uint64_t)m->cap)
        want = KLAW_LIMIT;
    for (size_t k = 0; k < n; k++)
        it[k] = item_new(m);
    klaw_err e = klaw_send_batch(m->tx[i], it, n, KLAW_NOWAIT);
    for (size_t k = 0; k < n; k++) {
        if (e == KLAW_OK)
            did_send(m, it[k].v);
        else
            item_drop(&it[k]);
    }
    AGREE("send_batch", e, want);
    return true;
}

static bool do_recv_batch(model *m) {
    item it[BATCH];
    size_t got = 77, max = 1 + rng_below(&m->g, BATCH);
    int i = SOME_RX(m);
    uint64_t v = 0;
    if (i < 0)
        return true;
    klaw_err want = want_recv(m, i, &v);
    klaw_err e = klaw_recv_batch(m->rx[i], it, max, &got, KLAW_NOWAIT);
    for (size_t k = 0; e == KLAW_OK && k < got; k++)
        item_drop(&it[k]);
    AGREE("recv_batch", e, want);
    if (e != KLAW_OK) {
        AGREE("got", got, 0);
        did_recv(m, i, e);
        return true;
    }
    size_t k = 0;
    for (; k < max && want_recv(m, i, &v) == KLAW_OK; k++) {
        if (k < got)
            AGREE("batch value", it[k].v, v);
        did_recv(m, i, KLAW_OK);
    }
    AGREE("got", got, k);
    return true;
}

static bool do_permit(model *m) {
    int i = SOME_TX(m);
    if (m->kind != MPMC || m->cap == KLAW_RENDEZVOUS)
        return true;
    if (m->permit_count < PERMITS && i >= 0 && rng_one_in(&m->g, 2)) {
        klaw_err want = want_send(m, i, 1);
        klaw_err e = klaw_reserve(m->tx[i], &m->permits[m->permit_count], KLAW_NOWAIT);
        if (e == KLAW_OK)
            m->permit_count++;
        AGREE("reserve", e, want);
        return true;
    }
    if (m->permit_count == 0)
        return true;
    klaw_permit *p = &m->permits[--m->permit_count];
    if (rng_one_in(&m->g, 2)) {
        klaw_permit_drop(p);
        return true;
    }
    item it = item_new(m);
    klaw_err want = open_ends(m->rx_open) ? KLAW_OK : KLAW_CLOSED, e = klaw_permit_send(p, &it);
    if (e == KLAW_OK)
        did_send(m, it.v);
    else
        item_drop(&it);
    AGREE("permit_send", e, want);
    return true;
}

static bool do_clone_tx(model *m) {
    int i = SOME_TX(m), k = 0;
    while (k < ENDS && m->tx[k])
        k++;
    if (i < 0 || k == ENDS)
        return true;
    klaw_err want = m->kind == ONESHOT ? KLAW_INVALID : m->tx_open[i] ? KLAW_OK : KLAW_CLOSED;
    klaw_err e = klaw_sender_clone(m->tx[i], &m->tx[k]);
    m->tx_open[k] = e == KLAW_OK;
    if (want != KLAW_INVALID || m->tx_open[i])
        AGREE("sender_clone", e, want);
    return true;
}

static bool do_clone_rx(model *m) {
    int i = SOME_RX(m), t = SOME_TX(m), k = 0;
    bool subscribe = rng_one_in(&m->g, 2) && m->kind >= BROADCAST && t >= 0;
    while (k < ENDS && m->rx[k])
        k++;
    if (k == ENDS || (!subscribe && i < 0))
        return true;
    klaw_lag lag = (klaw_lag)rng_below(&m->g, 4);
    klaw_err e, want;
    if (subscribe) {
        want = m->tx_open[t] ? KLAW_OK : KLAW_CLOSED;
        e = m->kind == WATCH ? klaw_watch_subscribe(m->tx[t], &m->rx[k])
                             : klaw_broadcast_subscribe(m->tx[t], lag, &m->rx[k]);
    } else {
        want = m->kind == ONESHOT ? KLAW_INVALID : m->rx_open[i] ? KLAW_OK : KLAW_CLOSED;
        e = klaw_receiver_clone(m->rx[i], &m->rx[k]);
        if (m->kind == ONESHOT && !m->rx_open[i])
            return e != KLAW_OK;
    }
    AGREE("receiver_clone", e, want);
    if (e != KLAW_OK)
        return true;
    m->rx_open[k] = true;
    if (m->kind == WATCH)
        m->seen[k] = subscribe ? m->version - 1 : m->seen[i];
    if (m->kind != BROADCAST)
        return true;
    m->lags[k] = subscribe ? (lag ? lag : m->lag) : m->lags[i];
    m->missed[k] = subscribe ? 0 : m->missed[i];
    m->cut[k] = subscribe ? false : m->cut[i];
    m->n[k] = subscribe ? 0 : m->n[i];
    memcpy(m->q[k], m->q[i < 0 ? k : i], m->n[k] * sizeof m->q[k][0]);
    return true;
}

static bool do_close(model *m) {
    bool forget = m->fault == FORGETS_CLOSE;
    if (rng_one_in(&m->g, 2)) {
        int i = SOME_TX(m);
        if (i < 0)
            return true;
        m->tx_open[i] = false;
        if (rng_one_in(&m->g, 2) && !m->permit_count) { /* a permit needs its sender */
            klaw_sender_unref(m->tx[i]);
            m->tx[i] = NULL;
        } else if (!forget) {
            klaw_sender_close(m->tx[i]);
        }
        return true;
    }
    int i = SOME_RX(m);
    if (i < 0)
        return true;
    if (m->rx_open[i])
        did_close_rx(m, i);
    if (rng_one_in(&m->g, 2)) {
        klaw_receiver_unref(m->rx[i]);
        m->rx[i] = NULL;
    } else if (!forget) {
        klaw_receiver_close(m->rx[i]);
    }
    return true;
}

static bool do_select(model *m) {
    enum { CASES = 4 };
    klaw_case c[CASES];
    item it[CASES];
    int end[CASES];
    klaw_err want[CASES];
    uint64_t v[CASES] = {0};
    bool ready = false;
    size_t chosen = 99;
    for (int k = 0; k < CASES; k++) {
        bool send = rng_one_in(&m->g, 2);
        end[k] = send ? SOME_TX(m) : SOME_RX(m);
        it[k] = send ? item_new(m) : (item){.v = 0};
        want[k] = KLAW_EMPTY;
        if (end[k] < 0) {
            c[k] = (klaw_case){.kind = KLAW_CASE_NONE, .elem = send ? &it[k] : NULL};
            continue;
        }
        c[k] = send ? klaw_case_send(m->tx[end[k]], &it[k]) : klaw_case_recv(m->rx[end[k]], &it[k]);
        want[k] = send ? want_send(m, end[k], 1) : want_recv(m, end[k], &v[k]);
        ready = ready || (want[k] != KLAW_EMPTY && want[k] != KLAW_FULL);
    }
    klaw_err e = klaw_select(c, CASES, &chosen, KLAW_NOWAIT);
    for (int k = 0; k < CASES; k++) { /* who owns what now */
        bool mine = e == KLAW_OK && (size_t)k == chosen && c[k].err == KLAW_OK;
        bool send = c[k].kind == KLAW_CASE_SEND || (c[k].kind == KLAW_CASE_NONE && c[k].elem);
        if (send != mine)
            item_drop(&it[k]);
    }
    AGREE("select", e, ready ? KLAW_OK : KLAW_EMPTY);
    if (e != KLAW_OK)
        return true;
    AGREE("case", c[chosen].err, want[chosen]);
    if (c[chosen].kind == KLAW_CASE_RECV) {
        AGREE("select value", it[chosen].v, v[chosen]);
        if (want[chosen] == KLAW_LAGGED)
            AGREE("missed", klaw_receiver_missed(c[chosen].rx), m->missed[end[chosen]]);
        did_recv(m, end[chosen], want[chosen]);
    } else if (want[chosen] == KLAW_OK) {
        did_send(m, it[chosen].v);
    }
    return true;
}

static bool do_watch(model *m) {
    int i = SOME_RX(m);
    const void *view;
    bool yes = false;
    uint64_t v;
    if (m->kind != WATCH || i < 0)
        return true;
    klaw_err want = want_recv(m, i, &v);
    klaw_err e = klaw_watch_has_changed(m->rx[i], &yes);
    AGREE("has_changed", e, want == KLAW_CLOSED ? KLAW_CLOSED : KLAW_OK);
    AGREE("changed", yes, want == KLAW_OK);
    e = klaw_watch_borrow(m->rx[i], &view);
    AGREE("borrow", e, m->rx_open[i] ? KLAW_OK : KLAW_CLOSED);
    if (e != KLAW_OK)
        return true;
    v = ((const item *)view)->v;
    klaw_watch_release(m->rx[i], view);
    AGREE("view", v, m->latest);
    m->seen[i] = m->version;
    return true;
}

static bool do_stats(model *m) {
    klaw_channel_stats s;
    int i = SOME_TX(m), k = SOME_RX(m);
    if (i < 0 && k < 0)
        return true;
    if (i >= 0)
        OK(klaw_sender_stats(m->tx[i], &s));
    else
        OK(klaw_receiver_stats(m->rx[k], &s));
    AGREE("sender_count", s.sender_count, open_ends(m->tx_open));
    AGREE("receiver_count", s.receiver_count, open_ends(m->rx_open));
    AGREE("senders_closed", s.senders_closed, open_ends(m->tx_open) == 0);
    AGREE("total_sent", s.total_sent, m->total_sent);
    if (m->kind == MPMC) {
        AGREE("queue_size", s.queue_size, m->n[0]);
        AGREE("permits", s.permits, m->permit_count);
        CHECK(m->cap < 0 || s.high_watermark <= (uint64_t)m->cap);
    }
    return true;
}

/* --- a run --- */
static void model_open(model *m) {
    klaw_err e;
    memset(m->tx, 0, sizeof m->tx);
    if (m->kind == MPMC) {
        klaw_channel_opts o = {.capacity = m->cap};
        e = klaw_channel(&item_type, &o, &m->tx[0], &m->rx[0]);
    } else if (m->kind == ONESHOT) {
        e = klaw_oneshot(&item_type, &m->tx[0], &m->rx[0]);
    } else if (m->kind == BROADCAST) {
        klaw_broadcast_opts o = {.capacity = m->cap, .lag = m->lag};
        e = klaw_broadcast(&item_type, &o, &m->tx[0], &m->rx[0]);
        m->lags[0] = m->lag;
    } else {
        item first = item_new(m);
        m->latest = first.v;
        e = klaw_watch(&item_type, &first, &m->tx[0], &m->rx[0]);
    }
    OK(e);
    m->tx_open[0] = m->rx_open[0] = true;
}

static void model_close(model *m) {
    while (m->permit_count > 0)
        klaw_permit_drop(&m->permits[--m->permit_count]);
    if (m->holding)
        item_drop(&m->held);
    for (int i = 0; i < ENDS; i++) {
        klaw_sender_unref(m->tx[i]);
        klaw_receiver_unref(m->rx[i]);
    }
    SAME(counted_alive(), 0);
}

static bool model_step(model *m) {
    static bool (*const ops[])(model *) = {
        do_send,   do_send,   do_send,  do_recv,       do_recv,  do_send_batch, do_select,
        do_select, do_permit, do_stats, do_recv_batch, do_watch, do_clone_tx,   do_clone_rx};
    uint32_t n = sizeof ops / sizeof *ops;
    if (rng_one_in(&m->g, 25))
        return do_close(m);
    return ops[rng_below(&m->g, n)](m);
}

/* Whether channel and oracle agreed. */
static bool model_run(enum kind kind, int64_t cap, klaw_lag lag, uint64_t seed, enum fault fault,
                      bool tell) {
    model *m = calloc(1, sizeof *m);
    bool same = true;
    CHECK(m);
    m->kind = kind;
    m->cap = cap;
    m->lag = lag;
    m->fault = fault;
    m->g = (rng){seed};
    model_open(m);
    for (int i = 0; same && i < OPS; i++)
        same = model_step(m);
    if (!same && tell)
        fprintf(stderr, "kind %d capacity %d lag %d part %" PRIu64 ": %s\n", (int)kind, (int)cap,
                (int)lag, seed, m->why);
    model_close(m);
    free(m);
    return same;
}

static void model_runs(enum kind kind, int64_t cap, klaw_lag lag, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        CHECK(model_run(kind, cap, lag, rng_part(check_seed, i).at, NONE, true));
}

SPEC_PLAIN(model_of_bounded_channels) {
    static const int64_t caps[] = {1, 2, 5, 40};
    for (size_t i = 0; i < 4; i++)
        model_runs(MPMC, caps[i], KLAW_LAG_DEFAULT, rounds(1500));
}
SPEC_PLAIN(model_of_unbounded_channels) {
    model_runs(MPMC, KLAW_UNBOUNDED, KLAW_LAG_DEFAULT, rounds(1500));
}
SPEC_PLAIN(model_of_rendezvous_channels) {
    model_runs(MPMC, KLAW_RENDEZVOUS, KLAW_LAG_DEFAULT, rounds(1000));
}
SPEC_PLAIN(model_of_oneshots) {
    model_runs(ONESHOT, 1, KLAW_LAG_DEFAULT, rounds(1500));
}
SPEC_PLAIN(model_of_broadcasts) {
    for (int64_t cap = 1; cap <= 7; cap += 2)
        for (int lag = KLAW_LAG_WAIT; lag <= KLAW_LAG_DISCONNECT; lag++)
            model_runs(BROADCAST, cap, (klaw_lag)lag, rounds(800));
}
SPEC_PLAIN(model_of_watches) {
    model_runs(WATCH, 1, KLAW_LAG_DEFAULT, rounds(2000));
}

SPEC_PLAIN(model_finds_every_fault) {
    for (int fault = LOSES_ONE; fault < FAULTS; fault++) {
        int found = 0;
        for (uint64_t i = 0; i < 60; i++)
            found += !model_run(MPMC, KLAW_UNBOUNDED, KLAW_LAG_DEFAULT, rng_part(check_seed, i).at,
                                (enum fault)fault, false);
        CHECK(found > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_of_bounded_channels),
        cmocka_unit_test(model_of_unbounded_channels),
        cmocka_unit_test(model_of_rendezvous_channels),
        cmocka_unit_test(model_of_oneshots),
        cmocka_unit_test(model_of_broadcasts),
        cmocka_unit_test(model_of_watches),
        cmocka_unit_test(model_finds_every_fault),
    };
    (void)seed_begin();
    return cmocka_run_group_tests_name("channel_model", tests, NULL, NULL);
}
