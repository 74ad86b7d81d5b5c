/* SPDX-License-Identifier: Apache-2.0 */
/* test_graph.c - the wait-for graph of the klaw command: drawn cases, and random ones against a naive solution.
 * Tried with these bugs: an end that was only made counts as held; a wait with a deadline counts as dead;
 * the first of two ends decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../cli/graph.h"
#include "support/check.h"
#include "support/random.h"

#define FIBERS 7
#define CHANNELS 6
#define ENDS 24

/* A snapshot by hand; arrays in the order the model keeps. */
typedef struct world {
    cli_snapshot s;
    klaw_fiber_info fibers[FIBERS];
    klaw_channel_stats channels[CHANNELS];
    klaw_wait_info waits[FIBERS * 2];
    klaw_endpoint_info ends[ENDS];
} world;

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    w->s.fibers = w->fibers;
    w->s.channels = w->channels;
    w->s.waits = w->waits;
    w->s.endpoints = w->ends;
    for (size_t i = 0; i < CHANNELS; i++)
        w->channels[i].id = i + 1;
    w->s.n_channels = CHANNELS;
}

static void fiber(world *w, bool waits, bool timed) {
    klaw_fiber_info *f = &w->fibers[w->s.n_fibers];
    f->id = ++w->s.n_fibers;
    f->state = waits ? KLAW_FIBER_WAITING : KLAW_FIBER_RUNNING;
    f->timed = timed;
    snprintf(f->waiting_on, sizeof f->waiting_on, waits ? "recv" : "");
}

static void wait_on(world *w, uint64_t fiber_id, uint64_t channel) {
    size_t at = w->s.n_waits++;
    for (; at > 0 && w->waits[at - 1].channel_id > channel; at--)
        w->waits[at] = w->waits[at - 1];
    w->waits[at] =
        (klaw_wait_info){.channel_id = channel, .host_id = fiber_id, .host = KLAW_HOST_FIBER};
}

/* host 0: nobody knows. */
static void sender(world *w, uint64_t channel, uint64_t host, bool used) {
    size_t at = w->s.n_endpoints++;
    for (; at > 0 && w->ends[at - 1].channel_id > channel; at--)
        w->ends[at] = w->ends[at - 1];
    w->ends[at] = (klaw_endpoint_info){.channel_id = channel,
                                       .host_id = host,
                                       .host = host ? KLAW_HOST_FIBER : KLAW_HOST_UNKNOWN,
                                       .sender = true,
                                       .used = used};
}

static bool is_alive(const world *w, uint64_t id, bool outside) {
    cli_graph *g = cli_graph_make(&w->s, 0, outside);
    CHECK(g);
    size_t i = cli_graph_find(g, KLAW_HOST_FIBER, id);
    CHECK(i < g->n);
    bool alive = g->nodes[i].alive;
    cli_graph_free(g);
    return alive;
}

static void a_ring_is_dead_though_others_live(void **state) {
    static world w;
    size_t ring[8];
    (void)state;
    begin(&w);
    fiber(&w, true, false);
    fiber(&w, true, false);
    fiber(&w, false, false);
    wait_on(&w, 1, 1);
    wait_on(&w, 2, 2);
    sender(&w, 1, 2, true);
    sender(&w, 2, 1, true);
    CHECK(!is_alive(&w, 1, true) && !is_alive(&w, 2, true) && is_alive(&w, 3, true));
    cli_graph *g = cli_graph_make(&w.s, 0, true);
    SAME(cli_graph_ring(g, cli_graph_find(g, KLAW_HOST_FIBER, 1), ring, 8), 2);
    SAME(cli_graph_ring(g, cli_graph_find(g, KLAW_HOST_FIBER, 1), ring, 1), 0);
    SAME(cli_graph_ring(g, cli_graph_find(g, KLAW_HOST_FIBER, 3), ring, 8), 0);
    cli_graph_free(g);
    sender(&w, 1, 3, true); /* a second way out, held by one that runs */
    CHECK(is_alive(&w, 1, true) && is_alive(&w, 2, true));
}

static void what_nobody_knows_may_be_anybodys(void **state) {
    static world w;
    (void)state;
    begin(&w);
    fiber(&w, true, false);
    wait_on(&w, 1, 1);
    sender(&w, 1, 0, true);
    CHECK(!is_alive(&w, 1, false)); /* nobody is left */
    CHECK(is_alive(&w, 1, true));
    fiber(&w, false, false);
    CHECK(is_alive(&w, 1, false));
    begin(&w);
    fiber(&w, true, false);
    wait_on(&w, 1, 1);
    sender(&w, 1, 99, true); /* a fiber that has ended may have handed it on */
    fiber(&w, false, false);
    CHECK(is_alive(&w, 1, false));
    begin(&w);
    fiber(&w, true, true);
    wait_on(&w, 1, 1);
    sender(&w, 1, 1, true);
    CHECK(is_alive(&w, 1, false)); /* a deadline ends it */
}

