/* SPDX-License-Identifier: Apache-2.0 */
/* test_linearizability.c - short concurrent histories of real channels, checked against a
 * sequential queue.
 *
 * The checker is Wing and Gong's search with Lowe's memory of states seen: it looks for an order
 * of the operations that respects real time and that a bounded FIFO queue could have shown. A
 * rendezvous has no state; there each receive has to overlap the send it got its value from. The
 * checker is tried on histories made by hand and on queues that are broken. */
#include "support/chans.h"
#include "support/random.h"

#define HOSTS 4
#define OPS 5
#define MOST (HOSTS * OPS)

enum what { SEND, RECV };
typedef struct event {
    enum what what;
    uint8_t value;
    klaw_err answer; /* OK; FULL, EMPTY: found it so; TIMEOUT: nothing happened */
    uint64_t call, back;
} event;
typedef struct history {
    event e[MOST];
    int n;
    int64_t cap;
} history;

/* --- the checker --- */
typedef struct node {
    uint32_t done; /* a bit for each operation */
    uint8_t len;
    uint8_t q[MOST];
} node;
#define SEEN (1u << 16)
typedef struct search {
    const history *h;
    node seen[SEEN];
    uint32_t used[SEEN]; /* by which history */
    uint32_t now, count;
} search;

static bool seen_before(search *s, const node *st) {
    uint64_t x = st->done * 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < st->len; i++)
        x = (x ^ st->q[i]) * 0xd1342543de82ef95ull;
    uint32_t at = (uint32_t)(x >> 40) % SEEN;
    while (s->used[at] == s->now) {
        const node *o = &s->seen[at];
        if (o->done == st->done && o->len == st->len && memcmp(o->q, st->q, st->len) == 0)
            return true;
        at = (at + 1) % SEEN;
    }
    if (++s->count < SEEN / 2) { /* else: search on, only slower */
        s->used[at] = s->now;
        s->seen[at] = *st;
    }
    return false;
}

/* One step of the sequential queue. */
static bool step(const history *h, const event *e, node *st) {
    bool full = h->cap != KLAW_UNBOUNDED && st->len >= h->cap;
    if (e->answer == KLAW_TIMEOUT)
        return true;
    if (e->what == SEND) {
        if (e->answer == KLAW_FULL)
            return full;
        if (full)
            return false;
        st->q[st->len++] = e->value;
        return true;
    }
    if (e->answer == KLAW_EMPTY)
        return st->len == 0;
    if (st->len == 0 || st->q[0] != e->value)
        return false;
    memmove(st->q, st->q + 1, --st->len);
    return true;
}

static bool explore(search *s, const node *st) {
    const history *h = s->h;
    uint64_t first_back = UINT64_MAX;
    if (st->done == (h->n == 32 ? UINT32_MAX : (1u << h->n) - 1))
        return true;
    if (seen_before(s, st))
        return false;
    for (int i = 0; i < h->n; i++)
        if (!(st->done >> i & 1) && h->e[i].back < first_back)
            first_back = h->e[i].back;
    for (int i = 0; i < h->n; i++) {
        if (st->done >> i & 1 || h->e[i].call > first_back)
            continue; /* something else was over before this began */
        node next = *st;
        next.done |= 1u << i;
        if (step(h, &h->e[i], &next) && explore(s, &next))
            return true;
    }
    return false;
}

static bool met(const history *h) {
    for (int i = 0; i < h->n; i++) {
        int peers = 0, overlap = 0;
        if (h->e[i].answer != KLAW_OK)
            continue;
        for (int k = 0; k < h->n; k++) {
            if (h->e[k].answer != KLAW_OK || h->e[k].what == h->e[i].what ||
                h->e[k].value != h->e[i].value)
                continue;
            peers++;
            overlap += h->e[k].call < h->e[i].back && h->e[i].call < h->e[k].back;
        }
        if (peers != 1 || overlap != 1)
            return false;
    }
    return true;
}

static int by_call(const void *a, const void *b) {
    const event *x = a, *y = b;
    return x->call < y->call ? -1 : x->call > y->call;
}

/* Tries the operations in the order they began: the likely one. */
static bool linearizable(history *h) {
    static search s;
    node st = {0};
    if (h->cap == KLAW_RENDEZVOUS)
        return met(h);
    qsort(h->e, (size_t)h->n, sizeof h->e[0], by_call);
    s.now++;
    s.count = 0;
    s.h = h;
    return explore(&s, &st);
}

static void show(const history *h) {
    for (int i = 0; i < h->n; i++)
        fprintf(stderr, "%4" PRIu64 " .. %4" PRIu64 " %s %2d %s\n", h->e[i].call, h->e[i].back,
                h->e[i].what == SEND ? "send" : "recv", h->e[i].value,
                klaw_err_name(h->e[i].answer));
}

