#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pytest.sh [pytest arguments...]: the tests of the Python package, against the one built in build/python. Without
# arguments all of them, told in short.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/build/python/site
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest -q -p no:cacheprovider "$@"
fi
# All of them: the closing lines and the seeds, or everything that was said when something failed. What failed is run
# once more, as in ctest.sh, to tell what is flaky from what is broken.
log=build/python/pytest.log
status=0
all() { .venv/bin/python -m pytest -q -o cache_dir="$PWD/build/python/pytest-cache" tests/python "$@"; }
all >"$log" 2>&1 || status=$?
echo "test python:"
if [ "$status" != 0 ]; then
    cat "$log"
    if [ "$status" = 1 ] && all --last-failed --last-failed-no-failures none >"$log.again" 2>&1; then
        echo "FLAKY: failed once, passed alone (the output of the failure is above): $(tail -n 1 "$log.again")"
    fi
else
    grep -E '^seed[ =:]' "$log" | sort -u | head -n 12 || true
    tail -n 1 "$log"
fi
exit "$status"
