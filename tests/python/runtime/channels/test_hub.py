# SPDX-License-Identifier: Apache-2.0
"""The near end of a remote channel (_klaw.Hub), without Ray and without tasks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from klaw_core._klaw import Broker, Hub
from klaw_core.runtime import (
    ChannelClosedError,
    ChannelLaggedError,
)
from klaw_core.runtime.errors import ChannelBackendErrorException

from .remote_wire import CHANNEL, DETACH, PUSH, REFUSED, SENT, UNCERTAIN, UNSENT, Wire, take_all, wire


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
        (TypeError, lambda: hub.send_batch(e, ["x"], None)),  # type: ignore[list-item]
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
