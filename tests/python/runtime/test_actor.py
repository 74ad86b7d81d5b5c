# SPDX-License-Identifier: Apache-2.0
"""Actors, their addresses, names, restarts, and pools of them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from klaw_core import Err, Nothing, Ok, Result, Some
from klaw_core.runtime import (
    ActorNotFound,
    ActorStopped,
    ActorStoppedError,
    Timeout,
    actor_pool,
    get_actor,
    register,
    spawn_actor,
    unregister,
    whereis,
)

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.001)


class Echo:
    async def handle(self, msg: Any) -> Any:
        return msg


class Log:
    """Keeps what it got; does what messages say."""

    def __init__(self, seen: list[Any] | None = None) -> None:
        self.seen: list[Any] = [] if seen is None else seen
        self.inside = anyio.Event()
        self.go = anyio.Event()

    async def on_start(self) -> None:
        self.seen.append("start")

    async def on_stop(self) -> None:
        await anyio.sleep(0)
        self.seen.append("stop")

    async def handle(self, msg: Any) -> Any:
        self.seen.append(msg)
        if msg == "crash":
            raise ValueError("crash")
        if msg == "wait":
            self.inside.set()
            await self.go.wait()
        return list(self.seen)


# --- messages ---
async def test_an_ask_is_answered_with_ok() -> None:
    ref = await spawn_actor(Echo)
    assert await ref.ask("x") == Ok("x")
    await ref.stop()


@pytest.mark.parametrize("result", [Ok(1), Err("no")])
async def test_a_result_is_the_answer_as_it_is(result: Result[int, str]) -> None:
    ref = await spawn_actor(Echo)
    assert await ref.ask(result) == result
    await ref.stop()


async def test_messages_are_handled_in_the_order_of_their_sender() -> None:
    seen: list[Any] = []
    ref = await spawn_actor(Log, seen)
    for n in range(100):
        await ref.send(n)
    await ref.stop()
    assert seen == ["start", *range(100), "stop"], "stop handles what is in the mailbox"


async def test_one_message_at_a_time() -> None:
    class Alone:
        inside = most = 0

        async def handle(self, msg: int) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await anyio.sleep(0)
            self.inside -= 1

    actor = Alone()
    ref = await spawn_actor(actor)
    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(ref.ask, n)
    await ref.stop()
    assert actor.most == 1


async def test_a_full_mailbox_makes_senders_wait() -> None:
    actor = Log()
    ref = await spawn_actor(actor, capacity=2)
    await ref.send("wait")
    await actor.inside.wait()
    await ref.send(1)
    await ref.send(2)
    with anyio.move_on_after(0.01) as scope:
        await ref.send(3)
    assert scope.cancelled_caught
    assert await ref.ask(4, timeout=0.01) == Err(Timeout(0.01))
    actor.go.set()
    await ref.stop()
    assert actor.seen == ["start", "wait", 1, 2, "stop"]


async def test_who_has_left_is_not_served() -> None:
    actor = Log()
    ref = await spawn_actor(actor)
    await ref.send("wait")
    await actor.inside.wait()
    assert await ref.ask("late", timeout=0.01) == Err(Timeout(0.01))
    with anyio.move_on_after(0.01):
        await ref.ask("cancelled")
    actor.go.set()
    await ref.stop()
    assert "late" not in actor.seen and "cancelled" not in actor.seen


async def test_a_time_limit_while_it_is_handled() -> None:
    actor = Log()
    ref = await spawn_actor(actor)
    assert await ref.ask("wait", timeout=0.01) == Err(Timeout(0.01))
    actor.go.set()
    assert (await ref.ask("next", timeout=20)).is_ok()
    await ref.stop()


async def test_many_tasks_ask_at_once() -> None:
    ref = await spawn_actor(Echo, capacity=3)
    answers = []

    async def ask(n: int) -> None:
        answers.append((n, await ref.ask(n)))

    async with anyio.create_task_group() as group:
        for n in range(200):
            group.start_soon(ask, n)
    assert sorted(answers) == [(n, Ok(n)) for n in range(200)]
    await ref.stop()


async def test_threads_and_other_loops_ask_too() -> None:
    ref = await spawn_actor(Echo)
    answers = []

    def other() -> None:
        answers.append(asyncio.run(ref.ask("from a thread")))

    await anyio.to_thread.run_sync(other)
    assert answers == [Ok("from a thread")]
    await ref.stop()


# --- making ---
async def test_a_class_with_arguments_a_function_an_instance() -> None:
    seen: list[Any] = []
    instance = Log()
    for actor, args in ((Log, (seen,)), (lambda: Log(seen), ()), (instance, ())):
        ref = await spawn_actor(actor, *args)
        assert (await ref.ask("x")).is_ok()
        await ref.stop()
    assert seen == ["start", "x", "stop"] * 2
    assert instance.seen == ["start", "x", "stop"]


@pytest.mark.parametrize(
    ("actor", "args", "options", "error"),
    [
        (3, (), {}, TypeError),
        (Echo(), (1,), {}, TypeError),
        (Echo, (), {"restart": "sometimes"}, ValueError),
        (Echo, (), {"checkpoint": True}, ValueError),
        (Echo, (), {"checkpoint": True, "name": "x", "checkpoint_interval": 0}, ValueError),
        (Echo, (), {"backend": "mars"}, ValueError),
        (Echo, (), {"name": ""}, ValueError),
    ],
)
async def test_what_makes_no_sense_is_refused(actor: Any, args: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await spawn_actor(actor, *args, **options)
    assert whereis("x") is Nothing


@pytest.mark.parametrize("restart", ["never", "on_failure"])
async def test_a_first_start_that_fails_is_raised_and_leaves_nothing(restart: Any) -> None:
    class Bad:
        def __init__(self) -> None:
            raise OSError("no device")

        async def handle(self, msg: Any) -> None: ...

    with pytest.raises(OSError, match="no device"):
        await spawn_actor(Bad, name="bad", restart=restart, max_restarts=2)
    assert whereis("bad") is Nothing


async def test_a_cancelled_spawn_leaves_nothing() -> None:
    seen = []

    class Slow:
        async def on_start(self) -> None:
            seen.append("start")
            try:
                await anyio.sleep(60)
            finally:
                seen.append("end")

        async def handle(self, msg: Any) -> None: ...

    async with anyio.create_task_group() as group:
        group.start_soon(partial(spawn_actor, Slow, name="slow"))
        await until(lambda: bool(seen))
        group.cancel_scope.cancel()
    await until(lambda: whereis("slow") is Nothing)
    assert seen == ["start", "end"]


# --- ending ---
async def test_after_stop_nothing_is_taken() -> None:
    ref = await spawn_actor(Echo, name="gone")
    assert ref.is_alive
    await ref.stop()
    await ref.stop()
    assert not ref.is_alive
    assert await ref.ask(1) == Err(ActorStopped("gone", "stopped"))
    with pytest.raises(ActorStoppedError) as caught:
        await ref.send(1)
    assert caught.value.name == "gone"


async def test_a_failure_reaches_the_asker_and_ends_the_actor() -> None:
    seen: list[Any] = []
    ref = await spawn_actor(Log, seen, name="fails")
    match await ref.ask("crash"):
        case Err(ValueError(args=("crash",))):
            pass
        case other:
            pytest.fail(f"{other!r}")
    await ref.wait()
    match await ref.ask("more"):
        case Err(ActorStopped(name="fails", reason=reason)):
            assert "crash" in reason
        case other:
            pytest.fail(f"{other!r}")
    assert seen == ["start", "crash", "stop"]


async def test_who_waits_for_an_answer_of_an_actor_that_ends_hears_of_it() -> None:
    actor = Log()
    ref = await spawn_actor(actor, capacity=2)
    answers = []

    async def ask(msg: Any) -> None:
        answers.append(await ref.ask(msg))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "wait")
        await actor.inside.wait()
        for n in range(5):  # two in the mailbox, the others before it
            group.start_soon(ask, n)
        await anyio.sleep(0.005)
        await ref.kill()
    assert len(answers) == 6
    assert all(isinstance(answer.error, ActorStopped) for answer in answers)


async def test_kill_cancels_what_it_does_and_still_lets_it_clean_up() -> None:
    actor = Log()
    ref = await spawn_actor(actor)
    await ref.send("wait")
    await ref.send("never")
    await actor.inside.wait()
    await ref.kill()
    assert actor.seen == ["start", "wait", "stop"]
    assert not ref.is_alive
    await ref.kill()


async def test_kill_while_it_is_being_started_again() -> None:
    seen: list[Any] = []
    for delay in range(6):
        ref = await spawn_actor(Log, seen, restart="on_failure", max_restarts=1000)
        await ref.send("crash")
        for _ in range(delay):
            await anyio.sleep(0)
        with anyio.fail_after(10):
            await ref.kill()
        assert not ref.is_alive


async def test_an_actor_may_stop_itself() -> None:
    class Once:
        ref: Any = None

        async def handle(self, msg: Any) -> Any:
            with anyio.fail_after(10):
                await self.ref.stop()
            return msg

    actor = Once()
    actor.ref = ref = await spawn_actor(actor)
    assert await ref.ask("last") == Ok("last")
    with anyio.fail_after(10):
        await ref.wait()
    assert not ref.is_alive


# --- restarts ---
async def test_a_failed_actor_starts_afresh_and_keeps_its_mailbox() -> None:
    made: list[Log] = []

    def make() -> Log:
        made.append(Log())
        return made[-1]

    ref = await spawn_actor(make, restart="on_failure")
    for msg in (1, "crash", 2, 3):
        await ref.send(msg)
    assert await ref.ask("x") == Ok(["start", 2, 3, "x"])
    assert ref.incarnation == 2 == len(made)
    assert made[0].seen == ["start", 1, "crash", "stop"]
    await ref.stop()


async def test_too_many_restarts_end_it() -> None:
    calls: list[tuple[str, str, int]] = []

    def hook(what: str) -> Any:
        async def later(ref: Any, error: BaseException | None, attempt: int) -> None:
            await anyio.sleep(0)
            calls.append((what, repr(error), attempt))

        def now(ref: Any, error: BaseException | None, attempt: int) -> None:
            calls.append((what, repr(error), attempt))

        return later if what == "failure" else now

    ref = await spawn_actor(
        Log,
        restart="on_failure",
        max_restarts=2,
        restart_window=60,
        on_restart=hook("restart"),
        on_failure=hook("failure"),
        on_max_restarts=hook("max"),
    )
    for _ in range(3):
        assert (await ref.ask("crash")).is_err()
    with anyio.fail_after(10):
        await ref.wait()
    assert not ref.is_alive
    whats = [what for what, _, _ in calls]
    assert whats.count("restart") == 2 and whats.count("max") == 1 and whats.count("failure") == 3
    assert all(error == "ValueError('crash')" for _, error, _ in calls)
    assert [attempt for what, _, attempt in calls if what == "restart"] == [1, 2]


async def test_a_hook_that_fails_breaks_nothing() -> None:
    def bad(*_args: Any) -> None:
        raise OSError("hook")

    ref = await spawn_actor(Log, restart="on_failure", on_restart=bad, on_failure=bad)
    assert (await ref.ask("crash")).is_err()
    assert (await ref.ask("x", timeout=20)).is_ok()
    await ref.stop()


async def test_never_means_never() -> None:
    ref = await spawn_actor(Log, restart="never")
    assert (await ref.ask("crash")).is_err()
    await ref.wait()
    assert ref.incarnation == 1


async def test_no_answer_is_lost_over_many_restarts() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    ref = await spawn_actor(Log, restart="on_failure", max_restarts=10_000)
    answers: list[Any] = []

    async def client() -> None:
        for _ in range(30):
            answers.append(await ref.ask(rng.choice(["crash", "a", "b"])))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(client)
    assert len(answers) == 150
    assert all(answer.is_ok() or isinstance(answer.error, ValueError) for answer in answers)
    await ref.stop()


# --- names ---
async def test_a_name_finds_its_actor_until_it_ends() -> None:
    ref = await spawn_actor(Log, name="finder", restart="on_failure")
    assert get_actor("finder") == Ok(ref)
    assert whereis("finder") == Some(ref)
    await ref.ask("crash")
    await ref.ask("x")
    assert whereis("finder") == Some(ref), "a restart keeps it"
    await ref.stop()
    assert whereis("finder") is Nothing
    assert get_actor("finder") == Err(ActorNotFound("finder"))


async def test_a_name_is_one_actors() -> None:
    first = await spawn_actor(Echo, name="only")
    with pytest.raises(ValueError, match="only"):
        await spawn_actor(Echo, name="only")
    assert get_actor("only") == Ok(first)
    await first.stop()
    second = await spawn_actor(Echo, name="only")
    await second.stop()


async def test_further_names_are_given_and_taken() -> None:
    ref = await spawn_actor(Echo)
    register("alias", ref)
    register("alias", ref)
    assert whereis("alias") == Some(ref)
    assert unregister("alias") and not unregister("alias")
    register("again", ref)
    await ref.stop()
    assert whereis("again") is Nothing, "all names go with the actor"
    with pytest.raises(ValueError, match="empty"):
        register("", ref)


# --- pools ---
async def test_a_pool_takes_turns() -> None:
    async with await actor_pool(Log, 3) as pool:
        for n in range(6):
            await pool.send(n)
        got = [(await member.ask("x")).unwrap() for member in pool.members]
    assert got == [["start", 0, 3, "x"], ["start", 1, 4, "x"], ["start", 2, 5, "x"]]


async def test_the_least_loaded_one_is_the_idle_one() -> None:
    made: list[Log] = []

    def make() -> Log:
        made.append(Log())
        return made[-1]

    async with await actor_pool(make, 2, "least_loaded") as pool:
        busy, _idle = pool.members
        await busy.send("wait")
        await made[0].inside.wait()
        for n in range(4):  # asked one after the other: each time the idle one is free
            assert (await pool.ask(n, timeout=20)).unwrap()[-1] == n
        assert made[0].seen == ["start", "wait"]
        made[0].go.set()


async def test_map_answers_in_order() -> None:
    async with await actor_pool(Echo, 3) as pool:
        assert await pool.map(list(range(50))) == [Ok(n) for n in range(50)]
        assert await pool.map([]) == []


async def test_broadcast_reaches_every_member() -> None:
    async with await actor_pool(Log, 3) as pool:
        await pool.broadcast("all")
        assert [(await member.ask("x")).unwrap() for member in pool.members] == [["start", "all", "x"]] * 3


async def test_resizing() -> None:
    async with await actor_pool(Echo, 2) as pool:
        await pool.resize(4)
        assert len(pool) == 4
        old = pool.members
        await pool.resize(1)
        assert len(pool) == 1 and [member.is_alive for member in old] == [True, False, False, False]
        with pytest.raises(ValueError, match="1 or more"):
            await pool.resize(0)
        assert await pool.ask(1) == Ok(1)


async def test_a_member_that_failed_is_restarted_and_one_that_ended_replaced() -> None:
    async with await actor_pool(Log, 2) as pool:
        assert (await pool.ask("crash")).is_err()
        assert {type(answer) for answer in await pool.map(["x"] * 6)} == {Ok}
        assert pool.replaced == 0
        await pool.members[0].stop()
        assert {type(answer) for answer in await pool.map(["x"] * 6)} == {Ok}
        assert pool.replaced == 1


async def test_dead_members_are_replaced_once_however_many_ask() -> None:
    made = []

    class Slow:
        async def on_start(self) -> None:
            made.append(self)
            await anyio.sleep(0.005)

        async def handle(self, msg: Any) -> Any:
            return msg

    async with await actor_pool(Slow, 2) as pool:
        for member in pool.members:
            await member.stop()
        assert await pool.map(list(range(20))) == [Ok(n) for n in range(20)]
        assert pool.replaced == 2 and len(made) == 4 and len(pool) == 2


async def test_shrinking_while_members_are_replaced() -> None:
    class Slow:
        async def on_start(self) -> None:
            await anyio.sleep(0.005)

        async def handle(self, msg: Any) -> Any:
            return msg

    async with await actor_pool(Slow, 3) as pool:
        for member in pool.members:
            await member.stop()
        async with anyio.create_task_group() as group:
            for n in range(6):
                group.start_soon(pool.ask, n)
            await anyio.sleep(0.001)
            group.start_soon(pool.resize, 1)
        assert len(pool) == 1
        assert await pool.ask("x") == Ok("x")


async def test_a_stopped_pool_takes_nothing() -> None:
    pool = await actor_pool(Echo, 2)
    members = pool.members
    await pool.stop()
    await pool.stop()
    assert not any(member.is_alive for member in members)
    assert isinstance((await pool.ask(1)).error, ActorStopped)
    with pytest.raises(ActorStoppedError):
        await pool.send(1)


async def test_leaving_a_pool_by_a_cancelled_scope_ends_its_members() -> None:
    with anyio.CancelScope() as scope:
        async with await actor_pool(Log, 2) as pool:
            members = pool.members
            await pool.send("wait")
            scope.deadline = anyio.current_time() + 0.01
            await anyio.sleep(60)
    assert not any(member.is_alive for member in members)


async def test_a_pool_of_actors_that_can_not_start_leaves_none() -> None:
    made = []

    def make() -> Echo:
        made.append(1)
        if len(made) == 3:
            raise OSError("no more")
        return Echo()

    threads = threading.active_count()
    with pytest.raises(OSError, match="no more"):
        await actor_pool(make, 5)
    assert threading.active_count() == threads
    with pytest.raises(ValueError, match="round_robin"):
        await actor_pool(Echo, 2, "magic")  # type: ignore[arg-type]
