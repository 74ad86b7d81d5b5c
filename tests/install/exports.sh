#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# exports.sh <libklaw.so>: every exported name starts with klaw_ (and none with klawi_), the soname is libklaw.so.0.
set -eu
bad=$(nm -D --defined-only "$1" | awk '$NF !~ /^klaw_/ { printf " %s", $NF }')
if [ -n "$bad" ]; then
    echo "exported, but not klaw_*:$bad" >&2
    exit 1
fi
readelf -d "$1" | grep -q 'SONAME.*\[libklaw\.so\.0\]'
readelf -d "$1" | grep -q 'NODELETE'
if readelf -lW "$1" | grep 'GNU_STACK' | grep -q 'RWE'; then
    echo "the library asks for an executable stack" >&2
    exit 1
fi
