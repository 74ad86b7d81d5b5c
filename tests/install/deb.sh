#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# deb.sh <build dir> <cpack> <cc>: makes the Debian packages, unpacks them into an empty folder, and builds and runs a
# program against what is there. Exit status 77: no dpkg-deb here.
set -eu
build=$1 cpack=$2 cc=$3
here=$(cd "$(dirname "$0")" && pwd)
command -v dpkg-deb >/dev/null || exit 77
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM

"$cpack" -G DEB --config "$build/CPackConfig.cmake" -B "$tmp/out" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
for name in libklaw0 libklaw-dev; do
    deb=$(find "$tmp/out" -maxdepth 1 -name "${name}_*.deb")
    [ -n "$deb" ] || { echo "no package $name was made"; ls "$tmp/out"; exit 1; }
    dpkg-deb -x "$deb" "$tmp/root"
    dpkg-deb -f "$deb" Package Version Depends
done
dpkg-deb -f "$(find "$tmp/out" -maxdepth 1 -name 'libklaw0_*.deb')" Depends | grep -q sqlite3
for deb in "$tmp"/out/klaw_*.deb "$tmp"/out/libklaw-ray0_*.deb; do
    [ ! -e "$deb" ] || dpkg-deb -x "$deb" "$tmp/root"
done
if dpkg-deb -c "$(find "$tmp/out" -maxdepth 1 -name 'libklaw0_*.deb')" | grep -E '\.(h|a|pc|cmake)$|libklaw\.so$'; then
    echo "that belongs into libklaw-dev"
    exit 1
fi
lib=$(dirname "$(find "$tmp/root" -name 'libklaw.so.0')")
PKG_CONFIG_PATH="$lib/pkgconfig"
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # lists of flags
"$cc" "$here/consumer/main.c" -o "$tmp/consumer" $(pkg-config --cflags --libs klaw)
LD_LIBRARY_PATH="$lib" "$tmp/consumer"
if [ -x "$tmp/root/usr/bin/klaw" ]; then
    LD_LIBRARY_PATH="$lib" "$tmp/root/usr/bin/klaw" --version
fi
ray=$(find "$tmp/out" -maxdepth 1 -name 'libklaw-ray0_*.deb')
if [ -n "$ray" ]; then
    dpkg-deb -f "$ray" Package Version Depends
    dpkg-deb -f "$ray" Depends | grep -Eq 'libklaw0 .*python3\.[0-9]+.*libpython3\.[0-9]+'
    if readelf -d "$lib/libklaw_ray.so.0" | grep -E 'NEEDED.*(libpython|libklaw)|R(UN)?PATH'; then
        echo "libklaw-ray0 finds those when it runs"
        exit 1
    fi
    # libklaw finds it beside itself, and it starts the interpreter it is told to: not a real one here.
    printf '#!/bin/sh\necho 2.7; echo /nowhere/python; echo libpython2.7.so; echo 1\n' >"$tmp/python"
    chmod +x "$tmp/python"
    if [ -x "$tmp/root/usr/bin/klaw" ]; then
        said=$(LD_LIBRARY_PATH="$lib" KLAW_PYTHON="$tmp/python" "$tmp/root/usr/bin/klaw" channel ls 2>&1) && exit 1
        echo "$said" | grep 'libklaw_ray was built for Python'
    fi
fi
