# SPDX-License-Identifier: Apache-2.0
"""The Ray backend: how a process joins a cluster, and an Executor's tasks there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from klaw_core import Err, Ok
from klaw_core.runtime import (
    BackendError,
    BackendErrorException,
    Cancelled,
    Executor,
    ExecutorBackend,
    context,
    current_context,
    init,
)
from klaw_core.runtime._backends import _ray_connect, make_backend
from klaw_core.runtime._backends._ray_connect import default_namespace, ensure_ray

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime._backends.ray import DEFAULT_RUNTIME_ENV_EXCLUDES, RayBackend  # noqa: E402
from klaw_core.runtime._backends.ray.executor import with_excludes  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.anyio]

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each loop for the tests that ask for it by the mark; the others run on asyncio."""
    return getattr(request, "param", ("asyncio", {"use_uvloop": False}))


# --- connecting ---
def driver(program: str, **settings: str | None) -> str:
    """What a process of its own says, in this one's environment with these changes."""
    env = {**os.environ, **settings}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={key: value for key, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


JOIN = """
import sys, time
from klaw_core.runtime import BackendErrorException
from klaw_core.runtime._backends._ray_connect import ensure_ray
import ray
{before}
begun = time.monotonic()
try:
    ensure_ray(timeout=20)
except BackendErrorException as error:
    print(error.to_struct().backend, error.to_struct().message)
else:
    print("joined", ray.get_runtime_context().namespace, len(ray.nodes()))
print("in time" if time.monotonic() - begun < 25 else "late")
"""


def test_another_driver_joins_by_the_environments_address(ray_cluster: Any) -> None:
    out = driver(JOIN.format(before=""), RAY_ADDRESS=ray_cluster["address"])
    assert out.splitlines() == ["joined klaw 1", "in time"]


def test_the_namespace_comes_from_the_environment(ray_cluster: Any) -> None:
    out = driver(JOIN.format(before=""), RAY_ADDRESS=ray_cluster["address"], KLAW_RAY_NAMESPACE="other")
    assert out.splitlines() == ["joined other 1", "in time"]
    assert default_namespace() == "klaw"


@pytest.mark.parametrize(
    "settings",
    [{"RAY_AUTH_TOKEN": "wrong" * 8}, {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None}],
    ids=["wrong", "none"],
)
def test_a_wrong_token_is_told_as_such(ray_cluster: Any, settings: dict[str, str | None]) -> None:
    out = driver(JOIN.format(before=""), RAY_ADDRESS=ray_cluster["address"], **settings)
    assert "token" in out and "RAY_AUTH_TOKEN_PATH" in out, out
    assert out.endswith("in time\n")


def test_a_cluster_with_another_version_is_told_as_such(ray_cluster: Any) -> None:
    out = driver(JOIN.format(before="ray.__version__ = '2.1.0'"), RAY_ADDRESS=ray_cluster["address"])
    assert "this process has 2.1.0" in out and "pip install ray==" in out, out


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        out = driver(JOIN.format(before=""), RAY_ADDRESS=f"127.0.0.1:{unused.getsockname()[1]}")
    assert "nobody answers at 127.0.0.1" in out and "ray start --head" in out, out
    assert out.endswith("in time\n")


def test_somebody_who_listens_and_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        out = driver(
            JOIN.format(before="").replace("timeout=20", "timeout=2"),
            RAY_ADDRESS=f"127.0.0.1:{mute.getsockname()[1]}",
        )
    assert "did not get ready within 2 s" in out, out
    assert out.endswith("in time\n")


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:port", "host:70000", ":6379"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="'host:port', 'auto' or 'local'"):
        _ray_connect._resolve(address)


def test_who_is_connected_stays_so_and_is_told_when_another_cluster_is_meant(ray_cluster: Any) -> None:
    for address in (None, "auto", "local", ray_cluster["address"]):
        assert ensure_ray(address, timeout=0.001).is_initialized()
    with pytest.raises(BackendErrorException, match="one process joins one cluster"):
        ensure_ray("127.0.0.1:1")


# --- tasks ---
class Odd(Exception):
    """An exception that can be pickled and not be read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one} {two}")


class Held(Exception):
    """An exception that can't be pickled."""

    def __init__(self) -> None:
        super().__init__("held")
        self.lock = threading.Lock()


class Poison:
    """What is pickled and can't be read where it arrives."""

    def __reduce__(self) -> Any:
        return int, ("poison",)


def double(n: int) -> int:
    return 2 * n


async def double_soon(n: int) -> int:
    await anyio.sleep(0)
    return 2 * n


def pid() -> int:
    return os.getpid()


def fail(kind: str) -> Any:
    if kind == "odd":
        raise Odd(1, 2)
    if kind == "held":
        raise Held
    raise ValueError(kind)


def nap(flag: str, seconds: float = 50.0) -> None:
    Path(flag).touch()
    time.sleep(seconds)


async def nap_soon(flag: str) -> None:
    Path(flag).touch()
    await anyio.sleep(50)


async def exists(path: Path) -> None:
    """Waits for a file, at most 20 s."""
    with anyio.fail_after(20):
        while not path.exists():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("anyio_backend", LOOPS, indirect=True)
async def test_functions_and_coroutine_functions_run_on_workers(ray_cluster: Any) -> None:
    async with Executor("ray") as ex:
        assert await ex.submit(double, 21) == Ok(42)
        assert await ex.submit(double_soon, 21) == Ok(42)
        assert await ex.submit(divmod, 7, 2) == Ok((3, 1))
        assert (await ex.submit(pid)).unwrap() != os.getpid()
        offset = 5
        assert await ex.submit(lambda n: n + offset, 1) == Ok(6)
        assert await ex.submit(lambda: Err("no")) == Err("no")


@pytest.mark.parametrize("anyio_backend", LOOPS, indirect=True)
async def test_map_imap_and_gather(ray_cluster: Any) -> None:
    async with Executor("ray", concurrency=2) as ex:
        assert await ex.map(double, range(1000)) == [Ok(2 * n) for n in range(1000)]
        assert await ex.map(double_soon, [1, 2, 3]) == [Ok(2), Ok(4), Ok(6)]
        assert [r async for r in ex.imap(double, range(20), ahead=3)] == [Ok(2 * n) for n in range(20)]
        assert {r.unwrap() async for r in ex.imap(double, range(9), ordered=False)} == set(range(0, 18, 2))
        mixed = await ex.map(int, ["1", "x", "3"])
        assert mixed[0] == Ok(1) and isinstance(mixed[1].error, ValueError) and mixed[2] == Ok(3)
        # What is awaited here can't travel; it need not.
        assert await ex.gather(ex.submit(double, 1), double_soon(2)) == Ok([2, 4])
        failed = await ex.gather(ex.submit(fail, "first"), ex.submit(time.sleep, 50))
        assert isinstance(failed.error, ValueError)


async def test_imap_takes_no_more_than_its_window(ray_cluster: Any) -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for n in range(100):
            taken += 1
            yield n

    async with Executor("ray") as ex:
        results = ex.imap(double, items(), ahead=4)
        assert await anext(results) == Ok(0)
        assert taken <= 6
        await results.aclose()


async def test_an_exception_arrives_with_its_workers_traceback(ray_cluster: Any) -> None:
    async with Executor("ray") as ex:
        error = (await ex.submit(fail, "x")).error
        assert isinstance(error, ValueError) and str(error) == "x"
        assert "in fail" in error.__notes__[0]


@pytest.mark.parametrize(("kind", "text"), [("odd", "odd 1 2"), ("held", "held")])
async def test_an_exception_that_cannot_travel_arrives_as_text(ray_cluster: Any, kind: str, text: str) -> None:
    async with Executor("ray") as ex:
        task = ex.submit(fail, kind)
        error = (await task).error
        assert isinstance(error, BackendError) and error.backend == "ray"
        assert text in error.message and "in fail" in error.message and kind.capitalize() in error.message
        assert task.exit_reason == "error"


async def test_what_cannot_be_pickled_is_told_on_either_side(ray_cluster: Any) -> None:
    async with Executor("ray") as ex:
        cases = {
            "the arguments of double can't be sent": ex.submit(double, threading.Lock()),
            "can't be sent back": ex.submit(threading.Lock),
            "can't be read on the worker": ex.submit(double, Poison()),
            "can't be read here": ex.submit(Poison),
        }
        for text, task in cases.items():
            error = (await task).error
            assert isinstance(error, BackendError) and text in error.message, error
        assert await ex.submit(double, 1) == Ok(2)


async def test_a_worker_that_dies_is_told_and_its_task_tried_again(ray_cluster: Any, tmp_path: Path) -> None:
    def once(path: str) -> str:
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return "second"
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    async with Executor("ray") as ex:
        error = (await ex.submit(os._exit, 1, backend_kwargs={"max_retries": 0})).error
        assert isinstance(error, BackendError) and "died" in error.message
        assert await ex.submit(once, str(tmp_path / "once")) == Ok("second")


async def test_the_context_goes_along(ray_cluster: Any) -> None:
    def seen() -> Any:
        now = current_context()
        return now.request_id, now.trace_id, dict(now.extra)

    async with Executor("ray") as ex:
        with context(request_id="r1", trace_id="a" * 32, user="ada"):
            task = ex.submit(seen)
        assert await task == Ok(("r1", "a" * 32, {"user": "ada"}))


@pytest.mark.parametrize("function", [nap, nap_soon])
async def test_a_running_task_is_cancelled(ray_cluster: Any, tmp_path: Path, function: Any) -> None:
    flag = tmp_path / "begun"
    begun = time.monotonic()
    async with Executor("ray") as ex:
        task = ex.submit(function, str(flag))
        await exists(flag)
        task.cancel("enough")
        assert await task == Err(Cancelled("enough"))
    assert time.monotonic() - begun < 30, "the worker slept on"


async def test_a_worker_serves_on_after_a_cancellation(ray_cluster: Any, tmp_path: Path) -> None:
    async with Executor("ray", concurrency=1) as ex:
        for n in range(5):
            flag = tmp_path / str(n)
            task = ex.submit(nap, str(flag))
            await exists(flag)
            task.cancel()
            assert await ex.submit(double, n) == Ok(2 * n)


async def test_queued_work_that_is_cancelled_or_late_does_not_begin(ray_cluster: Any, tmp_path: Path) -> None:
    async with Executor("ray", concurrency=1) as ex:
        first = ex.submit(nap, str(tmp_path / "first"))
        await exists(tmp_path / "first")
        cancelled = ex.submit(Path.touch, tmp_path / "cancelled")
        with anyio.move_on_after(0.01):
            late = ex.submit(Path.touch, tmp_path / "late")
        timed = ex.submit(Path.touch, tmp_path / "timed", backend_kwargs={"timeout": 0.01})
        cancelled.cancel("why not")
        assert await cancelled == Err(Cancelled("why not"))
        await anyio.sleep(0.02)  # the deadlines pass
        first.cancel()
        for task in (late, timed):
            assert await task == Err(Cancelled("the deadline passed before it began"))
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


async def test_a_coroutine_ends_at_its_deadline(ray_cluster: Any, tmp_path: Path) -> None:
    async with Executor("ray") as ex:
        assert await ex.submit(nap_soon, str(tmp_path / "x"), backend_kwargs={"timeout": 0.5}) == Err(
            Cancelled("deadline")
        )


async def test_options_of_one_task_and_of_all(ray_cluster: Any) -> None:
    def resources() -> Any:
        return ray.get_runtime_context().get_assigned_resources()

    async with Executor("ray", num_cpus=2) as ex:
        assert (await ex.submit(resources)).unwrap()["CPU"] == 2
        assert (await ex.submit(resources, backend_kwargs={"num_cpus": 0.5})).unwrap()["CPU"] == 0.5
        with pytest.raises(ValueError, match="no option 'colour'"):
            ex.submit(resources, backend_kwargs={"colour": "red"})
    with pytest.raises(ValueError, match="no option 'colour'"):
        Executor("ray", colour="red")
    with pytest.raises(ValueError, match="concurrency"):
        Executor("ray", concurrency=0)


async def test_retries_on_exceptions(ray_cluster: Any, tmp_path: Path) -> None:
    def flaky(path: str) -> int:
        tries = Path(path)
        tries.write_text((tries.read_text() if tries.exists() else "") + "x")
        if len(tries.read_text()) < 3:
            raise OSError("not yet")
        return len(tries.read_text())

    async with Executor("ray", retry_exceptions=True, max_retries=2) as ex:
        assert await ex.submit(flaky, str(tmp_path / "tries")) == Ok(3)
        error = (await ex.submit(fail, "always")).error
        assert isinstance(error, ValueError) and str(error) == "always"


async def test_leaving_by_an_exception_cancels_what_runs(ray_cluster: Any, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(LookupError):
        async with Executor("ray") as ex:
            task = ex.submit(nap, str(tmp_path / "x"))
            await exists(tmp_path / "x")
            raise LookupError
    assert isinstance((await task).error, Cancelled)
    assert time.monotonic() - begun < 30


async def test_object_references_are_resolved_on_the_worker(ray_cluster: Any) -> None:
    async with Executor("ray") as ex:
        assert await ex.submit(double, ray.put(4)) == Ok(8)


async def test_the_configured_backend_is_used(ray_cluster: Any) -> None:
    init(backend="ray", concurrency=3, num_cpus=0.25)
    backend = make_backend(None, None, {})
    assert isinstance(backend, RayBackend) and isinstance(backend, ExecutorBackend)
    backend._ensure_ray_init()
    async with Executor() as ex:
        assert ex._concurrency == 3
        cpus = await ex.submit(lambda: ray.get_runtime_context().get_assigned_resources()["CPU"])
        assert cpus == Ok(0.25)


def test_a_working_dir_leaves_out_what_would_shadow_the_workers() -> None:
    env = with_excludes({"working_dir": ".", "excludes": ["data/"]})
    assert env is not None and {".venv/", ".git/", "data/"} <= set(env["excludes"])
    assert set(DEFAULT_RUNTIME_ENV_EXCLUDES) <= set(env["excludes"])
    assert with_excludes({"pip": ["x"]}) == {"pip": ["x"]}
