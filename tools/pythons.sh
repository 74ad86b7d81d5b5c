#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# pythons.sh [version...]: the Python package under the other interpreters it supports (3.11 3.12 3.13): builds the
# extension in build/python-<version> and runs a slice of tests/python there, asyncio only. The interpreter of .venv is
# left out, for `make test-python` runs everything with it. One that is not on this machine is skipped with a notice.
#
# KLAW_PYTHONS_ALL=1: all of tests/python.
set -u
cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || set -- 3.11 3.12 3.13

# Whether this is a CPython of that version that can make a virtual environment and has its headers.
usable() { # usable <python> <version>
    "$1" - "$2" >/dev/null 2>&1 <<'PY'
import os, sys, sysconfig, venv, ensurepip
assert sys.argv[1] == "%d.%d" % sys.version_info[:2] and sys.implementation.name == "cpython"
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
PY
}

find_python() { # find_python <version>
    local python
    for python in "python$1" /usr/bin/"python$1" /usr/local/bin/"python$1" \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1".*/bin/python "$(uv python find --no-python-downloads "$1" 2>/dev/null)"; do
        if [ -n "$python" ] && usable "$python" "$1"; then
            # A shim of pyenv chooses by the folder it is called in: take what it stands for.
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

quiet() { # quiet <log> <command...>: its output only when it fails
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 40 "$log"; return 1; }
}

environment() { # environment <venv> <python>
    local stamp=$1/.stamp
    [ "$stamp" -nt tools/requirements-python.txt ] && [ "$stamp" -nt tools/requirements-test.txt ] && return
    rm -rf "$1"
    "$2" -m venv "$1" &&
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r tools/requirements-python.txt &&
        touch "$stamp"
}

build() { # build <folder>
    cmake --preset python -B "$1" "-DPython_EXECUTABLE=$PWD/$1-venv/bin/python" && ninja -C "$1"
}

run_tests() { # run_tests <folder>
    local slice=(tests/python/runtime/{test_result,test_channels,test_executor,test_actor,test_exit}.py tests/python/runtime/channels)
    [ "${KLAW_PYTHONS_ALL:-0}" = 0 ] || slice=(tests/python)
    # CPython's debug allocator finds what is used after it was freed, or without the GIL.
    # A test that measures or runs for long says so by its marker; trio and uvloop are 3.11's.
    PYTHONPATH=$PWD/$1/site PYTHONDONTWRITEBYTECODE=1 PYTHONMALLOC=debug "$1-venv/bin/python" -m pytest -q -p no:cacheprovider -x \
        -k "not trio and not uvloop and not test_docs and not stress and not hypothesis" "${slice[@]}"
}

main=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
failed=()
for version in "$@"; do
    start=$SECONDS
    folder=build/python-$version
    if [ "$version" = "$main" ]; then
        echo "python $version: see make test-python"
    elif ! python=$(find_python "$version"); then
        echo "python $version: skipped, there is no such interpreter (with headers and venv) on this machine"
    elif mkdir -p build && quiet "$folder.log" environment "$folder-venv" "$python" &&
        quiet "$folder.log" build "$folder" && quiet "$folder.log" run_tests "$folder"; then
        echo "python $version: $(tail -n 1 "$folder.log" | tr -d =) ($((SECONDS - start)) s in all)"
    else
        echo "python $version: FAILED, see $folder.log"
        failed+=("$version")
    fi
done
[ ${#failed[@]} = 0 ]
