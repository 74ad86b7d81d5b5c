#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# aarch64.sh: cross-builds klaw for AArch64 and runs under qemu-user what shows that the register switch works: the
# unit tests when a cmocka for AArch64 can be had (its Debian packages, unpacked below build/), else the first examples.
# Says so and succeeds when there is no cross compiler or no qemu to be had.
set -eu
cd "$(dirname "$0")/.."
if ! tools/setup.sh aarch64; then
    echo "aarch64: skipped (no cross compiler or qemu-user here)"
    exit 0
fi
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
root=$PWD/build/aarch64-root

# apt with a package list of its own, so that the machine's list of architectures stays as it is.
fetch_cmocka() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/debs"
    : >"$root/apt/status"
    options="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$root/apt -o Dir::State::Lists=$root/apt/lists
        -o Dir::State::status=$root/apt/status -o Dir::Cache=$root/apt -o Acquire::Languages=none -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # a list of words
    (cd "$root/debs" && apt-get $options update && apt-get $options download libcmocka0 libcmocka-dev) || return 1
    for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root/sys"; done
    rm -rf "$root/apt"
    touch "$root/done"
}
if [ ! -f "$root/done" ]; then
    fetch_cmocka >build/aarch64-fetch.log 2>&1 || true
fi
library=$(find "$root/sys" -name 'libcmocka.so.0' 2>/dev/null | head -n 1)

if [ -n "$library" ]; then
    libdir=$(dirname "$library")
    if [ ! -f build/aarch64/build.ninja ]; then
        mkdir -p build
        cmake --preset aarch64 "-DCMOCKA_INCLUDE_DIR=$root/sys/usr/include" "-DCMOCKA_LIBRARY=$library" >build/aarch64.log 2>&1 ||
            { cat build/aarch64.log; exit 1; }
    fi
    tools/build.sh aarch64
    KLAW_TEST_LAUNCHER="$qemu -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=$libdir"
    KLAW_TEST_SLICE=${KLAW_TEST_SLICE:-ci}
    export KLAW_TEST_LAUNCHER KLAW_TEST_SLICE
    # Not under qemu-user, which keeps guest signals to itself: faults on guard pages and signals in the children of a fork.
    exec tools/ctest.sh aarch64 -R '^(unit_(plat|base|policy|sched|sync)_|example_0)' -E '^unit_(sched_test_overflow|sync_test_signal)$' --timeout 600
fi

echo "aarch64: no cmocka for AArch64 to be had; running the examples instead"
if [ ! -f build/aarch64/build.ninja ]; then
    mkdir -p build
    cmake --preset aarch64 -DKLAW_TESTS=OFF >build/aarch64.log 2>&1 || { cat build/aarch64.log; exit 1; }
fi
tools/build.sh aarch64
for program in build/aarch64/examples/0*; do
    timeout 120 "$qemu" -L /usr/aarch64-linux-gnu "$program" >/dev/null
    echo "aarch64: $(basename "$program") ok"
done
