/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c - klaw/remote.h from the command line, for tests. Prints what came of it; the exit status is the
 * klaw_err's number.
 *
 *   probe list                        names, one a line
 *   probe delete NAME
 *   probe functions LIBRARY           tasks: one that answers, none, refuses, absent, no library, a worker
 *                                     that dies, one that is not waited for; 60 at once
 *   probe actors LIBRARY              one that sums and is stopped, one that is none, one whose worker dies
 *   probe produce NAME N [NS]         sends 1..N, or one every NS ns
 *   probe consume NAME [N]            receives until the end, or N; prints count and sum
 *   probe threads NAME N              8 threads and 8 fibers send N each, in turn
 *   probe reply NAME TYPE             receives one, sends it back to NAME.back
 *   probe nowait NAME                 NOWAIT sends until FULL
 *   probe cancel NAME                 a send that is cancelled
 *   probe select NAME N               receives N by select, a timer beside it */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "klaw/klaw.h"

#define LONG KLAW_WITHIN(KLAW_S(120))

static klaw_error_info info;

static int done(klaw_err e) {
    if (e)
        printf("%s: %s\n", klaw_err_name(e), info.message);
    if (e && (info.backend[0] || info.actor_name[0]))
        printf("backend=%s actor=%s namespace=%s\n", info.backend, info.actor_name,
               info.namespace_);
    fflush(stdout);
    return (int)e;
}

static bool print_name(void *user, const char *name) {
    (void)user;
    puts(name);
    return true;
}

static const char *library;
static _Atomic int right;

static klaw_err one_of_many(void *arg) {
    klaw_blob *out = NULL;
    uint64_t n = (uint64_t)(uintptr_t)arg, twice[2] = {n, n};
    klaw_err e = klaw_remote_task(library, "doubled", &n, sizeof n, NULL, &out, LONG, NULL);
    if (!e && klaw_blob_size(out) == sizeof twice &&
        memcmp(klaw_blob_data(out), twice, sizeof twice) == 0)
        right++;
    klaw_blob_unref(out);
    return e;
}

static klaw_err many(void *arg) {
    for (uintptr_t i = 0; i < *(uintptr_t *)arg; i++) {
        klaw_err e = klaw_go(one_of_many, (void *)i);
        if (e)
            return e;
    }
    return KLAW_OK;
}

static void task(const char *where, const char *symbol, const char *arg, klaw_deadline d) {
    klaw_blob *out = NULL;
    klaw_err e = klaw_remote_task(where, symbol, arg, strlen(arg), NULL, &out, d, &info);
    printf("%s: ", symbol);
    if (e)
        printf("%s %s [%s]\n", klaw_err_name(e), info.message, info.backend);
    else if (out)
        printf("%.*s\n", (int)klaw_blob_size(out), (char *)klaw_blob_data(out));
    else
        printf("none\n");
    klaw_blob_unref(out);
}

static int functions(void) {
    uintptr_t n = 60;
    task(library, "doubled", "abc", LONG);
    task(library, "nothing", "", LONG);
    task(library, "refuses", "", LONG);
    task(library, "absent", "", LONG);
    task("/nowhere/missing.so", "missing", "", LONG);
    task(library, "crashes", "", LONG);
    task(library, "waits", "\1\1\1\1\1\1", KLAW_WITHIN(KLAW_MS(300))); /* 78 hours */
    klaw_err e = klaw_run(many, &n, NULL);
    printf("many: %d\n", right);
    return done(e);
}

static klaw_err ask_sum(klaw_remote_ref *actor, uint64_t n) {
    klaw_blob *reply = NULL;
    uint64_t sum = 0;
    klaw_err e = klaw_remote_ask(actor, &n, sizeof n, &reply, LONG, &info);
    if (!e) {
        memcpy(&sum, klaw_blob_data(reply), sizeof sum);
        printf("%" PRIu64 "\n", sum);
    } else {
        printf("%s\n", klaw_err_name(e));
    }
    klaw_blob_unref(reply);
    return e;
}

static klaw_err start_sum(const char *symbol, uint64_t from, klaw_remote_ref **out) {
    klaw_err e =
        klaw_remote_actor(library, symbol, NULL, &from, sizeof from, NULL, out, LONG, &info);
    if (e)
        printf("%s: %s %s [%s]\n", symbol, klaw_err_name(e), info.message, info.backend);
    return e;
}

