/* SPDX-License-Identifier: Apache-2.0 */
/* test_actor_stress.c - fibers and threads send, ask, watch, link, fail, kill and stop a handful of
 * actors at random; then the account: every ask had one answer or one error, every message and every
 * answer was dropped once, every watch told one end, every incarnation that started has stopped.
 *
 * A seed replays the operations; threads run as they please. */
#include "support/actors.h"
#include "support/random.h"

#define ACTORS 6

typedef struct crowd {
    uint64_t seed;
    diary d[ACTORS];
    _Atomic(klaw_actor *) a[ACTORS];
    pthread_mutex_t lock[ACTORS]; /* of the reference in a */
    _Atomic uint64_t asked, answered, errors, watched, told, spawned;
    uint32_t rounds;
} crowd;

typedef struct member {
    crowd *c;
    uint64_t i;
} member;

static klaw_actor *pick(crowd *c, uint32_t i) {
    pthread_mutex_lock(&c->lock[i]);
    klaw_actor *a = klaw_actor_ref(atomic_load(&c->a[i]));
    pthread_mutex_unlock(&c->lock[i]);
    return a;
}

static klaw_actor *spawned(crowd *c, uint32_t i, rng *r) {
    atomic_fetch_add(&c->spawned, 1);
    return DOER(&c->d[i], .capacity = 1 + rng_below(r, 8), .no_backoff = true,
                .restart = rng_one_in(r, 3) ? KLAW_RESTART_NEVER : KLAW_RESTART_ON_FAILURE,
                .max_restarts = 5);
}

/* Ends one, waits for it, puts another one in its place. */
static void replaces(crowd *c, uint32_t i, rng *r) {
    klaw_actor *fresh = spawned(c, i, r);
    pthread_mutex_lock(&c->lock[i]);
    klaw_actor *old = atomic_load(&c->a[i]);
    atomic_store(&c->a[i], fresh);
    pthread_mutex_unlock(&c->lock[i]);
    if (rng_one_in(r, 2))
        klaw_actor_kill(old);
    else
        klaw_actor_stop(old);
    (void)why_of(old);
    klaw_actor_unref(old);
}

static klaw_deadline brief(rng *r) {
    switch (rng_below(r, 3)) {
    case 0: return KLAW_FOREVER;
    case 1: return KLAW_WITHIN(1 + rng_below(r, 100000));
    default: return KLAW_WITHIN(KLAW_MS(20));
    }
}

static void one_deed(crowd *c, rng *r) {
    uint32_t i = rng_below(r, ACTORS);
    klaw_actor *a = pick(c, i), *b = pick(c, (i + 1) % ACTORS);
    klaw_receiver *rx;
    klaw_down d;
    klaw_err e = KLAW_OK;
    uint32_t what = rng_below(r, 40);
    if (what < 16) {
        atomic_fetch_add(&c->asked, 1);
        e = ask_until(a, ADD, 1, NULL, NULL, brief(r));
        atomic_fetch_add(e ? &c->errors : &c->answered, 1);
    } else if (what < 28) {
        e = tell_until(a, ADD, 1, NULL, rng_one_in(r, 2) ? KLAW_NOWAIT : brief(r));
    } else if (what < 31) {
        e = tell_until(a, FAIL, KLAW_LIMIT, NULL, brief(r));
    } else if (what < 33) {
        /* b is ours until it is handled */
        e = ask_until(a, rng_one_in(r, 2) ? LINK : MONITOR, 0, b, NULL, KLAW_FOREVER);
    } else if (what < 35) {
        e = ask_until(a, EVERY, 20000, NULL, NULL, brief(r));
    } else if (what < 37) {
        OK(klaw_actor_watch(a, &rx));
        atomic_fetch_add(&c->watched, 1);
        if (rng_one_in(r, 2)) {
            replaces(c, i, r);
            if (klaw_actor_join(a, brief(r), NULL) == KLAW_OK) {
                OK(klaw_recv(rx, &d, KLAW_NOWAIT));
                CHECK(d.actor == a);
                klaw_down_type.drop(&d);
                GIVES(klaw_recv(rx, &d, KLAW_NOWAIT), KLAW_CLOSED);
            }
        }
        klaw_receiver_unref(rx);
    } else if (what < 38) {
        replaces(c, i, r);
    } else {
        (void)actor_stats(a);
    }
    CHECK(e == KLAW_OK || e == KLAW_TIMEOUT || e == KLAW_FULL || e == KLAW_STOPPED ||
          e == KLAW_LIMIT || e == KLAW_CANCELLED);
    klaw_actor_unref(a);
    klaw_actor_unref(b);
}

static klaw_err lives(void *arg) {
    member *m = arg;
    rng r = rng_part(m->c->seed, m->i);
    for (uint32_t i = 0; i < m->c->rounds; i++)
        one_deed(m->c, &r);
    return KLAW_OK;
}

static crowd crowd_now;

RUNS(a_crowd_of_askers_and_a_few_actors, 2) {
    crowd *c = &crowd_now;
    memset(c, 0, sizeof *c);
    c->seed = seed_begin();
    c->rounds = (uint32_t)rounds(1500);
    rng r = rng_part(c->seed, 1000);
    member m[10];
    klaw_fiber *f[8];
    thread_job t[2];
    for (uint32_t i = 0; i < ACTORS; i++) {
        pthread_mutex_init(&c->lock[i], NULL);
        atomic_store(&c->a[i], spawned(c, i, &r));
    }
    for (uint64_t i = 0; i < 10; i++)
        m[i] = (member){c, i};
    for (int i = 0; i < 8; i++)
        f[i] = fiber(lives, &m[i]);
    for (int i = 0; i < 2; i++)
        thread_start(&t[i], lives, &m[8 + i]);
    for (int i = 0; i < 8; i++)
        OK(result_of(f[i]));
    for (int i = 0; i < 2; i++)
        OK(thread_end(&t[i]));
    uint64_t starts = 0, stops = 0, released = 0;
    for (int i = 0; i < ACTORS; i++) {
        klaw_actor *a = atomic_load(&c->a[i]);
        klaw_actor_stop(a);
        (void)why_of(a);
        klaw_actor_unref(a);
        starts += c->d[i].starts;
        stops += c->d[i].stops;
        released += c->d[i].released;
        pthread_mutex_destroy(&c->lock[i]);
    }
    SAME(starts, stops);
    SAME(released, c->spawned);
    SAME(c->asked, c->answered + c->errors);
    nothing_lost();
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(a_crowd_of_askers_and_a_few_actors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
