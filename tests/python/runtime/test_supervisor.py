# SPDX-License-Identifier: Apache-2.0
"""Supervisors: strategies, limits, nesting, hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from klaw_core import Nothing, Ok, Some
from klaw_core.runtime import Supervisor, add_hook, whereis
from klaw_core.runtime._logging import with_level

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.sleep(0.001)


class Worker:
    """Writes down what happens to it."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    async def on_start(self) -> None:
        self.seen.append(f"+{self.name}")

    async def on_stop(self) -> None:
        self.seen.append(f"-{self.name}")

    async def handle(self, msg: str) -> str:
        if msg == "crash":
            raise ValueError(self.name)
        return f"{self.name}:{msg}"


async def three(sup: Supervisor, seen: list[str], **options: Any) -> list[Any]:
    return [await sup.start_child(Worker, name, seen, name=name, **options) for name in "abc"]


# --- strategies ---
@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", "b"), ("one_for_all", "abc"), ("rest_for_one", "bc"), ("dynamic", "b")],
)
async def test_who_is_restarted_when_b_fails(strategy: Any, restarted: str) -> None:
    seen: list[str] = []
    async with Supervisor(strategy) as sup:
        refs = await three(sup, seen)
        before = len(seen)
        assert (await refs[1].ask("crash")).is_err()
        await until(lambda: seen[before:].count("+" + restarted[-1]) == 1)
        for ref, name in zip(refs, "abc", strict=True):
            assert await ref.ask("x", timeout=15) == Ok(f"{name}:x")
        events = seen[before:]
        assert sorted(event[1] for event in events if event[0] == "+") == list(restarted)
        assert [event[1] for event in events if event[0] == "+"] == list(restarted), "left to right"
        stopped = [event[1] for event in events if event[0] == "-" and event[1] != "b"]
        assert stopped == sorted((set(restarted) - {"b"}), reverse=True), "right to left"


async def test_what_is_sent_while_a_group_restarts_waits_for_the_next_incarnation() -> None:
    inside, go = anyio.Event(), anyio.Event()
    seen: list[str] = []
    answers: list[Any] = []

    class Slow(Worker):
        async def handle(self, msg: str) -> str:
            if msg == "hold":
                inside.set()
                await go.wait()
            return await super().handle(msg)

    async with Supervisor("one_for_all") as sup, anyio.create_task_group() as group:
        slow = await sup.start_child(Slow, "slow", seen)
        fails = await sup.start_child(Worker, "fails", seen)
        await slow.send("hold")
        await inside.wait()
        assert (await fails.ask("crash")).is_err()
        await anyio.sleep(0.005)  # the group is being stopped; slow has not ended yet

        async def ask() -> None:
            answers.append(await slow.ask("x", timeout=15))

        group.start_soon(ask)
        await anyio.sleep(0.005)
        assert answers == []
        go.set()
    assert answers == [Ok("slow:x")]


async def test_children_start_left_to_right_and_stop_right_to_left() -> None:
    seen: list[str] = []
    async with Supervisor() as sup:
        await three(sup, seen)
        assert [info.name for info in sup.children()] == ["a", "b", "c"]
        assert {info.state for info in sup.children()} == {"running"}
    assert seen == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert sup.children() == []


# --- policies and limits ---
@pytest.mark.parametrize(
    ("restart", "after_failure", "after_end"),
    [("never", False, False), ("on_failure", True, False), ("always", True, True)],
)
async def test_restart_policies(restart: Any, after_failure: bool, after_end: bool) -> None:
    runs: list[str] = []

    def job(name: str, fails: bool) -> Any:
        async def run() -> None:
            runs.append(name)
            if runs.count(name) == 1:
                if fails:
                    raise OSError(name)
                return
            await anyio.sleep(60)

        return run

    async with Supervisor(max_restarts=10) as sup:
        await sup.start_child(job("fails", True), name="fails", restart=restart)
        await sup.start_child(job("ends", False), name="ends", restart=restart)
        await until(lambda: runs.count("fails") == 1 + after_failure and runs.count("ends") == 1 + after_end)
        await anyio.sleep(0.005)
    assert (runs.count("fails"), runs.count("ends")) == (1 + after_failure, 1 + after_end)


