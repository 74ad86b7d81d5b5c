/* SPDX-License-Identifier: Apache-2.0 */
/* test_actor_oom.c - actors without memory: each call fails at its first, second, … allocation until
 * it passes. It answers NOMEM, nothing leaks, and the actor works afterwards.
 *
 * Tried with these bugs seeded: a spawn that forgets its identity, a link that leaks its first half,
 * a mailbox that loses its ring when it can't grow. */
#include "support/actors.h"

typedef struct house {
    diary d;
    klaw_actor *a, *b, *made;
    klaw_receiver *rx;
    gate g;
} house;

static klaw_err spawns(house *h) {
    klaw_actor_opts o = {.release = diary_release, .no_backoff = true};
    return klaw_actor_spawn(&doer_behavior, &h->d, &o, &h->made);
}
static klaw_err no_save(void *user, const char *key, const void *bytes, size_t size) {
    (void)user;
    (void)key;
    (void)bytes;
    (void)size;
    return KLAW_OK;
}
static klaw_err no_load(void *user, const char *key, klaw_blob **out) {
    (void)user;
    (void)key;
    (void)out;
    return KLAW_NOT_FOUND;
}
static klaw_err spawns_with_key(house *h) {
    static klaw_checkpointer c = {NULL, no_save, no_load};
    klaw_actor_opts o = {
        .release = diary_release, .checkpointer = &c, .checkpoint_interval = KLAW_NONE};
    return klaw_actor_spawn(&doer_behavior, &h->d, &o, &h->made);
}
static void ends_made(house *h) {
    if (!h->made)
        return;
    (void)asks(h->made, ADD, 1, NULL);
    ends(h->made, KLAW_OK);
    h->made = NULL;
}
static klaw_err watches(house *h) {
    return klaw_actor_watch(h->a, &h->rx);
}
static void ends_watch(house *h) {
    klaw_receiver_unref(h->rx);
    h->rx = NULL;
}

/* Within a callback: what the actor's own calls answer. */
static house *now;
static uint64_t fail_at;
static klaw_err got;
static bool met;

static klaw_err deed_begin(void) {
    klaw_alloc_fail_at(fail_at, false);
    return KLAW_OK;
}
static klaw_err deed_end(klaw_err e) {
    met = klaw_alloc_points() >= fail_at;
    klaw_alloc_fail_at(0, false);
    got = e;
    return KLAW_OK;
}
static klaw_err monitors(klaw_self *self, doer_state *s) {
    uint64_t id = 0;
    (void)s;
    (void)deed_begin();
    klaw_err e = klaw_self_monitor(self, now->b, &id);
    (void)deed_end(e);
    if (!e)
        OK(klaw_self_demonitor(self, id));
    return KLAW_OK;
}
static klaw_err links(klaw_self *self, doer_state *s) {
    (void)s;
    (void)deed_begin();
    klaw_err e = klaw_self_link(self, now->b);
    (void)deed_end(e);
    GIVES(klaw_self_unlink(self, now->b), e ? KLAW_NOT_FOUND : KLAW_OK);
    return KLAW_OK;
}
static klaw_err arms(klaw_self *self, doer_state *s) {
    (void)s;
    (void)deed_begin();
    klaw_err e = klaw_self_after(self, KLAW_S(3600), 1);
    (void)deed_end(e);
    GIVES(klaw_self_cancel_timer(self, 1), e ? KLAW_NOT_FOUND : KLAW_OK);
    return KLAW_OK;
}
static klaw_err defers(klaw_self *self, doer_state *s) {
    klaw_promise *p = NULL;
    (void)s;
    (void)deed_begin();
    klaw_err e = klaw_self_defer(self, &p);
    (void)deed_end(e);
    if (e)
        return klaw_self_refuse(self, KLAW_STOPPED);
    klaw_promise_drop(p);
    return KLAW_OK;
}
static deed_fn do_monitors = monitors, do_links = links, do_arms = arms, do_defers = defers;

static int fails_until_it_passes(house *h, klaw_err (*call)(house *), void (*end)(house *)) {
    for (uint64_t n = 1;; n++) {
        klaw_alloc_trim();
        uint64_t live = klaw_alloc_live();
        CHECK(n < 100);
        klaw_alloc_fail_at(n, false);
        klaw_err e = call(h);
        bool reached = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e) {
            CHECK(reached);
            GIVES(e, KLAW_NOMEM);
            klaw_alloc_trim();
            SAME(klaw_alloc_live(), live);
        }
        end(h);
        if (!reached) {
            OK(e);
            return (int)n - 1;
        }
    }
}

