/* SPDX-License-Identifier: Apache-2.0 */
/* test_scope_cancel.c - what a cancellation reaches: every kind of wait, on fibers and threads, at
 * any depth, at any instant. */
#include <unistd.h>

#include "klaw/select.h"
#include "support/random.h"
#include "support/runs.h"

/* --- every kind of wait --- */
typedef struct world {
    gate g;    /* never opened */
    gate full; /* capacity 1, full */
    gate meet; /* rendezvous */
    klaw_fiber *other;
    klaw_scope *scope;
    int pipe[2];
} world;

static klaw_err in_recv(void *p) {
    return gate_wait(&((world *)p)->g);
}
static klaw_err in_send(void *p) {
    uint64_t v = 9;
    klaw_err e = klaw_send(((world *)p)->full.tx, &v, KLAW_FOREVER);
    SAME(v, 9);
    return e;
}
static klaw_err in_rendezvous(void *p) {
    uint64_t v = 9;
    return klaw_send(((world *)p)->meet.tx, &v, KLAW_FOREVER);
}
static klaw_err in_select(void *p) {
    world *w = p;
    uint64_t v, u = 1;
    size_t chosen;
    klaw_case c[] = {klaw_case_recv(w->g.rx, &v), klaw_case_send(w->full.tx, &u),
                     klaw_case_timer(KLAW_WITHIN(KLAW_S(3600)))};
    return klaw_select(c, 3, &chosen, KLAW_FOREVER);
}
static klaw_err in_sleep(void *p) {
    (void)p;
    return klaw_sleep(KLAW_FOREVER);
}
static klaw_err in_sleep_with_a_deadline(void *p) {
    (void)p;
    return klaw_sleep(KLAW_WITHIN(KLAW_S(3600)));
}
static klaw_err in_join(void *p) {
    return klaw_join(((world *)p)->other, NULL, NULL, KLAW_FOREVER);
}
static klaw_err in_reserve(void *p) {
    klaw_permit permit;
    return klaw_reserve(((world *)p)->full.tx, &permit, KLAW_FOREVER);
}
static klaw_err in_fd(void *p) {
    return klaw_fd_wait(((world *)p)->pipe[0], KLAW_READ, KLAW_FOREVER);
}
static klaw_err in_fd_read(void *p) {
    char c;
    size_t n;
    return klaw_fd_read(((world *)p)->pipe[0], &c, 1, &n, KLAW_WITHIN(KLAW_S(3600)), NULL);
}
static klaw_err in_scope_wait(void *p) {
    return klaw_scope_wait(((world *)p)->scope, KLAW_FOREVER);
}

