# SPDX-License-Identifier: Apache-2.0
"""Waiting for what another thread finds out, under asyncio, trio, or on a plain thread.

A waiter is completed from any thread, many at a time: one wake-up of a loop serves all of its waiters that a frame has
settled. An asyncio Future is a waiter; the two classes here are its likes. ``new_waiter`` chooses.

Rejected: a waiter of our own for asyncio too. A Future is awaited in C, and uvloop makes its own kind.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import Any, Final, Protocol

__all__ = [
    "LATE",
    "Steps",
    "ThreadWaiter",
    "Waiter",
    "drive",
    "drive_sync",
    "new_waiter",
    "settle",
    "until",
    "wait_for_future",
]

#: What a wait gives whose time has passed.
LATE: Final = object()
#: An operation in steps, the same for tasks and threads: yields (waiter, seconds or None), is sent the result or LATE.
Steps = Generator[tuple[Any, float | None], Any, Any]


class _Loop(Protocol):
    def call_soon_threadsafe(self, function: Callable[..., object], /, *args: Any) -> object: ...


class Waiter(Protocol):
    """What somebody waits for: at most one result, set on the waiter's own loop."""

    def done(self) -> bool:
        """Whether it has its result."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Gives it; on the waiter's loop only."""
        ...

    def get_loop(self) -> Any:
        """The loop on which that is done."""
        ...


class _Here:
    """The loop of those who need none."""

    @staticmethod
    def call_soon_threadsafe(function: Callable[..., object], /, *args: Any) -> None:
        function(*args)


class ThreadWaiter:
    """A plain thread that waits."""

    __slots__ = ("_event", "_result")
    _loop = _Here()

    def __init__(self) -> None:
        self._event = threading.Event()
        self._result: Any = None

    def done(self) -> bool:
        """Whether it has its result."""
        return self._event.is_set()

    def set_result(self, result: Any, /) -> None:
        """Gives it; from any thread."""
        self._result = result
        self._event.set()

    def get_loop(self) -> _Here:
        """Anywhere."""
        return self._loop

    def wait(self, timeout: float | None, default: Any) -> Any:
        """The result; `default` when there is none within `timeout` seconds."""
        return self._result if self._event.wait(timeout) else default


class _TrioLoop:
    """trio's run, dressed as a loop."""

    __slots__ = ("_token",)

    def __init__(self, token: Any) -> None:
        self._token = token

    def __eq__(self, other: object) -> bool:
        return type(other) is _TrioLoop and other._token is self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def call_soon_threadsafe(self, function: Callable[..., object], /, *args: Any) -> None:
        self._token.run_sync_soon(function, *args)


class _TrioWaiter:
    """A trio task that waits."""

    __slots__ = ("_event", "_loop", "_result")

    def __init__(self, trio: Any) -> None:
        self._event = trio.Event()
        self._loop = _TrioLoop(trio.lowlevel.current_trio_token())
        self._result: Any = None

    def done(self) -> bool:
        return bool(self._event.is_set())

    def set_result(self, result: Any, /) -> None:
        self._result = result
        self._event.set()

    def get_loop(self) -> _TrioLoop:
        return self._loop

    async def wait(self, timeout: float | None, default: Any) -> Any:
        trio = sys.modules["trio"]
        if timeout is None:
            await self._event.wait()
            return self._result
        with trio.move_on_after(timeout):
            await self._event.wait()
        return self._result if self._event.is_set() else default


def new_waiter() -> Any:
    """A waiter of the running task: an asyncio Future, or trio's likeness. RuntimeError: no loop runs here."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop.create_future()
    trio = sys.modules.get("trio")
    try:
        return _TrioWaiter(trio)
    except (RuntimeError, AttributeError):
        raise RuntimeError("no event loop runs here; from plain threads use send_sync and recv_sync") from None


def _expire(waiter: asyncio.Future[Any], default: Any) -> None:
    if not waiter.done():
        waiter.set_result(default)


async def until(waiter: Any, timeout: float | None = None, default: Any = None) -> Any:
    """The waiter's result; `default` when there is none within `timeout` seconds."""
    if type(waiter) is _TrioWaiter:
        return await waiter.wait(timeout, default)
    if timeout is None:
        return await waiter
    timer = waiter.get_loop().call_later(timeout, _expire, waiter, default)
    try:
        return await waiter
    finally:
        timer.cancel()


def _settle_here(settled: Iterable[tuple[Any, Any]]) -> None:
    for waiter, result in settled:
        if not waiter.done():
            waiter.set_result(result)


def settle(settled: list[tuple[Any, Any]]) -> None:
    """Gives each waiter its result; from any thread, one wake-up a loop. Waiters of an ended loop are dropped."""
    if len(settled) == 1:
        by_loop = {settled[0][0].get_loop(): settled}
    else:
        by_loop = {}
        for pair in settled:
            by_loop.setdefault(pair[0].get_loop(), []).append(pair)
    for loop, pairs in by_loop.items():
        try:
            if loop is asyncio._get_running_loop():
                _settle_here(pairs)
            else:
                loop.call_soon_threadsafe(_settle_here, pairs)
        except RuntimeError:  # closed: nobody waits there any more
            pass
        except Exception as error:
            if type(error).__name__ != "RunFinishedError":  # trio's word for the same
                raise


def drive_sync(steps: Steps) -> Any:
    """Runs steps (a generator that yields (waiter, timeout) and gets the result, or LATE) on a plain thread."""
    try:
        waiter, timeout = next(steps)
        while True:
            try:
                result = waiter.wait(timeout, LATE)
            except BaseException as error:  # KeyboardInterrupt
                waiter, timeout = steps.throw(error)
            else:
                waiter, timeout = steps.send(result)
    except StopIteration as end:
        return end.value


async def drive(steps: Steps) -> Any:
    """As drive_sync, in a task; the steps hear of its cancellation."""
    try:
        waiter, timeout = next(steps)
        while True:
            try:
                result = await until(waiter, timeout, LATE)
            except BaseException as error:
                waiter, timeout = steps.throw(error)
            else:
                waiter, timeout = steps.send(result)
    except StopIteration as end:
        return end.value


async def wait_for_future(future: futures.Future[Any], timeout: float | None = None) -> Any:
    """The result of a future of another thread (of Ray). TimeoutError after `timeout` seconds."""
    waiter = new_waiter()
    future.add_done_callback(lambda done: settle([(waiter, True)]))
    await until(waiter, timeout)
    if not future.done():
        raise TimeoutError
    return future.result()
