/* SPDX-License-Identifier: Apache-2.0 */
/* chaos.c - has chunks counted on a Ray cluster whose processes are killed (--backend ray --chaos).
 *
 *               chunks                 tallies
 *   counters  =========> workers (n)  ========> collector ---> the counter that waits
 *   (here)               (processes)            (here)
 *
 * Both arrows are durable channels: what was confirmed there is on disk, and survives the actor that
 * holds it. A worker acknowledges a chunk by asking for the next one, when the tally is on disk; so one
 * that is killed leaves its chunk to another. A chunk may be counted twice, but has a number: the first
 * tally with it goes to the counter that waits for it, later ones are dropped.
 *
 * Who is killed, with SIGKILL: the first two workers with a chunk in their hands, each channel's actor
 * once, and then anybody at so many percent of the tallies. A worker's task that fails is started again. */
#include "wordcount.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <klaw/klaw.h>

#define MOST_KILLS 10
#define MOST_RESTARTS 50
#define ACTOR_KILLS 3 /* of one channel: Ray starts its actor again four times */

enum { CHUNKS, TALLIES };

/* A counter that waits for its tally. */
typedef struct waiting {
    struct waiting *next;
    uint64_t number;
    klaw_sender *answer;
} waiting;

static struct chaos {
    int percent;
    uint64_t random;
    far_names names;
    klaw_sender *tx[2]; /* ours keep the channels open while everybody else is dead */
    klaw_receiver *rx[2];
    klaw_scope *workers, *collector;
    atomic_uint_fast64_t numbers, restarts, recounted;
    atomic_uint dying; /* workers that are still to die with a chunk in their hands */
    atomic_uint died;  /* those that have */
    uint64_t tallies, killed[FAR_KINDS];
    pthread_mutex_t lock; /* guards `first`; held for a moment */
    waiting *first;
} x = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void explain(const char *what, klaw_err e, const klaw_error_info *info) {
    dprintf(STDERR_FILENO, "wordcount: %s: %s %s\n", what, klaw_err_text(e), info->message);
}

static uint64_t chance(uint64_t below) {
    uint64_t r = x.random += 0x9e3779b97f4a7c15u;
    r = (r ^ (r >> 30)) * 0xbf58476d1ce4e5b9u;
    return (r ^ (r >> 31)) % below;
}

/* ---- the workers ---- */

/* One worker, started again until its work is done. */
static klaw_err worker(void *arg) {
    char path[4096];
    klaw_error_info info;
    klaw_err e = far_library(path, sizeof path) ? KLAW_BACKEND : KLAW_SYSTEM;
    (void)arg;
    while (e == KLAW_BACKEND) {
        far_names names = x.names;
        unsigned left = atomic_load(&x.dying);
        while (left && !atomic_compare_exchange_weak(&x.dying, &left, left - 1)) {}
        names.dies = left > 0;
        klaw_blob *out = NULL;
        e = klaw_remote_task(path, "wordcount_worker", &names, sizeof names, NULL, &out,
                             KLAW_FOREVER, &info);
        klaw_blob_unref(out);
        atomic_fetch_add(&x.died, e == KLAW_BACKEND && names.dies);
        if (e == KLAW_BACKEND && atomic_fetch_add(&x.restarts, 1) >= MOST_RESTARTS)
            break;
    }
    if (e && e != KLAW_CANCELLED)
        explain("a worker failed", e, &info);
    return e;
}

/* ---- who is killed ---- */

static void kill_actor(int which) {
    klaw_remote_counts c;
    klaw_error_info info;
    /* A durable channel stays on its node, which is ours. */
    if (x.killed[FAR_CHUNKS + which] < ACTOR_KILLS &&
        klaw_remote_stats(which == CHUNKS ? x.names.chunks : x.names.tallies, NULL, &c, &info) ==
            KLAW_OK &&
        c.pid > 1 && kill((pid_t)c.pid, SIGKILL) == 0)
        x.killed[FAR_CHUNKS + which]++;
}

/* After each tally; pid: of the worker that sent it. */
static void strike(uint64_t pid) {
    uint64_t n = x.killed[FAR_WORKERS] + x.killed[FAR_CHUNKS] + x.killed[FAR_TALLIES];
    x.tallies++;
    if (x.tallies == 2 || x.tallies == 4) {
        kill_actor(x.tallies == 2 ? CHUNKS : TALLIES);
    } else if (n < MOST_KILLS && chance(100) < (uint64_t)x.percent) {
        uint64_t whom = chance(FAR_KINDS);
        if (whom != FAR_WORKERS)
            kill_actor((int)(whom - FAR_CHUNKS));
        else if (kill((pid_t)pid, SIGKILL) == 0) /* a cluster of several machines: it is not here */
            x.killed[FAR_WORKERS]++;
    }
}

/* ---- the collector ---- */

/* Whoever waits for that number does not any more; *b (NULL: nothing) is its answer, and gone then. */
static bool settle(uint64_t number, klaw_blob **b) {
    pthread_mutex_lock(&x.lock);
    waiting **at = &x.first;
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    bool found = *at != NULL;
    /* Into a oneshot: it never waits. */
    bool sent = found && b && klaw_send((*at)->answer, b, KLAW_NOWAIT) == KLAW_OK;
    if (found)
        *at = (*at)->next;
    pthread_mutex_unlock(&x.lock);
    return sent;
}

