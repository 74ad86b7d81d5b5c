/* SPDX-License-Identifier: Apache-2.0 */
/* test_inspect.c - executors, tasks and actors in snapshots, as structs and as JSON. Tried with
 * this bug: queued tasks are left out. */
#include "support/actors.h"

#include "klaw/inspect.h"

static klaw_snapshot *take(void) {
    klaw_snapshot *s = NULL;
    OK(klaw_snapshot_take(&s));
    CHECK(!klaw_snapshot_truncated(s));
    return s;
}
static char *json_of(const klaw_snapshot *s) {
    char *text = NULL;
    size_t size = 0;
    OK(klaw_snapshot_json(s, &text, &size));
    SAME(strlen(text), size);
    return text;
}

RUNS(without_any_the_arrays_are_empty, 1) {
    klaw_snapshot *s = take();
    size_t n = 9;
    CHECK(!klaw_snapshot_executors(s, &n) && n == 0);
    CHECK(!klaw_snapshot_tasks(s, &n) && n == 0);
    CHECK(!klaw_snapshot_actors(s, &n) && n == 0);
    char *text = json_of(s);
    CHECK(!klaw_snapshot_supervisors(s, &n) && n == 0);
    CHECK(!klaw_snapshot_supervised(s, &n) && n == 0);
    CHECK(strstr(text, "\"executors\":[],\"tasks\":[],\"actors\":[],\"supervisors\":[],"
                       "\"supervisions\":[]"));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
}

static klaw_err stays(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}

RUNS(tasks_show_who_runs_and_who_waits, 1) {
    klaw_executor *ex = NULL;
    klaw_task *t[3];
    klaw_executor_opts o = {.concurrency = 2, .name = "the \"pool\""};
    OK(klaw_executor_open(&o, &ex));
    for (int i = 0; i < 3; i++) {
        klaw_task_opts to = {.name = i < 2 ? "first" : "last"};
        OK(klaw_submit(ex, stays, NULL, &to, &t[i]));
    }
    UNTIL(klaw_task_is_running(t[0]) && klaw_task_is_running(t[1]));
    klaw_snapshot *s = take();
    size_t n = 0, running = 0;
    const klaw_executor_stats *e = klaw_snapshot_executors(s, &n);
    SAME(n, 1);
    CHECK(strcmp(e->name, "the \"pool\"") == 0);
    SAME(e->queued, 1);
    SAME(e->running, 2);
    SAME(e->submitted, 3);
    const klaw_task_info *k = klaw_snapshot_tasks(s, &n);
    SAME(n, 3);
    for (size_t i = 0; i < n; i++) {
        SAME(k[i].executor_id, e->id);
        SAME(k[i].running, k[i].fiber_id != 0);
        SAME(k[i].running, strcmp(k[i].name, "first") == 0);
        running += k[i].running;
        CHECK(k[i].running || strcmp(k[i].name, "last") == 0);
    }
    SAME(running, 2);
    char *text = json_of(s);
    CHECK(strstr(text, "\"executors\":[{\"id\":"));
    CHECK(strstr(text, "\"name\":\"the \\\"pool\\\"\""));
    CHECK(strstr(text, "\"name\":\"last\",\"executor_id\":"));
    CHECK(strstr(text, "\"fiber_id\":0,\"running\":false}"));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
    GIVES(klaw_executor_close(ex, KLAW_NOWAIT, NULL), KLAW_TIMEOUT);
    for (int i = 0; i < 3; i++)
        klaw_task_unref(t[i]);
    klaw_executor_unref(ex);
    s = take();
    CHECK(!klaw_snapshot_executors(s, &n) && !klaw_snapshot_tasks(s, &n));
    klaw_snapshot_free(s);
}

