# SPDX-License-Identifier: Apache-2.0
"""What CPython asks of its queues (queue.Queue, asyncio.Queue), asked of channels in our words: from threads and from
tasks, the same expectations. join, task_done, LifoQueue and PriorityQueue have no counterpart; shutdown is close."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok
from klaw_core._klaw import channel
from klaw_core.runtime import (
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelFullError,
    select,
)

SIZE = 5


def waiting(end: Any, side: str, n: int) -> None:
    limit = time.monotonic() + 10
    while end.stats().backend_extras[f"waiting_{side}"] < n:
        assert time.monotonic() < limit
        time.sleep(0.0005)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    got: list[Any] = []

    def run() -> None:
        try:
            got.append(function())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


# --- threads (after test_queue) ---
def test_fifo_full_and_empty() -> None:
    tx, rx = channel(SIZE)
    assert rx.stats().queue_size == 0 and rx.try_recv_sync() == Err(ChannelEmpty())
    for i in (111, 333, 222):
        tx.send_sync(i)
    assert [rx.recv_sync() for _ in range(3)] == [111, 333, 222]
    for i in range(SIZE - 1):
        assert tx.try_send_sync(i) == Ok(None) and rx.stats().queue_size == i + 1
    assert tx.try_send_sync("last") == Ok(None)
    assert tx.try_send_sync("more") == Err(ChannelFull(SIZE))
    with pytest.raises(ChannelFullError):
        tx.send_sync("more", timeout=0.01)
    assert [rx.recv_sync() for _ in range(SIZE)] == [*range(SIZE - 1), "last"]
    with pytest.raises(ChannelEmptyError):
        rx.recv_sync(timeout=0.01)


def test_a_blocked_put_is_let_in_by_a_get_and_the_reverse() -> None:
    tx, rx = channel(1)
    tx.send_sync("first")
    thread, got = in_thread(lambda: tx.send_sync("second", timeout=10))
    waiting(tx, "senders", 1)
    assert rx.recv_sync() == "first"
    thread.join(10)
    assert got == [None] and rx.recv_sync() == "second"
    thread, got = in_thread(lambda: rx.recv_sync(timeout=10))
    waiting(rx, "receivers", 1)
    tx.send_sync("third")
    thread.join(10)
    assert got == ["third"]


@pytest.mark.parametrize("timeout", [0, -1, 0.02])
def test_a_time_limit_is_kept(timeout: float) -> None:
    tx, rx = channel(1)
    start = time.monotonic()
    with pytest.raises(ChannelEmptyError):
        rx.recv_sync(timeout=timeout)
    tx.send_sync(1)
    with pytest.raises(ChannelFullError):
        tx.send_sync(2, timeout=timeout)
    assert time.monotonic() - start >= 2 * max(timeout, 0)
    assert rx.recv_sync() == 1 and rx.try_recv_sync() == Err(ChannelEmpty())


def test_a_queue_without_a_bound_is_never_full() -> None:
    tx, rx = channel(1, unbounded=True)
    for i in range(5000):
        tx.send_sync(i, timeout=0)
    assert [rx.recv_sync() for _ in range(5000)] == list(range(5000))


@pytest.mark.parametrize(("producers", "consumers", "capacity"), [(1, 1, 0), (3, 1, 7), (1, 4, 1), (4, 4, 3)])
def test_many_feed_and_many_consume(producers: int, consumers: int, capacity: int) -> None:
    tx, rx = channel(capacity)
    each, per_consumer = 300, [[] for _ in range(consumers)]  # type: list[Any]

    def feed(mark: int) -> None:
        chance = random.Random(mark)
        with tx.clone() as mine:
            for i in range(each):
                while mine.try_send_sync((mark, i)).is_err() if chance.random() < 0.3 else mine.send_sync((mark, i)):
                    time.sleep(0)

    def consume(mine: list[Any]) -> None:
        with rx.clone() as own:
            mine.extend(own)

    threads = [threading.Thread(target=consume, args=(mine,)) for mine in per_consumer]
    threads += [threading.Thread(target=feed, args=(mark,)) for mark in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads[consumers:]:
        thread.join(15)
    tx.close_sync()
    for thread in threads[:consumers]:
        thread.join(15)
    got = [item for mine in per_consumer for item in mine]
    assert sorted(got) == [(mark, i) for mark in range(producers) for i in range(each)]
    for mine in per_consumer:  # what one consumer sees of one producer is in order
        for mark in range(producers):
            numbers = [i for who, i in mine if who == mark]
            assert numbers == sorted(numbers)


def test_references_are_given_up() -> None:
    class Token:
        gone = 0

        def __del__(self) -> None:
            Token.gone += 1

    tx, rx = channel(8)
    for _ in range(5):
        tx.send_sync(Token())
    for i in range(3):
        rx.recv_sync()
        assert Token.gone == i + 1
    rx.close_sync()  # what nobody can receive any more goes
    assert Token.gone == 5


def test_a_put_from_within_a_destructor_does_not_lock_up() -> None:
    tx, rx = channel(1, unbounded=True)

    class Sends:
        def __del__(self) -> None:
            tx.send_sync("from the destructor")

    tx.send_sync(Sends())
    rx.recv_sync()  # dropped here
    assert rx.recv_sync(timeout=10) == "from the destructor"


# --- shutdown: close ---
def test_close_lets_what_is_in_out_and_then_refuses() -> None:
    tx, rx = channel(4)
    tx.send_sync(1)
    tx.close_sync()
    tx.close_sync()
    assert tx.try_send_sync(2) == Err(ChannelClosed())
    with pytest.raises(ChannelClosedError):
        tx.send_sync(2)
    assert rx.recv_sync() == 1
    for _ in range(2):
        assert rx.try_recv_sync() == Err(ChannelClosed())
        with pytest.raises(ChannelClosedError):
            rx.recv_sync(timeout=0)


@pytest.mark.parametrize("n", [1, 4])
def test_close_wakes_every_thread_that_waits(n: int) -> None:
    tx, rx = channel(1)
    receivers = [in_thread(lambda: rx.recv_sync()) for _ in range(n)]
    waiting(rx, "receivers", n)
    tx.close_sync()
    full, other = channel(1)
    full.send_sync(0)
    senders = [in_thread(lambda: full.send_sync(1)) for _ in range(n)]
    waiting(full, "senders", n)
    other.close_sync()  # as shutdown(immediate=True)
    for thread, got in receivers + senders:
        thread.join(10)
        assert [type(error) for error in got] == [ChannelClosedError]


# --- tasks (after test_asyncio/test_queues) ---
pytestmark_async = pytest.mark.anyio


@pytestmark_async
async def test_tasks_get_in_the_order_in_which_they_came(anyio_backend: tuple[str, Any]) -> None:
    tx, rx = channel(8)
    got: list[tuple[int, int]] = []

    async def get(n: int) -> None:
        got.append((n, await rx.recv()))

    async with anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(get, n)
            await anyio.wait_all_tasks_blocked()
        for item in range(4):
            await tx.send(item)
    # Whoever runs first takes the first; trio lets those it wakes at one time run in any order.
    assert [item for _, item in got] == [0, 1, 2, 3] and sorted(n for n, _ in got) == [0, 1, 2, 3]
    if anyio_backend[0] == "asyncio":
        assert [n for n, _ in got] == [0, 1, 2, 3]


@pytestmark_async
async def test_put_waits_for_room_and_get_for_an_item() -> None:
    tx, rx = channel(1)
    told: list[str] = []

    async def put() -> None:
        for item in ("a", "b"):
            await tx.send(item)
            told.append(item)

    async with anyio.create_task_group() as group:
        group.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert told == ["a"] and rx.stats().queue_size == 1
        assert await rx.recv() == "a"
        await anyio.wait_all_tasks_blocked()
        assert told == ["a", "b"] and await rx.recv() == "b"


def test_a_cancelled_getter_is_passed_over() -> None:
    async def main() -> None:
        tx, rx = channel(4)
        cancelled, second = asyncio.ensure_future(rx.recv()), asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        cancelled.cancel()
        await tx.send("for the second")
        assert await asyncio.wait_for(second, 10) == "for the second"
        assert cancelled.cancelled() and rx.stats().backend_extras["waiting_receivers"] == 0

    asyncio.run(main())


def test_a_getter_that_is_cancelled_after_it_was_chosen_hands_on() -> None:
    async def main() -> None:
        tx, rx = channel(4)
        first, second = asyncio.ensure_future(rx.recv()), asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        await tx.send(1)  # the first is granted it, and has not run yet
        first.cancel()
        assert await asyncio.wait_for(second, 10) == 1

    asyncio.run(main())


def test_a_putter_that_is_cancelled_after_it_was_chosen_hands_on() -> None:
    async def main() -> None:
        tx, rx = channel(1)
        await tx.send(0)
        first, second = asyncio.ensure_future(tx.send(1)), asyncio.ensure_future(tx.send(2))
        await asyncio.sleep(0)
        assert await rx.recv() == 0  # the first is granted the room
        first.cancel()
        await asyncio.wait_for(second, 10)
        assert await rx.recv() == 2 and (await rx.try_recv()).is_err()

    asyncio.run(main())


def test_a_cancelled_put_leaves_nothing_in_the_queue() -> None:
    async def main() -> None:
        tx, rx = channel(1)
        await tx.send(1)
        putter = asyncio.ensure_future(tx.send(2))
        await asyncio.sleep(0)
        putter.cancel()
        await asyncio.gather(putter, return_exceptions=True)
        assert await rx.recv() == 1 and await rx.try_recv() == Err(ChannelEmpty())
        await asyncio.wait_for(tx.send(3), 10)
        assert await rx.recv() == 3

    asyncio.run(main())


@pytestmark_async
async def test_a_time_limit_of_the_library_loses_no_item() -> None:
    tx, rx = channel(1)
    with anyio.move_on_after(0.005):
        await rx.recv()
    await tx.send(1)
    with anyio.move_on_after(0.005):
        await tx.send(2)
    assert await rx.recv() == 1 and await rx.try_recv() == Err(ChannelEmpty())


@pytestmark_async
async def test_close_wakes_every_task_that_waits() -> None:
    tx, rx = channel(1)
    full, other = channel(1)
    await full.send(0)
    woken: list[str] = []

    async def wait(name: str, operation: Callable[[], Any]) -> None:
        with pytest.raises(ChannelClosedError):
            await operation()
        woken.append(name)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait, "get", rx.recv)
            group.start_soon(wait, "select", lambda: select(rx))
            group.start_soon(wait, "put", lambda: full.send(1))
        await anyio.wait_all_tasks_blocked()
        await tx.close()
        await other.close()
    assert sorted(woken) == ["get"] * 3 + ["put"] * 3 + ["select"] * 3


@pytestmark_async
async def test_iteration_ends_with_the_queue() -> None:
    tx, rx = channel(8)
    await tx.send_batch([1, 2, 3])
    await tx.close()
    assert [item async for item in rx] == [1, 2, 3] and [item async for item in rx] == []


def test_a_queue_serves_one_loop_after_another() -> None:
    tx, rx = channel(1)

    async def use(n: int) -> None:
        task = asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        await tx.send(n)
        assert await task == n

    for n in range(3):
        asyncio.run(use(n))
