/* SPDX-License-Identifier: Apache-2.0 */
/* test_pool.c - pools: who gets a message, what happens when members fail and end, map, broadcast,
 * resize, stopping.
 *
 * Tried with these bugs seeded: keys by the remainder of their hash, members that have ended chosen all the same,
 * a resize that forgets to stop the last ones, replies of map in the order of their arrival. */
#include "support/actors.h"

#define PATIENCE KLAW_WITHIN(CHECK_PATIENCE)
#define MEMBERS_MAX 64

static diary diaries[MEMBERS_MAX];
static _Atomic uint32_t made;

/* Each member writes into a diary of its own. */
static klaw_err make_diary(void *user, uint32_t index, void **arg) {
    (void)user;
    atomic_fetch_add(&made, 1);
    *arg = &diaries[index];
    return KLAW_OK;
}

static uint64_t key_of_order(const void *message) {
    return ((const order *)message)->n;
}

static klaw_pool *pool_of(klaw_pool_opts o) {
    klaw_pool *p = NULL;
    memset(diaries, 0, sizeof diaries);
    made = 0;
    o.make_arg = make_diary;
    o.actor.release = diary_release;
    OK(klaw_pool_open(&doer_behavior, NULL, &o, &p));
    return p;
}
#define POOL(...) pool_of((klaw_pool_opts){__VA_ARGS__})

static void pool_ends(klaw_pool *p) {
    klaw_pool_stop(p);
    OK(klaw_pool_join(p, PATIENCE));
    klaw_pool_unref(p);
    nothing_lost();
}

static klaw_err sends(klaw_pool *p, enum deed deed, uint64_t n, void *arg, klaw_deadline d) {
    order o = order_of(deed, n, arg);
    klaw_err e = klaw_pool_send(p, &o, d);
    if (e)
        order_drop(&o);
    return e;
}
static klaw_err sends_key(klaw_pool *p, uint64_t key, enum deed deed, void *arg) {
    order o = order_of(deed, 1, arg);
    klaw_err e = klaw_pool_send_key(p, key, &o, PATIENCE);
    if (e)
        order_drop(&o);
    return e;
}
static klaw_err asked(klaw_pool *p, const uint64_t *key, enum deed deed, uint64_t n, void *arg,
                      klaw_deadline d) {
    order o = order_of(deed, n, arg);
    answer r = {0, NULL};
    bool moved;
    klaw_err e = key ? klaw_pool_ask_key_moved(p, *key, &o, &r, d, &moved)
                     : klaw_pool_ask_moved(p, &o, &r, d, &moved);
    if (!moved)
        order_drop(&o);
    if (!e)
        answer_drop(&r);
    return e;
}
static klaw_pool_stats stats(klaw_pool *p) {
    klaw_pool_stats s;
    OK(klaw_pool_stats_get(p, &s));
    return s;
}
static uint64_t handled(uint32_t member) {
    return atomic_load(&diaries[member].handled);
}
static klaw_actor *member(klaw_pool *p, uint32_t i) {
    klaw_actor *a = klaw_pool_member(p, i);
    CHECK(a);
    return a;
}
/* The member with that key, found out by asking. */
static uint32_t place_of_key(klaw_pool *p, uint64_t key) {
    uint64_t before[MEMBERS_MAX];
    uint32_t found = MEMBERS_MAX;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        before[i] = handled(i);
    OK(asked(p, &key, ADD, 1, NULL, PATIENCE));
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (handled(i) != before[i])
            found = i;
    CHECK(found < MEMBERS_MAX);
    return found;
}

/* --- opening --- */

