#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh <preset> [target...]: configures when needed and builds build/<preset>. Quiet when it works: one line; when
# it does not, everything the tools said.
# shellcheck disable=SC3013 # dash and bash both have -nt
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
dir=build/$preset
log=$dir.log
mkdir -p build
start=$(date +%s)
run() {
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "build $preset: FAILED" >&2
        exit 1
    fi
}
if [ ! -f "$dir/build.ninja" ] || [ CMakePresets.json -nt "$dir/CMakeCache.txt" ]; then
    # A cache of another source folder (a tree that was moved or copied) can't be used again.
    if [ -f "$dir/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$dir/CMakeCache.txt"; then
        rm -rf "$dir"
    fi
    run cmake --preset "$preset"
    touch "$dir/CMakeCache.txt"
fi
[ ! -t 1 ] || echo "build $preset ..."
run ninja -C "$dir" "$@"
echo "build $preset: done in $(($(date +%s) - start)) s"
