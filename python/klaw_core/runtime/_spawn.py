# SPDX-License-Identifier: Apache-2.0
"""Background tasks that belong to no nursery: asyncio tasks, or trio's system tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["BackgroundTask", "current_task", "spawn"]

# asyncio keeps only weak references to its tasks.
_tasks: set[Any] = set()


class BackgroundTask:
    """What spawn returns."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Cancels it; idempotent."""
        self._cancel()


def spawn(fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> BackgroundTask:
    """Runs fn(*args), which handles its own exceptions, in the caller's context. RuntimeError outside an event loop."""
    import asyncio  # noqa: PLC0415 - most of the time that importing klaw would take

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _spawn_trio(fn, *args)
    begun = cancelled = False

    async def run() -> None:
        nonlocal begun
        begun = True
        if cancelled:  # asyncio would not even call fn, which has to say that it has ended
            task.cancel()
        await fn(*args)

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        if begun:
            task.cancel()

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return BackgroundTask(cancel)


def current_task() -> Any:
    """The task that calls, to be compared by identity; None outside an event loop."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    try:
        if asyncio is not None:
            return asyncio.current_task()
    except RuntimeError:
        pass
    try:
        return trio.lowlevel.current_task() if trio is not None else None
    except RuntimeError:
        return None


def _spawn_trio(fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> BackgroundTask:
    import contextvars  # noqa: PLC0415

    import trio  # noqa: PLC0415

    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await fn(*args)

    trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())
    return BackgroundTask(scope.cancel)
