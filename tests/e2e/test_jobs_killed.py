# SPDX-License-Identifier: Apache-2.0
"""klaw run-jobs that is interrupted or killed: nothing that runs is left behind, nothing that finished runs again."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import KLAW, SEED, TIMEOUT
from test_jobs import Jobs, gone, logging

pytestmark = pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


@contextmanager
def started(jobs: Jobs, *args: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        jobs.argv(*args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=jobs.folder,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + TIMEOUT
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_asks_the_running_to_end_and_waits_for_them(jobs: Jobs, number: signal.Signals) -> None:
    polite = "trap 'sleep 0.3; echo bye >> log; exit 1' TERM; sleep 100 & echo $! > child; echo $$ > leader; wait"
    jobs.commands(*logging("a"), polite, *logging("b"))
    with started(jobs, "-j", 1, jobs.list) as process:
        pid_in(jobs.folder / "leader")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    assert jobs.logged() == {"a": 1, "bye": 1}  # it had the time to say so
    assert "once more" in err and "1 ok, 0 failed, 2 not finished" in out and "--resume list" in out
    assert gone(pid_in(jobs.folder / "leader")) and gone(pid_in(jobs.folder / "child"))
    assert jobs.results() == {1: "ok", 2: "interrupted", 3: "waiting"}
    jobs.commands(*logging("a"), polite, *logging("b"))
    assert "unfinished" in jobs.ok("--list")


def test_after_ctrl_c_the_rest_runs_and_nothing_else(jobs: Jobs) -> None:
    jobs.commands(*logging("a"), "false", "echo c >> log; [ -e go ] || sleep 100", *logging("d"))
    with started(jobs, "-j", 1, jobs.list) as process:
        until(lambda: jobs.logged()["c"] == 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    (jobs.folder / "go").touch()
    said = jobs.ok("--resume", code=1)
    assert "2 of 4 finished before" in said and "3 ok, 1 failed (2 before)" in said
    assert jobs.logged() == {"a": 1, "c": 2, "d": 1}


def test_who_waits_for_its_next_attempt_is_interrupted_at_once(jobs: Jobs) -> None:
    jobs.commands("echo x >> log; false")
    with started(jobs, "--retries", 5, "--backoff", "1h", jobs.list) as process:
        until(lambda: jobs.logged()["x"] == 1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert jobs.results() == {1: "interrupted"}


def test_a_second_ctrl_c_stops_at_once_and_takes_the_commands_with_it(jobs: Jobs) -> None:
    jobs.commands("trap '' TERM; sleep 0.3; echo $$ > leader; while :; do sleep 0.05; done")
    with started(jobs, "--grace", "1h", jobs.list) as process:
        leader = pid_in(jobs.folder / "leader")
        process.send_signal(signal.SIGINT)
        assert process.stderr and "once more" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGINT
    assert gone(leader)


def test_kill_9_takes_the_commands_with_it_and_they_run_again(jobs: Jobs) -> None:
    jobs.commands(
        *logging("a"), "sleep 100 & sleep 0.3; echo $! > child; echo $$ > leader; [ -e go ] || wait", *logging("c")
    )
    with started(jobs, "-j", 1, jobs.list) as process:
        leader, child = pid_in(jobs.folder / "leader"), pid_in(jobs.folder / "child")
        process.kill()
        process.wait(timeout=TIMEOUT)
    assert gone(leader) and gone(child)
    assert jobs.results() == {1: "ok", 2: "interrupted", 3: "waiting"}
    (jobs.folder / "go").touch()
    said = jobs.ok("--resume", "list")
    assert "1 command was cut off" in said and "3 ok, 0 failed (1 before)" in said
    assert jobs.logged() == {"a": 1, "c": 1}


@pytest.mark.parametrize(("number", "parallel"), [(signal.SIGKILL, 4), (signal.SIGINT, 20)])
def test_ended_at_random_moments(jobs: Jobs, number: signal.Signals, parallel: int) -> None:
    rng = random.Random(SEED)
    names = [f"n{i}" for i in range(60)]
    jobs.commands(
        *[f"sleep 0.0{rng.randrange(1, 5)}; echo {name} >> log; [ {i} != 7 ]" for i, name in enumerate(names)]
    )
    finished: dict[int, str] = {}
    counts = jobs.logged()
    for _ in range(8):
        with started(jobs, "-j", parallel, jobs.list) as process:
            try:
                process.communicate(timeout=rng.uniform(0.02, 0.4))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                process.communicate(timeout=TIMEOUT)
                # Early, or with what it has kept; that was the last command, or not.
                assert process.returncode in (-number, 128 + number, 1)
                time.sleep(0.05)  # a command that was just being started may live on for a moment
        if not jobs.store.exists() or jobs.run("--show", "list").returncode == 2:
            continue  # killed before it had begun
        now, logged = jobs.results(), jobs.logged()
        ended = {n: text for n, text in now.items() if text in ("ok", "exit code 1")}
        assert finished.items() <= ended.items()
        # What had finished before this round did not run in it.
        assert all(logged[names[n - 1]] == counts[names[n - 1]] for n in finished)
        finished, counts = ended, logged
    else:
        jobs.ok("--resume", "list", code=1)
    assert jobs.results() == {n: "exit code 1" if n == 8 else "ok" for n in range(1, 61)}
    assert all(jobs.logged()[name] >= 1 for name in names)
    assert all(jobs.logged()[names[n - 1]] == counts[names[n - 1]] for n in finished)


def test_only_one_works_at_a_run(jobs: Jobs) -> None:
    jobs.commands("echo $$ > leader; while [ ! -e go ]; do sleep 0.02; done")
    with started(jobs, jobs.list) as process:
        pid_in(jobs.folder / "leader")
        assert "another klaw run-jobs works at this run" in jobs.ok(jobs.list, code=3)
        assert jobs.run("--delete", "list").returncode == 3
        assert jobs.run("--restart", jobs.list).returncode == 3
        # Looking is allowed, and so are other runs in the same store.
        assert jobs.results() == {1: "running"}
        assert "running" in jobs.ok("--list")
        other = jobs.folder / "other"
        other.write_text("true\n")
        jobs.ok(other)
        (jobs.folder / "go").touch()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert os.path.exists(jobs.store)
