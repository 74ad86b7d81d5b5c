/* SPDX-License-Identifier: Apache-2.0 */
/* test_sync_oom.c - channels without memory: each call fails at its first, second, … allocation
 * until it passes. It answers NOMEM, nothing leaks, elements stay where they were, and the object
 * works afterwards. What needs no memory works with none at all.
 *
 * Tried with these bugs seeded: a clone that counts itself in before its memory is there, a grown
 * ring that is not freed, a watch that leaks its cell when it can't be made. */
#include "klaw/waiter.h"
#include "support/chans.h"

/* What a case works on. */
typedef struct box {
    pair p, q;
    klaw_sender *tx2;
    klaw_receiver *rx2;
    klaw_inbox *in;
    klaw_op op;
    klaw_permit permit;
    counted c[4];
    uint64_t v[64];
    const void *view;
    bool waiting;
} box;

typedef struct trial {
    const char *name;
    void (*prepare)(box *b);  /* or NULL */
    klaw_err (*call)(box *b); /* what fails */
    void (*failed)(box *b);   /* it answered NOMEM: is all as before? NULL: nothing to look at */
    void (*passed)(box *b);   /* it answered OK */
    void (*end)(box *b);      /* in both cases */
    klaw_err also;            /* another answer a failure may give */
} trial;

static int call_until_it_passes(const trial *t) {
    int failures = 0;
    for (uint64_t n = 1;; n++) {
        box b;
        memset(&b, 0, sizeof b);
        CHECK(n < 100);
        uint64_t outside = klaw_alloc_live();
        if (t->prepare)
            t->prepare(&b);
        uint64_t live = klaw_alloc_live();
        klaw_alloc_fail_at(n, false);
        klaw_err e = t->call(&b);
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e != KLAW_OK) {
            CHECK(met && (e == KLAW_NOMEM || (t->also && e == t->also)));
            SAME(klaw_alloc_live(), live);
            if (t->failed)
                t->failed(&b);
            failures++;
        } else if (t->passed) {
            t->passed(&b);
        }
        if (t->end)
            t->end(&b);
        SAME(klaw_alloc_live(), outside);
        SAME(counted_alive(), 0);
        if (!met) {
            OK(e);
            return failures;
        }
    }
}

/* --- making --- */
static void pair_left_alone(box *b) {
    CHECK(!b->p.tx && !b->p.rx);
}
static void works(box *b) {
    OK(put(b->p.tx, 3, KLAW_NOWAIT));
    SAME(next_of(b->p.rx), 3);
}
static void free_pairs(box *b) {
    pair_free(b->p);
    pair_free(b->q);
    klaw_sender_unref(b->tx2);
    klaw_receiver_unref(b->rx2);
    klaw_inbox_unref(b->in);
}
static klaw_err open_bounded(box *b) {
    return klaw_channel(&klaw_u64, NULL, &b->p.tx, &b->p.rx);
}
static klaw_err open_ring(box *b) {
    klaw_channel_opts o = {.capacity = 3, .one_to_one = true};
    return klaw_channel(&klaw_u64, &o, &b->p.tx, &b->p.rx);
}
static klaw_err open_oneshot(box *b) {
    return klaw_oneshot(&klaw_u64, &b->p.tx, &b->p.rx);
}
static klaw_err open_broadcast(box *b) {
    return klaw_broadcast(&klaw_u64, NULL, &b->p.tx, &b->p.rx);
}
static void make_initial(box *b) {
    b->c[0] = counted_make();
}
static klaw_err open_watch(box *b) {
    return klaw_watch(&counted_type, &b->c[0], &b->p.tx, &b->p.rx);
}
static void initial_left_alone(box *b) {
    pair_left_alone(b);
    CHECK(!counted_dropped(b->c[0]));
    counted_drop(&b->c[0]);
}
static klaw_err open_inbox(box *b) {
    return klaw_inbox_open(&b->in);
}

/* --- further endpoints --- */
static void with_bounded(box *b) {
    b->p = chan(1000);
}
static klaw_err clone_tx(box *b) {
    return klaw_sender_clone(b->p.tx, &b->tx2);
}
static klaw_err clone_rx(box *b) {
    return klaw_receiver_clone(b->p.rx, &b->rx2);
}
static void counts_are_one(box *b) {
    SAME(stats_of(b->p).sender_count, 1);
    SAME(stats_of(b->p).receiver_count, 1);
    CHECK(!b->tx2 && !b->rx2);
    works(b);
}
static void with_broadcast(box *b) {
    OK(klaw_broadcast(&klaw_u64, NULL, &b->p.tx, &b->p.rx));
}
static klaw_err subscribe_broadcast(box *b) {
    return klaw_broadcast_subscribe(b->p.tx, KLAW_LAG_WAIT, &b->rx2);
}
static void with_watch(box *b) {
    OK(klaw_watch(&klaw_u64, &b->v[0], &b->p.tx, &b->p.rx));
}
static klaw_err subscribe_watch(box *b) {
    return klaw_watch_subscribe(b->p.tx, &b->rx2);
}

