#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# symbols.sh <libklaw.so>: writes cmake/symbols.txt, the list of what the library exports, anew. Look at the difference:
# a name that went away breaks programs.
set -eu
cd "$(dirname "$0")/.."
nm -D --defined-only --with-symbol-versions "${1:-build/release/libklaw.so}" |
    awk '$2 != "A" { sub(/@@/, "@", $3); print $3 }' | LC_ALL=C sort >cmake/symbols.txt
wc -l <cmake/symbols.txt