static const struct {
    const char *name, *what;
    klaw_err (*fn)(void *);
} kinds[] = {
    {"recv", "recv", in_recv},
    {"send", "send", in_send},
    {"rendezvous", "send", in_rendezvous},
    {"select", "select", in_select},
    {"sleep", "sleep", in_sleep},
    {"sleep with a deadline", "sleep", in_sleep_with_a_deadline},
    {"join", "join", in_join},
    {"reserve", "send", in_reserve},
    {"fd", "fd", in_fd},
    {"fd read", "fd", in_fd_read},
    {"scope wait", "scope", in_scope_wait},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static void world_make(world *w) {
    uint64_t v = 0;
    klaw_channel_opts one = {.capacity = 1}, meet = {.capacity = KLAW_RENDEZVOUS};
    w->g = gate_make();
    OK(klaw_channel(&klaw_u64, &one, &w->full.tx, &w->full.rx));
    OK(klaw_send(w->full.tx, &v, KLAW_NOWAIT));
    OK(klaw_channel(&klaw_u64, &meet, &w->meet.tx, &w->meet.rx));
    w->scope = klaw_scope_current();
    w->other = fiber(passes, &w->g);
    SAME(pipe(w->pipe), 0);
}

static void world_free(world *w) {
    gate_open(&w->g);
    OK(result_of(w->other));
    gate_free(&w->g);
    gate_free(&w->full);
    gate_free(&w->meet);
    OK(klaw_fd_close(w->pipe[0]));
    OK(klaw_fd_close(w->pipe[1]));
}

static klaw_err waits_again(void *p) {
    void **a = p;
    klaw_err (*fn)(void *) = *(klaw_err(*const *)(void *))a[0];
    GIVES(fn(a[1]), KLAW_CANCELLED);
    GIVES(fn(a[1]), KLAW_CANCELLED); /* and from now on at once */
    return KLAW_OK;
}

RUNS(a_cancellation_reaches_every_kind_of_wait_of_a_fiber, 2) {
    world w;
    world_make(&w);
    for (size_t i = 0; i < KINDS; i++)
        for (int how = 0; how < 2; how++) {
            void *a[] = {(void *)(uintptr_t)&kinds[i].fn, &w};
            klaw_scope *s = SCOPE(0);
            klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "waiter"}, waits_again, a);
            UNTIL(waiting("waiter", kinds[i].what) == 1);
            if (how == 0)
                klaw_scope_cancel(s, kinds[i].name);
            else
                klaw_fiber_cancel(f);
            GIVES(klaw_scope_close(s), how == 1 ? KLAW_OK : KLAW_CANCELLED);
            OK(result_of(f));
        }
    world_free(&w);
}

static klaw_err thread_waits_again(void *p) {
    klaw_scope *s = SCOPE(.deadline = KLAW_WITHIN(KLAW_MS(1)));
    OK(waits_again(p));
    GIVES(klaw_scope_close(s), KLAW_TIMEOUT);
    return KLAW_OK;
}

RUNS(a_cancellation_reaches_every_kind_of_wait_of_a_thread, 2) {
    world w;
    world_make(&w);
    for (size_t i = 0; i < KINDS; i++) {
        void *a[] = {(void *)(uintptr_t)&kinds[i].fn, &w};
        thread_job t;
        thread_start(&t, thread_waits_again, a);
        OK(thread_end(&t));
        OK(thread_waits_again(a)); /* and a fiber's own scope, by its deadline */
    }
    world_free(&w);
}

/* --- what it does not cut --- */
typedef struct slow {
    _Atomic int stage;
} slow;

static klaw_err works(void *arg) {
    slow *s = arg;
    atomic_store(&s->stage, 1);
    UNTIL(atomic_load(&s->stage) == 2);
    atomic_store(&s->stage, 3);
    return KLAW_LIMIT;
}

static klaw_err blocks(void *arg) {
    GIVES(klaw_blocking(works, arg), KLAW_LIMIT);
    SAME(((slow *)arg)->stage, 3);
    return klaw_check();
}

RUNS(a_blocking_call_is_awaited, 2) {
    slow it = {0};
    klaw_scope *s = SCOPE(0);
    klaw_fiber *f = fiber(blocks, &it);
    UNTIL(it.stage == 1);
    klaw_scope_cancel(s, NULL);
    klaw_fiber_cancel(f);
    GIVES(klaw_join(f, NULL, NULL, KLAW_NOWAIT), KLAW_TIMEOUT);
    it.stage = 2;
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    GIVES(result_of(f), KLAW_CANCELLED);
}

static klaw_err closes_a_scope(void *g) {
    klaw_scope *s = SCOPE(0), *in = SCOPE(.shield = true, .deadline = KLAW_WITHIN(SOON_NS));
    OK(klaw_spawn(in, passes, g, NULL, NULL));
    OK(klaw_scope_close(in)); /* not cut either: it never returns while a child runs */
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    return KLAW_OK;
}

RUNS(the_close_of_a_scope_is_never_cut, 2) {
    gate g = gate_make();
    klaw_scope *s = SCOPE(0);
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "closer"}, closes_a_scope, &g);
    UNTIL(waiting("closer", "scope") == 1);
    klaw_scope_cancel(s, NULL);
    klaw_fiber_cancel(f);
    SAME(waiting("closer", "scope"), 1);
    gate_open(&g);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    OK(result_of(f));
    gate_free(&g);
}