/* --- sending --- */
static klaw_err send_one(box *b) {
    return put(b->p.tx, 7, KLAW_FOREVER);
}
static void nothing_was_sent(box *b) {
    SAME(stats_of(b->p).total_sent, 0);
    works(b);
}
static void seven_was_sent(box *b) {
    SAME(next_of(b->p.rx), 7);
    works(b);
}
static void with_full_ring(box *b) { /* the next one makes it grow */
    b->p = chan(KLAW_UNBOUNDED);
    for (uint64_t i = 0; i < 32; i++)
        OK(put(b->p.tx, i, KLAW_NOWAIT));
}
static void all_of_the_ring(box *b) {
    for (uint64_t i = 0; i < 32; i++)
        SAME(next_of(b->p.rx), i);
}
static void ring_is_whole(box *b) {
    SAME(stats_of(b->p).queue_size, 32);
    all_of_the_ring(b);
    works(b);
}
static void ring_and_seven(box *b) {
    all_of_the_ring(b);
    seven_was_sent(b);
}
static klaw_err send_batch(box *b) {
    for (uint64_t i = 0; i < 60; i++)
        b->v[i] = i;
    return klaw_send_batch(b->p.tx, b->v, 60, KLAW_NOWAIT);
}
static void batch_was_sent(box *b) {
    for (uint64_t i = 0; i < 60; i++)
        SAME(next_of(b->p.rx), i);
}
static klaw_err reserve(box *b) {
    return klaw_reserve(b->p.tx, &b->permit, KLAW_FOREVER);
}
static void no_permit(box *b) {
    CHECK(!b->permit.tx);
    SAME(stats_of(b->p).permits, 0);
    ring_is_whole(b);
}
static void permit_needs_no_memory(box *b) {
    uint64_t v = 9;
    klaw_alloc_fail_at(1, true);
    OK(klaw_permit_send(&b->permit, &v));
    klaw_alloc_fail_at(0, false);
    all_of_the_ring(b);
    SAME(next_of(b->p.rx), 9);
}

static void with_owned_broadcast(box *b) {
    klaw_broadcast_opts o = {.capacity = 2};
    OK(klaw_broadcast(&counted_type, &o, &b->p.tx, &b->p.rx));
    b->c[0] = counted_make();
}
static void with_owned_watch(box *b) {
    counted first = counted_make();
    OK(klaw_watch(&counted_type, &first, &b->p.tx, &b->p.rx));
    b->c[0] = counted_make();
}
static klaw_err send_owned(box *b) {
    return klaw_send(b->p.tx, &b->c[0], KLAW_FOREVER);
}
static void owned_stays_mine(box *b) {
    CHECK(!counted_dropped(b->c[0]));
    SAME(stats_of(b->p).total_sent, 0);
    OK(klaw_send(b->p.tx, &b->c[0], KLAW_NOWAIT)); /* works now */
}
static void with_borrowed_watch(box *b) {
    with_watch(b);
    OK(klaw_watch_borrow(b->p.rx, &b->view));
}
static void end_of_view(box *b) {
    SAME(*(const uint64_t *)b->view, 0);
    klaw_watch_release(b->p.rx, b->view);
    free_pairs(b);
}

/* --- select and foreign loops --- */
static klaw_err select_many(box *b) {
    klaw_case c[17];
    size_t chosen = 99;
    for (int i = 0; i < 17; i++)
        c[i] = klaw_case_recv(b->p.rx, &b->v[0]);
    OK(put(b->p.tx, 3, KLAW_NOWAIT)); /* has its memory */
    klaw_err e = klaw_select(c, 17, &chosen, KLAW_FOREVER);
    if (e == KLAW_OK)
        SAME(b->v[0], 3);
    else
        SAME(next_of(b->p.rx), 3);
    return e;
}
static void with_used_ring(box *b) {
    with_bounded(b);
    works(b);
}
static klaw_err select_send(box *b) {
    b->v[0] = 7;
    klaw_case c[2] = {klaw_case_send(b->p.tx, &b->v[0]), {0}};
    size_t chosen = 99;
    OK(klaw_select(c, 2, &chosen, KLAW_FOREVER));
    SAME(chosen, 0);
    return c[0].err; /* as the operation alone */
}
static void told(klaw_op *o, void *user) {
    (void)o;
    (void)user;
}
static void with_inbox(box *b) {
    with_full_ring(b);
    OK(klaw_inbox_open(&b->in));
    klaw_op_init(&b->op, b->in, told, NULL);
}
static klaw_err start_send(box *b) {
    return klaw_op_send(&b->op, b->p.tx, &b->waiting);
}
static void op_is_idle(box *b) {
    SAME(klaw_op_state(&b->op), 0);
    ring_is_whole(b);
}
static void op_needs_no_memory(box *b) {
    uint64_t v = 7;
    CHECK(!b->waiting);
    klaw_alloc_fail_at(1, true);
    OK(klaw_op_finish(&b->op, &v));
    klaw_alloc_fail_at(0, false);
    ring_and_seven(b);
}

