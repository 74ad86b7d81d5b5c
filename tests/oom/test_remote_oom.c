/* SPDX-License-Identifier: Apache-2.0 */
/* test_remote_oom.c - brokers and hubs without memory: the n-th allocation of a session fails, for every
 * n until a session meets none. A call that answers NOMEM has had no effect and succeeds when it is made
 * again; what fails inside is made up for by itself. Nothing is lost, doubled or leaked, each send has
 * one outcome, each attachment goes back as often as it was taken. */
#include "support/random.h"
#include "support/remote.h"
#include "support/runs.h"

#define B remote.b
#define H(i) remote.h[i]
#define TRY_OK(call)            \
    do {                        \
        klaw_err try_;          \
        REMOTE_TRY(try_, call); \
        OK(try_);               \
    } while (0)

#define NUMBERS 40
static attachment things[NUMBERS];
static uint32_t numbers[NUMBERS];
static int done[NUMBERS]; /* how often each was received for good */
static uint32_t sent;
static uint64_t tickets;

static klaw_remote_item next_item(bool attached) {
    CHECK(sent < NUMBERS);
    uint32_t n = sent++;
    numbers[n] = n;
    things[n].refs = attached;
    return (klaw_remote_item){.data = &numbers[n],
                              .size = sizeof numbers[n],
                              .context = "ctx",
                              .context_size = 3,
                              .attachment = attached ? &things[n] : NULL};
}

static void send_here(int hub, uint64_t tx, int n, bool whole, bool attached) {
    klaw_remote_item i[8];
    for (int k = 0; k < n; k++)
        i[k] = next_item(attached);
    tickets++;
    TRY_OK(klaw_hub_send(H(hub), remote.now, tx, i, (size_t)n, whole, tickets));
}

static void put_here(int n, bool attached) {
    klaw_remote_item i[8];
    for (int k = 0; k < n; k++)
        i[k] = next_item(attached);
    TRY_OK(klaw_broker_put(B, remote.now, remote.now, i, (size_t)n));
}

static void get_here(const char *reader) {
    klaw_remote_item i;
    TRY_OK(klaw_broker_get(B, remote.now, remote.now, reader, &i, NULL));
    uint32_t n = remote_number(&i);
    CHECK(n < sent);
    done[n]++;
}

/* Waits for one item and takes it. *much as of klaw_hub_take. */
static klaw_err take(int hub, uint64_t rx, klaw_remote_item *i, uint64_t *much) {
    klaw_err e;
    klaw_hub_wait(H(hub), remote.now, rx, 1);
    for (int steps = 0;; steps++) {
        REMOTE_TRY(e, klaw_hub_take(H(hub), remote.now, remote.now, rx, i, much));
        if (e != KLAW_EMPTY)
            break;
        CHECK(steps < 3000);
        remote_run(4 * REMOTE_MS);
    }
    klaw_hub_wait(H(hub), remote.now, rx, -1);
    return e;
}

static void receive(int hub, uint64_t rx, int count) {
    klaw_remote_item i;
    for (; count > 0; count--) {
        OK(take(hub, rx, &i, NULL));
        OK(klaw_hub_ack(H(hub), remote.now, rx, i.lease));
        uint32_t n = remote_number(&i);
        CHECK(n < sent);
        done[n]++;
    }
}

static void gives_back(int hub, uint64_t rx, bool looked_at) {
    klaw_remote_item i;
    OK(take(hub, rx, &i, NULL));
    OK(klaw_hub_nack(H(hub), remote.now, rx, i.lease, looked_at));
    (void)remote_number(&i);
}

static void all_leave(void) {
    for (int i = 0; i < REMOTE_HUBS; i++)
        if (H(i))
            klaw_hub_detach(H(i), remote.now);
    remote_run(KLAW_S(1));
    for (int i = 0; i < REMOTE_HUBS; i++)
        CHECK(!H(i) || klaw_hub_idle(H(i)));
    klaw_broker_stats s = remote_look();
    SAME(s.clients + s.leased + s.parked, 0);
    for (uint64_t t = 1; t <= tickets; t++) {
        SAME(remote.told[t], 1);
        SAME(remote.outcome[t], KLAW_HUB_SENT);
    }
    remote_end();
    for (uint32_t n = 0; n < sent; n++)
        SAME(things[n].refs, 0);
}

