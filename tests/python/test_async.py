# SPDX-License-Identifier: Apache-2.0
"""AsyncResult, the async_* tools and the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok, Result, UnwrapError
from klaw_core.runtime import (
    AsyncResult,
    TaskCancelledError,
    async_buffered,
    async_chunked,
    async_collect,
    async_filter,
    async_first_ok,
    async_lru_safe,
    async_map,
    async_merge,
    async_partition,
    async_race_ok,
)

pytestmark = pytest.mark.anyio


async def half(n: int) -> Result[int, str]:
    await anyio.sleep(0)
    return Err(f"{n} is odd") if n % 2 else Ok(n // 2)


class Count:
    """How many run, and whether all were ended."""

    def __init__(self) -> None:
        self.now = self.most = self.cancelled = 0

    async def forever(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.sleep(60)
        finally:
            self.now -= 1
            self.cancelled += 1

    async def step(self, n: Any = None) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(3):
            await anyio.sleep(0)
        self.now -= 1
        return n


# --- AsyncResult ---
async def test_steps_run_one_after_the_other_and_stop_at_an_err() -> None:
    assert await AsyncResult(half(8)).and_then(half).map(str) == Ok("2")
    assert await AsyncResult(half(6)).and_then(half).map(str) == Err("3 is odd")
    assert await AsyncResult(half(3)).map_err(len).or_else(lambda n: Ok(n)) == Ok(8)
    assert await AsyncResult.ok(1).map_err(str).or_else(half) == Ok(1)


async def test_the_ends() -> None:
    assert await AsyncResult.ok(1).unwrap() == 1
    assert await AsyncResult.err("no").unwrap_or(2) == 2
    assert await AsyncResult.err(4).unwrap_or_else(lambda n: n + 1) == 5
    assert await AsyncResult.ok(1).is_ok() and await AsyncResult.err(1).is_err()
    with pytest.raises(UnwrapError):
        await AsyncResult.err("no").expect("wanted")


# --- tools ---
async def test_collect() -> None:
    assert await async_collect([half(2), half(4)]) == Ok([1, 2])
    assert await async_collect([]) == Ok([])
    count = Count()
    assert await async_collect([count.forever(), half(3), count.forever()], concurrency=3) == Err("3 is odd")
    assert count.now == 0 and count.cancelled == count.most


async def test_race_ok() -> None:
    count = Count()
    assert await async_race_ok([count.forever(), half(3), half(8)]) == Ok(4)
    assert count.now == 0
    assert await async_race_ok([half(1), half(3)]) == Err(["1 is odd", "3 is odd"])
    assert await async_race_ok([]) == Err([])


async def test_first_ok_tries_one_after_the_other() -> None:
    assert await async_first_ok([half(1), half(4), half(2)]) == Ok(2)
    assert await async_first_ok([half(1)]) == Err(["1 is odd"])


async def test_partition_map_filter() -> None:
    assert await async_partition([half(n) for n in range(4)]) == ([0, 1], ["1 is odd", "3 is odd"])
    assert await async_map(half, [2, 3]) == [Ok(1), Err("3 is odd")]

    async def fails(n: int) -> bool:
        if n == 3:
            raise OSError(n)
        return n % 2 == 0

    assert await async_filter(fails, [0, 1, 2]) == [0, 2]
    with pytest.raises(OSError):
        await async_filter(fails, [3])


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_concurrency_is_a_bound(concurrency: int) -> None:
    count = Count()
    assert await async_map(count.step, range(12), concurrency) == [Ok(n) for n in range(12)]
    assert count.most == concurrency
    with pytest.raises(ValueError, match="1 or more"):
        await async_map(count.step, [1], 0)


@pytest.mark.parametrize("ordered", [True, False])
async def test_buffered(ordered: bool) -> None:
    count = Count()
    got = [r.unwrap() async for r in async_buffered([count.step(n) for n in range(10)], 3, ordered)]
    assert (got if ordered else sorted(got)) == list(range(10))
    assert count.most == 3


async def numbers(first: int, n: int) -> AsyncIterator[int]:
    for i in range(n):
        await anyio.sleep(0)
        yield first + i


async def test_chunked() -> None:
    assert [c async for c in async_chunked(numbers(0, 5), 2)] == [[0, 1], [2, 3], [4]]
    assert [c async for c in async_chunked([], 2)] == []
    with pytest.raises(ValueError, match="1 or more"):
        _ = [c async for c in async_chunked([1], 0)]


async def test_merge_keeps_the_order_of_each() -> None:
    got = [n async for n in async_merge(numbers(0, 20), numbers(100, 20))]
    assert [n for n in got if n < 100] == list(range(20)) and [n for n in got if n >= 100] == list(range(100, 120))


# --- the cache ---
async def test_callers_at_one_time_share_one_call() -> None:
    calls = []

    @async_lru_safe(maxsize=2)
    async def square(n: int) -> int:
        calls.append(n)
        await anyio.sleep(0.001)
        return n * n

    got = []

    async def call(n: int) -> None:
        got.append(await square(n))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call, 3)
    assert got == [9] * 10 and calls == [3]
    await square(4)
    await square(3)
    await square(5)  # 4 goes: it was used longest ago
    await square(3)
    assert calls == [3, 4, 5]
    assert square.cache_info()[1:] == (3, 2, 2)
    square.cache_clear()
    await square(3)
    assert calls == [3, 4, 5, 3]


async def test_errors_are_not_kept() -> None:
    calls = []

    @async_lru_safe()
    async def fails(as_err: bool) -> Any:
        calls.append(1)
        if as_err:
            return Err("no")
        raise OSError("no")

    for _ in range(2):
        assert await fails(True) == Err("no")
        with pytest.raises(OSError, match="no"):
            await fails(False)
    assert len(calls) == 4 and fails.cache_info().currsize == 0


async def test_a_caller_that_is_cancelled_takes_nobody_along_and_the_last_one_ends_the_call() -> None:
    count = Count()
    go = anyio.Event()

    @async_lru_safe()
    async def slow(last: bool) -> int:
        if last:
            await count.forever()
        await go.wait()
        return 1

    got = []

    async def stay() -> None:
        got.append(await slow(False))

    async with anyio.create_task_group() as group:
        group.start_soon(stay)
        with anyio.move_on_after(0.005):
            await slow(False)
        go.set()
    assert got == [1]
    with anyio.move_on_after(0.005):
        await slow(True)
    with anyio.fail_after(10):
        while count.now:
            await anyio.sleep(0.001)
    assert count.cancelled == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_is_cancelled_from_within_leaves_nobody_waiting() -> None:
    @async_lru_safe()
    async def gone() -> None:
        raise asyncio.CancelledError

    with pytest.raises(TaskCancelledError), anyio.fail_after(10):
        await gone()
