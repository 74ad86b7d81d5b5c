#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# valgrind.sh: the unit tests of the debug build under valgrind's memcheck; any error or definite leak fails.
set -eu
cd "$(dirname "$0")/.."
# Under valgrind one thread runs at a time and 20 to 50 times slower: fair scheduling keeps spinning tests alive.
KLAW_TEST_LAUNCHER="valgrind --quiet --error-exitcode=97 --leak-check=full --errors-for-leak-kinds=definite,indirect --fair-sched=yes --max-stackframe=9000000 --main-stacksize=8388608 --trace-children=no --num-callers=20"
KLAW_TEST_SLICE=${KLAW_TEST_SLICE:-valgrind}
export KLAW_TEST_LAUNCHER KLAW_TEST_SLICE
# Not under valgrind: what dies or is left behind on purpose (overflows, abandoned runs and children, children of a fork), rounding
# modes, which it does not emulate, and processes, for it knows no pidfd_open(2).
exec tools/ctest.sh debug -L '^unit$' -E '^unit_(sched_test_(abandon|fork|modes|overflow)|actor_test_(process|supervisor|supervisor_kinds))$' --timeout 600 "$@"
