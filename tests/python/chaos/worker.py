# SPDX-License-Identifier: Apache-2.0
"""A process of a chaos run: it sends on every channel, or receives from every channel, until it is killed or told.

    python -m chaos.worker ROLE ADDRESS FOLDER NAME [CHANNEL...]

ROLE: "sender", "receiver"; with "-task" behind it the work is done by a Ray task of this driver, so that the death of
the driver is that of the task, too. Its log is FOLDER/NAME.log (account.py tells the lines). It ends by files in
FOLDER: "quiet" (senders send no more, and keep what is not yet acknowledged), "end" (all close and leave).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

LANES = 8  # tasks of a sender a channel
IN_HAND = 0.0  # seconds a consumer works on an item
LOOK = 0.1  # seconds between two looks for the files


class Log:
    """Each line is in the kernel when the call returns: SIGKILL takes none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        """A line."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode("ascii"))


async def endpoints(channel: str) -> Any:
    """A pair; its actor may just be dead."""
    from klaw_core.runtime import BackendErrorException, ChannelBackendErrorException  # noqa: PLC0415
    from klaw_core.runtime.channels.ray import get_ray_channel  # noqa: PLC0415

    while True:
        with contextlib.suppress(ChannelBackendErrorException, BackendErrorException):
            pair = await get_ray_channel(channel)
            if pair is not None:
                return pair
        await asyncio.sleep(0.2)


async def lane(log: Log, tx: Any, channel: str, name: str, folder: Path, chance: random.Random) -> None:
    """Sends one item or batch after the other."""
    from klaw_core.runtime import (  # noqa: PLC0415
        ChannelBackendErrorException,
        ChannelClosedError,
        ChannelFullError,
        UncertainError,
    )

    number = 0
    while not (folder / "quiet").exists():
        for _ in range(64):
            size = chance.choice((1, 1, 1, 1, 1, 1, 1, 5))
            numbers = range(number, number + size)
            number += size
            for n in numbers:
                log.write("S", channel, name, n)
            try:
                if size == 1:
                    await tx.send([name, number - 1])
                else:
                    await tx.send_batch([[name, n] for n in numbers])
                now = time.monotonic()
                for n in numbers:
                    log.write("C", channel, name, n, now)
            except (ChannelClosedError, ChannelFullError, UncertainError) as error:
                # A broken channel says nothing of what was on its way; one that is closed or full does.
                sure = not isinstance(error, UncertainError | ChannelBackendErrorException)
                for n in numbers:
                    log.write("N" if sure else "U", channel, name, n)
                log.write("#", channel, type(error).__name__, str(error).replace(" ", "_"))
                await asyncio.sleep(0.2)
        await asyncio.sleep(0)


async def consume(log: Log, rx: Any, channel: str, explicit: bool) -> None:
    """Receives until the channel is closed."""
    from klaw_core.runtime import ChannelBackendErrorException, ChannelClosedError  # noqa: PLC0415

    while True:
        try:
            item = await rx.recv_item()
        except ChannelBackendErrorException as error:
            text = str(error)
            if "lost" in text:
                log.write("T", channel, next(word for word in text.split() if word.isdigit()))
            log.write("#", channel, type(error).__name__, text.replace(" ", "_"))
            await asyncio.sleep(0.2)
            continue
        except ChannelClosedError:
            return
        log.write("R", channel, *item.value, int(item.redelivered))
        if explicit:
            item.ack()


async def work(role: str, folder: Path, name: str, channels: list[str]) -> None:
    """The whole of a process."""
    log = Log(folder / f"{name}.log")
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    chance = random.Random(name)
    pairs = dict(zip(channels, await asyncio.gather(*map(endpoints, channels)), strict=True))
    tasks = []
    for channel, (tx, rx) in pairs.items():
        if role == "sender":
            for i in range(LANES):
                tasks.append(lane(log, tx.clone(), channel, f"{name}.{i}", folder, chance))
        else:
            tasks.append(consume(log, rx, channel, "explicit" in channel))
    running = [asyncio.create_task(task) for task in tasks]
    (folder / f"{name}.up").touch()
    while not (folder / "end").exists():
        await asyncio.sleep(LOOK)
        for task in running:
            if task.done() and role == "receiver":
                task.result()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def main(role: str, address: str, folder: str, name: str, *channels: str) -> None:
    """The program."""
    import ray  # noqa: PLC0415
    from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415

    kind, _, task = role.partition("-")
    ensure_ray(address, "klaw", timeout=120, log_to_driver=False)
    if not task:
        asyncio.run(work(kind, Path(folder), name, list(channels)))
        return

    @ray.remote(num_cpus=0, max_retries=0, resources={"side": 0.001})  # type: ignore[untyped-decorator]
    def elsewhere() -> None:
        from chaos.worker import work  # noqa: PLC0415

        asyncio.run(work(kind, Path(folder), name, list(channels)))

    ray.get(elsewhere.remote())


if __name__ == "__main__":
    main(*sys.argv[1:])
