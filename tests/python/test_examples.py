# SPDX-License-Identifier: Apache-2.0
"""The examples run, and the two of a useful size do what their twins in C do, failures and kills included."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "python"
TIMEOUT = 60


def argv(name: str, *args: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, args)]


def run(name: str, *args: object, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv(name, *args), capture_output=True, text=True, timeout=TIMEOUT, check=False, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("[0-2]*.py")))
def test_numbered_examples_check_their_own_result(name: str) -> None:
    assert run(name).stdout


def test_the_program_of_the_readme_runs() -> None:
    [program] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stdout == "42\n"


# ---- wordcount


def words_of(*files: Path) -> Counter[str]:
    return Counter(
        word.decode(errors="replace").lower()
        for file in files
        for word in re.findall(rb"[A-Za-z0-9\x80-\xff]+", file.read_bytes())
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words across the edges of pieces, in a long word, in many small files, and nowhere."""
    root = tmp_path_factory.mktemp("tree")
    piece = 1 << 20
    for shift in (-1, 0, 1):
        (root / f"edge{shift}").write_bytes(b"w" * (piece + shift) + b" " + b"Second third " * 3)
        (root / f"split{shift}").write_bytes(b"." * (piece - 3 + shift) + b" across the edge" + b" x" * piece)
    (root / "long").write_bytes(b"L" * (2 * piece + 5))
    (root / "empty").write_bytes(b"")
    (root / "archive.GZ").write_bytes(b"packed")
    (root / "small").mkdir()
    for i in range(300):
        (root / "small" / f"{i}.txt").write_text(f"file {i} Größe don't\n" * (i % 7))
    (root / "link").symlink_to("long")
    return root


def counted(tree: Path) -> list[Path]:
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if path.suffix != ".GZ"]


def check(result: dict[str, Any], *files: Path) -> None:
    want = words_of(*files)
    assert result["files"] == len(files) and result["bytes"] == sum(file.stat().st_size for file in files)
    assert result["words"] == want.total() and result["distinct"] == len(want)
    assert {entry["word"].lower(): entry["count"] for entry in result["top"]} == dict(want)


def test_the_totals_are_those_of_an_independent_count(tree: Path, tmp_path: Path) -> None:
    result = json.loads(run("wordcount.py", "--json", "-n", 10**6, "-j", 2, "--no-checkpoint", tree).stdout)
    check(result, *counted(tree))
    assert result["skipped"] == {"unreadable": 0, "packed": 1, "links": 1, "special": 0}
    assert [channel["name"] for channel in result["channels"]] == ["batches", "tallies"]
    c_program = ROOT / "build" / "release" / "examples" / "wordcount"
    if c_program.exists():
        out = subprocess.run([c_program, "--json", tree], capture_output=True, timeout=TIMEOUT, check=True).stdout
        twin = json.loads(out)
        assert [twin[key] for key in ("files", "bytes", "words", "distinct")] == [
            result[key] for key in ("files", "bytes", "words", "distinct")
        ]


def test_chaos_changes_nothing_but_the_work(tree: Path) -> None:
    args = ("--json", "-n", 10**6, "-j", 2, "--seed", 1, "--no-checkpoint", "--chaos=50")
    result = json.loads(run("wordcount.py", *args, tree).stdout)
    check(result, *counted(tree))
    assert 0 < result["failures"] == result["restarts"] == result["recounted"]
    check(json.loads(run("wordcount.py", *args[:-1], "--chaos", tree).stdout), *counted(tree))  # no percentage


def checkpoints(store: Path) -> int:
    """How many values are in a store; it is an SQLite file."""
    with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        return int(database.execute("select count(*) from checkpoint").fetchone()[0])
    return 0