async def test_too_many_restarts_end_everything() -> None:
    seen: list[str] = []
    hooks: list[tuple[str, int]] = []

    def hook(what: str) -> Any:
        return lambda ref, error, attempt: hooks.append((what, attempt))

    async with Supervisor(
        max_restarts=2,
        restart_window=60,
        on_restart=hook("restart"),
        on_failure=hook("failure"),
        on_max_restarts=hook("max"),
    ) as sup:
        refs = await three(sup, seen)
        for _ in range(3):
            assert (await refs[1].ask("crash")).is_err()
        with anyio.fail_after(15):
            await sup.wait()
        assert sup.gave_up
        assert isinstance(sup.error, ValueError)
        assert not any(ref.is_alive for ref in refs)
        with pytest.raises(RuntimeError):
            await sup.start_child(Worker, "d", seen)
    assert [what for what, _ in hooks].count("restart") == 2
    assert [what for what, _ in hooks].count("max") == 1
    assert seen.count("+b") == 3 and seen.count("-a") == 1


async def test_no_restart_at_all() -> None:
    seen: list[str] = []
    async with Supervisor(max_restarts=0) as sup:
        refs = await three(sup, seen)
        await refs[0].send("crash")
        with anyio.fail_after(15):
            await sup.wait()
        assert sup.gave_up
    assert seen.count("+a") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "one_for_some"},
        {"max_restarts": -1},
        {"restart_window": 0},
        {"restart_window": float("nan")},
        {"auto_shutdown": "maybe"},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Supervisor(**options)


async def test_a_child_that_makes_no_sense_is_refused_and_leaves_nothing() -> None:
    async with Supervisor() as sup:
        with pytest.raises(TypeError):
            await sup.start_child(3)
        with pytest.raises(ValueError, match="restart"):
            await sup.start_child(Worker, "a", [], restart="sometimes")  # type: ignore[arg-type]
        assert sup.children() == []


# --- children by hand ---
async def test_a_child_is_stopped_and_started_again() -> None:
    seen: list[str] = []
    async with Supervisor() as sup:
        a, b, c = await three(sup, seen)
        await sup.stop_child("b")
        assert [info.state for info in sup.children()] == ["running", "stopped", "running"]
        assert seen[-1] == "-b"
        assert await a.ask("x") == Ok("a:x") and await c.ask("x") == Ok("c:x")
        with pytest.raises(KeyError):
            await sup.stop_child("nobody")
        assert b is sup.children()[1].child
        assert (await b.ask("x")).is_err()
        await sup.restart_child(b)
        assert await b.ask("x") == Ok("b:x")


async def test_a_first_start_that_fails_is_raised() -> None:
    class Bad(Worker):
        async def on_start(self) -> None:
            raise OSError("no device")

    seen: list[str] = []
    async with Supervisor() as sup:
        good = await sup.start_child(Worker, "good", seen)
        with pytest.raises(OSError, match="no device"), anyio.fail_after(10):
            await sup.start_child(Bad, "bad", seen)
        if not sup.gave_up:
            assert await good.ask("x") == Ok("good:x")


async def test_a_child_that_will_not_stop_is_cancelled() -> None:
    seen = []

    class Deaf:
        async def handle(self, msg: Any) -> None:
            seen.append("inside")
            try:
                await anyio.sleep(60)
            finally:
                seen.append("cancelled")

    async with Supervisor() as sup:
        ref = await sup.start_child(Deaf, shutdown=0.02)
        await ref.send(1)
        await until(lambda: bool(seen))
    await until(lambda: seen == ["inside", "cancelled"])


async def test_registered_children_are_found_by_name() -> None:
    async with Supervisor() as sup:
        ref = await sup.start_child(Worker, "a", [], name="findable", register=True)
        assert whereis("findable") == Some(ref)
        await ref.ask("crash")
        assert whereis("findable") == Some(ref)
    assert whereis("findable") is Nothing


async def test_it_ends_with_its_significant_children() -> None:
    async def short() -> None:
        await anyio.sleep(0.001)

    seen: list[str] = []
    async with Supervisor(auto_shutdown="any_significant") as sup:
        await sup.start_child(Worker, "a", seen)
        await sup.start_child(short, restart="never", significant=True)
        with anyio.fail_after(15):
            await sup.wait()
        assert not sup.gave_up
    assert seen == ["+a", "-a"]


