/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_account.c - many senders, many receivers, with time-outs, cancellations and closes
 * at random: every element that was accepted is received once or dropped once, every other one is
 * still its sender's, and each receiver sees each sender in order.
 *
 * The account itself is tried with faults (an element received and not told, one told twice, two
 * out of order): it has to object. */
#include "support/chans.h"
#include "support/random.h"

#define SENDERS 4
#define RECEIVERS 4
#define EACH 400

typedef struct token {
    uint32_t sender, number;
} token;

static struct account {
    _Atomic uint8_t accepted[SENDERS][EACH], received[SENDERS][EACH], dropped[SENDERS][EACH];
    _Atomic bool disorder;
} acc;

static void token_drop(void *elem) {
    token t;
    memcpy(&t, elem, sizeof t);
    atomic_fetch_add(&acc.dropped[t.sender][t.number], 1);
}
static const klaw_type token_type = {.name = "token", .size = sizeof(token), .drop = token_drop};

enum fault { NONE, LOSES_ONE, TELLS_TWICE, OUT_OF_ORDER, FAULTS };

typedef struct run {
    pair p;
    uint64_t seed;
    enum fault fault;
    bool scopes; /* a runtime runs: hosts may be cancelled */
    klaw_sender *tx[SENDERS];
    klaw_receiver *rx[RECEIVERS];
    _Atomic int senders_left;
} run;
typedef struct member {
    run *r;
    uint32_t i;
} member;

static klaw_deadline some_deadline(rng *g) {
    switch (rng_below(g, 4)) {
    case 0: return KLAW_NOWAIT;
    case 1: return KLAW_WITHIN(KLAW_US(1 + rng_below(g, 60)));
    default: return KLAW_FOREVER;
    }
}

/* Sends tokens n .. n+k-1 in some way. */
static klaw_err send_somehow(member *m, rng *g, token *t, size_t k) {
    klaw_sender *tx = m->r->tx[m->i];
    klaw_deadline d = some_deadline(g);
    klaw_permit permit;
    size_t chosen;
    klaw_err e;
    if (k > 1)
        return klaw_send_batch(tx, t, k, d);
    switch (rng_below(g, 5)) {
    case 0:
        if ((e = klaw_reserve(tx, &permit, d)) != KLAW_OK)
            return e == KLAW_INVALID ? klaw_send(tx, t, d) : e;
        if (!rng_one_in(g, 5))
            return klaw_permit_send(&permit, t);
        klaw_permit_drop(&permit);
        return KLAW_FULL;
    case 1: {
        klaw_case c[2] = {klaw_case_send(tx, t), klaw_case_timer(KLAW_WITHIN(KLAW_US(50)))};
        e = klaw_select(c, 2, &chosen, d);
        return e ? e : chosen == 1 ? KLAW_TIMEOUT : c[0].err;
    }
    default: return klaw_send(tx, t, d);
    }
}

/* Scopes somebody may cancel; who takes one out has its reference. */
static klaw_scope *_Atomic open_scopes[SENDERS + RECEIVERS];

/* Now and then inside a scope, which is cancelled by its deadline or by the canceller. */
static klaw_scope *scope_maybe(member *m, rng *g, int slot) {
    klaw_scope *s = NULL;
    klaw_scope_opts o = {.deadline = KLAW_WITHIN(KLAW_US(1 + rng_below(g, 100)))};
    if (!m->r->scopes || !rng_one_in(g, 4))
        return NULL;
    OK(klaw_scope_open(&o, &s));
    if (rng_one_in(g, 8))
        klaw_scope_cancel(s, NULL);
    atomic_store(&open_scopes[slot], klaw_scope_ref(s));
    return s;
}
static klaw_err canceller(void *arg) {
    member *m = arg;
    rng g = rng_part(m->r->seed, 300);
    while (atomic_load(&m->r->senders_left) > 0) {
        klaw_scope *s = atomic_exchange(&open_scopes[rng_below(&g, SENDERS + RECEIVERS)], NULL);
        if (s)
            klaw_scope_cancel(s, "test");
        klaw_scope_unref(s);
        OK(klaw_yield());
    }
    return KLAW_OK;
}
static _Atomic uint64_t cancelled;
static void scope_end(klaw_scope *s, int slot, klaw_err answer) {
    if (!s)
        return;
    klaw_scope_unref(atomic_exchange(&open_scopes[slot], NULL));
    klaw_err e = klaw_scope_close(s);
    CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_CANCELLED);
    CHECK(answer != KLAW_CANCELLED || e != KLAW_OK);
    atomic_fetch_add(&cancelled, answer == KLAW_CANCELLED);
}