static int actors(void) {
    klaw_remote_ref *a;
    klaw_err e = start_sum("sum", 10, &a);
    for (uint64_t i = 1; i <= 3 && !e; i++)
        e = ask_sum(a, i);
    if (e)
        return done(e);
    e = klaw_remote_ask(a, "odd", 3, NULL, LONG, &info);
    printf("odd: %s [%s]\n", klaw_err_name(e), info.backend);
    if ((e = klaw_remote_stop(a, LONG, &info)) != KLAW_OK)
        return done(e);
    (void)!ask_sum(a, 1);
    klaw_remote_unref(a);
    (void)!start_sum("hollow", 1, &a);
    (void)!start_sum("sum", UINT64_MAX, &a);
    if ((e = start_sum("sum", 0, &a)) != KLAW_OK)
        return done(e);
    (void)!ask_sum(a, UINT64_MAX);
    printf("died: %s\n", strstr(info.message, "died") ? "died" : info.message);
    klaw_remote_unref(a);
    return 0;
}

static int produce(char **args, int n) {
    klaw_sender *tx;
    klaw_err e = klaw_remote_channel(args[0], &klaw_u64, NULL, &tx, NULL, &info);
    for (uint64_t i = 1; !e && i <= strtoull(args[1], NULL, 10); i++) {
        e = klaw_send(tx, &i, LONG);
        if (!e && n > 2)
            e = klaw_sleep(klaw_after(strtoll(args[2], NULL, 10)));
        if (e)
            (void)!klaw_remote_sender_trouble(tx, &info);
    }
    if (!e)
        puts("sent");
    return done(e);
}

static int consume(char **args, int n) {
    klaw_receiver *rx;
    uint64_t v, count = 0, sum = 0, most = n > 1 ? strtoull(args[1], NULL, 10) : UINT64_MAX;
    klaw_err e = klaw_remote_channel(args[0], &klaw_u64, NULL, NULL, &rx, &info);
    while (!e && count < most && (e = klaw_recv(rx, &v, LONG)) == KLAW_OK) {
        count++;
        sum += v;
    }
    if (e && e != KLAW_CLOSED)
        (void)!klaw_remote_receiver_trouble(rx, &info);
    printf("%" PRIu64 " %" PRIu64 "\n", count, sum);
    return done(e == KLAW_CLOSED ? KLAW_OK : e);
}

static klaw_sender *shared_tx;
static uint64_t each;

static klaw_err sends_each(void *arg) {
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= each; i++) {
        uint64_t v = (uint64_t)(uintptr_t)arg << 32 | i;
        e = klaw_send(shared_tx, &v, LONG);
    }
    return e;
}

static void *thread_main(void *arg) {
    return (void *)(uintptr_t)sends_each(arg);
}

static klaw_err fibers_main(void *arg) {
    klaw_err e = klaw_remote_channel(arg, &klaw_u64, NULL, &shared_tx, NULL, &info);
    pthread_t threads[8];
    for (uintptr_t i = 0; !e && i < 8; i++) {
        e = klaw_go(sends_each, (void *)i);
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(i + 8)))
            abort();
    }
    for (uintptr_t i = 0; !e && i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        e = (klaw_err)(uintptr_t)result;
    }
    return e;
}

static const klaw_type *type_of(const char *name) {
    return strcmp(name, "i64") == 0     ? &klaw_i64
           : strcmp(name, "f64") == 0   ? &klaw_f64
           : strcmp(name, "text") == 0  ? &klaw_text
           : strcmp(name, "bytes") == 0 ? &klaw_bytes
                                        : &klaw_u64;
}

static int reply(char **args) {
    char back[256];
    uint64_t elem[1];
    klaw_receiver *rx;
    klaw_sender *tx;
    snprintf(back, sizeof back, "%s.back", args[0]);
    const klaw_type *t = type_of(args[1]);
    klaw_err e = klaw_remote_channel(args[0], t, NULL, NULL, &rx, &info);
    if (!e)
        e = klaw_remote_channel(back, t, NULL, &tx, NULL, &info);
    while (!e && (e = klaw_recv(rx, elem, LONG)) == KLAW_OK)
        e = klaw_send(tx, elem, LONG);
    if (e == KLAW_CLOSED)
        puts("all");
    return done(e == KLAW_CLOSED ? KLAW_OK : e);
}

