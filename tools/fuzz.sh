#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh [target...]: runs the targets of tests/fuzz (or those named: traceparent, store, ...) under libFuzzer,
# KLAW_FUZZ_SECONDS (600) each, one beside the other per processor. What is found goes into build/fuzz/found/<target>; inputs
# that reach new code go into build/fuzz/corpus/<target>: the smallest set of them replaces the kept corpus by
# `build/fuzz/fuzz/fuzz_<target> -merge=1 tests/fuzz/corpus/<target> build/fuzz/corpus/<target>`.
set -eu
cd "$(dirname "$0")/.."
seconds=${KLAW_FUZZ_SECONDS:-600}
if [ $# = 0 ]; then
    # shellcheck disable=SC2046 # names without spaces
    set -- $(for f in tests/fuzz/fuzz_*.c; do basename "$f" .c | sed 's/^fuzz_//'; done)
fi
# shellcheck disable=SC2046 # names without spaces
tools/build.sh fuzz $(printf 'fuzz_%s ' "$@")
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export KLAW_FUZZ_RUN_SECONDS="$seconds"
# shellcheck disable=SC2016 # expanded by the shells that xargs starts
one='
    name=$1 found=build/fuzz/found/$1 corpus=build/fuzz/corpus/$1 log=build/fuzz/fuzz-$1.log
    mkdir -p "$found" "$corpus"
    if build/fuzz/fuzz/fuzz_"$name" -max_total_time="$KLAW_FUZZ_RUN_SECONDS" -max_len=8192 -timeout=25 -rss_limit_mb=4096 \
        -artifact_prefix="$found/" "$corpus" tests/fuzz/corpus/"$name" >"$log" 2>&1; then
        echo "fuzz $name: $(grep -E "^Done|DONE" "$log" | tail -n 1)"
    else
        tail -n 60 "$log"
        echo "fuzz $name: FAILED, the input is in $found"
        exit 1
    fi'
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} sh -c "$one" sh {}
