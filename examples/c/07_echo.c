/* SPDX-License-Identifier: Apache-2.0 */
/* 07_echo.c - a TCP server and its clients in one program, a fiber per connection.
 *
 * klaw_fd_* park the fiber, not its thread: the code reads like blocking code and scales like an
 * event loop. The server is a scope: cancelling it ends the accepting fiber and all connections. */
#include <klaw/klaw.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "check.h"

#define CLIENTS 20
#define ROUNDS 10

static klaw_err echo(void *arg) {
    int fd = (int)(intptr_t)arg;
    char buffer[4096];
    size_t n = 0;
    klaw_err e;
    /* A connection that says nothing for a second is closed. Zero bytes: the other side has. */
    while (!(e = klaw_fd_read(fd, buffer, sizeof buffer, &n, klaw_after(KLAW_S(1)), NULL)) && n > 0)
        if ((e = klaw_fd_write(fd, buffer, n, NULL, klaw_after(KLAW_S(1)), NULL)))
            break;
    klaw_err closed = klaw_fd_close(fd);
    return e ? e : closed;
}

static klaw_err serve(void *arg) {
    int listening = *(int *)arg, fd;
    klaw_err e;
    while (!(e = klaw_fd_accept(listening, &fd, KLAW_FOREVER, NULL)))
        if ((e = klaw_go(echo, (void *)(intptr_t)fd)))
            break;
    return e; /* CANCELLED: that is how this server ends */
}

static klaw_err client(void *arg) {
    const struct sockaddr_in *address = arg;
    char sent[64], got[64];
    size_t n;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(klaw_fd_connect(fd, (const struct sockaddr *)address, sizeof *address,
                          klaw_after(KLAW_S(5)), NULL) == KLAW_OK);
    for (int i = 0; i < ROUNDS; i++) {
        size_t size =
            (size_t)snprintf(sent, sizeof sent, "fiber %d, round %d", (int)klaw_self_id(), i);
        CHECK(klaw_fd_write(fd, sent, size, NULL, klaw_after(KLAW_S(5)), NULL) == KLAW_OK);
        for (size_t at = 0; at < size; at += n) /* TCP may cut it in pieces */
            CHECK(klaw_fd_read(fd, got + at, size - at, &n, klaw_after(KLAW_S(5)), NULL) ==
                      KLAW_OK &&
                  n > 0);
        CHECK(memcmp(sent, got, size) == 0);
    }
    return klaw_fd_close(fd);
}

static klaw_err first(void *arg) {
    (void)arg;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0); /* any free port */
    CHECK(listen(fd, CLIENTS) == 0 && getsockname(fd, (struct sockaddr *)&address, &size) == 0);

    klaw_scope *server, *clients;
    CHECK(klaw_scope_open(&(klaw_scope_opts){.name = "server"}, &server) == KLAW_OK);
    CHECK(klaw_go(serve, &fd) == KLAW_OK);
    CHECK(klaw_scope_open(&(klaw_scope_opts){.name = "clients"}, &clients) == KLAW_OK);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(klaw_go(client, &address) == KLAW_OK);
    CHECK(klaw_scope_close(clients) == KLAW_OK); /* all have their answers */
    klaw_scope_cancel(server, "done");
    CHECK(klaw_scope_close(server) == KLAW_CANCELLED);
    printf("%d clients, %d echoes each\n", CLIENTS, ROUNDS);
    return klaw_fd_close(fd);
}

int main(void) {
    CHECK(klaw_run(first, NULL, NULL) == KLAW_OK);
    return 0;
}
