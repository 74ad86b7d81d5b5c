# SPDX-License-Identifier: Apache-2.0
"""The newest value, and who wants to know when it changes."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import sunray

from klaw_core.runtime.channels.ray.actor import GROUPS, RayChannelActor
from klaw_core.runtime.channels.ray.constants import WATCH, SingleResult
from klaw_core.runtime.channels.ray.core import RayReceiver, RaySender
from klaw_core.runtime.errors import ChannelEmptyError

__all__ = ["RayWatchActor", "RayWatchReceiver", "RayWatchSender"]

T = TypeVar("T")


class RayWatchActor(  # type: ignore[call-arg]
    RayChannelActor[T],
    max_restarts=4,
    max_task_retries=-1,
    max_concurrency=1000,
    concurrency_groups=GROUPS,
):
    """Holds a watch channel: one value. initial: (value,), or () for none yet."""

    _KIND: ClassVar[int] = WATCH

    def __init__(self, initial: tuple[T, ...] = (), **options: Any) -> None:
        super().__init__(None, True, **options)
        if initial and self._host.broker.borrow()[0] != "ok":
            encoded = self._encode(initial)
            if encoded is not None:
                self._host.touch(self._host.broker.put, encoded)

    @sunray.remote_method
    async def send(self, value: T) -> str:
        """Replaces the value: "ok", "closed", "type_error"."""
        encoded = self._encode((value,))
        return "type_error" if encoded is None else await self._host.put(encoded, 0.0)

    @sunray.remote_method(concurrency_group="get")
    async def recv(self, reader_id: str, timeout: float | None = None) -> SingleResult[T]:
        """The newest value that this reader has not had, waiting for it: "ok", "empty", "closed", "missing"."""
        return await self._get(timeout, reader_id)

    @sunray.remote_method
    def borrow(self) -> SingleResult[T]:
        """The newest value: "ok", or "empty"."""
        status, payload, codec, attachment, _flags, _missed = self._host.broker.borrow()
        if status != "ok":
            return SingleResult("empty")
        return SingleResult("ok", self._codec.decode(payload, codec, attachment))


class RayWatchReceiver(RayReceiver[T]):
    """``recv`` gives the newest value that this receiver has not had, waiting for one; a new receiver has had none."""

    def _borrowed(self, result: Any) -> T:
        status, value = result
        if status != "ok":
            raise ChannelEmptyError
        held: T = value
        return held

    def borrow(self) -> T:
        """The newest value, seen or not. One call of the channel's actor, which this waits for (about 1 ms): in a
        coroutine rather ``await current()``. ChannelEmptyError: none yet."""
        return self._borrowed(self._answer_sync(lambda actor: actor.borrow.remote()))

    async def current(self) -> T:
        """As borrow, for coroutines."""
        return self._borrowed(await self._answer(lambda actor: actor.borrow.remote()))

    async def changed(self) -> None:
        """Waits for a value that this receiver has not had, and counts it as had. ChannelClosedError: there will be
        none."""
        await self._next()


class RayWatchSender(RaySender[T]):
    """Replaces the value."""

    def subscribe(self) -> RayWatchReceiver[T]:
        """A further receiver."""
        receiver: RayWatchReceiver[T] = RayWatchReceiver(self._address)
        receiver.open()
        return receiver