static void tasks_of_a_loop_are_dead_by_what_their_layer_tells_alone(void **state) {
    static world w;
    klaw_task_info tasks[3] = {
        {.id = 1, .name = "a"}, {.id = 2, .name = "b"}, {.id = 3, .name = "c"}};
    klaw_hold_info holds[4] = {{0, 0, ""}, {1, 2, ""}, {2, 1, "a lock"}, {3, 0, "a lock"}};
    size_t ring[8];
    (void)state;
    begin(&w);
    w.s.tasks = tasks;
    w.s.n_tasks = 3;
    wait_on(&w, 1, 1);
    w.waits[0].host = KLAW_HOST_FOREIGN;
    sender(&w, 1, 2, true);
    w.ends[0].host = KLAW_HOST_FOREIGN;
    for (int told = 0; told < 2; told++) {
        w.s.holds = told ? holds : NULL;
        w.s.n_holds = told ? 4 : 0;
        cli_graph *g = cli_graph_make(&w.s, 0, true);
        size_t a = cli_graph_find(g, KLAW_HOST_FOREIGN, 1),
               b = cli_graph_find(g, KLAW_HOST_FOREIGN, 2);
        SAME(g->n, told ? 3 : 1);
        SAME(g->nodes[a].alive, !told); /* who used the other end last says nothing */
        if (told) {
            CHECK(!g->nodes[b].alive && g->nodes[cli_graph_find(g, KLAW_HOST_FOREIGN, 3)].alive);
            CHECK(strcmp(g->nodes[b].waits, "for a lock") == 0);
            SAME(cli_graph_ring(g, a, ring, 8), 2);
        }
        cli_graph_free(g);
    }
    w.s.n_waits = 0; /* a has been woken since it was told */
    cli_graph *g = cli_graph_make(&w.s, 0, true);
    for (size_t i = 0; i < g->n; i++)
        CHECK(g->nodes[i].alive);
    cli_graph_free(g);
    w.s.n_tasks = 0; /* all have ended */
    g = cli_graph_make(&w.s, 0, true);
    SAME(g->n, 0);
    cli_graph_free(g);
}

/* Who waits for klaw itself (a ticker, a signal) goes on though nobody is left; members get into the struct that they are of. */
static void an_answer_is_read_as_it_was_written(void **state) {
    static const char answer[] =
        "{\"version\":\"1\",\"time\":\"2026-01-02T03:04:05.5Z\",\"truncated\":true,"
        "\"fibers\":[{\"id\":7,\"name\":\"f\",\"state\":\"waiting\",\"waiting_on\":\"recv\","
        "\"waiting_id\":3,\"worker\":null,\"age\":5,\"timed\":false,\"waits\":9}],"
        "\"channels\":[{\"id\":3,\"name\":\"ticker\",\"capacity\":-2,\"senders_closed\":true}],"
        "\"actors\":[{\"id\":2,\"state\":\"ended\",\"capacity\":4}],"
        "\"supervisors\":[{\"id\":1,\"strategy\":\"rest_for_one\",\"stopping\":true}],"
        "\"supervisions\":[{\"supervisor_id\":1,\"name\":\"c\",\"kind\":\"actor\",\"id\":2,"
        "\"last_error\":\"KLAW_TIMEOUT\",\"last_detail\":\"late\",\"restarts\":6}],"
        "\"waits\":[{\"channel_id\":3,\"host\":\"fiber\",\"host_id\":7,\"sends\":false}],"
        "\"endpoints\":[{\"channel_id\":3,\"sender\":true,\"host\":\"runtime\",\"host_id\":0,"
        "\"used\":true}]}";
    char why[160];
    (void)state;
    cli_snapshot *s = cli_snapshot_parse(answer, sizeof answer - 1, why, sizeof why);
    CHECK(s && s->truncated && s->time % 1000000000 == 500000000);
    CHECK(s->n_fibers == 1 && s->fibers->id == 7 && s->fibers->worker == KLAW_NONE);
    CHECK(s->fibers->state == KLAW_FIBER_WAITING && s->fibers->waits == 9 && s->fibers->age == 5);
    CHECK(s->channels->capacity == KLAW_UNBOUNDED && s->channels->senders_closed);
    CHECK(s->channels->oldest_age == KLAW_NONE);
    CHECK(s->actors->state == KLAW_ACTOR_ENDED && s->actors->capacity == 4);
    CHECK(s->supervisors->strategy == KLAW_REST_FOR_ONE && s->supervisors->stopping);
    const klaw_child_info *c = &s->supervised->child;
    CHECK(s->supervised->supervisor_id == 1 && c->kind == KLAW_CHILD_ACTOR && c->id == 2);
    CHECK(c->last_error == KLAW_TIMEOUT && c->restarts == 6 && strcmp(c->last_detail, "late") == 0);
    CHECK(s->endpoints->host == KLAW_HOST_RUNTIME && s->endpoints->used);
    cli_graph *g = cli_graph_make(s, 0, false);
    CHECK(g->n == 1 && g->nodes[0].alive);
    cli_graph_free(g);
    cli_snapshot_free(s);
}

