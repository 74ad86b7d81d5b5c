# SPDX-License-Identifier: Apache-2.0
"""A cache for coroutine functions: no stampede, safe to cancel, errors are not kept.

>>> import asyncio
>>> calls = 0
>>> @async_lru_safe(maxsize=2)
... async def square(n: int) -> int:
...     global calls
...     calls += 1
...     await asyncio.sleep(0)
...     return n * n
>>> async def main() -> None:
...     print(await asyncio.gather(square(3), square(3), square(3)), calls)
...     print(square.cache_info())
>>> asyncio.run(main())
[9, 9, 9] 1
CacheInfo(hits=2, misses=1, maxsize=2, currsize=1)
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from klaw_core import _klaw
from klaw_core.result import Err
from klaw_core.runtime._spawn import BackgroundTask, spawn
from klaw_core.runtime.errors import TaskCancelledError

__all__ = ["CacheInfo", "async_lru_safe"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class CacheInfo(NamedTuple):
    """As functools.lru_cache's."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class _Flight:
    """A call under way, and who waits for it."""

    __slots__ = ("task", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.task: BackgroundTask | None = None


def _key(args: tuple[Any, ...], kwargs: dict[str, Any], typed: bool) -> Hashable:
    return functools._make_key(args, kwargs, typed)


def async_lru_safe(maxsize: int | None = 128, typed: bool = False) -> Callable[[F], Any]:
    """Keeps the last `maxsize` results (None: all). Callers with equal arguments at one time share one call, which goes
    on as long as one of them waits; when all have been cancelled it is cancelled. An exception reaches all who wait and
    is not kept; nor is an Err. The wrapper has cache_info() and cache_clear()."""
    if maxsize is not None and maxsize < 1:
        raise ValueError(f"maxsize has to be 1 or more or None, not {maxsize}")

    def decorate(fn: F) -> Any:
        results: OrderedDict[Hashable, Any] = OrderedDict()
        flights: dict[Hashable, _Flight] = {}
        hits = misses = 0

        async def fly(key: Hashable, flight: _Flight, args: Any, kwargs: Any) -> None:
            value: Any = None
            failure: Exception | None = None
            try:
                value = await fn(*args, **kwargs)
            except Exception as error:
                failure = error
            except BaseException:  # cancelled, perhaps from within: who still waits hears of it
                for tx in flight.waiting:
                    tx.try_send_sync((None, TaskCancelledError("the shared call was cancelled")))
                raise
            finally:
                if flights.get(key) is flight:
                    del flights[key]
            if failure is None and not isinstance(value, Err):
                results[key] = value
                if maxsize is not None and len(results) > maxsize:
                    results.popitem(last=False)
            for tx in flight.waiting:
                tx.try_send_sync((value, failure))

        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal hits, misses
            key = _key(args, kwargs, typed)
            if key in results:
                hits += 1
                results.move_to_end(key)
                return results[key]
            tx, rx = _klaw.oneshot()
            flight = flights.get(key)
            if flight is None:
                misses += 1
                flight = flights[key] = _Flight()
                flight.waiting.append(tx)
                flight.task = spawn(fly, key, flight, args, kwargs)
            else:
                hits += 1
                flight.waiting.append(tx)
            try:
                value, failure = await rx.recv()
            except BaseException:
                flight.waiting.remove(tx)
                if not flight.waiting and flight.task is not None:
                    if flights.get(key) is flight:
                        del flights[key]
                    flight.task.cancel()
                raise
            if failure is not None:
                raise failure
            return value

        def cache_info() -> CacheInfo:
            return CacheInfo(hits, misses, maxsize, len(results))

        def cache_clear() -> None:
            nonlocal hits, misses
            results.clear()
            hits = misses = 0

        wrapper.cache_info = cache_info  # type: ignore[attr-defined]
        wrapper.cache_clear = cache_clear  # type: ignore[attr-defined]
        return wrapper

    return decorate
