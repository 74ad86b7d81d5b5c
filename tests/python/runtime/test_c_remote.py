# SPDX-License-Identifier: Apache-2.0
"""What a C program is told when something of Ray is missing: one clear sentence each, never a crash or a hang. None of
this needs Ray."""

from __future__ import annotations

import ctypes.util
import socket
import stat
import sys
from pathlib import Path

import pytest

from .c_programs import BACKEND, BUILD, inside_python, probe


def said(**env: str) -> str:
    out = probe("list", code=BACKEND, limit=60.0, **env)
    assert out.startswith("KLAW_BACKEND: ")
    assert "backend=ray" in out
    return out


def test_no_libklaw_ray(tmp_path: Path) -> None:
    out = said(KLAW_RAY_LIBRARY=str(tmp_path / "libklaw_ray.so"))
    assert "can't be loaded" in out
    assert "KLAW_RAY_LIBRARY" in out


def test_a_library_that_is_something_else() -> None:
    library = ctypes.util.find_library("m")
    assert library
    assert "is not klaw's Ray part" in said(KLAW_RAY_LIBRARY=library)


def test_no_python(tmp_path: Path) -> None:
    out = said(KLAW_PYTHON=str(tmp_path / "python"))
    assert "can't be run" in out
    assert "KLAW_PYTHON" in out


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    assert "does not answer as a Python interpreter" in said(KLAW_PYTHON=script(tmp_path, "echo hello\n"))


def test_another_version_of_python(tmp_path: Path) -> None:
    other = script(tmp_path, "printf '3.1\\n/usr/bin/python3.1\\nlibpython3.1.so\\n1\\n'\n")
    out = said(KLAW_PYTHON=other)
    assert "was built for Python" in out
    assert "is 3.1" in out


def test_a_python_without_a_shared_library(tmp_path: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    static = script(tmp_path, f"printf '{version}\\n/usr/bin/python3\\nlibpython.a\\n0\\n'\n")
    assert "no shared library" in said(KLAW_PYTHON=static)


def test_a_library_of_python_that_is_not_there(tmp_path: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    broken = script(tmp_path, f"printf '{version}\\n/usr/bin/python3\\n{tmp_path}/libpython.so\\n1\\n'\n")
    assert "library of Python can't be loaded" in said(KLAW_PYTHON=broken)


def test_a_python_without_klaw_core(tmp_path: Path) -> None:
    """A package of that name which is none of ours hides it."""
    (tmp_path / "klaw_core").mkdir()
    (tmp_path / "klaw_core" / "__init__.py").write_text("")
    out = said(PYTHONPATH=str(tmp_path))
    assert "has no klaw_core that can be used" in out


def test_a_python_without_ray(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('there is no Ray here')\n")
    out = said(PYTHONPATH=f"{tmp_path}:{BUILD / 'site'}")
    assert "the Ray backend can't be loaded" in out
    assert "pip install" in out


def test_nobody_at_the_address() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        out = said(RAY_ADDRESS=f"127.0.0.1:{taken.getsockname()[1]}")
    assert "nobody answers at 127.0.0.1" in out


def test_a_thread_of_python_that_holds_its_lock_is_refused_and_one_that_does_not_is_answered(tmp_path: Path) -> None:
    """The process is Python itself: its interpreter is used, and the answer needs the lock of it."""
    (tmp_path / "ray.py").write_text("raise ImportError('there is no Ray here')\n")
    out = inside_python(
        """
print(*names(ctypes.PyDLL))
print(*names(ctypes.CDLL))
print(*names(ctypes.PyDLL))
""",
        PYTHONPATH=f"{tmp_path}:{BUILD / 'site'}",
    )
    first, second, third = out.splitlines()
    assert first == third
    assert first.startswith(f"{BACKEND} the calling thread holds Python's lock")
    assert "Py_BEGIN_ALLOW_THREADS" in first
    assert second.startswith(f"{BACKEND} the Ray backend can't be loaded")


def test_a_python_program_ends_whichever_of_its_threads_was_the_first_to_ask(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('there is no Ray here')\n")
    out = inside_python(
        """
import _thread
assert "threading" not in sys.modules
over = _thread.allocate_lock()
over.acquire()
def other():
    print(names(ctypes.CDLL)[0])
    over.release()
_thread.start_new_thread(other, ())
over.acquire()
""",
        PYTHONPATH=f"{tmp_path}:{BUILD / 'site'}",
    )
    assert out == f"{BACKEND}\n"
