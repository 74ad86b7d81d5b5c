#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# python.sh: the Python package as its users get it. Makes an sdist of the tree, a wheel of the sdist, looks into both,
# installs the wheel into an empty environment and runs a program there, far from the tree. Takes from the network
# only what pip takes from the index it is configured for: build requirements and dependencies.
#
# PYTHON: the interpreter, or that of .venv.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM
# Nothing of the caller's: neither its home nor its Python settings nor the tools in its environment.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CMAKE_PREFIX_PATH
mkdir "$tmp/home" "$tmp/dist"
export HOME=$tmp/home PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
run() { "$@" >"$tmp/log" 2>&1 || { tail -n 60 "$tmp/log"; echo "FAILED: $*"; exit 1; }; }

# From a copy: what has been built here has no part in it.
mkdir "$tmp/tree"
tar -C "$root" --exclude=./build --exclude=./.venv --exclude=./.git -c . | tar -C "$tmp/tree" -x

run "$python" -m venv "$tmp/build"
run "$tmp/build/bin/python" -m pip install "scikit-build-core>=0.10,<1"
(cd "$tmp/tree" && run "$tmp/build/bin/python" -c \
    'import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])' "$tmp/dist")
sdist=$(echo "$tmp"/dist/klaw_core-*.tar.gz)
rm -rf "$tmp/tree"

start=$SECONDS
run "$tmp/build/bin/python" -m pip wheel --no-deps --wheel-dir "$tmp/dist" "$sdist"
wheel=$(echo "$tmp"/dist/klaw_core-*.whl)
echo "wheel: $(basename "$wheel"), $(($(stat -c %s "$wheel") / 1024)) KB, built in $((SECONDS - start)) s"

run "$python" -m venv "$tmp/fresh"
run "$tmp/fresh/bin/python" -m pip install "$wheel"
cd "$tmp/home"
"$tmp/build/bin/python" -I "$root/tests/install/python_contents.py" "$sdist" "$wheel"
"$tmp/fresh/bin/python" -I "$root/tests/install/python_smoke.py"
