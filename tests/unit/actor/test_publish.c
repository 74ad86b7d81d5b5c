/* SPDX-License-Identifier: Apache-2.0 */
/* test_publish.c - objects of another language's layer in snapshots. Tried with these bugs: a second fill
 * counts them twice; the old children leak; a mailbox that was exchanged is read. */
#include "klaw/publish.h"
#include "base/inspect.h"
#include "support/runs.h"

static klaw_snapshot *take(void) {
    klaw_snapshot *s = NULL;
    OK(klaw_snapshot_take(&s));
    return s;
}

PLAIN(they_stand_beside_klaws_own_until_they_are_given_up) {
    klaw_published *task, *actor, *sup;
    klaw_snapshot *s;
    size_t n;
    OK(klaw_publish_task(&(klaw_task_info){.id = 7, .name = "main", .running = true}, &task));
    OK(klaw_publish_actor(&(klaw_actor_stats){.name = "shop", .handled = 3}, NULL, &actor));
    OK(klaw_publish_supervisor(&(klaw_supervisor_info){.name = "root"}, &sup));
    s = take();
    const klaw_task_info *t = klaw_snapshot_tasks(s, &n);
    SAME(n, 1);
    SAME(t->id, klaw_published_id(task));
    CHECK(t->id > 0 && t->running && strcmp(t->name, "main") == 0);
    const klaw_actor_stats *a = klaw_snapshot_actors(s, &n);
    SAME(n, 1);
    SAME(a->id, klaw_published_id(actor));
    SAME(a->handled, 3);
    (void)klaw_snapshot_supervised(s, &n);
    SAME(n, 0);
    klaw_snapshot_free(s);
    klaw_unpublish(task);
    klaw_unpublish(actor);
    klaw_unpublish(sup);
    s = take();
    (void)klaw_snapshot_tasks(s, &n);
    SAME(n, 0);
    (void)klaw_snapshot_actors(s, &n);
    SAME(n, 0);
    (void)klaw_snapshot_supervisors(s, &n);
    SAME(n, 0);
    klaw_snapshot_free(s);
    klaw_unpublish(NULL);
}

PLAIN(a_mailbox_is_asked_at_each_look) {
    klaw_sender *tx[2];
    klaw_receiver *rx[2];
    klaw_published *p;
    klaw_actor_stats now = {.name = "shop", .state = KLAW_ACTOR_RUNNING};
    uint64_t v = 1;
    size_t n;
    for (int i = 0; i < 2; i++)
        OK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 5}, &tx[i], &rx[i]));
    OK(klaw_publish_actor(&now, rx[0], &p));
    OK(klaw_send(tx[0], &v, KLAW_NOWAIT));
    klaw_snapshot *s = take();
    const klaw_actor_stats *a = klaw_snapshot_actors(s, &n);
    SAME(a->mailbox_size, 1);
    SAME(a->capacity, 5);
    klaw_snapshot_free(s);
    now.restarts = 2;
    klaw_published_actor(p, &now, rx[1]);
    klaw_receiver_unref(rx[0]); /* it is not looked at any more */
    s = take();
    a = klaw_snapshot_actors(s, &n);
    SAME(a->mailbox_size, 0);
    SAME(a->restarts, 2);
    klaw_snapshot_free(s);
    klaw_published_actor(p, &now, NULL);
    klaw_unpublish(p);
    klaw_receiver_unref(rx[1]);
    klaw_sender_unref(tx[0]);
    klaw_sender_unref(tx[1]);
}

PLAIN(children_are_exchanged_as_a_whole) {
    klaw_child_info kids[3] = {{.name = "a"}, {.name = "b", .restarts = 4}, {.name = "c"}};
    klaw_supervisor_info now = {.name = "root", .specs = 3};
    klaw_published *p;
    size_t n;
    OK(klaw_publish_supervisor(&now, &p));
    OK(klaw_published_supervisor(p, &now, kids, 3));
    klaw_snapshot *s = take();
    const klaw_supervised_info *c = klaw_snapshot_supervised(s, &n);
    SAME(n, 3);
    SAME(c[1].supervisor_id, klaw_published_id(p));
    SAME(c[1].child.restarts, 4);
    klaw_snapshot_free(s);
    OK(klaw_published_supervisor(p, &now, kids, 1));
    s = take();
    c = klaw_snapshot_supervised(s, &n);
    SAME(n, 1);
    CHECK(strcmp(c->child.name, "a") == 0);
    klaw_snapshot_free(s);
    GIVES(klaw_published_supervisor(p, NULL, NULL, 0), KLAW_INVALID);
    GIVES(klaw_published_supervisor(p, &now, NULL, 1), KLAW_INVALID);
    klaw_alloc_fail_at(1, false);
    GIVES(klaw_published_supervisor(p, &now, kids, 3), KLAW_NOMEM);
    klaw_alloc_fail_at(1, false);
    klaw_published *none;
    GIVES(klaw_publish_supervisor(&now, &none), KLAW_NOMEM);
    klaw_alloc_fail_at(0, false);
    klaw_published_actor(p, &(klaw_actor_stats){0}, NULL); /* not its kind */
    klaw_unpublish(p);
}

