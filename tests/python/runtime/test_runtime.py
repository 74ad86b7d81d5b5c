# SPDX-License-Identifier: Apache-2.0
"""Runtime: what it owns ends with it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok
from klaw_core.runtime import ActorStopped, ChannelClosedError, Runtime

pytestmark = pytest.mark.anyio


class Echo:
    async def handle(self, msg: Any) -> Any:
        if msg == "wait":
            await anyio.sleep(60)
        return msg


async def test_everything_works_together() -> None:
    async with Runtime(concurrency=4) as rt:
        tx, rx = await rt.channel(2)
        echo = await rt.spawn_actor(Echo)

        async def produce() -> None:
            async with tx:
                for n in range(20):
                    await tx.send(n)

        async def consume() -> list[Any]:
            return [(await echo.ask(n)).unwrap() async for n in rx]

        rt.spawn(produce)
        got = rt.spawn(consume)
        await rt.wait()
        assert await got == Ok(list(range(20)))
        assert await rt.executor().submit(abs, -1) == Ok(1)
    assert not rt.report


async def test_leaving_waits_for_tasks_and_drains_actors() -> None:
    ended = []

    async def slow() -> None:
        await anyio.sleep(0.01)
        ended.append("task")

    async with Runtime() as rt:
        rt.spawn(slow)
        rt.executor().submit(slow)
        ref = await rt.spawn_actor(Echo)
        await ref.send(1)
    assert ended == ["task", "task"]
    assert not ref.is_alive and not rt.report


async def test_a_graceful_shutdown_closes_senders_so_that_receivers_end() -> None:
    async with Runtime() as rt:
        tx, rx = await rt.channel(8)
        tx.send_sync("kept")

        async def consume() -> list[Any]:
            return [item async for item in rx]

        handle = rt.spawn(consume)
    assert await handle == Ok(["kept"])
    with pytest.raises(ChannelClosedError):
        await tx.send(1)


async def test_what_is_late_is_cancelled_and_reported() -> None:
    async with Runtime() as rt:
        handle = rt.spawn(anyio.sleep, 60)
        ref = await rt.spawn_actor(Echo, name="late")
        await ref.send("wait")
        await anyio.sleep(0.005)
        report = await rt.shutdown(timeout=0.02)
        assert report.cancelled_tasks == ["sleep"] and report.killed_actors == ["late"]
        assert bool(report) and rt.report is report
    assert handle.exit_reason == "cancelled" and not ref.is_alive


async def test_an_immediate_shutdown_waits_for_nobody() -> None:
    async with Runtime() as rt:
        handle = rt.spawn(anyio.sleep, 60)
        ref = await rt.spawn_actor(Echo)
        await rt.shutdown(wait=False)
        assert handle.exit_reason == "cancelled" and not ref.is_alive
        assert await ref.ask(1) == Err(ActorStopped("Echo", "killed"))
        await rt.shutdown()


@pytest.mark.parametrize("how", ["exception", "cancelled", "cancelled while leaving"])
async def test_nothing_outlives_it(how: str) -> None:
    held: list[Any] = []
    try:
        with anyio.CancelScope() as scope:
            async with Runtime() as rt:
                held = [rt.spawn(anyio.sleep, 60), await rt.spawn_actor(Echo), *await rt.channel()]
                if how == "exception":
                    raise KeyError("out")
                scope.deadline = anyio.current_time() + 0.01
                if how == "cancelled":
                    await anyio.sleep(60)
    except KeyError:
        pass
    handle, ref, tx, rx = held
    assert handle.exit_reason == "cancelled" and not ref.is_alive and tx.closed and rx.closed


async def test_afterwards_it_is_refused() -> None:
    async with Runtime() as rt:
        pass
    with pytest.raises(RuntimeError):
        rt.spawn(abs, 1)
    with pytest.raises(RuntimeError):
        await rt.spawn_actor(Echo)
    with pytest.raises(RuntimeError):
        rt.executor().submit(abs, 1)


async def test_channels_of_every_kind() -> None:
    async with Runtime() as rt:
        for tx, rx in (await rt.channel(1), rt.oneshot(), rt.broadcast(4)):
            rt.spawn(tx.send, "x")
            assert await rx.recv() == "x"
        tx, rx = rt.watch("first")
        assert rx.borrow() == "first"
        await tx.send("second")
        await rx.changed()
        assert rx.borrow() == "second"


async def test_wait_sees_tasks_that_come_meanwhile() -> None:
    ran = []

    async def parent(rt: Runtime, depth: int) -> None:
        await anyio.sleep(0)
        ran.append(depth)
        if depth:
            rt.spawn(parent, rt, depth - 1)

    async with Runtime() as rt:
        rt.spawn(parent, rt, 5)
        await rt.wait()
        assert ran == [5, 4, 3, 2, 1, 0]
