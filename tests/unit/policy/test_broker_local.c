/* SPDX-License-Identifier: Apache-2.0 */
/* test_broker_local.c - a broker without hubs: put, get, borrow, peek, register and deregister on each
 * kind of channel, what they count; and how exactly a slow receiver, here or behind a hub, is told
 * what it missed of a broadcast. */
#include "support/random.h"
#include "support/remote.h"
#include "support/runs.h"

#define B remote.b

static attachment things[64];

/* A number, with an attachment if it has one. */
static klaw_err put_with(uint32_t n, attachment *a, int64_t deadline) {
    klaw_remote_item i = {.data = &n,
                          .size = sizeof n,
                          .context = "ctx",
                          .context_size = 3,
                          .attachment = a,
                          .sent_at = remote.now,
                          .deadline = deadline,
                          .flags = KLAW_REMOTE_REFERENCE | KLAW_REMOTE_VOID,
                          .codec = KLAW_REMOTE_PICKLE};
    if (a)
        a->refs = 1;
    klaw_err e = klaw_broker_put(B, remote.now, remote.now, &i, 1);
    if (e && a)
        a->refs = 0; /* still ours */
    return e;
}
static klaw_err put(uint32_t n) {
    return put_with(n, NULL, 0);
}
static klaw_err get(const char *reader, uint32_t *n, uint64_t *missed) {
    klaw_remote_item i;
    klaw_err e = klaw_broker_get(B, remote.now, remote.now, reader, &i, missed);
    if (e == KLAW_OK) {
        SAME(i.context_size, 3);
        CHECK(memcmp(i.context, "ctx", 3) == 0);
        SAME(i.codec, KLAW_REMOTE_PICKLE);
        SAME(i.flags, KLAW_REMOTE_REFERENCE); /* nobody makes a void one here */
        *n = remote_number(&i);
    }
    return e;
}
#define GETS(reader, want)              \
    do {                                \
        uint32_t got_ = UINT32_MAX;     \
        OK(get((reader), &got_, NULL)); \
        SAME(got_, want);               \
    } while (0)
#define GETS_NOT(reader, code)                   \
    do {                                         \
        uint32_t got_;                           \
        GIVES(get((reader), &got_, NULL), code); \
    } while (0)
#define REGISTER(side, reader) klaw_broker_register(B, remote.now, side, reader, "node 1")
#define DEREGISTER(side, reader) klaw_broker_deregister(B, remote.now, side, reader)

PLAIN(queue_gives_in_order_and_is_full_at_its_capacity) {
    remote_start((klaw_broker_opts){.capacity = 3});
    GETS_NOT("", KLAW_EMPTY);
    for (uint32_t i = 0; i < 3; i++)
        OK(put(i));
    GIVES(put(3), KLAW_FULL);
    SAME(remote_look().queued, 3);
    GETS(NULL, 0);
    OK(put(3));
    for (uint32_t i = 1; i < 4; i++)
        GETS("", i);
    GETS_NOT("", KLAW_EMPTY);
    klaw_broker_stats s = remote_look();
    SAME(s.total_sent, 4);
    SAME(s.total_received, 4);
    SAME(s.high_watermark, 3);
    SAME(s.bytes + s.queued + s.leased + s.redelivered + s.clients, 0);
    SAME(s.capacity, 3);
    remote_end();
}

PLAIN(several_items_are_accepted_together_or_not_at_all) {
    remote_start((klaw_broker_opts){.capacity = 3});
    uint32_t n[3] = {0, 1, 2};
    klaw_remote_item i[3] = {{.data = &n[0], .size = 4},
                             {.data = &n[1], .size = 4, .attachment = &things[0]},
                             {.data = &n[2], .size = 4}};
    OK(put(9));
    things[0].refs = 1;
    GIVES(klaw_broker_put(B, remote.now, remote.now, i, 3), KLAW_FULL);
    SAME(remote_look().queued, 1);
    SAME(things[0].refs, 1); /* still the caller's */
    GETS("", 9);
    i[2].context_size = UINT16_MAX + 1;
    GIVES(klaw_broker_put(B, remote.now, remote.now, i, 3), KLAW_LIMIT);
    SAME(remote_look().queued, 0);
    i[2].context_size = 0;
    OK(klaw_broker_put(B, remote.now, remote.now, i, 3));
    SAME(remote_look().queued, 3);
    remote_end();
    SAME(things[0].refs, 0);
}