/* --- inside and outside --- */
RUNS(leaving_a_cancelled_scope_leaves_its_cancellation, 2) {
    klaw_scope *outer = SCOPE(0);
    for (int i = 0; i < 3; i++) {
        klaw_scope *s = SCOPE(0);
        klaw_scope_cancel(s, NULL);
        GIVES(klaw_sleep(KLAW_WITHIN(1)), KLAW_CANCELLED);
        GIVES(klaw_scope_close(s), KLAW_CANCELLED);
        OK(klaw_sleep(KLAW_WITHIN(1)));
    }
    CHECK(!klaw_scope_cancelled(outer));
    OK(klaw_scope_close(outer));
}

RUNS(cancelling_the_outer_scope_reaches_the_inner_ones, 2) {
    klaw_scope *a = SCOPE(0), *b = SCOPE(0), *c = SCOPE(0);
    klaw_fiber *f = fiber(parks, NULL);
    klaw_scope_cancel(a, NULL);
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    GIVES(klaw_scope_close(c), KLAW_CANCELLED);
    GIVES(result_of(f), KLAW_CANCELLED);
    CHECK(klaw_scope_cancelled(b));
    GIVES(klaw_scope_close(b), KLAW_CANCELLED);
    GIVES(klaw_scope_close(a), KLAW_CANCELLED);
    OK(klaw_check());
}

static klaw_err owner_with_children(void *arg) {
    klaw_scope *s = SCOPE(0);
    (void)arg;
    for (int i = 0; i < 10; i++)
        OK(klaw_go(parks, NULL));
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    return klaw_scope_close(s);
}

RUNS(a_cancellation_goes_down_the_tree, 2) {
    klaw_scope *s = SCOPE(0);
    klaw_fiber *f[20];
    for (int i = 0; i < 20; i++)
        f[i] = fiber_with((klaw_fiber_opts){.name = "owner"}, owner_with_children, NULL);
    UNTIL(waiting("owner", "sleep") == 20 && waiting("fiber", "sleep") == 200);
    klaw_scope_cancel(s, "all");
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    for (int i = 0; i < 20; i++)
        GIVES(result_of(f[i]), KLAW_CANCELLED);
}

/* --- very deep: by a list, not by recursion --- */
RUNS(a_hundred_thousand_nested_scopes_are_cancelled, 2) {
    int n = SANITIZED ? 10000 : 100000;
    klaw_scope *outermost = NULL, *s;
    for (int i = 0; i < n; i++) {
        s = SCOPE(0);
        outermost = outermost ? outermost : s;
    }
    OK(klaw_check());
    klaw_scope_cancel(outermost, "deep");
    GIVES(klaw_sleep(KLAW_FOREVER), KLAW_CANCELLED);
    assert_string_equal(klaw_scope_reason(klaw_scope_current()), "deep");
    for (int i = 0; i < n; i++)
        GIVES(klaw_scope_close(klaw_scope_current()), KLAW_CANCELLED);
    OK(klaw_check());
}

static klaw_err nests_by_fibers(void *arg) {
    intptr_t depth = (intptr_t)arg;
    klaw_scope *s = SCOPE(0);
    if (depth > 0)
        OK(klaw_go(nests_by_fibers, (void *)(depth - 1)));
    else
        OK(klaw_spawn(NULL, parks, NULL, &(klaw_fiber_opts){.name = "deepest"}, NULL));
    return klaw_scope_close(s);
}

RUNS(scopes_of_fibers_nested_ten_thousand_deep_are_cancelled, 2) {
    klaw_scope *s = SCOPE(0);
    OK(klaw_go(nests_by_fibers, (void *)(intptr_t)(SANITIZED ? 500 : 10000)));
    UNTIL(waiting("deepest", "sleep") == 1);
    klaw_scope_cancel(s, NULL);
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
}