static void each_once(void) {
    for (uint32_t n = 0; n < sent; n++)
        SAME(done[n], 1);
}

/* --- the sessions --- */

static void queue_session(void) {
    static const unsigned char token[KLAW_REMOTE_ID] = {77};
    uint64_t other = 0;
    remote_start((klaw_broker_opts){.capacity = 6, .type = "t", .type_size = 1});
    remote_hub(0, (klaw_hub_opts){.frame_bytes = 64, .node = "here", .type = "t", .type_size = 1});
    remote_hub(1, (klaw_hub_opts){.node = "there"});
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER), rx = remote_open(1, KLAW_REMOTE_RECEIVER);
    remote_run(20 * REMOTE_MS);
    TRY_OK(klaw_hub_mint(H(0), remote.now, KLAW_REMOTE_SENDER, token));
    remote_run(20 * REMOTE_MS);
    TRY_OK(klaw_hub_open(H(1), remote.now, KLAW_REMOTE_SENDER, token, &other));
    for (int i = 0; i < 4; i++)
        send_here(0, tx, 1, false, i & 1);
    send_here(1, other, 2, false, false);
    send_here(0, tx, 3, true, true); /* has to wait for room */
    remote_run(20 * REMOTE_MS);
    gives_back(1, rx, false);
    gives_back(1, rx, true);
    receive(1, rx, 9);
    put_here(3, true);
    get_here("");
    receive(1, rx, 2);
    OK(klaw_hub_close(H(1), remote.now, other));
    OK(klaw_hub_close(H(0), remote.now, tx));
    klaw_remote_item i;
    GIVES(take(1, rx, &i, NULL), KLAW_CLOSED);
    each_once();
    all_leave();
}

static void durable_session(void) {
    remote_start((klaw_broker_opts){.durable = true});
    remote_hub(0, (klaw_hub_opts){0});
    remote_hub(1, (klaw_hub_opts){0});
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER), rx = remote_open(1, KLAW_REMOTE_RECEIVER);
    send_here(0, tx, 3, true, false);
    send_here(0, tx, 1, false, false);
    remote_run(20 * REMOTE_MS);
    receive(1, rx, 1);
    remote_run(50 * REMOTE_MS);
    remote_snapshot();
    send_here(0, tx, 2, false, false);
    klaw_remote_item held;
    OK(take(1, rx, &held, NULL)); /* and keeps it over the restart */
    remote_run(50 * REMOTE_MS);
    remote_restart();
    remote_run(KLAW_S(4));
    OK(klaw_hub_ack(H(1), remote.now, rx, held.lease));
    done[remote_number(&held)]++;
    send_here(0, tx, 2, false, false);
    receive(1, rx, 6);
    put_here(2, false);
    remote_run(2 * REMOTE_MS);
    get_here("");
    receive(1, rx, 1);
    remote_run(50 * REMOTE_MS);
    remote_restart(); /* nothing comes again */
    remote_run(KLAW_S(4));
    OK(klaw_hub_close(H(0), remote.now, tx));
    GIVES(take(1, rx, &held, NULL), KLAW_CLOSED);
    each_once();
    all_leave();
}

/* Without a log: what hubs retained is sent again, what they had is not taken twice. */
static void memory_session(void) {
    remote_start((klaw_broker_opts){.capacity = 20});
    remote_hub(0, (klaw_hub_opts){0});
    remote_hub(1, (klaw_hub_opts){0});
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER), rx = remote_open(1, KLAW_REMOTE_RECEIVER);
    put_here(2, true);
    send_here(0, tx, 6, false, true);
    remote_run(20 * REMOTE_MS);
    receive(1, rx, 2);
    klaw_remote_item held;
    OK(take(1, rx, &held, NULL));
    remote_restart();
    put_here(2, true); /* numbered like the first two, and not taken for them */
    remote_run(KLAW_S(4));
    OK(klaw_hub_ack(H(1), remote.now, rx, held.lease));
    done[remote_number(&held)]++;
    receive(1, rx, 7);
    OK(klaw_hub_close(H(0), remote.now, tx));
    GIVES(take(1, rx, &held, NULL), KLAW_CLOSED);
    each_once();
    all_leave();
}

