# SPDX-License-Identifier: Apache-2.0
"""Sends and receives of a hub that are awaited: tasks of asyncio, uvloop and trio, threads; without Ray."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import time
from typing import Any

import anyio
import pytest
from klaw_core._klaw import Hub
from klaw_core.runtime import ChannelClosedError, ChannelFullError, TimeoutExpiredError, UncertainError

from .remote_wire import CHANNEL, PATIENCE, Carrier, bounded, seed, wire


@pytest.mark.anyio
async def test_an_awaited_send_returns_when_its_item_is_enqueued() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    with Carrier(w):
        async with bounded():
            for n in range(50):
                assert await tx.send_op(s, b"%d" % n, 0) is None
                assert w.broker.stats()["total_sent"] == n + 1
            lease = 0
            for n in range(50):
                item = await rx.recv_op(r, lease)
                lease = item.lease
                assert item.payload == b"%d" % n


@pytest.mark.anyio
async def test_many_tasks_send_and_receive_at_once() -> None:
    w = wire(capacity=30)
    tx, s, rx, r = w.pair()
    got: list[int] = []

    async def sends(k: int) -> None:
        for n in range(20):
            await tx.send_op(s, b"%d" % (20 * k + n), 0)

    async def receives() -> None:
        lease = 0
        while True:
            item = await rx.recv_op(r, lease)
            lease = item.lease
            got.append(int(item.payload))

    with Carrier(w):
        async with bounded():
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(receives)
                async with anyio.create_task_group() as senders:
                    for k in range(20):
                        senders.start_soon(sends, k)
                while len(got) < 400:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()
    assert sorted(got) == list(range(400))
    for k in range(20):
        mine = [n for n in got if n // 20 == k]
        assert len(mine) == 20


@pytest.mark.anyio
async def test_a_cancelled_send_is_withdrawn_or_says_that_it_is_uncertain() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    w.hubs.remove(tx)  # nothing is carried
    op = tx.send_op(s, b"never", 0)
    with anyio.move_on_after(0.01) as scope:
        await op
    assert scope.cancelled_caught and not op.uncertain
    op = tx.send_op(s, b"perhaps", 0)
    framed: list[Any] = []
    tx.on_calls = lambda: framed.extend(tx.calls())
    with anyio.move_on_after(0.01) as scope:
        await op
    assert scope.cancelled_caught and op.uncertain
    tx.on_calls = None
    for number, _, blob, attachments in framed:
        ticket, _ = w.broker.call(blob, attachments)
        w.tickets[ticket] = (tx, number)
    w.hubs.append(tx)
    with Carrier(w):
        async with bounded():
            assert (await rx.recv_op(r)).payload == b"perhaps"
            await tx.send_op(s, b"next", 0)
            assert (await rx.recv_op(r)).payload == b"next"


@pytest.mark.anyio
async def test_a_send_that_times_out_says_which() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    with pytest.raises(TimeoutExpiredError):
        await tx.send_op(s, b"x", 0, 0, None, b"", 0.0, 0.01)
    tx.on_calls = lambda: tx.calls()
    with pytest.raises(UncertainError):
        await tx.send_op(s, b"x", 0, 0, None, b"", 0.0, 0.01)


@pytest.mark.anyio
async def test_a_send_waits_for_room_in_its_hub() -> None:
    w = wire()
    tx, s, rx, r = w.pair(retain_bytes=1000)
    sent: list[int] = []

    async def sends() -> None:
        for n in range(30):
            await tx.send_op(s, b"%03d" % n * 33, 0)
            sent.append(n)

    with Carrier(w):
        async with bounded(), anyio.create_task_group() as group:
            group.start_soon(sends)
            lease = 0
            for n in range(30):
                item = await rx.recv_op(r, lease)
                lease = item.lease
                assert item.payload[:3] == b"%03d" % n
    assert sent == list(range(30))


@pytest.mark.anyio
async def test_refused_closed_and_broken_sends_raise() -> None:
    w = wire(capacity=1)
    tx, s, rx, r = w.pair()
    with Carrier(w):
        async with bounded():
            await tx.send_op(s, b"0", 0, 32)
            with pytest.raises(ChannelFullError):
                await tx.send_op(s, b"1", 0, 32)
            rx.close(r)
            with pytest.raises(ChannelClosedError):
                for _ in range(1000):
                    await tx.send_op(s, b"2", 0)
            tx.on_error = lambda reason, missed: LookupError(reason)
            with pytest.raises(LookupError, match="closed"):
                await tx.send_op(s, b"3", 0)


@pytest.mark.anyio
async def test_a_receive_ends_when_the_last_sender_has_left() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    ended: list[str] = []

    async def receives() -> None:
        try:
            await rx.recv_op(r)
        except ChannelClosedError:
            ended.append("closed")

    with Carrier(w):
        async with bounded(), anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(receives)
            await anyio.sleep(0.01)
            tx.close(s)
    assert ended == ["closed"] * 3


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [1, 2])
async def test_each_receiver_of_a_broadcast_or_a_watch_is_woken_for_itself(kind: int) -> None:
    w = wire(kind=kind)
    tx, s, rx, r = w.pair(kind=kind)
    endpoints = [r, *(rx.open("receiver") for _ in range(300))]
    got: dict[int, list[bytes]] = {each: [] for each in endpoints}
    ended: list[int] = []

    async def receives(endpoint: int) -> None:
        lease = 0
        try:
            while True:
                item = await rx.recv_op(endpoint, lease)
                lease = item.lease
                got[endpoint].append(item.payload)
        except ChannelClosedError:
            ended.append(endpoint)

    with Carrier(w):
        async with bounded(), anyio.create_task_group() as group:
            while w.broker.stats()["receivers"] < 301:
                await anyio.sleep(0.001)
            for each in endpoints:
                group.start_soon(receives, each)
            for n in range(5):
                await tx.send_op(s, b"%d" % n, 0)
                while not all(items and items[-1] == b"%d" % n for items in got.values()):
                    await anyio.sleep(0.001)
            tx.close(s)
    assert all(items == [b"0", b"1", b"2", b"3", b"4"] for items in got.values())
    assert sorted(ended) == sorted(endpoints)


@pytest.mark.anyio
async def test_a_receive_that_times_out_or_is_cancelled_loses_nothing() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    got: list[int] = []
    with Carrier(w):
        async with bounded():
            with pytest.raises(TimeoutExpiredError):
                await rx.recv_op(r, 0, 0.005)
            with pytest.raises(TimeoutExpiredError):
                await rx.recv_op(r, 0, 0)

            async def receives(seconds: float) -> None:
                with anyio.move_on_after(seconds):
                    while True:
                        item = await rx.recv_op(r)
                        got.append(int(item.payload))
                        rx.ack(r, item.lease)

            async def sends() -> None:
                for n in range(200):
                    await tx.send_op(s, b"%d" % n, 0)

            async with anyio.create_task_group() as group:
                group.start_soon(sends)
                for n in range(40):
                    group.start_soon(receives, 0.0005 * n)
            while len(got) < 200:
                item = await rx.recv_op(r)
                got.append(int(item.payload))
                rx.ack(r, item.lease)
    assert sorted(got) == list(range(200))


def test_a_receive_woken_and_cancelled_at_once_wakes_the_next() -> None:
    w = wire()
    tx, s, rx, r = w.pair()

    async def main() -> bytes:
        first = asyncio.ensure_future(rx.recv_op(r))
        second = asyncio.ensure_future(rx.recv_op(r))
        await asyncio.sleep(0)
        tx.send(s, b"x", 0, None)
        w.until(lambda: rx.state()["ready"] or rx.state()["held"])
        first.cancel()  # told already: the wake-up is on its way
        async with asyncio.timeout(PATIENCE):
            item = await second
        assert first.cancelled()
        return item.payload

    assert asyncio.run(main()) == b"x"


def test_one_wake_up_of_the_loop_serves_a_whole_frame() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    wakes = 0

    async def main() -> None:
        nonlocal wakes
        loop = asyncio.get_running_loop()
        sends = [asyncio.ensure_future(tx.send_op(s, b"%d" % n, 0)) for n in range(100)]
        await asyncio.sleep(0)
        plain = loop._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            nonlocal wakes
            ready = plain(timeout)
            wakes += len(ready)
            return ready

        loop._selector.select = select  # type: ignore[attr-defined]
        carrier = threading.Thread(target=w.settle)
        carrier.start()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*sends)
        carrier.join()

    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert 1 <= wakes <= 3


def test_operations_are_coroutines_of_one_use() -> None:
    hub = Hub(CHANNEL)
    s, r = hub.open("sender"), hub.open("receiver")
    with pytest.warns(RuntimeWarning, match="never awaited"):
        hub.send_op(s, b"x", 0)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        hub.recv_op(r)
    op = hub.recv_op(r)
    assert repr(op).startswith("<Hub.recv_op new")
    op.close()
    with pytest.raises(RuntimeError, match="reuse"):
        op.send(None)
    op = hub.recv_op(r)
    with pytest.raises(TypeError):
        op.send(5)
    with pytest.raises(KeyError):
        op.throw(KeyError("x"))


def test_a_thread_waits_without_a_loop() -> None:
    w = wire(capacity=1)
    tx, s, rx, r = w.pair()
    with Carrier(w):
        tx.send_wait(s, b"1", 0)
        with pytest.raises(TimeoutExpiredError):
            tx.send_wait(s, b"2", 0, 0, None, b"", 0.0, 0.0)
        with pytest.raises((TimeoutExpiredError, UncertainError)):
            tx.send_wait(s, b"2", 0, 0, None, b"", 0.0, 0.02)
        item = rx.recv_wait(r, 0, 10.0)
        assert item.payload == b"1"
        tx.close(s)
        start = time.monotonic()
        with pytest.raises(ChannelClosedError):  # once nothing is held that may come back
            while time.monotonic() < start + PATIENCE:
                item = rx.recv_wait(r, item.lease, 10.0)
    with pytest.raises(ChannelClosedError):
        rx.recv_wait(r, 0, 0.0)


def test_threads_share_a_hub() -> None:
    w = wire(capacity=50)
    tx, s, rx, r = w.pair()
    got: list[int] = []

    def receives() -> None:
        lease = 0
        try:
            while True:
                item = rx.recv_wait(r, lease)
                lease = item.lease
                got.append(int(item.payload))
        except ChannelClosedError:
            pass

    def sends(k: int) -> None:
        for n in range(50):
            tx.send_wait(s, b"%d" % (50 * k + n), 0)

    with Carrier(w):
        senders = [threading.Thread(target=sends, args=(k,)) for k in range(6)]
        receivers = [threading.Thread(target=receives) for _ in range(3)]
        for each in senders + receivers:
            each.start()
        for each in senders:
            each.join()
        tx.close(s)
        for each in receivers:
            each.join()
    assert sorted(got) == list(range(300))


def test_awaited_operations_leave_nothing_behind() -> None:
    async def once() -> None:
        w = wire()
        tx, s, rx, r = w.pair()
        kicked = False

        def pump() -> None:
            nonlocal kicked
            kicked = False
            w.settle()

        def kick() -> None:
            nonlocal kicked
            if not kicked:
                kicked = True
                asyncio.get_running_loop().call_soon(pump)

        tx.on_calls = rx.on_calls = kick
        for _ in range(20):
            await asyncio.gather(*(tx.send_op(s, b"x", 0, 0, object(), b"c") for _ in range(10)))
            for _ in range(10):
                item = await rx.recv_op(r)
                rx.ack(r, item.lease)
        waiting = [asyncio.ensure_future(rx.recv_op(r)) for _ in range(10)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    for _ in range(3):
        asyncio.run(once())
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(10):
        asyncio.run(once())
    gc.collect()
    assert sys.getallocatedblocks() - before < 500


def test_a_loop_that_ends_in_the_middle_of_a_send_leaves_the_hub_usable() -> None:
    w = wire()
    tx, s, rx, r = w.pair()

    async def abandoned() -> None:
        left.append(asyncio.ensure_future(tx.send_op(s, b"gone", 0)))
        left.append(asyncio.ensure_future(rx.recv_op(r)))
        await asyncio.sleep(0)

    left: list[Any] = []
    asyncio.run(abandoned())
    assert all(each.cancelled() for each in left)
    left.clear()
    gc.collect()
    with Carrier(w):

        async def again() -> bytes:
            await tx.send_op(s, b"here", 0)
            return (await rx.recv_op(r)).payload

        assert asyncio.run(again()) == b"here"


@pytest.mark.parametrize("capacity", [3, None])
def test_whatever_is_cancelled_or_lost_the_account_is_right(capacity: int | None) -> None:
    start = seed()
    for history in range(4):
        account(start + history, capacity)


def account(seed: int, capacity: int | None) -> None:
    """Tasks that send and receive while they are cancelled at random and calls are lost and repeated."""
    rnd = random.Random(seed)
    w = wire(seed=seed, capacity=capacity, lose=0.1, repeat=0.1, shuffle=0.2)
    tx = [w.hub(retain_bytes=2000, frame_bytes=300) for _ in range(2)]
    rx = [w.hub() for _ in range(2)]
    senders = [(hub, hub.open("sender")) for hub in tx]
    receivers = [(hub, hub.open("receiver")) for hub in rx for _ in range(3)]
    confirmed: set[int] = set()
    perhaps: set[int] = set()
    received: list[int] = []
    again: set[int] = set()
    number = iter(range(1 << 30))

    async def sends(hub: Hub, endpoint: int) -> None:
        for _ in range(8):
            n = next(number)
            op = hub.send_op(endpoint, b"%d" % n * rnd.randrange(1, 9) + b" ", 0, 0, None, b"%d" % n)
            try:
                await op
            except asyncio.CancelledError:
                if op.uncertain:
                    perhaps.add(n)
                raise
            confirmed.add(n)

    async def receives(hub: Hub, endpoint: int) -> None:
        while True:
            item = await hub.recv_op(endpoint)
            n = int(item.context)
            if item.redelivered:
                again.add(n)
            received.append(n)
            hub.ack(endpoint, item.lease)
            if rnd.random() < 0.2:
                await asyncio.sleep(0)

    async def main() -> None:
        readers = {asyncio.ensure_future(receives(*each)) for each in receivers}
        writers = {asyncio.ensure_future(sends(*rnd.choice(senders))) for _ in range(12)}
        while writers:
            await asyncio.sleep(0)
            if not w.pump():
                w.tick()
            for pool, chance in ((readers, 0.3), (writers, 0.02)):
                if rnd.random() < chance:
                    rnd.choice(sorted(pool, key=id)).cancel()
                pool.difference_update([each for each in pool if each.done()])
            while len(readers) < 8:
                readers.add(asyncio.ensure_future(receives(*rnd.choice(receivers))))
        readers |= {asyncio.ensure_future(receives(*each)) for each in receivers}  # whose hub holds items
        end = time.monotonic() + PATIENCE / 2
        while not confirmed <= set(received) or w.broker.stats()["total_received"] != len(received):
            assert time.monotonic() < end, (seed, confirmed - set(received), [hub.state() for hub in (*tx, *rx)])
            await asyncio.sleep(0)
            if not w.pump():
                w.tick()
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    asyncio.run(main())
    assert len(received) == len(set(received)), (seed, [n for n in received if received.count(n) > 1])
    assert set(received) <= confirmed | perhaps
    assert not again


@pytest.mark.anyio
async def test_a_batch_is_what_is_there_with_its_leases() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    mark = object()
    with Carrier(w):
        async with bounded():
            await tx.send_op(s, b"first", 0)
            values, leases, last = await rx.recv_op(r, 0, None, 10)
            assert values == [b"first"] and leases == [last.lease] and last.payload == b"first"
            assert tx.send_batch(s, [b"a", (b"\x01", 1), b"b", (b"", 0, mark)], None, 0, True) == "ok"
            got, held = [], leases
            while len(got) < 4:
                assert rx.ack_leases(r, held) == len(held)
                values, held, last = await rx.recv_op(r, 0, None, 3)
                assert len(values) == len(held) <= 3 and held[-1] == last.lease
                got += values
            assert [got[0], got[2]] == [b"a", b"b"]
            assert (got[1].payload, got[1].codec) == (b"\x01", 1)
            assert got[3].attachment is mark and last is got[3]
            assert rx.ack_leases(r, held) == len(held) and rx.ack_leases(r, held) == 0
            with pytest.raises(TimeoutExpiredError):
                await rx.recv_op(r, 0, 0.01, 3)


def test_a_receive_that_waits_for_a_batch_asks_for_all_of_it() -> None:
    async def asked(**options: Any) -> int:
        w = wire()
        tx, s = w.hub(), 0
        s = tx.open("sender")
        rx = w.hub(**options)
        r = rx.open("receiver")
        w.settle()
        waits = asyncio.ensure_future(rx.recv_op(r, 0, None, 50))
        await asyncio.sleep(0)
        assert tx.send_batch(s, [b"x"] * 40, None) == "ok"
        w.until(lambda: rx.state()["ready"])
        ready: int = rx.state()["ready"]
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert rx.state()["ready"] == ready and not rx.state()["held"]  # nothing is lost with it
        return ready

    assert asyncio.run(asked()) == 40
    assert asyncio.run(asked(ack=1)) == 1  # with explicit acks none but what it can take now (W18)


def test_a_thread_does_not_rely_on_who_was_told_before_it() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    told: list[Any] = [lambda: None]  # as a loop that ends before its turn
    tx.on_calls = lambda: told[0]()
    assert tx.send(s, b"before", 0, None) == "ok"
    told[0] = w.settle
    tx.send_wait(s, b"after", 0, 0, None, b"", 0.0, PATIENCE)
    assert w.broker.stats()["total_sent"] == 2
