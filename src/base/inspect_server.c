/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_server.c - the process answers who asks what is alive in it: one thread, one Unix socket.
 *
 * The protocol, version 1. A request is one line of at most REQUEST_MAX bytes, its newline included:
 *     klaw/1 <what>\n          what: snapshot, stats, waits, look
 * The answer is a line, and after an ok so many bytes of JSON:
 *     klaw/1 ok <bytes>\n<JSON, its last byte a newline, which counts>
 *     klaw/1 error <word> <text>\n      version, unknown, long, large, memory, busy
 * One connection asks as often as it likes, one request at a time; what it sends ahead of the answer
 * waits. After `long`, `version` and `busy` the connection ends: what follows can't be understood.
 *   snapshot  all of klaw_snapshot_json
 *   waits     of it: who waits and who holds (fibers, tasks, actors, waits, endpoints)
 *   stats     the process, and how many there are of each kind
 *   look      nothing ({}); what another language's tasks wait for is found out meanwhile, for a later snapshot (publish.h)
 *
 * Invariants:
 *   V1  only a peer with our effective user, or root, is answered; the folder is ours and 0700.
 *   V2  the socket appears under its name by rename, after listen: a name that refuses is stale, so
 *       readers may remove it.
 *   V3  a peer costs at most one answer of ANSWER_MAX bytes. One that takes no byte of its answer for
 *       STALL_MS, or asks nothing for IDLE_MS, is dropped; nobody waits for it meanwhile.
 *   V4  nobody asks, nobody runs: without peers the thread sleeps without a limit.
 *
 * `guard` is held while the server is opened and closed; the thread never takes it. stop_fd wakes the
 * thread, which owns everything else. In the child of a fork the descriptors are closed, those of peers, too (else
 * a peer would not see the parent's end), and the path stays, for it is the parent's. `peers_guard` is held
 * while a descriptor of a peer comes or goes, so that the child knows all of them.
 *
 * Rejected: an answer made by the peer's own thread each (a thread a reader); JSON requests (a parser
 * of outside bytes in each process, for three words); a file that is written every second (it costs
 * while nobody looks). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/inspect.h"
#include "klaw/klaw.h"
#include "plat/os.h"

#define REQUEST_MAX 128
#define FOLDER_MAX 90 /* bytes: a path of a socket has at most 107, and "/<pid>.sock" follows */
#define ANSWER_MAX ((size_t)256 << 20)
#define PEERS_MAX 16
#define STALL_MS 10000
#define IDLE_MS 120000

#if defined(KLAWI_DET)
/* There is no other process in a deterministic world. */
klaw_err klaw_inspect_open(klaw_error_info *info) {
    (void)info;
    return KLAW_OK;
}
void klaw_inspect_close(void) {}
klaw_err klaw_inspect_path(char *path, size_t size) {
    return path && size ? KLAW_NOT_FOUND : KLAW_INVALID;
}
#else

_Atomic bool klawi_inspected; /* (a) the server is open */

