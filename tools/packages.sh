#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# packages.sh: what is handed out, into build/dist: the source archive of the last commit, the sdist and a wheel of the
# Python package, and (where dpkg-deb is) Debian packages.
set -eu
cd "$(dirname "$0")/.."
tools/dist.sh build/dist
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/dist .
if command -v dpkg-deb >/dev/null; then
    (cd build/release && cpack -G DEB -B ../dist >cpack.log 2>&1) || { cat build/release/cpack.log; exit 1; }
    rm -rf build/dist/_CPack_Packages
fi
ls -l build/dist
