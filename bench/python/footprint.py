# SPDX-License-Identifier: Apache-2.0
"""What it costs to be there: the import, its memory, the memory of a receive that waits."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from cases import case, rss

PARKED = 50_000

MEASURE = """
import os, sys, time
def rss():
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")
before, start = rss(), time.perf_counter()
import {module}
print((time.perf_counter() - start) * 1e3, rss() - before)
"""


def imported(module: str) -> tuple[float, float]:
    """Milliseconds and bytes of an import in a fresh interpreter, its bytecode compiled before; medians of five."""
    with tempfile.TemporaryDirectory() as cache:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
        figures = []
        for _ in range(6):
            argv = [sys.executable, "-c", MEASURE.format(module=module)]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
            figures.append([float(word) for word in done.stdout.split()])
    ms, size = (statistics.median(column) for column in zip(*figures[1:], strict=True))
    return ms, size


IMPORTS = {
    "klaw": ["klaw_core.runtime"],  # asyncio waits until it is needed
    "klaw-with-asyncio": ["asyncio", "klaw_core.runtime"],
    "asyncio": ["asyncio"],
    "asyncio+msgspec": ["asyncio", "msgspec"],
    "aiologic": ["aiologic"],
    "trio": ["trio"],
    "ray": ["ray"],
}
for name, modules in IMPORTS.items():
    if not all(map(importlib.util.find_spec, modules)):
        print(f"py_import {name} left out: no {' '.join(modules)}", file=sys.stderr)
        continue
    text = ", ".join(modules)
    case("py_import", name)(lambda text=text: imported(text)[0])
    case("py_import_mem", name)(lambda text=text: imported(text)[1])


async def parked(get: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """Bytes of a task that waits in get()."""
    warm = [asyncio.create_task(get()) for _ in range(100)]
    await asyncio.sleep(0)
    gc.collect()
    before = rss()
    tasks = [asyncio.create_task(get()) for _ in range(PARKED)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    used = rss() - before
    for task in [*warm, *tasks]:
        task.cancel()
    await asyncio.gather(*warm, *tasks, return_exceptions=True)
    return used / PARKED


@case("py_mem_recv", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    _tx, rx = await klaw.channel(16)
    return await parked(rx.recv)


@case("py_mem_recv", "asyncio")
async def _() -> float:
    q: asyncio.Queue[int] = asyncio.Queue(16)
    return await parked(q.get)
