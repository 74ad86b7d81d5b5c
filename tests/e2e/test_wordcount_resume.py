# SPDX-License-Identifier: Apache-2.0
"""wordcount that is killed and goes on: the totals are those of a run that was not."""

import functools
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SEED, TIMEOUT, WORDCOUNT, Naive, naive, run, totals


@pytest.fixture(scope="module")
def paths(tree: Path) -> list[Path]:
    """Enough to be interrupted in the middle of."""
    return [*[tree / "deep", tree / "big"] * 10, tree]


@functools.cache
def naive_of(path: Path) -> Naive:
    return naive(path)


def expected(paths: list[Path], *more: Path) -> tuple[int, int, int, int]:
    """Files, bytes, words, distinct words; each folder is counted once."""
    counts = [naive_of(path) for path in paths] + [naive(path) for path in more]
    distinct = set[bytes]().union(*{id(count): count.words.keys() for count in counts}.values())
    return (
        sum(count.files for count in counts),
        sum(count.size for count in counts),
        sum(count.words.total() for count in counts),
        len(distinct),
    )


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory, paths: list[Path]) -> float:
    """How long counting them takes here and now, in seconds."""
    store = tmp_path_factory.mktemp("takes") / "store.db"
    start = time.monotonic()
    subprocess.run(command(store, *paths), stdout=subprocess.DEVNULL, timeout=TIMEOUT, check=True)
    return time.monotonic() - start


def command(store: Path, *args: object) -> list[str]:
    return [os.fspath(WORDCOUNT), "--json", "--store", str(store), "--checkpoint-every", "10ms", *map(str, args)]


