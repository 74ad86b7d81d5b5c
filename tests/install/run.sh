#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh <build dir> <cmake> <cc>: installs into an empty prefix, moves it, and builds a program against it: by
# find_package (shared and static) and by pkg-config.
set -eu
build=$1 cmake=$2 cc=$3
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM

"$cmake" --install "$build" --prefix "$tmp/first" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
mv "$tmp/first" "$tmp/moved"
pc=$(find "$tmp/moved" -name klaw.pc)
lib=$(dirname "$(dirname "$pc")")
ls "$lib/libklaw.so.0" "$lib/libklaw.a" "$tmp/moved/include/klaw/klaw.h" >/dev/null

echo "find_package"
{ "$cmake" -G Ninja -S "$here/consumer" -B "$tmp/consumer" "-DCMAKE_PREFIX_PATH=$tmp/moved" "-DCMAKE_C_COMPILER=$cc" &&
    "$cmake" --build "$tmp/consumer"; } >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
"$tmp/consumer/consumer"
"$tmp/consumer/consumer_static"

echo "pkg-config"
export PKG_CONFIG_PATH="$lib/pkgconfig"
pkg-config --exists --print-errors klaw
# shellcheck disable=SC2046 # lists of flags
"$cc" -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags klaw) "$here/consumer/main.c" -o "$tmp/program" $(pkg-config --libs klaw)
LD_LIBRARY_PATH=$lib "$tmp/program"
readelf -d "$tmp/program" | grep -q 'NEEDED.*\[libklaw\.so\.0\]'
