# SPDX-License-Identifier: Apache-2.0
"""What runs on a worker: one function of the caller's, within its context and until its deadline.

Ray cancels a running task by _thread.interrupt_main, which a blocking system call does not notice. Here the
interpreter's wake-up descriptor tells a thread, which sends a real signal: time.sleep and reads end. That signal is
SIGURG, which nobody minds, because Ray blocks SIGINT in its workers.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from klaw_core.result import Err, Ok
from klaw_core.runtime._backends.ray.wire import CANCELLED, pack, pack_error
from klaw_core.runtime.context import Context, context

__all__ = ["EXPIRED", "Head", "run_task", "task_of"]

EXPIRED = "the deadline passed before it began"


class Head(NamedTuple):
    """What goes with a task: `due` is the deadline by the clock of the day (inf: none), `library` the event loop that
    coroutines are for, `raises` whether Ray is to see exceptions, to retry."""

    context: Context
    due: float
    library: str
    raises: bool


_EMPTY = Context()


def task_of(fn: Callable[..., Any], head: Head) -> tuple[Any, ...]:
    """Both as one argument, which is pickled at one go."""
    return fn, None if head.context == _EMPTY else head.context, *head[1:]


class _Interrupted:
    """Around a task: an interrupt ends it, wherever it stands, and nothing after it."""

    def __init__(self) -> None:
        self._inside = self._active = self._raised = False
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._main = threading.main_thread().ident or 0
        self.interrupt: Callable[[], object] | None = None
        signal.signal(signal.SIGURG, lambda _number, _frame: None)
        threading.Thread(target=self._relay, name="klaw-interrupt", daemon=True).start()

    def _relay(self) -> None:
        while os.read(self._read, 64):
            with self._lock:
                if self._active:
                    self._active = False  # the signal wakes us once more
                    signal.pthread_kill(self._main, signal.SIGURG)

    def _handle(self, _number: int, _frame: Any) -> None:
        if not self._inside:
            return
        if self.interrupt is not None:
            self.interrupt()
        elif not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def __enter__(self) -> _Interrupted:
        self.interrupt = None
        self._raised = False
        self._handler = signal.signal(signal.SIGINT, self._handle)
        self._descriptor = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._inside = self._active = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._inside = False
        with self._lock:
            self._active = False
        signal.set_wakeup_fd(self._descriptor)
        signal.signal(signal.SIGINT, self._handler)


_interrupted: _Interrupted | None = None


def run_task(work: tuple[Any, ...], /, *args: Any, **kwargs: Any) -> tuple[int, Any]:
    """Calls what `task_of` was given and gives the outcome, packed. Raises only what makes Ray cancel or retry it."""
    global _interrupted  # noqa: PLW0603
    fn: Callable[..., Any] = work[0]
    head = Head(work[1] or Context(), *work[2:])
    if head.due <= time.time():
        return CANCELLED, EXPIRED
    plain = threading.current_thread() is not threading.main_thread() or (
        head.library == "trio" and inspect.iscoroutinefunction(fn)  # it has signals in its own hands
    )
    if plain:
        return _outcome(head, None, fn, args, kwargs)
    if _interrupted is None:
        _interrupted = _Interrupted()
    with _interrupted as scope:
        return _outcome(head, scope, fn, args, kwargs)


def _outcome(head: Head, scope: _Interrupted | None, fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[int, Any]:
    with context(head.context):
        try:
            value = fn(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = _run(value, head, scope)
        except _ExpiredError:
            return CANCELLED, "deadline"
        except Exception as error:
            if head.raises:
                raise
            return pack_error(error)
        except SystemExit as error:  # of the task, not of the worker
            return pack_error(error)
    return pack(value if isinstance(value, Ok | Err) else Ok(value))


class _ExpiredError(BaseException):
    pass


def _run(coroutine: Any, head: Head, scope: _Interrupted | None) -> Any:
    """A coroutine, on a loop of its own, until the deadline."""
    import anyio  # noqa: PLC0415

    async def main() -> Any:
        with anyio.CancelScope(deadline=anyio.current_time() + head.due - time.time()) as within:
            return await coroutine
        assert within.cancelled_caught
        raise _ExpiredError

    if head.library == "trio":
        return anyio.run(main, backend="trio")
    cancelled = False
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def interruptible() -> Any:
            task = asyncio.current_task()

            def interrupt() -> None:
                nonlocal cancelled
                cancelled = True
                loop.call_soon_threadsafe(task.cancel)  # type: ignore[union-attr]

            if scope is not None:
                scope.interrupt = interrupt
            try:
                return await main()
            finally:
                if scope is not None:
                    scope.interrupt = lambda: None

        try:
            return runner.run(interruptible())
        except asyncio.CancelledError:
            if cancelled:
                raise KeyboardInterrupt from None
            raise
