#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pytest.sh [pytest arguments...]: the tests of the Python package, against the one built in build/python.
# pytest.sh local|ray: all of them that need no Ray, or all that do, told in short. Nothing: both.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/build/python/site
# The many processes that tests start find the package compiled; nothing is written into the tree.
PYTHONPYCACHEPREFIX=$PWD/build/python/pycache
export PYTHONPATH PYTHONPYCACHEPREFIX
part=${1-all}
case $#-$part in
    0-all | 1-local | 1-ray) ;;
    *) exec .venv/bin/python -m pytest -q -p no:cacheprovider "$@" ;;
esac
# The closing lines and the seeds, or everything that was said when something failed. What failed is run
# once more, as in ctest.sh, to tell what is flaky from what is broken.
log=build/python/pytest-$part.log
status=0
all() {
    case $part in
        local) set -- -m "not ray" "$@" ;;
        ray) set -- -m ray "$@" ;;
    esac
    .venv/bin/python -m pytest -q -o cache_dir="$PWD/build/python/pytest-cache-$part" tests/python tests/docs "$@"
}
all >"$log" 2>&1 || status=$?
echo "test python ($part):"
if [ "$status" != 0 ]; then
    cat "$log"
    if [ "$status" = 1 ] && all --last-failed --last-failed-no-failures none >"$log.again" 2>&1; then
        echo "FLAKY: failed once, passed alone (the output of the failure is above): $(tail -n 1 "$log.again")"
    fi
else
    grep -E '^seed[ =:]' "$log" | sort -u | head -n 12 || true
    grep -E '^SKIPPED.*Ray' "$log" | head -n 3 || true
    tail -n 1 "$log"
fi
exit "$status"