/* --- the checker on histories made by hand --- */
SPEC_PLAIN(checker_accepts_what_a_queue_can_do) {
    history one = {.cap = 2,
                   .n = 4,
                   .e = {{SEND, 1, KLAW_OK, 1, 2},
                         {SEND, 2, KLAW_OK, 3, 4},
                         {RECV, 1, KLAW_OK, 5, 6},
                         {RECV, 2, KLAW_OK, 7, 8}}};
    CHECK(linearizable(&one));
    history swapped = {.cap = 2,
                       .n = 4,
                       .e = {{SEND, 1, KLAW_OK, 1, 4},
                             {SEND, 2, KLAW_OK, 2, 3},
                             {RECV, 2, KLAW_OK, 5, 6},
                             {RECV, 1, KLAW_OK, 7, 8}}};
    CHECK(linearizable(&swapped)); /* the sends overlapped */
    history full = {.cap = 1,
                    .n = 4,
                    .e = {{SEND, 1, KLAW_OK, 1, 2},
                          {SEND, 2, KLAW_FULL, 3, 4},
                          {RECV, 1, KLAW_OK, 5, 6},
                          {RECV, 0, KLAW_EMPTY, 7, 8}}};
    CHECK(linearizable(&full));
    history early = {.cap = 1, .n = 2, .e = {{RECV, 1, KLAW_OK, 1, 4}, {SEND, 1, KLAW_OK, 2, 3}}};
    CHECK(linearizable(&early));
    early.cap = KLAW_RENDEZVOUS;
    CHECK(linearizable(&early));
    history late = {
        .cap = 1, .n = 2, .e = {{SEND, 1, KLAW_TIMEOUT, 1, 4}, {RECV, 0, KLAW_EMPTY, 5, 6}}};
    CHECK(linearizable(&late));
}

SPEC_PLAIN(checker_rejects_what_a_queue_cannot_do) {
    history order = {.cap = 2,
                     .n = 4,
                     .e = {{SEND, 1, KLAW_OK, 1, 2},
                           {SEND, 2, KLAW_OK, 3, 4},
                           {RECV, 2, KLAW_OK, 5, 6},
                           {RECV, 1, KLAW_OK, 7, 8}}};
    CHECK(!linearizable(&order));
    history lost = {.cap = 2, .n = 2, .e = {{SEND, 1, KLAW_OK, 1, 2}, {RECV, 0, KLAW_EMPTY, 3, 4}}};
    CHECK(!linearizable(&lost));
    history twice = {
        .cap = 2,
        .n = 3,
        .e = {{SEND, 1, KLAW_OK, 1, 2}, {RECV, 1, KLAW_OK, 3, 4}, {RECV, 1, KLAW_OK, 3, 4}}};
    CHECK(!linearizable(&twice));
    history over = {.cap = 1, .n = 2, .e = {{SEND, 1, KLAW_OK, 1, 2}, {SEND, 2, KLAW_OK, 3, 4}}};
    CHECK(!linearizable(&over));
    history early = {.cap = 1, .n = 2, .e = {{RECV, 1, KLAW_OK, 1, 2}, {SEND, 1, KLAW_OK, 3, 4}}};
    CHECK(!linearizable(&early));
    early.cap = KLAW_RENDEZVOUS;
    CHECK(!linearizable(&early));
    history buffered = {
        .cap = KLAW_RENDEZVOUS, .n = 2, .e = {{SEND, 1, KLAW_OK, 1, 2}, {RECV, 1, KLAW_OK, 3, 4}}};
    CHECK(!linearizable(&buffered));
    history full = {.cap = 2, .n = 2, .e = {{SEND, 1, KLAW_OK, 1, 2}, {SEND, 2, KLAW_FULL, 3, 4}}};
    CHECK(!linearizable(&full));
}

/* --- queues under test: klaw's, and broken ones --- */
enum queue { KLAW, LIFO, FORGETFUL, TWICE, BUFFERS_TOO_MUCH };
static struct {
    pthread_mutex_t lock;
    uint64_t q[MOST * 2], gets;
    int n;
} broken = {.lock = PTHREAD_MUTEX_INITIALIZER};

static klaw_err broken_send(enum queue how, int64_t cap, uint64_t v) {
    klaw_err e = KLAW_FULL;
    pthread_mutex_lock(&broken.lock);
    if (broken.n < cap + (how == BUFFERS_TOO_MUCH)) {
        if (how != FORGETFUL || v % 7)
            broken.q[broken.n++] = v;
        e = KLAW_OK;
    }
    pthread_mutex_unlock(&broken.lock);
    return e;
}
static klaw_err broken_recv(enum queue how, uint64_t *v) {
    klaw_err e = KLAW_EMPTY;
    pthread_mutex_lock(&broken.lock);
    if (broken.n > 0) {
        int at = how == LIFO ? broken.n - 1 : 0;
        *v = broken.q[at];
        if (how != TWICE || ++broken.gets % 5) {
            memmove(broken.q + at, broken.q + at + 1,
                    (size_t)(--broken.n - at) * sizeof broken.q[0]);
        }
        e = KLAW_OK;
    }
    pthread_mutex_unlock(&broken.lock);
    return e;
}

