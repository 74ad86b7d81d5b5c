/* SPDX-License-Identifier: Apache-2.0 */
/* test_wheel.c - the timing wheel driven by hand, with made-up time, against an array that is
 * searched from end to end.
 *
 * What has to hold after a run at `now`: nothing fired early, nothing fired that was not armed,
 * everything fired whose tick has passed, and klawi_wheel_next is never later than the first tick
 * at which something has to fire. */
#include "support/random.h"
#include "support/runs.h"

#include "sched/host.h"

#define TICK ((int64_t)1 << KLAWI_TICK_SHIFT)

extern void (*klawi_callback_ready)(klawi_host *h);

/* --- one timer and what the model knows of it --- */
typedef struct item {
    klawi_timer timer; /* callbacks */
    klawi_host host;   /* hosts: their deadline is host.timer */
    bool is_host, armed, fired;
    bool again; /* its callback arms it once more */
    int64_t deadline;
    uint64_t epoch;
} item;

#define ITEMS 300
static klawi_wheel wheel;
static item items[ITEMS];
static int64_t now;
static rng random_numbers;

/* A deadline of any distance: ticks, seconds, hours, centuries, and the past. */
static int64_t some_deadline(void) {
    rng *r = &random_numbers;
    static const unsigned bits[] = {8, 16, 17, 20, 24, 30, 36, 43, 50, 58, 62};
    int64_t far = (int64_t)(rng_next(r) >> (64 - bits[rng_below(r, 11)]));
    if (rng_one_in(r, 8))
        return far < now ? now - far : 1;
    if (rng_one_in(r, 50))
        return KLAW_FOREVER - 1 - rng_below(r, 3);
    return far > KLAW_FOREVER - 1 - now ? KLAW_FOREVER - 1 : now + far;
}

static void fires(item *it) {
    CHECK(it->armed && !it->fired);
    CHECK(it->deadline <= now); /* never early */
    it->armed = false;
    it->fired = true;
}

static void on_callback(void *arg) {
    item *it = arg;
    fires(it);
    if (it->again) {
        it->again = it->fired = false;
        it->armed = true;
        it->deadline = some_deadline();
        klawi_wheel_set(&wheel, &it->timer, it->deadline);
    }
}

static void on_ready(klawi_host *h) {
    item *it = KLAWI_CONTAINER(h, item, host);
    SAME(h->result, KLAW_TIMEOUT);
    fires(it);
}

/* The tick from which on a run has to have fired it. */
static int64_t due(int64_t deadline) {
    return deadline >= KLAW_FOREVER - 2 * TICK ? KLAW_FOREVER
                                               : ((deadline >> KLAWI_TICK_SHIFT) + 1) * TICK;
}

static void check_next(void) {
    for (int i = 0; i < ITEMS; i++)
        if (items[i].armed)
            CHECK(klawi_wheel_next(&wheel) <=
                  (due(items[i].deadline) > now ? due(items[i].deadline) : now));
}

static void runs_at(int64_t t) {
    now = t;
    for (int i = 0; i < ITEMS; i++)
        items[i].fired = false;
    klawi_wheel_run(&wheel, now);
    for (int i = 0; i < ITEMS; i++)
        if (items[i].armed)
            CHECK(due(items[i].deadline) > now || due(items[i].deadline) == KLAW_FOREVER);
    CHECK(klawi_wheel_next(&wheel) > now); /* no busy loop */
}

