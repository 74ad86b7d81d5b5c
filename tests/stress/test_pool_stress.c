/* SPDX-License-Identifier: Apache-2.0 */
/* test_pool_stress.c - one pool for many: senders, askers, maps and broadcasts, while members fail
 * and end and somebody resizes. Then the account: each message was dropped once and handled at most
 * once, each ask had one answer or one error, what one sender sent with one key was handled in order
 * as long as nobody resized, and nothing is left.
 *
 * A seed replays the operations; threads run as they please. Tried with these bugs seeded: a shrink
 * that kills instead of draining, former members whose counters are forgotten. */
#include "support/random.h"
#include "support/runs.h"

#define SENDERS 8
#define KEYS 4
#define PATIENCE KLAW_WITHIN(CHECK_PATIENCE)

typedef struct message {
    uint32_t sender, key;
    uint64_t n;
    bool fatal;
    uint64_t *cell; /* counted */
} message;

static _Atomic int64_t live, handled, handled_sends, accepted;
static _Atomic uint64_t last[SENDERS][KEYS]; /* handled of this sender and key */
static _Atomic bool ordered;                 /* nobody resizes, nobody ends */

static message message_make(uint32_t sender, uint32_t key, uint64_t n) {
    atomic_fetch_add(&live, 1);
    message m = {.sender = sender, .key = key, .n = n, .cell = malloc(sizeof *m.cell)};
    *m.cell = 0;
    return m;
}
static void message_drop(void *elem) {
    free(((message *)elem)->cell);
    atomic_fetch_sub(&live, 1);
}
static klaw_err message_share(const void *from, void *to) {
    const message *m = from;
    *(message *)to = message_make(m->sender, m->key, m->n);
    return KLAW_OK;
}
static const klaw_type message_type = {
    .name = "message", .size = sizeof(message), .drop = message_drop, .share = message_share};

static klaw_err handle(klaw_self *self, void *state, void *elem, void *reply) {
    message *m = elem;
    (void)self;
    (void)state;
    SAME(*m->cell, 0); /* at most once */
    *m->cell = 1;
    atomic_fetch_add(&handled, 1);
    if (m->sender < SENDERS && m->n) {
        atomic_fetch_add(&handled_sends, 1);
        uint64_t before = atomic_exchange(&last[m->sender][m->key], m->n);
        if (atomic_load(&ordered))
            CHECK(before < m->n);
    }
    if (m->fatal)
        return KLAW_CORRUPT;
    if (reply)
        *(uint64_t *)reply = m->n;
    return KLAW_OK;
}
static const klaw_behavior behavior = {
    .name = "worker", .message = &message_type, .reply = &klaw_u64, .handle = handle};

typedef struct sender {
    klaw_pool *pool;
    rng r;
    uint32_t id;
    uint64_t rounds;
    bool fatal;
} sender;

static klaw_err acceptable(klaw_err e) {
    CHECK(e == KLAW_OK || e == KLAW_STOPPED || e == KLAW_CORRUPT || e == KLAW_FULL ||
          e == KLAW_TIMEOUT);
    return e;
}

static void asks_one(sender *s, uint64_t n) {
    message m = message_make(s->id, 0, 0);
    uint64_t reply = 77;
    bool moved;
    m.n = n;
    m.sender = SENDERS; /* in no order */
    m.fatal = s->fatal && rng_one_in(&s->r, 50);
    klaw_err e = acceptable(klaw_pool_ask_moved(
        s->pool, &m, &reply, rng_one_in(&s->r, 8) ? KLAW_WITHIN(KLAW_US(50)) : PATIENCE, &moved));
    if (!moved)
        message_drop(&m);
    SAME(reply, e ? 77 : n);
}

static void maps_some(sender *s) {
    enum { N = 10 };
    message in[N];
    uint64_t out[N];
    klaw_pool_outcome how[N];
    for (int i = 0; i < N; i++) {
        in[i] = message_make(SENDERS, 0, (uint64_t)i);
        out[i] = 77;
    }
    klaw_err e = acceptable(klaw_pool_map(s->pool, in, N, out, how, 3, PATIENCE));
    for (int i = 0; i < N; i++) {
        if (!how[i].moved)
            message_drop(&in[i]);
        SAME(out[i], how[i].err ? 77 : (uint64_t)i);
        CHECK(e || !how[i].err);
    }
}