/* Whoever reads a broadcast knows of each number. */
static void broadcast_session(void) {
    uint64_t rx[2], much;
    uint32_t next[2] = {0};
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_BROADCAST, .capacity = 3});
    remote_hub(0, (klaw_hub_opts){0});
    remote_hub(1, (klaw_hub_opts){0});
    TRY_OK(klaw_broker_register(B, remote.now, KLAW_REMOTE_RECEIVER, "a", "here"));
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER);
    for (int i = 0; i < 2; i++)
        rx[i] = remote_open(i, KLAW_REMOTE_RECEIVER);
    remote_run(20 * REMOTE_MS);
    for (int round = 0; round < 3; round++) {
        send_here(0, tx, 4, false, true);
        remote_run(20 * REMOTE_MS);
        put_here(1, true);
        for (int i = 0; i < 2; i++)
            while (next[i] < sent) {
                klaw_remote_item item;
                klaw_err e = take(i, rx[i], &item, &much);
                if (e == KLAW_LAGGED) {
                    next[i] += (uint32_t)much;
                    continue;
                }
                OK(e);
                OK(klaw_hub_ack(H(i), remote.now, rx[i], item.lease));
                SAME(remote_number(&item), next[i]);
                next[i]++;
            }
        klaw_remote_item item;
        klaw_err e;
        REMOTE_TRY(e, klaw_broker_get(B, remote.now, remote.now, "a", &item, &much));
        GIVES(e, KLAW_LAGGED);
        SAME(much, 2);
        for (int i = 0; i < 3; i++)
            get_here("a");
    }
    for (uint32_t n = 0; n < sent; n++)
        SAME(done[n], n % 5 >= 2);
    OK(klaw_broker_deregister(B, remote.now, KLAW_REMOTE_RECEIVER, "a"));
    all_leave();
}

static void watch_session(void) {
    klaw_remote_item i;
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_WATCH});
    remote_hub(0, (klaw_hub_opts){0});
    remote_hub(1, (klaw_hub_opts){0});
    TRY_OK(klaw_broker_register(B, remote.now, KLAW_REMOTE_RECEIVER, "a", "here"));
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER), rx = remote_open(1, KLAW_REMOTE_RECEIVER);
    remote_run(20 * REMOTE_MS);
    for (int round = 0; round < 3; round++) {
        send_here(0, tx, 3, false, true);
        remote_run(20 * REMOTE_MS);
        OK(take(1, rx, &i, NULL));
        OK(klaw_hub_ack(H(1), remote.now, rx, i.lease));
        SAME(remote_number(&i), sent - 1);
        get_here("a");
        SAME(done[sent - 1], 1);
        TRY_OK(klaw_broker_borrow(B, &i));
        i.attachment = NULL;
        SAME(remote_number(&i), sent - 1);
    }
    OK(klaw_broker_deregister(B, remote.now, KLAW_REMOTE_RECEIVER, "a"));
    all_leave();
}

/* --- each with each allocation failing --- */

static void each(void (*session)(void)) {
    int failures = 0;
    rng r = {1};
    uint32_t stride = rounds(1000) < 100 ? 23 : 1; /* valgrind */
    for (uint64_t n = 1;; n += 1 + (stride > 1 ? rng_below(&r, stride) : 0)) {
        CHECK(n < 20000);
        memset(done, 0, sizeof done);
        memset(things, 0, sizeof things);
        sent = 0;
        tickets = 0;
        uint64_t live = klaw_alloc_live();
        klaw_alloc_fail_at(n, false);
        session();
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        SAME(klaw_alloc_live(), live);
        if (!met)
            break;
        failures++;
    }
    printf("%d allocations failed\n", failures);
    CHECK(failures > 5);
}

PLAIN(queue_without_memory) {
    each(queue_session);
}
PLAIN(durable_queue_without_memory) {
    each(durable_session);
}
PLAIN(restart_without_a_log_and_without_memory) {
    each(memory_session);
}
PLAIN(broadcast_without_memory) {
    each(broadcast_session);
}
PLAIN(watch_without_memory) {
    each(watch_session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(queue_without_memory),
        TEST(durable_queue_without_memory),
        TEST(restart_without_a_log_and_without_memory),
        TEST(broadcast_without_memory),
        TEST(watch_without_memory),
    };
    return cmocka_run_group_tests_name("remote_oom", tests, NULL, NULL);
}