static void arms(item *it) {
    it->deadline = some_deadline();
    it->armed = true;
    it->again = rng_one_in(&random_numbers, 4);
    if (!it->is_host) {
        CHECK(klawi_wheel_set(&wheel, &it->timer, it->deadline) == &wheel);
        return;
    }
    if (it->epoch) /* its last wait ended early: its deadline may still be filed (P10) */
        (void)klawi_claim(&it->host, it->epoch);
    it->epoch = (atomic_load(&it->host.word) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
    CHECK(klawi_arm(&it->host, it->epoch));
    klawi_wheel_set_host(&wheel, &it->host.timer, it->epoch, it->deadline);
}

static void disarms(item *it) {
    if (it->is_host) {
        if (it->epoch)
            SAME(klawi_claim(&it->host, it->epoch), it->armed);
    } else {
        SAME(klawi_wheel_remove(&it->timer), it->armed);
        CHECK(!klawi_wheel_remove(&it->timer));
    }
    it->armed = false;
}

static void begins(int64_t at, uint64_t seed) {
    now = at;
    random_numbers = (rng){seed};
    klawi_wheel_init(&wheel, now);
    SAME(klawi_wheel_next(&wheel), KLAW_FOREVER);
    memset(items, 0, sizeof items);
    klawi_callback_ready = on_ready;
    for (int i = 0; i < ITEMS; i++) {
        items[i].is_host = i % 2;
        items[i].host.kind = KLAWI_CALLBACK;
        items[i].timer.fn = on_callback;
        items[i].timer.key = (uintptr_t)&items[i];
    }
}

static void ends(void) {
    klawi_wheel_clear(&wheel);
    SAME(wheel.count, 0);
    for (int i = 0; i < ITEMS; i++)
        CHECK(!atomic_load(&items[i].timer.wheel) && !atomic_load(&items[i].host.timer.wheel));
}

/* How far time goes on: mostly less than a tick, at times years. */
static int64_t later(void) {
    rng *r = &random_numbers;
    static const unsigned bits[] = {6, 14, 16, 17, 18, 22, 28, 34, 40, 47};
    int64_t by = (int64_t)(rng_next(r) >> (64 - bits[rng_below(r, rng_one_in(r, 20) ? 10 : 6)]));
    return by > KLAW_FOREVER / 2 - now ? now : now + by;
}

static void random_operations(uint64_t seed, int64_t at, uint64_t n) {
    uint64_t armed = 0;
    begins(at, seed);
    for (uint64_t i = 0; i < n; i++) {
        item *it = &items[rng_below(&random_numbers, ITEMS)];
        switch (rng_below(&random_numbers, 8)) {
        case 0:
        case 1:
        case 2:
        case 3: arms(it); break;
        case 4: disarms(it); break;
        case 5: /* exactly when it says that something is due, and right before */
            if (klawi_wheel_next(&wheel) < KLAW_FOREVER / 2 && klawi_wheel_next(&wheel) > now) {
                SAME(klawi_wheel_run(&wheel, klawi_wheel_next(&wheel) - 1), 0);
                runs_at(klawi_wheel_next(&wheel));
            }
            break;
        default: runs_at(later()); break;
        }
        check_next();
        for (int k = 0; k < ITEMS; k++)
            armed += items[k].armed;
    }
    printf("%" PRIu64 " of %d timers armed on average\n", armed / n, ITEMS);
    ends();
}

PLAIN(the_wheel_does_what_a_list_does) {
    uint64_t seed = seed_begin();
    random_operations(seed, KLAW_S(12345), rounds(100000));
    random_operations(seed + 1, 0, rounds(20000));
    random_operations(seed + 2, ((int64_t)1 << 40) - 1, rounds(20000)); /* next to a carry */
}

/* --- by hand --- */
PLAIN(a_timer_fires_at_the_tick_after_its_deadline) {
    static const int64_t when[] = {1,
                                   TICK - 1,
                                   TICK,
                                   TICK + 1,
                                   63 * TICK,
                                   64 * TICK,
                                   65 * TICK + 7,
                                   4096 * TICK - 1,
                                   4096 * TICK,
                                   KLAW_S(3600),
                                   KLAW_S(86400) * 3650};
    for (size_t i = 0; i < sizeof when / sizeof *when; i++) {
        item *it = &items[0];
        begins(KLAW_S(5), 1);
        it->armed = true;
        it->deadline = now + when[i];
        klawi_wheel_set(&wheel, &it->timer, it->deadline);
        runs_at(due(it->deadline) - 1);
        CHECK(it->armed);
        runs_at(due(it->deadline));
        CHECK(it->fired);
        SAME(klawi_wheel_next(&wheel), KLAW_FOREVER);
    }
}

PLAIN(the_last_deadline_of_all_is_no_special_case) {
    for (int64_t back = 1; back < 4 * TICK; back = back * 3) {
        item *it = &items[0];
        begins(KLAW_S(5), 1);
        it->armed = true;
        it->deadline = KLAW_FOREVER - back;
        klawi_wheel_set(&wheel, &it->timer, it->deadline);
        CHECK(klawi_wheel_next(&wheel) > KLAW_FOREVER / 2);
        runs_at(KLAW_S(86400));
        runs_at(KLAW_FOREVER / 4);
        CHECK(it->armed);
        ends();
    }
}

PLAIN(a_deadline_in_the_past_fires_at_the_next_run) {
    item *it = &items[0];
    begins(KLAW_S(5), 1);
    it->armed = true;
    it->deadline = 1;
    klawi_wheel_set(&wheel, &it->timer, 1);
    CHECK(klawi_wheel_next(&wheel) <= now);
    runs_at(now);
    CHECK(it->fired);
}

/* P10: a wait that ended early leaves its deadline filed; the next one, with a later deadline, only
 * updates it. */
PLAIN(a_hosts_later_deadline_is_not_filed_anew) {
    item *it = &items[1];
    begins(KLAW_S(5), 1);
    random_numbers = (rng){7};
    for (int i = 1; i <= 10; i++) {
        if (it->epoch)
            CHECK(klawi_claim(&it->host, it->epoch));
        it->epoch = (atomic_load(&it->host.word) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
        CHECK(klawi_arm(&it->host, it->epoch));
        it->armed = true;
        it->deadline = now + i * 100 * TICK;
        klawi_wheel_set_host(&wheel, &it->host.timer, it->epoch, it->deadline);
        SAME(it->host.timer.when, KLAW_S(5) + 100 * TICK);
        SAME(wheel.count, 1);
    }
    runs_at(KLAW_S(5) + 200 * TICK); /* the stale time comes: filed again */
    CHECK(it->armed);
    runs_at(due(it->deadline) - 1);
    CHECK(it->armed);
    runs_at(due(it->deadline));
    CHECK(it->fired);
}

PLAIN(an_earlier_deadline_is_filed_at_once) {
    item *it = &items[1];
    begins(KLAW_S(5), 1);
    for (int i = 10; i > 0; i--) {
        if (it->epoch)
            CHECK(klawi_claim(&it->host, it->epoch));
        it->epoch = (atomic_load(&it->host.word) & ~KLAWI_FLAGS) + KLAWI_EPOCH;
        CHECK(klawi_arm(&it->host, it->epoch));
        it->armed = true;
        it->deadline = now + i * 100 * TICK;
        klawi_wheel_set_host(&wheel, &it->host.timer, it->epoch, it->deadline);
    }
    runs_at(due(it->deadline));
    CHECK(it->fired);
}

PLAIN(a_million_timers_are_filed_and_removed) {
    size_t n = SANITIZED ? 100000 : 1000000;
    klawi_timer *t = calloc(n, sizeof *t);
    CHECK(t);
    begins(KLAW_S(5), 99);
    for (size_t i = 0; i < n; i++) {
        t[i].fn = on_callback;
        klawi_wheel_set(&wheel, &t[i], some_deadline());
    }
    SAME(wheel.count, n);
    for (size_t i = 0; i < n; i++)
        CHECK(klawi_wheel_remove(&t[i * 7919 % n]));
    SAME(wheel.count, 0);
    for (int l = 0; l < KLAWI_WHEEL_LEVELS; l++)
        SAME(wheel.used[l], 0);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_wheel_does_what_a_list_does),
        TEST(a_timer_fires_at_the_tick_after_its_deadline),
        TEST(the_last_deadline_of_all_is_no_special_case),
        TEST(a_deadline_in_the_past_fires_at_the_next_run),
        TEST(a_hosts_later_deadline_is_not_filed_anew),
        TEST(an_earlier_deadline_is_filed_at_once),
        TEST(a_million_timers_are_filed_and_removed),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
