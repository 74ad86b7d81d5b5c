#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# lint.sh: every static check, all of them even when one fails. Needs build/debug configured (compile_commands.json).
set -u
cd "$(dirname "$0")/.." || exit 1
failed=()
part() { # part <name> <command...>
    local name=$1 start=$SECONDS output
    shift
    if output=$("$@" 2>&1); then
        echo "lint $name: ok ($((SECONDS - start)) s)"
        # Warnings do not fail, but they are shown.
        grep -E 'warning:' <<<"$output" || true
    else
        printf '%s\n' "$output"
        echo "lint $name: FAILED"
        failed+=("$name")
    fi
}
list() { # list <folder...> -- <pattern...>: the files there, one a line
    local folders=() names=()
    while [ "$1" != -- ]; do
        [ ! -d "$1" ] || folders+=("$1")
        shift
    done
    shift
    for pattern in "$@"; do names+=(-o -name "$pattern"); done
    [ ${#folders[@]} = 0 ] || find "${folders[@]}" -type f \( "${names[@]:1}" \) | sort
}

mapfile -t c_files < <(list include src cli python tests examples bench/klaw -- '*.c' '*.h')
# src/ray is built with the Python extension alone: build/debug does not know its flags.
mapfile -t src_files < <(list src -- '*.c' | grep -v '^src/ray/')
mapfile -t sh_files < <(list tools tests -- '*.sh'; echo .ci/run)
mapfile -t py_folders < <(for folder in tools tests bench python examples; do [ -z "$(list $folder -- '*.py')" ] || echo $folder; done)

tidy_one() { printf '%s\n' "${src_files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p build/debug; }

part tidy.py .venv/bin/python -B tools/tidy.py
part clang-format clang-format --dry-run -Werror "${c_files[@]}"
part shellcheck shellcheck -S style "${sh_files[@]}"
part ruff .venv/bin/ruff check --no-cache "${py_folders[@]}"
part ruff-format .venv/bin/ruff format --no-cache --check --quiet "${py_folders[@]}"
part mypy .venv/bin/mypy --strict --no-incremental --cache-dir=/dev/null tools python/klaw_core examples/python
# The stubs of the extension say what is in it, no more and no less.
stubs() { PYTHONPATH=$PWD/build/python/site MYPYPATH=python .venv/bin/stubtest --concise klaw_core._klaw; }
part stubtest stubs
# pyright itself comes from npm when it runs for the first time.
if .venv/bin/pyright --version >/dev/null 2>&1; then
    part pyright .venv/bin/pyright --pythonpath "$PWD/.venv/bin/python" --level error
else
    echo "lint pyright: skipped, it can't be had"
fi
part clang-tidy tidy_one

if [ ${#failed[@]} != 0 ]; then
    echo "lint: FAILED: ${failed[*]}"
    exit 1
fi
echo "lint: clean"
