# SPDX-License-Identifier: Apache-2.0
"""The Ray actor that a klaw actor lives in.

The actor itself runs on a thread and a loop of its own, by the code of the local backend: mailbox, context,
checkpoints, replies. The methods that Ray calls run on Ray's loops and reach it through klaw channels, which any loop
may use. So a handler that blocks its loop does not keep anybody from asking how things stand, and trio actors work.

1. Owned (the rule): a driver in the process that spawned it says when an incarnation begins, and libklaw's machine
   decides there about restarts, of an actor that raised and of a process that died alike. The process that Ray starts
   anew waits for that, its mailbox empty.
2. Alone (lifetime="detached"): the driver is in here. A process that Ray starts anew begins by itself.
3. The control group has a loop of its own: any number of parked asks does not block it. Nor does any number of those
   who wait for the end: they park in a group of theirs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from klaw_core import _klaw
from klaw_core.result import Err, Ok
from klaw_core.runtime._backends.ray.untyped import cloudpickle, ray
from klaw_core.runtime._backends.ray.wire import pack, short
from klaw_core.runtime._spawn import spawn
from klaw_core.runtime.actor import make_ref, start
from klaw_core.runtime.context import Context, context
from klaw_core.runtime.errors import ActorStopped, ActorStoppedError, BackendError, ChannelClosedError

__all__ = ["KIND", "KlawActor", "remote_class"]

#: what describe() says it is
KIND = "klaw actor"


F = TypeVar("F", bound=Callable[..., Any])


def _control(**options: Any) -> Callable[[F], F]:
    """A method of the control group."""
    method: Callable[[F], F] = ray.method(concurrency_group="control", **options)
    return method


class _Once:
    """A value that comes once; any thread sets it, any loop waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Any = None
        self._waiting: list[Any] | None = []

    def set(self, value: Any) -> None:
        with self._lock:
            if self._waiting is None:
                return
            self._value = value
            waiting, self._waiting = self._waiting, None
        for tx in waiting:
            tx.try_send_sync(None)

    async def get(self) -> Any:
        tx, rx = _klaw.oneshot()
        with self._lock:
            if self._waiting is not None:
                self._waiting.append(tx)
        if self._waiting is not None:
            await rx.recv()
        return self._value


class _Run(NamedTuple):
    """An incarnation: whether it has begun, how it ended, and what cancels it."""

    begun: _Once
    ended: _Once
    abort: Any


