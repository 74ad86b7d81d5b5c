# SPDX-License-Identifier: Apache-2.0
"""A crowded program and `klaw ui` beside it, both ended by the handles that started them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(os.environ.get("KLAW_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("KLAW_BUILD_DIR", ROOT / "build" / "release"))
KLAW = BUILD / "bin" / "klaw"


@contextmanager
def running(command: list[str], env: dict[str, str], out: IO[str] | int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=env, stdout=out, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Ui:
    """klaw ui as it runs: its port, the addresses it has printed, the program that it shows."""

    log: Path
    runtime: Path
    crowd: subprocess.Popen[str]

    def addresses(self) -> list[str]:
        return re.findall(r"http://\S+", self.log.read_text())

    def address(self, nth: int = -1, at_least: int = 1) -> str:
        until = time.monotonic() + 30
        while len(self.addresses()) < at_least:
            assert time.monotonic() < until, "klaw ui printed no address"
            time.sleep(0.02)
        return self.addresses()[nth]

    @property
    def origin(self) -> str:
        return self.address(0).split("/?")[0]


@pytest.fixture
def command() -> Path:
    """The klaw that is tested."""
    if not KLAW.exists():
        pytest.skip("the klaw command is not built here")
    if subprocess.run([KLAW, "ui", "--help"], capture_output=True, timeout=20).returncode:
        pytest.skip("klaw is built without libmicrohttpd")
    return KLAW


@pytest.fixture
def start(command: Path, tmp_path: Path) -> Iterator[Callable[..., Ui]]:
    """start(channels, actors, *options): both programs, ended after the test."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "KLAW_INSPECT": "1"}
    opened = []

    def begin(channels: int = 12, actors: int = 30, *options: str) -> Ui:
        log = tmp_path / "ui.log"
        crowd = running([str(BUILD / "bin" / "crowd"), str(channels), str(actors)], env, subprocess.DEVNULL)
        program = crowd.__enter__()
        opened.append(crowd)
        until = time.monotonic() + 30
        while not list((runtime / "klaw").glob("*.sock")):
            assert program.poll() is None and time.monotonic() < until, "the program offers no socket"
            time.sleep(0.02)
        env.pop("KLAW_INSPECT", None)
        ui = running([str(command), "ui", *options], env, log.open("w"))
        ui.__enter__()
        opened.append(ui)
        return Ui(log, runtime, program)

    yield begin
    for each in reversed(opened):
        each.__exit__(None, None, None)
