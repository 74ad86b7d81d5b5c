# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom among asyncio's tasks and threads, found out when ``klaw doctor`` asks.

An endpoint, a lock or a future is an object: whoever can reach it may send, release or set it. So the question "who may
end this wait" is "who refers to what would end it", and the collector's view of references answers it for tasks:

- A task that waits at a channel goes on when one of the other side's endpoints is used; one that waits for a task, when
  that ends; one that waits for a future (a lock, an event, a queue), when that is set.
- From there the references are walked upwards until they come to tasks that wait: these hold it.
- Whatever is not understood is somebody who may go on: a module's globals, an event loop and what it has scheduled, a
  running frame, an object with more references than are accounted for (C code has them), too many objects.
- A task that a timer of its loop can get at (a timeout, a sleep) may go on.

The frames of threads can't be seen so. A thread that waits at a channel goes on by any other thread: a deadlock of
threads is told when all of them wait, at channels or in Thread.join.

A wait that is told to be held by waiting ones alone can't end by itself; somebody may still cancel it. All of it runs
with Python standing still, some 0.2 s for 100 000 objects, and only when somebody asks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import types
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from klaw_core import _klaw

__all__ = ["find"]

LIMIT = 1_000_000  # objects of the process
THREADS = 100
STEPS = 20_000  # objects on the way up from one wait

Row = tuple[int, int, str]

_SLEEP = getattr(asyncio.futures, "_set_result_unless_cancelled", None)
_AWAITS = ("cr_await", "gi_yieldfrom", "ag_await")
_STOPS = (type, types.ModuleType, types.CodeType, types.FrameType, types.BuiltinFunctionType)


class _Probe:
    pass


def _unaccounted(objects: list[Any], at: int, known: int) -> int:
    """References to objects[at] beyond the known ones; the same excess for each object of that list."""
    return sys.getrefcount(objects[at]) - known


_EXCESS = _unaccounted([_Probe()], 0, 0)  # of an object that this list alone refers to


class _Heap:
    """The objects that the collector knows, and who refers to whom: as numbers, so that no reference is added."""

    def __init__(self) -> None:
        self.objects = gc.get_objects()
        self.at = {id(o): n for n, o in enumerate(self.objects)}
        self.above: defaultdict[int, list[int]] = defaultdict(list)
        for n in range(len(self.objects)):
            for referent in gc.get_referents(self.objects[n]):
                self.above[id(referent)].append(n)

    def is_understood(self, n: int) -> bool:
        """Whether all references to the object are from objects of the heap."""
        return _unaccounted(self.objects, n, len(self.above.get(id(self.objects[n]), ()))) <= _EXCESS


class _Look:
    def __init__(self, number: Callable[[Any], int]) -> None:
        self.heap = heap = _Heap()
        self.numbers: dict[int, int] = {}  # of tasks, by id
        self.tasks: list[int] = []  # places in the heap
        self.ends: list[int] = []
        self.timers: list[int] = []
        self.owner: dict[int, int] = {}  # of coroutines and operations, by id: id of the task
        self.chan: dict[int, int] = {}  # of endpoints, by id: id of the channel
        for n in range(len(heap.objects)):
            kind = type(heap.objects[n])
            if issubclass(kind, asyncio.Task):
                if not heap.objects[n].done():
                    self.tasks.append(n)
                    self.numbers[id(heap.objects[n])] = number(heap.objects[n])
                    self.adopt(n)
            elif issubclass(kind, (_klaw.Sender, _klaw.Receiver)):
                self.ends.append(n)
                self.chan[id(heap.objects[n])] = self.channel_of(n)
            elif issubclass(kind, asyncio.Handle) and not heap.objects[n].cancelled():
                self.timers.append(n)
        self.timed = self.reached_by_timers()

    def adopt(self, n: int) -> None:
        """What a task stands in: its coroutines, what they await."""
        task = self.heap.objects[n]
        inner = task.get_coro()
        for _ in range(1000):
            if inner is None or id(inner) in self.owner:
                break
            self.owner[id(inner)] = id(task)
            inner = next((v for name in _AWAITS if (v := getattr(inner, name, None)) is not None), None)
            if isinstance(inner, asyncio.Future):
                break

    def channel_of(self, n: int) -> int:
        for referent in gc.get_referents(self.heap.objects[n]):
            if type(referent).__name__ == "Channel":
                return id(referent)
        return 0

    # ---- down, from timers

    def reached_by_timers(self) -> set[int]:
        """Tasks (by id) that something scheduled may touch."""
        found: set[int] = set()
        seen: set[int] = set()
        todo: deque[Any] = deque()
        for n in self.timers:
            handle = self.heap.objects[n]
            # A sleep wakes its task; everything else may cancel one, and with it all that it looks after.
            through = getattr(handle, "_callback", None) is not _SLEEP
            todo.extend((referent, through) for referent in gc.get_referents(handle))
        while todo:
            thing, through = todo.popleft()
            key = id(thing) * 2 + through
            if key in seen or isinstance(thing, (*_STOPS, asyncio.AbstractEventLoop)) or _is_globals(thing):
                continue
            seen.add(key)
            if isinstance(thing, asyncio.Task):
                found.add(id(thing))
                if not through:
                    continue
            todo.extend((referent, through) for referent in gc.get_referents(thing))
            if len(seen) > 10 * STEPS:
                return {id(self.heap.objects[n]) for n in self.tasks}
        return found

    # ---- up, from what would end a wait

    def holders(self, targets: list[int], me: int) -> set[int] | None:
        """The waiters (by id) who refer to one of the objects at these places; None: somebody else does."""
        found: set[int] = set()
        seen = set(targets)
        todo = list(targets)
        while todo:
            n = todo.pop()
            if len(seen) > STEPS or not self.heap.is_understood(n):
                return None
            for above in self.heap.above.get(id(self.heap.objects[n]), ()):
                if above in seen:
                    continue
                key = id(self.heap.objects[above])
                who = self.owner.get(key, key if key in self.numbers else 0)
                if who:
                    if who != me:
                        found.add(who)
                    continue
                if self.is_somebody(above):
                    return None
                seen.add(above)
                todo.append(above)
        return found

    def is_somebody(self, n: int) -> bool:
        thing = self.heap.objects[n]
        return isinstance(
            thing, (*_STOPS, asyncio.AbstractEventLoop, asyncio.Handle, asyncio.Task, threading.Thread)
        ) or _is_globals(thing)

    def other_ends(self, ends: set[int]) -> list[int] | None:
        """Places of the ends of the other side of channels; None: not all of them are Python's."""
        found: list[int] = []
        for end in ends:
            channel, n = self.chan.get(end, 0), self.heap.at.get(end)
            if not channel or n is None:
                return None
            sends = isinstance(self.heap.objects[n], _klaw.Sender)
            stats = self.heap.objects[n].stats()
            others = [
                e for e in self.ends
                if self.chan[id(self.heap.objects[e])] == channel
                and isinstance(self.heap.objects[e], _klaw.Sender) != sends
            ]  # fmt: skip
            opened = sum(not self.heap.objects[e].closed for e in others)
            if opened != (stats.receiver_count if sends else stats.sender_count) or opened == 0:
                return None
            found += others
        return found

    # ---- rows

    def task_rows(self, n: int) -> list[Row]:
        task = self.heap.objects[n]
        me, waiter, loop = id(task), getattr(task, "_fut_waiter", None), task.get_loop()
        number = self.numbers.get(me, 0)
        if not number or waiter is None or me in self.timed or not isinstance(loop, asyncio.BaseEventLoop):
            return []
        what, targets, found = "", None, None
        if isinstance(waiter, _klaw.Operation):
            ends = _ends_of(waiter)
            targets = self.other_ends(ends) if ends and waiter._timeout < 0 else None
        elif isinstance(waiter, asyncio.Task):
            what, found = f"the end of task '{waiter.get_name()}'", {id(waiter)}
        elif isinstance(waiter, asyncio.Future):
            at = self.heap.at.get(id(waiter))
            what, targets = f"a {type(waiter).__name__.strip('_')}", None if at is None else [at]
        task = waiter = loop = None
        if targets is not None:
            found = self.holders(targets, me)
        return [(number, self.numbers.get(who, 0), what) for who in found or (0,)] if found is not None else []

    def rows(self) -> list[Row]:
        return [row for n in self.tasks for row in self.task_rows(n)]


