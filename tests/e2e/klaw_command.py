# SPDX-License-Identifier: Apache-2.0
"""What the tests of the klaw command share: the command, and programs with known ills."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import KLAW, PATIENT, TIMEOUT

needs_klaw = pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build")


class Klaw:
    """The command, and a runtime folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.run_folder = Path(tempfile.mkdtemp(prefix="klaw-e2e-"))  # short: a socket's path has 107 bytes
        self.sockets = self.run_folder / "klaw"
        self.stores = folder / "stores"
        self.stores.mkdir()
        self.env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "KLAW_INSPECT")}
        self.env |= {
            "XDG_RUNTIME_DIR": str(self.run_folder),
            "KLAW_CHECKPOINT_PATH": str(self.stores),
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
        }

    def close(self) -> None:
        shutil.rmtree(self.run_folder)

    def run(self, *args: object, **more: Any) -> subprocess.CompletedProcess[str]:
        more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [KLAW, *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT, check=False, env=self.env, **more
        )

    def ok(self, *args: object, code: int = 0, **more: Any) -> str:
        done = self.run(*args, **more)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def json(self, *args: object, code: int = 0) -> Any:
        return json.loads(self.ok(*args, code=code))

    @contextmanager
    def program(self, argv: list[object], **env: str) -> Iterator[subprocess.Popen[str]]:
        """A program that says "ready" and stays until its input ends."""
        with subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env | env
        ) as process:
            try:
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
                yield process
            finally:
                process.kill()

    @contextmanager
    def patient(self, ill: str) -> Iterator[subprocess.Popen[str]]:
        with self.program([PATIENT, ill]) as process:
            yield process

    def findings(self, pid: object, time: str = "300ms") -> list[dict[str, Any]]:
        """What the doctor says; its exit code has to fit."""
        done = self.run("doctor", "--json", "--for", time, pid)
        found: list[dict[str, Any]] = json.loads(done.stdout)[0]["findings"]
        assert done.returncode == (1 if found else 0), done.stderr
        return found
