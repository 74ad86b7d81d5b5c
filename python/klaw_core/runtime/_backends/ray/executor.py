# SPDX-License-Identifier: Apache-2.0
"""Tasks of an Executor as Ray tasks.

Results come on a thread of Ray's, go through one klaw channel and are handed out on the loop in batches. What Ray has
not been given yet waits here, so that a million tasks do not fill the cluster's tables, and a cancellation of it costs
nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from klaw_core import _klaw
from klaw_core.result import Err
from klaw_core.runtime._backends._ray_connect import DEFAULT_RUNTIME_ENV_EXCLUDES, ensure_ray
from klaw_core.runtime._backends.local import LocalBackend
from klaw_core.runtime._backends.ray.tasks import EXPIRED, Head, run_task, task_of
from klaw_core.runtime._backends.ray.untyped import exceptions, ray
from klaw_core.runtime._backends.ray.wire import cancel, explain, short, unpack
from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime.context import current_context
from klaw_core.runtime.errors import BackendError, Cancelled, ChannelClosedError, ChannelEmptyError

if TYPE_CHECKING:
    from klaw_core.runtime.executor import TaskHandle

__all__ = ["TASK_OPTIONS", "RayBackend", "library_of_loop", "refusal", "with_excludes"]

#: of Ray's tasks; passed through
TASK_OPTIONS = (
    "accelerator_type",
    "label_selector",
    "max_calls",
    "max_retries",
    "memory",
    "name",
    "num_cpus",
    "num_gpus",
    "resources",
    "retry_exceptions",
    "runtime_env",
    "scheduling_strategy",
)
#: ours: seconds from the submission to the deadline; whether a cancellation may kill the worker
OWN_OPTIONS = ("force", "timeout")

IN_FLIGHT = 1000  # tasks that Ray has at once when nobody says
GRACE = 5.0  # seconds a cancelled task has before its worker is killed


def library_of_loop() -> str:
    """The async library of the caller's loop, as anyio names it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


