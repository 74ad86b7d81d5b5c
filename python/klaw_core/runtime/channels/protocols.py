# SPDX-License-Identifier: Apache-2.0
"""What every sender and receiver can do, whatever backend carries the channel.

Endpoints may be used from any thread and any event loop; several tasks may wait on one endpoint. An item is never lost
or doubled by cancelling a ``send`` or a ``recv``, whenever the cancellation lands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from klaw_core.result import Result
from klaw_core.runtime.channels.stats import ChannelStats
from klaw_core.runtime.errors import ChannelClosed, ChannelEmpty, ChannelFull, ChannelLagged

__all__ = ["Receiver", "ReferenceReceiver", "ReferenceSender", "Sender"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


@runtime_checkable
class Sender(Protocol[T_contra]):
    """The sending side."""

    def send(self, value: T_contra, /) -> Coroutine[Any, Any, None]:
        """Sends, waiting for room. ChannelClosedError: the receivers are gone, the value was not sent."""
        ...

    def try_send(self, value: T_contra, /) -> Coroutine[Any, Any, Result[None, ChannelFull | ChannelClosed]]:
        """Sends if there is room at once."""
        ...

    def send_batch(self, values: Iterable[T_contra], /) -> Coroutine[Any, Any, None]:
        """Sends all of them, adjacent and in order, or none."""
        ...

    def send_sync(self, value: T_contra, /) -> None:
        """As send, from a plain thread."""
        ...

    def clone(self) -> Self:
        """A further sender; the side closes when the last one does."""
        ...

    def close(self) -> Coroutine[Any, Any, None]:
        """Closes this sender. Idempotent."""
        ...

    def close_sync(self) -> None:
        """As close, from a plain thread."""
        ...

    def __aenter__(self) -> Coroutine[Any, Any, Self]:
        """For ``async with``: closes it at the end."""
        ...

    def __aexit__(self, *args: Any) -> Coroutine[Any, Any, None]:
        """Closes it."""
        ...

    def stats(self) -> ChannelStats:
        """The channel's counters."""
        ...


@runtime_checkable
class Receiver(Protocol[T]):
    """The receiving side."""

    def recv(self, timeout: float | None = None) -> Coroutine[Any, Any, T]:
        """The next item. ChannelClosedError: drained and closed; ChannelEmptyError: none within `timeout` seconds."""
        ...

    def try_recv(self) -> Coroutine[Any, Any, Result[T, ChannelEmpty | ChannelClosed | ChannelLagged]]:
        """The next item if there is one at once."""
        ...

    def recv_batch(self, max_items: int, timeout: float | None = None) -> Coroutine[Any, Any, list[T]]:
        """Between 1 and `max_items` items, waiting for the first; [] when none came within `timeout` seconds."""
        ...

    def clone(self) -> Self:
        """A further receiver; each item goes to one of them (on a broadcast: to each)."""
        ...

    def close(self) -> Coroutine[Any, Any, None]:
        """Closes this receiver. Idempotent."""
        ...

    def stats(self) -> ChannelStats:
        """The channel's counters."""
        ...

    def __aiter__(self) -> AsyncIterator[T]:
        """Items until the channel is closed and drained; any other end raises."""
        ...

    def __anext__(self) -> Coroutine[Any, Any, T]:
        """The next item of ``async for``."""
        ...


class ReferenceSender(Sender[T_contra], Protocol[T_contra]):
    """A sender that puts large values into the backend's object store and sends references to them."""


class ReferenceReceiver(Receiver[T], Protocol[T]):
    """A receiver that fetches the values which the references name."""
