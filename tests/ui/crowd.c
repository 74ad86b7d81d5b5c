/* SPDX-License-Identifier: Apache-2.0 */
/* crowd.c - `crowd <channels> <actors>`: a program to look at. Pairs of fibers with a channel between them, actors that now
 * and then fail, and a tree of supervisors whose children keep failing. Ends with SIGTERM. */
#include <klaw/klaw.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct crowd {
    int channels, actors;
    klaw_actor **all;
} crowd;

static klaw_err pump(void *arg) {
    klaw_err e = KLAW_OK;
    for (uint64_t i = 0; !e; i++)
        if (!(e = klaw_send(arg, &i, KLAW_FOREVER)) && i % 16 == 0)
            e = klaw_sleep(KLAW_WITHIN(KLAW_MS(50 + rand() % 100)));
    return e;
}

static klaw_err drain(void *arg) {
    uint64_t v;
    klaw_err e;
    while ((e = klaw_recv(arg, &v, KLAW_FOREVER)) == KLAW_OK)
        if ((e = klaw_sleep(KLAW_WITHIN(KLAW_MS(rand() % 12)))))
            break;
    return e;
}

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)reply;
    return *(uint64_t *)message % 97 == 0 ? KLAW_BACKEND : KLAW_OK;
}
static const klaw_behavior worker = {.name = "worker", .message = &klaw_u64, .handle = handle};

static klaw_err feed(void *arg) {
    crowd *c = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e; i++) {
        e = klaw_actor_send(c->all[rand() % c->actors], &i, KLAW_WITHIN(KLAW_MS(100)));
        if (e == KLAW_TIMEOUT)
            e = KLAW_OK;
        if (!e && i % 50 == 0)
            e = klaw_sleep(KLAW_WITHIN(KLAW_MS(20)));
    }
    return e;
}

static klaw_err flaky(void *arg) {
    (void)arg;
    klaw_err e = klaw_sleep(KLAW_WITHIN(KLAW_MS(200 + rand() % 1500)));
    return e ? e : KLAW_BACKEND;
}

static klaw_err add_channels(const crowd *c) {
    char name[32];
    klaw_err e = KLAW_OK;
    for (int i = 0; !e && i < c->channels; i++) {
        klaw_sender *tx;
        klaw_receiver *rx;
        klaw_fiber_opts fiber = {.name = name};
        snprintf(name, sizeof name, "stage %d", i);
        e = klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 64, .name = name}, &tx, &rx);
        snprintf(name, sizeof name, "producer %d", i % 7);
        if (!e)
            e = klaw_spawn(NULL, pump, tx, &fiber, NULL);
        snprintf(name, sizeof name, "consumer");
        if (!e)
            e = klaw_spawn(NULL, drain, rx, &fiber, NULL);
    }
    return e;
}

static klaw_err add_supervisors(void) {
    static const klaw_supervisor_opts
        opts = {.name = "shop", .policy = {.max_restarts = 1000000, .no_backoff = true}},
        inner = {.name = "inner", .policy = {.max_restarts = 1000000, .no_backoff = true}};
    static const klaw_child_spec leaves[] = {{.name = "left", .run = flaky},
                                             {.name = "middle", .run = flaky},
                                             {.name = "right", .run = flaky}};
    static const klaw_child_spec children[] = {{.name = "web", .run = flaky},
                                               {.name = "cache", .run = flaky},
                                               {.name = "inner",
                                                .kind = KLAW_CHILD_SUPERVISOR,
                                                .supervisor = &inner,
                                                .children = leaves,
                                                .n_children = 3}};
    klaw_supervisor *s;
    klaw_err e = klaw_supervisor_open(&opts, children, 3, &s, NULL);
    if (!e)
        klaw_supervisor_unref(s);
    return e;
}

static klaw_err first(void *arg) {
    crowd *c = arg;
    klaw_err e = add_channels(c);
    for (int i = 0; !e && i < c->actors; i++) {
        char name[32];
        snprintf(name, sizeof name, "worker-%d", i);
        e = klaw_actor_spawn(&worker, NULL,
                             &(klaw_actor_opts){.name = name, .max_restarts = 1000000}, &c->all[i]);
    }
    if (!e)
        e = add_supervisors();
    return e ? e : c->actors ? feed(c) : klaw_sleep(KLAW_FOREVER);
}

int main(int argc, char **argv) {
    crowd c = {argc > 1 ? atoi(argv[1]) : 12, argc > 2 ? atoi(argv[2]) : 30, NULL};
    c.all = calloc((size_t)c.actors + 1, sizeof *c.all);
    return c.all ? (int)klaw_run(first, &c, NULL) : 1;
}
