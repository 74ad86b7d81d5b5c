# SPDX-License-Identifier: Apache-2.0
"""The log of a durable channel (ChannelLog): what was appended is there, for the right channel and holder."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from klaw_core._klaw import ChannelLog
from klaw_core.runtime import BackendErrorException

ID = b"0123456789abcdef"


def test_snapshot_and_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "own" / "log.db"
    log = ChannelLog(path, ID)
    assert log.load() == (None, [])
    log.append(b"a")
    log.append(bytearray(b"b" * 5000))
    assert log.sizes() == (2, 5001, 0)
    log.compact(b"snap")
    log.append(b"c")
    del log
    log = ChannelLog(str(path), ID, existing=True)
    assert log.load() == (b"snap", [b"c"])
    assert log.sizes() == (1, 1, 4)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(b"d")


def test_another_channels_log_and_a_missing_one_are_errors_of_the_backend(tmp_path: Path) -> None:
    path = tmp_path / "own" / "log.db"
    with pytest.raises(BackendErrorException):
        ChannelLog(path, ID, existing=True)
    assert not path.exists()
    ChannelLog(path, ID)
    with pytest.raises(BackendErrorException, match="another channel"):
        ChannelLog(path, b"f" * 16)
    with pytest.raises(ValueError, match="16 bytes"):
        ChannelLog(path, b"short")
    (path).write_bytes(b"no store" * 1000)
    with pytest.raises(BackendErrorException):
        ChannelLog(path, ID)


def test_the_last_to_open_is_the_only_holder(tmp_path: Path) -> None:
    old = ChannelLog(tmp_path / "log.db", ID)
    new = ChannelLog(tmp_path / "log.db", ID)
    new.append(b"x")
    with pytest.raises(BackendErrorException, match="taken over"):
        old.append(b"y")
    assert new.load() == (None, [b"x"])


def test_threads_append_one_after_the_other(tmp_path: Path) -> None:
    log = ChannelLog(tmp_path / "log.db", ID)
    threads = [threading.Thread(target=lambda n=n: [log.append(b"%d" % n) for _ in range(5)]) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(log.load()[1]) == sorted(b"%d" % n for n in range(4) for _ in range(5))


CHILD = """
import os, signal, sys
from klaw_core._klaw import ChannelLog
log = ChannelLog(sys.argv[1], bytes(range(16)))
for i in range(1 << 20):
    log.append(b"%d" % i)
    os.write(1, b"c")
"""


def test_what_was_confirmed_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    confirmed = child.stdout.read(20)
    child.kill()
    confirmed += child.stdout.read()
    child.wait()
    child.stdout.close()
    snapshot, records = ChannelLog(path, bytes(range(16)), existing=True).load()
    assert snapshot is None
    assert len(confirmed) <= len(records) <= len(confirmed) + 1
    assert records == [b"%d" % i for i in range(len(records))]
