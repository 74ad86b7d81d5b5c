# SPDX-License-Identifier: Apache-2.0
"""Carries out what libklaw's supervision machine decides: one driver task a machine.

Children are objects with ``run`` (a coroutine that ends when the child does, raising if it failed, calling `started`
once it runs) and ``stop`` (asks it to end). Everything that happens arrives in one channel, so that the machine sees
one event after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from klaw_core import _klaw
from klaw_core.runtime._logging import get_logger
from klaw_core.runtime._spawn import BackgroundTask, spawn
from klaw_core.runtime.errors import ChannelClosedError, ChannelEmptyError

__all__ = ["RESTARTS", "SHUTDOWNS", "STRATEGIES", "Child", "Driver", "choice"]

STRATEGIES = {"one_for_one": 0, "one_for_all": 1, "rest_for_one": 2, "dynamic": 3}
RESTARTS = {"on_failure": 0, "always": 1, "never": 2}
SHUTDOWNS = {"never": 0, "any_significant": 1, "all_significant": 2}
STATES = ("stopped", "starting", "running", "stopping", "killing", "backoff")

START, STOP, KILL, RESTARTED, FAILED, GAVE_UP, REMOVED, DONE, BEGUN = range(1, 10)

Hook = Callable[[Any, BaseException | None, int], Any]


def choice(what: str, value: str, among: dict[str, int]) -> int:
    """The number of a name; ValueError with the list of right ones."""
    if value not in among:
        raise ValueError(f"{what} has to be one of {', '.join(map(repr, among))}, not {value!r}")
    return among[value]


class Child(Protocol):
    """What a driver starts and stops."""

    name: str

    async def run(self, started: Callable[[], None]) -> None:
        """Runs it to its end; raises when it failed."""
        ...

    def stop(self, final: bool) -> None:
        """Asks it to end; final=False: it is about to be started again with its group."""
        ...

    @property
    def ref(self) -> Any:
        """What hooks get."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """It will not be started again."""
        ...


class _Entry:
    __slots__ = ("child", "error", "final", "incarnation", "settled", "task")

    def __init__(self, child: Child) -> None:
        self.child = child
        self.incarnation = 0
        self.task: BackgroundTask | None = None
        self.error: BaseException | None = None
        self.final = False  # a stop that somebody asked for
        self.settled: list[Any] = []  # oneshots of who waits for a start or a stop


class Driver:
    """hooks: (ref, error, attempt), plain or coroutine functions; their errors are logged and go no further."""

    def __init__(
        self,
        machine: Any,
        *,
        on_restart: Hook | None = None,
        on_failure: Hook | None = None,
        on_max_restarts: Hook | None = None,
        name: str = "supervisor",
    ) -> None:
        self.name = name
        self.machine = machine
        self._hooks = {RESTARTED: on_restart, FAILED: on_failure, GAVE_UP: on_max_restarts}
        self._entries: dict[int, _Entry] = {}
        self._events, self._inbox = _klaw.channel(0, True, f"{name} events")
        self._ended: list[Any] = []
        self.error: BaseException | None = None
        self.done = False
        self.gave_up = False
        self._final = False
        self._task: BackgroundTask | None = None
        self.shown: Any = None  # for inspection: told after each event

    # --- requests, from any task of the loop ---
    def add(self, child: Child, restart: int, significant: bool, shutdown: float) -> int:
        number: int = self.machine.add(restart, significant, shutdown)
        self._entries[number] = _Entry(child)
        return number

    def begin(self) -> None:
        """Starts the driver task and the children there are."""
        self.machine.begin()
        self._task = spawn(self._drive)

    def poke(self) -> None:
        """Something was asked of the machine."""
        self._events.try_send_sync(None)

    def shutdown(self) -> None:
        """Stops everything, right to left; also before the beginning."""
        if not self.done:
            self._final = True
            self.machine.shutdown()
            self.poke()

    def stop_child(self, number: int) -> None:
        """Tells a child to stop and stay so."""
        self._entries[number].final = True
        self.machine.stop_child(number)
        self.poke()

    def kill_all(self) -> None:
        """Stops everything without waiting for anybody."""
        if not self.done:
            for entry in self._entries.values():
                if entry.task is not None:
                    entry.task.cancel()
            self.shutdown()

    async def settled(self, number: int) -> BaseException | None:
        """Waits until the child runs, or has ended, or could not start: then its error."""
        entry = self._entries.get(number)
        if entry is None or self.done:
            return self.error
        if STATES[self.machine.state(number)] == "running":
            return None
        tx, rx = _klaw.oneshot()
        entry.settled.append(tx)
        error: BaseException | None = await rx.recv()
        return error

    async def settled_stop(self, number: int) -> None:
        """Waits until a child that was told to stop is gone."""
        while (entry := self._entries.get(number)) is not None and self.machine.state(number) != 0 and not self.done:
            tx, rx = _klaw.oneshot()
            entry.settled.append(tx)
            await rx.recv()

    async def wait(self) -> None:
        """Waits until everything has stopped."""
        if not self.done:
            tx, rx = _klaw.oneshot()
            self._ended.append(tx)
            await rx.recv()

    def entries(self) -> list[tuple[int, Child, str, int]]:
        """(number, child, state, restarts) in the order of start."""
        return [
            (number, entry.child, STATES[self.machine.state(number)], self.machine.restarts(number))
            for number, entry in self._entries.items()
        ]

    # --- the driver task ---
    async def _drive(self) -> None:
        try:
            await self._loop()
        except Exception as error:  # a bug here must not leave anybody waiting
            self.error = error
            for entry in self._entries.values():
                if entry.task is not None:
                    entry.task.cancel()
            self._finish()
            raise

    async def _loop(self) -> None:
        while not await self._act():
            if self.shown is not None:
                self.shown.update(self)
            due = self.machine.due()
            try:
                event = await self._inbox.recv(None if due is None or math.isinf(due) else due)
            except ChannelEmptyError:
                continue
            except ChannelClosedError:  # pragma: no cover - the driver closes it itself
                return
            if event is not None:
                self._take(*event)

    def _take(self, kind: str, number: int, incarnation: int, error: BaseException | None) -> None:
        entry = self._entries.get(number)
        if entry is None or entry.incarnation != incarnation:
            return  # of an incarnation that was given up
        try:
            if kind == "started":
                self.machine.started(number)
                self._settle(entry, None)
                return
            entry.error = error
            entry.task = None
            if kind == "start_failed":
                self.machine.start_failed(number)
            else:
                self.machine.exited(number, error is not None)
        except ValueError:  # the machine no longer waits for that
            pass
        self._settle(entry, error)

    def _settle(self, entry: _Entry, error: BaseException | None) -> None:
        waiting, entry.settled = entry.settled, []
        for tx in waiting:
            tx.try_send_sync(error)

    async def _act(self) -> bool:
        """Carries out what there is to do. True when everything has stopped."""
        while (action := self.machine.next()) is not None:
            verb, number, attempt, _code = action
            if verb == DONE:
                self._finish()
                return True
            entry = self._entries.get(number)
            if entry is None:
                continue
            if verb == START:
                entry.incarnation += 1
                entry.final = False
                entry.task = spawn(self._run, number, entry, entry.incarnation)
            elif verb == STOP:
                entry.child.stop(entry.final or self._final)
            elif verb == KILL:
                self._kill(number, entry)
            elif verb == REMOVED:
                del self._entries[number]
                self._settle(entry, entry.error)
                entry.child.ended(entry.error)
            elif verb in self._hooks:
                if verb == GAVE_UP:
                    self.gave_up = self._final = True
                    self.error = entry.error
                await self._tell(verb, entry, attempt)
        return False

    def _kill(self, number: int, entry: _Entry) -> None:
        """Cancels its task. One that swallows that is given up: the rest goes on."""
        task, entry.task = entry.task, None
        entry.incarnation += 1  # what it still says is not heard
        if task is not None:
            task.cancel()
        self.machine.abandoned(number)

    async def _run(self, number: int, entry: _Entry, incarnation: int) -> None:
        running = False

        def started() -> None:
            nonlocal running
            running = True
            self._events.try_send_sync(("started", number, incarnation, None))

        error: BaseException | None = None
        try:
            await entry.child.run(started)
        except Exception as failure:
            error = failure
        except BaseException as failure:  # cancelled from outside
            self._report(running, number, incarnation, failure)
            raise
        self._report(running, number, incarnation, error)

    def _report(self, running: bool, number: int, incarnation: int, error: BaseException | None) -> None:
        if not running and error is None:
            self._events.try_send_sync(("started", number, incarnation, None))
            running = True
        self._events.try_send_sync(("exited" if running else "start_failed", number, incarnation, error))

    async def _tell(self, verb: int, entry: _Entry, attempt: int) -> None:
        what = {RESTARTED: "restarted", FAILED: "failed", GAVE_UP: "will not be restarted any more"}[verb]
        write = get_logger("klaw.supervision").info if verb == RESTARTED else get_logger("klaw.supervision").warning
        write(f"{entry.child.name} {what}", supervisor=self.name, attempt=attempt, error=repr(entry.error))
        hook = self._hooks[verb]
        if hook is not None:
            try:
                answer = hook(entry.child.ref, entry.error, attempt)
                if hasattr(answer, "__await__"):
                    await answer
            except Exception as error:
                get_logger("klaw.supervision").error("a hook failed", hook=repr(hook), error=repr(error))

    def _finish(self) -> None:
        self.done = True
        if self.shown is not None:
            self.shown.end()
        for entry in self._entries.values():
            self._settle(entry, entry.error)
            entry.child.ended(entry.error)
        self._entries.clear()
        self._events.close_sync()
        waiting, self._ended = self._ended, []
        for tx in waiting:
            tx.try_send_sync(None)