struct peer {
    int fd; /* -1: free */
    size_t got;
    char request[REQUEST_MAX];
    char *answer; /* being sent; NULL: a request is awaited */
    size_t size, sent;
    bool last;       /* the connection ends after this answer */
    int64_t give_up; /* V3: ns of CLOCK_MONOTONIC */
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static bool open_now;                    /* (guard) */
static klawi_thread_id thread;           /* (guard) */
static int listen_fd = -1, stop_fd = -1; /* (guard) written; the thread's while it runs */
static char socket_path[sizeof((struct sockaddr_un *)0)->sun_path]; /* (guard) "": none */
static int64_t opened_at; /* (guard) written; ns of CLOCK_REALTIME */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pid_t owner;         /* (guard) */
static struct peer *served; /* (guard) written; the thread's peers, NULL: no thread */
static pthread_mutex_t peers_guard = PTHREAD_MUTEX_INITIALIZER;

/* ---- the folder ---- */

/* Ours alone, made when it is not there. */
static klaw_err check_folder(const char *path, klaw_error_info *info) {
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return klawi_error(info, KLAW_SYSTEM, "inspect: %.200s can't be made: %s", path,
                           strerror(errno));
    if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return klawi_error(info, KLAW_SYSTEM,
                           "inspect: %.200s has to be a folder of this user alone (mode 0700)",
                           path);
    return KLAW_OK;
}

static klaw_err choose_folder(char *out, size_t size, klaw_error_info *info) {
    const char *run = klawi_env("XDG_RUNTIME_DIR");
    struct stat st;
    if (run && *run == '/' && strlen(run) + sizeof "/klaw" <= size && stat(run, &st) == 0 &&
        S_ISDIR(st.st_mode) && st.st_uid == geteuid())
        snprintf(out, size, "%s/klaw", run);
    else
        snprintf(out, size, "/tmp/klaw-%lu", (unsigned long)geteuid());
    return check_folder(out, info);
}

/* ---- answers ---- */

static void hold_peers(void) {
    (void)pthread_mutex_lock(&peers_guard);
}
static void let_go_peers(void) {
    (void)pthread_mutex_unlock(&peers_guard);
}

static void peer_close(struct peer *p) {
    hold_peers();
    close(p->fd);
    p->fd = -1;
    let_go_peers();
    klawi_free(p->answer);
    memset(p, 0, sizeof *p);
    p->fd = -1;
}

static void answer_error(struct peer *p, const char *word, const char *text, bool last) {
    char line[160];
    int n = snprintf(line, sizeof line, "klaw/1 error %s %s\n", word, text);
    p->answer = klawi_alloc((size_t)n);
    p->last = last;
    p->size = p->answer ? (size_t)n : 0;
    p->sent = 0;
    if (p->answer)
        memcpy(p->answer, line, (size_t)n);
    else
        peer_close(p); /* not even for this */
}

static void put_count(struct klawi_object *o, const klaw_snapshot *snap, const char *kind) {
    size_t n;
    char name[32];
    (void)klawi_snapshot_items(snap, kind, &n);
    snprintf(name, sizeof name, "%ss", kind);
    klawi_object_u64(o, name, n);
}

static void put_channel_totals(struct klawi_object *o, const klaw_snapshot *snap) {
    size_t n;
    uint64_t queued = 0, sent = 0, received = 0, waiting = 0;
    const klaw_channel_stats *c = klaw_snapshot_channels(snap, &n);
    for (size_t i = 0; i < n; i++) {
        queued += c[i].queue_size;
        sent += c[i].total_sent;
        received += c[i].total_received;
        waiting += c[i].waiting_senders + c[i].waiting_receivers;
    }
    klawi_object_u64(o, "queued", queued);
    klawi_object_u64(o, "total_sent", sent);
    klawi_object_u64(o, "total_received", received);
    klawi_object_u64(o, "waiting", waiting);
}

static void put_actor_totals(struct klawi_object *o, const klaw_snapshot *snap) {
    size_t n;
    uint64_t handled = 0, failed = 0, mailboxes = 0, restarts = 0;
    const klaw_actor_stats *a = klaw_snapshot_actors(snap, &n);
    for (size_t i = 0; i < n; i++) {
        handled += a[i].handled;
        failed += a[i].failed;
        mailboxes += a[i].mailbox_size;
        restarts += a[i].restarts;
    }
    const klaw_supervisor_info *s = klaw_snapshot_supervisors(snap, &n);
    for (size_t i = 0; i < n; i++)
        restarts += s[i].restarts;
    klawi_object_u64(o, "handled", handled);
    klawi_object_u64(o, "failed", failed);
    klawi_object_u64(o, "in_mailboxes", mailboxes);
    klawi_object_u64(o, "restarts", restarts);
}

static void put_worker_totals(struct klawi_object *o, const klaw_snapshot *snap) {
    size_t n;
    uint64_t turns = 0, runnable = 0;
    const klaw_worker_info *w = klaw_snapshot_workers(snap, &n);
    for (size_t i = 0; i < n; i++) {
        turns += w[i].turns;
        runnable += w[i].queue_length;
    }
    klawi_object_u64(o, "turns", turns);
    klawi_object_u64(o, "runnable", runnable);
}

static klaw_err stats_json(const klaw_snapshot *snap, char **out, size_t *size) {
    static const char *const kinds[] = {"worker", "scope", "fiber",      "channel", "executor",
                                        "task",   "actor", "supervisor", "name"};
    struct klawi_text t = {.grows = true};
    struct klawi_object o = {&t, true};
    klawi_text_str(&t, "{");
    klawi_text_member(&t, &o.first, "version");
    klawi_text_str(&t, "\"" KLAW_VERSION "\"");
    klawi_object_i64(&o, "protocol", 1);
    klawi_object_i64(&o, "pid", getpid());
    klawi_object_string(&o, "program", program_invocation_short_name, 256);
    klawi_text_member(&t, &o.first, "time");
    klawi_text_str(&t, "\"");
    klawi_text_time(&t, klaw_snapshot_time(snap));
    klawi_text_str(&t, "\"");
    klawi_text_member(&t, &o.first, "open_since");
    klawi_text_str(&t, "\"");
    klawi_text_time(&t, opened_at);
    klawi_text_str(&t, "\"");
    klawi_object_boolean(&o, "truncated", klaw_snapshot_truncated(snap));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        put_count(&o, snap, kinds[i]);
    put_worker_totals(&o, snap);
    put_channel_totals(&o, snap);
    put_actor_totals(&o, snap);
    klawi_text_str(&t, "}");
    klawi_text_put(&t, "", 1);
    if (t.full) {
        klawi_free(t.p);
        return KLAW_NOMEM;
    }
    *out = t.p;
    *size = t.len - 1;
    return KLAW_OK;
}

static klaw_err make_json(const char *what, char **out, size_t *size) {
    static const char *const waits[] = {"fiber",    "task",  "actor", "channel", "wait",
                                        "endpoint", "scope", "hold",  NULL};
    bool all = strcmp(what, "snapshot") == 0, some = strcmp(what, "waits") == 0;
    klaw_snapshot *snap;
    if (strcmp(what, "look") == 0) {
        klawi_inspect_look();
        *out = klawi_calloc(1, 3);
        *size = 2;
        if (*out)
            memcpy(*out, "{}", 2);
        return *out ? KLAW_OK : KLAW_NOMEM;
    }
    if (!all && !some && strcmp(what, "stats") != 0)
        return KLAW_NOT_FOUND;
    klaw_err e = klaw_snapshot_take(&snap);
    if (e)
        return e;
    e = all || some ? klawi_snapshot_json(snap, some ? waits : NULL, out, size)
                    : stats_json(snap, out, size);
    klaw_snapshot_free(snap);
    return e;
}

static void answer(struct peer *p, const char *what) {
    char *json = NULL, head[48];
    size_t size = 0;
    klaw_err e = make_json(what, &json, &size);
    if (e == KLAW_NOT_FOUND) {
        answer_error(p, "unknown", "ask for snapshot, waits, stats or look", false);
        return;
    }
    int n = snprintf(head, sizeof head, "klaw/1 ok %zu\n", size + 1);
    if (!e && size + 1 > ANSWER_MAX) {
        klawi_free(json);
        answer_error(p, "large", "the answer is too large", false);
        return;
    }
    char *both = e ? NULL : klawi_alloc((size_t)n + size + 1);
    if (!both) {
        klawi_free(json);
        answer_error(p, "memory", "no memory for the answer", false);
        return;
    }
    memcpy(both, head, (size_t)n);
    memcpy(both + n, json, size);
    both[(size_t)n + size] = '\n';
    klawi_free(json);
    p->answer = both;
    p->size = (size_t)n + size + 1;
    p->sent = 0;
    p->last = false;
}

/* ---- peers ---- */

static bool is_trusted(int fd) {
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
           (who.uid == geteuid() || who.uid == 0); /* V1 */
}

static void set_limit(struct peer *p, int64_t ms) {
    p->give_up = klawi_clock() + ms * KLAW_MS(1);
}

static void accept_peer(struct peer *peers) {
    static const char busy[] = "klaw/1 error busy too many readers\n";
    struct peer *p = peers;
    while (p < peers + PEERS_MAX && p->fd >= 0)
        p++;
    hold_peers();
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    bool full =
        fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS);
    if (fd >= 0 && !is_trusted(fd)) {
        close(fd);
    } else if (fd >= 0 && p == peers + PEERS_MAX) {
        (void)!send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL);
        close(fd);
    } else if (fd >= 0) {
        p->fd = fd;
        set_limit(p, IDLE_MS);
    }
    let_go_peers();
    if (full)
        klawi_thread_nap(KLAW_MS(100)); /* the queue stays: not in a circle */
}

