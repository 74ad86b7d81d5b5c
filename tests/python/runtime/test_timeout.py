# SPDX-License-Identifier: Apache-2.0
"""timeout: a limit that is a value."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from klaw_core import Err, Ok
from klaw_core.runtime import Executor, Timeout, TimeoutExpiredError, timeout
from klaw_core.runtime.channels.local import channel

pytestmark = pytest.mark.anyio


async def after(seconds: float, value: Any = None) -> Any:
    await anyio.sleep(seconds)
    return value


async def test_in_time_it_is_the_value() -> None:
    assert await timeout(after(0, "x"), 10) == Ok("x")


async def test_too_late_it_is_a_timeout_with_its_seconds() -> None:
    assert await timeout(after(60), 0.01) == Err(Timeout(0.01))


@pytest.mark.parametrize("result", [Ok(1), Err("no")])
async def test_a_result_passes(result: Any) -> None:
    assert await timeout(after(0, result), 10) == result


async def test_an_exception_passes() -> None:
    async def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        await timeout(fail(), 10)


async def test_a_time_limit_of_the_awaitable_itself_is_not_ours() -> None:
    async def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await timeout(own(), 10)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("-inf")])
async def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        await timeout(after(0), seconds)


async def test_no_time_is_enough_for_what_need_not_wait() -> None:
    async def now() -> int:
        return 3

    assert await timeout(now(), 0) == Ok(3)
    assert await timeout(after(60), 0) == Err(Timeout(0))


async def test_for_ever() -> None:
    assert await timeout(after(0.001, 1), float("inf")) == Ok(1)


async def test_the_inner_limit_is_the_inner_ones() -> None:
    assert await timeout(timeout(after(60), 0.01), 30) == Err(Timeout(0.01))
    assert await timeout(timeout(after(60), 30), 0.01) == Err(Timeout(0.01))


async def test_what_runs_is_cancelled_and_cleans_up() -> None:
    seen = []

    async def work() -> None:
        try:
            await anyio.sleep(60)
        finally:
            seen.append("cleaned")

    assert (await timeout(work(), 0.01)).is_err()
    assert seen == ["cleaned"]


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    with anyio.move_on_after(0.01) as scope:
        await timeout(after(60), 60)
        pytest.fail("it went on")
    assert scope.cancelled_caught


async def test_over_endpoints_and_handles() -> None:
    tx, rx = channel(1)
    assert await timeout(rx.recv(), 0.01) == Err(Timeout(0.01))
    await tx.send("kept")
    assert await timeout(rx.recv(), 10) == Ok("kept")
    async with Executor() as ex:
        handle = ex.submit(after, 0.05, 1)
        assert await timeout(handle, 0.001) == Err(Timeout(0.001))
        assert await timeout(handle, 10) == Ok(1), "the task was not touched"


async def test_receives_that_time_out_lose_nothing() -> None:
    tx, rx = channel(1)
    got = []

    async def produce() -> None:
        async with tx:
            for n in range(200):
                await tx.send(n)
                if n % 5 == 0:
                    await anyio.sleep(0)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        while len(got) < 200:
            match await timeout(rx.recv(), 0):
                case Ok(n):
                    got.append(n)
                case Err(Timeout()):
                    await anyio.sleep(0)
    assert got == list(range(200))


def test_the_struct_has_its_exception() -> None:
    error = Timeout(2.5).to_exception()
    assert isinstance(error, TimeoutExpiredError) and isinstance(error, TimeoutError)
    assert error.to_struct() == Timeout(2.5)


def test_asyncio_task_cancellation_passes() -> None:
    async def main() -> None:
        task = asyncio.create_task(timeout(after(60), 60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.floats(0, 0.01),
    steps=st.lists(st.floats(0, 0.005), max_size=5),
)
async def test_the_bounds_of_time(limit: float, steps: list[float]) -> None:
    """A timeout never comes before its time, a value never before the work is done."""
    done = []

    async def work() -> str:
        for step in steps:
            await anyio.sleep(step)
        done.append(True)
        return "done"

    begin = time.monotonic()
    result = await timeout(work(), limit)
    took = time.monotonic() - begin
    if result.is_err():
        assert result == Err(Timeout(limit))
        assert took >= limit - 0.002
        assert not done
    else:
        assert result == Ok("done") and done
        assert took >= sum(steps) - 0.002 * (len(steps) + 1)