/* The definition, by iteration until nothing changes. */
static void naive(const world *w, bool outside, bool alive[FIBERS + 1]) {
    for (bool changed = true; changed;) {
        bool somebody = outside;
        changed = false;
        for (size_t i = 1; i <= w->s.n_fibers; i++)
            somebody |= alive[i];
        for (size_t i = 0; i < w->s.n_fibers; i++) {
            const klaw_fiber_info *f = &w->fibers[i];
            bool now = f->state != KLAW_FIBER_WAITING || f->timed;
            for (size_t k = 0; k < w->s.n_waits; k++) {
                bool any = false;
                if (w->waits[k].host_id != f->id)
                    continue;
                for (size_t e = 0; e < w->s.n_endpoints; e++) {
                    const klaw_endpoint_info *end = &w->ends[e];
                    if (end->channel_id != w->waits[k].channel_id)
                        continue;
                    any = true;
                    if (end->host_id == 0 || end->host_id > w->s.n_fibers)
                        now |= somebody;
                    else
                        now |= alive[end->host_id] || (!end->used && somebody);
                }
                now |= !any; /* it is being woken */
            }
            changed |= now && !alive[f->id];
            alive[f->id] |= now;
        }
    }
}

static void random_worlds_have_the_naive_solution(void **state) {
    static world w;
    rng r = {seed_begin()};
    size_t dead = 0, rings = 0;
    (void)state;
    for (uint64_t round = rounds(20000); round > 0; round--) {
        bool outside = rng_below(&r, 3) == 0, alive[FIBERS + 1] = {false};
        begin(&w);
        for (size_t n = 1 + rng_below(&r, FIBERS); n > 0; n--)
            fiber(&w, rng_below(&r, 8) != 0, rng_below(&r, 10) == 0);
        for (uint64_t i = 1; i <= w.s.n_fibers; i++)
            if (w.fibers[i - 1].state == KLAW_FIBER_WAITING)
                for (uint64_t n = 1 + (rng_below(&r, 4) == 0); n > 0; n--)
                    wait_on(&w, i, 1 + rng_below(&r, CHANNELS));
        for (uint64_t n = rng_below(&r, ENDS); n > 0; n--)
            sender(&w, 1 + rng_below(&r, CHANNELS),
                   rng_below(&r, 12) ? 1 + rng_below(&r, (uint32_t)w.s.n_fibers + 1) : 0,
                   rng_below(&r, 5) != 0);
        naive(&w, outside, alive);
        cli_graph *g = cli_graph_make(&w.s, 0, outside);
        CHECK(g);
        SAME(g->n, w.s.n_fibers);
        for (size_t i = 0; i < g->n; i++) {
            size_t ring[FIBERS];
            SAME(g->nodes[i].alive, alive[g->nodes[i].id]);
            size_t n = cli_graph_ring(g, i, ring, FIBERS);
            CHECK(n == 0 || !g->nodes[i].alive);
            for (size_t k = 0; k < n; k++)
                CHECK(cli_graph_edge(g, ring[k], ring[(k + 1) % n]) && !g->nodes[ring[k]].alive);
            dead += !g->nodes[i].alive;
            rings += n > 0;
        }
        cli_graph_free(g);
    }
    CHECK(dead > 0 && rings > 0); /* the worlds are worth looking at */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_is_dead_though_others_live),
        cmocka_unit_test(what_nobody_knows_may_be_anybodys),
        cmocka_unit_test(tasks_of_a_loop_are_dead_by_what_their_layer_tells_alone),
        cmocka_unit_test(an_answer_is_read_as_it_was_written),
        cmocka_unit_test(random_worlds_have_the_naive_solution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