def _is_globals(thing: Any) -> bool:
    return type(thing) is dict and "__builtins__" in thing and "__name__" in thing


def _ends_of(operation: Any) -> set[int]:
    """The endpoints, by id, that an operation waits at; empty: not known."""
    referents = gc.get_referents(operation)
    if operation.__qualname__ == "select":
        return {id(e) for r in referents if type(r) is tuple for e in r if isinstance(e, _klaw.Receiver)}
    wanted = _klaw.Sender if operation.__qualname__.startswith("Sender.") else _klaw.Receiver
    ends = {id(e) for e in referents if isinstance(e, wanted)}
    return ends if len(ends) == 1 else set()


# ---- threads


def _joined(frame: types.FrameType) -> list[threading.Thread] | None:
    """The threads that one with this innermost frame waits for, for ever; None: it does something else."""
    name, code = frame.f_code.co_name, frame.f_code
    if code is threading._shutdown.__code__:  # type: ignore[attr-defined]
        return [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    joins = [getattr(threading.Thread, n, None) for n in ("join", "_wait_for_tstate_lock")]
    if all(code is not getattr(join, "__code__", None) for join in joins):
        return None
    values = frame.f_locals
    forever = values.get("timeout") == -1 if name == "_wait_for_tstate_lock" else values.get("timeout") is None
    return [values["self"]] if forever else None


def _strangers() -> bool:
    """Whether there are threads of the process that are neither Python's nor klaw's."""
    ours = {str(t.native_id) for t in threading.enumerate()}
    try:
        return any(
            tid not in ours and not Path(f"/proc/self/task/{tid}/comm").read_text().startswith("klaw-")
            for tid in os.listdir("/proc/self/task")
        )
    except OSError:
        return True


def _thread_rows(number: Callable[[Any], int], parked: Mapping[threading.Thread, bool]) -> list[Row]:
    """parked: the threads that wait at channels, or did, and whether for a limited time."""
    threads = threading.enumerate()
    if len(threads) > THREADS or not parked or _strangers():
        return []
    frames, rows = sys._current_frames(), list[Row]()
    for t in threads:
        joined = _joined(frames[t.ident]) if t.ident in frames else None
        if joined is not None:
            rows += [(number(t), number(other), f"the end of thread '{other.name}'") for other in joined or [t]]
        elif t in parked and not parked[t]:
            rows += [(number(t), number(other), "") for other in threads if other is not t or len(threads) == 1]
    return rows


def find(number: Callable[[Any], int], parked: Mapping[threading.Thread, bool]) -> list[Row]:
    """Rows (waiter, holder, what) of the tasks and threads that are known to wait; holder 0: somebody who may go on.

    number(task or thread): its number in snapshots.
    """
    rows = _thread_rows(number, parked)
    if len(gc.get_objects()) > LIMIT:
        return rows
    interval, enabled = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(10)  # nobody else runs meanwhile
    gc.disable()
    try:
        return rows + _Look(number).rows()
    finally:
        sys.setswitchinterval(interval)
        if enabled:
            gc.enable()