/* --- making histories: hosts that live on, and a round each --- */
typedef struct lab {
    enum queue queue;
    int64_t cap;
    int hosts;
    uint64_t seed, rounds;
    pair p;
    _Atomic uint64_t clock, round, over;
    event e[HOSTS][OPS];
    int n[HOSTS];
} lab;
typedef struct lab_host {
    lab *l;
    int i;
} lab_host;

static void lab_op(lab *l, rng *g, event *e, uint8_t value) {
    uint64_t v = value;
    klaw_deadline d = rng_one_in(g, 2) ? KLAW_NOWAIT : KLAW_WITHIN(KLAW_US(1 + rng_below(g, 50)));
    e->what = rng_one_in(g, 2) ? SEND : RECV;
    e->call = atomic_fetch_add(&l->clock, 1);
    if (l->queue != KLAW)
        e->answer = e->what == SEND ? broken_send(l->queue, l->cap, v) : broken_recv(l->queue, &v);
    else
        e->answer = e->what == SEND ? put(l->p.tx, v, d) : take(l->p.rx, &v, d);
    e->back = atomic_fetch_add(&l->clock, 1);
    e->value = e->answer == KLAW_OK ? (uint8_t)v : 0;
}

static klaw_err lab_host_run(void *arg) {
    lab_host *h = arg;
    lab *l = h->l;
    rng g = rng_part(l->seed, (uint64_t)h->i);
    for (uint64_t round = 1; round <= l->rounds; round++) {
        UNTIL(atomic_load(&l->round) >= round);
        l->n[h->i] = 3 + (int)rng_below(&g, OPS - 2);
        for (int k = 0; k < l->n[h->i]; k++)
            lab_op(l, &g, &l->e[h->i][k], (uint8_t)(1 + h->i * OPS + k));
        atomic_fetch_add(&l->over, 1);
    }
    return KLAW_OK;
}

/* How many of the histories were no queue's. */
static uint64_t histories(enum queue queue, int64_t cap, int hosts, uint64_t n, bool tell) {
    static lab l;
    lab_host h[HOSTS];
    job j[HOSTS];
    uint64_t bad = 0;
    memset(&l, 0, sizeof l);
    l.queue = queue;
    l.cap = cap;
    l.hosts = hosts;
    l.seed = check_seed ^ (uint64_t)cap << 8 ^ (uint64_t)hosts;
    l.rounds = n;
    for (int i = 0; i < hosts; i++) {
        h[i] = (lab_host){&l, i};
        job_start(&j[i], lab_host_run, &h[i]);
    }
    for (uint64_t round = 1; round <= n; round++) {
        history hist = {.cap = cap};
        l.p = queue == KLAW ? chan(cap) : (pair){NULL, NULL};
        broken.n = 0;
        atomic_store(&l.clock, 1);
        atomic_store(&l.round, round);
        UNTIL(atomic_load(&l.over) == round * (uint64_t)hosts);
        for (int i = 0; i < hosts; i++)
            for (int k = 0; k < l.n[i]; k++)
                hist.e[hist.n++] = l.e[i][k];
        if (!linearizable(&hist)) {
            bad++;
            if (tell)
                show(&hist);
        }
        if (l.p.tx)
            pair_free(l.p);
    }
    for (int i = 0; i < hosts; i++)
        OK(job_end(&j[i]));
    return bad;
}

SPEC_PLAIN(checker_rejects_broken_queues) {
    for (int queue = LIFO; queue <= BUFFERS_TOO_MUCH; queue++)
        CHECK(histories((enum queue)queue, 2, 3, 300, false) > 0);
}

/* In three worlds, with 2 to 4 hosts: 1350 a kind, 27 000 in a soak. */
static void linearizable_kind(const int64_t *caps, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (int hosts = 2; hosts <= HOSTS; hosts++)
            SAME(histories(KLAW, caps[i], hosts, rounds(150 / n), true), 0);
}

SPEC(linearizable_bounded) {
    static const int64_t caps[] = {1, 2, 3};
    linearizable_kind(caps, 3);
}
SPEC(linearizable_unbounded) {
    static const int64_t caps[] = {KLAW_UNBOUNDED};
    linearizable_kind(caps, 1);
}
SPEC(linearizable_rendezvous) {
    static const int64_t caps[] = {KLAW_RENDEZVOUS};
    linearizable_kind(caps, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checker_accepts_what_a_queue_can_do),
        cmocka_unit_test(checker_rejects_what_a_queue_cannot_do),
        cmocka_unit_test(checker_rejects_broken_queues),
        cmocka_unit_test(linearizable_bounded),
        cmocka_unit_test(linearizable_unbounded),
        cmocka_unit_test(linearizable_rendezvous),
    };
    (void)seed_begin();
    return cmocka_run_group_tests_name("linearizability", tests, NULL, NULL);
}
