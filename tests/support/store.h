/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - short words for tests of the checkpoint store: folders of their own, values that say
 * what they are. */
#ifndef KLAW_TESTS_SUPPORT_STORE_H
#define KLAW_TESTS_SUPPORT_STORE_H

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/check.h"

/* A fresh folder, mode 0700; removed by folder_free with the files in it. */
typedef struct folder {
    char path[256];
    char file[300]; /* <path>/klaw.db */
} folder;

static inline folder folder_make(void) {
    folder d;
    const char *tmp = getenv("TMPDIR");
    if (!tmp || !*tmp) /* there a sync costs nothing */
        tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(d.path, sizeof d.path, "%s/klaw-test-XXXXXX", tmp);
    CHECK(mkdtemp(d.path) != NULL);
    snprintf(d.file, sizeof d.file, "%s/klaw.db", d.path);
    return d;
}

static inline void folder_free_at(const char *path) {
    DIR *dir = opendir(path);
    char name[PATH_MAX + 256];
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%.4095s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
            folder_free_at(name);
        else
            unlink(name);
    }
    closedir(dir);
    rmdir(path);
}
static inline void folder_free(folder *d) {
    folder_free_at(d->path);
}

static inline klaw_store *store_with(const char *path, klaw_store_opts o) {
    klaw_store *s = NULL;
    klaw_error_info info = {.sys = 0};
    klaw_err e = klaw_store_open(path, &o, &s, &info);
    if (e)
        check_failed(__FILE__, __LINE__, "klaw_store_open", info.message);
    CHECK(s);
    return s;
}
static inline klaw_store *store_at(const char *path) {
    return store_with(path, (klaw_store_opts){.keep = 0});
}

/* A value of `size` bytes that follows from (key, n) alone. */
static inline void value_fill(unsigned char *p, size_t size, const char *key, uint64_t n) {
    uint64_t z = n * 0x9e3779b97f4a7c15ull + 1;
    for (; *key; key++)
        z = (z ^ (unsigned char)*key) * 0x100000001b3ull;
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0)
            z = (z ^ z >> 31) * 0xbf58476d1ce4e5b9ull + i;
        p[i] = (unsigned char)(z >> (8 * (i % 8)));
    }
}
static inline bool value_is(klaw_blob *b, size_t size, const char *key, uint64_t n) {
    unsigned char *want = malloc(size + 1);
    CHECK(want);
    value_fill(want, size, key, n);
    bool same = klaw_blob_size(b) == size && memcmp(klaw_blob_data(b), want, size) == 0;
    free(want);
    return same;
}

static inline uint64_t save_value(klaw_store *s, const char *key, size_t size, uint64_t n) {
    unsigned char *p = malloc(size + 1);
    uint64_t version = 0;
    klaw_error_info info = {.sys = 0};
    CHECK(p);
    value_fill(p, size, key, n);
    klaw_err e = klaw_store_save(s, key, p, size, &version, KLAW_FOREVER, &info);
    free(p);
    if (e)
        check_failed(__FILE__, __LINE__, "klaw_store_save", info.message);
    return version;
}
/* The newest version is value n of the key; its number. */
static inline uint64_t load_value(klaw_store *s, const char *key, size_t size, uint64_t n) {
    klaw_blob *b = NULL;
    uint64_t version = 0;
    klaw_error_info info = {.sys = 0};
    klaw_err e = klaw_store_load(s, key, &b, &version, KLAW_FOREVER, &info);
    if (e)
        check_failed(__FILE__, __LINE__, "klaw_store_load", info.message);
    CHECK(value_is(b, size, key, n));
    klaw_blob_unref(b);
    return version;
}

/* The bytes of a file; *size gets how many. */
static inline unsigned char *file_bytes(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    CHECK(fd >= 0);
    SAME(fstat(fd, &st), 0);
    unsigned char *p = malloc((size_t)st.st_size + 1);
    CHECK(p);
    SAME(read(fd, p, (size_t)st.st_size), st.st_size);
    close(fd);
    *size = (size_t)st.st_size;
    return p;
}
static inline void file_write(const char *path, const void *bytes, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    SAME(write(fd, bytes, size), size);
    SAME(close(fd), 0);
}
static inline unsigned mode_of(const char *path) {
    struct stat st;
    SAME(stat(path, &st), 0);
    return (unsigned)(st.st_mode & 07777);
}

#endif
