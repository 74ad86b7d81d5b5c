# SPDX-License-Identifier: Apache-2.0
"""klaw channel: lines and JSON between a shell and Python, over named channels."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core import _klaw  # noqa: E402
from klaw_core.runtime.channels.ray import delete_ray_channel, ray_channel  # noqa: E402

from .support import aio  # noqa: E402

KLAW = Path(_klaw.__file__).resolve().parents[2] / "bin" / "klaw"
pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_init"),
    pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build"),
]
VALUES = [1, -1, -33, 2**40, -(2**40), 1.5, "text", "", None, True, False, [], [1, [2]], {"a": {"b": "\u00e4" * 300}}]


@pytest.fixture
def klaw(ray_init: Any) -> Any:
    address = ray_init["address"] if "address" in ray_init else ray_init["gcs_address"]

    def run(*args: str, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [KLAW, "channel", *args],
            input=given,
            env=os.environ | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code in (0, 1) else done.stderr

    return run


@aio
async def test_lines_and_values_from_a_shell_reach_python(klaw: Any) -> None:
    tx, rx = await ray_channel(100, name="from shell", codec="msgpack")
    await tx.send(0)  # it has a sender that stays
    assert await rx.recv() == 0
    lines = "".join(json.dumps(v) + "\n" for v in VALUES)
    await asyncio.to_thread(lambda: klaw("send", "--json", "from shell", given=lines))
    assert [await rx.recv() for _ in VALUES] == VALUES
    await asyncio.to_thread(lambda: klaw("send", "from shell", given="one\ntwo words\n\nlast"))
    assert [await rx.recv() for _ in range(4)] == ["one", "two words", "", "last"]
    await asyncio.to_thread(delete_ray_channel, "from shell")


@aio
async def test_what_python_sends_comes_out_as_lines(klaw: Any) -> None:
    tx, rx = await ray_channel(100, name="to shell", codec="msgpack")
    await tx.send(0)
    assert await rx.recv() == 0  # it has a receiver that stays
    for value in [*VALUES, {"raw": b"\x00\xff"}]:
        await tx.send(value)
    said = await asyncio.to_thread(lambda: klaw("recv", "--json", "-n", str(len(VALUES) + 1), "to shell"))
    assert [json.loads(line) for line in said.splitlines()] == [*VALUES, {"raw": {"base16": "00ff"}}]
    await tx.send("next")
    assert await asyncio.to_thread(lambda: klaw("recv", "-t", "3s", "to shell", code=1)) == "next\n"
    await rx.close()
    await tx.close()
    await asyncio.to_thread(delete_ray_channel, "to shell")


@aio
async def test_a_channel_is_made_listed_and_removed(klaw: Any) -> None:
    await asyncio.to_thread(lambda: klaw("send", "--make", "--json", "made", given='{"n": 7}\nnot json\n', code=1))
    assert json.loads(await asyncio.to_thread(lambda: klaw("recv", "--json", "-n", "1", "made"))) == {"n": 7}
    assert "made\n" in await asyncio.to_thread(klaw, "ls")
    assert "missing" in await asyncio.to_thread(lambda: klaw("rm", "made", "missing", code=2))
