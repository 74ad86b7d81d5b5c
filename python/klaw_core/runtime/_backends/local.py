# SPDX-License-Identifier: Apache-2.0
"""Tasks in this process: coroutines on the loop, plain functions on threads, or in worker processes.

Threads take jobs from one klaw channel and put results into another, which the loop drains in batches: a result that
comes while the loop is awake costs no system call. Worker processes are a ProcessPoolExecutor's, started by
forkserver, because a process with threads must not fork.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from klaw_core import _klaw
from klaw_core.result import Err, Ok
from klaw_core.runtime._config import get_config
from klaw_core.runtime.context import Context, context, current_context
from klaw_core.runtime.errors import Cancelled, ChannelClosedError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from klaw_core.runtime.executor import TaskHandle

__all__ = ["LocalBackend"]

Workers = Literal["threads", "processes"]


def _outcome(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls it; the outcome as a Result, exceptions included."""
    try:
        value = fn(*args, **kwargs)
    except Exception as error:
        return Err(error)
    return value if isinstance(value, Ok | Err) else Ok(value)


def _outcome_within(values: Context, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The same in another process, where the caller's context has to be entered."""
    with context(values):
        return _outcome(fn, args, kwargs)


def _begin_process() -> None:
    """In each worker process. Ctrl-C goes to all processes of a terminal: what becomes of the work is up to the one
    that handed it out. When that one is gone (kill -9), so are we: the pool's own pipe would not tell, for we
    hold both of its ends."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415
    from multiprocessing import connection, parent_process  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, name="klaw-parent", daemon=True).start()


class LocalBackend:
    """concurrency: tasks that run at once (None: the configured number). workers: where plain functions run."""

    name = "local"
    OPTIONS = ("workers",)

    def __init__(self, concurrency: int | None = None, workers: Workers = "threads") -> None:
        if workers not in ("threads", "processes"):
            raise ValueError(f"workers has to be 'threads' or 'processes', not {workers!r}")
        if concurrency is not None and (isinstance(concurrency, bool) or concurrency < 1):
            raise ValueError(f"concurrency has to be 1 or more, not {concurrency!r}")
        self.concurrency = concurrency or get_config().concurrency
        self._workers = workers
        self._group: Any = None  # anyio's, of everything that runs on the loop
        self._running: dict[TaskHandle[Any], Any] = {}  # a cancel scope each
        self._futures: dict[TaskHandle[Any], Any] = {}  # of jobs that processes do
        self._queue: deque[tuple[TaskHandle[Any], Callable[..., Any], Any, Any]] = deque()  # coroutines that wait
        self._threads: list[threading.Thread] = []
        self._pool: ProcessPoolExecutor | None = None
        self._jobs: set[TaskHandle[Any]] = set()  # given to threads and processes
        self._pending = 0
        self._settled: Any = None  # told when one more task has ended, while stop waits

    # --- life ---
    async def start(self) -> None:
        import anyio  # noqa: PLC0415

        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._job_tx, self._job_rx = _klaw.channel(0, True, "executor jobs")
        self._done_tx, self._done_rx = _klaw.channel(0, True, "executor results")
        self._group.start_soon(self._collect)

    async def stop(self, wait: bool) -> None:
        import anyio  # noqa: PLC0415

        try:
            if wait:
                await self._drain()
        finally:
            # Also when the caller is cancelled: everything that was started is over before this returns.
            with anyio.CancelScope(shield=True):
                for handle in [*self._running, *(job[0] for job in self._queue), *self._jobs]:
                    handle.cancel("the executor is closed")
                await self._drain()
                self._job_tx.close_sync()
                for thread in self._threads:
                    await anyio.to_thread.run_sync(thread.join)
                if self._pool is not None:
                    pool, self._pool = self._pool, None
                    await anyio.to_thread.run_sync(functools.partial(pool.shutdown, wait=True, cancel_futures=True))
                self._done_tx.close_sync()
            await self._group.__aexit__(None, None, None)

    async def _drain(self) -> None:
        """Waits until nothing is under way."""
        while self._pending:
            self._settled, settled = _klaw.oneshot()
            await settled.recv()

    def _one_less(self) -> None:
        self._pending -= 1
        tx, self._settled = self._settled, None
        if tx is not None:
            tx.try_send_sync(None)

    # --- submitting ---
    def submit(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any, options: Any) -> None:
        workers = options.pop("workers", self._workers)
        if options:
            raise ValueError(f"the local backend has no option {next(iter(options))!r}; it has: workers")
        self._pending += 1
        if inspect.iscoroutinefunction(fn):
            if len(self._running) < self.concurrency:
                self._start_coroutine(handle, fn, args, kwargs)
            else:
                self._queue.append((handle, fn, args, kwargs))
        elif workers == "processes":
            self._in_process(handle, fn, args, kwargs)
        else:
            self._in_thread(handle, fn, args, kwargs)

    def cancel(self, handle: TaskHandle[Any], reason: str) -> None:
        scope = self._running.get(handle)
        if scope is not None:
            scope.cancel()
        elif not handle._done:  # not started, or on a thread, which can't be cut: nobody waits for it any more
            handle._finish(Err(Cancelled(reason)))
            future = self._futures.get(handle)
            if future is not None:
                future.cancel()

    # --- coroutines ---
    def _start_coroutine(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        import anyio  # noqa: PLC0415

        scope = self._running[handle] = anyio.CancelScope()
        handle._context.run(self._group.start_soon, self._run, handle, scope, fn, args, kwargs)

    async def _run(
        self, handle: TaskHandle[Any], scope: Any, fn: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any
    ) -> None:
        result: Any = None
        try:
            with scope:
                try:
                    value = await fn(*args, **kwargs)
                except Exception as error:
                    result = Err(error)
                else:
                    result = value if isinstance(value, Ok | Err) else Ok(value)
        finally:
            self._running.pop(handle, None)
            if not handle._done:
                handle._finish(result if result is not None else Err(Cancelled(handle._reason or "cancelled")))
            self._one_less()
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self._queue and len(self._running) < self.concurrency:
            handle, fn, args, kwargs = self._queue.popleft()
            if handle._done:
                self._one_less()
            else:
                self._start_coroutine(handle, fn, args, kwargs)

    # --- threads ---
    def _in_thread(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if len(self._threads) < self.concurrency:
            thread = threading.Thread(target=self._work, name=f"klaw-executor-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.add(handle)
        self._job_tx.send_sync((handle, fn, args, kwargs))

    def _work(self) -> None:
        done = self._done_tx.clone()
        for handle, fn, args, kwargs in self._job_rx:
            if handle._done:  # cancelled before it began
                done.send_sync((handle, None))
            else:
                done.send_sync((handle, handle._context.run(_outcome, fn, args, kwargs)))
        done.close_sync()

    async def _collect(self) -> None:
        """Finishes the handles of what threads and processes have done; until stop, whatever is cancelled around."""
        import anyio  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            while True:
                try:
                    batch = await self._done_rx.recv_batch(256)
                except ChannelClosedError:
                    return
                for handle, result in batch:
                    self._jobs.discard(handle)
                    self._futures.pop(handle, None)
                    if result is not None and not handle._done:
                        handle._finish(result)
                    self._one_less()

    # --- processes ---
    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415
            from multiprocessing import get_context  # noqa: PLC0415

            self._pool = ProcessPoolExecutor(
                self.concurrency, mp_context=get_context("forkserver"), initializer=_begin_process
            )
        return self._pool

    def _in_process(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        from concurrent.futures import BrokenExecutor  # noqa: PLC0415

        job = functools.partial(_outcome_within, handle._context.run(current_context), fn, args, kwargs)
        try:
            future = self._open_pool().submit(job)
        except BrokenExecutor:  # a worker died: its pool is gone, what comes gets a new one
            self._pool = None
            future = self._open_pool().submit(job)
        self._jobs.add(handle)
        self._futures[handle] = future
        done = self._done_tx

        def ended(future: Any) -> None:
            try:
                result = future.result()
            except BaseException as error:
                result = Err(error if isinstance(error, Exception) else Cancelled("the pool was closed"))
            done.send_sync((handle, result))

        future.add_done_callback(ended)
