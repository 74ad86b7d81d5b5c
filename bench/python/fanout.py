# SPDX-License-Identifier: Apache-2.0
"""One publisher, eight receivers: every item to each, or a value that each sees change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import ModuleType
from typing import Any

from cases import Clock, case, check

RECEIVERS = 8
BURST = 256
CAPACITY = 1024


async def fan(publish: Callable[[int], Awaitable[Any]], gets: list[Callable[[], Awaitable[int]]], bursts: int) -> float:
    """Bursts that fit into the queues; each is received by all before the next begins."""
    seen = total = 0

    async def consume(get: Callable[[], Awaitable[int]]) -> None:
        nonlocal seen, total
        for _ in range(bursts * BURST):
            item = await get()
            total += item
            seen += 1

    tasks = [asyncio.create_task(consume(get)) for get in gets]
    await asyncio.sleep(0)
    with Clock(bursts * BURST) as c:
        for burst in range(bursts):
            for i in range(burst * BURST, (burst + 1) * BURST):
                await publish(i)
            wanted = (burst + 1) * BURST * RECEIVERS
            while seen < wanted:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    n = bursts * BURST
    check(total, RECEIVERS * n * (n - 1) // 2)
    return c.ns


@case("py_fanout_8", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = klaw.broadcast(CAPACITY)
    receivers = [rx, *(tx.subscribe() for _ in range(RECEIVERS - 1))]
    return await fan(tx.send, [r.recv for r in receivers], 60)


@case("py_fanout_8", "asyncio")
async def _() -> float:
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(CAPACITY) for _ in range(RECEIVERS)]

    async def publish(i: int) -> None:
        for q in queues:
            await q.put(i)

    return await fan(publish, [q.get for q in queues], 20)


@case("py_fanout_8", "culsans", "culsans")
async def _(culsans: ModuleType) -> float:
    queues = [culsans.Queue(CAPACITY).async_q for _ in range(RECEIVERS)]

    async def publish(i: int) -> None:
        for q in queues:
            await q.put(i)

    return await fan(publish, [q.get for q in queues], 8)


@case("py_fanout_8", "anyio", "anyio")
async def _(anyio: ModuleType) -> float:
    streams = [anyio.create_memory_object_stream(CAPACITY) for _ in range(RECEIVERS)]

    async def publish(i: int) -> None:
        for tx, _ in streams:
            await tx.send(i)

    ns = await fan(publish, [rx.receive for _, rx in streams], 4)
    for tx, rx in streams:
        tx.close()
        rx.close()
    return ns


# ---- a watched value, all eight wait for each change
async def watched(
    publish: Callable[[int], Any], follow: Callable[[Callable[[int], bool]], Coroutine[Any, Any, None]], n: int
) -> float:
    """follow(saw): runs until saw(value) says that it was the last."""
    seen = 0

    def saw(value: int) -> bool:
        nonlocal seen
        seen += 1
        return value == n

    tasks = [asyncio.create_task(follow(saw)) for _ in range(RECEIVERS)]
    await asyncio.sleep(0)
    with Clock(n) as c:
        for i in range(1, n + 1):
            value = publish(i)
            if value is not None:
                await value
            while seen < RECEIVERS * i:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    check(seen, RECEIVERS * n)
    return c.ns


@case("py_watch_8", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = klaw.watch(0)

    async def follow(saw: Callable[[int], bool]) -> None:
        mine = tx.subscribe()
        while True:
            await mine.changed()
            if saw(mine.borrow()):
                return

    ns = await watched(tx.send, follow, 3_000)
    rx.close_sync()
    return ns


@case("py_watch_8", "Condition")
async def _() -> float:
    changed = asyncio.Condition()
    current = 0

    async def publish(i: int) -> None:
        nonlocal current
        async with changed:
            current = i
            changed.notify_all()

    async def follow(saw: Callable[[int], bool]) -> None:
        known = 0
        while True:
            async with changed:
                await changed.wait_for(lambda known=known: current != known)
                known = current
            if saw(known):
                return

    return await watched(publish, follow, 2_000)


@case("py_watch_8", "floor")
async def _() -> float:
    """Eight futures, which the publisher resolves one by one."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[int]] = []

    def publish(i: int) -> None:
        ready = waiting.copy()
        waiting.clear()
        for future in ready:
            future.set_result(i)

    async def follow(saw: Callable[[int], bool]) -> None:
        while True:
            future = loop.create_future()
            waiting.append(future)
            if saw(await future):
                return

    return await watched(publish, follow, 3_000)