/* What is in the buffer, if a whole request is. */
static void look(struct peer *p) {
    char *end = memchr(p->request, '\n', p->got);
    if (p->answer || p->fd < 0)
        return;
    if (!end) {
        if (p->got == sizeof p->request)
            answer_error(p, "long", "a request has at most 128 bytes", true);
        return;
    }
    *end = 0;
    size_t used = (size_t)(end + 1 - p->request);
    if (strncmp(p->request, "klaw/1 ", 7) != 0)
        answer_error(p, "version", "this is klaw/1", true);
    else
        answer(p, p->request + 7);
    if (p->fd < 0)
        return;
    memmove(p->request, p->request + used, p->got - used);
    p->got -= used;
    set_limit(p, STALL_MS);
}

static void read_peer(struct peer *p) {
    ssize_t n = recv(p->fd, p->request + p->got, sizeof p->request - p->got, 0);
    if (n > 0) {
        p->got += (size_t)n;
        look(p);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        peer_close(p);
    }
}

static void write_peer(struct peer *p) {
    ssize_t n = send(p->fd, p->answer + p->sent, p->size - p->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            peer_close(p);
        return;
    }
    set_limit(p, STALL_MS);
    p->sent += (size_t)n;
    if (p->sent < p->size)
        return;
    if (p->last) {
        /* Bytes of his that were not read would turn the end into a reset that eats the answer. */
        char rest[256];
        while (recv(p->fd, rest, sizeof rest, MSG_DONTWAIT) > 0)
            ;
        peer_close(p);
        return;
    }
    klawi_free(p->answer);
    p->answer = NULL;
    set_limit(p, IDLE_MS);
    look(p);
}

