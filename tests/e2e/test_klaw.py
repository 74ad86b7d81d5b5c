# SPDX-License-Identifier: Apache-2.0
"""The klaw command against running programs: ps, stats, tree, doctor, workflow, help and completion."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BUILD, KLAW, PATIENT
from klaw_command import Klaw, needs_klaw

pytestmark = needs_klaw
VERBS = ["ps", "top", "tree", "stats", "doctor", "channel", "workflow", "run-jobs", "completion"]


@pytest.fixture
def klaw(tmp_path: Path) -> Iterator[Klaw]:
    made = Klaw(tmp_path)
    yield made
    made.close()


# ---- finding processes


def test_ps_lists_who_is_open_and_nobody_else(klaw: Klaw) -> None:
    assert klaw.ok("ps") == "" and klaw.ok("ps", "--quiet") == "" and klaw.json("ps", "--json") == []
    with klaw.patient("healthy") as one, klaw.patient("storm") as two:
        pids = sorted([one.pid, two.pid])
        assert klaw.ok("ps", "--quiet").split() == list(map(str, pids))
        said = klaw.ok("ps")
        assert "patient healthy" in said and "patient storm" in said
        assert [s["pid"] for s in klaw.json("ps", "--json")] == pids
        assert {s["program"] for s in klaw.json("ps", "--json")} == {"patient"}
        assert klaw.run("tree").returncode == 3  # which one?
        assert klaw.run("tree", "patient").returncode == 3
    assert klaw.run("tree").returncode == 3


def test_a_process_that_is_stopped_does_not_hold_up_the_others(klaw: Klaw) -> None:
    with klaw.patient("healthy") as one, klaw.patient("storm") as two:
        one.send_signal(signal.SIGSTOP)
        try:
            done = klaw.run("ps", "--json")
        finally:
            one.send_signal(signal.SIGCONT)
        assert done.returncode == 3 and f"process {one.pid}: no answer within 2 s" in done.stderr
        assert [s["pid"] for s in json.loads(done.stdout)] == [two.pid]


def test_sockets_are_their_users_and_stale_ones_are_removed(klaw: Klaw) -> None:
    with klaw.patient("healthy") as process:
        path = klaw.sockets / f"{process.pid}.sock"
        assert path.stat().st_mode & 0o777 == 0o600 and klaw.sockets.stat().st_mode & 0o777 == 0o700
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        assert klaw.ok("ps", "--quiet") == ""
        assert not path.exists()
    with klaw.patient("healthy") as process:
        path = klaw.sockets / f"{process.pid}.sock"
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0


def test_a_process_that_ends_normally_takes_its_socket_along(klaw: Klaw) -> None:
    hello = BUILD / "examples" / "01_hello"
    done = subprocess.run([hello], env=klaw.env | {"KLAW_INSPECT": "1"}, capture_output=True, check=True, timeout=60)
    assert done.stderr == b"" and list(klaw.sockets.iterdir()) == []


def test_a_wrong_environment_is_told_and_a_folder_of_others_only_warned_about(klaw: Klaw) -> None:
    hello = BUILD / "examples" / "01_hello"
    done = subprocess.run([hello], env=klaw.env | {"KLAW_INSPECT": "on"}, capture_output=True, check=False, timeout=60)
    assert done.returncode != 0 and b"KLAW_INSPECT is 'on'" in done.stderr
    klaw.sockets.mkdir(mode=0o777)
    klaw.sockets.chmod(0o777)
    done = subprocess.run([hello], env=klaw.env | {"KLAW_INSPECT": "1"}, capture_output=True, check=True, timeout=60)
    assert b"0700" in done.stderr
    assert klaw.ok("ps", "--quiet") == ""


def test_a_socket_that_says_nonsense_is_told(klaw: Klaw) -> None:
    klaw.sockets.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(klaw.sockets / f"{os.getpid()}.sock"))
        server.listen()
        for answer in (
            b"HTTP/1.1 200\r\n",
            b"klaw/1 ok 99999999999999\n",
            b"klaw/1 ok 5\nhello",
            b"",
            b"klaw/1 ok 9\n{}",
        ):
            with subprocess.Popen(
                [KLAW, "tree", str(os.getpid())], env=klaw.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                served = False
                while not served:  # the first calls only look whether somebody is there
                    peer, _ = server.accept()
                    with peer:
                        if peer.recv(100):
                            peer.sendall(answer)
                            served = True
                _, said = process.communicate(timeout=60)
                assert process.returncode == 3 and said.startswith(b"klaw tree: process"), said


def test_a_process_that_dies_while_it_is_asked(klaw: Klaw) -> None:
    with (
        klaw.patient("healthy") as process,
        subprocess.Popen(
            [KLAW, "stats", "--json", "--every", "50ms", str(process.pid)],
            env=klaw.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout and json.loads(watching.stdout.readline())["pid"] == process.pid
        process.kill()
        _, said = watching.communicate(timeout=60)
        assert watching.returncode == 3 and "ended" in said


# ---- numbers and trees


def test_stats_are_numbers_for_people_and_programs(klaw: Klaw) -> None:
    with klaw.patient("healthy") as process:
        lines = klaw.ok("stats", "--json", "--every", "20ms", "--times", 3).splitlines()
        assert len(lines) == 3
        first, _, last = map(json.loads, lines)
        assert first["pid"] == process.pid and first["actors"] == 1 and first["tasks"] == 2 and first["workers"] == 2
        assert last["total_sent"] >= first["total_sent"]
        said = klaw.ok("stats", process.pid)
        assert "fibers" in said and "restarts" in said
        snapshot = klaw.json("stats", "--snapshot", "patient")
        assert {c["name"] for c in snapshot["channels"]} == {"ticks", "ticker"}
        assert {e["channel_id"] for e in snapshot["endpoints"]} == {c["id"] for c in snapshot["channels"]}


def test_the_tree_shows_supervisors_and_scopes(klaw: Klaw) -> None:
    with klaw.patient("storm"):
        while not klaw.json("stats", "--json")["restarts"]:
            pass
        said = klaw.ok("tree", "--supervisors")
        lines = [re.sub(r" \(.*", "", line) for line in said.splitlines()]
        assert lines == ["outer", "├─ inner", "│  ├─ flaky", "│  └─ steady", "└─ base"]
        assert re.search(r"flaky .* [1-9]\d* restarts?, last: the backend failed", said)
        assert "input" in klaw.ok("tree")
        assert "… 1 more" in klaw.ok("tree", "--supervisors", "--max", 1)
    with klaw.patient("healthy"):
        said = klaw.ok("tree")
        assert "consumer" in said and "recv on #1 ticks" in said and "counter (actor 1" in said
        assert klaw.ok("tree", "--supervisors") == "no supervisors\n"


def test_names_of_others_do_not_reach_the_terminal(klaw: Klaw) -> None:
    with klaw.patient("names"):
        for verb in (["tree"], ["top", "--once", "--every", "50ms"], ["doctor", "--for", "50ms"]):
            said = klaw.ok(*verb)
            assert all(c == "\n" or ord(c) >= 32 for c in said), repr(said)
        assert "?[2J?bell?and tab" in klaw.ok("tree")


# ---- the doctor


def test_a_healthy_program_has_nothing(klaw: Klaw) -> None:
    with klaw.patient("healthy") as process:
        assert klaw.findings(process.pid) == []
        assert "nothing found" in klaw.ok("doctor", "--for", "50ms")
        assert [d["pid"] for d in klaw.json("doctor", "--all", "--json", "--for", "50ms")] == [process.pid]


def test_a_ring_is_named_though_others_live(klaw: Klaw) -> None:
    with klaw.patient("ring") as process:
        (found,) = klaw.findings(process.pid)
        assert found["kind"] == "deadlock" and found["behind"] == 1
        assert {re.sub(r" \(.*", "", h["name"]) for h in found["hosts"]} == {"fiber 'left'", "fiber 'right'"}
        said = klaw.ok("doctor", "--for", "50ms", code=1)
        assert "fiber 'left' (#" in said and "channel 'to left'" in said and "and 1 more waits for them" in said


def test_a_program_in_which_nobody_is_left_is_a_deadlock(klaw: Klaw) -> None:
    with klaw.patient("all") as process:
        (found,) = klaw.findings(process.pid)
        assert found["kind"] == "deadlock" and len(found["hosts"]) + found["behind"] == 3
        assert "has made" in found["text"]


def test_actors_that_ask_each_other_are_a_deadlock(klaw: Klaw) -> None:
    with klaw.patient("asks") as process:
        (found,) = klaw.findings(process.pid)
        assert {re.sub(r" \(.*", "", h["name"]) for h in found["hosts"]} == {"actor 'shop'", "actor 'bank'"}


@pytest.mark.parametrize(
    ("ill", "kind", "text"),
    [
        (
            "stuck",
            "stuck",
            "actor 'clerk' (#1) handles nothing, 4 messages wait; it waits to receive from channel 'never'",
        ),
        ("leak", "leak", "channel 'results' (#1), whose other ends were left open by fibers that have ended"),
        ("growing", "growing", "channel 'log lines' (#1): "),
        ("stalled", "stalled", "channel 'orders' (#1) is full, 1 wait to send"),
        ("storm", "restarts", "supervisor 'inner' (#2): "),
    ],
)
def test_each_ill_has_its_name(klaw: Klaw, ill: str, kind: str, text: str) -> None:
    with klaw.patient(ill) as process:
        (found,) = klaw.findings(process.pid, "500ms")
        assert found["kind"] == kind and text in found["text"]


def test_the_doctor_stands_ten_thousand_actors(klaw: Klaw) -> None:
    with klaw.patient("many") as process:
        assert klaw.findings(process.pid) == []
        said = klaw.ok("top", "--once", "--every", "100ms", "--view", "actors", "--lines", 5)
        assert "4 actors 10000" in said and "and 9995 more" in said
        assert "actor 4711" in klaw.ok("top", "-1", "-e", "100ms", "-v", "actors", "-f", "actor 4711")


# ---- workflows


def test_workflows_are_listed_shown_cancelled_and_resumed(klaw: Klaw, tmp_path: Path) -> None:
    store = klaw.stores / "jobs.db"
    commands = tmp_path / "list"
    commands.write_text("echo a >> log\n[ -e go ] || exit 3\n")
    assert klaw.json("workflow", "ls", "--json") == []
    klaw.ok("run-jobs", "--store", store, commands, code=1, cwd=tmp_path)
    (one,) = klaw.json("workflow", "ls", "--json")
    assert one["name"] == "jobs/list" and one["state"] == "failed" and one["store"] == str(store)
    assert one["steps"] == 2 and one["steps_done"] == 1
    assert re.search(r"^failed +1/2 .* jobs/list$", klaw.ok("workflow", "ls"), re.MULTILINE)
    assert klaw.ok("workflow", "ls", "other/") == ""
    steps = klaw.json("workflow", "show", "--json", "jobs/list")["step_list"]
    assert [s["state"] for s in steps] == ["done", "failed"] and steps[1]["message"] == "exit code 3"
    assert "exit code 3" in klaw.ok("workflow", "show", "jobs/list")
    klaw.ok("workflow", "cancel", "--reason", "enough", "jobs/list")
    shown = klaw.json("workflow", "show", "--json", "jobs/list")
    assert shown["state"] == "cancelled" and shown["message"] == "enough"
    (tmp_path / "go").touch()
    # A run of run-jobs goes on at once; a command that failed for good is finished unless it is told otherwise.
    said = klaw.ok("workflow", "resume", "jobs/list", code=1, cwd=tmp_path)
    assert "2 commands, 1 ok, 1 failed" in said
    resume = ["workflow", "resume", "jobs/list", "--", KLAW, "run-jobs", "--store", store, "--resume", "--retry-failed"]
    assert "2 commands, 2 ok" in klaw.ok(*resume, "list", cwd=tmp_path)
    assert (tmp_path / "log").read_text() == "a\n"
    assert klaw.run("workflow", "resume", "jobs/list").returncode == 1
    assert klaw.run("workflow", "cancel", "jobs/list").returncode == 1
    assert klaw.run("workflow", "show", "none").returncode == 2
    assert klaw.run("workflow", "ls", "--store", "nowhere.db").returncode == 2
    assert not Path("nowhere.db").exists()


def test_a_store_that_is_none_is_told(klaw: Klaw) -> None:
    (klaw.stores / "broken.db").write_bytes(b"nothing" * 1000)
    done = klaw.run("workflow", "ls")
    assert done.returncode == 3 and "broken.db" in done.stderr


# ---- channels on Ray (with a cluster: tests/python)


def test_without_libklaw_ray_a_channel_says_what_is_missing(klaw: Klaw) -> None:
    klaw.env |= {"KLAW_RAY_LIBRARY": "/nowhere/libklaw_ray.so"}
    for verb in (["ls"], ["send", "x"], ["recv", "x"], ["rm", "x"]):
        done = klaw.run("channel", *verb)
        assert done.returncode == 3 and "/nowhere/libklaw_ray.so" in done.stderr and done.stdout == ""


# ---- the command line


def test_help_teaches_each_verb(klaw: Klaw) -> None:
    said = klaw.ok("--help")
    assert klaw.run().returncode == 2 and klaw.run("no-verb").returncode == 2
    assert klaw.ok("--version").startswith("klaw ")
    for verb in VERBS:
        assert re.search(rf"^  {verb} +\w", said, re.MULTILINE)
        text = klaw.ok(verb, "--help")
        assert text == klaw.ok("help", verb) and text.startswith(f"usage: klaw {verb}")
        assert "Exit status" in text and "Examples:" in text and max(map(len, text.splitlines())) <= 110
        done = klaw.run(verb, "--no-such-option")
        assert done.returncode == 2 and done.stderr.startswith(f"klaw {verb}: ") and done.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ["ps", "x"],
        ["stats", "--every", "soon"],
        ["stats", "--every", "1s", "--times", "0"],
        ["stats", "1", "2"],
        ["tree", "--max", "0"],
        ["doctor", "--for", "-1s"],
        ["doctor", "--all", "1"],
        ["top", "--view", "clouds"],
        ["top", "--sort", "beauty"],
        ["top", "--every", "1us"],
        ["workflow", "do"],
        ["workflow", "show"],
        ["workflow", "ls", "--", "true"],
        ["channel", "tail"],
        ["channel", "send"],
        ["channel", "recv", "a", "b"],
        ["channel", "recv", "-n", "0", "a"],
        ["channel", "send", "--timeout", "never", "a"],
        ["completion", "tcsh"],
        ["completion"],
    ],
)
def test_wrong_usage_is_refused(klaw: Klaw, args: list[str]) -> None:
    done = klaw.run(*args)
    assert done.returncode == 2 and done.stderr.startswith(f"klaw {args[0]}: ") and done.stdout == ""


def test_colours_are_for_terminals(klaw: Klaw) -> None:
    with klaw.patient("storm"):
        assert "\033" not in klaw.ok("tree")
        for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            command = f"script -qec '{KLAW} tree' /dev/null"
            done = subprocess.run(
                ["sh", "-c", command], env=klaw.env | env, capture_output=True, timeout=60, check=True
            )
            assert (b"\033[1m" in done.stdout) == coloured


def test_a_reader_that_leaves_is_no_trouble(klaw: Klaw) -> None:
    with klaw.patient("many") as process:
        done = subprocess.run(
            ["sh", "-c", f"{KLAW} tree --max 100000 {process.pid} | head -n 1"],
            env=klaw.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""


def test_closed_descriptors_do_not_become_sockets(klaw: Klaw) -> None:
    with klaw.patient("healthy") as process:
        done = subprocess.run(
            ["sh", "-c", f"{KLAW} stats {process.pid} >&-"], env=klaw.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 3 and "could not be written" in done.stderr
        done = subprocess.run(
            ["sh", "-c", f"{KLAW} ps --quiet <&- 2>&-"], env=klaw.env, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, f"{process.pid}\n")


COMPLETIONS = [("klaw do", "doctor"), ("klaw stats --sn", "--snapshot"), ("klaw top --view ac", "actors")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb_and_option(klaw: Klaw, shell: str) -> None:
    script = klaw.ok("completion", shell)
    for verb in VERBS:
        assert verb in script
    for option in ("retry-failed", "supervisors", "snapshot", "evict"):
        assert option in script


def run_script(klaw: Klaw, shell: list[str], script: str) -> str:
    done = subprocess.run(
        [*shell, f"PATH={KLAW.parent}:$PATH\n" + script if shell[0] != "fish" else script],
        env={**klaw.env, "PATH": f"{KLAW.parent}:{os.environ['PATH']}", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_bash_completes(klaw: Klaw) -> None:
    script = klaw.ok("completion", "bash")
    with klaw.patient("healthy") as process:
        for line, wanted in [*COMPLETIONS, ("klaw tree ", str(process.pid))]:
            words = " ".join(f"'{w}'" for w in line.split(" "))
            ask = f"\nCOMP_WORDS=({words}) COMP_CWORD={line.count(' ')}; _klaw; echo ${{COMPREPLY[@]}}"
            assert run_script(klaw, ["bash", "-c"], script + ask).split() == [wanted]


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_fish_completes(klaw: Klaw) -> None:
    script = klaw.ok("completion", "fish")
    with klaw.patient("healthy") as process:
        for line, wanted in [*COMPLETIONS, ("klaw tree ", str(process.pid)), ("klaw doctor --fo", "--for")]:
            said = run_script(klaw, ["fish", "--no-config", "-c"], script + f"complete -C '{line}'")
            assert [found.split("\t")[0] for found in said.splitlines()] == [wanted]


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_completes(klaw: Klaw, tmp_path: Path) -> None:
    """In a terminal: Tab, Enter, and what the command line was then."""
    (tmp_path / "_klaw").write_text(klaw.ok("completion", "zsh"))
    (tmp_path / ".zshrc").write_text(
        f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D\n"
        "PROMPT='> '; unsetopt beep zle_bracketed_paste\n"
        'klaw() { if [[ $1 == ps ]]; then command klaw $@; else print -r -- "ran:$*:"; fi }\nprint up\n'
    )
    with klaw.patient("healthy") as process:
        ours, theirs = pty.openpty()
        env = {**klaw.env, "ZDOTDIR": str(tmp_path), "TERM": "dumb", "PATH": f"{KLAW.parent}:{os.environ['PATH']}"}
        with subprocess.Popen(["zsh", "-d", "-i"], env=env, stdin=theirs, stdout=theirs, stderr=theirs):
            os.close(theirs)

            def until(what: str) -> str:
                seen = ""
                while what not in seen:
                    assert select.select([ours], [], [], 60)[0], seen
                    seen += os.read(ours, 4096).decode(errors="replace")
                return seen

            until("up\r\n")
            for line, wanted in [*COMPLETIONS, ("klaw tree ", str(process.pid))]:
                os.write(ours, line.encode() + b"\t\n")
                expected = " ".join([*line.split(" ")[1:-1], wanted])
                assert f"ran:{expected}:" in until(":\r\n")
            os.write(ours, b"exit\n")
        os.close(ours)


def test_the_manual_has_a_page_for_each_verb(klaw: Klaw) -> None:
    for name in ["klaw", *(f"klaw-{verb}" for verb in VERBS)]:
        page = (BUILD / "man" / f"{name}.1").read_text()
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"):
            assert f".SH {section}" in page
    assert klaw.ok("--man", "doctor") == (BUILD / "man" / "klaw-doctor.1").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_a_program_may_open_itself(klaw: Klaw) -> None:
    assert PATIENT.exists()
    with klaw.patient("healthy") as process:  # by the option of klaw_run, without KLAW_INSPECT
        assert "KLAW_INSPECT" not in klaw.env
        assert klaw.json("ps", "--json")[0]["pid"] == process.pid
