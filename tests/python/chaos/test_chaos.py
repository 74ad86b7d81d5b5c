# SPDX-License-Identifier: Apache-2.0
"""The short form of `make chaos`: the same run, a few seconds of faults, each kind of them at least tried once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = "10"
LIMIT = 240.0  # for all of it: a machine may be slow at starting processes

pytestmark = pytest.mark.ray


def test_every_confirmed_item_is_received_and_doubles_are_marked() -> None:
    seed = os.environ.get("KLAW_SEED") or str(random.randrange(1 << 32))
    print("seed", seed)
    here = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos.driver", SECONDS, seed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate()
    print(output)
    assert process.returncode == 0
