/* SPDX-License-Identifier: Apache-2.0 */
/* process.h - processes, as their files share them. */
#ifndef KLAWI_ACTOR_PROCESS_H
#define KLAWI_ACTOR_PROCESS_H

#include <spawn.h>

#include "base/link.h"
#include "base/lock.h"
#include "klaw/process.h"

enum klawi_process_life {
    KLAWI_PROCESS_RUNS,    /* or a zombie: the pid is its own */
    KLAWI_PROCESS_REAPING, /* one host is at it */
    KLAWI_PROCESS_ENDED    /* reaped */
};

struct klaw_process {
    klawi_lock lock;            /* system calls that cannot wait are made under it */
    _Atomic uint32_t refs;      /* (a) */
    int32_t pid;                /* (c) */
    int pidfd;                  /* (c) */
    bool leave_strays;          /* (c) */
    bool guarded;               /* (c) */
    uint8_t life;               /* (L) enum klawi_process_life */
    klaw_process_status status; /* (L) once ENDED; then (c) */
    int fds[3];                 /* (L) our ends of the pipes; -1: none */
    klawi_link orphan;          /* (orphans' L) unreferenced, killed, not reaped yet */
};

/* process_spawn.c: starts it and fills pid, pidfd, fds. On the calling thread, may block. */
klaw_err klawi_process_start(klaw_process *p, const klaw_process_opts *o, klaw_error_info *info);

/* What the child's descriptors are. An error number. */
typedef int (*klawi_process_place)(posix_spawn_file_actions_t *fa, void *arg);
/* Starts argv in a process group of its own, no signal blocked or ignored; env NULL: ours. An error
 * number. */
int klawi_process_exec(klawi_process_place place, void *arg, char *const *argv, char *const *env,
                       pid_t *pid);

/* process_guard.c: the guard kills a group it has been told of when this process has died. Starting it
 * takes some milliseconds, in which a process that runs already would be unguarded: so _ready comes
 * before the start, _add after it. False: there is none (logged once). */
void klawi_guard_ready(void);
bool klawi_guard_add(int32_t group);
void klawi_guard_remove(int32_t group);

/* process.c: what a failed system call is as a result; fills info. */
klaw_err klawi_process_error(klaw_error_info *info, const char *what, const char *name, int err);
/* Closes a descriptor that klaw_fd_wait may have seen. */
void klawi_process_close(int fd);

#endif
