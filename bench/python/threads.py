# SPDX-License-Identifier: Apache-2.0
"""Channels between OS threads, and from a thread to a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from cases import Clock, case, check

CAPACITY = 1024

Put = Callable[[int], Any]


def producer(put: Put, n: int) -> threading.Thread:
    """A thread, not yet started, that puts 0 ... n - 1."""

    def work() -> None:
        for i in range(n):
            put(i)

    return threading.Thread(target=work)


# ---- thread to task
async def into_task(put: Put, get: Callable[[], Awaitable[int]], n: int) -> float:
    total = 0
    thread = producer(put, n)
    with Clock(n) as c:
        thread.start()
        for _ in range(n):
            total += await get()
    thread.join()
    check(total, n * (n - 1) // 2)
    return c.ns


@case("py_thread_task", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    tx, rx = await klaw.channel(CAPACITY)
    return await into_task(tx.send_sync, rx.recv, 200_000)


@case("py_thread_task", "culsans", "culsans")
async def _(culsans: ModuleType) -> float:
    q = culsans.Queue(CAPACITY)
    return await into_task(q.sync_q.put, q.async_q.get, 20_000)


@case("py_thread_task", "janus", "janus")
async def _(janus: ModuleType) -> float:
    q = janus.Queue(CAPACITY)
    ns = await into_task(q.sync_q.put, q.async_q.get, 20_000)
    await q.aclose()
    return ns


@case("py_thread_task", "aiologic", "aiologic")
async def _(aiologic: ModuleType) -> float:
    q = aiologic.Queue(CAPACITY)
    return await into_task(q.green_put, q.async_get, 5_000)


@case("py_thread_task", "call_soon_threadsafe")
async def _() -> float:
    loop = asyncio.get_running_loop()
    q: asyncio.Queue[int] = asyncio.Queue()  # nobody could refuse: unbounded
    return await into_task(lambda i: loop.call_soon_threadsafe(q.put_nowait, i), q.get, 20_000)


# ---- thread to thread
def into_thread(put: Put, get: Callable[[], int], n: int) -> float:
    total = 0
    thread = producer(put, n)
    with Clock(n) as c:
        thread.start()
        for _ in range(n):
            total += get()
    thread.join()
    check(total, n * (n - 1) // 2)
    return c.ns


@case("py_threads", "klaw", "klaw_core.runtime")
def _(klaw: ModuleType) -> float:
    tx, rx = asyncio.run(klaw.channel(CAPACITY))
    return into_thread(tx.send_sync, rx.recv_sync, 300_000)


@case("py_threads", "queue.Queue", "queue")
def _(queue: ModuleType) -> float:
    q = queue.Queue(CAPACITY)
    return into_thread(q.put, q.get, 50_000)


@case("py_threads", "culsans", "culsans")
def _(culsans: ModuleType) -> float:
    q = culsans.Queue(CAPACITY).sync_q
    return into_thread(q.put, q.get, 20_000)


@case("py_threads", "aiologic", "aiologic")
def _(aiologic: ModuleType) -> float:
    q = aiologic.Queue(CAPACITY)
    return into_thread(q.green_put, q.green_get, 5_000)


@case("py_threads", "SimpleQueue", "queue")
def _(queue: ModuleType) -> float:
    q = queue.SimpleQueue()
    return into_thread(q.put, q.get, 300_000)


@case("py_threads", "multiprocessing.Queue", "multiprocessing")
def _(multiprocessing: ModuleType) -> float:
    q = multiprocessing.Queue(CAPACITY)
    ns = into_thread(q.put, q.get, 20_000)
    q.close()
    return ns
