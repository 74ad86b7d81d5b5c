# SPDX-License-Identifier: Apache-2.0
"""The Ray backend: how a process joins a cluster."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from klaw_core.runtime import BackendErrorException
from klaw_core.runtime._backends._ray_connect import default_namespace, ensure_ray

pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")
pytestmark = pytest.mark.ray


# --- connecting ---
def driver(program: str, **settings: str | None) -> str:
    """What a process of its own says, in this one's environment with these changes."""
    import os  # noqa: PLC0415

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
    program = f"""
from klaw_core.runtime._backends._ray_connect import ensure_ray
try:
    ensure_ray({address!r})
except ValueError as error:
    print(error)
"""
    assert "'host:port', 'auto' or 'local'" in driver(program)


def test_who_is_connected_stays_so(ray_cluster: Any) -> None:
    begun = time.monotonic()
    assert ensure_ray("127.0.0.1:1", timeout=1).is_initialized()
    assert time.monotonic() - begun < 5
    assert issubclass(BackendErrorException, Exception)
