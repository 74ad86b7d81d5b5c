# SPDX-License-Identifier: Apache-2.0
"""Inspection from outside: what a Python process answers to the klaw command, and that it answers at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from klaw_core import _klaw
from klaw_core.runtime import Supervisor, _config, _inspect, channel, get_config, init, spawn_actor

KLAW = Path(_klaw.__file__).resolve().parents[2] / "bin" / "klaw"
TIMEOUT = 60


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="klaw-py-"))  # short: a socket's path has 107 bytes
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made)


def ask(what: str = "snapshot", path: str | None = None) -> dict[str, Any]:
    """What a process answers; this one unless told."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(TIMEOUT)
        s.connect(path or _klaw.inspect_path() or "")
        s.sendall(f"klaw/1 {what}\n".encode())
        with s.makefile("rb") as answer:
            head = answer.readline().split()
            assert head[:2] == [b"klaw/1", b"ok"], head
            found: dict[str, Any] = json.loads(answer.read(int(head[2])))
            return found


class Clerk:
    def __init__(self) -> None:
        self.inside = anyio.Event()
        self.go = anyio.Event()

    async def handle(self, msg: str) -> str:
        if msg == "fail":
            raise ValueError("no paper")
        if msg == "wait":
            self.inside.set()
            await self.go.wait()
        return msg


@pytest.mark.anyio
async def test_channels_actors_supervisors_and_tasks_are_seen(folder: Path, anyio_backend: object) -> None:
    assert not get_config().inspect
    assert init(inspect=True).inspect
    tx, rx = await channel(16, name="seen here")
    clerk = Clerk()
    ref = await spawn_actor(clerk, name="clerk")
    await ref.ask("hello")
    await ref.send("wait")
    await clerk.inside.wait()
    await ref.send("more")
    async with anyio.create_task_group() as group, Supervisor(name="top") as top:
        child = await top.start_child(Clerk, name="child")
        await child.ask("fail")
        assert (await child.ask("again")).unwrap() == "again"
        inner = Supervisor("rest_for_one", name="inner")
        inner.add_child(Clerk, name="leaf")
        await top.start_child(inner, name="inner")
        group.start_soon(rx.recv)
        await anyio.wait_all_tasks_blocked()
        seen = ask()
        actors = {a["name"]: a for a in seen["actors"]}
        assert set(actors) == {"clerk", "child", "leaf"}
        assert actors["clerk"]["state"] == "running" and actors["clerk"]["handled"] == 1
        assert actors["clerk"]["mailbox_size"] == 1 and actors["clerk"]["capacity"] == 1000
        assert (
            actors["child"]["restarts"] == 1 and actors["child"]["failed"] == 1 and actors["child"]["state"] == "idle"
        )
        sups = {s["name"]: s for s in seen["supervisors"]}
        assert set(sups) == {"top", "inner"} and sups["inner"]["strategy"] == "rest_for_one"
        assert sups["top"]["restarts"] == 1 and sups["top"]["active"] == 2
        children = {c["name"]: c for c in seen["supervisions"]}
        assert children["child"]["id"] == actors["child"]["id"] and children["child"]["kind"] == "actor"
        assert children["child"]["last_detail"] == "ValueError: no paper"
        assert children["inner"]["id"] == sups["inner"]["id"] and children["inner"]["kind"] == "supervisor"
        assert children["leaf"]["supervisor_id"] == sups["inner"]["id"]
        tasks = {t["id"]: t["name"] for t in seen["tasks"]}
        # Of this channel alone: tasks of other tests may still be parked in this process, on loops that are closed.
        (here,) = [c["id"] for c in seen["channels"] if c["name"] == "seen here"]
        waits = [w for w in seen["waits"] if w["channel_id"] == here]
        assert [w["host"] for w in waits] == ["foreign"] and not waits[0]["sends"] and waits[0]["host_id"] in tasks
        await tx.send(1)
    clerk.go.set()
    await ref.stop()
    after = ask()
    assert after["actors"] == after["supervisors"] == after["supervisions"] == []


@pytest.mark.anyio
async def test_a_process_that_is_not_open_shows_nothing_and_costs_nothing(anyio_backend: object) -> None:
    assert _klaw.inspect_path() is None and not _inspect.on
    ref = await spawn_actor(Clerk, name="clerk")
    assert ref._shown is None
    await ref.stop()


