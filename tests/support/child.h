/* SPDX-License-Identifier: Apache-2.0 */
/* child.h - what a child process does: its end and what it wrote to stderr. The parent must not
 * have used klaw before it forks one that uses klaw itself, for in the child of a process that has,
 * every call answers STOPPED. */
#ifndef KLAW_TESTS_SUPPORT_CHILD_H
#define KLAW_TESTS_SUPPORT_CHILD_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"

/* Whether it runs. Orphans may stay zombies for as long as their new parent likes. */
static inline bool process_runs(int64_t pid) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool known = read(fd, text, sizeof text - 1) > 0;
    close(fd);
    const char *state = strrchr(text, ')');
    return known && state && state[1] == ' ' && state[2] != 'Z' && state[2] != 'X';
}

typedef struct child_end {
    int status;
    char text[8192]; /* of stderr, cut to fit */
} child_end;

/* Runs fn() in a child, which exits with what it returns, and waits for it; after two minutes it is
 * killed. */
static inline child_end child_of(int (*fn)(void)) {
    child_end c = {0};
    int p[2];
    size_t at = 0;
    SAME(pipe(p), 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(120);
        dup2(p[1], STDERR_FILENO);
        close(p[0]);
        close(p[1]);
        _exit(fn());
    }
    close(p[1]);
    for (ssize_t n; (n = read(p[0], c.text + at, sizeof c.text - 1 - at)) > 0;)
        at += (size_t)n;
    close(p[0]);
    SAME(waitpid(pid, &c.status, 0), pid);
    return c;
}

/* Valgrind has its own word on faults, leaks and exit codes of children. */
static inline bool child_on_valgrind(void) {
    const char *slice = getenv("KLAW_TEST_SLICE");
    return slice && strcmp(slice, "valgrind") == 0;
}

/* It ended with 0. */
static inline void child_ok(int (*fn)(void)) {
    child_end c = child_of(fn);
    if (!WIFEXITED(c.status) || WEXITSTATUS(c.status) != 0) {
        fprintf(stderr, "the child's status is %#x; it wrote:\n%s\n", c.status, c.text);
        abort();
    }
}

#endif
