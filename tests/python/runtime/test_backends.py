# SPDX-License-Identifier: Apache-2.0
"""The protocol of backends, the local one, one made by a user, and what is said about Ray where it is not installed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from klaw_core import Err, Ok
from klaw_core.runtime import Backend, Cancelled, Executor, ExecutorBackend, TaskHandle
from klaw_core.runtime._backends import make_backend
from klaw_core.runtime._backends._ray_connect import _same_place
from klaw_core.runtime._backends.local import LocalBackend

pytestmark = pytest.mark.anyio


class Inline:
    """Runs functions where they are submitted: the smallest backend there is."""

    name = "inline"

    def __init__(self) -> None:
        self.started = self.stopped = 0

    async def start(self) -> None:
        self.started += 1

    def submit(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any, options: Any) -> None:
        if not options.get("later"):
            handle._finish(Ok(fn(*args, **kwargs)))

    def cancel(self, handle: TaskHandle[Any], reason: str) -> None:
        handle._finish(Err(Cancelled(reason)))

    async def stop(self, wait: bool) -> None:
        self.stopped += 1


def test_the_protocol_is_checked_at_run_time() -> None:
    assert isinstance(LocalBackend(), ExecutorBackend)
    assert isinstance(Inline(), ExecutorBackend)
    assert not isinstance(object(), ExecutorBackend)


async def test_an_executor_over_a_backend_of_ones_own() -> None:
    backend = Inline()
    executor = Executor(backend=backend)
    async with executor as ex:
        assert backend.started == 1
        assert await ex.submit(pow, 2, 5) == Ok(32)
        assert await ex.map(abs, [-1, 2]) == [Ok(1), Ok(2)]
        handle = ex.submit(abs, 1, backend_kwargs={"later": True})
        assert handle.is_running()
        handle.cancel("why not")
        assert await handle == Err(Cancelled("why not"))
    assert backend.stopped == 1


@pytest.mark.parametrize("name", [None, "local", Backend.LOCAL])
def test_the_local_backend_by_name(name: Any) -> None:
    assert isinstance(make_backend(name, 2, {}), LocalBackend)


@pytest.mark.parametrize("backend", ["mars", 3])
def test_a_wrong_backend_is_refused_with_the_right_ones(backend: Any) -> None:
    with pytest.raises(ValueError, match=r"'local', 'ray'"):
        Executor(backend=backend)


@pytest.mark.parametrize(
    "options", [{"workers": "elves"}, {"concurrency": 0}, {"concurrency": -1}, {"concurrency": True}]
)
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="has to be"):
        LocalBackend(**options)


def test_without_ray_its_backend_says_how_to_get_it() -> None:
    program = """
import sys
sys.modules["ray"] = None  # what an import meets where there is none
from klaw_core.runtime import BackendErrorException, Executor
try:
    Executor(backend="ray")
except BackendErrorException as error:
    print(error.to_struct().backend, "klaw-core[ray]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "ray True\n"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1:6379", "localhost:6379", True),
        ("127.0.0.1:6379", "127.0.0.2:6379", True),
        ("192.0.2.1:6379", "192.0.2.1:6379", True),
        ("head.invalid:6379", "head.invalid:6379", True),
        ("127.0.0.1:6379", "localhost:6380", False),
        ("127.0.0.1:6379", "192.0.2.1:6379", False),
        ("192.0.2.1:6379", "192.0.2.2:6379", False),
        ("[2001:db8::1]:6379", "192.0.2.2:6379", False),
        ("head.invalid:6379", "other.invalid:6379", False),
    ],
)
def test_another_host_with_the_same_port_is_another_cluster(one: str, other: str, same: bool) -> None:
    assert _same_place(one, other) is same


async def test_threads_end_with_the_executor() -> None:
    before = set(threading.enumerate())
    async with Executor(concurrency=4) as ex:
        await ex.map(abs, range(100))
        assert any(thread.name.startswith("klaw-executor") for thread in threading.enumerate())
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("klaw-executor")]


async def test_a_backend_lives_once() -> None:
    ex = Executor()
    async with ex:
        with pytest.raises(RuntimeError, match="already"):
            await ex.__aenter__()


async def test_executors_nest_and_run_side_by_side() -> None:
    async with Executor(concurrency=1) as outer, Executor(concurrency=1) as other:

        async def inside(n: int) -> Any:
            async with Executor(concurrency=1) as ex:
                return await ex.submit(abs, n)

        assert await outer.submit(inside, -1) == Ok(1)
        assert await other.submit(inside, -2) == Ok(2)
