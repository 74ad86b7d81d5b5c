# SPDX-License-Identifier: Apache-2.0
"""Carries the calls between hubs and a broker, as Ray would: late, twice, out of order, or not at all."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from klaw_core._klaw import Broker, Hub

CHANNEL = bytes(range(16))
ATTACH, PUSH, POLL, RENEW, DETACH = range(5)
SENT, REFUSED, UNSENT, UNCERTAIN, ROOM, ITEMS, OPENED = range(7)
PATIENCE = 20.0


def seed() -> int:
    """Of this run; printed, and taken from KLAW_SEED when that is set."""
    value = int(os.environ.get("KLAW_SEED") or random.SystemRandom().getrandbits(32))
    print("seed", value)
    return value


class Wire:
    """One broker, any number of hubs. lose, repeat, shuffle: how likely a call or its answer meets that, 0 to 1."""

    def __init__(
        self, broker: Broker, *, lose: float = 0, repeat: float = 0, shuffle: float = 0, seed: int = 0
    ) -> None:
        self.broker = broker
        self.hubs: list[Hub] = []
        self.lose, self.repeat, self.shuffle = lose, repeat, shuffle
        self.random = random.Random(seed)
        self.tickets: dict[int, tuple[Hub, int] | None] = {}
        self.kinds: list[int] = []
        self.dead: set[int] = set()
        self.carried = 0

    def hub(self, **options: Any) -> Hub:
        """One more, whose calls are carried by pump."""
        options.setdefault("retry", 0.001)
        hub = Hub(CHANNEL, **options)
        self.hubs.append(hub)
        return hub

    def chance(self, p: float) -> bool:
        """True with that probability."""
        return p > 0 and self.random.random() < p

    def pump(self) -> bool:
        """One round of calls and answers. False: there was nothing to carry."""
        batch = [(hub, *call) for hub in self.hubs for call in hub.calls()]
        if self.chance(self.shuffle):
            self.random.shuffle(batch)
        for hub, number, kind, blob, attachments in batch:
            self.kinds.append(kind)
            if self.chance(self.lose):
                hub.failed(number, False, "lost")
                continue
            for again in range(1 + self.chance(self.repeat)):
                ticket, _ = self.broker.call(blob, list(attachments))
                self.tickets[ticket] = None if again else (hub, number)
        return self.answer() or bool(batch)

    def answer(self) -> bool:
        """Takes the answers that are ready to their hubs."""
        answers = self.broker.answers()
        if self.chance(self.shuffle):
            self.random.shuffle(answers)
        for ticket, blob, attachments in answers:
            to = self.tickets.pop(ticket)
            if to is None or to[0] not in self.hubs:
                continue
            hub, number = to
            self.carried += 1
            if self.chance(self.lose):
                hub.failed(number, False, "lost")
            else:
                assert hub.reply(number, blob, attachments)
        return bool(answers)

    def settle(self) -> None:
        """Until there is nothing to carry."""
        while self.pump():
            pass

    def until(self, done: Callable[[], object]) -> None:
        """Carries and lets the time pass until the condition holds."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, "it did not come true"
            if not self.pump():
                self.tick()

    def tick(self) -> None:
        """What is due, or a moment of rest."""
        now = time.monotonic()
        for each in (self.broker, *self.hubs):
            due = each.deadline()
            if due is not None and due <= now:
                each.tick()
        time.sleep(0.0002)

    def pair(self, **options: Any) -> tuple[Hub, int, Hub, int]:
        """A hub with a sender, another one with a receiver, both attached."""
        tx, rx = self.hub(**options), self.hub(**options)
        s, r = tx.open("sender"), rx.open("receiver")
        self.until(lambda: tx.state()["attached"] and rx.state()["attached"])
        return tx, s, rx, r


def wire(**options: Any) -> Wire:
    """A wire to a new broker of those options; lose, repeat, shuffle and seed are the wire's."""
    own = {name: options.pop(name) for name in ("lose", "repeat", "shuffle", "seed") if name in options}
    return Wire(Broker(CHANNEL, **options), **own)


def take_all(hub: Hub, endpoint: int, most: int = 1 << 20) -> list[bytes]:
    """Takes and acknowledges what is here."""
    items = hub.take_many(endpoint, most)
    hub.ack_many(items)
    return [item.payload for item in items]


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
