# SPDX-License-Identifier: Apache-2.0
"""Channels of every kind, on every loop."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok
from klaw_core.runtime import (
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelLaggedError,
    LimitExceededError,
    broadcast,
    channel,
    oneshot,
    select,
    watch,
)

pytestmark = pytest.mark.anyio


async def test_items_arrive_in_order_and_then_closed() -> None:
    tx, rx = await channel(3)
    async with anyio.create_task_group() as group:

        async def produce() -> None:
            async with tx:
                for i in range(500):
                    await tx.send(i)

        group.start_soon(produce)
        assert [item async for item in rx] == list(range(500))
    with pytest.raises(ChannelClosedError):
        await rx.recv()
    assert await rx.try_recv() == Err(ChannelClosed("closed"))


async def test_try_answers_as_values() -> None:
    tx, rx = await channel(1)
    assert await rx.try_recv() == Err(ChannelEmpty())
    assert await tx.try_send(1) == Ok(None)
    assert await tx.try_send(2) == Err(ChannelFull(1))
    assert await rx.try_recv() == Ok(1)
    await rx.close()
    assert await tx.try_send(3) == Err(ChannelClosed("closed"))


async def test_capacity_holds_a_sender_back() -> None:
    tx, rx = await channel(2)
    sent: list[int] = []

    async def produce() -> None:
        for i in range(5):
            await tx.send(i)
            sent.append(i)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1]
        assert await rx.recv() == 0
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1, 2]
        assert [await rx.recv() for _ in range(4)] == [1, 2, 3, 4]
    assert rx.stats().high_watermark == 2


async def test_rendezvous_meets() -> None:
    tx, rx = await channel(0)
    assert (await tx.try_send(1)).is_err()
    async with anyio.create_task_group() as group:
        group.start_soon(tx.send, "hello")
        assert await rx.recv() == "hello"
    assert tx.capacity == 0 and rx.stats().capacity == 0


async def test_unbounded_never_waits() -> None:
    tx, rx = await channel(unbounded=True)
    for i in range(10_000):
        tx.send_sync(i)
    assert tx.capacity is None and rx.stats().queue_size == 10_000
    assert await rx.recv_batch(10_000) == list(range(10_000))


async def test_batches_are_all_or_nothing() -> None:
    tx, rx = await channel(3)
    await tx.send(0)
    async with anyio.create_task_group() as group:
        group.start_soon(tx.send_batch, [1, 2, 3])
        await anyio.wait_all_tasks_blocked()
        assert rx.stats().queue_size == 1
        assert await rx.recv() == 0
    assert await rx.recv_batch(10) == [1, 2, 3]
    with pytest.raises(LimitExceededError):
        await tx.send_batch(range(4))
    assert await rx.recv_batch(5, timeout=0.01) == []
    with pytest.raises(ValueError, match="max_items"):
        await rx.recv_batch(0)


async def test_time_limits() -> None:
    tx, rx = await channel(1)
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0.01)
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0)
    with pytest.raises(ValueError):
        rx.recv(timeout=float("nan"))
    with anyio.move_on_after(0.01):
        await rx.recv()
    await tx.send("kept")
    assert await rx.recv(timeout=5) == "kept"


async def test_clones_share_a_side() -> None:
    tx, rx = await channel(10)
    other = tx.clone()
    await tx.close()
    await other.send(1)
    await other.close()
    assert [item async for item in rx] == [1]
    rx2 = (await channel(1))[1]
    assert rx2.stats().receiver_count == 1


async def test_close_wakes_both_sides() -> None:
    tx, rx = await channel(1)
    outcomes: list[str] = []

    async def receive() -> None:
        with pytest.raises(ChannelClosedError):
            await rx.recv()
        outcomes.append("receiver")

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await tx.close()
    tx, rx = await channel(1)
    await tx.send(1)

    async def send() -> None:
        with pytest.raises(ChannelClosedError):
            await tx.send(2)
        outcomes.append("sender")

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await rx.close()
    assert outcomes == ["receiver", "receiver", "sender"]


async def test_oneshot_gives_one_value_or_closed() -> None:
    tx, rx = oneshot()
    await tx.send(1)
    with pytest.raises(ChannelClosedError):
        await tx.send(2)
    assert await rx.recv() == 1
    tx, rx = oneshot()
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(ChannelClosedError):
                await rx.recv()

        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await tx.close()
    with pytest.raises(TypeError):
        oneshot()[0].clone()


async def test_broadcast_reaches_everyone_and_counts_what_is_missed() -> None:
    tx, first = broadcast(4)
    second = tx.subscribe()
    for i in range(3):
        await tx.send(i)
    assert [await first.recv() for _ in range(3)] == [0, 1, 2]
    for i in range(3, 9):
        await tx.send(i)
    with pytest.raises(ChannelLaggedError) as lag:
        await second.recv()
    assert lag.value.missed == 5
    assert await second.recv() == 5
    tx, slow = broadcast(1, lag="wait")
    await tx.send(1)
    with anyio.move_on_after(0.01) as scope:
        await tx.send(2)
    assert scope.cancelled_caught
    assert await slow.recv() == 1
    with pytest.raises(ValueError, match="drop_oldest"):
        broadcast(1, lag="never")


async def test_watch_tells_the_latest() -> None:
    tx, rx = watch("a")
    assert rx.borrow() == "a" and not rx.has_changed()
    seen: list[str] = []

    async def follow() -> None:
        while True:
            try:
                await rx.changed()
            except ChannelClosedError:
                return
            seen.append(rx.borrow())

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        await tx.send("b")
        await anyio.wait_all_tasks_blocked()
        await tx.send("c")
        await tx.send("d")
        await anyio.wait_all_tasks_blocked()
        await tx.close()
    assert seen == ["b", "d"]
    assert rx.borrow() == "d"


async def test_select_takes_one_and_leaves_the_others() -> None:
    pairs = [await channel(4) for _ in range(3)]
    for at, (tx, _) in enumerate(pairs):
        await tx.send(at)
    receivers = [rx for _, rx in pairs]
    got = [await select(*receivers) for _ in range(3)]
    assert sorted(item for _, item in got) == [0, 1, 2]
    assert all(receivers[item] is rx for rx, item in got)
    with pytest.raises(ChannelEmptyError):
        await select(*receivers, timeout=0.01)
    async with anyio.create_task_group() as group:
        group.start_soon(pairs[2][0].send, "late")
        assert await select(*receivers) == (receivers[2], "late")
    await pairs[0][0].close()
    await pairs[1][0].close()
    await pairs[2][0].send("last")
    await pairs[2][0].close()
    assert (await select(*receivers))[1] == "last"
    with pytest.raises(ChannelClosedError):
        await select(*receivers)
    with pytest.raises(ValueError):
        await select()


async def test_select_is_fair() -> None:
    a_tx, a = await channel(1000)
    b_tx, b = await channel(1000)
    for i in range(1000):
        await a_tx.send(i)
        await b_tx.send(i)
    chosen = [(await select(a, b))[0] for _ in range(1000)]
    assert 350 < sum(rx is a for rx in chosen) < 650


async def test_threads_and_tasks_share_a_channel() -> None:
    tx, rx = await channel(8)
    back_tx, back_rx = await channel(8)

    def work() -> None:
        with back_tx:
            for item in rx:
                back_tx.send_sync(item * 2)

    thread = threading.Thread(target=work)
    thread.start()
    async with anyio.create_task_group() as group:

        async def feed() -> None:
            async with tx:
                for i in range(300):
                    await tx.send(i)

        group.start_soon(feed)
        assert [item async for item in back_rx] == [2 * i for i in range(300)]
    thread.join(10)
    assert not thread.is_alive()


async def test_a_loop_that_is_always_ready_lets_others_run() -> None:
    tx, rx = await channel(10)
    ran = False

    async def other() -> None:
        nonlocal ran
        await anyio.lowlevel.checkpoint()
        ran = True

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(2000):
            await tx.send(1)
            await rx.recv()
        assert ran


async def test_an_endpoint_that_is_collected_closes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tx, rx = await channel(1)
    del tx
    gc.collect()
    with pytest.raises(ChannelClosedError):
        await rx.recv()
    monkeypatch.setenv("KLAW_DEBUG", "1")
    tx, rx = await channel(1)
    await rx.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del tx
        gc.collect()
    assert any(issubclass(w.category, ResourceWarning) and "factory.py" in str(w.message) for w in caught)


async def test_cycles_through_a_channel_are_collected() -> None:
    class Node:
        pass

    kinds: list[Any] = [await channel(2), oneshot(), broadcast(2), watch(None)]
    alive = []
    for tx, rx in kinds:
        node = Node()
        node.ends = (tx, rx)  # type: ignore[attr-defined]
        tx.try_send_sync(node)
        alive.append(weakref.ref(node))
    del kinds, tx, rx, node
    gc.collect()
    assert [ref() for ref in alive] == [None] * 4


async def test_never_awaited_is_told() -> None:
    tx, _rx = await channel(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tx.send(1)
        gc.collect()
    assert any("never awaited" in str(w.message) for w in caught)
    assert tx.stats().queue_size == 0
