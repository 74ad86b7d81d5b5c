# SPDX-License-Identifier: Apache-2.0
"""Supervisors: children that are restarted by rules. libklaw's machine decides, this carries it out.

>>> import asyncio
>>> class Worker:
...     async def handle(self, msg: str) -> str:
...         if msg == "crash":
...             raise ValueError(msg)
...         return msg.upper()
>>> async def main() -> None:
...     async with Supervisor("one_for_one", max_restarts=3, restart_window=5) as sup:
...         worker = await sup.start_child(Worker, name="worker")
...         print(await worker.ask("crash"))
...         print(await worker.ask("hello"))
>>> asyncio.run(main())
Err(ValueError('crash'))
Ok('HELLO')
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from klaw_core import _klaw
from klaw_core.runtime import _inspect, registry
from klaw_core.runtime._config import Backend
from klaw_core.runtime._supervision import RESTARTS, SHUTDOWNS, STRATEGIES, Driver, Hook, choice
from klaw_core.runtime.actor import ActorRef, Restart, _Supervised, chosen_backend, make_ref, ray_actors
from klaw_core.runtime.cancel import CancelScope
from klaw_core.runtime.errors import LimitExceededError

__all__ = ["ChildInfo", "Supervisor", "SupervisorGaveUpError"]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one", "dynamic"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]


class SupervisorGaveUpError(LimitExceededError):
    """Raised by a nested supervisor that has given up: more than max_restarts within restart_window."""


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child. state: "stopped", "starting", "running", "stopping", "killing" or "backoff"."""

    name: str
    state: str
    restarts: int
    child: Any


class _Coroutine:
    """A coroutine function as a child: stopping cancels it."""

    __slots__ = ("_args", "_function", "_scope", "name")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> None:
        self._function = function
        self._args = args
        self.name = name
        self._scope: CancelScope | None = None

    @property
    def ref(self) -> Any:
        return self

    async def run(self, started: Callable[[], None]) -> None:
        self._scope = CancelScope()
        async with self._scope:
            started()
            await self._function(*self._args)

    def stop(self, final: bool) -> None:
        if self._scope is not None:
            self._scope.cancel("stopped by its supervisor")

    def ended(self, error: BaseException | None) -> None:
        pass

    def __repr__(self) -> str:
        return f"<child {self.name!r}>"


class _Nested:
    """A supervisor as a child: each incarnation is a fresh one of the same definition."""

    __slots__ = ("_definition", "current", "name")

    def __init__(self, definition: Supervisor, name: str) -> None:
        self._definition = definition
        self.current: Supervisor | None = None
        self.name = name

    @property
    def ref(self) -> Any:
        return self.current or self._definition

    async def run(self, started: Callable[[], None]) -> None:
        self.current = self._definition if self.current is None else self._definition._again()
        sup = self.current
        try:
            await sup._begin()
        except BaseException:
            await sup._end()
            raise
        started()
        await sup.wait()
        if sup.gave_up:
            raise SupervisorGaveUpError(sup.max_restarts, sup.max_restarts + 1)

    def stop(self, final: bool) -> None:
        if self.current is not None and self.current._driver is not None:
            self.current._driver.shutdown()

    def ended(self, error: BaseException | None) -> None:
        pass