static klaw_err collector(void *arg) {
    klaw_blob *b;
    klaw_err e;
    (void)arg;
    while ((e = klaw_recv(x.rx[TALLIES], &b, KLAW_FOREVER)) == KLAW_OK) {
        far_head head;
        if (klaw_blob_size(b) < sizeof head) {
            klaw_blob_unref(b);
            return KLAW_CORRUPT;
        }
        memcpy(&head, klaw_blob_data(b), sizeof head);
        if (!settle(head.number, &b)) { /* counted before, by a worker that was killed then */
            atomic_fetch_add(&x.recounted, 1);
            klaw_blob_unref(b);
        }
        strike(head.pid);
    }
    return e == KLAW_CANCELLED ? KLAW_OK : e;
}

/* ---- what a counter calls ---- */

static klaw_err send_chunk(uint64_t number, const chunk *c) {
    far_head head = {number, 0};
    klaw_err e = KLAW_UNCERTAIN;
    while (e == KLAW_UNCERTAIN) { /* a second copy does no harm */
        klaw_blob *b;
        if (klaw_blob_new(NULL, sizeof head + c->size, &b))
            return KLAW_NOMEM;
        memcpy(klaw_blob_data(b), &head, sizeof head);
        memcpy((char *)klaw_blob_data(b) + sizeof head, c->text, c->size);
        e = klaw_send(x.tx[CHUNKS], &b, KLAW_FOREVER);
        if (e)
            klaw_blob_unref(b);
    }
    return e;
}

int chaos_count(table *t, const chunk *c) {
    waiting w = {.number = atomic_fetch_add(&x.numbers, 1) + 1};
    klaw_receiver *rx;
    klaw_blob *b = NULL;
    klaw_err e = klaw_oneshot(&klaw_bytes, &w.answer, &rx);
    if (e)
        return e;
    pthread_mutex_lock(&x.lock);
    w.next = x.first;
    x.first = &w;
    pthread_mutex_unlock(&x.lock);
    e = send_chunk(w.number, c);
    e = e ? e : klaw_recv(rx, &b, KLAW_FOREVER);
    if (e)
        (void)settle(w.number, NULL);
    klaw_sender_unref(w.answer);
    klaw_receiver_unref(rx);
    if (!e && !far_decode(t, (char *)klaw_blob_data(b) + sizeof(far_head),
                          klaw_blob_size(b) - sizeof(far_head)))
        e = KLAW_NOMEM;
    klaw_blob_unref(b);
    return e;
}

/* ---- all of it ---- */

int chaos_open(int percent, uint64_t seed, int workers) {
    klaw_error_info info = {0};
    klaw_remote_opts opts = {.capacity = 8, .durable = true};
    x.percent = percent;
    x.random = seed;
    atomic_store(&x.dying, workers < 2 ? 1 : 2);
    uint64_t id = (uint64_t)getpid() << 32 ^ (uint64_t)klaw_now();
    snprintf(x.names.chunks, sizeof x.names.chunks, "wordcount-%" PRIx64 "/chunks", id);
    snprintf(x.names.tallies, sizeof x.names.tallies, "wordcount-%" PRIx64 "/tallies", id);
    klaw_err e = klaw_remote_channel(x.names.chunks, &klaw_bytes, &opts, &x.tx[CHUNKS],
                                     &x.rx[CHUNKS], &info);
    e = e ? e
          : klaw_remote_channel(x.names.tallies, &klaw_bytes, &opts, &x.tx[TALLIES], &x.rx[TALLIES],
                                &info);
    if (e)
        explain("the channels can't be made", e, &info);
    e = e ? e : klaw_scope_open(&(klaw_scope_opts){.name = "collector"}, &x.collector);
    e = e ? e
          : klaw_spawn(x.collector, collector, NULL, &(klaw_fiber_opts){.name = "collector"}, NULL);
    e = e ? e : klaw_scope_open(&(klaw_scope_opts){.name = "far workers"}, &x.workers);
    for (int i = 0; !e && i < workers; i++)
        e = klaw_spawn(x.workers, worker, NULL, &(klaw_fiber_opts){.name = "far worker"}, NULL);
    return e;
}

int chaos_close(bool failed) {
    klaw_error_info info;
    klaw_err e = KLAW_OK;
    if (x.tx[CHUNKS])
        klaw_sender_close(x.tx[CHUNKS]); /* the workers drain the channel, then they know */
    if (x.workers && failed)
        klaw_scope_cancel(x.workers, "failed");
    if (x.workers)
        e = klaw_scope_close(x.workers);
    if (x.collector) {
        klaw_scope_cancel(x.collector, "done");
        klaw_err ended = klaw_scope_close(x.collector);
        e = e ? e : ended;
    }
    for (int i = 0; i < 2; i++) {
        if (x.tx[i] &&
            klaw_remote_delete(i == CHUNKS ? x.names.chunks : x.names.tallies, NULL, &info))
            dprintf(STDERR_FILENO, "wordcount: a channel was left behind: %s\n", info.message);
        klaw_sender_unref(x.tx[i]);
        klaw_receiver_unref(x.rx[i]);
    }
    return e == KLAW_CANCELLED ? KLAW_OK : e;
}

void chaos_look(uint64_t killed[FAR_KINDS], uint64_t *restarts, uint64_t *recounted) {
    memcpy(killed, x.killed, sizeof x.killed);
    *restarts = atomic_load(&x.restarts);
    *recounted = atomic_load(&x.recounted);
    killed[FAR_WORKERS] += atomic_load(&x.died);
}