def test_an_open_process_is_closed_with_its_configuration(folder: Path) -> None:
    init(inspect=True)
    path = _klaw.inspect_path()
    assert path and ask("stats")["pid"] == os.getpid()
    _config._forget()
    assert _klaw.inspect_path() is None and not Path(path).exists() and not _inspect.on


def test_a_published_object_is_one_of_three_kinds() -> None:
    with pytest.raises(ValueError, match="'task', 'actor' or 'supervisor', not 'cloud'"):
        _klaw.Published("cloud", "x")
    shown = _klaw.Published("supervisor", "x" * 100)
    with pytest.raises(TypeError):
        shown.supervisor(False, 0, [("name",)])  # type: ignore[list-item]
    assert shown.id > 0
    shown.end()
    shown.end()
    assert shown.id == 0
    shown.supervisor(False, 0, [])
    shown.actor_idle()


def test_a_label_that_fails_harms_nobody() -> None:
    def broken() -> int:
        raise RuntimeError

    async def main() -> int:
        _tx, rx = await channel(1)
        async with anyio.create_task_group() as group:

            async def later() -> None:
                await anyio.sleep(0)
                await _tx.send(7)

            group.start_soon(later)
            return int(await rx.recv())

    _klaw.inspect_labels(broken)
    try:
        assert anyio.run(main) == 7
    finally:
        _klaw.inspect_labels(None)


PROGRAM = """
import asyncio, sys
from klaw_core.runtime import Supervisor, channel, spawn_actor

class Clerk:
    async def handle(self, msg):
        await asyncio.Event().wait()

async def flaky():
    await asyncio.sleep(0.02)
    raise ValueError("again")

async def main():
    clerk = await spawn_actor(Clerk, name="clerk")
    for i in range(3):
        await clerk.send(i)
    async with Supervisor(max_restarts=1000000, restart_window=1, name="top") as top:
        await top.start_child(flaky, name="flaky")
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def program(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"KLAW_INSPECT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build")
def test_the_klaw_command_sees_it(program: subprocess.Popen[str]) -> None:
    def klaw(*args: str) -> str:
        done = subprocess.run([KLAW, *args], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    assert klaw("ps", "--quiet") == f"{program.pid}\n"
    assert "flaky" in klaw("tree", "--supervisors")
    findings = json.loads(klaw("doctor", "--json", "--for", "1s"))[0]["findings"]
    assert {f["kind"] for f in findings} == {"stuck", "restarts"}
    assert any("actor 'clerk'" in f["text"] and "2 messages wait" in f["text"] for f in findings)
    assert "ValueError: again" in next(f["text"] for f in findings if f["kind"] == "restarts")
    assert "Clerk" in klaw("top", "--once", "--every", "50ms", "--view", "actors")


def test_a_process_that_stands_still_answers_all_the_same(folder: Path) -> None:
    """Python's lock is held for ever; that is when people look."""
    code = "import klaw_core.runtime, re; print('ready', flush=True); re.match(r'(a+)+$', 'a' * 64 + 'b')"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"KLAW_INSPECT": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        try:
            assert ask("stats", f"{folder}/klaw/{process.pid}.sock")["program"].startswith("python")
        finally:
            process.kill()


