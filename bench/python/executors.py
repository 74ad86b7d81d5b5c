# SPDX-License-Identifier: Apache-2.0
"""Executors: tasks on threads, 500 in flight, and a map of a tiny function over processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType
from typing import Any

from cases import Clock, case, check
from work import half

FLYING = 500
ROUNDS = 8
ITEMS = 200_000
PROCESSES = min(4, os.cpu_count() or 1)


@case("py_submit", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    total = 0
    async with klaw.Executor() as ex:
        await ex.submit(half, 1)
        with Clock(FLYING * ROUNDS) as c:
            for _ in range(ROUNDS):
                for task in [ex.submit(half, i) for i in range(FLYING)]:
                    total += (await task).value
    check(total, ROUNDS * sum(map(half, range(FLYING))))
    return c.ns


async def in_executor() -> float:
    loop = asyncio.get_running_loop()
    total = 0
    await loop.run_in_executor(None, half, 1)
    with Clock(FLYING * ROUNDS) as c:
        for _ in range(ROUNDS):
            total += sum(await asyncio.gather(*(loop.run_in_executor(None, half, i) for i in range(FLYING))))
    check(total, ROUNDS * sum(map(half, range(FLYING))))
    return c.ns


@case("py_submit", "run_in_executor")
async def _() -> float:
    return await in_executor()


@case("py_submit", "run_in_executor-uvloop", "uvloop")
def _(uvloop: ModuleType) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(in_executor())


def checked(got: list[Any]) -> None:
    """The whole of a map's answer."""
    check(len(got), ITEMS)
    check(sum(got), sum(map(half, range(ITEMS))))


@case("py_map_processes", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    async with klaw.Executor(concurrency=PROCESSES, workers="processes") as ex:
        await ex.map(half, range(ITEMS))  # all the processes are there
        with Clock(ITEMS) as c:
            got = await ex.map(half, range(ITEMS))
    checked([r.value for r in got])
    return c.ns


def pool_map(chunk: int) -> float:
    with multiprocessing.get_context("forkserver").Pool(PROCESSES) as pool:
        pool.map(half, range(ITEMS), chunk)
        with Clock(ITEMS) as c:
            got = pool.map(half, range(ITEMS), chunk)
    checked(got)
    return c.ns


@case("py_map_processes", "Pool-1000")
def _() -> float:
    return pool_map(1000)


@case("py_map_processes", "Pool-10000")
def _() -> float:
    return pool_map(10_000)


@case("py_map_processes", "ProcessPoolExecutor-1000")
def _() -> float:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(half, range(ITEMS), chunksize=1000))
        with Clock(ITEMS) as c:
            got = list(pool.map(half, range(ITEMS), chunksize=1000))
    checked(got)
    return c.ns
