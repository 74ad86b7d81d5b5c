#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C test and example starts through this. KLAW_TEST_LAUNCHER is a command that is put in front of it (valgrind,
# qemu-aarch64, setarch -R): the build stays as it is, only the run changes.
# shellcheck disable=SC2086 # a list of words
exec ${KLAW_TEST_LAUNCHER:-} "$@"
