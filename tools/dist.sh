#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dist.sh [folder]: the source archive of the last commit, klaw-<version>.tar.gz: the same bytes whoever makes it.
set -eu
cd "$(dirname "$0")/.."
out=${1:-build/dist}
version=$(sed -n 's/^#define KLAW_VERSION "\(.*\)"$/\1/p' include/klaw/klaw.h)
mkdir -p "$out"
# gzip -n: neither name nor time; git takes the files' times from the commit, whatever the umask and the user are here.
git -c tar.umask=0022 -c core.autocrlf=false archive --format=tar --prefix="klaw-$version/" HEAD | gzip -9 -n >"$out/klaw-$version.tar.gz"
(cd "$out" && sha256sum "klaw-$version.tar.gz" | tee "klaw-$version.tar.gz.sha256")
