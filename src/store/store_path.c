/* SPDX-License-Identifier: Apache-2.0 */
/* store_path.c - where a store's file is, and that only its owner gets at it.
 *
 * The folder is made with mode 0700 (missing ones above it too); one that is there already has to belong to us or to
 * root, and group and others must not have the right to write: who may write to the folder can replace the file, or
 * put a journal beside it that the next opening plays back. The file gets mode 0600; a file of ours with more
 * rights loses them. Symbolic links of folders are followed once, here; the file itself must not be one. */
#include "store/store_core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define FILE_NAME "klaw.db"

void klawi_store_vsays(klaw_error_info *info, const char *path, int sys, const char *fmt,
                       va_list args) {
    if (!info)
        return;
    /* Of a long path the end is what tells. */
    size_t n = strlen(path), most = 110;
    memset(info, 0, sizeof *info);
    info->sys = sys;
    snprintf(info->backend, sizeof info->backend, "sqlite");
    int at = snprintf(info->message, sizeof info->message, "store %s%s: ", n > most ? "..." : "",
                      n > most ? path + n - most : path);
    vsnprintf(info->message + at, sizeof info->message - (size_t)at, fmt, args);
}

void klawi_store_says(klaw_error_info *info, const char *path, int sys, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    klawi_store_vsays(info, path, sys, fmt, args);
    va_end(args);
}

static klaw_err refused(klaw_error_info *info, const char *path, const char *what) {
    int sys = errno;
    char text[128];
    klawi_store_says(info, path, sys, "%s: %s", what, strerror_r(sys, text, sizeof text));
    return sys == ENOMEM ? KLAW_NOMEM : KLAW_SYSTEM;
}

/* The home folder, into a buffer of PATH_MAX. */
static bool home(char *out) {
    const char *dir = getenv("HOME");
    struct passwd p, *found = NULL;
    char buf[4096];
    if (!dir || dir[0] != '/') {
        if (getpwuid_r(geteuid(), &p, buf, sizeof buf, &found) != 0 || !found ||
            found->pw_dir[0] != '/')
            return false;
        dir = found->pw_dir;
    }
    return snprintf(out, PATH_MAX, "%s", dir) < PATH_MAX;
}

/* Makes every missing folder of the path. */
static klaw_err make_folders(char *path, klaw_error_info *info) {
    struct stat st;
    if (stat(path, &st) == 0)
        return KLAW_OK;
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char was = *p;
        *p = '\0';
        int rc = stat(path, &st) == 0 ? 0 : mkdir(path, 0700);
        if (rc != 0 && errno != EEXIST)
            return refused(info, path, "the folder can't be made");
        if (was == '\0')
            return KLAW_OK;
        *p = was;
    }
}

static klaw_err check_folder(const char *folder, klaw_error_info *info) {
    struct stat st;
    if (stat(folder, &st) != 0)
        return refused(info, folder, "there is no such folder");
    if (!S_ISDIR(st.st_mode)) {
        klawi_store_says(info, folder, ENOTDIR, "this is no folder");
        return KLAW_INVALID;
    }
    if ((st.st_uid == geteuid() || st.st_uid == 0) && !(st.st_mode & 022))
        return KLAW_OK;
    if (st.st_mode & 022)
        klawi_store_says(info, folder, 0,
                         "others may write to this folder (mode %04o), so they could replace the "
                         "store: chmod go-w, or choose another",
                         (unsigned)(st.st_mode & 07777));
    else
        klawi_store_says(info, folder, 0, "this folder belongs to another user");
    return KLAW_INVALID;
}

/* Splits into folder and file name; both buffers of PATH_MAX. */
static klaw_err split(const char *path, char *folder, char *name, klaw_error_info *info) {
    struct stat st;
    char whole[PATH_MAX];
    int n = path ? snprintf(whole, sizeof whole, "%s", path) : 0;
    if (!path) {
        char at[PATH_MAX];
        if (!home(at)) {
            klawi_store_says(info, "~/.klaw/checkpoints", 0, "no home folder is known");
            return KLAW_SYSTEM;
        }
        n = snprintf(whole, sizeof whole, "%s/.klaw/checkpoints/", at);
    }
    if (n <= 0 || (size_t)n >= sizeof whole - sizeof FILE_NAME - 2) {
        klawi_store_says(info, path ? path : "", n <= 0 ? EINVAL : ENAMETOOLONG,
                         n <= 0 ? "the path is empty" : "the path is too long");
        return KLAW_INVALID;
    }
    if (whole[n - 1] != '/' && stat(whole, &st) == 0 && S_ISDIR(st.st_mode))
        whole[n++] = '/', whole[n] = '\0';
    if (whole[n - 1] == '/')
        memcpy(whole + n, FILE_NAME, sizeof FILE_NAME);
    char *last = strrchr(whole, '/');
    snprintf(name, PATH_MAX, "%s", last ? last + 1 : whole);
    if (!last)
        snprintf(folder, PATH_MAX, ".");
    else
        snprintf(folder, PATH_MAX, "%.*s", last == whole ? 1 : (int)(last - whole), whole);
    return KLAW_OK;
}

klaw_err klawi_store_path_find(const char *path, bool make, char **out, klaw_error_info *info) {
    char *parts = klawi_alloc((size_t)3 * PATH_MAX);
    if (!parts)
        return KLAW_NOMEM;
    char *folder = parts, *name = parts + PATH_MAX, *real = name + PATH_MAX;
    klaw_err e = split(path, folder, name, info);
    if (e == KLAW_OK && make)
        e = make_folders(folder, info);
    if (e == KLAW_OK && !realpath(folder, real))
        e = !make && errno == ENOENT ? KLAW_NOT_FOUND : refused(info, folder, "no such folder");
    if (e == KLAW_OK)
        e = check_folder(real, info);
    if (e == KLAW_OK) {
        size_t size = strlen(real) + strlen(name) + 2;
        char *all = klawi_alloc(size);
        if (all)
            snprintf(all, size, "%s/%s", strcmp(real, "/") == 0 ? "" : real, name);
        else
            e = KLAW_NOMEM;
        *out = all;
    }
    klawi_free(parts);
    return e;
}

klaw_err klawi_store_path_secure(const char *file, bool make, klaw_error_info *info) {
    struct stat st;
    if (lstat(file, &st) != 0) {
        if (errno != ENOENT)
            return refused(info, file, "it can't be looked at");
        if (!make)
            return KLAW_NOT_FOUND;
        /* Never open and close a file that may be a store in use: closing drops this process's locks on it. */
        int fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0)
            close(fd);
        else if (errno != EEXIST)
            return refused(info, file, "it can't be made");
        if (lstat(file, &st) != 0)
            return refused(info, file, "it can't be looked at");
    }
    if (!S_ISREG(st.st_mode)) {
        klawi_store_says(info, file, EINVAL, "this is no regular file");
        return KLAW_INVALID;
    }
    if ((st.st_mode & 077) && st.st_uid == geteuid() && chmod(file, 0600) != 0)
        return refused(info, file, "its mode can't be made 0600");
    return KLAW_OK;
}