def with_excludes(runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    """A runtime_env whose working_dir leaves out what would shadow the workers' own Python and Ray."""
    if not runtime_env or "working_dir" not in runtime_env:
        return runtime_env
    return {**runtime_env, "excludes": [*DEFAULT_RUNTIME_ENV_EXCLUDES, *runtime_env.get("excludes", ())]}


def refusal(name: str, error: Exception) -> BackendError:
    """Why Ray did not take a task."""
    if isinstance(error, TypeError) and "serialize" in str(error):
        said = [line for line in str(error).splitlines() if "FAIL serialization" in line or "cannot pickle" in line]
        why = (said[-1] if said else short(error)).replace("!!! FAIL serialization:", "").strip()
        return BackendError(f"the arguments of {name} can't be sent to a worker: {why}", "ray")
    return BackendError(f"{name} could not be given to Ray: {short(error)}", "ray")


class _Job:
    __slots__ = ("args", "due", "fn", "force", "handle", "kwargs", "options", "ref")

    def __init__(
        self, handle: TaskHandle[Any], fn: Any, args: Any, kwargs: Any, options: Any, due: float, force: bool
    ) -> None:
        self.handle = handle
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.due = due
        self.force = force
        self.ref: Any = None


class RayBackend:
    """concurrency: tasks that run at once (None: as many as the cluster has room for). address, namespace,
    connect_timeout: as ensure_ray. runtime_env: of the tasks (with working_dir: of the job, when this joins Ray). All
    other options are those of Ray's tasks, for each task that has none of its own, and of klaw: timeout (seconds from
    the submission, then it is not begun, and a coroutine is cancelled), force (a cancellation kills the worker).

    Ray runs a task again when its worker dies, max_retries times (3 by default).
    """

    name = "ray"
    OPTIONS = (*TASK_OPTIONS, *OWN_OPTIONS)

    def __init__(
        self,
        concurrency: int | None = None,
        *,
        address: str | None = None,
        namespace: str | None = None,
        connect_timeout: float | None = None,
        runtime_env: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if concurrency is not None and (isinstance(concurrency, bool) or concurrency < 1):
            raise ValueError(f"concurrency has to be 1 or more, not {concurrency!r}")
        config = get_config()
        if concurrency is None and config.sources.get("concurrency") in ("explicit", "environment"):
            concurrency = config.concurrency
        configured = config.backend_kwargs if config.backend is Backend.RAY else {}
        self._options = {key: value for key, value in configured.items() if key in self.OPTIONS}
        self._options.update(options)
        self._runtime_env = with_excludes(runtime_env or self._options.pop("runtime_env", None))
        self._check(self._options)
        self._asked = concurrency
        self.concurrency = concurrency or config.concurrency
        self._connection = (address, namespace, connect_timeout)
        self._queue: deque[_Job] = deque()
        self._jobs: dict[TaskHandle[Any], _Job] = {}  # that Ray has
        self._here: LocalBackend | None = None
        self._group: Any = None
        self._pending = 0
        self._settled: Any = None

    def _check(self, options: dict[str, Any]) -> None:
        for key in options:
            if key not in self.OPTIONS:
                raise ValueError(f"the Ray backend has no option {key!r}; it has: {', '.join(self.OPTIONS)}")
        timeout = options.get("timeout")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout has to be 0 or more seconds, not {timeout!r}")

    def _ensure_ray_init(self) -> None:
        """Joins the cluster, or starts one, unless this process is in one already. Errors: as ensure_ray."""
        address, namespace, timeout = self._connection
        extra: dict[str, Any] = {}
        if self._runtime_env and "working_dir" in self._runtime_env and not ray.is_initialized():
            extra["runtime_env"], self._runtime_env = self._runtime_env, None
        ensure_ray(address, namespace, timeout, **extra)

    # --- life ---
    async def start(self) -> None:
        import anyio  # noqa: PLC0415

        def connect() -> float:
            self._ensure_ray_init()
            return float(ray.cluster_resources().get("CPU", 1.0))

        cpus = await anyio.to_thread.run_sync(connect)
        if self._asked is None:
            self.concurrency = max(1, int(cpus))
        self._limit = self._asked or IN_FLIGHT
        if self._runtime_env:
            self._options.setdefault("runtime_env", self._runtime_env)
        self._remote = ray.remote(run_task)
        self._named: dict[str, Any] = {}
        self._library = library_of_loop()
        self._done_tx, self._done_rx = _klaw.channel(0, True, "ray results")
        self._here = LocalBackend(concurrency=IN_FLIGHT)
        await self._here.start()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._collect)

    async def stop(self, wait: bool) -> None:
        import anyio  # noqa: PLC0415

        assert self._here is not None
        try:
            if wait:
                await self._drain(math.inf)
        finally:
            with anyio.CancelScope(shield=True):
                for handle in [*self._jobs, *(job.handle for job in self._queue)]:
                    handle.cancel("the executor is closed")
                if not await self._drain(GRACE):
                    for job in list(self._jobs.values()):
                        cancel(job.ref, force=True)
                    await self._drain(2 * GRACE)
                self._done_tx.close_sync()
            try:
                await self._group.__aexit__(None, None, None)
            finally:
                await self._here.stop(wait)

    async def _drain(self, limit: float) -> bool:
        """Waits until nothing is under way: True; False when the time is over."""
        until = time.monotonic() + limit
        while self._pending:
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not ray.is_initialized():
                self._lost()
            self._settled, settled = _klaw.oneshot()
            try:
                await settled.recv(min(left, 1.0))
            except ChannelEmptyError:
                continue
        return True

    def _lost(self) -> None:
        """Somebody has shut Ray down: nothing will come any more."""
        for job in [*self._jobs.values(), *self._queue]:
            self._over(job, Err(BackendError("Ray was shut down in this process while tasks ran", "ray")))
        self._jobs.clear()
        self._queue.clear()

    def _over(self, job: _Job, result: Any) -> None:
        if not job.handle._done:
            job.handle._finish(result)
        self._pending -= 1
        tx, self._settled = self._settled, None
        if tx is not None:
            tx.try_send_sync(None)

    # --- tasks ---
    def here(self) -> LocalBackend:
        """Where what can't travel runs: awaitables and endpoints of this process."""
        assert self._here is not None
        return self._here

    def submit(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any, options: Any) -> None:
        import anyio  # noqa: PLC0415

        self._check(options)
        merged = {**self._options, **options}
        if options.get("runtime_env"):
            merged["runtime_env"] = with_excludes(options["runtime_env"])
        left = anyio.current_effective_deadline() - anyio.current_time()
        timeout = merged.pop("timeout", None)
        force = bool(merged.pop("force", False))
        due = time.time() + min(left, math.inf if timeout is None else timeout)
        job = _Job(handle, fn, args, kwargs, merged, due, force)
        self._pending += 1
        self._queue.append(job)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._queue and len(self._jobs) < self._limit:
            job = self._queue.popleft()
            if job.handle._done:
                self._over(job, None)
            elif job.due <= time.time():
                self._over(job, Err(Cancelled(EXPIRED)))
            else:
                self._begin(job)

    def _begin(self, job: _Job) -> None:
        handle = job.handle
        head = Head(
            handle._context.run(current_context), job.due, self._library, bool(job.options.get("retry_exceptions"))
        )
        try:
            job.ref = self._task(job).remote(task_of(job.fn, head), *job.args, **job.kwargs)
            future = job.ref.future()
        except Exception as error:
            self._over(job, Err(refusal(handle.name, error)))
            return
        self._jobs[handle] = job
        done = self._done_tx
        future.add_done_callback(lambda ended: done.send_sync((job, ended)))

    def _task(self, job: _Job) -> Any:
        """Ray's function with this task's options; those without any are kept."""
        name = job.options.get("name", job.handle.name)
        if job.options:
            return self._remote.options(**{**job.options, "name": name})
        task = self._named.get(name)
        if task is None:
            if len(self._named) >= 256:
                self._named.clear()
            task = self._named[name] = self._remote.options(name=name)
        return task

    def cancel(self, handle: TaskHandle[Any], reason: str) -> None:
        if not handle._done:
            handle._finish(Err(Cancelled(reason)))
        job = self._jobs.get(handle)
        if job is not None:
            cancel(job.ref, job.force)

    async def _collect(self) -> None:
        """Finishes handles, until stop, whatever is cancelled around."""
        import anyio  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            while True:
                try:
                    batch = await self._done_rx.recv_batch(256)
                except ChannelClosedError:
                    return
                for job, future in batch:
                    if self._jobs.pop(job.handle, None) is not None:
                        self._over(job, None if job.handle._done else _result(job, future))
                self._start_waiting()


def _result(job: _Job, future: Any) -> Any:
    try:
        return unpack(future.result())
    except Exception as error:
        if job.options.get("retry_exceptions") and isinstance(error, exceptions.RayTaskError):
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception) and not isinstance(cause, exceptions.RayError):
                cause.add_note(str(error))
                return Err(cause)
        return explain(error, job.handle.name, job.handle._reason)
