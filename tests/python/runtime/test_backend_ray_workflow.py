# SPDX-License-Identifier: Apache-2.0
"""Workflow steps as Ray tasks: run once, also by a second process; tried again when a worker is killed; cancelled."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from klaw_core.runtime import BackendErrorException, Workflow, context, current_context

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

pytestmark = [pytest.mark.ray, pytest.mark.anyio]


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def workflow(path: Path, **options: Any) -> Workflow:
    return Workflow("w", path=f"{path}/store/", backend="ray", **options)


def mark(folder: Path, name: str) -> int:
    """How many times it has been called with this name."""
    made = [int(path.suffix[1:]) for path in folder.glob(f"{name}.*")]
    n = max(made, default=0) + 1
    (folder / f"{name}.{n}").touch()
    return n


async def test_steps_run_on_workers_and_once(ray_cluster: Any, tmp_path: Path) -> None:
    async def soon(folder: Path) -> list[Any]:
        await anyio.sleep(0)
        return [mark(folder, "soon"), os.getpid() == here, current_context().request_id]

    here = os.getpid()
    for _ in range(2):
        with context(request_id="r1"):
            async with workflow(tmp_path) as wf:
                if not wf.done:
                    assert await wf.step("plain", mark, tmp_path, "plain") == 1
                    assert await wf.step("soon", soon, tmp_path, backend_kwargs={"num_cpus": 0.5}) == [1, False, "r1"]
                    wf.result = "done"
        assert wf.result == "done"
    assert {path.name for path in tmp_path.iterdir()} == {"store", "plain.1", "soon.1"}


async def test_a_resumed_run_does_not_repeat_a_step(ray_cluster: Any, tmp_path: Path) -> None:
    def flaky(folder: Path) -> int:
        if mark(folder, "flaky") < 3:
            raise OSError("not yet")
        return 3

    with pytest.raises(OSError, match="not yet") as caught:
        async with workflow(tmp_path) as wf:
            assert await wf.step("first", mark, tmp_path, "first") == 1
            await wf.step("flaky", flaky, tmp_path)
    assert "in flaky" in caught.value.__notes__[0]
    async with workflow(tmp_path) as wf:
        assert await wf.step("first", mark, tmp_path, "first") == 1
        assert await wf.step("flaky", flaky, tmp_path, attempts=3, backoff=0.01) == 3
    assert len(list(tmp_path.glob("first.*"))) == 1


async def test_a_step_whose_worker_is_killed_is_tried_again(ray_cluster: Any, tmp_path: Path) -> None:
    def deadly(folder: Path) -> int:
        n = mark(folder, "deadly")
        if n == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    async with workflow(tmp_path) as wf:
        assert await wf.step("by Ray", deadly, tmp_path) == 2
        (tmp_path / "deadly.1").unlink()
        (tmp_path / "deadly.2").unlink()
        assert (
            await wf.step("by klaw", deadly, tmp_path, attempts=2, backoff=0.01, backend_kwargs={"max_retries": 0}) == 2
        )


async def test_a_cancelled_step_ends_on_its_worker(ray_cluster: Any, tmp_path: Path) -> None:
    begun = time.monotonic()

    def nap(folder: Path) -> None:
        mark(folder, "nap")
        time.sleep(50)

    async with workflow(tmp_path) as wf:
        async with anyio.create_task_group() as group:
            group.start_soon(wf.step, "nap", nap, tmp_path)
            with anyio.fail_after(20):
                while not (tmp_path / "nap.1").exists():
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await wf.finish("cut")
    assert time.monotonic() - begun < 30


async def test_what_a_step_cannot_send_is_told(ray_cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(BackendErrorException, match="can't be sent to a worker"):
        async with workflow(tmp_path) as wf:
            await wf.step("lock", str, threading.Lock())
    async with Workflow("other", path=f"{tmp_path}/store/", backend="ray") as wf:
        with pytest.raises(ValueError, match="no option 'colour'"):
            await wf.step("red", str, 1, backend_kwargs={"colour": "red"})
    async with Workflow("local", path=f"{tmp_path}/store/", backend="local") as wf:
        with pytest.raises(ValueError, match="on Ray"):
            await wf.step("x", str, 1, backend_kwargs={"num_cpus": 1})
