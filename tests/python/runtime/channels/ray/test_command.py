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
from klaw_core.runtime.channels.ray import delete_ray_channel, ray_channel, ray_watch_channel  # noqa: E402

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

    run.address = address  # type: ignore[attr-defined]
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


@pytest.mark.slow
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


@pytest.mark.slow
@aio
async def test_a_channel_is_made_listed_and_removed(klaw: Any) -> None:
    await asyncio.to_thread(lambda: klaw("send", "--make", "--json", "made", given='{"n": 7}\nnot json\n', code=1))
    assert json.loads(await asyncio.to_thread(lambda: klaw("recv", "--json", "-n", "1", "made"))) == {"n": 7}
    assert "made\n" in await asyncio.to_thread(klaw, "ls")
    assert "missing" in await asyncio.to_thread(lambda: klaw("rm", "made", "missing", code=2))


@pytest.mark.slow
@aio
async def test_stats_and_tail_look_without_taking_or_counting(klaw: Any) -> None:
    tx, rx = await ray_channel(100, name="looked at", codec="msgpack")
    await tx.send("taken")
    assert await rx.recv() == "taken"
    for n in range(5):
        await tx.send(f"text {n}")
    await tx.send({"n": 5})
    said = await asyncio.to_thread(lambda: klaw("stats", "--json", "looked at"))
    stats = json.loads(said)
    wanted = {"name": "looked at", "kind": "queue", "ack": "next", "capacity": 100, "senders": 1, "receivers": 1}
    assert wanted.items() <= stats.items() and stats["total_sent"] == 7 and stats["senders_closed"] is False
    assert stats["queued"] + stats["leased"] + stats["total_received"] == 7 and stats["high_watermark"] >= 1
    assert stats["lost"] == stats["redelivered"] == stats["duplicates"] == 0
    assert "queue of 100, ack next\n" in await asyncio.to_thread(lambda: klaw("stats", "looked at"))
    assert "missing" in await asyncio.to_thread(lambda: klaw("stats", "missing", code=2))
    assert "missing" in await asyncio.to_thread(lambda: klaw("tail", "missing", code=2))
    assert "text 4" not in await asyncio.to_thread(lambda: klaw("tail", "-n", "1", "looked at", code=1))  # no text
    lines = await asyncio.to_thread(lambda: klaw("tail", "--json", "-n", "2", "looked at"))
    assert [json.loads(line) for line in lines.splitlines()] == ["text 4", {"n": 5}]
    assert [await rx.recv() for _ in range(6)] == [*(f"text {n}" for n in range(5)), {"n": 5}]
    await asyncio.to_thread(delete_ray_channel, "looked at")


@pytest.mark.slow
@aio
async def test_a_tail_follows_until_the_channel_is_removed(klaw: Any) -> None:
    tx, rx = await ray_channel(5000, name="followed", codec="msgpack")
    for n in range(3):
        await tx.send(n)
    tail = await asyncio.create_subprocess_exec(
        KLAW,
        *("channel", "tail", "--json", "-f", "-n", "2", "--every", "50ms", "followed"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"RAY_ADDRESS": klaw.address},
    )
    assert tail.stdout
    assert [await asyncio.wait_for(tail.stdout.readline(), 50) for _ in range(2)] == [b"1\n", b"2\n"]
    await tx.send_batch(list(range(3, 2500)))  # more than one look brings
    assert [int(await asyncio.wait_for(tail.stdout.readline(), 50)) for _ in range(3, 2500)] == list(range(3, 2500))
    assert await rx.recv() == 0
    await asyncio.to_thread(delete_ray_channel, "followed")
    assert await asyncio.wait_for(tail.wait(), 50) == 0
    assert await tail.stdout.read() == b""


@pytest.mark.slow
@aio
async def test_a_watch_has_counters_and_no_tail(klaw: Any) -> None:
    tx, _ = await ray_watch_channel(1, name="seen", codec="msgpack")
    await tx.send(2)
    assert json.loads(await asyncio.to_thread(lambda: klaw("stats", "--json", "seen")))["kind"] == "watch"
    assert "no queue" in await asyncio.to_thread(lambda: klaw("tail", "seen", code=3))
    await asyncio.to_thread(delete_ray_channel, "seen")
