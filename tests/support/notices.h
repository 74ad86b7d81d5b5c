/* SPDX-License-Identifier: Apache-2.0 */
/* notices.h - whether a model test notices a bug that is switched on. */
#ifndef KLAW_TESTS_NOTICES_H
#define KLAW_TESTS_NOTICES_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"

/* Runs agrees(seed, 0), (seed, 1), … up to n histories in a process of its own, after *mutant was set to
 * `which`. A bug may also be noticed by an assertion of what is tested. */
static inline bool notices(int *mutant, int which, bool (*agrees)(uint64_t seed, uint64_t i),
                           uint64_t seed, uint64_t n) {
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        uint64_t i = 0;
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        *mutant = which;
        while (i < n && agrees(seed, i))
            i++;
        _exit(i == n ? 1 : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
           (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

#endif
