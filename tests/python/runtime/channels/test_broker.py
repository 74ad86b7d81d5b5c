# SPDX-License-Identifier: Apache-2.0
"""The far end of a remote channel (_klaw.Broker), without Ray."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from klaw_core._klaw import Broker, ChannelLog, Hub
from klaw_core.runtime import BackendErrorException, ChannelClosedError

from .remote_wire import CHANNEL, PUSH, seed, take_all, wire


class Thing:
    """Something to attach, whose end can be seen."""


# --- one item at a time ---


def test_put_and_get_go_in_order_until_the_last_sender_leaves() -> None:
    b = Broker(CHANNEL, capacity=3)
    assert b.get() == ("empty", None, 0, None, 0, 0)
    assert b.register("sender") == "ok"
    assert b.register("receiver", "r1", "node1") == "ok"
    assert b.register(1, "r1") == "exists"
    assert b.put([(b"a", 0), (b"b", 2, None, b"ctx", 0.0)]) == "ok"
    assert b.put([(b"c", 0), (b"d", 0)]) == "full"
    assert b.put([(b"c", 1)]) == "ok"
    assert b.get("r1")[:4] == ("ok", b"a", 0, None)
    assert b.get("nobody")[0] == "missing"
    assert b.deregister(0)
    assert not b.deregister("sender")
    assert b.put([(b"e", 0)]) == "closed"
    assert [b.get("r1")[:3] for _ in range(3)] == [("ok", b"b", 2), ("ok", b"c", 1), ("closed", None, 0)]
    assert b.register("sender") == "closed"
    stats = b.stats()
    assert stats["total_sent"] == stats["total_received"] == 3
    assert stats["capacity"] == 3 and stats["high_watermark"] == 3 and stats["senders_closed"] is True
    (reader,) = b.readers()
    assert reader["reader"] == "r1" and reader["node"] == "node1" and reader["total_received"] == 3


def test_what_waits_is_paged_by_its_place() -> None:
    b = Broker(CHANNEL, capacity=100)
    b.register("sender")

    def payloads(*span: Any) -> list[bytes]:
        return [item[6] for item in b.waiting(*span)]

    assert b.waiting(None, 5, 1000) == b.waiting(0, 5, 1000) == []
    b.put([(bytes([n]), 1) for n in range(6)])
    everything = b.waiting(0, 100, 1 << 20)
    assert [item[6] for item in everything] == [bytes([n]) for n in range(6)]
    places = [item[0] for item in everything]
    assert places == sorted(set(places)) and places[0] > 0
    assert {item[4] for item in everything} == {1} and {len(item[1]) for item in everything} == {16}
    assert payloads(None, 2, 1000) == [b"\4", b"\5"]
    assert payloads(None, 99, 1000) == payloads(0, 99, 1000)
    assert payloads(places[1], 2, 1000) == [b"\2", b"\3"]
    assert payloads(places[5], 2, 1000) == payloads(2**63, 2, 1000) == payloads(0, 0, 1000) == []
    assert payloads(0, 9, 1) == [b"\0"], "at least one, however large"
    assert b.get()[1] == b"\0" and b.get()[1] == b"\1"
    assert payloads(places[0], 2, 1000) == [b"\2", b"\3"], "what the mark names may be gone"
    b.put([(b"new", 1)])
    assert payloads(places[5], 9, 1000) == [b"new"]
    assert [b.get()[1] for _ in range(5)] == [b"\2", b"\3", b"\4", b"\5", b"new"], "nothing was taken"
    assert Broker(CHANNEL, kind=1).waiting(0, 9, 1000) == []
    for wrong in (-1, 2**64, "x"):
        with pytest.raises((OverflowError, TypeError)):
            b.waiting(wrong, 1, 1)  # type: ignore[arg-type]


def test_what_waits_can_be_looked_at_and_stays() -> None:
    b = Broker(CHANNEL, capacity=8)
    thing = Thing()
    b.register("sender")
    assert b.peek() == []
    b.put([(b"a", 0), (b"", 1), (b"c", 2, thing)])
    b.deregister("sender")
    for _ in range(3):
        assert b.peek() == [(b"a", 0, None), (b"", 1, None), (b"c", 2, thing)]
    assert [b.get()[1:4] for _ in range(3)] == [(b"a", 0, None), (b"", 1, None), (b"c", 2, thing)]
    assert b.peek() == []
    assert Broker(CHANNEL, kind=1).peek() == []
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None


def test_a_watch_lends_its_newest_value() -> None:
    b = Broker(CHANNEL, kind=2)
    assert b.borrow()[0] == "empty"
    thing = Thing()
    b.register("receiver", "r")
    b.put([(b"1", 0), (b"2", 0, thing)])
    assert b.borrow()[:4] == ("ok", b"2", 0, thing)
    assert b.get("r")[:4] == ("ok", b"2", 0, thing)
    assert b.get("r")[0] == "empty"


def test_a_slow_receiver_of_a_broadcast_is_told_what_it_missed_once() -> None:
    b = Broker(CHANNEL, kind=1, capacity=2)
    b.register("sender")
    b.register("receiver", "r")
    for n in range(5):
        assert b.put([(b"%d" % n, 0)]) == "ok"
    assert b.get("r")[0] == "lagged"
    assert b.stats()["missed"] == 3
    assert [b.get("r")[1] for _ in range(2)] == [b"3", b"4"]


def test_wrong_arguments_are_refused_and_change_nothing() -> None:
    b = Broker(CHANNEL)
    bad: list[tuple[type[Exception], Any]] = [
        (ValueError, lambda: Broker(b"short")),
        (ValueError, lambda: Broker(CHANNEL, capacity=-3)),
        (ValueError, lambda: Broker(CHANNEL, kind=7)),
        (ValueError, lambda: Broker(CHANNEL, kind=1, durable=True)),
        (TypeError, lambda: b.call()),  # type: ignore[call-arg]
        (TypeError, lambda: b.call("text")),  # type: ignore[arg-type]
        (TypeError, lambda: b.call(b"x", 5)),  # type: ignore[arg-type]
        (TypeError, lambda: b.put([5])),  # type: ignore[list-item]
        (TypeError, lambda: b.put([(b"a", 0), ("text", 0)])),
        (ValueError, lambda: b.put([(b"a", 999)])),
        (ValueError, lambda: b.register("middle")),
        (ValueError, lambda: b.register(2)),
        (ValueError, lambda: b.client_died(b"x")),
        (TypeError, lambda: b.committed("x")),  # type: ignore[arg-type]
    ]
    for error, call in bad:
        with pytest.raises(error):
            call()
    assert b.stats()["queued"] == 0


# --- hubs ---


def test_items_go_through_in_order() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    rx.wait(r, 10)
    for n in range(100):
        assert tx.send(s, b"%d" % n, 0, n) == "ok"
    got: list[bytes] = []
    w.until(lambda: len(got) == 100 or got.extend(take_all(rx, r)))
    assert got == [b"%d" % n for n in range(100)]
    w.until(lambda: w.broker.stats()["total_received"] == 100)


def history(start: int, options: dict[str, float]) -> None:
    """Three senders, one receiver, over a wire with those faults."""
    w = wire(seed=start, capacity=20, **options)
    hubs = [w.hub(frame_bytes=256, in_flight=4) for _ in range(3)]
    endpoints = [hub.open("sender") for hub in hubs]
    rx = w.hub()
    r = rx.open("receiver")
    rx.wait(r, 4)
    for n in range(60):
        for hub, endpoint in zip(hubs, endpoints, strict=True):
            assert hub.send(endpoint, b"%d" % n, 0, n) == "ok"
    got: dict[bytes, list[int]] = {}

    def receive() -> bool:
        for item in rx.take_many(r, 7):
            got.setdefault(item.client, []).append(int(item.payload))
            assert not item.redelivered
            rx.ack(r, item.lease)
        return sum(map(len, got.values())) >= 180

    w.until(receive)
    assert got == {hub.client: list(range(60)) for hub in hubs}
    sent: list[int] = []
    w.until(lambda: sent.extend(e[1] for e in hubs[0].events() if e[1] is not None) or len(sent) == 60)
    assert sent == list(range(60))
    w.until(lambda: w.broker.stats()["total_received"] == 180)
    assert w.broker.stats()["total_sent"] == 180


@pytest.mark.parametrize("faults", ["lose", "repeat", "shuffle", "all"])
def test_lost_repeated_and_reordered_calls_change_nothing(faults: str) -> None:
    start = seed()
    for n in range(6):
        history(start + n, {name: 0.25 for name in ("lose", "repeat", "shuffle") if faults in (name, "all")})


def test_what_a_dead_client_had_not_acknowledged_goes_to_another_and_is_marked() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    other = w.hub()
    o = other.open("receiver")
    rx.wait(r, 5)
    for n in range(5):
        tx.send(s, b"%d" % n, 0, None)
    items: list[Any] = []
    w.until(lambda: len(items) >= 5 or items.extend(rx.take_many(r, 9)))
    rx.ack(r, items[0].lease)
    w.until(lambda: w.broker.stats()["total_received"] == 1)
    w.hubs.remove(rx)
    w.broker.client_died(rx.client)
    other.wait(o, 9)
    again: list[Any] = []
    w.until(lambda: len(again) >= 4 or again.extend(other.take_many(o, 9)))
    assert [i.payload for i in again] == [b"1", b"2", b"3", b"4"]
    assert all(i.redelivered for i in again)
    assert [(i.client, i.seq) for i in again] == [(i.client, i.seq) for i in items[1:]]
    assert w.broker.stats()["redelivered"] == 4


def test_the_death_of_the_last_sender_closes_the_channel() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    tx.send(s, b"last", 0, None)
    w.until(lambda: w.broker.stats()["total_sent"] == 1)
    w.hubs.remove(tx)
    w.broker.client_died(tx.client)
    rx.wait(r, 1)
    got: list[bytes] = []
    w.until(lambda: got or got.extend(take_all(rx, r)))
    w.until(lambda: rx.state()["closed_to_receive"])
    with pytest.raises(ChannelClosedError):
        rx.take(r)


def test_garbage_is_refused_or_answered_and_never_harms() -> None:
    rnd = random.Random(seed())
    w = wire()
    tx, s, rx, r = w.pair()
    valid: list[bytes] = []
    tx.send(s, b"x" * 50, 0, None, 0, None, b"context")
    rx.wait(r, 1)
    for hub in (tx, rx):
        for number, kind, blob, attachments in hub.calls():
            valid.append(blob)
            ticket, _ = w.broker.call(blob, attachments)
            w.tickets[ticket] = (hub, number)
            assert kind in range(5)
    w.answer()
    hostile = Broker(CHANNEL)
    refused = 0
    for _ in range(3000):
        blob = bytearray(rnd.choice(valid)) if rnd.random() < 0.8 else bytearray(rnd.randbytes(rnd.randrange(80)))
        for _ in range(rnd.randrange(1, 4)):
            if blob and rnd.random() < 0.7:
                blob[rnd.randrange(len(blob))] = rnd.randrange(256)
            elif rnd.random() < 0.5:
                del blob[rnd.randrange(len(blob) + 1) :]
            else:
                blob += rnd.randbytes(rnd.randrange(9))
        try:
            hostile.call(bytes(blob), [Thing()] if rnd.random() < 0.3 else ())
        except ValueError:
            refused += 1
        hostile.answers()
    assert refused > 100
    hostile.stats()
    hostile.readers()
    tx.send(s, b"after", 0, None)
    got: list[bytes] = []
    w.until(lambda: len(got) == 2 or (rx.wait(r, 1), got.extend(take_all(rx, r)))[0])
    assert got == [b"x" * 50, b"after"]


def test_a_deleted_channel_says_so_to_everybody() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    rx.wait(r, 1)
    w.settle()
    w.broker.delete()
    w.until(lambda: rx.state()["deleted"])
    with pytest.raises(ChannelClosedError):
        rx.take(r)
    tx.send(s, b"x", 0, "late")
    w.until(lambda: tx.state()["deleted"])
    assert tx.send(s, b"y", 0, None) == "closed"


# --- attachments ---


def test_attachments_travel_and_are_given_back() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    rx.wait(r, 3)
    things = [Thing() for _ in range(3)]
    seen = [weakref.ref(thing) for thing in things]
    for thing in things:
        tx.send(s, b"", 0, None, 16, thing)
    items: list[Any] = []
    w.until(lambda: len(items) == 3 or items.extend(rx.take_many(r, 3)))
    assert [item.attachment for item in items] == things
    rx.ack_many(items)
    del items[:], things[:], thing
    w.until(lambda: all(ref() is None for ref in seen) or (gc.collect(), tx.events())[0] < 0)


def test_everything_is_given_back_when_a_broker_ends() -> None:
    b = Broker(CHANNEL)
    b.register("sender")
    thing = Thing()
    ref = weakref.ref(thing)
    assert b.put([(b"", 0, thing), (b"", 0, thing)]) == "ok"
    assert b.put([(b"", 0, thing)] * 20000) == "full"
    with pytest.raises(TypeError):
        b.put([(b"", 0, thing), 5])  # type: ignore[list-item]
    del thing
    assert ref() is not None
    del b
    assert ref() is None


def test_a_finalizer_may_use_the_broker() -> None:
    b = Broker(CHANNEL)
    b.register("sender")
    b.register("receiver", "r")

    class Loud:
        def __del__(self) -> None:
            b.put([(b"from a finalizer", 0)])
            b.stats()

    b.put([(b"", 0, Loud())])
    assert b.get("r")[0] == "ok"
    assert b.get("r")[1] == b"from a finalizer"
    b.put([(b"", 0, Loud())])
    b.delete()


def test_calls_leave_nothing_behind() -> None:
    def once() -> None:
        w = wire()
        tx, s, rx, r = w.pair()
        rx.wait(r, 50)
        for n in range(50):
            tx.send(s, b"%d" % n, 0, object(), 0, object(), b"c")
        got: list[bytes] = []
        w.until(lambda: len(got) == 50 or got.extend(take_all(rx, r)))
        for _ in range(20):
            with pytest.raises(ValueError, match="call"):
                w.broker.call(b"garbage", [object()])

    for _ in range(3):
        once()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(10):
        once()
    gc.collect()
    assert sys.getallocatedblocks() - before < 300


# --- the journal ---


class Durable:
    """A broker with its log, as the actor holds them."""

    def __init__(self, path: Path) -> None:
        self.log = ChannelLog(path, CHANNEL)
        snapshot, records = self.log.load()
        self.broker = Broker(CHANNEL, durable=True, restarted=snapshot is not None or bool(records), gather=0.01)
        if snapshot is not None:
            self.broker.restore(snapshot)
        for record in records:
            self.broker.replay(record)

    def commit(self) -> None:
        while (entry := self.broker.journal()) is not None:
            self.log.append(entry[0])
            self.broker.committed(entry[1])


def test_a_restart_brings_back_what_was_confirmed(tmp_path: Path) -> None:
    d = Durable(tmp_path / "log.db")
    w = wire()
    w.broker = d.broker
    tx, rx = w.hub(), w.hub()
    s, r = tx.open("sender"), rx.open("receiver")

    def step(done: Any) -> bool:
        d.commit()
        return bool(done())

    w.until(lambda: step(lambda: tx.state()["attached"] and rx.state()["attached"]))
    for n in range(20):
        tx.send(s, b"%d" % n, 0, n)
    assert not [e for e in tx.events() if e[1] is not None]
    w.pump()
    assert not [e for e in tx.events() if e[1] is not None]  # not before the commit
    sent: list[int] = []
    w.until(lambda: step(lambda: sent.extend(e[1] for e in tx.events() if e[1] is not None) or len(sent) == 20))
    rx.wait(r, 5)
    first: list[bytes] = []
    w.until(lambda: step(lambda: len(first) >= 5 or first.extend(take_all(rx, r, 5))))
    w.until(lambda: step(lambda: d.broker.stats()["total_received"] == len(first)))
    d.commit()
    d.log.compact(d.broker.snapshot())
    tx.send(s, b"20", 0, 20)
    w.until(lambda: step(lambda: [e for e in tx.events() if e[1] == 20]))
    d.commit()

    again = Durable(tmp_path / "log.db")
    assert again.broker.stats()["queued"] + again.broker.stats()["leased"] == 21 - len(first)
    w.broker = d.broker = again.broker
    d.log = again.log
    for ticket, to in list(w.tickets.items()):  # calls of the old boot fail
        del w.tickets[ticket]
        if to is not None:
            to[0].failed(to[1], False, "the actor restarts")
    rx.wait(r, 30)
    rest: list[bytes] = []
    w.until(lambda: step(lambda: rest.extend(take_all(rx, r)) or len(rest) >= 21 - len(first)))
    assert first + rest == [b"%d" % n for n in range(21)]
    assert again.broker.stats()["lost"] == 0


def test_a_damaged_or_foreign_journal_is_refused() -> None:
    b = Broker(CHANNEL, durable=True)
    b.register("sender")
    b.put([(b"a", 0)])
    record, mark = b.journal() or (b"", 0)
    assert record and mark
    b.committed(mark)
    snapshot = b.snapshot()
    for cut in range(len(snapshot)):
        with pytest.raises((BackendErrorException, ValueError)):
            Broker(CHANNEL, durable=True, restarted=True).restore(snapshot[:cut])
    with pytest.raises(ValueError, match="channel"):
        Broker(bytes(16)[:-1] + b"x", durable=True, restarted=True).restore(snapshot)
    with pytest.raises((BackendErrorException, ValueError)):
        Broker(CHANNEL, durable=True, restarted=True).replay(record[:-1])


# --- threads ---


def test_threads_may_share_a_broker() -> None:
    b = Broker(CHANNEL, capacity=None)
    b.register("sender")
    b.register("receiver", "r")
    got: list[bytes] = []
    done = threading.Event()

    def puts(start: int) -> None:
        for n in range(start, start + 2000):
            b.put([(b"%d" % n, 0)])

    def gets() -> None:
        while not done.is_set() or b.stats()["queued"]:
            status, payload, *_ = b.get("r")
            if status == "ok" and payload is not None:
                got.append(payload)

    putters = [threading.Thread(target=puts, args=(2000 * i,)) for i in range(3)]
    getter = threading.Thread(target=gets)
    for each in (*putters, getter):
        each.start()
    for each in putters:
        each.join()
    done.set()
    getter.join()
    assert sorted(map(int, got)) == list(range(6000))


def test_hubs_of_threads_and_a_broker_go_together() -> None:
    w = wire()
    tx, s, rx, r = w.pair()
    stop = threading.Event()

    def carry() -> None:
        while not stop.is_set():
            if not w.pump():
                w.tick()

    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        sender = threading.Thread(target=lambda: [tx.send_wait(s, b"%d" % n, 0) for n in range(300)])
        sender.start()
        got = []
        lease = 0
        for _ in range(300):
            item = rx.recv_wait(r, lease, 20.0)
            lease = item.lease
            got.append(int(item.payload))
        sender.join()
    finally:
        stop.set()
        carrier.join()
    assert got == list(range(300))
    assert PUSH in w.kinds
    assert isinstance(tx, Hub)
