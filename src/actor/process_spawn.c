/* SPDX-License-Identifier: Apache-2.0 */
/* process_spawn.c - posix_spawn with everything a child of ours gets: a group of its own, clean signals,
 * its descriptors and nothing else, an environment, a directory.
 *
 * Sources of the child's descriptors are moved above 2 first, so that putting one in its place
 * never overwrites another that is still to be placed. All of ours are close-on-exec, and what
 * others left open without that mark is closed in the child. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/process.h"
#include "base/alloc.h"

#if !defined(KLAWI_DET)

/* What is open while a process is being started. */
struct plan {
    const klaw_process_opts *o;
    int source[3]; /* what the child gets; ours, to be closed; -1: nothing */
    int ours[3];   /* our ends of pipes; -1 */
    char **env;    /* NULL: inherited as it is */
};

/* --- descriptors --- */
static int above_two(int fd) {
    if (fd < 0 || fd > 2)
        return fd;
    int up = fcntl(fd, F_DUPFD_CLOEXEC, 3), err = errno;
    close(fd);
    errno = err;
    return up;
}

static int source_open(struct plan *pl, int which, const klaw_stdio *io) {
    int pair[2];
    if (io->kind == KLAW_STDIO_FD) {
        pl->source[which] = fcntl(io->fd, F_DUPFD_CLOEXEC, 3);
        return pl->source[which] < 0 ? errno : 0;
    }
    if (io->kind != KLAW_STDIO_PIPE)
        return 0;
    if (pipe2(pair, O_CLOEXEC) != 0)
        return errno;
    int theirs = which == 0 ? 0 : 1, err = 0;
    pl->source[which] = above_two(pair[theirs]);
    err = pl->source[which] < 0 ? errno : 0;
    pl->ours[which] = above_two(pair[1 - theirs]);
    if (!err && pl->ours[which] < 0)
        err = errno;
    if (!err) /* klaw_fd_read and _write would do it; then the other end must not be changed, too */
        (void)fcntl(pl->ours[which], F_SETFL, O_NONBLOCK);
    return err;
}

static void close_all(int fds[3]) {
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

/* --- the environment --- */
static size_t name_size(const char *entry) {
    const char *eq = strchr(entry, '=');
    return eq ? (size_t)(eq - entry) : strlen(entry);
}

static size_t count(char *const *list) {
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

/* Whether a later entry of `env` (from `from` on) is about the same name. */
static bool replaced(const char *entry, const char *const *env, size_t from) {
    size_t n = name_size(entry);
    for (size_t i = from; env && env[i]; i++)
        if (name_size(env[i]) == n && memcmp(env[i], entry, n) == 0)
            return true;
    return false;
}

/* The array is ours, the strings are not. */
static klaw_err env_make(struct plan *pl) {
    const klaw_process_opts *o = pl->o;
    if (!o->env && !o->env_only)
        return KLAW_OK;
    char **base = o->env_only ? NULL : environ, **out;
    size_t n = 0;
    for (size_t i = 0; o->env && o->env[i]; i++)
        if (name_size(o->env[i]) == 0)
            return KLAW_INVALID;
    out = klawi_calloc(count(base) + count((char *const *)(uintptr_t)o->env) + 1, sizeof *out);
    if (!out)
        return KLAW_NOMEM;
    for (size_t i = 0; base && base[i]; i++)
        if (!replaced(base[i], o->env, 0))
            out[n++] = base[i];
    for (size_t i = 0; o->env && o->env[i]; i++)
        if (strchr(o->env[i], '=') && !replaced(o->env[i], o->env, i + 1))
            out[n++] = (char *)(uintptr_t)o->env[i];
    pl->env = out;
    return KLAW_OK;
}

/* --- the start itself --- */
static int place(posix_spawn_file_actions_t *fa, void *plan) {
    const struct plan *pl = plan;
    const klaw_stdio io[3] = {pl->o->in, pl->o->out, pl->o->err};
    int err = 0;
    for (int i = 0; i < 3 && !err; i++) {
        if (io[i].kind == KLAW_STDIO_NULL)
            err = posix_spawn_file_actions_addopen(fa, i, "/dev/null", O_RDWR, 0);
        else if (io[i].kind == KLAW_STDIO_OUT)
            err = posix_spawn_file_actions_adddup2(fa, 1, 2);
        else if (pl->source[i] >= 0)
            err = posix_spawn_file_actions_adddup2(fa, pl->source[i], i);
    }
    if (!err)
        err = posix_spawn_file_actions_addclosefrom_np(fa, 3);
    if (!err && pl->o->cwd)
        err = posix_spawn_file_actions_addchdir_np(fa, pl->o->cwd);
    return err;
}

int klawi_process_exec(klawi_process_place place_fds, void *arg, char *const *argv,
                       char *const *env, pid_t *pid) {
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    int err = posix_spawn_file_actions_init(&fa);
    if (err)
        return err;
    if ((err = posix_spawnattr_init(&at)) != 0) {
        posix_spawn_file_actions_destroy(&fa);
        return err;
    }
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setpgroup(&at, 0);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                      POSIX_SPAWN_SETSIGDEF);
    if ((err = place_fds(&fa, arg)) == 0)
        err = posix_spawnp(pid, argv[0], &fa, &at, argv, env ? env : environ);
    posix_spawnattr_destroy(&at);
    posix_spawn_file_actions_destroy(&fa);
    return err;
}

/* A process that runs but cannot be had hold of goes again. */
static void take_back(pid_t pid) {
    (void)kill(-pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}

/* Or -error. */
static int open_pidfd(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd >= 0 ? fd : -errno;
}

klaw_err klawi_process_start(klaw_process *p, const klaw_process_opts *o, klaw_error_info *info) {
    struct plan pl = {.o = o, .source = {-1, -1, -1}, .ours = {-1, -1, -1}};
    const klaw_stdio io[3] = {o->in, o->out, o->err};
    const char *what = "descriptors of ";
    pid_t pid = 0;
    int err = 0;
    klaw_err e = env_make(&pl);
    if (e)
        return e;
    for (int i = 0; i < 3 && !err; i++)
        err = source_open(&pl, i, &io[i]);
    if (!err) {
        what = "cannot start ";
        if (!o->outlives)
            klawi_guard_ready();
        err = klawi_process_exec(place, &pl, (char *const *)(uintptr_t)o->argv, pl.env, &pid);
    }
    if (!err) {
        p->guarded =
            !o->outlives && klawi_guard_add(pid); /* at once: until then nobody watches it */
        what = "cannot watch ";
        p->pidfd = klawi_fail_point() ? -EMFILE : open_pidfd(pid);
        err = p->pidfd < 0 ? -p->pidfd : 0;
        if (err && p->guarded)
            klawi_guard_remove(pid);
        if (err)
            take_back(pid);
    }
    close_all(pl.source);
    klawi_free(pl.env);
    if (err) {
        close_all(pl.ours);
        return klawi_process_error(info, what, o->argv[0], err);
    }
    p->pid = pid;
    memcpy(p->fds, pl.ours, sizeof p->fds);
    return KLAW_OK;
}
#endif
