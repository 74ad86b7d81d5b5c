# SPDX-License-Identifier: Apache-2.0
"""Concurrent work over many awaitables or items; outcomes are Results. At most `concurrency` run at once (None: the
configured number).

>>> import asyncio
>>> async def half(n: int) -> Result[int, str]:
...     return Err(f"{n} is odd") if n % 2 else Ok(n // 2)
>>> asyncio.run(async_map(half, [2, 4, 5]))
[Ok(1), Ok(2), Err('5 is odd')]
>>> asyncio.run(async_collect([half(2), half(4)]))
Ok([1, 2])
>>> asyncio.run(async_race_ok([half(3), half(8)]))
Ok(4)
>>> asyncio.run(async_partition([half(2), half(3)]))
([1], ['3 is odd'])
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from klaw_core import _klaw
from klaw_core.result import Err, Ok, Result
from klaw_core.runtime._config import get_config
from klaw_core.runtime.errors import ChannelClosedError

__all__ = [
    "async_buffered",
    "async_chunked",
    "async_collect",
    "async_filter",
    "async_first_ok",
    "async_map",
    "async_merge",
    "async_partition",
    "async_race_ok",
]

T = TypeVar("T")
U = TypeVar("U")


def _limit(concurrency: int | None) -> int:
    if concurrency is None:
        return max(1, get_config().concurrency)
    if concurrency < 1:
        raise ValueError(f"concurrency has to be 1 or more or None, not {concurrency}")
    return concurrency


async def _outcome(awaitable: Awaitable[Any]) -> Any:
    """The Result of an awaitable: exceptions become Err."""
    try:
        value = await awaitable
    except Exception as error:
        return Err(error)
    return value if isinstance(value, Ok | Err) else Ok(value)


def _close(awaitables: Iterable[Any]) -> None:
    """Those that nobody will await: no warning for them."""
    for awaitable in awaitables:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()


async def _run_all(
    jobs: Sequence[Callable[[], Awaitable[Any]]], concurrency: int | None, each: Callable[[int, Any], bool]
) -> None:
    """Runs the jobs; each(index, result) for each outcome as it comes; when it says True the rest is cancelled."""
    import anyio  # noqa: PLC0415

    limit = _limit(concurrency)
    work = iter(enumerate(jobs))

    async with anyio.create_task_group() as group:

        async def worker() -> None:
            for at, job in work:
                if each(at, await _outcome(job())):
                    group.cancel_scope.cancel()
                    return

        for _ in range(min(limit, len(jobs))):
            group.start_soon(worker)


def _jobs(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    return list(awaitables)


async def async_map(
    fn: Callable[[T], Any], items: Iterable[T], concurrency: int | None = None
) -> list[Result[Any, Any]]:
    """fn (a coroutine function) of each item, in order, one Result each."""
    values = list(items)
    results: list[Any] = [None] * len(values)

    def keep(at: int, result: Any) -> bool:
        results[at] = result
        return False

    await _run_all([lambda value=value: fn(value) for value in values], concurrency, keep)  # type: ignore[misc]
    return results


async def async_collect(awaitables: Iterable[Awaitable[Any]], concurrency: int | None = None) -> Result[list[Any], Any]:
    """Ok(all values, in order), or the first Err to come; the rest is cancelled then."""
    waiting = _jobs(awaitables)
    values: list[Any] = [None] * len(waiting)
    failure: list[Any] = []

    def keep(at: int, result: Any) -> bool:
        if result.is_err():
            failure.append(result)
            return True
        values[at] = result.value
        return False

    try:
        await _run_all([lambda a=a: a for a in waiting], concurrency, keep)  # type: ignore[misc]
    finally:
        _close(waiting)
    return failure[0] if failure else Ok(values)


async def async_race_ok(awaitables: Iterable[Awaitable[Any]]) -> Result[Any, list[Any]]:
    """The first Ok to come, the rest is cancelled; Err(all errors, in order) when there is none. All run at once."""
    waiting = _jobs(awaitables)
    errors: list[Any] = [None] * len(waiting)
    winner: list[Any] = []

    def keep(at: int, result: Any) -> bool:
        if result.is_ok():
            winner.append(result)
            return True
        errors[at] = result.error
        return False

    try:
        await _run_all([lambda a=a: a for a in waiting], max(1, len(waiting)), keep)  # type: ignore[misc]
    finally:
        _close(waiting)
    return winner[0] if winner else Err(errors)


async def async_first_ok(awaitables: Iterable[Awaitable[Any]]) -> Result[Any, list[Any]]:
    """One after the other until one is Ok; Err(all errors) when none is.

    >>> import asyncio
    >>> async def no() -> Result[int, str]:
    ...     return Err("no")
    >>> asyncio.run(async_first_ok([no(), no()]))
    Err(['no', 'no'])
    """
    waiting = _jobs(awaitables)
    errors: list[Any] = []
    try:
        for awaitable in waiting:
            result = await _outcome(awaitable)
            if result.is_ok():
                found: Result[Any, list[Any]] = result
                return found
            errors.append(result.error)
    finally:
        _close(waiting)
    return Err(errors)


async def async_partition(
    awaitables: Iterable[Awaitable[Any]], concurrency: int | None = None
) -> tuple[list[Any], list[Any]]:
    """(values, errors), each in the order of the awaitables."""
    waiting = _jobs(awaitables)
    results: list[Any] = [None] * len(waiting)

    def keep(at: int, result: Any) -> bool:
        results[at] = result
        return False

    try:
        await _run_all([lambda a=a: a for a in waiting], concurrency, keep)  # type: ignore[misc]
    finally:
        _close(waiting)
    return [r.value for r in results if r.is_ok()], [r.error for r in results if r.is_err()]


async def async_filter(predicate: Callable[[T], Any], items: Iterable[T], concurrency: int | None = None) -> list[T]:
    """The items for which the coroutine function gives something true, in order. What it raises is raised.

    >>> import asyncio
    >>> async def even(n: int) -> bool:
    ...     return n % 2 == 0
    >>> asyncio.run(async_filter(even, range(5)))
    [0, 2, 4]
    """
    values = list(items)
    return [
        value
        for value, result in zip(values, await async_map(predicate, values, concurrency), strict=True)
        if result.unwrap()
    ]


async def async_buffered(
    awaitables: Iterable[Awaitable[Any]], size: int | None = None, ordered: bool = True
) -> AsyncIterator[Result[Any, Any]]:
    """Results one after the other, in order or as they come, with at most `size` under way.

    >>> import asyncio
    >>> async def main() -> None:
    ...     async for result in async_buffered([asyncio.sleep(0, n) for n in range(3)], 2):
    ...         print(result)
    >>> asyncio.run(main())
    Ok(0)
    Ok(1)
    Ok(2)
    """
    from klaw_core.runtime.executor import Executor  # noqa: PLC0415

    limit = _limit(size)
    waiting = _jobs(awaitables)

    async def identity(awaitable: Any) -> Any:
        return await awaitable

    try:
        async with (
            Executor(backend="local", concurrency=limit) as ex,
            contextlib.aclosing(ex.imap(identity, waiting, ordered=ordered, ahead=limit)) as results,
        ):
            async for result in results:
                yield result
    finally:
        _close(waiting)


async def async_chunked(source: AsyncIterable[T] | Iterable[T], size: int) -> AsyncIterator[list[T]]:
    """Lists of `size` items, the last one shorter.

    >>> import asyncio
    >>> async def main() -> None:
    ...     print([chunk async for chunk in async_chunked(range(5), 2)])
    >>> asyncio.run(main())
    [[0, 1], [2, 3], [4]]
    """
    if size < 1:
        raise ValueError(f"size has to be 1 or more, not {size}")
    chunk: list[T] = []
    if isinstance(source, AsyncIterable):
        async for item in source:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    else:
        for item in source:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


async def async_merge(*sources: AsyncIterable[T], capacity: int = 0) -> AsyncIterator[T]:
    """Items of several asynchronous iterables as they come; in order within each. What one raises is raised.

    >>> import asyncio
    >>> async def numbers(n: int):
    ...     for i in range(n):
    ...         yield i
    >>> async def main() -> None:
    ...     print(sorted([n async for n in async_merge(numbers(2), numbers(3))]))
    >>> asyncio.run(main())
    [0, 0, 1, 1, 2]
    """
    import anyio  # noqa: PLC0415

    tx, rx = _klaw.channel(capacity)

    async def pump(source: AsyncIterable[T], mine: Any) -> None:
        async with mine:
            async for item in source:
                await mine.send(item)

    async with anyio.create_task_group() as group:
        for source in sources:
            group.start_soon(pump, source, tx.clone())
        await tx.close()
        try:
            while True:
                try:
                    item = await rx.recv()
                except ChannelClosedError:
                    break
                yield item
        finally:
            group.cancel_scope.cancel()
