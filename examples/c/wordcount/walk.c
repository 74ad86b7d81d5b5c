/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c - finds the files: those that were named, those in folders, or the text this machine has.
 *
 * A folder is listed as a whole and its subfolders wait on a list, so that no more than one folder
 * is open at a time however deep the tree is. Links are not followed: no loops, nothing counted
 * twice.
 *
 * Folders are listed in the order of names, so that a second walk over the same files numbers them in
 * the same way. A run that goes on walks from the beginning and gives out only the pieces that were
 * not counted, and nothing at all until it has seen that the files up to there are the same ones. */
#include "wordcount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files a step should find before it comes back. */
#define STEP_FILES 256

/* Where Unix systems keep text, the best first. */
static const char *const default_folders[] = {
    "/usr/share/doc",
    "/usr/share/common-licenses",
    "/usr/share/licenses",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/perl",
    "/usr/share/perl5",
    "/usr/share/vim",
    "/usr/include",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/lib/python3.12",
    "/usr/lib/python3.13",
    "/usr/lib/gcc",
    "/etc",
};

static const char *const packed_endings[] = {
    ".gz",  ".bz2", ".xz",  ".zst",  ".zip", ".tgz",  ".jar", ".whl", ".png", ".jpg", ".jpeg",
    ".gif", ".ico", ".pdf", ".webp", ".ttf", ".woff", ".mo",  ".so",  ".a",   ".o",   ".pyc",
};

static bool is_packed(const char *name) {
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof packed_endings / sizeof *packed_endings; i++) {
        if (strcasecmp(dot, packed_endings[i]) == 0)
            return true;
    }
    return false;
}

bool walk_open(walk *w, const options *opts) {
    size_t defaults = sizeof default_folders / sizeof *default_folders;
    *w = (walk){.opts = opts};
    w->n_roots = opts->n_paths ? (size_t)opts->n_paths : defaults;
    w->roots = calloc(w->n_roots, sizeof *w->roots);
    for (size_t i = 0; w->roots && i < w->n_roots; i++)
        w->roots[i].path = opts->n_paths ? opts->paths[i] : default_folders[i];
    return w->roots != NULL;
}

static char *join(const char *folder, const char *name) {
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t m = name ? strlen(name) : 0;
    char *path = malloc(n + m + 2);
    if (!path)
        return NULL;
    memcpy(path, folder, n);
    if (name) {
        if (path[n - 1] != '/')
            path[n++] = '/';
        memcpy(path + n, name, m);
    }
    path[n + m] = 0;
    return path;
}

/* Room for one more in a growing array of elements of this size. */
static bool make_room(walk *w, void *array, size_t n, size_t *room, size_t size) {
    void **p = array;
    if (n < *room)
        return true;
    size_t more = *room ? *room * 2 : 64;
    void *bigger = realloc(*p, more * size);
    if (!bigger) {
        w->no_memory = true;
        return false;
    }
    *p = bigger;
    *room = more;
    return true;
}

static void add_folder(walk *w, char *path) {
    if (path && make_room(w, &w->folders, w->n_folders, &w->cap_folders, sizeof *w->folders)) {
        w->folders[w->n_folders++] = path;
        w->roots[w->next_root - 1].folders++;
        return;
    }
    w->no_memory = true;
    free(path);
}

static void give_out(walk *w, job j) {
    if (j.path && make_room(w, &w->found, w->n_found, &w->cap_found, sizeof *w->found)) {
        w->found[w->n_found++] = j;
        return;
    }
    w->no_memory = true;
    free(j.path);
}

void walk_resume(walk *w, const spans *counted, mark known) {
    w->counted = counted;
    w->known = known;
}

/* A file that the earlier run had seen: what it did not count of it waits until the walk has come as
 * far as that run. */
static void add_seen(walk *w, job j) {
    uint64_t number = j.mark.files - 1;
    for (uint64_t at = 0; spans_hole(w->counted, number, at, &j.from, &j.to); at = j.to) {
        job piece = j;
        piece.path = strdup(j.path);
        if (!piece.path || !make_room(w, &w->missing, w->n_missing, &w->cap_missing, sizeof j)) {
            w->no_memory = true;
            free(piece.path);
            break;
        }
        w->missing[w->n_missing++] = piece;
        if (j.to == UINT64_MAX)
            break;
    }
    free(j.path);
    if (w->mark.files < w->known.files)
        return;
    w->changed = w->mark.hash != w->known.hash;
    w->done |= w->changed;
    for (size_t i = 0; i < w->n_missing; i++) {
        if (w->changed)
            free(w->missing[i].path);
        else
            give_out(w, w->missing[i]);
    }
    w->n_missing = 0;
}

