/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the inspect socket. Whatever comes, each answer is well formed, a peer that sends rubbish is told so or
 * dropped, and the next peer is served. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "klaw/klaw.h"

static struct sockaddr_un address;
static char folder[64];

static void remove_all(void) {
    klaw_inspect_close();
    char below[96];
    snprintf(below, sizeof below, "%s/klaw", folder);
    rmdir(below);
    rmdir(folder);
}

static void begin(void) {
    strncpy(folder, "/tmp/klaw-fuzz-XXXXXX", sizeof folder - 1);
    HOLDS(mkdtemp(folder) && setenv("XDG_RUNTIME_DIR", folder, 1) == 0);
    HOLDS(klaw_inspect_open(NULL) == KLAW_OK);
    atexit(remove_all);
    address.sun_family = AF_UNIX;
    HOLDS(klaw_inspect_path(address.sun_path, sizeof address.sun_path) == KLAW_OK);
}

static int dial(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* Reads exactly size bytes, or fewer at the end. */
static size_t read_all(int fd, char *to, size_t size) {
    size_t got = 0;
    while (got < size) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready;
        while ((ready = poll(&p, 1, 20000)) < 0 && errno == EINTR) {} /* libFuzzer's alarm */
        HOLDS(ready == 1);                                            /* it answers or hangs up */
        ssize_t n = read(fd, to + got, size - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}

/* One answer; false: the peer hung up before it. */
static bool read_answer(int fd, bool *ok) {
    char line[512];
    size_t n = 0, bytes = 0;
    while (n < sizeof line - 1 && read_all(fd, line + n, 1) == 1 && line[n++] != '\n') {}
    line[n] = '\0';
    if (n == 0)
        return false;
    HOLDS(line[n - 1] == '\n');
    *ok = sscanf(line, "klaw/1 ok %zu\n", &bytes) == 1;
    if (!*ok) {
        HOLDS(strncmp(line, "klaw/1 error ", 13) == 0);
        return true;
    }
    HOLDS(bytes >= 2 && bytes < (size_t)1 << 24);
    char *json = malloc(bytes);
    HOLDS(json && read_all(fd, json, bytes) == bytes && json[0] == '{' && json[bytes - 1] == '\n');
    free(json);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bool ok = false;
    if (!address.sun_path[0])
        begin();
    int fd = dial();
    if (size > 4096)
        size = 4096;
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break; /* it hung up: that is its right */
        sent += (size_t)n;
    }
    shutdown(fd, SHUT_WR);
    while (read_answer(fd, &ok)) {}
    close(fd);
    fd = dial();
    static const char ask[] = "klaw/1 stats\n";
    HOLDS(send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == sizeof ask - 1);
    HOLDS(read_answer(fd, &ok) && ok);
    close(fd);
    return 0;
}
