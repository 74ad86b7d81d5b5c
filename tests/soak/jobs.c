/* SPDX-License-Identifier: Apache-2.0 */
#include "jobs.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

klaw_store *soak_store;

/* ---- channels ---- */

typedef struct flow {
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t n, sum;
} flow;

static klaw_err produce(void *arg) {
    flow *f = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= f->n; i++)
        e = klaw_send(f->tx, &i, KLAW_FOREVER);
    klaw_sender_unref(f->tx);
    return e;
}

static klaw_err consume(void *arg) {
    flow *f = arg;
    uint64_t v;
    klaw_err e;
    while ((e = klaw_recv(f->rx, &v, KLAW_FOREVER)) == KLAW_OK)
        f->sum += v;
    klaw_receiver_unref(f->rx);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

/* Many producers, many consumers, any capacity: what went in came out. */
static void pipeline(rng *r) {
    enum { SIDES = 4 };
    static const int64_t capacities[] = {KLAW_RENDEZVOUS, 1, 7, 1024, KLAW_UNBOUNDED};
    klaw_channel_opts opts = {.capacity = capacities[rng_below(r, 5)], .name = "pipeline"};
    flow in[SIDES], out[SIDES];
    uint64_t sent = 0, got = 0;
    size_t senders = 1 + rng_below(r, SIDES), receivers = 1 + rng_below(r, SIDES);
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_scope *scope;
    OK(klaw_channel(&klaw_u64, &opts, &tx, &rx));
    OK(klaw_scope_open(NULL, &scope));
    for (size_t i = 0; i < receivers; i++) {
        out[i] = (flow){0};
        OK(klaw_receiver_clone(rx, &out[i].rx));
        OK(klaw_go(consume, &out[i]));
    }
    for (size_t i = 0; i < senders; i++) {
        in[i] = (flow){.n = rng_below(r, 300)};
        sent += in[i].n * (in[i].n + 1) / 2;
        OK(klaw_sender_clone(tx, &in[i].tx));
        OK(klaw_go(produce, &in[i]));
    }
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    OK(klaw_scope_close(scope));
    for (size_t i = 0; i < receivers; i++)
        got += out[i].sum;
    SAME(sent, got);
}

/* A pipeline that is cancelled somewhere: everybody ends, nothing leaks (the test looks). */
static void cut_short(rng *r) {
    flow in = {.n = UINT64_MAX}, out = {0};
    klaw_scope *scope;
    OK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 3, .name = "cut"}, &in.tx,
                    &out.rx));
    OK(klaw_scope_open(&(klaw_scope_opts){.deadline = klaw_after(KLAW_US(1 + rng_below(r, 2000)))},
                       &scope));
    OK(klaw_go(produce, &in));
    OK(klaw_go(consume, &out));
    klaw_err e = klaw_scope_close(scope);
    CHECK(e == KLAW_TIMEOUT ||
          e == KLAW_CLOSED); /* one side may have left before the other heard */
}

/* A broadcast: what a receiver has seen and what it was told it missed are everything. */
static void broadcast(rng *r) {
    enum { N = 200 };
    klaw_sender *tx;
    klaw_receiver *rx;
    uint64_t v, seen = 0, missed = 0, sent = 0;
    klaw_err e = KLAW_OK;
    OK(klaw_broadcast(&klaw_u64, &(klaw_broadcast_opts){.capacity = 1 + rng_below(r, 16)}, &tx,
                      &rx));
    while (sent < N) {
        for (uint32_t burst = rng_below(r, 24); burst && sent < N; burst--) {
            sent++;
            OK(klaw_send(tx, &sent, KLAW_FOREVER));
        }
        for (uint32_t some = rng_below(r, 24); some; some--) {
            e = klaw_recv(rx, &v, KLAW_NOWAIT);
            if (e == KLAW_LAGGED)
                missed += klaw_receiver_missed(rx);
            else if (e == KLAW_OK)
                seen++, SAME(v, seen + missed);
        }
    }
    klaw_sender_unref(tx);
    while ((e = klaw_recv(rx, &v, KLAW_FOREVER)) != KLAW_CLOSED)
        e == KLAW_LAGGED ? (missed += klaw_receiver_missed(rx)) : seen++;
    SAME(seen + missed, N);
    klaw_receiver_unref(rx);
}

