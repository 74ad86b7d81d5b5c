# SPDX-License-Identifier: Apache-2.0
"""Channels for large values: the value goes into Ray's object store, a reference to it through the channel.

An object dies with the process that owns it. So the channel's actor takes the value over (one copy): it survives its
sender, and dies with the actor. ``volatile=True`` spares the copy, and the value dies with its sender. A receiver on
the same node gets numpy arrays without a copy, read-only.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, TypeVar

import ray
import ray.exceptions

from klaw_core.runtime.channels.ray._link import store_size
from klaw_core.runtime.channels.ray._waiting import wait_for_future
from klaw_core.runtime.channels.ray.codec import BYTES
from klaw_core.runtime.channels.ray.core import RayReceiver, RaySender
from klaw_core.runtime.errors import ChannelEmptyError, ChannelTypeErrorException, LimitExceededError

__all__ = ["RayReferenceReceiver", "RayReferenceSender"]

T = TypeVar("T")

_FETCH = 0.1  # seconds that a value gets at least: one that is here is not sent back for lack of a moment


class RayReferenceSender(RaySender[T]):
    """As RaySender; each value is put into the object store. LimitExceededError: it fits neither there nor on the disk
    that Ray takes then."""

    _FLAGS = 16  # KLAW_REMOTE_REFERENCE
    _BY_VALUE = False

    def _encode(self, value: T) -> tuple[bytes, int, Any]:
        self._codec.check(value)
        return b"", BYTES, [put(value)]


class RayReferenceReceiver(RayReceiver[T]):
    """As RayReceiver; fetches the value that the reference names. A `timeout` counts for both: a value that is not here
    by then goes back to the front for whoever receives next (ChannelEmptyError), but at least 0.1 s are given to it.
    ChannelTypeErrorException: it is gone (its sender, volatile=True, or the channel's actor died); the next receive
    goes on behind it."""

    async def recv(self, timeout: float | None = None) -> T:
        """As RayReceiver.recv."""
        end = None if timeout is None else time.monotonic() + timeout
        return await self._fetch(await self._next(timeout), end)

    async def _fetch(self, item: Any, end: float | None = None) -> T:
        (ref,) = item.attachment
        try:
            if end is None and asyncio._get_running_loop() is not None:
                value: T = await ref
            else:
                value = await wait_for_future(ref.future(), _left(end))
        except TimeoutError:
            self._settle(item.lease, False)
            raise ChannelEmptyError from None
        except ray.exceptions.RayError as error:
            raise _gone(error) from error
        except BaseException:
            self._settle(item.lease, False)  # cancelled: nobody has seen it
            raise
        return value

    def _fetch_sync(self, item: Any, end: float | None = None) -> T:
        (ref,) = item.attachment
        try:
            value: T = ray.get(ref, timeout=_left(end))
        except ray.exceptions.GetTimeoutError:
            self._settle(item.lease, False)
            raise ChannelEmptyError from None
        except ray.exceptions.RayError as error:
            raise _gone(error) from error
        return value

    async def recv_ref(self, timeout: float | None = None) -> Any:
        """The reference itself, a ray.ObjectRef: to pass on without fetching the value."""
        return (await self._next(timeout)).attachment[0]


def _left(end: float | None) -> float | None:
    return None if end is None else max(_FETCH, end - time.monotonic())


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
