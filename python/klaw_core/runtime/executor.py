# SPDX-License-Identifier: Apache-2.0
"""Run functions concurrently; outcomes are values.

>>> import asyncio
>>> async def main() -> None:
...     async with Executor(concurrency=4) as ex:
...         task = ex.submit(pow, 2, 10)
...         print(await task)
...         print(await ex.map(abs, [-1, -2, 3]))
...         print(await ex.gather(ex.submit(len, "ab"), ex.submit(int, "no")))
>>> asyncio.run(main())
Ok(1024)
[Ok(1), Ok(2), Ok(3)]
Err(ValueError("invalid literal for int() with base 10: 'no'"))
"""

from __future__ import annotations

import contextvars
import inspect
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

from klaw_core import _klaw
from klaw_core.result import Err, Ok, Result
from klaw_core.runtime import tracing
from klaw_core.runtime._backends import ExecutorBackend, make_backend
from klaw_core.runtime._config import Backend
from klaw_core.runtime.errors import Cancelled

__all__ = ["Executor", "TaskHandle"]

T = TypeVar("T")
U = TypeVar("U")

ExitReason = Literal["success", "error", "cancelled"]


class TaskHandle(Generic[T]):
    """A task that was submitted. Awaiting it gives a Result: Ok(value), the Err the function returned, Err(exception)
    it raised, Err(Cancelled(reason)). May be awaited often and by many."""

    __slots__ = ("__weakref__", "_backend", "_context", "_done", "_reason", "_result", "_waiters", "name")

    def __init__(self, backend: ExecutorBackend, name: str) -> None:
        self.name = name
        self._backend = backend
        self._context = contextvars.copy_context()
        self._done = False
        self._reason: str | None = None
        self._result: Any = None
        self._waiters: list[Any] | None = None

    def _finish(self, result: Any) -> None:
        self._result = result
        self._done = True
        waiters, self._waiters = self._waiters, None
        for tx in waiters or ():
            tx.try_send_sync(None)

    def cancel(self, reason: str = "cancelled") -> None:
        """Ends the task: a coroutine is cancelled, a function that has not begun is not begun, one that runs on a
        thread goes on but nobody gets its outcome. The first reason stays. Idempotent."""
        if not self._done:
            if self._reason is None:
                self._reason = reason
            self._backend.cancel(self, self._reason)

    def is_running(self) -> bool:
        """Whether it has not ended (it may still wait for its turn)."""
        return not self._done

    @property
    def exit_reason(self) -> ExitReason | None:
        """How it ended; None while it has not."""
        if not self._done:
            return None
        if isinstance(self._result, Ok):
            return "success"
        return "cancelled" if isinstance(self._result.error, Cancelled) else "error"

    async def _wait(self) -> Any:
        if not self._done:
            if self._waiters is None:
                self._waiters = []
            tx, rx = _klaw.oneshot()
            self._waiters.append(tx)
            try:
                await rx.recv()
            finally:
                if self._waiters and tx in self._waiters:
                    self._waiters.remove(tx)
        return self._result

    def __await__(self) -> Generator[Any, Any, Result[T, Any]]:
        return self._wait().__await__()

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name!r} {self.exit_reason or 'running'}>"


