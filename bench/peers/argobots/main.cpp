// SPDX-License-Identifier: Apache-2.0
// The Argobots peer: tasklets, freed in order by the one who made them; two execution streams with a pool in common.
#include "../map.hpp"

#include <abt.h>

#include <atomic>

using u64 = std::uint64_t;

namespace {

std::atomic<u64> sum{0};

void must(int e) {
    if (e == ABT_SUCCESS) return;
    std::fprintf(stderr, "Argobots: error %d\n", e);
    std::abort();
}

void add(void *arg) { sum.fetch_add(bench::triple(reinterpret_cast<std::uintptr_t>(arg)), std::memory_order_relaxed); }

double executor_submit() {
    constexpr u64 rounds = 1000, each = 1000;
    ABT_xstream self, other;
    ABT_pool pool;
    must(ABT_init(0, nullptr));
    must(ABT_xstream_self(&self));
    must(ABT_xstream_get_main_pools(self, 1, &pool));
    must(ABT_xstream_create_basic(ABT_SCHED_DEFAULT, 1, &pool, ABT_SCHED_CONFIG_NULL, &other));
    std::vector<ABT_task> tasks(each);
    auto start = bench::clock::now();
    for (u64 r = 0; r < rounds; r++) {
        for (u64 i = 0; i < each; i++) must(ABT_task_create(pool, add, reinterpret_cast<void *>(i), &tasks[i]));
        for (auto &t : tasks) must(ABT_task_free(&t)); // joins
    }
    double ns = bench::per_op(start, rounds * each);
    bench::check(sum, 3 * rounds * bench::sum_to(each));
    must(ABT_xstream_join(other));
    must(ABT_xstream_free(&other));
    must(ABT_finalize());
    return ns;
}

const bench::job jobs[] = {{"executor_submit", executor_submit}};

} // namespace

int main(int argc, char **argv) { return bench::main(argc, argv, "argobots", jobs); }
