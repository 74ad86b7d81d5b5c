/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - the reader's side of the socket of inspection (src/base/inspect_server.c has the protocol).
 *
 * Only folders that belong to this user and that nobody else may write are looked into, and the peer's
 * user is checked: what stands in /tmp may be anybody's. A socket that refuses has lost its process (the
 * server publishes its name after it listens), so it is removed. */
#include "client.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)256 << 20)
#define PATIENCE_MS 10000

/* ---- finding ---- */

static bool is_ours(const char *folder) {
    struct stat st;
    return lstat(folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 022) == 0;
}

static int dial(const char *path) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct ucred who;
    socklen_t size = sizeof who;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0) {
        if (who.uid == geteuid())
            return fd;
        errno = EPERM;
    }
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

/* Whether somebody listens; removes the name when nobody does. */
static bool is_alive(const char *path) {
    int fd = dial(path);
    if (fd >= 0)
        close(fd);
    else if (errno == ECONNREFUSED)
        unlink(path);
    return fd >= 0 || errno == EAGAIN; /* EAGAIN: its queue is full */
}

struct list {
    cli_process *p;
    size_t n, room;
};

static bool add(struct list *l, long pid, const char *path) {
    for (size_t i = 0; i < l->n; i++)
        if (l->p[i].pid == pid)
            return true;
    if (l->n == l->room) {
        l->room = l->room ? 2 * l->room : 16;
        cli_process *more = realloc(l->p, l->room * sizeof *more);
        if (!more)
            return false;
        l->p = more;
    }
    l->p[l->n].pid = pid;
    snprintf(l->p[l->n++].path, sizeof l->p->path, "%s", path);
    return true;
}

static bool look_into(const char *folder, struct list *l) {
    DIR *d = is_ours(folder) ? opendir(folder) : NULL;
    bool ok = true;
    for (struct dirent *e; ok && d && (e = readdir(d)) != NULL;) {
        char path[108], *end;
        if (!isdigit((unsigned char)*e->d_name))
            continue;
        long pid = strtol(e->d_name, &end, 10);
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, e->d_name) >= sizeof path)
            continue;
        if (strcmp(end, ".new") == 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlink(path); /* it died before it listened */
        if (strcmp(end, ".sock") == 0 && is_alive(path))
            ok = add(l, pid, path);
    }
    if (d)
        closedir(d);
    return ok;
}

static int by_pid(const void *a, const void *b) {
    long x = ((const cli_process *)a)->pid, y = ((const cli_process *)b)->pid;
    return (x > y) - (x < y);
}

bool cli_processes(cli_process **out, size_t *n) {
    const char *run = getenv("XDG_RUNTIME_DIR");
    struct list l = {0};
    char folder[96];
    bool ok = true;
    if (run && *run == '/' &&
        (size_t)snprintf(folder, sizeof folder, "%s/klaw", run) < sizeof folder)
        ok = look_into(folder, &l);
    snprintf(folder, sizeof folder, "/tmp/klaw-%lu", (unsigned long)geteuid());
    ok = ok && look_into(folder, &l);
    if (!ok) {
        free(l.p);
        return false;
    }
    if (l.n > 0)
        qsort(l.p, l.n, sizeof *l.p, by_pid);
    *out = l.p;
    *n = l.n;
    return true;
}

/* ---- asking ---- */

bool cli_link_open(cli_link *link, const cli_process *process) {
    if (process != &link->process)
        link->process = *process;
    *link->why = 0;
    link->patience = PATIENCE_MS;
    link->fd = dial(link->process.path);
    if (link->fd < 0)
        snprintf(link->why, sizeof link->why, "process %ld does not answer: %s", link->process.pid,
                 errno == ECONNREFUSED || errno == ENOENT ? "it has ended" : strerror(errno));
    return link->fd >= 0;
}