static klaw_err sender(void *arg) {
    member *m = arg;
    rng g = rng_part(m->r->seed, m->i);
    klaw_err e = KLAW_OK;
    for (uint32_t n = 0; n < EACH && e != KLAW_CLOSED;) {
        token t[3];
        size_t k = 1 + (rng_one_in(&g, 6) ? rng_below(&g, 3) : 0);
        if (k > EACH - n)
            k = 1;
        for (size_t i = 0; i < k; i++)
            t[i] = (token){m->i, n + (uint32_t)i};
        klaw_scope *s = scope_maybe(m, &g, (int)m->i);
        e = send_somehow(m, &g, t, k);
        scope_end(s, (int)m->i, e);
        for (size_t i = 0; e == KLAW_OK && i < k; i++)
            atomic_store(&acc.accepted[m->i][n + i], 1);
        n += (uint32_t)k;
    }
    klaw_sender_close(m->r->tx[m->i]);
    atomic_fetch_sub(&m->r->senders_left, 1);
    return KLAW_OK;
}

static void told(member *m, uint32_t *last, token t) {
    CHECK(t.sender < SENDERS && t.number < EACH);
    bool first = t.sender == 1 && last[1] == 0 && t.number > 0;
    if (m->r->fault == LOSES_ONE && first) {
        last[1] = t.number + 1;
        return;
    }
    if (m->r->fault == OUT_OF_ORDER && first)
        last[1] = EACH + 1;
    if (t.number + 1 <= last[t.sender])
        atomic_store(&acc.disorder, true);
    if (m->r->fault == TELLS_TWICE && first)
        atomic_fetch_add(&acc.received[t.sender][t.number], 1);
    last[t.sender] = t.number + 1;
    atomic_fetch_add(&acc.received[t.sender][t.number], 1);
}

static klaw_err recv_somehow(member *m, rng *g, token *t, size_t *got) {
    klaw_receiver *rx = m->r->rx[m->i];
    klaw_deadline d = some_deadline(g);
    size_t chosen;
    klaw_err e;
    *got = 1;
    switch (rng_below(g, 5)) {
    case 0: return klaw_recv_batch(rx, t, 4, got, d);
    case 1: {
        klaw_case c[2] = {klaw_case_recv(rx, t), klaw_case_timer(KLAW_WITHIN(KLAW_US(50)))};
        e = klaw_select(c, 2, &chosen, d);
        return e ? e : chosen == 1 ? KLAW_TIMEOUT : c[0].err;
    }
    default: return klaw_recv(rx, t, d);
    }
}

static klaw_err receiver(void *arg) {
    member *m = arg;
    rng g = rng_part(m->r->seed, 100 + m->i);
    uint32_t last[SENDERS] = {0};
    klaw_err e;
    do {
        token t[4];
        size_t got = 0;
        klaw_scope *s = scope_maybe(m, &g, SENDERS + (int)m->i);
        e = recv_somehow(m, &g, t, &got);
        scope_end(s, SENDERS + (int)m->i, e);
        for (size_t i = 0; e == KLAW_OK && i < got; i++)
            told(m, last, t[i]);
        if (e == KLAW_EMPTY)
            OK(klaw_yield());
    } while (e != KLAW_CLOSED);
    klaw_receiver_close(m->r->rx[m->i]);
    return KLAW_OK;
}

/* Closes some of the handles while they are in use. */
static klaw_err closer(void *arg) {
    member *m = arg;
    rng g = rng_part(m->r->seed, 200);
    uint32_t closes = rng_below(&g, SENDERS + RECEIVERS + 1);
    for (uint32_t k = 0; k < closes && atomic_load(&m->r->senders_left) > 0; k++) {
        for (uint32_t i = rng_below(&g, 300); i > 0; i--)
            OK(klaw_yield());
        uint32_t which = rng_below(&g, SENDERS + RECEIVERS);
        if (which < SENDERS)
            klaw_sender_close(m->r->tx[which]);
        else
            klaw_receiver_close(m->r->rx[which - SENDERS]);
    }
    return KLAW_OK;
}

