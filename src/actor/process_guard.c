/* SPDX-License-Identifier: Apache-2.0 */
/* process_guard.c - who kills our process groups when this process has been killed.
 *
 * A shell script at the other end of a socket keeps the list of groups it is told ("+ 123",
 * "- 123"). When the socket ends, which the kernel sees to however we die, it kills what is left on the
 * list. The guard is started with the first process and is nobody's child: its parent shell exits at
 * once and is reaped here, so that a program that waits for any child does not meet it. It is in a group of
 * its own and ignores what a terminal sends.
 *
 * Invariants:
 *   G1  a group is on the list from shortly after its start until shortly before its leader is
 *       reaped: its number cannot be anybody else's meanwhile.
 *   G2  the socket is close-on-exec, and a fork of ours closes it: no child keeps the guard waiting, none
 *       tells it anything.
 *
 * Rejected: PR_SET_PDEATHSIG (posix_spawn cannot set it, it dies with the thread that spawned, and it
 * reaches one process, not a group); a trampoline per process (a shell's start each time); a helper
 * program beside the library (one more thing to find); a guard by fork (a copy of our pages). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/process.h"
#include "base/alloc.h"
#include "klaw/log.h"
#include "plat/os.h"

#if !defined(KLAWI_DET)

/* The list is one variable a group, and a string of all numbers, which is made anew from time to
 * time: every message takes constant time on average. */
static const char script[] = "trap '' HUP INT QUIT TERM PIPE USR1 USR2\n"
                             "exec 3<&0 </dev/null\n"
                             "{\n"
                             "all= n=0\n"
                             "live() {\n"
                             "  kept=\n"
                             "  for p in $all; do\n"
                             "    eval \"k=\\${g$p-}\"\n"
                             "    if [ -n \"$k\" ]; then kept=\"$kept $p\"; unset \"g$p\"; fi\n"
                             "  done\n"
                             "  all=$kept n=0\n"
                             "}\n"
                             "while read -r op p; do\n"
                             "  case $op in\n"
                             "  +) eval \"g$p=1\"; all=\"$all $p\"; n=$((n + 1));;\n"
                             "  -) unset \"g$p\";;\n"
                             "  esac\n"
                             "  if [ $n -gt 1000 ]; then\n"
                             "    live; for p in $all; do eval \"g$p=1\"; done\n"
                             "  fi\n"
                             "done <&3\n"
                             "live\n"
                             "for p in $all; do kill -s KILL -- \"-$p\"; done\n"
                             "} &\n";

static struct {
    klawi_lock lock;
    int fd;         /* (L) ours; -1: not started */
    uint32_t users; /* (L) groups on its list, and tellers inside tell */
    bool warned;    /* (L) */
} guard = {.lock = KLAWI_LOCK_INIT(KLAWI_RANK_LEAF), .fd = -1};

static int guard_place(posix_spawn_file_actions_t *fa, void *sock) {
    int err;
    if ((err = posix_spawn_file_actions_adddup2(fa, *(int *)sock, 0)) == 0 &&
        (err = posix_spawn_file_actions_addopen(fa, 1, "/dev/null", 1, 0)) == 0 &&
        (err = posix_spawn_file_actions_adddup2(fa, 1, 2)) == 0 &&
        (err = posix_spawn_file_actions_addclosefrom_np(fa, 3)) == 0)
        err = posix_spawn_file_actions_addchdir_np(fa, "/");
    return err;
}

/* Starts one on the other end of `sock`. An error number. */
static int start(int sock) {
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, "klaw-guard", NULL};
    char *env[] = {"PATH=/usr/bin:/bin", NULL};
    pid_t pid;
    int err = klawi_process_exec(guard_place, &sock, argv, env, &pid);
    while (err == 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    return err;
}

/* A guard of ours, or another's that was faster: the socket with one more user; -1: none can be
 * had. */
static int acquire(bool make) {
    int pair[2], err = 0;
    klawi_lock_acquire(&guard.lock);
    int fd = guard.fd;
    guard.users += fd >= 0;
    klawi_lock_release(&guard.lock);
    if (fd >= 0 || !make)
        return fd;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return -1;
    /* Never 0, 1 or 2: the guard's own are made of it. */
    while (pair[1] >= 0 && pair[1] < 3) {
        int up = fcntl(pair[1], F_DUPFD_CLOEXEC, 3);
        close(pair[1]);
        pair[1] = up;
    }
    struct timeval limit = {.tv_sec = 2};
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    err = pair[1] < 0 ? EMFILE : start(pair[1]);
    if (pair[1] >= 0)
        close(pair[1]);
    klawi_lock_acquire(&guard.lock);
    bool first = guard.fd < 0 && err == 0, warn = err != 0 && !guard.warned;
    guard.warned |= warn;
    if (first)
        guard.fd = pair[0];
    fd = guard.fd;
    guard.users += fd >= 0;
    klawi_lock_release(&guard.lock);
    if (!first)
        close(pair[0]); /* the guard that was too much ends */
    if (warn)
        KLAW_LOG_WARN("processes are not guarded: /bin/sh cannot be started",
                      klaw_log_i64("sys", err));
    return fd;
}

static void release(uint32_t n) {
    klawi_lock_acquire(&guard.lock);
    guard.users -= n;
    klawi_lock_release(&guard.lock);
}

static bool tell(int fd, char op, int32_t group) {
    char line[24];
    int n = snprintf(line, sizeof line, "%c %d\n", op, group);
    ssize_t sent;
    do
        sent = send(fd, line, (size_t)n, MSG_NOSIGNAL);
    while (sent < 0 && klawi_errno() == EINTR);
    return sent == n;
}

void klawi_guard_ready(void) {
    if (acquire(true) >= 0)
        release(1);
}

bool klawi_guard_add(int32_t group) {
    int fd = acquire(true);
    if (fd < 0)
        return false;
    if (tell(fd, '+', group))
        return true;
    release(1);
    return false;
}

void klawi_guard_remove(int32_t group) {
    int fd = acquire(false);
    if (fd < 0)
        return;
    (void)tell(fd, '-', group);
    release(2);
}

/* With nothing on its list the guard may go. */
static void trim(void) {
    klawi_lock_acquire(&guard.lock);
    int fd = guard.users == 0 ? guard.fd : -1;
    if (fd >= 0)
        guard.fd = -1;
    klawi_lock_release(&guard.lock);
    if (fd >= 0)
        close(fd);
}

/* G2. The lock may have been held by a thread that is not here: it is left alone. */
static void in_child(void) {
    if (guard.fd >= 0)
        close(guard.fd);
    guard.fd = -1;
}

__attribute__((constructor)) static void guard_init(void) {
    klawi_trim_register(trim);
    (void)pthread_atfork(NULL, NULL,
                         in_child); /* without memory for it the guard waits for forks */
}
#else
/* There are no processes. */
void klawi_guard_remove(int32_t group) {
    (void)group;
}
#endif