static klaw_err publishes(void *arg) {
    for (int i = 0; i < 300; i++) {
        klaw_published *p;
        OK(klaw_publish_actor(&(klaw_actor_stats){.name = "x"}, arg, &p));
        klaw_published_actor(p, &(klaw_actor_stats){.name = "y"}, NULL);
        klaw_unpublish(p);
    }
    return KLAW_OK;
}

PLAIN(threads_publish_while_others_look) {
    klaw_sender *tx;
    klaw_receiver *rx;
    thread_job jobs[2];
    OK(klaw_channel(&klaw_u64, NULL, &tx, &rx));
    for (int i = 0; i < 2; i++)
        thread_start(&jobs[i], publishes, rx);
    for (int i = 0; i < 50; i++) {
        size_t n;
        klaw_snapshot *s = take();
        const klaw_actor_stats *a = klaw_snapshot_actors(s, &n);
        for (size_t k = 0; k < n; k++)
            CHECK(a[k].name[0] == 'x' || a[k].name[0] == 'y');
        klaw_snapshot_free(s);
    }
    for (int i = 0; i < 2; i++)
        OK(thread_end(&jobs[i]));
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
}

PLAIN(an_operation_with_a_label_waits_under_its_number) {
    klaw_inbox *in;
    klaw_op op;
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_published *p;
    bool waiting;
    size_t n;
    OK(klaw_inbox_open(&in));
    OK(klaw_channel(&klaw_u64, NULL, &tx, &rx));
    OK(klaw_publish_task(&(klaw_task_info){.name = "Task-1"}, &p));
    klaw_op_init(&op, in, NULL, NULL);
    klaw_op_label(&op, (uint32_t)klaw_published_id(p));
    OK(klaw_op_recv(&op, rx, &waiting));
    CHECK(waiting);
    klaw_snapshot *s = take();
    const klaw_wait_info *w = klaw_snapshot_waits(s, &n);
    SAME(n, 1);
    CHECK(w->host == KLAW_HOST_FOREIGN && !w->sends);
    SAME(w->host_id, klaw_published_id(p));
    klaw_snapshot_free(s);
    klaw_op_cancel(&op);
    klaw_inbox_unref(in);
    klaw_unpublish(p);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
}

static void note_look(void *user) {
    ++*(int *)user;
}

PLAIN(who_holds_is_told_as_a_whole_and_only_when_somebody_asks) {
    const klaw_hold_info rows[] = {{1, 2, ""}, {2, 0, "a \"lock\""}};
    int looks = 0;
    char *text;
    SAME(klaw_publish_holds(NULL, 1), KLAW_INVALID);
    OK(klaw_publish_holds(rows, 2));
    klaw_snapshot *s = take();
    OK(klaw_snapshot_json(s, &text, NULL));
    CHECK(strstr(text, "\"holds\":[{\"waiter_id\":1,\"holder_id\":2,\"what\":\"\"},"
                       "{\"waiter_id\":2,\"holder_id\":0,\"what\":\"a \\\"lock\\\"\"}]"));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
    klaw_alloc_fail_at(1, false);
    SAME(klaw_publish_holds(rows, 1), KLAW_NOMEM);
    klaw_alloc_fail_at(0, false);
    OK(klaw_publish_holds(NULL, 0));
    s = take();
    OK(klaw_snapshot_json(s, &text, NULL));
    CHECK(strstr(text, "\"holds\":[]"));
    klaw_snapshot_text_free(text);
    klaw_snapshot_free(s);
    klaw_publish_looker(note_look, &looks);
    SAME(looks, 0);
    klawi_inspect_look();
    SAME(looks, 1);
    klaw_publish_looker(NULL, NULL);
    klawi_inspect_look();
    SAME(looks, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(they_stand_beside_klaws_own_until_they_are_given_up),
        TEST(a_mailbox_is_asked_at_each_look),
        TEST(children_are_exchanged_as_a_whole),
        TEST(threads_publish_while_others_look),
        TEST(an_operation_with_a_label_waits_under_its_number),
        TEST(who_holds_is_told_as_a_whole_and_only_when_somebody_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
