# SPDX-License-Identifier: Apache-2.0
"""The near end of a remote channel (_klaw.Hub), without Ray: tasks of asyncio, uvloop and trio, threads."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from klaw_core._klaw import Broker, Hub
from klaw_core.runtime import (
    ChannelClosedError,
    ChannelFullError,
    ChannelLaggedError,
    TimeoutExpiredError,
    UncertainError,
)
from klaw_core.runtime.errors import ChannelBackendErrorException

from .remote_wire import CHANNEL, DETACH, PUSH, REFUSED, SENT, UNCERTAIN, UNSENT, Wire, seed, take_all, wire

PATIENCE = 20


class Carrier:
    """Carries calls on a thread of its own, as Ray does. hold: answers are kept back while it is set."""

    def __init__(self, w: Wire) -> None:
        self.wire = w
        self.stop = threading.Event()
        self.hold = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stop.is_set():
            if self.hold.is_set() or not self.wire.pump():
                self.wire.tick()

    def __enter__(self) -> Carrier:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    """A limit for what might hang."""
    with anyio.fail_after(PATIENCE):
        yield


# --- without tasks ---


def test_an_event_hands_the_waiter_back() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    waiters = [object() for _ in range(5)]
    for each in waiters:
        assert tx.send(s, b"x", 0, each) == "ok"
    events: list[Any] = []
    w.until(lambda: events.extend(e for e in tx.events() if e[1] is not None) or len(events) >= 5)
    assert [(kind, waiter) for kind, waiter, _ in events] == [(SENT, each) for each in waiters]
    assert tx.withdraw(waiters[0]) == "done"


def test_a_send_is_withdrawn_before_it_is_framed_and_uncertain_after() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    early, late = object(), object()
    tx.send(s, b"early", 0, early)
    assert tx.withdraw(early) == "withdrawn"
    tx.send(s, b"late", 0, late)
    calls = tx.calls()
    assert PUSH in [kind for _, kind, _, _ in calls]
    assert tx.withdraw(late) == "uncertain"
    for number, _, blob, attachments in calls:
        ticket, _ = w.broker.call(blob, attachments)
        w.tickets[ticket] = (tx, number)
    rx.wait(r, 2)
    got: list[bytes] = []
    w.until(lambda: got or got.extend(take_all(rx, r)))
    w.settle()
    assert got == [b"late"]
    assert not [e for e in tx.events() if e[1] is not None]


def test_a_full_channel_refuses_nowait_sends_and_keeps_the_others() -> None:
    w = wire(capacity=2)
    tx, s, rx, r = w.pair()
    for n in range(4):
        tx.send(s, b"%d" % n, 0, n)
    tx.send(s, b"no", 0, "no", 32)
    events: dict[Any, int] = {}

    def look() -> None:
        events.update({waiter: kind for kind, waiter, _ in tx.events() if waiter is not None})

    w.until(lambda: look() or "no" in events)
    assert events["no"] == REFUSED and 3 not in events
    rx.wait(r, 9)
    got: list[bytes] = []
    w.until(lambda: got.extend(take_all(rx, r)) or len(got) == 4)
    w.until(lambda: look() or 3 in events)
    assert got == [b"0", b"1", b"2", b"3"]
    assert [events[n] for n in range(4)] == [SENT] * 4


def test_a_batch_goes_whole_or_not_at_all() -> None:
    w = wire(capacity=5)
    tx, s, rx, r = w.pair()
    assert tx.send_batch(s, [(b"%d" % n, 0) for n in range(9)], "large", whole=True) == "ok"
    assert tx.send_batch(s, [(b"%d" % n, 0, None) for n in range(5)], "fits", whole=True) == "ok"
    events: dict[Any, int] = {}
    w.until(lambda: events.update({e[1]: e[0] for e in tx.events() if e[1]}) or len(events) == 2)
    assert events == {"large": REFUSED, "fits": SENT}
    rx.wait(r, 9)
    got: list[bytes] = []
    w.until(lambda: got.extend(take_all(rx, r)) or len(got) == 5)
    assert got == [b"%d" % n for n in range(5)]


def test_beyond_what_it_may_retain_a_hub_is_full_until_there_is_room() -> None:
    w = wire()
    tx, s, rx, r = w.pair(retain_bytes=1000)
    sent = 0
    while tx.send(s, b"x" * 100, 0, None) == "ok":
        sent += 1
        assert sent < 100
    assert tx.send(s, b"x" * 100, 0, None) == "full"
    rx.wait(r, 100)
    events: list[int] = []
    w.until(lambda: take_all(rx, r) is None or events.extend(e[0] for e in tx.events()) or 4 in events)
    assert tx.send(s, b"x" * 100, 0, None) == "ok"


def test_a_token_keeps_the_channel_open_until_it_is_claimed() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    token = tx.mint("sender")
    tx.send(s, b"1", 0, None)
    tx.close(s)
    w.settle()
    assert not w.broker.stats()["senders_closed"]
    third = w.hub()
    claimed = third.open("sender", token)
    third.send(claimed, b"2", 0, None)
    third.close(claimed)
    assert not third.close(claimed)
    rx.wait(r, 2)
    got: list[bytes] = []
    w.until(lambda: got.extend(take_all(rx, r)) or len(got) == 2)
    assert got == [b"1", b"2"]
    w.until(lambda: w.broker.stats()["senders_closed"])


def test_what_a_receiver_gives_back_comes_first_and_marked_when_it_was_seen() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    rx.wait(r, 3)
    for n in range(3):
        tx.send(s, b"%d" % n, 0, None)
    items: list[Any] = []
    w.until(lambda: items.extend(rx.take_many(r, 9)) or len(items) == 3)
    assert rx.nack(r, items[0].lease)
    assert rx.nack(r, items[1].lease, False)
    assert rx.ack(r, items[2].lease)
    assert not rx.ack(r, items[2].lease)
    assert not rx.nack(r, 12345678)
    again: list[Any] = []
    w.until(lambda: again.extend(rx.take_many(r, 9)) or len(again) == 2)
    assert [(i.payload, i.redelivered) for i in again] == [(b"0", True), (b"1", False)]
    assert "redelivered" in repr(again[0]) and "redelivered" not in repr(again[1])


def test_a_mismatch_is_an_error_of_the_backend_that_says_what() -> None:
    w = wire(kind=1)
    hub = w.hub(kind=0)
    r = hub.open("receiver")
    w.until(lambda: hub.trouble)
    with pytest.raises(ChannelBackendErrorException):
        hub.take(r)
    hub.on_error = lambda reason, missed: KeyError(reason, missed)
    with pytest.raises(KeyError, match="backend"):
        hub.take(r)
    hub.on_error = lambda reason, missed: "no exception"  # type: ignore[assignment,return-value]
    with pytest.raises(TypeError, match="on_error"):
        hub.take(r)
    with pytest.raises((ChannelClosedError, TypeError)):
        hub.open("sender")


def test_the_far_end_that_is_gone_for_good_breaks_the_hub() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    w.hubs.clear()
    waiter = object()
    tx.send(s, b"x", 0, waiter)
    for number, *_ in tx.calls():
        tx.failed(number, True, "the actor died")
    assert "the actor died" in tx.trouble
    assert tx.state()["broken"]
    assert [e[0] for e in tx.events() if e[1] is waiter] in ([UNSENT], [UNCERTAIN])
    with pytest.raises(ChannelBackendErrorException, match="the actor died"):
        tx.open("sender")


def test_a_lagging_receiver_of_a_broadcast_gets_its_items_first_then_is_told() -> None:
    w = wire(kind=1, capacity=3)
    tx, s, rx, r = w.pair(kind=1)
    rx.wait(r, 2)
    tx.send(s, b"0", 0, None)
    w.until(lambda: rx.state()["ready"])
    for n in range(1, 9):
        tx.send(s, b"%d" % n, 0, None)
    w.until(lambda: w.broker.stats()["total_sent"] == 9)
    got: list[int] = []
    missed = 0

    def receive() -> bool:
        nonlocal missed
        try:
            got.extend(int(i.payload) for i in rx.take_many(r, 9))
        except ChannelLaggedError as error:
            missed += error.missed
        rx.wait(r, 1)
        return len(got) + missed >= 9

    w.until(receive)
    assert got == sorted(got) and len(got) + missed == 9 and got[0] == 0 and got[-1] == 8


def test_leaving_gives_back_what_nobody_took_and_ends_in_a_detach() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    w.hub().open("receiver")  # else the channel would close
    w.settle()
    rx.wait(r, 5)
    for n in range(5):
        tx.send(s, b"%d" % n, 0, None)
    w.until(lambda: rx.state()["ready"] > 0)
    rx.detach()
    w.until(lambda: rx.idle)
    assert DETACH in w.kinds
    w.until(lambda: w.broker.stats()["queued"] == 5)
    assert w.broker.stats()["clients"] == 2


def test_garbage_for_an_answer_is_a_call_that_failed() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    tx.send(s, b"x", 0, "sent")
    for number, *_ in tx.calls():
        assert tx.reply(number, b"\xff" * 30, [object()]) is False
    rx.wait(r, 1)
    got: list[bytes] = []
    w.until(lambda: got or got.extend(take_all(rx, r)))
    assert got == [b"x"]
    assert tx.reply(987654, b"unknown") in (True, False)


def test_wrong_arguments_are_refused() -> None:
    hub = Hub(CHANNEL)
    e = hub.open("sender")
    bad: list[tuple[type[Exception], Callable[[], object]]] = [
        (ValueError, lambda: Hub(b"")),
        (ValueError, lambda: Hub(CHANNEL, retain_bytes=-1)),
        (ValueError, lambda: hub.open("neither")),
        (ValueError, lambda: hub.open("sender", b"short")),
        (TypeError, lambda: hub.send(e, b"x", 0)),  # type: ignore[call-arg]
        (TypeError, lambda: hub.send(e, "text", 0, None)),  # type: ignore[arg-type]
        (ValueError, lambda: hub.send(e, b"x", -1, None)),
        (OverflowError, lambda: hub.send(-1, b"x", 0, None)),
        (TypeError, lambda: hub.send_batch(e, [b"x"], None)),  # type: ignore[list-item]
        (TypeError, lambda: hub.send_op(e, b"x")),  # type: ignore[call-arg]
        (TypeError, lambda: hub.send_op(e, "x", 0)),  # type: ignore[arg-type]
        (TypeError, lambda: hub.send_op(e, b"x", 0, 0, None, "context")),  # type: ignore[arg-type]
        (TypeError, lambda: hub.recv_op()),  # type: ignore[call-arg]
        (TypeError, lambda: hub.ack_many([1])),  # type: ignore[list-item]
        (TypeError, lambda: hub.take_many(1)),  # type: ignore[call-arg]
        (TypeError, lambda: hub.reply(1)),  # type: ignore[call-arg]
    ]
    for error, call in bad:
        with pytest.raises(error):
            call()
    assert hub.send(e + 77, b"x", 0, None) == "closed"
    with pytest.raises(ValueError, match="item"):
        hub.send_batch(e, [], "nothing")
    assert hub.send(e, memoryview(b"view"), 0, None) == "ok"  # type: ignore[arg-type]


def test_a_client_whose_lease_ran_out_goes_on_under_another_name() -> None:
    w = wire(lease=0.05)
    tx, s, rx, r = w.pair(renew=0.01)
    keeper = w.hub(renew=0.01)  # else the channel would close
    keeper.open("sender")
    w.settle()
    old = tx.client
    tx.send(s, b"before", 0, "before")
    framed = tx.calls()
    assert framed
    w.hubs.remove(tx)
    w.until(lambda: w.broker.stats()["clients"] == 2)  # it says nothing until it is held for dead
    w.hubs.append(tx)
    for number, _, blob, attachments in framed:
        ticket, _ = w.broker.call(blob, attachments)
        w.tickets[ticket] = (tx, number)
    events: dict[Any, int] = {}
    w.until(lambda: events.update({e[1]: e[0] for e in tx.events() if e[1]}) or "before" in events)
    assert events["before"] == UNCERTAIN
    assert tx.client != old
    assert tx.send(s, b"after", 0, "after") == "ok"
    w.until(lambda: events.update({e[1]: e[0] for e in tx.events() if e[1]}) or "after" in events)
    assert events["after"] == SENT
    rx.wait(r, 1)
    got: list[bytes] = []
    w.until(lambda: got or got.extend(take_all(rx, r)))
    assert got == [b"after"]


def restart(w: Wire) -> None:
    """The actor dies and comes back empty-handed."""
    w.broker = Broker(CHANNEL, restarted=True, gather=0.01)
    for ticket, to in list(w.tickets.items()):
        del w.tickets[ticket]
        if to is not None:
            to[0].failed(to[1], False, "the actor restarts")


def test_after_a_restart_senders_bring_back_what_was_not_acknowledged() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    for n in range(30):
        tx.send(s, b"%d" % n, 0, n)
    w.until(lambda: w.broker.stats()["total_sent"] == 30)
    rx.wait(r, 5)
    got: list[Any] = []
    w.until(lambda: got.extend(rx.take_many(r, 5)) or len(got) >= 5)
    rx.ack_many(got)
    restart(w)
    rx.wait(r, 30)
    w.until(lambda: got.extend(rx.take_many(r, 99)) or {int(i.payload) for i in got} == set(range(30)))
    seen: set[int] = set()
    for item in got:
        assert item.redelivered or int(item.payload) not in seen  # what comes twice is marked
        seen.add(int(item.payload))
    assert tx.state()["boot"] == rx.state()["boot"] == w.broker.stats()["boot"]


def test_what_nobody_can_bring_back_is_told_to_a_receiver_once() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    other = w.hub()
    o = other.open("sender")
    for n in range(10):
        tx.send(s, b"%d" % n, 0, n)
    w.until(lambda: w.broker.stats()["total_sent"] == 10)
    w.hubs.remove(tx)
    w.broker.client_died(tx.client)  # its items wait, and nobody else has them
    other.send(o, b"other", 0, "other")
    w.until(lambda: w.broker.stats()["total_sent"] == 11)
    rx.wait(r, 1)  # one of them comes, and with it the news
    got: list[Any] = []
    w.until(lambda: got.extend(rx.take_many(r, 9)) or got)
    rx.ack_many(got)
    w.settle()
    restart(w)
    told: list[str] = []

    def look() -> bool:
        try:
            got.extend(rx.take_many(r, 9))
        except ChannelBackendErrorException as error:
            told.append(str(error))
        return bool(told)

    rx.wait(r, 9)
    w.until(look)
    assert "lost" in told[0]
    assert 1 <= w.broker.stats()["lost"] <= 10
    w.settle()
    look()
    assert len(told) == 1


def test_on_calls_rings_once_for_all_that_is_sent_before_calls() -> None:
    w = wire()
    tx, s, _, _ = w.pair()
    rings: list[int] = []
    tx.on_calls = lambda: rings.append(1)
    for _ in range(10):
        tx.send(s, b"x", 0, None)
    assert len(rings) == 1
    w.settle()
    tx.send(s, b"x", 0, None)
    assert len(rings) >= 2


def test_hubs_and_their_waiters_are_collected() -> None:
    w = wire()
    tx, s, _, _ = w.pair()

    class Waiter:
        def __init__(self, hub: Hub) -> None:
            self.hub = hub

    waiter = Waiter(tx)
    tx.on_calls = lambda hub=tx: hub
    tx.send(s, b"x", 0, waiter)
    ref = weakref.ref(waiter)
    hub_ref = weakref.ref(tx)
    w.hubs.clear()
    w.tickets.clear()
    del tx, waiter
    gc.collect()
    assert ref() is None and hub_ref() is None


# --- awaited ---


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
        assert rx.recv_wait(r, 0, 10.0).payload == b"1"
        tx.close(s)
        start = time.monotonic()
        with pytest.raises(ChannelClosedError):
            while time.monotonic() < start + PATIENCE:
                rx.recv_wait(r, 0, 10.0)
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
