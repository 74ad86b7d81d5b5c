/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow_oom.c - workflows without memory: the n-th allocation fails, the library's or SQLite's, for
 * every n until a run gets through. The call answers NOMEM, nothing leaks, what was kept is kept, and the
 * same handle goes on. */
#include "support/random.h"
#include "support/sqlite_oom.h"
#include "support/workflow.h"

static folder dir;
static klaw_store *store;
static job j[3];

/* SQLite's allocations are points, too, when they count. There are hundreds: of these some are drawn. */
static klaw_err whole(void) {
    klaw_workflow *wf = NULL;
    klaw_blob *b = NULL;
    static const char *const names[] = {"a", "b", "c"};
    klaw_workflow_opts o = {.steps = names, .n_steps = 3};
    klaw_err e = klaw_workflow_open(store, "w", &o, &wf, NULL);
    for (int i = 0; !e && i < 3; i++) {
        e = klaw_workflow_step(wf, names[i], job_fn, &j[i], NULL, &b, NULL);
        if (!e)
            SAME(number_of(b), 5);
    }
    if (!e)
        e = klaw_workflow_finish(wf, NULL, NULL);
    klaw_workflow_close(wf);
    return e;
}

static klaw_err undeclared(void) {
    klaw_workflow *wf = NULL;
    char name[24];
    klaw_workflow_opts o = {.allow_changes = true};
    klaw_err e = klaw_workflow_open(store, "w", &o, &wf, NULL);
    for (int i = 0; !e && i < 20; i++) {
        snprintf(name, sizeof name, "s%d", i);
        e = klaw_workflow_step(wf, name, job_fn, &j[0], NULL, NULL, NULL);
    }
    klaw_workflow_close(wf);
    return e;
}

static klaw_err looks(void) {
    klaw_workflow_info *list = NULL;
    klaw_step_info *steps = NULL;
    size_t n;
    klaw_err e = klaw_workflow_list_all(store, NULL, &list, &n, NULL);
    if (!e) {
        SAME(n, 9);
        klaw_workflow_info_free(list);
        e = klaw_workflow_inspect(store, "w", NULL, &steps, &n, NULL);
    }
    if (!e) {
        SAME(n, 3);
        klaw_step_info_free(steps);
    }
    return e;
}

static klaw_err declared_form(void) {
    klaw_step_def steps[] = {{.name = "a", .fn = job_fn}, {.name = "b", .fn = job_fn}};
    klaw_blob *b = NULL;
    klaw_err e = klaw_workflow_run(store, "r", steps, 2, &j[0], NULL, &b, NULL);
    if (!e)
        SAME(number_of(b), 5);
    return e;
}

/* Every n, each on a store that is open; `prepare` runs with memory. */
static void each(klaw_err (*prepare)(void), klaw_err (*call)(void)) {
    int failures = 0;
    rng r = {sqlite_too ? seed_begin() : 0};
    uint32_t stride = sqlite_too && rounds(1000) <= 1000 ? 31 : 1;
    for (uint64_t n = 1;; n += 1 + rng_below(&r, stride)) {
        CHECK(n < 20000);
        dir = wf_folder();
        store = store_at(dir.file);
        for (int i = 0; i < 3; i++)
            j[i] = (job){.value = 5};
        if (prepare)
            OK(prepare());
        klaw_alloc_trim();
        uint64_t live = klaw_alloc_live();
        klaw_alloc_fail_at(n, false);
        klaw_err e = call();
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e && e != KLAW_NOMEM)
            check_failed(__FILE__, __LINE__, klaw_err_name(e), "is not NOMEM");
        failures += e != KLAW_OK;
        klaw_alloc_trim();
        UNTIL(klaw_alloc_live() <= live + 1); /* the store may have made room for statements */
        OK(call());                           /* nothing stands in the way of the next one */
        for (int i = 0; i < 3; i++)
            CHECK(j[i].runs <= (call == undeclared || call == declared_form ? 42 : 2));
        klaw_store_unref(store);
        folder_free(&dir);
        if (!met)
            break;
    }
    printf("%d failures\n", failures);
    CHECK(failures > 2);
}

static klaw_err nine(void) {
    klaw_err e = whole();
    for (int i = 0; !e && i < 8; i++) {
        char name[24];
        klaw_workflow *wf = NULL;
        snprintf(name, sizeof name, "n%d", i);
        e = klaw_workflow_open(store, name, NULL, &wf, NULL);
        klaw_workflow_close(wf);
    }
    return e;
}

PLAIN(a_whole_workflow) {
    each(NULL, whole);
}
PLAIN(a_whole_workflow_when_sqlite_has_none) {
    sqlite_too = true;
    each(NULL, whole);
    sqlite_too = false;
}
PLAIN(lists_when_sqlite_has_no_memory) {
    sqlite_too = true;
    each(nine, looks);
    sqlite_too = false;
}
PLAIN(a_workflow_that_grows) {
    each(NULL, undeclared);
}
PLAIN(the_declarative_form) {
    each(NULL, declared_form);
}
PLAIN(lists) {
    each(nine, looks);
}
RUNS(a_whole_workflow_on_a_fiber, 1) {
    each(NULL, whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_whole_workflow),
        TEST(a_whole_workflow_when_sqlite_has_none),
        TEST(a_workflow_that_grows),
        TEST(the_declarative_form),
        TEST(lists),
        TEST(lists_when_sqlite_has_no_memory),
        TEST(a_whole_workflow_on_a_fiber),
    };
    if (!sqlite_may_fail())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
