# SPDX-License-Identifier: Apache-2.0
"""What the Python benches share: the list of cases, the timing, the optional peers."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["CASES", "Clock", "case", "check", "rss"]

#: (job, implementation) to the function that runs it once and returns its figure.
CASES: dict[tuple[str, str], Callable[[], Any]] = {}

Function = Callable[..., Any]


def case(job: str, impl: str, *modules: str) -> Callable[[Function], Function]:
    """Enters a case, unless one of the modules it needs is missing. It is called with those modules; a coroutine
    function runs under asyncio.run."""
    try:
        loaded = [importlib.import_module(m) for m in modules]
    except ImportError as e:
        print(f"{job} {impl} left out: {e}", file=sys.stderr)
        return lambda fn: fn

    def enter(fn: Function) -> Function:
        def run() -> Any:
            value = fn(*loaded)
            return asyncio.run(value) if inspect.iscoroutine(value) else value

        CASES[job, impl] = run
        return fn

    return enter


class Clock:
    """Nanoseconds an operation, of a block: ``with Clock(n) as c: ...; return c.ns``."""

    def __init__(self, operations: int) -> None:
        self._n = operations
        self._started = 0
        self.ns = 0.0

    def __enter__(self) -> Clock:
        self._started = time.perf_counter_ns()
        return self

    def __exit__(self, *unused: object) -> None:
        self.ns = (time.perf_counter_ns() - self._started) / self._n


def check(got: object, wanted: object) -> None:
    """A wrong result ends the program."""
    if got != wanted:
        raise SystemExit(f"wrong result: {got!r}, expected {wanted!r}")


def rss() -> int:
    """Bytes of memory this process occupies."""
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")