static const trial trials[] = {
    {"channel", NULL, open_bounded, pair_left_alone, works, free_pairs, 0},
    {"one to one", NULL, open_ring, pair_left_alone, works, free_pairs, 0},
    {"oneshot", NULL, open_oneshot, pair_left_alone, works, free_pairs, 0},
    {"broadcast", NULL, open_broadcast, pair_left_alone, works, free_pairs, 0},
    {"watch", make_initial, open_watch, initial_left_alone, NULL, free_pairs, 0},
    {"inbox", NULL, open_inbox, NULL, NULL, free_pairs, KLAW_SYSTEM},
    {"sender_clone", with_bounded, clone_tx, counts_are_one, works, free_pairs, 0},
    {"receiver_clone", with_bounded, clone_rx, counts_are_one, works, free_pairs, 0},
    {"clone of a broadcast receiver", with_broadcast, clone_rx, counts_are_one, works, free_pairs,
     0},
    {"broadcast_subscribe", with_broadcast, subscribe_broadcast, counts_are_one, works, free_pairs,
     0},
    {"watch_subscribe", with_watch, subscribe_watch, counts_are_one, works, free_pairs, 0},
    {"first send", with_bounded, send_one, nothing_was_sent, seven_was_sent, free_pairs, 0},
    {"send that grows", with_full_ring, send_one, ring_is_whole, ring_and_seven, free_pairs, 0},
    {"send_batch", with_bounded, send_batch, nothing_was_sent, batch_was_sent, free_pairs, 0},
    {"reserve", with_full_ring, reserve, no_permit, permit_needs_no_memory, free_pairs, 0},
    {"owned broadcast send", with_owned_broadcast, send_owned, owned_stays_mine, NULL, free_pairs,
     0},
    {"owned watch send", with_owned_watch, send_owned, owned_stays_mine, NULL, free_pairs, 0},
    {"borrowed watch send", with_borrowed_watch, send_one, nothing_was_sent, seven_was_sent,
     end_of_view, 0},
    {"select of many", with_used_ring, select_many, works, works, free_pairs, 0},
    {"select of a send", with_full_ring, select_send, ring_is_whole, ring_and_seven, free_pairs, 0},
    {"op_send", with_inbox, start_send, op_is_idle, op_needs_no_memory, free_pairs, 0},
};

SPEC_PLAIN(every_call_survives_every_failed_allocation) {
    OK(klaw_yield());
    pair warm = chan(1); /* the thread has its host from here on */
    GIVES(nothing_of(warm.rx, KLAW_NOWAIT), KLAW_EMPTY);
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
        check_test = trials[i].name;
        CHECK(call_until_it_passes(&trials[i]) > 0); /* there was something to fail */
    }
    pair_free(warm);
}

/* --- what needs no memory --- */
static void no_memory_at_all(bool on) {
    klaw_alloc_fail_at(on ? 1 : 0, true);
}

SPEC_PLAIN(receiving_and_closing_need_no_memory) {
    box b = {0};
    klaw_channel_stats s;
    uint64_t v, two[2];
    size_t got, chosen;
    for (int kind = 0; kind < 5; kind++) {
        int calls = kind < 3 ? 1 : 0;
        b = (box){0};
        if (kind == 0)
            with_bounded(&b);
        else if (kind == 1)
            OK(open_ring(&b));
        else if (kind == 2)
            with_broadcast(&b);
        else if (kind == 3)
            OK(open_oneshot(&b));
        else
            with_watch(&b);
        OK(put(b.p.tx, 5, KLAW_NOWAIT));
        if (calls)
            OK(put(b.p.tx, 6, KLAW_NOWAIT));
        no_memory_at_all(true);
        OK(klaw_sender_stats(b.p.tx, &s));
        OK(take(b.p.rx, &v, KLAW_NOWAIT));
        if (calls)
            OK(klaw_recv_batch(b.p.rx, two, 2, &got, KLAW_NOWAIT));
        klaw_case c = klaw_case_recv(b.p.rx, &v);
        if (kind != 1)
            GIVES(klaw_select(&c, 1, &chosen, PAST),
                  kind == 3 ? KLAW_OK : KLAW_TIMEOUT); /* the oneshot is used up: closed */
        if (kind != 3)
            GIVES(take(b.p.rx, &v, KLAW_WITHIN(KLAW_US(10))), KLAW_TIMEOUT);
        klaw_sender_close(b.p.tx);
        GIVES(take(b.p.rx, &v, KLAW_FOREVER), KLAW_CLOSED);
        pair_free(b.p);
        no_memory_at_all(false);
    }
}

