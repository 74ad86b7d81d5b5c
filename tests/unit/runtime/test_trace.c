/* SPDX-License-Identifier: Apache-2.0 */
/* Spans of asks, messages, tasks and steps. Tried with a span that does not become current, and with one that is told twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "support/check.h"

#define MAX 64

typedef struct seen {
    pthread_mutex_t lock;
    size_t n;
    struct {
        klaw_span span;
        char name[32];
    } at[MAX];
} seen;

static void collect(const klaw_span *s, void *user) {
    seen *c = user;
    pthread_mutex_lock(&c->lock);
    CHECK(c->n < MAX);
    c->at[c->n].span = *s;
    snprintf(c->at[c->n].name, sizeof c->at[c->n].name, "%s", s->name);
    c->n++;
    pthread_mutex_unlock(&c->lock);
}

static const klaw_span *of(seen *c, klaw_span_kind kind, const char *name) {
    const klaw_span *found = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n; i++)
        if (c->at[i].span.kind == kind && strcmp(c->at[i].name, name) == 0) {
            CHECK(!found); /* told once */
            found = &c->at[i].span;
        }
    pthread_mutex_unlock(&c->lock);
    return found;
}

static bool child(const klaw_span *s, const uint8_t parent[8], const uint8_t trace[16]) {
    return memcmp(s->parent, parent, 8) == 0 && memcmp(s->trace.trace_id, trace, 16) == 0 &&
           memcmp(s->trace.span_id, parent, 8) != 0 && s->ended >= s->began && s->began > 0;
}

static klaw_err handle(klaw_self *self, void *state, void *message, void *reply) {
    (void)self;
    (void)state;
    if (reply)
        *(uint64_t *)reply = *(uint64_t *)message;
    return *(uint64_t *)message ? KLAW_OK : KLAW_BACKEND;
}
static const klaw_behavior echo = {
    .name = "echo", .message = &klaw_u64, .reply = &klaw_u64, .handle = handle};

static klaw_err ask_inside(void *arg) {
    uint64_t one = 1, reply;
    return klaw_actor_ask(arg, &one, &reply, KLAW_FOREVER);
}

static klaw_err step_ok(klaw_step *step, void *arg, klaw_blob **result) {
    (void)step;
    (void)arg;
    return klaw_blob_new("x", 1, result);
}

typedef struct world {
    seen seen;
    klaw_trace trace;
    bool traced;
} world;

/* A task that asks an actor, an ask that fails, a step; under a context of a trace, or not. */
static klaw_err work(void *arg) {
    world *w = arg;
    klaw_context *c = NULL;
    klaw_context_token token = {0};
    klaw_actor *a;
    klaw_executor *ex;
    klaw_task *t;
    klaw_store *store;
    klaw_workflow *wf;
    uint64_t zero = 0, reply;
    klaw_err e;
    char folder[] = "/tmp/klaw-trace-XXXXXX", path[64];
    if (w->traced) {
        OK(klaw_context_new_trace(NULL, &c));
        OK(klaw_context_enter(c, &token));
        CHECK(klaw_context_trace(c, &w->trace));
    }
    OK(klaw_actor_spawn(&echo, NULL, &(klaw_actor_opts){.name = "echo", .no_backoff = true}, &a));
    OK(klaw_executor_open(NULL, &ex));
    OK(klaw_submit(ex, ask_inside, a, &(klaw_task_opts){.name = "asker"}, &t));
    OK(klaw_task_join(t, KLAW_FOREVER, &e, NULL));
    OK(e);
    klaw_task_unref(t);
    OK(klaw_executor_close(ex, KLAW_FOREVER, NULL));
    klaw_executor_unref(ex);
    klaw_actor_stop(a);
    OK(klaw_actor_join(a, KLAW_FOREVER, NULL));
    klaw_actor_unref(a);

    OK(klaw_actor_spawn(&echo, NULL,
                        &(klaw_actor_opts){.name = "fails", .restart = KLAW_RESTART_NEVER}, &a));
    GIVES(klaw_actor_ask(a, &zero, &reply, KLAW_FOREVER), KLAW_BACKEND);
    OK(klaw_actor_join(a, KLAW_FOREVER, NULL));
    klaw_actor_unref(a);

    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/store", folder);
    OK(klaw_store_open(path, NULL, &store, NULL));
    OK(klaw_workflow_open(store, "report", NULL, &wf, NULL));
    OK(klaw_workflow_step(wf, "fetch", step_ok, NULL, NULL, NULL, NULL));
    klaw_workflow_close(wf);
    klaw_store_unref(store);
    unlink(path);
    rmdir(folder);
    if (w->traced) {
        klaw_context *now = klaw_context_current();
        CHECK(now == c); /* every span has left */
        klaw_context_leave(&token);
        klaw_context_unref(c);
    }
    return KLAW_OK;
}