class Executor:
    """Use it as ``async with Executor() as ex``; leaving it waits for what runs (after an exception: cancels it).

    backend: Backend.LOCAL or Backend.RAY (None: the configured one), or an ExecutorBackend. concurrency: tasks that run
    at once (None: the configured number). Everything else goes to the backend, e.g. workers="processes".
    """

    def __init__(
        self, backend: Backend | str | ExecutorBackend | None = None, concurrency: int | None = None, **kwargs: Any
    ) -> None:
        self._backend = make_backend(backend, concurrency, kwargs)
        self._concurrency = getattr(self._backend, "concurrency", concurrency or 1)
        self._open = self._entered = False
        self._submitted: Callable[[TaskHandle[Any]], object] | None = None  # who keeps track of the handles

    async def __aenter__(self) -> Executor:
        if self._entered:
            raise RuntimeError("this executor has been entered already")
        self._entered = True
        await self._backend.start()
        self._concurrency = getattr(self._backend, "concurrency", self._concurrency)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(wait=kind is None)

    async def _close(self, wait: bool) -> None:
        self._open = False
        await self._backend.stop(wait=wait)

    def submit(
        self, fn: Callable[..., Any], *args: Any, backend_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> TaskHandle[Any]:
        """Starts ``fn(*args, **kwargs)``: a coroutine function on the loop, another one on a thread (or where `workers`
        says). backend_kwargs: options of this task, over the executor's. RuntimeError outside ``async with``."""
        if not self._open:
            raise RuntimeError("use the executor as: async with Executor() as ex")
        handle: TaskHandle[Any] = TaskHandle(self._backend, getattr(fn, "__qualname__", repr(fn)))
        if tracing.tracer is not None:
            fn = tracing.traced("task", handle.name, fn)
        self._backend.submit(handle, fn, args, kwargs, dict(backend_kwargs or {}))
        if self._submitted is not None:
            self._submitted(handle)
        return handle

    def _submit_here(self, fn: Callable[..., Any], *args: Any) -> TaskHandle[Any]:
        """A coroutine function on this loop, whatever the backend: what it is about can't travel."""
        here = getattr(self._backend, "here", None)
        if here is None or not self._open:
            return self.submit(fn, *args)
        backend: ExecutorBackend = here()
        handle: TaskHandle[Any] = TaskHandle(backend, getattr(fn, "__qualname__", repr(fn)))
        backend.submit(handle, fn, args, {}, {})
        if self._submitted is not None:
            self._submitted(handle)
        return handle

    async def map(self, fn: Callable[[T], Any], items: Iterable[T]) -> list[Result[Any, Any]]:
        """fn of each item, in order, one Result each. Small plain functions travel in chunks. When it is cancelled, so
        is what it started."""
        # Slices of these are cheap, a range's to send as well.
        values: Sequence[T] = items if type(items) in (list, tuple, range) else list(items)  # type: ignore[assignment]
        apply: Callable[..., Any] = _apply
        if inspect.iscoroutinefunction(fn):
            if self._backend.name != "ray":
                return await _all([self.submit(fn, value) for value in values])
            apply = _apply_async
        size = max(1, min(10_000, len(values) // (self._concurrency * 4)))
        chunks = [values[at : at + size] for at in range(0, len(values), size)]
        results: list[Result[Any, Any]] = []
        handles = [self.submit(apply, fn, chunk) for chunk in chunks]
        for outcome, chunk in zip(await _all(handles), chunks, strict=True):
            match outcome:
                case Ok((list() as outcomes, list() as others)):
                    at = len(results)
                    results.extend(map(Ok, outcomes))
                    for i, other in others:
                        results[at + i] = other
                case failure:
                    results.extend([failure] * len(chunk))
        return results

    async def imap(
        self, fn: Callable[[T], Any], items: Iterable[T], ordered: bool = True, ahead: int | None = None
    ) -> AsyncGenerator[Result[Any, Any], None]:
        """Results one after the other, in order or (ordered=False) as they finish. At most `ahead` items are under way
        (default: twice the concurrency); `items` is taken from as far as that needs."""
        source = iter(items)
        window = max(1, ahead if ahead is not None else 2 * self._concurrency)
        flying: deque[TaskHandle[Any]] = deque(self.submit(fn, item) for item in itertools.islice(source, window))
        try:
            while flying:
                handle = flying[0] if ordered else await _first(flying)
                result = await handle
                flying.remove(handle)
                flying.extend(self.submit(fn, item) for item in itertools.islice(source, 1))
                yield result
        finally:
            for handle in flying:
                handle.cancel("nobody wants it any more")

    async def gather(self, *awaitables: TaskHandle[Any] | Awaitable[Any]) -> Result[list[Any], Any]:
        """Ok(all values, in order), or the first Err to come; then the others are cancelled. Takes handles and other
        awaitables."""
        handles = [a if isinstance(a, TaskHandle) else self._submit_here(_await, a) for a in awaitables]
        waiting = deque(handles)
        while waiting:
            handle = await _first(waiting)
            waiting.remove(handle)
            result = await handle
            if isinstance(result, Err):
                for other in waiting:
                    other.cancel("another one failed")
                return result
        return Ok([handle._result.value for handle in handles])


async def _all(handles: list[TaskHandle[Any]]) -> list[Result[Any, Any]]:
    try:
        return [await handle for handle in handles]
    except BaseException:
        for handle in handles:
            handle.cancel("nobody waits for it any more")
        raise


async def _await(awaitable: Awaitable[U]) -> U:
    return await awaitable


_RESULTS = frozenset({Ok, Err})


def _apply(fn: Callable[[Any], Any], chunk: Sequence[Any]) -> tuple[list[Any], list[tuple[int, Any]]]:
    """A chunk of a map, on a thread or in another process. The plain values, which travel lightly; with their place,
    the outcomes that are no plain values."""
    values: list[Any] = []
    others: list[tuple[int, Any]] = []
    rest = iter(chunk)
    while True:
        try:
            for item in rest:
                values.append(fn(item))
            break
        except Exception as error:
            others.append((len(values), Err(error)))
            values.append(None)
    if not _RESULTS.isdisjoint(map(type, values)):
        for i, value in enumerate(values):
            if type(value) in _RESULTS:
                others.append((i, value))
                values[i] = None
    return values, others


async def _apply_async(fn: Callable[[Any], Awaitable[Any]], chunk: Sequence[Any]) -> Any:
    """The same for a coroutine function, all of the chunk at once."""
    import anyio  # noqa: PLC0415

    values: list[Any] = [None] * len(chunk)
    others: list[tuple[int, Any]] = []

    async def run(at: int, item: Any) -> None:
        try:
            value = await fn(item)
        except Exception as error:
            others.append((at, Err(error)))
            return
        if type(value) in _RESULTS:
            others.append((at, value))
        else:
            values[at] = value

    async with anyio.create_task_group() as group:
        for at, item in enumerate(chunk):
            group.start_soon(run, at, item)
    return values, others


async def _first(handles: Iterable[TaskHandle[Any]]) -> TaskHandle[Any]:
    """The first of them that has ended, waiting for it."""
    pending = list(handles)
    for handle in pending:
        if handle._done:
            return handle
    tx, rx = _klaw.channel(0, True)
    for handle in pending:
        if handle._waiters is None:
            handle._waiters = []
        handle._waiters.append(tx)
    try:
        await rx.recv()
    finally:
        for handle in pending:
            if handle._waiters and tx in handle._waiters:
                handle._waiters.remove(tx)
    return next(handle for handle in pending if handle._done)