class Supervisor:
    """Starts children left to right and stops them right to left; restarts by `strategy`: "one_for_one", "one_for_all",
    "rest_for_one" or "dynamic". More than max_restarts restarts within restart_window seconds: it stops everything and
    gives up. backoff: seconds before a restart, which grow (None: at once). auto_shutdown: it ends with its significant
    children. Hooks: (ref, error, attempt).

    Use it as ``async with``, or give it to another supervisor's start_child.
    """

    def __init__(
        self,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        restart_window: float = 5.0,
        *,
        backoff: float | None = None,
        auto_shutdown: AutoShutdown = "never",
        name: str = "supervisor",
        on_restart: Hook | None = None,
        on_failure: Hook | None = None,
        on_max_restarts: Hook | None = None,
    ) -> None:
        if max_restarts < 0:
            raise ValueError(f"max_restarts has to be 0 or more, not {max_restarts}")
        if not restart_window > 0:
            raise ValueError(f"restart_window has to be more than 0 seconds, not {restart_window!r}")
        self.name = name
        self.max_restarts = max_restarts
        self._options = (
            choice("strategy", strategy, STRATEGIES),
            choice("auto_shutdown", auto_shutdown, SHUTDOWNS),
            max_restarts or -1,
            restart_window,
            -1.0 if backoff is None else backoff,
        )
        self._hooks = {"on_restart": on_restart, "on_failure": on_failure, "on_max_restarts": on_max_restarts}
        self._definitions: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._driver: Driver | None = None

    def _again(self) -> Supervisor:
        """A fresh one with the same options and the children that were defined before it began."""
        twin = Supervisor.__new__(Supervisor)
        twin.__dict__.update(self.__dict__)
        twin._driver = None
        return twin

    @property
    def gave_up(self) -> bool:
        """Whether it ended because of too many restarts."""
        return self._driver is not None and self._driver.gave_up

    @property
    def error(self) -> BaseException | None:
        """The failure that made it give up."""
        return self._driver.error if self._driver is not None else None

    def add_child(self, child: Any, *args: Any, **options: Any) -> None:
        """Defines a child that is started when the supervisor is; options as :meth:`start_child`."""
        if self._driver is not None:
            raise RuntimeError("this supervisor has begun: use start_child")
        self._definitions.append((child, args, options))

    async def _begin(self) -> None:
        if self._driver is not None:
            raise RuntimeError("this supervisor has begun already")
        self._driver = Driver(_klaw.Supervision(*self._options), name=self.name, **self._hooks)
        self._driver.shown = _inspect.supervisor(self, self._options[0])
        self._driver.begin()
        for child, args, options in self._definitions:
            await self.start_child(child, *args, **options)

    async def __aenter__(self) -> Supervisor:
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            await self._end()

    async def _end(self) -> None:
        """Stops, also when the caller is cancelled: no child outlives the scope."""
        import anyio  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            await self.stop()

    async def start_child(
        self,
        child: Any,
        *args: Any,
        name: str | None = None,
        restart: Restart = "on_failure",
        significant: bool = False,
        shutdown: float | None = 5.0,
        capacity: int = 1000,
        register: bool = False,
        checkpoint: Any = False,
        checkpoint_interval: float = 60.0,
        backend: Backend | str | None = None,
        ray_options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Starts a child at the end of the order and waits until it runs. `child` is an actor (a class or function that
        makes one, with its arguments, or an instance): returns its ActorRef; a coroutine function; or a Supervisor.

        restart: "never", "on_failure" or "always". shutdown: seconds it may take to stop before it is cancelled (0: at
        once, None: for ever). register: its name can be looked up by get_actor. backend, ray_options: of an actor, as
        spawn_actor. Errors: what the first start raised;
        RuntimeError when the supervisor is stopping.
        """
        if self._driver is None or self._driver.done:
            raise RuntimeError("this supervisor does not run")
        made: Any
        if isinstance(child, Supervisor):
            made = _Nested(child, name or child.name)
        elif inspect.iscoroutinefunction(child):
            made = _Coroutine(child, args, name or child.__qualname__)
        else:
            where = {"capacity": capacity, "checkpoint": checkpoint, "checkpoint_interval": checkpoint_interval}
            if chosen_backend(backend) is Backend.RAY:
                if (ray_options or {}).get("lifetime") == "detached":
                    raise ValueError("a supervisor's child is not detached: it ends with its supervisor")
                policy = {"restart": restart, "max_restarts": self.max_restarts}
                made = _Supervised(
                    await ray_actors().make_ray_ref(
                        child, args, ray_options or {}, policy=policy, hooks={}, name=name, visible=register, **where
                    )
                )
            else:
                made = _Supervised(make_ref(child, args, name=name, **where))
            if register:
                try:
                    registry.register(made.name, made.ref)
                except ValueError:
                    made.ref.discard()
                    raise
        limit = float("inf") if shutdown is None or isinstance(child, Supervisor) else (shutdown or -1.0)
        try:
            number = self._driver.add(made, choice("restart", restart, RESTARTS), significant, limit)
        except (ValueError, RuntimeError):
            made.ended(None)
            raise
        self._driver.poke()
        error = await self._driver.settled(number)
        if error is not None:
            raise error
        return made.ref

    def _number(self, child: Any) -> int:
        assert self._driver is not None
        for number, kept, _state, _restarts in self._driver.entries():
            if kept is child or kept.ref is child or kept.name == child:
                return number
        raise KeyError(child)

    async def stop_child(self, child: Any) -> None:
        """Stops a child (a ref or a name) and keeps its place. KeyError when it is not one."""
        assert self._driver is not None
        number = self._number(child)
        self._driver.stop_child(number)
        if self._driver.machine.state(number) != 0:
            await self._driver.settled_stop(number)

    async def restart_child(self, child: Any) -> None:
        """Starts a stopped child again and waits until it runs. Errors: KeyError; RuntimeError: it runs; its own."""
        assert self._driver is not None
        number = self._number(child)
        self._driver.machine.restart_child(number)
        self._driver.poke()
        error = await self._driver.settled(number)
        if error is not None:
            raise error

    def children(self) -> list[ChildInfo]:
        """All children in the order of their start."""
        if self._driver is None:
            return []
        return [ChildInfo(c.name, state, restarts, c.ref) for _n, c, state, restarts in self._driver.entries()]

    async def wait(self) -> None:
        """Waits until it has ended: stopped, given up, or shut down with its significant children."""
        if self._driver is not None:
            await self._driver.wait()

    async def stop(self) -> None:
        """Stops the children, right to left, and waits for that. Idempotent."""
        if self._driver is not None:
            self._driver.shutdown()
            await self._driver.wait()

    def __repr__(self) -> str:
        state = "new" if self._driver is None else "ended" if self._driver.done else "running"
        return f"<Supervisor {self.name!r} {state}>"


def actor_refs(sup: Supervisor) -> list[ActorRef[Any, Any]]:
    """The actors among a supervisor's children."""
    return [info.child for info in sup.children() if isinstance(info.child, ActorRef)]
