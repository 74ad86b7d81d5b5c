#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# aarch64.sh: cross-builds klaw for AArch64 and runs its unit tests under qemu-user, which shows that the register switch
# works. SQLite and cmocka for AArch64 are Debian's packages, unpacked below build/.
# Says so and succeeds when there is no cross compiler, no qemu or none of these packages to be had.
set -eu
cd "$(dirname "$0")/.."
if ! tools/setup.sh aarch64; then
    echo "aarch64: skipped (no cross compiler or qemu-user here)"
    exit 0
fi
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
root=$PWD/build/aarch64-root

# apt with a package list of its own, so that the machine's list of architectures stays as it is.
fetch_libraries() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/debs"
    : >"$root/apt/status"
    options="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$root/apt -o Dir::State::Lists=$root/apt/lists
        -o Dir::State::status=$root/apt/status -o Dir::Cache=$root/apt -o Acquire::Languages=none -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # a list of words
    (cd "$root/debs" && apt-get $options update && apt-get $options download libcmocka0 libcmocka-dev libsqlite3-0 libsqlite3-dev) || return 1
    for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root/sys"; done
    rm -rf "$root/apt"
    touch "$root/done-sqlite"
}
if [ ! -f "$root/done-sqlite" ]; then
    fetch_libraries >build/aarch64-fetch.log 2>&1 || true
fi
cmocka=$(find "$root/sys" -name 'libcmocka.so.0' 2>/dev/null | head -n 1)
sqlite=$(find "$root/sys" -name 'libsqlite3.so.0' 2>/dev/null | head -n 1)
if [ -z "$cmocka" ] || [ -z "$sqlite" ]; then
    echo "aarch64: skipped (SQLite and cmocka for AArch64 could not be fetched, see build/aarch64-fetch.log)"
    exit 0
fi
libdir=$(dirname "$cmocka")
# A build folder from before SQLite does not know where it is.
if ! grep -qs "^SQLite3_LIBRARY:.*=$sqlite\$" build/aarch64/CMakeCache.txt; then
    mkdir -p build
    cmake --preset aarch64 "-DCMOCKA_INCLUDE_DIR=$root/sys/usr/include" "-DCMOCKA_LIBRARY=$cmocka" \
        "-DSQLite3_INCLUDE_DIR=$root/sys/usr/include" "-DSQLite3_LIBRARY=$sqlite" >build/aarch64.log 2>&1 ||
        { cat build/aarch64.log; exit 1; }
fi
tools/build.sh aarch64
KLAW_TEST_LAUNCHER="$qemu -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=$libdir"
KLAW_TEST_SLICE=${KLAW_TEST_SLICE:-ci}
export KLAW_TEST_LAUNCHER KLAW_TEST_SLICE
# Not under qemu-user, which keeps guest signals to itself: faults on guard pages and signals in the children of a fork.
exec tools/ctest.sh aarch64 -R '^(unit_(plat|base|policy|sched|sync)_|example_0)' -E '^unit_(sched_test_overflow|sync_test_signal)$' --timeout 600
