# SPDX-License-Identifier: Apache-2.0
"""Channels within one event loop: send and receive, with and without waiting, two tasks, ping-pong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from cases import Clock, case, check

CAPACITY = 1024

Put = Callable[[int], Awaitable[Any]]
Get = Callable[[], Awaitable[Any]]


# ---- await send + await recv, never full
async def pairs(put: Put, get: Get, n: int) -> float:
    total = 0
    with Clock(n) as c:
        for i in range(n):
            await put(i)
            total += await get()
    check(total, n * (n - 1) // 2)
    return c.ns


@case("py_send_recv", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = await klaw.channel(CAPACITY)
    return await pairs(tx.send, rx.recv, 200_000)


@case("py_send_recv", "asyncio")
async def _() -> float:
    q: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
    return await pairs(q.put, q.get, 100_000)


@case("py_send_recv", "aiologic", "aiologic")
async def _(aiologic: ModuleType) -> float:
    q = aiologic.Queue(CAPACITY)
    return await pairs(q.async_put, q.async_get, 50_000)


@case("py_send_recv", "culsans", "culsans")
async def _(culsans: ModuleType) -> float:
    q = culsans.Queue(CAPACITY).async_q
    return await pairs(q.put, q.get, 50_000)


@case("py_send_recv", "janus", "janus")
async def _(janus: ModuleType) -> float:
    q = janus.Queue(CAPACITY)
    ns = await pairs(q.async_q.put, q.async_q.get, 50_000)
    await q.aclose()
    return ns


@case("py_send_recv", "anyio", "anyio")
async def _(anyio: ModuleType) -> float:
    tx, rx = anyio.create_memory_object_stream(CAPACITY)
    with tx, rx:
        return await pairs(tx.send, rx.receive, 20_000)


# ---- the same without await
def now(put: Callable[[int], Any], get: Callable[[], Any], n: int) -> tuple[float, Any]:
    """The time and the last answer."""
    got = None
    with Clock(n) as c:
        for i in range(n):
            put(i)
            got = get()
    return c.ns, got


@case("py_send_recv_sync", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = await klaw.channel(CAPACITY)
    ns, got = now(tx.try_send_sync, rx.try_recv_sync, 300_000)
    check(got, klaw.Ok(299_999))
    return ns


@case("py_send_recv_sync", "asyncio")
async def _() -> float:
    q: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
    ns, got = now(q.put_nowait, q.get_nowait, 100_000)
    check(got, 99_999)
    return ns


@case("py_send_recv_sync", "anyio", "anyio")
async def _(anyio: ModuleType) -> float:
    tx, rx = anyio.create_memory_object_stream(CAPACITY)
    with tx, rx:
        ns, got = now(tx.send_nowait, rx.receive_nowait, 100_000)
    check(got, 99_999)
    return ns


@case("py_send_recv_sync", "queue.Queue", "queue")
def _(queue: ModuleType) -> float:
    q = queue.Queue(CAPACITY)
    ns, got = now(q.put_nowait, q.get_nowait, 100_000)
    check(got, 99_999)
    return ns


@case("py_send_recv_sync", "SimpleQueue", "queue")
def _(queue: ModuleType) -> float:
    q = queue.SimpleQueue()
    ns, got = now(q.put, q.get_nowait, 300_000)
    check(got, 299_999)
    return ns


# ---- producer and consumer tasks
async def flow(put: Put, get: Get, n: int) -> float:
    async def produce() -> None:
        for i in range(n):
            await put(i)

    async def consume() -> int:
        total = 0
        for _ in range(n):
            total += await get()
        return total

    with Clock(n) as c:
        consumer = asyncio.create_task(consume())
        await asyncio.gather(asyncio.create_task(produce()), consumer)
    check(consumer.result(), n * (n - 1) // 2)
    return c.ns


@case("py_tasks", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = await klaw.channel(CAPACITY)
    return await flow(tx.send, rx.recv, 200_000)


@case("py_tasks", "asyncio")
async def _() -> float:
    q: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
    return await flow(q.put, q.get, 100_000)


@case("py_tasks", "anyio", "anyio")
async def _(anyio: ModuleType) -> float:
    tx, rx = anyio.create_memory_object_stream(CAPACITY)
    with tx, rx:
        return await flow(tx.send, rx.receive, 20_000)


@case("py_tasks", "culsans", "culsans")
async def _(culsans: ModuleType) -> float:
    q = culsans.Queue(CAPACITY).async_q
    return await flow(q.put, q.get, 50_000)


@case("py_tasks", "aiologic", "aiologic")
async def _(aiologic: ModuleType) -> float:
    q = aiologic.Queue(CAPACITY)
    return await flow(q.async_put, q.async_get, 20_000)


@case("py_tasks", "trio", "trio")
def _(trio: ModuleType) -> float:
    n = 20_000

    async def produce(tx: Any) -> None:
        for i in range(n):
            await tx.send(i)

    async def main() -> float:
        tx, rx = trio.open_memory_channel(CAPACITY)
        total = 0
        with Clock(n) as c:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(produce, tx)
                for _ in range(n):
                    total += await rx.receive()
        check(total, n * (n - 1) // 2)
        return c.ns

    ns: float = trio.run(main)
    return ns


# ---- ping-pong of two tasks, a round trip
async def pingpong(put: Put, get: Get, put_back: Put, get_back: Get, n: int) -> float:
    async def echo() -> None:
        for _ in range(n):
            await put_back(await get())

    task = asyncio.create_task(echo())
    await asyncio.sleep(0)
    total = 0
    with Clock(n) as c:
        for i in range(n):
            await put(i)
            total += await get_back()
    await task
    check(total, n * (n - 1) // 2)
    return c.ns


@case("py_pingpong", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = await klaw.channel(1)
    tx2, rx2 = await klaw.channel(1)
    return await pingpong(tx.send, rx.recv, tx2.send, rx2.recv, 20_000)


@case("py_pingpong", "asyncio")
async def _() -> float:
    a: asyncio.Queue[int] = asyncio.Queue(1)
    b: asyncio.Queue[int] = asyncio.Queue(1)
    return await pingpong(a.put, a.get, b.put, b.get, 20_000)


@case("py_pingpong", "janus", "janus")
async def _(janus: ModuleType) -> float:
    a, b = janus.Queue(1), janus.Queue(1)
    ns = await pingpong(a.async_q.put, a.async_q.get, b.async_q.put, b.async_q.get, 10_000)
    await a.aclose()
    await b.aclose()
    return ns


@case("py_pingpong", "anyio", "anyio")
async def _(anyio: ModuleType) -> float:
    tx, rx = anyio.create_memory_object_stream(1)
    tx2, rx2 = anyio.create_memory_object_stream(1)
    with tx, rx, tx2, rx2:
        return await pingpong(tx.send, rx.receive, tx2.send, rx2.receive, 10_000)


@case("py_pingpong", "trio", "trio")
def _(trio: ModuleType) -> float:
    n = 10_000

    async def echo(rx: Any, tx: Any) -> None:
        for _ in range(n):
            await tx.send(await rx.receive())

    async def main() -> float:
        tx, rx = trio.open_memory_channel(1)
        tx2, rx2 = trio.open_memory_channel(1)
        total = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, rx, tx2)
            with Clock(n) as c:
                for i in range(n):
                    await tx.send(i)
                    total += await rx2.receive()
        check(total, n * (n - 1) // 2)
        return c.ns

    ns: float = trio.run(main)
    return ns


@case("py_pingpong", "floor")
async def _() -> float:
    """The least a loop can do: two tasks that wake each other by asyncio's futures, written in C, and call_soon."""
    n = 20_000
    loop = asyncio.get_running_loop()
    there = loop.create_future()

    async def echo() -> None:
        nonlocal there, back
        for _ in range(n):
            await there
            there = loop.create_future()
            back.set_result(None)

    back = loop.create_future()
    task = asyncio.create_task(echo())
    await asyncio.sleep(0)
    with Clock(n) as c:
        for _ in range(n):
            there.set_result(None)
            await back
            back = loop.create_future()
    await task
    return c.ns