static int nowait(char **args) {
    klaw_sender *tx;
    uint64_t n = 0;
    klaw_err e = klaw_remote_channel(args[0], &klaw_u64, &(klaw_remote_opts){.capacity = 5}, &tx,
                                     NULL, &info);
    while (!e && (e = klaw_send(tx, &n, KLAW_NOWAIT)) == KLAW_OK)
        n++;
    printf("%" PRIu64 "\n", n);
    if (e == KLAW_FULL)
        e = klaw_send(tx, &n, KLAW_WITHIN(KLAW_MS(300)));
    return done(e);
}

static klaw_err sends_to_full(void *arg) {
    uint64_t v = 1;
    (void)arg;
    klaw_err e = KLAW_OK;
    while (!e)
        e = klaw_send(shared_tx, &v, KLAW_FOREVER);
    return e;
}

static klaw_err cancels(void *arg) {
    klaw_fiber *f;
    klaw_err e = klaw_remote_channel(arg, &klaw_u64, &(klaw_remote_opts){.capacity = 5}, &shared_tx,
                                     NULL, &info),
             result = KLAW_OK;
    if (!e)
        e = klaw_spawn(NULL, sends_to_full, NULL, NULL, &f);
    if (!e)
        e = klaw_sleep(klaw_after(KLAW_S(1)));
    if (!e) {
        klaw_fiber_cancel(f);
        e = klaw_join(f, &result, NULL, LONG);
        printf("%s\n", klaw_err_name(result));
    }
    return e;
}

static klaw_err selects(void *arg) {
    char **args = arg;
    klaw_receiver *rx;
    uint64_t v, left = strtoull(args[1], NULL, 10), sum = 0, ticks = 0;
    klaw_err e = klaw_remote_channel(args[0], &klaw_u64, NULL, NULL, &rx, &info);
    while (!e && left) {
        size_t chosen;
        klaw_case cases[] = {{.kind = KLAW_CASE_RECV, .rx = rx, .elem = &v},
                             {.kind = KLAW_CASE_TIMER, .deadline = KLAW_WITHIN(KLAW_MS(20))}};
        e = klaw_select(cases, 2, &chosen, LONG);
        if (!e && chosen == 0) {
            e = cases[0].err;
            sum += v;
            left--;
        } else {
            ticks++;
        }
    }
    printf("%" PRIu64 " %s\n", sum, ticks ? "ticks" : "");
    klaw_receiver_unref(rx);
    return e;
}

int main(int argc, char **argv) {
    char **args = argv + 2;
    const char *verb = argc > 1 ? argv[1] : "";
    library = argc > 2 ? argv[2] : "";
    if (strcmp(verb, "list") == 0)
        return done(klaw_remote_list(NULL, print_name, NULL, &info));
    if (strcmp(verb, "delete") == 0 && argc > 2)
        return done(klaw_remote_delete(args[0], NULL, &info));
    if (strcmp(verb, "functions") == 0 && argc > 2)
        return functions();
    if (strcmp(verb, "actors") == 0 && argc > 2)
        return actors();
    if (strcmp(verb, "produce") == 0 && argc > 3)
        return produce(args, argc - 2);
    if (strcmp(verb, "consume") == 0 && argc > 2)
        return consume(args, argc - 2);
    if (strcmp(verb, "threads") == 0 && argc > 3) {
        each = strtoull(args[1], NULL, 10);
        return done(klaw_run(fibers_main, args[0], NULL));
    }
    if (strcmp(verb, "reply") == 0 && argc > 3)
        return reply(args);
    if (strcmp(verb, "nowait") == 0 && argc > 2)
        return nowait(args);
    if (strcmp(verb, "cancel") == 0 && argc > 2) {
        (void)!klaw_run(cancels, args[0], NULL); /* the cancelled fiber's error */
        return 0;
    }
    if (strcmp(verb, "select") == 0 && argc > 3)
        return done(klaw_run(selects, args, NULL));
    fprintf(stderr, "usage: see probe.c\n");
    return 99;
}
