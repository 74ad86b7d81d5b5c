# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a count. A pipe that stays open makes sure that it is the middle."""

import array
import fcntl
import json
import os
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, WORDCOUNT, naive, totals


@contextmanager
def counting(pipe: Path, *args: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """wordcount, which reads a pipe whose other end is ours and will not be closed."""
    os.mkfifo(pipe)
    command: list[str | Path] = [WORDCOUNT, *map(str, args), pipe]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        fd = os.open(pipe, os.O_WRONLY)
        try:
            yield process, fd
        finally:
            process.kill()
            os.close(fd)


def write_and_see_it_read(fd: int, data: bytes) -> None:
    """Returns when the program has taken everything out of the pipe."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    limit = time.monotonic() + TIMEOUT
    left = array.array("i", [1])
    while left[0]:
        assert time.monotonic() < limit
        fcntl.ioctl(fd, termios.FIONREAD, left)


def finish(process: subprocess.Popen[bytes], code: int) -> dict[str, Any]:
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, err.decode()
    result: dict[str, Any] = json.loads(out)
    assert result["interrupted"]
    return result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_exactly_what_it_has_read(tmp_path: Path, number: signal.Signals) -> None:
    text = b"Alpha beta  beta\n" * 40000  # more than one chunk
    with counting(tmp_path / "pipe", "--json") as (process, fd):
        write_and_see_it_read(fd, text + b"gamma del")
        process.send_signal(number)
        result = finish(process, 128 + number)
    # The last word may not be whole and is left out; so is the file, which has not ended.
    assert totals(result) == (0, len(text) + len(b"gamma "), 3 * 40000 + 1, 3)
    assert result["cut"] == 1


def test_ctrl_c_with_much_to_do_gives_consistent_partial_totals(tmp_path: Path, tree: Path) -> None:
    full = naive(tree)
    with counting(tmp_path / "pipe", "--json", "-n", 10_000_000, *[tree] * 20) as (process, fd):
        os.write(fd, b"x")
        process.send_signal(signal.SIGINT)
        result = finish(process, 130)
    files, size, words, distinct = totals(result)
    assert files <= 20 * full.files and size <= 20 * full.size and distinct <= len(full.words)
    assert words == sum(entry["count"] for entry in result["top"]) <= 20 * full.words.total()
    assert distinct == len(result["top"])
    assert result["cut"] >= 1


def test_it_says_so_to_people(tmp_path: Path) -> None:
    with counting(tmp_path / "pipe") as (process, fd):
        write_and_see_it_read(fd, b"one two three ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert b"so far: 0 files, 14 bytes, 3 words, 3 distinct" in out
    assert b"interrupted: these totals are partial (1 files cut short)" in out
    assert b"wordcount: stopping; once more to stop at once" in err


def test_ctrl_c_before_anybody_opened_the_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [WORDCOUNT, "--json", "--progress", pipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        assert b"0 files" in process.stderr.readline()  # it has begun
        process.send_signal(signal.SIGINT)
        result = finish(process, 130)
    assert totals(result) == (0, 0, 0, 0)


def test_it_is_over_soon(tmp_path: Path, tree: Path) -> None:
    with counting(tmp_path / "pipe", "--json", tree) as (process, fd):
        write_and_see_it_read(fd, b"one")
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        finish(process, 130)
    assert time.monotonic() - start < 10


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    # The report can't be written, for nobody reads: so the program is still there for the second one.
    words = b" ".join(b"%d" % i for i in range(200000)) + b" "
    with counting(tmp_path / "pipe", "-n", 1_000_000) as (process, fd):
        write_and_see_it_read(fd, words)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert b"once more" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=TIMEOUT) == -signal.SIGINT