PLAIN(unbounded_queue_is_never_full) {
    remote_start((klaw_broker_opts){.capacity = KLAW_NONE});
    for (uint32_t i = 0; i < 20000; i++)
        OK(put(i));
    SAME(remote_look().bytes, 80000);
    SAME(remote_look().capacity, KLAW_NONE);
    remote_end();
}

PLAIN(peek_shows_what_waits_and_takes_nothing) {
    remote_start((klaw_broker_opts){0});
    void *at = NULL;
    klaw_remote_item i;
    GIVES(klaw_broker_peek(B, &at, &i), KLAW_EMPTY);
    for (uint32_t n = 0; n < 3; n++)
        OK(put_with(n, &things[n], 0));
    for (int again = 0; again < 2; again++) {
        at = NULL;
        for (uint32_t n = 0; n < 3; n++) {
            OK(klaw_broker_peek(B, &at, &i));
            CHECK(i.attachment == &things[n]);
            i.attachment = NULL; /* only lent */
            SAME(remote_number(&i), n);
        }
        GIVES(klaw_broker_peek(B, &at, &i), KLAW_EMPTY);
    }
    SAME(remote_look().queued, 3);
    for (uint32_t n = 0; n < 3; n++)
        GETS("", n);
    remote_end();
    for (int n = 0; n < 3; n++)
        SAME(things[n].refs, 0);
}

PLAIN(last_sender_closes_after_what_it_sent) {
    remote_start((klaw_broker_opts){0});
    GIVES(DEREGISTER(KLAW_REMOTE_SENDER, NULL), KLAW_NOT_FOUND);
    OK(REGISTER(KLAW_REMOTE_SENDER, NULL));
    OK(REGISTER(KLAW_REMOTE_SENDER, NULL));
    OK(put(1));
    OK(DEREGISTER(KLAW_REMOTE_SENDER, NULL));
    SAME(remote_look().senders, 1);
    OK(put(2));
    OK(DEREGISTER(KLAW_REMOTE_SENDER, NULL));
    CHECK(remote_look().senders_closed);
    GIVES(put(3), KLAW_CLOSED);
    GIVES(REGISTER(KLAW_REMOTE_SENDER, NULL), KLAW_CLOSED);
    GETS("", 1);
    GETS("", 2);
    GETS_NOT("", KLAW_CLOSED);
    GETS_NOT("", KLAW_CLOSED);
    remote_end();
}

PLAIN(last_receiver_closes_at_once) {
    remote_start((klaw_broker_opts){0});
    GIVES(DEREGISTER(KLAW_REMOTE_RECEIVER, "a"), KLAW_NOT_FOUND);
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
    GIVES(REGISTER(KLAW_REMOTE_RECEIVER, "a"), KLAW_EXISTS);
    GIVES(REGISTER(KLAW_REMOTE_RECEIVER, NULL), KLAW_INVALID);
    char name[257];
    memset(name, 'x', 256);
    name[256] = '\0';
    GIVES(REGISTER(KLAW_REMOTE_RECEIVER, name), KLAW_INVALID);
    OK(REGISTER(KLAW_REMOTE_RECEIVER, name + 1));
    SAME(remote_look().receivers, 2);
    OK(DEREGISTER(KLAW_REMOTE_RECEIVER, name + 1));
    OK(put_with(1, &things[0], 0));
    OK(DEREGISTER(KLAW_REMOTE_RECEIVER, "a"));
    CHECK(remote_look().receivers_closed);
    GIVES(put(2), KLAW_CLOSED);
    GIVES(REGISTER(KLAW_REMOTE_RECEIVER, "b"), KLAW_CLOSED);
    GIVES(DEREGISTER(KLAW_REMOTE_RECEIVER, "a"), KLAW_NOT_FOUND);
    remote_end();
    SAME(things[0].refs, 0);
}