static void add_file(walk *w, char *path, const struct stat *st) {
    bool stream = !S_ISREG(st->st_mode);
    uint64_t size = stream ? 0 : (uint64_t)st->st_size;
    int64_t time = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    root *r = &w->roots[w->next_root - 1];
    if (!path) {
        w->no_memory = true;
        return;
    }
    r->files++;
    r->bytes += size;
    w->bytes += size;
    mark_add(&w->mark, path, size, stream ? 0 : time);
    job j = {.path = path, .stream = stream, .mark = w->mark, .to = UINT64_MAX};
    if (w->mark.files <= w->known.files)
        add_seen(w, j);
    else
        give_out(w, j);
}

static void skip(walk *w, const char *path, int error) {
    say_skipped(path, strerror(error));
    w->unreadable++;
}

/* One entry of a folder. */
static void look_at(walk *w, const char *folder, int fd, const char *name) {
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        int error = errno;
        char *path = join(folder, name);
        skip(w, path ? path : name, error);
        free(path);
    } else if (S_ISDIR(st.st_mode)) {
        add_folder(w, join(folder, name));
    } else if (S_ISLNK(st.st_mode)) {
        w->links++;
    } else if (!S_ISREG(st.st_mode)) {
        w->special++;
    } else if (!w->opts->all && is_packed(name)) {
        w->packed++;
    } else {
        add_file(w, join(folder, name), &st);
    }
}

static int by_name(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The names in a folder, malloc'd. */
static char **read_names(walk *w, DIR *dir, const char *folder, size_t *n) {
    char **names = NULL;
    size_t room = 0;
    *n = 0;
    for (;;) {
        errno = 0;
        struct dirent *d = readdir(dir);
        if (!d) {
            if (errno)
                skip(w, folder, errno);
            return names;
        }
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        char *name = strdup(d->d_name);
        if (!name || !make_room(w, &names, *n, &room, sizeof *names)) {
            w->no_memory = true;
            free(name);
            return names;
        }
        names[(*n)++] = name;
    }
}

static void list_folder(walk *w, const char *folder) {
    DIR *dir = opendir(folder);
    size_t n;
    if (!dir) {
        skip(w, folder, errno);
        return;
    }
    char **names = read_names(w, dir, folder, &n);
    if (n > 0)
        qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        if (!w->done)
            look_at(w, folder, dirfd(dir), names[i]);
        free(names[i]);
    }
    free(names);
    closedir(dir);
}

/* Begins with the next argument or default folder. False: there is none, or there is enough. */
static bool next_root(walk *w) {
    struct stat st;
    bool default_search = w->opts->n_paths == 0;
    if (w->next_root == w->n_roots || (default_search && w->bytes >= w->opts->min_bytes))
        return false;
    const char *path = w->roots[w->next_root++].path;
    if (strcmp(path, "-") == 0)
        path = "/dev/stdin";
    if (stat(path, &st) != 0) {
        if (!default_search)
            skip(w, path, errno);
    } else if (S_ISDIR(st.st_mode)) {
        add_folder(w, join(path, NULL));
    } else {
        add_file(w, join(path, NULL), &st);
    }
    return true;
}

void walk_step(walk *w) {
    w->n_found = 0;
    while (w->n_found < STEP_FILES && !w->no_memory && !w->done) {
        if (w->n_folders > 0) {
            char *folder = w->folders[--w->n_folders];
            list_folder(w, folder);
            free(folder);
        } else {
            w->done |= !next_root(w);
            w->changed |= w->done && w->mark.files < w->known.files;
        }
    }
}

void walk_close(walk *w) {
    for (size_t i = 0; i < w->n_folders; i++)
        free(w->folders[i]);
    for (size_t i = 0; i < w->n_found; i++)
        free(w->found[i].path);
    for (size_t i = 0; i < w->n_missing; i++)
        free(w->missing[i].path);
    free(w->missing);
    free(w->folders);
    free(w->found);
    free(w->roots);
}
