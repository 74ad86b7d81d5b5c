/* SPDX-License-Identifier: Apache-2.0 */
/* A store's file from outside. The input patches a whole file: its first byte says whether the pages' checksums are made
 * right again afterwards (then SQLite and the rows' checksums are on their own) and whether it is opened for salvage; then
 * come patches of five bytes: page, offset (2), what to do, value. Nothing may crash, and whatever a load returns is what
 * was once saved under that key and version. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "klaw/store.h"
#include "klaw/workflow.h"
#include "store/store.h"
#include "store/store_vfs.h"

#define PAGE KLAWI_STORE_PAGE
#define KEYS 6
#define VERSIONS 3

static unsigned char *whole;
static size_t whole_size;
static char path[128], folder[64];

static size_t value_of(int key, int version, char *out) {
    size_t size = (size_t)(key * key * 700 + version * 13 + 1); /* some span pages */
    memset(out, 'a' + key + version, size);
    return size;
}

static klaw_err no_result(klaw_step *step, void *arg, klaw_blob **result) {
    (void)step;
    (void)arg;
    return klaw_blob_new("kept", 4, result);
}

static void remove_all(void) {
    unlink(path);
    rmdir(folder);
}

/* Makes the whole file, once. */
static void make_file(void) {
    static char value[KEYS * KEYS * 700 + 100];
    klaw_store *s;
    klaw_workflow *wf;
    char key[16];
    strncpy(folder,
            access("/dev/shm", W_OK) == 0 ? "/dev/shm/klaw-fuzz-XXXXXX" : "/tmp/klaw-fuzz-XXXXXX",
            sizeof folder - 1);
    HOLDS(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/store", folder);
    atexit(remove_all);
    HOLDS(klaw_store_open(path, &(klaw_store_opts){.keep = VERSIONS}, &s, NULL) == KLAW_OK);
    for (int version = 1; version <= VERSIONS; version++)
        for (int k = 0; k < KEYS; k++) {
            snprintf(key, sizeof key, "key%d", k);
            size_t size = value_of(k, version, value);
            HOLDS(klaw_store_save(s, key, value, size, NULL, KLAW_FOREVER, NULL) == KLAW_OK);
        }
    HOLDS(klaw_workflow_open(s, "report", NULL, &wf, NULL) == KLAW_OK);
    HOLDS(klaw_workflow_step(wf, "fetch", no_result, NULL, NULL, NULL, NULL) == KLAW_OK);
    klaw_workflow_close(wf);
    klaw_store_unref(s);
    FILE *f = fopen(path, "rb");
    HOLDS(f && fseek(f, 0, SEEK_END) == 0);
    whole_size = (size_t)ftell(f);
    rewind(f);
    whole = malloc(whole_size);
    HOLDS(whole && whole_size % PAGE == 0 && fread(whole, 1, whole_size, f) == whole_size);
    fclose(f);
}

static void patch(unsigned char *file, const uint8_t *data, size_t size, bool mend) {
    for (; size >= 5; data += 5, size -= 5) {
        size_t at =
            (size_t)data[0] % (whole_size / PAGE) * PAGE + (size_t)(data[1] << 8 | data[2]) % PAGE;
        file[at] = data[3] & 1 ? (unsigned char)(file[at] ^ data[4]) : data[4];
    }
    for (size_t page = 0; mend && page < whole_size / PAGE; page++) {
        unsigned char *p = file + page * PAGE;
        uint64_t sum = klawi_store_sum((uint32_t)page + 1, p, PAGE - KLAWI_STORE_RESERVED);
        memcpy(p + PAGE - 8, &sum, 8);
    }
}

static void load_all(klaw_store *s) {
    static char value[KEYS * KEYS * 700 + 100];
    char key[16];
    klaw_blob *b;
    for (int k = 0; k < KEYS; k++)
        for (uint64_t version = 0; version <= VERSIONS; version++) {
            uint64_t got = version;
            snprintf(key, sizeof key, "key%d", k);
            klaw_err e = version ? klaw_store_load_version(s, key, version, &b, KLAW_FOREVER, NULL)
                                 : klaw_store_load(s, key, &b, &got, KLAW_FOREVER, NULL);
            if (e)
                continue;
            HOLDS(got >= 1 && got <= VERSIONS);
            size_t size = value_of(k, (int)got, value);
            HOLDS(klaw_blob_size(b) == size && memcmp(klaw_blob_data(b), value, size) == 0);
            klaw_blob_unref(b);
        }
}

static void look_at_all(klaw_store *s) {
    klaw_store_entries list;
    klaw_store_report report;
    klaw_store_counts counts;
    klaw_workflow_info wf;
    klaw_step_info *steps = NULL;
    size_t n = 0;
    if (klaw_store_list(s, "", &list, KLAW_FOREVER, NULL) == KLAW_OK)
        klaw_store_entries_free(&list);
    if (klaw_store_versions(s, "key3", &list, KLAW_FOREVER, NULL) == KLAW_OK)
        klaw_store_entries_free(&list);
    (void)!klaw_store_check(s, &report, KLAW_FOREVER, NULL);
    (void)!klaw_store_stats(s, &counts, KLAW_FOREVER, NULL);
    if (klaw_workflow_inspect(s, "report", &wf, &steps, &n, NULL) == KLAW_OK)
        klaw_step_info_free(steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    klaw_store *s;
    if (!whole)
        make_file();
    if (size < 1)
        return 0;
    unsigned char *file = malloc(whole_size);
    HOLDS(file);
    memcpy(file, whole, whole_size);
    patch(file, data + 1, size - 1, data[0] & 1);
    size_t length = data[0] & 4 ? whole_size / PAGE / 2 * PAGE : whole_size; /* cut at a page */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    HOLDS(fd >= 0 && write(fd, file, length) == (ssize_t)length);
    close(fd);
    free(file);
    klaw_store_opts opts = {.salvage = (data[0] & 2) != 0};
    if (klaw_store_open(path, &opts, &s, NULL) == KLAW_OK) {
        load_all(s);
        look_at_all(s);
        klaw_store_unref(s);
    }
    return 0;
}
