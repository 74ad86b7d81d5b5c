/* SPDX-License-Identifier: Apache-2.0 */
/* find.c - asks an interpreter where its shared library is. It has to be run for that: an environment
 * (venv, conda, pyenv) is known to the executable in it and to nobody else. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ray/boot.h"

#define PATIENCE_S 20

extern char **environ;

klaw_err klawi_ray_error(klaw_error_info *info, const char *format, ...) {
    va_list list;
    if (!info)
        return KLAW_BACKEND;
    memset(info, 0, sizeof *info);
    va_start(list, format);
    vsnprintf(info->message, sizeof info->message, format, list);
    va_end(list);
    snprintf(info->backend, sizeof info->backend, "ray");
    return KLAW_BACKEND;
}

static int spawn_asking(const char *path, int out, pid_t *pid) {
    static char question[] =
        "import os, sys, sysconfig\n"
        "var = sysconfig.get_config_var\n"
        "name = var('INSTSONAME') or ''\n"
        "full = os.path.join(var('LIBDIR') or '', name)\n"
        "print('%d.%d' % sys.version_info[:2])\n"
        "print(sys.executable)\n"
        "print(full if os.path.exists(full) else name)\n"
        "print(int(bool(var('Py_ENABLE_SHARED')) or os.path.exists(full) and '.so' in name))\n";
    char *argv[] = {(char *)(uintptr_t)path, (char[]){"-S"}, (char[]){"-c"}, question, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t how;
    sigset_t none;
    int e = posix_spawn_file_actions_init(&actions);
    if (e)
        return e;
    if ((e = posix_spawnattr_init(&how)) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return e;
    }
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&how, &none); /* ours has all blocked */
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK);
    e = posix_spawn_file_actions_adddup2(&actions, out, 1);
    if (!e)
        e = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (!e)
        e = posix_spawnp(pid, path, &actions, &how, argv, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&actions);
    return e;
}

/* Reads until its end, at most until the patience is over. The bytes read. */
static size_t read_all(int fd, char *out, size_t size) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t until = now.tv_sec + PATIENCE_S;
    size_t n = 0;
    while (n < size && now.tv_sec < until) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 1000) > 0) {
            ssize_t got = read(fd, out + n, size - n);
            if (got == 0 || (got < 0 && errno != EINTR))
                break;
            n += got > 0 ? (size_t)got : 0;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    }
    return n;
}

/* The next line, into out; nothing when there is none or it is too long. */
static void line(const char **at, char *out, size_t size) {
    const char *from = *at, *end = strchr(from, '\n');
    size_t n = end ? (size_t)(end - from) : 0;
    *at = end ? end + 1 : from;
    n = n < size ? n : 0;
    memcpy(out, from, n);
    out[n] = 0;
}

klaw_err klawi_python_ask(const char *path, klawi_python *out, klaw_error_info *info) {
    char text[4096];
    int ends[2], status = 0;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return klawi_ray_error(info, "no pipe to ask the interpreter by: error %d", errno);
    int e = spawn_asking(path, ends[1], &pid);
    close(ends[1]);
    if (e) {
        close(ends[0]);
        return klawi_ray_error(info,
                               "the Python interpreter %s can't be run: %s; KLAW_PYTHON says"
                               " which one to use",
                               path, strerror(e));
    }
    size_t n = read_all(ends[0], text, sizeof text - 1);
    close(ends[0]);
    text[n] = 0;
    if (!n)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    const char *at = text;
    char shared[8];
    line(&at, out->version, sizeof out->version);
    line(&at, out->executable, sizeof out->executable);
    line(&at, out->library, sizeof out->library);
    line(&at, shared, sizeof shared);
    out->shared = shared[0] == '1';
    if (!out->version[0] || !out->executable[0] || !shared[0])
        return klawi_ray_error(info,
                               "%s does not answer as a Python interpreter does; KLAW_PYTHON"
                               " says which one to use",
                               path);
    return KLAW_OK;
}