class KlawActor:
    """spec: name, capacity, actor (bytes of (actor, args)), checkpoint, interval, library, and alone: None or
    (policy, bytes of hooks)."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._boot = secrets.token_hex(8)
        self._runs: dict[int, _Run] = {}
        self._final = False
        self._inner: Any = None
        self._broken: Any = None  # packed: why there is no actor
        self._began_alone = _Once()
        self._waiting = 0  # calls of until_over
        self._orders, self._ordered = _klaw.channel(0, True, "actor orders")
        try:
            actor, args = cloudpickle.loads(spec["actor"])
            self._inner = make_ref(
                actor,
                args,
                name=spec["name"],
                capacity=spec["capacity"],
                checkpoint=cloudpickle.loads(spec["checkpoint"]),
                checkpoint_interval=spec["interval"],
            )
        except Exception as error:
            text = f"the actor {spec['name']!r} can't be made in its process: {short(error)}"
            self._broken = pack(Err(BackendError(text, "ray").to_exception()))
        self._ray = ray.get_runtime_context().current_actor
        threading.Thread(target=self._live, name="klaw-actor", daemon=True).start()

    # --- the actor's own thread ---
    def _live(self) -> None:
        import anyio  # noqa: PLC0415

        anyio.run(self._owned if self._spec["alone"] is None else self._alone, backend=self._spec["library"])

    async def _owned(self) -> None:
        while True:
            try:
                run, abort = await self._ordered.recv()
            except ChannelClosedError:
                return
            await self._incarnation(run, abort)

    async def _incarnation(self, run: _Run, abort: Any) -> None:
        import anyio  # noqa: PLC0415

        outcome: Any = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                try:
                    await abort.recv()
                except ChannelClosedError:
                    return
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                await self._inner.run(lambda: run.begun.set(pack(Ok(None))))
                outcome = pack(Ok(None))
            except Exception as error:
                outcome = pack(Err(error))
            group.cancel_scope.cancel()  # the watcher
        if outcome is None:
            outcome = pack(Err(BackendError("killed", "ray").to_exception()))
        run.begun.set(outcome)  # it may have ended before it had begun
        run.ended.set((outcome, self._final))

    async def _alone(self) -> None:
        if self._broken is None:
            policy, hooks = self._spec["alone"]
            try:
                await start(self._inner, self._spec["name"], policy, cloudpickle.loads(hooks))
            except Exception as error:
                self._broken = pack(Err(error))
        self._began_alone.set(self._broken or pack(Ok(None)))
        if self._broken is None:
            spawn(self._killer)
            await self._inner.wait()
            ray.kill(self._ray, no_restart=True)

    async def _killer(self) -> None:
        """Kills on the loop of what is killed."""
        with contextlib.suppress(ChannelClosedError):
            await self._ordered.recv()
            await self._inner.kill()

    # --- control ---
    @_control(max_task_retries=-1)
    async def ready(self) -> str:
        """Answers when the process is up, also after restarts: which process of the actor's it is."""
        return self._boot

    @_control()
    async def describe(self) -> dict[str, Any]:
        """What this is, for who has found it by its name."""
        return {
            "kind": KIND,
            "name": self._spec["name"],
            "boot": self._boot,
            "pid": os.getpid(),
            "waiting": self._waiting,
        }

    @_control(max_task_retries=0)
    async def begin(self, number: int) -> Any:
        """Starts incarnation `number`, after the one before has ended; packed: whether it runs."""
        if self._spec["alone"] is not None:
            return await self._began_alone.get()
        if self._broken is not None:
            return self._broken
        tx, abort = _klaw.oneshot()
        run = _Run(_Once(), _Once(), tx)
        self._runs = {key: kept for key, kept in self._runs.items() if key >= number - 2}
        self._runs[number] = run
        self._orders.send_sync((run, abort))
        return await run.begun.get()

    @_control(max_task_retries=0)
    async def join(self, number: int) -> Any:
        """Waits for the end of an incarnation: its outcome, packed, and whether it is not to begin again."""
        run = self._runs.get(number)
        if run is None:  # it was of a process before this one
            error = BackendError(f"the process of actor {self._spec['name']!r} died", "ray")
            return pack(Err(error.to_exception())), False
        return await run.ended.get()

    @_control()
    async def abort(self, number: int) -> None:
        """Cancels an incarnation and waits until it has ended."""
        run = self._runs.get(number)
        if run is not None:
            run.abort.try_send_sync(None)
            await run.ended.get()

    @_control()
    async def close(self, final: bool) -> None:
        """The incarnation ends when it has handled what is in its mailbox."""
        if self._inner is not None:
            self._inner.stop_soon(final)

    @_control()
    async def finish(self, kill: bool = False) -> None:
        """The same for good, or at once; asked for by somebody who does not own it."""
        self._final = True
        if self._inner is None:
            return
        self._inner._stopping = True
        if kill and self._spec["alone"] is None:
            await self.abort(max(self._runs, default=0))
        elif kill:
            self._orders.send_sync(None)
            await self._inner.wait()
        else:
            self._inner._tx.close_sync()
            if self._inner._driver is not None:
                self._inner._driver.shutdown()

    @ray.method(concurrency_group="over", max_task_retries=0)  # type: ignore[untyped-decorator]
    async def until_over(self) -> None:
        """Never answers: it fails when the actor is over."""
        self._waiting += 1
        try:
            await _Once().get()
        finally:
            self._waiting -= 1

    # --- messages ---
    async def post(self, head: Context, boxed: list[Any]) -> Any:
        """Puts a message into the mailbox, waiting for room; packed."""
        if self._inner is None:
            return self._broken
        try:
            with context(head):
                await self._inner.send(boxed[0])
        except ActorStoppedError as error:
            return pack(Err(error.to_struct()))
        return pack(Ok(None))

    async def ask(self, head: Context, boxed: list[Any], timeout: float | None) -> Any:
        """A message and its answer; packed."""
        if self._inner is None:
            return pack(Err(ActorStopped(self._spec["name"], "it can't be made")))
        with context(head):
            return pack(await self._inner.ask(boxed[0], timeout))


_remote: Any = None


def remote_class() -> Any:
    """KlawActor as Ray's class."""
    global _remote  # noqa: PLW0603
    if _remote is None:
        _remote = ray.remote(concurrency_groups={"control": 1000, "over": 1000})(KlawActor)
    return _remote
