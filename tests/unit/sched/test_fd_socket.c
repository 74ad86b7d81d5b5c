/* SPDX-License-Identifier: Apache-2.0 */
/* test_fd_socket.c - accept and connect, broken connections, many sockets at once. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/runs.h"

/* A listening socket on the loopback and its address. */
static int listens(struct sockaddr_in *at) {
    socklen_t size = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(fd >= 0);
    SAME(bind(fd, (struct sockaddr *)at, sizeof *at), 0);
    SAME(listen(fd, 1024), 0);
    SAME(getsockname(fd, (struct sockaddr *)at, &size), 0);
    return fd;
}

static klaw_err connects(const struct sockaddr_in *to, int *out, klaw_error_info *info) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    klaw_err e =
        klaw_fd_connect(fd, (const struct sockaddr *)to, sizeof *to, KLAW_WITHIN(SOON_NS), info);
    if (e == KLAW_OK)
        *out = fd;
    else
        OK(klaw_fd_close(fd));
    return e;
}

/* --- one connection --- */
static klaw_err echoes(void *arg) {
    int fd = (int)(intptr_t)arg;
    char buf[512];
    size_t n;
    do {
        OK(klaw_fd_read(fd, buf, sizeof buf, &n, KLAW_WITHIN(SOON_NS), NULL));
        OK(klaw_fd_write(fd, buf, n, NULL, KLAW_WITHIN(SOON_NS), NULL));
    } while (n > 0);
    return klaw_fd_close(fd);
}

static klaw_err serves(void *arg) {
    int fd = *(int *)arg, one;
    klaw_err e;
    while ((e = klaw_fd_accept(fd, &one, KLAW_FOREVER, NULL)) == KLAW_OK) {
        CHECK(fcntl(one, F_GETFL) & O_NONBLOCK);
        CHECK(fcntl(one, F_GETFD) & FD_CLOEXEC);
        OK(klaw_go(echoes, (void *)(intptr_t)one));
    }
    return e;
}

typedef struct client {
    struct sockaddr_in to;
    int rounds;
} client;

static klaw_err talks(void *arg) {
    client *c = arg;
    char buf[64];
    int fd = -1;
    size_t n;
    OK(connects(&c->to, &fd, NULL));
    for (int i = 0; i < c->rounds; i++) {
        size_t at = 0, len = (size_t)snprintf(buf, sizeof buf, "message %d of %d", i, fd);
        char back[64];
        OK(klaw_fd_write(fd, buf, len, &n, KLAW_WITHIN(SOON_NS), NULL));
        for (; at < len; at += n) {
            OK(klaw_fd_read(fd, back + at, sizeof back - at, &n, KLAW_WITHIN(SOON_NS), NULL));
            CHECK(n > 0);
        }
        CHECK(memcmp(buf, back, len) == 0);
    }
    return klaw_fd_close(fd);
}