def test_a_killed_count_goes_on_and_counts_each_byte_once(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    args = ["--json", "-n", 10**6, "-j", 1, "--store", store, "--checkpoint-every", "20ms", *[tree] * 3]
    with subprocess.Popen(argv("wordcount.py", *args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + TIMEOUT
        while process.poll() is None and not checkpoints(store):
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.kill()
    killed = process.returncode == -signal.SIGKILL
    result = json.loads(run("wordcount.py", "--resume", *args).stdout)
    check(result, *counted(tree) * 3)
    assert result["resumed"] > 0 or not killed


def test_ctrl_c_reports_what_has_been_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = argv("wordcount.py", "--json", "-j", 1, "--progress", pipe)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        with pipe.open("wb", buffering=0) as writer:
            assert b"0 files" in process.stderr.readline()  # it has begun
            writer.write(b"one two three hal")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT)
    result = json.loads(out)
    assert process.returncode == 130, err
    assert (result["interrupted"], result["words"], result["bytes"], result["cut"]) == (True, 3, 14, 1)


def test_wrong_options_are_refused() -> None:
    run("wordcount.py", "--chaos=51", code=2)
    run("wordcount.py", "--resume", "-", code=2)
    run("wordcount.py", "/nowhere/at/all", code=1)


# ---- jobs


class Jobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list = folder / "list"

    def argv(self, *args: object) -> list[str]:
        return argv("jobs.py", "--store", self.folder / "jobs.db", *args)

    def ok(self, *args: object, code: int = 0) -> str:
        done = run("jobs.py", "--store", self.folder / "jobs.db", *args, code=code, cwd=self.folder)
        return done.stdout + done.stderr

    def commands(self, *lines: str) -> Path:
        self.list.write_text("".join(line + "\n" for line in lines))
        return self.list

    def logged(self) -> Counter[str]:
        log = self.folder / "log"
        return Counter(log.read_text().split()) if log.exists() else Counter()

    def wait_for(self, name: str) -> str:
        limit = time.monotonic() + TIMEOUT
        path = self.folder / name
        while not path.exists() or not path.read_text().endswith("\n"):
            assert time.monotonic() < limit
            time.sleep(0.01)
        return path.read_text()


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def gone(pid: int) -> bool:
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_commands_run_once_and_failures_are_told(jobs: Jobs) -> None:
    said = jobs.ok("-j", 4, jobs.commands("echo a >> log", "echo oh no; exit 3", "kill -9 $$", "# none", ""), code=1)
    assert "run list: 3 commands, 1 ok, 2 failed" in said and "exit code 3, 1 attempt" in said
    shown = jobs.ok("--show", "list")
    assert "exit code 3" in shown and "signal 9 (KILL)" in shown
    assert "oh no" in jobs.ok("--show", "list", 2)
    # Again: those that have finished do not run again, unless the failed ones are asked for.
    jobs.ok(jobs.list, code=1)
    jobs.ok("--resume", "--retry-failed", "list", code=1)
    assert jobs.logged() == Counter("a")
    assert "has other commands" in jobs.ok(jobs.commands("true"), code=2)
    jobs.ok("--delete", "list")
    assert jobs.ok("--list") == ""


def test_retries_and_time_limits(jobs: Jobs) -> None:
    jobs.commands('echo $JOBS_ATTEMPT >> log; [ "$JOBS_ATTEMPT" = 3 ]', "sleep 60 & echo $! > child; wait")
    said = jobs.ok("-j", 2, "--retries", 2, "--backoff", "1ms", "--timeout", "1s", jobs.list, code=1)
    assert "2 commands, 1 ok, 1 failed" in said and "time limit, 3 attempts" in said
    assert jobs.logged() == Counter("123")
    assert gone(int((jobs.folder / "child").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_behind_and_goes_on(jobs: Jobs, number: signal.Signals) -> None:
    jobs.commands("echo a >> log", "sleep 60 & echo $! > child; [ -e go ] || wait", "echo c >> log")
    with subprocess.Popen(jobs.argv("-j", 1, jobs.list), cwd=jobs.folder, stderr=subprocess.DEVNULL) as process:
        child = int(jobs.wait_for("child"))
        process.send_signal(number)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert gone(child)
    assert jobs.logged() == Counter("a")
    (jobs.folder / "go").touch()
    assert "3 commands, 3 ok, 0 failed (1 before)" in jobs.ok("--resume")
    assert jobs.logged() == Counter("ac")


# ---- the twin in C (klaw run-jobs), when it has been built

KLAW = next((p for build in ("release", "debug") if (p := ROOT / "build" / build / "bin" / "klaw").exists()), None)


class Twin(Jobs):
    """The same commands in a folder of their own, run by the program in C."""

    def argv(self, *args: object) -> list[str]:
        return [str(KLAW), "run-jobs", "--store", str(self.folder / "jobs.db"), *map(str, args)]

    def ok(self, *args: object, code: int = 0) -> str:
        done = subprocess.run(
            self.argv(*args), cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def without_times(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    return re.sub(r" *\b\d+(\.\d)? (ms|s)\b", " SPAN", text)


@pytest.mark.skipif(KLAW is None, reason="the klaw command has not been built")
@pytest.mark.parametrize("how", ["ends", "is interrupted", "is killed"])
def test_what_is_shown_is_what_the_twin_in_c_shows(tmp_path: Path, how: str) -> None:
    shown = []
    for one in (Jobs(tmp_path / "python"), Twin(tmp_path / "c")):
        one.folder.mkdir()
        one.commands(
            *("echo one", "printf 'a\\nb'; exit 3", "kill -9 $$", "# none", "/nowhere/command", "seq 2000"),
            *("echo $$ > leader; [ -e go ] || exec sleep 60", "echo \u00fc \u00b7 last", "echo one"),
        )
        if how == "ends":
            (one.folder / "go").touch()
            one.ok("-j", 1, "--retries", 1, "--backoff", "1ms", "--tail", 100, one.list, code=1)
        else:
            argv = one.argv("-j", 1, "--retries", 1, "--backoff", "1ms", "--tail", 100, one.list)
            with subprocess.Popen(argv, cwd=one.folder, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                leader = int(one.wait_for("leader"))
                while_running = [one.ok("--list"), one.ok("--show", "list"), one.ok("--show", "list", 6)]
                process.send_signal(signal.SIGINT if how == "is interrupted" else signal.SIGKILL)
            assert gone(leader)
            assert " running " in while_running[1]
            shown.append(while_running)
        looks = [one.ok("--list"), one.ok("--show", "list"), *(one.ok("--show", "list", n) for n in range(1, 9))]
        assert ("interrupted" in looks[1]) == ("waiting" in looks[1]) == (how != "ends")
        shown.append(looks)
    half = len(shown) // 2
    for ours, theirs in zip(shown[:half], shown[half:], strict=True):
        assert [without_times(text) for text in ours] == [without_times(text) for text in theirs]
