// SPDX-License-Identifier: Apache-2.0
// map.hpp - the executor jobs that several C++ peers share: a map of a tiny function over two arrays.
#pragma once

#include "contract.hpp"

#include <vector>

namespace bench {

constexpr std::size_t map_items = 1000000;

/// The tiny function of the executor jobs. Not inlined: klaw calls it through a pointer.
[[gnu::noinline]] inline std::uint64_t triple(std::uint64_t x) {
    asm volatile(""); // or its calls are merged
    return 3 * x;
}

/// Times `rounds` runs of map(input, output), which writes triple of each input to the output beside it.
template <class F> double executor_map(std::uint64_t rounds, F map) {
    std::vector<std::uint64_t> input(map_items), output(map_items, 1);
    for (std::size_t i = 0; i < map_items; i++) input[i] = i;
    auto start = clock::now();
    for (std::uint64_t r = 0; r < rounds; r++) map(input.data(), output.data());
    double ns = per_op(start, rounds * map_items);
    std::uint64_t sum = 0;
    for (std::uint64_t v : output) sum += v;
    check(sum, 3 * sum_to(map_items));
    return ns;
}

} // namespace bench
