# SPDX-License-Identifier: Apache-2.0
"""Inspection from outside: what the ``klaw`` command (klaw ps, klaw top, klaw doctor) sees of this process.

With ``KLAW_INSPECT=1`` in the environment, or ``init(inspect=True)``, the process answers its own user on a Unix
socket. Channels are libklaw's and seen without more; actors, supervisors and waiting tasks are published while it is
open.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from klaw_core import _klaw

if TYPE_CHECKING:
    from klaw_core.runtime._supervision import Driver
    from klaw_core.runtime.supervisor import Supervisor

__all__ = ["actor", "begin", "begin_by_environment", "supervisor"]

#: whether objects are published; what was made before that is not seen
on = False

_FIBER, _ACTOR, _SUPERVISOR = range(3)  # kinds of children, as klaw_child_kind

# the numbers tasks and threads wait under; they live as long as their tasks
_tasks: WeakKeyDictionary[Any, _klaw.Published] = WeakKeyDictionary()
# threads that have waited at a channel, and whether for a limited time
_threads: WeakKeyDictionary[threading.Thread, bool] = WeakKeyDictionary()


def begin() -> None:
    """The process has been opened: publishes from now on."""
    global on  # noqa: PLW0603
    if not on:
        on = True
        _klaw.inspect_labels(_label)
        _klaw.inspect_look(_look)
        atexit.register(_klaw.inspect_look, None)


def begin_by_environment() -> None:
    """Opens the process if KLAW_INSPECT says so. When that fails the program goes on, with a warning."""
    if os.environ.get("KLAW_INSPECT") == "1":
        try:
            _klaw.inspect_open()
        except (OSError, RuntimeError) as error:
            warnings.warn(f"{error} (KLAW_INSPECT=1)", RuntimeWarning, stacklevel=2)
        else:
            begin()


def _number(waiter: Any) -> int:
    """Of a task or a thread, in snapshots."""
    shown = _tasks.get(waiter)
    if shown is None:
        name = waiter.get_name() if hasattr(waiter, "get_name") else str(getattr(waiter, "name", "task"))
        if isinstance(waiter, threading.Thread):
            name = f"thread {waiter.name}"
        shown = _tasks[waiter] = _klaw.Published("task", name)
    return shown.id & 0xFFFF_FFFF


def _label(ends: Any, timed: bool) -> int:
    """The number of the task or thread that is about to wait."""
    from klaw_core.runtime._spawn import current_task  # noqa: PLC0415

    task = current_task()
    if task is None:
        task = threading.current_thread()
        _threads[task] = timed
    return _number(task)


def _look() -> None:
    """A reader wants to know who waits for whom. On a thread of its own, which is none of Python's."""
    from klaw_core.runtime import _holds  # noqa: PLC0415 - and asyncio

    _klaw.publish_holds([(0, 0, ""), *_holds.find(_number, _threads)])  # the first one says that it has looked


def actor(name: str, behavior: str) -> _klaw.Published | None:
    """An actor's entry; None: nobody looks."""
    return _klaw.Published("actor", name, behavior) if on else None


def supervisor(sup: Supervisor, strategy: int) -> _Shown | None:
    """A supervisor's entry; None: nobody looks."""
    return _Shown(_klaw.Published("supervisor", sup.name, "", strategy)) if on else None


class _Shown:
    """A supervisor's entry, told anew after each thing that happens to it."""

    def __init__(self, shown: _klaw.Published) -> None:
        self.shown = shown
        self.parent = 0

    def update(self, driver: Driver) -> None:
        """How it is now."""
        children = []
        for number, entry in driver._entries.items():
            ref = entry.child.ref
            kind, identity = _FIBER, 0
            nested = getattr(getattr(ref, "_driver", None), "shown", None)
            if isinstance(nested, _Shown):
                kind, identity = _SUPERVISOR, nested.shown.id
                nested.parent = self.shown.id
            elif (shown := getattr(ref, "_shown", None)) is not None:
                kind, identity = _ACTOR, shown.id
            machine, error = driver.machine, entry.error
            said = "" if error is None else f"{type(error).__name__}: {error}"
            children.append((entry.child.name, kind, machine.state(number), machine.restarts(number), identity, said))
        self.shown.supervisor(driver._final, self.parent, children)

    def end(self) -> None:
        """It has ended."""
        self.shown.end()


def _forget() -> None:
    """For tests: nothing is published any more."""
    global on  # noqa: PLW0603
    on = False
    _klaw.inspect_labels(None)
    _klaw.inspect_look(None)
    _tasks.clear()
    _threads.clear()


if "KLAW_INSPECT" in os.environ and sys.platform == "linux":
    begin_by_environment()
