#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# python_asan.sh [pytest arguments...]: tests of the Python package with the extension and libklaw built with the
# address and undefined behaviour sanitizers (build/python-asan). Without arguments a slice of them.
#
# CPython itself is not instrumented: the sanitizers' libraries are loaded before it, and its objects come from malloc
# (PYTHONMALLOC), so that a use after free of one of them is seen too. What CPython leaks at its end is suppressed;
# klaw's own memory is not, and leaks of Python objects are tests/python/runtime/test_leaks.py's business.
set -eu
cd "$(dirname "$0")/.."
build=$PWD/build/python-asan
suppressions=$build/lsan-suppressions.txt
# Objects of threads that end with the process, of the interpreter's own tables.
printf 'leak:%s\n' gc_alloc _PyObject_GC_New _PyObject_GC_NewVar _PyType_AllocNoTrack PyThread_allocate_lock \
    thread_PyThread_start_new_thread PyUnicode_New new_keys_object >"$suppressions"
[ $# -gt 0 ] || set -- tests/python/runtime/test_result.py tests/python/runtime/test_channels.py \
    tests/python/runtime/test_checkpoint.py tests/python/runtime/test_supervisor.py tests/python/runtime/test_exit.py \
    tests/python/runtime/test_leaks.py tests/python/runtime/channels -k "not header"
log=$build/pytest.log
status=0
# The sanitized libklaw has more thread-local memory than glibc keeps free for libraries that come late.
env PYTHONPATH="$build/site" PYTHONDONTWRITEBYTECODE=1 PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0" \
    GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536 \
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
    .venv/bin/python -m pytest -q -p no:cacheprovider "$@" >"$log" 2>&1 || status=$?
echo "test python asan:"
if [ "$status" != 0 ]; then
    cat "$log"
else
    tail -n 1 "$log"
fi
exit "$status"