/* Drops who is over his limit; ms until the next one is, -1: never. */
static int next_limit(struct peer *peers) {
    int64_t now = 0, first = KLAW_FOREVER;
    for (struct peer *p = peers; p < peers + PEERS_MAX; p++) {
        if (p->fd < 0)
            continue;
        now = now ? now : klawi_clock();
        if (p->give_up <= now)
            peer_close(p);
        else if (p->give_up < first)
            first = p->give_up;
    }
    return first == KLAW_FOREVER ? -1 : (int)((first - now) / KLAW_MS(1)) + 1;
}

static void *serve(void *arg) {
    struct peer *peers = arg;
    struct pollfd fds[2 + PEERS_MAX];
    for (;;) {
        int limit = next_limit(peers);
        fds[0] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
        for (int i = 0; i < PEERS_MAX; i++)
            fds[2 + i] = (struct pollfd){.fd = peers[i].fd, /* negative ones are skipped */
                                         .events = peers[i].answer ? POLLOUT : POLLIN};
        if (poll(fds, 2 + PEERS_MAX, limit) < 0)
            continue; /* EINTR, ENOMEM */
        if (fds[0].revents)
            break;
        for (int i = 0; i < PEERS_MAX; i++) {
            if (!fds[2 + i].revents || peers[i].fd < 0)
                continue;
            if (peers[i].answer)
                write_peer(&peers[i]);
            else
                read_peer(&peers[i]);
        }
        if (fds[1].revents)
            accept_peer(peers);
    }
    for (int i = 0; i < PEERS_MAX; i++)
        if (peers[i].fd >= 0)
            peer_close(&peers[i]);
    klawi_free(peers);
    return NULL;
}

/* ---- opening and closing ---- */

static void at_exit(void) {
    if (getpid() == owner && *socket_path)
        unlink(socket_path);
}

static void in_child(void) {
    if (listen_fd >= 0)
        close(listen_fd);
    if (stop_fd >= 0)
        close(stop_fd);
    listen_fd = stop_fd = -1;
    for (int i = 0; served && i < PEERS_MAX; i++)
        if (served[i].fd >= 0)
            close(served[i].fd);
    klawi_free(served); /* not the answers: the parent's thread may have been freeing one */
    served = NULL;
    *socket_path = 0;
    open_now = false;
    atomic_store_explicit(&klawi_inspected, false, memory_order_relaxed);
}

static void hold(void) {
    (void)pthread_mutex_lock(&guard);
}
static void let_go(void) {
    (void)pthread_mutex_unlock(&guard);
}
static void before_fork(void) {
    hold();
    hold_peers();
}
static void after_fork(void) {
    let_go_peers();
    let_go();
}
static void let_go_in_child(void) {
    in_child();
    after_fork();
}

