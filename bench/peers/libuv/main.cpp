// SPDX-License-Identifier: Apache-2.0
// The libuv peer: its timers.
#include "../contract.hpp"

#include <uv.h>
#include <vector>

using u64 = std::uint64_t;

namespace {

u64 fired = 0;

void fire(uv_timer_t *) { fired++; }

void must(int e) {
    if (e == 0) return;
    std::fprintf(stderr, "%s\n", uv_strerror(e));
    std::abort();
}

double timer_arm_cancel() {
    constexpr u64 n = 20000000;
    uv_timer_t t;
    must(uv_timer_init(uv_default_loop(), &t));
    auto start = bench::clock::now();
    for (u64 i = 0; i < n; i++) {
        must(uv_timer_start(&t, fire, 3600000, 0));
        must(uv_timer_stop(&t));
    }
    double ns = bench::per_op(start, n);
    bench::check(fired, 0);
    return ns;
}

double timer_1m() {
    constexpr u64 n = 1000000;
    std::vector<uv_timer_t> all(n);
    auto start = bench::clock::now();
    for (u64 i = 0; i < n; i++) {
        must(uv_timer_init(uv_default_loop(), &all[i]));
        must(uv_timer_start(&all[i], fire, 60000 + i * 2654435761u % 3600000, 0));
    }
    for (auto &t : all) must(uv_timer_stop(&t));
    double ns = bench::per_op(start, n);
    bench::check(fired, 0);
    return ns;
}

const bench::job jobs[] = {
    {"timer_arm_cancel", timer_arm_cancel},
    {"timer_1m", timer_1m},
};

} // namespace

int main(int argc, char **argv) { return bench::main(argc, argv, "libuv", jobs); }
