#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dist.sh <source dir> <cmake> <cc>: the source archive is the same bytes made twice, under another umask, time zone and
# locale; what comes out of it configures and holds nothing that was built. Exit status 77: no git checkout here.
set -eu
source=$1 cmake=$2 cc=$3
git -C "$source" rev-parse HEAD >/dev/null 2>&1 || exit 77
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM
"$source/tools/dist.sh" "$tmp/a" >/dev/null
(umask 077 && TZ=Asia/Tokyo LC_ALL=C "$source/tools/dist.sh" "$tmp/b" >/dev/null)
cmp "$tmp"/a/klaw-*.tar.gz "$tmp"/b/klaw-*.tar.gz
(cd "$tmp/a" && sha256sum -c --quiet klaw-*.sha256)
tar -C "$tmp" -xzf "$tmp"/a/klaw-*.tar.gz
if tar -tzf "$tmp"/a/klaw-*.tar.gz | grep -E '\.(o|so|pyc|whl|gcda)$|/build/|/\.venv/'; then
    echo "that was built and does not belong into a source archive"
    exit 1
fi
"$cmake" -G Ninja -S "$tmp"/klaw-*/ -B "$tmp/build" "-DCMAKE_C_COMPILER=$cc" -DKLAW_TESTS=OFF >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
