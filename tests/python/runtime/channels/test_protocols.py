# SPDX-License-Identifier: Apache-2.0
"""Every endpoint is a Sender or a Receiver; operations are coroutines to everybody who asks."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
from typing import Any

import pytest
from klaw_core.runtime import Receiver, Sender, broadcast, channel, oneshot, watch
from klaw_core.runtime.channels import LocalReceiver, LocalSender


def pairs() -> list[Any]:
    return [asyncio.run(channel(1)), oneshot(), broadcast(1), watch(0)]


def test_every_kind_follows_the_protocols() -> None:
    for tx, rx in pairs():
        assert isinstance(tx, Sender) and isinstance(rx, Receiver)
        assert not isinstance(tx, Receiver) and not isinstance(rx, Sender)


def test_types_can_be_subscribed() -> None:
    assert "LocalSender" in str(LocalSender[int]) and "LocalReceiver" in str(LocalReceiver[int])


def test_endpoints_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        LocalSender()


def test_operations_are_coroutines() -> None:
    async def main() -> None:
        tx, rx = await channel(2)
        operation = tx.send(1)
        assert inspect.isawaitable(operation) and asyncio.iscoroutine(operation)
        assert isinstance(operation, collections.abc.Coroutine)
        assert not asyncio.isfuture(operation)
        await asyncio.create_task(operation)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="already awaited"):
            await operation
        assert await asyncio.wait_for(rx.recv(), 1) == 1
        assert await asyncio.gather(tx.send(2), rx.recv()) == [None, 2]

    asyncio.run(main())
    tx, rx = asyncio.run(channel(1))
    asyncio.run(tx.send(1))  # type: ignore[arg-type]
    assert asyncio.run(rx.recv()) == 1  # type: ignore[arg-type]


def test_throw_and_close_end_an_operation() -> None:
    tx, rx = asyncio.run(channel(1))
    waiting = rx.recv()
    with pytest.raises(KeyError):
        waiting.throw(KeyError("x"))  # type: ignore[attr-defined]
    fresh = rx.recv()
    fresh.close()  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        tx.send(1).send("not none")  # type: ignore[attr-defined]
    done = tx.send(1)
    with pytest.raises(StopIteration):
        done.send(None)  # type: ignore[attr-defined]


def test_endpoints_move_between_loops() -> None:
    tx, rx = asyncio.run(channel(1))
    for i in range(3):

        async def main(i: int = i) -> None:
            task = asyncio.create_task(rx.recv())  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await tx.send(i)
            assert await task == i

        asyncio.run(main())
