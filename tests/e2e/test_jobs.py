# SPDX-License-Identifier: Apache-2.0
"""klaw run-jobs from outside: commands run once, failures are tried again, results are kept and shown."""

import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import KLAW, TIMEOUT

pytestmark = pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build")


class Jobs:
    """A folder with a store, a list of commands, and a log that the commands write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "jobs.db"
        self.list = folder / "list"
        self.log = folder / "log"

    def argv(self, *args: object) -> list[str]:
        return [os.fspath(KLAW), "run-jobs", "--store", str(self.store), *map(str, args)]

    def run(self, *args: object, **more: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in more:
            more["stdin"] = subprocess.DEVNULL
        return subprocess.run(
            self.argv(*args), capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=self.folder, **more
        )

    def ok(self, *args: object, code: int = 0, **more: Any) -> str:
        done = self.run(*args, **more)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commands(self, *lines: str) -> Path:
        self.list.write_text("".join(line + "\n" for line in lines))
        return self.list

    def logged(self) -> Counter[str]:
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()

    def results(self, name: str = "list") -> dict[int, str]:
        """number -> result, as --show tells it."""
        found = re.findall(r"^ *(\d+)  (\S.{19}) ", self.ok("--show", name), re.MULTILINE)
        return {int(number): text.strip() for number, text in found}


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def logging(*words: str) -> list[str]:
    return [f"echo {word} >> log" for word in words]


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


# ---- running


def test_each_command_runs_once_and_the_summary_says_so(jobs: Jobs) -> None:
    said = jobs.ok("-j", 4, jobs.commands(*logging(*map(str, range(20)))))
    assert "run list: 20 commands, 20 ok, 0 failed" in said
    assert jobs.logged() == Counter(map(str, range(20)))
    assert set(jobs.results().values()) == {"ok"} and len(jobs.results()) == 20
    assert re.search(r"^done +20 +20 .* list$", jobs.ok("--list"), re.MULTILINE)


def test_commands_come_from_stdin_too_and_comments_are_none(jobs: Jobs) -> None:
    text = "# first\n\n  echo a >> log  \r\n\t\necho b >> log"
    assert "run stdin: 2 commands, 2 ok" in jobs.ok(input=text)
    assert "run again: 2 commands, 2 ok" in jobs.ok("-", "--name", "again", input=text)
    assert jobs.logged() == Counter({"a": 2, "b": 2})
    assert jobs.run(input="# nothing\n").returncode == 2


def test_so_many_run_at_a_time_and_not_more(jobs: Jobs) -> None:
    # Each waits until three are there, and none may see a fourth.
    wait = "i=0; while [ $(ls run | wc -l) -lt 3 ] && [ $i -lt 1000 ]; do sleep 0.01; i=$((i+1)); done; "
    command = f"mkdir run/$JOBS_NUMBER; {wait} ls run | wc -l >> log; [ $i -lt 1000 ]"
    (jobs.folder / "run").mkdir()
    jobs.ok("-j", 3, jobs.commands(*[command] * 3))
    depth = "echo + >> log; sleep 0.02; echo - >> log"
    jobs.log.unlink()
    jobs.ok("-j", 2, "-n", "two", jobs.commands(*[depth] * 12))
    running = most = 0
    for sign in jobs.log.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most == 2


def test_a_failure_is_told_and_makes_the_exit_code_one(jobs: Jobs) -> None:
    jobs.commands("true", "echo oh no; exit 3", "kill -9 $$", "/nowhere/command")
    done = jobs.run(jobs.list)
    assert done.returncode == 1
    assert "4 commands, 1 ok, 3 failed" in done.stdout
    assert "exit code 3, 1 attempt" in done.stderr and "#2 echo oh no" in done.stderr
    assert jobs.results() == {1: "ok", 2: "exit code 3", 3: "signal 9 (KILL)", 4: "exit code 127"}
    shown = jobs.ok("--show", "list", 2)
    assert "result    exit code 3" in shown and shown.endswith("\noh no\n")
    assert "not found" in jobs.ok("--show", "list", 4)
    assert re.search(r"^failed +1 +4 ", jobs.ok("--list"), re.MULTILINE)


def test_a_failing_command_is_tried_again(jobs: Jobs) -> None:
    jobs.commands("echo x >> log; [ $(wc -l < log) -ge 3 ]", "echo $JOBS_ATTEMPT >> tries; false")
    said = jobs.ok("--retries", 4, "--backoff", "1ms", jobs.list, code=1)
    assert "1 ok, 1 failed" in said and "6 attempts repeated" in said and "exit code 1, 5 attempts" in said
    assert jobs.logged() == Counter({"x": 3})
    assert (jobs.folder / "tries").read_text().split() == ["1", "2", "3", "4", "5"]
    assert "attempts  3" in jobs.ok("--show", "list", 1)


def test_the_backoff_is_waited_for(jobs: Jobs) -> None:
    jobs.commands("date +%s%N >> log; false")
    jobs.ok("--retries", 2, "--backoff", "200ms", jobs.list, code=1)
    first, second, third = map(int, jobs.log.read_text().split())
    assert second - first >= 100e6 and third - second >= 200e6  # half of it is chance


def test_a_time_limit_ends_a_command_with_all_it_has_started(jobs: Jobs) -> None:
    jobs.commands("sleep 100 & echo $! > child; echo $$ > leader; sleep 100; true")
    said = jobs.ok("--timeout", "300ms", "--retries", 1, "--backoff", "1ms", jobs.list, code=1)
    assert "time limit, 2 attempts" in said
    assert jobs.results() == {1: "time limit"}
    for name in ("child", "leader"):
        assert gone(int((jobs.folder / name).read_text()))


def test_who_ignores_sigterm_is_killed_after_the_grace(jobs: Jobs) -> None:
    jobs.commands("trap '' TERM; echo $$ > leader; while :; do sleep 0.01; done")
    start = time.monotonic()
    jobs.ok("--timeout", "100ms", "--grace", "200ms", jobs.list, code=1)
    assert time.monotonic() - start < 10
    assert gone(int((jobs.folder / "leader").read_text()))


def test_the_end_of_an_output_is_kept(jobs: Jobs) -> None:
    jobs.commands("seq 100000", "printf 'a\\nb'; echo c >&2", "printf ''")
    jobs.ok("--tail", 30, jobs.list)
    shown = jobs.ok("--show", "list", 1)
    assert "588895 bytes, the last 30:" in shown and shown.endswith("99997\n99998\n99999\n100000\n")
    assert jobs.ok("--show", "list", 2).endswith("a\nbc\n")
    jobs.ok("--tail", 0, "-n", "none", jobs.list)
    assert jobs.ok("--show", "none", 1).endswith("the last 0:\n")


def test_a_command_that_leaves_its_group_is_not_waited_for(jobs: Jobs) -> None:
    jobs.commands("setsid sleep 30 & echo $! > child; echo done")
    start = time.monotonic()
    jobs.ok(jobs.list)
    assert time.monotonic() - start < 20
    assert "done" in jobs.ok("--show", "list", 1)
    subprocess.run(["kill", (jobs.folder / "child").read_text().strip()], check=False)


def test_commands_have_their_environment_and_no_input(jobs: Jobs) -> None:
    jobs.commands("cat; echo $JOBS_RUN $JOBS_NUMBER $JOBS_ATTEMPT $JOBS_ID", "echo $JOBS_ID")
    jobs.ok("--name", "a run", jobs.list, input="not for you")
    first, second = (jobs.ok("--show", "a run", n).splitlines()[-1] for n in (1, 2))
    assert first.startswith("a run 1 1 ")
    assert first.removeprefix("a run 1 1 ") != second != ""


def test_odd_commands_stay_what_they_are(jobs: Jobs) -> None:
    long = "x" * 3000
    lines = ["printf '%s' 'a\tb' | od -c >> log", f"echo {long} >> log", "echo \u00fc\u00b7 >> log", "echo same >> log"]
    lines += ["echo same >> log", "echo same \u00b7 2 >> log", "echo same >> log", f"echo {long} >> log"]
    jobs.ok(jobs.commands(*lines))
    log = jobs.log.read_text()
    assert log.count(long) == 2 and log.count("same\n") == 3 and log.count("same \u00b7 2\n") == 1
    assert list(jobs.results().values()) == ["ok"] * 8
    assert f"command   echo {long}" in jobs.ok("--show", "list", 2)


def test_verbose_shows_the_outputs_and_quiet_nothing(jobs: Jobs) -> None:
    jobs.commands("echo one", "echo two; false")
    said = jobs.ok("-v", jobs.list, code=1)
    assert "\none\n" in said and "\ntwo\n" in said and "ok, 1 attempt" in said
    assert jobs.ok("-q", "-n", "quiet", jobs.list, code=1) == ""


def test_the_progress_line_is_for_terminals(jobs: Jobs) -> None:
    master, slave = os.openpty()
    argv = jobs.argv(jobs.commands("sleep 0.3", "true"))
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, timeout=TIMEOUT, check=True)
    os.set_blocking(master, False)
    assert b"finished, 0 failed" in os.read(master, 65536)
    os.close(slave)
    os.close(master)
    assert "\r" not in jobs.ok("-n", "other", jobs.list)


# ---- again


def test_what_has_finished_never_runs_again(jobs: Jobs) -> None:
    jobs.commands(*logging("a", "b"), "echo c >> log; [ -e now ]")
    jobs.ok(jobs.list, code=1)
    said = jobs.ok(jobs.list, code=1)
    assert "going on with run list: 3 of 3 finished before" in said and "2 ok, 1 failed (3 before)" in said
    assert jobs.logged() == Counter("abc")
    (jobs.folder / "now").touch()
    jobs.ok("--resume", "list", code=1)
    assert jobs.logged() == Counter("abc")
    assert "3 ok, 0 failed (2 before)" in jobs.ok("--resume", "--retry-failed", "list")
    assert jobs.logged() == Counter("abcc")
    assert "3 ok, 0 failed (3 before)" in jobs.ok(jobs.list)
    assert jobs.logged() == Counter("abcc")


def test_resume_needs_neither_the_commands_nor_the_options_again(jobs: Jobs) -> None:
    jobs.commands("echo x >> log; false")
    jobs.ok("--retries", 2, "--backoff", "1ms", jobs.list, code=1)
    jobs.list.unlink()
    jobs.ok("--resume", "--retry-failed", code=1)
    assert jobs.logged() == Counter({"x": 6})
    jobs.ok("--resume", "--retry-failed", "--retries", 0, "list", code=1)
    assert jobs.logged() == Counter({"x": 7})


def test_other_commands_under_the_same_name_are_refused_unless_allowed(jobs: Jobs) -> None:
    jobs.ok(jobs.commands(*logging("a", "b"), "false"), code=1)
    jobs.commands(*logging("a", "new", "b"), "false")
    said = jobs.ok(jobs.list, code=2)
    assert "has other commands" in said and "echo new" in said and "--allow-changes" in said
    assert jobs.logged() == Counter("ab")
    assert "3 ok, 1 failed (3 before)" in jobs.ok("--allow-changes", jobs.list, code=1)
    assert jobs.logged() == Counter(["a", "b", "new"])
    assert len(jobs.results()) == 4
    jobs.ok(jobs.list, code=1)


def test_restart_forgets(jobs: Jobs) -> None:
    jobs.ok(jobs.commands(*logging("a")))
    jobs.commands(*logging("a", "b"))
    assert "2 ok, 0 failed;" in jobs.ok("--restart", jobs.list)
    assert jobs.logged() == Counter("aab")


def test_delete_forgets_all(jobs: Jobs) -> None:
    jobs.ok(jobs.commands(*logging("a")))
    jobs.ok("--delete", "list")
    assert jobs.ok("--list") == ""
    assert jobs.run("--delete", "list").returncode == 2
    assert jobs.run("--show", "list").returncode == 2
    jobs.ok(jobs.list)
    assert jobs.logged() == Counter("aa")


def test_runs_do_not_meet(jobs: Jobs) -> None:
    jobs.commands(*logging("a"))
    for name in ("one", "one more", "o"):
        jobs.ok("-n", name, jobs.list)
    jobs.ok("--delete", "one")
    assert len(jobs.results("one more")) == len(jobs.results("o")) == 1
    assert jobs.ok("--list").count("done") == 2


# ---- what goes wrong


@pytest.mark.parametrize(
    "args",
    [
        *(["--what"], ["-j", "0"], ["-j", "x"], ["-r", "-1"], ["-t", "1d"], ["--tail", "-1"], ["missing"], ["a", "b"]),
        *(["--name", "a/b", "list"], ["--name", "x" * 101, "list"], ["--show"], ["--list", "x"], ["--store", "", "x"]),
        *(
            ["--resume", "--restart"],
            ["--resume", "unknown"],
            ["--resume"],
            ["--show", "l", "0"],
            ["--show", "unknown"],
        ),
    ],
)
def test_wrong_usage_is_refused(jobs: Jobs, args: list[str]) -> None:
    jobs.commands("true")
    done = jobs.run(*args)
    assert done.returncode == 2 and done.stderr.startswith("klaw run-jobs: ") and done.stdout == ""


def test_help_teaches(jobs: Jobs) -> None:
    text = jobs.ok("--help")
    for word in (
        "usage:",
        "--jobs",
        "--retries",
        "--timeout",
        "--resume",
        "--show",
        "Ctrl-C",
        "Exit status",
        "Example",
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_damaged_store_is_named(jobs: Jobs) -> None:
    jobs.store.write_bytes(b"this is no database " * 1000)
    said = jobs.ok(jobs.commands("true"), code=3)
    assert str(jobs.store) in said


def test_a_store_that_cannot_be_made_is_named(jobs: Jobs) -> None:
    done = subprocess.run(
        [KLAW, "run-jobs", "--store", "/proc/nowhere/jobs.db", jobs.commands("true")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 3 and "/proc/nowhere" in done.stderr


def test_the_default_store_is_among_the_checkpoints(jobs: Jobs) -> None:
    environment = {**os.environ, "KLAW_CHECKPOINT_PATH": str(jobs.folder / "kept")}
    argv = [KLAW, "run-jobs", jobs.commands("true")]
    subprocess.run(argv, env=environment, capture_output=True, timeout=TIMEOUT, check=True)
    assert (jobs.folder / "kept" / "jobs.db").stat().st_mode & 0o777 == 0o600