PLAIN(deleted_channel_takes_and_gives_nothing_new) {
    for (int kind = KLAW_REMOTE_QUEUE; kind <= KLAW_REMOTE_WATCH; kind++) {
        remote_start((klaw_broker_opts){.kind = (klaw_remote_kind)kind});
        OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
        OK(REGISTER(KLAW_REMOTE_SENDER, NULL));
        OK(put_with(1, &things[kind], 0));
        klaw_broker_delete(B, remote.now);
        CHECK(remote_look().deleted);
        GIVES(put(2), KLAW_CLOSED);
        GIVES(REGISTER(KLAW_REMOTE_SENDER, NULL), KLAW_CLOSED);
        GIVES(REGISTER(KLAW_REMOTE_RECEIVER, "b"), KLAW_CLOSED);
        remote_end();
        SAME(things[kind].refs, 0);
    }
}

PLAIN(items_past_their_deadline_are_dropped_and_counted) {
    remote_start((klaw_broker_opts){.capacity = 3});
    OK(put_with(0, &things[0], remote.now + 5 * REMOTE_MS));
    OK(put_with(1, &things[1], 0));
    OK(put_with(2, &things[2], remote.now + 50 * REMOTE_MS));
    GIVES(put(3), KLAW_FULL);
    remote.now += 5 * REMOTE_MS; /* at its deadline it is late */
    OK(put(3));
    SAME(things[0].refs, 0);
    SAME(remote_look().expired, 1);
    GETS("", 1);
    GETS("", 2);
    GETS("", 3);
    OK(put_with(4, &things[4], remote.now + 50 * REMOTE_MS));
    remote.now += 60 * REMOTE_MS;
    GETS_NOT("", KLAW_EMPTY);
    SAME(things[4].refs, 0);
    klaw_broker_stats s = remote_look();
    SAME(s.expired, 2);
    SAME(s.total_sent, 5);
    SAME(s.total_received, 3);
    SAME(s.queued + s.bytes, 0);
    remote_end();
}

/* --- broadcast --- */

PLAIN(each_reader_of_a_broadcast_has_each_item_since_it_registered) {
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_BROADCAST, .capacity = 10});
    OK(REGISTER(KLAW_REMOTE_SENDER, NULL));
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
    GETS_NOT("", KLAW_NOT_FOUND);
    GETS_NOT("b", KLAW_NOT_FOUND);
    OK(put_with(0, &things[0], 0));
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "b"));
    OK(put_with(1, &things[1], 0));
    GETS("b", 1);
    GETS_NOT("b", KLAW_EMPTY);
    GETS("a", 0);
    SAME(things[0].refs, 0); /* everybody had it */
    SAME(remote_look().queued, 1);
    GETS("a", 1);
    SAME(things[1].refs, 0);
    OK(put_with(2, &things[2], 0));
    GETS("a", 2);
    OK(DEREGISTER(KLAW_REMOTE_RECEIVER, "b"));
    SAME(things[2].refs, 0); /* b does not want it any more */
    OK(put(3));
    OK(DEREGISTER(KLAW_REMOTE_SENDER, NULL));
    GETS("a", 3);
    GETS_NOT("a", KLAW_CLOSED);
    klaw_broker_stats s = remote_look();
    SAME(s.total_sent, 4);
    SAME(s.total_received, 5);
    SAME(s.missed + s.queued + s.bytes, 0);
    remote_end();
}

PLAIN(lagging_reader_is_told_once_how_many_it_missed) {
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_BROADCAST, .capacity = 3});
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "slow"));
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "fast"));
    for (uint32_t i = 0; i < 10; i++) {
        OK(put_with(i, &things[i], 0));
        GETS("fast", i);
    }
    for (int i = 0; i < 10; i++)
        SAME(things[i].refs, i >= 7);
    uint32_t n;
    uint64_t missed;
    GIVES(get("slow", &n, &missed), KLAW_LAGGED);
    SAME(missed, 7);
    OK(get("slow", &n, &missed));
    SAME(missed, 0);
    SAME(n, 7);
    OK(put(10)); /* 8, 9, 10: nothing is lost */
    GETS("slow", 8);
    for (uint32_t i = 11; i < 14; i++)
        OK(put(i));
    GIVES(get("slow", &n, &missed), KLAW_LAGGED);
    SAME(missed, 2);
    GETS("slow", 11);
    GIVES(get("fast", &n, &missed), KLAW_LAGGED);
    SAME(missed, 1);
    SAME(remote_look().missed, 10);
    remote_end();
    for (int i = 0; i < 10; i++)
        SAME(things[i].refs, 0);
}

