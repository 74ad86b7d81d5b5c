/* SPDX-License-Identifier: Apache-2.0 */
/* workflow_lease.c - leases: the clocks, this process, whether another one lives, and the keepers, who
 * renew.
 *
 * One keeper, a thread, for each store with workflows that run: a store that waits for its disk does not
 * hold up the leases of others, and no worker has to be free for a lease to live.
 *
 * Invariants under keepers.lock:
 *   K1  a keeper in the list has users and its thread runs.
 *   K2  a handle is in a keeper's list from before it asks for a lease until after it has given it back:
 *       a lease of this process whose owner is in no list is nobody's.
 *   K3  the keeper has a reference on each handle it renews: a close meanwhile frees nothing.
 * A renewal renews only what is held (token and a duration): one that comes after the lease was given
 * back changes nothing. A runner that could not renew until its lease was over counts as lost, even
 * if nobody has taken over: it can't know. keepers.lock guards it all. Wake-up: ticket++ under the lock, then
 * a futex wake.
 *
 * A process is looked for by kill(pid, 0) and its start time, if lease and reader have the boot and the
 * pid namespace in common. Rejected: a lock of the file held while it runs; SQLite's connections in one process
 * would share and lose it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "sched/sched.h"
#include "store/workflow.h"

/* --- clocks and processes --- */

