# SPDX-License-Identifier: Apache-2.0
"""5 000 receivers wait in eight processes while one sender sends.

    PYTHONPATH=build/python/site:tests/python python -m chaos.crowd [RECEIVERS [PROCESSES]]

Reported: how long a send takes, the actor's memory for each receiver that waits, how soon a killed process is noticed.
Asserted: nothing dies, all items arrive, and the memory within three times its goal of 2 kB. No timing decides.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[3] / "build" / "chaos"
SENDS = 2000
GOAL = 2048  # bytes a receiver
LIMIT = 120.0  # seconds for a step


def rss(pid: int) -> int:
    """Bytes a process has for itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    return 0


async def eventually(condition: Any) -> None:
    """Waits for it, within the limit."""
    end = time.monotonic() + LIMIT
    while not await condition():
        if time.monotonic() > end:
            raise SystemExit(f"not so after {LIMIT:g} s: {condition.__name__}")
        await asyncio.sleep(0.05)


async def crowd(receivers: int, processes: int) -> str:
    """The whole of it; what it measured."""
    import ray  # noqa: PLC0415
    from klaw_core.runtime.channels.ray import ray_channel  # noqa: PLC0415

    @ray.remote(num_cpus=0, max_restarts=0)
    class Process:
        """Some of the receivers."""

        def __init__(self, rx: Any) -> None:
            self.rx = rx
            self.got = 0

        async def pid(self) -> int:
            return os.getpid()

        async def receive(self, n: int) -> None:
            async def one(end: Any) -> None:
                while True:
                    await end.recv()
                    self.got += 1

            self.tasks = [asyncio.create_task(one(self.rx.clone())) for _ in range(n)]

        async def received(self) -> int:
            return self.got

    tx, rx = await ray_channel(10_000)
    await tx.send(None)
    await rx.recv()
    rx.ack()
    crowds = [Process.remote(rx) for _ in range(processes)]
    pids = await asyncio.gather(*(each.pid.remote() for each in crowds))
    each_has = receivers // processes

    async def stats() -> Any:
        return await tx.stats_async()

    async def waiting(n: int) -> bool:
        return bool((await stats()).receiver_count >= n)

    await asyncio.gather(*(each.receive.remote(1) for each in crowds))  # what a process costs is not a receiver's
    await eventually(lambda: waiting(processes + 1))
    actor = (await stats()).backend_extras["pid"]
    before = rss(actor)
    begun = time.monotonic()
    await asyncio.gather(*(each.receive.remote(each_has - 1) for each in crowds))
    await eventually(lambda: waiting(processes * each_has + 1))
    took = time.monotonic() - begun
    memory = (rss(actor) - before) / (processes * (each_has - 1))
    times = []
    for i in range(SENDS):
        begun = time.monotonic()
        await tx.send(i)
        times.append(time.monotonic() - begun)
    times.sort()

    async def all_there() -> bool:
        return sum(await asyncio.gather(*(each.received.remote() for each in crowds))) == SENDS

    await eventually(all_there)
    was = await stats()
    os.kill(pids[0], signal.SIGKILL)
    begun = time.monotonic()

    async def noticed() -> bool:
        now = await stats()
        return bool(was.receiver_count - now.receiver_count >= each_has)

    await eventually(noticed)
    death = time.monotonic() - begun
    for each in crowds[1:]:
        ray.kill(each)
    if memory > 3 * GOAL:
        raise SystemExit(f"{memory:.0f} bytes of the actor for a receiver that waits: more than {3 * GOAL}")
    return (
        f"{processes * each_has} receivers in {processes} processes (all waiting after {took:.1f} s), one sender:"
        f" a send takes {times[len(times) // 2] * 1e3:.1f} ms (median), {times[len(times) * 99 // 100] * 1e3:.1f} ms"
        f" (p99), {times[-1] * 1e3:.1f} ms (most); {memory:.0f} bytes of the actor for each receiver;"
        f" a killed process is noticed after {death:.1f} s.\n"
    )


def main() -> int:
    """The program."""
    receivers = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    home = Path(tempfile.mkdtemp(prefix="kc-"))
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(16),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        RAY_TMPDIR=str(home),
    )
    from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415

    ray = ensure_ray("local", "klaw", num_cpus=2, object_store_memory=100 << 20, log_to_driver=False)
    try:
        text = asyncio.run(crowd(receivers, processes))
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "crowd.md").write_text(text, encoding="utf-8")
        print(text, end="")
    finally:
        ray.shutdown()
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