def go_on(store: Path, *args: object, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(command(store, "--resume", *args), capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == code, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def fails(store: Path, *args: object) -> str:
    done = subprocess.run(command(store, "--resume", *args), capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1 and done.stdout == b""
    return done.stderr.decode()


def keys(store: Path) -> int:
    """How many values are in the store; it is an SQLite file."""
    if not store.exists():
        return 0
    with sqlite3.connect(store) as database:
        tables = database.execute("select count(*) from sqlite_master where name = 'checkpoint'").fetchone()[0]
        return int(database.execute("select count(*) from checkpoint").fetchone()[0]) if tables else 0


def interrupt(store: Path, number: signal.Signals, after: float, *args: object) -> tuple[bool, bytes]:
    """Starts a count and sends it a signal. Whether that came in time, and what it said."""
    with subprocess.Popen(command(store, *args), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        time.sleep(after)
        process.send_signal(number)
        out, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (0, -number, 128 + number)
    return process.returncode != 0, out


def halfway(store: Path, *args: object) -> None:
    """Leaves the checkpoint of a run that did not end."""
    wait = 0.02
    for _ in range(40):
        # Until something has been counted.
        in_time, out = interrupt(store, signal.SIGINT, wait, *args)
        begun = not in_time or (out and json.loads(out)["bytes"] > 0)
        if in_time and begun:
            return
        wait = wait / 2 if begun else wait * 1.5
    pytest.fail("it is always too fast, or too slow")


@pytest.mark.parametrize("chaos", [[], ["--chaos=10"]])
def test_kill_9_at_random_moments_loses_nothing(
    tmp_path: Path, paths: list[Path], takes: float, chaos: list[str]
) -> None:
    rng = random.Random(SEED)
    want = expected(paths)
    kills = resumed = 0
    for round_ in range(2):
        store = tmp_path / f"{round_}.db"
        killed, _ = interrupt(store, signal.SIGKILL, rng.uniform(0, takes), *chaos, *paths)
        kills += killed
        # Some runs die more than once.
        while killed and rng.random() < 0.5:
            killed, _ = interrupt(store, signal.SIGKILL, rng.uniform(0, takes), "--resume", *chaos, *paths)
        result = go_on(store, *chaos, *paths)
        assert totals(result) == want
        assert not result["interrupted"]
        resumed += result["resumed"]
    print(f"{kills} kills, {resumed} bytes gone on from")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_going_on_count_each_byte_once(
    tmp_path: Path, paths: list[Path], takes: float, number: signal.Signals
) -> None:
    store = tmp_path / "store.db"
    want = expected(paths)
    rng = random.Random(SEED)
    halfway(store, *paths)
    for _ in range(2):
        if not interrupt(store, number, rng.uniform(0, takes / 2), "--resume", *paths)[0]:
            halfway(store, *paths)
    result = go_on(store, "-n", 10_000_000, *paths)
    assert totals(result) == want
    assert sum(entry["count"] for entry in result["top"]) == want[2]
    assert result["resumed"] > 0


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, paths: list[Path]) -> None:
    store = tmp_path / "store.db"
    for _ in range(20):
        with subprocess.Popen(command(store, *paths), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            time.sleep(0.05)
            p.send_signal(signal.SIGINT)
            _, err = p.communicate(timeout=TIMEOUT)
        if p.returncode == 130:
            assert b"--resume goes on from here" in err and os.fsencode(store) in err
            return
    pytest.fail("it is always too fast")


def test_a_run_that_ends_well_leaves_no_checkpoint(tmp_path: Path, tree: Path, paths: list[Path]) -> None:
    store = tmp_path / "store.db"
    halfway(store, *paths)
    go_on(store, *paths)
    assert keys(store) == 0
    done = run("--resume", "--store", store, "--json", tree)
    assert done.returncode == 0
    assert b"no checkpoint of this input" in done.stderr and b"from the beginning" in done.stderr
    assert totals(json.loads(done.stdout)) == expected([tree])


def test_another_input_has_no_part_in_it(tmp_path: Path, tree: Path, paths: list[Path]) -> None:
    store = tmp_path / "store.db"
    halfway(store, *paths)
    done = run("--resume", "--store", store, "--json", tree)
    assert b"only of: " + os.fsencode(paths[0]) in done.stderr
    assert totals(json.loads(done.stdout)) == expected([tree])
    assert go_on(store, *paths)["resumed"] > 0


@pytest.mark.parametrize("change", ["written", "new", "gone"])
def test_changed_input_is_noticed(tmp_path: Path, paths: list[Path], change: str) -> None:
    folder, store = tmp_path / "input", tmp_path / "store.db"
    folder.mkdir()
    first = folder / "a"
    first.write_bytes(b"one two\n")
    halfway(store, folder, *paths)
    if change == "written":
        first.write_bytes(b"one two three\n")
    elif change == "new":
        (folder / "A").write_bytes(b"")
    else:
        first.unlink()
    said = fails(store, folder, *paths)
    assert "no longer the one" in said and str(store) in said and "without --resume" in said
    # From the beginning it can be counted.
    done = subprocess.run(command(store, folder, *paths), capture_output=True, timeout=TIMEOUT, check=True)
    assert totals(json.loads(done.stdout)) == expected(paths, folder)


def test_a_damaged_store_is_named(tmp_path: Path, tree: Path, paths: list[Path]) -> None:
    store = tmp_path / "store.db"
    halfway(store, *paths)
    data = bytearray(store.read_bytes())
    for at in range(4096, len(data), 509):
        data[at] ^= 0x5A
    store.write_bytes(data)
    assert str(store) in fails(store, *paths)
    store.write_bytes(b"this is no database " * 1000)
    assert str(store) in fails(store, tree)


def test_a_store_that_something_else_has_written_to_is_refused(tmp_path: Path, paths: list[Path]) -> None:
    store = tmp_path / "store.db"
    halfway(store, *paths)
    with sqlite3.connect(store) as database:
        database.execute("update checkpoint set version = version + 1")
    assert str(store) in fails(store, *paths)


def test_a_store_that_cannot_be_opened_is_an_error_only_when_it_was_asked_for(tree: Path, paths: list[Path]) -> None:
    missing = Path("/proc/nowhere/store.db")
    done = run("--json", "--store", missing, tree)
    assert done.returncode == 1 and b"/proc/nowhere" in done.stderr
    environment = {**os.environ, "KLAW_CHECKPOINT_PATH": "/proc/nowhere"}
    done = run("--json", "--checkpoint-every", "0ms", *paths, env=environment)
    assert done.returncode == 0 and done.stderr.count(b"no checkpoint is kept") == 1
    assert totals(json.loads(done.stdout)) == expected(paths)


def test_pipes_cannot_be_gone_on_with(tmp_path: Path) -> None:
    done = run("--resume", "-", input=b"one")
    assert done.returncode == 2 and b"'-' is a pipe" in done.stderr
    assert run("--resume", "--no-checkpoint", tmp_path).returncode == 2


@pytest.mark.parametrize("value", ["", "x", "5", "1h", "-1s"])
def test_times_have_a_form(value: str, tmp_path: Path) -> None:
    done = run("--checkpoint-every", value, tmp_path)
    assert done.returncode == (0 if value == "5" else 2)
