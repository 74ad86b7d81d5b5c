# SPDX-License-Identifier: Apache-2.0
"""How a loop wakes those whose operations were granted: many by one callback, in order, each in its own context, and
never so long that the rest of the loop starves.

Tried against: no end of a slice, no limit of its length, wake-ups taken from the wrong end, no context entered,
the rest forgotten after an exception, wake-ups that the collector does not see."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from klaw_core._klaw import channel
from klaw_core.result import Ok

pytestmark = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run(new_loop: NewLoop, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main, 15))


async def ping_pong(round_trips: int, step: Callable[[], None]) -> int:
    """Two tasks that do nothing but wake each other; how often a third one had its turn meanwhile."""
    tx, rx = channel(1)
    tx2, rx2 = channel(1)
    turns = 0

    async def echo() -> None:
        for _ in range(round_trips):
            await tx2.send(await rx.recv())
            step()

    async def ask() -> None:
        for i in range(round_trips):
            await tx.send(i)
            assert await rx2.recv() == i
            step()

    async def bystander() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    third = asyncio.create_task(bystander())
    await asyncio.gather(echo(), ask())
    third.cancel()
    return turns


def test_a_ping_pong_lets_others_on(new_loop: NewLoop) -> None:
    async def main() -> None:
        assert await ping_pong(2_000, lambda: None) >= 4_000 // 40

    run(new_loop, main())


@pytest.mark.parametrize("kind", ["sends", "receives", "both"])
def test_every_128th_operation_that_need_not_wait_lets_others_on(new_loop: NewLoop, kind: str) -> None:
    n = 12_800

    async def main() -> None:
        tx, rx = channel(n)
        turns = 0

        async def bystander() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        if kind == "receives":
            for i in range(n):
                tx.try_send_sync(i)
        third = asyncio.create_task(bystander())
        for i in range(n):
            if kind != "receives":
                await tx.send(i)
            if kind != "sends":
                await rx.recv()
        third.cancel()
        assert n // 128 - 2 <= turns <= n // 128 + 2

    run(new_loop, main())


def test_a_slow_step_is_the_last_of_its_slice(new_loop: NewLoop) -> None:
    async def main() -> None:
        assert await ping_pong(20, lambda: time.sleep(0.001)) >= 18

    run(new_loop, main())


def test_waiters_go_on_in_order_and_in_their_contexts(new_loop: NewLoop) -> None:
    name = contextvars.ContextVar("name", default=-1)

    async def main() -> None:
        tx, rx = channel(20)
        seen: list[tuple[int, int]] = []

        async def wait(i: int) -> None:
            name.set(i)
            item = await rx.recv()
            seen.append((name.get(), item))

        tasks = [asyncio.create_task(wait(i)) for i in range(20)]
        await asyncio.sleep(0)
        for i in range(20):
            assert tx.try_send_sync(i) == Ok(None)
        await asyncio.gather(*tasks)
        assert seen == [(i, i) for i in range(20)]
        assert name.get() == -1

    run(new_loop, main())


def test_who_is_cancelled_before_waking_leaves_the_item_to_the_next(new_loop: NewLoop) -> None:
    async def main() -> None:
        tx, rx = channel(4)
        tasks = [asyncio.create_task(rx.recv()) for _ in range(3)]
        await asyncio.sleep(0)
        assert tx.try_send_sync("a") == Ok(None)
        assert tx.try_send_sync("b") == Ok(None)
        tasks[0].cancel("gone")
        with pytest.raises(asyncio.CancelledError, match="gone"):
            await tasks[0]
        assert sorted(await asyncio.gather(*tasks[1:])) == ["a", "b"]

    run(new_loop, main())


def test_a_failing_callback_leaves_the_others(new_loop: NewLoop) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _loop, what: complaints.append(what["exception"]))
        tx, rx = channel(4)
        called: list[str] = []

        def fail(_operation: Any) -> None:
            called.append("fails")
            raise ZeroDivisionError

        first, second = rx.recv(), rx.recv()
        for operation, callback in ((first, fail), (second, lambda _operation: called.append("works"))):
            assert operation.send(None) is operation
            operation.add_done_callback(callback)
        tx.try_send_sync(1), tx.try_send_sync(2)
        while len(called) < 2:
            await asyncio.sleep(0)
        assert called == ["fails", "works"]
        assert [type(e) for e in complaints] == [ZeroDivisionError]
        first.close(), second.close()
        assert rx.try_recv_sync() == Ok(1)

    run(new_loop, main())


def test_an_interrupt_in_a_woken_task_leaves_the_others(new_loop: NewLoop) -> None:
    tx, rx = channel(4)

    async def interrupted() -> None:
        await rx.recv()
        raise KeyboardInterrupt

    async def both() -> tuple[Any, Any]:
        return asyncio.create_task(interrupted()), asyncio.create_task(rx.recv())

    loop = new_loop()
    try:
        first, second = loop.run_until_complete(both())
        loop.run_until_complete(asyncio.sleep(0))
        assert tx.try_send_sync(1) == Ok(None)  # the loop does not run at this moment
        assert tx.try_send_sync(2) == Ok(None)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(5))
        assert isinstance(first.exception(), KeyboardInterrupt)
        assert loop.run_until_complete(second) == 2
    finally:
        loop.close()


def test_wake_ups_that_never_came_are_collected_with_the_loop(new_loop: NewLoop) -> None:
    class Item:
        pass

    async def begin(rx: Any) -> Any:
        task = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        return task

    tx, rx = channel(4)
    loop = new_loop()
    item = Item()
    kept = weakref.ref(item)
    task = loop.run_until_complete(begin(rx))
    loop.set_exception_handler(lambda _loop, _what: None)  # of a task that was destroyed while it was pending
    assert tx.try_send_sync(item) == Ok(None)  # it is woken, and will never run
    loop.close()
    gone = weakref.ref(task)
    del task, loop, item
    gc.collect()
    assert gone() is None
    got = rx.try_recv_sync()
    assert isinstance(got, Ok)
    del got
    assert kept() is None


def test_an_operation_nobody_awaited_is_collected_with_what_it_sends(new_loop: NewLoop) -> None:
    async def main() -> None:
        tx, _rx = channel(1)
        value: list[Any] = []
        value.append(tx.send(value))
        gone = weakref.ref(value[0])
        del value
        with pytest.warns(RuntimeWarning, match="never awaited"):
            gc.collect()
        assert gone() is None

    run(new_loop, main())
