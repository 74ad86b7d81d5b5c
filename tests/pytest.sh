#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pytest.sh <folder under tests>...: runs them with .venv's Python; 77 (skipped) when `make test` never made it.
set -eu
cd "$(dirname "$0")"
python=../.venv/bin/python
if [ ! -x "$python" ]; then
    echo "skipped: no .venv here; 'make test' makes it" >&2
    exit 77
fi
for folder in "$@"; do
    shift
    [ ! -d "$folder" ] || set -- "$@" "$folder"
done
exec "$python" -B -m pytest -q -p no:cacheprovider "$@"
