/* SPDX-License-Identifier: Apache-2.0 */
/* signal.c - signals as elements of a channel.
 *
 * The handler writes the signal's number into a pipe; one small thread ("klaw-signal", all
 * signals blocked) reads it and sends it to every receiver that asked for it. Pipe and thread
 * make up the engine, which exists while a receiver is open: the first open starts it, and after
 * the last close it ends itself. A receiver that closes tells us by a hook of its channel, on
 * the closing host, so the former handler is back before the close returns.
 *
 * Invariants whenever `lock` is free:
 *   S1  actions[s].users = the listed watches that want s; our handler is installed while it is
 *       not 0 (unless somebody else replaced it), and `former` is what was there before.
 *   S2  a watch is listed => the engine exists, and it ends only while none is listed.
 *   S3  each signal that has come since the receiver last took one of its number waits in the
 *       channel: further ones are merged only when SIGNALS_WAIT elements wait, and the capacity
 *       has room for one of each number beyond those.
 * The handler touches only atomics, the pipe, and in the child of a fork `former`. The engine
 * closes the pipe after pipe_fd is gone and then no handler is inside (`inflight`): so no
 * handler ever writes into a descriptor that became somebody else's.
 *
 * `lock` guards the list, the actions and `engine`. Under it there are system calls that can't
 * wait (sigaction), but no send, no allocation and no thread start: the opener makes an engine
 * beforehand, and gives it up if another opener was faster.
 *
 * Rejected: signalfd (needs the signal blocked in every thread, which a library can't ensure); a
 * write per receiver in the handler (needs their list there); a pipe for ever (a descriptor leak
 * to whoever counts). */
#include "klaw/signal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/lock.h"
#include "plat/os.h"
#include "sched/sched.h"
#include "sync/chan.h"

#define SIGNALS 64
#define SIGNALS_WAIT 16
/* What the pipe carries besides signal numbers: look whether anybody is left. */
#define BYTE_LOOK 0

/* One receiver. */
struct watch {
    struct watch *next;     /* (L) */
    bool listed;            /* (L) */
    uint64_t id;            /* (c) rises along the list */
    uint64_t set;           /* (c) bit s - 1: wants signal s */
    klaw_sender *tx;        /* (c) */
    _Atomic uint32_t refs;  /* (a) the list's (until closed), the engine's while it sends */
    uint64_t sent;          /* (engine) */
    uint64_t last[SIGNALS]; /* (engine) `sent` right after signal s + 1 was sent last */
};

struct engine {
    int read_fd, write_fd;
};

struct action {
    uint32_t users;          /* (L) */
    struct sigaction former; /* (L) written; the child of a fork reads it in its handler */
};

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_SIGNAL);
static struct watch *watches;              /* (L) */
static uint64_t last_id;                   /* (L) */
static struct action actions[SIGNALS + 1]; /* (L) by number */
static struct engine *engine;              /* (L) */
static _Atomic int pipe_fd = -1;           /* (a) seq_cst, see inflight */
static _Atomic uint32_t inflight;          /* (a) seq_cst with pipe_fd: who may hold its value */
static _Atomic uint64_t overflow;          /* (a) relaxed: signals that found the pipe full */
static _Atomic pid_t owner;                /* (a) relaxed: whose handlers these are */

static uint64_t bit(int sig) {
    return (uint64_t)1 << (sig - 1);
}

/* ---- into the pipe ---- */

static void pipe_write(unsigned char byte) {
    atomic_fetch_add_explicit(&inflight, 1, memory_order_seq_cst);
    int fd = atomic_load_explicit(&pipe_fd, memory_order_seq_cst);
    /* A full pipe has something to read, after which the engine looks at overflow. */
    if (fd >= 0 && write(fd, &byte, 1) != 1 && byte != BYTE_LOOK)
        atomic_fetch_or_explicit(&overflow, bit(byte), memory_order_relaxed);
    atomic_fetch_sub_explicit(&inflight, 1, memory_order_seq_cst);
}

static void on_signal(int sig) {
    int kept_errno = errno;
    if (getpid() == atomic_load_explicit(&owner, memory_order_relaxed)) {
        pipe_write((unsigned char)sig);
    } else {
        /* The child of a fork has no engine, and the pipe is its parent's: as if klaw were not
         * there. */
        (void)sigaction(sig, &actions[sig].former, NULL);
        (void)kill(getpid(), sig);
    }
    errno = kept_errno;
}

/* ---- actions; the lock is held ---- */

