/* SPDX-License-Identifier: Apache-2.0 */
/* patient.c - what ails it is its argument: programs for the tests of the klaw command. It says "ready"
 * when that has come about, and stays until it is killed or its input ends. */
#include <klaw/klaw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static klaw_scope *all;

static void must(klaw_err e, const char *what) {
    if (e == KLAW_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, klaw_err_text(e));
    abort();
}
#define MUST(call) must((call), #call)

static void go(const char *name, klaw_fn fn, void *arg) {
    MUST(klaw_spawn(all, fn, arg, &(klaw_fiber_opts){.name = name}, NULL));
}

typedef struct ends {
    klaw_sender *tx;
    klaw_receiver *rx;
} ends;

static ends channel(const char *name, int64_t capacity) {
    ends e;
    MUST(klaw_channel(&klaw_u64, &(klaw_channel_opts){.name = name, .capacity = capacity}, &e.tx,
                      &e.rx));
    return e;
}

/* Until that many fibers of this name wait for this. */
static void until(const char *name, const char *what, size_t wanted) {
    for (size_t found = SIZE_MAX; found != wanted;) {
        klaw_snapshot *s;
        size_t n;
        MUST(klaw_sleep(KLAW_WITHIN(KLAW_MS(1))));
        MUST(klaw_snapshot_take(&s));
        const klaw_fiber_info *f = klaw_snapshot_fibers(s, &n);
        found = 0;
        for (size_t i = 0; i < n; i++)
            found += f[i].state == KLAW_FIBER_WAITING && strcmp(f[i].name, name) == 0 &&
                     strcmp(f[i].waiting_on, what) == 0;
        klaw_snapshot_free(s);
    }
}

static klaw_err input_ends(void *arg) {
    char bytes[64];
    size_t n;
    klaw_err e;
    (void)arg;
    while ((e = klaw_fd_read(STDIN_FILENO, bytes, sizeof bytes, &n, KLAW_FOREVER, NULL)) ==
               KLAW_OK &&
           n > 0)
        ;
    _exit(0);
    return e;
}

static void stay(void) {
    go("input", input_ends, NULL);
    puts("ready");
    fflush(stdout);
}

/* ---- deadlocks ---- */

static ends a, b;

static klaw_err left(void *arg) {
    uint64_t v = 1;
    (void)arg;
    MUST(klaw_send(b.tx, &v, KLAW_FOREVER));
    MUST(klaw_recv(a.rx, &v, KLAW_FOREVER));
    return klaw_recv(a.rx, &v, KLAW_FOREVER);
}
static klaw_err right(void *arg) {
    uint64_t v = 1;
    (void)arg;
    MUST(klaw_send(a.tx, &v, KLAW_FOREVER));
    MUST(klaw_recv(b.rx, &v, KLAW_FOREVER));
    return klaw_recv(b.rx, &v, KLAW_FOREVER);
}
static klaw_err joins(void *arg) {
    return klaw_join(arg, NULL, NULL, KLAW_FOREVER);
}

/* Two that have used the ends they hold, and one that waits for one of them; others live. */
static void ring(void) {
    klaw_fiber *f;
    a = channel("to left", 4);
    b = channel("to right", 4);
    MUST(klaw_spawn(all, left, NULL, &(klaw_fiber_opts){.name = "left"}, &f));
    go("right", right, NULL);
    go("behind", joins, f);
    until("left", "recv", 1);
    until("right", "recv", 1);
    until("behind", "join", 1);
    stay();
}

/* The ends were made by main and never used; nobody else lives. */
static klaw_err receives(void *arg) {
    uint64_t v;
    return klaw_recv(((ends *)arg)->rx, &v, KLAW_FOREVER);
}
static void everybody(void) {
    a = channel("first", 4);
    b = channel("second", 4);
    go("one", receives, &a);
    go("two", receives, &b);
    until("one", "recv", 1);
    until("two", "recv", 1);
    puts("ready");
    fflush(stdout);
}

/* ---- actors ---- */

static klaw_actor *actors[2];
static int asker_numbers[2] = {0, 1};

typedef struct asker {
    int number;
} asker;

static klaw_err asker_start(klaw_self *self, void *state, void *arg) {
    (void)self;
    ((asker *)state)->number = *(int *)arg;
    return KLAW_OK;
}
static klaw_err asker_handle(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t answer;
    (void)self;
    return klaw_actor_ask(actors[1 - ((asker *)state)->number], message, reply ? reply : &answer,
                          KLAW_FOREVER);
}
static const klaw_behavior asking = {.name = "asking",
                                     .message = &klaw_u64,
                                     .reply = &klaw_u64,
                                     .state_size = sizeof(asker),
                                     .start = asker_start,
                                     .handle = asker_handle};

static void asks(void) {
    uint64_t v = 1;
    for (int i = 0; i < 2; i++)
        MUST(klaw_actor_spawn(&asking, &asker_numbers[i],
                              &(klaw_actor_opts){.name = i ? "bank" : "shop"}, &actors[i]));
    for (int i = 0; i < 2; i++)
        MUST(klaw_actor_send(actors[i], &v, KLAW_FOREVER));
    until("bank", "ask", 1);
    until("shop", "ask", 1);
    stay();
}

static klaw_err waits_inside(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    (void)reply;
    return klaw_recv(a.rx, message, KLAW_FOREVER);
}
static const klaw_behavior waiting_actor = {
    .name = "patient", .message = &klaw_u64, .handle = waits_inside};

static void stuck(void) {
    uint64_t v = 1;
    a = channel("never", 4);
    MUST(klaw_actor_spawn(&waiting_actor, NULL, &(klaw_actor_opts){.name = "clerk"}, &actors[0]));
    for (int i = 0; i < 5; i++)
        MUST(klaw_actor_send(actors[0], &v, KLAW_FOREVER));
    until("clerk", "recv", 1);
    stay();
}

