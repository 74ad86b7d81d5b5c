/* SPDX-License-Identifier: Apache-2.0 */
/* test_go_cases.c - what the channel and select tests of the Go project look at, asked of klaw in
 * its own words.
 *
 * The cases, not the code: each comment names the test whose question it is. Left out because klaw
 * has no such thing: stack shrinking and copying (TestShrinkStackDuringBlockedSend,
 * TestNoShrinkStackWhileParking, TestSelectStackAdjust), one-way channel types (chan/perm),
 * evaluation order of case expressions (chan/select5), and nil channels, whose part KLAW_CASE_NONE
 * plays. Tried with these bugs seeded into select.c: the first ready case in source order, a select
 * that looks at one case after the other and calls that "nothing is ready". */
#include "support/chans.h"
#include "support/random.h"

/* --- TestChan --- */
static void go_chan_of(int64_t cap) {
    pair p = chan(cap);
    uint64_t v = 0;
    size_t chosen;
    klaw_case c;
    int64_t n = cap > 0 ? cap : 0;
    op *r = receives(p.rx, KLAW_FOREVER); /* from an empty one: waits */
    UNTIL(WAITING_RECEIVERS(p) == 1);
    OK(put(p.tx, 1, KLAW_FOREVER));
    SAME(op_value(r), 1);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY);
    c = klaw_case_recv(p.rx, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    for (int64_t i = 0; i < n; i++)
        OK(put(p.tx, (uint64_t)i, KLAW_NOWAIT));
    op *s = sends(p.tx, (uint64_t)n, KLAW_FOREVER); /* to a full one: waits */
    UNTIL(WAITING_SENDERS(p) == 1);
    GIVES(put(p.tx, 7, KLAW_NOWAIT), KLAW_FULL);
    c = klaw_case_send(p.tx, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    for (int64_t i = 0; i <= n; i++)
        SAME(next_of(p.rx), i);
    OK(op_end(s));
    for (int64_t i = 0; i < n; i++)
        OK(put(p.tx, (uint64_t)i, KLAW_NOWAIT));
    klaw_sender_close(p.tx); /* what is in it comes out, then closed again and again */
    for (int64_t i = 0; i < n; i++)
        SAME(next_of(p.rx), i);
    for (int i = 0; i < 3; i++)
        GIVES(nothing_of(p.rx, KLAW_FOREVER), KLAW_CLOSED);
    pair_free(p);
}

SPEC(go_chan) {
    go_chan_of(KLAW_RENDEZVOUS);
    for (int64_t cap = 1; cap <= 50; cap += 7)
        go_chan_of(cap);
}

typedef struct team {
    pair p;
    uint64_t each;
    _Atomic uint8_t *seen;
    _Atomic uint64_t next;
} team;

static klaw_err team_sends(void *arg) {
    team *t = arg;
    for (uint64_t i = 0; i < t->each; i++)
        OK(put(t->p.tx, atomic_fetch_add(&t->next, 1), KLAW_FOREVER));
    return KLAW_OK;
}
static klaw_err team_receives(void *arg) {
    team *t = arg;
    for (uint64_t i = 0; i < t->each; i++)
        SAME(atomic_fetch_add(&t->seen[next_of(t->p.rx)], 1), 0);
    return KLAW_OK;
}

/* TestChan, its last part: 4 senders, 4 receivers, every value once. */
SPEC(go_chan_many_to_many) {
    static const int64_t caps[] = {KLAW_RENDEZVOUS, 1, 10, 200};
    static _Atomic uint8_t seen[4000];
    for (size_t k = 0; k < 4; k++) {
        team t = {.p = chan(caps[k]), .each = 1000, .seen = seen};
        job *j[8];
        for (int i = 0; i < 4000; i++)
            atomic_store(&seen[i], 0);
        for (int i = 0; i < 8; i++)
            j[i] = start(i % 2 ? team_sends : team_receives, &t);
        for (int i = 0; i < 8; i++)
            OK(ended(j[i]));
        SAME(stats_of(t.p).queue_size, 0);
        pair_free(t.p);
    }
}

/* --- races of what does not wait --- */
/* TestNonblockRecvRace: a channel that holds an element and is being closed is never "empty". */
SPEC(go_nonblocking_receive_beside_a_close) {
    for (uint64_t i = 0; i < rounds(400); i++) {
        pair p = chan(1);
        OK(put(p.tx, 1, KLAW_NOWAIT));
        op *r = receives(p.rx, KLAW_NOWAIT);
        klaw_sender_close(p.tx);
        klaw_err mine = KLAW_OK;
        uint64_t v;
        mine = take(p.rx, &v, KLAW_FOREVER);
        klaw_err e = op_end(r);
        CHECK((e == KLAW_OK) != (mine == KLAW_OK));
        CHECK(e == KLAW_OK || e == KLAW_CLOSED);
        pair_free(p);
    }
}

typedef struct two {
    pair a, b;
    uint64_t rounds;
    _Atomic uint64_t begun, over;
} two;
static klaw_err look_at_both(void *arg) {
    two *t = arg;
    enum { N = 64 };
    pair never[N];
    for (int k = 0; k < N; k++)
        never[k] = chan(1);
    for (uint64_t i = 1; i <= t->rounds; i++) {
        uint64_t v;
        size_t chosen;
        klaw_case c[N];
        UNTIL(atomic_load(&t->begun) == i);
        for (int k = 2; k < N; k++) /* so that looking takes its time */
            c[k] = klaw_case_recv(never[k].rx, &v);
        c[0] = klaw_case_recv(t->a.rx, &v);
        c[1] = klaw_case_recv(t->b.rx, &v);
        OK(klaw_select(c, N, &chosen, i % 2 ? KLAW_NOWAIT : PAST));
        CHECK(chosen < 2);
        atomic_store(&t->over, i);
    }
    for (int k = 0; k < N; k++)
        pair_free(never[k]);
    return KLAW_OK;
}

/* TestNonblockSelectRace, TestNonblockSelectRace2: at every moment one of the two is ready. A
 * select that looks at one after the other would miss both. */
static void nonblocking_select_beside(bool by_close) {
    two t = {.rounds = rounds(4000)};
    rng g = {check_seed};
    job *j = start(look_at_both, &t);
    for (uint64_t i = 1; i <= t.rounds; i++) {
        uint64_t v;
        t.a = chan(1);
        t.b = chan(1);
        OK(put(t.a.tx, 1, KLAW_NOWAIT));
        atomic_store(&t.begun, i);
        for (uint32_t k = rng_below(&g, 3000); k > 0; k--)
            atomic_signal_fence(memory_order_seq_cst);
        if (by_close)
            klaw_sender_close(t.b.tx);
        else
            OK(put(t.b.tx, 1, KLAW_NOWAIT));
        klaw_err mine = take(t.a.rx, &v, KLAW_NOWAIT);
        CHECK(mine == KLAW_OK || mine == KLAW_EMPTY);
        UNTIL(atomic_load(&t.over) == i);
        pair_free(t.a);
        pair_free(t.b);
    }
    OK(ended(j));
}
SPEC(go_nonblocking_select_beside_a_send) {
    nonblocking_select_beside(false);
}
SPEC(go_nonblocking_select_beside_a_close) {
    nonblocking_select_beside(true);
}

/* --- TestSelfSelect --- */
typedef struct self {
    pair p;
    uint64_t me;
    bool rendezvous;
} self;
static klaw_err select_with_myself(void *arg) {
    self *s = arg;
    for (int i = 0; i < 1000; i++) {
        uint64_t in = 99, out = s->me;
        size_t chosen;
        klaw_case c[2] = {klaw_case_send(s->p.tx, &out), klaw_case_recv(s->p.rx, &in)};
        if (i % 2) { /* the other order */
            klaw_case swap = c[0];
            c[0] = c[1];
            c[1] = swap;
        }
        klaw_err e = klaw_select(c, 2, &chosen, KLAW_FOREVER);
        OK(e);
        if (c[chosen].err == KLAW_CLOSED)
            return KLAW_OK; /* the other one is through */
        OK(c[chosen].err);
        if (c[chosen].kind == KLAW_CASE_RECV && s->rendezvous)
            SAME(in, 1 - s->me);
    }
    klaw_sender_close(s->p.tx);
    klaw_receiver_close(s->p.rx);
    return KLAW_OK;
}
SPEC(go_self_select) {
    for (int k = 0; k < 2; k++) {
        pair p = chan(k ? 10 : KLAW_RENDEZVOUS);
        self s[2] = {{p, 0, !k}, {p, 1, !k}};
        job *j[2] = {start(select_with_myself, &s[0]), start(select_with_myself, &s[1])};
        OK(ended(j[0]));
        OK(ended(j[1]));
        pair_free(p);
    }
}

/* --- TestSelectStress --- */
#define STRESS 400
static pair stress[4];
static klaw_err stress_plain_send(void *arg) {
    for (uint64_t i = 0; i < STRESS; i++)
        OK(put(((pair *)arg)->tx, i, KLAW_FOREVER));
    return KLAW_OK;
}
static klaw_err stress_select(void *arg) {
    bool sends_it = arg != NULL;
    uint64_t v[4] = {0}, count[4] = {0};
    klaw_case c[4];
    for (int i = 0; i < 4; i++)
        c[i] = sends_it ? klaw_case_send(stress[i].tx, &v[i]) : klaw_case_recv(stress[i].rx, &v[i]);
    for (int i = 0; i < 4 * STRESS; i++) {
        size_t chosen;
        OK(klaw_select(c, 4, &chosen, KLAW_FOREVER));
        OK(c[chosen].err);
        if (++count[chosen] == STRESS)
            c[chosen].kind = KLAW_CASE_NONE; /* Go sets the channel to nil */
    }
    return KLAW_OK;
}
static klaw_err stress_plain_recv(void *arg) {
    uint64_t v;
    for (uint64_t i = 0; i < STRESS; i++)
        OK(take(((pair *)arg)->rx, &v, KLAW_FOREVER));
    return KLAW_OK;
}
SPEC(go_select_stress) {
    static const int64_t caps[4] = {KLAW_RENDEZVOUS, KLAW_RENDEZVOUS, 2, 3};
    job *j[10];
    int n = 0;
    for (int i = 0; i < 4; i++)
        stress[i] = chan(caps[i]);
    for (int i = 0; i < 4; i++) {
        j[n++] = start(stress_plain_send, &stress[i]);
        j[n++] = start(stress_plain_recv, &stress[i]);
    }
    j[n++] = start(stress_select, stress);
    j[n++] = start(stress_select, NULL);
    while (n > 0)
        OK(ended(j[--n]));
    for (int i = 0; i < 4; i++) {
        SAME(stats_of(stress[i]).queue_size, 0);
        pair_free(stress[i]);
    }
}

/* --- TestSelectFairness, TestPseudoRandomSend --- */
static klaw_err feeds_until_closed(void *arg) {
    while (put(((pair *)arg)->tx, 1, KLAW_FOREVER) == KLAW_OK)
        ;
    return KLAW_OK;
}
SPEC(go_select_fairness) {
    enum { TRIALS = 4000 };
    pair a = chan(TRIALS + 1), b = chan(1);
    uint64_t v, hits[2] = {0};
    for (int i = 0; i <= TRIALS; i++)
        OK(put(a.tx, 1, KLAW_NOWAIT));
    job *j = start(feeds_until_closed, &b);
    for (int i = 0; i < TRIALS; i++) {
        size_t chosen;
        UNTIL(stats_of(b).queue_size == 1); /* both are ready */
        klaw_case c[2] = {klaw_case_recv(a.rx, &v), klaw_case_recv(b.rx, &v)};
        OK(klaw_select(c, 2, &chosen, KLAW_FOREVER));
        hits[chosen]++;
    }
    CHECK(hits[0] > TRIALS * 4 / 10 && hits[1] > TRIALS * 4 / 10);
    klaw_receiver_close(b.rx);
    OK(ended(j));
    pair_free(a);
    pair_free(b);
}

static klaw_err random_bits(void *arg) {
    pair *p = arg;
    uint64_t zero = 0, one = 1;
    for (int i = 0; i < 400; i++) {
        size_t chosen;
        klaw_case c[2] = {klaw_case_send(p->tx, &zero), klaw_case_send(p->tx, &one)};
        OK(klaw_select(c, 2, &chosen, KLAW_FOREVER));
    }
    return KLAW_OK;
}
SPEC(go_pseudo_random_send) {
    for (int k = 0; k < 2; k++) {
        pair p = chan(k ? 400 : KLAW_RENDEZVOUS);
        uint64_t ones = 0;
        job *j = start(random_bits, &p);
        for (int i = 0; i < 400; i++)
            ones += next_of(p.rx);
        OK(ended(j));
        /* In a rendezvous the first case in the queue may win each time it waits: only what did
         * not wait is drawn. */
        CHECK(k == 0 || (ones > 100 && ones < 300));
        pair_free(p);
    }
}

/* --- TestChanSendInterface --- */
typedef struct big {
    uint64_t v[40];
} big;
static const klaw_type big_type = {.name = "big", .size = sizeof(big)};
SPEC(go_send_of_large_values_through_select) {
    pair p = chan_of(&big_type, 1);
    big in, out;
    size_t chosen;
    for (uint64_t k = 0; k < 40; k++)
        in.v[k] = k * k;
    klaw_case c[3] = {klaw_case_send(p.tx, &in), klaw_case_send(p.tx, &in), {0}};
    OK(klaw_send(p.tx, &in, KLAW_FOREVER));
    GIVES(klaw_select(c, 3, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    OK(klaw_recv(p.rx, &out, KLAW_FOREVER));
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    OK(klaw_select(c, 3, &chosen, KLAW_NOWAIT));
    memset(&out, 0, sizeof out);
    OK(klaw_recv(p.rx, &out, KLAW_FOREVER));
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    pair_free(p);
}

/* --- TestMultiConsumer --- */
typedef struct consumers {
    pair q, r;
    uint64_t n;
} consumers;
static klaw_err consume(void *arg) {
    consumers *c = arg;
    uint64_t v, i = 0;
    while (take(c->q.rx, &v, KLAW_FOREVER) == KLAW_OK) {
        if (++i % 7 == v % 7)
            OK(klaw_yield());
        OK(put(c->r.tx, v, KLAW_FOREVER));
    }
    return KLAW_OK;
}
static klaw_err feed_primes(void *arg) {
    static const uint64_t primes[] = {2, 3, 7, 11, 13, 17, 19, 23, 27, 31};
    consumers *c = arg;
    for (uint64_t i = 0; i < c->n; i++)
        OK(put(c->q.tx, primes[i % 10], KLAW_FOREVER));
    klaw_sender_close(c->q.tx);
    return KLAW_OK;
}
SPEC(go_multi_consumer) {
    consumers c = {.q = chan(69), .r = chan(69), .n = rounds(8000)};
    job *j[24];
    uint64_t sum = 0, want = 0;
    static const uint64_t primes[] = {2, 3, 7, 11, 13, 17, 19, 23, 27, 31};
    for (int i = 0; i < 23; i++)
        j[i] = start(consume, &c);
    j[23] = start(feed_primes, &c);
    for (uint64_t i = 0; i < c.n; i++) {
        sum += next_of(c.r.rx);
        want += primes[i % 10];
    }
    SAME(sum, want);
    for (int i = 0; i < 24; i++)
        OK(ended(j[i]));
    GIVES(nothing_of(c.r.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(c.q);
    pair_free(c.r);
}

/* --- TestSelectDuplicateChannel, chan/select6 --- */
typedef struct three {
    pair c, d, e;
} three;
static klaw_err waits_twice_on_c(void *arg) {
    three *t = arg;
    uint64_t v;
    size_t chosen;
    klaw_case c[3] = {klaw_case_recv(t->c.rx, &v), klaw_case_recv(t->c.rx, &v),
                      klaw_case_recv(t->d.rx, &v)};
    OK(klaw_select(c, 3, &chosen, KLAW_FOREVER));
    SAME(chosen, 2);
    return put(t->e.tx, 9, KLAW_FOREVER);
}
SPEC(go_select_with_a_channel_twice_leaves_the_queue_in_order) {
    three t = {chan(KLAW_RENDEZVOUS), chan(KLAW_RENDEZVOUS), chan(1)};
    job *a = start(waits_twice_on_c, &t);
    UNTIL(WAITING_RECEIVERS(t.c) == 2);
    op *b = receives(t.c.rx, KLAW_FOREVER); /* behind both */
    UNTIL(WAITING_RECEIVERS(t.c) == 3);
    OK(put(t.d.tx, 7, KLAW_FOREVER)); /* takes the first two out */
    SAME(next_of(t.e.rx), 9);
    OK(put(t.c.tx, 8, KLAW_FOREVER)); /* reaches b */
    SAME(op_value(b), 8);
    OK(ended(a));
    SAME(WAITING_RECEIVERS(t.c), 0);
    pair_free(t.c);
    pair_free(t.d);
    pair_free(t.e);
}

SPEC(go_select_that_leaves_a_queue_keeps_its_ends) {
    pair c1 = chan(KLAW_RENDEZVOUS);
    three t = {c1, chan(KLAW_RENDEZVOUS), chan(1)};
    op *first = receives(c1.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(c1) == 1);
    job *a = start(waits_twice_on_c, &t); /* in the middle */
    UNTIL(WAITING_RECEIVERS(c1) == 3);
    OK(put(t.d.tx, 1, KLAW_FOREVER));
    OK(ended(a));
    op *last = receives(c1.rx, KLAW_FOREVER);
    UNTIL(WAITING_RECEIVERS(c1) == 2);
    OK(put(c1.tx, 1, KLAW_FOREVER));
    OK(put(c1.tx, 2, KLAW_FOREVER));
    SAME(op_value(first), 1);
    SAME(op_value(last), 2);
    pair_free(c1);
    pair_free(t.d);
    pair_free(t.e);
}

/* --- chan/doubleselect --- */
typedef struct doubling {
    pair c[4], mux;
    uint64_t n;
} doubling;
static klaw_err sends_by_any(void *arg) {
    doubling *d = arg;
    for (uint64_t i = 0; i < d->n; i++) {
        klaw_case c[4];
        size_t chosen;
        for (int k = 0; k < 4; k++)
            c[k] = klaw_case_send(d->c[k].tx, &i);
        OK(klaw_select(c, 4, &chosen, KLAW_FOREVER));
        OK(c[chosen].err);
    }
    for (int k = 0; k < 4; k++)
        klaw_sender_close(d->c[k].tx);
    return KLAW_OK;
}
typedef struct muxing {
    klaw_receiver *rx;
    klaw_sender *tx;
} muxing;
static klaw_err mux(void *arg) {
    muxing *m = arg;
    uint64_t v;
    while (take(m->rx, &v, KLAW_FOREVER) == KLAW_OK)
        OK(put(m->tx, v, KLAW_FOREVER));
    klaw_sender_unref(m->tx);
    return KLAW_OK;
}
SPEC(go_double_select_sends_nothing_twice) {
    doubling d = {.mux = chan(1), .n = rounds(4000)};
    muxing m[4];
    job *j[5];
    uint8_t *seen = calloc(d.n, 1);
    uint64_t v, n = 0;
    CHECK(seen);
    for (int k = 0; k < 4; k++) {
        d.c[k] = chan(KLAW_RENDEZVOUS);
        m[k].rx = d.c[k].rx;
        OK(klaw_sender_clone(d.mux.tx, &m[k].tx));
        j[k] = start(mux, &m[k]);
    }
    j[4] = start(sends_by_any, &d);
    klaw_sender_close(d.mux.tx);
    for (; take(d.mux.rx, &v, KLAW_FOREVER) == KLAW_OK; n++) {
        CHECK(v < d.n);
        SAME(seen[v]++, 0);
    }
    SAME(n, d.n);
    for (int k = 0; k < 5; k++)
        OK(ended(j[k]));
    for (int k = 0; k < 4; k++)
        pair_free(d.c[k]);
    pair_free(d.mux);
    free(seen);
}

/* --- chan/select3: what waits for ever and what never waits --- */
SPEC(go_select_never_and_always_ready) {
    pair full = chan(1), empty = chan(1), meet = chan(KLAW_RENDEZVOUS), over = chan(1);
    uint64_t v = 1;
    size_t chosen;
    klaw_deadline moment = KLAW_WITHIN(KLAW_US(200));
    OK(put(full.tx, 1, KLAW_NOWAIT));
    klaw_sender_close(over.tx);
    klaw_case none = {0};
    klaw_case send_full = klaw_case_send(full.tx, &v), recv_empty = klaw_case_recv(empty.rx, &v);
    klaw_case send_meet = klaw_case_send(meet.tx, &v), recv_meet = klaw_case_recv(meet.rx, &v);
    klaw_case never[] = {none, send_full, recv_empty, send_meet, recv_meet, none};
    for (size_t i = 0; i < 6; i++) {
        GIVES(klaw_select(&never[i], 1, &chosen, moment), KLAW_TIMEOUT);
        GIVES(klaw_select(&never[i], 1, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
        GIVES(klaw_select(never, i + 1, &chosen, moment), KLAW_TIMEOUT);
    }
    klaw_case always[] = {klaw_case_recv(full.rx, &v), klaw_case_send(empty.tx, &v),
                          klaw_case_recv(over.rx, &v), klaw_case_send(over.tx, &v)};
    for (size_t i = 0; i < 4; i++) {
        klaw_case c[3] = {none, always[i], recv_meet};
        OK(klaw_select(c, 3, &chosen, KLAW_FOREVER));
        SAME(chosen, 1);
        GIVES(c[1].err, i < 2 ? KLAW_OK : KLAW_CLOSED);
    }
    pair_free(full);
    pair_free(empty);
    pair_free(meet);
    pair_free(over);
}

/* --- chan/fifo --- */
typedef struct link_of_chain {
    klaw_receiver *before;
    klaw_sender *after;
    uint64_t v;
    klaw_receiver *from;
} link_of_chain;
static klaw_err chain_link(void *arg) {
    link_of_chain *l = arg;
    (void)next_of(l->before);
    SAME(next_of(l->from), l->v);
    return put(l->after, 1, KLAW_FOREVER);
}
SPEC(go_fifo_of_a_synchronous_channel) {
    enum { N = 10 };
    pair c = chan(KLAW_RENDEZVOUS), turn[N + 1];
    link_of_chain l[N];
    job *j[N];
    for (int i = 0; i <= N; i++)
        turn[i] = chan(1);
    for (uint64_t i = 0; i < N; i++) {
        l[i] = (link_of_chain){turn[i].rx, turn[i + 1].tx, i, c.rx};
        j[i] = start(chain_link, &l[i]);
    }
    OK(put(turn[0].tx, 1, KLAW_NOWAIT));
    for (uint64_t i = 0; i < N; i++)
        OK(put(c.tx, i, KLAW_FOREVER));
    (void)next_of(turn[N].rx);
    for (int i = 0; i < N; i++)
        OK(ended(j[i]));
    for (int i = 0; i <= N; i++)
        pair_free(turn[i]);
    pair_free(c);
}

/* --- chan/sieve1 --- */
typedef struct sieve {
    klaw_receiver *in;
    klaw_sender *out;
    uint64_t prime;
} sieve;
static klaw_err sieve_filter(void *arg) {
    sieve *s = arg;
    uint64_t v;
    while (take(s->in, &v, KLAW_FOREVER) == KLAW_OK)
        if (v % s->prime != 0 && put(s->out, v, KLAW_FOREVER) != KLAW_OK)
            break;
    klaw_receiver_unref(s->in);
    klaw_sender_unref(s->out);
    return KLAW_OK;
}
static klaw_err sieve_numbers(void *arg) {
    klaw_sender *tx = arg;
    for (uint64_t v = 2; put(tx, v, KLAW_FOREVER) == KLAW_OK; v++)
        ;
    klaw_sender_unref(tx);
    return KLAW_OK;
}
SPEC(go_sieve) {
    static const uint64_t primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47};
    enum { N = sizeof primes / sizeof *primes };
    sieve s[N];
    job *j[N + 1];
    pair p = chan(KLAW_RENDEZVOUS);
    j[N] = start(sieve_numbers, p.tx);
    for (int i = 0; i < N; i++) {
        SAME(next_of(p.rx), primes[i]);
        pair next = chan(KLAW_RENDEZVOUS);
        s[i] = (sieve){p.rx, next.tx, primes[i]};
        j[i] = start(sieve_filter, &s[i]);
        p.rx = next.rx;
    }
    klaw_receiver_unref(p.rx); /* the whole chain ends */
    for (int i = 0; i <= N; i++)
        OK(ended(j[i]));
}

/* --- chan/nonblock, chan/select7: non-blocking against waiting, in all pairings --- */
typedef struct pairing {
    pair p;
    int how;
} pairing;
static klaw_err receives_somehow(void *arg) {
    pairing *x = arg;
    uint64_t v = 0, w;
    size_t chosen;
    pair never = chan(1);
    klaw_case c[2] = {klaw_case_recv(x->p.rx, &v), klaw_case_recv(never.rx, &w)};
    if (x->how == 0)
        OK(take(x->p.rx, &v, KLAW_FOREVER));
    else
        OK(klaw_select(c, (size_t)x->how, &chosen, KLAW_FOREVER));
    SAME(v, 3);
    pair_free(never);
    return KLAW_OK;
}
static klaw_err sends_somehow(void *arg) {
    pairing *x = arg;
    uint64_t v = 3;
    size_t chosen;
    pair never = chan(KLAW_RENDEZVOUS);
    klaw_case c[2] = {klaw_case_send(x->p.tx, &v), klaw_case_send(never.tx, &v)};
    if (x->how == 0)
        OK(put(x->p.tx, v, KLAW_FOREVER));
    else
        OK(klaw_select(c, (size_t)x->how, &chosen, KLAW_FOREVER));
    pair_free(never);
    return KLAW_OK;
}
SPEC(go_nonblocking_meets_whoever_waits) {
    for (int how = 0; how < 3; how++) {
        pairing x = {chan(KLAW_RENDEZVOUS), how};
        uint64_t v = 3;
        size_t chosen;
        job *r = start(receives_somehow, &x);
        UNTIL(WAITING_RECEIVERS(x.p) == 1);
        OK(put(x.p.tx, 3, KLAW_NOWAIT));
        OK(ended(r));
        r = start(receives_somehow, &x);
        UNTIL(WAITING_RECEIVERS(x.p) == 1);
        klaw_case c = klaw_case_send(x.p.tx, &v);
        OK(klaw_select(&c, 1, &chosen, KLAW_NOWAIT));
        OK(ended(r));
        job *s = start(sends_somehow, &x);
        UNTIL(WAITING_SENDERS(x.p) == 1);
        OK(take(x.p.rx, &v, KLAW_NOWAIT));
        OK(ended(s));
        s = start(sends_somehow, &x);
        UNTIL(WAITING_SENDERS(x.p) == 1);
        c = klaw_case_recv(x.p.rx, &v);
        OK(klaw_select(&c, 1, &chosen, KLAW_NOWAIT));
        SAME(v, 3);
        OK(ended(s));
        pair_free(x.p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(go_chan),
        cmocka_unit_test(go_chan_many_to_many),
        cmocka_unit_test(go_nonblocking_receive_beside_a_close),
        cmocka_unit_test(go_self_select),
        cmocka_unit_test(go_select_stress),
        cmocka_unit_test(go_select_fairness),
        cmocka_unit_test(go_pseudo_random_send),
        cmocka_unit_test(go_send_of_large_values_through_select),
        cmocka_unit_test(go_multi_consumer),
        cmocka_unit_test(go_select_with_a_channel_twice_leaves_the_queue_in_order),
        cmocka_unit_test(go_select_that_leaves_a_queue_keeps_its_ends),
        cmocka_unit_test(go_double_select_sends_nothing_twice),
        cmocka_unit_test(go_select_never_and_always_ready),
        cmocka_unit_test(go_fifo_of_a_synchronous_channel),
        cmocka_unit_test(go_sieve),
        cmocka_unit_test(go_nonblocking_meets_whoever_waits),
        cmocka_unit_test(go_nonblocking_select_beside_a_send),
        cmocka_unit_test(go_nonblocking_select_beside_a_close),
    };
    (void)seed_begin();
    return cmocka_run_group_tests_name("go_cases", tests, NULL, NULL);
}