PLAIN(late_items_of_a_broadcast_reach_nobody) {
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_BROADCAST, .capacity = 10});
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
    OK(put_with(0, &things[0], remote.now + REMOTE_MS));
    OK(put(1));
    remote.now += REMOTE_MS;
    GETS("a", 1);
    SAME(things[0].refs, 0);
    SAME(remote_look().expired, 1);
    SAME(remote_look().missed, 0);
    remote_end();
}

/* Readers here and behind a hub, each at its own pace: at each item what it had and what it was told
 * that it missed add up to the item's number. */
PLAIN(missed_counts_of_a_live_broadcast_are_exact) {
    uint64_t seed = seed_begin();
    for (uint64_t part = 0; part < rounds(300); part++) {
        rng r = rng_part(seed, part);
        enum { LOCAL = 2, FAR = 3, ALL = LOCAL + FAR };
        static const char *const names[] = {"a", "b"};
        uint64_t had[ALL] = {0}, missed[ALL] = {0}, rx[ALL], sent = 0, told = 0, much;
        bool waits[ALL] = {false};
        uint32_t n, pace[ALL];
        remote_start(
            (klaw_broker_opts){.kind = KLAW_REMOTE_BROADCAST, .capacity = 1 + rng_below(&r, 8)});
        remote_hub(0, (klaw_hub_opts){0});
        remote_hub(1, (klaw_hub_opts){0});
        for (int i = 0; i < ALL; i++) {
            pace[i] = 1 + rng_below(&r, 12);
            if (i < LOCAL)
                OK(REGISTER(KLAW_REMOTE_RECEIVER, names[i]));
            else
                rx[i] = remote_open(i & 1, KLAW_REMOTE_RECEIVER);
        }
        remote_run(10 * REMOTE_MS);
        for (int step = 0; step < 250; step++) {
            bool quiet = step >= 200; /* at last everybody catches up */
            for (uint32_t k = quiet ? 0 : rng_below(&r, 4); k > 0; k--)
                OK(put((uint32_t)sent++));
            for (int i = 0; i < ALL; i++) {
                if (!quiet && !rng_one_in(&r, pace[i]))
                    continue;
                klaw_remote_item item;
                klaw_err e = i < LOCAL ? get(names[i], &n, &much)
                                       : klaw_hub_take(remote.h[i & 1], remote.now, remote.now,
                                                       rx[i], &item, &much);
                if (e == KLAW_LAGGED) {
                    CHECK(much > 0);
                    missed[i] += much;
                    continue;
                }
                if (i >= LOCAL && waits[i] != (e == KLAW_EMPTY)) {
                    waits[i] = e == KLAW_EMPTY;
                    klaw_hub_wait(remote.h[i & 1], remote.now, rx[i], waits[i] ? 1 : -1);
                }
                if (e == KLAW_EMPTY)
                    continue;
                OK(e);
                if (i >= LOCAL) {
                    (void)klaw_hub_ack(remote.h[i & 1], remote.now, rx[i], item.lease);
                    n = remote_number(&item);
                }
                SAME(n, had[i] + missed[i]);
                had[i]++;
            }
            remote_run(rng_below(&r, 3) * 2 * REMOTE_MS);
        }
        for (int i = 0; i < ALL; i++) {
            SAME(had[i] + missed[i], sent);
            told += missed[i];
        }
        SAME(remote_look().missed, told);
        remote_end();
    }
}

/* --- watch --- */

