# SPDX-License-Identifier: Apache-2.0
"""What senders and receivers promise: no cancellation loses or doubles anything, an item is acknowledged when its mode
says so, every error names itself and the channel goes on."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime import (  # noqa: E402
    ChannelBackendErrorException,
    ChannelClosedError,
    ChannelTypeErrorException,
    LimitExceededError,
    TimeoutExpiredError,
    UncertainError,
)
from klaw_core.runtime.channels.ray import delete_ray_channel, ray_channel  # noqa: E402

from .channels.ray.support import Point, Shared, aio, drain, eventually, pid_of  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@pytest.fixture(scope="module")
def shared(ray_cluster: Any) -> Shared:
    """A channel for the tests that leave it open."""
    return Shared(capacity=64)


# --- cancellation ---
@aio
async def test_cancelling_loses_and_doubles_nothing(pair: Any) -> None:
    tx, rx = pair
    seed = int(os.environ.get("KLAW_SEED") or random.randrange(1 << 32))
    print("seed", seed)
    chance = random.Random(seed)
    sent: list[int] = []
    maybe: list[int] = []
    got: list[int] = []

    async def send(i: int) -> None:
        try:
            await tx.send(i)
            sent.append(i)
        except asyncio.CancelledError:
            maybe.append(i)
            raise

    async def receive() -> None:
        got.append(await rx.recv())

    for i in range(60):
        tasks = [asyncio.create_task(send(i)), asyncio.create_task(receive())]
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.001, 0.003)))
        if chance.random() < 0.7:
            chance.choice(tasks).cancel()
        await asyncio.wait(tasks, timeout=chance.choice((0.0, 0.01)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await tx.send(-1)
    while not got or got[-1] != -1:
        got.append(await rx.recv())
    got.remove(-1)
    assert len(got) == len(set(got))
    assert set(sent) <= set(got) <= set(sent) | set(maybe)


@aio
async def test_many_tasks_on_one_endpoint(pair: Any) -> None:
    tx, rx = pair

    async def produce(start: int) -> None:
        for i in range(start, start + 20):
            await tx.send(i)

    async def consume() -> list[int]:
        return [await rx.recv() for _ in range(10)]

    received, *_ = await asyncio.gather(
        asyncio.gather(*(consume() for _ in range(100))), *(produce(20 * i) for i in range(50))
    )
    assert sorted(i for each in received for i in each) == list(range(1000))


@aio
async def test_two_loops_and_threads_share_a_channel(pair: Any) -> None:
    tx, rx = pair
    got: list[int] = []

    def elsewhere() -> None:
        async def main() -> None:
            end = tx.clone()
            for i in range(100):
                await end.send(i)

        asyncio.run(main())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    while len(got) < 100:
        got += await rx.recv_batch(50, timeout=20)
    assert got == list(range(100))
    await asyncio.to_thread(thread.join)


@aio
async def test_a_blocked_send_goes_on_when_there_is_room_and_can_run_out_of_time(pair: Any) -> None:
    tx, rx = pair
    sent = 0
    while (await tx.try_send(sent)).is_ok():
        sent += 1
    waiting = [asyncio.create_task(tx.send(i)) for i in range(sent, sent + 10)]
    with pytest.raises((TimeoutExpiredError, UncertainError)):
        await asyncio.to_thread(tx.clone().send_sync, -1, 0.05)
    got = [await rx.recv() for _ in range(sent + 10)]
    await asyncio.gather(*waiting)
    assert [i for i in got if i >= 0] == list(range(sent + 10 - got.count(-1)))


# --- acknowledging ---
@aio
async def test_what_a_failing_consumer_had_in_hand_comes_again_marked(pair: Any) -> None:
    tx, rx = pair
    await tx.send_batch(["a", "b"])
    with pytest.raises(ZeroDivisionError):
        async with rx.clone() as mine:
            assert await mine.recv() == "a"
            assert not mine.last.redelivered
            raise ZeroDivisionError
    items = [await rx.recv_item(timeout=20) for _ in range(2)]
    assert {item.value: item.redelivered for item in items} == {"a": True, "b": False}
    assert items[0].id != items[1].id


@aio
async def test_explicit_acknowledgement() -> None:
    tx, rx = await ray_channel(8, ack="explicit")
    await tx.send_batch([1, 2, 3])
    first, second = await rx.recv_item(), await rx.recv_item()
    assert await rx.recv() == 3
    assert first.ack()
    assert not first.ack()
    assert second.nack()
    again = await rx.recv_item(timeout=20)
    assert (again.value, again.redelivered, again.id) == (2, True, second.id)
    assert rx.ack() == 2  # 3 and 2
    assert rx.ack() == 0
    await tx.send_batch([4, 5])
    assert [await rx.recv(), await rx.recv()] == [4, 5]
    rx2 = rx.clone()
    waiting = asyncio.create_task(rx2.recv_item())
    await rx.close()  # what was not acknowledged goes back
    again = await waiting
    assert (again.value, again.redelivered) == (4, True)


@aio
async def test_acknowledged_before_it_is_handed_out() -> None:
    tx, rx = await ray_channel(8, ack="before")
    await tx.send_batch([1, 2])
    with pytest.raises(ZeroDivisionError):
        async with rx.clone() as mine:
            assert await mine.recv() == 1
            raise ZeroDivisionError
    assert await rx.recv() == 2
    assert (await rx.try_recv()).is_err()


# --- values ---
@aio
async def test_values_come_back_as_they_were(pair: Any) -> None:
    tx, rx = pair
    values = [None, True, 1, 1 << 70, 1.5, "é", b"\0", [1, [2]], {"a": {1: b"x"}}, (1, 2), {3}, Point(1), "\ud800"]
    await tx.send_batch(values)
    got = [await rx.recv() for _ in values]
    assert got == values
    assert [type(value) for value in got] == [type(value) for value in values]
    await tx.send(lambda x: x + 1)
    assert (await rx.recv())(1) == 2


@aio
async def test_object_references_and_endpoints_travel_in_items(pair: Any) -> None:
    tx, rx = pair
    ref = ray.put("far")
    await tx.send({"refs": [ref, ref], "n": 1})
    got = await rx.recv()
    del ref
    assert await got["refs"][0] == "far"
    assert got["refs"][0] == got["refs"][1]
    reply_tx, reply_rx = await ray_channel(4)
    await tx.send(("answer to", reply_tx))
    _, answer_to = await rx.recv()
    await reply_tx.close()
    await answer_to.send("hello")
    assert await reply_rx.recv() == "hello"
    await answer_to.close()
    assert await drain(reply_rx) == []


@aio
async def test_large_items_go_through_and_too_large_ones_are_told(pair: Any) -> None:
    tx, rx = pair
    large = os.urandom(3_000_000)
    await tx.send_batch([large, "small"])
    assert await rx.recv() == large
    assert await rx.recv() == "small"
    with pytest.raises(LimitExceededError):
        await tx.send(bytes(200 << 20))  # the store of the tests holds 80 MB
    await tx.send("goes on")
    assert await rx.recv() == "goes on"


@aio
async def test_what_cannot_be_pickled_is_told_and_the_channel_goes_on(pair: Any) -> None:
    tx, rx = pair
    with pytest.raises(ChannelTypeErrorException, match="pickle"):
        await tx.send(threading.Lock())
    with pytest.raises(ChannelTypeErrorException, match="pickle"):
        await tx.send_batch([1, threading.Lock()])
    await tx.send("goes on")
    assert await rx.recv() == "goes on"


class _Unreadable:
    def __reduce__(self) -> Any:
        return _no_such_thing, ()


def _no_such_thing() -> Any:
    raise ImportError("this can't be made here")


@aio
async def test_what_cannot_be_decoded_is_told_and_the_next_one_comes(pair: Any) -> None:
    tx, rx = pair
    await tx.send_batch([_Unreadable(), "next"])
    with pytest.raises(ChannelTypeErrorException, match="can't be made here"):
        await rx.recv()
    assert await rx.recv() == "next"


@aio
async def test_a_batch_with_what_cannot_be_decoded_loses_nothing_else(pair: Any) -> None:
    tx, rx = pair
    await tx.send_batch(["a", _Unreadable(), "b", "c"])
    got: list[Any] = []
    told_behind = []
    while len(got) < 3:
        try:
            got += await rx.recv_batch(10, timeout=20)
        except ChannelTypeErrorException:
            told_behind.append(list(got))
    assert got == ["a", "b", "c"]
    assert told_behind == [["a"]]
    assert (await rx.try_recv()).is_err()


@aio
async def test_threads_that_use_an_endpoint_for_the_first_time_open_it_once() -> None:
    tx, rx = await ray_channel(8)  # of its own: others' endpoints may still be on their way out of the shared one
    await tx.send("opened")
    for _ in range(5):
        fresh, start = tx.clone(), threading.Barrier(4)

        def use(endpoint: Any = fresh, start: threading.Barrier = start) -> None:
            start.wait()
            endpoint.open()

        await asyncio.gather(*(asyncio.to_thread(use) for _ in range(4)))
        await fresh.close()

    async def counted() -> bool:
        return bool((await tx.stats_async()).sender_count == 1)

    await eventually(counted)
    await tx.close()
    assert [item async for item in rx] == ["opened"]  # a sender too many would keep it open


# --- ends ---
@aio
async def test_a_deleted_channel_is_closed_for_those_who_send_and_receive() -> None:
    tx, rx = await ray_channel(2, name="deleted")
    rx2 = rx.clone()
    receiving = asyncio.create_task(rx2.recv())
    await tx.send(1)
    assert await receiving == 1
    sending = [asyncio.create_task(tx.send(i)) for i in range(2, 200)]
    await eventually(lambda: any(task.done() for task in sending))
    assert await asyncio.to_thread(delete_ray_channel, "deleted")
    results = await asyncio.gather(*sending, return_exceptions=True)
    # What was on its way when it ended may have been in it.
    assert {type(result) for result in results} <= {type(None), ChannelClosedError, UncertainError}
    assert results[-1] is not None
    assert set(await drain(rx)) <= set(range(2, 200))
    with pytest.raises(ChannelClosedError):
        await tx.send(4)


@aio
async def test_a_dead_actor_is_a_backend_error_and_no_end_of_the_stream() -> None:
    tx, rx = await ray_channel(8, name="mortal", max_restarts=0)
    await tx.send(1)
    assert await rx.recv() == 1
    receiving = asyncio.create_task(rx.recv())
    await asyncio.sleep(0)
    os.kill(await asyncio.to_thread(pid_of, tx), 9)
    with pytest.raises(ChannelBackendErrorException) as told:
        await receiving
    assert (told.value.backend, told.value.actor_name, told.value.namespace) == ("ray", "channel_mortal", "klaw")
    with pytest.raises(ChannelBackendErrorException):
        await tx.send(2)
    with pytest.raises(ChannelBackendErrorException):
        async for _item in rx:
            pass
    assert (await rx.try_recv()).is_err()


def test_a_forked_child_is_told_and_the_parent_goes_on(pair: Any) -> None:
    tx, rx = pair
    tx.send_sync("before")
    assert rx.recv_sync() == "before"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tx.send_sync("from the child")
        except RuntimeError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    tx.send_sync("after")
    assert rx.recv_sync(timeout=20) == "after"


@aio
async def test_garbage_closes(pair: Any) -> None:
    tx, rx = pair
    before = (await tx.stats_async()).sender_count
    others = [tx.clone() for _ in range(5)]
    for each in others:
        await each.send("x")

    async def senders(expected: int) -> bool:
        return (await rx.stats_async()).sender_count == expected

    await eventually(lambda: senders(before + 5))  # an endpoint may be told of after its first item
    del others, each
    await eventually(lambda: senders(before))
    assert await rx.recv_batch(9)
