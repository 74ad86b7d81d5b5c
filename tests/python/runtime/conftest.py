# SPDX-License-Identifier: Apache-2.0
"""No test of the runtime hangs: after a while it is failed where it stands. Tests marked `ray` share one local Ray."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

LIMIT = 60.0  # seconds; for what hangs, on a machine that has much else to do
RAY_LIMIT = 120.0  # processes are started and killed there
START_LIMIT = 150.0  # for Ray itself, on a busy machine

HAVE_RAY = importlib.util.find_spec("ray") is not None
if HAVE_RAY:
    # Ray reads these when it is imported, its processes inherit them: a token of this session only, no usage reports,
    # and workers that find the package and the tests where this process does.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says why tests of Ray do not run on a Python that has none."""
    if os.environ.get("KLAW_TEST_SLICE") == "ci":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: KLAW_TEST_SLICE=full make test-ray runs it"))
    if not HAVE_RAY:
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.skip(reason="Ray is not installed: pip install 'klaw-core[ray]'"))


@contextmanager
def within(limit: float, what: str) -> Iterator[None]:
    """Raises in the main thread when it takes longer than `limit` seconds."""

    def late(_number: int, _frame: FrameType | None) -> Any:
        raise TimeoutError(f"{what} was not done after {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test takes for ever."""
    with within(RAY_LIMIT if request.node.get_closest_marker("ray") else LIMIT, "the test"):
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A Ray of this session: one node with four CPUs, 80 MB of objects, token authentication, namespace "klaw". Its
    workers find the package and the tests where this process does. Gives the context of ray.init: `address_info`."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")
    import ray  # noqa: PLC0415
    from klaw_core.runtime import BackendErrorException  # noqa: PLC0415
    from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415

    with within(2 * START_LIMIT, "starting Ray"):
        for last in (False, False, True):  # its processes have limits of their own, which a busy machine may miss
            try:
                ensure_ray("local", "klaw", num_cpus=4, object_store_memory=80 << 20, log_to_driver=False)
                break
            except BackendErrorException:
                ray.shutdown()
                if last:
                    raise
    node = ray._private.worker._global_node
    try:
        yield node.address_info
    finally:
        folder = node.get_session_dir_path()
        with within(START_LIMIT, "stopping Ray"):
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ray_init(ray_cluster: Any) -> Any:
    """The session's Ray, under the name the channels' tests use."""
    return ray_cluster


@pytest.fixture
def pair(shared: Any) -> Iterator[tuple[Any, Any]]:
    """Two endpoints of the channel that a module's tests share (its fixture `shared`); it is empty."""
    tx, rx = shared.pair()
    yield tx, rx
    tx.close_sync()
    rx.close_sync()
    shared.empty()