static klaw_err publish(void *arg) {
    flow *f = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= f->n; i++)
        if (!(e = klaw_send(f->tx, &i, KLAW_FOREVER)))
            e = klaw_yield();
    klaw_sender_unref(f->tx);
    return e;
}

/* A watch: values only grow, and the last one is seen. */
static void watch(rng *r) {
    flow f = {.n = 1 + rng_below(r, 100)};
    klaw_receiver *rx;
    uint64_t last = 0, v;
    klaw_scope *scope;
    OK(klaw_watch(&klaw_u64, &last, &f.tx, &rx));
    OK(klaw_scope_open(NULL, &scope));
    OK(klaw_go(publish, &f));
    while (klaw_recv(rx, &v, KLAW_FOREVER) == KLAW_OK) {
        CHECK(v >= last);
        last = v;
    }
    SAME(last, f.n);
    OK(klaw_scope_close(scope));
    klaw_receiver_unref(rx);
}

/* Select over several channels, with a time limit that sometimes strikes: no element is lost. */
static void selects(rng *r) {
    enum { WAYS = 4 };
    flow in[WAYS];
    klaw_receiver *rx[WAYS];
    uint64_t v, sent = 0, got = 0;
    size_t open = WAYS, chosen;
    klaw_scope *scope;
    OK(klaw_scope_open(NULL, &scope));
    for (size_t i = 0; i < WAYS; i++) {
        in[i] = (flow){.n = rng_below(r, 50)};
        sent += in[i].n * (in[i].n + 1) / 2;
        OK(klaw_channel(&klaw_u64,
                        &(klaw_channel_opts){.capacity = 1 + rng_below(r, 3), .name = "select"},
                        &in[i].tx, &rx[i]));
        OK(klaw_go(produce, &in[i]));
    }
    klaw_case cases[WAYS];
    for (size_t i = 0; i < WAYS; i++)
        cases[i] = klaw_case_recv(rx[i], &v);
    while (open) {
        klaw_err e = klaw_select(cases, WAYS, &chosen, KLAW_WITHIN(KLAW_US(1 + rng_below(r, 50))));
        CHECK(e == KLAW_OK || e == KLAW_TIMEOUT);
        if (e == KLAW_OK && cases[chosen].err == KLAW_OK)
            got += v;
        else if (e == KLAW_OK)
            cases[chosen].kind = KLAW_CASE_NONE, open--;
    }
    SAME(sent, got);
    OK(klaw_scope_close(scope));
    for (size_t i = 0; i < WAYS; i++)
        klaw_receiver_unref(rx[i]);
}

/* ---- executors ---- */

static klaw_err square(const void *item, void *result, void *arg) {
    (void)arg;
    *(uint64_t *)result = *(const uint64_t *)item * *(const uint64_t *)item;
    return *(const uint64_t *)item % 13 == 12 ? klaw_yield() : KLAW_OK;
}

static klaw_err napper(void *arg) {
    return klaw_sleep(KLAW_WITHIN(KLAW_US(*(uint64_t *)arg)));
}

