# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: the event loops, a configuration that each test starts afresh with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from klaw_core.runtime import _config

if os.environ.get("KLAW_TEST_SLICE") == "ci":  # the same examples always: what fails is the change's doing
    settings.register_profile("ci", derandomize=True)
    settings.load_profile("ci")
    os.environ.setdefault("KLAW_SEED", "20261121")

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Tests marked anyio run on each loop."""
    backend: tuple[str, dict[str, bool]] = request.param
    return backend


@pytest.fixture(autouse=True)
def fresh_config(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees what another one configured, nor the machine's own settings."""
    for name in (
        "KLAW_BACKEND",
        "KLAW_CONCURRENCY",
        "KLAW_LOG_LEVEL",
        "KLAW_CHECKPOINT_PATH",
        "KLAW_DEBUG",
        "KLAW_INSPECT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KLAW_CHECKPOINT_PATH", str(tmp_path_factory.mktemp("store") / "own") + "/")
    _config._forget()
    yield
    _config._forget()
