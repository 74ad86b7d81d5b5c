#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pytest.sh [pytest arguments...]: the tests of the Python package, against the one built in build/python.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/build/python/site
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
[ $# -gt 0 ] || set -- tests/python
exec .venv/bin/python -m pytest -q -p no:cacheprovider "$@"
