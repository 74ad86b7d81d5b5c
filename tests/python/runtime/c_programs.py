# SPDX-License-Identifier: Apache-2.0
"""The C programs of tests/remote/ and the examples that need Ray, where they were built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from klaw_core import _klaw

BUILD = Path(_klaw.__file__).parents[2]
PROGRAMS = BUILD / "programs"
FUNCTIONS = PROGRAMS / "remote_functions.so"

#: numbers of klaw/err.h
NOT_FOUND, BACKEND, UNCERTAIN = 8, 12, 15


class Program:
    """A running C program."""

    def __init__(self, name: str, *args: object, **env: str) -> None:
        if not (PROGRAMS / name).exists():
            pytest.skip("the C programs were not built (KLAW_RAY)")
        self.process = subprocess.Popen(
            [str(PROGRAMS / name), *map(str, args)],
            env={**os.environ, "KLAW_RAY_LIBRARY": str(BUILD / "libklaw_ray.so"), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ends(self, code: int = 0, limit: float = 90.0) -> str:
        """What it has printed; it has to end with that exit status."""
        try:
            out, err = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"did not end: {out}{err}")
        assert self.process.returncode == code, out + err
        return out


def probe(*args: object, code: int = 0, limit: float = 90.0, **env: Any) -> str:
    """Runs tests/remote/probe.c."""
    return Program("remote_probe", *args, **env).ends(code, limit)
