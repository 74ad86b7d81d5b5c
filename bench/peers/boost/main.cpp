// SPDX-License-Identifier: Apache-2.0
// The Boost.Fiber peer. One worker: the default round robin; two: shared_work, which keeps one common ready queue.
// Its workers poll: with `suspend` the second one is never woken for a ready fiber, and there would be one worker in truth.
#include "../contract.hpp"

#include <boost/fiber/all.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace bf = boost::fibers;
using bench::check;
using bench::per_op;
using bench::sum_to;
using u64 = std::uint64_t;
using buffered = bf::buffered_channel<u64>; // capacities are powers of two: no job with 10 000
using unbuffered = bf::unbuffered_channel<u64>;

namespace {

constexpr auto post = bf::launch::post;

void produce(buffered &c, u64 from, u64 to) {
    for (u64 i = from; i < to; i++) {
        if (c.push(i) != bf::channel_op_status::success) std::abort();
    }
}

u64 consume(buffered &c) {
    u64 sum = 0, v = 0;
    while (c.pop(v) == bf::channel_op_status::success) sum += v;
    return sum;
}

/// Runs f on this thread with a second thread that shares the ready fibers.
template <class F> double on_two(F f) {
    bool done = false;
    std::mutex mutex;
    bf::condition_variable_any wake;
    bf::barrier start(2);
    std::thread other([&] {
        bf::use_scheduling_algorithm<bf::algo::shared_work>(false);
        start.wait();
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return done; });
    });
    bf::use_scheduling_algorithm<bf::algo::shared_work>(false);
    start.wait();
    double ns = f();
    {
        std::unique_lock<std::mutex> lock(mutex);
        done = true;
    }
    wake.notify_all();
    other.join();
    return ns;
}

double stream(int senders, int receivers, u64 n) {
    buffered c(1024);
    std::vector<bf::fiber> sending, receiving;
    std::atomic<u64> sum{0};
    auto start = bench::clock::now();
    for (int k = 0; k < receivers; k++) receiving.emplace_back(post, [&] { sum += consume(c); });
    for (int k = 0; k < senders; k++) {
        sending.emplace_back(post, [&c, k, senders, n] { produce(c, k * n / senders, (k + 1) * n / senders); });
    }
    for (auto &f : sending) f.join();
    c.close();
    for (auto &f : receiving) f.join();
    double ns = per_op(start, n);
    check(sum, sum_to(n));
    return ns;
}

double pingpong(u64 n) {
    unbuffered there, back;
    u64 sum = 0;
    auto start = bench::clock::now();
    bf::fiber echo(post, [&] {
        u64 v = 0;
        while (there.pop(v) == bf::channel_op_status::success) back.push(v);
    });
    bf::fiber ping(post, [&] {
        for (u64 i = 0; i < n; i++) {
            there.push(i);
            sum += back.value_pop();
        }
        there.close();
    });
    ping.join();
    echo.join();
    double ns = per_op(start, n);
    check(sum, sum_to(n));
    return ns;
}

double spawn_join_1000() {
    constexpr u64 rounds = 1000, each = 1000;
    bf::pooled_fixedsize_stack stacks(64 * 1024);
    std::vector<bf::fiber> all;
    all.reserve(each);
    u64 sum = 0;
    auto start = bench::clock::now();
    for (u64 r = 0; r < rounds; r++) {
        for (u64 i = 0; i < each; i++) all.emplace_back(post, std::allocator_arg, stacks, [&sum, i] { sum += i; });
        for (auto &f : all) f.join();
        all.clear();
    }
    double ns = per_op(start, rounds * each);
    check(sum, rounds * sum_to(each));
    return ns;
}

double mem_parked() {
    constexpr u64 n = 100000;
    buffered gate(2);
    std::vector<bf::fiber> all;
    all.reserve(n);
    u64 parked = 0, left = 0;
    double before = bench::rss();
    for (u64 i = 0; i < n; i++) {
        // 64 KiB come from the heap; the default size would be one mapping each, more than a process may have.
        all.emplace_back(post, std::allocator_arg, bf::fixedsize_stack(64 * 1024), [&] {
            u64 v = 0;
            parked++;
            if (gate.pop(v) == bf::channel_op_status::closed) left++;
        });
    }
    while (parked < n) boost::this_fiber::yield();
    double bytes = (bench::rss() - before) / double(n);
    gate.close();
    for (auto &f : all) f.join();
    check(left, n);
    return bytes;
}

double ring_1000() {
    constexpr u64 members = 1000, laps = 2000;
    std::vector<std::unique_ptr<unbuffered>> c;
    for (u64 i = 0; i < members; i++) c.push_back(std::make_unique<unbuffered>());
    std::vector<bf::fiber> all;
    u64 token = 0;
    auto start = bench::clock::now();
    for (u64 i = 1; i < members; i++) {
        all.emplace_back(post, [&rx = *c[i], &tx = *c[(i + 1) % members]] {
            u64 v = 0;
            while (rx.pop(v) == bf::channel_op_status::success) tx.push(v + 1);
            tx.close();
        });
    }
    for (u64 i = 0; i < laps; i++) {
        c[1]->push(token);
        token = c[0]->value_pop() + 1;
    }
    double ns = per_op(start, members * laps);
    c[1]->close();
    for (auto &f : all) f.join();
    check(token, members * laps);
    return ns;
}

struct request {
    u64 value;
    bf::promise<u64> reply;
};

/// A request brings a fresh promise with it.
double actor_ask() {
    constexpr u64 n = 1000000;
    bf::buffered_channel<request> mailbox(1024);
    u64 sum = 0;
    auto start = bench::clock::now();
    bf::fiber actor(post, [&] {
        request r{};
        while (mailbox.pop(r) == bf::channel_op_status::success) r.reply.set_value(r.value);
    });
    bf::fiber asker(post, [&] {
        for (u64 i = 0; i < n; i++) {
            request r{i, {}};
            auto answer = r.reply.get_future();
            if (mailbox.push(std::move(r)) != bf::channel_op_status::success) std::abort();
            sum += answer.get();
        }
        mailbox.close();
    });
    asker.join();
    actor.join();
    double ns = per_op(start, n);
    check(sum, sum_to(n));
    return ns;
}

const bench::job jobs[] = {
    {"spsc_1w", [] { return stream(1, 1, 20000000); }},
    {"spsc_2w", [] { return on_two([] { return stream(1, 1, 6000000); }); }},
    {"mpsc_4_1", [] { return on_two([] { return stream(4, 1, 4000000); }); }},
    {"mpmc_4_4", [] { return on_two([] { return stream(4, 4, 4000000); }); }},
    {"pingpong_1w", [] { return pingpong(2000000); }},
    {"pingpong_2w", [] { return on_two([] { return pingpong(500000); }); }},
    {"spawn_join_1000", spawn_join_1000},
    {"mem_parked", mem_parked},
    {"ring_1000", ring_1000},
    {"actor_ask", actor_ask},
};

} // namespace

int main(int argc, char **argv) { return bench::main(argc, argv, "boost", jobs); }