static void tasks(rng *r) {
    enum { N = 64 };
    uint64_t items[N], results[N], nap = 1 + rng_below(r, 200);
    klaw_task *task[8];
    klaw_executor *ex;
    OK(klaw_executor_open(
        &(klaw_executor_opts){.concurrency = 1 + (int32_t)rng_below(r, 8), .name = "soak"}, &ex));
    for (size_t i = 0; i < N; i++)
        items[i] = rng_below(r, 1000);
    OK(klaw_map(ex, square, NULL, items, sizeof *items, N, results, sizeof *results, NULL, NULL));
    for (size_t i = 0; i < N; i++)
        SAME(results[i], items[i] * items[i]);
    for (size_t i = 0; i < 8; i++)
        OK(klaw_submit(ex, napper, &nap, &(klaw_task_opts){.blocking = 0}, &task[i]));
    for (size_t i = 0; i < 8; i++) {
        klaw_err e;
        if (rng_one_in(r, 3))
            klaw_task_cancel(task[i], "soak");
        OK(klaw_task_join(task[i], KLAW_FOREVER, &e, NULL));
        CHECK(e == KLAW_OK || e == KLAW_CANCELLED);
        klaw_task_unref(task[i]);
    }
    OK(klaw_executor_close(ex, KLAW_FOREVER, NULL));
    klaw_executor_unref(ex);
}

/* ---- actors, supervisors, processes ---- */

static klaw_err add(klaw_self *self, void *state, void *message, void *reply) {
    uint64_t *sum = state, n = *(uint64_t *)message;
    (void)self;
    if (n == 0)
        return KLAW_BACKEND;
    *sum += n;
    if (reply)
        *(uint64_t *)reply = *sum;
    return KLAW_OK;
}
static const klaw_behavior adder = {.name = "adder",
                                    .message = &klaw_u64,
                                    .reply = &klaw_u64,
                                    .state_size = sizeof(uint64_t),
                                    .handle = add};

/* Every ask has one answer; a failure starts the state anew and costs nobody else's message. */
static void actors(rng *r) {
    klaw_actor *a;
    uint64_t sum = 0, reply, n;
    OK(klaw_actor_spawn(&adder, NULL,
                        &(klaw_actor_opts){.max_restarts = 1000000, .no_backoff = true}, &a));
    for (int i = 0; i < 40; i++) {
        n = rng_one_in(r, 12) ? 0 : 1 + rng_below(r, 9);
        klaw_err e = klaw_actor_ask(a, &n, &reply, KLAW_FOREVER);
        sum = n ? sum + n : 0;
        GIVES(e, n ? KLAW_OK : KLAW_BACKEND);
        if (n)
            SAME(reply, sum);
    }
    klaw_actor_stop(a);
    OK(klaw_actor_join(a, KLAW_FOREVER, NULL));
    klaw_actor_unref(a);
}

static klaw_err flaky(void *arg) {
    uint64_t *left = arg;
    klaw_err e = klaw_yield();
    return e ? e : (*left)-- > 1 ? KLAW_BACKEND : KLAW_OK;
}

static void supervisors(rng *r) {
    uint64_t left[3];
    klaw_child_spec children[3];
    klaw_supervisor *s;
    klaw_err why;
    for (size_t i = 0; i < 3; i++) {
        left[i] = 1 + rng_below(r, 6);
        children[i] = (klaw_child_spec){.name = (const char *[]){"a", "b", "c"}[i],
                                        .run = flaky,
                                        .arg = &left[i],
                                        .significant = true};
    }
    klaw_supervisor_opts opts = {.policy = {.max_restarts = 1000000,
                                            .no_backoff = true,
                                            .auto_shutdown = KLAW_SHUTDOWN_ALL_SIGNIFICANT}};
    OK(klaw_supervisor_open(&opts, children, 3, &s, NULL));
    OK(klaw_supervisor_join(s, KLAW_FOREVER, &why));
    OK(why);
    SAME(left[0] + left[1] + left[2], 0);
    klaw_supervisor_unref(s);
}

static void processes(rng *r) {
    klaw_process *p;
    klaw_process_status status;
    bool killed = rng_one_in(r, 3);
    const char *argv[] = {"sleep", killed ? "60" : "0", NULL};
    OK(klaw_process_spawn(&(klaw_process_opts){.argv = argv}, &p, NULL));
    if (killed)
        OK(klaw_process_kill_group(p, SIGKILL));
    OK(klaw_process_wait(p, KLAW_FOREVER, &status));
    CHECK(killed ? status.signal == SIGKILL : status.code == 0);
    klaw_process_unref(p);
}

