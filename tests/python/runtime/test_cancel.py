# SPDX-License-Identifier: Apache-2.0
"""cancel_scope: a part of a task that is cancelled alone."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from klaw_core import Err
from klaw_core.runtime import Cancelled, CancelScope, Executor, TaskCancelledError, cancel_scope, select
from klaw_core.runtime.channels.local import channel

pytestmark = pytest.mark.anyio


async def test_without_a_limit_nothing_happens() -> None:
    async with cancel_scope() as scope:
        await anyio.sleep(0)
    assert not scope.cancelled and scope.reason is None and scope.error is None


async def test_the_deadline_cancels() -> None:
    async with cancel_scope(timeout=0.01) as scope:
        await anyio.sleep(60)
        pytest.fail("it went on")
    assert scope.cancelled and scope.reason == "deadline"
    assert scope.error == Cancelled("deadline")


async def test_an_explicit_cancel_has_its_first_reason() -> None:
    async with cancel_scope() as scope:
        scope.cancel("enough")
        scope.cancel("later")
        await anyio.sleep(60)
    assert scope.reason == "enough"


async def test_cancelled_from_another_task() -> None:
    scope = cancel_scope()

    async def work() -> None:
        async with scope:
            await anyio.sleep(60)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.sleep(0.001)
        scope.cancel("from outside")
    assert scope.reason == "from outside"


async def test_cancelled_before_it_is_entered() -> None:
    scope = cancel_scope()
    scope.cancel("already")
    async with scope:
        await anyio.sleep(60)
    assert scope.reason == "already"


async def test_every_wait_inside_ends_until_the_scope_is_left() -> None:
    ended = 0
    async with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                ended += 1
        await anyio.sleep(60)
    assert ended == 3
    await anyio.sleep(0)


@pytest.mark.parametrize("wait", ["recv", "send", "recv_batch", "select"])
async def test_waits_of_endpoints_end_too_and_lose_nothing(wait: str) -> None:
    tx, rx = channel(1)
    if wait == "send":
        await tx.send("first")
    async with cancel_scope(timeout=0.01) as scope:
        if wait == "send":
            await tx.send("second")
        elif wait == "recv":
            await rx.recv()
        elif wait == "recv_batch":
            await rx.recv_batch(3)
        else:
            await select(rx)
        pytest.fail("it went on")
    assert scope.cancelled
    assert rx.stats().queue_size == (1 if wait == "send" else 0)


async def test_the_cancellation_stays_within_the_border() -> None:
    async with cancel_scope() as outer:
        async with cancel_scope() as inner:
            inner.cancel()
            await anyio.sleep(60)
        await anyio.sleep(0)
    assert inner.cancelled and not outer.cancelled


async def test_the_outer_one_ends_the_inner_one() -> None:
    async with cancel_scope(timeout=0.01) as outer:
        async with cancel_scope() as inner:
            await anyio.sleep(60)
        pytest.fail("it went on")
    assert outer.cancelled and not inner.cancelled


async def test_a_shield_holds_off_what_is_outside() -> None:
    seen = []
    async with cancel_scope() as outer:
        async with cancel_scope(shield=True):
            outer.cancel()
            await anyio.sleep(0.001)
            seen.append("inside")
        await anyio.sleep(60)
        seen.append("outside")
    assert seen == ["inside"]


async def test_a_shielded_one_has_a_deadline_of_its_own() -> None:
    async with cancel_scope(timeout=0.01, shield=True) as scope:
        await anyio.sleep(60)
    assert scope.reason == "deadline"


async def test_exceptions_pass() -> None:
    with pytest.raises(KeyError):
        async with cancel_scope(timeout=60):
            raise KeyError


async def test_it_is_entered_once() -> None:
    async with cancel_scope() as scope:
        with pytest.raises(RuntimeError, match="once"):
            await scope.__aenter__()


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        CancelScope(timeout=seconds)


async def test_a_cancelled_task_is_an_err_with_its_reason() -> None:
    async with Executor() as ex:
        handle = ex.submit(anyio.sleep, 60)
        await anyio.sleep(0.001)
        handle.cancel("not needed")
        assert await handle == Err(Cancelled("not needed"))


def test_the_struct_has_its_exception() -> None:
    error = Cancelled("why").to_exception()
    assert isinstance(error, TaskCancelledError)
    assert error.reason == "why" and error.to_struct() == Cancelled("why")


def test_asyncio_task_cancellation_is_not_swallowed() -> None:
    async def work(began: Any) -> None:
        async with cancel_scope(timeout=60):
            began.set()
            await asyncio.sleep(60)

    async def main() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(work(began))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
