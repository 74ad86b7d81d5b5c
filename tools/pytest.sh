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
# All of them: the closing lines and the seeds, or everything that was said when something failed.
log=build/python/pytest.log
status=0
.venv/bin/python -m pytest -q -p no:cacheprovider tests/python >"$log" 2>&1 || status=$?
echo "test python:"
if [ "$status" != 0 ]; then
    cat "$log"
else
    grep -E '^seed[ =:]' "$log" | sort -u | head -n 12 || true
    tail -n 1 "$log"
fi
exit "$status"
