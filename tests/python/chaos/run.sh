#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh: the long form of the chaos suite: faults for KLAW_CHAOS_SECONDS (1800), a fifth of them with Ray's own RPC
# fault injection, then 5 000 waiting receivers. The accounts are printed and left in build/chaos. KLAW_SEED replays.
set -eu
cd "$(dirname "$0")/../../.."
PYTHONPATH=$PWD/build/python/site:$PWD/tests/python
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
seconds=${KLAW_CHAOS_SECONDS:-1800}
status=0
KLAW_CHAOS_RPC=1 .venv/bin/python -m chaos.driver $((seconds / 5)) || status=1
cp -f build/chaos/account.md build/chaos/account-rpc.md 2>/dev/null || true
.venv/bin/python -m chaos.driver $((seconds - seconds / 5)) || status=1
.venv/bin/python -m chaos.crowd || status=1
exit "$status"