static void register_once(void) {
    (void)atexit(at_exit);
    (void)pthread_atfork(before_fork, after_fork, let_go_in_child);
}

/* Listens under its name. On an error nothing is left. */
static klaw_err listen_at(const char *folder, klaw_error_info *info) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(socket_path, sizeof socket_path, "%.90s/%d.sock", folder, (int)getpid());
    snprintf(at.sun_path, sizeof at.sun_path, "%.90s/%d.new", folder, (int)getpid());
    unlink(at.sun_path); /* of a former process of our number */
    listen_fd =
        klawi_fail_point() ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    stop_fd = listen_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd >= 0 && fchmod(listen_fd, 0600) == 0 &&
        bind(listen_fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(listen_fd, 8) == 0 &&
        rename(at.sun_path, socket_path) == 0) /* V2 */
        return KLAW_OK;
    klaw_err e =
        klawi_error(info, KLAW_SYSTEM, "inspect: no socket in %.90s: %s", folder, strerror(errno));
    unlink(at.sun_path);
    return e;
}

static void forget(void) {
    if (*socket_path)
        unlink(socket_path);
    *socket_path = 0;
    if (listen_fd >= 0)
        close(listen_fd);
    if (stop_fd >= 0)
        close(stop_fd);
    listen_fd = stop_fd = -1;
}

static klaw_err open_server(klaw_error_info *info) {
    char folder[FOLDER_MAX + 1];
    klaw_err e = choose_folder(folder, sizeof folder, info);
    if (e)
        return e;
    struct peer *peers = klawi_calloc(PEERS_MAX, sizeof *peers);
    if (!peers)
        return klawi_error(info, KLAW_NOMEM, "out of memory");
    for (int i = 0; i < PEERS_MAX; i++)
        peers[i].fd = -1;
    opened_at = klawi_wall_clock();
    if ((e = listen_at(folder, info)) == KLAW_OK) {
        e = klawi_fail_point() ? KLAW_SYSTEM
                               : klawi_thread_start(&thread, "klaw-inspect", serve, peers);
        if (e)
            (void)klawi_error(info, e, "inspect: no thread");
    }
    if (e) {
        forget();
        klawi_free(peers);
        return e;
    }
    owner = getpid();
    served = peers;
    open_now = true;
    atomic_store_explicit(&klawi_inspected, true, memory_order_relaxed);
    return KLAW_OK;
}

klaw_err klaw_inspect_open(klaw_error_info *info) {
    pthread_once(&once, register_once);
    hold();
    klaw_err e = open_now ? KLAW_OK : open_server(info);
    let_go();
    return e;
}

void klaw_inspect_close(void) {
    uint64_t one = 1;
    hold();
    if (open_now) {
        open_now = false;
        atomic_store_explicit(&klawi_inspected, false, memory_order_relaxed);
        (void)!write(stop_fd, &one, sizeof one);
        klawi_thread_join(thread);
        served = NULL; /* freed by the thread */
        forget();
    }
    let_go();
}

klaw_err klaw_inspect_path(char *path, size_t size) {
    if (!path || size == 0)
        return KLAW_INVALID;
    hold();
    size_t n = strlen(socket_path) + 1;
    klaw_err e = !open_now ? KLAW_NOT_FOUND : n > size ? KLAW_LIMIT : KLAW_OK;
    if (e == KLAW_OK)
        memcpy(path, socket_path, n);
    let_go();
    return e;
}
#endif

/* ---- the environment ---- */

klaw_err klawi_inspect_env(bool *out, klaw_error_info *info) {
    const char *v = klawi_env("KLAW_INSPECT");
    *out = false;
    if (v && strcmp(v, "0") != 0 && strcmp(v, "1") != 0)
        return klawi_error(info, KLAW_INVALID, "KLAW_INSPECT is '%.40s': it has to be '0' or '1'",
                           v);
    *out = v && *v == '1';
    return KLAW_OK;
}

klaw_err klawi_inspect_begin(bool asked, klaw_error_info *info) {
    bool wished;
    klaw_error_info why = {0};
    if (asked)
        return klaw_inspect_open(info);
    klaw_err e = klawi_inspect_env(&wished, info);
    if (e || !wished)
        return e;
    if (klaw_inspect_open(&why) != KLAW_OK)
        fprintf(stderr, "klaw: %s (KLAW_INSPECT=1)\n", why.message);
    return KLAW_OK;
}
