# SPDX-License-Identifier: Apache-2.0
"""One object that owns an executor, channels, tasks and actors, and ends them together.

>>> import asyncio
>>> async def main() -> None:
...     async with Runtime() as rt:
...         tx, rx = await rt.channel(8)
...         rt.spawn(tx.send, "x")
...         print(await rx.recv())
...         await rt.wait()
>>> asyncio.run(main())
x
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from klaw_core.runtime._config import Backend
from klaw_core.runtime.actor import ActorRef, spawn_actor
from klaw_core.runtime.channels import broadcast, channel, oneshot, watch
from klaw_core.runtime.executor import Executor, TaskHandle

__all__ = ["Runtime", "ShutdownReport"]


@dataclass(slots=True)
class ShutdownReport:
    """What a shutdown had to cancel: names of tasks and of actors that were late."""

    cancelled_tasks: list[str] = field(default_factory=list)
    killed_actors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything was cut."""
        return bool(self.cancelled_tasks or self.killed_actors)


class Runtime:
    """Use it as ``async with``: leaving it shuts down (after an exception: at once). Options as :class:`Executor`."""

    def __init__(self, backend: Backend | str | None = None, concurrency: int | None = None, **kwargs: Any) -> None:
        self._executor = Executor(backend, concurrency, **kwargs)
        self._backend = backend if isinstance(backend, str) else None  # of actors; Backend is a str as well
        self._endpoints: weakref.WeakSet[Any] = weakref.WeakSet()
        self._tasks: set[TaskHandle[Any]] = set()
        self._prune_at = 64
        self._actors: list[ActorRef[Any, Any]] = []
        self._open = False
        self._executor._submitted = self._keep
        self.report = ShutdownReport()

    async def __aenter__(self) -> Runtime:
        await self._executor.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown(wait=kind is None)

    def _keep(self, task: TaskHandle[Any]) -> None:
        """Every task of the executor is waited for, whoever submitted it."""
        if len(self._tasks) >= self._prune_at:
            self._tasks = {task for task in self._tasks if task.is_running()}
            self._prune_at = 2 * len(self._tasks) + 64
        self._tasks.add(task)

    def _own(self, pair: tuple[Any, Any]) -> Any:
        self._endpoints.update(pair)
        return pair

    def executor(self) -> Executor:
        """The executor; it ends with the runtime."""
        return self._executor

    async def channel(self, *args: Any, **kwargs: Any) -> Any:
        """As :func:`klaw_core.runtime.channel`; closed at shutdown."""
        return self._own(await channel(*args, **kwargs))

    def oneshot(self) -> Any:
        """As :func:`klaw_core.runtime.oneshot`; closed at shutdown."""
        return self._own(oneshot())

    def broadcast(self, capacity: int = 1024) -> Any:
        """As :func:`klaw_core.runtime.broadcast`; closed at shutdown."""
        return self._own(broadcast(capacity))

    def watch(self, initial: Any) -> Any:
        """As :func:`klaw_core.runtime.watch`; closed at shutdown."""
        return self._own(watch(initial))

    def spawn(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Starts a task, as Executor.submit. Methods of endpoints count as coroutine functions."""
        if not self._open:
            raise RuntimeError("this runtime is not open")

        async def run() -> Any:
            value = fn(*args, **kwargs)
            return await value if hasattr(value, "__await__") else value

        owner = getattr(fn, "__self__", None)
        is_endpoint = type(owner).__module__ == "klaw_core._klaw"
        return self._executor._submit_here(run) if is_endpoint else self._executor.submit(fn, *args, **kwargs)

    async def spawn_actor(self, actor: Any, *args: Any, **kwargs: Any) -> ActorRef[Any, Any]:
        """Starts an actor, as :func:`klaw_core.runtime.spawn_actor`; it is stopped at shutdown."""
        if not self._open:
            raise RuntimeError("this runtime is not open")
        kwargs.setdefault("backend", self._backend)
        ref = await spawn_actor(actor, *args, **kwargs)
        self._actors = [other for other in self._actors if other.is_alive]
        self._actors.append(ref)
        return ref

    async def wait(self) -> None:
        """Waits until every task that was spawned has ended, those too that come meanwhile."""
        while running := [task for task in self._tasks if task.is_running()]:
            for task in running:
                await task

    async def shutdown(self, wait: bool = True, timeout: float | None = 30.0) -> ShutdownReport:
        """Ends everything. wait=True: senders are closed so that receivers drain, tasks and actors may finish within
        `timeout` seconds (None: for ever), what is late is cancelled. wait=False: all is cancelled now. Returns (and
        keeps as `report`) what it had to cancel. Idempotent."""
        import anyio  # noqa: PLC0415

        if not self._open:
            return self.report
        self._open = False
        try:
            if wait:
                for endpoint in list(self._endpoints):
                    if hasattr(endpoint, "send"):
                        endpoint.close_sync()
                with anyio.move_on_after(timeout if timeout is not None else float("inf")):
                    for actor in self._actors:
                        await actor.stop()
                    await self.wait()
        finally:
            # Also when the caller is cancelled: nothing outlives the runtime.
            with anyio.CancelScope(shield=True):
                await self._cut()
            await self._executor._close(wait=False)
        return self.report

    async def _cut(self) -> None:
        for task in self._tasks:
            if task.is_running():
                self.report.cancelled_tasks.append(task.name)
                task.cancel("the runtime is shut down")
        for actor in self._actors:
            if actor.is_alive:
                self.report.killed_actors.append(actor.name)
                await actor.kill()
        for endpoint in list(self._endpoints):
            endpoint.close_sync()