void cli_link_close(cli_link *link) {
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

static bool fail(cli_link *link, const char *why) {
    snprintf(link->why, sizeof link->why, "process %ld: %s", link->process.pid, why);
    cli_link_close(link);
    return false;
}

int cli_wake_fd = -1;

static bool wait_for(cli_link *link, short events) {
    struct pollfd p[2] = {{.fd = link->fd, .events = events},
                          {.fd = cli_wake_fd, .events = POLLIN}};
    char why[64];
    int n;
    while ((n = poll(p, 2, link->patience)) < 0 && errno == EINTR)
        ;
    if (n > 0 && p[1].revents)
        return fail(link, "the look was interrupted");
    snprintf(why, sizeof why, "no answer within %d s", link->patience / 1000);
    return n > 0 || fail(link, why);
}

static bool get(cli_link *link, char *out, size_t size) {
    for (size_t n = 0; n < size;) {
        ssize_t got = recv(link->fd, out + n, size - n, 0);
        if (got > 0)
            n += (size_t)got;
        else if (got == 0)
            return fail(link, "it has ended, or ended the connection");
        else if (errno == EAGAIN ? !wait_for(link, POLLIN) : errno != EINTR)
            return *link->why ? false
                              : fail(link, errno == ECONNRESET ? "it has ended" : strerror(errno));
    }
    return true;
}

static bool get_line(cli_link *link, char *out, size_t size) {
    size_t n = 0;
    while (n + 1 < size) {
        if (!get(link, out + n, 1))
            return false;
        if (out[n] == '\n') {
            out[n] = 0;
            return true;
        }
        n++;
    }
    return fail(link, "it does not answer as klaw does");
}

static bool put(cli_link *link, const char *text) {
    ssize_t n;
    while ((n = send(link->fd, text, strlen(text), MSG_NOSIGNAL)) < 0) {
        if (errno == EAGAIN ? !wait_for(link, POLLOUT) : errno != EINTR)
            return *link->why ? false
                              : fail(link, errno == EPIPE ? "it has ended" : strerror(errno));
    }
    return (size_t)n == strlen(text) || fail(link, "the request did not go through");
}

char *cli_ask(cli_link *link, const char *what, size_t *size) {
    char line[200], *end;
    if (link->fd < 0 && !cli_link_open(link, &link->process))
        return NULL;
    *link->why = 0;
    snprintf(line, sizeof line, "klaw/1 %s\n", what);
    if (!put(link, line) || !get_line(link, line, sizeof line))
        return NULL;
    if (strncmp(line, "klaw/1 ok ", 10) != 0) {
        char clean[160];
        cli_clean(clean, sizeof clean, line, 150);
        fail(link, clean);
        return NULL;
    }
    errno = 0;
    unsigned long long n = strtoull(line + 10, &end, 10);
    if (*end || errno || n > ANSWER_MAX) {
        fail(link, "it does not answer as klaw does");
        return NULL;
    }
    char *text = malloc((size_t)n + 1);
    if (!text) {
        fail(link, "no memory");
        return NULL;
    }
    if (!get(link, text, (size_t)n)) {
        free(text);
        return NULL;
    }
    text[n] = 0;
    *size = (size_t)n;
    return text;
}

/* ---- choosing ---- */

static void name_of(long pid, char *out, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/comm", pid);
    FILE *f = fopen(path, "re");
    if (!f || !fgets(out, (int)size, f))
        *out = 0;
    if (f)
        fclose(f);
    out[strcspn(out, "\n")] = 0;
}

static void tell_none(const cli_verb *verb, const char *text, size_t n) {
    if (n == 0)
        fprintf(stderr,
                "klaw %s: no process of this user is open to inspection; start one with "
                "KLAW_INSPECT=1\n",
                verb->name);
    else
        fprintf(stderr, "klaw %s: no process '%s' is open to inspection; klaw ps shows them\n",
                verb->name, text);
}

bool cli_choose(const cli_verb *verb, const char *text, cli_process *out) {
    cli_process *list;
    size_t n, found = 0;
    if (!cli_processes(&list, &n)) {
        fprintf(stderr, "klaw %s: no memory\n", verb->name);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char number[32], name[64];
        snprintf(number, sizeof number, "%ld", list[i].pid);
        name_of(list[i].pid, name, sizeof name);
        if (text && strcmp(text, number) != 0 && strcmp(text, name) != 0)
            continue;
        found++;
        *out = list[i];
    }
    if (found == 0)
        tell_none(verb, text, n);
    else if (found > 1)
        fprintf(stderr,
                "klaw %s: %zu processes are open to inspection; say which, klaw ps shows them\n",
                verb->name, found);
    free(list);
    return found == 1;
}
