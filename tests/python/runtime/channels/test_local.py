# SPDX-License-Identifier: Apache-2.0
"""Local channels against an oracle, and whether operations leave anything behind."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from klaw_core import Err, Ok
from klaw_core.runtime import (
    ChannelClosed,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
)
from klaw_core.runtime.channels.local import LocalReceiver, LocalSender, channel


def test_the_types_are_local_ones() -> None:
    tx, rx = channel(3)
    assert type(tx) is LocalSender and type(rx) is LocalReceiver
    assert tx.capacity == rx.capacity == 3
    assert channel(unbounded=True)[0].capacity is None


class Model(RuleBasedStateMachine):
    """One channel, its endpoints cloned and closed at will, waits cancelled at will; the oracle is a deque."""

    senders = Bundle("senders")
    receivers = Bundle("receivers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.items: deque[int] = deque()
        self.next = 0
        self.open_tx: set[int] = set()
        self.open_rx: set[int] = set()

    @initialize(target=senders, capacity=st.integers(1, 4))
    def first_sender(self, capacity: int) -> Any:
        self.capacity = capacity
        tx, self.first_rx = channel(capacity)
        self.open_tx.add(id(tx))
        self.open_rx.add(id(self.first_rx))
        self.kept: list[Any] = [tx, self.first_rx]
        return tx

    @rule(target=receivers)
    def first_receiver(self) -> Any:
        return self.first_rx

    @rule(target=senders, tx=senders)
    def clone_sender(self, tx: Any) -> Any:
        if id(tx) not in self.open_tx:
            return multiple()
        twin = tx.clone()
        self.open_tx.add(id(twin))
        self.kept.append(twin)
        return twin

    @rule(target=receivers, rx=receivers)
    def clone_receiver(self, rx: Any) -> Any:
        if id(rx) not in self.open_rx:
            return multiple()
        twin = rx.clone()
        self.open_rx.add(id(twin))
        self.kept.append(twin)
        return twin

    @rule(tx=senders)
    def try_send(self, tx: Any) -> None:
        result = tx.try_send_sync(self.next)
        if id(tx) not in self.open_tx or not self.open_rx:
            assert isinstance(result.error, ChannelClosed)
        elif len(self.items) == self.capacity:
            assert result == Err(ChannelFull(self.capacity))
        else:
            assert result == Ok(None)
            self.items.append(self.next)
        self.next += 1

    @rule(rx=receivers)
    def try_recv(self, rx: Any) -> None:
        result = rx.try_recv_sync()
        if id(rx) not in self.open_rx:
            assert isinstance(result.error, ChannelClosed)
        elif self.items:
            assert result == Ok(self.items.popleft())
        else:
            assert isinstance(result.error, ChannelEmpty if self.open_tx else ChannelClosed)

    @rule(rx=receivers, most=st.integers(1, 6))
    def recv_batch(self, rx: Any, most: int) -> None:
        if id(rx) in self.open_rx and self.items:
            got = self.loop.run_until_complete(rx.recv_batch(most))
            assert got == [self.items.popleft() for _ in range(min(most, len(self.items)))]

    @rule(tx=senders, rx=receivers, steps=st.integers(0, 4), cancel_first=st.booleans())
    def send_and_cancel(self, tx: Any, rx: Any, steps: int, cancel_first: bool) -> None:
        """A send and a receive in two tasks, one of them cancelled at some step: nothing is lost or doubled."""
        if id(tx) not in self.open_tx or id(rx) not in self.open_rx:
            return
        value, self.next = self.next, self.next + 1

        async def main() -> tuple[Any, Any]:
            sending = asyncio.ensure_future(tx.send(value))
            receiving = asyncio.ensure_future(rx.recv())
            for _ in range(steps):
                await asyncio.sleep(0)
            (sending if cancel_first else receiving).cancel()
            for _ in range(6):
                await asyncio.sleep(0)
            sending.cancel()
            receiving.cancel()
            sent, got = await asyncio.gather(sending, receiving, return_exceptions=True)
            return sent, got

        sent, got = self.loop.run_until_complete(main())
        if sent is None:
            self.items.append(value)
        if isinstance(got, int):
            assert got == self.items.popleft()

    @rule(tx=senders)
    def close_sender(self, tx: Any) -> None:
        tx.close_sync()
        self.open_tx.discard(id(tx))

    @rule(rx=receivers)
    def close_receiver(self, rx: Any) -> None:
        rx.close_sync()
        self.open_rx.discard(id(rx))
        if not self.open_rx:
            self.items.clear()

    @invariant()
    def the_number_is_right(self) -> None:
        for rx in getattr(self, "kept", ()):
            if id(rx) in self.open_rx:
                assert rx.stats().queue_size == len(self.items)
                break

    def teardown(self) -> None:
        self.loop.close()


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase


# --- descriptors ---
@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_loop_that_ends_gives_its_descriptors_back(run: Callable[..., Any]) -> None:
    async def main() -> None:
        tx, rx = channel(1)
        await tx.send(1)
        await rx.recv()
        with pytest.raises(ChannelEmptyError):
            await rx.recv(0.0001)

    def use() -> None:
        run(main) if run is trio.run else run(main())

    use()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(40):
        use()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