RUNS(actors_show_their_counters_until_they_end, 1) {
    diary d = {0};
    klaw_actor *a = DOER(&d, .name = "alice", .capacity = 5), *b = DOER(&d, .name = "bob");
    SAME(asks(a, ADD, 3, NULL), 3);
    klaw_snapshot *s = take();
    size_t n = 0;
    const klaw_actor_stats *i = klaw_snapshot_actors(s, &n);
    SAME(n, 2);
    const klaw_actor_stats *ia = strcmp(i->name, "alice") == 0 ? i : i + 1;
    SAME(ia->id, klaw_actor_id(a));
    SAME(ia->handled, 1);
    SAME(ia->capacity, 5);
    char *text = json_of(s);
    CHECK(strstr(text, "\"name\":\"alice\",\"behavior\":\"doer\",\"state\":\"idle\""));
    CHECK(strstr(text, "\"name\":\"bob\""));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
    ends(b, KLAW_OK);
    klaw_actor_stop(a);
    OK(why_of(a));
    s = take();
    CHECK(!klaw_snapshot_actors(s, &n) && n == 0); /* although there is a reference */
    klaw_snapshot_free(s);
    klaw_actor_unref(a);
    nothing_lost();
}

static klaw_err stays_on(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_FOREVER);
}

RUNS(supervision_trees_show_parents_and_children, 1) {
    const klaw_child_spec leaves[] = {{.name = "left", .run = stays_on},
                                      {.name = "right", .run = stays_on}};
    klaw_supervisor_opts inner = {.policy = {.strategy = KLAW_ONE_FOR_ALL}};
    const klaw_child_spec top[] = {{.name = "one", .run = stays_on},
                                   {.name = "tree",
                                    .kind = KLAW_CHILD_SUPERVISOR,
                                    .supervisor = &inner,
                                    .children = leaves,
                                    .n_children = 2}};
    klaw_supervisor_opts o = {.name = "top"};
    klaw_supervisor *sup = NULL;
    size_t n = 0;
    OK(klaw_supervisor_open(&o, top, 2, &sup, NULL));
    klaw_snapshot *s = take();
    const klaw_supervisor_info *i = klaw_snapshot_supervisors(s, &n);
    SAME(n, 2);
    const klaw_supervisor_info *t = i->parent_id == 0 ? i : i + 1, *u = t == i ? i + 1 : i;
    SAME(t->id, klaw_supervisor_id(sup));
    SAME(u->parent_id, t->id);
    CHECK(strcmp(t->name, "top") == 0 && strcmp(u->name, "tree") == 0);
    SAME(u->strategy, KLAW_ONE_FOR_ALL);
    SAME(u->specs, 2);
    SAME(u->active, 2);
    CHECK(!u->stopping && u->fiber_id && u->fiber_id != t->fiber_id);
    const klaw_supervised_info *c = klaw_snapshot_supervised(s, &n);
    SAME(n, 4);
    for (size_t k = 0; k < n; k++) {
        const char *name = c[k].child.name;
        bool leaf = strcmp(name, "left") == 0 || strcmp(name, "right") == 0;
        SAME(c[k].supervisor_id, leaf ? u->id : t->id);
        SAME(c[k].child.state, KLAW_CHILD_RUNNING);
        if (strcmp(name, "tree") == 0)
            SAME(c[k].child.id, u->id);
    }
    char *text = json_of(s);
    CHECK(strstr(text, "\"strategy\":\"one_for_all\",\"specs\":2"));
    CHECK(strstr(text, "\"name\":\"left\",\"kind\":\"fiber\""));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
    OK(klaw_supervisor_stop(sup, KLAW_WITHIN(CHECK_PATIENCE)));
    s = take();
    CHECK(!klaw_snapshot_supervisors(s, &n) && !klaw_snapshot_supervised(s, &n));
    klaw_snapshot_free(s);
    klaw_supervisor_unref(sup);
}

RUNS(snapshots_have_room_for_many, 2) {
    enum { N = 500 };
    static klaw_actor *a[N];
    diary d = {0};
    size_t n = 0;
    for (int i = 0; i < N; i++)
        a[i] = DOER(&d, 0);
    klaw_snapshot *s = take();
    (void)klaw_snapshot_actors(s, &n);
    SAME(n, N);
    klaw_snapshot_free(s);
    for (int i = 0; i < N; i++)
        ends(a[i], KLAW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(without_any_the_arrays_are_empty),
        TEST(tasks_show_who_runs_and_who_waits),
        TEST(actors_show_their_counters_until_they_end),
        TEST(supervision_trees_show_parents_and_children),
        TEST(snapshots_have_room_for_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