/* ---- store and workflows ---- */

static void checkpoints(rng *r) {
    char key[32];
    uint64_t value[16];
    klaw_blob *b;
    snprintf(key, sizeof key, "soak/%u", rng_below(r, 16));
    uint64_t stamp = rng_next(r);
    for (size_t i = 0; i < 16; i++)
        value[i] = stamp;
    OK(klaw_store_save(soak_store, key, value, sizeof value, NULL, KLAW_FOREVER, NULL));
    OK(klaw_store_load(soak_store, key, &b, NULL, KLAW_FOREVER,
                       NULL)); /* this one or a later one, whole */
    SAME(klaw_blob_size(b), sizeof value);
    memcpy(value, klaw_blob_data(b), sizeof value);
    for (size_t i = 1; i < 16; i++)
        SAME(value[i], value[0]);
    klaw_blob_unref(b);
}

static klaw_err count_run(klaw_step *step, void *arg, klaw_blob **result) {
    (void)step;
    ++*(uint64_t *)arg;
    return klaw_blob_new("x", 1, result);
}

/* A step runs once, however often its workflow is opened. */
static void workflows(rng *r) {
    char name[40];
    uint64_t runs = 0;
    snprintf(name, sizeof name, "soak-%016" PRIx64, rng_next(r));
    for (int round = 0; round < 2; round++) {
        klaw_workflow *wf;
        OK(klaw_workflow_open(soak_store, name, NULL, &wf, NULL));
        OK(klaw_workflow_step(wf, "one", count_run, &runs, NULL, NULL, NULL));
        if (round)
            OK(klaw_workflow_finish(wf, NULL, NULL));
        klaw_workflow_close(wf);
    }
    SAME(runs, 1);
    OK(klaw_workflow_delete(soak_store, name, false, NULL));
}

/* ---- the world outside ---- */

static klaw_err echo(void *arg) {
    int fd = *(int *)arg;
    char buf[64];
    size_t got;
    klaw_err e;
    while ((e = klaw_fd_read(fd, buf, sizeof buf, &got, KLAW_FOREVER, NULL)) == KLAW_OK && got)
        if ((e = klaw_fd_write(fd, buf, got, NULL, KLAW_FOREVER, NULL)))
            break;
    return e;
}

static klaw_err nothing(void *arg) {
    *(bool *)arg = true;
    return KLAW_OK;
}

static void descriptors(rng *r) {
    int fd[2];
    char out[64], in[64];
    size_t got = 0, at = 0, size = 1 + rng_below(r, 63);
    bool blocked = false;
    klaw_scope *scope;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    OK(klaw_scope_open(NULL, &scope));
    OK(klaw_go(echo, &fd[1]));
    memset(out, (int)rng_below(r, 256), sizeof out);
    OK(klaw_fd_write(fd[0], out, size, NULL, KLAW_FOREVER, NULL));
    for (; at < size; at += got)
        OK(klaw_fd_read(fd[0], in + at, sizeof in - at, &got, KLAW_FOREVER, NULL));
    CHECK(memcmp(in, out, size) == 0);
    OK(klaw_blocking(nothing, &blocked));
    CHECK(blocked);
    OK(klaw_fd_close(fd[0]));
    OK(klaw_scope_close(scope));
    OK(klaw_fd_close(fd[1]));
}

const job soak_jobs[] = {
    {"pipeline", pipeline, false},   {"cut_short", cut_short, false},
    {"broadcast", broadcast, false}, {"watch", watch, false},
    {"selects", selects, false},     {"tasks", tasks, false},
    {"actors", actors, false},       {"supervisors", supervisors, false},
    {"processes", processes, true},  {"checkpoints", checkpoints, true},
    {"workflows", workflows, true},  {"descriptors", descriptors, false},
};
const size_t soak_n_jobs = sizeof soak_jobs / sizeof *soak_jobs;
