#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ctest.sh <preset> [ctest arguments...]: runs ctest in build/<preset>. Shows ctest's closing lines and the seeds that
# the tests used; when something failed, the whole output of what failed.
#
# What failed is run once more, alone, to tell what is flaky from what is broken. Either way the run has failed.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
dir=build/$preset
log=$dir/ctest.log
jobs=${JOBS:-$(nproc)}
[ "$jobs" -ge 2 ] || jobs=2
status=0
ctest --test-dir "$dir" -j "$jobs" --output-on-failure --no-tests=error "$@" >"$log" 2>&1 || status=$?
echo "test $preset${*:+ ($*)}:"
if [ "$status" != 0 ]; then
    grep -vE '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test +#[0-9]+:.* Passed )' "$log" || true
    if ctest --test-dir "$dir" -j 1 --rerun-failed --output-on-failure "$@" >"$log.again" 2>&1; then
        echo "FLAKY: failed once, passed alone (the output of the failure is above):"
        grep -E '^ *[0-9]+/[0-9]+ Test ' "$log.again" || true
    fi
else
    sed -n '/tests passed/,$p' "$log"
    # What a test prints as "seed ..." is what its run depends on: KLAW_SEED replays it.
    grep -hE '^(\[ *[A-Z]+ *\] )?seed[ =:]' "$dir/Testing/Temporary/LastTest.log" 2>/dev/null | sort -u | head -n 12 || true
fi
exit "$status"