PLAIN(watch_gives_the_newest_value_once_to_each) {
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_WATCH});
    klaw_remote_item i;
    GIVES(klaw_broker_borrow(B, &i), KLAW_EMPTY);
    OK(REGISTER(KLAW_REMOTE_SENDER, NULL));
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
    GETS_NOT("a", KLAW_EMPTY);
    for (uint32_t n = 0; n < 3; n++)
        OK(put_with(n, &things[n], 0)); /* never full */
    SAME(things[0].refs + things[1].refs, 0);
    SAME(things[2].refs, 1);
    OK(klaw_broker_borrow(B, &i));
    CHECK(i.attachment == &things[2]);
    i.attachment = NULL; /* only lent */
    SAME(remote_number(&i), 2);
    GETS("a", 2);
    GETS_NOT("a", KLAW_EMPTY);
    SAME(things[2].refs, 1); /* it stays the newest one */
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "b"));
    GETS("b", 2); /* whoever comes later has it too */
    OK(put(3));
    OK(DEREGISTER(KLAW_REMOTE_SENDER, NULL));
    GETS("b", 3);
    GETS_NOT("b", KLAW_CLOSED);
    GETS("a", 3);
    GETS_NOT("a", KLAW_CLOSED);
    OK(klaw_broker_borrow(B, &i));
    SAME(remote_number(&i), 3);
    klaw_broker_stats s = remote_look();
    SAME(s.total_sent, 4);
    SAME(s.total_received, 4);
    SAME(s.queued, 1);
    remote_end();
    SAME(things[2].refs, 0);
}

PLAIN(watch_forgets_a_value_past_its_deadline) {
    remote_start((klaw_broker_opts){.kind = KLAW_REMOTE_WATCH});
    klaw_remote_item i;
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
    OK(put_with(0, &things[0], remote.now + REMOTE_MS));
    OK(put_with(1, &things[1], remote.now + 2 * REMOTE_MS));
    CHECK(klaw_broker_deadline(B) <= remote.now + 2 * REMOTE_MS);
    remote.now += REMOTE_MS;
    GETS("a", 1);
    SAME(remote_look().expired, 0); /* the first one was replaced */
    remote.now += REMOTE_MS;
    klaw_broker_tick(B, remote.now, remote.now);
    OK(REGISTER(KLAW_REMOTE_RECEIVER, "b"));
    GETS_NOT("b", KLAW_EMPTY);
    GIVES(klaw_broker_borrow(B, &i), KLAW_EMPTY);
    SAME(things[1].refs, 0);
    SAME(remote_look().expired, 1);
    SAME(remote_look().queued, 0);
    SAME(klaw_broker_deadline(B), INT64_MAX);
    OK(put(2));
    GETS("a", 2);
    GETS("b", 2);
    remote_end();
}

/* --- who reads --- */

typedef struct seen {
    int n;
    struct {
        char name[64], node[16];
        int64_t at, last;
        uint64_t received;
    } r[8];
    int stop_at;
} seen;
static bool see(void *user, const klaw_broker_reader *r) {
    seen *s = user;
    snprintf(s->r[s->n].name, sizeof s->r[0].name, "%s", r->reader);
    snprintf(s->r[s->n].node, sizeof s->r[0].node, "%s", r->node);
    s->r[s->n].at = r->registered_at;
    s->r[s->n].last = r->last_seen_at;
    s->r[s->n].received = r->total_received;
    return ++s->n != s->stop_at;
}