SPEC_PLAIN(rendezvous_and_plain_waits_need_no_memory) {
    pair p = chan(KLAW_RENDEZVOUS);
    GIVES(put(p.tx, 4, KLAW_NOWAIT), KLAW_FULL); /* the thread has its host */
    op *r = receives(p.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    no_memory_at_all(true);
    OK(put(p.tx, 4, KLAW_FOREVER));
    no_memory_at_all(false);
    SAME(op_value(r), 4);
    pair_free(p);
}

/* A thread's first operation gets the thread its host. */
static klaw_err first_of_a_thread(void *arg) {
    op *o = arg;
    klaw_alloc_fail_at(1, false);
    klaw_err e =
        o->tx ? klaw_send(o->tx, o->v, KLAW_FOREVER) : klaw_recv(o->rx, o->v, KLAW_FOREVER);
    klaw_alloc_fail_at(0, false);
    if (e == KLAW_NOMEM) /* and now it can */
        OK(o->tx ? klaw_send(o->tx, o->v, KLAW_FOREVER) : klaw_recv(o->rx, o->v, KLAW_FOREVER));
    return e;
}

SPEC_PLAIN(thread_without_a_host_answers_nomem_and_may_try_again) {
    for (int send = 0; send < 2; send++) {
        pair p = chan(8);
        works(&(box){.p = p});
        OK(put(p.tx, 5, KLAW_NOWAIT));
        klaw_alloc_trim(); /* no host to reuse */
        op *o = op_with(op_new(send ? p.tx : NULL, p.rx, 1, 0), first_of_a_thread);
        GIVES(op_end(o), KLAW_NOMEM);
        SAME(stats_of(p).queue_size, send ? 2 : 0);
        pair_free(p);
    }
}

/* A rendezvous with a foreign receiver needs the ring: who asks first has to get it. */
SPEC_PLAIN(foreign_rendezvous_without_memory_is_refused_and_not_lost) {
    pair p = chan(KLAW_RENDEZVOUS);
    box b = {0};
    uint64_t v = 0;
    OK(klaw_inbox_open(&b.in));
    klaw_op_init(&b.op, b.in, told, NULL);
    op *s = sends(p.tx, 6, KLAW_FOREVER);
    UNTIL(WAITING_SENDERS(p) == 1);
    klaw_alloc_fail_at(1, false);
    GIVES(klaw_op_recv(&b.op, p.rx, &b.waiting), KLAW_NOMEM);
    klaw_alloc_fail_at(0, false);
    SAME(klaw_op_state(&b.op), 0);
    OK(klaw_op_recv(&b.op, p.rx, &b.waiting));
    CHECK(!b.waiting);
    OK(klaw_op_finish(&b.op, &v));
    SAME(v, 6);
    OK(op_end(s));
    klaw_inbox_unref(b.in);
    pair_free(p);
}

SPEC_FIBERS(ticker_survives_every_failed_allocation) {
    for (uint64_t n = 1;; n++) {
        klaw_receiver *rx = NULL;
        uint64_t live = klaw_alloc_live(), v = 0;
        klaw_alloc_fail_at(n, false);
        klaw_err e = klaw_ticker_open(KLAW_MS(1), &rx);
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e == KLAW_OK) {
            UNTIL(take(rx, &v, SOON) == KLAW_OK); /* a tick without memory for the ring is merged */
            CHECK(v >= 1);
            klaw_receiver_unref(rx);
        } else {
            GIVES(e, KLAW_NOMEM);
            CHECK(met);
        }
        SAME(klaw_alloc_live(), live);
        if (!met)
            return;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_survives_every_failed_allocation),
        cmocka_unit_test(receiving_and_closing_need_no_memory),
        cmocka_unit_test(rendezvous_and_plain_waits_need_no_memory),
        cmocka_unit_test(thread_without_a_host_answers_nomem_and_may_try_again),
        cmocka_unit_test(foreign_rendezvous_without_memory_is_refused_and_not_lost),
        cmocka_unit_test(ticker_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("sync_oom", tests, NULL, NULL);
}