static int deed_fails_until_it_passes(house *h, deed_fn *deed) {
    for (fail_at = 1;; fail_at++) {
        uint64_t live = klaw_alloc_live();
        CHECK(fail_at < 100);
        klaw_err e = ask_until(h->a, CALL, 1, deed, NULL, KLAW_FOREVER);
        GIVES(e, KLAW_STOPPED);
        if (met)
            GIVES(got, KLAW_NOMEM);
        SAME(klaw_alloc_live(), live);
        if (!met) {
            OK(got);
            return (int)fail_at - 1;
        }
    }
}

static void open_house(house *h) {
    memset(h, 0, sizeof *h);
    now = h;
    h->a = DOER(&h->d, .restart = KLAW_RESTART_NEVER);
    h->b = DOER(&h->d, .restart = KLAW_RESTART_NEVER);
    (void)asks(h->a, ADD, 1, NULL);
    (void)asks(h->b, ADD, 1, NULL);
}
static void close_house(house *h) {
    ends(h->a, KLAW_OK);
    ends(h->b, KLAW_OK);
    nothing_lost();
}

RUNS(spawn_without_memory, 1) {
    house h;
    open_house(&h);
    CHECK(fails_until_it_passes(&h, spawns, ends_made) >= 4);
    CHECK(fails_until_it_passes(&h, spawns_with_key, ends_made) >= 5);
    close_house(&h);
}

RUNS(watch_without_memory, 1) {
    house h;
    open_house(&h);
    CHECK(fails_until_it_passes(&h, watches, ends_watch) >= 3);
    close_house(&h);
}

RUNS(what_callbacks_do_without_memory, 1) {
    house h;
    open_house(&h);
    SAME(deed_fails_until_it_passes(&h, &do_defers), 1);
    close_house(&h);
}

/* These answer the ask with something else than STOPPED. */
static klaw_err refuses_after(klaw_self *self, deed_fn fn, doer_state *s) {
    klaw_err e = fn(self, s);
    return e ? e : klaw_self_refuse(self, KLAW_STOPPED);
}
static klaw_err monitors_2(klaw_self *self, doer_state *s) {
    return refuses_after(self, do_monitors, s);
}
static klaw_err links_2(klaw_self *self, doer_state *s) {
    return refuses_after(self, do_links, s);
}
static klaw_err arms_2(klaw_self *self, doer_state *s) {
    return refuses_after(self, do_arms, s);
}
static deed_fn do_monitors_2 = monitors_2, do_links_2 = links_2, do_arms_2 = arms_2;

RUNS(bonds_and_timers_without_memory, 1) {
    house h;
    open_house(&h);
    SAME(deed_fails_until_it_passes(&h, &do_monitors_2), 1);
    SAME(deed_fails_until_it_passes(&h, &do_links_2), 2);
    SAME(deed_fails_until_it_passes(&h, &do_arms_2), 1);
    close_house(&h);
}

RUNS(a_mailbox_that_cannot_grow_keeps_what_it_has, 1) {
    diary d = {0};
    gate g = gate_make();
    klaw_actor *a = DOER(&d, .name = NULL);
    tell(a, WAIT, 0, &g);
    UNTIL(d.handled == 1);
    int sent = 0, refused = 0;
    for (int i = 0; i < 40; i++) {
        order o = order_of(ADD, 1, NULL);
        klaw_alloc_fail_at(1, false);
        klaw_err e = klaw_actor_send(a, &o, KLAW_FOREVER);
        klaw_alloc_fail_at(0, false);
        if (e) {
            GIVES(e, KLAW_NOMEM);
            refused++;
            OK(klaw_actor_send(a, &o, KLAW_FOREVER)); /* failure leaves */
        }
        sent++;
    }
    CHECK(refused >= 2);
    gate_open(&g);
    SAME(asks(a, ADD, 0, NULL), (uint64_t)sent);
    ends(a, KLAW_OK);
    gate_free(&g);
    nothing_lost();
}

/* Sends, asks and answers that fit need no memory at all. */
RUNS(an_ask_allocates_nothing, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .name = NULL);
    (void)asks(a, ADD, 1, NULL);
    order o = order_of(TRAP, 0, NULL);
    answer r;
    klaw_alloc_fail_at(1, true);
    klaw_err e = klaw_actor_ask(a, &o, &r, KLAW_FOREVER);
    klaw_alloc_fail_at(0, false);
    OK(e);
    answer_drop(&r);
    ends(a, KLAW_OK);
    nothing_lost();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(spawn_without_memory),
        TEST(watch_without_memory),
        TEST(what_callbacks_do_without_memory),
        TEST(bonds_and_timers_without_memory),
        TEST(a_mailbox_that_cannot_grow_keeps_what_it_has),
        TEST(an_ask_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