static void spans_nest_as_the_work_does_and_are_told_once(void **state) {
    static world w = {.seen = {.lock = PTHREAD_MUTEX_INITIALIZER}, .traced = true};
    (void)state;
    OK(klaw_trace_collect(collect, &w.seen));
    OK(klaw_run(work, &w, NULL));
    OK(klaw_trace_collect(NULL, NULL));
    const uint8_t *root = w.trace.span_id, *trace = w.trace.trace_id;
    const klaw_span *task = of(&w.seen, KLAW_SPAN_TASK, "asker"),
                    *ask = of(&w.seen, KLAW_SPAN_ASK, "echo"),
                    *handled = of(&w.seen, KLAW_SPAN_HANDLE, "echo"),
                    *step = of(&w.seen, KLAW_SPAN_STEP, "fetch"),
                    *failed = of(&w.seen, KLAW_SPAN_ASK, "fails"),
                    *failing = of(&w.seen, KLAW_SPAN_HANDLE, "fails");
    CHECK(task && ask && handled && step && failed && failing);
    SAME(w.seen.n, 6);
    CHECK(child(task, root, trace) && task->error == KLAW_OK);
    CHECK(child(ask, task->trace.span_id, trace) && ask->error == KLAW_OK);
    CHECK(child(handled, ask->trace.span_id, trace));
    CHECK(child(step, root, trace));
    CHECK(child(failed, root, trace) && failed->error == KLAW_BACKEND);
    CHECK(child(failing, failed->trace.span_id, trace) && failing->error == KLAW_BACKEND);
}

static void without_a_trace_nothing_is_told(void **state) {
    static world w = {.seen = {.lock = PTHREAD_MUTEX_INITIALIZER}};
    (void)state;
    OK(klaw_trace_collect(collect, &w.seen));
    OK(klaw_run(work, &w, NULL));
    OK(klaw_trace_collect(NULL, NULL));
    SAME(w.seen.n, 0);
}

static void without_a_collector_nothing_is_told(void **state) {
    static world w = {.seen = {.lock = PTHREAD_MUTEX_INITIALIZER}, .traced = true};
    (void)state;
    OK(klaw_run(work, &w, NULL));
    SAME(w.seen.n, 0);
}

static void a_trace_that_is_not_sampled_is_left_alone(void **state) {
    static world w = {.seen = {.lock = PTHREAD_MUTEX_INITIALIZER}};
    klaw_context *c;
    klaw_context_token token;
    klaw_trace t = {.trace_id = {1}, .span_id = {2}};
    (void)state;
    OK(klaw_context_with_trace(NULL, &t, &c));
    OK(klaw_context_enter(c, &token));
    OK(klaw_trace_collect(collect, &w.seen));
    OK(klaw_run(work, &w, NULL));
    OK(klaw_trace_collect(NULL, NULL));
    klaw_context_leave(&token);
    klaw_context_unref(c);
    SAME(w.seen.n, 0);
}

static void a_collector_needs_memory_and_kinds_have_names(void **state) {
    static world w = {.seen = {.lock = PTHREAD_MUTEX_INITIALIZER}};
    (void)state;
    klaw_alloc_fail_at(1, true);
    GIVES(klaw_trace_collect(collect, &w.seen), KLAW_NOMEM);
    klaw_alloc_fail_at(0, false);
    assert_string_equal(klaw_span_kind_name(KLAW_SPAN_STEP), "step");
    assert_string_equal(klaw_span_kind_name((klaw_span_kind)9), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_nest_as_the_work_does_and_are_told_once),
        cmocka_unit_test(without_a_trace_nothing_is_told),
        cmocka_unit_test(without_a_collector_nothing_is_told),
        cmocka_unit_test(a_trace_that_is_not_sampled_is_left_alone),
        cmocka_unit_test(a_collector_needs_memory_and_kinds_have_names),
    };
    check_test = "trace";
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
