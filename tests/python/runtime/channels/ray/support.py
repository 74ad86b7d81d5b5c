# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of Ray channels. Every wait is bounded; nothing sleeps until something has probably happened."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import msgspec
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")
from klaw_core.runtime.channels.ray import ray_channel

LOOPS = ["asyncio", "uvloop", "trio"]
SOON = 40.0  # seconds for what takes milliseconds when the machine is idle


def aio(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine function as a test on asyncio."""

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 100))

    return test


def on(loop: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """Runs it on that loop."""
    backend = "trio" if loop == "trio" else "asyncio"
    options = {"use_uvloop": loop == "uvloop"} if backend == "asyncio" else {}
    return anyio.run(function, backend=backend, backend_options=options)


async def eventually(condition: Callable[[], Any], limit: float = SOON) -> Any:
    """The condition's first true value; it may be a coroutine function. Fails after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not so after {limit:g} s")
        await anyio.sleep(0.01)


async def drain(rx: Any) -> list[Any]:
    """All items until the channel is closed."""
    return [item async for item in rx]


def pid_of(endpoint: Any) -> int:
    """The process of the channel's actor."""
    pid: int = endpoint.stats().backend_extras["pid"]
    return pid


def spawn_driver(program: str, address: str) -> subprocess.Popen[str]:
    """A process of its own that joins the cluster, with stdin and stdout as pipes of lines."""
    joins = f"""
import asyncio, sys, time
from klaw_core.runtime._backends._ray_connect import ensure_ray
from klaw_core.runtime.channels.ray import *
ensure_ray({address!r}, "klaw", log_to_driver=False)
def say(*words):
    print(*words, flush=True)
"""
    return subprocess.Popen(
        [sys.executable, "-c", joins + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """Its next line of output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Shared:
    """A channel that several tests use, since each channel is a process: its own two endpoints keep it open."""

    def __init__(self, **options: Any) -> None:
        self.tx, self.rx = on("asyncio", lambda: ray_channel(**options))
        self.tx.send_sync(self.sample)
        assert self.rx.recv_sync() == self.sample
        self.rx.ack()

    sample: Any = 0

    def pair(self) -> tuple[Any, Any]:
        """Two fresh endpoints."""
        return self.tx.clone(), self.rx.clone()

    def empty(self) -> None:
        """Takes out what a test left."""
        while self.rx.try_recv_sync().is_ok():
            self.rx.ack()


class Point(msgspec.Struct, frozen=True):
    """A type to send."""

    x: int
    y: int = 0
