# SPDX-License-Identifier: Apache-2.0
"""Checkpointers, workflows, actors whose state is kept; processes that are killed in the middle."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from klaw_core import Ok
from klaw_core.runtime import (
    Checkpointer,
    LocalCheckpointer,
    TaskCancelledError,
    Workflow,
    current_context,
    spawn_actor,
)
from klaw_core.runtime.context import context

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.sleep(0.001)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    return f"{tmp_path}/own/"


# --- checkpointers ---
async def test_what_is_saved_is_loaded(folder: str) -> None:
    store = LocalCheckpointer(folder)
    assert isinstance(store, Checkpointer)
    assert await store.load("job") is None
    await store.save("job", {"done": 3})
    await store.save("job", {"done": 4})
    assert await store.load("job") == {"done": 4}
    assert await LocalCheckpointer(folder).load("job") == {"done": 4}


async def test_keys_are_listed_and_deleted(folder: str) -> None:
    store = LocalCheckpointer(pathlib.Path(folder))
    for key in ("b", "a/2", "a/1"):
        await store.save(key, key)
    assert await store.list() == ["a/1", "a/2", "b"]
    assert await store.list("a/") == ["a/1", "a/2"]
    assert await store.delete("a/1") and not await store.delete("a/1")
    assert await store.list() == ["a/2", "b"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
async def test_any_plain_value_goes_round(folder: str, value: Any) -> None:
    store = LocalCheckpointer(folder)
    await store.save("value", value)
    assert await store.load("value") == value


async def test_structs_and_dataclasses_come_back_as_dicts(folder: str) -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    class Struct(msgspec.Struct):
        y: int

    store = LocalCheckpointer(folder)
    await store.save("both", [Point(1), Struct(2)])
    assert await store.load("both") == [{"x": 1}, {"y": 2}]


async def test_what_can_not_be_kept_is_refused(folder: str) -> None:
    store = LocalCheckpointer(folder)
    await store.save("key", 1)
    with pytest.raises(TypeError):
        await store.save("key", object())
    assert await store.load("key") == 1


async def test_a_place_that_can_not_be_had_is_named() -> None:
    with pytest.raises(OSError, match="/proc/nowhere"):
        await LocalCheckpointer("/proc/nowhere/").save("key", 1)


async def test_many_tasks_save_at_once(folder: str) -> None:
    store = LocalCheckpointer(folder)
    async with anyio.create_task_group() as group:
        for n in range(30):
            group.start_soon(store.save, f"key{n:02}", n)
    assert [await store.load(key) for key in await store.list()] == list(range(30))


# --- actors ---
class Counter:
    def __init__(self) -> None:
        self.n = 0

    async def handle(self, msg: Any) -> int:
        if msg == "crash":
            raise ValueError
        if msg == "wait":
            await anyio.sleep(60)
        self.n += msg
        return self.n

    def snapshot(self) -> int:
        return self.n

    async def restore(self, value: int) -> None:
        self.n = value


async def test_an_actors_state_is_kept_when_it_stops(folder: str) -> None:
    store = LocalCheckpointer(folder)
    for want in (5, 10):
        ref = await spawn_actor(Counter, name="counter", checkpoint=store)
        assert await ref.ask(5) == Ok(want)
        await ref.stop()
    assert await store.list("actor/") == ["actor/counter"]


async def test_the_state_is_kept_every_interval_and_given_to_the_next_incarnation(folder: str) -> None:
    store = LocalCheckpointer(folder)
    ref = await spawn_actor(
        Counter, name="counter", checkpoint=store, checkpoint_interval=0.01, restart="on_failure", max_restarts=100
    )
    assert await ref.ask(7) == Ok(7)
    with anyio.fail_after(15):
        while await store.load("actor/counter") != 7:
            await anyio.sleep(0.005)
    assert (await ref.ask("crash")).is_err()
    assert await ref.ask(1) == Ok(8)
    await ref.stop()


async def test_a_busy_actor_is_kept_too(folder: str) -> None:
    store = LocalCheckpointer(folder)
    ref = await spawn_actor(Counter, name="counter", checkpoint=store, checkpoint_interval=0.01)
    with anyio.fail_after(15):
        while not await store.load("actor/counter"):
            for _ in range(10):
                await ref.send(1)
    await ref.stop()


async def test_a_killed_actor_keeps_what_it_had_kept(folder: str) -> None:
    store = LocalCheckpointer(folder)
    await store.save("actor/counter", 3)
    ref = await spawn_actor(Counter, name="counter", checkpoint=store)
    await ref.ask(1)
    await ref.send("wait")
    await ref.kill()
    assert await store.load("actor/counter") == 3


async def test_with_true_it_is_the_configured_store() -> None:
    ref = await spawn_actor(Counter, name="configured", checkpoint=True)
    await ref.ask(2)
    await ref.stop()
    assert await LocalCheckpointer().load("actor/configured") == 2


# --- workflows ---
async def test_done_steps_do_not_run_again(folder: str) -> None:
    ran: list[str] = []

    async def fetch(url: str) -> str:
        ran.append("fetch")
        await anyio.sleep(0)
        return f"page of {url}"

    def count(text: str, *, by: int) -> int:
        ran.append("count")
        return len(text) * by

    async def run(fail: bool) -> Any:
        async with Workflow("report", path=folder) as wf:
            page = await wf.step("fetch", fetch, "a")
            if fail:
                raise KeyError("later")
            wf.result = await wf.step("count", count, page, by=2)
        return wf

    with pytest.raises(KeyError):
        await run(True)
    assert ran == ["fetch"]
    wf = await run(False)
    assert (wf.result, wf.done, ran) == (18, True, ["fetch", "count"])
    async with Workflow("report", path=folder) as again:
        assert again.done and again.result == 18
        assert await again.step("fetch", fetch, "b") == "page of a"
    assert ran == ["fetch", "count"]


@pytest.mark.parametrize("plain", [True, False])
async def test_a_step_that_fails_is_raised_and_the_next_run_tries_again(folder: str, plain: bool) -> None:
    calls = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(f"call {len(calls)}")
        return len(calls)

    async def flaky_later() -> int:
        await anyio.sleep(0)
        return flaky()

    fn = flaky if plain else flaky_later
    with pytest.raises(OSError, match="call 1"):
        async with Workflow("flaky", path=folder) as wf:
            await wf.step("s", fn)
    async with Workflow("flaky", path=folder) as wf:
        assert await wf.step("s", fn, attempts=3, backoff=0.001) == 3
        with pytest.raises(ValueError, match="asked for it before"):
            await wf.step("s", fn)
    assert len(calls) == 3


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_cancelled_step_is_run_again(folder: str, native: bool, anyio_backend: str) -> None:
    if native and anyio_backend == "trio":
        pytest.skip("asyncio's own")
    ran: list[str] = []

    async def step(seconds: float) -> int:
        ran.append("begin")
        await anyio.sleep(seconds)
        return 1

    async def first() -> None:
        async with Workflow("cut", path=folder) as wf:
            await wf.step("s", step, 60)

    if native:
        task = asyncio.create_task(first())
        await until(lambda: bool(ran))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(0.1) as scope:
            await first()
        assert scope.cancelled_caught
    async with Workflow("cut", path=folder) as wf:
        assert not wf.done
        assert await wf.step("s", step, 0) == 1


@pytest.mark.parametrize("plain", [False, True])
async def test_a_step_that_is_cancelled_before_it_begins_ends_at_once(folder: str, plain: bool) -> None:
    async def step() -> None:
        ran.append(1)
        await anyio.sleep(60)

    ran: list[int] = []
    for delay in (0, 0.001, 0.002, 0.004, 0.008):
        with anyio.CancelScope() as scope:
            async with Workflow("early", path=folder) as wf, anyio.create_task_group() as group:

                async def cancel(delay: float = delay, scope: anyio.CancelScope = scope) -> None:
                    await anyio.sleep(delay)
                    scope.cancel()

                group.start_soon(cancel)
                if plain:
                    scope.cancel()
                await wf.step("s", step)
        assert scope.cancelled_caught
        assert not (await Workflow.show("early", path=folder)).leased


async def test_steps_run_in_the_callers_context(folder: str) -> None:
    def plain() -> str | None:
        return current_context().request_id

    async def coroutine() -> str | None:
        return current_context().request_id

    async with Workflow("ctx", path=folder) as wf:
        with context(request_id="r1"):
            assert await wf.step("a", plain) == "r1"
            assert await wf.step("b", coroutine) == "r1"


async def test_another_list_of_steps_or_version_is_refused(folder: str) -> None:
    with pytest.raises(KeyError):
        async with Workflow("defined", path=folder, steps=["a", "b"], version="1") as wf:
            await wf.step("a", lambda: 1)
            raise KeyError
    for options in ({"steps": ["a", "c"]}, {"steps": ["a", "b"], "version": "2"}):
        with pytest.raises(ValueError):
            async with Workflow("defined", path=folder, **options):  # type: ignore[arg-type]
                pytest.fail("it ran")
    async with Workflow("defined", path=folder, steps=["a", "b"], version="1") as wf:
        assert await wf.step("a", lambda: 2) == 1


async def test_one_runs_it_at_a_time(folder: str) -> None:
    async with Workflow("single", path=folder) as wf:
        with pytest.raises(RuntimeError):
            async with Workflow("single", path=folder):
                pytest.fail("it ran twice")
        await wf.step("a", lambda: 1)


# --- killed in the middle ---
PROGRAM = """
import anyio, sys, time
from klaw_core.runtime import Workflow

