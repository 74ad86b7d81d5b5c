// SPDX-License-Identifier: Apache-2.0
// cxx_catch.cc - the cxx option: fibers that wait inside catch blocks, rethrow, and unwind through
// their frames.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "klaw/klaw.h"

namespace {

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);                \
            std::abort();                                                                          \
        }                                                                                          \
    } while (0)

std::atomic<int> destroyed;

struct Counted {
    ~Counted() {
        destroyed++;
    }
};

void waits(int i) {
    switch (i % 3) {
    case 0: CHECK(klaw_yield() == KLAW_OK); break;
    case 1: CHECK(klaw_sleep(KLAW_WITHIN(KLAW_US(10 + i % 7))) == KLAW_OK); break;
    default: CHECK(klaw_blocking([](void *) { return KLAW_OK; }, nullptr) == KLAW_OK); break;
    }
}

void throws(const std::string &what, int depth) {
    Counted c;
    if (depth > 0)
        return throws(what, depth - 1);
    throw std::runtime_error(what);
}

// Two handlers deep, with waits in each of them: another fiber does the same meanwhile.
void catches(const std::string &name, int i) {
    try {
        throws(name, 3);
    } catch (const std::exception &outer) {
        CHECK(outer.what() == name);
        waits(i);
        try {
            throws(name + " again", 2);
        } catch (const std::exception &inner) {
            waits(i + 1);
            CHECK(inner.what() == name + " again");
            CHECK(std::uncaught_exceptions() == 0);
        }
        waits(i + 2);
        CHECK(outer.what() == name);
        throw; // the one of this fiber
    }
}

klaw_err body(void *arg) {
    std::string name = "exception " + std::to_string(reinterpret_cast<std::uintptr_t>(arg));
    for (int i = 0; i < 50; i++) {
        bool caught = false;
        try {
            catches(name, i);
        } catch (const std::exception &e) {
            CHECK(e.what() == name);
            caught = true;
        }
        CHECK(caught);
    }
    return KLAW_OK;
}

klaw_err main_fiber(void *) {
    klaw_fiber_opts o = {};
    klaw_fiber *f[8];
    o.cxx = true;
    for (std::uintptr_t i = 0; i < 8; i++)
        CHECK(klaw_spawn(nullptr, body, reinterpret_cast<void *>(i), &o, &f[i]) == KLAW_OK);
    for (int i = 0; i < 8; i++) {
        klaw_err e = KLAW_TYPE;
        CHECK(klaw_join(f[i], &e, nullptr, KLAW_FOREVER) == KLAW_OK && e == KLAW_OK);
    }
    return KLAW_OK;
}

} // namespace

int main() {
    for (uint32_t workers = 1; workers <= 2; workers++) {
        klaw_run_opts o = {};
        o.workers = workers;
        destroyed = 0;
        CHECK(klaw_run(main_fiber, nullptr, &o) == KLAW_OK);
        CHECK(destroyed == 8 * 50 * 7);
    }
    return 0;
}