# --- life ---
@pytest.mark.parametrize("how", ["exception", "cancelled"])
async def test_no_child_outlives_the_scope(how: str) -> None:
    seen: list[str] = []
    refs = []
    try:
        with anyio.CancelScope() as scope:
            async with Supervisor() as sup:
                refs = await three(sup, seen)
                if how == "exception":
                    raise KeyError("out")
                scope.deadline = anyio.current_time() + 0.01
                await anyio.sleep(60)
    except KeyError:
        pass
    assert not any(ref.is_alive for ref in refs) and len(refs) == 3
    assert seen == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_children_may_be_defined_before() -> None:
    seen: list[str] = []
    sup = Supervisor()
    for name in "ab":
        sup.add_child(Worker, name, seen, name=name)
    assert seen == []
    async with sup:
        assert seen == ["+a", "+b"]
        with pytest.raises(RuntimeError, match="start_child"):
            sup.add_child(Worker, "c", seen)


# --- nesting ---
async def test_a_nested_one_that_gives_up_is_started_afresh_by_the_outer_one() -> None:
    seen: list[str] = []
    inner = Supervisor(max_restarts=1, restart_window=60, name="inner")
    inner.add_child(Worker, "a", seen, name="a", register=True)
    async with Supervisor(max_restarts=3, restart_window=60, name="outer") as outer:
        await outer.start_child(inner)
        for _ in range(2):
            await whereis("a").unwrap().ask("crash")
        await until(lambda: seen.count("+a") == 3)
        await until(lambda: whereis("a").is_some())
        assert await whereis("a").unwrap().ask("x") == Ok("a:x")
        assert not outer.gave_up
        await until(lambda: outer.children()[0].restarts >= 1)  # told when all of its children run
        assert [info.name for info in outer.children()] == ["inner"]
    assert seen.count("+a") == seen.count("-a")


async def test_a_tree_ends_from_the_leaves() -> None:
    seen: list[str] = []
    inner = Supervisor()
    inner.add_child(Worker, "leaf", seen)
    async with Supervisor() as outer:
        await outer.start_child(Worker, "first", seen)
        await outer.start_child(inner)
        await outer.start_child(Worker, "last", seen)
    assert seen == ["+first", "+leaf", "+last", "-last", "-leaf", "-first"]


async def test_a_nested_one_that_can_not_start_leaves_nothing() -> None:
    async def fail() -> None: ...

    class Bad(Worker):
        async def on_start(self) -> None:
            raise OSError("no device")

    seen: list[str] = []
    inner = Supervisor(max_restarts=1)
    inner.add_child(Worker, "good", seen)
    inner.add_child(Bad, "bad", seen)
    async with Supervisor(max_restarts=1) as outer:
        with pytest.raises(OSError, match="no device"), anyio.fail_after(10):
            await outer.start_child(inner)
    assert seen.count("+good") == seen.count("-good") >= 1


# --- hooks ---
async def test_hooks_get_the_ref_the_error_and_the_attempt() -> None:
    got: list[tuple[Any, str, int]] = []

    async def hook(ref: Any, error: BaseException | None, attempt: int) -> None:
        got.append((ref, repr(error), attempt))

    async with Supervisor(max_restarts=5, on_restart=hook) as sup:
        ref = await sup.start_child(Worker, "a", [])
        for n in range(1, 4):
            await ref.ask("crash")
            await until(lambda n=n: len(got) == n)
    assert got == [(ref, "ValueError('a')", n) for n in (1, 2, 3)]


async def test_restarts_and_failures_are_logged() -> None:
    records: list[dict[str, Any]] = []
    remove = add_hook(records.append)
    with_level("info")
    try:
        async with Supervisor(name="boss") as sup:
            ref = await sup.start_child(Worker, "a", [], name="a")
            await ref.ask("crash")
            await ref.ask("x")
    finally:
        with_level(None)
        remove()
    assert {"a failed", "a restarted"} <= {record["event"] for record in records}
    assert all(record["supervisor"] == "boss" for record in records)