static const char *account_error(void) {
    if (atomic_load(&acc.disorder))
        return "out of order";
    for (int s = 0; s < SENDERS; s++) {
        for (int n = 0; n < EACH; n++) {
            int out = acc.received[s][n] + acc.dropped[s][n];
            if (acc.accepted[s][n] && out == 0)
                return "lost";
            if (acc.accepted[s][n] && out > 1)
                return "doubled";
            if (!acc.accepted[s][n] && out)
                return "not sent, and still there";
        }
    }
    return NULL;
}

static void account_run(int64_t cap, bool closes, uint64_t seed, enum fault fault) {
    static run r;
    member s[SENDERS], x[RECEIVERS], c = {&r, 0};
    job js[SENDERS], jx[RECEIVERS], jc, jk;
    memset(&acc, 0, sizeof acc);
    r = (run){.p = chan_of(&token_type, cap), .seed = seed, .fault = fault};
    r.scopes = world_now != THREADS;
    atomic_store(&r.senders_left, SENDERS);
    for (uint32_t i = 0; i < SENDERS; i++)
        OK(klaw_sender_clone(r.p.tx, &r.tx[i]));
    for (uint32_t i = 0; i < RECEIVERS; i++)
        OK(klaw_receiver_clone(r.p.rx, &r.rx[i]));
    klaw_sender_unref(r.p.tx);
    klaw_receiver_unref(r.p.rx);
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        x[i] = (member){&r, i};
        job_start(&jx[i], receiver, &x[i]);
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        s[i] = (member){&r, i};
        job_start(&js[i], sender, &s[i]);
    }
    if (closes)
        job_start(&jc, closer, &c);
    job_start(&jk, canceller, &c);
    for (int i = 0; i < SENDERS; i++)
        OK(job_end(&js[i]));
    OK(job_end(&jk));
    if (closes)
        OK(job_end(&jc));
    for (int i = 0; i < RECEIVERS; i++)
        OK(job_end(&jx[i]));
    for (int i = 0; i < SENDERS; i++)
        klaw_sender_unref(r.tx[i]);
    for (int i = 0; i < RECEIVERS; i++)
        klaw_receiver_unref(r.rx[i]);
}

static void account_of(int64_t cap) {
    uint64_t before = atomic_load(&cancelled);
    for (uint64_t i = 0; i < rounds(24); i++) {
        account_run(cap, i % 2, rng_part(check_seed, i).at, NONE);
        const char *error = account_error();
        if (error)
            check_failed(__FILE__, __LINE__, "the account", error);
    }
    /* Threads outside a runtime have no scopes. */
    CHECK(rounds(24) < 10 || (atomic_load(&cancelled) > before) == (world_now != THREADS));
}

SPEC(account_of_capacity_1) {
    account_of(1);
}
SPEC(account_of_capacity_3) {
    account_of(3);
}
SPEC(account_of_capacity_100) {
    account_of(100);
}
SPEC(account_of_unbounded) {
    account_of(KLAW_UNBOUNDED);
}
SPEC(account_of_rendezvous) {
    account_of(KLAW_RENDEZVOUS);
}

SPEC_PLAIN(account_objects_to_every_fault) {
    for (int fault = LOSES_ONE; fault < FAULTS; fault++) {
        int found = 0;
        for (uint64_t i = 0; i < 10 && !found; i++) {
            account_run(3, false, rng_part(check_seed, i).at, (enum fault)fault);
            found += account_error() != NULL;
        }
        CHECK(found);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(account_of_capacity_1),   cmocka_unit_test(account_of_capacity_3),
        cmocka_unit_test(account_of_capacity_100), cmocka_unit_test(account_of_unbounded),
        cmocka_unit_test(account_of_rendezvous),   cmocka_unit_test(account_objects_to_every_fault),
    };
    (void)seed_begin();
    return cmocka_run_group_tests_name("channel_account", tests, NULL, NULL);
}
