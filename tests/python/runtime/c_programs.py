# SPDX-License-Identifier: Apache-2.0
"""The C programs of tests/remote/ and the examples that need Ray, where they were built."""

from __future__ import annotations

import os
import subprocess
import sys
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


#: A program in Python whose C code uses klaw/remote.h: `names(door)` lists the channels through a ctypes door.
INSIDE_PYTHON = """
import ctypes, sys
from klaw_core import _klaw

class Info(ctypes.Structure):
    _fields_ = [("message", ctypes.c_char * 256), ("backend", ctypes.c_char * 32), ("actor", ctypes.c_char * 64),
                ("namespace", ctypes.c_char * 64), ("sys", ctypes.c_int)]

def names(door):
    found, info = [], Info()
    visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_char_p)(
        lambda user, name: found.append(name.decode()) or True)
    code = door("libklaw.so.0").klaw_remote_list_sized(None, 0, visit, None, ctypes.byref(info))
    return code, info.message.decode(), found
"""


def inside_python(program: str, limit: float = 50.0, **env: str) -> str:
    """What a program that follows INSIDE_PYTHON has printed."""
    if not (BUILD / "libklaw_ray.so").exists():
        pytest.skip("libklaw_ray was not built (KLAW_RAY)")
    done = subprocess.run(
        [sys.executable, "-c", INSIDE_PYTHON + program],
        env={**os.environ, "KLAW_RAY_LIBRARY": str(BUILD / "libklaw_ray.so"), **env},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def probe(*args: object, code: int = 0, limit: float = 90.0, **env: Any) -> str:
    """Runs tests/remote/probe.c."""
    return Program("remote_probe", *args, **env).ends(code, limit)
