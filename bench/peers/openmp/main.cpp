// SPDX-License-Identifier: Apache-2.0
// The OpenMP peer: the compiler's own loops and tasks, two threads.
#include "../map.hpp"

#include <omp.h>

#include <atomic>

using u64 = std::uint64_t;

namespace {

/// An item at a time from a shared counter.
double executor_map() {
    return bench::executor_map(10, [](const u64 *in, u64 *out) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(2)
        for (std::size_t i = 0; i < bench::map_items; i++) out[i] = bench::triple(in[i]);
    });
}

/// A half each.
double executor_map_chunked() {
    return bench::executor_map(100, [](const u64 *in, u64 *out) {
#pragma omp parallel for schedule(static) num_threads(2)
        for (std::size_t i = 0; i < bench::map_items; i++) out[i] = bench::triple(in[i]);
    });
}

double executor_submit() {
    constexpr u64 rounds = 300, each = 1000;
    std::atomic<u64> sum{0};
    double ns = 0;
#pragma omp parallel num_threads(2)
#pragma omp single
    {
        auto start = bench::clock::now();
        for (u64 r = 0; r < rounds; r++) {
            for (u64 i = 0; i < each; i++) {
#pragma omp task firstprivate(i) shared(sum)
                sum.fetch_add(bench::triple(i), std::memory_order_relaxed);
            }
#pragma omp taskwait
        }
        ns = bench::per_op(start, rounds * each);
    }
    bench::check(sum, 3 * rounds * bench::sum_to(each));
    return ns;
}

const bench::job jobs[] = {
    {"executor_map", executor_map},
    {"executor_map_chunked", executor_map_chunked},
    {"executor_submit", executor_submit},
};

} // namespace

int main(int argc, char **argv) { return bench::main(argc, argv, "openmp", jobs); }