/* ---- channels ---- */

static klaw_err sends_one(void *arg) {
    uint64_t v = 1;
    return klaw_send(arg, &v, KLAW_FOREVER);
}
static klaw_err receives_all(void *arg) {
    uint64_t v;
    while (klaw_recv(arg, &v, KLAW_FOREVER) == KLAW_OK)
        ;
    return KLAW_OK;
}

static void leak(void) {
    a = channel("results", 4);
    go("collector", receives_all, a.rx);
    go("worker", sends_one, a.tx);
    until("worker", "send", 0);
    until("collector", "recv", 1);
    stay();
}

static klaw_err floods(void *arg) {
    for (uint64_t v = 0; klaw_sleep(KLAW_WITHIN(KLAW_MS(2))) == KLAW_OK;)
        for (int i = 0; i < 20; i++, v++)
            MUST(klaw_send(arg, &v, KLAW_FOREVER));
    return KLAW_OK;
}

static void growing(void) {
    a = channel("log lines", KLAW_UNBOUNDED);
    go("flood", floods, a.tx);
    stay();
}

static void stalled(void) {
    uint64_t v = 1;
    a = channel("orders", 4);
    for (int i = 0; i < 4; i++)
        MUST(klaw_send(a.tx, &v, KLAW_NOWAIT));
    go("customer", sends_one, a.tx);
    until("customer", "send", 1);
    stay();
}

/* ---- supervision ---- */

static klaw_err fails(void *arg) {
    (void)arg;
    klaw_err e = klaw_sleep(KLAW_WITHIN(KLAW_MS(10)));
    return e ? e : KLAW_BACKEND;
}
static klaw_err runs(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}

static void storm(void) {
    klaw_supervisor *s;
    klaw_child_spec inner[] = {{.name = "flaky", .run = fails}, {.name = "steady", .run = runs}};
    klaw_supervisor_opts in = {.name = "inner"}, out = {.name = "outer"};
    in.policy.max_restarts = 1000000;
    in.policy.restart_window = KLAW_S(1);
    in.policy.no_backoff = true;
    klaw_child_spec outer[] = {{.name = "inner",
                                .kind = KLAW_CHILD_SUPERVISOR,
                                .supervisor = &in,
                                .children = inner,
                                .n_children = 2},
                               {.name = "base", .run = runs}};
    MUST(klaw_supervisor_open(&out, outer, 2, &s, NULL));
    stay();
}

/* ---- health ---- */

static klaw_err ticks(void *arg) {
    klaw_receiver *every;
    uint64_t v;
    MUST(klaw_ticker_open(KLAW_MS(5), &every));
    while (klaw_recv(every, &v, KLAW_FOREVER) == KLAW_OK) {
        MUST(klaw_send(arg, &v, KLAW_FOREVER));
        MUST(klaw_actor_send(actors[0], &v, KLAW_FOREVER));
    }
    return KLAW_OK;
}
static klaw_err counts(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)reply;
    *(uint64_t *)state += *(uint64_t *)message;
    return KLAW_OK;
}
static const klaw_behavior counting = {
    .name = "counting", .message = &klaw_u64, .state_size = sizeof(uint64_t), .handle = counts};

static klaw_executor *pool;
static klaw_err long_task(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}

static void healthy(void) {
    klaw_task *t;
    a = channel("ticks", 16);
    MUST(klaw_actor_spawn(&counting, NULL, &(klaw_actor_opts){.name = "counter"}, &actors[0]));
    MUST(klaw_executor_open(&(klaw_executor_opts){.concurrency = 1, .name = "pool"}, &pool));
    for (int i = 0; i < 2; i++)
        MUST(klaw_submit(pool, long_task, NULL, &(klaw_task_opts){.name = i ? "queued" : "busy"},
                         &t));
    go("consumer", receives_all, a.rx);
    go("producer", ticks, a.tx);
    stay();
}

#define CHANNELS 1000
#define ACTORS 10000
static ends many_channels[CHANNELS];
static void many(void) {
    for (int i = 0; i < CHANNELS; i++) {
        char name[32];
        snprintf(name, sizeof name, "channel %d", i);
        many_channels[i] = channel(name, 16);
    }
    for (int i = 0; i < ACTORS; i++) {
        char name[32];
        klaw_actor *actor;
        snprintf(name, sizeof name, "actor %d", i);
        MUST(klaw_actor_spawn(&counting, NULL, &(klaw_actor_opts){.name = name}, &actor));
    }
    stay();
}

/* A name that would move the cursor, if it got through. */
static void names(void) {
    a = channel("\033[2J\007bell\tand tab", 4);
    go("\xff\xfe no \xe2\x82 utf", receives, &a);
    stay();
}

static const struct {
    const char *name;
    void (*begin)(void);
} ills[] = {{"ring", ring},       {"all", everybody},   {"asks", asks},       {"stuck", stuck},
            {"leak", leak},       {"growing", growing}, {"stalled", stalled}, {"storm", storm},
            {"healthy", healthy}, {"many", many},       {"names", names}};

static klaw_err patient(void *arg) {
    MUST(klaw_scope_open(&(klaw_scope_opts){.name = "all"}, &all));
    for (size_t i = 0; i < sizeof ills / sizeof *ills; i++)
        if (strcmp(ills[i].name, arg) == 0) {
            ills[i].begin();
            return klaw_scope_close(all);
        }
    return KLAW_INVALID;
}

int main(int argc, char **argv) {
    klaw_run_opts opts = {.workers = 2, .inspect = true};
    return argc == 2 && klaw_run(patient, argv[1], &opts) == KLAW_OK ? 0 : 2;
}