folder, log = sys.argv[1:]

def note(text):
    with open(log, "a") as file:
        file.write(text + "\\n")

async def work(n):
    note(f"step {n}")
    if n == 3 and open(log).read().count("step 3") == 1:
        note("hold")
        time.sleep(60)
    return n * n

async def main():
    async with Workflow("killed", path=folder) as wf:
        wf.result = [await wf.step(f"s{n}", work, n) for n in range(6)]
    print(wf.result)

anyio.run(main)
"""


def test_a_workflow_whose_process_is_killed_is_resumed(folder: str, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM, folder, str(log)]
    child = subprocess.Popen(command)
    limit = time.monotonic() + 15
    while not (log.exists() and "hold" in log.read_text()):
        assert child.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    assert done.stdout == "[0, 1, 4, 9, 16, 25]\n"
    steps = [line for line in log.read_text().splitlines() if line != "hold"]
    assert steps == [f"step {n}" for n in (0, 1, 2, 3, 3, 4, 5)], "only the interrupted one ran twice"


def test_killed_between_saves_the_last_confirmed_value_is_there(folder: str, tmp_path: pathlib.Path) -> None:
    program = (
        "import asyncio, sys\nfrom klaw_core.runtime import LocalCheckpointer\n"
        "async def main():\n    store = LocalCheckpointer(sys.argv[1])\n    n = 0\n"
        "    while True:\n        n += 1\n        await store.save('n', n)\n        print(n, flush=True)\n"
        "asyncio.run(main())"
    )
    child = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(5):
        child.stdout.readline()
    child.kill()
    rest = child.stdout.read().split()
    child.wait()
    confirmed = int(rest[-1]) if rest else 5
    kept = asyncio.run(LocalCheckpointer(folder).load("n"))
    assert kept in (confirmed, confirmed + 1)
    assert os.path.isdir(folder)


# --- looking after workflows ---
async def test_workflows_are_listed_and_shown(folder: str) -> None:
    with pytest.raises(LookupError):
        await Workflow.show("nothing", path=folder)
    assert await Workflow.list(path=folder) == []
    async with Workflow("a/one", path=folder, steps=["add", "later"], version="v1") as wf:
        await wf.step("add", sum, [1, 2])
        now = await Workflow.show("a/one", path=folder)
        assert (now.state, now.leased, now.declared, now.version) == ("running", True, True, "v1")
        assert not now.interrupted and now.owner_pid == os.getpid() and now.n_steps == 2 and now.steps_done == 1
        await wf.step("later", sum, [3])
    async with Workflow("b", path=folder):
        pass
    assert [info.name for info in await Workflow.list(path=folder)] == ["a/one", "b"]
    [info] = await Workflow.list("a/", path=folder)
    assert info.state == "done" and not info.leased and info.steps == () and info.error is None
    assert info.created and info.finished and info.created <= info.finished <= time.time() + 1
    steps = (await Workflow.show("a/one", path=folder)).steps
    assert [(s.name, s.state, s.attempts, s.error) for s in steps] == [
        ("add", "done", 1, None),
        ("later", "done", 1, None),
    ]
    assert all(s.started and s.finished and s.size > 0 for s in steps)


async def test_what_became_of_a_step_is_told(folder: str) -> None:
    def fails() -> None:
        raise OSError("no such thing")

    async def waits() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(60)
        raise TaskCancelledError("enough")

    calls = []

    def is_ended() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError):
        async with Workflow("w", path=folder, steps=["fails", "waits", "ended", "never"]) as wf:
            with pytest.raises(OSError, match="no such"):
                await wf.step("fails", fails, attempts=2, backoff=0.001)
            with pytest.raises(TaskCancelledError):
                await wf.step("waits", waits)
            with pytest.raises(KeyboardInterrupt):
                await wf.step("ended", is_ended, attempts=3, backoff=0.001)
            raise ZeroDivisionError("of the whole")
    info = await Workflow.show("w", path=folder)
    assert info.state == "failed" and "of the whole" in info.message and not info.interrupted
    assert [(s.name, s.state, s.attempts, s.error) for s in info.steps] == [
        ("fails", "failed", 2, "KLAW_BACKEND"),
        ("waits", "failed", 1, "KLAW_CANCELLED"),
        ("ended", "failed", 1, "KLAW_CANCELLED"),
        ("never", "pending", 0, None),
    ]
    assert "no such thing" in info.steps[0].message and len(calls) == 1, "what was ended is not tried again"


async def test_a_cancelled_workflow_is_refused_until_it_is_resumed(folder: str) -> None:
    with pytest.raises(LookupError):
        await Workflow.cancel("w", path=folder)
    with pytest.raises(LookupError):
        async with Workflow.resume("w", path=folder):
            pass
    assert await Workflow.list(path=folder) == [], "resuming begins nothing"
    with pytest.raises(TaskCancelledError):
        async with Workflow("w", path=folder) as wf:
            await wf.step("one", sum, [1])
            await Workflow.cancel("w", "not now", path=folder)
            await wf.step("two", sum, [2])
    info = await Workflow.show("w", path=folder)
    assert info.message == "not now" and info.steps_done == 1
    with pytest.raises(TaskCancelledError, match="not now"):
        async with Workflow("w", path=folder):
            pass
    async with Workflow.resume("w", path=folder) as wf:
        assert await wf.step("one", sum, [100]) == 1
        await wf.step("two", sum, [2])
    with pytest.raises(ValueError, match="w"):
        await Workflow.cancel("w", path=folder)
    await Workflow.delete("w", path=folder)
    with pytest.raises(LookupError):
        await Workflow.delete("w", path=folder)


async def test_who_is_evicted_keeps_nothing(folder: str) -> None:
    with pytest.raises(LookupError):
        await Workflow.evict("w", path=folder)
    with pytest.raises(RuntimeError):
        async with Workflow("w", path=folder) as wf:
            await wf.step("one", sum, [1])
            with pytest.raises(RuntimeError):
                await Workflow.delete("w", path=folder)
            await Workflow.evict("w", path=folder)
            assert (await Workflow.show("w", path=folder)).interrupted
            async with Workflow("w", path=folder) as other:
                assert await other.step("one", sum, [100]) == 1
            await wf.step("two", sum, [2])
    info = await Workflow.show("w", path=folder)
    assert info.state == "done" and [s.name for s in info.steps] == ["one"]
