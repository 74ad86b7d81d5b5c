#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# header.sh <include dir> <name> <compiler and flags...>: <klaw/name.h> compiles alone, and a second time after itself.
set -eu
include=$1 name=$2
shift 2
printf '#include <klaw/%s.h>\n#include <klaw/%s.h>\nint main(void) { return 0; }\n' "$name" "$name" |
    "$@" "-I$include" -c -o /dev/null -