static int action_add(int sig) {
    struct action *a = &actions[sig];
    struct sigaction ours;
    if (a->users == 0) {
        memset(&ours, 0, sizeof ours);
        ours.sa_handler = on_signal;
        /* Fibers' stacks may be small: workers have an alternate one. */
        ours.sa_flags = SA_RESTART | SA_ONSTACK;
        (void)sigfillset(&ours.sa_mask);
        if (sigaction(sig, &ours, &a->former) != 0)
            return errno;
    }
    a->users++;
    return 0;
}

static void action_remove(int sig) {
    struct action *a = &actions[sig];
    struct sigaction now;
    KLAWI_ASSERT(a->users > 0); /* S1 */
    if (--a->users > 0)
        return;
    if (sigaction(sig, NULL, &now) == 0 && now.sa_handler == on_signal)
        (void)sigaction(sig, &a->former, NULL);
}

/* All signals of the set, or none: 0 or an error number. */
static int actions_add(uint64_t set) {
    for (int sig = 1; sig <= SIGNALS; sig++) {
        int error = set & bit(sig) ? action_add(sig) : 0;
        if (!error)
            continue;
        while (--sig > 0)
            if (set & bit(sig))
                action_remove(sig);
        return error;
    }
    return 0;
}

static void actions_remove(uint64_t set) {
    for (int sig = 1; sig <= SIGNALS; sig++)
        if (set & bit(sig))
            action_remove(sig);
}

/* ---- watches ---- */

static void watch_unref(struct watch *w) {
    if (atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_sender_unref(w->tx);
    klawi_free(w);
}

/* The hook of the channel; also when a send found it closed. Idempotent. */
static void watch_end(struct watch *w) {
    klawi_lock_acquire(&lock);
    bool listed = w->listed;
    if (listed) {
        struct watch **at = &watches;
        while (*at != w)
            at = &(*at)->next;
        *at = w->next;
        w->listed = false;
        actions_remove(w->set);
    }
    bool last = listed && !watches;
    klawi_lock_release(&lock);
    if (last)
        pipe_write(BYTE_LOOK);
}

static void watch_closed(void *arg) {
    struct watch *w = arg;
    watch_end(w);
    watch_unref(w);
}

/* The first watch after `id` that wants the signal, with a reference. */
static struct watch *watch_next(uint64_t id, int sig) {
    klawi_lock_acquire(&lock);
    struct watch *w = watches;
    while (w && (w->id <= id || !(w->set & bit(sig))))
        w = w->next;
    if (w)
        atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
    klawi_lock_release(&lock);
    return w;
}

/* ---- the engine ---- */

static void send_to(struct watch *w, int sig) {
    klaw_channel_stats stats;
    uint64_t elem = (uint64_t)sig;
    klaw_err e = klaw_sender_stats(w->tx, &stats);
    if (!e) {
        bool waits = w->last[sig - 1] > stats.total_received;
        if (waits && stats.queue_size >= SIGNALS_WAIT)
            return; /* S3: merged */
        e = klaw_send(w->tx, &elem, KLAW_NOWAIT);
    }
    if (!e)
        w->last[sig - 1] = ++w->sent;
    else if (e == KLAW_CLOSED)
        watch_end(w);
}

static void deliver(int sig) {
    uint64_t id = 0;
    struct watch *w;
    while ((w = watch_next(id, sig))) {
        id = w->id;
        send_to(w, sig);
        watch_unref(w);
    }
}

static void deliver_overflow(void) {
    uint64_t set = atomic_exchange_explicit(&overflow, 0, memory_order_relaxed);
    for (int sig = 1; sig <= SIGNALS && set; sig++)
        if (set & bit(sig))
            deliver(sig);
}

/* S2: true when this engine is not needed (any more), and nobody can find it from now on. */
static bool engine_retire(struct engine *self) {
    klawi_lock_acquire(&lock);
    bool current = engine == self;
    bool needed = current && watches;
    if (current && !needed) {
        engine = NULL;
        atomic_store_explicit(&pipe_fd, -1, memory_order_seq_cst);
    }
    klawi_lock_release(&lock);
    return !needed;
}

static void engine_free(struct engine *self) {
    (void)close(self->read_fd);
    (void)close(self->write_fd);
    klawi_free(self);
}

static void *engine_main(void *arg) {
    struct engine *self = arg;
    unsigned char bytes[64];
    bool end = false;
    while (!end) {
        ssize_t n = read(self->read_fd, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR)
            continue;
        bool look = n <= 0;
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] == BYTE_LOOK)
                look = true;
            else
                deliver(bytes[i]);
        }
        deliver_overflow();
        end = look && engine_retire(self);
    }
    while (atomic_load_explicit(&inflight, memory_order_seq_cst) != 0)
        klawi_thread_nap(20000);
    engine_free(self);
    return NULL;
}

