# SPDX-License-Identifier: Apache-2.0
"""Channels for large values: the value goes into Ray's object store, a reference to it through the channel.

An object dies with the process that owns it. So the channel's actor takes the value over (one copy): it survives its
sender, and dies with the actor. ``volatile=True`` spares the copy, and the value dies with its sender. A receiver on
the same node gets numpy arrays without a copy, read-only.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, TypeVar

import ray
import ray.exceptions

from klaw_core.runtime.channels.ray._link import store_size
from klaw_core.runtime.channels.ray._waiting import wait_for_future
from klaw_core.runtime.channels.ray.codec import BYTES
from klaw_core.runtime.channels.ray.core import RayReceiver, RaySender
from klaw_core.runtime.errors import ChannelTypeErrorException, LimitExceededError

__all__ = ["RayReferenceReceiver", "RayReferenceSender"]

T = TypeVar("T")


class RayReferenceSender(RaySender[T]):
    """As RaySender; each value is put into the object store. LimitExceededError: it fits neither there nor on the disk
    that Ray takes then."""

    _FLAGS = 16  # KLAW_REMOTE_REFERENCE

    def _encode(self, value: T) -> tuple[bytes, int, Any]:
        self._codec.check(value)
        return b"", BYTES, [put(value)]


class RayReferenceReceiver(RayReceiver[T]):
    """As RayReceiver; fetches the value that the reference names. ChannelTypeErrorException: it is gone (its sender,
    volatile=True, or the channel's actor died); the next receive goes on behind it."""

    async def recv(self, timeout: float | None = None) -> T:
        """As RayReceiver.recv."""
        return await self._fetch(await self._next(timeout))

    async def _fetch(self, item: Any) -> T:
        (ref,) = item.attachment
        try:
            value: T = await (ref if asyncio._get_running_loop() is not None else wait_for_future(ref.future()))
        except ray.exceptions.RayError as error:
            raise _gone(error) from error
        except BaseException:
            self._settle(item.lease, False)  # cancelled: nobody has seen it
            raise
        return value

    def _fetch_sync(self, item: Any) -> T:
        (ref,) = item.attachment
        try:
            value: T = ray.get(ref)
        except ray.exceptions.RayError as error:
            raise _gone(error) from error
        return value

    async def recv_ref(self, timeout: float | None = None) -> Any:
        """The reference itself, a ray.ObjectRef: to pass on without fetching the value."""
        return (await self._next(timeout)).attachment[0]


def _gone(error: Exception) -> ChannelTypeErrorException:
    return ChannelTypeErrorException("a value that can be fetched", f"{type(error).__name__}: {error}")


def put(value: Any) -> Any:
    """ray.put with errors that say what to do."""
    try:
        return ray.put(value)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        raise LimitExceededError(store_size(), max(store_size(), sys.getsizeof(value))) from error
    except Exception as error:
        raise ChannelTypeErrorException("a value that Ray can store", f"{type(error).__name__}: {error}") from error
