# SPDX-License-Identifier: Apache-2.0
"""Every receiver gets every item that is sent after it registered.

A receiver that falls behind by more than the channel's capacity loses the oldest items and is told how many
(ChannelLaggedError); senders never wait for receivers.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, TypeVar

import sunray

from klaw_core.runtime.channels.ray._waiting import LATE, drive, new_waiter
from klaw_core.runtime.channels.ray.actor import GROUPS, RayChannelActor
from klaw_core.runtime.channels.ray.constants import BROADCAST, SingleResult
from klaw_core.runtime.channels.ray.core import RayReceiver, RaySender

__all__ = ["RayBroadcastActor", "RayBroadcastReceiver", "RayBroadcastSender"]

T = TypeVar("T")


class RayBroadcastActor(  # type: ignore[call-arg]
    RayChannelActor[T],
    max_restarts=4,
    max_task_retries=-1,
    max_concurrency=1000,
    concurrency_groups=GROUPS,
):
    """Holds a broadcast channel: `capacity` items for each receiver."""

    _KIND: ClassVar[int] = BROADCAST

    @sunray.remote_method
    async def send(self, value: T) -> str:
        """Gives it to each registered receiver: "ok", "closed", "type_error"."""
        encoded = self._encode((value,))
        return "type_error" if encoded is None else await self._host.put(encoded, 0.0)

    @sunray.remote_method(concurrency_group="get")
    async def recv(self, reader_id: str, timeout: float | None = None) -> SingleResult[T]:
        """That reader's next item: "ok", "empty", "closed", "lagged" (with `missed`), "missing"."""
        return await self._get(timeout, reader_id)


class RayBroadcastReceiver(RayReceiver[T]):
    """Gets each item that is sent from its registration on: made by ray_broadcast_channel or subscribe it is
    registered at once."""

    async def ready(self, timeout: float = 30.0) -> None:
        """Until the channel knows it: what anybody sends from here on is received. TimeoutError."""
        self.open()
        end = time.monotonic() + timeout
        while True:
            readers = await self._answer(lambda actor: actor.get_reader_stats.remote())
            if self.reader_id in readers:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{self.reader_id} is not registered after {timeout:g} s")
            await drive(_pause(0.005))


class RayBroadcastSender(RaySender[T]):
    """Sends to all receivers; never waits for them."""

    def subscribe(self) -> RayBroadcastReceiver[T]:
        """A further receiver, registered at once; ``await receiver.ready()`` to be sure that the channel knows."""
        receiver: RayBroadcastReceiver[T] = RayBroadcastReceiver(self._address)
        receiver.open()
        return receiver


def _pause(seconds: float) -> Any:
    late = yield new_waiter(), seconds
    assert late is LATE
