# SPDX-License-Identifier: Apache-2.0
"""What a remote channel costs apart from Ray: tasks -> Hub -> Broker -> Hub -> tasks, in one process.

    PYTHONPATH=build/python/site .venv/bin/python bench/python/remote_loopback.py [items] [tasks]

Prints ns of processor time an item: of each part by itself, then of the whole with awaited sends and receives. The
calls between hubs and
broker are carried by function calls, so what remains is the work that a sending, a carrying and a receiving process
would share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from klaw_core._klaw import Broker, Hub

CHANNEL = b"bench-channel-id"
PAYLOAD = b"x" * 100


class Loopback:
    """A broker and hubs; pump carries calls and answers until none are left."""

    def __init__(self, capacity: int | None = None) -> None:
        self.broker = Broker(CHANNEL, capacity=capacity)
        self.hubs: list[Any] = []
        self.tickets: dict[int, tuple[Any, int]] = {}
        self.scheduled = False
        self.spent: dict[str, float] = {}
        self.count: dict[str, int] = {}

    def hub(self, **options: Any) -> Any:
        hub = Hub(CHANNEL, **options)
        self.hubs.append(hub)
        return hub

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        start = time.process_time_ns()
        yield
        self.spent[name] = self.spent.get(name, 0) + time.process_time_ns() - start
        self.count[name] = self.count.get(name, 0) + 1

    def kick(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        self.scheduled = False
        busy = True
        while busy:
            busy = False
            for hub in self.hubs:
                with self.clock("hub.calls"):
                    calls = hub.calls()
                for number, _kind, blob, attachments in calls:
                    busy = True
                    with self.clock("broker.call"):
                        ticket, _client = self.broker.call(blob, attachments)
                    self.tickets[ticket] = (hub, number)
            with self.clock("broker.answers"):
                answers = self.broker.answers()
            for ticket, blob, attachments in answers:
                busy = True
                hub, number = self.tickets.pop(ticket)
                with self.clock("hub.reply"):
                    hub.reply(number, blob, attachments)
        for hub in self.hubs:
            hub.events()


def parts(n: int) -> None:
    """Each call by itself, without tasks."""
    net = Loopback()
    tx, rx = net.hub(), net.hub()
    s, r = tx.open("sender"), rx.open("receiver")
    net.pump()
    rx.wait(r, 64)
    left, got = n, 0
    spent: dict[str, float] = dict.fromkeys(("Hub.send", "Hub.take_many", "Hub.ack_many", "events"), 0.0)

    def timed(name: str, f: Callable[[], Any]) -> Any:
        start = time.process_time_ns()
        result = f()
        spent[name] += time.process_time_ns() - start
        return result

    def send(k: int) -> None:
        for _ in range(k):
            tx.send(s, PAYLOAD, 0, None)

    net.spent.clear()
    net.count.clear()
    while got < n:
        k = min(1000, left)
        left -= k
        timed("Hub.send", lambda k=k: send(k))
        net.pump()
        items = timed("Hub.take_many", lambda: rx.take_many(r, 1000))
        timed("Hub.ack_many", lambda items=items: rx.ack_many(items))
        got += len(items)
        net.pump()
        timed("events", tx.events)
    for name, value in {**net.spent, **spent}.items():
        print(f"  {name:16} {value / n:7.1f} ns an item, {net.count.get(name, 0)} calls")


async def tasks(n: int, senders: int, receivers: int) -> None:
    """Awaited sends and receives."""
    net = Loopback(10_000)
    tx, rx = net.hub(), net.hub()
    tx.on_calls = rx.on_calls = net.kick
    s = [tx.open("sender") for _ in range(senders)]
    r = [rx.open("receiver") for _ in range(receivers)]
    got = 0

    async def sends(endpoint: int) -> None:
        for _ in range(n // senders):
            await tx.send_op(endpoint, PAYLOAD, 0)

    async def receives(endpoint: int) -> None:
        nonlocal got
        lease = 0
        while True:
            item = await rx.recv_op(endpoint, lease)
            lease = item.lease
            got += 1

    start = time.process_time_ns()
    readers = [asyncio.create_task(receives(e)) for e in r]
    await asyncio.gather(*(sends(e) for e in s))
    while got < n // senders * senders:
        await asyncio.sleep(0)
    took = time.process_time_ns() - start
    for each in readers:
        each.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    print(f"tasks: {took / n:7.1f} ns an item, {n / took * 1e9:,.0f} items/s")
    for name, value in net.spent.items():
        print(f"  {name:16} {value / n:7.1f} ns an item, {net.count[name]} calls")


def main() -> None:
    """Both."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    print(f"{n} items of {len(PAYLOAD)} bytes, {width} senders")
    print("parts:")
    parts(n)
    for receivers in (1, width):
        print(f"{receivers} receivers")
        asyncio.run(tasks(n, width, receivers))


if __name__ == "__main__":
    main()
