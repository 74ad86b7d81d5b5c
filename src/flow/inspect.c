/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - executors and their tasks as snapshots show them: each executor with its tasks under
 * its own lock. */
#include "base/inspect.h"

#include "flow/executor.h"

struct fill {
    void *out;
    size_t max, n;
    uint64_t executor_id;
};

static void executor(klaw_executor *ex, void *user) {
    struct fill *f = user;
    if (f->n++ < f->max)
        klawi_executor_stats(ex, (klaw_executor_stats *)f->out + f->n - 1);
}

static void task(const klaw_task *t, void *user) {
    struct fill *f = user;
    if (f->n++ >= f->max)
        return;
    klaw_task_info *o = (klaw_task_info *)f->out + f->n - 1;
    o->id = t->id;
    o->executor_id = f->executor_id;
    o->running = t->runner != NULL;
    o->fiber_id = t->runner ? t->runner->fiber->id : 0;
    strncpy(o->name, klawi_task_name(t), sizeof o->name - 1);
}

static void tasks(klaw_executor *ex, void *user) {
    ((struct fill *)user)->executor_id = ex->id;
    klawi_tasks_each(ex, task, user);
}

static size_t executors_fill(void *out, size_t max) {
    struct fill f = {out, max, 0, 0};
    klawi_executors_each(executor, &f);
    return f.n;
}
static size_t executors_count(void) {
    return executors_fill(NULL, 0);
}

size_t (*_Atomic klawi_more_tasks)(void *out, size_t max, size_t n);

static size_t tasks_fill(void *out, size_t max) {
    struct fill f = {out, max, 0, 0};
    size_t (*more)(void *, size_t, size_t) =
        atomic_load_explicit(&klawi_more_tasks, memory_order_relaxed);
    klawi_executors_each(tasks, &f);
    return more ? more(out, max, f.n) : f.n;
}
static size_t tasks_count(void) {
    return tasks_fill(NULL, 0);
}

static void executor_json(struct klawi_text *t, const void *item) {
    const klaw_executor_stats *e = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", e->id);
    KLAWI_OBJECT_STRING(&o, e, name);
    klawi_object_u64(&o, "scope_id", e->scope_id);
    klawi_object_optional(&o, "concurrency", e->concurrency != KLAW_NONE, e->concurrency);
    klawi_object_u64(&o, "queued", e->queued);
    klawi_object_u64(&o, "running", e->running);
    klawi_object_u64(&o, "submitted", e->submitted);
    klawi_object_u64(&o, "succeeded", e->succeeded);
    klawi_object_u64(&o, "failed", e->failed);
    klawi_object_u64(&o, "cancelled", e->cancelled);
    klawi_object_u64(&o, "timed_out", e->timed_out);
    klawi_object_boolean(&o, "closed", e->closed);
    klawi_text_str(t, "}");
}

static void task_json(struct klawi_text *t, const void *item) {
    const klaw_task_info *k = item;
    struct klawi_object o = {t, true};
    klawi_text_str(t, "{");
    klawi_object_u64(&o, "id", k->id);
    KLAWI_OBJECT_STRING(&o, k, name);
    klawi_object_u64(&o, "executor_id", k->executor_id);
    klawi_object_u64(&o, "fiber_id", k->fiber_id);
    klawi_object_boolean(&o, "running", k->running);
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider executor_provider = {
    "executor", executors_count, executors_fill, sizeof(klaw_executor_stats), executor_json};
static const struct klawi_inspect_provider task_provider = {"task", tasks_count, tasks_fill,
                                                            sizeof(klaw_task_info), task_json};

void klawi_inspect_flow(void) {
    klawi_inspect_provide(&executor_provider);
    klawi_inspect_provide(&task_provider);
}
