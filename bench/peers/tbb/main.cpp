// SPDX-License-Identifier: Apache-2.0
// The oneTBB peer: parallel_for and task groups in an arena of two threads.
#include "../map.hpp"

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <atomic>

using u64 = std::uint64_t;

namespace {

/// Runs f in an arena of two, the calling thread being one of them.
template <class F> double on_two(F f) {
    tbb::global_control limit(tbb::global_control::max_allowed_parallelism, 2);
    tbb::task_arena arena(2);
    return arena.execute(f);
}

using range = tbb::blocked_range<std::size_t>;

template <class P> double map(u64 rounds, P &&partitioner) {
    return on_two([&] {
        return bench::executor_map(rounds, [&](const u64 *in, u64 *out) {
            tbb::parallel_for(
                range(0, bench::map_items, 1),
                [=](const range &r) {
                    for (std::size_t i = r.begin(); i != r.end(); i++) out[i] = bench::triple(in[i]);
                },
                partitioner);
        });
    });
}

/// A task each.
double executor_map() { return map(10, tbb::simple_partitioner()); }

/// Chunks as TBB likes them.
double executor_map_chunked() { return map(100, tbb::auto_partitioner()); }

double executor_submit() {
    constexpr u64 rounds = 1000, each = 1000;
    std::atomic<u64> sum{0};
    return on_two([&] {
        auto start = bench::clock::now();
        for (u64 r = 0; r < rounds; r++) {
            tbb::task_group group;
            for (u64 i = 0; i < each; i++) {
                group.run([&sum, i] { sum.fetch_add(bench::triple(i), std::memory_order_relaxed); });
            }
            group.wait();
        }
        double ns = bench::per_op(start, rounds * each);
        bench::check(sum, 3 * rounds * bench::sum_to(each));
        return ns;
    });
}

const bench::job jobs[] = {
    {"executor_map", executor_map},
    {"executor_map_chunked", executor_map_chunked},
    {"executor_submit", executor_submit},
};

} // namespace

int main(int argc, char **argv) { return bench::main(argc, argv, "tbb", jobs); }