/* --- at any instant: a cancelled wait and what it waited for race --- */
static klaw_err counts_what_it_gets(void *arg) {
    gate *g = arg;
    uint64_t v, n = 0;
    klaw_err e;
    while ((e = klaw_recv(g->rx, &v, KLAW_FOREVER)) == KLAW_OK)
        n++;
    klaw_set_value((void *)(uintptr_t)n);
    return e;
}

RUNS(what_was_sent_is_received_or_still_there_whenever_the_cancellation_comes, 2) {
    for (uint64_t i = 0; i < rounds(2000); i++) {
        gate g = gate_make();
        void *got = NULL;
        uint64_t v, there = 0;
        klaw_fiber *f = fiber(counts_what_it_gets, &g);
        for (uint64_t k = 0; k < i % 7 + 1; k++)
            OK(klaw_send(g.tx, &k, KLAW_FOREVER));
        klaw_fiber_cancel(f);
        klaw_err e;
        OK(klaw_join(f, &e, &got, KLAW_FOREVER));
        GIVES(e, KLAW_CANCELLED);
        while (klaw_recv(g.rx, &v, KLAW_NOWAIT) == KLAW_OK)
            there++;
        SAME((uintptr_t)got + there, i % 7 + 1);
        gate_free(&g);
    }
}

static klaw_err opens_and_closes(void *arg) {
    for (int i = 0; i < 200; i++) {
        klaw_scope *s = SCOPE(.shield = i % 3 == 0, .deadline = KLAW_WITHIN(SOON_NS));
        klaw_err e = klaw_yield();
        CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
        if (klaw_scope_close(s) == KLAW_CANCELLED && arg == NULL)
            break;
    }
    return klaw_check();
}

RUNS(a_fiber_is_cancelled_while_it_opens_and_closes_scopes, 2) {
    for (uint64_t i = 0; i < rounds(1000); i++) {
        klaw_fiber *f = fiber(opens_and_closes, (void *)(uintptr_t)(i % 2));
        compute(KLAW_US(i % 30));
        klaw_fiber_cancel(f);
        klaw_err e = result_of(f);
        CHECK(e == KLAW_CANCELLED || e == KLAW_OK);
    }
}

static klaw_err cancels_one(void *f) {
    klaw_fiber_cancel(f);
    return KLAW_OK;
}

RUNS(two_cancellers_at_once, 2) {
    for (uint64_t i = 0; i < rounds(500); i++) {
        klaw_scope *s = SCOPE(0);
        klaw_fiber *f = fiber(parks, NULL);
        thread_job t;
        thread_start(&t, cancels_one, f);
        klaw_scope_cancel(s, NULL);
        OK(thread_end(&t));
        GIVES(klaw_scope_close(s), KLAW_CANCELLED);
        GIVES(result_of(f), KLAW_CANCELLED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_cancellation_reaches_every_kind_of_wait_of_a_fiber),
        TEST(a_cancellation_reaches_every_kind_of_wait_of_a_thread),
        TEST(a_blocking_call_is_awaited),
        TEST(the_close_of_a_scope_is_never_cut),
        TEST(leaving_a_cancelled_scope_leaves_its_cancellation),
        TEST(cancelling_the_outer_scope_reaches_the_inner_ones),
        TEST(a_cancellation_goes_down_the_tree),
        TEST(a_hundred_thousand_nested_scopes_are_cancelled),
        TEST(scopes_of_fibers_nested_ten_thousand_deep_are_cancelled),
        TEST(what_was_sent_is_received_or_still_there_whenever_the_cancellation_comes),
        TEST(a_fiber_is_cancelled_while_it_opens_and_closes_scopes),
        TEST(two_cancellers_at_once),
    };
    return cmocka_run_group_tests_name("scope_cancel", tests, NULL, NULL);
}