def test_a_folder_that_can_not_be_trusted_is_a_warning(folder: Path) -> None:
    (folder / "klaw").mkdir()
    (folder / "klaw").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", "import klaw_core.runtime; print('goes on')"],
        env=os.environ | {"KLAW_INSPECT": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == "goes on\n" and "RuntimeWarning" in done.stderr and "0700" in done.stderr


HEAD = """
import asyncio, threading, time
from klaw_core.runtime import channel
keep = []
def hold(tx):
    time.sleep(100)
async def wait(tx):
    await asyncio.sleep(100)
async def left(inbox, out):
    await out.send("hello")
    await inbox.recv()
    await inbox.recv()
async def right(inbox, out):
    await inbox.recv()
    await out.send("hi")
    await inbox.recv()
async def take(first, second):
    async with first:
        await asyncio.sleep(0.01)
        async with second:
            pass
def locks(*more):
    a, b = asyncio.Lock(), asyncio.Lock()
    return asyncio.gather(asyncio.create_task(take(a, b), name="ab"), asyncio.create_task(take(b, a), name="ba"), *more)
def left_thread(inbox, out):
    out.send_sync("hello")
    inbox.recv_sync()
    inbox.recv_sync()
def right_thread(inbox, out, timeout):
    inbox.recv_sync()
    out.send_sync("hi")
    inbox.recv_sync(timeout=timeout)
def threads(timeout):
    to_left, left_in = asyncio.run(channel(1, name="to left"))
    to_right, right_in = asyncio.run(channel(1, name="to right"))
    begun = [
        threading.Thread(target=left_thread, args=(left_in, to_right), name="left", daemon=True),
        threading.Thread(target=right_thread, args=(right_in, to_left, timeout), name="right", daemon=True),
    ]
    for t in begun:
        t.start()
    time.sleep(0.05)
    print("ready", flush=True)
    return begun[0]
async def all_of(*mains):
    begun = [asyncio.create_task(main()) for main in mains]
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.sleep(100)
"""


def tasks(name: str, then: str, end: str) -> str:
    """A coroutine function: two tasks that wait for each other; `then` happens to the endpoints, `end` follows."""
    return f"""
async def {name}():
    to_left, left_in = await channel(1, name="{name} left")
    to_right, right_in = await channel(1, name="{name} right")
    tasks = [
        asyncio.create_task(left(left_in, to_right), name="left"),
        asyncio.create_task(right(right_in, to_left), name="right"),
    ]
    del left_in, right_in
    {then}
    await asyncio.sleep(0.05)
    {end}
"""


ALONE = 'asyncio.get_running_loop().call_soon(print, "ready"); '
DROP = "del to_left, to_right"
FOREVER = "await asyncio.Event().wait()"
DEADLOCKS = [  # each is named with what it waits for, whoever else lives
    (
        tasks("one", DROP, "await asyncio.sleep(100)")
        + "async def two():\n    await locks(asyncio.sleep(100))\nasyncio.run(all_of(one, two))",
        ["task 'left'", "task 'right'", "'one left'", "'one right'", "task 'ab'", "task 'ba'", "waits for a Future"],
    ),
    (tasks("main", "", f"{ALONE}await asyncio.gather(*tasks)") + "asyncio.run(main())", ["task 'left'"]),
    (f"async def main():\n    {ALONE}await locks()\nasyncio.run(main())", ["task 'ab'", "task 'ba'"]),
    ("threads(None).join()", ["thread left", "thread MainThread"]),
]
OTHERS = [  # somebody may go on
    "".join(
        tasks(f"main{n}", *how)
        for n, how in enumerate(
            [
                ("", "await asyncio.sleep(100)"),  # main has the endpoints, too
                (f"keep.append((to_left, to_right)); {DROP}", FOREVER),  # a global has them
                (DROP, "async with asyncio.timeout(100): await asyncio.gather(*tasks)"),
                (f"asyncio.get_running_loop().call_later(100, to_left.close_sync); {DROP}", FOREVER),
                (f"keep.append(asyncio.create_task(wait(to_right))); {DROP}", FOREVER),
                # only a frame of another thread has it, which the collector does not see
                (f"asyncio.get_running_loop().run_in_executor(None, hold, to_right); {DROP}", FOREVER),
            ]
        )
    )
    + "asyncio.run(all_of(main0, main1, main2, main3, main4, main5))",
    "threads(None); time.sleep(100)",
    "threads(None).join(100)",
    "threads(100).join()",
]


@pytest.mark.skipif(not KLAW.exists(), reason="no klaw command in this build")
@pytest.mark.parametrize("programs", [DEADLOCKS, [(code, []) for code in OTHERS]], ids=["deadlocks", "others"])
def test_a_deadlock_of_tasks_or_threads_is_named_and_no_other_one(
    folder: Path, programs: list[tuple[str, list[str]]]
) -> None:
    with contextlib.ExitStack() as stack:
        begun = []
        for code, named in programs:
            command = [sys.executable, "-u", "-c", HEAD + code]
            process = stack.enter_context(
                subprocess.Popen(command, env=os.environ | {"KLAW_INSPECT": "1"}, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            begun.append((process, code, named))
        for process, code, named in begun:
            assert process.stdout and process.stdout.readline() == "ready\n"
            deadline = time.monotonic() + TIMEOUT
            while True:
                command = [str(KLAW), "doctor", "--for", "100ms", str(process.pid)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
                if not named or all(part in done.stdout for part in named) or time.monotonic() > deadline:
                    break
            assert done.returncode == (1 if named else 0), code + done.stdout + done.stderr
            for part in named:
                assert part in done.stdout, code + done.stdout
