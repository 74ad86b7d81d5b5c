#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# exports.sh <libklaw.so>: every exported name starts with klaw_ (and none with klawi_), has a version and stands in
# cmake/symbols.txt, and the other way round; the soname is libklaw.so.0.
set -eu
list=$(dirname "$0")/../../cmake/symbols.txt
now=$(mktemp)
trap 'rm -f "$now"' EXIT INT TERM
nm -D --defined-only --with-symbol-versions "$1" | awk '$2 != "A" { sub(/@@/, "@", $3); print $3 }' | LC_ALL=C sort >"$now"
bad=$(awk '$1 !~ /^klaw_[a-z0-9_]*@KLAW_[0-9.]+$/ { printf " %s", $1 }' "$now")
if [ -n "$bad" ]; then
    echo "exported, but not klaw_* with a version:$bad" >&2
    exit 1
fi
if ! diff -u "$list" "$now" >&2; then
    echo "the exported names are not those of cmake/symbols.txt; if that is meant: tools/symbols.sh" >&2
    exit 1
fi
readelf -d "$1" | grep -q 'SONAME.*\[libklaw\.so\.0\]'
readelf -d "$1" | grep -q 'NODELETE'
if readelf -lW "$1" | grep 'GNU_STACK' | grep -q 'RWE'; then
    echo "the library asks for an executable stack" >&2
    exit 1
fi
