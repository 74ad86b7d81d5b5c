#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs.sh: HTML of the public headers into build/docs/html. An undocumented public declaration fails it.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/docs
if ! doxygen docs/Doxyfile >build/docs/doxygen.log 2>&1; then
    cat build/docs/doxygen.log >&2
    echo "docs: FAILED" >&2
    exit 1
fi
echo "docs: build/docs/html/index.html"
