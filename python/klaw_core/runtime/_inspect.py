# SPDX-License-Identifier: Apache-2.0
"""Inspection from outside: what the ``klaw`` command (klaw ps, klaw top, klaw doctor) sees of this process.

With ``KLAW_INSPECT=1`` in the environment, or ``init(inspect=True)``, the process answers its own user on a Unix
socket. Channels are libklaw's and seen without more; actors, supervisors and waiting tasks are published while it is
open.
"""

from __future__ import annotations

import os
import sys
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

# the numbers tasks wait under; they live as long as their tasks
_tasks: WeakKeyDictionary[Any, _klaw.Published] = WeakKeyDictionary()


def begin() -> None:
    """The process has been opened: publishes from now on."""
    global on  # noqa: PLW0603
    if not on:
        on = True
        _klaw.inspect_labels(_label)


def begin_by_environment() -> None:
    """Opens the process if KLAW_INSPECT says so. When that fails the program goes on, with a warning."""
    if os.environ.get("KLAW_INSPECT") == "1":
        try:
            _klaw.inspect_open()
        except (OSError, RuntimeError) as error:
            warnings.warn(f"{error} (KLAW_INSPECT=1)", RuntimeWarning, stacklevel=2)
        else:
            begin()


def _label() -> int:
    """The number of the task that is about to wait; 0: it is none."""
    from klaw_core.runtime._spawn import current_task  # noqa: PLC0415

    task = current_task()
    if task is None:
        return 0
    shown = _tasks.get(task)
    if shown is None:
        name = task.get_name() if hasattr(task, "get_name") else str(getattr(task, "name", "task"))
        shown = _tasks[task] = _klaw.Published("task", name)
    return shown.id & 0xFFFF_FFFF


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
    _tasks.clear()


if "KLAW_INSPECT" in os.environ and sys.platform == "linux":
    begin_by_environment()
