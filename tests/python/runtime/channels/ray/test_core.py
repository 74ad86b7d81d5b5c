# SPDX-License-Identifier: Apache-2.0
"""RaySender and RayReceiver, method by method, on each event loop and from plain threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core import Err, Ok  # noqa: E402
from klaw_core.runtime import (  # noqa: E402
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelFullError,
    ChannelStats,
    Receiver,
    Sender,
)
from klaw_core.runtime.channels.ray import RayReceiver, RaySender, ray_channel  # noqa: E402

from .support import LOOPS, Point, Shared, aio, drain, eventually, on  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@pytest.fixture(scope="module")
def shared(ray_cluster: Any) -> Shared:
    """A channel of four for the tests that leave it open."""
    return Shared(capacity=4)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_channel_from_end_to_end_on_each_loop(loop: str) -> None:
    async def main() -> None:
        tx, rx = await ray_channel(8)
        assert (type(tx), type(rx)) == (RaySender, RayReceiver)
        got: list[Any] = []

        async def consume() -> None:
            async for item in rx:
                got.append(item)

        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for i in range(30):
                await tx.send(i)
            await tx.send_batch(["a", "b"])
            await tx.close()
        assert got == [*range(30), "a", "b"]
        with pytest.raises(ChannelClosedError):
            await rx.recv()

    on(loop, main)


@aio
async def test_both_ends_keep_to_the_protocols(pair: Any) -> None:
    tx, rx = pair
    assert isinstance(tx, Sender)
    assert isinstance(rx, Receiver)
    assert (tx.capacity, tx.closed, tx.name) == (4, False, None)
    assert type(tx.stats()) is ChannelStats
    assert "RaySender" in repr(tx)
    assert rx.reader_id == ""
    await tx.send(1)
    assert await rx.recv() == 1
    assert rx.last is not None
    assert not rx.last.redelivered

    async def reader() -> Any:
        return (await rx.actor.get_reader_stats.remote()).get(rx.reader_id)

    assert (await eventually(reader))["node_id"] == ray.get_runtime_context().get_node_id()


@aio
async def test_try_send_and_try_recv_never_wait(pair: Any) -> None:
    tx, rx = pair
    assert await rx.try_recv() == Err(ChannelEmpty())
    sent = 0  # four, and what has gone ahead to receivers that were busy just before
    while (await tx.try_send(sent)).is_ok():
        sent += 1
    assert 4 <= sent < 20
    assert await tx.try_send(-1) == Err(ChannelFull(4))
    assert tx.try_send_sync(-1) == Err(ChannelFull(4))
    for i in range(sent):
        assert await rx.try_recv() == Ok(i)
    assert await rx.try_recv() == Err(ChannelEmpty())
    assert tx.try_send_sync(5) == Ok(None)
    assert rx.try_recv_sync() == Ok(5)
    assert rx.try_recv_sync() == Err(ChannelEmpty())
    await tx.close()
    assert isinstance((await tx.try_send(6)).unwrap_err(), ChannelClosed)


@aio
async def test_batches(pair: Any) -> None:
    tx, rx = pair
    assert await rx.recv_batch(5, timeout=0.01) == []
    assert await rx.recv_batch(0) == []
    await tx.send_batch([])
    await tx.send_batch(iter([1, 2, 3]))
    assert (await rx.recv_batch(1)) == [1]
    rest = await rx.recv_batch(9)
    while len(rest) < 2:
        rest += await rx.recv_batch(9)
    assert rest == [2, 3]
    with pytest.raises(ChannelFullError):
        await tx.send_batch(range(5))
    await tx.send_batch([4, 5, 6, 7])
    assert [await rx.recv() for _ in range(4)] == [4, 5, 6, 7]


@aio
async def test_a_receive_that_runs_out_of_time_says_empty(pair: Any) -> None:
    tx, rx = pair
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0.01)
    with pytest.raises(ChannelEmptyError):
        rx.recv_sync(timeout=0.01)
    await tx.send("x")
    assert await rx.recv(timeout=20) == "x"


@aio
async def test_clones_are_endpoints_of_their_own_and_async_with_closes() -> None:
    tx, rx = await ray_channel(8)
    tx2, rx2 = tx.clone(), rx.clone()
    async with tx2:
        await tx2.send(1)
        await tx.send(2)
    with pytest.raises(ChannelClosedError):
        await tx2.send(3)
    assert {await rx2.recv(), await rx.recv()} == {1, 2}
    assert rx.reader_id != rx2.reader_id
    rx2.ack()  # what another receiver has in hand may come back: the end is told after that
    await tx.close()
    await tx.close()
    assert (tx.closed, tx2.closed) == (True, True)
    assert await drain(rx) == []
    async with rx2:
        assert await drain(rx2) == []
        assert isinstance((await rx2.try_recv()).unwrap_err(), ChannelClosed)
    assert rx2.closed
    with pytest.raises(ChannelClosedError):
        await rx2.recv()
    with pytest.raises(ChannelClosedError):
        await tx.clone().send(1)


def test_from_plain_threads() -> None:
    async def make() -> Any:
        return await ray_channel(4)

    tx, rx = on("asyncio", make)
    got: list[int] = []
    consumers = [threading.Thread(target=got.extend, args=(rx.clone(),)) for _ in range(2)]
    for consumer in consumers:
        consumer.start()
    with tx:
        for i in range(20):
            tx.send_sync(i)
        tx.send_batch_sync([20, 21])
    for consumer in consumers:
        consumer.join(20)
    assert sorted(got) == list(range(22))
    with pytest.raises(ChannelClosedError):
        rx.recv_sync()
    with pytest.raises(ChannelClosedError):
        rx.recv_batch_sync(3)


def test_outside_of_any_loop_the_awaited_ones_are_refused(pair: Any) -> None:
    tx, rx = pair
    for awaited in (tx.send(1), rx.recv()):
        with pytest.raises(RuntimeError):
            awaited.send(None)


@aio
async def test_a_value_type_is_kept_by_both_ends() -> None:
    tx, rx = await ray_channel(8, value_type=Point)
    await tx.send(Point(1, 2))
    assert await rx.recv() == Point(1, 2)
    with pytest.raises(TypeError):
        await tx.send((1, 2))
    with pytest.raises(TypeError):
        await tx.send_batch([Point(3), 4])
    await tx.send(Point(5))
    assert await rx.recv() == Point(5)


@aio
async def test_stats_tell_who_is_there(pair: Any) -> None:
    tx, rx = pair
    before = await tx.stats_async()
    assert before.capacity == 4
    await tx.send_batch([1, 2])
    assert await rx.recv() == 1

    async def counted() -> bool:
        stats = await tx.stats_async()
        return (
            stats.sender_count == before.sender_count + 1
            and stats.receiver_count == before.receiver_count + 1
            and stats.total_sent == before.total_sent + 2
            and sum(stats.backend_extras["per_node_receivers"].values()) == stats.receiver_count
        )

    await eventually(counted)
    await tx.close()

    async def one_less() -> bool:
        return (await rx.stats_async()).sender_count == before.sender_count

    await eventually(one_less)


def test_what_a_loop_was_to_carry_is_carried_although_it_has_ended(shared: Shared) -> None:
    tx, rx = shared.pair()
    tx.send_sync(1)
    assert rx.recv_sync(20) == 1
    loop = asyncio.new_event_loop()
    operation = tx.send(2)
    loop.call_soon(operation.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()  # one turn: the send is queued, the turn that would make the call never comes
    loop.close()
    assert asyncio.run(rx.recv(3)) == 2
    rx.ack()
    operation.close()