static klaw_err engine_start(struct engine **out) {
    int fds[2];
    klawi_thread_id thread;
    struct engine *new_engine = klawi_alloc(sizeof *new_engine);
    if (!new_engine)
        return KLAW_NOMEM;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        klawi_free(new_engine);
        return KLAW_SYSTEM;
    }
    new_engine->read_fd = fds[0];
    new_engine->write_fd = fds[1];
    klaw_err e = fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0 ? KLAW_OK : KLAW_SYSTEM;
    if (!e)
        e = klawi_thread_start(&thread, "klaw-signal", engine_main, new_engine);
    if (e) {
        engine_free(new_engine);
        return e;
    }
    klawi_thread_detach(thread);
    *out = new_engine;
    return KLAW_OK;
}

/* An engine nobody has seen. */
static void engine_discard(struct engine *unused) {
    unsigned char look = BYTE_LOOK;
    while (write(unused->write_fd, &look, 1) < 0 && errno == EINTR)
        ;
}

/* ---- open ---- */

/* Lists the watch. When there is no engine *spare becomes it (and NULL); STOPPED when that is
 * NULL, too. */
static klaw_err attach(struct watch *w, struct engine **spare) {
    klaw_err e = KLAW_OK;
    klawi_lock_acquire(&lock);
    if (!engine && *spare) {
        engine = *spare;
        *spare = NULL;
        atomic_store_explicit(&owner, getpid(), memory_order_relaxed);
        atomic_store_explicit(&pipe_fd, engine->write_fd, memory_order_seq_cst);
    }
    int error = engine ? actions_add(w->set) : 0;
    if (!engine) {
        e = KLAW_STOPPED;
    } else if (error) {
        e = error == EINVAL ? KLAW_INVALID : KLAW_SYSTEM;
    } else {
        struct watch **at = &watches;
        while (*at)
            at = &(*at)->next;
        *at = w;
        w->id = ++last_id;
        w->listed = true;
    }
    bool idle = engine && !watches;
    klawi_lock_release(&lock);
    if (idle)
        pipe_write(BYTE_LOOK);
    return e;
}

static klaw_err watch_start(struct watch *w) {
    struct engine *spare = NULL;
    klaw_err e = attach(w, &spare);
    if (e == KLAW_STOPPED) {
        e = engine_start(&spare);
        if (e)
            return e;
        e = attach(w, &spare);
        if (spare)
            engine_discard(spare);
    }
    return e;
}

/* The child of a fork, with its parent's receivers. */
static bool inherited(void) {
    return atomic_load_explicit(&pipe_fd, memory_order_relaxed) >= 0 &&
           atomic_load_explicit(&owner, memory_order_relaxed) != getpid();
}

static bool refused(int sig) {
    switch (sig) {
    case SIGKILL:
    case SIGSTOP:
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS:
    case SIGABRT: return true;
    default: return sig < 1 || sig > SIGNALS;
    }
}

klaw_err klaw_signal_open(const int *signals, size_t n, klaw_receiver **out) {
    klaw_receiver *rx = NULL;
    klaw_channel_opts opts = {.name = "signal"};
    uint64_t set = 0;
    if (!signals || n == 0 || !out)
        return KLAW_INVALID;
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed) || inherited())
        return KLAW_STOPPED;
    for (size_t i = 0; i < n; i++) {
        if (refused(signals[i]))
            return KLAW_INVALID;
        set |= bit(signals[i]);
    }
    opts.capacity = SIGNALS_WAIT + __builtin_popcountll(set); /* S3 */
    struct watch *w = klawi_calloc(1, sizeof *w);
    if (!w)
        return KLAW_NOMEM;
    w->set = set;
    atomic_init(&w->refs, 1);
    klaw_err e = klaw_channel(&klaw_u64, &opts, &w->tx, &rx);
    if (e)
        goto no_channel;
    e = watch_start(w);
    if (e)
        goto not_started;
    klawi_channel_on_receivers_closed(w->tx, watch_closed, w);
    *out = rx;
    return KLAW_OK;

not_started:
    klaw_receiver_unref(rx);
    klaw_sender_unref(w->tx);
no_channel:
    klawi_free(w);
    return e;
}