/* A small file as text, cut to fit; "" when it can't be read. */
static size_t read_text(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void real_clock(klaw_lease_clock *out) {
    struct timespec ts;
    char boot[64];
    read_text("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    boot[strcspn(boot, "\n")] = 0;
    memset(out, 0, sizeof *out);
    snprintf(out->boot, sizeof out->boot, "%.39s", boot);
    clock_gettime(CLOCK_BOOTTIME, &ts);
    out->since_boot = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    out->wall = klawi_wall_clock();
}

void (*klawi_wf_clock)(klaw_lease_clock *out) = real_clock;

/* Fields 3, 20 and 22 of /proc/<pid>/stat: state, threads, start. False when they can't be read. */
static bool process_stat(int64_t pid, char *state, int64_t *threads, int64_t *start) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    read_text(path, text, sizeof text);
    char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (!at || at[1] != ' ' || !at[2])
        return false;
    *state = at[2];
    *threads = *start = 0;
    at += 3;
    for (int field = 4; field <= 22; field++) {
        char *end;
        int64_t v = strtoll(at, &end, 10);
        if (end == at)
            return false;
        at = end;
        if (field == 20)
            *threads = v;
        else if (field == 22)
            *start = v;
    }
    return true;
}

static int64_t pid_space(void) {
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (int64_t)st.st_ino : 0;
}

void klawi_wf_self(struct klawi_wf_owner *out) {
    char state;
    int64_t threads;
    memset(out, 0, sizeof *out);
    if (gethostname(out->host, sizeof out->host - 1) != 0)
        out->host[0] = 0;
    out->pid = getpid();
    if (!process_stat(out->pid, &state, &threads, &out->start))
        out->start = 0;
    out->space = pid_space();
}

klaw_err klawi_wf_random(char out[33]) {
    unsigned char bytes[16];
    for (size_t n = 0; n < sizeof bytes;) {
        ssize_t got = getrandom(bytes + n, sizeof bytes - n, 0);
        if (got < 0 && errno != EINTR)
            return KLAW_SYSTEM;
        n += got > 0 ? (size_t)got : 0;
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return KLAW_OK;
}

uint64_t klawi_wf_chance(void) {
    uint64_t bits = 0;
    /* Without random numbers delays are whole: nothing depends on it. */
    return getrandom(&bits, sizeof bits, GRND_NONBLOCK) == (ssize_t)sizeof bits ? bits : UINT64_MAX;
}

static bool held_here(const char *owner);

klaw_lease_owner klawi_wf_owner_alive(const struct klawi_wf_head *h, const klaw_lease_clock *now) {
    const struct klawi_wf_owner *o = &h->owner;
    char state;
    int64_t threads, start;
    if (h->lease.duration == 0 || !h->lease.boot[0] || strcmp(h->lease.boot, now->boot) != 0 ||
        o->space == 0 || o->space != pid_space() || o->pid <= 0 || o->pid > INT32_MAX)
        return KLAW_OWNER_UNKNOWN;
    if (kill((pid_t)o->pid, 0) != 0 && errno == ESRCH)
        return KLAW_OWNER_DEAD;
    if (!o->start || !process_stat(o->pid, &state, &threads, &start))
        return KLAW_OWNER_UNKNOWN;
    if (start != o->start)
        return KLAW_OWNER_DEAD; /* the number was given out again */
    if (o->pid == getpid())     /* a handle whose close could not write is gone all the same */
        return held_here(o->id) ? KLAW_OWNER_ALIVE : KLAW_OWNER_DEAD;
    /* Dead and not waited for; with threads left it only seems so. */
    return state == 'Z' && threads <= 1 ? KLAW_OWNER_DEAD : KLAW_OWNER_ALIVE;
}

/* --- keepers --- */

struct klawi_wf_keeper {
    struct klawi_wf_keeper *next; /* (L) */
    klaw_store *store;            /* (c) its users hold it */
    klaw_workflow *first;         /* (L) */
    uint32_t users;               /* (L) */
    bool stop;                    /* (L) */
    _Atomic uint32_t ticket;      /* (L) written; futex */
    klawi_thread_id thread;       /* (c) */
};

static struct {
    klawi_lock lock;
    struct klawi_wf_keeper *first; /* (L) */
} keepers = {.lock = KLAWI_LOCK_INIT(KLAWI_RANK_LEAF)};

#define BATCH 16

/* One renewal of a batch; all in one transaction. */
struct renewal {
    size_t n;
    struct renewed {
        klaw_workflow *wf;
        klaw_lease lease;
        bool lost, cancelled, given_back, damaged;
    } items[BATCH];
};

static klaw_err renew(klawi_store_tx *tx, void *arg) {
    struct renewal *r = arg;
    klaw_lease_clock now;
    klawi_wf_clock(&now);
    for (size_t i = 0; i < r->n; i++) {
        struct renewed *it = &r->items[i];
        struct klawi_wf_head h;
        it->lost = it->cancelled = it->given_back = it->damaged = false;
        klaw_err e = klawi_wf_find_id(tx, it->wf->id, &h);
        it->damaged = e == KLAW_CORRUPT;
        it->lost = e == KLAW_NOT_FOUND || (!e && !klawi_wf_mine(&h, it->wf->token));
        if (e && !it->damaged && !it->lost)
            return e;
        if (e || it->lost)
            continue;
        it->cancelled = h.cancel;
        it->given_back = h.lease.duration == 0;
        if (it->given_back)
            continue;
        h.lease = it->lease = klaw_lease_grant(&now, it->wf->duration, it->wf->token);
        if ((e = klawi_wf_update(tx, &h)))
            return e;
    }
    return KLAW_OK;
}

static void renew_batch(struct klawi_wf_keeper *k, struct renewal *r) {
    klaw_lease_clock now;
    int64_t patience = INT64_MAX;
    for (size_t i = 0; i < r->n; i++)
        if (r->items[i].wf->duration < patience)
            patience = r->items[i].wf->duration;
    klaw_err e = klawi_store_write(k->store, renew, r, klaw_after(patience / 3), NULL);
    klawi_wf_clock(&now);
    klawi_lock_acquire(&keepers.lock);
    for (size_t i = 0; i < r->n; i++) {
        struct renewed *it = &r->items[i];
        klaw_workflow *wf = it->wf;
        if (e || it->damaged) {
            int64_t pause = wf->duration / 20 < KLAW_S(1) ? wf->duration / 20 : KLAW_S(1);
            wf->renew_at = klawi_clock() + pause;
            it->lost = klaw_lease_remaining(&wf->lease, &now, KLAW_OWNER_ALIVE) == 0;
            it->cancelled = false;
        } else if (!it->lost && !it->given_back) {
            wf->lease = it->lease;
            wf->renew_at = klawi_clock() + klaw_lease_renew_in(&it->lease, &now);
        }
        if (it->lost || (!e && it->given_back))
            wf->renew_at = INT64_MAX;
    }
    klawi_lock_release(&keepers.lock);
    for (size_t i = 0; i < r->n; i++) {
        if (r->items[i].lost)
            klawi_wf_mark(r->items[i].wf, true);
        else if (r->items[i].cancelled)
            klawi_wf_mark(r->items[i].wf, false);
        klawi_wf_unref(r->items[i].wf);
    }
}

static void *keeper_main(void *arg) {
    struct klawi_wf_keeper *k = arg;
    struct renewal r;
    for (;;) {
        int64_t next = KLAW_FOREVER, now = klawi_clock();
        r.n = 0;
        klawi_lock_acquire(&keepers.lock);
        uint32_t ticket = atomic_load(&k->ticket);
        bool stop = k->stop;
        for (klaw_workflow *wf = k->first; wf; wf = wf->keeper_next) {
            if (wf->renew_at <= now && r.n < BATCH) {
                atomic_fetch_add_explicit(&wf->refs, 1, memory_order_relaxed);
                r.items[r.n++].wf = wf;
            } else if (wf->renew_at < next) {
                next = wf->renew_at;
            }
        }
        klawi_lock_release(&keepers.lock);
        if (r.n)
            renew_batch(k, &r);
        else if (stop)
            return NULL;
        else
            klawi_futex_wait(&k->ticket, ticket, next);
    }
}

/* Under the lock. */
static struct klawi_wf_keeper *keeper_of(klaw_store *s) {
    struct klawi_wf_keeper *k = keepers.first;
    while (k && k->store != s)
        k = k->next;
    if (k)
        k->users++;
    return k;
}

static klaw_err join_thread(void *arg) {
    klawi_thread_join(((struct klawi_wf_keeper *)arg)->thread);
    return KLAW_OK;
}

/* It is in no list any more. */
static void keeper_end(struct klawi_wf_keeper *k) {
    klawi_lock_acquire(&keepers.lock);
    k->stop = true;
    atomic_fetch_add(&k->ticket, 1);
    klawi_lock_release(&keepers.lock);
    klawi_futex_wake(&k->ticket, 1);
    /* The child of a fork has no such thread. */
    if (!atomic_load(&klawi_forked) && klaw_blocking(join_thread, k) != KLAW_OK)
        klawi_thread_join(k->thread);
    klawi_free(k);
}

klaw_err klawi_wf_keeper_get(klaw_store *s, struct klawi_wf_keeper **out) {
    klawi_lock_acquire(&keepers.lock);
    *out = keeper_of(s);
    klawi_lock_release(&keepers.lock);
    if (*out)
        return KLAW_OK;
    struct klawi_wf_keeper *k = klawi_calloc(1, sizeof *k);
    if (!k || klawi_fail_point()) {
        klawi_free(k);
        return KLAW_NOMEM;
    }
    k->store = s;
    k->users = 1;
    klaw_err e = klawi_thread_start(&k->thread, "klaw-lease", keeper_main, k);
    if (e) {
        klawi_free(k);
        return e;
    }
    klawi_lock_acquire(&keepers.lock);
    *out = keeper_of(s);
    if (!*out) {
        k->next = keepers.first;
        keepers.first = *out = k;
    }
    klawi_lock_release(&keepers.lock);
    if (*out != k)
        keeper_end(k); /* somebody was faster */
    return KLAW_OK;
}

void klawi_wf_keeper_put(struct klawi_wf_keeper *k) {
    klawi_lock_acquire(&keepers.lock);
    bool last = --k->users == 0;
    if (last) {
        struct klawi_wf_keeper **at = &keepers.first;
        while (*at != k)
            at = &(*at)->next;
        *at = k->next;
    }
    klawi_lock_release(&keepers.lock);
    if (last)
        keeper_end(k);
}

/* Whether a handle of this process has this id. */
static bool held_here(const char *owner) {
    bool found = false;
    klawi_lock_acquire(&keepers.lock);
    for (struct klawi_wf_keeper *k = keepers.first; k && !found; k = k->next)
        for (klaw_workflow *wf = k->first; wf && !found; wf = wf->keeper_next)
            found = strcmp(wf->owner, owner) == 0;
    klawi_lock_release(&keepers.lock);
    return found;
}

void klawi_wf_keeper_add(struct klawi_wf_keeper *k, klaw_workflow *wf) {
    klawi_lock_acquire(&keepers.lock);
    wf->renew_at = INT64_MAX;
    wf->kept = true;
    wf->keeper_next = k->first;
    k->first = wf;
    klawi_lock_release(&keepers.lock);
}

void klawi_wf_keeper_begin(struct klawi_wf_keeper *k, klaw_workflow *wf, const klaw_lease *lease) {
    klaw_lease_clock now;
    klawi_wf_clock(&now);
    klawi_lock_acquire(&keepers.lock);
    wf->lease = *lease;
    wf->renew_at = klawi_clock() + klaw_lease_renew_in(lease, &now);
    atomic_fetch_add(&k->ticket, 1);
    klawi_lock_release(&keepers.lock);
    klawi_futex_wake(&k->ticket, 1);
}

void klawi_wf_keeper_remove(struct klawi_wf_keeper *k, klaw_workflow *wf) {
    klawi_lock_acquire(&keepers.lock);
    if (wf->kept) {
        klaw_workflow **at = &k->first;
        while (*at != wf)
            at = &(*at)->keeper_next;
        *at = wf->keeper_next;
        wf->kept = false;
    }
    klawi_lock_release(&keepers.lock);
}
