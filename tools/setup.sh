#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# setup.sh - puts in place what a make target needs, and nothing else.
#
#   tools/setup.sh build|test|python|ray|lint|valgrind|docs|coverage|fuzz|ui|aarch64|bench ...
#
# A missing package is installed by apt-get when that is possible (root, or sudo without a password); otherwise one
# line says what to install and the exit status is 1. A stamp under build/.setup makes the second call a few
# file tests. Set KLAW_NO_INSTALL=1 to be told instead of having packages installed.
# shellcheck disable=SC3013 # dash and bash both have -nt
set -eu
cd "$(dirname "$0")/.."

stamps=build/.setup
missing=
need() { # need <package> <test command...>: remember the package when the test fails
    package=$1
    shift
    "$@" >/dev/null 2>&1 || case " $missing " in
        *" $package "*) ;;
        *) missing="$missing $package" ;;
    esac
}
have() { command -v "$1"; }

# Every Python step runs in .venv; this finds the interpreter that makes it. ensurepip is what Debian splits off.
python_ok() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
find_python() {
    for python in ${PYTHON:-} python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if python_ok "$python"; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

# The headers of the interpreter that .venv has or will have.
python_headers() {
    python=.venv/bin/python
    [ -x "$python" ] || python=$(find_python)
    test -f "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"
}

# cmocka is found the way the build finds it: by compiling against it.
cmocka_ok() {
    printf '#include <stdarg.h>\n#include <stddef.h>\n#include <setjmp.h>\n#include <stdint.h>\n#include <cmocka.h>\n' |
        ${CC:-cc} -x c -E - && pkg-config --exists cmocka
}

# SQLite: header and library, as CMake's FindSQLite3 looks for them.
sqlite_ok() {
    printf '#include <sqlite3.h>\nint main(void) { return sqlite3_libversion_number() < 3034000; }\n' |
        ${CC:-cc} -x c - -o /dev/null -lsqlite3
}

# clang's libFuzzer and sanitizers, which Debian splits off.
fuzzer_ok() {
    printf 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d && n > 9999 ? 1 : 0; }\n' |
        clang -x c - -o /dev/null -fsanitize=fuzzer,address,undefined
}

chromium_there() { have chromium || have chromium-browser; }

build_needs() {
    need gcc have "${CC:-cc}"
    need libc6-dev sh -c "echo '#include <stdlib.h>' | ${CC:-cc} -x c -E -"
    need cmake have cmake
    need ninja-build have ninja
    need pkg-config have pkg-config
    need libsqlite3-dev sqlite_ok
    # For the klaw command only: CMake leaves it out where this is missing.
    need libjansson-dev pkg-config --exists jansson
    need libmicrohttpd-dev pkg-config --exists libmicrohttpd
}

needs_of() {
    case $1 in
        build) build_needs ;;
        test)
            build_needs
            need libcmocka-dev cmocka_ok
            need python3-venv find_python
            ;;
        python | ray | bench)
            needs_of test
            need python3-dev python_headers
            ;;
        lint)
            needs_of test
            need clang-format have clang-format
            need clang-tidy have clang-tidy
            need shellcheck have shellcheck
            ;;
        valgrind)
            needs_of test
            need valgrind have valgrind
            ;;
        ui)
            needs_of test
            need chromium chromium_there
            ;;
        docs)
            needs_of python
            need doxygen have doxygen
            ;;
        fuzz)
            needs_of test
            need clang have clang
            need libclang-rt-14-dev fuzzer_ok
            ;;
        coverage) needs_of test ;;
        aarch64)
            build_needs
            need gcc-aarch64-linux-gnu have aarch64-linux-gnu-gcc
            need libc6-dev-arm64-cross test -e /usr/aarch64-linux-gnu/include/stdlib.h
            need qemu-user-static sh -c 'command -v qemu-aarch64-static || command -v qemu-aarch64'
            ;;
        *)
            echo "setup.sh: unknown part '$1'" >&2
            exit 2
            ;;
    esac
}

# An installed tool that went away is noticed here: make clean, or a newer setup.sh, voids the stamps.
fresh() { [ "$stamps/$1" -nt tools/setup.sh ] && { [ -z "$2" ] || [ ".venv/.stamp-$2" -nt "tools/requirements-$2.txt" ]; }; }

requirements_of() {
    case $1 in
        test | valgrind) echo test ;;
        python) echo python ;;
        ray) echo ray ;;
        bench) echo bench ;;
        lint) echo lint ;;
        coverage) echo coverage ;;
        docs) echo docs ;;
        ui) echo ui ;;
    esac
}

install() {
    # apt names things its own way; elsewhere the line below still says what is wanted.
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "klaw needs these packages (Debian names), please install them:$missing" >&2
        return 1
    fi
    if [ "${KLAW_NO_INSTALL:-0}" = 1 ]; then
        root=no
    elif [ "$(id -u)" = 0 ]; then
        root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        root=no
    fi
    if [ "$root" = no ]; then
        echo "klaw needs packages, please run: sudo apt-get install$missing" >&2
        return 1
    fi
    echo "setup: installing$missing"
    mkdir -p "$stamps"
    # shellcheck disable=SC2086 # both are lists of words
    if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        >"$stamps/apt.log" 2>&1; then
        tail -n 15 "$stamps/apt.log" >&2
        echo "klaw needs packages that could not be installed, please run: sudo apt-get install$missing" >&2
        return 1
    fi
}

make_venv() { # make_venv <test|python|ray|bench|lint|coverage|docs|ui>
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv
        "$(find_python)" -m venv .venv
    fi
    log=.venv/pip-$1.log
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "tools/requirements-$1.txt" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "klaw could not install the Python packages of tools/requirements-$1.txt" >&2
        return 1
    fi
    touch ".venv/.stamp-$1"
}

for part in "$@"; do
    requirements=$(requirements_of "$part")
    if fresh "$part" "$requirements"; then
        continue
    fi
    missing=
    needs_of "$part"
    if [ -n "$missing" ]; then
        install
        missing=
        needs_of "$part"
        if [ -n "$missing" ]; then
            echo "klaw still misses, please install or upgrade (Python has to be 3.11 or later):$missing" >&2
            exit 1
        fi
    fi
    [ -z "$requirements" ] || make_venv "$requirements"
    mkdir -p "$stamps"
    touch "$stamps/$part"
done
