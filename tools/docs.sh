#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs.sh: the manual as HTML into build/docs/html. An undocumented public declaration, a broken link or any other warning
# fails it.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/docs
if ! doxygen docs/Doxyfile >build/docs/doxygen.log 2>&1; then
    cat build/docs/doxygen.log >&2
    echo "docs: FAILED" >&2
    exit 1
fi
if ! PYTHONPATH="$PWD/build/python/site" .venv/bin/python -m sphinx -q -E -W --keep-going -j auto -d build/docs/doctrees -b html docs \
    build/docs/html >build/docs/sphinx.log 2>&1; then
    cat build/docs/sphinx.log >&2
    echo "docs: FAILED" >&2
    exit 1
fi
echo "docs: build/docs/html/index.html"