RUNS(options_out_of_range_are_refused, 1) {
    const klaw_pool_opts wrong[] = {
        {.strategy = (klaw_pool_strategy)3},
        {.strategy = KLAW_POOL_BY_KEY},
        {.size = KLAW_POOL_MAX + 1},
        {.size = 1, .actor = {.capacity = -7}},
    };
    klaw_pool *p = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        GIVES(klaw_pool_open(&doer_behavior, &diaries[0], &wrong[i], &p), KLAW_INVALID);
    GIVES(klaw_pool_open(&doer_behavior, &diaries[0],
                         &(klaw_pool_opts){.size = 2, .actor.checkpoint_key = "one for all"}, &p),
          KLAW_INVALID);
    GIVES(klaw_pool_open(NULL, NULL, NULL, &p), KLAW_INVALID);
    CHECK(!p);
    GIVES(klaw_pool_send(NULL, &p, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_pool_send_key(NULL, 1, &p, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_pool_ask(NULL, &p, &p, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_pool_ask_key(NULL, 1, &p, &p, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_pool_broadcast(NULL, &p, KLAW_NOWAIT, NULL), KLAW_INVALID);
    GIVES(klaw_pool_map(NULL, NULL, 0, NULL, NULL, 0, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_pool_resize(NULL, 1), KLAW_INVALID);
    GIVES(klaw_pool_stats_get(NULL, NULL), KLAW_INVALID);
    GIVES(klaw_pool_join(NULL, KLAW_FOREVER), KLAW_INVALID);
    klaw_pool_stop(NULL);
    klaw_pool_unref(klaw_pool_ref(NULL));
}

PLAIN(pool_needs_a_runtime) {
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 2};
    GIVES(klaw_pool_open(&doer_behavior, &diaries[0], NULL, &p), KLAW_STOPPED);
    GIVES(klaw_pool_open(&doer_behavior, &diaries[0], &o, &p), KLAW_STOPPED);
}

static klaw_err third_fails(void *user, uint32_t index, void **arg) {
    *arg = user;
    return index == 2 ? KLAW_SYSTEM : KLAW_OK;
}

RUNS(opening_that_fails_leaves_nobody, 2) {
    klaw_pool *p = NULL;
    memset(diaries, 0, sizeof diaries);
    klaw_pool_opts o = {.size = 4, .make_arg = third_fails, .user = &diaries[0]};
    o.actor.release = diary_release;
    GIVES(klaw_pool_open(&doer_behavior, NULL, &o, &p), KLAW_SYSTEM);
    CHECK(!p);
    UNTIL(atomic_load(&diaries[0].released) == 2);
}

RUNS(default_pool_has_a_member_for_each_worker, 3) {
    klaw_pool *p = NULL;
    OK(klaw_pool_open(&doer_behavior, &diaries[0], NULL, &p));
    SAME(klaw_pool_size(p), 3);
    klaw_actor *a = member(p, 2);
    SAME(strcmp(klaw_actor_name(a), "doer-2"), 0);
    klaw_actor_unref(a);
    CHECK(!klaw_pool_member(p, 3));
    pool_ends(p);
}

/* --- strategies --- */

RUNS(turns_go_round, 1) {
    klaw_pool *p = POOL(.size = 4);
    for (int i = 0; i < 20; i++)
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
    for (uint32_t i = 0; i < 4; i++)
        SAME(handled(i), 5);
    SAME(stats(p).handled, 20);
    pool_ends(p);
    SAME(atomic_load(&diaries[3].released), 1);
}

RUNS(turns_pass_over_full_mailboxes, 2) {
    gate g = gate_make();
    klaw_pool *p = POOL(.size = 3, .actor = {.capacity = 1});
    OK(sends(p, WAIT, 0, &g, PATIENCE)); /* 0 is busy */
    UNTIL(handled(0) == 1);
    for (int i = 0; i < 9; i++) { /* one fits into its mailbox, the others go elsewhere */
        uint64_t before = handled(1) + handled(2);
        OK(sends(p, ADD, 1, NULL, KLAW_NOWAIT));
        if (stats(p).mailbox_size == 0 || handled(1) + handled(2) > before)
            UNTIL(handled(1) + handled(2) > before);
        UNTIL(stats(p).mailbox_size <= 1);
    }
    SAME(handled(0), 1);
    gate_open(&g);
    pool_ends(p);
    gate_free(&g);
    SAME(handled(0) + handled(1) + handled(2), 10);
}

RUNS(full_only_when_nobody_has_room, 2) {
    gate g = gate_make();
    klaw_pool *p = POOL(.size = 2, .actor = {.capacity = 2});
    for (int i = 0; i < 2; i++)
        OK(sends(p, WAIT, 0, &g, PATIENCE));
    UNTIL(handled(0) + handled(1) == 2);
    for (int i = 0; i < 4; i++)
        OK(sends(p, ADD, 1, NULL, KLAW_NOWAIT));
    GIVES(sends(p, ADD, 1, NULL, KLAW_NOWAIT), KLAW_FULL);
    GIVES(sends(p, ADD, 1, NULL, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    gate_open(&g);
    OK(sends(p, ADD, 1, NULL, PATIENCE));
    pool_ends(p);
    gate_free(&g);
}

RUNS(least_loaded_gets_it, 2) {
    gate g = gate_make();
    klaw_pool *p = POOL(.size = 4, .strategy = KLAW_POOL_LEAST_LOADED);
    for (int i = 0; i < 3; i++)
        OK(sends(p, WAIT, 0, &g, PATIENCE));
    UNTIL(handled(0) + handled(1) + handled(2) + handled(3) == 3);
    uint64_t idle = handled(0) == 0 ? 0 : handled(1) == 0 ? 1 : handled(2) == 0 ? 2 : 3;
    for (int i = 0; i < 10; i++)
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
    SAME(handled((uint32_t)idle), 10);
    gate_open(&g);
    pool_ends(p);
    gate_free(&g);
}

RUNS(one_key_has_one_member, 2) {
    klaw_pool *p = POOL(.size = 5, .strategy = KLAW_POOL_BY_KEY, .key = key_of_order);
    for (uint64_t key = 0; key < 100; key++) {
        uint32_t place = place_of_key(p, key);
        uint64_t before = handled(place);
        OK(asked(p, NULL, ADD, key, NULL, PATIENCE)); /* n is its key */
        SAME(handled(place), before + 1);
    }
    for (uint32_t i = 0; i < 5; i++)
        CHECK(handled(i) >= 20); /* of 200 */
    pool_ends(p);
}

RUNS(resizing_moves_few_keys, 1) {
    enum { KEYS = 2000 };
    static uint32_t before[KEYS];
    klaw_pool *p = POOL(.size = 9);
    for (uint64_t k = 0; k < KEYS; k++)
        before[k] = place_of_key(p, k);
    OK(klaw_pool_resize(p, 10));
    uint32_t moved = 0;
    for (uint64_t k = 0; k < KEYS; k++) {
        uint32_t now = place_of_key(p, k);
        if (now != before[k]) {
            SAME(now, 9); /* only to the new one */
            moved++;
        }
    }
    CHECK(moved > KEYS / 20 && moved < KEYS / 5); /* a tenth */
    OK(klaw_pool_resize(p, 9));
    for (uint64_t k = 0; k < KEYS; k++)
        SAME(place_of_key(p, k), before[k]);
    pool_ends(p);
}

/* --- failures --- */

RUNS(failed_member_is_replaced_and_its_mailbox_stays, 2) {
    klaw_pool *p = POOL(.size = 2, .actor = {.no_backoff = true, .max_restarts = 100});
    GIVES(asked(p, NULL, FAIL, KLAW_CORRUPT, NULL, PATIENCE), KLAW_CORRUPT);
    for (int i = 0; i < 10; i++)
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
    SAME(atomic_load(&diaries[0].starts), 2);
    SAME(stats(p).restarts, 1);
    SAME(stats(p).failed, 1);
    SAME(stats(p).alive, 2);
    pool_ends(p);
}

RUNS(member_that_ended_for_good_is_passed_over, 2) {
    klaw_pool *p = POOL(.size = 3, .actor = {.restart = KLAW_RESTART_NEVER});
    uint64_t key = 7;
    uint32_t place = place_of_key(p, key);
    GIVES(asked(p, &key, FAIL, KLAW_CORRUPT, NULL, PATIENCE), KLAW_CORRUPT);
    klaw_actor *a = member(p, place);
    GIVES(why_of(a), KLAW_CORRUPT);
    klaw_actor_unref(a);
    SAME(stats(p).alive, 2);
    SAME(klaw_pool_size(p), 3);
    for (int i = 0; i < 10; i++)
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
    uint32_t other = place_of_key(p, key);
    CHECK(other != place);
    SAME(place_of_key(p, key), other);
    OK(klaw_pool_resize(p, 3)); /* and here it is again */
    SAME(stats(p).alive, 3);
    SAME(place_of_key(p, key), place);
    pool_ends(p);
}

RUNS(pool_whose_members_all_died_for_good_answers_stopped, 2) {
    for (int strategy = 0; strategy < 3; strategy++) {
        klaw_pool *p = POOL(.size = 12, .strategy = (klaw_pool_strategy)strategy,
                            .key = key_of_order, .actor = {.restart = KLAW_RESTART_NEVER});
        for (uint64_t left = 12; left > 0; left--) {
            /* The keys of the last ones are found by looking, too. */
            OK(sends_key(p, left, FAIL, NULL));
            UNTIL(stats(p).alive == left - 1);
        }
        GIVES(sends(p, ADD, 1, NULL, PATIENCE), KLAW_STOPPED);
        GIVES(asked(p, NULL, ADD, 1, NULL, PATIENCE), KLAW_STOPPED);
        GIVES(sends_key(p, 3, ADD, NULL), KLAW_STOPPED);
        OK(klaw_pool_join(p, PATIENCE));
        OK(klaw_pool_resize(p, 2)); /* not stopped: it can come back */
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
        pool_ends(p);
    }
}

RUNS(ask_is_asked_elsewhere_only_if_it_did_not_arrive, 2) {
    klaw_pool *p = POOL(.size = 2, .actor = {.restart = KLAW_RESTART_NEVER});
    GIVES(asked(p, NULL, FAIL, KLAW_STOPPED, NULL, PATIENCE), KLAW_STOPPED);
    SAME(handled(0) + handled(1), 1); /* it was begun: not again */
    pool_ends(p);
}

/* --- map --- */

static const klaw_type number_type = {.name = "number", .size = sizeof(uint64_t)};
static _Atomic int inside, most;

static klaw_err square(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t n = *(uint64_t *)message;
    (void)state;
    int now = atomic_fetch_add(&inside, 1) + 1, seen = atomic_load(&most);
    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
        ;
    klaw_err e = n % 7 == 3 ? klaw_sleep(klaw_after(KLAW_US(200))) : klaw_yield();
    atomic_fetch_sub(&inside, 1);
    if (e)
        return e;
    if (n == UINT64_MAX)
        return klaw_self_refuse(self, KLAW_TYPE);
    if (reply)
        *(uint64_t *)reply = n * n;
    return KLAW_OK;
}
static const klaw_behavior squarer = {
    .name = "squarer", .message = &number_type, .reply = &number_type, .handle = square};

RUNS(map_answers_in_order_with_a_bound_in_flight, 2) {
    enum { N = 500 };
    static uint64_t in[N], out[N];
    static klaw_pool_outcome how[N];
    for (uint32_t flight = 0; flight < 12; flight += 3) {
        klaw_pool *p = NULL;
        klaw_pool_opts o = {.size = 6, .strategy = KLAW_POOL_LEAST_LOADED};
        OK(klaw_pool_open(&squarer, NULL, &o, &p));
        atomic_store(&most, 0);
        for (uint64_t i = 0; i < N; i++) {
            in[i] = i;
            out[i] = 0;
        }
        OK(klaw_pool_map(p, in, N, out, how, flight, PATIENCE));
        for (uint64_t i = 0; i < N; i++) {
            SAME(out[i], i * i);
            CHECK(how[i].err == KLAW_OK && how[i].moved);
        }
        CHECK(atomic_load(&most) <= 6 && (flight == 0 || atomic_load(&most) <= (int)flight));
        OK(klaw_pool_map(p, in, 0, out, NULL, 0, PATIENCE));
        OK(klaw_pool_map(p, NULL, 0, NULL, NULL, 0, PATIENCE));
        GIVES(klaw_pool_map(p, in, 1, out, NULL, 0, KLAW_NOWAIT), KLAW_INVALID);
        GIVES(klaw_pool_map(p, NULL, 1, out, NULL, 0, PATIENCE), KLAW_INVALID);
        pool_ends(p);
    }
}

RUNS(map_goes_on_after_an_error_and_says_the_first, 2) {
    uint64_t in[6] = {1, UINT64_MAX, 3, UINT64_MAX, 5, 6}, out[6] = {0};
    klaw_pool_outcome how[6];
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 2};
    OK(klaw_pool_open(&squarer, NULL, &o, &p));
    GIVES(klaw_pool_map(p, in, 6, out, how, 2, PATIENCE), KLAW_TYPE);
    for (int i = 0; i < 6; i++) {
        GIVES(how[i].err, in[i] == UINT64_MAX ? KLAW_TYPE : KLAW_OK);
        SAME(out[i], in[i] == UINT64_MAX ? 0 : in[i] * in[i]);
    }
    pool_ends(p);
}

RUNS(map_of_a_stopped_pool_moves_nothing, 1) {
    uint64_t in[3] = {1, 2, 3}, out[3];
    klaw_pool_outcome how[3];
    klaw_pool *p = NULL;
    OK(klaw_pool_open(&squarer, NULL, NULL, &p));
    klaw_pool_stop(p);
    GIVES(klaw_pool_map(p, in, 3, out, how, 0, PATIENCE), KLAW_STOPPED);
    for (int i = 0; i < 3; i++)
        CHECK(how[i].err == KLAW_STOPPED && !how[i].moved);
    pool_ends(p);
}

RUNS(map_begins_no_more_after_its_deadline, 2) {
    enum { N = 8 };
    gate g = gate_make();
    order in[N];
    answer out[N];
    klaw_pool_outcome how[N];
    klaw_pool *p = POOL(.size = 1);
    for (int i = 0; i < N; i++)
        in[i] = order_of(WAIT, 1, &g);
    GIVES(klaw_pool_map(p, in, N, out, how, 2, KLAW_WITHIN(KLAW_MS(2))), KLAW_TIMEOUT);
    uint32_t left = 0;
    for (int i = 0; i < N; i++) {
        GIVES(how[i].err, KLAW_TIMEOUT);
        if (!how[i].moved) {
            order_drop(&in[i]);
            left++;
        }
    }
    CHECK(left >= N - 3);
    gate_open(&g);
    pool_ends(p);
    gate_free(&g);
}

/* --- broadcast --- */

static klaw_err share_order(const void *from, void *to) {
    const order *o = from;
    if (o->n == 99)
        return KLAW_LIMIT;
    *(order *)to = order_of((enum deed)o->deed, o->n, o->arg);
    return KLAW_OK;
}
static const klaw_type shared_type = {
    .name = "order", .size = sizeof(order), .drop = order_drop, .share = share_order};

static klaw_pool *sharing_pool(uint32_t size, klaw_actor_opts actor) {
    static klaw_behavior b;
    klaw_pool *p = NULL;
    b = doer_behavior;
    b.message = &shared_type;
    memset(diaries, 0, sizeof diaries);
    klaw_pool_opts o = {.size = size, .make_arg = make_diary, .actor = actor};
    OK(klaw_pool_open(&b, NULL, &o, &p));
    return p;
}

RUNS(broadcast_reaches_every_member_with_a_copy_of_its_own, 2) {
    klaw_pool *p = sharing_pool(5, (klaw_actor_opts){.restart = KLAW_RESTART_NEVER});
    order o = order_of(ADD, 2, NULL);
    uint32_t reached = 0;
    OK(klaw_pool_broadcast(p, &o, PATIENCE, &reached));
    SAME(reached, 5);
    klaw_actor *a = member(p, 1);
    klaw_actor_kill(a);
    GIVES(why_of(a), KLAW_CANCELLED);
    klaw_actor_unref(a);
    OK(klaw_pool_broadcast(p, &o, PATIENCE, &reached));
    SAME(reached, 4);
    o.n = 99;
    GIVES(klaw_pool_broadcast(p, &o, PATIENCE, &reached), KLAW_LIMIT);
    SAME(reached, 0);
    klaw_pool_stop(p);
    GIVES(klaw_pool_broadcast(p, &o, PATIENCE, NULL), KLAW_STOPPED);
    order_drop(&o); /* the caller's all the time */
    pool_ends(p);
    SAME(handled(0) + handled(2) + handled(3) + handled(4), 8);
}

RUNS(broadcast_tries_all_and_says_the_first_error, 2) {
    gate g = gate_make();
    klaw_pool *p = sharing_pool(3, (klaw_actor_opts){.capacity = 1});
    klaw_actor *a = member(p, 1);
    tell(a, WAIT, 0, &g);
    UNTIL(handled(1) == 1);
    tell(a, ADD, 0, NULL); /* full */
    order o = order_of(ADD, 2, NULL);
    uint32_t reached = 0;
    GIVES(klaw_pool_broadcast(p, &o, KLAW_NOWAIT, &reached), KLAW_FULL);
    SAME(reached, 2);
    order_drop(&o);
    klaw_actor_unref(a);
    gate_open(&g);
    pool_ends(p);
    gate_free(&g);
}

RUNS(broadcast_needs_a_share_where_there_is_a_drop, 1) {
    klaw_pool *p = POOL(.size = 1);
    order o = order_of(ADD, 2, NULL);
    GIVES(klaw_pool_broadcast(p, &o, PATIENCE, NULL), KLAW_TYPE);
    order_drop(&o);
    pool_ends(p);
    klaw_pool_opts two = {.size = 2};
    OK(klaw_pool_open(&squarer, NULL, &two, &p));
    uint64_t n = 3;
    uint32_t reached;
    OK(klaw_pool_broadcast(p, &n, PATIENCE, &reached)); /* plain bytes are copied */
    SAME(reached, 2);
    pool_ends(p);
}

/* --- resize and the end --- */

RUNS(pool_grows_and_shrunk_members_drain_first, 2) {
    gate g = gate_make();
    klaw_pool *p = POOL(.size = 2);
    GIVES(klaw_pool_resize(p, 0), KLAW_INVALID);
    GIVES(klaw_pool_resize(p, KLAW_POOL_MAX + 1), KLAW_INVALID);
    OK(klaw_pool_resize(p, 4));
    SAME(made, 4);
    klaw_actor *last = member(p, 3);
    tell(last, WAIT, 0, &g);
    for (int i = 0; i < 5; i++)
        tell(last, ADD, 1, NULL);
    OK(klaw_pool_resize(p, 1));
    SAME(klaw_pool_size(p), 1);
    SAME(stats(p).alive, 1);
    CHECK(stats(p).draining >= 1);
    GIVES(klaw_pool_join(p, KLAW_NOWAIT), KLAW_EMPTY);
    for (int i = 0; i < 8; i++)
        OK(asked(p, NULL, ADD, 1, NULL, PATIENCE));
    SAME(handled(0), 8);
    gate_open(&g);
    SAME(why_of(last), KLAW_OK);
    klaw_actor_unref(last);
    SAME(handled(3), 6); /* all it had */
    SAME(stats(p).handled, 14);
    UNTIL(stats(p).draining == 0);
    OK(klaw_pool_resize(p, 2)); /* former ones are forgotten, their numbers are not */
    SAME(stats(p).handled, 14);
    pool_ends(p);
    gate_free(&g);
}

RUNS(resize_that_fails_changes_nothing, 1) {
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 2, .make_arg = third_fails, .user = &diaries[0]};
    memset(diaries, 0, sizeof diaries);
    OK(klaw_pool_open(&doer_behavior, NULL, &o, &p));
    GIVES(klaw_pool_resize(p, 4), KLAW_SYSTEM);
    SAME(klaw_pool_size(p), 2);
    SAME(stats(p).alive, 2);
    pool_ends(p);
}

static klaw_pool *nested;
static klaw_err resizes_again(void *user, uint32_t index, void **arg) {
    *arg = user;
    if (nested)
        GIVES(klaw_pool_resize(nested, index + 1), KLAW_EXISTS);
    return KLAW_OK;
}

RUNS(one_resize_at_a_time, 1) {
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 1, .make_arg = resizes_again, .user = &diaries[0]};
    OK(klaw_pool_open(&doer_behavior, NULL, &o, &p));
    nested = p;
    OK(klaw_pool_resize(p, 3));
    nested = NULL;
    pool_ends(p);
}

static klaw_err stops_meanwhile(void *user, uint32_t index, void **arg) {
    *arg = user;
    if (nested && index == 1)
        klaw_pool_stop(nested);
    if (nested && index == 5)
        klaw_pool_kill(nested);
    return KLAW_OK;
}

RUNS(resize_that_a_stop_overtakes_leaves_nobody, 2) {
    for (uint32_t from = 1; from < 8; from += 4) {
        klaw_pool *p = NULL;
        klaw_pool_opts o = {.size = from, .make_arg = stops_meanwhile, .user = &diaries[0]};
        OK(klaw_pool_open(&doer_behavior, NULL, &o, &p));
        nested = p;
        OK(klaw_pool_resize(p, from + 2));
        nested = NULL;
        OK(klaw_pool_join(p, PATIENCE));
        GIVES(klaw_pool_resize(p, 4), KLAW_STOPPED);
        pool_ends(p);
    }
}

RUNS(stop_drains_and_kill_does_not, 2) {
    for (int kill = 0; kill < 2; kill++) {
        gate g = gate_make();
        klaw_pool *p = POOL(.size = 1);
        OK(sends(p, WAIT, 0, &g, PATIENCE));
        UNTIL(handled(0) == 1);
        for (int i = 0; i < 4; i++)
            OK(sends(p, ADD, 1, NULL, PATIENCE));
        klaw_pool_stop(p);
        CHECK(stats(p).stopped);
        GIVES(sends(p, ADD, 1, NULL, PATIENCE), KLAW_STOPPED);
        GIVES(klaw_pool_join(p, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
        if (kill)
            klaw_pool_kill(p);
        else
            gate_open(&g);
        OK(klaw_pool_join(p, PATIENCE));
        SAME(handled(0), kill ? 1 : 5);
        pool_ends(p);
        gate_free(&g);
    }
}

RUNS(last_reference_stops_the_pool, 2) {
    klaw_pool *p = POOL(.size = 3);
    klaw_actor *a = member(p, 0);
    SAME(klaw_pool_ref(p) == p, 1);
    klaw_pool_unref(p);
    CHECK(klaw_actor_alive(a));
    klaw_pool_unref(p);
    GIVES(why_of(a), KLAW_OK);
    klaw_actor_unref(a);
    UNTIL(atomic_load(&diaries[2].released) == 1);
}

static klaw_err from_outside(void *arg) {
    klaw_pool *p = NULL;
    klaw_pool_opts o = {.size = 2};
    uint64_t in[4] = {1, 2, 3, 4}, out[4];
    OK(asked(arg, NULL, ADD, 1, NULL, PATIENCE));
    OK(klaw_pool_resize(arg, 4));
    OK(klaw_pool_open(&squarer, NULL, &o, &p)); /* its members live in the root scope */
    OK(klaw_pool_map(p, in, 4, out, NULL, 2, PATIENCE));
    SAME(out[3], 16);
    klaw_pool_stop(p);
    OK(klaw_pool_join(p, PATIENCE));
    klaw_pool_unref(p);
    return KLAW_OK;
}

RUNS(threads_use_pools_too, 2) {
    klaw_pool *p = POOL(.size = 2);
    thread_job t;
    thread_start(&t, from_outside, p);
    OK(thread_end(&t));
    SAME(klaw_pool_size(p), 4);
    pool_ends(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(options_out_of_range_are_refused),
        TEST(pool_needs_a_runtime),
        TEST(opening_that_fails_leaves_nobody),
        TEST(default_pool_has_a_member_for_each_worker),
        TEST(turns_go_round),
        TEST(turns_pass_over_full_mailboxes),
        TEST(full_only_when_nobody_has_room),
        TEST(least_loaded_gets_it),
        TEST(one_key_has_one_member),
        TEST(resizing_moves_few_keys),
        TEST(failed_member_is_replaced_and_its_mailbox_stays),
        TEST(member_that_ended_for_good_is_passed_over),
        TEST(pool_whose_members_all_died_for_good_answers_stopped),
        TEST(ask_is_asked_elsewhere_only_if_it_did_not_arrive),
        TEST(map_answers_in_order_with_a_bound_in_flight),
        TEST(map_goes_on_after_an_error_and_says_the_first),
        TEST(map_of_a_stopped_pool_moves_nothing),
        TEST(map_begins_no_more_after_its_deadline),
        TEST(broadcast_reaches_every_member_with_a_copy_of_its_own),
        TEST(broadcast_tries_all_and_says_the_first_error),
        TEST(broadcast_needs_a_share_where_there_is_a_drop),
        TEST(pool_grows_and_shrunk_members_drain_first),
        TEST(resize_that_fails_changes_nothing),
        TEST(one_resize_at_a_time),
        TEST(resize_that_a_stop_overtakes_leaves_nobody),
        TEST(stop_drains_and_kill_does_not),
        TEST(last_reference_stops_the_pool),
        TEST(threads_use_pools_too),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
