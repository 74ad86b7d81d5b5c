#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test.sh [local]: what `make test` runs, or all of it that needs no Ray: the C tests and the Python ones, beside each
# other on machines with two cores or more. Every part runs even when another failed, what it has to say is told when it
# is over, and a table closes; the exit status is 0 only when all of them passed.
#
# Two lanes, one core each on two cores: Python tests, and Ray's above all, wait for processes most of their time, and C
# tests do not. Ray's take as long as all the others one after the other.
set -eu
cd "$(dirname "$0")/.."
export KLAW_TEST_SLICE=${KLAW_TEST_SLICE:-ci}
cores=$(nproc)
jobs=${JOBS:-$((cores > 2 ? cores - 1 : 1))}
parts=(build-debug build-det build-release build-python c c-interleave c-programs python)
[ "${1-}" = local ] || parts+=(python-ray)
said=build/test
mkdir -p "$said"
rm -f "$said"/*

part() { # part <name> <command...>: tells its output at once, and notes its result and time
    local name=$1 start=$SECONDS result=ok
    shift
    "$@" >"$said/$name.out" 2>&1 </dev/null || result=FAILED
    cat "$said/$name.out"
    printf '%-16s %-7s %4d s\n' "$name" "$result" $((SECONDS - start)) >"$said/$name.result"
}
passed() { grep -qs ' ok ' "$said/$1.result"; }
tests_of() { # tests_of <build> <name> <command...>: when that was built
    local build=build-$1 name=$2
    shift 2
    if passed "$build"; then
        part "$name" "$@"
    else
        printf '%-16s %-7s\n' "$name" "not built" >"$said/$name.result"
    fi
}

lane_c() {
    export JOBS=$jobs
    tests_of debug c tools/ctest.sh debug -LE '^(e2e|install)$'
    tests_of det c-interleave tools/ctest.sh det
    tests_of release c-programs tools/ctest.sh release -L '^(examples|e2e|install)$'
}
lane_python() { tests_of python python tools/pytest.sh local; }
lane_ray() { tests_of python python-ray tools/pytest.sh ray; }
if [ "${1-}" = local ]; then
    first=(lane_c) second=(lane_python)
else
    first=(lane_c lane_python) second=(lane_ray)
fi
lane() { # lane <functions>: one after the other
    local each
    for each; do "$each"; done
}

if [ "${1-}" = local ]; then
    tools/setup.sh test python
else
    tools/setup.sh test python ray
fi
for preset in debug det release python; do part "build-$preset" tools/build.sh "$preset"; done

# Groups of their own: interrupted together, and in them Ctrl-C means what it does to a program in the foreground.
set -m
lane "${first[@]}" &
lanes=($!)
[ "$cores" -gt 1 ] || wait "${lanes[0]}"
lane "${second[@]}" &
lanes+=($!)
set +m
stop() {
    trap - INT TERM
    for signal in INT TERM; do # the second for what was started with interrupts ignored
        for lane in "${lanes[@]}"; do kill -s $signal -- "-$lane" 2>/dev/null || continue; done
        for _ in {1..50}; do
            kill -0 -- "${lanes[@]/#/-}" 2>/dev/null || break
            sleep 0.1
        done
    done
    exit 130
}
trap stop INT TERM
wait

echo
failed=()
for name in "${parts[@]}"; do
    cat "$said/$name.result" 2>/dev/null || echo "$name was not run"
    passed "$name" || failed+=("$name")
done
printf '%-16s %-7s %4d s\n' all "" "$SECONDS"
if [ ${#failed[@]} != 0 ]; then
    echo "test: FAILED: ${failed[*]}"
    exit 1
fi