static klaw_err sends(void *arg) {
    sender *s = arg;
    uint64_t n[KEYS] = {0};
    for (uint64_t i = 0; i < s->rounds; i++) {
        uint32_t key = rng_below(&s->r, KEYS);
        switch (rng_below(&s->r, 20)) {
        case 0: maps_some(s); break;
        case 1: {
            message m = message_make(SENDERS, 0, 0);
            (void)acceptable(klaw_pool_broadcast(s->pool, &m, PATIENCE, NULL));
            message_drop(&m);
            break;
        }
        case 2:
        case 3:
        case 4: asks_one(s, i); break;
        default: {
            message m = message_make(s->id, key, n[key] + 1);
            m.fatal = s->fatal && rng_one_in(&s->r, 200);
            klaw_err e = acceptable(klaw_pool_send_key(s->pool, s->id * KEYS + key, &m, PATIENCE));
            if (e == KLAW_OK) {
                n[key]++;
                atomic_fetch_add(&accepted, 1);
            } else {
                message_drop(&m);
            }
        }
        }
    }
    return KLAW_OK;
}

static klaw_err resizes(void *arg) {
    sender *s = arg;
    for (uint64_t i = 0; i < s->rounds; i++) {
        OK(klaw_pool_resize(s->pool, 1 + rng_below(&s->r, 8)));
        OK(klaw_sleep(klaw_after(KLAW_US(rng_below(&s->r, 300)))));
    }
    return KLAW_OK;
}

/* All of it at once: `fatal` members fail and end, `resizing` somebody resizes. */
static void storm(uint64_t seed, bool fatal, bool resizing, klaw_restart restart) {
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 5, .strategy = (klaw_pool_strategy)(seed % 2)};
    o.actor = (klaw_actor_opts){
        .capacity = 16, .restart = restart, .no_backoff = true, .max_restarts = 1000000};
    sender all[SENDERS + 1];
    klaw_fiber *f[SENDERS + 1];
    atomic_store(&ordered, !resizing && !fatal);
    memset((void *)last, 0, sizeof last);
    atomic_store(&handled, 0);
    atomic_store(&handled_sends, 0);
    atomic_store(&accepted, 0);
    OK(klaw_pool_open(&behavior, NULL, &o, &p));
    uint32_t n = SENDERS + (resizing || fatal);
    for (uint32_t i = 0; i < n; i++) {
        all[i] = (sender){.pool = p, .r = rng_part(seed, i), .id = i, .fatal = fatal};
        all[i].rounds = i < SENDERS ? rounds(1000) : rounds(100);
        f[i] = fiber(i < SENDERS ? sends : resizes, &all[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        OK(result_of(f[i]));
    klaw_pool_stop(p);
    OK(klaw_pool_join(p, PATIENCE));
    klaw_pool_stats s;
    OK(klaw_pool_stats_get(p, &s));
    SAME(s.mailbox_size, 0);
    if (!fatal) {
        SAME(s.handled, atomic_load(&handled)); /* those of former members, too */
        SAME(atomic_load(&handled_sends), atomic_load(&accepted));
        SAME(s.failed, 0);
    }
    klaw_pool_unref(p);
    SAME(atomic_load(&live), 0);
}

static uint64_t seed;

RUNS(pool_keeps_its_account, 3) {
    storm(seed, false, false, KLAW_RESTART_ON_FAILURE);
    storm(seed + 1, false, true, KLAW_RESTART_ON_FAILURE);
    storm(seed + 2, true, false, KLAW_RESTART_ON_FAILURE);
    storm(seed + 3, true, true, KLAW_RESTART_ON_FAILURE);
    storm(seed + 4, true, true, KLAW_RESTART_NEVER); /* a resize brings them back */
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(pool_keeps_its_account)};
    seed = seed_begin();
    return cmocka_run_group_tests_name("pool_stress", tests, NULL, NULL);
}