PLAIN(readers_have_statistics_of_their_own) {
    for (int kind = KLAW_REMOTE_QUEUE; kind <= KLAW_REMOTE_WATCH; kind++) {
        remote_start((klaw_broker_opts){.kind = (klaw_remote_kind)kind});
        int64_t start = remote.now;
        OK(REGISTER(KLAW_REMOTE_RECEIVER, "a"));
        remote.now += 10;
        OK(klaw_broker_register(B, remote.now, KLAW_REMOTE_RECEIVER, "b", NULL));
        OK(REGISTER(KLAW_REMOTE_RECEIVER, "c"));
        for (uint32_t i = 0; i < 3; i++) {
            OK(put(i));
            remote.now += 10;
            GETS(i < 2 ? "a" : "c", i < 2 || kind != KLAW_REMOTE_BROADCAST ? i : 0);
        }
        seen s = {0};
        klaw_broker_readers(B, see, &s);
        SAME(s.n, 3);
        CHECK(strcmp(s.r[0].name, "a") == 0 && strcmp(s.r[1].name, "b") == 0);
        CHECK(strcmp(s.r[0].node, "node 1") == 0 && strcmp(s.r[1].node, "") == 0);
        SAME(s.r[0].at, start);
        SAME(s.r[1].at, start + 10);
        SAME(s.r[0].last, start + 30);
        SAME(s.r[1].last, start + 10);
        SAME(s.r[2].last, start + 40);
        SAME(s.r[0].received, 2);
        SAME(s.r[1].received, 0);
        SAME(s.r[2].received, 1);
        s = (seen){.stop_at = 2};
        klaw_broker_readers(B, see, &s);
        SAME(s.n, 2);
        OK(DEREGISTER(KLAW_REMOTE_RECEIVER, "a")); /* the others keep theirs */
        s = (seen){0};
        klaw_broker_readers(B, see, &s);
        SAME(s.n, 2);
        for (int i = 0; i < 2; i++)
            SAME(s.r[i].received, s.r[i].name[0] == 'c');
        remote_end();
    }
}

/* What is put here reaches a hub, and what a hub sends can be taken here. */
PLAIN(calls_with_and_without_a_hub_share_one_queue) {
    remote_start((klaw_broker_opts){.capacity = 4});
    remote_hub(0, (klaw_hub_opts){0});
    uint64_t tx = remote_open(0, KLAW_REMOTE_SENDER), rx = remote_open(0, KLAW_REMOTE_RECEIVER);
    OK(put_with(1, &things[1], 0));
    things[2].refs = 1;
    uint32_t n = 2;
    klaw_remote_item i = {.data = &n,
                          .size = sizeof n,
                          .context = "ctx",
                          .context_size = 3,
                          .attachment = &things[2],
                          .flags = KLAW_REMOTE_REFERENCE,
                          .codec = KLAW_REMOTE_PICKLE};
    OK(klaw_hub_send(remote.h[0], remote.now, tx, &i, 1, false, 1));
    klaw_hub_wait(remote.h[0], remote.now, rx, 1);
    remote_run(20 * REMOTE_MS);
    SAME(remote.told[1], 1);
    SAME(remote.outcome[1], KLAW_HUB_SENT);
    OK(klaw_hub_take(remote.h[0], remote.now, remote.now, rx, &i, NULL));
    uint64_t lease = i.lease;
    SAME(remote_number(&i), 1);
    klaw_hub_wait(remote.h[0], remote.now, rx, -1);
    GETS("", 2);
    OK(klaw_hub_ack(remote.h[0], remote.now, rx, lease));
    remote_run(50 * REMOTE_MS);
    SAME(remote_look().total_received, 2);
    seen s = {0};
    klaw_broker_readers(B, see, &s);
    SAME(s.n, 1);
    CHECK(strncmp(s.r[0].name, "01000000000000000000000000000000-", 33) == 0);
    remote_end();
    SAME(things[1].refs + things[2].refs, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(queue_gives_in_order_and_is_full_at_its_capacity),
        TEST(several_items_are_accepted_together_or_not_at_all),
        TEST(unbounded_queue_is_never_full),
        TEST(peek_shows_what_waits_and_takes_nothing),
        TEST(last_sender_closes_after_what_it_sent),
        TEST(last_receiver_closes_at_once),
        TEST(deleted_channel_takes_and_gives_nothing_new),
        TEST(items_past_their_deadline_are_dropped_and_counted),
        TEST(each_reader_of_a_broadcast_has_each_item_since_it_registered),
        TEST(lagging_reader_is_told_once_how_many_it_missed),
        TEST(late_items_of_a_broadcast_reach_nobody),
        TEST(missed_counts_of_a_live_broadcast_are_exact),
        TEST(watch_gives_the_newest_value_once_to_each),
        TEST(watch_forgets_a_value_past_its_deadline),
        TEST(readers_have_statistics_of_their_own),
        TEST(calls_with_and_without_a_hub_share_one_queue),
    };
    return cmocka_run_group_tests_name("broker_local", tests, NULL, NULL);
}
