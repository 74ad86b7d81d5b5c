# SPDX-License-Identifier: Apache-2.0
"""Cancelling a send or a receive at any moment loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from klaw_core._klaw import channel
from klaw_core.runtime.errors import ChannelClosedError


async def steps(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.mark.parametrize("capacity", [0, 1, 3])
@pytest.mark.parametrize("when", range(8))
def test_receive_cancelled_at_each_step(capacity: int, when: int) -> None:
    async def main() -> None:
        tx, rx = channel(capacity)
        waiting = [asyncio.create_task(rx.recv()) for _ in range(3)]
        sending = [asyncio.create_task(tx.send(i)) for i in range(3)]
        await steps(when)
        waiting[0].cancel()
        got = [r for r in await asyncio.gather(*waiting, return_exceptions=True) if isinstance(r, int)]
        if len(got) < 3:
            got.append(await rx.recv())
        await asyncio.gather(*sending)
        assert sorted(got) == [0, 1, 2]
        assert rx.stats().queue_size == 0

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("capacity", [0, 1])
@pytest.mark.parametrize("when", range(8))
def test_send_cancelled_at_each_step(capacity: int, when: int) -> None:
    async def main() -> None:
        tx, rx = channel(capacity)
        sending = [asyncio.create_task(tx.send(i)) for i in range(4)]
        receiving = asyncio.create_task(drain(rx))
        await steps(when)
        sending[2].cancel()
        ends = await asyncio.gather(*sending, return_exceptions=True)
        await tx.close()
        sent = [i for i, end in enumerate(ends) if end is None]
        assert await receiving == sent

    async def drain(rx) -> list[int]:
        return [item async for item in rx]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_random_cancellations_and_timeouts_account() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)

    async def sender(tx, first: int, sent: set[int]) -> None:
        for i in range(first, first + 200):
            while True:
                task = asyncio.create_task(tx.send(i))
                await steps(rng.randrange(4))
                if rng.random() < 0.3:
                    task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    continue
                sent.add(i)
                break

    async def receiver(rx, got: list[int]) -> None:
        while True:
            try:
                if rng.random() < 0.5:
                    got.append(await asyncio.wait_for(rx.recv(), rng.choice([0.0, 0.0001, 1])))
                else:
                    task = asyncio.create_task(rx.recv_batch(3))
                    await steps(rng.randrange(3))
                    task.cancel()
                    got.extend(await task)
            except (TimeoutError, asyncio.CancelledError):
                continue
            except ChannelClosedError:
                return

    async def main() -> None:
        for capacity in (0, 1, 2, 50):
            tx, rx = channel(capacity)
            sent: set[int] = set()
            got: list[int] = []
            receivers = [asyncio.create_task(receiver(rx, got)) for _ in range(3)]
            await asyncio.gather(*(sender(tx, k * 1000, sent) for k in range(3)))
            await tx.close()
            await asyncio.gather(*receivers)
            assert sorted(got) == sorted(sent)
            assert len(got) == 600

    asyncio.run(asyncio.wait_for(main(), 60))


def test_cancelled_tasks_and_threads_share_a_channel() -> None:
    n = 3000
    got: list[int] = []

    async def main() -> None:
        tx, rx = channel(4)

        def produce(k: int) -> None:
            mine = tx.clone()
            for i in range(n):
                mine.send_sync(k * n + i)
            mine.close_sync()

        threads = [threading.Thread(target=produce, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        while len(got) < 2 * n:
            task = asyncio.create_task(rx.recv())
            await asyncio.sleep(0)
            task.cancel()
            try:
                got.append(await task)
            except asyncio.CancelledError:
                got.append(await rx.recv())
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await tx.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(got) == list(range(2 * n))
    for k in range(2):
        assert [i for i in got if i // n == k] == [k * n + i for i in range(n)]
