# SPDX-License-Identifier: Apache-2.0
"""Workflows whose steps run once: results are kept in the checkpoint store, a run that was killed is resumed.

>>> import anyio, tempfile
>>> async def fetch(url: str) -> str:
...     print("fetching", url)
...     return "page of " + url
>>> async def main(folder: str) -> None:
...     async with Workflow("report", path=folder + "/own/") as wf:
...         print(await wf.step("fetch", fetch, "a"))
>>> with tempfile.TemporaryDirectory() as folder:
...     anyio.run(main, folder)
...     anyio.run(main, folder)
fetching a
page of a
page of a
"""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import msgspec

from klaw_core import _klaw
from klaw_core.runtime import tracing
from klaw_core.runtime._config import Backend
from klaw_core.runtime.actor import chosen_backend, ray_actors
from klaw_core.runtime.checkpoint import open_store
from klaw_core.runtime.errors import TaskCancelledError

__all__ = ["StepInfo", "Workflow", "WorkflowInfo"]

Path = str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class StepInfo:
    """A step as the store has it. Times in seconds since 1970, of the last attempt; None: not yet.

    >>> StepInfo("fetch", "done", attempts=1).state
    'done'
    """

    name: str
    #: "pending", "started" (it runs, or its process died in it), "failed", "done"
    state: str
    #: no longer in the declared list; its result is kept all the same
    dropped: bool = False
    #: in all runs
    attempts: int = 0
    started: float | None = None
    finished: float | None = None
    #: bytes of the kept result
    size: int = 0
    #: the code of the last attempt's error, e.g. "KLAW_CANCELLED"
    error: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """A workflow as the store has it, see :meth:`Workflow.show`. Times in seconds since 1970; None: not yet.

    >>> WorkflowInfo("report", state="running", leased=False).interrupted
    True
    """

    name: str
    version: str = ""
    #: "running", "done", "failed", "cancelled"
    state: str = "running"
    #: with a list of steps
    declared: bool = False
    #: and whoever runs it has not noticed yet
    cancel_requested: bool = False
    #: somebody runs it now
    leased: bool = False
    owner_host: str = ""
    owner_pid: int = 0
    created: float | None = None
    updated: float | None = None
    finished: float | None = None
    #: recorded, and of them done
    n_steps: int = 0
    steps_done: int = 0
    #: bytes of the result
    size: int = 0
    error: str | None = None
    #: why it failed, or was cancelled
    message: str = ""
    #: in order
    steps: tuple[StepInfo, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Begun, not ended, and nobody is at it: its process died, or left without an end."""
        return self.state == "running" and not self.leased


def _steps() -> Any:
    ray_actors()  # says what is missing
    from klaw_core.runtime._backends.ray import steps  # noqa: PLC0415

    return steps


async def _on_thread(function: Callable[[], Any]) -> Any:
    from anyio.to_thread import run_sync  # noqa: PLC0415

    return await run_sync(function)


class Workflow:
    """Use it as ``async with Workflow(name) as wf``. Leaving it without an exception finishes the workflow (with
    ``wf.result`` as its result) if all went well; an exception leaves it resumable.

    name: of the workflow in the store. steps: the names of all steps in order; then a resume with another list is
    refused (ValueError naming the difference) unless allow_changes. version: of the definition, likewise. lease:
    seconds after which a run that has died may be taken over (0: 30). path: of the store, as LocalCheckpointer.
    backend: where steps run, None: where the configured one says. On Ray each is a task; the store stays here.

    Only one process runs a workflow at a time: RuntimeError naming who does. A step whose result was kept never runs
    again; one that was interrupted runs again from its beginning.
    """

    def __init__(
        self,
        name: str,
        *,
        steps: Sequence[str] | None = None,
        version: str | None = None,
        path: str | os.PathLike[str] | None = None,
        lease: float = 0.0,
        wait: float = 0.0,
        allow_changes: bool = False,
        takeover: bool = False,
        uncancel: bool = False,
        backend: Backend | str | None = None,
    ) -> None:
        self.name = name
        #: kept as the workflow's result when it finishes
        self.result: Any = None
        self._path = path
        self._on_ray = chosen_backend(backend) is Backend.RAY
        self._options: dict[str, Any] = {
            "steps": list(steps) if steps is not None else None,
            "version": version,
            "lease": lease,
            "wait": wait,
            "allow_changes": allow_changes,
            "takeover": takeover,
            "uncancel": uncancel,
        }
        self._run: Any = None
        self._finished = False
        self._must_exist = False

    # --- looking after them, from any process that can open the store ---
    @classmethod
    async def list(cls, prefix: str = "", *, path: Path = None) -> builtins.list[WorkflowInfo]:
        """All whose name begins with `prefix`, by name, without their steps.

        >>> import anyio, tempfile
        >>> async def main(path: str) -> None:
        ...     async with Workflow("one", path=path):
        ...         pass
        ...     print([(w.name, w.state) for w in await Workflow.list(path=path)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anyio.run(main, folder + "/own/")
        [('one', 'done')]
        """

        def look() -> builtins.list[WorkflowInfo]:
            store = open_store(path)
            infos = []
            for entry in store.workflows(prefix or None):
                with contextlib.suppress(KeyError):  # it was deleted meanwhile
                    infos.append(WorkflowInfo(*store.inspect_workflow(entry[0])[:-1]))
            return infos

        infos: builtins.list[WorkflowInfo] = await _on_thread(look)
        return infos

    @classmethod
    async def show(cls, name: str, *, path: Path = None) -> WorkflowInfo:
        """One workflow with its steps. LookupError when there is none.

        >>> import anyio, tempfile
        >>> async def main(path: str) -> None:
        ...     async with Workflow("one", path=path) as wf:
        ...         await wf.step("add", sum, [1, 2])
        ...         info = await Workflow.show("one", path=path)
        ...     print(info.state, info.leased, [(step.name, step.state, step.attempts) for step in info.steps])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anyio.run(main, folder + "/own/")
        running True [('add', 'done', 1)]
        """
        found: Any = await _on_thread(lambda: open_store(path).inspect_workflow(name))
        return replace(WorkflowInfo(*found[:-1]), steps=tuple(StepInfo(*step) for step in found[-1]))

    @classmethod
    async def cancel(cls, name: str, reason: str | None = None, *, path: Path = None) -> None:
        """Cancels it: who runs it is told so at its next step (TaskCancelledError), else it is cancelled at once.
        Opening it is refused from then on, but by :meth:`resume`. LookupError; ValueError when it is done.
        """
        await _on_thread(lambda: open_store(path).cancel_workflow(name, reason))

    @classmethod
    async def evict(cls, name: str, *, path: Path = None) -> None:
        """Ends the lease of whoever runs it, who is refused from then on: for a runner known to be dead or stuck.
        LookupError."""
        await _on_thread(lambda: open_store(path).evict_workflow(name))

    @classmethod
    async def delete(cls, name: str, *, force: bool = False, path: Path = None) -> None:
        """Deletes it with all its results. LookupError; RuntimeError while somebody runs it, unless `force`."""
        await _on_thread(lambda: open_store(path).delete_workflow(name, force))

    @classmethod
    def resume(cls, name: str, **options: Any) -> Workflow:
        """As ``Workflow(name, **options)``, of one that exists (else entering it raises LookupError), also when it was
        cancelled.

        >>> import anyio, tempfile
        >>> async def main(path: str) -> None:
        ...     async with Workflow("one", path=path) as wf:
        ...         await wf.step("add", sum, [1, 2])
        ...         await Workflow.cancel("one", "enough", path=path)
        ...         await wf.step("more", sum, [3])
        >>> async def again(path: str) -> None:
        ...     print((await Workflow.show("one", path=path)).message)
        ...     async with Workflow.resume("one", path=path) as wf:
        ...         print(await wf.step("add", sum, []), await wf.step("more", sum, [3]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         anyio.run(main, folder + "/own/")
        ...     except TaskCancelledError:
        ...         anyio.run(again, folder + "/own/")
        enough
        3 3
        """
        workflow = cls(name, uncancel=True, **options)
        workflow._must_exist = True
        return workflow

    async def __aenter__(self) -> Workflow:
        from anyio.to_thread import run_sync  # noqa: PLC0415

        def begin() -> Any:
            if self._on_ray:
                _steps().ensure_ray()
            if self._must_exist:
                open_store(self._path).inspect_workflow(self.name)
            return _klaw.WorkflowRun(open_store(self._path), self.name, **self._options)

        self._run = await run_sync(begin)
        if self._run.done:
            self._finished = True
            kept = self._run.result()
            self.result = msgspec.msgpack.decode(kept) if kept else None
        return self

    @property
    def done(self) -> bool:
        """Whether it was finished, now or in an earlier run."""
        return self._finished

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        attempts: int = 1,
        backoff: float = 0.1,
        backend_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The kept result of this step, or that of ``function(*args, **kwargs)``, which runs now and is kept.

        A coroutine function runs on this event loop, another one on a thread; on Ray both on a worker, backend_kwargs
        are the options of that task. attempts, backoff: tries and the seconds
        between them, which grow. What the function raises is raised (after its last attempt); the next run tries the
        step again. In one run each step is asked for once: ValueError. Cancelling it waits until it has ended: a plain
        function runs to its end. Results as LocalCheckpointer's values.
        """
        from anyio import CancelScope, current_effective_deadline, from_thread, to_thread  # noqa: PLC0415
        from anyio.lowlevel import checkpoint  # noqa: PLC0415

        if tracing.tracer is not None:
            function = tracing.traced("step", name, function)
        remote = _steps().RayStep(name, function, args, kwargs, dict(backend_kwargs or {})) if self._on_ray else None
        if remote is None and backend_kwargs:
            raise ValueError("backend_kwargs are for steps on Ray")
        inside = contextvars.copy_context()
        scope = CancelScope()
        lock = threading.Lock()
        over = threading.Event()
        begun = left = False

        async def on_loop() -> Any:
            nonlocal scope
            scope = CancelScope()  # one for each attempt
            if left:
                scope.cancel()
            with scope:
                # A cancellation that came before this task did is not delivered to it by asyncio's side of anyio.
                if current_effective_deadline() == float("-inf"):
                    raise TaskCancelledError("the workflow's step was cancelled")
                return await (function(*args, **kwargs) if remote is None else remote())
            raise TaskCancelledError("the workflow's step was cancelled")

        is_async = remote is not None or inspect.iscoroutinefunction(function)
        call = on_loop if is_async else functools.partial(function, *args, **kwargs)

        def run() -> bytes:
            value = from_thread.run(call) if is_async else inside.copy().run(call)
            return msgspec.msgpack.encode(value)

        def work() -> bytes:
            nonlocal begun
            with lock:
                if left:
                    raise TaskCancelledError
                begun = True
            try:
                kept: bytes = self._run.step(name, run, attempts, backoff)
                return kept
            finally:
                over.set()

        try:
            kept = await to_thread.run_sync(work)
        except BaseException:
            # asyncio's own cancellation leaves while the thread is still in the step, and the run must not be closed
            # under it.
            scope.cancel()
            with lock:
                left = True
            if begun:
                with CancelScope(shield=True):
                    await to_thread.run_sync(over.wait)
            await checkpoint()  # a cancellation of the caller goes first
            raise
        return msgspec.msgpack.decode(kept)

    async def finish(self, result: Any = None) -> None:
        """Ends it for good with a result; further steps are refused."""
        from anyio.to_thread import run_sync  # noqa: PLC0415

        self.result = result
        await run_sync(self._run.finish, msgspec.msgpack.encode(result))
        self._finished = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import anyio  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            try:
                if isinstance(error, Exception) and not self._finished:
                    await anyio.to_thread.run_sync(self._run.fail, f"{type(error).__name__}: {error}")
                elif error is None and not self._finished:
                    await self.finish(self.result)
            finally:
                await anyio.to_thread.run_sync(self._run.close)
