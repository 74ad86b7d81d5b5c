/* SPDX-License-Identifier: Apache-2.0 */
/* test_machine.c - processors and memory of recorded hosts (tests/data/hosts/<name> holds what
 * their /proc and /sys say) and of this machine. Tried with these bugs: only the leaf's cpu.max is
 * read; the quota is rounded down; threads are counted as cores; a malformed number is 0. */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "support/runs.h"

#include "plat/machine.h"
#include "plat/os.h"

#define ALL (KLAWI_DETECT_CPUS | KLAWI_DETECT_CORES | KLAWI_DETECT_MEMORY)
#define KB(n) ((uint64_t)(n)*1024)
#define MB(n) KB((uint64_t)(n)*1024)

static klaw_machine host(const char *name) {
    char root[PATH_MAX];
    klaw_machine m;
    snprintf(root, sizeof root, "%s/hosts/%s", KLAW_TESTS_DATA, name);
    if (strcmp(name, "nothing") != 0)
        SAME(access(root, F_OK), 0);
    klawi_detect(root, ALL, &m);
    return m;
}

#define HOST(name, online_, allowed_, cores_, quota, usable_, memory_, limit) \
    PLAIN(host_##name) {                                                      \
        klaw_machine m = host(#name);                                         \
        SAME(m.online, online_);                                              \
        SAME(m.allowed, allowed_);                                            \
        SAME(m.cores, cores_);                                                \
        SAME(m.quota_milli, quota);                                           \
        SAME(m.usable, usable_);                                              \
        SAME(m.memory, memory_);                                              \
        SAME(m.memory_limit, limit);                                          \
    }

/*                     on  all core quota use */
HOST(v2_parent_quota, 8, 8, 8, 3000, 3, KB(16384000), MB(4096))
HOST(v1_quota, 4, 4, 2, 1500, 2, KB(8192000), MB(2048))
HOST(v1_container, 16, 16, 8, 2500, 3, KB(65536000), MB(512))
HOST(hybrid, 4, 4, 4, 2000, 2, KB(8192000), MB(1024))
HOST(no_cgroup, 5, 3, 3, 0, 3, KB(4096000), KB(4096000))
HOST(hyperthreads, 16, 16, 8, 0, 16, KB(32768000), KB(32768000))
HOST(container_cpuset, 8, 3, 2, 0, 3, KB(16384000), MB(256))
HOST(outside_namespace, 4, 4, 4, 1000, 1, KB(16384000), KB(16384000))
HOST(no_mountinfo, 4, 4, 4, 1200, 2, KB(16384000), MB(1024))
HOST(malformed, 3, 3, 3, 0, 3, 0, 0)
/* A tree without a single file. */
HOST(nothing, 1, 1, 1, 0, 1, 0, 0)

PLAIN(lists_of_processors_are_read_whole_or_not_at_all) {
    static const struct {
        const char *text;
        unsigned n;
    } right[] = {{"0", 1},      {"0-3\n", 4},     {" 1,3,5 \n", 3}, {"0-1,1-2", 3},
                 {"4095\n", 1}, {"0-4095", 4096}, {"7-7", 1}};
    static const char *const wrong[] = {"",
                                        "\n",
                                        "x",
                                        "1,",
                                        ",1",
                                        "3-1",
                                        "0-4096",
                                        "4096",
                                        "1 2",
                                        "1-",
                                        "-1",
                                        "1-2-3",
                                        "99999999999999999999999999",
                                        "0-3:1/2"};
    klawi_cpus s;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        CHECK(klawi_cpus_parse(right[i].text, &s));
        SAME(klawi_cpus_count(&s), right[i].n);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(!klawi_cpus_parse(wrong[i], &s));
        SAME(klawi_cpus_count(&s), 0);
    }
}

PLAIN(this_machine_makes_sense) {
    klaw_machine m;
    klawi_detect("", ALL, &m);
    long online = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    SAME(m.online, online);
    CHECK(m.allowed >= 1 && m.allowed <= m.online);
    CHECK(m.cores >= 1 && m.cores <= m.allowed);
    CHECK(m.usable >= 1 && m.usable <= m.allowed);
    CHECK(m.quota_milli == 0 || m.usable <= (m.quota_milli + 999) / 1000);
    CHECK(m.memory >= (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) / 2);
    CHECK(m.memory_limit > 0 && m.memory_limit <= m.memory);
    SAME(klawi_cpu_usable(), m.usable);
}

PLAIN(only_what_is_asked_for_is_looked_at) {
    klaw_machine m;
    klawi_detect("", KLAWI_DETECT_MEMORY, &m);
    SAME(m.usable, 0);
    CHECK(m.memory > 0);
    klawi_detect("", KLAWI_DETECT_CPUS, &m);
    CHECK(m.usable > 0);
    SAME(m.cores, 0);
    SAME(m.memory, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(host_v2_parent_quota),
        TEST(host_v1_quota),
        TEST(host_v1_container),
        TEST(host_hybrid),
        TEST(host_no_cgroup),
        TEST(host_hyperthreads),
        TEST(host_container_cpuset),
        TEST(host_outside_namespace),
        TEST(host_no_mountinfo),
        TEST(host_malformed),
        TEST(host_nothing),
        TEST(lists_of_processors_are_read_whole_or_not_at_all),
        TEST(this_machine_makes_sense),
        TEST(only_what_is_asked_for_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