RUNS(accept_and_connect, 2) {
    client c = {.rounds = 20};
    int fd = listens(&c.to), got = -1;
    thread_job t;
    klaw_scope *s = SCOPE(0);
    GIVES(klaw_fd_accept(fd, &got, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    GIVES(klaw_fd_accept(fd, &got, KLAW_WITHIN(KLAW_MS(1)), NULL), KLAW_TIMEOUT);
    SAME(got, -1);
    klaw_fiber *server = fiber(serves, &fd);
    OK(result_of(fiber(talks, &c)));
    thread_start(&t, talks, &c); /* a thread as the client */
    OK(thread_end(&t));
    OK(klaw_fd_close(fd));
    klaw_err e = result_of(server);
    CHECK(e == KLAW_CLOSED || e == KLAW_INVALID);
    GIVES(klaw_scope_close(s), e);
}

static klaw_err many_talk(void *arg) {
    client c = {.rounds = 5};
    int fd = listens(&c.to);
    klaw_fiber *server = fiber(serves, &fd);
    klaw_scope *s = SCOPE(0);
    for (int i = 0; i < *(int *)arg; i++)
        OK(klaw_go(talks, &c));
    OK(klaw_scope_close(s));
    klaw_fiber_cancel(server);
    GIVES(result_of(server), KLAW_CANCELLED);
    OK(klaw_fd_close(fd));
    return KLAW_OK;
}

PLAIN(five_hundred_connections_at_once) {
    for (uint32_t w = 1; w <= 2; w++) {
        int n = SANITIZED ? 100 : 500;
        klaw_run_opts o = {.workers = w};
        OK(klaw_run(many_talk, &n, &o));
    }
}

/* --- what goes wrong --- */
RUNS(a_refused_connection_tells_the_systems_number, 2) {
    struct sockaddr_in nobody;
    klaw_error_info info = {.sys = 0};
    int fd = listens(&nobody);
    OK(klaw_fd_close(fd));
    GIVES(connects(&nobody, &fd, &info), KLAW_SYSTEM);
    SAME(info.sys, ECONNREFUSED);
    CHECK(strstr(info.message, "connect") != NULL);
    GIVES(connects(&nobody, &fd, NULL), KLAW_SYSTEM);
}

RUNS(a_connection_that_does_not_come_times_out, 2) {
    struct sockaddr_in at;
    int fds[40], n = 0, fd = listens(&at);
    SAME(listen(fd, 0), 0); /* its queue is full soon, and nobody accepts */
    klaw_err e = KLAW_OK;
    for (; n < 40 && e == KLAW_OK; n++) {
        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        e = klaw_fd_connect(fds[n], (struct sockaddr *)&at, sizeof at, KLAW_WITHIN(KLAW_MS(20)),
                            NULL);
    }
    GIVES(e, KLAW_TIMEOUT);
    while (n > 0)
        OK(klaw_fd_close(fds[--n]));
    OK(klaw_fd_close(fd));
}

static _Atomic int pipes;

static void on_pipe(int sig) {
    (void)sig;
    atomic_fetch_add(&pipes, 1);
}

RUNS(a_broken_connection_is_an_error_and_no_signal, 2) {
    int s[2];
    klaw_error_info info = {.sys = 0};
    char c;
    size_t n;
    signal(SIGPIPE, on_pipe);
    SAME(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    OK(klaw_fd_close(s[1]));
    GIVES(klaw_fd_write(s[0], "x", 1, &n, KLAW_FOREVER, &info), KLAW_SYSTEM);
    SAME(info.sys, EPIPE);
    SAME(n, 0);
    OK(klaw_fd_read(s[0], &c, 1, &n, KLAW_FOREVER, NULL)); /* the end */
    SAME(n, 0);
    OK(klaw_fd_close(s[0]));
    signal(SIGPIPE, SIG_DFL);
    SAME(pipes, 0);
}

typedef struct reader {
    int fd;
    size_t got;
} reader;

static klaw_err reads(void *arg) {
    reader *r = arg;
    char c;
    return klaw_fd_read(r->fd, &c, 1, &r->got, KLAW_FOREVER, NULL);
}

RUNS(the_end_of_a_connection_wakes_its_reader, 2) {
    int s[2];
    for (int i = 0; i < 50; i++) {
        SAME(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        reader r = {s[0], 7};
        klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "r"}, reads, &r);
        UNTIL(waiting("r", "fd") == 1);
        if (i % 2)
            SAME(shutdown(s[1], SHUT_WR), 0);
        else
            OK(klaw_fd_close(s[1]));
        OK(result_of(f));
        SAME(r.got, 0);
        OK(klaw_fd_close(s[0]));
        if (i % 2)
            OK(klaw_fd_close(s[1]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(accept_and_connect),
        TEST(five_hundred_connections_at_once),
        TEST(a_refused_connection_tells_the_systems_number),
        TEST(a_connection_that_does_not_come_times_out),
        TEST(a_broken_connection_is_an_error_and_no_signal),
        TEST(the_end_of_a_connection_wakes_its_reader),
    };
    return cmocka_run_group_tests_name("fd_socket", tests, NULL, NULL);
}
