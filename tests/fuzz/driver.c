/* SPDX-License-Identifier: Apache-2.0 */
/* driver.c - drives a fuzz target without libFuzzer: `fuzz_x <corpus folder>` gives it each file there as it is, then so
 * many seeded mutations of each (KLAW_TEST_SLICE, KLAW_SEED). On a failure the last input is left in fuzz-last-input. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_MAX ((size_t)1 << 16)

static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed += 0x9e3779b97f4a7c15ull;
    uint64_t z = seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (z ^ z >> 31) % below;
}

static size_t mutate(uint8_t *data, size_t size) {
    for (uint64_t n = 1 + draw(4); n; n--)
        switch (draw(6)) {
        case 0:
            if (size)
                data[draw(size)] ^= (uint8_t)(1u << draw(8));
            break;
        case 1:
            if (size)
                data[draw(size)] = (uint8_t)draw(256);
            break;
        case 2: /* cut */ size = draw(size + 1); break;
        case 3: /* repeat a part at the end */
            if (size) {
                size_t at = draw(size), part = 1 + draw(size - at);
                if (size + part <= INPUT_MAX) {
                    memcpy(data + size, data + at, part);
                    size += part;
                }
            }
            break;
        case 4: /* a number at its limits */
            if (size >= 4) {
                static const uint32_t limits[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xffff};
                memcpy(data + draw(size - 3), &limits[draw(6)], 4);
            }
            break;
        default: /* take a byte out, or put one in */
            if (size > 1 && draw(2)) {
                size_t at = draw(size);
                memmove(data + at, data + at + 1, size - at - 1);
                size--;
            } else if (size < INPUT_MAX) {
                size_t at = draw(size + 1);
                memmove(data + at + 1, data + at, size - at);
                data[at] = (uint8_t)draw(256);
                size++;
            }
        }
    return size;
}

static void keep(const uint8_t *data, size_t size) {
    int fd = open("fuzz-last-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)!write(fd, data, size);
        close(fd);
    }
}

static size_t read_file(const char *folder, const char *name, uint8_t *data) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, INPUT_MAX, f);
    fclose(f);
    return size;
}

int main(int argc, char **argv) {
    static uint8_t file[INPUT_MAX], data[INPUT_MAX];
    const char *slice = getenv("KLAW_TEST_SLICE"), *given = getenv("KLAW_SEED"),
               *variants = getenv("KLAW_FUZZ_MUTATIONS");
    uint64_t mutations = variants                              ? strtoull(variants, NULL, 10)
                         : slice && strcmp(slice, "soak") == 0 ? 20000
                                                               : 300;
    if (argc != 2) {
        fprintf(stderr, "usage: %s <corpus folder>\n", argv[0]);
        return 2;
    }
    uint64_t first =
        given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    printf("seed %llu\n", (unsigned long long)first);
    fflush(stdout);
    seed = first;
    struct dirent **files;
    int n =
        scandir(argv[1], &files, NULL, alphasort); /* sorted: a seed means the same everywhere */
    if (n < 0) {
        perror(argv[1]);
        return 1;
    }
    unsigned long long inputs = 0;
    for (int i = 0; i < n; i++) {
        if (files[i]->d_name[0] != '.') {
            size_t size = read_file(argv[1], files[i]->d_name, file);
            for (uint64_t k = 0; k <= mutations; k++, inputs++) {
                memcpy(data, file, size);
                size_t now = k ? mutate(data, size) : size;
                keep(data, now);
                LLVMFuzzerTestOneInput(data, now);
            }
        }
        free(files[i]);
    }
    free(files);
    unlink("fuzz-last-input");
    printf("%llu inputs\n", inputs);
    if (!inputs)
        fprintf(stderr, "%s is empty\n", argv[1]);
    return inputs == 0;
}
