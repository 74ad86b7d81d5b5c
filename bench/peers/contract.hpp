// SPDX-License-Identifier: Apache-2.0
// contract.hpp - the contract of every benchmark program, for the C++ peers.
//
// `prog --list` prints one `JOB IMPL` a line; `prog JOB [IMPL]` runs that job once, checks its own result and prints
// `JOB IMPL VALUE UNIT`. A wrong result aborts. Elements are 8 bytes; senders send 0, 1, 2 ..., receivers sum.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace bench {

using clock = std::chrono::steady_clock;

struct job {
    const char *name;
    double (*run)();
};

inline void check(std::uint64_t got, std::uint64_t want) {
    if (got == want) return;
    std::fprintf(stderr, "wrong result: %llu, expected %llu\n", (unsigned long long)got, (unsigned long long)want);
    std::abort();
}

/// 0 + 1 + ... + (n - 1).
inline std::uint64_t sum_to(std::uint64_t n) { return n * (n - 1) / 2; }

/// Nanoseconds an operation since `start`.
inline double per_op(clock::time_point start, std::uint64_t ops) {
    return std::chrono::duration<double, std::nano>(clock::now() - start).count() / double(ops);
}

/// Resident memory of this process in bytes.
inline double rss() {
    double total = 0, resident = 0;
    std::FILE *f = std::fopen("/proc/self/statm", "r");
    if (f == nullptr || std::fscanf(f, "%lf %lf", &total, &resident) != 2) std::abort();
    std::fclose(f);
    return resident * double(sysconf(_SC_PAGESIZE));
}

template <std::size_t N> int main(int argc, char **argv, const char *impl, const job (&jobs)[N]) {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for (const job &j : jobs) std::printf("%s %s\n", j.name, impl);
        return 0;
    }
    for (const job &j : jobs) {
        if (argc < 2 || std::strcmp(argv[1], j.name) != 0) continue;
        const char *unit = std::strncmp(j.name, "mem_", 4) == 0 ? "bytes" : "ns";
        double value = j.run();
        std::printf("%s %s %.2f %s\n", j.name, impl, value, unit);
        return 0;
    }
    std::fprintf(stderr, "usage: prog --list | prog JOB [IMPL]\n");
    return 2;
}

} // namespace bench
